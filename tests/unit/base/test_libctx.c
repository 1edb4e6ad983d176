#include "base_test.h"

#include <pthread.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include "base/libctx.h"

static void *ask(void *unused)
{
    (void)unused;
    return libctx_private();
}

static void all_threads_share_one_private_context(void **state)
{
    (void)state;
    pthread_t threads[8];
    void *seen[8];
    for (size_t i = 0; i < COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask, NULL), 0);
    for (size_t i = 0; i < COUNT(threads); i++) {
        assert_int_equal(pthread_join(threads[i], &seen[i]), 0);
        assert_non_null(seen[i]);
        assert_ptr_equal(seen[i], seen[0]);
    }
    assert_string_equal(OSSL_PROVIDER_get0_name(libctx_provider()), "default");
    assert_ptr_not_equal(libctx_private(), OSSL_LIB_CTX_get0_global_default());
}

static OSSL_LIB_CTX *current(void)
{
    OSSL_LIB_CTX *now = OSSL_LIB_CTX_set0_default(NULL); /* NULL asks only */
    return now;
}

static void the_guard_switches_the_default_context_and_back(void **state)
{
    (void)state;
    assert_non_null(libctx_private());
    OSSL_LIB_CTX *before = current();
    struct libctx_guard outer, inner;
    assert_false(libctx_inside());
    libctx_enter(&outer);
    assert_true(libctx_inside());
    assert_ptr_equal(current(), libctx_private());
    libctx_enter(&inner);
    libctx_leave(&inner);
    assert_true(libctx_inside());
    assert_ptr_equal(current(), libctx_private());
    libctx_leave(&outer);
    assert_false(libctx_inside());
    assert_ptr_equal(current(), before);
}

static void junk_that_a_module_leaves_in_the_error_queue_is_dropped(void **state)
{
    (void)state;
    struct libctx_guard guard;
    ERR_clear_error();
    ERR_raise(ERR_LIB_USER, 42);
    assert_non_null(libctx_private());
    libctx_enter(&guard);
    ERR_raise(ERR_LIB_USER, 43);
    ERR_raise(ERR_LIB_USER, 44);
    libctx_leave(&guard);
    assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()), 42);
    ERR_clear_error();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_threads_share_one_private_context),
        cmocka_unit_test(the_guard_switches_the_default_context_and_back),
        cmocka_unit_test(junk_that_a_module_leaves_in_the_error_queue_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
