/* What a CK_RV means to us: its name, and what kind of failure it is. */
#ifndef HSM_CKR_H
#define HSM_CKR_H

#include <p11-kit/pkcs11.h>

/* Not in every pkcs11.h. */
#ifndef CKM_AES_KEY_WRAP_KWP
#define CKM_AES_KEY_WRAP_KWP 0x210BUL
#endif
#ifndef CKR_OPERATION_CANCEL_FAILED
#define CKR_OPERATION_CANCEL_FAILED 0x202UL
#endif

/* Our own: the process was forked while another thread was inside the module, which may be locked for good now. */
#define HSM_CKR_FORKED (CKR_VENDOR_DEFINED | 0x456e7601UL)
/* Our own: the module was initialised anew since the session was opened; its handle may be another's now. */
#define HSM_CKR_SUPERSEDED (CKR_VENDOR_DEFINED | 0x456e7602UL)

enum hsm_fault {
    HSM_FAULT_NONE,
    HSM_FAULT_LOST,        /* session, login, device or handle gone: reopen and try again */
    HSM_FAULT_DOUBTFUL,    /* tokens say this for anything; look whether the KEK is still there */
    HSM_FAULT_UNSUPPORTED, /* the mechanism or its parameters are not the token's */
    HSM_FAULT_REFUSED,     /* the token refuses to use this key like this */
    HSM_FAULT_DATA,        /* the ciphertext or wrapped key is not one of this key's */
    HSM_FAULT_FORKED,
    HSM_FAULT_OTHER
};

/* "CKR_PIN_INCORRECT"; for an unknown code "CKR 0x80000042". Valid until the thread's next call. */
const char *hsm_ckr_name(CK_RV rv);
enum hsm_fault hsm_ckr_fault(CK_RV rv);

#endif
