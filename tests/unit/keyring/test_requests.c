/* What a key service calls the requests of a change stands in the change's row of the history. */
#include "service_rig.h"

#include <stdio.h>
#include <string.h>

static int setup(void **state)
{
    int made = service_store_setup(state);
    rig_service->counts_requests = true;
    return made;
}

/* How many rows of the key's history say exactly that; detail "": nothing. */
static int64_t rows(const char *key, const char *what, const char *detail)
{
    return rig_sql_number(
        "SELECT count(*) FROM encryption_key_history WHERE key_name = '%s' AND what = '%s' AND result "
        "= 'ok' AND ifnull(detail, '') = '%s'",
        key, what, detail);
}

static void create_rotate_and_rewrap_note_their_requests(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrapped done;
    const struct keyring_key_options options = {.kek_uri = SECOND AT_SERVICE};
    assert_ok(keyring_create(ring, "mine", &options));
    assert_int_equal(rows("mine", "create", "(request request-1)"), 1);
    assert_ok(keyring_rotate(ring, "mine", NULL, NULL, NULL));
    assert_int_equal(rows("mine", "rotate", "(request request-2)"), 1);
    assert_ok(keyring_rotate(ring, "mine", "every month", NULL, NULL));
    assert_int_equal(rows("mine", "rotate", "every month (request request-3)"), 1);
    /* Moved by the service: one request, and one that asks whether it opens. */
    const struct keyring_rewrap anew = {.version = 1};
    assert_ok(keyring_rewrap(ring, "mine", &anew, &done));
    assert_int_equal(rows("mine", "rewrap", "from KEK 2 to KEK 2, inside the key service (request request-4)"), 1);
    const struct keyring_rewrap away = {.kek_uri = SECOND, .version = 2, .why = "back home"};
    assert_ok(keyring_rewrap(ring, "mine", &away, &done));
    assert_int_equal(rows("mine", "rewrap", "from KEK 2 to KEK 3: back home (request request-6)"), 1);
    keyring_free(ring);
}

static void where_no_service_is_asked_nothing_is_noted(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    struct keyring_rewrapped done;
    const struct keyring_key_options options = {.kek_uri = SECOND AT_SERVICE};
    assert_ok(keyring_create(ring, "mine", &options)); /* its request is not the next one's */
    assert_ok(keyring_rotate(ring, "default", "why", NULL, NULL));
    assert_ok(keyring_rewrap(ring, "default", &(struct keyring_rewrap){.version = 1}, &done));
    assert_int_equal(rows("default", "create", ""), 1);
    assert_int_equal(rows("default", "rotate", "why"), 1);
    assert_int_equal(rows("default", "rewrap", "from KEK 1 to KEK 1"), 1);
    keyring_free(ring);
}

static void a_long_reason_is_cut_and_the_request_is_not(void **state)
{
    (void)state;
    keyring *ring = rig_ring_plain();
    char why[3000];
    memset(why, 'y', sizeof why - 1);
    why[sizeof why - 1] = '\0';
    const struct keyring_key_options options = {.kek_uri = SECOND AT_SERVICE};
    assert_ok(keyring_create(ring, "mine", &options));
    assert_ok(keyring_rotate(ring, "mine", why, NULL, NULL));
    assert_int_equal(rig_sql_number("SELECT count(*) FROM encryption_key_history WHERE what = 'rotate' AND detail LIKE "
                                    "'yyyy%%…%% (request request-2)'"),
                     1);
    keyring_free(ring);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, keyring_store_teardown)
    const struct CMUnitTest tests[] = {
        TEST(create_rotate_and_rewrap_note_their_requests),
        TEST(where_no_service_is_asked_nothing_is_noted),
        TEST(a_long_reason_is_cut_and_the_request_is_not),
    };
    return cmocka_run_group_tests(tests, service_rig_setup, keyring_rig_teardown);
}
