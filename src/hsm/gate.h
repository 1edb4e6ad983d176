/*
 * The folder's one mutex, the gate in front of every module, and fork.
 *
 * The mutex guards all tables and counters of this folder. It is held for
 * nanoseconds and never across a call into a module.
 *
 * The gate counts the threads inside a module. It can be closed, so that those
 * inside leave and no other enters: for fork (a module's own mutex that is
 * locked at that moment stays locked in the child for good) and for
 * initialising a module anew.
 */
#ifndef HSM_GATE_H
#define HSM_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct hsm_gate {
    _Atomic unsigned inside;
    _Atomic unsigned closed; /* this gate alone */
    _Atomic bool locked_out; /* forked while a thread was inside: never enter again in this process */
    struct hsm_gate *next;
    void (*forked)(struct hsm_gate *); /* in the child, the mutex held */
};

void hsm_lock(void);
void hsm_unlock(void);

/* With the mutex held. False when the deadline (clock_monotonic) has passed. */
void hsm_condition_init(pthread_cond_t *condition);
bool hsm_wait(pthread_cond_t *condition, int64_t deadline);
/* Sleep, the mutex not held, at most until deadline. */
void hsm_pause(int64_t microseconds, int64_t deadline);

/* Known to fork from now on; gates are never removed. The mutex is held. */
void hsm_gate_add(struct hsm_gate *gate);
/* False only if the gate is locked out; waits while it is closed. The mutex is not held. */
bool hsm_gate_enter(struct hsm_gate *gate);
void hsm_gate_leave(struct hsm_gate *gate);
/* Close it and wait until nobody is inside; then the caller is, alone, until hsm_gate_open. False at
 * the deadline, or if it is locked out. */
bool hsm_gate_close(struct hsm_gate *gate, int64_t deadline);
void hsm_gate_open(struct hsm_gate *gate);

/* The longest that fork may wait from now on. Registers the fork handlers. */
void hsm_gate_patience(int64_t microseconds);

#endif
