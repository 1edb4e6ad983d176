/* The backend itself: settings checked, state made, calls handed to the file that knows them. */
#include "bao.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "backends.h"
#include "base/error.h"
#include "base/text.h"
#include "refusal.h"
#include "web.h"

static const char *const auth_names[] = {
    [BAO_AUTH_TOKEN] = "token",
    [BAO_AUTH_APPROLE] = "approle",
    [BAO_AUTH_CERT] = "cert",
    [BAO_AUTH_KUBERNETES] = "kubernetes",
};
enum { AUTH_COUNT = sizeof auth_names / sizeof auth_names[0] };

static void work_free(void *memory)
{
    struct bao_work *work = memory;
    buffer_clear(&work->secret);
    free(work->refused);
    json_decref(work->root);
    json_taken_clear(&work->taken);
    names_clear(&work->names);
    free(work);
}

struct bao_work *bao_work(struct backend_call *call)
{
    return web_work(call, sizeof(struct bao_work), work_free);
}

/* Plain http only to this machine: an agent beside the program. */
static envelope_status check_address(const struct token_settings *settings, char **base)
{
    char *address = NULL;
    if (!settings->address)
        return error_raise(ENVELOPE_E_CONFIG, "[token %s]: address is missing: the server's URL, https://host:8200",
                           settings->label);
    envelope_status status = web_copy_endpoint(settings, "address", settings->address, &address);
    if (!status && !(*base = text_format("%s/v1", address)))
        status = ENVELOPE_E_NO_MEMORY;
    free(address);
    return status;
}

/* A path without slashes around it, made of segments that need no escaping. */
static envelope_status check_path(const struct token_settings *settings, const char *name, const char *value,
                                  const char *before, char **path)
{
    value += strspn(value, "/");
    size_t length = strlen(value);
    while (length && value[length - 1] == '/')
        length--;
    bool good = length > 0 && length < 256;
    for (size_t i = 0; good && i < length; i++)
        good = isalnum((unsigned char)value[i]) || strchr("_.-/", value[i]);
    if (!good || strstr(value, "..") || strstr(value, "//"))
        return error_raise(ENVELOPE_E_CONFIG, "[token %s]: %s = %s is not the path of a mount", settings->label, name,
                           value);
    *path = text_format("%s%.*s", before, (int)length, value);
    return *path ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

static envelope_status check_auth(const struct token_settings *settings, enum bao_auth *auth)
{
    size_t chosen;
    envelope_status status = web_choose_auth(settings, auth_names, AUTH_COUNT, &chosen);
    if (status)
        return status;
    *auth = (enum bao_auth)chosen;
    if (*auth == BAO_AUTH_APPROLE && !settings->role_id_file && !settings->role)
        return web_missing(settings, "role-id-file, or the role id itself in role");
    if (*auth == BAO_AUTH_CERT && (!settings->client_cert || !settings->client_key))
        return web_missing(settings, "client-cert and client-key");
    if (*auth == BAO_AUTH_KUBERNETES && !settings->role)
        return web_missing(settings, "role");
    return ENVELOPE_OK;
}

static void bao_close(void *state)
{
    struct bao *bao = state;
    if (!bao)
        return;
    free(bao->base);
    free(bao->mount);
    free(bao->auth_mount);
    bao_lockout_free(bao->lockout);
    free(bao);
}

static envelope_status bao_open(const struct token_settings *settings, void **state)
{
    struct bao *bao = calloc(1, sizeof *bao);
    if (!bao)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the OpenBao token \"%s\"", settings->label);
    bao->settings = settings;
    envelope_status status = check_auth(settings, &bao->auth);
    if (!status && !(bao->lockout = bao_lockout_new()))
        status = ENVELOPE_E_NO_MEMORY;
    if (!status)
        status = check_address(settings, &bao->base);
    if (!status)
        status = check_path(settings, "mount", settings->mount ? settings->mount : "transit", "", &bao->mount);
    if (!status)
        status = check_path(settings, "auth-mount", settings->auth_mount ? settings->auth_mount : settings->auth,
                            "auth/", &bao->auth_mount);
    if (status) {
        bao_close(bao);
        return status;
    }
    *state = bao;
    return ENVELOPE_OK;
}

static enum backend_step hand_out(const struct bao *state, struct backend_call *call, const struct http_reply *reply,
                                  struct http_request *request)
{
    switch (call->op) {
    case BACKEND_AUTHENTICATE:
        return bao_authenticate(state, call, reply, request);
    case BACKEND_LIST:
        return bao_list(state, call, reply, request);
    case BACKEND_DESCRIBE:
        return bao_describe(state, call, reply, request);
    case BACKEND_CREATE:
        return bao_create(state, call, reply, request);
    case BACKEND_DELETE:
        return bao_delete(state, call, reply, request);
    case BACKEND_ENCRYPT:
        return bao_encrypt(state, call, reply, request);
    case BACKEND_DECRYPT:
        return bao_decrypt(state, call, reply, request);
    case BACKEND_REWRAP:
        return bao_rewrap(state, call, reply, request);
    case BACKEND_RANDOM:
        return bao_random(state, call, reply, request);
    case BACKEND_DATA_KEY:
        return bao_data_key(state, call, reply, request);
    case BACKEND_VERSIONS:
        return bao_versions(state, call, reply, request);
    case BACKEND_ROTATE:
        return bao_rotate(state, call, reply, request);
    case BACKEND_SET_VERSIONS:
        return bao_set_versions(state, call, reply, request);
    case BACKEND_BATCH:
        return bao_batch(state, call, reply, request);
    }
    return backend_fail(call, CKR_GENERAL_ERROR, error_raise(ENVELOPE_E_INTERNAL, "OpenBao: no such operation"));
}

static enum backend_step bao_step(const void *state, struct backend_call *call, const struct http_reply *reply,
                                  struct http_request *request)
{
    enum backend_step step;
    if (reply && bao_denied_asks(call))
        step = bao_denied_judge(call, reply);
    else if ((step = hand_out(state, call, reply, request)) == BACKEND_REAUTH)
        step = bao_denied_ask(state, call, request);
    bao_forget_reply(call);
    return refusal_forget(call, step);
}

const struct backend bao_backend = {
    .name = "openbao",
    .model = "transit",
    .max_plaintext = BAO_PLAINTEXT_MAX,
    .max_ciphertext = BAO_CIPHERTEXT_MAX,
    .oaep_sha1 = false,
    .oaep_sha256 = true,
    .random = true,
    .reencrypt = true,
    .versions = true,
    .rotate = true,
    .min_versions = true,
    .data_key = bao_makes_data_key,
    .batch_items = BAO_BATCH_ITEMS,
    .batch_bytes = BAO_BATCH_BYTES,
    .open = bao_open,
    .close = bao_close,
    .step = bao_step,
};
