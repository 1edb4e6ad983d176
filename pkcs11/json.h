/*
 * Reading JSON replies. Secret members are taken out of the text into buffers
 * of ours before the general parser (jansson, which uses the plain heap) sees
 * it; in the place of each it finds a number.
 */
#ifndef PKCS11_JSON_H
#define PKCS11_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#include "buffer.h"

struct json_value {
    const char *name; /* of the member: the caller's own text */
    size_t at, length;
};

/* Values taken out of a text, in the order in which they stood there. */
struct json_taken {
    struct buffer bytes; /* all of them, each ended by a NUL */
    struct json_value *values;
    size_t count;
};
void json_taken_clear(struct json_taken *taken);

/*
 * Copy text to rest without the string values of these members, which may stand at any depth and any number of times:
 * they go to taken, and each leaves its number behind ("#0", "#1", …), so that the tree tells which belongs where.
 * False, with an empty rest, if one of them holds an escape other than \/, \n and \u0020 to \u007f (\u003d is how some
 * write the = of base64; tokens and PEM need no other), if a string does not end, or for want of memory.
 */
bool json_take(const struct buffer *text, const char *const names[], size_t name_count, struct buffer *rest,
               struct json_taken *taken);
/* The value taken out of this member of the tree, NUL-terminated; NULL if there is none. */
const char *json_taken_member(const struct json_taken *taken, const json_t *object, const char *name, size_t *length);

struct json_secret {
    const char *name;  /* of the member, at any depth */
    struct buffer *to; /* its value is appended; left alone if there is no such member */
    bool found;
    bool lines; /* it may hold \n, which becomes a line's end: PEM */
};

/*
 * The same for members that occur once: move their values out of body. False, with an empty body, where json_take()
 * says so, or if one of them occurs twice or has lines and should not.
 */
bool json_take_secrets(struct buffer *body, struct json_secret *secrets, size_t count);

/* An object, or NULL (nothing raised) if body is not one; duplicate members and NULs in strings are refused. */
json_t *json_read(const struct buffer *body);
/* The member's text, or NULL if it is missing or no string. */
const char *json_member(const json_t *object, const char *name);

#endif
