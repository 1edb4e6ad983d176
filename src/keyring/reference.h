/* Key references: 32 public bytes that stand for a version of a key (docs/wire-format.md, Key reference). */
#ifndef KEYRING_REFERENCE_H
#define KEYRING_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

#include "store/store.h"

enum { KEYRING_REFERENCE_SIZE = 32 };

struct keyring_reference {
    uint32_t dek_id;
    uint8_t store_id[STORE_ID_SIZE];
};

/* These bytes begin as a key reference does: they are one, or one that was damaged, and never a raw key. */
bool keyring_reference_is(const uint8_t bytes[KEYRING_REFERENCE_SIZE]);
envelope_status keyring_reference_write(const struct keyring_reference *reference,
                                        uint8_t bytes[KEYRING_REFERENCE_SIZE]);
/* ENVELOPE_E_REFERENCE: damaged, of a later Envelope, names nothing. */
envelope_status keyring_reference_read(const uint8_t bytes[KEYRING_REFERENCE_SIZE],
                                       struct keyring_reference *reference);
/* ENVELOPE_E_REFERENCE: it is of another store than the one with this id. */
envelope_status keyring_reference_check_store(const struct keyring_reference *reference,
                                              const uint8_t store_id[STORE_ID_SIZE]);

#endif
