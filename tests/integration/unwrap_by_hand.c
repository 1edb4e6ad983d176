/*
 * Unwrap a DEK with nothing but PKCS#11, as docs/wire-format.md describes it: the test's proof that the store can be
 * read without us. Prints the DEK in hexadecimal.
 *     unwrap_by_hand MODULE TOKEN PIN KEK-LABEL BLOB AAD
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <p11-kit/pkcs11.h>

static CK_FUNCTION_LIST *token;

static void must(CK_RV result, const char *what)
{
    if (result == CKR_OK)
        return;
    fprintf(stderr, "%s: 0x%lx\n", what, result);
    exit(1);
}

static size_t unhex(const char *digits, unsigned char *bytes, size_t most)
{
    size_t count = 0;
    for (; digits[0] && digits[1] && count < most; digits += 2) {
        char pair[3] = {digits[0], digits[1], 0};
        bytes[count++] = (unsigned char)strtoul(pair, NULL, 16);
    }
    return count;
}

static CK_SLOT_ID find_slot(const char *label)
{
    CK_SLOT_ID slots[32];
    CK_ULONG count = 32;
    must(token->C_GetSlotList(CK_TRUE, slots, &count), "C_GetSlotList");
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        if (token->C_GetTokenInfo(slots[i], &info) == CKR_OK && memcmp(info.label, label, strlen(label)) == 0)
            return slots[i];
    }
    fprintf(stderr, "no token %s\n", label);
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return 2;
    void *module = dlopen(argv[1], RTLD_NOW);
    CK_C_GetFunctionList list = module ? (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList") : NULL;
    if (!list) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    must(list(&token), "C_GetFunctionList");
    must(token->C_Initialize(NULL), "C_Initialize");

    CK_SESSION_HANDLE session;
    must(token->C_OpenSession(find_slot(argv[2]), CKF_SERIAL_SESSION, NULL, NULL, &session), "C_OpenSession");
    must(token->C_Login(session, CKU_USER, (unsigned char *)argv[3], strlen(argv[3])), "C_Login");

    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof(class)}, {CKA_LABEL, argv[4], strlen(argv[4])}};
    CK_OBJECT_HANDLE kek;
    CK_ULONG found;
    must(token->C_FindObjectsInit(session, wanted, 2), "C_FindObjectsInit");
    must(token->C_FindObjects(session, &kek, 1, &found), "C_FindObjects");
    must(token->C_FindObjectsFinal(session), "C_FindObjectsFinal");
    if (found != 1) {
        fprintf(stderr, "no KEK %s\n", argv[4]);
        return 1;
    }

    /* format 1 | mechanism 1 (AES-GCM) | IV 12 | ciphertext 32 | tag 16 */
    unsigned char blob[62], aad[512], dek[64];
    if (unhex(argv[5], blob, sizeof(blob)) != sizeof(blob) || blob[0] != 1 || blob[1] != 1) {
        fprintf(stderr, "not a blob of AES-GCM\n");
        return 1;
    }
    CK_GCM_PARAMS parameters = {blob + 2, 12, 96, aad, unhex(argv[6], aad, sizeof(aad)), 128};
    CK_MECHANISM mechanism = {CKM_AES_GCM, &parameters, sizeof(parameters)};
    CK_ULONG length = sizeof(dek);
    must(token->C_DecryptInit(session, &mechanism, kek), "C_DecryptInit");
    must(token->C_Decrypt(session, blob + 14, 48, dek, &length), "C_Decrypt");
    for (CK_ULONG i = 0; i < length; i++)
        printf("%02x", dek[i]);
    printf("\n");
    return length == 32 ? 0 : 1;
}
