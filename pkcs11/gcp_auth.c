/*
 * Access tokens: from a service account's key file (RFC 7523: a signed assertion for a token), or from the metadata
 * server of the machine.
 */
#include "gcp.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "json.h"
#include "jwt.h"
#include "local.h"
#include "web.h"

enum { METADATA_TIMEOUT_SECONDS = 2, ASSERTION_SECONDS = 3600 };

static const char scope[] = "https://www.googleapis.com/auth/cloudkms";
static const char *const sources[] = {
    [GCP_AUTH_SERVICE_ACCOUNT] = "the service account's token endpoint", [GCP_AUTH_METADATA] = "the metadata server"};

static enum backend_step fail(struct backend_call *call, envelope_status raised)
{
    return backend_fail(call, raised == ENVELOPE_E_NO_MEMORY ? CKR_HOST_MEMORY : CKR_USER_NOT_LOGGED_IN, raised);
}

/* --- Service account --- */

static void write_header(struct buffer *header, const char *key_id)
{
    buffer_append_text(header, "{\"alg\":\"RS256\",\"typ\":\"JWT\"");
    if (key_id) {
        buffer_append_text(header, ",\"kid\":");
        buffer_append_json(header, key_id);
    }
    buffer_append_text(header, "}");
}

static void write_claims(struct buffer *claims, const char *email, const char *audience)
{
    char times[80];
    int64_t now = clock_wall() / CLOCK_SECOND;
    buffer_append_text(claims, "{\"iss\":");
    buffer_append_json(claims, email);
    buffer_append_text(claims, ",\"scope\":");
    buffer_append_json(claims, scope);
    buffer_append_text(claims, ",\"aud\":");
    buffer_append_json(claims, audience);
    snprintf(times, sizeof times, ",\"iat\":%" PRId64 ",\"exp\":%" PRId64 "}", now, now + ASSERTION_SECONDS);
    buffer_append_text(claims, times);
}

envelope_status gcp_check_address(const struct gcp *gcp, const char *what, const char *url, bool with_query)
{
    char host[256];
    const char *from = strstr(url, "://");
    size_t length = from ? (size_t)(from - url) + 3 : 0;
    length += strcspn(url + length, "/");
    if (length >= sizeof host || strpbrk(url, with_query ? "#" : "?#"))
        return error_raise(ENVELOPE_E_HSM_LOGIN, "the %s is no such address", what);
    memcpy(host, url, length);
    host[length] = '\0';
    return web_check_endpoint(gcp->settings, what, host);
}

static envelope_status make_assertion(const struct gcp *gcp, const json_t *file, const struct buffer *pem,
                                      struct buffer *assertion, struct http_request *request)
{
    const char *type = json_member(file, "type"), *email = json_member(file, "client_email");
    const char *uri = json_member(file, "token_uri");
    if (!type || strcmp(type, "service_account") != 0)
        return error_raise(ENVELOPE_E_HSM_LOGIN,
                           "it is not of the type service_account; for external_account set auth = workload-identity");
    if (!email || !pem->length)
        return error_raise(ENVELOPE_E_HSM_LOGIN, "it has no client_email or no private_key");
    if (!uri)
        uri = "https://oauth2.googleapis.com/token";
    envelope_status status = gcp_check_address(gcp, "token_uri of the credentials file", uri, false);
    if (!status)
        status = http_request_url(request, "%s", uri);
    if (status)
        return status;
    struct buffer header = {0}, claims = {0};
    EVP_PKEY *key = jwt_read_key(pem);
    write_header(&header, json_member(file, "private_key_id"));
    write_claims(&claims, email, uri);
    status = key ? jwt_sign(&header, &claims, JWT_RS256, key, assertion) : ENVELOPE_E_HSM_LOGIN;
    EVP_PKEY_free(key);
    buffer_clear(&header);
    buffer_clear(&claims);
    return status;
}

static envelope_status ask_account(const struct gcp *gcp, struct buffer *text, struct http_request *request)
{
    struct buffer pem = {0}, assertion = {0};
    struct json_secret secret = {.name = "private_key", .to = &pem, .lines = true};
    json_t *file = json_take_secrets(text, &secret, 1) ? json_read(text) : NULL;
    envelope_status status = file ? make_assertion(gcp, file, &pem, &assertion, request)
                                  : error_raise(ENVELOPE_E_HSM_LOGIN, "it is no JSON object");
    if (!status) {
        request->method = HTTP_POST;
        web_form_add(&request->body, "grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
        web_form_add(&request->body, "assertion", buffer_text(&assertion));
        status = http_request_header(request, "Content-Type", "application/x-www-form-urlencoded");
    }
    json_decref(file);
    buffer_clear(&pem);
    buffer_clear(&assertion);
    return status || buffer_ok(&request->body) ? status : ENVELOPE_E_NO_MEMORY;
}

/* A service account's key or what federation needs. Read anew each time: keys are rotated. */
static envelope_status ask_by_file(const struct gcp *gcp, struct backend_call *call, struct http_request *request)
{
    const char *path =
        gcp->settings->credentials_file ? gcp->settings->credentials_file : local_env("GOOGLE_APPLICATION_CREDENTIALS");
    if (!path)
        return error_raise(ENVELOPE_E_HSM_LOGIN,
                           "[token %s]: no credentials: set credentials-file or GOOGLE_APPLICATION_CREDENTIALS",
                           gcp->settings->label);
    struct buffer text = {0};
    envelope_status status = local_read(path, &text);
    if (!status)
        status = gcp->auth == GCP_AUTH_WORKLOAD ? gcp_begin_federation(gcp, call, &text, request)
                                                : ask_account(gcp, &text, request);
    buffer_clear(&text);
    if (!status || status == ENVELOPE_E_NO_MEMORY)
        return status;
    return error_context(error_raise(ENVELOPE_E_HSM_LOGIN, "%s", error_text()),
                         "the credentials file \"%s\" cannot be used", path);
}

/* --- Metadata server --- */

static envelope_status ask_metadata(const struct gcp *gcp, struct http_request *request)
{
    request->method = HTTP_GET;
    request->direct = true;
    request->optional = true;
    request->timeout = METADATA_TIMEOUT_SECONDS * CLOCK_SECOND;
    envelope_status status =
        http_request_url(request, "%s/computeMetadata/v1/instance/service-accounts/default/token", gcp->metadata);
    return status ? status : http_request_header(request, "Metadata-Flavor", "Google");
}

enum backend_step gcp_step_auth(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                struct http_request *request)
{
    char flavor[16];
    bool metadata = gcp->auth == GCP_AUTH_METADATA;
    if (!reply) {
        if (call->pin && *call->pin)
            return fail(call, error_raise(ENVELOPE_E_HSM_LOGIN, "[token %s]: auth = %s takes no PIN",
                                          gcp->settings->label, gcp->settings->auth));
        envelope_status status = metadata ? ask_metadata(gcp, request) : ask_by_file(gcp, call, request);
        return status ? fail(call, status) : BACKEND_SEND;
    }
    if (gcp->auth == GCP_AUTH_WORKLOAD)
        return gcp_step_federation(gcp, call, reply, request);
    if (reply->transport != HTTP_OK)
        return fail(call, error_raise(ENVELOPE_E_HSM_LOGIN,
                                      "[token %s]: the metadata server is not reachable; is this a machine of Google "
                                      "Cloud?",
                                      gcp->settings->label));
    enum backend_step step = web_judge_token(call, reply, sources[gcp->auth]);
    if (step != BACKEND_DONE)
        return step;
    /* Its answers say so; anything else at that address is something else. */
    if (metadata &&
        (!http_reply_header(reply, "Metadata-Flavor", flavor, sizeof flavor) || strcmp(flavor, "Google") != 0))
        return fail(call, error_raise(ENVELOPE_E_HSM_LOGIN, "[token %s]: what answers is not the metadata server",
                                      gcp->settings->label));
    return web_take_token(call, reply, sources[gcp->auth]);
}
