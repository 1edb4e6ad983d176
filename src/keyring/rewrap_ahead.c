/* Moving versions ahead of their turn, many in one request of a key service. */
#include "keyring/rewrap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "keyring/binding.h"

/* What one request is made of. */
struct batch {
    struct hsm_rewrap_item items[HSM_REWRAP_MANY];
    const struct store_version *rows[HSM_REWRAP_MANY];
    uint8_t aads[HSM_REWRAP_MANY][2][BINDING_MAX];
    size_t count;
};

void keyring_rewrap_ahead_of(struct rewrapping *job, const struct store_version *rows, size_t count)
{
    job->ahead.rows = rows;
    job->ahead.count = count;
}

static void drop(struct keyring_rewrap_ahead *ahead)
{
    for (size_t i = ahead->first; i < ahead->end; i++)
        free(ahead->moved[i].blob);
    ahead->first = ahead->end = 0;
}

void keyring_rewrap_ahead_end(struct rewrapping *job)
{
    drop(&job->ahead);
    free(job->ahead.moved);
    job->ahead = (struct keyring_rewrap_ahead){0};
}

static bool is_before(const struct store_version *one, const struct store_version *other)
{
    int order = strcmp(one->key_name, other->key_name);
    return order < 0 || (order == 0 && one->version < other->version);
}

/* One that waits, by its id; whoever was before it and did not come for it does not come any more. */
static bool take(struct rewrapping *job, const struct store_version *row, struct keyring_rewrap_moved *moved)
{
    struct keyring_rewrap_ahead *ahead = &job->ahead;
    for (size_t i = ahead->first; i < ahead->end; i++) {
        struct keyring_rewrap_moved *waiting = &ahead->moved[i];
        if (waiting->dek_id != row->dek_id || waiting->kek_id != job->kek_id)
            continue;
        for (; ahead->first < i; ahead->first++)
            free(ahead->moved[ahead->first].blob);
        *moved = *waiting;
        ahead->first++;
        return true;
    }
    return false;
}

/* ---- a request ---- */

static void add(const struct rewrapping *job, struct batch *batch, const struct store_version *row)
{
    size_t n = batch->count++;
    struct binding_place place = {job->store_id, row->dek_id, row->version, row->kek_id, row->algorithm, row->key_name};
    struct hsm_rewrap_item *item = &batch->items[n];
    *item = (struct hsm_rewrap_item){
        .aad_from = batch->aads[n][0], .aad_to = batch->aads[n][1], .blob = row->blob, .blob_length = row->blob_length};
    item->aad_from_length = keyring_binding_aad(&place, batch->aads[n][0]);
    place.kek_id = job->kek_id;
    item->aad_to_length = keyring_binding_aad(&place, batch->aads[n][1]);
    batch->rows[n] = row;
}

/* The row whose turn it is, and what comes behind it from the same KEK. */
static void collect(struct rewrapping *job, struct batch *batch)
{
    struct keyring_rewrap_ahead *ahead = &job->ahead;
    uint32_t kek_id = ahead->rows[ahead->at].kek_id;
    size_t i = ahead->at;
    for (; i < ahead->count && batch->count < HSM_REWRAP_MANY; i++) {
        const struct store_version *row = &ahead->rows[i];
        if (row->kek_id == kek_id && keyring_rewrap_is_wanted(job, row) && !keyring_rewrap_is_there(job, row))
            add(job, batch, row);
    }
    ahead->asked = i;
}

static void keep(struct rewrapping *job, const struct batch *batch)
{
    struct keyring_rewrap_ahead *ahead = &job->ahead;
    for (size_t i = 0; i < batch->count; i++) {
        const struct hsm_rewrap_item *item = &batch->items[i];
        if (!item->made)
            continue;
        struct keyring_rewrap_moved *moved = &ahead->moved[ahead->end++];
        *moved = (struct keyring_rewrap_moved){
            .dek_id = batch->rows[i]->dek_id, .kek_id = job->kek_id, .blob = item->made, .length = item->made_length};
        snprintf(moved->requests, sizeof moved->requests, "%s", hsm_requests());
    }
}

/*
 * No error comes from here: what was not moved is moved by itself in its turn, and that says why it cannot be. Where
 * nothing at all could be moved like this, it is not tried again.
 */
static void ask(struct rewrapping *job, struct batch *batch)
{
    struct keyring_rewrap_ahead *ahead = &job->ahead;
    uint32_t kek_id = ahead->rows[ahead->at].kek_id;
    const char *from = keyring_kek_uri(job->ring, kek_id);
    collect(job, batch);
    bool possible = false;
    if (from && batch->count > 1) {
        keyring_gate_enter();
        possible = hsm_rewrap_many(job->ring->token, from, job->uri, batch->items, batch->count);
        keyring_gate_leave();
        keep(job, batch);
    }
    if (!possible || ahead->end == 0)
        ahead->not_many = kek_id;
}

static void move_ahead(struct rewrapping *job)
{
    struct keyring_rewrap_ahead *ahead = &job->ahead;
    struct batch *batch = calloc(1, sizeof *batch);
    drop(ahead);
    if (!ahead->moved)
        ahead->moved = calloc(HSM_REWRAP_MANY, sizeof *ahead->moved);
    if (batch && ahead->moved)
        ask(job, batch);
    free(batch);
}

bool keyring_rewrap_ahead(struct rewrapping *job, const struct store_version *row, struct keyring_rewrap_moved *moved)
{
    struct keyring_rewrap_ahead *ahead = &job->ahead;
    while (ahead->at < ahead->count && is_before(&ahead->rows[ahead->at], row))
        ahead->at++;
    if (take(job, row, moved))
        return true;
    if (job->many_from != row->kek_id || ahead->not_many == row->kek_id || ahead->at < ahead->asked ||
        ahead->at >= ahead->count || ahead->rows[ahead->at].dek_id != row->dek_id ||
        ahead->rows[ahead->at].kek_id != row->kek_id)
        return false;
    move_ahead(job);
    return take(job, row, moved);
}
