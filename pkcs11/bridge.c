#include "bridge.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fork.h"
#include "resolve.h"

static pthread_mutex_t current_lock = PTHREAD_MUTEX_INITIALIZER; /* short; never held across anything slow */
static struct bridge *current;

/* Held across a fork, so that the child finds both locks free and `current` whole. */
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;

static void before_fork(void)
{
    pthread_mutex_lock(&start_lock);
    pthread_mutex_lock(&current_lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&current_lock);
    pthread_mutex_unlock(&start_lock);
}

static const struct fork_handler fork_handler = {.prepare = before_fork, .parent = after_fork, .child = after_fork};

static void destroy(struct bridge *bridge)
{
    for (size_t i = 0; i < bridge->session_room; i++)
        if (bridge->sessions[i])
            session_unref(bridge->sessions[i]);
    free(bridge->sessions);
    for (size_t i = 0; i < bridge->token_count; i++) {
        objects_clear(&bridge->objects[i]);
        token_close(bridge->tokens[i]);
    }
    kms_settings_clear(&bridge->settings);
    pthread_mutex_destroy(&bridge->lock);
    free(bridge);
}

void bridge_unref(struct bridge *bridge)
{
    if (bridge && atomic_fetch_sub(&bridge->references, 1) == 1)
        destroy(bridge);
}

struct bridge *bridge_ref(void)
{
    pthread_mutex_lock(&current_lock);
    struct bridge *bridge = current;
    if (bridge && bridge->generation != fork_generation())
        bridge = NULL;
    if (bridge)
        atomic_fetch_add(&bridge->references, 1);
    pthread_mutex_unlock(&current_lock);
    return bridge;
}

struct token *bridge_token(struct bridge *bridge, CK_SLOT_ID slot)
{
    return slot >= 1 && slot <= bridge->token_count ? bridge->tokens[slot - 1] : NULL;
}

static CK_RV check_args(const CK_C_INITIALIZE_ARGS *args)
{
    if (!args)
        return CKR_OK;
    bool any = args->CreateMutex || args->DestroyMutex || args->LockMutex || args->UnlockMutex;
    bool all = args->CreateMutex && args->DestroyMutex && args->LockMutex && args->UnlockMutex;
    if (args->pReserved || any != all)
        return call_refuse(CKR_ARGUMENTS_BAD, "C_Initialize: pReserved must be NULL and the four mutex functions be "
                                              "all there or all absent");
    if (any && !(args->flags & CKF_OS_LOCKING_OK))
        return call_refuse(CKR_CANT_LOCK, "C_Initialize: this module locks by the operating system's means only "
                                          "(CKF_OS_LOCKING_OK)");
    return CKR_OK;
}

static envelope_status make(struct bridge **made)
{
    struct bridge *bridge = calloc(1, sizeof *bridge);
    if (!bridge)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the module");
    atomic_init(&bridge->references, 1);
    pthread_mutex_init(&bridge->lock, NULL);
    bridge->generation = fork_generation();
    bridge->object_number = OBJECTS_SESSION_BASE;
    envelope_status status = kms_settings_load(&bridge->settings);
    for (size_t i = 0; !status && i < bridge->settings.count; i++) {
        status = token_open(bridge->settings.tokens[i], &bridge->tokens[i]);
        if (status)
            error_context(status, "%s", bridge->settings.path);
        else
            call_log_token(bridge->tokens[bridge->token_count++]);
    }
    if (!status)
        status = http_setup();
    if (status)
        destroy(bridge);
    else
        *made = bridge;
    return status;
}

static CK_RV start_once(const CK_C_INITIALIZE_ARGS *args)
{
    struct bridge *running = bridge_ref();
    if (running) {
        bridge_unref(running);
        return CKR_CRYPTOKI_ALREADY_INITIALIZED;
    }
    if (!libctx_private())
        return CKR_GENERAL_ERROR;
    struct libctx_guard guard;
    struct bridge *made = NULL;
    resolve_without_threads(args && args->flags & CKF_LIBRARY_CANT_CREATE_OS_THREADS);
    libctx_enter(&guard);
    envelope_status status = make(&made);
    libctx_leave(&guard);
    if (status)
        return status == ENVELOPE_E_NO_MEMORY ? CKR_HOST_MEMORY : CKR_FUNCTION_FAILED;
    pthread_mutex_lock(&current_lock);
    current = made; /* what a forked child inherited is left as it was: see bridge.h */
    pthread_mutex_unlock(&current_lock);
    return CKR_OK;
}

CK_RV bridge_start(const CK_C_INITIALIZE_ARGS *args)
{
    error_clear();
    CK_RV rv = check_args(args);
    if (rv == CKR_OK) {
        fork_add_handler(&fork_handler);
        pthread_mutex_lock(&start_lock);
        rv = start_once(args);
        pthread_mutex_unlock(&start_lock);
    }
    call_log(rv);
    return rv;
}

CK_RV bridge_stop(void)
{
    pthread_mutex_lock(&current_lock);
    struct bridge *bridge = current;
    bool ours = bridge && bridge->generation == fork_generation();
    if (ours)
        current = NULL;
    pthread_mutex_unlock(&current_lock);
    if (!ours)
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    bridge_unref(bridge);
    return CKR_OK;
}
