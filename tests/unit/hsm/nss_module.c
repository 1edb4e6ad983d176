/*
 * NSS softoken as a PKCS#11 module that can be initialised as the standard says: it insists on parameters of its own in
 * pReserved, which are made here of the directory in ENVELOPE_TEST_NSS.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <p11-kit/pkcs11.h>

/* NSS's CK_C_INITIALIZE_ARGS has its parameters before pReserved. */
struct nss_args {
    CK_CREATEMUTEX create;
    CK_DESTROYMUTEX destroy;
    CK_LOCKMUTEX lock;
    CK_UNLOCKMUTEX unlock;
    CK_FLAGS flags;
    char *parameters;
    void *reserved;
};

static CK_FUNCTION_LIST functions;
static CK_FUNCTION_LIST *real;

__attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list);

static CK_RV initialize(void *given)
{
    static char parameters[512];
    const char *directory = getenv("ENVELOPE_TEST_NSS");
    (void)given;
    if (!directory)
        return CKR_ARGUMENTS_BAD;
    snprintf(parameters, sizeof parameters,
             "configDir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' flags=noModDB", directory);
    struct nss_args args = {.flags = CKF_OS_LOCKING_OK, .parameters = parameters};
    return real->C_Initialize(&args);
}

static void load(void)
{
    void *handle = dlopen("libsoftokn3.so", RTLD_NOW | RTLD_LOCAL);
    CK_C_GetFunctionList get = NULL;
    if (handle)
        *(void **)&get = dlsym(handle, "C_GetFunctionList");
    if (!get || get(&real) != CKR_OK)
        return;
    functions = *real;
    functions.C_Initialize = initialize;
    functions.C_GetFunctionList = C_GetFunctionList;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list)
{
    static pthread_once_t loaded = PTHREAD_ONCE_INIT;
    pthread_once(&loaded, load);
    *list = &functions;
    return real ? CKR_OK : CKR_GENERAL_ERROR;
}
