/* The AAD that binds a wrapped DEK to its place (docs/wire-format.md, The AAD of a wrap). */
#ifndef KEYRING_BINDING_H
#define KEYRING_BINDING_H

#include <stddef.h>
#include <stdint.h>

#include "base/text.h"
#include "store/store.h"

enum { BINDING_MAX = 16 + STORE_ID_SIZE + 4 + 4 + 4 + 1 + 1 + KEY_NAME_MAX };

struct binding_place {
    const uint8_t *store_id; /* STORE_ID_SIZE bytes */
    uint32_t dek_id;
    uint32_t version;
    uint32_t kek_id;
    enum store_algorithm algorithm;
    const char *key_name; /* at most KEY_NAME_MAX bytes */
};

/* Returns the length. */
size_t keyring_binding_aad(const struct binding_place *place, uint8_t aad[BINDING_MAX]);

#endif
