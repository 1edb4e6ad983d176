/*
 * The keyring: keys, versions, states, the cache of unwrapped DEKs and the
 * message budgets. The heart; the provider and the command are adapters of it.
 *
 * Hot path (docs/design.md, rule 4): keyring_encrypt_begin() and
 * keyring_decrypt_begin() on a cached DEK take no lock and allocate nothing.
 * On a miss one thread unwraps, the others wait for it until the deadline.
 *
 * Freshness: at most every `refresh` one caller looks at the store's change
 * counter, so every process sees a rotation or suspension within it. A DEK older
 * than `ttl` is unwrapped again; while the token is away it serves until
 * ttl + grace, then fails with the token's error.
 */
#ifndef KEYRING_KEYRING_H
#define KEYRING_KEYRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

#include "base/aesgcm.h"
#include "base/settings.h"
#include "hsm/hsm.h"
#include "store/store.h"

typedef struct keyring keyring;
typedef struct keyring_key keyring_key; /* a key this process has met; lives as long as the keyring */
struct keyring_dek;                     /* one cached version */

/* No I/O: connects to the store and the token at first use. Takes the settings over (settings_clear'ed by it). */
envelope_status keyring_new(struct settings *settings, keyring **made);
/* Wipes every DEK; all leases must have ended. For commands and tests; a provider keeps its keyring until exit and
 * calls keyring_wipe. */
void keyring_free(keyring *ring);
/* Wipe all cached DEKs and contexts not leased; the keyring stays usable. Safe at exit. */
void keyring_wipe(keyring *ring);

const struct settings *keyring_settings(const keyring *ring);
/* The parts below, connected; NULL with the error raised. For management, not for messages. */
store *keyring_store(keyring *ring);
hsm *keyring_hsm(keyring *ring);

/* ---- messages ---- */

/*
 * What a cipher context holds: a DEK in use, an AES-GCM context keyed with it, and some of its message budget.
 * Zero-initialised is empty. One thread at a time. The lease may be kept over many messages; begin calls replace
 * what is stale in it, and empty it when they fail. gcm may be replaced by another context keyed with the same DEK
 * (a copy), and is then handed back in its place.
 */
struct keyring_lease {
    struct keyring_dek *dek;
    aesgcm *gcm;       /* keyed with dek; start it with a nonce */
    uint32_t dek_id;   /* 0: empty */
    uint32_t messages; /* counted already, not yet used */
    uint64_t generation;
    /* For the keyring alone. */
    const keyring_key *key;    /* dek was this key's primary when the lease was last checked */
    struct keyring_seat *seat; /* what gcm goes back into */
    uint64_t epoch;            /* the knowledge the lease was checked against; 0: check again */
    uint32_t hits;             /* begin calls not yet in the ring's counters */
};

/* Resolve a name (not NUL-terminated); length 0: the default key. ENVELOPE_E_KEY_NAME, ENVELOPE_E_KEY_UNKNOWN. */
envelope_status keyring_find(keyring *ring, const char *name, size_t length, keyring_key **key);
const char *keyring_key_name(const keyring_key *key);

/* One message is about to be encrypted under the key's primary version: count it, make lease hold it. */
envelope_status keyring_encrypt_begin(keyring *ring, keyring_key *key, struct keyring_lease *lease);
/* A message of this DEK id is about to be decrypted. ENVELOPE_E_VERSION_UNKNOWN, ENVELOPE_E_VERSION_STATE, … */
envelope_status keyring_decrypt_begin(keyring *ring, uint32_t dek_id, struct keyring_lease *lease);
/* Key references name one version: as above, for encryption (counted; active and deactivated allowed) or decryption. */
envelope_status keyring_reference_begin(keyring *ring, uint32_t dek_id, bool encrypt, struct keyring_lease *lease);
/* Hand everything back (unused budget too). An empty lease is fine. */
void keyring_lease_end(keyring *ring, struct keyring_lease *lease);
/* The key of the DEK in the lease. */
const keyring_key *keyring_lease_key(const struct keyring_lease *lease);
/* The DEK itself, for keying another cipher: copied into locked memory of the caller, who wipes it. */
envelope_status keyring_lease_dek(const struct keyring_lease *lease, uint8_t dek[HSM_DEK_SIZE]);

/* The store's id, from the cache once known (a key reference is checked against it). */
envelope_status keyring_store_id(keyring *ring, uint8_t id[STORE_ID_SIZE]);

/* ---- management ---- */

struct keyring_key_options {
    const char *kek_uri;    /* NULL: the configured one */
    uint64_t message_limit; /* 0: the configured one */
};
/* ENVELOPE_E_KEY_EXISTS, ENVELOPE_E_KEY_NAME. */
envelope_status keyring_create(keyring *ring, const char *name, const struct keyring_key_options *options);
/*
 * Make the next version the primary. If another process rotates at the same moment there is one new version, theirs,
 * and that is success (by_others, may be NULL, tells). version: the new primary's number, may be NULL.
 */
envelope_status keyring_rotate(keyring *ring, const char *name, const char *why, uint32_t *version, bool *by_others);
/* number 0: the key as a whole. */
envelope_status keyring_suspend(keyring *ring, const char *name, uint32_t number, const char *why);
envelope_status keyring_resume(keyring *ring, const char *name, uint32_t number, const char *why);

struct keyring_rewrap {
    const char *kek_uri;  /* NULL: the KEK the key has; its versions are wrapped anew (new key material) */
    const char *from_uri; /* NULL: from anywhere; else only what is under this KEK. ENVELOPE_E_KEK_UNKNOWN */
    uint32_t version;     /* 0: all of them, and the key itself: what is made from now on is under that KEK */
    const char *why;
};
struct keyring_rewrapped {
    size_t moved;
    size_t inside; /* of those moved: by the key service itself, which the DEK never left */
    size_t kept;   /* were under that KEK already */
};
/*
 * Move versions to another KEK: new wrapped DEKs, the same DEKs, so that no data is touched and nothing has to be
 * restarted. Destroyed versions have nothing to move. Nothing replaces a blob before it is known to unwrap, nor one
 * that somebody else changed meanwhile. Up to 128 versions are stored in one transaction, at least twice a second; no
 * token is asked inside it. What was interrupted is taken up again by the same call. A KEK that nothing could be moved
 * to leaves no trace in the store.
 */
envelope_status keyring_rewrap(keyring *ring, const char *name, const struct keyring_rewrap *wanted,
                               struct keyring_rewrapped *done);

struct keyring_rewrap_all {
    size_t keys;   /* there are, destroyed ones apart */
    size_t looked; /* at so many */
    size_t failed; /* of those: not, or not wholly, moved */
    struct keyring_rewrapped versions;
};
/* For each key once it is stored, in the order of their names; the thread's error is the key's, if status is one. */
typedef void keyring_rewrap_each(void *argument, const char *name, envelope_status status,
                                 const struct keyring_rewrap_all *so_far);
/*
 * The same for every key: the rotation of a KEK. One that cannot be moved is told and left, and the others go on. It
 * ends where the KEK to move to refuses, or could not be reached three times in a row, or the store fails; a KEK to
 * move from that does so is left alone from then on. An error if not all were moved: the first one's, with how many.
 * wanted->version is 0. each may be NULL. In memory are the names of the keys, and a page of versions.
 */
envelope_status keyring_rewrap_all(keyring *ring, const struct keyring_rewrap *wanted, keyring_rewrap_each *each,
                                   void *argument, struct keyring_rewrap_all *done);

/* hits of a lease are counted when it ends, or is checked again; the others at once. */
struct keyring_counters {
    uint64_t hits, unwraps, waits, refreshes, rotations, reservations;
    size_t cached;
};
void keyring_count(const keyring *ring, struct keyring_counters *counters);

#endif
