/* Many threads on a real SoftHSM; its files taken away and put back beneath them. */
#include "hsm_fixture.h"

#include <glob.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS = 16, ROUNDS = 60 };

static uint8_t *blob;
static size_t blob_length;
static uint8_t known_dek[HSM_DEK_SIZE];

/* Wrap and unwrap; every DEK must come back whole. */
static void *wrap_and_unwrap(void *argument)
{
    _Atomic int *failures = argument;
    for (int i = 0; i < ROUNDS; i++) {
        uint8_t dek[HSM_DEK_SIZE] = {0}, again[HSM_DEK_SIZE] = {0}, *made = NULL;
        size_t length = 0;
        if (hsm_generate_dek(fixture.hsm, fixture.rig.kek, dek) != ENVELOPE_OK ||
            hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &made, &length) != ENVELOPE_OK ||
            hsm_unwrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, made, length, again) != ENVELOPE_OK ||
            memcmp(dek, again, sizeof dek) != 0)
            ++*failures;
        free(made);
    }
    return NULL;
}

static void run_threads(void *(*work)(void *), void *argument, pthread_t threads[THREADS])
{
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, argument), 0);
}

static void join_threads(pthread_t threads[THREADS])
{
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void threads_share(unsigned sessions, int wrap)
{
    pthread_t threads[THREADS];
    _Atomic int failures = 0;
    struct hsm_counters counters;
    fixture.settings.sessions = sessions;
    fixture.settings.wrap = wrap;
    fixture_renew();
    run_threads(wrap_and_unwrap, &failures, threads);
    join_threads(threads);
    assert_int_equal(failures, 0);
    hsm_count(fixture.hsm, &counters);
    assert_int_equal(counters.logins, 1);
    assert_int_equal(counters.wraps, THREADS * ROUNDS);
    assert_int_equal(counters.unwraps, THREADS * ROUNDS);
    assert_true(counters.sessions_opened <= sessions);
    assert_int_equal(counters.recoveries, 0);
}

static void sixteen_threads_share_one_session(void **state)
{
    (void)state;
    threads_share(1, SETTINGS_WRAP_AUTO);
}

static void sixteen_threads_share_four_sessions(void **state)
{
    (void)state;
    threads_share(4, SETTINGS_WRAP_AUTO);
    threads_share(4, SETTINGS_WRAP_AES_KWP);
}

/* --- the token goes and comes --- */

static _Atomic bool stop;
static _Atomic int good, away, wrong;

static void *unwrap_all_the_time(void *argument)
{
    (void)argument;
    while (!stop) {
        uint8_t dek[HSM_DEK_SIZE] = {0};
        envelope_status status = hsm_unwrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, blob, blob_length, dek);
        if (status == ENVELOPE_OK && memcmp(dek, known_dek, sizeof dek) == 0)
            good++;
        else if (status == ENVELOPE_E_HSM_UNAVAILABLE && strstr(error_text(), "\"rig\""))
            away++;
        else
            wrong++;
        if (status != ENVELOPE_OK && status != ENVELOPE_E_HSM_UNAVAILABLE)
            print_error("%s: %s\n", envelope_status_name(status), error_text());
    }
    return NULL;
}

static void wait_for_more(_Atomic int *counter)
{
    int from = *counter;
    for (int i = 0; i < 30000 && *counter < from + 20; i++)
        usleep(1000);
    assert_true(*counter >= from + 20);
}

static void make_blob(void)
{
    assert_status(hsm_generate_dek(fixture.hsm, fixture.rig.kek, known_dek), ENVELOPE_OK);
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, known_dek, &blob, &blob_length), ENVELOPE_OK);
}

static void token_taken_away_beneath_threads_is_named_and_works_again(void **state)
{
    pthread_t threads[THREADS];
    (void)state;
    fixture.settings.sessions = 4;
    fixture_renew();
    make_blob();
    stop = false;
    good = away = wrong = 0;
    run_threads(unwrap_all_the_time, NULL, threads);
    for (int i = 0; i < 3; i++) {
        wait_for_more(&good);
        assert_true(softhsm_rig_unplug(&fixture.rig));
        wait_for_more(&away);
        assert_true(softhsm_rig_plug(&fixture.rig));
    }
    wait_for_more(&good);
    stop = true;
    join_threads(threads);
    assert_int_equal(wrong, 0);
    free(blob);
}

static void token_away_is_named_and_back_without_a_restart(void **state)
{
    struct hsm_counters counters;
    (void)state;
    make_blob();
    for (int i = 0; i < 3; i++) {
        assert_true(softhsm_rig_unplug(&fixture.rig));
        for (int j = 0; j < 3; j++) {
            assert_status(unwrap(fixture.rig.kek, blob, blob_length), ENVELOPE_E_HSM_UNAVAILABLE);
            assert_said("\"rig\"");
        }
        assert_true(softhsm_rig_plug(&fixture.rig));
        assert_status(unwrap(fixture.rig.kek, blob, blob_length), ENVELOPE_OK);
    }
    hsm_count(fixture.hsm, &counters);
    assert_int_equal(counters.recoveries, 3);
    free(blob);
}

/* The one object file of the token that is not the token itself. */
static bool find_object(char path[PATH_MAX])
{
    char pattern[PATH_MAX];
    glob_t found;
    bool one = false;
    snprintf(pattern, sizeof pattern, "%s/*/*.object", fixture.rig.tokens);
    if (glob(pattern, 0, NULL, &found) != 0)
        return false;
    for (size_t i = 0; i < found.gl_pathc; i++)
        if (!strstr(found.gl_pathv[i], "/token.object"))
            one = snprintf(path, PATH_MAX, "%s", found.gl_pathv[i]) < PATH_MAX;
    globfree(&found);
    return one;
}

/* How a customer revokes, and takes it back. */
static void kek_taken_out_of_the_token_is_unknown_and_back_without_a_restart(void **state)
{
    char path[PATH_MAX], parked[PATH_MAX];
    (void)state;
    make_blob();
    assert_true(find_object(path));
    snprintf(parked, sizeof parked, "%s/master.object", fixture.rig.directory);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rename(path, parked), 0);
        assert_status(unwrap(fixture.rig.kek, blob, blob_length), ENVELOPE_E_KEK_UNKNOWN);
        assert_status(unwrap(fixture.rig.kek, blob, blob_length), ENVELOPE_E_KEK_UNKNOWN);
        assert_int_equal(rename(parked, path), 0);
        envelope_status status = ENVELOPE_E_KEK_UNKNOWN;
        for (int tries = 0; tries < 300 && status == ENVELOPE_E_KEK_UNKNOWN; tries++, usleep(100000))
            status = unwrap(fixture.rig.kek, blob, blob_length);
        assert_status(status, ENVELOPE_OK);
    }
    free(blob);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(sixteen_threads_share_one_session),
        TEST(sixteen_threads_share_four_sessions),
        TEST(token_away_is_named_and_back_without_a_restart),
        TEST(kek_taken_out_of_the_token_is_unknown_and_back_without_a_restart),
        TEST(token_taken_away_beneath_threads_is_named_and_works_again),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
