/*
 * One pthread_atfork registration for the whole library. Folders that hold
 * something a child must not share (sessions, database connections) add
 * themselves once; everything else compares fork_generation() with the value
 * it remembered.
 */
#ifndef BASE_FORK_H
#define BASE_FORK_H

#include <stdint.h>

/* 1 in the first process, another value in every forked child. Lock-free. */
uint64_t fork_generation(void);

struct fork_handler {
    void (*prepare)(void); /* before fork, in the forking thread; may wait, but only for a bounded time */
    void (*parent)(void);  /* after, in the parent */
    void (*child)(void);   /* after, in the child: one thread; no allocation, no locks of others */
};

/* handler must have static storage; adding it twice is harmless. At most 8. Prepare runs newest first. */
void fork_add_handler(const struct fork_handler *handler);

#endif
