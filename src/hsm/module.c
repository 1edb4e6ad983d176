/*
 * p11-kit loads the module unmanaged: its managed mode adds a lock and a table
 * to every call, and neither helps us, since sessions, forks and other owners
 * are looked after here. p11_kit_modules_load_and_initialize would start every
 * module of the system.
 *
 * Fork: a child calls C_Initialize again, as the standard asks. A module that
 * says ALREADY_INITIALIZED carried its state over (SoftHSM does, without
 * library.reset_on_fork), and is used as it is: finalising it would cost a
 * login per child, and SoftHSM rewrites its token.object at each.
 */
#include "hsm/module.h"

#include <stdlib.h>
#include <string.h>

#include <p11-kit/p11-kit.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fork.h"
#include "base/text.h"
#include "hsm/ckr.h"
#include "hsm/service.h"
#include "hsm/token.h"

/* Between two restarts of one module; other tokens in use make it dearer. */
static const int64_t RESTART_PAUSE = CLOCK_SECOND / 10;
static const int64_t RESTART_PAUSE_SHARED = 5 * CLOCK_SECOND;

static struct hsm_module *modules;
static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static _Thread_local CK_RV refusal;
static _Thread_local struct libctx_guard guard;

static void loader_forked(struct hsm_gate *gate)
{
    (void)gate;
}

/* Closed by the one thread that loads or initialises a module: bursts of C_Initialize crash SoftHSM. */
static struct hsm_gate loader = {.forked = loader_forked};

static void prepare_once(void)
{
    hsm_lock();
    hsm_gate_add(&loader);
    hsm_unlock();
}

static void module_forked(struct hsm_gate *gate)
{
    struct hsm_module *module = (struct hsm_module *)gate;
    module->ready = false;
    for (struct hsm_token *token = module->tokens; token; token = token->next_of_module)
        hsm_token_forked(token);
}

void hsm_module_forget(struct hsm_module *module)
{
    module->ready = false;
    for (struct hsm_token *token = module->tokens; token; token = token->next_of_module)
        hsm_token_reset(token);
}

bool hsm_call_enter(struct hsm_module *module, uint64_t generation)
{
    if (!hsm_gate_enter(&module->gate)) {
        refusal = HSM_CKR_FORKED;
        return false;
    }
    if (generation && generation != atomic_load(&module->generation)) {
        hsm_gate_leave(&module->gate);
        refusal = HSM_CKR_SUPERSEDED;
        return false;
    }
    libctx_enter(&guard);
    return true;
}

CK_RV hsm_call_leave(struct hsm_module *module, CK_RV rv)
{
    libctx_leave(&guard);
    hsm_gate_leave(&module->gate);
    return rv;
}

CK_RV hsm_call_refusal(void)
{
    return refusal;
}

static envelope_status loader_busy(void)
{
    if (atomic_load(&loader.locked_out))
        return error_raise(
            ENVELOPE_E_HSM_UNAVAILABLE,
            "this process was forked while another thread was loading a PKCS#11 module, and cannot use one "
            "any more; fork earlier, or execute the program anew in the child");
    return error_raise(ENVELOPE_E_HSM_UNAVAILABLE,
                       "another thread has been loading or initialising a PKCS#11 module for the whole deadline");
}

static struct hsm_module *find_module(const char *path)
{
    hsm_lock();
    struct hsm_module *module = modules;
    while (module && strcmp(module->path, path) != 0)
        module = module->next;
    hsm_unlock();
    return module;
}

/* What we call must be there; the standard says so, some modules do not. */
static const char *missing_function(const CK_FUNCTION_LIST *list)
{
#define NEEDED(function)                                                                                               \
    if (!list->function)                                                                                               \
        return #function;
    NEEDED(C_Initialize)
    NEEDED(C_Finalize)
    NEEDED(C_GetSlotList)
    NEEDED(C_GetSlotInfo)
    NEEDED(C_GetTokenInfo)
    NEEDED(C_GetMechanismInfo)
    NEEDED(C_OpenSession)
    NEEDED(C_CloseSession)
    NEEDED(C_GetSessionInfo)
    NEEDED(C_Login)
    NEEDED(C_FindObjectsInit)
    NEEDED(C_FindObjects)
    NEEDED(C_FindObjectsFinal)
    NEEDED(C_GetAttributeValue)
    NEEDED(C_EncryptInit)
    NEEDED(C_Encrypt)
    NEEDED(C_DecryptInit)
    NEEDED(C_Decrypt)
    NEEDED(C_WrapKey)
    NEEDED(C_UnwrapKey)
    NEEDED(C_CreateObject)
    NEEDED(C_DestroyObject)
    NEEDED(C_GenerateKey)
    NEEDED(C_GenerateRandom)
    NEEDED(C_InitToken)
    NEEDED(C_InitPIN)
    NEEDED(C_Logout)
#undef NEEDED
    return NULL;
}

/* The loader is closed. */
static envelope_status load(const char *path, struct hsm_module **loaded)
{
    struct libctx_guard outer; /* its constructors may use libcrypto */
    libctx_enter(&outer);
    CK_FUNCTION_LIST *functions = p11_kit_module_load(path, P11_KIT_MODULE_UNMANAGED);
    libctx_leave(&outer);
    if (!functions) {
        const char *why = p11_kit_message();
        return error_raise(ENVELOPE_E_HSM_MODULE, "the PKCS#11 module \"%s\" cannot be loaded: %s", path,
                           why ? why : "no reason given");
    }
    const char *missing = missing_function(functions);
    if (missing)
        return error_raise(ENVELOPE_E_HSM_MODULE, "the PKCS#11 module \"%s\" has no %s", path, missing);
    libctx_enter(&outer);
    const CK_ENVELOPE_KMS_FUNCTIONS *service = hsm_service_find(functions);
    libctx_leave(&outer);
    struct hsm_module *module = calloc(1, sizeof *module);
    char *copy = text_copy(path);
    if (!module || !copy) {
        free(module);
        free(copy);
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the PKCS#11 module \"%s\"", path);
    }
    module->path = copy;
    module->functions = functions;
    module->service = service;
    module->gate.forked = module_forked;
    atomic_store(&module->generation, 1);
    hsm_lock();
    hsm_gate_add(&module->gate);
    module->next = modules;
    modules = module;
    hsm_unlock();
    *loaded = module;
    return ENVELOPE_OK;
}

static envelope_status initialise_failed(const struct hsm_module *module, bool was_ready, CK_RV rv)
{
    if (rv == HSM_CKR_FORKED)
        return error_raise(
            ENVELOPE_E_HSM_UNAVAILABLE,
            "this process was forked while another thread was inside the PKCS#11 module \"%s\", which may "
            "be locked for good; fork earlier, or execute the program anew in the child",
            module->path);
    const char *why = module->service ? module->service->last_text() : "";
    if (*why)
        return error_raise(was_ready ? ENVELOPE_E_HSM_UNAVAILABLE : ENVELOPE_E_HSM_MODULE,
                           "the PKCS#11 module \"%s\" cannot be initialised (%s): %s", module->path, hsm_ckr_name(rv),
                           why);
    return error_raise(
        was_ready ? ENVELOPE_E_HSM_UNAVAILABLE : ENVELOPE_E_HSM_MODULE,
        "the PKCS#11 module \"%s\" cannot be initialised (%s); is its own configuration readable, and are "
        "its files or its service there?",
        module->path, hsm_ckr_name(rv));
}

static CK_RV call_initialize(const struct hsm_module *module)
{
    /* pReserved stays NULL: SoftHSM refuses anything else. */
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    return module->functions->C_Initialize(&args);
}

/* The loader is closed, nobody else changes ready. */
static envelope_status initialise(struct hsm_module *module)
{
    if (!hsm_call_enter(module, 0))
        return initialise_failed(module, module->was_ready, refusal);
    CK_RV rv = hsm_call_leave(module, call_initialize(module));
    if (rv != CKR_OK && rv != CKR_CRYPTOKI_ALREADY_INITIALIZED)
        return initialise_failed(module, module->was_ready, rv);
    hsm_lock();
    /* ALREADY_INITIALIZED: another owner; or this is a fork's child and the state is the parent's, then owner stays. */
    if (rv == CKR_OK) {
        module->owner = true;
        module->restarted = clock_monotonic();
        atomic_fetch_add(&module->generation, 1);
    }
    bool first = !module->was_ready;
    module->ready = true;
    module->was_ready = true;
    hsm_unlock();
    if (first)
        fork_go_first();
    return ENVELOPE_OK;
}

bool hsm_module_is_ready(const struct hsm_module *module)
{
    hsm_lock();
    bool ready = module->ready;
    hsm_unlock();
    return ready;
}

envelope_status hsm_module_ready(struct hsm_module *module, int64_t deadline)
{
    if (hsm_module_is_ready(module))
        return ENVELOPE_OK;
    if (!hsm_gate_close(&loader, deadline))
        return loader_busy();
    envelope_status status = hsm_module_is_ready(module) ? ENVELOPE_OK : initialise(module);
    hsm_gate_open(&loader);
    return status;
}

envelope_status hsm_module_get(const char *path, int64_t deadline, struct hsm_module **module)
{
    pthread_once(&prepared, prepare_once);
    *module = find_module(path);
    if (!*module) {
        if (!hsm_gate_close(&loader, deadline))
            return loader_busy();
        *module = find_module(path);
        envelope_status status = *module ? ENVELOPE_OK : load(path, module);
        hsm_gate_open(&loader);
        if (status != ENVELOPE_OK)
            return status;
    }
    return hsm_module_ready(*module, deadline);
}

/* How long a restart must still wait for its turn; INT64_MAX: never, it is not ours. */
static int64_t restart_due_in(const struct hsm_module *module)
{
    hsm_lock();
    bool shared = false;
    for (const struct hsm_token *token = module->tokens; token; token = token->next_of_module)
        shared = shared || token->state == HSM_TOKEN_UP;
    int64_t pause = shared ? RESTART_PAUSE_SHARED : RESTART_PAUSE;
    int64_t due = module->restarted ? module->restarted + pause - clock_monotonic() : 0;
    bool ours = module->owner;
    hsm_unlock();
    if (!ours)
        return INT64_MAX;
    return due > 0 ? due : 0;
}

envelope_status hsm_module_restart(struct hsm_module *module, int64_t deadline, bool *done)
{
    *done = false;
    int64_t due = restart_due_in(module);
    if (due > RESTART_PAUSE)
        return ENVELOPE_OK;
    hsm_pause(due, deadline);
    if (!hsm_gate_close(&loader, deadline))
        return loader_busy();
    envelope_status status = ENVELOPE_OK;
    /* Another thread has done it meanwhile, which is as good. */
    if (restart_due_in(module) > 0) {
        *done = true;
        goto out;
    }
    if (!hsm_gate_close(&module->gate, deadline)) {
        status = error_raise(ENVELOPE_E_HSM_UNAVAILABLE,
                             "a thread has been inside the PKCS#11 module \"%s\" for the whole deadline", module->path);
        goto out;
    }
    libctx_enter(&guard);
    (void)module->functions->C_Finalize(NULL); /* whatever it says, what counts is whether C_Initialize works */
    CK_RV rv = call_initialize(module);
    libctx_leave(&guard);
    hsm_lock();
    atomic_fetch_add(&module->generation, 1);
    hsm_module_forget(module);
    module->restarted = clock_monotonic();
    module->ready = rv == CKR_OK || rv == CKR_CRYPTOKI_ALREADY_INITIALIZED;
    module->owner = rv != CKR_CRYPTOKI_ALREADY_INITIALIZED;
    hsm_unlock();
    hsm_gate_open(&module->gate);
    *done = true;
    if (rv != CKR_OK && rv != CKR_CRYPTOKI_ALREADY_INITIALIZED)
        status = initialise_failed(module, true, rv);
out:
    hsm_gate_open(&loader);
    return status;
}
