#include "hsm/service.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "hsm/ckr.h"

/* PKCS#11 3.0; not in every pkcs11.h. */
struct interface {
    CK_UTF8CHAR *name;
    void *functions;
    CK_FLAGS flags;
};
typedef CK_RV get_interface(CK_UTF8CHAR *name, CK_VERSION *version, struct interface **interface, CK_FLAGS flags);

/* Where in the scratch memory of a session an unwrapped DEK comes out. */
enum { OUT_AT = 0, OUT_SIZE = 256, REASON_SIZE = 480 };

/*
 * p11-kit gives the list of functions and keeps the module's handle to itself; the file that the functions stand in is
 * the module, whatever name it was loaded by.
 */
static get_interface *find_get_interface(const CK_FUNCTION_LIST *functions)
{
    union {
        CK_RV (*function)(void *);
        void *address;
    } any = {.function = functions->C_Initialize};
    union {
        void *address;
        get_interface *function;
    } found = {NULL};
    Dl_info where;
    if (!dladdr(any.address, &where) || !where.dli_fname)
        return NULL;
    void *module = dlopen(where.dli_fname, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
    if (!module)
        return NULL;
    found.address = dlsym(module, "C_GetInterface");
    /* dlsym looks into what the module needs as well: not that one. */
    Dl_info other;
    if (found.address && (!dladdr(found.address, &other) || other.dli_fbase != where.dli_fbase))
        found.address = NULL;
    dlclose(module);
    return found.function;
}

const CK_ENVELOPE_KMS_FUNCTIONS *hsm_service_find(const CK_FUNCTION_LIST *functions)
{
    static CK_UTF8CHAR name[] = ENVELOPE_KMS_INTERFACE;
    struct interface *interface = NULL;
    get_interface *get = find_get_interface(functions);
    if (!get || get(name, NULL, &interface, 0) != CKR_OK || !interface)
        return NULL;
    const CK_ENVELOPE_KMS_FUNCTIONS *service = interface->functions;
    return service && service->version.major == 1 && service->rewrap && service->last_message && service->last_text
               ? service
               : NULL;
}

/* --- what went wrong --- */

/* True if the service answered, and this is what it said; else a failure on the way to it, or none of it. */
static bool service_said(struct hsm_session *session, CK_RV rv, CK_ENVELOPE_KMS_MESSAGE *message)
{
    memset(message, 0, sizeof *message);
    if (HSM_SERVICE_CALL(session, last_message, message, sizeof *message) != CKR_OK || message->rv != rv) {
        memset(message, 0, sizeof *message);
        return false;
    }
    return message->service_code[0] != '\0';
}

/*
 * A service that answered "no" about a key has decided, and cached DEKs must not outlive that; one that cannot be
 * reached, or is too busy, has not. Neither is mended by another session, so these are not LOST. The module has tried
 * again by itself.
 */
static envelope_status judge(CK_RV rv, bool unwrapping, bool answered, bool *plain)
{
    *plain = false;
    switch (rv) {
    case CKR_DEVICE_REMOVED:
    case CKR_DEVICE_ERROR:
    case CKR_TOKEN_NOT_RECOGNIZED: /* a certificate that is not to be trusted */
        return ENVELOPE_E_HSM_UNAVAILABLE;
    case CKR_USER_NOT_LOGGED_IN: /* or whoever gives out credentials was not to be reached */
        return answered ? ENVELOPE_E_HSM_LOGIN : ENVELOPE_E_HSM_UNAVAILABLE;
    case CKR_KEY_FUNCTION_NOT_PERMITTED:
        return ENVELOPE_E_KEK_REFUSED;
    case CKR_ENCRYPTED_DATA_INVALID:
    case CKR_ENCRYPTED_DATA_LEN_RANGE:
        return unwrapping ? ENVELOPE_E_UNWRAP : ENVELOPE_E_HSM;
    case CKR_GENERAL_ERROR:
    case CKR_FUNCTION_FAILED:
        return ENVELOPE_E_HSM;
    case CKR_KEY_HANDLE_INVALID:
    case CKR_OBJECT_HANDLE_INVALID:
        if (answered)
            return ENVELOPE_E_KEK_UNKNOWN;
        break; /* a handle that was forgotten meanwhile */
    default:
        break;
    }
    *plain = true;
    return ENVELOPE_OK;
}

envelope_status hsm_service_fail(struct hsm_session *session, CK_RV rv, bool unwrapping, const char *what)
{
    CK_ENVELOPE_KMS_MESSAGE message;
    char reason[REASON_SIZE] = "", request[160] = "";
    bool plain;
    bool answered = service_said(session, rv, &message);
    envelope_status status = judge(rv, unwrapping, answered, &plain);
    if (message.text[0])
        snprintf(reason, sizeof reason, ": %.*s", REASON_SIZE - 3, message.text);
    if (message.request_id[0])
        snprintf(request, sizeof request, " (request %s)", message.request_id);
    if (plain)
        status = hsm_session_judge(session, rv, unwrapping);
    return error_raise(status, "token \"%s\": %s: %s%s%s", session->token->name, what, hsm_ckr_name(rv), reason,
                       request);
}

envelope_status hsm_service_missing(struct hsm_session *session, const char *name)
{
    CK_ENVELOPE_KMS_MESSAGE message;
    if (service_said(session, CKR_OK,
                     &message)) /* a key it has, but in a state in which it is none: "PendingDeletion" */
        return error_raise(ENVELOPE_E_KEK_UNKNOWN, "token \"%s\": the KEK \"%s\" cannot be used: %s: %s",
                           session->token->name, name, message.service_code, message.service_message);
    return error_raise(ENVELOPE_E_KEK_UNKNOWN,
                       "token \"%s\": the service has no key \"%s\" for us: deleted, misnamed, or of another region, "
                       "account or mount",
                       session->token->name, name);
}

/* --- what was asked --- */

/* Three ids of full length; services give out some 36 bytes. */
static _Thread_local char requests[3 * sizeof(((CK_ENVELOPE_KMS_MESSAGE *)NULL)->request_id)];

void hsm_requests_forget(void)
{
    requests[0] = '\0';
}

const char *hsm_requests(void)
{
    return requests;
}

void hsm_service_note(struct hsm_session *session)
{
    CK_ENVELOPE_KMS_MESSAGE message;
    char id[sizeof message.request_id];
    if (HSM_SERVICE_CALL(session, last_message, &message, sizeof message) != CKR_OK || message.request_id[0] == '\0')
        return;
    message.request_id[sizeof message.request_id - 1] = '\0';
    text_printable(message.request_id, strlen(message.request_id), id, sizeof id);
    size_t used = strlen(requests);
    snprintf(requests + used, sizeof requests - used, "%s%s", used ? ", " : "", id);
}

/* --- wrapping --- */

static CK_ENVELOPE_KMS_PARAMS params_of(const struct hsm_wrap *wrap, CK_FLAGS flags)
{
    return (CK_ENVELOPE_KMS_PARAMS){
        .pAAD = (CK_BYTE *)(uintptr_t)wrap->aad, .ulAADLen = wrap->aad_length, .flags = flags};
}

static envelope_status blob_too_long(const struct hsm_wrap *wrap, CK_ULONG length)
{
    return error_raise(ENVELOPE_E_HSM, "token \"%s\": the service made a blob of %lu bytes, and %d is the most",
                       wrap->session->token->name, length, HSM_BODY_MAX);
}

envelope_status hsm_service_wrap(struct hsm_wrap *wrap, const uint8_t dek[HSM_DEK_SIZE], uint8_t body[HSM_BODY_MAX],
                                 size_t *length)
{
    struct hsm_session *session = wrap->session;
    CK_ENVELOPE_KMS_PARAMS params = params_of(wrap, 0);
    CK_MECHANISM mechanism = {CKM_ENVELOPE_KMS_WRAP, &params, sizeof params};
    CK_ULONG made = HSM_BODY_MAX;
    memcpy(session->scratch, dek, HSM_DEK_SIZE);
    CK_RV rv = HSM_SESSION_CALL(session, C_EncryptInit, &mechanism, wrap->view.key);
    if (rv == CKR_OK)
        rv = HSM_SESSION_CALL(session, C_Encrypt, session->scratch, HSM_DEK_SIZE, body, &made);
    if (rv == CKR_BUFFER_TOO_SMALL) {
        (void)HSM_SESSION_CALL(session, C_EncryptInit, NULL, 0); /* it waits for more room; cancel it */
        return blob_too_long(wrap, made);
    }
    if (rv != CKR_OK)
        return hsm_session_fail(session, rv, false, "wrapping under the KEK \"%s\"", wrap->kek->uri->object_name);
    hsm_service_note(session);
    *length = made;
    return ENVELOPE_OK;
}

static CK_RV decrypt(struct hsm_wrap *wrap, const uint8_t *body, size_t length, CK_FLAGS flags, CK_ULONG *made)
{
    struct hsm_session *session = wrap->session;
    CK_ENVELOPE_KMS_PARAMS params = params_of(wrap, flags);
    CK_MECHANISM mechanism = {CKM_ENVELOPE_KMS_WRAP, &params, sizeof params};
    *made = OUT_SIZE;
    CK_RV rv = HSM_SESSION_CALL(session, C_DecryptInit, &mechanism, wrap->view.key);
    if (rv != CKR_OK)
        return rv;
    rv = HSM_SESSION_CALL(session, C_Decrypt, (CK_BYTE *)(uintptr_t)body, length, session->scratch + OUT_AT, made);
    if (rv == CKR_BUFFER_TOO_SMALL) /* as good as a wrong length; cancel it */
        (void)HSM_SESSION_CALL(session, C_DecryptInit, NULL, 0);
    return rv == CKR_BUFFER_TOO_SMALL ? CKR_OK : rv;
}

static envelope_status unwrap_failed(struct hsm_wrap *wrap, CK_RV rv)
{
    return hsm_session_fail(wrap->session, rv, true, "unwrapping under the KEK \"%s\"", wrap->kek->uri->object_name);
}

envelope_status hsm_service_unwrap(struct hsm_wrap *wrap, const uint8_t *body, size_t length, uint8_t dek[HSM_DEK_SIZE])
{
    CK_ULONG made = 0;
    CK_RV rv = decrypt(wrap, body, length, 0, &made);
    if (rv != CKR_OK)
        return unwrap_failed(wrap, rv);
    hsm_service_note(wrap->session);
    if (made != HSM_DEK_SIZE)
        return hsm_does_not_unwrap(wrap, "what is inside is no DEK");
    memcpy(dek, wrap->session->scratch + OUT_AT, HSM_DEK_SIZE);
    return ENVELOPE_OK;
}

envelope_status hsm_service_try(struct hsm_wrap *wrap, const uint8_t *body, size_t length)
{
    CK_ULONG made = 0;
    CK_RV rv = decrypt(wrap, body, length, CKF_ENVELOPE_KMS_DRY_RUN, &made);
    return rv == CKR_OK ? ENVELOPE_OK : unwrap_failed(wrap, rv);
}

envelope_status hsm_service_rewrap(struct hsm_wrap *from, const struct hsm_wrap *to, const uint8_t *body, size_t length,
                                   uint8_t moved[HSM_BODY_MAX], size_t *moved_length, bool *inside)
{
    struct hsm_session *session = from->session;
    CK_ENVELOPE_KMS_PARAMS from_params = params_of(from, 0), to_params = params_of(to, 0);
    CK_ULONG made = HSM_BODY_MAX;
    CK_BBOOL left = CK_TRUE;
    CK_RV rv = HSM_SERVICE_CALL(session, rewrap, from->view.key, &from_params, to->view.key, &to_params, body, length,
                                moved, &made, &left);
    if (rv == CKR_BUFFER_TOO_SMALL)
        return blob_too_long(to, made);
    if (rv != CKR_OK)
        return hsm_session_fail(session, rv, true, "moving a data key from the KEK \"%s\" to the KEK \"%s\"",
                                from->kek->uri->object_name, to->kek->uri->object_name);
    hsm_service_note(session);
    *moved_length = made;
    *inside = left == CK_FALSE;
    return ENVELOPE_OK;
}
