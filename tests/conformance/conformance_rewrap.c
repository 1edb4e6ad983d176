/* Rewrapping: a version changes its KEK and blob only if they are what the caller read, as one transaction. */
#include "store_conformance.h"

#include "base/error.h"

static const uint8_t moved_blob[] = "another blob of the same DEK";

static uint32_t second_kek(const struct conformance *c)
{
    uint32_t kek = 0;
    OK(store_kek_ensure(c->store, "pkcs11:token=other;object=second", CONFORMANCE_NOW, &kek));
    return kek;
}

/* From what is there now; *was holds it and is to be cleared. */
static struct store_version_move plan(const struct conformance *c, uint32_t dek_id, uint32_t kek,
                                      struct store_version *was)
{
    OK(store_version_find(c->store, dek_id, was));
    return (struct store_version_move){.dek_id = dek_id,
                                       .from_kek_id = was->kek_id,
                                       .from_blob = was->blob,
                                       .from_length = was->blob_length,
                                       .kek_id = kek,
                                       .blob = moved_blob,
                                       .blob_length = sizeof moved_blob,
                                       .now = CONFORMANCE_NOW + 1,
                                       .actor = conformance_actor};
}

static envelope_status set_kek(const struct conformance *c, const char *name, uint32_t from, uint32_t to)
{
    const struct store_key_move move = {
        .name = name, .from_kek_id = from, .kek_id = to, .now = CONFORMANCE_NOW, .actor = conformance_actor};
    return store_key_set_kek(c->store, &move);
}

static void check_blob(const struct conformance *c, uint32_t dek_id, uint32_t kek, const void *blob, size_t length)
{
    struct store_version version;
    OK(store_version_find(c->store, dek_id, &version));
    assert_int_equal(version.kek_id, kek);
    assert_int_equal(version.blob_length, length);
    assert_memory_equal(version.blob, blob, length);
    store_version_clear(&version);
}

static void a_version_moves_to_another_kek_and_nothing_else_changes(void **state)
{
    struct conformance *c = *state;
    struct store_version was, is;
    conformance_create(c, "k", 10);
    uint32_t old = conformance_primary(c, "k").dek_id, kek = second_kek(c);
    uint32_t primary = conformance_rotate(c, "k");
    struct store_version_move move = plan(c, old, kek, &was);
    uint64_t counter = conformance_counter(c);
    size_t rows = conformance_history_rows(c);
    OK(store_version_rewrap(c->store, &move));
    assert_true(conformance_counter(c) == counter + 1);
    assert_int_equal(conformance_history_rows(c), rows + 1);
    check_blob(c, old, kek, moved_blob, sizeof moved_blob);
    OK(store_version_find(c->store, old, &is));
    assert_int_equal(is.version, was.version);
    assert_int_equal(is.state, was.state);
    assert_true(is.created == was.created && is.deactivated == was.deactivated);
    assert_int_equal(conformance_primary(c, "k").dek_id, primary);
    assert_int_equal(conformance_primary(c, "k").kek_id, c->kek);
    store_version_clear(&is);
    store_version_clear(&was);
    OK(store_check(c->store));

    struct store_history *history;
    size_t count;
    OK(store_history_read(c->store, "k", 1, &history, &count));
    assert_int_equal(count, 1);
    assert_string_equal(history[0].what, "rewrap");
    assert_int_equal(history[0].version, 1);
    assert_string_equal(history[0].result, "ok");
    store_history_free(history, count);
}

static void the_same_kek_may_wrap_anew(void **state)
{
    struct conformance *c = *state;
    struct store_version was;
    conformance_create(c, "k", 10);
    uint32_t dek_id = conformance_primary(c, "k").dek_id;
    struct store_version_move move = plan(c, dek_id, c->kek, &was);
    OK(store_version_rewrap(c->store, &move));
    check_blob(c, dek_id, c->kek, moved_blob, sizeof moved_blob);
    store_version_clear(&was);
}

static void a_version_that_is_not_as_it_was_read_is_a_conflict(void **state)
{
    struct conformance *c = *state;
    struct store_version was;
    conformance_create(c, "k", 10);
    uint32_t dek_id = conformance_primary(c, "k").dek_id, kek = second_kek(c);
    struct store_version_move move = plan(c, dek_id, kek, &was);
    uint64_t counter = conformance_counter(c);
    size_t rows = conformance_history_rows(c);

    struct store_version_move other = move;
    other.from_kek_id = kek;
    EXPECT(store_version_rewrap(c->store, &other), ENVELOPE_E_STORE_CONFLICT);
    other = move;
    other.from_length--;
    EXPECT(store_version_rewrap(c->store, &other), ENVELOPE_E_STORE_CONFLICT);
    other = move;
    other.from_blob = moved_blob;
    other.from_length = was.blob_length;
    EXPECT(store_version_rewrap(c->store, &other), ENVELOPE_E_STORE_CONFLICT);
    assert_true(conformance_counter(c) == counter);
    assert_int_equal(conformance_history_rows(c), rows);
    check_blob(c, dek_id, c->kek, was.blob, was.blob_length);

    /* Twice the same: the second comes too late. */
    OK(store_version_rewrap(c->store, &move));
    EXPECT(store_version_rewrap(c->store, &move), ENVELOPE_E_STORE_CONFLICT);
    store_version_clear(&was);
}

static void every_state_but_destroyed_moves(void **state)
{
    struct conformance *c = *state;
    struct store_version was;
    conformance_create(c, "k", 10);
    uint32_t dek_id = conformance_primary(c, "k").dek_id, kek = second_kek(c);
    conformance_rotate(c, "k");
    OK(store_version_set_state(c->store, dek_id, STORE_VERSION_DEACTIVATED, STORE_VERSION_SUSPENDED, 1,
                               &conformance_actor));
    struct store_version_move move = plan(c, dek_id, kek, &was);
    OK(store_version_rewrap(c->store, &move));
    store_version_clear(&was);
    OK(store_version_set_state(c->store, dek_id, STORE_VERSION_SUSPENDED, STORE_VERSION_PENDING_DESTRUCTION, 1,
                               &conformance_actor));
    move = plan(c, dek_id, c->kek, &was);
    OK(store_version_rewrap(c->store, &move));
    store_version_clear(&was);
    move = plan(c, dek_id, kek, &was);
    OK(store_version_set_state(c->store, dek_id, STORE_VERSION_PENDING_DESTRUCTION, STORE_VERSION_DESTROYED, 1,
                               &conformance_actor));
    EXPECT(store_version_rewrap(c->store, &move), ENVELOPE_E_VERSION_STATE);
    store_version_clear(&was);
    OK(store_version_find(c->store, dek_id, &was));
    assert_null(was.blob);
    store_version_clear(&was);
}

static void what_is_not_there_is_named(void **state)
{
    struct conformance *c = *state;
    struct store_version was;
    conformance_create(c, "k", 10);
    uint32_t dek_id = conformance_primary(c, "k").dek_id;
    struct store_version_move move = plan(c, dek_id, c->kek + 100, &was);
    EXPECT(store_version_rewrap(c->store, &move), ENVELOPE_E_KEK_UNKNOWN);
    move.kek_id = c->kek;
    move.dek_id = dek_id + 100;
    EXPECT(store_version_rewrap(c->store, &move), ENVELOPE_E_VERSION_UNKNOWN);
    move.dek_id = dek_id;
    move.blob_length = 0;
    EXPECT(store_version_rewrap(c->store, &move), ENVELOPE_E_ARGUMENT);
    move.blob_length = 65536;
    EXPECT(store_version_rewrap(c->store, &move), ENVELOPE_E_ARGUMENT);
    EXPECT(set_kek(c, "no such key", c->kek, c->kek), ENVELOPE_E_KEY_UNKNOWN);
    EXPECT(set_kek(c, "k", c->kek, c->kek + 100), ENVELOPE_E_KEK_UNKNOWN);
    EXPECT(set_kek(c, "k", 0, c->kek), ENVELOPE_E_ARGUMENT);
    store_version_clear(&was);
}

static void a_key_moved_to_another_kek_rotates_under_that_one_only(void **state)
{
    struct conformance *c = *state;
    struct store_key key;
    conformance_create(c, "k", 10);
    uint32_t kek = second_kek(c);
    struct store_new_version late = conformance_version(c); /* wrapped under the old KEK before it moved */
    uint64_t counter = conformance_counter(c);
    size_t rows = conformance_history_rows(c);
    OK(set_kek(c, "k", c->kek, kek));
    assert_true(conformance_counter(c) == counter + 1);
    assert_int_equal(conformance_history_rows(c), rows + 1);
    OK(store_key_find(c->store, "k", &key));
    assert_int_equal(key.kek_id, kek);
    EXPECT(set_kek(c, "k", c->kek, kek), ENVELOPE_E_STORE_CONFLICT);
    EXPECT(store_key_rotate(c->store, "k", 1, &late, &conformance_actor), ENVELOPE_E_STORE_CONFLICT);
    late.kek_id = kek;
    OK(store_key_rotate(c->store, "k", 1, &late, &conformance_actor));
    check_blob(c, late.dek_id, kek, late.blob, late.blob_length);
}

struct race {
    uint32_t dek_id, kek;
    uint8_t from[64];
    size_t from_length;
};

static int move_it(int index, const struct conformance *c, void *argument)
{
    const struct race *race = argument;
    uint8_t blob[32] = {(uint8_t)index};
    struct store_version_move move = {.dek_id = race->dek_id,
                                      .from_kek_id = c->kek,
                                      .from_blob = race->from,
                                      .from_length = race->from_length,
                                      .kek_id = race->kek,
                                      .blob = blob,
                                      .blob_length = sizeof blob,
                                      .now = CONFORMANCE_NOW,
                                      .actor = conformance_actor};
    envelope_status status = store_version_rewrap(c->store, &move);
    return status == ENVELOPE_OK || status == ENVELOPE_E_STORE_CONFLICT ? 0 : 1;
}

static void of_processes_that_move_one_version_one_does(void **state)
{
    struct conformance *c = *state;
    struct store_version was;
    conformance_create(c, "k", 10);
    struct race race = {.dek_id = conformance_primary(c, "k").dek_id, .kek = second_kek(c)};
    OK(store_version_find(c->store, race.dek_id, &was));
    assert_true(was.blob_length <= sizeof race.from);
    memcpy(race.from, was.blob, was.blob_length);
    race.from_length = was.blob_length;
    store_version_clear(&was);
    size_t rows = conformance_history_rows(c);
    conformance_processes(CONFORMANCE_PROCESSES, move_it, c, &race);
    assert_int_equal(conformance_history_rows(c), rows + 1);
}

int conformance_rewrap_group(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, conformance_setup, conformance_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_version_moves_to_another_kek_and_nothing_else_changes),
        TEST(the_same_kek_may_wrap_anew),
        TEST(a_version_that_is_not_as_it_was_read_is_a_conflict),
        TEST(every_state_but_destroyed_moves),
        TEST(what_is_not_there_is_named),
        TEST(a_key_moved_to_another_kek_rotates_under_that_one_only),
        TEST(of_processes_that_move_one_version_one_does),
    };
    return cmocka_run_group_tests_name("store: rewrap", tests, NULL, NULL);
}
