/*
 * A PKCS#11 program for the bridge's tests: reads commands from standard input, one a line, and answers each with one
 * line, "ok …" or "CKR_… text". It knows nothing of the module but its public header.
 *
 *   aws-client MODULE TOKEN
 *
 *   encrypt LABEL AAD HEX          decrypt LABEL AAD HEX         AAD "-" is none
 *   dry-encrypt, dry-decrypt       the same, asking only whether it would work
 *   parts-encrypt LABEL AAD HEX    in pieces of 7 bytes
 *   small LABEL AAD HEX            decrypt into too small a buffer, then into a large one
 *   oaep-encrypt LABEL HEX         oaep-decrypt LABEL HEX        SHA-256
 *   pair-encrypt LABEL AAD HEX     pair-decrypt LABEL AAD HEX    the vendor mechanism with an RSA pair
 *   wrap LABEL AAD                 wrap a new session key: "ok BLOB VALUE"
 *   unwrap LABEL AAD HEX           "ok VALUE"
 *   rewrap FROM AAD TO AAD HEX     by the vendor interface
 *   many, many-round, data-key, wrapped-key, versions, rotate, min-versions: aws_client_keys.c
 *   random N                       generate LABEL                destroy LABEL
 *   find LABEL                     "ok COUNT"                    login PIN, logout
 *   id LABEL                       find-id TEXT                  request-id
 *   threads N COUNT LABEL          N threads, each encrypts and decrypts COUNT times
 *   fork LABEL                     encrypt in a child, which must initialise anew
 *   fork-busy N COUNT LABEL        fork COUNT times while N threads encrypt; every child must do an encryption
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "aws_client.h"

enum { LINE_MAX_LENGTH = 65536, ARGUMENTS_MAX = 64, FORK_LIMIT_SECONDS = 60 };

struct interface {
    CK_UTF8CHAR *name;
    void *functions;
    CK_FLAGS flags;
};
typedef CK_RV get_interface_fn(CK_UTF8CHAR *, CK_VERSION *, struct interface **, CK_FLAGS);

static CK_FUNCTION_LIST *p11;
const CK_ENVELOPE_KMS_FUNCTIONS *vendor;
static CK_SLOT_ID slot;
CK_SESSION_HANDLE session;

const char *rv_name(CK_RV rv)
{
    static const struct {
        CK_RV rv;
        const char *name;
    } names[] = {{CKR_OK, "CKR_OK"},
                 {CKR_HOST_MEMORY, "CKR_HOST_MEMORY"},
                 {CKR_GENERAL_ERROR, "CKR_GENERAL_ERROR"},
                 {CKR_FUNCTION_FAILED, "CKR_FUNCTION_FAILED"},
                 {CKR_ARGUMENTS_BAD, "CKR_ARGUMENTS_BAD"},
                 {CKR_ATTRIBUTE_VALUE_INVALID, "CKR_ATTRIBUTE_VALUE_INVALID"},
                 {0x1b, "CKR_ACTION_PROHIBITED"},
                 {CKR_DATA_LEN_RANGE, "CKR_DATA_LEN_RANGE"},
                 {CKR_DEVICE_ERROR, "CKR_DEVICE_ERROR"},
                 {CKR_DEVICE_MEMORY, "CKR_DEVICE_MEMORY"},
                 {CKR_DEVICE_REMOVED, "CKR_DEVICE_REMOVED"},
                 {CKR_ENCRYPTED_DATA_INVALID, "CKR_ENCRYPTED_DATA_INVALID"},
                 {CKR_ENCRYPTED_DATA_LEN_RANGE, "CKR_ENCRYPTED_DATA_LEN_RANGE"},
                 {CKR_KEY_HANDLE_INVALID, "CKR_KEY_HANDLE_INVALID"},
                 {CKR_KEY_FUNCTION_NOT_PERMITTED, "CKR_KEY_FUNCTION_NOT_PERMITTED"},
                 {CKR_KEY_TYPE_INCONSISTENT, "CKR_KEY_TYPE_INCONSISTENT"},
                 {CKR_MECHANISM_PARAM_INVALID, "CKR_MECHANISM_PARAM_INVALID"},
                 {CKR_OBJECT_HANDLE_INVALID, "CKR_OBJECT_HANDLE_INVALID"},
                 {CKR_PIN_INCORRECT, "CKR_PIN_INCORRECT"},
                 {CKR_USER_PIN_NOT_INITIALIZED, "CKR_USER_PIN_NOT_INITIALIZED"},
                 {CKR_USER_NOT_LOGGED_IN, "CKR_USER_NOT_LOGGED_IN"},
                 {CKR_USER_ALREADY_LOGGED_IN, "CKR_USER_ALREADY_LOGGED_IN"},
                 {CKR_TEMPLATE_INCONSISTENT, "CKR_TEMPLATE_INCONSISTENT"},
                 {CKR_TOKEN_NOT_RECOGNIZED, "CKR_TOKEN_NOT_RECOGNIZED"},
                 {CKR_TOKEN_WRITE_PROTECTED, "CKR_TOKEN_WRITE_PROTECTED"},
                 {CKR_WRAPPED_KEY_INVALID, "CKR_WRAPPED_KEY_INVALID"},
                 {CKR_UNWRAPPING_KEY_HANDLE_INVALID, "CKR_UNWRAPPING_KEY_HANDLE_INVALID"},
                 {CKR_CRYPTOKI_NOT_INITIALIZED, "CKR_CRYPTOKI_NOT_INITIALIZED"},
                 {CKR_SESSION_READ_ONLY, "CKR_SESSION_READ_ONLY"},
                 {CKR_FUNCTION_NOT_SUPPORTED, "CKR_FUNCTION_NOT_SUPPORTED"},
                 {CKR_BUFFER_TOO_SMALL, "CKR_BUFFER_TOO_SMALL"}};
    static char number[32];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].rv == rv)
            return names[i].name;
    snprintf(number, sizeof number, "0x%lx", rv);
    return number;
}

bool unhex(const char *text, struct bytes *bytes)
{
    size_t length = strlen(text);
    if (length % 2 || length / 2 > BLOB_MAX)
        return false;
    for (size_t i = 0; i < length / 2; i++) {
        unsigned value;
        if (sscanf(text + 2 * i, "%2x", &value) != 1)
            return false;
        bytes->data[i] = (CK_BYTE)value;
    }
    bytes->length = length / 2;
    return true;
}

void print_hex(const struct bytes *bytes)
{
    putchar(' ');
    for (CK_ULONG i = 0; i < bytes->length; i++)
        printf("%02x", bytes->data[i]);
}

static CK_RV find(CK_SESSION_HANDLE in, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *found,
                  CK_ULONG *number)
{
    CK_OBJECT_HANDLE handles[16];
    CK_RV rv = p11->C_FindObjectsInit(in, template, count);
    if (rv != CKR_OK)
        return rv;
    rv = p11->C_FindObjects(in, handles, 16, number);
    p11->C_FindObjectsFinal(in);
    if (rv == CKR_OK && *number)
        *found = handles[0];
    return rv;
}

CK_RV find_key(CK_SESSION_HANDLE in, const char *label, CK_OBJECT_CLASS class, CK_OBJECT_HANDLE *key)
{
    CK_ATTRIBUTE template[] = {{CKA_LABEL, (void *)label, strlen(label)}, {CKA_CLASS, &class, sizeof class}};
    CK_ULONG number = 0;
    CK_RV rv = find(in, template, 2, key, &number);
    return rv == CKR_OK && !number ? CKR_OBJECT_HANDLE_INVALID : rv;
}

CK_MECHANISM mechanism_of(CK_ENVELOPE_KMS_PARAMS *params, const char *aad, CK_FLAGS flags)
{
    *params = (CK_ENVELOPE_KMS_PARAMS){.flags = flags};
    if (strcmp(aad, "-") != 0) {
        params->pAAD = (unsigned char *)aad;
        params->ulAADLen = strlen(aad);
    }
    return (CK_MECHANISM){CKM_ENVELOPE_KMS_WRAP, params, sizeof *params};
}

static CK_RV in_one(CK_SESSION_HANDLE in, bool encrypt, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key,
                    const struct bytes *from, struct bytes *to)
{
    CK_RV rv = (encrypt ? p11->C_EncryptInit : p11->C_DecryptInit)(in, mechanism, key);
    to->length = sizeof to->data;
    if (rv != CKR_OK)
        return rv;
    return (encrypt ? p11->C_Encrypt : p11->C_Decrypt)(in, (CK_BYTE *)from->data, from->length, to->data, &to->length);
}

static CK_RV pair_crypt(bool encrypt, const char *label, const char *aad, const struct bytes *from, struct bytes *to)
{
    CK_ENVELOPE_KMS_PARAMS params;
    CK_MECHANISM mechanism = mechanism_of(&params, aad, 0);
    CK_OBJECT_HANDLE key;
    CK_RV rv = find_key(session, label, encrypt ? CKO_PUBLIC_KEY : CKO_PRIVATE_KEY, &key);
    return rv == CKR_OK ? in_one(session, encrypt, &mechanism, key, from, to) : rv;
}

static CK_RV service_crypt(CK_SESSION_HANDLE in, bool encrypt, const char *label, const char *aad, CK_FLAGS flags,
                           const struct bytes *from, struct bytes *to)
{
    CK_ENVELOPE_KMS_PARAMS params;
    CK_MECHANISM mechanism = mechanism_of(&params, aad, flags);
    CK_OBJECT_HANDLE key;
    CK_RV rv = find_key(in, label, CKO_SECRET_KEY, &key);
    return rv == CKR_OK ? in_one(in, encrypt, &mechanism, key, from, to) : rv;
}

static CK_RV parts_encrypt(const char *label, const char *aad, struct bytes *from, struct bytes *to)
{
    CK_ENVELOPE_KMS_PARAMS params;
    CK_MECHANISM mechanism = mechanism_of(&params, aad, 0);
    CK_OBJECT_HANDLE key;
    CK_RV rv = find_key(session, label, CKO_SECRET_KEY, &key);
    if (rv == CKR_OK)
        rv = p11->C_EncryptInit(session, &mechanism, key);
    for (CK_ULONG at = 0; rv == CKR_OK && at < from->length; at += 7) {
        CK_ULONG piece = from->length - at < 7 ? from->length - at : 7, none = 0;
        rv = p11->C_EncryptUpdate(session, from->data + at, piece, NULL, &none);
        if (rv == CKR_OK && none)
            return CKR_GENERAL_ERROR;
    }
    to->length = sizeof to->data;
    return rv == CKR_OK ? p11->C_EncryptFinal(session, to->data, &to->length) : rv;
}

static CK_RV small_decrypt(const char *label, const char *aad, struct bytes *from, struct bytes *to)
{
    CK_ENVELOPE_KMS_PARAMS params;
    CK_MECHANISM mechanism = mechanism_of(&params, aad, 0);
    CK_OBJECT_HANDLE key;
    CK_ULONG length = 0;
    CK_RV rv = find_key(session, label, CKO_SECRET_KEY, &key);
    if (rv == CKR_OK)
        rv = p11->C_DecryptInit(session, &mechanism, key);
    if (rv == CKR_OK)
        rv = p11->C_Decrypt(session, from->data, from->length, NULL, &length);
    if (rv != CKR_OK)
        return rv;
    to->length = 1;
    rv = p11->C_Decrypt(session, from->data, from->length, to->data, &to->length);
    if (rv != CKR_BUFFER_TOO_SMALL || to->length > length)
        return CKR_GENERAL_ERROR;
    return p11->C_Decrypt(session, from->data, from->length, to->data, &to->length);
}

static CK_RV oaep(bool encrypt, const char *label, const struct bytes *from, struct bytes *to)
{
    CK_RSA_PKCS_OAEP_PARAMS params = {.hashAlg = CKM_SHA256, .mgf = CKG_MGF1_SHA256, .source = CKZ_DATA_SPECIFIED};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_OAEP, &params, sizeof params};
    CK_OBJECT_HANDLE key;
    CK_RV rv = find_key(session, label, encrypt ? CKO_PUBLIC_KEY : CKO_PRIVATE_KEY, &key);
    return rv == CKR_OK ? in_one(session, encrypt, &mechanism, key, from, to) : rv;
}

static CK_RV value_of(CK_OBJECT_HANDLE object, struct bytes *value)
{
    CK_ATTRIBUTE attribute = {CKA_VALUE, value->data, sizeof value->data};
    CK_RV rv = p11->C_GetAttributeValue(session, object, &attribute, 1);
    value->length = attribute.ulValueLen;
    return rv;
}

static CK_RV wrap(const char *label, const char *aad, struct bytes *blob, struct bytes *value)
{
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ULONG length = 32;
    CK_ATTRIBUTE template[] = {
        {CKA_EXTRACTABLE, &yes, 1}, {CKA_SENSITIVE, &no, 1}, {CKA_VALUE_LEN, &length, sizeof length}};
    CK_MECHANISM generate = {CKM_GENERIC_SECRET_KEY_GEN, NULL, 0};
    CK_ENVELOPE_KMS_PARAMS params;
    CK_MECHANISM mechanism = mechanism_of(&params, aad, 0);
    CK_OBJECT_HANDLE key, fresh;
    CK_RV rv = find_key(session, label, CKO_SECRET_KEY, &key);
    if (rv == CKR_OK)
        rv = p11->C_GenerateKey(session, &generate, template, 3, &fresh);
    if (rv == CKR_OK)
        rv = value_of(fresh, value);
    blob->length = sizeof blob->data;
    return rv == CKR_OK ? p11->C_WrapKey(session, &mechanism, key, fresh, blob->data, &blob->length) : rv;
}

static CK_RV unwrap(const char *label, const char *aad, struct bytes *blob, struct bytes *value)
{
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class},
                               {CKA_KEY_TYPE, &type, sizeof type},
                               {CKA_EXTRACTABLE, &yes, 1},
                               {CKA_SENSITIVE, &no, 1}};
    CK_ENVELOPE_KMS_PARAMS params;
    CK_MECHANISM mechanism = mechanism_of(&params, aad, 0);
    CK_OBJECT_HANDLE key, unwrapped;
    CK_RV rv = find_key(session, label, CKO_SECRET_KEY, &key);
    if (rv == CKR_OK)
        rv = p11->C_UnwrapKey(session, &mechanism, key, blob->data, blob->length, template, 4, &unwrapped);
    return rv == CKR_OK ? value_of(unwrapped, value) : rv;
}

static CK_RV rewrap(char *const argument[], struct bytes *blob, struct bytes *to)
{
    CK_ENVELOPE_KMS_PARAMS from_params, to_params;
    CK_OBJECT_HANDLE from_key, to_key;
    CK_BBOOL left = CK_TRUE;
    mechanism_of(&from_params, argument[1], 0);
    mechanism_of(&to_params, argument[3], 0);
    CK_RV rv = find_key(session, argument[0], CKO_SECRET_KEY, &from_key);
    if (rv == CKR_OK)
        rv = find_key(session, argument[2], CKO_SECRET_KEY, &to_key);
    to->length = sizeof to->data;
    return rv == CKR_OK ? vendor->rewrap(session, from_key, &from_params, to_key, &to_params, blob->data, blob->length,
                                         to->data, &to->length, &left)
                        : rv;
}

static CK_RV generate(const char *label)
{
    CK_BBOOL yes = CK_TRUE;
    CK_ULONG length = 32;
    CK_ATTRIBUTE template[] = {
        {CKA_TOKEN, &yes, 1}, {CKA_LABEL, (void *)label, strlen(label)}, {CKA_VALUE_LEN, &length, sizeof length}};
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_OBJECT_HANDLE key;
    return p11->C_GenerateKey(session, &mechanism, template, 3, &key);
}

/* --- threads and forks --- */

struct worker {
    pthread_t thread;
    const char *label;
    unsigned count;
    atomic_bool *stop;
    CK_RV rv;
};

static CK_RV there_and_back(CK_SESSION_HANDLE in, const char *label, unsigned number)
{
    static _Thread_local struct bytes from, blob, back;
    from.length = (CK_ULONG)snprintf((char *)from.data, sizeof from.data, "message %u", number);
    CK_RV rv = service_crypt(in, true, label, "threads", 0, &from, &blob);
    if (rv == CKR_OK)
        rv = service_crypt(in, false, label, "threads", 0, &blob, &back);
    if (rv == CKR_OK && (back.length != from.length || memcmp(back.data, from.data, from.length) != 0))
        rv = CKR_GENERAL_ERROR;
    return rv;
}

static void *work(void *context)
{
    struct worker *worker = context;
    CK_SESSION_HANDLE own;
    worker->rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &own);
    for (unsigned i = 0; worker->rv == CKR_OK && (worker->stop ? !atomic_load(worker->stop) : i < worker->count); i++)
        worker->rv = there_and_back(own, worker->label, i);
    p11->C_CloseSession(own);
    return NULL;
}

static CK_RV threads(unsigned number, unsigned count, const char *label)
{
    struct worker workers[64];
    CK_RV rv = CKR_OK;
    if (number > 64)
        return CKR_ARGUMENTS_BAD;
    for (unsigned i = 0; i < number; i++) {
        workers[i] = (struct worker){.label = label, .count = count};
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    for (unsigned i = 0; i < number; i++) {
        pthread_join(workers[i].thread, NULL);
        if (workers[i].rv != CKR_OK)
            rv = workers[i].rv;
    }
    return rv;
}

static int child_work(const char *label)
{
    CK_SESSION_HANDLE own;
    alarm(FORK_LIMIT_SECONDS); /* a hang must not outlive the test */
    if (p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &own) != CKR_CRYPTOKI_NOT_INITIALIZED)
        return 2;
    if (p11->C_Initialize(NULL) != CKR_OK)
        return 3;
    if (p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &own) != CKR_OK)
        return 4;
    return there_and_back(own, label, 0) == CKR_OK && p11->C_Finalize(NULL) == CKR_OK ? 0 : 5;
}

static CK_RV in_child(const char *label)
{
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(child_work(label));
    if (child < 0 || waitpid(child, &status, 0) != child)
        return CKR_HOST_MEMORY;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fprintf(stderr, "child: status 0x%x\n", (unsigned)status);
    return WIFEXITED(status) && !WEXITSTATUS(status) ? CKR_OK : CKR_GENERAL_ERROR;
}

static CK_RV fork_busy(unsigned number, unsigned count, const char *label)
{
    struct worker workers[16];
    atomic_bool stop = false;
    CK_RV rv = CKR_OK;
    if (number > 16)
        return CKR_ARGUMENTS_BAD;
    for (unsigned i = 0; i < number; i++) {
        workers[i] = (struct worker){.label = label, .stop = &stop};
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    for (unsigned i = 0; rv == CKR_OK && i < count; i++)
        rv = in_child(label);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < number; i++) {
        pthread_join(workers[i].thread, NULL);
        if (rv == CKR_OK)
            rv = workers[i].rv;
    }
    return rv;
}

/* --- commands --- */

static CK_RV find_count(CK_ATTRIBUTE_TYPE type, const char *text, CK_ULONG *number)
{
    CK_ATTRIBUTE template = {type, (void *)text, strlen(text)};
    CK_OBJECT_HANDLE first;
    return find(session, &template, 1, &first, number);
}

static CK_RV id_of(const char *label, struct bytes *id)
{
    CK_ATTRIBUTE template = {CKA_LABEL, (void *)label, strlen(label)};
    CK_ATTRIBUTE attribute = {CKA_ID, id->data, sizeof id->data};
    CK_OBJECT_HANDLE first;
    CK_ULONG number = 0;
    CK_RV rv = find(session, &template, 1, &first, &number);
    if (rv == CKR_OK)
        rv = number ? p11->C_GetAttributeValue(session, first, &attribute, 1) : CKR_OBJECT_HANDLE_INVALID;
    id->length = attribute.ulValueLen;
    return rv;
}

static bool is(const char *verb, const char *name, int given, int wanted)
{
    return strcmp(verb, name) == 0 && given == wanted;
}

/* out[0], out[1]: printed in hex after "ok" where they are not empty; number: printed where it is not -1. */
static CK_RV perform(int count, char *const word[], struct bytes out[2], long *number)
{
    static struct bytes in;
    const char *verb = word[0];
    CK_OBJECT_HANDLE key;
    CK_ULONG found = 0;
    CK_RV rv;
    if (count > 2 && !strstr(verb, "fork") && !strstr(verb, "threads") && !is(verb, "wrap", count, 3) &&
        !unhex(word[count - 1], &in))
        return CKR_ARGUMENTS_BAD;
    if (is(verb, "encrypt", count, 4) || is(verb, "decrypt", count, 4))
        return service_crypt(session, *verb == 'e', word[1], word[2], 0, &in, out);
    if (is(verb, "pair-encrypt", count, 4) || is(verb, "pair-decrypt", count, 4))
        return pair_crypt(verb[5] == 'e', word[1], word[2], &in, out);
    if (is(verb, "dry-encrypt", count, 4) || is(verb, "dry-decrypt", count, 4))
        return service_crypt(session, verb[4] == 'e', word[1], word[2], CKF_ENVELOPE_KMS_DRY_RUN, &in, out);
    if (is(verb, "parts-encrypt", count, 4))
        return parts_encrypt(word[1], word[2], &in, out);
    if (is(verb, "small", count, 4))
        return small_decrypt(word[1], word[2], &in, out);
    if (is(verb, "oaep-encrypt", count, 3) || is(verb, "oaep-decrypt", count, 3))
        return oaep(verb[5] == 'e', word[1], &in, out);
    if (is(verb, "wrap", count, 3))
        return wrap(word[1], word[2], &out[0], &out[1]);
    if (is(verb, "unwrap", count, 4))
        return unwrap(word[1], word[2], &in, out);
    if (is(verb, "rewrap", count, 6))
        return rewrap(word + 1, &in, out);
    if (is(verb, "random", count, 2)) {
        out->length = strtoul(word[1], NULL, 10);
        return out->length > BLOB_MAX ? CKR_ARGUMENTS_BAD : p11->C_GenerateRandom(session, out->data, out->length);
    }
    if (is(verb, "generate", count, 2))
        return generate(word[1]);
    if (is(verb, "destroy", count, 2)) {
        rv = find_key(session, word[1], CKO_SECRET_KEY, &key);
        return rv == CKR_OK ? p11->C_DestroyObject(session, key) : rv;
    }
    if (is(verb, "find", count, 2) || is(verb, "find-id", count, 2)) {
        rv = find_count(verb[4] ? CKA_ID : CKA_LABEL, word[1], &found);
        *number = (long)found;
        return rv;
    }
    if (is(verb, "id", count, 2))
        return id_of(word[1], out);
    if (is(verb, "login", count, 2))
        return p11->C_Login(session, CKU_USER, (CK_BYTE *)word[1], strlen(word[1]));
    if (is(verb, "logout", count, 1))
        return p11->C_Logout(session);
    if (is(verb, "threads", count, 4))
        return threads((unsigned)strtoul(word[1], NULL, 10), (unsigned)strtoul(word[2], NULL, 10), word[3]);
    if (is(verb, "fork", count, 2))
        return in_child(word[1]);
    if (is(verb, "fork-busy", count, 4))
        return fork_busy((unsigned)strtoul(word[1], NULL, 10), (unsigned)strtoul(word[2], NULL, 10), word[3]);
    fprintf(stderr, "aws-client: no such command: %s with %d arguments\n", verb, count - 1);
    exit(2);
}

static void answer(char *line)
{
    static struct bytes out[2];
    char *word[ARGUMENTS_MAX], *rest = NULL;
    CK_ENVELOPE_KMS_MESSAGE message;
    int count = 0;
    long number = -1;
    for (char *at = strtok_r(line, " \n", &rest); at && count < ARGUMENTS_MAX; at = strtok_r(NULL, " \n", &rest))
        word[count++] = at;
    if (!count)
        return;
    out[0].length = out[1].length = 0;
    if (keys_command(count, word))
        return;
    if (is(word[0], "request-id", count, 1)) {
        vendor->last_message(session, &message, sizeof message);
        printf("ok %s\n", message.request_id);
        return;
    }
    CK_RV rv = perform(count, word, out, &number);
    if (rv != CKR_OK) {
        vendor->last_message(session, &message, sizeof message);
        printf("%s %s [%s]\n", rv_name(rv), message.text, message.service_code);
        return;
    }
    printf("ok");
    for (int i = 0; i < 2; i++)
        if (out[i].length)
            print_hex(&out[i]);
    if (number >= 0)
        printf(" %ld", number);
    printf("\n");
}

static bool open_token(const char *label)
{
    CK_SLOT_ID slots[64];
    CK_ULONG count = 64;
    CK_TOKEN_INFO info;
    if (p11->C_GetSlotList(CK_TRUE, slots, &count) != CKR_OK)
        return false;
    for (CK_ULONG i = 0; i < count; i++) {
        size_t length = strlen(label);
        if (p11->C_GetTokenInfo(slots[i], &info) != CKR_OK || memcmp(info.label, label, length) != 0 ||
            (length < sizeof info.label && info.label[length] != ' '))
            continue;
        slot = slots[i];
        return p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session) == CKR_OK;
    }
    return false;
}

int main(int argc, char **argv)
{
    static char line[LINE_MAX_LENGTH];
    struct interface *found;
    if (argc != 3) {
        fprintf(stderr, "usage: aws-client MODULE TOKEN\n");
        return 2;
    }
    void *module = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!module) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    get_interface_fn *get;
    *(void **)&get = dlsym(module, "C_GetInterface");
    if (!get || get((CK_UTF8CHAR *)ENVELOPE_KMS_INTERFACE, NULL, &found, 0) != CKR_OK)
        return 1;
    vendor = found->functions;
    /* Who was built for an earlier version of it gets this one; for a later one, none. */
    CK_VERSION first = {1, 0}, later = {1, 99}, other = {2, 0};
    if (get((CK_UTF8CHAR *)ENVELOPE_KMS_INTERFACE, &first, &found, 0) != CKR_OK || found->functions != vendor ||
        get((CK_UTF8CHAR *)ENVELOPE_KMS_INTERFACE, &later, &found, 0) == CKR_OK ||
        get((CK_UTF8CHAR *)ENVELOPE_KMS_INTERFACE, &other, &found, 0) == CKR_OK)
        return 1;
    CK_VERSION version = {2, 40};
    if (get((CK_UTF8CHAR *)"PKCS 11", &version, &found, 0) != CKR_OK)
        return 1;
    p11 = found->functions;
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    CK_RV rv = p11->C_Initialize(&args);
    if (rv != CKR_OK) {
        printf("%s %s\n", rv_name(rv), vendor->last_text());
        return 1;
    }
    if (!open_token(argv[2])) {
        fprintf(stderr, "no token %s\n", argv[2]);
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin))
        answer(line);
    rv = p11->C_Finalize(NULL);
    return rv == CKR_OK ? 0 : 1;
}
