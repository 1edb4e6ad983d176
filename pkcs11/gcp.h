/*
 * Google Cloud KMS as a backend: what its parts share. docs/bridge-clouds.md says what it does.
 *
 * gcp.c        settings checked, calls handed out
 * gcp_auth.c   service account key, metadata server
 * gcp_federation.c   workload identity federation
 * gcp_keys.c   list, describe, create
 * gcp_rsa.c    public keys; encrypt and decrypt with RSA
 * gcp_crypt.c  encrypt, decrypt, move between keys, random
 * gcp_reply.c  requests, checksums, and what refusals mean
 */
#ifndef PKCS11_GCP_H
#define PKCS11_GCP_H

#include <jansson.h>
#include <openssl/evp.h>

#include "backend.h"
#include "names.h"

enum gcp_auth { GCP_AUTH_SERVICE_ACCOUNT, GCP_AUTH_WORKLOAD, GCP_AUTH_METADATA };

enum { GCP_NAME_MAX = 63, GCP_VERSION_MAX = 19 };
enum { GCP_PLAINTEXT_MAX = 4096, GCP_CIPHERTEXT_MAX = 8192, GCP_RANDOM_MIN = 8, GCP_RANDOM_MAX = 1024 };

/* The read-only state; texts are owned. */
struct gcp {
    const struct token_settings *settings;
    char *endpoint; /* https://cloudkms.googleapis.com */
    char *ring;     /* projects/P/locations/L/keyRings/R */
    char *location; /* projects/P/locations/L */
    enum gcp_auth auth;
    char *metadata; /* http://metadata.google.internal */
};

/* A key of the ring, and a version of it where one is named. */
struct gcp_id {
    char name[GCP_NAME_MAX + 1];
    char version[GCP_VERSION_MAX + 1]; /* "" if not given */
};

/* A version of an RSA key. */
struct gcp_version {
    uint64_t number; /* 0: none */
    bool enabled, imported;
    char state[32];
    unsigned bits;
    int64_t created;
};

struct gcp_public {
    EVP_PKEY *key;
    unsigned bits;
    bool sha1; /* else SHA-256 */
};

/* What a call remembers between its steps (call->work). */
struct gcp_work {
    char *page;              /* LIST */
    json_t *config;          /* AUTHENTICATE: the credentials file */
    struct names names;      /* LIST: of the setting keys */
    struct gcp_version best; /* of the RSA key in hand: the newest that is enabled, else the newest that is disabled */
    bool pending;            /* one is still being made */
    struct buffer secret;    /* REWRAP: plaintext on its way; AUTHENTICATE: a token on its way */
};
/* Made at first use; NULL with rv and the error set. */
struct gcp_work *gcp_work(struct backend_call *call);

/* --- gcp_reply.c --- */
/* A key's name within its ring: 1 to 63 letters, digits, - and _. */
bool gcp_is_key_name(const char *name, size_t length);
/* The name in an id of this ring, projects/…/cryptoKeys/NAME, or in a bare name; NULL if it is neither. */
const char *gcp_name_of(const struct gcp *gcp, const char *key);
/* The same; NULL with rv and the error set. */
const char *gcp_take_name(const struct gcp *gcp, struct backend_call *call, const char *key);

/* The same, a version with it. */
bool gcp_parse_id(const struct gcp *gcp, const char *key, struct gcp_id *id);

uint32_t gcp_crc32c(const uint8_t *bytes, size_t count);
/* Is a member of an int64's JSON form (a text of digits, or a number) this sum? */
bool gcp_crc_matches(const json_t *root, const char *name, uint32_t sum);

enum backend_step gcp_judge(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                            const char *doing, const char *key);
enum backend_step gcp_bad_reply(const struct gcp *gcp, struct backend_call *call, const char *doing,
                                const char *problem);

/* "2014-10-02T15:01:23.045123456Z", wall clock; 0 if it is no such time. */
int64_t gcp_time_of(const char *text);

/* --- gcp_crypt.c --- */
/* The reply's bytes, checked by their sum; root is left to the caller, NULL unless DONE. */
enum backend_step gcp_take_bytes(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                 const char *doing, const char *name, const char *sum_name, struct buffer *to,
                                 json_t **root);
/* Bytes changed on the way: RETRY, as the service's documentation says. */
enum backend_step gcp_changed(const struct gcp *gcp, struct backend_call *call, const char *doing);

/* --- gcp_rsa.c --- */
/* RSA_DECRYPT_OAEP_…; false for those that PKCS#11 programs cannot use here. */
bool gcp_parse_algorithm(const char *name, unsigned *bits, bool *sha1);
bool gcp_ask_public_key(const struct gcp *gcp, struct backend_call *call, const struct gcp_id *id,
                        struct http_request *request);
/* public->key is the caller's to free, NULL unless DONE. */
enum backend_step gcp_read_public_key(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                      const struct gcp_id *id, struct gcp_public *public);
enum backend_step gcp_step_rsa(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                               struct http_request *request);

/* --- gcp_auth.c --- */
/* An address with a path, of a credentials file: https://, or http:// to this machine. what names the member. */
envelope_status gcp_check_address(const struct gcp *gcp, const char *what, const char *url, bool with_query);

/* --- gcp_federation.c --- */
/* text: the credentials file. The errors do not name it. */
envelope_status gcp_begin_federation(const struct gcp *gcp, struct backend_call *call, struct buffer *text,
                                     struct http_request *request);
enum backend_step gcp_step_federation(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                      struct http_request *request);

/* --- the steps --- */
enum backend_step gcp_step_auth(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                struct http_request *request);
enum backend_step gcp_step_keys(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                struct http_request *request);
enum backend_step gcp_step_crypt(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                 struct http_request *request);

#endif
