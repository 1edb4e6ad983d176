/* Moving a key's versions to another KEK. */
#include "keyring/rewrap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/secmem.h"
#include "keyring/binding.h"

bool keyring_rewrap_is_wanted(const struct rewrapping *job, const struct store_version *row)
{
    return row->state != STORE_VERSION_DESTROYED &&
           (job->wanted->version == 0 || job->wanted->version == row->version) &&
           (job->from_kek_id == 0 || job->from_kek_id == row->kek_id);
}

bool keyring_rewrap_is_there(const struct rewrapping *job, const struct store_version *row)
{
    return job->wanted->kek_uri && row->kek_id == job->kek_id;
}

/* A version that is not there, or destroyed, is known before anything is done for it. */
static envelope_status check_version(const struct rewrapping *job, const char *name)
{
    struct store_version row;
    if (job->wanted->version == 0)
        return ENVELOPE_OK;
    envelope_status status = store_version_of(job->opened, name, job->wanted->version, &row);
    if (status == ENVELOPE_E_VERSION_UNKNOWN || (!status && !keyring_rewrap_is_wanted(job, &row)))
        status = error_raise(ENVELOPE_E_VERSION_UNKNOWN, "it has no version %u%s, or that one is destroyed",
                             (unsigned)job->wanted->version, job->from_kek_id ? " under that KEK" : "");
    store_version_clear(&row);
    return status;
}

/* ---- where to ---- */

/* Before anything is bound to it: what is wrapped under the new KEK must come back. */
static envelope_status try_kek(struct rewrapping *job, const char *uri)
{
    static const uint8_t aad[] = "envelope trial wrap";
    if (job->tried)
        return ENVELOPE_OK;
    uint8_t *dek = secslab_get(job->ring->deks), *again = secslab_get(job->ring->deks);
    uint8_t *blob = NULL;
    size_t length = 0;
    hsm *token = job->ring->token;
    envelope_status status = dek && again ? ENVELOPE_OK : error_status();
    if (!status)
        status = hsm_generate_dek(token, uri, dek);
    if (!status)
        status = hsm_wrap(token, uri, aad, sizeof aad, dek, &blob, &length);
    if (!status)
        status = hsm_unwrap(token, uri, aad, sizeof aad, blob, length, again);
    if (!status && CRYPTO_memcmp(dek, again, HSM_DEK_SIZE) != 0)
        status = error_raise(ENVELOPE_E_UNWRAP, "the token unwraps another key than it wrapped");
    free(blob);
    if (dek)
        secslab_put(job->ring->deks, dek);
    if (again)
        secslab_put(job->ring->deks, again);
    job->tried = !status;
    return status ? error_context(status, "trying the KEK %s", uri) : ENVELOPE_OK;
}

/* The store's id of the wanted KEK. One that cannot be used gets none. */
static envelope_status kek_id_of(struct rewrapping *job, const char *public_uri)
{
    struct store_ids ids;
    envelope_status status = store_next_ids(job->opened, public_uri, &ids);
    if (!status && !ids.kek_is_there)
        status = try_kek(job, keyring_uri_to_use(job->ring, public_uri));
    return status ? status : store_kek_ensure(job->opened, public_uri, clock_wall(), &job->kek_id);
}

/* The id of the KEK to move from, if one is named. */
static envelope_status find_from(struct rewrapping *job)
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

static envelope_status find_kek(struct rewrapping *job, const struct store_key *key)
{
    envelope_status status = ENVELOPE_OK;
    if (job->wanted->kek_uri && job->uri)
        return ENVELOPE_OK; /* of the key before */
    job->kek_id = key->kek_id;
    if (job->wanted->kek_uri) {
        status = hsm_check_uri(job->wanted->kek_uri);
        char *public_uri = status ? NULL : hsm_public_uri(job->wanted->kek_uri);
        if (!public_uri)
            return error_status();
        status = kek_id_of(job, public_uri);
        free(public_uri);
    }
    if (status)
        return status;
    job->uri = keyring_kek_uri(job->ring, job->kek_id);
    return job->uri ? ENVELOPE_OK : error_status();
}

static envelope_status move_key(struct rewrapping *job, const struct store_key *key)
{
    bool leaves = job->from_kek_id == 0 || job->from_kek_id == key->kek_id;
    if (job->wanted->version != 0 || key->kek_id == job->kek_id || !leaves)
        return ENVELOPE_OK;
    envelope_status status = try_kek(job, job->uri);
    if (status)
        return status;
    char what[64];
    struct keyring_note note = {0};
    snprintf(what, sizeof what, "from KEK %u to KEK %u", (unsigned)key->kek_id, (unsigned)job->kek_id);
    struct store_actor actor = keyring_actor_of(&note, what, job->wanted->why, job->many ? "" : hsm_requests());
    const struct store_key_move move = {
        .name = key->name, .from_kek_id = key->kek_id, .kek_id = job->kek_id, .now = clock_wall(), .actor = actor};
    return store_key_set_kek(job->opened, &move);
}

/* ---- a version ---- */

static envelope_status wrap_anew(struct rewrapping *job, const struct store_version *row,
                                 struct keyring_rewrap_moved *moved)
{
    uint8_t aad_from[BINDING_MAX], aad_to[BINDING_MAX];
    struct binding_place place = {job->store_id, row->dek_id, row->version, row->kek_id, row->algorithm, row->key_name};
    struct hsm_rewrap plan = {
        .to = job->uri, .aad_from = aad_from, .aad_to = aad_to, .blob = row->blob, .blob_length = row->blob_length};
    plan.from = keyring_kek_uri(job->ring, row->kek_id);
    if (!plan.from)
        return error_status();
    plan.aad_from_length = keyring_binding_aad(&place, aad_from);
    place.kek_id = job->kek_id;
    plan.aad_to_length = keyring_binding_aad(&place, aad_to);
    keyring_gate_enter();
    envelope_status status = hsm_rewrap(job->ring->token, &plan, &moved->blob, &moved->length, &moved->inside);
    keyring_gate_leave();
    snprintf(moved->requests, sizeof moved->requests, "%s", hsm_requests());
    if (!status)
        job->many_from = moved->inside ? 0 : row->kek_id;
    return status;
}

/* Not ENVELOPE_E_HSM: a token may say that of one blob alone. */
static bool concerns_others(const struct rewrapping *job, envelope_status status)
{
    return job->many && status != ENVELOPE_E_HSM && keyring_is_about_kek(status);
}

/*
 * A failure that is about a KEK is the new one's or the old one's. Without the new one nothing can go on; without the
 * old one all that is not under it can. The error stays raised.
 */
static void look_whose_fault(struct rewrapping *job, uint32_t from_kek_id, envelope_status status)
{
    char text[KEYRING_TEXT_MAX];
    if (!concerns_others(job, status))
        return;
    snprintf(text, sizeof text, "%s", error_text());
    job->tried = false;
    job->ended = job->wanted->kek_uri && try_kek(job, job->uri) != ENVELOPE_OK;
    error_raise(status, "%s", text);
    if (!job->ended)
        keyring_failure_set(job->ring, &job->lost[from_kek_id % KEYRING_FAILURES], from_kek_id, status, 1);
}

static envelope_status store_moved(struct rewrapping *job, const struct store_version *row,
                                   const struct keyring_rewrap_moved *moved)
{
    struct store_version_move move = {.dek_id = row->dek_id,
                                      .from_kek_id = row->kek_id,
                                      .from_blob = row->blob,
                                      .from_length = row->blob_length,
                                      .kek_id = job->kek_id,
                                      .blob = moved->blob,
                                      .blob_length = moved->length,
                                      .now = clock_wall()};
    char what[80];
    struct keyring_note note = {0};
    snprintf(what, sizeof what, "from KEK %u to KEK %u%s", (unsigned)row->kek_id, (unsigned)job->kek_id,
             moved->inside ? ", inside the key service" : "");
    struct store_actor actor = keyring_actor_of(&note, what, job->wanted->why, moved->requests);
    move.actor = actor;
    return store_version_rewrap(job->opened, &move);
}

static envelope_status wrap_singly(struct rewrapping *job, const struct store_version *row,
                                   struct keyring_rewrap_moved *moved)
{
    struct keyring_failure *lost = &job->lost[row->kek_id % KEYRING_FAILURES];
    envelope_status status = keyring_failure_raise(job->ring, lost, row->kek_id, 0);
    if (status)
        return status;
    status = wrap_anew(job, row, moved);
    if (status)
        look_whose_fault(job, row->kek_id, status);
    return status;
}

static envelope_status move_version(struct rewrapping *job, const struct store_version *row)
{
    struct keyring_rewrap_moved moved = {0};
    bool ahead = keyring_rewrap_ahead(job, row, &moved);
    envelope_status status = ahead ? ENVELOPE_OK : wrap_singly(job, row, &moved);
    if (!status)
        status = store_moved(job, row, &moved);
    free(moved.blob);
    if (status)
        return status;
    job->done.moved++;
    job->done.inside += moved.inside ? 1 : 0;
    return ENVELOPE_OK;
}

/* Somebody else may be at it too, and may have done this one. */
static envelope_status move_or_find_moved(struct rewrapping *job, const struct store_version *row)
{
    enum { TRIES = 3 };
    envelope_status status = move_version(job, row);
    for (int i = 0; status == ENVELOPE_E_STORE_CONFLICT && i < TRIES; i++) {
        struct store_version now;
        status = store_version_find(job->opened, row->dek_id, &now);
        if (!status && (keyring_rewrap_is_there(job, &now) || !keyring_rewrap_is_wanted(job, &now)))
            job->done.kept++;
        else if (!status)
            status = move_version(job, &now);
        store_version_clear(&now);
    }
    return status;
}

static envelope_status move_versions(struct rewrapping *job, const char *name)
{
    struct store_version *rows = NULL;
    size_t count = 0;
    envelope_status status = store_versions(job->opened, name, &rows, &count);
    if (!status && !job->many)
        keyring_rewrap_ahead_of(job, rows, count);
    for (size_t i = 0; !status && i < count; i++) {
        if (!keyring_rewrap_is_wanted(job, &rows[i]))
            continue;
        if (keyring_rewrap_is_there(job, &rows[i]))
            job->done.kept++;
        else
            status = move_or_find_moved(job, &rows[i]);
        if (status)
            error_context(status, "version %u, with %zu of %zu versions done (run it again to go on)",
                          (unsigned)rows[i].version, job->done.moved + job->done.kept, count);
    }
    if (!job->many)
        keyring_rewrap_ahead_end(job);
    store_versions_free(rows, count);
    return status;
}

static envelope_status rewrap(struct rewrapping *job, const char *name)
{
    struct store_key key;
    envelope_status status = store_key_find(job->opened, name, &key);
    if (!status)
        status = keyring_store_id(job->ring, job->store_id);
    if (!status && key.state == STORE_KEY_DESTROYED)
        status = error_raise(ENVELOPE_E_KEY_STATE, "the key is destroyed");
    if (!status)
        status = check_version(job, name);
    if (!status)
        status = find_kek(job, &key);
    /* The key first: from then on nothing new comes under the old KEK, and one look at the versions sees all. */
    if (!status)
        status = move_key(job, &key);
    /* Somebody else may be moving it to the same place. */
    if (status == ENVELOPE_E_STORE_CONFLICT) {
        status = store_key_find(job->opened, name, &key);
        if (!status && key.kek_id != job->kek_id)
            status = error_raise(ENVELOPE_E_STORE_CONFLICT, "somebody else moved it to KEK %u meanwhile",
                                 (unsigned)key.kek_id);
    }
    return status ? status : move_versions(job, name);
}

static envelope_status rewrap_key(struct rewrapping *job, const char *name)
{
    job->done = (struct keyring_rewrapped){0};
    envelope_status status = rewrap(job, name);
    if (status == ENVELOPE_E_KEY_UNKNOWN)
        return error_raise(status, "there is no key \"%s\" to rewrap", name);
    if (status) {
        error_context(status, "rewrapping key \"%s\"", name);
        keyring_note_refusal(job->ring, "rewrap", name, job->wanted->version, status);
    }
    return status;
}

envelope_status keyring_rewrap(keyring *ring, const char *name, const struct keyring_rewrap *wanted,
                               struct keyring_rewrapped *done)
{
    *done = (struct keyring_rewrapped){0};
    struct rewrapping job = {.ring = ring, .opened = keyring_connect(ring), .wanted = wanted};
    if (!job.opened)
        return error_status();
    envelope_status status = find_from(&job);
    if (status)
        return error_context(status, "rewrapping key \"%s\"", name);
    status = rewrap_key(&job, name);
    *done = job.done;
    keyring_refresh_now(ring);
    return status;
}

/* ---- all keys ---- */

/* What became of one key, added to the whole; the first error is kept for the end. */
static void count_key(const struct rewrapping *job, envelope_status status, struct keyring_rewrap_all *all,
                      struct keyring_failure *first)
{
    all->looked++;
    all->versions.moved += job->done.moved;
    all->versions.inside += job->done.inside;
    all->versions.kept += job->done.kept;
    if (!status)
        return;
    if (all->failed++ == 0) {
        first->status = status;
        snprintf(first->text, sizeof first->text, "%s", error_text());
    }
}

static envelope_status rewrap_keys(struct rewrapping *job, const struct store_key *keys, size_t count,
                                   keyring_rewrap_each *each, void *argument, struct keyring_rewrap_all *all)
{
    struct keyring_failure first = {0};
    for (size_t i = 0; i < count; i++)
        all->keys += keys[i].state != STORE_KEY_DESTROYED;
    for (size_t i = 0; i < count && !job->ended; i++) {
        if (keys[i].state == STORE_KEY_DESTROYED)
            continue;
        envelope_status status = rewrap_key(job, keys[i].name);
        count_key(job, status, all, &first);
        if (each)
            each(argument, keys[i].name, status, all);
    }
    if (!all->failed)
        return ENVELOPE_OK;
    if (job->ended)
        return error_raise(first.status, "%zu of %zu keys moved (run it again to go on): %s", all->looked - all->failed,
                           all->keys, first.text);
    return error_raise(first.status, "%zu of %zu keys could not be moved wholly; the first: %s", all->failed, all->keys,
                       first.text);
}

/* Once for all, so that a KEK that cannot be used is one error and not as many as there are keys. */
static envelope_status prepare_all(struct rewrapping *job)
{
    envelope_status status = find_from(job);
    if (!status && job->wanted->version != 0)
        status = error_raise(ENVELOPE_E_ARGUMENT, "a version is of one key, not of all");
    if (!status && job->wanted->kek_uri)
        status = find_kek(job, &(struct store_key){0});
    return !status && job->wanted->kek_uri ? try_kek(job, job->uri) : status;
}

envelope_status keyring_rewrap_all(keyring *ring, const struct keyring_rewrap *wanted, keyring_rewrap_each *each,
                                   void *argument, struct keyring_rewrap_all *done)
{
    *done = (struct keyring_rewrap_all){0};
    struct rewrapping job = {.ring = ring, .opened = keyring_connect(ring), .wanted = wanted, .many = true};
    if (!job.opened)
        return error_status();
    struct store_key *keys = NULL;
    struct store_version *rows = NULL;
    size_t count = 0, row_count = 0;
    envelope_status status = prepare_all(&job);
    if (!status)
        status = store_keys(job.opened, &keys, &count);
    if (!status)
        status = store_versions(job.opened, NULL, &rows, &row_count);
    if (status) {
        free(keys);
        return error_context(status, "rewrapping all keys");
    }
    keyring_rewrap_ahead_of(&job, rows, row_count);
    status = rewrap_keys(&job, keys, count, each, argument, done);
    keyring_rewrap_ahead_end(&job);
    store_versions_free(rows, row_count);
    free(keys);
    keyring_refresh_now(ring);
    return status;
}
