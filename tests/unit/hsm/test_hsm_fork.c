/* fork: before first use, after it, while other threads are inside the token, while one hangs there. */
#include "hsm_fixture.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "fault_module.h"
#include "sanitized.h"

enum { CHILD_PATIENCE = 60 /* seconds until a hanging child is ended by its alarm */ };

static uint8_t *blob;
static size_t blob_length;

static int make_blob(void)
{
    uint8_t dek[HSM_DEK_SIZE];
    if (blob)
        return 0;
    return hsm_generate_dek(fixture.hsm, fixture.rig.kek, dek) == ENVELOPE_OK &&
                   hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &blob, &blob_length) == ENVELOPE_OK
               ? 0
               : -1;
}

static envelope_status unwrap_blob(void)
{
    uint8_t dek[HSM_DEK_SIZE];
    return hsm_unwrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, blob, blob_length, dek);
}

static pid_t start_child(envelope_status (*work)(void))
{
    pid_t child = fork();
    if (child != 0)
        return child;
    alarm(CHILD_PATIENCE);
    envelope_status status = work();
    if (status != ENVELOPE_OK && *error_text())
        fprintf(stderr, "child: %s\n", error_text());
    _exit((int)status);
}

static void assert_child(pid_t child, envelope_status expected)
{
    int how = 0;
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &how, 0), child);
    if (!WIFEXITED(how))
        fail_msg("the child was ended by signal %d", WTERMSIG(how));
    assert_int_equal(WEXITSTATUS(how), expected);
}

static void child_forked_before_first_use_works(void **state)
{
    (void)state;
    pid_t child = start_child(unwrap_blob);
    assert_status(unwrap_blob(), ENVELOPE_OK);
    assert_child(child, ENVELOPE_OK);
}

static envelope_status unwrap_twice_without_login(void)
{
    struct hsm_counters before, after;
    hsm_count(fixture.hsm, &before);
    envelope_status status = unwrap_blob();
    if (status == ENVELOPE_OK)
        status = unwrap_blob();
    hsm_count(fixture.hsm, &after);
    if (status == ENVELOPE_OK && (after.sessions_opened != before.sessions_opened + 1 || after.logins != before.logins))
        return error_raise(ENVELOPE_E_INTERNAL, "the child used inherited sessions, or logged in again");
    return status;
}

/* SoftHSM keeps its state over fork (unless reset_on_fork), and rewrites token.object at each login. */
static void child_forked_after_use_opens_its_own_session(void **state)
{
    (void)state;
    assert_status(unwrap_blob(), ENVELOPE_OK);
    assert_child(start_child(unwrap_twice_without_login), ENVELOPE_OK);
    assert_status(unwrap_blob(), ENVELOPE_OK);
}

static void child_after_reset_on_fork_connects_anew(void **state)
{
    (void)state;
    assert_status(unwrap_blob(), ENVELOPE_OK);
    assert_child(start_child(unwrap_blob), ENVELOPE_OK);
    assert_status(unwrap_blob(), ENVELOPE_OK);
}

static envelope_status fork_again(void)
{
    envelope_status status = unwrap_blob();
    if (status != ENVELOPE_OK)
        return status;
    int how = 0;
    pid_t child = start_child(unwrap_blob);
    if (waitpid(child, &how, 0) != child || !WIFEXITED(how))
        return ENVELOPE_E_INTERNAL;
    return (envelope_status)WEXITSTATUS(how);
}

static void grandchild_works(void **state)
{
    (void)state;
    assert_status(unwrap_blob(), ENVELOPE_OK);
    assert_child(start_child(fork_again), ENVELOPE_OK);
}

static _Atomic bool stop;
static _Atomic int failures;

static void *unwrap_all_the_time(void *argument)
{
    (void)argument;
    while (!stop)
        if (unwrap_blob() != ENVELOPE_OK) {
            fprintf(stderr, "thread: %s\n", error_text());
            failures++;
        }
    return NULL;
}

enum { THREADS = 4, FORKS = 40 };

static void *fork_all_the_time(void *argument)
{
    (void)argument;
    for (int i = 0; i < FORKS; i++) {
        int how = 0;
        pid_t child = start_child(unwrap_blob);
        if (child <= 0 || waitpid(child, &how, 0) != child || how != 0) {
            fprintf(stderr, "child %d of %d: wait status 0x%x\n", i, FORKS, (unsigned)how);
            failures++;
        }
    }
    return NULL;
}

static void children_forked_while_threads_are_inside_work(void **state)
{
    pthread_t users[THREADS], forkers[2];
    (void)state;
    SKIP_WHERE_FORK_BREAKS_MALLOC();
    fixture.settings.sessions = 3;
    fixture_renew();
    stop = false;
    failures = 0;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&users[i], NULL, unwrap_all_the_time, NULL), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&forkers[i], NULL, fork_all_the_time, NULL), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(forkers[i], NULL);
    stop = true;
    for (int i = 0; i < THREADS; i++)
        pthread_join(users[i], NULL);
    assert_int_equal(failures, 0);
}

static void *unwrap_once(void *result)
{
    *(envelope_status *)result = unwrap_blob();
    return NULL;
}

static envelope_status unwrap_and_say(void)
{
    envelope_status status = unwrap_blob();
    bool said = strstr(error_text(), "forked") != NULL;
    error_clear();
    return said ? status : ENVELOPE_E_INTERNAL;
}

/* A token's mutex that is locked at fork is locked in the child for good: so an error, at once, not a hang. */
static void fork_waits_for_a_hanging_thread_only_until_the_deadline(void **state)
{
    static char module[] = FAULT_MODULE;
    pthread_t thread;
    envelope_status result = ENVELOPE_E_INTERNAL;
    (void)state;
    void *handle = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(handle);
    struct fault_control *control = dlsym(handle, "fault_control");
    assert_non_null(control);
    fixture.settings.module = module;
    fixture.settings.deadline = CLOCK_SECOND;
    fixture_renew();
    assert_status(unwrap_blob(), ENVELOPE_OK);
    control->call[FAULT_DECRYPT].hang = true;
    assert_int_equal(pthread_create(&thread, NULL, unwrap_once, &result), 0);
    while (control->call[FAULT_DECRYPT].hanging == 0)
        usleep(1000);
    int64_t begun = clock_monotonic();
    pid_t child = start_child(unwrap_and_say);
    int64_t took = clock_monotonic() - begun;
    assert_child(child, ENVELOPE_E_HSM_UNAVAILABLE);
    control->call[FAULT_DECRYPT].hang = false;
    pthread_join(thread, NULL);
    assert_int_equal(result, ENVELOPE_OK);
    assert_true(took >= CLOCK_SECOND);
    /* Nobody inside now: the next child is well. */
    assert_child(start_child(unwrap_blob), ENVELOPE_OK);
}

static int group_setup(void **state)
{
    if (fixture_group_setup(state) != 0 || fixture_setup(state) != 0 || make_blob() != 0)
        return -1;
    return fixture_teardown(state);
}

/* The same rig with library.reset_on_fork: the module is not initialised in a child. */
static int group_setup_reset(void **state)
{
    (void)state;
    if (!softhsm_rig_make_empty(&fixture.rig))
        return -1;
    FILE *config = fopen(fixture.rig.config, "a");
    if (!config || fputs("library.reset_on_fork = true\n", config) < 0 || fclose(config) != 0)
        return -1;
    if (fixture_setup(NULL) != 0 ||
        hsm_token_init(fixture.hsm, NULL, "rig", SOFTHSM_RIG_SO_PIN, SOFTHSM_RIG_PIN) != ENVELOPE_OK ||
        hsm_kek_generate(fixture.hsm, fixture.rig.kek) != ENVELOPE_OK || make_blob() != 0)
        return -1;
    return fixture_teardown(NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(child_forked_before_first_use_works),
        TEST(child_forked_after_use_opens_its_own_session),
        TEST(grandchild_works),
        TEST(children_forked_while_threads_are_inside_work),
        TEST(fork_waits_for_a_hanging_thread_only_until_the_deadline),
    };
    const struct CMUnitTest reset[] = {
        TEST(child_forked_before_first_use_works),
        TEST(child_after_reset_on_fork_connects_anew),
        TEST(grandchild_works),
        TEST(children_forked_while_threads_are_inside_work),
    };
    /* SoftHSM reads its configuration once a process, so each group has its own. */
    int how = 0;
    pid_t other = fork();
    if (other == 0)
        return cmocka_run_group_tests(reset, group_setup_reset, fixture_group_teardown);
    int failed = cmocka_run_group_tests(tests, group_setup, fixture_group_teardown);
    if (other < 0 || waitpid(other, &how, 0) != other || how != 0)
        failed++;
    return failed;
}
