#include "service_module.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <envelope/pkcs11-kms.h>

#define EXPORT __attribute__((visibility("default")))

/* A blob: IV, length of the ciphertext, ciphertext with tag, padding. */
enum { IV_SIZE = 12, HEAD = IV_SIZE + 1, SEALED_MAX = 255 };

struct interface {
    CK_UTF8CHAR *name;
    void *functions;
    CK_FLAGS flags;
};

EXPORT extern struct service_control service_control;
struct service_control service_control;
EXPORT CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list);
/* p11-kit's newer header declares it otherwise. */
EXPORT CK_RV get_interface(CK_UTF8CHAR *name, CK_VERSION *version, struct interface **interface,
                           CK_FLAGS flags) __asm__("C_GetInterface");

static CK_FUNCTION_LIST functions, *real;
static struct service_control *const control = &service_control;
static _Thread_local CK_RV last;
static _Thread_local int last_request;

static _Thread_local struct {
    CK_OBJECT_HANDLE key;
    CK_ENVELOPE_KMS_PARAMS params;
} operation;

static CK_RV told(bool searching)
{
    CK_RV rv = control->only_search && !searching ? CKR_OK : control->rv;
    last = rv;
    if (!searching)
        last_request = ++control->requests;
    return rv;
}

static CK_RV initialize(void *args)
{
    control->initializes++;
    return real->C_Initialize(args);
}

static CK_RV mechanism_info(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
    if (type != CKM_ENVELOPE_KMS_WRAP)
        return type == CKM_AES_KEY_GEN ? real->C_GetMechanismInfo(slot, type, info) : CKR_MECHANISM_INVALID;
    *info = (CK_MECHANISM_INFO){32, 32, CKF_ENCRYPT | CKF_DECRYPT};
    return CKR_OK;
}

static CK_RV find_init(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_RV rv = told(true);
    return rv == CKR_OK ? real->C_FindObjectsInit(session, template, count) : rv;
}

static CK_RV begin(CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    if (!mechanism)
        return CKR_OK;
    if (mechanism->mechanism != CKM_ENVELOPE_KMS_WRAP || mechanism->ulParameterLen != sizeof operation.params)
        return CKR_MECHANISM_INVALID;
    operation.key = key;
    memcpy(&operation.params, mechanism->pParameter, sizeof operation.params);
    return CKR_OK;
}

static CK_RV encrypt_init(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    (void)session;
    return begin(mechanism, key);
}

static CK_RV decrypt_init(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    (void)session;
    return begin(mechanism, key);
}

static CK_MECHANISM gcm(CK_GCM_PARAMS *params, CK_BYTE *iv, const CK_ENVELOPE_KMS_PARAMS *given)
{
    *params = (CK_GCM_PARAMS){.pIv = iv,
                              .ulIvLen = IV_SIZE,
                              .ulIvBits = 8 * IV_SIZE,
                              .pAAD = given->pAAD,
                              .ulAADLen = given->ulAADLen,
                              .ulTagBits = 128};
    return (CK_MECHANISM){CKM_AES_GCM, params, sizeof *params};
}

static CK_RV seal(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, const CK_ENVELOPE_KMS_PARAMS *given, CK_BYTE *in,
                  CK_ULONG length, CK_BYTE *out, CK_ULONG *out_length)
{
    CK_GCM_PARAMS params;
    CK_BYTE made[HEAD + SEALED_MAX];
    CK_ULONG sealed = SEALED_MAX;
    if (getrandom(made, IV_SIZE, 0) != IV_SIZE)
        return CKR_DEVICE_ERROR;
    CK_MECHANISM mechanism = gcm(&params, made, given);
    CK_RV rv = real->C_EncryptInit(session, &mechanism, key);
    if (rv == CKR_OK)
        rv = real->C_Encrypt(session, in, length, made + HEAD, &sealed);
    if (rv != CKR_OK)
        return rv;
    made[IV_SIZE] = (CK_BYTE)sealed;
    CK_ULONG size = control->blob_size ? (CK_ULONG)control->blob_size : HEAD + sealed, room = *out_length;
    *out_length = size;
    if (room < size)
        return CKR_BUFFER_TOO_SMALL;
    memset(out, 0x5a, size);
    memcpy(out, made, HEAD + sealed);
    return CKR_OK;
}

static CK_RV open_blob(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, const CK_ENVELOPE_KMS_PARAMS *given,
                       const CK_BYTE *in, CK_ULONG length, CK_BYTE *out, CK_ULONG *out_length)
{
    CK_GCM_PARAMS params;
    CK_BYTE blob[HEAD + SEALED_MAX];
    if (length < HEAD || length < (CK_ULONG)HEAD + in[IV_SIZE])
        return CKR_ENCRYPTED_DATA_INVALID;
    memcpy(blob, in, HEAD + (size_t)in[IV_SIZE]);
    CK_MECHANISM mechanism = gcm(&params, blob, given);
    CK_RV rv = real->C_DecryptInit(session, &mechanism, key);
    if (rv == CKR_OK)
        rv = real->C_Decrypt(session, blob + HEAD, blob[IV_SIZE], out, out_length);
    return rv == CKR_GENERAL_ERROR ? CKR_ENCRYPTED_DATA_INVALID : rv;
}

static CK_RV encrypt(CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG length, CK_BYTE *out, CK_ULONG *out_length)
{
    control->encrypts++;
    CK_RV rv = told(false);
    return rv == CKR_OK ? seal(session, operation.key, &operation.params, in, length, out, out_length) : rv;
}

static CK_RV decrypt(CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG length, CK_BYTE *out, CK_ULONG *out_length)
{
    bool dry = operation.params.flags & CKF_ENVELOPE_KMS_DRY_RUN;
    if (dry)
        control->dry_runs++;
    else
        control->decrypts++;
    CK_RV rv = told(false);
    if (rv == CKR_OK)
        rv = open_blob(session, operation.key, &operation.params, in, length, out, out_length);
    last = rv;
    if (dry && rv == CKR_OK)
        *out_length = 0;
    return rv;
}

static CK_RV rewrap(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE from, const CK_ENVELOPE_KMS_PARAMS *from_params,
                    CK_OBJECT_HANDLE to, const CK_ENVELOPE_KMS_PARAMS *to_params, const unsigned char *blob,
                    unsigned long length, unsigned char *out, unsigned long *out_length, CK_BBOOL *left)
{
    CK_BYTE dek[SEALED_MAX];
    CK_ULONG dek_length = sizeof dek;
    control->rewraps++;
    CK_RV rv = told(false);
    if (rv == CKR_OK)
        rv = open_blob(session, from, from_params, blob, length, dek, &dek_length);
    if (rv == CKR_OK)
        rv = seal(session, to, to_params, dek, dek_length, out, out_length);
    if (rv == CKR_OK && control->damages)
        out[HEAD] ^= 1;
    *left = control->plaintext_leaves ? CK_TRUE : CK_FALSE;
    last = rv;
    return rv;
}

static CK_RV last_message(CK_SESSION_HANDLE session, CK_ENVELOPE_KMS_MESSAGE *message, unsigned long size)
{
    (void)session;
    if (size != sizeof *message)
        return CKR_ARGUMENTS_BAD;
    memset(message, 0, sizeof *message);
    message->rv = last;
    snprintf(message->service_code, sizeof message->service_code, "%s", control->code);
    if (last != CKR_OK)
        snprintf(message->text, sizeof message->text, "the service says so");
    snprintf(message->request_id, sizeof message->request_id, "request-%d",
             control->counts_requests ? last_request : 17);
    return CKR_OK;
}

static const char *last_text(void)
{
    return "the service has no configuration";
}

static CK_RV crypt_one(CK_SESSION_HANDLE session, bool encrypting, CK_OBJECT_HANDLE key, CK_ENVELOPE_KMS_ITEM *item)
{
    if (!encrypting)
        return open_blob(session, key, item->params, item->in, item->in_len, item->out, &item->out_len);
    CK_BYTE in[SEALED_MAX];
    memcpy(in, item->in, item->in_len);
    CK_RV rv = seal(session, key, item->params, in, item->in_len, item->out, &item->out_len);
    if (rv == CKR_OK && control->damages)
        item->out[HEAD] ^= 1;
    return rv;
}

/* SoftHSM wants more room than a plaintext needs. */
static CK_RV decrypt_one(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, const CK_ENVELOPE_KMS_ITEM *item,
                         CK_ENVELOPE_KMS_ITEM *given)
{
    CK_BYTE out[SEALED_MAX];
    CK_ENVELOPE_KMS_ITEM roomy = *item;
    roomy.out = out;
    roomy.out_len = sizeof out;
    CK_RV rv = crypt_one(session, false, key, &roomy);
    if (rv == CKR_OK && roomy.out_len > item->out_len)
        rv = CKR_BUFFER_TOO_SMALL;
    if (rv == CKR_OK)
        memcpy(given->out, out, roomy.out_len);
    given->out_len = roomy.out_len;
    return rv;
}

static CK_RV crypt_many(CK_SESSION_HANDLE session, unsigned long what, CK_OBJECT_HANDLE key, CK_OBJECT_HANDLE to,
                        CK_ENVELOPE_KMS_ITEM *items, unsigned long count, unsigned long item_size)
{
    if (item_size != sizeof *items || to != CK_INVALID_HANDLE || count == 0)
        return CKR_ARGUMENTS_BAD;
    control->many++;
    CK_RV first = told(false);
    for (unsigned long i = 0; i < count; i++) {
        CK_ENVELOPE_KMS_ITEM *item = &items[i];
        item->rv = control->rv;
        if (item->rv == CKR_OK)
            item->rv = what == CK_ENVELOPE_KMS_DECRYPT ? decrypt_one(session, key, item, item)
                                                       : crypt_one(session, true, key, item);
        first = first == CKR_OK ? item->rv : first;
    }
    last = first;
    return first;
}

static CK_RV batch_size(CK_SESSION_HANDLE session, unsigned long *pieces)
{
    (void)session;
    *pieces = control->one_by_one ? 1 : 200;
    return CKR_OK;
}

static CK_ENVELOPE_KMS_FUNCTIONS service = {.version = {1, 1},
                                            .rewrap = rewrap,
                                            .last_message = last_message,
                                            .last_text = last_text,
                                            .crypt_many = crypt_many,
                                            .batch_size = batch_size};

EXPORT void service_set_minor(unsigned char minor)
{
    service.version.minor = minor;
}

static void load(void)
{
    const char *path = getenv("SOFTHSM2_MODULE");
    void *handle = dlopen(path ? path : "/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW | RTLD_LOCAL);
    CK_C_GetFunctionList get = NULL;
    if (handle)
        *(void **)&get = dlsym(handle, "C_GetFunctionList");
    if (!get || get(&real) != CKR_OK)
        return;
    functions = *real;
    functions.C_GetFunctionList = C_GetFunctionList;
    functions.C_Initialize = initialize;
    functions.C_GetMechanismInfo = mechanism_info;
    functions.C_FindObjectsInit = find_init;
    functions.C_EncryptInit = encrypt_init;
    functions.C_Encrypt = encrypt;
    functions.C_DecryptInit = decrypt_init;
    functions.C_Decrypt = decrypt;
}

/* Not by way of C_GetFunctionList: libp11-kit exports one as well, and the linker would take that. */
static bool ready(void)
{
    static pthread_once_t loaded = PTHREAD_ONCE_INIT;
    pthread_once(&loaded, load);
    return real;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list)
{
    *list = &functions;
    return ready() ? CKR_OK : CKR_GENERAL_ERROR;
}

CK_RV get_interface(CK_UTF8CHAR *name, CK_VERSION *version, struct interface **interface, CK_FLAGS flags)
{
    static struct interface offered = {(CK_UTF8CHAR *)(void *)ENVELOPE_KMS_INTERFACE, (void *)&service, 0};
    static struct interface standard = {(CK_UTF8CHAR *)(void *)"PKCS 11", &functions, 0};
    (void)version;
    (void)flags;
    if (name && strcmp((const char *)name, ENVELOPE_KMS_INTERFACE) == 0) {
        *interface = &offered;
        return CKR_OK;
    }
    /* p11-kit 0.25 loads a module by this where there is one. */
    if ((name && strcmp((const char *)name, "PKCS 11") != 0) || !ready())
        return CKR_FUNCTION_FAILED;
    *interface = &standard;
    return CKR_OK;
}
