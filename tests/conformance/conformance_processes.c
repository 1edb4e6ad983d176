/* Many processes and threads at once, with handles that children inherited. */
#include "store_conformance.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

/* ---- creating ---- */

struct made {
    _Atomic int created;
    uint8_t ids[CONFORMANCE_PROCESSES][STORE_ID_SIZE];
};

static int make_store(int index, const struct conformance *c, void *argument)
{
    struct made *made = argument;
    store *opened = NULL;
    bool created = false;
    if (store_create(c->url, CONFORMANCE_DEADLINE, &opened, &created))
        return 1;
    if (created)
        atomic_fetch_add(&made->created, 1);
    return store_id(opened, made->ids[index]) != ENVELOPE_OK;
}

static void processes_that_make_the_store_at_once_make_one_store(void **state)
{
    struct conformance *c = *state;
    struct made *made = conformance_shared(sizeof *made);
    /* A place beside the fixture's, where nothing is yet. */
    struct conformance fresh = *c;
    char url[4096];
    snprintf(url, sizeof url, "%s-fresh", c->url);
    fresh.url = url;
    conformance_processes(CONFORMANCE_PROCESSES, make_store, &fresh, made);
    assert_int_equal(made->created, 1);
    for (int i = 1; i < CONFORMANCE_PROCESSES; i++)
        assert_memory_equal(made->ids[i], made->ids[0], STORE_ID_SIZE);
    conformance_shared_free(made, sizeof *made);
}

/* ---- rotating ---- */

enum { ROUNDS = 25 };

struct rotations {
    _Atomic int won;
    _Atomic int conflicts;
};

static int rotate_once_per_round(int index, const struct conformance *c, void *argument)
{
    struct rotations *rotations = argument;
    (void)index;
    static const uint8_t blob[] = "a wrapped key";
    for (uint32_t primary = 1; primary <= ROUNDS; primary++) {
        struct store_new_version next = {.algorithm = STORE_AES_256_GCM,
                                         .kek_id = c->kek,
                                         .blob = blob,
                                         .blob_length = sizeof blob,
                                         .now = CONFORMANCE_NOW};
        if (store_dek_id_reserve(c->store, &next.dek_id))
            return 1;
        envelope_status status = store_key_rotate(c->store, "k", primary, &next, &conformance_actor);
        if (status == ENVELOPE_OK)
            atomic_fetch_add(&rotations->won, 1);
        else if (status == ENVELOPE_E_STORE_CONFLICT)
            atomic_fetch_add(&rotations->conflicts, 1);
        else
            return 2;
    }
    return 0;
}

static void processes_that_rotate_at_once_make_one_version_each_time(void **state)
{
    struct conformance *c = *state;
    struct rotations *rotations = conformance_shared(sizeof *rotations);
    conformance_create(c, "k", 10);
    conformance_processes(CONFORMANCE_PROCESSES, rotate_once_per_round, c, rotations);
    assert_int_equal(rotations->won, ROUNDS);
    assert_int_equal(rotations->conflicts, ROUNDS * (CONFORMANCE_PROCESSES - 1));
    assert_int_equal(conformance_primary(c, "k").version, ROUNDS + 1);
    conformance_shared_free(rotations, sizeof *rotations);
}

/* ---- DEK ids ---- */

enum { IDS_EACH = 200 };

static int reserve_ids(int index, const struct conformance *c, void *argument)
{
    uint32_t(*ids)[IDS_EACH] = argument;
    for (int i = 0; i < IDS_EACH; i++)
        if (store_dek_id_reserve(c->store, &ids[index][i]))
            return 1;
    return 0;
}

static int compare_ids(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void no_two_processes_get_the_same_dek_id(void **state)
{
    struct conformance *c = *state;
    enum { ALL = CONFORMANCE_PROCESSES * IDS_EACH };
    uint32_t *ids = conformance_shared(ALL * sizeof *ids);
    conformance_processes(CONFORMANCE_PROCESSES, reserve_ids, c, ids);
    qsort(ids, ALL, sizeof *ids, compare_ids);
    assert_true(ids[0] >= 1);
    for (int i = 1; i < ALL; i++)
        assert_true(ids[i] > ids[i - 1]);
    conformance_shared_free(ids, ALL * sizeof *ids);
}

/* ---- budgets ---- */

struct spending {
    uint32_t dek_id;
    _Atomic uint64_t granted;
    _Atomic uint64_t highest;
};

static int spend(int index, const struct conformance *c, void *argument)
{
    struct spending *spending = argument;
    for (;;) {
        uint64_t granted, reserved, limit;
        if (store_messages_reserve(c->store, spending->dek_id, 3 + (uint64_t)index, &granted, &reserved, &limit))
            return 1;
        if (reserved > limit || granted > 3 + (uint64_t)index)
            return 2;
        if (granted == 0)
            return 0;
        atomic_fetch_add(&spending->granted, granted);
    }
}

static void eight_processes_never_exceed_the_budget(void **state)
{
    struct conformance *c = *state;
    struct spending *spending = conformance_shared(sizeof *spending);
    conformance_create(c, "k", 9999);
    spending->dek_id = conformance_primary(c, "k").dek_id;
    conformance_processes(CONFORMANCE_PROCESSES, spend, c, spending);
    assert_true(spending->granted == 9999);
    assert_true(conformance_primary(c, "k").messages_reserved == 9999);
    conformance_shared_free(spending, sizeof *spending);
}

/* ---- threads ---- */

enum { THREADS = 8, TURNS = 30 };

struct worker {
    const struct conformance *c;
    int index;
    int failed; /* a line, 0: none */
};

static int work_on_key(const struct conformance *c, const char *name)
{
    static const uint8_t blob[] = "a wrapped key";
    struct store_new_version version = {.algorithm = STORE_AES_256_GCM,
                                        .kek_id = c->kek,
                                        .blob = blob,
                                        .blob_length = sizeof blob,
                                        .now = CONFORMANCE_NOW};
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        if (store_dek_id_reserve(c->store, &version.dek_id))
            return __LINE__;
        envelope_status status = turn == 0 ? store_key_create(c->store, name, 100, &version, &conformance_actor)
                                           : store_key_rotate(c->store, name, turn, &version, &conformance_actor);
        if (status)
            return __LINE__;
        struct store_version primary;
        if (store_version_of(c->store, name, 0, &primary))
            return __LINE__;
        bool right = primary.version == turn + 1 && primary.dek_id == version.dek_id;
        store_version_clear(&primary);
        uint64_t granted, reserved, limit, counter;
        if (!right || store_messages_reserve(c->store, version.dek_id, 10, &granted, &reserved, &limit) ||
            granted != 10 || store_change_counter(c->store, &counter))
            return __LINE__;
    }
    return 0;
}

static void *run_worker(void *argument)
{
    struct worker *worker = argument;
    char name[32];
    snprintf(name, sizeof name, "thread %d", worker->index);
    worker->failed = work_on_key(worker->c, name);
    if (worker->failed)
        fprintf(stderr, "thread %d, line %d: %s\n", worker->index, worker->failed, error_text());
    return NULL;
}

static void one_handle_serves_many_threads(void **state)
{
    struct conformance *c = *state;
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.c = c, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, run_worker, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].failed, 0);
    }
    struct store_version *versions;
    size_t count;
    OK(store_versions(c->store, NULL, &versions, &count));
    assert_int_equal(count, THREADS * TURNS);
    store_versions_free(versions, count);
}

/* ---- fork ---- */

static int use_inherited_handle(int index, const struct conformance *c, void *argument)
{
    (void)argument;
    char name[32];
    snprintf(name, sizeof name, "child %d", index);
    return work_on_key(c, name);
}

static void a_handle_works_on_in_children_while_the_parent_uses_it(void **state)
{
    struct conformance *c = *state;
    /* In use before the fork, so that there is something to inherit. */
    assert_int_equal(work_on_key(c, "before"), 0);
    pid_t parent_side = fork();
    assert_true(parent_side >= 0);
    if (parent_side == 0)
        _exit(work_on_key(c, "parent's other child") != 0);
    conformance_processes(4, use_inherited_handle, c, NULL);
    assert_int_equal(work_on_key(c, "after"), 0);
    int status = 0;
    assert_int_equal(waitpid(parent_side, &status, 0), parent_side);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    struct store_key *keys;
    size_t count;
    OK(store_keys(c->store, &keys, &count));
    assert_int_equal(count, 7);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(keys[i].primary_version, TURNS);
    free(keys);
}

int conformance_processes_group(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, conformance_setup, conformance_teardown)
    const struct CMUnitTest tests[] = {
        TEST(processes_that_make_the_store_at_once_make_one_store),
        TEST(processes_that_rotate_at_once_make_one_version_each_time),
        TEST(no_two_processes_get_the_same_dek_id),
        TEST(eight_processes_never_exceed_the_budget),
        TEST(one_handle_serves_many_threads),
        TEST(a_handle_works_on_in_children_while_the_parent_uses_it),
    };
    return cmocka_run_group_tests_name("store: processes and threads", tests, NULL, NULL);
}
