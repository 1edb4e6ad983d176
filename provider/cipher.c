/* The dispatch table of ENVELOPE-AES-256-GCM: checks what EVP hands over, and leaves the work to its neighbours. */
#include "cipher.h"

#include <openssl/crypto.h>

#include "base/error.h"
#include "base/libctx.h"

static OSSL_FUNC_cipher_newctx_fn newctx;
static OSSL_FUNC_cipher_freectx_fn freectx;
static OSSL_FUNC_cipher_dupctx_fn dupctx;
static OSSL_FUNC_cipher_encrypt_init_fn encrypt_init;
static OSSL_FUNC_cipher_decrypt_init_fn decrypt_init;
static OSSL_FUNC_cipher_update_fn update;
static OSSL_FUNC_cipher_final_fn final;

/* The token uses libcrypto itself. Were it to reach us we would wait for the session it holds. */
static envelope_status check_inside(void)
{
    if (!libctx_inside())
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_RECURSION,
                       "the PKCS#11 module asked Envelope for a cipher while serving it; the module must use OpenSSL's "
                       "own providers");
}

void *provider_cipher_new(struct provider *provider, const char *bound)
{
    if (!PROVIDER_RESULT(provider, check_inside()))
        return NULL;
    struct cipher *cipher = OPENSSL_zalloc(sizeof *cipher);
    if (!cipher) {
        (void)PROVIDER_RESULT(provider, error_raise(ENVELOPE_E_NO_MEMORY, "out of memory for a cipher context"));
        return NULL;
    }
    cipher->provider = provider;
    cipher->bound = bound;
    cipher->aad.capacity = CIPHER_AAD_INLINE;
    return cipher;
}

static void *newctx(void *provctx)
{
    return provider_cipher_new(provctx, NULL);
}

static void freectx(void *vctx)
{
    struct cipher *cipher = vctx;
    if (!cipher)
        return;
    provider_cipher_lease_end(cipher);
    provider_stream_clear(cipher);
    OPENSSL_clear_free(cipher, sizeof *cipher);
}

static void *dupctx(void *vctx)
{
    struct cipher *from = vctx;
    if (!from) {
        (void)provider_null_context();
        return NULL;
    }
    struct cipher *to = provider_cipher_new(from->provider, from->bound);
    if (!to)
        return NULL;
    to->key = from->key;
    to->reference = from->reference;
    if (PROVIDER_RESULT(from->provider, provider_stream_copy(from, to)))
        return to;
    freectx(to);
    return NULL;
}

static envelope_status prepare(struct cipher *cipher, bool encrypt, const unsigned char *key, size_t keylen,
                               size_t ivlen)
{
    envelope_status status = provider_check(cipher->provider);
    if (status == ENVELOPE_OK)
        status = check_inside();
    if (status != ENVELOPE_OK)
        return status;
    if (key && keylen != CIPHER_KEY_SIZE)
        return error_raise(ENVELOPE_E_ARGUMENT, "%zu key bytes given, %d expected", keylen, (int)CIPHER_KEY_SIZE);
    if (ivlen != 0)
        return error_raise(ENVELOPE_E_ARGUMENT,
                           "an IV of %zu bytes given: the nonce is made by Envelope and travels in "
                           "the header",
                           ivlen);
    if (encrypt != cipher->encrypt)
        cipher->counted = false;
    cipher->encrypt = encrypt;
    provider_stream_reset(cipher);
    return key ? provider_cipher_use_bytes(cipher, key) : ENVELOPE_OK;
}

static int init(void *vctx, bool encrypt, const unsigned char *key, size_t keylen, size_t ivlen,
                const OSSL_PARAM params[])
{
    struct cipher *cipher = vctx;
    if (!cipher)
        return provider_null_context();
    envelope_status status = prepare(cipher, encrypt, key, keylen, ivlen);
    if (status != ENVELOPE_OK) {
        /* No update may follow a failed init with whatever was there before. */
        cipher->state = CIPHER_NEW;
        return PROVIDER_RESULT(cipher->provider, status);
    }
    if (!params || provider_cipher_set_ctx_params(cipher, params))
        return 1;
    cipher->state = CIPHER_NEW;
    return 0;
}

static int encrypt_init(void *vctx, const unsigned char *key, size_t keylen, const unsigned char *iv, size_t ivlen,
                        const OSSL_PARAM params[])
{
    return init(vctx, true, key, keylen, iv ? ivlen : 0, params);
}

static int decrypt_init(void *vctx, const unsigned char *key, size_t keylen, const unsigned char *iv, size_t ivlen,
                        const OSSL_PARAM params[])
{
    return init(vctx, false, key, keylen, iv ? ivlen : 0, params);
}

static int update(void *vctx, unsigned char *out, size_t *outl, size_t outsize, const unsigned char *in, size_t inl)
{
    if (outl)
        *outl = 0;
    struct cipher *cipher = vctx;
    if (!cipher || !outl)
        return provider_null_context();
    envelope_status status;
    if (!in && inl)
        status = error_raise(ENVELOPE_E_ARGUMENT, "%zu bytes of input announced, none given", inl);
    else if (!out && in)
        status = provider_stream_aad(cipher, in, inl);
    else
        status = provider_stream_update(cipher, out, outl, outsize, in, inl);
    return PROVIDER_RESULT(cipher->provider, status);
}

static int final(void *vctx, unsigned char *out, size_t *outl, size_t outsize)
{
    if (outl)
        *outl = 0;
    struct cipher *cipher = vctx;
    if (!cipher || !outl)
        return provider_null_context();
    return PROVIDER_RESULT(cipher->provider, provider_stream_final(cipher, out, outl, outsize));
}

/* No OSSL_FUNC_CIPHER_CIPHER: it would make EVP treat this as a custom cipher. */
const OSSL_DISPATCH provider_cipher_table[] = {
    {OSSL_FUNC_CIPHER_NEWCTX, (void (*)(void))newctx},
    {OSSL_FUNC_CIPHER_FREECTX, (void (*)(void))freectx},
    {OSSL_FUNC_CIPHER_DUPCTX, (void (*)(void))dupctx},
    {OSSL_FUNC_CIPHER_ENCRYPT_INIT, (void (*)(void))encrypt_init},
    {OSSL_FUNC_CIPHER_DECRYPT_INIT, (void (*)(void))decrypt_init},
    {OSSL_FUNC_CIPHER_UPDATE, (void (*)(void))update},
    {OSSL_FUNC_CIPHER_FINAL, (void (*)(void)) final},
    {OSSL_FUNC_CIPHER_GETTABLE_PARAMS, (void (*)(void))provider_cipher_gettable_params},
    {OSSL_FUNC_CIPHER_GET_PARAMS, (void (*)(void))provider_cipher_get_params},
    {OSSL_FUNC_CIPHER_GETTABLE_CTX_PARAMS, (void (*)(void))provider_cipher_gettable_ctx_params},
    {OSSL_FUNC_CIPHER_GET_CTX_PARAMS, (void (*)(void))provider_cipher_get_ctx_params},
    {OSSL_FUNC_CIPHER_SETTABLE_CTX_PARAMS, (void (*)(void))provider_cipher_settable_ctx_params},
    {OSSL_FUNC_CIPHER_SET_CTX_PARAMS, (void (*)(void))provider_cipher_set_ctx_params},
    {0, NULL},
};
