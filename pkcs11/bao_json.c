#include "bao_json.h"

#include <string.h>

#include "base/secmem.h"
#include "base/text.h"

enum { DEPTH_MAX = 32 };

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The four digits of \uXXXX; -1 if they are not all there. */
static int read_unit(const char *at, const char *end)
{
    int unit = 0;
    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(at[i]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

/* Every skip_… returns the first byte after what it skipped, or NULL where the text breaks the grammar. */

static const char *skip_escape(const char *at, const char *end)
{
    if (at == end)
        return NULL;
    if (*at == 'u')
        return read_unit(at + 1, end) < 0 ? NULL : at + 5;
    return strchr("\"\\/bfnrt", *at) && *at ? at + 1 : NULL;
}

static const char *skip_string(const char *at, const char *end)
{
    const char *start = ++at;
    while (at < end && *at != '"') {
        if ((unsigned char)*at < 0x20)
            return NULL;
        if (*at++ == '\\' && !(at = skip_escape(at, end)))
            return NULL;
    }
    if (at >= end || !text_is_utf8(start, (size_t)(at - start)))
        return NULL;
    return at + 1;
}

static const char *skip_digits(const char *at, const char *end)
{
    if (at == end || !is_digit(*at))
        return NULL;
    while (at < end && is_digit(*at))
        at++;
    return at;
}

static const char *skip_number(const char *at, const char *end)
{
    if (at < end && *at == '-')
        at++;
    bool zero = at < end && *at == '0';
    const char *digits = at;
    at = skip_digits(at, end);
    if (!at || (zero && at - digits > 1))
        return NULL;
    if (at < end && *at == '.' && !(at = skip_digits(at + 1, end)))
        return NULL;
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        at = skip_digits(at, end);
    }
    return at;
}

static const char *skip_word(const char *at, const char *end, const char *word)
{
    size_t length = strlen(word);
    return (size_t)(end - at) >= length && memcmp(at, word, length) == 0 ? at + length : NULL;
}

static const char *skip_value(const char *at, const char *end, unsigned depth);

/* From the blank or byte before an element of a container to after it; its name and value are noted. */
static const char *skip_element(const char *at, const char *end, bool object, unsigned depth, struct bao_json *name,
                                struct bao_json *value)
{
    *name = (struct bao_json){0};
    at = skip_blanks(at, end);
    if (object) {
        const char *start = at;
        if (at == end || *at != '"' || !(at = skip_string(at, end)))
            return NULL;
        *name = (struct bao_json){start, (size_t)(at - start)};
        at = skip_blanks(at, end);
        if (at == end || *at != ':')
            return NULL;
        at = skip_blanks(at + 1, end);
    }
    const char *start = at;
    if (!(at = skip_value(at, end, depth)))
        return NULL;
    *value = (struct bao_json){start, (size_t)(at - start)};
    return at;
}

static const char *skip_container(const char *at, const char *end, unsigned depth)
{
    bool object = *at == '{';
    char close = object ? '}' : ']';
    at = skip_blanks(at + 1, end);
    if (at < end && *at == close)
        return at + 1;
    for (;;) {
        struct bao_json name, value;
        if (!(at = skip_element(at, end, object, depth, &name, &value)))
            return NULL;
        at = skip_blanks(at, end);
        if (at == end)
            return NULL;
        if (*at == close)
            return at + 1;
        if (*at++ != ',')
            return NULL;
    }
}

/* Recursion is bounded by DEPTH_MAX. */
static const char *skip_value(const char *at, const char *end, unsigned depth)
{
    if (at == end)
        return NULL;
    switch (*at) {
    case '{':
    case '[':
        return depth == 0 ? NULL : skip_container(at, end, depth - 1);
    case '"':
        return skip_string(at, end);
    case 't':
        return skip_word(at, end, "true");
    case 'f':
        return skip_word(at, end, "false");
    case 'n':
        return skip_word(at, end, "null");
    default:
        return skip_number(at, end);
    }
}

bool bao_json_parse(const char *text, size_t length, struct bao_json *root)
{
    *root = (struct bao_json){0};
    if (!text || length == 0)
        return false;
    const char *end = text + length;
    const char *start = skip_blanks(text, end);
    const char *at = skip_value(start, end, DEPTH_MAX);
    if (!at || skip_blanks(at, end) != end)
        return false;
    *root = (struct bao_json){start, (size_t)(at - start)};
    return true;
}

enum bao_json_kind bao_json_kind(struct bao_json value)
{
    if (value.length == 0)
        return BAO_JSON_MISSING;
    switch (*value.text) {
    case '{':
        return BAO_JSON_OBJECT;
    case '[':
        return BAO_JSON_ARRAY;
    case '"':
        return BAO_JSON_STRING;
    case 't':
    case 'f':
        return BAO_JSON_BOOL;
    case 'n':
        return BAO_JSON_NULL;
    default:
        return BAO_JSON_NUMBER;
    }
}

bool bao_json_next(struct bao_json container, size_t *at, struct bao_json *name, struct bao_json *value)
{
    enum bao_json_kind kind = bao_json_kind(container);
    *name = *value = (struct bao_json){0};
    if (kind != BAO_JSON_ARRAY && kind != BAO_JSON_OBJECT)
        return false;
    const char *end = container.text + container.length - 1; /* the closing bracket */
    const char *here = skip_blanks(container.text + (*at ? *at : 1), end);
    if (here == end)
        return false;
    if (*at && *here++ != ',')
        return false;
    here = skip_element(here, end, kind == BAO_JSON_OBJECT, DEPTH_MAX, name, value);
    if (!here)
        return false;
    *at = (size_t)(here - container.text);
    return true;
}

struct bao_json bao_json_member(struct bao_json object, const char *name)
{
    struct bao_json key, value;
    size_t at = 0;
    if (bao_json_kind(object) != BAO_JSON_OBJECT)
        return (struct bao_json){0};
    while (bao_json_next(object, &at, &key, &value))
        if (bao_json_is(key, name))
            return value;
    return (struct bao_json){0};
}

bool bao_json_is(struct bao_json value, const char *text)
{
    size_t length = strlen(text);
    return bao_json_kind(value) == BAO_JSON_STRING && value.length == length + 2 &&
           memcmp(value.text + 1, text, length) == 0;
}

static size_t encode_utf8(unsigned long point, char to[4])
{
    if (point < 0x80) {
        to[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        to[0] = (char)(0xC0 | point >> 6);
        to[1] = (char)(0x80 | (point & 0x3F));
        return 2;
    }
    if (point < 0x10000) {
        to[0] = (char)(0xE0 | point >> 12);
        to[1] = (char)(0x80 | (point >> 6 & 0x3F));
        to[2] = (char)(0x80 | (point & 0x3F));
        return 3;
    }
    to[0] = (char)(0xF0 | point >> 18);
    to[1] = (char)(0x80 | (point >> 12 & 0x3F));
    to[2] = (char)(0x80 | (point >> 6 & 0x3F));
    to[3] = (char)(0x80 | (point & 0x3F));
    return 4;
}

/* The character of the escape at `at` (after the backslash); 0 for U+0000 and lone surrogates. */
static unsigned long read_escape(const char **at, const char *end)
{
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *letter = strchr(letters, **at);
    if (letter && **at) {
        ++*at;
        return (unsigned char)meant[letter - letters];
    }
    int unit = read_unit(*at + 1, end);
    *at += 5;
    if (unit < 0xD800 || unit > 0xDFFF)
        return unit > 0 ? (unsigned long)unit : 0;
    if (unit > 0xDBFF || end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u')
        return 0;
    int low = read_unit(*at + 2, end);
    if (low < 0xDC00 || low > 0xDFFF)
        return 0;
    *at += 6;
    return 0x10000UL + (((unsigned long)unit - 0xD800UL) << 10) + ((unsigned long)low - 0xDC00UL);
}

/* Unescape into memory that holds at least value.length bytes; -1 for what has no place in a C string. */
static ptrdiff_t unescape(struct bao_json value, char *to)
{
    const char *at = value.text + 1, *end = value.text + value.length - 1;
    char *next = to;
    while (at < end) {
        if (*at != '\\') {
            *next++ = *at++;
            continue;
        }
        at++;
        unsigned long point = read_escape(&at, end);
        if (point == 0)
            return -1;
        next += encode_utf8(point, next);
    }
    return next - to;
}

bool bao_json_string(struct bao_json value, struct buffer *to)
{
    if (bao_json_kind(value) != BAO_JSON_STRING)
        return false;
    char *room = (char *)buffer_reserve(to, value.length);
    if (!room)
        return false;
    ptrdiff_t length = unescape(value, room);
    if (length < 0) {
        secmem_wipe(room, value.length);
        return false;
    }
    to->length += (size_t)length;
    to->bytes[to->length] = 0;
    return true;
}

bool bao_json_copy(struct bao_json value, char *to, size_t capacity)
{
    if (bao_json_kind(value) != BAO_JSON_STRING || value.length > capacity)
        return false;
    ptrdiff_t length = unescape(value, to);
    if (length < 0)
        return false;
    to[length] = 0;
    return true;
}

bool bao_json_integer(struct bao_json value, int64_t *number)
{
    if (bao_json_kind(value) != BAO_JSON_NUMBER)
        return false;
    const char *at = value.text, *end = at + value.length;
    bool negative = *at == '-';
    if (negative)
        at++;
    int64_t sum = 0;
    for (; at < end; at++) {
        if (!is_digit(*at) || sum > (INT64_MAX - (*at - '0')) / 10)
            return false;
        sum = sum * 10 + (*at - '0');
    }
    *number = negative ? -sum : sum;
    return true;
}

bool bao_json_true(struct bao_json value)
{
    return bao_json_kind(value) == BAO_JSON_BOOL && *value.text == 't';
}
