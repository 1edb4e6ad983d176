/* Tokens that misbehave: SoftHSM behind a module that fails, hangs and claims as it is told (fault_module.h). */
#include "hsm_fixture.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/libctx.h"
#include "fault_module.h"

static struct fault_control *control;
static char module[] = FAULT_MODULE;
static char pin_path[SOFTHSM_RIG_PATH_MAX + 8];

static int group_setup(void **state)
{
    if (fixture_group_setup(state) != 0)
        return -1;
    void *handle = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    control = handle ? dlsym(handle, "fault_control") : NULL;
    snprintf(pin_path, sizeof pin_path, "%s/pin2", fixture.rig.directory);
    return control ? 0 : -1;
}

static int setup(void **state)
{
    if (fixture_setup(state) != 0)
        return -1;
    CK_FUNCTION_LIST *real = control->real;
    memset(control, 0, sizeof *control);
    control->real = real;
    fixture.settings.module = module;
    return 0;
}

/* Nothing that was armed may outlast its test. */
static int teardown(void **state)
{
    CK_FUNCTION_LIST *real = control->real;
    memset(control, 0, sizeof *control);
    control->real = real;
    return fixture_teardown(state);
}

static void arm(enum fault_call call, CK_RV rv, int times)
{
    control->call[call].rv = rv;
    control->call[call].after = 0;
    control->call[call].times = times;
}

static void write_pin(const char *pin)
{
    int fd = open(pin_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, pin, strlen(pin)), (ssize_t)strlen(pin));
    close(fd);
    fixture.settings.pin_file = pin_path;
}

static envelope_status use(void)
{
    uint8_t dek[HSM_DEK_SIZE];
    return hsm_generate_dek(fixture.hsm, fixture.rig.kek, dek);
}

static uint64_t recoveries(void)
{
    struct hsm_counters counters;
    hsm_count(fixture.hsm, &counters);
    return counters.recoveries;
}

/* --- initialisation --- */

static void module_that_does_not_initialise_may_do_so_later(void **state)
{
    (void)state;
    arm(FAULT_INITIALIZE, CKR_FUNCTION_FAILED, 2);
    assert_status(use(), ENVELOPE_E_HSM_MODULE);
    assert_said("CKR_FUNCTION_FAILED");
    assert_status(use(), ENVELOPE_E_HSM_MODULE);
    assert_status(use(), ENVELOPE_OK);
}

/* --- login --- */

static void refused_pin_is_sent_once(void **state)
{
    (void)state;
    write_pin("wrong-1\n");
    for (int i = 0; i < 3; i++)
        assert_status(use(), ENVELOPE_E_HSM_LOGIN);
    assert_int_equal(control->call[FAULT_LOGIN].calls, 1);
    assert_said("pin2");
    assert_null(strstr(error_text(), "wrong-1"));
    fixture_renew();
    assert_status(use(), ENVELOPE_E_HSM_LOGIN);
    assert_int_equal(control->call[FAULT_LOGIN].calls, 1);
    write_pin(SOFTHSM_RIG_PIN); /* the administrator puts it right: no restart needed */
    assert_status(use(), ENVELOPE_OK);
    assert_int_equal(control->call[FAULT_LOGIN].calls, 2);
}

static void *use_in_thread(void *result)
{
    *(envelope_status *)result = use();
    return NULL;
}

enum { MANY = 16 };

static void use_in_many_threads(envelope_status results[MANY])
{
    pthread_t threads[MANY];
    for (int i = 0; i < MANY; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_in_thread, &results[i]), 0);
    for (int i = 0; i < MANY; i++)
        pthread_join(threads[i], NULL);
}

static void refused_pin_is_sent_once_by_all_threads_together(void **state)
{
    envelope_status results[MANY];
    (void)state;
    write_pin("wrong-2\n");
    use_in_many_threads(results);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(results[i], ENVELOPE_E_HSM_LOGIN);
    assert_int_equal(control->call[FAULT_LOGIN].calls, 1);
}

static void all_threads_together_log_in_once(void **state)
{
    envelope_status results[MANY];
    struct hsm_counters counters;
    (void)state;
    fixture.settings.sessions = 4;
    fixture_renew();
    use_in_many_threads(results);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(results[i], ENVELOPE_OK);
    assert_int_equal(control->call[FAULT_LOGIN].calls, 1);
    hsm_count(fixture.hsm, &counters);
    assert_int_equal(counters.logins, 1);
    assert_true(counters.sessions_opened <= 4);
}

static void last_try_is_left_to_people(void **state)
{
    (void)state;
    control->token_flags = CKF_USER_PIN_FINAL_TRY;
    assert_status(use(), ENVELOPE_E_HSM_PIN_LOCKED);
    assert_said("no PIN is sent");
    control->token_flags = CKF_USER_PIN_LOCKED;
    assert_status(use(), ENVELOPE_E_HSM_PIN_LOCKED);
    assert_int_equal(control->call[FAULT_LOGIN].calls, 0);
    control->token_flags = CKF_USER_PIN_COUNT_LOW;
    arm(FAULT_LOGIN, CKR_PIN_LOCKED, 1);
    assert_status(use(), ENVELOPE_E_HSM_PIN_LOCKED);
    assert_status(use(), ENVELOPE_OK);
}

static void login_disturbed_by_other_processes_is_tried_again(void **state)
{
    static const CK_RV passing[] = {CKR_GENERAL_ERROR, CKR_USER_PIN_NOT_INITIALIZED};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        arm(FAULT_LOGIN, passing[i], 3);
        assert_status(use(), ENVELOPE_OK);
        fixture_renew();
    }
    arm(FAULT_LOGIN, CKR_USER_PIN_NOT_INITIALIZED, -1);
    assert_status(use(), ENVELOPE_E_HSM_LOGIN);
    assert_said("no user PIN");
}

static void pin_of_1024_bytes_reaches_the_token(void **state)
{
    char pin[1025];
    (void)state;
    memset(pin, 'u', sizeof pin - 1);
    memcpy(pin + 1024 - strlen(SOFTHSM_RIG_PIN), SOFTHSM_RIG_PIN, strlen(SOFTHSM_RIG_PIN) + 1);
    control->long_pins = true;
    write_pin(pin);
    assert_status(use(), ENVELOPE_OK);
}

/* --- losses --- */

static const CK_RV losses[] = {
    CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED,           CKR_DEVICE_REMOVED,     CKR_DEVICE_ERROR,
    CKR_TOKEN_NOT_PRESENT,      CKR_USER_NOT_LOGGED_IN,       CKR_KEY_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID,
    CKR_TOKEN_NOT_RECOGNIZED,   CKR_CRYPTOKI_NOT_INITIALIZED,
};

static void each_kind_of_loss_is_survived_once(void **state)
{
    static const enum fault_call calls[] = {FAULT_ENCRYPT_INIT, FAULT_ENCRYPT, FAULT_DECRYPT_INIT, FAULT_DECRYPT,
                                            FAULT_RANDOM};
    (void)state;
    round_trip(fixture.rig.kek, NULL, NULL);
    for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++) {
        for (size_t j = 0; j < sizeof calls / sizeof calls[0]; j++) {
            uint64_t before = recoveries();
            arm(calls[j], losses[i], 1);
            round_trip(fixture.rig.kek, NULL, NULL);
            assert_int_equal(control->call[calls[j]].times, 0);
            assert_int_equal(recoveries(), before + 1);
        }
    }
}

static void loss_while_looking_for_the_kek_is_survived(void **state)
{
    (void)state;
    arm(FAULT_FIND, CKR_DEVICE_REMOVED, 1);
    round_trip(fixture.rig.kek, NULL, NULL);
    assert_int_equal(control->call[FAULT_FIND].times, 0);
}

static void lasting_loss_is_an_error_that_ends_with_it(void **state)
{
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    round_trip(fixture.rig.kek, &blob, &length);
    arm(FAULT_DECRYPT_INIT, CKR_DEVICE_REMOVED, -1);
    assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_E_HSM_UNAVAILABLE);
    assert_said("\"rig\"");
    assert_said("CKR_DEVICE_REMOVED");
    assert_true(hsm_is_away(ENVELOPE_E_HSM_UNAVAILABLE));
    assert_int_equal(control->call[FAULT_DECRYPT_INIT].calls, 1 + 2); /* the round trip; then once more, not for ever */
    arm(FAULT_DECRYPT_INIT, CKR_OK, 0);
    arm(FAULT_OPEN_SESSION, CKR_DEVICE_REMOVED, -1);
    assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_E_HSM_UNAVAILABLE);
    arm(FAULT_OPEN_SESSION, CKR_OK, 0);
    assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_OK);
    free(blob);
}

static void sessions_closed_by_others_are_opened_again(void **state)
{
    struct libctx_guard guard;
    (void)state;
    round_trip(fixture.rig.kek, NULL, NULL);
    CK_SLOT_ID slot = raw_slot();
    libctx_enter(&guard);
    CK_RV rv = fixture.p11->C_CloseAllSessions(slot);
    libctx_leave(&guard);
    assert_int_equal(rv, CKR_OK);
    round_trip(fixture.rig.kek, NULL, NULL);
    assert_int_equal(recoveries(), 1);
}

static void logout_by_others_is_survived(void **state)
{
    struct libctx_guard guard;
    (void)state;
    round_trip(fixture.rig.kek, NULL, NULL);
    CK_SESSION_HANDLE session = raw_session();
    libctx_enter(&guard);
    CK_RV rv = fixture.p11->C_Logout(session);
    fixture.p11->C_CloseSession(session);
    libctx_leave(&guard);
    assert_int_equal(rv, CKR_OK);
    round_trip(fixture.rig.kek, NULL, NULL);
}

static void finalisation_by_another_owner_is_survived(void **state)
{
    struct libctx_guard guard;
    (void)state;
    round_trip(fixture.rig.kek, NULL, NULL);
    libctx_enter(&guard);
    CK_RV rv = fixture.p11->C_Finalize(NULL);
    libctx_leave(&guard);
    assert_int_equal(rv, CKR_OK);
    round_trip(fixture.rig.kek, NULL, NULL);
}

static void general_error_with_the_kek_in_place_is_no_loss(void **state)
{
    static const uint8_t dek[HSM_DEK_SIZE];
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    round_trip(fixture.rig.kek, NULL, NULL);
    arm(FAULT_ENCRYPT, CKR_GENERAL_ERROR, -1);
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &blob, &length), ENVELOPE_E_HSM);
    assert_said("CKR_GENERAL_ERROR");
    assert_int_equal(recoveries(), 0);
}

static void kek_that_may_not_be_used_is_not_tried_again(void **state)
{
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    round_trip(fixture.rig.kek, &blob, &length);
    int before = control->call[FAULT_DECRYPT_INIT].calls;
    arm(FAULT_DECRYPT_INIT, CKR_KEY_FUNCTION_NOT_PERMITTED, -1);
    assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_E_KEK_REFUSED);
    assert_said("CKR_KEY_FUNCTION_NOT_PERMITTED");
    assert_said("\"master\"");
    assert_false(hsm_is_away(ENVELOPE_E_KEK_REFUSED));
    assert_int_equal(control->call[FAULT_DECRYPT_INIT].calls, before + 1);
    free(blob);
}

static void token_without_random_numbers_makes_no_dek(void **state)
{
    uint8_t dek[HSM_DEK_SIZE] = {0};
    static const uint8_t untouched[HSM_DEK_SIZE];
    (void)state;
    arm(FAULT_RANDOM, CKR_RANDOM_NO_RNG, -1);
    assert_int_not_equal(hsm_generate_dek(fixture.hsm, fixture.rig.kek, dek), ENVELOPE_OK);
    assert_said("CKR_RANDOM_NO_RNG");
    assert_said("random = local");
    assert_memory_equal(dek, untouched, sizeof dek);
}

static void local_random_numbers_need_none_of_the_tokens(void **state)
{
    uint8_t one[HSM_DEK_SIZE] = {0}, other[HSM_DEK_SIZE] = {0};
    static const uint8_t untouched[HSM_DEK_SIZE];
    (void)state;
    int before = control->call[FAULT_RANDOM].calls;
    arm(FAULT_RANDOM, CKR_RANDOM_NO_RNG, -1);
    fixture.settings.random = SETTINGS_RANDOM_LOCAL;
    assert_status(hsm_generate_dek(fixture.hsm, fixture.rig.kek, one), ENVELOPE_OK);
    assert_status(hsm_generate_dek(fixture.hsm, fixture.rig.kek, other), ENVELOPE_OK);
    fixture.settings.random = SETTINGS_RANDOM_TOKEN;
    assert_int_equal(control->call[FAULT_RANDOM].calls, before);
    assert_memory_not_equal(one, untouched, sizeof one);
    assert_memory_not_equal(one, other, sizeof one);
}

/* --- hanging, and too few sessions --- */

static void wait_until_hanging(enum fault_call call)
{
    for (int i = 0; i < 30000 && control->call[call].hanging == 0; i++)
        usleep(1000);
    assert_int_equal(control->call[call].hanging, 1);
}

static void *round_trip_in_thread(void *result)
{
    uint8_t dek[HSM_DEK_SIZE] = {7}, *blob = NULL;
    size_t length = 0;
    *(envelope_status *)result = hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &blob, &length);
    free(blob);
    return NULL;
}

static void nobody_waits_beyond_the_deadline_for_a_hanging_token(void **state)
{
    pthread_t thread;
    envelope_status result = ENVELOPE_E_INTERNAL;
    (void)state;
    fixture.settings.deadline = CLOCK_SECOND / 5;
    fixture_renew();
    round_trip(fixture.rig.kek, NULL, NULL);
    control->call[FAULT_ENCRYPT].hang = true;
    assert_int_equal(pthread_create(&thread, NULL, round_trip_in_thread, &result), 0);
    wait_until_hanging(FAULT_ENCRYPT);
    int64_t begun = clock_monotonic();
    assert_status(use(), ENVELOPE_E_HSM_UNAVAILABLE);
    assert_said("1 sessions");
    assert_true(clock_monotonic() - begun >= CLOCK_SECOND / 5);
    control->call[FAULT_ENCRYPT].hang = false;
    pthread_join(thread, NULL);
    assert_int_equal(result, ENVELOPE_OK);
    assert_status(use(), ENVELOPE_OK);
}

static void hammer(unsigned sessions)
{
    pthread_t threads[MANY];
    envelope_status results[MANY];
    fixture.settings.sessions = sessions;
    fixture_renew();
    for (int i = 0; i < MANY; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, round_trip_in_thread, &results[i]), 0);
    for (int i = 0; i < MANY; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(results[i], ENVELOPE_OK);
    }
}

static void sessions_in_use_stay_within_their_number(void **state)
{
    (void)state;
    hammer(3);
    assert_true(control->most_inside <= 3);
    control->most_inside = 0;
    hammer(1);
    assert_int_equal(control->most_inside, 1);
}

static void token_with_fewer_sessions_than_configured_is_enough(void **state)
{
    (void)state;
    control->session_limit = 2;
    hammer(8);
    assert_true(control->most_inside <= 2);
    fixture_renew();
    control->session_limit = 0;
}

/* --- IVs and mechanisms of other tokens --- */

static void assert_iv_strategy(int configured, int of_token)
{
    uint8_t *blob = NULL, *other = NULL;
    size_t length = 0;
    fixture.settings.iv = configured;
    control->iv = of_token;
    fixture_renew();
    round_trip(fixture.rig.kek, &blob, &length);
    assert_int_equal(length, 62);
    int before = control->call[FAULT_ENCRYPT_INIT].calls;
    round_trip(fixture.rig.kek, &other, &length);
    assert_int_equal(control->call[FAULT_ENCRYPT_INIT].calls, before + 1); /* found out once, then known */
    assert_memory_not_equal(blob + 2, other + 2, 12);
    blob[20] ^= 1;
    assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_E_UNWRAP);
    blob[20] ^= 1;
    /* Whoever made the IV: the blob is the same, and any AES-GCM opens it. */
    control->iv = FAULT_IV_CALLER;
    fixture.settings.iv = SETTINGS_IV_AUTO;
    fixture_renew();
    assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_OK);
    free(blob);
    free(other);
}

static void token_that_makes_its_own_ivs_is_found_out(void **state)
{
    (void)state;
    assert_iv_strategy(SETTINGS_IV_AUTO, FAULT_IV_CALLER);
    assert_iv_strategy(SETTINGS_IV_AUTO, FAULT_IV_TOKEN);
    assert_iv_strategy(SETTINGS_IV_AUTO, FAULT_IV_PREPENDED);
}

static void configured_iv_strategy_is_used(void **state)
{
    static const uint8_t dek[HSM_DEK_SIZE];
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    assert_iv_strategy(SETTINGS_IV_CALLER, FAULT_IV_CALLER);
    assert_iv_strategy(SETTINGS_IV_TOKEN, FAULT_IV_TOKEN);
    assert_iv_strategy(SETTINGS_IV_PREPENDED, FAULT_IV_PREPENDED);
    fixture.settings.iv = SETTINGS_IV_CALLER;
    control->iv = FAULT_IV_TOKEN;
    fixture_renew();
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_WRAP_MECHANISM);
    assert_said("CKR_MECHANISM_PARAM_INVALID");
}

static void token_without_aes_gcm_wraps_by_kwp(void **state)
{
    uint8_t *wrapped = NULL, *encrypted = NULL;
    size_t length = 0;
    (void)state;
    control->no_gcm = true;
    round_trip(fixture.rig.kek, &wrapped, &length);
    assert_int_equal(wrapped[1], HSM_AES_KWP);
    assert_int_equal(control->call[FAULT_WRAP].calls, 1);
    control->kwp_encrypts = true;
    fixture_renew();
    round_trip(fixture.rig.kek, &encrypted, &length);
    assert_int_equal(encrypted[1], HSM_AES_KWP);
    assert_int_equal(control->call[FAULT_WRAP].calls, 1);
    /* Both routes are RFC 5649: each opens what the other made. */
    assert_status(unwrap(fixture.rig.kek, wrapped, length), ENVELOPE_OK);
    control->kwp_encrypts = false;
    fixture_renew();
    assert_status(unwrap(fixture.rig.kek, encrypted, length), ENVELOPE_OK);
    free(wrapped);
    free(encrypted);
}

static void padding_other_than_rfc_5649_is_refused(void **state)
{
    static const uint8_t dek[HSM_DEK_SIZE];
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    fixture.settings.wrap = SETTINGS_WRAP_AES_KWP;
    control->pkcs7_pad = true;
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_WRAP_MECHANISM);
    assert_said("RFC 5649");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(module_that_does_not_initialise_may_do_so_later), /* first: later the module is initialised */
        TEST(refused_pin_is_sent_once),
        TEST(refused_pin_is_sent_once_by_all_threads_together),
        TEST(all_threads_together_log_in_once),
        TEST(last_try_is_left_to_people),
        TEST(login_disturbed_by_other_processes_is_tried_again),
        TEST(pin_of_1024_bytes_reaches_the_token),
        TEST(each_kind_of_loss_is_survived_once),
        TEST(loss_while_looking_for_the_kek_is_survived),
        TEST(lasting_loss_is_an_error_that_ends_with_it),
        TEST(sessions_closed_by_others_are_opened_again),
        TEST(logout_by_others_is_survived),
        TEST(finalisation_by_another_owner_is_survived),
        TEST(general_error_with_the_kek_in_place_is_no_loss),
        TEST(kek_that_may_not_be_used_is_not_tried_again),
        TEST(token_without_random_numbers_makes_no_dek),
        TEST(local_random_numbers_need_none_of_the_tokens),
        TEST(nobody_waits_beyond_the_deadline_for_a_hanging_token),
        TEST(sessions_in_use_stay_within_their_number),
        TEST(token_with_fewer_sessions_than_configured_is_enough),
        TEST(token_that_makes_its_own_ivs_is_found_out),
        TEST(configured_iv_strategy_is_used),
        TEST(token_without_aes_gcm_wraps_by_kwp),
        TEST(padding_other_than_rfc_5649_is_refused),
    };
    return cmocka_run_group_tests(tests, group_setup, fixture_group_teardown);
}
