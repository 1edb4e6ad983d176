/* A token: found by its URI, logged in once, with its pool of worker sessions. */
#ifndef HSM_TOKEN_H
#define HSM_TOKEN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <envelope/status.h>

#include "base/settings.h"
#include "hsm/hsm.h"
#include "hsm/module.h"
#include "hsm/uri.h"

enum { HSM_SCRATCH_SIZE = 2048, HSM_NAME_SIZE = 64, HSM_FAILURE_TEXT = 768 };

enum hsm_token_state { HSM_TOKEN_DOWN, HSM_TOKEN_CONNECTING, HSM_TOKEN_UP };

/* How AES-GCM gets its IV on this token (settings: iv). */
enum hsm_iv { HSM_IV_UNKNOWN, HSM_IV_CALLER, HSM_IV_TOKEN, HSM_IV_PREPENDED };

struct hsm_session {
    struct hsm_session *next;
    struct hsm_token *token;
    CK_SESSION_HANDLE handle;
    uint64_t generation;        /* of the token when it was opened */
    uint64_t module_generation; /* of the module */
    uint8_t *scratch;           /* HSM_SCRATCH_SIZE bytes of secret memory for one operation's plaintext */
    CK_RV fault;                /* what the last failed call of the operation under way returned */
    enum {
        HSM_SESSION_FINE,
        HSM_SESSION_DOUBTFUL, /* that may mean that the token is gone: look */
        HSM_SESSION_LOST      /* reopen and try again */
    } condition;
};

struct hsm_token {
    struct hsm_token *next;           /* of the same struct hsm */
    struct hsm_token *next_of_module; /* of the same module, any struct hsm */
    const struct settings *settings;
    struct hsm_counts *counts;
    struct hsm_module *module;
    const struct hsm_uri *uri; /* its token part and PIN source */
    char name[HSM_NAME_SIZE];  /* "rig", printable, for messages */

    /* Guarded by hsm_lock. */
    enum hsm_token_state state;
    bool was_up;
    uint64_t generation; /* raised whenever sessions and object handles stop being ours */
    CK_SLOT_ID slot;
    CK_TOKEN_INFO info;
    unsigned open, limit; /* sessions of this generation; what the token allows */
    struct hsm_session *idle;
    pthread_cond_t changed;
    uint64_t attempts; /* to connect, ended */
    envelope_status failure;
    char failure_text[HSM_FAILURE_TEXT];

    _Atomic int iv; /* enum hsm_iv, once known */
};

/* Counters of a struct hsm (hsm_count). */
struct hsm_counts {
    _Atomic uint64_t wraps, unwraps, rewraps, logins, sessions_opened, recoveries;
};

/* HSM_CALL on a session, which is the first argument of name. */
#define HSM_SESSION_CALL(session, name, ...)                                                                           \
    HSM_CALL_IN((session)->token->module, (session)->module_generation, name, (session)->handle, __VA_ARGS__)
#define HSM_SESSION_CALL0(session, name)                                                                               \
    HSM_CALL_IN((session)->token->module, (session)->module_generation, name, (session)->handle)

/*
 * Raise what a call on the session returned, "doing" what, and note in the session whether the token is lost or in
 * doubt. unwrapping: a refusal of the data, or an unspecific one, is ENVELOPE_E_UNWRAP.
 */
envelope_status hsm_session_fail(struct hsm_session *session, CK_RV rv, bool unwrapping, const char *doing, ...)
    __attribute__((format(printf, 4, 5)));
/* Its first half: note it in the session, raise nothing, return the status. */
envelope_status hsm_session_judge(struct hsm_session *session, CK_RV rv, bool unwrapping);

/* Made once per module and token URI and PIN source; uri must outlive it. */
envelope_status hsm_token_make(const struct settings *settings, struct hsm_counts *counts, struct hsm_module *module,
                               const struct hsm_uri *uri, struct hsm_token **made);
/* Close its sessions and free it; nobody uses it. */
void hsm_token_free(struct hsm_token *token);
/* Down, its sessions not ours any more: the module was initialised anew. The mutex is held. */
void hsm_token_reset(struct hsm_token *token);
/* The same in a forked child, where whoever was connecting is not. */
void hsm_token_forked(struct hsm_token *token);

/* The first slot whose token the URI matches; ENVELOPE_E_HSM_UNAVAILABLE if there is none or more than one. */
envelope_status hsm_token_find(const struct hsm_token *token, CK_SLOT_ID *slot, CK_TOKEN_INFO *info);
/* True if the slot still holds the token that was found there. */
bool hsm_token_present(struct hsm_token *token);
/* Find, open a first session, log in. The caller is the one thread that connects. */
envelope_status hsm_token_connect(struct hsm_token *token, int64_t deadline, struct hsm_session **session);
bool hsm_session_is_logged_in(struct hsm_session *session);
/* Log the user in unless that is so already or not needed. */
envelope_status hsm_token_login(struct hsm_token *token, struct hsm_session *session, int64_t deadline);

/* A session of a connected token for this thread alone. Waits for one at most until deadline. */
envelope_status hsm_session_get(struct hsm_token *token, int64_t deadline, struct hsm_session **session);
void hsm_session_put(struct hsm_session *session);
/* Outside the pool: open one (*why is what C_OpenSession said); and close one where that is still possible. */
envelope_status hsm_session_open(struct hsm_token *token, CK_SLOT_ID slot, CK_FLAGS flags, struct hsm_session **session,
                                 CK_RV *why);
void hsm_session_close(struct hsm_session *session);
/* The token of session is not there as it was: whoever comes next connects anew. Once per generation. */
void hsm_token_lost(struct hsm_session *session);

#endif
