/*
 * What a thread keeps between inits: a lease and the bytes of the last few DEKs it used references to, so that an init
 * with one of them costs a comparison and a look at the time.
 *
 * The keyring is asked once in a tick (a few milliseconds), not for every message; so a suspension or rotation is seen
 * that much later than `refresh` says. Messages are counted one by one all the same, from what the lease was given.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fork.h"
#include "base/secmem.h"
#include "keyname.h"
#include "reference.h"

_Static_assert(REFERENCE_SIZE == (int)KEYNAME_SIZE && REFERENCE_SIZE == (int)HSM_DEK_SIZE,
               "a reference stands where a DEK goes");

enum { HOLDS = 4 };

/* Kept out of the way of an init that finds everything. */
#define RARE __attribute__((noinline, cold))

struct thread {
    struct reference_hold holds[HOLDS];
    struct reference_hold *last;
    unsigned next; /* to be replaced */
    struct reference_shielded shielded[REFERENCE_SHIELDED];
    uint8_t *deks;       /* locked, HOLDS of them */
    uint64_t generation; /* a forked child's page is not locked any more */
};

static _Thread_local struct thread *mine;
static pthread_key_t at_exit;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool at_exit_made;

static void hold_forget_dek(struct reference_hold *hold)
{
    hold->begun = 0;
    if (hold->dek)
        secmem_wipe(hold->dek, HSM_DEK_SIZE);
}

static void hold_end(struct reference_hold *hold)
{
    if (hold->ring)
        keyring_lease_end(hold->ring, &hold->lease);
    hold_forget_dek(hold);
    memset(hold, 0, sizeof *hold);
}

static void thread_free(void *memory)
{
    struct thread *thread = memory;
    for (unsigned i = 0; i < HOLDS; i++)
        hold_end(&thread->holds[i]);
    secmem_free(thread->deks);
    free(thread);
    mine = NULL;
}

/* ---- threads ---- */

static void begin(void)
{
    at_exit_made = pthread_key_create(&at_exit, thread_free) == 0;
}

RARE static struct thread *thread_make(void)
{
    pthread_once(&once, begin);
    struct thread *made = at_exit_made ? calloc(1, sizeof *made) : NULL;
    if (!made || pthread_setspecific(at_exit, made) != 0) {
        free(made);
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory for a thread's data keys");
        return NULL;
    }
    made->last = &made->holds[0];
    mine = made;
    return made;
}

/* The page for the DEKs, locked in this process. */
static envelope_status thread_lock(struct thread *thread)
{
    uint64_t generation = fork_generation();
    if (thread->deks && thread->generation == generation)
        return ENVELOPE_OK;
    secmem_free(thread->deks);
    memset(thread->shielded, 0, sizeof thread->shielded);
    for (unsigned i = 0; i < HOLDS; i++) {
        thread->holds[i].begun = 0;
        thread->holds[i].dek = NULL;
    }
    thread->deks = secmem_alloc((size_t)HOLDS * HSM_DEK_SIZE);
    thread->generation = generation;
    return thread->deks ? ENVELOPE_OK : error_status();
}

static inline uint64_t word(const uint8_t *bytes, unsigned number)
{
    uint64_t value;
    memcpy(&value, bytes + number * sizeof value, sizeof value);
    return value;
}

static inline bool is_same(const uint8_t a[REFERENCE_SIZE], const uint8_t b[REFERENCE_SIZE])
{
    return ((word(a, 0) ^ word(b, 0)) | (word(a, 1) ^ word(b, 1)) | (word(a, 2) ^ word(b, 2)) |
            (word(a, 3) ^ word(b, 3))) == 0;
}

static inline bool hold_is(const struct reference_hold *hold, const keyring *ring, const uint8_t *bytes,
                           uint32_t dek_id)
{
    if (hold->ring != ring)
        return false;
    return bytes ? hold->from_bytes && is_same(hold->bytes, bytes) : hold->dek_id == dek_id;
}

static __attribute__((noinline)) struct reference_hold *hold_find(struct thread *thread, const keyring *ring,
                                                                  const uint8_t *bytes, uint32_t dek_id)
{
    for (unsigned i = 0; i < HOLDS; i++)
        if (hold_is(&thread->holds[i], ring, bytes, dek_id))
            return &thread->holds[i];
    return NULL;
}

/* A reference not seen lately: check it, and make room. What it says does not change, so it is checked once. */
RARE static envelope_status hold_add(struct thread *thread, keyring *ring, const uint8_t *bytes, uint32_t dek_id,
                                     struct reference_hold **added)
{
    if (bytes) {
        envelope_status status = provider_keyname_reference(ring, bytes, &dek_id);
        if (status != ENVELOPE_OK)
            return status;
    }
    struct reference_hold *hold = hold_find(thread, ring, NULL, dek_id);
    if (!hold) {
        hold = &thread->holds[thread->next];
        thread->next = (thread->next + 1) % HOLDS;
        hold_end(hold);
        hold->ring = ring;
        hold->dek_id = dek_id;
        hold->shielded = thread->shielded;
    }
    if (bytes) {
        memcpy(hold->bytes, bytes, REFERENCE_SIZE);
        hold->from_bytes = true;
    }
    *added = hold;
    return ENVELOPE_OK;
}

/*
 * The kernel zeroes the page in every forked child, also in one made behind pthread_atfork's back, where the generation
 * says nothing.
 */
static inline bool is_zero(const uint8_t dek[HSM_DEK_SIZE])
{
    return (word(dek, 0) | word(dek, 1) | word(dek, 2) | word(dek, 3)) == 0;
}

RARE static envelope_status hold_begin(struct thread *thread, struct reference_hold *hold, bool counted, int64_t now)
{
    envelope_status status = thread_lock(thread);
    if (status == ENVELOPE_OK)
        status = keyring_reference_begin(hold->ring, hold->dek_id, counted, &hold->lease);
    if (status == ENVELOPE_OK) {
        hold->dek = thread->deks + (size_t)(hold - thread->holds) * HSM_DEK_SIZE;
        status = keyring_lease_dek(&hold->lease, hold->dek);
    }
    if (status != ENVELOPE_OK) {
        keyring_lease_end(hold->ring, &hold->lease);
        hold_forget_dek(hold);
        return status;
    }
    hold->begun = now;
    hold->generation = thread->generation;
    return ENVELOPE_OK;
}

envelope_status reference_thread_begin(keyring *ring, const uint8_t *bytes, uint32_t dek_id, bool counted,
                                       const struct reference_hold **found)
{
    struct thread *thread = mine;
    if (!thread && !(thread = thread_make()))
        return error_status();
    struct reference_hold *hold = thread->last;
    if (!hold_is(hold, ring, bytes, dek_id))
        hold = hold_find(thread, ring, bytes, dek_id);
    if (!hold) {
        envelope_status status = hold_add(thread, ring, bytes, dek_id, &hold);
        if (status != ENVELOPE_OK)
            return status;
    }
    thread->last = hold;
    *found = hold;
    int64_t now = clock_tick();
    if (hold->begun == now && now != 0 && hold->generation == fork_generation() &&
        (!counted || hold->lease.messages > 0) && !is_zero(hold->dek)) {
        hold->lease.messages -= counted;
        hold->lease.hits++;
        return ENVELOPE_OK;
    }
    return hold_begin(thread, hold, counted, now);
}

void reference_thread_end(const keyring *ring)
{
    struct thread *thread = mine;
    for (unsigned i = 0; thread && ring && i < HOLDS; i++)
        if (thread->holds[i].ring == ring)
            hold_end(&thread->holds[i]);
}
