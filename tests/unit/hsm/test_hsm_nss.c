/* A second opinion: the same promises on NSS softoken, where libnss3 and certutil are installed. */
#include "hsm_fixture.h"

#include <fcntl.h>
#include <ftw.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dlfcn.h>

enum { SKIPPED = 77 };

extern char **environ;

static char directory[] = "/tmp/envelope-nss.XXXXXX";
static char module[] = NSS_MODULE, pin_file[64];
static char kek[] = "pkcs11:token=NSS%20Certificate%20DB;object=master;type=secret-key";
static struct settings settings;
static hsm *instance;

static bool run(char *const argv[])
{
    pid_t child = 0;
    int how = 0;
    return posix_spawnp(&child, argv[0], NULL, NULL, argv, environ) == 0 && waitpid(child, &how, 0) == child &&
           how == 0;
}

static int group_setup(void **state)
{
    (void)state;
    char database[64];
    if (!mkdtemp(directory))
        return -1;
    snprintf(pin_file, sizeof pin_file, "%s/pin", directory);
    snprintf(database, sizeof database, "sql:%s", directory);
    int fd = open(pin_file, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || write(fd, "Nss-pin-1\n", 10) != 10 || close(fd) != 0)
        return -1;
    char certutil[] = "certutil", new[] = "-N", d[] = "-d", f[] = "-f";
    char *argv[] = {certutil, new, d, database, f, pin_file, NULL};
    if (!run(argv) || setenv("ENVELOPE_TEST_NSS", directory, 1) != 0)
        return -1;
    settings = (struct settings){.module = module, .pin_file = pin_file, .sessions = 2, .deadline = 10000000};
    if (hsm_new(&settings, &instance) != ENVELOPE_OK || hsm_kek_generate(instance, kek) != ENVELOPE_OK) {
        print_error("%s\n", error_text());
        return -1;
    }
    return 0;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static int group_teardown(void **state)
{
    (void)state;
    hsm_free(instance);
    return nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void dek_wrapped_with(int wrap, enum hsm_mechanism mechanism, size_t expected)
{
    uint8_t dek[HSM_DEK_SIZE], again[HSM_DEK_SIZE], *blob = NULL;
    size_t length = 0;
    settings.wrap = wrap;
    assert_status(hsm_generate_dek(instance, kek, dek), ENVELOPE_OK);
    assert_status(hsm_wrap(instance, kek, AAD, sizeof AAD, dek, &blob, &length), ENVELOPE_OK);
    assert_int_equal(length, expected);
    assert_int_equal(blob[1], mechanism);
    assert_status(hsm_unwrap(instance, kek, AAD, sizeof AAD, blob, length, again), ENVELOPE_OK);
    assert_memory_equal(dek, again, sizeof dek);
    assert_status(hsm_unwrap(instance, kek, AAD, sizeof AAD - 1, blob, length, again), ENVELOPE_E_UNWRAP);
    for (size_t i = 0; i < length; i++) {
        blob[i] ^= 1;
        assert_status(hsm_unwrap(instance, kek, AAD, sizeof AAD, blob, length, again), ENVELOPE_E_UNWRAP);
        blob[i] ^= 1;
    }
    free(blob);
}

static void aes_gcm_wrap_opens_only_in_its_place(void **state)
{
    (void)state;
    dek_wrapped_with(SETTINGS_WRAP_AUTO, HSM_AES_GCM, 62);
}

static void aes_kwp_wrap_opens_only_in_its_place(void **state)
{
    (void)state;
    dek_wrapped_with(SETTINGS_WRAP_AES_KWP, HSM_AES_KWP, 58);
}

int main(void)
{
    if (!dlopen("libsoftokn3.so", RTLD_NOW | RTLD_LOCAL) || access("/usr/bin/certutil", X_OK) != 0) {
        print_message("NSS softoken (libnss3) or certutil (libnss3-tools) is not installed\n");
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aes_gcm_wrap_opens_only_in_its_place),
        cmocka_unit_test(aes_kwp_wrap_opens_only_in_its_place),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
