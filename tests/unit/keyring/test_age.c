/* How long a DEK is served: ttl, grace, a token or a store that is away. */
#include "keyring_rig.h"

#include <stdatomic.h>
#include <string.h>

#include "hsm/hsm.h"

#define TTL (100 * CLOCK_SECOND)
#define GRACE (50 * CLOCK_SECOND)

/* ---- a store that fails on demand; everything else is the real one ---- */

static _Atomic int store_away;

envelope_status __real_store_change_counter(store *opened, uint64_t *counter);
envelope_status __wrap_store_change_counter(store *opened, uint64_t *counter);
envelope_status __wrap_store_change_counter(store *opened, uint64_t *counter)
{
    if (atomic_load(&store_away))
        return error_raise(ENVELOPE_E_STORE_BUSY, "the test keeps the store");
    return __real_store_change_counter(opened, counter);
}

envelope_status __real_store_version_find(store *opened, uint32_t dek_id, struct store_version *version);
envelope_status __wrap_store_version_find(store *opened, uint32_t dek_id, struct store_version *version);
envelope_status __wrap_store_version_find(store *opened, uint32_t dek_id, struct store_version *version)
{
    if (atomic_load(&store_away))
        return error_raise(ENVELOPE_E_STORE_BUSY, "the test keeps the store");
    return __real_store_version_find(opened, dek_id, version);
}

static struct settings aging_settings(void)
{
    struct settings settings = rig_settings();
    settings.ttl = TTL;
    settings.grace = GRACE;
    return settings;
}

static void dek_is_unwrapped_again_after_its_ttl(void **state)
{
    (void)state;
    keyring *ring = rig_ring(aging_settings());
    keyring_key *key = rig_key(ring, "default");
    struct keyring_lease lease = {0};
    struct rig_message message;
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    rig_clock_forward(TTL / 2);
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    assert_int_equal(rig_counters(ring).unwraps, 1);
    rig_clock_forward(TTL / 2);
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    assert_int_equal(rig_counters(ring).unwraps, 2);
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    keyring_lease_end(ring, &lease);
    assert_ok(rig_open_once(ring, &message, 1));
    assert_int_equal(rig_counters(ring).unwraps, 2);
    keyring_free(ring);
}

static void away_token_is_survived_for_the_grace_and_no_longer(void **state)
{
    (void)state;
    keyring *ring = rig_ring(aging_settings());
    keyring_key *key = rig_key(ring, "default");
    struct keyring_lease lease = {0};
    struct rig_message message;
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    assert_true(softhsm_rig_unplug(&keyring_token));

    rig_clock_forward(TTL + CLOCK_SECOND / 2);
    for (uint64_t i = 0; i < 1000; i++)
        assert_ok(rig_seal(ring, key, &lease, i, &message));
    /* Asked now and then, not for every message. */
    assert_true(rig_counters(ring).unwraps < 20);
    rig_clock_forward(GRACE / 2);
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    assert_ok(rig_open_once(ring, &message, 1));

    rig_clock_forward(GRACE / 2);
    envelope_status status = rig_seal(ring, key, &lease, 1, &message);
    if (!hsm_is_away(status))
        fail_msg("%s: %s", envelope_status_name(status), error_text());
    assert_error_says("\"default\"");
    assert_true(hsm_is_away(rig_open_once(ring, &message, 1)));
    assert_int_equal(rig_counters(ring).cached, 0);
    uint64_t asked = rig_counters(ring).unwraps;
    for (int i = 0; i < 100; i++)
        assert_true(hsm_is_away(rig_open_once(ring, &message, 1)));
    assert_true(rig_counters(ring).unwraps < asked + 20);

    assert_true(softhsm_rig_plug(&keyring_token));
    rig_clock_forward(CLOCK_SECOND);
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    assert_ok(rig_open(ring, &lease, &message, 1));
    keyring_lease_end(ring, &lease);
    keyring_free(ring);
}

static void token_that_comes_back_within_the_grace_is_asked_again(void **state)
{
    (void)state;
    keyring *ring = rig_ring(aging_settings());
    keyring_key *key = rig_key(ring, "default");
    struct keyring_lease lease = {0};
    struct rig_message message;
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    assert_true(softhsm_rig_unplug(&keyring_token));
    rig_clock_forward(TTL + CLOCK_SECOND);
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    assert_true(softhsm_rig_plug(&keyring_token));
    rig_clock_forward(2 * CLOCK_SECOND);
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    /* Its time counts from now. */
    uint64_t asked = rig_counters(ring).unwraps;
    rig_clock_forward(TTL - CLOCK_SECOND);
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    assert_int_equal(rig_counters(ring).unwraps, asked);
    keyring_lease_end(ring, &lease);
    keyring_free(ring);
}

static void token_that_comes_late_is_used_without_a_restart(void **state)
{
    (void)state;
    assert_true(softhsm_rig_unplug(&keyring_token));
    keyring *ring = rig_ring(aging_settings());
    keyring_key *key = rig_key(ring, "default");
    struct rig_message message;
    assert_true(hsm_is_away(rig_seal_once(ring, key, 1, &message)));
    assert_true(softhsm_rig_plug(&keyring_token));
    rig_clock_forward(CLOCK_SECOND);
    assert_ok(rig_seal_once(ring, key, 1, &message));
    keyring_free(ring);
}

static void blob_that_went_bad_is_refused_at_the_ttl_without_grace(void **state)
{
    (void)state;
    keyring *ring = rig_ring(aging_settings());
    keyring_key *key = rig_key(ring, "default");
    struct keyring_lease lease = {0};
    struct rig_message message;
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    assert_ok(keyring_create(ring, "other", NULL));
    rig_sql("UPDATE encryption_key_version SET encrypted_key_blob = (SELECT encrypted_key_blob FROM "
            "encryption_key_version WHERE dek_id = 2) WHERE dek_id = 1");
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    rig_clock_forward(TTL);
    assert_status(ENVELOPE_E_UNWRAP, rig_seal(ring, key, &lease, 1, &message));
    assert_int_equal(rig_counters(ring).cached, 0);
    assert_status(ENVELOPE_E_UNWRAP, rig_seal(ring, key, &lease, 1, &message));
    keyring_lease_end(ring, &lease);
    keyring_free(ring);
}

static void idle_dek_is_wiped_at_its_end(void **state)
{
    (void)state;
    keyring *ring = rig_ring(aging_settings());
    assert_ok(keyring_create(ring, "idle", NULL));
    struct rig_message message;
    assert_ok(rig_seal_once(ring, rig_key(ring, "idle"), 1, &message));
    rig_clock_forward(TTL);
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &message));
    assert_int_equal(rig_counters(ring).cached, 2);
    rig_clock_forward(GRACE);
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &message));
    assert_int_equal(rig_counters(ring).cached, 1);
    keyring_free(ring);
}

static void away_store_is_survived_for_ttl_and_grace_and_no_longer(void **state)
{
    (void)state;
    keyring *ring = rig_ring(aging_settings());
    keyring_key *key = rig_key(ring, "default");
    struct keyring_lease lease = {0};
    struct rig_message message;
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    atomic_store(&store_away, 1);
    rig_clock_forward(TTL / 2);
    uint64_t looked = rig_counters(ring).refreshes;
    for (uint64_t i = 0; i < 30; i++)
        assert_ok(rig_open(ring, &lease, &message, 1));
    assert_true(rig_counters(ring).refreshes <= looked + 2);
    rig_clock_forward(TTL / 2 + GRACE / 2);
    assert_ok(rig_open(ring, &lease, &message, 1));
    rig_clock_forward(GRACE);
    assert_status(ENVELOPE_E_STORE_BUSY, rig_open(ring, &lease, &message, 1));
    assert_error_says("the test keeps the store");
    assert_status(ENVELOPE_E_STORE_BUSY, rig_seal(ring, key, &lease, 1, &message));
    atomic_store(&store_away, 0);
    rig_clock_forward(CLOCK_SECOND);
    assert_ok(rig_open(ring, &lease, &message, 1));
    keyring_lease_end(ring, &lease);
    keyring_free(ring);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, keyring_store_setup, keyring_store_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(dek_is_unwrapped_again_after_its_ttl),
        TEST(away_token_is_survived_for_the_grace_and_no_longer),
        TEST(token_that_comes_back_within_the_grace_is_asked_again),
        TEST(token_that_comes_late_is_used_without_a_restart),
        TEST(blob_that_went_bad_is_refused_at_the_ttl_without_grace),
        TEST(idle_dek_is_wiped_at_its_end),
        TEST(away_store_is_survived_for_ttl_and_grace_and_no_longer),
    };
    return cmocka_run_group_tests_name("keyring_age", tests, keyring_rig_setup, keyring_rig_teardown);
}
