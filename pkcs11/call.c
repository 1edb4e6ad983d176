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

static bool logs(void)
{
    const char *where = local_env("ENVELOPE_KMS_LOG");
    return where && strcmp(where, "stderr") == 0;
}

void call_log(CK_RV rv)
{
    if (rv != CKR_OK && *error_text() && logs())
        fprintf(stderr, "envelope-kms: 0x%lx: %s\n", rv, error_text());
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
