#include "base_test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "base/fork.h"

static char trail[64];

static void note(char what)
{
    size_t used = strlen(trail);
    trail[used] = what;
    trail[used + 1] = '\0';
}

static void first_prepare(void)
{
    note('1');
}
static void first_parent(void)
{
    note('p');
}
static void first_child(void)
{
    note('c');
}
static void second_prepare(void)
{
    note('2');
}

static const struct fork_handler first = {first_prepare, first_parent, first_child};
static const struct fork_handler second = {second_prepare, NULL, NULL};

static int child_sees_its_handlers(void *unused)
{
    (void)unused;
    return strcmp(trail, "21c") == 0 ? 0 : 1;
}

static void handlers_run_newest_first_and_once_each(void **state)
{
    (void)state;
    fork_add_handler(&first);
    fork_add_handler(&second);
    fork_add_handler(&first);
    trail[0] = '\0';
    assert_child_succeeds(child_sees_its_handlers, NULL);
    assert_string_equal(trail, "21p");
}

static int generation_differs(void *parents)
{
    uint64_t mine = fork_generation();
    if (mine == *(uint64_t *)parents)
        return 1;
    int status;
    pid_t grandchild = fork();
    if (grandchild == 0)
        _exit(fork_generation() == mine || fork_generation() == *(uint64_t *)parents);
    return waitpid(grandchild, &status, 0) == grandchild && WIFEXITED(status) ? WEXITSTATUS(status) : 3;
}

static void every_descendant_has_another_generation(void **state)
{
    (void)state;
    uint64_t mine = fork_generation();
    assert_child_succeeds(generation_differs, &mine);
    assert_true(fork_generation() == mine);
}

static void more_handlers_than_there_is_room_for_do_no_harm(void **state)
{
    (void)state;
    static struct fork_handler many[12];
    for (size_t i = 0; i < COUNT(many); i++)
        fork_add_handler(&many[i]);
    trail[0] = '\0';
    assert_child_succeeds(child_sees_its_handlers, NULL);
}

static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int stage;

static void library_prepare(void)
{
    pthread_mutex_lock(&library_lock);
}
static void library_after(void)
{
    pthread_mutex_unlock(&library_lock);
}

/* Inside the library: it is left only if nobody holds its lock. */
static void *inside(void *unused)
{
    (void)unused;
    stage = 1;
    while (stage == 1)
        sched_yield();
    pthread_mutex_lock(&library_lock);
    pthread_mutex_unlock(&library_lock);
    stage = 3;
    return NULL;
}

static void wait_for_it(void)
{
    if (stage != 1)
        return;
    stage = 2;
    for (int i = 0; i < 5000 && stage != 3; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static const struct fork_handler waiting = {.prepare = wait_for_it};

static int succeed(void *unused)
{
    (void)unused;
    return 0;
}

static void ours_run_before_those_of_a_library_that_was_loaded_later(void **state)
{
    (void)state;
    pthread_t thread;
    fork_add_handler(&waiting);
    pthread_atfork(library_prepare, library_after, library_after);
    fork_go_first();
    assert_int_equal(pthread_create(&thread, NULL, inside, NULL), 0);
    pthread_detach(thread); /* to a sanitizer in the child it would be one that nobody joined */
    while (stage != 1)
        sched_yield();
    assert_child_succeeds(succeed, NULL);
    assert_int_equal(stage, 3); /* before, not after the fork */
    trail[0] = '\0';
    assert_child_succeeds(child_sees_its_handlers, NULL);
    assert_string_equal(trail, "21p");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handlers_run_newest_first_and_once_each),
        cmocka_unit_test(ours_run_before_those_of_a_library_that_was_loaded_later),
        cmocka_unit_test(every_descendant_has_another_generation),
        cmocka_unit_test(more_handlers_than_there_is_room_for_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
