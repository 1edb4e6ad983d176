#include "messages.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/err.h>

enum { CANARIES = 64, CANARY = 0xC5, GRANT = 32 };

void message_fill(uint8_t *to, size_t length, uint32_t seed)
{
    uint32_t x = seed * UINT32_C(2654435761) + 1;
    for (size_t i = 0; i < length; i++) {
        x = x * UINT32_C(1664525) + UINT32_C(1013904223);
        to[i] = (uint8_t)(x >> 24);
    }
}

static uint8_t *granted(size_t size)
{
    uint8_t *room = malloc(size + CANARIES);
    assert_non_null(room);
    memset(room, CANARY, size + CANARIES);
    return room;
}

/* Nothing beyond what was granted, nor beyond what was said to be written, may have changed. */
static void check_canaries(const uint8_t *room, size_t written, size_t size)
{
    assert_true(written <= size);
    for (size_t i = written; i < size + CANARIES; i++)
        if (room[i] != CANARY)
            fail_msg("byte %zu was written; %zu were announced, %zu granted", i, written, size);
}

static void update_piece(EVP_CIPHER_CTX *ctx, const uint8_t *in, size_t length, uint8_t *out, size_t *out_length)
{
    uint8_t *room = granted(length + GRANT);
    int written = -1;
    if (!EVP_CipherUpdate(ctx, room, &written, in, (int)length)) {
        ERR_print_errors_fp(stderr);
        fail_msg("an update of %zu bytes failed", length);
    }
    check_canaries(room, (size_t)written, length + GRANT);
    memcpy(out + *out_length, room, (size_t)written);
    *out_length += (size_t)written;
    free(room);
}

static bool run_final(EVP_CIPHER_CTX *ctx, uint8_t *out, size_t *out_length)
{
    uint8_t *room = granted(GRANT);
    int written = -1;
    bool done = EVP_CipherFinal_ex(ctx, room, &written) == 1;
    check_canaries(room, done ? (size_t)written : 0, GRANT);
    if (done) {
        memcpy(out + *out_length, room, (size_t)written);
        *out_length += (size_t)written;
    }
    free(room);
    return done;
}

bool message_run(EVP_CIPHER_CTX *ctx, const uint8_t *in, const size_t *pieces, size_t count, uint8_t *out,
                 size_t *out_length)
{
    *out_length = 0;
    for (size_t i = 0; i < count; i++) {
        update_piece(ctx, in, pieces[i], out, out_length);
        in += pieces[i];
    }
    return run_final(ctx, out, out_length);
}

bool message_run_whole(EVP_CIPHER_CTX *ctx, const uint8_t *in, size_t length, uint8_t *out, size_t *out_length)
{
    return message_run(ctx, in, &length, 1, out, out_length);
}

static bool one(EVP_CIPHER *cipher, int enc, const uint8_t *key, const uint8_t *in, size_t length, uint8_t *out,
                size_t *out_length)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_non_null(ctx);
    bool done = EVP_CipherInit_ex2(ctx, cipher, key, NULL, enc, NULL) == 1;
    if (done) {
        int written = 0, more = 0;
        done = EVP_CipherUpdate(ctx, out, &written, in, (int)length) == 1 &&
               EVP_CipherFinal_ex(ctx, out + written, &more) == 1;
        *out_length = (size_t)written + (size_t)more;
    }
    EVP_CIPHER_CTX_free(ctx);
    return done;
}

bool message_seal(EVP_CIPHER *cipher, const uint8_t *key, const uint8_t *in, size_t length, uint8_t *out,
                  size_t *out_length)
{
    return one(cipher, 1, key, in, length, out, out_length);
}

bool message_open(EVP_CIPHER *cipher, const uint8_t *key, const uint8_t *in, size_t length, uint8_t *out,
                  size_t *out_length)
{
    return one(cipher, 0, key, in, length, out, out_length);
}

uint32_t message_dek_id(const uint8_t *message)
{
    return (uint32_t)message[0] << 24 | (uint32_t)message[1] << 16 | (uint32_t)message[2] << 8 | message[3];
}

bool message_open_by_hand(const uint8_t dek[32], const uint8_t *aad, size_t aad_length, const uint8_t *in,
                          size_t length, uint8_t *out)
{
    assert_true(length >= OVERHEAD);
    int body = (int)(length - OVERHEAD), written, more;
    uint8_t tag[TAG_SIZE];
    memcpy(tag, in + length - TAG_SIZE, TAG_SIZE);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool done = EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, dek, in + 4) == 1 &&
                EVP_DecryptUpdate(ctx, NULL, &written, in, 4) == 1 &&
                (aad_length == 0 || EVP_DecryptUpdate(ctx, NULL, &written, aad, (int)aad_length) == 1) &&
                (body == 0 || EVP_DecryptUpdate(ctx, out, &written, in + HEADER_SIZE, body) == 1) &&
                EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE, tag) == 1 &&
                EVP_DecryptFinal_ex(ctx, out + body, &more) == 1;
    EVP_CIPHER_CTX_free(ctx);
    return done;
}

void expect_reason_text(int reason, const char *words)
{
    const char *text = NULL, *file = NULL, *function = NULL;
    int line = 0, flags = 0;
    unsigned long error = 0, code;
    /* EVP may add an entry of its own ("initialization error") after ours. */
    while ((code = ERR_get_error_all(&file, &line, &function, &text, &flags)) != 0) {
        const char *library = ERR_lib_error_string(code);
        if (!library || strcmp(library, "envelope") != 0)
            continue;
        error = code;
        assert_int_equal(ERR_GET_REASON(code), reason);
        assert_true((flags & ERR_TXT_STRING) && text && text[0]);
        assert_non_null(ERR_reason_error_string(code));
        if (!strstr(text, words))
            fail_msg("\"%s\" does not say \"%s\"", text, words);
    }
    if (!error)
        fail_msg("no error of ours was raised");
}

void expect_reason(int reason)
{
    expect_reason_text(reason, "");
}
