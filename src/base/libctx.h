/*
 * The private library context: all of our own cryptography runs in it, and it
 * is made the thread's default around every call into a PKCS#11 module, since
 * modules such as SoftHSM use libcrypto themselves and would otherwise call
 * back into us. It is made at first use and lives until the process ends:
 * modules cache what they fetch from it.
 */
#ifndef BASE_LIBCTX_H
#define BASE_LIBCTX_H

#include <stdbool.h>
#include <openssl/types.h>

#include <envelope/status.h>

/* Choose "default" or "fips" as the provider inside; before first use, else ignored. */
void libctx_choose_provider(const char *name);

/* NULL, with the error raised, if its provider cannot be loaded. Thread-safe. */
OSSL_LIB_CTX *libctx_private(void);
/* The provider loaded into it; NULL as above. */
OSSL_PROVIDER *libctx_provider(void);

/*
 * Around every C_* call:
 *     struct libctx_guard guard;
 *     libctx_enter(&guard);
 *     rv = module->C_Login(…);
 *     libctx_leave(&guard);
 * Makes the private context the thread's default, marks the error queue (junk
 * that the module leaves there on success is dropped), counts the depth.
 * libctx_private() must have succeeded before.
 */
struct libctx_guard {
    OSSL_LIB_CTX *previous;
};
void libctx_enter(struct libctx_guard *guard);
void libctx_leave(struct libctx_guard *guard);

/* True while this thread is between enter and leave: a call that arrives now comes from inside the token. */
bool libctx_inside(void);

#endif
