/*
 * The PKCS#11 client: modules (p11-kit), tokens by URI (RFC 7512), session
 * pools, login, KEKs and the wrapping of DEKs under them.
 *
 * One struct hsm serves a process. Nothing is loaded or connected before the
 * first call that names a KEK. All functions are thread-safe, wait at most the
 * configured deadline, and survive lost sessions, removed and re-inserted
 * tokens and forks: they reopen, log in and retry once. (A call that hangs
 * inside a module cannot be interrupted: its own thread hangs with it; all
 * others, and fork, wait for the deadline and no longer.) Around every C_* call
 * the private library context is the thread's default (base/libctx.h).
 * Called from inside a token they fail with ENVELOPE_E_RECURSION.
 */
#ifndef HSM_HSM_H
#define HSM_HSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

#include "base/settings.h"

typedef struct hsm hsm;

enum { HSM_DEK_SIZE = 32 };

/* The mechanism byte of a wrapped DEK (docs/wire-format.md). */
enum hsm_mechanism { HSM_AES_GCM = 1, HSM_AES_KWP = 2, HSM_RSA_OAEP = 3, HSM_KEY_SERVICE = 4 };
const char *hsm_mechanism_text(enum hsm_mechanism mechanism);

/* Uses module, pin_*, sessions, wrap, iv, deadline, allow_extractable_kek of settings, which must outlive it. No I/O.
 */
envelope_status hsm_new(const struct settings *settings, hsm **made);
/* Closes sessions, forgets PINs; never C_Finalize (see docs/openssl-rules.md). NULL is allowed. */
void hsm_free(hsm *instance);

/*
 * Check a KEK URI without touching a token: a pkcs11: URI that p11-kit recognises entirely, that names a token and an
 * object (label or id), of type secret-key or private/public. ENVELOPE_E_KEK_URI.
 */
envelope_status hsm_check_uri(const char *uri);
/* The URI as it may be stored and shown: no pin-value, no pin-source. malloc'ed; NULL with the error raised. */
char *hsm_public_uri(const char *uri);

struct hsm_kek_info {
    char token_label[33];
    char token_model[17];
    char token_serial[17];
    char module[256];
    char label[128];
    bool rsa;      /* else AES */
    unsigned bits; /* 256, 4096 */
    bool extractable, sensitive, always_sensitive, never_extractable;
    bool can_encrypt, can_wrap;   /* CKA_ENCRYPT/DECRYPT, CKA_WRAP/UNWRAP */
    enum hsm_mechanism mechanism; /* what `wrap` selects for it */
};
/* Find the KEK and read its attributes; unfit attributes are reported in info, not refused here. */
envelope_status hsm_kek_info(hsm *instance, const char *uri, struct hsm_kek_info *info);

/* Whether the KEK's token is a key service's (docs/key-services.md). False where that cannot be told; nothing is
 * raised. */
bool hsm_kek_in_service(hsm *instance, const char *uri);

/*
 * 32 bytes: HKDF-SHA-256 over the token's C_GenerateRandom and our own DRBG, so that neither alone decides. With
 * `random = local` in the settings our DRBG alone, and the token is not asked.
 */
envelope_status hsm_generate_dek(hsm *instance, const char *uri, uint8_t dek[HSM_DEK_SIZE]);

/*
 * Wrap a DEK under the KEK, bound to aad. blob: format | mechanism | body; malloc'ed, the caller frees.
 * Refuses an extractable or non-sensitive KEK (ENVELOPE_E_KEK_ATTRIBUTES) unless allowed in settings.
 */
envelope_status hsm_wrap(hsm *instance, const char *uri, const uint8_t *aad, size_t aad_length,
                         const uint8_t dek[HSM_DEK_SIZE], uint8_t **blob, size_t *blob_length);
/*
 * ENVELOPE_E_UNWRAP: the blob is damaged, or bound to another place, or under another KEK.
 * ENVELOPE_E_HSM_UNAVAILABLE, ENVELOPE_E_HSM_LOGIN, ENVELOPE_E_KEK_UNKNOWN, …: the token or KEK is not there; the
 * blob may be good. dek is written only on success.
 */
envelope_status hsm_unwrap(hsm *instance, const char *uri, const uint8_t *aad, size_t aad_length, const uint8_t *blob,
                           size_t blob_length, uint8_t dek[HSM_DEK_SIZE]);
struct hsm_rewrap {
    const char *from, *to; /* URIs; may be the same */
    const uint8_t *aad_from, *aad_to;
    size_t aad_from_length, aad_to_length;
    const uint8_t *blob;
    size_t blob_length;
    /*
     * HSM_DEK_SIZE of locked memory each, for a DEK that has to pass through this process; wiped afterwards. Both NULL:
     * some is mapped, locked and unmapped for this move, which takes about as long as a token does.
     */
    uint8_t *dek, *again;
};
/*
 * Move a wrapped DEK to another KEK and AAD; made as in hsm_wrap, and known to unwrap. Where both KEKs are one key
 * service's, the service moves it. *inside: so that the DEK never left the service; else it was, for a moment, in
 * locked memory here or in the module. Errors as of hsm_unwrap and hsm_wrap.
 */
envelope_status hsm_rewrap(hsm *instance, const struct hsm_rewrap *move, uint8_t **made, size_t *made_length,
                           bool *inside);

/* One of several that move between the same KEKs. */
struct hsm_rewrap_item {
    const uint8_t *aad_from, *aad_to;
    size_t aad_from_length, aad_to_length;
    const uint8_t *blob;
    size_t blob_length;
    uint8_t *made; /* malloc'ed; NULL: not moved */
    size_t made_length;
};
enum { HSM_REWRAP_MANY = 128 };
/*
 * Several moves in a few requests, at most HSM_REWRAP_MANY, where one key service has both KEKs and takes several
 * pieces at once (OpenBao). What has a `made` is known to unwrap to the same DEK. What has none, for whatever reason,
 * is left to hsm_rewrap, which says why it cannot be moved. False: these KEKs are not for this, and never will be. For
 * a service that can move a DEK inside itself hsm_rewrap is the better way.
 */
bool hsm_rewrap_many(hsm *instance, const char *from, const char *to, struct hsm_rewrap_item *items, size_t count);

/*
 * For the audit trail: what the key service calls the requests that this thread's last hsm_wrap, hsm_unwrap, hsm_rewrap
 * or hsm_rewrap_many made of it ("0f3c…", or "0f3c…, 77a1…" after several), so far as they succeeded; an error's text
 * has the id of the one that failed. "" where no service was asked. Printable; until the thread's next such call.
 */
const char *hsm_requests(void);

/*
 * True for the statuses that mean "the token or its KEK cannot be reached now", so that cached DEKs may serve on. Not
 * for KEK_UNKNOWN, KEK_REFUSED, HSM_LOGIN, HSM_PIN_LOCKED: there the token answered, and said no; so a customer
 * revokes.
 */
bool hsm_is_away(envelope_status status);

/* For setting up: an AES-256 KEK (sensitive, not extractable, encrypt+decrypt+wrap+unwrap) with the URI's label
 * (and id, if it has one) on the URI's token. ENVELOPE_E_KEY_EXISTS if an object matches already. */
envelope_status hsm_kek_generate(hsm *instance, const char *uri);
/* For rigs: C_InitToken + C_InitPIN on the first uninitialised slot of module. ENVELOPE_E_KEY_EXISTS if a token of
 * that label is there already. */
envelope_status hsm_token_init(hsm *instance, const char *module, const char *label, const char *so_pin,
                               const char *user_pin);

struct hsm_counters {
    uint64_t wraps, unwraps, logins, sessions_opened, recoveries, rewraps;
};
void hsm_count(const hsm *instance, struct hsm_counters *counters);

#endif
