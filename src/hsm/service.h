/*
 * Key services: a module (our own bridge, envelope-kms.so) that offers the interface of <envelope/pkcs11-kms.h> asks a
 * service far away, which has reasons of its own to refuse, words of its own for them, and no state that a new
 * session would mend.
 */
#ifndef HSM_SERVICE_H
#define HSM_SERVICE_H

#include <stdbool.h>

#include <p11-kit/pkcs11.h>

#include <envelope/pkcs11-kms.h>
#include <envelope/status.h>

#include "hsm/wrap.h"

/* The module's vendor interface; NULL: it has none. */
const CK_ENVELOPE_KMS_FUNCTIONS *hsm_service_find(const CK_FUNCTION_LIST *functions);

/* Raise what a call on a session of such a module returned; hsm_session_fail's part for key services. */
envelope_status hsm_service_fail(struct hsm_session *session, CK_RV rv, bool unwrapping, const char *what);
/* ENVELOPE_E_KEK_UNKNOWN: a search just made found no such key. */
envelope_status hsm_service_missing(struct hsm_session *session, const char *name);

/* Begin hsm_requests() anew for this thread. */
void hsm_requests_forget(void);
/* The session's last call succeeded: note what the service calls it. One that does not say leaves nothing to note. */
void hsm_service_note(struct hsm_session *session);

/* HSM_SESSION_CALL for the vendor interface. */
#define HSM_SERVICE_CALL(session, name, ...)                                                                           \
    (hsm_call_enter((session)->token->module, (session)->module_generation)                                            \
         ? hsm_call_leave((session)->token->module,                                                                    \
                          (session)->token->module->service->name((session)->handle, __VA_ARGS__))                     \
         : hsm_call_refusal())

/* Would the service open this blob? It is asked for a trial that reveals nothing. */
envelope_status hsm_service_try(struct hsm_wrap *wrap, const uint8_t *body, size_t length);

/*
 * Move a body from one KEK and AAD to another of the same token, by the service itself. *inside: the DEK never left it.
 */
envelope_status hsm_service_rewrap(struct hsm_wrap *from, const struct hsm_wrap *to, const uint8_t *body, size_t length,
                                   uint8_t moved[HSM_BODY_MAX], size_t *moved_length, bool *inside);

#endif
