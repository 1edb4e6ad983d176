/* Forks in every situation: no child believes in locks that are its parent's. */
#include "sqlite_support.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "sanitized.h"
#include "store/sqlite.h"

enum { WRITERS = 3, CHILDREN = 24, TURNS = 8 };

/* Shared with children: what was promised to be in the store. */
struct promises {
    _Atomic unsigned rotations;
    _Atomic unsigned messages;
    _Atomic unsigned stop;
};

static struct promises *make_promises(void)
{
    struct promises *promises = mmap(NULL, sizeof *promises, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(promises != MAP_FAILED);
    return promises;
}

struct writer {
    store *opened;
    struct promises *promises;
    char name[32];
    int failed;
};

static int write_once(store *opened, const char *name, struct promises *promises)
{
    int line = support_rotate(opened, name);
    if (line)
        return line;
    atomic_fetch_add(&promises->rotations, 1);
    struct store_version primary;
    uint64_t granted = 0, reserved, limit;
    if (store_version_of(opened, name, 0, &primary))
        return __LINE__;
    uint32_t dek_id = primary.dek_id;
    store_version_clear(&primary);
    if (store_messages_reserve(opened, dek_id, 5, &granted, &reserved, &limit))
        return __LINE__;
    atomic_fetch_add(&promises->messages, (unsigned)granted);
    return 0;
}

static void *write_until_stopped(void *argument)
{
    struct writer *writer = argument;
    while (!writer->failed && !atomic_load(&writer->promises->stop))
        writer->failed = write_once(writer->opened, writer->name, writer->promises);
    if (writer->failed)
        fprintf(stderr, "%s, line %d: %s\n", writer->name, writer->failed, error_text());
    return NULL;
}

/* One child: its own key, through the handle it inherited; every third has a child itself in the middle of it. */
static int be_a_child(store *opened, int index, struct promises *promises)
{
    char name[32];
    snprintf(name, sizeof name, "child %d", index);
    int line = support_create_key(opened, name);
    for (int turn = 0; !line && turn < TURNS; turn++) {
        line = write_once(opened, name, promises);
        if (index % 3 != 0 || turn != TURNS / 2 || line)
            continue;
        pid_t grandchild = fork();
        if (grandchild == 0)
            _exit(be_a_child(opened, 1000 + index * 3 + 1, promises) != 0);
        line = write_once(opened, name, promises);
        int status = 0;
        if (waitpid(grandchild, &status, 0) != grandchild || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
            return __LINE__;
    }
    return line;
}

static void fork_children(store *opened, struct promises *promises, pid_t children[CHILDREN])
{
    for (int i = 0; i < CHILDREN; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            int line = be_a_child(opened, i, promises);
            if (line)
                fprintf(stderr, "child %d, line %d: %s\n", i, line, error_text());
            _exit(line != 0);
        }
        usleep(2000);
    }
}

static void wait_for_children(const pid_t children[CHILDREN])
{
    int failed = 0;
    for (int i = 0; i < CHILDREN; i++) {
        int status = 0;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    assert_int_equal(failed, 0);
}

static void check_promises(const struct support *s, store *opened, const struct promises *promises, int keys)
{
    OK(store_check(opened));
    assert_int_equal(support_number(s, "SELECT count(*) FROM encryption_key"), keys);
    assert_int_equal(support_number(s, "SELECT count(*) FROM encryption_key_version"),
                     (int64_t)promises->rotations + keys);
    assert_int_equal(support_number(s, "SELECT sum(messages_reserved) FROM encryption_key_version"),
                     promises->messages);
    assert_int_equal(support_number(s, "SELECT count(*) FROM encryption_key_history"),
                     (int64_t)promises->rotations + keys);
    assert_int_equal(support_number(s, "SELECT change_counter FROM store_meta"),
                     (int64_t)promises->rotations + keys + 1);
}

static void a_fork_storm_with_everybody_writing_loses_nothing(void **state)
{
    const struct support *s = *state;
    SKIP_WHERE_FORK_BREAKS_MALLOC();
    struct promises *promises = make_promises();
    store *opened = NULL;
    OK(store_create(s->url, SUPPORT_DEADLINE, &opened, NULL));
    struct writer writers[WRITERS];
    pthread_t threads[WRITERS];
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.opened = opened, .promises = promises};
        snprintf(writers[i].name, sizeof writers[i].name, "parent's thread %d", i);
        assert_int_equal(support_create_key(opened, writers[i].name), 0);
        assert_int_equal(pthread_create(&threads[i], NULL, write_until_stopped, &writers[i]), 0);
    }
    pid_t children[CHILDREN];
    fork_children(opened, promises, children);
    wait_for_children(children);
    atomic_store(&promises->stop, 1);
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(writers[i].failed, 0);
    }
    check_promises(s, opened, promises, WRITERS + CHILDREN + CHILDREN / 3);
    store_close(opened);
    munmap(promises, sizeof *promises);
}

/* Threads that fork at the same time meet in the same handlers. */
static void *fork_some(void *argument)
{
    struct writer *writer = argument;
    for (int i = 0; i < 6 && !writer->failed; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(write_once(writer->opened, writer->name, writer->promises) != 0);
        int status = 0;
        if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
            writer->failed = __LINE__;
        if (!writer->failed)
            writer->failed = write_once(writer->opened, writer->name, writer->promises);
    }
    return NULL;
}

static void threads_may_fork_at_the_same_time(void **state)
{
    const struct support *s = *state;
    SKIP_WHERE_FORK_BREAKS_MALLOC();
    struct promises *promises = make_promises();
    store *opened = NULL;
    OK(store_create(s->url, SUPPORT_DEADLINE, &opened, NULL));
    struct writer writers[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        writers[i] = (struct writer){.opened = opened, .promises = promises};
        snprintf(writers[i].name, sizeof writers[i].name, "forking thread %d", i);
        assert_int_equal(support_create_key(opened, writers[i].name), 0);
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fork_some, &writers[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(writers[i].failed, 0);
    }
    assert_int_equal(promises->rotations, 4 * 6 * 2);
    check_promises(s, opened, promises, 4);
    store_close(opened);
    munmap(promises, sizeof *promises);
}

/* ---- a child that outlives the lock's owner ---- */

/* Which of SQLite's locks on the -shm does the kernel know of? Asked by a process that has none itself. */
static bool shm_is_locked(const struct support *s)
{
    char path[SUPPORT_PATH_MAX + 32];
    support_path(s, "-shm", path);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    enum { DEAD_MAN_SWITCH = 128 }; /* SQLite's UNIX_SHM_DMS: held by everybody who uses the -shm */
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = DEAD_MAN_SWITCH, .l_len = 1};
    bool locked = fcntl(fileno(file), F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    fclose(file);
    return locked;
}

static int ask_about_locks(const struct support *s, void *argument)
{
    return shm_is_locked(s) == *(bool *)argument ? 0 : __LINE__;
}

static void a_child_holds_its_own_locks_after_its_parent_let_go(void **state)
{
    const struct support *s = *state;
    store *opened = support_create(s, 1);
    int ready[2], done[2];
    char byte;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(pipe2(done, O_CLOEXEC), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        uint64_t counter;
        bool failed = store_change_counter(opened, &counter) != ENVELOPE_OK || write(ready[1], "r", 1) != 1;
        _exit(failed || read(done[0], &byte, 1) != 1);
    }
    /* The parent's locks go; what the kernel knows of now can only be the child's. */
    assert_int_equal(read(ready[0], &byte, 1), 1);
    store_close(opened);
    bool locked = true;
    support_in_child(ask_about_locks, s, &locked);
    assert_int_equal(write(done[1], "d", 1), 1);
    int status = 0;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    locked = false;
    support_in_child(ask_about_locks, s, &locked);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(done[i]);
    }
}

/* ---- forks that could not wait ---- */

struct holder {
    struct sqlite_store *sqlite;
    pthread_barrier_t inside, leave;
};

static void *stay_inside(void *argument)
{
    struct holder *holder = argument;
    struct connection *c = NULL;
    if (store_sqlite_begin(holder->sqlite, TRANSACTION_WRITE, &c))
        return (void *)"could not begin";
    pthread_barrier_wait(&holder->inside);
    pthread_barrier_wait(&holder->leave);
    return store_sqlite_end(c, ENVELOPE_OK) ? (void *)"could not end" : NULL;
}

static int is_refused_for_good(const struct support *s, void *argument)
{
    store *inherited = argument, *opened = NULL;
    uint64_t counter;
    for (int i = 0; i < 3; i++) {
        CHILD(store_change_counter(inherited, &counter), ENVELOPE_E_STORE_UNAVAILABLE, "was forked while");
        CHILD(store_dek_id_reserve(inherited, &(uint32_t){0}), ENVELOPE_E_STORE_UNAVAILABLE, s->path);
        CHILD(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_UNAVAILABLE, "start this process anew");
    }
    store_close(inherited);
    /* Nor may a child of it. */
    pid_t grandchild = fork();
    if (grandchild == 0)
        _exit(store_open(s->url, SUPPORT_DEADLINE, &opened) != ENVELOPE_E_STORE_UNAVAILABLE);
    int status = 0;
    waitpid(grandchild, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : __LINE__;
}

static void a_child_of_a_fork_that_could_not_wait_is_refused(void **state)
{
    const struct support *s = *state;
    store_close(support_create(s, 0));
    store *opened = NULL;
    OK(store_open(s->url, 50000, &opened));
    struct holder holder = {.sqlite = store_sqlite_of(opened)};
    pthread_t thread;
    pthread_barrier_init(&holder.inside, NULL, 2);
    pthread_barrier_init(&holder.leave, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, stay_inside, &holder), 0);
    pthread_barrier_wait(&holder.inside);
    support_in_child(is_refused_for_good, s, opened);
    pthread_barrier_wait(&holder.leave);
    void *failed = NULL;
    pthread_join(thread, &failed);
    assert_null(failed);
    /* The parent goes on, and so do children of later forks. */
    uint64_t counter;
    OK(store_change_counter(opened, &counter));
    pid_t later = fork();
    assert_true(later >= 0);
    if (later == 0)
        _exit(support_rotate(opened, "k") != 0);
    int status = 0;
    waitpid(later, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(store_check(opened));
    store_close(opened);
    pthread_barrier_destroy(&holder.inside);
    pthread_barrier_destroy(&holder.leave);
}

static void a_child_made_without_handlers_is_refused(void **state)
{
    const struct support *s = *state;
    store *opened = support_create(s, 0);
    pid_t child = _Fork();
    assert_true(child >= 0);
    if (child == 0) {
        uint64_t counter;
        _exit(store_change_counter(opened, &counter) != ENVELOPE_E_STORE_UNAVAILABLE ||
              !strstr(error_text(), "was forked while"));
    }
    int status = 0;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(store_check(opened));
    store_close(opened);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, support_setup, support_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_fork_storm_with_everybody_writing_loses_nothing),
        TEST(threads_may_fork_at_the_same_time),
        TEST(a_child_holds_its_own_locks_after_its_parent_let_go),
        TEST(a_child_of_a_fork_that_could_not_wait_is_refused),
        TEST(a_child_made_without_handlers_is_refused),
    };
    return cmocka_run_group_tests_name("store, sqlite: forks", tests, NULL, NULL);
}
