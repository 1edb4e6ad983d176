/* KEKs: found by URI, their attributes, and what is remembered of them between operations. */
#ifndef HSM_KEK_H
#define HSM_KEK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/types.h>

#include "hsm/hsm.h"
#include "hsm/token.h"
#include "hsm/uri.h"

/* How AES-KWP is reached: a plain encryption, or C_WrapKey of a session object. */
enum hsm_kwp_route { HSM_KWP_NONE, HSM_KWP_ENCRYPT, HSM_KWP_WRAP };

/* What one operation needs of a KEK: valid for the session it was made with. */
struct hsm_kek_view {
    CK_OBJECT_HANDLE key; /* the AES key, or the RSA private key */
    bool rsa;
    unsigned bits;
    bool extractable, sensitive, always_sensitive, never_extractable;
    bool can_encrypt, can_wrap;
    bool has_gcm, has_vendor_gcm, has_oaep, has_service;
    enum hsm_kwp_route kwp;
    CK_MECHANISM_TYPE kwp_mechanism;
    char label[128];
};

struct hsm_kek {
    struct hsm_kek *next; /* in its bucket */
    char *text;           /* the URI as given; secret memory if it has a pin-value in it */
    bool text_secret;
    uint32_t hash;
    struct hsm_uri *uri;
    struct hsm_token *token; /* NULL until first use; guarded by hsm_lock, as is what follows */
    uint64_t generation;     /* of token, that view belongs to; 0: none */
    struct hsm_kek_view view;
    bool was_found;
    int64_t looked_anew;  /* when the module was last started anew because it was missing; clock_monotonic */
    EVP_PKEY *rsa_public; /* made at the first wrap */
    _Atomic CK_MECHANISM_TYPE oaep_hash; /* CKM_SHA256 or CKM_SHA_1, once known; else 0 */
};

/*
 * Find it on its token, or take what was found before. KEK_UNKNOWN; or the session is LOST; or both: it was there once,
 * and the module may have to be started anew to see it again.
 */
envelope_status hsm_kek_resolve(struct hsm_kek *kek, struct hsm_session *session, struct hsm_kek_view *view);
/* Look for it anew: false if it is not to be found, or the token is not there. */
bool hsm_kek_present(struct hsm_kek *kek, struct hsm_session *session);
/* Handles found before are not to be used any more. */
void hsm_kek_forget(struct hsm_kek *kek);
/* How many objects of class match the URI (at most 2 are counted); *key is the last. */
CK_RV hsm_kek_count(const struct hsm_kek *kek, struct hsm_session *session, CK_OBJECT_CLASS class, CK_ULONG *count,
                    CK_OBJECT_HANDLE *key);
/* What settings->wrap selects; KEK_ATTRIBUTES or WRAP_MECHANISM where it does not fit. */
envelope_status hsm_kek_mechanism(const struct hsm_kek *kek, const struct hsm_kek_view *view,
                                  enum hsm_mechanism *mechanism);
/* The public half, as a key of the private library context; the caller frees it. NULL with the error raised. */
EVP_PKEY *hsm_kek_public(struct hsm_kek *kek, struct hsm_session *session, const struct hsm_kek_view *view);

#endif
