/*
 * The provider as a program meets it: a SoftHSM token, a store with keys, an
 * envelope.cnf and an openssl.cnf, and a library context that has loaded the
 * provider through that openssl.cnf (as a built-in, so that sanitizers see it).
 *
 * One per process, made in the group setup. Helpers print why and fail the test.
 */
#ifndef PROVIDER_RIG_H
#define PROVIDER_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include "softhsm_rig.h"

enum { RIG_PATH_MAX = 320, DEK_SIZE = 32 };

#define CIPHER "ENVELOPE-AES-256-GCM"

struct provider_rig {
    struct softhsm_rig token;
    char config[RIG_PATH_MAX]; /* envelope.cnf */
    char store[RIG_PATH_MAX];  /* its URL */
    OSSL_LIB_CTX *context;     /* with "default" and "envelope" */
    EVP_CIPHER *cipher;        /* CIPHER of it */
};

/* For cmocka_run_group_tests: keys "default", "financial" and "identity" exist. */
int provider_rig_setup(void **state);
int provider_rig_teardown(void **state);

/* A library context that activates envelope (and default) with these lines in envelope's section. */
OSSL_LIB_CTX *provider_rig_context(const struct provider_rig *rig, const char *section);
/* "config = …" for it. */
const char *provider_rig_section(const struct provider_rig *rig);

/* Make the key's next version. */
void provider_rig_rotate(const struct provider_rig *rig, const char *key);
/* The DEK of an id, unwrapped with PKCS#11 calls of our own from what the store holds: no code of src/hsm, src/keyring.
 */
void provider_rig_unwrap_by_hand(const struct provider_rig *rig, uint32_t dek_id, uint8_t dek[DEK_SIZE]);
/* The 8 bytes of the store's id. */
void provider_rig_store_id(const struct provider_rig *rig, uint8_t id[8]);

/* snprintf that fails the test where the text does not fit. Returns the length. */
size_t rig_text(char *to, size_t capacity, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
