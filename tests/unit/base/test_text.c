#include "base_test.h"

#include "base/text.h"

struct bytes_row {
    const char *bytes;
    size_t length;
    bool expected;
};

static void utf8_is_told_from_what_only_looks_like_it(void **state)
{
    (void)state;
    static const struct bytes_row rows[] = {
        {"", 0, true},
        {"plain", 5, true},
        {"\xc3\xa9", 2, true},         /* é */
        {"\xe2\x82\xac", 3, true},     /* € */
        {"\xf0\x9f\x94\x91", 4, true}, /* a key */
        {"\xf4\x8f\xbf\xbf", 4, true}, /* the last code point */
        {"\0", 1, true},
        {"\x80", 1, false},             /* continuation without a start */
        {"\xc3", 1, false},             /* cut */
        {"\xe2\x82", 2, false},         /* cut */
        {"\xc0\xaf", 2, false},         /* overlong / */
        {"\xe0\x80\xaf", 3, false},     /* overlong / */
        {"\xf0\x80\x80\xaf", 4, false}, /* overlong / */
        {"\xed\xa0\x80", 3, false},     /* surrogate */
        {"\xf4\x90\x80\x80", 4, false}, /* above Unicode */
        {"\xff", 1, false},
        {"a\xc3(", 3, false},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        if (text_is_utf8(rows[i].bytes, rows[i].length) != rows[i].expected)
            fail_msg("row %zu", i);
}

static void key_names_are_short_utf8_without_control_characters(void **state)
{
    (void)state;
    char longest[KEY_NAME_MAX + 2];
    memset(longest, 'k', sizeof longest);
    const struct bytes_row rows[] = {
        {"default", 7, true},
        {"tenant-42/identity", 18, true},
        {"clé", 4, true},
        {" ", 1, true},
        {longest, KEY_NAME_MAX, true},
        {longest, KEY_NAME_MAX + 1, false},
        {"", 0, false},
        {"a\nb", 3, false},
        {"a\0b", 3, false},
        {"\x1b[31m", 5, false},
        {"\x7f", 1, false},
        {"\xc2\x85", 2, false}, /* C1: next line */
        {"\xc2\xa0", 2, true},  /* the first behind C1 */
        {"\xff", 1, false},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        if (text_is_key_name(rows[i].bytes, rows[i].length) != rows[i].expected)
            fail_msg("row %zu", i);
}

static void what_is_printed_cannot_steer_a_terminal(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        size_t capacity;
        const char *expected;
    } rows[] = {
        {"plain", 5, 64, "plain"},
        {"\x1b[2J", 4, 64, "\\x1b[2J"},
        {"a\0b", 3, 64, "a\\x00b"},
        {"\xc2\x85", 2, 64, "\\xc2\\x85"},
        {"\xff\xc3\xa9", 3, 64, "\\xff\xc3\xa9"},
        {"", 0, 64, ""},
        {"12345678", 8, 9, "12345678"},
        {"123456789", 9, 9, "12345…"},
        {"12345\n789", 9, 9, "12345…"}, /* no half of an escape */
        {"1234\xc3\xa9"
         "789",
         9, 9, "1234…"}, /* no half of a character */
        {"123", 3, 3, ""},
        {"12", 2, 3, "12"},
        {"1", 1, 1, ""},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char to[64];
        memset(to, '#', sizeof to);
        assert_ptr_equal(text_printable(rows[i].bytes, rows[i].length, to, rows[i].capacity), to);
        assert_string_equal(to, rows[i].expected);
        for (size_t j = rows[i].capacity; j < sizeof to; j++)
            assert_int_equal(to[j], '#');
    }
    char untouched = '#';
    text_printable("x", 1, &untouched, 0);
    assert_int_equal(untouched, '#');
}

static void hex_goes_there_and_back(void **state)
{
    (void)state;
    uint8_t bytes[256], back[256];
    char digits[513];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    text_hex(bytes, sizeof bytes, digits);
    assert_int_equal(strlen(digits), 512);
    assert_memory_equal(digits, "000102", 6);
    assert_true(text_unhex(digits, back, sizeof back));
    assert_memory_equal(bytes, back, sizeof bytes);
    assert_true(text_unhex("aBFf", back, 2));
    assert_int_equal(back[0], 0xab);
    assert_true(text_unhex("", back, 0));
}

static void hex_of_another_length_or_alphabet_is_refused(void **state)
{
    (void)state;
    static const char *const rows[] = {"", "a", "abc", "abcde", "abcdef", "ag00", "0x00", "ab c", " abcd", "00-1"};
    uint8_t bytes[2];
    for (size_t i = 0; i < COUNT(rows); i++)
        if (text_unhex(rows[i], bytes, sizeof bytes))
            fail_msg("\"%s\" was taken", rows[i]);
}

static void texts_are_copied_and_formatted(void **state)
{
    (void)state;
    char *copy = text_copy("key"), *formatted = text_format("%s-%d", "key", 7);
    assert_string_equal(copy, "key");
    assert_string_equal(formatted, "key-7");
    free(copy);
    free(formatted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_is_told_from_what_only_looks_like_it),
        cmocka_unit_test(key_names_are_short_utf8_without_control_characters),
        cmocka_unit_test(what_is_printed_cannot_steer_a_terminal),
        cmocka_unit_test(hex_goes_there_and_back),
        cmocka_unit_test(hex_of_another_length_or_alphabet_is_refused),
        cmocka_unit_test(texts_are_copied_and_formatted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
