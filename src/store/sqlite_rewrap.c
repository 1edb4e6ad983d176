/* Moving versions and keys from one KEK to another. */
#include "store/sqlite.h"

#include <string.h>

#include "base/error.h"

envelope_status store_sqlite_check_kek(struct connection *c, uint32_t kek_id)
{
    struct query q = store_query(c, "SELECT 1 FROM encryption_kek WHERE kek_id = ?");
    store_query_int(&q, kek_id);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (!status && !found)
        return error_raise(ENVELOPE_E_KEK_UNKNOWN, "store %s: it has no KEK %u", c->sqlite->printed, (unsigned)kek_id);
    return status;
}

static envelope_status update_blob(struct connection *c, uint32_t dek_id, const struct store_rewrap *move)
{
    struct query q =
        store_query(c, "UPDATE encryption_key_version SET kek_id = ?, encrypted_key_blob = ? WHERE dek_id = ?");
    store_query_int(&q, move->kek_id);
    store_query_blob(&q, move->blob, move->blob_length);
    store_query_int(&q, dek_id);
    return store_query_run(&q, NULL);
}

static bool is_as_read(const struct store_version *version, const struct store_rewrap *move)
{
    return version->kek_id == move->from_kek_id && version->blob_length == move->from_length &&
           memcmp(version->blob, move->from_blob, move->from_length) == 0;
}

static envelope_status rewrap(struct connection *c, const struct store_version *version,
                              const struct store_rewrap *move, const struct store_actor *actor)
{
    if (version->state == STORE_VERSION_DESTROYED)
        return error_raise(ENVELOPE_E_VERSION_STATE,
                           "version %u of key \"%s\" is destroyed: there is nothing to rewrap",
                           (unsigned)version->version, version->key_name);
    if (!is_as_read(version, move))
        return error_raise(ENVELOPE_E_STORE_CONFLICT,
                           "version %u of key \"%s\" was rewrapped by somebody else: it is under KEK %u",
                           (unsigned)version->version, version->key_name, (unsigned)version->kek_id);
    envelope_status status = store_sqlite_check_kek(c, move->kek_id);
    if (!status)
        status = update_blob(c, version->dek_id, move);
    return status ? status : store_sqlite_note(c, move->now, "rewrap", version->key_name, version->version, actor);
}

envelope_status store_sqlite_version_rewrap(store *opened, uint32_t dek_id, const struct store_rewrap *move,
                                            const struct store_actor *actor)
{
    struct connection *c;
    struct store_version version = {0};
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_WRITE, &c);
    if (status)
        return status;
    status = store_sqlite_get_version(c, dek_id, &version);
    if (!status)
        status = rewrap(c, &version, move, actor);
    status = store_sqlite_end(c, status);
    store_version_clear(&version);
    return status;
}

static envelope_status update_key(struct connection *c, int64_t key_id, uint32_t kek_id)
{
    struct query q = store_query(c, "UPDATE encryption_key SET kek_id = ? WHERE key_id = ?");
    store_query_int(&q, kek_id);
    store_query_int(&q, key_id);
    return store_query_run(&q, NULL);
}

static envelope_status set_kek(struct connection *c, const char *name, uint32_t from_kek_id, uint32_t kek_id,
                               int64_t now, const struct store_actor *actor)
{
    struct store_key key;
    int64_t key_id = 0;
    bool found = false;
    envelope_status status = store_sqlite_get_key(c, name, &key_id, &key, &found);
    if (status)
        return status;
    if (!found)
        return store_sqlite_unknown_key(c, name);
    if (key.state == STORE_KEY_DESTROYED)
        return error_raise(ENVELOPE_E_KEY_STATE, "key \"%s\" is destroyed: it gets no new KEK", name);
    if (key.kek_id != from_kek_id)
        return error_raise(ENVELOPE_E_STORE_CONFLICT, "key \"%s\" is under KEK %u, not %u; somebody else moved it",
                           name, (unsigned)key.kek_id, (unsigned)from_kek_id);
    status = store_sqlite_check_kek(c, kek_id);
    if (!status)
        status = update_key(c, key_id, kek_id);
    return status ? status : store_sqlite_note(c, now, "set-kek", name, 0, actor);
}

envelope_status store_sqlite_key_set_kek(store *opened, const char *name, uint32_t from_kek_id, uint32_t kek_id,
                                         int64_t now, const struct store_actor *actor)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_WRITE, &c);
    return status ? status : store_sqlite_end(c, set_kek(c, name, from_kek_id, kek_id, now, actor));
}
