/*
 * The gate in front of SQLite, and forks.
 *
 * SQLite keeps the POSIX locks of a file in per-process memory, because the
 * kernel keeps them per process. A child inherits that memory, not the locks:
 * as long as one inherited connection to a file is in it, a new connection of
 * the child believes that it holds locks it does not hold, and two processes
 * write at once. So no connection may exist at the moment of fork. Before it,
 * the gate holds newcomers off, waits until everybody has left, and closes the
 * idle connections; both sides open new ones when they need them.
 *
 * If somebody does not leave within the deadline, the fork goes ahead (a fork
 * that hangs is worse), but its child is refused the store for good. So is a
 * child made without fork handlers (clone, _Fork).
 */
#include "store/sqlite.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fork.h"

enum {
    IDLE_MAX = 4, /* per sqlite; more than a few are only needed in bursts */
    PREPARE_SLEEP_SHORT = 50,
    PREPARE_SLEEP_LONG = 5000, /* microseconds */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t opened; /* no fork is under way any more */
    unsigned forks;        /* under way */
    unsigned inside;       /* threads between enter and leave */
    bool inherited;        /* SQLite's memory holds connections of a parent: hands off */
    _Atomic pid_t owner;   /* the process all of this is true for; 0: nobody came yet */
    struct sqlite_store *stores;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER};

static int64_t longest_deadline(void)
{
    int64_t longest = 0;
    for (const struct sqlite_store *s = gate.stores; s; s = s->next)
        if (s->deadline > longest)
            longest = s->deadline;
    return longest;
}

static void close_list(struct connection *list)
{
    while (list) {
        struct connection *next = list->next;
        store_sqlite_disconnect(list);
        list = next;
    }
}

static struct connection *take_idle(struct sqlite_store *sqlite)
{
    struct connection *list = sqlite->idle;
    sqlite->idle = NULL;
    sqlite->idle_count = 0;
    return list;
}

/* The lock stays taken until after the fork, so that the child finds the gate in a known state. */
static void prepare(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.forks++;
    /* Sleeping in slices, since the sum of slices needs no clock. */
    int64_t patience = longest_deadline();
    for (int64_t slice = PREPARE_SLEEP_SHORT; gate.inside > 0 && patience > 0; patience -= slice) {
        pthread_mutex_unlock(&gate.lock);
        nanosleep(&(struct timespec){.tv_nsec = (long)(slice * 1000)}, NULL);
        slice = slice * 2 < PREPARE_SLEEP_LONG ? slice * 2 : PREPARE_SLEEP_LONG;
        pthread_mutex_lock(&gate.lock);
    }
    if (gate.inside > 0)
        return;
    for (struct sqlite_store *s = gate.stores; s; s = s->next) {
        struct connection *list = take_idle(s);
        /* A fork should be quick: what is in the log may stay there, unless somebody deleted the log. */
        for (struct connection *c = list; c; c = c->next)
            if (store_sqlite_may_write(c))
                sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        close_list(list);
    }
}

static void parent(void)
{
    gate.forks--;
    if (gate.forks == 0)
        pthread_cond_broadcast(&gate.opened);
    pthread_mutex_unlock(&gate.lock);
}

static void child(void)
{
    if (gate.inside > 0) {
        gate.inherited = true;
        /* Left as they are: closing them would touch the parent's files. */
        for (struct sqlite_store *s = gate.stores; s; s = s->next)
            take_idle(s);
    }
    gate.inside = 0;
    gate.forks = 0;
    atomic_store(&gate.owner, getpid());
    /* Those who waited on it are not in this process; it would wait for them. */
    gate.opened = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    pthread_mutex_unlock(&gate.lock);
}

static const struct fork_handler handler = {prepare, parent, child};

static envelope_status refuse_child(const struct sqlite_store *sqlite)
{
    return error_raise(ENVELOPE_E_STORE_UNAVAILABLE,
                       "store %s cannot be used in process %ld: it was forked while another thread was using the store "
                       "and did not finish in time; start this process anew (exec)",
                       sqlite->printed, (long)getpid());
}

envelope_status store_sqlite_enter(struct sqlite_store *sqlite, struct connection **idle)
{
    *idle = NULL;
    /* Asked before the lock is: in a child without handlers a thread that is not here may hold it. */
    pid_t owner = 0, self = getpid();
    if (!atomic_compare_exchange_strong(&gate.owner, &owner, self) && owner != self)
        return refuse_child(sqlite);
    pthread_mutex_lock(&gate.lock);
    while (gate.forks > 0)
        pthread_cond_wait(&gate.opened, &gate.lock);
    if (gate.inherited) {
        pthread_mutex_unlock(&gate.lock);
        return refuse_child(sqlite);
    }
    gate.inside++;
    if (sqlite->idle) {
        *idle = sqlite->idle;
        sqlite->idle = (*idle)->next;
        sqlite->idle_count--;
        (*idle)->next = NULL;
    }
    pthread_mutex_unlock(&gate.lock);
    return ENVELOPE_OK;
}

void store_sqlite_leave(struct sqlite_store *sqlite, struct connection *connection)
{
    pthread_mutex_lock(&gate.lock);
    if (connection && !connection->broken && sqlite->idle_count < IDLE_MAX) {
        connection->next = sqlite->idle;
        sqlite->idle = connection;
        sqlite->idle_count++;
        connection = NULL;
    }
    if (connection) {
        /* Closing is work inside SQLite, so it belongs inside the gate, but not under its lock. */
        pthread_mutex_unlock(&gate.lock);
        store_sqlite_disconnect(connection);
        pthread_mutex_lock(&gate.lock);
    }
    gate.inside--;
    pthread_mutex_unlock(&gate.lock);
}

void store_sqlite_drop_idle(struct sqlite_store *sqlite)
{
    pthread_mutex_lock(&gate.lock);
    struct connection *list = take_idle(sqlite);
    pthread_mutex_unlock(&gate.lock);
    close_list(list);
}

void store_sqlite_register(struct sqlite_store *sqlite)
{
    fork_add_handler(&handler);
    pthread_mutex_lock(&gate.lock);
    sqlite->next = gate.stores;
    gate.stores = sqlite;
    pthread_mutex_unlock(&gate.lock);
}

void store_sqlite_unregister(struct sqlite_store *sqlite)
{
    struct connection *idle = NULL;
    bool entered = store_sqlite_enter(sqlite, &idle) == ENVELOPE_OK;
    pthread_mutex_lock(&gate.lock);
    for (struct sqlite_store **at = &gate.stores; *at; at = &(*at)->next) {
        if (*at == sqlite) {
            *at = sqlite->next;
            break;
        }
    }
    struct connection *list = take_idle(sqlite);
    pthread_mutex_unlock(&gate.lock);
    if (!entered)
        return;
    close_list(list);
    if (idle)
        idle->broken = true;
    store_sqlite_leave(sqlite, idle);
}
