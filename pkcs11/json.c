#include "json.h"

#include <string.h>

#include "base/secmem.h"

/* The index after the closing quote of the string that begins at `at` (after its opening quote), or 0. */
static size_t string_end(const struct buffer *body, size_t at)
{
    for (; at < body->length; at++) {
        if (body->bytes[at] == '\\')
            at++;
        else if (body->bytes[at] == '"')
            return at + 1;
    }
    return 0;
}

static size_t skip_blanks(const struct buffer *body, size_t at)
{
    while (at < body->length && strchr(" \t\r\n", body->bytes[at]) && body->bytes[at])
        at++;
    return at;
}

static struct json_secret *named(const struct buffer *body, size_t from, size_t length, struct json_secret *secrets,
                                 size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(secrets[i].name) == length && memcmp(secrets[i].name, body->bytes + from, length) == 0)
            return &secrets[i];
    return NULL;
}

static bool take(struct buffer *body, size_t from, size_t to, struct json_secret *secret)
{
    if (secret->found)
        return false;
    secret->found = true;
    for (size_t at = from; at < to; at++) {
        const char *byte = (const char *)body->bytes + at;
        if (*byte == '\\') {
            byte = ++at < to ? byte + 1 : "";
            if (*byte == 'n' && secret->lines)
                byte = "\n";
            else if (*byte != '/')
                return false;
        }
        buffer_append(secret->to, byte, 1);
    }
    secmem_wipe(body->bytes + from, to - from);
    memset(body->bytes + from, ' ', to - from);
    return buffer_ok(secret->to);
}

bool json_take_secrets(struct buffer *body, struct json_secret *secrets, size_t count)
{
    for (size_t at = 0; at < body->length;) {
        if (body->bytes[at++] != '"')
            continue;
        size_t end = string_end(body, at);
        if (!end)
            return true; /* not JSON: json_read() says so */
        struct json_secret *secret = named(body, at, end - 1 - at, secrets, count);
        at = end;
        size_t colon = skip_blanks(body, at);
        if (!secret || colon == body->length || body->bytes[colon] != ':')
            continue;
        size_t value = skip_blanks(body, colon + 1);
        if (value == body->length || body->bytes[value] != '"')
            continue;
        end = string_end(body, value + 1);
        if (!end)
            return true;
        if (!take(body, value + 1, end - 1, secret))
            return false;
        at = end;
    }
    return true;
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
