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
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "backends.h"
#include "base/clock.h"
#include "base/error.h"
#include "local.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct target {
    const struct backend *backend;
    struct token_settings settings;
    const char *key, *label;
    const char *blobs[2]; /* of its form, so that decrypting gets as far as asking */
    bool rsa;             /* its key does OAEP and nothing else */
    bool remembers;       /* what its service said, so it is opened anew for each input */
    const char *login;    /* the id of its credentials, where the backend keeps something there */
    const char *environment[2][2];
    void *state;
};

#define GCP_RING "projects/p/locations/l/keyRings/r"

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
     .blobs = {"vault:v1:AAAA", "vault:v2:AAAA"},
     .remembers = true},
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
     .settings = {.key_ring = (char *)GCP_RING, .auth = (char *)"metadata"},
     .key = GCP_RING "/cryptoKeys/kek",
     .label = "made",
     .blobs = {"in", "in"}},
    /* The first ones end here: choose() knows how many they are. */
    {.backend = &gcp_backend,
     .settings = {.key_ring = (char *)GCP_RING,
                  .auth = (char *)"service-account",
                  .credentials_file = (char *)"account.json"},
     .key = GCP_RING "/cryptoKeys/kek/cryptoKeyVersions/1",
     .label = "made",
     .blobs = {"in", "in"},
     .rsa = true},
    {.backend = &gcp_backend,
     .settings = {.key_ring = (char *)GCP_RING,
                  .auth = (char *)"workload-identity",
                  .credentials_file = (char *)"from-file.json"},
     .key = GCP_RING "/cryptoKeys/kek",
     .label = "made",
     .blobs = {"in", "in"}},
    {.backend = &gcp_backend,
     .settings = {.key_ring = (char *)GCP_RING,
                  .auth = (char *)"workload-identity",
                  .credentials_file = (char *)"from-address.json"},
     .key = GCP_RING "/cryptoKeys/kek",
     .label = "made",
     .blobs = {"in", "in"}},
    {.backend = &azure_backend,
     .settings = {.address = (char *)"https://v.vault.azure.net",
                  .auth = (char *)"client-certificate",
                  .tenant = (char *)"contoso.example",
                  .client_id = (char *)"client",
                  .credentials_file = (char *)"certificate.pem"},
     .key = "kek/1",
     .label = "made",
     .blobs = {"azure1:1:::AAAA", "azure1:2:::AAAA"}},
    {.backend = &azure_backend, /* Azure Arc */
     .settings = {.address = (char *)"https://v.vault.azure.net", .auth = (char *)"managed-identity"},
     .environment = {{"IDENTITY_ENDPOINT", "http://127.0.0.1:40342/metadata/identity/oauth2/token"},
                     {"IMDS_ENDPOINT", "http://127.0.0.1:40342"}},
     .key = "kek/1",
     .label = "made",
     .blobs = {"azure1:1:::AAAA", "azure1:2:::AAAA"}},
    {.backend = &azure_backend, /* App Service; its header is read at each login, so it is opened last of these */
     .settings = {.address = (char *)"https://v.vault.azure.net", .auth = (char *)"managed-identity"},
     .environment = {{"IDENTITY_ENDPOINT", "http://169.254.129.2:8081/msi/token"}, {"IDENTITY_HEADER", "proof"}},
     .key = "kek/1",
     .label = "made",
     .blobs = {"azure1:1:::AAAA", "azure1:2:::AAAA"}},
    {.backend = &bao_backend, /* a token of one's own */
     .settings = {.address = (char *)"https://127.0.0.1:8200", .auth = (char *)"token"},
     .environment = {{"BAO_TOKEN", "hvs.mine"}},
     .key = "kek",
     .label = "made",
     .blobs = {"vault:v1:AAAA", "vault:v2:AAAA"}},
    {.backend = &bao_backend, /* a login that can be renewed */
     .settings = {.address = (char *)"https://127.0.0.1:8200", .auth = (char *)"approle", .role = (char *)"role"},
     .key = "kek",
     .label = "made",
     .blobs = {"vault:v1:AAAA", "vault:v2:AAAA"},
     .remembers = true,
     .login = "3600"},
};
enum { OAEP_MAX = 1024 };
enum { TARGET_COUNT = sizeof targets / sizeof targets[0], OPERATION_COUNT = BACKEND_RANDOM + 1, ITEM_COUNT = 4 };

/* What only some backends offer. */
static const struct {
    enum backend_op op, each;
} more[] = {{BACKEND_DATA_KEY, BACKEND_AUTHENTICATE}, {BACKEND_VERSIONS, BACKEND_AUTHENTICATE},
            {BACKEND_ROTATE, BACKEND_AUTHENTICATE},   {BACKEND_SET_VERSIONS, BACKEND_AUTHENTICATE},
            {BACKEND_BATCH, BACKEND_ENCRYPT},         {BACKEND_BATCH, BACKEND_DECRYPT},
            {BACKEND_BATCH, BACKEND_REWRAP}};
enum { MORE_COUNT = sizeof more / sizeof more[0] };

/* ---- byte 0 ---- */

struct choice {
    const struct target *target;
    enum backend_op op, each;
    bool more;
};

/* A byte keeps the meaning that it has in the corpus: what is new comes last. */
static struct choice choose(size_t byte)
{
    enum { FIRST = 5, FIRST_BYTES = FIRST * OPERATION_COUNT, MORE_BYTES = FIRST * MORE_COUNT };
    if (byte < FIRST_BYTES)
        return (struct choice){.target = &targets[byte / OPERATION_COUNT],
                               .op = (enum backend_op)(byte % OPERATION_COUNT)};
    byte -= FIRST_BYTES;
    if (byte < MORE_BYTES)
        return (struct choice){.target = &targets[byte / MORE_COUNT],
                               .op = more[byte % MORE_COUNT].op,
                               .each = more[byte % MORE_COUNT].each,
                               .more = true};
    byte -= MORE_BYTES;
    return (struct choice){.target = &targets[FIRST + byte / OPERATION_COUNT % (TARGET_COUNT - FIRST)],
                           .op = (enum backend_op)(byte % OPERATION_COUNT)};
}

/* ---- the files there are: what reads one is linked to ask here (-Wl,--wrap) ---- */

#define EXTERNAL_ACCOUNT(source, more)                                                                                 \
    "{\"type\":\"external_account\",\"audience\":\"//iam.googleapis.com/pool\",\"subject_token_type\":"                \
    "\"urn:ietf:params:oauth:token-type:jwt\",\"credential_source\":" source more "}"

static struct {
    const char *path, *text;
    struct buffer made; /* with text NULL */
} files[] = {
    {.path = "account.json"},
    {.path = "certificate.pem"},
    {.path = "from-file.json",
     .text = EXTERNAL_ACCOUNT("{\"file\":\"subject\"}",
                              ",\"service_account_impersonation_url\":\"https://iamcredentials.googleapis.com/v1/"
                              "projects/-/serviceAccounts/a:generateAccessToken\"")},
    {.path = "from-address.json",
     .text = EXTERNAL_ACCOUNT("{\"url\":\"http://169.254.169.254/token\",\"headers\":{\"Metadata\":\"True\"},"
                              "\"format\":{\"type\":\"json\",\"subject_token_field_name\":\"token\"}}",
                              "")},
    {.path = "subject", .text = "eyJh.eyJi.sig"},
    {.path = "/var/opt/azcmagent/tokens/proof.key", .text = "proof"},
};
enum { FILE_COUNT = sizeof files / sizeof files[0] };

envelope_status __wrap_local_read(const char *path, struct buffer *contents);
envelope_status __wrap_local_read(const char *path, struct buffer *contents)
{
    for (size_t i = 0; i < FILE_COUNT; i++)
        if (strcmp(path, files[i].path) == 0) {
            buffer_reset(contents);
            buffer_append_text(contents, files[i].text ? files[i].text : buffer_text(&files[i].made));
            return buffer_ok(contents) ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
        }
    return error_raise(ENVELOPE_E_IO, "\"%s\" cannot be opened: there is no such file", path);
}

static void append_pem(struct buffer *to, BIO *pem)
{
    char *text;
    long length = BIO_get_mem_data(pem, &text);
    assert(length > 0);
    buffer_append(to, text, (size_t)length);
    BIO_free(pem);
}

/* A service account's file, and a certificate with its key. */
static void make_files(void)
{
    struct buffer key_text = {0}, *account = &files[0].made, *both = &files[1].made;
    EVP_PKEY *key = EVP_RSA_gen(2048);
    X509 *certificate = X509_new();
    BIO *pem = BIO_new(BIO_s_mem());
    assert(key && certificate && pem && PEM_write_bio_PKCS8PrivateKey(pem, key, NULL, NULL, 0, NULL, NULL));
    append_pem(&key_text, pem);
    buffer_append_text(account, "{\"type\":\"service_account\",\"client_email\":\"a@p.example\",\"private_key\":\"");
    for (const char *from = buffer_text(&key_text); *from; from++)
        buffer_append(account, *from == '\n' ? "\\n" : from, *from == '\n' ? 2 : 1);
    buffer_append_text(account, "\"}");
    assert(X509_set_pubkey(certificate, key) && X509_gmtime_adj(X509_getm_notBefore(certificate), 0) &&
           X509_gmtime_adj(X509_getm_notAfter(certificate), 86400) && X509_sign(certificate, key, EVP_sha256()));
    pem = BIO_new(BIO_s_mem());
    assert(pem && PEM_write_bio_X509(pem, certificate));
    buffer_append_text(both, buffer_text(&key_text));
    append_pem(both, pem);
    assert(buffer_ok(account) && buffer_ok(both));
    buffer_clear(&key_text);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

/* Always then, so that an input does not change with the time: 2026-01-01. */
static int64_t stopped_clock(void)
{
    return 1767225600 * CLOCK_SECOND;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    /* No credentials but a target's own or instance metadata, so that AUTHENTICATE asks questions too. */
    static const char *const names[] = {
        "AWS_ACCESS_KEY_ID",         "AWS_PROFILE",     "AWS_ROLE_ARN",         "AWS_ENDPOINT_URL",
        "AWS_EC2_METADATA_DISABLED", "AZURE_CLIENT_ID", "AZURE_AUTHORITY_HOST", "IDENTITY_ENDPOINT",
        "IDENTITY_HEADER",           "IMDS_ENDPOINT"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1);
    clock_set_source(stopped_clock);
    make_files();
    for (size_t i = 0; i < TARGET_COUNT; i++) {
        struct target *target = &targets[i];
        for (size_t at = 0; at < 2 && target->environment[at][0]; at++)
            setenv(target->environment[at][0], target->environment[at][1], 1);
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
    static const long rarer[] = {401, 429, 409, 302, 408, 502, 201, 405};
    http_reply_clear(reply);
    size_t kind = take(input, 1);
    reply->status = (kind & 0x10 ? rarer : statuses)[kind & 7];
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
static bool prepare_more(const struct choice *choice, size_t size, struct backend_call *call,
                         struct backend_item items[ITEM_COUNT])
{
    call->each = choice->each;
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
    return backend_offers(choice->target->backend, call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, data + size};
    struct choice choice = choose(take(&input, 1));
    const struct target *target = choice.target;
    struct backend_item items[ITEM_COUNT];
    const struct backend *backend = target->backend;
    struct credentials *credentials = credentials_new(target->login ? target->login : "AKID", "SECRET", "TOKEN", 0);
    void *state = target->state;
    if (target->remembers)
        assert(backend->open(&target->settings, &state) == ENVELOPE_OK);
    const char *blob = target->blobs[size >> 4 & 1];
    enum backend_cipher cipher = size & 4 && backend->oaep_sha256 ? BACKEND_OAEP_SHA256
                                 : target->rsa                    ? BACKEND_OAEP_SHA1
                                                                  : BACKEND_AEAD;
    struct backend_call call = {.op = choice.op,
                                .key = target->key,
                                .key_to = target->key,
                                .label = target->label,
                                .bits = 256,
                                .cipher = cipher,
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
    bool offered = !choice.more || prepare_more(&choice, size, &call, items);
    enum backend_step step = offered ? backend->step(state, &call, NULL, &request) : BACKEND_DONE;
    while ((step == BACKEND_SEND || step == BACKEND_RETRY) && input.at < input.end) {
        next_reply(&input, &reply);
        if (reply.transport != HTTP_OK && !request.optional)
            break;
        step = backend->step(state, &call, &reply, &request);
        check_outcome(backend, &call, step);
    }
    http_request_clear(&request);
    http_reply_clear(&reply);
    for (size_t i = 0; offered && i < call.item_count; i++)
        backend_item_reset(&items[i]);
    backend_call_clear(&call);
    credentials_unref(credentials);
    if (target->remembers)
        backend->close(state);
    return 0;
}
