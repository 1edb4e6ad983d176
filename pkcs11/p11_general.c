/* General purpose, slot and token management. */
#include "bridge.h"
#include "p11_3.h"

#include <stdio.h>
#include <string.h>
#include <openssl/evp.h>

#include "base/error.h"
#include "base/text.h"

enum { RSA_BITS_MIN = 2048, RSA_BITS_MAX = 4096, SERIAL_BYTES = 8 };

static const char manufacturer[] = "Envelope";

/* Fixed-width, blank-padded, cut at a whole UTF-8 character. */
static void put_padded(CK_UTF8CHAR *to, size_t width, const char *text)
{
    size_t length = strlen(text);
    if (length > width)
        for (length = width; length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80; length--)
            ;
    memset(to, ' ', width);
    memcpy(to, text, length);
}

CK_RV C_Initialize(void *args)
{
    return bridge_start(args);
}

CK_RV C_Finalize(void *reserved)
{
    return reserved ? CKR_ARGUMENTS_BAD : bridge_stop();
}

static CK_RV get_info(CK_INFO *info, CK_VERSION version)
{
    struct bridge *bridge = bridge_ref();
    if (!bridge)
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    bridge_unref(bridge);
    if (!info)
        return CKR_ARGUMENTS_BAD;
    memset(info, 0, sizeof *info);
    info->cryptokiVersion = version;
    info->libraryVersion = (CK_VERSION){0, 1};
    put_padded(info->manufacturerID, sizeof info->manufacturerID, manufacturer);
    put_padded(info->libraryDescription, sizeof info->libraryDescription, "Key services as tokens");
    return CKR_OK;
}

CK_RV C_GetInfo(CK_INFO *info)
{
    return get_info(info, (CK_VERSION){2, 40});
}

CK_RV p11_get_info_3_0(CK_INFO *info)
{
    return get_info(info, (CK_VERSION){3, 0});
}

CK_RV C_GetSlotList(CK_BBOOL token_present, CK_SLOT_ID *slots, CK_ULONG *count)
{
    (void)token_present; /* every slot has its token, for good */
    struct bridge *bridge = bridge_ref();
    if (!bridge)
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    CK_RV rv = CKR_OK;
    if (!count) {
        rv = CKR_ARGUMENTS_BAD;
    } else {
        CK_ULONG room = *count;
        *count = bridge->token_count;
        if (slots && room < bridge->token_count)
            rv = CKR_BUFFER_TOO_SMALL;
        for (size_t i = 0; slots && rv == CKR_OK && i < bridge->token_count; i++)
            slots[i] = i + 1;
    }
    bridge_unref(bridge);
    return rv;
}

CK_RV C_GetSlotInfo(CK_SLOT_ID slot, CK_SLOT_INFO *info)
{
    struct call call;
    CK_RV rv = call_enter_slot(&call, slot);
    if (rv != CKR_OK)
        return rv;
    if (!info)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    memset(info, 0, sizeof *info);
    put_padded(info->slotDescription, sizeof info->slotDescription, call.token->settings->label);
    put_padded(info->manufacturerID, sizeof info->manufacturerID, manufacturer);
    info->flags = CKF_TOKEN_PRESENT | CKF_HW_SLOT;
    return call_leave(&call, CKR_OK);
}

/* Stable for one configuration, without asking the service: a digest of what leads to it. */
static void put_serial(CK_UTF8CHAR to[16], const struct token_settings *settings)
{
    const char *parts[] = {settings->label,   settings->backend, settings->region, settings->endpoint,
                           settings->profile, settings->address, settings->mount,  settings->name_space};
    struct buffer text = {0};
    uint8_t digest[EVP_MAX_MD_SIZE] = {0};
    char digits[2 * SERIAL_BYTES + 1];
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        buffer_append(&text, parts[i] ? parts[i] : "", parts[i] ? strlen(parts[i]) + 1 : 1);
    if (settings->key_ring) /* last, and only if there: older tokens keep their number */
        buffer_append_text(&text, settings->key_ring);
    OSSL_LIB_CTX *context = libctx_private();
    EVP_MD *method = context ? EVP_MD_fetch(context, "SHA256", NULL) : NULL;
    if (method)
        (void)EVP_Digest(text.bytes, text.length, digest, NULL, method, NULL);
    EVP_MD_free(method);
    buffer_clear(&text);
    text_hex(digest, SERIAL_BYTES, digits);
    memcpy(to, digits, 2 * SERIAL_BYTES);
}

CK_RV C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    struct call call;
    CK_RV rv = call_enter_slot(&call, slot);
    if (rv != CKR_OK)
        return rv;
    if (!info)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    const struct token *token = call.token;
    memset(info, 0, sizeof *info);
    put_padded(info->label, sizeof info->label, token->settings->label);
    put_padded(info->manufacturerID, sizeof info->manufacturerID, manufacturer);
    put_padded(info->model, sizeof info->model, token->backend->model);
    put_serial(info->serialNumber, token->settings);
    info->flags = CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED | (token->backend->random ? CKF_RNG : 0);
    if (!token->settings->create && !token->settings->destroy && !token->settings->rotate)
        info->flags |= CKF_WRITE_PROTECTED;
    info->ulMaxSessionCount = SESSIONS_MAX;
    info->ulMaxRwSessionCount = SESSIONS_MAX;
    info->ulSessionCount = session_count(call.bridge, slot, false);
    info->ulRwSessionCount = session_count(call.bridge, slot, true);
    info->ulMaxPinLen = 1 << 14;
    info->ulMinPinLen = 0;
    info->ulTotalPublicMemory = info->ulFreePublicMemory = CK_UNAVAILABLE_INFORMATION;
    info->ulTotalPrivateMemory = info->ulFreePrivateMemory = CK_UNAVAILABLE_INFORMATION;
    memset(info->utcTime, ' ', sizeof info->utcTime);
    return call_leave(&call, CKR_OK);
}

struct mechanism {
    CK_MECHANISM_TYPE type;
    CK_MECHANISM_INFO info;
};

/*
 * What the token does; returns how many. Making keys is listed where kms.cnf does not allow it, too: a program that
 * asks is told that the token is write-protected, not that the service cannot.
 */
static size_t mechanisms_of(const struct token *token, struct mechanism to[5])
{
    const CK_FLAGS both = CKF_ENCRYPT | CKF_DECRYPT | CKF_WRAP | CKF_UNWRAP;
    size_t count = 0;
    to[count++] = (struct mechanism){CKM_ENVELOPE_KMS_WRAP, {16, 32, CKF_HW | both}};
    if (token->backend->oaep_sha1 || token->backend->oaep_sha256)
        to[count++] = (struct mechanism){CKM_RSA_PKCS_OAEP, {RSA_BITS_MIN, RSA_BITS_MAX, CKF_HW | both}};
    to[count++] = (struct mechanism){CKM_AES_KEY_GEN, {16, 32, CKF_HW | CKF_GENERATE}};
    if (token->backend->random)
        to[count++] = (struct mechanism){CKM_GENERIC_SECRET_KEY_GEN, {8, 8 * OBJECTS_VALUE_MAX, CKF_HW | CKF_GENERATE}};
    if (token->backend->oaep_sha1 || token->backend->oaep_sha256)
        to[count++] =
            (struct mechanism){CKM_RSA_PKCS_KEY_PAIR_GEN, {RSA_BITS_MIN, RSA_BITS_MAX, CKF_HW | CKF_GENERATE_KEY_PAIR}};
    return count;
}

CK_RV C_GetMechanismList(CK_SLOT_ID slot, CK_MECHANISM_TYPE *types, CK_ULONG *count)
{
    struct call call;
    struct mechanism mechanisms[5];
    CK_RV rv = call_enter_slot(&call, slot);
    if (rv != CKR_OK)
        return rv;
    if (!count)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    CK_ULONG room = *count;
    *count = mechanisms_of(call.token, mechanisms);
    if (types && room < *count)
        return call_leave(&call, CKR_BUFFER_TOO_SMALL);
    for (size_t i = 0; types && i < *count; i++)
        types[i] = mechanisms[i].type;
    return call_leave(&call, CKR_OK);
}

CK_RV C_GetMechanismInfo(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
    struct call call;
    struct mechanism mechanisms[5];
    CK_RV rv = call_enter_slot(&call, slot);
    if (rv != CKR_OK)
        return rv;
    if (!info)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    size_t count = mechanisms_of(call.token, mechanisms);
    for (size_t i = 0; i < count; i++)
        if (mechanisms[i].type == type) {
            *info = mechanisms[i].info;
            return call_leave(&call, CKR_OK);
        }
    return call_leave(&call, CKR_MECHANISM_INVALID);
}

/* Slots never change: there is nothing to wait for. */
CK_RV C_WaitForSlotEvent(CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved)
{
    struct bridge *bridge = bridge_ref();
    if (!bridge)
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    bridge_unref(bridge);
    if (!slot || reserved)
        return CKR_ARGUMENTS_BAD;
    return flags & CKF_DONT_BLOCK ? CKR_NO_EVENT : CKR_FUNCTION_NOT_SUPPORTED;
}
