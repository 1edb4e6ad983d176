#include "aws.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>

#include "base/error.h"
#include "base/libctx.h"
#include "base/text.h"

enum { DIGEST_SIZE = 32 };

enum backend_step aws_request_open(const struct aws *aws, struct backend_call *call, const char *action,
                                   struct http_request *request)
{
    char target[64];
    snprintf(target, sizeof target, "TrentService.%s", action);
    request->method = HTTP_POST;
    request->signer = call->credentials;
    request->sign_region = aws->region;
    request->sign_service = "kms";
    request->ca_file = aws->ca_file;
    envelope_status status = http_request_url(request, "%s/", aws->endpoint);
    if (!status)
        status = http_request_header(request, "Content-Type", "application/x-amz-json-1.1");
    if (!status)
        status = http_request_header(request, "X-Amz-Target", target);
    if (!status && call->credentials && *credentials_token(call->credentials))
        status = http_request_header(request, "X-Amz-Security-Token", credentials_token(call->credentials));
    if (status)
        return backend_fail(call, status == ENVELOPE_E_NO_MEMORY ? CKR_HOST_MEMORY : CKR_GENERAL_ERROR, status);
    buffer_append_text(&request->body, "{");
    return BACKEND_SEND;
}

static bool sha256(const uint8_t *bytes, size_t count, uint8_t digest[DIGEST_SIZE])
{
    OSSL_LIB_CTX *context = libctx_private();
    EVP_MD *method = context ? EVP_MD_fetch(context, "SHA256", NULL) : NULL;
    unsigned length = 0;
    bool ok = method && EVP_Digest(bytes, count, digest, &length, method, NULL) && length == DIGEST_SIZE;
    EVP_MD_free(method);
    if (!ok)
        error_raise(ENVELOPE_E_CRYPTO, "libcrypto cannot compute SHA-256");
    return ok;
}

void aws_add_grants(const struct aws *aws, struct http_request *request)
{
    static const char between[] = ", \t";
    const char *list = aws->settings->grant_tokens;
    if (!list || !list[strspn(list, between)])
        return;
    buffer_append_text(&request->body, ",\"GrantTokens\":[");
    for (bool first = true; *(list += strspn(list, between)); first = false) {
        size_t length = strcspn(list, between);
        struct buffer token = {0};
        buffer_append(&token, list, length);
        if (!first)
            buffer_append_text(&request->body, ",");
        buffer_append_json(&request->body, buffer_text(&token));
        if (!buffer_ok(&token))
            request->body.failed = true;
        buffer_clear(&token);
        list += length;
    }
    buffer_append_text(&request->body, "]");
}

/*
 * The context stands in CloudTrail in clear, and the AAD holds key names, so the service sees its digest only. The
 * digest binds as well as the AAD itself.
 */
bool aws_add_context(struct http_request *request, const char *name, const uint8_t *aad, size_t length)
{
    uint8_t digest[DIGEST_SIZE];
    char digits[2 * DIGEST_SIZE + 1];
    if (!sha256(aad, length, digest))
        return false;
    text_hex(digest, sizeof digest, digits);
    buffer_append_text(&request->body, request->body.length > 1 ? ",\"" : "\"");
    buffer_append_text(&request->body, name);
    buffer_append_text(&request->body, "\":{\"envelope-aad\":\"");
    buffer_append_text(&request->body, digits);
    buffer_append_text(&request->body, "\"}");
    return true;
}

/* arn:PARTITION:kms: and :ACCOUNT:key/mrk-ID; false if it is no ARN of a multi-region key. */
static bool around_region(const char *arn, size_t length, size_t *before, size_t *after)
{
    static const char service[] = ":kms:", key[] = ":key/mrk-";
    const char *at = memmem(arn, length, service, sizeof service - 1);
    const char *region = at ? at + sizeof service - 1 : NULL;
    const char *rest = region ? memchr(region, ':', length - (size_t)(region - arn)) : NULL;
    if (!rest || !memmem(rest, length - (size_t)(rest - arn), key, sizeof key - 1))
        return false;
    *before = (size_t)(region - arn);
    *after = length - (size_t)(rest - arn);
    return true;
}

bool aws_is_also(const char *id, const char *name, size_t length)
{
    size_t id_length = strlen(id), before, after, name_before, name_after;
    return around_region(id, id_length, &before, &after) && around_region(name, length, &name_before, &name_after) &&
           before == name_before && after == name_after && memcmp(id, name, before) == 0 &&
           memcmp(id + id_length - after, name + length - after, after) == 0;
}

char *aws_local_id(const struct aws *aws, struct backend_call *call, const char *key)
{
    /* arn:PARTITION:kms:REGION:ACCOUNT:key/ID */
    const char *region = strncmp(key, "arn:", 4) == 0 ? strstr(key, ":kms:") : NULL;
    if (!region) {
        char *copy = text_copy(key);
        if (!copy)
            call->rv = CKR_HOST_MEMORY;
        return copy;
    }
    region += strlen(":kms:");
    size_t length = strcspn(region, ":");
    char *local;
    if (strlen(aws->region) == length && strncmp(region, aws->region, length) == 0) {
        local = text_copy(key);
    } else if (strstr(region, ":key/mrk-")) {
        local = text_format("%.*s%s%s", (int)(region - key), key, aws->region, region + length);
    } else {
        call->rv = CKR_KEY_HANDLE_INVALID;
        error_raise(ENVELOPE_E_KEK_UNKNOWN, "the key %s is in another region than this token (%s)", key, aws->region);
        return NULL;
    }
    if (!local)
        call->rv = CKR_HOST_MEMORY;
    return local;
}
