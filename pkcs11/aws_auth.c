/* Getting credentials: the plan's first source, then its roles by STS. */
#include "aws.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "aws_plan.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "json.h"
#include "local.h"
#include "web.h"

enum stage { STAGE_WEB_IDENTITY = 1, STAGE_CONTAINER, STAGE_IMDS_TOKEN, STAGE_IMDS_ROLE, STAGE_IMDS_KEYS, STAGE_ROLE };

enum { IMDS_TIMEOUT_SECONDS = 1, ROLE_NAME_MAX = 128, STALE_SECONDS = 600 };

struct auth {
    struct aws_plan plan;
    struct credentials *held; /* the last ones got: what the next role is assumed with */
    struct buffer imds_token;
    char imds_role[ROLE_NAME_MAX + 1];
};

static void auth_free(void *work)
{
    struct auth *auth = work;
    aws_plan_clear(&auth->plan);
    credentials_unref(auth->held);
    buffer_clear(&auth->imds_token);
    free(auth);
}

static enum backend_step fail(struct backend_call *call, envelope_status raised)
{
    return backend_fail(call, raised == ENVELOPE_E_NO_MEMORY ? CKR_HOST_MEMORY : CKR_USER_NOT_LOGGED_IN, raised);
}

static enum backend_step bad_reply(struct backend_call *call, const char *who)
{
    return backend_fail(call, CKR_USER_NOT_LOGGED_IN,
                        error_raise(ENVELOPE_E_HSM_LOGIN, "%s gave a reply without credentials", who));
}

/* "2026-11-22T23:04:05Z", perhaps with a fraction, or +01:00 in the place of Z; 0 if it is no such time. */
static int64_t time_of(const char *text)
{
    struct tm tm = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest)
        return 0;
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    int64_t east = 0;
    unsigned hours, minutes;
    if (*rest == '+' || *rest == '-') {
        if (sscanf(rest + 1, "%2u:%2u", &hours, &minutes) != 2)
            return 0;
        east = (int64_t)(hours * 60 + minutes) * 60 * (*rest == '-' ? -1 : 1);
    } else if (strcmp(rest, "Z") != 0) {
        return 0;
    }
    return ((int64_t)timegm(&tm) - east) * CLOCK_SECOND;
}

/* --- STS --- */

static enum backend_step ask_sts(const struct aws *aws, struct backend_call *call, const char *action,
                                 const struct aws_role *role, struct http_request *request)
{
    http_request_clear(request);
    request->method = HTTP_POST;
    request->ca_file = aws->ca_file;
    envelope_status status = http_request_url(request, "%s/", aws->sts_endpoint);
    if (!status)
        status = http_request_header(request, "Content-Type", "application/x-www-form-urlencoded; charset=utf-8");
    if (status)
        return fail(call, status);
    web_form_add(&request->body, "Action", action);
    web_form_add(&request->body, "Version", "2011-06-15");
    web_form_add(&request->body, "RoleArn", role->arn);
    web_form_add(&request->body, "RoleSessionName", role->session_name);
    if (role->external_id)
        web_form_add(&request->body, "ExternalId", role->external_id);
    return BACKEND_SEND;
}

static enum backend_step ask_web_identity(const struct aws *aws, struct backend_call *call,
                                          struct http_request *request)
{
    struct auth *auth = call->work;
    struct buffer token = {0};
    /* Read anew each time: the platform renews this file. */
    envelope_status status = local_read_line(auth->plan.token_file, &token);
    if (status)
        return fail(call, error_raise(ENVELOPE_E_HSM_LOGIN, "the web identity token cannot be used: %s", error_text()));
    enum backend_step step = ask_sts(aws, call, "AssumeRoleWithWebIdentity", &auth->plan.web_role, request);
    if (step == BACKEND_SEND)
        web_form_add(&request->body, "WebIdentityToken", buffer_text(&token));
    buffer_clear(&token);
    call->stage = STAGE_WEB_IDENTITY;
    if (step == BACKEND_SEND && !buffer_ok(&request->body))
        return fail(call, ENVELOPE_E_NO_MEMORY);
    return step;
}

static enum backend_step ask_role(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    struct auth *auth = call->work;
    enum backend_step step = ask_sts(aws, call, "AssumeRole", &auth->plan.roles[auth->plan.role_count - 1], request);
    call->stage = STAGE_ROLE;
    if (step != BACKEND_SEND)
        return step;
    request->signer = auth->held;
    request->sign_region = aws->region;
    request->sign_service = "sts";
    if (*credentials_token(auth->held)) {
        envelope_status status = http_request_header(request, "X-Amz-Security-Token", credentials_token(auth->held));
        if (status)
            return fail(call, status);
    }
    return buffer_ok(&request->body) ? BACKEND_SEND : fail(call, ENVELOPE_E_NO_MEMORY);
}

/*
 * While instance metadata cannot renew them it gives out credentials that have ended, and AWS takes them for as long as
 * that lasts: they are tried, and asked for again soon. (Or this machine's clock is off, which KMS will then say.)
 */
static int64_t end_of(const struct backend_call *call, const char *text)
{
    int64_t expires = time_of(text), now = clock_wall();
    return expires && expires <= now && call->stage == STAGE_IMDS_KEYS ? now + STALE_SECONDS * CLOCK_SECOND : expires;
}

/* The credentials in hand are replaced: got from `source`. */
static enum backend_step hold(struct backend_call *call, const struct buffer texts[4], const char *source)
{
    struct auth *auth = call->work;
    int64_t expires = texts[3].length ? end_of(call, buffer_text(&texts[3])) : 0;
    if (!texts[0].length || !texts[1].length || (texts[3].length && !expires))
        return bad_reply(call, source);
    for (size_t i = 0; i < 4; i++)
        if (strlen(buffer_text(&texts[i])) != texts[i].length)
            return bad_reply(call, source);
    struct credentials *made = NULL;
    envelope_status status = aws_credentials_make(buffer_text(&texts[0]), buffer_text(&texts[1]),
                                                  buffer_text(&texts[2]), expires, source, &made);
    if (status)
        return fail(call, status);
    credentials_unref(auth->held);
    auth->held = made;
    return BACKEND_DONE;
}

static enum backend_step read_sts(struct backend_call *call, const struct http_reply *reply, const char *source)
{
    static const char *const names[4] = {"AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"};
    struct buffer texts[4] = {{0}, {0}, {0}, {0}};
    for (size_t i = 0; i < 4; i++)
        (void)aws_xml_text(&reply->body, names[i], &texts[i]); /* hold() looks at what is missing */
    enum backend_step step = hold(call, texts, source);
    for (size_t i = 0; i < 4; i++)
        buffer_clear(&texts[i]);
    return step;
}

/* --- Container and instance --- */

/* Instance metadata says with HTTP 200 that it has none, in "Code": its role was taken away, or cannot be assumed. */
static enum backend_step no_keys(struct backend_call *call, const json_t *root, const char *source)
{
    const char *code = json_member(root, "Code"), *message = json_member(root, "Message");
    char code_text[64], message_text[256];
    if (!code || strcmp(code, "Success") == 0)
        return bad_reply(call, source);
    text_printable(code, strlen(code), code_text, sizeof code_text);
    text_printable(message ? message : "", message ? strlen(message) : 0, message_text, sizeof message_text);
    return backend_fail(
        call, CKR_USER_NOT_LOGGED_IN,
        error_raise(ENVELOPE_E_HSM_LOGIN, "%s gives no credentials: %s: %s", source, code_text, message_text));
}

static enum backend_step read_agent(struct backend_call *call, const struct http_reply *reply, const char *source)
{
    struct buffer texts[4] = {{0}, {0}, {0}, {0}}, body = {0};
    struct json_secret secrets[4] = {{.name = "AccessKeyId", .to = &texts[0]},
                                     {.name = "SecretAccessKey", .to = &texts[1]},
                                     {.name = "Token", .to = &texts[2]},
                                     {.name = "Expiration", .to = &texts[3]}};
    buffer_append(&body, reply->body.bytes, reply->body.length);
    bool taken = json_take_secrets(&body, secrets, 4);
    json_t *root = json_read(&body);
    enum backend_step step;
    if (!taken || !root)
        step = bad_reply(call, source);
    else
        step = texts[0].length ? hold(call, texts, source) : no_keys(call, root, source);
    json_decref(root);
    buffer_clear(&body);
    for (size_t i = 0; i < 4; i++)
        buffer_clear(&texts[i]);
    return step;
}

static enum backend_step ask_container(struct backend_call *call, struct http_request *request)
{
    const struct auth *auth = call->work;
    http_request_clear(request);
    request->method = HTTP_GET;
    request->direct = true;
    call->stage = STAGE_CONTAINER;
    envelope_status status = http_request_url(request, "%s", auth->plan.container_url);
    if (!status && auth->plan.container_token.length)
        status = http_request_header(request, "Authorization", buffer_text(&auth->plan.container_token));
    return status ? fail(call, status) : BACKEND_SEND;
}

static enum backend_step ask_imds(const struct aws *aws, struct backend_call *call, enum stage stage,
                                  struct http_request *request)
{
    const struct auth *auth = call->work;
    static const char base[] = "/latest/meta-data/iam/security-credentials/";
    http_request_clear(request);
    request->direct = true;
    request->optional = true;
    request->timeout = IMDS_TIMEOUT_SECONDS * CLOCK_SECOND;
    call->stage = stage;
    envelope_status status;
    if (stage == STAGE_IMDS_TOKEN) {
        request->method = HTTP_PUT;
        status = http_request_url(request, "%s/latest/api/token", aws->imds_endpoint);
        if (!status)
            status = http_request_header(request, "X-aws-ec2-metadata-token-ttl-seconds", "21600");
    } else {
        request->method = HTTP_GET;
        status = http_request_url(request, "%s%s%s", aws->imds_endpoint, base, auth->imds_role);
        if (!status)
            status = http_request_header(request, "X-aws-ec2-metadata-token", buffer_text(&auth->imds_token));
    }
    return status ? fail(call, status) : BACKEND_SEND;
}

static enum backend_step no_instance(struct backend_call *call, const char *why)
{
    return backend_fail(
        call, CKR_USER_NOT_LOGGED_IN,
        error_raise(ENVELOPE_E_HSM_LOGIN,
                    "no AWS credentials: none in the environment, in a profile, of a web identity or of "
                    "a container, and instance metadata %s",
                    why));
}

/* Where it has answered before it is there, and is asked again; else this may be no instance at all. */
static enum backend_step not_heard(struct backend_call *call, enum http_transport transport)
{
    bool silent = transport == HTTP_TIMED_OUT || transport == HTTP_CUT;
    /* An answer to a container is dropped on its way where the instance's hop limit is 1. */
    enum backend_step step = no_instance(
        call, silent ? "does not answer (in a container: is the instance's hop limit 2?)" : "is not reachable");
    return silent && call->stage != STAGE_IMDS_TOKEN ? BACKEND_RETRY : step;
}

static enum backend_step on_imds(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                 struct http_request *request)
{
    struct auth *auth = call->work;
    if (reply->transport != HTTP_OK)
        return not_heard(call, reply->transport);
    if (reply->status >= 500 || reply->status == 429) {
        (void)no_instance(call, "fails");
        return BACKEND_RETRY;
    }
    if (reply->status != 200 && call->stage == STAGE_IMDS_TOKEN)
        return no_instance(call, reply->status == 403 ? "is switched off" : "gives no session token (version 2)");
    if (reply->status != 200)
        return no_instance(call, reply->status == 404 ? "has no role for this instance" : "refuses");
    if (call->stage == STAGE_IMDS_TOKEN) {
        buffer_reset(&auth->imds_token);
        buffer_append(&auth->imds_token, reply->body.bytes, reply->body.length);
        if (!auth->imds_token.length || strpbrk(buffer_text(&auth->imds_token), "\r\n"))
            return no_instance(call, "gave no session token");
        return ask_imds(aws, call, STAGE_IMDS_ROLE, request);
    }
    if (call->stage == STAGE_IMDS_KEYS)
        return read_agent(call, reply, "instance metadata");
    size_t length = strcspn(buffer_text(&reply->body), "\r\n");
    if (!length || length > ROLE_NAME_MAX || memchr(reply->body.bytes, '/', length))
        return no_instance(call, "names no role");
    memcpy(auth->imds_role, reply->body.bytes, length);
    auth->imds_role[length] = '\0';
    return ask_imds(aws, call, STAGE_IMDS_KEYS, request);
}

/* --- The order of things --- */

/* Credentials are in hand: assume the next role with them, or be done. */
static enum backend_step go_on(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    struct auth *auth = call->work;
    if (auth->plan.role_count)
        return ask_role(aws, call, request);
    call->made = auth->held;
    auth->held = NULL;
    return BACKEND_DONE;
}

static enum backend_step begin(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    struct auth *auth = calloc(1, sizeof *auth);
    if (!auth)
        return fail(call, error_raise(ENVELOPE_E_NO_MEMORY, "no memory to get credentials"));
    call->work = auth;
    call->work_free = auth_free;
    envelope_status status = aws_plan_make(aws, call->pin, &auth->plan);
    if (status)
        return fail(call, status);
    switch (auth->plan.origin) {
    case AWS_FROM_WEB_IDENTITY:
        return ask_web_identity(aws, call, request);
    case AWS_FROM_CONTAINER:
        return ask_container(call, request);
    case AWS_FROM_INSTANCE:
        return ask_imds(aws, call, STAGE_IMDS_TOKEN, request);
    case AWS_FROM_KEYS:
        break;
    }
    auth->held = credentials_ref(auth->plan.keys);
    return go_on(aws, call, request);
}

/* An STS failure is a failure to log in, whatever its name; what can pass is tried again. */
static enum backend_step judge_login(struct backend_call *call, const char *action, const struct http_reply *reply)
{
    enum backend_step step = aws_judge(call, action, reply);
    if (step == BACKEND_DONE || step == BACKEND_RETRY)
        return step;
    return backend_fail(call, CKR_USER_NOT_LOGGED_IN, error_context(error_status(), "no AWS credentials"));
}

enum backend_step aws_step_auth(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                struct http_request *request)
{
    if (!reply)
        return begin(aws, call, request);
    struct auth *auth = call->work;
    enum backend_step step;
    switch (call->stage) {
    case STAGE_WEB_IDENTITY:
        step = judge_login(call, "AssumeRoleWithWebIdentity", reply);
        if (step == BACKEND_DONE)
            step = read_sts(call, reply, "web identity");
        break;
    case STAGE_ROLE:
        step = judge_login(call, "AssumeRole", reply);
        if (step == BACKEND_DONE)
            step = read_sts(call, reply, "assumed role");
        if (step == BACKEND_DONE) {
            struct aws_role *role = &auth->plan.roles[--auth->plan.role_count];
            free(role->arn);
            free(role->external_id);
            free(role->session_name);
        }
        break;
    case STAGE_CONTAINER:
        step = judge_login(call, "container credentials", reply);
        if (step == BACKEND_DONE)
            step = read_agent(call, reply, "container");
        break;
    default:
        step = on_imds(aws, call, reply, request);
        break;
    }
    return step == BACKEND_DONE ? go_on(aws, call, request) : step;
}
