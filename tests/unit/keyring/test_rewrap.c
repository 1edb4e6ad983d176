/* Moving a key to another KEK: beside messages, rotations and other movers. */
#include "keyring_rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { VERSIONS = 5, ROTATIONS = 40 };

static envelope_status rewrap(keyring *ring, const char *kek, struct keyring_rewrapped *done)
{
    return keyring_rewrap(ring, "default", &(struct keyring_rewrap){.kek_uri = kek}, done);
}

static int64_t under(const char *object)
{
    return rig_sql_number("SELECT count(*) FROM encryption_key_version v JOIN encryption_kek e USING (kek_id) "
                          "WHERE e.uri LIKE '%%object=%s%%'",
                          object);
}

static void messages_go_on_before_and_after(void **state)
{
    (void)state;
    keyring *here = rig_ring_plain(), *there = rig_ring_plain();
    keyring_key *key = rig_key(here, "default");
    struct rig_message messages[VERSIONS];
    struct keyring_rewrapped done;
    for (int i = 0; i < VERSIONS; i++) {
        if (i)
            assert_ok(keyring_rotate(there, "default", NULL, NULL, NULL));
        rig_clock_forward(2 * CLOCK_SECOND);
        assert_ok(rig_seal_once(here, key, (uint64_t)i, &messages[i]));
    }
    assert_ok(rewrap(there, SECOND, &done));
    assert_int_equal(done.moved, VERSIONS);
    assert_int_equal(done.inside, 0);
    assert_int_equal(under("second"), VERSIONS);
    uint64_t unwraps = rig_counters(here).unwraps;
    rig_clock_forward(2 * CLOCK_SECOND);
    /* What is cached is the same DEK as before: nobody has to ask the token again. */
    for (int i = 0; i < VERSIONS; i++)
        assert_ok(rig_open_once(here, &messages[i], (uint64_t)i));
    assert_true(rig_counters(here).unwraps == unwraps);
    keyring *later = rig_ring_plain();
    for (int i = 0; i < VERSIONS; i++)
        assert_ok(rig_open_once(later, &messages[i], (uint64_t)i));
    assert_ok(rewrap(there, SECOND, &done));
    assert_true(done.moved == 0 && done.kept == VERSIONS);
    assert_ok(keyring_rotate(there, "default", NULL, NULL, NULL));
    assert_int_equal(under("second"), VERSIONS + 1);
    assert_ok(store_check(keyring_store(there)));
    keyring_free(here);
    keyring_free(there);
    keyring_free(later);
}

static void a_kek_that_cannot_be_used_changes_nothing(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrapped done;
    assert_status(ENVELOPE_E_KEK_UNKNOWN, rewrap(ring, "pkcs11:token=rig;object=nothing", &done));
    assert_error_says("nothing");
    assert_status(ENVELOPE_E_KEK_URI, rewrap(ring, "pkcs11:token=rig", &done));
    assert_int_equal(rig_sql_number("SELECT kek_id FROM encryption_key"),
                     rig_sql_number("SELECT min(kek_id) FROM encryption_kek"));
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_history WHERE what = 'rewrap' AND result = "
                                    "'KEK_UNKNOWN'"),
                     1);
    assert_status(ENVELOPE_E_KEY_UNKNOWN,
                  keyring_rewrap(ring, "no such key", &(struct keyring_rewrap){.kek_uri = SECOND}, &done));
    keyring_free(ring);
}

/* The store knows it, the token does not (any more): a KEK that was deleted. */
static void a_kek_that_is_gone_is_not_moved_to(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrapped done;
    rig_sql("INSERT INTO encryption_kek (uri, created) VALUES ('%s', 1)", MISSING);
    assert_status(ENVELOPE_E_KEK_UNKNOWN, rewrap(ring, MISSING, &done));
    assert_error_says("rewrapping key \"default\": trying the KEK");
    assert_true(done.moved == 0 && done.kept == 0 && under("missing") == 0);
    assert_int_equal(rig_sql_number("SELECT kek_id FROM encryption_key"), 1);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_history WHERE what = 'rewrap' AND result = "
                                    "'KEK_UNKNOWN'"),
                     1);
    const struct keyring_rewrap alone = {.kek_uri = MISSING, .version = 1};
    assert_status(ENVELOPE_E_KEK_UNKNOWN, keyring_rewrap(ring, "default", &alone, &done));
    assert_error_says("version 1, with 0 of 1");
    keyring_free(ring);
}

/* A blob that was damaged in the store does not move, and is not replaced. */
static void what_does_not_unwrap_stays_as_it_is(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrapped done;
    assert_ok(keyring_rotate(ring, "default", NULL, NULL, NULL));
    rig_sql(
        "UPDATE encryption_key_version SET encrypted_key_blob = zeroblob(length(encrypted_key_blob)) WHERE version = "
        "2");
    assert_status(ENVELOPE_E_UNWRAP, rewrap(ring, SECOND, &done));
    assert_error_says("version 2");
    assert_error_says("1 of 2");
    assert_int_equal(done.moved, 1);
    assert_int_equal(under("second"), 1);
    assert_int_equal(rig_sql_number("SELECT encrypted_key_blob = zeroblob(length(encrypted_key_blob)) FROM "
                                    "encryption_key_version WHERE version = 2"),
                     1);
    keyring_free(ring);
}

/* Nothing is under the KEK, so that the store does not know of it, nor has given its id away. */
static void a_refused_move_of_one_version_leaves_no_kek(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrapped done;
    const struct keyring_rewrap alone = {.kek_uri = SECOND, .version = 1};
    assert_ok(keyring_rotate(ring, "default", NULL, NULL, NULL));
    rig_sql("UPDATE encryption_key_version SET encrypted_key_blob = "
            "zeroblob(length(encrypted_key_blob)) WHERE version = 1");
    assert_status(ENVELOPE_E_UNWRAP, keyring_rewrap(ring, "default", &alone, &done));
    assert_true(done.moved == 0 && done.kept == 0);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_kek"), 1);
    assert_int_equal(rig_sql_number("SELECT seq FROM sqlite_sequence WHERE name = 'encryption_kek'"), 1);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_history WHERE what = 'rewrap' AND version = 1 "
                                    "AND result = 'UNWRAP'"),
                     1);
    /* The other one does unwrap, and brings the KEK along. */
    assert_ok(keyring_rewrap(ring, "default", &(struct keyring_rewrap){.kek_uri = SECOND, .version = 2}, &done));
    assert_true(done.moved == 1 && under("second") == 1);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_kek"), 2);
    keyring_free(ring);
}

struct rotator {
    keyring *ring;
    _Atomic int failed, done;
};

static void *rotate(void *argument)
{
    struct rotator *rotator = argument;
    for (int i = 0; i < ROTATIONS; i++)
        if (keyring_rotate(rotator->ring, "default", NULL, NULL, NULL))
            rotator->failed++;
    rotator->done = 1;
    return NULL;
}

static void rotations_meanwhile_end_up_under_the_new_kek(void **state)
{
    (void)state;
    struct rotator rotator = {.ring = rig_ring_plain()};
    keyring *ring = rig_ring_plain();
    struct keyring_rewrapped done;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, rotate, &rotator), 0);
    assert_ok(rewrap(ring, SECOND, &done));
    /* Whatever was rotated since is there already: a rotation that began before was refused and begun again. */
    assert_int_equal(
        rig_sql_number("SELECT count(*) FROM encryption_key_version v JOIN encryption_kek e USING (kek_id) "
                       "WHERE e.uri NOT LIKE '%%object=second%%'"),
        0);
    pthread_join(thread, NULL);
    assert_int_equal(rotator.failed, 0);
    assert_int_equal(under("second"), ROTATIONS + 1);
    keyring_free(ring);
    keyring_free(rotator.ring);
}

struct mover {
    keyring *ring;
    struct keyring_rewrapped done;
    envelope_status status;
};

static void *move(void *argument)
{
    struct mover *mover = argument;
    mover->status = rewrap(mover->ring, SECOND, &mover->done);
    return NULL;
}

static void two_that_move_the_same_key_share_the_work(void **state)
{
    (void)state;
    struct mover movers[2] = {{.ring = rig_ring_plain()}, {.ring = rig_ring_plain()}};
    pthread_t threads[2];
    for (int i = 1; i < VERSIONS; i++)
        assert_ok(keyring_rotate(movers[0].ring, "default", NULL, NULL, NULL));
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, move, &movers[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    size_t moved = movers[0].done.moved + movers[1].done.moved;
    for (int i = 0; i < 2; i++)
        assert_int_equal(movers[i].status, ENVELOPE_OK);
    assert_int_equal(moved, VERSIONS);
    assert_int_equal(under("second"), VERSIONS);
    for (int i = 0; i < 2; i++)
        keyring_free(movers[i].ring);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, keyring_store_setup, keyring_store_teardown)
    const struct CMUnitTest tests[] = {
        TEST(messages_go_on_before_and_after),
        TEST(a_kek_that_cannot_be_used_changes_nothing),
        TEST(what_does_not_unwrap_stays_as_it_is),
        TEST(rotations_meanwhile_end_up_under_the_new_kek),
        TEST(a_refused_move_of_one_version_leaves_no_kek),
        TEST(a_kek_that_is_gone_is_not_moved_to),
        TEST(two_that_move_the_same_key_share_the_work),
    };
    return cmocka_run_group_tests(tests, keyring_rig_setup_second, keyring_rig_teardown);
}
