#include "hsm/wrap.h"

#include <string.h>

#include <openssl/crypto.h>

#include "base/error.h"
#include "base/nonce.h"
#include "hsm/ckr.h"

enum { IV_SIZE = 12, TAG_SIZE = 16, SEALED_SIZE = HSM_DEK_SIZE + TAG_SIZE };

/* The scratch memory of a session: plaintext in, and room for what comes out. */
enum { IN_AT = 0, OUT_AT = 256, OUT_SIZE = 256 };

static CK_GCM_PARAMS gcm_params(const struct hsm_wrap *wrap, uint8_t *iv)
{
    return (CK_GCM_PARAMS){
        .pIv = iv,
        .ulIvLen = iv ? IV_SIZE : 0,
        .ulIvBits = iv ? 8 * IV_SIZE : 0,
        .pAAD = (CK_BYTE *)(uintptr_t)wrap->aad,
        .ulAADLen = wrap->aad_length,
        .ulTagBits = 8 * TAG_SIZE,
    };
}

/* One encryption in a session, with the IV as it stands in iv (NULL: the token prepends its own). */
static CK_RV encrypt(struct hsm_wrap *wrap, CK_MECHANISM_TYPE type, uint8_t *iv, CK_ULONG *length)
{
    struct hsm_session *session = wrap->session;
    CK_GCM_PARAMS params = gcm_params(wrap, iv);
    CK_MECHANISM mechanism = {type, &params, sizeof params};
    *length = OUT_SIZE;
    CK_RV rv = HSM_SESSION_CALL(session, C_EncryptInit, &mechanism, wrap->view.key);
    if (rv != CKR_OK)
        return rv;
    return HSM_SESSION_CALL(session, C_Encrypt, session->scratch + IN_AT, HSM_DEK_SIZE, session->scratch + OUT_AT,
                            length);
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
    uint8_t any = 0;
    for (size_t i = 0; i < count; i++)
        any |= bytes[i];
    return any == 0;
}

static envelope_status wrong_length(const struct hsm_wrap *wrap, CK_ULONG length)
{
    return error_raise(ENVELOPE_E_WRAP_MECHANISM, "token \"%s\": AES-GCM gave %lu bytes, which is not what it should",
                       wrap->session->token->name, length);
}

/* With one strategy. *supported false (and no error raised): the token wants another. */
static envelope_status try_wrap(struct hsm_wrap *wrap, enum hsm_iv strategy, uint8_t *body, bool *supported)
{
    struct hsm_session *session = wrap->session;
    CK_ULONG length = 0;
    CK_RV rv = CKR_OK;
    memset(body, 0, IV_SIZE);
    if (strategy == HSM_IV_CALLER && nonce_next(body) != ENVELOPE_OK)
        return error_status();
    if (strategy == HSM_IV_PREPENDED)
        rv = encrypt(wrap, HSM_CKM_CLOUDHSM_AES_GCM, NULL, &length);
    else
        rv = encrypt(wrap, CKM_AES_GCM, body, &length);
    *supported = hsm_ckr_fault(rv) != HSM_FAULT_UNSUPPORTED;
    if (rv != CKR_OK)
        return hsm_session_fail(session, rv, false, "AES-GCM encryption under the KEK \"%s\"",
                                wrap->kek->uri->object_name);
    if (strategy == HSM_IV_PREPENDED) {
        if (length != HSM_GCM_BODY)
            return wrong_length(wrap, length);
        memcpy(body, session->scratch + OUT_AT, HSM_GCM_BODY);
        return ENVELOPE_OK;
    }
    if (length != SEALED_SIZE)
        return wrong_length(wrap, length);
    /* Whoever made the IV, it is what stands there now: CloudHSM overwrites it. */
    if (is_zero(body, IV_SIZE))
        return error_raise(
            ENVELOPE_E_WRAP_MECHANISM,
            "token \"%s\" leaves the IV of AES-GCM to us: with iv = token it would be zero each time, so nothing "
            "is wrapped; set iv = auto or iv = caller",
            session->token->name);
    memcpy(body + IV_SIZE, session->scratch + OUT_AT, SEALED_SIZE);
    return ENVELOPE_OK;
}

static enum hsm_iv configured(const struct hsm_token *token)
{
    switch (token->settings->iv) {
    case SETTINGS_IV_CALLER:
        return HSM_IV_CALLER;
    case SETTINGS_IV_TOKEN:
        return HSM_IV_TOKEN;
    case SETTINGS_IV_PREPENDED:
        return HSM_IV_PREPENDED;
    default:
        return (enum hsm_iv)atomic_load(&token->iv);
    }
}

static bool offered(const struct hsm_wrap *wrap, enum hsm_iv strategy)
{
    return strategy == HSM_IV_PREPENDED ? wrap->view.has_vendor_gcm : wrap->view.has_gcm;
}

envelope_status hsm_gcm_wrap(struct hsm_wrap *wrap, const uint8_t dek[HSM_DEK_SIZE], uint8_t body[HSM_BODY_MAX],
                             size_t *length)
{
    static const enum hsm_iv order[] = {HSM_IV_CALLER, HSM_IV_TOKEN, HSM_IV_PREPENDED};
    struct hsm_token *token = wrap->session->token;
    enum hsm_iv known = configured(token);
    bool supported = false;
    memcpy(wrap->session->scratch + IN_AT, dek, HSM_DEK_SIZE);
    *length = HSM_GCM_BODY;
    if (known != HSM_IV_UNKNOWN)
        return try_wrap(wrap, known, body, &supported);
    envelope_status status = error_raise(ENVELOPE_E_WRAP_MECHANISM, "token \"%s\" offers no AES-GCM", token->name);
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        if (!offered(wrap, order[i]))
            continue;
        status = try_wrap(wrap, order[i], body, &supported);
        if (status == ENVELOPE_OK)
            atomic_store(&token->iv, order[i]);
        if (status == ENVELOPE_OK || supported)
            return status;
    }
    return status;
}

/* ct ‖ tag, or IV ‖ ct ‖ tag with iv NULL. The output buffer has room for the tag, which SoftHSM insists on. */
static CK_RV decrypt(struct hsm_wrap *wrap, CK_MECHANISM_TYPE type, uint8_t *iv, const uint8_t *in, size_t in_length,
                     CK_ULONG *length)
{
    struct hsm_session *session = wrap->session;
    CK_GCM_PARAMS params = gcm_params(wrap, iv);
    CK_MECHANISM mechanism = {type, &params, sizeof params};
    *length = OUT_SIZE;
    CK_RV rv = HSM_SESSION_CALL(session, C_DecryptInit, &mechanism, wrap->view.key);
    if (rv != CKR_OK)
        return rv;
    memcpy(session->scratch + IN_AT, in, in_length);
    return HSM_SESSION_CALL(session, C_Decrypt, session->scratch + IN_AT, in_length, session->scratch + OUT_AT, length);
}

envelope_status hsm_gcm_unwrap(struct hsm_wrap *wrap, const uint8_t *body, size_t body_length,
                               uint8_t dek[HSM_DEK_SIZE])
{
    struct hsm_session *session = wrap->session;
    uint8_t iv[IV_SIZE];
    CK_ULONG length = 0;
    if (body_length != HSM_GCM_BODY)
        return hsm_does_not_unwrap(wrap, "its length is not that of an AES-GCM blob");
    memcpy(iv, body, sizeof iv);
    bool vendor = configured(session->token) == HSM_IV_PREPENDED || !wrap->view.has_gcm;
    CK_RV rv = vendor ? CKR_MECHANISM_INVALID : decrypt(wrap, CKM_AES_GCM, iv, body + IV_SIZE, SEALED_SIZE, &length);
    if (hsm_ckr_fault(rv) == HSM_FAULT_UNSUPPORTED && wrap->view.has_vendor_gcm)
        rv = decrypt(wrap, HSM_CKM_CLOUDHSM_AES_GCM, NULL, body, body_length, &length);
    if (rv != CKR_OK)
        return hsm_session_fail(session, rv, true,
                                "a blob does not unwrap under the KEK \"%s\" (moved, damaged, or of "
                                "another KEK)",
                                wrap->kek->uri->object_name);
    if (length != HSM_DEK_SIZE)
        return wrong_length(wrap, length);
    memcpy(dek, session->scratch + OUT_AT, HSM_DEK_SIZE);
    return ENVELOPE_OK;
}
