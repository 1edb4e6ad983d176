/* Versions: find, list, move from one state to another. */
#include "store/sqlite.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* ---- reading ---- */

#define VERSION_COLUMNS                                                                                                \
    "v.dek_id, v.version, k.name, v.state, k.state, v.algorithm, v.kek_id, v.encrypted_key_blob, v.message_limit, "    \
    "v.messages_reserved, v.created, v.deactivated"

static envelope_status read_blob(struct query *q, int column, struct store_version *version)
{
    if (store_query_is_null(q, column)) {
        if (version->state != STORE_VERSION_DESTROYED && !q->malformed)
            q->malformed = "encrypted_key_blob";
        return ENVELOPE_OK;
    }
    const void *bytes = sqlite3_column_blob(q->statement, column);
    int length = sqlite3_column_bytes(q->statement, column);
    if (!bytes || length < 1 || length > STORE_BLOB_MAX) {
        if (!q->malformed)
            q->malformed = "encrypted_key_blob";
        return ENVELOPE_OK;
    }
    version->blob = malloc((size_t)length);
    if (!version->blob)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory while a version is read");
    memcpy(version->blob, bytes, (size_t)length);
    version->blob_length = (size_t)length;
    return ENVELOPE_OK;
}

/* Fills what it can; on an error the caller clears it. */
static envelope_status read_version(struct query *q, struct store_version *version)
{
    *version = (struct store_version){0};
    version->dek_id = store_query_get_u32(q, 0);
    version->version = store_query_get_u32(q, 1);
    const char *name = store_query_get_text(q, 2, KEY_NAME_MAX);
    memcpy(version->key_name, name, strlen(name) + 1);
    version->state = store_version_state_from_text(store_query_get_text(q, 3, KEY_NAME_MAX));
    version->key_state = store_key_state_from_text(store_query_get_text(q, 4, KEY_NAME_MAX));
    version->algorithm = store_algorithm_from_text(store_query_get_text(q, 5, KEY_NAME_MAX));
    version->kek_id = store_query_get_u32(q, 6);
    version->message_limit = (uint64_t)store_query_get_int(q, 8, 1, (int64_t)STORE_MESSAGE_LIMIT_MAX);
    version->messages_reserved = (uint64_t)store_query_get_int(q, 9, 0, (int64_t)version->message_limit);
    version->created = store_query_get_int(q, 10, INT64_MIN, INT64_MAX);
    if (!store_query_is_null(q, 11))
        version->deactivated = store_query_get_int(q, 11, INT64_MIN, INT64_MAX);
    if ((!version->state || !version->key_state || !version->algorithm) && !q->malformed)
        q->malformed = version->algorithm ? "state" : "algorithm";
    envelope_status status = read_blob(q, 7, version);
    return status ? status : store_query_sound(q, "encryption_key_version", version->dek_id);
}

envelope_status store_sqlite_get_version(struct connection *c, uint32_t dek_id, struct store_version *version)
{
    static const char sql[] = "SELECT " VERSION_COLUMNS " FROM encryption_key_version v "
                              "JOIN encryption_key k ON k.key_id = v.key_id WHERE v.dek_id = ?";
    struct query q = store_query(c, sql);
    store_query_int(&q, dek_id);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (status)
        return status;
    if (!found)
        return error_raise(ENVELOPE_E_VERSION_UNKNOWN,
                           "there is no version with DEK id %u in the store %s; the data may be of another store",
                           (unsigned)dek_id, c->sqlite->printed);
    return read_version(&q, version);
}

envelope_status store_sqlite_version_find(store *opened, uint32_t dek_id, struct store_version *version)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_READ, &c);
    if (status)
        return status;
    status = store_sqlite_end(c, store_sqlite_get_version(c, dek_id, version));
    if (status)
        store_version_clear(version);
    return status;
}

static envelope_status find_by_number(struct connection *c, const char *name, uint32_t number,
                                      struct store_version *version)
{
    static const char sql[] = "SELECT " VERSION_COLUMNS ", k.primary_version FROM encryption_key k "
                              "LEFT JOIN encryption_key_version v ON v.key_id = k.key_id "
                              "AND v.version = CASE ?2 WHEN 0 THEN k.primary_version ELSE ?2 END WHERE k.name = ?1";
    struct query q = store_query(c, sql);
    store_query_text(&q, name);
    store_query_int(&q, number);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (status)
        return status;
    if (!found)
        return store_sqlite_unknown_key(c, name);
    if (!store_query_is_null(&q, 0))
        return read_version(&q, version);
    if (number == 0)
        return error_raise(ENVELOPE_E_STORE_CORRUPT,
                           "store %s: key \"%s\" has lost its primary version; restore a backup", c->sqlite->printed,
                           name);
    return error_raise(ENVELOPE_E_VERSION_UNKNOWN, "key \"%s\" has no version %u; its primary is version %u", name,
                       (unsigned)number, (unsigned)store_query_get_u32(&q, 12));
}

envelope_status store_sqlite_version_of(store *opened, const char *name, uint32_t number, struct store_version *version)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_READ, &c);
    if (status)
        return status;
    status = store_sqlite_end(c, find_by_number(c, name, number, version));
    if (status)
        store_version_clear(version);
    return status;
}

static envelope_status read_versions(struct query *q, struct store_version **versions, size_t *count)
{
    for (size_t capacity = *count;;) {
        bool found = false;
        envelope_status status = store_query_row(q, &found);
        if (status || !found)
            return status;
        if (*count == capacity) {
            capacity = capacity ? capacity * 2 : 16;
            struct store_version *more = realloc(*versions, capacity * sizeof *more);
            if (!more)
                return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory while versions are listed");
            *versions = more;
        }
        /* Counted first: a version that was read half is freed with the others. */
        (*count)++;
        status = read_version(q, &(*versions)[*count - 1]);
        if (status)
            return status;
    }
}

static envelope_status list_all(struct connection *c, struct store_version **versions, size_t *count)
{
    static const char sql[] = "SELECT " VERSION_COLUMNS " FROM encryption_key_version v "
                              "JOIN encryption_key k ON k.key_id = v.key_id ORDER BY k.name, v.version";
    struct query q = store_query(c, sql);
    return read_versions(&q, versions, count);
}

static envelope_status list_of_key(struct connection *c, const char *name, struct store_version **versions,
                                   size_t *count)
{
    static const char sql[] = "SELECT " VERSION_COLUMNS " FROM encryption_key_version v "
                              "JOIN encryption_key k ON k.key_id = v.key_id WHERE k.name = ? ORDER BY v.version";
    struct query q = store_query(c, sql);
    store_query_text(&q, name);
    envelope_status status = read_versions(&q, versions, count);
    /* A key has one version at least. */
    return !status && *count == 0 ? store_sqlite_unknown_key(c, name) : status;
}

static envelope_status checked(envelope_status status, struct store_version **versions, size_t *count)
{
    if (status) {
        store_versions_free(*versions, *count);
        *versions = NULL;
        *count = 0;
    }
    return status;
}

envelope_status store_sqlite_versions(store *opened, const char *name, struct store_version **versions, size_t *count)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_READ, &c);
    if (status)
        return status;
    status = name ? list_of_key(c, name, versions, count) : list_all(c, versions, count);
    return checked(store_sqlite_end(c, status), versions, count);
}

static envelope_status page_of_key(struct connection *c, const char *name, uint32_t after, size_t limit,
                                   struct store_version **versions, size_t *count)
{
    static const char sql[] = "SELECT " VERSION_COLUMNS " FROM encryption_key_version v "
                              "JOIN encryption_key k ON k.key_id = v.key_id WHERE k.name = ? AND v.version > ? "
                              "ORDER BY v.version LIMIT ?";
    struct query q = store_query(c, sql);
    store_query_text(&q, name);
    store_query_int(&q, after);
    store_query_int(&q, (int64_t)limit);
    return read_versions(&q, versions, count);
}

/* CROSS JOIN: the keys in their order, of each its versions in theirs; so nothing is sorted for every page. */
static envelope_status page_of_keys(struct connection *c, const char *behind, const char *last, size_t limit,
                                    struct store_version **versions, size_t *count)
{
    static const char sql[] = "SELECT " VERSION_COLUMNS " FROM encryption_key k CROSS JOIN encryption_key_version v "
                              "ON v.key_id = k.key_id WHERE k.name > ? AND k.name <= ? "
                              "ORDER BY k.name, v.version LIMIT ?";
    struct query q = store_query(c, sql);
    store_query_text(&q, behind);
    store_query_text(&q, last);
    store_query_int(&q, (int64_t)limit);
    return read_versions(&q, versions, count);
}

static envelope_status page(struct connection *c, const char *first, uint32_t after, const char *last, size_t limit,
                            struct store_version **versions, size_t *count)
{
    envelope_status status = page_of_key(c, first, after, limit, versions, count);
    return status || *count == limit ? status : page_of_keys(c, first, last, limit - *count, versions, count);
}

envelope_status store_sqlite_versions_page(store *opened, const char *first, uint32_t after, const char *last,
                                           size_t limit, struct store_version **versions, size_t *count)
{
    struct connection *c;
    size_t at_most = limit < INT64_MAX ? limit : INT64_MAX;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_SNAPSHOT, &c);
    if (status)
        return status;
    return checked(store_sqlite_end(c, page(c, first, after, last, at_most, versions, count)), versions, count);
}

/* ---- states ---- */

static envelope_status is_primary(struct connection *c, uint32_t dek_id, bool *primary)
{
    static const char sql[] = "SELECT k.primary_version = v.version FROM encryption_key_version v "
                              "JOIN encryption_key k ON k.key_id = v.key_id WHERE v.dek_id = ?";
    struct query q = store_query(c, sql);
    store_query_int(&q, dek_id);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    *primary = found && store_query_get_int(&q, 0, 0, 1) == 1;
    return status;
}

static envelope_status update_state(struct connection *c, uint32_t dek_id, enum store_version_state to, int64_t now)
{
    static const char sql[] = "UPDATE encryption_key_version SET state = ?1, "
                              "deactivated = CASE WHEN ?1 = 'deactivated' AND deactivated IS NULL THEN ?2 "
                              "WHEN ?1 = 'active' THEN NULL ELSE deactivated END WHERE dek_id = ?3";
    struct query q = store_query(c, sql);
    store_query_text(&q, store_version_state_text(to));
    store_query_int(&q, now);
    store_query_int(&q, dek_id);
    return store_query_run(&q, NULL);
}

/* The blob's bytes in the file become zeros at once, and the row loses it. */
static envelope_status update_destroyed(struct connection *c, uint32_t dek_id)
{
    static const char overwrite[] =
        "UPDATE encryption_key_version SET encrypted_key_blob = zeroblob(length(encrypted_key_blob)) WHERE dek_id = ?";
    static const char destroy[] =
        "UPDATE encryption_key_version SET state = 'destroyed', encrypted_key_blob = NULL WHERE dek_id = ?";
    struct query q = store_query(c, overwrite);
    store_query_int(&q, dek_id);
    envelope_status status = store_query_run(&q, NULL);
    if (status)
        return status;
    q = store_query(c, destroy);
    store_query_int(&q, dek_id);
    return store_query_run(&q, NULL);
}

static envelope_status change_state(struct connection *c, const struct store_version *version,
                                    enum store_version_state from, enum store_version_state to, int64_t now,
                                    const struct store_actor *actor)
{
    struct store_version_place place = {
        .number = version->version, .key_name = version->key_name, .key_state = version->key_state};
    envelope_status status = is_primary(c, version->dek_id, &place.is_primary);
    if (status)
        return status;
    if (version->state != from)
        return error_raise(ENVELOPE_E_STORE_CONFLICT,
                           "version %u of key \"%s\" is %s, not %s; somebody else changed it",
                           (unsigned)version->version, version->key_name, store_version_state_text(version->state),
                           store_version_state_text(from));
    status = store_version_step_allowed(from, to, &place);
    if (!status)
        status = to == STORE_VERSION_DESTROYED ? update_destroyed(c, version->dek_id)
                                               : update_state(c, version->dek_id, to, now);
    return status ? status
                  : store_sqlite_note(c, now, store_version_step_text(from, to), version->key_name, version->version,
                                      actor);
}

static envelope_status set_state(struct connection *c, uint32_t dek_id, enum store_version_state from,
                                 enum store_version_state to, int64_t now, const struct store_actor *actor)
{
    struct store_version version = {0};
    envelope_status status = store_sqlite_get_version(c, dek_id, &version);
    if (!status)
        status = change_state(c, &version, from, to, now, actor);
    store_version_clear(&version);
    return status;
}

/*
 * The log may still hold the page with the blob: move it over and cut the log off. A reader that is in the way for
 * longer than the deadline only delays that until the next checkpoint; the version is destroyed all the same.
 */
static void empty_log(struct sqlite_store *sqlite)
{
    struct connection *c;
    if (store_sqlite_begin(sqlite, TRANSACTION_READ, &c))
        return;
    int rc = sqlite3_wal_checkpoint_v2(c->db, "main", SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    if (rc != SQLITE_OK && (rc & 0xff) != SQLITE_BUSY)
        c->broken = true;
    store_sqlite_end(c, ENVELOPE_OK);
}

envelope_status store_sqlite_version_set_state(store *opened, uint32_t dek_id, enum store_version_state from,
                                               enum store_version_state to, int64_t now,
                                               const struct store_actor *actor)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_WRITE, &c);
    if (status)
        return status;
    status = store_sqlite_end(c, set_state(c, dek_id, from, to, now, actor));
    if (!status && to == STORE_VERSION_DESTROYED)
        empty_log(store_sqlite_of(opened));
    return status;
}
