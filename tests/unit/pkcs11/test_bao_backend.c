/*
 * The OpenBao backend without a network: the requests it makes, and what it makes of replies. The replies are a real
 * server's (tests/rigs/bao.sh runs against one), then cut short and damaged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "backends.h"
#include "base/clock.h"
#include "base/error.h"

#define ENVELOPE_REPLY(data)                                                                                           \
    "{\"request_id\":\"05981f22-2df3-f52a-457a-ac29af2b6983\",\"lease_id\":\"\",\"renewable\":false,"                  \
    "\"lease_duration\":0,\"data\":" data ",\"wrap_info\":null,\"warnings\":null,\"auth\":null}\n"
#define KEY_REPLY(flags, keys, latest, oldest, type)                                                                   \
    ENVELOPE_REPLY("{\"allow_plaintext_backup\":false,\"auto_rotate_period\":0,\"deletion_allowed\":false," flags      \
                   "\"imported_key\":false,\"keys\":" keys ",\"latest_version\":" latest                               \
                   ",\"min_available_version\":0,\"min_decryption_version\":" oldest                                   \
                   ",\"min_encryption_version\":0,\"name\":\"kek\",\"supports_decryption\":true,"                      \
                   "\"supports_derivation\":true,\"supports_encryption\":true,\"supports_signing\":false,\"type\":"    \
                   "\"" type "\"}")
#define PLAIN_FLAGS "\"derived\":false,\"exportable\":false,"
#define LOGIN_REPLY(token, lease)                                                                                      \
    "{\"request_id\":\"e18eee1a\",\"lease_id\":\"\",\"renewable\":false,\"lease_duration\":0,\"data\":null,"           \
    "\"wrap_info\":null,\"warnings\":null,\"auth\":{\"client_token\":\"" token "\",\"accessor\":\"a\",\"policies\":"   \
    "[\"default\",\"envelope\"],\"lease_duration\":" lease ",\"renewable\":true,\"entity_id\":\"e\","                  \
    "\"token_type\":\"service\",\"orphan\":true,\"mfa_requirement\":null,\"num_uses\":0}}\n"
#define PEM_2048                                                                                                       \
    "-----BEGIN PUBLIC KEY-----\\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA\\n-----END PUBLIC KEY-----\\n"

static const char key_reply[] = KEY_REPLY(PLAIN_FLAGS, "{\"1\":1795391416}", "1", "1", "aes256-gcm96");
static const char rsa_reply[] = KEY_REPLY(
    PLAIN_FLAGS,
    "{\"1\":{\"creation_time\":\"2026-11-22T23:50:16.59048618Z\",\"name\":\"rsa-2048\",\"public_key\":\"x\"},"
    "\"2\":{\"creation_time\":\"2026-11-23T23:50:16Z\",\"name\":\"rsa-2048\",\"public_key\":\"" PEM_2048 "\"}}",
    "2", "1", "rsa-2048");
static const char encrypted_reply[] =
    ENVELOPE_REPLY("{\"ciphertext\":\"vault:v1:8BWaZDlF7nPtiwr4D0tYcPOm8ARVMkrbG2BXilb2z8n8\",\"key_version\":1}");
static const char decrypted_reply[] = ENVELOPE_REPLY("{\"plaintext\":\"aGVsbG8=\"}");
static const char blob[] = "vault:v1:8BWaZDlF7nPtiwr4D0tYcPOm8ARVMkrbG2BXilb2z8n8";
static const char not_found[] = "{\"errors\":[]}\n";
static const char denied[] = "{\"errors\":[\"1 error occurred:\\n\\t* permission denied\\n\\n\"]}\n";

/* One backend, one call, the request it last made. */
struct bench {
    struct token_settings settings;
    void *state;
    struct backend_call call;
    struct http_request request;
    enum backend_step step;
};

static void bench_open(struct bench *bench)
{
    if (!bench->settings.address)
        bench->settings.address = (char *)"https://127.0.0.1:8200/";
    if (!bench->settings.auth)
        bench->settings.auth = (char *)"token";
    bench->settings.label = (char *)"bao";
    bench->settings.backend = (char *)"openbao";
    bench->settings.deadline = 10 * CLOCK_SECOND;
    if (bao_backend.open(&bench->settings, &bench->state) != ENVELOPE_OK)
        fail_msg("%s", error_text());
    bench->call.credentials = credentials_new("3600", NULL, "hvs.secret", 0);
    assert_non_null(bench->call.credentials);
}

static void bench_close(struct bench *bench)
{
    backend_call_clear(&bench->call);
    credentials_unref(bench->call.credentials);
    http_request_clear(&bench->request);
    bao_backend.close(bench->state);
}

/* The next step, as token.c takes it; body NULL: the first. */
static enum backend_step take(struct bench *bench, long status, const char *body, size_t length)
{
    struct http_reply reply = {.status = status};
    if (body)
        buffer_append(&reply.body, body, length);
    bench->step = bao_backend.step(bench->state, &bench->call, body ? &reply : NULL, &bench->request);
    http_reply_clear(&reply);
    return bench->step;
}

static enum backend_step begin(struct bench *bench)
{
    return take(bench, 0, NULL, 0);
}

static enum backend_step reply(struct bench *bench, long status, const char *body)
{
    return take(bench, status, body, strlen(body));
}

static bool has_header(const struct bench *bench, const char *line)
{
    const char *at = buffer_text(&bench->request.headers), *end = at + bench->request.headers.length;
    for (; at < end; at += strlen(at) + 1)
        if (strcmp(at, line) == 0)
            return true;
    return false;
}

static void assert_request(const struct bench *bench, enum http_method method, const char *path, const char *body)
{
    char url[256];
    assert_int_equal(bench->step, BACKEND_SEND);
    assert_int_equal(bench->request.method, method);
    snprintf(url, sizeof url, "https://127.0.0.1:8200/v1/%s", path);
    assert_string_equal(bench->request.url, url);
    assert_string_equal(buffer_text(&bench->request.body), body);
}

static void assert_refused(const struct bench *bench, enum backend_step step, CK_RV rv, const char *words)
{
    assert_int_equal(bench->step, step);
    if (bench->call.rv != rv || !strstr(error_text(), words))
        fail_msg("rv 0x%lx (wanted 0x%lx): %s", bench->call.rv, rv, error_text());
}

static struct backend_call crypt_call(enum backend_op op, const void *in, const char *aad)
{
    return (struct backend_call){.op = op,
                                 .key = "kek",
                                 .in = in,
                                 .in_length = strlen(in),
                                 .has_aad = aad != NULL,
                                 .aad = (const uint8_t *)aad,
                                 .aad_length = aad ? strlen(aad) : 0};
}

/* ---- encrypt, decrypt, rewrap, random ---- */

static void encryption_reads_the_key_and_then_sends_the_plaintext(void **unused)
{
    (void)unused;
    struct bench bench = {.settings.name_space = (char *)"team-a", .call = crypt_call(BACKEND_ENCRYPT, "hello", "aad")};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    assert_true(has_header(&bench, "X-Vault-Token: hvs.secret"));
    assert_true(has_header(&bench, "X-Vault-Namespace: team-a"));
    assert_true(has_header(&bench, "X-Vault-Request: true"));
    reply(&bench, 200, key_reply);
    assert_request(&bench, HTTP_POST, "transit/encrypt/kek",
                   "{\"plaintext\":\"aGVsbG8=\",\"associated_data\":\"YWFk\"}");
    assert_true(has_header(&bench, "Content-Type: application/json"));
    assert_int_equal(reply(&bench, 200, encrypted_reply), BACKEND_DONE);
    assert_int_equal(bench.call.rv, CKR_OK);
    assert_string_equal(buffer_text(&bench.call.out), blob);
    assert_string_equal(bench.call.request_id, "05981f22-2df3-f52a-457a-ac29af2b6983");
    bench_close(&bench);
}

static void a_missing_key_is_never_encrypted_with(void **unused)
{
    (void)unused;
    struct bench bench = {.call = crypt_call(BACKEND_ENCRYPT, "hello", NULL)};
    bench_open(&bench);
    begin(&bench);
    reply(&bench, 404, not_found);
    assert_refused(&bench, BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "was it deleted?");
    bench_close(&bench);
}

static void keys_in_a_state_or_of_a_type_that_forbids_it_do_not_encrypt(void **unused)
{
    (void)unused;
    static const struct {
        const char *reply;
        CK_RV rv;
        const char *words;
    } cases[] = {
        {KEY_REPLY("\"derived\":true,\"exportable\":false,", "{\"1\":1}", "1", "1", "aes256-gcm96"),
         CKR_KEY_FUNCTION_NOT_PERMITTED, "Derived"},
        {KEY_REPLY("\"derived\":false,\"exportable\":true,", "{\"1\":1}", "1", "1", "aes256-gcm96"),
         CKR_KEY_FUNCTION_NOT_PERMITTED, "Exportable"},
        {KEY_REPLY("\"soft_deleted\":true," PLAIN_FLAGS, "{\"1\":1}", "1", "1", "aes256-gcm96"),
         CKR_KEY_FUNCTION_NOT_PERMITTED, "SoftDeleted"},
        {KEY_REPLY(PLAIN_FLAGS, "{\"1\":1}", "1", "1", "chacha20-poly1305"), CKR_KEY_TYPE_INCONSISTENT, "chacha20"},
        {KEY_REPLY(PLAIN_FLAGS, "{\"1\":1}", "1", "1", "rsa-4096"), CKR_KEY_TYPE_INCONSISTENT, "rsa-4096"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench = {.call = crypt_call(BACKEND_ENCRYPT, "hello", NULL)};
        bench_open(&bench);
        begin(&bench);
        reply(&bench, 200, cases[i].reply);
        assert_refused(&bench, BACKEND_FAILED, cases[i].rv, cases[i].words);
        bench_close(&bench);
    }
}

static void decryption_sends_the_ciphertext_as_it_stands(void **unused)
{
    (void)unused;
    struct bench bench = {.call = crypt_call(BACKEND_DECRYPT, blob, "aad"), .settings.mount = (char *)"/team/transit/"};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "team/transit/decrypt/kek",
                   "{\"ciphertext\":\"vault:v1:8BWaZDlF7nPtiwr4D0tYcPOm8ARVMkrbG2BXilb2z8n8\","
                   "\"associated_data\":\"YWFk\"}");
    assert_int_equal(reply(&bench, 200, decrypted_reply), BACKEND_DONE);
    assert_int_equal(bench.call.out.length, 5);
    assert_memory_equal(bench.call.out.bytes, "hello", 5);
    bench_close(&bench);
}

static void a_dry_run_brings_no_plaintext(void **unused)
{
    (void)unused;
    struct bench bench = {.call = crypt_call(BACKEND_DECRYPT, blob, NULL)};
    bench.call.dry_run = true;
    bench_open(&bench);
    begin(&bench);
    assert_int_equal(reply(&bench, 200, decrypted_reply), BACKEND_DONE);
    assert_int_equal(bench.call.out.length, 0);
    bench_close(&bench);
}

static void what_is_no_ciphertext_is_not_sent(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"",
                                      "vault:v",
                                      "vault:v1",
                                      "vault:v1:",
                                      "vault:v:AA",
                                      "vault:vx:AA==",
                                      "vault:v1:AA\"}",
                                      "vault:v1:AA AA",
                                      "kms:v1:AA",
                                      "vault:v1:A\\A",
                                      "vault:v12345678901:AAAA"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct bench bench = {.call = crypt_call(BACKEND_DECRYPT, bad[i], NULL)};
        bench_open(&bench);
        begin(&bench);
        assert_refused(&bench, BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, "vault:vN");
        bench_close(&bench);
    }
}

static void key_names_that_would_change_the_path_are_not_sent(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"", "..", "a/b", "a?b", "a b", "a%2fb", ".a", "a.", "a\nb", "k\xC3\xA9k"};
    static const enum backend_op ops[] = {BACKEND_ENCRYPT, BACKEND_DECRYPT, BACKEND_DELETE};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (size_t op = 0; op < sizeof ops / sizeof ops[0]; op++) {
            struct bench bench = {.call = crypt_call(ops[op], blob, NULL), .settings.destroy = true};
            bench.call.key = bad[i];
            bench_open(&bench);
            begin(&bench);
            assert_refused(&bench, BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "cannot be a transit key");
            bench_close(&bench);
        }
}

static void rewrap_stays_inside_only_within_one_key_and_without_associated_data(void **unused)
{
    (void)unused;
    struct bench bench = {.call = crypt_call(BACKEND_REWRAP, blob, NULL)};
    bench.call.key_to = "kek";
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "transit/rewrap/kek",
                   "{\"ciphertext\":\"vault:v1:8BWaZDlF7nPtiwr4D0tYcPOm8ARVMkrbG2BXilb2z8n8\"}");
    assert_int_equal(reply(&bench, 200, encrypted_reply), BACKEND_DONE);
    assert_string_equal(buffer_text(&bench.call.out), blob);
    assert_false(bench.call.plaintext_left);
    bench_close(&bench);

    /* To another key, or with associated data on either side: decrypt, read the new key, encrypt. */
    for (int variant = 0; variant < 3; variant++) {
        struct bench other = {.call = crypt_call(BACKEND_REWRAP, blob, variant == 1 ? "old" : NULL)};
        other.call.key_to = variant == 0 ? "new-kek" : "kek";
        other.call.has_aad_to = variant == 2;
        other.call.aad_to = (const uint8_t *)"new";
        other.call.aad_to_length = variant == 2 ? 3 : 0;
        bench_open(&other);
        begin(&other);
        assert_non_null(strstr(other.request.url, "/transit/decrypt/kek"));
        reply(&other, 200, decrypted_reply);
        assert_request(&other, HTTP_GET, variant == 0 ? "transit/keys/new-kek" : "transit/keys/kek", "");
        reply(&other, 200, key_reply);
        assert_request(&other, HTTP_POST, variant == 0 ? "transit/encrypt/new-kek" : "transit/encrypt/kek",
                       variant == 2 ? "{\"plaintext\":\"aGVsbG8=\",\"associated_data\":\"bmV3\"}"
                                    : "{\"plaintext\":\"aGVsbG8=\"}");
        assert_int_equal(reply(&other, 200, encrypted_reply), BACKEND_DONE);
        assert_true(other.call.plaintext_left);
        bench_close(&other);
    }
}

static void an_rsa_ciphertext_is_tried_with_each_version_from_the_newest(void **unused)
{
    (void)unused;
    static const char refused[] =
        "{\"errors\":[\"1 error occurred:\\n\\t* failed to RSA decrypt the ciphertext: crypto/rsa: decryption "
        "error\\n\\n\"]}";
    uint8_t bare[256];
    memset(bare, 0, sizeof bare);
    for (int found = 0; found < 2; found++) {
        struct bench bench = {.call = {.op = BACKEND_DECRYPT, .key = "kek", .cipher = BACKEND_OAEP_SHA256, .in = bare}};
        bench.call.in_length = sizeof bare;
        bench_open(&bench);
        begin(&bench);
        assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
        reply(&bench, 200, rsa_reply);
        assert_non_null(strstr(buffer_text(&bench.request.body), "\"vault:v2:AAAA"));
        reply(&bench, 500, refused); /* 500, and yet an answer: not to be tried again */
        assert_int_equal(bench.step, BACKEND_SEND);
        assert_non_null(strstr(buffer_text(&bench.request.body), "\"vault:v1:AAAA"));
        if (found) {
            assert_int_equal(reply(&bench, 200, decrypted_reply), BACKEND_DONE);
            assert_int_equal(bench.call.out.length, 5);
        } else {
            reply(&bench, 500, refused);
            assert_refused(&bench, BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, "damaged");
        }
        bench_close(&bench);
    }
}

static void random_bytes_come_in_pieces_of_the_size_asked_for(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_RANDOM, .length = 5}};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "transit/random/5", "{\"format\":\"base64\"}");
    assert_int_equal(reply(&bench, 200, ENVELOPE_REPLY("{\"random_bytes\":\"aGVsbG8=\"}")), BACKEND_DONE);
    assert_int_equal(bench.call.out.length, 5);
    bench_close(&bench);
    struct bench shorter = {.call = {.op = BACKEND_RANDOM, .length = 6}};
    bench_open(&shorter);
    begin(&shorter);
    reply(&shorter, 200, ENVELOPE_REPLY("{\"random_bytes\":\"aGVsbG8=\"}"));
    assert_refused(&shorter, BACKEND_FAILED, CKR_DEVICE_ERROR, "random_bytes");
    bench_close(&shorter);
    struct bench longer = {.call = {.op = BACKEND_RANDOM, .length = 100000}};
    bench_open(&longer);
    begin(&longer);
    assert_request(&longer, HTTP_POST, "transit/random/65536", "{\"format\":\"base64\"}");
    bench_close(&longer);
}

/* ---- refusals ---- */

static void every_refusal_has_its_code(void **unused)
{
    (void)unused;
    static const struct {
        long status;
        const char *body;
        enum backend_step step;
        CK_RV rv;
        const char *words;
    } cases[] = {
        {400, "{\"errors\":[\"cipher: message authentication failed\"]}", BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID,
         "associated data"},
        {400, "{\"errors\":[\"invalid ciphertext: version is too new\"]}", BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID,
         "version is too new"},
        {400, "{\"errors\":[\"encryption key not found\"]}", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "deleted"},
        {400, "{\"errors\":[\"ciphertext or signature version is disallowed by policy (too old)\"]}", BACKEND_FAILED,
         CKR_KEY_FUNCTION_NOT_PERMITTED, "min_decryption_version"},
        {500, "{\"errors\":[\"refusing to use soft-deleted key\"]}", BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED,
         "restore"},
        {400, "{\"errors\":[\"'[0].associated_data' provided for non-AEAD cipher suite rsa-4096\"]}", BACKEND_FAILED,
         CKR_KEY_TYPE_INCONSISTENT, "aes256-gcm96"},
        {400, "{\"errors\":[\"something else\"]}", BACKEND_FAILED, CKR_FUNCTION_FAILED, "something else"},
        {403, denied, BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, "\"kek\": permission denied;"},
        {404, "{\"errors\":[\"no handler for route \\\"x/decrypt/kek\\\". route entry not found.\"]}", BACKEND_FAILED,
         CKR_DEVICE_ERROR, "mount"},
        {405, "{\"errors\":[\"unsupported operation\"]}", BACKEND_FAILED, CKR_FUNCTION_FAILED, "HTTP 405"},
        {412, "{\"errors\":[\"required index state not present\"]}", BACKEND_RETRY, CKR_DEVICE_ERROR, "HTTP 412"},
        {429, "{\"errors\":[\"request path \\\"x\\\": rate limit quota exceeded\"]}", BACKEND_RETRY, CKR_DEVICE_ERROR,
         "rate limit"},
        {472, "{}", BACKEND_RETRY, CKR_DEVICE_REMOVED, "standby"},
        {473, "", BACKEND_RETRY, CKR_DEVICE_REMOVED, "standby"},
        {307, "", BACKEND_RETRY, CKR_DEVICE_REMOVED, "standby"},
        {500, "{\"errors\":[\"internal error\"]}", BACKEND_RETRY, CKR_DEVICE_ERROR, "internal error"},
        {502, "<html>bad gateway</html>", BACKEND_RETRY, CKR_DEVICE_ERROR, "not an answer of OpenBao"},
        {503, "{\"errors\":[\"Vault is sealed\"]}", BACKEND_FAILED, CKR_DEVICE_REMOVED, "unseal"},
        {503, "{\"errors\":[\"OpenBao is sealed\"]}", BACKEND_FAILED, CKR_DEVICE_REMOVED, "unseal"},
        {503, "no server is available", BACKEND_RETRY, CKR_DEVICE_REMOVED, "HTTP 503"},
        {200, "<html>a captive portal</html>", BACKEND_FAILED, CKR_DEVICE_ERROR, "JSON"},
        {200, "{\"data\":{\"plaintext\":7}}", BACKEND_FAILED, CKR_DEVICE_ERROR, "plaintext"},
        {200, "{\"data\":{\"plaintext\":\"aGVsbG8\"}}", BACKEND_FAILED, CKR_DEVICE_ERROR, "plaintext"},
        {200, "[]", BACKEND_FAILED, CKR_DEVICE_ERROR, "plaintext"},
        {204, "", BACKEND_FAILED, CKR_DEVICE_ERROR, "plaintext"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench = {.call = crypt_call(BACKEND_DECRYPT, blob, "aad")};
        bench_open(&bench);
        begin(&bench);
        reply(&bench, cases[i].status, cases[i].body);
        assert_refused(&bench, cases[i].step, cases[i].rv, cases[i].words);
        assert_int_equal(bench.call.out.length, 0);
        bench_close(&bench);
    }
}

static void the_services_words_are_kept_and_printable(void **unused)
{
    (void)unused;
    struct bench bench = {.call = crypt_call(BACKEND_DECRYPT, blob, NULL)};
    bench_open(&bench);
    begin(&bench);
    reply(&bench, 400, "{\"errors\":[\"a\\u001b[31m\",\"b\\u0007\"]}");
    assert_string_equal(bench.call.service_code, "HTTP 400");
    assert_null(strchr(bench.call.service_message, '\x1b'));
    assert_null(strchr(error_text(), '\x07'));
    assert_non_null(strstr(bench.call.service_message, "; b"));
    bench_close(&bench);
}

/* ---- keys ---- */

static void keys_are_described(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_DESCRIBE, .key = "kek"}};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    assert_int_equal(reply(&bench, 200, key_reply), BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 1);
    const struct backend_key *key = bench.call.keys.items;
    assert_string_equal(key->id, "kek");
    assert_string_equal(key->label, "kek");
    assert_int_equal(key->type, BACKEND_KEY_SYMMETRIC);
    assert_int_equal(key->bits, 256);
    assert_true(key->can_encrypt && key->can_decrypt && key->enabled);
    assert_string_equal(key->state, "Enabled");
    assert_true(key->created == INT64_C(1795391416) * CLOCK_SECOND);
    bench_close(&bench);

    struct bench rsa = {.call = {.op = BACKEND_DESCRIBE, .key = "kek"}};
    bench_open(&rsa);
    begin(&rsa);
    assert_int_equal(reply(&rsa, 200, rsa_reply), BACKEND_DONE);
    key = rsa.call.keys.items;
    assert_int_equal(key->type, BACKEND_KEY_RSA);
    assert_int_equal(key->bits, 2048);
    assert_int_equal(key->public_key_length, 33);
    assert_memory_equal(key->public_key, "\x30\x82\x01\x22\x30\x0d\x06\x09", 8);
    assert_true(key->created == INT64_C(1795391416) * CLOCK_SECOND); /* 2026-11-22T23:50:16Z */
    bench_close(&rsa);
}

static void no_such_key_is_an_answer_and_no_such_engine_is_not(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_DESCRIBE, .key = "kek"}};
    bench_open(&bench);
    begin(&bench);
    assert_int_equal(reply(&bench, 404, not_found), BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 0);
    assert_int_equal(bench.call.rv, CKR_OK);
    begin(&bench);
    reply(&bench, 404, "{\"errors\":[\"no handler for route \\\"transit/keys/kek\\\". route entry not found.\"]}");
    assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "mount");
    bench.call.key = "not a name";
    assert_int_equal(begin(&bench), BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 0);
    bench_close(&bench);
}

static void a_list_shows_what_may_be_read(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_LIST}};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_LIST, "transit/keys", "");
    reply(&bench, 200, ENVELOPE_REPLY("{\"keys\":[\"hidden\",\"import/\",\"gone\",\"kek\",\"chacha\"]}"));
    assert_request(&bench, HTTP_GET, "transit/keys/hidden", "");
    reply(&bench, 403, denied);
    assert_request(&bench, HTTP_GET, "transit/keys/gone", "");
    reply(&bench, 404, not_found);
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    reply(&bench, 200, key_reply);
    assert_request(&bench, HTTP_GET, "transit/keys/chacha", "");
    reply(&bench, 200, KEY_REPLY(PLAIN_FLAGS, "{\"1\":1}", "1", "1", "chacha20-poly1305"));
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 1);
    assert_string_equal(bench.call.keys.items[0].id, "kek");
    bench_close(&bench);

    struct bench none = {.call = {.op = BACKEND_LIST}};
    bench_open(&none);
    begin(&none);
    assert_int_equal(reply(&none, 404, not_found), BACKEND_DONE);
    bench_close(&none);

    struct bench shut = {.call = {.op = BACKEND_LIST}, .settings.keys = (char *)"a, b"};
    bench_open(&shut);
    begin(&shut);
    assert_request(&shut, HTTP_GET, "transit/keys/a", "");
    reply(&shut, 403, denied);
    assert_request(&shut, HTTP_GET, "transit/keys/b", "");
    reply(&shut, 403, denied);
    assert_refused(&shut, BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, "none of 2 keys");
    bench_close(&shut);
}

static void keys_are_made_once_and_only_where_there_is_none(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_CREATE, .label = "kek", .type = BACKEND_KEY_SYMMETRIC, .bits = 256}};
    bench_open(&bench);
    begin(&bench);
    assert_refused(&bench, BACKEND_FAILED, CKR_ACTION_PROHIBITED, "create = yes");
    bench.settings.create = true;
    begin(&bench);
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    assert_false(bench.request.once);
    reply(&bench, 404, not_found);
    assert_request(&bench, HTTP_POST, "transit/keys/kek", "{\"type\":\"aes256-gcm96\"}");
    assert_true(bench.request.once);
    reply(&bench, 204, "");
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    assert_int_equal(reply(&bench, 200, key_reply), BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 1);
    begin(&bench);
    reply(&bench, 200, key_reply);
    assert_refused(&bench, BACKEND_FAILED, CKR_ATTRIBUTE_VALUE_INVALID, "already");
    bench.call.bits = 192;
    begin(&bench);
    assert_refused(&bench, BACKEND_FAILED, CKR_KEY_SIZE_RANGE, "192");
    bench.call.bits = 256;
    bench.call.label = "a/b";
    begin(&bench);
    assert_refused(&bench, BACKEND_FAILED, CKR_ATTRIBUTE_VALUE_INVALID, "label");
    bench_close(&bench);
}

static void keys_are_deleted_only_where_both_sides_allow_it(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_DELETE, .key = "kek"}};
    bench_open(&bench);
    begin(&bench);
    assert_refused(&bench, BACKEND_FAILED, CKR_ACTION_PROHIBITED, "destroy = yes");
    bench.settings.destroy = true;
    begin(&bench);
    assert_request(&bench, HTTP_DELETE, "transit/keys/kek", "");
    assert_true(bench.request.once);
    reply(&bench, 400, "{\"errors\":[\"error deleting policy kek: deletion is not allowed for this key\"]}");
    assert_refused(&bench, BACKEND_FAILED, CKR_ACTION_PROHIBITED, "deletion_allowed=true");
    begin(&bench);
    assert_int_equal(reply(&bench, 204, ""), BACKEND_DONE);
    bench_close(&bench);
}

/* ---- logging in ---- */

static const char lookup_reply[] = ENVELOPE_REPLY("{\"accessor\":\"a\",\"creation_time\":1795391866,\"creation_ttl\":"
                                                  "3600,\"display_name\":\"token\",\"entity_id\":\"\","
                                                  "\"expire_time\":\"2026-11-23T01:00:00Z\",\"explicit_max_ttl\":0,"
                                                  "\"id\":\"hvs.mine\",\"renewable\":true,\"ttl\":3000,"
                                                  "\"type\":\"service\"}");
static const char old_reply[] = ENVELOPE_REPLY("{\"creation_ttl\":3600,\"expire_time\":\"2026-11-23T01:00:00Z\","
                                               "\"id\":\"hvs.mine\",\"renewable\":true,\"ttl\":0}");
static const char root_reply[] = ENVELOPE_REPLY("{\"accessor\":\"a\",\"creation_ttl\":0,\"expire_time\":null,"
                                                "\"id\":\"hvs.mine\",\"ttl\":0,\"type\":\"service\"}");

static int64_t seconds_left(const struct bench *bench)
{
    return (credentials_expires(bench->call.made) - clock_wall() + CLOCK_SECOND - 1) / CLOCK_SECOND;
}

static void authenticate(struct bench *bench)
{
    bench->call.op = BACKEND_AUTHENTICATE;
    bench_open(bench);
}

static void forget_credentials(struct bench *bench)
{
    credentials_unref(bench->call.credentials);
    bench->call.credentials = NULL;
}

static void a_token_is_looked_up_and_renewed_when_half_its_life_is_over(void **unused)
{
    (void)unused;
    struct bench bench = {.call.pin = "hvs.mine"};
    authenticate(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_GET, "auth/token/lookup-self", "");
    assert_true(has_header(&bench, "X-Vault-Token: hvs.mine"));
    assert_int_equal(reply(&bench, 200, lookup_reply), BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "hvs.mine");
    assert_true(seconds_left(&bench) > 2990 && seconds_left(&bench) <= 3000);
    bench_close(&bench);

    struct bench old = {.call.pin = "hvs.mine"};
    authenticate(&old);
    begin(&old);
    reply(&old, 200, old_reply);
    assert_request(&old, HTTP_POST, "auth/token/renew-self", "{}");
    assert_true(has_header(&old, "X-Vault-Token: hvs.mine"));
    assert_int_equal(reply(&old, 200, LOGIN_REPLY("hvs.mine", "3600")), BACKEND_DONE);
    assert_true(seconds_left(&old) > 3590);
    bench_close(&old);

    /* A token that may not be renewed serves to its end; the last second of one is not for ever. */
    struct bench last = {.call.pin = "hvs.mine"};
    authenticate(&last);
    begin(&last);
    reply(&last, 200, old_reply);
    assert_int_equal(reply(&last, 403, denied), BACKEND_DONE);
    assert_true(credentials_expires(last.call.made) > 0 && seconds_left(&last) <= 1);
    bench_close(&last);

    struct bench root = {.call.pin = "hvs.mine"};
    authenticate(&root);
    begin(&root);
    assert_int_equal(reply(&root, 200, root_reply), BACKEND_DONE);
    assert_true(credentials_expires(root.call.made) == 0);
    bench_close(&root);
}

static void a_refused_token_is_the_pins_fault_only_where_there_was_one(void **unused)
{
    (void)unused;
    struct bench pin = {.call.pin = "hvs.mine"};
    authenticate(&pin);
    begin(&pin);
    reply(&pin, 403, denied);
    assert_refused(&pin, BACKEND_FAILED, CKR_PIN_INCORRECT, "refused");
    assert_null(strstr(error_text(), "hvs.mine"));
    bench_close(&pin);

    char path[] = "/tmp/envelope-token-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0 && write(file, "hvs.filed\n", 10) == 10 && close(file) == 0);
    struct bench filed = {.settings.token_file = path};
    authenticate(&filed);
    begin(&filed);
    assert_true(has_header(&filed, "X-Vault-Token: hvs.filed"));
    reply(&filed, 403, denied);
    assert_refused(&filed, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "refused");
    unlink(path);
    begin(&filed);
    assert_refused(&filed, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, path);
    bench_close(&filed);

    unsetenv("BAO_TOKEN");
    unsetenv("VAULT_TOKEN");
    struct bench none = {.step = 0};
    authenticate(&none);
    begin(&none);
    assert_refused(&none, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "token-file");
    setenv("BAO_TOKEN", "hvs.environment", 1);
    begin(&none);
    assert_true(has_header(&none, "X-Vault-Token: hvs.environment"));
    unsetenv("BAO_TOKEN");
    bench_close(&none);
}

static void an_approle_logs_in_renews_and_logs_in_again(void **unused)
{
    (void)unused;
    struct bench bench = {.settings = {.auth = (char *)"approle", .role = (char *)"role \"1\""}, .call.pin = "s3cret"};
    authenticate(&bench);
    forget_credentials(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "auth/approle/login",
                   "{\"role_id\":\"role \\\"1\\\"\",\"secret_id\":\"s3cret\"}");
    assert_true(bench.request.once);
    assert_int_equal(reply(&bench, 200, LOGIN_REPLY("hvs.new", "3600")), BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "hvs.new");
    assert_true(seconds_left(&bench) > 3590);

    /* What was made is renewed, unless a renewal brings too little or is refused: then a new login. */
    struct credentials *made = credentials_ref(bench.call.made);
    bench_close(&bench);
    static const struct {
        long status;
        const char *body;
        bool login;
    } renewals[] = {
        {200, LOGIN_REPLY("hvs.new", "3600"), false},
        {200, LOGIN_REPLY("hvs.new", "60"), true},
        {403, "{\"errors\":[\"permission denied\"]}", true},
    };
    for (size_t i = 0; i < sizeof renewals / sizeof renewals[0]; i++) {
        struct bench again = {.settings = {.auth = (char *)"approle", .role = (char *)"role"}};
        authenticate(&again);
        forget_credentials(&again);
        again.call.credentials = credentials_ref(made);
        begin(&again);
        assert_request(&again, HTTP_POST, "auth/token/renew-self", "{}");
        assert_true(has_header(&again, "X-Vault-Token: hvs.new"));
        reply(&again, renewals[i].status, renewals[i].body);
        if (renewals[i].login)
            assert_request(&again, HTTP_POST, "auth/approle/login", "{\"role_id\":\"role\"}");
        else
            assert_int_equal(again.step, BACKEND_DONE);
        bench_close(&again);
    }
    credentials_unref(made);
}

static void a_refused_login_is_not_repeated_and_shows_no_secret(void **unused)
{
    (void)unused;
    static const struct {
        long status;
        const char *body;
    } refusals[] = {
        {500, "{\"errors\":[\"invalid secret id\"]}"}, /* of some releases; each try counts towards a lockout */
        {400, "{\"errors\":[\"invalid secret_id \\\"s3cret\\\"\"]}"},
        {400, "{\"errors\":[\"invalid role or secret ID\"]}"},
        {403, "{\"errors\":[\"permission denied\"]}"},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct bench bench = {.settings = {.auth = (char *)"approle", .role = (char *)"role"}, .call.pin = "s3cret"};
        authenticate(&bench);
        forget_credentials(&bench);
        begin(&bench);
        reply(&bench, refusals[i].status, refusals[i].body);
        assert_refused(&bench, BACKEND_FAILED, CKR_PIN_INCORRECT, "refused");
        assert_null(strstr(error_text(), "s3cret"));
        assert_null(strstr(bench.call.service_message, "s3cret"));
        bench_close(&bench);
    }
}

static void certificates_and_service_accounts_log_in_at_their_mounts(void **unused)
{
    (void)unused;
    char path[] = "/tmp/envelope-jwt-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0 && write(file, "a.b.c\n", 6) == 6 && close(file) == 0);
    struct bench cert = {
        .settings = {
            .auth = (char *)"cert", .role = (char *)"envelope", .client_cert = (char *)"c", .client_key = (char *)"k"}};
    authenticate(&cert);
    forget_credentials(&cert);
    begin(&cert);
    assert_request(&cert, HTTP_POST, "auth/cert/login", "{\"name\":\"envelope\"}");
    bench_close(&cert);

    struct bench k8s = {.settings = {.auth = (char *)"kubernetes",
                                     .auth_mount = (char *)"clusters/prod",
                                     .role = (char *)"envelope",
                                     .jwt_file = path}};
    authenticate(&k8s);
    forget_credentials(&k8s);
    begin(&k8s);
    assert_request(&k8s, HTTP_POST, "auth/clusters/prod/login", "{\"role\":\"envelope\",\"jwt\":\"a.b.c\"}");
    assert_false(has_header(&k8s, "X-Vault-Token: "));
    k8s.call.pin = "1234";
    begin(&k8s);
    assert_refused(&k8s, BACKEND_FAILED, CKR_PIN_INCORRECT, "takes no PIN");
    bench_close(&k8s);
    unlink(path);
}

/* ---- settings ---- */

static void settings_are_checked_before_anything_is_sent(void **unused)
{
    (void)unused;
    char c[] = "x";
    static char address[] = "https://bao.test:8200";
    const struct {
        struct token_settings settings;
        const char *words; /* NULL: accepted */
    } cases[] = {
        {{.address = address, .auth = (char *)"token"}, NULL},
        {{.address = (char *)"http://127.0.0.1:8200", .auth = (char *)"token"}, NULL},
        {{.address = (char *)"https://[::1]:8200/", .auth = (char *)"token"}, NULL},
        {{.address = (char *)"http://bao.test:8200", .auth = (char *)"token"}, "in the clear"},
        {{.address = (char *)"http://127.0.0.1.evil.test", .auth = (char *)"token"}, "in the clear"},
        {{.address = (char *)"https://user@bao.test", .auth = (char *)"token"}, "only scheme, host and port"},
        {{.address = (char *)"https://bao.test/v1", .auth = (char *)"token"}, "only scheme, host and port"},
        {{.address = (char *)"bao.test:8200", .auth = (char *)"token"}, "not of the form"},
        {{.auth = (char *)"token"}, "address is missing"},
        {{.address = address}, "auth must be one of"},
        {{.address = address, .auth = (char *)"ldap"}, "auth must be one of"},
        {{.address = address, .auth = (char *)"approle"}, "role-id-file"},
        {{.address = address, .auth = (char *)"cert"}, "client-cert"},
        {{.address = address, .auth = (char *)"kubernetes"}, "needs role"},
        {{.address = address, .auth = (char *)"token", .mount = (char *)"../sys"}, "mount"},
        {{.address = address, .auth = (char *)"token", .mount = (char *)"a b"}, "mount"},
        {{.address = address, .auth = (char *)"token", .auth_mount = (char *)"/"}, "auth-mount"},
        {{.address = address, .auth = (char *)"token", .region = c}, "region has no meaning"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct token_settings settings = cases[i].settings;
        void *state = NULL;
        settings.label = (char *)"bao";
        error_clear();
        envelope_status status = bao_backend.open(&settings, &state);
        if (cases[i].words ? status != ENVELOPE_E_CONFIG || !strstr(error_text(), cases[i].words) : status != 0)
            fail_msg("case %zu: %d %s", i, (int)status, error_text());
        bao_backend.close(state);
    }
}

/* ---- damage ---- */

struct conversation {
    struct backend_call call;
    const char *replies[3];
};

static void talk(const struct conversation *talk, size_t damaged, const char *body, size_t length)
{
    struct bench bench = {.call = talk->call, .settings = {.create = true, .destroy = true}};
    bench_open(&bench);
    begin(&bench);
    for (size_t i = 0; i < 3 && talk->replies[i] && bench.step == BACKEND_SEND; i++) {
        bool last = i == damaged;
        take(&bench, 200, last ? body : talk->replies[i], last ? length : strlen(talk->replies[i]));
        if (last)
            break;
    }
    if (bench.step == BACKEND_FAILED)
        assert_int_not_equal(bench.call.rv, CKR_OK);
    bench_close(&bench);
}

/* Cut anywhere, a reply is a defined failure; with bytes changed it may pass, and nothing leads out of bounds. */
static void truncated_and_damaged_replies_end_well(void **unused)
{
    (void)unused;
    const struct conversation talks[] = {
        {crypt_call(BACKEND_ENCRYPT, "hello", "aad"), {key_reply, encrypted_reply}},
        {crypt_call(BACKEND_DECRYPT, blob, NULL), {decrypted_reply}},
        {{.op = BACKEND_DESCRIBE, .key = "kek"}, {rsa_reply}},
        {{.op = BACKEND_LIST}, {ENVELOPE_REPLY("{\"keys\":[\"kek\"]}"), key_reply}},
        {{.op = BACKEND_RANDOM, .length = 5}, {ENVELOPE_REPLY("{\"random_bytes\":\"aGVsbG8=\"}")}},
        {{.op = BACKEND_AUTHENTICATE, .pin = "hvs.mine"}, {old_reply, LOGIN_REPLY("hvs.mine", "3600")}},
    };
    uint32_t seed = 4711;
    for (size_t i = 0; i < sizeof talks / sizeof talks[0]; i++)
        for (size_t at = 0; at < 3 && talks[i].replies[at]; at++) {
            const char *whole = talks[i].replies[at];
            size_t length = strlen(whole);
            char *copy = malloc(length);
            assert_non_null(copy);
            for (size_t cut = 0; cut < length - 1; cut += 1 + cut % 7)
                talk(&talks[i], at, whole, cut);
            for (int round = 0; round < 200; round++) {
                memcpy(copy, whole, length);
                for (int change = 0; change < 3; change++) {
                    seed = seed * 1664525u + 1013904223u;
                    copy[(seed >> 8) % length] = (char)(seed >> 24);
                }
                talk(&talks[i], at, copy, length);
            }
            free(copy);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encryption_reads_the_key_and_then_sends_the_plaintext),
        cmocka_unit_test(a_missing_key_is_never_encrypted_with),
        cmocka_unit_test(keys_in_a_state_or_of_a_type_that_forbids_it_do_not_encrypt),
        cmocka_unit_test(decryption_sends_the_ciphertext_as_it_stands),
        cmocka_unit_test(a_dry_run_brings_no_plaintext),
        cmocka_unit_test(what_is_no_ciphertext_is_not_sent),
        cmocka_unit_test(key_names_that_would_change_the_path_are_not_sent),
        cmocka_unit_test(rewrap_stays_inside_only_within_one_key_and_without_associated_data),
        cmocka_unit_test(an_rsa_ciphertext_is_tried_with_each_version_from_the_newest),
        cmocka_unit_test(random_bytes_come_in_pieces_of_the_size_asked_for),
        cmocka_unit_test(every_refusal_has_its_code),
        cmocka_unit_test(the_services_words_are_kept_and_printable),
        cmocka_unit_test(keys_are_described),
        cmocka_unit_test(no_such_key_is_an_answer_and_no_such_engine_is_not),
        cmocka_unit_test(a_list_shows_what_may_be_read),
        cmocka_unit_test(keys_are_made_once_and_only_where_there_is_none),
        cmocka_unit_test(keys_are_deleted_only_where_both_sides_allow_it),
        cmocka_unit_test(a_token_is_looked_up_and_renewed_when_half_its_life_is_over),
        cmocka_unit_test(a_refused_token_is_the_pins_fault_only_where_there_was_one),
        cmocka_unit_test(an_approle_logs_in_renews_and_logs_in_again),
        cmocka_unit_test(a_refused_login_is_not_repeated_and_shows_no_secret),
        cmocka_unit_test(certificates_and_service_accounts_log_in_at_their_mounts),
        cmocka_unit_test(settings_are_checked_before_anything_is_sent),
        cmocka_unit_test(truncated_and_damaged_replies_end_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
