#include "base/fork.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

enum { HANDLERS_MAX = 8 };

static _Atomic uint64_t generation = 1;
static pthread_mutex_t handlers_lock = PTHREAD_MUTEX_INITIALIZER;
static const struct fork_handler *handlers[HANDLERS_MAX];
static _Atomic int handler_count;
static pthread_once_t registered = PTHREAD_ONCE_INIT;

static void prepare(void)
{
    for (int i = atomic_load(&handler_count); i-- > 0;)
        if (handlers[i]->prepare)
            handlers[i]->prepare();
    pthread_mutex_lock(&handlers_lock);
}

static void parent(void)
{
    pthread_mutex_unlock(&handlers_lock);
    for (int i = 0, n = atomic_load(&handler_count); i < n; i++)
        if (handlers[i]->parent)
            handlers[i]->parent();
}

static void child(void)
{
    atomic_fetch_add(&generation, 1);
    pthread_mutex_unlock(&handlers_lock);
    for (int i = 0, n = atomic_load(&handler_count); i < n; i++)
        if (handlers[i]->child)
            handlers[i]->child();
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
