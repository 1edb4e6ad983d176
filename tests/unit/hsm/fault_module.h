/*
 * A PKCS#11 module between ours and SoftHSM that does as it is told: fails a
 * call, hangs in one, claims token flags, insists on its own AES-GCM IVs. A
 * test reaches its controls with dlsym(dlopen(FAULT_MODULE), "fault_control").
 */
#ifndef TEST_FAULT_MODULE_H
#define TEST_FAULT_MODULE_H

#include <stdatomic.h>
#include <stdbool.h>

#include <p11-kit/pkcs11.h>

enum fault_call {
    FAULT_INITIALIZE,
    FAULT_OPEN_SESSION,
    FAULT_LOGIN,
    FAULT_FIND,
    FAULT_ENCRYPT_INIT,
    FAULT_ENCRYPT,
    FAULT_DECRYPT_INIT,
    FAULT_DECRYPT,
    FAULT_WRAP,
    FAULT_RANDOM,
    FAULT_CALLS
};

enum fault_iv { FAULT_IV_CALLER, FAULT_IV_TOKEN, FAULT_IV_PREPENDED };

struct fault_control {
    struct {
        _Atomic CK_RV rv;    /* returned instead of calling SoftHSM … */
        _Atomic int times;   /* … this many times more; -1: always */
        _Atomic int after;   /* … after this many calls that go through */
        _Atomic bool hang;   /* sleep in the call until this is false again */
        _Atomic int hanging; /* threads that do */
        _Atomic int calls;   /* all of them */
    } call[FAULT_CALLS];
    _Atomic CK_FLAGS token_flags; /* added to those of every token */
    _Atomic int iv;               /* enum fault_iv */
    _Atomic bool no_gcm;          /* CKM_AES_GCM is not offered */
    _Atomic bool kwp_encrypts; /* CKM_AES_KEY_WRAP_KWP is, for C_Encrypt (ciphertext as SoftHSM's C_WrapKey makes it) */
    _Atomic bool pkcs7_pad;    /* C_WrapKey answers with 8 bytes more, as NSS does for KEY_WRAP_PAD */
    _Atomic bool long_pins;    /* a PIN over 255 bytes is shortened to its last 6 before SoftHSM sees it */
    _Atomic int session_limit; /* CKR_SESSION_COUNT beyond this many; 0: none */
    _Atomic int sessions;
    _Atomic int inside, most_inside; /* threads in encryption and decryption at once */
    CK_FUNCTION_LIST *real;
};

#endif
