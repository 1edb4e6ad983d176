/* Moving a key's versions to another KEK. */
#include "keyring/keyring_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/secmem.h"
#include "keyring/binding.h"

struct rewrapping {
    keyring *ring;
    store *opened;
    const struct keyring_rewrap *wanted;
    struct keyring_rewrapped *done;
    uint8_t store_id[STORE_ID_SIZE];
    uint32_t kek_id; /* to this one */
    const char *uri;
    bool tried; /* what is wrapped under it comes back */
};

static bool is_wanted(const struct rewrapping *job, const struct store_version *row)
{
    return row->state != STORE_VERSION_DESTROYED && (job->wanted->version == 0 || job->wanted->version == row->version);
}

/* With a KEK named, what is under it already was moved before, or made there. Without, all is wrapped anew. */
static bool is_there(const struct rewrapping *job, const struct store_version *row)
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
    if (status == ENVELOPE_E_VERSION_UNKNOWN || (!status && !is_wanted(job, &row)))
        status = error_raise(ENVELOPE_E_VERSION_UNKNOWN, "it has no version %u, or that one is destroyed",
                             (unsigned)job->wanted->version);
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

static envelope_status find_kek(struct rewrapping *job, const struct store_key *key)
{
    envelope_status status = ENVELOPE_OK;
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
    if (job->wanted->version != 0 || key->kek_id == job->kek_id)
        return ENVELOPE_OK;
    envelope_status status = try_kek(job, job->uri);
    if (status)
        return status;
    char what[64];
    struct keyring_note note;
    snprintf(what, sizeof what, "from KEK %u to KEK %u", (unsigned)key->kek_id, (unsigned)job->kek_id);
    struct store_actor actor = keyring_actor_of_requests(&note, what, job->wanted->why);
    return store_key_set_kek(job->opened, key->name, key->kek_id, job->kek_id, clock_wall(), &actor);
}

/* ---- a version ---- */

static envelope_status wrap_anew(const struct rewrapping *job, const struct store_version *row,
                                 struct store_rewrap *move, uint8_t **blob, bool *inside)
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
    envelope_status status = hsm_rewrap(job->ring->token, &plan, blob, &move->blob_length, inside);
    keyring_gate_leave();
    move->blob = *blob;
    return status;
}

static envelope_status move_version(struct rewrapping *job, const struct store_version *row)
{
    struct store_rewrap move = {.from_kek_id = row->kek_id,
                                .from_blob = row->blob,
                                .from_length = row->blob_length,
                                .kek_id = job->kek_id,
                                .now = clock_wall()};
    uint8_t *blob = NULL;
    bool inside = false;
    envelope_status status = wrap_anew(job, row, &move, &blob, &inside);
    if (!status) {
        char what[80];
        struct keyring_note note;
        snprintf(what, sizeof what, "from KEK %u to KEK %u%s", (unsigned)row->kek_id, (unsigned)job->kek_id,
                 inside ? ", inside the key service" : "");
        struct store_actor actor = keyring_actor_of_requests(&note, what, job->wanted->why);
        status = store_version_rewrap(job->opened, row->dek_id, &move, &actor);
    }
    free(blob);
    if (status)
        return status;
    job->done->moved++;
    job->done->inside += inside ? 1 : 0;
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
        if (!status && (is_there(job, &now) || !is_wanted(job, &now)))
            job->done->kept++;
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
    for (size_t i = 0; !status && i < count; i++) {
        if (!is_wanted(job, &rows[i]))
            continue;
        if (is_there(job, &rows[i]))
            job->done->kept++;
        else
            status = move_or_find_moved(job, &rows[i]);
        if (status)
            error_context(status, "version %u, with %zu of %zu versions done (run it again to go on)",
                          (unsigned)rows[i].version, job->done->moved + job->done->kept, count);
    }
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

envelope_status keyring_rewrap(keyring *ring, const char *name, const struct keyring_rewrap *wanted,
                               struct keyring_rewrapped *done)
{
    store *opened = keyring_connect(ring);
    if (!opened)
        return error_status();
    *done = (struct keyring_rewrapped){0};
    struct rewrapping job = {.ring = ring, .opened = opened, .wanted = wanted, .done = done};
    envelope_status status = rewrap(&job, name);
    keyring_refresh_now(ring);
    if (status == ENVELOPE_E_KEY_UNKNOWN)
        return error_raise(status, "there is no key \"%s\" to rewrap", name);
    if (status) {
        error_context(status, "rewrapping key \"%s\"", name);
        keyring_note_refusal(ring, "rewrap", name, wanted->version, status);
    }
    return status;
}
