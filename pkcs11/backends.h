/* The backends this build knows; a new one is added to the list in backends.c. */
#ifndef PKCS11_BACKENDS_H
#define PKCS11_BACKENDS_H

#include "backend.h"

extern const struct backend *const backends_known[]; /* NULL-terminated */

extern const struct backend aws_backend;
extern const struct backend bao_backend;
extern const struct backend azure_backend;
extern const struct backend azure_hsm_backend;
extern const struct backend gcp_backend;

#endif
