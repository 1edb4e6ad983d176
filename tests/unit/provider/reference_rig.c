#include "reference_rig.h"

#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"
#include "base/wire.h"
#include "store/store.h"

OSSL_LIB_CTX *reference_rig_context(const struct provider_rig *rig, const char *list, const char *more)
{
    char section[1024];
    rig_text(section, sizeof section, "%skey-references = %s\n%s", provider_rig_section(rig), list ? list : "all",
             more ? more : "");
    return provider_rig_context(rig, section);
}

void reference_rig_build(uint8_t version, uint8_t flags, uint32_t dek_id, const uint8_t owner[8],
                         uint8_t bytes[REFERENCE_BYTES])
{
    static const char domain[] = "envelope reference v1";
    uint8_t input[sizeof domain - 1 + 20], digest[32];
    memcpy(bytes, "ENVREF", 6);
    bytes[6] = version;
    bytes[7] = flags;
    wire_put_u32(bytes + 8, dek_id);
    memcpy(bytes + 12, owner, 8);
    memcpy(input, domain, sizeof domain - 1);
    memcpy(input + sizeof domain - 1, bytes, 20);
    assert_int_equal(EVP_Digest(input, sizeof input, digest, NULL, EVP_sha256(), NULL), 1);
    memcpy(bytes + 20, digest, 12);
}

uint32_t reference_rig_make(const struct provider_rig *rig, const char *key, uint32_t version,
                            uint8_t bytes[REFERENCE_BYTES])
{
    store *opened;
    struct store_key found;
    struct store_version row;
    uint8_t id[8];
    assert_int_equal(store_open(rig->store, 10000000, &opened), ENVELOPE_OK);
    assert_int_equal(store_key_find(opened, key, &found), ENVELOPE_OK);
    assert_int_equal(store_version_of(opened, key, version ? version : found.primary_version, &row), ENVELOPE_OK);
    assert_int_equal(store_id(opened, id), ENVELOPE_OK);
    uint32_t dek_id = row.dek_id;
    store_version_clear(&row);
    store_close(opened);
    reference_rig_build(1, 0, dek_id, id, bytes);
    return dek_id;
}

bool reference_rig_seal(EVP_CIPHER_CTX *ctx, EVP_CIPHER *cipher, const uint8_t *key, const uint8_t *iv,
                        const uint8_t *in, int length, struct reference_message *message)
{
    int mode = EVP_CIPHER_get_mode(cipher), last = 0;
    memset(message, 0, sizeof *message);
    message->aead = (EVP_CIPHER_get_flags(cipher) & EVP_CIPH_FLAG_AEAD_CIPHER) != 0;
    message->wraps = mode == EVP_CIPH_WRAP_MODE;
    EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    if (!EVP_EncryptInit_ex2(ctx, cipher, NULL, NULL, NULL) ||
        (mode == EVP_CIPH_CCM_MODE && !EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, 16, NULL)) ||
        !EVP_EncryptInit_ex2(ctx, NULL, key, iv, NULL))
        return false;
    if (mode == EVP_CIPH_CCM_MODE && !EVP_EncryptUpdate(ctx, NULL, &last, NULL, length))
        return false;
    last = 0;
    if (!EVP_EncryptUpdate(ctx, message->out, &message->length, in, length))
        return false;
    /* Wrapping is done in one call; its final has nothing to say. */
    if (!message->wraps && !EVP_EncryptFinal_ex(ctx, message->out + message->length, &last))
        return false;
    message->length += last;
    return !message->aead || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, message->tag);
}

bool reference_rig_same(const struct reference_message *a, const struct reference_message *b)
{
    return a->length > 0 && a->length == b->length && memcmp(a->out, b->out, (size_t)a->length) == 0 &&
           memcmp(a->tag, b->tag, sizeof a->tag) == 0;
}
