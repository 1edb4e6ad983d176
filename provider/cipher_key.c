/* Which DEK: from key bytes, a name or a header to a lease of the keyring. */
#include "cipher.h"

#include <string.h>

#include "base/error.h"
#include "base/fork.h"
#include "base/text.h"

static bool same_key(const keyring_key *a, const keyring_key *b)
{
    return a == b || strcmp(keyring_key_name(a), keyring_key_name(b)) == 0;
}

void provider_cipher_lease_end(struct cipher *cipher)
{
    if (cipher->provider->ring)
        keyring_lease_end(cipher->provider->ring, &cipher->lease);
    cipher->counted = false;
}

/* The key to use when the caller names none: the cipher's own or the default. */
static envelope_status unnamed_key(struct cipher *cipher, keyring_key **key)
{
    const char *name = cipher->bound ? cipher->bound : "";
    return keyring_find(cipher->provider->ring, name, strlen(name), key);
}

/* A cipher named after a key works with no other. */
static envelope_status check_bound(const struct cipher *cipher, const keyring_key *key)
{
    if (!cipher->bound || strcmp(cipher->bound, keyring_key_name(key)) == 0)
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_KEY_MISMATCH,
                       "this cipher is for the key \"%s\" and no other, not for \"%s\"; ENVELOPE-AES-256-GCM takes any",
                       cipher->bound, keyring_key_name(key));
}

static envelope_status begin_encrypt(struct cipher *cipher)
{
    keyring *ring = cipher->provider->ring;
    if (cipher->reference)
        return keyring_reference_begin(ring, cipher->reference, true, &cipher->lease);
    keyring_key *key = cipher->key;
    if (!key) {
        envelope_status status = unnamed_key(cipher, &key);
        if (status != ENVELOPE_OK)
            return status;
    }
    return keyring_encrypt_begin(ring, key, &cipher->lease);
}

envelope_status provider_cipher_lease_encrypt(struct cipher *cipher)
{
    /* A message counted before a fork was counted for one process only. */
    uint64_t generation = fork_generation();
    if (cipher->counted && cipher->generation == generation)
        return ENVELOPE_OK;
    envelope_status status = begin_encrypt(cipher);
    if (status == ENVELOPE_OK && cipher->reference && cipher->bound)
        status = check_bound(cipher, keyring_lease_key(&cipher->lease));
    if (status != ENVELOPE_OK)
        return status;
    cipher->counted = true;
    cipher->generation = generation;
    return ENVELOPE_OK;
}

/* The key of a version other than the one leased, for comparing only. */
static envelope_status reference_key(keyring *ring, uint32_t dek_id, const keyring_key **key)
{
    struct keyring_lease lease = {0};
    envelope_status status = keyring_reference_begin(ring, dek_id, false, &lease);
    if (status == ENVELOPE_OK)
        *key = keyring_lease_key(&lease);
    keyring_lease_end(ring, &lease);
    return status;
}

/* What the caller named must be the header's key. The name itself is not shown: it may have come as key bytes. */
static envelope_status check_named(struct cipher *cipher)
{
    const keyring_key *key = keyring_lease_key(&cipher->lease);
    const keyring_key *named = cipher->key;
    if (cipher->reference && cipher->reference != cipher->lease.dek_id) {
        envelope_status status = reference_key(cipher->provider->ring, cipher->reference, &named);
        if (status != ENVELOPE_OK)
            return error_context(status, "cannot compare the key reference with the data's key");
    }
    if (named && !same_key(named, key))
        return error_raise(ENVELOPE_E_KEY_MISMATCH,
                           "the data is under the key \"%s\" (DEK id %u), another one was named for decryption",
                           keyring_key_name(key), (unsigned)cipher->lease.dek_id);
    return check_bound(cipher, key);
}

envelope_status provider_cipher_lease_decrypt(struct cipher *cipher, uint32_t dek_id)
{
    if (dek_id == 0)
        return error_raise(ENVELOPE_E_DATA_FORMAT, "the data does not begin with a DEK id: it was not made by "
                                                   "ENVELOPE-AES-256-GCM");
    envelope_status status = keyring_decrypt_begin(cipher->provider->ring, dek_id, &cipher->lease);
    if (status != ENVELOPE_OK)
        return status;
    cipher->counted = false;
    if (!cipher->key && !cipher->reference && !cipher->bound)
        return ENVELOPE_OK;
    return check_named(cipher);
}

/* Encrypting, lease the DEK now: an init that succeeds promises that data can follow. */
static envelope_status use_now(struct cipher *cipher)
{
    cipher->counted = false;
    return cipher->encrypt ? provider_cipher_lease_encrypt(cipher) : ENVELOPE_OK;
}

static envelope_status use_key(struct cipher *cipher, keyring_key *key)
{
    envelope_status status = check_bound(cipher, key);
    if (status != ENVELOPE_OK)
        return status;
    cipher->key = key;
    cipher->reference = 0;
    return use_now(cipher);
}

envelope_status provider_cipher_use_bytes(struct cipher *cipher, const uint8_t bytes[KEYNAME_SIZE])
{
    keyring *ring = cipher->provider->ring;
    struct provider_keyname parsed = provider_keyname_parse(bytes);
    keyring_key *key = NULL;
    uint32_t reference = 0;
    envelope_status status = ENVELOPE_OK;
    switch (parsed.kind) {
    case PROVIDER_KEYNAME_NAME:
        status = provider_keyname_find(ring, bytes, parsed.length, &key);
        return status == ENVELOPE_OK ? use_key(cipher, key) : status;
    case PROVIDER_KEYNAME_REFERENCE:
        status = provider_keyname_reference(ring, bytes, &reference);
        break;
    case PROVIDER_KEYNAME_NONE:
        break;
    default:
        return provider_keyname_refuse();
    }
    if (status != ENVELOPE_OK)
        return status;
    cipher->key = NULL;
    cipher->reference = reference;
    return use_now(cipher);
}

envelope_status provider_cipher_use_name(struct cipher *cipher, const char *name, size_t length)
{
    keyring_key *key;
    envelope_status status = keyring_find(cipher->provider->ring, name, length, &key);
    return status == ENVELOPE_OK ? use_key(cipher, key) : status;
}
