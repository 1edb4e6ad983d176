/*
 * How many messages a version may still encrypt. The store hands the budget out in blocks, counted for ever whether
 * used or not; this process cuts its blocks into pieces for leases. Blocks grow with use, but are never more than a
 * sixteenth of what is left, so that processes share the end of a budget and small budgets fairly.
 */
#include "keyring/keyring_internal.h"

#include "base/clock.h"
#include "base/error.h"

enum {
    BLOCK_FIRST = 64,
    BLOCK_GROWTH = 4,
    BLOCK_LAST = 1 << 20,
    SHARE = 16, /* of what is left; and the part of the limit that rotation is given to succeed in */
    PIECE_MAX = 256,
    PIECE_SHARE = 8
};

static const int64_t rotation_backoff_first = CLOCK_SECOND;
static const int64_t rotation_backoff_last = 60 * CLOCK_SECOND;

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Cut a piece from what this process holds; 0 if it holds nothing. */
static uint32_t piece_cut(struct keyring_dek *dek)
{
    uint64_t local = atomic_load_explicit(&dek->local, memory_order_relaxed);
    while (local > 0) {
        uint64_t piece = smaller(local / PIECE_SHARE, PIECE_MAX);
        if (piece == 0)
            piece = 1;
        if (atomic_compare_exchange_weak_explicit(&dek->local, &local, local - piece, memory_order_acq_rel,
                                                  memory_order_relaxed))
            return (uint32_t)piece;
    }
    return 0;
}

static uint64_t block_next(const struct keyring_dek *dek)
{
    uint64_t last = atomic_load_explicit(&dek->block, memory_order_relaxed);
    uint64_t block = last ? smaller(last * BLOCK_GROWTH, BLOCK_LAST) : BLOCK_FIRST;
    uint64_t limit = atomic_load_explicit(&dek->limit, memory_order_relaxed);
    uint64_t reserved = atomic_load_explicit(&dek->reserved, memory_order_relaxed);
    uint64_t share = reserved < limit ? (limit - reserved) / SHARE : 0;
    uint64_t want = smaller(block, share);
    return want ? want : 1;
}

static envelope_status block_reserve(keyring *ring, struct keyring_dek *dek)
{
    store *opened = keyring_connect(ring);
    if (!opened)
        return error_status();
    uint64_t want = block_next(dek), granted = 0, reserved = 0, limit = 0;
    envelope_status status = store_messages_reserve(opened, dek->dek_id, want, &granted, &reserved, &limit);
    if (status)
        return error_context(status, "counting messages of version %u of key \"%s\"", (unsigned)dek->version,
                             dek->key->name);
    atomic_fetch_add_explicit(&ring->reservations, 1, memory_order_relaxed);
    atomic_store_explicit(&dek->limit, limit, memory_order_relaxed);
    atomic_store_explicit(&dek->reserved, reserved, memory_order_relaxed);
    atomic_store_explicit(&dek->block, want, memory_order_relaxed);
    atomic_fetch_add_explicit(&dek->local, granted, memory_order_release);
    return ENVELOPE_OK;
}

bool keyring_budget_is_spent(const struct keyring_dek *dek)
{
    uint64_t limit = atomic_load_explicit(&dek->limit, memory_order_relaxed);
    return atomic_load_explicit(&dek->reserved, memory_order_relaxed) >= limit;
}

bool keyring_budget_is_low(const struct keyring_dek *dek)
{
    uint64_t limit = atomic_load_explicit(&dek->limit, memory_order_relaxed);
    /* A budget too small to have a sixteenth is used to its end before the key is rotated. */
    return limit >= SHARE && atomic_load_explicit(&dek->reserved, memory_order_relaxed) >= limit - limit / SHARE;
}

/* Reserve ahead of need, so that a store that is away for a moment stops nobody. Failing is fine. */
static void block_ahead(keyring *ring, struct keyring_dek *dek)
{
    uint64_t block = atomic_load_explicit(&dek->block, memory_order_relaxed);
    if (block < PIECE_MAX || atomic_load_explicit(&dek->local, memory_order_relaxed) >= block / 4 ||
        atomic_load_explicit(&ring->failing, memory_order_relaxed) || keyring_budget_is_spent(dek))
        return;
    struct keyring_flight *flight = keyring_flight_try(ring, KEYRING_FLIGHT_BUDGET, dek->dek_id);
    if (flight)
        (void)keyring_flight_land(ring, flight, block_reserve(ring, dek));
}

/* One reservation for all threads that ran dry. */
static envelope_status block_share(keyring *ring, struct keyring_dek *dek)
{
    bool pilot;
    struct keyring_flight *flight = keyring_flight_join(ring, KEYRING_FLIGHT_BUDGET, dek->dek_id, &pilot);
    if (!flight)
        return error_status();
    if (!pilot)
        return keyring_flight_wait(ring, flight);
    bool dry = atomic_load_explicit(&dek->local, memory_order_acquire) == 0;
    return keyring_flight_land(ring, flight, dry ? block_reserve(ring, dek) : ENVELOPE_OK);
}

envelope_status keyring_budget_draw(keyring *ring, struct keyring_lease *lease)
{
    struct keyring_dek *dek = lease->dek;
    int64_t until = clock_monotonic() + ring->settings.deadline;
    for (;;) {
        lease->messages = piece_cut(dek);
        if (lease->messages > 0) {
            block_ahead(ring, dek);
            return ENVELOPE_OK;
        }
        if (keyring_budget_is_spent(dek)) {
            lease->messages = keyring_seats_collect(dek);
            return lease->messages ? ENVELOPE_OK : ENVELOPE_E_MESSAGE_LIMIT;
        }
        envelope_status status = block_share(ring, dek);
        if (status)
            return status;
        /* Others may take all of a small block before this thread gets there. */
        if (clock_monotonic() >= until)
            return error_raise(ENVELOPE_E_TIMEOUT, "no message could be counted for key \"%s\" within the deadline",
                               dek->key->name);
    }
}

/* ---- the end of a budget ---- */

static envelope_status rotate_now(keyring *ring, keyring_key *key, uint32_t version)
{
    envelope_status status = keyring_rotate_from(ring, key->name, version, "message limit", NULL, NULL);
    if (!status)
        status = keyring_key_reread(ring, key);
    int64_t backoff = 0;
    pthread_mutex_lock(&ring->lock);
    if (status) {
        backoff = key->rotation_backoff * 2;
        if (backoff < rotation_backoff_first)
            backoff = rotation_backoff_first;
        if (backoff > rotation_backoff_last)
            backoff = rotation_backoff_last;
    }
    key->rotation_backoff = backoff;
    pthread_mutex_unlock(&ring->lock);
    keyring_failure_set(ring, &key->rotation, version, status, status ? clock_monotonic_coarse() + backoff : 0);
    return status;
}

void keyring_budget_rotate(keyring *ring, keyring_key *key, const struct keyring_dek *dek, bool must, bool *moved)
{
    *moved = false;
    if (keyring_failure_raise(ring, &key->rotation, dek->version, clock_monotonic_coarse()))
        return;
    bool pilot = true;
    struct keyring_flight *flight = must ? keyring_flight_join(ring, KEYRING_FLIGHT_ROTATE, (uintptr_t)key, &pilot)
                                         : keyring_flight_try(ring, KEYRING_FLIGHT_ROTATE, (uintptr_t)key);
    if (!flight)
        return;
    envelope_status status = pilot ? keyring_flight_land(ring, flight, rotate_now(ring, key, dek->version))
                                   : keyring_flight_wait(ring, flight);
    *moved = status == ENVELOPE_OK;
}

envelope_status keyring_budget_refuse(keyring *ring, const struct keyring_dek *dek, bool by_reference)
{
    unsigned long long limit = atomic_load_explicit(&dek->limit, memory_order_relaxed);
    if (by_reference)
        return error_raise(ENVELOPE_E_MESSAGE_LIMIT,
                           "version %u of key \"%s\" has encrypted its %llu messages; rotate the key and use a "
                           "reference to the new version",
                           (unsigned)dek->version, dek->key->name, limit);
    envelope_status why = keyring_failure_raise(ring, &dek->key->rotation, dek->version, INT64_MIN);
    return error_raise(ENVELOPE_E_MESSAGE_LIMIT,
                       "version %u of key \"%s\" has encrypted its %llu messages and could not be rotated by itself "
                       "(%s); rotate it: envelope key rotate '%s'",
                       (unsigned)dek->version, dek->key->name, limit, why ? error_text() : "another process is at it",
                       dek->key->name);
}
