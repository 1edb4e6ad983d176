#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* The length of the UTF-8 character at text (its code point in *point), or 0 if there is none within length. */
static size_t decode(const char *text, size_t length, uint32_t *point)
{
    const uint8_t *bytes = (const uint8_t *)text;
    if (length == 0)
        return 0;
    if (bytes[0] < 0x80) {
        *point = bytes[0];
        return 1;
    }
    size_t count;
    uint32_t lowest;
    if ((bytes[0] & 0xe0) == 0xc0) {
        count = 2;
        lowest = 0x80;
        *point = bytes[0] & 0x1fU;
    } else if ((bytes[0] & 0xf0) == 0xe0) {
        count = 3;
        lowest = 0x800;
        *point = bytes[0] & 0x0fU;
    } else if ((bytes[0] & 0xf8) == 0xf0) {
        count = 4;
        lowest = 0x10000;
        *point = bytes[0] & 0x07U;
    } else {
        return 0;
    }
    if (count > length)
        return 0;
    for (size_t i = 1; i < count; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        *point = *point << 6 | (bytes[i] & 0x3fU);
    }
    /* Overlong forms, surrogates and what lies above Unicode are not UTF-8. */
    if (*point < lowest || *point > 0x10ffff || (*point >= 0xd800 && *point <= 0xdfff))
        return 0;
    return count;
}

static bool is_control(uint32_t point)
{
    return point < 0x20 || (point >= 0x7f && point <= 0x9f);
}

bool text_is_utf8(const char *text, size_t length)
{
    uint32_t point;
    for (size_t at = 0, step; at < length; at += step) {
        step = decode(text + at, length - at, &point);
        if (step == 0)
            return false;
    }
    return true;
}

bool text_is_key_name(const char *name, size_t length)
{
    if (length == 0 || length > KEY_NAME_MAX)
        return false;
    uint32_t point;
    for (size_t at = 0, step; at < length; at += step) {
        step = decode(name + at, length - at, &point);
        if (step == 0 || is_control(point))
            return false;
    }
    return true;
}

/* What is printed for the next character or byte of text: at most 8 bytes and a NUL. Returns how much was taken. */
static size_t next_piece(const char *text, size_t length, char piece[9])
{
    uint32_t point;
    size_t taken = decode(text, length, &point);
    if (taken > 0 && !is_control(point)) {
        memcpy(piece, text, taken);
        piece[taken] = '\0';
        return taken;
    }
    if (taken == 0)
        taken = 1;
    for (size_t i = 0; i < taken; i++) /* at most two bytes: C1 */
        snprintf(piece + 4 * i, 5, "\\x%02x", (unsigned)(uint8_t)text[i]);
    return taken;
}

const char *text_printable(const char *text, size_t length, char *to, size_t capacity)
{
    static const char ellipsis[] = "…";
    char piece[9];
    if (capacity == 0)
        return to;
    to[0] = '\0';
    size_t used = 0, fits_with_ellipsis = 0;
    for (size_t at = 0; at < length;) {
        at += next_piece(text + at, length - at, piece);
        size_t grown = used + strlen(piece);
        if (grown >= capacity) {
            if (capacity >= sizeof ellipsis)
                memcpy(to + fits_with_ellipsis, ellipsis, sizeof ellipsis);
            else
                to[0] = '\0';
            return to;
        }
        memcpy(to + used, piece, grown - used + 1);
        used = grown;
        if (used + sizeof ellipsis <= capacity)
            fits_with_ellipsis = used;
    }
    return to;
}

void text_hex(const uint8_t *bytes, size_t count, char *to)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < count; i++) {
        to[2 * i] = digits[bytes[i] >> 4];
        to[2 * i + 1] = digits[bytes[i] & 0x0f];
    }
    to[2 * count] = '\0';
}

static int digit_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

bool text_unhex(const char *digits, uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int high = digit_value(digits[2 * i]);
        int low = high < 0 ? -1 : digit_value(digits[2 * i + 1]);
        if (low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return digits[2 * count] == '\0';
}

char *text_copy(const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a text of %zu bytes", strlen(text));
    return copy;
}

char *text_format(const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0) {
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a text");
        return NULL;
    }
    return text;
}
