#include "base_test.h"

#include <pthread.h>

static void callers_prepend_what_they_know(void **state)
{
    (void)state;
    envelope_status status = error_raise(ENVELOPE_E_UNWRAP, "CKR_%s", "ENCRYPTED_DATA_INVALID");
    status = error_context(status, "version %d", 3);
    status = error_context(status, "key \"%s\"", "financial");
    assert_int_equal(status, ENVELOPE_E_UNWRAP);
    assert_int_equal(error_status(), ENVELOPE_E_UNWRAP);
    assert_string_equal(error_text(), "key \"financial\": version 3: CKR_ENCRYPTED_DATA_INVALID");
    error_clear();
    assert_string_equal(error_text(), "");
    assert_int_equal(error_status(), ENVELOPE_OK);
}

static void context_of_another_status_does_not_tell_an_old_story(void **state)
{
    (void)state;
    error_raise(ENVELOPE_E_IO, "an old story");
    error_context(ENVELOPE_E_STORE_BUSY, "rotating");
    assert_string_equal(error_text(), "rotating: store busy");
    error_clear();
    error_context(ENVELOPE_E_TIMEOUT, "waiting");
    assert_string_equal(error_text(), "waiting: deadline passed");
}

static void the_old_text_may_be_an_argument_of_the_new(void **state)
{
    (void)state;
    error_raise(ENVELOPE_E_IO, "first");
    error_raise(ENVELOPE_E_IO, "second after %s", error_text());
    assert_string_equal(error_text(), "second after first");
}

static void a_text_that_is_too_long_is_cut_and_says_so(void **state)
{
    (void)state;
    char filler[1001];
    memset(filler, 'x', 1000);
    filler[1000] = '\0';
    error_raise(ENVELOPE_E_IO, "%s", filler);
    error_context(ENVELOPE_E_IO, "%s", filler);
    size_t length = strlen(error_text());
    assert_int_equal(length, 1023);
    assert_string_equal(error_text() + length - 3, "...");
    error_raise(ENVELOPE_E_IO, "%s%s", filler, filler);
    assert_string_equal(error_text() + strlen(error_text()) - 3, "...");
}

static void *raise_elsewhere(void *unused)
{
    (void)unused;
    bool empty = error_text()[0] == '\0';
    error_raise(ENVELOPE_E_HSM, "in another thread");
    return empty ? NULL : "not empty";
}

static void each_thread_has_an_error_of_its_own(void **state)
{
    (void)state;
    pthread_t thread;
    void *problem;
    error_raise(ENVELOPE_E_IO, "mine");
    assert_int_equal(pthread_create(&thread, NULL, raise_elsewhere, NULL), 0);
    assert_int_equal(pthread_join(thread, &problem), 0);
    assert_null(problem);
    assert_string_equal(error_text(), "mine");
}

static void every_status_has_a_name_and_a_text_of_its_own(void **state)
{
    (void)state;
    static const int groups[][2] = {{ENVELOPE_E_INTERNAL, ENVELOPE_E_CRYPTO},
                                    {ENVELOPE_E_KEY_NAME, ENVELOPE_E_KEY_MISMATCH},
                                    {ENVELOPE_E_DATA_AUTH, ENVELOPE_E_COPY_REFUSED},
                                    {ENVELOPE_E_HSM_MODULE, ENVELOPE_E_HSM},
                                    {ENVELOPE_E_STORE_UNAVAILABLE, ENVELOPE_E_STORE_CONFLICT}};
    const char *names[128], *texts[128];
    size_t count = 0;
    for (size_t i = 0; i < COUNT(groups); i++)
        for (int status = groups[i][0]; status <= groups[i][1]; status++) {
            names[count] = envelope_status_name((envelope_status)status);
            texts[count] = envelope_status_text((envelope_status)status);
            assert_string_not_equal(names[count], "UNKNOWN");
            for (size_t j = 0; j < count; j++) {
                assert_string_not_equal(names[j], names[count]);
                assert_string_not_equal(texts[j], texts[count]);
            }
            count++;
        }
    assert_string_equal(envelope_status_name(ENVELOPE_OK), "OK");
    assert_string_equal(envelope_status_name((envelope_status)9999), "UNKNOWN");
    assert_string_equal(envelope_status_text((envelope_status)9999), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(callers_prepend_what_they_know),
        cmocka_unit_test(context_of_another_status_does_not_tell_an_old_story),
        cmocka_unit_test(the_old_text_may_be_an_argument_of_the_new),
        cmocka_unit_test(a_text_that_is_too_long_is_cut_and_says_so),
        cmocka_unit_test(each_thread_has_an_error_of_its_own),
        cmocka_unit_test(every_status_has_a_name_and_a_text_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
