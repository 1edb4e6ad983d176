#include "base/clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

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

#ifdef __x86_64__

enum { POWER_MANAGEMENT = 0x80000007, INVARIANT_TSC = 1 << 8 };

/* Whether the processor's counter runs at one rate, whatever the processor does. */
static bool counter_is_steady(void)
{
    enum { UNKNOWN, STEADY, UNSTEADY };
    static atomic_int answer;
    int known = atomic_load_explicit(&answer, memory_order_relaxed);
    if (known == UNKNOWN) {
        unsigned a, b, c, d;
        bool steady = __get_cpuid(POWER_MANAGEMENT, &a, &b, &c, &d) && (d & INVARIANT_TSC);
        known = steady ? STEADY : UNSTEADY;
        atomic_store_explicit(&answer, known, memory_order_relaxed);
    }
    return known == STEADY;
}

/* The counter costs a third of what even the coarse clock does. Where counters of processors differ, or one was set
 * back, the numbers only differ more often. */
int64_t clock_tick(void)
{
    enum { TICK_BITS = 22 }; /* 4 ms at 1 GHz, 1 ms at 4 */
    if (!atomic_load_explicit(&injected, memory_order_relaxed) && counter_is_steady())
        return (int64_t)(__builtin_ia32_rdtsc() >> TICK_BITS) + 1;
    return clock_monotonic_coarse();
}

#else

int64_t clock_tick(void)
{
    return clock_monotonic_coarse();
}

#endif

struct timespec clock_from_now(int64_t duration)
{
    enum { SECOND_IN_NANOSECONDS = 1000000000 };
    struct timespec until;
    if (duration < 0)
        duration = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t nanoseconds = until.tv_nsec + duration % CLOCK_SECOND * 1000;
    until.tv_sec += (time_t)(duration / CLOCK_SECOND + nanoseconds / SECOND_IN_NANOSECONDS);
    until.tv_nsec = (long)(nanoseconds % SECOND_IN_NANOSECONDS);
    return until;
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
