/* Finding a token, connecting to it, logging in. */
#include "hsm/token.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/secmem.h"
#include "base/text.h"
#include "hsm/ckr.h"
#include "hsm/pin.h"
#include "hsm/service.h"

/*
 * SoftHSM rewrites token.object at every login, in place. Processes that start at the same moment see it
 * half-written, as one of two errors that pass by themselves, or, where it was loaded like that, with a restart.
 */
static const int64_t LOGIN_PAUSES[] = {10000, 30000, 60000, 120000, 240000};
enum { LOGIN_TRIES = sizeof LOGIN_PAUSES / sizeof LOGIN_PAUSES[0] };

/* How often a missing token is looked for with the module started anew; one that was there goes and comes as a whole.
 */
enum { RESTART_TRIES = 2, RESTART_TRIES_AT_FIRST = 6 };

static envelope_status forked(const struct hsm_token *token)
{
    return error_raise(
        ENVELOPE_E_HSM_UNAVAILABLE,
        "token \"%s\": this process was forked while another thread was inside its PKCS#11 module, which may "
        "be locked for good; fork earlier, or execute the program anew in the child",
        token->name);
}

static envelope_status fault_status(enum hsm_fault fault, bool unwrapping)
{
    switch (fault) {
    case HSM_FAULT_LOST:
    case HSM_FAULT_FORKED:
        return ENVELOPE_E_HSM_UNAVAILABLE;
    case HSM_FAULT_REFUSED:
        return ENVELOPE_E_KEK_REFUSED;
    case HSM_FAULT_UNSUPPORTED:
        return ENVELOPE_E_WRAP_MECHANISM;
    case HSM_FAULT_DOUBTFUL:
    case HSM_FAULT_DATA:
        return unwrapping ? ENVELOPE_E_UNWRAP : ENVELOPE_E_HSM;
    default:
        return ENVELOPE_E_HSM;
    }
}

envelope_status hsm_session_judge(struct hsm_session *session, CK_RV rv, bool unwrapping)
{
    enum hsm_fault fault = hsm_ckr_fault(rv);
    session->fault = rv;
    if (fault == HSM_FAULT_LOST)
        session->condition = HSM_SESSION_LOST;
    else if (fault == HSM_FAULT_DOUBTFUL && session->condition == HSM_SESSION_FINE)
        session->condition = HSM_SESSION_DOUBTFUL;
    return fault_status(fault, unwrapping);
}

envelope_status hsm_session_fail(struct hsm_session *session, CK_RV rv, bool unwrapping, const char *doing, ...)
{
    session->fault = rv;
    if (hsm_ckr_fault(rv) == HSM_FAULT_FORKED)
        return forked(session->token);
    char what[256];
    va_list args;
    va_start(args, doing);
    vsnprintf(what, sizeof what, doing, args);
    va_end(args);
    if (session->token->module->service)
        return hsm_service_fail(session, rv, unwrapping, what);
    return error_raise(hsm_session_judge(session, rv, unwrapping), "token \"%s\": %s: %s", session->token->name, what,
                       hsm_ckr_name(rv));
}

envelope_status hsm_token_make(const struct settings *settings, struct hsm_counts *counts, struct hsm_module *module,
                               const struct hsm_uri *uri, struct hsm_token **made)
{
    struct hsm_token *token = calloc(1, sizeof *token);
    if (!token)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for token \"%s\"", uri->token_name);
    token->settings = settings;
    token->counts = counts;
    token->module = module;
    token->uri = uri;
    token->generation = 1;
    token->limit = settings->sessions ? settings->sessions : 1;
    snprintf(token->name, sizeof token->name, "%s", uri->token_name);
    hsm_condition_init(&token->changed);
    hsm_lock();
    token->next_of_module = module->tokens;
    module->tokens = token;
    hsm_unlock();
    *made = token;
    return ENVELOPE_OK;
}

void hsm_token_free(struct hsm_token *token)
{
    hsm_lock();
    struct hsm_token **link = &token->module->tokens;
    while (*link != token)
        link = &(*link)->next_of_module;
    *link = token->next_of_module;
    struct hsm_session *idle = token->idle;
    hsm_unlock();
    while (idle) {
        struct hsm_session *session = idle;
        idle = session->next;
        hsm_session_close(session);
    }
    pthread_cond_destroy(&token->changed);
    free(token);
}

void hsm_token_reset(struct hsm_token *token)
{
    token->generation++;
    token->open = 0;
    if (token->state == HSM_TOKEN_UP)
        token->state = HSM_TOKEN_DOWN;
    pthread_cond_broadcast(&token->changed);
}

void hsm_token_forked(struct hsm_token *token)
{
    token->generation++;
    token->open = 0;
    token->state = HSM_TOKEN_DOWN;
    token->was_up = false;
    hsm_condition_init(&token->changed); /* it may still count the parent's waiters */
}

static bool matches(const struct hsm_token *token, CK_SLOT_ID slot, const CK_TOKEN_INFO *info)
{
    P11KitUri *uri = token->uri->parsed;
    CK_SLOT_ID wanted = p11_kit_uri_get_slot_id(uri);
    return (info->flags & CKF_TOKEN_INITIALIZED) && p11_kit_uri_match_token_info(uri, info) == 1 &&
           (wanted == (CK_SLOT_ID)-1 || wanted == slot);
}

static bool matches_slot(const struct hsm_token *token, CK_SLOT_ID slot)
{
    CK_SLOT_INFO info;
    memset(&info, 0, sizeof info);
    return HSM_CALL(token->module, C_GetSlotInfo, slot, &info) == CKR_OK &&
           p11_kit_uri_match_slot_info(token->uri->parsed, &info) == 1;
}

/* The slots with a token in them; malloc'ed. The list may grow between the two calls. */
static CK_RV list_slots(struct hsm_module *module, CK_SLOT_ID **slots, CK_ULONG *count)
{
    for (int tries = 0; tries < 5; tries++) {
        CK_RV rv = HSM_CALL(module, C_GetSlotList, CK_TRUE, NULL, count);
        if (rv != CKR_OK)
            return rv;
        *slots = calloc(*count + 1, sizeof **slots);
        if (!*slots)
            return CKR_HOST_MEMORY;
        rv = HSM_CALL(module, C_GetSlotList, CK_TRUE, *slots, count);
        if (rv == CKR_OK)
            return CKR_OK;
        free(*slots);
        *slots = NULL;
        if (rv != CKR_BUFFER_TOO_SMALL)
            return rv;
    }
    return CKR_BUFFER_TOO_SMALL;
}

envelope_status hsm_token_find(const struct hsm_token *token, CK_SLOT_ID *slot, CK_TOKEN_INFO *info)
{
    CK_SLOT_ID *slots = NULL;
    CK_ULONG count = 0, found = 0;
    CK_RV rv = list_slots(token->module, &slots, &count);
    if (rv == HSM_CKR_FORKED)
        return forked(token);
    if (rv == CKR_CRYPTOKI_NOT_INITIALIZED) {
        hsm_lock();
        hsm_module_forget(token->module);
        hsm_unlock();
    }
    if (rv != CKR_OK)
        return error_raise(ENVELOPE_E_HSM_UNAVAILABLE,
                           "token \"%s\": the PKCS#11 module \"%s\" does not list its slots: %s", token->name,
                           token->module->path, hsm_ckr_name(rv));
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO one;
        memset(&one, 0, sizeof one);
        /* A slot that cannot be read has no token for us; SoftHSM's slots of removed tokens are such. */
        if (HSM_CALL(token->module, C_GetTokenInfo, slots[i], &one) != CKR_OK || !matches(token, slots[i], &one) ||
            !matches_slot(token, slots[i]))
            continue;
        found++;
        *slot = slots[i];
        *info = one;
    }
    free(slots);
    if (found == 1)
        return ENVELOPE_OK;
    if (found > 1)
        return error_raise(ENVELOPE_E_HSM_UNAVAILABLE,
                           "token \"%s\": %lu tokens of module \"%s\" match; add serial=NUMBER to the URI", token->name,
                           found, token->module->path);
    return error_raise(ENVELOPE_E_HSM_UNAVAILABLE,
                       "token \"%s\" is not there: no initialised token of module \"%s\" matches", token->name,
                       token->module->path);
}

bool hsm_token_present(struct hsm_token *token)
{
    CK_TOKEN_INFO info;
    memset(&info, 0, sizeof info);
    hsm_lock();
    CK_SLOT_ID slot = token->slot;
    hsm_unlock();
    return HSM_CALL(token->module, C_GetTokenInfo, slot, &info) == CKR_OK && matches(token, slot, &info);
}

bool hsm_session_is_logged_in(struct hsm_session *session)
{
    CK_SESSION_INFO info;
    memset(&info, 0, sizeof info);
    return HSM_SESSION_CALL(session, C_GetSessionInfo, &info) == CKR_OK &&
           (info.state == CKS_RO_USER_FUNCTIONS || info.state == CKS_RW_USER_FUNCTIONS);
}

static envelope_status locked(const struct hsm_token *token)
{
    return error_raise(ENVELOPE_E_HSM_PIN_LOCKED,
                       "token \"%s\": its PIN is locked; the security officer must set it anew", token->name);
}

/* A token with one try left is left to people. */
static envelope_status check_tries(const struct hsm_token *token, const CK_TOKEN_INFO *info)
{
    if (info->flags & CKF_USER_PIN_LOCKED)
        return locked(token);
    if (info->flags & CKF_USER_PIN_FINAL_TRY)
        return error_raise(
            ENVELOPE_E_HSM_PIN_LOCKED,
            "token \"%s\": one more wrong PIN would lock it, so no PIN is sent; log in once by hand with the "
            "right one",
            token->name);
    return ENVELOPE_OK;
}

/* What makes a token one and the same over URIs and reconnections. */
static void identity(const struct hsm_token *token, const CK_TOKEN_INFO *info, char *to, size_t size)
{
    snprintf(to, size, "%s|%.32s|%.16s", token->module->path, (const char *)info->label,
             (const char *)info->serialNumber);
}

static bool passes_by_itself(CK_RV rv)
{
    return rv == CKR_GENERAL_ERROR || rv == CKR_USER_PIN_NOT_INITIALIZED;
}

static CK_RV send_pin(struct hsm_token *token, struct hsm_session *session, struct hsm_pin *pin, int64_t deadline)
{
    CK_RV rv = CKR_OK;
    for (int i = 0;; i++) {
        rv = HSM_SESSION_CALL(session, C_Login, CKU_USER, pin ? pin->bytes : NULL, pin ? pin->length : 0);
        if (rv == CKR_OK)
            atomic_fetch_add(&token->counts->logins, 1);
        if (!passes_by_itself(rv) || i == LOGIN_TRIES || clock_monotonic() >= deadline)
            return rv;
        hsm_pause(LOGIN_PAUSES[i], deadline);
    }
}

static envelope_status login_result(struct hsm_session *session, CK_RV rv, const char *id, const struct hsm_pin *pin)
{
    const struct hsm_token *token = session->token;
    const char *source = pin ? pin->source : "its own PIN pad";
    switch (rv) {
    case CKR_OK:
    case CKR_USER_ALREADY_LOGGED_IN:
        return ENVELOPE_OK;
    case CKR_PIN_INCORRECT:
    case CKR_PIN_INVALID:
    case CKR_PIN_LEN_RANGE:
        if (pin && hsm_pin_refuse(id, pin) != ENVELOPE_OK)
            return error_status();
        return error_raise(ENVELOPE_E_HSM_LOGIN,
                           "token \"%s\": the PIN from %s was refused (%s); this process does not send it again",
                           token->name, source, hsm_ckr_name(rv));
    case CKR_PIN_LOCKED:
        return locked(token);
    case CKR_PIN_EXPIRED:
        return error_raise(ENVELOPE_E_HSM_LOGIN, "token \"%s\": the PIN from %s has expired; set a new one",
                           token->name, source);
    case CKR_USER_PIN_NOT_INITIALIZED:
        session->condition = HSM_SESSION_LOST;
        return error_raise(ENVELOPE_E_HSM_LOGIN, "token \"%s\": it has no user PIN yet; set one", token->name);
    case CKR_GENERAL_ERROR:
        /* Still so after all the tries: SoftHSM says this when the token's files are gone or ruined. */
        session->condition = HSM_SESSION_LOST;
        return error_raise(ENVELOPE_E_HSM_UNAVAILABLE,
                           "token \"%s\": logging in fails (%s); are the token's files or its service there and whole?",
                           token->name, hsm_ckr_name(rv));
    default:
        return hsm_session_fail(session, rv, false, "logging in with the PIN from %s", source);
    }
}

envelope_status hsm_token_login(struct hsm_token *token, struct hsm_session *session, int64_t deadline)
{
    CK_TOKEN_INFO info;
    char id[512];
    memset(&info, 0, sizeof info);
    CK_RV rv = HSM_CALL(token->module, C_GetTokenInfo, token->slot, &info);
    if (rv == HSM_CKR_FORKED)
        return forked(token);
    if (rv != CKR_OK)
        return error_raise(ENVELOPE_E_HSM_UNAVAILABLE, "token \"%s\": its state cannot be read: %s", token->name,
                           hsm_ckr_name(rv));
    if (!(info.flags & CKF_LOGIN_REQUIRED) || hsm_session_is_logged_in(session))
        return ENVELOPE_OK;
    envelope_status status = check_tries(token, &info);
    if (status != ENVELOPE_OK)
        return status;
    identity(token, &info, id, sizeof id);
    if (info.flags & CKF_PROTECTED_AUTHENTICATION_PATH)
        return login_result(session, send_pin(token, session, NULL, deadline), id, NULL);
    struct hsm_pin *pin = NULL;
    bool refused = false;
    status = hsm_pin_read(token->settings, token->uri, deadline, &pin);
    if (status != ENVELOPE_OK)
        return error_context(status, "token \"%s\"", token->name);
    status = hsm_pin_was_refused(id, pin, &refused);
    if (status == ENVELOPE_OK && refused)
        status = error_raise(
            ENVELOPE_E_HSM_LOGIN,
            "token \"%s\": the PIN from %s was refused before, and this process does not send it again; put "
            "the right one there",
            token->name, pin->source);
    if (status == ENVELOPE_OK)
        status = login_result(session, send_pin(token, session, pin, deadline), id, pin);
    secmem_free(pin);
    return status;
}

/* *missing: the token is not there, or not whole; looking anew may help. */
static envelope_status connect_once(struct hsm_token *token, int64_t deadline, struct hsm_session **made, bool *missing)
{
    CK_SLOT_ID slot = 0;
    CK_TOKEN_INFO info;
    CK_RV rv = CKR_OK;
    struct hsm_session *session = NULL;
    envelope_status status = hsm_module_ready(token->module, deadline);
    *missing = status == ENVELOPE_E_HSM_UNAVAILABLE;
    if (status != ENVELOPE_OK)
        return error_context(status, "token \"%s\"", token->name);
    status = hsm_token_find(token, &slot, &info);
    *missing = status == ENVELOPE_E_HSM_UNAVAILABLE;
    if (status != ENVELOPE_OK)
        return status;
    hsm_lock();
    token->slot = slot;
    token->info = info;
    hsm_unlock();
    status = hsm_session_open(token, slot, CKF_SERIAL_SESSION, &session, &rv);
    if (status == ENVELOPE_OK)
        status = hsm_token_login(token, session, deadline);
    if (status != ENVELOPE_OK) {
        *missing = status == ENVELOPE_E_HSM_UNAVAILABLE || (session && session->condition == HSM_SESSION_LOST);
        if (session)
            hsm_session_close(session);
        return status;
    }
    *made = session;
    return ENVELOPE_OK;
}

/*
 * A token that is not there may be there again without its module knowing: SoftHSM reads its directory at
 * C_Initialize only, never trusts again a token whose files it once missed, and overlooks one that another process
 * happened to be logging in to. So the module is started anew, which is done only where we are the ones who started it.
 */
envelope_status hsm_token_connect(struct hsm_token *token, int64_t deadline, struct hsm_session **session)
{
    int tries = token->was_up ? RESTART_TRIES : RESTART_TRIES_AT_FIRST;
    bool missing = false;
    envelope_status status = connect_once(token, deadline, session, &missing);
    for (int i = 0; i < tries && missing && clock_monotonic() < deadline; i++) {
        char text[HSM_FAILURE_TEXT];
        snprintf(text, sizeof text, "%s", error_text());
        bool again = !hsm_module_is_ready(token->module); /* its other owner finalised it */
        envelope_status restart = again ? ENVELOPE_OK : hsm_module_restart(token->module, deadline, &again);
        if (restart != ENVELOPE_OK)
            return error_context(restart, "token \"%s\"", token->name);
        if (!again)
            return error_raise(status, "%s", text);
        status = connect_once(token, deadline, session, &missing);
    }
    return status;
}
