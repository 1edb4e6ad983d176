/*
 * No wait goes past the deadline, the one for a name server that does not answer included. Where a program allows no
 * threads, names are asked for in its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/error.h"
#include "http.h"
#include "resolve.h"

enum { SILENCE_SECONDS = 40, BOUND_SECONDS = 20 };

static atomic_bool asked, asked_elsewhere;
static pthread_t tester;
static const char *known_name; /* answered at once, with 127.0.0.1 */
static char names_asked[256];

/* One address, of this machine. */
static int answer(const char *service, struct addrinfo **result)
{
    struct {
        struct addrinfo info;
        struct sockaddr_in address;
    } *found = calloc(1, sizeof *found);
    if (!found)
        return EAI_MEMORY;
    found->address = (struct sockaddr_in){.sin_family = AF_INET,
                                          .sin_port = htons((uint16_t)strtoul(service, NULL, 10)),
                                          .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    found->info = (struct addrinfo){.ai_family = AF_INET,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_addrlen = sizeof found->address,
                                    .ai_addr = (struct sockaddr *)&found->address};
    *result = &found->info;
    return 0;
}

__attribute__((visibility("default"))) void freeaddrinfo(struct addrinfo *result)
{
    free(result);
}

/* libcurl resolves names by this function, in a thread of its own; the program's own definition goes before libc's. */
__attribute__((visibility("default"))) int getaddrinfo(const char *name, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **result)
{
    (void)hints;
    *result = NULL;
    atomic_store(&asked, true);
    if (!pthread_equal(pthread_self(), tester))
        atomic_store(&asked_elsewhere, true);
    if (known_name) {
        size_t used = strlen(names_asked);
        snprintf(names_asked + used, sizeof names_asked - used, "%s ", name);
        return strcmp(name, known_name) == 0 ? answer(service, result) : EAI_NONAME;
    }
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

/* A socket that is connected to and says nothing. */
static int listen_at(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_true(listening >= 0);
    assert_int_equal(bind(listening, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listening, 4), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return listening;
}

static bool was_connected_to(int listening)
{
    int connection = accept(listening, NULL, NULL);
    if (connection >= 0)
        close(connection);
    return connection >= 0;
}

static enum http_transport perform(const struct http_route *route, bool direct, const char *host, unsigned port)
{
    struct http_request request = {.direct = direct};
    struct http_reply reply = {0};
    char url[128];
    snprintf(url, sizeof url, "http://%s:%u/", host, port);
    names_asked[0] = '\0';
    assert_int_equal(http_request_url(&request, "%s", url), ENVELOPE_OK);
    assert_int_equal(http_perform(&request, route, clock_monotonic() + CLOCK_SECOND / 2, &reply),
                     ENVELOPE_E_HSM_UNAVAILABLE);
    enum http_transport transport = reply.transport;
    http_request_clear(&request);
    http_reply_clear(&reply);
    return transport;
}

static void without_threads_the_calling_one_asks_for_names(void **state)
{
    (void)state;
    struct http_route route = {0}, by_proxy = {0};
    char proxy[64];
    uint16_t port;
    int listening = listen_at(&port);
    resolve_without_threads(true);
    known_name = "key-service.test";
    atomic_store(&asked_elsewhere, false);
    assert_int_equal(perform(&route, true, "key-service.test", port), HTTP_TIMED_OUT);
    assert_true(was_connected_to(listening));
    assert_string_equal(names_asked, "key-service.test ");

    assert_int_equal(perform(&route, true, "nowhere.test", port), HTTP_UNREACHABLE);
    assert_non_null(strstr(error_text(), "nowhere.test"));
    assert_false(was_connected_to(listening));

    assert_int_equal(perform(&route, true, "127.0.0.1", port), HTTP_TIMED_OUT);
    assert_true(was_connected_to(listening));
    assert_string_equal(names_asked, ""); /* an address is no name */

    /* Behind a proxy its name is what matters; the service's may be unknown here. */
    known_name = "proxy.test";
    snprintf(proxy, sizeof proxy, "http://proxy.test:%u", port);
    by_proxy.proxy = proxy;
    assert_int_equal(perform(&by_proxy, false, "key-service.test", 80), HTTP_TIMED_OUT);
    assert_true(was_connected_to(listening));
    assert_string_equal(names_asked, "proxy.test key-service.test ");
    setenv("http_proxy", proxy, 1);
    assert_int_equal(perform(&route, false, "key-service.test", 80), HTTP_TIMED_OUT);
    assert_true(was_connected_to(listening));
    unsetenv("http_proxy");

    assert_false(atomic_load(&asked_elsewhere));
    known_name = NULL;
    resolve_without_threads(false);
    close(listening);
}

int main(void)
{
    tester = pthread_self();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_sent_after_the_deadline),
        cmocka_unit_test(without_threads_the_calling_one_asks_for_names),
        cmocka_unit_test(a_silent_name_server_does_not_hold_a_call_past_its_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
