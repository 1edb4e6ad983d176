#include "base/units.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

struct unit {
    const char *name;
    int64_t microseconds;
};

/* Largest first; each is a multiple of the next. */
static const struct unit units[] = {
    {"w", INT64_C(604800000000)}, {"d", INT64_C(86400000000)}, {"h", INT64_C(3600000000)}, {"m", INT64_C(60000000)},
    {"s", INT64_C(1000000)},      {"ms", INT64_C(1000)},       {"us", INT64_C(1)},
};
enum { UNIT_COUNT = sizeof units / sizeof units[0] };

struct suffix {
    const char *name;
    uint64_t factor;
};

static const struct suffix suffixes[] = {
    {"", 1},
    {"k", UINT64_C(1000)},
    {"M", UINT64_C(1000000)},
    {"G", UINT64_C(1000000000)},
    {"Ki", UINT64_C(1) << 10},
    {"KiB", UINT64_C(1) << 10},
    {"Mi", UINT64_C(1) << 20},
    {"MiB", UINT64_C(1) << 20},
    {"Gi", UINT64_C(1) << 30},
    {"GiB", UINT64_C(1) << 30},
};

enum number { NUMBER_OK, NUMBER_NONE, NUMBER_TOO_LARGE };

/* Decimal digits, at least one. Moves *text behind them. */
static enum number take_number(const char **text, uint64_t *value)
{
    const char *at = *text;
    enum number result = NUMBER_NONE;
    for (*value = 0; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(*value, UINT64_C(10), value) ||
            __builtin_add_overflow(*value, (uint64_t)(*at - '0'), value))
            return NUMBER_TOO_LARGE;
        result = NUMBER_OK;
    }
    *text = at;
    return result;
}

static envelope_status refuse(const char *text, const char *why)
{
    char shown[80];
    return error_raise(ENVELOPE_E_ARGUMENT, "\"%s\" %s", text_printable(text, strlen(text), shown, sizeof shown), why);
}

static const char not_duration[] = "is not a duration; write a number with a unit (us, ms, s, m, h, d or w), "
                                   "or several, the largest unit first, such as 90s or 1h30m";

/* The index of the unit named at *text, moving *text behind it, or UNIT_COUNT. */
static size_t take_unit(const char **text)
{
    size_t length = strspn(*text, "usmhdw");
    for (size_t i = 0; i < UNIT_COUNT; i++)
        if (strlen(units[i].name) == length && strncmp(*text, units[i].name, length) == 0) {
            *text += length;
            return i;
        }
    return UNIT_COUNT;
}

envelope_status units_parse_duration(const char *text, int64_t *microseconds)
{
    if (strcmp(text, "0") == 0) {
        *microseconds = 0;
        return ENVELOPE_OK;
    }
    int64_t total = 0;
    size_t next_allowed = 0;
    const char *at = text;
    do {
        uint64_t count;
        enum number number = take_number(&at, &count);
        if (number == NUMBER_NONE)
            return refuse(text, not_duration);
        if (number == NUMBER_TOO_LARGE)
            return refuse(text, "is too long a duration");
        if (*at == '\0')
            return refuse(text, "has no unit; write one of us, ms, s, m, h, d or w behind the number");
        size_t unit = take_unit(&at);
        if (unit == UNIT_COUNT || unit < next_allowed)
            return refuse(text, not_duration);
        next_allowed = unit + 1;
        int64_t part;
        if (__builtin_mul_overflow(count, units[unit].microseconds, &part) ||
            __builtin_add_overflow(total, part, &total))
            return refuse(text, "is too long a duration");
    } while (*at != '\0');
    *microseconds = total;
    return ENVELOPE_OK;
}

envelope_status units_parse_size(const char *text, uint64_t *value)
{
    const char *at = text;
    uint64_t count;
    enum number number = take_number(&at, &count);
    if (number == NUMBER_TOO_LARGE)
        return refuse(text, "is too large a number");
    if (number == NUMBER_OK)
        for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
            if (strcmp(at, suffixes[i].name) != 0)
                continue;
            if (__builtin_mul_overflow(count, suffixes[i].factor, &count))
                return refuse(text, "is too large a number");
            *value = count;
            return ENVELOPE_OK;
        }
    return refuse(text, "is not a number; write digits with nothing, k, M, G (thousands) or KiB, MiB, GiB (1024s) "
                        "behind them");
}

/* The value in the units of mask, as few of each smaller one as can be; empty if they cannot express it. */
static void write_in_units(uint64_t value, unsigned mask, char to[UNITS_TEXT_MAX])
{
    size_t used = 0;
    to[0] = '\0';
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        uint64_t unit = (uint64_t)units[i].microseconds;
        if (!(mask & 1U << i) || value < unit)
            continue;
        used += (size_t)snprintf(to + used, UNITS_TEXT_MAX - used, "%llu%s", (unsigned long long)(value / unit),
                                 units[i].name);
        value %= unit;
    }
    if (value != 0)
        to[0] = '\0';
}

const char *units_duration_text(int64_t microseconds, char buffer[UNITS_TEXT_MAX])
{
    if (microseconds == 0) {
        snprintf(buffer, UNITS_TEXT_MAX, "0");
        return buffer;
    }
    /* No configuration has a negative duration, but a message about a clock may. */
    bool negative = microseconds < 0;
    uint64_t value = negative ? 0 - (uint64_t)microseconds : (uint64_t)microseconds;
    char best[UNITS_TEXT_MAX] = "", candidate[UNITS_TEXT_MAX];
    for (unsigned mask = (1U << UNIT_COUNT) - 1; mask > 0; mask--) {
        write_in_units(value, mask, candidate);
        if (candidate[0] && (!best[0] || strlen(candidate) < strlen(best)))
            memcpy(best, candidate, sizeof best);
    }
    snprintf(buffer, UNITS_TEXT_MAX, "%s%.46s", negative ? "-" : "", best);
    return buffer;
}
