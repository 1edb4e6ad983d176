/* Sessions and login. */
#include "bridge.h"
#include "p11_3.h"

#include <string.h>

#include "base/error.h"
#include "base/secmem.h"

enum { PIN_MAX = 1 << 14 };

CK_RV C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify, CK_SESSION_HANDLE *session)
{
    (void)application; /* there is nothing to notify of */
    (void)notify;
    struct call call;
    CK_RV rv = call_enter_slot(&call, slot);
    if (rv != CKR_OK)
        return rv;
    if (!(flags & CKF_SERIAL_SESSION))
        rv = call_refuse(CKR_SESSION_PARALLEL_NOT_SUPPORTED, "C_OpenSession needs CKF_SERIAL_SESSION");
    else if (!session)
        rv = CKR_ARGUMENTS_BAD;
    else
        rv = session_open(call.bridge, slot, flags, session);
    return call_leave(&call, rv);
}

CK_RV C_CloseSession(CK_SESSION_HANDLE session)
{
    struct bridge *bridge = bridge_ref();
    if (!bridge)
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    CK_RV rv = session_close(bridge, session);
    bridge_unref(bridge);
    return rv;
}

CK_RV C_CloseAllSessions(CK_SLOT_ID slot)
{
    struct call call;
    CK_RV rv = call_enter_slot(&call, slot);
    if (rv != CKR_OK)
        return rv;
    session_close_all(call.bridge, slot);
    return call_leave(&call, CKR_OK);
}

CK_RV C_GetSessionInfo(CK_SESSION_HANDLE session, CK_SESSION_INFO *info)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!info)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    bool read_write = call.session->flags & CKF_RW_SESSION, user = token_logged_in(call.token);
    info->slotID = call.session->slot;
    info->flags = call.session->flags & (CKF_RW_SESSION | CKF_SERIAL_SESSION);
    info->ulDeviceError = 0;
    if (read_write)
        info->state = user ? CKS_RW_USER_FUNCTIONS : CKS_RW_PUBLIC_SESSION;
    else
        info->state = user ? CKS_RO_USER_FUNCTIONS : CKS_RO_PUBLIC_SESSION;
    return call_leave(&call, CKR_OK);
}

static CK_RV log_in(struct call *call, CK_USER_TYPE user, const struct buffer *pin)
{
    if (user == CKU_CONTEXT_SPECIFIC)
        return CKR_OPERATION_NOT_INITIALIZED;
    if (user != CKU_USER)
        return call_refuse(CKR_USER_TYPE_INVALID, "a key service has users only (CKU_USER), no security officer");
    if (pin->length > PIN_MAX)
        return call_refuse(CKR_PIN_LEN_RANGE, "a PIN of over %d bytes", (int)PIN_MAX);
    if (pin->length && (memchr(pin->bytes, '\0', pin->length) || strpbrk(buffer_text(pin), "\r\n")))
        return call_refuse(CKR_PIN_INVALID, "a PIN with a NUL byte or a line break in it");
    CK_RV rv = token_login(call->token, buffer_text(pin));
    if (rv != CKR_OK)
        return rv;
    /* If the token's last session was closed meanwhile, the login has ended with it. */
    pthread_mutex_lock(&call->bridge->lock);
    if (!call->bridge->open_sessions[call->session->slot - 1])
        rv = token_logout(call->token) == CKR_OK ? CKR_SESSION_CLOSED : CKR_HOST_MEMORY;
    pthread_mutex_unlock(&call->bridge->lock);
    return rv;
}

CK_RV C_Login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG length)
{
    return C_LoginUser(session, user, pin, length, NULL, 0);
}

/* With a user name, the two are what C_Login takes joined by a colon. */
CK_RV C_LoginUser(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG length, CK_UTF8CHAR *name,
                  CK_ULONG name_length)
{
    struct call call;
    struct buffer joined = {0};
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if ((!pin && length) || (!name && name_length))
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    if (length > PIN_MAX || name_length > PIN_MAX)
        return call_leave(&call, call_refuse(CKR_PIN_LEN_RANGE, "a PIN of over %d bytes", (int)PIN_MAX));
    if (name_length) {
        buffer_append(&joined, name, name_length);
        buffer_append_text(&joined, ":");
    }
    if (length)
        buffer_append(&joined, pin, length);
    rv = buffer_ok(&joined) ? log_in(&call, user, &joined) : CKR_HOST_MEMORY;
    buffer_clear(&joined);
    return call_leave(&call, rv);
}

CK_RV C_Logout(CK_SESSION_HANDLE session)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    return call_leave(&call, token_logged_in(call.token) ? token_logout(call.token) : CKR_USER_NOT_LOGGED_IN);
}

CK_RV C_SessionCancel(CK_SESSION_HANDLE session, CK_FLAGS flags)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (flags & CKF_ENCRYPT)
        operation_clear(&call.session->encrypt);
    if (flags & CKF_DECRYPT)
        operation_clear(&call.session->decrypt);
    if (flags & P11_CKF_FIND_OBJECTS) {
        keys_list_clear(&call.session->found);
        call.session->finding = false;
    }
    return call_leave(&call, CKR_OK);
}
