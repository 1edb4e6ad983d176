/* Key references for tests, put together by hand as docs/wire-format.md says. */
#ifndef REFERENCE_RIG_H
#define REFERENCE_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/evp.h>

#include "provider_rig.h"

enum { REFERENCE_BYTES = 32 };

/* With key-references = list (NULL: all) and further lines in the provider's section; default_properties are not set.
 */
OSSL_LIB_CTX *reference_rig_context(const struct provider_rig *rig, const char *list, const char *more);

/* From its parts, with a right check. */
void reference_rig_build(uint8_t version, uint8_t flags, uint32_t dek_id, const uint8_t owner[8],
                         uint8_t bytes[REFERENCE_BYTES]);
/* To a version of a key (0: the primary). Returns the DEK id. */
uint32_t reference_rig_make(const struct provider_rig *rig, const char *key, uint32_t version,
                            uint8_t bytes[REFERENCE_BYTES]);

/* One message in one piece; tag for AEADs. False if any call fails; the error queue tells. */
struct reference_message {
    uint8_t out[256];
    int length;
    uint8_t tag[16];
    bool wraps, aead;
};
bool reference_rig_seal(EVP_CIPHER_CTX *ctx, EVP_CIPHER *cipher, const uint8_t *key, const uint8_t *iv,
                        const uint8_t *in, int length, struct reference_message *message);
bool reference_rig_same(const struct reference_message *a, const struct reference_message *b);

#endif
