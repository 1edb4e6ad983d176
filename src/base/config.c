#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/bio.h>
#include <openssl/conf.h>
#include <openssl/conferr.h>
#include <openssl/err.h>

#include "base/error.h"
#include "base/text.h"
#include "base/units.h"

enum { SHOWN_MAX = 128, FILE_SIZE_MAX = 1024 * 1024, WORD_MAX = 64, NEAR_ENOUGH = 3, NAMES_MAX = 64 };

/* OpenSSL's name for what stands before the first section header. */
static const char no_section[] = "default";

static const char *show(const char *text, char shown[SHOWN_MAX])
{
    return text_printable(text, strlen(text), shown, SHOWN_MAX);
}

/* --- The nearest known name --- */

static size_t least(size_t a, size_t b, size_t c)
{
    size_t smaller = a < b ? a : b;
    return smaller < c ? smaller : c;
}

/* How many letters must be inserted, left out or replaced; both words at most WORD_MAX long. */
static size_t edit_distance(const char *from, size_t from_length, const char *to, size_t to_length)
{
    size_t row[WORD_MAX + 1];
    for (size_t j = 0; j <= to_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= from_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= to_length; j++) {
            size_t above = row[j];
            size_t same = tolower((unsigned char)from[i - 1]) == tolower((unsigned char)to[j - 1]) ? 0 : 1;
            row[j] = least(above + 1, row[j - 1] + 1, diagonal + same);
            diagonal = above;
        }
    }
    return row[to_length];
}

const char *config_nearest(const char *word, const char *const *candidates, size_t count)
{
    size_t length = strlen(word);
    const char *nearest = NULL;
    size_t smallest = NEAR_ENOUGH + 1;
    if (length > WORD_MAX)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t candidate_length = strlen(candidates[i]);
        if (candidate_length > WORD_MAX)
            continue;
        size_t distance = edit_distance(word, length, candidates[i], candidate_length);
        size_t longer = length > candidate_length ? length : candidate_length;
        /* More than half of it different: another word, not a slip. */
        if (distance < smallest && distance * 2 <= longer) {
            smallest = distance;
            nearest = candidates[i];
        }
    }
    return nearest;
}

/* --- The file --- */

static envelope_status cannot_read(const char *path, int error)
{
    char shown[SHOWN_MAX];
    show(path, shown);
    switch (error) {
    case ENOENT:
        return error_raise(ENVELOPE_E_CONFIG,
                           "there is no configuration file %s; make it (see envelope.cnf(5)) or name another with "
                           "ENVELOPE_CONFIG",
                           shown);
    case EACCES:
        return error_raise(
            ENVELOPE_E_CONFIG,
            "the configuration file %s may not be read by user %lu; change its mode or owner, or those of "
            "the directories above it",
            shown, (unsigned long)geteuid());
    case EISDIR:
        return error_raise(ENVELOPE_E_CONFIG, "the configuration file %s is a directory; name the file in it", shown);
    default:
        return error_raise(ENVELOPE_E_CONFIG, "the configuration file %s cannot be read: %s", shown, strerror(error));
    }
}

/* Reads to the end or to capacity. Returns the count, or -1 with errno. */
static ssize_t read_all(int fd, char *to, size_t capacity)
{
    size_t used = 0;
    while (used < capacity) {
        ssize_t got = read(fd, to + used, capacity - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        used += (size_t)got;
    }
    return (ssize_t)used;
}

/* The whole file as text, to be freed; NULL with the error raised. */
static char *read_file(const char *path)
{
    char shown[SHOWN_MAX];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        cannot_read(path, errno);
        return NULL;
    }
    char *text = malloc(FILE_SIZE_MAX + 1);
    ssize_t length = text ? read_all(fd, text, FILE_SIZE_MAX + 1) : 0;
    int error = errno;
    close(fd);
    if (!text)
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory to read %s", show(path, shown));
    else if (length < 0)
        cannot_read(path, error);
    else if (length > FILE_SIZE_MAX)
        error_raise(ENVELOPE_E_CONFIG, "%s is larger than 1 MiB; it is no configuration file", show(path, shown));
    else if (memchr(text, '\0', (size_t)length))
        error_raise(ENVELOPE_E_CONFIG, "%s holds a NUL byte; it is no configuration file", show(path, shown));
    else {
        text[length] = '\0';
        return text;
    }
    free(text);
    return NULL;
}

/* --- Its syntax: NCONF's --- */

static const char *syntax_problem(unsigned long error)
{
    if (ERR_GET_LIB(error) != ERR_LIB_CONF)
        return "cannot be understood";
    switch (ERR_GET_REASON(error)) {
    case CONF_R_MISSING_EQUAL_SIGN:
        return "has no equals sign; lines read \"key = value\"";
    case CONF_R_MISSING_CLOSE_SQUARE_BRACKET:
        return "opens a section without the closing ]";
    case CONF_R_NO_CLOSE_BRACE:
        return "uses a variable without the closing brace; write \\$ for a plain dollar sign";
    case CONF_R_VARIABLE_HAS_NO_VALUE:
        return "uses a variable that has no value; write \\$ for a plain dollar sign";
    case CONF_R_VARIABLE_EXPANSION_TOO_LONG:
        return "grows too long when its variables are filled in";
    default:
        return "cannot be understood";
    }
}

/*
 * NCONF reports a file of .include that is missing to the error queue, and goes
 * on without it. Here it is an error: what it holds may matter.
 */
static envelope_status load_outcome(const char *path, int loaded, long line, bool includes)
{
    char shown[SHOWN_MAX], detail[SHOWN_MAX];
    const char *data = NULL;
    unsigned long error = ERR_peek_last_error_data(&data, NULL);
    bool marker_last = ERR_GET_LIB(error) == ERR_LIB_USER;
    if (loaded && marker_last)
        return ENVELOPE_OK;
    show(path, shown);
    if (loaded || (includes && ERR_SYSTEM_ERROR(error)))
        return error_raise(ENVELOPE_E_CONFIG, "%s: a file named by .include cannot be read (%s%s%s)", shown,
                           data ? show(data, detail) : "", data && data[0] ? ": " : "",
                           ERR_SYSTEM_ERROR(error) ? strerror(ERR_GET_REASON(error)) : "no reason given");
    return error_raise(ENVELOPE_E_CONFIG, "%s: line %ld%s %s", shown, line,
                       includes ? " (or that line of a file it includes)" : "",
                       marker_last ? "cannot be understood" : syntax_problem(error));
}

static envelope_status parse(const char *path, char *text, CONF *conf)
{
    long line = 0;
    int loaded = 0;
    ERR_set_mark();
    ERR_raise(ERR_LIB_USER, ERR_R_OPERATION_FAIL); /* a marker: whatever comes after it is NCONF's */
    BIO *bio = BIO_new_mem_buf(text, -1);
    if (bio)
        loaded = NCONF_load_bio(conf, bio, &line);
    envelope_status status = bio ? load_outcome(path, loaded, line, strstr(text, ".include") != NULL)
                                 : error_raise(ENVELOPE_E_NO_MEMORY, "no memory to read the configuration");
    BIO_free(bio);
    ERR_pop_to_mark();
    return status;
}

/* --- Values --- */

/* Where a value stands, for messages. */
struct place {
    const char *path;
    const char *section;
    const char *key;
};

static envelope_status refuse(const struct place *place, const char *problem)
{
    char path[SHOWN_MAX], section[SHOWN_MAX];
    return error_raise(ENVELOPE_E_CONFIG, "%s: [%s] %s: %s", show(place->path, path), show(place->section, section),
                       place->key, problem);
}

/* The thread's error, raised by a parser of units.h, put into its place. */
static envelope_status refuse_unit(const struct place *place)
{
    char problem[512];
    snprintf(problem, sizeof problem, "%s", error_text());
    return refuse(place, problem);
}

static envelope_status refuse_range(const struct place *place, const char *value, const char *min, const char *max)
{
    char shown[SHOWN_MAX], problem[512];
    show(value, shown);
    if (max)
        snprintf(problem, sizeof problem, "\"%s\" is out of range; it must be from %s to %s", shown, min, max);
    else
        snprintf(problem, sizeof problem, "\"%s\" is out of range; it must be at least %s", shown, min);
    return refuse(place, problem);
}

/* Names as "a, b or c", cut where the space ends. */
static void list_names(const char *const *names, size_t count, char *to, size_t capacity)
{
    size_t used = 0;
    to[0] = '\0';
    for (size_t i = 0; i < count && used < capacity; i++) {
        const char *joint = i == 0 ? "" : i + 1 == count ? " or " : ", ";
        int wrote = snprintf(to + used, capacity - used, "%s%s", joint, names[i]);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
}

static envelope_status set_text(const struct place *place, const char *value, char **member)
{
    if (value[0] == '\0')
        return refuse(place, "has no value; give one or remove the line");
    char *copy = text_copy(value);
    if (!copy)
        return error_status();
    free(*member);
    *member = copy;
    return ENVELOPE_OK;
}

static envelope_status set_bool(const struct place *place, const char *value, bool *member)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    char shown[SHOWN_MAX], problem[256];
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcasecmp(value, words[i]) == 0) {
            *member = i % 2 == 1;
            return ENVELOPE_OK;
        }
    snprintf(problem, sizeof problem, "\"%s\" is neither yes nor no", show(value, shown));
    return refuse(place, problem);
}

static envelope_status set_choice(const struct place *place, const char *value, const char *const *choices, int *member)
{
    char shown[SHOWN_MAX], list[256], problem[512];
    int count = 0;
    for (; choices[count]; count++)
        if (strcmp(value, choices[count]) == 0) {
            *member = count;
            return ENVELOPE_OK;
        }
    list_names(choices, (size_t)count, list, sizeof list);
    snprintf(problem, sizeof problem, "\"%s\" is not one of %s", show(value, shown), list);
    return refuse(place, problem);
}

static envelope_status take_size(const struct place *place, const char *value, const struct config_key *key,
                                 uint64_t *number)
{
    char min[24], max[24];
    if (units_parse_size(value, number))
        return refuse_unit(place);
    if (*number >= (uint64_t)key->min && (key->max == 0 || *number <= (uint64_t)key->max))
        return ENVELOPE_OK;
    snprintf(min, sizeof min, "%lld", (long long)key->min);
    snprintf(max, sizeof max, "%lld", (long long)key->max);
    return refuse_range(place, value, min, key->max ? max : NULL);
}

static envelope_status set_unsigned(const struct place *place, const char *value, const struct config_key *key,
                                    unsigned *member)
{
    uint64_t number;
    if (value[0] == '\0' || value[strspn(value, "0123456789")] != '\0') {
        char shown[SHOWN_MAX], problem[256];
        snprintf(problem, sizeof problem, "\"%s\" is not a number", show(value, shown));
        return refuse(place, problem);
    }
    envelope_status status = take_size(place, value, key, &number);
    if (status)
        return status;
    if (number > UINT32_MAX)
        return refuse(place, "the number is too large");
    *member = (unsigned)number;
    return ENVELOPE_OK;
}

static envelope_status set_duration(const struct place *place, const char *value, const struct config_key *key,
                                    int64_t *member)
{
    char min[UNITS_TEXT_MAX], max[UNITS_TEXT_MAX];
    int64_t duration;
    if (units_parse_duration(value, &duration))
        return refuse_unit(place);
    if (duration < key->min || (key->max != 0 && duration > key->max))
        return refuse_range(place, value, units_duration_text(key->min, min),
                            key->max ? units_duration_text(key->max, max) : NULL);
    *member = duration;
    return ENVELOPE_OK;
}

static envelope_status set_value(const struct place *place, const struct config_key *key, const char *value,
                                 void *target)
{
    void *member = (char *)target + key->offset;
    switch (key->type) {
    case CONFIG_TEXT:
        return set_text(place, value, member);
    case CONFIG_BOOL:
        return set_bool(place, value, member);
    case CONFIG_UNSIGNED:
        return set_unsigned(place, value, key, member);
    case CONFIG_SIZE:
        return take_size(place, value, key, member);
    case CONFIG_DURATION:
        return set_duration(place, value, key, member);
    case CONFIG_CHOICE:
        return set_choice(place, value, key->choices, member);
    }
    return error_raise(ENVELOPE_E_INTERNAL, "key %s has a type that does not exist", key->name);
}

/* The value without blanks around it, to be freed: NCONF leaves those that quotes and variables bring. */
static char *trimmed(const char *value)
{
    while (isspace((unsigned char)*value))
        value++;
    char *copy = text_copy(value);
    if (!copy)
        return NULL;
    size_t length = strlen(copy);
    while (length > 0 && isspace((unsigned char)copy[length - 1]))
        length--;
    copy[length] = '\0';
    return copy;
}

/* --- Sections --- */

struct reading {
    const char *path;
    const struct config_section *sections;
    size_t count;
    void *target;
};

/* What follows "NAME " in a section called "NAME *", or NULL if it is no such section. */
static const char *instance_of(const struct config_section *section, const char *name)
{
    size_t prefix = strlen(section->name);
    if (prefix < 2 || strcmp(section->name + prefix - 2, " *") != 0)
        return NULL;
    prefix--;
    return strncmp(name, section->name, prefix) == 0 && name[prefix] != '\0' ? name + prefix : NULL;
}

static const struct config_section *section_find(const struct reading *reading, const char *name)
{
    for (size_t i = 0; i < reading->count; i++)
        if (strcmp(reading->sections[i].name, name) == 0 || instance_of(&reading->sections[i], name))
            return &reading->sections[i];
    return NULL;
}

static const struct config_key *key_find(const struct config_section *section, const char *name)
{
    for (size_t i = 0; i < section->key_count; i++)
        if (strcmp(section->keys[i].name, name) == 0)
            return &section->keys[i];
    return NULL;
}

/* The section a key of that name belongs to, or NULL. */
static const char *home_of(const struct reading *reading, const char *key)
{
    for (size_t i = 0; i < reading->count; i++)
        if (key_find(&reading->sections[i], key))
            return reading->sections[i].name;
    return NULL;
}

static envelope_status unknown_section(const struct reading *reading, const char *name)
{
    char path[SHOWN_MAX], shown[SHOWN_MAX], list[256];
    const char *names[NAMES_MAX];
    size_t count = 0;
    for (; count < reading->count && count < NAMES_MAX; count++)
        names[count] = reading->sections[count].name;
    show(reading->path, path);
    show(name, shown);
    const char *nearest = config_nearest(name, names, count);
    if (nearest)
        return error_raise(ENVELOPE_E_CONFIG, "%s: unknown section [%s]; did you mean [%s]?", path, shown, nearest);
    list_names(names, count, list, sizeof list);
    return error_raise(ENVELOPE_E_CONFIG, "%s: unknown section [%s]; known are %s", path, shown, list);
}

static envelope_status unknown_key(const struct reading *reading, const struct config_section *section,
                                   const char *section_name, const char *name)
{
    char path[SHOWN_MAX], shown_section[SHOWN_MAX], shown[SHOWN_MAX], list[512];
    const char *names[NAMES_MAX];
    size_t count = 0;
    for (; count < section->key_count && count < NAMES_MAX; count++)
        names[count] = section->keys[count].name;
    show(reading->path, path);
    show(section_name, shown_section);
    show(name, shown);
    const char *home = home_of(reading, name);
    if (home)
        return error_raise(ENVELOPE_E_CONFIG, "%s: key %s does not belong in section [%s]; move it to [%s]", path,
                           shown, shown_section, home);
    const char *nearest = config_nearest(name, names, count);
    if (nearest)
        return error_raise(ENVELOPE_E_CONFIG, "%s: unknown key %s in section [%s]; did you mean %s?", path, shown,
                           shown_section, nearest);
    list_names(names, count, list, sizeof list);
    return error_raise(ENVELOPE_E_CONFIG, "%s: unknown key %s in section [%s]; known are %s", path, shown,
                       shown_section, list);
}

static envelope_status key_before_section(const struct reading *reading, const char *name)
{
    char path[SHOWN_MAX], shown[SHOWN_MAX];
    const char *home = home_of(reading, name);
    return error_raise(ENVELOPE_E_CONFIG, "%s: key %s stands before any section; put it under [%s]",
                       show(reading->path, path), show(name, shown), home ? home : reading->sections[0].name);
}

static envelope_status check_required(const struct reading *reading, const struct config_section *section,
                                      const char *section_name, STACK_OF(CONF_VALUE) * values)
{
    char path[SHOWN_MAX], shown[SHOWN_MAX];
    for (size_t i = 0; i < section->key_count; i++) {
        bool found = !section->keys[i].required;
        for (int j = 0; !found && j < sk_CONF_VALUE_num(values); j++)
            found = strcmp(sk_CONF_VALUE_value(values, j)->name, section->keys[i].name) == 0;
        if (!found)
            return error_raise(ENVELOPE_E_CONFIG, "%s: key %s is missing in section [%s]", show(reading->path, path),
                               section->keys[i].name, show(section_name, shown));
    }
    return ENVELOPE_OK;
}

static envelope_status read_section(const struct reading *reading, const CONF *conf, const char *name)
{
    STACK_OF(CONF_VALUE) *values = NCONF_get_section(conf, name);
    const struct config_section *section = section_find(reading, name);
    if (!section && strcmp(name, no_section) == 0)
        return sk_CONF_VALUE_num(values) > 0 ? key_before_section(reading, sk_CONF_VALUE_value(values, 0)->name)
                                             : ENVELOPE_OK;
    if (!section)
        return unknown_section(reading, name);
    const char *instance = instance_of(section, name);
    void *target = reading->target;
    if (instance && !(target = section->target(reading->target, instance)))
        return error_status();
    for (int i = 0; i < sk_CONF_VALUE_num(values); i++) {
        const CONF_VALUE *pair = sk_CONF_VALUE_value(values, i);
        const struct config_key *key = key_find(section, pair->name);
        if (!key)
            return unknown_key(reading, section, name, pair->name);
        char *value = trimmed(pair->value ? pair->value : "");
        if (!value)
            return error_status();
        const struct place place = {reading->path, name, key->name};
        envelope_status status = set_value(&place, key, value, target);
        free(value);
        if (status)
            return status;
    }
    return check_required(reading, section, name, values);
}

static envelope_status read_sections(const struct reading *reading, const CONF *conf)
{
    STACK_OF(OPENSSL_CSTRING) *names = NCONF_get_section_names(conf);
    if (!names)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory to read the configuration");
    envelope_status status = ENVELOPE_OK;
    for (int i = 0; !status && i < sk_OPENSSL_CSTRING_num(names); i++)
        status = read_section(reading, conf, sk_OPENSSL_CSTRING_value(names, i));
    for (size_t i = 0; !status && i < reading->count; i++) {
        char shown[SHOWN_MAX];
        const char *required = reading->sections[i].required ? reading->sections[i].name : NULL;
        if (required && !NCONF_get_section(conf, required))
            status =
                error_raise(ENVELOPE_E_CONFIG, "%s: section [%s] is missing", show(reading->path, shown), required);
    }
    sk_OPENSSL_CSTRING_free(names);
    return status;
}

envelope_status config_read(const char *path, const struct config_section *sections, size_t count, void *target)
{
    const struct reading reading = {path, sections, count, target};
    envelope_status status;
    char *text = read_file(path);
    /* Not NCONF_default(): nothing of the program's own configuration is loaded or touched. */
    CONF *conf = text ? NCONF_new(NULL) : NULL;
    if (!text)
        status = error_status();
    else if (!conf)
        status = error_raise(ENVELOPE_E_NO_MEMORY, "no memory to read the configuration");
    else {
        status = parse(path, text, conf);
        if (!status)
            status = read_sections(&reading, conf);
    }
    NCONF_free(conf);
    free(text);
    if (status)
        config_clear(sections, count, target);
    return status;
}

void config_clear(const struct config_section *sections, size_t count, void *target)
{
    for (size_t i = 0; i < count; i++) {
        if (sections[i].target) /* a "NAME *" section: its members lie elsewhere */
            continue;
        for (size_t j = 0; j < sections[i].key_count; j++) {
            if (sections[i].keys[j].type != CONFIG_TEXT)
                continue;
            char **member = (char **)(void *)((char *)target + sections[i].keys[j].offset);
            free(*member);
            *member = NULL;
        }
    }
}
