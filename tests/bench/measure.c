#include "measure.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The thread's own time: what other programs take from it is not the contender's. None of them sleeps. */
static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static double time_batch(const struct contender *contender, size_t size, uint64_t messages)
{
    double begin = now_ns();
    contender->run(contender->state, size, messages);
    return now_ns() - begin;
}

/* How many messages take about as long as a batch; warms up on the way. */
static uint64_t calibrate(const struct contender *contender, size_t size, int64_t batch, uint64_t *used)
{
    uint64_t messages = 1;
    /* The first ones connect, unwrap and fill caches. */
    contender->run(contender->state, size, 16);
    *used = 16;
    double target = (double)batch * 1000, spent = 0;
    for (;;) {
        spent = time_batch(contender, size, messages);
        *used += messages;
        if (spent >= target / 4)
            break;
        messages *= 2;
    }
    double wanted = (double)messages * target / spent;
    return wanted < 1 ? 1 : (uint64_t)wanted;
}

void measure(const struct measure_plan *plan, const struct contender *contenders, size_t count, size_t size,
             struct measurement *result)
{
    uint64_t messages[CONTENDERS_MAX];
    memset(result, 0, sizeof *result);
    result->count = count;
    result->rounds = plan->rounds;
    for (size_t i = 0; i < count; i++)
        messages[i] = calibrate(&contenders[i], size, plan->batch, &result->messages[i]);
    for (size_t round = 0; round < plan->rounds; round++)
        for (size_t turn = 0; turn < count; turn++) {
            size_t i = (turn + round) % count;
            result->ns[i][round] = time_batch(&contenders[i], size, messages[i]) / (double)messages[i];
            result->messages[i] += messages[i];
        }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

double measure_median(const struct measurement *result, size_t contender)
{
    double values[ROUNDS_MAX];
    memcpy(values, result->ns[contender], result->rounds * sizeof values[0]);
    return median(values, result->rounds);
}

double measure_ratio(const struct measurement *result, size_t contender, size_t against)
{
    double values[ROUNDS_MAX];
    for (size_t i = 0; i < result->rounds; i++)
        values[i] = result->ns[against][i] / result->ns[contender][i];
    return median(values, result->rounds);
}
