/* Listing keys, describing one, making one. */
#include "gcp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "json.h"
#include "web.h"

enum stage { STAGE_LIST = 1, STAGE_GET, STAGE_CREATE };
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
    for (const char *one; (one = names_current(&work->names)); work->names.at++) {
        const char *name = gcp_name_of(gcp, one);
        if (!name)
            continue; /* what cannot be a key's name leads to no key */
        call->stage = STAGE_GET;
        return web_request(call, request, HTTP_GET, "%s/v1/%s/cryptoKeys/%s", gcp->endpoint, gcp->ring, name)
                   ? BACKEND_SEND
                   : BACKEND_FAILED;
    }
    return BACKEND_DONE;
}

static enum backend_step ask_create(const struct gcp *gcp, struct backend_call *call, struct http_request *request)
{
    if (call->type != BACKEND_KEY_SYMMETRIC || call->bits != 256)
        return backend_fail(call, CKR_KEY_SIZE_RANGE,
                            error_raise(ENVELOPE_E_ARGUMENT, "[token %s]: AES keys of 256 bits are made there only",
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
    web_body_text(request, "purpose", "ENCRYPT_DECRYPT");
    buffer_append_text(&request->body, ",\"versionTemplate\":{\"algorithm\":\"GOOGLE_SYMMETRIC_ENCRYPTION\","
                                       "\"protectionLevel\":\"HSM\"}");
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

static enum backend_step take_page(const struct gcp *gcp, struct backend_call *call, const json_t *root)
{
    struct gcp_work *work = call->work;
    json_t *items = json_object_get(root, "cryptoKeys"), *item;
    size_t i;
    if (items && !json_is_array(items))
        return gcp_bad_reply(gcp, call, "list keys", "no list of keys");
    json_array_foreach(items, i, item)
    {
        if (call->keys.count == KEYS_MAX)
            return backend_fail(call, CKR_DEVICE_MEMORY,
                                error_raise(ENVELOPE_E_HSM, "[token %s]: over %d keys; name the ones to show with keys",
                                            gcp->settings->label, (int)KEYS_MAX));
        enum backend_step step = add_key(gcp, call, item, "list keys");
        if (step != BACKEND_DONE)
            return step;
    }
    const char *next = json_member(root, "nextPageToken");
    bool more = next && *next;
    if (more && (strlen(next) > PAGE_MAX || (work->page && strcmp(work->page, next) == 0)))
        return gcp_bad_reply(gcp, call, "list keys", "a list that does not come to its end");
    free(work->page);
    work->page = more ? text_copy(next) : NULL;
    return more && !work->page ? no_memory(call) : BACKEND_DONE;
}

static enum backend_step on_reply(const struct gcp *gcp, struct backend_call *call, const json_t *root,
                                  struct http_request *request)
{
    struct gcp_work *work = call->work;
    enum backend_step step;
    switch (call->stage) {
    case STAGE_LIST:
        step = take_page(gcp, call, root);
        return step == BACKEND_DONE && work->page ? ask_list(gcp, call, request) : step;
    case STAGE_GET:
        step = add_key(gcp, call, root, "get key");
        work->names.at++;
        return step == BACKEND_DONE ? next_key(gcp, call, request) : step;
    default:
        step = add_key(gcp, call, root, "create key");
        return step == BACKEND_DONE && call->keys.count != 1
                   ? gcp_bad_reply(gcp, call, "create key", "it made another kind of key than asked for")
                   : step;
    }
}

enum backend_step gcp_step_keys(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                struct http_request *request)
{
    static const char *const doing[] = {
        [STAGE_LIST] = "list keys", [STAGE_GET] = "get key", [STAGE_CREATE] = "create key"};
    if (!reply)
        return begin(gcp, call, request);
    struct gcp_work *work = call->work;
    const char *key = call->stage == STAGE_GET      ? names_current(&work->names)
                      : call->stage == STAGE_CREATE ? call->label
                                                    : gcp->ring;
    enum backend_step step = gcp_judge(gcp, call, reply, doing[call->stage], key);
    /* "There is no such key" is an answer. */
    if (step == BACKEND_FAILED && call->stage == STAGE_GET && call->rv == CKR_KEY_HANDLE_INVALID) {
        work->names.at++;
        return next_key(gcp, call, request);
    }
    if (step != BACKEND_DONE)
        return step;
    json_t *root = json_read(&reply->body);
    if (!root)
        return gcp_bad_reply(gcp, call, doing[call->stage], "not a JSON object");
    step = on_reply(gcp, call, root, request);
    json_decref(root);
    return step;
}
