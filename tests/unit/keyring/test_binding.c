#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "base/text.h"
#include "keyring/binding.h"

static const uint8_t store_id_known[STORE_ID_SIZE] = {0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7};

static void aad_of_a_wrap_is_as_the_format_says(void **state)
{
    (void)state;
    struct binding_place place = {store_id_known, 0x01020304, 7, 0x0a0b0c0d, STORE_AES_256_GCM, "financial"};
    uint8_t aad[BINDING_MAX];
    char hex[2 * BINDING_MAX + 1];
    size_t length = keyring_binding_aad(&place, aad);
    text_hex(aad, length, hex);
    assert_string_equal(hex, "656e76656c6f70652077726170207631" /* "envelope wrap v1" */
                             "a0a1a2a3a4a5a6a7"                 /* store id */
                             "01020304"                         /* DEK id */
                             "00000007"                         /* version */
                             "0a0b0c0d"                         /* KEK id */
                             "01"                               /* AES-256-GCM */
                             "09"                               /* name length */
                             "66696e616e6369616c");
}

static void longest_name_fits_exactly(void **state)
{
    (void)state;
    char name[KEY_NAME_MAX + 1];
    memset(name, 'n', KEY_NAME_MAX);
    name[KEY_NAME_MAX] = '\0';
    struct binding_place place = {store_id_known, 1, 1, 1, STORE_AES_256_GCM, name};
    uint8_t aad[BINDING_MAX];
    assert_int_equal(keyring_binding_aad(&place, aad), BINDING_MAX);
    assert_int_equal(aad[BINDING_MAX - KEY_NAME_MAX - 1], 255);
    assert_memory_equal(aad + BINDING_MAX - KEY_NAME_MAX, name, KEY_NAME_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aad_of_a_wrap_is_as_the_format_says),
        cmocka_unit_test(longest_name_fits_exactly),
    };
    return cmocka_run_group_tests_name("keyring_binding", tests, NULL, NULL);
}
