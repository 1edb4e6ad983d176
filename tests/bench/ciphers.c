#include "ciphers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/rand.h>

enum { ROOM = 64, NONCE = 12, TAG = 16 };

static void check(int ok)
{
    if (ok == 1)
        return;
    fprintf(stderr, "bench: a message failed\n");
    ERR_print_errors_fp(stderr);
    exit(1);
}

void bench_stream_new(struct bench_stream *stream, EVP_CIPHER *cipher, bool encrypt)
{
    memset(stream, 0, sizeof *stream);
    stream->cipher = cipher;
    stream->ctx = EVP_CIPHER_CTX_new();
    /* Not page-aligned: no program's data are. */
    stream->in = malloc(BENCH_SIZE_MAX + ROOM);
    stream->out = malloc(BENCH_SIZE_MAX + ROOM);
    if (!stream->ctx || !stream->in || !stream->out)
        check(0);
    memset(stream->in, 'e', BENCH_SIZE_MAX + ROOM);
    memset(stream->out, 0, BENCH_SIZE_MAX + ROOM);
    check(RAND_bytes(stream->key, sizeof stream->key));
    bool raw = EVP_CIPHER_is_a(cipher, "AES-256-GCM");
    check(EVP_CipherInit_ex2(stream->ctx, cipher, raw ? stream->key : NULL, NULL, encrypt, NULL));
}

void bench_stream_free(struct bench_stream *stream)
{
    EVP_CIPHER_CTX_free(stream->ctx);
    free(stream->in);
    free(stream->out);
    free(stream->messages);
}

void bench_by_hand(void *state, size_t size, uint64_t messages)
{
    struct bench_stream *stream = state;
    uint8_t tag[TAG];
    int written, more;
    while (messages-- > 0) {
        uint8_t *out = stream->out;
        check(RAND_bytes(out, NONCE));
        check(EVP_EncryptInit_ex(stream->ctx, NULL, NULL, stream->key, out));
        check(EVP_EncryptUpdate(stream->ctx, out + NONCE, &written, stream->in, (int)size));
        check(EVP_EncryptFinal_ex(stream->ctx, out + NONCE + written, &more));
        check(EVP_CIPHER_CTX_ctrl(stream->ctx, EVP_CTRL_AEAD_GET_TAG, TAG, tag));
        memcpy(out + NONCE + written, tag, TAG);
    }
}

void bench_by_hand_new(void *state, size_t size, uint64_t messages)
{
    struct bench_stream *stream = state;
    uint8_t tag[TAG];
    int written, more;
    while (messages-- > 0) {
        uint8_t *out = stream->out;
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        check(RAND_bytes(out, NONCE));
        check(EVP_EncryptInit_ex(ctx, stream->cipher, NULL, stream->key, out));
        check(EVP_EncryptUpdate(ctx, out + NONCE, &written, stream->in, (int)size));
        check(EVP_EncryptFinal_ex(ctx, out + NONCE + written, &more));
        check(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, tag));
        memcpy(out + NONCE + written, tag, TAG);
        EVP_CIPHER_CTX_free(ctx);
    }
}

void bench_raw(void *state, size_t size, uint64_t messages)
{
    struct bench_stream *stream = state;
    uint8_t tag[TAG], iv[NONCE] = {0};
    int written, more;
    while (messages-- > 0) {
        memcpy(iv, &messages, sizeof messages);
        check(EVP_EncryptInit_ex(stream->ctx, NULL, NULL, NULL, iv));
        check(EVP_EncryptUpdate(stream->ctx, stream->out, &written, stream->in, (int)size));
        check(EVP_EncryptFinal_ex(stream->ctx, stream->out + written, &more));
        check(EVP_CIPHER_CTX_ctrl(stream->ctx, EVP_CTRL_AEAD_GET_TAG, TAG, tag));
    }
}

void bench_envelope(void *state, size_t size, uint64_t messages)
{
    struct bench_stream *stream = state;
    int written, more;
    while (messages-- > 0) {
        check(EVP_EncryptInit_ex(stream->ctx, NULL, NULL, NULL, NULL));
        check(EVP_EncryptUpdate(stream->ctx, stream->out, &written, stream->in, (int)size));
        check(EVP_EncryptFinal_ex(stream->ctx, stream->out + written, &more));
    }
}

void bench_envelope_new(void *state, size_t size, uint64_t messages)
{
    struct bench_stream *stream = state;
    int written, more;
    while (messages-- > 0) {
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        check(EVP_EncryptInit_ex(ctx, stream->cipher, NULL, NULL, NULL));
        check(EVP_EncryptUpdate(ctx, stream->out, &written, stream->in, (int)size));
        check(EVP_EncryptFinal_ex(ctx, stream->out + written, &more));
        EVP_CIPHER_CTX_free(ctx);
    }
}

/* ---- decryption ---- */

void bench_stream_ready(struct bench_stream *stream, size_t size)
{
    int written, more;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool raw = EVP_CIPHER_is_a(stream->cipher, "AES-256-GCM");
    uint8_t *plain = calloc(1, size + 1);
    if (!ctx || !plain)
        check(0);
    /* Raw: nonce | ciphertext | tag. */
    uint8_t *out = stream->in + (raw ? NONCE : 0);
    memset(stream->in, 7, NONCE);
    check(EVP_EncryptInit_ex(ctx, stream->cipher, NULL, raw ? stream->key : NULL, raw ? stream->in : NULL));
    check(EVP_EncryptUpdate(ctx, out, &written, plain, (int)size));
    check(EVP_EncryptFinal_ex(ctx, out + written, &more));
    if (raw)
        check(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, out + size));
    free(plain);
    EVP_CIPHER_CTX_free(ctx);
}

void bench_raw_open(void *state, size_t size, uint64_t messages)
{
    struct bench_stream *stream = state;
    uint8_t *in = stream->in + NONCE;
    int written, more;
    while (messages-- > 0) {
        check(EVP_DecryptInit_ex(stream->ctx, NULL, NULL, NULL, stream->in));
        check(EVP_DecryptUpdate(stream->ctx, stream->out, &written, in, (int)size));
        check(EVP_CIPHER_CTX_ctrl(stream->ctx, EVP_CTRL_AEAD_SET_TAG, TAG, in + size));
        check(EVP_DecryptFinal_ex(stream->ctx, stream->out + written, &more));
    }
}

static void open_one(struct bench_stream *stream, const uint8_t *in, size_t size)
{
    int written, more;
    check(EVP_DecryptInit_ex(stream->ctx, NULL, NULL, NULL, NULL));
    check(EVP_DecryptUpdate(stream->ctx, stream->out, &written, in, (int)size + 32));
    check(EVP_DecryptFinal_ex(stream->ctx, stream->out + written, &more));
}

void bench_envelope_open(void *state, size_t size, uint64_t messages)
{
    struct bench_stream *stream = state;
    while (messages-- > 0)
        open_one(stream, stream->in, size);
}

void bench_envelope_open_each(void *state, size_t size, uint64_t messages)
{
    struct bench_stream *stream = state;
    while (messages-- > 0) {
        open_one(stream, stream->messages + stream->next * stream->stride, size);
        stream->next = stream->next + 1 == stream->message_count ? 0 : stream->next + 1;
    }
}
