/* States: every step from every state, for every kind of version, against a table written down by hand. */
#include "store_conformance.h"

#include "base/error.h"

enum kind { PRIMARY_OF_ENABLED, PRIMARY_OF_SUSPENDED, OTHER_OF_ENABLED, OTHER_OF_SUSPENDED, KINDS };

static const char *const kind_names[KINDS] = {"primary of an enabled key", "primary of a suspended key",
                                              "older version of an enabled key", "older version of a suspended key"};

/*
 * Rows: the state before. Columns: active, deactivated, suspended, pending-destruction, destroyed.
 * "-": a version of this kind is never in that state; "y": allowed; "n": refused.
 */
static const char *const table[KINDS][5] = {
    [PRIMARY_OF_ENABLED] = {"nnynn", "-----", "ynnnn", "-----", "-----"},
    [PRIMARY_OF_SUSPENDED] = {"nnynn", "nnyyn", "ynnyn", "nynny", "nnnnn"},
    [OTHER_OF_ENABLED] = {"-----", "nnyyn", "nynyn", "nynny", "nnnnn"},
    [OTHER_OF_SUSPENDED] = {"-----", "nnyyn", "nynyn", "nynny", "nnnnn"},
};

static void step(const struct conformance *c, uint32_t dek_id, enum store_version_state from,
                 enum store_version_state to)
{
    OK(store_version_set_state(c->store, dek_id, from, to, CONFORMANCE_NOW, &conformance_actor));
}

/* A new key with a version of this kind in this state; returns its DEK id. */
static uint32_t arrange(const struct conformance *c, const char *name, enum kind kind, enum store_version_state wanted)
{
    conformance_create(c, name, 10);
    uint32_t dek_id = conformance_primary(c, name).dek_id;
    bool primary = kind == PRIMARY_OF_ENABLED || kind == PRIMARY_OF_SUSPENDED;
    if (!primary)
        conformance_rotate(c, name);
    if (kind == PRIMARY_OF_SUSPENDED || kind == OTHER_OF_SUSPENDED)
        OK(store_key_set_state(c->store, name, STORE_KEY_ENABLED, STORE_KEY_SUSPENDED, 1, &conformance_actor));
    enum store_version_state now = primary ? STORE_VERSION_ACTIVE : STORE_VERSION_DEACTIVATED;
    if (now == wanted)
        return dek_id;
    step(c, dek_id, now, STORE_VERSION_SUSPENDED);
    if (wanted == STORE_VERSION_SUSPENDED)
        return dek_id;
    step(c, dek_id, STORE_VERSION_SUSPENDED, STORE_VERSION_PENDING_DESTRUCTION);
    if (wanted != STORE_VERSION_PENDING_DESTRUCTION)
        step(c, dek_id, STORE_VERSION_PENDING_DESTRUCTION, wanted);
    return dek_id;
}

static void check_row(const struct conformance *c, uint32_t dek_id, enum store_version_state wanted)
{
    struct store_version version;
    OK(store_version_find(c->store, dek_id, &version));
    assert_int_equal(version.state, wanted);
    assert_true((version.blob == NULL) == (wanted == STORE_VERSION_DESTROYED));
    store_version_clear(&version);
}

static void check_step(const struct conformance *c, enum kind kind, enum store_version_state from,
                       enum store_version_state to, bool allowed)
{
    static unsigned counter;
    char name[64];
    snprintf(name, sizeof name, "%s %u", kind_names[kind], counter++);
    uint32_t dek_id = arrange(c, name, kind, from);
    uint64_t before = conformance_counter(c);
    size_t rows = conformance_history_rows(c);
    envelope_status status = store_version_set_state(c->store, dek_id, from, to, CONFORMANCE_NOW, &conformance_actor);
    if (status != (allowed ? ENVELOPE_OK : ENVELOPE_E_VERSION_STATE))
        fail_msg("%s, %s -> %s: %s %s", kind_names[kind], store_version_state_text(from), store_version_state_text(to),
                 envelope_status_name(status), status ? error_text() : "");
    check_row(c, dek_id, allowed ? to : from);
    assert_true(conformance_counter(c) == before + (allowed ? 1 : 0));
    assert_int_equal(conformance_history_rows(c), rows + (allowed ? 1 : 0));
}

static void every_step_between_states_is_as_the_table_says(void **state)
{
    struct conformance *c = *state;
    for (int kind = 0; kind < KINDS; kind++)
        for (int from = STORE_VERSION_ACTIVE; from <= STORE_VERSION_DESTROYED; from++)
            for (int to = STORE_VERSION_ACTIVE; to <= STORE_VERSION_DESTROYED; to++) {
                char cell = table[kind][from - 1][to - 1];
                if (cell != '-')
                    check_step(c, (enum kind)kind, (enum store_version_state)from, (enum store_version_state)to,
                               cell == 'y');
            }
}

static void a_step_from_a_state_the_version_is_not_in_is_a_conflict(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "k", 10);
    uint32_t dek_id = conformance_primary(c, "k").dek_id;
    EXPECT(
        store_version_set_state(c->store, dek_id, STORE_VERSION_SUSPENDED, STORE_VERSION_ACTIVE, 1, &conformance_actor),
        ENVELOPE_E_STORE_CONFLICT);
    EXPECT(store_version_set_state(c->store, dek_id, STORE_VERSION_PENDING_DESTRUCTION, STORE_VERSION_DESTROYED, 1,
                                   &conformance_actor),
           ENVELOPE_E_STORE_CONFLICT);
    EXPECT(store_version_set_state(c->store, dek_id, (enum store_version_state)0, STORE_VERSION_ACTIVE, 1,
                                   &conformance_actor),
           ENVELOPE_E_ARGUMENT);
    EXPECT(store_version_set_state(c->store, dek_id, STORE_VERSION_ACTIVE, (enum store_version_state)6, 1,
                                   &conformance_actor),
           ENVELOPE_E_ARGUMENT);
    check_row(c, dek_id, STORE_VERSION_ACTIVE);
}

static void a_suspended_primary_stays_suspended_through_rotation(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "k", 10);
    uint32_t first = conformance_primary(c, "k").dek_id;
    step(c, first, STORE_VERSION_ACTIVE, STORE_VERSION_SUSPENDED);
    uint32_t second = conformance_rotate(c, "k");
    check_row(c, first, STORE_VERSION_SUSPENDED);
    check_row(c, second, STORE_VERSION_ACTIVE);
    /* It is not the primary any more, so resuming makes it decrypt, not encrypt. */
    EXPECT(
        store_version_set_state(c->store, first, STORE_VERSION_SUSPENDED, STORE_VERSION_ACTIVE, 1, &conformance_actor),
        ENVELOPE_E_VERSION_STATE);
    step(c, first, STORE_VERSION_SUSPENDED, STORE_VERSION_DEACTIVATED);
}

static void a_suspended_key_comes_back_as_it_was(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "k", 10);
    uint32_t first = conformance_primary(c, "k").dek_id;
    uint64_t counter = conformance_counter(c);
    OK(store_key_set_state(c->store, "k", STORE_KEY_ENABLED, STORE_KEY_SUSPENDED, 1, &conformance_actor));
    assert_true(conformance_counter(c) == counter + 1);
    assert_int_equal(conformance_primary(c, "k").key_state, STORE_KEY_SUSPENDED);
    check_row(c, first, STORE_VERSION_ACTIVE);
    struct store_new_version next = conformance_version(c);
    EXPECT(store_key_rotate(c->store, "k", 1, &next, &conformance_actor), ENVELOPE_E_KEY_STATE);
    EXPECT(store_key_set_state(c->store, "k", STORE_KEY_ENABLED, STORE_KEY_SUSPENDED, 1, &conformance_actor),
           ENVELOPE_E_STORE_CONFLICT);
    OK(store_key_set_state(c->store, "k", STORE_KEY_SUSPENDED, STORE_KEY_ENABLED, 1, &conformance_actor));
    OK(store_key_rotate(c->store, "k", 1, &next, &conformance_actor));
}

static void a_key_knows_only_enabled_and_suspended_here(void **state)
{
    struct conformance *c = *state;
    conformance_create(c, "k", 10);
    for (int from = 0; from <= 4; from++)
        for (int to = 0; to <= 4; to++) {
            if (from >= 1 && from <= 2 && to >= 1 && to <= 2 && from != to)
                continue;
            EXPECT(store_key_set_state(c->store, "k", (enum store_key_state)from, (enum store_key_state)to, 1,
                                       &conformance_actor),
                   ENVELOPE_E_KEY_STATE);
        }
}

static void a_key_without_a_usable_primary_is_not_enabled(void **state)
{
    struct conformance *c = *state;
    uint32_t dek_id = arrange(c, "k", PRIMARY_OF_SUSPENDED, STORE_VERSION_PENDING_DESTRUCTION);
    EXPECT(store_key_set_state(c->store, "k", STORE_KEY_SUSPENDED, STORE_KEY_ENABLED, 1, &conformance_actor),
           ENVELOPE_E_KEY_STATE);
    step(c, dek_id, STORE_VERSION_PENDING_DESTRUCTION, STORE_VERSION_DEACTIVATED);
    EXPECT(store_key_set_state(c->store, "k", STORE_KEY_SUSPENDED, STORE_KEY_ENABLED, 1, &conformance_actor),
           ENVELOPE_E_KEY_STATE);
    step(c, dek_id, STORE_VERSION_DEACTIVATED, STORE_VERSION_SUSPENDED);
    step(c, dek_id, STORE_VERSION_SUSPENDED, STORE_VERSION_ACTIVE);
    OK(store_key_set_state(c->store, "k", STORE_KEY_SUSPENDED, STORE_KEY_ENABLED, 1, &conformance_actor));
    struct store_version primary = conformance_primary(c, "k");
    assert_int_equal(primary.state, STORE_VERSION_ACTIVE);
    assert_true(primary.deactivated == 0);
}

static void states_have_names(void **state)
{
    (void)state;
    assert_string_equal(store_version_state_text(STORE_VERSION_ACTIVE), "active");
    assert_string_equal(store_version_state_text(STORE_VERSION_DEACTIVATED), "deactivated");
    assert_string_equal(store_version_state_text(STORE_VERSION_SUSPENDED), "suspended");
    assert_string_equal(store_version_state_text(STORE_VERSION_PENDING_DESTRUCTION), "pending-destruction");
    assert_string_equal(store_version_state_text(STORE_VERSION_DESTROYED), "destroyed");
    assert_string_equal(store_key_state_text(STORE_KEY_ENABLED), "enabled");
    assert_string_equal(store_key_state_text(STORE_KEY_SUSPENDED), "suspended");
    assert_string_equal(store_key_state_text(STORE_KEY_DESTROYED), "destroyed");
    assert_string_equal(store_key_state_text((enum store_key_state)0), "unknown");
    assert_string_equal(store_version_state_text((enum store_version_state)99), "unknown");
}

int conformance_states_group(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, conformance_setup, conformance_teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_step_between_states_is_as_the_table_says),
        TEST(a_step_from_a_state_the_version_is_not_in_is_a_conflict),
        TEST(a_suspended_primary_stays_suspended_through_rotation),
        TEST(a_suspended_key_comes_back_as_it_was),
        TEST(a_key_knows_only_enabled_and_suspended_here),
        TEST(a_key_without_a_usable_primary_is_not_enabled),
        cmocka_unit_test(states_have_names),
    };
    return cmocka_run_group_tests_name("store: states", tests, NULL, NULL);
}
