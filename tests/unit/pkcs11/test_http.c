/* No wait goes past the deadline, the one for a name server that does not answer included. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netdb.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "http.h"

enum { SILENCE_SECONDS = 40, BOUND_SECONDS = 20 };

static atomic_bool asked;

/* libcurl resolves names by this function, in a thread of its own; the program's own definition goes before libc's. */
__attribute__((visibility("default"))) int getaddrinfo(const char *name, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **result)
{
    (void)name;
    (void)service;
    (void)hints;
    *result = NULL;
    atomic_store(&asked, true);
    struct timespec left = {.tv_sec = SILENCE_SECONDS};
    while (nanosleep(&left, &left) != 0)
        ;
    return EAI_AGAIN;
}

static void a_silent_name_server_does_not_hold_a_call_past_its_deadline(void **state)
{
    (void)state;
    struct http_request request = {.direct = true};
    struct http_reply reply = {0};
    struct http_route route = {0};
    assert_int_equal(http_request_url(&request, "https://key-service.invalid/"), ENVELOPE_OK);
    int64_t start = clock_monotonic();
    assert_int_equal(http_perform(&request, &route, start + CLOCK_SECOND / 2, &reply), ENVELOPE_E_HSM_UNAVAILABLE);
    assert_true(clock_monotonic() - start < BOUND_SECONDS * CLOCK_SECOND);
    assert_true(atomic_load(&asked));
    assert_int_equal(reply.transport, HTTP_UNREACHABLE);
    assert_non_null(strstr(error_text(), "key-service.invalid"));
    http_request_clear(&request);
    http_reply_clear(&reply);
}

static void nothing_is_sent_after_the_deadline(void **state)
{
    (void)state;
    struct http_request request = {.direct = true};
    struct http_reply reply = {0};
    struct http_route route = {0};
    atomic_store(&asked, false);
    assert_int_equal(http_request_url(&request, "https://key-service.invalid/"), ENVELOPE_OK);
    assert_int_equal(http_perform(&request, &route, clock_monotonic(), &reply), ENVELOPE_E_TIMEOUT);
    assert_int_equal(reply.transport, HTTP_TIMED_OUT);
    assert_false(atomic_load(&asked));
    http_request_clear(&request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_sent_after_the_deadline),
        cmocka_unit_test(a_silent_name_server_does_not_hold_a_call_past_its_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
