/* The command line: options before and behind their arguments, what is refused, and what the process ends with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"
#include "cli/cli.h"

static const char *colour;
static bool loud;
static const struct cli_option options[] = {
    {"colour", "NAME", "which", &colour, NULL},
    {"loud", NULL, "how", NULL, &loud},
};
static const struct cli_verb verb = {.name = "paint",
                                     .arguments = "WALL [WALL]",
                                     .summary = "paints",
                                     .least = 1,
                                     .most = 2,
                                     .options = options,
                                     .option_count = 2};

static int reset(void **state)
{
    (void)state;
    colour = NULL;
    loud = false;
    cli_common = (struct cli_common){0};
    error_clear();
    return 0;
}

/* words[0] stands for the verb, as in a real command line. */
#define PARSE(count, ...)                                                                                              \
    char *words[] = {"paint", __VA_ARGS__, NULL};                                                                      \
    int count = (int)(sizeof(words) / sizeof(*words)) - 2;                                                             \
    envelope_status status = cli_parse(&verb, &count, words + 1)

static void options_may_stand_anywhere(void **state)
{
    (void)state;
    PARSE(count, "north", "--colour", "red", "south", "--loud", "--json");
    assert_int_equal(status, ENVELOPE_OK);
    assert_int_equal(count, 2);
    assert_string_equal(words[1], "north");
    assert_string_equal(words[2], "south");
    assert_string_equal(colour, "red");
    assert_true(loud);
    assert_true(cli_common.json);
}

static void two_dashes_end_the_options(void **state)
{
    (void)state;
    PARSE(count, "--", "--loud");
    assert_int_equal(status, ENVELOPE_OK);
    assert_int_equal(count, 1);
    assert_string_equal(words[1], "--loud");
    assert_false(loud);
}

static void one_dash_is_an_argument(void **state)
{
    (void)state;
    PARSE(count, "-");
    assert_int_equal(status, ENVELOPE_OK);
    assert_string_equal(words[1], "-");
}

static void a_misspelt_option_is_refused_with_the_nearest_name(void **state)
{
    (void)state;
    PARSE(count, "north", "--color=red");
    assert_int_equal(status, ENVELOPE_E_ARGUMENT);
    assert_non_null(strstr(error_text(), "--colour"));
    (void)count;
}

static void an_option_without_its_value_is_refused(void **state)
{
    (void)state;
    PARSE(count, "north", "--colour");
    assert_int_equal(status, ENVELOPE_E_ARGUMENT);
    assert_non_null(strstr(error_text(), "--colour needs a value"));
    (void)count;
}

static void an_option_given_twice_is_refused(void **state)
{
    (void)state;
    PARSE(count, "north", "--colour", "red", "--colour", "blue");
    assert_int_equal(status, ENVELOPE_E_ARGUMENT);
    assert_non_null(strstr(error_text(), "twice"));
    (void)count;
}

static void too_few_and_too_many_arguments_are_refused(void **state)
{
    (void)state;
    {
        PARSE(count, "--loud");
        assert_int_equal(status, ENVELOPE_E_ARGUMENT);
        (void)count;
    }
    {
        PARSE(count, "north", "south", "east");
        assert_int_equal(status, ENVELOPE_E_ARGUMENT);
        assert_non_null(strstr(error_text(), "WALL [WALL]"));
        (void)count;
    }
}

static void help_needs_no_arguments(void **state)
{
    (void)state;
    PARSE(count, "--help");
    assert_int_equal(status, ENVELOPE_OK);
    assert_true(cli_common.help);
    (void)count;
}

static void control_characters_in_an_option_do_not_reach_the_terminal(void **state)
{
    (void)state;
    PARSE(count, "north", "--\x1b[31m");
    assert_int_equal(status, ENVELOPE_E_ARGUMENT);
    assert_null(strchr(error_text(), 0x1b));
    (void)count;
}

static void options_before_the_verb_are_found(void **state)
{
    (void)state;
    bool version = false;
    char *words[] = {"--json", "--config", "a.cnf", "paint", "--loud", NULL};
    assert_int_equal(cli_parse_leading(5, words, &version), 3);
    assert_true(cli_common.json);
    assert_string_equal(cli_common.config, "a.cnf");
    assert_false(version);

    char *unknown[] = {"--jsn", NULL};
    assert_int_equal(cli_parse_leading(1, unknown, &version), -1);
    assert_non_null(strstr(error_text(), "--json"));
    char *open[] = {"--config", NULL};
    assert_int_equal(cli_parse_leading(1, open, &version), -1);
}

static void numbers_are_read_strictly(void **state)
{
    (void)state;
    uint64_t value = 7;
    assert_int_equal(cli_number("limit", NULL, 1, 10, &value), ENVELOPE_OK);
    assert_int_equal(value, 7);
    assert_int_equal(cli_number("limit", "10", 1, 10, &value), ENVELOPE_OK);
    assert_int_equal(value, 10);
    static const char *const refused[] = {"", "0", "11", "-1", "1x", " 1", "99999999999999999999"};
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
        assert_int_equal(cli_number("limit", refused[i], 1, 10, &value), ENVELOPE_E_ARGUMENT);
        assert_non_null(strstr(error_text(), "--limit"));
        assert_int_equal(value, 10);
    }
}

static void exit_statuses_follow_the_groups_of_reasons(void **state)
{
    (void)state;
    static const struct {
        envelope_status from;
        enum cli_exit to;
    } expected[] = {
        {ENVELOPE_OK, CLI_OK},
        {ENVELOPE_E_INTERNAL, CLI_FAILED},
        {ENVELOPE_E_IO, CLI_FAILED},
        {ENVELOPE_E_TIMEOUT, CLI_FAILED},
        {ENVELOPE_E_ARGUMENT, CLI_USAGE},
        {ENVELOPE_E_KEY_NAME, CLI_USAGE},
        {ENVELOPE_E_CONFIG, CLI_CONFIGURATION},
        {ENVELOPE_E_HSM_MODULE, CLI_TOKEN},
        {ENVELOPE_E_KEK_URI, CLI_TOKEN},
        {ENVELOPE_E_UNWRAP, CLI_TOKEN},
        {ENVELOPE_E_HSM, CLI_TOKEN},
        {ENVELOPE_E_STORE_UNAVAILABLE, CLI_STORE},
        {ENVELOPE_E_STORE_CONFLICT, CLI_STORE},
        {ENVELOPE_E_KEY_UNKNOWN, CLI_KEY},
        {ENVELOPE_E_KEY_EXISTS, CLI_KEY},
        {ENVELOPE_E_VERSION_STATE, CLI_KEY},
        {ENVELOPE_E_MESSAGE_LIMIT, CLI_KEY},
        {ENVELOPE_E_REFERENCE, CLI_DATA},
        {ENVELOPE_E_DATA_TRUNCATED, CLI_DATA},
        {ENVELOPE_E_DATA_FORMAT, CLI_DATA},
    };
    for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++)
        assert_int_equal(cli_exit_of(expected[i].from), expected[i].to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(options_may_stand_anywhere, reset),
        cmocka_unit_test_setup(two_dashes_end_the_options, reset),
        cmocka_unit_test_setup(one_dash_is_an_argument, reset),
        cmocka_unit_test_setup(a_misspelt_option_is_refused_with_the_nearest_name, reset),
        cmocka_unit_test_setup(an_option_without_its_value_is_refused, reset),
        cmocka_unit_test_setup(an_option_given_twice_is_refused, reset),
        cmocka_unit_test_setup(too_few_and_too_many_arguments_are_refused, reset),
        cmocka_unit_test_setup(help_needs_no_arguments, reset),
        cmocka_unit_test_setup(control_characters_in_an_option_do_not_reach_the_terminal, reset),
        cmocka_unit_test_setup(options_before_the_verb_are_found, reset),
        cmocka_unit_test_setup(numbers_are_read_strictly, reset),
        cmocka_unit_test_setup(exit_statuses_follow_the_groups_of_reasons, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
