#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench_rig.h"
#include "ciphers.h"
#include "measure.h"

enum { WORKERS = 3, THREADS_MAX = 2 };

struct order {
    size_t threads, size;
    int64_t begin, end; /* monotonic nanoseconds, the same clock in all processes; threads 0: go home */
    size_t processor;   /* of the first thread, counted among those we may use; the next thread is on the next */
};

/* Messages a second of the clock, and of processor time: they part where other programs take the processors. */
struct rate {
    double wall, processor;
};

struct worker {
    pid_t pid;
    int orders, answers;
};

struct parallel {
    struct worker workers[WORKERS]; /* two that work alone, one with two threads */
};

static int64_t read_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

/* ---- inside a worker ---- */

struct hand {
    _Alignas(128) struct bench_stream stream;
    struct order order;
    size_t number;
    struct rate rate;
};

/*
 * Each on its own processor: a thread just made shares its maker's for a while, a process that has been there longer
 * does not, and that would be all one saw.
 */
static void go_to_processor(size_t wanted)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < THREADS_MAX)
        return;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || wanted-- > 0)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        (void)sched_setaffinity(0, sizeof one, &one);
        return;
    }
}

static void *work(void *argument)
{
    struct hand *hand = argument;
    go_to_processor(hand->order.processor + hand->number);
    uint64_t messages = 0, step = 65536 / (hand->order.size + 512) + 1;
    while (now_ns() < hand->order.begin)
        continue;
    int64_t begin = now_ns(), end, used = read_ns(CLOCK_THREAD_CPUTIME_ID);
    /* At least once: on a busy machine the time may be over already. */
    do {
        bench_envelope(&hand->stream, hand->order.size, step);
        messages += step;
        end = now_ns();
    } while (end < hand->order.end);
    used = read_ns(CLOCK_THREAD_CPUTIME_ID) - used;
    hand->rate.wall = (double)messages * 1e9 / (double)(end - begin);
    hand->rate.processor = (double)messages * 1e9 / (double)used;
    return NULL;
}

static void add(struct rate *sum, const struct rate *rate)
{
    sum->wall += rate->wall;
    sum->processor += rate->processor;
}

static struct rate obey(struct hand *hands, const struct order *order)
{
    pthread_t threads[THREADS_MAX];
    struct rate rate = {0, 0};
    for (size_t i = 0; i < order->threads; i++) {
        hands[i].order = *order;
        hands[i].number = i;
        if (pthread_create(&threads[i], NULL, work, &hands[i]) != 0)
            _exit(1);
    }
    for (size_t i = 0; i < order->threads; i++) {
        pthread_join(threads[i], NULL);
        add(&rate, &hands[i].rate);
    }
    return rate;
}

static void worker_main(const char *modules, const char *config, int orders, int answers)
{
    static struct hand hands[THREADS_MAX];
    struct order order;
    EVP_CIPHER *cipher = bench_cipher(modules, config);
    for (int i = 0; i < THREADS_MAX; i++)
        bench_stream_new(&hands[i].stream, cipher, true);
    /* The first message logs in to the token; workers do that one after the other. */
    struct rate rate = {0, 0};
    bench_envelope(&hands[0].stream, 16, 1);
    for (;;) {
        if (write(answers, &rate, sizeof rate) != sizeof rate || read(orders, &order, sizeof order) != sizeof order ||
            order.threads == 0)
            _exit(0);
        rate = obey(hands, &order);
    }
}

/* ---- outside ---- */

static struct rate answer(const struct worker *worker)
{
    struct rate rate;
    if (read(worker->answers, &rate, sizeof rate) != sizeof rate)
        die("bench: a worker ended");
    return rate;
}

static void worker_new(struct worker *worker, const char *modules, const char *config)
{
    int orders[2], answers[2];
    if (pipe(orders) != 0 || pipe(answers) != 0)
        die("bench: pipe");
    worker->pid = fork();
    if (worker->pid < 0)
        die("bench: fork");
    if (worker->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(orders[1]);
        close(answers[0]);
        worker_main(modules, config, orders[0], answers[1]);
    }
    close(orders[0]);
    close(answers[1]);
    worker->orders = orders[1];
    worker->answers = answers[0];
    (void)answer(worker);
}

struct parallel *parallel_new(const char *modules, const char *config)
{
    struct parallel *parallel = calloc(1, sizeof *parallel);
    if (!parallel)
        die("bench");
    for (int i = 0; i < WORKERS; i++)
        worker_new(&parallel->workers[i], modules, config);
    return parallel;
}

void parallel_free(struct parallel *parallel)
{
    if (!parallel)
        return;
    static const struct order go_home;
    for (int i = 0; i < WORKERS; i++) {
        /* Closing would not do: later workers have inherited this end. */
        if (write(parallel->workers[i].orders, &go_home, sizeof go_home) != sizeof go_home)
            die("bench: a worker ended");
        close(parallel->workers[i].orders);
        waitpid(parallel->workers[i].pid, NULL, 0);
        close(parallel->workers[i].answers);
    }
    free(parallel);
}

static struct rate run(struct worker *workers, size_t count, size_t threads, int64_t duration, size_t size)
{
    /* Far enough ahead that all have heard. */
    struct order order = {.threads = threads, .size = size, .begin = now_ns() + 1000000};
    order.end = order.begin + duration * 1000;
    struct rate rate = {0, 0};
    for (size_t i = 0; i < count; i++) {
        order.processor = i;
        if (write(workers[i].orders, &order, sizeof order) != sizeof order)
            die("bench: a worker ended");
    }
    for (size_t i = 0; i < count; i++) {
        struct rate one = answer(&workers[i]);
        add(&rate, &one);
    }
    return rate;
}

void parallel_measure(struct parallel *parallel, size_t rounds, int64_t duration, size_t size,
                      struct parallel_result *result)
{
    double one[ROUNDS_MAX], threads[ROUNDS_MAX], processes[ROUNDS_MAX], ratios[ROUNDS_MAX], processor[ROUNDS_MAX];
    for (size_t i = 0; i < rounds; i++) {
        struct rate together = {0, 0}, apart;
        bool turn = i % 2;
        one[i] = run(&parallel->workers[0], 1, 1, duration, size).wall;
        if (turn)
            together = run(&parallel->workers[2], 1, 2, duration, size);
        apart = run(parallel->workers, 2, 1, duration, size);
        if (!turn)
            together = run(&parallel->workers[2], 1, 2, duration, size);
        threads[i] = together.wall;
        processes[i] = apart.wall;
        ratios[i] = together.wall / apart.wall;
        processor[i] = together.processor / apart.processor;
    }
    result->one_thread = median(one, rounds);
    result->two_threads = median(threads, rounds);
    result->two_processes = median(processes, rounds);
    result->threads_to_processes = median(ratios, rounds);
    result->by_processor_time = median(processor, rounds);
}
