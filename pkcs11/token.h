/*
 * One configured token: its backend, its credentials, and the loop that drives
 * a backend's steps with deadlines, retries and fresh credentials. Thread-safe;
 * no lock is held while the service is asked.
 */
#ifndef PKCS11_TOKEN_H
#define PKCS11_TOKEN_H

#include "backend.h"
#include "keys.h"

struct token {
    const struct token_settings *settings;
    const struct backend *backend;
    void *state;
    struct http_route route;
    struct login *login;
    struct keys *keys;
};

/* No network. settings must outlive it. */
envelope_status token_open(const struct token_settings *settings, struct token **opened);
void token_close(struct token *token);

/* Carry a call out; its results are in call, its failure in the rv returned, call->rv and the thread's error. */
CK_RV token_run(struct token *token, struct backend_call *call);
/* The same for one of several calls that share a deadline (clock_monotonic()). */
CK_RV token_run_until(struct token *token, struct backend_call *call, int64_t deadline);

/* Use this PIN ("" for the backend's own chain) from now on; credentials are fetched at once. One login at a time. */
CK_RV token_login(struct token *token, const char *pin);
CK_RV token_logout(struct token *token);
bool token_logged_in(struct token *token);

#endif
