/* New keys: in the service (CKA_TOKEN), or session keys from its random numbers. */
#include "bridge.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

enum { LABEL_MAX = 256, PUBLIC_EXPONENT_BYTES = 3 };

static CK_RV may_create(const struct call *call)
{
    if (!(call->session->flags & CKF_RW_SESSION))
        return CKR_SESSION_READ_ONLY;
    if (!call->token->settings->create)
        return call_refuse(CKR_TOKEN_WRITE_PROTECTED, "[token %s] does not allow keys to be made (create = yes)",
                           call->token->settings->label);
    return CKR_OK;
}

/* A service's key is what it is: sensitive, not extractable. A template that asks for less is refused. */
static CK_RV check_promises(const CK_ATTRIBUTE *template, CK_ULONG count)
{
    bool sensitive = true, extractable = false, sign = false, verify = false, derive = false;
    CK_RV rv = template_check(template, count);
    if (rv != CKR_OK)
        return rv;
    if (!template_bool(template, count, CKA_SENSITIVE, &sensitive) ||
        !template_bool(template, count, CKA_EXTRACTABLE, &extractable) ||
        !template_bool(template, count, CKA_SIGN, &sign) || !template_bool(template, count, CKA_VERIFY, &verify) ||
        !template_bool(template, count, CKA_DERIVE, &derive))
        return CKR_ATTRIBUTE_VALUE_INVALID;
    if (!sensitive || extractable)
        return call_refuse(CKR_TEMPLATE_INCONSISTENT, "a key of the service is sensitive and cannot be extracted: "
                                                      "CKA_SENSITIVE false or CKA_EXTRACTABLE true was asked for");
    if (sign || verify || derive)
        return call_refuse(CKR_TEMPLATE_INCONSISTENT,
                           "keys made here encrypt and decrypt, no more: CKA_SIGN, CKA_VERIFY "
                           "or CKA_DERIVE was asked for");
    if (template_find(template, count, CKA_VALUE))
        return call_refuse(CKR_TEMPLATE_INCONSISTENT, "the service makes the key's value (CKA_VALUE)");
    const CK_ATTRIBUTE *id = template_find(template, count, CKA_ID);
    if (id && id->ulValueLen)
        return call_refuse(CKR_TEMPLATE_INCONSISTENT, "the service gives a key its id (CKA_ID)");
    return CKR_OK;
}

static CK_RV copy_label(const CK_ATTRIBUTE *template, CK_ULONG count, char **label)
{
    const CK_ATTRIBUTE *found = template_find(template, count, CKA_LABEL);
    if (!found || !found->ulValueLen)
        return CKR_OK;
    if (found->ulValueLen > LABEL_MAX || !text_is_key_name(found->pValue, found->ulValueLen))
        return call_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "CKA_LABEL must be a text of up to %d bytes", (int)LABEL_MAX);
    free(*label);
    *label = strndup(found->pValue, found->ulValueLen);
    return *label ? CKR_OK : CKR_HOST_MEMORY;
}

static CK_RV create(struct call *call, const char *label, enum backend_key_type type, unsigned bits,
                    struct keys_list *list)
{
    struct backend_call request = {.op = BACKEND_CREATE, .label = label, .type = type, .bits = bits};
    CK_RV rv = call_run(call, &request);
    if (rv == CKR_OK) {
        if (request.keys.count == 1 && request.keys.items[0].type == type) {
            char *name = text_copy(label ? label : request.keys.items[0].id);
            rv = name ? keys_learn_name(call->token->keys, name, &request.keys, list) : CKR_HOST_MEMORY;
            free(name);
        } else {
            rv = CKR_DEVICE_ERROR;
        }
    }
    backend_call_clear(&request);
    return rv;
}

static CK_RV generate_in_service(struct call *call, const CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *key)
{
    CK_ULONG length = 32;
    char *label = NULL;
    struct keys_list list = {0};
    CK_RV rv = may_create(call);
    if (rv == CKR_OK)
        rv = check_promises(template, count);
    if (rv == CKR_OK && !template_ulong(template, count, CKA_VALUE_LEN, &length))
        rv = CKR_ATTRIBUTE_VALUE_INVALID;
    if (rv == CKR_OK)
        rv = copy_label(template, count, &label);
    if (rv == CKR_OK && length > 512)
        rv = CKR_KEY_SIZE_RANGE;
    if (rv == CKR_OK)
        rv = create(call, label, BACKEND_KEY_SYMMETRIC, (unsigned)length * 8, &list);
    if (rv == CKR_OK)
        *key = list.handles[0];
    keys_list_clear(&list);
    free(label);
    return rv;
}

static CK_RV generate_session_key(struct call *call, const CK_MECHANISM *mechanism, const CK_ATTRIBUTE *template,
                                  CK_ULONG count, CK_OBJECT_HANDLE *key)
{
    CK_ULONG length = 0;
    bool aes = mechanism->mechanism == CKM_AES_KEY_GEN;
    if (!call->token->backend->random)
        return call_refuse(CKR_MECHANISM_INVALID, "the service makes no random numbers; with CKA_TOKEN it makes a key");
    CK_RV rv = session_object_check(template, count);
    if (rv != CKR_OK)
        return rv;
    template_ulong(template, count, CKA_VALUE_LEN, &length);
    if (!length)
        return call_refuse(CKR_TEMPLATE_INCOMPLETE, "CKA_VALUE_LEN is needed");
    if (length > OBJECTS_VALUE_MAX || (aes && length != 16 && length != 24 && length != 32))
        return call_refuse(CKR_KEY_SIZE_RANGE, "there are no such keys of %lu bytes", length);
    if (template_find(template, count, CKA_VALUE))
        return call_refuse(CKR_TEMPLATE_INCONSISTENT, "a generated key is given no CKA_VALUE");
    struct backend_call request = {.op = BACKEND_RANDOM, .length = length};
    rv = call_run(call, &request);
    if (rv == CKR_OK && request.out.length != length)
        rv = CKR_DEVICE_ERROR;
    if (rv == CKR_OK) {
        struct session_object *object = session_object_new(template, count, aes ? CKK_AES : CKK_GENERIC_SECRET,
                                                           request.out.bytes, request.out.length, &rv);
        if (object) {
            object->made_by = mechanism->mechanism;
            rv = object_add(call, object, key);
        }
    }
    backend_call_clear(&request);
    return rv;
}

static CK_RV generate(struct call *call, const CK_MECHANISM *mechanism, const CK_ATTRIBUTE *template, CK_ULONG count,
                      CK_OBJECT_HANDLE *key)
{
    bool on_token = false;
    bool aes = mechanism->mechanism == CKM_AES_KEY_GEN;
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = aes ? CKK_AES : CKK_GENERIC_SECRET;
    CK_KEY_TYPE wanted = type;
    if (!aes && mechanism->mechanism != CKM_GENERIC_SECRET_KEY_GEN)
        return call_refuse(CKR_MECHANISM_INVALID, "keys are made by CKM_AES_KEY_GEN, session keys also by "
                                                  "CKM_GENERIC_SECRET_KEY_GEN");
    if (mechanism->ulParameterLen)
        return call_refuse(CKR_MECHANISM_PARAM_INVALID, "the mechanism takes no parameter");
    if (!template_bool(template, count, CKA_TOKEN, &on_token) || !template_ulong(template, count, CKA_CLASS, &class) ||
        !template_ulong(template, count, CKA_KEY_TYPE, &wanted))
        return call_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "CKA_TOKEN, CKA_CLASS or CKA_KEY_TYPE is of a wrong size");
    if (class != CKO_SECRET_KEY || wanted != type)
        return call_refuse(CKR_TEMPLATE_INCONSISTENT, "CKA_CLASS or CKA_KEY_TYPE is not what the mechanism makes");
    if (on_token && !aes)
        return call_refuse(CKR_TEMPLATE_INCONSISTENT, "in the service, keys are made by CKM_AES_KEY_GEN (CKA_TOKEN)");
    return on_token ? generate_in_service(call, template, count, key)
                    : generate_session_key(call, mechanism, template, count, key);
}

CK_RV C_GenerateKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *template, CK_ULONG count,
                    CK_OBJECT_HANDLE *key)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!mechanism || !key || !template_is_valid(template, count))
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    return call_leave(&call, generate(&call, mechanism, template, count, key));
}

static CK_RV check_exponent(const CK_ATTRIBUTE *template, CK_ULONG count)
{
    static const uint8_t f4[PUBLIC_EXPONENT_BYTES] = {1, 0, 1};
    const CK_ATTRIBUTE *found = template_find(template, count, CKA_PUBLIC_EXPONENT);
    if (!found)
        return CKR_OK;
    const uint8_t *bytes = found->pValue;
    size_t length = found->ulValueLen;
    while (length > sizeof f4 && !*bytes) {
        bytes++;
        length--;
    }
    return length == sizeof f4 && memcmp(bytes, f4, sizeof f4) == 0
               ? CKR_OK
               : call_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "the public exponent is 65537");
}

/* Of the public and of the private key: RSA, and in the service. A pair of this process is not what one comes here for.
 */
static CK_RV check_half(const CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_CLASS wanted)
{
    CK_OBJECT_CLASS class = wanted;
    CK_KEY_TYPE type = CKK_RSA;
    bool on_token = false;
    if (!template_bool(template, count, CKA_TOKEN, &on_token) || !template_ulong(template, count, CKA_CLASS, &class) ||
        !template_ulong(template, count, CKA_KEY_TYPE, &type))
        return call_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "CKA_TOKEN, CKA_CLASS or CKA_KEY_TYPE is of a wrong size");
    if (class != wanted || type != CKK_RSA)
        return call_refuse(CKR_TEMPLATE_INCONSISTENT, "CKA_CLASS or CKA_KEY_TYPE is not what the mechanism makes");
    if (!on_token)
        return call_refuse(CKR_TEMPLATE_INCONSISTENT,
                           "pairs are made in the service only: CKA_TOKEN must be true in both "
                           "templates");
    return CKR_OK;
}

static CK_RV generate_pair(struct call *call, const CK_MECHANISM *mechanism, const CK_ATTRIBUTE *public,
                           CK_ULONG public_count, const CK_ATTRIBUTE *private, CK_ULONG private_count,
                           CK_OBJECT_HANDLE *public_key, CK_OBJECT_HANDLE *private_key)
{
    CK_ULONG bits = 0;
    char *label = NULL;
    struct keys_list list = {0};
    const struct backend *backend = call->token->backend;
    if (mechanism->mechanism != CKM_RSA_PKCS_KEY_PAIR_GEN || (!backend->oaep_sha1 && !backend->oaep_sha256))
        return call_refuse(CKR_MECHANISM_INVALID,
                           "pairs are made by CKM_RSA_PKCS_KEY_PAIR_GEN, if the service has RSA");
    if (mechanism->ulParameterLen)
        return call_refuse(CKR_MECHANISM_PARAM_INVALID, "the mechanism takes no parameter");
    CK_RV rv = check_half(public, public_count, CKO_PUBLIC_KEY);
    if (rv == CKR_OK)
        rv = check_half(private, private_count, CKO_PRIVATE_KEY);
    if (rv == CKR_OK)
        rv = may_create(call);
    if (rv == CKR_OK && !template_ulong(public, public_count, CKA_MODULUS_BITS, &bits))
        rv = call_refuse(CKR_ATTRIBUTE_VALUE_INVALID, "CKA_MODULUS_BITS is of a wrong size");
    if (rv == CKR_OK && !bits)
        rv = call_refuse(CKR_TEMPLATE_INCOMPLETE, "CKA_MODULUS_BITS is needed");
    if (rv == CKR_OK && bits > 16384)
        rv = call_refuse(CKR_KEY_SIZE_RANGE, "there are no RSA keys of %lu bits", bits);
    if (rv == CKR_OK)
        rv = check_exponent(public, public_count);
    if (rv == CKR_OK)
        rv = check_promises(public, public_count);
    if (rv == CKR_OK)
        rv = check_promises(private, private_count);
    if (rv == CKR_OK)
        rv = copy_label(public, public_count, &label);
    if (rv == CKR_OK)
        rv = copy_label(private, private_count, &label);
    if (rv == CKR_OK)
        rv = create(call, label, BACKEND_KEY_RSA, (unsigned)bits, &list);
    if (rv == CKR_OK) {
        *private_key = list.handles[KEYS_PRIVATE];
        *public_key = list.handles[KEYS_PUBLIC];
    }
    keys_list_clear(&list);
    free(label);
    return rv;
}

CK_RV C_GenerateKeyPair(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public, CK_ULONG public_count,
                        CK_ATTRIBUTE *private, CK_ULONG private_count, CK_OBJECT_HANDLE *public_key,
                        CK_OBJECT_HANDLE *private_key)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!mechanism || !public_key || !private_key || !template_is_valid(public, public_count) ||
        !template_is_valid(private, private_count))
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    return call_leave(
        &call, generate_pair(&call, mechanism, public, public_count, private, private_count, public_key, private_key));
}
