/* What the tests of this folder share: a rig, an instance on it, keys made by plain PKCS#11 calls. */
#ifndef TEST_HSM_FIXTURE_H
#define TEST_HSM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include <p11-kit/pkcs11.h>

#include "base/error.h"
#include "hsm/hsm.h"
#include "softhsm_rig.h"

struct fixture {
    struct softhsm_rig rig;
    struct settings settings;
    hsm *hsm;
    CK_FUNCTION_LIST *p11; /* SoftHSM itself */
};

extern struct fixture fixture;

/* Group setup and teardown: the rig. Test setup and teardown: settings as the rig gives them, a new instance. */
int fixture_group_setup(void **state);
int fixture_group_teardown(void **state);
int fixture_setup(void **state);
int fixture_teardown(void **state);
/* A new instance with fixture.settings as they are now. */
void fixture_renew(void);

#define assert_status(expression, expected) assert_status_at(expression, expected, #expression, __FILE__, __LINE__)
void assert_status_at(envelope_status status, envelope_status expected, const char *what, const char *file, int line);
/* The thread's error text has this in it. */
void assert_said(const char *part);

static const uint8_t AAD[] = "envelope wrap v1, of a key in a store";
/* generate, wrap, unwrap; the same DEK comes back. The blob stays in place if blob is not NULL (the caller frees). */
void round_trip(const char *uri, uint8_t **blob, size_t *length);
envelope_status unwrap(const char *uri, const uint8_t *blob, size_t length);

struct key_wish {
    const char *label;
    unsigned char id; /* 0: none */
    bool extractable, not_sensitive;
    bool no_encrypt, no_wrap;
    unsigned bits; /* 0: 256 */
};
void make_aes(const struct key_wish *wish);
void make_rsa(const char *label, unsigned bits);
void destroy_keys(const char *label);
/* A read-write session, logged in, for other plain calls. */
CK_SESSION_HANDLE raw_session(void);
CK_SLOT_ID raw_slot(void);

#endif
