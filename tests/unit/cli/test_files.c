/* Files of a set-up: whole or not at all, never replaced; and values quoted so that their readers get them back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include <openssl/conf.h>

#include "base/error.h"
#include "base/text.h"
#include "lifecycle/files.h"

static char directory[64];

static int make_directory(void **state)
{
    (void)state;
    snprintf(directory, sizeof(directory), "/tmp/envelope-files.XXXXXX");
    return mkdtemp(directory) && chdir(directory) == 0 ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    bool gone = lifecycle_directory_empty(directory) == ENVELOPE_OK && chdir("/") == 0 && rmdir(directory) == 0;
    return gone ? 0 : -1;
}

static mode_t mode_of(const char *path)
{
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    return found.st_mode & 07777;
}

static void assert_content(const char *path, const char *expected)
{
    char content[256] = "";
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t length = fread(content, 1, sizeof(content) - 1, file);
    fclose(file);
    content[length] = '\0';
    assert_string_equal(content, expected);
}

static void a_file_is_written_once_and_never_replaced(void **state)
{
    (void)state;
    bool written;
    umask(0);
    assert_int_equal(lifecycle_file_write_new("a", 0640, "first", &written), ENVELOPE_OK);
    assert_true(written);
    assert_int_equal(mode_of("a"), 0640);
    assert_int_equal(lifecycle_file_write_new("a", 0600, "second", &written), ENVELOPE_OK);
    assert_false(written);
    assert_content("a", "first");
    assert_int_equal(mode_of("a"), 0640);
    /* Not even by one that was staged before the other appeared. */
    assert_int_equal(lifecycle_file_stage("b", 0600, "late"), ENVELOPE_OK);
    assert_int_equal(lifecycle_file_write_new("b.other", 0600, "x", &written), ENVELOPE_OK);
    assert_int_equal(rename("b.other", "b"), 0);
    assert_int_equal(lifecycle_file_publish("b"), ENVELOPE_E_IO);
    assert_content("b", "x");
    lifecycle_file_drop("b");
    assert_false(lifecycle_exists(".b.new"));
}

static void a_leftover_of_a_killed_run_is_not_kept(void **state)
{
    (void)state;
    bool written;
    assert_int_equal(lifecycle_file_stage("c", 0644, "a longer text of the killed run"), ENVELOPE_OK);
    assert_int_equal(lifecycle_file_write_new("c", 0600, "new", &written), ENVELOPE_OK);
    assert_content("c", "new");
    assert_int_equal(mode_of("c"), 0600);
    assert_false(lifecycle_exists(".c.new"));
}

static void a_staged_file_is_not_written_through_a_link(void **state)
{
    (void)state;
    bool written;
    assert_int_equal(lifecycle_file_write_new("target", 0600, "precious", &written), ENVELOPE_OK);
    assert_int_equal(symlink("target", ".d.new"), 0);
    assert_int_equal(lifecycle_file_write_new("d", 0600, "mine", &written), ENVELOPE_OK);
    assert_content("target", "precious");
    assert_content("d", "mine");
}

static void a_file_in_the_way_of_a_directory_is_named(void **state)
{
    (void)state;
    bool made;
    assert_int_equal(lifecycle_file_write_new("e", 0600, "", &made), ENVELOPE_OK);
    assert_int_equal(lifecycle_directory_make("e", 0700, &made), ENVELOPE_E_IO);
    assert_non_null(strstr(error_text(), "e is not a directory"));
}

static void emptying_a_directory_leaves_what_links_point_to(void **state)
{
    (void)state;
    bool made;
    assert_int_equal(lifecycle_directory_make("full", 0700, &made), ENVELOPE_OK);
    assert_int_equal(lifecycle_directory_make("full/inner", 0700, &made), ENVELOPE_OK);
    assert_int_equal(lifecycle_directory_make("elsewhere", 0700, &made), ENVELOPE_OK);
    assert_int_equal(lifecycle_file_write_new("full/inner/x", 0600, "", &made), ENVELOPE_OK);
    assert_int_equal(lifecycle_file_write_new("elsewhere/y", 0600, "", &made), ENVELOPE_OK);
    assert_int_equal(symlink("../elsewhere", "full/link"), 0);
    assert_int_equal(lifecycle_directory_empty("full"), ENVELOPE_OK);
    assert_int_equal(rmdir("full"), 0);
    assert_true(lifecycle_exists("elsewhere/y"));
}

static const char *const values[] = {
    "/plain/path-1.2_3",
    "pkcs11:token=a%20b;object=master;type=secret-key",
    "/with blank/and $dollar/${brace}",
    "/with \"double\" and 'single' quotes",
    "/with \\ backslash and `tick` and # hash",
    " leading and trailing ",
    "/mit Umlauten/äöü",
};
enum { VALUE_COUNT = sizeof(values) / sizeof(*values) };

static void configuration_values_come_back_as_they_were(void **state)
{
    (void)state;
    for (size_t i = 0; i < VALUE_COUNT; i++) {
        LIFECYCLE_TEXT quoted = lifecycle_quote_conf(values[i]);
        LIFECYCLE_TEXT content = text_format("[s]\nvalue = %s\nnext = 1\n", quoted);
        bool written;
        unlink("conf");
        assert_int_equal(lifecycle_file_write_new("conf", 0600, content, &written), ENVELOPE_OK);
        CONF *conf = NCONF_new(NULL);
        assert_true(NCONF_load(conf, "conf", NULL) > 0);
        assert_string_equal(NCONF_get_string(conf, "s", "value"), values[i]);
        assert_string_equal(NCONF_get_string(conf, "s", "next"), "1");
        NCONF_free(conf);
    }
}

static void shell_words_come_back_as_they_were(void **state)
{
    (void)state;
    for (size_t i = 0; i < VALUE_COUNT; i++) {
        LIFECYCLE_TEXT quoted = lifecycle_quote_shell(values[i]);
        LIFECYCLE_TEXT command = text_format("printf %%s %s", quoted);
        FILE *shell = popen(command, "r");
        assert_non_null(shell);
        char came_back[256] = "";
        size_t length = fread(came_back, 1, sizeof(came_back) - 1, shell);
        assert_int_equal(pclose(shell), 0);
        came_back[length] = '\0';
        assert_string_equal(came_back, values[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_written_once_and_never_replaced),
        cmocka_unit_test(a_leftover_of_a_killed_run_is_not_kept),
        cmocka_unit_test(a_staged_file_is_not_written_through_a_link),
        cmocka_unit_test(a_file_in_the_way_of_a_directory_is_named),
        cmocka_unit_test(emptying_a_directory_leaves_what_links_point_to),
        cmocka_unit_test(configuration_values_come_back_as_they_were),
        cmocka_unit_test(shell_words_come_back_as_they_were),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
