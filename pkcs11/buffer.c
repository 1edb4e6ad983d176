#include "buffer.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/secmem.h"

enum { FIRST_CAPACITY = 4000 }; /* with the allocator's own bytes: one page */

static bool grow(struct buffer *buffer, size_t count)
{
    if (buffer->failed)
        return false;
    if (buffer->capacity - buffer->length > count)
        return true;
    if (count >= SIZE_MAX / 4 - buffer->length) {
        buffer->failed = true;
        error_raise(ENVELOPE_E_NO_MEMORY, "a buffer of %zu bytes cannot grow by %zu", buffer->length, count);
        return false;
    }
    size_t capacity = buffer->capacity ? buffer->capacity * 2 : FIRST_CAPACITY;
    while (capacity - buffer->length <= count)
        capacity *= 2;
    uint8_t *bytes = secmem_alloc(capacity);
    if (!bytes) {
        buffer->failed = true;
        return false;
    }
    if (buffer->length)
        memcpy(bytes, buffer->bytes, buffer->length);
    secmem_free(buffer->bytes);
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return true;
}

uint8_t *buffer_reserve(struct buffer *buffer, size_t count)
{
    return grow(buffer, count) ? buffer->bytes + buffer->length : NULL;
}

void buffer_append(struct buffer *buffer, const void *bytes, size_t count)
{
    uint8_t *to = buffer_reserve(buffer, count);
    if (!to)
        return;
    if (count)
        memcpy(to, bytes, count);
    to[count] = '\0';
    buffer->length += count;
}

void buffer_append_text(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, text, strlen(text));
}

void buffer_truncate(struct buffer *buffer, size_t length)
{
    if (length >= buffer->length)
        return;
    secmem_wipe(buffer->bytes + length, buffer->length - length);
    buffer->length = length;
}

void buffer_reset(struct buffer *buffer)
{
    if (buffer->bytes)
        secmem_wipe(buffer->bytes, buffer->capacity);
    buffer->length = 0;
    buffer->failed = false;
}

void buffer_clear(struct buffer *buffer)
{
    secmem_free(buffer->bytes);
    *buffer = (struct buffer){0};
}

void buffer_move(struct buffer *to, struct buffer *from)
{
    buffer_clear(to);
    *to = *from;
    *from = (struct buffer){0};
}

bool buffer_ok(const struct buffer *buffer)
{
    return !buffer->failed;
}

const char *buffer_text(const struct buffer *buffer)
{
    return buffer->bytes ? (const char *)buffer->bytes : "";
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void buffer_append_base64(struct buffer *buffer, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i += 3) {
        size_t left = count - i;
        uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                         (left > 2 ? (uint32_t)bytes[i + 2] : 0);
        char text[4] = {base64_digits[group >> 18], base64_digits[group >> 12 & 63],
                        left > 1 ? base64_digits[group >> 6 & 63] : '=', left > 2 ? base64_digits[group & 63] : '='};
        buffer_append(buffer, text, sizeof text);
        secmem_wipe(text, sizeof text);
    }
}

static int base64_value(char digit)
{
    if (digit >= 'A' && digit <= 'Z')
        return digit - 'A';
    if (digit >= 'a' && digit <= 'z')
        return digit - 'a' + 26;
    if (digit >= '0' && digit <= '9')
        return digit - '0' + 52;
    if (digit == '+')
        return 62;
    return digit == '/' ? 63 : -1;
}

bool buffer_append_unbase64(struct buffer *buffer, const char *text, size_t count)
{
    if (count % 4)
        return false;
    for (size_t i = 0; i < count; i += 4) {
        bool last = i + 4 == count;
        size_t digits = last && text[i + 3] == '=' ? (text[i + 2] == '=' ? 2 : 3) : 4;
        uint32_t group = 0;
        for (size_t k = 0; k < 4; k++) {
            int value = k < digits ? base64_value(text[i + k]) : 0;
            if (value < 0)
                return false;
            group = group << 6 | (uint32_t)value;
        }
        /* Bits beyond the last byte must be zero, or two texts would mean the same bytes. */
        if ((digits == 2 && (group & 0xffff)) || (digits == 3 && (group & 0xff)))
            return false;
        uint8_t bytes[3] = {(uint8_t)(group >> 16), (uint8_t)(group >> 8), (uint8_t)group};
        buffer_append(buffer, bytes, digits - 1);
        secmem_wipe(bytes, sizeof bytes);
    }
    return buffer_ok(buffer);
}

void buffer_append_json(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, "\"", 1);
    for (const char *from = text; *from; from++) {
        unsigned char c = (unsigned char)*from;
        char escape[8];
        if (c == '"' || c == '\\') {
            char pair[2] = {'\\', *from};
            buffer_append(buffer, pair, 2);
        } else if (c < 0x20) {
            snprintf(escape, sizeof escape, "\\u%04x", c);
            buffer_append(buffer, escape, 6);
        } else {
            buffer_append(buffer, from, 1);
        }
    }
    buffer_append(buffer, "\"", 1);
}
