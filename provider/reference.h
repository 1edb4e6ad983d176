/*
 * Key references: the standard ciphers under their own names, with a DEK put in place of a reference at init
 * (docs/references.md). What a program calls is the default provider's own code, and the context it holds is that
 * provider's own context; of each dispatch table only newctx, freectx, dupctx, the inits and, for AEADs, set_ctx_params
 * are ours.
 *
 * Every cipher of that provider is offered, also those that take no reference: 256 bits of a reference are public, and
 * handed to a cipher we do not stand in front of they would become a raw key.
 *
 * reference.c (what an init does), reference_table.c (dispatch tables), reference_settings.c (openssl.cnf),
 * reference_context.c (which contexts hold a DEK), reference_thread.c (leases).
 */
#ifndef PROVIDER_REFERENCE_H
#define PROVIDER_REFERENCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/core.h>
#include <openssl/core_dispatch.h>

#include <envelope/status.h>

#include "keyring/keyring.h"

enum { REFERENCE_SIZE = 32, REFERENCE_TABLE_MAX = 40, REFERENCE_NAME_MAX = 40 };

enum reference_use {
    REFERENCE_TAKEN,    /* replaced by its DEK */
    REFERENCE_UNLISTED, /* refused: key-references does not name this cipher */
    REFERENCE_UNFIT     /* refused: the cipher's key is not one of 256 bits */
};

enum reference_raw { REFERENCE_RAW_ALLOW, REFERENCE_RAW_WARN, REFERENCE_RAW_DENY };

/* What all ciphers of one configuration share. Not tied to an instance of the provider: several may use it. */
struct reference_set {
    keyring *ring;           /* NULL: failure says why */
    envelope_status failure; /* every reference is refused with it */
    char *failure_text;
    _Atomic uint64_t raw_keys; /* inits with a raw key that were warned of or denied */
};

/* One cipher of one set. */
struct reference_cipher {
    struct reference_set *set;
    char name[REFERENCE_NAME_MAX];
    enum reference_use use;
    enum reference_raw raw;
    bool has_iv;
    atomic_bool warned;
    void *inner_context; /* the inner provider's */

    OSSL_FUNC_cipher_newctx_fn *newctx;
    OSSL_FUNC_cipher_freectx_fn *freectx;
    OSSL_FUNC_cipher_dupctx_fn *dupctx;
    OSSL_FUNC_cipher_encrypt_init_fn *encrypt_init;
    OSSL_FUNC_cipher_decrypt_init_fn *decrypt_init;
    OSSL_FUNC_cipher_set_ctx_params_fn *set_ctx_params;
#ifdef OSSL_FUNC_CIPHER_ENCRYPT_SKEY_INIT
    OSSL_FUNC_cipher_encrypt_skey_init_fn *encrypt_skey_init;
    OSSL_FUNC_cipher_decrypt_skey_init_fn *decrypt_skey_init;
#endif
    OSSL_DISPATCH table[REFERENCE_TABLE_MAX];
};

/* The arguments of an init call. */
struct reference_init {
    const unsigned char *key;
    size_t keylen;
    const unsigned char *iv;
    size_t ivlen;
    const OSSL_PARAM *params;
};

/* ---- reference.c: what the functions of a decorated table do ---- */
int reference_init(struct reference_cipher *cipher, bool encrypt, void *ctx, const struct reference_init *init);
int reference_set_ctx_params(const struct reference_cipher *cipher, void *ctx, const OSSL_PARAM params[]);
void *reference_dupctx(const struct reference_cipher *cipher, void *ctx);

/* ---- reference_context.c: contexts keyed with a DEK ---- */
struct reference_context {
    _Atomic(void *) ctx;
    uint32_t dek_id;
    bool current; /* the context's key schedule is this DEK's, in this direction; else re-key it */
    bool encrypt;
    bool counted; /* a message is counted that has not begun */
};
/* NULL: not one of ours. A context is used by one thread at a time, and so is what is found here. */
struct reference_context *reference_context_find(const void *ctx);
/* Found, or made empty. NULL with the error raised. */
struct reference_context *reference_context_claim(void *ctx);
void reference_context_forget(struct reference_context *context);

/* ---- reference_thread.c ---- */

/* This thread's memory for a DEK on its way into a cipher: locked, and empty between inits. NULL, error raised. */
uint8_t *reference_thread_dek(void);
/*
 * This thread's lease for reference bytes, or (bytes NULL) for a DEK id that a context holds, begun for one more
 * message if counted. It lasts until the thread asks for another.
 */
envelope_status reference_thread_begin(keyring *ring, const uint8_t bytes[REFERENCE_SIZE], uint32_t dek_id,
                                       bool counted, struct keyring_lease **lease);
/* End this thread's leases of a ring. */
void reference_thread_end(const keyring *ring);

/* ---- reference_settings.c ---- */

/* Does one of names (apart by ':') stand in openssl.cnf's list? */
bool reference_settings_lists(const char *list, const char *names);
/* What raw-keys says for the cipher with these names. */
enum reference_raw reference_settings_raw(const char *raw_keys, const char *names);
/*
 * Check both texts against the ciphers there are. known() tells whether a cipher of that name (not NUL-terminated)
 * exists, and fits says whether a reference can key it.
 */
struct reference_lookup {
    bool (*known)(const void *context, const char *name, size_t length, bool *fits);
    const void *context;
};
envelope_status reference_settings_check(const char *list, const char *raw_keys, const struct reference_lookup *lookup);

#endif
