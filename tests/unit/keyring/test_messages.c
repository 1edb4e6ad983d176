/* Messages under keys, versions and states, one thread at a time. */
#include "keyring_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <openssl/evp.h>

static void empty_name_is_the_default_key(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    keyring_key *key = NULL;
    assert_ok(keyring_find(ring, NULL, 0, &key));
    assert_string_equal(keyring_key_name(key), "default");
    assert_ptr_equal(key, rig_key(ring, "default"));
    keyring_free(ring);
}

static void unknown_and_impossible_names_are_refused(void **state)
{
    (void)state;
    static const char long_name[257] = {[0 ... 255] = 'x'};
    keyring *ring = rig_ring_plain();
    keyring_key *key = NULL;
    assert_status(ENVELOPE_E_KEY_UNKNOWN, keyring_find(ring, "nobody", 6, &key));
    assert_error_says("\"nobody\"");
    assert_null(key);
    assert_status(ENVELOPE_E_KEY_NAME, keyring_find(ring, "a\nb", 3, &key));
    assert_error_says("a\\x0ab");
    assert_status(ENVELOPE_E_KEY_NAME, keyring_find(ring, long_name, 256, &key));
    keyring_free(ring);
}

static void hit_costs_no_unwrap_no_reservation_and_no_new_context(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    keyring_key *key = rig_key(ring, "default");
    struct keyring_lease lease = {0};
    struct rig_message message;
    assert_ok(rig_seal(ring, key, &lease, 0, &message));
    struct keyring_counters before = rig_counters(ring);
    assert_int_equal(before.unwraps, 1);
    assert_int_equal(before.reservations, 1);
    assert_int_equal(before.cached, 1);
    aesgcm *gcm = lease.gcm;
    for (uint64_t i = 1; i < 20; i++)
        assert_ok(rig_seal(ring, key, &lease, i, &message));
    assert_ptr_equal(lease.gcm, gcm);
    keyring_lease_end(ring, &lease);
    for (uint64_t i = 20; i < 40; i++) {
        assert_ok(rig_seal(ring, key, &lease, i, &message));
        assert_ptr_equal(lease.gcm, gcm);
        keyring_lease_end(ring, &lease);
    }
    struct keyring_counters after = rig_counters(ring);
    assert_int_equal(after.unwraps, 1);
    assert_int_equal(after.reservations, 1);
    assert_int_equal(after.hits, 39);
    assert_int_equal(after.waits, 0);
    keyring_free(ring);
}

static void two_leases_of_one_thread_do_not_share_a_context(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    keyring_key *key = rig_key(ring, "default");
    struct keyring_lease one = {0}, two = {0};
    for (int round = 0; round < 3; round++) {
        assert_ok(keyring_encrypt_begin(ring, key, &one));
        assert_ok(keyring_encrypt_begin(ring, key, &two));
        assert_ptr_not_equal(one.gcm, two.gcm);
        keyring_lease_end(ring, &one);
        keyring_lease_end(ring, &two);
    }
    keyring_free(ring);
}

static void message_opens_in_another_process_of_the_same_store(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain(), *other = rig_ring_plain();
    struct rig_message message;
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 11, &message));
    struct keyring_lease lease = {0};
    assert_ok(rig_open(other, &lease, &message, 11));
    assert_string_equal(keyring_key_name(keyring_lease_key(&lease)), "default");
    message.tag[3] ^= 1;
    assert_status(ENVELOPE_E_DATA_AUTH, rig_open(other, &lease, &message, 11));
    message.tag[3] ^= 1;
    assert_ok(rig_open(other, &lease, &message, 11));
    keyring_lease_end(other, &lease);
    keyring_free(ring);
    keyring_free(other);
}

static void unknown_dek_ids_are_refused(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_lease lease = {0};
    assert_status(ENVELOPE_E_VERSION_UNKNOWN, keyring_decrypt_begin(ring, 0, &lease));
    assert_status(ENVELOPE_E_VERSION_UNKNOWN, keyring_decrypt_begin(ring, 4000000000u, &lease));
    assert_error_says("4000000000");
    assert_int_equal(lease.dek_id, 0);
    assert_null(lease.gcm);
    keyring_lease_end(ring, &lease);
    keyring_free(ring);
}

static void leased_dek_opens_the_message_with_plain_evp(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_lease lease = {0};
    struct rig_message message;
    uint8_t dek[HSM_DEK_SIZE], text[RIG_TEXT + 16];
    int length = 0, rest = 0;
    assert_status(ENVELOPE_E_INTERNAL, keyring_lease_dek(&lease, dek));
    assert_ok(rig_seal(ring, rig_key(ring, "default"), &lease, 5, &message));
    assert_ok(keyring_lease_dek(&lease, dek));
    EVP_CIPHER_CTX *evp = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_DecryptInit_ex(evp, EVP_aes_256_gcm(), NULL, dek, message.nonce), 1);
    assert_int_equal(EVP_DecryptUpdate(evp, text, &length, message.text, RIG_TEXT), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_SET_TAG, AESGCM_TAG_SIZE, message.tag), 1);
    assert_int_equal(EVP_DecryptFinal_ex(evp, text + length, &rest), 1);
    EVP_CIPHER_CTX_free(evp);
    keyring_lease_end(ring, &lease);
    keyring_free(ring);
}

static void create_refuses_what_is_there_and_what_is_no_name(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    assert_status(ENVELOPE_E_KEY_EXISTS, keyring_create(ring, "default", NULL));
    assert_status(ENVELOPE_E_KEY_NAME, keyring_create(ring, "", NULL));
    assert_status(ENVELOPE_E_KEY_NAME, keyring_create(ring, "a\tb", NULL));
    struct keyring_key_options options = {.kek_uri = "not a uri"};
    assert_status(ENVELOPE_E_KEK_URI, keyring_create(ring, "other", &options));
    options.kek_uri = "pkcs11:token=rig;object=nobody;type=secret-key";
    assert_status(ENVELOPE_E_KEK_UNKNOWN, keyring_create(ring, "other", &options));
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key"), 1);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_version"), 1);
    keyring_free(ring);
}

static void blob_moved_to_another_row_does_not_unwrap(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    assert_ok(keyring_create(ring, "identity", NULL));
    rig_sql("UPDATE encryption_key_version SET encrypted_key_blob = (SELECT encrypted_key_blob FROM "
            "encryption_key_version WHERE dek_id = 1) WHERE dek_id = 2");
    struct rig_message message;
    assert_status(ENVELOPE_E_UNWRAP, rig_seal_once(ring, rig_key(ring, "identity"), 1, &message));
    assert_error_says("version 1 of key \"identity\"");
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &message));
    keyring_free(ring);
}

static void rotation_is_seen_within_the_refresh_time_and_old_messages_open(void **state)
{
    (void)state;
    keyring *writer = rig_ring_plain(), *other = rig_ring_plain();
    keyring_key *key = rig_key(writer, "default");
    struct keyring_lease lease = {0};
    struct rig_message old, same, new;
    assert_ok(rig_seal(writer, key, &lease, 1, &old));
    uint32_t version = 0;
    bool by_others = true;
    assert_ok(keyring_rotate(other, "default", "test", &version, &by_others));
    assert_int_equal(version, 2);
    assert_false(by_others);
    assert_ok(rig_seal(writer, key, &lease, 2, &same));
    assert_int_equal(same.dek_id, old.dek_id);
    rig_clock_forward(CLOCK_SECOND);
    assert_ok(rig_seal(writer, key, &lease, 3, &new));
    assert_int_not_equal(new.dek_id, old.dek_id);
    keyring_lease_end(writer, &lease);
    assert_ok(rig_open_once(writer, &old, 1));
    assert_ok(rig_open_once(other, &old, 1));
    assert_ok(rig_open_once(other, &new, 3));
    keyring_free(writer);
    keyring_free(other);
}

static void own_rotation_is_seen_at_once(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    keyring_key *key = rig_key(ring, "default");
    struct keyring_lease lease = {0};
    struct rig_message old, new;
    assert_ok(rig_seal(ring, key, &lease, 1, &old));
    assert_ok(keyring_rotate(ring, "default", NULL, NULL, NULL));
    assert_ok(rig_seal(ring, key, &lease, 2, &new));
    assert_int_not_equal(new.dek_id, old.dek_id);
    assert_int_equal(rig_counters(ring).rotations, 1);
    assert_ok(rig_open(ring, &lease, &old, 1));
    assert_ok(rig_seal(ring, key, &lease, 3, &old));
    assert_int_equal(old.dek_id, new.dek_id);
    keyring_lease_end(ring, &lease);
    keyring_free(ring);
}

static void unused_budget_and_references_survive_a_rotation(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_lease lease = {0};
    struct rig_message message;
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &message));
    assert_ok(keyring_rotate(ring, "default", NULL, NULL, NULL));
    uint32_t reference = message.dek_id;
    for (int i = 0; i < 200; i++) {
        assert_ok(keyring_reference_begin(ring, reference, true, &lease));
        assert_int_equal(lease.dek_id, reference);
    }
    assert_ok(keyring_reference_begin(ring, reference, false, &lease));
    keyring_lease_end(ring, &lease);
    assert_true(rig_sql_number("SELECT messages_reserved FROM encryption_key_version WHERE dek_id = %u", reference) >=
                201);
    keyring_free(ring);
}

static void suspended_version_is_refused_and_resumed_works(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain(), *other = rig_ring_plain();
    keyring_key *key = rig_key(ring, "default"), *same = rig_key(other, "default");
    struct keyring_lease lease = {0}, others = {0};
    struct rig_message first, second, message;
    assert_ok(rig_seal(ring, key, &lease, 1, &first));
    assert_ok(keyring_rotate(ring, "default", NULL, NULL, NULL));
    assert_ok(rig_seal(ring, key, &lease, 2, &second));
    assert_ok(rig_open(other, &others, &first, 1));

    assert_ok(keyring_suspend(ring, "default", 1, "test"));
    assert_status(ENVELOPE_E_VERSION_STATE, rig_open(ring, &lease, &first, 1));
    assert_error_says("version 1 of key \"default\" is suspended");
    assert_status(ENVELOPE_E_VERSION_STATE, keyring_reference_begin(ring, first.dek_id, true, &lease));
    assert_ok(rig_seal(ring, key, &lease, 3, &message));
    rig_clock_forward(CLOCK_SECOND);
    assert_status(ENVELOPE_E_VERSION_STATE, rig_open(other, &others, &first, 1));
    assert_int_equal(others.dek_id, 0);
    assert_status(ENVELOPE_E_VERSION_STATE, keyring_suspend(ring, "default", 1, NULL));

    assert_ok(keyring_resume(ring, "default", 1, "test"));
    assert_ok(rig_open(ring, &lease, &first, 1));
    assert_ok(rig_open(other, &others, &first, 1));

    assert_ok(keyring_suspend(ring, "default", 2, NULL));
    assert_status(ENVELOPE_E_VERSION_STATE, rig_seal(ring, key, &lease, 4, &message));
    assert_error_says("rotate");
    assert_ok(rig_open(ring, &lease, &first, 1));
    rig_clock_forward(CLOCK_SECOND);
    assert_status(ENVELOPE_E_VERSION_STATE, rig_seal(other, same, &others, 4, &message));
    assert_ok(keyring_resume(other, "default", 2, NULL));
    assert_ok(rig_seal(other, same, &others, 4, &message));
    assert_int_equal(message.dek_id, second.dek_id);
    rig_clock_forward(CLOCK_SECOND);
    assert_ok(rig_seal(ring, key, &lease, 5, &message));
    keyring_lease_end(ring, &lease);
    keyring_lease_end(other, &others);
    keyring_free(ring);
    keyring_free(other);
}

static void suspended_key_stops_everything_under_it_and_nothing_else(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain(), *other = rig_ring_plain();
    assert_ok(keyring_create(ring, "identity", NULL));
    struct rig_message ours, theirs, message;
    struct keyring_lease lease = {0};
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &ours));
    assert_ok(rig_seal_once(ring, rig_key(ring, "identity"), 1, &theirs));
    assert_ok(rig_seal(other, rig_key(other, "default"), &lease, 1, &message));
    assert_ok(keyring_suspend(ring, "default", 0, "customer says so"));
    assert_int_equal(rig_counters(ring).cached, 1);
    assert_status(ENVELOPE_E_KEY_STATE, rig_seal_once(ring, rig_key(ring, "default"), 1, &message));
    assert_status(ENVELOPE_E_KEY_STATE, rig_open_once(ring, &ours, 1));
    assert_status(ENVELOPE_E_KEY_STATE, keyring_rotate(ring, "default", NULL, NULL, NULL));
    assert_ok(rig_open_once(ring, &theirs, 1));
    rig_clock_forward(CLOCK_SECOND);
    assert_status(ENVELOPE_E_KEY_STATE, rig_seal(other, rig_key(other, "default"), &lease, 1, &message));
    assert_error_says("\"default\" is suspended");
    assert_ok(keyring_resume(ring, "default", 0, NULL));
    assert_ok(rig_open_once(ring, &ours, 1));
    rig_clock_forward(CLOCK_SECOND);
    assert_ok(rig_seal(other, rig_key(other, "default"), &lease, 1, &message));
    keyring_lease_end(other, &lease);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_history WHERE what = 'suspend' AND who LIKE "
                                    "'uid %%pid %d %%' AND detail = 'customer says so'",
                                    (int)getpid()),
                     1);
    keyring_free(ring);
    keyring_free(other);
}

static void suspended_dek_that_nobody_uses_is_dropped_too(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain(), *other = rig_ring_plain();
    assert_ok(keyring_create(other, "idle", NULL));
    struct rig_message message;
    assert_ok(rig_seal_once(ring, rig_key(ring, "idle"), 1, &message));
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &message));
    assert_int_equal(rig_counters(ring).cached, 2);
    assert_ok(keyring_suspend(other, "idle", 0, NULL));
    rig_clock_forward(CLOCK_SECOND);
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &message));
    assert_int_equal(rig_counters(ring).cached, 1);
    keyring_free(ring);
    keyring_free(other);
}

static void refused_changes_leave_a_row_in_history(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    assert_status(ENVELOPE_E_KEY_STATE, keyring_resume(ring, "default", 0, NULL));
    assert_status(ENVELOPE_E_KEY_UNKNOWN, keyring_rotate(ring, "nobody", NULL, NULL, NULL));
    assert_status(ENVELOPE_E_VERSION_UNKNOWN, keyring_suspend(ring, "default", 9, NULL));
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_history WHERE what = 'resume' AND result = "
                                    "'KEY_STATE'"),
                     1);
    assert_int_equal(
        rig_sql_number("SELECT count(*) FROM encryption_key_history WHERE what = 'suspend' AND version = 9"), 1);
    keyring_free(ring);
}

static void wiped_keyring_works_on(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    keyring_key *key = rig_key(ring, "default");
    struct keyring_lease lease = {0};
    struct rig_message message;
    assert_ok(rig_seal(ring, key, &lease, 1, &message));
    keyring_wipe(ring);
    assert_int_equal(rig_counters(ring).cached, 0);
    assert_ok(rig_open(ring, &lease, &message, 1));
    assert_int_equal(rig_counters(ring).unwraps, 2);
    keyring_lease_end(ring, &lease);
    keyring_wipe(ring);
    keyring_wipe(ring);
    assert_ok(rig_open_once(ring, &message, 1));
    keyring_free(ring);
}

static void replaced_context_of_a_lease_is_taken_back(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_lease lease = {0};
    struct rig_message message;
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &message));
    assert_ok(rig_open(ring, &lease, &message, 1));
    aesgcm *copy = aesgcm_copy(lease.gcm);
    if (!copy)
        skip();
    aesgcm_free(lease.gcm);
    lease.gcm = copy;
    keyring_lease_end(ring, &lease);
    assert_ok(rig_open(ring, &lease, &message, 1));
    assert_ptr_equal(lease.gcm, copy);
    keyring_lease_end(ring, &lease);
    keyring_free(ring);
}

static void store_that_comes_late_is_used_without_a_restart(void **state)
{
    (void)state;
    char aside[RIG_PATH + 8];
    snprintf(aside, sizeof aside, "%s.aside", rig_store_path());
    assert_int_equal(rename(rig_store_path(), aside), 0);
    keyring *ring = rig_ring_plain();
    keyring_key *key = NULL;
    assert_status(ENVELOPE_E_STORE_UNAVAILABLE, keyring_find(ring, NULL, 0, &key));
    assert_error_says(rig_store_path());
    assert_status(ENVELOPE_E_STORE_UNAVAILABLE, keyring_find(ring, NULL, 0, &key));
    assert_int_equal(rename(aside, rig_store_path()), 0);
    rig_clock_forward(CLOCK_SECOND);
    struct rig_message message;
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &message));
    keyring_free(ring);
}

static void store_id_is_the_stores(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    uint8_t id[STORE_ID_SIZE], expected[STORE_ID_SIZE];
    assert_ok(keyring_store_id(ring, id));
    assert_ok(store_id(keyring_store(ring), expected));
    assert_memory_equal(id, expected, sizeof id);
    assert_non_null(keyring_hsm(ring));
    keyring_free(ring);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, keyring_store_setup, keyring_store_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(empty_name_is_the_default_key),
        TEST(unknown_and_impossible_names_are_refused),
        TEST(hit_costs_no_unwrap_no_reservation_and_no_new_context),
        TEST(two_leases_of_one_thread_do_not_share_a_context),
        TEST(message_opens_in_another_process_of_the_same_store),
        TEST(unknown_dek_ids_are_refused),
        TEST(leased_dek_opens_the_message_with_plain_evp),
        TEST(create_refuses_what_is_there_and_what_is_no_name),
        TEST(blob_moved_to_another_row_does_not_unwrap),
        TEST(rotation_is_seen_within_the_refresh_time_and_old_messages_open),
        TEST(own_rotation_is_seen_at_once),
        TEST(unused_budget_and_references_survive_a_rotation),
        TEST(suspended_version_is_refused_and_resumed_works),
        TEST(suspended_key_stops_everything_under_it_and_nothing_else),
        TEST(suspended_dek_that_nobody_uses_is_dropped_too),
        TEST(refused_changes_leave_a_row_in_history),
        TEST(wiped_keyring_works_on),
        TEST(replaced_context_of_a_lease_is_taken_back),
        TEST(store_that_comes_late_is_used_without_a_restart),
        TEST(store_id_is_the_stores),
    };
    return cmocka_run_group_tests_name("keyring_messages", tests, keyring_rig_setup, keyring_rig_teardown);
}
