/*
 * The functions of PKCS#11 3.0 that p11-kit's 2.40 header does not declare.
 * Where a newer header does declare them, these repeat it.
 */
#ifndef PKCS11_P11_3_H
#define PKCS11_P11_3_H

#include "p11.h"

#define P11_CKF_FIND_OBJECTS 0x40UL /* for C_SessionCancel */

CK_RV C_LoginUser(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG length, CK_UTF8CHAR *name,
                  CK_ULONG name_length);
CK_RV C_SessionCancel(CK_SESSION_HANDLE session, CK_FLAGS flags);

/* C_GetInfo of the list of 3.0, which says so. */
CK_RV p11_get_info_3_0(CK_INFO *info);
/* A message function: none is supported, and none needs its arguments to say so. */
CK_RV p11_no_message(void);

/* CK_FUNCTION_LIST_3_0: the list of 2.40 and 24 more. */
struct p11_functions_3_0 {
    CK_FUNCTION_LIST base;
    CK_RV (*get_interface_list)(struct p11_interface *interfaces, CK_ULONG *count);
    CK_RV (*get_interface)(CK_UTF8CHAR *name, CK_VERSION *version, struct p11_interface **interface, CK_FLAGS flags);
    CK_RV(*login_user)
    (CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG length, CK_UTF8CHAR *name,
     CK_ULONG name_length);
    CK_RV (*session_cancel)(CK_SESSION_HANDLE session, CK_FLAGS flags);
    /* Encrypt, decrypt, sign, verify: Init, Message, MessageBegin, MessageNext, MessageFinal of each */
    CK_RV (*message[4][5])(void);
};

#endif
