/* Wrapping and unwrapping session keys under the service's keys. */
#include "bridge.h"

#include <string.h>

#include "base/error.h"

/* What crypt.c says of data and keys, in the words of wrapping. */
static CK_RV wrapping_rv(CK_RV rv, bool wrap)
{
    switch (rv) {
    case CKR_ENCRYPTED_DATA_INVALID:
        return CKR_WRAPPED_KEY_INVALID;
    case CKR_ENCRYPTED_DATA_LEN_RANGE:
        return CKR_WRAPPED_KEY_LEN_RANGE;
    case CKR_DATA_LEN_RANGE:
        return CKR_KEY_SIZE_RANGE;
    case CKR_KEY_HANDLE_INVALID:
        return wrap ? CKR_WRAPPING_KEY_HANDLE_INVALID : CKR_UNWRAPPING_KEY_HANDLE_INVALID;
    case CKR_KEY_TYPE_INCONSISTENT:
        return wrap ? CKR_WRAPPING_KEY_TYPE_INCONSISTENT : CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT;
    default:
        return rv;
    }
}

static CK_RV prepare(struct call *call, struct operation *operation, bool wrap, const CK_MECHANISM *mechanism,
                     CK_OBJECT_HANDLE key)
{
    CK_RV rv = crypt_prepare(call, operation, wrap ? OPERATION_ENCRYPT : OPERATION_DECRYPT, mechanism, key);
    if (rv == CKR_OK && operation->dry_run) {
        operation_clear(operation);
        return call_refuse(CKR_MECHANISM_PARAM_INVALID, "a dry run is for C_Encrypt and C_Decrypt");
    }
    return wrapping_rv(rv, wrap);
}

/* The value of a session key that may be wrapped. */
static CK_RV value_of(struct call *call, CK_OBJECT_HANDLE key, struct buffer *value)
{
    CK_RV rv = CKR_OK;
    enum keys_part part;
    pthread_mutex_lock(&call->bridge->lock);
    const struct session_object *object = objects_find(&call->bridge->objects[call->session->slot - 1], key);
    if (object && object->extractable)
        buffer_append(value, object->value, object->length);
    else
        rv = object ? CKR_KEY_UNEXTRACTABLE : CKR_KEY_HANDLE_INVALID;
    pthread_mutex_unlock(&call->bridge->lock);
    if (rv == CKR_KEY_HANDLE_INVALID && keys_acquire(call->token->keys, key, &part)) {
        keys_release(call->token->keys);
        rv = CKR_KEY_UNEXTRACTABLE;
    }
    return rv == CKR_OK && !buffer_ok(value) ? CKR_HOST_MEMORY : rv;
}

static CK_RV wrap(struct call *call, const CK_MECHANISM *mechanism, CK_OBJECT_HANDLE wrapping_key, CK_OBJECT_HANDLE key,
                  CK_BYTE *out, CK_ULONG *out_length)
{
    struct operation operation;
    struct buffer value = {0};
    CK_RV rv = value_of(call, key, &value);
    if (rv == CKR_OK)
        rv = prepare(call, &operation, true, mechanism, wrapping_key);
    if (rv != CKR_OK)
        goto out;
    if (!out) {
        *out_length = crypt_bound(call, &operation, value.length);
    } else {
        rv = wrapping_rv(crypt_run(call, &operation, value.bytes, value.length), true);
        if (rv == CKR_OK)
            rv = call_output(operation.result.bytes, operation.result.length, out, out_length);
    }
    operation_clear(&operation);
out:
    buffer_clear(&value);
    return rv;
}

CK_RV C_WrapKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE wrapping_key, CK_OBJECT_HANDLE key,
                CK_BYTE *out, CK_ULONG *out_length)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!mechanism || !out_length)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    return call_leave(&call, wrap(&call, mechanism, wrapping_key, key, out, out_length));
}

static CK_RV unwrap(struct call *call, const CK_MECHANISM *mechanism, CK_OBJECT_HANDLE unwrapping_key,
                    const CK_BYTE *wrapped, CK_ULONG length, const CK_ATTRIBUTE *template, CK_ULONG count,
                    CK_OBJECT_HANDLE *key)
{
    struct operation operation;
    CK_RV rv;
    /* What cannot be made is refused before the service is asked. */
    if (template_find(template, count, CKA_VALUE))
        return call_refuse(CKR_TEMPLATE_INCONSISTENT, "CKA_VALUE is in the wrapped key");
    rv = session_object_check(template, count);
    if (rv == CKR_OK)
        rv = prepare(call, &operation, false, mechanism, unwrapping_key);
    if (rv != CKR_OK)
        return rv;
    rv = wrapping_rv(crypt_run(call, &operation, wrapped, length), false);
    if (rv == CKR_OK) {
        struct session_object *object = session_object_new(template, count, CKK_GENERIC_SECRET, operation.result.bytes,
                                                           operation.result.length, &rv);
        if (object)
            rv = object_add(call, object, key);
        else if (rv == CKR_KEY_SIZE_RANGE)
            rv = CKR_WRAPPED_KEY_INVALID;
    }
    operation_clear(&operation);
    return rv;
}

CK_RV C_UnwrapKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE unwrapping_key, CK_BYTE *wrapped,
                  CK_ULONG length, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *key)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!mechanism || !wrapped || !key || !template_is_valid(template, count))
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    return call_leave(&call, unwrap(&call, mechanism, unwrapping_key, wrapped, length, template, count, key));
}
