#include "json.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/secmem.h"

enum { SECRETS_MAX = 8 };

void json_taken_clear(struct json_taken *taken)
{
    buffer_clear(&taken->bytes);
    free(taken->values);
    *taken = (struct json_taken){0};
}

/* The index after the closing quote of the string that begins at `at` (after its opening quote), or 0. */
static size_t string_end(const struct buffer *text, size_t at)
{
    for (; at < text->length; at++) {
        if (text->bytes[at] == '\\')
            at++;
        else if (text->bytes[at] == '"')
            return at + 1;
    }
    return 0;
}

static size_t skip_blanks(const struct buffer *text, size_t at)
{
    while (at < text->length && strchr(" \t\r\n", text->bytes[at]) && text->bytes[at])
        at++;
    return at;
}

static const char *name_among(const struct buffer *text, size_t from, size_t length, const char *const names[],
                              size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(names[i]) == length && memcmp(names[i], text->bytes + from, length) == 0)
            return names[i];
    return NULL;
}

static int hex_value(uint8_t digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* What stands for one byte behind a backslash; *at is left on its last digit. 0 for what is not known. */
static char escaped(const struct buffer *text, size_t *at, size_t to)
{
    const uint8_t *bytes = text->bytes + *at;
    if (*at >= to)
        return '\0';
    if (bytes[0] == 'n')
        return '\n';
    if (bytes[0] == '/')
        return '/';
    if (bytes[0] != 'u' || to - *at < 5 || bytes[1] != '0' || bytes[2] != '0')
        return '\0';
    int high = hex_value(bytes[3]), low = hex_value(bytes[4]), byte = high * 16 + low;
    *at += 4;
    return high >= 2 && low >= 0 && byte <= CHAR_MAX ? (char)byte : '\0';
}

static bool unescape(const struct buffer *text, size_t from, size_t to, struct buffer *out)
{
    for (size_t at = from; at < to; at++) {
        char byte = (char)text->bytes[at];
        if (byte == '\\') {
            at++;
            byte = escaped(text, &at, to);
            if (!byte)
                return false;
        }
        buffer_append(out, &byte, 1);
        secmem_wipe(&byte, 1);
    }
    return true;
}

static bool add_value(struct json_taken *taken, const char *name, const struct buffer *text, size_t from, size_t to)
{
    /* Grown at every power of two. */
    if ((taken->count & (taken->count - 1)) == 0) {
        size_t capacity = taken->count ? taken->count * 2 : 1;
        struct json_value *values = reallocarray(taken->values, capacity, sizeof *values);
        if (!values) {
            error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the values of a reply");
            return false;
        }
        taken->values = values;
    }
    struct json_value *value = &taken->values[taken->count];
    *value = (struct json_value){.name = name, .at = taken->bytes.length};
    if (!unescape(text, from, to, &taken->bytes))
        return false;
    value->length = taken->bytes.length - value->at;
    buffer_append(&taken->bytes, "", 1);
    taken->count++;
    return buffer_ok(&taken->bytes);
}

/*
 * The member whose name ends before `at`: if its value is a string, it goes to taken, its number to rest, and *next is
 * behind it.
 */
static bool take_value(const struct buffer *text, const char *name, size_t at, size_t *next, struct buffer *rest,
                       struct json_taken *taken)
{
    size_t colon = skip_blanks(text, at);
    *next = at;
    if (colon == text->length || text->bytes[colon] != ':')
        return true;
    size_t value = skip_blanks(text, colon + 1);
    if (value == text->length || text->bytes[value] != '"')
        return true;
    size_t end = string_end(text, value + 1);
    char number[24];
    snprintf(number, sizeof number, ":\"#%zu\"", taken->count);
    if (!end || !add_value(taken, name, text, value + 1, end - 1))
        return false;
    buffer_append_text(rest, number);
    *next = end;
    return true;
}

static bool take_all(const struct buffer *text, const char *const names[], size_t name_count, struct buffer *rest,
                     struct json_taken *taken)
{
    size_t from = 0; /* what is not copied yet */
    for (size_t at = 0; at < text->length;) {
        if (text->bytes[at++] != '"')
            continue;
        size_t end = string_end(text, at);
        if (!end)
            return false;
        const char *name = name_among(text, at, end - 1 - at, names, name_count);
        at = end;
        if (!name)
            continue;
        buffer_append(rest, text->bytes + from, at - from);
        if (!take_value(text, name, at, &from, rest, taken))
            return false;
        at = from;
    }
    if (text->length)
        buffer_append(rest, text->bytes + from, text->length - from);
    return buffer_ok(rest);
}

bool json_take(const struct buffer *text, const char *const names[], size_t name_count, struct buffer *rest,
               struct json_taken *taken)
{
    if (take_all(text, names, name_count, rest, taken))
        return true;
    buffer_clear(rest);
    return false;
}

const char *json_taken_member(const struct json_taken *taken, const json_t *object, const char *name, size_t *length)
{
    const char *number = json_member(object, name);
    if (!number || number[0] != '#' || number[1] < '0' || number[1] > '9')
        return NULL;
    char *end;
    unsigned long index = strtoul(number + 1, &end, 10);
    if (*end || index >= taken->count || strcmp(taken->values[index].name, name) != 0)
        return NULL;
    *length = taken->values[index].length;
    return buffer_text(&taken->bytes) + taken->values[index].at;
}

static bool hand_over(const struct json_taken *taken, const struct json_value *value, struct json_secret *secret)
{
    const uint8_t *bytes = taken->bytes.bytes + value->at;
    if (secret->found || (!secret->lines && memchr(bytes, '\n', value->length)))
        return false;
    secret->found = true;
    buffer_append(secret->to, bytes, value->length);
    return buffer_ok(secret->to);
}

bool json_take_secrets(struct buffer *body, struct json_secret *secrets, size_t count)
{
    const char *names[SECRETS_MAX];
    struct buffer rest = {0};
    struct json_taken taken = {0};
    bool ok = count <= SECRETS_MAX;
    for (size_t i = 0; ok && i < count; i++)
        names[i] = secrets[i].name;
    ok = ok && json_take(body, names, count, &rest, &taken);
    for (size_t v = 0; ok && v < taken.count; v++)
        for (size_t i = 0; ok && i < count; i++)
            if (strcmp(secrets[i].name, taken.values[v].name) == 0)
                ok = hand_over(&taken, &taken.values[v], &secrets[i]);
    json_taken_clear(&taken);
    buffer_clear(body);
    if (ok)
        buffer_move(body, &rest);
    buffer_clear(&rest);
    return ok;
}

json_t *json_read(const struct buffer *body)
{
    if (!body->length)
        return NULL;
    json_t *root = json_loadb(buffer_text(body), body->length, JSON_REJECT_DUPLICATES, NULL);
    if (root && !json_is_object(root)) {
        json_decref(root);
        return NULL;
    }
    return root;
}

const char *json_member(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}
