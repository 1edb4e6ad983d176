/* States as words, and the steps between them (SP 800-57 part 1, 8.2.4), for every engine alike. */
#include "store/engine.h"

#include <string.h>

#include "base/error.h"

static const char *const version_states[] = {
    [STORE_VERSION_ACTIVE] = "active",       [STORE_VERSION_DEACTIVATED] = "deactivated",
    [STORE_VERSION_SUSPENDED] = "suspended", [STORE_VERSION_PENDING_DESTRUCTION] = "pending-destruction",
    [STORE_VERSION_DESTROYED] = "destroyed",
};

static const char *const key_states[] = {
    [STORE_KEY_ENABLED] = "enabled",
    [STORE_KEY_SUSPENDED] = "suspended",
    [STORE_KEY_DESTROYED] = "destroyed",
};

static const char *const algorithms[] = {
    [STORE_AES_256_GCM] = "AES-256-GCM",
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const char *word_of(const char *const *table, size_t count, unsigned value)
{
    return value < count && table[value] ? table[value] : "unknown";
}

static unsigned value_of(const char *const *table, size_t count, const char *word)
{
    for (unsigned i = 1; i < count; i++)
        if (table[i] && strcmp(table[i], word) == 0)
            return i;
    return 0;
}

const char *store_version_state_text(enum store_version_state state)
{
    return word_of(version_states, COUNT(version_states), (unsigned)state);
}

const char *store_key_state_text(enum store_key_state state)
{
    return word_of(key_states, COUNT(key_states), (unsigned)state);
}

const char *store_algorithm_text(enum store_algorithm algorithm)
{
    return word_of(algorithms, COUNT(algorithms), (unsigned)algorithm);
}

enum store_version_state store_version_state_from_text(const char *text)
{
    return (enum store_version_state)value_of(version_states, COUNT(version_states), text);
}

enum store_key_state store_key_state_from_text(const char *text)
{
    return (enum store_key_state)value_of(key_states, COUNT(key_states), text);
}

enum store_algorithm store_algorithm_from_text(const char *text)
{
    return (enum store_algorithm)value_of(algorithms, COUNT(algorithms), text);
}

/* Whom a step is for. */
enum step_for { ANYONE, PRIMARY_ONLY, OTHERS_ONLY, NOT_PRIMARY_OF_ENABLED };

struct step {
    enum store_version_state from, to;
    enum step_for who;
    const char *text;
};

static const struct step steps[] = {
    {STORE_VERSION_ACTIVE, STORE_VERSION_SUSPENDED, ANYONE, "suspend"},
    {STORE_VERSION_DEACTIVATED, STORE_VERSION_SUSPENDED, ANYONE, "suspend"},
    {STORE_VERSION_SUSPENDED, STORE_VERSION_ACTIVE, PRIMARY_ONLY, "resume"},
    {STORE_VERSION_SUSPENDED, STORE_VERSION_DEACTIVATED, OTHERS_ONLY, "resume"},
    {STORE_VERSION_DEACTIVATED, STORE_VERSION_PENDING_DESTRUCTION, NOT_PRIMARY_OF_ENABLED, "schedule-destruction"},
    {STORE_VERSION_SUSPENDED, STORE_VERSION_PENDING_DESTRUCTION, NOT_PRIMARY_OF_ENABLED, "schedule-destruction"},
    {STORE_VERSION_PENDING_DESTRUCTION, STORE_VERSION_DEACTIVATED, ANYONE, "cancel-destruction"},
    {STORE_VERSION_PENDING_DESTRUCTION, STORE_VERSION_DESTROYED, ANYONE, "destroy"},
};

static const struct step *find_step(enum store_version_state from, enum store_version_state to)
{
    for (size_t i = 0; i < COUNT(steps); i++)
        if (steps[i].from == from && steps[i].to == to)
            return &steps[i];
    return NULL;
}

bool store_version_step_exists(enum store_version_state from, enum store_version_state to)
{
    return find_step(from, to) != NULL;
}

const char *store_version_step_text(enum store_version_state from, enum store_version_state to)
{
    const struct step *step = find_step(from, to);
    return step ? step->text : "change";
}

static envelope_status refuse(const struct step *step, const struct store_version_place *place, const char *why)
{
    return error_raise(ENVELOPE_E_VERSION_STATE, "cannot move version %u of key \"%s\" from %s to %s: %s",
                       (unsigned)place->number, place->key_name, store_version_state_text(step->from),
                       store_version_state_text(step->to), why);
}

envelope_status store_version_step_allowed(enum store_version_state from, enum store_version_state to,
                                           const struct store_version_place *place)
{
    const struct step *step = find_step(from, to);
    if (!step)
        return error_raise(ENVELOPE_E_INTERNAL, "a step that does not exist was not refused before");
    if (step->who == PRIMARY_ONLY && !place->is_primary)
        return refuse(step, place, "only the primary version is active; resume it as deactivated");
    if (step->who == OTHERS_ONLY && place->is_primary)
        return refuse(step, place, "it is the primary version; resume it as active");
    if (step->who == NOT_PRIMARY_OF_ENABLED && place->is_primary && place->key_state == STORE_KEY_ENABLED)
        return refuse(step, place, "it is the primary version; rotate or suspend the key first");
    return ENVELOPE_OK;
}
