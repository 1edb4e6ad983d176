/*
 * The OpenBao backend at the bench: one call, driven as token.c drives it, with replies that are a real server's
 * (tests/rigs/bao.sh runs against one). For the tests of this folder.
 */
#ifndef TESTS_BAO_BENCH_H
#define TESTS_BAO_BENCH_H

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
#include "bench.h"

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

static const char key_reply[] __attribute__((unused)) =
    KEY_REPLY(PLAIN_FLAGS, "{\"1\":1795391416}", "1", "1", "aes256-gcm96");
static const char rsa_reply[] __attribute__((unused)) = KEY_REPLY(
    PLAIN_FLAGS,
    "{\"1\":{\"creation_time\":\"2026-11-22T23:50:16.59048618Z\",\"name\":\"rsa-2048\",\"public_key\":\"x\"},"
    "\"2\":{\"creation_time\":\"2026-11-23T23:50:16Z\",\"name\":\"rsa-2048\",\"public_key\":\"" PEM_2048 "\"}}",
    "2", "1", "rsa-2048");
/* Keys that must encrypt nothing: two for their flags, one for its type. */
static const char derived_reply[] __attribute__((unused)) =
    KEY_REPLY("\"derived\":true,\"exportable\":false,", "{\"1\":1}", "1", "1", "aes256-gcm96");
static const char exportable_reply[] __attribute__((unused)) =
    KEY_REPLY("\"derived\":false,\"exportable\":true,", "{\"1\":1}", "1", "1", "aes256-gcm96");
static const char rsa_4096_reply[] __attribute__((unused)) = KEY_REPLY(PLAIN_FLAGS, "{\"1\":1}", "1", "1", "rsa-4096");
static const char encrypted_reply[] __attribute__((unused)) =
    ENVELOPE_REPLY("{\"ciphertext\":\"vault:v1:8BWaZDlF7nPtiwr4D0tYcPOm8ARVMkrbG2BXilb2z8n8\",\"key_version\":1}");
static const char decrypted_reply[] __attribute__((unused)) = ENVELOPE_REPLY("{\"plaintext\":\"aGVsbG8=\"}");
static const char blob[] __attribute__((unused)) = "vault:v1:8BWaZDlF7nPtiwr4D0tYcPOm8ARVMkrbG2BXilb2z8n8";
static const char not_found[] __attribute__((unused)) = "{\"errors\":[]}\n";
static const char denied[] __attribute__((unused)) =
    "{\"errors\":[\"1 error occurred:\\n\\t* permission denied\\n\\n\"]}\n";

/* A token in its last second. */
static const char old_reply[] __attribute__((unused)) =
    ENVELOPE_REPLY("{\"creation_ttl\":3600,\"expire_time\":\"2026-11-23T01:00:00Z\","
                   "\"id\":\"hvs.mine\",\"renewable\":true,\"ttl\":0}");

/* One backend, one call, the request it last made. */
struct bench {
    struct token_settings settings;
    void *state;
    struct backend_call call;
    struct http_request request;
    enum backend_step step;
};

static inline void bench_open(struct bench *bench)
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

static inline void bench_close(struct bench *bench)
{
    backend_call_clear(&bench->call);
    credentials_unref(bench->call.credentials);
    http_request_clear(&bench->request);
    bao_backend.close(bench->state);
}

/* The next step, as token.c takes it; body NULL: the first. */
static inline enum backend_step take(struct bench *bench, long status, const char *body, size_t length)
{
    struct http_reply reply = {.status = status};
    if (body)
        buffer_append(&reply.body, body, length);
    bench->step = bao_backend.step(bench->state, &bench->call, body ? &reply : NULL, &bench->request);
    http_reply_clear(&reply);
    return bench->step;
}

static inline enum backend_step begin(struct bench *bench)
{
    return take(bench, 0, NULL, 0);
}

static inline enum backend_step reply(struct bench *bench, long status, const char *body)
{
    return take(bench, status, body, strlen(body));
}

static inline bool has_header(const struct bench *bench, const char *line)
{
    return bench_has_header(&bench->request, line);
}

static inline void assert_request(const struct bench *bench, enum http_method method, const char *path,
                                  const char *body)
{
    char url[256];
    assert_int_equal(bench->step, BACKEND_SEND);
    assert_int_equal(bench->request.method, method);
    snprintf(url, sizeof url, "https://127.0.0.1:8200/v1/%s", path);
    assert_string_equal(bench->request.url, url);
    assert_string_equal(buffer_text(&bench->request.body), body);
}

static inline void assert_refused(const struct bench *bench, enum backend_step step, CK_RV rv, const char *words)
{
    assert_int_equal(bench->step, step);
    if (bench->call.rv != rv || !strstr(error_text(), words))
        fail_msg("rv 0x%lx (wanted 0x%lx): %s", bench->call.rv, rv, error_text());
}

static inline void assert_refusal(struct bench *bench, const struct bench_refusal *wanted)
{
    reply(bench, wanted->status, wanted->body);
    assert_refused(bench, wanted->step, wanted->rv, wanted->words);
}

static inline struct backend_call crypt_call(enum backend_op op, const void *in, const char *aad)
{
    return (struct backend_call){.op = op,
                                 .key = "kek",
                                 .in = in,
                                 .in_length = strlen(in),
                                 .has_aad = aad != NULL,
                                 .aad = (const uint8_t *)aad,
                                 .aad_length = aad ? strlen(aad) : 0};
}

#endif
