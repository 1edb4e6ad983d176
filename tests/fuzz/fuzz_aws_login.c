/*
 * Where AWS credentials come from: any bytes in the two shared files, and any answers of STS, instance metadata and a
 * container's agent. Input: byte 0 chooses what the environment and kms.cnf say (below), then both files, each with its
 * length, then replies, each as a status and a body with its length. Besides not crashing: it comes to an end, a
 * failure has its code and its text, a success has credentials that can stand in a header.
 */
#undef NDEBUG /* the checks are the point, in every build type */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "backends.h"
#include "base/clock.h"
#include "base/error.h"
#include "local.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WEB_IDENTITY = 1, CONTAINER = 2, NAMED = 4, PIN = 8, KEYS = 16 };

/* Files that are there; what reads them is linked to ask here (-Wl,--wrap). */
#define CONFIG_FILE "/dev/null"
#define CREDENTIALS_FILE "/dev/zero"
static struct buffer config, credentials_file;

envelope_status __wrap_local_read(const char *path, struct buffer *contents);
envelope_status __wrap_local_read(const char *path, struct buffer *contents)
{
    static const char other[] = "h.p.s\n";
    const struct buffer *from = strcmp(path, CONFIG_FILE) == 0        ? &config
                                : strcmp(path, CREDENTIALS_FILE) == 0 ? &credentials_file
                                                                      : NULL;
    buffer_reset(contents);
    if (from)
        buffer_append(contents, buffer_text(from), from->length);
    else
        buffer_append(contents, other, sizeof other - 1);
    if (memchr(contents->bytes, '\0', contents->length))
        return error_raise(ENVELOPE_E_IO, "\"%s\" holds a NUL byte", path); /* as local_read does */
    return buffer_ok(contents) ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

static int64_t stopped_clock(void)
{
    return 1767225600 * CLOCK_SECOND;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    extern char **environ;
    static char config_file[] = "AWS_CONFIG_FILE=" CONFIG_FILE,
                credentials_variable[] = "AWS_SHARED_CREDENTIALS_FILE=" CREDENTIALS_FILE;
    static char *alone[] = {config_file, credentials_variable, NULL};
    environ = alone;
    clock_set_source(stopped_clock);
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

static void take_bytes(struct input *input, struct buffer *to)
{
    size_t length = take(input, 2), left = (size_t)(input->end - input->at);
    length = length < left ? length : left;
    buffer_reset(to);
    buffer_append(to, input->at, length);
    input->at += length;
}

static void set_or_not(bool set, const char *name, const char *value)
{
    if (set)
        setenv(name, value, 1);
    else
        unsetenv(name);
}

static void surround(size_t choice)
{
    set_or_not(choice & WEB_IDENTITY, "AWS_WEB_IDENTITY_TOKEN_FILE", "jwt");
    set_or_not(choice & WEB_IDENTITY, "AWS_ROLE_ARN", "arn:aws:iam::1:role/r");
    set_or_not(choice & CONTAINER, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x");
    set_or_not(choice & KEYS, "AWS_ACCESS_KEY_ID", "AKIA");
    set_or_not(choice & KEYS, "AWS_SECRET_ACCESS_KEY", "s");
}

static void assert_header(const char *text)
{
    for (; *text; text++)
        assert(*text > ' ' && *text < 0x7f);
}

static void check_outcome(const struct backend_call *call, enum backend_step step)
{
    if (step == BACKEND_DONE) {
        assert(call->made && *credentials_id(call->made) && *credentials_secret(call->made));
        assert_header(credentials_id(call->made));
        assert_header(credentials_secret(call->made));
        assert_header(credentials_token(call->made));
    } else if (step != BACKEND_SEND) {
        assert(call->rv != CKR_OK && *error_text());
    }
}

static void next_reply(struct input *input, struct http_reply *reply)
{
    static const long statuses[] = {200, 400, 403, 404, 500, 429, 307, 204};
    size_t kind = take(input, 1);
    http_reply_clear(reply);
    reply->status = statuses[kind & 7];
    reply->transport = kind & 0x80 ? HTTP_UNREACHABLE : kind & 0x40 ? HTTP_TIMED_OUT : HTTP_OK;
    take_bytes(input, &reply->body);
}

static void log_in(const struct token_settings *settings, const char *pin, struct input *input)
{
    void *state = NULL;
    error_clear();
    if (aws_backend.open(settings, &state) != ENVELOPE_OK) {
        assert(*error_text());
        return;
    }
    struct backend_call call = {.op = BACKEND_AUTHENTICATE, .pin = pin};
    struct http_request request = {0};
    struct http_reply reply = {0};
    enum backend_step step = aws_backend.step(state, &call, NULL, &request);
    check_outcome(&call, step);
    while ((step == BACKEND_SEND || step == BACKEND_RETRY) && input->at < input->end) {
        next_reply(input, &reply);
        if (reply.transport != HTTP_OK && !request.optional)
            break;
        step = aws_backend.step(state, &call, &reply, &request);
        check_outcome(&call, step);
    }
    http_request_clear(&request);
    http_reply_clear(&reply);
    backend_call_clear(&call);
    aws_backend.close(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, data + size};
    size_t choice = take(&input, 1);
    struct token_settings settings = {.label = (char *)"fuzz", .deadline = 10 * CLOCK_SECOND};
    if (choice & NAMED)
        settings.profile = (char *)"p";
    else
        settings.region = (char *)"eu-west-1";
    surround(choice);
    take_bytes(&input, &config);
    take_bytes(&input, &credentials_file);
    log_in(&settings, choice & PIN ? "id:secret:token" : "", &input);
    return 0;
}
