#include "base_test.h"

#include "base/units.h"

static void durations_are_read_as_people_write_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t expected;
    } rows[] = {
        {"0", 0},
        {"0s", 0},
        {"1us", 1},
        {"250ms", 250000},
        {"90s", 90000000},
        {"10m", 600000000},
        {"1h30m", 5400000000},
        {"30d", INT64_C(2592000000000)},
        {"2w", INT64_C(1209600000000)},
        {"1w2d3h4m5s6ms7us", INT64_C(788645006007)},
        {"1m1ms", 60001000},
        {"007s", 7000000},
        {"9223372036854775807us", INT64_MAX},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        int64_t value = -1;
        if (units_parse_duration(rows[i].text, &value))
            fail_msg("\"%s\": %s", rows[i].text, error_text());
        if (value != rows[i].expected)
            fail_msg("\"%s\" became %lld", rows[i].text, (long long)value);
    }
}

static void durations_that_could_be_misread_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *problem;
    } rows[] = {
        {"", "is not a duration"},
        {"s", "is not a duration"},
        {"5", "has no unit"},
        {"1h30", "has no unit"},
        {"00", "has no unit"},
        {"-5s", "is not a duration"},
        {"+5s", "is not a duration"},
        {" 5s", "is not a duration"},
        {"5 s", "is not a duration"},
        {"5s ", "is not a duration"},
        {"5.5s", "is not a duration"},
        {"5S", "is not a duration"},
        {"5min", "is not a duration"},
        {"5y", "is not a duration"},
        {"30m1h", "is not a duration"}, /* smaller unit first */
        {"1m1m", "is not a duration"},
        {"5sm", "is not a duration"},
        {"9223372036854775808us", "too long"},
        {"99999999999999999999s", "too long"},
        {"15250285w", "too long"},
        {"15250284w7d", "too long"},
        {"\x1b[2J", "\\x1b[2J"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        int64_t value = -1;
        assert_raised(units_parse_duration(rows[i].text, &value), ENVELOPE_E_ARGUMENT, rows[i].problem);
        assert_int_equal(value, -1);
    }
}

static void sizes_know_thousands_from_1024s(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t expected;
    } rows[] = {
        {"0", 0},
        {"1", 1},
        {"4294967296", UINT64_C(4294967296)},
        {"64k", 64000},
        {"3M", 3000000},
        {"2G", UINT64_C(2000000000)},
        {"64Ki", 65536},
        {"64KiB", 65536},
        {"16Mi", 16777216},
        {"16MiB", 16777216},
        {"4Gi", UINT64_C(4294967296)},
        {"4GiB", UINT64_C(4294967296)},
        {"18446744073709551615", UINT64_MAX},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t value = 7;
        if (units_parse_size(rows[i].text, &value))
            fail_msg("\"%s\": %s", rows[i].text, error_text());
        if (value != rows[i].expected)
            fail_msg("\"%s\" became %llu", rows[i].text, (unsigned long long)value);
    }
    static const char *const refused[] = {"",
                                          "k",
                                          "-1",
                                          "+1",
                                          " 1",
                                          "1 ",
                                          "1 k",
                                          "1K",
                                          "1kB",
                                          "1m",
                                          "1.5G",
                                          "0x10",
                                          "1T",
                                          "1KIB",
                                          "18446744073709551616",
                                          "18446744073709551615k",
                                          "17179869184GiB"};
    for (size_t i = 0; i < COUNT(refused); i++) {
        uint64_t value = 7;
        if (units_parse_size(refused[i], &value) != ENVELOPE_E_ARGUMENT || value != 7)
            fail_msg("\"%s\" was taken", refused[i]);
    }
}

static void a_duration_is_written_as_short_as_it_can_be(void **state)
{
    (void)state;
    static const struct {
        int64_t value;
        const char *expected;
    } rows[] = {
        {0, "0"},
        {1, "1us"},
        {1000, "1ms"},
        {1001, "1ms1us"},
        {10001, "10ms1us"},
        {1001000, "1s1ms"},
        {250000, "250ms"},
        {1000000, "1s"},
        {90000000, "90s"},
        {600000000, "10m"},
        {3600000000, "1h"},
        {3600001000, "1h1ms"},
        {INT64_C(86400000000), "1d"},
        {INT64_C(2592000000000), "30d"},
        {INT64_C(1209600000000), "2w"},
        {-1500000, "-1500ms"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char buffer[UNITS_TEXT_MAX];
        assert_string_equal(units_duration_text(rows[i].value, buffer), rows[i].expected);
    }
}

static void what_is_written_reads_back_the_same(void **state)
{
    (void)state;
    uint64_t seed = 42;
    for (int i = 0; i < 20000; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        int64_t value = (int64_t)(seed >> (1 + i % 62)), back = -1;
        if (i % 3 == 0)
            value -= value % 1000000;
        char buffer[UNITS_TEXT_MAX];
        assert_int_equal(units_parse_duration(units_duration_text(value, buffer), &back), ENVELOPE_OK);
        if (back != value)
            fail_msg("%lld was written as %s", (long long)value, buffer);
    }
    char buffer[UNITS_TEXT_MAX];
    int64_t back;
    assert_int_equal(units_parse_duration(units_duration_text(INT64_MAX, buffer), &back), ENVELOPE_OK);
    assert_true(back == INT64_MAX);
    assert_int_equal(units_duration_text(INT64_MIN, buffer)[0], '-');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_are_read_as_people_write_them),
        cmocka_unit_test(durations_that_could_be_misread_are_refused),
        cmocka_unit_test(sizes_know_thousands_from_1024s),
        cmocka_unit_test(a_duration_is_written_as_short_as_it_can_be),
        cmocka_unit_test(what_is_written_reads_back_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
