/* Encryption and decryption: one part, or gathered from several. Random numbers. */
#include "bridge.h"

#include <string.h>
#include <openssl/crypto.h>

#include "base/error.h"

enum { RANDOM_MAX = 1 << 16 };

static CK_RV begin(CK_SESSION_HANDLE session, enum operation_kind kind, const CK_MECHANISM *mechanism,
                   CK_OBJECT_HANDLE key)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    struct operation *operation = kind == OPERATION_ENCRYPT ? &call.session->encrypt : &call.session->decrypt;
    if (!mechanism) {
        /* PKCS#11 3.0: no mechanism cancels what is under way. */
        rv = operation->kind ? CKR_OK : CKR_ARGUMENTS_BAD;
        operation_clear(operation);
        return call_leave(&call, rv);
    }
    if (operation->kind)
        return call_leave(&call, CKR_OPERATION_ACTIVE);
    return call_leave(&call, crypt_prepare(&call, operation, kind, mechanism, key));
}

/* The second of two calls, after CKR_BUFFER_TOO_SMALL, must not ask the service again. */
static bool is_same_input(const struct operation *operation, const uint8_t *in, size_t length)
{
    return operation->has_result && operation->gathered.length == length &&
           (!length || CRYPTO_memcmp(operation->gathered.bytes, in, length) == 0);
}

static CK_RV end(struct operation *operation, CK_RV rv)
{
    operation_clear(operation);
    return rv;
}

/* Run on what is gathered, if that was not done yet, and hand out; the operation ends unless room was missing. */
static CK_RV finish(struct call *call, struct operation *operation, CK_BYTE *out, CK_ULONG *out_length)
{
    CK_RV rv = CKR_OK;
    if (!out) {
        *out_length =
            operation->has_result ? operation->result.length : crypt_bound(call, operation, operation->gathered.length);
        return CKR_OK;
    }
    if (!operation->has_result)
        rv = crypt_run(call, operation, operation->gathered.bytes, operation->gathered.length);
    if (rv == CKR_OK)
        rv = call_output(operation->result.bytes, operation->result.length, out, out_length);
    if (rv != CKR_BUFFER_TOO_SMALL)
        operation_clear(operation);
    return rv;
}

static CK_RV one_part(CK_SESSION_HANDLE session, enum operation_kind kind, const CK_BYTE *in, CK_ULONG length,
                      CK_BYTE *out, CK_ULONG *out_length)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    struct operation *operation = kind == OPERATION_ENCRYPT ? &call.session->encrypt : &call.session->decrypt;
    if (!operation->kind)
        return call_leave(&call, CKR_OPERATION_NOT_INITIALIZED);
    if (operation->multipart)
        return call_leave(&call, end(operation, CKR_OPERATION_ACTIVE));
    if ((!in && length) || !out_length)
        return call_leave(&call, end(operation, CKR_ARGUMENTS_BAD));
    rv = crypt_check_length(&call, operation, length);
    if (rv != CKR_OK)
        return call_leave(&call, end(operation, rv));
    if (is_same_input(operation, in, length))
        return call_leave(&call, finish(&call, operation, out, out_length));
    /* Asked for the room only, nothing is kept: what comes next may as well be the first of several parts. */
    if (!out) {
        *out_length = crypt_bound(&call, operation, length);
        return call_leave(&call, CKR_OK);
    }
    buffer_reset(&operation->gathered);
    buffer_clear(&operation->result);
    operation->has_result = false;
    buffer_append(&operation->gathered, in, length);
    rv = buffer_ok(&operation->gathered) ? finish(&call, operation, out, out_length) : end(operation, CKR_HOST_MEMORY);
    return call_leave(&call, rv);
}

/* Nothing comes out before the end: the service takes a message as a whole. */
static CK_RV update(CK_SESSION_HANDLE session, enum operation_kind kind, const CK_BYTE *in, CK_ULONG length,
                    CK_ULONG *out_length)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    struct operation *operation = kind == OPERATION_ENCRYPT ? &call.session->encrypt : &call.session->decrypt;
    if (!operation->kind)
        return call_leave(&call, CKR_OPERATION_NOT_INITIALIZED);
    /* All was given, and its result waits for room. */
    if (operation->has_result)
        return call_leave(&call, end(operation, CKR_OPERATION_ACTIVE));
    const struct backend *backend = call.token->backend;
    size_t most = kind == OPERATION_ENCRYPT ? backend->max_plaintext : backend->max_ciphertext;
    if ((!in && length) || !out_length) {
        rv = CKR_ARGUMENTS_BAD;
    } else if (length > most || operation->gathered.length > most - length) {
        rv = call_refuse(kind == OPERATION_ENCRYPT ? CKR_DATA_LEN_RANGE : CKR_ENCRYPTED_DATA_LEN_RANGE,
                         "more than %zu bytes in one operation", most);
    } else {
        operation->multipart = true;
        buffer_append(&operation->gathered, in, length);
        rv = buffer_ok(&operation->gathered) ? CKR_OK : CKR_HOST_MEMORY;
        *out_length = 0;
    }
    if (rv != CKR_OK)
        operation_clear(operation);
    return call_leave(&call, rv);
}

static CK_RV final(CK_SESSION_HANDLE session, enum operation_kind kind, CK_BYTE *out, CK_ULONG *out_length)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    struct operation *operation = kind == OPERATION_ENCRYPT ? &call.session->encrypt : &call.session->decrypt;
    if (!operation->kind)
        return call_leave(&call, CKR_OPERATION_NOT_INITIALIZED);
    if (!out_length)
        return call_leave(&call, end(operation, CKR_ARGUMENTS_BAD));
    /* A result of C_Encrypt or C_Decrypt waits for room. */
    if (operation->has_result && !operation->multipart)
        return call_leave(&call, end(operation, CKR_OPERATION_ACTIVE));
    operation->multipart = true;
    return call_leave(&call, finish(&call, operation, out, out_length));
}

CK_RV C_EncryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return begin(session, OPERATION_ENCRYPT, mechanism, key);
}

CK_RV C_Encrypt(CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG length, CK_BYTE *out, CK_ULONG *out_length)
{
    return one_part(session, OPERATION_ENCRYPT, in, length, out, out_length);
}

CK_RV C_EncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG length, CK_BYTE *out, CK_ULONG *out_length)
{
    (void)out;
    return update(session, OPERATION_ENCRYPT, in, length, out_length);
}

CK_RV C_EncryptFinal(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG *out_length)
{
    return final(session, OPERATION_ENCRYPT, out, out_length);
}

CK_RV C_DecryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return begin(session, OPERATION_DECRYPT, mechanism, key);
}

CK_RV C_Decrypt(CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG length, CK_BYTE *out, CK_ULONG *out_length)
{
    return one_part(session, OPERATION_DECRYPT, in, length, out, out_length);
}

CK_RV C_DecryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG length, CK_BYTE *out, CK_ULONG *out_length)
{
    (void)out;
    return update(session, OPERATION_DECRYPT, in, length, out_length);
}

CK_RV C_DecryptFinal(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG *out_length)
{
    return final(session, OPERATION_DECRYPT, out, out_length);
}

CK_RV C_GenerateRandom(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG length)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!out && length)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    if (!call.token->backend->random)
        return call_leave(&call, CKR_RANDOM_NO_RNG);
    if (!length)
        return call_leave(&call, CKR_OK);
    if (length > RANDOM_MAX)
        return call_leave(&call,
                          call_refuse(CKR_ARGUMENTS_BAD, "no more than %d random bytes a call", (int)RANDOM_MAX));
    struct backend_call request = {.op = BACKEND_RANDOM, .length = length};
    rv = call_run(&call, &request);
    if (rv == CKR_OK && request.out.length != length)
        rv = CKR_DEVICE_ERROR;
    if (rv == CKR_OK)
        memcpy(out, request.out.bytes, length);
    backend_call_clear(&request);
    return call_leave(&call, rv);
}

CK_RV C_SeedRandom(CK_SESSION_HANDLE session, CK_BYTE *seed, CK_ULONG length)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!seed && length)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    return call_leave(&call, call.token->backend->random ? CKR_RANDOM_SEED_NOT_SUPPORTED : CKR_RANDOM_NO_RNG);
}
