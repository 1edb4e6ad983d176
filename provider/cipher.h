/*
 * ENVELOPE-AES-256-GCM: one cipher context. Four files share it: cipher.c (the
 * dispatch table), cipher_params.c, cipher_key.c (which DEK), cipher_stream.c
 * (which bytes).
 */
#ifndef PROVIDER_CIPHER_H
#define PROVIDER_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/core_dispatch.h>

#include "base/aesgcm.h"
#include "base/nonce.h"
#include "keyring/keyring.h"
#include "keyname.h"
#include "provider.h"

enum {
    CIPHER_BLOCK_SIZE = 32, /* what EVP lets update and final write beyond the input */
    CIPHER_KEY_SIZE = KEYNAME_SIZE,
    CIPHER_ID_SIZE = 4,
    CIPHER_HEADER_SIZE = CIPHER_ID_SIZE + NONCE_SIZE,
    CIPHER_OVERHEAD = CIPHER_HEADER_SIZE + AESGCM_TAG_SIZE,
    CIPHER_AAD_INLINE = 64,
    CIPHER_AAD_MAX = 16 * 1024 * 1024
};
/* SP 800-38D, 5.2.1.1: 2^39 - 256 bits. */
#define CIPHER_DATA_MAX ((UINT64_C(1) << 36) - 32)

enum cipher_state {
    CIPHER_NEW,   /* no init yet */
    CIPHER_READY, /* a message may begin; AAD is collected */
    CIPHER_BODY,  /* encrypting: the header is out. Decrypting: the header has been read */
    CIPHER_DONE,  /* final has been called */
    CIPHER_FAILED /* nothing but another init helps */
};

/*
 * The caller's AAD. It is kept until the message begins, since the DEK id comes first in the AAD of AES-GCM and
 * decryption learns the id from the data.
 */
struct cipher_aad {
    uint8_t *heap; /* NULL: in bytes */
    size_t length, capacity;
    uint8_t bytes[CIPHER_AAD_INLINE];
};

struct cipher {
    struct provider *provider;
    const char *bound; /* the key this cipher's name stands for; NULL: any */
    enum cipher_state state;
    bool encrypt;
    bool counted; /* the lease holds a message, counted in the DEK's budget, that has not begun */

    keyring_key *key;   /* named by the caller; NULL: not named */
    uint32_t reference; /* DEK id of the key reference given; 0: none */
    struct keyring_lease lease;
    uint64_t generation; /* fork_generation() when the lease was last begun */

    uint64_t length;                  /* bytes of data so far */
    uint8_t held[CIPHER_HEADER_SIZE]; /* decrypting: the part of the header seen, then what may be the tag */
    size_t held_length;
    struct cipher_aad aad;
};

/* ---- cipher.c ---- */
extern const OSSL_DISPATCH provider_cipher_table[];
/* newctx of a cipher bound to one key (NULL: to none). */
void *provider_cipher_new(struct provider *provider, const char *bound);

/* ---- cipher_params.c ---- */
OSSL_FUNC_cipher_gettable_params_fn provider_cipher_gettable_params;
OSSL_FUNC_cipher_get_params_fn provider_cipher_get_params;
OSSL_FUNC_cipher_gettable_ctx_params_fn provider_cipher_gettable_ctx_params;
OSSL_FUNC_cipher_get_ctx_params_fn provider_cipher_get_ctx_params;
OSSL_FUNC_cipher_settable_ctx_params_fn provider_cipher_settable_ctx_params;
OSSL_FUNC_cipher_set_ctx_params_fn provider_cipher_set_ctx_params;

/* ---- cipher_key.c ---- */

/* From the key bytes of an init call, or from a name; encrypting, the DEK is leased at once so that errors show. */
envelope_status provider_cipher_use_bytes(struct cipher *cipher, const uint8_t bytes[KEYNAME_SIZE]);
envelope_status provider_cipher_use_name(struct cipher *cipher, const char *name, size_t length);
/* Make the lease hold a counted message for encryption. */
envelope_status provider_cipher_lease_encrypt(struct cipher *cipher);
/* Make the lease hold the DEK that a header names; it must be of the key that the caller named, if any. */
envelope_status provider_cipher_lease_decrypt(struct cipher *cipher, uint32_t dek_id);
void provider_cipher_lease_end(struct cipher *cipher);

/* ---- cipher_stream.c ---- */
envelope_status provider_stream_aad(struct cipher *cipher, const uint8_t *in, size_t length);
envelope_status provider_stream_update(struct cipher *cipher, uint8_t *out, size_t *out_length, size_t out_size,
                                       const uint8_t *in, size_t length);
envelope_status provider_stream_final(struct cipher *cipher, uint8_t *out, size_t *out_length, size_t out_size);
/* Forget the message, keep the key. */
void provider_stream_reset(struct cipher *cipher);
envelope_status provider_stream_copy(const struct cipher *from, struct cipher *to);
void provider_stream_clear(struct cipher *cipher);

#endif
