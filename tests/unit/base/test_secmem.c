#include "base_test.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/secmem.h"

static const size_t sizes[] = {1, 15, 16, 32, 4095, 4096, 4097, 5008, 65536, 100000};

static size_t page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static void memory_comes_zeroed_aligned_and_writable(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        uint8_t *memory = secmem_alloc(sizes[i]);
        assert_non_null(memory);
        assert_true(all_zero(memory, sizes[i]));
        assert_int_equal((uintptr_t)memory % 16, 0);
        memset(memory, 0xa5, sizes[i]);
        secmem_free(memory);
    }
    uint8_t *nothing = secmem_alloc(0);
    assert_non_null(nothing);
    secmem_free(nothing);
    secmem_free(NULL);
}

static void a_size_no_machine_has_is_refused(void **state)
{
    (void)state;
    static const size_t absurd[] = {SIZE_MAX, SIZE_MAX - 16, SIZE_MAX - 3 * 4096, SIZE_MAX / 2};
    for (size_t i = 0; i < COUNT(absurd); i++) {
        error_clear();
        assert_null(secmem_alloc(absurd[i]));
        assert_int_equal(error_status(), ENVELOPE_E_NO_MEMORY);
    }
}

static int touch(void *address)
{
    *(volatile uint8_t *)address = 1;
    return 0;
}

static void assert_faults(void *address)
{
    int status = in_child(touch, address);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
}

static void reading_or_writing_beyond_either_end_faults(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        uint8_t *memory = secmem_alloc(sizes[i]);
        size_t rounded = (sizes[i] + 15) / 16 * 16;
        uint8_t *first_page = memory - (uintptr_t)memory % page();
        assert_faults(memory + rounded); /* the very first byte beyond */
        assert_faults(first_page - 1);
        assert_child_succeeds(touch, memory + sizes[i] - 1);
        secmem_free(memory);
    }
}

static int rewrite_header(void *memory)
{
    uint8_t *first_page = (uint8_t *)memory - (uintptr_t)memory % page();
    *(volatile uint8_t *)(first_page - 2 * page()) = 1;
    return 0;
}

static void freed_memory_and_its_header_cannot_be_written(void **state)
{
    (void)state;
    uint8_t *memory = secmem_alloc(32);
    int status = in_child(rewrite_header, memory);
    assert_true(WIFSIGNALED(status));
    secmem_free(memory);
    assert_faults(memory);
}

static void pages_are_locked_not_dumped_and_wiped_on_fork(void **state)
{
    (void)state;
    uint8_t *memory = secmem_alloc(100);
    secslab *slab = secslab_new(48);
    uint8_t *slot = secslab_get(slab);
    uint8_t *const both[] = {memory, slot};
    for (size_t i = 0; i < COUNT(both); i++) {
        assert_true(page_has_flag(both[i], "dd"));
        assert_true(page_has_flag(both[i], "wf"));
        if (LOCKS_VISIBLE && secmem_unlocked() == 0)
            assert_true(page_has_flag(both[i], "lo"));
    }
    secslab_put(slab, slot);
    secslab_destroy(slab);
    secmem_free(memory);
}

static int is_wiped_and_can_be_freed(void *memory)
{
    if (!all_zero(memory, 5000))
        return 1;
    memset(memory, 1, 5000);
    secmem_free(memory);
    return 0;
}

static void a_forked_child_sees_zeros_and_the_parent_its_secret(void **state)
{
    (void)state;
    uint8_t expected[5000], *memory = secmem_alloc(5000);
    memset(memory, 0x5a, 5000);
    memset(expected, 0x5a, 5000);
    assert_child_succeeds(is_wiped_and_can_be_freed, memory);
    assert_memory_equal(memory, expected, 5000);
    secmem_free(memory);
}

/* As an ordinary user without the right to lock anything. */
static int count_unlocked(void *unused)
{
    (void)unused;
    const struct rlimit none = {0, 0};
    size_t before = secmem_unlocked();
    if (setrlimit(RLIMIT_MEMLOCK, &none) != 0)
        return 1;
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0)
        return 2;
    uint8_t *memory = secmem_alloc(100);
    if (!memory)
        return 3;
    memset(memory, 1, 100);
    if (secmem_unlocked() != before + page())
        return 4;
    secmem_free(memory);
    if (secmem_unlocked() != before)
        return 5;
    secslab *slab = secslab_new(64);
    void *slot = secslab_get(slab);
    if (!slot || secmem_unlocked() <= before)
        return 6;
    secslab_put(slab, slot);
    secslab_destroy(slab);
    return secmem_unlocked() == before ? 0 : 7;
}

static void memory_that_cannot_be_locked_serves_and_is_counted(void **state)
{
    (void)state;
    if (!LOCKS_VISIBLE)
        skip();
    assert_child_succeeds(count_unlocked, NULL);
}

enum { MANY = 5000, SLOT = 48 };

static void slots_are_many_apart_zeroed_and_stay_where_they_are(void **state)
{
    (void)state;
    static uint8_t *slots[MANY];
    secslab *slab = secslab_new(SLOT);
    for (size_t i = 0; i < MANY; i++) {
        slots[i] = secslab_get(slab);
        assert_non_null(slots[i]);
        assert_true(all_zero(slots[i], SLOT));
        memset(slots[i], (int)(i % 255 + 1), SLOT);
    }
    for (size_t i = 0; i < MANY; i++)
        for (size_t j = 0; j < SLOT; j++)
            assert_int_equal(slots[i][j], i % 255 + 1);
    for (size_t i = 0; i < MANY; i++) {
        secslab_put(slab, slots[i]);
        assert_true(all_zero(slots[i], SLOT)); /* a stale reader sees zeros, no fault */
    }
    secslab_destroy(slab);
}

static void slots_given_back_are_used_again(void **state)
{
    (void)state;
    secslab *slab = secslab_new(SLOT);
    uint8_t *first = secslab_get(slab);
    secslab_put(slab, first);
    size_t before = smaps_scan(NULL, "wf");
    for (int i = 0; i < 100000; i++) {
        void *slot = secslab_get(slab);
        assert_ptr_equal(slot, first);
        secslab_put(slab, slot);
    }
    assert_int_equal(smaps_scan(NULL, "wf"), before);
    secslab_put(slab, NULL);
    secslab_destroy(slab);
    secslab_destroy(NULL);
}

static void every_slot_size_fits_its_pages(void **state)
{
    (void)state;
    static const size_t slot_sizes[] = {1, 16, 17, 100, 1024, 4096, 40000, 65536, 65537, 300000};
    for (size_t i = 0; i < COUNT(slot_sizes); i++) {
        uint8_t *slots[100];
        secslab *slab = secslab_new(slot_sizes[i]);
        for (size_t j = 0; j < COUNT(slots) && j * slot_sizes[i] < 1000000; j++) {
            slots[j] = secslab_get(slab);
            assert_non_null(slots[j]);
            memset(slots[j], 1, slot_sizes[i]);
            if (j % 2)
                secslab_put(slab, slots[j]);
        }
        secslab_destroy(slab);
    }
    error_clear();
    assert_null(secslab_new(SIZE_MAX));
    assert_int_equal(error_status(), ENVELOPE_E_NO_MEMORY);
}

struct crowd {
    secslab *slab;
    _Atomic int clashes;
};

static void *take_and_give(void *argument)
{
    struct crowd *crowd = argument;
    uint8_t *held[64] = {NULL};
    uint8_t mark[SLOT];
    memset(mark, (int)((uintptr_t)held >> 12) | 1, sizeof mark);
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t **place = &held[i * 7 % COUNT(held)];
        if (*place) {
            if (memcmp(*place, mark, SLOT) != 0)
                atomic_fetch_add(&crowd->clashes, 1);
            secslab_put(crowd->slab, *place);
        }
        *place = secslab_get(crowd->slab);
        if (!*place || !all_zero(*place, SLOT)) {
            atomic_fetch_add(&crowd->clashes, 1);
            break;
        }
        memcpy(*place, mark, SLOT);
    }
    for (size_t i = 0; i < COUNT(held); i++)
        secslab_put(crowd->slab, held[i]);
    return NULL;
}

static void threads_never_hold_the_same_slot(void **state)
{
    (void)state;
    struct crowd crowd = {.slab = secslab_new(SLOT)};
    pthread_t threads[6];
    for (size_t i = 0; i < COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &crowd), 0);
    for (size_t i = 0; i < COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(crowd.clashes, 0);
    secslab_destroy(crowd.slab);
}

struct inherited {
    secslab *slab;
    uint8_t *taken;
};

static int use_inherited_slab(void *argument)
{
    const struct inherited *inherited = argument;
    if (!all_zero(inherited->taken, SLOT))
        return 1;
    uint8_t *slot = secslab_get(inherited->slab);
    if (!slot || slot == inherited->taken)
        return 2;
    if (LOCKS_VISIBLE && secmem_unlocked() == 0 && !page_has_flag(slot, "lo"))
        return 3;
    secslab_put(inherited->slab, slot);
    secslab_put(inherited->slab, inherited->taken);
    secslab_destroy(inherited->slab);
    return secmem_unlocked() == 0 ? 0 : 4;
}

static void a_forked_child_can_use_the_slab_and_locks_it_again(void **state)
{
    (void)state;
    struct inherited inherited = {.slab = secslab_new(SLOT)};
    inherited.taken = secslab_get(inherited.slab);
    memset(inherited.taken, 7, SLOT);
    assert_child_succeeds(use_inherited_slab, &inherited);
    secslab_destroy(inherited.slab);
}

static int forked_heap(void *memory)
{
    if (*(uint8_t *)memory != 9)
        return 1; /* the heap belongs to the program: not wiped */
    secmem_shield(memory, 3000);
    return !LOCKS_VISIBLE || page_has_flag(memory, "lo") ? 0 : 2;
}

static void shielded_heap_pages_are_locked_and_not_dumped_but_survive_a_fork(void **state)
{
    (void)state;
    uint8_t *memory = malloc(3 * page());
    assert_non_null(memory);
    memory[0] = 9;
    for (int i = 0; i < 3; i++)
        secmem_shield(memory, 3 * page());
    for (size_t at = 0; at < 3 * page(); at += page()) {
        assert_true(page_has_flag(memory + at, "dd"));
        assert_false(page_has_flag(memory + at, "wf"));
        if (LOCKS_VISIBLE && secmem_unlocked() == 0)
            assert_true(page_has_flag(memory + at, "lo"));
    }
    assert_child_succeeds(forked_heap, memory);
    secmem_shield(memory, 0);
    secmem_shield(NULL, 100); /* not mapped: nothing happens */
    free(memory);
}

static void wiping_reaches_every_byte_and_no_other(void **state)
{
    (void)state;
    uint8_t bytes[64];
    memset(bytes, 0xff, sizeof bytes);
    secmem_wipe(bytes + 1, 62);
    assert_true(all_zero(bytes + 1, 62));
    assert_int_equal(bytes[0], 0xff);
    assert_int_equal(bytes[63], 0xff);
    secmem_wipe(NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_comes_zeroed_aligned_and_writable),
        cmocka_unit_test(a_size_no_machine_has_is_refused),
        cmocka_unit_test(reading_or_writing_beyond_either_end_faults),
        cmocka_unit_test(freed_memory_and_its_header_cannot_be_written),
        cmocka_unit_test(pages_are_locked_not_dumped_and_wiped_on_fork),
        cmocka_unit_test(a_forked_child_sees_zeros_and_the_parent_its_secret),
        cmocka_unit_test(memory_that_cannot_be_locked_serves_and_is_counted),
        cmocka_unit_test(slots_are_many_apart_zeroed_and_stay_where_they_are),
        cmocka_unit_test(slots_given_back_are_used_again),
        cmocka_unit_test(every_slot_size_fits_its_pages),
        cmocka_unit_test(threads_never_hold_the_same_slot),
        cmocka_unit_test(a_forked_child_can_use_the_slab_and_locks_it_again),
        cmocka_unit_test(shielded_heap_pages_are_locked_and_not_dumped_but_survive_a_fork),
        cmocka_unit_test(wiping_reaches_every_byte_and_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
