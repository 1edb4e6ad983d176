/* From a row of the store to a DEK in the cache: one unwrap per DEK at a time, and what happens while a token is away.
 */
#include "keyring/keyring_internal.h"

#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fork.h"
#include "keyring/binding.h"

/* A token that is away, or refuses a KEK, is not asked again for this long: a miss fails at once, a cached DEK serves
 * on. */
static const int64_t away_miss = CLOCK_SECOND / 5;
static const int64_t away_max = CLOCK_SECOND;
static const int64_t preload_retry = 5 * CLOCK_SECOND;

bool keyring_is_away(envelope_status status)
{
    switch (status) {
    case ENVELOPE_E_STORE_UNAVAILABLE:
    case ENVELOPE_E_STORE_BUSY:
    case ENVELOPE_E_STORE_READ_ONLY:
    case ENVELOPE_E_STORE_CORRUPT:
    case ENVELOPE_E_STORE_SCHEMA:
    case ENVELOPE_E_TIMEOUT:
    case ENVELOPE_E_NO_MEMORY:
    case ENVELOPE_E_RECURSION:
        return true;
    default:
        return hsm_is_away(status);
    }
}

envelope_status keyring_version_usable(const struct store_version *row)
{
    if (row->key_state != STORE_KEY_ENABLED)
        return error_raise(ENVELOPE_E_KEY_STATE, "key \"%s\" is %s%s", row->key_name,
                           store_key_state_text(row->key_state),
                           row->key_state == STORE_KEY_SUSPENDED ? "; envelope key resume brings it back" : "");
    if (row->state == STORE_VERSION_ACTIVE || row->state == STORE_VERSION_DEACTIVATED)
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_VERSION_STATE, "version %u of key \"%s\" is %s%s", (unsigned)row->version,
                       row->key_name, store_version_state_text(row->state),
                       row->state == STORE_VERSION_SUSPENDED ? "; envelope key resume brings it back" : "");
}

static struct keyring_failure *kek_failure(keyring *ring, uint32_t kek_id)
{
    return &ring->kek_failures[kek_id % KEYRING_FAILURES];
}

bool keyring_is_about_kek(envelope_status status)
{
    switch (status) {
    case ENVELOPE_E_HSM_LOGIN:
    case ENVELOPE_E_HSM_PIN_LOCKED:
    case ENVELOPE_E_KEK_UNKNOWN:
    case ENVELOPE_E_KEK_REFUSED:
    case ENVELOPE_E_KEK_ATTRIBUTES:
        return true;
    default:
        return hsm_is_away(status);
    }
}

static envelope_status unwrap_asking(keyring *ring, const struct store_version *row, uint8_t dek[HSM_DEK_SIZE])
{
    const char *uri = keyring_kek_uri(ring, row->kek_id);
    if (!uri)
        return error_status();
    uint8_t id[STORE_ID_SIZE];
    envelope_status status = keyring_store_id(ring, id);
    if (status)
        return status;
    struct binding_place place = {id, row->dek_id, row->version, row->kek_id, row->algorithm, row->key_name};
    uint8_t aad[BINDING_MAX];
    size_t aad_length = keyring_binding_aad(&place, aad);
    atomic_fetch_add_explicit(&ring->unwraps, 1, memory_order_relaxed);
    status = hsm_unwrap(ring->token, uri, aad, aad_length, row->blob, row->blob_length, dek);
    if (!status)
        keyring_gate_arm();
    if (keyring_is_about_kek(status))
        keyring_failure_set(ring, kek_failure(ring, row->kek_id), row->kek_id, status,
                            clock_monotonic_coarse() + away_miss);
    return status;
}

/* The DEK of a row into dek. A token that was away, or refused its KEK, a moment ago is not asked again. */
static envelope_status unwrap_row(keyring *ring, const struct store_version *row, uint8_t dek[HSM_DEK_SIZE])
{
    envelope_status status =
        keyring_failure_raise(ring, kek_failure(ring, row->kek_id), row->kek_id, clock_monotonic_coarse());
    if (!status)
        status = unwrap_asking(ring, row, dek);
    if (status)
        error_context(status, "unwrapping version %u of key \"%s\"", (unsigned)row->version, row->key_name);
    return status;
}

static envelope_status row_find(keyring *ring, uint32_t dek_id, struct store_version *row)
{
    store *opened = keyring_connect(ring);
    if (!opened)
        return error_status();
    envelope_status status = store_version_find(opened, dek_id, row);
    return status ? error_context(status, "data key %u", (unsigned)dek_id) : ENVELOPE_OK;
}

/* ---- a DEK that is not cached ---- */

/* Unwrap row and cache it. */
static envelope_status load_row(keyring *ring, const struct store_version *row, uint64_t epoch,
                                struct keyring_dek **dek)
{
    envelope_status status = keyring_version_usable(row);
    if (status)
        return status;
    keyring_key *key = keyring_key_intern(ring, row->key_name, strlen(row->key_name));
    uint8_t *secret = key ? secslab_get(ring->deks) : NULL;
    if (!secret)
        return error_status();
    status = unwrap_row(ring, row, secret);
    if (!status) {
        *dek = keyring_cache_insert(ring, key, row, secret, epoch, clock_monotonic_coarse());
        if (*dek)
            return ENVELOPE_OK;
        status = error_status();
    }
    secslab_put(ring->deks, secret);
    return status;
}

static envelope_status load(keyring *ring, uint32_t dek_id, struct keyring_dek **dek)
{
    uint64_t epoch = atomic_load_explicit(&ring->epoch, memory_order_acquire);
    struct store_version row;
    envelope_status status = row_find(ring, dek_id, &row);
    if (status)
        return status;
    status = load_row(ring, &row, epoch, dek);
    store_version_clear(&row);
    return status;
}

envelope_status keyring_unwrap_missing(keyring *ring, uint32_t dek_id, struct keyring_dek **dek)
{
    for (;;) {
        bool pilot;
        struct keyring_flight *flight = keyring_flight_join(ring, KEYRING_FLIGHT_DEK, dek_id, &pilot);
        if (!flight)
            return error_status();
        if (!pilot) {
            envelope_status status = keyring_flight_wait(ring, flight);
            if (status)
                return status;
        }
        /* As pilot too: the flight before this one may have landed since we looked. */
        *dek = keyring_cache_find(ring, dek_id);
        if (pilot)
            return keyring_flight_land(ring, flight, *dek ? ENVELOPE_OK : load(ring, dek_id, dek));
        if (*dek)
            return ENVELOPE_OK;
    }
}

/* ---- a DEK that is cached ---- */

/* Under the lock, since a dropped entry must stay dropped. */
static void serve_until(keyring *ring, struct keyring_dek *dek, int64_t fresh_until, int64_t dies_at)
{
    pthread_mutex_lock(&ring->lock);
    if (atomic_load_explicit(&dek->alive, memory_order_relaxed)) {
        atomic_store_explicit(&dek->dies_at, dies_at, memory_order_relaxed);
        atomic_store_explicit(&dek->fresh_until, fresh_until < dies_at ? fresh_until : dies_at, memory_order_relaxed);
    }
    pthread_mutex_unlock(&ring->lock);
}

/* Unwrap it once more and compare. A difference means that the store was replaced under us. */
static envelope_status renew_row(keyring *ring, struct keyring_dek *dek, bool *gone)
{
    uint64_t epoch = atomic_load_explicit(&ring->epoch, memory_order_acquire);
    struct store_version row;
    envelope_status status = row_find(ring, dek->dek_id, &row);
    if (status)
        return status;
    status = keyring_version_usable(&row);
    uint8_t *secret = status ? NULL : secslab_get(ring->deks);
    if (!status && !secret)
        status = error_status();
    if (!status)
        status = unwrap_row(ring, &row, secret);
    if (!status) {
        *gone = CRYPTO_memcmp(secret, dek->dek, HSM_DEK_SIZE) != 0;
        atomic_store_explicit(&dek->epoch, epoch, memory_order_release);
    }
    if (secret)
        secslab_put(ring->deks, secret);
    store_version_clear(&row);
    return status;
}

static int64_t away_backoff(const keyring *ring)
{
    int64_t share = ring->settings.ttl / 10;
    return share < away_miss ? away_miss : share > away_max ? away_max : share;
}

static envelope_status renew(keyring *ring, struct keyring_dek *dek, bool *gone)
{
    envelope_status status = renew_row(ring, dek, gone);
    int64_t now = clock_monotonic_coarse();
    int64_t dies_at = atomic_load_explicit(&dek->dies_at, memory_order_relaxed);
    if (!status && !*gone) {
        const struct settings *settings = &ring->settings;
        serve_until(ring, dek, now + settings->ttl, now + settings->ttl + settings->grace);
        return ENVELOPE_OK;
    }
    if (keyring_is_away(status) && now < dies_at) {
        serve_until(ring, dek, now + away_backoff(ring), dies_at);
        return ENVELOPE_OK;
    }
    keyring_dek_drop(ring, dek);
    return status;
}

/* Past its ttl. One thread asks the token; the others go on with what they have. */
static envelope_status check_age(keyring *ring, struct keyring_dek *dek, int64_t now, bool *gone)
{
    if (now >= atomic_load_explicit(&dek->dies_at, memory_order_relaxed)) {
        keyring_dek_drop(ring, dek);
        *gone = true;
        return ENVELOPE_OK;
    }
    struct keyring_flight *flight = keyring_flight_try(ring, KEYRING_FLIGHT_DEK, dek->dek_id);
    if (!flight)
        return ENVELOPE_OK;
    /* The flight before this one may have renewed it since we looked. */
    bool renewed = now < atomic_load_explicit(&dek->fresh_until, memory_order_relaxed);
    return keyring_flight_land(ring, flight, renewed ? ENVELOPE_OK : renew(ring, dek, gone));
}

envelope_status keyring_dek_check_row(keyring *ring, struct keyring_dek *dek, uint64_t epoch)
{
    struct store_version row;
    envelope_status status = row_find(ring, dek->dek_id, &row);
    if (!status) {
        status = keyring_version_usable(&row);
        store_version_clear(&row);
    }
    if (!status)
        atomic_store_explicit(&dek->epoch, epoch, memory_order_release);
    else if (!keyring_is_away(status))
        keyring_dek_drop(ring, dek);
    return status;
}

/* Others wait: what they know may be as old as their last message. */
static envelope_status check_row(keyring *ring, struct keyring_dek *dek, uint64_t epoch)
{
    bool pilot;
    struct keyring_flight *flight = keyring_flight_join(ring, KEYRING_FLIGHT_ROW, dek->dek_id, &pilot);
    if (!flight)
        return error_status();
    envelope_status status;
    if (!pilot)
        status = keyring_flight_wait(ring, flight);
    else if (atomic_load_explicit(&dek->epoch, memory_order_acquire) == epoch)
        status = keyring_flight_land(ring, flight, ENVELOPE_OK);
    else
        status = keyring_flight_land(ring, flight, keyring_dek_check_row(ring, dek, epoch));
    /* refresh.c says when the store has been away for too long. */
    return keyring_is_away(status) ? ENVELOPE_OK : status;
}

envelope_status keyring_dek_check(keyring *ring, struct keyring_dek *dek, int64_t now, bool *gone)
{
    uint64_t epoch = atomic_load_explicit(&ring->epoch, memory_order_acquire);
    if (atomic_load_explicit(&dek->epoch, memory_order_acquire) != epoch &&
        !atomic_load_explicit(&ring->failing, memory_order_relaxed)) {
        envelope_status status = check_row(ring, dek, epoch);
        if (status)
            return status;
    }
    if (now < atomic_load_explicit(&dek->fresh_until, memory_order_relaxed))
        return ENVELOPE_OK;
    return check_age(ring, dek, now, gone);
}

/* ---- preload ---- */

/* false: its token is away, and so are the others under the same KEK. */
static bool preload_row(keyring *ring, const struct store_version *row, uint64_t epoch)
{
    bool wanted = row->key_state == STORE_KEY_ENABLED &&
                  (row->state == STORE_VERSION_ACTIVE || row->state == STORE_VERSION_DEACTIVATED);
    struct keyring_dek *dek = wanted ? keyring_cache_find(ring, row->dek_id) : NULL;
    if (dek)
        keyring_dek_unref(ring, dek);
    struct keyring_flight *flight = wanted && !dek ? keyring_flight_try(ring, KEYRING_FLIGHT_DEK, row->dek_id) : NULL;
    if (!flight)
        return true;
    envelope_status status = keyring_flight_land(ring, flight, load_row(ring, row, epoch, &dek));
    if (!status)
        keyring_dek_unref(ring, dek);
    return !keyring_is_away(status);
}

static bool preload_all(keyring *ring)
{
    store *opened = keyring_connect(ring);
    uint64_t epoch = atomic_load_explicit(&ring->epoch, memory_order_acquire);
    struct store_version *rows = NULL;
    size_t count = 0;
    if (!opened || store_versions(opened, NULL, &rows, &count))
        return false;
    bool complete = true;
    uint32_t away[KEYRING_FAILURES] = {0};
    for (size_t i = 0; i < count; i++) {
        uint32_t *skip = &away[rows[i].kek_id % KEYRING_FAILURES];
        if (*skip == rows[i].kek_id || preload_row(ring, &rows[i], epoch))
            continue;
        *skip = rows[i].kek_id;
        complete = false;
    }
    store_versions_free(rows, count);
    return complete;
}

void keyring_preload(keyring *ring, int64_t now)
{
    uint64_t generation = fork_generation();
    if (atomic_load_explicit(&ring->preloaded, memory_order_relaxed) == generation ||
        now < atomic_load_explicit(&ring->preload_next, memory_order_relaxed))
        return;
    struct keyring_flight *flight = keyring_flight_try(ring, KEYRING_FLIGHT_PRELOAD, 0);
    if (!flight)
        return;
    /* A fork waits for one DEK at most, not for all of them. */
    keyring_gate_leave();
    bool complete = preload_all(ring);
    keyring_gate_enter();
    if (complete)
        atomic_store_explicit(&ring->preloaded, generation, memory_order_relaxed);
    else
        atomic_store_explicit(&ring->preload_next, clock_monotonic_coarse() + preload_retry, memory_order_relaxed);
    (void)keyring_flight_land(ring, flight, ENVELOPE_OK);
}
