#include "config_file.h"

#include <openssl/conf.h>
#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/provider.h>

#include "base/clock.h"
#include "base/settings.h"

#define MINIMAL                                                                                                        \
    "[envelope]\nstore = sqlite:/var/lib/envelope/keys.db\nkek = pkcs11:token=prod;object=master;type=secret-key\n"

static envelope_status load(const char *text, struct settings *settings)
{
    return settings_load(write_config(text), settings);
}

static void two_lines_are_enough_and_the_rest_has_defaults(void **state)
{
    (void)state;
    struct settings settings;
    if (load(MINIMAL, &settings))
        fail_msg("%s", error_text());
    assert_string_equal(settings.path, config_path);
    assert_string_equal(settings.store, "sqlite:/var/lib/envelope/keys.db");
    assert_string_equal(settings.kek, "pkcs11:token=prod;object=master;type=secret-key");
    assert_string_equal(settings.default_key, "default");
    assert_int_equal(settings.crypto, SETTINGS_CRYPTO_DEFAULT);
    assert_false(settings.preload);
    assert_true(settings.refresh == CLOCK_SECOND);
    assert_true(settings.deadline == 10 * CLOCK_SECOND);
    assert_null(settings.module);
    assert_null(settings.pin_file);
    assert_null(settings.pin_env);
    assert_null(settings.pin_command);
    assert_int_equal(settings.sessions, 1);
    assert_int_equal(settings.wrap, SETTINGS_WRAP_AUTO);
    assert_int_equal(settings.iv, SETTINGS_IV_AUTO);
    assert_int_equal(settings.random, SETTINGS_RANDOM_TOKEN);
    assert_false(settings.allow_extractable_kek);
    assert_true(settings.ttl == 3600 * CLOCK_SECOND);
    assert_true(settings.grace == 600 * CLOCK_SECOND);
    assert_true(settings.messages == UINT64_C(4294967296));
    settings_clear(&settings);
    assert_null(settings.path);
    assert_null(settings.store);
    settings_clear(&settings);
}

static void everything_can_be_set(void **state)
{
    (void)state;
    struct settings settings;
    envelope_status status = load("[envelope]\n"
                                  "store = sqlite:/keys.db\n"
                                  "default-key = tenant-42/identity\n"
                                  "kek = pkcs11:token=prod;object=master\n"
                                  "crypto = fips\n"
                                  "preload = yes\n"
                                  "refresh = 50ms\n"
                                  "deadline = 2s\n"
                                  "[hsm]\n"
                                  "module = /usr/lib/softhsm/libsofthsm2.so\n"
                                  "pin-file = /run/credentials/envelope.pin\n"
                                  "sessions = 1024\n"
                                  "wrap = rsa-oaep\n"
                                  "iv = prepended\n"
                                  "random = local\n"
                                  "allow-extractable-kek = on\n"
                                  "[cache]\n"
                                  "ttl = 1ms\n"
                                  "grace = 0\n"
                                  "[limits]\n"
                                  "messages = 1M\n",
                                  &settings);
    if (status)
        fail_msg("%s", error_text());
    assert_string_equal(settings.default_key, "tenant-42/identity");
    assert_int_equal(settings.crypto, SETTINGS_CRYPTO_FIPS);
    assert_true(settings.preload);
    assert_true(settings.refresh == 50000);
    assert_true(settings.deadline == 2 * CLOCK_SECOND);
    assert_string_equal(settings.module, "/usr/lib/softhsm/libsofthsm2.so");
    assert_string_equal(settings.pin_file, "/run/credentials/envelope.pin");
    assert_int_equal(settings.sessions, 1024);
    assert_int_equal(settings.wrap, SETTINGS_WRAP_RSA_OAEP);
    assert_int_equal(settings.iv, SETTINGS_IV_PREPENDED);
    assert_int_equal(settings.random, SETTINGS_RANDOM_LOCAL);
    assert_true(settings.allow_extractable_kek);
    assert_true(settings.ttl == 1000);
    assert_true(settings.grace == 0);
    assert_true(settings.messages == 1000000);
    settings_clear(&settings);
}

static void choices_mean_what_their_enums_say(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        size_t offset;
        int expected;
    } rows[] = {
        {"[hsm]\nwrap = auto\n", offsetof(struct settings, wrap), SETTINGS_WRAP_AUTO},
        {"[hsm]\nwrap = aes-gcm\n", offsetof(struct settings, wrap), SETTINGS_WRAP_AES_GCM},
        {"[hsm]\nwrap = aes-kwp\n", offsetof(struct settings, wrap), SETTINGS_WRAP_AES_KWP},
        {"[hsm]\nwrap = rsa-oaep\n", offsetof(struct settings, wrap), SETTINGS_WRAP_RSA_OAEP},
        {"[hsm]\niv = auto\n", offsetof(struct settings, iv), SETTINGS_IV_AUTO},
        {"[hsm]\niv = caller\n", offsetof(struct settings, iv), SETTINGS_IV_CALLER},
        {"[hsm]\niv = token\n", offsetof(struct settings, iv), SETTINGS_IV_TOKEN},
        {"[hsm]\niv = prepended\n", offsetof(struct settings, iv), SETTINGS_IV_PREPENDED},
        {"[hsm]\nrandom = token\n", offsetof(struct settings, random), SETTINGS_RANDOM_TOKEN},
        {"[hsm]\nrandom = local\n", offsetof(struct settings, random), SETTINGS_RANDOM_LOCAL},
        {"crypto = default\n", offsetof(struct settings, crypto), SETTINGS_CRYPTO_DEFAULT},
        {"crypto = fips\n", offsetof(struct settings, crypto), SETTINGS_CRYPTO_FIPS},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[512];
        struct settings settings;
        snprintf(text, sizeof text, MINIMAL "%s", rows[i].line);
        assert_int_equal(load(text, &settings), ENVELOPE_OK);
        int got;
        memcpy(&got, (char *)&settings + rows[i].offset, sizeof got);
        assert_int_equal(got, rows[i].expected);
        settings_clear(&settings);
    }
}

static void each_mistake_is_refused_with_what_to_do(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *problem;
    } rows[] = {
        {"[envelope]\nkek = pkcs11:object=x\n", "key store is missing in section [envelope]"},
        {"[envelope]\nstore = sqlite:/x\n", "key kek is missing in section [envelope]"},
        {"[envelope]\nstore = sqlite:keys.db\nkek = pkcs11:object=x\n",
         "[envelope] store: the path behind sqlite: is relative"},
        {"[envelope]\nstore = sqlite:\nkek = pkcs11:object=x\n", "store: the path behind sqlite: is relative"},
        {"[envelope]\nstore = /var/lib/keys.db\nkek = pkcs11:object=x\n",
         "store: names no kind of store; write sqlite:/path"},
        {MINIMAL "[hsm]\npin-file = pin\n", "[hsm] pin-file: the path is relative"},
        {MINIMAL "[hsm]\nmodule = lib/softhsm2.so\n", "[hsm] module: the path is relative"},
        {MINIMAL "[hsm]\npin-file = /pin\npin-env = PIN\n", "more than one source of the PIN"},
        {MINIMAL "[hsm]\npin-env = PIN\npin-command = cat /pin\n", "keep one of pin-file, pin-env, pin-command"},
        {MINIMAL "[hsm]\npin_file = /pin\n", "did you mean pin-file?"},
        {MINIMAL "[hsm]\nsessions = 0\n", "must be from 1 to 1024"},
        {MINIMAL "[hsm]\nsessions = 1025\n", "must be from 1 to 1024"},
        {MINIMAL "[hsm]\nwrap = aes-cbc\n", "not one of auto, aes-gcm, aes-kwp or rsa-oaep"},
        {MINIMAL "refresh = 0\n", "[envelope] refresh: \"0\" is out of range; it must be from 1ms to 1h"},
        {MINIMAL "refresh = 61m\n", "must be from 1ms to 1h"},
        {MINIMAL "deadline = 9ms\n", "must be from 10ms to 10m"},
        {MINIMAL "deadline = 11m\n", "must be from 10ms to 10m"},
        {MINIMAL "default-key = " /* 256 letters */
                 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                 "aaaaaaaaaaaaaaaaaaaaaaaaaaa"
                 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                 "aaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
         "default-key: not a key name"},
        {MINIMAL "default-key = \xff\n", "default-key: not a key name"},
        {MINIMAL "[cache]\nttl = 0\n", "must be at least 1ms"},
        {MINIMAL "[cache]\ngrace = -1s\n", "is not a duration"},
        {MINIMAL "[limits]\nmessages = 0\n", "must be from 1 to 4294967296"},
        {MINIMAL "[limits]\nmessages = 4294967297\n", "must be from 1 to 4294967296"},
        {MINIMAL "ttl = 1h\n", "move it to [cache]"},
        {MINIMAL "[limit]\nmessages = 5\n", "did you mean [limits]?"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct settings settings;
        error_clear();
        assert_raised(load(rows[i].text, &settings), ENVELOPE_E_CONFIG, rows[i].problem);
        assert_int_equal(strncmp(error_text(), config_path, strlen(config_path)), 0);
        assert_null(settings.store);
        assert_null(settings.path);
        assert_null(settings.default_key);
    }
}

static void a_password_in_the_stores_address_is_not_repeated(void **state)
{
    (void)state;
    struct settings settings;
    assert_int_equal(load("[envelope]\nstore = Postgres:hunter2@db\nkek = pkcs11:object=x\n", &settings),
                     ENVELOPE_E_CONFIG);
    assert_null(strstr(error_text(), "hunter2"));
}

static void the_environment_names_the_file_before_anyone_else(void **state)
{
    (void)state;
    assert_int_equal(unsetenv("ENVELOPE_CONFIG"), 0);
    assert_string_equal(settings_path(NULL), "/etc/envelope/envelope.cnf");
    assert_string_equal(settings_path(""), "/etc/envelope/envelope.cnf");
    assert_string_equal(settings_path("/srv/envelope.cnf"), "/srv/envelope.cnf");
    assert_int_equal(setenv("ENVELOPE_CONFIG", "/home/me/envelope.cnf", 1), 0);
    assert_string_equal(settings_path("/srv/envelope.cnf"), "/home/me/envelope.cnf");
    assert_int_equal(setenv("ENVELOPE_CONFIG", "", 1), 0);
    assert_string_equal(settings_path("/srv/envelope.cnf"), "/srv/envelope.cnf");
    assert_int_equal(unsetenv("ENVELOPE_CONFIG"), 0);
}

static const OSSL_DISPATCH no_functions[] = {{0, NULL}};
static envelope_status good_outcome, bad_outcome;
static char bad_text[256];

/* What our provider does when OpenSSL activates it, holding its locks. */
static int read_while_being_loaded(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
                                   void **context)
{
    struct settings settings;
    (void)handle;
    (void)in;
    *context = NULL;
    *out = no_functions;
    good_outcome = settings_load(config_path, &settings);
    if (!good_outcome)
        settings_clear(&settings);
    bad_outcome = settings_load("/nonexistent/envelope.cnf", &settings);
    snprintf(bad_text, sizeof bad_text, "%s", error_text());
    return 1;
}

static void a_provider_can_read_them_while_openssl_loads_it(void **state)
{
    (void)state;
    char openssl_cnf[160];
    write_config(MINIMAL);
    snprintf(openssl_cnf, sizeof openssl_cnf, "%s/openssl.cnf", scratch);
    FILE *file = fopen(openssl_cnf, "we");
    assert_non_null(file);
    fputs("openssl_conf = init\n[init]\nproviders = providers\n[providers]\nreader = reader\n[reader]\nactivate = 1\n",
          file);
    assert_int_equal(fclose(file), 0);
    good_outcome = bad_outcome = ENVELOPE_E_INTERNAL;
    alarm(20); /* a deadlock would hang */
    OSSL_LIB_CTX *context = OSSL_LIB_CTX_new();
    assert_int_equal(OSSL_PROVIDER_add_builtin(context, "reader", read_while_being_loaded), 1);
    assert_int_equal(OSSL_LIB_CTX_load_config(context, openssl_cnf), 1);
    assert_int_equal(OSSL_PROVIDER_available(context, "reader"), 1);
    alarm(0);
    OSSL_LIB_CTX_free(context);
    unlink(openssl_cnf);
    assert_int_equal(good_outcome, ENVELOPE_OK);
    assert_int_equal(bad_outcome, ENVELOPE_E_CONFIG);
    assert_non_null(strstr(bad_text, "there is no configuration file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_lines_are_enough_and_the_rest_has_defaults),
        cmocka_unit_test(everything_can_be_set),
        cmocka_unit_test(choices_mean_what_their_enums_say),
        cmocka_unit_test(each_mistake_is_refused_with_what_to_do),
        cmocka_unit_test(a_password_in_the_stores_address_is_not_repeated),
        cmocka_unit_test(the_environment_names_the_file_before_anyone_else),
        cmocka_unit_test(a_provider_can_read_them_while_openssl_loads_it),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
