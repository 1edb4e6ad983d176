#include "bridge.h"

#include <string.h>
#include <openssl/crypto.h>

#include "base/error.h"
#include "base/text.h"

/* Longer AAD than this is a mistake; ours has some hundred bytes. */
enum { AAD_MAX = 1 << 16, SHA1_SIZE = 20, SHA256_SIZE = 32 };

static CK_RV take_kms_params(const CK_MECHANISM *mechanism, struct operation *operation)
{
    CK_ENVELOPE_KMS_PARAMS params;
    operation->cipher = BACKEND_AEAD;
    if (!mechanism->pParameter && !mechanism->ulParameterLen)
        return CKR_OK;
    if (!mechanism->pParameter || mechanism->ulParameterLen != sizeof params)
        return call_refuse(CKR_MECHANISM_PARAM_INVALID, "the parameter must be NULL or a CK_ENVELOPE_KMS_PARAMS");
    memcpy(&params, mechanism->pParameter, sizeof params);
    if ((!params.pAAD && params.ulAADLen) || params.ulAADLen > AAD_MAX || params.flags & ~CKF_ENVELOPE_KMS_DRY_RUN)
        return call_refuse(CKR_MECHANISM_PARAM_INVALID,
                           "CK_ENVELOPE_KMS_PARAMS: no AAD at its pointer, AAD over %d "
                           "bytes, or an unknown flag",
                           (int)AAD_MAX);
    operation->dry_run = params.flags & CKF_ENVELOPE_KMS_DRY_RUN;
    operation->has_aad = params.ulAADLen > 0;
    if (operation->has_aad)
        buffer_append(&operation->aad, params.pAAD, params.ulAADLen);
    return buffer_ok(&operation->aad) ? CKR_OK : CKR_HOST_MEMORY;
}

static CK_RV take_oaep_params(const struct backend *backend, const CK_MECHANISM *mechanism, struct operation *operation)
{
    CK_RSA_PKCS_OAEP_PARAMS params;
    if (!mechanism->pParameter || mechanism->ulParameterLen != sizeof params)
        return call_refuse(CKR_MECHANISM_PARAM_INVALID, "the parameter must be a CK_RSA_PKCS_OAEP_PARAMS");
    memcpy(&params, mechanism->pParameter, sizeof params);
    bool sha1 = params.hashAlg == CKM_SHA_1 && params.mgf == CKG_MGF1_SHA1 && backend->oaep_sha1;
    bool sha256 = params.hashAlg == CKM_SHA256 && params.mgf == CKG_MGF1_SHA256 && backend->oaep_sha256;
    if ((!sha1 && !sha256) || params.ulSourceDataLen)
        return call_refuse(CKR_MECHANISM_PARAM_INVALID, "the service does RSA-OAEP with SHA-256 or SHA-1 in both "
                                                        "places and without a label only");
    operation->cipher = sha256 ? BACKEND_OAEP_SHA256 : BACKEND_OAEP_SHA1;
    return CKR_OK;
}

static CK_RV refuse_handle(struct call *call, CK_OBJECT_HANDLE handle)
{
    pthread_mutex_lock(&call->bridge->lock);
    bool session_key = objects_find(&call->bridge->objects[call->session->slot - 1], handle);
    pthread_mutex_unlock(&call->bridge->lock);
    return session_key ? call_refuse(CKR_KEY_FUNCTION_NOT_PERMITTED, "a session key can be wrapped, no more")
                       : call_refuse(CKR_KEY_HANDLE_INVALID, "there is no such key on this token now");
}

CK_RV crypt_key_id(struct call *call, CK_OBJECT_HANDLE handle, char **id)
{
    enum keys_part part;
    const struct backend_key *key = keys_acquire(call->token->keys, handle, &part);
    if (!key)
        return refuse_handle(call, handle);
    *id = text_copy(key->id);
    keys_release(call->token->keys);
    return *id ? CKR_OK : CKR_HOST_MEMORY;
}

/* The key must be one of the service's, of the mechanism's kind, and its right half. */
static CK_RV take_key(struct call *call, struct operation *operation, enum operation_kind kind, CK_OBJECT_HANDLE handle)
{
    bool oaep = operation->cipher != BACKEND_AEAD;
    CK_RV rv = CKR_OK;
    enum keys_part part;
    const struct backend_key *key = keys_acquire(call->token->keys, handle, &part);
    if (!key)
        return refuse_handle(call, handle);
    bool rsa = key->type == BACKEND_KEY_RSA;
    if (oaep ? !rsa : rsa && !call->token->backend->rsa_aead)
        rv = call_refuse(CKR_KEY_TYPE_INCONSISTENT, "the key %s is of another kind than the mechanism", key->label);
    else if (rsa && (part == KEYS_PUBLIC) != (kind == OPERATION_ENCRYPT))
        rv = call_refuse(CKR_KEY_FUNCTION_NOT_PERMITTED, "RSA encrypts with the public and decrypts with the private "
                                                         "key object");
    else if (kind == OPERATION_ENCRYPT ? !key->can_encrypt : !key->can_decrypt)
        rv = call_refuse(CKR_KEY_FUNCTION_NOT_PERMITTED, "the key %s is not meant for this", key->label);
    operation->modulus = rsa ? (key->bits + 7) / 8 : 0;
    if (rv == CKR_OK && !(operation->key_id = text_copy(key->id)))
        rv = CKR_HOST_MEMORY;
    keys_release(call->token->keys);
    return rv;
}

CK_RV crypt_prepare(struct call *call, struct operation *operation, enum operation_kind kind,
                    const CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    const struct backend *backend = call->token->backend;
    CK_RV rv;
    *operation = (struct operation){.key = key};
    if (mechanism->mechanism == CKM_ENVELOPE_KMS_WRAP)
        rv = take_kms_params(mechanism, operation);
    else if (mechanism->mechanism == CKM_RSA_PKCS_OAEP && (backend->oaep_sha1 || backend->oaep_sha256))
        rv = take_oaep_params(backend, mechanism, operation);
    else
        rv = call_refuse(CKR_MECHANISM_INVALID, "the mechanism 0x%lx is none of this token's (C_GetMechanismList)",
                         mechanism->mechanism);
    if (rv == CKR_OK)
        rv = take_key(call, operation, kind, key);
    if (rv != CKR_OK)
        operation_clear(operation);
    else
        operation->kind = kind;
    return rv;
}

static size_t oaep_room(const struct operation *operation)
{
    size_t digest = operation->cipher == BACKEND_OAEP_SHA1 ? SHA1_SIZE : SHA256_SIZE;
    return operation->modulus - 2 * digest - 2;
}

size_t crypt_bound(const struct call *call, const struct operation *operation, size_t length)
{
    const struct backend *backend = call->token->backend;
    if (operation->dry_run)
        return 0;
    if (operation->cipher != BACKEND_AEAD)
        return operation->kind == OPERATION_ENCRYPT ? operation->modulus : oaep_room(operation);
    if (operation->kind == OPERATION_ENCRYPT)
        return backend->max_ciphertext;
    return length < backend->max_plaintext ? length : backend->max_plaintext;
}

CK_RV crypt_check_length(const struct call *call, const struct operation *operation, size_t length)
{
    const struct backend *backend = call->token->backend;
    bool rsa = operation->cipher != BACKEND_AEAD;
    if (operation->kind == OPERATION_ENCRYPT) {
        size_t most = rsa ? oaep_room(operation) : backend->max_plaintext;
        if (length >= 1 && length <= most)
            return CKR_OK;
        return call_refuse(CKR_DATA_LEN_RANGE, "%zu bytes to encrypt; the key takes 1 to %zu", length, most);
    }
    if (rsa ? length == operation->modulus : length >= 1 && length <= backend->max_ciphertext)
        return CKR_OK;
    return call_refuse(CKR_ENCRYPTED_DATA_LEN_RANGE, "%zu bytes are no ciphertext of this key", length);
}

CK_RV crypt_run(struct call *call, struct operation *operation, const uint8_t *in, size_t length)
{
    CK_RV rv = crypt_check_length(call, operation, length);
    if (rv != CKR_OK)
        return rv;
    struct backend_call request = {.op = operation->kind == OPERATION_ENCRYPT ? BACKEND_ENCRYPT : BACKEND_DECRYPT,
                                   .key = operation->key_id,
                                   .cipher = operation->cipher,
                                   .has_aad = operation->has_aad,
                                   .aad = operation->aad.bytes,
                                   .aad_length = operation->aad.length,
                                   .in = in,
                                   .in_length = length,
                                   .dry_run = operation->dry_run};
    rv = call_run(call, &request);
    if (rv == CKR_OK) {
        buffer_move(&operation->result, &request.out);
        operation->has_result = true;
    }
    backend_call_clear(&request);
    return rv;
}
