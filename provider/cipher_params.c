/*
 * Parameters of the cipher and of its contexts. Ours: envelope-key (name; in
 * and out), envelope-aad (octets; in, replaces what was given before),
 * envelope-version and envelope-dek-id (out). The DEK is none.
 */
#include "cipher.h"

#include <string.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "base/error.h"

#define PARAM_KEY "envelope-key"
#define PARAM_AAD "envelope-aad"
#define PARAM_VERSION "envelope-version"
#define PARAM_DEK_ID "envelope-dek-id"

/* ---- of the cipher ---- */

const OSSL_PARAM *provider_cipher_gettable_params(void *provctx)
{
    (void)provctx;
    static const OSSL_PARAM known[] = {
        OSSL_PARAM_uint(OSSL_CIPHER_PARAM_MODE, NULL),        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL),
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, NULL),     OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_BLOCK_SIZE, NULL),
        OSSL_PARAM_int(OSSL_CIPHER_PARAM_AEAD, NULL),         OSSL_PARAM_int(OSSL_CIPHER_PARAM_CUSTOM_IV, NULL),
        OSSL_PARAM_int(OSSL_CIPHER_PARAM_CTS, NULL),          OSSL_PARAM_int(OSSL_CIPHER_PARAM_TLS1_MULTIBLOCK, NULL),
        OSSL_PARAM_int(OSSL_CIPHER_PARAM_HAS_RAND_KEY, NULL), OSSL_PARAM_END,
    };
    return known;
}

static int put_size(OSSL_PARAM params[], const char *name, size_t value)
{
    OSSL_PARAM *param = OSSL_PARAM_locate(params, name);
    return !param || OSSL_PARAM_set_size_t(param, value);
}

int provider_cipher_get_params(OSSL_PARAM params[])
{
    /* An AEAD flag would make `openssl enc` refuse the cipher; an IV length would make it ask for an IV. */
    static const char *const flags[] = {
        OSSL_CIPHER_PARAM_AEAD,         OSSL_CIPHER_PARAM_CUSTOM_IV,
        OSSL_CIPHER_PARAM_CTS,          OSSL_CIPHER_PARAM_TLS1_MULTIBLOCK,
        OSSL_CIPHER_PARAM_HAS_RAND_KEY,
    };
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        OSSL_PARAM *param = OSSL_PARAM_locate(params, flags[i]);
        if (param && !OSSL_PARAM_set_int(param, 0))
            return 0;
    }
    OSSL_PARAM *mode = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_MODE);
    if (mode && !OSSL_PARAM_set_uint(mode, EVP_CIPH_STREAM_CIPHER))
        return 0;
    return put_size(params, OSSL_CIPHER_PARAM_KEYLEN, CIPHER_KEY_SIZE) &&
           put_size(params, OSSL_CIPHER_PARAM_IVLEN, 0) &&
           put_size(params, OSSL_CIPHER_PARAM_BLOCK_SIZE, CIPHER_BLOCK_SIZE);
}

/* ---- of a context, out ---- */

const OSSL_PARAM *provider_cipher_gettable_ctx_params(void *vctx, void *provctx)
{
    (void)vctx;
    (void)provctx;
    static const OSSL_PARAM known[] = {
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL),
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, NULL),
        OSSL_PARAM_utf8_string(PARAM_KEY, NULL, 0),
        OSSL_PARAM_uint(PARAM_VERSION, NULL),
        OSSL_PARAM_uint(PARAM_DEK_ID, NULL),
        OSSL_PARAM_END,
    };
    return known;
}

/* Whether the lease belongs to the message at hand, not to one before. */
static bool has_dek(const struct cipher *cipher)
{
    return cipher->lease.dek_id != 0 &&
           (cipher->counted || cipher->state == CIPHER_BODY || cipher->state == CIPHER_DONE);
}

static envelope_status need_dek(const struct cipher *cipher)
{
    if (has_dek(cipher))
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_CONTEXT_STATE, "the message has no DEK yet: ask after the first data");
}

static envelope_status put_failed(const char *name)
{
    return error_raise(ENVELOPE_E_ARGUMENT, "the parameter %s does not fit into the space given for it", name);
}

static envelope_status get_key_name(const struct cipher *cipher, OSSL_PARAM *param)
{
    const char *name = cipher->bound;
    if (has_dek(cipher))
        name = keyring_key_name(keyring_lease_key(&cipher->lease));
    else if (cipher->key)
        name = keyring_key_name(cipher->key);
    if (!name)
        return need_dek(cipher);
    return OSSL_PARAM_set_utf8_string(param, name) ? ENVELOPE_OK : put_failed(PARAM_KEY);
}

static envelope_status get_version(const struct cipher *cipher, OSSL_PARAM *param)
{
    envelope_status status = need_dek(cipher);
    if (status != ENVELOPE_OK)
        return status;
    store *keys = keyring_store(cipher->provider->ring);
    if (!keys)
        return error_status();
    struct store_version version;
    status = store_version_find(keys, cipher->lease.dek_id, &version);
    if (status != ENVELOPE_OK)
        return status;
    unsigned number = version.version;
    store_version_clear(&version);
    return OSSL_PARAM_set_uint(param, number) ? ENVELOPE_OK : put_failed(PARAM_VERSION);
}

static envelope_status get_dek_id(const struct cipher *cipher, OSSL_PARAM *param)
{
    envelope_status status = need_dek(cipher);
    if (status != ENVELOPE_OK)
        return status;
    return OSSL_PARAM_set_uint(param, cipher->lease.dek_id) ? ENVELOPE_OK : put_failed(PARAM_DEK_ID);
}

int provider_cipher_get_ctx_params(void *vctx, OSSL_PARAM params[])
{
    static const struct {
        const char *name;
        envelope_status (*get)(const struct cipher *cipher, OSSL_PARAM *param);
    } getters[] = {
        {PARAM_KEY, get_key_name},
        {PARAM_VERSION, get_version},
        {PARAM_DEK_ID, get_dek_id},
    };
    const struct cipher *cipher = vctx;
    if (!cipher)
        return provider_null_context();
    if (!params)
        return 1;
    if (!put_size(params, OSSL_CIPHER_PARAM_KEYLEN, CIPHER_KEY_SIZE) || !put_size(params, OSSL_CIPHER_PARAM_IVLEN, 0))
        return PROVIDER_RESULT(cipher->provider, put_failed("keylen or ivlen"));
    for (size_t i = 0; i < sizeof getters / sizeof getters[0]; i++) {
        OSSL_PARAM *param = OSSL_PARAM_locate(params, getters[i].name);
        if (param && !PROVIDER_RESULT(cipher->provider, getters[i].get(cipher, param)))
            return 0;
    }
    return 1;
}

/* ---- of a context, in ---- */

const OSSL_PARAM *provider_cipher_settable_ctx_params(void *vctx, void *provctx)
{
    (void)vctx;
    (void)provctx;
    static const OSSL_PARAM known[] = {
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL), OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, NULL),
        OSSL_PARAM_uint(OSSL_CIPHER_PARAM_PADDING, NULL),  OSSL_PARAM_utf8_string(PARAM_KEY, NULL, 0),
        OSSL_PARAM_octet_string(PARAM_AAD, NULL, 0),       OSSL_PARAM_END,
    };
    return known;
}

static envelope_status check_size(const OSSL_PARAM params[], const char *name, size_t only)
{
    const OSSL_PARAM *param = OSSL_PARAM_locate_const(params, name);
    size_t value;
    if (!param || (OSSL_PARAM_get_size_t(param, &value) && value == only))
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_ARGUMENT, "the parameter %s can only be %zu", name, only);
}

static envelope_status set_key(struct cipher *cipher, const OSSL_PARAM *param)
{
    const char *name;
    if (!OSSL_PARAM_get_utf8_string_ptr(param, &name) || !name)
        return error_raise(ENVELOPE_E_ARGUMENT, "the parameter " PARAM_KEY " must be a UTF-8 string");
    if (cipher->state != CIPHER_READY)
        return error_raise(ENVELOPE_E_CONTEXT_STATE, PARAM_KEY " must come after an init and before the data");
    return provider_cipher_use_name(cipher, name, strnlen(name, param->data_size));
}

static envelope_status set_aad(struct cipher *cipher, const OSSL_PARAM *param)
{
    const void *aad;
    size_t length;
    if (!OSSL_PARAM_get_octet_string_ptr(param, &aad, &length) || (!aad && length))
        return error_raise(ENVELOPE_E_ARGUMENT, "the parameter " PARAM_AAD " must be an octet string");
    if (cipher->state != CIPHER_READY)
        return error_raise(ENVELOPE_E_CONTEXT_STATE, PARAM_AAD " must come after an init and before the data");
    provider_stream_clear(cipher);
    return provider_stream_aad(cipher, aad, length);
}

int provider_cipher_set_ctx_params(void *vctx, const OSSL_PARAM params[])
{
    struct cipher *cipher = vctx;
    if (!cipher)
        return provider_null_context();
    if (!params)
        return 1;
    /* `padding` is accepted and, like all that is unknown, without effect. */
    envelope_status status = check_size(params, OSSL_CIPHER_PARAM_KEYLEN, CIPHER_KEY_SIZE);
    if (status == ENVELOPE_OK)
        status = check_size(params, OSSL_CIPHER_PARAM_IVLEN, 0);
    const OSSL_PARAM *key = OSSL_PARAM_locate_const(params, PARAM_KEY);
    const OSSL_PARAM *aad = OSSL_PARAM_locate_const(params, PARAM_AAD);
    if (status == ENVELOPE_OK && key)
        status = set_key(cipher, key);
    if (status == ENVELOPE_OK && aad)
        status = set_aad(cipher, aad);
    return PROVIDER_RESULT(cipher->provider, status);
}
