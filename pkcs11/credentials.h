/*
 * Credentials for a service: immutable once made, shared by reference between
 * the requests in flight, in secret memory. AWS uses all three texts, OpenBao
 * the token only.
 */
#ifndef PKCS11_CREDENTIALS_H
#define PKCS11_CREDENTIALS_H

#include <stdbool.h>
#include <stdint.h>

struct credentials; /* opaque: made, read, shared, released */

/* The texts are copied; NULL counts as "". expires: wall clock, 0 = never. NULL with the error raised. */
struct credentials *credentials_new(const char *id, const char *secret, const char *token, int64_t expires);
const char *credentials_id(const struct credentials *credentials);
const char *credentials_secret(const struct credentials *credentials);
const char *credentials_token(const struct credentials *credentials);
int64_t credentials_expires(const struct credentials *credentials);
/* When they are to be renewed, if not shortly before they expire: this long before it. */
void credentials_set_early(struct credentials *credentials, int64_t early);
int64_t credentials_early(const struct credentials *credentials); /* 0: not set */
/* Where they came from, for messages ("environment", "instance metadata"); static text. */
void credentials_set_source(struct credentials *credentials, const char *source);
const char *credentials_source(const struct credentials *credentials);

struct credentials *credentials_ref(struct credentials *credentials);
/* Wipes with the last reference. NULL is allowed. */
void credentials_unref(struct credentials *credentials);

#endif
