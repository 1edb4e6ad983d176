/*
 * Which contexts hold a DEK. A context is the inner provider's own, without room for a mark of ours; so those keyed
 * by a reference stand in a hash table by their address.
 *
 * No lock: an entry belongs to whoever uses its context, which is one thread at a time; threads meet only where two
 * of them claim the same free entry. Buckets grow and are never freed, so nothing here can be caught in the middle
 * by a fork.
 */
#include <stdlib.h>
#include <sys/single_threaded.h>

#include "base/error.h"
#include "reference.h"

struct reference_block reference_buckets[1 << REFERENCE_BUCKET_BITS];

static bool way_claim(struct reference_context *way, void *ctx)
{
    void *none = NULL;
    if (atomic_load_explicit(&way->ctx, memory_order_relaxed))
        return false;
    if (__libc_single_threaded)
        atomic_store_explicit(&way->ctx, ctx, memory_order_relaxed);
    else if (!atomic_compare_exchange_strong_explicit(&way->ctx, &none, ctx, memory_order_acquire,
                                                      memory_order_relaxed))
        return false;
    way->dek_id = 0;
    way->current = false;
    way->encrypt = false;
    way->counted = false;
    way->refused = false;
    return true;
}

/* The block behind this one, made if there is none. */
static struct reference_block *block_after(struct reference_block *block)
{
    struct reference_block *next = atomic_load_explicit(&block->next, memory_order_acquire);
    if (next)
        return next;
    struct reference_block *made = calloc(1, sizeof *made);
    if (!made) {
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory for a cipher context under a key reference");
        return NULL;
    }
    if (atomic_compare_exchange_strong(&block->next, &next, made))
        return made;
    free(made);
    return next;
}

struct reference_context *reference_context_claim(void *ctx, bool *made)
{
    struct reference_context *found = reference_context_find(ctx);
    *made = found == NULL;
    if (found)
        return found;
    for (struct reference_block *block = reference_bucket(ctx); block; block = block_after(block))
        for (unsigned i = 0; i < REFERENCE_WAYS; i++)
            if (way_claim(&block->ways[i], ctx))
                return &block->ways[i];
    return NULL;
}
