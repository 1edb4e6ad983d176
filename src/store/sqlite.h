/*
 * The SQLite engine, for its own files only.
 *
 * A verb takes a connection for itself (begin), works, and gives it back (end);
 * no lock of ours is held in between. Connections are closed before a fork and
 * opened again lazily on both sides (sqlite_pool.c says why).
 */
#ifndef STORE_SQLITE_H
#define STORE_SQLITE_H

#include <sqlite3.h>
#include <sys/stat.h>

#include "store/engine.h"

enum {
    STORE_SQLITE_APPLICATION_ID = 0x454e564c, /* "ENVL" */
    STORE_SQLITE_STATEMENTS = 48,             /* more than there are in the engine */
    STORE_SQLITE_PATH_PRINTED = 512,
};

struct connection;

struct sqlite_store {
    store base;
    char *path;
    char printed[STORE_SQLITE_PATH_PRINTED]; /* the path, for messages */
    int64_t deadline;
    /* Under the gate's lock (sqlite_pool.c): */
    struct connection *idle;
    unsigned idle_count;
    struct sqlite_store *next;
};

enum transaction {
    TRANSACTION_READ,         /* one statement sees one state of the database by itself */
    TRANSACTION_SNAPSHOT,     /* several reads of one state */
    TRANSACTION_WRITE,        /* on the disk when it returns */
    TRANSACTION_WRITE_RELAXED /* survives kill -9, but perhaps not the loss of power */
};

struct connection {
    sqlite3 *db;
    struct sqlite_store *sqlite;
    struct connection *next;
    enum transaction kind;
    bool read_only; /* the file, its directory or its file system grants no more */
    bool immutable; /* opened without locks: no -shm can be made here, and nobody is writing */
    struct stat file, wal, shm;
    bool relaxed;   /* synchronous = NORMAL at the moment */
    bool broken;    /* not to be used again */
    int64_t waited; /* microseconds spent on other processes' locks in this transaction */
    struct {
        const char *sql;
        sqlite3_stmt *statement;
    } statements[STORE_SQLITE_STATEMENTS];
};

static inline struct sqlite_store *store_sqlite_of(store *opened)
{
    return (struct sqlite_store *)opened;
}

/* ---- sqlite_pool.c: who may use a connection, and forks ---- */

/* Enter the gate: a connection of this store to use alone (NULL: there is no idle one; open one), or refused. */
envelope_status store_sqlite_enter(struct sqlite_store *sqlite, struct connection **idle);
/* Leave it. NULL: none to give back. A broken connection is closed. */
void store_sqlite_leave(struct sqlite_store *sqlite, struct connection *connection);
/* Inside the gate: close this store's idle connections (their file is not at its path any more). */
void store_sqlite_drop_idle(struct sqlite_store *sqlite);
/* Make the store known to, or forgotten by, the fork handler. The latter closes its connections. */
void store_sqlite_register(struct sqlite_store *sqlite);
void store_sqlite_unregister(struct sqlite_store *sqlite);

/* ---- sqlite_open.c: one connection ---- */

/* Inside the gate. create: fill an empty file. created (may be NULL): it was this call that filled it. */
envelope_status store_sqlite_connect(struct sqlite_store *sqlite, bool create, bool *created,
                                     struct connection **connection);
void store_sqlite_disconnect(struct connection *connection);
/* Is the file that this connection has open still the one at the path, and unchanged if it was opened as immutable? */
bool store_sqlite_is_current(const struct connection *connection);
/* And are -wal and -shm beside it the ones that it uses, so that what it writes will be seen by others? */
bool store_sqlite_may_write(const struct connection *connection);
/* Make an empty file, mode 0600, at the path unless something is there. */
envelope_status store_sqlite_make_file(const struct sqlite_store *sqlite);

/* ---- sqlite_migrate.c ---- */

struct store_migration {
    int number;
    const char *file;
    const char *sql;
};
extern const struct store_migration store_sqlite_migrations[];
extern const size_t store_sqlite_migrations_count;

/* Whose database is it, and of which schema? Raises if it is not one that these migrations lead to. */
envelope_status store_sqlite_check_schema(struct connection *c, size_t count, bool create, int *schema);
/* Apply what is due, each in a transaction of its own. created: it was this call that made the store. */
envelope_status store_sqlite_migrate(struct connection *c, const struct store_migration *migrations, size_t count,
                                     bool *created);
envelope_status store_sqlite_read_id(struct connection *c, uint8_t id[STORE_ID_SIZE]);

/* ---- sqlite_query.c: transactions and statements ---- */

envelope_status store_sqlite_begin(struct sqlite_store *sqlite, enum transaction kind, struct connection **connection);
/* Commit if status is ENVELOPE_OK, else roll back; gives the connection back and returns the outcome. */
envelope_status store_sqlite_end(struct connection *connection, envelope_status status);
/* The two inside them, for a connection that is not in the pool yet. */
envelope_status store_sqlite_start(struct connection *c, enum transaction kind);
envelope_status store_sqlite_finish(struct connection *c, envelope_status status);
/* One statement without results, not kept: pragmas and migrations. */
envelope_status store_sqlite_execute(struct connection *c, const char *sql);

/* A statement in use: start, bind in order, then run() or row(). Errors stick and surface there. */
struct query {
    struct connection *c;
    sqlite3_stmt *statement;
    int bound;
    int rc;
    const char *malformed; /* a column that held what it cannot hold */
};

/* sql must be one and the same pointer at every call: it is the key of the statement cache. */
struct query store_query(struct connection *c, const char *sql);
void store_query_int(struct query *q, int64_t value);
void store_query_text(struct query *q, const char *value); /* NULL: SQL NULL. Must live until the last row. */
void store_query_blob(struct query *q, const uint8_t *bytes, size_t length);
/* found: there is a (next) row. */
envelope_status store_query_row(struct query *q, bool *found);
/* For a statement that returns no row. changed may be NULL. */
envelope_status store_query_run(struct query *q, int *changed);

/* Columns of the row: a value outside the range is remembered in q->malformed. */
int64_t store_query_get_int(struct query *q, int column, int64_t min, int64_t max);
uint32_t store_query_get_u32(struct query *q, int column); /* 1…2^32-1 */
const char *store_query_get_text(struct query *q, int column, size_t max_length);
bool store_query_is_null(struct query *q, int column);
/* A copy of text or NULL; ENVELOPE_E_NO_MEMORY. */
envelope_status store_query_copy_text(struct query *q, int column, char **copy);
/* ENVELOPE_E_STORE_CORRUPT if a column was malformed: "the row of TABLE with ID …". */
envelope_status store_query_sound(const struct query *q, const char *table, int64_t id);

/* ---- sqlite_error.c ---- */

/* Raise what the connection's last call (result rc) failed with; marks the connection as broken if it may be. */
envelope_status store_sqlite_error(struct connection *c, int rc, const char *doing);
/* The same where there is no connection yet. */
envelope_status store_sqlite_file_error(const struct sqlite_store *sqlite, int rc, int system_error, const char *doing);

/* ---- shared by the verbs, always inside a transaction ---- */

envelope_status store_sqlite_raise_counter(struct connection *c);
envelope_status store_sqlite_add_history(struct connection *c, int64_t now, const char *what, const char *key,
                                         uint32_t version, const char *result, const struct store_actor *actor);
/* A change of a key: its history row and the change counter. */
envelope_status store_sqlite_note(struct connection *c, int64_t now, const char *what, const char *key,
                                  uint32_t version, const struct store_actor *actor);
envelope_status store_sqlite_unknown_key(const struct connection *c, const char *name);
/* The row of a key; key_id is the store's own number of it. found false: there is none. */
envelope_status store_sqlite_get_key(struct connection *c, const char *name, int64_t *key_id, struct store_key *key,
                                     bool *found);
/* ENVELOPE_E_VERSION_UNKNOWN. To be cleared by the caller, whatever came of it. */
envelope_status store_sqlite_get_version(struct connection *c, uint32_t dek_id, struct store_version *version);

/* ---- the verbs, as in store_engine ---- */

envelope_status store_sqlite_change_counter(store *opened, uint64_t *counter);
envelope_status store_sqlite_check(store *opened);
envelope_status store_sqlite_kek_ensure(store *opened, const char *uri, int64_t now, uint32_t *kek_id);
envelope_status store_sqlite_kek_find(store *opened, uint32_t kek_id, struct store_kek *kek);
envelope_status store_sqlite_next_ids(store *opened, const char *kek_uri, struct store_ids *ids);
envelope_status store_sqlite_dek_id_reserve(store *opened, uint32_t *dek_id);
/*
 * Inside the transaction that writes something under this KEK: ENVELOPE_E_KEK_UNKNOWN if it has no row. With the URI of
 * store_next_ids() it gets one, or STORE_CONFLICT if another KEK got the id meanwhile, or this KEK another id.
 */
envelope_status store_sqlite_take_kek(struct connection *c, uint32_t kek_id, const char *kek_uri, int64_t now);
/* Inside the transaction that writes version: make sure of its ids, taking those that are next. Else STORE_CONFLICT,
 * or ENVELOPE_E_ARGUMENT for an id that never came from the store. */
envelope_status store_sqlite_take_ids(struct connection *c, const struct store_new_version *version);
envelope_status store_sqlite_key_create(store *opened, const char *name, uint64_t message_limit,
                                        const struct store_new_version *first, const struct store_actor *actor);
envelope_status store_sqlite_key_rotate(store *opened, const char *name, uint32_t expected_primary,
                                        const struct store_new_version *next, const struct store_actor *actor);
envelope_status store_sqlite_key_find(store *opened, const char *name, struct store_key *key);
envelope_status store_sqlite_keys(store *opened, struct store_key **keys, size_t *count);
envelope_status store_sqlite_key_set_state(store *opened, const char *name, enum store_key_state from,
                                           enum store_key_state to, int64_t now, const struct store_actor *actor);
envelope_status store_sqlite_version_find(store *opened, uint32_t dek_id, struct store_version *version);
envelope_status store_sqlite_version_of(store *opened, const char *name, uint32_t number,
                                        struct store_version *version);
envelope_status store_sqlite_versions(store *opened, const char *name, struct store_version **versions, size_t *count);
envelope_status store_sqlite_version_set_state(store *opened, uint32_t dek_id, enum store_version_state from,
                                               enum store_version_state to, int64_t now,
                                               const struct store_actor *actor);
envelope_status store_sqlite_versions_page(store *opened, const char *first, uint32_t after, const char *last,
                                           size_t limit, struct store_version **versions, size_t *count);
envelope_status store_sqlite_versions_rewrap(store *opened, struct store_version_move *moves, size_t count);
envelope_status store_sqlite_keys_set_kek(store *opened, struct store_key_move *moves, size_t count);
envelope_status store_sqlite_messages_reserve(store *opened, uint32_t dek_id, uint64_t want, uint64_t *granted,
                                              uint64_t *reserved, uint64_t *limit);
envelope_status store_sqlite_history_add(store *opened, int64_t now, const char *what, const char *key,
                                         uint32_t version, const char *result, const struct store_actor *actor);
envelope_status store_sqlite_history_read(store *opened, const char *key, size_t limit, struct store_history **rows,
                                          size_t *count);

#endif
