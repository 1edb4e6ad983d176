/*
 * AES-KWP (RFC 5649). Where the token does not let it be used as an encryption, the plaintext becomes a session object
 * for a moment: C_CreateObject, C_WrapKey, C_DestroyObject; and back. RFC 5649 adds exactly 8 bytes to our 48; a
 * token that gives another length (NSS's CKM_AES_KEY_WRAP_PAD pads as PKCS#7 does) is refused.
 */
#include "hsm/wrap.h"

#include <string.h>

#include "base/error.h"
#include "hsm/ckr.h"

enum { IN_AT = 0, OUT_AT = 256, OUT_SIZE = 256 };

static CK_MECHANISM mechanism_of(const struct hsm_wrap *wrap)
{
    return (CK_MECHANISM){wrap->view.kwp_mechanism, NULL, 0};
}

static CK_RV encrypt(struct hsm_wrap *wrap, CK_ULONG *length)
{
    struct hsm_session *session = wrap->session;
    CK_MECHANISM mechanism = mechanism_of(wrap);
    CK_RV rv = HSM_SESSION_CALL(session, C_EncryptInit, &mechanism, wrap->view.key);
    if (rv != CKR_OK)
        return rv;
    return HSM_SESSION_CALL(session, C_Encrypt, session->scratch + IN_AT, HSM_BOUND_SIZE, session->scratch + OUT_AT,
                            length);
}

static CK_RV decrypt(struct hsm_wrap *wrap, const uint8_t *body, size_t body_length, CK_ULONG *length)
{
    struct hsm_session *session = wrap->session;
    CK_MECHANISM mechanism = mechanism_of(wrap);
    CK_RV rv = HSM_SESSION_CALL(session, C_DecryptInit, &mechanism, wrap->view.key);
    if (rv != CKR_OK)
        return rv;
    memcpy(session->scratch + IN_AT, body, body_length);
    return HSM_SESSION_CALL(session, C_Decrypt, session->scratch + IN_AT, body_length, session->scratch + OUT_AT,
                            length);
}

/* The attributes of the momentary object; its value comes last, at unwrap it has none. */
enum { OBJECT_ATTRIBUTES = 7 };

struct momentary {
    CK_OBJECT_CLASS class;
    CK_KEY_TYPE type;
    CK_BBOOL yes, no;
    CK_ATTRIBUTE template[OBJECT_ATTRIBUTES];
};

static void describe(struct momentary *object, void *value, CK_ULONG length)
{
    object->class = CKO_SECRET_KEY;
    object->type = CKK_GENERIC_SECRET;
    object->yes = CK_TRUE;
    object->no = CK_FALSE;
    const CK_ATTRIBUTE template[OBJECT_ATTRIBUTES] = {
        {CKA_CLASS, &object->class, sizeof object->class},
        {CKA_KEY_TYPE, &object->type, sizeof object->type},
        {CKA_TOKEN, &object->no, sizeof object->no},
        {CKA_PRIVATE, &object->yes, sizeof object->yes},
        {CKA_SENSITIVE, &object->no, sizeof object->no},
        {CKA_EXTRACTABLE, &object->yes, sizeof object->yes},
        {CKA_VALUE, value, length},
    };
    memcpy(object->template, template, sizeof template);
}

/* What the first failing call said; a momentary object that stays behind is an error too. */
static CK_RV destroy(struct hsm_session *session, CK_OBJECT_HANDLE object, CK_RV rv)
{
    CK_RV destroyed = HSM_SESSION_CALL(session, C_DestroyObject, object);
    return rv != CKR_OK ? rv : destroyed;
}

static CK_RV wrap_object(struct hsm_wrap *wrap, CK_ULONG *length)
{
    struct hsm_session *session = wrap->session;
    struct momentary momentary;
    CK_OBJECT_HANDLE object = 0;
    CK_MECHANISM mechanism = mechanism_of(wrap);
    describe(&momentary, session->scratch + IN_AT, HSM_BOUND_SIZE);
    CK_RV rv = HSM_SESSION_CALL(session, C_CreateObject, momentary.template, OBJECT_ATTRIBUTES, &object);
    if (rv != CKR_OK)
        return rv;
    rv = HSM_SESSION_CALL(session, C_WrapKey, &mechanism, wrap->view.key, object, session->scratch + OUT_AT, length);
    return destroy(session, object, rv);
}

static CK_RV unwrap_object(struct hsm_wrap *wrap, const uint8_t *body, size_t body_length, CK_ULONG *length)
{
    struct hsm_session *session = wrap->session;
    struct momentary momentary;
    CK_OBJECT_HANDLE object = 0;
    CK_MECHANISM mechanism = mechanism_of(wrap);
    describe(&momentary, NULL, 0);
    memcpy(session->scratch + IN_AT, body, body_length);
    CK_RV rv = HSM_SESSION_CALL(session, C_UnwrapKey, &mechanism, wrap->view.key, session->scratch + IN_AT, body_length,
                                momentary.template, OBJECT_ATTRIBUTES - 1, &object);
    if (rv != CKR_OK)
        return rv;
    CK_ATTRIBUTE value = {CKA_VALUE, session->scratch + OUT_AT, OUT_SIZE};
    rv = HSM_SESSION_CALL(session, C_GetAttributeValue, object, &value, 1);
    *length = value.ulValueLen;
    return destroy(session, object, rv);
}

static envelope_status no_route(const struct hsm_wrap *wrap)
{
    return error_raise(ENVELOPE_E_WRAP_MECHANISM, "token \"%s\" offers no AES-KWP for what the KEK \"%s\" may do",
                       wrap->session->token->name, wrap->kek->uri->object_name);
}

envelope_status hsm_kwp_wrap(struct hsm_wrap *wrap, const uint8_t dek[HSM_DEK_SIZE], uint8_t body[HSM_BODY_MAX],
                             size_t *body_length)
{
    struct hsm_session *session = wrap->session;
    CK_ULONG length = OUT_SIZE;
    if (wrap->view.kwp == HSM_KWP_NONE)
        return no_route(wrap);
    envelope_status status = hsm_bind(wrap, dek, session->scratch + IN_AT);
    if (status != ENVELOPE_OK)
        return status;
    CK_RV rv = wrap->view.kwp == HSM_KWP_ENCRYPT ? encrypt(wrap, &length) : wrap_object(wrap, &length);
    if (rv != CKR_OK)
        return hsm_session_fail(session, rv, false, "AES-KWP under the KEK \"%s\"", wrap->kek->uri->object_name);
    if (length != HSM_KWP_BODY)
        return error_raise(ENVELOPE_E_WRAP_MECHANISM,
                           "token \"%s\": its AES key wrap gives %lu bytes where RFC 5649 gives %d; it is another "
                           "algorithm, use AES-GCM",
                           session->token->name, length, (int)HSM_KWP_BODY);
    memcpy(body, session->scratch + OUT_AT, HSM_KWP_BODY);
    *body_length = HSM_KWP_BODY;
    return ENVELOPE_OK;
}

envelope_status hsm_kwp_unwrap(struct hsm_wrap *wrap, const uint8_t *body, size_t body_length,
                               uint8_t dek[HSM_DEK_SIZE])
{
    struct hsm_session *session = wrap->session;
    CK_ULONG length = OUT_SIZE;
    if (body_length != HSM_KWP_BODY)
        return hsm_does_not_unwrap(wrap, "its length is not that of an AES-KWP blob");
    if (wrap->view.kwp == HSM_KWP_NONE)
        return no_route(wrap);
    CK_RV rv = wrap->view.kwp == HSM_KWP_ENCRYPT ? decrypt(wrap, body, body_length, &length)
                                                 : unwrap_object(wrap, body, body_length, &length);
    if (rv != CKR_OK)
        return hsm_session_fail(session, rv, true,
                                "a blob does not unwrap under the KEK \"%s\" (damaged, or of another KEK)",
                                wrap->kek->uri->object_name);
    return hsm_unbind(wrap, session->scratch + OUT_AT, length, dek);
}
