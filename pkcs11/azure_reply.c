/* Names, requests, and what refusals mean. */
#include "azure.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "json.h"
#include "refusal.h"
#include "web.h"

static const char api_version[] = "7.4";

static bool take_part(const char *from, size_t length, char *to, size_t max)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-";
    if (length == 0 || length > max || strspn(from, allowed) < length)
        return false;
    memcpy(to, from, length);
    to[length] = '\0';
    return true;
}

bool azure_parse_id(const char *key, struct azure_id *id)
{
    size_t length = strcspn(key, "/");
    id->version[0] = '\0';
    if (!take_part(key, length, id->name, AZURE_NAME_MAX))
        return false;
    return !key[length] || take_part(key + length + 1, strlen(key + length + 1), id->version, AZURE_VERSION_MAX);
}

bool azure_parse_kid(const char *kid, struct azure_id *id)
{
    const char *at = kid ? strstr(kid, "/keys/") : NULL;
    return at && azure_parse_id(at + strlen("/keys/"), id);
}

bool azure_take_id(const struct azure *azure, struct backend_call *call, const char *key, struct azure_id *id)
{
    if (azure_parse_id(key, id))
        return true;
    backend_fail(call, CKR_KEY_HANDLE_INVALID,
                 error_raise(ENVELOPE_E_KEK_UNKNOWN,
                             "[token %s]: \"%s\" cannot be a key of Azure: NAME or NAME/VERSION",
                             azure->settings->label, key));
    return false;
}

bool azure_request(const struct azure *azure, struct backend_call *call, struct http_request *request,
                   enum http_method method, const struct azure_id *id, const char *verb)
{
    return web_request(call, request, method, "%s/keys/%s%s%s%s%s?api-version=%s", azure->base, id->name,
                       *id->version ? "/" : "", id->version, *verb ? "/" : "", verb, api_version);
}

enum backend_step azure_bad_reply(const struct azure *azure, struct backend_call *call, const char *doing,
                                  const char *problem)
{
    return backend_fail(call, CKR_DEVICE_ERROR,
                        error_raise(ENVELOPE_E_HSM, "[token %s] Azure %s: a reply that is not one of Key Vault: %s",
                                    azure->settings->label, doing, problem));
}

/* --- Refusals --- */

/* By the inner error's name where there is one, else the outer's. */
static const struct refusal refusals[] = {
    {"KeyDisabled", BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, ENVELOPE_E_KEK_REFUSED, "the key is disabled"},
    {"KeyNotYetValid", BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, ENVELOPE_E_KEK_REFUSED,
     "the key is not valid yet"},
    {"KeyExpired", BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, ENVELOPE_E_KEK_REFUSED, "the key has expired"},
    {"KeyOperationForbidden", BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, ENVELOPE_E_KEK_REFUSED,
     "the key's operations (key_ops) do not allow it"},
    {"KeyNotFound", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_UNKNOWN, "there is no such key"},
    {"ObjectIsDeletedButRecoverable", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_UNKNOWN,
     "the key is deleted; until it is purged it can be recovered"},
    {"ObjectIsBeingDeleted", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_UNKNOWN,
     "the key is being deleted"},
    {"ObjectIsBeingRecovered", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE,
     "the key is being recovered"},
    {"Conflict", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_REFUSED, "the key's state forbids it"},
    {"Unauthorized", BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "the access token is not accepted; is it of the vault's tenant?"},
    {"AKV10032", BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "the access token is of another tenant"},
    {"ForbiddenByPolicy", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "the vault's access policy forbids it"},
    {"ForbiddenByRbac", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "no role allows it"},
    {"ForbiddenByFirewall", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "the vault's firewall forbids it"},
    {"AccessDenied", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "access is denied"},
    {"Forbidden", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "it is forbidden"},
    {"Throttled TooManyRequests", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "too many requests"},
    {"ServiceUnavailable", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "the service is away"},
    {"InternalServerError", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "the service failed"},
};
enum { REFUSAL_COUNT = sizeof refusals / sizeof refusals[0] };

/* What the service finds wrong with a request to decrypt is the blob: the rest of it is ours. */
static const struct refusal damaged = {"BadParameter", BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, ENVELOPE_E_UNWRAP,
                                       "the blob is damaged, or of another key or version, or was made with other "
                                       "associated data"};
static const struct refusal refused = {"BadParameter", BACKEND_FAILED, CKR_ARGUMENTS_BAD, ENVELOPE_E_ARGUMENT,
                                       "the service refuses an argument"};

static const struct refusal *refusal_of(const char *inner, const char *outer, long status, bool decrypting)
{
    const struct refusal *found = refusal_find(refusals, REFUSAL_COUNT, inner);
    if (!found)
        found = refusal_find(refusals, REFUSAL_COUNT, outer);
    if (found)
        return found;
    if (outer && strcmp(outer, "BadParameter") == 0)
        return decrypting ? &damaged : &refused;
    return refusal_by_status(status);
}

enum backend_step azure_judge(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                              const char *doing, const char *key)
{
    char request_id[128];
    if (http_reply_header(reply, "x-ms-request-id", request_id, sizeof request_id))
        backend_note(call, NULL, NULL, request_id);
    if (reply->status >= 200 && reply->status < 300) {
        backend_note(call, "", "", NULL);
        return BACKEND_DONE;
    }
    json_t *root = json_read(&reply->body);
    const json_t *error = root ? json_object_get(root, "error") : NULL;
    const json_t *inner = error ? json_object_get(error, "innererror") : NULL;
    const char *outer_code = error ? json_member(error, "code") : NULL;
    const char *inner_code = inner ? json_member(inner, "code") : NULL;
    const char *message = error ? json_member(error, "message") : NULL;
    bool decrypting = strcmp(doing, "unwrapkey") == 0 || strcmp(doing, "decrypt") == 0;
    const struct refusal *refusal = refusal_of(inner_code, outer_code, reply->status, decrypting);
    const char *code = inner_code ? inner_code : outer_code;
    backend_note(call, code ? code : "", message ? message : "", NULL);
    json_decref(root);
    struct refusal_place place = {
        .label = azure->settings->label, .service = "Azure", .doing = doing, .key = key, .status = reply->status};
    return refusal_raise(call, refusal, &place);
}
