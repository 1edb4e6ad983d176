/* Ids that are next: told without being kept, taken with the version, each once. */
#include "store_conformance.h"

#include "base/error.h"

#define NEW_KEK "pkcs11:token=conformance;object=new"

static const uint8_t blob[] = "a wrapped key";

static struct store_new_version next_version(const struct conformance *c, const char *kek_uri)
{
    struct store_ids ids;
    OK(store_next_ids(c->store, kek_uri, &ids));
    return (struct store_new_version){.dek_id = ids.dek_id,
                                      .dek_id_is_next = true,
                                      .algorithm = STORE_AES_256_GCM,
                                      .kek_id = kek_uri ? ids.kek_id : c->kek,
                                      .kek_uri = kek_uri,
                                      .blob = blob,
                                      .blob_length = sizeof blob,
                                      .now = CONFORMANCE_NOW};
}

static void to_be_told_what_is_next_changes_nothing(void **state)
{
    struct conformance *c = *state;
    struct store_ids ids, again;
    uint64_t counter = conformance_counter(c);
    OK(store_next_ids(c->store, NEW_KEK, &ids));
    OK(store_next_ids(c->store, NEW_KEK, &again));
    assert_true(ids.dek_id == again.dek_id && ids.kek_id == again.kek_id);
    assert_true(ids.dek_id >= 1 && ids.kek_id > c->kek && !ids.kek_is_there);
    struct store_kek kek;
    EXPECT(store_kek_find(c->store, ids.kek_id, &kek), ENVELOPE_E_KEK_UNKNOWN);
    assert_true(conformance_counter(c) == counter);
    uint32_t kek_id = 0;
    OK(store_kek_ensure(c->store, NEW_KEK, CONFORMANCE_NOW, &kek_id));
    OK(store_next_ids(c->store, NEW_KEK, &again));
    assert_true(again.kek_is_there && again.kek_id == kek_id && kek_id == ids.kek_id);
    OK(store_next_ids(c->store, NULL, &again));
    assert_true(again.kek_id == 0 && !again.kek_is_there);
    EXPECT(store_next_ids(c->store, "pkcs11:token=a?pin-value=1234", &again), ENVELOPE_E_KEK_URI);
}

static void a_key_takes_its_ids_and_its_kek_with_it(void **state)
{
    struct conformance *c = *state;
    struct store_new_version first = next_version(c, NEW_KEK);
    OK(store_key_create(c->store, "k", 10, &first, &conformance_actor));
    struct store_version made = conformance_primary(c, "k");
    assert_true(made.dek_id == first.dek_id && made.kek_id == first.kek_id);
    struct store_kek kek;
    OK(store_kek_find(c->store, first.kek_id, &kek));
    assert_string_equal(kek.uri, NEW_KEK);
    store_kek_clear(&kek);
    struct store_new_version next = next_version(c, NEW_KEK); /* there now: no second row */
    assert_true(next.kek_id == first.kek_id && next.dek_id == first.dek_id + 1);
    OK(store_key_rotate(c->store, "k", 1, &next, &conformance_actor));
    uint32_t reserved = 0;
    OK(store_dek_id_reserve(c->store, &reserved));
    assert_int_equal(reserved, next.dek_id + 1);
}

static void an_id_that_somebody_took_is_a_conflict_and_leaves_nothing(void **state)
{
    struct conformance *c = *state;
    uint32_t reserved = 0;
    struct store_new_version late = next_version(c, NEW_KEK);
    OK(store_dek_id_reserve(c->store, &reserved));
    assert_int_equal(reserved, late.dek_id);
    uint64_t counter = conformance_counter(c);
    size_t rows = conformance_history_rows(c);
    EXPECT(store_key_create(c->store, "k", 10, &late, &conformance_actor), ENVELOPE_E_STORE_CONFLICT);
    struct store_key key;
    struct store_kek kek;
    EXPECT(store_key_find(c->store, "k", &key), ENVELOPE_E_KEY_UNKNOWN);
    EXPECT(store_kek_find(c->store, late.kek_id, &kek), ENVELOPE_E_KEK_UNKNOWN);
    assert_true(conformance_counter(c) == counter && conformance_history_rows(c) == rows);
    /* What was reserved meanwhile is good for who reserved it. */
    late.dek_id = reserved;
    late.dek_id_is_next = false;
    OK(store_key_create(c->store, "k", 10, &late, &conformance_actor));
    late.dek_id_is_next = true;
    EXPECT(store_key_rotate(c->store, "k", 1, &late, &conformance_actor), ENVELOPE_E_STORE_CONFLICT);
    assert_int_equal(conformance_primary(c, "k").version, 1);
}

static void a_kek_id_that_another_kek_got_is_a_conflict(void **state)
{
    struct conformance *c = *state;
    struct store_new_version late = next_version(c, NEW_KEK);
    uint32_t other = 0;
    OK(store_kek_ensure(c->store, "pkcs11:token=conformance;object=faster", CONFORMANCE_NOW, &other));
    assert_int_equal(other, late.kek_id);
    EXPECT(store_key_create(c->store, "k", 10, &late, &conformance_actor), ENVELOPE_E_STORE_CONFLICT);
    struct store_ids ids;
    OK(store_next_ids(c->store, NEW_KEK, &ids));
    assert_true(ids.kek_id > other && !ids.kek_is_there && ids.dek_id == late.dek_id);
    late = next_version(c, NEW_KEK);
    OK(store_key_create(c->store, "k", 10, &late, &conformance_actor));
}

static void ids_that_were_never_next_are_refused(void **state)
{
    struct conformance *c = *state;
    struct store_new_version version = next_version(c, NULL);
    version.dek_id += 5;
    EXPECT(store_key_create(c->store, "k", 10, &version, &conformance_actor), ENVELOPE_E_STORE_CONFLICT);
    version.dek_id_is_next = false;
    EXPECT(store_key_create(c->store, "k", 10, &version, &conformance_actor), ENVELOPE_E_ARGUMENT);
    version = next_version(c, NEW_KEK);
    version.kek_id += 5;
    EXPECT(store_key_create(c->store, "k", 10, &version, &conformance_actor), ENVELOPE_E_STORE_CONFLICT);
    version.kek_uri = "pkcs11:token=a?pin-value=1234";
    EXPECT(store_key_create(c->store, "k", 10, &version, &conformance_actor), ENVELOPE_E_KEK_URI);
    version = next_version(c, NULL);
    version.kek_id += 5;
    EXPECT(store_key_create(c->store, "k", 10, &version, &conformance_actor), ENVELOPE_E_KEK_UNKNOWN);
}

/* ---- many at once ---- */

enum { TURNS = 25 };

/* Each has a key of its own, under a KEK that is new to the store: whoever comes late asks again. */
static int create_and_rotate(int index, const struct conformance *c, void *argument)
{
    uint32_t(*ids)[TURNS] = argument;
    char name[32];
    snprintf(name, sizeof name, "key %d", index);
    for (uint32_t turn = 0; turn < TURNS;) {
        struct store_ids next;
        if (store_next_ids(c->store, NEW_KEK, &next))
            return 1;
        struct store_new_version version = {.dek_id = next.dek_id,
                                            .dek_id_is_next = true,
                                            .algorithm = STORE_AES_256_GCM,
                                            .kek_id = next.kek_id,
                                            .kek_uri = NEW_KEK,
                                            .blob = blob,
                                            .blob_length = sizeof blob,
                                            .now = CONFORMANCE_NOW};
        envelope_status status = turn == 0 ? store_key_create(c->store, name, 100, &version, &conformance_actor)
                                           : store_key_rotate(c->store, name, turn, &version, &conformance_actor);
        if (status == ENVELOPE_OK)
            ids[index][turn++] = next.dek_id;
        else if (status != ENVELOPE_E_STORE_CONFLICT)
            return 2;
    }
    return 0;
}

static int compare_ids(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void processes_that_take_the_next_id_at_once_each_get_another_and_no_gap(void **state)
{
    struct conformance *c = *state;
    enum { ALL = CONFORMANCE_PROCESSES * TURNS };
    uint32_t *ids = conformance_shared(ALL * sizeof *ids);
    struct store_ids before, after;
    OK(store_next_ids(c->store, NULL, &before));
    conformance_processes(CONFORMANCE_PROCESSES, create_and_rotate, c, ids);
    qsort(ids, ALL, sizeof *ids, compare_ids);
    for (uint32_t i = 0; i < ALL; i++)
        assert_int_equal(ids[i], before.dek_id + i);
    OK(store_next_ids(c->store, NEW_KEK, &after));
    assert_int_equal(after.dek_id, before.dek_id + ALL);
    assert_true(after.kek_is_there && after.kek_id == c->kek + 1);
    conformance_shared_free(ids, ALL * sizeof *ids);
}

int conformance_ids_group(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, conformance_setup, conformance_teardown)
    const struct CMUnitTest tests[] = {
        TEST(to_be_told_what_is_next_changes_nothing),
        TEST(a_key_takes_its_ids_and_its_kek_with_it),
        TEST(an_id_that_somebody_took_is_a_conflict_and_leaves_nothing),
        TEST(a_kek_id_that_another_kek_got_is_a_conflict),
        TEST(ids_that_were_never_next_are_refused),
        TEST(processes_that_take_the_next_id_at_once_each_get_another_and_no_gap),
    };
    return cmocka_run_group_tests_name("store: ids", tests, NULL, NULL);
}
