/* Replies are read without their secrets, which stay in locked memory; what is no JSON is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "json.h"

static const char *const names[] = {"plaintext", "token"};

struct taking {
    struct buffer text, rest;
    struct json_taken taken;
    json_t *root;
    bool ok;
};

static void take(struct taking *taking, const char *text, size_t length)
{
    buffer_append(&taking->text, text, length);
    taking->ok = json_take(&taking->text, names, 2, &taking->rest, &taking->taken);
    taking->root = json_read(&taking->rest);
}

static void give_back(struct taking *taking)
{
    json_decref(taking->root);
    json_taken_clear(&taking->taken);
    buffer_clear(&taking->text);
    buffer_clear(&taking->rest);
    *taking = (struct taking){0};
}

static const char *member(const struct taking *taking, const json_t *object, const char *name)
{
    size_t length = SIZE_MAX;
    const char *value = json_taken_member(&taking->taken, object, name, &length);
    if (value)
        assert_int_equal(strlen(value), length);
    return value;
}

static void each_value_of_many_is_found_where_it_belongs(void **state)
{
    (void)state;
    struct taking taking = {0};
    static const char text[] = "{\"data\":{\"batch_results\":[{\"plaintext\":\"b25l\"},{\"error\":\"no\"},"
                               "{\"plaintext\" : \"\"}, {\"token\":\"t\",\"plaintext\":\"dHdv\"}]},\"other\":\"kept\"}";
    take(&taking, text, strlen(text));
    assert_true(taking.ok);
    assert_non_null(taking.root);
    const json_t *items = json_object_get(json_object_get(taking.root, "data"), "batch_results");
    assert_int_equal(json_array_size(items), 4);
    assert_string_equal(member(&taking, json_array_get(items, 0), "plaintext"), "b25l");
    assert_null(member(&taking, json_array_get(items, 1), "plaintext"));
    assert_string_equal(member(&taking, json_array_get(items, 2), "plaintext"), "");
    assert_string_equal(member(&taking, json_array_get(items, 3), "plaintext"), "dHdv");
    assert_string_equal(member(&taking, json_array_get(items, 3), "token"), "t");
    assert_string_equal(json_member(taking.root, "other"), "kept");
    give_back(&taking);
}

static void nothing_of_a_secret_is_left_for_the_parser(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"plaintext\":\"c2VjcmV0\"}",
        "{\"plaintext\"\n:\t\"c2VjcmV0\"}",
        "{\"a\":[[{\"plaintext\":\"c2VjcmV0\"}]]}",
        "{\"plaintext\":\"c2VjcmV0\",\"plaintext\":\"c2VjcmV0\"}",
        "{\"plaintext\":\"c2VjcmV0",                   /* cut off in the middle of it */
        "{\"plaintext\":\"c2VjcmV0\\u003d\"}",         /* as some write the = of base64 */
        "{\"plaintext\":\"c2VjcmV0\\u00e4\"}",         /* an escape that no service uses there */
        "{\"x\":\"\\\\\",\"plaintext\":\"c2VjcmV0\"}", /* a backslash before the quote */
        "{\"x\":\"plaintext\",\"token\":\"c2VjcmV0\"}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct taking taking = {0};
        take(&taking, texts[i], strlen(texts[i]));
        assert_null(strstr(buffer_text(&taking.rest), "c2Vj"));
        if (!taking.ok)
            assert_int_equal(taking.rest.length, 0);
        give_back(&taking);
    }
}

/* Whoever writes JSON may write any byte as a number: of base64 and PEM some do that to the =, others to the +. */
static void numbers_for_bytes_are_read_and_other_escapes_refused(void **state)
{
    (void)state;
    static const struct {
        const char *written, *read;
    } rows[] = {{"c2VjcmV0Pw\\u003d\\u003D", "c2VjcmV0Pw=="},
                {"\\u002bA\\/\\u002F", "+A//"},
                {"a\\u0020z\\n\\u007e", "a z\n~"},
                {"\\u0000", NULL},
                {"\\u000a", NULL},
                {"\\u00e4", NULL},
                {"\\u013d", NULL},
                {"\\u003", NULL},
                {"\\u00:d", NULL},
                {"\\u00", NULL},
                {"\\u", NULL},
                {"\\t", NULL},
                {"\\\"", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct taking taking = {0};
        char text[64];
        int length = snprintf(text, sizeof text, "{\"plaintext\":\"%s\"}", rows[i].written);
        take(&taking, text, (size_t)length);
        assert_true(taking.ok == (rows[i].read != NULL));
        if (rows[i].read)
            assert_string_equal(member(&taking, taking.root, "plaintext"), rows[i].read);
        else
            assert_int_equal(taking.rest.length, 0);
        give_back(&taking);
    }
}

/* A number written by the other side is no way to another member's value. */
static void only_numbers_of_ours_lead_to_values(void **state)
{
    (void)state;
    struct taking taking = {0};
    static const char text[] = "{\"token\":\"t\",\"a\":\"#0\",\"n\":{\"pl\\u0061intext\":\"#0\"},"
                               "\"m\":{\"t\\u006fken\":\"#7\"},\"o\":{\"t\\u006fken\":\"#-1\"},\"plaintext\":5}";
    take(&taking, text, strlen(text));
    assert_true(taking.ok);
    assert_non_null(taking.root);
    assert_string_equal(member(&taking, taking.root, "token"), "t");
    assert_null(member(&taking, taking.root, "a"));
    assert_null(member(&taking, json_object_get(taking.root, "n"), "plaintext"));
    assert_null(member(&taking, json_object_get(taking.root, "m"), "token"));
    assert_null(member(&taking, json_object_get(taking.root, "o"), "token"));
    assert_null(member(&taking, taking.root, "plaintext"));
    assert_null(member(&taking, NULL, "plaintext"));
    give_back(&taking);
}

static void many_values_are_taken_in_their_order(void **state)
{
    (void)state;
    struct taking taking = {0};
    struct buffer text = {0};
    buffer_append_text(&text, "{\"r\":[");
    for (unsigned i = 0; i < 3000; i++) {
        char item[64];
        snprintf(item, sizeof item, "%s{\"plaintext\":\"value %u\"}", i ? "," : "", i);
        buffer_append_text(&text, item);
    }
    buffer_append_text(&text, "]}");
    take(&taking, buffer_text(&text), text.length);
    buffer_clear(&text);
    assert_true(taking.ok);
    assert_int_equal(taking.taken.count, 3000);
    const json_t *items = json_object_get(taking.root, "r");
    for (unsigned i = 0; i < 3000; i++) {
        char wanted[32];
        snprintf(wanted, sizeof wanted, "value %u", i);
        assert_string_equal(member(&taking, json_array_get(items, i), "plaintext"), wanted);
    }
    give_back(&taking);
}

static void what_is_no_object_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "}",
        "[]",
        "[{}]",
        "null",
        "\"text\"",
        "5",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "{} {}",
        "{}x",
        "{\"a\":01}",
        "<html>",
        "{\"a\":1",
        "/* */{}",
        "{\"a\":NaN}",
        "{\"a\":1,\"a\":2}",
        "{\"a\":\"\xFF\"}",
        "{\"a\":\"\\u0000\"}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct taking taking = {0};
        take(&taking, bad[i], strlen(bad[i]));
        if (taking.root)
            fail_msg("accepted: %s", bad[i]);
        give_back(&taking);
    }
    struct taking with_nul = {0};
    take(&with_nul, "{\0}", 3);
    assert_null(with_nul.root);
    give_back(&with_nul);
}

static void every_truncation_of_a_reply_is_refused(void **state)
{
    (void)state;
    static const char reply[] = "{\"request_id\":\"3b\",\"data\":{\"plaintext\":\"aGk=\",\"n\":[1,-2,3e4,true,null]},"
                                "\"warnings\":[\"\\u00e9\\\\\"]}";
    for (size_t length = 0; length < sizeof reply; length++) {
        struct taking taking = {0};
        take(&taking, reply, length);
        assert_true((taking.root != NULL) == (length == sizeof reply - 1));
        give_back(&taking);
    }
}

static void what_occurs_once_may_not_occur_twice(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool lines, ok;
    } cases[] = {
        {"{\"token\":\"a\"}", false, true},      {"{\"token\":\"a\",\"b\":{\"token\":\"b\"}}", false, false},
        {"{\"token\":\"a\\nb\"}", false, false}, {"{\"token\":\"a\\nb\"}", true, true},
        {"{\"token\":\"a\\tb\"}", true, false},  {"{\"other\":\"a\"}", false, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buffer body = {0}, out = {0};
        struct json_secret secret = {.name = "token", .to = &out, .lines = cases[i].lines};
        buffer_append_text(&body, cases[i].text);
        assert_true(json_take_secrets(&body, &secret, 1) == cases[i].ok);
        assert_true(cases[i].ok || body.length == 0);
        buffer_clear(&body);
        buffer_clear(&out);
    }
}

/* A fixed pseudo-random sequence of damage: it may be refused or accepted, but nothing beyond its bytes is read. */
static void damaged_replies_never_lead_out_of_bounds(void **state)
{
    (void)state;
    static const char reply[] =
        "{\"r\":[{\"plaintext\":\"\\/a\"},{\"token\":\"b\"},-1.5e3],\"keys\":[\"x\"],\"n\":null}";
    uint32_t seed = 12345;
    for (int round = 0; round < 3000; round++) {
        char copy[sizeof reply - 1];
        struct taking taking = {0};
        memcpy(copy, reply, sizeof copy);
        for (int i = 0; i < 3; i++) {
            seed = seed * 1664525u + 1013904223u;
            copy[(seed >> 8) % sizeof copy] = (char)(seed >> 24);
        }
        take(&taking, copy, sizeof copy);
        for (size_t i = 0; i < 3; i++)
            (void)member(&taking, json_array_get(json_object_get(taking.root, "r"), i), "plaintext");
        give_back(&taking);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_value_of_many_is_found_where_it_belongs),
        cmocka_unit_test(nothing_of_a_secret_is_left_for_the_parser),
        cmocka_unit_test(numbers_for_bytes_are_read_and_other_escapes_refused),
        cmocka_unit_test(only_numbers_of_ours_lead_to_values),
        cmocka_unit_test(many_values_are_taken_in_their_order),
        cmocka_unit_test(what_is_no_object_is_refused),
        cmocka_unit_test(every_truncation_of_a_reply_is_refused),
        cmocka_unit_test(what_occurs_once_may_not_occur_twice),
        cmocka_unit_test(damaged_replies_never_lead_out_of_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
