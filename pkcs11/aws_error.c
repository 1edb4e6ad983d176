#include "aws.h"

#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "json.h"

enum judgement { FAIL, RETRY, REAUTH, WORKED };

struct meaning {
    const char *code;
    enum judgement judgement;
    CK_RV rv;
    envelope_status status;
    const char *advice;
};

/*
 * By the service's own name for it, never by the HTTP status: throttling comes as 400. What the docs list for
 * Encrypt, Decrypt, ReEncrypt, the key calls, and what signing and STS add.
 */
static const struct meaning meanings[] = {
    {"DisabledException", FAIL, CKR_KEY_FUNCTION_NOT_PERMITTED, ENVELOPE_E_KEK_REFUSED, "the key is disabled"},
    {"KMSInvalidStateException", FAIL, CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_REFUSED,
     "the key's state forbids it (pending deletion, or its material is away)"},
    {"NotFoundException", FAIL, CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_UNKNOWN, "there is no such key"},
    {"InvalidArnException", FAIL, CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_UNKNOWN, "not a key of this account"},
    {"InvalidCiphertextException", FAIL, CKR_ENCRYPTED_DATA_INVALID, ENVELOPE_E_UNWRAP,
     "the blob is damaged or was made with other associated data"},
    {"IncorrectKeyException", FAIL, CKR_ENCRYPTED_DATA_INVALID, ENVELOPE_E_UNWRAP,
     "the blob was made under another key; has the alias been moved?"},
    {"InvalidKeyUsageException", FAIL, CKR_KEY_TYPE_INCONSISTENT, ENVELOPE_E_KEK_ATTRIBUTES,
     "the key is not meant for this"},
    {"UnsupportedOperationException", FAIL, CKR_FUNCTION_NOT_SUPPORTED, ENVELOPE_E_HSM, "not possible with this key"},
    {"ConflictException", FAIL, CKR_KEY_FUNCTION_NOT_PERMITTED, ENVELOPE_E_KEK_REFUSED,
     "a rotation of the key is under way or about to begin; try again later"},
    {"InvalidGrantTokenException", FAIL, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "check grant-tokens"},
    {"LimitExceededException", FAIL, CKR_DEVICE_MEMORY, ENVELOPE_E_HSM, "a quota of the account is used up"},
    {"AlreadyExistsException", FAIL, CKR_TEMPLATE_INCONSISTENT, ENVELOPE_E_KEY_EXISTS, "that alias is taken"},
    {"InvalidAliasNameException", FAIL, CKR_ATTRIBUTE_VALUE_INVALID, ENVELOPE_E_ARGUMENT, "not a valid alias"},
    {"ValidationException", FAIL, CKR_ARGUMENTS_BAD, ENVELOPE_E_ARGUMENT, "the service refuses an argument"},
    {"DryRunOperationException", WORKED, CKR_OK, ENVELOPE_OK, ""},
    {"DryRunOperation", WORKED, CKR_OK, ENVELOPE_OK, ""},

    {"ThrottlingException", RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "too many requests"},
    {"Throttling", RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "too many requests"},
    {"ThrottledException", RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "too many requests"},
    {"RequestLimitExceeded", RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "too many requests"},
    {"TooManyRequestsException", RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "too many requests"},
    {"KeyUnavailableException", RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "the key is out of reach now"},
    {"KMSInternalException", RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "the service failed"},
    {"DependencyTimeoutException", RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "the service failed"},
    {"IDPCommunicationError", RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "the identity provider is away"},

    {"ExpiredTokenException", REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "the session has expired"},
    {"ExpiredToken", REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "the session has expired"},
    {"UnrecognizedClientException", REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "the access key or session token is not known"},
    {"InvalidClientTokenId", REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "the access key is not known"},
    {"InvalidAccessKeyId", REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "the access key is not known"},
    {"AuthFailure", REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "the access key is not known"},
    {"InvalidSignatureException", REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "wrong secret key, or this machine's clock is off"},
    {"SignatureDoesNotMatch", REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "wrong secret key, or this machine's clock is off"},
    {"RequestExpired", FAIL, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "this machine's clock is off"},
    {"RequestTimeTooSkewed", FAIL, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "this machine's clock is off"},
    {"IncompleteSignature", FAIL, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "a malformed access key"},
    {"MissingAuthenticationTokenException", FAIL, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "no credentials"},
    {"MissingAuthenticationToken", FAIL, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "no credentials"},
    {"AccessDeniedException", FAIL, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "a policy forbids it"},
    {"AccessDenied", FAIL, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "a policy forbids it"},
    {"OptInRequired", FAIL, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "the account may not use this service"},
};

static const struct meaning unknown_client = {"", FAIL, CKR_DEVICE_ERROR, ENVELOPE_E_HSM, "an error we do not know"};
static const struct meaning unknown_server = {"", RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE,
                                              "the service failed"};

static const struct meaning *meaning_of(const char *code, long status)
{
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (strcmp(meanings[i].code, code) == 0)
            return &meanings[i];
    return status >= 500 || status == 429 ? &unknown_server : &unknown_client;
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

/* KMS answers in JSON; the gates before it, STS and emulators in XML. */
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
        if (type)
            plain_code(type, code);
        backend_note(call, code, message ? message : "", NULL);
        json_decref(root);
        return;
    }
    struct buffer text = {0};
    if (aws_xml_text(&reply->body, "Code", &text))
        plain_code(buffer_text(&text), code);
    buffer_reset(&text);
    (void)aws_xml_text(&reply->body, "Message", &text);
    backend_note(call, code, buffer_text(&text), NULL);
    buffer_clear(&text);
}

static enum backend_step act(struct backend_call *call, enum judgement judgement, CK_RV rv)
{
    call->rv = rv;
    switch (judgement) {
    case RETRY:
        return BACKEND_RETRY;
    case REAUTH:
        return BACKEND_REAUTH;
    case WORKED:
        return BACKEND_DONE;
    case FAIL:
        break;
    }
    return BACKEND_FAILED;
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
    const struct meaning *meaning = meaning_of(code, reply->status);
    bool dry = call->dry_run && (call->op == BACKEND_ENCRYPT || call->op == BACKEND_DECRYPT ||
                                 call->op == BACKEND_REWRAP || call->op == BACKEND_DATA_KEY);
    if (meaning->judgement == WORKED && dry)
        return BACKEND_DONE;
    const char *key = call->key ? call->key : "";
    error_raise(meaning->status ? meaning->status : ENVELOPE_E_HSM, "AWS %s%s%s: %s (%s, HTTP %ld)%s%s", action,
                *key ? " with key " : "", key, meaning->advice, *code ? code : "no error name", reply->status,
                *call->service_message ? ": " : "", call->service_message);
    return act(call, meaning->judgement == WORKED ? FAIL : meaning->judgement,
               meaning->judgement == WORKED ? CKR_DEVICE_ERROR : meaning->rv);
}

enum backend_step aws_bad_reply(struct backend_call *call, const char *action, const char *problem)
{
    return backend_fail(call, CKR_DEVICE_ERROR,
                        error_raise(ENVELOPE_E_HSM, "AWS %s: a reply that is not one of KMS: %s", action, problem));
}
