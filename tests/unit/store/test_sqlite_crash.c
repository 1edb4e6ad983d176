/* kill -9 at random points: what was promised is in the store, and the store is whole. */
#include "sqlite_support.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

/*
 * A victim rests after so many rotations, so that a fast machine makes no fewer kills than a slow one; and it is killed
 * so many microseconds at most after the rotation it was let live for.
 */
enum { ROTATIONS = 200, ROTATIONS_PER_LIFE = 15, KILLS_MIN = ROTATIONS / ROTATIONS_PER_LIFE, MORE_LIFE = 3000 };

/* Written by the victim after each call that returned success, so it outlives it. */
struct promises {
    _Atomic uint32_t primary;
    _Atomic uint32_t dek_id; /* the highest that was given out */
    _Atomic uint64_t reserved[ROTATIONS + 64];
};

/* Rotates and reserves until it is killed or the work is done. */
static int rotate_until_killed(const struct support *s, struct promises *promises)
{
    store *opened = NULL;
    if (store_open(s->url, SUPPORT_DEADLINE, &opened))
        return __LINE__;
    for (int turn = 0;; turn++) {
        while (turn == ROTATIONS_PER_LIFE)
            pause();
        struct store_version primary;
        uint64_t granted, reserved, limit;
        if (store_version_of(opened, "k", 0, &primary))
            return __LINE__;
        const uint32_t number = primary.version, dek_id = primary.dek_id;
        store_version_clear(&primary);
        if (number > ROTATIONS)
            return 0;
        if (store_messages_reserve(opened, dek_id, 1, &granted, &reserved, &limit) || granted != 1)
            return __LINE__;
        atomic_store(&promises->reserved[number], reserved);
        uint32_t id;
        if (store_dek_id_reserve(opened, &id))
            return __LINE__;
        atomic_store(&promises->dek_id, id);
        int line = support_rotate(opened, "k");
        if (line)
            return line;
        atomic_store(&promises->primary, number + 1);
    }
}

/* A small generator: the points differ from run to run, and the seed is printed. */
static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

/* Lets a victim live for some rotations (none: it is killed while it opens the store, or at the first) and a bit more.
 */
static void run_victim(const struct support *s, struct promises *promises, uint32_t rotations, uint32_t more)
{
    const uint32_t until = promises->primary + rotations;
    pid_t victim = fork();
    assert_true(victim >= 0);
    if (victim == 0) {
        int line = rotate_until_killed(s, promises);
        if (line)
            fprintf(stderr, "line %d: %s\n", line, error_text());
        _exit(line ? 1 : 0);
    }
    int status = 0;
    pid_t ended = 0;
    while (ended == 0 && promises->primary < until) {
        usleep(100);
        ended = waitpid(victim, &status, WNOHANG);
    }
    if (ended == 0) {
        usleep(more);
        kill(victim, SIGKILL);
        ended = waitpid(victim, &status, 0);
    }
    assert_int_equal(ended, victim);
    if (WIFSIGNALED(status))
        assert_int_equal(WTERMSIG(status), SIGKILL);
    else
        assert_int_equal(WEXITSTATUS(status), 0);
}

static int check_promises(const struct support *s, void *argument)
{
    const struct promises *promises = argument;
    store *opened = NULL;
    struct store_version *versions;
    size_t count, active = 0;
    CHILD(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_OK, NULL);
    CHILD(store_check(opened), ENVELOPE_OK, NULL);
    CHILD(store_versions(opened, "k", &versions, &count), ENVELOPE_OK, NULL);
    /* At most the one rotation that was under way is there without having been promised. */
    if (count < promises->primary || count > promises->primary + UINT32_C(1))
        return __LINE__;
    for (size_t i = 0; i < count; i++) {
        char blob[32];
        snprintf(blob, sizeof blob, "WRAPPED-KEY-%010u-BYTES!", (unsigned)versions[i].dek_id);
        if (versions[i].version != i + 1 || versions[i].blob_length != sizeof blob ||
            memcmp(versions[i].blob, blob, strlen(blob)) != 0)
            return __LINE__;
        if (versions[i].messages_reserved < promises->reserved[i + 1])
            return __LINE__;
        active += versions[i].state == STORE_VERSION_ACTIVE;
    }
    if (active != 1 || versions[count - 1].state != STORE_VERSION_ACTIVE)
        return __LINE__;
    store_versions_free(versions, count);
    store_close(opened);
    return 0;
}

static void kill_9_during_200_rotations_loses_no_version(void **state)
{
    const struct support *s = *state;
    struct promises *promises = mmap(NULL, sizeof *promises, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(promises != MAP_FAILED);
    store_close(support_create(s, 0));
    promises->primary = 1;
    uint64_t seed = (uint64_t)clock_wall();
    print_message("seed %llu\n", (unsigned long long)seed);
    int kills = 0;
    for (; promises->primary <= ROTATIONS; kills++) {
        run_victim(s, promises, next_random(&seed) % ROTATIONS_PER_LIFE, next_random(&seed) % MORE_LIFE);
        support_in_child(check_promises, s, promises);
        /* Somebody else may have completed what was not promised. */
        promises->primary = (uint32_t)support_number(s, "SELECT primary_version FROM encryption_key");
        assert_true(support_number(s, "SELECT next_dek_id FROM store_meta") > (int64_t)promises->dek_id);
    }
    print_message("%d kills\n", kills);
    assert_true(kills >= KILLS_MIN);
    munmap(promises, sizeof *promises);
}

/* The same while the store is made: it is there whole, or it is not there and can be made. */
static void kill_9_while_a_store_is_made_leaves_one_that_can_be_made(void **state)
{
    const struct support *s = *state;
    uint64_t seed = (uint64_t)clock_wall();
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < 60; i++) {
        pid_t victim = fork();
        assert_true(victim >= 0);
        if (victim == 0) {
            store *opened = NULL;
            _exit(store_create(s->url, SUPPORT_DEADLINE, &opened, NULL) != ENVELOPE_OK);
        }
        usleep(next_random(&seed) % 6000);
        kill(victim, SIGKILL);
        waitpid(victim, NULL, 0);
        store *opened = NULL;
        OK(store_create(s->url, SUPPORT_DEADLINE, &opened, NULL));
        OK(store_check(opened));
        assert_int_equal(support_create_key(opened, "k"), 0);
        store_close(opened);
        static const char *const endings[] = {"", "-wal", "-shm"};
        for (size_t e = 0; e < 3; e++) {
            char path[SUPPORT_PATH_MAX + 32];
            support_path(s, endings[e], path);
            assert_int_equal(unlink(path), 0);
        }
    }
}

/* ---- many moves in one transaction ---- */

enum { MOVED = 100, MOVE_KILLS = 12 };

/* Every version to the KEK where they are not, and to a blob that says which; there and back until it is killed. */
static int move_until_killed(const struct support *s, _Atomic uint32_t *rounds)
{
    static struct store_version_move moves[MOVED];
    static uint8_t blobs[2][32];
    store *opened = NULL;
    uint32_t keks[2];
    if (store_open(s->url, SUPPORT_DEADLINE, &opened))
        return __LINE__;
    for (size_t i = 0; i < 2; i++) {
        if (store_kek_ensure(opened, i ? "pkcs11:object=other" : "pkcs11:object=master", 1, &keks[i]))
            return __LINE__;
        snprintf((char *)blobs[i], sizeof blobs[i], "UNDER-KEK-%010u", (unsigned)keks[i]);
    }
    for (;;) {
        struct store_version *rows;
        size_t count;
        if (store_versions(opened, "k", &rows, &count) || count != MOVED)
            return __LINE__;
        for (size_t i = 0; i < count; i++) {
            size_t to = rows[i].kek_id == keks[0];
            moves[i] = (struct store_version_move){.dek_id = rows[i].dek_id,
                                                   .from_kek_id = rows[i].kek_id,
                                                   .from_blob = rows[i].blob,
                                                   .from_length = rows[i].blob_length,
                                                   .kek_id = keks[to],
                                                   .blob = blobs[to],
                                                   .blob_length = sizeof blobs[to],
                                                   .now = 1,
                                                   .actor = support_actor};
        }
        if (store_versions_rewrap(opened, moves, count))
            return __LINE__;
        for (size_t i = 0; i < count; i++)
            if (moves[i].status)
                return __LINE__;
        store_versions_free(rows, count);
        atomic_fetch_add(rounds, 1);
    }
}

static void kill_9_while_many_are_moved_leaves_each_under_one_kek(void **state)
{
    const struct support *s = *state;
    _Atomic uint32_t *rounds = mmap(NULL, sizeof *rounds, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(rounds != MAP_FAILED);
    store_close(support_create(s, MOVED - 1));
    uint64_t seed = (uint64_t)clock_wall();
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int kill_number = 0; kill_number < MOVE_KILLS; kill_number++) {
        const uint32_t until = atomic_load(rounds) + 1 + next_random(&seed) % 3;
        pid_t victim = fork();
        assert_true(victim >= 0);
        if (victim == 0)
            _exit(move_until_killed(s, rounds) % 255 + 1);
        while (atomic_load(rounds) < until && waitpid(victim, NULL, WNOHANG) == 0)
            usleep(100);
        usleep(next_random(&seed) % MORE_LIFE);
        assert_int_equal(kill(victim, SIGKILL), 0);
        assert_int_equal(waitpid(victim, NULL, 0), victim);
        /* All of a call's, or none: all are under one KEK, which is the one that their blobs name. */
        assert_int_equal(support_number(s, "SELECT count(DISTINCT kek_id) FROM encryption_key_version"), 1);
        assert_int_equal(support_number(s, "SELECT count(*) FROM encryption_key_version WHERE "
                                           "substr(CAST(encrypted_key_blob AS TEXT), 1, 20) <> "
                                           "printf('UNDER-KEK-%010d', kek_id)"),
                         0);
        /* And each has its row of history. */
        int64_t moved = support_number(s, "SELECT count(*) FROM encryption_key_history WHERE what = 'rewrap'");
        assert_true(moved % MOVED == 0 && moved / MOVED >= (int64_t)atomic_load(rounds));
        assert_true(moved / MOVED <= (int64_t)atomic_load(rounds) + kill_number + 1);
        store *opened = support_open(s);
        OK(store_check(opened));
        store_close(opened);
    }
    munmap(rounds, sizeof *rounds);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, support_setup, support_teardown)
    const struct CMUnitTest tests[] = {
        TEST(kill_9_during_200_rotations_loses_no_version),
        TEST(kill_9_while_a_store_is_made_leaves_one_that_can_be_made),
        TEST(kill_9_while_many_are_moved_leaves_each_under_one_kek),
    };
    return cmocka_run_group_tests_name("store, sqlite: kill -9", tests, NULL, NULL);
}
