/*
 * The mechanisms a DEK is wrapped with. Each takes a session that is this thread's alone, and writes or reads the body
 * of a blob (docs/wire-format.md). Plaintext lives in the session's scratch memory only.
 */
#ifndef HSM_WRAP_H
#define HSM_WRAP_H

#include <stddef.h>
#include <stdint.h>

#include "hsm/kek.h"

/* AWS CloudHSM's own. */
#define HSM_CKM_CLOUDHSM_AES_GCM (CKM_VENDOR_DEFINED | CKM_AES_GCM)
#define HSM_CKM_CLOUDHSM_ZERO_PAD (CKM_VENDOR_DEFINED | 0x216FUL)

enum {
    HSM_BLOB_FORMAT = 1,
    HSM_BLOB_HEADER = 2,
    HSM_GCM_BODY = 12 + HSM_DEK_SIZE + 16,
    HSM_BOUND_SIZE = HSM_DEK_SIZE + 16, /* DEK, SHA-256(AAD)[:16] */
    HSM_KWP_BODY = HSM_BOUND_SIZE + 8,
    HSM_BODY_MAX = 8192 /* RSA-8192 takes 1024; AWS KMS says at most 6144 */
};

struct hsm_wrap {
    struct hsm_kek *kek;
    struct hsm_session *session;
    struct hsm_kek_view view;
    const uint8_t *aad;
    size_t aad_length;
};

envelope_status hsm_gcm_wrap(struct hsm_wrap *wrap, const uint8_t dek[HSM_DEK_SIZE], uint8_t body[HSM_BODY_MAX],
                             size_t *length);
envelope_status hsm_gcm_unwrap(struct hsm_wrap *wrap, const uint8_t *body, size_t length, uint8_t dek[HSM_DEK_SIZE]);
envelope_status hsm_kwp_wrap(struct hsm_wrap *wrap, const uint8_t dek[HSM_DEK_SIZE], uint8_t body[HSM_BODY_MAX],
                             size_t *length);
envelope_status hsm_kwp_unwrap(struct hsm_wrap *wrap, const uint8_t *body, size_t length, uint8_t dek[HSM_DEK_SIZE]);
envelope_status hsm_rsa_wrap(struct hsm_wrap *wrap, const uint8_t dek[HSM_DEK_SIZE], uint8_t body[HSM_BODY_MAX],
                             size_t *length);
envelope_status hsm_rsa_unwrap(struct hsm_wrap *wrap, const uint8_t *body, size_t length, uint8_t dek[HSM_DEK_SIZE]);
envelope_status hsm_service_wrap(struct hsm_wrap *wrap, const uint8_t dek[HSM_DEK_SIZE], uint8_t body[HSM_BODY_MAX],
                                 size_t *length);
envelope_status hsm_service_unwrap(struct hsm_wrap *wrap, const uint8_t *body, size_t length,
                                   uint8_t dek[HSM_DEK_SIZE]);

/* DEK ‖ SHA-256(AAD)[:16] into to (the plaintext of AES-KWP and RSA-OAEP); and back, compared in constant time. */
envelope_status hsm_bind(const struct hsm_wrap *wrap, const uint8_t dek[HSM_DEK_SIZE], uint8_t to[HSM_BOUND_SIZE]);
envelope_status hsm_unbind(const struct hsm_wrap *wrap, const uint8_t *from, size_t length, uint8_t dek[HSM_DEK_SIZE]);
/* ENVELOPE_E_UNWRAP: why. */
envelope_status hsm_does_not_unwrap(const struct hsm_wrap *wrap, const char *why);

#endif
