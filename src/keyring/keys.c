#include "keyring/keyring_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { NAMES_FIRST = 64 };

/* ---- names ---- */

static uint64_t name_hash(const char *name, size_t length)
{
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a, eight bytes at a time where they are */
    for (; length >= 8; name += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, name, sizeof word);
        hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 32;
    }
    for (; length > 0; name++, length--)
        hash = (hash ^ (uint8_t)*name) * UINT64_C(1099511628211);
    return hash ^ hash >> 29;
}

static keyring_key *names_find(const keyring *ring, const char *name, size_t length, uint64_t hash)
{
    struct keyring_names *names = atomic_load_explicit(&ring->names, memory_order_acquire);
    if (!names)
        return NULL;
    for (size_t i = hash & names->mask;; i = (i + 1) & names->mask) {
        keyring_key *key = atomic_load_explicit(&names->slots[i], memory_order_acquire);
        if (!key || (key->hash == hash && key->name_length == length && memcmp(key->name, name, length) == 0))
            return key;
    }
}

static void names_put(struct keyring_names *names, keyring_key *key)
{
    size_t i = key->hash & names->mask;
    while (atomic_load_explicit(&names->slots[i], memory_order_relaxed))
        i = (i + 1) & names->mask;
    atomic_store_explicit(&names->slots[i], key, memory_order_release);
}

/* Room for one more. Under the lock. */
static envelope_status names_reserve(keyring *ring)
{
    struct keyring_names *old = atomic_load_explicit(&ring->names, memory_order_relaxed);
    if (old && (ring->key_count + 1) * 2 <= old->mask + 1)
        return ENVELOPE_OK;
    size_t count = old ? (old->mask + 1) * 2 : NAMES_FIRST;
    struct keyring_names *grown = calloc(1, sizeof *grown + count * sizeof grown->slots[0]);
    if (!grown)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
    grown->mask = count - 1;
    for (keyring_key *key = ring->keys; key; key = key->next)
        names_put(grown, key);
    grown->retired = old;
    atomic_store_explicit(&ring->names, grown, memory_order_release);
    return ENVELOPE_OK;
}

keyring_key *keyring_key_intern(keyring *ring, const char *name, size_t length)
{
    uint64_t hash = name_hash(name, length);
    keyring_key *key = names_find(ring, name, length, hash);
    if (key)
        return key;
    keyring_key *made = calloc(1, sizeof *made);
    if (!made) {
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
        return NULL;
    }
    made->ring = ring;
    made->hash = hash;
    made->name_length = length;
    memcpy(made->name, name, length);
    pthread_mutex_lock(&ring->lock);
    key = names_find(ring, name, length, hash);
    if (!key && names_reserve(ring) == ENVELOPE_OK) {
        made->next = ring->keys;
        ring->keys = made;
        ring->key_count++;
        names_put(atomic_load_explicit(&ring->names, memory_order_relaxed), made);
        key = made;
    }
    pthread_mutex_unlock(&ring->lock);
    if (key != made)
        free(made);
    return key;
}

static envelope_status find_in_store(keyring *ring, const char *name, size_t length, keyring_key **key)
{
    char shown[4 * KEY_NAME_MAX + 8];
    if (!text_is_key_name(name, length))
        return error_raise(ENVELOPE_E_KEY_NAME,
                           "\"%s\" is not a key name: 1 to %d bytes of UTF-8 without control characters",
                           text_printable(name, length, shown, sizeof shown), KEY_NAME_MAX);
    store *opened = keyring_connect(ring);
    if (!opened)
        return error_status();
    char copy[KEY_NAME_MAX + 1];
    memcpy(copy, name, length);
    copy[length] = '\0';
    struct store_key row;
    envelope_status status = store_key_find(opened, copy, &row);
    if (status == ENVELOPE_E_KEY_UNKNOWN)
        return error_raise(status, "there is no key \"%s\" in %s; create it with: envelope key create '%s'", copy,
                           store_url(opened), copy);
    if (status)
        return error_context(status, "key \"%s\"", copy);
    *key = keyring_key_intern(ring, name, length);
    return *key ? ENVELOPE_OK : error_status();
}

envelope_status keyring_find(keyring *ring, const char *name, size_t length, keyring_key **key)
{
    *key = NULL;
    if (length > 0) {
        *key = names_find(ring, name, length, name_hash(name, length));
        return *key ? ENVELOPE_OK : find_in_store(ring, name, length, key);
    }
    *key = atomic_load_explicit(&ring->default_key, memory_order_acquire);
    if (*key)
        return ENVELOPE_OK;
    const char *preset = ring->settings.default_key;
    const char *path = ring->settings.path ? ring->settings.path : "the configuration";
    if (!preset)
        return error_raise(ENVELOPE_E_CONFIG, "no key was named and %s has no default-key", path);
    envelope_status status = keyring_find(ring, preset, strlen(preset), key);
    if (status)
        return error_context(status, "default-key of %s", path);
    atomic_store_explicit(&ring->default_key, *key, memory_order_release);
    return ENVELOPE_OK;
}

const char *keyring_key_name(const keyring_key *key)
{
    return key->name;
}

void keyring_keys_free(keyring *ring)
{
    for (struct keyring_names *names = atomic_load(&ring->names); names;) {
        struct keyring_names *retired = names->retired;
        free(names);
        names = retired;
    }
    for (keyring_key *key = ring->keys; key;) {
        keyring_key *next = key->next;
        free(key);
        key = next;
    }
    for (struct keyring_kek *kek = ring->keks; kek;) {
        struct keyring_kek *next = kek->next;
        free(kek->uri);
        free(kek);
        kek = next;
    }
}

/* ---- the primary ---- */

/* What was read in a later epoch stays. */
static void primary_set(keyring *ring, keyring_key *key, const struct store_version *row, uint64_t epoch)
{
    pthread_mutex_lock(&ring->lock);
    if (epoch >= atomic_load_explicit(&key->epoch, memory_order_relaxed)) {
        atomic_store_explicit(&key->primary, keyring_primary_pack(row->dek_id, row->state, row->key_state),
                              memory_order_release);
        atomic_store_explicit(&key->epoch, epoch, memory_order_release);
    }
    pthread_mutex_unlock(&ring->lock);
}

envelope_status keyring_key_reread(keyring *ring, keyring_key *key)
{
    store *opened = keyring_connect(ring);
    if (!opened)
        return error_status();
    uint64_t epoch = atomic_load_explicit(&ring->epoch, memory_order_acquire);
    struct store_version row;
    envelope_status status = store_version_of(opened, key->name, 0, &row);
    if (status)
        return error_context(status, "primary version of key \"%s\"", key->name);
    struct keyring_dek *cached = keyring_cache_find(ring, row.dek_id);
    if (cached) {
        if (keyring_version_usable(&row) == ENVELOPE_OK)
            atomic_store_explicit(&cached->epoch, epoch, memory_order_release);
        else
            keyring_dek_drop(ring, cached);
        keyring_dek_unref(ring, cached);
    }
    primary_set(ring, key, &row, epoch);
    store_version_clear(&row);
    return ENVELOPE_OK;
}

/* Read the primary once for all threads. */
static envelope_status primary_check(keyring *ring, keyring_key *key, uint64_t epoch)
{
    bool known = atomic_load_explicit(&key->epoch, memory_order_acquire) != 0;
    if (known && atomic_load_explicit(&ring->failing, memory_order_relaxed))
        return ENVELOPE_OK;
    bool pilot;
    struct keyring_flight *flight = keyring_flight_join(ring, KEYRING_FLIGHT_KEY, (uintptr_t)key, &pilot);
    if (!flight)
        return error_status();
    envelope_status status;
    if (!pilot)
        status = keyring_flight_wait(ring, flight);
    else if (atomic_load_explicit(&key->epoch, memory_order_acquire) == epoch)
        status = keyring_flight_land(ring, flight, ENVELOPE_OK);
    else
        status = keyring_flight_land(ring, flight, keyring_key_reread(ring, key));
    /* What was known is served until refresh.c says that the store has been away for too long. */
    return known && keyring_is_away(status) ? ENVELOPE_OK : status;
}

static envelope_status primary_refuse(const keyring_key *key, uint64_t primary)
{
    enum store_version_state state = (enum store_version_state)(primary >> 8 & 0xff);
    enum store_key_state key_state = (enum store_key_state)(primary & 0xff);
    if (key_state != STORE_KEY_ENABLED)
        return error_raise(ENVELOPE_E_KEY_STATE, "key \"%s\" is %s%s", key->name, store_key_state_text(key_state),
                           key_state == STORE_KEY_SUSPENDED ? "; envelope key resume brings it back" : "");
    return error_raise(ENVELOPE_E_VERSION_STATE,
                       "the primary version of key \"%s\" is %s, so nothing can be encrypted under it; resume the "
                       "version or rotate the key",
                       key->name, store_version_state_text(state));
}

envelope_status keyring_key_primary(keyring *ring, keyring_key *key, uint32_t *dek_id)
{
    uint64_t epoch = atomic_load_explicit(&ring->epoch, memory_order_acquire);
    if (atomic_load_explicit(&key->epoch, memory_order_acquire) != epoch) {
        envelope_status status = primary_check(ring, key, epoch);
        if (status)
            return status;
    }
    uint64_t primary = atomic_load_explicit(&key->primary, memory_order_acquire);
    *dek_id = keyring_primary_open(primary);
    return *dek_id ? ENVELOPE_OK : primary_refuse(key, primary);
}

/* ---- KEKs ---- */

static const char *kek_find(keyring *ring, uint32_t kek_id)
{
    pthread_mutex_lock(&ring->lock);
    struct keyring_kek *kek = ring->keks;
    while (kek && kek->kek_id != kek_id)
        kek = kek->next;
    pthread_mutex_unlock(&ring->lock);
    return kek ? kek->uri : NULL;
}

/* The store keeps no PIN sources; the configured URI may have one, so the configured one is used where they agree. */
const char *keyring_uri_to_use(const keyring *ring, const char *stored)
{
    bool configured = ring->public_kek && strcmp(ring->public_kek, stored) == 0;
    return configured ? ring->settings.kek : stored;
}

const char *keyring_kek_uri(keyring *ring, uint32_t kek_id)
{
    const char *known = kek_find(ring, kek_id);
    if (known)
        return known;
    store *opened = keyring_connect(ring);
    if (!opened)
        return NULL;
    struct store_kek row;
    envelope_status status = store_kek_find(opened, kek_id, &row);
    if (status) {
        error_context(status, "KEK %u", (unsigned)kek_id);
        return NULL;
    }
    struct keyring_kek *made = calloc(1, sizeof *made);
    char *uri = made ? text_copy(keyring_uri_to_use(ring, row.uri)) : NULL;
    store_kek_clear(&row);
    if (!uri) {
        free(made);
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
        return NULL;
    }
    made->kek_id = kek_id;
    made->uri = uri;
    /* Two threads may both come here: two rows that say the same. */
    pthread_mutex_lock(&ring->lock);
    made->next = ring->keks;
    ring->keks = made;
    pthread_mutex_unlock(&ring->lock);
    return uri;
}
