#include "keys.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"

/* A handle is (index << 1 | part) + FIRST_HANDLE. */
enum { FIRST_HANDLE = 16 };

struct entry {
    struct backend_key key;
    bool gone;
};

struct name {
    char *text;
    size_t entry;
    int64_t learned; /* monotonic */
};

struct keys {
    pthread_mutex_t lock;
    int64_t refresh;
    struct entry *entries; /* never removed: their index is the handle */
    size_t count;
    struct name *names;
    size_t name_count;
    int64_t all_learned; /* 0: never */
};

struct keys *keys_new(int64_t refresh)
{
    struct keys *keys = calloc(1, sizeof *keys);
    if (!keys) {
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a token's keys");
        return NULL;
    }
    pthread_mutex_init(&keys->lock, NULL);
    keys->refresh = refresh;
    return keys;
}

static void names_clear(struct keys *keys)
{
    for (size_t i = 0; i < keys->name_count; i++)
        free(keys->names[i].text);
    free(keys->names);
    keys->names = NULL;
    keys->name_count = 0;
}

void keys_free(struct keys *keys)
{
    if (!keys)
        return;
    for (size_t i = 0; i < keys->count; i++)
        backend_key_clear(&keys->entries[i].key);
    free(keys->entries);
    names_clear(keys);
    pthread_mutex_destroy(&keys->lock);
    free(keys);
}

void keys_list_clear(struct keys_list *list)
{
    free(list->handles);
    *list = (struct keys_list){0};
}

static bool list_add(const struct keys *keys, struct keys_list *list, size_t index)
{
    size_t parts = keys->entries[index].key.type == BACKEND_KEY_RSA ? 2 : 1;
    CK_OBJECT_HANDLE *handles = reallocarray(list->handles, list->count + parts, sizeof *handles);
    if (!handles)
        return false;
    list->handles = handles;
    for (size_t part = 0; part < parts; part++)
        handles[list->count++] = (index << 1 | part) + FIRST_HANDLE;
    return true;
}

static bool is_fresh(const struct keys *keys, int64_t learned)
{
    return learned && clock_monotonic() - learned < keys->refresh;
}

bool keys_all(struct keys *keys, struct keys_list *list, CK_RV *rv)
{
    *rv = CKR_OK;
    pthread_mutex_lock(&keys->lock);
    bool fresh = is_fresh(keys, keys->all_learned);
    for (size_t i = 0; fresh && i < keys->count; i++)
        if (!keys->entries[i].gone && !list_add(keys, list, i))
            *rv = CKR_HOST_MEMORY;
    pthread_mutex_unlock(&keys->lock);
    return fresh;
}

static struct name *find_name(const struct keys *keys, const char *text)
{
    for (size_t i = 0; i < keys->name_count; i++)
        if (strcmp(keys->names[i].text, text) == 0)
            return &keys->names[i];
    return NULL;
}

bool keys_named(struct keys *keys, const char *name, struct keys_list *list, CK_RV *rv)
{
    *rv = CKR_OK;
    pthread_mutex_lock(&keys->lock);
    const struct name *found = find_name(keys, name);
    bool fresh = found && is_fresh(keys, found->learned) && !keys->entries[found->entry].gone;
    if (fresh && !list_add(keys, list, found->entry))
        *rv = CKR_HOST_MEMORY;
    pthread_mutex_unlock(&keys->lock);
    return fresh;
}

static bool learn_name(struct keys *keys, const char *text, size_t entry, int64_t now)
{
    struct name *name = find_name(keys, text);
    if (!name) {
        struct name *names = reallocarray(keys->names, keys->name_count + 1, sizeof *names);
        if (!names)
            return false;
        keys->names = names;
        name = &names[keys->name_count];
        name->text = text_copy(text);
        if (!name->text)
            return false;
        keys->name_count++;
    }
    name->entry = entry;
    name->learned = now;
    return true;
}

static bool add_alias(struct backend_key *key, const char *alias)
{
    size_t count = 0;
    bool known = strcmp(key->label, alias) == 0;
    for (; key->aliases && key->aliases[count]; count++)
        known = known || strcmp(key->aliases[count], alias) == 0;
    if (known)
        return true;
    char **aliases = reallocarray(key->aliases, count + 2, sizeof *aliases);
    if (!aliases)
        return false;
    key->aliases = aliases;
    aliases[count] = text_copy(alias);
    aliases[count + 1] = NULL;
    return aliases[count] != NULL;
}

/* Described by one of its names, a key does not tell the others: those it was found by before stay. */
static bool keep_aliases(struct backend_key *learned, const struct backend_key *known)
{
    bool ok = true;
    for (char **alias = known->aliases; ok && alias && *alias; alias++)
        ok = add_alias(learned, *alias);
    return ok;
}

static bool has_name(const struct backend_key *key, const char *name)
{
    bool found = strcmp(key->label, name) == 0;
    for (char **alias = key->aliases; !found && alias && *alias; alias++)
        found = strcmp(*alias, name) == 0;
    return found;
}

/*
 * The entry of this key, old or new; its description is replaced by the new one. With all_names that has every name of
 * the key. Its label stays what it was as long as it is a name of it: an alias may have been moved to another key.
 */
static bool learn_key(struct keys *keys, struct backend_key *learned, bool all_names, size_t *index)
{
    for (size_t i = 0; i < keys->count; i++) {
        struct backend_key *known = &keys->entries[i].key;
        if (!known->id || strcmp(known->id, learned->id) != 0)
            continue;
        bool ok = true;
        if (!all_names || has_name(learned, known->label)) {
            char *label = learned->label;
            learned->label = known->label;
            known->label = NULL;
            ok = add_alias(learned, label) && (all_names || keep_aliases(learned, known));
            free(label);
        }
        backend_key_clear(known);
        *known = *learned;
        *learned = (struct backend_key){0};
        keys->entries[i].gone = false;
        *index = i;
        return ok;
    }
    struct entry *entries = reallocarray(keys->entries, keys->count + 1, sizeof *entries);
    if (!entries)
        return false;
    keys->entries = entries;
    entries[keys->count] = (struct entry){.key = *learned};
    *learned = (struct backend_key){0};
    *index = keys->count++;
    return true;
}

static bool learn_names_of(struct keys *keys, size_t index, int64_t now)
{
    const struct backend_key *key = &keys->entries[index].key;
    bool ok = learn_name(keys, key->id, index, now);
    for (char **alias = key->aliases; ok && alias && *alias; alias++)
        ok = learn_name(keys, *alias, index, now);
    return ok;
}

static CK_RV no_memory(void)
{
    error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a token's keys");
    return CKR_HOST_MEMORY;
}

CK_RV keys_learn_all(struct keys *keys, struct backend_keys *learned, struct keys_list *list)
{
    int64_t now = clock_monotonic();
    bool ok = true;
    pthread_mutex_lock(&keys->lock);
    for (size_t i = 0; i < keys->count; i++)
        keys->entries[i].gone = true;
    names_clear(keys);
    for (size_t i = 0; ok && i < learned->count; i++) {
        size_t index;
        ok = learn_key(keys, &learned->items[i], true, &index) && learn_names_of(keys, index, now) &&
             learn_name(keys, keys->entries[index].key.label, index, now) && list_add(keys, list, index);
    }
    keys->all_learned = ok ? now : 0;
    pthread_mutex_unlock(&keys->lock);
    return ok ? CKR_OK : no_memory();
}

CK_RV keys_learn_name(struct keys *keys, const char *name, struct backend_keys *learned, struct keys_list *list)
{
    int64_t now = clock_monotonic();
    bool ok = true;
    pthread_mutex_lock(&keys->lock);
    if (learned->count) {
        size_t index;
        ok = learn_key(keys, &learned->items[0], false, &index) && learn_names_of(keys, index, now) &&
             learn_name(keys, name, index, now) && list_add(keys, list, index);
    } else {
        struct name *known = find_name(keys, name);
        if (known)
            known->learned = 0;
    }
    pthread_mutex_unlock(&keys->lock);
    return ok ? CKR_OK : no_memory();
}

static struct entry *entry_at(const struct keys *keys, CK_OBJECT_HANDLE handle, enum keys_part *part)
{
    if (handle < FIRST_HANDLE || (handle - FIRST_HANDLE) >> 1 >= keys->count)
        return NULL;
    struct entry *entry = &keys->entries[(handle - FIRST_HANDLE) >> 1];
    *part = (handle - FIRST_HANDLE) & 1 ? KEYS_PUBLIC : KEYS_SECRET;
    if (entry->gone || (*part == KEYS_PUBLIC && entry->key.type != BACKEND_KEY_RSA))
        return NULL;
    return entry;
}

void keys_forget(struct keys *keys, CK_OBJECT_HANDLE handle)
{
    enum keys_part part;
    pthread_mutex_lock(&keys->lock);
    struct entry *entry = entry_at(keys, handle, &part);
    if (entry)
        entry->gone = true;
    pthread_mutex_unlock(&keys->lock);
}

const struct backend_key *keys_acquire(struct keys *keys, CK_OBJECT_HANDLE handle, enum keys_part *part)
{
    pthread_mutex_lock(&keys->lock);
    struct entry *entry = entry_at(keys, handle, part);
    if (entry)
        return &entry->key;
    pthread_mutex_unlock(&keys->lock);
    return NULL;
}

void keys_release(struct keys *keys)
{
    pthread_mutex_unlock(&keys->lock);
}
