/*
 * The bytes of a message (docs/wire-format.md, Compact):
 *
 *     DEK id 4 | nonce 12 | ciphertext | tag 16
 *
 * Encrypting, the header leaves with the first data, the tag with final; so the
 * output runs 16 bytes ahead of the input. Decrypting, the header is taken off
 * and the last 16 bytes seen are held back, since they may be the tag. However
 * the input is cut, the output is the same; an update gives at most 16 bytes
 * more than it got, a final at most 32.
 */
#include "cipher.h"

#include <string.h>
#include <openssl/crypto.h>

#include "base/error.h"
#include "base/fork.h"
#include "base/wire.h"

/* ---- AAD ---- */

static const uint8_t *aad_bytes(const struct cipher_aad *aad)
{
    return aad->heap ? aad->heap : aad->bytes;
}

static void aad_clear(struct cipher_aad *aad)
{
    if (aad->heap)
        OPENSSL_clear_free(aad->heap, aad->capacity);
    aad->heap = NULL;
    aad->length = 0;
    aad->capacity = CIPHER_AAD_INLINE;
}

static envelope_status aad_reserve(struct cipher_aad *aad, size_t length)
{
    if (length <= aad->capacity)
        return ENVELOPE_OK;
    size_t capacity = aad->capacity * 2 > length ? aad->capacity * 2 : length;
    uint8_t *grown = OPENSSL_malloc(capacity);
    if (!grown)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory for %zu bytes of AAD", length);
    memcpy(grown, aad_bytes(aad), aad->length);
    if (aad->heap)
        OPENSSL_clear_free(aad->heap, aad->capacity);
    aad->heap = grown;
    aad->capacity = capacity;
    return ENVELOPE_OK;
}

envelope_status provider_stream_aad(struct cipher *cipher, const uint8_t *in, size_t length)
{
    if (length == 0)
        return ENVELOPE_OK;
    if (cipher->state != CIPHER_READY)
        return error_raise(ENVELOPE_E_CONTEXT_STATE, "AAD must come after an init and before the data");
    struct cipher_aad *aad = &cipher->aad;
    if (length > CIPHER_AAD_MAX - aad->length)
        return error_raise(ENVELOPE_E_DATA_TOO_LONG, "more than %d bytes of AAD", (int)CIPHER_AAD_MAX);
    envelope_status status = aad_reserve(aad, aad->length + length);
    if (status != ENVELOPE_OK)
        return status;
    memcpy((aad->heap ? aad->heap : aad->bytes) + aad->length, in, length);
    aad->length += length;
    return ENVELOPE_OK;
}

static envelope_status feed_aad(struct cipher *cipher, const uint8_t id[CIPHER_ID_SIZE])
{
    envelope_status status = aesgcm_aad(cipher->lease.gcm, id, CIPHER_ID_SIZE);
    if (status != ENVELOPE_OK || cipher->aad.length == 0)
        return status;
    return aesgcm_aad(cipher->lease.gcm, aad_bytes(&cipher->aad), cipher->aad.length);
}

/* ---- overlapping buffers ---- */

static bool overlap(const uint8_t *a, const uint8_t *b, size_t length)
{
    uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
    return x < y ? y - x < length : x - y < length;
}

/* AES-GCM works in place or apart, not shifted: if the two overlap with a shift, move first and work in place. */
static const uint8_t *settle(uint8_t *to, const uint8_t *from, size_t length)
{
    if (to == from || !overlap(to, from, length))
        return from;
    memmove(to, from, length);
    return to;
}

/* ---- state ---- */

void provider_stream_reset(struct cipher *cipher)
{
    cipher->state = CIPHER_READY;
    cipher->length = 0;
    cipher->held_length = 0;
    aad_clear(&cipher->aad);
}

void provider_stream_clear(struct cipher *cipher)
{
    aad_clear(&cipher->aad);
}

static envelope_status failed(struct cipher *cipher, envelope_status status)
{
    if (status != ENVELOPE_OK)
        cipher->state = CIPHER_FAILED;
    return status;
}

static envelope_status wrong_state(const struct cipher *cipher)
{
    switch (cipher->state) {
    case CIPHER_NEW:
        return error_raise(ENVELOPE_E_CONTEXT_STATE, "the cipher context has not been initialised");
    case CIPHER_DONE:
        return error_raise(ENVELOPE_E_CONTEXT_STATE, "the message is complete; initialise the context for the next");
    default:
        return error_raise(ENVELOPE_E_CONTEXT_STATE, "the message has failed before; initialise the context anew");
    }
}

/* In a forked child a message begun by the parent has the parent's nonce: with two continuations it would be used
 * twice. */
static envelope_status check_open(const struct cipher *cipher)
{
    if (cipher->state != CIPHER_READY && cipher->state != CIPHER_BODY)
        return wrong_state(cipher);
    if (cipher->state == CIPHER_BODY && cipher->encrypt && cipher->generation != fork_generation())
        return error_raise(ENVELOPE_E_CONTEXT_STATE,
                           "the process was forked in the middle of this message; only the parent can go on with it");
    return ENVELOPE_OK;
}

static envelope_status check_room(size_t need, size_t have)
{
    if (need <= have)
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_ARGUMENT, "the output buffer has %zu bytes, %zu are needed", have, need);
}

static envelope_status check_length(const struct cipher *cipher, size_t length)
{
    if (length <= CIPHER_DATA_MAX - cipher->length)
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_DATA_TOO_LONG, "a message has at most 2^36-32 bytes; cut the data into several");
}

/* ---- encryption ---- */

/* Up to here nothing of the message exists, so a failure (the token is away, say) may be followed by another try. */
static envelope_status encrypt_start(struct cipher *cipher, uint8_t header[CIPHER_HEADER_SIZE])
{
    envelope_status status = provider_cipher_lease_encrypt(cipher);
    if (status != ENVELOPE_OK)
        return status;
    wire_put_u32(header, cipher->lease.dek_id);
    status = nonce_next(header + CIPHER_ID_SIZE);
    if (status != ENVELOPE_OK)
        return status;
    cipher->counted = false;
    status = aesgcm_start(cipher->lease.gcm, true, header + CIPHER_ID_SIZE);
    if (status == ENVELOPE_OK)
        status = feed_aad(cipher, header);
    if (status == ENVELOPE_OK)
        cipher->state = CIPHER_BODY;
    return status;
}

static envelope_status encrypt_update(struct cipher *cipher, uint8_t *out, size_t *out_length, size_t out_size,
                                      const uint8_t *in, size_t length)
{
    uint8_t header[CIPHER_HEADER_SIZE];
    size_t ahead = cipher->state == CIPHER_READY ? CIPHER_HEADER_SIZE : 0;
    if (out_size < ahead)
        return check_room(ahead, out_size);
    envelope_status status = check_room(length, out_size - ahead);
    if (status == ENVELOPE_OK)
        status = check_length(cipher, length);
    if (status == ENVELOPE_OK && ahead)
        status = encrypt_start(cipher, header);
    if (status != ENVELOPE_OK)
        return status;
    in = settle(out + ahead, in, length);
    status = failed(cipher, aesgcm_update(cipher->lease.gcm, in, length, out + ahead));
    if (status != ENVELOPE_OK)
        return status;
    /* Last, since it may lie over the input. */
    memcpy(out, header, ahead);
    cipher->length += length;
    *out_length = ahead + length;
    return ENVELOPE_OK;
}

static envelope_status encrypt_final(struct cipher *cipher, uint8_t *out, size_t *out_length, size_t out_size)
{
    size_t ahead = cipher->state == CIPHER_READY ? CIPHER_HEADER_SIZE : 0;
    envelope_status status = check_room(ahead + AESGCM_TAG_SIZE, out ? out_size : 0);
    if (status == ENVELOPE_OK && ahead)
        status = encrypt_start(cipher, out);
    if (status != ENVELOPE_OK)
        return status;
    status = failed(cipher, aesgcm_final_encrypt(cipher->lease.gcm, out + ahead));
    if (status != ENVELOPE_OK)
        return status;
    *out_length = ahead + AESGCM_TAG_SIZE;
    return ENVELOPE_OK;
}

/* ---- decryption ---- */

static envelope_status decrypt_start(struct cipher *cipher, const uint8_t header[CIPHER_HEADER_SIZE])
{
    envelope_status status = provider_cipher_lease_decrypt(cipher, wire_get_u32(header));
    if (status == ENVELOPE_OK)
        status = aesgcm_start(cipher->lease.gcm, false, header + CIPHER_ID_SIZE);
    if (status == ENVELOPE_OK)
        status = feed_aad(cipher, header);
    if (status == ENVELOPE_OK)
        cipher->state = CIPHER_BODY;
    return status;
}

/* Take what belongs to the header off the input. */
static envelope_status decrypt_header(struct cipher *cipher, const uint8_t **in, size_t *length)
{
    if (cipher->held_length == 0 && *length >= CIPHER_HEADER_SIZE) {
        envelope_status status = decrypt_start(cipher, *in);
        *in += CIPHER_HEADER_SIZE;
        *length -= CIPHER_HEADER_SIZE;
        return status;
    }
    size_t missing = CIPHER_HEADER_SIZE - cipher->held_length;
    size_t take = *length < missing ? *length : missing;
    memcpy(cipher->held + cipher->held_length, *in, take);
    cipher->held_length += take;
    *in += take;
    *length -= take;
    if (cipher->held_length < CIPHER_HEADER_SIZE)
        return ENVELOPE_OK;
    cipher->held_length = 0;
    return decrypt_start(cipher, cipher->held);
}

/* Too little to fill the 16 held bytes anew: they shift by what comes in. */
static envelope_status decrypt_little(struct cipher *cipher, uint8_t *out, size_t release, const uint8_t *in,
                                      size_t length)
{
    uint8_t little[2 * AESGCM_TAG_SIZE];
    size_t total = cipher->held_length + length;
    memcpy(little, cipher->held, cipher->held_length);
    memcpy(little + cipher->held_length, in, length);
    memcpy(cipher->held, little + release, total - release);
    cipher->held_length = total - release;
    return release ? aesgcm_update(cipher->lease.gcm, little, release, out) : ENVELOPE_OK;
}

/* The held bytes and all of the input but its last 16 come out. */
static envelope_status decrypt_much(struct cipher *cipher, uint8_t *out, const uint8_t *in, size_t length)
{
    aesgcm *gcm = cipher->lease.gcm;
    uint8_t tail[AESGCM_TAG_SIZE];
    size_t held = cipher->held_length, body = length - AESGCM_TAG_SIZE;
    envelope_status status = ENVELOPE_OK;
    memcpy(tail, in + body, AESGCM_TAG_SIZE);
    if (held == 0) {
        status = aesgcm_update(gcm, settle(out, in, body), body, out);
    } else if (overlap(out, in, held + length)) {
        memmove(out + held, in, body);
        memcpy(out, cipher->held, held);
        status = aesgcm_update(gcm, out, held + body, out);
    } else {
        status = aesgcm_update(gcm, cipher->held, held, out);
        if (status == ENVELOPE_OK)
            status = aesgcm_update(gcm, in, body, out + held);
    }
    memcpy(cipher->held, tail, AESGCM_TAG_SIZE);
    cipher->held_length = AESGCM_TAG_SIZE;
    return status;
}

static envelope_status decrypt_body(struct cipher *cipher, uint8_t *out, size_t *out_length, size_t out_size,
                                    const uint8_t *in, size_t length)
{
    size_t total = cipher->held_length + length;
    size_t release = total > AESGCM_TAG_SIZE ? total - AESGCM_TAG_SIZE : 0;
    envelope_status status = check_room(release, out_size);
    if (status == ENVELOPE_OK)
        status = check_length(cipher, release);
    if (status != ENVELOPE_OK)
        return status;
    if (length < AESGCM_TAG_SIZE)
        status = decrypt_little(cipher, out, release, in, length);
    else
        status = decrypt_much(cipher, out, in, length);
    if (status != ENVELOPE_OK)
        return status;
    cipher->length += release;
    *out_length = release;
    return ENVELOPE_OK;
}

static envelope_status decrypt_update(struct cipher *cipher, uint8_t *out, size_t *out_length, size_t out_size,
                                      const uint8_t *in, size_t length)
{
    envelope_status status = ENVELOPE_OK;
    if (cipher->state == CIPHER_READY)
        status = decrypt_header(cipher, &in, &length);
    if (status == ENVELOPE_OK && cipher->state == CIPHER_BODY)
        status = decrypt_body(cipher, out, out_length, out_size, in, length);
    return failed(cipher, status);
}

static envelope_status decrypt_final(struct cipher *cipher)
{
    if (cipher->state == CIPHER_READY || cipher->held_length < AESGCM_TAG_SIZE) {
        size_t seen = cipher->held_length + (cipher->state == CIPHER_BODY ? CIPHER_HEADER_SIZE : 0);
        return error_raise(ENVELOPE_E_DATA_TRUNCATED, "the data ends after %zu bytes; the shortest message has %d",
                           seen, (int)CIPHER_OVERHEAD);
    }
    envelope_status status = aesgcm_final_decrypt(cipher->lease.gcm, cipher->held);
    if (status != ENVELOPE_E_DATA_AUTH)
        return status;
    return error_raise(
        ENVELOPE_E_DATA_AUTH,
        "the data does not authenticate under key \"%s\", DEK id %u: it was changed or cut, or the AAD is "
        "not the one it was encrypted with. What has been decrypted so far must not be used",
        keyring_key_name(keyring_lease_key(&cipher->lease)), (unsigned)cipher->lease.dek_id);
}

/* ---- both ---- */

envelope_status provider_stream_update(struct cipher *cipher, uint8_t *out, size_t *out_length, size_t out_size,
                                       const uint8_t *in, size_t length)
{
    envelope_status status = check_open(cipher);
    if (status != ENVELOPE_OK || length == 0)
        return status;
    if (cipher->encrypt)
        return encrypt_update(cipher, out, out_length, out_size, in, length);
    return decrypt_update(cipher, out, out_length, out_size, in, length);
}

envelope_status provider_stream_final(struct cipher *cipher, uint8_t *out, size_t *out_length, size_t out_size)
{
    envelope_status status = check_open(cipher);
    if (status != ENVELOPE_OK)
        return status;
    if (cipher->encrypt)
        status = encrypt_final(cipher, out, out_length, out_size);
    else
        status = failed(cipher, decrypt_final(cipher));
    if (status == ENVELOPE_OK)
        cipher->state = CIPHER_DONE;
    return status;
}

/* ---- copies ---- */

static envelope_status copy_body(const struct cipher *from, struct cipher *to)
{
    aesgcm *gcm = aesgcm_copy(from->lease.gcm);
    if (!gcm)
        return error_raise(ENVELOPE_E_COPY_REFUSED, "this OpenSSL cannot copy an AES-GCM context in the middle of a "
                                                    "message; copy it before the data, or decrypt twice");
    envelope_status status = keyring_decrypt_begin(to->provider->ring, from->lease.dek_id, &to->lease);
    if (status != ENVELOPE_OK) {
        aesgcm_free(gcm);
        return status;
    }
    /* A context keyed with the same DEK takes the place of the leased one, and goes back with the lease. */
    aesgcm_free(to->lease.gcm);
    to->lease.gcm = gcm;
    return ENVELOPE_OK;
}

envelope_status provider_stream_copy(const struct cipher *from, struct cipher *to)
{
    if (from->state == CIPHER_BODY && from->encrypt)
        return error_raise(ENVELOPE_E_COPY_REFUSED,
                           "an encrypting context cannot be copied once its header is out: both would go on under one "
                           "nonce. Copy it before the first data");
    to->state = from->state;
    to->encrypt = from->encrypt;
    to->length = from->length;
    to->held_length = from->held_length;
    memcpy(to->held, from->held, sizeof to->held);
    /* The copy of a message not begun gets its own count and its own nonce when it begins. */
    if (from->state == CIPHER_BODY)
        return copy_body(from, to);
    if (from->state != CIPHER_READY)
        return ENVELOPE_OK;
    return provider_stream_aad(to, aad_bytes(&from->aad), from->aad.length);
}
