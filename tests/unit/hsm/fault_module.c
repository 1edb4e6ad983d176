#include "fault_module.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

enum { IV_SIZE = 12 };
#define VENDOR_GCM (CKM_VENDOR_DEFINED | CKM_AES_GCM)
#define KWP 0x210BUL

EXPORT extern struct fault_control fault_control;
struct fault_control fault_control;
EXPORT CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list);

static CK_FUNCTION_LIST functions;
static struct fault_control *const control = &fault_control;

/* What a session that speaks a mechanism SoftHSM lacks is about; one operation runs from init to end in one thread. */
static _Thread_local struct {
    enum { PLAIN, VENDOR, KEY_WRAP } kind;
    CK_OBJECT_HANDLE key;
    CK_GCM_PARAMS gcm;
    CK_BYTE iv[IV_SIZE];
} operation;

static CK_RV fault(enum fault_call call)
{
    control->call[call].calls++;
    if (control->call[call].hang) {
        control->call[call].hanging++;
        while (control->call[call].hang)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        control->call[call].hanging--;
    }
    if (control->call[call].times == 0)
        return CKR_OK;
    if (control->call[call].after > 0) {
        control->call[call].after--;
        return CKR_OK;
    }
    if (control->call[call].times > 0)
        control->call[call].times--;
    return control->call[call].rv;
}

#define FAULT(call)                                                                                                    \
    do {                                                                                                               \
        CK_RV told = fault(call);                                                                                      \
        if (told != CKR_OK)                                                                                            \
            return told;                                                                                               \
    } while (0)

static void enter(void)
{
    int now = ++control->inside, most = control->most_inside;
    while (most < now && !atomic_compare_exchange_weak(&control->most_inside, &most, now))
        ;
}

static CK_RV leave(CK_RV rv)
{
    control->inside--;
    return rv;
}

static CK_RV initialize(void *args)
{
    FAULT(FAULT_INITIALIZE);
    return control->real->C_Initialize(args);
}

static CK_RV token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    CK_RV rv = control->real->C_GetTokenInfo(slot, info);
    if (rv == CKR_OK)
        info->flags |= control->token_flags;
    return rv;
}

static CK_RV mechanism_info(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
    if ((type == VENDOR_GCM && control->iv == FAULT_IV_PREPENDED) || (type == KWP && control->kwp_encrypts)) {
        *info = (CK_MECHANISM_INFO){16, 32, CKF_ENCRYPT | CKF_DECRYPT};
        return CKR_OK;
    }
    if (type == CKM_AES_GCM && control->no_gcm)
        return CKR_MECHANISM_INVALID;
    return control->real->C_GetMechanismInfo(slot, type, info);
}

static CK_RV open_session(CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify,
                          CK_SESSION_HANDLE *session)
{
    FAULT(FAULT_OPEN_SESSION);
    if (control->session_limit && control->sessions >= control->session_limit)
        return CKR_SESSION_COUNT;
    CK_RV rv = control->real->C_OpenSession(slot, flags, application, notify, session);
    if (rv == CKR_OK)
        control->sessions++;
    return rv;
}

static CK_RV close_session(CK_SESSION_HANDLE session)
{
    CK_RV rv = control->real->C_CloseSession(session);
    if (rv == CKR_OK)
        control->sessions--;
    return rv;
}

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG length)
{
    FAULT(FAULT_LOGIN);
    if (control->long_pins && length > 255)
        return control->real->C_Login(session, user, pin + length - 6, 6);
    return control->real->C_Login(session, user, pin, length);
}

static CK_RV find_init(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    FAULT(FAULT_FIND);
    return control->real->C_FindObjectsInit(session, template, count);
}

static CK_RV encrypt_init(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    FAULT(FAULT_ENCRYPT_INIT);
    operation.kind = PLAIN;
    operation.key = key;
    if (mechanism->mechanism == KWP && control->kwp_encrypts) {
        operation.kind = KEY_WRAP;
        return CKR_OK;
    }
    if (mechanism->mechanism == VENDOR_GCM && control->iv == FAULT_IV_PREPENDED) {
        operation.gcm = *(CK_GCM_PARAMS *)mechanism->pParameter;
        if (operation.gcm.pIv || getrandom(operation.iv, IV_SIZE, 0) != IV_SIZE)
            return CKR_MECHANISM_PARAM_INVALID;
        operation.kind = VENDOR;
        operation.gcm.pIv = operation.iv;
        operation.gcm.ulIvLen = IV_SIZE;
        operation.gcm.ulIvBits = 8 * IV_SIZE;
        CK_MECHANISM gcm = {CKM_AES_GCM, &operation.gcm, sizeof operation.gcm};
        return control->real->C_EncryptInit(session, &gcm, key);
    }
    if (mechanism->mechanism == CKM_AES_GCM && control->iv != FAULT_IV_CALLER) {
        static const CK_BYTE zero[IV_SIZE];
        CK_GCM_PARAMS *params = mechanism->pParameter;
        if (control->iv == FAULT_IV_PREPENDED || params->ulIvLen != IV_SIZE || memcmp(params->pIv, zero, IV_SIZE) != 0)
            return CKR_MECHANISM_PARAM_INVALID;
        if (getrandom(params->pIv, IV_SIZE, 0) != IV_SIZE)
            return CKR_DEVICE_ERROR;
    }
    return control->real->C_EncryptInit(session, mechanism, key);
}

/* SoftHSM wraps keys only: so the data becomes one. */
static CK_RV key_wrap(CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG in_length, CK_BYTE *out, CK_ULONG *out_length)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_GENERIC_SECRET;
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class},   {CKA_KEY_TYPE, &type, sizeof type},
                               {CKA_TOKEN, &no, sizeof no},         {CKA_SENSITIVE, &no, sizeof no},
                               {CKA_EXTRACTABLE, &yes, sizeof yes}, {CKA_VALUE, in, in_length}};
    CK_MECHANISM pad = {CKM_AES_KEY_WRAP_PAD, NULL, 0};
    CK_OBJECT_HANDLE object = 0;
    CK_RV rv = control->real->C_CreateObject(session, template, 6, &object);
    if (rv != CKR_OK)
        return rv;
    rv = control->real->C_WrapKey(session, &pad, operation.key, object, out, out_length);
    control->real->C_DestroyObject(session, object);
    return rv;
}

static CK_RV key_unwrap(CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG in_length, CK_BYTE *out, CK_ULONG *out_length)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_GENERIC_SECRET;
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class},
                               {CKA_KEY_TYPE, &type, sizeof type},
                               {CKA_TOKEN, &no, sizeof no},
                               {CKA_SENSITIVE, &no, sizeof no},
                               {CKA_EXTRACTABLE, &yes, sizeof yes}};
    CK_MECHANISM pad = {CKM_AES_KEY_WRAP_PAD, NULL, 0};
    CK_OBJECT_HANDLE object = 0;
    CK_RV rv = control->real->C_UnwrapKey(session, &pad, operation.key, in, in_length, template, 5, &object);
    if (rv != CKR_OK)
        return CKR_ENCRYPTED_DATA_INVALID;
    CK_ATTRIBUTE value = {CKA_VALUE, out, *out_length};
    rv = control->real->C_GetAttributeValue(session, object, &value, 1);
    *out_length = value.ulValueLen;
    control->real->C_DestroyObject(session, object);
    return rv;
}

static CK_RV encrypt(CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG in_length, CK_BYTE *out, CK_ULONG *out_length)
{
    enter();
    CK_RV rv = fault(FAULT_ENCRYPT);
    if (rv != CKR_OK) {
        /* The operation has to end in SoftHSM too. */
        CK_BYTE away[512];
        CK_ULONG length = sizeof away;
        if (operation.kind != KEY_WRAP)
            control->real->C_Encrypt(session, in, in_length, away, &length);
        return leave(rv);
    }
    if (operation.kind == KEY_WRAP)
        return leave(key_wrap(session, in, in_length, out, out_length));
    if (operation.kind == PLAIN)
        return leave(control->real->C_Encrypt(session, in, in_length, out, out_length));
    CK_ULONG room = *out_length - IV_SIZE;
    rv = control->real->C_Encrypt(session, in, in_length, out + IV_SIZE, &room);
    memcpy(out, operation.iv, IV_SIZE);
    *out_length = room + IV_SIZE;
    return leave(rv);
}

static CK_RV decrypt_init(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    FAULT(FAULT_DECRYPT_INIT);
    operation.kind = PLAIN;
    operation.key = key;
    if (mechanism->mechanism == KWP && control->kwp_encrypts) {
        operation.kind = KEY_WRAP;
        return CKR_OK;
    }
    if (mechanism->mechanism == VENDOR_GCM && control->iv == FAULT_IV_PREPENDED) {
        operation.kind = VENDOR;
        operation.gcm = *(CK_GCM_PARAMS *)mechanism->pParameter;
        return operation.gcm.pIv ? CKR_MECHANISM_PARAM_INVALID : CKR_OK;
    }
    return control->real->C_DecryptInit(session, mechanism, key);
}

static CK_RV decrypt(CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG in_length, CK_BYTE *out, CK_ULONG *out_length)
{
    enter();
    CK_RV rv = fault(FAULT_DECRYPT);
    if (rv != CKR_OK) {
        CK_BYTE away[1024];
        CK_ULONG length = sizeof away;
        if (operation.kind == PLAIN)
            control->real->C_Decrypt(session, in, in_length, away, &length);
        return leave(rv);
    }
    if (operation.kind == KEY_WRAP)
        return leave(key_unwrap(session, in, in_length, out, out_length));
    if (operation.kind == PLAIN)
        return leave(control->real->C_Decrypt(session, in, in_length, out, out_length));
    operation.gcm.pIv = in;
    operation.gcm.ulIvLen = IV_SIZE;
    operation.gcm.ulIvBits = 8 * IV_SIZE;
    CK_MECHANISM gcm = {CKM_AES_GCM, &operation.gcm, sizeof operation.gcm};
    rv = control->real->C_DecryptInit(session, &gcm, operation.key);
    if (rv == CKR_OK)
        rv = control->real->C_Decrypt(session, in + IV_SIZE, in_length - IV_SIZE, out, out_length);
    return leave(rv);
}

static CK_RV wrap_key(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE kek, CK_OBJECT_HANDLE key,
                      CK_BYTE *out, CK_ULONG *out_length)
{
    FAULT(FAULT_WRAP);
    CK_RV rv = control->real->C_WrapKey(session, mechanism, kek, key, out, out_length);
    if (rv == CKR_OK && control->pkcs7_pad) {
        memset(out + *out_length, 0x5a, 8);
        *out_length += 8;
    }
    return rv;
}

static CK_RV random_bytes(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG length)
{
    FAULT(FAULT_RANDOM);
    return control->real->C_GenerateRandom(session, out, length);
}

static void load(void)
{
    const char *path = getenv("SOFTHSM2_MODULE");
    void *handle = dlopen(path ? path : "/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW | RTLD_LOCAL);
    CK_C_GetFunctionList get = NULL;
    if (handle)
        *(void **)&get = dlsym(handle, "C_GetFunctionList");
    if (!get || get(&control->real) != CKR_OK)
        return;
    functions = *control->real;
    functions.C_GetFunctionList = C_GetFunctionList;
    functions.C_Initialize = initialize;
    functions.C_GetTokenInfo = token_info;
    functions.C_GetMechanismInfo = mechanism_info;
    functions.C_OpenSession = open_session;
    functions.C_CloseSession = close_session;
    functions.C_Login = login;
    functions.C_FindObjectsInit = find_init;
    functions.C_EncryptInit = encrypt_init;
    functions.C_Encrypt = encrypt;
    functions.C_DecryptInit = decrypt_init;
    functions.C_Decrypt = decrypt;
    functions.C_WrapKey = wrap_key;
    functions.C_GenerateRandom = random_bytes;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list)
{
    static pthread_once_t loaded = PTHREAD_ONCE_INIT;
    pthread_once(&loaded, load);
    *list = &functions;
    return control->real ? CKR_OK : CKR_GENERAL_ERROR;
}
