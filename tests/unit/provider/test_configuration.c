/* openssl.cnf and envelope.cnf: what is wrong there is said when the provider is used, not swallowed at activation. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>

#include <envelope/status.h>

#include "base/error.h"
#include "base/settings.h"
#include "messages.h"
#include "provider.h"
#include "provider_rig.h"

static const uint8_t plain[10] = "plaintext";

/* Activation and fetch work, every init fails with this. */
static void expect_unusable(const struct provider_rig *rig, const char *section, int reason, const char *words)
{
    OSSL_LIB_CTX *context = provider_rig_context(rig, section);
    assert_int_equal(OSSL_PROVIDER_available(context, "envelope"), 1);
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(context, CIPHER, NULL);
    assert_non_null(cipher);
    uint8_t out[64];
    size_t length;
    for (int i = 0; i < 2; i++) {
        assert_false(message_seal(cipher, NULL, plain, sizeof plain, out, &length));
        expect_reason_text(reason, words);
        assert_false(message_open(cipher, NULL, plain, sizeof plain, out, &length));
        expect_reason_text(reason, words);
    }
    int status = -1;
    OSSL_PARAM params[] = {OSSL_PARAM_int(OSSL_PROV_PARAM_STATUS, &status), OSSL_PARAM_END};
    assert_int_equal(OSSL_PROVIDER_get_params(EVP_CIPHER_get0_provider(cipher), params), 1);
    assert_int_equal(status, 0);
    EVP_CIPHER_free(cipher);
    OSSL_LIB_CTX_free(context);
}

static const char *section_with(const struct provider_rig *rig, const char *name, const char *text)
{
    static char section[RIG_PATH_MAX + 64];
    char path[RIG_PATH_MAX];
    rig_text(path, sizeof path, "%s/%s", rig->token.directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    rig_text(section, sizeof section, "config = %s\n", path);
    return section;
}

static void a_broken_configuration_is_reported_on_use(void **state)
{
    const struct provider_rig *rig = *state;
    expect_unusable(rig, "config = /nonexistent/envelope.cnf\n", ENVELOPE_E_CONFIG, "/nonexistent/envelope.cnf");
    expect_unusable(
        rig, section_with(rig, "unknown.cnf", "[envelope]\nstore = sqlite:/x\nkek = pkcs11:token=a\nsotre = b\n"),
        ENVELOPE_E_CONFIG, "sotre");
    expect_unusable(rig, section_with(rig, "empty.cnf", ""), ENVELOPE_E_CONFIG, "empty.cnf");
    expect_unusable(rig, section_with(rig, "noise.cnf", "]]]] = [[[\n\x01\x02"), ENVELOPE_E_CONFIG, "noise.cnf");
    char section[RIG_PATH_MAX + 16];
    rig_text(section, sizeof section, "config = %s\n", rig->token.directory);
    expect_unusable(rig, section, ENVELOPE_E_CONFIG, rig->token.directory);
}

static void a_store_that_is_missing_is_named_when_it_is_needed(void **state)
{
    const struct provider_rig *rig = *state;
    char text[1024];
    rig_text(text, sizeof text, "[envelope]\nstore = sqlite:%s/no.db\nkek = %s\n[hsm]\nmodule = %s\npin-file = %s\n",
             rig->token.directory, rig->token.kek, rig->token.module, rig->token.pin_file);
    OSSL_LIB_CTX *context = provider_rig_context(rig, section_with(rig, "nostore.cnf", text));
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(context, CIPHER, NULL);
    assert_non_null(cipher);
    uint8_t out[64], key[32] = "financial";
    size_t length;
    assert_false(message_seal(cipher, NULL, plain, sizeof plain, out, &length));
    expect_reason_text(ENVELOPE_E_STORE_UNAVAILABLE, "no.db");
    /* What stands in the key bytes is not repeated, even when it was not looked up. */
    assert_false(message_seal(cipher, key, plain, sizeof plain, out, &length));
    const char *said;
    int flags;
    while (ERR_get_error_all(NULL, NULL, NULL, &said, &flags) != 0)
        assert_null(strstr(said, "financial"));
    EVP_CIPHER_free(cipher);
    OSSL_LIB_CTX_free(context);
}

static void key_names_that_cannot_be_cipher_names_are_reported_on_use(void **state)
{
    const struct provider_rig *rig = *state;
    static const struct {
        const char *names, *words;
    } rows[] = {
        {"financial fin:ancial", "fin:ancial"},
        {"financial, FINANCIAL", "twice"},
        {"a1 a2 a3 a4 a5 a6 a7 a8 a9 a10 a11 a12 a13 a14 a15 a16 a17 a18 a19 a20 a21 a22 a23 a24 a25 a26 a27 a28 a29 "
         "a30 "
         "a31 a32 a33",
         "more than 32"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char section[1024];
        rig_text(section, sizeof section, "%skey-names = %s\n", provider_rig_section(rig), rows[i].names);
        expect_unusable(rig, section, ENVELOPE_E_CONFIG, rows[i].words);
    }
}

static void thirty_two_key_names_are_offered(void **state)
{
    const struct provider_rig *rig = *state;
    char section[2048];
    size_t used = rig_text(section, sizeof section, "%skey-names =", provider_rig_section(rig));
    for (int i = 0; i < 32; i++)
        used += rig_text(section + used, sizeof section - used, " tenant-%d/identity", i);
    rig_text(section + used, sizeof section - used, "\n");
    OSSL_LIB_CTX *context = provider_rig_context(rig, section);
    for (int i = 0; i < 32; i++) {
        char name[128];
        uint8_t out[64];
        size_t length;
        rig_text(name, sizeof name, CIPHER "-tenant-%d/identity", i);
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(context, name, "provider=envelope");
        assert_non_null(cipher);
        assert_false(message_seal(cipher, NULL, plain, sizeof plain, out, &length));
        rig_text(name, sizeof name, "\"tenant-%d/identity\"", i);
        expect_reason_text(ENVELOPE_E_KEY_UNKNOWN, name);
        EVP_CIPHER_free(cipher);
    }
    OSSL_LIB_CTX_free(context);
}

static bool fetchable(OSSL_LIB_CTX *context, const char *properties)
{
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(context, CIPHER, properties);
    EVP_CIPHER_free(cipher);
    ERR_clear_error();
    return cipher != NULL;
}

/* What envelope-provider(7) says about quotes: OpenSSL makes small letters of unquoted text, and numbers of digits. */
static void property_values_need_quotes_for_capitals_and_digits(void **state)
{
    const struct provider_rig *rig = *state;
    char section[1024];
    rig_text(section, sizeof section, "%skey-names = Mixed 42 tenant-42/identity m\xc3\xbcnchen\n",
             provider_rig_section(rig));
    OSSL_LIB_CTX *context = provider_rig_context(rig, section);
    assert_true(fetchable(context, "envelope.key='Mixed'"));
    assert_false(fetchable(context, "envelope.key=Mixed"));
    assert_true(fetchable(context, "envelope.key='42'"));
    assert_false(fetchable(context, "envelope.key=42"));
    assert_true(fetchable(context, "envelope.key=tenant-42/identity"));
    assert_true(fetchable(context, "envelope.key='m\xc3\xbcnchen'"));
    assert_true(fetchable(context, "envelope.key=\"tenant-42/identity\",provider=envelope"));
    OSSL_LIB_CTX_free(context);
}

static void the_environment_overrides_the_path(void **state)
{
    const struct provider_rig *rig = *state;
    assert_int_equal(setenv("ENVELOPE_CONFIG", rig->config, 1), 0);
    OSSL_LIB_CTX *context = provider_rig_context(rig, "config = /nonexistent\n");
    assert_int_equal(unsetenv("ENVELOPE_CONFIG"), 0);
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(context, CIPHER, NULL);
    uint8_t out[64];
    size_t length;
    assert_true(message_seal(cipher, NULL, plain, sizeof plain, out, &length));
    EVP_CIPHER_free(cipher);
    OSSL_LIB_CTX_free(context);
}

static void the_provider_tells_who_it_is(void **state)
{
    const struct provider_rig *rig = *state;
    const char *name = NULL, *version = NULL, *build = NULL;
    int status = 0;
    OSSL_PARAM params[] = {
        OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_NAME, &name, 0),
        OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_VERSION, &version, 0),
        OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_BUILDINFO, &build, 0),
        OSSL_PARAM_int(OSSL_PROV_PARAM_STATUS, &status),
        OSSL_PARAM_END,
    };
    const OSSL_PROVIDER *provider = EVP_CIPHER_get0_provider(rig->cipher);
    assert_int_equal(OSSL_PROVIDER_get_params(provider, params), 1);
    assert_string_equal(name, "Envelope");
    assert_true(strlen(version) > 0);
    assert_non_null(strstr(build, version));
    assert_int_equal(status, 1);
    const OSSL_PARAM *gettable = OSSL_PROVIDER_gettable_params(provider);
    for (size_t i = 0; params[i].key; i++)
        assert_non_null(OSSL_PARAM_locate_const(gettable, params[i].key));
}

/* Contexts that share a configuration share its DEKs; a context that goes leaves the others theirs. */
static void many_library_contexts_share_one_keyring(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t sealed[64], opened[64];
    size_t length;
    for (int i = 0; i < 20; i++) {
        OSSL_LIB_CTX *context = provider_rig_context(rig, provider_rig_section(rig));
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(context, CIPHER, NULL);
        assert_true(message_seal(cipher, NULL, plain, sizeof plain, sealed, &length));
        EVP_CIPHER_free(cipher);
        OSSL_LIB_CTX_free(context);
        assert_true(message_open(rig->cipher, NULL, sealed, length, opened, &length));
        assert_memory_equal(opened, plain, sizeof plain);
    }
}

/* Each commented default, taken for what it says, must be a setting that exists. */
static void uncomment(const char *from, const char *to)
{
    FILE *in = fopen(from, "r"), *out = fopen(to, "w");
    char line[512];
    assert_non_null(in);
    assert_non_null(out);
    while (fgets(line, sizeof line, in)) {
        bool setting = line[0] == '#' && strchr(line, '=');
        assert_true(fputs(setting ? line + 1 : line, out) >= 0);
    }
    assert_int_equal(fclose(in), 0);
    assert_int_equal(fclose(out), 0);
}

static void the_sample_configurations_are_accepted(void **state)
{
    const struct provider_rig *rig = *state;
    char path[RIG_PATH_MAX];
    struct settings settings;
    assert_int_equal(settings_load(SAMPLES "/envelope.cnf", &settings), ENVELOPE_OK);
    settings_clear(&settings);
    rig_text(path, sizeof path, "%s/sample.cnf", rig->token.directory);
    uncomment(SAMPLES "/envelope.cnf", path);
    if (settings_load(path, &settings) != ENVELOPE_OK)
        fail_msg("%s", error_text());
    settings_clear(&settings);

    OSSL_LIB_CTX *context = OSSL_LIB_CTX_new();
    assert_int_equal(OSSL_PROVIDER_add_builtin(context, "envelope", envelope_provider_init), 1);
    assert_int_equal(OSSL_LIB_CTX_load_config(context, SAMPLES "/openssl.cnf"), 1);
    assert_int_equal(OSSL_PROVIDER_available(context, "envelope"), 1);
    assert_int_equal(OSSL_PROVIDER_available(context, "default"), 1);
    OSSL_LIB_CTX_free(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_provider_tells_who_it_is),
        cmocka_unit_test(a_broken_configuration_is_reported_on_use),
        cmocka_unit_test(a_store_that_is_missing_is_named_when_it_is_needed),
        cmocka_unit_test(key_names_that_cannot_be_cipher_names_are_reported_on_use),
        cmocka_unit_test(thirty_two_key_names_are_offered),
        cmocka_unit_test(property_values_need_quotes_for_capitals_and_digits),
        cmocka_unit_test(the_environment_overrides_the_path),
        cmocka_unit_test(the_sample_configurations_are_accepted),
        cmocka_unit_test(many_library_contexts_share_one_keyring),
    };
    return cmocka_run_group_tests(tests, provider_rig_setup, provider_rig_teardown);
}
