/* The message limit of a version: shared by processes, never exceeded, rotated away from in time. */
#include "keyring_rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include "hsm/hsm.h"

enum { PROCESSES = 8, THREADS = 4, VERSIONS_MAX = 256 };

/* ---- a token that makes no new DEKs on demand, so that rotation is impossible ---- */

static _Atomic int no_new_deks;
static _Atomic unsigned refused;

envelope_status __real_hsm_generate_dek(hsm *instance, const char *uri, uint8_t dek[HSM_DEK_SIZE]);
envelope_status __wrap_hsm_generate_dek(hsm *instance, const char *uri, uint8_t dek[HSM_DEK_SIZE]);
envelope_status __wrap_hsm_generate_dek(hsm *instance, const char *uri, uint8_t dek[HSM_DEK_SIZE])
{
    if (!atomic_load(&no_new_deks))
        return __real_hsm_generate_dek(instance, uri, dek);
    atomic_fetch_add(&refused, 1);
    return error_raise(ENVELOPE_E_HSM, "the test's token makes no keys today");
}

static int budget_setup(void **state)
{
    atomic_store(&no_new_deks, 0);
    atomic_store(&refused, 0);
    return keyring_store_setup(state);
}

static keyring_key *limited_key(keyring *ring, uint64_t limit)
{
    struct keyring_key_options options = {.message_limit = limit};
    assert_ok(keyring_create(ring, "limited", &options));
    return rig_key(ring, "limited");
}

static void limit_is_reached_exactly_and_then_refused(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    keyring_key *key = limited_key(ring, 1000);
    struct keyring_lease lease = {0};
    struct rig_message message, first;
    atomic_store(&no_new_deks, 1);
    for (uint64_t i = 0; i < 1000; i++)
        assert_ok(rig_seal(ring, key, &lease, i, i == 0 ? &first : &message));
    assert_status(ENVELOPE_E_MESSAGE_LIMIT, rig_seal(ring, key, &lease, 1000, &message));
    assert_error_says("version 1 of key \"limited\"");
    assert_error_says("1000");
    assert_error_says("the test's token makes no keys today");
    assert_error_says("envelope key rotate 'limited'");
    assert_int_equal(lease.dek_id, 0);
    /* Rotation is not tried for every message. */
    unsigned tried = atomic_load(&refused);
    for (int i = 0; i < 100; i++)
        assert_status(ENVELOPE_E_MESSAGE_LIMIT, rig_seal(ring, key, &lease, 1000, &message));
    assert_true(atomic_load(&refused) <= tried + 1);
    assert_status(ENVELOPE_E_MESSAGE_LIMIT, keyring_reference_begin(ring, message.dek_id, true, &lease));
    /* What was written can still be read. */
    assert_ok(rig_open_once(ring, &first, 0));
    atomic_store(&no_new_deks, 0);
    rig_clock_forward(120 * CLOCK_SECOND);
    assert_ok(rig_seal(ring, key, &lease, 1000, &message));
    assert_int_not_equal(message.dek_id, first.dek_id);
    keyring_lease_end(ring, &lease);
    keyring_free(ring);
}

static void key_is_rotated_before_its_limit_by_itself(void **state)
{
    (void)state;
    static const uint64_t limits[] = {1, 2, 15, 16, 17, 160};
    keyring *ring = rig_ring_plain();
    for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
        char name[16];
        snprintf(name, sizeof name, "limited-%zu", l);
        struct keyring_key_options options = {.message_limit = limits[l]};
        assert_ok(keyring_create(ring, name, &options));
        keyring_key *key = rig_key(ring, name);
        struct keyring_lease lease = {0};
        struct rig_message message;
        uint32_t dek_id = 0;
        uint64_t under_it = 0, messages = limits[l] < 16 ? 20 : 500;
        for (uint64_t i = 0; i < messages; i++) {
            assert_ok(rig_seal(ring, key, &lease, i, &message));
            under_it = message.dek_id == dek_id ? under_it + 1 : 1;
            dek_id = message.dek_id;
            assert_true(under_it <= limits[l]);
        }
        keyring_lease_end(ring, &lease);
        int64_t versions = rig_sql_number("SELECT primary_version FROM encryption_key WHERE name = '%s'", name);
        assert_true((uint64_t)versions >= messages / limits[l]);
        /* Nothing is thrown away beyond the last sixteenth and the block it came in. */
        assert_true((uint64_t)versions <= messages / (limits[l] - limits[l] / 8) + 1);
    }
    assert_true(rig_sql_number("SELECT count(*) FROM encryption_key_history WHERE what = 'rotate' AND detail = "
                               "'message limit'") > 0);
    keyring_free(ring);
}

static void failing_rotation_leaves_the_old_version_working_to_its_end(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    keyring_key *key = limited_key(ring, 320);
    struct keyring_lease lease = {0};
    struct rig_message message;
    atomic_store(&no_new_deks, 1);
    for (uint64_t i = 0; i < 310; i++)
        assert_ok(rig_seal(ring, key, &lease, i, &message));
    assert_true(atomic_load(&refused) > 0);
    atomic_store(&no_new_deks, 0);
    rig_clock_forward(120 * CLOCK_SECOND);
    uint32_t old = message.dek_id;
    for (uint64_t i = 310; i < 330; i++)
        assert_ok(rig_seal(ring, key, &lease, i, &message));
    assert_int_not_equal(message.dek_id, old);
    keyring_lease_end(ring, &lease);
    keyring_free(ring);
}

struct sharer {
    pthread_t thread;
    keyring *ring;
    keyring_key *key;
    uint64_t sealed;
    bool lease_per_message;
    envelope_status status;
};

static void *seal_to_the_end(void *argument)
{
    struct sharer *sharer = argument;
    struct keyring_lease lease = {0};
    struct rig_message message;
    while (!(sharer->status = rig_seal(sharer->ring, sharer->key, &lease, 0, &message))) {
        sharer->sealed++;
        if (sharer->lease_per_message)
            keyring_lease_end(sharer->ring, &lease);
    }
    keyring_lease_end(sharer->ring, &lease);
    return NULL;
}

static void threads_share_a_limit_without_exceeding_it(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    keyring_key *key = limited_key(ring, 3000);
    atomic_store(&no_new_deks, 1);
    struct sharer sharers[THREADS] = {0};
    for (size_t i = 0; i < THREADS; i++) {
        sharers[i] = (struct sharer){.ring = ring, .key = key, .lease_per_message = i % 2};
        assert_int_equal(pthread_create(&sharers[i].thread, NULL, seal_to_the_end, &sharers[i]), 0);
    }
    uint64_t sealed = 0;
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(sharers[i].thread, NULL);
        assert_int_equal(sharers[i].status, ENVELOPE_E_MESSAGE_LIMIT);
        sealed += sharers[i].sealed;
    }
    /* A thread may give up while another still holds a few; those are left at the end. */
    struct keyring_lease lease = {0};
    struct rig_message message;
    while (rig_seal(ring, key, &lease, 0, &message) == ENVELOPE_OK)
        sealed++;
    assert_int_equal(sealed, 3000);
    keyring_lease_end(ring, &lease);
    keyring_free(ring);
}

/* ---- processes ---- */

struct board {
    _Atomic uint32_t go;
    _Atomic uint32_t sealed[VERSIONS_MAX]; /* by DEK id */
    _Atomic uint32_t errors;
};

static struct board *board_new(void)
{
    struct board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(board != MAP_FAILED);
    return board;
}

/* In a child: messages until there are enough or the limit is reached. One after the other logs in to the token. */
static void process_seal(struct board *board, unsigned messages)
{
    char path[RIG_PATH];
    snprintf(path, sizeof path, "%s/login", keyring_token.directory);
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    keyring *ring = NULL;
    keyring_key *key = NULL;
    struct keyring_lease lease = {0};
    struct rig_message message;
    struct settings settings = rig_settings();
    settings.refresh = CLOCK_SECOND / 100;
    envelope_status status = lock < 0 ? ENVELOPE_E_IO : keyring_new(&settings, &ring);
    if (!status)
        status = keyring_find(ring, "limited", 7, &key);
    if (!status) {
        flock(lock, LOCK_EX);
        /* Unwraps, and counts nothing. */
        status = keyring_decrypt_begin(ring, 2, &lease);
        flock(lock, LOCK_UN);
    }
    while (!status && !atomic_load(&board->go))
        usleep(1000);
    for (unsigned i = 0; !status && i < messages; i++) {
        status = rig_seal(ring, key, &lease, i, &message);
        if (!status)
            atomic_fetch_add(&board->sealed[message.dek_id % VERSIONS_MAX], 1);
    }
    if (status && status != ENVELOPE_E_MESSAGE_LIMIT) {
        fprintf(stderr, "process %d: %s\n", (int)getpid(), error_text());
        atomic_fetch_add(&board->errors, 1);
    }
    _exit(0);
}

static void processes_run(struct board *board, unsigned messages)
{
    pid_t children[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            alarm(100);
            process_seal(board, messages);
        }
    }
    atomic_store(&board->go, 1);
    for (int i = 0; i < PROCESSES; i++) {
        int status = 0;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(atomic_load(&board->errors), 0);
}

static void processes_never_exceed_the_limit(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    limited_key(ring, 2000);
    keyring_free(ring);
    atomic_store(&no_new_deks, 1);
    struct board *board = board_new();
    processes_run(board, 5000);
    assert_int_equal(atomic_load(&board->sealed[2]), 2000);
    assert_int_equal(rig_sql_number("SELECT messages_reserved FROM encryption_key_version WHERE dek_id = 2"), 2000);
    munmap(board, sizeof *board);
}

static void processes_rotate_together_and_never_exceed_a_limit(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    limited_key(ring, 300);
    keyring_free(ring);
    struct board *board = board_new();
    processes_run(board, 400);
    uint64_t sealed = 0;
    for (size_t i = 0; i < VERSIONS_MAX; i++) {
        uint32_t under_it = atomic_load(&board->sealed[i]);
        if (under_it > 300)
            fail_msg("%u messages under data key %zu", (unsigned)under_it, i);
        sealed += under_it;
    }
    assert_int_equal(sealed, PROCESSES * 400);
    assert_true(rig_sql_number("SELECT primary_version FROM encryption_key WHERE name = 'limited'") >=
                PROCESSES * 400 / 300);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_version WHERE state = 'active'"), 2);
    munmap(board, sizeof *board);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, budget_setup, keyring_store_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(limit_is_reached_exactly_and_then_refused),
        TEST(key_is_rotated_before_its_limit_by_itself),
        TEST(failing_rotation_leaves_the_old_version_working_to_its_end),
        TEST(threads_share_a_limit_without_exceeding_it),
        TEST(processes_never_exceed_the_limit),
        TEST(processes_rotate_together_and_never_exceed_a_limit),
    };
    return cmocka_run_group_tests_name("keyring_budget", tests, keyring_rig_setup, keyring_rig_teardown);
}
