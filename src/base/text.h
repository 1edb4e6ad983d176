/* Small text helpers: UTF-8 and key names, printing what is not ours to trust, hex. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KEY_NAME_MAX = 255 };

/* 1…255 bytes of valid UTF-8 without control characters (C0, DEL, C1). */
bool text_is_key_name(const char *name, size_t length);
bool text_is_utf8(const char *text, size_t length);

/* Copy text for an error message: control characters and invalid UTF-8 as \xNN, cut with "…" if need be. Returns to. */
const char *text_printable(const char *text, size_t length, char *to, size_t capacity);

/* 2·n digits and a NUL into to. */
void text_hex(const uint8_t *bytes, size_t count, char *to);
/* Exactly 2·count digits; false otherwise. */
bool text_unhex(const char *digits, uint8_t *bytes, size_t count);

/* strdup/asprintf that raise ENVELOPE_E_NO_MEMORY and return NULL. */
char *text_copy(const char *text);
char *text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
