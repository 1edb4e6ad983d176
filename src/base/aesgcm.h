/*
 * AES-256-GCM through the dispatch table of the provider in our private library
 * context, without EVP in between. A context holds a key schedule and is used
 * by one thread at a time; starting a message keeps the key.
 */
#ifndef BASE_AESGCM_H
#define BASE_AESGCM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

enum { AESGCM_KEY_SIZE = 32, AESGCM_NONCE_SIZE = 12, AESGCM_TAG_SIZE = 16 };

typedef struct aesgcm aesgcm; /* the provider's own context; opaque */

/* A context keyed with key (copied into the schedule; its pages are shielded). NULL with the error raised. */
aesgcm *aesgcm_new(const uint8_t key[AESGCM_KEY_SIZE]);
/* Zeroises. NULL is allowed. */
void aesgcm_free(aesgcm *context);
/* A full copy mid-message, or NULL with the error raised where the provider cannot copy. */
aesgcm *aesgcm_copy(const aesgcm *context);

/* Start a message; the key stays. */
envelope_status aesgcm_start(aesgcm *context, bool encrypt, const uint8_t nonce[AESGCM_NONCE_SIZE]);
/* AAD in any number of pieces, before data. */
envelope_status aesgcm_aad(aesgcm *context, const uint8_t *aad, size_t length);
/* Exactly length bytes come out; in == out is allowed. */
envelope_status aesgcm_update(aesgcm *context, const uint8_t *in, size_t length, uint8_t *out);
envelope_status aesgcm_final_encrypt(aesgcm *context, uint8_t tag[AESGCM_TAG_SIZE]);
/* ENVELOPE_E_DATA_AUTH if the tag differs (constant-time compare in libcrypto). */
envelope_status aesgcm_final_decrypt(aesgcm *context, const uint8_t tag[AESGCM_TAG_SIZE]);

#endif
