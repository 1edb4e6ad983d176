/* Moving keys to another KEK: some at a time, their versions in pages. */
#include "keyring/rewrap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"

/*
 * A service may take a second for a few versions. What has been moved is stored at least as often as this, so that
 * little of it is lost to a crash, or to somebody else's change.
 */
static const int64_t STORE_AFTER = CLOCK_SECOND / 2;

/* ---- what became of a key ---- */

void keyring_rewrap_fail(struct rewrap_key *key, uint32_t version, envelope_status status)
{
    if (key->status)
        return;
    key->status = status;
    key->version = version;
    snprintf(key->text, sizeof key->text, "%s", error_text());
}

/* It would not take a row of the history either. */
static bool is_of_store(envelope_status status)
{
    return status == ENVELOPE_E_STORE_UNAVAILABLE || status == ENVELOPE_E_STORE_BUSY ||
           status == ENVELOPE_E_STORE_READ_ONLY || status == ENVELOPE_E_STORE_CORRUPT ||
           status == ENVELOPE_E_STORE_SCHEMA;
}

static envelope_status raise_of_key(const struct rewrapping *job, const struct rewrap_key *key)
{
    error_raise(key->status, "%s", key->text);
    if (key->version)
        error_context(key->status, "version %u, with %zu of %u versions done (run it again to go on)",
                      (unsigned)key->version, key->done.moved + key->done.kept, (unsigned)key->row->primary_version);
    error_context(key->status, "rewrapping key \"%s\"", key->row->name);
    if (!is_of_store(key->status))
        keyring_note_refusal(job->ring, "rewrap", key->row->name, job->wanted->version, key->status);
    return key->status;
}

static void tell(struct rewrapping *job, const struct rewrap_key *key)
{
    struct keyring_rewrap_all *all = job->all;
    envelope_status status = key->status ? raise_of_key(job, key) : ENVELOPE_OK;
    all->looked++;
    all->versions.moved += key->done.moved;
    all->versions.inside += key->done.inside;
    all->versions.kept += key->done.kept;
    if (status && all->failed++ == 0)
        keyring_failure_set(job->ring, &job->first, 0, status, 0);
    if (job->each)
        job->each(job->argument, key->row->name, status, all);
}

/* The keys before this one have had all their versions looked at. */
static void tell_before(struct rewrapping *job, size_t key)
{
    while (job->told < key)
        tell(job, &job->keys[job->told++]);
}

/* ---- versions ---- */

/* Both are sorted by name. A version of a key that was made meanwhile, or is destroyed, is nobody's. */
static void find_keys(struct rewrapping *job, size_t key)
{
    struct rewrap_page *page = &job->page;
    for (size_t i = 0; i < page->count; i++) {
        const char *name = page->rows[i].key_name;
        while (key < job->key_count && strcmp(job->keys[key].row->name, name) < 0)
            key++;
        bool found = key < job->key_count && strcmp(job->keys[key].row->name, name) == 0;
        page->keys[i] = found ? &job->keys[key] : NULL;
    }
}

static void drop_page(struct rewrap_page *page)
{
    for (size_t i = 0; i < page->count; i++)
        free(page->moved[i].blob);
    memset(page->moved, 0, page->count * sizeof *page->moved);
    memset(page->asked, 0, page->count * sizeof *page->asked);
    store_versions_free(page->rows, page->count);
    page->rows = NULL;
    page->count = 0;
}

/* The keys of rows before this one that are done with. The last of them may have more, unless it failed. */
static void tell_rows(struct rewrapping *job, size_t end)
{
    struct rewrap_key *const *keys = job->page.keys;
    while (end > 0 && !keys[end - 1])
        end--;
    if (end == 0)
        return;
    size_t key = (size_t)(keys[end - 1] - job->keys);
    tell_before(job, job->ended && job->keys[key].status ? key + 1 : key);
}

/* The token is asked for rows from this one on, for a while, then they are stored. Returns the first that is left. */
static size_t move_some(struct rewrapping *job, size_t from)
{
    const struct rewrap_page *page = &job->page;
    int64_t until = clock_monotonic() + STORE_AFTER;
    size_t to = from;
    while (to < page->count && !job->ended) {
        keyring_rewrap_wrap_row(job, to++);
        bool asks = to < page->count && !page->moved[to].blob;
        if (asks && clock_monotonic() >= until)
            break;
    }
    keyring_rewrap_store_rows(job, from, to);
    tell_rows(job, to);
    return to;
}

static envelope_status read_page(struct rewrapping *job, const char *first, uint32_t after)
{
    struct rewrap_page *page = &job->page;
    size_t limit = job->wanted->version ? 1 : REWRAP_MANY;
    const char *last = job->keys[job->key_count - 1].row->name;
    return store_versions_page(job->opened, first, after, last, limit, &page->rows, &page->count);
}

/* The versions of the keys under way. An error: of the store. */
static envelope_status move_versions(struct rewrapping *job)
{
    struct rewrap_page *page = &job->page;
    char first[KEY_NAME_MAX + 1];
    uint32_t after = job->wanted->version ? job->wanted->version - 1 : 0;
    snprintf(first, sizeof first, "%s", job->keys[0].row->name);
    bool more = true;
    while (more && !job->ended) {
        envelope_status status = read_page(job, first, after);
        if (status)
            return status;
        find_keys(job, job->told);
        for (size_t i = 0; i < page->count && !job->ended;)
            i = move_some(job, i);
        more = page->count == REWRAP_MANY;
        if (page->count > 0) {
            const struct store_version *last = &page->rows[page->count - 1];
            const struct rewrap_key *key = page->keys[page->count - 1];
            snprintf(first, sizeof first, "%s", last->key_name);
            after = key && key->status ? UINT32_MAX : last->version; /* what is left of it is not tried */
        }
        drop_page(page);
    }
    return ENVELOPE_OK;
}

/* ---- keys ---- */

static void take_key(struct rewrapping *job, const struct store_key *row)
{
    struct rewrap_key *key = &job->keys[job->key_count++];
    memset(key, 0, sizeof *key);
    key->row = row;
    key->uri = job->wanted->kek_uri ? job->uri : keyring_kek_uri(job->ring, row->kek_id);
    if (!key->uri)
        keyring_rewrap_fail(key, 0, error_status());
}

/* The keys that were taken. Where the KEK to move to, or the store, fails, it ends with the first that is not told. */
static void move_keys(struct rewrapping *job)
{
    envelope_status status = keyring_rewrap_store_keys(job);
    if (!status)
        status = move_versions(job);
    if (status) {
        job->ended = true;
        keyring_rewrap_fail(&job->keys[job->told], 0, status);
        tell_before(job, job->told + 1);
    }
    if (!job->ended)
        tell_before(job, job->key_count);
    job->key_count = job->told = 0;
}

static envelope_status begin(struct rewrapping *job)
{
    job->keys = calloc(REWRAP_MANY, sizeof *job->keys);
    job->page.moved = calloc(REWRAP_MANY, sizeof *job->page.moved);
    job->writing = calloc(1, sizeof *job->writing);
    if (!job->keys || !job->page.moved || !job->writing)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory while keys are rewrapped");
    job->dek = secslab_get(job->ring->deks);
    job->again = secslab_get(job->ring->deks);
    return job->dek && job->again ? keyring_store_id(job->ring, job->store_id) : error_status();
}

static void finish(struct rewrapping *job)
{
    if (job->dek)
        secslab_put(job->ring->deks, job->dek);
    if (job->again)
        secslab_put(job->ring->deks, job->again);
    free(job->keys);
    free(job->page.moved);
    free(job->writing);
    free(job->public_uri);
    keyring_refresh_now(job->ring);
}

/* ---- one key ---- */

/* A version that is not there, or destroyed, is known before anything is done for it. */
static envelope_status check_version(const struct rewrapping *job, const char *name)
{
    struct store_version row;
    if (job->wanted->version == 0)
        return ENVELOPE_OK;
    envelope_status status = store_version_of(job->opened, name, job->wanted->version, &row);
    if (status == ENVELOPE_E_VERSION_UNKNOWN || (!status && !rewrap_is_wanted(job, &row)))
        status = error_raise(ENVELOPE_E_VERSION_UNKNOWN, "it has no version %u%s, or that one is destroyed",
                             (unsigned)job->wanted->version, job->from_kek_id ? " under that KEK" : "");
    store_version_clear(&row);
    return status;
}

static envelope_status rewrap_key(struct rewrapping *job, const char *name)
{
    struct store_key key = {0};
    envelope_status status = keyring_rewrap_find_from(job);
    if (status)
        return error_context(status, "rewrapping key \"%s\"", name);
    status = store_key_find(job->opened, name, &key);
    if (status == ENVELOPE_E_KEY_UNKNOWN)
        return error_raise(status, "there is no key \"%s\" to rewrap", name);
    if (!status)
        status = begin(job);
    if (!status && key.state == STORE_KEY_DESTROYED)
        status = error_raise(ENVELOPE_E_KEY_STATE, "the key is destroyed");
    if (!status)
        status = check_version(job, name);
    if (!status)
        status = keyring_rewrap_find_to(job);
    if (status) {
        error_context(status, "rewrapping key \"%s\"", name);
        keyring_note_refusal(job->ring, "rewrap", name, job->wanted->version, status);
        return status;
    }
    take_key(job, &key);
    move_keys(job);
    return job->first.status ? error_raise(job->first.status, "%s", job->first.text) : ENVELOPE_OK;
}

envelope_status keyring_rewrap(keyring *ring, const char *name, const struct keyring_rewrap *wanted,
                               struct keyring_rewrapped *done)
{
    *done = (struct keyring_rewrapped){0};
    struct keyring_rewrap_all all = {0};
    struct rewrapping job = {.ring = ring, .opened = keyring_connect(ring), .wanted = wanted, .all = &all};
    if (!job.opened)
        return error_status();
    envelope_status status = rewrap_key(&job, name);
    *done = all.versions;
    finish(&job);
    return status;
}

/* ---- all keys ---- */

static void rewrap_keys(struct rewrapping *job, const struct store_key *keys, size_t count)
{
    for (size_t i = 0; i < count; i++)
        job->all->keys += keys[i].state != STORE_KEY_DESTROYED;
    for (size_t i = 0; i < count && !job->ended;) {
        for (; i < count && job->key_count < REWRAP_MANY; i++)
            if (keys[i].state != STORE_KEY_DESTROYED)
                take_key(job, &keys[i]);
        if (job->key_count > 0)
            move_keys(job);
    }
}

static envelope_status result(const struct rewrapping *job)
{
    const struct keyring_rewrap_all *all = job->all;
    if (!all->failed)
        return ENVELOPE_OK;
    if (job->ended)
        return error_raise(job->first.status, "%zu of %zu keys moved (run it again to go on): %s",
                           all->looked - all->failed, all->keys, job->first.text);
    return error_raise(job->first.status, "%zu of %zu keys could not be moved wholly; the first: %s", all->failed,
                       all->keys, job->first.text);
}

/* Once for all, so that a KEK that cannot be used is one error and not as many as there are keys. */
static envelope_status prepare_all(struct rewrapping *job)
{
    envelope_status status = keyring_rewrap_find_from(job);
    if (!status && job->wanted->version != 0)
        status = error_raise(ENVELOPE_E_ARGUMENT, "a version is of one key, not of all");
    if (!status)
        status = begin(job);
    if (!status)
        status = keyring_rewrap_find_to(job);
    return !status && job->wanted->kek_uri ? keyring_rewrap_try_to(job) : status;
}

envelope_status keyring_rewrap_all(keyring *ring, const struct keyring_rewrap *wanted, keyring_rewrap_each *each,
                                   void *argument, struct keyring_rewrap_all *done)
{
    *done = (struct keyring_rewrap_all){0};
    struct rewrapping job = {.ring = ring,
                             .opened = keyring_connect(ring),
                             .wanted = wanted,
                             .many = true,
                             .each = each,
                             .argument = argument,
                             .all = done};
    if (!job.opened)
        return error_status();
    struct store_key *keys = NULL;
    size_t count = 0;
    envelope_status status = prepare_all(&job);
    if (!status)
        status = store_keys(job.opened, &keys, &count);
    if (status) {
        error_context(status, "rewrapping all keys");
    } else {
        rewrap_keys(&job, keys, count);
        status = result(&job);
    }
    free(keys);
    finish(&job);
    return status;
}
