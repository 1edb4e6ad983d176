#include "aws.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "json.h"
#include "refusal.h"

/* Signatures are good for this long, on either side. */
enum { SKEW_ALLOWED_SECONDS = 300, SKEW_NOTED_SECONDS = 60 };

/*
 * By the service's own name for it, never by the HTTP status: throttling comes as 400. What the docs list for
 * Encrypt, Decrypt, ReEncrypt, the key calls, and what signing and STS add.
 */
static const struct refusal refusals[] = {
    {"DisabledException", BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, ENVELOPE_E_KEK_REFUSED,
     "the key is disabled"},
    {"KMSInvalidStateException", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_REFUSED,
     "the key's state forbids it (pending deletion, or its material is away)"},
    {"NotFoundException", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_UNKNOWN, "there is no such key"},
    {"InvalidArnException", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_UNKNOWN,
     "not a key of this account"},
    {"InvalidCiphertextException", BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, ENVELOPE_E_UNWRAP,
     "the blob is damaged or was made with other associated data"},
    {"IncorrectKeyException", BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, ENVELOPE_E_UNWRAP,
     "the blob was made under another key; has the alias been moved?"},
    {"InvalidKeyUsageException", BACKEND_FAILED, CKR_KEY_TYPE_INCONSISTENT, ENVELOPE_E_KEK_ATTRIBUTES,
     "the key is not meant for this"},
    {"UnsupportedOperationException", BACKEND_FAILED, CKR_FUNCTION_NOT_SUPPORTED, ENVELOPE_E_HSM,
     "not possible with this key"},
    {"ConflictException", BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, ENVELOPE_E_KEK_REFUSED,
     "a rotation of the key is under way or about to begin; try again later"},
    {"InvalidGrantTokenException", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "check grant-tokens"},
    {"LimitExceededException", BACKEND_FAILED, CKR_DEVICE_MEMORY, ENVELOPE_E_HSM, "a quota of the account is used up"},
    {"AlreadyExistsException", BACKEND_FAILED, CKR_TEMPLATE_INCONSISTENT, ENVELOPE_E_KEY_EXISTS, "that alias is taken"},
    {"InvalidAliasNameException", BACKEND_FAILED, CKR_ATTRIBUTE_VALUE_INVALID, ENVELOPE_E_ARGUMENT,
     "not a valid alias"},
    {"ValidationException", BACKEND_FAILED, CKR_ARGUMENTS_BAD, ENVELOPE_E_ARGUMENT, "the service refuses an argument"},
    /* Where a dry run was asked for it would have worked. */
    {"DryRunOperationException DryRunOperation", BACKEND_DONE, CKR_DEVICE_ERROR, ENVELOPE_E_HSM,
     "no dry run was asked for"},
    {"ThrottlingException Throttling ThrottledException RequestLimitExceeded TooManyRequestsException RequestThrottled "
     "RequestThrottledException SlowDown PriorRequestNotComplete",
     BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "too many requests"},
    {"RequestTimeout RequestTimeoutException", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE,
     "the request came too slowly"},
    {"KeyUnavailableException", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE,
     "the key is out of reach now"},
    {"KMSInternalException DependencyTimeoutException", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE,
     "the service failed"},
    {"IDPCommunicationError", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE,
     "the identity provider is away"},
    {"ExpiredTokenException ExpiredToken", BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "the session has expired"},
    {"UnrecognizedClientException", BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "the access key or session token is not known"},
    {"InvalidClientTokenId InvalidAccessKeyId AuthFailure", BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN,
     ENVELOPE_E_HSM_LOGIN, "the access key is not known"},
    {"InvalidSignatureException SignatureDoesNotMatch", BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "wrong secret key, or this machine's clock is off"},
    {"RequestExpired RequestTimeTooSkewed", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "this machine's clock is off"},
    {"IncompleteSignature IncompleteSignatureException", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "a malformed access key"},
    {"MissingAuthenticationTokenException MissingAuthenticationToken", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN,
     ENVELOPE_E_HSM_LOGIN, "no credentials"},
    {"AccessDeniedException AccessDenied NotAuthorized", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "a policy forbids it"},
    {"OptInRequired SubscriptionRequiredException", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "the account may not use this service"},
    {"RegionDisabledException", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "the account has not enabled this region"},
    {"UnknownOperationException", BACKEND_FAILED, CKR_FUNCTION_NOT_SUPPORTED, ENVELOPE_E_HSM,
     "the service has no such operation; is the endpoint one of KMS?"},
};

static const struct refusal *refusal_of(const char *code, long status)
{
    const struct refusal *found = refusal_find(refusals, sizeof refusals / sizeof refusals[0], code);
    if (found)
        return found;
    return status == 401 ? &refusal_unknown : refusal_by_status(status); /* no bearer tokens here */
}

bool aws_xml_text(const struct buffer *body, const char *name, struct buffer *to)
{
    static const struct {
        const char *entity;
        char character;
    } entities[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    char open[64];
    size_t length = strlen(name);
    if (length > sizeof open - 3)
        return false;
    open[0] = '<';
    memcpy(open + 1, name, length);
    open[length + 1] = '>';
    open[length + 2] = '\0';
    const char *from = strstr(buffer_text(body), open);
    if (!from)
        return false;
    from += length + 2;
    const char *end = strchr(from, '<');
    if (!end)
        return false;
    while (from < end) {
        char character = *from;
        size_t step = 1;
        for (size_t i = 0; character == '&' && i < sizeof entities / sizeof entities[0]; i++)
            if (strncmp(from, entities[i].entity, strlen(entities[i].entity)) == 0) {
                character = entities[i].character;
                step = strlen(entities[i].entity);
                break;
            }
        buffer_append(to, &character, 1);
        from += step;
    }
    return buffer_ok(to);
}

/* "com.amazonaws.kms#DisabledException:http://…" → "DisabledException" */
static void plain_code(const char *type, char code[64])
{
    const char *hash = strrchr(type, '#');
    const char *from = hash ? hash + 1 : type;
    size_t length = strcspn(from, ":");
    if (length > 63)
        length = 63;
    memcpy(code, from, length);
    code[length] = '\0';
}

/*
 * What the service says of a wrong signature quotes the request that it should have been, with the session token in its
 * headers. So nothing is kept from there on.
 */
static void note_words(struct backend_call *call, const char *code, const char *message)
{
    static const char *const quotes[] = {"The Canonical String", "The String-to-Sign", "X-Amz-Security-Token"};
    const char *token = call->credentials ? credentials_token(call->credentials) : "";
    const char *own = *token ? strstr(message, token) : NULL;
    size_t length = own ? (size_t)(own - message) : strlen(message);
    for (size_t i = 0; i < sizeof quotes / sizeof quotes[0]; i++) {
        const char *at = strcasestr(message, quotes[i]);
        if (at && (size_t)(at - message) < length)
            length = (size_t)(at - message);
    }
    while (length && strchr(" \t\r\n", message[length - 1]))
        length--;
    struct buffer kept = {0};
    buffer_append(&kept, message, length);
    backend_note(call, code, buffer_text(&kept), NULL);
    buffer_clear(&kept);
}

/* KMS answers in JSON; the gates before it, STS and emulators in XML, or with a header and nothing else. */
static void read_error(struct backend_call *call, const struct http_reply *reply, char code[64])
{
    code[0] = '\0';
    char header[128];
    if (http_reply_header(reply, "x-amzn-requestid", header, sizeof header) ||
        http_reply_header(reply, "x-amz-request-id", header, sizeof header))
        backend_note(call, NULL, NULL, header);
    json_t *root = json_read(&reply->body);
    if (root) {
        const char *type = json_member(root, "__type");
        if (!type)
            type = json_member(root, "code");
        const char *message = json_member(root, "message");
        if (!message)
            message = json_member(root, "Message");
        if (!type && http_reply_header(reply, "x-amzn-errortype", header, sizeof header))
            type = header;
        if (type)
            plain_code(type, code);
        note_words(call, code, message ? message : "");
        json_decref(root);
        return;
    }
    struct buffer text = {0};
    if (aws_xml_text(&reply->body, "Code", &text))
        plain_code(buffer_text(&text), code);
    else if (http_reply_header(reply, "x-amzn-errortype", header, sizeof header))
        plain_code(header, code);
    buffer_reset(&text);
    (void)aws_xml_text(&reply->body, "Message", &text);
    note_words(call, code, buffer_text(&text));
    buffer_clear(&text);
}

/* "Mon, 23 Nov 2026 06:00:00 GMT" in seconds since 1970; false if it is no such time. */
static bool date_of(const char *text, int64_t *seconds)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm tm = {0};
    char month[4];
    if (sscanf(text, "%*3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT", &tm.tm_mday, month, &tm.tm_year, &tm.tm_hour,
               &tm.tm_min, &tm.tm_sec) != 6)
        return false;
    const char *at = strlen(month) == 3 ? strstr(months, month) : NULL;
    if (!at || (at - months) % 3 || tm.tm_year < 1970)
        return false;
    tm.tm_mon = (int)(at - months) / 3;
    tm.tm_year -= 1900;
    *seconds = (int64_t)timegm(&tm);
    return true;
}

/* A wrong signature is a wrong key or a wrong clock. The reply's Date tells which; false if there is none. */
static bool clock_ahead(const struct http_reply *reply, int64_t *seconds)
{
    char header[64];
    int64_t theirs;
    if (!http_reply_header(reply, "date", header, sizeof header) || !date_of(header, &theirs))
        return false;
    *seconds = clock_wall() / CLOCK_SECOND - theirs;
    return true;
}

static bool is_about_signature(const char *code)
{
    static const char *const codes[] = {"InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired",
                                        "RequestTimeTooSkewed"};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(codes[i], code) == 0)
            return true;
    return false;
}

/* What is known of the cause: to is filled and *step changed where the clock explains it. */
static const char *explain(const struct refusal *refusal, const char *code, const struct http_reply *reply,
                           enum backend_step *step, char *to, size_t size)
{
    int64_t ahead;
    if (!is_about_signature(code) || !clock_ahead(reply, &ahead))
        return refusal->advice;
    int64_t off = ahead < 0 ? -ahead : ahead;
    if (off <= SKEW_NOTED_SECONDS)
        return refusal->step == BACKEND_REAUTH ? "the secret access key is wrong (this machine's clock is right)"
                                               : refusal->advice;
    snprintf(to, size, "this machine's clock is %" PRId64 " s %s the service's%s", off,
             ahead < 0 ? "behind" : "ahead of", off > SKEW_ALLOWED_SECONDS ? "; set it right" : "");
    if (off > SKEW_ALLOWED_SECONDS)
        *step = BACKEND_FAILED; /* other credentials would fare no better */
    return to;
}

enum backend_step aws_judge(struct backend_call *call, const char *action, const struct http_reply *reply)
{
    char code[64], header[128];
    if (reply->status >= 200 && reply->status < 300) {
        if (http_reply_header(reply, "x-amzn-requestid", header, sizeof header))
            backend_note(call, "", "", header);
        return BACKEND_DONE;
    }
    read_error(call, reply, code);
    const struct refusal *refusal = refusal_of(code, reply->status);
    bool dry = call->dry_run && (call->op == BACKEND_ENCRYPT || call->op == BACKEND_DECRYPT ||
                                 call->op == BACKEND_REWRAP || call->op == BACKEND_DATA_KEY);
    if (refusal->step == BACKEND_DONE && dry)
        return BACKEND_DONE;
    char clock[128];
    enum backend_step step = refusal->step == BACKEND_DONE ? BACKEND_FAILED : refusal->step;
    const char *advice = explain(refusal, code, reply, &step, clock, sizeof clock);
    const char *key = call->key ? call->key : "";
    error_raise(refusal->status, "AWS %s%s%s: %s (%s, HTTP %ld)%s%s", action, *key ? " with key " : "", key, advice,
                *code ? code : "no error name", reply->status, *call->service_message ? ": " : "",
                call->service_message);
    call->rv = refusal->rv;
    return step;
}

enum backend_step aws_bad_reply(struct backend_call *call, const char *action, const char *problem)
{
    return backend_fail(call, CKR_DEVICE_ERROR,
                        error_raise(ENVELOPE_E_HSM, "AWS %s: a reply that is not one of KMS: %s", action, problem));
}
