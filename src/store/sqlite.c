/* The SQLite engine as store.c sees it: "sqlite:/absolute/path". */
#include "store/sqlite.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static envelope_status check_place(const char *url, const char *place)
{
    if (place[0] != '/')
        return error_raise(ENVELOPE_E_ARGUMENT,
                           "%s: give the store's absolute path, as in sqlite:/var/lib/envelope/keys.db", url);
    if (strlen(place) >= PATH_MAX)
        return error_raise(ENVELOPE_E_ARGUMENT, "the path of the store is longer than %d bytes", PATH_MAX - 1);
    return ENVELOPE_OK;
}

static void discard(struct sqlite_store *sqlite)
{
    free(sqlite->base.url);
    free(sqlite->path);
    free(sqlite);
}

static envelope_status make(const char *url, const char *place, int64_t deadline, struct sqlite_store **made)
{
    struct sqlite_store *sqlite = calloc(1, sizeof *sqlite);
    if (!sqlite)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory while the store is opened");
    sqlite->base.engine = &store_sqlite_engine;
    sqlite->base.url = text_copy(url);
    sqlite->path = text_copy(place);
    sqlite->deadline = deadline;
    if (!sqlite->base.url || !sqlite->path) {
        discard(sqlite);
        return ENVELOPE_E_NO_MEMORY;
    }
    text_printable(place, strlen(place), sqlite->printed, sizeof sqlite->printed);
    *made = sqlite;
    return ENVELOPE_OK;
}

/* The first connection: finds out whether this is a store at all, and which. */
static envelope_status connect_first(struct sqlite_store *sqlite, bool create, bool *created)
{
    struct connection *c = NULL;
    envelope_status status = store_sqlite_enter(sqlite, &c);
    if (status)
        return status;
    if (create)
        status = store_sqlite_make_file(sqlite);
    if (!status)
        status = store_sqlite_connect(sqlite, create, created, &c);
    if (!status)
        status = store_sqlite_read_id(c, sqlite->base.id);
    if (status && c)
        c->broken = true;
    store_sqlite_leave(sqlite, c);
    return status;
}

static envelope_status open_store(const char *url, const char *place, int64_t deadline, bool create, store **opened,
                                  bool *created)
{
    struct sqlite_store *sqlite = NULL;
    envelope_status status = check_place(url, place);
    if (!status)
        status = make(url, place, deadline, &sqlite);
    if (status)
        return status;
    store_sqlite_register(sqlite);
    status = connect_first(sqlite, create, created);
    if (status) {
        store_sqlite_unregister(sqlite);
        discard(sqlite);
        return status;
    }
    *opened = &sqlite->base;
    return ENVELOPE_OK;
}

static void close_store(store *opened)
{
    struct sqlite_store *sqlite = store_sqlite_of(opened);
    store_sqlite_unregister(sqlite);
    discard(sqlite);
}

const struct store_engine store_sqlite_engine = {
    .scheme = "sqlite",
    .open = open_store,
    .close = close_store,
    .change_counter = store_sqlite_change_counter,
    .check = store_sqlite_check,
    .kek_ensure = store_sqlite_kek_ensure,
    .kek_find = store_sqlite_kek_find,
    .next_ids = store_sqlite_next_ids,
    .dek_id_reserve = store_sqlite_dek_id_reserve,
    .key_create = store_sqlite_key_create,
    .key_rotate = store_sqlite_key_rotate,
    .key_find = store_sqlite_key_find,
    .keys = store_sqlite_keys,
    .key_set_state = store_sqlite_key_set_state,
    .version_find = store_sqlite_version_find,
    .version_of = store_sqlite_version_of,
    .versions = store_sqlite_versions,
    .version_set_state = store_sqlite_version_set_state,
    .versions_page = store_sqlite_versions_page,
    .versions_rewrap = store_sqlite_versions_rewrap,
    .keys_set_kek = store_sqlite_keys_set_kek,
    .messages_reserve = store_sqlite_messages_reserve,
    .history_add = store_sqlite_history_add,
    .history_read = store_sqlite_history_read,
};
