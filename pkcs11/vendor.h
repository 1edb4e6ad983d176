/* The functions C_GetInterface hands out under ENVELOPE_KMS_INTERFACE. */
#ifndef PKCS11_VENDOR_H
#define PKCS11_VENDOR_H

#include "bridge.h"

extern const CK_ENVELOPE_KMS_FUNCTIONS vendor_functions;

/* --- vendor.c --- */
/* Check a key of the service and params as C_EncryptInit and C_DecryptInit do with CKM_ENVELOPE_KMS_WRAP. */
CK_RV vendor_prepare(struct call *call, struct operation *operation, enum operation_kind kind,
                     const CK_ENVELOPE_KMS_PARAMS *params, CK_OBJECT_HANDLE key);

/* --- vendor_keys.c --- */
CK_RV vendor_generate_data_key(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, const CK_ENVELOPE_KMS_PARAMS *params,
                               unsigned long plaintext_len, unsigned char *plaintext, unsigned char *blob,
                               unsigned long *blob_len, CK_BBOOL *made_here);
CK_RV vendor_get_versions(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, CK_ENVELOPE_KMS_VERSIONS *versions,
                          unsigned long size);
CK_RV vendor_rotate_key(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, unsigned long *new_version);
CK_RV vendor_set_min_versions(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, unsigned long min_decryption,
                              unsigned long min_encryption);

/* --- vendor_many.c --- */
CK_RV vendor_batch_size(CK_SESSION_HANDLE session, unsigned long *pieces);
CK_RV vendor_crypt_many(CK_SESSION_HANDLE session, unsigned long operation, CK_OBJECT_HANDLE key,
                        CK_OBJECT_HANDLE key_to, CK_ENVELOPE_KMS_ITEM *items, unsigned long count,
                        unsigned long item_size);

#endif
