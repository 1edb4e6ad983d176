/*
 * Memory for secrets: its own mapping with guard pages on both sides, locked
 * (mlock), left out of core dumps (MADV_DONTDUMP) and zeroed in forked children
 * (MADV_WIPEONFORK), so that zeroed bytes mean "not ours any more".
 * If mlock is refused (RLIMIT_MEMLOCK) the memory is used all the same and
 * secmem_unlocked() counts it: doctor warns.
 */
#ifndef BASE_SECMEM_H
#define BASE_SECMEM_H

#include <stddef.h>

/* Zeroed; NULL with the error raised. Costs at least one page and a few system calls: not for the hot path. */
void *secmem_alloc(size_t size);
/* Wipes and unmaps; NULL is allowed. */
void secmem_free(void *memory);
/* Wipe with a store the compiler cannot remove. */
void secmem_wipe(void *memory, size_t size);
/* Bytes in use whose mlock was refused. */
size_t secmem_unlocked(void);

/*
 * Slots of one size in shared secret pages, for many small secrets. Slots never
 * move; the pages are never unmapped while the slab lives, so that a stale
 * reader sees zeros, not a fault. Thread-safe.
 */
typedef struct secslab secslab;
secslab *secslab_new(size_t slot_size);
void secslab_destroy(secslab *slab);
void *secslab_get(secslab *slab);            /* zeroed; NULL with the error raised */
void secslab_put(secslab *slab, void *slot); /* wipes */

/*
 * Lock and hide the pages of memory we did not allocate, for key schedules that
 * libcrypto puts on the heap. Best effort: failures are ignored. The pages stay locked.
 */
void secmem_shield(const void *memory, size_t size);

#endif
