/*
 * Reading JSON where it lies, without copying or allocating: replies carry
 * plaintext and tokens, which must not be strewn over the heap by a parser's
 * own buffers.
 */
#ifndef PKCS11_BAO_JSON_H
#define PKCS11_BAO_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

enum bao_json_kind {
    BAO_JSON_MISSING,
    BAO_JSON_NULL,
    BAO_JSON_BOOL,
    BAO_JSON_NUMBER,
    BAO_JSON_STRING,
    BAO_JSON_ARRAY,
    BAO_JSON_OBJECT
};

/* One value, inside the text that bao_json_parse() accepted. {0} is a missing value: every reader below takes it. */
struct bao_json {
    const char *text;
    size_t length;
};

/* The whole text is one value of RFC 8259, valid UTF-8, nested at most 32 deep. */
bool bao_json_parse(const char *text, size_t length, struct bao_json *root);

enum bao_json_kind bao_json_kind(struct bao_json value);
/* The first member of that name; missing if there is none, or if this is no object. */
struct bao_json bao_json_member(struct bao_json object, const char *name);
/* The next element of an array or object (name is missing in arrays). *at starts at 0. */
bool bao_json_next(struct bao_json container, size_t *at, struct bao_json *name, struct bao_json *value);

/* Append a string's contents, unescaped. False, with nothing appended, if it is no string or contains U+0000. */
bool bao_json_string(struct bao_json value, struct buffer *to);
/* The same into memory of one's own; false if it does not fit. */
bool bao_json_copy(struct bao_json value, char *to, size_t capacity);
/* A string of exactly this text (which needs no escapes). */
bool bao_json_is(struct bao_json value, const char *text);
/* A whole number that fits. */
bool bao_json_integer(struct bao_json value, int64_t *number);
bool bao_json_true(struct bao_json value);

#endif
