/* Moving versions and keys from one KEK to another, many in one transaction. */
#include "store/sqlite.h"

#include "base/error.h"

/* One transaction's moves; each row has an outcome of its own, unless the database itself fails. */
struct moving {
    struct connection *c;
    size_t moved;
    uint32_t kek_id; /* this one was looked at last */
    const char *kek_uri;
    envelope_status kek_status;
};

/* What is about one row only, and leaves the others to be moved. */
static bool is_of_row(envelope_status status)
{
    return status == ENVELOPE_E_STORE_CONFLICT || status == ENVELOPE_E_VERSION_STATE ||
           status == ENVELOPE_E_VERSION_UNKNOWN || status == ENVELOPE_E_KEY_STATE || status == ENVELOPE_E_KEY_UNKNOWN ||
           status == ENVELOPE_E_KEK_UNKNOWN;
}

/* Rows that follow each other mostly move to the same KEK. One that failed is looked at again, for its error. */
static envelope_status take_kek(struct moving *moving, uint32_t kek_id, const char *uri, int64_t now)
{
    if (moving->kek_id == kek_id && moving->kek_uri == uri && !moving->kek_status)
        return ENVELOPE_OK;
    moving->kek_id = kek_id;
    moving->kek_uri = uri;
    moving->kek_status = store_sqlite_take_kek(moving->c, kek_id, uri, now);
    return moving->kek_status;
}

/* The change counter once for all. Where nothing moved, a KEK's row that was made for it goes again. */
static envelope_status finish(struct moving *moving, envelope_status status)
{
    if (!status && moving->moved > 0)
        status = store_sqlite_raise_counter(moving->c);
    if (status || moving->moved > 0)
        return store_sqlite_end(moving->c, status);
    (void)store_sqlite_end(moving->c, ENVELOPE_E_STORE_CONFLICT); /* rolls back; the rows have their own outcomes */
    return ENVELOPE_OK;
}

/* ---- versions ---- */

static envelope_status compare_and_set(struct connection *c, const struct store_version_move *move, int *moved)
{
    static const char sql[] = "UPDATE encryption_key_version SET kek_id = ?, encrypted_key_blob = ? "
                              "WHERE dek_id = ? AND kek_id = ? AND encrypted_key_blob = ?";
    struct query q = store_query(c, sql);
    store_query_int(&q, move->kek_id);
    store_query_blob(&q, move->blob, move->blob_length);
    store_query_int(&q, move->dek_id);
    store_query_int(&q, move->from_kek_id);
    store_query_blob(&q, move->from_blob, move->from_length);
    return store_query_run(&q, moved);
}

/* As store_sqlite_add_history(), with the names that the row has: to ask for them first would take another statement.
 */
static envelope_status note_version(struct connection *c, const struct store_version_move *move)
{
    static const char sql[] =
        "INSERT INTO encryption_key_history (happened, who, what, key_name, version, result, detail) "
        "SELECT ?, ?, 'rewrap', k.name, v.version, 'ok', ? FROM encryption_key_version v "
        "JOIN encryption_key k ON k.key_id = v.key_id WHERE v.dek_id = ?";
    struct query q = store_query(c, sql);
    store_query_int(&q, move->now);
    store_query_text(&q, move->actor.who);
    store_query_text(&q, move->actor.detail);
    store_query_int(&q, move->dek_id);
    return store_query_run(&q, NULL);
}

static envelope_status why_not(struct connection *c, const struct store_version_move *move)
{
    struct store_version version = {0};
    envelope_status status = store_sqlite_get_version(c, move->dek_id, &version);
    if (!status && version.state == STORE_VERSION_DESTROYED)
        status =
            error_raise(ENVELOPE_E_VERSION_STATE, "version %u of key \"%s\" is destroyed: there is nothing to rewrap",
                        (unsigned)version.version, version.key_name);
    else if (!status)
        status = error_raise(ENVELOPE_E_STORE_CONFLICT,
                             "version %u of key \"%s\" was rewrapped by somebody else: it is under KEK %u",
                             (unsigned)version.version, version.key_name, (unsigned)version.kek_id);
    store_version_clear(&version);
    return status;
}

static envelope_status move_version(struct moving *moving, const struct store_version_move *move)
{
    int moved = 0;
    envelope_status status = take_kek(moving, move->kek_id, move->kek_uri, move->now);
    if (!status)
        status = compare_and_set(moving->c, move, &moved);
    if (!status && moved == 0)
        status = why_not(moving->c, move);
    return status ? status : note_version(moving->c, move);
}

envelope_status store_sqlite_versions_rewrap(store *opened, struct store_version_move *moves, size_t count)
{
    struct moving moving = {0};
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_WRITE, &moving.c);
    if (status)
        return status;
    for (size_t i = 0; i < count && !status; i++) {
        moves[i].status = move_version(&moving, &moves[i]);
        moving.moved += !moves[i].status;
        status = is_of_row(moves[i].status) ? ENVELOPE_OK : moves[i].status;
    }
    return finish(&moving, status);
}

/* ---- keys ---- */

static envelope_status compare_and_set_key(struct connection *c, const struct store_key_move *move, int *moved)
{
    static const char sql[] =
        "UPDATE encryption_key SET kek_id = ? WHERE name = ? AND kek_id = ? AND state <> 'destroyed'";
    struct query q = store_query(c, sql);
    store_query_int(&q, move->kek_id);
    store_query_text(&q, move->name);
    store_query_int(&q, move->from_kek_id);
    return store_query_run(&q, moved);
}

static envelope_status why_not_key(struct connection *c, const struct store_key_move *move)
{
    struct store_key key;
    int64_t key_id = 0;
    bool found = false;
    envelope_status status = store_sqlite_get_key(c, move->name, &key_id, &key, &found);
    if (status)
        return status;
    if (!found)
        return store_sqlite_unknown_key(c, move->name);
    if (key.state == STORE_KEY_DESTROYED)
        return error_raise(ENVELOPE_E_KEY_STATE, "key \"%s\" is destroyed: it gets no new KEK", move->name);
    return error_raise(ENVELOPE_E_STORE_CONFLICT, "key \"%s\" is under KEK %u, not %u; somebody else moved it",
                       move->name, (unsigned)key.kek_id, (unsigned)move->from_kek_id);
}

static envelope_status move_key(struct moving *moving, const struct store_key_move *move)
{
    int moved = 0;
    envelope_status status = take_kek(moving, move->kek_id, move->kek_uri, move->now);
    if (!status)
        status = compare_and_set_key(moving->c, move, &moved);
    if (!status && moved == 0)
        status = why_not_key(moving->c, move);
    return status ? status
                  : store_sqlite_add_history(moving->c, move->now, "set-kek", move->name, 0, "ok", &move->actor);
}

envelope_status store_sqlite_keys_set_kek(store *opened, struct store_key_move *moves, size_t count)
{
    struct moving moving = {0};
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_WRITE, &moving.c);
    if (status)
        return status;
    for (size_t i = 0; i < count && !status; i++) {
        moves[i].status = move_key(&moving, &moves[i]);
        moving.moved += !moves[i].status;
        status = is_of_row(moves[i].status) ? ENVELOPE_OK : moves[i].status;
    }
    return finish(&moving, status);
}
