/* Names, checksums, and what refusals mean. */
#include "gcp.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "json.h"
#include "refusal.h"

static const char key_word[] = "/cryptoKeys/";

bool gcp_is_key_name(const char *name, size_t length)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    return length >= 1 && length <= GCP_NAME_MAX && strspn(name, allowed) >= length;
}

const char *gcp_name_of(const struct gcp *gcp, const char *key)
{
    size_t ring = strlen(gcp->ring);
    if (strncmp(key, gcp->ring, ring) == 0 && strncmp(key + ring, key_word, sizeof key_word - 1) == 0)
        key += ring + sizeof key_word - 1;
    return gcp_is_key_name(key, strlen(key)) ? key : NULL;
}

bool gcp_parse_id(const struct gcp *gcp, const char *key, struct gcp_id *id)
{
    static const char word[] = "/cryptoKeyVersions/";
    char whole[512];
    const char *at = strstr(key, word), *version = at ? at + sizeof word - 1 : "";
    size_t length = at ? (size_t)(at - key) : strlen(key), digits = strspn(version, "0123456789");
    if (length >= sizeof whole || version[digits] || digits > GCP_VERSION_MAX || (at && !digits))
        return false;
    memcpy(whole, key, length);
    whole[length] = '\0';
    const char *name = gcp_name_of(gcp, whole);
    if (!name)
        return false;
    memcpy(id->name, name, strlen(name) + 1);
    memcpy(id->version, version, digits + 1);
    return true;
}

const char *gcp_take_name(const struct gcp *gcp, struct backend_call *call, const char *key)
{
    const char *name = gcp_name_of(gcp, key);
    if (!name)
        backend_fail(call, CKR_KEY_HANDLE_INVALID,
                     error_raise(ENVELOPE_E_KEK_UNKNOWN, "[token %s]: \"%s\" cannot be a key of %s",
                                 gcp->settings->label, key, gcp->ring));
    return name;
}

/* CRC-32C (Castagnoli), bit by bit: a key has few bytes. */
uint32_t gcp_crc32c(const uint8_t *bytes, size_t count)
{
    uint32_t sum = ~UINT32_C(0);
    for (size_t i = 0; i < count; i++) {
        sum ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? UINT32_C(0x82f63b78) : 0);
    }
    return ~sum;
}

bool gcp_crc_matches(const json_t *root, const char *name, uint32_t sum)
{
    const json_t *value = json_object_get(root, name);
    if (json_is_integer(value))
        return json_integer_value(value) == (json_int_t)sum;
    const char *text = json_string_value(value);
    if (!text || !*text || strlen(text) > 10 || text[strspn(text, "0123456789")])
        return false;
    return strtoull(text, NULL, 10) == sum;
}

enum backend_step gcp_bad_reply(const struct gcp *gcp, struct backend_call *call, const char *doing,
                                const char *problem)
{
    return backend_fail(call, CKR_DEVICE_ERROR,
                        error_raise(ENVELOPE_E_HSM, "[token %s] Cloud KMS %s: a reply that is not one of it: %s",
                                    gcp->settings->label, doing, problem));
}

/* By the status' name (google.rpc.Code). */
static const struct refusal refusals[] = {
    {"FAILED_PRECONDITION", BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, ENVELOPE_E_KEK_REFUSED,
     "the key or its version is disabled or destroyed"},
    {"NOT_FOUND", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_UNKNOWN, "there is no such key"},
    {"ALREADY_EXISTS", BACKEND_FAILED, CKR_TEMPLATE_INCONSISTENT, ENVELOPE_E_KEY_EXISTS, "there is such a key already"},
    {"INVALID_ARGUMENT OUT_OF_RANGE", BACKEND_FAILED, CKR_ARGUMENTS_BAD, ENVELOPE_E_ARGUMENT,
     "the service refuses an argument"},
    {"PERMISSION_DENIED", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "no role allows it"},
    {"UNAUTHENTICATED", BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
     "the access token is not accepted"},
    {"UNIMPLEMENTED", BACKEND_FAILED, CKR_FUNCTION_NOT_SUPPORTED, ENVELOPE_E_HSM, "not possible with this key"},
    {"RESOURCE_EXHAUSTED", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "too many requests"},
    {"ABORTED", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "the service gave up"},
    {"UNAVAILABLE", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "the service is away"},
    {"INTERNAL UNKNOWN", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "the service failed"},
    {"DEADLINE_EXCEEDED", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE, "the service took too long"},
};
enum { REFUSAL_COUNT = sizeof refusals / sizeof refusals[0] };

/* What the service finds wrong with a request to decrypt is the blob or its associated data: the rest of it is ours. */
static const struct refusal damaged = {"INVALID_ARGUMENT", BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID,
                                       ENVELOPE_E_UNWRAP,
                                       "the blob is damaged, or of another key, or was made with other associated "
                                       "data"};

static const struct refusal *refusal_of(const char *code, long status, bool decrypting)
{
    if (decrypting && strcmp(code, damaged.codes) == 0)
        return &damaged;
    const struct refusal *found = refusal_find(refusals, REFUSAL_COUNT, code);
    return found ? found : refusal_by_status(status);
}

enum backend_step gcp_judge(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                            const char *doing, const char *key)
{
    if (reply->status >= 200 && reply->status < 300) {
        backend_note(call, "", "", NULL);
        return BACKEND_DONE;
    }
    json_t *root = json_read(&reply->body);
    const json_t *error = root ? json_object_get(root, "error") : NULL;
    const char *code = error ? json_member(error, "status") : NULL;
    const char *message = error ? json_member(error, "message") : NULL;
    backend_note(call, code ? code : "", message ? message : "", NULL);
    json_decref(root);
    const struct refusal *refusal = refusal_of(
        call->service_code, reply->status, strcmp(doing, "decrypt") == 0 || strcmp(doing, "asymmetricDecrypt") == 0);
    struct refusal_place place = {
        .label = gcp->settings->label, .service = "Cloud KMS", .doing = doing, .key = key, .status = reply->status};
    return refusal_raise(call, refusal, &place);
}
