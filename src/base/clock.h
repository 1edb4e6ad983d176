/*
 * Time, in int64_t microseconds. Wall-clock times are UTC since 1970; monotonic
 * times have no epoch. Tests replace the source; nothing else reads a clock.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <stddef.h>
#include <time.h>

#define CLOCK_SECOND INT64_C(1000000)

int64_t clock_wall(void);
int64_t clock_monotonic(void);
/* Monotonic at tick resolution (1-4 ms), for the hot path: a few nanoseconds. */
int64_t clock_monotonic_coarse(void);

/*
 * Never 0; another number a few milliseconds later, and the same one seldom for longer. To be compared for equality
 * only: it says "some milliseconds went by", and is wrong about it only in saying so too often.
 */
int64_t clock_tick(void);

/*
 * That many microseconds from now (none, if negative) on CLOCK_MONOTONIC, for what waits by the kernel's clock whatever
 * clock_set_source() says: condition variables, mutexes.
 */
struct timespec clock_from_now(int64_t duration);

/* Replace all with one source that returns microseconds; NULL restores the system's. Tests only. */
void clock_set_source(int64_t (*source)(void));

/* "2026-11-22T23:04:05Z" */
enum { CLOCK_TEXT_MAX = 32 };
const char *clock_text(int64_t wall, char buffer[CLOCK_TEXT_MAX]);

#endif
