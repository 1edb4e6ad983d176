/*
 * What a key service does not do. These say so, as the standard asks: sign, verify, digest and derive are for programs
 * with libcrypto at hand; tokens are set up in kms.cnf and users in the service, not by C_InitToken and C_InitPIN.
 */
#include "bridge.h"
#include "p11_3.h"

#define UNUSED __attribute__((unused))

static CK_RV refuse(CK_RV rv, const char *function)
{
    struct bridge *bridge = bridge_ref();
    if (!bridge)
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    bridge_unref(bridge);
    call_refuse(
        rv,
        "%s is not supported: keys of a service encrypt and decrypt; tokens are set up in kms.cnf, users in the "
        "service",
        function);
    call_log(rv);
    return rv;
}

CK_RV p11_no_message(void)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, "a message function of PKCS#11 3.0");
}

CK_RV C_InitToken(UNUSED CK_SLOT_ID slot_id, UNUSED CK_BYTE *pin, UNUSED CK_ULONG pin_len, UNUSED CK_BYTE *label)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_InitPIN(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *pin, UNUSED CK_ULONG pin_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_SetPIN(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *old_pin, UNUSED CK_ULONG old_len,
               UNUSED CK_BYTE *new_pin, UNUSED CK_ULONG new_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_GetOperationState(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *operation_state,
                          UNUSED CK_ULONG *operation_state_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_SetOperationState(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *operation_state,
                          UNUSED CK_ULONG operation_state_len, UNUSED CK_OBJECT_HANDLE encryption_key,
                          UNUSED CK_OBJECT_HANDLE authentiation_key)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_CopyObject(UNUSED CK_SESSION_HANDLE session, UNUSED CK_OBJECT_HANDLE object, UNUSED CK_ATTRIBUTE *templ,
                   UNUSED CK_ULONG count, UNUSED CK_OBJECT_HANDLE *new_object)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_DigestInit(UNUSED CK_SESSION_HANDLE session, UNUSED CK_MECHANISM *mechanism)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_Digest(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *data, UNUSED CK_ULONG data_len, UNUSED CK_BYTE *digest,
               UNUSED CK_ULONG *digest_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_DigestUpdate(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *part, UNUSED CK_ULONG part_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_DigestKey(UNUSED CK_SESSION_HANDLE session, UNUSED CK_OBJECT_HANDLE key)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_DigestFinal(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *digest, UNUSED CK_ULONG *digest_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_SignInit(UNUSED CK_SESSION_HANDLE session, UNUSED CK_MECHANISM *mechanism, UNUSED CK_OBJECT_HANDLE key)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_Sign(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *data, UNUSED CK_ULONG data_len,
             UNUSED CK_BYTE *signature, UNUSED CK_ULONG *signature_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_SignUpdate(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *part, UNUSED CK_ULONG part_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_SignFinal(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *signature, UNUSED CK_ULONG *signature_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_SignRecoverInit(UNUSED CK_SESSION_HANDLE session, UNUSED CK_MECHANISM *mechanism, UNUSED CK_OBJECT_HANDLE key)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_SignRecover(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *data, UNUSED CK_ULONG data_len,
                    UNUSED CK_BYTE *signature, UNUSED CK_ULONG *signature_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_VerifyInit(UNUSED CK_SESSION_HANDLE session, UNUSED CK_MECHANISM *mechanism, UNUSED CK_OBJECT_HANDLE key)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_Verify(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *data, UNUSED CK_ULONG data_len,
               UNUSED CK_BYTE *signature, UNUSED CK_ULONG signature_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_VerifyUpdate(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *part, UNUSED CK_ULONG part_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_VerifyFinal(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *signature, UNUSED CK_ULONG signature_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_VerifyRecoverInit(UNUSED CK_SESSION_HANDLE session, UNUSED CK_MECHANISM *mechanism, UNUSED CK_OBJECT_HANDLE key)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_VerifyRecover(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *signature, UNUSED CK_ULONG signature_len,
                      UNUSED CK_BYTE *data, UNUSED CK_ULONG *data_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_DigestEncryptUpdate(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *part, UNUSED CK_ULONG part_len,
                            UNUSED CK_BYTE *encrypted_part, UNUSED CK_ULONG *encrypted_part_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_DecryptDigestUpdate(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *encrypted_part,
                            UNUSED CK_ULONG encrypted_part_len, UNUSED CK_BYTE *part, UNUSED CK_ULONG *part_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_SignEncryptUpdate(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *part, UNUSED CK_ULONG part_len,
                          UNUSED CK_BYTE *encrypted_part, UNUSED CK_ULONG *encrypted_part_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_DecryptVerifyUpdate(UNUSED CK_SESSION_HANDLE session, UNUSED CK_BYTE *encrypted_part,
                            UNUSED CK_ULONG encrypted_part_len, UNUSED CK_BYTE *part, UNUSED CK_ULONG *part_len)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_DeriveKey(UNUSED CK_SESSION_HANDLE session, UNUSED CK_MECHANISM *mechanism, UNUSED CK_OBJECT_HANDLE base_key,
                  UNUSED CK_ATTRIBUTE *templ, UNUSED CK_ULONG attribute_count, UNUSED CK_OBJECT_HANDLE *key)
{
    return refuse(CKR_FUNCTION_NOT_SUPPORTED, __func__);
}

CK_RV C_GetFunctionStatus(UNUSED CK_SESSION_HANDLE session)
{
    return refuse(CKR_FUNCTION_NOT_PARALLEL, __func__);
}

CK_RV C_CancelFunction(UNUSED CK_SESSION_HANDLE session)
{
    return refuse(CKR_FUNCTION_NOT_PARALLEL, __func__);
}
