/* C_Initialize, sessions and the login they share; children, and threads that go on while another one ends it all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/wait.h>

#include "sanitized.h"
#include "stub_service.h"

enum { THREADS = 8, CHILD_SECONDS = 60 };
static CK_UTF8CHAR right[] = STUB_PIN, wrong[] = "open barley";
static const CK_ULONG right_length = sizeof right - 1, wrong_length = sizeof wrong - 1;

static CK_RV make_mutex(void **mutex)
{
    *mutex = NULL;
    return CKR_OK;
}

static CK_RV use_mutex(void *mutex)
{
    (void)mutex;
    return CKR_OK;
}

static void the_arguments_of_c_initialize_decide(void **state)
{
    (void)state;
    char something;
    const struct {
        CK_C_INITIALIZE_ARGS args;
        CK_RV rv;
    } rows[] = {
        {{NULL, NULL, NULL, NULL, 0, NULL}, CKR_OK},
        {{NULL, NULL, NULL, NULL, CKF_OS_LOCKING_OK, NULL}, CKR_OK},
        {{NULL, NULL, NULL, NULL, CKF_LIBRARY_CANT_CREATE_OS_THREADS | CKF_OS_LOCKING_OK, NULL}, CKR_OK}, /* as NSS */
        {{make_mutex, use_mutex, use_mutex, use_mutex, CKF_OS_LOCKING_OK, NULL}, CKR_OK},
        {{make_mutex, use_mutex, use_mutex, use_mutex, 0, NULL}, CKR_CANT_LOCK},
        {{make_mutex, use_mutex, use_mutex, NULL, CKF_OS_LOCKING_OK, NULL}, CKR_ARGUMENTS_BAD},
        {{NULL, NULL, NULL, use_mutex, 0, NULL}, CKR_ARGUMENTS_BAD},
        {{NULL, NULL, NULL, NULL, CKF_OS_LOCKING_OK, &something}, CKR_ARGUMENTS_BAD},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CK_C_INITIALIZE_ARGS args = rows[i].args;
        CK_RV rv = p11->C_Initialize(&args);
        if (rv != rows[i].rv)
            fail_msg("row %zu: 0x%lx", i, rv);
        if (rv == CKR_OK)
            assert_rv(p11->C_Initialize(NULL), CKR_CRYPTOKI_ALREADY_INITIALIZED);
        assert_rv(p11->C_Finalize(NULL), rv == CKR_OK ? CKR_OK : CKR_CRYPTOKI_NOT_INITIALIZED);
    }
}

static void nothing_is_left_of_what_was_before_c_finalize(void **state)
{
    (void)state;
    CK_SESSION_INFO info;
    CK_SESSION_HANDLE old;
    assert_rv(p11->C_Initialize(NULL), CKR_OK);
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &old), CKR_OK);
    assert_rv(p11->C_Login(old, CKU_USER, right, right_length), CKR_OK);
    assert_rv(p11->C_FindObjectsInit(old, NULL, 0), CKR_OK);
    assert_rv(p11->C_Finalize(NULL), CKR_OK);
    assert_rv(p11->C_GetSessionInfo(old, &info), CKR_CRYPTOKI_NOT_INITIALIZED);
    assert_rv(p11->C_Initialize(NULL), CKR_OK);
    assert_rv(p11->C_GetSessionInfo(old, &info), CKR_SESSION_HANDLE_INVALID);
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &old), CKR_OK);
    assert_rv(p11->C_GetSessionInfo(old, &info), CKR_OK);
    assert_int_equal(info.state, CKS_RO_PUBLIC_SESSION);
    assert_rv(p11->C_Finalize(NULL), CKR_OK);
}

static CK_STATE state_of(CK_SESSION_HANDLE of)
{
    CK_SESSION_INFO info;
    assert_rv(p11->C_GetSessionInfo(of, &info), CKR_OK);
    assert_int_equal(info.ulDeviceError, 0);
    return info.state;
}

static void the_login_is_the_tokens_and_ends_with_its_last_session(void **state)
{
    (void)state;
    CK_SESSION_HANDLE reader;
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &reader), CKR_OK);
    assert_int_equal(state_of(session), CKS_RW_PUBLIC_SESSION);
    assert_rv(p11->C_Logout(session), CKR_USER_NOT_LOGGED_IN);
    assert_rv(p11->C_Login(session, CKU_USER, wrong, wrong_length), CKR_PIN_INCORRECT);
    assert_int_equal(state_of(session), CKS_RW_PUBLIC_SESSION);
    assert_rv(p11->C_Login(session, CKU_SO, right, right_length), CKR_USER_TYPE_INVALID);
    assert_rv(p11->C_Login(session, CKU_CONTEXT_SPECIFIC, right, right_length), CKR_OPERATION_NOT_INITIALIZED);
    assert_rv(p11->C_Login(session, CKU_USER, (CK_UTF8CHAR *)"a\nb", 3), CKR_PIN_INVALID);
    assert_rv(p11->C_Login(session, CKU_USER, right, ~0UL), CKR_PIN_LEN_RANGE);
    assert_rv(p11->C_Login(session, CKU_USER, right, right_length), CKR_OK);
    assert_int_equal(state_of(session), CKS_RW_USER_FUNCTIONS);
    assert_int_equal(state_of(reader), CKS_RO_USER_FUNCTIONS);
    assert_int_equal(state_of(writable), CKS_RW_PUBLIC_SESSION); /* another token */
    assert_rv(p11->C_Login(reader, CKU_USER, right, right_length), CKR_USER_ALREADY_LOGGED_IN);
    assert_rv(p11->C_Login(reader, CKU_USER, wrong, wrong_length), CKR_USER_ALREADY_LOGGED_IN);
    assert_rv(p11->C_Logout(reader), CKR_OK);
    assert_int_equal(state_of(session), CKS_RW_PUBLIC_SESSION);

    assert_rv(p11->C_Login(session, CKU_USER, NULL, 0), CKR_OK); /* the machine's own credentials */
    assert_rv(p11->C_CloseSession(session), CKR_OK);
    assert_int_equal(state_of(reader), CKS_RO_USER_FUNCTIONS);
    assert_rv(p11->C_CloseSession(reader), CKR_OK);
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &reader), CKR_OK);
    assert_int_equal(state_of(reader), CKS_RO_PUBLIC_SESSION);
    assert_rv(p11->C_Login(reader, CKU_USER, right, right_length), CKR_OK);
    assert_rv(p11->C_CloseAllSessions(STUB_SLOT), CKR_OK);
    assert_rv(p11->C_CloseSession(reader), CKR_SESSION_HANDLE_INVALID);
    assert_int_equal(state_of(writable), CKS_RW_PUBLIC_SESSION);
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &reader), CKR_OK);
    assert_int_equal(state_of(reader), CKS_RO_PUBLIC_SESSION);
}

static void sessions_are_many_but_not_without_end(void **state)
{
    (void)state;
    enum { MOST = 65535 };
    static CK_SESSION_HANDLE opened[MOST];
    CK_SESSION_HANDLE more;
    CK_TOKEN_INFO info;
    CK_ULONG count = 0;
    CK_RV rv;
    while ((rv = p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &more)) == CKR_OK) {
        assert_true(count < MOST);
        opened[count++] = more;
    }
    assert_rv(rv, CKR_SESSION_COUNT);
    assert_int_equal(count, MOST - 2); /* there were two */
    assert_rv(p11->C_GetTokenInfo(STUB_SLOT, &info), CKR_OK);
    assert_int_equal(info.ulSessionCount, MOST - 1);
    assert_int_equal(info.ulRwSessionCount, 1);
    for (CK_ULONG i = 100; i < 200; i++)
        assert_rv(p11->C_CloseSession(opened[i]), CKR_OK);
    for (CK_ULONG i = 100; i < 200; i++)
        assert_rv(p11->C_OpenSession(STUB_WRITABLE_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &opened[i]), CKR_OK);
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &more), CKR_SESSION_COUNT);
    assert_rv(p11->C_CloseAllSessions(STUB_SLOT), CKR_OK);
    assert_rv(p11->C_GetTokenInfo(STUB_SLOT, &info), CKR_OK);
    assert_int_equal(info.ulSessionCount, 0);
    assert_int_equal(state_of(opened[150]), CKS_RO_PUBLIC_SESSION);
}

static void a_user_name_goes_before_the_pin(void **state)
{
    (void)state;
    struct p11_interface *interface;
    assert_rv(stub_get_interface("PKCS 11", NULL, &interface, 0), CKR_OK);
    const struct p11_functions_3_0 *functions = interface->functions;
    CK_UTF8CHAR name[] = STUB_USER;
    assert_rv(functions->login_user(session, CKU_USER, right, right_length, name, 3), CKR_PIN_INCORRECT);
    assert_rv(functions->login_user(session, CKU_USER, right, right_length, name, sizeof name - 1), CKR_OK);
    assert_rv(functions->login_user(session, CKU_USER, right, right_length, NULL, 0), CKR_USER_ALREADY_LOGGED_IN);
    assert_rv(p11->C_Logout(session), CKR_OK);
    assert_rv(functions->login_user(session, CKU_USER, right, right_length, name, ~0UL), CKR_PIN_LEN_RANGE);
}

/* --- threads --- */

struct worker {
    pthread_t thread;
    bool knows;
    CK_RV rv;
};

static void *log_in(void *context)
{
    struct worker *worker = context;
    worker->rv =
        p11->C_Login(session, CKU_USER, worker->knows ? right : wrong, worker->knows ? right_length : wrong_length);
    return NULL;
}

static void *log_in_elsewhere(void *context)
{
    struct worker *worker = context;
    CK_SESSION_HANDLE own;
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &own), CKR_OK);
    worker->rv =
        p11->C_Login(own, CKU_USER, worker->knows ? right : wrong, worker->knows ? right_length : wrong_length);
    return NULL;
}

/* Of threads that log in at once one does; those that knew no PIN harm it not. */
static void a_wrong_pin_of_one_thread_logs_no_other_out(void **state)
{
    (void)state;
    atomic_store(&stub.slow_login, true);
    for (int round = 0; round < 20; round++) {
        struct worker workers[THREADS];
        unsigned in = 0;
        for (unsigned i = 0; i < THREADS; i++) {
            workers[i] = (struct worker){.knows = i % 2};
            assert_int_equal(
                pthread_create(&workers[i].thread, NULL, round % 2 ? log_in : log_in_elsewhere, &workers[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
            pthread_join(workers[i].thread, NULL);
            in += workers[i].rv == CKR_OK;
            if (workers[i].rv != CKR_OK && workers[i].rv != CKR_USER_ALREADY_LOGGED_IN)
                assert_rv(workers[i].rv, workers[i].knows ? CKR_OK : CKR_PIN_INCORRECT);
        }
        assert_int_equal(in, 1);
        assert_int_equal(state_of(session), CKS_RW_USER_FUNCTIONS);
        assert_rv(p11->C_Logout(session), CKR_OK);
    }
    atomic_store(&stub.slow_login, false);
}

static void *encrypt(void *context)
{
    struct worker *worker = context;
    CK_MECHANISM mechanism = {0x80000000UL | 0x454e5601UL, NULL, 0};
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_ATTRIBUTE template[] = {{CKA_LABEL, (void *)"kek", 3}, {CKA_CLASS, &class, sizeof class}};
    CK_SESSION_HANDLE own;
    CK_OBJECT_HANDLE key;
    CK_BYTE out[64];
    CK_ULONG length = sizeof out, found = 0;
    worker->rv = p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &own);
    if (worker->rv == CKR_OK)
        worker->rv = p11->C_FindObjectsInit(own, template, 2);
    if (worker->rv == CKR_OK)
        worker->rv = p11->C_FindObjects(own, &key, 1, &found);
    if (worker->rv == CKR_OK)
        worker->rv = found ? p11->C_EncryptInit(own, &mechanism, key) : CKR_GENERAL_ERROR;
    if (worker->rv == CKR_OK)
        worker->rv = p11->C_Encrypt(own, (CK_BYTE *)"text", 4, out, &length);
    return NULL;
}

static void wait_until_held(unsigned count)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    while (atomic_load(&stub.held) < count)
        nanosleep(&moment, NULL);
}

static void calls_under_way_survive_c_finalize(void **state)
{
    (void)state;
    struct worker workers[THREADS];
    CK_SESSION_HANDLE own;
    assert_rv(p11->C_Initialize(NULL), CKR_OK);
    atomic_store(&stub.hold, true);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){0};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, encrypt, &workers[i]), 0);
    }
    wait_until_held(THREADS);
    assert_rv(p11->C_Finalize(NULL), CKR_OK);
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &own), CKR_CRYPTOKI_NOT_INITIALIZED);
    /* The next life of the module does not wait for the last one's. */
    assert_rv(p11->C_Initialize(NULL), CKR_OK);
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &own), CKR_OK);
    atomic_store(&stub.hold, false);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_rv(workers[i].rv, CKR_OK);
    }
    assert_rv(p11->C_Finalize(NULL), CKR_OK);
}

static void *until_it_ends(void *context)
{
    struct worker *worker = context;
    do {
        encrypt(worker);
    } while (worker->rv == CKR_OK);
    return NULL;
}

static void threads_find_out_that_the_module_has_ended(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct worker workers[THREADS];
        assert_rv(p11->C_Initialize(NULL), CKR_OK);
        unsigned before = atomic_load(&stub.asked[BACKEND_ENCRYPT]);
        for (unsigned i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&workers[i].thread, NULL, until_it_ends, &workers[i]), 0);
        while (atomic_load(&stub.asked[BACKEND_ENCRYPT]) < before + THREADS)
            ;
        assert_rv(p11->C_Finalize(NULL), CKR_OK);
        for (unsigned i = 0; i < THREADS; i++) {
            pthread_join(workers[i].thread, NULL);
            assert_rv(workers[i].rv, CKR_CRYPTOKI_NOT_INITIALIZED);
        }
    }
}

static void *close_while_held(void *context)
{
    struct worker *worker = context;
    wait_until_held(1);
    worker->rv = p11->C_CloseAllSessions(STUB_SLOT);
    atomic_store(&stub.hold, false);
    return NULL;
}

static void a_session_closed_amid_a_call_ends_after_it(void **state)
{
    (void)state;
    struct worker closer = {0}, caller = {0};
    atomic_store(&stub.hold, true);
    assert_int_equal(pthread_create(&closer.thread, NULL, close_while_held, &closer), 0);
    encrypt(&caller);
    pthread_join(closer.thread, NULL);
    assert_rv(caller.rv, CKR_OK);
    assert_rv(closer.rv, CKR_OK);
    CK_TOKEN_INFO info;
    assert_rv(p11->C_GetTokenInfo(STUB_SLOT, &info), CKR_OK);
    assert_int_equal(info.ulSessionCount, 0);
}

static void a_login_ends_with_the_last_session_that_was_closed_amid_it(void **state)
{
    (void)state;
    struct worker worker = {.knows = true};
    CK_SESSION_HANDLE next;
    atomic_store(&stub.hold, true);
    assert_int_equal(pthread_create(&worker.thread, NULL, log_in, &worker), 0);
    wait_until_held(1);
    assert_rv(p11->C_CloseAllSessions(STUB_SLOT), CKR_OK);
    atomic_store(&stub.hold, false);
    pthread_join(worker.thread, NULL);
    assert_rv(worker.rv, CKR_SESSION_CLOSED);
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &next), CKR_OK);
    assert_int_equal(state_of(next), CKS_RO_PUBLIC_SESSION);
}

/* Each has its own deadline, however many stand in line before it. */
static void a_login_waits_for_those_of_others_only_until_its_deadline(void **state)
{
    (void)state;
    struct worker first = {.knows = true}, others[THREADS];
    atomic_store(&stub.hold, true);
    assert_int_equal(pthread_create(&first.thread, NULL, log_in, &first), 0);
    wait_until_held(1);
    for (unsigned i = 0; i < THREADS; i++) {
        others[i] = (struct worker){.knows = true};
        assert_int_equal(pthread_create(&others[i].thread, NULL, log_in_elsewhere, &others[i]), 0);
    }
    /* The first is never let go meanwhile: they come back by themselves. */
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(others[i].thread, NULL);
        assert_rv(others[i].rv, CKR_DEVICE_ERROR);
    }
    atomic_store(&stub.hold, false);
    pthread_join(first.thread, NULL);
    assert_rv(first.rv, CKR_OK);
    assert_int_equal(state_of(session), CKS_RW_USER_FUNCTIONS);
}

/* --- children --- */

static int in_child(void)
{
    struct worker worker = {0};
    CK_SESSION_INFO info;
    alarm(CHILD_SECONDS); /* a hang must not outlive the test */
    if (p11->C_GetSessionInfo(session, &info) != CKR_CRYPTOKI_NOT_INITIALIZED ||
        p11->C_Finalize(NULL) != CKR_CRYPTOKI_NOT_INITIALIZED)
        return 2;
    if (p11->C_Initialize(NULL) != CKR_OK)
        return 3;
    if (p11->C_GetSessionInfo(session, &info) != CKR_SESSION_HANDLE_INVALID)
        return 4;
    encrypt(&worker);
    if (worker.rv != CKR_OK)
        return 5;
    return p11->C_Finalize(NULL) == CKR_OK ? 0 : 6;
}

static void fork_once(void)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(in_child());
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    assert_int_equal(status, 0);
}

static void a_child_begins_anew_and_its_parent_goes_on(void **state)
{
    (void)state;
    assert_rv(p11->C_Login(session, CKU_USER, right, right_length), CKR_OK);
    fork_once();
    assert_int_equal(state_of(session), CKS_RW_USER_FUNCTIONS);
}

static void a_child_forked_beside_busy_threads_begins_anew(void **state)
{
    (void)state;
    SKIP_WHERE_FORK_BREAKS_MALLOC();
    struct worker workers[THREADS];
    assert_rv(p11->C_Initialize(NULL), CKR_OK);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, until_it_ends, &workers[i]), 0);
    for (int i = 0; i < 10; i++)
        fork_once();
    assert_rv(p11->C_Finalize(NULL), CKR_OK);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, stub_start, stub_stop)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_arguments_of_c_initialize_decide),
        cmocka_unit_test(nothing_is_left_of_what_was_before_c_finalize),
        T(the_login_is_the_tokens_and_ends_with_its_last_session),
        T(sessions_are_many_but_not_without_end),
        T(a_user_name_goes_before_the_pin),
        T(a_wrong_pin_of_one_thread_logs_no_other_out),
        cmocka_unit_test(calls_under_way_survive_c_finalize),
        cmocka_unit_test(threads_find_out_that_the_module_has_ended),
        T(a_session_closed_amid_a_call_ends_after_it),
        T(a_login_ends_with_the_last_session_that_was_closed_amid_it),
        T(a_login_waits_for_those_of_others_only_until_its_deadline),
        T(a_child_begins_anew_and_its_parent_goes_on),
        cmocka_unit_test(a_child_forked_beside_busy_threads_begins_anew),
    };
    return cmocka_run_group_tests(tests, stub_set_up, stub_tear_down);
}
