/* Messages through EVP, with every output buffer just as large as EVP grants and canaries behind it. */
#ifndef PROVIDER_MESSAGES_H
#define PROVIDER_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/evp.h>

enum { OVERHEAD = 32, HEADER_SIZE = 16, TAG_SIZE = 16 };

/* Repeatable bytes that differ from place to place. */
void message_fill(uint8_t *to, size_t length, uint32_t seed);

/*
 * Update piece by piece (lengths in pieces, 0 allowed), then final, into out; the context has been initialised.
 * Fails the test if an update or final touches what it was not granted, or an update fails. Returns whether final
 * succeeded.
 */
bool message_run(EVP_CIPHER_CTX *ctx, const uint8_t *in, const size_t *pieces, size_t count, uint8_t *out,
                 size_t *out_length);
/* The same in one piece. */
bool message_run_whole(EVP_CIPHER_CTX *ctx, const uint8_t *in, size_t length, uint8_t *out, size_t *out_length);

/* In a context of its own. key: 32 bytes or NULL. false with the reason in the error queue. out: length + OVERHEAD. */
bool message_seal(EVP_CIPHER *cipher, const uint8_t *key, const uint8_t *in, size_t length, uint8_t *out,
                  size_t *out_length);
bool message_open(EVP_CIPHER *cipher, const uint8_t *key, const uint8_t *in, size_t length, uint8_t *out,
                  size_t *out_length);

/* DEK id of a message. */
uint32_t message_dek_id(const uint8_t *message);
/* Open a message with the default provider's AES-256-GCM and a DEK, as docs/wire-format.md says. */
bool message_open_by_hand(const uint8_t dek[32], const uint8_t *aad, size_t aad_length, const uint8_t *in,
                          size_t length, uint8_t *out);

/* The newest entry of the error queue is ours, has this reason and a text; the queue is cleared. */
void expect_reason(int reason);
/* Its text contains words (before it is cleared). */
void expect_reason_text(int reason, const char *words);

#endif
