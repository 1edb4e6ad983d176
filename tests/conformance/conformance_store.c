/* The store as a whole: made once, found again, its KEKs and DEK ids, bad URLs. */
#include "store_conformance.h"

#include "base/error.h"

static void a_store_is_made_once_and_found_again(void **state)
{
    struct conformance *c = *state;
    uint8_t id[STORE_ID_SIZE], again[STORE_ID_SIZE];
    OK(store_id(c->store, id));
    assert_string_equal(store_url(c->store), c->url);

    store *second = NULL;
    bool created = true;
    OK(store_create(c->url, CONFORMANCE_DEADLINE, &second, &created));
    assert_false(created);
    OK(store_id(second, again));
    assert_memory_equal(id, again, STORE_ID_SIZE);
    store_close(second);

    OK(store_open(c->url, CONFORMANCE_DEADLINE, &second));
    OK(store_id(second, again));
    assert_memory_equal(id, again, STORE_ID_SIZE);
    store_close(second);
}

static void what_was_written_is_there_after_reopening(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "financial", 1000);
    conformance_rotate(c, "financial");
    store_close(c->store);
    OK(store_open(c->url, CONFORMANCE_DEADLINE, &c->store));
    struct store_key key;
    OK(store_key_find(c->store, "financial", &key));
    assert_int_equal(key.primary_version, 2);
}

static void a_url_that_is_none_is_refused(void **state)
{
    (void)state;
    static const char *const urls[] = {"",       "keys.db", "/tmp/keys.db", "mongodb:/tmp/keys",
                                       "sqlite", ":",       "sqlite\n:/x"};
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        store *opened = (store *)&opened;
        EXPECT(store_open(urls[i], CONFORMANCE_DEADLINE, &opened), ENVELOPE_E_ARGUMENT);
        assert_null(opened);
    }
    store *opened = NULL;
    EXPECT(store_open(NULL, CONFORMANCE_DEADLINE, &opened), ENVELOPE_E_ARGUMENT);
}

static void a_kek_has_one_id_for_ever(void **state)
{
    struct conformance *c = *state;
    uint32_t first = 0, again = 0, other = 0;
    OK(store_kek_ensure(c->store, "pkcs11:token=a;object=one", CONFORMANCE_NOW, &first));
    OK(store_kek_ensure(c->store, "pkcs11:token=a;object=two", CONFORMANCE_NOW, &other));
    OK(store_kek_ensure(c->store, "pkcs11:token=a;object=one", CONFORMANCE_NOW + 5, &again));
    assert_int_equal(first, again);
    assert_int_not_equal(first, other);
    assert_true(first >= 1);

    struct store_kek kek;
    OK(store_kek_find(c->store, first, &kek));
    assert_int_equal(kek.kek_id, first);
    assert_string_equal(kek.uri, "pkcs11:token=a;object=one");
    assert_true(kek.created == CONFORMANCE_NOW);
    store_kek_clear(&kek);
    EXPECT(store_kek_find(c->store, other + 1000, &kek), ENVELOPE_E_KEK_UNKNOWN);
    EXPECT(store_kek_find(c->store, 0, &kek), ENVELOPE_E_KEK_UNKNOWN);
}

static void a_kek_uri_with_a_pin_never_enters_the_store(void **state)
{
    struct conformance *c = *state;
    static const char *const uris[] = {
        "pkcs11:token=a?pin-value=1234",
        "pkcs11:token=a;object=b?module-name=x&pin-value=1234",
        "pkcs11:token=a?pin-source=file:/etc/pin",
        "pkcs11:pin-value=1234",
        "",
        "pkcs11:token=\xff",
    };
    for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
        uint32_t id = 0;
        EXPECT(store_kek_ensure(c->store, uris[i], CONFORMANCE_NOW, &id), ENVELOPE_E_KEK_URI);
        assert_null(strstr(error_text(), "1234"));
    }
    uint32_t id = 0;
    OK(store_kek_ensure(c->store, "pkcs11:object=my-pin-value=x", CONFORMANCE_NOW, &id));
}

static void dek_ids_start_at_one_and_rise(void **state)
{
    struct conformance *c = *state;
    uint32_t before = 0;
    for (int i = 0; i < 50; i++) {
        uint32_t id = 0;
        OK(store_dek_id_reserve(c->store, &id));
        assert_true(id > before);
        before = id;
    }
    store_close(c->store);
    OK(store_open(c->url, CONFORMANCE_DEADLINE, &c->store));
    uint32_t id = 0;
    OK(store_dek_id_reserve(c->store, &id));
    assert_true(id > before);
}

static void the_dek_id_of_a_destroyed_version_is_not_used_again(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "k", 10);
    struct store_version old = conformance_primary(c, "k");
    conformance_rotate(c, "k");
    OK(store_version_set_state(c->store, old.dek_id, STORE_VERSION_DEACTIVATED, STORE_VERSION_PENDING_DESTRUCTION,
                               CONFORMANCE_NOW, &conformance_actor));
    OK(store_version_set_state(c->store, old.dek_id, STORE_VERSION_PENDING_DESTRUCTION, STORE_VERSION_DESTROYED,
                               CONFORMANCE_NOW, &conformance_actor));
    struct store_new_version next = conformance_version(c);
    assert_true(next.dek_id > old.dek_id);
    next.dek_id = old.dek_id;
    EXPECT(store_key_rotate(c->store, "k", 2, &next, &conformance_actor), ENVELOPE_E_ARGUMENT);
}

int conformance_store_group(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, conformance_setup, conformance_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_store_is_made_once_and_found_again),
        TEST(what_was_written_is_there_after_reopening),
        TEST(a_url_that_is_none_is_refused),
        TEST(a_kek_has_one_id_for_ever),
        TEST(a_kek_uri_with_a_pin_never_enters_the_store),
        TEST(dek_ids_start_at_one_and_rise),
        TEST(the_dek_id_of_a_destroyed_version_is_not_used_again),
    };
    return cmocka_run_group_tests_name("store: as a whole", tests, NULL, NULL);
}
