/* The ways to encrypt or decrypt a message that are compared. */
#ifndef BENCH_CIPHERS_H
#define BENCH_CIPHERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/evp.h>

enum { BENCH_SIZE_MAX = 1024 * 1024 };

/* One context, kept over all messages, and its buffers. */
struct bench_stream {
    EVP_CIPHER *cipher;
    EVP_CIPHER_CTX *ctx;
    uint8_t key[32];
    uint8_t *in, *out;
    /* Ready-made messages to decrypt, `stride` apart, taken in `order`; or names to encrypt under. */
    uint8_t *messages;
    size_t stride, message_count, next;
};

void bench_stream_new(struct bench_stream *stream, EVP_CIPHER *cipher, bool encrypt);
void bench_stream_free(struct bench_stream *stream);
/* Make the message that the decrypting contenders open, of this size. */
void bench_stream_ready(struct bench_stream *stream, size_t size);

/* RAND_bytes, init with key and IV, update, final, get tag: what programs write today. */
void bench_by_hand(void *stream, size_t size, uint64_t messages);
/* The same in a context made for each message. */
void bench_by_hand_new(void *stream, size_t size, uint64_t messages);
/* Key schedule kept, the IV counted up: AES-256-GCM and nothing else. */
void bench_raw(void *stream, size_t size, uint64_t messages);
void bench_raw_open(void *stream, size_t size, uint64_t messages);
void bench_envelope(void *stream, size_t size, uint64_t messages);
void bench_envelope_new(void *stream, size_t size, uint64_t messages);
void bench_envelope_open(void *stream, size_t size, uint64_t messages);
/* Open the stream's messages one after the other, each under another DEK. */
void bench_envelope_open_each(void *stream, size_t size, uint64_t messages);

#endif
