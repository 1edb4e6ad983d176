/* Making and changing keys: create, rotate, suspend, resume. */
#include "keyring/keyring_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "keyring/binding.h"

struct store_actor keyring_actor(char who[KEYRING_WHO_MAX], const char *why)
{
    char program[48];
    text_printable(program_invocation_short_name, strlen(program_invocation_short_name), program, sizeof program);
    snprintf(who, KEYRING_WHO_MAX, "uid %u pid %d %s", (unsigned)getuid(), (int)getpid(), program);
    return (struct store_actor){who, why};
}

struct store_actor keyring_actor_of(struct keyring_note *note, const char *what, const char *why, const char *ids)
{
    char requests[512] = "";
    if (ids[0])
        snprintf(requests, sizeof requests, " (request%s %s)", strchr(ids, ',') ? "s" : "", ids);
    size_t used = (size_t)snprintf(note->detail, sizeof note->detail, "%s%s", what, why && what[0] ? ": " : "");
    if (why)
        text_printable(why, strlen(why), note->detail + used, sizeof note->detail - used - strlen(requests));
    used = strlen(note->detail);
    snprintf(note->detail + used, sizeof note->detail - used, "%s", used ? requests : requests + (requests[0] == ' '));
    return keyring_actor(note->who, note->detail[0] ? note->detail : NULL);
}

/* A refused change leaves a row too, if the store can take one; the error that is raised stays the refusal's. */
void keyring_note_refusal(keyring *ring, const char *what, const char *name, uint32_t version, envelope_status status)
{
    store *opened = atomic_load_explicit(&ring->opened, memory_order_acquire);
    char text[KEYRING_TEXT_MAX], who[KEYRING_WHO_MAX];
    snprintf(text, sizeof text, "%s", error_text());
    struct store_actor actor = keyring_actor(who, text);
    if (opened)
        (void)store_history_add(opened, clock_wall(), what, name, version, envelope_status_name(status), &actor);
    error_raise(status, "%s", text);
}

/* ---- a new version ---- */

/* Where a version is to go. */
struct place {
    const char *name;
    uint32_t version;
    uint32_t kek_id;        /* 0: of public_uri */
    const char *uri;        /* of the KEK, to be used */
    const char *public_uri; /* as the store keeps it; NULL: kek_id says it */
    bool reserve;           /* ids that are kept for it, since somebody else took those that were next */
};

struct wrapped {
    struct store_new_version row;
    uint8_t *blob;
};

/*
 * The ids that the wrap is bound to. Nothing is written for them at first, so that a wrap that is refused leaves
 * nothing behind. After a conflict they are reserved: the KEK has wrapped a moment ago, and no wrap shall be made in
 * vain twice.
 */
static envelope_status choose_ids(store *opened, const struct place *place, struct store_new_version *row)
{
    struct store_ids ids;
    row->kek_id = place->kek_id;
    if (!place->reserve) {
        envelope_status status = store_next_ids(opened, place->public_uri, &ids);
        if (!status && !ids.dek_id) /* none is left, as this says */
            return store_dek_id_reserve(opened, &row->dek_id);
        row->dek_id = ids.dek_id;
        row->dek_id_is_next = true;
        row->kek_uri = place->public_uri;
        if (place->public_uri)
            row->kek_id = ids.kek_id;
        return status;
    }
    envelope_status status =
        place->public_uri ? store_kek_ensure(opened, place->public_uri, row->now, &row->kek_id) : ENVELOPE_OK;
    return status ? status : store_dek_id_reserve(opened, &row->dek_id);
}

/*
 * A DEK from the token, wrapped for its place; the DEK itself is forgotten. The first message under it unwraps what the
 * store keeps, so nothing is ever encrypted under a DEK whose stored form does not unwrap.
 */
static envelope_status wrap_new(keyring *ring, store *opened, const struct place *place, struct wrapped *made)
{
    memset(made, 0, sizeof *made);
    struct store_new_version *row = &made->row;
    uint8_t id[STORE_ID_SIZE];
    row->algorithm = STORE_AES_256_GCM;
    row->now = clock_wall();
    envelope_status status = keyring_store_id(ring, id);
    if (!status)
        status = choose_ids(opened, place, row);
    if (status)
        return status;
    uint8_t *dek = secslab_get(ring->deks);
    if (!dek)
        return error_status();
    struct binding_place bound = {id, row->dek_id, place->version, row->kek_id, row->algorithm, place->name};
    uint8_t aad[BINDING_MAX];
    size_t aad_length = keyring_binding_aad(&bound, aad);
    status = hsm_generate_dek(ring->token, place->uri, dek);
    if (!status)
        status = hsm_wrap(ring->token, place->uri, aad, aad_length, dek, &made->blob, &row->blob_length);
    secslab_put(ring->deks, dek);
    row->blob = made->blob;
    return status;
}

/* ---- create ---- */

static envelope_status create_check(store *opened, const char *name)
{
    char shown[4 * KEY_NAME_MAX + 8];
    if (!text_is_key_name(name, strlen(name)))
        return error_raise(ENVELOPE_E_KEY_NAME,
                           "\"%s\" is not a key name: 1 to %d bytes of UTF-8 without control characters",
                           text_printable(name, strlen(name), shown, sizeof shown), KEY_NAME_MAX);
    struct store_key existing;
    envelope_status status = store_key_find(opened, name, &existing);
    if (status == ENVELOPE_E_KEY_UNKNOWN)
        return ENVELOPE_OK;
    return status ? status : error_raise(ENVELOPE_E_KEY_EXISTS, "key \"%s\" exists already", name);
}

static envelope_status create_at(keyring *ring, store *opened, const struct place *place, uint64_t limit)
{
    struct wrapped first;
    envelope_status status = wrap_new(ring, opened, place, &first);
    if (!status) {
        struct keyring_note note = {0};
        struct store_actor actor = keyring_actor_of(&note, "", NULL, hsm_requests());
        status = store_key_create(opened, place->name, limit, &first.row, &actor);
    }
    free(first.blob);
    return status;
}

static envelope_status create(keyring *ring, store *opened, const char *name, const struct keyring_key_options *options)
{
    const char *uri = options && options->kek_uri ? options->kek_uri : ring->settings.kek;
    uint64_t limit = options && options->message_limit ? options->message_limit : ring->settings.messages;
    envelope_status status = create_check(opened, name);
    if (!status && !uri)
        status = error_raise(ENVELOPE_E_CONFIG, "no KEK is named, and %s has no kek",
                             ring->settings.path ? ring->settings.path : "the configuration");
    if (!status)
        status = hsm_check_uri(uri);
    char *public_uri = status ? NULL : hsm_public_uri(uri);
    if (!public_uri)
        return error_status();
    struct place place = {.name = name, .version = 1, .uri = uri, .public_uri = public_uri};
    status = create_at(ring, opened, &place, limit);
    if (status == ENVELOPE_E_STORE_CONFLICT) {
        place.reserve = true;
        status = create_at(ring, opened, &place, limit);
    }
    free(public_uri);
    return status;
}

envelope_status keyring_create(keyring *ring, const char *name, const struct keyring_key_options *options)
{
    store *opened = keyring_connect(ring);
    if (!opened)
        return error_status();
    keyring_gate_enter();
    envelope_status status = create(ring, opened, name, options);
    keyring_gate_leave();
    if (status)
        return status == ENVELOPE_E_KEY_NAME ? status : error_context(status, "creating key \"%s\"", name);
    keyring_refresh_now(ring);
    return ENVELOPE_OK;
}

/* ---- rotate ---- */

struct rotation {
    const char *name;
    const char *why;
    uint32_t expected; /* 0: whatever it is */
    bool reserve;      /* see struct place */
    uint32_t version;  /* the primary afterwards */
    bool by_others;
};

/* Somebody else may have made the version that we were about to make. If not, it was ids or the KEK: once more. */
static envelope_status rotated_by_others(store *opened, struct rotation *rotation, uint32_t expected)
{
    struct store_key key;
    envelope_status status = store_key_find(opened, rotation->name, &key);
    if (status)
        return status;
    if (key.primary_version == expected)
        return error_raise(ENVELOPE_E_STORE_CONFLICT, "the store refused the new version, though %u is still primary",
                           (unsigned)expected);
    rotation->version = key.primary_version;
    rotation->by_others = true;
    return ENVELOPE_OK;
}

static envelope_status rotate(keyring *ring, store *opened, struct rotation *rotation)
{
    struct store_key key;
    envelope_status status = store_key_find(opened, rotation->name, &key);
    if (status)
        return status;
    if (key.state != STORE_KEY_ENABLED)
        return error_raise(ENVELOPE_E_KEY_STATE, "the key is %s", store_key_state_text(key.state));
    uint32_t primary = key.primary_version;
    if (rotation->expected && rotation->expected != primary) {
        rotation->version = primary;
        rotation->by_others = true;
        return ENVELOPE_OK;
    }
    const char *uri = keyring_kek_uri(ring, key.kek_id);
    if (!uri)
        return error_status();
    struct place place = {
        .name = rotation->name, .version = primary + 1, .kek_id = key.kek_id, .uri = uri, .reserve = rotation->reserve};
    struct wrapped next;
    status = wrap_new(ring, opened, &place, &next);
    if (!status) {
        struct keyring_note note = {0};
        struct store_actor actor = keyring_actor_of(&note, "", rotation->why, hsm_requests());
        status = store_key_rotate(opened, rotation->name, primary, &next.row, &actor);
    }
    free(next.blob);
    if (status == ENVELOPE_E_STORE_CONFLICT)
        return rotated_by_others(opened, rotation, primary);
    if (!status)
        rotation->version = primary + 1;
    return status;
}

envelope_status keyring_rotate_from(keyring *ring, const char *name, uint32_t expected, const char *why,
                                    uint32_t *version, bool *by_others)
{
    store *opened = keyring_connect(ring);
    if (!opened)
        return error_status();
    enum { CONFLICTS = 2 };
    struct rotation rotation = {.name = name, .why = why, .expected = expected};
    keyring_gate_enter();
    envelope_status status = rotate(ring, opened, &rotation);
    /* An id taken by somebody else, then, perhaps, the key moved to another KEK: once more, under that one. */
    for (int i = 0; status == ENVELOPE_E_STORE_CONFLICT && i < CONFLICTS; i++) {
        rotation.reserve = true;
        status = rotate(ring, opened, &rotation);
    }
    keyring_gate_leave();
    if (status == ENVELOPE_E_KEY_UNKNOWN)
        return error_raise(status, "there is no key \"%s\" to rotate", name);
    if (status) {
        error_context(status, "rotating key \"%s\"", name);
        keyring_note_refusal(ring, "rotate", name, 0, status);
        return status;
    }
    if (!rotation.by_others)
        atomic_fetch_add_explicit(&ring->rotations, 1, memory_order_relaxed);
    keyring_refresh_now(ring);
    if (version)
        *version = rotation.version;
    if (by_others)
        *by_others = rotation.by_others;
    return ENVELOPE_OK;
}

envelope_status keyring_rotate(keyring *ring, const char *name, const char *why, uint32_t *version, bool *by_others)
{
    return keyring_rotate_from(ring, name, 0, why, version, by_others);
}

/* ---- suspend, resume ---- */

static envelope_status key_move(store *opened, const char *name, bool suspend, const struct store_actor *actor)
{
    struct store_key key;
    envelope_status status = store_key_find(opened, name, &key);
    if (status)
        return status;
    enum store_key_state from = suspend ? STORE_KEY_ENABLED : STORE_KEY_SUSPENDED;
    if (key.state != from)
        return error_raise(ENVELOPE_E_KEY_STATE, "the key is %s", store_key_state_text(key.state));
    return store_key_set_state(opened, name, from, suspend ? STORE_KEY_SUSPENDED : STORE_KEY_ENABLED, clock_wall(),
                               actor);
}

static envelope_status version_move(store *opened, const char *name, uint32_t number, bool suspend,
                                    const struct store_actor *actor)
{
    struct store_key key;
    struct store_version row;
    envelope_status status = store_key_find(opened, name, &key);
    if (!status)
        status = store_version_of(opened, name, number, &row);
    if (status)
        return status;
    uint32_t dek_id = row.dek_id;
    enum store_version_state from = row.state;
    store_version_clear(&row);
    bool possible =
        suspend ? from == STORE_VERSION_ACTIVE || from == STORE_VERSION_DEACTIVATED : from == STORE_VERSION_SUSPENDED;
    if (!possible)
        return error_raise(ENVELOPE_E_VERSION_STATE, "version %u is %s", (unsigned)number,
                           store_version_state_text(from));
    enum store_version_state resumed = number == key.primary_version ? STORE_VERSION_ACTIVE : STORE_VERSION_DEACTIVATED;
    return store_version_set_state(opened, dek_id, from, suspend ? STORE_VERSION_SUSPENDED : resumed, clock_wall(),
                                   actor);
}

static envelope_status move(keyring *ring, const char *name, uint32_t number, const char *why, bool suspend)
{
    const char *what = suspend ? "suspend" : "resume";
    store *opened = keyring_connect(ring);
    if (!opened)
        return error_status();
    char who[KEYRING_WHO_MAX];
    struct store_actor actor = keyring_actor(who, why);
    envelope_status status =
        number == 0 ? key_move(opened, name, suspend, &actor) : version_move(opened, name, number, suspend, &actor);
    if (status == ENVELOPE_E_KEY_UNKNOWN)
        return error_raise(status, "there is no key \"%s\" to %s", name, what);
    if (status) {
        error_context(status, "cannot %s key \"%s\"", what, name);
        keyring_note_refusal(ring, what, name, number, status);
        return status;
    }
    keyring_refresh_now(ring);
    return ENVELOPE_OK;
}

/* What this process has of it goes at once; other processes see it within their refresh time. */
static void drop_cached(keyring *ring, const char *name, uint32_t number)
{
    keyring_key *key = keyring_key_intern(ring, name, strlen(name));
    if (!key)
        return;
    if (number == 0) {
        keyring_cache_drop_all(ring, key);
        return;
    }
    store *opened = keyring_connect(ring);
    struct store_version row;
    if (!opened || store_version_of(opened, name, number, &row))
        return;
    struct keyring_dek *dek = keyring_cache_find(ring, row.dek_id);
    if (dek) {
        keyring_dek_drop(ring, dek);
        keyring_dek_unref(ring, dek);
    }
    store_version_clear(&row);
}

envelope_status keyring_suspend(keyring *ring, const char *name, uint32_t number, const char *why)
{
    envelope_status status = move(ring, name, number, why, true);
    if (!status)
        drop_cached(ring, name, number);
    return status;
}

envelope_status keyring_resume(keyring *ring, const char *name, uint32_t number, const char *why)
{
    return move(ring, name, number, why, false);
}
