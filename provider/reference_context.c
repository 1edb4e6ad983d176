/*
 * Which contexts hold a DEK. A context is the inner provider's own, without room for a mark of ours; so those keyed
 * by a reference stand in a hash table by their address.
 *
 * No lock: an entry belongs to whoever uses its context, which is one thread at a time; threads meet only where two
 * of them claim the same free entry. Buckets grow and are never freed, so nothing here can be caught in the middle
 * by a fork.
 */
#include "reference.h"

#include <stdlib.h>

#include "base/error.h"

enum { BUCKET_BITS = 10, BUCKETS = 1 << BUCKET_BITS, WAYS = 3 };

struct block {
    struct reference_context ways[WAYS];
    _Atomic(struct block *) next;
};

static struct block buckets[BUCKETS];

static struct block *bucket_of(const void *ctx)
{
    /* Fibonacci hashing: addresses from malloc() are alike in their low and in their high bits. */
    uint64_t hash = (uint64_t)(uintptr_t)ctx * UINT64_C(0x9e3779b97f4a7c15);
    return &buckets[hash >> (64 - BUCKET_BITS)];
}

struct reference_context *reference_context_find(const void *ctx)
{
    for (struct block *block = bucket_of(ctx); block; block = atomic_load_explicit(&block->next, memory_order_acquire))
        for (unsigned i = 0; i < WAYS; i++)
            if (atomic_load_explicit(&block->ways[i].ctx, memory_order_relaxed) == ctx)
                return ctx ? &block->ways[i] : NULL;
    return NULL;
}

static bool way_claim(struct reference_context *way, void *ctx)
{
    void *none = NULL;
    if (atomic_load_explicit(&way->ctx, memory_order_relaxed) ||
        !atomic_compare_exchange_strong_explicit(&way->ctx, &none, ctx, memory_order_acquire, memory_order_relaxed))
        return false;
    way->dek_id = 0;
    way->current = false;
    way->encrypt = false;
    way->counted = false;
    return true;
}

/* The block behind this one, made if there is none. */
static struct block *block_after(struct block *block)
{
    struct block *next = atomic_load_explicit(&block->next, memory_order_acquire);
    if (next)
        return next;
    struct block *made = calloc(1, sizeof *made);
    if (!made) {
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory for a cipher context under a key reference");
        return NULL;
    }
    if (atomic_compare_exchange_strong(&block->next, &next, made))
        return made;
    free(made);
    return next;
}

struct reference_context *reference_context_claim(void *ctx)
{
    struct reference_context *found = reference_context_find(ctx);
    if (found)
        return found;
    for (struct block *block = bucket_of(ctx); block; block = block_after(block))
        for (unsigned i = 0; i < WAYS; i++)
            if (way_claim(&block->ways[i], ctx))
                return &block->ways[i];
    return NULL;
}

void reference_context_forget(struct reference_context *context)
{
    if (context)
        atomic_store_explicit(&context->ctx, NULL, memory_order_release);
}
