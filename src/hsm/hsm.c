#include "hsm/hsm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/libctx.h"
#include "base/secmem.h"
#include "base/text.h"
#include "hsm/ckr.h"
#include "hsm/instance.h"

static const int64_t DEFAULT_DEADLINE = 10 * CLOCK_SECOND;

static int64_t patience(const struct settings *settings)
{
    return settings->deadline > 0 ? settings->deadline : DEFAULT_DEADLINE;
}

envelope_status hsm_new(const struct settings *settings, hsm **made)
{
    hsm *instance = calloc(1, sizeof *instance);
    if (!instance)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the PKCS#11 client");
    instance->settings = settings;
    hsm_gate_patience(patience(settings));
    *made = instance;
    return ENVELOPE_OK;
}

static void free_kek(struct hsm_kek *kek)
{
    if (kek->text_secret)
        secmem_free(kek->text);
    else
        free(kek->text);
    hsm_uri_free(kek->uri);
    EVP_PKEY_free(kek->rsa_public);
    free(kek);
}

void hsm_free(hsm *instance)
{
    if (!instance)
        return;
    while (instance->tokens) {
        struct hsm_token *token = instance->tokens;
        instance->tokens = token->next;
        hsm_token_free(token);
    }
    for (size_t i = 0; i < HSM_BUCKETS; i++) {
        while (instance->keks[i]) {
            struct hsm_kek *kek = instance->keks[i];
            instance->keks[i] = kek->next;
            free_kek(kek);
        }
    }
    free(instance);
}

int64_t hsm_deadline(const hsm *instance)
{
    return clock_monotonic() + patience(instance->settings);
}

envelope_status hsm_enter(void)
{
    if (libctx_inside())
        return error_raise(ENVELOPE_E_RECURSION,
                           "the token itself called for a key that is wrapped by a token; its module uses OpenSSL with "
                           "Envelope's algorithms");
    return libctx_private() ? ENVELOPE_OK : error_status();
}

static uint32_t hash_text(const char *text)
{
    uint32_t hash = 2166136261U; /* FNV-1a */
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 16777619U;
    return hash;
}

/* The mutex is held. */
static struct hsm_kek *find_kek(hsm *instance, const char *text, uint32_t hash)
{
    struct hsm_kek *kek = instance->keks[hash % HSM_BUCKETS];
    while (kek && (kek->hash != hash || strcmp(kek->text, text) != 0))
        kek = kek->next;
    return kek;
}

static envelope_status make_kek(const char *text, uint32_t hash, struct hsm_kek **made)
{
    struct hsm_uri *uri = NULL;
    envelope_status status = hsm_uri_parse_kek(text, &uri);
    if (status != ENVELOPE_OK)
        return status;
    struct hsm_kek *kek = calloc(1, sizeof *kek);
    size_t size = strlen(text) + 1;
    char *copy = uri->pin_value ? secmem_alloc(size) : malloc(size);
    if (!kek || !copy) {
        free(kek);
        hsm_uri_free(uri);
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the KEK of a URI");
    }
    memcpy(copy, text, size);
    kek->text = copy;
    kek->text_secret = uri->pin_value != NULL;
    kek->hash = hash;
    kek->uri = uri;
    *made = kek;
    return ENVELOPE_OK;
}

static bool same(const char *one, const char *other)
{
    return one == other || (one && other && strcmp(one, other) == 0);
}

/* The mutex is held. */
static struct hsm_token *find_token(hsm *instance, const struct hsm_module *module, const struct hsm_uri *uri)
{
    struct hsm_token *token = instance->tokens;
    while (token && (token->module != module || !same(token->uri->token_text, uri->token_text) ||
                     !same(token->uri->pin_source, uri->pin_source) || !same(token->uri->pin_value, uri->pin_value)))
        token = token->next;
    return token;
}

static envelope_status attach_token(hsm *instance, struct hsm_kek *kek, int64_t deadline)
{
    const char *path = kek->uri->module_path ? kek->uri->module_path : instance->settings->module;
    struct hsm_module *module = NULL;
    struct hsm_token *fresh = NULL;
    if (!path)
        return error_raise(
            ENVELOPE_E_HSM_MODULE,
            "no PKCS#11 module is named for token \"%s\": set module in [hsm], or module-path in the URI",
            kek->uri->token_name);
    envelope_status status = hsm_module_get(path, deadline, &module);
    if (status == ENVELOPE_OK)
        status = hsm_token_make(instance->settings, &instance->counts, module, kek->uri, &fresh);
    if (status != ENVELOPE_OK)
        return error_context(status, "token \"%s\"", kek->uri->token_name);
    hsm_lock();
    struct hsm_token *token = find_token(instance, module, kek->uri);
    if (!token) {
        token = fresh;
        fresh = NULL;
        token->next = instance->tokens;
        instance->tokens = token;
    }
    if (!kek->token)
        kek->token = token;
    hsm_unlock();
    if (fresh)
        hsm_token_free(fresh);
    return ENVELOPE_OK;
}

envelope_status hsm_kek_get(hsm *instance, const char *uri, int64_t deadline, struct hsm_kek **found)
{
    if (!uri)
        return error_raise(ENVELOPE_E_KEK_URI, "no KEK is named");
    uint32_t hash = hash_text(uri);
    hsm_lock();
    struct hsm_kek *kek = find_kek(instance, uri, hash);
    bool attached = kek && kek->token;
    hsm_unlock();
    if (!kek) {
        struct hsm_kek *fresh = NULL;
        envelope_status status = make_kek(uri, hash, &fresh);
        if (status != ENVELOPE_OK)
            return status;
        hsm_lock();
        kek = find_kek(instance, uri, hash);
        if (!kek) {
            kek = fresh;
            fresh = NULL;
            kek->next = instance->keks[hash % HSM_BUCKETS];
            instance->keks[hash % HSM_BUCKETS] = kek;
        }
        hsm_unlock();
        if (fresh)
            free_kek(fresh);
    }
    if (!attached) {
        envelope_status status = attach_token(instance, kek, deadline);
        if (status != ENVELOPE_OK)
            return status;
    }
    *found = kek;
    return ENVELOPE_OK;
}

/*
 * One try. *lost: the token is not as it was, so a new connection may help. What a token says in passing (a "general
 * error" at unwrap) is taken for what it means only if its KEK is still to be found.
 */
static envelope_status try_once(struct hsm_wrap *wrap, bool without_kek, int64_t deadline, hsm_work *work,
                                void *argument, bool *lost)
{
    struct hsm_kek *kek = wrap->kek;
    struct hsm_session *session = NULL;
    *lost = false;
    envelope_status status = hsm_session_get(kek->token, deadline, &session);
    if (status != ENVELOPE_OK)
        return status;
    wrap->session = session;
    if (!without_kek)
        status = hsm_kek_resolve(kek, session, &wrap->view);
    if (status == ENVELOPE_OK)
        status = work(wrap, argument);
    if (status != ENVELOPE_OK && session->condition == HSM_SESSION_DOUBTFUL) {
        char text[HSM_FAILURE_TEXT];
        snprintf(text, sizeof text, "%s", error_text());
        if (hsm_kek_present(kek, session))
            status = error_raise(status, "%s", text);
        else
            session->condition = HSM_SESSION_LOST;
    }
    if (status == ENVELOPE_E_KEK_UNKNOWN)
        hsm_kek_forget(kek); /* a key service may have it again one day, as another object */
    *lost = status != ENVELOPE_OK && session->condition == HSM_SESSION_LOST;
    if (*lost) {
        hsm_kek_forget(kek);
        hsm_token_lost(session);
    }
    hsm_session_put(session);
    return status;
}

/* The KEK was there once: start its module anew, which is the only way to make SoftHSM look again. */
static envelope_status look_anew(const struct hsm_kek *kek, int64_t deadline)
{
    char text[HSM_FAILURE_TEXT];
    bool restarted = false;
    snprintf(text, sizeof text, "%s", error_text());
    envelope_status status = hsm_module_restart(kek->token->module, deadline, &restarted);
    if (status != ENVELOPE_OK)
        return error_context(status, "token \"%s\"", kek->token->name);
    return restarted ? ENVELOPE_OK : error_raise(ENVELOPE_E_KEK_UNKNOWN, "%s", text);
}

envelope_status hsm_run(hsm *instance, const char *uri, bool without_kek, hsm_work *work, void *argument)
{
    struct hsm_wrap wrap = {.kek = NULL};
    bool lost = false;
    envelope_status status = hsm_enter();
    if (status != ENVELOPE_OK)
        return status;
    int64_t deadline = hsm_deadline(instance);
    status = hsm_kek_get(instance, uri, deadline, &wrap.kek);
    if (status != ENVELOPE_OK)
        return status;
    status = try_once(&wrap, without_kek, deadline, work, argument, &lost);
    if (!lost || clock_monotonic() >= deadline)
        return status;
    if (status == ENVELOPE_E_KEK_UNKNOWN) {
        status = look_anew(wrap.kek, deadline);
        if (status != ENVELOPE_OK)
            return status;
    }
    status = try_once(&wrap, without_kek, deadline, work, argument, &lost);
    if (lost && status != ENVELOPE_E_KEK_UNKNOWN)
        return error_context(ENVELOPE_E_HSM_UNAVAILABLE, "still so after a new connection");
    return status;
}

bool hsm_is_away(envelope_status status)
{
    /* Not KEK_UNKNOWN, KEK_REFUSED, LOGIN or PIN_LOCKED: there the token answered, and said no. That is how a customer
     * revokes, and cached DEKs must not outlive it. */
    return status == ENVELOPE_E_HSM_UNAVAILABLE || status == ENVELOPE_E_HSM_MODULE || status == ENVELOPE_E_TIMEOUT ||
           status == ENVELOPE_E_HSM;
}

void hsm_count(const hsm *instance, struct hsm_counters *counters)
{
    const struct hsm_counts *counts = &instance->counts;
    counters->wraps = atomic_load(&counts->wraps);
    counters->rewraps = atomic_load(&counts->rewraps);
    counters->unwraps = atomic_load(&counts->unwraps);
    counters->logins = atomic_load(&counts->logins);
    counters->sessions_opened = atomic_load(&counts->sessions_opened);
    counters->recoveries = atomic_load(&counts->recoveries);
}
