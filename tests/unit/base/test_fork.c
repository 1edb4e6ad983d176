#include "base_test.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handlers_run_newest_first_and_once_each),
        cmocka_unit_test(every_descendant_has_another_generation),
        cmocka_unit_test(more_handlers_than_there_is_room_for_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
