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
/*
 * Call this after a library was loaded that may have fork handlers of its own, which hold its locks from prepare on:
 * ours wait for threads that are inside it, so they must run before. (The system runs what was registered last first.)
 */
void fork_go_first(void);

/*
 * Around short work that takes locks inside libcrypto (its random generators, a fetch): held by another thread at the
 * moment of fork, such a lock would stay locked in the child for good, so fork waits for the release. Holders wait for
 * each other: nothing that may block belongs in between, nor a second hold.
 */
void fork_hold(void);
void fork_release(void);

#endif
