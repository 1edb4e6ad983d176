#include "token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/error.h"
#include "login.h"

enum { PAUSE_FIRST = 50000, PAUSE_MOST = 2000000, LIST_DEADLINES = 10 };

envelope_status token_open(const struct token_settings *settings, struct token **opened)
{
    struct token *token = calloc(1, sizeof *token);
    if (!token)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for token %s", settings->label);
    token->settings = settings;
    token->backend = backend_find(settings->backend);
    token->route = (struct http_route){.ca_file = settings->ca_file,
                                       .client_cert = settings->client_cert,
                                       .client_key = settings->client_key,
                                       .proxy = settings->proxy};
    if (settings->proxy && strcmp(settings->proxy, "none") == 0)
        token->route.proxy = "";
    envelope_status status = token->backend ? ENVELOPE_OK : error_raise(ENVELOPE_E_CONFIG, "unknown backend");
    if (!status && (!(token->login = login_new()) || !(token->keys = keys_new(settings->refresh))))
        status = ENVELOPE_E_NO_MEMORY;
    if (!status)
        status = token->backend->open(settings, &token->state);
    if (status) {
        token_close(token);
        return status;
    }
    *opened = token;
    return ENVELOPE_OK;
}

void token_close(struct token *token)
{
    if (!token)
        return;
    if (token->state)
        token->backend->close(token->state);
    login_free(token->login);
    keys_free(token->keys);
    free(token);
}

/* Full jitter: anything from nothing to an exponentially growing bound. False if the deadline would pass. */
static bool pause_before(unsigned attempt, int64_t deadline)
{
    int64_t bound = attempt > 6 ? PAUSE_MOST : (int64_t)PAUSE_FIRST << attempt;
    uint32_t random = 0;
    if (bound > PAUSE_MOST)
        bound = PAUSE_MOST;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        random = UINT32_MAX / 2;
    int64_t pause = (int64_t)((uint64_t)random * (uint64_t)bound >> 32);
    if (clock_monotonic() + pause >= deadline)
        return false;
    struct timespec left = {.tv_sec = (time_t)(pause / CLOCK_SECOND), .tv_nsec = (long)(pause % CLOCK_SECOND) * 1000};
    while (nanosleep(&left, &left) != 0)
        ;
    return true;
}

static CK_RV transport_rv(enum http_transport transport)
{
    switch (transport) {
    case HTTP_UNREACHABLE:
    case HTTP_CUT:
    case HTTP_TIMED_OUT:
        return CKR_DEVICE_REMOVED;
    case HTTP_UNTRUSTED:
        return CKR_TOKEN_NOT_RECOGNIZED;
    default:
        return CKR_DEVICE_ERROR;
    }
}

static bool may_repeat(const struct http_request *request, const struct http_reply *reply)
{
    switch (reply->transport) {
    case HTTP_OK:
        return !request->once || reply->status < 500;
    case HTTP_UNREACHABLE:
        return true;
    case HTTP_CUT:
    case HTTP_TIMED_OUT:
        return !request->once;
    default:
        return false;
    }
}

/* Send until there is a reply the backend does not want repeated. */
static enum backend_step exchange(struct token *token, struct backend_call *call, struct http_request *request,
                                  struct http_reply *reply, int64_t deadline)
{
    for (unsigned attempt = 0;; attempt++) {
        int64_t now = clock_monotonic();
        int64_t timeout = request->timeout ? request->timeout : token->settings->timeout;
        int64_t until = now + timeout < deadline ? now + timeout : deadline;
        enum backend_step step = BACKEND_RETRY;
        if (http_perform(request, &token->route, until, reply) != ENVELOPE_OK)
            call->rv = transport_rv(reply->transport);
        if (reply->transport == HTTP_OK || request->optional)
            step = token->backend->step(token->state, call, reply, request);
        if (step != BACKEND_RETRY)
            return step;
        if (!may_repeat(request, reply))
            return BACKEND_FAILED;
        if (!pause_before(attempt, deadline)) {
            if (attempt)
                error_context(error_status(), "gave up after %u tries", attempt + 1);
            return BACKEND_FAILED;
        }
    }
}

static enum backend_step drive(struct token *token, struct backend_call *call, int64_t deadline)
{
    struct http_request request = {0};
    struct http_reply reply = {0};
    int64_t start = clock_monotonic();
    enum backend_step step = token->backend->step(token->state, call, NULL, &request);
    while (step == BACKEND_SEND) {
        /* A list takes many requests: the deadline is for each, within a limit for all. */
        if (call->op == BACKEND_LIST) {
            int64_t whole = start + LIST_DEADLINES * token->settings->deadline;
            int64_t one = clock_monotonic() + token->settings->deadline;
            deadline = one < whole ? one : whole;
        }
        step = exchange(token, call, &request, &reply, deadline);
    }
    http_request_clear(&request);
    http_reply_clear(&reply);
    return step;
}

/* Credentials are fetched for a call: what the service says while refusing them is that call's answer. */
struct fetching {
    struct token *token;
    struct backend_call *for_call; /* NULL: for C_Login */
};

static CK_RV fetch(void *context, const char *pin, struct credentials *previous, int64_t deadline,
                   struct credentials **made)
{
    const struct fetching *fetching = context;
    struct backend_call call = {.op = BACKEND_AUTHENTICATE, .pin = pin, .credentials = previous};
    CK_RV rv = CKR_OK;
    if (drive(fetching->token, &call, deadline) == BACKEND_DONE) {
        *made = call.made;
        call.made = NULL;
    } else {
        rv = call.rv == CKR_OK ? CKR_DEVICE_ERROR : call.rv;
        if (fetching->for_call)
            backend_note(fetching->for_call, call.service_code, call.service_message, call.request_id);
    }
    backend_call_clear(&call);
    return rv;
}

CK_RV token_run(struct token *token, struct backend_call *call)
{
    return token_run_until(token, call, clock_monotonic() + token->settings->deadline);
}

CK_RV token_run_until(struct token *token, struct backend_call *call, int64_t deadline)
{
    if (!backend_offers(token->backend, call)) {
        error_raise(ENVELOPE_E_WRAP_MECHANISM, "[token %s]: backend = %s has no such operation", token->settings->label,
                    token->backend->name);
        return call->rv = CKR_FUNCTION_NOT_SUPPORTED;
    }
    struct fetching fetching = {token, call};
    for (bool again = true;; again = false) {
        struct credentials *credentials = NULL;
        call->rv = login_get(token->login, fetch, &fetching, deadline, &credentials);
        if (call->rv != CKR_OK)
            return call->rv;
        call->credentials = credentials;
        enum backend_step step = drive(token, call, deadline);
        call->credentials = NULL;
        if (step == BACKEND_REAUTH) {
            login_drop(token->login, credentials);
            error_context(error_status(), "credentials from %s", credentials_source(credentials));
        }
        credentials_unref(credentials);
        if (step == BACKEND_DONE)
            return call->rv = CKR_OK;
        if (call->rv == CKR_OK)
            call->rv = CKR_DEVICE_ERROR; /* a backend that forgot to say */
        if (step != BACKEND_REAUTH || !again)
            return call->rv;
        backend_call_clear(call);
    }
}

static CK_RV log_in(struct token *token, const char *pin, int64_t deadline)
{
    struct credentials *credentials = NULL;
    struct fetching fetching = {token, NULL};
    if (login_set_pin(token->login, pin))
        return CKR_HOST_MEMORY;
    CK_RV rv = login_get(token->login, fetch, &fetching, deadline, &credentials);
    credentials_unref(credentials);
    if (rv != CKR_OK)
        login_set_pin(token->login, NULL);
    if (rv == CKR_USER_NOT_LOGGED_IN)
        rv = *pin ? CKR_PIN_INCORRECT : CKR_USER_PIN_NOT_INITIALIZED;
    return rv;
}

CK_RV token_login(struct token *token, const char *pin)
{
    int64_t deadline = clock_monotonic() + token->settings->deadline;
    if (!login_turn_begin(token->login, deadline)) {
        error_raise(ENVELOPE_E_TIMEOUT, "[token %s]: the deadline passed while another thread logged in",
                    token->settings->label);
        return CKR_DEVICE_ERROR;
    }
    CK_RV rv = token_logged_in(token) ? CKR_USER_ALREADY_LOGGED_IN : log_in(token, pin, deadline);
    login_turn_end(token->login);
    return rv;
}

CK_RV token_logout(struct token *token)
{
    return login_set_pin(token->login, NULL) ? CKR_HOST_MEMORY : CKR_OK;
}

bool token_logged_in(struct token *token)
{
    return login_has_pin(token->login);
}
