#include "base/secmem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fork.h"

static _Atomic size_t unlocked_bytes;

static size_t page_size(void)
{
    static _Atomic size_t known;
    size_t size = atomic_load_explicit(&known, memory_order_relaxed);
    if (size == 0) {
        size = (size_t)sysconf(_SC_PAGESIZE);
        atomic_store_explicit(&known, size, memory_order_relaxed);
    }
    return size;
}

/* size rounded up to a multiple of unit, a power of two; 0 if that is too large. */
static size_t round_up(size_t size, size_t unit)
{
    size_t rounded = (size + unit - 1) & ~(unit - 1);
    return rounded < size ? 0 : rounded;
}

void secmem_wipe(void *memory, size_t size)
{
    if (size > 0)
        explicit_bzero(memory, size);
}

size_t secmem_unlocked(void)
{
    return atomic_load_explicit(&unlocked_bytes, memory_order_relaxed);
}

/* True if the pages are locked now; else they are counted. */
static bool lock_pages(void *pages, size_t size)
{
    if (mlock(pages, size) == 0)
        return true;
    atomic_fetch_add_explicit(&unlocked_bytes, size, memory_order_relaxed);
    return false;
}

/*
 * A mapping of `before` bytes, size usable bytes and a guard page; pages outside
 * the usable part fault. All sizes are whole pages. NULL with the error raised.
 */
static uint8_t *map_guarded(size_t before, size_t size)
{
    size_t total;
    if (size == 0 || __builtin_add_overflow(before + page_size(), size, &total)) {
        error_raise(ENVELOPE_E_NO_MEMORY, "a block of secret memory of %zu bytes is too large", size);
        return NULL;
    }
    uint8_t *start = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) {
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for %zu bytes of secret memory: %s", total, strerror(errno));
        return NULL;
    }
    uint8_t *usable = start + before;
    if (mprotect(usable, size, PROT_READ | PROT_WRITE) != 0 || madvise(usable, size, MADV_DONTDUMP) != 0 ||
        madvise(usable, size, MADV_WIPEONFORK) != 0) {
        error_raise(ENVELOPE_E_NO_MEMORY,
                    "the kernel refuses to protect secret memory (%s); Linux 4.14 or newer is needed", strerror(errno));
        munmap(start, total);
        return NULL;
    }
    return start;
}

/*
 * One allocation: header page (read-only), guard page, data pages, guard page.
 * The header has a page of its own because the data pages are zero in a forked
 * child, which must still be able to free them.
 */
struct allocation {
    size_t data_size; /* whole pages */
    bool locked;
};

enum { ALIGNMENT = 16 };

void *secmem_alloc(size_t size)
{
    size_t page = page_size();
    size_t used = round_up(size ? size : 1, ALIGNMENT);
    size_t data_size = round_up(used, page);
    if (data_size == 0) {
        error_raise(ENVELOPE_E_NO_MEMORY, "a secret of %zu bytes is too large", size);
        return NULL;
    }
    uint8_t *start = map_guarded(2 * page, data_size);
    if (!start)
        return NULL;
    if (mprotect(start, page, PROT_READ | PROT_WRITE) != 0) {
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the header of secret memory: %s", strerror(errno));
        munmap(start, data_size + 3 * page);
        return NULL;
    }
    uint8_t *data = start + 2 * page;
    struct allocation *header = (struct allocation *)(void *)start;
    header->data_size = data_size;
    header->locked = lock_pages(data, data_size);
    /* Hardening only: a header left writable works just as well. */
    (void)mprotect(start, page, PROT_READ);
    /* At the end of its pages, so that the first byte too many hits the guard. */
    return data + data_size - used;
}

void secmem_free(void *memory)
{
    if (!memory)
        return;
    size_t page = page_size();
    uint8_t *data = (uint8_t *)memory - (uintptr_t)memory % page;
    uint8_t *start = data - 2 * page;
    struct allocation header = *(const struct allocation *)(const void *)start;
    secmem_wipe(data, header.data_size);
    if (!header.locked)
        atomic_fetch_sub_explicit(&unlocked_bytes, header.data_size, memory_order_relaxed);
    munmap(start, header.data_size + 3 * page);
}

/*
 * A slab is a list of chunks that only grows. Which slots are taken stands in
 * atomic bits outside the secret pages: a forked child finds the bits intact,
 * and no lock can be caught in the middle by a fork.
 */
enum { CHUNK_SIZE = 64 * 1024, WORD_BITS = 64 };

struct chunk {
    struct chunk *next; /* older */
    uint8_t *slots;
    uint8_t *mapping;
    size_t size;
    size_t slot_count;
    _Atomic bool locked;
    _Atomic uint64_t generation; /* of the process that locked it: a child does not inherit locks */
    _Atomic size_t free_count;   /* a hint: full chunks are passed over quickly */
    _Atomic uint64_t taken[];
};

struct secslab {
    size_t slot_size;
    _Atomic(struct chunk *) newest;
};

secslab *secslab_new(size_t slot_size)
{
    size_t rounded = round_up(slot_size ? slot_size : 1, ALIGNMENT);
    secslab *slab = rounded ? calloc(1, sizeof *slab) : NULL;
    if (!slab) {
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for slots of %zu bytes", slot_size);
        return NULL;
    }
    slab->slot_size = rounded;
    return slab;
}

static void chunk_free(struct chunk *chunk)
{
    secmem_wipe(chunk->slots, chunk->size);
    if (!atomic_load(&chunk->locked))
        atomic_fetch_sub_explicit(&unlocked_bytes, chunk->size, memory_order_relaxed);
    munmap(chunk->mapping, chunk->size + 2 * page_size());
    free(chunk);
}

void secslab_destroy(secslab *slab)
{
    if (!slab)
        return;
    struct chunk *chunk = atomic_load(&slab->newest);
    while (chunk) {
        struct chunk *next = chunk->next;
        chunk_free(chunk);
        chunk = next;
    }
    free(slab);
}

/* A chunk whose first slot is taken. */
static struct chunk *chunk_new(size_t slot_size)
{
    size_t page = page_size();
    size_t size = slot_size <= CHUNK_SIZE ? round_up(CHUNK_SIZE, page) : round_up(slot_size, page);
    size_t slot_count = size / slot_size;
    size_t words = (slot_count + WORD_BITS - 1) / WORD_BITS;
    struct chunk *chunk = calloc(1, sizeof *chunk + words * sizeof chunk->taken[0]);
    if (!chunk) {
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for %zu slots of secret memory", slot_count);
        return NULL;
    }
    chunk->mapping = map_guarded(page, size);
    if (!chunk->mapping) {
        free(chunk);
        return NULL;
    }
    chunk->slots = chunk->mapping + page;
    chunk->size = size;
    chunk->slot_count = slot_count;
    atomic_init(&chunk->locked, lock_pages(chunk->slots, size));
    atomic_init(&chunk->generation, fork_generation());
    atomic_init(&chunk->free_count, slot_count - 1);
    atomic_init(&chunk->taken[0], 1);
    if (slot_count % WORD_BITS) /* bits without a slot count as taken */
        atomic_fetch_or(&chunk->taken[words - 1], ~UINT64_C(0) << slot_count % WORD_BITS);
    return chunk;
}

/* In a forked child the kernel has dropped the locks. */
static void chunk_lock_again(struct chunk *chunk)
{
    uint64_t now = fork_generation();
    uint64_t then = atomic_load_explicit(&chunk->generation, memory_order_relaxed);
    if (then == now || !atomic_compare_exchange_strong(&chunk->generation, &then, now))
        return;
    if (!atomic_load(&chunk->locked)) {
        if (mlock(chunk->slots, chunk->size) != 0)
            return;
        atomic_fetch_sub_explicit(&unlocked_bytes, chunk->size, memory_order_relaxed);
        atomic_store(&chunk->locked, true);
        return;
    }
    atomic_store(&chunk->locked, lock_pages(chunk->slots, chunk->size));
}

static void *chunk_take(struct chunk *chunk, size_t slot_size)
{
    if (atomic_load_explicit(&chunk->free_count, memory_order_relaxed) == 0)
        return NULL;
    size_t words = (chunk->slot_count + WORD_BITS - 1) / WORD_BITS;
    for (size_t i = 0; i < words; i++) {
        uint64_t taken = atomic_load_explicit(&chunk->taken[i], memory_order_relaxed);
        while (~taken) {
            unsigned bit = (unsigned)__builtin_ctzll(~taken);
            /* Acquire: the wipe of the thread that gave the slot back comes before our use. */
            if (!atomic_compare_exchange_weak_explicit(&chunk->taken[i], &taken, taken | UINT64_C(1) << bit,
                                                       memory_order_acquire, memory_order_relaxed))
                continue;
            atomic_fetch_sub_explicit(&chunk->free_count, 1, memory_order_relaxed);
            return chunk->slots + (i * WORD_BITS + bit) * slot_size;
        }
    }
    return NULL;
}

void *secslab_get(secslab *slab)
{
    for (struct chunk *chunk = atomic_load(&slab->newest); chunk; chunk = chunk->next) {
        chunk_lock_again(chunk);
        void *slot = chunk_take(chunk, slab->slot_size);
        if (slot)
            return slot;
    }
    struct chunk *chunk = chunk_new(slab->slot_size);
    if (!chunk)
        return NULL;
    chunk->next = atomic_load(&slab->newest);
    while (!atomic_compare_exchange_weak(&slab->newest, &chunk->next, chunk))
        ;
    return chunk->slots;
}

void secslab_put(secslab *slab, void *slot)
{
    if (!slot)
        return;
    secmem_wipe(slot, slab->slot_size);
    for (struct chunk *chunk = atomic_load(&slab->newest); chunk; chunk = chunk->next) {
        uintptr_t offset = (uintptr_t)slot - (uintptr_t)chunk->slots;
        if (offset >= chunk->size)
            continue;
        size_t index = offset / slab->slot_size;
        atomic_fetch_and_explicit(&chunk->taken[index / WORD_BITS], ~(UINT64_C(1) << index % WORD_BITS),
                                  memory_order_release);
        atomic_fetch_add_explicit(&chunk->free_count, 1, memory_order_relaxed);
        return;
    }
}

/*
 * Pages this thread shielded lately, by address: a context that is freed and
 * made again at the same place costs no system call. The allocator may have
 * given the page back to the kernel and got a fresh one in between, so the
 * memory is short.
 */
enum { RECENT_PAGES = 64 };
#define RECENT_FOR (CLOCK_SECOND / 10)

struct recent_pages {
    uint64_t generation; /* a child does not inherit locks */
    int64_t since;
    uintptr_t numbers[RECENT_PAGES];
};

static _Thread_local struct recent_pages recent;

static void forget_what_is_old(void)
{
    uint64_t generation = fork_generation();
    int64_t now = clock_monotonic_coarse();
    if (recent.generation == generation && now >= recent.since && now - recent.since < RECENT_FOR)
        return;
    memset(recent.numbers, 0, sizeof recent.numbers);
    recent.generation = generation;
    recent.since = now;
}

void secmem_shield(const void *memory, size_t size)
{
    if (size == 0)
        return;
    forget_what_is_old();
    size_t page = page_size();
    uintptr_t last = ((uintptr_t)memory + size - 1) / page;
    for (uintptr_t number = (uintptr_t)memory / page; number <= last; number++) {
        uintptr_t *place = &recent.numbers[number % RECENT_PAGES];
        if (*place == number)
            continue;
        void *start = (void *)(number * page); /* NOLINT(performance-no-int-to-ptr) */
        (void)mlock(start, page);
        /* Not remembered if it fails: the range may end on a page that is not there yet. */
        if (madvise(start, page, MADV_DONTDUMP) == 0)
            *place = number;
    }
}
