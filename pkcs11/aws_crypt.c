/* Encrypt, Decrypt, ReEncrypt, GenerateDataKey, GenerateRandom. */
#include "aws.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "json.h"
#include "web.h"

enum { RANDOM_MAX = 1024, DATA_KEY_MAX = 1024, REPLY_PLAINTEXT_MAX = 4096, REPLY_BLOB_MAX = 6144 };

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

bool aws_makes_data_key(const struct backend_call *call)
{
    return call->length <= DATA_KEY_MAX;
}

static const char *action_of(const struct backend_call *call)
{
    switch (call->op) {
    case BACKEND_ENCRYPT:
        return "Encrypt";
    case BACKEND_DECRYPT:
        return "Decrypt";
    case BACKEND_REWRAP:
        return "ReEncrypt";
    case BACKEND_DATA_KEY:
        return call->wants_plaintext ? "GenerateDataKey" : "GenerateDataKeyWithoutPlaintext";
    default:
        return "GenerateRandom";
    }
}

static bool add_key(const struct aws *aws, struct backend_call *call, struct http_request *request, const char *name,
                    const char *key)
{
    char *id = aws_local_id(aws, call, key);
    if (!id)
        return false;
    web_body_text(request, name, id);
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
    web_body_text(request, "EncryptionAlgorithm", algorithm(call->cipher));
    if (!add_context(call, request, "EncryptionContext", call->has_aad, call->aad, call->aad_length))
        return false;
    web_body_base64(request, decrypt ? "CiphertextBlob" : "Plaintext", call->in, call->in_length);
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
    web_body_base64(request, "CiphertextBlob", call->in, call->in_length);
    return true;
}

static bool add_data_key_members(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    char member[48];
    if (!add_key(aws, call, request, "KeyId", call->key) ||
        !add_context(call, request, "EncryptionContext", call->has_aad, call->aad, call->aad_length))
        return false;
    snprintf(member, sizeof member, ",\"NumberOfBytes\":%zu", call->length);
    buffer_append_text(&request->body, member);
    return true;
}

static bool add_members(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    if (call->op == BACKEND_REWRAP)
        return add_rewrap_members(aws, call, request);
    return call->op == BACKEND_DATA_KEY ? add_data_key_members(aws, call, request)
                                        : add_crypt_members(aws, call, request);
}

static enum backend_step ask(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    enum backend_step step = aws_request_open(aws, call, action_of(call), request);
    if (step != BACKEND_SEND)
        return step;
    if (call->op == BACKEND_RANDOM) {
        char member[48];
        size_t left = call->length - call->out.length;
        snprintf(member, sizeof member, "\"NumberOfBytes\":%zu", left < RANDOM_MAX ? left : RANDOM_MAX);
        buffer_append_text(&request->body, member);
        return web_body_close(call, request);
    }
    if (!add_members(aws, call, request))
        return BACKEND_FAILED;
    aws_add_grants(aws, request);
    if (call->dry_run)
        buffer_append_text(&request->body, ",\"DryRun\":true");
    return web_body_close(call, request);
}

/* A member's value, decoded and appended. */
static enum backend_step take_bytes(struct backend_call *call, const char *action, const struct json_taken *taken,
                                    const json_t *root, const char *name, size_t max, struct buffer *to)
{
    size_t length, before = to->length;
    const char *text = json_taken_member(taken, root, name, &length);
    bool ok = text && buffer_append_unbase64(to, text, length);
    if (!buffer_ok(to))
        return backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
    if (!ok)
        return aws_bad_reply(call, action, name);
    if (to->length - before > max)
        return aws_bad_reply(call, action, "more bytes than KMS gives");
    return BACKEND_DONE;
}

static enum backend_step take_results(struct backend_call *call, const char *action, const struct json_taken *taken,
                                      const json_t *root)
{
    static const char plaintext[] = "Plaintext", blob[] = "CiphertextBlob";
    if (call->op == BACKEND_DECRYPT || call->op == BACKEND_RANDOM)
        return take_bytes(call, action, taken, root, plaintext, REPLY_PLAINTEXT_MAX, &call->out);
    enum backend_step step = take_bytes(call, action, taken, root, blob, REPLY_BLOB_MAX, &call->out);
    if (step != BACKEND_DONE || call->op != BACKEND_DATA_KEY || !call->wants_plaintext)
        return step;
    step = take_bytes(call, action, taken, root, plaintext, call->length, &call->plaintext);
    return step == BACKEND_DONE && call->plaintext.length != call->length
               ? aws_bad_reply(call, action, "a data key of another length than asked for")
               : step;
}

/* A reply that names another key than the one asked for would be a confused service (or an attacker's answer). */
static enum backend_step check_key(const struct aws *aws, struct backend_call *call, const char *action,
                                   const json_t *root, const char *wanted)
{
    if (strncmp(wanted, "arn:", 4) != 0 || !strstr(wanted, ":key/"))
        return BACKEND_DONE;
    char *id = aws_local_id(aws, call, wanted);
    if (!id)
        return BACKEND_FAILED;
    const char *answered = json_member(root, "KeyId");
    bool same = answered && strcmp(answered, id) == 0;
    free(id);
    return same ? BACKEND_DONE : aws_bad_reply(call, action, "it speaks of another key");
}

/* What a reply gives: the secret members are taken out of a copy before it is parsed. */
static enum backend_step take_reply(const struct aws *aws, struct backend_call *call, const char *action,
                                    const struct http_reply *reply)
{
    static const char *const secrets[] = {"Plaintext", "CiphertextBlob"};
    struct buffer rest = {0};
    struct json_taken taken = {0};
    json_t *root = json_take(&reply->body, secrets, 2, &rest, &taken) ? json_read(&rest) : NULL;
    enum backend_step step =
        root ? take_results(call, action, &taken, root) : aws_bad_reply(call, action, "not a JSON object");
    if (step == BACKEND_DONE && call->op != BACKEND_RANDOM)
        step = check_key(aws, call, action, root, call->op == BACKEND_REWRAP ? call->key_to : call->key);
    json_decref(root);
    json_taken_clear(&taken);
    buffer_clear(&rest);
    return step;
}

enum backend_step aws_step_crypt(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                 struct http_request *request)
{
    const char *action = action_of(call);
    if (!reply) {
        buffer_reset(&call->out);
        buffer_reset(&call->plaintext);
        return call->op == BACKEND_RANDOM && call->length == 0 ? BACKEND_DONE : ask(aws, call, request);
    }
    enum backend_step step = aws_judge(call, action, reply);
    if (step != BACKEND_DONE)
        return step;
    if (reply->status >= 300)
        return BACKEND_DONE; /* a dry run that would have worked */
    step = take_reply(aws, call, action, reply);
    if (call->dry_run) { /* of a service that knows none, as some emulators */
        buffer_clear(&call->out);
        buffer_clear(&call->plaintext);
    }
    if (step != BACKEND_DONE || call->op != BACKEND_RANDOM)
        return step;
    if (call->out.length > call->length)
        return aws_bad_reply(call, action, "more bytes than asked for");
    if (call->out.length == call->length)
        return BACKEND_DONE;
    http_request_clear(request);
    return ask(aws, call, request);
}
