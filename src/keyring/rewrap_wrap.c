/* A version's DEK under the KEK it moves to: one by one, or many in one request where a service takes that. */
#include "keyring/rewrap.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "keyring/binding.h"

/* Requests for several that moved none, one after another, until they are given up. */
enum { VAIN_MAX = 3 };

struct bindings {
    uint8_t from[BINDING_MAX], to[BINDING_MAX];
    size_t from_length, to_length;
};

static void bind(const struct rewrapping *job, const struct rewrap_key *key, const struct store_version *row,
                 struct bindings *bound)
{
    struct binding_place place = {job->store_id, row->dek_id, row->version, row->kek_id, row->algorithm, row->key_name};
    bound->from_length = keyring_binding_aad(&place, bound->from);
    place.kek_id = rewrap_target(job, key);
    bound->to_length = keyring_binding_aad(&place, bound->to);
}

/* ---- one ---- */

static envelope_status ask(struct rewrapping *job, const struct rewrap_key *key, const struct store_version *row,
                           struct rewrap_moved *moved)
{
    struct bindings bound;
    bind(job, key, row, &bound);
    const struct hsm_rewrap plan = {.from = keyring_kek_uri(job->ring, row->kek_id),
                                    .to = key->uri,
                                    .aad_from = bound.from,
                                    .aad_to = bound.to,
                                    .aad_from_length = bound.from_length,
                                    .aad_to_length = bound.to_length,
                                    .blob = row->blob,
                                    .blob_length = row->blob_length,
                                    .dek = job->dek,
                                    .again = job->again};
    if (!plan.from)
        return error_status();
    keyring_gate_enter();
    envelope_status status = hsm_rewrap(job->ring->token, &plan, &moved->blob, &moved->length, &moved->inside);
    keyring_gate_leave();
    snprintf(moved->requests, sizeof moved->requests, "%s", hsm_requests());
    return status;
}

envelope_status keyring_rewrap_wrap(struct rewrapping *job, const struct rewrap_key *key,
                                    const struct store_version *row, struct rewrap_moved *moved)
{
    *moved = (struct rewrap_moved){0};
    struct rewrap_source *source = keyring_rewrap_source(job, row->kek_id);
    envelope_status status = keyring_failure_raise(job->ring, &source->lost, row->kek_id, 0);
    if (status)
        return status;
    status = ask(job, key, row, moved);
    if (status) {
        keyring_rewrap_blame(job, row->kek_id, status);
        return status;
    }
    keyring_rewrap_source_works(job, row->kek_id);
    source->many = !moved->inside && source->vain < VAIN_MAX;
    return ENVELOPE_OK;
}

/* ---- many ---- */

/* What one request is made of. */
struct batch {
    struct hsm_rewrap_item items[HSM_REWRAP_MANY];
    struct bindings bound[HSM_REWRAP_MANY];
    size_t rows[HSM_REWRAP_MANY];
    size_t count;
};

static bool needs_wrap(const struct rewrapping *job, size_t i)
{
    const struct store_version *row = &job->page.rows[i];
    const struct rewrap_key *key = job->page.keys[i];
    return key && !key->status && !job->page.moved[i].blob && rewrap_is_wanted(job, row) && !rewrap_is_there(job, row);
}

static void add(const struct rewrapping *job, struct batch *batch, size_t i)
{
    const struct store_version *row = &job->page.rows[i];
    struct bindings *bound = &batch->bound[batch->count];
    bind(job, job->page.keys[i], row, bound);
    batch->items[batch->count] = (struct hsm_rewrap_item){.aad_from = bound->from,
                                                          .aad_to = bound->to,
                                                          .aad_from_length = bound->from_length,
                                                          .aad_to_length = bound->to_length,
                                                          .blob = row->blob,
                                                          .blob_length = row->blob_length};
    batch->rows[batch->count++] = i;
}

/* The row and all behind it in the page that take the same way. */
static void collect(struct rewrapping *job, size_t first, struct batch *batch)
{
    struct rewrap_page *page = &job->page;
    uint32_t from = page->rows[first].kek_id, to = rewrap_target(job, page->keys[first]);
    for (size_t i = first; i < page->count; i++) {
        bool fits = !page->asked[i] && page->rows[i].kek_id == from && needs_wrap(job, i);
        if (!fits || rewrap_target(job, page->keys[i]) != to)
            continue;
        page->asked[i] = true;
        add(job, batch, i);
    }
}

static size_t keep(struct rewrapping *job, const struct batch *batch)
{
    size_t kept = 0;
    for (size_t i = 0; i < batch->count; i++) {
        const struct hsm_rewrap_item *item = &batch->items[i];
        struct rewrap_moved *moved = &job->page.moved[batch->rows[i]];
        if (!item->made)
            continue;
        *moved = (struct rewrap_moved){.blob = item->made, .length = item->made_length};
        snprintf(moved->requests, sizeof moved->requests, "%s", hsm_requests());
        kept++;
    }
    return kept;
}

/* No error comes from here: what was not moved is asked for by itself in its turn, and that says why it cannot be. */
static void wrap_many(struct rewrapping *job, size_t first, struct rewrap_source *source, struct batch *batch)
{
    const char *from = keyring_kek_uri(job->ring, source->kek_id);
    collect(job, first, batch);
    if (!from || batch->count < 2)
        return;
    keyring_gate_enter();
    bool possible = hsm_rewrap_many(job->ring->token, from, job->page.keys[first]->uri, batch->items, batch->count);
    keyring_gate_leave();
    source->vain = keep(job, batch) > 0 ? 0 : source->vain + 1;
    if (!possible)
        source->vain = VAIN_MAX;
    source->many = source->vain == 0;
}

/* ---- a row ---- */

void keyring_rewrap_wrap_row(struct rewrapping *job, size_t i)
{
    const struct store_version *row = &job->page.rows[i];
    struct rewrap_key *key = job->page.keys[i];
    if (!needs_wrap(job, i)) {
        bool kept = key && !key->status && !job->page.moved[i].blob && rewrap_is_wanted(job, row);
        if (kept)
            key->done.kept++;
        return;
    }
    struct rewrap_source *source = keyring_rewrap_source(job, row->kek_id);
    struct batch *batch = source->many && !job->page.asked[i] ? calloc(1, sizeof *batch) : NULL;
    if (batch)
        wrap_many(job, i, source, batch);
    free(batch);
    if (job->page.moved[i].blob)
        return;
    envelope_status status = keyring_rewrap_wrap(job, key, row, &job->page.moved[i]);
    if (status)
        keyring_rewrap_fail(key, row->version, status);
}
