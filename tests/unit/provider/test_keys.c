/* Which key: from key bytes, names, references, cipher names and properties; and what is refused without being shown.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <envelope/status.h>

#include "messages.h"
#include "provider_rig.h"

enum { LENGTH = 24, SEALED = LENGTH + OVERHEAD };

static const uint8_t zeros[32];
static const uint8_t financial[32] = "financial";
static const uint8_t identity[32] = "identity";
static const uint8_t by_default[32] = "default";
static const uint8_t plain[LENGTH] = "account 42, 17.30 EUR";

static void seal_under(const struct provider_rig *rig, const uint8_t *key, uint8_t sealed[SEALED])
{
    size_t length;
    if (!message_seal(rig->cipher, key, plain, LENGTH, sealed, &length)) {
        ERR_print_errors_fp(stderr);
        fail_msg("encryption failed");
    }
}

static bool opens_under(const struct provider_rig *rig, const uint8_t *key, const uint8_t sealed[SEALED])
{
    uint8_t opened[SEALED];
    size_t length;
    return message_open(rig->cipher, key, sealed, SEALED, opened, &length) && length == LENGTH &&
           memcmp(opened, plain, LENGTH) == 0;
}

static void no_key_and_zeros_mean_the_default_key(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t a[SEALED], b[SEALED], c[SEALED];
    seal_under(rig, NULL, a);
    seal_under(rig, zeros, b);
    seal_under(rig, by_default, c);
    assert_int_equal(message_dek_id(a), message_dek_id(b));
    assert_int_equal(message_dek_id(a), message_dek_id(c));
    assert_true(opens_under(rig, NULL, a));
    assert_true(opens_under(rig, zeros, a));
    assert_true(opens_under(rig, by_default, a));
}

static void a_name_in_the_key_bytes_chooses_the_key(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t a[SEALED], b[SEALED], c[SEALED];
    seal_under(rig, financial, a);
    seal_under(rig, identity, b);
    seal_under(rig, NULL, c);
    assert_int_not_equal(message_dek_id(a), message_dek_id(b));
    assert_int_not_equal(message_dek_id(a), message_dek_id(c));
    assert_true(opens_under(rig, financial, a));
}

static void decryption_without_a_name_takes_the_key_from_the_header(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t a[SEALED];
    seal_under(rig, financial, a);
    assert_true(opens_under(rig, NULL, a));
    assert_true(opens_under(rig, zeros, a));
}

static void decryption_under_another_name_is_refused(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t a[SEALED];
    seal_under(rig, financial, a);
    assert_false(opens_under(rig, identity, a));
    expect_reason_text(ENVELOPE_E_KEY_MISMATCH, "financial");
    assert_false(opens_under(rig, by_default, a));
    expect_reason(ENVELOPE_E_KEY_MISMATCH);
}

/* No entry in the queue may show any six bytes of the secret, as they are or in hex. */
static void expect_refused_unshown(const uint8_t secret[32])
{
    const char *text;
    int flags, ours = 0;
    unsigned long code;
    while ((code = ERR_get_error_all(NULL, NULL, NULL, &text, &flags)) != 0) {
        if (ERR_GET_REASON(code) == ENVELOPE_E_NOT_A_KEY)
            ours++;
        for (size_t i = 0; i + 6 <= 32; i++) {
            char piece[7], hex[13];
            memcpy(piece, secret + i, 6);
            piece[6] = '\0';
            for (size_t j = 0; j < 6; j++)
                snprintf(hex + 2 * j, 3, "%02x", secret[i + j]);
            if (strlen(piece) == 6)
                assert_null(strstr(text, piece));
            assert_null(strstr(text, hex));
        }
    }
    assert_int_equal(ours, 1);
}

static void a_raw_key_is_refused_and_never_shown(void **state)
{
    const struct provider_rig *rig = *state;
    static const char *const texts[] = {
        "0123456789abcdef0123456789abcdef", /* a raw key that happens to be text */
        "correct horse battery staple",     /* ditto, padded with zeros by `openssl enc -K` */
        "hunter2hunter2",
        "\xff\xfe\xfd\xfc binary",
        "tab\tin it",
    };
    uint8_t key[32], out[SEALED];
    size_t length;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        memset(key, 0, sizeof key);
        memcpy(key, texts[i], strlen(texts[i]));
        for (int enc = 0; enc <= 1; enc++) {
            assert_false(enc ? message_seal(rig->cipher, key, plain, LENGTH, out, &length)
                             : message_open(rig->cipher, key, plain, LENGTH, out, &length));
            expect_refused_unshown(key);
        }
    }
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(RAND_bytes(key, sizeof key), 1);
        assert_false(message_seal(rig->cipher, key, plain, LENGTH, out, &length));
        expect_refused_unshown(key);
    }
    /* A name, but something behind its padding. */
    memcpy(key, financial, sizeof key);
    key[31] = 'x';
    assert_false(message_seal(rig->cipher, key, plain, LENGTH, out, &length));
    expect_reason(ENVELOPE_E_NOT_A_KEY);
}

/* ---- key references ---- */

static void reference_make(const struct provider_rig *rig, uint32_t dek_id, uint8_t reference[32])
{
    uint8_t input[41], digest[SHA256_DIGEST_LENGTH];
    memcpy(reference, "ENVREF\x01", 8); /* flags 0 */
    for (int i = 0; i < 4; i++)
        reference[8 + i] = (uint8_t)(dek_id >> (24 - 8 * i));
    provider_rig_store_id(rig, reference + 12);
    memcpy(input, "envelope reference v1", 21);
    memcpy(input + 21, reference, 20);
    SHA256(input, sizeof input, digest);
    memcpy(reference + 20, digest, 12);
}

static void reference_sign(uint8_t reference[32])
{
    uint8_t input[41], digest[SHA256_DIGEST_LENGTH];
    memcpy(input, "envelope reference v1", 21);
    memcpy(input + 21, reference, 20);
    SHA256(input, sizeof input, digest);
    memcpy(reference + 20, digest, 12);
}

static void a_reference_encrypts_under_just_the_version_it_names(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t old[SEALED], sealed[SEALED], reference[32];
    seal_under(rig, identity, old);
    provider_rig_rotate(rig, "identity");
    reference_make(rig, message_dek_id(old), reference);
    seal_under(rig, reference, sealed);
    assert_int_equal(message_dek_id(sealed), message_dek_id(old));
    assert_true(opens_under(rig, reference, sealed));
    assert_true(opens_under(rig, identity, sealed));
    /* Another version of the same key opens, another key does not. */
    uint8_t next[32];
    reference_make(rig, message_dek_id(old) + 1, next);
    seal_under(rig, next, sealed);
    assert_int_equal(message_dek_id(sealed), message_dek_id(old) + 1);
    assert_true(opens_under(rig, reference, sealed));
    seal_under(rig, financial, sealed);
    assert_false(opens_under(rig, reference, sealed));
    expect_reason_text(ENVELOPE_E_KEY_MISMATCH, "financial");
}

static void a_damaged_or_foreign_reference_is_refused(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t sealed[SEALED], reference[32], broken[32], out[SEALED];
    size_t length;
    seal_under(rig, financial, sealed);
    reference_make(rig, message_dek_id(sealed), reference);
    for (size_t bit = 8 * 7; bit < 8 * 32; bit++) {
        memcpy(broken, reference, sizeof broken);
        broken[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(message_seal(rig->cipher, broken, plain, LENGTH, out, &length));
        expect_reason_text(ENVELOPE_E_REFERENCE, "damaged");
    }
    memcpy(broken, reference, sizeof broken);
    broken[12] ^= 1;
    reference_sign(broken);
    assert_false(message_seal(rig->cipher, broken, plain, LENGTH, out, &length));
    expect_reason_text(ENVELOPE_E_REFERENCE, "belongs to store");
    memcpy(broken, reference, sizeof broken);
    broken[7] = 0x80;
    reference_sign(broken);
    assert_false(message_seal(rig->cipher, broken, plain, LENGTH, out, &length));
    expect_reason_text(ENVELOPE_E_REFERENCE, "flags");
    reference_make(rig, 0xfffffff0, broken);
    assert_false(message_seal(rig->cipher, broken, plain, LENGTH, out, &length));
    expect_reason(ENVELOPE_E_VERSION_UNKNOWN);
    reference_make(rig, 0, broken);
    assert_false(message_seal(rig->cipher, broken, plain, LENGTH, out, &length));
    expect_reason(ENVELOPE_E_REFERENCE);
}

/* ---- the parameter envelope-key ---- */

static void a_name_given_as_a_parameter_chooses_the_key(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t expected[SEALED], sealed[SEALED], opened[SEALED];
    size_t length;
    char name[] = "financial", other[] = "identity", unknown[] = "no such key";
    const OSSL_PARAM params[] = {OSSL_PARAM_utf8_string("envelope-key", name, sizeof name - 1), OSSL_PARAM_END};
    const OSSL_PARAM others[] = {OSSL_PARAM_utf8_string("envelope-key", other, sizeof other), OSSL_PARAM_END};
    const OSSL_PARAM unknowns[] = {OSSL_PARAM_utf8_string("envelope-key", unknown, sizeof unknown), OSSL_PARAM_END};
    seal_under(rig, financial, expected);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_CipherInit_ex2(ctx, rig->cipher, NULL, NULL, 1, params), 1);
    assert_true(message_run_whole(ctx, plain, LENGTH, sealed, &length));
    assert_int_equal(message_dek_id(sealed), message_dek_id(expected));
    /* The key is kept by an init that names none. */
    assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, 1, NULL), 1);
    assert_true(message_run_whole(ctx, plain, LENGTH, sealed, &length));
    assert_int_equal(message_dek_id(sealed), message_dek_id(expected));
    assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, 0, params), 1);
    assert_true(message_run_whole(ctx, sealed, SEALED, opened, &length));
    assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, 0, others), 1);
    int written;
    assert_int_equal(EVP_CipherUpdate(ctx, opened, &written, sealed, SEALED), 0);
    expect_reason(ENVELOPE_E_KEY_MISMATCH);
    assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, NULL, NULL, 1, unknowns), 0);
    expect_reason_text(ENVELOPE_E_KEY_UNKNOWN, "no such key");
    /* A failed init leaves nothing that could be used by mistake. */
    assert_int_equal(EVP_CipherUpdate(ctx, opened, &written, plain, LENGTH), 0);
    expect_reason(ENVELOPE_E_CONTEXT_STATE);
    EVP_CIPHER_CTX_free(ctx);
}

static void a_context_tells_key_version_and_id_but_not_the_dek(void **state)
{
    const struct provider_rig *rig = *state;
    char name[256] = "";
    unsigned version = 0, id = 0;
    uint8_t sealed[SEALED];
    int written;
    OSSL_PARAM params[] = {OSSL_PARAM_utf8_string("envelope-key", name, sizeof name),
                           OSSL_PARAM_uint("envelope-version", &version), OSSL_PARAM_uint("envelope-dek-id", &id),
                           OSSL_PARAM_END};
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_CipherInit_ex2(ctx, rig->cipher, NULL, NULL, 1, NULL), 1);
    assert_int_equal(EVP_CIPHER_CTX_get_params(ctx, params), 0);
    expect_reason(ENVELOPE_E_CONTEXT_STATE);
    for (int direction = 1; direction >= 0; direction--) {
        uint8_t out[SEALED];
        assert_int_equal(EVP_CipherInit_ex2(ctx, NULL, direction ? financial : NULL, NULL, direction, NULL), 1);
        assert_int_equal(EVP_CipherUpdate(ctx, direction ? sealed : out, &written, direction ? plain : sealed, LENGTH),
                         1);
        name[0] = '\0';
        version = id = 0;
        assert_int_equal(EVP_CIPHER_CTX_get_params(ctx, params), 1);
        assert_string_equal(name, "financial");
        assert_int_equal(version, 1);
        assert_int_equal(id, message_dek_id(sealed));
    }
    static const char *const secret[] = {"key", "keydata", "dek", "raw", "iv", "updated-iv", "priv"};
    const OSSL_PARAM *gettable = EVP_CIPHER_CTX_gettable_params(ctx);
    for (size_t i = 0; i < sizeof secret / sizeof secret[0]; i++)
        assert_null(OSSL_PARAM_locate_const(gettable, secret[i]));
    EVP_CIPHER_CTX_free(ctx);
}

/* ---- ciphers with names of their own ---- */

static uint32_t id_under(EVP_CIPHER *cipher)
{
    uint8_t sealed[SEALED];
    size_t length;
    assert_non_null(cipher);
    assert_true(message_seal(cipher, NULL, plain, LENGTH, sealed, &length));
    EVP_CIPHER_free(cipher);
    return message_dek_id(sealed);
}

static void a_key_can_be_fetched_by_cipher_name_and_by_property(void **state)
{
    const struct provider_rig *rig = *state;
    char section[1024];
    rig_text(section, sizeof section, "%skey-names = financial, identity,default\n", provider_rig_section(rig));
    OSSL_LIB_CTX *context = provider_rig_context(rig, section);
    uint32_t of_financial = id_under(EVP_CIPHER_fetch(context, CIPHER "-FINANCIAL", NULL));
    uint32_t of_identity = id_under(EVP_CIPHER_fetch(context, "envelope-aes-256-gcm-identity", NULL));
    uint32_t of_default = id_under(EVP_CIPHER_fetch(context, CIPHER, NULL));
    assert_int_not_equal(of_financial, of_identity);
    assert_int_not_equal(of_financial, of_default);
    assert_int_equal(id_under(EVP_CIPHER_fetch(context, CIPHER, "envelope.key=financial")), of_financial);
    assert_int_equal(id_under(EVP_CIPHER_fetch(context, CIPHER, "envelope.key='identity'")), of_identity);
    assert_int_equal(id_under(EVP_CIPHER_fetch(context, CIPHER, "provider=envelope")), of_default);
    assert_int_equal(id_under(EVP_CIPHER_fetch(context, CIPHER, "provider=envelope,envelope.key=identity")),
                     of_identity);
    assert_null(EVP_CIPHER_fetch(context, CIPHER, "envelope.key=unheard-of"));
    assert_null(EVP_CIPHER_fetch(context, CIPHER "-UNHEARD-OF", NULL));
    ERR_clear_error();
    OSSL_LIB_CTX_free(context);
}

static void a_cipher_bound_to_a_key_works_with_no_other(void **state)
{
    const struct provider_rig *rig = *state;
    char section[1024];
    uint8_t sealed[SEALED], out[SEALED], reference[32];
    size_t length;
    rig_text(section, sizeof section, "%skey-names = financial\n", provider_rig_section(rig));
    OSSL_LIB_CTX *context = provider_rig_context(rig, section);
    EVP_CIPHER *bound = EVP_CIPHER_fetch(context, CIPHER "-FINANCIAL", NULL);
    assert_non_null(bound);
    assert_false(message_seal(bound, identity, plain, LENGTH, out, &length));
    expect_reason(ENVELOPE_E_KEY_MISMATCH);
    seal_under(rig, identity, sealed);
    assert_false(message_open(bound, NULL, sealed, SEALED, out, &length));
    expect_reason_text(ENVELOPE_E_KEY_MISMATCH, "identity");
    reference_make(rig, message_dek_id(sealed), reference);
    assert_false(message_seal(bound, reference, plain, LENGTH, out, &length));
    expect_reason(ENVELOPE_E_KEY_MISMATCH);
    seal_under(rig, financial, sealed);
    assert_true(message_open(bound, NULL, sealed, SEALED, out, &length));
    assert_true(message_open(bound, financial, sealed, SEALED, out, &length));
    reference_make(rig, message_dek_id(sealed), reference);
    assert_true(message_seal(bound, reference, plain, LENGTH, out, &length));
    EVP_CIPHER_free(bound);
    OSSL_LIB_CTX_free(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_key_and_zeros_mean_the_default_key),
        cmocka_unit_test(a_name_in_the_key_bytes_chooses_the_key),
        cmocka_unit_test(decryption_without_a_name_takes_the_key_from_the_header),
        cmocka_unit_test(decryption_under_another_name_is_refused),
        cmocka_unit_test(a_raw_key_is_refused_and_never_shown),
        cmocka_unit_test(a_context_tells_key_version_and_id_but_not_the_dek),
        cmocka_unit_test(a_name_given_as_a_parameter_chooses_the_key),
        cmocka_unit_test(a_key_can_be_fetched_by_cipher_name_and_by_property),
        cmocka_unit_test(a_cipher_bound_to_a_key_works_with_no_other),
        cmocka_unit_test(a_reference_encrypts_under_just_the_version_it_names),
        cmocka_unit_test(a_damaged_or_foreign_reference_is_refused),
    };
    return cmocka_run_group_tests(tests, provider_rig_setup, provider_rig_teardown);
}
