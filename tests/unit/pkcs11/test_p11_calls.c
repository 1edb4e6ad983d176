/* Every C_ function: before C_Initialize, with a handle of nothing, with arguments that are none; and the lists of
 * them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "stub_service.h"

static CK_ULONG number, length;
static CK_BYTE bytes[64];
static CK_OBJECT_HANDLE object;
static CK_SESSION_HANDLE opened;
static CK_SESSION_INFO session_info;
static CK_ATTRIBUTE label = {CKA_LABEL, bytes, sizeof bytes};
static CK_ATTRIBUTE nowhere = {CKA_LABEL, NULL, 5}; /* five bytes at no place */
static CK_MECHANISM wrap = {CKM_ENVELOPE_KMS_WRAP, NULL, 0};

static CK_RV login_user(CK_SESSION_HANDLE in, CK_UTF8CHAR *pin, CK_ULONG pin_length, CK_UTF8CHAR *name,
                        CK_ULONG name_length)
{
    struct p11_interface *interface;
    assert_rv(stub_get_interface("PKCS 11", &(CK_VERSION){3, 0}, &interface, 0), CKR_OK);
    return ((struct p11_functions_3_0 *)interface->functions)
        ->login_user(in, CKU_USER, pin, pin_length, name, name_length);
}

static CK_RV session_cancel(CK_SESSION_HANDLE in, CK_FLAGS flags)
{
    struct p11_interface *interface;
    assert_rv(stub_get_interface("PKCS 11", &(CK_VERSION){3, 0}, &interface, 0), CKR_OK);
    return ((struct p11_functions_3_0 *)interface->functions)->session_cancel(in, flags);
}

/* Those that do something, with a session that is none. */
static void every_function_of_a_session_says(CK_SESSION_HANDLE in, CK_RV rv)
{
    assert_rv(p11->C_CloseSession(in), rv);
    assert_rv(p11->C_GetSessionInfo(in, &session_info), rv);
    assert_rv(p11->C_Login(in, CKU_USER, NULL, 0), rv);
    assert_rv(login_user(in, NULL, 0, NULL, 0), rv);
    assert_rv(session_cancel(in, 0), rv);
    assert_rv(p11->C_Logout(in), rv);
    assert_rv(p11->C_CreateObject(in, &label, 1, &object), rv);
    assert_rv(p11->C_DestroyObject(in, 1), rv);
    assert_rv(p11->C_GetObjectSize(in, 1, &number), rv);
    assert_rv(p11->C_GetAttributeValue(in, 1, &label, 1), rv);
    assert_rv(p11->C_SetAttributeValue(in, 1, &label, 1), rv);
    assert_rv(p11->C_FindObjectsInit(in, NULL, 0), rv);
    assert_rv(p11->C_FindObjects(in, &object, 1, &number), rv);
    assert_rv(p11->C_FindObjectsFinal(in), rv);
    assert_rv(p11->C_EncryptInit(in, &wrap, 1), rv);
    assert_rv(p11->C_Encrypt(in, bytes, 1, bytes, &length), rv);
    assert_rv(p11->C_EncryptUpdate(in, bytes, 1, bytes, &length), rv);
    assert_rv(p11->C_EncryptFinal(in, bytes, &length), rv);
    assert_rv(p11->C_DecryptInit(in, &wrap, 1), rv);
    assert_rv(p11->C_Decrypt(in, bytes, 1, bytes, &length), rv);
    assert_rv(p11->C_DecryptUpdate(in, bytes, 1, bytes, &length), rv);
    assert_rv(p11->C_DecryptFinal(in, bytes, &length), rv);
    assert_rv(p11->C_GenerateKey(in, &wrap, NULL, 0, &object), rv);
    assert_rv(p11->C_GenerateKeyPair(in, &wrap, NULL, 0, NULL, 0, &object, &object), rv);
    assert_rv(p11->C_WrapKey(in, &wrap, 1, 1, bytes, &length), rv);
    assert_rv(p11->C_UnwrapKey(in, &wrap, 1, bytes, 1, NULL, 0, &object), rv);
    assert_rv(p11->C_SeedRandom(in, bytes, 1), rv);
    assert_rv(p11->C_GenerateRandom(in, bytes, 1), rv);
}

/* Those of 2.40 that the module has for the lists' sake; they look at nothing but whether it runs. */
static void every_unsupported_function_says(CK_RV rv, CK_RV parallel)
{
    assert_rv(p11->C_InitToken(99, NULL, 1, NULL), rv);
    assert_rv(p11->C_InitPIN(0, NULL, 1), rv);
    assert_rv(p11->C_SetPIN(0, NULL, 1, NULL, 1), rv);
    assert_rv(p11->C_GetOperationState(0, NULL, NULL), rv);
    assert_rv(p11->C_SetOperationState(0, NULL, 1, 0, 0), rv);
    assert_rv(p11->C_CopyObject(0, 0, NULL, 1, NULL), rv);
    assert_rv(p11->C_DigestInit(0, NULL), rv);
    assert_rv(p11->C_Digest(0, NULL, 1, NULL, NULL), rv);
    assert_rv(p11->C_DigestUpdate(0, NULL, 1), rv);
    assert_rv(p11->C_DigestKey(0, 0), rv);
    assert_rv(p11->C_DigestFinal(0, NULL, NULL), rv);
    assert_rv(p11->C_SignInit(0, NULL, 0), rv);
    assert_rv(p11->C_Sign(0, NULL, 1, NULL, NULL), rv);
    assert_rv(p11->C_SignUpdate(0, NULL, 1), rv);
    assert_rv(p11->C_SignFinal(0, NULL, NULL), rv);
    assert_rv(p11->C_SignRecoverInit(0, NULL, 0), rv);
    assert_rv(p11->C_SignRecover(0, NULL, 1, NULL, NULL), rv);
    assert_rv(p11->C_VerifyInit(0, NULL, 0), rv);
    assert_rv(p11->C_Verify(0, NULL, 1, NULL, 1), rv);
    assert_rv(p11->C_VerifyUpdate(0, NULL, 1), rv);
    assert_rv(p11->C_VerifyFinal(0, NULL, 1), rv);
    assert_rv(p11->C_VerifyRecoverInit(0, NULL, 0), rv);
    assert_rv(p11->C_VerifyRecover(0, NULL, 1, NULL, NULL), rv);
    assert_rv(p11->C_DigestEncryptUpdate(0, NULL, 1, NULL, NULL), rv);
    assert_rv(p11->C_DecryptDigestUpdate(0, NULL, 1, NULL, NULL), rv);
    assert_rv(p11->C_SignEncryptUpdate(0, NULL, 1, NULL, NULL), rv);
    assert_rv(p11->C_DecryptVerifyUpdate(0, NULL, 1, NULL, NULL), rv);
    assert_rv(p11->C_DeriveKey(0, NULL, 0, NULL, 1, NULL), rv);
    assert_rv(p11->C_GetFunctionStatus(0), parallel);
    assert_rv(p11->C_CancelFunction(0), parallel);
}

static void nothing_works_before_the_module_is_initialised(void **state)
{
    (void)state;
    const CK_RV rv = CKR_CRYPTOKI_NOT_INITIALIZED;
    CK_INFO info;
    CK_SLOT_INFO slot_info;
    CK_TOKEN_INFO token_info;
    CK_MECHANISM_INFO mechanism_info;
    CK_SLOT_ID slot;
    assert_rv(p11->C_Finalize(NULL), rv);
    assert_rv(p11->C_GetInfo(&info), rv);
    assert_rv(p11->C_GetSlotList(CK_TRUE, NULL, &number), rv);
    assert_rv(p11->C_GetSlotInfo(1, &slot_info), rv);
    assert_rv(p11->C_GetTokenInfo(1, &token_info), rv);
    assert_rv(p11->C_GetMechanismList(1, NULL, &number), rv);
    assert_rv(p11->C_GetMechanismInfo(1, CKM_ENVELOPE_KMS_WRAP, &mechanism_info), rv);
    assert_rv(p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, &slot, NULL), rv);
    assert_rv(p11->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, &opened), rv);
    assert_rv(p11->C_CloseAllSessions(1), rv);
    every_function_of_a_session_says(1, rv);
    every_unsupported_function_says(rv, rv);
    assert_rv(stub_get_interface("Vendor Envelope KMS", NULL, &(struct p11_interface *){NULL}, 0), CKR_OK);
}

static void a_handle_of_nothing_is_refused(void **state)
{
    (void)state;
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &opened), CKR_OK);
    assert_rv(p11->C_CloseSession(opened), CKR_OK);
    const CK_SESSION_HANDLE none[] = {0, 1, opened, session + 1, session ^ (CK_SESSION_HANDLE)1 << 40, ~0UL};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        every_function_of_a_session_says(none[i], CKR_SESSION_HANDLE_INVALID);
    every_unsupported_function_says(CKR_FUNCTION_NOT_SUPPORTED, CKR_FUNCTION_NOT_PARALLEL);
    /* Another session that takes the closed one's place is not found by its handle. */
    CK_SESSION_HANDLE next;
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &next), CKR_OK);
    every_function_of_a_session_says(opened, CKR_SESSION_HANDLE_INVALID);
    assert_rv(p11->C_CloseSession(next), CKR_OK);
}

static void a_handle_of_no_object_is_refused(void **state)
{
    (void)state;
    const CK_OBJECT_HANDLE none[] = {0, 1, 15, 1000, (CK_OBJECT_HANDLE)1 << 30, ~0UL};
    CK_OBJECT_HANDLE kek = stub_find(session, "kek", CKO_SECRET_KEY);
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        length = sizeof bytes;
        number = 4711;
        assert_rv(p11->C_GetAttributeValue(session, none[i], &label, 1), CKR_OBJECT_HANDLE_INVALID);
        assert_rv(p11->C_SetAttributeValue(session, none[i], &label, 1), CKR_OBJECT_HANDLE_INVALID);
        assert_rv(p11->C_GetObjectSize(session, none[i], &number), CKR_OBJECT_HANDLE_INVALID);
        assert_int_equal(number, 4711);
        assert_rv(p11->C_DestroyObject(session, none[i]), CKR_OBJECT_HANDLE_INVALID);
        assert_rv(p11->C_EncryptInit(session, &wrap, none[i]), CKR_KEY_HANDLE_INVALID);
        assert_rv(p11->C_DecryptInit(session, &wrap, none[i]), CKR_KEY_HANDLE_INVALID);
        assert_rv(p11->C_WrapKey(session, &wrap, kek, none[i], bytes, &length), CKR_KEY_HANDLE_INVALID);
        assert_rv(p11->C_WrapKey(session, &wrap, kek, kek, bytes, &length), CKR_KEY_UNEXTRACTABLE);
        assert_rv(p11->C_UnwrapKey(session, &wrap, none[i], bytes, 1, NULL, 0, &object),
                  CKR_UNWRAPPING_KEY_HANDLE_INVALID);
    }
}

static void missing_arguments_are_refused(void **state)
{
    (void)state;
    const CK_RV bad = CKR_ARGUMENTS_BAD;
    CK_OBJECT_HANDLE kek = stub_find(session, "kek", CKO_SECRET_KEY);
    assert_rv(p11->C_GetInfo(NULL), bad);
    assert_rv(p11->C_GetFunctionList(NULL), bad);
    assert_rv(p11->C_GetSlotList(CK_TRUE, NULL, NULL), bad);
    assert_rv(p11->C_GetSlotInfo(1, NULL), bad);
    assert_rv(p11->C_GetTokenInfo(1, NULL), bad);
    assert_rv(p11->C_GetMechanismList(1, NULL, NULL), bad);
    assert_rv(p11->C_GetMechanismInfo(1, CKM_ENVELOPE_KMS_WRAP, NULL), bad);
    assert_rv(p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, NULL, NULL), bad);
    assert_rv(p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, &number, bytes), bad);
    assert_rv(p11->C_Finalize(bytes), bad);
    assert_rv(p11->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, NULL), bad);
    assert_rv(p11->C_GetSessionInfo(session, NULL), bad);
    assert_rv(p11->C_Login(session, CKU_USER, NULL, 4), bad);
    assert_rv(login_user(session, NULL, 0, NULL, 4), bad);
    assert_rv(p11->C_CreateObject(session, NULL, 1, &object), bad);
    assert_rv(p11->C_CreateObject(session, &nowhere, 1, &object), bad);
    assert_rv(p11->C_CreateObject(session, &label, 1, NULL), bad);
    assert_rv(p11->C_GetObjectSize(session, kek, NULL), bad);
    assert_rv(p11->C_GetAttributeValue(session, kek, NULL, 1), bad);
    assert_rv(p11->C_SetAttributeValue(session, kek, NULL, 1), bad);
    assert_rv(p11->C_SetAttributeValue(session, kek, &nowhere, 1), bad);
    assert_rv(p11->C_FindObjectsInit(session, NULL, 1), bad);
    assert_rv(p11->C_FindObjectsInit(session, &nowhere, 1), bad);
    assert_rv(p11->C_EncryptInit(session, NULL, kek), bad);
    assert_rv(p11->C_DecryptInit(session, NULL, kek), bad);
    assert_rv(p11->C_GenerateKey(session, NULL, NULL, 0, &object), bad);
    assert_rv(p11->C_GenerateKey(session, &wrap, NULL, 1, &object), bad);
    assert_rv(p11->C_GenerateKey(session, &wrap, &nowhere, 1, &object), bad);
    assert_rv(p11->C_GenerateKey(session, &wrap, NULL, 0, NULL), bad);
    assert_rv(p11->C_GenerateKeyPair(session, NULL, NULL, 0, NULL, 0, &object, &object), bad);
    assert_rv(p11->C_GenerateKeyPair(session, &wrap, NULL, 1, NULL, 0, &object, &object), bad);
    assert_rv(p11->C_GenerateKeyPair(session, &wrap, NULL, 0, &nowhere, 1, &object, &object), bad);
    assert_rv(p11->C_GenerateKeyPair(session, &wrap, NULL, 0, NULL, 0, NULL, &object), bad);
    assert_rv(p11->C_GenerateKeyPair(session, &wrap, NULL, 0, NULL, 0, &object, NULL), bad);
    assert_rv(p11->C_WrapKey(session, NULL, kek, kek, bytes, &length), bad);
    assert_rv(p11->C_WrapKey(session, &wrap, kek, kek, bytes, NULL), bad);
    assert_rv(p11->C_UnwrapKey(session, NULL, kek, bytes, 1, NULL, 0, &object), bad);
    assert_rv(p11->C_UnwrapKey(session, &wrap, kek, NULL, 1, NULL, 0, &object), bad);
    assert_rv(p11->C_UnwrapKey(session, &wrap, kek, bytes, 1, NULL, 1, &object), bad);
    assert_rv(p11->C_UnwrapKey(session, &wrap, kek, bytes, 1, NULL, 0, NULL), bad);
    assert_rv(p11->C_SeedRandom(session, NULL, 1), bad);
    assert_rv(p11->C_GenerateRandom(session, NULL, 1), bad);
    for (size_t i = 0; i < BACKEND_OP_COUNT; i++)
        if (i != BACKEND_DESCRIBE && i != BACKEND_AUTHENTICATE)
            assert_int_equal(stub.asked[i], 0);
}

static void a_slot_that_is_none_is_refused(void **state)
{
    (void)state;
    const CK_SLOT_ID none[] = {0, 3, ~0UL};
    CK_SLOT_INFO slot_info;
    CK_TOKEN_INFO token_info;
    CK_MECHANISM_INFO mechanism_info;
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        assert_rv(p11->C_GetSlotInfo(none[i], &slot_info), CKR_SLOT_ID_INVALID);
        assert_rv(p11->C_GetTokenInfo(none[i], &token_info), CKR_SLOT_ID_INVALID);
        assert_rv(p11->C_GetMechanismList(none[i], NULL, &number), CKR_SLOT_ID_INVALID);
        assert_rv(p11->C_GetMechanismInfo(none[i], CKM_ENVELOPE_KMS_WRAP, &mechanism_info), CKR_SLOT_ID_INVALID);
        assert_rv(p11->C_OpenSession(none[i], CKF_SERIAL_SESSION, NULL, NULL, &opened), CKR_SLOT_ID_INVALID);
        assert_rv(p11->C_CloseAllSessions(none[i]), CKR_SLOT_ID_INVALID);
    }
    assert_rv(p11->C_OpenSession(1, 0, NULL, NULL, &opened), CKR_SESSION_PARALLEL_NOT_SUPPORTED);
}

static void lists_say_how_much_room_they_need(void **state)
{
    (void)state;
    CK_SLOT_ID slots[3] = {9, 9, 9};
    CK_MECHANISM_TYPE types[8];
    struct p11_interface interfaces[4];
    number = 99;
    assert_rv(p11->C_GetSlotList(CK_FALSE, NULL, &number), CKR_OK);
    assert_int_equal(number, 2);
    number = 1;
    assert_rv(p11->C_GetSlotList(CK_TRUE, slots, &number), CKR_BUFFER_TOO_SMALL);
    assert_int_equal(number, 2);
    assert_int_equal(slots[0], 9);
    number = 3;
    assert_rv(p11->C_GetSlotList(CK_TRUE, slots, &number), CKR_OK);
    assert_true(number == 2 && slots[0] == 1 && slots[1] == 2 && slots[2] == 9);

    number = 0;
    assert_rv(p11->C_GetMechanismList(1, types, &number), CKR_BUFFER_TOO_SMALL);
    assert_int_equal(number, 5);
    assert_rv(p11->C_GetMechanismList(1, types, &number), CKR_OK);

    assert_rv(stub_get_interface_list(NULL, NULL), CKR_ARGUMENTS_BAD);
    number = 2;
    assert_rv(stub_get_interface_list(interfaces, &number), CKR_BUFFER_TOO_SMALL);
    assert_int_equal(number, 3);
    assert_rv(stub_get_interface_list(interfaces, &number), CKR_OK);
    for (size_t i = 0; i < number; i++) {
        assert_non_null(interfaces[i].functions);
        assert_int_equal(interfaces[i].flags, CKF_INTERFACE_FORK_SAFE);
    }
}

static void interfaces_are_found_by_name_version_and_flags(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int major, minor; /* 0, 0: no version given */
        CK_FLAGS flags;
        CK_RV rv;
        int found_major, found_minor;
    } rows[] = {
        {NULL, 0, 0, 0, CKR_OK, 3, 0},
        {NULL, 0, 0, CKF_INTERFACE_FORK_SAFE, CKR_OK, 3, 0},
        {NULL, 2, 40, 0, CKR_OK, 2, 40},
        {"PKCS 11", 0, 0, 0, CKR_OK, 3, 0},
        {"PKCS 11", 3, 0, 0, CKR_OK, 3, 0},
        {"PKCS 11", 2, 40, CKF_INTERFACE_FORK_SAFE, CKR_OK, 2, 40},
        {"Vendor Envelope KMS", 0, 0, 0, CKR_OK, 1, 1},
        {"Vendor Envelope KMS", 1, 0, 0, CKR_OK, 1, 1}, /* a later one has all of it: <envelope/pkcs11-kms.h> */
        {"Vendor Envelope KMS", 1, 1, 0, CKR_OK, 1, 1},
        {"Vendor Envelope KMS", 1, 2, 0, CKR_FUNCTION_FAILED, 0, 0},
        {"Vendor Envelope KMS", 2, 0, 0, CKR_FUNCTION_FAILED, 0, 0},
        {NULL, 1, 0, 0, CKR_FUNCTION_FAILED, 0, 0}, /* not ours, which nobody named */
        {NULL, 1, 1, 0, CKR_FUNCTION_FAILED, 0, 0},
        {"PKCS 11", 3, 1, 0, CKR_FUNCTION_FAILED, 0, 0},
        {"PKCS 11", 2, 20, 0, CKR_FUNCTION_FAILED, 0, 0},
        {"PKCS 11", 0, 0, 2, CKR_FUNCTION_FAILED, 0, 0},
        {"pkcs 11", 0, 0, 0, CKR_FUNCTION_FAILED, 0, 0},
        {"", 0, 0, 0, CKR_FUNCTION_FAILED, 0, 0},
    };
    assert_rv(stub_get_interface(NULL, NULL, NULL, 0), CKR_ARGUMENTS_BAD);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CK_VERSION version = {(CK_BYTE)rows[i].major, (CK_BYTE)rows[i].minor};
        struct p11_interface *interface = NULL;
        assert_rv(stub_get_interface(rows[i].name, rows[i].major ? &version : NULL, &interface, rows[i].flags),
                  rows[i].rv);
        if (rows[i].rv != CKR_OK) {
            assert_null(interface);
            continue;
        }
        const CK_VERSION *found = interface->functions;
        assert_int_equal(found->major, rows[i].found_major);
        assert_int_equal(found->minor, rows[i].found_minor);
    }
}

static void each_list_of_functions_says_its_own_version(void **state)
{
    (void)state;
    CK_INFO info;
    struct p11_interface *interface;
    assert_rv(stub_get_interface("PKCS 11", NULL, &interface, 0), CKR_OK);
    const struct p11_functions_3_0 *functions = interface->functions;
    assert_rv(p11->C_GetInfo(&info), CKR_OK);
    assert_true(info.cryptokiVersion.major == 2 && info.cryptokiVersion.minor == 40 && !info.flags);
    assert_rv(functions->base.C_GetInfo(&info), CKR_OK);
    assert_true(info.cryptokiVersion.major == 3 && info.cryptokiVersion.minor == 0);
    assert_true(memcmp(info.manufacturerID, "Envelope                        ", 32) == 0);
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 5; j++)
            assert_rv(functions->message[i][j](), CKR_FUNCTION_NOT_SUPPORTED);
}

static void mechanisms_are_what_they_are_said_to_be(void **state)
{
    (void)state;
    static const struct {
        CK_MECHANISM_TYPE type;
        CK_ULONG least, most;
        CK_FLAGS flags;
    } rows[] = {
        {CKM_ENVELOPE_KMS_WRAP, 16, 32, CKF_HW | CKF_ENCRYPT | CKF_DECRYPT | CKF_WRAP | CKF_UNWRAP},
        {CKM_RSA_PKCS_OAEP, 2048, 4096, CKF_HW | CKF_ENCRYPT | CKF_DECRYPT | CKF_WRAP | CKF_UNWRAP},
        {CKM_AES_KEY_GEN, 16, 32, CKF_HW | CKF_GENERATE},
        {CKM_GENERIC_SECRET_KEY_GEN, 8, 8 * 4096, CKF_HW | CKF_GENERATE}, /* this one counts bits */
        {CKM_RSA_PKCS_KEY_PAIR_GEN, 2048, 4096, CKF_HW | CKF_GENERATE_KEY_PAIR},
    };
    CK_MECHANISM_INFO info;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_rv(p11->C_GetMechanismInfo(STUB_SLOT, rows[i].type, &info), CKR_OK);
        assert_true(info.ulMinKeySize == rows[i].least && info.ulMaxKeySize == rows[i].most);
        assert_int_equal(info.flags, rows[i].flags);
    }
    assert_rv(p11->C_GetMechanismInfo(STUB_SLOT, CKM_AES_GCM, &info), CKR_MECHANISM_INVALID);
}

static void a_token_says_whether_anything_may_be_made(void **state)
{
    (void)state;
    CK_TOKEN_INFO info;
    CK_SLOT_INFO slot_info;
    assert_rv(p11->C_GetSlotInfo(STUB_SLOT, &slot_info), CKR_OK);
    assert_int_equal(slot_info.flags, CKF_TOKEN_PRESENT | CKF_HW_SLOT);
    assert_rv(p11->C_GetTokenInfo(STUB_SLOT, &info), CKR_OK);
    assert_int_equal(info.flags, CKF_RNG | CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED | CKF_WRITE_PROTECTED);
    assert_true(memcmp(info.label, "one                             ", 32) == 0);
    assert_int_equal(info.ulSessionCount, 1);
    assert_int_equal(info.ulRwSessionCount, 1);
    assert_rv(p11->C_GetTokenInfo(STUB_WRITABLE_SLOT, &info), CKR_OK);
    assert_int_equal(info.flags, CKF_RNG | CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED);
    CK_SLOT_ID slot;
    assert_rv(p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, &slot, NULL), CKR_NO_EVENT);
    assert_rv(p11->C_WaitForSlotEvent(0, &slot, NULL), CKR_FUNCTION_NOT_SUPPORTED);
}

static void random_numbers_come_from_the_service(void **state)
{
    (void)state;
    assert_rv(p11->C_SeedRandom(session, bytes, 8), CKR_RANDOM_SEED_NOT_SUPPORTED);
    assert_rv(p11->C_GenerateRandom(session, bytes, 0), CKR_OK);
    assert_int_equal(stub.asked[BACKEND_RANDOM], 0);
    assert_rv(p11->C_GenerateRandom(session, bytes, 3), CKR_OK);
    assert_int_equal(stub.asked[BACKEND_RANDOM], 1);
    assert_memory_equal(bytes, "\1\2\3", 3);
    assert_rv(p11->C_GenerateRandom(session, bytes, ~0UL), CKR_ARGUMENTS_BAD);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, stub_start, stub_stop)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_works_before_the_module_is_initialised),
        T(a_handle_of_nothing_is_refused),
        T(a_handle_of_no_object_is_refused),
        T(missing_arguments_are_refused),
        T(a_slot_that_is_none_is_refused),
        T(lists_say_how_much_room_they_need),
        T(interfaces_are_found_by_name_version_and_flags),
        T(each_list_of_functions_says_its_own_version),
        T(mechanisms_are_what_they_are_said_to_be),
        T(a_token_says_whether_anything_may_be_made),
        T(random_numbers_come_from_the_service),
    };
    return cmocka_run_group_tests(tests, stub_set_up, stub_tear_down);
}
