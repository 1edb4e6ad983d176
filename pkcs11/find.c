#include "bridge.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static CK_RV ask(struct call *call, enum backend_op op, const char *name, struct keys_list *list)
{
    struct backend_call request = {.op = op, .key = name};
    struct keys *keys = call->token->keys;
    CK_RV rv = call_run(call, &request);
    if (rv == CKR_OK)
        rv = name ? keys_learn_name(keys, name, &request.keys, list) : keys_learn_all(keys, &request.keys, list);
    backend_call_clear(&request);
    return rv;
}

/* One DescribeKey answers a search by label or id; only a wider search lists everything. */
static char *searched_name(const struct token_settings *settings, const CK_ATTRIBUTE *template, CK_ULONG count)
{
    const CK_ATTRIBUTE *name = template_find(template, count, CKA_ID);
    if (!name || !name->ulValueLen)
        name = template_find(template, count, CKA_LABEL);
    if (!name || !name->ulValueLen || settings->keys || memchr(name->pValue, '\0', name->ulValueLen))
        return NULL;
    return strndup(name->pValue, name->ulValueLen);
}

static bool wants_session_objects(const CK_ATTRIBUTE *template, CK_ULONG count)
{
    bool on_token = false;
    return template_bool(template, count, CKA_TOKEN, &on_token) && !on_token;
}

static bool wants_keys(const CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    bool on_token = true;
    return template_bool(template, count, CKA_TOKEN, &on_token) && on_token &&
           template_ulong(template, count, CKA_CLASS, &class) &&
           (class == CKO_SECRET_KEY || class == CKO_PRIVATE_KEY || class == CKO_PUBLIC_KEY);
}

static CK_RV known_or_asked(struct call *call, const char *name, struct keys_list *list)
{
    CK_RV rv;
    if (name ? keys_named(call->token->keys, name, list, &rv) : keys_all(call->token->keys, list, &rv))
        return rv;
    return ask(call, name ? BACKEND_DESCRIBE : BACKEND_LIST, name, list);
}

/* Keep those that match the whole template. */
static void filter(struct call *call, const CK_ATTRIBUTE *template, CK_ULONG count, struct keys_list *list)
{
    const struct token *token = call->token;
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        enum keys_part part;
        const struct backend_key *key = keys_acquire(token->keys, list->handles[i], &part);
        if (!key)
            continue;
        if (key_matches(token->settings, token->backend, key, part, template, count))
            list->handles[kept++] = list->handles[i];
        keys_release(token->keys);
    }
    list->count = kept;
}

static CK_RV add_session_objects(struct call *call, const CK_ATTRIBUTE *template, CK_ULONG count,
                                 struct keys_list *list)
{
    CK_RV rv = CKR_OK;
    pthread_mutex_lock(&call->bridge->lock);
    const struct objects *objects = &call->bridge->objects[call->session->slot - 1];
    for (size_t i = 0; i < objects->count; i++) {
        if (!session_object_matches(objects->items[i], template, count))
            continue;
        CK_OBJECT_HANDLE *handles = reallocarray(list->handles, list->count + 1, sizeof *handles);
        if (!handles) {
            rv = CKR_HOST_MEMORY;
            break;
        }
        list->handles = handles;
        handles[list->count++] = objects->items[i]->handle;
    }
    pthread_mutex_unlock(&call->bridge->lock);
    return rv;
}

CK_RV find_objects(struct call *call, const CK_ATTRIBUTE *template, CK_ULONG count, struct keys_list *list)
{
    CK_RV rv = CKR_OK;
    if (wants_keys(template, count)) {
        char *name = searched_name(call->token->settings, template, count);
        rv = known_or_asked(call, name, list);
        free(name);
        filter(call, template, count, list);
    }
    if (rv == CKR_OK && wants_session_objects(template, count))
        rv = add_session_objects(call, template, count, list);
    if (rv != CKR_OK)
        keys_list_clear(list);
    return rv;
}
