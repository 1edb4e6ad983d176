/*
 * A growing run of bytes in secret memory (base/secmem.h): request bodies,
 * replies and plaintext live here, so that they are locked, not dumped, wiped
 * when released, and zero in a forked child.
 *
 * A buffer that could not grow keeps what it has and remembers the failure;
 * appending to it is then a no-op. So a writer checks buffer_ok() once, at the
 * end.
 */
#ifndef PKCS11_BUFFER_H
#define PKCS11_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    uint8_t *bytes; /* NUL-terminated one past length whenever not NULL */
    size_t length;
    size_t capacity;
    bool failed;
};

/* {0} is an empty buffer. */
void buffer_append(struct buffer *buffer, const void *bytes, size_t count);
void buffer_append_text(struct buffer *buffer, const char *text);
/* Room for count more bytes at the end, uncounted until buffer_grow_by; NULL if there is none. */
uint8_t *buffer_reserve(struct buffer *buffer, size_t count);
/* Wipe and drop what is beyond length. */
void buffer_truncate(struct buffer *buffer, size_t length);
/* Forget the contents (wiped), keep the memory. */
void buffer_reset(struct buffer *buffer);
/* Wipe and release; afterwards as {0}. */
void buffer_clear(struct buffer *buffer);
void buffer_move(struct buffer *to, struct buffer *from);
bool buffer_ok(const struct buffer *buffer);
/* The contents as a C string; "" for an empty buffer. */
const char *buffer_text(const struct buffer *buffer);

/* Standard base64 with padding. Decoding is strict: no blanks, no missing padding, no stray bits. */
void buffer_append_base64(struct buffer *buffer, const uint8_t *bytes, size_t count);
bool buffer_append_unbase64(struct buffer *buffer, const char *text, size_t count);

/* A JSON string, quoted and escaped. text must be UTF-8. */
void buffer_append_json(struct buffer *buffer, const char *text);

#endif
