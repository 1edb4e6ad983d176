#include "provider_rig.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/conf.h>
#include <openssl/err.h>
#include <p11-kit/pkcs11.h>

#include "base/error.h"
#include "keyring/keyring.h"
#include "provider.h"
#include "store/store.h"

static struct provider_rig the_rig;

#define require_ok(status)                                                                                             \
    do {                                                                                                               \
        if ((status) != ENVELOPE_OK)                                                                                   \
            fail_msg("%s:%d: %s", __FILE__, __LINE__, error_text());                                                   \
    } while (0)

size_t rig_text(char *to, size_t capacity, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(to, capacity, format, args);
    va_end(args);
    assert_true(length >= 0 && (size_t)length < capacity);
    return (size_t)length;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void write_config(const struct provider_rig *rig)
{
    char text[2048];
    rig_text(text, sizeof text, "[envelope]\nstore = %s\nkek = %s\n[hsm]\nmodule = %s\npin-file = %s\n", rig->store,
             rig->token.kek, rig->token.module, rig->token.pin_file);
    write_file(rig->config, text);
}

static keyring *open_ring(const struct provider_rig *rig)
{
    struct settings settings;
    keyring *ring;
    require_ok(settings_load(rig->config, &settings));
    require_ok(keyring_new(&settings, &ring));
    return ring;
}

static void make_keys(const struct provider_rig *rig)
{
    store *opened;
    require_ok(store_create(rig->store, 10000000, &opened, NULL));
    store_close(opened);
    keyring *ring = open_ring(rig);
    require_ok(keyring_create(ring, "default", NULL));
    require_ok(keyring_create(ring, "financial", NULL));
    require_ok(keyring_create(ring, "identity", NULL));
    keyring_free(ring);
}

void provider_rig_rotate(const struct provider_rig *rig, const char *key)
{
    keyring *ring = open_ring(rig);
    require_ok(keyring_rotate(ring, key, "test", NULL, NULL));
    keyring_free(ring);
}

const char *provider_rig_section(const struct provider_rig *rig)
{
    static char text[RIG_PATH_MAX + 16];
    rig_text(text, sizeof text, "config = %s\n", rig->config);
    return text;
}

OSSL_LIB_CTX *provider_rig_context(const struct provider_rig *rig, const char *section)
{
    char path[RIG_PATH_MAX], text[4096];
    rig_text(path, sizeof path, "%s/openssl.cnf", rig->token.directory);
    rig_text(text, sizeof text,
             "config_diagnostics = 1\nopenssl_conf = init\n[init]\nproviders = providers\n[providers]\n"
             "default = default_sect\nenvelope = envelope_sect\n[default_sect]\nactivate = 1\n[envelope_sect]\n"
             "%sactivate = 1\n",
             section);
    write_file(path, text);
    OSSL_LIB_CTX *context = OSSL_LIB_CTX_new();
    assert_non_null(context);
    assert_int_equal(OSSL_PROVIDER_add_builtin(context, "envelope", envelope_provider_init), 1);
    if (!OSSL_LIB_CTX_load_config(context, path)) {
        ERR_print_errors_fp(stderr);
        fail_msg("the configuration of the test does not load");
    }
    return context;
}

int provider_rig_setup(void **state)
{
    struct provider_rig *rig = &the_rig;
    /* The tests say which file; whoever runs them may have one of their own. */
    unsetenv("ENVELOPE_CONFIG");
    if (!softhsm_rig_make(&rig->token))
        return -1;
    rig_text(rig->config, sizeof rig->config, "%s/envelope.cnf", rig->token.directory);
    rig_text(rig->store, sizeof rig->store, "sqlite:%s/keys.db", rig->token.directory);
    write_config(rig);
    make_keys(rig);
    rig->context = provider_rig_context(rig, provider_rig_section(rig));
    rig->cipher = EVP_CIPHER_fetch(rig->context, CIPHER, NULL);
    if (!rig->cipher) {
        ERR_print_errors_fp(stderr);
        return -1;
    }
    *state = rig;
    return 0;
}

int provider_rig_teardown(void **state)
{
    struct provider_rig *rig = *state;
    EVP_CIPHER_free(rig->cipher);
    OSSL_LIB_CTX_free(rig->context);
    softhsm_rig_remove(&rig->token);
    return 0;
}

void provider_rig_store_id(const struct provider_rig *rig, uint8_t id[8])
{
    store *opened;
    require_ok(store_open(rig->store, 10000000, &opened));
    require_ok(store_id(opened, id));
    store_close(opened);
}

/* ---- unwrapping by hand, after docs/wire-format.md ---- */

static size_t put_u32(uint8_t *to, size_t at, uint32_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        to[at++] = (uint8_t)(value >> shift);
    return at;
}

static size_t wrap_aad(const uint8_t id[8], const struct store_version *version, uint8_t aad[512])
{
    size_t name = strlen(version->key_name);
    memcpy(aad, "envelope wrap v1", 16);
    memcpy(aad + 16, id, 8);
    size_t at = put_u32(aad, 24, version->dek_id);
    at = put_u32(aad, at, version->version);
    at = put_u32(aad, at, version->kek_id);
    aad[at++] = 1;
    aad[at++] = (uint8_t)name;
    memcpy(aad + at, version->key_name, name);
    return at + name;
}

static CK_SESSION_HANDLE token_session(const struct provider_rig *rig, CK_FUNCTION_LIST_PTR p11)
{
    CK_RV rv = p11->C_Initialize(NULL);
    assert_true(rv == CKR_OK || rv == CKR_CRYPTOKI_ALREADY_INITIALIZED);
    CK_SLOT_ID slots[16];
    CK_ULONG count = 16;
    assert_int_equal(p11->C_GetSlotList(CK_TRUE, slots, &count), CKR_OK);
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        CK_SESSION_HANDLE session;
        if (p11->C_GetTokenInfo(slots[i], &info) != CKR_OK || memcmp(info.label, "rig ", 4) != 0)
            continue;
        assert_int_equal(p11->C_OpenSession(slots[i], CKF_SERIAL_SESSION, NULL, NULL, &session), CKR_OK);
        CK_UTF8CHAR pin[] = SOFTHSM_RIG_PIN;
        rv = p11->C_Login(session, CKU_USER, pin, sizeof pin - 1);
        assert_true(rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN);
        return session;
    }
    fail_msg("no token labelled \"rig\" under %s", rig->token.tokens);
    return 0;
}

static CK_OBJECT_HANDLE find_master(CK_FUNCTION_LIST_PTR p11, CK_SESSION_HANDLE session)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    char label[] = "master";
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, label, sizeof label - 1}};
    CK_OBJECT_HANDLE master = 0;
    CK_ULONG found = 0;
    assert_int_equal(p11->C_FindObjectsInit(session, wanted, 2), CKR_OK);
    assert_int_equal(p11->C_FindObjects(session, &master, 1, &found), CKR_OK);
    assert_int_equal(p11->C_FindObjectsFinal(session), CKR_OK);
    assert_int_equal(found, 1);
    return master;
}

static void token_decrypt(const struct provider_rig *rig, const struct store_version *version, uint8_t *aad,
                          size_t aad_length, uint8_t dek[DEK_SIZE])
{
    void *module = dlopen(rig->token.module, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(module);
    CK_C_GetFunctionList get_list;
    void *symbol = dlsym(module, "C_GetFunctionList");
    memcpy(&get_list, &symbol, sizeof get_list);
    CK_FUNCTION_LIST_PTR p11;
    assert_int_equal(get_list(&p11), CKR_OK);
    CK_SESSION_HANDLE session = token_session(rig, p11);

    /* format 1 | mechanism 1 | IV 12 | ciphertext 32 | tag 16 */
    assert_int_equal(version->blob_length, 2 + 12 + 32 + 16);
    assert_int_equal(version->blob[0], 1);
    assert_int_equal(version->blob[1], 1);
    CK_GCM_PARAMS gcm = {version->blob + 2, 12, 96, aad, (CK_ULONG)aad_length, 128};
    CK_MECHANISM mechanism = {CKM_AES_GCM, &gcm, sizeof gcm};
    uint8_t room[64];
    CK_ULONG length = sizeof room;
    assert_int_equal(p11->C_DecryptInit(session, &mechanism, find_master(p11, session)), CKR_OK);
    assert_int_equal(p11->C_Decrypt(session, version->blob + 14, 48, room, &length), CKR_OK);
    assert_int_equal(length, DEK_SIZE);
    memcpy(dek, room, DEK_SIZE);
    assert_int_equal(p11->C_CloseSession(session), CKR_OK);
    dlclose(module);
}

void provider_rig_unwrap_by_hand(const struct provider_rig *rig, uint32_t dek_id, uint8_t dek[DEK_SIZE])
{
    store *opened;
    struct store_version version;
    uint8_t id[8], aad[512];
    require_ok(store_open(rig->store, 10000000, &opened));
    require_ok(store_id(opened, id));
    require_ok(store_version_find(opened, dek_id, &version));
    token_decrypt(rig, &version, aad, wrap_aad(id, &version, aad), dek);
    store_version_clear(&version);
    store_close(opened);
}
