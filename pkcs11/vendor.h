/* The functions C_GetInterface hands out under ENVELOPE_KMS_INTERFACE. */
#ifndef PKCS11_VENDOR_H
#define PKCS11_VENDOR_H

#include "p11.h"

#include <envelope/pkcs11-kms.h>

extern const CK_ENVELOPE_KMS_FUNCTIONS vendor_functions;

#endif
