/*
 * Workload identity federation: a token of another identity provider (Kubernetes, another cloud, GitHub) for one of
 * Google's. The credentials file, of the type external_account, says where it is read or asked for; Google's security
 * token service exchanges it (RFC 8693); and if the file says so, a service account's token is made with what it gave.
 * The file is read anew each time.
 */
#include "gcp.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "json.h"
#include "local.h"
#include "web.h"

enum stage { STAGE_SUBJECT = 1, STAGE_EXCHANGE, STAGE_IMPERSONATE };
enum { SUBJECT_TIMEOUT_SECONDS = 2, LIFETIME_SECONDS = 3600, TOKEN_MAX = 16384 };

static const char source[] = "Google's security token service";
static const char kms_scope[] = "https://www.googleapis.com/auth/cloudkms";
static const char cloud_scope[] = "https://www.googleapis.com/auth/cloud-platform";

static enum backend_step fail(struct backend_call *call, envelope_status raised)
{
    return backend_fail(call, raised == ENVELOPE_E_NO_MEMORY ? CKR_HOST_MEMORY : CKR_USER_NOT_LOGGED_IN, raised);
}

/* What a file means that cannot be used; the file's name comes from gcp_auth.c. */
static envelope_status refuse(const char *what)
{
    return error_raise(ENVELOPE_E_HSM_LOGIN, "%s", what);
}

/* --- The token of the other provider --- */

/* A token, or JSON with the token in the member that the file names. */
static envelope_status take_subject(const struct gcp_work *work, struct buffer *body, struct buffer *token)
{
    const json_t *format = json_object_get(json_object_get(work->config, "credential_source"), "format");
    const char *type = format ? json_member(format, "type") : NULL;
    const char *field = format ? json_member(format, "subject_token_field_name") : NULL;
    if (type && strcmp(type, "json") == 0) {
        struct json_secret secret = {.name = field ? field : "", .to = token};
        if (!field || !json_take_secrets(body, &secret, 1) || !secret.found)
            return refuse("there is no token in the member that subject_token_field_name names");
    } else if (type && strcmp(type, "text") != 0) {
        return refuse("its credential_source has a format that is neither text nor json");
    } else {
        size_t length = body->length;
        while (length && strchr("\r\n", body->bytes[length - 1]))
            length--;
        buffer_append(token, body->bytes, length);
    }
    if (!buffer_ok(token))
        return ENVELOPE_E_NO_MEMORY;
    if (!token->length || token->length > TOKEN_MAX || strpbrk(buffer_text(token), "\r\n\t "))
        return refuse("what its credential_source gives is no token");
    return ENVELOPE_OK;
}

/* http:// to this machine and its own link only, as metadata services speak. */
static bool is_source_address(const struct gcp *gcp, const char *url)
{
    if (web_is_link_local(url))
        return !strpbrk(url, "#@ ");
    return gcp_check_address(gcp, "credential_source of the credentials file", url, true) == ENVELOPE_OK;
}

static envelope_status ask_subject(const struct gcp *gcp, const struct gcp_work *work, const char *url,
                                   struct http_request *request)
{
    json_t *headers = json_object_get(json_object_get(work->config, "credential_source"), "headers"), *value;
    const char *name;
    if (!is_source_address(gcp, url))
        return refuse("the url of its credential_source must be https://, or http:// to this machine");
    request->method = HTTP_GET;
    request->direct = strncmp(url, "http://", 7) == 0;
    request->timeout = request->direct ? SUBJECT_TIMEOUT_SECONDS * CLOCK_SECOND : 0;
    envelope_status status = http_request_url(request, "%s", url);
    json_object_foreach(headers, name, value)
    {
        bool taken_out = strcasecmp(name, "Authorization") == 0 && work->secret.length;
        const char *text = taken_out ? buffer_text(&work->secret) : json_string_value(value);
        if (!status)
            status = text && *name && !strpbrk(name, "\r\n: ")
                         ? http_request_header(request, name, text)
                         : refuse("the headers of its credential_source are no headers");
    }
    return status;
}

/* --- Exchange --- */

static const char *impersonated(const struct gcp_work *work)
{
    return json_member(work->config, "service_account_impersonation_url");
}

static envelope_status ask_exchange(const struct gcp *gcp, struct gcp_work *work, struct http_request *request)
{
    const char *url = json_member(work->config, "token_url"), *audience = json_member(work->config, "audience");
    const char *type = json_member(work->config, "subject_token_type");
    if (!url)
        url = "https://sts.googleapis.com/v1/token";
    if (!audience || !type)
        return refuse("it has no audience or no subject_token_type");
    http_request_clear(request);
    request->method = HTTP_POST;
    envelope_status status = gcp_check_address(gcp, "token_url of the credentials file", url, false);
    if (!status)
        status = http_request_url(request, "%s", url);
    if (!status)
        status = http_request_header(request, "Content-Type", "application/x-www-form-urlencoded");
    if (status)
        return status;
    struct buffer *form = &request->body;
    web_form_add(form, "grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
    web_form_add(form, "audience", audience);
    web_form_add(form, "scope", impersonated(work) ? cloud_scope : kms_scope);
    web_form_add(form, "requested_token_type", "urn:ietf:params:oauth:token-type:access_token");
    web_form_add(form, "subject_token_type", type);
    web_form_add(form, "subject_token", buffer_text(&work->secret));
    buffer_reset(&work->secret);
    return buffer_ok(form) ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

/* --- The service account's token --- */

static envelope_status ask_impersonated(const struct gcp *gcp, struct gcp_work *work, const struct http_reply *reply,
                                        struct http_request *request)
{
    struct buffer body = {0}, bearer = {0};
    struct json_secret secret = {.name = "access_token", .to = &work->secret};
    const json_t *options = json_object_get(work->config, "service_account_impersonation");
    json_int_t lifetime = json_integer_value(json_object_get(options, "token_lifetime_seconds"));
    char text[32];
    buffer_reset(&work->secret);
    buffer_append(&body, reply->body.bytes, reply->body.length);
    bool taken = json_take_secrets(&body, &secret, 1) && secret.found && work->secret.length;
    buffer_clear(&body);
    if (!taken)
        return error_raise(ENVELOPE_E_HSM_LOGIN, "%s gave a reply without an access token", source);
    if (lifetime <= 0 || lifetime > 43200)
        lifetime = LIFETIME_SECONDS;
    http_request_clear(request);
    request->method = HTTP_POST;
    envelope_status status =
        gcp_check_address(gcp, "service_account_impersonation_url of the credentials file", impersonated(work), false);
    if (!status)
        status = http_request_url(request, "%s", impersonated(work));
    if (!status)
        status = http_request_header(request, "Content-Type", "application/json");
    buffer_append_text(&bearer, "Bearer ");
    buffer_append_text(&bearer, buffer_text(&work->secret));
    if (!status)
        status = buffer_ok(&bearer) ? http_request_header(request, "Authorization", buffer_text(&bearer))
                                    : ENVELOPE_E_NO_MEMORY;
    buffer_clear(&bearer);
    buffer_reset(&work->secret);
    snprintf(text, sizeof text, "\"%llds\"}", (long long)lifetime);
    buffer_append_text(&request->body, "{\"scope\":[");
    buffer_append_json(&request->body, kms_scope);
    buffer_append_text(&request->body, "],\"lifetime\":");
    buffer_append_text(&request->body, text);
    return status ? status : buffer_ok(&request->body) ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

static enum backend_step take_impersonated(const struct gcp *gcp, struct backend_call *call,
                                           const struct http_reply *reply)
{
    struct buffer body = {0}, token = {0};
    struct json_secret secret = {.name = "accessToken", .to = &token};
    enum backend_step step = gcp_judge(gcp, call, reply, "generateAccessToken", "");
    if (step == BACKEND_RETRY)
        return step;
    if (step != BACKEND_DONE) /* in words about a key, which it is not about */
        return fail(call, error_raise(ENVELOPE_E_HSM_LOGIN,
                                      "[token %s]: generateAccessToken was refused (%s, HTTP %ld)%s%s; is there such a "
                                      "service account, and may the federated identity act as it "
                                      "(roles/iam.workloadIdentityUser)?",
                                      gcp->settings->label, *call->service_code ? call->service_code : "no error name",
                                      reply->status, *call->service_message ? ": " : "", call->service_message));
    buffer_append(&body, reply->body.bytes, reply->body.length);
    bool taken = json_take_secrets(&body, &secret, 1) && secret.found && token.length;
    json_t *root = json_read(&body);
    int64_t expires = root ? gcp_time_of(json_member(root, "expireTime")) : 0;
    json_decref(root);
    buffer_clear(&body);
    if (!taken || expires <= clock_wall() || strpbrk(buffer_text(&token), "\r\n\t ")) {
        buffer_clear(&token);
        return fail(call, error_raise(ENVELOPE_E_HSM_LOGIN,
                                      "[token %s]: generateAccessToken gave a reply without an access token",
                                      gcp->settings->label));
    }
    call->made = credentials_new("", "", buffer_text(&token), expires);
    buffer_clear(&token);
    if (!call->made)
        return fail(call, ENVELOPE_E_NO_MEMORY);
    credentials_set_source(call->made, source);
    return BACKEND_DONE;
}

/* --- The order of things --- */

static envelope_status read_config(struct gcp_work *work, struct buffer *text)
{
    struct json_secret header = {.name = "Authorization", .to = &work->secret};
    bool taken = json_take_secrets(text, &header, 1);
    work->config = taken ? json_read(text) : NULL;
    const char *type = work->config ? json_member(work->config, "type") : NULL;
    if (!work->config)
        return refuse("it is no JSON object");
    if (!type || strcmp(type, "external_account") != 0)
        return refuse("it is not of the type external_account");
    return ENVELOPE_OK;
}

envelope_status gcp_begin_federation(const struct gcp *gcp, struct backend_call *call, struct buffer *text,
                                     struct http_request *request)
{
    struct gcp_work *work = gcp_work(call);
    envelope_status status = work ? read_config(work, text) : ENVELOPE_E_NO_MEMORY;
    if (status)
        return status;
    const json_t *from = json_object_get(work->config, "credential_source");
    const char *file = from ? json_member(from, "file") : NULL, *url = from ? json_member(from, "url") : NULL;
    if (!from || json_object_get(from, "environment_id") || json_object_get(from, "executable") || !file == !url)
        return refuse("its credential_source must have a file or a url; aws and executable are not supported");
    if (url) {
        call->stage = STAGE_SUBJECT;
        return ask_subject(gcp, work, url, request);
    }
    struct buffer body = {0};
    buffer_reset(&work->secret);
    status = local_read(file, &body);
    if (!status)
        status = take_subject(work, &body, &work->secret);
    buffer_clear(&body);
    call->stage = STAGE_EXCHANGE;
    return status ? status : ask_exchange(gcp, work, request);
}

static enum backend_step on_subject(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                    struct http_request *request)
{
    struct gcp_work *work = call->work;
    struct buffer body = {0};
    enum backend_step step = web_judge_token(call, reply, "the credential_source of the credentials file");
    if (step != BACKEND_DONE)
        return step;
    buffer_reset(&work->secret);
    buffer_append(&body, reply->body.bytes, reply->body.length);
    envelope_status status = buffer_ok(&body) ? take_subject(work, &body, &work->secret) : ENVELOPE_E_NO_MEMORY;
    buffer_clear(&body);
    if (!status)
        status = ask_exchange(gcp, work, request);
    call->stage = STAGE_EXCHANGE;
    return status ? fail(call, status) : BACKEND_SEND;
}

static enum backend_step on_exchanged(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                      struct http_request *request)
{
    struct gcp_work *work = call->work;
    enum backend_step step = web_judge_token(call, reply, source);
    if (step != BACKEND_DONE)
        return step;
    if (!impersonated(work))
        return web_take_token(call, reply, source);
    call->stage = STAGE_IMPERSONATE;
    envelope_status status = ask_impersonated(gcp, work, reply, request);
    return status ? fail(call, status) : BACKEND_SEND;
}

enum backend_step gcp_step_federation(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                      struct http_request *request)
{
    switch (call->stage) {
    case STAGE_SUBJECT:
        return on_subject(gcp, call, reply, request);
    case STAGE_EXCHANGE:
        return on_exchanged(gcp, call, reply, request);
    default:
        return take_impersonated(gcp, call, reply);
    }
}
