/* The local machine as a backend may see it: the environment and small files. */
#ifndef PKCS11_LOCAL_H
#define PKCS11_LOCAL_H

#include <stddef.h>

#include <envelope/status.h>

#include "buffer.h"

enum { LOCAL_FILE_MAX = 1 << 20 };

/* NULL if unset or empty; always NULL in a setuid program. */
const char *local_env(const char *name);
/* The whole file, at most LOCAL_FILE_MAX bytes. Raises ENVELOPE_E_IO naming the path. */
envelope_status local_read(const char *path, struct buffer *contents);
/* As local_read, without one trailing newline: tokens, PINs. */
envelope_status local_read_line(const char *path, struct buffer *contents);

#endif
