/* Ids of DEKs and KEKs: a wrap that is refused leaves none behind, and one that comes late is made once more. */
#include "keyring_rig.h"

#include <stdio.h>
#include <string.h>

#include "hsm/hsm.h"

envelope_status __real_hsm_wrap(hsm *instance, const char *uri, const uint8_t *aad, size_t aad_length,
                                const uint8_t dek[HSM_DEK_SIZE], uint8_t **blob, size_t *blob_length);
envelope_status __wrap_hsm_wrap(hsm *instance, const char *uri, const uint8_t *aad, size_t aad_length,
                                const uint8_t dek[HSM_DEK_SIZE], uint8_t **blob, size_t *blob_length);

static int wraps, refusals;     /* made; and to be refused */
static void (*meanwhile)(void); /* what somebody else does while the token wraps */

envelope_status __wrap_hsm_wrap(hsm *instance, const char *uri, const uint8_t *aad, size_t aad_length,
                                const uint8_t dek[HSM_DEK_SIZE], uint8_t **blob, size_t *blob_length)
{
    wraps++;
    if (refusals > 0 && refusals-- > 0)
        return error_raise(ENVELOPE_E_KEK_REFUSED, "the service has disabled it");
    void (*others)(void) = meanwhile;
    meanwhile = NULL;
    if (others)
        others();
    return __real_hsm_wrap(instance, uri, aad, aad_length, dek, blob, blob_length);
}

static int setup(void **state)
{
    int made = keyring_store_setup(state);
    wraps = refusals = 0;
    meanwhile = NULL;
    return made;
}

/* Everything of the store but its history, in one number. */
static int64_t state_of_store(void)
{
    return rig_sql_number(
        "SELECT next_dek_id * 1000000 + change_counter * 10000 + "
        "(SELECT count(*) FROM encryption_kek) * 1000 + (SELECT count(*) FROM encryption_key) * 100 + "
        "(SELECT count(*) FROM encryption_key_version) FROM store_meta");
}

static envelope_status create(keyring *ring, const char *name, const char *kek)
{
    return keyring_create(ring, name, &(struct keyring_key_options){.kek_uri = kek});
}

static void a_refused_wrap_leaves_a_row_of_history_and_nothing_else(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrapped done;
    int64_t before = state_of_store();
    refusals = 1;
    assert_status(ENVELOPE_E_KEK_REFUSED, keyring_rotate(ring, "default", NULL, NULL, NULL));
    refusals = 1;
    assert_status(ENVELOPE_E_KEK_REFUSED, create(ring, "another", SECOND));
    assert_status(ENVELOPE_E_KEK_UNKNOWN, create(ring, "another", MISSING));
    assert_status(ENVELOPE_E_KEK_UNKNOWN,
                  keyring_rewrap(ring, "default", &(struct keyring_rewrap){.kek_uri = MISSING}, &done));
    assert_status(ENVELOPE_E_KEK_UNKNOWN,
                  keyring_rewrap(ring, "default", &(struct keyring_rewrap){.kek_uri = MISSING, .version = 1}, &done));
    assert_status(ENVELOPE_E_VERSION_UNKNOWN,
                  keyring_rewrap(ring, "default", &(struct keyring_rewrap){.kek_uri = SECOND, .version = 7}, &done));
    assert_true(state_of_store() == before);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_history WHERE result <> 'ok'"), 4);
    /* And the ids that were not used are the next ones. */
    int64_t next = rig_sql_number("SELECT next_dek_id FROM store_meta");
    assert_ok(keyring_rotate(ring, "default", NULL, NULL, NULL));
    assert_ok(create(ring, "another", SECOND));
    assert_true(rig_sql_number("SELECT max(dek_id) FROM encryption_key_version") == next + 1);
    assert_ok(store_check(keyring_store(ring)));
    keyring_free(ring);
}

static void take_an_id(void)
{
    rig_sql("UPDATE store_meta SET next_dek_id = next_dek_id + 1");
}

/* A blob is bound to its ids: what comes late is wrapped again, once, and opens. */
static void an_id_taken_meanwhile_costs_one_more_wrap(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct rig_message message;
    bool by_others = true;
    uint32_t version = 0;
    wraps = 0;
    meanwhile = take_an_id;
    assert_ok(keyring_rotate(ring, "default", NULL, &version, &by_others));
    assert_true(wraps == 2 && version == 2 && !by_others);
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 7, &message));
    assert_ok(rig_open_once(ring, &message, 7));
    meanwhile = take_an_id;
    assert_ok(create(ring, "another", SECOND));
    assert_int_equal(wraps, 4);
    assert_ok(rig_seal_once(ring, rig_key(ring, "another"), 8, &message));
    assert_ok(rig_open_once(ring, &message, 8));
    assert_ok(store_check(keyring_store(ring)));
    keyring_free(ring);
}

static keyring *other_ring;

static void make_another_kek(void)
{
    assert_ok(create(other_ring, "of others", SECOND));
}

static void rotate_by_others(void)
{
    assert_ok(keyring_rotate(other_ring, "default", NULL, NULL, NULL));
}

static void move_and_take_an_id(void)
{
    struct keyring_rewrapped done;
    assert_ok(keyring_rewrap(other_ring, "default", &(struct keyring_rewrap){.kek_uri = SECOND}, &done));
    take_an_id();
}

static void a_kek_id_taken_meanwhile_does_not_bind_a_key_to_the_wrong_kek(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    other_ring = rig_ring_plain();
    struct rig_message message;
    meanwhile = make_another_kek;
    /* An URI that is new to the store too, of the same object. */
    assert_ok(create(ring, "mine", "pkcs11:token=rig;object=second"));
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key k JOIN encryption_kek e USING (kek_id) WHERE "
                                    "k.name = 'mine' AND e.uri NOT LIKE '%%type%%'"),
                     1);
    assert_ok(rig_seal_once(ring, rig_key(ring, "mine"), 8, &message));
    assert_ok(rig_open_once(ring, &message, 8));
    keyring_free(ring);
    keyring_free(other_ring);
}

static void a_rotation_by_others_meanwhile_is_still_theirs(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    other_ring = rig_ring_plain();
    uint32_t version = 0;
    bool by_others = false;
    meanwhile = rotate_by_others;
    assert_ok(keyring_rotate(ring, "default", NULL, &version, &by_others));
    assert_true(version == 2 && by_others);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_version"), 2);
    meanwhile = move_and_take_an_id;
    assert_ok(keyring_rotate(ring, "default", NULL, &version, &by_others));
    assert_true(version == 3 && !by_others);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_version v JOIN encryption_kek e USING "
                                    "(kek_id) WHERE e.uri LIKE '%%second%%'"),
                     3);
    keyring_free(ring);
    keyring_free(other_ring);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, keyring_store_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_refused_wrap_leaves_a_row_of_history_and_nothing_else),
        TEST(an_id_taken_meanwhile_costs_one_more_wrap),
        TEST(a_kek_id_taken_meanwhile_does_not_bind_a_key_to_the_wrong_kek),
        TEST(a_rotation_by_others_meanwhile_is_still_theirs),
    };
    return cmocka_run_group_tests(tests, keyring_rig_setup_second, keyring_rig_teardown);
}
