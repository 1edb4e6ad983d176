/*
 * RSA-OAEP. The public half is used in software: it is no secret, a token gains nothing by doing it, and it costs no
 * session. Decryption is the token's. Which hash it takes (SHA-256; SHA-1 where it has no other) is found out at the
 * first wrap of a process by decrypting what was encrypted, which also proves that the two halves belong together.
 */
#include "hsm/wrap.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rsa.h>

#include "base/error.h"
#include "base/libctx.h"
#include "base/secmem.h"
#include "hsm/ckr.h"

/* Scratch: plaintext, ciphertext for the token, what it decrypts (a token may ask for room for a whole modulus). */
enum { PLAIN_AT = 0, IN_AT = 0, OUT_AT = 1024, OUT_SIZE = 1024 };

static bool encrypt(EVP_PKEY *key, CK_MECHANISM_TYPE hash, const uint8_t *plain, uint8_t *body, size_t *length)
{
    char *name = hash == CKM_SHA256 ? (char[]){"SHA256"} : (char[]){"SHA1"};
    char padding[] = OSSL_PKEY_RSA_PAD_MODE_OAEP;
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_PAD_MODE, padding, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST, name, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST, name, 0),
        OSSL_PARAM_construct_end(),
    };
    struct libctx_guard guard;
    libctx_enter(&guard); /* what libcrypto has to say of a failure is dropped: ours says it */
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(libctx_private(), key, NULL);
    *length = HSM_BODY_MAX;
    bool done = context && EVP_PKEY_encrypt_init_ex(context, params) > 0 &&
                EVP_PKEY_encrypt(context, body, length, plain, HSM_BOUND_SIZE) > 0;
    EVP_PKEY_CTX_free(context);
    libctx_leave(&guard);
    return done;
}

static CK_RV decrypt(struct hsm_wrap *wrap, CK_MECHANISM_TYPE hash, const uint8_t *body, size_t body_length,
                     CK_ULONG *length)
{
    struct hsm_session *session = wrap->session;
    CK_RSA_PKCS_OAEP_PARAMS params = {
        .hashAlg = hash, .mgf = hash == CKM_SHA256 ? CKG_MGF1_SHA256 : CKG_MGF1_SHA1, .source = CKZ_DATA_SPECIFIED};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_OAEP, &params, sizeof params};
    *length = OUT_SIZE;
    CK_RV rv = HSM_SESSION_CALL(session, C_DecryptInit, &mechanism, wrap->view.key);
    if (rv != CKR_OK)
        return rv;
    memcpy(session->scratch + IN_AT, body, body_length);
    return HSM_SESSION_CALL(session, C_Decrypt, session->scratch + IN_AT, body_length, session->scratch + OUT_AT,
                            length);
}

static envelope_status encrypt_with(struct hsm_wrap *wrap, EVP_PKEY *key, CK_MECHANISM_TYPE hash, const uint8_t *dek,
                                    uint8_t *body, size_t *length)
{
    uint8_t *plain = wrap->session->scratch + PLAIN_AT;
    envelope_status status = hsm_bind(wrap, dek, plain);
    if (status == ENVELOPE_OK && !encrypt(key, hash, plain, body, length))
        status = error_raise(ENVELOPE_E_CRYPTO, "libcrypto does not encrypt under the KEK \"%s\" (%u bits)",
                             wrap->kek->uri->object_name, wrap->view.bits);
    return status;
}

static envelope_status failed(struct hsm_wrap *wrap, CK_RV rv, bool unwrapping)
{
    return hsm_session_fail(wrap->session, rv, unwrapping,
                            "a blob does not unwrap under the KEK \"%s\" (moved, damaged, or of another KEK)",
                            wrap->kek->uri->object_name);
}

/* Would another hash help? Some tokens check it at init, some find out by failing. */
static bool may_be_the_hash(CK_RV rv)
{
    enum hsm_fault fault = hsm_ckr_fault(rv);
    return fault == HSM_FAULT_UNSUPPORTED || fault == HSM_FAULT_DOUBTFUL || fault == HSM_FAULT_DATA;
}

static const CK_MECHANISM_TYPE hashes[] = {CKM_SHA256, CKM_SHA_1};

static envelope_status first_wrap(struct hsm_wrap *wrap, EVP_PKEY *key, const uint8_t *dek, uint8_t *body,
                                  size_t *length)
{
    uint8_t again[HSM_DEK_SIZE];
    CK_RV rv = CKR_OK;
    for (size_t i = 0; i < 2; i++) {
        CK_ULONG plain_length = 0;
        envelope_status status = encrypt_with(wrap, key, hashes[i], dek, body, length);
        if (status != ENVELOPE_OK)
            return status;
        rv = decrypt(wrap, hashes[i], body, *length, &plain_length);
        if (rv == CKR_OK) {
            status = hsm_unbind(wrap, wrap->session->scratch + OUT_AT, plain_length, again);
            secmem_wipe(again, sizeof again);
            if (status == ENVELOPE_OK)
                atomic_store(&wrap->kek->oaep_hash, hashes[i]);
            return status;
        }
        if (!may_be_the_hash(rv))
            break;
    }
    return hsm_session_fail(wrap->session, rv, false,
                            "what was encrypted for the KEK \"%s\" cannot be decrypted with it",
                            wrap->kek->uri->object_name);
}

envelope_status hsm_rsa_wrap(struct hsm_wrap *wrap, const uint8_t dek[HSM_DEK_SIZE], uint8_t body[HSM_BODY_MAX],
                             size_t *length)
{
    CK_MECHANISM_TYPE hash = atomic_load(&wrap->kek->oaep_hash);
    EVP_PKEY *key = hsm_kek_public(wrap->kek, wrap->session, &wrap->view);
    if (!key)
        return error_status();
    envelope_status status =
        hash ? encrypt_with(wrap, key, hash, dek, body, length) : first_wrap(wrap, key, dek, body, length);
    EVP_PKEY_free(key);
    return status;
}

envelope_status hsm_rsa_unwrap(struct hsm_wrap *wrap, const uint8_t *body, size_t body_length,
                               uint8_t dek[HSM_DEK_SIZE])
{
    CK_MECHANISM_TYPE known = atomic_load(&wrap->kek->oaep_hash);
    CK_RV rv = CKR_OK;
    if (body_length * 8 != wrap->view.bits)
        return hsm_does_not_unwrap(wrap, "its length is not that of the RSA key");
    /* A blob does not say its hash: the one known to work here first, then the other, from another token perhaps. */
    for (size_t i = 0; i < 2; i++) {
        CK_MECHANISM_TYPE hash = known == CKM_SHA_1 ? hashes[1 - i] : hashes[i];
        CK_ULONG length = 0;
        CK_RV one = decrypt(wrap, hash, body, body_length, &length);
        if (one == CKR_OK)
            return hsm_unbind(wrap, wrap->session->scratch + OUT_AT, length, dek);
        /* "Not mine" tells more than "no such hash". */
        if (i == 0 || hsm_ckr_fault(one) != HSM_FAULT_UNSUPPORTED)
            rv = one;
        if (!may_be_the_hash(one))
            break;
    }
    return failed(wrap, rv, true);
}
