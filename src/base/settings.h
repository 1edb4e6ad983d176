/* envelope.cnf as a struct. What each key means: docs/man/envelope.cnf.5. */
#ifndef BASE_SETTINGS_H
#define BASE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include <envelope/status.h>

enum settings_wrap { SETTINGS_WRAP_AUTO, SETTINGS_WRAP_AES_GCM, SETTINGS_WRAP_AES_KWP, SETTINGS_WRAP_RSA_OAEP };
enum settings_iv { SETTINGS_IV_AUTO, SETTINGS_IV_CALLER, SETTINGS_IV_TOKEN, SETTINGS_IV_PREPENDED };
enum settings_random { SETTINGS_RANDOM_TOKEN, SETTINGS_RANDOM_LOCAL };
enum settings_crypto { SETTINGS_CRYPTO_DEFAULT, SETTINGS_CRYPTO_FIPS };

struct settings {
    char *path; /* the file this came from */

    /* [envelope] */
    char *store;       /* "sqlite:/path" */
    char *default_key; /* "default" */
    char *kek;         /* PKCS#11 URI (RFC 7512) of the KEK for new keys */
    int crypto;        /* enum settings_crypto: provider inside the private library context */
    bool preload;      /* unwrap every active and deactivated version at first use */
    int64_t refresh;   /* at most this long until a change in the store is seen; default 1 s */
    int64_t deadline;  /* for one operation, waiting included; default 10 s */

    /* [hsm] */
    char *module;   /* PKCS#11 module for URIs without module-path */
    char *pin_file; /* at most one of the three */
    char *pin_env;
    char *pin_command;
    unsigned sessions;          /* worker sessions per token, 1…1024; default 1 */
    int wrap;                   /* enum settings_wrap */
    int iv;                     /* enum settings_iv: who makes the IV of AES-GCM wraps */
    int random;                 /* enum settings_random: what a new DEK is made from */
    bool allow_extractable_kek; /* default no: a KEK that could leave the token is refused */

    /* [cache] */
    int64_t ttl;   /* an unwrapped DEK is dropped and unwrapped again after this; default 1 h */
    int64_t grace; /* an unreachable token is survived this much longer; default 10 min */

    /* [limits] */
    uint64_t messages; /* per version of keys created from now on; 1…2^32, default 2^32 (SP 800-38D, 8.3) */
};

/* Defaults only; no allocation fails silently. */
envelope_status settings_load(const char *path, struct settings *settings);
void settings_clear(struct settings *settings);

/* ENVELOPE_CONFIG (secure_getenv), else configured (may be NULL), else /etc/envelope/envelope.cnf. Static or caller's
 * storage. */
const char *settings_path(const char *configured);

#endif
