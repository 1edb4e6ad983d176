/* The backends themselves: settings checked, state made, calls handed to the file that knows them. */
#include "azure.h"

#include <stdlib.h>
#include <string.h>

#include "backends.h"
#include "base/error.h"
#include "base/text.h"
#include "local.h"
#include "refusal.h"
#include "web.h"

static const char *const auth_names[] = {[AZURE_AUTH_CLIENT_SECRET] = "client-secret",
                                         [AZURE_AUTH_CERTIFICATE] = "client-certificate",
                                         [AZURE_AUTH_WORKLOAD] = "workload-identity",
                                         [AZURE_AUTH_MANAGED] = "managed-identity"};
enum { AUTH_COUNT = sizeof auth_names / sizeof auth_names[0] };

static void work_free(void *memory)
{
    struct azure_work *work = memory;
    names_clear(&work->names);
    free(work->next);
    buffer_clear(&work->secret);
    free(work);
}

struct azure_work *azure_work(struct backend_call *call)
{
    return web_work(call, sizeof(struct azure_work), work_free);
}

/* --- Settings --- */

/*
 * A token is good for one service, named by its host without the vault's own name: https://vault.azure.net,
 * https://managedhsm.azure.net, https://vault.azure.cn. For any other host, a private link's or of this machine (a
 * test): the public cloud's.
 */
static envelope_status find_resource(struct azure *azure)
{
    const char *host = strstr(azure->base, "://") + 3;
    const char *dot = strchr(host, '.');
    const char *known = dot ? dot + 1 : "";
    bool is_vault = strncmp(known, "vault.", 6) == 0 || strncmp(known, "managedhsm.", 11) == 0;
    if (!is_vault)
        known = azure->managed_hsm ? "managedhsm.azure.net" : "vault.azure.net";
    azure->resource = text_format("https://%.*s", (int)strcspn(known, ":"), known);
    return azure->resource ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

static envelope_status check_auth(struct azure *azure)
{
    const struct token_settings *settings = azure->settings;
    size_t i = 0;
    envelope_status status = web_choose_auth(settings, auth_names, AUTH_COUNT, &i);
    if (status)
        return status;
    azure->auth = (enum azure_auth)i;
    const char *tenant = settings->tenant ? settings->tenant : local_env("AZURE_TENANT_ID");
    const char *client_id = settings->client_id ? settings->client_id : local_env("AZURE_CLIENT_ID");
    if (azure->auth != AZURE_AUTH_MANAGED && !tenant)
        return web_missing(settings, "tenant, or AZURE_TENANT_ID");
    if (azure->auth != AZURE_AUTH_MANAGED && !client_id)
        return web_missing(settings, "client-id, or AZURE_CLIENT_ID");
    if (azure->auth == AZURE_AUTH_CERTIFICATE && !settings->credentials_file &&
        !local_env("AZURE_CLIENT_CERTIFICATE_PATH"))
        return web_missing(settings, "credentials-file, or AZURE_CLIENT_CERTIFICATE_PATH");
    if (azure->auth != AZURE_AUTH_CERTIFICATE && settings->credentials_file)
        return web_meaningless(settings, "credentials-file");
    if (tenant && tenant[strspn(tenant, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.")])
        return error_raise(ENVELOPE_E_CONFIG, "[token %s]: tenant must be a directory's id or domain", settings->label);
    if ((tenant && !(azure->tenant = text_copy(tenant))) || (client_id && !(azure->client_id = text_copy(client_id))))
        return ENVELOPE_E_NO_MEMORY;
    return ENVELOPE_OK;
}

static envelope_status choose_endpoints(struct azure *azure)
{
    const struct token_settings *settings = azure->settings;
    if (!settings->address)
        return error_raise(ENVELOPE_E_CONFIG, "[token %s]: address is missing: https://NAME.%s.azure.net",
                           settings->label, azure->managed_hsm ? "managedhsm" : "vault");
    envelope_status status = web_copy_endpoint(settings, "address", settings->address, &azure->base);
    if (status)
        return status;
    const char *authority = settings->authority ? settings->authority : local_env("AZURE_AUTHORITY_HOST");
    status = web_copy_endpoint(settings, settings->authority ? "authority" : "AZURE_AUTHORITY_HOST",
                               authority ? authority : "https://login.microsoftonline.com", &azure->authority);
    static const char *const metadata[] = {"http://169.254.169.254"};
    return status ? status : web_copy_metadata(settings, metadata, 1, &azure->imds_endpoint);
}

static void azure_close(void *state)
{
    struct azure *azure = state;
    if (!azure)
        return;
    free(azure->base);
    free(azure->resource);
    free(azure->authority);
    free(azure->tenant);
    free(azure->client_id);
    free(azure->imds_endpoint);
    free(azure->identity_endpoint);
    free(azure);
}

static envelope_status azure_open(const struct token_settings *settings, void **state)
{
    struct azure *azure = calloc(1, sizeof *azure);
    if (!azure)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for token %s", settings->label);
    azure->settings = settings;
    azure->managed_hsm = strcmp(settings->backend, azure_hsm_backend.name) == 0;
    const struct backend *backend = azure->managed_hsm ? &azure_hsm_backend : &azure_backend;
    azure->plaintext_max = backend->max_plaintext;
    azure->blob_max = backend->max_ciphertext;
    envelope_status status = choose_endpoints(azure);
    if (!status)
        status = check_auth(azure);
    if (!status)
        status = find_resource(azure);
    if (!status && azure->auth == AZURE_AUTH_MANAGED)
        status = azure_choose_identity(azure);
    if (status) {
        azure_close(azure);
        return status;
    }
    *state = azure;
    return ENVELOPE_OK;
}

/* --- Calls --- */

static enum backend_step hand_out(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                  struct http_request *request)
{
    switch (call->op) {
    case BACKEND_AUTHENTICATE:
        return azure_step_auth(azure, call, reply, request);
    case BACKEND_LIST:
    case BACKEND_DESCRIBE:
        return azure_step_keys(azure, call, reply, request);
    case BACKEND_CREATE:
    case BACKEND_DELETE:
        return azure_step_admin(azure, call, reply, request);
    default: /* what is not offered is never asked: token.c */
        return azure_step_crypt(azure, call, reply, request);
    }
}

static enum backend_step azure_step(const void *state, struct backend_call *call, const struct http_reply *reply,
                                    struct http_request *request)
{
    return refusal_forget(call, hand_out(state, call, reply, request));
}

/* "(exp.)": written to the documentation, not run against the service yet. */
const struct backend azure_backend = {
    .name = "azure-key-vault",
    .model = "Key Vault (exp.)",
    .experimental = true,
    .max_plaintext = 160, /* RSA-OAEP-256 with 2,048 bits, less the binding of the associated data */
    .max_ciphertext = 1024,
    .oaep_sha1 = true,
    .oaep_sha256 = true,
    .rsa_aead = true,
    .random = false,
    .reencrypt = false,
    .open = azure_open,
    .close = azure_close,
    .step = azure_step,
};

const struct backend azure_hsm_backend = {
    .name = "azure-managed-hsm",
    .model = "Managed HSM exp.",
    .experimental = true,
    .max_plaintext = 4096,
    .max_ciphertext = 5632, /* base64url of plaintext, IV and tag, and the version */
    .oaep_sha1 = true,
    .oaep_sha256 = true,
    .rsa_aead = true,
    .random = true,
    .reencrypt = false,
    .open = azure_open,
    .close = azure_close,
    .step = azure_step,
};
