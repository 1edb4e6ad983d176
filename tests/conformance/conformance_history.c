/* History and the change counter. */
#include "store_conformance.h"

#include "base/error.h"

static void every_change_of_a_key_is_in_its_history_newest_first(void **state)
{
    struct conformance *c = *state;
    const struct store_actor actor = {.who = "uid 1000 pid 4711 openssl", .detail = "because"};
    conformance_create(c, "other", 10);
    struct store_new_version version = conformance_version(c);
    OK(store_key_create(c->store, "k", 10, &version, &actor));
    uint32_t first = version.dek_id;
    version = conformance_version(c);
    version.now = CONFORMANCE_NOW + 1;
    OK(store_key_rotate(c->store, "k", 1, &version, &actor));
    OK(store_key_set_state(c->store, "k", STORE_KEY_ENABLED, STORE_KEY_SUSPENDED, CONFORMANCE_NOW + 2, &actor));
    OK(store_key_set_state(c->store, "k", STORE_KEY_SUSPENDED, STORE_KEY_ENABLED, CONFORMANCE_NOW + 3, &actor));
    static const enum store_version_state path[] = {
        STORE_VERSION_DEACTIVATED, STORE_VERSION_SUSPENDED,           STORE_VERSION_DEACTIVATED,
        STORE_VERSION_SUSPENDED,   STORE_VERSION_PENDING_DESTRUCTION, STORE_VERSION_DEACTIVATED,
        STORE_VERSION_SUSPENDED,   STORE_VERSION_PENDING_DESTRUCTION, STORE_VERSION_DESTROYED};
    enum { STEPS = sizeof path / sizeof path[0] - 1 };
    for (size_t i = 0; i < STEPS; i++)
        OK(store_version_set_state(c->store, first, path[i], path[i + 1], CONFORMANCE_NOW + 4 + (int64_t)i, &actor));

    static const struct {
        const char *what;
        unsigned version;
    } wanted[] = {
        {"create", 1},
        {"rotate", 2},
        {"suspend", 0},
        {"resume", 0},
        {"suspend", 1},
        {"resume", 1},
        {"suspend", 1},
        {"schedule-destruction", 1},
        {"cancel-destruction", 1},
        {"suspend", 1},
        {"schedule-destruction", 1},
        {"destroy", 1},
    };
    enum { WANTED = sizeof wanted / sizeof wanted[0] };
    struct store_history *rows;
    size_t count;
    OK(store_history_read(c->store, "k", 0, &rows, &count));
    assert_int_equal(count, WANTED);
    for (size_t i = 0; i < count; i++) {
        const struct store_history *row = &rows[count - 1 - i];
        assert_string_equal(row->what, wanted[i].what);
        assert_int_equal(row->version, wanted[i].version);
        assert_string_equal(row->key, "k");
        assert_string_equal(row->who, actor.who);
        assert_string_equal(row->detail, "because");
        assert_string_equal(row->result, "ok");
        assert_true(row->when == CONFORMANCE_NOW + (int64_t)i);
        if (i > 0)
            assert_true(row->id > row[1].id);
    }
    store_history_free(rows, count);

    OK(store_history_read(c->store, "k", 2, &rows, &count));
    assert_int_equal(count, 2);
    assert_string_equal(rows[0].what, "destroy");
    store_history_free(rows, count);
    OK(store_history_read(c->store, NULL, 0, &rows, &count));
    assert_int_equal(count, WANTED + 1);
    store_history_free(rows, count);
    OK(store_history_read(c->store, "nobody", 0, &rows, &count));
    assert_int_equal(count, 0);
    store_history_free(rows, count);
}

static void a_refusal_can_be_noted_without_a_key(void **state)
{
    struct conformance *c = *state;
    uint64_t counter = conformance_counter(c);
    OK(store_history_add(c->store, 5, "restore", NULL, 0, "ok", &conformance_actor));
    OK(store_history_add(c->store, 6, "rotate", "a key that never was", 9, "KEY_UNKNOWN", &conformance_actor));
    struct store_history *rows;
    size_t count;
    OK(store_history_read(c->store, NULL, 0, &rows, &count));
    assert_int_equal(count, 2);
    assert_null(rows[1].key);
    assert_int_equal(rows[1].version, 0);
    assert_null(rows[1].detail);
    assert_string_equal(rows[0].key, "a key that never was");
    assert_int_equal(rows[0].version, 9);
    assert_string_equal(rows[0].result, "KEY_UNKNOWN");
    store_history_free(rows, count);
    assert_true(conformance_counter(c) == counter);
    EXPECT(store_history_add(c->store, 5, "", NULL, 0, "ok", &conformance_actor), ENVELOPE_E_ARGUMENT);
    EXPECT(store_history_add(c->store, 5, "x", NULL, 0, NULL, &conformance_actor), ENVELOPE_E_ARGUMENT);
}

static void what_a_process_calls_itself_cannot_forge_history(void **state)
{
    struct conformance *c = *state;
    char *long_detail = malloc(100001);
    assert_non_null(long_detail);
    memset(long_detail, 'x', 100000);
    long_detail[100000] = '\0';
    const struct store_actor actor = {.who = "evil\nuid 0 \x1b[2J \xff", .detail = long_detail};
    OK(store_history_add(c->store, 5, "x", NULL, 0, "ok", &actor));
    struct store_history *rows;
    size_t count;
    OK(store_history_read(c->store, NULL, 1, &rows, &count));
    assert_int_equal(count, 1);
    assert_null(strpbrk(rows[0].who, "\n\x1b"));
    assert_non_null(strstr(rows[0].who, "evil"));
    assert_true(strlen(rows[0].detail) < 2000);
    store_history_free(rows, count);
    free(long_detail);
}

static void the_change_counter_rises_with_keys_and_only_with_them(void **state)
{
    struct conformance *c = *state;
    uint64_t at = conformance_counter(c);
    struct store_new_version version = conformance_version(c);
    uint32_t kek = 0;
    OK(store_kek_ensure(c->store, "pkcs11:object=another", 1, &kek));
    assert_true(conformance_counter(c) == at);

    OK(store_key_create(c->store, "k", 100, &version, &conformance_actor));
    assert_true(conformance_counter(c) > at);
    at = conformance_counter(c);
    uint64_t granted, reserved, limit;
    OK(store_messages_reserve(c->store, version.dek_id, 10, &granted, &reserved, &limit));
    OK(store_history_add(c->store, 1, "x", "k", 0, "ok", &conformance_actor));
    assert_true(conformance_counter(c) == at);
    conformance_rotate(c, "k");
    assert_true(conformance_counter(c) > at);

    /* Another handle sees the same. */
    store *second;
    OK(store_open(c->url, CONFORMANCE_DEADLINE, &second));
    uint64_t seen = 0;
    OK(store_change_counter(second, &seen));
    assert_true(seen == conformance_counter(c));
    conformance_rotate(c, "k");
    OK(store_change_counter(second, &seen));
    assert_true(seen == conformance_counter(c));
    store_close(second);
}

int conformance_history_group(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, conformance_setup, conformance_teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_change_of_a_key_is_in_its_history_newest_first),
        TEST(a_refusal_can_be_noted_without_a_key),
        TEST(what_a_process_calls_itself_cannot_forge_history),
        TEST(the_change_counter_rises_with_keys_and_only_with_them),
    };
    return cmocka_run_group_tests_name("store: history and change counter", tests, NULL, NULL);
}
