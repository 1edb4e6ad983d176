#include "base_test.h"

#include <pthread.h>
#include <openssl/evp.h>

#include "base/aesgcm.h"
#include "base/text.h"

enum { LONGEST = 70001 };

static const size_t lengths[] = {0, 1, 15, 16, 17, 31, 32, 33, 64, 100, 255, 256, 4095, 4096, 4097, LONGEST};

static uint8_t key[AESGCM_KEY_SIZE], nonce[AESGCM_NONCE_SIZE], aad[300];
static uint8_t plain[LONGEST + 8], sealed[LONGEST + 8], expected[LONGEST + 8], opened[LONGEST + 8];

static int fill(void **state)
{
    (void)state;
    uint32_t seed = 7;
    uint8_t *const areas[] = {key, nonce, aad, plain};
    const size_t sizes[] = {sizeof key, sizeof nonce, sizeof aad, sizeof plain};
    for (size_t i = 0; i < COUNT(areas); i++)
        for (size_t j = 0; j < sizes[i]; j++) {
            seed = seed * 1664525U + 1013904223U;
            areas[i][j] = (uint8_t)(seed >> 24);
        }
    return 0;
}

/* The same message through EVP, as any program would do it. */
static void evp_encrypt(const uint8_t *n, size_t aad_length, size_t length, uint8_t tag[16])
{
    int out;
    EVP_CIPHER_CTX *evp = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex(evp, EVP_aes_256_gcm(), NULL, key, n), 1);
    if (aad_length)
        assert_int_equal(EVP_EncryptUpdate(evp, NULL, &out, aad, (int)aad_length), 1);
    assert_int_equal(EVP_EncryptUpdate(evp, expected, &out, plain, (int)length), 1);
    assert_int_equal(EVP_EncryptFinal_ex(evp, expected + out, &out), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_GET_TAG, 16, tag), 1);
    EVP_CIPHER_CTX_free(evp);
}

static void known_answers_come_out(void **state)
{
    (void)state;
    /* Test cases 13 and 14 of the GCM specification. */
    static const uint8_t zero[32];
    uint8_t tag[16], out[16], want[16];
    aesgcm *context = aesgcm_new(zero);
    assert_non_null(context);
    assert_int_equal(aesgcm_start(context, true, zero), ENVELOPE_OK);
    assert_int_equal(aesgcm_final_encrypt(context, tag), ENVELOPE_OK);
    assert_true(text_unhex("530f8afbc74536b9a963b4f1c4cb738b", want, 16));
    assert_memory_equal(tag, want, 16);
    assert_int_equal(aesgcm_start(context, true, zero), ENVELOPE_OK);
    assert_int_equal(aesgcm_update(context, zero, 16, out), ENVELOPE_OK);
    assert_int_equal(aesgcm_final_encrypt(context, tag), ENVELOPE_OK);
    assert_true(text_unhex("cea7403d4d606b6e074ec5d3baf39d18", want, 16));
    assert_memory_equal(out, want, 16);
    assert_true(text_unhex("d0d1c8a799996bf0265b98b5d48ab919", want, 16));
    assert_memory_equal(tag, want, 16);
    aesgcm_free(context);
    aesgcm_free(NULL);
}

static void one_context_does_message_after_message_as_evp_does_each(void **state)
{
    (void)state;
    uint8_t tag[16], evp_tag[16];
    aesgcm *context = aesgcm_new(key);
    assert_non_null(context);
    for (size_t i = 0; i < COUNT(lengths); i++)
        for (size_t a = 0; a < sizeof aad; a += 99) {
            size_t length = lengths[i];
            nonce[0]++;
            evp_encrypt(nonce, a, length, evp_tag);
            assert_int_equal(aesgcm_start(context, true, nonce), ENVELOPE_OK);
            assert_int_equal(aesgcm_aad(context, a ? aad : NULL, a), ENVELOPE_OK);
            assert_int_equal(aesgcm_update(context, length ? plain : NULL, length, sealed), ENVELOPE_OK);
            assert_int_equal(aesgcm_final_encrypt(context, tag), ENVELOPE_OK);
            assert_memory_equal(sealed, expected, length);
            assert_memory_equal(tag, evp_tag, 16);
            assert_int_equal(aesgcm_start(context, false, nonce), ENVELOPE_OK);
            assert_int_equal(aesgcm_aad(context, aad, a), ENVELOPE_OK);
            assert_int_equal(aesgcm_update(context, sealed, length, opened), ENVELOPE_OK);
            assert_int_equal(aesgcm_final_decrypt(context, tag), ENVELOPE_OK);
            assert_memory_equal(opened, plain, length);
        }
    aesgcm_free(context);
}

static void any_split_of_aad_and_data_gives_the_same(void **state)
{
    (void)state;
    enum { LENGTH = 70, AAD = 40 };
    uint8_t tag[16], evp_tag[16];
    aesgcm *context = aesgcm_new(key);
    evp_encrypt(nonce, AAD, LENGTH, evp_tag);
    for (size_t cut = 0; cut <= LENGTH; cut++) {
        size_t aad_cut = cut % (AAD + 1);
        assert_int_equal(aesgcm_start(context, true, nonce), ENVELOPE_OK);
        assert_int_equal(aesgcm_aad(context, aad, aad_cut), ENVELOPE_OK);
        assert_int_equal(aesgcm_aad(context, aad + aad_cut, AAD - aad_cut), ENVELOPE_OK);
        assert_int_equal(aesgcm_update(context, plain, cut, sealed), ENVELOPE_OK);
        assert_int_equal(aesgcm_update(context, NULL, 0, NULL), ENVELOPE_OK);
        assert_int_equal(aesgcm_update(context, plain + cut, LENGTH - cut, sealed + cut), ENVELOPE_OK);
        assert_int_equal(aesgcm_final_encrypt(context, tag), ENVELOPE_OK);
        assert_memory_equal(sealed, expected, LENGTH);
        assert_memory_equal(tag, evp_tag, 16);
    }
    assert_int_equal(aesgcm_start(context, true, nonce), ENVELOPE_OK);
    assert_int_equal(aesgcm_aad(context, aad, AAD), ENVELOPE_OK);
    for (size_t i = 0; i < LENGTH; i++)
        assert_int_equal(aesgcm_update(context, plain + i, 1, sealed + i), ENVELOPE_OK);
    assert_int_equal(aesgcm_final_encrypt(context, tag), ENVELOPE_OK);
    assert_memory_equal(sealed, expected, LENGTH);
    assert_memory_equal(tag, evp_tag, 16);
    aesgcm_free(context);
}

static void works_in_place_and_misaligned_and_writes_no_more(void **state)
{
    (void)state;
    uint8_t tag[16], evp_tag[16];
    aesgcm *context = aesgcm_new(key);
    for (size_t i = 0; i < COUNT(lengths); i++)
        for (size_t shift = 0; shift < 4; shift++) {
            size_t length = lengths[i];
            evp_encrypt(nonce, 0, length, evp_tag);
            memset(sealed, 0x77, sizeof sealed);
            memcpy(sealed + shift, plain, length);
            assert_int_equal(aesgcm_start(context, true, nonce), ENVELOPE_OK);
            assert_int_equal(aesgcm_update(context, sealed + shift, length, sealed + shift), ENVELOPE_OK);
            assert_int_equal(aesgcm_final_encrypt(context, tag), ENVELOPE_OK);
            assert_memory_equal(sealed + shift, expected, length);
            assert_memory_equal(tag, evp_tag, 16);
            assert_int_equal(sealed[shift + length], 0x77);
            if (shift)
                assert_int_equal(sealed[shift - 1], 0x77);
        }
    aesgcm_free(context);
}

static envelope_status open_with(aesgcm *context, size_t aad_length, const uint8_t *data, size_t length,
                                 const uint8_t tag[16])
{
    assert_int_equal(aesgcm_start(context, false, nonce), ENVELOPE_OK);
    assert_int_equal(aesgcm_aad(context, aad, aad_length), ENVELOPE_OK);
    assert_int_equal(aesgcm_update(context, data, length, opened), ENVELOPE_OK);
    return aesgcm_final_decrypt(context, tag);
}

static void one_changed_bit_anywhere_is_refused(void **state)
{
    (void)state;
    enum { LENGTH = 40, AAD = 20 };
    uint8_t tag[16];
    aesgcm *context = aesgcm_new(key);
    evp_encrypt(nonce, AAD, LENGTH, tag);
    memcpy(sealed, expected, LENGTH);
    for (size_t bit = 0; bit < LENGTH * 8; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_raised(open_with(context, AAD, sealed, LENGTH, tag), ENVELOPE_E_DATA_AUTH, "does not match");
        sealed[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    for (size_t bit = 0; bit < 128; bit++) {
        tag[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_int_equal(open_with(context, AAD, sealed, LENGTH, tag), ENVELOPE_E_DATA_AUTH);
        tag[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    assert_int_equal(open_with(context, AAD - 1, sealed, LENGTH, tag), ENVELOPE_E_DATA_AUTH);
    assert_int_equal(open_with(context, AAD, sealed, LENGTH - 1, tag), ENVELOPE_E_DATA_AUTH);
    nonce[5] ^= 1;
    assert_int_equal(open_with(context, AAD, sealed, LENGTH, tag), ENVELOPE_E_DATA_AUTH);
    nonce[5] ^= 1;
    /* After all those failures the context still serves. */
    assert_int_equal(open_with(context, AAD, sealed, LENGTH, tag), ENVELOPE_OK);
    aesgcm_free(context);
}

static void the_tag_of_an_earlier_message_does_not_open_a_later_one(void **state)
{
    (void)state;
    uint8_t tag[16], other[16], zero[16] = {0};
    aesgcm *context = aesgcm_new(key);
    evp_encrypt(nonce, 0, 32, tag);
    assert_int_equal(open_with(context, 0, expected, 32, tag), ENVELOPE_OK);
    assert_int_equal(open_with(context, 0, expected, 16, tag), ENVELOPE_E_DATA_AUTH);
    assert_int_equal(open_with(context, 0, expected, 32, zero), ENVELOPE_E_DATA_AUTH);
    assert_int_equal(aesgcm_start(context, true, nonce), ENVELOPE_OK);
    assert_int_equal(aesgcm_update(context, plain, 48, sealed), ENVELOPE_OK);
    assert_int_equal(aesgcm_final_encrypt(context, other), ENVELOPE_OK);
    assert_int_equal(open_with(context, 0, expected, 32, other), ENVELOPE_E_DATA_AUTH);
    aesgcm_free(context);
}

static void calls_out_of_order_fail(void **state)
{
    (void)state;
    uint8_t tag[16];
    aesgcm *context = aesgcm_new(key);
    assert_int_equal(aesgcm_start(context, true, nonce), ENVELOPE_OK);
    assert_int_equal(aesgcm_update(context, plain, 10, sealed), ENVELOPE_OK);
    assert_raised(aesgcm_aad(context, aad, 5), ENVELOPE_E_CRYPTO, "before data");
    assert_raised(aesgcm_update(context, plain, 5, NULL), ENVELOPE_E_ARGUMENT, "buffer");
    assert_raised(aesgcm_update(context, NULL, 5, sealed), ENVELOPE_E_ARGUMENT, "buffer");
    assert_int_equal(aesgcm_final_encrypt(context, tag), ENVELOPE_OK);
    /* The nonce is used up: no second message under it. */
    assert_int_equal(aesgcm_update(context, plain, 10, sealed), ENVELOPE_E_CRYPTO);
    assert_int_equal(aesgcm_final_encrypt(context, tag), ENVELOPE_E_CRYPTO);
    assert_int_equal(aesgcm_start(context, true, nonce), ENVELOPE_OK);
    assert_int_equal(aesgcm_final_encrypt(context, tag), ENVELOPE_OK);
    aesgcm_free(context);
}

static void a_message_that_is_given_up_leaves_nothing_behind(void **state)
{
    (void)state;
    uint8_t tag[16], evp_tag[16];
    aesgcm *context = aesgcm_new(key);
    assert_int_equal(aesgcm_start(context, true, nonce), ENVELOPE_OK);
    assert_int_equal(aesgcm_aad(context, aad, 33), ENVELOPE_OK);
    assert_int_equal(aesgcm_update(context, plain, 21, sealed), ENVELOPE_OK);
    nonce[3]++;
    evp_encrypt(nonce, 7, 50, evp_tag);
    assert_int_equal(aesgcm_start(context, true, nonce), ENVELOPE_OK);
    assert_int_equal(aesgcm_aad(context, aad, 7), ENVELOPE_OK);
    assert_int_equal(aesgcm_update(context, plain, 50, sealed), ENVELOPE_OK);
    assert_int_equal(aesgcm_final_encrypt(context, tag), ENVELOPE_OK);
    assert_memory_equal(sealed, expected, 50);
    assert_memory_equal(tag, evp_tag, 16);
    aesgcm_free(context);
}

static void copy_mid_message(bool encrypt, const uint8_t *in, const uint8_t *out, const uint8_t *tag)
{
    enum { LENGTH = 100, AAD = 13 };
    for (size_t cut = 0; cut <= LENGTH; cut++) {
        uint8_t first[LENGTH], second[LENGTH], got[16];
        aesgcm *context = aesgcm_new(key);
        assert_int_equal(aesgcm_start(context, encrypt, nonce), ENVELOPE_OK);
        assert_int_equal(aesgcm_aad(context, aad, AAD), ENVELOPE_OK);
        assert_int_equal(aesgcm_update(context, in, cut, first), ENVELOPE_OK);
        memcpy(second, first, cut);
        aesgcm *copy = aesgcm_copy(context);
        if (!copy && error_status() == ENVELOPE_E_COPY_REFUSED) { /* a provider may not be able to */
            aesgcm_free(context);
            skip();
        }
        assert_non_null(copy);
        /* The original goes another way, and then away altogether. */
        assert_int_equal(aesgcm_update(context, plain + 500, 77, opened), ENVELOPE_OK);
        aesgcm_free(context);
        assert_int_equal(aesgcm_update(copy, in + cut, LENGTH - cut, second + cut), ENVELOPE_OK);
        assert_memory_equal(second, out, LENGTH);
        if (encrypt) {
            assert_int_equal(aesgcm_final_encrypt(copy, got), ENVELOPE_OK);
            assert_memory_equal(got, tag, 16);
        } else {
            assert_int_equal(aesgcm_final_decrypt(copy, tag), ENVELOPE_OK);
        }
        aesgcm_free(copy);
    }
}

static void a_copy_goes_on_by_itself_from_any_point_of_a_message(void **state)
{
    (void)state;
    uint8_t tag[16];
    evp_encrypt(nonce, 13, 100, tag);
    copy_mid_message(true, plain, expected, tag);
    copy_mid_message(false, expected, plain, tag);
    assert_null(aesgcm_copy(NULL));
}

static void key_schedules_lie_in_pages_that_are_not_dumped(void **state)
{
    (void)state;
    aesgcm *contexts[200];
    for (size_t i = 0; i < COUNT(contexts); i++)
        contexts[i] = aesgcm_new(key);
    for (size_t i = 0; i < COUNT(contexts); i++) {
        assert_non_null(contexts[i]);
        assert_true(page_has_flag(contexts[i], "dd"));
        assert_false(page_has_flag(contexts[i], "wf"));
    }
    for (size_t i = 0; i < COUNT(contexts); i++)
        aesgcm_free(contexts[i]);
}

static void *many_messages(void *argument)
{
    uint8_t tag[16], data[64], n[12] = {0};
    (void)argument;
    for (int round = 0; round < 50; round++) {
        aesgcm *context = aesgcm_new(key);
        for (uint8_t i = 0; context && i < 100; i++) {
            n[0] = i;
            memset(data, i, sizeof data);
            if (aesgcm_start(context, true, n) || aesgcm_update(context, data, sizeof data, data) ||
                aesgcm_final_encrypt(context, tag) || aesgcm_start(context, false, n) ||
                aesgcm_update(context, data, sizeof data, data) || aesgcm_final_decrypt(context, tag) || data[63] != i)
                return argument;
        }
        if (!context)
            return argument;
        aesgcm_free(context);
    }
    return NULL;
}

static void threads_do_not_disturb_each_other(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (size_t i = 0; i < COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, many_messages, threads), 0);
    for (size_t i = 0; i < COUNT(threads); i++) {
        void *problem;
        pthread_join(threads[i], &problem);
        assert_null(problem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_disturb_each_other), /* first: the look-up itself is contended */
        cmocka_unit_test(known_answers_come_out),
        cmocka_unit_test(one_context_does_message_after_message_as_evp_does_each),
        cmocka_unit_test(any_split_of_aad_and_data_gives_the_same),
        cmocka_unit_test(works_in_place_and_misaligned_and_writes_no_more),
        cmocka_unit_test(one_changed_bit_anywhere_is_refused),
        cmocka_unit_test(the_tag_of_an_earlier_message_does_not_open_a_later_one),
        cmocka_unit_test(calls_out_of_order_fail),
        cmocka_unit_test(a_message_that_is_given_up_leaves_nothing_behind),
        cmocka_unit_test(a_copy_goes_on_by_itself_from_any_point_of_a_message),
        cmocka_unit_test(key_schedules_lie_in_pages_that_are_not_dumped),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
