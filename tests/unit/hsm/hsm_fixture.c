#include "hsm_fixture.h"

#include <stdio.h>
#include <stdlib.h>

#include <p11-kit/p11-kit.h>

#include "base/libctx.h"

struct fixture fixture;

int fixture_group_setup(void **state)
{
    (void)state;
    if (!softhsm_rig_make(&fixture.rig))
        return -1;
    fixture.p11 = p11_kit_module_load(fixture.rig.module, P11_KIT_MODULE_UNMANAGED);
    return fixture.p11 ? 0 : -1;
}

int fixture_group_teardown(void **state)
{
    (void)state;
    softhsm_rig_remove(&fixture.rig);
    return 0;
}

int fixture_setup(void **state)
{
    (void)state;
    softhsm_rig_settings(&fixture.rig, &fixture.settings);
    return hsm_new(&fixture.settings, &fixture.hsm) == ENVELOPE_OK ? 0 : -1;
}

int fixture_teardown(void **state)
{
    (void)state;
    hsm_free(fixture.hsm);
    fixture.hsm = NULL;
    return 0;
}

void fixture_renew(void)
{
    hsm_free(fixture.hsm);
    fixture.hsm = NULL;
    assert_status(hsm_new(&fixture.settings, &fixture.hsm), ENVELOPE_OK);
}

void assert_status_at(envelope_status status, envelope_status expected, const char *what, const char *file, int line)
{
    if (status == expected)
        return;
    print_error("%s is %s, not %s: %s\n", what, envelope_status_name(status), envelope_status_name(expected),
                error_text());
    _fail(file, line);
}

void assert_said(const char *part)
{
    if (strstr(error_text(), part))
        return;
    print_error("\"%s\" is not in \"%s\"\n", part, error_text());
    fail();
}

void round_trip(const char *uri, uint8_t **blob, size_t *length)
{
    uint8_t dek[HSM_DEK_SIZE], again[HSM_DEK_SIZE];
    uint8_t *made = NULL;
    size_t size = 0;
    assert_status(hsm_generate_dek(fixture.hsm, uri, dek), ENVELOPE_OK);
    assert_status(hsm_wrap(fixture.hsm, uri, AAD, sizeof AAD, dek, &made, &size), ENVELOPE_OK);
    assert_status(hsm_unwrap(fixture.hsm, uri, AAD, sizeof AAD, made, size, again), ENVELOPE_OK);
    assert_memory_equal(dek, again, sizeof dek);
    if (blob) {
        *blob = made;
        *length = size;
    } else {
        free(made);
    }
}

envelope_status unwrap(const char *uri, const uint8_t *blob, size_t length)
{
    uint8_t dek[HSM_DEK_SIZE] = {0};
    static const uint8_t untouched[HSM_DEK_SIZE];
    envelope_status status = hsm_unwrap(fixture.hsm, uri, AAD, sizeof AAD, blob, length, dek);
    if (status != ENVELOPE_OK)
        assert_memory_equal(dek, untouched, sizeof dek);
    return status;
}

/* --- plain PKCS#11; inside the private library context, as SoftHSM keeps what it fetches there --- */

static CK_RV check(CK_RV rv)
{
    if (rv != CKR_OK && rv != CKR_USER_ALREADY_LOGGED_IN)
        print_error("plain PKCS#11 call: 0x%lx\n", rv);
    return rv == CKR_USER_ALREADY_LOGGED_IN ? CKR_OK : rv;
}

CK_SLOT_ID raw_slot(void)
{
    CK_SLOT_ID slots[16];
    CK_ULONG count = 16;
    assert_int_equal(check(fixture.p11->C_GetSlotList(CK_TRUE, slots, &count)), CKR_OK);
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        if (fixture.p11->C_GetTokenInfo(slots[i], &info) == CKR_OK && memcmp(info.label, "rig ", 4) == 0)
            return slots[i];
    }
    fail_msg("no token \"rig\"");
    return 0;
}

CK_SESSION_HANDLE raw_session(void)
{
    CK_SESSION_HANDLE session = 0;
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    struct libctx_guard guard;
    assert_non_null(libctx_private());
    libctx_enter(&guard);
    (void)fixture.p11->C_Initialize(&args); /* usually ours already */
    CK_RV rv = fixture.p11->C_OpenSession(raw_slot(), CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session);
    if (rv == CKR_OK)
        rv =
            fixture.p11->C_Login(session, CKU_USER, (CK_UTF8CHAR *)(uintptr_t)SOFTHSM_RIG_PIN, strlen(SOFTHSM_RIG_PIN));
    libctx_leave(&guard);
    assert_int_equal(check(rv), CKR_OK);
    return session;
}

static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;

void make_aes(const struct key_wish *wish)
{
    CK_ULONG length = (wish->bits ? wish->bits : 256) / 8;
    CK_BYTE id = wish->id;
    CK_ATTRIBUTE template[] = {
        {CKA_TOKEN, &yes, 1},
        {CKA_PRIVATE, &yes, 1},
        {CKA_LABEL, (void *)(uintptr_t)wish->label, strlen(wish->label)},
        {CKA_EXTRACTABLE, wish->extractable ? &yes : &no, 1},
        {CKA_SENSITIVE, wish->not_sensitive ? &no : &yes, 1},
        {CKA_ENCRYPT, wish->no_encrypt ? &no : &yes, 1},
        {CKA_DECRYPT, wish->no_encrypt ? &no : &yes, 1},
        {CKA_WRAP, wish->no_wrap ? &no : &yes, 1},
        {CKA_UNWRAP, wish->no_wrap ? &no : &yes, 1},
        {CKA_VALUE_LEN, &length, sizeof length},
        {CKA_ID, &id, 1},
    };
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_OBJECT_HANDLE key = 0;
    CK_SESSION_HANDLE session = raw_session();
    struct libctx_guard guard;
    libctx_enter(&guard);
    CK_RV rv = fixture.p11->C_GenerateKey(session, &mechanism, template, wish->id ? 11 : 10, &key);
    fixture.p11->C_CloseSession(session);
    libctx_leave(&guard);
    assert_int_equal(check(rv), CKR_OK);
}

void make_rsa(const char *label, unsigned bits)
{
    CK_ULONG modulus_bits = bits;
    CK_BYTE exponent[] = {1, 0, 1};
    CK_ATTRIBUTE public_template[] = {{CKA_TOKEN, &yes, 1},
                                      {CKA_LABEL, (void *)(uintptr_t)label, strlen(label)},
                                      {CKA_ENCRYPT, &yes, 1},
                                      {CKA_MODULUS_BITS, &modulus_bits, sizeof modulus_bits},
                                      {CKA_PUBLIC_EXPONENT, exponent, sizeof exponent}};
    CK_ATTRIBUTE private_template[] = {{CKA_TOKEN, &yes, 1},     {CKA_PRIVATE, &yes, 1},
                                       {CKA_SENSITIVE, &yes, 1}, {CKA_EXTRACTABLE, &no, 1},
                                       {CKA_DECRYPT, &yes, 1},   {CKA_LABEL, (void *)(uintptr_t)label, strlen(label)}};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
    CK_OBJECT_HANDLE public = 0, private = 0;
    CK_SESSION_HANDLE session = raw_session();
    struct libctx_guard guard;
    libctx_enter(&guard);
    CK_RV rv =
        fixture.p11->C_GenerateKeyPair(session, &mechanism, public_template, 5, private_template, 6, &public, &private);
    fixture.p11->C_CloseSession(session);
    libctx_leave(&guard);
    assert_int_equal(check(rv), CKR_OK);
}

void destroy_keys(const char *label)
{
    CK_ATTRIBUTE template[] = {{CKA_LABEL, (void *)(uintptr_t)label, strlen(label)}};
    CK_OBJECT_HANDLE found[8];
    CK_ULONG count = 0;
    CK_SESSION_HANDLE session = raw_session();
    struct libctx_guard guard;
    libctx_enter(&guard);
    CK_RV rv = fixture.p11->C_FindObjectsInit(session, template, 1);
    if (rv == CKR_OK)
        rv = fixture.p11->C_FindObjects(session, found, 8, &count);
    fixture.p11->C_FindObjectsFinal(session);
    for (CK_ULONG i = 0; i < count && rv == CKR_OK; i++)
        rv = fixture.p11->C_DestroyObject(session, found[i]);
    fixture.p11->C_CloseSession(session);
    libctx_leave(&guard);
    assert_int_equal(check(rv), CKR_OK);
}
