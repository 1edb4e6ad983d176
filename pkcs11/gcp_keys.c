/* Listing keys, describing one, making one. */
#include "gcp.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <openssl/x509.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "json.h"
#include "web.h"

enum stage { STAGE_LIST = 1, STAGE_GET, STAGE_CREATE, STAGE_VERSION, STAGE_VERSIONS, STAGE_PUBLIC };
enum { KEYS_MAX = 10000, PAGE_MAX = 1024 };

static enum backend_step no_memory(struct backend_call *call)
{
    return backend_fail(call, CKR_HOST_MEMORY, error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the list of keys"));
}

int64_t gcp_time_of(const char *text)
{
    struct tm tm = {0};
    const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    return rest && (*rest == 'Z' || *rest == '.') ? (int64_t)timegm(&tm) * CLOCK_SECOND : 0;
}

/* --- One key --- */

/* Of a kind for us; what is missing or strange makes *wrong. */
static bool read_key(const struct gcp *gcp, const json_t *data, struct backend_key *key, bool *wrong)
{
    const char *id = json_member(data, "name"), *purpose = json_member(data, "purpose");
    const json_t *primary = json_object_get(data, "primary");
    const char *state = primary ? json_member(primary, "state") : NULL;
    const char *origin = primary ? json_member(primary, "importJob") : NULL;
    const char *name = id ? gcp_name_of(gcp, id) : NULL;
    *wrong = !name || name == id || !purpose;
    if (*wrong || strcmp(purpose, "ENCRYPT_DECRYPT") != 0)
        return false;
    key->type = BACKEND_KEY_SYMMETRIC;
    key->bits = 256;
    key->can_encrypt = key->can_decrypt = true;
    key->enabled = state && strcmp(state, "ENABLED") == 0;
    key->imported = json_is_true(json_object_get(data, "importOnly")) || (origin && *origin);
    key->created = gcp_time_of(json_member(data, "createTime"));
    text_printable(state ? state : "NO_PRIMARY", strlen(state ? state : "NO_PRIMARY"), key->state, sizeof key->state);
    key->id = text_copy(id);
    key->label = text_copy(name);
    return true;
}

static enum backend_step add_key(const struct gcp *gcp, struct backend_call *call, const json_t *data,
                                 const char *doing)
{
    bool wrong = false;
    struct backend_key *key = backend_add_key(call);
    if (!key)
        return BACKEND_FAILED;
    if (!read_key(gcp, data, key, &wrong)) {
        backend_key_clear(key);
        call->keys.count--;
        return wrong ? gcp_bad_reply(gcp, call, doing, "no description of a key of this ring") : BACKEND_DONE;
    }
    return key->id && key->label ? BACKEND_DONE : no_memory(call);
}

static bool is_rsa(const json_t *data)
{
    const char *purpose = json_member(data, "purpose");
    return purpose && strcmp(purpose, "ASYMMETRIC_DECRYPT") == 0;
}

/* --- A version of an RSA key --- */

/* The newest version that is enabled is the key that new data is for; a disabled one is shown, to be refused. */
static void consider(struct gcp_work *work, const json_t *data)
{
    struct gcp_version version = {0}, *best = &work->best;
    const char *name = json_member(data, "name"), *state = json_member(data, "state");
    const char *job = json_member(data, "importJob"), *number = name ? strrchr(name, '/') : NULL;
    bool sha1;
    if (!number || !state || !gcp_parse_algorithm(json_member(data, "algorithm"), &version.bits, &sha1))
        return;
    version.number = strtoull(number + 1, NULL, 10);
    version.enabled = strcmp(state, "ENABLED") == 0;
    work->pending = work->pending || strcmp(state, "PENDING_GENERATION") == 0;
    if (!version.enabled && strcmp(state, "DISABLED") != 0)
        return;
    version.imported = job && *job;
    version.created = gcp_time_of(json_member(data, "createTime"));
    text_printable(state, strlen(state), version.state, sizeof version.state);
    if (!best->number || (version.enabled && !best->enabled) ||
        (version.enabled == best->enabled && version.number > best->number))
        *best = version;
}

static struct gcp_id best_id(const struct gcp *gcp, const struct gcp_work *work)
{
    struct gcp_id id = {0};
    if (gcp_parse_id(gcp, names_current(&work->names), &id))
        snprintf(id.version, sizeof id.version, "%" PRIu64, work->best.number);
    return id;
}

/* public: NULL where it is not to be had. */
static enum backend_step add_version(const struct gcp *gcp, struct backend_call *call, EVP_PKEY *public)
{
    const struct gcp_work *work = call->work;
    const struct gcp_version *version = &work->best;
    struct gcp_id id = best_id(gcp, work);
    struct backend_key *key = backend_add_key(call);
    unsigned char *der = NULL;
    if (!key)
        return BACKEND_FAILED;
    key->type = BACKEND_KEY_RSA;
    key->bits = version->bits;
    key->can_encrypt = key->can_decrypt = true;
    key->enabled = version->enabled;
    key->imported = version->imported;
    key->created = version->created;
    memcpy(key->state, version->state, sizeof key->state);
    key->id = text_format("%s/cryptoKeys/%s/cryptoKeyVersions/%s", gcp->ring, id.name, id.version);
    key->label = text_copy(id.name);
    int length = public ? i2d_PUBKEY(public, &der) : 0;
    if (length > 0 && (key->public_key = malloc((size_t)length))) {
        memcpy(key->public_key, der, (size_t)length);
        key->public_key_length = (size_t)length;
    }
    OPENSSL_free(der);
    return key->id && key->label && (!public || key->public_key) ? BACKEND_DONE : no_memory(call);
}

/* --- Asking --- */

static enum backend_step ask_list(const struct gcp *gcp, struct backend_call *call, struct http_request *request)
{
    const struct gcp_work *work = call->work;
    struct buffer query = {0};
    web_form_add(&query, "pageSize", "100");
    if (work->page)
        web_form_add(&query, "pageToken", work->page);
    call->stage = STAGE_LIST;
    bool ok =
        web_request(call, request, HTTP_GET, "%s/v1/%s/cryptoKeys?%s", gcp->endpoint, gcp->ring, buffer_text(&query));
    buffer_clear(&query);
    return ok ? BACKEND_SEND : BACKEND_FAILED;
}

static enum backend_step next_key(const struct gcp *gcp, struct backend_call *call, struct http_request *request)
{
    struct gcp_work *work = call->work;
    work->best = (struct gcp_version){0};
    for (const char *one; (one = names_current(&work->names)); work->names.at++) {
        struct gcp_id id;
        if (!gcp_parse_id(gcp, one, &id))
            continue; /* what cannot be a key's name leads to no key */
        call->stage = *id.version ? STAGE_VERSION : STAGE_GET;
        return web_request(call, request, HTTP_GET, "%s/v1/%s/cryptoKeys/%s%s%s", gcp->endpoint, gcp->ring, id.name,
                           *id.version ? "/cryptoKeyVersions/" : "", id.version)
                   ? BACKEND_SEND
                   : BACKEND_FAILED;
    }
    return BACKEND_DONE;
}

static enum backend_step skip_key(const struct gcp *gcp, struct backend_call *call, struct http_request *request)
{
    struct gcp_work *work = call->work;
    work->names.at++;
    return next_key(gcp, call, request);
}

static enum backend_step ask_versions(const struct gcp *gcp, struct backend_call *call, struct http_request *request)
{
    const struct gcp_work *work = call->work;
    struct buffer query = {0};
    struct gcp_id id = best_id(gcp, work);
    web_form_add(&query, "pageSize", "100");
    if (work->page)
        web_form_add(&query, "pageToken", work->page);
    call->stage = STAGE_VERSIONS;
    bool ok = web_request(call, request, HTTP_GET, "%s/v1/%s/cryptoKeys/%s/cryptoKeyVersions?%s", gcp->endpoint,
                          gcp->ring, id.name, buffer_text(&query));
    buffer_clear(&query);
    return ok ? BACKEND_SEND : BACKEND_FAILED;
}

static enum backend_step ask_create(const struct gcp *gcp, struct backend_call *call, struct http_request *request)
{
    bool rsa = call->type == BACKEND_KEY_RSA;
    if (rsa ? call->bits != 2048 && call->bits != 3072 && call->bits != 4096 : call->bits != 256)
        return backend_fail(call, CKR_KEY_SIZE_RANGE,
                            error_raise(ENVELOPE_E_ARGUMENT,
                                        "[token %s]: AES keys of 256 bits and RSA keys of 2048, 3072 and 4096 are made "
                                        "there",
                                        gcp->settings->label));
    if (!call->label || !gcp_is_key_name(call->label, strlen(call->label)))
        return backend_fail(call, CKR_ATTRIBUTE_VALUE_INVALID,
                            error_raise(ENVELOPE_E_ARGUMENT,
                                        "[token %s]: a key needs a label of 1 to 63 letters, digits, - and _",
                                        gcp->settings->label));
    if (!web_request(call, request, HTTP_POST, "%s/v1/%s/cryptoKeys?cryptoKeyId=%s", gcp->endpoint, gcp->ring,
                     call->label))
        return BACKEND_FAILED;
    request->once = true;
    char algorithm[48] = "GOOGLE_SYMMETRIC_ENCRYPTION";
    if (rsa)
        snprintf(algorithm, sizeof algorithm, "RSA_DECRYPT_OAEP_%u_SHA256", call->bits);
    web_body_text(request, "purpose", rsa ? "ASYMMETRIC_DECRYPT" : "ENCRYPT_DECRYPT");
    buffer_append_text(&request->body, ",\"versionTemplate\":{\"algorithm\":");
    buffer_append_json(&request->body, algorithm);
    buffer_append_text(&request->body, ",\"protectionLevel\":\"HSM\"}");
    call->stage = STAGE_CREATE;
    return web_body_close(call, request);
}

static enum backend_step begin(const struct gcp *gcp, struct backend_call *call, struct http_request *request)
{
    struct gcp_work *work = gcp_work(call);
    if (!work)
        return BACKEND_FAILED;
    if (call->op == BACKEND_CREATE)
        return ask_create(gcp, call, request);
    if (call->op == BACKEND_DESCRIBE)
        return names_add(&work->names, call->key, strlen(call->key)) ? next_key(gcp, call, request) : no_memory(call);
    const char *list = gcp->settings->keys;
    if (!list)
        return ask_list(gcp, call, request);
    return names_add_list(&work->names, list) ? next_key(gcp, call, request) : no_memory(call);
}

/* --- The answers --- */

static enum backend_step take_next(const struct gcp *gcp, struct backend_call *call, const json_t *root)
{
    struct gcp_work *work = call->work;
    const char *next = json_member(root, "nextPageToken");
    bool more = next && *next;
    if (more && (strlen(next) > PAGE_MAX || (work->page && strcmp(work->page, next) == 0)))
        return gcp_bad_reply(gcp, call, "list keys", "a list that does not come to its end");
    free(work->page);
    work->page = more ? text_copy(next) : NULL;
    return more && !work->page ? no_memory(call) : BACKEND_DONE;
}

/* AES keys are described by the list; RSA keys are looked at one by one. */
static enum backend_step take_item(const struct gcp *gcp, struct backend_call *call, const json_t *item)
{
    struct gcp_work *work = call->work;
    const char *name = json_member(item, "name");
    if (call->keys.count + work->names.count == KEYS_MAX)
        return backend_fail(call, CKR_DEVICE_MEMORY,
                            error_raise(ENVELOPE_E_HSM, "[token %s]: over %d keys; name the ones to show with keys",
                                        gcp->settings->label, (int)KEYS_MAX));
    if (name && is_rsa(item))
        return names_add(&work->names, name, strlen(name)) ? BACKEND_DONE : no_memory(call);
    return add_key(gcp, call, item, "list keys");
}

static enum backend_step on_page(const struct gcp *gcp, struct backend_call *call, const json_t *root,
                                 struct http_request *request)
{
    const struct gcp_work *work = call->work;
    json_t *items = json_object_get(root, "cryptoKeys"), *item;
    size_t i;
    if (items && !json_is_array(items))
        return gcp_bad_reply(gcp, call, "list keys", "no list of keys");
    json_array_foreach(items, i, item)
    {
        enum backend_step step = take_item(gcp, call, item);
        if (step != BACKEND_DONE)
            return step;
    }
    enum backend_step step = take_next(gcp, call, root);
    if (step != BACKEND_DONE)
        return step;
    return work->page ? ask_list(gcp, call, request) : next_key(gcp, call, request);
}

static enum backend_step on_key(const struct gcp *gcp, struct backend_call *call, const json_t *root,
                                struct http_request *request)
{
    if (is_rsa(root))
        return ask_versions(gcp, call, request);
    enum backend_step step = add_key(gcp, call, root, "get key");
    return step == BACKEND_DONE ? skip_key(gcp, call, request) : step;
}

static enum backend_step on_created(const struct gcp *gcp, struct backend_call *call, const json_t *root,
                                    struct http_request *request)
{
    struct gcp_work *work = call->work;
    if (call->type == BACKEND_KEY_RSA && is_rsa(root))
        return names_add(&work->names, call->label, strlen(call->label)) ? ask_versions(gcp, call, request)
                                                                         : no_memory(call);
    enum backend_step step = add_key(gcp, call, root, "create key");
    return step == BACKEND_DONE && (call->keys.count != 1 || call->type == BACKEND_KEY_RSA)
               ? gcp_bad_reply(gcp, call, "create key", "it made another kind of key than asked for")
               : step;
}

/* A disabled key; or one whose public key is not ours to see, which shall not hide the others of the ring. */
static enum backend_step show_without_public_key(const struct gcp *gcp, struct backend_call *call,
                                                 struct http_request *request)
{
    enum backend_step step = add_version(gcp, call, NULL);
    return step == BACKEND_DONE ? skip_key(gcp, call, request) : step;
}

/* The version is chosen. */
static enum backend_step on_chosen(const struct gcp *gcp, struct backend_call *call, struct http_request *request)
{
    const struct gcp_work *work = call->work;
    if (!work->best.number && call->op == BACKEND_CREATE) {
        call->rv = CKR_DEVICE_ERROR;
        if (!work->pending)
            return gcp_bad_reply(gcp, call, "create key", "it made a key without a version that could be used");
        error_raise(ENVELOPE_E_HSM_UNAVAILABLE, "[token %s]: the key %s is still being made; it will be there later",
                    gcp->settings->label, call->label);
        return BACKEND_RETRY;
    }
    if (work->best.enabled) {
        struct gcp_id id = best_id(gcp, work);
        call->stage = STAGE_PUBLIC;
        return gcp_ask_public_key(gcp, call, &id, request) ? BACKEND_SEND : BACKEND_FAILED;
    }
    return work->best.number ? show_without_public_key(gcp, call, request) : skip_key(gcp, call, request);
}

static enum backend_step on_versions(const struct gcp *gcp, struct backend_call *call, const json_t *root,
                                     struct http_request *request)
{
    struct gcp_work *work = call->work;
    json_t *items = json_object_get(root, "cryptoKeyVersions"), *item;
    size_t i;
    if (items && !json_is_array(items))
        return gcp_bad_reply(gcp, call, "list versions", "no list of versions");
    if (!work->page) { /* the first page, perhaps asked for again */
        work->best = (struct gcp_version){0};
        work->pending = false;
    }
    json_array_foreach(items, i, item) consider(work, item);
    enum backend_step step = take_next(gcp, call, root);
    if (step != BACKEND_DONE)
        return step;
    return work->page ? ask_versions(gcp, call, request) : on_chosen(gcp, call, request);
}

static enum backend_step on_public_key(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                       struct http_request *request)
{
    struct gcp_public public = {0};
    struct gcp_id id = best_id(gcp, call->work);
    enum backend_step step = gcp_read_public_key(gcp, call, reply, &id, &public);
    if (step == BACKEND_DONE)
        step = add_version(gcp, call, public.key);
    EVP_PKEY_free(public.key);
    return step == BACKEND_DONE ? skip_key(gcp, call, request) : step;
}

static enum backend_step on_reply(const struct gcp *gcp, struct backend_call *call, const json_t *root,
                                  struct http_request *request)
{
    switch (call->stage) {
    case STAGE_LIST:
        return on_page(gcp, call, root, request);
    case STAGE_GET:
        return on_key(gcp, call, root, request);
    case STAGE_VERSION:
        consider(call->work, root);
        return on_chosen(gcp, call, request);
    case STAGE_VERSIONS:
        return on_versions(gcp, call, root, request);
    default:
        return on_created(gcp, call, root, request);
    }
}

enum backend_step gcp_step_keys(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                struct http_request *request)
{
    static const char *const doing[] = {[STAGE_LIST] = "list keys",         [STAGE_GET] = "get key",
                                        [STAGE_CREATE] = "create key",      [STAGE_VERSION] = "get version",
                                        [STAGE_VERSIONS] = "list versions", [STAGE_PUBLIC] = "get public key"};
    if (!reply)
        return begin(gcp, call, request);
    struct gcp_work *work = call->work;
    const char *key = call->stage == STAGE_LIST     ? gcp->ring
                      : call->stage == STAGE_CREATE ? call->label
                                                    : names_current(&work->names);
    enum backend_step step = gcp_judge(gcp, call, reply, doing[call->stage], key);
    /* "There is no such key" is an answer. */
    if (step == BACKEND_FAILED && (call->stage == STAGE_GET || call->stage == STAGE_VERSION) &&
        call->rv == CKR_KEY_HANDLE_INVALID)
        return skip_key(gcp, call, request);
    if (step == BACKEND_FAILED && call->stage == STAGE_PUBLIC && call->op == BACKEND_LIST &&
        call->rv == CKR_USER_NOT_LOGGED_IN)
        return show_without_public_key(gcp, call, request);
    if (step != BACKEND_DONE)
        return step;
    if (call->stage == STAGE_PUBLIC)
        return on_public_key(gcp, call, reply, request);
    json_t *root = json_read(&reply->body);
    if (!root)
        return gcp_bad_reply(gcp, call, doing[call->stage], "not a JSON object");
    step = on_reply(gcp, call, root, request);
    json_decref(root);
    return step;
}
