/*
 * Google Cloud KMS as a backend: what its parts share. docs/bridge-clouds.md says what it does.
 *
 * gcp.c        settings checked, calls handed out
 * gcp_auth.c   service account key, metadata server
 * gcp_federation.c   workload identity federation
 * gcp_keys.c   list, describe, create
 * gcp_crypt.c  encrypt, decrypt, move between keys, random
 * gcp_reply.c  requests, checksums, and what refusals mean
 */
#ifndef PKCS11_GCP_H
#define PKCS11_GCP_H

#include <jansson.h>

#include "backend.h"
#include "names.h"

enum gcp_auth { GCP_AUTH_SERVICE_ACCOUNT, GCP_AUTH_WORKLOAD, GCP_AUTH_METADATA };

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

/* What a call remembers between its steps (call->work). */
struct gcp_work {
    char *page;           /* LIST */
    json_t *config;       /* AUTHENTICATE: the credentials file */
    struct names names;   /* LIST: of the setting keys */
    struct buffer secret; /* REWRAP: plaintext on its way; AUTHENTICATE: a token on its way */
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

uint32_t gcp_crc32c(const uint8_t *bytes, size_t count);
/* Is a member of an int64's JSON form (a text of digits, or a number) this sum? */
bool gcp_crc_matches(const json_t *root, const char *name, uint32_t sum);

enum backend_step gcp_judge(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                            const char *doing, const char *key);
enum backend_step gcp_bad_reply(const struct gcp *gcp, struct backend_call *call, const char *doing,
                                const char *problem);

/* "2014-10-02T15:01:23.045123456Z", wall clock; 0 if it is no such time. */
int64_t gcp_time_of(const char *text);

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
