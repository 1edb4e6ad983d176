/* Access tokens from Entra ID: by a client secret, by an assertion signed with a certificate's key, by a federated
 * token. */
#include "azure.h"

#include <inttypes.h>
#include <stdio.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/libctx.h"
#include "jwt.h"
#include "local.h"
#include "web.h"

enum { ASSERTION_SECONDS = 600, DIGEST = 32, NONCE = 16 };

static enum backend_step fail(struct backend_call *call, envelope_status raised)
{
    return backend_fail(call, raised == ENVELOPE_E_NO_MEMORY ? CKR_HOST_MEMORY : CKR_USER_NOT_LOGGED_IN, raised);
}

/* The PIN, the file, the environment. */
static envelope_status add_secret(const struct azure *azure, const struct backend_call *call, struct buffer *form)
{
    struct buffer text = {0};
    const char *secret = call->pin && *call->pin ? call->pin : NULL;
    envelope_status status = ENVELOPE_OK;
    if (!secret && azure->settings->client_secret_file) {
        status = local_read_line(azure->settings->client_secret_file, &text);
        if (status)
            status = error_raise(ENVELOPE_E_HSM_LOGIN, "the client secret cannot be used: %s", error_text());
        secret = buffer_text(&text);
    } else if (!secret) {
        secret = local_env("AZURE_CLIENT_SECRET");
        if (!secret)
            status = error_raise(ENVELOPE_E_HSM_LOGIN,
                                 "[token %s]: no client secret: give it to C_Login, in client-secret-file or in "
                                 "AZURE_CLIENT_SECRET",
                                 azure->settings->label);
    }
    if (!status)
        web_form_add(form, "client_secret", secret);
    buffer_clear(&text);
    return status;
}

static void add_assertion(struct buffer *form, const struct buffer *assertion)
{
    web_form_add(form, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    web_form_add(form, "client_assertion", buffer_text(assertion));
}

/* Read anew each time: the platform renews this file. */
static envelope_status add_federated(const struct azure *azure, struct buffer *form)
{
    const char *path = azure->settings->jwt_file ? azure->settings->jwt_file : local_env("AZURE_FEDERATED_TOKEN_FILE");
    struct buffer token = {0};
    if (!path)
        return error_raise(ENVELOPE_E_HSM_LOGIN,
                           "[token %s]: no federated token: set jwt-file or "
                           "AZURE_FEDERATED_TOKEN_FILE",
                           azure->settings->label);
    envelope_status status = local_read_line(path, &token);
    if (status)
        return error_raise(ENVELOPE_E_HSM_LOGIN, "the federated token cannot be used: %s", error_text());
    add_assertion(form, &token);
    buffer_clear(&token);
    return ENVELOPE_OK;
}

/* --- Certificate --- */

static X509 *read_certificate(const struct buffer *pem)
{
    X509 *certificate = X509_new_ex(libctx_private(), NULL);
    BIO *text = BIO_new_mem_buf(pem->bytes, (int)pem->length);
    bool ok = certificate && text && PEM_read_bio_X509(text, &certificate, jwt_no_passphrase, NULL);
    BIO_free(text);
    if (ok)
        return certificate;
    X509_free(certificate);
    error_raise(ENVELOPE_E_HSM_LOGIN, "there is no certificate in PEM form in it");
    return NULL;
}

/* "x5t#S256": by its thumbprint Entra ID finds the certificate it was told of. */
static envelope_status write_header(const X509 *certificate, struct buffer *header)
{
    uint8_t thumbprint[DIGEST];
    unsigned length = sizeof thumbprint;
    EVP_MD *method = EVP_MD_fetch(libctx_private(), "SHA256", NULL);
    bool ok = method && X509_digest(certificate, method, thumbprint, &length) > 0;
    EVP_MD_free(method);
    if (!ok)
        return error_raise(ENVELOPE_E_CRYPTO, "libcrypto cannot compute SHA-256");
    buffer_append_text(header, "{\"alg\":\"PS256\",\"typ\":\"JWT\",\"x5t#S256\":\"");
    web_append_base64url(header, thumbprint, sizeof thumbprint);
    buffer_append_text(header, "\"}");
    return ENVELOPE_OK;
}

static envelope_status write_claims(const struct azure *azure, const char *endpoint, struct buffer *claims)
{
    uint8_t nonce[NONCE];
    char times[120];
    int64_t now = clock_wall() / CLOCK_SECOND;
    if (RAND_bytes_ex(libctx_private(), nonce, sizeof nonce, 0) <= 0)
        return error_raise(ENVELOPE_E_CRYPTO, "libcrypto gives no random bytes");
    buffer_append_text(claims, "{\"aud\":");
    buffer_append_json(claims, endpoint);
    buffer_append_text(claims, ",\"iss\":");
    buffer_append_json(claims, azure->client_id);
    buffer_append_text(claims, ",\"sub\":");
    buffer_append_json(claims, azure->client_id);
    buffer_append_text(claims, ",\"jti\":\"");
    web_append_base64url(claims, nonce, sizeof nonce);
    snprintf(times, sizeof times, "\",\"nbf\":%" PRId64 ",\"iat\":%" PRId64 ",\"exp\":%" PRId64 "}", now, now,
             now + ASSERTION_SECONDS);
    buffer_append_text(claims, times);
    return ENVELOPE_OK;
}

static envelope_status sign_assertion(const struct azure *azure, const char *endpoint, const struct buffer *pem,
                                      struct buffer *assertion)
{
    struct buffer header = {0}, claims = {0};
    EVP_PKEY *key = jwt_read_key(pem);
    X509 *certificate = key ? read_certificate(pem) : NULL;
    envelope_status status = certificate ? ENVELOPE_OK : ENVELOPE_E_HSM_LOGIN;
    if (!status && X509_check_private_key(certificate, key) <= 0)
        status = error_raise(ENVELOPE_E_HSM_LOGIN, "its private key is not that of its first certificate");
    if (!status)
        status = write_header(certificate, &header);
    if (!status)
        status = write_claims(azure, endpoint, &claims);
    if (!status)
        status = jwt_sign(&header, &claims, JWT_PS256, key, assertion);
    buffer_clear(&header);
    buffer_clear(&claims);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return status;
}

/* The certificate and its key in one file in PEM form, read anew each time: they are renewed. */
static envelope_status add_certificate(const struct azure *azure, const char *endpoint, struct buffer *form)
{
    const char *path = azure->settings->credentials_file ? azure->settings->credentials_file
                                                         : local_env("AZURE_CLIENT_CERTIFICATE_PATH");
    struct buffer pem = {0}, assertion = {0};
    if (!path)
        return error_raise(ENVELOPE_E_HSM_LOGIN, "[token %s]: AZURE_CLIENT_CERTIFICATE_PATH is no longer set",
                           azure->settings->label);
    envelope_status status = local_read(path, &pem);
    if (!status)
        status = sign_assertion(azure, endpoint, &pem, &assertion);
    if (!status)
        add_assertion(form, &assertion);
    buffer_clear(&pem);
    buffer_clear(&assertion);
    if (!status || status == ENVELOPE_E_NO_MEMORY)
        return status;
    return error_context(error_raise(ENVELOPE_E_HSM_LOGIN, "%s", error_text()),
                         "[token %s]: the certificate's file \"%s\" cannot be used", azure->settings->label, path);
}

/* --- Asking --- */

static envelope_status add_proof(const struct azure *azure, const struct backend_call *call,
                                 struct http_request *request)
{
    switch (azure->auth) {
    case AZURE_AUTH_CERTIFICATE:
        return add_certificate(azure, request->url, &request->body);
    case AZURE_AUTH_WORKLOAD:
        return add_federated(azure, &request->body);
    case AZURE_AUTH_CLIENT_SECRET:
    case AZURE_AUTH_MANAGED: /* which does not come here */
        break;
    }
    return add_secret(azure, call, &request->body);
}

static enum backend_step ask_entra(const struct azure *azure, struct backend_call *call, struct http_request *request)
{
    struct buffer scope = {0};
    request->method = HTTP_POST;
    envelope_status status = http_request_url(request, "%s/%s/oauth2/v2.0/token", azure->authority, azure->tenant);
    if (!status)
        status = http_request_header(request, "Content-Type", "application/x-www-form-urlencoded");
    if (status)
        return fail(call, status);
    buffer_append_text(&scope, azure->resource);
    buffer_append_text(&scope, "/.default");
    web_form_add(&request->body, "grant_type", "client_credentials");
    web_form_add(&request->body, "client_id", azure->client_id);
    web_form_add(&request->body, "scope", buffer_text(&scope));
    buffer_clear(&scope);
    status = add_proof(azure, call, request);
    if (!status && !buffer_ok(&request->body))
        status = ENVELOPE_E_NO_MEMORY;
    return status ? fail(call, status) : BACKEND_SEND;
}

enum backend_step azure_step_auth(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                  struct http_request *request)
{
    static const char *const sources[] = {[AZURE_AUTH_CLIENT_SECRET] = "Entra ID (client secret)",
                                          [AZURE_AUTH_CERTIFICATE] = "Entra ID (client certificate)",
                                          [AZURE_AUTH_WORKLOAD] = "Entra ID (workload identity)"};
    if (!reply && azure->auth != AZURE_AUTH_CLIENT_SECRET && call->pin && *call->pin)
        return fail(call, error_raise(ENVELOPE_E_HSM_LOGIN, "[token %s]: auth = %s takes no PIN",
                                      azure->settings->label, azure->settings->auth));
    if (azure->auth == AZURE_AUTH_MANAGED)
        return azure_step_identity(azure, call, reply, request);
    if (!reply)
        return ask_entra(azure, call, request);
    enum backend_step step = web_judge_token(call, reply, sources[azure->auth]);
    return step == BACKEND_DONE ? web_take_token(call, reply, sources[azure->auth]) : step;
}
