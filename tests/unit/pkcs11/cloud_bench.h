/*
 * A backend behind bearer tokens at the bench: one call, driven as token.c drives it, with replies of the shapes the
 * service documents. For test_azure.c and test_gcp.c.
 */
#ifndef TESTS_CLOUD_BENCH_H
#define TESTS_CLOUD_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include "backends.h"
#include "base/clock.h"
#include "base/error.h"
#include "bench.h"
#include "web.h"

struct bench {
    const struct backend *backend;
    struct token_settings settings;
    void *state;
    struct credentials *credentials;
    struct backend_call call;
    struct http_request request;
    const char *reply_headers;
    enum backend_step step;
};

static inline void bench_open(struct bench *bench, const struct backend *backend)
{
    bench->backend = backend;
    bench->settings.label = (char *)"cloud";
    bench->settings.backend = (char *)backend->name;
    if (backend->open(&bench->settings, &bench->state) != ENVELOPE_OK)
        fail_msg("%s", error_text());
    bench->credentials = credentials_new("", "", "eyJ.token", 0);
    assert_non_null(bench->credentials);
}

static inline void bench_clear(struct bench *bench)
{
    backend_call_clear(&bench->call);
    http_request_clear(&bench->request);
    bench->call = (struct backend_call){0};
    bench->reply_headers = NULL;
}

static inline void bench_close(struct bench *bench)
{
    bench_clear(bench);
    credentials_unref(bench->credentials);
    bench->backend->close(bench->state);
    *bench = (struct bench){0};
}

static inline enum backend_step begin(struct bench *bench, struct backend_call call)
{
    bench_clear(bench);
    bench->call = call;
    if (call.op != BACKEND_AUTHENTICATE)
        bench->call.credentials = bench->credentials;
    return bench->step = bench->backend->step(bench->state, &bench->call, NULL, &bench->request);
}

static inline enum backend_step log_in(struct bench *bench, const char *pin)
{
    return begin(bench, (struct backend_call){.op = BACKEND_AUTHENTICATE, .pin = pin});
}

static inline enum backend_step answer(struct bench *bench, long status, const char *body)
{
    struct http_reply reply = {.status = status, .transport = status ? HTTP_OK : HTTP_UNREACHABLE};
    assert_int_equal(bench->step, BACKEND_SEND);
    if (bench->reply_headers)
        buffer_append_text(&reply.headers, bench->reply_headers);
    buffer_append_text(&reply.body, body);
    bench->step = bench->backend->step(bench->state, &bench->call, &reply, &bench->request);
    http_reply_clear(&reply);
    return bench->step;
}

static inline bool has_header(const struct bench *bench, const char *line)
{
    return bench_has_header(&bench->request, line);
}

static inline void assert_asks(const struct bench *bench, enum http_method method, const char *url, const char *body)
{
    if (bench->step != BACKEND_SEND)
        fail_msg("no request, but: %s", error_text());
    assert_int_equal(bench->request.method, method);
    assert_string_equal(bench->request.url, url);
    assert_string_equal(buffer_text(&bench->request.body), body);
}

static inline void assert_done(const struct bench *bench, const char *out)
{
    if (bench->step != BACKEND_DONE)
        fail_msg("not done, but: %s", error_text());
    assert_string_equal(buffer_text(&bench->call.out), out);
    assert_int_equal(bench->call.out.length, strlen(out));
}

static inline void assert_refused(const struct bench *bench, enum backend_step step, CK_RV rv, const char *words)
{
    if (bench->step != step || bench->call.rv != rv || !strstr(error_text(), words))
        fail_msg("step %d, rv 0x%lx (wanted %d, 0x%lx, \"%s\"): %s", (int)bench->step, bench->call.rv, (int)step, rv,
                 words, error_text());
}

static inline void assert_refusal(struct bench *bench, const struct bench_refusal *wanted)
{
    answer(bench, wanted->status, wanted->body);
    assert_refused(bench, wanted->step, wanted->rv, wanted->words);
}

/* Each of them as the answer to this call; and none of them shows the token. */
static inline void assert_refusals(struct bench *bench, struct backend_call call, const struct bench_refusal *rows,
                                   size_t count)
{
    for (size_t i = 0; i < count; i++) {
        begin(bench, call);
        assert_refusal(bench, &rows[i]);
        assert_null(strstr(error_text(), "eyJ.token"));
    }
}

/* A login by what this machine is: it has to be there, and a PIN is of no use. */
static inline void assert_asks_the_machine_only(struct bench *bench)
{
    log_in(bench, "");
    answer(bench, 0, "");
    assert_refused(bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "not reachable");
    log_in(bench, "1234");
    assert_refused(bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "takes no PIN");
}

static inline struct backend_call crypt_call(enum backend_op op, enum backend_cipher cipher, const char *key,
                                             const char *in, const char *aad)
{
    return (struct backend_call){.op = op,
                                 .key = key,
                                 .cipher = cipher,
                                 .in = (const uint8_t *)in,
                                 .in_length = strlen(in),
                                 .has_aad = aad != NULL,
                                 .aad = (const uint8_t *)aad,
                                 .aad_length = aad ? strlen(aad) : 0};
}

/* The two parts of a token, JSON, once its signature was found to be the key's; it ends the request's body. */
static inline void read_jwt(const char *jwt, EVP_PKEY *key, bool pss, struct buffer *header, struct buffer *claims)
{
    struct buffer signature = {0};
    const char *dot = strchr(jwt, '.'), *last = dot ? strchr(dot + 1, '.') : NULL;
    assert_non_null(last);
    assert_true(web_append_unbase64url(header, jwt, (size_t)(dot - jwt)));
    assert_true(web_append_unbase64url(claims, dot + 1, (size_t)(last - dot - 1)));
    assert_true(web_append_unbase64url(&signature, last + 1, strlen(last + 1)));
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_PKEY_CTX *rsa = NULL;
    assert_int_equal(EVP_DigestVerifyInit(context, &rsa, EVP_sha256(), NULL, key), 1);
    if (pss)
        assert_true(EVP_PKEY_CTX_set_rsa_padding(rsa, RSA_PKCS1_PSS_PADDING) > 0 &&
                    EVP_PKEY_CTX_set_rsa_pss_saltlen(rsa, 32) > 0);
    assert_int_equal(
        EVP_DigestVerify(context, signature.bytes, signature.length, (const unsigned char *)jwt, (size_t)(last - jwt)),
        1);
    EVP_MD_CTX_free(context);
    buffer_clear(&signature);
}

/* A file in the working directory, for secrets and tokens. */
static inline void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

#endif
