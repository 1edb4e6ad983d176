/* Many threads on one keyring. */
#include "keyring_rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { CROWD = 16, WRITERS = 4, MESSAGES = 400, ROTATIONS = 100 };

/* cmocka's assertions may only fail in the main thread: the others keep their first error for it. */
struct worker {
    pthread_t thread;
    keyring *ring;
    keyring_key *key;
    struct rig_message message;  /* to open; the last one written */
    struct rig_message *written; /* MESSAGES of them */
    uint64_t number;
    pthread_barrier_t *start;
    atomic_bool *stop;
    bool lease_per_message;
    envelope_status status;
    char text[1024];
};

static void worker_failed(struct worker *worker, envelope_status status)
{
    worker->status = status;
    strncpy(worker->text, error_text(), sizeof worker->text - 1);
}

static void workers_run(struct worker *workers, size_t count, void *(*work)(void *))
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
}

static void workers_join(struct worker *workers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
    for (size_t i = 0; i < count; i++)
        if (workers[i].status)
            fail_msg("thread %zu: %s: %s", i, envelope_status_name(workers[i].status), workers[i].text);
}

static void *open_one(void *argument)
{
    struct worker *worker = argument;
    pthread_barrier_wait(worker->start);
    envelope_status status = rig_open_once(worker->ring, &worker->message, 7);
    if (status)
        worker_failed(worker, status);
    return NULL;
}

static void crowd_at_a_missing_dek_makes_one_unwrap(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct rig_message message;
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 7, &message));
    for (uint64_t round = 1; round <= 10; round++) {
        keyring_wipe(ring);
        struct worker workers[CROWD] = {0};
        pthread_barrier_t start;
        pthread_barrier_init(&start, NULL, CROWD);
        for (size_t i = 0; i < CROWD; i++)
            workers[i] = (struct worker){.ring = ring, .message = message, .start = &start};
        workers_run(workers, CROWD, open_one);
        workers_join(workers, CROWD);
        pthread_barrier_destroy(&start);
        assert_int_equal(rig_counters(ring).unwraps, 1 + round);
    }
    keyring_free(ring);
}

static void crowd_at_a_bad_dek_gets_the_reason(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct rig_message message;
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 7, &message));
    assert_ok(keyring_suspend(ring, "default", 1, NULL));
    struct worker workers[CROWD] = {0};
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, CROWD);
    for (size_t i = 0; i < CROWD; i++)
        workers[i] = (struct worker){.ring = ring, .message = message, .start = &start};
    workers_run(workers, CROWD, open_one);
    for (size_t i = 0; i < CROWD; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_barrier_destroy(&start);
    for (size_t i = 0; i < CROWD; i++) {
        assert_int_equal(workers[i].status, ENVELOPE_E_VERSION_STATE);
        assert_non_null(strstr(workers[i].text, "version 1 of key \"default\" is suspended"));
    }
    keyring_free(ring);
}

static void *write_messages(void *argument)
{
    struct worker *worker = argument;
    struct keyring_lease lease = {0};
    pthread_barrier_wait(worker->start);
    for (uint64_t i = 0; i < MESSAGES && !worker->status; i++) {
        envelope_status status = rig_seal(worker->ring, worker->key, &lease, worker->number + i, &worker->written[i]);
        /* Somebody's older message in between, as a database would ask for. */
        if (!status && i % 3 == 0)
            status = rig_open(worker->ring, &lease, &worker->written[i / 2], worker->number + i / 2);
        if (status)
            worker_failed(worker, status);
        if (worker->lease_per_message)
            keyring_lease_end(worker->ring, &lease);
    }
    while (worker->stop && !atomic_load(worker->stop) && !worker->status) {
        envelope_status status = rig_seal(worker->ring, worker->key, &lease, 0, &worker->message);
        if (status)
            worker_failed(worker, status);
    }
    if (worker->stop) {
        pthread_barrier_wait(worker->start);
        if (!worker->status && rig_seal(worker->ring, worker->key, &lease, 0, &worker->message))
            worker_failed(worker, error_status());
    }
    keyring_lease_end(worker->ring, &lease);
    return NULL;
}

static void workers_check_written(struct worker *workers, size_t count)
{
    keyring *reader = rig_ring_plain();
    struct keyring_lease lease = {0};
    for (size_t i = 0; i < count; i++)
        for (uint64_t k = 0; k < MESSAGES; k++)
            assert_ok(rig_open(reader, &lease, &workers[i].written[k], workers[i].number + k));
    keyring_lease_end(reader, &lease);
    keyring_free(reader);
}

static void writers_make(struct worker *workers, keyring *ring, pthread_barrier_t *start)
{
    for (size_t i = 0; i < WRITERS; i++) {
        workers[i] = (struct worker){.ring = ring,
                                     .key = rig_key(ring, "default"),
                                     .written = calloc(MESSAGES, sizeof(struct rig_message)),
                                     .number = i * 1000000,
                                     .start = start,
                                     .lease_per_message = i % 2};
        assert_non_null(workers[i].written);
    }
}

static void everything_opens_that_was_written_while_another_rotated(void **state)
{
    (void)state;
    struct settings often = rig_settings();
    often.refresh = CLOCK_SECOND / 1000;
    keyring *ring = rig_ring(often), *rotator = rig_ring_plain();
    struct worker workers[WRITERS] = {0};
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, WRITERS + 1);
    writers_make(workers, ring, &start);
    atomic_bool stop = false;
    for (size_t i = 0; i < WRITERS; i++)
        workers[i].stop = &stop;
    workers_run(workers, WRITERS, write_messages);
    pthread_barrier_wait(&start);
    for (uint32_t i = 0; i < ROTATIONS; i++) {
        uint32_t version = 0;
        assert_ok(keyring_rotate(i % 2 ? rotator : ring, "default", "test", &version, NULL));
        assert_int_equal(version, i + 2);
        assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_version WHERE state = 'active'"), 1);
    }
    /* One refresh later nobody, whatever lease it kept, writes under an old version any more. */
    int64_t primary = rig_sql_number("SELECT dek_id FROM encryption_key_version WHERE state = 'active'");
    atomic_store(&stop, true);
    rig_clock_forward(CLOCK_SECOND);
    pthread_barrier_wait(&start);
    workers_join(workers, WRITERS);
    for (size_t i = 0; i < WRITERS; i++)
        assert_int_equal(workers[i].message.dek_id, primary);
    pthread_barrier_destroy(&start);
    workers_check_written(workers, WRITERS);
    for (size_t i = 0; i < WRITERS; i++)
        free(workers[i].written);
    keyring_free(ring);
    keyring_free(rotator);
}

static void wiping_disturbs_nobody(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct worker workers[WRITERS] = {0};
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, WRITERS + 1);
    writers_make(workers, ring, &start);
    workers_run(workers, WRITERS, write_messages);
    pthread_barrier_wait(&start);
    for (int i = 0; i < 200; i++)
        keyring_wipe(ring);
    workers_join(workers, WRITERS);
    pthread_barrier_destroy(&start);
    workers_check_written(workers, WRITERS);
    for (size_t i = 0; i < WRITERS; i++)
        free(workers[i].written);
    keyring_wipe(ring);
    assert_int_equal(rig_counters(ring).cached, 0);
    keyring_free(ring);
}

static void *write_until_stopped(void *argument)
{
    struct worker *worker = argument;
    struct keyring_lease lease = {0};
    struct rig_message message;
    pthread_barrier_wait(worker->start);
    while (!atomic_load(worker->stop)) {
        envelope_status status = rig_seal(worker->ring, worker->key, &lease, worker->number, &message);
        if (status && status != ENVELOPE_E_VERSION_STATE && status != ENVELOPE_E_KEY_STATE) {
            worker_failed(worker, status);
            break;
        }
        if (worker->lease_per_message)
            keyring_lease_end(worker->ring, &lease);
    }
    keyring_lease_end(worker->ring, &lease);
    return NULL;
}

static void suspending_and_resuming_under_load_leaves_nothing_stuck(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct worker workers[WRITERS] = {0};
    atomic_bool stop = false;
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, WRITERS + 1);
    for (size_t i = 0; i < WRITERS; i++)
        workers[i] = (struct worker){
            .ring = ring, .key = rig_key(ring, "default"), .start = &start, .stop = &stop, .lease_per_message = i % 2};
    workers_run(workers, WRITERS, write_until_stopped);
    pthread_barrier_wait(&start);
    for (uint32_t i = 0; i < 30; i++) {
        uint32_t number = i % 2;
        assert_ok(keyring_suspend(ring, "default", number, NULL));
        assert_ok(keyring_resume(ring, "default", number, NULL));
    }
    atomic_store(&stop, true);
    workers_join(workers, WRITERS);
    pthread_barrier_destroy(&start);
    struct rig_message message;
    assert_ok(rig_seal_once(ring, workers[0].key, 1, &message));
    keyring_free(ring);
}

static void *rotate_once(void *argument)
{
    struct worker *worker = argument;
    bool by_others = false;
    pthread_barrier_wait(worker->start);
    envelope_status status = keyring_rotate(worker->ring, "default", "race", NULL, &by_others);
    if (status)
        worker_failed(worker, status);
    worker->number = by_others;
    return NULL;
}

static void racing_rotations_count_each_new_version_once(void **state)
{
    (void)state;
    struct worker workers[WRITERS] = {0};
    keyring *rings[WRITERS];
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, WRITERS);
    for (size_t i = 0; i < WRITERS; i++)
        rings[i] = rig_ring_plain();
    int64_t made = 0;
    for (int round = 0; round < 10; round++) {
        for (size_t i = 0; i < WRITERS; i++)
            workers[i] = (struct worker){.ring = rings[i], .start = &start};
        workers_run(workers, WRITERS, rotate_once);
        workers_join(workers, WRITERS);
        for (size_t i = 0; i < WRITERS; i++)
            made += !workers[i].number;
        assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_version"), 1 + made);
        assert_int_equal(rig_sql_number("SELECT primary_version FROM encryption_key"), 1 + made);
    }
    assert_true(made >= 10);
    pthread_barrier_destroy(&start);
    for (size_t i = 0; i < WRITERS; i++)
        keyring_free(rings[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, keyring_store_setup, keyring_store_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(crowd_at_a_missing_dek_makes_one_unwrap),
        TEST(crowd_at_a_bad_dek_gets_the_reason),
        TEST(everything_opens_that_was_written_while_another_rotated),
        TEST(wiping_disturbs_nobody),
        TEST(suspending_and_resuming_under_load_leaves_nothing_stuck),
        TEST(racing_rotations_count_each_new_version_once),
    };
    return cmocka_run_group_tests_name("keyring_threads", tests, keyring_rig_setup, keyring_rig_teardown);
}
