/* Ids of DEKs and KEKs: which are next, and how they are taken, each once and for good. */
#include "store/sqlite.h"

#include "base/error.h"

static envelope_status none_left(const struct connection *c)
{
    return error_raise(ENVELOPE_E_STORE_UNAVAILABLE,
                       "store %s: all 2^32 - 1 DEK ids are given out; new keys need a new store", c->sqlite->printed);
}

/* ---- what would be next ---- */

/* kek_uri NULL matches no KEK. A KEK id that was used once is never next again: AUTOINCREMENT. */
static envelope_status read_ids(struct connection *c, const char *kek_uri, struct store_ids *ids)
{
    static const char sql[] = "SELECT next_dek_id, (SELECT kek_id FROM encryption_kek WHERE uri = ?), "
                              "ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'encryption_kek'), 0) + 1 "
                              "FROM store_meta WHERE id = 1";
    struct query q = store_query(c, sql);
    store_query_text(&q, kek_uri);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (status)
        return status;
    int64_t next = found ? store_query_get_int(&q, 0, 1, (int64_t)UINT32_MAX + 1) : (int64_t)UINT32_MAX + 1;
    ids->dek_id = next > UINT32_MAX ? 0 : (uint32_t)next;
    ids->kek_is_there = !store_query_is_null(&q, 1);
    if (kek_uri)
        ids->kek_id = store_query_get_u32(&q, ids->kek_is_there ? 1 : 2);
    return store_query_sound(&q, "store_meta", 1);
}

envelope_status store_sqlite_next_ids(store *opened, const char *kek_uri, struct store_ids *ids)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_READ, &c);
    return status ? status : store_sqlite_end(c, read_ids(c, kek_uri, ids));
}

/* ---- reserving ---- */

static envelope_status reserve_dek_id(struct connection *c, uint32_t *dek_id)
{
    static const char sql[] = "UPDATE store_meta SET next_dek_id = next_dek_id + 1 "
                              "WHERE id = 1 AND next_dek_id <= 4294967295 RETURNING next_dek_id - 1";
    struct query q = store_query(c, sql);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (status)
        return status;
    if (!found)
        return none_left(c);
    *dek_id = store_query_get_u32(&q, 0);
    return store_query_sound(&q, "store_meta", 1);
}

/* Relaxed: the key that uses the id is written durably afterwards, and the log keeps their order. */
envelope_status store_sqlite_dek_id_reserve(store *opened, uint32_t *dek_id)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_WRITE_RELAXED, &c);
    if (status)
        return status;
    status = store_sqlite_end(c, reserve_dek_id(c, dek_id));
    if (status)
        *dek_id = 0;
    return status;
}

/* ---- taking ---- */

/* Ids come from the store, so a wrong one is a slip of the caller; the database would only say "constraint". */
static envelope_status check_reserved(struct connection *c, uint32_t dek_id)
{
    static const char sql[] = "SELECT (SELECT next_dek_id FROM store_meta WHERE id = 1) > ?1, "
                              "EXISTS (SELECT 1 FROM encryption_key_version WHERE dek_id = ?1)";
    struct query q = store_query(c, sql);
    store_query_int(&q, dek_id);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (status)
        return status;
    if (!store_query_get_int(&q, 0, 0, 1))
        return error_raise(ENVELOPE_E_ARGUMENT, "store %s: DEK id %u was never reserved", c->sqlite->printed,
                           (unsigned)dek_id);
    if (store_query_get_int(&q, 1, 0, 1))
        return error_raise(ENVELOPE_E_ARGUMENT, "store %s: DEK id %u is in use already", c->sqlite->printed,
                           (unsigned)dek_id);
    return store_query_sound(&q, "store_meta", 1);
}

static envelope_status take_next(struct connection *c, uint32_t dek_id)
{
    struct query q =
        store_query(c, "UPDATE store_meta SET next_dek_id = next_dek_id + 1 WHERE id = 1 AND next_dek_id = ?");
    store_query_int(&q, dek_id);
    int changed = 0;
    envelope_status status = store_query_run(&q, &changed);
    if (status || changed == 1)
        return status;
    return error_raise(ENVELOPE_E_STORE_CONFLICT, "store %s: somebody else took DEK id %u meanwhile",
                       c->sqlite->printed, (unsigned)dek_id);
}

static envelope_status kek_conflict(const struct connection *c, uint32_t kek_id)
{
    return error_raise(ENVELOPE_E_STORE_CONFLICT, "store %s: another KEK got the id %u meanwhile", c->sqlite->printed,
                       (unsigned)kek_id);
}

static envelope_status insert_kek(struct connection *c, uint32_t kek_id, const char *kek_uri, int64_t now)
{
    struct query q = store_query(c, "INSERT INTO encryption_kek (kek_id, uri, created) VALUES (?, ?, ?)");
    store_query_int(&q, kek_id);
    store_query_text(&q, kek_uri);
    store_query_int(&q, now);
    return store_query_run(&q, NULL);
}

static envelope_status check_kek(struct connection *c, uint32_t kek_id)
{
    struct query q = store_query(c, "SELECT 1 FROM encryption_kek WHERE kek_id = ?");
    store_query_int(&q, kek_id);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (!status && !found)
        return error_raise(ENVELOPE_E_KEK_UNKNOWN, "store %s: it has no KEK %u", c->sqlite->printed, (unsigned)kek_id);
    return status;
}

envelope_status store_sqlite_take_kek(struct connection *c, uint32_t kek_id, const char *kek_uri, int64_t now)
{
    struct store_ids ids = {0};
    if (!kek_uri)
        return check_kek(c, kek_id);
    envelope_status status = read_ids(c, kek_uri, &ids);
    if (status)
        return status;
    if (ids.kek_id != kek_id)
        return kek_conflict(c, kek_id);
    return ids.kek_is_there ? ENVELOPE_OK : insert_kek(c, kek_id, kek_uri, now);
}

envelope_status store_sqlite_take_ids(struct connection *c, const struct store_new_version *version)
{
    /* The KEK first: the last DEK id is next no more once it is taken. */
    envelope_status status = store_sqlite_take_kek(c, version->kek_id, version->kek_uri, version->now);
    if (status)
        return status;
    return version->dek_id_is_next ? take_next(c, version->dek_id) : check_reserved(c, version->dek_id);
}
