#include "base/aesgcm.h"

#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include "base/error.h"
#include "base/libctx.h"
#include "base/secmem.h"

/* An aesgcm * is the provider's context itself; the provider is the same for all of them. */
static struct {
    void *provider_context;
    OSSL_FUNC_cipher_newctx_fn *newctx;
    OSSL_FUNC_cipher_freectx_fn *freectx;
    OSSL_FUNC_cipher_dupctx_fn *dupctx; /* NULL where the provider cannot copy */
    OSSL_FUNC_cipher_encrypt_init_fn *encrypt_init;
    OSSL_FUNC_cipher_decrypt_init_fn *decrypt_init;
    OSSL_FUNC_cipher_update_fn *update;
    OSSL_FUNC_cipher_final_fn *final;
    OSSL_FUNC_cipher_get_ctx_params_fn *get_params;
    OSSL_FUNC_cipher_set_ctx_params_fn *set_params;
} gcm;
static bool usable;
static pthread_once_t looked_up = PTHREAD_ONCE_INIT;

/* Contexts come from the C library's malloc: no program has put its own allocator under libcrypto. */
static bool plain_malloc;

/* Used when the size cannot be asked: more than the context with its key schedule and hash table takes. */
enum { SHIELD_SIZE_MAX = 1536 };

static bool is_named(const OSSL_ALGORITHM *algorithm, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = algorithm->algorithm_names; at; at = strchr(at, ':')) {
        if (*at == ':')
            at++;
        if (strncmp(at, name, length) == 0 && (at[length] == ':' || at[length] == '\0'))
            return true;
    }
    return false;
}

static void take_functions(const OSSL_DISPATCH *dispatch)
{
    for (; dispatch->function_id != 0; dispatch++) {
        switch (dispatch->function_id) {
        case OSSL_FUNC_CIPHER_NEWCTX:
            gcm.newctx = OSSL_FUNC_cipher_newctx(dispatch);
            break;
        case OSSL_FUNC_CIPHER_FREECTX:
            gcm.freectx = OSSL_FUNC_cipher_freectx(dispatch);
            break;
        case OSSL_FUNC_CIPHER_DUPCTX:
            gcm.dupctx = OSSL_FUNC_cipher_dupctx(dispatch);
            break;
        case OSSL_FUNC_CIPHER_ENCRYPT_INIT:
            gcm.encrypt_init = OSSL_FUNC_cipher_encrypt_init(dispatch);
            break;
        case OSSL_FUNC_CIPHER_DECRYPT_INIT:
            gcm.decrypt_init = OSSL_FUNC_cipher_decrypt_init(dispatch);
            break;
        case OSSL_FUNC_CIPHER_UPDATE:
            gcm.update = OSSL_FUNC_cipher_update(dispatch);
            break;
        case OSSL_FUNC_CIPHER_FINAL:
            gcm.final = OSSL_FUNC_cipher_final(dispatch);
            break;
        case OSSL_FUNC_CIPHER_GET_CTX_PARAMS:
            gcm.get_params = OSSL_FUNC_cipher_get_ctx_params(dispatch);
            break;
        case OSSL_FUNC_CIPHER_SET_CTX_PARAMS:
            gcm.set_params = OSSL_FUNC_cipher_set_ctx_params(dispatch);
            break;
        default:
            break;
        }
    }
}

static void look_up(void)
{
    OSSL_PROVIDER *provider = libctx_provider();
    if (!provider)
        return;
    int no_cache = 0;
    /* Never given back with unquery: the tables serve until the process ends. */
    const OSSL_ALGORITHM *algorithm = OSSL_PROVIDER_query_operation(provider, OSSL_OP_CIPHER, &no_cache);
    for (; algorithm && algorithm->algorithm_names; algorithm++)
        if (is_named(algorithm, "AES-256-GCM")) {
            take_functions(algorithm->implementation);
            break;
        }
    CRYPTO_malloc_fn allocate;
    CRYPTO_realloc_fn reallocate;
    CRYPTO_free_fn release;
    CRYPTO_get_mem_functions(&allocate, &reallocate, &release);
    plain_malloc = allocate == CRYPTO_malloc && release == CRYPTO_free;
    gcm.provider_context = OSSL_PROVIDER_get0_provider_ctx(provider);
    usable = gcm.newctx && gcm.freectx && gcm.encrypt_init && gcm.decrypt_init && gcm.update && gcm.final &&
             gcm.get_params && gcm.set_params;
}

static aesgcm *shielded(void *context)
{
    secmem_shield(context, plain_malloc ? malloc_usable_size(context) : SHIELD_SIZE_MAX);
    return context;
}

aesgcm *aesgcm_new(const uint8_t key[AESGCM_KEY_SIZE])
{
    if (!libctx_provider())
        return NULL;
    pthread_once(&looked_up, look_up);
    if (!usable) {
        error_raise(ENVELOPE_E_CRYPTO, "OpenSSL's provider offers no AES-256-GCM that can be used");
        return NULL;
    }
    void *context = gcm.newctx(gcm.provider_context);
    if (!context) {
        error_raise(ENVELOPE_E_NO_MEMORY, "OpenSSL made no AES-256-GCM context");
        return NULL;
    }
    /* Shielded first: the key schedule must not be in a page that can be swapped or dumped even for a moment. */
    shielded(context);
    if (!gcm.encrypt_init(context, key, AESGCM_KEY_SIZE, NULL, 0, NULL)) {
        gcm.freectx(context);
        error_raise(ENVELOPE_E_CRYPTO, "OpenSSL did not accept an AES-256-GCM key");
        return NULL;
    }
    return context;
}

void aesgcm_free(aesgcm *context)
{
    if (context)
        gcm.freectx(context);
}

aesgcm *aesgcm_copy(const aesgcm *context)
{
    if (!context || !gcm.dupctx) {
        error_raise(ENVELOPE_E_COPY_REFUSED,
                    "this OpenSSL cannot copy an AES-256-GCM context; start a new one instead");
        return NULL;
    }
    /* The provider's signature lacks the const; the function only reads. */
    void *copy = gcm.dupctx((void *)(uintptr_t)context); /* NOLINT(performance-no-int-to-ptr) */
    if (!copy) {
        error_raise(ENVELOPE_E_NO_MEMORY, "OpenSSL did not copy an AES-256-GCM context");
        return NULL;
    }
    return shielded(copy);
}

envelope_status aesgcm_start(aesgcm *context, bool encrypt, const uint8_t nonce[AESGCM_NONCE_SIZE])
{
    int done = encrypt ? gcm.encrypt_init(context, NULL, 0, nonce, AESGCM_NONCE_SIZE, NULL)
                       : gcm.decrypt_init(context, NULL, 0, nonce, AESGCM_NONCE_SIZE, NULL);
    if (!done)
        return error_raise(ENVELOPE_E_CRYPTO, "OpenSSL did not start an AES-256-GCM message");
    return ENVELOPE_OK;
}

envelope_status aesgcm_aad(aesgcm *context, const uint8_t *aad, size_t length)
{
    size_t out_length;
    if (length == 0)
        return ENVELOPE_OK;
    /* Without an output buffer the input is AAD. */
    if (!gcm.update(context, NULL, &out_length, length, aad, length))
        return error_raise(ENVELOPE_E_CRYPTO, "OpenSSL did not take %zu bytes of AAD; AAD comes before data", length);
    return ENVELOPE_OK;
}

envelope_status aesgcm_update(aesgcm *context, const uint8_t *in, size_t length, uint8_t *out)
{
    size_t out_length;
    if (length == 0)
        return ENVELOPE_OK;
    if (!in || !out) /* would be taken for AAD, or for the end */
        return error_raise(ENVELOPE_E_ARGUMENT, "no buffer for %zu bytes of data", length);
    if (!gcm.update(context, out, &out_length, length, in, length))
        return error_raise(ENVELOPE_E_CRYPTO, "OpenSSL did not process %zu bytes of an AES-256-GCM message", length);
    return ENVELOPE_OK;
}

envelope_status aesgcm_final_encrypt(aesgcm *context, uint8_t tag[AESGCM_TAG_SIZE])
{
    uint8_t unused[AESGCM_TAG_SIZE];
    size_t out_length;
    OSSL_PARAM get_tag[] = {OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, AESGCM_TAG_SIZE), OSSL_PARAM_END};
    if (!gcm.final(context, unused, &out_length, sizeof unused) || !gcm.get_params(context, get_tag))
        return error_raise(ENVELOPE_E_CRYPTO, "OpenSSL did not finish an AES-256-GCM message");
    return ENVELOPE_OK;
}

envelope_status aesgcm_final_decrypt(aesgcm *context, const uint8_t tag[AESGCM_TAG_SIZE])
{
    uint8_t expected[AESGCM_TAG_SIZE], unused[AESGCM_TAG_SIZE];
    size_t out_length;
    memcpy(expected, tag, sizeof expected); /* OSSL_PARAM has no const */
    const OSSL_PARAM set_tag[] = {OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, expected, sizeof expected),
                                  OSSL_PARAM_END};
    if (!gcm.set_params(context, set_tag))
        return error_raise(ENVELOPE_E_CRYPTO, "OpenSSL did not take the tag of an AES-256-GCM message");
    if (!gcm.final(context, unused, &out_length, sizeof unused))
        return error_raise(ENVELOPE_E_DATA_AUTH,
                           "the tag does not match: data, AAD or key differ from what was encrypted");
    return ENVELOPE_OK;
}
