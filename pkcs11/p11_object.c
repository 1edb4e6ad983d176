/* Objects: finding, reading, creating session keys, destroying. */
#include "bridge.h"

#include <string.h>

#include "base/error.h"

CK_RV C_FindObjectsInit(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!template_is_valid(template, count))
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    if (call.session->finding)
        return call_leave(&call, CKR_OPERATION_ACTIVE);
    call.session->found_at = 0;
    rv = find_objects(&call, template, count, &call.session->found);
    call.session->finding = rv == CKR_OK;
    return call_leave(&call, rv);
}

CK_RV C_FindObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *objects, CK_ULONG room, CK_ULONG *count)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!count || (!objects && room))
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    if (!call.session->finding)
        return call_leave(&call, CKR_OPERATION_NOT_INITIALIZED);
    struct session *own = call.session;
    size_t left = own->found.count - own->found_at;
    *count = left < room ? left : room;
    if (*count)
        memcpy(objects, own->found.handles + own->found_at, *count * sizeof *objects);
    own->found_at += *count;
    return call_leave(&call, CKR_OK);
}

CK_RV C_FindObjectsFinal(CK_SESSION_HANDLE session)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!call.session->finding)
        return call_leave(&call, CKR_OPERATION_NOT_INITIALIZED);
    keys_list_clear(&call.session->found);
    call.session->finding = false;
    return call_leave(&call, CKR_OK);
}

/* The worst is what the call returns, but every attribute is filled in as far as it can be. */
static CK_RV worse(CK_RV one, CK_RV other)
{
    return one == CKR_OK ? other : one;
}

static CK_RV read_attributes(struct call *call, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    const struct token *token = call->token;
    enum keys_part part;
    CK_RV rv = CKR_OK;
    const struct backend_key *key = keys_acquire(token->keys, object, &part);
    if (key) {
        for (CK_ULONG i = 0; i < count; i++)
            rv = worse(rv, key_attribute(token->settings, token->backend, key, part, &template[i]));
        keys_release(token->keys);
        return rv;
    }
    pthread_mutex_lock(&call->bridge->lock);
    const struct session_object *own = objects_find(&call->bridge->objects[call->session->slot - 1], object);
    for (CK_ULONG i = 0; own && i < count; i++)
        rv = worse(rv, session_object_attribute(own, &template[i]));
    pthread_mutex_unlock(&call->bridge->lock);
    return own ? rv : CKR_OBJECT_HANDLE_INVALID;
}

CK_RV C_GetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!template && count)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    return call_leave(&call, read_attributes(&call, object, template, count));
}

static bool exists(struct call *call, CK_OBJECT_HANDLE object)
{
    CK_ULONG class;
    CK_ATTRIBUTE attribute = {.type = CKA_CLASS, .pValue = &class, .ulValueLen = sizeof class};
    return read_attributes(call, object, &attribute, 1) == CKR_OK;
}

CK_RV C_SetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!template_is_valid(template, count))
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    if (!exists(&call, object))
        return call_leave(&call, CKR_OBJECT_HANDLE_INVALID);
    /* No object is CKA_MODIFIABLE. */
    return call_leave(&call, call_refuse(CKR_ACTION_PROHIBITED, "a key is changed in the service, not from here"));
}

CK_RV C_GetObjectSize(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ULONG *size)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!size)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    if (!exists(&call, object))
        return call_leave(&call, CKR_OBJECT_HANDLE_INVALID);
    *size = CK_UNAVAILABLE_INFORMATION;
    return call_leave(&call, CKR_OK);
}

CK_RV object_add(struct call *call, struct session_object *object, CK_OBJECT_HANDLE *handle)
{
    pthread_mutex_lock(&call->bridge->lock);
    /* Another thread may have closed the session meanwhile, and nobody would remove the object any more. */
    CK_RV rv = session_is_open(call->bridge, call->session->handle) ? CKR_OK : CKR_SESSION_CLOSED;
    object->handle = call->bridge->object_number++;
    object->owner = call->session->handle;
    if (rv == CKR_OK)
        rv = objects_add(&call->bridge->objects[call->session->slot - 1], object);
    if (rv == CKR_OK)
        *handle = object->handle;
    pthread_mutex_unlock(&call->bridge->lock);
    if (rv != CKR_OK)
        session_object_free(object);
    return rv;
}

static CK_RV create(struct call *call, const CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *handle)
{
    bool on_token = false;
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_RV rv = CKR_OK;
    if (!template_bool(template, count, CKA_TOKEN, &on_token) || !template_ulong(template, count, CKA_CLASS, &class))
        return call_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "CKA_TOKEN or CKA_CLASS is of a wrong size");
    if (on_token && !(call->session->flags & CKF_RW_SESSION))
        return CKR_SESSION_READ_ONLY;
    if (on_token)
        return call_refuse(CKR_TEMPLATE_INCONSISTENT, "objects are not brought to the service from here (CKA_TOKEN); "
                                                      "C_GenerateKey makes a key there");
    if (class != CKO_SECRET_KEY)
        return call_refuse(CKR_TEMPLATE_INCONSISTENT, "session objects are secret keys (CKO_SECRET_KEY)");
    const CK_ATTRIBUTE *value = template_find(template, count, CKA_VALUE);
    if (!value || !template_find(template, count, CKA_CLASS) || !template_find(template, count, CKA_KEY_TYPE))
        return call_refuse(CKR_TEMPLATE_INCOMPLETE, "CKA_CLASS, CKA_KEY_TYPE and CKA_VALUE are needed");
    struct session_object *object =
        session_object_new(template, count, CKK_GENERIC_SECRET, value->pValue, value->ulValueLen, &rv);
    return object ? object_add(call, object, handle) : rv;
}

CK_RV C_CreateObject(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *object)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!object || !template_is_valid(template, count))
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    return call_leave(&call, create(&call, template, count, object));
}

static CK_RV destroy_key(struct call *call, CK_OBJECT_HANDLE object)
{
    enum keys_part part;
    const struct backend_key *key = keys_acquire(call->token->keys, object, &part);
    if (!key)
        return CKR_OBJECT_HANDLE_INVALID;
    struct buffer id = {0};
    buffer_append_text(&id, key->id);
    keys_release(call->token->keys);
    CK_RV rv = buffer_ok(&id) ? CKR_OK : CKR_HOST_MEMORY;
    /* Who drops a public key does not mean the private one, which would go with it. */
    if (rv == CKR_OK && part == KEYS_PUBLIC)
        rv = call_refuse(CKR_ACTION_PROHIBITED, "a pair is destroyed by its private key object");
    if (rv == CKR_OK && !(call->session->flags & CKF_RW_SESSION))
        rv = CKR_SESSION_READ_ONLY;
    if (rv == CKR_OK && !call->token->settings->destroy)
        rv = call_refuse(CKR_ACTION_PROHIBITED, "[token %s] does not allow keys to be destroyed (destroy = yes)",
                         call->token->settings->label);
    if (rv == CKR_OK) {
        struct backend_call request = {.op = BACKEND_DELETE, .key = buffer_text(&id)};
        rv = call_run(call, &request);
        backend_call_clear(&request);
    }
    if (rv == CKR_KEY_HANDLE_INVALID)
        rv = CKR_OBJECT_HANDLE_INVALID;
    if (rv == CKR_OK)
        keys_forget(call->token->keys, object);
    buffer_clear(&id);
    return rv;
}

CK_RV C_DestroyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    pthread_mutex_lock(&call.bridge->lock);
    bool own = objects_remove(&call.bridge->objects[call.session->slot - 1], object);
    pthread_mutex_unlock(&call.bridge->lock);
    return call_leave(&call, own ? CKR_OK : destroy_key(&call, object));
}
