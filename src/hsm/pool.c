/* Worker sessions: each serves one thread at a time, and there are at most `sessions` of them per token. */
#include "hsm/token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/secmem.h"
#include "hsm/ckr.h"

envelope_status hsm_session_open(struct hsm_token *token, CK_SLOT_ID slot, CK_FLAGS flags, struct hsm_session **made,
                                 CK_RV *why)
{
    struct hsm_session *session = calloc(1, sizeof *session);
    uint8_t *scratch = secmem_alloc(HSM_SCRATCH_SIZE);
    if (!session || !scratch) {
        free(session);
        secmem_free(scratch);
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a session with token \"%s\"", token->name);
    }
    session->token = token;
    session->scratch = scratch;
    session->module_generation = atomic_load(&token->module->generation);
    hsm_lock();
    session->generation = token->generation;
    hsm_unlock();
    CK_RV rv = HSM_CALL_IN(token->module, session->module_generation, C_OpenSession, slot, flags, NULL, NULL,
                           &session->handle);
    *why = rv;
    if (rv != CKR_OK) {
        envelope_status status = hsm_session_fail(session, rv, false, "opening a session");
        bool lost = session->condition == HSM_SESSION_LOST || rv == CKR_GENERAL_ERROR || rv == CKR_FUNCTION_FAILED;
        if (lost)
            status = error_raise(ENVELOPE_E_HSM_UNAVAILABLE, "token \"%s\": no session can be opened: %s", token->name,
                                 hsm_ckr_name(rv));
        secmem_free(scratch);
        free(session);
        return status;
    }
    atomic_fetch_add(&token->counts->sessions_opened, 1);
    *made = session;
    return ENVELOPE_OK;
}

void hsm_session_close(struct hsm_session *session)
{
    /* Of another generation of the module (or after a fork) the handle may be another's; the call refuses that. */
    hsm_lock();
    bool ours = session->token->module->ready;
    hsm_unlock();
    if (ours)
        (void)HSM_SESSION_CALL0(session, C_CloseSession); /* a session that is gone already is as good as closed */
    secmem_free(session->scratch);
    free(session);
}

static void close_all(struct hsm_session *list)
{
    while (list) {
        struct hsm_session *session = list;
        list = session->next;
        hsm_session_close(session);
    }
}

/* An idle session of this generation, or NULL; those of earlier ones go to *old. The mutex is held. */
static struct hsm_session *take_idle(struct hsm_token *token, struct hsm_session **old)
{
    while (token->idle) {
        struct hsm_session *session = token->idle;
        token->idle = session->next;
        if (session->generation == token->generation)
            return session;
        session->next = *old;
        *old = session;
    }
    return NULL;
}

/* The mutex is held, and is released meanwhile. */
static envelope_status connect(struct hsm_token *token, int64_t deadline, struct hsm_session **made)
{
    struct hsm_session *session = NULL;
    token->state = HSM_TOKEN_CONNECTING;
    hsm_unlock();
    envelope_status status = hsm_token_connect(token, deadline, &session);
    hsm_lock();
    token->attempts++;
    token->failure = status;
    if (status == ENVELOPE_OK) {
        token->state = HSM_TOKEN_UP;
        if (token->was_up)
            atomic_fetch_add(&token->counts->recoveries, 1);
        token->was_up = true;
        token->open = 1;
        session->generation = token->generation;
        *made = session;
    } else {
        token->state = HSM_TOKEN_DOWN;
        snprintf(token->failure_text, sizeof token->failure_text, "%s", error_text());
    }
    pthread_cond_broadcast(&token->changed);
    return status;
}

/*
 * One more session beside those there are; *made stays NULL if it came too late or the token allows no more. The mutex
 * is held, and is released meanwhile.
 */
static envelope_status open_another(struct hsm_token *token, struct hsm_session **made, struct hsm_session **old)
{
    CK_SLOT_ID slot = token->slot;
    CK_RV rv = CKR_OK;
    uint64_t generation = token->generation;
    struct hsm_session *session = NULL;
    token->open++;
    hsm_unlock();
    envelope_status status = hsm_session_open(token, slot, CKF_SERIAL_SESSION, &session, &rv);
    hsm_lock();
    if (generation != token->generation) {
        /* Lost while we opened it: it may not be logged in. */
        if (session) {
            session->next = *old;
            *old = session;
        }
        return ENVELOPE_OK;
    }
    if (status == ENVELOPE_OK) {
        session->generation = generation;
        *made = session;
        return ENVELOPE_OK;
    }
    token->open--;
    if (rv == CKR_SESSION_COUNT && token->open > 0) {
        token->limit = token->open;
        return ENVELOPE_OK;
    }
    pthread_cond_signal(&token->changed);
    return status;
}

static envelope_status no_session(const struct hsm_token *token)
{
    return error_raise(
        ENVELOPE_E_HSM_UNAVAILABLE,
        "token \"%s\": none of its %u sessions was free before the deadline; is it hanging, or is `sessions` "
        "too low for this load?",
        token->name, token->limit);
}

static envelope_status wait_for_session(struct hsm_token *token, int64_t deadline, struct hsm_session **session,
                                        struct hsm_session **old)
{
    for (;;) {
        uint64_t attempts = token->attempts;
        *session = take_idle(token, old);
        if (*session)
            return ENVELOPE_OK;
        if (token->state == HSM_TOKEN_DOWN)
            return connect(token, deadline, session);
        if (token->state == HSM_TOKEN_UP && token->open < token->limit) {
            envelope_status status = open_another(token, session, old);
            if (status != ENVELOPE_OK || *session)
                return status;
            continue;
        }
        if (!hsm_wait(&token->changed, deadline) && clock_monotonic() >= deadline) {
            *session = take_idle(token, old);
            return *session ? ENVELOPE_OK : no_session(token);
        }
        /* Whoever waited for a connection shares its failure, instead of trying (and sending a PIN) again at once. */
        if (token->attempts != attempts && token->failure != ENVELOPE_OK)
            return error_raise(token->failure, "%s", token->failure_text);
    }
}

envelope_status hsm_session_get(struct hsm_token *token, int64_t deadline, struct hsm_session **session)
{
    struct hsm_session *old = NULL;
    *session = NULL;
    hsm_lock();
    envelope_status status = wait_for_session(token, deadline, session, &old);
    hsm_unlock();
    close_all(old);
    if (status != ENVELOPE_OK)
        return status;
    (*session)->next = NULL;
    (*session)->fault = CKR_OK;
    (*session)->condition = HSM_SESSION_FINE;
    return ENVELOPE_OK;
}

void hsm_session_put(struct hsm_session *session)
{
    struct hsm_token *token = session->token;
    secmem_wipe(session->scratch, HSM_SCRATCH_SIZE);
    hsm_lock();
    bool ours = session->generation == token->generation;
    if (ours) {
        session->next = token->idle;
        token->idle = session;
        pthread_cond_signal(&token->changed);
    }
    hsm_unlock();
    if (!ours)
        hsm_session_close(session);
}

void hsm_token_lost(struct hsm_session *session)
{
    struct hsm_token *token = session->token;
    hsm_lock();
    if (session->fault == CKR_CRYPTOKI_NOT_INITIALIZED && token->module->ready)
        hsm_module_forget(token->module);
    else if (session->generation == token->generation)
        hsm_token_reset(token);
    hsm_unlock();
}
