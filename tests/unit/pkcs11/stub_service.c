#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "backends.h"
#include "base/error.h"
#include "stub_service.h"

struct stub_service stub;
CK_FUNCTION_LIST *p11;
CK_SESSION_HANDLE session, writable;

/* --- keys of the service, the same for both tokens --- */

struct stub_key {
    char name[64];
    enum backend_key_type type;
    bool decrypts_only;
};
static pthread_mutex_t keys_lock = PTHREAD_MUTEX_INITIALIZER;
static struct stub_key keys[STUB_KEYS_MAX];
static size_t key_count;
static unsigned char *public_key;
static int public_key_length;

static void keys_reset(void)
{
    static const struct stub_key first[] = {
        {"kek", BACKEND_KEY_SYMMETRIC, false},
        {"old", BACKEND_KEY_SYMMETRIC, true},
        {"pair", BACKEND_KEY_RSA, false},
    };
    memcpy(keys, first, sizeof first);
    key_count = sizeof first / sizeof first[0];
}

static const struct stub_key *key_named(const char *name)
{
    for (size_t i = 0; i < key_count; i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

static enum backend_step describe(struct backend_call *call, const struct stub_key *from)
{
    struct backend_key *key = backend_add_key(call);
    assert_non_null(key);
    key->id = strdup(from->name);
    key->label = strdup(from->name);
    key->type = from->type;
    key->bits = from->type == BACKEND_KEY_RSA ? 2048 : 256;
    key->can_encrypt = !from->decrypts_only;
    key->can_decrypt = key->enabled = true;
    if (from->type == BACKEND_KEY_RSA) {
        key->public_key = malloc((size_t)public_key_length);
        assert_non_null(key->public_key);
        memcpy(key->public_key, public_key, (size_t)public_key_length);
        key->public_key_length = (size_t)public_key_length;
    }
    return BACKEND_DONE;
}

static enum backend_step make_key(struct backend_call *call)
{
    struct stub_key made = {.type = call->type};
    if (key_count == STUB_KEYS_MAX)
        return backend_fail(call, CKR_DEVICE_MEMORY, error_raise(ENVELOPE_E_HSM, "the stub is full"));
    snprintf(made.name, sizeof made.name, "%s", call->label ? call->label : "unnamed");
    if (key_named(made.name))
        return backend_fail(call, CKR_TEMPLATE_INCONSISTENT, error_raise(ENVELOPE_E_HSM, "the name is taken"));
    keys[key_count++] = made;
    return describe(call, &made);
}

static enum backend_step delete_key(struct backend_call *call)
{
    for (size_t i = 0; i < key_count; i++)
        if (strcmp(keys[i].name, call->key) == 0) {
            keys[i] = keys[--key_count];
            return BACKEND_DONE;
        }
    return backend_fail(call, CKR_KEY_HANDLE_INVALID, error_raise(ENVELOPE_E_KEK_UNKNOWN, "no such key"));
}

/* --- what it calls encryption: the plaintext turned over, behind eight bytes that depend on key and associated data
 * --- */

static uint64_t mark(const struct backend_call *call)
{
    uint64_t sum = call->cipher == BACKEND_AEAD ? 17 : 23;
    for (const char *c = call->key; *c; c++)
        sum = sum * 31 + (unsigned char)*c;
    for (size_t i = 0; i < call->aad_length; i++)
        sum = sum * 37 + call->aad[i];
    return sum;
}

static void append_turned(struct buffer *out, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        buffer_append(out, &(uint8_t){(uint8_t)~bytes[i]}, 1);
}

static void wait_while_held(void)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    atomic_fetch_add(&stub.held, 1);
    while (atomic_load(&stub.hold))
        nanosleep(&moment, NULL);
    atomic_fetch_sub(&stub.held, 1);
}

static enum backend_step encrypt(struct backend_call *call)
{
    uint64_t own = mark(call);
    wait_while_held();
    if (call->dry_run)
        return BACKEND_DONE;
    buffer_append(&call->out, &own, sizeof own);
    append_turned(&call->out, call->in, call->in_length);
    return BACKEND_DONE;
}

static enum backend_step decrypt(struct backend_call *call)
{
    uint64_t own = mark(call);
    if (call->in_length <= sizeof own || memcmp(call->in, &own, sizeof own) != 0)
        return backend_fail(call, CKR_ENCRYPTED_DATA_INVALID, error_raise(ENVELOPE_E_UNWRAP, "not from here"));
    if (!call->dry_run)
        append_turned(&call->out, call->in + sizeof own, call->in_length - sizeof own);
    return BACKEND_DONE;
}

static enum backend_step authenticate(struct backend_call *call)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    if (atomic_load(&stub.slow_login))
        nanosleep(&moment, NULL);
    if (*call->pin)
        wait_while_held();
    if (*call->pin && strcmp(call->pin, STUB_PIN) != 0 && strcmp(call->pin, STUB_USER ":" STUB_PIN) != 0)
        return backend_fail(call, CKR_USER_NOT_LOGGED_IN, error_raise(ENVELOPE_E_HSM_LOGIN, "another PIN"));
    call->made = credentials_new("", "", "", 0);
    return call->made ? BACKEND_DONE : backend_fail(call, CKR_HOST_MEMORY, error_status());
}

static enum backend_step random_bytes(struct backend_call *call)
{
    for (size_t i = 0; i < call->length; i++)
        buffer_append(&call->out, &(uint8_t){(uint8_t)(i + 1)}, 1);
    return BACKEND_DONE;
}

static enum backend_step list(struct backend_call *call)
{
    for (size_t i = 0; i < key_count; i++)
        describe(call, &keys[i]);
    return BACKEND_DONE;
}

static enum backend_step describe_named(struct backend_call *call)
{
    const struct stub_key *key = key_named(call->key);
    return key ? describe(call, key) : BACKEND_DONE;
}

static enum backend_step with_keys(struct backend_call *call, enum backend_step (*work)(struct backend_call *))
{
    pthread_mutex_lock(&keys_lock);
    enum backend_step step = work(call);
    pthread_mutex_unlock(&keys_lock);
    return step;
}

static enum backend_step step(const void *state, struct backend_call *call, const struct http_reply *reply,
                              struct http_request *request)
{
    (void)state;
    (void)reply;
    (void)request;
    atomic_fetch_add(&stub.asked[call->op], 1);
    switch (call->op) {
    case BACKEND_AUTHENTICATE:
        return authenticate(call);
    case BACKEND_LIST:
        return with_keys(call, list);
    case BACKEND_DESCRIBE:
        return with_keys(call, describe_named);
    case BACKEND_CREATE:
        return with_keys(call, make_key);
    case BACKEND_DELETE:
        return with_keys(call, delete_key);
    case BACKEND_ENCRYPT:
        return encrypt(call);
    case BACKEND_DECRYPT:
        return decrypt(call);
    case BACKEND_RANDOM:
        return random_bytes(call);
    default:
        return backend_fail(call, CKR_FUNCTION_NOT_SUPPORTED, error_raise(ENVELOPE_E_WRAP_MECHANISM, "not this"));
    }
}

static envelope_status open_state(const struct token_settings *settings, void **state)
{
    *state = (void *)settings;
    return ENVELOPE_OK;
}

static void close_state(void *state)
{
    (void)state;
}

static const struct backend stub_backend = {
    .name = "stub",
    .model = "stub",
    .max_plaintext = 4096,
    .max_ciphertext = 4096 + STUB_BLOB_EXTRA,
    .oaep_sha256 = true,
    .random = true,
    .open = open_state,
    .close = close_state,
    .step = step,
};

/* In the place of backends.c. */
const struct backend *const backends_known[] = {&stub_backend, NULL};

/* --- the module, from outside --- */

extern CK_RV get_interface(CK_UTF8CHAR *, CK_VERSION *, struct p11_interface **, CK_FLAGS) __asm__("C_GetInterface");
extern CK_RV get_interface_list(struct p11_interface *, CK_ULONG *) __asm__("C_GetInterfaceList");
extern CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list);

CK_RV stub_get_interface(const char *name, CK_VERSION *version, struct p11_interface **interface, CK_FLAGS flags)
{
    return get_interface((CK_UTF8CHAR *)name, version, interface, flags);
}

CK_RV stub_get_interface_list(struct p11_interface *interfaces, CK_ULONG *count)
{
    return get_interface_list(interfaces, count);
}

/* The service is not in the process that forks, in truth: its lock must not stay locked in a child. */
static void lock_keys(void)
{
    pthread_mutex_lock(&keys_lock);
}

static void unlock_keys(void)
{
    pthread_mutex_unlock(&keys_lock);
}

static char path[] = "/tmp/envelope-p11.XXXXXX";

int stub_set_up(void **state)
{
    (void)state;
    static const char text[] =
        "[token two]\nbackend = stub\ncreate = yes\ndestroy = yes\n[token one]\nbackend = stub\ndeadline = 1s\n";
    EVP_PKEY *pair = EVP_RSA_gen(2048);
    public_key_length = pair ? i2d_PUBKEY(pair, &public_key) : 0;
    EVP_PKEY_free(pair);
    int file = mkstemp(path);
    if (public_key_length <= 0 || file < 0 || write(file, text, sizeof text - 1) != (ssize_t)sizeof text - 1)
        return 1;
    close(file);
    keys_reset();
    if (pthread_atfork(lock_keys, unlock_keys, unlock_keys) != 0)
        return 1;
    return setenv("ENVELOPE_KMS_CONFIG", path, 1) == 0 && C_GetFunctionList(&p11) == CKR_OK ? 0 : 1;
}

int stub_tear_down(void **state)
{
    (void)state;
    OPENSSL_free(public_key);
    public_key = NULL;
    return unlink(path);
}

int stub_start(void **state)
{
    (void)state;
    const CK_FLAGS flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
    keys_reset();
    for (size_t i = 0; i < BACKEND_OP_COUNT; i++)
        atomic_store(&stub.asked[i], 0);
    return p11->C_Initialize(NULL) == CKR_OK && p11->C_OpenSession(STUB_SLOT, flags, NULL, NULL, &session) == CKR_OK &&
                   p11->C_OpenSession(STUB_WRITABLE_SLOT, flags, NULL, NULL, &writable) == CKR_OK
               ? 0
               : 1;
}

int stub_stop(void **state)
{
    (void)state;
    return p11->C_Finalize(NULL) == CKR_OK ? 0 : 1;
}

CK_ULONG stub_count(CK_SESSION_HANDLE in, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_OBJECT_HANDLE found[STUB_KEYS_MAX];
    CK_ULONG number = 0;
    assert_rv(p11->C_FindObjectsInit(in, template, count), CKR_OK);
    assert_rv(p11->C_FindObjects(in, found, STUB_KEYS_MAX, &number), CKR_OK);
    assert_rv(p11->C_FindObjectsFinal(in), CKR_OK);
    return number;
}

CK_OBJECT_HANDLE stub_find(CK_SESSION_HANDLE in, const char *label, CK_OBJECT_CLASS class)
{
    CK_ATTRIBUTE template[] = {{CKA_LABEL, (void *)label, strlen(label)}, {CKA_CLASS, &class, sizeof class}};
    CK_OBJECT_HANDLE found[2] = {0, 0};
    CK_ULONG number = 0;
    assert_rv(p11->C_FindObjectsInit(in, template, 2), CKR_OK);
    assert_rv(p11->C_FindObjects(in, found, 2, &number), CKR_OK);
    assert_rv(p11->C_FindObjectsFinal(in), CKR_OK);
    return number == 1 ? found[0] : CK_INVALID_HANDLE;
}
