/* Moving all keys to another KEK. One KEK is in a key service (the hsm room's module), which can be made to refuse. */
#include "service_rig.h"

#include <stdio.h>
#include <string.h>

#define SERVICE SECOND AT_SERVICE

static void create(keyring *ring, const char *name, const char *kek)
{
    assert_ok(keyring_create(ring, name, &(struct keyring_key_options){.kek_uri = kek}));
}

/* Versions of a key ('%': all) under a KEK whose URI is exactly that. */
static int64_t under(const char *uri, const char *name)
{
    return rig_sql_number("SELECT count(*) FROM encryption_key_version v JOIN encryption_kek e USING (kek_id) JOIN "
                          "encryption_key k USING (key_id) WHERE e.uri = '%s' AND k.name LIKE '%s'",
                          uri, name);
}

/* Between the keyring and the token, and the store: before the nth rewrap, and before something is written. */
static void (*before_rewrap)(int nth);
static void (*before_store)(void);
static int rewraps, writes, failing_write;

envelope_status __real_hsm_rewrap(hsm *instance, const struct hsm_rewrap *move, uint8_t **made, size_t *made_length,
                                  bool *inside);
envelope_status __wrap_hsm_rewrap(hsm *instance, const struct hsm_rewrap *move, uint8_t **made, size_t *made_length,
                                  bool *inside);
envelope_status __wrap_hsm_rewrap(hsm *instance, const struct hsm_rewrap *move, uint8_t **made, size_t *made_length,
                                  bool *inside)
{
    rewraps++;
    if (before_rewrap)
        before_rewrap(rewraps);
    return __real_hsm_rewrap(instance, move, made, made_length, inside);
}

envelope_status __real_store_versions_rewrap(store *opened, struct store_version_move *moves, size_t count);
envelope_status __wrap_store_versions_rewrap(store *opened, struct store_version_move *moves, size_t count);
envelope_status __wrap_store_versions_rewrap(store *opened, struct store_version_move *moves, size_t count)
{
    void (*before)(void) = before_store;
    before_store = NULL;
    if (before)
        before();
    if (++writes == failing_write)
        return error_raise(ENVELOPE_E_STORE_UNAVAILABLE, "the disk is full");
    return __real_store_versions_rewrap(opened, moves, count);
}

static int setup(void **state)
{
    before_rewrap = NULL;
    before_store = NULL;
    rewraps = writes = failing_write = 0;
    return service_store_setup(state);
}

struct seen {
    size_t count, failed;
    char failures[4096];
};

static void see(void *argument, const char *name, envelope_status status, const struct keyring_rewrap_all *so_far)
{
    struct seen *seen = argument;
    seen->count++;
    assert_int_equal(so_far->looked, seen->count);
    if (status) {
        size_t used = strlen(seen->failures);
        assert_non_null(strstr(error_text(), name));
        snprintf(seen->failures + used, sizeof seen->failures - used, "%s;%s\n", name, error_text());
        seen->failed++;
    }
}

static envelope_status move_all(keyring *ring, const char *kek, struct seen *seen, struct keyring_rewrap_all *done)
{
    return keyring_rewrap_all(ring, &(struct keyring_rewrap){.kek_uri = kek}, seen ? see : NULL, seen, done);
}

static void every_key_moves_and_messages_go_on(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain(), *there = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct seen seen = {0};
    struct rig_message message;
    for (int i = 0; i < 10; i++) {
        char name[16];
        snprintf(name, sizeof name, "key %d", i);
        create(ring, name, NULL);
        assert_ok(keyring_rotate(ring, name, NULL, NULL, NULL));
    }
    assert_ok(rig_seal_once(there, rig_key(there, "key 3"), 3, &message));
    assert_ok(move_all(ring, SECOND, &seen, &done));
    assert_true(done.keys == 11 && done.looked == 11 && done.failed == 0 && seen.count == 11);
    assert_true(done.versions.moved == 21 && done.versions.kept == 0);
    assert_int_equal(under(SECOND, "%"), 21);
    keyring *later = rig_ring_plain();
    assert_ok(rig_open_once(later, &message, 3));
    keyring_free(later);
    /* Again: nothing is left to do, and nothing of it is done. */
    uint64_t before = (uint64_t)rig_sql_number("SELECT change_counter FROM store_meta");
    assert_ok(move_all(ring, SECOND, NULL, &done));
    assert_true(done.versions.moved == 0 && done.versions.kept == 21);
    assert_true((uint64_t)rig_sql_number("SELECT change_counter FROM store_meta") == before);
    assert_ok(store_check(keyring_store(ring)));
    keyring_free(ring);
    keyring_free(there);
}

static void only_what_is_under_the_named_kek_moves(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct keyring_rewrapped one;
    create(ring, "a", SECOND);
    create(ring, "b", NULL);
    /* a's first version is elsewhere already, and stays there. */
    assert_ok(keyring_rotate(ring, "a", NULL, NULL, NULL));
    assert_ok(keyring_rewrap(ring, "a", &(struct keyring_rewrap){.kek_uri = SERVICE, .version = 1}, &one));
    const struct settings *settings = keyring_settings(ring);
    struct keyring_rewrap home = {.kek_uri = settings->kek, .from_uri = SECOND};
    assert_ok(keyring_rewrap_all(ring, &home, NULL, NULL, &done));
    assert_true(done.versions.moved == 1 && done.versions.kept == 0 && done.looked == 3);
    assert_true(under(SECOND, "%") == 0 && under(SERVICE, "a") == 1);
    assert_ok(keyring_rotate(ring, "a", NULL, NULL, NULL)); /* a lived there, and moved */
    assert_true(under(SECOND, "%") == 0 && under(SERVICE, "a") == 1);
    struct keyring_rewrap nowhere = {.kek_uri = SECOND, .from_uri = MISSING};
    assert_status(ENVELOPE_E_KEK_UNKNOWN, keyring_rewrap_all(ring, &nowhere, NULL, NULL, &done));
    assert_error_says("missing");
    assert_status(ENVELOPE_E_KEK_UNKNOWN, keyring_rewrap(ring, "a", &nowhere, &one));
    struct keyring_rewrap other = {.kek_uri = SECOND, .from_uri = SERVICE, .version = 2};
    assert_status(ENVELOPE_E_VERSION_UNKNOWN, keyring_rewrap(ring, "a", &other, &one));
    keyring_free(ring);
}

static void one_damaged_key_is_told_and_the_others_go_on(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct seen seen = {0};
    create(ring, "a", NULL);
    create(ring, "b", NULL);
    rig_sql(
        "UPDATE encryption_key_version SET encrypted_key_blob = zeroblob(length(encrypted_key_blob)) WHERE key_id = "
        "(SELECT key_id FROM encryption_key WHERE name = 'a')");
    assert_status(ENVELOPE_E_UNWRAP, move_all(ring, SECOND, &seen, &done));
    assert_error_says("1 of 3 keys could not be moved");
    assert_error_says("\"a\"");
    assert_true(done.looked == 3 && done.failed == 1 && done.versions.moved == 2 && seen.failed == 1);
    assert_true(under(SECOND, "b") == 1 && under(SECOND, "default") == 1 && under(SECOND, "a") == 0);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_history WHERE what = 'rewrap' AND key_name = "
                                    "'a' AND result = 'UNWRAP'"),
                     1);
    keyring_free(ring);
}

static void refuse(void)
{
    rig_service->rv = CKR_KEY_FUNCTION_NOT_PERMITTED;
    snprintf(rig_service->code, sizeof rig_service->code, "DisabledException");
}

static void refuse_second(int nth)
{
    if (nth == 2)
        refuse();
}

/* Who left the old KEK behind in a service that refuses it is asked once, not for every key. */
static void keys_under_a_lost_kek_are_told_and_the_others_go_on(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct seen seen = {0};
    create(ring, "a", SERVICE);
    create(ring, "b", SERVICE);
    create(ring, "c", NULL);
    refuse();
    int asked = rig_service->decrypts;
    assert_status(ENVELOPE_E_KEK_REFUSED, move_all(ring, SECOND, &seen, &done));
    assert_error_says("2 of 4 keys");
    assert_true(done.looked == 4 && done.failed == 2 && seen.failed == 2 && done.versions.moved == 2);
    assert_int_equal(rig_service->decrypts, asked + 1);
    assert_non_null(strstr(seen.failures, "a;"));
    assert_non_null(strstr(seen.failures, "b;"));
    assert_true(under(SERVICE, "a") == 1 && under(SECOND, "c") == 1);
    rig_service->rv = CKR_OK;
    assert_ok(move_all(ring, SECOND, NULL, &done));
    assert_true(done.versions.moved == 2 && done.versions.kept == 2 && under(SECOND, "%") == 4);
    keyring_free(ring);
}

static void a_kek_that_cannot_be_moved_to_is_one_error(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct seen seen = {0};
    create(ring, "a", NULL);
    create(ring, "b", NULL);
    int64_t counter = rig_sql_number("SELECT change_counter FROM store_meta");
    assert_status(ENVELOPE_E_KEK_UNKNOWN, move_all(ring, MISSING, &seen, &done));
    assert_status(
        ENVELOPE_E_ARGUMENT,
        keyring_rewrap_all(ring, &(struct keyring_rewrap){.kek_uri = SECOND, .version = 1}, see, &seen, &done));
    assert_true(seen.count == 0 && done.looked == 0);
    assert_true(rig_sql_number("SELECT change_counter FROM store_meta") == counter);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_kek"), 1);
    /* It is lost after the first key: the second one's failure ends it. */
    before_rewrap = refuse_second;
    assert_status(ENVELOPE_E_KEK_REFUSED, move_all(ring, SERVICE, &seen, &done));
    assert_error_says("1 of 3 keys moved");
    assert_true(done.looked == 2 && done.failed == 1 && seen.count == 2);
    assert_int_equal(under(SERVICE, "%"), 1);
    rig_service->rv = CKR_OK;
    before_rewrap = NULL;
    assert_ok(move_all(ring, SERVICE, NULL, &done));
    assert_true(done.versions.moved == 2 && done.versions.kept == 1 && under(SERVICE, "%") == 3);
    keyring_free(ring);
}

/* More than fit into a page, and into a transaction: each of them once, in its order, up to the one that cannot be. */
static void keys_of_many_versions_move_page_by_page(void **state)
{
    (void)state;
    enum { FIRST = 150, LAST = 270 };
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct seen seen = {0};
    create(ring, "a", NULL);
    create(ring, "b", NULL);
    for (int i = 1; i < FIRST; i++)
        assert_ok(keyring_rotate(ring, "a", NULL, NULL, NULL));
    for (int i = 1; i < LAST; i++)
        assert_ok(keyring_rotate(ring, "b", NULL, NULL, NULL));
    rig_sql("UPDATE encryption_key_version SET encrypted_key_blob = zeroblob(length(encrypted_key_blob)) WHERE "
            "version = 140 AND key_id = (SELECT key_id FROM encryption_key WHERE name = 'b')");
    assert_status(ENVELOPE_E_UNWRAP, move_all(ring, SECOND, &seen, &done));
    assert_non_null(strstr(seen.failures, "\"b\": version 140, with 139 of 270 versions done"));
    assert_true(done.looked == 3 && done.failed == 1 && done.versions.moved == FIRST + 139 + 1);
    assert_true(under(SECOND, "a") == FIRST && under(SECOND, "b") == 139 && under(SECOND, "default") == 1);
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_history WHERE what = 'rewrap' AND result = "
                                    "'ok' AND version IS NOT NULL"),
                     FIRST + 139 + 1);
    assert_int_equal(rig_sql_number("SELECT count(DISTINCT version) FROM encryption_key_history WHERE what = 'rewrap' "
                                    "AND result = 'ok' AND key_name = 'a'"),
                     FIRST);
    assert_ok(store_check(keyring_store(ring)));
    keyring_free(ring);
}

/* How much is in one transaction depends on how fast the token is; what was in one that failed is where it was. */
static void a_store_that_fails_ends_it_and_the_rest_follows(void **state)
{
    (void)state;
    enum { VERSIONS = 200 };
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct seen seen = {0};
    create(ring, "a", NULL);
    for (int i = 1; i < VERSIONS; i++)
        assert_ok(keyring_rotate(ring, "default", NULL, NULL, NULL));
    failing_write = 2;
    assert_status(ENVELOPE_E_STORE_UNAVAILABLE, move_all(ring, SECOND, &seen, &done));
    assert_error_says("of 2 keys moved (run it again to go on)");
    assert_error_says("the disk is full");
    assert_int_equal(writes, 2);
    assert_int_equal(done.looked, seen.count);
    int64_t moved = under(SECOND, "%");
    assert_true(moved == (int64_t)done.versions.moved && moved > 0 && moved <= VERSIONS);
    assert_ok(move_all(ring, SECOND, NULL, &done));
    assert_int_equal(done.versions.moved, VERSIONS + 1 - moved);
    assert_int_equal(under(SECOND, "%"), VERSIONS + 1);
    assert_ok(store_check(keyring_store(ring)));
    keyring_free(ring);
}

static void without_a_kek_each_key_is_wrapped_anew_under_its_own(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    create(ring, "a", SECOND);
    assert_ok(keyring_rewrap_all(ring, &(struct keyring_rewrap){0}, NULL, NULL, &done));
    assert_true(done.versions.moved == 2 && done.versions.kept == 0);
    assert_true(under(SECOND, "a") == 1 && under(SECOND, "default") == 0);
    assert_ok(store_check(keyring_store(ring)));
    keyring_free(ring);
}

/* ---- a service that cannot be reached, or throttles, for a while ---- */

enum { THROTTLED = 9 };

static int throttle_from, throttle_to; /* rewraps, by number */

static void throttle(int nth)
{
    bool on = nth >= throttle_from && nth <= throttle_to;
    rig_service->rv = on ? CKR_DEVICE_ERROR : CKR_OK;
    snprintf(rig_service->code, sizeof rig_service->code, "%s", on ? "ThrottlingException" : "");
}

static void throttle_these(int from, int to)
{
    rewraps = 0;
    throttle_from = from;
    throttle_to = to;
    rig_service->rv = CKR_OK;
    before_rewrap = throttle;
}

static void make_throttled(keyring *ring, const char *kek)
{
    for (int i = 0; i < THROTTLED; i++) {
        char name[16];
        snprintf(name, sizeof name, "a %d", i);
        create(ring, name, kek);
    }
}

/* Throttled is not lost: the keys that had bad luck are told, the next ones are tried. */
static void keys_behind_a_throttled_one_are_tried(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct seen seen = {0};
    make_throttled(ring, SERVICE);
    throttle_these(2, 3);
    assert_status(ENVELOPE_E_HSM_UNAVAILABLE, move_all(ring, SECOND, &seen, &done));
    assert_error_says("2 of 10 keys could not be moved");
    assert_true(done.looked == 10 && seen.failed == 2 && done.versions.moved == 8);
    assert_true(under(SERVICE, "a 1") == 1 && under(SERVICE, "a 2") == 1 && under(SECOND, "%") == 8);
    throttle_these(0, 0);
    assert_ok(move_all(ring, SECOND, NULL, &done));
    assert_true(done.versions.moved == 2 && done.versions.kept == 8);
    keyring_free(ring);
}

/* A try may take as long as the deadline: three in a row, and no more of that KEK's; all others go on. */
static void a_kek_that_stays_away_is_given_up_after_a_few_keys(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct seen seen = {0};
    make_throttled(ring, SERVICE);
    throttle_these(2, 100);
    assert_status(ENVELOPE_E_HSM_UNAVAILABLE, move_all(ring, SECOND, &seen, &done));
    assert_true(done.looked == 10 && seen.failed == 8 && done.versions.moved == 2);
    assert_int_equal(rewraps, 5); /* one that went well, three that did not, and the one of another KEK */
    assert_int_equal(under(SECOND, "default"), 1);
    keyring_free(ring);
}

static void a_throttled_kek_to_move_to_does_not_end_it_at_once(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct seen seen = {0};
    make_throttled(ring, NULL);
    throttle_these(2, 3);
    assert_status(ENVELOPE_E_HSM_UNAVAILABLE, move_all(ring, SERVICE, &seen, &done));
    assert_error_says("2 of 10 keys could not be moved");
    assert_true(done.looked == 10 && seen.failed == 2 && under(SERVICE, "%") == 8);
    keyring_free(ring);
}

static void a_kek_to_move_to_that_stays_away_ends_it(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct seen seen = {0};
    make_throttled(ring, NULL);
    throttle_these(2, 100);
    assert_status(ENVELOPE_E_HSM_UNAVAILABLE, move_all(ring, SERVICE, &seen, &done));
    assert_error_says("1 of 10 keys moved (run it again to go on)");
    assert_true(done.looked == 4 && seen.failed == 3 && rewraps == 4);
    throttle_these(0, 0);
    assert_ok(move_all(ring, SERVICE, NULL, &done));
    assert_true(done.versions.moved == 9 && under(SERVICE, "%") == 10);
    keyring_free(ring);
}

/* ---- a service that takes many at once ---- */

enum { TENANTS = 150 };
static char first_at_service[512]; /* the configured KEK, by the service */

static void make_tenants(keyring *ring)
{
    const char *kek = keyring_settings(ring)->kek;
    snprintf(first_at_service, sizeof first_at_service, "%s%smodule-path=%s", kek, strchr(kek, '?') ? "&" : "?",
             SERVICE_MODULE_IN_URI);
    for (int i = 0; i < TENANTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "t %d", i);
        create(ring, name, first_at_service);
    }
    assert_ok(keyring_rotate(ring, "t 7", NULL, NULL, NULL));
    rig_service->plaintext_leaves = true;
    rig_service->counts_requests = true;
}

static void versions_of_many_keys_move_in_few_requests(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct keyring_rewrapped one;
    struct rig_message message;
    make_tenants(ring);
    assert_ok(rig_seal_once(ring, rig_key(ring, "t 99"), 9, &message));
    int before = rig_service->requests;
    assert_ok(move_all(ring, SERVICE, NULL, &done));
    /* The trial, "default" from SoftHSM, one moved alone and its trial; then 128 and 22, three requests each. */
    assert_true(rig_service->many == 6 && rig_service->requests - before < 20);
    assert_true(done.versions.moved == TENANTS + 2 && done.versions.inside == 0);
    assert_int_equal(under(SERVICE, "%"), TENANTS + 2);
    assert_int_equal(writes, 3); /* 128 keys have 129 versions */
    /* A row for each, and the requests that it was in. */
    assert_int_equal(
        rig_sql_number("SELECT count(*) FROM encryption_key_history WHERE what = 'rewrap' AND result = 'ok' "
                       "AND detail LIKE '%%(request%%)'"),
        TENANTS + 2);
    assert_int_equal(
        rig_sql_number("SELECT count(DISTINCT detail) FROM encryption_key_history WHERE what = 'rewrap' AND "
                       "detail LIKE '%%(requests request-%%, request-%%, request-%%)'"),
        4); /* two batches, one moved alone first, and one that was alone on its page */
    keyring *later = rig_ring_plain();
    assert_ok(rig_open_once(later, &message, 9));
    assert_ok(keyring_rewrap(later, "t 7", &(struct keyring_rewrap){0}, &one)); /* anew, under its own */
    assert_int_equal(one.moved, 2);
    for (int i = 0; i < 5; i++)
        assert_ok(keyring_rotate(ring, "t 7", NULL, NULL, NULL));
    int many = rig_service->many;
    assert_ok(keyring_rewrap(later, "t 7", &(struct keyring_rewrap){.kek_uri = first_at_service}, &one));
    assert_true(one.moved == 7 && rig_service->many == many + 3);
    assert_ok(store_check(keyring_store(ring)));
    keyring_free(later);
    later = rig_ring_plain();
    assert_ok(rig_seal_once(later, rig_key(later, "t 7"), 10, &message));
    keyring_free(later);
    keyring_free(ring);
}

static void a_damaged_version_among_many_is_told_by_itself(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct seen seen = {0};
    make_tenants(ring);
    rig_sql("UPDATE encryption_key_version SET encrypted_key_blob = x'0104%s' WHERE key_id IN (SELECT "
            "key_id FROM encryption_key WHERE name IN ('t 50', 't 51'))",
            "00112233445566778899aabb10000102030405060708090a0b0c0d0e0f");
    assert_status(ENVELOPE_E_UNWRAP, move_all(ring, SERVICE, &seen, &done));
    assert_error_says("2 of 151 keys");
    assert_true(seen.failed == 2 && done.versions.moved == TENANTS && rig_service->many == 6);
    assert_non_null(strstr(seen.failures, "t 50;"));
    assert_non_null(strstr(seen.failures, "t 51;"));
    assert_int_equal(under(SERVICE, "%"), TENANTS);
    keyring_free(ring);
}

static keyring *other_ring;

/* While what the service has moved is not stored yet, some of it is changed. */
static void change_some(void)
{
    static const char *const moved[] = {"t 120", "t 121"};
    struct keyring_rewrapped one;
    assert_true(rig_service->many > 0);
    for (size_t i = 0; i < 2; i++)
        assert_ok(keyring_rewrap(other_ring, moved[i], &(struct keyring_rewrap){.kek_uri = SERVICE}, &one));
    assert_ok(keyring_rotate(other_ring, "t 122", NULL, NULL, NULL));
    /* Somewhere else altogether: another blob, the same DEK. */
    assert_ok(keyring_rewrap(other_ring, "t 123", &(struct keyring_rewrap){.kek_uri = SECOND, .version = 1}, &one));
    assert_int_equal(one.moved, 1);
    other_ring = NULL;
}

static void what_others_change_meanwhile_is_not_overwritten(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain(), *others = rig_ring_plain();
    struct keyring_rewrap_all done;
    struct seen seen = {0};
    struct rig_message message;
    make_tenants(ring);
    assert_ok(rig_seal_once(ring, rig_key(ring, "t 123"), 9, &message));
    other_ring = others;
    before_store = change_some;
    assert_ok(move_all(ring, SERVICE, &seen, &done));
    assert_null(other_ring);
    assert_true(done.failed == 0 && done.versions.kept == 2);
    assert_int_equal(under(SERVICE, "%"), TENANTS + 3);
    keyring *later = rig_ring_plain();
    assert_ok(rig_open_once(later, &message, 9));
    for (int i = 0; i < TENANTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "t %d", i);
        assert_ok(rig_seal_once(later, rig_key(later, name), 10, &message));
    }
    assert_ok(store_check(keyring_store(ring)));
    keyring_free(later);
    keyring_free(others);
    keyring_free(ring);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, keyring_store_teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_key_moves_and_messages_go_on),
        TEST(only_what_is_under_the_named_kek_moves),
        TEST(one_damaged_key_is_told_and_the_others_go_on),
        TEST(keys_under_a_lost_kek_are_told_and_the_others_go_on),
        TEST(a_kek_that_cannot_be_moved_to_is_one_error),
        TEST(keys_behind_a_throttled_one_are_tried),
        TEST(a_kek_that_stays_away_is_given_up_after_a_few_keys),
        TEST(a_throttled_kek_to_move_to_does_not_end_it_at_once),
        TEST(a_kek_to_move_to_that_stays_away_ends_it),
        TEST(keys_of_many_versions_move_page_by_page),
        TEST(a_store_that_fails_ends_it_and_the_rest_follows),
        TEST(without_a_kek_each_key_is_wrapped_anew_under_its_own),
        TEST(versions_of_many_keys_move_in_few_requests),
        TEST(a_damaged_version_among_many_is_told_by_itself),
        TEST(what_others_change_meanwhile_is_not_overwritten),
    };
    return cmocka_run_group_tests(tests, service_rig_setup, keyring_rig_teardown);
}
