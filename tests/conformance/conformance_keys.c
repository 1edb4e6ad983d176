/* Keys and versions: create, find, rotate, list, names, budgets of one process. */
#include "store_conformance.h"

#include "base/error.h"

/* ---- create ---- */

static void a_new_key_has_one_active_version(void **state)
{
    struct conformance *c = *state;
    struct store_new_version first = conformance_version(c);
    OK(store_key_create(c->store, "financial", 1000, &first, &conformance_actor));

    struct store_key key;
    OK(store_key_find(c->store, "financial", &key));
    assert_string_equal(key.name, "financial");
    assert_int_equal(key.state, STORE_KEY_ENABLED);
    assert_int_equal(key.primary_version, 1);
    assert_int_equal(key.kek_id, c->kek);
    assert_true(key.message_limit == 1000);
    assert_true(key.created == CONFORMANCE_NOW);

    struct store_version by_id, by_number;
    OK(store_version_find(c->store, first.dek_id, &by_id));
    OK(store_version_of(c->store, "financial", 1, &by_number));
    assert_int_equal(by_id.dek_id, first.dek_id);
    assert_int_equal(by_number.dek_id, first.dek_id);
    assert_int_equal(by_id.version, 1);
    assert_string_equal(by_id.key_name, "financial");
    assert_int_equal(by_id.state, STORE_VERSION_ACTIVE);
    assert_int_equal(by_id.key_state, STORE_KEY_ENABLED);
    assert_int_equal(by_id.algorithm, STORE_AES_256_GCM);
    assert_int_equal(by_id.kek_id, c->kek);
    assert_int_equal(by_id.blob_length, first.blob_length);
    assert_memory_equal(by_id.blob, first.blob, first.blob_length);
    assert_true(by_id.message_limit == 1000 && by_id.messages_reserved == 0);
    assert_true(by_id.created == CONFORMANCE_NOW && by_id.deactivated == 0);
    store_version_clear(&by_id);
    store_version_clear(&by_number);
}

static void a_second_key_of_the_same_name_is_refused(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "k", 1000);
    struct store_version before = conformance_primary(c, "k");
    uint64_t counter = conformance_counter(c);
    size_t rows = conformance_history_rows(c);
    struct store_new_version first = conformance_version(c);
    EXPECT(store_key_create(c->store, "k", 5, &first, &conformance_actor), ENVELOPE_E_KEY_EXISTS);
    assert_int_equal(conformance_primary(c, "k").dek_id, before.dek_id);
    assert_true(conformance_counter(c) == counter);
    assert_int_equal(conformance_history_rows(c), rows);
    struct store_version none;
    EXPECT(store_version_find(c->store, first.dek_id, &none), ENVELOPE_E_VERSION_UNKNOWN);
}

static void what_a_version_needs_is_checked_before_anything_is_written(void **state)
{
    struct conformance *c = *state;
    static uint8_t large[65536];
    const struct store_new_version good = conformance_version(c);
    struct store_new_version bad = good;

#define REFUSED(wanted) EXPECT(store_key_create(c->store, "k", 10, &bad, &conformance_actor), wanted)
    bad.dek_id = 0;
    REFUSED(ENVELOPE_E_ARGUMENT);
    bad.dek_id = good.dek_id + 1; /* not reserved */
    REFUSED(ENVELOPE_E_ARGUMENT);
    bad.dek_id = UINT32_MAX;
    REFUSED(ENVELOPE_E_ARGUMENT);
    bad = good;
    bad.kek_id = 0;
    REFUSED(ENVELOPE_E_ARGUMENT);
    bad.kek_id = c->kek + 1000;
    REFUSED(ENVELOPE_E_KEK_UNKNOWN);
    bad = good;
    bad.algorithm = (enum store_algorithm)77;
    REFUSED(ENVELOPE_E_ARGUMENT);
    bad = good;
    bad.blob_length = 0;
    REFUSED(ENVELOPE_E_ARGUMENT);
    bad.blob = large;
    bad.blob_length = sizeof large;
    REFUSED(ENVELOPE_E_ARGUMENT);
    bad = good;
    bad.blob = NULL;
    REFUSED(ENVELOPE_E_ARGUMENT);
#undef REFUSED
    EXPECT(store_key_create(c->store, "k", 0, &good, &conformance_actor), ENVELOPE_E_ARGUMENT);
    EXPECT(store_key_create(c->store, "k", (UINT64_C(1) << 32) + 1, &good, &conformance_actor), ENVELOPE_E_ARGUMENT);
    EXPECT(store_key_create(c->store, "k", 10, &good, NULL), ENVELOPE_E_ARGUMENT);
    EXPECT(store_key_create(c->store, "k", 10, &good, &(struct store_actor){.who = ""}), ENVELOPE_E_ARGUMENT);

    struct store_key *keys;
    size_t count = 1;
    OK(store_keys(c->store, &keys, &count));
    assert_int_equal(count, 0);
    free(keys);

    struct store_new_version largest = good;
    largest.blob = large;
    largest.blob_length = 65535;
    OK(store_key_create(c->store, "k", UINT64_C(1) << 32, &largest, &conformance_actor));
    struct store_version read;
    OK(store_version_of(c->store, "k", 0, &read));
    assert_int_equal(read.blob_length, 65535);
    assert_true(read.message_limit == UINT64_C(1) << 32);
    store_version_clear(&read);
}

/* ---- names ---- */

static void fill(char *to, const char *piece, size_t bytes)
{
    size_t length = strlen(piece);
    for (size_t i = 0; i < bytes; i++)
        to[i] = piece[i % length];
    to[bytes] = '\0';
}

static void any_printable_unicode_name_works(void **state)
{
    struct conformance *c = *state;
    char longest[KEY_NAME_MAX + 1], longest_unicode[KEY_NAME_MAX + 1];
    fill(longest, "abcdefgh", 255);
    fill(longest_unicode, "\xe2\x82\xac", 255); /* 85 euro signs */
    const char *names[] = {
        "a",
        "tenant-42/identity",
        " ",
        "with space ",
        "with space",
        "quote'\"`;--",
        "100%_",
        "Grüße",
        "GRÜSSE",
        "\xc3\xa9",  /* é, one character */
        "e\xcc\x81", /* é, two: another name */
        "密钥",
        "مفتاح",
        "\xf0\x9f\x94\x91",
        "\xf4\x8f\xbf\xbd",
        "\\",
        "NULL",
        "A",
        longest,
        longest_unicode,
    };
    enum { NAMES = sizeof names / sizeof names[0] };
    for (size_t i = 0; i < NAMES; i++)
        conformance_create(c, names[i], 100 + i);
    for (size_t i = 0; i < NAMES; i++) {
        struct store_key key;
        OK(store_key_find(c->store, names[i], &key));
        assert_string_equal(key.name, names[i]);
        assert_true(key.message_limit == 100 + i);
        struct store_version version;
        OK(store_version_of(c->store, names[i], 0, &version));
        assert_string_equal(version.key_name, names[i]);
        store_version_clear(&version);
    }
    struct store_key *keys;
    size_t count = 0;
    OK(store_keys(c->store, &keys, &count));
    assert_int_equal(count, NAMES);
    for (size_t i = 1; i < count; i++)
        assert_true(strcmp(keys[i - 1].name, keys[i].name) < 0);
    free(keys);
}

static void a_name_that_is_none_is_refused_everywhere(void **state)
{
    struct conformance *c = *state;
    char too_long[KEY_NAME_MAX + 2];
    fill(too_long, "x", 256);
    const char *names[] = {
        "",
        too_long,
        "new\nline",
        "tab\t",
        "\x7f",
        "\x1b[31mred",
        "\xc2\x85",         /* C1: next line */
        "\xff",             /* no UTF-8 */
        "\xc3",             /* cut off */
        "\xc0\x80",         /* overlong */
        "\xed\xa0\x80",     /* surrogate */
        "\xf4\x90\x80\x80", /* above Unicode */
    };
    const struct store_new_version version = conformance_version(c);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct store_key key;
        struct store_version found;
        struct store_version *list;
        struct store_history *rows;
        size_t count;
        EXPECT(store_key_create(c->store, names[i], 10, &version, &conformance_actor), ENVELOPE_E_KEY_NAME);
        for (const char *p = error_text(); *p; p++)
            assert_false((unsigned char)*p < 0x20 || *p == 0x7f);
        EXPECT(store_key_rotate(c->store, names[i], 1, &version, &conformance_actor), ENVELOPE_E_KEY_NAME);
        EXPECT(store_key_find(c->store, names[i], &key), ENVELOPE_E_KEY_NAME);
        EXPECT(store_version_of(c->store, names[i], 0, &found), ENVELOPE_E_KEY_NAME);
        EXPECT(store_versions(c->store, names[i], &list, &count), ENVELOPE_E_KEY_NAME);
        EXPECT(store_key_set_state(c->store, names[i], STORE_KEY_ENABLED, STORE_KEY_SUSPENDED, 1, &conformance_actor),
               ENVELOPE_E_KEY_NAME);
        EXPECT(store_history_read(c->store, names[i], 0, &rows, &count), ENVELOPE_E_KEY_NAME);
        EXPECT(store_history_add(c->store, 1, "x", names[i], 0, "ok", &conformance_actor), ENVELOPE_E_KEY_NAME);
    }
    EXPECT(store_key_create(c->store, NULL, 10, &version, &conformance_actor), ENVELOPE_E_ARGUMENT);
}

static void what_is_not_there_is_called_unknown(void **state)
{
    struct conformance *c = *state;
    struct store_key key;
    struct store_version version;
    struct store_version *list;
    size_t count;
    struct store_new_version next = conformance_version(c);
    EXPECT(store_key_find(c->store, "nobody", &key), ENVELOPE_E_KEY_UNKNOWN);
    assert_non_null(strstr(error_text(), "nobody"));
    EXPECT(store_version_of(c->store, "nobody", 0, &version), ENVELOPE_E_KEY_UNKNOWN);
    EXPECT(store_versions(c->store, "nobody", &list, &count), ENVELOPE_E_KEY_UNKNOWN);
    EXPECT(store_key_rotate(c->store, "nobody", 1, &next, &conformance_actor), ENVELOPE_E_KEY_UNKNOWN);
    EXPECT(store_key_set_state(c->store, "nobody", STORE_KEY_ENABLED, STORE_KEY_SUSPENDED, 1, &conformance_actor),
           ENVELOPE_E_KEY_UNKNOWN);
    EXPECT(store_version_find(c->store, next.dek_id, &version), ENVELOPE_E_VERSION_UNKNOWN);
    EXPECT(store_version_find(c->store, 0, &version), ENVELOPE_E_VERSION_UNKNOWN);
    EXPECT(store_version_find(c->store, UINT32_MAX, &version), ENVELOPE_E_VERSION_UNKNOWN);
    assert_null(version.blob);
    conformance_create(c, "somebody", 10);
    EXPECT(store_version_of(c->store, "somebody", 2, &version), ENVELOPE_E_VERSION_UNKNOWN);
    EXPECT(store_version_set_state(c->store, UINT32_MAX, STORE_VERSION_ACTIVE, STORE_VERSION_SUSPENDED, 1,
                                   &conformance_actor),
           ENVELOPE_E_VERSION_UNKNOWN);
}

/* ---- rotate ---- */

static void old_version_is_kept_deactivated_after_rotation(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "k", 77);
    struct store_version first = conformance_primary(c, "k");
    struct store_new_version next = conformance_version(c);
    next.now = CONFORMANCE_NOW + 5;
    OK(store_key_rotate(c->store, "k", 1, &next, &conformance_actor));

    struct store_version old, fresh;
    OK(store_version_find(c->store, first.dek_id, &old));
    assert_int_equal(old.state, STORE_VERSION_DEACTIVATED);
    assert_true(old.deactivated == CONFORMANCE_NOW + 5);
    assert_non_null(old.blob);
    OK(store_version_of(c->store, "k", 0, &fresh));
    assert_int_equal(fresh.version, 2);
    assert_int_equal(fresh.dek_id, next.dek_id);
    assert_int_equal(fresh.state, STORE_VERSION_ACTIVE);
    assert_true(fresh.message_limit == 77);
    assert_memory_equal(fresh.blob, next.blob, next.blob_length);
    store_version_clear(&old);
    store_version_clear(&fresh);
}

static void a_rotation_that_expected_another_primary_changes_nothing(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "k", 77);
    conformance_rotate(c, "k");
    uint64_t counter = conformance_counter(c);
    size_t rows = conformance_history_rows(c);
    struct store_new_version next = conformance_version(c);
    EXPECT(store_key_rotate(c->store, "k", 1, &next, &conformance_actor), ENVELOPE_E_STORE_CONFLICT);
    EXPECT(store_key_rotate(c->store, "k", 3, &next, &conformance_actor), ENVELOPE_E_STORE_CONFLICT);
    EXPECT(store_key_rotate(c->store, "k", 0, &next, &conformance_actor), ENVELOPE_E_ARGUMENT);
    assert_true(conformance_counter(c) == counter);
    assert_int_equal(conformance_history_rows(c), rows);
    struct store_version *versions;
    size_t count;
    OK(store_versions(c->store, "k", &versions, &count));
    assert_int_equal(count, 2);
    store_versions_free(versions, count);
    OK(store_key_rotate(c->store, "k", 2, &next, &conformance_actor));
}

static void two_hundred_rotations_leave_two_hundred_and_one_versions(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "k", 77);
    for (int i = 0; i < 200; i++)
        conformance_rotate(c, "k");
    struct store_version *versions;
    size_t count, active = 0;
    OK(store_versions(c->store, "k", &versions, &count));
    assert_int_equal(count, 201);
    for (size_t i = 0; i < count; i++) {
        char blob[16] = {0};
        snprintf(blob, sizeof blob, "blob %u", (unsigned)versions[i].dek_id);
        assert_int_equal(versions[i].version, i + 1);
        assert_memory_equal(versions[i].blob, blob, sizeof blob);
        active += versions[i].state == STORE_VERSION_ACTIVE;
    }
    assert_int_equal(active, 1);
    assert_int_equal(versions[200].state, STORE_VERSION_ACTIVE);
    store_versions_free(versions, count);
}

static void all_versions_are_listed_by_key_and_number(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "b", 10);
    conformance_create(c, "a", 10);
    conformance_rotate(c, "b");
    conformance_rotate(c, "a");
    struct store_version *versions;
    size_t count;
    OK(store_versions(c->store, NULL, &versions, &count));
    assert_int_equal(count, 4);
    static const struct {
        const char *name;
        unsigned number;
    } wanted[] = {{"a", 1}, {"a", 2}, {"b", 1}, {"b", 2}};
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(versions[i].key_name, wanted[i].name);
        assert_int_equal(versions[i].version, wanted[i].number);
    }
    store_versions_free(versions, count);
}

/* ---- budgets ---- */

static void messages_are_given_out_up_to_the_limit(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "k", 100);
    uint32_t dek_id = conformance_primary(c, "k").dek_id;
    uint64_t granted, reserved, limit;
    OK(store_messages_reserve(c->store, dek_id, 60, &granted, &reserved, &limit));
    assert_true(granted == 60 && reserved == 60 && limit == 100);
    OK(store_messages_reserve(c->store, dek_id, 0, &granted, &reserved, &limit));
    assert_true(granted == 0 && reserved == 60 && limit == 100);
    OK(store_messages_reserve(c->store, dek_id, UINT64_MAX, &granted, &reserved, &limit));
    assert_true(granted == 40 && reserved == 100 && limit == 100);
    OK(store_messages_reserve(c->store, dek_id, 1, &granted, &reserved, &limit));
    assert_true(granted == 0 && reserved == 100 && limit == 100);
    assert_true(conformance_primary(c, "k").messages_reserved == 100);
    /* The next version begins at zero. */
    conformance_rotate(c, "k");
    assert_true(conformance_primary(c, "k").messages_reserved == 0);
}

static void the_whole_budget_of_a_dek_can_be_given_out(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "k", UINT64_C(1) << 32);
    uint32_t dek_id = conformance_primary(c, "k").dek_id;
    uint64_t granted, reserved, limit;
    OK(store_messages_reserve(c->store, dek_id, (UINT64_C(1) << 32) - 1, &granted, &reserved, &limit));
    assert_true(granted == UINT32_MAX);
    OK(store_messages_reserve(c->store, dek_id, 5, &granted, &reserved, &limit));
    assert_true(granted == 1 && reserved == UINT64_C(1) << 32);
}

static void no_messages_for_versions_that_must_not_encrypt(void **state)
{
    struct conformance *c = *state;
    uint64_t granted = 7, reserved, limit;
    EXPECT(store_messages_reserve(c->store, 4711, 1, &granted, &reserved, &limit), ENVELOPE_E_VERSION_UNKNOWN);
    assert_true(granted == 0);
    conformance_create(c, "k", 100);
    uint32_t first = conformance_primary(c, "k").dek_id;
    conformance_rotate(c, "k");
    OK(store_messages_reserve(c->store, first, 1, &granted, &reserved, &limit));
    assert_true(granted == 1); /* deactivated: a key reference may still name it */
    OK(store_version_set_state(c->store, first, STORE_VERSION_DEACTIVATED, STORE_VERSION_SUSPENDED, 1,
                               &conformance_actor));
    EXPECT(store_messages_reserve(c->store, first, 1, &granted, &reserved, &limit), ENVELOPE_E_VERSION_STATE);
    assert_true(granted == 0);
    OK(store_key_set_state(c->store, "k", STORE_KEY_ENABLED, STORE_KEY_SUSPENDED, 1, &conformance_actor));
    uint32_t second = conformance_primary(c, "k").dek_id;
    EXPECT(store_messages_reserve(c->store, second, 1, &granted, &reserved, &limit), ENVELOPE_E_KEY_STATE);
    OK(store_key_set_state(c->store, "k", STORE_KEY_SUSPENDED, STORE_KEY_ENABLED, 1, &conformance_actor));
    OK(store_messages_reserve(c->store, second, 1, &granted, &reserved, &limit));
    assert_true(granted == 1);
}

int conformance_keys_group(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, conformance_setup, conformance_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_new_key_has_one_active_version),
        TEST(a_second_key_of_the_same_name_is_refused),
        TEST(what_a_version_needs_is_checked_before_anything_is_written),
        TEST(any_printable_unicode_name_works),
        TEST(a_name_that_is_none_is_refused_everywhere),
        TEST(what_is_not_there_is_called_unknown),
        TEST(old_version_is_kept_deactivated_after_rotation),
        TEST(a_rotation_that_expected_another_primary_changes_nothing),
        TEST(two_hundred_rotations_leave_two_hundred_and_one_versions),
        TEST(all_versions_are_listed_by_key_and_number),
        TEST(messages_are_given_out_up_to_the_limit),
        TEST(the_whole_budget_of_a_dek_can_be_given_out),
        TEST(no_messages_for_versions_that_must_not_encrypt),
    };
    return cmocka_run_group_tests_name("store: keys and versions", tests, NULL, NULL);
}
