/* What the two halves of aws-client share. */
#ifndef RIGS_AWS_CLIENT_H
#define RIGS_AWS_CLIENT_H

#include <stdbool.h>

#include <p11-kit/pkcs11.h>
#include <envelope/pkcs11-kms.h>

enum { BLOB_MAX = 8192 };

struct bytes {
    CK_BYTE data[BLOB_MAX];
    CK_ULONG length;
};

extern const CK_ENVELOPE_KMS_FUNCTIONS *vendor;
extern CK_SESSION_HANDLE session;

const char *rv_name(CK_RV rv);
bool unhex(const char *text, struct bytes *bytes);
void print_hex(const struct bytes *bytes);
CK_RV find_key(CK_SESSION_HANDLE in, const char *label, CK_OBJECT_CLASS class, CK_OBJECT_HANDLE *key);
/* aad "-" is none; it points into params, and params to aad. */
CK_MECHANISM mechanism_of(CK_ENVELOPE_KMS_PARAMS *params, const char *aad, CK_FLAGS flags);

/* A command of aws_client_keys.c: carried out and answered; false if it is none. */
bool keys_command(int count, char *const word[]);

#endif
