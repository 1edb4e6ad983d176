/*
 * Strict reading of configuration files in OpenSSL's syntax (NCONF, config(5)):
 * a section or key that is not in the schema is an error naming the file, the
 * section, the key and the nearest known name; so is a value its type refuses.
 */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

enum config_type {
    CONFIG_TEXT,     /* char *, owned by the target (free with config_clear) */
    CONFIG_BOOL,     /* bool: yes/no/true/false/on/off/1/0 */
    CONFIG_UNSIGNED, /* unsigned, within [min, max] */
    CONFIG_SIZE,     /* uint64_t, units.h, within [min, max] */
    CONFIG_DURATION, /* int64_t microseconds, units.h, within [min, max] */
    CONFIG_CHOICE    /* int: index into choices */
};

struct config_key {
    const char *name;
    enum config_type type;
    size_t offset; /* of the member in the target */
    bool required;
    int64_t min, max;           /* for numbers; max 0: no upper bound */
    const char *const *choices; /* NULL-terminated, for CONFIG_CHOICE */
};

struct config_section {
    const char *name; /* "hsm"; or "token *": every section "token NAME" */
    const struct config_key *keys;
    size_t key_count;
    bool required;
    /* For "NAME *" sections: the target for one of them, given what follows the blank; NULL on error (raised). */
    void *(*target)(void *base, const char *instance);
};

/* Fill target (already holding the defaults) from path. On error target is as it was after config_clear(). */
envelope_status config_read(const char *path, const struct config_section *sections, size_t count, void *target);
/* Free the CONFIG_TEXT members of the fixed sections and set them to NULL. */
void config_clear(const struct config_section *sections, size_t count, void *target);

/* The name among candidates nearest to word (edit distance at most 3, and at most half the word), or NULL. */
const char *config_nearest(const char *word, const char *const *candidates, size_t count);

#endif
