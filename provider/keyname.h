/*
 * What the 32 "key" bytes of an init call say (docs/wire-format.md, Compact).
 * They name a key and are no secret; but a caller may have put a real key or
 * one derived from a password there, so nothing of them is ever printed.
 */
#ifndef PROVIDER_KEYNAME_H
#define PROVIDER_KEYNAME_H

#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

#include "keyring/keyring.h"

enum { KEYNAME_SIZE = 32 };

enum provider_keyname_kind {
    PROVIDER_KEYNAME_NONE,      /* zeros: the default key; for decryption, whichever the header names */
    PROVIDER_KEYNAME_NAME,      /* the first `length` bytes are a key name */
    PROVIDER_KEYNAME_REFERENCE, /* begins as a key reference does; not yet checked */
    PROVIDER_KEYNAME_NOTHING    /* a raw key, a password-derived one, noise */
};

struct provider_keyname {
    enum provider_keyname_kind kind;
    size_t length;
};

/* Looks at the bytes alone. */
struct provider_keyname provider_keyname_parse(const uint8_t bytes[KEYNAME_SIZE]);

/* The key a name in key bytes stands for. ENVELOPE_E_NOT_A_KEY if there is none: it may have been a secret. */
envelope_status provider_keyname_find(keyring *ring, const uint8_t bytes[KEYNAME_SIZE], size_t length,
                                      keyring_key **key);
/* The DEK id of a key reference. ENVELOPE_E_REFERENCE: damaged, of another store, of a later Envelope. */
envelope_status provider_keyname_reference(keyring *ring, const uint8_t bytes[KEYNAME_SIZE], uint32_t *dek_id);
/* Raise the refusal of bytes that name nothing. */
envelope_status provider_keyname_refuse(void);

#endif
