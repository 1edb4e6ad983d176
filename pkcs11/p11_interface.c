/* The three exported functions: the lists of all others. */
#include "p11.h"

#include <stdbool.h>
#include <string.h>

#include "p11_3.h"
#include "vendor.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list);
/* p11-kit's newer header declares these two over a struct of its own with the same layout: hence other names in C. */
EXPORT CK_RV get_interface_list(struct p11_interface *interfaces, CK_ULONG *count) __asm__("C_GetInterfaceList");
EXPORT CK_RV get_interface(CK_UTF8CHAR *name, CK_VERSION *version, struct p11_interface **interface,
                           CK_FLAGS flags) __asm__("C_GetInterface");

#define FUNCTIONS_2_40                                                                                                 \
    .C_Initialize = C_Initialize, .C_Finalize = C_Finalize, .C_GetFunctionList = C_GetFunctionList,                    \
    .C_GetSlotList = C_GetSlotList, .C_GetSlotInfo = C_GetSlotInfo, .C_GetTokenInfo = C_GetTokenInfo,                  \
    .C_WaitForSlotEvent = C_WaitForSlotEvent, .C_GetMechanismList = C_GetMechanismList,                                \
    .C_GetMechanismInfo = C_GetMechanismInfo, .C_InitToken = C_InitToken, .C_InitPIN = C_InitPIN,                      \
    .C_SetPIN = C_SetPIN, .C_OpenSession = C_OpenSession, .C_CloseSession = C_CloseSession,                            \
    .C_CloseAllSessions = C_CloseAllSessions, .C_GetSessionInfo = C_GetSessionInfo,                                    \
    .C_GetOperationState = C_GetOperationState, .C_SetOperationState = C_SetOperationState, .C_Login = C_Login,        \
    .C_Logout = C_Logout, .C_CreateObject = C_CreateObject, .C_CopyObject = C_CopyObject,                              \
    .C_DestroyObject = C_DestroyObject, .C_GetObjectSize = C_GetObjectSize,                                            \
    .C_GetAttributeValue = C_GetAttributeValue, .C_SetAttributeValue = C_SetAttributeValue,                            \
    .C_FindObjectsInit = C_FindObjectsInit, .C_FindObjects = C_FindObjects, .C_FindObjectsFinal = C_FindObjectsFinal,  \
    .C_EncryptInit = C_EncryptInit, .C_Encrypt = C_Encrypt, .C_EncryptUpdate = C_EncryptUpdate,                        \
    .C_EncryptFinal = C_EncryptFinal, .C_DecryptInit = C_DecryptInit, .C_Decrypt = C_Decrypt,                          \
    .C_DecryptUpdate = C_DecryptUpdate, .C_DecryptFinal = C_DecryptFinal, .C_DigestInit = C_DigestInit,                \
    .C_Digest = C_Digest, .C_DigestUpdate = C_DigestUpdate, .C_DigestKey = C_DigestKey,                                \
    .C_DigestFinal = C_DigestFinal, .C_SignInit = C_SignInit, .C_Sign = C_Sign, .C_SignUpdate = C_SignUpdate,          \
    .C_SignFinal = C_SignFinal, .C_SignRecoverInit = C_SignRecoverInit, .C_SignRecover = C_SignRecover,                \
    .C_VerifyInit = C_VerifyInit, .C_Verify = C_Verify, .C_VerifyUpdate = C_VerifyUpdate,                              \
    .C_VerifyFinal = C_VerifyFinal, .C_VerifyRecoverInit = C_VerifyRecoverInit, .C_VerifyRecover = C_VerifyRecover,    \
    .C_DigestEncryptUpdate = C_DigestEncryptUpdate, .C_DecryptDigestUpdate = C_DecryptDigestUpdate,                    \
    .C_SignEncryptUpdate = C_SignEncryptUpdate, .C_DecryptVerifyUpdate = C_DecryptVerifyUpdate,                        \
    .C_GenerateKey = C_GenerateKey, .C_GenerateKeyPair = C_GenerateKeyPair, .C_WrapKey = C_WrapKey,                    \
    .C_UnwrapKey = C_UnwrapKey, .C_DeriveKey = C_DeriveKey, .C_SeedRandom = C_SeedRandom,                              \
    .C_GenerateRandom = C_GenerateRandom, .C_GetFunctionStatus = C_GetFunctionStatus,                                  \
    .C_CancelFunction = C_CancelFunction

static CK_FUNCTION_LIST functions_2_40 = {.version = {2, 40}, .C_GetInfo = C_GetInfo, FUNCTIONS_2_40};

static struct p11_functions_3_0 functions_3_0 = {
    .base = {.version = {3, 0}, .C_GetInfo = p11_get_info_3_0, FUNCTIONS_2_40},
    .get_interface_list = get_interface_list,
    .get_interface = get_interface,
    .login_user = C_LoginUser,
    .session_cancel = C_SessionCancel,
    .message = {{p11_no_message, p11_no_message, p11_no_message, p11_no_message, p11_no_message},
                {p11_no_message, p11_no_message, p11_no_message, p11_no_message, p11_no_message},
                {p11_no_message, p11_no_message, p11_no_message, p11_no_message, p11_no_message},
                {p11_no_message, p11_no_message, p11_no_message, p11_no_message, p11_no_message}},
};

static CK_UTF8CHAR standard_name[] = "PKCS 11";
static CK_UTF8CHAR vendor_name[] = ENVELOPE_KMS_INTERFACE;

/* The first is the default. */
static struct p11_interface interfaces_offered[] = {
    {standard_name, &functions_3_0, CKF_INTERFACE_FORK_SAFE},
    {standard_name, &functions_2_40, CKF_INTERFACE_FORK_SAFE},
    {vendor_name, (void *)&vendor_functions, CKF_INTERFACE_FORK_SAFE},
};
enum { INTERFACE_COUNT = sizeof interfaces_offered / sizeof interfaces_offered[0] };

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    if (!list)
        return CKR_ARGUMENTS_BAD;
    *list = &functions_2_40;
    return CKR_OK;
}

CK_RV get_interface_list(struct p11_interface *interfaces, CK_ULONG *count)
{
    if (!count)
        return CKR_ARGUMENTS_BAD;
    CK_ULONG room = *count;
    *count = INTERFACE_COUNT;
    if (!interfaces)
        return CKR_OK;
    if (room < INTERFACE_COUNT)
        return CKR_BUFFER_TOO_SMALL;
    memcpy(interfaces, interfaces_offered, sizeof interfaces_offered);
    return CKR_OK;
}

CK_RV get_interface(CK_UTF8CHAR *name, CK_VERSION *version, struct p11_interface **interface, CK_FLAGS flags)
{
    if (!interface)
        return CKR_ARGUMENTS_BAD;
    for (size_t i = 0; i < INTERFACE_COUNT; i++) {
        struct p11_interface *offered = &interfaces_offered[i];
        const CK_VERSION *has = offered->functions; /* every list begins with its version */
        bool ours = offered->name == vendor_name;
        /* Ours only by its name: who names none wants PKCS#11. */
        if (name ? strcmp((const char *)name, (const char *)offered->name) != 0 : ours)
            continue;
        /* Of ours, later minor versions have all that earlier ones had. */
        if (version &&
            (version->major != has->major || (ours ? version->minor > has->minor : version->minor != has->minor)))
            continue;
        if (flags & ~offered->flags)
            continue;
        *interface = offered;
        return CKR_OK;
    }
    return CKR_FUNCTION_FAILED;
}
