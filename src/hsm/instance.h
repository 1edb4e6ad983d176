/* struct hsm, and how an operation is run on a KEK. */
#ifndef HSM_INSTANCE_H
#define HSM_INSTANCE_H

#include "hsm/kek.h"
#include "hsm/wrap.h"

enum { HSM_BUCKETS = 256 };

struct hsm {
    const struct settings *settings;
    struct hsm_counts counts;
    struct hsm_token *tokens; /* guarded by hsm_lock, as is what follows */
    struct hsm_kek *keks[HSM_BUCKETS];
};

int64_t hsm_deadline(const hsm *instance);
/* Refuse to be called from inside a token; make sure of the private library context. */
envelope_status hsm_enter(void);
/* The KEK of a URI, parsed once, and its token with the module loaded. */
envelope_status hsm_kek_get(hsm *instance, const char *uri, int64_t deadline, struct hsm_kek **kek);

/* ENVELOPE_E_KEK_ATTRIBUTES if nothing should be wrapped under it. */
envelope_status hsm_kek_check_fit(const struct hsm_wrap *wrap);

/*
 * Run work with a session and, unless without_kek, the KEK found. If the token turns out to be lost it is connected
 * anew and work runs once more, within the deadline.
 */
typedef envelope_status hsm_work(struct hsm_wrap *wrap, void *argument);
envelope_status hsm_run(hsm *instance, const char *uri, bool without_kek, hsm_work *work, void *argument);

/* The KEK to move to, in the session that has the one to move from; *service: that is where it wraps. */
envelope_status hsm_rewrap_target(const struct hsm_wrap *from, struct hsm_kek *kek, struct hsm_wrap *to, bool *service);

/* hsm_wrap and hsm_unwrap, as parts of a larger operation: what hsm_requests() has stays, and theirs come behind. */
envelope_status hsm_wrap_part(hsm *instance, const char *uri, const uint8_t *aad, size_t aad_length,
                              const uint8_t dek[HSM_DEK_SIZE], uint8_t **blob, size_t *blob_length);
envelope_status hsm_unwrap_part(hsm *instance, const char *uri, const uint8_t *aad, size_t aad_length,
                                const uint8_t *blob, size_t blob_length, uint8_t dek[HSM_DEK_SIZE]);

#endif
