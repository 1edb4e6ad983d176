/* The backend itself: settings checked, state made, calls handed to the file that knows them. */
#include "bao.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "backends.h"
#include "base/error.h"
#include "base/text.h"

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
    json_decref(work->root);
    json_taken_clear(&work->taken);
    for (size_t i = 0; i < work->count; i++)
        free(work->names[i]);
    free(work->names);
    free(work);
}

struct bao_work *bao_work(struct backend_call *call)
{
    if (call->work)
        return call->work;
    struct bao_work *work = calloc(1, sizeof *work);
    if (!work) {
        backend_fail(call, CKR_HOST_MEMORY, error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a call of OpenBao"));
        return NULL;
    }
    call->work = work;
    call->work_free = work_free;
    return work;
}

static bool is_loopback(const char *host)
{
    static const char *const names[] = {"127.0.0.1", "localhost", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t length = strlen(names[i]);
        if (strncmp(host, names[i], length) == 0 && (host[length] == '\0' || host[length] == ':'))
            return true;
    }
    return false;
}

/* "https://host:8200" and nothing behind it; plain http only to this machine (an agent beside the program). */
static envelope_status check_address(const struct token_settings *settings, char **base)
{
    static const char secure[] = "https://", plain[] = "http://";
    const char *address = settings->address;
    if (!address)
        return error_raise(ENVELOPE_E_CONFIG, "[token %s]: address is missing: the server's URL, https://host:8200",
                           settings->label);
    bool is_secure = strncmp(address, secure, sizeof secure - 1) == 0;
    const char *host = address + (is_secure ? sizeof secure : sizeof plain) - 1;
    if (!is_secure && strncmp(address, plain, sizeof plain - 1) != 0)
        return error_raise(ENVELOPE_E_CONFIG, "[token %s]: address = %s is not of the form https://host:8200",
                           settings->label, address);
    size_t length = strcspn(host, "/?#@ ");
    if (length == 0 || host[length + strspn(host + length, "/")] != '\0')
        return error_raise(ENVELOPE_E_CONFIG,
                           "[token %s]: address = %s: only scheme, host and port belong there; the engine's path goes "
                           "into mount",
                           settings->label, address);
    char *authority = strndup(host, length);
    if (!authority)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for an address");
    envelope_status status = ENVELOPE_OK;
    if (!is_secure && !is_loopback(authority))
        status = error_raise(ENVELOPE_E_CONFIG,
                             "[token %s]: address = %s would send tokens and keys in the clear; use https://",
                             settings->label, address);
    else if (!(*base = text_format("%s%s/v1", is_secure ? secure : plain, authority)))
        status = ENVELOPE_E_NO_MEMORY;
    free(authority);
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

static envelope_status missing(const struct token_settings *settings, const char *what)
{
    return error_raise(ENVELOPE_E_CONFIG, "[token %s]: auth = %s needs %s", settings->label, settings->auth, what);
}

static envelope_status check_auth(const struct token_settings *settings, enum bao_auth *auth)
{
    size_t i = 0;
    while (settings->auth && i < AUTH_COUNT && strcmp(auth_names[i], settings->auth) != 0)
        i++;
    if (!settings->auth || i == AUTH_COUNT)
        return error_raise(ENVELOPE_E_CONFIG, "[token %s]: auth must be one of token, approle, cert, kubernetes",
                           settings->label);
    *auth = (enum bao_auth)i;
    if (*auth == BAO_AUTH_APPROLE && !settings->role_id_file && !settings->role)
        return missing(settings, "role-id-file, or the role id itself in role");
    if (*auth == BAO_AUTH_CERT && (!settings->client_cert || !settings->client_key))
        return missing(settings, "client-cert and client-key");
    if (*auth == BAO_AUTH_KUBERNETES && !settings->role)
        return missing(settings, "role");
    return ENVELOPE_OK;
}

/* Keys that mean something to other backends only: a setting that does nothing is a mistake to be told of. */
static envelope_status check_foreign(const struct token_settings *settings)
{
    const struct {
        const char *name;
        bool set;
    } foreign[] = {
        {"region", settings->region},
        {"endpoint", settings->endpoint},
        {"sts-endpoint", settings->sts_endpoint},
        {"imds-endpoint", settings->imds_endpoint},
        {"profile", settings->profile},
        {"grant-tokens", settings->grant_tokens},
        {"fips", settings->fips},
    };
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        if (foreign[i].set)
            return error_raise(ENVELOPE_E_CONFIG, "[token %s]: %s has no meaning for backend = openbao",
                               settings->label, foreign[i].name);
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
    free(bao);
}

static envelope_status bao_open(const struct token_settings *settings, void **state)
{
    struct bao *bao = calloc(1, sizeof *bao);
    if (!bao)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the OpenBao token \"%s\"", settings->label);
    bao->settings = settings;
    envelope_status status = check_foreign(settings);
    if (!status)
        status = check_auth(settings, &bao->auth);
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
    enum backend_step step = hand_out(state, call, reply, request);
    bao_forget_reply(call);
    if (step == BACKEND_DONE) {
        /* What was refused on the way (a key looked for and not there) is no error of a call that succeeded. */
        call->rv = CKR_OK;
        call->service_code[0] = call->service_message[0] = '\0';
    }
    return step;
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
