/*
 * PKCS#11 types: p11-kit's header, and the parts of version 3.0 that older
 * p11-kit headers lack, under names of our own so that both may be present.
 */
#ifndef PKCS11_P11_H
#define PKCS11_P11_H

#include <p11-kit/pkcs11.h>

#ifndef CKR_OPERATION_CANCEL_FAILED
#define CKR_OPERATION_CANCEL_FAILED 0x202UL
#endif

#ifndef CKA_UNIQUE_ID
#define CKA_UNIQUE_ID 0x4UL
#endif

/* CK_INTERFACE */
struct p11_interface {
    CK_UTF8CHAR *name;
    void *functions;
    CK_FLAGS flags;
};
#ifndef CKF_INTERFACE_FORK_SAFE
#define CKF_INTERFACE_FORK_SAFE 1UL
#endif

#endif
