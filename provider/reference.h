/*
 * Key references: the standard ciphers under their own names, with a DEK put in place of a reference at init
 * (docs/references.md). What a program calls is the default provider's own code, and the context it holds is that
 * provider's own context; of each dispatch table only newctx, freectx, dupctx, the inits, get_ctx_params and, for
 * AEADs, set_ctx_params are ours.
 *
 * Every cipher of that provider is offered, also those that take no reference: 256 bits of a reference are public, and
 * handed to a cipher we do not stand in front of they would become a raw key.
 *
 * reference.c (what an init does), reference_skey.c (the same for EVP_SKEY), reference_table.c (dispatch tables),
 * reference_settings.c (openssl.cnf), reference_context.c (which contexts hold a DEK), reference_thread.c (leases).
 */
#ifndef PROVIDER_REFERENCE_H
#define PROVIDER_REFERENCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/single_threaded.h>
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
    /* What every context of this cipher says when it is asked; the length of IVs until one was given another. */
    size_t key_length, iv_length;
    bool knows_key_length;
    atomic_bool knows_iv_length;

    OSSL_FUNC_cipher_newctx_fn *newctx;
    OSSL_FUNC_cipher_freectx_fn *freectx;
    OSSL_FUNC_cipher_dupctx_fn *dupctx;
    OSSL_FUNC_cipher_encrypt_init_fn *encrypt_init;
    OSSL_FUNC_cipher_decrypt_init_fn *decrypt_init;
    OSSL_FUNC_cipher_update_fn *update;
    OSSL_FUNC_cipher_cipher_fn *cipher;
    OSSL_FUNC_cipher_get_ctx_params_fn *get_ctx_params;
    OSSL_FUNC_cipher_set_ctx_params_fn *set_ctx_params;
#ifdef OSSL_OP_SKEYMGMT
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
/* To be called with all params that are set in a context: the usual length may be no longer. */
void reference_note_iv_length(struct reference_cipher *cipher, const OSSL_PARAM params[]);
int reference_get_ctx_params(const struct reference_cipher *cipher, void *ctx, OSSL_PARAM params[]);
int reference_set_ctx_params(struct reference_cipher *cipher, void *ctx, const OSSL_PARAM params[]);
void *reference_dupctx(const struct reference_cipher *cipher, void *ctx);

#ifdef OSSL_OP_SKEYMGMT
/* ---- reference_skey.c ---- */
int reference_skey_init(struct reference_cipher *cipher, bool encrypt, void *ctx, void *skey,
                        struct reference_init *init);
/* The inner provider's key managers, for those who use these ciphers with an EVP_SKEY. */
const OSSL_ALGORITHM *reference_skey_managers(void);
#endif

/* ---- reference_context.c: contexts keyed with a DEK ---- */
struct reference_context {
    _Atomic(void *) ctx;
    uint32_t dek_id;
    bool current; /* the context's key schedule is this DEK's, in this direction; else re-key it */
    bool encrypt;
    bool counted; /* a message is counted that has not begun */
    bool refused; /* the last init was */
};

/* Entries in a bucket of one cache line; more of them follow where that is not enough. */
enum { REFERENCE_BUCKET_BITS = 10, REFERENCE_WAYS = 3 };
struct reference_block {
    _Alignas(64) struct reference_context ways[REFERENCE_WAYS];
    _Atomic(struct reference_block *) next;
};
extern struct reference_block reference_buckets[1 << REFERENCE_BUCKET_BITS];

static inline struct reference_block *reference_bucket(const void *ctx)
{
    /* Fibonacci hashing: addresses from malloc() are alike in their low and in their high bits. */
    uint64_t hash = (uint64_t)(uintptr_t)ctx * UINT64_C(0x9e3779b97f4a7c15);
    return &reference_buckets[hash >> (64 - REFERENCE_BUCKET_BITS)];
}

/* NULL: not one of ours. A context is used by one thread at a time, and so is what is found here. */
static inline struct reference_context *reference_context_find(const void *ctx)
{
    for (struct reference_block *block = reference_bucket(ctx); block;
         block = atomic_load_explicit(&block->next, memory_order_acquire))
        for (unsigned i = 0; i < REFERENCE_WAYS; i++)
            if (atomic_load_explicit(&block->ways[i].ctx, memory_order_relaxed) == ctx)
                return ctx ? &block->ways[i] : NULL;
    return NULL;
}

/*
 * Some ciphers of OpenSSL do not check that they have a key: after an init that was refused, ChaCha20-Poly1305 encrypts
 * under a key of zeros. A program that overlooks the failure must not get that far.
 */
static inline bool reference_context_is_refused(const void *ctx)
{
    const struct reference_context *context = reference_context_find(ctx);
    return context && context->refused;
}

/* Take a free entry. False if another thread did. */
static inline bool reference_way_claim(struct reference_context *way, void *ctx)
{
    void *none = NULL;
    if (atomic_load_explicit(&way->ctx, memory_order_relaxed))
        return false;
    if (__libc_single_threaded)
        atomic_store_explicit(&way->ctx, ctx, memory_order_relaxed);
    else if (!atomic_compare_exchange_strong_explicit(&way->ctx, &none, ctx, memory_order_acquire,
                                                      memory_order_relaxed))
        return false;
    way->dek_id = 0;
    way->current = false;
    way->encrypt = false;
    way->counted = false;
    way->refused = false;
    return true;
}

/* An entry for a context that has none. NULL with the error raised. */
struct reference_context *reference_context_add(void *ctx);

/* Found, or made empty (*made). NULL with the error raised. */
static inline struct reference_context *reference_context_claim(void *ctx, bool *made)
{
    struct reference_context *found = reference_context_find(ctx);
    *made = found == NULL;
    if (found)
        return found;
    struct reference_context *way = &reference_bucket(ctx)->ways[0];
    return reference_way_claim(way, ctx) ? way : reference_context_add(ctx);
}

static inline void reference_context_forget(struct reference_context *context)
{
    if (context)
        atomic_store_explicit(&context->ctx, NULL, memory_order_release);
}

/* First bytes that reference_init() has to look at: of a reference, and of one in print. */
static inline bool reference_is_suspicious(unsigned char first)
{
    return first == 'E' || first == '4' || first == 'R' || first == 'b' || first == '\\';
}

/* True for an init that concerns nobody here: a raw key where those are allowed, on a context that is none of ours. */
static inline bool reference_passes(const struct reference_cipher *cipher, const void *ctx, const unsigned char *key)
{
    if (key && (reference_is_suspicious(key[0]) || cipher->raw != REFERENCE_RAW_ALLOW))
        return false;
    return !reference_context_find(ctx);
}

/* ---- reference_thread.c ---- */

/* Where a context lay whose memory was shielded, for which cipher, and in which tick of the clock. */
struct reference_shielded {
    const void *ctx;
    const struct reference_cipher *cipher;
    int64_t at;
};
enum { REFERENCE_SHIELDED = 8 };

/* A DEK that this thread holds on to. */
struct reference_hold {
    keyring *ring; /* NULL: free */
    uint32_t dek_id;
    bool from_bytes; /* bytes are the reference that gave dek_id */
    uint8_t bytes[REFERENCE_SIZE];
    struct keyring_lease lease;
    uint8_t *dek;        /* the lease's, in locked memory of this thread; zeros when there is no lease */
    int64_t begun;       /* the tick of the clock in which the keyring was asked last; 0: ask */
    uint64_t generation; /* fork_generation() then */
    struct reference_shielded *shielded; /* the thread's, REFERENCE_SHIELDED of them */
};
/*
 * This thread's hold for reference bytes, or (bytes NULL) for a DEK id that a context has, begun for one more message
 * if counted. Good until the thread asks for another.
 */
envelope_status reference_thread_begin(keyring *ring, const uint8_t *bytes, uint32_t dek_id, bool counted,
                                       const struct reference_hold **hold);
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
