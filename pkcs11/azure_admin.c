/* Making a key, deleting one. */
#include "azure.h"

#include "base/error.h"
#include "web.h"

enum stage { STAGE_LOOK = 1, STAGE_CREATE, STAGE_DELETE };

/*
 * `create` for a name that is taken makes a new version of that key, which is a rotation nobody asked for. So it is
 * looked for first.
 */
static enum backend_step begin_create(const struct azure *azure, struct backend_call *call,
                                      struct http_request *request)
{
    struct azure_id id;
    bool known_size = call->type == BACKEND_KEY_SYMMETRIC
                          ? azure->managed_hsm && call->bits == 256
                          : call->bits == 2048 || call->bits == 3072 || call->bits == 4096;
    if (!known_size)
        return backend_fail(call, CKR_KEY_SIZE_RANGE,
                            error_raise(ENVELOPE_E_ARGUMENT, "[token %s]: no key of that kind with %u bits there%s",
                                        azure->settings->label, call->bits,
                                        call->type == BACKEND_KEY_SYMMETRIC && !azure->managed_hsm
                                            ? ": a vault holds no symmetric keys, a managed HSM does"
                                            : ""));
    if (!call->label || !azure_parse_id(call->label, &id) || *id.version)
        return backend_fail(call, CKR_ATTRIBUTE_VALUE_INVALID,
                            error_raise(ENVELOPE_E_ARGUMENT,
                                        "[token %s]: a key needs a label of letters, digits and dashes",
                                        azure->settings->label));
    call->stage = STAGE_LOOK;
    return azure_request(azure, call, request, HTTP_GET, &id, "") ? BACKEND_SEND : BACKEND_FAILED;
}

static enum backend_step ask_create(const struct azure *azure, struct backend_call *call, struct http_request *request)
{
    struct azure_id id;
    bool rsa = call->type == BACKEND_KEY_RSA;
    if (!azure_take_id(azure, call, call->label, &id) || !azure_request(azure, call, request, HTTP_POST, &id, "create"))
        return BACKEND_FAILED;
    request->once = true;
    web_body_text(request, "kty", rsa ? (azure->managed_hsm ? "RSA-HSM" : "RSA") : "oct-HSM");
    web_body_number(request, "key_size", call->bits, false);
    buffer_append_text(&request->body,
                       rsa ? ",\"key_ops\":[\"wrapKey\",\"unwrapKey\"]" : ",\"key_ops\":[\"encrypt\",\"decrypt\"]");
    call->stage = STAGE_CREATE;
    return web_body_close(call, request);
}

static enum backend_step ask_delete(const struct azure *azure, struct backend_call *call, struct http_request *request)
{
    struct azure_id id;
    if (!azure_take_id(azure, call, call->key, &id))
        return BACKEND_FAILED;
    id.version[0] = '\0'; /* versions cannot be deleted one by one */
    call->stage = STAGE_DELETE;
    return azure_request(azure, call, request, HTTP_DELETE, &id, "") ? BACKEND_SEND : BACKEND_FAILED;
}

static enum backend_step on_created(const struct azure *azure, struct backend_call *call,
                                    const struct http_reply *reply)
{
    struct backend_key *key = backend_add_key(call);
    bool usable = false;
    if (!key)
        return BACKEND_FAILED;
    enum backend_step step = azure_read_bundle(azure, call, reply, key, &usable);
    if (step != BACKEND_DONE)
        return step;
    if (!usable || key->type != call->type || key->bits != call->bits)
        return azure_bad_reply(azure, call, "create key", "it made another kind of key than asked for");
    return BACKEND_DONE;
}

enum backend_step azure_step_admin(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                   struct http_request *request)
{
    static const char *const doing[] = {
        [STAGE_LOOK] = "get key", [STAGE_CREATE] = "create key", [STAGE_DELETE] = "delete key"};
    if (!reply)
        return call->op == BACKEND_CREATE ? begin_create(azure, call, request) : ask_delete(azure, call, request);
    enum backend_step step =
        azure_judge(azure, call, reply, doing[call->stage], call->op == BACKEND_CREATE ? call->label : call->key);
    /* A name that a deleted key still holds is taken, too. */
    if (call->stage == STAGE_CREATE && step == BACKEND_FAILED && call->rv == CKR_KEY_HANDLE_INVALID)
        call->rv = CKR_TEMPLATE_INCONSISTENT;
    if (call->stage != STAGE_LOOK)
        return step == BACKEND_DONE && call->stage == STAGE_CREATE ? on_created(azure, call, reply) : step;
    if (step == BACKEND_FAILED && call->rv == CKR_KEY_HANDLE_INVALID && reply->status == 404)
        return ask_create(azure, call, request);
    if (step != BACKEND_DONE)
        return step;
    return backend_fail(call, CKR_TEMPLATE_INCONSISTENT,
                        error_raise(ENVELOPE_E_KEY_EXISTS, "[token %s]: there is a key \"%s\" already",
                                    azure->settings->label, call->label));
}
