#include "bridge.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "local.h"

CK_RV call_refuse(CK_RV rv, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    error_raise(ENVELOPE_E_ARGUMENT, "%s", text);
    return rv;
}

#define ROW(rv)                                                                                                        \
    {                                                                                                                  \
        rv, #rv                                                                                                        \
    }
static const struct {
    CK_RV rv;
    const char *name;
} names[] = {
    ROW(CKR_HOST_MEMORY),
    ROW(CKR_SLOT_ID_INVALID),
    ROW(CKR_GENERAL_ERROR),
    ROW(CKR_FUNCTION_FAILED),
    ROW(CKR_ARGUMENTS_BAD),
    ROW(CKR_NO_EVENT),
    ROW(CKR_CANT_LOCK),
    ROW(CKR_ATTRIBUTE_READ_ONLY),
    ROW(CKR_ATTRIBUTE_SENSITIVE),
    ROW(CKR_ATTRIBUTE_TYPE_INVALID),
    ROW(CKR_ATTRIBUTE_VALUE_INVALID),
    ROW(CKR_ACTION_PROHIBITED),
    ROW(CKR_DATA_LEN_RANGE),
    ROW(CKR_DEVICE_ERROR),
    ROW(CKR_DEVICE_MEMORY),
    ROW(CKR_DEVICE_REMOVED),
    ROW(CKR_ENCRYPTED_DATA_INVALID),
    ROW(CKR_ENCRYPTED_DATA_LEN_RANGE),
    ROW(CKR_FUNCTION_NOT_PARALLEL),
    ROW(CKR_FUNCTION_NOT_SUPPORTED),
    ROW(CKR_KEY_HANDLE_INVALID),
    ROW(CKR_KEY_SIZE_RANGE),
    ROW(CKR_KEY_TYPE_INCONSISTENT),
    ROW(CKR_KEY_FUNCTION_NOT_PERMITTED),
    ROW(CKR_KEY_UNEXTRACTABLE),
    ROW(CKR_MECHANISM_INVALID),
    ROW(CKR_MECHANISM_PARAM_INVALID),
    ROW(CKR_OBJECT_HANDLE_INVALID),
    ROW(CKR_OPERATION_ACTIVE),
    ROW(CKR_OPERATION_NOT_INITIALIZED),
    ROW(CKR_PIN_INCORRECT),
    ROW(CKR_PIN_INVALID),
    ROW(CKR_PIN_LEN_RANGE),
    ROW(CKR_SESSION_CLOSED),
    ROW(CKR_SESSION_COUNT),
    ROW(CKR_SESSION_HANDLE_INVALID),
    ROW(CKR_SESSION_PARALLEL_NOT_SUPPORTED),
    ROW(CKR_SESSION_READ_ONLY),
    ROW(CKR_TEMPLATE_INCOMPLETE),
    ROW(CKR_TEMPLATE_INCONSISTENT),
    ROW(CKR_TOKEN_NOT_RECOGNIZED),
    ROW(CKR_TOKEN_WRITE_PROTECTED),
    ROW(CKR_UNWRAPPING_KEY_HANDLE_INVALID),
    ROW(CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT),
    ROW(CKR_USER_ALREADY_LOGGED_IN),
    ROW(CKR_USER_NOT_LOGGED_IN),
    ROW(CKR_USER_PIN_NOT_INITIALIZED),
    ROW(CKR_USER_TYPE_INVALID),
    ROW(CKR_WRAPPED_KEY_INVALID),
    ROW(CKR_WRAPPED_KEY_LEN_RANGE),
    ROW(CKR_WRAPPING_KEY_HANDLE_INVALID),
    ROW(CKR_WRAPPING_KEY_TYPE_INCONSISTENT),
    ROW(CKR_RANDOM_SEED_NOT_SUPPORTED),
    ROW(CKR_RANDOM_NO_RNG),
    ROW(CKR_BUFFER_TOO_SMALL),
    ROW(CKR_CRYPTOKI_NOT_INITIALIZED),
    ROW(CKR_CRYPTOKI_ALREADY_INITIALIZED),
};
#undef ROW

/* Of a code this module returns. */
static const char *rv_name(CK_RV rv)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].rv == rv)
            return names[i].name;
    return "failure";
}

static bool logs(void)
{
    const char *where = local_env("ENVELOPE_KMS_LOG");
    return where && strcmp(where, "stderr") == 0;
}

void call_log(CK_RV rv)
{
    if (rv != CKR_OK && *error_text() && logs())
        fprintf(stderr, "envelope-kms: %s (0x%lx): %s\n", rv_name(rv), rv, error_text());
}

void call_log_token(const struct token *token)
{
    if (token->backend->experimental && logs())
        fprintf(stderr,
                "envelope-kms: [token %s]: backend = %s is experimental: it was never run against the service\n",
                token->settings->label, token->backend->name);
}

CK_RV call_enter(struct call *call, CK_SESSION_HANDLE handle)
{
    *call = (struct call){.bridge = bridge_ref()};
    if (!call->bridge)
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    call->session = session_ref(call->bridge, handle);
    if (!call->session) {
        bridge_unref(call->bridge);
        return CKR_SESSION_HANDLE_INVALID;
    }
    pthread_mutex_lock(&call->session->lock);
    call->token = call->session->token;
    libctx_enter(&call->guard);
    error_clear();
    return CKR_OK;
}

CK_RV call_enter_slot(struct call *call, CK_SLOT_ID slot)
{
    *call = (struct call){.bridge = bridge_ref()};
    if (!call->bridge)
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    call->token = bridge_token(call->bridge, slot);
    if (!call->token) {
        bridge_unref(call->bridge);
        return CKR_SLOT_ID_INVALID;
    }
    libctx_enter(&call->guard);
    error_clear();
    return CKR_OK;
}

CK_RV call_leave(struct call *call, CK_RV rv)
{
    libctx_leave(&call->guard);
    call_log(rv);
    if (call->session) {
        /* A refusal that never reached the service has a text too. */
        if (rv != CKR_OK && *error_text() && !call->asked) {
            call->session->message = (CK_ENVELOPE_KMS_MESSAGE){.rv = rv};
            snprintf(call->session->message.text, sizeof call->session->message.text, "%s", error_text());
        }
        pthread_mutex_unlock(&call->session->lock);
        session_unref(call->session);
    }
    bridge_unref(call->bridge);
    return rv;
}

CK_RV call_run(struct call *call, struct backend_call *request)
{
    return call_run_until(call, request, clock_monotonic() + call->token->settings->deadline);
}

CK_RV call_run_until(struct call *call, struct backend_call *request, int64_t deadline)
{
    CK_RV rv = token_run_until(call->token, request, deadline);
    if (!call->session)
        return rv;
    call->asked = true;
    CK_ENVELOPE_KMS_MESSAGE *message = &call->session->message;
    *message = (CK_ENVELOPE_KMS_MESSAGE){.rv = rv};
    if (rv != CKR_OK)
        snprintf(message->text, sizeof message->text, "%s", error_text());
    snprintf(message->service_code, sizeof message->service_code, "%s", request->service_code);
    snprintf(message->service_message, sizeof message->service_message, "%s", request->service_message);
    snprintf(message->request_id, sizeof message->request_id, "%s", request->request_id);
    return rv;
}

CK_RV call_output(const uint8_t *bytes, size_t count, CK_BYTE_PTR out, CK_ULONG_PTR out_length)
{
    CK_ULONG room = *out_length;
    *out_length = (CK_ULONG)count;
    if (!out)
        return CKR_OK;
    if (room < count)
        return CKR_BUFFER_TOO_SMALL;
    if (count)
        memcpy(out, bytes, count);
    return CKR_OK;
}
