/* Transactions, and statements that are prepared once per connection. */
#include "store/sqlite.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* ---- statements ---- */

struct query store_query(struct connection *c, const char *sql)
{
    struct query q = {.c = c, .rc = SQLITE_OK};
    size_t i = 0;
    while (i < STORE_SQLITE_STATEMENTS && c->statements[i].sql && c->statements[i].sql != sql)
        i++;
    if (i == STORE_SQLITE_STATEMENTS) {
        q.rc = SQLITE_INTERNAL;
        return q;
    }
    if (!c->statements[i].sql) {
        q.rc = sqlite3_prepare_v3(c->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &c->statements[i].statement, NULL);
        if (q.rc != SQLITE_OK)
            return q;
        c->statements[i].sql = sql;
    }
    q.statement = c->statements[i].statement;
    sqlite3_reset(q.statement);
    sqlite3_clear_bindings(q.statement);
    return q;
}

void store_query_int(struct query *q, int64_t value)
{
    if (q->rc == SQLITE_OK)
        q->rc = sqlite3_bind_int64(q->statement, ++q->bound, value);
}

void store_query_text(struct query *q, const char *value)
{
    if (q->rc == SQLITE_OK)
        q->rc = sqlite3_bind_text(q->statement, ++q->bound, value, -1, SQLITE_STATIC);
}

void store_query_blob(struct query *q, const uint8_t *bytes, size_t length)
{
    if (q->rc == SQLITE_OK)
        q->rc = sqlite3_bind_blob64(q->statement, ++q->bound, bytes, length, SQLITE_STATIC);
}

envelope_status store_query_row(struct query *q, bool *found)
{
    *found = false;
    if (q->rc == SQLITE_OK || q->rc == SQLITE_ROW)
        q->rc = sqlite3_step(q->statement);
    *found = q->rc == SQLITE_ROW;
    if (q->rc == SQLITE_ROW || q->rc == SQLITE_DONE)
        return ENVELOPE_OK;
    return store_sqlite_error(q->c, q->rc, "read it");
}

envelope_status store_query_run(struct query *q, int *changed)
{
    if (q->rc == SQLITE_OK)
        q->rc = sqlite3_step(q->statement);
    if (q->rc != SQLITE_DONE)
        return store_sqlite_error(q->c, q->rc, "write to it");
    if (changed)
        *changed = sqlite3_changes(q->c->db);
    sqlite3_reset(q->statement);
    return ENVELOPE_OK;
}

static void malformed(struct query *q, int column)
{
    if (!q->malformed)
        q->malformed = sqlite3_column_name(q->statement, column);
}

int64_t store_query_get_int(struct query *q, int column, int64_t min, int64_t max)
{
    int64_t value = sqlite3_column_int64(q->statement, column);
    if (sqlite3_column_type(q->statement, column) == SQLITE_INTEGER && value >= min && value <= max)
        return value;
    malformed(q, column);
    return min;
}

uint32_t store_query_get_u32(struct query *q, int column)
{
    return (uint32_t)store_query_get_int(q, column, 1, UINT32_MAX);
}

const char *store_query_get_text(struct query *q, int column, size_t max_length)
{
    if (sqlite3_column_type(q->statement, column) == SQLITE_TEXT) {
        const char *text = (const char *)sqlite3_column_text(q->statement, column);
        /* A NUL inside would make it another text to us than to the database. */
        if (text && strlen(text) <= max_length && strlen(text) == (size_t)sqlite3_column_bytes(q->statement, column))
            return text;
    }
    malformed(q, column);
    return "";
}

bool store_query_is_null(struct query *q, int column)
{
    return sqlite3_column_type(q->statement, column) == SQLITE_NULL;
}

envelope_status store_query_copy_text(struct query *q, int column, char **copy)
{
    *copy = NULL;
    if (store_query_is_null(q, column))
        return ENVELOPE_OK;
    *copy = text_copy(store_query_get_text(q, column, SIZE_MAX));
    return *copy ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

envelope_status store_query_sound(const struct query *q, const char *table, int64_t id)
{
    if (!q->malformed)
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_STORE_CORRUPT,
                       "store %s: row %lld of %s has an impossible value in column \"%s\"; restore a backup",
                       q->c->sqlite->printed, (long long)id, table, q->malformed);
}

envelope_status store_sqlite_execute(struct connection *c, const char *sql)
{
    int rc = sqlite3_exec(c->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? ENVELOPE_OK : store_sqlite_error(c, rc, "set it up");
}

/* ---- transactions ---- */

static bool writes(enum transaction kind)
{
    return kind == TRANSACTION_WRITE || kind == TRANSACTION_WRITE_RELAXED;
}

static envelope_status set_synchronous(struct connection *c, bool relaxed)
{
    if (c->relaxed == relaxed)
        return ENVELOPE_OK;
    envelope_status status =
        store_sqlite_execute(c, relaxed ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL");
    if (!status)
        c->relaxed = relaxed;
    return status;
}

static envelope_status begin_statement(struct connection *c, const char *sql)
{
    struct query q = store_query(c, sql);
    if (q.rc == SQLITE_OK)
        q.rc = sqlite3_step(q.statement);
    if (q.rc == SQLITE_DONE) {
        sqlite3_reset(q.statement);
        return ENVELOPE_OK;
    }
    return store_sqlite_error(c, q.rc, "begin a change");
}

envelope_status store_sqlite_start(struct connection *c, enum transaction kind)
{
    static const char begin_read[] = "BEGIN";
    static const char begin_write[] = "BEGIN IMMEDIATE";
    c->kind = kind;
    c->waited = 0;
    if (kind == TRANSACTION_READ)
        return ENVELOPE_OK;
    if (kind == TRANSACTION_SNAPSHOT)
        return begin_statement(c, begin_read);
    if (c->read_only)
        return error_raise(ENVELOPE_E_STORE_READ_ONLY,
                           "store %s: it can only be read here (file, directory or file system is read-only); nothing "
                           "was changed",
                           c->sqlite->printed);
    envelope_status status = set_synchronous(c, kind == TRANSACTION_WRITE_RELAXED);
    return status ? status : begin_statement(c, begin_write);
}

/* Statements let go of rows, and of what was bound to them: the caller's memory ends with the call. */
static void release_statements(struct connection *c)
{
    for (size_t i = 0; i < STORE_SQLITE_STATEMENTS && c->statements[i].sql; i++) {
        sqlite3_reset(c->statements[i].statement);
        sqlite3_clear_bindings(c->statements[i].statement);
    }
}

envelope_status store_sqlite_finish(struct connection *c, envelope_status status)
{
    static const char commit[] = "COMMIT";
    release_statements(c);
    if (!sqlite3_get_autocommit(c->db)) {
        if (status == ENVELOPE_OK) {
            struct query q = store_query(c, commit);
            int rc = q.rc == SQLITE_OK ? sqlite3_step(q.statement) : q.rc;
            if (rc != SQLITE_DONE)
                status = store_sqlite_error(c, rc, "complete a change");
            sqlite3_reset(q.statement);
        }
        /* Some errors have rolled back by themselves; whatever is left open goes now. */
        if (!sqlite3_get_autocommit(c->db) && sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL) != SQLITE_OK)
            c->broken = true;
    } else if (status == ENVELOPE_OK && c->kind != TRANSACTION_READ) {
        c->broken = true;
        status = error_raise(ENVELOPE_E_INTERNAL, "store %s: a transaction ended by itself", c->sqlite->printed);
    }
    return status;
}

static envelope_status connect_again(struct sqlite_store *sqlite, struct connection **connection)
{
    uint8_t id[STORE_ID_SIZE];
    envelope_status status = store_sqlite_connect(sqlite, false, NULL, connection);
    if (status)
        return status;
    status = store_sqlite_read_id(*connection, id);
    if (!status && memcmp(id, sqlite->base.id, STORE_ID_SIZE) != 0)
        status = error_raise(ENVELOPE_E_STORE_UNAVAILABLE,
                             "store %s: the file was replaced by another store while this process was using it; "
                             "restart the process if that is meant",
                             sqlite->printed);
    if (status) {
        store_sqlite_disconnect(*connection);
        *connection = NULL;
    }
    return status;
}

envelope_status store_sqlite_begin(struct sqlite_store *sqlite, enum transaction kind, struct connection **connection)
{
    struct connection *c = NULL;
    envelope_status status = store_sqlite_enter(sqlite, &c);
    if (status)
        return status;
    /* A write into a file that was deleted or replaced would be lost; and what was read-only may not be any more. */
    if (c && (!store_sqlite_is_current(c) || (writes(kind) && !store_sqlite_may_write(c)))) {
        store_sqlite_drop_idle(sqlite);
        store_sqlite_disconnect(c);
        c = NULL;
    }
    if (!c)
        status = connect_again(sqlite, &c);
    if (!status)
        status = store_sqlite_start(c, kind);
    if (status == ENVELOPE_E_STORE_READ_ONLY && c && !c->read_only) {
        /* The file may be written but its log could not be yet: SQLite has adapted the log's mode while opening it. */
        store_sqlite_disconnect(c);
        status = connect_again(sqlite, &c);
        if (!status)
            status = store_sqlite_start(c, kind);
    }
    if (status) {
        store_sqlite_leave(sqlite, c);
        return status;
    }
    *connection = c;
    return ENVELOPE_OK;
}

envelope_status store_sqlite_end(struct connection *connection, envelope_status status)
{
    struct sqlite_store *sqlite = connection->sqlite;
    status = store_sqlite_finish(connection, status);
    if (status == ENVELOPE_OK && connection->immutable && !store_sqlite_is_current(connection)) {
        connection->broken = true;
        status = error_raise(ENVELOPE_E_STORE_BUSY, "store %s: it was changed while it was read; try again",
                             sqlite->printed);
    }
    if (connection->broken)
        store_sqlite_drop_idle(sqlite);
    store_sqlite_leave(sqlite, connection);
    return status;
}
