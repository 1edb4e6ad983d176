/*
 * kms.cnf: one section [token NAME] for each token. What each key means is in
 * docs/bridge.md. Keys of one backend are refused in a section of another.
 */
#ifndef PKCS11_SETTINGS_H
#define PKCS11_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

enum { SETTINGS_LABEL_MAX = 32, SETTINGS_TOKENS_MAX = 64 };

struct token_settings {
    char *label; /* NAME */
    char *backend;

    /* Every backend */
    int64_t deadline; /* for one PKCS#11 call, retries and credentials included; default 10 s */
    int64_t timeout;  /* for one attempt; default 3 s */
    int64_t refresh;  /* a key's description is asked for again after this; default 1 min */
    char *keys;       /* show these only: "alias/a, alias/b"; NULL: all */
    bool create;      /* C_GenerateKey, C_GenerateKeyPair */
    bool destroy;     /* C_DestroyObject */
    bool rotate;      /* rotate_key, set_min_versions of the vendor interface */
    char *ca_file, *client_cert, *client_key, *proxy;

    /* aws-kms */
    char *region;
    char *endpoint, *sts_endpoint, *imds_endpoint;
    bool fips;
    char *profile;
    int credentials; /* enum aws_source */
    char *grant_tokens;
    unsigned pending_days; /* ScheduleKeyDeletion, 7…30 */

    /* openbao */
    char *address;
    char *mount;
    char *name_space;
    char *auth;
    char *auth_mount;
    char *token_file;
    char *role;
    char *role_id_file, *secret_id_file, *jwt_file;

    /* azure-key-vault, azure-managed-hsm: address, auth, imds_endpoint, jwt_file, credentials_file too */
    char *tenant, *client_id, *client_secret_file, *authority;

    /* gcp-kms: endpoint, imds_endpoint, auth too */
    char *key_ring, *credentials_file;
};

struct kms_settings {
    char *path;
    struct token_settings *tokens[SETTINGS_TOKENS_MAX];
    size_t count;
};

/* ENVELOPE_KMS_CONFIG (secure_getenv), else /etc/envelope/kms.cnf. Refuses a file others could have written. */
envelope_status kms_settings_load(struct kms_settings *settings);
void kms_settings_clear(struct kms_settings *settings);

#endif
