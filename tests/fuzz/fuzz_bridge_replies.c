/*
 * What a key service, or something in its place, may answer: any bytes at all, at any step of any operation. Input:
 * byte 0 chooses the backend and the operation (below), then replies, each as a status, a header and a body with their
 * lengths. Besides not crashing: a call ends within its replies, a failure has its code and its text,
 * and a success has a result within the limits the backend states.
 */
#undef NDEBUG /* the checks are the point, in every build type */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "backends.h"
#include "base/clock.h"
#include "base/error.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct target {
    const struct backend *backend;
    struct token_settings settings;
    const char *key, *label;
    const char *blobs[2]; /* of its form, so that decrypting gets as far as asking */
    void *state;
};

static struct target targets[] = {
    {.backend = &aws_backend,
     .settings = {.region = (char *)"eu-west-1", .pending_days = 7},
     .key = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
     .label = "alias/x",
     .blobs = {"in", "in"}},
    {.backend = &bao_backend,
     .settings = {.address = (char *)"https://127.0.0.1:8200", .auth = (char *)"approle", .role = (char *)"role"},
     .key = "kek",
     .label = "made",
     .blobs = {"vault:v1:AAAA", "vault:v2:AAAA"}},
    {.backend = &azure_backend,
     .settings = {.address = (char *)"https://v.vault.azure.net", .auth = (char *)"managed-identity"},
     .key = "kek/1",
     .label = "made",
     .blobs = {"azure1:1:::AAAA", "azure1:2:::AAAA"}},
    {.backend = &azure_hsm_backend,
     .settings = {.address = (char *)"https://h.managedhsm.azure.net", .auth = (char *)"managed-identity"},
     .key = "kek/1",
     .label = "made",
     .blobs = {"azure1:1:AAAA:AAAA:AAAA", "azure1:1:::AAAA"}},
    {.backend = &gcp_backend,
     .settings = {.key_ring = (char *)"projects/p/locations/l/keyRings/r", .auth = (char *)"metadata"},
     .key = "projects/p/locations/l/keyRings/r/cryptoKeys/kek",
     .label = "made",
     .blobs = {"in", "in"}},
};
enum { OAEP_MAX = 1024 };
enum { TARGET_COUNT = sizeof targets / sizeof targets[0], OPERATION_COUNT = BACKEND_RANDOM + 1, ITEM_COUNT = 4 };

/* What only some backends offer: these come behind OPERATION_COUNT bytes for each target. */
static const struct {
    enum backend_op op, each;
} more[] = {{BACKEND_DATA_KEY, BACKEND_AUTHENTICATE}, {BACKEND_VERSIONS, BACKEND_AUTHENTICATE},
            {BACKEND_ROTATE, BACKEND_AUTHENTICATE},   {BACKEND_SET_VERSIONS, BACKEND_AUTHENTICATE},
            {BACKEND_BATCH, BACKEND_ENCRYPT},         {BACKEND_BATCH, BACKEND_DECRYPT},
            {BACKEND_BATCH, BACKEND_REWRAP}};
enum { MORE_COUNT = sizeof more / sizeof more[0] };

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    /* No credentials but instance metadata, so that AUTHENTICATE asks questions too. */
    static const char *const names[] = {
        "AWS_ACCESS_KEY_ID",         "AWS_PROFILE",    "AWS_ROLE_ARN", "AWS_ENDPOINT_URL",
        "AWS_EC2_METADATA_DISABLED", "AZURE_CLIENT_ID"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1);
    for (size_t i = 0; i < TARGET_COUNT; i++) {
        struct target *target = &targets[i];
        target->settings.label = (char *)"fuzz";
        target->settings.backend = (char *)target->backend->name;
        target->settings.deadline = 10 * CLOCK_SECOND;
        assert(target->backend->open(&target->settings, &target->state) == ENVELOPE_OK);
    }
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

static void check_items(const struct backend *backend, const struct backend_call *call)
{
    for (size_t i = 0; i < call->item_count; i++) {
        const struct backend_item *item = &call->items[i];
        assert(item->settled);
        assert(item->rv == CKR_OK ? !item->text : item->text && *item->text && !item->out_length);
        assert(item->out_at + item->out_length <= call->out.length);
        assert(item->out_length <= (call->each == BACKEND_DECRYPT ? backend->max_plaintext : backend->max_ciphertext));
    }
}

static void check_outcome(const struct backend *backend, const struct backend_call *call, enum backend_step step)
{
    /* What OAEP makes has the size of the modulus. */
    bool oaep = call->cipher != BACKEND_AEAD;
    size_t most_out = oaep && backend->max_ciphertext < OAEP_MAX ? OAEP_MAX : backend->max_ciphertext;
    size_t most_in = oaep && backend->max_plaintext < OAEP_MAX ? OAEP_MAX : backend->max_plaintext;
    if (step == BACKEND_DONE) {
        if (call->op == BACKEND_ENCRYPT || call->op == BACKEND_REWRAP)
            assert(call->out.length <= most_out);
        if (call->op == BACKEND_DECRYPT)
            assert(call->out.length <= most_in);
        if (call->op == BACKEND_RANDOM)
            assert(call->out.length == call->length);
        for (size_t i = 0; i < call->keys.count; i++)
            assert(call->keys.items[i].id && call->keys.items[i].label && call->keys.items[i].bits);
        assert(call->op != BACKEND_AUTHENTICATE || call->made);
        if (call->op == BACKEND_DATA_KEY) {
            assert(call->out.length <= backend->max_ciphertext);
            assert(call->plaintext.length == (call->wants_plaintext && !call->dry_run ? call->length : 0));
        }
        if (call->op == BACKEND_VERSIONS)
            assert(call->versions.latest > 0 && call->versions.min_decryption > 0);
        if (call->op == BACKEND_BATCH)
            check_items(backend, call);
    } else if (step != BACKEND_SEND) {
        assert(call->rv != CKR_OK && *error_text());
    }
}

/* One of the operations in `more`, if the backend offers it. */
static bool choose_more(const struct target *target, size_t choice, size_t size, struct backend_call *call,
                        struct backend_item items[ITEM_COUNT])
{
    call->op = more[choice % MORE_COUNT].op;
    call->each = more[choice % MORE_COUNT].each;
    call->cipher = BACKEND_AEAD;
    call->length = 32;
    call->wants_plaintext = size & 1;
    call->versions.min_decryption = 2;
    if (call->op == BACKEND_BATCH)
        call->items = items;
    call->item_count = call->op == BACKEND_BATCH ? ITEM_COUNT : 0;
    for (size_t i = 0; i < call->item_count; i++) {
        bool bound = i & 1;
        items[i] = (struct backend_item){.in = call->in,
                                         .in_length = call->in_length,
                                         .aad = (const uint8_t *)"aad",
                                         .aad_length = bound ? 3 : 0,
                                         .aad_to = (const uint8_t *)"to",
                                         .aad_to_length = bound ? 2 : 0,
                                         .dry_run = i == 2};
    }
    if (call->op == BACKEND_DATA_KEY)
        call->has_aad = false;
    return backend_offers(target->backend, call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, data + size};
    size_t choice = take(&input, 1);
    bool old = choice < TARGET_COUNT * OPERATION_COUNT;
    size_t rest = old ? choice : choice - TARGET_COUNT * OPERATION_COUNT;
    const struct target *target = &targets[rest / (old ? OPERATION_COUNT : MORE_COUNT) % TARGET_COUNT];
    struct backend_item items[ITEM_COUNT];
    const struct backend *backend = target->backend;
    struct credentials *credentials = credentials_new("AKID", "SECRET", "TOKEN", 0);
    const char *blob = target->blobs[size >> 4 & 1];
    struct backend_call call = {.op = (enum backend_op)(rest % OPERATION_COUNT),
                                .key = target->key,
                                .key_to = target->key,
                                .label = target->label,
                                .bits = 256,
                                .cipher = size & 4 && backend->oaep_sha256 ? BACKEND_OAEP_SHA256 : BACKEND_AEAD,
                                .in = (const uint8_t *)blob,
                                .in_length = strlen(blob),
                                .length = 40,
                                .pin = "",
                                .credentials = credentials};
    if (size & 8 && call.cipher == BACKEND_AEAD) {
        call.has_aad = call.has_aad_to = true;
        call.aad = call.aad_to = (const uint8_t *)"aad";
        call.aad_length = call.aad_to_length = 3;
    }
    if (call.op == BACKEND_REWRAP)
        call.cipher = BACKEND_AEAD;
    struct http_request request = {0};
    struct http_reply reply = {0};
    if (call.op == BACKEND_CREATE && size & 1) {
        call.type = BACKEND_KEY_RSA;
        call.bits = 2048;
    }
    call.dry_run = size & 2;
    error_clear();
    bool offered = old || choose_more(target, rest, size, &call, items);
    enum backend_step step = offered ? backend->step(target->state, &call, NULL, &request) : BACKEND_DONE;
    while ((step == BACKEND_SEND || step == BACKEND_RETRY) && input.at < input.end) {
        next_reply(&input, &reply);
        if (reply.transport != HTTP_OK && !request.optional)
            break;
        step = backend->step(target->state, &call, &reply, &request);
        check_outcome(backend, &call, step);
    }
    http_request_clear(&request);
    http_reply_clear(&reply);
    for (size_t i = 0; offered && i < call.item_count; i++)
        backend_item_reset(&items[i]);
    backend_call_clear(&call);
    credentials_unref(credentials);
    return 0;
}
