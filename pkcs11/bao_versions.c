/* Versions of keys: what there are, a new one, and how far back they serve. */
#include "bao.h"

#include "base/error.h"
#include "web.h"

enum { ROTATED = 1, ROTATED_READ };

/* The reply of a key's description into call->versions. */
static bool take_versions(struct backend_call *call, const json_t *root)
{
    struct bao_key_facts facts;
    if (!bao_read_facts(root, &facts))
        return false;
    call->versions = (struct backend_versions){
        .latest = facts.latest,
        .min_decryption = facts.min_decryption ? facts.min_decryption : 1,
        .min_encryption = facts.min_encryption,
    };
    return true;
}

enum backend_step bao_versions(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                               struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    if (!reply && !bao_is_key_name(call->key))
        return bao_refuse_name(bao, call, call->key);
    if (!reply)
        return bao_send_read_key(bao, call, request, call->key, 0);
    if (!bao_accepted(bao, call, reply, "read key", call->key, &root, &step))
        return step;
    return take_versions(call, root) ? BACKEND_DONE : bao_malformed(call, "read key", call->key, "key description");
}

/*
 * The new version is there. Its number: from the reply (OpenBao describes the key), else the key is read. Who may
 * rotate but not read learns no number; that is no failure, since another try would make another version.
 */
static enum backend_step rotated(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                                 struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    if (call->stage == ROTATED_READ) {
        if (reply->transport == HTTP_OK && bao_accepted(bao, call, reply, "read key", call->key, &root, &step))
            (void)take_versions(call, root);
        return BACKEND_DONE;
    }
    if (!bao_accepted(bao, call, reply, "rotate key", call->key, &root, &step))
        return step;
    if (take_versions(call, root))
        return BACKEND_DONE;
    step = bao_send_read_key(bao, call, request, call->key, ROTATED_READ);
    request->optional = true;
    return step;
}

enum backend_step bao_rotate(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                             struct http_request *request)
{
    if (reply)
        return rotated(bao, call, reply, request);
    if (!bao_is_key_name(call->key))
        return bao_refuse_name(bao, call, call->key);
    call->versions = (struct backend_versions){0};
    if (!bao_request(bao, call, request, HTTP_POST, NULL, "%s/keys/%s/rotate", bao->mount, call->key))
        return BACKEND_FAILED;
    request->once = true;
    request->timeout = bao->settings->deadline; /* an RSA key takes the service seconds */
    return bao_send(call, request, ROTATED);
}

enum backend_step bao_set_versions(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                                   struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    const struct backend_versions *versions = &call->versions;
    if (reply)
        return bao_accepted(bao, call, reply, "set the versions of key", call->key, &root, &step) ? BACKEND_DONE : step;
    if (!bao_is_key_name(call->key))
        return bao_refuse_name(bao, call, call->key);
    if (!bao_request(bao, call, request, HTTP_POST, NULL, "%s/keys/%s/config", bao->mount, call->key))
        return BACKEND_FAILED;
    if (versions->min_decryption != BACKEND_KEEP)
        web_body_number(request, "min_decryption_version", versions->min_decryption, false);
    if (versions->min_encryption != BACKEND_KEEP)
        web_body_number(request, "min_encryption_version", versions->min_encryption, false);
    return bao_send(call, request, 0);
}
