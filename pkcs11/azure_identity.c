/*
 * The managed identity of the machine this runs on. Which service speaks for it is said by the environment, as Azure's
 * own libraries read it:
 *
 *     IDENTITY_ENDPOINT and IDENTITY_HEADER    App Service, Functions, Container Apps
 *     IDENTITY_ENDPOINT and IMDS_ENDPOINT      Arc: the agent of a machine elsewhere, which has the caller prove that
 * it may read a file of the agent's neither                                  instance metadata
 */
#include "azure.h"

#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "local.h"
#include "web.h"

enum { IMDS_TIMEOUT_SECONDS = 2, PROOF_MAX = 4096 };
enum stage { STAGE_TOKEN, STAGE_PROVED };

static const char *const sources[] = {[AZURE_IDENTITY_INSTANCE] = "instance metadata (managed identity)",
                                      [AZURE_IDENTITY_APP_SERVICE] = "App Service (managed identity)",
                                      [AZURE_IDENTITY_ARC] = "Azure Arc's agent (managed identity)"};

static enum backend_step fail(struct backend_call *call, envelope_status raised)
{
    return backend_fail(call, raised == ENVELOPE_E_NO_MEMORY ? CKR_HOST_MEMORY : CKR_USER_NOT_LOGGED_IN, raised);
}

/* http:// to this machine or its own link (169.254.…), and nothing to be escaped; https:// anywhere. */
static bool is_identity_endpoint(const char *url, bool this_machine)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~:/[]";
    static const char *const near[] = {"http://127.0.0.1", "http://localhost", "http://[::1]"};
    if (url[strspn(url, plain)] || strlen(url) > 512)
        return false;
    for (size_t i = 0; i < sizeof near / sizeof near[0]; i++) {
        size_t length = strlen(near[i]);
        if (strncmp(url, near[i], length) == 0 && (url[length] == ':' || url[length] == '/'))
            return true;
    }
    return !this_machine && (strncmp(url, "https://", 8) == 0 || web_is_link_local(url));
}

envelope_status azure_choose_identity(struct azure *azure)
{
    const char *endpoint = local_env("IDENTITY_ENDPOINT");
    bool app_service = local_env("IDENTITY_HEADER") != NULL;
    if (azure->settings->imds_endpoint || !endpoint || (!app_service && !local_env("IMDS_ENDPOINT")))
        return ENVELOPE_OK;
    azure->proof_dir = "/var/opt/azcmagent/tokens/";
    azure->identity = app_service ? AZURE_IDENTITY_APP_SERVICE : AZURE_IDENTITY_ARC;
    if (!is_identity_endpoint(endpoint, !app_service))
        return error_raise(ENVELOPE_E_CONFIG,
                           "[token %s]: IDENTITY_ENDPOINT is no address of a managed identity's service; set "
                           "imds-endpoint to use instance metadata",
                           azure->settings->label);
    azure->identity_endpoint = text_copy(endpoint);
    return azure->identity_endpoint ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

static envelope_status ask_token(const struct azure *azure, struct http_request *request)
{
    static const char *const versions[] = {[AZURE_IDENTITY_INSTANCE] = "2018-02-01",
                                           [AZURE_IDENTITY_APP_SERVICE] = "2019-08-01",
                                           [AZURE_IDENTITY_ARC] = "2019-11-01"};
    bool instance = azure->identity == AZURE_IDENTITY_INSTANCE;
    struct buffer query = {0};
    web_form_add(&query, "api-version", versions[azure->identity]);
    web_form_add(&query, "resource", azure->resource);
    if (azure->client_id)
        web_form_add(&query, "client_id", azure->client_id);
    http_request_clear(request);
    request->method = HTTP_GET;
    request->direct = true;
    request->optional = true;
    request->timeout = IMDS_TIMEOUT_SECONDS * CLOCK_SECOND;
    envelope_status status =
        buffer_ok(&query)
            ? http_request_url(request, "%s%s?%s", instance ? azure->imds_endpoint : azure->identity_endpoint,
                               instance ? "/metadata/identity/oauth2/token" : "", buffer_text(&query))
            : ENVELOPE_E_NO_MEMORY;
    buffer_clear(&query);
    if (status)
        return status;
    if (azure->identity != AZURE_IDENTITY_APP_SERVICE)
        return http_request_header(request, "Metadata", "true");
    const char *proof = local_env("IDENTITY_HEADER");
    return proof ? http_request_header(request, "X-IDENTITY-HEADER", proof)
                 : error_raise(ENVELOPE_E_HSM_LOGIN, "[token %s]: IDENTITY_HEADER is no longer set",
                               azure->settings->label);
}

/*
 * WWW-Authenticate: Basic realm=/var/opt/azcmagent/tokens/NAME.key. Whoever answers names a file and is sent what is in
 * it, so it must be one of the agent's.
 */
static bool take_proof_path(const struct http_reply *reply, const char *dir, char *path, size_t capacity)
{
    static const char before[] = "Basic realm=", end[] = ".key";
    char value[512];
    size_t dir_length = strlen(dir);
    if (!http_reply_header(reply, "WWW-Authenticate", value, sizeof value) ||
        strncmp(value, before, sizeof before - 1) != 0)
        return false;
    const char *from = value + sizeof before - 1;
    size_t length = strlen(from);
    if (length >= capacity || length < dir_length + sizeof end || strncmp(from, dir, dir_length) != 0 ||
        strchr(from + dir_length, '/') || strcmp(from + length - (sizeof end - 1), end) != 0)
        return false;
    memcpy(path, from, length + 1);
    return true;
}

static enum backend_step prove(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                               struct http_request *request)
{
    char path[256];
    struct buffer proof = {0}, value = {0};
    if (!take_proof_path(reply, azure->proof_dir, path, sizeof path))
        return fail(call, error_raise(ENVELOPE_E_HSM_LOGIN, "[token %s]: what answers is not Azure Arc's agent",
                                      azure->settings->label));
    envelope_status status = local_read(path, &proof);
    if (status)
        status = error_raise(ENVELOPE_E_HSM_LOGIN,
                             "[token %s]: Azure Arc's agent wants a file of its own read, and that cannot be done; is "
                             "this user a member of the group himds? %s",
                             azure->settings->label, error_text());
    else if (!proof.length || proof.length > PROOF_MAX)
        status = error_raise(ENVELOPE_E_HSM_LOGIN, "[token %s]: \"%s\" is no file of Azure Arc's agent",
                             azure->settings->label, path);
    buffer_append_text(&value, "Basic ");
    buffer_append_text(&value, buffer_text(&proof));
    if (!status)
        status = ask_token(azure, request);
    if (!status)
        status = buffer_ok(&value) ? http_request_header(request, "Authorization", buffer_text(&value))
                                   : ENVELOPE_E_NO_MEMORY;
    buffer_clear(&proof);
    buffer_clear(&value);
    call->stage = STAGE_PROVED;
    return status ? fail(call, status) : BACKEND_SEND;
}

enum backend_step azure_step_identity(const struct azure *azure, struct backend_call *call,
                                      const struct http_reply *reply, struct http_request *request)
{
    const char *source = sources[azure->identity];
    if (!reply) {
        envelope_status status = ask_token(azure, request);
        return status ? fail(call, status) : BACKEND_SEND;
    }
    if (reply->transport != HTTP_OK)
        return fail(call, error_raise(ENVELOPE_E_HSM_LOGIN,
                                      "[token %s]: %s is not reachable; is this a machine with a managed identity?",
                                      azure->settings->label, source));
    if (azure->identity == AZURE_IDENTITY_ARC && call->stage == STAGE_TOKEN && reply->status == 401)
        return prove(azure, call, reply, request);
    enum backend_step step = web_judge_token(call, reply, source);
    return step == BACKEND_DONE ? web_take_token(call, reply, source) : step;
}
