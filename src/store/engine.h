/*
 * What an engine is: a table of functions, one per verb of store.h that touches
 * the database. store.c checks arguments before it calls any of them; an engine
 * may rely on valid names, limits, sizes and non-NULL pointers.
 */
#ifndef STORE_ENGINE_H
#define STORE_ENGINE_H

#include "store/store.h"

enum { STORE_BLOB_MAX = 65535, STORE_URI_MAX = 4096, STORE_WHO_MAX = 256, STORE_DETAIL_MAX = 1024 };
#define STORE_MESSAGE_LIMIT_MAX (UINT64_C(1) << 32)

struct store_engine {
    const char *scheme; /* "sqlite" for "sqlite:…" */

    /* place: the URL after the scheme. create: make it if nothing is there. */
    envelope_status (*open)(const char *url, const char *place, int64_t deadline, bool create, store **opened,
                            bool *created);
    void (*close)(store *opened);

    envelope_status (*change_counter)(store *opened, uint64_t *counter);
    envelope_status (*check)(store *opened);

    envelope_status (*kek_ensure)(store *opened, const char *uri, int64_t now, uint32_t *kek_id);
    envelope_status (*kek_find)(store *opened, uint32_t kek_id, struct store_kek *kek);

    envelope_status (*next_ids)(store *opened, const char *kek_uri, struct store_ids *ids);
    envelope_status (*dek_id_reserve)(store *opened, uint32_t *dek_id);
    envelope_status (*key_create)(store *opened, const char *name, uint64_t message_limit,
                                  const struct store_new_version *first, const struct store_actor *actor);
    envelope_status (*key_rotate)(store *opened, const char *name, uint32_t expected_primary,
                                  const struct store_new_version *next, const struct store_actor *actor);
    envelope_status (*key_find)(store *opened, const char *name, struct store_key *key);
    envelope_status (*keys)(store *opened, struct store_key **keys, size_t *count);
    envelope_status (*key_set_state)(store *opened, const char *name, enum store_key_state from,
                                     enum store_key_state to, int64_t now, const struct store_actor *actor);

    envelope_status (*version_find)(store *opened, uint32_t dek_id, struct store_version *version);
    envelope_status (*version_of)(store *opened, const char *name, uint32_t number, struct store_version *version);
    envelope_status (*versions)(store *opened, const char *name, struct store_version **versions, size_t *count);
    envelope_status (*version_set_state)(store *opened, uint32_t dek_id, enum store_version_state from,
                                         enum store_version_state to, int64_t now, const struct store_actor *actor);
    envelope_status (*versions_page)(store *opened, const char *first, uint32_t after, const char *last, size_t limit,
                                     struct store_version **versions, size_t *count);
    /* Fill every status; the error of the last that is not ENVELOPE_OK stays raised. */
    envelope_status (*versions_rewrap)(store *opened, struct store_version_move *moves, size_t count);
    envelope_status (*keys_set_kek)(store *opened, struct store_key_move *moves, size_t count);

    envelope_status (*messages_reserve)(store *opened, uint32_t dek_id, uint64_t want, uint64_t *granted,
                                        uint64_t *reserved, uint64_t *limit);

    envelope_status (*history_add)(store *opened, int64_t now, const char *what, const char *key, uint32_t version,
                                   const char *result, const struct store_actor *actor);
    envelope_status (*history_read)(store *opened, const char *key, size_t limit, struct store_history **rows,
                                    size_t *count);
};

/* The first member of every engine's own struct; filled by its open(). */
struct store {
    const struct store_engine *engine;
    char *url;
    uint8_t id[STORE_ID_SIZE];
};

extern const struct store_engine store_sqlite_engine;

/* ---- words and steps that every engine shares (states.c) ---- */

/* 0 for a word that is none. */
enum store_version_state store_version_state_from_text(const char *text);
enum store_key_state store_key_state_from_text(const char *text);
const char *store_algorithm_text(enum store_algorithm algorithm);
enum store_algorithm store_algorithm_from_text(const char *text);

/* Is there such a step at all, for some version? */
bool store_version_step_exists(enum store_version_state from, enum store_version_state to);

struct store_version_place {
    uint32_t number;
    const char *key_name;
    bool is_primary;
    enum store_key_state key_state;
};
/* May this version take it? Raises ENVELOPE_E_VERSION_STATE with the reason. The step exists. */
envelope_status store_version_step_allowed(enum store_version_state from, enum store_version_state to,
                                           const struct store_version_place *place);
/* The history word of the step: "suspend", "resume", "schedule-destruction", "cancel-destruction", "destroy". */
const char *store_version_step_text(enum store_version_state from, enum store_version_state to);

#endif
