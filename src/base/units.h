/* Durations and sizes as people write them in configuration: "90s", "10m", "1h30m", "30d"; "64k", "16MiB",
 * "4294967296". */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

/* Microseconds. Units us ms s m h d w, several in a row, largest first; a bare number is refused except 0. */
envelope_status units_parse_duration(const char *text, int64_t *microseconds);
/* A count or bytes: decimal digits with an optional k, M, G (1000s) or Ki/KiB, Mi/MiB, Gi/GiB (1024s). */
envelope_status units_parse_size(const char *text, uint64_t *value);

enum { UNITS_TEXT_MAX = 48 };
/* The shortest text that parses to the same value. */
const char *units_duration_text(int64_t microseconds, char buffer[UNITS_TEXT_MAX]);

#endif
