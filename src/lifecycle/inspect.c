#include "lifecycle/lifecycle.h"

#include <string.h>

#include "base/error.h"
#include "base/wire.h"
#include "keyring/reference.h"

enum { REFERENCE_SIZE = KEYRING_REFERENCE_SIZE, COMPACT_OVERHEAD = 32 }; /* docs/wire-format.md, Compact */

static bool is_reference(const uint8_t *head, size_t length)
{
    return length == REFERENCE_SIZE && keyring_reference_is(head);
}

/* The same as 64 hexadecimal digits, as people keep it in a file; a line end is allowed. */
static bool is_reference_text(const uint8_t *head, size_t length, uint8_t reference[REFERENCE_SIZE])
{
    if (length == (size_t)2 * REFERENCE_SIZE + 1 && head[length - 1] == '\n')
        length--;
    if (length != (size_t)2 * REFERENCE_SIZE)
        return false;
    char digits[2 * REFERENCE_SIZE + 1];
    memcpy(digits, head, length);
    digits[length] = '\0';
    return text_unhex(digits, reference, REFERENCE_SIZE) && is_reference(reference, REFERENCE_SIZE);
}

static envelope_status read_reference(store *from, const uint8_t bytes[REFERENCE_SIZE], uint32_t *dek_id)
{
    struct keyring_reference reference;
    uint8_t id[STORE_ID_SIZE];
    envelope_status status = keyring_reference_read(bytes, &reference);
    if (status == ENVELOPE_OK)
        status = store_id(from, id);
    if (status == ENVELOPE_OK)
        status = keyring_reference_check_store(&reference, id);
    if (status == ENVELOPE_OK)
        *dek_id = reference.dek_id;
    return status;
}

static envelope_status look_up(store *from, uint32_t dek_id, struct lifecycle_inspection *inspection)
{
    struct store_version version;
    envelope_status status = store_version_find(from, dek_id, &version);
    if (status != ENVELOPE_OK)
        return status;
    struct store_key key;
    status = store_key_find(from, version.key_name, &key);
    if (status == ENVELOPE_OK) {
        inspection->dek_id = dek_id;
        inspection->version = version.version;
        inspection->primary = key.primary_version == version.version;
        memcpy(inspection->key_name, version.key_name, sizeof(inspection->key_name));
        inspection->state = version.state;
        inspection->key_state = version.key_state;
        inspection->created = version.created;
    }
    store_version_clear(&version);
    return status;
}

/* Why a header names no version of this store, as far as the first bytes tell. */
static envelope_status not_ours(const uint8_t *head, uint32_t dek_id)
{
    static const struct {
        const char *start, *meaning;
    } known[] = {
        {"Salted__", "made by `openssl enc` with a password, not by Envelope"},
        {"ENVSEAL", "a sealed file, which this version of Envelope cannot read"},
        {"ENVREF", "the start of a key reference, followed by something else"},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (memcmp(head, known[i].start, strlen(known[i].start)) == 0)
            return error_raise(ENVELOPE_E_DATA_FORMAT, "%s", known[i].meaning);
    return error_raise(ENVELOPE_E_DATA_FORMAT,
                       "its header names DEK id %u, which this store does not have: not made by Envelope, or with the "
                       "keys of another store",
                       dek_id);
}

envelope_status lifecycle_inspect(store *from, const uint8_t *head, size_t length,
                                  struct lifecycle_inspection *inspection)
{
    *inspection = (struct lifecycle_inspection){.subject = LIFECYCLE_CIPHERTEXT};
    uint8_t from_text[REFERENCE_SIZE];
    const uint8_t *reference = is_reference(head, length)                   ? head
                               : is_reference_text(head, length, from_text) ? from_text
                                                                            : NULL;
    if (reference) {
        inspection->subject = LIFECYCLE_REFERENCE;
        uint32_t named = 0;
        envelope_status status = read_reference(from, reference, &named);
        return status == ENVELOPE_OK ? look_up(from, named, inspection) : status;
    }
    if (length < COMPACT_OVERHEAD)
        return error_raise(ENVELOPE_E_DATA_TRUNCATED,
                           "%zu bytes are no ciphertext of Envelope: even an empty message has %d", length,
                           COMPACT_OVERHEAD);

    uint32_t dek_id = wire_get_u32(head);
    if (dek_id == 0)
        return not_ours(head, dek_id);
    envelope_status status = look_up(from, dek_id, inspection);
    return status == ENVELOPE_E_VERSION_UNKNOWN ? not_ours(head, dek_id) : status;
}
