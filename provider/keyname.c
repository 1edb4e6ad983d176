#include "keyname.h"

#include <stdbool.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/fork.h"
#include "base/error.h"
#include "base/libctx.h"
#include "base/text.h"
#include "base/wire.h"

/* "ENVREF" | 0x01 | flags u8 | DEK id u32 | store id 8 | check 12 */
enum {
    REFERENCE_FLAGS = 7,
    REFERENCE_DEK_ID = 8,
    REFERENCE_STORE = 12,
    REFERENCE_CHECK = 20,
    REFERENCE_CHECK_SIZE = 12
};
static const uint8_t reference_prefix[] = {'E', 'N', 'V', 'R', 'E', 'F', 0x01};
static const char reference_domain[] = "envelope reference v1";

static bool all_zero(const uint8_t *bytes, size_t length)
{
    uint8_t any = 0;
    for (size_t i = 0; i < length; i++)
        any |= bytes[i];
    return any == 0;
}

struct provider_keyname provider_keyname_parse(const uint8_t bytes[KEYNAME_SIZE])
{
    if (all_zero(bytes, KEYNAME_SIZE))
        return (struct provider_keyname){PROVIDER_KEYNAME_NONE, 0};
    if (memcmp(bytes, reference_prefix, sizeof reference_prefix) == 0)
        return (struct provider_keyname){PROVIDER_KEYNAME_REFERENCE, 0};
    const char *name = (const char *)bytes;
    size_t length = strnlen(name, KEYNAME_SIZE);
    if (!all_zero(bytes + length, KEYNAME_SIZE - length) || !text_is_key_name(name, length))
        return (struct provider_keyname){PROVIDER_KEYNAME_NOTHING, 0};
    return (struct provider_keyname){PROVIDER_KEYNAME_NAME, length};
}

envelope_status provider_keyname_refuse(void)
{
    return error_raise(
        ENVELOPE_E_NOT_A_KEY,
        "the 32 key bytes name no key of this store. They must be a key's name padded with zero bytes, a "
        "key reference, or all zero for the default key; a raw key or a password (openssl enc -k) has no "
        "use here, since the data key comes from the store. `envelope key list` shows the names");
}

envelope_status provider_keyname_find(keyring *ring, const uint8_t bytes[KEYNAME_SIZE], size_t length,
                                      keyring_key **key)
{
    const char *name = (const char *)bytes;
    envelope_status status = keyring_find(ring, name, length, key);
    if (status == ENVELOPE_OK)
        return ENVELOPE_OK;
    if (status == ENVELOPE_E_KEY_UNKNOWN || status == ENVELOPE_E_KEY_NAME)
        return provider_keyname_refuse();
    /* No key was found, so these may be the bytes of a secret that happens to be text: the error may not quote it. */
    char quoted[4 * KEYNAME_SIZE + 8];
    text_printable(name, length, quoted, sizeof quoted);
    if (strstr(error_text(), quoted))
        error_raise(status, "cannot look up the key that the key bytes name: %s", envelope_status_text(status));
    OPENSSL_cleanse(quoted, sizeof quoted);
    return status;
}

static envelope_status reference_check(const uint8_t bytes[KEYNAME_SIZE])
{
    OSSL_LIB_CTX *private = libctx_private();
    if (!private)
        return error_status();
    uint8_t input[sizeof reference_domain - 1 + REFERENCE_CHECK];
    memcpy(input, reference_domain, sizeof reference_domain - 1);
    memcpy(input + sizeof reference_domain - 1, bytes, REFERENCE_CHECK);
    uint8_t digest[EVP_MAX_MD_SIZE];
    fork_hold();
    int done = EVP_Q_digest(private, "SHA256", NULL, input, sizeof input, digest, NULL);
    fork_release();
    if (!done)
        return error_raise(ENVELOPE_E_CRYPTO, "cannot compute the check of a key reference (SHA-256)");
    if (CRYPTO_memcmp(digest, bytes + REFERENCE_CHECK, REFERENCE_CHECK_SIZE) != 0)
        return error_raise(ENVELOPE_E_REFERENCE,
                           "the key reference is damaged: its check does not match. Print it anew "
                           "with `envelope reference`");
    return ENVELOPE_OK;
}

envelope_status provider_keyname_reference(keyring *ring, const uint8_t bytes[KEYNAME_SIZE], uint32_t *dek_id)
{
    envelope_status status = reference_check(bytes);
    if (status != ENVELOPE_OK)
        return status;
    if (bytes[REFERENCE_FLAGS] != 0)
        return error_raise(ENVELOPE_E_REFERENCE,
                           "the key reference has flags that this version of Envelope does not "
                           "know (0x%02x)",
                           bytes[REFERENCE_FLAGS]);
    uint8_t own[STORE_ID_SIZE];
    status = keyring_store_id(ring, own);
    if (status != ENVELOPE_OK)
        return status;
    if (memcmp(own, bytes + REFERENCE_STORE, STORE_ID_SIZE) != 0) {
        char theirs[2 * STORE_ID_SIZE + 1], ours[2 * STORE_ID_SIZE + 1];
        text_hex(bytes + REFERENCE_STORE, STORE_ID_SIZE, theirs);
        text_hex(own, STORE_ID_SIZE, ours);
        return error_raise(ENVELOPE_E_REFERENCE, "the key reference belongs to store %s, this is store %s", theirs,
                           ours);
    }
    *dek_id = wire_get_u32(bytes + REFERENCE_DEK_ID);
    if (*dek_id == 0)
        return error_raise(ENVELOPE_E_REFERENCE, "the key reference names no version (DEK id 0)");
    return ENVELOPE_OK;
}
