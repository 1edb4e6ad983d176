/* The AWS KMS backend's own parts: docs/bridge.md says what it does, backend.h what shape it has. */
#ifndef PKCS11_AWS_H
#define PKCS11_AWS_H

#include <stdbool.h>
#include <stddef.h>
#include <jansson.h>

#include "backend.h"

/* `credentials = …`: where to look. */
enum aws_source {
    AWS_SOURCE_AUTO,
    AWS_SOURCE_ENVIRONMENT,
    AWS_SOURCE_PROFILE,
    AWS_SOURCE_WEB_IDENTITY,
    AWS_SOURCE_CONTAINER,
    AWS_SOURCE_INSTANCE
};
extern const char *const aws_source_names[]; /* in the order of the enum, NULL-terminated */

/* Read-only once opened. */
struct aws {
    const struct token_settings *settings;
    char *region;
    char *endpoint;     /* https://kms.REGION.amazonaws.com, no trailing slash */
    char *sts_endpoint; /* https://sts.REGION.amazonaws.com */
    char *imds_endpoint;
    char *ca_file; /* AWS_CA_BUNDLE or the profile's; NULL: none named */
};

/* --- aws_endpoint.c --- */
envelope_status aws_open(const struct token_settings *settings, void **state);
void aws_close(void *state);
/* "true", in any case, as the SDKs read it. */
bool aws_env_true(const char *variable);

/* --- aws_request.c: one KMS action, signed; its body is begun with "{", for web_body_… --- */
enum backend_step aws_request_open(const struct aws *aws, struct backend_call *call, const char *action,
                                   struct http_request *request);
/* "name":{"envelope-aad":"<SHA-256 of aad in hex>"}; false with the error raised if libcrypto fails. */
bool aws_add_context(struct http_request *request, const char *name, const uint8_t *aad, size_t length);
/* ,"GrantTokens":["a","b"] from the setting "a, b"; nothing without one. A member must stand before. */
void aws_add_grants(const struct aws *aws, struct http_request *request);
/* The id a key of ours has in this region: a multi-region key's ARN is moved here. NULL with rv and error set. */
char *aws_local_id(const struct aws *aws, struct backend_call *call, const char *key);
/* Is name the ARN of the multi-region key id in another region? */
bool aws_is_also(const char *id, const char *name, size_t length);

/* --- aws_error.c --- */
/*
 * Judge a reply: BACKEND_DONE for success (body is there to be read), else RETRY, REAUTH or FAILED with rv and error
 * set. A DryRunOperation counts as success.
 */
enum backend_step aws_judge(struct backend_call *call, const char *action, const struct http_reply *reply);
enum backend_step aws_bad_reply(struct backend_call *call, const char *action, const char *problem);
/* <name>text</name>, entities resolved, appended to `to`; false if there is none. */
bool aws_xml_text(const struct buffer *body, const char *name, struct buffer *to);

/* --- the steps --- */
/* Every data key that C_Encrypt could wrap, with its associated data, as long as KMS makes them. */
bool aws_makes_data_key(const struct backend_call *call);
enum backend_step aws_step_crypt(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                 struct http_request *request);
enum backend_step aws_step_keys(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                struct http_request *request);
enum backend_step aws_step_admin(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                 struct http_request *request);
enum backend_step aws_step_rotate(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                  struct http_request *request);
enum backend_step aws_step_auth(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                struct http_request *request);

/* Fill a key from a DescribeKey or CreateKey reply's KeyMetadata. BACKEND_DONE, or FAILED. */
enum backend_step aws_read_metadata(struct backend_call *call, const char *action, const struct http_reply *reply,
                                    const char *label, struct backend_key *key, bool *usable);

/* Fill in public_key from a GetPublicKey reply. */
enum backend_step aws_read_public_key(struct backend_call *call, const struct http_reply *reply,
                                      struct backend_key *key);

/* --- aws_profile.c: ~/.aws/config and ~/.aws/credentials --- */
struct aws_profile {
    struct buffer id, secret, token;
    char *role_arn, *source_profile, *credential_source, *external_id, *session_name;
    char *web_identity_file, *region, *endpoint_url, *ca_bundle;
    char *fips, *dualstack; /* "true" or anything else */
    char *mfa;              /* mfa_serial: wanted with a role, and not to be had here */
    char *unsupported;      /* the name of a key we cannot serve (credential_process, sso_session, …) */
    bool found;
};
/* name NULL: AWS_PROFILE, else "default". Missing files are no error; unreadable or malformed ones are. */
envelope_status aws_profile_read(const char *name, struct aws_profile *profile);
void aws_profile_clear(struct aws_profile *profile);

#endif
