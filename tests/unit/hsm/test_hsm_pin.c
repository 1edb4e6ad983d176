/* Where PINs come from. */
#include "hsm_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/secmem.h"
#include "hsm/pin.h"

static char directory[] = "/tmp/envelope-pin.XXXXXX";
static char path[64];
static struct settings settings;

static int setup(void **state)
{
    (void)state;
    memset(&settings, 0, sizeof settings);
    return 0;
}

static int group_setup(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof path, "%s/pin", directory);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static void write_pin(const char *text, size_t length, mode_t mode)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, length), (ssize_t)length);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static envelope_status read_pin(const char *uri_text, struct hsm_pin **pin)
{
    struct hsm_uri *uri = NULL;
    *pin = NULL;
    assert_status(hsm_uri_parse_kek(uri_text, &uri), ENVELOPE_OK);
    envelope_status status = hsm_pin_read(&settings, uri, clock_monotonic() + 5 * CLOCK_SECOND, pin);
    hsm_uri_free(uri);
    return status;
}

static const char PLAIN[] = "pkcs11:token=t;object=m";

static void assert_pin(const char *uri, const char *expected)
{
    struct hsm_pin *pin = NULL;
    assert_status(read_pin(uri, &pin), ENVELOPE_OK);
    assert_int_equal(pin->length, strlen(expected));
    assert_memory_equal(pin->bytes, expected, pin->length);
    secmem_free(pin);
}

static void assert_no_pin(const char *uri, const char *said)
{
    struct hsm_pin *pin = NULL;
    assert_status(read_pin(uri, &pin), ENVELOPE_E_HSM_LOGIN);
    assert_null(pin);
    assert_said(said);
}

static void one_line_end_is_not_part_of_the_pin(void **state)
{
    (void)state;
    settings.pin_file = path;
    write_pin("1234", 4, 0600);
    assert_pin(PLAIN, "1234");
    write_pin("1234\n", 5, 0600);
    assert_pin(PLAIN, "1234");
    write_pin("1234\r\n", 6, 0640);
    assert_pin(PLAIN, "1234");
    write_pin(" user:pass word \n", 17, 0600);
    assert_pin(PLAIN, " user:pass word ");
}

static void what_is_no_pin_is_not_sent(void **state)
{
    (void)state;
    settings.pin_file = path;
    write_pin("", 0, 0600);
    assert_no_pin(PLAIN, "empty");
    write_pin("\n", 1, 0600);
    assert_no_pin(PLAIN, "empty");
    write_pin("12\n34\n", 6, 0600);
    assert_no_pin(PLAIN, "more than one line");
    write_pin("12\0"
              "34",
              5, 0600);
    assert_no_pin(PLAIN, "NUL");
}

static void pins_have_up_to_1024_bytes(void **state)
{
    char text[1026];
    (void)state;
    memset(text, 'x', sizeof text);
    settings.pin_file = path;
    text[1024] = '\n';
    write_pin(text, 1025, 0600);
    text[1024] = '\0';
    assert_pin(PLAIN, text);
    text[1024] = 'x';
    write_pin(text, 1025, 0600);
    assert_no_pin(PLAIN, "1024");
    write_pin(text, 1026, 0600);
    assert_no_pin(PLAIN, "1024");
}

static void file_that_everybody_can_read_is_refused(void **state)
{
    (void)state;
    settings.pin_file = path;
    write_pin("1234\n", 5, 0644);
    assert_no_pin(PLAIN, "chmod 600");
    settings.pin_file = directory;
    assert_no_pin(PLAIN, "directory");
    char missing[] = "/nonexistent/pin";
    settings.pin_file = missing;
    assert_no_pin(PLAIN, "/nonexistent/pin");
}

static void environment_and_command_are_sources_too(void **state)
{
    char name[] = "ENVELOPE_TEST_PIN", command[] = "printf 42\\n7", silent[] = "true", failing[] = "false";
    char absent[] = "/nonexistent/program secret-argument", quoted[] = "echo $HOME;id";
    (void)state;
    settings.pin_env = name;
    assert_no_pin(PLAIN, "not set");
    setenv(name, "9876", 1);
    assert_pin(PLAIN, "9876");
    settings.pin_env = NULL;
    settings.pin_command = quoted; /* no shell sees it */
    assert_pin(PLAIN, "$HOME;id");
    settings.pin_command = silent;
    assert_no_pin(PLAIN, "empty");
    settings.pin_command = failing;
    assert_no_pin(PLAIN, "failed");
    settings.pin_command = absent;
    assert_no_pin(PLAIN, "cannot be run");
    assert_null(strstr(error_text(), "secret-argument"));
    settings.pin_command = command;
    assert_no_pin(PLAIN, "more than one line");
    settings.pin_command = NULL;
    assert_no_pin(PLAIN, "none is configured");
}

static void command_that_does_not_answer_is_ended_at_the_deadline(void **state)
{
    struct hsm_uri *uri = NULL;
    struct hsm_pin *pin = NULL;
    char command[] = "sleep 600";
    (void)state;
    settings.pin_command = command;
    assert_status(hsm_uri_parse_kek(PLAIN, &uri), ENVELOPE_OK);
    int64_t begun = clock_monotonic();
    assert_status(hsm_pin_read(&settings, uri, begun + CLOCK_SECOND / 5, &pin), ENVELOPE_E_HSM_LOGIN);
    assert_said("deadline");
    assert_true(clock_monotonic() - begun < 60 * CLOCK_SECOND);
    hsm_uri_free(uri);
}

static void uri_goes_before_configuration(void **state)
{
    char uri[160], other[] = "/nonexistent/pin";
    (void)state;
    settings.pin_file = other;
    write_pin("5555\n", 5, 0600);
    snprintf(uri, sizeof uri, "%s?pin-source=file:%s", PLAIN, path);
    assert_pin(uri, "5555");
    snprintf(uri, sizeof uri, "%s?pin-source=file://%s", PLAIN, path);
    assert_pin(uri, "5555");
    snprintf(uri, sizeof uri, "%s?pin-source=%s", PLAIN, path);
    assert_pin(uri, "5555");
    snprintf(uri, sizeof uri, "%s?pin-source=|cat%%20%s", PLAIN, path);
    assert_pin(uri, "5555");
    snprintf(uri, sizeof uri, "%s?pin-value=66%%3A66", PLAIN);
    assert_pin(uri, "66:66");
    assert_no_pin("pkcs11:token=t;object=m?pin-source=pin.txt", "neither");
}

static void refused_pin_is_known_again_for_its_token_only(void **state)
{
    struct hsm_pin *pin = NULL, *other = NULL;
    bool refused = true;
    (void)state;
    settings.pin_file = path;
    write_pin("1111", 4, 0600);
    assert_status(read_pin(PLAIN, &pin), ENVELOPE_OK);
    write_pin("2222", 4, 0600);
    assert_status(read_pin(PLAIN, &other), ENVELOPE_OK);
    assert_status(hsm_pin_was_refused("a", pin, &refused), ENVELOPE_OK);
    assert_false(refused);
    assert_status(hsm_pin_refuse("a", pin), ENVELOPE_OK);
    assert_status(hsm_pin_was_refused("a", pin, &refused), ENVELOPE_OK);
    assert_true(refused);
    assert_status(hsm_pin_was_refused("a", other, &refused), ENVELOPE_OK);
    assert_false(refused);
    assert_status(hsm_pin_was_refused("b", pin, &refused), ENVELOPE_OK);
    assert_false(refused);
    secmem_free(pin);
    secmem_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(one_line_end_is_not_part_of_the_pin, setup),
        cmocka_unit_test_setup(what_is_no_pin_is_not_sent, setup),
        cmocka_unit_test_setup(pins_have_up_to_1024_bytes, setup),
        cmocka_unit_test_setup(file_that_everybody_can_read_is_refused, setup),
        cmocka_unit_test_setup(environment_and_command_are_sources_too, setup),
        cmocka_unit_test_setup(command_that_does_not_answer_is_ended_at_the_deadline, setup),
        cmocka_unit_test_setup(uri_goes_before_configuration, setup),
        cmocka_unit_test_setup(refused_pin_is_known_again_for_its_token_only, setup),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
