/* Credentials are renewed before they end, by one thread, while the others go on; nobody waits past its deadline. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "login.h"

enum { HOUR = 3600, WORKERS = 8 };

static _Atomic int64_t now;

static int64_t clock_of_the_test(void)
{
    return atomic_load(&now);
}

static void pass(int64_t seconds)
{
    atomic_fetch_add(&now, seconds * CLOCK_SECOND);
}

/* A service that gives credentials "1", "2", …, each good for an hour; it can be made to fail, or to be slow. */
struct service {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool slow, fails, asked;
    unsigned given;
    int64_t life;
};

static void service_init(struct service *service)
{
    *service = (struct service){.life = HOUR};
    pthread_mutex_init(&service->lock, NULL);
    pthread_cond_init(&service->changed, NULL);
}

static CK_RV fetch(void *context, const char *pin, struct credentials *previous, int64_t deadline,
                   struct credentials **made)
{
    struct service *service = context;
    char id[16];
    (void)pin, (void)previous, (void)deadline;
    pthread_mutex_lock(&service->lock);
    service->asked = true;
    pthread_cond_broadcast(&service->changed);
    while (service->slow)
        pthread_cond_wait(&service->changed, &service->lock);
    bool fails = service->fails;
    snprintf(id, sizeof id, "%u", service->given + !fails);
    service->given += !fails;
    pthread_mutex_unlock(&service->lock);
    if (fails) {
        error_raise(ENVELOPE_E_HSM_LOGIN, "it gives none");
        return CKR_USER_NOT_LOGGED_IN;
    }
    *made = credentials_new(id, "s", "t", service->life ? clock_wall() + service->life * CLOCK_SECOND : 0);
    return *made ? CKR_OK : CKR_HOST_MEMORY;
}

static void set_slow(struct service *service, bool slow)
{
    pthread_mutex_lock(&service->lock);
    service->slow = slow;
    service->asked = false;
    pthread_cond_broadcast(&service->changed);
    pthread_mutex_unlock(&service->lock);
}

static void until_asked(struct service *service)
{
    pthread_mutex_lock(&service->lock);
    while (!service->asked)
        pthread_cond_wait(&service->changed, &service->lock);
    pthread_mutex_unlock(&service->lock);
}

struct worker {
    pthread_t thread;
    struct login *login;
    struct service *service;
    CK_RV rv;
    char id[16];
};

static void *work(void *context)
{
    struct worker *worker = context;
    struct credentials *got = NULL;
    worker->rv = login_get(worker->login, fetch, worker->service, clock_monotonic() + 1000 * CLOCK_SECOND, &got);
    snprintf(worker->id, sizeof worker->id, "%s", got ? credentials_id(got) : "");
    credentials_unref(got);
    return NULL;
}

static void start(struct worker *worker, struct login *login, struct service *service)
{
    *worker = (struct worker){.login = login, .service = service};
    assert_int_equal(pthread_create(&worker->thread, NULL, work, worker), 0);
}

static void assert_gets(struct login *login, struct service *service, const char *id)
{
    struct worker worker = {.login = login, .service = service};
    work(&worker);
    assert_int_equal(worker.rv, CKR_OK);
    assert_string_equal(worker.id, id);
}

static int set_up(void **state)
{
    (void)state;
    atomic_store(&now, INT64_C(1795413600) * CLOCK_SECOND);
    clock_set_source(clock_of_the_test);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    clock_set_source(NULL);
    return 0;
}

static void one_thread_renews_and_the_others_go_on_with_what_still_works(void **state)
{
    (void)state;
    struct service service;
    struct worker renewing;
    struct login *login = login_new();
    service_init(&service);
    assert_gets(login, &service, "1");
    pass(HOUR - 301);
    assert_gets(login, &service, "1"); /* not yet */
    pass(2);
    set_slow(&service, true);
    start(&renewing, login, &service);
    until_asked(&service);
    for (int i = 0; i < WORKERS; i++)
        assert_gets(login, &service, "1"); /* would wait for ever if they waited for it */
    set_slow(&service, false);
    pthread_join(renewing.thread, NULL);
    assert_string_equal(renewing.id, "2");
    assert_gets(login, &service, "2");
    assert_int_equal(service.given, 2);
    login_free(login);
}

static void what_cannot_be_renewed_serves_until_its_end(void **state)
{
    (void)state;
    struct service service;
    struct worker worker;
    struct login *login = login_new();
    service_init(&service);
    assert_gets(login, &service, "1");
    service.fails = true;
    pass(HOUR - 200);
    assert_gets(login, &service, "1");
    service.asked = false;
    assert_gets(login, &service, "1");
    assert_false(service.asked); /* not at every call: it is given some time */
    pass(31);
    assert_gets(login, &service, "1");
    assert_true(service.asked);
    pass(200);
    start(&worker, login, &service);
    pthread_join(worker.thread, NULL);
    assert_int_equal(worker.rv, CKR_USER_NOT_LOGGED_IN);
    service.fails = false;
    assert_gets(login, &service, "2");
    login_free(login);
}

static void threads_without_credentials_share_one_answer(void **state)
{
    (void)state;
    struct service service;
    struct worker workers[WORKERS];
    struct login *login = login_new();
    service_init(&service);
    set_slow(&service, true);
    for (int i = 0; i < WORKERS; i++)
        start(&workers[i], login, &service);
    until_asked(&service);
    set_slow(&service, false);
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].rv, CKR_OK);
        assert_string_equal(workers[i].id, "1");
    }
    assert_int_equal(service.given, 1);
    login_free(login);
}

static void waiting_for_another_thread_ends_at_the_deadline(void **state)
{
    (void)state;
    struct service service;
    struct worker renewing;
    struct credentials *got = NULL;
    struct login *login = login_new();
    service_init(&service);
    set_slow(&service, true);
    start(&renewing, login, &service);
    until_asked(&service);
    /* The test's clock stands still; what is left of the deadline is waited for in earnest. */
    assert_int_equal(login_get(login, fetch, &service, clock_monotonic() + CLOCK_SECOND / 5, &got), CKR_DEVICE_ERROR);
    assert_null(got);
    assert_non_null(strstr(error_text(), "another thread"));
    set_slow(&service, false);
    pthread_join(renewing.thread, NULL);
    assert_int_equal(renewing.rv, CKR_OK);
    login_free(login);
}

/* A service whose clock is far behind gives what has ended already: that is said, and nothing asks for ever. */
static void credentials_that_have_ended_already_are_an_error_about_the_clock(void **state)
{
    (void)state;
    struct service service;
    struct credentials *got = NULL;
    struct login *login = login_new();
    service_init(&service);
    service.life = -600;
    assert_int_equal(login_get(login, fetch, &service, clock_monotonic() + CLOCK_SECOND, &got), CKR_USER_NOT_LOGGED_IN);
    assert_non_null(strstr(error_text(), "is the clock right?"));
    assert_int_equal(service.given, 1);
    login_free(login);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(one_thread_renews_and_the_others_go_on_with_what_still_works),
        T(what_cannot_be_renewed_serves_until_its_end),
        T(threads_without_credentials_share_one_answer),
        T(waiting_for_another_thread_ends_at_the_deadline),
        T(credentials_that_have_ended_already_are_an_error_about_the_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
