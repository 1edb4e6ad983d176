/* Of the vendor interface: data keys made by the service, and the versions of its keys. */
#include "vendor.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"

/* --- data keys --- */

/* Random bytes of the service, encrypted by it: the plaintext passes through here, in locked memory. */
static CK_RV make_here(struct call *call, struct backend_call *request)
{
    int64_t deadline = clock_monotonic() + call->token->settings->deadline;
    struct backend_call random = {.op = BACKEND_RANDOM, .length = request->length};
    CK_RV rv = CKR_FUNCTION_NOT_SUPPORTED;
    if (call->token->backend->random)
        rv = call_run_until(call, &random, deadline);
    else
        error_raise(ENVELOPE_E_WRAP_MECHANISM, "[token %s]: the service makes neither data keys nor random numbers",
                    call->token->settings->label);
    if (rv == CKR_OK) {
        request->op = BACKEND_ENCRYPT;
        request->in = random.out.bytes;
        request->in_length = random.out.length;
        rv = call_run_until(call, request, deadline);
        request->in = NULL;
    }
    if (rv == CKR_OK && request->wants_plaintext && !request->dry_run)
        buffer_move(&request->plaintext, &random.out);
    backend_call_clear(&random);
    return rv;
}

static CK_RV data_key(struct call *call, const struct operation *operation, size_t length, CK_BYTE *plaintext,
                      CK_BYTE *blob, CK_ULONG *blob_length, CK_BBOOL *made_here)
{
    struct backend_call request = {.op = BACKEND_DATA_KEY,
                                   .key = operation->key_id,
                                   .has_aad = operation->has_aad,
                                   .aad = operation->aad.bytes,
                                   .aad_length = operation->aad.length,
                                   .length = length,
                                   .wants_plaintext = plaintext != NULL,
                                   .dry_run = operation->dry_run};
    bool there = backend_offers(call->token->backend, &request);
    CK_RV rv = there ? call_run(call, &request) : make_here(call, &request);
    bool wanted = plaintext && !operation->dry_run;
    /* Backends look at this themselves; a caller must never take what was in its own buffer for a key. */
    if (rv == CKR_OK && wanted && request.plaintext.length != length) {
        error_raise(ENVELOPE_E_HSM, "[token %s]: a data key of %zu bytes was asked for, and %zu came",
                    call->token->settings->label, length, request.plaintext.length);
        rv = CKR_DEVICE_ERROR;
    }
    if (rv == CKR_OK && made_here)
        *made_here = there ? CK_FALSE : CK_TRUE;
    if (rv == CKR_OK)
        rv = call_output(request.out.bytes, request.out.length, blob, blob_length);
    if (rv == CKR_OK && wanted)
        memcpy(plaintext, request.plaintext.bytes, length);
    backend_call_clear(&request);
    return rv;
}

CK_RV vendor_generate_data_key(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, const CK_ENVELOPE_KMS_PARAMS *params,
                               unsigned long plaintext_len, unsigned char *plaintext, unsigned char *blob,
                               unsigned long *blob_len, CK_BBOOL *made_here)
{
    struct call call;
    struct operation operation;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    const struct backend *backend = call.token->backend;
    if (!blob_len)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    if (!plaintext_len || plaintext_len > backend->max_plaintext)
        return call_leave(&call, call_refuse(CKR_DATA_LEN_RANGE, "a data key of %lu bytes; 1 to %zu can be made",
                                             plaintext_len, backend->max_plaintext));
    if (!blob) {
        *blob_len = backend->max_ciphertext;
        return call_leave(&call, CKR_OK);
    }
    rv = vendor_prepare(&call, &operation, OPERATION_ENCRYPT, params, key);
    if (rv != CKR_OK)
        return call_leave(&call, rv);
    rv = data_key(&call, &operation, plaintext_len, plaintext, blob, blob_len, made_here);
    operation_clear(&operation);
    return call_leave(&call, rv);
}

/* --- versions --- */

static CK_ULONG number_of(uint64_t value)
{
    return value < ULONG_MAX ? (CK_ULONG)value : CK_UNAVAILABLE_INFORMATION;
}

CK_RV vendor_get_versions(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, CK_ENVELOPE_KMS_VERSIONS *versions,
                          unsigned long size)
{
    struct call call;
    struct backend_call request = {.op = BACKEND_VERSIONS};
    char *id = NULL;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!versions || size != sizeof *versions)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    rv = crypt_key_id(&call, key, &id);
    request.key = id;
    if (rv == CKR_OK)
        rv = call_run(&call, &request);
    if (rv == CKR_OK)
        *versions = (CK_ENVELOPE_KMS_VERSIONS){.latest = number_of(request.versions.latest),
                                               .min_decryption = number_of(request.versions.min_decryption),
                                               .min_encryption = number_of(request.versions.min_encryption)};
    backend_call_clear(&request);
    free(id);
    return call_leave(&call, rv);
}

/* Changing a key's versions decides which blobs open: as making and destroying keys, it has to be allowed here too. */
static CK_RV may_rotate(const struct call *call)
{
    if (!(call->session->flags & CKF_RW_SESSION))
        return call_refuse(CKR_SESSION_READ_ONLY, "the versions of a key are changed in a read-write session only");
    if (!call->token->settings->rotate)
        return call_refuse(CKR_ACTION_PROHIBITED,
                           "[token %s] does not allow the versions of keys to be changed (rotate = yes)",
                           call->token->settings->label);
    return CKR_OK;
}

static CK_RV change(struct call *call, CK_OBJECT_HANDLE key, struct backend_call *request)
{
    char *id = NULL;
    CK_RV rv = may_rotate(call);
    if (rv == CKR_OK)
        rv = crypt_key_id(call, key, &id);
    request->key = id;
    if (rv == CKR_OK)
        rv = call_run(call, request);
    backend_call_clear(request);
    free(id);
    return rv;
}

CK_RV vendor_rotate_key(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, unsigned long *new_version)
{
    struct call call;
    struct backend_call request = {.op = BACKEND_ROTATE};
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    rv = change(&call, key, &request);
    if (rv == CKR_OK && new_version)
        *new_version = number_of(request.versions.latest);
    return call_leave(&call, rv);
}

CK_RV vendor_set_min_versions(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, unsigned long min_decryption,
                              unsigned long min_encryption)
{
    struct call call;
    struct backend_call request = {.op = BACKEND_SET_VERSIONS};
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    bool keep_one = min_decryption == CK_UNAVAILABLE_INFORMATION,
         keep_other = min_encryption == CK_UNAVAILABLE_INFORMATION;
    request.versions.min_decryption = keep_one ? BACKEND_KEEP : min_decryption;
    request.versions.min_encryption = keep_other ? BACKEND_KEEP : min_encryption;
    if ((keep_one && keep_other) || min_decryption == 0)
        return call_leave(&call, call_refuse(CKR_ARGUMENTS_BAD, "versions are numbered from 1, and one limit at least "
                                                                "must be given"));
    /* Both known here: what the service would refuse anyway, in our words. */
    if (!keep_one && !keep_other && min_encryption && min_encryption < min_decryption)
        return call_leave(&call, call_refuse(CKR_ARGUMENTS_BAD,
                                             "min_encryption %lu is below min_decryption %lu: what is encrypted would "
                                             "not open",
                                             min_encryption, min_decryption));
    return call_leave(&call, change(&call, key, &request));
}
