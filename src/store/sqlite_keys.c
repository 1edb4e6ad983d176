/* Keys: create, rotate, suspend, find. */
#include "store/sqlite.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* ---- reading ---- */

#define KEY_COLUMNS "key_id, name, state, primary_version, kek_id, message_limit, created"

static envelope_status read_key(struct query *q, int64_t *key_id, struct store_key *key)
{
    int64_t id = store_query_get_int(q, 0, 1, INT64_MAX);
    const char *name = store_query_get_text(q, 1, KEY_NAME_MAX);
    memcpy(key->name, name, strlen(name) + 1);
    key->state = store_key_state_from_text(store_query_get_text(q, 2, KEY_NAME_MAX));
    key->primary_version = store_query_get_u32(q, 3);
    key->kek_id = store_query_get_u32(q, 4);
    key->message_limit = (uint64_t)store_query_get_int(q, 5, 1, (int64_t)STORE_MESSAGE_LIMIT_MAX);
    key->created = store_query_get_int(q, 6, INT64_MIN, INT64_MAX);
    if (!key->state && !q->malformed)
        q->malformed = "state";
    if (key_id)
        *key_id = id;
    return store_query_sound(q, "encryption_key", id);
}

envelope_status store_sqlite_get_key(struct connection *c, const char *name, int64_t *key_id, struct store_key *key,
                                     bool *found)
{
    static const char sql[] = "SELECT " KEY_COLUMNS " FROM encryption_key WHERE name = ?";
    struct query q = store_query(c, sql);
    store_query_text(&q, name);
    envelope_status status = store_query_row(&q, found);
    if (!status && *found)
        status = read_key(&q, key_id, key);
    return status;
}

envelope_status store_sqlite_unknown_key(const struct connection *c, const char *name)
{
    return error_raise(ENVELOPE_E_KEY_UNKNOWN,
                       "there is no key \"%s\" in the store %s; `envelope key list` shows those there are, `envelope "
                       "key create` makes one",
                       name, c->sqlite->printed);
}

static envelope_status need_key(struct connection *c, const char *name, int64_t *key_id, struct store_key *key)
{
    bool found = false;
    envelope_status status = store_sqlite_get_key(c, name, key_id, key, &found);
    if (!status && !found)
        return store_sqlite_unknown_key(c, name);
    return status;
}

envelope_status store_sqlite_key_find(store *opened, const char *name, struct store_key *key)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_READ, &c);
    return status ? status : store_sqlite_end(c, need_key(c, name, NULL, key));
}

static envelope_status read_keys(struct connection *c, struct store_key **keys, size_t *count)
{
    static const char sql[] = "SELECT " KEY_COLUMNS " FROM encryption_key ORDER BY name";
    struct query q = store_query(c, sql);
    for (size_t capacity = 0;; (*count)++) {
        bool found = false;
        envelope_status status = store_query_row(&q, &found);
        if (status || !found)
            return status;
        if (*count == capacity) {
            capacity = capacity ? capacity * 2 : 16;
            struct store_key *more = realloc(*keys, capacity * sizeof *more);
            if (!more)
                return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory while keys are listed");
            *keys = more;
        }
        status = read_key(&q, NULL, &(*keys)[*count]);
        if (status)
            return status;
    }
}

envelope_status store_sqlite_keys(store *opened, struct store_key **keys, size_t *count)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_READ, &c);
    if (status)
        return status;
    status = store_sqlite_end(c, read_keys(c, keys, count));
    if (status) {
        free(*keys);
        *keys = NULL;
        *count = 0;
    }
    return status;
}

/* ---- a new version ---- */

static envelope_status insert_version(struct connection *c, int64_t key_id, uint32_t number, uint64_t message_limit,
                                      const struct store_new_version *version)
{
    static const char sql[] =
        "INSERT INTO encryption_key_version (dek_id, key_id, version, state, algorithm, kek_id, encrypted_key_blob, "
        "message_limit, created) VALUES (?, ?, ?, 'active', ?, ?, ?, ?, ?)";
    struct query q = store_query(c, sql);
    store_query_int(&q, version->dek_id);
    store_query_int(&q, key_id);
    store_query_int(&q, number);
    store_query_text(&q, store_algorithm_text(version->algorithm));
    store_query_int(&q, version->kek_id);
    store_query_blob(&q, version->blob, version->blob_length);
    store_query_int(&q, (int64_t)message_limit);
    store_query_int(&q, version->now);
    return store_query_run(&q, NULL);
}

/* ---- create ---- */

static envelope_status insert_key(struct connection *c, const char *name, uint64_t message_limit,
                                  const struct store_new_version *first, int64_t *key_id)
{
    static const char sql[] = "INSERT INTO encryption_key (name, state, primary_version, kek_id, message_limit, "
                              "created) VALUES (?, 'enabled', 1, ?, ?, ?)";
    struct query q = store_query(c, sql);
    store_query_text(&q, name);
    store_query_int(&q, first->kek_id);
    store_query_int(&q, (int64_t)message_limit);
    store_query_int(&q, first->now);
    envelope_status status = store_query_run(&q, NULL);
    *key_id = sqlite3_last_insert_rowid(c->db);
    return status;
}

static envelope_status create(struct connection *c, const char *name, uint64_t message_limit,
                              const struct store_new_version *first, const struct store_actor *actor)
{
    struct store_key there;
    bool found = false;
    int64_t key_id = 0;
    envelope_status status = store_sqlite_get_key(c, name, NULL, &there, &found);
    if (!status && found)
        return error_raise(ENVELOPE_E_KEY_EXISTS, "there is a key \"%s\" (%s) in the store %s already", name,
                           store_key_state_text(there.state), c->sqlite->printed);
    if (!status)
        status = store_sqlite_take_ids(c, first);
    if (!status)
        status = insert_key(c, name, message_limit, first, &key_id);
    if (!status)
        status = insert_version(c, key_id, 1, message_limit, first);
    return status ? status : store_sqlite_note(c, first->now, "create", name, 1, actor);
}

envelope_status store_sqlite_key_create(store *opened, const char *name, uint64_t message_limit,
                                        const struct store_new_version *first, const struct store_actor *actor)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_WRITE, &c);
    return status ? status : store_sqlite_end(c, create(c, name, message_limit, first, actor));
}

/* ---- rotate ---- */

/* The old primary stops encrypting; a suspended one stays suspended. */
static envelope_status retire_primary(struct connection *c, int64_t key_id, uint32_t primary, int64_t now)
{
    static const char sql[] =
        "UPDATE encryption_key_version SET deactivated = ?, "
        "state = CASE state WHEN 'active' THEN 'deactivated' ELSE state END WHERE key_id = ? AND version = ?";
    struct query q = store_query(c, sql);
    store_query_int(&q, now);
    store_query_int(&q, key_id);
    store_query_int(&q, primary);
    return store_query_run(&q, NULL);
}

static envelope_status move_primary(struct connection *c, int64_t key_id, uint32_t to)
{
    static const char sql[] = "UPDATE encryption_key SET primary_version = ? WHERE key_id = ?";
    struct query q = store_query(c, sql);
    store_query_int(&q, to);
    store_query_int(&q, key_id);
    return store_query_run(&q, NULL);
}

static envelope_status rotate(struct connection *c, const char *name, uint32_t expected_primary,
                              const struct store_new_version *next, const struct store_actor *actor)
{
    struct store_key key;
    int64_t key_id = 0;
    envelope_status status = need_key(c, name, &key_id, &key);
    if (status)
        return status;
    if (key.state != STORE_KEY_ENABLED)
        return error_raise(ENVELOPE_E_KEY_STATE, "cannot rotate key \"%s\": it is %s", name,
                           store_key_state_text(key.state));
    if (key.primary_version != expected_primary)
        return error_raise(ENVELOPE_E_STORE_CONFLICT,
                           "key \"%s\" was rotated by somebody else: version %u is its primary, not %u", name,
                           (unsigned)key.primary_version, (unsigned)expected_primary);
    if (key.kek_id != next->kek_id)
        return error_raise(ENVELOPE_E_STORE_CONFLICT, "key \"%s\" was moved to another KEK: %u, not %u", name,
                           (unsigned)key.kek_id, (unsigned)next->kek_id);
    status = store_sqlite_take_ids(c, next);
    if (!status)
        status = retire_primary(c, key_id, expected_primary, next->now);
    if (!status)
        status = insert_version(c, key_id, expected_primary + 1, key.message_limit, next);
    if (!status)
        status = move_primary(c, key_id, expected_primary + 1);
    return status ? status : store_sqlite_note(c, next->now, "rotate", name, expected_primary + 1, actor);
}

envelope_status store_sqlite_key_rotate(store *opened, const char *name, uint32_t expected_primary,
                                        const struct store_new_version *next, const struct store_actor *actor)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_WRITE, &c);
    return status ? status : store_sqlite_end(c, rotate(c, name, expected_primary, next, actor));
}

/* ---- suspend, resume ---- */

/* An enabled key needs a primary that encrypts, or will again when it is resumed. */
static envelope_status check_primary_usable(struct connection *c, int64_t key_id, const struct store_key *key)
{
    static const char sql[] = "SELECT state FROM encryption_key_version WHERE key_id = ? AND version = ?";
    struct query q = store_query(c, sql);
    store_query_int(&q, key_id);
    store_query_int(&q, key->primary_version);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (status)
        return status;
    const char *state = found ? store_query_get_text(&q, 0, KEY_NAME_MAX) : "missing";
    enum store_version_state value = store_version_state_from_text(state);
    if (value == STORE_VERSION_ACTIVE || value == STORE_VERSION_SUSPENDED)
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_KEY_STATE,
                       "cannot enable key \"%s\": its primary version %u is %s; bring that one back first (cancel its "
                       "destruction, suspend and resume it)",
                       key->name, (unsigned)key->primary_version, state);
}

static envelope_status update_key_state(struct connection *c, int64_t key_id, enum store_key_state to)
{
    static const char sql[] = "UPDATE encryption_key SET state = ? WHERE key_id = ?";
    struct query q = store_query(c, sql);
    store_query_text(&q, store_key_state_text(to));
    store_query_int(&q, key_id);
    return store_query_run(&q, NULL);
}

static envelope_status set_state(struct connection *c, const char *name, enum store_key_state from,
                                 enum store_key_state to, int64_t now, const struct store_actor *actor)
{
    struct store_key key;
    int64_t key_id = 0;
    envelope_status status = need_key(c, name, &key_id, &key);
    if (status)
        return status;
    if (key.state != from)
        return error_raise(ENVELOPE_E_STORE_CONFLICT, "key \"%s\" is %s, not %s; somebody else changed it", name,
                           store_key_state_text(key.state), store_key_state_text(from));
    if (to == STORE_KEY_ENABLED)
        status = check_primary_usable(c, key_id, &key);
    if (!status)
        status = update_key_state(c, key_id, to);
    return status ? status : store_sqlite_note(c, now, to == STORE_KEY_ENABLED ? "resume" : "suspend", name, 0, actor);
}

envelope_status store_sqlite_key_set_state(store *opened, const char *name, enum store_key_state from,
                                           enum store_key_state to, int64_t now, const struct store_actor *actor)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_WRITE, &c);
    return status ? status : store_sqlite_end(c, set_state(c, name, from, to, now, actor));
}
