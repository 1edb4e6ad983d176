/* The 32 key bytes, looked at alone. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "keyname.h"

static void key_bytes_are_recognised_for_what_they_are(void **state)
{
    (void)state;
    static const struct {
        const char *bytes; /* the rest is zero */
        size_t given;
        enum provider_keyname_kind kind;
        size_t length;
    } rows[] = {
        {"", 0, PROVIDER_KEYNAME_NONE, 0},
        {"a", 1, PROVIDER_KEYNAME_NAME, 1},
        {"financial", 9, PROVIDER_KEYNAME_NAME, 9},
        {"tenant-42/identity", 18, PROVIDER_KEYNAME_NAME, 18},
        {"m\xc3\xbcnchen", 8, PROVIDER_KEYNAME_NAME, 8},
        {"0123456789abcdef0123456789abcdef", 32, PROVIDER_KEYNAME_NAME, 32},
        {"0123456789abcdef0123456789abcd\xc3\xbc", 32, PROVIDER_KEYNAME_NAME, 32},
        {"ENVREF", 6, PROVIDER_KEYNAME_NAME, 6},
        {"ENVREF\x01", 7, PROVIDER_KEYNAME_REFERENCE, 0},
        {"ENVREF\x01 and anything behind", 26, PROVIDER_KEYNAME_REFERENCE, 0},
        {"ENVREF\x02", 7, PROVIDER_KEYNAME_NOTHING, 0},
        {"\0hidden", 7, PROVIDER_KEYNAME_NOTHING, 0},
        {"name\0rest", 9, PROVIDER_KEYNAME_NOTHING, 0},
        {"line\nbreak", 10, PROVIDER_KEYNAME_NOTHING, 0},
        {"\x7f", 1, PROVIDER_KEYNAME_NOTHING, 0},
        {"\xc2\x85", 2, PROVIDER_KEYNAME_NOTHING, 0},
        {"cut \xc3", 5, PROVIDER_KEYNAME_NOTHING, 0},
        {"0123456789abcdef0123456789abcde\xc3", 32, PROVIDER_KEYNAME_NOTHING, 0},
        {"\xff\xff\xff\xff", 4, PROVIDER_KEYNAME_NOTHING, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t bytes[KEYNAME_SIZE] = {0};
        memcpy(bytes, rows[i].bytes, rows[i].given);
        struct provider_keyname parsed = provider_keyname_parse(bytes);
        if (parsed.kind != rows[i].kind || parsed.length != rows[i].length)
            fail_msg("row %zu: kind %d, length %zu", i, (int)parsed.kind, parsed.length);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_bytes_are_recognised_for_what_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
