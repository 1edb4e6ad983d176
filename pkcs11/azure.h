/*
 * Azure Key Vault and Azure Managed HSM as backends: what their parts share. docs/bridge-clouds.md says what they do.
 *
 * azure.c        settings checked, calls handed out
 * azure_auth.c   access tokens from Entra ID: client secret, certificate, workload identity
 * azure_identity.c   and from the machine: managed identity
 * azure_keys.c   list, describe, create, delete
 * azure_crypt.c  encrypt, decrypt, move between keys, random
 * azure_reply.c  requests, and what refusals mean
 */
#ifndef PKCS11_AZURE_H
#define PKCS11_AZURE_H

#include <jansson.h>

#include "backend.h"
#include "names.h"

enum azure_auth { AZURE_AUTH_CLIENT_SECRET, AZURE_AUTH_CERTIFICATE, AZURE_AUTH_WORKLOAD, AZURE_AUTH_MANAGED };
/* Who speaks for a managed identity. */
enum azure_identity { AZURE_IDENTITY_INSTANCE, AZURE_IDENTITY_APP_SERVICE, AZURE_IDENTITY_ARC };

enum { AZURE_NAME_MAX = 127, AZURE_VERSION_MAX = 64 };

/* The read-only state; texts are owned. */
struct azure {
    const struct token_settings *settings;
    bool managed_hsm;
    size_t plaintext_max, blob_max; /* of the backend, which replies must keep to */
    char *base;                     /* https://myvault.vault.azure.net */
    char *resource;                 /* https://vault.azure.net: what an access token must be for */
    enum azure_auth auth;
    char *authority, *tenant, *client_id; /* client_id may be NULL with a managed identity */
    enum azure_identity identity;
    char *imds_endpoint;
    char *identity_endpoint; /* App Service's or Arc's, NULL where there is none */
    const char *proof_dir;   /* of Arc's agent, with a slash at its end */
};

/* A key's id: NAME/VERSION. An id without a version means the newest one. */
struct azure_id {
    char name[AZURE_NAME_MAX + 1];
    char version[AZURE_VERSION_MAX + 1]; /* "" if not given */
};

/* What a call remembers between its steps (call->work). */
struct azure_work {
    struct names names;   /* LIST: the keys to describe */
    char *next;           /* LIST: the next page, a path of ours */
    struct buffer secret; /* REWRAP: plaintext on its way */
    bool rsa;             /* the kind of the key in hand */
    char version[AZURE_VERSION_MAX + 1];
};
/* Made at first use; NULL with rv and the error set. */
struct azure_work *azure_work(struct backend_call *call);

/* --- azure_reply.c --- */
bool azure_parse_id(const char *key, struct azure_id *id);
/* The id in a reply's kid, https://…/keys/NAME/VERSION. */
bool azure_parse_kid(const char *kid, struct azure_id *id);
/* The same, for the id a caller gave; false with rv and the error set. */
bool azure_take_id(const struct azure *azure, struct backend_call *call, const char *key, struct azure_id *id);
/* {base}/keys/NAME[/VERSION][/verb]; false with rv and the error set. */
bool azure_request(const struct azure *azure, struct backend_call *call, struct http_request *request,
                   enum http_method method, const struct azure_id *id, const char *verb);
/* DONE for a 2xx, else RETRY, REAUTH or FAILED with rv and the error set; doing: "wrapkey". */
enum backend_step azure_judge(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                              const char *doing, const char *key);
enum backend_step azure_bad_reply(const struct azure *azure, struct backend_call *call, const char *doing,
                                  const char *problem);

/* --- azure_identity.c --- */
/* By the environment. */
envelope_status azure_choose_identity(struct azure *azure);
enum backend_step azure_step_identity(const struct azure *azure, struct backend_call *call,
                                      const struct http_reply *reply, struct http_request *request);

/* --- the steps --- */
enum backend_step azure_step_auth(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                  struct http_request *request);
enum backend_step azure_step_keys(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                  struct http_request *request);
enum backend_step azure_step_admin(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                   struct http_request *request);
enum backend_step azure_step_crypt(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                   struct http_request *request);

/* A key bundle's key; *usable: of a kind and purpose for us. */
enum backend_step azure_read_bundle(const struct azure *azure, struct backend_call *call,
                                    const struct http_reply *reply, struct backend_key *key, bool *usable);

#endif
