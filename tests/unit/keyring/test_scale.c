/* Many versions: preloading them, finding each of 100,000, names of many keys. */
#include "keyring_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sqlite3.h>

#include "hsm/hsm.h"
#include "keyring/binding.h"

enum { MANY = SANITIZED ? 5000 : 100000, FIRST_ID = 1000, KEYS = 300 };

static void bind_version(sqlite3_stmt *insert, hsm *token, const uint8_t store_id[STORE_ID_SIZE], uint32_t number)
{
    uint8_t dek[HSM_DEK_SIZE] = {1, 2, 3}, aad[BINDING_MAX], *blob = NULL;
    size_t blob_length = 0;
    dek[4] = (uint8_t)number;
    dek[5] = (uint8_t)(number >> 8);
    dek[6] = (uint8_t)(number >> 16);
    struct binding_place place = {store_id, FIRST_ID + number, number, 1, STORE_AES_256_GCM, "default"};
    size_t length = keyring_binding_aad(&place, aad);
    assert_ok(hsm_wrap(token, keyring_token.kek, aad, length, dek, &blob, &blob_length));
    sqlite3_bind_int64(insert, 1, FIRST_ID + (int64_t)number);
    sqlite3_bind_int64(insert, 2, number);
    sqlite3_bind_blob(insert, 3, blob, (int)blob_length, free);
    assert_int_equal(sqlite3_step(insert), SQLITE_DONE);
    sqlite3_reset(insert);
}

/* Versions 2 … count+1 of "default", deactivated; wrapped one by one, stored in one transaction. */
static void insert_versions(uint32_t count)
{
    keyring *ring = rig_ring_plain();
    uint8_t id[STORE_ID_SIZE];
    assert_ok(keyring_store_id(ring, id));
    sqlite3 *db = NULL;
    sqlite3_stmt *insert = NULL;
    assert_int_equal(sqlite3_open(rig_store_path(), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(db,
                           "INSERT INTO encryption_key_version (dek_id, key_id, version, state, algorithm, "
                           "kek_id, encrypted_key_blob, message_limit, created, deactivated) VALUES (?, 1, "
                           "?, 'deactivated', 'AES-256-GCM', 1, ?, 4294967296, 1, 1)",
                           -1, &insert, NULL),
        SQLITE_OK);
    for (uint32_t number = 2; number < count + 2; number++)
        bind_version(insert, keyring_hsm(ring), id, number);
    sqlite3_finalize(insert);
    assert_int_equal(sqlite3_exec(db,
                                  "UPDATE store_meta SET next_dek_id = 2000000, change_counter = change_counter + 1; "
                                  "COMMIT",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    keyring_free(ring);
}

static void preloaded_versions_are_all_found_without_the_token(void **state)
{
    (void)state;
    insert_versions(MANY);
    struct settings settings = rig_settings();
    settings.preload = true;
    keyring *ring = rig_ring(settings);
    struct rig_message message;
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &message));
    assert_int_equal(rig_counters(ring).unwraps, MANY + 1);
    assert_int_equal(rig_counters(ring).cached, MANY + 1);
    struct keyring_lease lease = {0};
    for (uint32_t number = 2; number < MANY + 2; number++) {
        uint8_t dek[HSM_DEK_SIZE];
        assert_ok(keyring_decrypt_begin(ring, FIRST_ID + number, &lease));
        assert_ok(keyring_lease_dek(&lease, dek));
        if (dek[4] != (uint8_t)number || dek[5] != (uint8_t)(number >> 8) || dek[6] != (uint8_t)(number >> 16))
            fail_msg("the DEK of version %u is another's", number);
    }
    keyring_lease_end(ring, &lease);
    assert_int_equal(rig_counters(ring).unwraps, MANY + 1);
    keyring_wipe(ring);
    assert_int_equal(rig_counters(ring).cached, 0);
    keyring_free(ring);
}

static void preload_goes_on_behind_a_version_that_fails(void **state)
{
    (void)state;
    insert_versions(10);
    rig_sql("UPDATE encryption_key_version SET encrypted_key_blob = x'01' WHERE version = 5");
    rig_sql("UPDATE encryption_key_version SET state = 'suspended' WHERE version = 7");
    struct settings settings = rig_settings();
    settings.preload = true;
    keyring *ring = rig_ring(settings);
    struct rig_message message;
    assert_ok(rig_seal_once(ring, rig_key(ring, "default"), 1, &message));
    assert_int_equal(rig_counters(ring).cached, 9);
    struct keyring_lease lease = {0};
    assert_status(ENVELOPE_E_UNWRAP, keyring_decrypt_begin(ring, FIRST_ID + 5, &lease));
    assert_status(ENVELOPE_E_VERSION_STATE, keyring_decrypt_begin(ring, FIRST_ID + 7, &lease));
    assert_ok(keyring_decrypt_begin(ring, FIRST_ID + 11, &lease));
    keyring_lease_end(ring, &lease);
    keyring_free(ring);
}

static void lazy_keyring_unwraps_only_what_is_used(void **state)
{
    (void)state;
    insert_versions(10);
    keyring *ring = rig_ring_plain();
    struct keyring_lease lease = {0};
    assert_ok(keyring_decrypt_begin(ring, FIRST_ID + 3, &lease));
    assert_ok(keyring_decrypt_begin(ring, FIRST_ID + 3, &lease));
    keyring_lease_end(ring, &lease);
    assert_int_equal(rig_counters(ring).unwraps, 1);
    assert_int_equal(rig_counters(ring).cached, 1);
    keyring_free(ring);
}

static void many_keys_are_told_apart(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    static struct rig_message messages[KEYS];
    char name[32];
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(name, sizeof name, "tenant-%u/identity", i);
        assert_ok(keyring_create(ring, name, NULL));
        assert_ok(rig_seal_once(ring, rig_key(ring, name), i, &messages[i]));
    }
    struct keyring_lease lease = {0};
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(name, sizeof name, "tenant-%u/identity", i);
        keyring_key *key = NULL;
        /* Not NUL-terminated where the name ends. */
        char longer[40];
        snprintf(longer, sizeof longer, "%sxyz", name);
        assert_ok(keyring_find(ring, longer, strlen(name), &key));
        assert_string_equal(keyring_key_name(key), name);
        assert_ok(rig_open(ring, &lease, &messages[i], i));
        assert_ptr_equal(keyring_lease_key(&lease), key);
        /* Under another key's DEK it does not open. */
        struct rig_message moved = messages[i];
        moved.dek_id = messages[(i + 1) % KEYS].dek_id;
        assert_status(ENVELOPE_E_DATA_AUTH, rig_open(ring, &lease, &moved, i));
    }
    keyring_lease_end(ring, &lease);
    assert_int_equal(rig_counters(ring).cached, KEYS);
    keyring_free(ring);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, keyring_store_setup, keyring_store_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(preloaded_versions_are_all_found_without_the_token),
        TEST(preload_goes_on_behind_a_version_that_fails),
        TEST(lazy_keyring_unwraps_only_what_is_used),
        TEST(many_keys_are_told_apart),
    };
    return cmocka_run_group_tests_name("keyring_scale", tests, keyring_rig_setup, keyring_rig_teardown);
}
