/*
 * Two threads of one process against two processes, encrypting as fast as they
 * can. All of them are made before anything is measured and wait for orders, so
 * that threads and processes take turns on the same machine.
 */
#ifndef BENCH_PARALLEL_H
#define BENCH_PARALLEL_H

#include <stddef.h>
#include <stdint.h>

struct parallel;

struct parallel_result {
    double one_thread, two_threads, two_processes; /* messages a second in all; medians */
    double threads_to_processes;                   /* median of the ratios within a round */
    double by_processor_time;                      /* the same, of messages per processor second */
};

/* Forks three workers: call it before the process loads a provider. Exits on failure. */
struct parallel *parallel_new(const char *modules, const char *config);
void parallel_free(struct parallel *parallel);
void parallel_measure(struct parallel *parallel, size_t rounds, int64_t duration, size_t size,
                      struct parallel_result *result);

#endif
