/*
 * What a thread keeps between inits: leases of the last few DEKs it used references to, so that an init with one of
 * them costs no more than a comparison, and a page of locked memory in which a DEK is handed to the cipher.
 */
#include "reference.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fork.h"
#include "base/secmem.h"
#include "keyname.h"

_Static_assert(REFERENCE_SIZE == (int)KEYNAME_SIZE && REFERENCE_SIZE == (int)HSM_DEK_SIZE,
               "a reference stands where a DEK goes");

enum { LEASES = 4 };

struct held {
    keyring *ring; /* NULL: free */
    uint32_t dek_id;
    bool from_bytes; /* bytes are the reference that gave dek_id */
    uint8_t bytes[REFERENCE_SIZE];
    struct keyring_lease lease;
};

struct thread {
    struct held held[LEASES];
    unsigned next; /* to be replaced */
    uint8_t *dek;
    uint64_t generation; /* a forked child's dek page is not locked any more */
};

static _Thread_local struct thread *mine;
static pthread_key_t at_exit;
static pthread_once_t at_exit_once = PTHREAD_ONCE_INIT;
static bool at_exit_made;

static void held_end(struct held *held)
{
    if (held->ring)
        keyring_lease_end(held->ring, &held->lease);
    memset(held, 0, sizeof *held);
}

static void thread_free(void *memory)
{
    struct thread *thread = memory;
    for (unsigned i = 0; i < LEASES; i++)
        held_end(&thread->held[i]);
    secmem_free(thread->dek);
    free(thread);
    mine = NULL;
}

static void make_at_exit(void)
{
    at_exit_made = pthread_key_create(&at_exit, thread_free) == 0;
}

static struct thread *thread_make(void)
{
    pthread_once(&at_exit_once, make_at_exit);
    struct thread *made = at_exit_made ? calloc(1, sizeof *made) : NULL;
    if (!made || pthread_setspecific(at_exit, made) != 0) {
        free(made);
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory for a thread's data keys");
        return NULL;
    }
    mine = made;
    return made;
}

uint8_t *reference_thread_dek(void)
{
    struct thread *thread = mine ? mine : thread_make();
    if (!thread)
        return NULL;
    uint64_t generation = fork_generation();
    if (thread->dek && thread->generation == generation)
        return thread->dek;
    secmem_free(thread->dek);
    thread->dek = secmem_alloc(HSM_DEK_SIZE);
    thread->generation = generation;
    return thread->dek;
}

static struct held *held_find(struct thread *thread, keyring *ring, const uint8_t *bytes, uint32_t dek_id)
{
    for (unsigned i = 0; i < LEASES; i++) {
        struct held *held = &thread->held[i];
        if (held->ring != ring)
            continue;
        bool same =
            bytes ? held->from_bytes && memcmp(held->bytes, bytes, REFERENCE_SIZE) == 0 : held->dek_id == dek_id;
        if (same)
            return held;
    }
    return NULL;
}

/* A reference not seen lately: check it, and make room. What it says does not change, so it is checked once. */
static envelope_status held_add(struct thread *thread, keyring *ring, const uint8_t *bytes, uint32_t dek_id,
                                struct held **added)
{
    if (bytes) {
        envelope_status status = provider_keyname_reference(ring, bytes, &dek_id);
        if (status != ENVELOPE_OK)
            return status;
    }
    struct held *held = held_find(thread, ring, NULL, dek_id);
    if (!held) {
        held = &thread->held[thread->next];
        thread->next = (thread->next + 1) % LEASES;
        held_end(held);
        held->ring = ring;
        held->dek_id = dek_id;
    }
    if (bytes) {
        memcpy(held->bytes, bytes, REFERENCE_SIZE);
        held->from_bytes = true;
    }
    *added = held;
    return ENVELOPE_OK;
}

envelope_status reference_thread_begin(keyring *ring, const uint8_t bytes[REFERENCE_SIZE], uint32_t dek_id,
                                       bool counted, struct keyring_lease **lease)
{
    struct thread *thread = mine ? mine : thread_make();
    if (!thread)
        return error_status();
    struct held *held = held_find(thread, ring, bytes, dek_id);
    if (!held) {
        envelope_status status = held_add(thread, ring, bytes, dek_id, &held);
        if (status != ENVELOPE_OK)
            return status;
    }
    *lease = &held->lease;
    return keyring_reference_begin(ring, held->dek_id, counted, &held->lease);
}

void reference_thread_end(const keyring *ring)
{
    struct thread *thread = mine;
    for (unsigned i = 0; thread && ring && i < LEASES; i++)
        if (thread->held[i].ring == ring)
            held_end(&thread->held[i]);
}
