/* Setting up: a KEK on a token, a token in a module. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "hsm/ckr.h"
#include "hsm/instance.h"

/* A read-write session beside the pool; the login counts for it too. */
static envelope_status open_writable(struct hsm_session *session, struct hsm_session **made)
{
    struct hsm_token *token = session->token;
    CK_RV rv = CKR_OK;
    hsm_lock();
    CK_SLOT_ID slot = token->slot;
    hsm_unlock();
    return hsm_session_open(token, slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, made, &rv);
}

static envelope_status refuse_existing(struct hsm_wrap *wrap)
{
    static const CK_OBJECT_CLASS classes[] = {CKO_SECRET_KEY, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY};
    const char *name = wrap->kek->uri->object_name;
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        CK_ULONG count = 0;
        CK_OBJECT_HANDLE key = 0;
        CK_RV rv = hsm_kek_count(wrap->kek, wrap->session, classes[i], &count, &key);
        if (rv != CKR_OK)
            return hsm_session_fail(wrap->session, rv, false, "looking for the KEK \"%s\"", name);
        if (count > 0)
            return error_raise(ENVELOPE_E_KEY_EXISTS,
                               "token \"%s\": a key that matches the KEK \"%s\" is there already",
                               wrap->session->token->name, name);
    }
    return ENVELOPE_OK;
}

enum { KEK_ATTRIBUTES_MAX = 12 };

static CK_RV generate(const struct hsm_uri *uri, struct hsm_session *session, CK_OBJECT_HANDLE *key)
{
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ULONG length = 32;
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_ATTRIBUTE template[KEK_ATTRIBUTES_MAX] = {
        {CKA_TOKEN, &yes, sizeof yes},     {CKA_PRIVATE, &yes, sizeof yes}, {CKA_SENSITIVE, &yes, sizeof yes},
        {CKA_EXTRACTABLE, &no, sizeof no}, {CKA_ENCRYPT, &yes, sizeof yes}, {CKA_DECRYPT, &yes, sizeof yes},
        {CKA_WRAP, &yes, sizeof yes},      {CKA_UNWRAP, &yes, sizeof yes},  {CKA_VALUE_LEN, &length, sizeof length},
    };
    CK_ULONG n = 9;
    const CK_ATTRIBUTE *label = p11_kit_uri_get_attribute(uri->parsed, CKA_LABEL);
    const CK_ATTRIBUTE *id = p11_kit_uri_get_attribute(uri->parsed, CKA_ID);
    if (label)
        template[n++] = *label;
    if (id)
        template[n++] = *id;
    return HSM_SESSION_CALL(session, C_GenerateKey, &mechanism, template, n, key);
}

static envelope_status generate_kek(struct hsm_wrap *wrap, void *argument)
{
    (void)argument;
    struct hsm_session *writable = NULL;
    CK_OBJECT_HANDLE key = 0;
    envelope_status status = refuse_existing(wrap);
    if (status == ENVELOPE_OK)
        status = open_writable(wrap->session, &writable);
    if (status != ENVELOPE_OK)
        return status;
    CK_RV rv = generate(wrap->kek->uri, writable, &key);
    if (rv != CKR_OK) {
        /* A key service's module keeps its words with the session that asked. */
        status = hsm_session_fail(writable, rv, false, "generating the KEK \"%s\"", wrap->kek->uri->object_name);
        wrap->session->fault = writable->fault;
        wrap->session->condition = writable->condition;
    }
    hsm_session_close(writable);
    return status;
}

envelope_status hsm_kek_generate(hsm *instance, const char *text)
{
    struct hsm_uri *uri = NULL;
    envelope_status status = hsm_uri_parse_kek(text, &uri);
    if (status != ENVELOPE_OK)
        return status;
    bool other_type = uri->has_class && uri->class != CKO_SECRET_KEY;
    hsm_uri_free(uri);
    if (other_type)
        return error_raise(ENVELOPE_E_KEK_URI, "only AES KEKs are generated here; use type=secret-key in the URI");
    return hsm_run(instance, text, true, generate_kek, NULL);
}

/* --- a token --- */

static envelope_status setup_failed(const char *label, CK_RV rv, const char *doing)
{
    return error_raise(ENVELOPE_E_HSM, "token \"%s\" cannot be set up: %s: %s", label, doing, hsm_ckr_name(rv));
}

static void pad_label(const char *label, CK_UTF8CHAR padded[32])
{
    memset(padded, ' ', 32);
    memcpy(padded, label, strlen(label));
}

/* The first slot with a token that is not initialised. */
static envelope_status find_blank(struct hsm_module *module, const char *label, CK_SLOT_ID *slot)
{
    CK_SLOT_ID slots[64];
    CK_UTF8CHAR padded[32];
    CK_ULONG count = sizeof slots / sizeof slots[0], every = 0;
    bool found = false;
    pad_label(label, padded);
    /* Asking for the number first makes SoftHSM add its blank slot. */
    CK_RV rv = HSM_CALL(module, C_GetSlotList, CK_TRUE, NULL, &every);
    if (rv == CKR_OK)
        rv = HSM_CALL(module, C_GetSlotList, CK_TRUE, slots, &count);
    if (rv != CKR_OK)
        return setup_failed(label, rv, "listing slots");
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        memset(&info, 0, sizeof info);
        if (HSM_CALL(module, C_GetTokenInfo, slots[i], &info) != CKR_OK)
            continue;
        bool initialised = (info.flags & CKF_TOKEN_INITIALIZED) != 0;
        if (initialised && memcmp(info.label, padded, sizeof padded) == 0)
            return error_raise(ENVELOPE_E_KEY_EXISTS, "a token \"%s\" is there already", label);
        if (!initialised && !found) {
            *slot = slots[i];
            found = true;
        }
    }
    if (!found)
        return error_raise(ENVELOPE_E_HSM_UNAVAILABLE, "module \"%s\" has no slot with a token that is not initialised",
                           module->path);
    return ENVELOPE_OK;
}

static CK_RV set_user_pin(struct hsm_module *module, CK_SLOT_ID slot, const char *so_pin, const char *user_pin,
                          const char **doing)
{
    CK_SESSION_HANDLE session = 0;
    *doing = "opening a session";
    CK_RV rv = HSM_CALL(module, C_OpenSession, slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session);
    if (rv != CKR_OK)
        return rv;
    *doing = "logging the security officer in";
    rv = HSM_CALL(module, C_Login, session, CKU_SO, (CK_UTF8CHAR *)(uintptr_t)so_pin, strlen(so_pin));
    if (rv == CKR_OK) {
        *doing = "setting the user's PIN";
        rv = HSM_CALL(module, C_InitPIN, session, (CK_UTF8CHAR *)(uintptr_t)user_pin, strlen(user_pin));
        CK_RV out = HSM_CALL(module, C_Logout, session);
        if (rv == CKR_OK && out != CKR_OK) {
            *doing = "logging the security officer out";
            rv = out;
        }
    }
    CK_RV closed = HSM_CALL(module, C_CloseSession, session);
    return rv != CKR_OK ? rv : closed;
}

envelope_status hsm_token_init(hsm *instance, const char *module_path, const char *label, const char *so_pin,
                               const char *user_pin)
{
    struct hsm_module *module = NULL;
    CK_UTF8CHAR padded[32];
    CK_SLOT_ID slot = 0;
    const char *doing = "initialising it";
    envelope_status status = hsm_enter();
    if (status != ENVELOPE_OK)
        return status;
    if (!label || !*label || strlen(label) > sizeof padded)
        return error_raise(ENVELOPE_E_ARGUMENT, "a token's label has 1 to 32 bytes");
    const char *path = module_path ? module_path : instance->settings->module;
    if (!path)
        return error_raise(ENVELOPE_E_HSM_MODULE, "no PKCS#11 module is named; set module in [hsm]");
    status = hsm_module_get(path, hsm_deadline(instance), &module);
    if (status == ENVELOPE_OK)
        status = find_blank(module, label, &slot);
    if (status != ENVELOPE_OK)
        return status;
    pad_label(label, padded);
    CK_RV rv = HSM_CALL(module, C_InitToken, slot, (CK_UTF8CHAR *)(uintptr_t)so_pin, strlen(so_pin), padded);
    if (rv == CKR_OK)
        rv = set_user_pin(module, slot, so_pin, user_pin, &doing);
    return rv == CKR_OK ? ENVELOPE_OK : setup_failed(label, rv, doing);
}
