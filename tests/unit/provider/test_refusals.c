/* What must fail, fails with its reason, writes nothing and leaves the context usable. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>

#include <envelope/status.h>

#include "base/libctx.h"
#include "cipher.h"
#include "messages.h"
#include "provider_rig.h"

enum { LENGTH = 40, SEALED = LENGTH + OVERHEAD };

/* The dispatch table called without EVP in between. */
static struct {
    OSSL_FUNC_cipher_newctx_fn *newctx;
    OSSL_FUNC_cipher_freectx_fn *freectx;
    OSSL_FUNC_cipher_dupctx_fn *dupctx;
    OSSL_FUNC_cipher_encrypt_init_fn *encrypt_init;
    OSSL_FUNC_cipher_decrypt_init_fn *decrypt_init;
    OSSL_FUNC_cipher_update_fn *update;
    OSSL_FUNC_cipher_final_fn *final;
    OSSL_FUNC_cipher_get_params_fn *get_params;
    OSSL_FUNC_cipher_get_ctx_params_fn *get_ctx_params;
    OSSL_FUNC_cipher_set_ctx_params_fn *set_ctx_params;
    OSSL_FUNC_cipher_gettable_ctx_params_fn *gettable_ctx_params;
    OSSL_FUNC_cipher_settable_ctx_params_fn *settable_ctx_params;
} table;

static void *provider_context(const struct provider_rig *rig)
{
    return OSSL_PROVIDER_get0_provider_ctx(EVP_CIPHER_get0_provider(rig->cipher));
}

static void read_table(void)
{
    for (const OSSL_DISPATCH *f = provider_cipher_table; f->function_id != 0; f++)
        switch (f->function_id) {
        case OSSL_FUNC_CIPHER_NEWCTX:
            table.newctx = OSSL_FUNC_cipher_newctx(f);
            break;
        case OSSL_FUNC_CIPHER_FREECTX:
            table.freectx = OSSL_FUNC_cipher_freectx(f);
            break;
        case OSSL_FUNC_CIPHER_DUPCTX:
            table.dupctx = OSSL_FUNC_cipher_dupctx(f);
            break;
        case OSSL_FUNC_CIPHER_ENCRYPT_INIT:
            table.encrypt_init = OSSL_FUNC_cipher_encrypt_init(f);
            break;
        case OSSL_FUNC_CIPHER_DECRYPT_INIT:
            table.decrypt_init = OSSL_FUNC_cipher_decrypt_init(f);
            break;
        case OSSL_FUNC_CIPHER_UPDATE:
            table.update = OSSL_FUNC_cipher_update(f);
            break;
        case OSSL_FUNC_CIPHER_FINAL:
            table.final = OSSL_FUNC_cipher_final(f);
            break;
        case OSSL_FUNC_CIPHER_GET_PARAMS:
            table.get_params = OSSL_FUNC_cipher_get_params(f);
            break;
        case OSSL_FUNC_CIPHER_GET_CTX_PARAMS:
            table.get_ctx_params = OSSL_FUNC_cipher_get_ctx_params(f);
            break;
        case OSSL_FUNC_CIPHER_SET_CTX_PARAMS:
            table.set_ctx_params = OSSL_FUNC_cipher_set_ctx_params(f);
            break;
        case OSSL_FUNC_CIPHER_GETTABLE_CTX_PARAMS:
            table.gettable_ctx_params = OSSL_FUNC_cipher_gettable_ctx_params(f);
            break;
        case OSSL_FUNC_CIPHER_SETTABLE_CTX_PARAMS:
            table.settable_ctx_params = OSSL_FUNC_cipher_settable_ctx_params(f);
            break;
        case OSSL_FUNC_CIPHER_CIPHER:
            fail_msg("a one-shot function makes EVP treat the cipher as a custom one");
            break;
        default:
            break;
        }
}

static int setup(void **state)
{
    read_table();
    return provider_rig_setup(state);
}

static void seal(const struct provider_rig *rig, uint8_t plain[LENGTH], uint8_t sealed[SEALED])
{
    size_t length;
    message_fill(plain, LENGTH, 1);
    assert_true(message_seal(rig->cipher, NULL, plain, LENGTH, sealed, &length));
    assert_int_equal(length, SEALED);
}

static void every_function_refuses_a_null_context(void **state)
{
    (void)state;
    uint8_t in[16] = {0}, out[64];
    size_t length = 77;
    table.freectx(NULL);
    assert_null(table.dupctx(NULL));
    assert_int_equal(table.encrypt_init(NULL, in, 32, NULL, 0, NULL), 0);
    assert_int_equal(table.decrypt_init(NULL, in, 32, NULL, 0, NULL), 0);
    assert_int_equal(table.update(NULL, out, &length, sizeof out, in, sizeof in), 0);
    assert_int_equal(length, 0);
    length = 77;
    assert_int_equal(table.final(NULL, out, &length, sizeof out), 0);
    assert_int_equal(length, 0);
    OSSL_PARAM params[] = {OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, &length), OSSL_PARAM_END};
    assert_int_equal(table.get_ctx_params(NULL, params), 0);
    assert_int_equal(table.set_ctx_params(NULL, params), 0);
    assert_non_null(table.gettable_ctx_params(NULL, NULL));
    assert_non_null(table.settable_ctx_params(NULL, NULL));
    ERR_clear_error();
}

static void a_context_that_was_never_initialised_does_nothing(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t in[16] = {0}, out[64];
    size_t length = 77;
    void *ctx = table.newctx(provider_context(rig));
    assert_non_null(ctx);
    assert_int_equal(table.update(ctx, out, &length, sizeof out, in, sizeof in), 0);
    expect_reason(ENVELOPE_E_CONTEXT_STATE);
    assert_int_equal(length, 0);
    length = 77;
    assert_int_equal(table.update(ctx, NULL, &length, 0, in, sizeof in), 0);
    expect_reason(ENVELOPE_E_CONTEXT_STATE);
    assert_int_equal(length, 0);
    length = 77;
    assert_int_equal(table.final(ctx, out, &length, sizeof out), 0);
    expect_reason(ENVELOPE_E_CONTEXT_STATE);
    assert_int_equal(length, 0);
    assert_int_equal(table.set_ctx_params(ctx, NULL), 1);
    assert_int_equal(table.get_ctx_params(ctx, NULL), 1);
    void *copy = table.dupctx(ctx);
    assert_non_null(copy);
    table.freectx(copy);
    table.freectx(ctx);
}

static void null_key_and_null_iv_are_accepted_again_and_again(void **state)
{
    const struct provider_rig *rig = *state;
    void *ctx = table.newctx(provider_context(rig));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(table.encrypt_init(ctx, NULL, 0, NULL, 0, NULL), 1);
        assert_int_equal(table.decrypt_init(ctx, NULL, 0, NULL, 0, NULL), 1);
    }
    table.freectx(ctx);
}

static void a_key_or_iv_of_another_length_is_refused(void **state)
{
    const struct provider_rig *rig = *state;
    const uint8_t zeros[64] = {0};
    void *ctx = table.newctx(provider_context(rig));
    static const size_t wrong[] = {0, 16, 31, 33, 64};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(table.encrypt_init(ctx, zeros, wrong[i], NULL, 0, NULL), 0);
        expect_reason(ENVELOPE_E_ARGUMENT);
    }
    assert_int_equal(table.encrypt_init(ctx, zeros, 32, zeros, 12, NULL), 0);
    expect_reason(ENVELOPE_E_ARGUMENT);
    table.freectx(ctx);
}

static void a_buffer_too_small_is_not_written_to(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t plain[LENGTH], sealed[SEALED], out[SEALED + 32], untouched[sizeof out];
    size_t length;
    seal(rig, plain, sealed);
    memset(out, 0xAB, sizeof out);
    memset(untouched, 0xAB, sizeof untouched);
    void *ctx = table.newctx(provider_context(rig));
    for (size_t size = 0; size < LENGTH + HEADER_SIZE; size++) {
        assert_int_equal(table.encrypt_init(ctx, NULL, 0, NULL, 0, NULL), 1);
        length = 77;
        assert_int_equal(table.update(ctx, out, &length, size, plain, LENGTH), 0);
        expect_reason(ENVELOPE_E_ARGUMENT);
        assert_int_equal(length, 0);
    }
    for (size_t size = 0; size < OVERHEAD; size++) {
        assert_int_equal(table.encrypt_init(ctx, NULL, 0, NULL, 0, NULL), 1);
        assert_int_equal(table.final(ctx, out, &length, size), 0);
        expect_reason(ENVELOPE_E_ARGUMENT);
    }
    for (size_t size = 0; size < LENGTH; size++) {
        assert_int_equal(table.decrypt_init(ctx, NULL, 0, NULL, 0, NULL), 1);
        assert_int_equal(table.update(ctx, out, &length, size, sealed, SEALED), 0);
        expect_reason(ENVELOPE_E_ARGUMENT);
        assert_int_equal(length, 0);
    }
    assert_memory_equal(out, untouched, sizeof out);
    table.freectx(ctx);
}

static void input_that_is_announced_but_not_there_is_refused(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t out[64];
    size_t length = 77;
    void *ctx = table.newctx(provider_context(rig));
    assert_int_equal(table.encrypt_init(ctx, NULL, 0, NULL, 0, NULL), 1);
    assert_int_equal(table.update(ctx, out, &length, sizeof out, NULL, 5), 0);
    expect_reason(ENVELOPE_E_ARGUMENT);
    assert_int_equal(length, 0);
    assert_int_equal(table.update(ctx, out, &length, sizeof out, NULL, 0), 1);
    assert_int_equal(table.update(ctx, NULL, &length, 0, NULL, 0), 1);
    assert_int_equal(length, 0);
    assert_int_equal(table.final(ctx, NULL, &length, 32), 0);
    expect_reason(ENVELOPE_E_ARGUMENT);
    table.freectx(ctx);
}

static void final_works_once_and_nothing_follows_it(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t plain[LENGTH], sealed[SEALED], out[SEALED + 32];
    int written, more;
    seal(rig, plain, sealed);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    for (int enc = 0; enc <= 1; enc++) {
        assert_int_equal(EVP_CipherInit_ex2(ctx, rig->cipher, NULL, NULL, enc, NULL), 1);
        assert_int_equal(EVP_CipherUpdate(ctx, out, &written, enc ? plain : sealed, enc ? LENGTH : SEALED), 1);
        assert_int_equal(EVP_CipherFinal_ex(ctx, out + written, &more), 1);
        more = 77;
        assert_int_equal(EVP_CipherFinal_ex(ctx, out, &more), 0);
        expect_reason(ENVELOPE_E_CONTEXT_STATE);
        assert_int_equal(EVP_CipherUpdate(ctx, out, &more, plain, 1), 0);
        expect_reason(ENVELOPE_E_CONTEXT_STATE);
        assert_int_equal(EVP_CipherUpdate(ctx, NULL, &more, plain, 1), 0);
        expect_reason(ENVELOPE_E_CONTEXT_STATE);
    }
    EVP_CIPHER_CTX_free(ctx);
}

static void aad_after_data_is_refused(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t plain[LENGTH], sealed[SEALED], out[SEALED + 32];
    char aad[] = "late";
    int written;
    const OSSL_PARAM params[] = {OSSL_PARAM_octet_string("envelope-aad", aad, 4), OSSL_PARAM_END};
    seal(rig, plain, sealed);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    for (int enc = 0; enc <= 1; enc++) {
        assert_int_equal(EVP_CipherInit_ex2(ctx, rig->cipher, NULL, NULL, enc, NULL), 1);
        assert_int_equal(EVP_CipherUpdate(ctx, out, &written, enc ? plain : sealed, LENGTH), 1);
        assert_int_equal(EVP_CipherUpdate(ctx, NULL, &written, (const uint8_t *)aad, 4), 0);
        expect_reason(ENVELOPE_E_CONTEXT_STATE);
        assert_int_equal(EVP_CIPHER_CTX_set_params(ctx, params), 0);
        expect_reason(ENVELOPE_E_CONTEXT_STATE);
    }
    EVP_CIPHER_CTX_free(ctx);
}

static void any_flipped_bit_is_refused(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t plain[LENGTH], sealed[SEALED], out[SEALED + 32];
    size_t length;
    seal(rig, plain, sealed);
    for (size_t bit = 0; bit < 8 * SEALED; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(message_open(rig->cipher, NULL, sealed, SEALED, out, &length));
        /* In the id it is another version, which may exist, or none. */
        if (bit >= 32)
            expect_reason_text(ENVELOPE_E_DATA_AUTH, "default");
        ERR_clear_error();
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(message_open(rig->cipher, NULL, sealed, SEALED, out, &length));
}

static void a_message_cut_at_any_length_is_refused(void **state)
{
    const struct provider_rig *rig = *state;
    enum { LONG = 64 };
    uint8_t plain[LONG], sealed[LONG + OVERHEAD], out[LONG + OVERHEAD];
    size_t length;
    message_fill(plain, LONG, 2);
    for (size_t whole = 0; whole <= LONG; whole += 8) {
        assert_true(message_seal(rig->cipher, NULL, plain, whole, sealed, &length));
        for (size_t cut = 0; cut < whole + OVERHEAD; cut++) {
            size_t ignored;
            assert_false(message_open(rig->cipher, NULL, sealed, cut, out, &ignored));
            expect_reason(cut < OVERHEAD ? ENVELOPE_E_DATA_TRUNCATED : ENVELOPE_E_DATA_AUTH);
        }
    }
}

static void an_unknown_dek_id_is_refused_by_name(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t plain[LENGTH], sealed[SEALED], out[SEALED + 32];
    size_t length;
    seal(rig, plain, sealed);
    memcpy(sealed, "\xff\xff\xff\xfe", 4);
    assert_false(message_open(rig->cipher, NULL, sealed, SEALED, out, &length));
    expect_reason_text(ENVELOPE_E_VERSION_UNKNOWN, "4294967294");
    memset(sealed, 0, 4);
    assert_false(message_open(rig->cipher, NULL, sealed, SEALED, out, &length));
    expect_reason(ENVELOPE_E_DATA_FORMAT);
}

static void after_a_failure_only_an_init_helps(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t plain[LENGTH], sealed[SEALED], out[SEALED + 32];
    size_t length;
    int written;
    seal(rig, plain, sealed);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_CipherInit_ex2(ctx, rig->cipher, NULL, NULL, 0, NULL), 1);
    uint8_t wrong[SEALED];
    memcpy(wrong, sealed, SEALED);
    memcpy(wrong, "\xff\xff\xff\xfe", 4);
    assert_int_equal(EVP_CipherUpdate(ctx, out, &written, wrong, SEALED), 0);
    expect_reason(ENVELOPE_E_VERSION_UNKNOWN);
    assert_int_equal(EVP_CipherUpdate(ctx, out, &written, sealed, SEALED), 0);
    expect_reason(ENVELOPE_E_CONTEXT_STATE);
    assert_int_equal(EVP_CipherFinal_ex(ctx, out, &written), 0);
    expect_reason(ENVELOPE_E_CONTEXT_STATE);
    assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, 0, NULL), 1);
    assert_true(message_run_whole(ctx, sealed, SEALED, out, &length));
    assert_memory_equal(out, plain, LENGTH);
    EVP_CIPHER_CTX_free(ctx);
}

/* 64 GiB cannot be fed in a test; the counter can be moved. */
static void a_message_ends_at_the_limit_of_aes_gcm(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t plain[LENGTH] = {0}, sealed[SEALED], out[SEALED + 32];
    size_t length;
    seal(rig, plain, sealed);
    struct cipher *ctx = table.newctx(provider_context(rig));
    assert_int_equal(table.encrypt_init(ctx, NULL, 0, NULL, 0, NULL), 1);
    assert_int_equal(table.update(ctx, out, &length, sizeof out, plain, 1), 1);
    assert_int_equal(ctx->length, 1);
    ctx->length = (UINT64_C(1) << 36) - 32 - 5;
    assert_int_equal(table.update(ctx, out, &length, sizeof out, plain, 5), 1);
    assert_int_equal(table.update(ctx, out, &length, sizeof out, plain, 1), 0);
    expect_reason(ENVELOPE_E_DATA_TOO_LONG);
    assert_int_equal(table.decrypt_init(ctx, NULL, 0, NULL, 0, NULL), 1);
    assert_int_equal(table.update(ctx, out, &length, sizeof out, sealed, SEALED), 1);
    ctx->length = (UINT64_C(1) << 36) - 32;
    assert_int_equal(table.update(ctx, out, &length, sizeof out, plain, 1), 0);
    expect_reason(ENVELOPE_E_DATA_TOO_LONG);
    table.freectx(ctx);
}

static void a_call_from_inside_the_token_is_refused(void **state)
{
    const struct provider_rig *rig = *state;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_CipherInit_ex2(ctx, rig->cipher, NULL, NULL, 1, NULL), 1);
    void *inner = table.newctx(provider_context(rig));
    assert_non_null(libctx_private());
    struct libctx_guard guard;
    libctx_enter(&guard);
    assert_null(table.newctx(provider_context(rig)));
    expect_reason(ENVELOPE_E_RECURSION);
    assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, 1, NULL), 0);
    expect_reason(ENVELOPE_E_RECURSION);
    assert_int_equal(table.decrypt_init(inner, NULL, 0, NULL, 0, NULL), 0);
    expect_reason(ENVELOPE_E_RECURSION);
    libctx_leave(&guard);
    table.freectx(inner);
    EVP_CIPHER_CTX_free(ctx);
}

static void evp_sees_a_stream_cipher_with_blocks_of_32(void **state)
{
    const struct provider_rig *rig = *state;
    assert_int_equal(EVP_CIPHER_get_block_size(rig->cipher), 32);
    assert_int_equal(EVP_CIPHER_get_key_length(rig->cipher), 32);
    assert_int_equal(EVP_CIPHER_get_iv_length(rig->cipher), 0);
    assert_int_equal(EVP_CIPHER_get_mode(rig->cipher), EVP_CIPH_STREAM_CIPHER);
    assert_int_equal(EVP_CIPHER_get_flags(rig->cipher) & (EVP_CIPH_FLAG_AEAD_CIPHER | EVP_CIPH_FLAG_CUSTOM_CIPHER), 0);
    assert_true(EVP_CIPHER_is_a(rig->cipher, "envelope-aes-256-gcm"));
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_CipherInit_ex2(ctx, rig->cipher, NULL, NULL, 1, NULL), 1);
    assert_int_equal(EVP_CIPHER_CTX_get_key_length(ctx), 32);
    assert_int_equal(EVP_CIPHER_CTX_get_iv_length(ctx), 0);
    assert_int_equal(EVP_CIPHER_CTX_set_padding(ctx, 0), 1);
    assert_int_equal(EVP_CIPHER_CTX_set_key_length(ctx, 32), 1);
    assert_true(EVP_CIPHER_CTX_set_key_length(ctx, 16) <= 0);
    ERR_clear_error();
    int nothing = 3;
    const OSSL_PARAM unknown[] = {OSSL_PARAM_int("no-such-parameter", &nothing), OSSL_PARAM_END};
    assert_int_equal(EVP_CIPHER_CTX_set_params(ctx, unknown), 1);
    EVP_CIPHER_CTX_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_function_refuses_a_null_context),
        cmocka_unit_test(a_context_that_was_never_initialised_does_nothing),
        cmocka_unit_test(null_key_and_null_iv_are_accepted_again_and_again),
        cmocka_unit_test(a_key_or_iv_of_another_length_is_refused),
        cmocka_unit_test(a_buffer_too_small_is_not_written_to),
        cmocka_unit_test(input_that_is_announced_but_not_there_is_refused),
        cmocka_unit_test(final_works_once_and_nothing_follows_it),
        cmocka_unit_test(aad_after_data_is_refused),
        cmocka_unit_test(any_flipped_bit_is_refused),
        cmocka_unit_test(a_message_cut_at_any_length_is_refused),
        cmocka_unit_test(an_unknown_dek_id_is_refused_by_name),
        cmocka_unit_test(after_a_failure_only_an_init_helps),
        cmocka_unit_test(a_message_ends_at_the_limit_of_aes_gcm),
        cmocka_unit_test(a_call_from_inside_the_token_is_refused),
        cmocka_unit_test(evp_sees_a_stream_cipher_with_blocks_of_32),
    };
    return cmocka_run_group_tests(tests, setup, provider_rig_teardown);
}
