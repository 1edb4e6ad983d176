#include "hsm/kek.h"

#include <stdio.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/libctx.h"
#include "base/text.h"
#include "hsm/ckr.h"
#include "hsm/service.h"
#include "hsm/wrap.h"

enum { TEMPLATE_MAX = 8 };

static CK_RV search(struct hsm_session *session, CK_ATTRIBUTE *template, CK_ULONG length, CK_ULONG *count,
                    CK_OBJECT_HANDLE *key)
{
    CK_OBJECT_HANDLE found[2] = {0, 0};
    *count = 0;
    CK_RV rv = HSM_SESSION_CALL(session, C_FindObjectsInit, template, length);
    if (rv != CKR_OK)
        return rv;
    /* A token may give fewer than asked for; none means the end. */
    for (CK_ULONG got = 1; rv == CKR_OK && got > 0 && *count < 2; *count += got) {
        got = 0;
        rv = HSM_SESSION_CALL(session, C_FindObjects, found + *count, 2 - *count, &got);
    }
    CK_RV end = HSM_SESSION_CALL0(session, C_FindObjectsFinal);
    if (*count > 0)
        *key = found[*count - 1];
    return rv != CKR_OK ? rv : end;
}

CK_RV hsm_kek_count(const struct hsm_kek *kek, struct hsm_session *session, CK_OBJECT_CLASS class, CK_ULONG *count,
                    CK_OBJECT_HANDLE *key)
{
    CK_ATTRIBUTE template[TEMPLATE_MAX] = {{CKA_CLASS, &class, sizeof class}};
    CK_BBOOL yes = CK_TRUE;
    CK_ULONG n = 1, given = 0;
    template[n++] = (CK_ATTRIBUTE){CKA_TOKEN, &yes, sizeof yes};
    const CK_ATTRIBUTE *attributes = p11_kit_uri_get_attributes(kek->uri->parsed, &given);
    for (CK_ULONG i = 0; i < given && n < TEMPLATE_MAX; i++)
        if (attributes[i].type != CKA_CLASS)
            template[n++] = attributes[i];
    return search(session, template, n, count, key);
}

/* What a token may say of a question it has no answer to; anything else means that it is not there as it was. */
static bool is_answer(struct hsm_session *session, CK_RV rv)
{
    bool answer = rv == CKR_OK || rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_SENSITIVE ||
                  rv == CKR_BUFFER_TOO_SMALL || rv == CKR_MECHANISM_INVALID || rv == CKR_FUNCTION_NOT_SUPPORTED;
    if (!answer) {
        session->fault = rv;
        session->condition = HSM_SESSION_LOST;
    }
    return answer;
}

/* unknown where the token does not say: the side to err on. */
static bool read_flag(struct hsm_session *session, CK_OBJECT_HANDLE key, CK_ATTRIBUTE_TYPE type, bool unknown)
{
    CK_BBOOL value = CK_FALSE;
    CK_ATTRIBUTE attribute = {type, &value, sizeof value};
    CK_RV rv = HSM_SESSION_CALL(session, C_GetAttributeValue, key, &attribute, 1);
    if (!is_answer(session, rv) || rv != CKR_OK || attribute.ulValueLen != sizeof value)
        return unknown;
    return value != CK_FALSE;
}

/* The bytes of an attribute into to; 0 where there is none or it does not fit. */
static size_t read_bytes(struct hsm_session *session, CK_OBJECT_HANDLE key, CK_ATTRIBUTE_TYPE type, void *to,
                         size_t size)
{
    CK_ATTRIBUTE attribute = {type, to, size};
    CK_RV rv = HSM_SESSION_CALL(session, C_GetAttributeValue, key, &attribute, 1);
    return is_answer(session, rv) && rv == CKR_OK && attribute.ulValueLen <= size ? attribute.ulValueLen : 0;
}

static bool has_mechanism(struct hsm_session *session, CK_MECHANISM_TYPE type, CK_FLAGS wanted)
{
    CK_MECHANISM_INFO info;
    struct hsm_token *token = session->token;
    memset(&info, 0, sizeof info);
    hsm_lock();
    CK_SLOT_ID slot = token->slot;
    hsm_unlock();
    CK_RV rv = HSM_CALL_IN(token->module, session->module_generation, C_GetMechanismInfo, slot, type, &info);
    return is_answer(session, rv) && rv == CKR_OK && (info.flags & wanted) == wanted;
}

/* A KEK can be used by encryption only if it may, and by wrapping only if it may; prefer the former. */
static void find_kwp(struct hsm_session *session, struct hsm_kek_view *view)
{
    static const CK_MECHANISM_TYPE wrapping[] = {CKM_AES_KEY_WRAP_KWP, HSM_CKM_CLOUDHSM_ZERO_PAD, CKM_AES_KEY_WRAP_PAD};
    view->kwp_mechanism = CKM_AES_KEY_WRAP_KWP;
    if (view->can_encrypt && has_mechanism(session, CKM_AES_KEY_WRAP_KWP, CKF_ENCRYPT | CKF_DECRYPT)) {
        view->kwp = HSM_KWP_ENCRYPT;
        return;
    }
    for (size_t i = 0; view->can_wrap && i < sizeof wrapping / sizeof wrapping[0]; i++) {
        if (!has_mechanism(session, wrapping[i], CKF_WRAP | CKF_UNWRAP))
            continue;
        view->kwp = HSM_KWP_WRAP;
        view->kwp_mechanism = wrapping[i];
        return;
    }
}

static void read_size(struct hsm_session *session, struct hsm_kek_view *view)
{
    CK_ULONG length = 0;
    uint8_t modulus[1024];
    if (view->rsa)
        view->bits = 8 * (unsigned)read_bytes(session, view->key, CKA_MODULUS, modulus, sizeof modulus);
    else if (read_bytes(session, view->key, CKA_VALUE_LEN, &length, sizeof length) == sizeof length)
        view->bits = 8 * (unsigned)length;
}

static void read_attributes(struct hsm_session *session, struct hsm_kek_view *view)
{
    char label[sizeof view->label];
    size_t n = read_bytes(session, view->key, CKA_LABEL, label, sizeof label);
    text_printable(label, n, view->label, sizeof view->label);
    view->extractable = read_flag(session, view->key, CKA_EXTRACTABLE, true);
    view->sensitive = read_flag(session, view->key, CKA_SENSITIVE, false);
    view->always_sensitive = read_flag(session, view->key, CKA_ALWAYS_SENSITIVE, false);
    view->never_extractable = read_flag(session, view->key, CKA_NEVER_EXTRACTABLE, false);
    /* The public half of RSA is used in software, so that only the private half's rights count. */
    view->can_encrypt = read_flag(session, view->key, CKA_DECRYPT, false) &&
                        (view->rsa || read_flag(session, view->key, CKA_ENCRYPT, false));
    view->can_wrap = read_flag(session, view->key, CKA_UNWRAP, false) &&
                     (view->rsa || read_flag(session, view->key, CKA_WRAP, false));
    if (view->rsa) {
        view->has_oaep = has_mechanism(session, CKM_RSA_PKCS_OAEP, CKF_DECRYPT);
    } else {
        view->has_gcm = has_mechanism(session, CKM_AES_GCM, CKF_ENCRYPT | CKF_DECRYPT);
        view->has_vendor_gcm = has_mechanism(session, HSM_CKM_CLOUDHSM_AES_GCM, CKF_ENCRYPT | CKF_DECRYPT);
        view->has_service = has_mechanism(session, CKM_ENVELOPE_KMS_WRAP, CKF_ENCRYPT | CKF_DECRYPT);
        find_kwp(session, view);
    }
    read_size(session, view);
}

static envelope_status examine(struct hsm_kek *kek, struct hsm_session *session, struct hsm_kek_view *view)
{
    const char *token = session->token->name, *name = kek->uri->object_name;
    CK_KEY_TYPE type = CK_UNAVAILABLE_INFORMATION;
    bool typed = read_bytes(session, view->key, CKA_KEY_TYPE, &type, sizeof type) == sizeof type;
    read_attributes(session, view);
    /* Whatever was read or not read then means nothing. */
    if (session->condition != HSM_SESSION_FINE)
        return error_raise(ENVELOPE_E_HSM_UNAVAILABLE,
                           "token \"%s\": it went away while the KEK \"%s\" was examined (%s)", token, name,
                           hsm_ckr_name(session->fault));
    if (!typed || type != (view->rsa ? CKK_RSA : CKK_AES))
        return error_raise(ENVELOPE_E_KEK_ATTRIBUTES, "token \"%s\": the KEK \"%s\" is no %s key", token, name,
                           view->rsa ? "RSA" : "AES");
    if (view->bits == 0)
        return error_raise(ENVELOPE_E_KEK_ATTRIBUTES, "token \"%s\": the size of the KEK \"%s\" cannot be read", token,
                           name);
    return ENVELOPE_OK;
}

/*
 * SoftHSM does not see again an object whose file was gone for a moment, which is how a KEK may be revoked and given
 * back. So one that was there once is worth a look at the files, now and then.
 */
static bool looks_anew(struct hsm_kek *kek)
{
    static const int64_t pause = CLOCK_SECOND;
    int64_t now = clock_monotonic();
    hsm_lock();
    /* A key service was asked just now; there is nothing to look at anew. */
    bool due =
        !kek->token->module->service && kek->was_found && (kek->looked_anew == 0 || now - kek->looked_anew >= pause);
    if (due)
        kek->looked_anew = now;
    hsm_unlock();
    return due;
}

/* The classes to look for, and whether what is found there is RSA. */
static envelope_status find_object(struct hsm_kek *kek, struct hsm_session *session, struct hsm_kek_view *view)
{
    const struct hsm_uri *uri = kek->uri;
    CK_ULONG secret = 0, private = 0;
    CK_RV rv = CKR_OK;
    if (!uri->has_class || uri->class == CKO_SECRET_KEY)
        rv = hsm_kek_count(kek, session, CKO_SECRET_KEY, &secret, &view->key);
    CK_OBJECT_HANDLE private_key = 0;
    if (rv == CKR_OK && (!uri->has_class || uri->class != CKO_SECRET_KEY))
        rv = hsm_kek_count(kek, session, CKO_PRIVATE_KEY, &private, &private_key);
    if (rv != CKR_OK)
        return hsm_session_fail(session, rv, false, "looking for the KEK \"%s\"", uri->object_name);
    if (secret + private > 1)
        return error_raise(ENVELOPE_E_KEK_UNKNOWN,
                           "token \"%s\": more than one key matches the KEK \"%s\"; name it by id=, or with type=",
                           session->token->name, uri->object_name);
    view->rsa = private == 1;
    if (view->rsa)
        view->key = private_key;
    if (secret + private == 1)
        return ENVELOPE_OK;
    /* Nothing there: or nothing to be seen, because the token went away or somebody logged us out. */
    hsm_lock();
    bool login = (session->token->info.flags & CKF_LOGIN_REQUIRED) != 0;
    hsm_unlock();
    login = login && !hsm_session_is_logged_in(session);
    if (login || !hsm_token_present(session->token)) {
        session->condition = HSM_SESSION_LOST;
        return error_raise(ENVELOPE_E_HSM_UNAVAILABLE, "token \"%s\" is not there, or its login was lost",
                           session->token->name);
    }
    if (looks_anew(kek))
        session->condition = HSM_SESSION_LOST;
    if (session->token->module->service)
        return hsm_service_missing(session, uri->object_name);
    return error_raise(ENVELOPE_E_KEK_UNKNOWN, "token \"%s\": it has no key that matches the KEK \"%s\"",
                       session->token->name, uri->object_name);
}

envelope_status hsm_kek_resolve(struct hsm_kek *kek, struct hsm_session *session, struct hsm_kek_view *view)
{
    hsm_lock();
    bool known = kek->generation == session->generation;
    if (known)
        *view = kek->view;
    hsm_unlock();
    if (known)
        return ENVELOPE_OK;
    memset(view, 0, sizeof *view);
    envelope_status status = find_object(kek, session, view);
    if (status == ENVELOPE_OK)
        status = examine(kek, session, view);
    if (status != ENVELOPE_OK)
        return status;
    hsm_lock();
    kek->view = *view;
    kek->generation = session->generation;
    kek->was_found = true;
    hsm_unlock();
    return ENVELOPE_OK;
}

void hsm_kek_forget(struct hsm_kek *kek)
{
    hsm_lock();
    kek->generation = 0;
    hsm_unlock();
}

bool hsm_kek_present(struct hsm_kek *kek, struct hsm_session *session)
{
    struct hsm_kek_view view;
    memset(&view, 0, sizeof view);
    return find_object(kek, session, &view) == ENVELOPE_OK;
}

static envelope_status does_not_fit(const struct hsm_kek *kek, const struct hsm_kek_view *view, const char *setting)
{
    return error_raise(ENVELOPE_E_KEK_ATTRIBUTES, "the KEK \"%s\" is an %s key, and wrap = %s is configured",
                       kek->uri->object_name, view->rsa ? "RSA" : "AES", setting);
}

static envelope_status cannot(const struct hsm_kek *kek, const struct hsm_kek_view *view, const char *mechanisms)
{
    const char *name = kek->uri->token_name;
    if (!view->can_encrypt && !view->can_wrap)
        return error_raise(
            ENVELOPE_E_KEK_REFUSED,
            "token \"%s\": the KEK \"%s\" may neither encrypt and decrypt nor wrap and unwrap (CKA_ENCRYPT, "
            "CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP)",
            name, kek->uri->object_name);
    return error_raise(
        ENVELOPE_E_WRAP_MECHANISM,
        "token \"%s\" does not offer %s for what the KEK \"%s\" may do (encrypt and decrypt: %s, wrap and "
        "unwrap: %s)",
        name, mechanisms, kek->uri->object_name, view->can_encrypt ? "yes" : "no", view->can_wrap ? "yes" : "no");
}

envelope_status hsm_kek_mechanism(const struct hsm_kek *kek, const struct hsm_kek_view *view,
                                  enum hsm_mechanism *mechanism)
{
    bool gcm = (view->has_gcm || view->has_vendor_gcm) && view->can_encrypt;
    int wish = kek->token->settings->wrap;
    if (view->rsa) {
        if (wish != SETTINGS_WRAP_AUTO && wish != SETTINGS_WRAP_RSA_OAEP)
            return does_not_fit(kek, view, wish == SETTINGS_WRAP_AES_GCM ? "aes-gcm" : "aes-kwp");
        *mechanism = HSM_RSA_OAEP;
        return view->has_oaep && view->can_encrypt ? ENVELOPE_OK : cannot(kek, view, "RSA-OAEP decryption");
    }
    if (wish == SETTINGS_WRAP_RSA_OAEP)
        return does_not_fit(kek, view, "rsa-oaep");
    if (view->has_service && view->can_encrypt && wish == SETTINGS_WRAP_AUTO) {
        *mechanism = HSM_KEY_SERVICE;
        return ENVELOPE_OK;
    }
    if (gcm && wish != SETTINGS_WRAP_AES_KWP) {
        *mechanism = HSM_AES_GCM;
        return ENVELOPE_OK;
    }
    if (view->kwp != HSM_KWP_NONE && wish != SETTINGS_WRAP_AES_GCM) {
        *mechanism = HSM_AES_KWP;
        return ENVELOPE_OK;
    }
    if (wish == SETTINGS_WRAP_AUTO)
        return cannot(kek, view, "AES-GCM, AES-KWP or a key service's wrapping");
    return cannot(kek, view, wish == SETTINGS_WRAP_AES_GCM ? "AES-GCM" : "AES-KWP");
}

static EVP_PKEY *build_public(const uint8_t *modulus, size_t modulus_length, const uint8_t *exponent,
                              size_t exponent_length)
{
    EVP_PKEY *key = NULL;
    OSSL_PARAM *params = NULL;
    BIGNUM *n = BN_bin2bn(modulus, (int)modulus_length, NULL);
    BIGNUM *e = BN_bin2bn(exponent, (int)exponent_length, NULL);
    OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(libctx_private(), "RSA", NULL);
    if (n && e && builder && context && OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n) &&
        OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, e) && (params = OSSL_PARAM_BLD_to_param(builder)) &&
        EVP_PKEY_fromdata_init(context) > 0)
        (void)EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params);
    EVP_PKEY_CTX_free(context);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(builder);
    BN_free(n);
    BN_free(e);
    return key;
}

/*
 * From the private object where it tells, since that cannot be exchanged for another as a public object can; a token
 * that keeps the exponent in the public object alone is asked there.
 */
static EVP_PKEY *read_public(struct hsm_kek *kek, struct hsm_session *session, const struct hsm_kek_view *view)
{
    uint8_t modulus[1024], exponent[64];
    size_t n = read_bytes(session, view->key, CKA_MODULUS, modulus, sizeof modulus);
    size_t e = read_bytes(session, view->key, CKA_PUBLIC_EXPONENT, exponent, sizeof exponent);
    CK_ULONG count = 0;
    CK_OBJECT_HANDLE public = 0;
    if ((n == 0 || e == 0) && hsm_kek_count(kek, session, CKO_PUBLIC_KEY, &count, &public) == CKR_OK && count == 1) {
        n = read_bytes(session, public, CKA_MODULUS, modulus, sizeof modulus);
        e = read_bytes(session, public, CKA_PUBLIC_EXPONENT, exponent, sizeof exponent);
    }
    if (n == 0 || e == 0) {
        error_raise(ENVELOPE_E_KEK_ATTRIBUTES, "token \"%s\": the public half of the KEK \"%s\" cannot be read",
                    session->token->name, kek->uri->object_name);
        return NULL;
    }
    EVP_PKEY *key = build_public(modulus, n, exponent, e);
    if (!key)
        error_raise(ENVELOPE_E_CRYPTO, "token \"%s\": libcrypto refuses the public half of the KEK \"%s\"",
                    session->token->name, kek->uri->object_name);
    return key;
}

EVP_PKEY *hsm_kek_public(struct hsm_kek *kek, struct hsm_session *session, const struct hsm_kek_view *view)
{
    hsm_lock();
    EVP_PKEY *key = kek->rsa_public;
    if (key && EVP_PKEY_up_ref(key) != 1)
        key = NULL;
    hsm_unlock();
    if (key)
        return key;
    key = read_public(kek, session, view);
    if (!key || EVP_PKEY_up_ref(key) != 1)
        return key;
    hsm_lock();
    EVP_PKEY *other = kek->rsa_public;
    kek->rsa_public = key;
    hsm_unlock();
    EVP_PKEY_free(other);
    return key;
}
