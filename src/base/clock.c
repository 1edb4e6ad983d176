#include "base/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

static _Atomic(int64_t (*)(void)) injected;

static int64_t read_clock(clockid_t id)
{
    int64_t (*source)(void) = atomic_load_explicit(&injected, memory_order_relaxed);
    if (source)
        return source();
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * CLOCK_SECOND + now.tv_nsec / 1000;
}

int64_t clock_wall(void)
{
    return read_clock(CLOCK_REALTIME);
}

int64_t clock_monotonic(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t clock_monotonic_coarse(void)
{
    return read_clock(CLOCK_MONOTONIC_COARSE);
}

void clock_set_source(int64_t (*source)(void))
{
    atomic_store(&injected, source);
}

const char *clock_text(int64_t wall, char buffer[CLOCK_TEXT_MAX])
{
    time_t seconds = (time_t)(wall / CLOCK_SECOND);
    struct tm utc;
    if (!gmtime_r(&seconds, &utc) || !strftime(buffer, CLOCK_TEXT_MAX, "%Y-%m-%dT%H:%M:%SZ", &utc))
        snprintf(buffer, CLOCK_TEXT_MAX, "?");
    return buffer;
}
