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

static void look_succeeded(keyring *ring, int64_t now, uint64_t counter)
{
    int64_t next = now + ring->settings.refresh;
    atomic_store_explicit(&ring->seen_at, now, memory_order_relaxed);
    atomic_store_explicit(&ring->failing, false, memory_order_release);
    if (atomic_exchange(&ring->seen_counter, counter) != counter)
        atomic_fetch_add(&ring->epoch, 1);
    /* After the epoch: who sees the later hour sees the change. */
    atomic_store_explicit(&ring->next_look, next, memory_order_release);
    atomic_store_explicit(&ring->hot_until, next, memory_order_release);
}

static void look_failed(keyring *ring, envelope_status status)
{
    int64_t now = clock_monotonic_coarse();
    int64_t next = now + larger(ring->settings.refresh, retry_min);
    int64_t blind = blind_until(ring);
    keyring_failure_set(ring, &ring->store_failure, 0, status, next);
    atomic_store_explicit(&ring->failing, true, memory_order_release);
    atomic_store_explicit(&ring->next_look, next, memory_order_release);
    atomic_store_explicit(&ring->hot_until, next < blind ? next : blind, memory_order_release);
}

static envelope_status look(keyring *ring, int64_t now)
{
    uint64_t counter = 0;
    store *opened = keyring_connect(ring);
    atomic_fetch_add_explicit(&ring->refreshes, 1, memory_order_relaxed);
    envelope_status status = opened ? store_change_counter(opened, &counter) : error_status();
    if (status)
        look_failed(ring, status);
    else
        look_succeeded(ring, now, counter);
    return status;
}

static bool look_is_due(keyring *ring, int64_t now)
{
    return now >= atomic_load_explicit(&ring->next_look, memory_order_acquire);
}

/*
 * The flight to look in, NULL if others look and this thread need not wait: what it knows is at most twice `refresh`
 * old. A process that was idle for long knows less, and all of its threads wait for the first look.
 */
static struct keyring_flight *look_join(keyring *ring, int64_t now, bool *pilot)
{
    int64_t seen_at = atomic_load_explicit(&ring->seen_at, memory_order_relaxed);
    *pilot = true;
    if (atomic_load_explicit(&ring->failing, memory_order_acquire) || now < seen_at + 2 * ring->settings.refresh)
        return keyring_flight_try(ring, KEYRING_FLIGHT_LOOK, 0);
    return keyring_flight_join(ring, KEYRING_FLIGHT_LOOK, 0, pilot);
}

envelope_status keyring_refresh(keyring *ring, int64_t now)
{
    bool pilot;
    struct keyring_flight *flight = look_is_due(ring, now) ? look_join(ring, now, &pilot) : NULL;
    if (!flight)
        return blind_check(ring, now);
    if (!pilot) {
        /* Whether a failure matters, blind_check() says. */
        (void)keyring_flight_wait(ring, flight);
        return blind_check(ring, clock_monotonic_coarse());
    }
    /* The flight before this one may have landed since we looked at the clock. */
    bool due = look_is_due(ring, now);
    (void)keyring_flight_land(ring, flight, due ? look(ring, now) : ENVELOPE_OK);
    if (due) {
        keyring_cache_sweep(ring, now);
        if (ring->settings.preload)
            keyring_preload(ring, now);
    }
    return blind_check(ring, clock_monotonic_coarse());
}

void keyring_refresh_now(keyring *ring)
{
    atomic_fetch_add(&ring->epoch, 1);
}
