/* CreateKey with CreateAlias and GetPublicKey; ScheduleKeyDeletion. */
#include "aws.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "web.h"

enum stage { STAGE_LOOK, STAGE_CREATE, STAGE_ALIAS, STAGE_PUBLIC_KEY, STAGE_DELETE };

static const char *spec_of(const struct backend_call *call)
{
    if (call->type == BACKEND_KEY_SYMMETRIC)
        return call->bits == 256 ? "SYMMETRIC_DEFAULT" : NULL;
    switch (call->bits) {
    case 2048:
        return "RSA_2048";
    case 3072:
        return "RSA_3072";
    case 4096:
        return "RSA_4096";
    default:
        return NULL;
    }
}

/* alias/ and 1 to 250 of a-z A-Z 0-9 / _ -, not AWS's own alias/aws/. */
static bool is_alias(const char *label)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_-";
    size_t length = strlen(label);
    return strncmp(label, "alias/", 6) == 0 && length > 6 && length <= 256 && strncmp(label, "alias/aws/", 10) != 0 &&
           !label[strspn(label, allowed)];
}

static enum backend_step check_create(struct backend_call *call)
{
    if (!spec_of(call))
        return backend_fail(
            call, CKR_KEY_SIZE_RANGE,
            error_raise(ENVELOPE_E_ARGUMENT, "AWS KMS makes no key of %u bits of that kind", call->bits));
    if (call->label && !is_alias(call->label))
        return backend_fail(
            call, CKR_ATTRIBUTE_VALUE_INVALID,
            error_raise(ENVELOPE_E_ARGUMENT, "the label \"%s\" is not an alias; it must read alias/NAME", call->label));
    return BACKEND_DONE;
}

/* Before a key is made, for good: is its alias free? Else CreateAlias would find out, and leave a key without one. */
static enum backend_step ask_look(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    enum backend_step step = aws_request_open(aws, call, "DescribeKey", request);
    if (step != BACKEND_SEND)
        return step;
    web_body_text(request, "KeyId", call->label);
    call->stage = STAGE_LOOK;
    return web_body_close(call, request);
}

static enum backend_step ask_create(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    http_request_clear(request);
    enum backend_step step = aws_request_open(aws, call, "CreateKey", request);
    if (step != BACKEND_SEND)
        return step;
    request->once = true;
    web_body_text(request, "KeySpec", spec_of(call));
    web_body_text(request, "KeyUsage", "ENCRYPT_DECRYPT");
    web_body_text(request, "Description", call->label ? call->label : "made by Envelope");
    call->stage = STAGE_CREATE;
    return web_body_close(call, request);
}

static enum backend_step ask_alias(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    http_request_clear(request);
    enum backend_step step = aws_request_open(aws, call, "CreateAlias", request);
    if (step != BACKEND_SEND)
        return step;
    web_body_text(request, "AliasName", call->label);
    web_body_text(request, "TargetKeyId", call->keys.items[0].id);
    call->stage = STAGE_ALIAS;
    return web_body_close(call, request);
}

static enum backend_step ask_public_key(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    if (call->type != BACKEND_KEY_RSA)
        return BACKEND_DONE;
    http_request_clear(request);
    enum backend_step step = aws_request_open(aws, call, "GetPublicKey", request);
    if (step != BACKEND_SEND)
        return step;
    web_body_text(request, "KeyId", call->keys.items[0].id);
    call->stage = STAGE_PUBLIC_KEY;
    return web_body_close(call, request);
}

static enum backend_step ask_delete(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    enum backend_step step = aws_request_open(aws, call, "ScheduleKeyDeletion", request);
    if (step != BACKEND_SEND)
        return step;
    char *id = aws_local_id(aws, call, call->key);
    if (!id)
        return BACKEND_FAILED;
    /* Only keys of the own account can be scheduled: their bare id says it all. */
    const char *bare = strrchr(id, '/');
    web_body_text(request, "KeyId", bare ? bare + 1 : id);
    free(id);
    char days[48];
    snprintf(days, sizeof days, ",\"PendingWindowInDays\":%u", aws->settings->pending_days);
    buffer_append_text(&request->body, days);
    call->stage = STAGE_DELETE;
    return web_body_close(call, request);
}

static enum backend_step on_looked(const struct aws *aws, struct backend_call *call, enum backend_step step,
                                   struct http_request *request)
{
    if (step == BACKEND_DONE)
        return backend_fail(
            call, CKR_TEMPLATE_INCONSISTENT,
            error_raise(ENVELOPE_E_KEY_EXISTS, "the alias is taken: there is a key \"%s\" already", call->label));
    /* There is none; or who may make keys may not look at them: then CreateAlias decides. */
    if (step != BACKEND_FAILED || (call->rv != CKR_KEY_HANDLE_INVALID && call->rv != CKR_USER_NOT_LOGGED_IN))
        return step;
    error_clear();
    call->rv = CKR_OK;
    call->service_code[0] = call->service_message[0] = '\0';
    return ask_create(aws, call, request);
}

static enum backend_step begin(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    if (call->op != BACKEND_CREATE)
        return ask_delete(aws, call, request);
    enum backend_step step = check_create(call);
    if (step != BACKEND_DONE)
        return step;
    return call->label ? ask_look(aws, call, request) : ask_create(aws, call, request);
}

static enum backend_step on_created(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                    struct http_request *request)
{
    struct backend_key *key = backend_add_key(call);
    bool usable = false;
    if (!key)
        return BACKEND_FAILED;
    enum backend_step step = aws_read_metadata(call, "CreateKey", reply, call->label, key, &usable);
    if (step != BACKEND_DONE)
        return step;
    if (!usable || key->type != call->type || key->bits != call->bits)
        return aws_bad_reply(call, "CreateKey", "it made another kind of key than asked for");
    return call->label ? ask_alias(aws, call, request) : ask_public_key(aws, call, request);
}

enum backend_step aws_step_admin(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                 struct http_request *request)
{
    static const char *const actions[] = {"DescribeKey", "CreateKey", "CreateAlias", "GetPublicKey",
                                          "ScheduleKeyDeletion"};
    if (!reply)
        return begin(aws, call, request);
    enum backend_step step = aws_judge(call, actions[call->stage], reply);
    if (call->stage == STAGE_LOOK)
        return on_looked(aws, call, step, request);
    if (step != BACKEND_DONE && call->stage == STAGE_ALIAS)
        error_context(error_status(), "the key %s was made, but not its alias", call->keys.items[0].id);
    if (step == BACKEND_FAILED && call->stage == STAGE_PUBLIC_KEY)
        return BACKEND_DONE; /* the key is there; its public half may be kept from us by policy */
    if (step != BACKEND_DONE || call->stage == STAGE_DELETE)
        return step;
    if (call->stage == STAGE_CREATE)
        return on_created(aws, call, reply, request);
    if (call->stage == STAGE_ALIAS)
        return ask_public_key(aws, call, request);
    return aws_read_public_key(call, reply, &call->keys.items[0]);
}
