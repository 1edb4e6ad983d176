/* The KEKs of a move: where versions come from and go to, and whether that can be used. */
#include "keyring/rewrap.h"

#include <stdio.h>
#include <stdlib.h>

#include <openssl/crypto.h>

#include "base/error.h"

/*
 * A KEK that cannot be reached is tried again with the next key: a service that throttles, or a network that is away
 * for a moment, will do better. But a try may take as long as `deadline`, so this often in a row and no more.
 */
enum { AWAY_MAX = 3 };

/* ---- where from ---- */

envelope_status keyring_rewrap_find_from(struct rewrapping *job)
{
    struct store_ids ids;
    if (!job->wanted->from_uri)
        return ENVELOPE_OK;
    envelope_status status = hsm_check_uri(job->wanted->from_uri);
    char *public_uri = status ? NULL : hsm_public_uri(job->wanted->from_uri);
    if (!public_uri)
        return error_status();
    status = store_next_ids(job->opened, public_uri, &ids);
    if (!status && !ids.kek_is_there)
        status = error_raise(ENVELOPE_E_KEK_UNKNOWN,
                             "nothing in the store was ever under the KEK %s; `envelope key list` shows the URIs",
                             public_uri);
    free(public_uri);
    job->from_kek_id = ids.kek_id;
    return status;
}

/* ---- where to ---- */

envelope_status keyring_rewrap_find_id(struct rewrapping *job)
{
    struct store_ids ids;
    envelope_status status = store_next_ids(job->opened, job->public_uri, &ids);
    if (status)
        return status;
    job->kek_id = ids.kek_id;
    job->kek_is_there = ids.kek_is_there;
    return ENVELOPE_OK;
}

envelope_status keyring_rewrap_find_to(struct rewrapping *job)
{
    if (!job->wanted->kek_uri)
        return ENVELOPE_OK;
    envelope_status status = hsm_check_uri(job->wanted->kek_uri);
    job->public_uri = status ? NULL : hsm_public_uri(job->wanted->kek_uri);
    if (!job->public_uri)
        return error_status();
    job->uri = keyring_uri_to_use(job->ring, job->public_uri);
    status = keyring_rewrap_find_id(job);
    return status || job->kek_is_there ? status : keyring_rewrap_try_to(job);
}

static envelope_status wrap_trial(struct rewrapping *job, uint8_t **blob)
{
    static const uint8_t aad[] = "envelope trial wrap";
    size_t length = 0;
    hsm *token = job->ring->token;
    envelope_status status = hsm_generate_dek(token, job->uri, job->dek);
    if (!status)
        status = hsm_wrap(token, job->uri, aad, sizeof aad, job->dek, blob, &length);
    if (!status)
        status = hsm_unwrap(token, job->uri, aad, sizeof aad, *blob, length, job->again);
    if (!status && CRYPTO_memcmp(job->dek, job->again, HSM_DEK_SIZE) != 0)
        status = error_raise(ENVELOPE_E_UNWRAP, "the token unwraps another key than it wrapped");
    return status;
}

envelope_status keyring_rewrap_try_to(struct rewrapping *job)
{
    uint8_t *blob = NULL;
    if (job->tried)
        return ENVELOPE_OK;
    keyring_gate_enter();
    envelope_status status = wrap_trial(job, &blob);
    keyring_gate_leave();
    free(blob);
    secmem_wipe(job->dek, HSM_DEK_SIZE);
    secmem_wipe(job->again, HSM_DEK_SIZE);
    job->tried = !status;
    return status ? error_context(status, "trying the KEK %s", job->uri) : ENVELOPE_OK;
}

/* ---- whether they can be used ---- */

struct rewrap_source *keyring_rewrap_source(struct rewrapping *job, uint32_t kek_id)
{
    struct rewrap_source *source = &job->sources[kek_id % KEYRING_FAILURES];
    if (source->kek_id != kek_id)
        *source = (struct rewrap_source){.kek_id = kek_id};
    return source;
}

void keyring_rewrap_source_works(struct rewrapping *job, uint32_t kek_id)
{
    keyring_rewrap_source(job, kek_id)->away = 0;
    job->away = 0;
}

/* Not ENVELOPE_E_HSM: a token may say that of one blob alone. */
static bool is_about_kek(envelope_status status)
{
    return status != ENVELOPE_E_HSM && keyring_is_about_kek(status);
}

/* It answered and said no, or could not be reached once too often. */
static bool is_lost(envelope_status status, unsigned *away)
{
    return !hsm_is_away(status) || ++*away >= AWAY_MAX;
}

/* Without the KEK to move to nothing can go on; without the other all that is not under it can. */
void keyring_rewrap_blame(struct rewrapping *job, uint32_t from_kek_id, envelope_status status)
{
    char text[KEYRING_TEXT_MAX];
    if (!job->many || !is_about_kek(status))
        return;
    struct rewrap_source *source = keyring_rewrap_source(job, from_kek_id);
    snprintf(text, sizeof text, "%s", error_text());
    job->tried = false;
    envelope_status to = job->wanted->kek_uri ? keyring_rewrap_try_to(job) : ENVELOPE_OK;
    error_raise(status, "%s", text);
    if (to) {
        job->ended = is_lost(to, &job->away);
        return;
    }
    job->away = 0;
    if (is_lost(status, &source->away))
        keyring_failure_set(job->ring, &source->lost, from_kek_id, status, 1);
}
