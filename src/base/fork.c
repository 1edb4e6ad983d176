#include "base/fork.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum { HANDLERS_MAX = 8 };

static _Atomic uint64_t generation = 1;
static pthread_mutex_t handlers_lock = PTHREAD_MUTEX_INITIALIZER;
static const struct fork_handler *handlers[HANDLERS_MAX];
static _Atomic int handler_count;
static pthread_once_t registered = PTHREAD_ONCE_INIT;

/* Registered more than once (fork_go_first), so run more than once for a fork: only the outermost counts. */
static _Thread_local int depth;
static _Thread_local bool counted;

/* What fork_hold() takes: last before a fork, when no handler waits for anybody any more. */
static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;

/* How many handlers this thread's fork began with: one that is added meanwhile must not see only the end of it. */
static _Thread_local int begun;

static void prepare(void)
{
    if (depth++ > 0)
        return;
    begun = atomic_load(&handler_count);
    for (int i = begun; i-- > 0;)
        if (handlers[i]->prepare)
            handlers[i]->prepare();
    pthread_mutex_lock(&handlers_lock);
    pthread_mutex_lock(&held);
}

static void parent(void)
{
    if (--depth > 0)
        return;
    pthread_mutex_unlock(&held);
    pthread_mutex_unlock(&handlers_lock);
    for (int i = 0; i < begun; i++)
        if (handlers[i]->parent)
            handlers[i]->parent();
}

static void child(void)
{
    /* At the first of the calls: handlers of others that come in between may already ask. */
    if (!counted)
        atomic_fetch_add(&generation, 1);
    counted = --depth > 0;
    if (counted)
        return;
    pthread_mutex_unlock(&held);
    pthread_mutex_unlock(&handlers_lock);
    for (int i = 0; i < begun; i++)
        if (handlers[i]->child)
            handlers[i]->child();
}

void fork_hold(void)
{
    pthread_mutex_lock(&held);
}

void fork_release(void)
{
    pthread_mutex_unlock(&held);
}

static void register_handlers(void)
{
    pthread_atfork(prepare, parent, child);
}

/* When the library is loaded: the generation must count forks that come before anybody adds a handler. */
__attribute__((constructor)) static void register_once(void)
{
    pthread_once(&registered, register_handlers);
}

void fork_go_first(void)
{
    pthread_atfork(prepare, parent, child);
}

uint64_t fork_generation(void)
{
    return atomic_load_explicit(&generation, memory_order_relaxed);
}

void fork_add_handler(const struct fork_handler *handler)
{
    register_once(); /* constructors run in any order */
    pthread_mutex_lock(&handlers_lock);
    int n = atomic_load(&handler_count);
    for (int i = 0; i < n; i++)
        if (handlers[i] == handler)
            goto out;
    if (n < HANDLERS_MAX) {
        handlers[n] = handler;
        atomic_store(&handler_count, n + 1);
    }
out:
    pthread_mutex_unlock(&handlers_lock);
}
