/* RotateKeyOnDemand; ListKeyRotations, which tells how many versions a key has. */
#include "aws.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "json.h"
#include "web.h"

/* More rotations than a key can have: ten on demand, and one every 90 days at most for the rest. */
enum { ROTATIONS_MAX = 10000 };

static const char *action_of(const struct backend_call *call)
{
    return call->op == BACKEND_ROTATE ? "RotateKeyOnDemand" : "ListKeyRotations";
}

/* call->work is the marker of the page to ask for; NULL at first. */
static enum backend_step ask(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    http_request_clear(request);
    enum backend_step step = aws_request_open(aws, call, action_of(call), request);
    if (step != BACKEND_SEND)
        return step;
    char *id = aws_local_id(aws, call, call->key);
    if (!id)
        return BACKEND_FAILED;
    web_body_text(request, "KeyId", id);
    free(id);
    /* Not idempotent: a repeated one makes another version, and ten are all that a key may have. */
    request->once = call->op == BACKEND_ROTATE;
    if (call->op == BACKEND_VERSIONS && call->work)
        web_body_text(request, "Marker", call->work);
    return web_body_close(call, request);
}

static enum backend_step next_page(const struct aws *aws, struct backend_call *call, const json_t *root,
                                   struct http_request *request)
{
    const char *marker = json_member(root, "NextMarker");
    if (!marker || (call->work && strcmp(marker, call->work) == 0) || call->versions.latest > ROTATIONS_MAX)
        return aws_bad_reply(call, action_of(call), "a list that does not come to its end");
    free(call->work);
    call->work = text_copy(marker);
    call->work_free = free;
    return call->work ? ask(aws, call, request) : backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
}

/* KMS numbers no versions. The first has no rotation before it; all of them decrypt, the latest alone encrypts. */
static enum backend_step take_rotations(const struct aws *aws, struct backend_call *call,
                                        const struct http_reply *reply, struct http_request *request)
{
    json_t *root = json_read(&reply->body);
    const json_t *rotations = json_object_get(root, "Rotations");
    enum backend_step step = BACKEND_DONE;
    if (!json_is_array(rotations)) {
        step = aws_bad_reply(call, action_of(call), "no list of rotations");
    } else {
        call->versions.latest += json_array_size(rotations);
        if (json_is_true(json_object_get(root, "Truncated")))
            step = next_page(aws, call, root, request);
    }
    json_decref(root);
    return step;
}

/* The rotation has begun; it ends some time later, so there is no number to tell. */
static enum backend_step take_rotated(struct backend_call *call, const struct http_reply *reply)
{
    json_t *root = json_read(&reply->body);
    bool told = json_member(root, "KeyId");
    json_decref(root);
    return told ? BACKEND_DONE : aws_bad_reply(call, action_of(call), "no key in it");
}

enum backend_step aws_step_rotate(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                  struct http_request *request)
{
    if (!reply) {
        call->versions = (struct backend_versions){0};
        if (call->op == BACKEND_VERSIONS)
            call->versions = (struct backend_versions){.latest = 1, .min_decryption = 1};
        return ask(aws, call, request);
    }
    enum backend_step step = aws_judge(call, action_of(call), reply);
    if (step != BACKEND_DONE)
        return step;
    return call->op == BACKEND_ROTATE ? take_rotated(call, reply) : take_rotations(aws, call, reply, request);
}
