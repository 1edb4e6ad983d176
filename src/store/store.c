/* The verbs of store.h: check what any engine would have to check, then hand over to the engine of the URL. */
#include "store/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static const struct store_engine *const engines[] = {&store_sqlite_engine};

enum { PRINTED_NAME_MAX = KEY_NAME_MAX + 64 };

/* ---- arguments ---- */

static envelope_status argument(const char *what)
{
    return error_raise(ENVELOPE_E_ARGUMENT, "store: %s", what);
}

static envelope_status check_name(const char *name)
{
    if (!name)
        return argument("no key name given");
    size_t length = strnlen(name, KEY_NAME_MAX + 1);
    if (text_is_key_name(name, length))
        return ENVELOPE_OK;
    if (length == 0)
        return error_raise(ENVELOPE_E_KEY_NAME, "an empty text is no key name; give 1 to %d bytes", KEY_NAME_MAX);
    if (length > KEY_NAME_MAX)
        return error_raise(ENVELOPE_E_KEY_NAME, "the key name is longer than %d bytes; choose a shorter one",
                           KEY_NAME_MAX);
    char printed[PRINTED_NAME_MAX];
    return error_raise(ENVELOPE_E_KEY_NAME, "\"%s\" is no key name: it must be valid UTF-8 without control characters",
                       text_printable(name, length, printed, sizeof printed));
}

static bool is_version_state(enum store_version_state state)
{
    return state >= STORE_VERSION_ACTIVE && state <= STORE_VERSION_DESTROYED;
}

/* An actor as the history keeps it: printable, of a bounded length, whatever a process calls itself. */
struct clean_actor {
    struct store_actor actor;
    char who[STORE_WHO_MAX];
    char detail[STORE_DETAIL_MAX];
};

static envelope_status clean_actor(struct clean_actor *clean, const struct store_actor *actor)
{
    if (!actor || !actor->who || !actor->who[0])
        return argument("a change needs somebody who makes it");
    clean->actor.who = text_printable(actor->who, strlen(actor->who), clean->who, sizeof clean->who);
    clean->actor.detail = NULL;
    if (actor->detail && actor->detail[0])
        clean->actor.detail = text_printable(actor->detail, strlen(actor->detail), clean->detail, sizeof clean->detail);
    return ENVELOPE_OK;
}

/* Is there an attribute of this name ("pin-value=") in a PKCS#11 URI? Its separators are : ; ? and &. */
static bool uri_has_attribute(const char *uri, const char *attribute)
{
    for (const char *at = strstr(uri, attribute); at; at = strstr(at + 1, attribute))
        if (at > uri && strchr(":;?&", at[-1]))
            return true;
    return false;
}

static envelope_status check_kek_uri(const char *uri)
{
    if (!uri || !uri[0])
        return error_raise(ENVELOPE_E_KEK_URI, "an empty text is no KEK URI");
    size_t length = strnlen(uri, STORE_URI_MAX + 1);
    if (length > STORE_URI_MAX)
        return error_raise(ENVELOPE_E_KEK_URI, "the KEK URI is longer than %d bytes", STORE_URI_MAX);
    if (!text_is_utf8(uri, length))
        return error_raise(ENVELOPE_E_KEK_URI, "the KEK URI is not valid UTF-8");
    /* The store is no place for a PIN, nor for the path of one: every reader of the file would see it. */
    if (uri_has_attribute(uri, "pin-value=") || uri_has_attribute(uri, "pin-source="))
        return error_raise(ENVELOPE_E_KEK_URI,
                           "a KEK URI in the store must not carry a PIN; use pin-file in envelope.cnf");
    return ENVELOPE_OK;
}

/* ---- the store itself ---- */

static envelope_status check_new_version(const struct store_new_version *version)
{
    if (!version)
        return argument("no version given");
    if (version->dek_id == 0 || version->kek_id == 0)
        return argument("a version needs the id of its DEK and of its KEK");
    if (version->algorithm != STORE_AES_256_GCM)
        return error_raise(ENVELOPE_E_ARGUMENT, "store: algorithm %d is unknown", (int)version->algorithm);
    if (!version->blob || version->blob_length == 0 || version->blob_length > STORE_BLOB_MAX)
        return error_raise(ENVELOPE_E_ARGUMENT, "store: a wrapped DEK has 1 to %d bytes, not %zu", STORE_BLOB_MAX,
                           version->blob_length);
    return version->kek_uri ? check_kek_uri(version->kek_uri) : ENVELOPE_OK;
}

static const struct store_engine *engine_of(const char *url, const char **place)
{
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++) {
        size_t length = strlen(engines[i]->scheme);
        if (strncmp(url, engines[i]->scheme, length) == 0 && url[length] == ':') {
            *place = url + length + 1;
            return engines[i];
        }
    }
    return NULL;
}

static envelope_status open_or_create(const char *url, int64_t deadline, bool create, store **opened, bool *created)
{
    if (!opened)
        return argument("nowhere to put the handle");
    *opened = NULL;
    bool ignored;
    if (!created)
        created = &ignored;
    *created = false;
    if (!url || !url[0])
        return argument("no URL given; for example sqlite:/var/lib/envelope/keys.db");
    if (deadline <= 0)
        return argument("the deadline must be positive");
    const char *place = NULL;
    const struct store_engine *engine = engine_of(url, &place);
    if (!engine) {
        char printed[PRINTED_NAME_MAX];
        return error_raise(ENVELOPE_E_ARGUMENT,
                           "\"%s\" is not the URL of a store; for example sqlite:/var/lib/envelope/keys.db",
                           text_printable(url, strlen(url), printed, sizeof printed));
    }
    return engine->open(url, place, deadline, create, opened, created);
}

envelope_status store_open(const char *url, int64_t deadline, store **opened)
{
    return open_or_create(url, deadline, false, opened, NULL);
}

envelope_status store_create(const char *url, int64_t deadline, store **opened, bool *created)
{
    return open_or_create(url, deadline, true, opened, created);
}

void store_close(store *opened)
{
    if (opened)
        opened->engine->close(opened);
}

const char *store_url(const store *opened)
{
    return opened->url;
}

envelope_status store_id(store *opened, uint8_t id[STORE_ID_SIZE])
{
    memcpy(id, opened->id, STORE_ID_SIZE);
    return ENVELOPE_OK;
}

envelope_status store_change_counter(store *opened, uint64_t *counter)
{
    return opened->engine->change_counter(opened, counter);
}

envelope_status store_check(store *opened)
{
    return opened->engine->check(opened);
}

/* ---- KEKs ---- */

envelope_status store_kek_ensure(store *opened, const char *uri, int64_t now, uint32_t *kek_id)
{
    envelope_status status = check_kek_uri(uri);
    return status ? status : opened->engine->kek_ensure(opened, uri, now, kek_id);
}

envelope_status store_kek_find(store *opened, uint32_t kek_id, struct store_kek *kek)
{
    *kek = (struct store_kek){0};
    return opened->engine->kek_find(opened, kek_id, kek);
}

void store_kek_clear(struct store_kek *kek)
{
    free(kek->uri);
    *kek = (struct store_kek){0};
}

/* ---- keys and versions ---- */

envelope_status store_next_ids(store *opened, const char *kek_uri, struct store_ids *ids)
{
    *ids = (struct store_ids){0};
    envelope_status status = kek_uri ? check_kek_uri(kek_uri) : ENVELOPE_OK;
    return status ? status : opened->engine->next_ids(opened, kek_uri, ids);
}

envelope_status store_dek_id_reserve(store *opened, uint32_t *dek_id)
{
    *dek_id = 0;
    return opened->engine->dek_id_reserve(opened, dek_id);
}

envelope_status store_key_create(store *opened, const char *name, uint64_t message_limit,
                                 const struct store_new_version *first, const struct store_actor *actor)
{
    struct clean_actor clean;
    envelope_status status = check_name(name);
    if (!status && (message_limit == 0 || message_limit > STORE_MESSAGE_LIMIT_MAX))
        status = argument("the message limit of a key is 1 to 2^32 (SP 800-38D, 8.3)");
    if (!status)
        status = check_new_version(first);
    if (!status)
        status = clean_actor(&clean, actor);
    return status ? status : opened->engine->key_create(opened, name, message_limit, first, &clean.actor);
}

envelope_status store_key_rotate(store *opened, const char *name, uint32_t expected_primary,
                                 const struct store_new_version *next, const struct store_actor *actor)
{
    struct clean_actor clean;
    envelope_status status = check_name(name);
    if (!status && (expected_primary == 0 || expected_primary == UINT32_MAX))
        status = argument("rotation needs the number of the primary version it replaces");
    if (!status)
        status = check_new_version(next);
    if (!status)
        status = clean_actor(&clean, actor);
    return status ? status : opened->engine->key_rotate(opened, name, expected_primary, next, &clean.actor);
}

envelope_status store_key_find(store *opened, const char *name, struct store_key *key)
{
    *key = (struct store_key){0};
    envelope_status status = check_name(name);
    return status ? status : opened->engine->key_find(opened, name, key);
}

envelope_status store_keys(store *opened, struct store_key **keys, size_t *count)
{
    *keys = NULL;
    *count = 0;
    return opened->engine->keys(opened, keys, count);
}

envelope_status store_version_find(store *opened, uint32_t dek_id, struct store_version *version)
{
    *version = (struct store_version){0};
    return opened->engine->version_find(opened, dek_id, version);
}

envelope_status store_version_of(store *opened, const char *name, uint32_t number, struct store_version *version)
{
    *version = (struct store_version){0};
    envelope_status status = check_name(name);
    return status ? status : opened->engine->version_of(opened, name, number, version);
}

envelope_status store_versions(store *opened, const char *name, struct store_version **versions, size_t *count)
{
    *versions = NULL;
    *count = 0;
    envelope_status status = name ? check_name(name) : ENVELOPE_OK;
    return status ? status : opened->engine->versions(opened, name, versions, count);
}

envelope_status store_versions_page(store *opened, const char *first, uint32_t after, const char *last, size_t limit,
                                    struct store_version **versions, size_t *count)
{
    *versions = NULL;
    *count = 0;
    envelope_status status = check_name(first);
    if (!status)
        status = check_name(last);
    if (!status && limit == 0)
        status = argument("a page has room for one version at least");
    return status ? status : opened->engine->versions_page(opened, first, after, last, limit, versions, count);
}

void store_version_clear(struct store_version *version)
{
    free(version->blob);
    *version = (struct store_version){0};
}

void store_versions_free(struct store_version *versions, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(versions[i].blob);
    free(versions);
}

envelope_status store_version_set_state(store *opened, uint32_t dek_id, enum store_version_state from,
                                        enum store_version_state to, int64_t now, const struct store_actor *actor)
{
    if (!is_version_state(from) || !is_version_state(to))
        return argument("that is no state of a version");
    if (!store_version_step_exists(from, to))
        return error_raise(ENVELOPE_E_VERSION_STATE, "there is no way from %s to %s for a version (DEK id %u)",
                           store_version_state_text(from), store_version_state_text(to), (unsigned)dek_id);
    struct clean_actor clean;
    envelope_status status = clean_actor(&clean, actor);
    return status ? status : opened->engine->version_set_state(opened, dek_id, from, to, now, &clean.actor);
}

envelope_status store_key_set_state(store *opened, const char *name, enum store_key_state from, enum store_key_state to,
                                    int64_t now, const struct store_actor *actor)
{
    struct clean_actor clean;
    envelope_status status = check_name(name);
    if (!status && !((from == STORE_KEY_ENABLED && to == STORE_KEY_SUSPENDED) ||
                     (from == STORE_KEY_SUSPENDED && to == STORE_KEY_ENABLED)))
        status = error_raise(ENVELOPE_E_KEY_STATE, "there is no way from %s to %s for a key (\"%s\")",
                             store_key_state_text(from), store_key_state_text(to), name);
    if (!status)
        status = clean_actor(&clean, actor);
    return status ? status : opened->engine->key_set_state(opened, name, from, to, now, &clean.actor);
}

/* ---- another KEK ---- */

static bool is_blob(const uint8_t *blob, size_t length)
{
    return blob && length >= 1 && length <= STORE_BLOB_MAX;
}

/* While the engine works, the cleaned one stands in the move. */
struct actor_of_move {
    struct clean_actor clean;
    struct store_actor given;
};

static struct actor_of_move *new_actors(size_t count)
{
    if (count > STORE_MOVES_MAX) {
        error_raise(ENVELOPE_E_ARGUMENT, "store: %zu moves in one call; at most %d", count, (int)STORE_MOVES_MAX);
        return NULL;
    }
    struct actor_of_move *actors = malloc((count + 1) * sizeof *actors);
    if (!actors)
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory while the store is changed");
    return actors;
}

static envelope_status put_actor(struct actor_of_move *actors, struct store_actor *actor)
{
    actors->given = *actor;
    envelope_status status = clean_actor(&actors->clean, actor);
    if (!status)
        *actor = actors->clean.actor;
    return status;
}

static envelope_status check_keks(uint32_t from, uint32_t to, const char *uri)
{
    if (from == 0 || to == 0)
        return argument("versions and keys move from one KEK to another, or the same");
    return uri ? check_kek_uri(uri) : ENVELOPE_OK;
}

static envelope_status check_version_move(const struct store_version_move *move)
{
    if (!is_blob(move->from_blob, move->from_length) || !is_blob(move->blob, move->blob_length))
        return argument("a version is rewrapped from one blob to another, each of 1 to 65,535 bytes");
    return check_keks(move->from_kek_id, move->kek_id, move->kek_uri);
}

envelope_status store_versions_rewrap(store *opened, struct store_version_move *moves, size_t count)
{
    size_t put = 0;
    struct actor_of_move *actors = new_actors(count);
    envelope_status status = actors ? ENVELOPE_OK : error_status();
    for (; !status && put < count; put += !status) {
        status = check_version_move(&moves[put]);
        if (!status)
            status = put_actor(&actors[put], &moves[put].actor);
    }
    if (!status && count > 0)
        status = opened->engine->versions_rewrap(opened, moves, count);
    while (put-- > 0)
        moves[put].actor = actors[put].given;
    free(actors);
    return status;
}

envelope_status store_version_rewrap(store *opened, const struct store_version_move *move)
{
    if (!move)
        return argument("nothing to move");
    struct store_version_move one = *move;
    envelope_status status = store_versions_rewrap(opened, &one, 1);
    return status ? status : one.status;
}

static envelope_status check_key_move(const struct store_key_move *move)
{
    envelope_status status = check_name(move->name);
    return status ? status : check_keks(move->from_kek_id, move->kek_id, move->kek_uri);
}

envelope_status store_keys_set_kek(store *opened, struct store_key_move *moves, size_t count)
{
    size_t put = 0;
    struct actor_of_move *actors = new_actors(count);
    envelope_status status = actors ? ENVELOPE_OK : error_status();
    for (; !status && put < count; put += !status) {
        status = check_key_move(&moves[put]);
        if (!status)
            status = put_actor(&actors[put], &moves[put].actor);
    }
    if (!status && count > 0)
        status = opened->engine->keys_set_kek(opened, moves, count);
    while (put-- > 0)
        moves[put].actor = actors[put].given;
    free(actors);
    return status;
}

envelope_status store_key_set_kek(store *opened, const struct store_key_move *move)
{
    if (!move)
        return argument("nothing to move");
    struct store_key_move one = *move;
    envelope_status status = store_keys_set_kek(opened, &one, 1);
    return status ? status : one.status;
}

/* ---- message budget ---- */

envelope_status store_messages_reserve(store *opened, uint32_t dek_id, uint64_t want, uint64_t *granted,
                                       uint64_t *reserved, uint64_t *limit)
{
    *granted = *reserved = *limit = 0;
    return opened->engine->messages_reserve(opened, dek_id, want, granted, reserved, limit);
}

/* ---- history ---- */

envelope_status store_history_add(store *opened, int64_t now, const char *what, const char *key, uint32_t version,
                                  const char *result, const struct store_actor *actor)
{
    if (!what || !what[0] || !result || !result[0])
        return argument("a row of the history says what was done and how it ended");
    struct clean_actor clean;
    envelope_status status = key ? check_name(key) : ENVELOPE_OK;
    if (!status)
        status = clean_actor(&clean, actor);
    return status ? status : opened->engine->history_add(opened, now, what, key, version, result, &clean.actor);
}

envelope_status store_history_read(store *opened, const char *key, size_t limit, struct store_history **rows,
                                   size_t *count)
{
    *rows = NULL;
    *count = 0;
    envelope_status status = key ? check_name(key) : ENVELOPE_OK;
    return status ? status : opened->engine->history_read(opened, key, limit, rows, count);
}

void store_history_free(struct store_history *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(rows[i].who);
        free(rows[i].what);
        free(rows[i].key);
        free(rows[i].result);
        free(rows[i].detail);
    }
    free(rows);
}
