/* encrypt, decrypt, generateRandomBytes; every field of bytes goes and comes with its CRC-32C. */
#include "gcp.h"

#include <string.h>

#include "base/error.h"
#include "json.h"
#include "web.h"

enum stage { STAGE_DECRYPT = 1, STAGE_ENCRYPT, STAGE_RANDOM };

static const char *target_of(const struct backend_call *call)
{
    return call->op == BACKEND_REWRAP ? call->key_to : call->key;
}

static void add_checked(struct http_request *request, const char *name, const char *sum_name, const uint8_t *bytes,
                        size_t count)
{
    web_body_base64(request, name, bytes, count);
    web_body_number(request, sum_name, gcp_crc32c(bytes, count), true);
}

static enum backend_step ask_crypt(const struct gcp *gcp, struct backend_call *call, struct http_request *request,
                                   bool encrypt)
{
    bool second = call->op == BACKEND_REWRAP && encrypt;
    const struct gcp_work *work = call->work;
    const uint8_t *bytes = second ? work->secret.bytes : call->in;
    size_t count = second ? work->secret.length : call->in_length;
    bool has_aad = second ? call->has_aad_to : call->has_aad;
    const char *name = gcp_take_name(gcp, call, encrypt ? target_of(call) : call->key);
    if (!name || !web_request(call, request, HTTP_POST, "%s/v1/%s/cryptoKeys/%s:%s", gcp->endpoint, gcp->ring, name,
                              encrypt ? "encrypt" : "decrypt"))
        return BACKEND_FAILED;
    if (encrypt)
        add_checked(request, "plaintext", "plaintextCrc32c", bytes, count);
    else
        add_checked(request, "ciphertext", "ciphertextCrc32c", bytes, count);
    if (has_aad)
        add_checked(request, "additionalAuthenticatedData", "additionalAuthenticatedDataCrc32c",
                    second ? call->aad_to : call->aad, second ? call->aad_to_length : call->aad_length);
    call->stage = encrypt ? STAGE_ENCRYPT : STAGE_DECRYPT;
    return web_body_close(call, request);
}

static enum backend_step ask_random(const struct gcp *gcp, struct backend_call *call, struct http_request *request)
{
    size_t left = call->length - call->out.length;
    if (!left)
        return BACKEND_DONE;
    size_t count = left < GCP_RANDOM_MIN ? GCP_RANDOM_MIN : left > GCP_RANDOM_MAX ? GCP_RANDOM_MAX : left;
    if (!web_request(call, request, HTTP_POST, "%s/v1/%s:generateRandomBytes", gcp->endpoint, gcp->location))
        return BACKEND_FAILED;
    web_body_number(request, "lengthBytes", count, false);
    web_body_text(request, "protectionLevel", "HSM");
    call->stage = STAGE_RANDOM;
    return web_body_close(call, request);
}

enum backend_step gcp_changed(const struct gcp *gcp, struct backend_call *call, const char *doing)
{
    error_raise(ENVELOPE_E_HSM, "[token %s] Cloud KMS %s: a checksum does not match: bytes were changed on the way",
                gcp->settings->label, doing);
    call->rv = CKR_DEVICE_ERROR;
    return BACKEND_RETRY;
}

enum backend_step gcp_take_bytes(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                 const char *doing, const char *name, const char *sum_name, struct buffer *to,
                                 json_t **root)
{
    struct buffer body = {0};
    buffer_append(&body, reply->body.bytes, reply->body.length);
    bool taken = web_take_bytes(&body, name, false, to) && to->length;
    *root = json_read(&body);
    buffer_clear(&body);
    if (*root && taken && gcp_crc_matches(*root, sum_name, gcp_crc32c(to->bytes, to->length)))
        return BACKEND_DONE;
    enum backend_step step = BACKEND_FAILED;
    if (!*root || !taken)
        gcp_bad_reply(gcp, call, doing, *root ? name : "not a JSON object");
    else
        step = gcp_changed(gcp, call, doing);
    buffer_reset(to);
    json_decref(*root);
    *root = NULL;
    return step;
}

static bool verified(const json_t *root, const char *name)
{
    return json_is_true(json_object_get(root, name));
}

/* The version that did it must be one of the key asked for. */
static bool is_about(const struct gcp *gcp, const json_t *root, const char *key)
{
    static const char word[] = "/cryptoKeyVersions/";
    char id[512];
    const char *used = json_member(root, "name"), *at = used ? strstr(used, word) : NULL;
    const char *asked = gcp_name_of(gcp, key);
    if (!at || !asked || (size_t)(at - used) >= sizeof id)
        return false;
    memcpy(id, used, (size_t)(at - used));
    id[at - used] = '\0';
    const char *answered = gcp_name_of(gcp, id);
    return answered && answered != id && strcmp(answered, asked) == 0;
}

static enum backend_step on_encrypted(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply)
{
    json_t *root;
    bool has_aad = call->op == BACKEND_REWRAP ? call->has_aad_to : call->has_aad;
    buffer_reset(&call->out);
    enum backend_step step =
        gcp_take_bytes(gcp, call, reply, "encrypt", "ciphertext", "ciphertextCrc32c", &call->out, &root);
    if (step != BACKEND_DONE)
        return step;
    if (!is_about(gcp, root, target_of(call)))
        step = gcp_bad_reply(gcp, call, "encrypt", "it speaks of another key");
    else if (!verified(root, "verifiedPlaintextCrc32c") ||
             (has_aad && !verified(root, "verifiedAdditionalAuthenticatedDataCrc32c")))
        step = gcp_changed(gcp, call, "encrypt");
    else if (call->out.length > GCP_CIPHERTEXT_MAX)
        step = gcp_bad_reply(gcp, call, "encrypt", "more bytes than Cloud KMS gives");
    json_decref(root);
    if (step != BACKEND_DONE || call->dry_run)
        buffer_reset(&call->out);
    return step;
}

static enum backend_step on_decrypted(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                      struct http_request *request)
{
    json_t *root;
    struct gcp_work *work = gcp_work(call);
    if (!work)
        return BACKEND_FAILED;
    bool moving = call->op == BACKEND_REWRAP;
    struct buffer *plain = moving ? &work->secret : &call->out;
    buffer_reset(plain);
    enum backend_step step = gcp_take_bytes(gcp, call, reply, "decrypt", "plaintext", "plaintextCrc32c", plain, &root);
    json_decref(root);
    if (step == BACKEND_DONE && plain->length > GCP_PLAINTEXT_MAX)
        step = gcp_bad_reply(gcp, call, "decrypt", "more bytes than can have been encrypted");
    if (step != BACKEND_DONE || (call->dry_run && !moving))
        buffer_reset(plain);
    if (step != BACKEND_DONE || !moving)
        return step;
    call->plaintext_left = true;
    return ask_crypt(gcp, call, request, true);
}

static enum backend_step on_random(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                   struct http_request *request)
{
    json_t *root;
    struct buffer bytes = {0};
    size_t left = call->length - call->out.length;
    enum backend_step step =
        gcp_take_bytes(gcp, call, reply, "generate random bytes", "data", "dataCrc32c", &bytes, &root);
    json_decref(root);
    size_t wanted = left < GCP_RANDOM_MIN ? GCP_RANDOM_MIN : left > GCP_RANDOM_MAX ? GCP_RANDOM_MAX : left;
    if (step == BACKEND_DONE && bytes.length != wanted)
        step = gcp_bad_reply(gcp, call, "generate random bytes", "not as many as asked for");
    if (step == BACKEND_DONE)
        buffer_append(&call->out, bytes.bytes, left < bytes.length ? left : bytes.length);
    buffer_clear(&bytes);
    if (step == BACKEND_DONE && !buffer_ok(&call->out))
        return backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
    return step == BACKEND_DONE ? ask_random(gcp, call, request) : step;
}

enum backend_step gcp_step_crypt(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                 struct http_request *request)
{
    if (call->op == BACKEND_REWRAP && call->cipher != BACKEND_AEAD)
        return backend_fail(call, CKR_MECHANISM_INVALID,
                            error_raise(ENVELOPE_E_WRAP_MECHANISM, "[token %s]: a blob is moved with AES keys only",
                                        gcp->settings->label));
    if (!reply) {
        buffer_reset(&call->out);
        if (call->op == BACKEND_RANDOM)
            return ask_random(gcp, call, request);
        return ask_crypt(gcp, call, request, call->op == BACKEND_ENCRYPT);
    }
    static const char *const doing[] = {
        [STAGE_DECRYPT] = "decrypt", [STAGE_ENCRYPT] = "encrypt", [STAGE_RANDOM] = "generate random bytes"};
    const char *key = call->stage == STAGE_DECRYPT ? call->key : call->stage == STAGE_RANDOM ? "" : target_of(call);
    enum backend_step step = gcp_judge(gcp, call, reply, doing[call->stage], key);
    if (step != BACKEND_DONE)
        return step;
    if (call->stage == STAGE_DECRYPT)
        return on_decrypted(gcp, call, reply, request);
    return call->stage == STAGE_ENCRYPT ? on_encrypted(gcp, call, reply) : on_random(gcp, call, reply, request);
}
