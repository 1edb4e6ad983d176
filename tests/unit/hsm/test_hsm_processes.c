/* Many processes that start at the same moment on one token: SoftHSM rewrites its files at every login. */
#include "hsm_fixture.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES = 12, ROUNDS = 4 };

extern char **environ;

/* argv: "worker", token URI of the KEK, PIN file, blob file. */
static int worker(char **argv)
{
    struct settings settings;
    struct softhsm_rig rig = {.directory = ""};
    uint8_t bytes[1024], dek[HSM_DEK_SIZE];
    char module[] = "/usr/lib/softhsm/libsofthsm2.so";
    const char *other = getenv("SOFTHSM2_MODULE");
    softhsm_rig_settings(&rig, &settings);
    settings.module = module;
    char given[SOFTHSM_RIG_PATH_MAX];
    if (other) {
        snprintf(given, sizeof given, "%s", other);
        settings.module = given;
    }
    settings.pin_file = argv[2];
    int fd = open(argv[3], O_RDONLY);
    ssize_t length = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    hsm *instance = NULL;
    if (length < 0 || hsm_new(&settings, &instance) != ENVELOPE_OK)
        return 2;
    envelope_status status = hsm_unwrap(instance, argv[1], AAD, sizeof AAD, bytes, (size_t)length, dek);
    if (status != ENVELOPE_OK)
        fprintf(stderr, "worker: %s\n", error_text());
    hsm_free(instance);
    return status == ENVELOPE_OK ? 0 : 1;
}

static void processes_that_start_together_all_log_in(void **state)
{
    uint8_t *blob = NULL;
    size_t length = 0;
    char path[SOFTHSM_RIG_PATH_MAX + 8];
    (void)state;
    round_trip(fixture.rig.kek, &blob, &length);
    snprintf(path, sizeof path, "%s/blob", fixture.rig.directory);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, blob, length), (ssize_t)length);
    close(fd);
    free(blob);
    char self[] = "/proc/self/exe", name[] = "worker";
    char *argv[] = {name, fixture.rig.kek, fixture.rig.pin_file, path, NULL};
    for (int round = 0; round < ROUNDS; round++) {
        pid_t children[PROCESSES];
        int failed = 0;
        for (int i = 0; i < PROCESSES; i++)
            assert_int_equal(posix_spawn(&children[i], self, NULL, NULL, argv, environ), 0);
        for (int i = 0; i < PROCESSES; i++) {
            int how = 0;
            assert_int_equal(waitpid(children[i], &how, 0), children[i]);
            failed += how != 0;
        }
        assert_int_equal(failed, 0);
    }
}

static void copy_of_a_rig_is_a_token_of_its_own(void **state)
{
    struct softhsm_rig copy;
    uint8_t *blob = NULL;
    size_t length = 0;
    char path[SOFTHSM_RIG_PATH_MAX + 8], setting[SOFTHSM_RIG_PATH_MAX + 32];
    (void)state;
    round_trip(fixture.rig.kek, &blob, &length);
    assert_true(softhsm_rig_copy(&fixture.rig, &copy));
    assert_true(softhsm_rig_unplug(&fixture.rig)); /* the copy does not need the original */
    snprintf(path, sizeof path, "%s/blob", copy.directory);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, blob, length), (ssize_t)length);
    close(fd);
    free(blob);
    snprintf(setting, sizeof setting, "SOFTHSM2_CONF=%s", copy.config);
    char self[] = "/proc/self/exe", name[] = "worker";
    char *argv[] = {name, copy.kek, copy.pin_file, path, NULL}, *environment[] = {setting, NULL};
    pid_t child = 0;
    int how = 0;
    assert_int_equal(posix_spawn(&child, self, NULL, NULL, argv, environment), 0);
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(softhsm_rig_plug(&fixture.rig));
    softhsm_rig_remove(&copy);
    assert_int_equal(how, 0);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[0], "worker") == 0)
        return worker(argv);
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(processes_that_start_together_all_log_in),
        TEST(copy_of_a_rig_is_a_token_of_its_own),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
