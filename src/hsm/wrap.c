#include "hsm/wrap.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/fork.h"
#include "base/error.h"
#include "base/libctx.h"

const char *hsm_mechanism_text(enum hsm_mechanism mechanism)
{
    switch (mechanism) {
    case HSM_AES_GCM:
        return "AES-GCM";
    case HSM_AES_KWP:
        return "AES-KWP";
    case HSM_RSA_OAEP:
        return "RSA-OAEP";
    case HSM_KEY_SERVICE:
        return "key service";
    }
    return "unknown";
}

envelope_status hsm_does_not_unwrap(const struct hsm_wrap *wrap, const char *why)
{
    return error_raise(ENVELOPE_E_UNWRAP, "a blob does not unwrap under the KEK \"%s\" of token \"%s\": %s",
                       wrap->kek->uri->object_name, wrap->session->token->name, why);
}

static bool hash_aad(const struct hsm_wrap *wrap, uint8_t digest[32])
{
    size_t length = 0;
    fork_hold();
    int done = EVP_Q_digest(libctx_private(), "SHA256", NULL, wrap->aad, wrap->aad_length, digest, &length);
    fork_release();
    return done == 1 && length == 32;
}

envelope_status hsm_bind(const struct hsm_wrap *wrap, const uint8_t dek[HSM_DEK_SIZE], uint8_t to[HSM_BOUND_SIZE])
{
    uint8_t digest[32];
    if (!hash_aad(wrap, digest))
        return error_raise(ENVELOPE_E_CRYPTO, "SHA-256 of a wrap's binding failed");
    memcpy(to, dek, HSM_DEK_SIZE);
    memcpy(to + HSM_DEK_SIZE, digest, HSM_BOUND_SIZE - HSM_DEK_SIZE);
    return ENVELOPE_OK;
}

envelope_status hsm_unbind(const struct hsm_wrap *wrap, const uint8_t *from, size_t length, uint8_t dek[HSM_DEK_SIZE])
{
    uint8_t digest[32];
    if (length != HSM_BOUND_SIZE)
        return hsm_does_not_unwrap(wrap, "what is inside is no DEK with its binding");
    if (!hash_aad(wrap, digest))
        return error_raise(ENVELOPE_E_CRYPTO, "SHA-256 of a wrap's binding failed");
    if (CRYPTO_memcmp(from + HSM_DEK_SIZE, digest, HSM_BOUND_SIZE - HSM_DEK_SIZE) != 0)
        return hsm_does_not_unwrap(wrap, "it is bound to another key, version or store");
    memcpy(dek, from, HSM_DEK_SIZE);
    return ENVELOPE_OK;
}
