/* Access tokens: from Entra ID by a client secret or a federated token, or from the machine's managed identity. */
#include "azure.h"

#include "base/clock.h"
#include "base/error.h"
#include "local.h"
#include "web.h"

enum { IMDS_TIMEOUT_SECONDS = 2 };

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

/* Read anew each time: the platform renews this file. */
static envelope_status add_assertion(const struct azure *azure, struct buffer *form)
{
    static const char type[] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
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
    web_form_add(form, "client_assertion_type", type);
    web_form_add(form, "client_assertion", buffer_text(&token));
    buffer_clear(&token);
    return ENVELOPE_OK;
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
    status = azure->auth == AZURE_AUTH_WORKLOAD ? add_assertion(azure, &request->body)
                                                : add_secret(azure, call, &request->body);
    if (!status && !buffer_ok(&request->body))
        status = ENVELOPE_E_NO_MEMORY;
    return status ? fail(call, status) : BACKEND_SEND;
}

static enum backend_step ask_instance(const struct azure *azure, struct backend_call *call,
                                      struct http_request *request)
{
    struct buffer query = {0};
    web_form_add(&query, "api-version", "2018-02-01");
    web_form_add(&query, "resource", azure->resource);
    if (azure->client_id)
        web_form_add(&query, "client_id", azure->client_id);
    request->method = HTTP_GET;
    request->direct = true;
    request->optional = true;
    request->timeout = IMDS_TIMEOUT_SECONDS * CLOCK_SECOND;
    envelope_status status = buffer_ok(&query) ? http_request_url(request, "%s/metadata/identity/oauth2/token?%s",
                                                                  azure->imds_endpoint, buffer_text(&query))
                                               : ENVELOPE_E_NO_MEMORY;
    buffer_clear(&query);
    if (!status)
        status = http_request_header(request, "Metadata", "true");
    return status ? fail(call, status) : BACKEND_SEND;
}

enum backend_step azure_step_auth(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                  struct http_request *request)
{
    static const char *const sources[] = {[AZURE_AUTH_CLIENT_SECRET] = "Entra ID (client secret)",
                                          [AZURE_AUTH_WORKLOAD] = "Entra ID (workload identity)",
                                          [AZURE_AUTH_MANAGED] = "instance metadata (managed identity)"};
    bool managed = azure->auth == AZURE_AUTH_MANAGED;
    if (!reply) {
        if (azure->auth != AZURE_AUTH_CLIENT_SECRET && call->pin && *call->pin)
            return fail(call, error_raise(ENVELOPE_E_HSM_LOGIN, "[token %s]: auth = %s takes no PIN",
                                          azure->settings->label, azure->settings->auth));
        return managed ? ask_instance(azure, call, request) : ask_entra(azure, call, request);
    }
    if (reply->transport != HTTP_OK)
        return fail(call, error_raise(ENVELOPE_E_HSM_LOGIN,
                                      "[token %s]: instance metadata is not reachable; is this "
                                      "a machine of Azure with a managed identity?",
                                      azure->settings->label));
    enum backend_step step = web_judge_token(call, reply, sources[azure->auth]);
    return step == BACKEND_DONE ? web_take_token(call, reply, sources[azure->auth]) : step;
}
