/* Writing what was moved to another KEK: many keys, or versions, in one transaction. */
#include "keyring/rewrap.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"

/* Somebody else may be at it too. */
enum { TRIES = 3 };

/* NULL: the KEK has its row. */
static const char *uri_of_new(const struct rewrapping *job)
{
    return job->wanted->kek_uri && !job->kek_is_there ? job->public_uri : NULL;
}

/* ---- keys ---- */

static bool moves(const struct rewrapping *job, const struct rewrap_key *key)
{
    bool leaves = job->from_kek_id == 0 || job->from_kek_id == key->row->kek_id;
    bool there = job->kek_is_there && key->row->kek_id == job->kek_id;
    return job->wanted->kek_uri && job->wanted->version == 0 && leaves && !there && !key->status;
}

static struct store_key_move key_move(const struct rewrapping *job, const struct rewrap_key *key,
                                      struct keyring_note *note)
{
    char what[64];
    snprintf(what, sizeof what, "from KEK %u to KEK %u", (unsigned)key->row->kek_id, (unsigned)job->kek_id);
    return (struct store_key_move){.name = key->row->name,
                                   .from_kek_id = key->row->kek_id,
                                   .kek_id = job->kek_id,
                                   .kek_uri = uri_of_new(job),
                                   .now = clock_wall(),
                                   .actor =
                                       keyring_actor_of(note, what, job->wanted->why, job->many ? "" : hsm_requests())};
}

/* A conflict: it was moved meanwhile, to the same place perhaps, or another KEK got the id. */
static envelope_status move_key_again(struct rewrapping *job, const struct rewrap_key *key)
{
    envelope_status status = ENVELOPE_E_STORE_CONFLICT;
    for (int i = 0; status == ENVELOPE_E_STORE_CONFLICT && i < TRIES; i++) {
        struct store_key now;
        struct keyring_note note = {0};
        status = store_key_find(job->opened, key->row->name, &now);
        if (!status && !job->kek_is_there)
            status = keyring_rewrap_find_id(job);
        if (status || (job->kek_is_there && now.kek_id == job->kek_id))
            return status;
        if (now.kek_id != key->row->kek_id)
            return error_raise(ENVELOPE_E_STORE_CONFLICT, "somebody else moved it to KEK %u meanwhile",
                               (unsigned)now.kek_id);
        const struct store_key_move move = key_move(job, key, &note);
        status = store_key_set_kek(job->opened, &move);
    }
    if (!status)
        job->kek_is_there = true;
    return status;
}

static size_t collect_keys(struct rewrapping *job)
{
    struct rewrap_writing *writing = job->writing;
    size_t count = 0;
    for (size_t i = 0; i < job->key_count; i++) {
        if (!moves(job, &job->keys[i]))
            continue;
        writing->of[count] = i;
        writing->moves.keys[count] = key_move(job, &job->keys[i], &writing->notes[count]);
        count++;
    }
    return count;
}

static envelope_status try_for_keys(struct rewrapping *job)
{
    for (size_t i = 0; i < job->key_count; i++)
        if (moves(job, &job->keys[i]))
            return keyring_rewrap_try_to(job);
    return ENVELOPE_OK;
}

envelope_status keyring_rewrap_store_keys(struct rewrapping *job)
{
    const struct rewrap_writing *writing = job->writing;
    envelope_status status = try_for_keys(job);
    if (status)
        return status;
    size_t count = collect_keys(job);
    status = store_keys_set_kek(job->opened, job->writing->moves.keys, count);
    if (status)
        return status;
    for (size_t i = 0; i < count; i++)
        job->kek_is_there |= !writing->moves.keys[i].status;
    for (size_t i = 0; i < count; i++) {
        struct rewrap_key *key = &job->keys[writing->of[i]];
        status = writing->moves.keys[i].status ? move_key_again(job, key) : ENVELOPE_OK;
        if (status)
            keyring_rewrap_fail(key, 0, status);
    }
    return ENVELOPE_OK;
}

/* ---- versions ---- */

static struct store_version_move version_move(const struct rewrapping *job, const struct rewrap_key *key,
                                              const struct store_version *row, const struct rewrap_moved *moved,
                                              struct keyring_note *note)
{
    char what[80];
    snprintf(what, sizeof what, "from KEK %u to KEK %u%s", (unsigned)row->kek_id, (unsigned)rewrap_target(job, key),
             moved->inside ? ", inside the key service" : "");
    return (struct store_version_move){.dek_id = row->dek_id,
                                       .from_kek_id = row->kek_id,
                                       .from_blob = row->blob,
                                       .from_length = row->blob_length,
                                       .kek_id = rewrap_target(job, key),
                                       .kek_uri = uri_of_new(job),
                                       .blob = moved->blob,
                                       .blob_length = moved->length,
                                       .now = clock_wall(),
                                       .actor = keyring_actor_of(note, what, job->wanted->why, moved->requests)};
}

static void count_moved(struct rewrapping *job, struct rewrap_key *key, bool inside)
{
    job->kek_is_there |= job->wanted->kek_uri != NULL;
    key->done.moved++;
    key->done.inside += inside ? 1 : 0;
}

static envelope_status move_again(struct rewrapping *job, struct rewrap_key *key, const struct store_version *row)
{
    struct rewrap_moved moved;
    struct keyring_note note = {0};
    envelope_status status = keyring_rewrap_wrap(job, key, row, &moved);
    if (!status) {
        const struct store_version_move move = version_move(job, key, row, &moved, &note);
        status = store_version_rewrap(job->opened, &move);
    }
    if (!status)
        count_moved(job, key, moved.inside);
    free(moved.blob);
    return status;
}

/* It was changed meanwhile; perhaps by somebody who does the same, and has done this one. */
static envelope_status move_changed(struct rewrapping *job, struct rewrap_key *key, uint32_t dek_id)
{
    envelope_status status = ENVELOPE_E_STORE_CONFLICT;
    for (int i = 0; status == ENVELOPE_E_STORE_CONFLICT && i < TRIES; i++) {
        struct store_version now;
        status = job->wanted->kek_uri && !job->kek_is_there ? keyring_rewrap_find_id(job) : ENVELOPE_OK;
        if (status)
            return status;
        status = store_version_find(job->opened, dek_id, &now);
        if (!status && (rewrap_is_there(job, &now) || !rewrap_is_wanted(job, &now)))
            key->done.kept++;
        else if (!status)
            status = move_again(job, key, &now);
        store_version_clear(&now);
    }
    return status;
}

static size_t collect_rows(struct rewrapping *job, size_t from, size_t to)
{
    struct rewrap_writing *writing = job->writing;
    size_t count = 0;
    for (size_t i = from; i < to; i++) {
        if (!job->page.moved[i].blob)
            continue;
        writing->of[count] = i;
        writing->moves.versions[count] =
            version_move(job, job->page.keys[i], &job->page.rows[i], &job->page.moved[i], &writing->notes[count]);
        count++;
    }
    return count;
}

static void drop_blob(struct rewrap_moved *moved)
{
    free(moved->blob);
    moved->blob = NULL;
}

void keyring_rewrap_store_rows(struct rewrapping *job, size_t from, size_t to)
{
    const struct rewrap_writing *writing = job->writing;
    size_t count = collect_rows(job, from, to);
    envelope_status status = store_versions_rewrap(job->opened, job->writing->moves.versions, count);
    for (size_t i = 0; i < count && !status; i++)
        if (!writing->moves.versions[i].status)
            count_moved(job, job->page.keys[writing->of[i]], job->page.moved[writing->of[i]].inside);
    for (size_t i = 0; i < count; i++) {
        size_t row = writing->of[i];
        struct rewrap_key *key = job->page.keys[row];
        const struct store_version *version = &job->page.rows[row];
        envelope_status of_row = status;
        if (!status && writing->moves.versions[i].status)
            of_row = move_changed(job, key, version->dek_id);
        if (of_row)
            keyring_rewrap_fail(key, version->version, of_row);
        drop_blob(&job->page.moved[row]);
    }
    job->ended |= status != ENVELOPE_OK; /* the store itself: nothing more could be kept */
}
