#include "keyring/reference.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/error.h"
#include "base/fork.h"
#include "base/libctx.h"
#include "base/text.h"
#include "base/wire.h"

/* "ENVREF" | 0x01 | flags u8 | DEK id u32 | store id 8 | check 12 */
enum { FLAGS_AT = 7, DEK_ID_AT = 8, STORE_ID_AT = 12, CHECK_AT = 20, CHECK_SIZE = 12 };
static const uint8_t prefix[] = {'E', 'N', 'V', 'R', 'E', 'F', 0x01};
static const char domain[] = "envelope reference v1";

bool keyring_reference_is(const uint8_t bytes[KEYRING_REFERENCE_SIZE])
{
    return memcmp(bytes, prefix, sizeof prefix) == 0;
}

static envelope_status compute_check(const uint8_t bytes[CHECK_AT], uint8_t check[CHECK_SIZE])
{
    OSSL_LIB_CTX *private = libctx_private();
    if (!private)
        return error_status();
    uint8_t input[sizeof domain - 1 + CHECK_AT], digest[EVP_MAX_MD_SIZE];
    memcpy(input, domain, sizeof domain - 1);
    memcpy(input + sizeof domain - 1, bytes, CHECK_AT);
    fork_hold();
    int done = EVP_Q_digest(private, "SHA256", NULL, input, sizeof input, digest, NULL);
    fork_release();
    if (done != 1)
        return error_raise(ENVELOPE_E_CRYPTO, "cannot compute the check of a key reference (SHA-256)");
    memcpy(check, digest, CHECK_SIZE);
    return ENVELOPE_OK;
}

envelope_status keyring_reference_write(const struct keyring_reference *reference,
                                        uint8_t bytes[KEYRING_REFERENCE_SIZE])
{
    memcpy(bytes, prefix, sizeof prefix);
    bytes[FLAGS_AT] = 0;
    wire_put_u32(bytes + DEK_ID_AT, reference->dek_id);
    memcpy(bytes + STORE_ID_AT, reference->store_id, STORE_ID_SIZE);
    return compute_check(bytes, bytes + CHECK_AT);
}

envelope_status keyring_reference_read(const uint8_t bytes[KEYRING_REFERENCE_SIZE], struct keyring_reference *reference)
{
    uint8_t check[CHECK_SIZE];
    envelope_status status = compute_check(bytes, check);
    if (status != ENVELOPE_OK)
        return status;
    if (!keyring_reference_is(bytes) || CRYPTO_memcmp(check, bytes + CHECK_AT, CHECK_SIZE) != 0)
        return error_raise(ENVELOPE_E_REFERENCE,
                           "the key reference is damaged: its check does not match. Print it anew "
                           "with `envelope reference`");
    if (bytes[FLAGS_AT] != 0)
        return error_raise(ENVELOPE_E_REFERENCE,
                           "the key reference has flags that this version of Envelope does not "
                           "know (0x%02x)",
                           bytes[FLAGS_AT]);
    reference->dek_id = wire_get_u32(bytes + DEK_ID_AT);
    memcpy(reference->store_id, bytes + STORE_ID_AT, STORE_ID_SIZE);
    if (reference->dek_id == 0)
        return error_raise(ENVELOPE_E_REFERENCE, "the key reference names no version (DEK id 0)");
    return ENVELOPE_OK;
}

envelope_status keyring_reference_check_store(const struct keyring_reference *reference,
                                              const uint8_t store_id[STORE_ID_SIZE])
{
    if (memcmp(store_id, reference->store_id, STORE_ID_SIZE) == 0)
        return ENVELOPE_OK;
    char theirs[2 * STORE_ID_SIZE + 1], ours[2 * STORE_ID_SIZE + 1];
    text_hex(reference->store_id, STORE_ID_SIZE, theirs);
    text_hex(store_id, STORE_ID_SIZE, ours);
    return error_raise(ENVELOPE_E_REFERENCE, "the key reference belongs to store %s, another store than this, %s",
                       theirs, ours);
}
