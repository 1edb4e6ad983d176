/* Objects: what they say of themselves, how they are found, made and destroyed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "stub_service.h"

static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
static CK_OBJECT_CLASS secret = CKO_SECRET_KEY, public = CKO_PUBLIC_KEY, private = CKO_PRIVATE_KEY, data = CKO_DATA;
static CK_KEY_TYPE aes = CKK_AES, generic = CKK_GENERIC_SECRET, rsa = CKK_RSA, des = CKK_DES3;
static CK_BYTE value[32];
static CK_ULONG length = 32, odd_length = 20, bits = 2048;
static CK_MECHANISM aes_gen = {CKM_AES_KEY_GEN, NULL, 0}, generic_gen = {CKM_GENERIC_SECRET_KEY_GEN, NULL, 0},
                    pair_gen = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};

#define A(type, variable)                                                                                              \
    {                                                                                                                  \
        type, &variable, sizeof variable                                                                               \
    }
#define LABEL(text)                                                                                                    \
    {                                                                                                                  \
        CKA_LABEL, (void *)(text), sizeof(text) - 1                                                                    \
    }

static bool flag_of(CK_SESSION_HANDLE in, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type)
{
    CK_BBOOL flag = 0x5a;
    CK_ATTRIBUTE attribute = A(type, flag);
    assert_rv(p11->C_GetAttributeValue(in, object, &attribute, 1), CKR_OK);
    assert_int_equal(attribute.ulValueLen, 1);
    return flag == CK_TRUE;
}

static CK_ULONG number_of(CK_SESSION_HANDLE in, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type)
{
    CK_ULONG number = 0;
    CK_ATTRIBUTE attribute = A(type, number);
    assert_rv(p11->C_GetAttributeValue(in, object, &attribute, 1), CKR_OK);
    return number;
}

static CK_RV attribute_rv(CK_SESSION_HANDLE in, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type)
{
    CK_BYTE room[4096];
    CK_ATTRIBUTE attribute = A(type, room);
    CK_RV rv = p11->C_GetAttributeValue(in, object, &attribute, 1);
    if (rv != CKR_OK && rv != CKR_OBJECT_HANDLE_INVALID)
        assert_true(attribute.ulValueLen == CK_UNAVAILABLE_INFORMATION);
    return rv;
}

static void each_attribute_is_told_as_far_as_it_can_be(void **state)
{
    (void)state;
    CK_OBJECT_HANDLE kek = stub_find(session, "kek", CKO_SECRET_KEY);
    CK_BYTE label[8] = "........", id[2] = "..", mechanisms[64];
    CK_ULONG class = 0, bytes = 0;
    CK_ATTRIBUTE template[] = {
        A(CKA_CLASS, class),
        {CKA_VALUE, value, sizeof value},
        {CKA_LABEL, label, 8},
        {CKA_ID, id, 2},
        {CKA_MODULUS, NULL, 7},
        {CKA_LABEL, NULL, 99},
        A(CKA_VALUE_LEN, bytes),
        {CKA_START_DATE, NULL, 0},
        {CKA_VALUE, NULL, 0},
        {CKA_VENDOR_DEFINED | 1, label, 8},
        {CKA_ALLOWED_MECHANISMS, mechanisms, sizeof mechanisms},
    };
    const CK_ULONG lengths[] = {sizeof class, ~0UL, 3, ~0UL, ~0UL, 3, sizeof bytes, 0, ~0UL, ~0UL, sizeof(CK_ULONG)};
    CK_RV rv = p11->C_GetAttributeValue(session, kek, template, 11);
    assert_true(rv == CKR_ATTRIBUTE_SENSITIVE || rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_BUFFER_TOO_SMALL);
    for (size_t i = 0; i < 11; i++)
        if (template[i].ulValueLen != lengths[i])
            fail_msg("attribute %zu has the length %lu", i, template[i].ulValueLen);
    assert_true(class == CKO_SECRET_KEY && bytes == 32);
    assert_memory_equal(label, "kek.....", 8);
    assert_memory_equal(id, "..", 2);
    assert_rv(p11->C_GetAttributeValue(session, kek, NULL, 0), CKR_OK);
}

static void a_key_of_the_service_says_what_it_is(void **state)
{
    (void)state;
    static const struct {
        CK_ATTRIBUTE_TYPE type;
        int secret, private, public; /* -1: it has no such attribute */
    } rows[] = {
        {CKA_TOKEN, 1, 1, 1},
        {CKA_PRIVATE, 0, 0, 0},
        {CKA_MODIFIABLE, 0, 0, 0},
        {CKA_COPYABLE, 0, 0, 0},
        {CKA_DESTROYABLE, 0, 0, 0},
        {CKA_LOCAL, 1, 1, 1},
        {CKA_DERIVE, 0, 0, 0},
        {CKA_SENSITIVE, 1, 1, -1},
        {CKA_EXTRACTABLE, 0, 0, -1},
        {CKA_ALWAYS_SENSITIVE, 1, 1, -1},
        {CKA_NEVER_EXTRACTABLE, 1, 1, -1},
        {CKA_WRAP_WITH_TRUSTED, 0, 0, -1},
        {CKA_TRUSTED, 0, -1, 0},
        {CKA_ENCRYPT, 1, -1, 1},
        {CKA_WRAP, 1, -1, 1},
        {CKA_DECRYPT, 1, 1, -1},
        {CKA_UNWRAP, 1, 1, -1},
        {CKA_SIGN, 0, 0, -1},
        {CKA_SIGN_RECOVER, -1, 0, -1},
        {CKA_VERIFY, 0, -1, 0},
        {CKA_VERIFY_RECOVER, -1, -1, 0},
        {CKA_ALWAYS_AUTHENTICATE, -1, 0, -1},
    };
    CK_OBJECT_HANDLE objects[] = {stub_find(session, "kek", CKO_SECRET_KEY),
                                  stub_find(session, "pair", CKO_PRIVATE_KEY),
                                  stub_find(session, "pair", CKO_PUBLIC_KEY)};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const int wanted[] = {rows[i].secret, rows[i].private, rows[i].public};
        for (size_t j = 0; j < 3; j++) {
            if (wanted[j] < 0)
                assert_rv(attribute_rv(session, objects[j], rows[i].type), CKR_ATTRIBUTE_TYPE_INVALID);
            else if (flag_of(session, objects[j], rows[i].type) != wanted[j])
                fail_msg("attribute 0x%lx of object %zu is not %d", rows[i].type, j, wanted[j]);
        }
    }
    assert_int_equal(number_of(session, objects[0], CKA_KEY_TYPE), CKK_AES);
    assert_int_equal(number_of(session, objects[1], CKA_KEY_TYPE), CKK_RSA);
    assert_int_equal(number_of(session, objects[2], CKA_MODULUS_BITS), 2048);
    assert_rv(attribute_rv(session, objects[1], CKA_MODULUS_BITS), CKR_ATTRIBUTE_TYPE_INVALID);
    assert_rv(attribute_rv(session, objects[0], CKA_SUBJECT), CKR_ATTRIBUTE_TYPE_INVALID);
    assert_rv(attribute_rv(session, objects[2], CKA_SUBJECT), CKR_OK);
    assert_rv(attribute_rv(session, objects[1], CKA_PRIVATE_EXPONENT), CKR_ATTRIBUTE_SENSITIVE);
    assert_rv(attribute_rv(session, objects[2], CKA_PRIVATE_EXPONENT), CKR_ATTRIBUTE_TYPE_INVALID);
    CK_ULONG size = 0;
    assert_rv(p11->C_GetObjectSize(session, objects[0], &size), CKR_OK);
    assert_true(size == CK_UNAVAILABLE_INFORMATION);
    CK_ATTRIBUTE change[] = {LABEL("another")};
    assert_rv(p11->C_SetAttributeValue(session, objects[0], change, 1), CKR_ACTION_PROHIBITED);
}

static void every_object_has_a_unique_id_it_is_found_by(void **state)
{
    (void)state;
    CK_ATTRIBUTE made[] = {A(CKA_CLASS, secret), A(CKA_KEY_TYPE, generic), A(CKA_VALUE, value), LABEL("kek")};
    CK_OBJECT_HANDLE all[16], found[16];
    CK_ULONG count = 0;
    for (int i = 0; i < 2; i++)
        assert_rv(p11->C_CreateObject(session, made, 4, &all[0]), CKR_OK);
    assert_rv(p11->C_FindObjectsInit(session, NULL, 0), CKR_OK);
    assert_rv(p11->C_FindObjects(session, all, 16, &count), CKR_OK);
    assert_rv(p11->C_FindObjectsFinal(session), CKR_OK);
    assert_int_equal(count, 6);
    for (CK_ULONG i = 0; i < count; i++) {
        CK_BYTE id[128];
        CK_ULONG number = 0;
        CK_ATTRIBUTE attribute = A(CKA_UNIQUE_ID, id);
        assert_rv(p11->C_GetAttributeValue(session, all[i], &attribute, 1), CKR_OK);
        assert_rv(p11->C_FindObjectsInit(session, &attribute, 1), CKR_OK);
        assert_rv(p11->C_FindObjects(session, found, 16, &number), CKR_OK);
        assert_rv(p11->C_FindObjectsFinal(session), CKR_OK);
        assert_int_equal(number, 1);
        assert_int_equal(found[0], all[i]);
    }
    CK_ATTRIBUTE chosen[] = {
        A(CKA_CLASS, secret), A(CKA_KEY_TYPE, generic), A(CKA_VALUE, value), {CKA_UNIQUE_ID, (void *)"mine", 4}};
    assert_rv(p11->C_CreateObject(session, chosen, 4, &all[0]), CKR_ATTRIBUTE_READ_ONLY);
}

static void what_is_found_is_handed_out_in_pages(void **state)
{
    (void)state;
    CK_OBJECT_HANDLE found[8], seen[8];
    CK_ULONG number = 9, total = 0;
    assert_rv(p11->C_FindObjects(session, found, 1, &number), CKR_OPERATION_NOT_INITIALIZED);
    assert_rv(p11->C_FindObjectsFinal(session), CKR_OPERATION_NOT_INITIALIZED);
    assert_rv(p11->C_FindObjectsInit(session, NULL, 0), CKR_OK);
    assert_rv(p11->C_FindObjectsInit(session, NULL, 0), CKR_OPERATION_ACTIVE);
    assert_rv(p11->C_FindObjects(session, NULL, 1, &number), CKR_ARGUMENTS_BAD);
    assert_rv(p11->C_FindObjects(session, found, 1, NULL), CKR_ARGUMENTS_BAD);
    do {
        assert_rv(p11->C_FindObjects(session, found, total % 2 + 1, &number), CKR_OK);
        assert_true(total + number <= 8);
        memcpy(seen + total, found, number * sizeof *found);
        total += number;
    } while (number);
    assert_int_equal(total, 4); /* kek, old and two halves of a pair */
    assert_rv(p11->C_FindObjects(session, found, 8, &number), CKR_OK);
    assert_int_equal(number, 0);
    for (CK_ULONG i = 0; i < total; i++)
        for (CK_ULONG j = 0; j < i; j++)
            assert_true(seen[i] != seen[j]);
    assert_rv(p11->C_FindObjectsFinal(session), CKR_OK);
    assert_rv(p11->C_FindObjectsFinal(session), CKR_OPERATION_NOT_INITIALIZED);
}

static void a_search_matches_the_whole_template(void **state)
{
    (void)state;
    const struct {
        CK_ATTRIBUTE template[3];
        CK_ULONG count, found;
    } rows[] = {
        {{A(CKA_CLASS, secret)}, 1, 2},
        {{A(CKA_CLASS, private)}, 1, 1},
        {{A(CKA_CLASS, data)}, 1, 0},
        {{A(CKA_TOKEN, yes)}, 1, 4},
        {{A(CKA_TOKEN, no)}, 1, 0},
        {{A(CKA_PRIVATE, yes)}, 1, 0},
        {{LABEL("kek")}, 1, 1},
        {{LABEL("ke")}, 1, 0},
        {{LABEL("pair")}, 1, 2},
        {{LABEL("kek"), {CKA_ID, (void *)"kek", 3}, A(CKA_KEY_TYPE, aes)}, 3, 1},
        {{LABEL("kek"), {CKA_ID, (void *)"old", 3}}, 2, 0},
        {{LABEL("kek"), A(CKA_KEY_TYPE, rsa)}, 2, 0},
        {{{CKA_ID, NULL, 0}}, 1, 0},
        {{{CKA_LABEL, NULL, 0}}, 1, 0},
        {{{CKA_CLASS, value, 3}}, 1, 0}, /* no class has that size */
        {{{CKA_VALUE, value, 32}}, 1, 0},
        {{A(CKA_ENCRYPT, no), A(CKA_CLASS, secret)}, 2, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CK_ULONG found = stub_count(session, (CK_ATTRIBUTE *)rows[i].template, rows[i].count);
        if (found != rows[i].found)
            fail_msg("search %zu found %lu", i, found);
    }
}

static void session_keys_are_made_of_whole_templates_only(void **state)
{
    (void)state;
    const struct {
        CK_ATTRIBUTE template[5];
        CK_ULONG count;
        CK_RV rv;
    } rows[] = {
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value)}, 3, CKR_OK},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, generic), {CKA_VALUE, value, 20}}, 3, CKR_OK},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value), A(CKA_VALUE_LEN, length)}, 4, CKR_OK},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value), A(CKA_KEY_TYPE, aes)}, 4, CKR_OK},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value), A(CKA_KEY_TYPE, generic)},
         4,
         CKR_TEMPLATE_INCONSISTENT},
        {{A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value)}, 2, CKR_TEMPLATE_INCOMPLETE},
        {{A(CKA_CLASS, secret), A(CKA_VALUE, value)}, 2, CKR_TEMPLATE_INCOMPLETE},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes)}, 2, CKR_TEMPLATE_INCOMPLETE},
        {{A(CKA_CLASS, data), A(CKA_VALUE, value)}, 2, CKR_TEMPLATE_INCONSISTENT},
        {{A(CKA_CLASS, public), A(CKA_KEY_TYPE, rsa)}, 2, CKR_TEMPLATE_INCONSISTENT},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, des), A(CKA_VALUE, value)}, 3, CKR_TEMPLATE_INCONSISTENT},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value), A(CKA_TOKEN, yes)},
         4,
         CKR_TEMPLATE_INCONSISTENT},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), {CKA_VALUE, value, 20}}, 3, CKR_KEY_SIZE_RANGE},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, generic), {CKA_VALUE, NULL, 0}}, 3, CKR_KEY_SIZE_RANGE},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value), A(CKA_VALUE_LEN, odd_length)},
         4,
         CKR_TEMPLATE_INCONSISTENT},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value), {CKA_SENSITIVE, value, 2}},
         4,
         CKR_ATTRIBUTE_VALUE_INVALID},
        {{A(CKA_CLASS, secret), {CKA_KEY_TYPE, value, 1}, A(CKA_VALUE, value)}, 3, CKR_ATTRIBUTE_VALUE_INVALID},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value), A(CKA_MODULUS_BITS, bits)},
         4,
         CKR_ATTRIBUTE_TYPE_INVALID},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value), A(CKA_LOCAL, yes)},
         4,
         CKR_ATTRIBUTE_READ_ONLY},
        {{A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value), A(CKA_NEVER_EXTRACTABLE, yes)},
         4,
         CKR_ATTRIBUTE_READ_ONLY},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CK_OBJECT_HANDLE made = CK_INVALID_HANDLE;
        CK_RV rv = p11->C_CreateObject(session, (CK_ATTRIBUTE *)rows[i].template, rows[i].count, &made);
        if (rv != rows[i].rv)
            fail_msg("template %zu: 0x%lx", i, rv);
        assert_true((made != CK_INVALID_HANDLE) == (rv == CKR_OK));
    }
    assert_int_equal(stub_count(session, &(CK_ATTRIBUTE)A(CKA_TOKEN, no), 1), 4);
}

static void a_made_key_says_how_it_was_made(void **state)
{
    (void)state;
    CK_ATTRIBUTE template[] = {A(CKA_VALUE_LEN, length), A(CKA_SENSITIVE, no), A(CKA_EXTRACTABLE, yes),
                               A(CKA_PRIVATE, yes), LABEL("made")};
    CK_OBJECT_HANDLE key;
    assert_rv(p11->C_GenerateKey(session, &aes_gen, template, 5, &key), CKR_OK);
    assert_int_equal(number_of(session, key, CKA_KEY_TYPE), CKK_AES);
    assert_int_equal(number_of(session, key, CKA_KEY_GEN_MECHANISM), CKM_AES_KEY_GEN);
    assert_true(flag_of(session, key, CKA_LOCAL) && flag_of(session, key, CKA_PRIVATE));
    assert_false(flag_of(session, key, CKA_ALWAYS_SENSITIVE) || flag_of(session, key, CKA_NEVER_EXTRACTABLE));
    assert_rv(attribute_rv(session, key, CKA_VALUE), CKR_OK);
    template[1].pValue = &yes;
    template[2].pValue = &no;
    assert_rv(p11->C_GenerateKey(session, &generic_gen, template, 5, &key), CKR_OK);
    assert_int_equal(number_of(session, key, CKA_KEY_TYPE), CKK_GENERIC_SECRET);
    assert_true(flag_of(session, key, CKA_ALWAYS_SENSITIVE) && flag_of(session, key, CKA_NEVER_EXTRACTABLE));
    assert_rv(attribute_rv(session, key, CKA_VALUE), CKR_ATTRIBUTE_SENSITIVE);
    /* One that was brought here has been elsewhere. */
    CK_ATTRIBUTE brought[] = {A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value), A(CKA_SENSITIVE, yes)};
    assert_rv(p11->C_CreateObject(session, brought, 4, &key), CKR_OK);
    assert_true(number_of(session, key, CKA_KEY_GEN_MECHANISM) == CK_UNAVAILABLE_INFORMATION);
    assert_false(flag_of(session, key, CKA_LOCAL) || flag_of(session, key, CKA_ALWAYS_SENSITIVE) ||
                 flag_of(session, key, CKA_NEVER_EXTRACTABLE) || flag_of(session, key, CKA_PRIVATE));
}

static void keys_are_generated_as_asked_or_not_at_all(void **state)
{
    (void)state;
    CK_SESSION_HANDLE read_only;
    CK_OBJECT_HANDLE key;
    CK_ULONG huge = ~0UL, none = 0;
    assert_rv(p11->C_OpenSession(STUB_WRITABLE_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &read_only), CKR_OK);
    const struct {
        CK_SESSION_HANDLE in;
        CK_MECHANISM mechanism;
        CK_ATTRIBUTE template[4];
        CK_ULONG count;
        CK_RV rv;
    } rows[] = {
        /* session keys */
        {session, aes_gen, {A(CKA_VALUE_LEN, length)}, 1, CKR_OK},
        {read_only, aes_gen, {A(CKA_VALUE_LEN, length)}, 1, CKR_OK},
        {session, aes_gen, {A(CKA_CLASS, secret)}, 1, CKR_TEMPLATE_INCOMPLETE},
        {session, aes_gen, {A(CKA_VALUE_LEN, none)}, 1, CKR_TEMPLATE_INCOMPLETE},
        {session, aes_gen, {A(CKA_VALUE_LEN, odd_length)}, 1, CKR_KEY_SIZE_RANGE},
        {session, generic_gen, {A(CKA_VALUE_LEN, odd_length)}, 1, CKR_OK},
        {session, generic_gen, {A(CKA_VALUE_LEN, huge)}, 1, CKR_KEY_SIZE_RANGE},
        {session, generic_gen, {A(CKA_VALUE_LEN, length), A(CKA_VALUE, value)}, 2, CKR_TEMPLATE_INCONSISTENT},
        {session, generic_gen, {A(CKA_VALUE_LEN, length), A(CKA_KEY_TYPE, aes)}, 2, CKR_TEMPLATE_INCONSISTENT},
        {session, generic_gen, {A(CKA_VALUE_LEN, length), A(CKA_CLASS, public)}, 2, CKR_TEMPLATE_INCONSISTENT},
        {session, aes_gen, {A(CKA_VALUE_LEN, length), A(CKA_LOCAL, yes)}, 2, CKR_ATTRIBUTE_READ_ONLY},
        {session, {CKM_AES_KEY_GEN, value, 1}, {A(CKA_VALUE_LEN, length)}, 1, CKR_MECHANISM_PARAM_INVALID},
        {session, {CKM_DES3_KEY_GEN, NULL, 0}, {A(CKA_VALUE_LEN, length)}, 1, CKR_MECHANISM_INVALID},
        /* keys of the service */
        {session, aes_gen, {A(CKA_TOKEN, yes), A(CKA_VALUE_LEN, length)}, 2, CKR_TOKEN_WRITE_PROTECTED},
        {read_only, aes_gen, {A(CKA_TOKEN, yes), A(CKA_VALUE_LEN, length)}, 2, CKR_SESSION_READ_ONLY},
        {writable, aes_gen, {A(CKA_TOKEN, yes), A(CKA_VALUE_LEN, length), LABEL("new")}, 3, CKR_OK},
        {writable, aes_gen, {A(CKA_TOKEN, yes), A(CKA_VALUE_LEN, length), LABEL("new")}, 3, CKR_TEMPLATE_INCONSISTENT},
        {writable, aes_gen, {A(CKA_TOKEN, yes), A(CKA_SENSITIVE, no)}, 2, CKR_TEMPLATE_INCONSISTENT},
        {writable, aes_gen, {A(CKA_TOKEN, yes), A(CKA_EXTRACTABLE, yes)}, 2, CKR_TEMPLATE_INCONSISTENT},
        {writable, aes_gen, {A(CKA_TOKEN, yes), A(CKA_SIGN, yes)}, 2, CKR_TEMPLATE_INCONSISTENT},
        {writable, aes_gen, {A(CKA_TOKEN, yes), A(CKA_VALUE, value)}, 2, CKR_TEMPLATE_INCONSISTENT},
        {writable, aes_gen, {A(CKA_TOKEN, yes), {CKA_ID, value, 4}}, 2, CKR_TEMPLATE_INCONSISTENT},
        {writable, aes_gen, {A(CKA_TOKEN, yes), A(CKA_ALWAYS_SENSITIVE, yes)}, 2, CKR_ATTRIBUTE_READ_ONLY},
        {writable, aes_gen, {A(CKA_TOKEN, yes), LABEL("a\nb")}, 2, CKR_ATTRIBUTE_VALUE_INVALID},
        {writable, aes_gen, {A(CKA_TOKEN, yes), A(CKA_VALUE_LEN, huge)}, 2, CKR_KEY_SIZE_RANGE},
        {writable, generic_gen, {A(CKA_TOKEN, yes), A(CKA_VALUE_LEN, length)}, 2, CKR_TEMPLATE_INCONSISTENT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CK_MECHANISM mechanism = rows[i].mechanism;
        CK_RV rv = p11->C_GenerateKey(rows[i].in, &mechanism, (CK_ATTRIBUTE *)rows[i].template, rows[i].count, &key);
        if (rv != rows[i].rv)
            fail_msg("row %zu: 0x%lx", i, rv);
    }
    assert_int_equal(stub.asked[BACKEND_CREATE], 2);
    assert_true(stub_find(writable, "new", CKO_SECRET_KEY) != CK_INVALID_HANDLE);
}

static void pairs_are_generated_in_the_service_only(void **state)
{
    (void)state;
    CK_BYTE f4[] = {0, 1, 0, 1}, three[] = {3};
    const struct {
        CK_SESSION_HANDLE in;
        CK_ATTRIBUTE public[4];
        CK_ULONG public_count;
        CK_ATTRIBUTE private[4];
        CK_ULONG private_count;
        CK_RV rv;
    } rows[] = {
        {writable, {A(CKA_MODULUS_BITS, bits), A(CKA_TOKEN, yes)}, 2, {A(CKA_TOKEN, no)}, 1, CKR_TEMPLATE_INCONSISTENT},
        {writable, {A(CKA_MODULUS_BITS, bits)}, 1, {A(CKA_TOKEN, yes)}, 1, CKR_TEMPLATE_INCONSISTENT},
        {writable, {A(CKA_MODULUS_BITS, bits)}, 1, {A(CKA_DECRYPT, yes)}, 1, CKR_TEMPLATE_INCONSISTENT},
        {writable, {A(CKA_TOKEN, yes)}, 1, {A(CKA_TOKEN, yes)}, 1, CKR_TEMPLATE_INCOMPLETE},
        {session, {A(CKA_MODULUS_BITS, bits), A(CKA_TOKEN, yes)}, 2, {A(CKA_TOKEN, yes)}, 1, CKR_TOKEN_WRITE_PROTECTED},
        {writable,
         {A(CKA_MODULUS_BITS, bits), A(CKA_TOKEN, yes), {CKA_PUBLIC_EXPONENT, three, 1}},
         3,
         {A(CKA_TOKEN, yes)},
         1,
         CKR_ATTRIBUTE_VALUE_INVALID},
        {writable,
         {A(CKA_MODULUS_BITS, bits), A(CKA_TOKEN, yes), A(CKA_VERIFY, yes)},
         3,
         {A(CKA_TOKEN, yes)},
         1,
         CKR_TEMPLATE_INCONSISTENT},
        {writable,
         {A(CKA_MODULUS_BITS, bits), A(CKA_TOKEN, yes), A(CKA_CLASS, private)},
         3,
         {A(CKA_TOKEN, yes)},
         1,
         CKR_TEMPLATE_INCONSISTENT},
        {writable,
         {A(CKA_MODULUS_BITS, bits), A(CKA_TOKEN, yes), {CKA_PUBLIC_EXPONENT, f4, 4}},
         3,
         {A(CKA_TOKEN, yes), A(CKA_PRIVATE, yes), A(CKA_SENSITIVE, yes), LABEL("new")},
         4,
         CKR_OK},
    };
    CK_OBJECT_HANDLE one = 0, other = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CK_RV rv = p11->C_GenerateKeyPair(rows[i].in, &pair_gen, (CK_ATTRIBUTE *)rows[i].public, rows[i].public_count,
                                          (CK_ATTRIBUTE *)rows[i].private, rows[i].private_count, &one, &other);
        if (rv != rows[i].rv)
            fail_msg("row %zu: 0x%lx", i, rv);
    }
    assert_int_equal(stub.asked[BACKEND_CREATE], 1);
    assert_int_equal(one, stub_find(writable, "new", CKO_PUBLIC_KEY));
    assert_int_equal(other, stub_find(writable, "new", CKO_PRIVATE_KEY));
    CK_MECHANISM with_parameter = {CKM_RSA_PKCS_KEY_PAIR_GEN, value, 4};
    assert_rv(p11->C_GenerateKeyPair(writable, &with_parameter, (CK_ATTRIBUTE *)rows[8].public, 3,
                                     (CK_ATTRIBUTE *)rows[8].private, 4, &one, &other),
              CKR_MECHANISM_PARAM_INVALID);
}

/* A program that drops the public halves it knows must not take the private key along. */
static void a_pair_is_destroyed_by_its_private_half(void **state)
{
    (void)state;
    CK_SESSION_HANDLE read_only;
    CK_OBJECT_HANDLE half = stub_find(writable, "pair", CKO_PUBLIC_KEY),
                     whole = stub_find(writable, "pair", CKO_PRIVATE_KEY);
    assert_rv(p11->C_OpenSession(STUB_WRITABLE_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &read_only), CKR_OK);
    assert_false(flag_of(writable, half, CKA_DESTROYABLE));
    assert_true(flag_of(writable, whole, CKA_DESTROYABLE));
    assert_rv(p11->C_DestroyObject(writable, half), CKR_ACTION_PROHIBITED);
    assert_rv(p11->C_DestroyObject(read_only, whole), CKR_SESSION_READ_ONLY);
    assert_rv(p11->C_DestroyObject(session, stub_find(session, "pair", CKO_PRIVATE_KEY)), CKR_ACTION_PROHIBITED);
    assert_int_equal(stub.asked[BACKEND_DELETE], 0);
    assert_rv(p11->C_DestroyObject(writable, whole), CKR_OK);
    assert_int_equal(stub.asked[BACKEND_DELETE], 1);
    assert_rv(p11->C_DestroyObject(writable, whole), CKR_OBJECT_HANDLE_INVALID);
    assert_rv(attribute_rv(writable, stub_find(writable, "kek", CKO_SECRET_KEY), CKA_LABEL), CKR_OK);
    assert_int_equal(stub_find(writable, "pair", CKO_PUBLIC_KEY), CK_INVALID_HANDLE);
}

static void session_objects_are_the_applications_and_go_with_their_session(void **state)
{
    (void)state;
    CK_SESSION_HANDLE other;
    CK_OBJECT_HANDLE key, own;
    CK_ATTRIBUTE template[] = {A(CKA_CLASS, secret), A(CKA_KEY_TYPE, aes), A(CKA_VALUE, value), LABEL("mine")};
    assert_rv(p11->C_OpenSession(STUB_SLOT, CKF_SERIAL_SESSION, NULL, NULL, &other), CKR_OK);
    assert_rv(p11->C_CreateObject(other, template, 4, &key), CKR_OK);
    assert_rv(p11->C_CreateObject(session, template, 3, &own), CKR_OK);
    assert_int_equal(stub_find(session, "mine", CKO_SECRET_KEY), key);
    assert_int_equal(stub_find(writable, "mine", CKO_SECRET_KEY), CK_INVALID_HANDLE); /* another token */
    assert_rv(attribute_rv(writable, key, CKA_LABEL), CKR_OBJECT_HANDLE_INVALID);
    assert_rv(p11->C_CloseSession(other), CKR_OK);
    assert_rv(attribute_rv(session, key, CKA_LABEL), CKR_OBJECT_HANDLE_INVALID);
    assert_rv(attribute_rv(session, own, CKA_LABEL), CKR_OK);
    assert_rv(p11->C_DestroyObject(session, own), CKR_OK);
    assert_rv(p11->C_DestroyObject(session, own), CKR_OBJECT_HANDLE_INVALID);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, stub_start, stub_stop)
    const struct CMUnitTest tests[] = {
        T(each_attribute_is_told_as_far_as_it_can_be),
        T(a_key_of_the_service_says_what_it_is),
        T(every_object_has_a_unique_id_it_is_found_by),
        T(what_is_found_is_handed_out_in_pages),
        T(a_search_matches_the_whole_template),
        T(session_keys_are_made_of_whole_templates_only),
        T(a_made_key_says_how_it_was_made),
        T(keys_are_generated_as_asked_or_not_at_all),
        T(pairs_are_generated_in_the_service_only),
        T(a_pair_is_destroyed_by_its_private_half),
        T(session_objects_are_the_applications_and_go_with_their_session),
    };
    return cmocka_run_group_tests(tests, stub_set_up, stub_tear_down);
}
