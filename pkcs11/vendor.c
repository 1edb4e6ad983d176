/* The vendor interface: <envelope/pkcs11-kms.h>. */
#include "vendor.h"

#include <string.h>

#include "base/error.h"

CK_RV vendor_prepare(struct call *call, struct operation *operation, enum operation_kind kind,
                     const CK_ENVELOPE_KMS_PARAMS *params, CK_OBJECT_HANDLE key)
{
    CK_ENVELOPE_KMS_PARAMS copy = params ? *params : (CK_ENVELOPE_KMS_PARAMS){0};
    CK_MECHANISM mechanism = {.mechanism = CKM_ENVELOPE_KMS_WRAP, .pParameter = &copy, .ulParameterLen = sizeof copy};
    return crypt_prepare(call, operation, kind, &mechanism, key);
}

static CK_RV run(struct call *call, const struct operation *from, const struct operation *to, const uint8_t *blob,
                 size_t length, CK_BYTE *out, CK_ULONG *out_length, CK_BBOOL *plaintext_left)
{
    struct backend_call request = {.op = BACKEND_REWRAP,
                                   .key = from->key_id,
                                   .key_to = to->key_id,
                                   .has_aad = from->has_aad,
                                   .aad = from->aad.bytes,
                                   .aad_length = from->aad.length,
                                   .has_aad_to = to->has_aad,
                                   .aad_to = to->aad.bytes,
                                   .aad_to_length = to->aad.length,
                                   .in = blob,
                                   .in_length = length,
                                   .dry_run = from->dry_run || to->dry_run};
    CK_RV rv = call_run(call, &request);
    if (rv == CKR_OK && plaintext_left)
        *plaintext_left = request.plaintext_left ? CK_TRUE : CK_FALSE;
    if (rv == CKR_OK)
        rv = call_output(request.out.bytes, request.out.length, out, out_length);
    backend_call_clear(&request);
    return rv;
}

static CK_RV rewrap(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key_from, const CK_ENVELOPE_KMS_PARAMS *from_params,
                    CK_OBJECT_HANDLE key_to, const CK_ENVELOPE_KMS_PARAMS *to_params, const unsigned char *blob,
                    unsigned long blob_len, unsigned char *out, unsigned long *out_len, CK_BBOOL *plaintext_left)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    const struct backend *backend = call.token->backend;
    if (!blob || !out_len)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    if (!blob_len || blob_len > backend->max_ciphertext)
        return call_leave(&call,
                          call_refuse(CKR_ENCRYPTED_DATA_LEN_RANGE, "%lu bytes are no blob of this token", blob_len));
    if (!out) {
        *out_len = backend->max_ciphertext;
        return call_leave(&call, CKR_OK);
    }
    struct operation from, to;
    rv = vendor_prepare(&call, &from, OPERATION_DECRYPT, from_params, key_from);
    if (rv != CKR_OK)
        return call_leave(&call, rv);
    rv = vendor_prepare(&call, &to, OPERATION_ENCRYPT, to_params, key_to);
    if (rv == CKR_OK) {
        rv = run(&call, &from, &to, blob, blob_len, out, out_len, plaintext_left);
        operation_clear(&to);
    }
    operation_clear(&from);
    return call_leave(&call, rv);
}

static CK_RV last_message(CK_SESSION_HANDLE session, CK_ENVELOPE_KMS_MESSAGE *message, unsigned long size)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!message || size != sizeof *message)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    *message = call.session->message;
    return call_leave(&call, CKR_OK);
}

static const char *last_text(void)
{
    return error_text();
}

const CK_ENVELOPE_KMS_FUNCTIONS vendor_functions = {
    .version = {1, 1},
    .rewrap = rewrap,
    .last_message = last_message,
    .last_text = last_text,
    .generate_data_key = vendor_generate_data_key,
    .get_versions = vendor_get_versions,
    .rotate_key = vendor_rotate_key,
    .set_min_versions = vendor_set_min_versions,
    .crypt_many = vendor_crypt_many,
    .batch_size = vendor_batch_size,
};
