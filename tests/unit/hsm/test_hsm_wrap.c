/* Wrapping on a real SoftHSM: every mechanism, and everything that must not unwrap or must be refused. */
#include "hsm_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/libctx.h"

#include <openssl/evp.h>

static const char RSA_URI[] = "pkcs11:token=rig;object=pair;type=private";

static int group_setup(void **state)
{
    if (fixture_group_setup(state) != 0)
        return -1;
    make_rsa("pair", 2048);
    return 0;
}

/* Every single flipped bit, byte and length, and another AAD. */
static void assert_bound(const char *uri, uint8_t *blob, size_t length)
{
    uint8_t dek[HSM_DEK_SIZE];
    assert_status(hsm_unwrap(fixture.hsm, uri, AAD, sizeof AAD - 1, blob, length, dek), ENVELOPE_E_UNWRAP);
    assert_status(hsm_unwrap(fixture.hsm, uri, (const uint8_t *)"", 0, blob, length, dek), ENVELOPE_E_UNWRAP);
    size_t step = length > 100 ? 41 : 1;
    for (size_t i = 0; i < length; i += step) {
        blob[i] ^= 0x10;
        assert_status(unwrap(uri, blob, length), ENVELOPE_E_UNWRAP);
        blob[i] ^= 0x10;
    }
    for (size_t i = 0; i < length; i += step)
        assert_status(unwrap(uri, blob, i), ENVELOPE_E_UNWRAP);
    assert_status(unwrap(uri, blob, length), ENVELOPE_OK);
}

static void dek_wrapped_with(int wrap, const char *uri, enum hsm_mechanism mechanism, size_t expected)
{
    uint8_t *blob = NULL;
    size_t length = 0;
    struct hsm_kek_info info;
    fixture.settings.wrap = wrap;
    assert_status(hsm_kek_info(fixture.hsm, uri, &info), ENVELOPE_OK);
    assert_int_equal(info.mechanism, mechanism);
    round_trip(uri, &blob, &length);
    assert_int_equal(length, expected);
    assert_int_equal(blob[0], 1);
    assert_int_equal(blob[1], mechanism);
    assert_bound(uri, blob, length);
    /* Another instance, which has learned nothing yet, unwraps it too. */
    fixture_renew();
    assert_status(unwrap(uri, blob, length), ENVELOPE_OK);
    free(blob);
}

static void aes_gcm_wrap_opens_only_in_its_place(void **state)
{
    (void)state;
    dek_wrapped_with(SETTINGS_WRAP_AUTO, fixture.rig.kek, HSM_AES_GCM, 62);
    dek_wrapped_with(SETTINGS_WRAP_AES_GCM, fixture.rig.kek, HSM_AES_GCM, 62);
}

static void aes_kwp_wrap_opens_only_in_its_place(void **state)
{
    (void)state;
    dek_wrapped_with(SETTINGS_WRAP_AES_KWP, fixture.rig.kek, HSM_AES_KWP, 58);
}

static void rsa_oaep_wrap_opens_only_in_its_place(void **state)
{
    (void)state;
    dek_wrapped_with(SETTINGS_WRAP_AUTO, RSA_URI, HSM_RSA_OAEP, 2 + 256);
    dek_wrapped_with(SETTINGS_WRAP_RSA_OAEP, "pkcs11:token=rig;object=pair;type=public", HSM_RSA_OAEP, 2 + 256);
    dek_wrapped_with(SETTINGS_WRAP_AUTO, "pkcs11:token=rig;object=pair", HSM_RSA_OAEP, 2 + 256);
}

static void rsa_4096_wraps(void **state)
{
    (void)state;
    make_rsa("big", 4096);
    round_trip("pkcs11:token=rig;object=big;type=private", NULL, NULL);
    destroy_keys("big");
}

static void blobs_are_never_alike(void **state)
{
    static const uint8_t dek[HSM_DEK_SIZE] = {1};
    uint8_t *one = NULL, *other = NULL;
    size_t length = 0;
    (void)state;
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &one, &length), ENVELOPE_OK);
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &other, &length), ENVELOPE_OK);
    assert_memory_not_equal(one + 2, other + 2, 12);
    assert_memory_not_equal(one + 14, other + 14, length - 14);
    free(one);
    free(other);
}

static void generated_deks_differ(void **state)
{
    uint8_t one[HSM_DEK_SIZE], other[HSM_DEK_SIZE];
    (void)state;
    assert_status(hsm_generate_dek(fixture.hsm, fixture.rig.kek, one), ENVELOPE_OK);
    assert_status(hsm_generate_dek(fixture.hsm, fixture.rig.kek, other), ENVELOPE_OK);
    assert_memory_not_equal(one, other, sizeof one);
}

static void blob_of_one_kek_does_not_unwrap_under_another(void **state)
{
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    make_aes(&(struct key_wish){.label = "other"});
    round_trip(fixture.rig.kek, &blob, &length);
    assert_status(unwrap("pkcs11:token=rig;object=other", blob, length), ENVELOPE_E_UNWRAP);
    assert_said("other");
    assert_status(unwrap(RSA_URI, blob, length), ENVELOPE_E_UNWRAP);
    free(blob);
    destroy_keys("other");
}

static void blob_that_is_none_of_ours_is_refused_without_the_token(void **state)
{
    uint8_t bytes[9000] = {1, 1};
    struct hsm_counters counters;
    (void)state;
    assert_status(unwrap(fixture.rig.kek, bytes, 0), ENVELOPE_E_UNWRAP);
    assert_status(unwrap(fixture.rig.kek, bytes, 2), ENVELOPE_E_UNWRAP);
    assert_status(unwrap(fixture.rig.kek, bytes, sizeof bytes), ENVELOPE_E_UNWRAP);
    bytes[0] = 2;
    assert_status(unwrap(fixture.rig.kek, bytes, 62), ENVELOPE_E_UNWRAP);
    assert_said("format 2");
    hsm_count(fixture.hsm, &counters);
    assert_int_equal(counters.logins, 0);
}

static void extractable_kek_is_refused(void **state)
{
    static const char uri[] = "pkcs11:token=rig;object=loose";
    static const uint8_t dek[HSM_DEK_SIZE];
    uint8_t *blob = NULL;
    size_t length = 0;
    struct hsm_kek_info info;
    (void)state;
    make_aes(&(struct key_wish){.label = "loose", .extractable = true});
    assert_status(hsm_wrap(fixture.hsm, uri, AAD, sizeof AAD, dek, &blob, &length), ENVELOPE_E_KEK_ATTRIBUTES);
    assert_said("CKA_EXTRACTABLE");
    assert_status(hsm_kek_info(fixture.hsm, uri, &info), ENVELOPE_OK);
    assert_true(info.extractable && info.sensitive && !info.never_extractable);
    fixture.settings.allow_extractable_kek = true;
    fixture_renew();
    round_trip(uri, NULL, NULL);
    destroy_keys("loose");
}

static void kek_whose_value_can_be_read_is_refused(void **state)
{
    static const uint8_t dek[HSM_DEK_SIZE];
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    make_aes(&(struct key_wish){.label = "bare", .not_sensitive = true});
    assert_status(hsm_wrap(fixture.hsm, "pkcs11:token=rig;object=bare", AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_KEK_ATTRIBUTES);
    assert_said("CKA_SENSITIVE");
    destroy_keys("bare");
}

static void kek_of_another_size_is_refused(void **state)
{
    static const uint8_t dek[HSM_DEK_SIZE];
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    make_aes(&(struct key_wish){.label = "small", .bits = 128});
    assert_status(hsm_wrap(fixture.hsm, "pkcs11:token=rig;object=small", AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_KEK_ATTRIBUTES);
    assert_said("128");
    destroy_keys("small");
}

static void usage_flags_choose_the_mechanism(void **state)
{
    static const uint8_t dek[HSM_DEK_SIZE];
    struct hsm_kek_info info;
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    make_aes(&(struct key_wish){.label = "wraps", .no_encrypt = true});
    make_aes(&(struct key_wish){.label = "encrypts", .no_wrap = true});
    make_aes(&(struct key_wish){.label = "nothing", .no_wrap = true, .no_encrypt = true});
    assert_status(hsm_kek_info(fixture.hsm, "pkcs11:token=rig;object=wraps", &info), ENVELOPE_OK);
    assert_int_equal(info.mechanism, HSM_AES_KWP);
    round_trip("pkcs11:token=rig;object=wraps", NULL, NULL);
    assert_status(hsm_kek_info(fixture.hsm, "pkcs11:token=rig;object=encrypts", &info), ENVELOPE_OK);
    assert_int_equal(info.mechanism, HSM_AES_GCM);
    assert_status(hsm_wrap(fixture.hsm, "pkcs11:token=rig;object=nothing", AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_KEK_REFUSED);
    fixture.settings.wrap = SETTINGS_WRAP_AES_KWP;
    assert_status(hsm_wrap(fixture.hsm, "pkcs11:token=rig;object=encrypts", AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_WRAP_MECHANISM);
    fixture.settings.wrap = SETTINGS_WRAP_RSA_OAEP;
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_KEK_ATTRIBUTES);
    destroy_keys("wraps");
    destroy_keys("encrypts");
    destroy_keys("nothing");
}

static void missing_kek_is_named(void **state)
{
    struct hsm_kek_info info;
    (void)state;
    assert_status(hsm_kek_info(fixture.hsm, "pkcs11:token=rig;object=absent", &info), ENVELOPE_E_KEK_UNKNOWN);
    assert_said("\"absent\"");
    assert_said("\"rig\"");
    assert_status(hsm_kek_info(fixture.hsm, "pkcs11:token=rig;id=%ca%fe", &info), ENVELOPE_E_KEK_UNKNOWN);
    assert_said("cafe");
    /* One object short of a match is no match. */
    assert_status(hsm_kek_info(fixture.hsm, "pkcs11:token=rig;object=master;id=%01", &info), ENVELOPE_E_KEK_UNKNOWN);
}

static void two_matching_keks_are_one_too_many(void **state)
{
    struct hsm_kek_info info;
    (void)state;
    make_aes(&(struct key_wish){.label = "twin", .id = 1});
    make_aes(&(struct key_wish){.label = "twin", .id = 2});
    assert_status(hsm_kek_info(fixture.hsm, "pkcs11:token=rig;object=twin", &info), ENVELOPE_E_KEK_UNKNOWN);
    assert_said("more than one");
    assert_status(hsm_kek_info(fixture.hsm, "pkcs11:token=rig;object=twin;id=%02", &info), ENVELOPE_OK);
    destroy_keys("twin");
}

static void kek_removed_and_made_anew_is_noticed(void **state)
{
    static const char uri[] = "pkcs11:token=rig;object=brief";
    uint8_t *blob = NULL;
    size_t length = 0;
    struct hsm_counters before, after;
    (void)state;
    make_aes(&(struct key_wish){.label = "brief"});
    round_trip(uri, &blob, &length);
    hsm_count(fixture.hsm, &before);
    destroy_keys("brief");
    assert_status(unwrap(uri, blob, length), ENVELOPE_E_KEK_UNKNOWN);
    assert_false(hsm_is_away(ENVELOPE_E_KEK_UNKNOWN));
    round_trip(fixture.rig.kek, NULL, NULL);
    make_aes(&(struct key_wish){.label = "brief"});
    assert_status(unwrap(uri, blob, length), ENVELOPE_E_UNWRAP); /* there again, but another key */
    round_trip(uri, NULL, NULL);
    hsm_count(fixture.hsm, &after);
    free(blob);
    destroy_keys("brief");
}

static void missing_module_and_token_are_named(void **state)
{
    struct hsm_kek_info info;
    char none[] = "/nonexistent/module.so";
    (void)state;
    assert_status(hsm_kek_info(fixture.hsm, "pkcs11:token=nowhere;object=master", &info), ENVELOPE_E_HSM_UNAVAILABLE);
    assert_said("\"nowhere\"");
    fixture.settings.module = none;
    fixture_renew();
    assert_status(hsm_kek_info(fixture.hsm, fixture.rig.kek, &info), ENVELOPE_E_HSM_MODULE);
    assert_said("/nonexistent/module.so");
    fixture.settings.module = NULL;
    assert_status(hsm_kek_info(fixture.hsm, fixture.rig.kek, &info), ENVELOPE_E_HSM_MODULE);
    assert_said("module in [hsm]");
    char uri[2 * SOFTHSM_RIG_PATH_MAX + 32];
    snprintf(uri, sizeof uri, "%s?module-path=%s", fixture.rig.kek, fixture.rig.module);
    assert_status(hsm_kek_info(fixture.hsm, uri, &info), ENVELOPE_OK);
}

static void library_that_is_no_module_is_named(void **state)
{
    struct hsm_kek_info info;
    char text[SOFTHSM_RIG_PATH_MAX];
    (void)state;
    snprintf(text, sizeof text, "%s", fixture.rig.config); /* a file that is no library at all */
    fixture.settings.module = text;
    fixture_renew();
    assert_status(hsm_kek_info(fixture.hsm, fixture.rig.kek, &info), ENVELOPE_E_HSM_MODULE);
    assert_said("softhsm2.conf");
}

static void token_that_leaves_the_iv_to_us_is_not_given_a_zero_iv(void **state)
{
    static const uint8_t dek[HSM_DEK_SIZE];
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    fixture.settings.iv = SETTINGS_IV_TOKEN;
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_WRAP_MECHANISM);
    assert_said("zero");
    fixture.settings.iv = SETTINGS_IV_PREPENDED;
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_WRAP_MECHANISM);
}

static void kek_is_described(void **state)
{
    struct hsm_kek_info info;
    (void)state;
    assert_status(hsm_kek_info(fixture.hsm, fixture.rig.kek, &info), ENVELOPE_OK);
    assert_string_equal(info.token_label, "rig");
    assert_string_equal(info.label, "master");
    assert_string_equal(info.module, fixture.rig.module);
    assert_true(strlen(info.token_serial) > 0 && strlen(info.token_model) > 0);
    assert_false(info.rsa);
    assert_int_equal(info.bits, 256);
    assert_true(!info.extractable && info.sensitive && info.always_sensitive && info.never_extractable);
    assert_true(info.can_encrypt && info.can_wrap);
    assert_status(hsm_kek_info(fixture.hsm, RSA_URI, &info), ENVELOPE_OK);
    assert_true(info.rsa);
    assert_int_equal(info.bits, 2048);
}

static void generating_does_not_overwrite(void **state)
{
    (void)state;
    assert_status(hsm_kek_generate(fixture.hsm, fixture.rig.kek), ENVELOPE_E_KEY_EXISTS);
    assert_status(hsm_kek_generate(fixture.hsm, "pkcs11:token=rig;object=pair"), ENVELOPE_E_KEY_EXISTS);
    assert_status(hsm_kek_generate(fixture.hsm, "pkcs11:token=rig;object=new;type=private"), ENVELOPE_E_KEK_URI);
    assert_status(hsm_kek_generate(fixture.hsm, "pkcs11:token=rig;object=new;id=%07"), ENVELOPE_OK);
    round_trip("pkcs11:token=rig;id=%07;type=secret-key", NULL, NULL);
    destroy_keys("new");
    assert_status(hsm_token_init(fixture.hsm, NULL, "rig", "12345678", "12345678"), ENVELOPE_E_KEY_EXISTS);
    assert_status(hsm_token_init(fixture.hsm, NULL, "", "12345678", "12345678"), ENVELOPE_E_ARGUMENT);
    assert_status(hsm_token_init(fixture.hsm, NULL, "a label that is longer than 32 bytes", "12345678", "12345678"),
                  ENVELOPE_E_ARGUMENT);
}

static void call_from_inside_a_token_is_refused(void **state)
{
    struct hsm_kek_info info;
    struct libctx_guard guard;
    (void)state;
    assert_non_null(libctx_private());
    libctx_enter(&guard);
    envelope_status status = hsm_kek_info(fixture.hsm, fixture.rig.kek, &info);
    libctx_leave(&guard);
    assert_status(status, ENVELOPE_E_RECURSION);
}

static void nothing_is_contacted_before_a_kek_is_named(void **state)
{
    struct hsm_counters counters;
    (void)state;
    assert_status(hsm_check_uri(fixture.rig.kek), ENVELOPE_OK);
    hsm_count(fixture.hsm, &counters);
    assert_int_equal(counters.logins + counters.sessions_opened, 0);
    round_trip(fixture.rig.kek, NULL, NULL);
    round_trip(fixture.rig.kek, NULL, NULL);
    hsm_count(fixture.hsm, &counters);
    assert_int_equal(counters.sessions_opened, 1);
    assert_int_equal(counters.wraps, 2);
    assert_int_equal(counters.unwraps, 2);
    hsm_free(NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(aes_gcm_wrap_opens_only_in_its_place),
        TEST(aes_kwp_wrap_opens_only_in_its_place),
        TEST(rsa_oaep_wrap_opens_only_in_its_place),
        TEST(rsa_4096_wraps),
        TEST(blobs_are_never_alike),
        TEST(generated_deks_differ),
        TEST(blob_of_one_kek_does_not_unwrap_under_another),
        TEST(blob_that_is_none_of_ours_is_refused_without_the_token),
        TEST(extractable_kek_is_refused),
        TEST(kek_whose_value_can_be_read_is_refused),
        TEST(kek_of_another_size_is_refused),
        TEST(usage_flags_choose_the_mechanism),
        TEST(missing_kek_is_named),
        TEST(two_matching_keks_are_one_too_many),
        TEST(kek_removed_and_made_anew_is_noticed),
        TEST(missing_module_and_token_are_named),
        TEST(library_that_is_no_module_is_named),
        TEST(token_that_leaves_the_iv_to_us_is_not_given_a_zero_iv),
        TEST(kek_is_described),
        TEST(generating_does_not_overwrite),
        TEST(call_from_inside_a_token_is_refused),
        TEST(nothing_is_contacted_before_a_kek_is_named),
    };
    return cmocka_run_group_tests(tests, group_setup, fixture_group_teardown);
}
