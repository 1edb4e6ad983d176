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

/*
 * Ask the service whether it would work, change and reveal nothing: the output has length 0, its buffer must not be
 * NULL. C_Encrypt, C_Decrypt.
 */
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

/* Versions of a key, numbered from 1. */
typedef struct CK_ENVELOPE_KMS_VERSIONS {
    unsigned long latest;
    unsigned long min_decryption; /* blobs of older versions do not open */
    unsigned long min_encryption; /* the oldest that may still encrypt; 0: the latest only */
} CK_ENVELOPE_KMS_VERSIONS;

/* What crypt_many does with each item. */
#define CK_ENVELOPE_KMS_ENCRYPT 1UL
#define CK_ENVELOPE_KMS_DECRYPT 2UL
#define CK_ENVELOPE_KMS_REWRAP 3UL

typedef struct CK_ENVELOPE_KMS_ITEM {
    const CK_ENVELOPE_KMS_PARAMS *params;    /* NULL: no associated data */
    const CK_ENVELOPE_KMS_PARAMS *to_params; /* REWRAP: those of the new blob */
    const unsigned char *in;
    unsigned long in_len;
    unsigned char *out;
    unsigned long out_len;   /* the room; then the length. With out NULL the room that suffices, and nothing is asked */
    CK_RV rv;                /* of this item. CKR_BUFFER_TOO_SMALL: out_len is the length */
    CK_BBOOL plaintext_left; /* REWRAP: as rewrap's */
} CK_ENVELOPE_KMS_ITEM;

/*
 * Later versions append members: look at version before using what is not of 1.0. C_GetInterface, asked for a version
 * of this interface, gives that one or a later one of the same major number.
 */
typedef struct CK_ENVELOPE_KMS_FUNCTIONS {
    CK_VERSION version; /* 1.1 */

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

    /* --- since 1.1 --- */

    /*
     * A new data key of plaintext_len random bytes of the service: its blob under key, bound to the associated data,
     * and the key itself unless plaintext is NULL. Where the service does that alone (AWS GenerateDataKey; OpenBao
     * datakey: 16, 32 or 64 bytes without associated data) a key that was not asked for never leaves it; else
     * *made_here is set to CK_TRUE, and the module encrypts random bytes of the service. blob NULL asks for the room
     * needed. With CKR_BUFFER_TOO_SMALL the key is lost, and the next call makes another. params and made_here may be
     * NULL.
     */
    CK_RV(*generate_data_key)
    (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, const CK_ENVELOPE_KMS_PARAMS *params, unsigned long plaintext_len,
     unsigned char *plaintext, unsigned char *blob, unsigned long *blob_len, CK_BBOOL *made_here);

    /*
     * The key's versions. rotate_key makes a new one, which encrypts from then on, and says its number; 0 where the
     * service does not. set_min_versions changes both limits in one request; CK_UNAVAILABLE_INFORMATION leaves one as
     * it is. The last two need `rotate = yes` in kms.cnf, else CKR_ACTION_PROHIBITED, and a read-write session.
     * CKR_FUNCTION_NOT_SUPPORTED where the service knows no such thing. size = sizeof *versions of the caller.
     */
    CK_RV(*get_versions)
    (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, CK_ENVELOPE_KMS_VERSIONS *versions, unsigned long size);
    CK_RV (*rotate_key)(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, unsigned long *new_version);
    CK_RV(*set_min_versions)
    (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, unsigned long min_decryption, unsigned long min_encryption);

    /*
     * Encrypt, decrypt or rewrap many pieces: in few requests where the service takes several at once (OpenBao), one by
     * one else. key_to is for REWRAP only (CK_INVALID_HANDLE else). Every item gets its own rv, and one that fails
     * harms no other. If the service cannot be reached or refuses a whole request, the items not done yet get that rv,
     * and it is not asked further. Returned is CKR_OK if every item succeeded, else the rv of the first that did not,
     * which last_message tells about; or, with no item touched, CKR_ARGUMENTS_BAD and what says that the keys or the
     * session cannot be used. item_size = sizeof *items of the caller.
     */
    CK_RV(*crypt_many)
    (CK_SESSION_HANDLE session, unsigned long operation, CK_OBJECT_HANDLE key, CK_OBJECT_HANDLE key_to,
     CK_ENVELOPE_KMS_ITEM *items, unsigned long count, unsigned long item_size);

    /* How many pieces the service takes in one request of crypt_many; 1: it is asked about each. */
    CK_RV (*batch_size)(CK_SESSION_HANDLE session, unsigned long *pieces);
} CK_ENVELOPE_KMS_FUNCTIONS;

#ifdef __cplusplus
}
#endif
#endif
