/*
 * Contenders are measured in turns: each round runs every one of them for a few
 * milliseconds, in a rotating order, so that whatever else the machine does
 * hits all alike. Times are medians over the rounds; ratios are medians of the
 * ratios within a round.
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>

enum { CONTENDERS_MAX = 8, ROUNDS_MAX = 201 };

struct contender {
    const char *name;
    /* Work through this many messages of this size. Exits if one fails. */
    void (*run)(void *state, size_t size, uint64_t messages);
    void *state;
};

struct measurement {
    size_t count, rounds;
    uint64_t messages[CONTENDERS_MAX];     /* worked through in all, warming up included */
    double ns[CONTENDERS_MAX][ROUNDS_MAX]; /* a message, per round */
};

struct measure_plan {
    size_t rounds;
    int64_t batch; /* microseconds for one contender in one round */
};

void measure(const struct measure_plan *plan, const struct contender *contenders, size_t count, size_t size,
             struct measurement *result);
double measure_median(const struct measurement *result, size_t contender);
/* How many times as fast as `against`. */
double measure_ratio(const struct measurement *result, size_t contender, size_t against);
double median(double *values, size_t count);

#endif
