/*
 * Inside the keyring. What its files share, and the rules they keep:
 *
 * - ring->lock is short: never held across a call into the store, the token or
 *   libcrypto. Whatever may take long is a flight: one thread does it, the
 *   others wait on a condition variable (flight.c).
 * - Cache entries (struct keyring_dek) and keys are type-stable: their memory
 *   stays until keyring_free, so a reader may look at a pointer that has gone
 *   stale, and finds out by taking a reference and comparing the DEK id.
 * - Tables are published by one atomic pointer and grown by copying; the old
 *   ones stay until keyring_free.
 * - Knowledge of the store is numbered: ring->epoch grows with every change
 *   seen there. An entry, key or lease of another epoch is checked again, one
 *   row each, when it is next used.
 */
#ifndef KEYRING_INTERNAL_H
#define KEYRING_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/secmem.h"
#include "keyring/keyring.h"

enum { KEYRING_STRIPES = 8, KEYRING_CACHE_LINE = 64, KEYRING_TEXT_MAX = 768, KEYRING_FAILURES = 8 };

/* A keyed context that waits for its next lease. Holds a reference to its entry. */
struct keyring_seat {
    aesgcm *gcm;
    struct keyring_dek *dek;
    uint64_t generation;
    uint32_t messages;
};

/* Threads spread over the stripes, so that two of them seldom write one cache line. */
struct keyring_stripe {
    _Alignas(KEYRING_CACHE_LINE) _Atomic(struct keyring_seat *) seat;
};

struct keyring_dek {
    /* Read for every message. fresh_until INT64_MIN: dropped, whoever leases it must look again. */
    _Alignas(KEYRING_CACHE_LINE) _Atomic int64_t fresh_until;
    _Atomic(struct keyring_stripe *) stripes; /* KEYRING_STRIPES of them, made at the first lease, kept for good */
    _Atomic uint64_t epoch;                   /* last checked against the store in */
    uint64_t generation;                      /* of the process that unwrapped it: the DEK is zero in all others */
    keyring_key *key;
    uint8_t *dek; /* slot of ring->deks */
    uint32_t dek_id;
    uint32_t version;

    /* Written now and then. */
    _Alignas(KEYRING_CACHE_LINE) _Atomic uint32_t refs; /* one is the table's, while alive */
    _Atomic bool alive;                                 /* changed under ring->lock */
    _Atomic int64_t dies_at;                            /* not served any more from here on, token or no token */
    _Atomic uint64_t local;                             /* messages reserved for this process, not yet in a lease */
    _Atomic uint64_t block;                             /* size of the last reservation */
    _Atomic uint64_t limit, reserved;                   /* as the store last told */
    struct keyring_dek *next_free;
};

/* The last failure of something that is not to be tried again for every message. */
struct keyring_failure {
    uint64_t what; /* a KEK id */
    int64_t until;
    envelope_status status;
    char text[KEYRING_TEXT_MAX];
};

struct keyring_key {
    _Atomic uint64_t epoch;   /* primary was read in; 0: never */
    _Atomic uint64_t primary; /* keyring_primary_pack() */
    keyring *ring;
    uint64_t hash;
    /* Automatic rotation; under ring->lock. */
    struct keyring_failure rotation;
    int64_t rotation_backoff;
    struct keyring_key *next;
    size_t name_length;
    char name[KEY_NAME_MAX + 1];
};

struct keyring_slot {
    _Atomic uint32_t id; /* 0: never used; stays when its entry is dropped */
    _Atomic(struct keyring_dek *) dek;
};

struct keyring_table {
    struct keyring_table *retired;
    size_t mask;
    unsigned shift;
    size_t used; /* ids, under ring->lock */
    struct keyring_slot slots[];
};

struct keyring_names {
    struct keyring_names *retired;
    size_t mask;
    _Atomic(keyring_key *) slots[];
};

struct keyring_chunk {
    struct keyring_chunk *next;
    struct keyring_dek *deks;
};

struct keyring_kek {
    struct keyring_kek *next;
    uint32_t kek_id;
    char *uri;
};

struct keyring_counter_line {
    _Alignas(KEYRING_CACHE_LINE) _Atomic uint64_t hits;
};

struct keyring {
    /* Read for every message. */
    _Alignas(KEYRING_CACHE_LINE) _Atomic int64_t hot_until; /* no look at the store is due before */
    _Atomic uint64_t epoch;                                 /* 1… */
    _Atomic(struct keyring_table *) table;
    _Atomic(struct keyring_names *) names;
    _Atomic(keyring_key *) default_key;

    /* Looking at the store (refresh.c). */
    _Alignas(KEYRING_CACHE_LINE) _Atomic int64_t next_look;
    _Atomic int64_t seen_at; /* the last look that succeeded */
    _Atomic bool failing;    /* the last look did not */
    _Atomic uint64_t seen_counter;
    _Atomic size_t sweep_at;
    _Atomic uint64_t preloaded;   /* the process generation it was done in */
    _Atomic int64_t preload_next; /* when to try again */

    _Alignas(KEYRING_CACHE_LINE) struct settings settings;
    hsm *token;
    char *public_kek; /* settings.kek as the store keeps it */
    _Atomic(store *) opened;
    uint8_t store_id[STORE_ID_SIZE]; /* written before opened is published; so is public_kek */
    secslab *deks;

    pthread_mutex_t lock;
    /* Under lock. */
    struct keyring_flight *flights;
    struct keyring_chunk *chunks;
    struct keyring_dek *free_deks;
    keyring_key *keys;
    size_t key_count;
    struct keyring_kek *keks;
    struct keyring_failure connect_failure;
    struct keyring_failure store_failure;
    struct keyring_failure kek_failures[KEYRING_FAILURES];
    keyring *next_ring; /* under the list's lock */

    _Atomic uint64_t unwraps, waits, refreshes, rotations, reservations;
    _Atomic size_t cached;
    struct keyring_counter_line lines[KEYRING_STRIPES];
};

/*
 * The slot of an id, or the empty one where it belongs. At most half of the slots are used, so the walk ends.
 * Fibonacci hashing: ids come in runs with gaps, which would pile up if taken as they are.
 */
static inline struct keyring_slot *keyring_table_slot(struct keyring_table *table, uint32_t dek_id)
{
    for (size_t i = (dek_id * UINT32_C(2654435769)) >> table->shift;; i = (i + 1) & table->mask) {
        uint32_t id = atomic_load_explicit(&table->slots[i].id, memory_order_acquire);
        if (id == dek_id || id == 0)
            return &table->slots[i];
    }
}

/* What the table says about an id other than 0, without a reference. */
static inline struct keyring_dek *keyring_cache_peek(const keyring *ring, uint32_t dek_id)
{
    struct keyring_table *table = atomic_load_explicit(&ring->table, memory_order_acquire);
    return atomic_load_explicit(&keyring_table_slot(table, dek_id)->dek, memory_order_acquire);
}

/* ---- keyring.c ---- */
/* Connected, or NULL with the error raised; a failure is repeated for a moment instead of tried again. */
store *keyring_connect(keyring *ring);
/* Remember the thread's error; forget it with until 0. Under no lock. */
void keyring_failure_set(keyring *ring, struct keyring_failure *failure, uint64_t what, envelope_status status,
                         int64_t until);
/* Raise it again if now is before its end; else ENVELOPE_OK. */
envelope_status keyring_failure_raise(keyring *ring, struct keyring_failure *failure, uint64_t what, int64_t now);

/* ---- keys.c ---- */
/* The key of that name, made known to this process. NULL with the error raised. */
keyring_key *keyring_key_intern(keyring *ring, const char *name, size_t length);
void keyring_keys_free(keyring *ring);

/* The primary in one word, so that it changes as a whole: DEK id, the version's state, the key's state. */
static inline uint64_t keyring_primary_pack(uint32_t dek_id, enum store_version_state state,
                                            enum store_key_state key_state)
{
    return (uint64_t)dek_id << 32 | (uint64_t)state << 8 | (uint64_t)key_state;
}
/* 0 if nothing may be encrypted under it. */
static inline uint32_t keyring_primary_open(uint64_t primary)
{
    bool open = (uint32_t)primary == (uint32_t)keyring_primary_pack(0, STORE_VERSION_ACTIVE, STORE_KEY_ENABLED);
    return open ? (uint32_t)(primary >> 32) : 0;
}
/* The primary's DEK id, as of the ring's epoch; an error when nothing may be encrypted under the key. */
envelope_status keyring_key_primary(keyring *ring, keyring_key *key, uint32_t *dek_id);

/* Read it from the store at once, after a change of our own. */
envelope_status keyring_key_reread(keyring *ring, keyring_key *key);

/* The URI to use where the store has this one: itself, or the configured one, which may say where a PIN is. */
const char *keyring_uri_to_use(const keyring *ring, const char *stored);
/* The URI of a KEK; lives as long as the ring. NULL with the error raised. */
const char *keyring_kek_uri(keyring *ring, uint32_t kek_id);

/* ---- cache.c ---- */
envelope_status keyring_cache_init(keyring *ring);
void keyring_cache_free(keyring *ring);
/* A live entry of this process, with a reference; NULL if there is none. */
struct keyring_dek *keyring_cache_find(keyring *ring, uint32_t dek_id);
bool keyring_dek_usable(const struct keyring_dek *dek);
void keyring_dek_unref(keyring *ring, struct keyring_dek *dek);
/* Take it out of the cache: wiped as soon as the last lease ends. */
void keyring_dek_drop(keyring *ring, struct keyring_dek *dek);
/* Put an unwrapped DEK (a slot of ring->deks, taken over on success) into the cache; a reference comes back. NULL with
 * the error raised. */
struct keyring_dek *keyring_cache_insert(keyring *ring, keyring_key *key, const struct store_version *row, uint8_t *dek,
                                         uint64_t epoch, int64_t now);
/* Drop every cached version of key, or with key NULL every one. */
void keyring_cache_drop_all(keyring *ring, const keyring_key *key);
/* One step of a round through the table: drop what is past its end, look at some that were not checked in this epoch.
 */
void keyring_cache_sweep(keyring *ring, int64_t now);

/* ---- lease.c: seats ---- */
/* Drop the seats parked at an entry. */
void keyring_seats_clear(keyring *ring, struct keyring_dek *dek);
/* Collect the unused messages of the seats parked at an entry. */
uint32_t keyring_seats_collect(struct keyring_dek *dek);

/* ---- gate.c ---- */
/* Around what may be slow; may be nested. Waits while a fork is under way. */
void keyring_gate_enter(void);
void keyring_gate_leave(void);
/* The store and the token have both been used. */
void keyring_gate_arm(void);

/* ---- flight.c ---- */
enum keyring_flight_kind {
    KEYRING_FLIGHT_CONNECT,
    KEYRING_FLIGHT_LOOK,
    KEYRING_FLIGHT_KEY,
    KEYRING_FLIGHT_ROW,
    KEYRING_FLIGHT_DEK,
    KEYRING_FLIGHT_BUDGET,
    KEYRING_FLIGHT_ROTATE,
    KEYRING_FLIGHT_PRELOAD
};
struct keyring_flight;
/*
 * NULL with the error raised. *pilot: this thread does the work, inside the gate, and lands the flight; else it waits
 * for it.
 * Refused inside a token: the thread could be waiting for itself.
 */
struct keyring_flight *keyring_flight_join(keyring *ring, enum keyring_flight_kind kind, uint64_t what, bool *pilot);
/* As pilot, or NULL without an error: somebody is at it. */
struct keyring_flight *keyring_flight_try(keyring *ring, enum keyring_flight_kind kind, uint64_t what);
/* The pilot's status, its error raised; ENVELOPE_E_TIMEOUT after the configured deadline. */
envelope_status keyring_flight_wait(keyring *ring, struct keyring_flight *flight);
/* status, with the thread's error, for those who wait. Returns status. */
envelope_status keyring_flight_land(keyring *ring, struct keyring_flight *flight, envelope_status status);
/* In a forked child: its pilots are not here. */
void keyring_flights_forget(keyring *ring);

/* ---- unwrap.c ---- */
/* ENVELOPE_OK if a version in this state, of a key in this state, may open messages. */
envelope_status keyring_version_usable(const struct store_version *row);
/* Unwrap a version that is not cached, or wait for who does. A reference comes back. */
envelope_status keyring_unwrap_missing(keyring *ring, uint32_t dek_id, struct keyring_dek **dek);
/*
 * The entry's row in this epoch, its age. ENVELOPE_OK with *gone: too old to serve, dropped, unwrap it anew.
 * An error: it was refused, and dropped.
 */
envelope_status keyring_dek_check(keyring *ring, struct keyring_dek *dek, int64_t now, bool *gone);
/* The row alone, for sweeping. */
envelope_status keyring_dek_check_row(keyring *ring, struct keyring_dek *dek, uint64_t epoch);
void keyring_preload(keyring *ring, int64_t now);
/* The next DEK under the same KEK would hear the same. */
bool keyring_is_about_kek(envelope_status status);
/* True for errors that say nothing about a DEK, only that it cannot be asked for now. */
bool keyring_is_away(envelope_status status);

/* ---- budget.c ---- */
/* Put messages into an empty lease. ENVELOPE_E_MESSAGE_LIMIT, not raised yet, when the version has none left. */
envelope_status keyring_budget_draw(keyring *ring, struct keyring_lease *lease);
/* The version nears its limit, so that its key should be rotated. */
bool keyring_budget_is_low(const struct keyring_dek *dek);
bool keyring_budget_is_spent(const struct keyring_dek *dek);
/* Rotate the key away from a version that is low. *moved: look for the new primary. must: wait for whoever is at it. */
void keyring_budget_rotate(keyring *ring, keyring_key *key, const struct keyring_dek *dek, bool must, bool *moved);
/* Raised: the limit, and why no rotation helped. */
envelope_status keyring_budget_refuse(keyring *ring, const struct keyring_dek *dek, bool by_reference);

/* ---- refresh.c ---- */
/* Look at the store if that is due. An error only once it could not be read for longer than ttl + grace. */
envelope_status keyring_refresh(keyring *ring, int64_t now);
/* Something in the store changed by our own hand: check everything again. */
void keyring_refresh_now(keyring *ring);

/* ---- manage.c ---- */
enum { KEYRING_WHO_MAX = 96, KEYRING_DETAIL_MAX = 1024 };
/* Who we are, for the history. */
struct store_actor keyring_actor(char who[KEYRING_WHO_MAX], const char *why);
struct keyring_note {
    char who[KEYRING_WHO_MAX], detail[KEYRING_DETAIL_MAX];
};
/*
 * The same with what was done ("" if the row says that already), why (may be NULL; cut if it is long), and the ids of a
 * key service's requests (hsm_requests(), or ""), which are never cut.
 */
struct store_actor keyring_actor_of(struct keyring_note *note, const char *what, const char *why, const char *ids);
/* A row of the history for the thread's error, which stays raised. */
void keyring_note_refusal(keyring *ring, const char *what, const char *name, uint32_t version, envelope_status status);
/* Rotate if the primary is still expected (0: whatever it is). */
envelope_status keyring_rotate_from(keyring *ring, const char *name, uint32_t expected, const char *why,
                                    uint32_t *version, bool *by_others);

#endif
