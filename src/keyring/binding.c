#include "keyring/binding.h"

#include <string.h>

#include "base/wire.h"

static const char binding_label[16] = {'e', 'n', 'v', 'e', 'l', 'o', 'p', 'e', ' ', 'w', 'r', 'a', 'p', ' ', 'v', '1'};

size_t keyring_binding_aad(const struct binding_place *place, uint8_t aad[BINDING_MAX])
{
    size_t name_length = strnlen(place->key_name, KEY_NAME_MAX);
    uint8_t *to = aad;
    memcpy(to, binding_label, sizeof binding_label);
    to += sizeof binding_label;
    memcpy(to, place->store_id, STORE_ID_SIZE);
    to += STORE_ID_SIZE;
    wire_put_u32(to, place->dek_id);
    wire_put_u32(to + 4, place->version);
    wire_put_u32(to + 8, place->kek_id);
    to += 12;
    *to++ = (uint8_t)place->algorithm;
    *to++ = (uint8_t)name_length;
    memcpy(to, place->key_name, name_length);
    to += name_length;
    return (size_t)(to - aad);
}
