/*
 * Reading JSON replies. Secret members are taken out of the text into buffers
 * of ours before the general parser (jansson, which uses the plain heap) sees
 * it; in their place it finds blanks.
 */
#ifndef PKCS11_JSON_H
#define PKCS11_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#include "buffer.h"

struct json_secret {
    const char *name;  /* of the member, at any depth */
    struct buffer *to; /* its value is appended; left alone if there is no such member */
    bool found;
    bool lines; /* it may hold \n, which becomes a line's end: PEM */
};

/*
 * Move the string values of these members out of body. False if one of them occurs twice or holds an escape other
 * than \/ (base64 and tokens need none) and, where lines are meant, \n.
 */
bool json_take_secrets(struct buffer *body, struct json_secret *secrets, size_t count);

/* An object, or NULL (nothing raised) if body is not one; duplicate members and NULs in strings are refused. */
json_t *json_read(const struct buffer *body);
/* The member's text, or NULL if it is missing or no string. */
const char *json_member(const json_t *object, const char *name);

#endif
