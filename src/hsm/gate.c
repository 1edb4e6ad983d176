#include "hsm/gate.h"

#include <time.h>

#include "base/clock.h"
#include "base/fork.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static pthread_cond_t moved; /* a gate was left, closed or opened */
static struct hsm_gate *gates;
static _Atomic unsigned forking;
static _Atomic int64_t patience;
static bool forked_with_others_inside; /* written before fork with the mutex held, read in the child */

/* The gates this thread is inside of: the loader's and a module's at most. */
static _Thread_local const struct hsm_gate *own[2];

static void own_add(const struct hsm_gate *gate)
{
    own[own[0] ? 1 : 0] = gate;
}

static void own_drop(const struct hsm_gate *gate)
{
    own[own[1] == gate ? 1 : 0] = NULL;
}

static unsigned owned(const struct hsm_gate *gate)
{
    return own[0] == gate || own[1] == gate ? 1 : 0;
}

void hsm_lock(void)
{
    pthread_mutex_lock(&lock);
}

void hsm_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

void hsm_condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

bool hsm_wait(pthread_cond_t *condition, int64_t deadline)
{
    int64_t left = deadline - clock_monotonic();
    if (left <= 0)
        return false;
    struct timespec until = clock_from_now(left);
    return pthread_cond_timedwait(condition, &lock, &until) == 0;
}

void hsm_pause(int64_t microseconds, int64_t deadline)
{
    int64_t left = deadline - clock_monotonic();
    if (microseconds > left)
        microseconds = left;
    if (microseconds <= 0)
        return;
    struct timespec pause = {.tv_sec = (time_t)(microseconds / CLOCK_SECOND),
                             .tv_nsec = (long)(microseconds % CLOCK_SECOND * 1000)};
    nanosleep(&pause, NULL);
}

void hsm_gate_add(struct hsm_gate *gate)
{
    gate->next = gates;
    gates = gate;
}

static bool is_closed(const struct hsm_gate *gate)
{
    return atomic_load(&gate->closed) || atomic_load(&forking);
}

static void announce(void)
{
    hsm_lock();
    pthread_cond_broadcast(&moved);
    hsm_unlock();
}

bool hsm_gate_enter(struct hsm_gate *gate)
{
    /* Count first, look second; those who close do it the other way round, so one of the two sees the other. */
    atomic_fetch_add(&gate->inside, 1);
    if (is_closed(gate)) {
        atomic_fetch_sub(&gate->inside, 1);
        hsm_lock();
        pthread_cond_broadcast(&moved);
        /* Whoever closed it opens it again within its own deadline. */
        while (is_closed(gate))
            pthread_cond_wait(&moved, &lock);
        atomic_fetch_add(&gate->inside, 1);
        hsm_unlock();
    }
    own_add(gate);
    if (!atomic_load(&gate->locked_out))
        return true;
    hsm_gate_leave(gate);
    return false;
}

void hsm_gate_leave(struct hsm_gate *gate)
{
    own_drop(gate);
    atomic_fetch_sub(&gate->inside, 1);
    if (is_closed(gate))
        announce();
}

bool hsm_gate_close(struct hsm_gate *gate, int64_t deadline)
{
    bool empty = true;
    hsm_lock();
    while (empty && is_closed(gate))
        empty = hsm_wait(&moved, deadline);
    if (atomic_load(&gate->locked_out))
        empty = false;
    if (empty) {
        atomic_store(&gate->closed, 1);
        while (empty && atomic_load(&gate->inside) > 0)
            empty = hsm_wait(&moved, deadline);
        if (empty) {
            atomic_fetch_add(&gate->inside, 1);
            own_add(gate);
        } else {
            atomic_store(&gate->closed, 0);
        }
        pthread_cond_broadcast(&moved);
    }
    hsm_unlock();
    return empty;
}

void hsm_gate_open(struct hsm_gate *gate)
{
    hsm_lock();
    own_drop(gate);
    atomic_fetch_sub(&gate->inside, 1);
    atomic_store(&gate->closed, 0);
    pthread_cond_broadcast(&moved);
    hsm_unlock();
}

/* A module that forks from inside a call of ours must not wait for itself. */
static unsigned others_inside(const struct hsm_gate *gate)
{
    return atomic_load(&gate->inside) - owned(gate);
}

static bool any_others_inside(void)
{
    for (const struct hsm_gate *gate = gates; gate; gate = gate->next)
        if (others_inside(gate) > 0)
            return true;
    return false;
}

static void before_fork(void)
{
    int64_t deadline = clock_monotonic() + atomic_load(&patience);
    hsm_lock();
    atomic_fetch_add(&forking, 1);
    bool others = any_others_inside();
    while (others && hsm_wait(&moved, deadline))
        others = any_others_inside();
    forked_with_others_inside = others;
    /* The mutex stays ours until after the fork: no table is half-changed in the child. */
}

static void after_fork(void)
{
    atomic_fetch_sub(&forking, 1);
    pthread_cond_broadcast(&moved);
    hsm_unlock();
}

static void in_child(void)
{
    atomic_store(&forking, 0);
    hsm_condition_init(&moved); /* it may still count the parent's waiters */
    for (struct hsm_gate *gate = gates; gate; gate = gate->next) {
        if (forked_with_others_inside && others_inside(gate) > 0)
            atomic_store(&gate->locked_out, true);
        atomic_store(&gate->inside, owned(gate));
        atomic_store(&gate->closed, 0);
        gate->forked(gate);
    }
    hsm_unlock();
}

static const struct fork_handler handler = {before_fork, after_fork, in_child};

static void prepare_once(void)
{
    hsm_condition_init(&moved);
    fork_add_handler(&handler);
}

void hsm_gate_patience(int64_t microseconds)
{
    pthread_once(&prepared, prepare_once);
    atomic_store(&patience, microseconds);
}
