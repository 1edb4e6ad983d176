/* PKCS#11 URIs: what is accepted, what is refused, and that nothing is silently left out. */
#include "hsm_fixture.h"

#include <stdlib.h>

#include "hsm/uri.h"

struct row {
    const char *uri;
    bool accepted;
    const char *said; /* of a refusal */
};

static const struct row rows[] = {
    {"pkcs11:token=rig;object=master;type=secret-key", true, NULL},
    {"pkcs11:token=rig;object=master", true, NULL},
    {"pkcs11:token=rig;id=%01%02;type=private", true, NULL},
    {"pkcs11:object=m;token=rig;type=public", true, NULL},
    {"pkcs11:serial=45daebe9a219f827;object=m", true, NULL},
    {"pkcs11:token=rig;manufacturer=SoftHSM%20project;model=SoftHSM%20v2;object=m", true, NULL},
    {"PKCS11:token=rig;object=m", true, NULL},
    {"pkcs11:token=rig;object=a&b;type=secret-key", true, NULL}, /* & is a plain character in the path */
    {"pkcs11:token=rig;object=m?module-path=/usr/lib/x.so", true, NULL},
    {"pkcs11:token=rig;object=m?pin-source=file:/run/pin", true, NULL},
    {"pkcs11:token=rig;object=m?pin-source=|get-pin%20-x&module-path=/x.so", true, NULL},
    {"pkcs11:token=rig;object=m?pin-value=1234", true, NULL},
    {"pkcs11:token=rig;object=m?pin-value=%31%3F", true, NULL},
    {"pkcs11:token=abcdefghijabcdefghijabcdefghij12;object=m", true, NULL}, /* 32 bytes */
    {"pkcs11:token=abcdefghijabcdefghijabcdefghij123;object=m", false, "32 bytes"},
    {"", false, "pkcs11:"},
    {"http://example.org/", false, "pkcs11:"},
    {"pkcs11", false, "pkcs11:"},
    {"pkcs11:", false, "names no token"},
    {"pkcs11:object=m", false, "names no token"},
    {"pkcs11:model=SoftHSM%20v2;object=m", false, "names no token"},
    {"pkcs11:token=rig", false, "names no object"},
    {"pkcs11:token=rig;type=secret-key", false, "names no object"},
    {"pkcs11:token=rig;object=m;type=cert", false, "is no key"},
    {"pkcs11:token=rig;object=m;type=data", false, "is no key"},
    {"pkcs11:token=rig;object=m;type=secret", false, "not known"},
    {"pkcs11:token=rig;object=m;colour=red", false, "not known"},
    {"pkcs11:token=rig;obejct=m;id=%01", false, "not known"},
    {"pkcs11:token=rig;object=m;object=n", false, "\"object\" twice"},
    {"pkcs11:token=rig;object=m;token=rig", false, "\"token\" twice"},
    {"pkcs11:token=rig;object=m?pin-value=1&pin-value=2", false, "\"pin-value\" twice"},
    {"pkcs11:token=rig;object=%zz", false, "RFC 7512"},
    {"pkcs11:token=rig;object=m?pin-value=1%00234", false, "NUL"},
    {"pkcs11:token=rig;object=m?pin-value=12%3", false, "percent-encoded"},
    {"pkcs11:token=rig;object=m?pin-value=12%zz", false, "percent-encoded"},
    {"pkcs11:token=rig;object=m?pin-value=1&pin-source=file:/x", false, "both"},
    {"pkcs11:token=rig;object=m?module-path=softhsm2.so", false, "absolute"},
    {"pkcs11:token=rig;object=m?module-name=softhsm2", false, "module-path"},
};

static void every_attribute_is_understood_or_the_uri_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        envelope_status status = hsm_check_uri(rows[i].uri);
        if (status != (rows[i].accepted ? ENVELOPE_OK : ENVELOPE_E_KEK_URI))
            fail_msg("\"%s\": %s: %s", rows[i].uri, envelope_status_name(status), error_text());
        if (!rows[i].accepted && !strstr(error_text(), rows[i].said))
            fail_msg("\"%s\" is refused without \"%s\": %s", rows[i].uri, rows[i].said, error_text());
    }
    assert_status(hsm_check_uri(NULL), ENVELOPE_E_KEK_URI);
}

static void public_uri_shows_no_way_to_a_pin(void **state)
{
    static const char *const pairs[][2] = {
        {"pkcs11:token=rig;object=m", "pkcs11:token=rig;object=m"},
        {"pkcs11:token=rig;object=m?pin-value=1234", "pkcs11:token=rig;object=m"},
        {"pkcs11:token=rig;object=m?pin-source=file:/run/pin", "pkcs11:token=rig;object=m"},
        {"pkcs11:token=rig;object=m?pin-value=12&module-path=/m.so", "pkcs11:token=rig;object=m?module-path=/m.so"},
        {"pkcs11:token=rig;object=m?module-path=/m.so&pin-source=|x%20y",
         "pkcs11:token=rig;object=m?module-path=/m.so"},
        {"pkcs11:;token=rig;;object=a&b", "pkcs11:token=rig;object=a&b"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char *shown = hsm_public_uri(pairs[i][0]);
        assert_non_null(shown);
        assert_string_equal(shown, pairs[i][1]);
        free(shown);
    }
    assert_null(hsm_public_uri("pkcs11:object=m"));
}

static void pin_value_is_decoded_into_secret_memory_and_kept_from_the_parser(void **state)
{
    struct hsm_uri *uri = NULL;
    (void)state;
    assert_status(hsm_uri_parse_kek("pkcs11:token=rig;object=m?pin-value=a%3Ab%25", &uri), ENVELOPE_OK);
    assert_string_equal(uri->pin_value, "a:b%");
    assert_null(p11_kit_uri_get_pin_value(uri->parsed));
    hsm_uri_free(uri);
}

static void refusals_do_not_repeat_the_pin(void **state)
{
    (void)state;
    assert_status(hsm_check_uri("pkcs11:token=rig;object=m?pin-value=hunter2&x=y&pin-source=file:/x"),
                  ENVELOPE_E_KEK_URI);
    assert_null(strstr(error_text(), "hunter2"));
    assert_status(hsm_check_uri("pkcs11:token=rig?pin-value=hunter2%"), ENVELOPE_E_KEK_URI);
    assert_null(strstr(error_text(), "hunter2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_attribute_is_understood_or_the_uri_is_refused),
        cmocka_unit_test(public_uri_shows_no_way_to_a_pin),
        cmocka_unit_test(pin_value_is_decoded_into_secret_memory_and_kept_from_the_parser),
        cmocka_unit_test(refusals_do_not_repeat_the_pin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
