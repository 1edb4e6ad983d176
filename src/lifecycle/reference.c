#include "lifecycle/lifecycle.h"

#include <string.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "base/error.h"
#include "base/libctx.h"
#include "base/secmem.h"
#include "keyring/reference.h"

/* What no program could use is not handed out: its first use would be far from here. */
static envelope_status check_state(const struct store_version *version)
{
    if (version->key_state != STORE_KEY_ENABLED)
        return error_raise(ENVELOPE_E_KEY_STATE, "key \"%s\" is %s", version->key_name,
                           store_key_state_text(version->key_state));
    if (version->state != STORE_VERSION_ACTIVE && version->state != STORE_VERSION_DEACTIVATED)
        return error_raise(ENVELOPE_E_VERSION_STATE, "version %u of key \"%s\" is %s", version->version,
                           version->key_name, store_version_state_text(version->state));
    return ENVELOPE_OK;
}

static envelope_status make_bytes(store *from, uint32_t dek_id, uint8_t bytes[LIFECYCLE_REFERENCE_SIZE])
{
    struct keyring_reference reference = {.dek_id = dek_id};
    envelope_status status = store_id(from, reference.store_id);
    return status == ENVELOPE_OK ? keyring_reference_write(&reference, bytes) : status;
}

envelope_status lifecycle_reference(store *from, const char *key, uint32_t version, struct lifecycle_reference *made)
{
    struct store_key found;
    struct store_version row;
    envelope_status status = store_key_find(from, key, &found);
    if (status == ENVELOPE_OK)
        status = store_version_of(from, key, version ? version : found.primary_version, &row);
    if (status != ENVELOPE_OK)
        return status;
    *made =
        (struct lifecycle_reference){.dek_id = row.dek_id, .version = row.version, .primary = found.primary_version};
    status = check_state(&row);
    if (status == ENVELOPE_OK)
        status = make_bytes(from, row.dek_id, made->bytes);
    store_version_clear(&row);
    return status;
}

/* ---- the canary ---- */

static envelope_status seal_canary(OSSL_LIB_CTX *context, const uint8_t *dek, struct lifecycle_canary *canary)
{
    static const uint8_t text[] = LIFECYCLE_CANARY_TEXT "\n";
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(context, "AES-256-CBC", NULL);
    EVP_CIPHER_CTX *sealing = EVP_CIPHER_CTX_new();
    int length = 0, last = 0;
    bool done = cipher && sealing && RAND_bytes_ex(context, canary->iv, sizeof(canary->iv), 0) == 1 &&
                EVP_EncryptInit_ex2(sealing, cipher, dek, canary->iv, NULL) == 1 &&
                EVP_EncryptUpdate(sealing, canary->sealed, &length, text, sizeof(text) - 1) == 1 &&
                EVP_EncryptFinal_ex(sealing, canary->sealed + length, &last) == 1;
    EVP_CIPHER_CTX_free(sealing);
    EVP_CIPHER_free(cipher);
    canary->length = (size_t)length + (size_t)last;
    return done ? ENVELOPE_OK : error_raise(ENVELOPE_E_CRYPTO, "OpenSSL did not encrypt a canary");
}

envelope_status lifecycle_canary(keyring *ring, const struct lifecycle_reference *reference,
                                 struct lifecycle_canary *canary)
{
    OSSL_LIB_CTX *context = libctx_private();
    uint8_t *dek = context ? secmem_alloc(HSM_DEK_SIZE) : NULL;
    if (!dek)
        return error_status();
    struct keyring_lease lease = {0};
    envelope_status status = keyring_reference_begin(ring, reference->dek_id, true, &lease);
    if (status == ENVELOPE_OK)
        status = keyring_lease_dek(&lease, dek);
    if (status == ENVELOPE_OK)
        status = seal_canary(context, dek, canary);
    keyring_lease_end(ring, &lease);
    secmem_free(dek);
    return status;
}
