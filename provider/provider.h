/*
 * envelope.so: what one loaded instance of the provider holds. OpenSSL calls
 * this "provctx"; every operation gets it back.
 */
#ifndef PROVIDER_PROVIDER_H
#define PROVIDER_PROVIDER_H

#include <openssl/core.h>
#include <openssl/core_dispatch.h>

#include <envelope/status.h>

#include "keyring/keyring.h"

/* Ciphers whose name stands for one key; the limit is that of the newctx functions in algorithms.c. */
enum { PROVIDER_NAMES_MAX = 32 };

/* Provider parameter: how many raw keys a cipher with key references warned of or denied. */
#define PROVIDER_PARAM_RAW_KEYS "envelope-raw-keys"

struct provider_core {
    const OSSL_CORE_HANDLE *handle;
    OSSL_FUNC_core_get_params_fn *get_params;
    OSSL_FUNC_core_new_error_fn *new_error;
    OSSL_FUNC_core_set_error_debug_fn *set_error_debug;
    OSSL_FUNC_core_vset_error_fn *vset_error;
};

struct provider {
    struct provider_core core;

    keyring *ring;           /* shared by all instances of one configuration file; NULL: failure says why */
    envelope_status failure; /* a configuration that did not parse is reported when the provider is used */
    char *failure_text;

    char *names[PROVIDER_NAMES_MAX]; /* key-names of openssl.cnf */
    size_t name_count;
    const OSSL_ALGORITHM *ciphers;
    struct provider_algorithms *algorithms; /* owns the ciphers that have names of their own; NULL: none */
    struct provider_references *references; /* standard ciphers that take key references; NULL: none */
    OSSL_ALGORITHM *all_ciphers;            /* those and the others in one table */
};

/* The entry point under a name of its own, for OSSL_PROVIDER_add_builtin. */
OSSL_provider_init_fn envelope_provider_init;

/* ENVELOPE_OK, or the configuration's error raised anew on this thread. */
envelope_status provider_check(const struct provider *provider);

/* ---- configuration.c ---- */

/* Read our section of openssl.cnf and the file it names. Failures are remembered, not returned, but for memory. */
envelope_status provider_configure(struct provider *provider);
void provider_configuration_clear(struct provider *provider);

/* ---- rings.c ---- */

/* The process's keyring for a configuration file, made on first demand. Give each back once. */
envelope_status provider_ring_take(const char *path, keyring **ring);
/* The last one to give it back wipes its DEKs. It is never freed: teardown may run late at exit, in any order. */
void provider_ring_give_back(keyring *ring);

/* ---- algorithms.c ---- */

envelope_status provider_algorithms_make(struct provider *provider);
void provider_algorithms_clear(struct provider *provider);

/* ---- reference_table.c ---- */

/* Add the standard ciphers that take key references, as key-references and raw-keys say (each NULL if not there). */
envelope_status provider_references_make(struct provider *provider, const char *list, const char *raw_keys);
void provider_references_clear(struct provider *provider);
/* The key managers that go with those ciphers (OpenSSL 3.5); NULL if there are none. */
const OSSL_ALGORITHM *provider_references_managers(const struct provider *provider);
/* Raw keys that were warned of or denied. */
uint64_t provider_references_raw_keys(const struct provider *provider);

/* ---- errors.c ---- */

/* 1 for ENVELOPE_OK; else an entry for the thread's error_text() in OpenSSL's queue, and 0. */
#define PROVIDER_RESULT(provider, status)                                                                              \
    provider_result((provider), (status), OPENSSL_FILE, OPENSSL_LINE, OPENSSL_FUNC)
int provider_result(const struct provider *provider, envelope_status status, const char *file, int line,
                    const char *function);
/* For a NULL context, where no provider is known. Returns 0. */
int provider_null_context(void);
const OSSL_ITEM *provider_reasons(void);

#endif
