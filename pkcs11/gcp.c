/* The backend itself: settings checked, state made, calls handed to the file that knows them. */
#include "gcp.h"

#include <stdlib.h>
#include <string.h>

#include "backends.h"
#include "base/error.h"
#include "base/text.h"
#include "refusal.h"
#include "web.h"

static const char *const auth_names[] = {[GCP_AUTH_SERVICE_ACCOUNT] = "service-account",
                                         [GCP_AUTH_WORKLOAD] = "workload-identity",
                                         [GCP_AUTH_METADATA] = "metadata"};
enum { AUTH_COUNT = sizeof auth_names / sizeof auth_names[0] };

static void work_free(void *memory)
{
    struct gcp_work *work = memory;
    names_clear(&work->names);
    free(work->page);
    json_decref(work->config);
    buffer_clear(&work->secret);
    free(work);
}

struct gcp_work *gcp_work(struct backend_call *call)
{
    return web_work(call, sizeof(struct gcp_work), work_free);
}

/* --- Settings --- */

/* projects/P/locations/L/keyRings/R, of characters that need no escaping in a URL. */
static envelope_status check_ring(struct gcp *gcp)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:";
    static const char *const words[] = {"projects/", "/locations/", "/keyRings/"};
    const char *ring = gcp->settings->key_ring, *at = ring;
    size_t location = 0;
    for (size_t i = 0; at && i < 3; i++) {
        size_t word = strlen(words[i]);
        size_t name = strncmp(at, words[i], word) == 0 ? strspn(at + word, allowed) : 0;
        if (i == 2)
            location = (size_t)(at - ring);
        at = name && name < 128 && strncmp(at + word, "..", 2) != 0 ? at + word + name : NULL;
    }
    if (!at || *at)
        return error_raise(ENVELOPE_E_CONFIG,
                           "[token %s]: key-ring must read projects/PROJECT/locations/LOCATION/keyRings/RING",
                           gcp->settings->label);
    gcp->ring = text_copy(ring);
    gcp->location = text_format("%.*s", (int)location, ring);
    return gcp->ring && gcp->location ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

static envelope_status check_auth(struct gcp *gcp)
{
    const struct token_settings *settings = gcp->settings;
    size_t i = 0;
    envelope_status status = web_choose_auth(settings, auth_names, AUTH_COUNT, &i);
    if (status)
        return status;
    gcp->auth = (enum gcp_auth)i;
    if (gcp->auth == GCP_AUTH_METADATA && settings->credentials_file)
        return web_meaningless(settings, "credentials-file");
    return ENVELOPE_OK;
}

static envelope_status choose_endpoints(struct gcp *gcp)
{
    static const char *const metadata[] = {"http://metadata.google.internal", "http://169.254.169.254"};
    const char *endpoint = gcp->settings->endpoint ? gcp->settings->endpoint : "https://cloudkms.googleapis.com";
    envelope_status status = web_copy_endpoint(gcp->settings, "endpoint", endpoint, &gcp->endpoint);
    return status ? status : web_copy_metadata(gcp->settings, metadata, 2, &gcp->metadata);
}

static void gcp_close(void *state)
{
    struct gcp *gcp = state;
    if (!gcp)
        return;
    free(gcp->endpoint);
    free(gcp->ring);
    free(gcp->location);
    free(gcp->metadata);
    free(gcp);
}

static envelope_status gcp_open(const struct token_settings *settings, void **state)
{
    struct gcp *gcp = calloc(1, sizeof *gcp);
    if (!gcp)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for token %s", settings->label);
    gcp->settings = settings;
    envelope_status status = check_ring(gcp);
    if (!status)
        status = check_auth(gcp);
    if (!status)
        status = choose_endpoints(gcp);
    if (status) {
        gcp_close(gcp);
        return status;
    }
    *state = gcp;
    return ENVELOPE_OK;
}

/* --- Calls --- */

static enum backend_step hand_out(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                  struct http_request *request)
{
    switch (call->op) {
    case BACKEND_AUTHENTICATE:
        return gcp_step_auth(gcp, call, reply, request);
    case BACKEND_LIST:
    case BACKEND_DESCRIBE:
    case BACKEND_CREATE:
        return gcp_step_keys(gcp, call, reply, request);
    case BACKEND_DELETE:
        return backend_fail(call, CKR_ACTION_PROHIBITED,
                            error_raise(ENVELOPE_E_HSM,
                                        "[token %s]: Cloud KMS deletes no keys; destroy the versions of %s there",
                                        gcp->settings->label, call->key));
    default: /* what is not offered is never asked: token.c */
        break;
    }
    if (call->cipher != BACKEND_AEAD && (call->op == BACKEND_ENCRYPT || call->op == BACKEND_DECRYPT))
        return gcp_step_rsa(gcp, call, reply, request);
    return gcp_step_crypt(gcp, call, reply, request);
}

static enum backend_step gcp_step(const void *state, struct backend_call *call, const struct http_reply *reply,
                                  struct http_request *request)
{
    return refusal_forget(call, hand_out(state, call, reply, request));
}

/* "(exp.)": written to the documentation, not run against the service yet. */
const struct backend gcp_backend = {
    .name = "gcp-kms",
    .model = "Cloud KMS (exp.)",
    .experimental = true,
    .max_plaintext = GCP_PLAINTEXT_MAX,
    .max_ciphertext = GCP_CIPHERTEXT_MAX,
    .oaep_sha1 = true,
    .oaep_sha256 = true,
    .random = true,
    .open = gcp_open,
    .close = gcp_close,
    .step = gcp_step,
};
