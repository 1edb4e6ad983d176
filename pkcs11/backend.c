#include "backend.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "backends.h"

const struct backend *backend_find(const char *name)
{
    for (size_t i = 0; backends_known[i]; i++)
        if (strcmp(backends_known[i]->name, name) == 0)
            return backends_known[i];
    return NULL;
}

bool backend_offers(const struct backend *backend, const struct backend_call *call)
{
    switch (call->op) {
    case BACKEND_DATA_KEY:
        return backend->data_key && backend->data_key(call);
    case BACKEND_VERSIONS:
        return backend->versions;
    case BACKEND_ROTATE:
        return backend->rotate;
    case BACKEND_SET_VERSIONS:
        return backend->min_versions;
    case BACKEND_BATCH:
        return call->item_count <= backend->batch_items;
    default:
        return true;
    }
}

void backend_key_clear(struct backend_key *key)
{
    for (char **alias = key->aliases; alias && *alias; alias++)
        free(*alias);
    free(key->aliases);
    free(key->id);
    free(key->label);
    free(key->public_key);
    *key = (struct backend_key){0};
}

static void keys_clear(struct backend_keys *keys)
{
    for (size_t i = 0; i < keys->count; i++)
        backend_key_clear(&keys->items[i]);
    free(keys->items);
    *keys = (struct backend_keys){0};
}

void backend_call_clear(struct backend_call *call)
{
    if (call->work && call->work_free)
        call->work_free(call->work);
    call->work = NULL;
    call->stage = 0;
    buffer_clear(&call->out);
    buffer_clear(&call->plaintext);
    keys_clear(&call->keys);
    for (size_t i = 0; i < call->item_count; i++)
        backend_item_reset(&call->items[i]); /* what they had lay in out */
    credentials_unref(call->made);
    call->made = NULL;
}

void backend_note(struct backend_call *call, const char *code, const char *message, const char *request_id)
{
    if (code)
        text_printable(code, strlen(code), call->service_code, sizeof call->service_code);
    if (message)
        text_printable(message, strlen(message), call->service_message, sizeof call->service_message);
    if (request_id)
        text_printable(request_id, strlen(request_id), call->request_id, sizeof call->request_id);
}

struct backend_key *backend_add_key(struct backend_call *call)
{
    struct backend_keys *keys = &call->keys;
    /* Grown at every power of two. */
    if ((keys->count & (keys->count - 1)) == 0) {
        size_t capacity = keys->count ? keys->count * 2 : 1;
        struct backend_key *items = reallocarray(keys->items, capacity, sizeof *items);
        if (!items) {
            call->rv = CKR_HOST_MEMORY;
            error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a list of %zu keys", capacity);
            return NULL;
        }
        keys->items = items;
    }
    struct backend_key *key = &keys->items[keys->count++];
    *key = (struct backend_key){0};
    return key;
}

enum backend_step backend_fail(struct backend_call *call, CK_RV rv, envelope_status raised)
{
    (void)raised; /* taken so that raising and failing are one expression */
    call->rv = rv;
    return BACKEND_FAILED;
}

void backend_fail_item(struct backend_item *item, CK_RV rv, envelope_status raised)
{
    backend_item_reset(item);
    item->settled = true;
    item->rv = rv;
    item->status = raised;
    item->text = strdup(error_text());
}

/* Without memory the text is enough. */
void backend_note_item(struct backend_item *item, const struct backend_call *call)
{
    free(item->service_code);
    free(item->service_message);
    item->service_code = strdup(call->service_code);
    item->service_message = strdup(call->service_message);
}

void backend_item_reset(struct backend_item *item)
{
    free(item->text);
    free(item->service_code);
    free(item->service_message);
    item->text = item->service_code = item->service_message = NULL;
    item->settled = item->plaintext_left = false;
    item->rv = CKR_OK;
    item->status = ENVELOPE_OK;
    item->out_at = item->out_length = 0;
}
