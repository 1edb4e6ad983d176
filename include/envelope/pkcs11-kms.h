/*
 * What envelope-kms.so offers beyond PKCS#11: one mechanism and one interface.
 * Include a PKCS#11 header of your choice before this one.
 */
#ifndef ENVELOPE_PKCS11_KMS_H
#define ENVELOPE_PKCS11_KMS_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The key service's own authenticated encryption with a symmetric key: AWS KMS
 * Encrypt and Decrypt, OpenBao transit encrypt and decrypt. Where
 * CKA_ALLOWED_MECHANISMS says so also with an RSA pair: the public object
 * encrypts, the private one decrypts. What comes out is a blob, opaque, of a
 * length that is not fixed by the input's.
 *
 * For C_Encrypt, C_Decrypt (one part, or gathered from several), C_WrapKey and
 * C_UnwrapKey. pParameter is NULL (no associated data, ulParameterLen 0) or
 * points to a CK_ENVELOPE_KMS_PARAMS.
 */
#define CKM_ENVELOPE_KMS_WRAP (CKM_VENDOR_DEFINED | 0x454e5601UL)

typedef struct CK_ENVELOPE_KMS_PARAMS {
    unsigned char *pAAD;    /* associated data, bound to the blob; NULL only with ulAADLen 0 */
    unsigned long ulAADLen; /* 0: none */
    unsigned long flags;    /* CKF_ENVELOPE_KMS_… or 0 */
} CK_ENVELOPE_KMS_PARAMS;

/* Ask the service whether it would work, change and reveal nothing: the output has length 0. C_Encrypt, C_Decrypt. */
#define CKF_ENVELOPE_KMS_DRY_RUN 1UL

/* C_GetInterface's name for the functions below. */
#define ENVELOPE_KMS_INTERFACE "Vendor Envelope KMS"

/* Read only while the session is open and no other call is made on it. All texts are UTF-8 and end with a NUL. */
typedef struct CK_ENVELOPE_KMS_MESSAGE {
    unsigned long rv;      /* what the session's last call that asked the service returned */
    char text[1024];       /* what failed, on which key, and what to do; "" after success */
    char service_code[64]; /* the service's own name of the error: "DisabledException" */
    char service_message[512];
    char request_id[128]; /* of the last request, for the service's audit trail; also after success */
} CK_ENVELOPE_KMS_MESSAGE;

typedef struct CK_ENVELOPE_KMS_FUNCTIONS {
    CK_VERSION version; /* 1.0 */

    /*
     * Move a blob from one key and its associated data to another. Where the service can (AWS ReEncrypt; OpenBao rewrap
     * within one key and without associated data) the plaintext never leaves it; else *plaintext_left is set to CK_TRUE
     * and the module decrypts and encrypts. Both keys are of the session's token. As in C_Encrypt: out NULL asks for
     * the room needed, CKR_BUFFER_TOO_SMALL leaves it in *out_len. from_params, to_params and plaintext_left may be
     * NULL.
     */
    CK_RV(*rewrap)
    (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key_from, const CK_ENVELOPE_KMS_PARAMS *from_params,
     CK_OBJECT_HANDLE key_to, const CK_ENVELOPE_KMS_PARAMS *to_params, const unsigned char *blob,
     unsigned long blob_len, unsigned char *out, unsigned long *out_len, CK_BBOOL *plaintext_left);

    /* What became of the session's last call that asked the service. size = sizeof *message of the caller. */
    CK_RV (*last_message)(CK_SESSION_HANDLE session, CK_ENVELOPE_KMS_MESSAGE *message, unsigned long size);

    /* Why C_Initialize failed, or the last failure of this thread; static per thread, never NULL. */
    const char *(*last_text)(void);
} CK_ENVELOPE_KMS_FUNCTIONS;

#ifdef __cplusplus
}
#endif
#endif
