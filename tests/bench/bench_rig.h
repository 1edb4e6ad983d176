/* Two set-ups to measure on, in a scratch directory: a store with one key, and one with many. */
#ifndef BENCH_RIG_H
#define BENCH_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <openssl/evp.h>

#include "softhsm_rig.h"

enum { BENCH_PATH_MAX = 320, BENCH_NAME_MAX = 32 };

struct bench_rig {
    struct softhsm_rig token;
    char few[BENCH_PATH_MAX];  /* envelope.cnf of a store with the key "default" */
    char many[BENCH_PATH_MAX]; /* … with keys besides, "key-0" … */
    size_t keys;
};

/* In a child process, so that the measuring one has loaded nothing but what a program would. false: it said why. */
bool bench_rig_make(struct bench_rig *rig, size_t keys);
void bench_rig_remove(struct bench_rig *rig);
const char *bench_key_name(size_t index, char name[BENCH_NAME_MAX]);

/* envelope.so from modules, loaded as a program loads it, in a library context of its own. Exits when it cannot. */
EVP_CIPHER *bench_cipher(const char *modules, const char *config);

#endif
