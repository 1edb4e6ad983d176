/* Copies of contexts: never two messages under one nonce, otherwise complete or refused. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/err.h>

#include <envelope/status.h>

#include "messages.h"
#include "provider_rig.h"

enum { LENGTH = 50, SEALED = LENGTH + OVERHEAD };

static const uint8_t aad[] = "row 42";

static EVP_CIPHER_CTX *copy_of(const EVP_CIPHER_CTX *from)
{
    EVP_CIPHER_CTX *copy = EVP_CIPHER_CTX_new();
    assert_non_null(copy);
    if (EVP_CIPHER_CTX_copy(copy, from) == 1)
        return copy;
    EVP_CIPHER_CTX_free(copy);
    return NULL;
}

static EVP_CIPHER_CTX *begin(const struct provider_rig *rig, int enc)
{
    uint8_t financial[32] = "financial";
    int ignored;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_CipherInit_ex2(ctx, rig->cipher, enc ? financial : NULL, NULL, enc, NULL), 1);
    assert_int_equal(EVP_CipherUpdate(ctx, NULL, &ignored, aad, sizeof aad), 1);
    return ctx;
}

static void a_copy_before_the_data_has_key_and_aad_and_a_nonce_of_its_own(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t plain[LENGTH], sealed[3][SEALED], opened[SEALED];
    size_t length;
    message_fill(plain, LENGTH, 1);
    EVP_CIPHER_CTX *ctx[3];
    ctx[0] = begin(rig, 1);
    ctx[1] = copy_of(ctx[0]);
    ctx[2] = copy_of(ctx[1]);
    for (int i = 0; i < 3; i++) {
        assert_non_null(ctx[i]);
        assert_true(message_run_whole(ctx[i], plain, LENGTH, sealed[i], &length));
        EVP_CIPHER_CTX *reader = begin(rig, 0);
        assert_true(message_run_whole(reader, sealed[i], SEALED, opened, &length));
        assert_memory_equal(opened, plain, LENGTH);
        EVP_CIPHER_CTX_free(reader);
        for (int j = 0; j < i; j++) {
            assert_memory_equal(sealed[i], sealed[j], 4);
            assert_memory_not_equal(sealed[i] + 4, sealed[j] + 4, 12);
        }
        EVP_CIPHER_CTX_free(ctx[i]);
    }
}

static void a_copy_after_the_header_is_out_is_refused_and_the_original_goes_on(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t plain[LENGTH], sealed[SEALED], opened[SEALED];
    size_t length;
    int written, more;
    message_fill(plain, LENGTH, 2);
    EVP_CIPHER_CTX *ctx = begin(rig, 1);
    assert_int_equal(EVP_CipherUpdate(ctx, sealed, &written, plain, 20), 1);
    EVP_CIPHER_CTX *copy = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_CIPHER_CTX_copy(copy, ctx), 0);
    expect_reason_text(ENVELOPE_E_COPY_REFUSED, "nonce");
    /* EVP leaves the failed copy with our cipher and no context of ours. */
    assert_int_equal(EVP_CipherUpdate(copy, opened, &more, plain, 20), 0);
    assert_int_equal(EVP_CipherFinal_ex(copy, opened, &more), 0);
    EVP_CIPHER_CTX_free(copy);
    ERR_clear_error();
    assert_int_equal(EVP_CipherUpdate(ctx, sealed + written, &more, plain + 20, LENGTH - 20), 1);
    written += more;
    assert_int_equal(EVP_CipherFinal_ex(ctx, sealed + written, &more), 1);
    assert_int_equal(written + more, SEALED);
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_CTX *reader = begin(rig, 0);
    assert_true(message_run_whole(reader, sealed, SEALED, opened, &length));
    assert_memory_equal(opened, plain, LENGTH);
    EVP_CIPHER_CTX_free(reader);
}

static void a_finished_context_copies_and_can_be_initialised(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t plain[LENGTH], sealed[SEALED], opened[SEALED];
    size_t length;
    message_fill(plain, LENGTH, 3);
    EVP_CIPHER_CTX *ctx = begin(rig, 1);
    assert_true(message_run_whole(ctx, plain, LENGTH, sealed, &length));
    EVP_CIPHER_CTX *copy = copy_of(ctx);
    assert_non_null(copy);
    int written;
    assert_int_equal(EVP_CipherUpdate(copy, opened, &written, plain, 1), 0);
    expect_reason(ENVELOPE_E_CONTEXT_STATE);
    assert_int_equal(EVP_CipherInit_ex2(copy, NULL, NULL, NULL, 1, NULL), 1);
    uint8_t again[SEALED];
    assert_true(message_run_whole(copy, plain, LENGTH, again, &length));
    assert_memory_equal(again, sealed, 4);
    assert_memory_not_equal(again + 4, sealed + 4, 12);
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_CTX_free(copy);
}

/* At any point of the ciphertext: the copy finishes the message like the original, or is refused for a stated reason.
 */
static void a_decrypting_copy_is_complete_or_refused(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t plain[LENGTH], sealed[SEALED], opened[2][SEALED];
    size_t length;
    int written, more, last;
    message_fill(plain, LENGTH, 4);
    EVP_CIPHER_CTX *writer = begin(rig, 1);
    assert_true(message_run_whole(writer, plain, LENGTH, sealed, &length));
    EVP_CIPHER_CTX_free(writer);
    for (int cut = 0; cut <= SEALED; cut++) {
        EVP_CIPHER_CTX *ctx[2] = {begin(rig, 0), NULL};
        assert_int_equal(EVP_CipherUpdate(ctx[0], opened[0], &written, sealed, cut), 1);
        memcpy(opened[1], opened[0], (size_t)written);
        ctx[1] = copy_of(ctx[0]);
        if (!ctx[1]) {
            expect_reason(ENVELOPE_E_COPY_REFUSED);
            /* Until the header is complete there is nothing that OpenSSL could not copy. */
            assert_true(cut >= HEADER_SIZE);
        }
        for (int i = 0; i < 2 && ctx[i]; i++) {
            assert_int_equal(EVP_CipherUpdate(ctx[i], opened[i] + written, &more, sealed + cut, SEALED - cut), 1);
            assert_int_equal(EVP_CipherFinal_ex(ctx[i], opened[i] + written + more, &last), 1);
            assert_int_equal(written + more + last, LENGTH);
            assert_memory_equal(opened[i], plain, LENGTH);
        }
        EVP_CIPHER_CTX_free(ctx[0]);
        EVP_CIPHER_CTX_free(ctx[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_before_the_data_has_key_and_aad_and_a_nonce_of_its_own),
        cmocka_unit_test(a_copy_after_the_header_is_out_is_refused_and_the_original_goes_on),
        cmocka_unit_test(a_finished_context_copies_and_can_be_initialised),
        cmocka_unit_test(a_decrypting_copy_is_complete_or_refused),
    };
    return cmocka_run_group_tests(tests, provider_rig_setup, provider_rig_teardown);
}
