/* The bridge's small parts: buffers, base64, secrets in JSON, shared AWS files, credential plans. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aws.h"
#include "aws_plan.h"
#include "backend.h"
#include "base/clock.h"
#include "base/error.h"
#include "json.h"
#include "keys.h"

static void base64_is_strict_and_round_trips(void **state)
{
    static const struct {
        const char *plain, *text;
    } rows[] = {{"", ""},
                {"f", "Zg=="},
                {"fo", "Zm8="},
                {"foo", "Zm9v"},
                {"foob", "Zm9vYg=="},
                {"fooba", "Zm9vYmE="},
                {"foobar", "Zm9vYmFy"}};
    static const char *const bad[] = {
        "Z", "Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm 9", "Zm9v\n", "Zg=a"};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buffer text = {0}, plain = {0};
        buffer_append_base64(&text, (const uint8_t *)rows[i].plain, strlen(rows[i].plain));
        assert_string_equal(buffer_text(&text), rows[i].text);
        assert_true(buffer_append_unbase64(&plain, rows[i].text, strlen(rows[i].text)));
        assert_string_equal(buffer_text(&plain), rows[i].plain);
        buffer_clear(&text);
        buffer_clear(&plain);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buffer plain = {0};
        assert_false(buffer_append_unbase64(&plain, bad[i], strlen(bad[i])));
        buffer_clear(&plain);
    }
}

static void a_buffer_grows_and_keeps_its_contents(void **state)
{
    struct buffer buffer = {0};
    (void)state;
    for (unsigned i = 0; i < 100000; i++)
        buffer_append(&buffer, &(uint8_t){(uint8_t)i}, 1);
    assert_true(buffer_ok(&buffer));
    assert_int_equal(buffer.length, 100000);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(buffer.bytes[i], (uint8_t)i);
    assert_null(buffer_reserve(&buffer, SIZE_MAX / 2));
    assert_false(buffer_ok(&buffer));
    buffer_clear(&buffer);
}

static void secrets_are_cut_out_of_json_before_it_is_parsed(void **state)
{
    struct buffer body = {0}, out = {0};
    struct json_secret secret = {.name = "Plaintext", .to = &out};
    (void)state;
    buffer_append_text(&body,
                       "{\"a\":\"Plaintext\",\"n\":{\"x\\\"Plaintext\":1,\"Plaintext\" : \"ab\\/c\"},\"b\":[\"c\"]}");
    assert_true(json_take_secrets(&body, &secret, 1));
    assert_true(secret.found);
    assert_string_equal(buffer_text(&out), "ab/c");
    assert_null(strstr(buffer_text(&body), "ab\\/c"));
    json_t *root = json_read(&body);
    assert_non_null(root);
    assert_string_equal(json_member(root, "a"), "Plaintext");
    json_decref(root);
    buffer_clear(&body);
    buffer_clear(&out);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static char directory[64];

static int set_up(void **state)
{
    (void)state;
    static const char *const names[] = {"AWS_ACCESS_KEY_ID",
                                        "AWS_SECRET_ACCESS_KEY",
                                        "AWS_SESSION_TOKEN",
                                        "AWS_PROFILE",
                                        "AWS_ROLE_ARN",
                                        "AWS_WEB_IDENTITY_TOKEN_FILE",
                                        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                                        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                        "AWS_EC2_METADATA_DISABLED"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    snprintf(directory, sizeof directory, "/tmp/envelope-parts.XXXXXX");
    if (!mkdtemp(directory) || chdir(directory) != 0)
        return 1;
    setenv("AWS_CONFIG_FILE", "config", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "credentials", 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink("config");
    unlink("credentials");
    return chdir("/") == 0 && rmdir(directory) == 0 ? 0 : 1;
}

static void a_profile_is_read_from_both_files_and_credentials_win(void **state)
{
    struct aws_profile profile;
    (void)state;
    write_file("config", "; comment\n[default]\nregion = eu-west-3\n[profile  dev ]\nregion=eu-west-1\n"
                         "aws_access_key_id = old\naws_secret_access_key = old\nnested =\n  region = wrong\n[dev]\n"
                         "region = wrong\n");
    write_file("credentials", "[dev]\r\naws_access_key_id = new\r\naws_secret_access_key = a=b\r\n[other]\n");
    assert_int_equal(aws_profile_read("dev", &profile), ENVELOPE_OK);
    assert_true(profile.found);
    assert_string_equal(profile.region, "eu-west-1");
    assert_string_equal(buffer_text(&profile.id), "new");
    assert_string_equal(buffer_text(&profile.secret), "a=b");
    aws_profile_clear(&profile);
    assert_int_equal(aws_profile_read("absent", &profile), ENVELOPE_OK);
    assert_false(profile.found);
    aws_profile_clear(&profile);
}

static void a_malformed_profile_file_is_named_with_its_line(void **state)
{
    struct aws_profile profile;
    (void)state;
    write_file("config", "[default]\nregion = x\nnonsense\n");
    assert_int_equal(aws_profile_read(NULL, &profile), ENVELOPE_E_CONFIG);
    assert_non_null(strstr(error_text(), "line 3"));
}

static void plan(const struct token_settings *settings, const char *pin, envelope_status wanted, struct aws_plan *made)
{
    struct aws aws = {.settings = settings};
    assert_int_equal(aws_plan_make(&aws, pin, made), wanted);
}

static void credentials_are_looked_for_in_the_usual_order(void **state)
{
    struct token_settings settings = {.label = (char *)"t"};
    struct aws_plan made;
    (void)state;
    plan(&settings, "", ENVELOPE_OK, &made);
    assert_int_equal(made.origin, AWS_FROM_INSTANCE);
    aws_plan_clear(&made);
    setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x", 1);
    plan(&settings, "", ENVELOPE_OK, &made);
    assert_int_equal(made.origin, AWS_FROM_CONTAINER);
    assert_string_equal(made.container_url, "http://169.254.170.2/v2/x");
    aws_plan_clear(&made);
    write_file("credentials", "[default]\naws_access_key_id = file\naws_secret_access_key = s\n");
    plan(&settings, "", ENVELOPE_OK, &made);
    assert_string_equal(credentials_id(made.keys), "file");
    aws_plan_clear(&made);
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/t", 1);
    setenv("AWS_ROLE_ARN", "arn:r", 1);
    plan(&settings, "", ENVELOPE_OK, &made);
    assert_int_equal(made.origin, AWS_FROM_WEB_IDENTITY);
    aws_plan_clear(&made);
    setenv("AWS_ACCESS_KEY_ID", "env", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
    setenv("AWS_SESSION_TOKEN", "t", 1);
    plan(&settings, "", ENVELOPE_OK, &made);
    assert_string_equal(credentials_id(made.keys), "env");
    assert_string_equal(credentials_token(made.keys), "t");
    aws_plan_clear(&made);
    settings.profile = (char *)"default"; /* named in the configuration: before the environment */
    plan(&settings, "", ENVELOPE_OK, &made);
    assert_string_equal(credentials_id(made.keys), "file");
    aws_plan_clear(&made);
    plan(&settings, "pin:secret:token", ENVELOPE_OK, &made);
    assert_string_equal(credentials_id(made.keys), "pin");
    assert_string_equal(credentials_secret(made.keys), "secret");
    assert_string_equal(credentials_token(made.keys), "token");
    aws_plan_clear(&made);
    plan(&settings, "no-colon", ENVELOPE_E_HSM_LOGIN, &made);
    settings.profile = NULL;
    settings.credentials = AWS_SOURCE_INSTANCE;
    plan(&settings, "", ENVELOPE_OK, &made);
    assert_int_equal(made.origin, AWS_FROM_INSTANCE);
    aws_plan_clear(&made);
}

static void container_credentials_are_not_fetched_from_anywhere(void **state)
{
    static const char *const bad[] = {"http://example.com/x", "http://169.254.170.2.example.com/", "ftp://127.0.0.1/",
                                      "http://localhost.evil/"};
    struct token_settings settings = {.label = (char *)"t", .credentials = AWS_SOURCE_CONTAINER};
    struct aws_plan made;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", bad[i], 1);
        plan(&settings, "", ENVELOPE_E_CONFIG, &made);
    }
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "https://anywhere.example/x", 1);
    plan(&settings, "", ENVELOPE_OK, &made);
    aws_plan_clear(&made);
}

static void add_key(struct backend_call *call, const char *id, const char *label, const char *alias)
{
    struct backend_key *key = backend_add_key(call);
    assert_non_null(key);
    key->id = strdup(id);
    key->label = strdup(label);
    if (!alias)
        return;
    key->aliases = calloc(2, sizeof *key->aliases);
    assert_non_null(key->aliases);
    key->aliases[0] = strdup(alias);
}

static void learn_all(struct keys *keys, struct backend_call *call)
{
    struct keys_list list = {0};
    assert_int_equal(keys_learn_all(keys, &call->keys, &list), CKR_OK);
    keys_list_clear(&list);
    backend_call_clear(call);
}

static const char *label_of(struct keys *keys, const char *name)
{
    static char label[64];
    struct keys_list list = {0};
    enum keys_part part;
    CK_RV rv;
    assert_true(keys_named(keys, name, &list, &rv));
    assert_int_equal(list.count, 1);
    const struct backend_key *key = keys_acquire(keys, list.handles[0], &part);
    assert_non_null(key);
    snprintf(label, sizeof label, "%s", key->label);
    keys_release(keys);
    keys_list_clear(&list);
    return label;
}

/* Two keys of one label would be two answers to who looks for it. */
static void a_label_follows_the_alias_that_was_moved(void **state)
{
    struct keys *keys = keys_new(60 * CLOCK_SECOND);
    struct backend_call call = {0};
    (void)state;
    add_key(&call, "one", "alias/kek", "alias/same");
    add_key(&call, "two", "alias/next", NULL);
    learn_all(keys, &call);
    assert_string_equal(label_of(keys, "one"), "alias/kek");
    /* Listed in another order, a key keeps its label. */
    add_key(&call, "one", "alias/same", "alias/kek");
    add_key(&call, "two", "alias/next", NULL);
    learn_all(keys, &call);
    assert_string_equal(label_of(keys, "one"), "alias/kek");
    assert_string_equal(label_of(keys, "alias/same"), "alias/kek");
    add_key(&call, "one", "alias/same", NULL);
    add_key(&call, "two", "alias/kek", NULL);
    learn_all(keys, &call);
    assert_string_equal(label_of(keys, "one"), "alias/same");
    assert_string_equal(label_of(keys, "two"), "alias/kek");
    assert_string_equal(label_of(keys, "alias/kek"), "alias/kek");
    keys_free(keys);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_is_strict_and_round_trips),
        cmocka_unit_test(a_buffer_grows_and_keeps_its_contents),
        cmocka_unit_test(secrets_are_cut_out_of_json_before_it_is_parsed),
        cmocka_unit_test(a_label_follows_the_alias_that_was_moved),
        T(a_profile_is_read_from_both_files_and_credentials_win),
        T(a_malformed_profile_file_is_named_with_its_line),
        T(credentials_are_looked_for_in_the_usual_order),
        T(container_credentials_are_not_fetched_from_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
