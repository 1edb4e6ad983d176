/*
 * What a key service, or something in its place, may answer: any bytes at all, at any step of any operation. Input:
 * byte 0 chooses the backend and the operation, then replies, each as a status, a header and a body with their lengths.
 * Besides not crashing: a call ends within its replies, a failure has its code and its text, and a success has a result
 * within the limits the backend states.
 */
#undef NDEBUG /* the checks are the point, in every build type */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "backends.h"
#include "base/error.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char key[] = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
static void *aws_state;
static struct token_settings settings = {
    .label = (char *)"fuzz", .backend = (char *)"aws-kms", .region = (char *)"eu-west-1", .pending_days = 7};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    /* No credentials but instance metadata, so that AUTHENTICATE asks questions too. */
    static const char *const names[] = {"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL",
                                        "AWS_EC2_METADATA_DISABLED"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1);
    if (aws_backend.open(&settings, &aws_state))
        abort();
    return 0;
}

struct input {
    const uint8_t *at, *end;
};

static size_t take(struct input *input, size_t width)
{
    size_t value = 0;
    while (width-- && input->at < input->end)
        value = value << 8 | *input->at++;
    return value;
}

static void take_bytes(struct input *input, size_t length, struct buffer *to)
{
    size_t left = (size_t)(input->end - input->at);
    length = length < left ? length : left;
    buffer_append(to, input->at, length);
    input->at += length;
}

static void next_reply(struct input *input, struct http_reply *reply)
{
    static const long statuses[] = {200, 400, 404, 403, 412, 500, 503, 204};
    http_reply_clear(reply);
    size_t kind = take(input, 1);
    reply->status = statuses[kind & 7];
    reply->transport = kind & 0x80 ? HTTP_UNREACHABLE : HTTP_OK;
    take_bytes(input, take(input, 1), &reply->headers);
    take_bytes(input, take(input, 2), &reply->body);
    /* http.c hands over no header with a NUL in it. */
    for (size_t i = 0; i < reply->headers.length; i++)
        if (!reply->headers.bytes[i])
            reply->headers.bytes[i] = ' ';
}

static void check_outcome(const struct backend_call *call, enum backend_step step)
{
    if (step == BACKEND_DONE) {
        if (call->op == BACKEND_ENCRYPT || call->op == BACKEND_REWRAP)
            assert(call->out.length <= aws_backend.max_ciphertext);
        if (call->op == BACKEND_DECRYPT)
            assert(call->out.length <= aws_backend.max_plaintext);
        if (call->op == BACKEND_RANDOM)
            assert(call->out.length == call->length);
        for (size_t i = 0; i < call->keys.count; i++)
            assert(call->keys.items[i].id && call->keys.items[i].label && call->keys.items[i].bits);
        assert(call->op != BACKEND_AUTHENTICATE || call->made);
    } else if (step != BACKEND_SEND) {
        assert(call->rv != CKR_OK && *error_text());
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, data + size};
    struct credentials *credentials = credentials_new("AKID", "SECRET", "TOKEN", 0);
    struct backend_call call = {.op = (enum backend_op)(take(&input, 1) % (BACKEND_RANDOM + 1)),
                                .key = key,
                                .key_to = key,
                                .label = "alias/x",
                                .bits = 256,
                                .in = (const uint8_t *)"in",
                                .in_length = 2,
                                .length = 40,
                                .pin = "",
                                .credentials = credentials};
    struct http_request request = {0};
    struct http_reply reply = {0};
    if (call.op == BACKEND_CREATE && size & 1) {
        call.type = BACKEND_KEY_RSA;
        call.bits = 2048;
    }
    call.dry_run = size & 2;
    error_clear();
    enum backend_step step = aws_backend.step(aws_state, &call, NULL, &request);
    while ((step == BACKEND_SEND || step == BACKEND_RETRY) && input.at < input.end) {
        next_reply(&input, &reply);
        if (reply.transport != HTTP_OK && !request.optional)
            break;
        step = aws_backend.step(aws_state, &call, &reply, &request);
        check_outcome(&call, step);
    }
    http_request_clear(&request);
    http_reply_clear(&reply);
    backend_call_clear(&call);
    credentials_unref(credentials);
    return 0;
}
