/* Whose database a file is, and the way from an older schema to ours: numbered steps, each one transaction. */
#include "store/sqlite.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/error.h"

static envelope_status read_number(struct connection *c, const char *sql, int64_t *number)
{
    struct query q = store_query(c, sql);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (!status && !found)
        return error_raise(ENVELOPE_E_INTERNAL, "store %s: no answer to \"%s\"", c->sqlite->printed, sql);
    if (!status)
        *number = store_query_get_int(&q, 0, INT64_MIN, INT64_MAX);
    sqlite3_reset(q.statement);
    return status;
}

static const char read_application[] = "PRAGMA application_id";
static const char read_schema[] = "PRAGMA user_version";
static const char count_tables[] = "SELECT count(*) FROM sqlite_schema";

struct stamp {
    int64_t application, schema, tables;
};

/* In one transaction: another process may be making the store just now, and half of what it made is no store. */
static envelope_status read_stamp(struct connection *c, struct stamp *stamp)
{
    envelope_status status = store_sqlite_start(c, TRANSACTION_SNAPSHOT);
    if (status)
        return status;
    status = read_number(c, read_application, &stamp->application);
    if (!status)
        status = read_number(c, read_schema, &stamp->schema);
    if (!status)
        status = read_number(c, count_tables, &stamp->tables);
    return store_sqlite_finish(c, status);
}

envelope_status store_sqlite_check_schema(struct connection *c, size_t count, bool create, int *schema)
{
    struct stamp stamp = {0};
    envelope_status status = read_stamp(c, &stamp);
    if (status)
        return status;
    *schema = 0;
    if (stamp.application == 0 && stamp.schema == 0 && stamp.tables == 0) {
        if (create)
            return ENVELOPE_OK;
        return error_raise(ENVELOPE_E_STORE_UNAVAILABLE,
                           "store %s: the file is empty, no store was made in it; make one with `envelope init`",
                           c->sqlite->printed);
    }
    if (stamp.application != STORE_SQLITE_APPLICATION_ID)
        return error_raise(ENVELOPE_E_STORE_CORRUPT,
                           "store %s: this is the database of another application (application_id 0x%08x, ours is "
                           "0x%08x); check the path",
                           c->sqlite->printed, (unsigned)stamp.application, (unsigned)STORE_SQLITE_APPLICATION_ID);
    if (stamp.schema < 1 || stamp.schema > (int64_t)count)
        return error_raise(ENVELOPE_E_STORE_SCHEMA,
                           "store %s: its schema is number %lld, this Envelope knows up to %zu; upgrade Envelope on "
                           "this machine",
                           c->sqlite->printed, (long long)stamp.schema, count);
    *schema = (int)stamp.schema;
    return ENVELOPE_OK;
}

/* The one row of store_meta: a store id that is like no other's. */
static envelope_status insert_meta(struct connection *c)
{
    static const char sql[] = "INSERT INTO store_meta (id, store_id, change_counter, next_dek_id, created) "
                              "VALUES (1, ?, 1, 1, ?)";
    uint8_t id[STORE_ID_SIZE];
    ssize_t got;
    do
        got = getrandom(id, sizeof id, 0);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)sizeof id)
        return error_raise(ENVELOPE_E_INTERNAL, "store %s: the system gives no random bytes for its id",
                           c->sqlite->printed);
    struct query q = store_query(c, sql);
    store_query_blob(&q, id, sizeof id);
    store_query_int(&q, clock_wall());
    return store_query_run(&q, NULL);
}

static envelope_status apply(struct connection *c, const struct store_migration *migration, bool *done)
{
    /* Another process may have been first. */
    int64_t schema = 0;
    envelope_status status = read_number(c, read_schema, &schema);
    if (status || schema >= migration->number)
        return status;
    status = store_sqlite_execute(c, migration->sql);
    if (!status && migration->number == 1)
        status = insert_meta(c);
    char stamp[96];
    snprintf(stamp, sizeof stamp, "PRAGMA application_id = %d; PRAGMA user_version = %d;",
             (int)STORE_SQLITE_APPLICATION_ID, migration->number);
    if (!status)
        status = store_sqlite_execute(c, stamp);
    *done = !status;
    return status;
}

envelope_status store_sqlite_migrate(struct connection *c, const struct store_migration *migrations, size_t count,
                                     bool *created)
{
    for (size_t i = 0; i < count; i++) {
        bool done = false;
        envelope_status status = store_sqlite_start(c, TRANSACTION_WRITE);
        if (!status)
            status = store_sqlite_finish(c, apply(c, &migrations[i], &done));
        if (status)
            return error_context(status, "applying %s", migrations[i].file);
        if (done && migrations[i].number == 1 && created)
            *created = true;
    }
    return ENVELOPE_OK;
}

envelope_status store_sqlite_read_id(struct connection *c, uint8_t id[STORE_ID_SIZE])
{
    static const char sql[] = "SELECT store_id FROM store_meta WHERE id = 1";
    struct query q = store_query(c, sql);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (!status && (!found || sqlite3_column_bytes(q.statement, 0) != STORE_ID_SIZE))
        status = error_raise(ENVELOPE_E_STORE_CORRUPT,
                             "store %s: it has lost its id (table store_meta); restore a backup", c->sqlite->printed);
    if (!status)
        memcpy(id, sqlite3_column_blob(q.statement, 0), STORE_ID_SIZE);
    sqlite3_reset(q.statement);
    return status;
}
