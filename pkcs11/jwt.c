#include "jwt.h"

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/pem.h>

#include "base/error.h"
#include "base/libctx.h"
#include "web.h"

enum { SIGNATURE_MAX = 1024 };

int jwt_no_passphrase(char *text, int size, int writing, void *context)
{
    (void)text, (void)size, (void)writing, (void)context;
    return -1;
}

EVP_PKEY *jwt_read_key(const struct buffer *pem)
{
    OSSL_LIB_CTX *context = libctx_private();
    BIO *text = context ? BIO_new_mem_buf(pem->bytes, (int)pem->length) : NULL;
    EVP_PKEY *key = text ? PEM_read_bio_PrivateKey_ex(text, NULL, jwt_no_passphrase, NULL, context, NULL) : NULL;
    BIO_free(text);
    if (key && EVP_PKEY_is_a(key, "RSA"))
        return key;
    EVP_PKEY_free(key);
    error_raise(ENVELOPE_E_HSM_LOGIN, "there is no RSA private key without a passphrase in PEM form in it");
    return NULL;
}

static bool begin(EVP_MD_CTX *context, enum jwt_algorithm algorithm, EVP_PKEY *key)
{
    const OSSL_PARAM pss[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_PAD_MODE, (char *)OSSL_PKEY_RSA_PAD_MODE_PSS, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_RSA_PSS_SALTLEN, (char *)OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST, 0),
        OSSL_PARAM_construct_end()};
    return context && EVP_DigestSignInit_ex(context, NULL, "SHA256", libctx_private(), NULL, key,
                                            algorithm == JWT_PS256 ? pss : NULL) > 0;
}

envelope_status jwt_sign(const struct buffer *header, const struct buffer *claims, enum jwt_algorithm algorithm,
                         EVP_PKEY *key, struct buffer *jwt)
{
    uint8_t signature[SIGNATURE_MAX];
    size_t length = sizeof signature;
    web_append_base64url(jwt, header->bytes, header->length);
    buffer_append_text(jwt, ".");
    web_append_base64url(jwt, claims->bytes, claims->length);
    if (!buffer_ok(header) || !buffer_ok(claims) || !buffer_ok(jwt))
        return ENVELOPE_E_NO_MEMORY;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool ok =
        begin(context, algorithm, key) && EVP_DigestSign(context, signature, &length, jwt->bytes, jwt->length) > 0;
    EVP_MD_CTX_free(context);
    if (!ok)
        return error_raise(ENVELOPE_E_CRYPTO, "libcrypto cannot sign with its private key");
    buffer_append_text(jwt, ".");
    web_append_base64url(jwt, signature, length);
    return buffer_ok(jwt) ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}
