/* Many moves to another KEK in one call: one transaction, each row by itself; and pages, in which they are read. */
#include "store_conformance.h"

#include "base/error.h"

enum { VERSIONS = 6, MANY = 40 };
#define NEW_KEK "pkcs11:token=conformance;object=new"

static const uint8_t moved_blob[] = "another blob of the same DEK";

static uint32_t second_kek(const struct conformance *c)
{
    uint32_t kek = 0;
    OK(store_kek_ensure(c->store, "pkcs11:token=other;object=second", CONFORMANCE_NOW, &kek));
    return kek;
}

static void make_versions(const struct conformance *c, const char *name, int count)
{
    conformance_create(c, name, 10);
    for (int i = 1; i < count; i++)
        conformance_rotate(c, name);
}

/* All versions to another KEK; their blobs stay rows'. */
static void plan(const struct store_version *rows, size_t count, uint32_t kek, struct store_version_move *moves)
{
    for (size_t i = 0; i < count; i++)
        moves[i] = (struct store_version_move){.dek_id = rows[i].dek_id,
                                               .from_kek_id = rows[i].kek_id,
                                               .from_blob = rows[i].blob,
                                               .from_length = rows[i].blob_length,
                                               .kek_id = kek,
                                               .blob = moved_blob,
                                               .blob_length = sizeof moved_blob,
                                               .now = CONFORMANCE_NOW + 1,
                                               .actor = conformance_actor,
                                               .status = ENVELOPE_E_INTERNAL};
}

static size_t count_under(const struct conformance *c, uint32_t kek)
{
    struct store_version *rows;
    size_t count, under = 0;
    OK(store_versions(c->store, NULL, &rows, &count));
    for (size_t i = 0; i < count; i++)
        under += rows[i].kek_id == kek;
    store_versions_free(rows, count);
    return under;
}

static void one_that_cannot_be_moved_leaves_the_others_to_be(void **state)
{
    struct conformance *c = *state;
    struct store_version *rows;
    struct store_version_move moves[VERSIONS + 1];
    size_t count;
    make_versions(c, "k", VERSIONS);
    uint32_t kek = second_kek(c);
    OK(store_versions(c->store, "k", &rows, &count));
    assert_int_equal(count, VERSIONS);
    plan(rows, count, kek, moves);
    moves[VERSIONS] = moves[0];
    moves[VERSIONS].dek_id = rows[VERSIONS - 1].dek_id + 100;
    moves[1].from_blob = moved_blob; /* not what it is */
    moves[2].from_kek_id = kek;
    moves[4].kek_id = kek + 100;
    OK(store_version_set_state(c->store, rows[3].dek_id, STORE_VERSION_DEACTIVATED, STORE_VERSION_PENDING_DESTRUCTION,
                               1, &conformance_actor));
    OK(store_version_set_state(c->store, rows[3].dek_id, STORE_VERSION_PENDING_DESTRUCTION, STORE_VERSION_DESTROYED, 1,
                               &conformance_actor));
    uint64_t counter = conformance_counter(c);
    size_t history = conformance_history_rows(c);
    OK(store_versions_rewrap(c->store, moves, VERSIONS + 1));
    assert_int_equal(moves[0].status, ENVELOPE_OK);
    assert_int_equal(moves[1].status, ENVELOPE_E_STORE_CONFLICT);
    assert_int_equal(moves[2].status, ENVELOPE_E_STORE_CONFLICT);
    assert_int_equal(moves[3].status, ENVELOPE_E_VERSION_STATE);
    assert_int_equal(moves[4].status, ENVELOPE_E_KEK_UNKNOWN);
    assert_int_equal(moves[5].status, ENVELOPE_OK);
    assert_int_equal(moves[VERSIONS].status, ENVELOPE_E_VERSION_UNKNOWN);
    assert_true(conformance_counter(c) > counter);
    assert_int_equal(conformance_history_rows(c), history + 2);
    assert_int_equal(count_under(c, kek), 2);
    assert_string_equal(moves[0].actor.who, conformance_actor.who);
    store_versions_free(rows, count);
}

static void where_none_can_be_moved_nothing_changes(void **state)
{
    struct conformance *c = *state;
    struct store_version *rows;
    struct store_version_move moves[VERSIONS];
    size_t count;
    make_versions(c, "k", VERSIONS);
    uint32_t kek = second_kek(c);
    OK(store_versions(c->store, "k", &rows, &count));
    uint64_t counter = conformance_counter(c);
    size_t history = conformance_history_rows(c);
    plan(rows, count, kek, moves);
    for (size_t i = 0; i < count; i++)
        moves[i].from_length--;
    OK(store_versions_rewrap(c->store, moves, count));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(moves[i].status, ENVELOPE_E_STORE_CONFLICT);
    /* One that nobody should have asked for is an error of the call, and moves none. */
    plan(rows, count, kek, moves);
    moves[VERSIONS - 1].blob_length = 0;
    EXPECT(store_versions_rewrap(c->store, moves, count), ENVELOPE_E_ARGUMENT);
    EXPECT(store_versions_rewrap(c->store, moves, STORE_MOVES_MAX + 1), ENVELOPE_E_ARGUMENT);
    OK(store_versions_rewrap(c->store, moves, 0));
    assert_true(conformance_counter(c) == counter);
    assert_int_equal(conformance_history_rows(c), history);
    assert_int_equal(count_under(c, kek), 0);
    store_versions_free(rows, count);
}

/* As for a new version: the KEK's row is written with the first thing that is under it, and never before. */
static void a_kek_has_its_row_once_something_moved_to_it(void **state)
{
    struct conformance *c = *state;
    struct store_version *rows;
    struct store_version_move moves[2];
    struct store_ids ids;
    struct store_kek row;
    size_t count;
    make_versions(c, "k", 2);
    OK(store_versions(c->store, "k", &rows, &count));
    OK(store_next_ids(c->store, NEW_KEK, &ids));
    assert_false(ids.kek_is_there);
    uint32_t kek = ids.kek_id;
    plan(rows, count, kek, moves);
    for (size_t i = 0; i < 2; i++) {
        moves[i].kek_uri = NEW_KEK;
        moves[i].from_length--;
    }
    OK(store_versions_rewrap(c->store, moves, 2));
    const struct store_key_move late = {.name = "k",
                                        .from_kek_id = c->kek + 1,
                                        .kek_id = kek,
                                        .kek_uri = NEW_KEK,
                                        .now = CONFORMANCE_NOW,
                                        .actor = conformance_actor};
    EXPECT(store_key_set_kek(c->store, &late), ENVELOPE_E_STORE_CONFLICT);
    OK(store_next_ids(c->store, NEW_KEK, &ids));
    assert_false(ids.kek_is_there);
    assert_int_equal(ids.kek_id, kek);

    moves[0].from_length++;
    OK(store_versions_rewrap(c->store, moves, 2));
    assert_int_equal(moves[0].status, ENVELOPE_OK);
    assert_int_equal(moves[1].status, ENVELOPE_E_STORE_CONFLICT);
    OK(store_kek_find(c->store, kek, &row));
    assert_string_equal(row.uri, NEW_KEK);
    store_kek_clear(&row);
    /* It is there now, and is not another one's. */
    moves[1].from_length++;
    moves[1].kek_uri = "pkcs11:token=conformance;object=another";
    EXPECT(store_version_rewrap(c->store, &moves[1]), ENVELOPE_E_STORE_CONFLICT);
    moves[1].kek_uri = NEW_KEK;
    OK(store_version_rewrap(c->store, &moves[1]));
    moves[1].kek_uri = "pkcs11:token=a?pin-value=1234";
    EXPECT(store_version_rewrap(c->store, &moves[1]), ENVELOPE_E_KEK_URI);
    store_versions_free(rows, count);
}

static void keys_move_at_once_and_each_by_itself(void **state)
{
    struct conformance *c = *state;
    static const char *const names[] = {"a", "b", "no such key", "c"};
    struct store_key_move moves[4];
    struct store_key key;
    for (size_t i = 0; i < 4; i++)
        if (i != 2)
            conformance_create(c, names[i], 10);
    for (size_t i = 0; i < 4; i++)
        moves[i] = (struct store_key_move){.name = names[i],
                                           .from_kek_id = c->kek,
                                           .kek_id = c->kek + 1,
                                           .kek_uri = NEW_KEK,
                                           .now = CONFORMANCE_NOW,
                                           .actor = conformance_actor};
    moves[1].from_kek_id = c->kek + 7;
    uint64_t counter = conformance_counter(c);
    size_t history = conformance_history_rows(c);
    OK(store_keys_set_kek(c->store, moves, 4));
    assert_int_equal(moves[0].status, ENVELOPE_OK);
    assert_int_equal(moves[1].status, ENVELOPE_E_STORE_CONFLICT);
    assert_int_equal(moves[2].status, ENVELOPE_E_KEY_UNKNOWN);
    assert_int_equal(moves[3].status, ENVELOPE_OK);
    assert_true(conformance_counter(c) > counter);
    assert_int_equal(conformance_history_rows(c), history + 2);
    for (size_t i = 0; i < 4; i++) {
        if (i == 2)
            continue;
        OK(store_key_find(c->store, names[i], &key));
        assert_int_equal(key.kek_id, moves[i].status ? c->kek : c->kek + 1);
    }
    moves[3].name = "";
    EXPECT(store_keys_set_kek(c->store, moves, 4), ENVELOPE_E_KEY_NAME);
}

/* Each from one list; what another has moved meanwhile is a conflict, and what is moved is moved once. */
static int move_all(int index, const struct conformance *c, void *argument)
{
    struct store_version_move moves[MANY];
    struct store_version *rows;
    uint8_t blob[32] = {(uint8_t)(index + 1)};
    size_t count;
    uint32_t *kek = argument;
    if (store_versions(c->store, NULL, &rows, &count) || count != MANY)
        return 1;
    plan(rows, count, *kek, moves);
    for (size_t i = 0; i < count; i++) {
        moves[i].blob = blob;
        moves[i].blob_length = sizeof blob;
    }
    if (store_versions_rewrap(c->store, moves, count))
        return 2;
    for (size_t i = 0; i < count; i++)
        if (moves[i].status && moves[i].status != ENVELOPE_E_STORE_CONFLICT)
            return 3;
    store_versions_free(rows, count);
    return 0;
}

static void of_processes_that_move_all_each_version_is_moved_by_one(void **state)
{
    struct conformance *c = *state;
    uint32_t kek = second_kek(c);
    /* Whoever reads after another has moved them finds them under the new KEK, and may wrap them anew. */
    make_versions(c, "k", MANY);
    size_t history = conformance_history_rows(c);
    conformance_processes(CONFORMANCE_PROCESSES, move_all, c, &kek);
    assert_int_equal(count_under(c, kek), MANY);
    size_t rows = conformance_history_rows(c) - history;
    assert_true(rows >= MANY && rows % MANY == 0);
}

/* ---- pages ---- */

static void pages_together_are_all_versions_in_their_order(void **state)
{
    struct conformance *c = *state;
    struct store_version *all, *page;
    size_t count, got, seen = 0;
    make_versions(c, "b", 3);
    make_versions(c, "a", 4);
    make_versions(c, "c", 1);
    make_versions(c, "ä", 2);
    OK(store_versions(c->store, NULL, &all, &count));
    assert_int_equal(count, 10);
    for (size_t limit = 1; limit < 12; limit++) {
        const char *first = "a";
        uint32_t after = 0;
        seen = 0;
        do {
            OK(store_versions_page(c->store, first, after, "ä", limit, &page, &got));
            assert_true(got <= limit);
            for (size_t i = 0; i < got; i++, seen++) {
                assert_int_equal(page[i].dek_id, all[seen].dek_id);
                assert_memory_equal(page[i].blob, all[seen].blob, all[seen].blob_length);
            }
            store_versions_free(page, got);
            first = seen ? all[seen - 1].key_name : first;
            after = seen ? all[seen - 1].version : 0;
        } while (got == limit);
        assert_int_equal(seen, count);
    }
    store_versions_free(all, count);
}

static void a_page_ends_with_the_last_key_named(void **state)
{
    struct conformance *c = *state;
    struct store_version *page;
    size_t got;
    make_versions(c, "a", 2);
    make_versions(c, "b", 2);
    make_versions(c, "c", 2);
    OK(store_versions_page(c->store, "a", 1, "b", 100, &page, &got));
    assert_int_equal(got, 3);
    assert_string_equal(page[0].key_name, "a");
    assert_int_equal(page[0].version, 2);
    assert_string_equal(page[2].key_name, "b");
    store_versions_free(page, got);
    OK(store_versions_page(c->store, "aa", 0, "bb", 100, &page, &got)); /* neither is there */
    assert_int_equal(got, 2);
    assert_string_equal(page[0].key_name, "b");
    store_versions_free(page, got);
    OK(store_versions_page(c->store, "c", 2, "c", 100, &page, &got));
    assert_int_equal(got, 0);
    assert_null(page);
    EXPECT(store_versions_page(c->store, "a", 0, "b", 0, &page, &got), ENVELOPE_E_ARGUMENT);
    EXPECT(store_versions_page(c->store, "", 0, "b", 1, &page, &got), ENVELOPE_E_KEY_NAME);
}

int conformance_moves_group(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, conformance_setup, conformance_teardown)
    const struct CMUnitTest tests[] = {
        TEST(one_that_cannot_be_moved_leaves_the_others_to_be),
        TEST(where_none_can_be_moved_nothing_changes),
        TEST(a_kek_has_its_row_once_something_moved_to_it),
        TEST(keys_move_at_once_and_each_by_itself),
        TEST(of_processes_that_move_all_each_version_is_moved_by_one),
        TEST(pages_together_are_all_versions_in_their_order),
        TEST(a_page_ends_with_the_last_key_named),
    };
    return cmocka_run_group_tests_name("store: many moves", tests, NULL, NULL);
}
