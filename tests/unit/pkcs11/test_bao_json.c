/* Reading JSON in place: what RFC 8259 allows is read, all else is refused, and nothing is read past its end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "bao_json.h"

/* Parsed from a heap copy without a terminating NUL, so that a sanitizer sees one byte too many. */
static bool parses(const char *text, size_t length)
{
    struct bao_json root;
    char *copy = malloc(length ? length : 1);
    assert_non_null(copy);
    memcpy(copy, text, length);
    bool accepted = bao_json_parse(copy, length, &root);
    free(copy);
    return accepted;
}

static struct bao_json parsed(const char *text)
{
    struct bao_json root;
    assert_true(bao_json_parse(text, strlen(text), &root));
    return root;
}

static void what_the_grammar_allows_is_read(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{}",
        " [ ] ",
        "null",
        "true",
        "-0",
        "-12.5e+3",
        "0.1E-9",
        "\"\"",
        "\"\\u00e9\\n\\\"\\/\"",
        "{\"a\":{\"b\":[1,2,{\"c\":null}]},\"d\":\"\xC3\xA9\"}",
        "\r\n{\t\"a\" : 1 , \"b\" : [ ] }\n",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!parses(good[i], strlen(good[i])))
            fail_msg("refused: %s", good[i]);
}

static void what_the_grammar_forbids_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",           " ",      "{",        "}",        "[1,]",        "[1 2]",      "{\"a\"}",   "{\"a\":}", "{a:1}",
        "{\"a\":1,}", "01",     "1.",       ".5",       "-",           "1e",         "+1",        "tru",      "True",
        "NaN",        "\"",     "\"\\\"",   "\"\\x\"",  "\"\\u12g4\"", "\"\\u123\"", "'a'",       "{} {}",    "{}x",
        "\"\n\"",     "[\"a\"", "{\"a\":1", "\"\xFF\"", "/* */{}",     "{\"a\":01}", "{\"a\" 1}", "[,1]",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (parses(bad[i], strlen(bad[i])))
            fail_msg("accepted: %s", bad[i]);
    assert_false(parses("{\0}", 3));
    assert_false(parses("\"\\\0\"", 4));
}

static void every_truncation_of_a_reply_is_refused(void **state)
{
    (void)state;
    static const char reply[] = "{\"request_id\":\"3b\",\"data\":{\"plaintext\":\"aGk=\",\"n\":[1,-2,3e4,true,null]},"
                                "\"warnings\":[\"\\u00e9\\\\\"]}";
    for (size_t length = 0; length < sizeof reply - 1; length++)
        assert_false(parses(reply, length));
    assert_true(parses(reply, sizeof reply - 1));
}

static void nesting_has_a_limit(void **state)
{
    (void)state;
    char text[128];
    memset(text, '[', 33);
    memset(text + 33, ']', 33);
    assert_false(parses(text, 66));
    assert_true(parses(text + 1, 64));
    char *deep = malloc(1 << 20);
    assert_non_null(deep);
    memset(deep, '[', 1 << 20);
    assert_false(parses(deep, 1 << 20));
    free(deep);
}

static void members_are_found_by_name_at_their_own_level(void **state)
{
    (void)state;
    struct bao_json root = parsed("{\"a\":{\"plaintext\":\"inner\"}, \"b\" : 7, \"b\":8, \"plaintext\":\"outer\"}");
    int64_t number = 0;
    assert_true(bao_json_is(bao_json_member(root, "plaintext"), "outer"));
    assert_true(bao_json_is(bao_json_member(bao_json_member(root, "a"), "plaintext"), "inner"));
    assert_true(bao_json_integer(bao_json_member(root, "b"), &number));
    assert_int_equal(number, 7);
    assert_int_equal(bao_json_kind(bao_json_member(root, "none")), BAO_JSON_MISSING);
    assert_int_equal(bao_json_kind(bao_json_member(bao_json_member(root, "none"), "x")), BAO_JSON_MISSING);
    assert_int_equal(bao_json_kind(bao_json_member(parsed("[1]"), "b")), BAO_JSON_MISSING);
}

static void elements_come_one_by_one(void **state)
{
    (void)state;
    struct bao_json array = parsed("[ \"a\" , [1,2] ,{\"x\":1}, null ]"), none, item;
    size_t at = 0;
    enum bao_json_kind kinds[] = {BAO_JSON_STRING, BAO_JSON_ARRAY, BAO_JSON_OBJECT, BAO_JSON_NULL};
    for (size_t i = 0; i < 4; i++) {
        assert_true(bao_json_next(array, &at, &none, &item));
        assert_int_equal(bao_json_kind(item), kinds[i]);
        assert_int_equal(bao_json_kind(none), BAO_JSON_MISSING);
    }
    assert_false(bao_json_next(array, &at, &none, &item));
    at = 0;
    assert_false(bao_json_next(parsed("[ ]"), &at, &none, &item));
    at = 0;
    assert_false(bao_json_next(parsed("\"text\""), &at, &none, &item));
}

static void strings_are_unescaped(void **state)
{
    (void)state;
    char text[64];
    assert_true(
        bao_json_copy(parsed("\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20ac\\ud83d\\ude00\""), text, sizeof text));
    assert_string_equal(text, "a\"\\/\b\f\n\r\tA\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    /* U+0000 would end a C string early; half a surrogate pair is no character. */
    assert_false(bao_json_copy(parsed("\"a\\u0000b\""), text, sizeof text));
    assert_false(bao_json_copy(parsed("\"\\ud83d\""), text, sizeof text));
    assert_false(bao_json_copy(parsed("\"\\ud83d\\u0041\""), text, sizeof text));
    assert_false(bao_json_copy(parsed("\"\\ude00\""), text, sizeof text));
    assert_false(bao_json_copy(parsed("\"too long\""), text, 5));
    assert_false(bao_json_copy(parsed("5"), text, sizeof text));
    struct buffer buffer = {0};
    assert_true(bao_json_string(parsed("\"one \""), &buffer));
    assert_true(bao_json_string(parsed("\"t\\u0077o\""), &buffer));
    assert_false(bao_json_string(parsed("\"\\u0000\""), &buffer));
    assert_string_equal(buffer_text(&buffer), "one two");
    buffer_clear(&buffer);
}

static void numbers_are_whole_or_refused(void **state)
{
    (void)state;
    int64_t number = 0;
    assert_true(bao_json_integer(parsed("9223372036854775807"), &number));
    assert_true(number == INT64_MAX);
    assert_true(bao_json_integer(parsed("-15"), &number));
    assert_int_equal(number, -15);
    assert_false(bao_json_integer(parsed("9223372036854775808"), &number));
    assert_false(bao_json_integer(parsed("1.5"), &number));
    assert_false(bao_json_integer(parsed("1e3"), &number));
    assert_false(bao_json_integer(parsed("\"1\""), &number));
}

/* A fixed pseudo-random sequence of damage: the reader may refuse or accept, but never leave its bytes. */
static void damaged_replies_never_lead_out_of_bounds(void **state)
{
    (void)state;
    static const char reply[] =
        "{\"a\":[{\"b\":\"\\u00e9\\ud83d\\ude00\"},-1.5e3,true],\"keys\":[\"x\",\"y\"],\"n\":null}";
    uint32_t seed = 12345;
    for (int round = 0; round < 20000; round++) {
        size_t length = sizeof reply - 1;
        char *copy = malloc(length);
        struct bao_json root, name, value;
        assert_non_null(copy);
        memcpy(copy, reply, length);
        for (int i = 0; i < 3; i++) {
            seed = seed * 1664525u + 1013904223u;
            copy[(seed >> 8) % length] = (char)(seed >> 24);
        }
        if (bao_json_parse(copy, length, &root)) {
            size_t at = 0;
            struct buffer out = {0};
            while (bao_json_next(root, &at, &name, &value)) {
                bao_json_string(value, &out);
                bao_json_string(bao_json_member(value, "b"), &out);
            }
            buffer_clear(&out);
        }
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_grammar_allows_is_read),
        cmocka_unit_test(what_the_grammar_forbids_is_refused),
        cmocka_unit_test(every_truncation_of_a_reply_is_refused),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(members_are_found_by_name_at_their_own_level),
        cmocka_unit_test(elements_come_one_by_one),
        cmocka_unit_test(strings_are_unescaped),
        cmocka_unit_test(numbers_are_whole_or_refused),
        cmocka_unit_test(damaged_replies_never_lead_out_of_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
