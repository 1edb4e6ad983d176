/* Encryption, decryption and wrapping as states: what begins them, what ends them, and the two calls of an output's
 * length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "stub_service.h"

enum { ROOM = 8192 };
static CK_BYTE plain[] = "some plaintext", out[ROOM], blob[ROOM];
static const CK_ULONG plain_length = sizeof plain - 1;
static CK_ULONG length, blob_length;
static CK_OBJECT_HANDLE kek, object;
static CK_MECHANISM wrap = {CKM_ENVELOPE_KMS_WRAP, NULL, 0};

static int start(void **state)
{
    if (stub_start(state))
        return 1;
    kek = stub_find(session, "kek", CKO_SECRET_KEY);
    blob_length = sizeof blob;
    return p11->C_EncryptInit(session, &wrap, kek) == CKR_OK &&
                   p11->C_Encrypt(session, plain, plain_length, blob, &blob_length) == CKR_OK
               ? 0
               : 1;
}

/* Both directions have the same rules. */
static const struct direction {
    bool encrypts;
    CK_RV too_long;
} directions[] = {{true, CKR_DATA_LEN_RANGE}, {false, CKR_ENCRYPTED_DATA_LEN_RANGE}};
static const struct direction *way;

static void init(void)
{
    assert_rv((way->encrypts ? p11->C_EncryptInit : p11->C_DecryptInit)(session, &wrap, kek), CKR_OK);
}

static CK_RV one(CK_BYTE *in, CK_ULONG in_length, CK_BYTE *to, CK_ULONG *to_length)
{
    return (way->encrypts ? p11->C_Encrypt : p11->C_Decrypt)(session, in, in_length, to, to_length);
}

static CK_RV update(CK_BYTE *in, CK_ULONG in_length, CK_ULONG *to_length)
{
    return (way->encrypts ? p11->C_EncryptUpdate : p11->C_DecryptUpdate)(session, in, in_length, out, to_length);
}

static CK_RV final(CK_BYTE *to, CK_ULONG *to_length)
{
    return (way->encrypts ? p11->C_EncryptFinal : p11->C_DecryptFinal)(session, to, to_length);
}

static CK_BYTE *input(void)
{
    return way->encrypts ? plain : blob;
}

static CK_ULONG input_length(void)
{
    return way->encrypts ? plain_length : blob_length;
}

static void assert_output(void)
{
    assert_int_equal(length, way->encrypts ? blob_length : plain_length);
    assert_memory_equal(out, way->encrypts ? blob : plain, length);
}

static unsigned asked(void)
{
    return atomic_load(&stub.asked[way->encrypts ? BACKEND_ENCRYPT : BACKEND_DECRYPT]);
}

static void assert_over(void)
{
    length = sizeof out;
    assert_rv(one(input(), input_length(), out, &length), CKR_OPERATION_NOT_INITIALIZED);
    assert_rv(update(input(), 1, &length), CKR_OPERATION_NOT_INITIALIZED);
    assert_rv(final(out, &length), CKR_OPERATION_NOT_INITIALIZED);
}

#define BOTH_WAYS for (way = directions; way < directions + 2; way++)

static void one_part_works_and_ends(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        assert_over();
        init();
        length = sizeof out;
        assert_rv(one(input(), input_length(), out, &length), CKR_OK);
        assert_output();
        assert_over();
    }
}

static void a_second_beginning_is_refused_and_harms_nothing(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        init();
        assert_rv((way->encrypts ? p11->C_EncryptInit : p11->C_DecryptInit)(session, &wrap, kek), CKR_OPERATION_ACTIVE);
        length = sizeof out;
        assert_rv(one(input(), input_length(), out, &length), CKR_OK);
        assert_output();
    }
}

static void the_length_is_told_without_asking_the_service(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        unsigned before = asked();
        init();
        length = 0;
        assert_rv(one(input(), input_length(), NULL, &length), CKR_OK);
        assert_true(length >= (way->encrypts ? blob_length : plain_length));
        assert_int_equal(asked(), before);
        CK_ULONG told = length;
        assert_rv(one(input(), input_length(), out, &length), CKR_OK);
        assert_true(length <= told);
        assert_output();
        assert_int_equal(asked(), before + 1);
        assert_over();
    }
}

static void too_small_a_buffer_leaves_the_operation_and_asks_once(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        unsigned before = asked();
        init();
        length = 1;
        out[1] = 0x5a;
        assert_rv(one(input(), input_length(), out, &length), CKR_BUFFER_TOO_SMALL);
        assert_int_equal(out[1], 0x5a);
        assert_rv(one(input(), input_length(), NULL, &length), CKR_OK);
        assert_int_equal(length, way->encrypts ? blob_length : plain_length);
        assert_rv(one(input(), input_length(), out, &length), CKR_OK);
        assert_output();
        assert_int_equal(asked(), before + 1);
        assert_over();

        init();
        assert_rv(update(input(), input_length(), &length), CKR_OK);
        length = 0;
        assert_rv(final(out, &length), CKR_BUFFER_TOO_SMALL);
        assert_rv(final(out, &length), CKR_OK);
        assert_output();
        assert_int_equal(asked(), before + 2);
        assert_over();
    }
}

static void parts_are_one_message(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        init();
        for (CK_ULONG at = 0; at < input_length(); at++) {
            length = sizeof out;
            assert_rv(update(input() + at, 1, &length), CKR_OK);
            assert_int_equal(length, 0);
        }
        assert_rv(update(NULL, 0, &length), CKR_OK);
        assert_rv(final(NULL, &length), CKR_OK);
        assert_true(length >= (way->encrypts ? blob_length : plain_length));
        length = sizeof out;
        assert_rv(final(out, &length), CKR_OK);
        assert_output();
        assert_over();
    }
}

/* Who asked for the length, and then gives the message in parts, must not get it twice. */
static void parts_after_a_question_of_length_begin_at_nothing(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        init();
        assert_rv(one(input(), input_length(), NULL, &length), CKR_OK);
        assert_rv(update(input(), input_length(), &length), CKR_OK);
        length = sizeof out;
        assert_rv(final(out, &length), CKR_OK);
        assert_output();
    }
}

static void one_part_amid_several_ends_the_operation(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        init();
        assert_rv(update(input(), 1, &length), CKR_OK);
        length = sizeof out;
        assert_rv(one(input(), input_length(), out, &length), CKR_OPERATION_ACTIVE);
        assert_over();
        /* And the other way round: a result waits for room. */
        init();
        length = 0;
        assert_rv(one(input(), input_length(), out, &length), CKR_BUFFER_TOO_SMALL);
        assert_rv(update(input(), 1, &length), CKR_OPERATION_ACTIVE);
        assert_over();
        init();
        length = 0;
        assert_rv(one(input(), input_length(), out, &length), CKR_BUFFER_TOO_SMALL);
        length = sizeof out;
        assert_rv(final(out, &length), CKR_OPERATION_ACTIVE);
        assert_over();
        init();
        assert_rv(update(input(), input_length(), &length), CKR_OK);
        length = 0;
        assert_rv(final(out, &length), CKR_BUFFER_TOO_SMALL);
        assert_rv(update(input(), 1, &length), CKR_OPERATION_ACTIVE);
        assert_over();
    }
}

static void every_error_ends_the_operation(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        init();
        assert_rv(one(NULL, 5, out, &length), CKR_ARGUMENTS_BAD);
        assert_over();
        init();
        assert_rv(one(input(), input_length(), out, NULL), CKR_ARGUMENTS_BAD);
        assert_over();
        init();
        length = sizeof out;
        assert_rv(one(input(), ~0UL, out, &length), way->too_long);
        assert_over();
        init();
        length = sizeof out;
        assert_rv(one(NULL, 0, out, &length), way->too_long);
        assert_over();
        init();
        assert_rv(update(NULL, 5, &length), CKR_ARGUMENTS_BAD);
        assert_over();
        init();
        assert_rv(update(input(), 1, NULL), CKR_ARGUMENTS_BAD);
        assert_over();
        init();
        assert_rv(update(input(), ~0UL, &length), way->too_long);
        assert_over();
        init();
        assert_rv(update(input(), 1, &length), CKR_OK);
        assert_rv(update(input(), ~0UL, &length), way->too_long);
        assert_over();
        init();
        assert_rv(update(input(), 1, &length), CKR_OK);
        assert_rv(final(out, NULL), CKR_ARGUMENTS_BAD);
        assert_over();
        /* No part at all is a message too, but none that these keys take. */
        init();
        length = sizeof out;
        assert_rv(final(out, &length), way->too_long);
        assert_over();
    }
    blob[0] ^= 1;
    way = &directions[1];
    init();
    length = sizeof out;
    assert_rv(one(blob, blob_length, out, &length), CKR_ENCRYPTED_DATA_INVALID);
    assert_over();
}

static void an_operation_is_cancelled_alone(void **state)
{
    (void)state;
    struct p11_interface *interface;
    assert_rv(stub_get_interface("PKCS 11", NULL, &interface, 0), CKR_OK);
    const struct p11_functions_3_0 *functions = interface->functions;
    BOTH_WAYS
    {
        init();
        assert_rv((way->encrypts ? p11->C_EncryptInit : p11->C_DecryptInit)(session, NULL, 0), CKR_OK);
        assert_over();
    }
    assert_rv(p11->C_EncryptInit(session, &wrap, kek), CKR_OK);
    assert_rv(p11->C_DecryptInit(session, &wrap, kek), CKR_OK);
    assert_rv(p11->C_FindObjectsInit(session, NULL, 0), CKR_OK);
    assert_rv(functions->session_cancel(session, 0), CKR_OK);
    assert_rv(functions->session_cancel(session, CKF_ENCRYPT | CKF_SIGN | CKF_DIGEST), CKR_OK);
    way = &directions[0];
    assert_over();
    length = sizeof out;
    assert_rv(p11->C_Decrypt(session, blob, blob_length, out, &length), CKR_OK);
    CK_ULONG found;
    assert_rv(p11->C_FindObjects(session, &object, 1, &found), CKR_OK);
    assert_rv(functions->session_cancel(session, P11_CKF_FIND_OBJECTS), CKR_OK);
    assert_rv(p11->C_FindObjects(session, &object, 1, &found), CKR_OPERATION_NOT_INITIALIZED);
}

static void sessions_know_nothing_of_each_others_operations(void **state)
{
    (void)state;
    CK_SESSION_HANDLE other;
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &other), CKR_OK);
    assert_rv(p11->C_EncryptInit(session, &wrap, kek), CKR_OK);
    length = sizeof out;
    assert_rv(p11->C_Encrypt(other, plain, plain_length, out, &length), CKR_OPERATION_NOT_INITIALIZED);
    assert_rv(p11->C_EncryptInit(other, &wrap, kek), CKR_OK);
    assert_rv(p11->C_EncryptUpdate(other, plain, 1, out, &length), CKR_OK);
    way = &directions[0];
    length = sizeof out;
    assert_rv(one(plain, plain_length, out, &length), CKR_OK);
    assert_output();
    assert_rv(p11->C_CloseSession(other), CKR_OK);
}

static void mechanisms_and_parameters_are_checked_at_the_beginning(void **state)
{
    (void)state;
    CK_ENVELOPE_KMS_PARAMS good = {plain, 4, 0}, no_place = {NULL, 4, 0}, long_one = {plain, ~0UL, 0},
                           flag = {NULL, 0, 2};
    CK_RSA_PKCS_OAEP_PARAMS oaep = {CKM_SHA256, CKG_MGF1_SHA256, CKZ_DATA_SPECIFIED, NULL, 0}, sha1 = oaep,
                            label = oaep;
    sha1.hashAlg = CKM_SHA_1;
    label.pSourceData = plain;
    label.ulSourceDataLen = 3;
    CK_OBJECT_HANDLE public = stub_find(session, "pair", CKO_PUBLIC_KEY),
                     private = stub_find(session, "pair", CKO_PRIVATE_KEY),
                     old = stub_find(session, "old", CKO_SECRET_KEY);
    const struct {
        CK_MECHANISM mechanism;
        CK_OBJECT_HANDLE key;
        CK_RV encrypt, decrypt;
    } rows[] = {
        {{CKM_ENVELOPE_KMS_WRAP, &good, sizeof good}, kek, CKR_OK, CKR_OK},
        {{CKM_ENVELOPE_KMS_WRAP, &good, sizeof good - 1},
         kek,
         CKR_MECHANISM_PARAM_INVALID,
         CKR_MECHANISM_PARAM_INVALID},
        {{CKM_ENVELOPE_KMS_WRAP, NULL, sizeof good}, kek, CKR_MECHANISM_PARAM_INVALID, CKR_MECHANISM_PARAM_INVALID},
        {{CKM_ENVELOPE_KMS_WRAP, &no_place, sizeof good},
         kek,
         CKR_MECHANISM_PARAM_INVALID,
         CKR_MECHANISM_PARAM_INVALID},
        {{CKM_ENVELOPE_KMS_WRAP, &long_one, sizeof good},
         kek,
         CKR_MECHANISM_PARAM_INVALID,
         CKR_MECHANISM_PARAM_INVALID},
        {{CKM_ENVELOPE_KMS_WRAP, &flag, sizeof good}, kek, CKR_MECHANISM_PARAM_INVALID, CKR_MECHANISM_PARAM_INVALID},
        {{CKM_ENVELOPE_KMS_WRAP, NULL, 0}, old, CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_OK},
        {{CKM_ENVELOPE_KMS_WRAP, NULL, 0}, private, CKR_KEY_TYPE_INCONSISTENT, CKR_KEY_TYPE_INCONSISTENT},
        {{CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep}, public, CKR_OK, CKR_KEY_FUNCTION_NOT_PERMITTED},
        {{CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep}, private, CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_OK},
        {{CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep}, kek, CKR_KEY_TYPE_INCONSISTENT, CKR_KEY_TYPE_INCONSISTENT},
        {{CKM_RSA_PKCS_OAEP, NULL, 0}, public, CKR_MECHANISM_PARAM_INVALID, CKR_MECHANISM_PARAM_INVALID},
        {{CKM_RSA_PKCS_OAEP, &sha1, sizeof oaep}, public, CKR_MECHANISM_PARAM_INVALID, CKR_MECHANISM_PARAM_INVALID},
        {{CKM_RSA_PKCS_OAEP, &label, sizeof oaep}, public, CKR_MECHANISM_PARAM_INVALID, CKR_MECHANISM_PARAM_INVALID},
        {{CKM_RSA_PKCS, NULL, 0}, public, CKR_MECHANISM_INVALID, CKR_MECHANISM_INVALID},
        {{CKM_AES_GCM, NULL, 0}, kek, CKR_MECHANISM_INVALID, CKR_MECHANISM_INVALID},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CK_MECHANISM mechanism = rows[i].mechanism;
        assert_rv(p11->C_EncryptInit(session, &mechanism, rows[i].key), rows[i].encrypt);
        if (rows[i].encrypt == CKR_OK)
            assert_rv(p11->C_EncryptInit(session, NULL, 0), CKR_OK);
        assert_rv(p11->C_DecryptInit(session, &mechanism, rows[i].key), rows[i].decrypt);
        if (rows[i].decrypt == CKR_OK)
            assert_rv(p11->C_DecryptInit(session, NULL, 0), CKR_OK);
    }
}

static void a_parameter_may_go_away_after_the_beginning(void **state)
{
    (void)state;
    CK_BYTE aad[] = "tenant";
    CK_ENVELOPE_KMS_PARAMS params = {aad, 6, 0};
    CK_MECHANISM mechanism = {CKM_ENVELOPE_KMS_WRAP, &params, sizeof params};
    assert_rv(p11->C_EncryptInit(session, &mechanism, kek), CKR_OK);
    memset(aad, 'x', sizeof aad);
    params = (CK_ENVELOPE_KMS_PARAMS){NULL, 99, ~0UL};
    length = sizeof out;
    assert_rv(p11->C_Encrypt(session, plain, plain_length, out, &length), CKR_OK);
    memcpy(aad, "tenant", 6);
    params = (CK_ENVELOPE_KMS_PARAMS){aad, 6, 0};
    assert_rv(p11->C_DecryptInit(session, &mechanism, kek), CKR_OK);
    assert_rv(p11->C_Decrypt(session, out, length, out, &length), CKR_OK); /* in place */
    assert_int_equal(length, plain_length);
    assert_memory_equal(out, plain, plain_length);
}

static void a_dry_run_gives_nothing(void **state)
{
    (void)state;
    CK_ENVELOPE_KMS_PARAMS params = {NULL, 0, CKF_ENVELOPE_KMS_DRY_RUN};
    CK_MECHANISM mechanism = {CKM_ENVELOPE_KMS_WRAP, &params, sizeof params};
    assert_rv(p11->C_DecryptInit(session, &mechanism, kek), CKR_OK);
    length = 0;
    assert_rv(p11->C_Decrypt(session, blob, blob_length, out, &length), CKR_OK);
    assert_int_equal(length, 0);
    assert_int_equal(stub.asked[BACKEND_DECRYPT], 1);
    assert_rv(p11->C_WrapKey(session, &mechanism, kek, kek, out, &length), CKR_KEY_UNEXTRACTABLE);
    assert_rv(p11->C_UnwrapKey(session, &mechanism, kek, blob, blob_length, NULL, 0, &object),
              CKR_MECHANISM_PARAM_INVALID);
}

static CK_OBJECT_HANDLE session_key(bool extractable)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL flag = extractable, no = CK_FALSE;
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class},
                               {CKA_KEY_TYPE, &type, sizeof type},
                               {CKA_EXTRACTABLE, &flag, 1},
                               {CKA_SENSITIVE, &no, 1},
                               {CKA_VALUE, (void *)"0123456789abcdef", 16}};
    assert_rv(p11->C_CreateObject(session, template, 5, &object), CKR_OK);
    return object;
}

static void keys_are_wrapped_and_unwrapped(void **state)
{
    (void)state;
    CK_OBJECT_CLASS class = CKO_SECRET_KEY, public_class = CKO_PUBLIC_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_OBJECT_HANDLE key = session_key(true), kept = session_key(false), back;
    assert_rv(p11->C_WrapKey(session, &wrap, kek, key, NULL, &length), CKR_OK);
    assert_true(length >= 16 + STUB_BLOB_EXTRA);
    length = 1;
    assert_rv(p11->C_WrapKey(session, &wrap, kek, key, out, &length), CKR_BUFFER_TOO_SMALL);
    assert_int_equal(length, 16 + STUB_BLOB_EXTRA);
    assert_rv(p11->C_WrapKey(session, &wrap, kek, key, out, &length), CKR_OK);
    assert_rv(p11->C_WrapKey(session, &wrap, kek, kept, blob, &blob_length), CKR_KEY_UNEXTRACTABLE);
    assert_rv(p11->C_WrapKey(session, &wrap, key, key, blob, &blob_length), CKR_KEY_FUNCTION_NOT_PERMITTED);
    assert_rv(p11->C_WrapKey(session, &wrap, ~0UL, key, blob, &blob_length), CKR_WRAPPING_KEY_HANDLE_INVALID);

    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class},
                               {CKA_KEY_TYPE, &type, sizeof type},
                               {CKA_SENSITIVE, &no, 1},
                               {CKA_EXTRACTABLE, &yes, 1}};
    assert_rv(p11->C_UnwrapKey(session, &wrap, kek, out, length, template, 4, &back), CKR_OK);
    CK_BYTE value[32];
    CK_BBOOL flags[3] = {9, 9, 9};
    CK_ATTRIBUTE read[] = {{CKA_VALUE, value, sizeof value},
                           {CKA_LOCAL, &flags[0], 1},
                           {CKA_ALWAYS_SENSITIVE, &flags[1], 1},
                           {CKA_NEVER_EXTRACTABLE, &flags[2], 1}};
    assert_rv(p11->C_GetAttributeValue(session, back, read, 4), CKR_OK);
    assert_int_equal(read[0].ulValueLen, 16);
    assert_memory_equal(value, "0123456789abcdef", 16);
    assert_true(!flags[0] && !flags[1] && !flags[2]);

    assert_rv(p11->C_UnwrapKey(session, &wrap, kek, out, length - 1, template, 4, &back), CKR_WRAPPED_KEY_INVALID);
    assert_rv(p11->C_UnwrapKey(session, &wrap, kek, out, 0, template, 4, &back), CKR_WRAPPED_KEY_LEN_RANGE);
    assert_rv(p11->C_UnwrapKey(session, &wrap, kek, out, ~0UL, template, 4, &back), CKR_WRAPPED_KEY_LEN_RANGE);
    /* What could not be made of it is refused before the service is asked. */
    unsigned before = stub.asked[BACKEND_DECRYPT];
    template[0].pValue = &public_class;
    assert_rv(p11->C_UnwrapKey(session, &wrap, kek, out, length, template, 4, &back), CKR_TEMPLATE_INCONSISTENT);
    template[0] = (CK_ATTRIBUTE){CKA_TOKEN, &yes, 1};
    assert_rv(p11->C_UnwrapKey(session, &wrap, kek, out, length, template, 4, &back), CKR_TEMPLATE_INCONSISTENT);
    template[0] = (CK_ATTRIBUTE){CKA_VALUE, value, 16};
    assert_rv(p11->C_UnwrapKey(session, &wrap, kek, out, length, template, 4, &back), CKR_TEMPLATE_INCONSISTENT);
    template[0] = (CK_ATTRIBUTE){CKA_LOCAL, &yes, 1};
    assert_rv(p11->C_UnwrapKey(session, &wrap, kek, out, length, template, 4, &back), CKR_ATTRIBUTE_READ_ONLY);
    assert_int_equal(stub.asked[BACKEND_DECRYPT], before);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, start, stub_stop)
    const struct CMUnitTest tests[] = {
        T(one_part_works_and_ends),
        T(a_second_beginning_is_refused_and_harms_nothing),
        T(the_length_is_told_without_asking_the_service),
        T(too_small_a_buffer_leaves_the_operation_and_asks_once),
        T(parts_are_one_message),
        T(parts_after_a_question_of_length_begin_at_nothing),
        T(one_part_amid_several_ends_the_operation),
        T(every_error_ends_the_operation),
        T(an_operation_is_cancelled_alone),
        T(sessions_know_nothing_of_each_others_operations),
        T(mechanisms_and_parameters_are_checked_at_the_beginning),
        T(a_parameter_may_go_away_after_the_beginning),
        T(a_dry_run_gives_nothing),
        T(keys_are_wrapped_and_unwrapped),
    };
    return cmocka_run_group_tests(tests, stub_set_up, stub_tear_down);
}
