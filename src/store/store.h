/*
 * The store: where wrapped DEKs, versions, states, history and message budgets
 * live. One interface, several engines (sqlite.c; others pass the same
 * conformance suite, tests/conformance).
 *
 * Every function that changes something is one transaction: it happened, with
 * its history row and a raised change counter, or it did not. A store handle is
 * safe to use from many threads; it keeps a small pool of connections, forgets
 * connections made before a fork and reopens lazily. No call keeps a lock of
 * ours while the engine works.
 *
 * Times: microseconds UTC. All functions return ENVELOPE_OK or raise an error
 * (ENVELOPE_E_STORE_… for the engine, others as named).
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

#include "base/text.h"

typedef struct store store;

enum { STORE_ID_SIZE = 8 };

/* SP 800-57 part 1, 8.2.4 as this project uses it (docs/design.md, Words). */
enum store_version_state {
    STORE_VERSION_ACTIVE = 1,      /* the primary: encrypts and decrypts */
    STORE_VERSION_DEACTIVATED = 2, /* decrypts only */
    STORE_VERSION_SUSPENDED = 3,   /* nothing, until resumed */
    STORE_VERSION_PENDING_DESTRUCTION = 4,
    STORE_VERSION_DESTROYED = 5 /* blob gone, the row stays */
};
enum store_key_state { STORE_KEY_ENABLED = 1, STORE_KEY_SUSPENDED = 2, STORE_KEY_DESTROYED = 3 };

const char *store_version_state_text(enum store_version_state state); /* "pending-destruction" */
const char *store_key_state_text(enum store_key_state state);

enum store_algorithm { STORE_AES_256_GCM = 1 };

struct store_kek {
    uint32_t kek_id; /* 1…, never reused; bound into the AAD of every wrap */
    char *uri;       /* RFC 7512, without PIN attributes */
    int64_t created;
};

struct store_key {
    char name[KEY_NAME_MAX + 1];
    enum store_key_state state;
    uint32_t primary_version; /* 1…; exactly one version is the primary */
    uint32_t kek_id;          /* for versions made from now on */
    uint64_t message_limit;   /* per version made from now on, 1…2^32 */
    int64_t created;
};

struct store_version {
    uint32_t dek_id; /* store-wide, 1…2^32-1, never reused */
    uint32_t version;
    char key_name[KEY_NAME_MAX + 1];
    enum store_version_state state;
    enum store_key_state key_state;
    enum store_algorithm algorithm;
    uint32_t kek_id;
    uint8_t *blob; /* the encrypted_key_blob (docs/wire-format.md, Wrapped DEK); NULL when destroyed */
    size_t blob_length;
    uint64_t message_limit;
    uint64_t messages_reserved; /* given out to processes, used or not */
    int64_t created;
    int64_t deactivated; /* 0: not yet */
};

struct store_history {
    int64_t id;
    int64_t when;
    char *who;        /* "uid 1000 pid 4711 openssl" */
    char *what;       /* "create", "rotate", "suspend", … */
    char *key;        /* NULL: the store as a whole */
    uint32_t version; /* 0: the key as a whole */
    char *result;     /* "ok" or a status name */
    char *detail;     /* may be NULL */
};

/* Who makes a change and what is noted beside it; both kept in its history row. detail may be NULL. */
struct store_actor {
    const char *who;
    const char *detail;
};

/* ---- the store itself ---- */

/*
 * url: "sqlite:/absolute/path". Opens an existing store and brings its schema up to date.
 * deadline: microseconds a single call may wait for other processes.
 * A path that is missing, a directory, not a database, from a newer schema, of another
 * application, locked, read-only (while a migration is due): each its own message.
 */
envelope_status store_open(const char *url, int64_t deadline, store **opened);
/* The same, making the store (mode 0600, a random store id) if nothing is there. created may be NULL. */
envelope_status store_create(const char *url, int64_t deadline, store **opened, bool *created);
void store_close(store *opened);

const char *store_url(const store *opened);
envelope_status store_id(store *opened, uint8_t id[STORE_ID_SIZE]);
/* Raised by every change of keys and versions (not by message budgets). A cheap read. */
envelope_status store_change_counter(store *opened, uint64_t *counter);
/* The engine's own integrity check plus our invariants (one primary each, no orphan, blobs where they must be). */
envelope_status store_check(store *opened);

/* ---- KEKs ---- */
envelope_status store_kek_ensure(store *opened, const char *uri, int64_t now, uint32_t *kek_id);
envelope_status store_kek_find(store *opened, uint32_t kek_id, struct store_kek *kek);
void store_kek_clear(struct store_kek *kek);

/* ---- keys and versions ---- */

/*
 * The AAD of a wrap has the ids of DEK and KEK in it, so they must be known before the row exists. There are two ways.
 * store_next_ids() tells which would be next, and keeps them for nobody: the version takes them when it is written, in
 * the same transaction, so that a wrap that is refused leaves no trace. If somebody else was faster the version is
 * refused (STORE_CONFLICT), and has to be wrapped again. store_dek_id_reserve() hands out an id for good: where that
 * happened, so that it cannot happen again and again. Gaps are fine.
 */
struct store_ids {
    uint32_t dek_id;   /* 0: all are given out, which store_dek_id_reserve() says */
    uint32_t kek_id;   /* of the URI; 0 without one */
    bool kek_is_there; /* it has a row; else kek_id is what it would get */
};
/* kek_uri may be NULL. */
envelope_status store_next_ids(store *opened, const char *kek_uri, struct store_ids *ids);
envelope_status store_dek_id_reserve(store *opened, uint32_t *dek_id);

struct store_new_version {
    uint32_t dek_id;
    bool dek_id_is_next; /* of store_next_ids(), to be taken now; else reserved before */
    enum store_algorithm algorithm;
    uint32_t kek_id;
    const char *kek_uri; /* of store_next_ids(): the KEK's row is made if it is not there. NULL: it is there */
    const uint8_t *blob;
    size_t blob_length;
    int64_t now;
};

/* The key and its version 1, active. ENVELOPE_E_KEY_NAME, ENVELOPE_E_KEY_EXISTS, ENVELOPE_E_STORE_CONFLICT (ids). */
envelope_status store_key_create(store *opened, const char *name, uint64_t message_limit,
                                 const struct store_new_version *first, const struct store_actor *actor);

/*
 * Version expected_primary + 1 becomes the primary, the old one deactivated (a suspended one stays suspended).
 * ENVELOPE_E_STORE_CONFLICT if the primary is not expected_primary any more, or the key's KEK not that of next:
 * somebody else rotated, or moved the key to another KEK, or took the id that was next; read again.
 * ENVELOPE_E_KEY_UNKNOWN, ENVELOPE_E_KEY_STATE.
 */
envelope_status store_key_rotate(store *opened, const char *name, uint32_t expected_primary,
                                 const struct store_new_version *next, const struct store_actor *actor);

/* ENVELOPE_E_KEY_UNKNOWN */
envelope_status store_key_find(store *opened, const char *name, struct store_key *key);
/* Sorted by name; free(*keys). */
envelope_status store_keys(store *opened, struct store_key **keys, size_t *count);

/* ENVELOPE_E_VERSION_UNKNOWN. Clear with store_version_clear(). */
envelope_status store_version_find(store *opened, uint32_t dek_id, struct store_version *version);
/* By number within a key; ENVELOPE_E_KEY_UNKNOWN, ENVELOPE_E_VERSION_UNKNOWN. number 0: the primary. */
envelope_status store_version_of(store *opened, const char *name, uint32_t number, struct store_version *version);
/* All versions of one key, or of all keys (name NULL), ordered by key and version. store_versions_free(). */
envelope_status store_versions(store *opened, const char *name, struct store_version **versions, size_t *count);
/*
 * A page of all versions in that order, at most `limit`: from key `first`, of which those up to number `after` are left
 * out, to key `last`. Neither has to be there. store_versions_free().
 */
envelope_status store_versions_page(store *opened, const char *first, uint32_t after, const char *last, size_t limit,
                                    struct store_version **versions, size_t *count);
void store_version_clear(struct store_version *version);
void store_versions_free(struct store_version *versions, size_t count);

/*
 * Move a version from one state to another; ENVELOPE_E_STORE_CONFLICT if it is not in `from`,
 * ENVELOPE_E_VERSION_STATE if that step does not exist. Allowed: active|deactivated -> suspended;
 * suspended -> active (if it is the primary) | deactivated (if not); deactivated|suspended (not the
 * primary of an enabled key) -> pending-destruction and back to deactivated; pending-destruction -> destroyed
 * (the blob is overwritten and removed).
 */
envelope_status store_version_set_state(store *opened, uint32_t dek_id, enum store_version_state from,
                                        enum store_version_state to, int64_t now, const struct store_actor *actor);
/*
 * enabled <-> suspended. ENVELOPE_E_STORE_CONFLICT if it is not in `from`; ENVELOPE_E_KEY_STATE if there is no such
 * step, or if a key is to be enabled whose primary is neither active nor suspended.
 */
envelope_status store_key_set_state(store *opened, const char *name, enum store_key_state from, enum store_key_state to,
                                    int64_t now, const struct store_actor *actor);

/* ---- another KEK ---- */

enum { STORE_MOVES_MAX = 256 }; /* of one call, so that nobody waits long for its transaction */

/* A DEK of old, wrapped anew: the version stays, its KEK and blob are others. */
struct store_version_move {
    uint32_t dek_id;
    uint32_t from_kek_id; /* as the version was read; else somebody else changed it meanwhile */
    const uint8_t *from_blob;
    size_t from_length;
    uint32_t kek_id;     /* may be the same one */
    const char *kek_uri; /* of store_next_ids(): the KEK's row is made if it is not there. NULL: it is there */
    const uint8_t *blob;
    size_t blob_length;
    int64_t now;
    struct store_actor actor;
    envelope_status status; /* what became of it: ENVELOPE_OK, moved; else why it is as it was */
};
/*
 * In one transaction, but each by itself: those that cannot be moved are as they were, their status says why, and the
 * others are moved. ENVELOPE_E_STORE_CONFLICT if KEK or blob are not what they were, or if the id of the KEK is another
 * one's; ENVELOPE_E_VERSION_UNKNOWN; ENVELOPE_E_VERSION_STATE if it is destroyed; ENVELOPE_E_KEK_UNKNOWN. Every other
 * state may be moved, so that an old KEK can go for good. An error that is returned: nothing was moved. Where nothing
 * is moved, no KEK's row is made.
 */
envelope_status store_versions_rewrap(store *opened, struct store_version_move *moves, size_t count);
/* One; its status is returned, and raised. */
envelope_status store_version_rewrap(store *opened, const struct store_version_move *move);

/* The KEK for versions made from now on. A rotation under way with the old one is refused (STORE_CONFLICT). */
struct store_key_move {
    const char *name;
    uint32_t from_kek_id, kek_id;
    const char *kek_uri; /* as above */
    int64_t now;
    struct store_actor actor;
    envelope_status status;
};
/*
 * The same for keys. ENVELOPE_E_STORE_CONFLICT if the key's KEK is not from_kek_id, or the id another one's;
 * ENVELOPE_E_KEK_UNKNOWN, ENVELOPE_E_KEY_UNKNOWN, ENVELOPE_E_KEY_STATE if the key is destroyed.
 */
envelope_status store_keys_set_kek(store *opened, struct store_key_move *moves, size_t count);
envelope_status store_key_set_kek(store *opened, const struct store_key_move *move);

/* ---- message budget ---- */

/*
 * Reserve up to want messages of a version's budget for this process. granted is 0 when none are left.
 * Never lets messages_reserved exceed message_limit, whatever runs beside it. reserved: the new total.
 * Active and deactivated versions of an enabled key only: ENVELOPE_E_VERSION_STATE, ENVELOPE_E_KEY_STATE.
 */
envelope_status store_messages_reserve(store *opened, uint32_t dek_id, uint64_t want, uint64_t *granted,
                                       uint64_t *reserved, uint64_t *limit);

/* ---- history ---- */

/* A row for something that changed no key (a refusal, a restore). key may be NULL, version 0. */
envelope_status store_history_add(store *opened, int64_t now, const char *what, const char *key, uint32_t version,
                                  const char *result, const struct store_actor *actor);
/* Newest first, at most limit rows (0: all); key NULL: everything. */
envelope_status store_history_read(store *opened, const char *key, size_t limit, struct store_history **rows,
                                   size_t *count);
void store_history_free(struct store_history *rows, size_t count);

#endif
