/* What goes in comes out: lengths, splits, buffers, reuse, AAD, and the bytes of docs/wire-format.md. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/params.h>

#include <envelope/status.h>

#include "messages.h"
#include "provider_rig.h"

static const size_t lengths[] = {0, 1, 15, 16, 17, 4095, 4096, 4097, 100000, 20000000};
enum { LENGTHS = sizeof lengths / sizeof lengths[0], SPLIT_MAX = 100 };

static EVP_CIPHER_CTX *initialised(EVP_CIPHER *cipher, int enc)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_non_null(ctx);
    assert_int_equal(EVP_CipherInit_ex2(ctx, cipher, NULL, NULL, enc, NULL), 1);
    return ctx;
}

static void reinit(EVP_CIPHER_CTX *ctx)
{
    assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, -1, NULL), 1);
}

static void every_length_round_trips_with_32_bytes_more(void **state)
{
    struct provider_rig *rig = *state;
    for (size_t i = 0; i < LENGTHS; i++) {
        size_t length = lengths[i], sealed_length, opened_length;
        uint8_t *plain = malloc(length + 1), *sealed = malloc(length + OVERHEAD), *opened = malloc(length + OVERHEAD);
        message_fill(plain, length, (uint32_t)i);
        EVP_CIPHER_CTX *enc = initialised(rig->cipher, 1), *dec = initialised(rig->cipher, 0);
        assert_true(message_run_whole(enc, plain, length, sealed, &sealed_length));
        assert_int_equal(sealed_length, length + OVERHEAD);
        assert_true(message_run_whole(dec, sealed, sealed_length, opened, &opened_length));
        assert_int_equal(opened_length, length);
        assert_memory_equal(opened, plain, length);
        EVP_CIPHER_CTX_free(enc);
        EVP_CIPHER_CTX_free(dec);
        free(plain);
        free(sealed);
        free(opened);
    }
}

static void dek_unwrapped_by_hand_opens_what_the_wire_format_describes(void **state)
{
    struct provider_rig *rig = *state;
    static const uint8_t aad[] = "row 42 of accounts";
    uint8_t plain[1000], sealed[1000 + OVERHEAD], opened[1000], dek[DEK_SIZE];
    message_fill(plain, sizeof plain, 1);
    for (size_t length = 0; length <= sizeof plain; length += 125) {
        size_t sealed_length;
        int ignored;
        EVP_CIPHER_CTX *ctx = initialised(rig->cipher, 1);
        assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &ignored, aad, sizeof aad), 1);
        assert_true(message_run_whole(ctx, plain, length, sealed, &sealed_length));
        EVP_CIPHER_CTX_free(ctx);
        provider_rig_unwrap_by_hand(rig, message_dek_id(sealed), dek);
        assert_true(message_open_by_hand(dek, aad, sizeof aad, sealed, sealed_length, opened));
        assert_memory_equal(opened, plain, length);
        assert_false(message_open_by_hand(dek, NULL, 0, sealed, sealed_length, opened));
    }
}

static void any_cut_of_the_input_gives_the_same(void **state)
{
    struct provider_rig *rig = *state;
    uint8_t plain[SPLIT_MAX], sealed[SPLIT_MAX + OVERHEAD], opened[SPLIT_MAX + OVERHEAD], dek[DEK_SIZE];
    size_t sealed_length, opened_length;
    message_fill(plain, sizeof plain, 2);
    EVP_CIPHER_CTX *enc = initialised(rig->cipher, 1), *dec = initialised(rig->cipher, 0);
    assert_true(message_run_whole(enc, plain, 1, sealed, &sealed_length));
    provider_rig_unwrap_by_hand(rig, message_dek_id(sealed), dek);

    for (size_t length = 0; length <= SPLIT_MAX; length++) {
        for (size_t cut = 0; cut <= length; cut++) {
            const size_t pieces[] = {cut, length - cut};
            reinit(enc);
            assert_true(message_run(enc, plain, pieces, 2, sealed, &sealed_length));
            assert_int_equal(sealed_length, length + OVERHEAD);
            assert_true(message_open_by_hand(dek, NULL, 0, sealed, sealed_length, opened));
            assert_memory_equal(opened, plain, length);
        }
        for (size_t cut = 0; cut <= sealed_length; cut++) {
            const size_t pieces[] = {cut, sealed_length - cut};
            reinit(dec);
            assert_true(message_run(dec, sealed, pieces, 2, opened, &opened_length));
            assert_int_equal(opened_length, length);
            assert_memory_equal(opened, plain, length);
        }
    }
    EVP_CIPHER_CTX_free(enc);
    EVP_CIPHER_CTX_free(dec);
}

static void any_three_pieces_of_a_ciphertext_open_to_the_same(void **state)
{
    struct provider_rig *rig = *state;
    static const size_t some[] = {0, 1, 16, 33, SPLIT_MAX};
    uint8_t plain[SPLIT_MAX], sealed[SPLIT_MAX + OVERHEAD], opened[SPLIT_MAX + OVERHEAD];
    size_t sealed_length, opened_length;
    message_fill(plain, sizeof plain, 3);
    EVP_CIPHER_CTX *dec = initialised(rig->cipher, 0);
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        assert_true(message_seal(rig->cipher, NULL, plain, some[i], sealed, &sealed_length));
        for (size_t first = 0; first <= sealed_length; first++)
            for (size_t second = 0; first + second <= sealed_length; second++) {
                const size_t pieces[] = {first, second, sealed_length - first - second};
                reinit(dec);
                assert_true(message_run(dec, sealed, pieces, 3, opened, &opened_length));
                assert_int_equal(opened_length, some[i]);
                assert_memory_equal(opened, plain, some[i]);
            }
    }
    EVP_CIPHER_CTX_free(dec);
}

static void equal_pieces_of_every_size_give_the_same(void **state)
{
    struct provider_rig *rig = *state;
    enum { LENGTH = 1000 };
    uint8_t plain[LENGTH], sealed[LENGTH + OVERHEAD], opened[LENGTH + OVERHEAD];
    size_t sealed_length, opened_length;
    message_fill(plain, sizeof plain, 4);
    EVP_CIPHER_CTX *enc = initialised(rig->cipher, 1), *dec = initialised(rig->cipher, 0);
    for (size_t piece = 1; piece <= 300; piece++) {
        size_t pieces[LENGTH + OVERHEAD], count = 0, left = LENGTH;
        for (; left > 0; left -= pieces[count++])
            pieces[count] = left < piece ? left : piece;
        reinit(enc);
        assert_true(message_run(enc, plain, pieces, count, sealed, &sealed_length));
        count = 0;
        for (left = sealed_length; left > 0; left -= pieces[count++])
            pieces[count] = left < piece ? left : piece;
        reinit(dec);
        assert_true(message_run(dec, sealed, pieces, count, opened, &opened_length));
        assert_int_equal(opened_length, LENGTH);
        assert_memory_equal(opened, plain, LENGTH);
    }
    EVP_CIPHER_CTX_free(enc);
    EVP_CIPHER_CTX_free(dec);
}

/* out = in + shift, within one buffer; with a shift of 0 this is "in place". */
static void overlapping_once(struct provider_rig *rig, size_t length, int shift)
{
    enum { MARGIN = 96 };
    uint8_t *plain = malloc(length + 1), *buffer = malloc(length + OVERHEAD + 2 * MARGIN + 32);
    int written, more;
    message_fill(plain, length, (uint32_t)length);
    uint8_t *in = buffer + MARGIN, *out = in + shift;
    memcpy(in, plain, length);
    EVP_CIPHER_CTX *ctx = initialised(rig->cipher, 1);
    assert_int_equal(EVP_CipherUpdate(ctx, out, &written, in, (int)length), 1);
    assert_int_equal(EVP_CipherFinal_ex(ctx, out + written, &more), 1);
    size_t sealed = (size_t)(written + more);
    assert_int_equal(sealed, length + OVERHEAD);
    EVP_CIPHER_CTX_free(ctx);

    memmove(in, out, sealed);
    ctx = initialised(rig->cipher, 0);
    assert_int_equal(EVP_CipherUpdate(ctx, out, &written, in, (int)sealed), 1);
    assert_int_equal(EVP_CipherFinal_ex(ctx, out + written, &more), 1);
    assert_int_equal(written + more, length);
    assert_memory_equal(out, plain, length);
    EVP_CIPHER_CTX_free(ctx);
    free(plain);
    free(buffer);
}

static void input_and_output_may_be_one_buffer_or_overlap(void **state)
{
    static const size_t some[] = {0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 100, 4096, 100001};
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++)
        for (int shift = -64; shift <= 64; shift++)
            overlapping_once(*state, some[i], shift);
}

/* Block after block in one buffer each, as programs do that read, encrypt and write the same buffer. */
static void blocks_are_worked_on_in_place(void **state)
{
    struct provider_rig *rig = *state;
    enum { LENGTH = 10000 };
    uint8_t plain[LENGTH], sealed[LENGTH + OVERHEAD], opened[LENGTH + OVERHEAD], block[512 + 32];
    message_fill(plain, sizeof plain, 5);
    for (size_t size = 1; size <= 512; size += size < 70 ? 1 : 53) {
        size_t sealed_length = 0, opened_length = 0;
        int written;
        EVP_CIPHER_CTX *enc = initialised(rig->cipher, 1), *dec = initialised(rig->cipher, 0);
        for (size_t at = 0; at < LENGTH; at += size) {
            size_t now = LENGTH - at < size ? LENGTH - at : size;
            memcpy(block, plain + at, now);
            assert_int_equal(EVP_CipherUpdate(enc, block, &written, block, (int)now), 1);
            memcpy(sealed + sealed_length, block, (size_t)written);
            sealed_length += (size_t)written;
        }
        assert_int_equal(EVP_CipherFinal_ex(enc, sealed + sealed_length, &written), 1);
        sealed_length += (size_t)written;
        for (size_t at = 0; at < sealed_length; at += size) {
            size_t now = sealed_length - at < size ? sealed_length - at : size;
            memcpy(block, sealed + at, now);
            assert_int_equal(EVP_CipherUpdate(dec, block, &written, block, (int)now), 1);
            memcpy(opened + opened_length, block, (size_t)written);
            opened_length += (size_t)written;
        }
        assert_int_equal(EVP_CipherFinal_ex(dec, opened + opened_length, &written), 1);
        assert_int_equal(opened_length, LENGTH);
        assert_memory_equal(opened, plain, LENGTH);
        EVP_CIPHER_CTX_free(enc);
        EVP_CIPHER_CTX_free(dec);
    }
}

static void buffers_need_no_alignment(void **state)
{
    struct provider_rig *rig = *state;
    enum { LENGTH = 333 };
    uint8_t plain[LENGTH + 16], sealed[LENGTH + OVERHEAD + 16], opened[LENGTH + OVERHEAD + 16];
    size_t sealed_length, opened_length;
    for (size_t from = 0; from < 16; from++)
        for (size_t to = 0; to < 16; to++) {
            message_fill(plain + from, LENGTH, (uint32_t)(from * 16 + to));
            assert_true(message_seal(rig->cipher, NULL, plain + from, LENGTH, sealed + to, &sealed_length));
            assert_true(message_open(rig->cipher, NULL, sealed + to, sealed_length, opened + from, &opened_length));
            assert_int_equal(opened_length, LENGTH);
            assert_memory_equal(opened + from, plain + from, LENGTH);
        }
}

static void a_context_serves_many_messages_each_under_its_own_nonce(void **state)
{
    struct provider_rig *rig = *state;
    enum { MESSAGES = 1000, LENGTH = 20 };
    static uint8_t sealed[MESSAGES][LENGTH + OVERHEAD];
    uint8_t plain[LENGTH], opened[LENGTH + OVERHEAD];
    size_t length;
    EVP_CIPHER_CTX *enc = initialised(rig->cipher, 1), *dec = initialised(rig->cipher, 0);
    for (unsigned i = 0; i < MESSAGES; i++) {
        message_fill(plain, LENGTH, i);
        reinit(enc);
        assert_true(message_run_whole(enc, plain, LENGTH, sealed[i], &length));
    }
    for (unsigned i = 0; i < MESSAGES; i++) {
        for (unsigned j = 0; j < i; j++)
            assert_memory_not_equal(sealed[i] + 4, sealed[j] + 4, 12);
        message_fill(plain, LENGTH, i);
        reinit(dec);
        assert_true(message_run_whole(dec, sealed[i], length, opened, &length));
        assert_memory_equal(opened, plain, LENGTH);
        length = LENGTH + OVERHEAD;
    }
    EVP_CIPHER_CTX_free(enc);
    EVP_CIPHER_CTX_free(dec);
}

static void a_context_changes_direction_and_is_reset_in_mid_message(void **state)
{
    struct provider_rig *rig = *state;
    uint8_t plain[100], sealed[100 + OVERHEAD], opened[100 + OVERHEAD];
    size_t length;
    int written;
    message_fill(plain, sizeof plain, 6);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    for (int i = 0; i < 50; i++) {
        assert_int_equal(EVP_CipherInit_ex2(ctx, rig->cipher, NULL, NULL, 1, NULL), 1);
        assert_int_equal(EVP_CipherUpdate(ctx, sealed, &written, plain, i), 1);
        assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, 1, NULL), 1);
        assert_true(message_run_whole(ctx, plain, sizeof plain, sealed, &length));
        assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, 0, NULL), 1);
        assert_int_equal(EVP_CipherUpdate(ctx, opened, &written, sealed, i), 1);
        assert_int_equal(EVP_CipherInit_ex2(ctx, i % 2 ? NULL : rig->cipher, NULL, NULL, 0, NULL), 1);
        assert_true(message_run_whole(ctx, sealed, length, opened, &length));
        assert_int_equal(length, sizeof plain);
        assert_memory_equal(opened, plain, sizeof plain);
        if (i % 3 == 0)
            assert_int_equal(EVP_CIPHER_CTX_reset(ctx), 1);
    }
    EVP_CIPHER_CTX_free(ctx);
}

static void aad_counts_byte_for_byte_however_it_is_cut(void **state)
{
    struct provider_rig *rig = *state;
    enum { AAD = 150 };
    uint8_t aad[AAD], plain[40], sealed[40 + OVERHEAD], opened[40 + OVERHEAD];
    size_t sealed_length, opened_length;
    int ignored;
    message_fill(aad, sizeof aad, 7);
    message_fill(plain, sizeof plain, 8);
    EVP_CIPHER_CTX *enc = initialised(rig->cipher, 1), *dec = initialised(rig->cipher, 0);
    for (int cut = 0; cut <= AAD; cut++) {
        reinit(enc);
        assert_int_equal(EVP_CipherUpdate(enc, NULL, &ignored, aad, cut), 1);
        assert_int_equal(EVP_CipherUpdate(enc, NULL, &ignored, aad + cut, AAD - cut), 1);
        assert_true(message_run_whole(enc, plain, sizeof plain, sealed, &sealed_length));
        reinit(dec);
        for (int i = 0; i < AAD; i += 1 + cut % 7)
            assert_int_equal(
                EVP_CipherUpdate(dec, NULL, &ignored, aad + i, AAD - i < 1 + cut % 7 ? AAD - i : 1 + cut % 7), 1);
        assert_true(message_run_whole(dec, sealed, sealed_length, opened, &opened_length));
        assert_memory_equal(opened, plain, sizeof plain);
    }
    /* One bit, one byte less, none: refused. */
    aad[AAD - 1] ^= 1;
    for (int length = AAD - 1; length <= AAD; length++) {
        reinit(dec);
        assert_int_equal(EVP_CipherUpdate(dec, NULL, &ignored, aad, length), 1);
        assert_false(message_run_whole(dec, sealed, sealed_length, opened, &opened_length));
        expect_reason(ENVELOPE_E_DATA_AUTH);
    }
    reinit(dec);
    assert_false(message_run_whole(dec, sealed, sealed_length, opened, &opened_length));
    expect_reason(ENVELOPE_E_DATA_AUTH);
    EVP_CIPHER_CTX_free(enc);
    EVP_CIPHER_CTX_free(dec);
}

static void aad_given_as_a_parameter_is_the_same_aad(void **state)
{
    struct provider_rig *rig = *state;
    char aad[] = "tenant 42";
    uint8_t plain[10] = {0}, sealed[10 + OVERHEAD], opened[10 + OVERHEAD];
    size_t sealed_length, opened_length;
    int ignored;
    const OSSL_PARAM params[] = {OSSL_PARAM_octet_string("envelope-aad", aad, sizeof aad), OSSL_PARAM_END};
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_CipherInit_ex2(ctx, rig->cipher, NULL, NULL, 1, params), 1);
    assert_true(message_run_whole(ctx, plain, sizeof plain, sealed, &sealed_length));
    assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, 0, NULL), 1);
    assert_int_equal(EVP_CipherUpdate(ctx, NULL, &ignored, (const uint8_t *)aad, sizeof aad), 1);
    assert_true(message_run_whole(ctx, sealed, sealed_length, opened, &opened_length));
    /* A parameter replaces what was there; a new init forgets it. */
    assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, 0, NULL), 1);
    assert_int_equal(EVP_CipherUpdate(ctx, NULL, &ignored, (const uint8_t *)"wrong", 5), 1);
    assert_int_equal(EVP_CIPHER_CTX_set_params(ctx, params), 1);
    assert_true(message_run_whole(ctx, sealed, sealed_length, opened, &opened_length));
    assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, 0, params), 1);
    assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, 0, NULL), 1);
    assert_false(message_run_whole(ctx, sealed, sealed_length, opened, &opened_length));
    expect_reason(ENVELOPE_E_DATA_AUTH);
    EVP_CIPHER_CTX_free(ctx);
}

static void large_aad_is_taken_up_to_16_mib(void **state)
{
    struct provider_rig *rig = *state;
    enum { LIMIT = 16 * 1024 * 1024, PIECE = 1024 * 1024 };
    uint8_t *aad = malloc(PIECE), plain[5] = {1, 2, 3, 4, 5}, sealed[5 + OVERHEAD], opened[5 + OVERHEAD];
    size_t length;
    int ignored;
    message_fill(aad, PIECE, 9);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    for (int enc = 1; enc >= 0; enc--) {
        assert_int_equal(EVP_CipherInit_ex2(ctx, rig->cipher, NULL, NULL, enc, NULL), 1);
        for (int i = 0; i < LIMIT / PIECE; i++)
            assert_int_equal(EVP_CipherUpdate(ctx, NULL, &ignored, aad, PIECE), 1);
        assert_int_equal(EVP_CipherUpdate(ctx, NULL, &ignored, aad, 1), 0);
        expect_reason(ENVELOPE_E_DATA_TOO_LONG);
        if (enc)
            assert_true(message_run_whole(ctx, plain, sizeof plain, sealed, &length));
        else
            assert_true(message_run_whole(ctx, sealed, sizeof sealed, opened, &length));
    }
    assert_memory_equal(opened, plain, sizeof plain);
    EVP_CIPHER_CTX_free(ctx);
    free(aad);
}

static void old_messages_open_after_a_rotation_and_new_ones_use_the_new_version(void **state)
{
    struct provider_rig *rig = *state;
    uint8_t plain[64], before[64 + OVERHEAD], after[64 + OVERHEAD], opened[64 + OVERHEAD];
    uint8_t identity[32] = "identity";
    size_t length;
    message_fill(plain, sizeof plain, 10);
    assert_true(message_seal(rig->cipher, identity, plain, sizeof plain, before, &length));
    provider_rig_rotate(rig, "identity");
    /* Seen within `refresh`, a second. */
    for (int i = 0; i < 100; i++) {
        assert_true(message_seal(rig->cipher, identity, plain, sizeof plain, after, &length));
        if (message_dek_id(after) != message_dek_id(before))
            break;
        struct timespec pause = {0, 50000000};
        nanosleep(&pause, NULL);
    }
    assert_int_not_equal(message_dek_id(after), message_dek_id(before));
    assert_true(message_open(rig->cipher, NULL, before, sizeof before, opened, &length));
    assert_memory_equal(opened, plain, sizeof plain);
    assert_true(message_open(rig->cipher, identity, after, sizeof after, opened, &length));
    assert_memory_equal(opened, plain, sizeof plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_round_trips_with_32_bytes_more),
        cmocka_unit_test(dek_unwrapped_by_hand_opens_what_the_wire_format_describes),
        cmocka_unit_test(any_cut_of_the_input_gives_the_same),
        cmocka_unit_test(any_three_pieces_of_a_ciphertext_open_to_the_same),
        cmocka_unit_test(equal_pieces_of_every_size_give_the_same),
        cmocka_unit_test(input_and_output_may_be_one_buffer_or_overlap),
        cmocka_unit_test(blocks_are_worked_on_in_place),
        cmocka_unit_test(buffers_need_no_alignment),
        cmocka_unit_test(a_context_serves_many_messages_each_under_its_own_nonce),
        cmocka_unit_test(a_context_changes_direction_and_is_reset_in_mid_message),
        cmocka_unit_test(aad_counts_byte_for_byte_however_it_is_cut),
        cmocka_unit_test(aad_given_as_a_parameter_is_the_same_aad),
        cmocka_unit_test(large_aad_is_taken_up_to_16_mib),
        cmocka_unit_test(old_messages_open_after_a_rotation_and_new_ones_use_the_new_version),
    };
    return cmocka_run_group_tests(tests, provider_rig_setup, provider_rig_teardown);
}
