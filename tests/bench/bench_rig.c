#include "bench_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/provider.h>

#include "base/error.h"
#include "keyring/keyring.h"
#include "store/store.h"

const char *bench_key_name(size_t index, char name[BENCH_NAME_MAX])
{
    snprintf(name, BENCH_NAME_MAX, "key-%zu", index);
    return name;
}

static bool write_config(const struct bench_rig *rig, const char *path, const char *name)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return false;
    fprintf(file,
            "[envelope]\nstore = sqlite:%s/%s.db\nkek = %s\n[hsm]\nmodule = %s\npin-file = %s\n[cache]\nttl = 1d\n",
            rig->token.directory, name, rig->token.kek, rig->token.module, rig->token.pin_file);
    return fclose(file) == 0;
}

static envelope_status make_store(const char *config, size_t keys)
{
    struct settings settings;
    store *opened;
    keyring *ring = NULL;
    char name[BENCH_NAME_MAX];
    envelope_status status = settings_load(config, &settings);
    if (status == ENVELOPE_OK)
        status = store_create(settings.store, settings.deadline, &opened, NULL);
    if (status != ENVELOPE_OK)
        return status;
    store_close(opened);
    status = keyring_new(&settings, &ring);
    if (status == ENVELOPE_OK)
        status = keyring_create(ring, "default", NULL);
    for (size_t i = 0; i < keys && status == ENVELOPE_OK; i++)
        status = keyring_create(ring, bench_key_name(i, name), NULL);
    return status;
}

static bool make_in_child(const struct bench_rig *rig)
{
    pid_t child = fork();
    if (child < 0)
        return false;
    if (child == 0) {
        bool done = make_store(rig->few, 0) == ENVELOPE_OK && make_store(rig->many, rig->keys) == ENVELOPE_OK;
        if (!done)
            fprintf(stderr, "bench: %s\n", error_text());
        _exit(done ? 0 : 1);
    }
    int status;
    return waitpid(child, &status, 0) == child && status == 0;
}

static bool make_token_in_child(struct bench_rig *rig)
{
    int pipes[2];
    if (pipe(pipes) != 0)
        return false;
    pid_t child = fork();
    if (child < 0)
        return false;
    if (child == 0) {
        bool done = softhsm_rig_make(&rig->token);
        if (done)
            done = write(pipes[1], &rig->token, sizeof rig->token) == (ssize_t)sizeof rig->token;
        _exit(done ? 0 : 1);
    }
    close(pipes[1]);
    bool read_all = read(pipes[0], &rig->token, sizeof rig->token) == (ssize_t)sizeof rig->token;
    close(pipes[0]);
    int status;
    return waitpid(child, &status, 0) == child && status == 0 && read_all &&
           setenv("SOFTHSM2_CONF", rig->token.config, 1) == 0;
}

bool bench_rig_make(struct bench_rig *rig, size_t keys)
{
    memset(rig, 0, sizeof *rig);
    rig->keys = keys;
    if (!make_token_in_child(rig))
        return false;
    snprintf(rig->few, sizeof rig->few, "%s/few.cnf", rig->token.directory);
    snprintf(rig->many, sizeof rig->many, "%s/many.cnf", rig->token.directory);
    if (write_config(rig, rig->few, "few") && write_config(rig, rig->many, "many") && make_in_child(rig))
        return true;
    bench_rig_remove(rig);
    return false;
}

void bench_rig_remove(struct bench_rig *rig)
{
    softhsm_rig_remove(&rig->token);
}

static void die(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

EVP_CIPHER *bench_cipher(const char *modules, const char *config)
{
    OSSL_LIB_CTX *context = OSSL_LIB_CTX_new();
    /* The path is read when the provider is loaded. */
    if (!context || setenv("ENVELOPE_CONFIG", config, 1) != 0 ||
        !OSSL_PROVIDER_set_default_search_path(context, modules) || !OSSL_PROVIDER_load(context, "default") ||
        !OSSL_PROVIDER_load(context, "envelope"))
        die("envelope.so cannot be loaded");
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(context, "ENVELOPE-AES-256-GCM", NULL);
    if (!cipher)
        die("the cipher cannot be fetched");
    return cipher;
}
