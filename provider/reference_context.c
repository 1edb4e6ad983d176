/*
 * Which contexts hold a DEK. A context is the inner provider's own, without room for a mark of ours; so those keyed
 * by a reference stand in a hash table by their address.
 *
 * No lock: an entry belongs to whoever uses its context, which is one thread at a time; threads meet only where two
 * of them claim the same free entry. Buckets grow and are never freed, so nothing here can be caught in the middle
 * by a fork.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "reference.h"

struct reference_block reference_buckets[1 << REFERENCE_BUCKET_BITS];

/* The block behind this one, made if there is none. */
static struct reference_block *block_after(struct reference_block *block)
{
    struct reference_block *next = atomic_load_explicit(&block->next, memory_order_acquire);
    if (next)
        return next;
    struct reference_block *made = aligned_alloc(_Alignof(struct reference_block), sizeof *made);
    if (!made) {
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory for a cipher context under a key reference");
        return NULL;
    }
    memset(made, 0, sizeof *made);
    if (atomic_compare_exchange_strong(&block->next, &next, made))
        return made;
    free(made);
    return next;
}

struct reference_context *reference_context_add(void *ctx)
{
    for (struct reference_block *block = reference_bucket(ctx); block; block = block_after(block))
        for (unsigned i = 0; i < REFERENCE_WAYS; i++)
            if (reference_way_claim(&block->ways[i], ctx))
                return &block->ways[i];
    return NULL;
}
