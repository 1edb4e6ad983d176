/* The history: who did what to which key, when, and how it ended. Rows are only ever added. */
#include "store/sqlite.h"

#include <stdlib.h>

#include "base/error.h"

envelope_status store_sqlite_add_history(struct connection *c, int64_t now, const char *what, const char *key,
                                         uint32_t version, const char *result, const struct store_actor *actor)
{
    static const char sql[] = "INSERT INTO encryption_key_history (happened, who, what, key_name, version, result, "
                              "detail) VALUES (?, ?, ?, ?, nullif(?, 0), ?, ?)";
    struct query q = store_query(c, sql);
    store_query_int(&q, now);
    store_query_text(&q, actor->who);
    store_query_text(&q, what);
    store_query_text(&q, key);
    store_query_int(&q, version);
    store_query_text(&q, result);
    store_query_text(&q, actor->detail);
    return store_query_run(&q, NULL);
}

envelope_status store_sqlite_history_add(store *opened, int64_t now, const char *what, const char *key,
                                         uint32_t version, const char *result, const struct store_actor *actor)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_WRITE, &c);
    return status ? status : store_sqlite_end(c, store_sqlite_add_history(c, now, what, key, version, result, actor));
}

static envelope_status read_row(struct query *q, struct store_history *row)
{
    *row = (struct store_history){0};
    row->id = store_query_get_int(q, 0, 1, INT64_MAX);
    row->when = store_query_get_int(q, 1, INT64_MIN, INT64_MAX);
    if (!store_query_is_null(q, 5))
        row->version = store_query_get_u32(q, 5);
    envelope_status status = store_query_copy_text(q, 2, &row->who);
    if (!status)
        status = store_query_copy_text(q, 3, &row->what);
    if (!status)
        status = store_query_copy_text(q, 4, &row->key);
    if (!status)
        status = store_query_copy_text(q, 6, &row->result);
    if (!status)
        status = store_query_copy_text(q, 7, &row->detail);
    return status ? status : store_query_sound(q, "encryption_key_history", row->id);
}

static envelope_status read_rows(struct query *q, struct store_history **rows, size_t *count)
{
    for (size_t capacity = 0;;) {
        bool found = false;
        envelope_status status = store_query_row(q, &found);
        if (status || !found)
            return status;
        if (*count == capacity) {
            capacity = capacity ? capacity * 2 : 32;
            struct store_history *more = realloc(*rows, capacity * sizeof *more);
            if (!more)
                return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory while the history is read");
            *rows = more;
        }
        /* Counted first: a row that was read half is freed with the others. */
        (*count)++;
        status = read_row(q, &(*rows)[*count - 1]);
        if (status)
            return status;
    }
}

#define HISTORY_COLUMNS "history_id, happened, who, what, key_name, version, result, detail"

static envelope_status read_all(struct connection *c, int64_t limit, struct store_history **rows, size_t *count)
{
    static const char sql[] = "SELECT " HISTORY_COLUMNS " FROM encryption_key_history ORDER BY history_id DESC LIMIT ?";
    struct query q = store_query(c, sql);
    store_query_int(&q, limit);
    return read_rows(&q, rows, count);
}

static envelope_status read_of_key(struct connection *c, const char *key, int64_t limit, struct store_history **rows,
                                   size_t *count)
{
    static const char sql[] = "SELECT " HISTORY_COLUMNS " FROM encryption_key_history WHERE key_name = ? "
                              "ORDER BY history_id DESC LIMIT ?";
    struct query q = store_query(c, sql);
    store_query_text(&q, key);
    store_query_int(&q, limit);
    return read_rows(&q, rows, count);
}

envelope_status store_sqlite_history_read(store *opened, const char *key, size_t limit, struct store_history **rows,
                                          size_t *count)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_READ, &c);
    if (status)
        return status;
    int64_t at_most = limit == 0 || limit > INT64_MAX ? -1 : (int64_t)limit;
    status = store_sqlite_end(c, key ? read_of_key(c, key, at_most, rows, count) : read_all(c, at_most, rows, count));
    if (status) {
        store_history_free(*rows, *count);
        *rows = NULL;
        *count = 0;
    }
    return status;
}
