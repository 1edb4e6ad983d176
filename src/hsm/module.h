/* PKCS#11 modules of this process, each loaded and initialised once, and the guard around every call into them. */
#ifndef HSM_MODULE_H
#define HSM_MODULE_H

#include <stdbool.h>
#include <stdint.h>

#include <p11-kit/pkcs11.h>

#include <envelope/pkcs11-kms.h>
#include <envelope/status.h>

#include "base/libctx.h"
#include "hsm/gate.h"

struct hsm_token;

struct hsm_module {
    struct hsm_gate gate; /* first: the fork handler gets a pointer to it */
    struct hsm_module *next;
    char *path;
    CK_FUNCTION_LIST *functions;
    const CK_ENVELOPE_KMS_FUNCTIONS *service; /* NULL: no key service (hsm/service.h) */
    struct hsm_token *tokens;                 /* of every struct hsm, linked by next_of_module; guarded by hsm_lock */
    bool ready;        /* C_Initialize succeeded in this process, as far as we know; guarded, as is what follows */
    bool owner;        /* and it was ours, so C_Finalize is ours too */
    bool was_ready;    /* it worked once: later failures mean "away", not "misconfigured" */
    int64_t restarted; /* or first initialised; clock_monotonic */
    _Atomic uint64_t generation; /* raised with every C_Initialize of ours that made a new state */
};

/* Load (once per path) and initialise. The module lives until the process ends. */
envelope_status hsm_module_get(const char *path, int64_t deadline, struct hsm_module **module);
/* Initialise it if it is not: in a forked child, after somebody else's C_Finalize. */
envelope_status hsm_module_ready(struct hsm_module *module, int64_t deadline);
bool hsm_module_is_ready(const struct hsm_module *module);
/* Somebody's C_Finalize was seen. The mutex is held. */
void hsm_module_forget(struct hsm_module *module);
/*
 * C_Finalize and C_Initialize, with nobody of ours inside: the only way to make SoftHSM look at its files again.
 * *done is false, and ENVELOPE_OK returned, where that is not ours to do (another owner), or was done a moment ago and
 * would disturb other tokens of the module. A program that calls such a module besides us, after us and
 * without owning it, has to live with this; C_Finalize ends its sessions too.
 */
envelope_status hsm_module_restart(struct hsm_module *module, int64_t deadline, bool *done);

/*
 * Around every call. Enter fails, and hsm_call_refusal() is what the call shall seem to have returned, in a child
 * forked while somebody was inside, and when generation is not 0 and the module was initialised anew since: handles of
 * that generation may name other sessions now.
 */
bool hsm_call_enter(struct hsm_module *module, uint64_t generation);
CK_RV hsm_call_leave(struct hsm_module *module, CK_RV rv);
CK_RV hsm_call_refusal(void);

/* rv = HSM_CALL(module, C_GetSlotList, CK_TRUE, slots, &count); */
#define HSM_CALL(module, name, ...) HSM_CALL_IN(module, 0, name, __VA_ARGS__)
#define HSM_CALL_IN(module, generation, name, ...)                                                                     \
    (hsm_call_enter(module, generation) ? hsm_call_leave(module, (module)->functions->name(__VA_ARGS__))               \
                                        : hsm_call_refusal())

#endif
