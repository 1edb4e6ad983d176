/* Encrypt, Decrypt, ReEncrypt, GenerateRandom. */
#include "aws.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "json.h"

enum { RANDOM_MAX = 1024, REPLY_PLAINTEXT_MAX = 4096, REPLY_BLOB_MAX = 6144 };

static const char *algorithm(enum backend_cipher cipher)
{
    switch (cipher) {
    case BACKEND_OAEP_SHA1:
        return "RSAES_OAEP_SHA_1";
    case BACKEND_OAEP_SHA256:
        return "RSAES_OAEP_SHA_256";
    case BACKEND_AEAD:
        break;
    }
    return "SYMMETRIC_DEFAULT";
}

static const char *action_of(enum backend_op op)
{
    switch (op) {
    case BACKEND_ENCRYPT:
        return "Encrypt";
    case BACKEND_DECRYPT:
        return "Decrypt";
    case BACKEND_REWRAP:
        return "ReEncrypt";
    default:
        return "GenerateRandom";
    }
}

/* "GrantTokens":["a","b"] from the setting "a, b". */
static void add_grants(const struct aws *aws, struct http_request *request)
{
    const char *list = aws->settings->grant_tokens;
    if (!list)
        return;
    buffer_append_text(&request->body, ",\"GrantTokens\":[");
    bool first = true;
    while (*(list += strspn(list, ", \t"))) {
        char token[1024];
        size_t length = strcspn(list, ", \t");
        snprintf(token, sizeof token, "%.*s", (int)length, list);
        if (!first)
            buffer_append_text(&request->body, ",");
        buffer_append_json(&request->body, token);
        first = false;
        list += length;
    }
    buffer_append_text(&request->body, "]");
}

static bool add_key(const struct aws *aws, struct backend_call *call, struct http_request *request, const char *name,
                    const char *key)
{
    char *id = aws_local_id(aws, call, key);
    if (!id)
        return false;
    aws_add_text(request, name, id);
    free(id);
    return true;
}

static bool add_context(struct backend_call *call, struct http_request *request, const char *name, bool has,
                        const uint8_t *aad, size_t length)
{
    if (!has || aws_add_context(request, name, aad, length))
        return true;
    call->rv = CKR_FUNCTION_FAILED;
    return false;
}

static bool add_crypt_members(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    bool decrypt = call->op == BACKEND_DECRYPT;
    if (!add_key(aws, call, request, "KeyId", call->key))
        return false;
    aws_add_text(request, "EncryptionAlgorithm", algorithm(call->cipher));
    if (!add_context(call, request, "EncryptionContext", call->has_aad, call->aad, call->aad_length))
        return false;
    aws_add_base64(request, decrypt ? "CiphertextBlob" : "Plaintext", call->in, call->in_length);
    return true;
}

static bool add_rewrap_members(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    if (!add_key(aws, call, request, "SourceKeyId", call->key) ||
        !add_key(aws, call, request, "DestinationKeyId", call->key_to) ||
        !add_context(call, request, "SourceEncryptionContext", call->has_aad, call->aad, call->aad_length) ||
        !add_context(call, request, "DestinationEncryptionContext", call->has_aad_to, call->aad_to,
                     call->aad_to_length))
        return false;
    aws_add_base64(request, "CiphertextBlob", call->in, call->in_length);
    return true;
}

static enum backend_step ask(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    enum backend_step step = aws_request_open(aws, call, action_of(call->op), request);
    if (step != BACKEND_SEND)
        return step;
    if (call->op == BACKEND_RANDOM) {
        char member[48];
        size_t left = call->length - call->out.length;
        snprintf(member, sizeof member, "\"NumberOfBytes\":%zu", left < RANDOM_MAX ? left : RANDOM_MAX);
        buffer_append_text(&request->body, member);
        return aws_request_close(call, request);
    }
    bool ok =
        call->op == BACKEND_REWRAP ? add_rewrap_members(aws, call, request) : add_crypt_members(aws, call, request);
    if (!ok)
        return BACKEND_FAILED;
    add_grants(aws, request);
    if (call->dry_run)
        buffer_append_text(&request->body, ",\"DryRun\":true");
    return aws_request_close(call, request);
}

/* The reply's member, decoded and appended to out. */
static enum backend_step take_result(struct backend_call *call, const char *action, struct buffer *body,
                                     const char *name, size_t max)
{
    struct buffer text = {0};
    struct json_secret secret = {.name = name, .to = &text};
    bool taken = json_take_secrets(body, &secret, 1) && secret.found;
    json_t *root = json_read(body);
    json_decref(root);
    size_t before = call->out.length;
    bool ok = taken && root && buffer_append_unbase64(&call->out, buffer_text(&text), text.length);
    buffer_clear(&text);
    if (!buffer_ok(&call->out))
        return backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
    if (!root)
        return aws_bad_reply(call, action, "not a JSON object");
    if (!ok)
        return aws_bad_reply(call, action, name);
    if (call->out.length - before > max)
        return aws_bad_reply(call, action, "more bytes than KMS gives");
    return BACKEND_DONE;
}

/* A reply that names another key than the one asked for would be a confused service (or an attacker's answer). */
static enum backend_step check_key(const struct aws *aws, struct backend_call *call, const char *action,
                                   const struct buffer *body, const char *wanted)
{
    if (strncmp(wanted, "arn:", 4) != 0 || !strstr(wanted, ":key/"))
        return BACKEND_DONE;
    char *id = aws_local_id(aws, call, wanted);
    if (!id)
        return BACKEND_FAILED;
    json_t *root = json_read(body);
    const char *answered = root ? json_member(root, "KeyId") : NULL;
    bool same = answered && strcmp(answered, id) == 0;
    json_decref(root);
    free(id);
    return same ? BACKEND_DONE : aws_bad_reply(call, action, "it speaks of another key");
}

enum backend_step aws_step_crypt(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                 struct http_request *request)
{
    const char *action = action_of(call->op);
    if (!reply) {
        buffer_reset(&call->out);
        return call->op == BACKEND_RANDOM && call->length == 0 ? BACKEND_DONE : ask(aws, call, request);
    }
    enum backend_step step = aws_judge(call, action, reply);
    if (step != BACKEND_DONE)
        return step;
    if (reply->status >= 300)
        return BACKEND_DONE; /* a dry run that would have worked */
    /* The secret member is cut out in place: the reply is this step's to consume. */
    struct buffer body = {0};
    buffer_append(&body, reply->body.bytes, reply->body.length);
    bool gives_plaintext = call->op == BACKEND_DECRYPT || call->op == BACKEND_RANDOM;
    step = take_result(call, action, &body, gives_plaintext ? "Plaintext" : "CiphertextBlob",
                       gives_plaintext ? REPLY_PLAINTEXT_MAX : REPLY_BLOB_MAX);
    if (step == BACKEND_DONE && call->op != BACKEND_RANDOM)
        step = check_key(aws, call, action, &body, call->op == BACKEND_REWRAP ? call->key_to : call->key);
    buffer_clear(&body);
    if (step != BACKEND_DONE || call->op != BACKEND_RANDOM)
        return step;
    if (call->out.length > call->length)
        return aws_bad_reply(call, action, "more bytes than asked for");
    if (call->out.length == call->length)
        return BACKEND_DONE;
    http_request_clear(request);
    return ask(aws, call, request);
}
