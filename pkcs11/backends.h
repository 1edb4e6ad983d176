/* The backends this build knows; a new one is added to the list in backends.c. */
#ifndef PKCS11_BACKENDS_H
#define PKCS11_BACKENDS_H

#include "backend.h"

extern const struct backend *const backends_known[]; /* NULL-terminated */

extern const struct backend aws_backend;
extern const struct backend bao_backend;

#endif
