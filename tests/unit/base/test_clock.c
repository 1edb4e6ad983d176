#include "base_test.h"

#include <time.h>

#include "base/clock.h"

static int64_t frozen(void)
{
    return 1234 * CLOCK_SECOND;
}

static void tests_can_replace_time_and_give_it_back(void **state)
{
    (void)state;
    clock_set_source(frozen);
    assert_true(clock_wall() == 1234 * CLOCK_SECOND);
    assert_true(clock_monotonic() == 1234 * CLOCK_SECOND);
    assert_true(clock_monotonic_coarse() == 1234 * CLOCK_SECOND);
    assert_true(clock_tick() == 1234 * CLOCK_SECOND);
    clock_set_source(NULL);
    int64_t wall = clock_wall(), now = (int64_t)time(NULL);
    assert_true(wall / CLOCK_SECOND >= now - 2 && wall / CLOCK_SECOND <= now + 2);
}

static void monotonic_time_does_not_go_back(void **state)
{
    (void)state;
    int64_t last = 0, last_coarse = 0;
    for (int i = 0; i < 10000; i++) {
        int64_t now = clock_monotonic(), coarse = clock_monotonic_coarse();
        assert_true(now >= last);
        assert_true(coarse >= last_coarse);
        last = now;
        last_coarse = coarse;
    }
    assert_true(last > 0);
}

static void a_tick_lasts_milliseconds(void **state)
{
    (void)state;
    const struct timespec pause = {.tv_nsec = 100000000};
    int same = 0;
    int64_t last = clock_tick();
    assert_true(last != 0);
    for (int i = 0; i < 1000; i++)
        same += clock_tick() == last;
    assert_true(same > 0);
    last = clock_tick();
    nanosleep(&pause, NULL);
    assert_true(clock_tick() != last);
}

static void wall_time_is_written_in_utc(void **state)
{
    (void)state;
    char buffer[CLOCK_TEXT_MAX];
    assert_string_equal(clock_text(0, buffer), "1970-01-01T00:00:00Z");
    assert_string_equal(clock_text(INT64_C(951782399) * CLOCK_SECOND + 999999, buffer), "2000-02-28T23:59:59Z");
    assert_string_equal(clock_text(INT64_C(4102444800) * CLOCK_SECOND, buffer), "2100-01-01T00:00:00Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tests_can_replace_time_and_give_it_back),
        cmocka_unit_test(monotonic_time_does_not_go_back),
        cmocka_unit_test(a_tick_lasts_milliseconds),
        cmocka_unit_test(wall_time_is_written_in_utc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
