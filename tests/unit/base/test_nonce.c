#include "base_test.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/nonce.h"

typedef uint8_t one_nonce[NONCE_SIZE];

enum { THREADS = 6, PER_THREAD = 5000, CHILDREN = 5, PER_CHILD = 700 };

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, NONCE_SIZE);
}

static void assert_all_different(one_nonce *nonces, size_t count)
{
    qsort(nonces, count, NONCE_SIZE, compare);
    for (size_t i = 0; i < count; i++) {
        assert_false(all_zero(nonces[i], NONCE_SIZE));
        if (i > 0 && memcmp(nonces[i - 1], nonces[i], NONCE_SIZE) == 0)
            fail_msg("a nonce was given out twice");
    }
}

static bool draw(one_nonce *to, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (nonce_next(to[i]))
            return false;
    return true;
}

static void *draw_in_thread(void *to)
{
    return draw(to, PER_THREAD) ? to : NULL;
}

static void threads_never_get_the_same_nonce(void **state)
{
    (void)state;
    static one_nonce nonces[THREADS * PER_THREAD];
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, draw_in_thread, nonces + i * PER_THREAD), 0);
    for (size_t i = 0; i < THREADS; i++) {
        void *drawn;
        pthread_join(threads[i], &drawn);
        assert_non_null(drawn);
    }
    assert_all_different(nonces, COUNT(nonces));
}

/* The child draws into memory it shares with us. */
static void assert_forks_draw_apart(pid_t (*make_child)(void))
{
    size_t count = (CHILDREN + 1) * PER_CHILD;
    one_nonce *nonces = mmap(NULL, count * NONCE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(nonces, MAP_FAILED);
    /* Leave the block half used: what is left in it must not reach two processes. */
    assert_true(draw(nonces, 10));
    fflush(NULL);
    for (size_t i = 0; i < CHILDREN; i++) {
        pid_t child = make_child();
        assert_true(child >= 0);
        if (child == 0)
            _exit(draw(nonces + (i + 1) * PER_CHILD, PER_CHILD) ? 0 : 1);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    assert_true(draw(nonces + 10, PER_CHILD - 10));
    assert_all_different(nonces, count);
    munmap(nonces, count * NONCE_SIZE);
}

static void forked_children_never_get_their_parents_nonces(void **state)
{
    (void)state;
    assert_forks_draw_apart(fork);
}

/* Without pthread_atfork: only the wiped memory can tell. */
static pid_t bare_clone(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void children_made_behind_the_librarys_back_do_not_either(void **state)
{
    (void)state;
    assert_forks_draw_apart(bare_clone);
}

static void *draw_one(void *mark)
{
    one_nonce nonce;
    return nonce_next(nonce) ? NULL : mark;
}

static int thread_mark;

static void draw_in_threads_one_after_another(int count)
{
    for (int i = 0; i < count; i++) {
        pthread_t thread;
        void *drawn;
        assert_int_equal(pthread_create(&thread, NULL, draw_one, &thread_mark), 0);
        assert_int_equal(pthread_join(thread, &drawn), 0);
        assert_non_null(drawn);
    }
}

static void threads_that_end_give_their_block_back(void **state)
{
    (void)state;
    draw_in_threads_one_after_another(1);
    size_t before = smaps_scan(NULL, "wf");
    assert_true(before > 0);
    draw_in_threads_one_after_another(200);
    assert_int_equal(smaps_scan(NULL, "wf"), before);
}

static void bits_are_set_as_often_as_not(void **state)
{
    (void)state;
    enum { SAMPLE = 4000 };
    unsigned ones[NONCE_SIZE * 8] = {0};
    for (int i = 0; i < SAMPLE; i++) {
        one_nonce nonce;
        assert_int_equal(nonce_next(nonce), ENVELOPE_OK);
        for (size_t bit = 0; bit < COUNT(ones); bit++)
            ones[bit] += (unsigned)nonce[bit / 8] >> bit % 8 & 1U;
    }
    for (size_t bit = 0; bit < COUNT(ones); bit++) /* 2000 ± 32 expected; ten deviations either side */
        assert_in_range(ones[bit], 1680, 2320);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_never_get_the_same_nonce),
        cmocka_unit_test(forked_children_never_get_their_parents_nonces),
        cmocka_unit_test(children_made_behind_the_librarys_back_do_not_either),
        cmocka_unit_test(threads_that_end_give_their_block_back),
        cmocka_unit_test(bits_are_set_as_often_as_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
