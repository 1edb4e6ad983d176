#include "keyring/keyring_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fork.h"

enum { CHUNK_DEKS = 64, TABLE_BITS_FIRST = 8, SWEEP_SLOTS = 4096, SWEEP_CHECKS = 16 };

/* ---- the table ---- */

static struct keyring_table *table_new(unsigned bits)
{
    size_t count = (size_t)1 << bits;
    struct keyring_table *table = calloc(1, sizeof *table + count * sizeof table->slots[0]);
    if (!table)
        return NULL;
    table->mask = count - 1;
    table->shift = 32 - bits;
    return table;
}

static void table_put(struct keyring_table *table, uint32_t dek_id, struct keyring_dek *dek)
{
    struct keyring_slot *slot = keyring_table_slot(table, dek_id);
    atomic_store_explicit(&slot->dek, dek, memory_order_release);
    if (atomic_load_explicit(&slot->id, memory_order_relaxed) == dek_id)
        return;
    atomic_store_explicit(&slot->id, dek_id, memory_order_release);
    table->used++;
}

/* Room for one more id. Under the lock. Ids of dropped entries are left behind when growing. */
static envelope_status table_reserve(keyring *ring)
{
    struct keyring_table *old = atomic_load_explicit(&ring->table, memory_order_relaxed);
    if ((old->used + 1) * 2 <= old->mask + 1)
        return ENVELOPE_OK;
    size_t live = atomic_load_explicit(&ring->cached, memory_order_relaxed) + 1;
    unsigned bits = 32 - old->shift;
    while (((size_t)1 << bits) < live * 4 && bits < 31)
        bits++;
    struct keyring_table *grown = table_new(bits);
    if (!grown)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory for %zu cached data keys", live);
    for (size_t i = 0; i <= old->mask; i++) {
        struct keyring_dek *dek = atomic_load_explicit(&old->slots[i].dek, memory_order_relaxed);
        if (dek)
            table_put(grown, dek->dek_id, dek);
    }
    grown->retired = old;
    atomic_store_explicit(&ring->table, grown, memory_order_release);
    return ENVELOPE_OK;
}

/* ---- references ---- */

bool keyring_dek_usable(const struct keyring_dek *dek)
{
    return atomic_load_explicit(&dek->alive, memory_order_acquire) && dek->generation == fork_generation();
}

/* A free entry has no references and gets none: it may be about to become another DEK. */
static bool dek_try_ref(struct keyring_dek *dek)
{
    uint32_t refs = atomic_load_explicit(&dek->refs, memory_order_relaxed);
    while (refs > 0)
        if (atomic_compare_exchange_weak_explicit(&dek->refs, &refs, refs + 1, memory_order_acq_rel,
                                                  memory_order_relaxed))
            return true;
    return false;
}

struct keyring_dek *keyring_cache_find(keyring *ring, uint32_t dek_id)
{
    struct keyring_dek *dek = keyring_cache_peek(ring, dek_id);
    if (!dek || !dek_try_ref(dek))
        return NULL;
    if (dek->dek_id == dek_id && keyring_dek_usable(dek))
        return dek;
    keyring_dek_unref(ring, dek);
    return NULL;
}

void keyring_dek_unref(keyring *ring, struct keyring_dek *dek)
{
    if (atomic_fetch_sub_explicit(&dek->refs, 1, memory_order_acq_rel) != 1)
        return;
    secslab_put(ring->deks, dek->dek);
    dek->dek = NULL;
    pthread_mutex_lock(&ring->lock);
    dek->next_free = ring->free_deks;
    ring->free_deks = dek;
    pthread_mutex_unlock(&ring->lock);
}

/* ---- entries ---- */

static envelope_status chunk_add(keyring *ring)
{
    struct keyring_chunk *chunk = malloc(sizeof *chunk);
    size_t size = CHUNK_DEKS * sizeof(struct keyring_dek);
    struct keyring_dek *deks = aligned_alloc(KEYRING_CACHE_LINE, size);
    if (!chunk || !deks) {
        free(chunk);
        free(deks);
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory for cached data keys");
    }
    memset(deks, 0, size);
    chunk->deks = deks;
    chunk->next = ring->chunks;
    ring->chunks = chunk;
    for (size_t i = CHUNK_DEKS; i-- > 0;) {
        deks[i].next_free = ring->free_deks;
        ring->free_deks = &deks[i];
    }
    return ENVELOPE_OK;
}

/* True if it was alive; the caller then finishes with dek_dropped(), without the lock. */
static bool dek_unpublish(keyring *ring, struct keyring_dek *dek)
{
    if (!atomic_load_explicit(&dek->alive, memory_order_relaxed))
        return false;
    /* In one total order with a seat being parked (lease.c): whoever comes second sees the other. */
    atomic_store(&dek->alive, false);
    atomic_store(&dek->fresh_until, INT64_MIN);
    struct keyring_slot *slot =
        keyring_table_slot(atomic_load_explicit(&ring->table, memory_order_relaxed), dek->dek_id);
    if (atomic_load_explicit(&slot->dek, memory_order_relaxed) == dek)
        atomic_store_explicit(&slot->dek, NULL, memory_order_release);
    atomic_fetch_sub_explicit(&ring->cached, 1, memory_order_relaxed);
    return true;
}

static void dek_dropped(keyring *ring, struct keyring_dek *dek)
{
    keyring_seats_clear(ring, dek);
    keyring_dek_unref(ring, dek);
}

void keyring_dek_drop(keyring *ring, struct keyring_dek *dek)
{
    pthread_mutex_lock(&ring->lock);
    bool dropped = dek_unpublish(ring, dek);
    pthread_mutex_unlock(&ring->lock);
    if (dropped)
        dek_dropped(ring, dek);
}

static void dek_fill(keyring *ring, struct keyring_dek *dek, keyring_key *key, const struct store_version *row,
                     uint8_t *secret, uint64_t epoch, int64_t now)
{
    const struct settings *settings = &ring->settings;
    dek->key = key;
    dek->dek = secret;
    dek->dek_id = row->dek_id;
    dek->version = row->version;
    dek->generation = fork_generation();
    atomic_store_explicit(&dek->epoch, epoch, memory_order_relaxed);
    atomic_store_explicit(&dek->local, 0, memory_order_relaxed);
    atomic_store_explicit(&dek->block, 0, memory_order_relaxed);
    atomic_store_explicit(&dek->limit, row->message_limit, memory_order_relaxed);
    atomic_store_explicit(&dek->reserved, row->messages_reserved, memory_order_relaxed);
    atomic_store_explicit(&dek->fresh_until, now + settings->ttl, memory_order_relaxed);
    atomic_store_explicit(&dek->dies_at, now + settings->ttl + settings->grace, memory_order_relaxed);
    atomic_store(&dek->alive, true);
    /* Last, and with release: a stale reader that gets a reference sees all of the above. One more for the caller. */
    atomic_store_explicit(&dek->refs, 2, memory_order_release);
}

struct keyring_dek *keyring_cache_insert(keyring *ring, keyring_key *key, const struct store_version *row, uint8_t *dek,
                                         uint64_t epoch, int64_t now)
{
    struct keyring_dek *old = NULL;
    struct keyring_dek *made = NULL;
    pthread_mutex_lock(&ring->lock);
    if (table_reserve(ring) != ENVELOPE_OK || (!ring->free_deks && chunk_add(ring) != ENVELOPE_OK))
        goto out;
    made = ring->free_deks;
    ring->free_deks = made->next_free;
    old = keyring_cache_peek(ring, row->dek_id);
    if (old && !dek_unpublish(ring, old))
        old = NULL;
    dek_fill(ring, made, key, row, dek, epoch, now);
    table_put(atomic_load_explicit(&ring->table, memory_order_relaxed), row->dek_id, made);
    atomic_fetch_add_explicit(&ring->cached, 1, memory_order_relaxed);
out:
    pthread_mutex_unlock(&ring->lock);
    if (old)
        dek_dropped(ring, old);
    return made;
}

/* ---- all of them ---- */

void keyring_cache_drop_all(keyring *ring, const keyring_key *key)
{
    struct keyring_table *table = atomic_load_explicit(&ring->table, memory_order_acquire);
    for (size_t i = 0; i <= table->mask; i++) {
        struct keyring_dek *dek = atomic_load_explicit(&table->slots[i].dek, memory_order_acquire);
        if (!dek || !dek_try_ref(dek))
            continue;
        if (!key || dek->key == key)
            keyring_dek_drop(ring, dek);
        keyring_dek_unref(ring, dek);
    }
}

static void sweep_one(keyring *ring, struct keyring_dek *dek, int64_t now, unsigned *checks)
{
    uint64_t epoch = atomic_load_explicit(&ring->epoch, memory_order_acquire);
    if (dek->generation != fork_generation() || now >= atomic_load_explicit(&dek->dies_at, memory_order_relaxed)) {
        keyring_dek_drop(ring, dek);
        return;
    }
    if (*checks == 0 || atomic_load_explicit(&dek->epoch, memory_order_relaxed) == epoch ||
        atomic_load_explicit(&ring->failing, memory_order_relaxed))
        return;
    --*checks;
    /* What it refuses is dropped; who uses it next gets the reason. */
    (void)keyring_dek_check_row(ring, dek, epoch);
}

void keyring_cache_sweep(keyring *ring, int64_t now)
{
    struct keyring_table *table = atomic_load_explicit(&ring->table, memory_order_acquire);
    size_t at = atomic_load_explicit(&ring->sweep_at, memory_order_relaxed);
    size_t slots = table->mask + 1 < SWEEP_SLOTS ? table->mask + 1 : SWEEP_SLOTS;
    unsigned checks = SWEEP_CHECKS;
    for (size_t i = 0; i < slots; i++, at++) {
        struct keyring_dek *dek = atomic_load_explicit(&table->slots[at & table->mask].dek, memory_order_acquire);
        if (!dek || !dek_try_ref(dek))
            continue;
        sweep_one(ring, dek, now, &checks);
        keyring_dek_unref(ring, dek);
    }
    atomic_store_explicit(&ring->sweep_at, at & table->mask, memory_order_relaxed);
}

envelope_status keyring_cache_init(keyring *ring)
{
    ring->deks = secslab_new(HSM_DEK_SIZE);
    if (!ring->deks)
        return error_status() ? error_status() : ENVELOPE_E_NO_MEMORY;
    struct keyring_table *table = table_new(TABLE_BITS_FIRST);
    if (!table)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
    atomic_store(&ring->table, table);
    return ENVELOPE_OK;
}

void keyring_cache_free(keyring *ring)
{
    struct keyring_table *table = atomic_load(&ring->table);
    if (table)
        keyring_cache_drop_all(ring, NULL);
    while (table) {
        struct keyring_table *retired = table->retired;
        free(table);
        table = retired;
    }
    for (struct keyring_chunk *chunk = ring->chunks; chunk;) {
        struct keyring_chunk *next = chunk->next;
        for (size_t i = 0; i < CHUNK_DEKS; i++)
            free(atomic_load(&chunk->deks[i].stripes));
        free(chunk->deks);
        free(chunk);
        chunk = next;
    }
    if (ring->deks)
        secslab_destroy(ring->deks);
}
