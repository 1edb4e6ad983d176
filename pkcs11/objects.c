#include "objects.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <envelope/pkcs11-kms.h>

#include "base/error.h"
#include "base/libctx.h"
#include "base/secmem.h"

/* --- Templates --- */

enum { TEMPLATE_MAX = 256 };

const CK_ATTRIBUTE *template_find(const CK_ATTRIBUTE *template, CK_ULONG count, CK_ATTRIBUTE_TYPE type)
{
    for (CK_ULONG i = 0; i < count; i++)
        if (template[i].type == type)
            return &template[i];
    return NULL;
}

bool template_bool(const CK_ATTRIBUTE *template, CK_ULONG count, CK_ATTRIBUTE_TYPE type, bool *value)
{
    const CK_ATTRIBUTE *found = template_find(template, count, type);
    CK_BBOOL given;
    if (!found)
        return true;
    if (found->ulValueLen != sizeof given)
        return false;
    memcpy(&given, found->pValue, sizeof given);
    *value = given != CK_FALSE;
    return true;
}

bool template_ulong(const CK_ATTRIBUTE *template, CK_ULONG count, CK_ATTRIBUTE_TYPE type, CK_ULONG *value)
{
    const CK_ATTRIBUTE *found = template_find(template, count, type);
    if (!found)
        return true;
    if (found->ulValueLen != sizeof *value)
        return false;
    memcpy(value, found->pValue, sizeof *value);
    return true;
}

bool template_is_valid(const CK_ATTRIBUTE *template, CK_ULONG count)
{
    if (count && !template)
        return false;
    for (CK_ULONG i = 0; i < count; i++)
        if ((!template[i].pValue && template[i].ulValueLen) || template[i].ulValueLen > (CK_ULONG)1 << 20)
            return false;
    return true;
}

static CK_RV refuse(CK_RV rv, CK_ATTRIBUTE_TYPE type, const char *text)
{
    error_raise(ENVELOPE_E_ARGUMENT, "the attribute 0x%lx of a template %s", type, text);
    return rv;
}

/* What the module itself says of a key. */
static bool is_read_only(CK_ATTRIBUTE_TYPE type)
{
    return type == CKA_UNIQUE_ID || type == CKA_LOCAL || type == CKA_KEY_GEN_MECHANISM ||
           type == CKA_ALWAYS_SENSITIVE || type == CKA_NEVER_EXTRACTABLE;
}

static bool same_value(const CK_ATTRIBUTE *wanted, const CK_ATTRIBUTE *has)
{
    return wanted->ulValueLen == has->ulValueLen &&
           (!has->ulValueLen || CRYPTO_memcmp(wanted->pValue, has->pValue, has->ulValueLen) == 0);
}

CK_RV template_check(const CK_ATTRIBUTE *template, CK_ULONG count)
{
    if (count > TEMPLATE_MAX) {
        error_raise(ENVELOPE_E_ARGUMENT, "a template of more than %d attributes", (int)TEMPLATE_MAX);
        return CKR_ARGUMENTS_BAD;
    }
    for (CK_ULONG i = 0; i < count; i++) {
        if (is_read_only(template[i].type))
            return refuse(CKR_ATTRIBUTE_READ_ONLY, template[i].type, "cannot be given: the module says it");
        if (!same_value(template_find(template, count, template[i].type), &template[i]))
            return refuse(CKR_TEMPLATE_INCONSISTENT, template[i].type, "has two values");
    }
    return CKR_OK;
}

/* --- Values --- */

static CK_RV give(CK_ATTRIBUTE *attribute, const void *value, size_t length)
{
    CK_ULONG room = attribute->ulValueLen;
    attribute->ulValueLen = (CK_ULONG)length;
    if (!attribute->pValue)
        return CKR_OK;
    if (room < length) {
        attribute->ulValueLen = CK_UNAVAILABLE_INFORMATION;
        return CKR_BUFFER_TOO_SMALL;
    }
    if (length)
        memcpy(attribute->pValue, value, length);
    return CKR_OK;
}

static CK_RV give_text(CK_ATTRIBUTE *attribute, const char *text)
{
    return give(attribute, text, strlen(text));
}

static CK_RV give_bool(CK_ATTRIBUTE *attribute, bool value)
{
    CK_BBOOL byte = value ? CK_TRUE : CK_FALSE;
    return give(attribute, &byte, sizeof byte);
}

static CK_RV give_ulong(CK_ATTRIBUTE *attribute, CK_ULONG value)
{
    return give(attribute, &value, sizeof value);
}

static CK_RV withhold(CK_ATTRIBUTE *attribute, CK_RV rv)
{
    attribute->ulValueLen = CK_UNAVAILABLE_INFORMATION;
    return rv;
}

/* Unique among a token's objects: what sort it is, and its name within that. */
static CK_RV give_unique_id(CK_ATTRIBUTE *attribute, const char *sort, const char *name)
{
    struct buffer text = {0};
    buffer_append_text(&text, sort);
    buffer_append_text(&text, name);
    CK_RV rv = buffer_ok(&text) ? give(attribute, text.bytes, text.length) : withhold(attribute, CKR_HOST_MEMORY);
    buffer_clear(&text);
    return rv;
}

/* --- The service's keys --- */

/* Modulus or exponent of an RSA key, read from its SubjectPublicKeyInfo. */
static CK_RV give_rsa(CK_ATTRIBUTE *attribute, const struct backend_key *key, const char *name)
{
    const unsigned char *at = key->public_key;
    OSSL_LIB_CTX *context = libctx_private();
    EVP_PKEY *parsed = at && context ? d2i_PUBKEY_ex(NULL, &at, (long)key->public_key_length, context, NULL) : NULL;
    BIGNUM *number = NULL;
    CK_RV rv = CKR_ATTRIBUTE_TYPE_INVALID;
    uint8_t bytes[1024];
    if (parsed && EVP_PKEY_get_bn_param(parsed, name, &number) && BN_num_bytes(number) <= (int)sizeof bytes) {
        int length = BN_bn2bin(number, bytes);
        rv = give(attribute, bytes, (size_t)length);
    } else {
        withhold(attribute, rv);
    }
    BN_free(number);
    EVP_PKEY_free(parsed);
    return rv;
}

static CK_RV give_mechanisms(CK_ATTRIBUTE *attribute, const struct backend *backend, const struct backend_key *key)
{
    CK_MECHANISM_TYPE types[2] = {CKM_ENVELOPE_KMS_WRAP, CKM_RSA_PKCS_OAEP};
    bool rsa = key->type == BACKEND_KEY_RSA, wraps = !rsa || backend->rsa_aead;
    return give(attribute, types + !wraps, sizeof types[0] * (size_t)(wraps + rsa));
}

static CK_RV rsa_attribute(const struct backend_key *key, enum keys_part part, CK_ATTRIBUTE *attribute)
{
    bool private = part == KEYS_PRIVATE;
    switch (attribute->type) {
    case CKA_CLASS:
        return give_ulong(attribute, private ? CKO_PRIVATE_KEY : CKO_PUBLIC_KEY);
    case CKA_UNIQUE_ID:
        return give_unique_id(attribute, private ? "private:" : "public:", key->id);
    case CKA_SUBJECT:
        return give(attribute, NULL, 0);
    case CKA_TRUSTED:
        return private ? withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID) : give_bool(attribute, false);
    case CKA_KEY_TYPE:
        return give_ulong(attribute, CKK_RSA);
    case CKA_MODULUS:
        return give_rsa(attribute, key, OSSL_PKEY_PARAM_RSA_N);
    case CKA_PUBLIC_EXPONENT:
        return give_rsa(attribute, key, OSSL_PKEY_PARAM_RSA_E);
    case CKA_MODULUS_BITS:
        return private ? withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID) : give_ulong(attribute, key->bits);
    case CKA_PUBLIC_KEY_INFO:
        return key->public_key ? give(attribute, key->public_key, key->public_key_length)
                               : withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID);
    case CKA_KEY_GEN_MECHANISM:
        return give_ulong(attribute, key->imported ? CK_UNAVAILABLE_INFORMATION : CKM_RSA_PKCS_KEY_PAIR_GEN);
    case CKA_ENCRYPT:
    case CKA_WRAP:
        return private ? withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID) : give_bool(attribute, key->can_encrypt);
    case CKA_DECRYPT:
    case CKA_UNWRAP:
        return private ? give_bool(attribute, key->can_decrypt) : withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID);
    case CKA_VERIFY:
    case CKA_VERIFY_RECOVER:
        return private ? withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID) : give_bool(attribute, false);
    case CKA_SIGN:
    case CKA_SIGN_RECOVER:
    case CKA_ALWAYS_AUTHENTICATE:
        return private ? give_bool(attribute, false) : withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID);
    case CKA_PRIVATE_EXPONENT:
    case CKA_PRIME_1:
    case CKA_PRIME_2:
    case CKA_EXPONENT_1:
    case CKA_EXPONENT_2:
    case CKA_COEFFICIENT:
        return withhold(attribute, private ? CKR_ATTRIBUTE_SENSITIVE : CKR_ATTRIBUTE_TYPE_INVALID);
    default:
        return withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID);
    }
}

static CK_RV symmetric_attribute(const struct backend_key *key, CK_ATTRIBUTE *attribute)
{
    switch (attribute->type) {
    case CKA_CLASS:
        return give_ulong(attribute, CKO_SECRET_KEY);
    case CKA_UNIQUE_ID:
        return give_unique_id(attribute, "secret:", key->id);
    case CKA_KEY_TYPE:
        return give_ulong(attribute, CKK_AES);
    case CKA_VALUE_LEN:
        return give_ulong(attribute, key->bits / 8);
    case CKA_VALUE:
        return withhold(attribute, CKR_ATTRIBUTE_SENSITIVE);
    case CKA_KEY_GEN_MECHANISM:
        return give_ulong(attribute, key->imported ? CK_UNAVAILABLE_INFORMATION : CKM_AES_KEY_GEN);
    case CKA_ENCRYPT:
    case CKA_WRAP:
        return give_bool(attribute, key->can_encrypt);
    case CKA_DECRYPT:
    case CKA_UNWRAP:
        return give_bool(attribute, key->can_decrypt);
    case CKA_SIGN:
    case CKA_VERIFY:
    case CKA_TRUSTED:
        return give_bool(attribute, false);
    default:
        return withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID);
    }
}

CK_RV key_attribute(const struct token_settings *settings, const struct backend *backend, const struct backend_key *key,
                    enum keys_part part, CK_ATTRIBUTE *attribute)
{
    bool secret = part != KEYS_PUBLIC;
    switch (attribute->type) {
    case CKA_TOKEN:
        return give_bool(attribute, true);
    case CKA_PRIVATE: /* visible without C_Login: the service decides who may use it */
    case CKA_MODIFIABLE:
    case CKA_COPYABLE:
    case CKA_DERIVE:
        return give_bool(attribute, false);
    case CKA_DESTROYABLE: /* a pair goes with its private half */
        return give_bool(attribute, settings->destroy && secret);
    case CKA_LABEL:
        return give_text(attribute, key->label);
    case CKA_ID:
        return give_text(attribute, key->id);
    case CKA_START_DATE:
    case CKA_END_DATE:
        return give(attribute, NULL, 0);
    case CKA_LOCAL:
        return give_bool(attribute, !key->imported);
    case CKA_ALLOWED_MECHANISMS:
        return give_mechanisms(attribute, backend, key);
    case CKA_SENSITIVE:
        return secret ? give_bool(attribute, true) : withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID);
    case CKA_ALWAYS_SENSITIVE:
    case CKA_NEVER_EXTRACTABLE:
        return secret ? give_bool(attribute, !key->imported) : withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID);
    case CKA_EXTRACTABLE:
    case CKA_WRAP_WITH_TRUSTED:
        return secret ? give_bool(attribute, false) : withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID);
    default:
        return key->type == BACKEND_KEY_RSA ? rsa_attribute(key, part, attribute) : symmetric_attribute(key, attribute);
    }
}

/* --- Session objects --- */

static bool keep(struct buffer *to, const CK_ATTRIBUTE *from)
{
    if (from)
        buffer_append(to, from->pValue, from->ulValueLen);
    return buffer_ok(to);
}

/* The attributes a session key may be given; others make the template inconsistent rather than being ignored. */
static bool is_known(CK_ATTRIBUTE_TYPE type)
{
    static const CK_ATTRIBUTE_TYPE known[] = {
        CKA_CLASS,    CKA_KEY_TYPE,    CKA_TOKEN,      CKA_PRIVATE,     CKA_LABEL,   CKA_ID,
        CKA_VALUE,    CKA_VALUE_LEN,   CKA_SENSITIVE,  CKA_EXTRACTABLE, CKA_ENCRYPT, CKA_DECRYPT,
        CKA_WRAP,     CKA_UNWRAP,      CKA_SIGN,       CKA_VERIFY,      CKA_DERIVE,  CKA_MODIFIABLE,
        CKA_COPYABLE, CKA_DESTROYABLE, CKA_START_DATE, CKA_END_DATE};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i] == type)
            return true;
    return false;
}

static CK_RV check_template(const CK_ATTRIBUTE *template, CK_ULONG count, struct session_object *object)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    bool on_token = false;
    CK_RV rv = template_check(template, count);
    if (rv != CKR_OK)
        return rv;
    for (CK_ULONG i = 0; i < count; i++)
        if (!is_known(template[i].type))
            return refuse(CKR_ATTRIBUTE_TYPE_INVALID, template[i].type, "is none of session keys here");
    if (!template_ulong(template, count, CKA_CLASS, &class) ||
        !template_ulong(template, count, CKA_KEY_TYPE, &object->key_type) ||
        !template_bool(template, count, CKA_TOKEN, &on_token) ||
        !template_bool(template, count, CKA_PRIVATE, &object->private) ||
        !template_bool(template, count, CKA_SENSITIVE, &object->sensitive) ||
        !template_bool(template, count, CKA_EXTRACTABLE, &object->extractable))
        return CKR_ATTRIBUTE_VALUE_INVALID;
    if (class != CKO_SECRET_KEY)
        return refuse(CKR_TEMPLATE_INCONSISTENT, CKA_CLASS, "must be CKO_SECRET_KEY");
    if (on_token)
        return refuse(CKR_TEMPLATE_INCONSISTENT, CKA_TOKEN, "must be CK_FALSE: it would be a session key");
    if (object->key_type != CKK_AES && object->key_type != CKK_GENERIC_SECRET)
        return refuse(CKR_TEMPLATE_INCONSISTENT, CKA_KEY_TYPE, "must be CKK_AES or CKK_GENERIC_SECRET");
    return CKR_OK;
}

static CK_RV check_length(const CK_ATTRIBUTE *template, CK_ULONG count, const struct session_object *object)
{
    CK_ULONG stated = object->length;
    if (!template_ulong(template, count, CKA_VALUE_LEN, &stated))
        return CKR_ATTRIBUTE_VALUE_INVALID;
    if (!object->length || object->length > OBJECTS_VALUE_MAX)
        return CKR_KEY_SIZE_RANGE;
    if (object->key_type == CKK_AES && object->length != 16 && object->length != 24 && object->length != 32)
        return CKR_KEY_SIZE_RANGE;
    return stated == object->length ? CKR_OK : CKR_TEMPLATE_INCONSISTENT;
}

CK_RV session_object_check(const CK_ATTRIBUTE *template, CK_ULONG count)
{
    struct session_object probe = {.key_type = CKK_GENERIC_SECRET};
    CK_ULONG length;
    CK_RV rv = check_template(template, count, &probe);
    return rv == CKR_OK && !template_ulong(template, count, CKA_VALUE_LEN, &length) ? CKR_ATTRIBUTE_VALUE_INVALID : rv;
}

struct session_object *session_object_new(const CK_ATTRIBUTE *template, CK_ULONG count, CK_KEY_TYPE type,
                                          const uint8_t *value, size_t length, CK_RV *rv)
{
    struct session_object *object = calloc(1, sizeof *object);
    *rv = object ? CKR_OK : CKR_HOST_MEMORY;
    if (!object)
        return NULL;
    object->key_type = type;
    object->sensitive = true;
    object->made_by = CK_UNAVAILABLE_INFORMATION;
    *rv = check_template(template, count, object);
    if (*rv == CKR_OK) {
        object->length = length;
        *rv = check_length(template, count, object);
    }
    if (*rv == CKR_OK) {
        object->value = secmem_alloc(length);
        if (object->value)
            memcpy(object->value, value, length);
        if (!object->value || !keep(&object->label, template_find(template, count, CKA_LABEL)) ||
            !keep(&object->id, template_find(template, count, CKA_ID)))
            *rv = CKR_HOST_MEMORY;
    }
    if (*rv == CKR_OK)
        return object;
    session_object_free(object);
    return NULL;
}

void session_object_free(struct session_object *object)
{
    if (!object)
        return;
    secmem_free(object->value);
    buffer_clear(&object->label);
    buffer_clear(&object->id);
    free(object);
}

CK_RV session_object_attribute(const struct session_object *object, CK_ATTRIBUTE *attribute)
{
    bool local = object->made_by != CK_UNAVAILABLE_INFORMATION;
    char number[32];
    switch (attribute->type) {
    case CKA_UNIQUE_ID:
        snprintf(number, sizeof number, "%lu", object->handle);
        return give_unique_id(attribute, "session:", number);
    case CKA_CLASS:
        return give_ulong(attribute, CKO_SECRET_KEY);
    case CKA_KEY_TYPE:
        return give_ulong(attribute, object->key_type);
    case CKA_VALUE:
        return object->sensitive || !object->extractable ? withhold(attribute, CKR_ATTRIBUTE_SENSITIVE)
                                                         : give(attribute, object->value, object->length);
    case CKA_VALUE_LEN:
        return give_ulong(attribute, (CK_ULONG)object->length);
    case CKA_LABEL:
        return give(attribute, object->label.bytes, object->label.length);
    case CKA_ID:
        return give(attribute, object->id.bytes, object->id.length);
    case CKA_SENSITIVE:
        return give_bool(attribute, object->sensitive);
    case CKA_EXTRACTABLE:
        return give_bool(attribute, object->extractable);
    case CKA_LOCAL:
        return give_bool(attribute, local);
    case CKA_KEY_GEN_MECHANISM:
        return give_ulong(attribute, object->made_by);
    case CKA_ALWAYS_SENSITIVE: /* of what was not made here, nobody knows where else it is */
        return give_bool(attribute, local && object->sensitive);
    case CKA_NEVER_EXTRACTABLE:
        return give_bool(attribute, local && !object->extractable);
    case CKA_PRIVATE: /* as asked for; who may use the service is logged in by that */
        return give_bool(attribute, object->private);
    case CKA_START_DATE:
    case CKA_END_DATE:
        return give(attribute, NULL, 0);
    case CKA_DESTROYABLE:
        return give_bool(attribute, true);
    case CKA_TOKEN:
    case CKA_MODIFIABLE:
    case CKA_COPYABLE:
    case CKA_ENCRYPT: /* it is wrapped and unwrapped; nothing is done with it here */
    case CKA_DECRYPT:
    case CKA_SIGN:
    case CKA_VERIFY:
    case CKA_WRAP:
    case CKA_UNWRAP:
    case CKA_DERIVE:
    case CKA_TRUSTED:
    case CKA_WRAP_WITH_TRUSTED:
        return give_bool(attribute, false);
    default:
        return withhold(attribute, CKR_ATTRIBUTE_TYPE_INVALID);
    }
}

struct session_object *objects_find(const struct objects *objects, CK_OBJECT_HANDLE handle)
{
    for (size_t i = 0; i < objects->count; i++)
        if (objects->items[i]->handle == handle)
            return objects->items[i];
    return NULL;
}

CK_RV objects_add(struct objects *objects, struct session_object *object)
{
    struct session_object **items =
        objects->count < OBJECTS_MAX ? reallocarray(objects->items, objects->count + 1, sizeof(void *)) : NULL;
    if (!items)
        return CKR_HOST_MEMORY;
    objects->items = items;
    items[objects->count++] = object;
    return CKR_OK;
}

static void remove_at(struct objects *objects, size_t index)
{
    session_object_free(objects->items[index]);
    objects->items[index] = objects->items[--objects->count];
}

bool objects_remove(struct objects *objects, CK_OBJECT_HANDLE handle)
{
    for (size_t i = 0; i < objects->count; i++)
        if (objects->items[i]->handle == handle) {
            remove_at(objects, i);
            return true;
        }
    return false;
}

void objects_remove_owner(struct objects *objects, CK_SESSION_HANDLE owner)
{
    for (size_t i = objects->count; i-- > 0;)
        if (objects->items[i]->owner == owner)
            remove_at(objects, i);
}

void objects_clear(struct objects *objects)
{
    while (objects->count)
        remove_at(objects, objects->count - 1);
    free(objects->items);
    *objects = (struct objects){0};
}

/* --- Matching --- */

enum { COMPARED_MAX = 8192 };

static bool has_alias(const struct backend_key *key, const CK_ATTRIBUTE *label)
{
    for (char **alias = key->aliases; alias && *alias; alias++)
        if (strlen(*alias) == label->ulValueLen && memcmp(*alias, label->pValue, label->ulValueLen) == 0)
            return true;
    return false;
}

static bool has_name(const struct backend *backend, const struct backend_key *key, const CK_ATTRIBUTE *name)
{
    if (name->type == CKA_LABEL)
        return has_alias(key, name);
    return name->type == CKA_ID && backend->is_also && backend->is_also(key->id, name->pValue, name->ulValueLen);
}

bool key_matches(const struct token_settings *settings, const struct backend *backend, const struct backend_key *key,
                 enum keys_part part, const CK_ATTRIBUTE *template, CK_ULONG count)
{
    for (CK_ULONG i = 0; i < count; i++) {
        uint8_t value[COMPARED_MAX];
        CK_ATTRIBUTE has = {.type = template[i].type, .pValue = value, .ulValueLen = sizeof value};
        if (key_attribute(settings, backend, key, part, &has) == CKR_OK && same_value(&template[i], &has))
            continue;
        if (!has_name(backend, key, &template[i]))
            return false;
    }
    return true;
}

bool session_object_matches(const struct session_object *object, const CK_ATTRIBUTE *template, CK_ULONG count)
{
    for (CK_ULONG i = 0; i < count; i++) {
        uint8_t value[COMPARED_MAX];
        CK_ATTRIBUTE has = {.type = template[i].type, .pValue = value, .ulValueLen = sizeof value};
        bool same = session_object_attribute(object, &has) == CKR_OK && same_value(&template[i], &has);
        secmem_wipe(value, sizeof value);
        if (!same)
            return false;
    }
    return true;
}
