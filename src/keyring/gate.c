/*
 * Forks wait for what is slow. While a thread of ours works for the keyring (a flight, a change of a key) it may hold
 * locks inside libcrypto, which a forked child would find locked for good. So prepare closes this gate and waits,
 * for a bounded time, until nobody is inside. Messages on cached DEKs do not pass here.
 */
#include "keyring/keyring_internal.h"

#include <time.h>

#include "base/fork.h"

enum { WAIT_SECONDS = 10 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    pthread_cond_t left;
    unsigned inside; /* threads */
    unsigned forks;  /* under way */
} gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};

/* A thread is inside once, however deep its calls go. */
static _Thread_local unsigned depth;
/* This thread closed it and is forking. A handler that is added while a fork runs sees only the end of that fork. */
static _Thread_local bool closed;

void keyring_gate_enter(void)
{
    if (depth++ > 0)
        return;
    pthread_mutex_lock(&gate.lock);
    while (gate.forks > 0)
        pthread_cond_wait(&gate.opened, &gate.lock);
    gate.inside++;
    pthread_mutex_unlock(&gate.lock);
}

void keyring_gate_leave(void)
{
    if (--depth > 0)
        return;
    pthread_mutex_lock(&gate.lock);
    gate.inside--;
    if (gate.forks > 0)
        pthread_cond_broadcast(&gate.left);
    pthread_mutex_unlock(&gate.lock);
}

/* The lock stays taken until after the fork. A thread that forks from inside (a PIN command) does not wait for itself.
 */
static void before_fork(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_SECONDS;
    unsigned ours = depth > 0;
    pthread_mutex_lock(&gate.lock);
    gate.forks++;
    closed = true;
    int rv = 0;
    while (gate.inside > ours && rv == 0)
        rv = pthread_cond_timedwait(&gate.left, &gate.lock, &until);
}

static void after_fork(void)
{
    if (!closed)
        return;
    closed = false;
    gate.forks--;
    if (gate.forks == 0)
        pthread_cond_broadcast(&gate.opened);
    pthread_mutex_unlock(&gate.lock);
}

static void in_child(void)
{
    if (!closed)
        return;
    closed = false;
    gate.forks = 0;
    gate.inside = depth > 0;
    /* Nobody waits on these here, but the parent's waiters stand in them. */
    gate.opened = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    gate.left = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    pthread_mutex_unlock(&gate.lock);
}

static const struct fork_handler handler = {before_fork, after_fork, in_child};

/*
 * The store and the token have gates of their own, and prepare runs newest first: this one must close before theirs,
 * else those inside would be held up there and never come out. So it is added once both have been in use.
 */
void keyring_gate_arm(void)
{
    static _Atomic bool armed;
    if (atomic_load_explicit(&armed, memory_order_relaxed))
        return;
    fork_add_handler(&handler);
    atomic_store_explicit(&armed, true, memory_order_relaxed);
}
