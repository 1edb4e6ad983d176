/* Learning what others changed in the store, at most once per `refresh`. */
#include "keyring/keyring_internal.h"

#include "base/clock.h"
#include "base/error.h"

static const int64_t retry_min = CLOCK_SECOND / 4;

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t blind_until(keyring *ring)
{
    return atomic_load_explicit(&ring->seen_at, memory_order_relaxed) + ring->settings.ttl + ring->settings.grace;
}

/* What is cached serves on without the store, as long as it would without the token. */
static envelope_status blind_check(keyring *ring, int64_t now)
{
    if (!atomic_load_explicit(&ring->failing, memory_order_acquire) || now < blind_until(ring))
        return ENVELOPE_OK;
    envelope_status status = keyring_failure_raise(ring, &ring->store_failure, 0, INT64_MIN);
    return status ? error_context(status, "the store cannot be asked whether keys may still be used") : ENVELOPE_OK;
}

static envelope_status look(keyring *ring, uint64_t *counter)
{
    store *opened = keyring_connect(ring);
    if (!opened)
        return error_status();
    atomic_fetch_add_explicit(&ring->refreshes, 1, memory_order_relaxed);
    return store_change_counter(opened, counter);
}

static void look_succeeded(keyring *ring, int64_t now, uint64_t counter)
{
    atomic_store_explicit(&ring->seen_at, now, memory_order_relaxed);
    atomic_store_explicit(&ring->failing, false, memory_order_release);
    if (atomic_exchange(&ring->seen_counter, counter) != counter)
        atomic_fetch_add(&ring->epoch, 1);
    /* After the epoch: who sees the later hour sees the change. */
    atomic_store_explicit(&ring->hot_until, now + ring->settings.refresh, memory_order_release);
}

static void look_failed(keyring *ring, envelope_status status)
{
    int64_t now = clock_monotonic_coarse();
    int64_t next = now + larger(ring->settings.refresh, retry_min);
    keyring_failure_set(ring, &ring->store_failure, 0, status, next);
    atomic_store_explicit(&ring->failing, true, memory_order_release);
    atomic_store_explicit(&ring->next_look, next, memory_order_relaxed);
    int64_t blind = blind_until(ring);
    atomic_store_explicit(&ring->hot_until, next < blind ? next : blind, memory_order_release);
}

envelope_status keyring_refresh(keyring *ring, int64_t now)
{
    int64_t next = atomic_load_explicit(&ring->next_look, memory_order_relaxed);
    if (now < next || !atomic_compare_exchange_strong(&ring->next_look, &next, now + ring->settings.refresh))
        return blind_check(ring, now);
    uint64_t counter = 0;
    envelope_status status = look(ring, &counter);
    if (status)
        look_failed(ring, status);
    else
        look_succeeded(ring, now, counter);
    keyring_cache_sweep(ring, now);
    if (ring->settings.preload)
        keyring_preload(ring, now);
    return blind_check(ring, clock_monotonic_coarse());
}

void keyring_refresh_now(keyring *ring)
{
    atomic_fetch_add(&ring->epoch, 1);
}
