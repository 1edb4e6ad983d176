/* A keyring across fork: before first use, after it, and while other threads are busy in it. */
#include "keyring_rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_SECONDS = 60, BUSY_THREADS = 3, BUSY_FORKS = 20 };

/* Run work in a child; its message comes back for the parent to open. */
static void in_child(bool (*work)(void *, struct rig_message *), void *argument, struct rig_message *message)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(CHILD_SECONDS); /* a hang ends here, and fails the test */
        close(ends[0]);
        bool good = work(argument, message) && write(ends[1], message, sizeof *message) == (ssize_t)sizeof *message;
        if (!good)
            fprintf(stderr, "child: %s\n", error_text());
        _exit(good ? 0 : 1);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], message, sizeof *message);
    close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(got, sizeof *message);
}

static bool seal_and_open(void *argument, struct rig_message *message)
{
    keyring *ring = argument;
    keyring_key *key = NULL;
    if (keyring_find(ring, "default", 7, &key) || rig_seal_once(ring, key, 9, message) ||
        rig_open_once(ring, message, 9))
        return false;
    size_t cached = rig_counters(ring).cached;
    if (cached == 1)
        return true;
    error_raise(ENVELOPE_E_INTERNAL, "%zu entries are cached in a child that has used one", cached);
    return false;
}

static void fork_before_first_use(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct rig_message message;
    in_child(seal_and_open, ring, &message);
    assert_ok(rig_open_once(ring, &message, 9));
    keyring_free(ring);
}

struct inherited {
    keyring *ring;
    keyring_key *key;
    struct keyring_lease lease;
    struct rig_message old;
};

static bool use_inherited_lease(void *argument, struct rig_message *message)
{
    struct inherited *inherited = argument;
    uint64_t unwraps = rig_counters(inherited->ring).unwraps;
    uint8_t dek[HSM_DEK_SIZE];
    if (keyring_lease_dek(&inherited->lease, dek) != ENVELOPE_E_INTERNAL) {
        error_raise(ENVELOPE_E_INTERNAL, "the child read its parent's DEK from a lease");
        return false;
    }
    bool good = rig_seal(inherited->ring, inherited->key, &inherited->lease, 9, message) == ENVELOPE_OK &&
                rig_open(inherited->ring, &inherited->lease, &inherited->old, 1) == ENVELOPE_OK;
    keyring_lease_end(inherited->ring, &inherited->lease);
    if (good && rig_counters(inherited->ring).unwraps != unwraps + 1) {
        error_raise(ENVELOPE_E_INTERNAL, "the child did not unwrap its own copy of the DEK");
        return false;
    }
    return good && rig_open_once(inherited->ring, &inherited->old, 1) == ENVELOPE_OK;
}

static void fork_with_a_lease_in_use(void **state)
{
    (void)state;
    struct inherited inherited = {.ring = rig_ring_plain()};
    inherited.key = rig_key(inherited.ring, "default");
    assert_ok(rig_seal(inherited.ring, inherited.key, &inherited.lease, 1, &inherited.old));
    uint32_t left = inherited.lease.messages;
    struct rig_message message;
    in_child(use_inherited_lease, &inherited, &message);
    assert_int_equal(inherited.lease.messages, left);
    assert_ok(rig_open(inherited.ring, &inherited.lease, &message, 9));
    assert_int_equal(rig_counters(inherited.ring).unwraps, 1);
    keyring_lease_end(inherited.ring, &inherited.lease);
    keyring_free(inherited.ring);
}

static bool seal_in_grandchild(void *argument, struct rig_message *message)
{
    struct rig_message ours;
    if (!seal_and_open(argument, &ours))
        return false;
    in_child(seal_and_open, argument, message);
    return rig_open_once(argument, message, 9) == ENVELOPE_OK && rig_open_once(argument, &ours, 9) == ENVELOPE_OK;
}

static void fork_in_a_child(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct rig_message message;
    in_child(seal_and_open, ring, &message);
    in_child(seal_in_grandchild, ring, &message);
    assert_ok(rig_open_once(ring, &message, 9));
    keyring_free(ring);
}

static bool rotate_and_seal(void *argument, struct rig_message *message)
{
    return keyring_rotate(argument, "default", "child", NULL, NULL) == ENVELOPE_OK && seal_and_open(argument, message);
}

static void parent_sees_what_its_child_rotated(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct rig_message before, childs, after;
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &before));
    in_child(rotate_and_seal, ring, &childs);
    rig_clock_forward(CLOCK_SECOND);
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &after));
    assert_int_equal(after.dek_id, childs.dek_id);
    assert_int_not_equal(after.dek_id, before.dek_id);
    keyring_free(ring);
}

static bool count_messages_of_its_own(void *argument, struct rig_message *message)
{
    return seal_and_open(argument, message) && rig_counters(argument).reservations == 2;
}

static void child_does_not_use_its_parents_budget(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct rig_message message;
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &message));
    int64_t reserved = rig_sql_number("SELECT messages_reserved FROM encryption_key_version");
    in_child(count_messages_of_its_own, ring, &message);
    assert_int_equal(rig_sql_number("SELECT messages_reserved FROM encryption_key_version"), 2 * reserved);
    keyring_free(ring);
}

/* ---- while others are busy ---- */

struct busy {
    pthread_t thread;
    keyring *ring;
    keyring_key *key;
    atomic_bool *stop;
    unsigned kind;
    envelope_status status;
    char text[512];
};

static void *be_busy(void *argument)
{
    struct busy *busy = argument;
    struct rig_message message;
    while (!atomic_load(busy->stop) && !busy->status) {
        if (busy->kind == 0) /* inside the token all the time */
            keyring_wipe(busy->ring);
        if (busy->kind == 1) /* inside the store */
            busy->status = keyring_rotate(busy->ring, "default", NULL, NULL, NULL);
        if (!busy->status)
            busy->status = rig_seal_once(busy->ring, busy->key, 1, &message);
    }
    if (busy->status)
        strncpy(busy->text, error_text(), sizeof busy->text - 1);
    return NULL;
}

static void fork_while_other_threads_are_busy(void **state)
{
    (void)state;
    SKIP_WHERE_FORK_BREAKS_MALLOC();
    keyring *ring = rig_ring_plain();
    atomic_bool stop = false;
    struct busy threads[BUSY_THREADS] = {0};
    for (unsigned i = 0; i < BUSY_THREADS; i++) {
        threads[i] = (struct busy){.ring = ring, .key = rig_key(ring, "default"), .stop = &stop, .kind = i};
        assert_int_equal(pthread_create(&threads[i].thread, NULL, be_busy, &threads[i]), 0);
    }
    for (int i = 0; i < BUSY_FORKS; i++) {
        struct rig_message message;
        in_child(seal_and_open, ring, &message);
        assert_ok(rig_open_once(ring, &message, 9));
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < BUSY_THREADS; i++) {
        pthread_join(threads[i].thread, NULL);
        if (threads[i].status)
            fail_msg("thread %u: %s", i, threads[i].text);
    }
    keyring_free(ring);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, keyring_store_setup, keyring_store_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fork_before_first_use),
        TEST(fork_with_a_lease_in_use),
        TEST(fork_in_a_child),
        TEST(parent_sees_what_its_child_rotated),
        TEST(child_does_not_use_its_parents_budget),
        TEST(fork_while_other_threads_are_busy),
    };
    return cmocka_run_group_tests_name("keyring_fork", tests, keyring_rig_setup, keyring_rig_teardown);
}
