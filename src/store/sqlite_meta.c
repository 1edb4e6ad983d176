/* What belongs to the store as a whole: the change counter and the KEKs. */
#include "store/sqlite.h"

#include <stdlib.h>

#include "base/error.h"

/* ---- change counter ---- */

static envelope_status read_counter(struct connection *c, uint64_t *counter)
{
    static const char sql[] = "SELECT change_counter FROM store_meta WHERE id = 1";
    struct query q = store_query(c, sql);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (status)
        return status;
    if (!found)
        return error_raise(ENVELOPE_E_STORE_CORRUPT, "store %s: table store_meta is empty; restore a backup",
                           c->sqlite->printed);
    *counter = (uint64_t)store_query_get_int(&q, 0, 1, INT64_MAX);
    return store_query_sound(&q, "store_meta", 1);
}

envelope_status store_sqlite_change_counter(store *opened, uint64_t *counter)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_READ, &c);
    return status ? status : store_sqlite_end(c, read_counter(c, counter));
}

envelope_status store_sqlite_raise_counter(struct connection *c)
{
    static const char sql[] = "UPDATE store_meta SET change_counter = change_counter + 1 WHERE id = 1";
    struct query q = store_query(c, sql);
    int changed = 0;
    envelope_status status = store_query_run(&q, &changed);
    if (!status && changed != 1)
        return error_raise(ENVELOPE_E_STORE_CORRUPT, "store %s: table store_meta is empty; restore a backup",
                           c->sqlite->printed);
    return status;
}

envelope_status store_sqlite_note(struct connection *c, int64_t now, const char *what, const char *key,
                                  uint32_t version, const struct store_actor *actor)
{
    envelope_status status = store_sqlite_add_history(c, now, what, key, version, "ok", actor);
    return status ? status : store_sqlite_raise_counter(c);
}

/* ---- KEKs ---- */

static envelope_status find_kek_by_uri(struct connection *c, const char *uri, uint32_t *kek_id)
{
    static const char sql[] = "SELECT kek_id FROM encryption_kek WHERE uri = ?";
    struct query q = store_query(c, sql);
    store_query_text(&q, uri);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    *kek_id = 0;
    if (status || !found)
        return status;
    *kek_id = store_query_get_u32(&q, 0);
    return store_query_sound(&q, "encryption_kek", *kek_id);
}

static envelope_status insert_kek(struct connection *c, const char *uri, int64_t now, uint32_t *kek_id)
{
    static const char sql[] = "INSERT INTO encryption_kek (uri, created) VALUES (?, ?)";
    /* Once more, now that nobody else can write. */
    envelope_status status = find_kek_by_uri(c, uri, kek_id);
    if (status || *kek_id)
        return status;
    struct query q = store_query(c, sql);
    store_query_text(&q, uri);
    store_query_int(&q, now);
    status = store_query_run(&q, NULL);
    if (!status)
        *kek_id = (uint32_t)sqlite3_last_insert_rowid(c->db);
    return status;
}

envelope_status store_sqlite_kek_ensure(store *opened, const char *uri, int64_t now, uint32_t *kek_id)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_READ, &c);
    if (!status)
        status = store_sqlite_end(c, find_kek_by_uri(c, uri, kek_id));
    if (status || *kek_id)
        return status;
    status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_WRITE, &c);
    return status ? status : store_sqlite_end(c, insert_kek(c, uri, now, kek_id));
}

static envelope_status find_kek(struct connection *c, uint32_t kek_id, struct store_kek *kek)
{
    static const char sql[] = "SELECT uri, created FROM encryption_kek WHERE kek_id = ?";
    struct query q = store_query(c, sql);
    store_query_int(&q, kek_id);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (status)
        return status;
    if (!found)
        return error_raise(ENVELOPE_E_KEK_UNKNOWN, "store %s: it has no KEK %u", c->sqlite->printed, (unsigned)kek_id);
    kek->kek_id = kek_id;
    kek->created = store_query_get_int(&q, 1, INT64_MIN, INT64_MAX);
    status = store_query_copy_text(&q, 0, &kek->uri);
    return status ? status : store_query_sound(&q, "encryption_kek", kek_id);
}

envelope_status store_sqlite_kek_find(store *opened, uint32_t kek_id, struct store_kek *kek)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_READ, &c);
    if (status)
        return status;
    status = store_sqlite_end(c, find_kek(c, kek_id, kek));
    if (status)
        store_kek_clear(kek);
    return status;
}
