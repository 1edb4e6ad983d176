/*
 * A key service inside the test: a backend that asks nobody, so that what a caller of the C_ functions sees is the
 * module's own doing. kms.cnf has two of it, "one" in slot 1 (nothing may be made) and "two" in slot 2 (everything
 * may).
 */
#ifndef TESTS_STUB_SERVICE_H
#define TESTS_STUB_SERVICE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "backend.h"
#include "p11_3.h"

#include <envelope/pkcs11-kms.h>

enum { STUB_SLOT = 1, STUB_WRITABLE_SLOT = 2, STUB_BLOB_EXTRA = 8, STUB_KEYS_MAX = 64 };
#define STUB_PIN "open sesame"
#define STUB_USER "ali baba" /* may be named in C_LoginUser */

struct stub_service {
    atomic_uint asked[BACKEND_OP_COUNT]; /* how often, by operation */
    atomic_bool hold;                    /* ENCRYPT and a login by PIN do not come back before this is false again */
    atomic_uint held;                    /* how many are waiting in it */
    atomic_bool slow_login;              /* AUTHENTICATE takes a moment, so that others come in between */
};
extern struct stub_service stub;

/* The functions of 2.40; a configuration in a directory of its own. C_Initialize has not been called. */
extern CK_FUNCTION_LIST *p11;
int stub_set_up(void **state);
int stub_tear_down(void **state);

/* For tests that begin with the module running: C_Initialize, a read-write session of slot 1 and one of slot 2. */
extern CK_SESSION_HANDLE session, writable;
int stub_start(void **state);
int stub_stop(void **state);

/* The one object of this label and class; CK_INVALID_HANDLE if there is none, or more. */
CK_OBJECT_HANDLE stub_find(CK_SESSION_HANDLE in, const char *label, CK_OBJECT_CLASS class);
CK_ULONG stub_count(CK_SESSION_HANDLE in, CK_ATTRIBUTE *template, CK_ULONG count);

/* What p11-kit's header declares over a struct of its own, and 2.40's does not at all. */
CK_RV stub_get_interface(const char *name, CK_VERSION *version, struct p11_interface **interface, CK_FLAGS flags);
CK_RV stub_get_interface_list(struct p11_interface *interfaces, CK_ULONG *count);

#define assert_rv(call, rv)                                                                                            \
    do {                                                                                                               \
        CK_RV assert_got = (call);                                                                                     \
        if (assert_got != (rv))                                                                                        \
            fail_msg("%s: 0x%lx instead of 0x%lx", #call, assert_got, (CK_RV)(rv));                                    \
    } while (0)

#endif
