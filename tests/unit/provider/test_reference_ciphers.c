/* Every standard cipher behind Envelope: the same as without it for a raw key, the DEK's for a reference. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rand.h>

#include <envelope/status.h>

#include "messages.h"
#include "reference_rig.h"

enum { CIPHERS_MAX = 256, LENGTH = 64 };

static struct {
    OSSL_LIB_CTX *context;
    char names[CIPHERS_MAX][64];
    size_t count;
    uint8_t reference[REFERENCE_BYTES], dek[DEK_SIZE];
    uint8_t in[LENGTH], iv[16];
} the;

static void note_cipher(EVP_CIPHER *cipher, void *argument)
{
    (void)argument;
    const char *name = EVP_CIPHER_get0_name(cipher);
    if (strcmp(OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher)), "envelope") != 0 ||
        strncmp(name, "ENVELOPE-", 9) == 0)
        return;
    assert_true(the.count < CIPHERS_MAX);
    rig_text(the.names[the.count++], sizeof the.names[0], "%s", name);
}

static int setup(void **state)
{
    if (provider_rig_setup(state))
        return -1;
    const struct provider_rig *rig = *state;
    the.context = reference_rig_context(rig, NULL, NULL);
    EVP_CIPHER_do_all_provided(the.context, note_cipher, NULL);
    provider_rig_unwrap_by_hand(rig, reference_rig_make(rig, "financial", 0, the.reference), the.dek);
    return RAND_bytes(the.in, sizeof the.in) == 1 && RAND_bytes(the.iv, sizeof the.iv) == 1 ? 0 : -1;
}

static int teardown(void **state)
{
    OSSL_LIB_CTX_free(the.context);
    return provider_rig_teardown(state);
}

/* What cannot be run as one plain message here: SIV wants no IV and gives its tag first, the stitched ciphers are
 * TLS's. */
static bool is_plain(const char *name)
{
    return !strstr(name, "SIV") && !strstr(name, "HMAC");
}

static EVP_CIPHER *fetch(const char *name, const char *provider)
{
    char properties[64];
    rig_text(properties, sizeof properties, "provider=%s", provider);
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(the.context, name, properties);
    assert_non_null(cipher);
    return cipher;
}

static int length_for(const char *name)
{
    return strstr(name, "CFB1") && !strstr(name, "CFB128") ? 8 : strstr(name, "WRAP") ? 32 : LENGTH;
}

static bool seal(const char *name, const char *provider, const uint8_t *key, struct reference_message *message)
{
    EVP_CIPHER *cipher = fetch(name, provider);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool done = reference_rig_seal(ctx, cipher, key, strstr(name, "DES3-WRAP") ? NULL : the.iv, the.in,
                                   length_for(name), message);
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
    return done;
}

static bool takes_references(const char *name)
{
    EVP_CIPHER *cipher = fetch(name, "default");
    int mode = EVP_CIPHER_get_mode(cipher);
    bool takes = EVP_CIPHER_get_key_length(cipher) == 32 && mode != EVP_CIPH_XTS_MODE && mode != EVP_CIPH_SIV_MODE &&
                 !strstr(name, "HMAC");
    EVP_CIPHER_free(cipher);
    return takes;
}

static void every_cipher_of_the_default_provider_is_offered(void **state)
{
    (void)state;
    static const char *const some[] = {"AES-256-GCM", "AES-256-CBC",       "AES-128-CBC", "AES-256-XTS",
                                       "ChaCha20",    "ChaCha20-Poly1305", "AES-256-WRAP"};
    assert_true(the.count > 100);
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++)
        EVP_CIPHER_free(fetch(some[i], "envelope"));
}

static void a_raw_key_gives_what_the_default_provider_gives(void **state)
{
    (void)state;
    uint8_t key[64];
    size_t compared = 0;
    for (size_t i = 0; i < the.count; i++) {
        const char *name = the.names[i];
        if (!is_plain(name) || strstr(name, "DES3-WRAP")) /* draws its own IV */
            continue;
        assert_int_equal(RAND_bytes(key, sizeof key), 1);
        struct reference_message with, without;
        if (!seal(name, "default", key, &without) || !seal(name, "envelope", key, &with)) {
            ERR_print_errors_fp(stderr);
            fail_msg("%s does not encrypt", name);
        }
        if (!reference_rig_same(&with, &without))
            fail_msg("%s differs behind Envelope", name);
        compared++;
    }
    assert_true(compared > 100);
}

static void a_reference_is_its_dek_in_every_cipher_of_256_bits(void **state)
{
    (void)state;
    size_t compared = 0;
    for (size_t i = 0; i < the.count; i++) {
        const char *name = the.names[i];
        if (!takes_references(name))
            continue;
        struct reference_message by_reference, by_dek, by_bytes;
        if (!seal(name, "envelope", the.reference, &by_reference)) {
            ERR_print_errors_fp(stderr);
            fail_msg("%s refuses a reference", name);
        }
        assert_true(seal(name, "default", the.dek, &by_dek));
        assert_true(seal(name, "default", the.reference, &by_bytes));
        if (!reference_rig_same(&by_reference, &by_dek))
            fail_msg("%s does not encrypt under the DEK", name);
        if (reference_rig_same(&by_reference, &by_bytes))
            fail_msg("%s took the reference for a key", name);
        compared++;
    }
    assert_true(compared > 30);
}

static void assert_lengths(const char *name, EVP_CIPHER_CTX *ctx, const EVP_CIPHER_CTX *like)
{
    if (EVP_CIPHER_CTX_get_key_length(ctx) != EVP_CIPHER_CTX_get_key_length(like) ||
        EVP_CIPHER_CTX_get_iv_length(ctx) != EVP_CIPHER_CTX_get_iv_length(like))
        fail_msg("%s: a key of %d and an IV of %d bytes, not %d and %d", name, EVP_CIPHER_CTX_get_key_length(ctx),
                 EVP_CIPHER_CTX_get_iv_length(ctx), EVP_CIPHER_CTX_get_key_length(like),
                 EVP_CIPHER_CTX_get_iv_length(like));
}

/* length 0: as it is. Given before the init by ctrl, or with it. */
static void compare_lengths(const char *name, size_t length, bool with_init)
{
    EVP_CIPHER_CTX *contexts[2];
    EVP_CIPHER *ciphers[2] = {fetch(name, "envelope"), fetch(name, "default")};
    const uint8_t *keys[2] = {the.reference, the.dek};
    uint8_t out[2][LENGTH + 32];
    OSSL_PARAM params[] = {OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, &length), OSSL_PARAM_END};
    int done[2], sizes[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        contexts[i] = EVP_CIPHER_CTX_new();
        EVP_CIPHER_CTX_set_flags(contexts[i], EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
        assert_int_equal(EVP_EncryptInit_ex2(contexts[i], ciphers[i], NULL, NULL, with_init && length ? params : NULL),
                         1);
        if (length && !with_init)
            assert_int_equal(EVP_CIPHER_CTX_set_params(contexts[i], params), 1);
        done[i] = EVP_EncryptInit_ex2(contexts[i], NULL, keys[i], the.iv, NULL);
        if (done[i] && length)
            done[i] = EVP_EncryptUpdate(contexts[i], out[i], &sizes[i], the.in, LENGTH);
    }
    assert_int_equal(done[0], done[1]);
    assert_int_equal(sizes[0], sizes[1]);
    assert_memory_equal(out[0], out[1], (size_t)sizes[0]);
    assert_lengths(name, contexts[0], contexts[1]);
    for (int i = 0; i < 2; i++) {
        EVP_CIPHER_CTX_free(contexts[i]);
        EVP_CIPHER_free(ciphers[i]);
    }
}

static void a_context_has_the_lengths_it_was_given(void **state)
{
    (void)state;
    for (size_t i = 0; i < the.count; i++)
        if (takes_references(the.names[i]))
            compare_lengths(the.names[i], 0, false);
    compare_lengths("AES-256-GCM", 12, false);
    compare_lengths("AES-256-GCM", 16, false);
    compare_lengths("AES-256-GCM", 0, false);
    compare_lengths("ARIA-256-GCM", 8, true);
    compare_lengths("ARIA-256-GCM", 0, false);
    compare_lengths("AES-256-OCB", 10, true);
    compare_lengths("AES-256-OCB", 0, false);
}

static void what_a_reference_encrypts_it_decrypts(void **state)
{
    (void)state;
    static const char *const names[] = {"AES-256-CBC", "AES-256-ECB", "AES-256-CTR", "CAMELLIA-256-CBC"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        EVP_CIPHER *cipher = fetch(names[i], "envelope");
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        struct reference_message message;
        uint8_t opened[LENGTH + 32];
        int length = 0, last = 0;
        assert_true(reference_rig_seal(ctx, cipher, the.reference, the.iv, the.in, LENGTH, &message));
        /* In the same context: its key schedule is for the other direction. */
        assert_int_equal(EVP_DecryptInit_ex2(ctx, NULL, the.reference, the.iv, NULL), 1);
        assert_int_equal(EVP_DecryptUpdate(ctx, opened, &length, message.out, message.length), 1);
        assert_int_equal(EVP_DecryptFinal_ex(ctx, opened + length, &last), 1);
        assert_int_equal(length + last, LENGTH);
        assert_memory_equal(opened, the.in, LENGTH);
        EVP_CIPHER_CTX_free(ctx);
        EVP_CIPHER_free(cipher);
    }
}

static void a_cipher_of_another_key_size_refuses_a_reference(void **state)
{
    (void)state;
    uint8_t key[64];
    memcpy(key, the.reference, 32);
    memcpy(key + 32, the.in, 32);
    size_t refused = 0;
    for (size_t i = 0; i < the.count; i++) {
        const char *name = the.names[i];
        if (takes_references(name))
            continue;
        struct reference_message message;
        if (seal(name, "envelope", key, &message))
            fail_msg("%s took the bytes of a reference for a key", name);
        expect_reason_text(ENVELOPE_E_REFERENCE, "which this cipher does not take");
        refused++;
    }
    assert_true(refused > 50);
}

/* A program that overlooks a failed init must not send out what the reference's own bytes encrypt. */
static void after_a_refusal_nothing_is_encrypted(void **state)
{
    (void)state;
    uint8_t damaged[REFERENCE_BYTES];
    memcpy(damaged, the.reference, sizeof damaged);
    damaged[31] ^= 1;
    for (size_t i = 0; i < the.count; i++) {
        const char *name = the.names[i];
        EVP_CIPHER *cipher = fetch(name, "envelope");
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        uint8_t out[LENGTH + 32] = {0}, key[64] = {0};
        int length = 0;
        memcpy(key, damaged, sizeof damaged);
        if (is_plain(name)) {
            EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
            assert_int_equal(EVP_EncryptInit_ex2(ctx, cipher, key, the.iv, NULL), 0);
            if (EVP_EncryptUpdate(ctx, out, &length, the.in, length_for(name)) == 1 && length > 0)
                fail_msg("%s encrypts after its init was refused", name);
        }
        EVP_CIPHER_CTX_free(ctx);
        EVP_CIPHER_free(cipher);
    }
    ERR_clear_error();
}

static void a_copied_context_goes_on_under_the_dek(void **state)
{
    (void)state;
    EVP_CIPHER *cipher = fetch("AES-256-CBC", "envelope");
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new(), *copy = EVP_CIPHER_CTX_new();
    struct reference_message whole;
    uint8_t out[LENGTH + 32];
    int first = 0, length = 0, last = 0;
    assert_true(reference_rig_seal(ctx, cipher, the.reference, the.iv, the.in, LENGTH, &whole));
    assert_int_equal(EVP_EncryptInit_ex2(ctx, cipher, the.reference, the.iv, NULL), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, out, &first, the.in, 16), 1);
    assert_int_equal(EVP_CIPHER_CTX_copy(copy, ctx), 1);
    EVP_CIPHER_CTX_free(ctx);
    assert_int_equal(EVP_EncryptUpdate(copy, out + first, &length, the.in + 16, LENGTH - 16), 1);
    assert_int_equal(EVP_EncryptFinal_ex(copy, out + first + length, &last), 1);
    assert_int_equal(first + length + last, whole.length);
    assert_memory_equal(out, whole.out, (size_t)whole.length);
    /* And its next message is counted and encrypted like any other. */
    assert_int_equal(EVP_EncryptInit_ex2(copy, NULL, NULL, the.iv, NULL), 1);
    EVP_CIPHER_CTX_free(copy);
    EVP_CIPHER_free(cipher);
}

/* One context, one key after the other: each counts, none lingers. */
static void a_context_may_change_between_raw_keys_and_references(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t other[REFERENCE_BYTES], other_dek[DEK_SIZE], raw[32];
    provider_rig_unwrap_by_hand(rig, reference_rig_make(rig, "identity", 0, other), other_dek);
    assert_int_equal(RAND_bytes(raw, sizeof raw), 1);
    const struct {
        const uint8_t *given, *meant;
    } turns[] = {
        {the.reference, the.dek}, {raw, raw}, {the.reference, the.dek}, {other, other_dek}, {the.reference, the.dek},
        {other, other_dek},       {raw, raw}, {other, other_dek}};
    static const char *const names[] = {"AES-256-GCM", "AES-256-CBC", "AES-256-CTR", "ChaCha20-Poly1305",
                                        "AES-256-OCB"};
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        EVP_CIPHER *cipher = fetch(names[n], "envelope");
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        assert_int_equal(EVP_EncryptInit_ex2(ctx, cipher, NULL, NULL, NULL), 1);
        for (size_t i = 0; i < sizeof turns / sizeof turns[0]; i++) {
            struct reference_message expected;
            uint8_t out[LENGTH + 32];
            int length = 0;
            assert_true(seal(names[n], "default", turns[i].meant, &expected));
            for (int way = 0; way < 2; way++) { /* with the key, then with the key kept */
                assert_int_equal(EVP_EncryptInit_ex2(ctx, NULL, way ? NULL : turns[i].given, the.iv, NULL), 1);
                assert_int_equal(EVP_EncryptUpdate(ctx, out, &length, the.in, LENGTH), 1);
                assert_true(length >= LENGTH - 16);
                assert_memory_equal(out, expected.out, (size_t)length);
            }
        }
        EVP_CIPHER_CTX_free(ctx);
        EVP_CIPHER_free(cipher);
    }
}

#ifdef OSSL_OP_SKEYMGMT
static void seal_object(const char *name, const char *provider, const uint8_t *bytes, struct reference_message *message)
{
    char properties[64];
    rig_text(properties, sizeof properties, "provider=%s", provider);
    EVP_CIPHER *cipher = fetch(name, provider);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    EVP_SKEY *object =
        EVP_SKEY_import_raw_key(the.context, "GENERIC-SECRET", (unsigned char *)(uintptr_t)bytes, 32, properties);
    assert_non_null(object);
    memset(message, 0, sizeof *message);
    if (EVP_CipherInit_SKEY(ctx, cipher, object, the.iv, (size_t)EVP_CIPHER_get_iv_length(cipher), 1, NULL) != 1) {
        ERR_print_errors_fp(stderr);
        fail_msg("%s of %s takes no key object", name, provider);
    }
    assert_int_equal(EVP_EncryptUpdate(ctx, message->out, &message->length, the.in, LENGTH), 1);
    EVP_SKEY_free(object);
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
}

static void a_key_object_may_hold_a_reference_or_a_key(void **state)
{
    (void)state;
    static const char *const names[] = {"AES-256-CBC", "AES-256-GCM", "AES-256-CTR"};
    uint8_t raw[32], damaged[REFERENCE_BYTES];
    assert_int_equal(RAND_bytes(raw, sizeof raw), 1);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct reference_message by_reference, by_dek, with, without;
        seal_object(names[i], "envelope", the.reference, &by_reference);
        seal_object(names[i], "default", the.dek, &by_dek);
        assert_true(reference_rig_same(&by_reference, &by_dek));
        seal_object(names[i], "envelope", raw, &with);
        seal_object(names[i], "default", raw, &without);
        assert_true(reference_rig_same(&with, &without));
    }
    memcpy(damaged, the.reference, sizeof damaged);
    damaged[20] ^= 1;
    EVP_CIPHER *cipher = fetch("AES-256-CBC", "envelope");
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    EVP_SKEY *object = EVP_SKEY_import_raw_key(the.context, "AES", damaged, sizeof damaged, "provider=envelope");
    assert_non_null(object);
    ERR_clear_error();
    assert_int_equal(EVP_CipherInit_SKEY(ctx, cipher, object, the.iv, 16, 1, NULL), 0);
    expect_reason_text(ENVELOPE_E_REFERENCE, "damaged");
    EVP_SKEY_free(object);
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cipher_of_the_default_provider_is_offered),
        cmocka_unit_test(a_raw_key_gives_what_the_default_provider_gives),
        cmocka_unit_test(a_reference_is_its_dek_in_every_cipher_of_256_bits),
        cmocka_unit_test(a_context_has_the_lengths_it_was_given),
        cmocka_unit_test(what_a_reference_encrypts_it_decrypts),
        cmocka_unit_test(a_cipher_of_another_key_size_refuses_a_reference),
        cmocka_unit_test(after_a_refusal_nothing_is_encrypted),
        cmocka_unit_test(a_copied_context_goes_on_under_the_dek),
        cmocka_unit_test(a_context_may_change_between_raw_keys_and_references),
#ifdef OSSL_OP_SKEYMGMT
        cmocka_unit_test(a_key_object_may_hold_a_reference_or_a_key),
#endif
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
