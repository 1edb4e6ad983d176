/* Looking into the first bytes of a file: against a real store, without a token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <openssl/sha.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "base/wire.h"
#include "lifecycle/lifecycle.h"

static char directory[64], url[128];
static store *keys;
static uint32_t first_id, second_id;

static const struct store_actor actor = {.who = "test"};

static uint32_t new_version(uint32_t kek_id, struct store_new_version *version)
{
    static const uint8_t blob[62] = {1, 1};
    uint32_t dek_id;
    assert_int_equal(store_dek_id_reserve(keys, &dek_id), ENVELOPE_OK);
    *version = (struct store_new_version){.dek_id = dek_id,
                                          .algorithm = STORE_AES_256_GCM,
                                          .kek_id = kek_id,
                                          .blob = blob,
                                          .blob_length = sizeof(blob),
                                          .now = clock_wall()};
    return dek_id;
}

static int make_store(void **state)
{
    (void)state;
    snprintf(directory, sizeof(directory), "/tmp/envelope-inspect.XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    snprintf(url, sizeof(url), "sqlite:%s/keys.db", directory);
    uint32_t kek_id;
    struct store_new_version version;
    assert_int_equal(store_create(url, 5 * CLOCK_SECOND, &keys, NULL), ENVELOPE_OK);
    assert_int_equal(store_kek_ensure(keys, "pkcs11:token=t;object=k;type=secret-key", clock_wall(), &kek_id),
                     ENVELOPE_OK);
    first_id = new_version(kek_id, &version);
    assert_int_equal(store_key_create(keys, "financial", 100, &version, &actor), ENVELOPE_OK);
    second_id = new_version(kek_id, &version);
    assert_int_equal(store_key_rotate(keys, "financial", 1, &version, &actor), ENVELOPE_OK);
    return 0;
}

static int remove_store(void **state)
{
    (void)state;
    store_close(keys);
    static const char *const endings[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < 3; i++) {
        char path[160];
        snprintf(path, sizeof(path), "%s/keys.db%s", directory, endings[i]);
        unlink(path);
    }
    return rmdir(directory);
}

static void make_reference(uint32_t dek_id, const uint8_t id[STORE_ID_SIZE], uint8_t reference[32])
{
    memcpy(reference, "ENVREF\1\0", 8);
    wire_put_u32(reference + 8, dek_id);
    memcpy(reference + 12, id, STORE_ID_SIZE);
    uint8_t input[64] = "envelope reference v1", digest[SHA256_DIGEST_LENGTH];
    memcpy(input + 21, reference, 20);
    SHA256(input, 41, digest);
    memcpy(reference + 20, digest, 12);
}

static void a_ciphertext_names_its_key_and_version(void **state)
{
    (void)state;
    uint8_t head[40] = {0};
    struct lifecycle_inspection found;
    wire_put_u32(head, first_id);
    assert_int_equal(lifecycle_inspect(keys, head, sizeof(head), &found), ENVELOPE_OK);
    assert_int_equal(found.subject, LIFECYCLE_CIPHERTEXT);
    assert_string_equal(found.key_name, "financial");
    assert_int_equal(found.version, 1);
    assert_int_equal(found.state, STORE_VERSION_DEACTIVATED);
    assert_false(found.primary);

    wire_put_u32(head, second_id);
    assert_int_equal(lifecycle_inspect(keys, head, 32, &found), ENVELOPE_OK);
    assert_int_equal(found.version, 2);
    assert_int_equal(found.state, STORE_VERSION_ACTIVE);
    assert_true(found.primary);
}

static void what_is_too_short_is_refused_at_every_length(void **state)
{
    (void)state;
    uint8_t head[32] = {0};
    struct lifecycle_inspection found;
    wire_put_u32(head, first_id);
    for (size_t length = 0; length < 32; length++)
        assert_int_equal(lifecycle_inspect(keys, head, length, &found), ENVELOPE_E_DATA_TRUNCATED);
}

static void what_is_not_ours_is_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *start, *said;
    } cases[] = {{"Salted__", "password"},
                 {"ENVSEAL\1", "sealed file"},
                 {"\0\0\0\0", "DEK id 0"},
                 {"\377\377\377\377", "4294967295"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint8_t head[64] = {0};
        struct lifecycle_inspection found;
        memcpy(head, cases[i].start, i < 2 ? 8 : 4);
        assert_int_equal(lifecycle_inspect(keys, head, sizeof(head), &found), ENVELOPE_E_DATA_FORMAT);
        assert_non_null(strstr(error_text(), cases[i].said));
    }
}

static void a_reference_is_recognised_as_bytes_and_as_digits(void **state)
{
    (void)state;
    uint8_t id[STORE_ID_SIZE], reference[32];
    struct lifecycle_inspection found;
    assert_int_equal(store_id(keys, id), ENVELOPE_OK);
    make_reference(first_id, id, reference);
    assert_int_equal(lifecycle_inspect(keys, reference, 32, &found), ENVELOPE_OK);
    assert_int_equal(found.subject, LIFECYCLE_REFERENCE);
    assert_int_equal(found.version, 1);

    char digits[66];
    text_hex(reference, 32, digits);
    memcpy(digits + 64, "\n", 2);
    for (size_t length = 64; length <= 65; length++) {
        found = (struct lifecycle_inspection){0};
        assert_int_equal(lifecycle_inspect(keys, (const uint8_t *)digits, length, &found), ENVELOPE_OK);
        assert_int_equal(found.subject, LIFECYCLE_REFERENCE);
    }
}

static void a_damaged_or_foreign_reference_is_refused(void **state)
{
    (void)state;
    uint8_t id[STORE_ID_SIZE], reference[32];
    struct lifecycle_inspection found;
    assert_int_equal(store_id(keys, id), ENVELOPE_OK);
    for (size_t byte = 7; byte < 32; byte++) {
        make_reference(first_id, id, reference);
        reference[byte] ^= 1;
        assert_int_equal(lifecycle_inspect(keys, reference, 32, &found), ENVELOPE_E_REFERENCE);
        assert_non_null(strstr(error_text(), "damaged"));
    }
    id[0] ^= 1;
    make_reference(first_id, id, reference);
    assert_int_equal(lifecycle_inspect(keys, reference, 32, &found), ENVELOPE_E_REFERENCE);
    assert_non_null(strstr(error_text(), "another store"));
    id[0] ^= 1;
    make_reference(4711, id, reference);
    assert_int_equal(lifecycle_inspect(keys, reference, 32, &found), ENVELOPE_E_VERSION_UNKNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ciphertext_names_its_key_and_version),
        cmocka_unit_test(what_is_too_short_is_refused_at_every_length),
        cmocka_unit_test(what_is_not_ours_is_told_apart),
        cmocka_unit_test(a_reference_is_recognised_as_bytes_and_as_digits),
        cmocka_unit_test(a_damaged_or_foreign_reference_is_refused),
    };
    return cmocka_run_group_tests(tests, make_store, remove_store);
}
