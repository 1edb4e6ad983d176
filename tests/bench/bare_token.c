#include "bare_token.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "base/error.h"
#include "base/settings.h"
#include "keyring/binding.h"

/* A blob: format, mechanism, IV, ciphertext, tag (docs/wire-format.md). */
enum { HEADER = 2, IV = 12, TAG = 16, DEK = 32, BLOB = HEADER + IV + DEK + TAG, LABEL = 64 };

static void failed(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

static void must(CK_RV rv, const char *what)
{
    if (rv == CKR_OK)
        return;
    fprintf(stderr, "bench: %s: 0x%lx\n", what, rv);
    exit(1);
}

static void load(struct bare_token *token)
{
    CK_RV (*list)(CK_FUNCTION_LIST **) = NULL;
    void *handle = dlopen(token->rig->module, RTLD_NOW | RTLD_LOCAL);
    if (handle)
        *(void **)&list = dlsym(handle, "C_GetFunctionList");
    if (!list)
        failed(dlerror());
    must(list(&token->functions), "C_GetFunctionList");
    must(token->functions->C_Initialize(NULL), "C_Initialize");
}

static void log_in(struct bare_token *token)
{
    CK_SLOT_ID slots[8];
    CK_ULONG count = sizeof slots / sizeof slots[0];
    CK_UTF8CHAR pin[] = SOFTHSM_RIG_PIN;
    must(token->functions->C_GetSlotList(CK_TRUE, slots, &count), "C_GetSlotList");
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        must(token->functions->C_GetTokenInfo(slots[i], &info), "C_GetTokenInfo");
        if (strncmp((const char *)info.label, "rig ", 4) != 0)
            continue;
        must(token->functions->C_OpenSession(slots[i], CKF_SERIAL_SESSION, NULL, NULL, &token->session),
             "C_OpenSession");
        must(token->functions->C_Login(token->session, CKU_USER, pin, sizeof pin - 1), "C_Login");
        return;
    }
    failed("the token is not there");
}

/* By the label in its URI. */
static CK_OBJECT_HANDLE find(const struct bare_token *token, const char *uri)
{
    char label[LABEL] = "";
    const char *object = strstr(uri, "object=");
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_OBJECT_HANDLE key = 0;
    CK_ULONG count = 0;
    if (!object || sscanf(object, "object=%63[^;?]", label) != 1)
        failed("a KEK's URI has no label");
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, label, strlen(label)}};
    must(token->functions->C_FindObjectsInit(token->session, template, 2), "C_FindObjectsInit");
    must(token->functions->C_FindObjects(token->session, &key, 1, &count), "C_FindObjects");
    must(token->functions->C_FindObjectsFinal(token->session), "C_FindObjectsFinal");
    if (count != 1)
        failed("a KEK is not there");
    return key;
}

/* As ids of the store; the KEK that nothing is under yet has none, and any other number is as long. */
static void read_store(struct bare_token *token, const char *from, const char *to)
{
    struct settings settings;
    struct store_ids ids[2];
    store *opened = NULL;
    if (settings_load(token->config, &settings) || store_open(settings.store, settings.deadline, &opened) ||
        store_id(opened, token->store_id) || store_next_ids(opened, from, &ids[0]) ||
        store_next_ids(opened, to, &ids[1]) || store_versions(opened, NULL, &token->rows, &token->count))
        failed(error_text());
    token->from_id = ids[0].kek_id;
    token->to_id = ids[1].kek_id;
    store_close(opened);
    settings_clear(&settings);
}

void bare_token_open(struct bare_token *token, const char *from, const char *to)
{
    read_store(token, from, to);
    load(token);
    log_in(token);
    token->from = find(token, from);
    token->to = find(token, to);
}

struct binding {
    uint8_t aad[BINDING_MAX];
    size_t length;
};

static CK_GCM_PARAMS gcm(const struct binding *binding, uint8_t *iv)
{
    return (CK_GCM_PARAMS){.pIv = iv,
                           .ulIvLen = IV,
                           .ulIvBits = 8 * IV,
                           .pAAD = (CK_BYTE *)(uintptr_t)binding->aad,
                           .ulAADLen = binding->length,
                           .ulTagBits = 8 * TAG};
}

static void decrypt(const struct bare_token *token, CK_OBJECT_HANDLE kek, const struct binding *binding, uint8_t *blob,
                    uint8_t *dek)
{
    CK_GCM_PARAMS params = gcm(binding, blob + HEADER);
    CK_MECHANISM mechanism = {CKM_AES_GCM, &params, sizeof params};
    CK_ULONG length = DEK + TAG;
    must(token->functions->C_DecryptInit(token->session, &mechanism, kek), "C_DecryptInit");
    must(token->functions->C_Decrypt(token->session, blob + HEADER + IV, DEK + TAG, dek, &length), "C_Decrypt");
}

static void encrypt(const struct bare_token *token, CK_OBJECT_HANDLE kek, const struct binding *binding, uint8_t *dek,
                    uint8_t *blob)
{
    CK_GCM_PARAMS params = gcm(binding, blob + HEADER);
    CK_MECHANISM mechanism = {CKM_AES_GCM, &params, sizeof params};
    CK_ULONG length = DEK + TAG;
    if (RAND_bytes(blob + HEADER, IV) != 1)
        failed("no IV");
    must(token->functions->C_EncryptInit(token->session, &mechanism, kek), "C_EncryptInit");
    must(token->functions->C_Encrypt(token->session, dek, DEK, blob + HEADER + IV, &length), "C_Encrypt");
}

void bare_token_move(struct bare_token *token)
{
    for (size_t i = 0; i < token->count; i++) {
        const struct store_version *row = &token->rows[i];
        struct binding_place place = {token->store_id, row->dek_id,    row->version,
                                      token->from_id,  row->algorithm, row->key_name};
        struct binding from, to;
        uint8_t dek[DEK + TAG], again[DEK + TAG], made[BLOB];
        from.length = keyring_binding_aad(&place, from.aad);
        place.kek_id = token->to_id;
        to.length = keyring_binding_aad(&place, to.aad);
        if (row->blob_length != BLOB)
            failed("a blob is not of AES-GCM");
        decrypt(token, token->from, &from, row->blob, dek);
        encrypt(token, token->to, &to, dek, made);
        if (!token->proved)
            continue;
        decrypt(token, token->to, &to, made, again);
        if (CRYPTO_memcmp(dek, again, DEK) != 0)
            failed("another DEK came out than went in");
    }
}
