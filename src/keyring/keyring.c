/* Life of a keyring, its connections, and what fork does to it. */
#include "keyring/keyring_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fork.h"
#include "base/libctx.h"

static const int64_t connect_retry = CLOCK_SECOND / 4;

/* ---- fork ---- */

static pthread_mutex_t rings_lock = PTHREAD_MUTEX_INITIALIZER;
static keyring *rings;
/* This thread holds them and is forking. A handler that is added while a fork runs sees only the end of that fork. */
static _Thread_local bool rings_held;

/* The forking thread holds every lock of ours, so that in the child none is held by a thread that is not there. */
static void fork_prepare(void)
{
    pthread_mutex_lock(&rings_lock);
    for (keyring *ring = rings; ring; ring = ring->next_ring)
        pthread_mutex_lock(&ring->lock);
    rings_held = true;
}

static void fork_parent(void)
{
    if (!rings_held)
        return;
    rings_held = false;
    for (keyring *ring = rings; ring; ring = ring->next_ring)
        pthread_mutex_unlock(&ring->lock);
    pthread_mutex_unlock(&rings_lock);
}

static void fork_child(void)
{
    if (!rings_held)
        return;
    rings_held = false;
    for (keyring *ring = rings; ring; ring = ring->next_ring) {
        keyring_flights_forget(ring);
        /* Look soon, and sweep out entries that are wiped here. */
        atomic_store(&ring->next_look, 0);
        atomic_store(&ring->hot_until, 0);
        pthread_mutex_unlock(&ring->lock);
    }
    pthread_mutex_unlock(&rings_lock);
}

static const struct fork_handler fork_handler = {fork_prepare, fork_parent, fork_child};

static void ring_list_add(keyring *ring)
{
    fork_add_handler(&fork_handler);
    pthread_mutex_lock(&rings_lock);
    ring->next_ring = rings;
    rings = ring;
    pthread_mutex_unlock(&rings_lock);
}

static void ring_list_remove(keyring *ring)
{
    pthread_mutex_lock(&rings_lock);
    keyring **link = &rings;
    while (*link && *link != ring)
        link = &(*link)->next_ring;
    if (*link)
        *link = ring->next_ring;
    pthread_mutex_unlock(&rings_lock);
}

/* ---- life ---- */

static envelope_status ring_init(keyring *ring)
{
    atomic_store(&ring->epoch, 1);
    atomic_store(&ring->next_look, INT64_MIN);
    libctx_choose_provider(ring->settings.crypto == SETTINGS_CRYPTO_FIPS ? "fips" : "default");
    envelope_status status = keyring_cache_init(ring);
    if (status)
        return status;
    return hsm_new(&ring->settings, &ring->token);
}

envelope_status keyring_new(struct settings *settings, keyring **made)
{
    *made = NULL;
    keyring *ring = aligned_alloc(_Alignof(keyring), sizeof *ring);
    if (!ring) {
        settings_clear(settings);
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
    }
    memset(ring, 0, sizeof *ring);
    pthread_mutex_init(&ring->lock, NULL);
    ring->settings = *settings;
    memset(settings, 0, sizeof *settings);
    ring_list_add(ring);
    envelope_status status = ring_init(ring);
    if (status) {
        keyring_free(ring);
        return status;
    }
    *made = ring;
    return ENVELOPE_OK;
}

void keyring_free(keyring *ring)
{
    if (!ring)
        return;
    ring_list_remove(ring);
    keyring_cache_free(ring);
    keyring_keys_free(ring);
    store *opened = atomic_load(&ring->opened);
    if (opened)
        store_close(opened);
    hsm_free(ring->token);
    free(ring->public_kek);
    settings_clear(&ring->settings);
    pthread_mutex_destroy(&ring->lock);
    free(ring);
}

void keyring_wipe(keyring *ring)
{
    keyring_cache_drop_all(ring, NULL);
}

const struct settings *keyring_settings(const keyring *ring)
{
    return &ring->settings;
}

/* ---- failures that are remembered ---- */

void keyring_failure_set(keyring *ring, struct keyring_failure *failure, uint64_t what, envelope_status status,
                         int64_t until)
{
    pthread_mutex_lock(&ring->lock);
    failure->what = what;
    failure->until = until;
    failure->status = status;
    snprintf(failure->text, sizeof failure->text, "%s", status ? error_text() : "");
    pthread_mutex_unlock(&ring->lock);
}

envelope_status keyring_failure_raise(keyring *ring, struct keyring_failure *failure, uint64_t what, int64_t now)
{
    envelope_status status = ENVELOPE_OK;
    pthread_mutex_lock(&ring->lock);
    if (failure->status && failure->what == what && now < failure->until)
        status = error_raise(failure->status, "%s", failure->text);
    pthread_mutex_unlock(&ring->lock);
    return status;
}

/* ---- connections ---- */

static envelope_status connect_store(keyring *ring)
{
    if (atomic_load_explicit(&ring->opened, memory_order_acquire))
        return ENVELOPE_OK;
    envelope_status status = keyring_failure_raise(ring, &ring->connect_failure, 0, clock_monotonic_coarse());
    if (status)
        return status;
    const struct settings *settings = &ring->settings;
    store *opened = NULL;
    status = settings->store ? store_open(settings->store, settings->deadline, &opened)
                             : error_raise(ENVELOPE_E_CONFIG, "no store is configured");
    if (!status)
        status = store_id(opened, ring->store_id);
    if (!status && settings->kek && !ring->public_kek) {
        ring->public_kek = hsm_public_uri(settings->kek);
        status = ring->public_kek ? ENVELOPE_OK : error_status();
    }
    if (status) {
        keyring_failure_set(ring, &ring->connect_failure, 0, status, clock_monotonic_coarse() + connect_retry);
        if (opened)
            store_close(opened);
        return status;
    }
    atomic_store_explicit(&ring->opened, opened, memory_order_release);
    return ENVELOPE_OK;
}

store *keyring_connect(keyring *ring)
{
    store *opened = atomic_load_explicit(&ring->opened, memory_order_acquire);
    if (opened)
        return opened;
    bool pilot;
    struct keyring_flight *flight = keyring_flight_join(ring, KEYRING_FLIGHT_CONNECT, 0, &pilot);
    if (!flight)
        return NULL;
    envelope_status status =
        pilot ? keyring_flight_land(ring, flight, connect_store(ring)) : keyring_flight_wait(ring, flight);
    return status ? NULL : atomic_load_explicit(&ring->opened, memory_order_acquire);
}

store *keyring_store(keyring *ring)
{
    return keyring_connect(ring);
}

hsm *keyring_hsm(keyring *ring)
{
    return ring->token;
}

envelope_status keyring_store_id(keyring *ring, uint8_t id[STORE_ID_SIZE])
{
    if (!keyring_connect(ring))
        return error_status();
    memcpy(id, ring->store_id, STORE_ID_SIZE);
    return ENVELOPE_OK;
}

/* ---- counters ---- */

void keyring_count(const keyring *ring, struct keyring_counters *counters)
{
    memset(counters, 0, sizeof *counters);
    for (unsigned i = 0; i < KEYRING_STRIPES; i++)
        counters->hits += atomic_load_explicit(&ring->lines[i].hits, memory_order_relaxed);
    counters->unwraps = atomic_load_explicit(&ring->unwraps, memory_order_relaxed);
    counters->waits = atomic_load_explicit(&ring->waits, memory_order_relaxed);
    counters->refreshes = atomic_load_explicit(&ring->refreshes, memory_order_relaxed);
    counters->rotations = atomic_load_explicit(&ring->rotations, memory_order_relaxed);
    counters->reservations = atomic_load_explicit(&ring->reservations, memory_order_relaxed);
    counters->cached = atomic_load_explicit(&ring->cached, memory_order_relaxed);
}
