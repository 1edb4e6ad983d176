#include "keyname.h"

#include <stdbool.h>
#include <string.h>
#include <openssl/crypto.h>

#include "base/error.h"
#include "base/text.h"
#include "keyring/reference.h"

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
    if (keyring_reference_is(bytes))
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

envelope_status provider_keyname_reference(keyring *ring, const uint8_t bytes[KEYNAME_SIZE], uint32_t *dek_id)
{
    struct keyring_reference reference;
    uint8_t own[STORE_ID_SIZE];
    /* Damaged is damaged, whether the store can be reached or not. */
    envelope_status status = keyring_reference_read(bytes, &reference);
    if (status == ENVELOPE_OK)
        status = keyring_store_id(ring, own);
    if (status == ENVELOPE_OK)
        status = keyring_reference_check_store(&reference, own);
    if (status == ENVELOPE_OK)
        *dek_id = reference.dek_id;
    return status;
}
