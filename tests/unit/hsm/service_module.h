/*
 * A PKCS#11 module as our bridge to key services is one, with SoftHSM for a service: it answers what it is told. A test
 * reaches its controls with dlsym(dlopen(SERVICE_MODULE), "service_control").
 */
#ifndef TEST_SERVICE_MODULE_H
#define TEST_SERVICE_MODULE_H

#include <stdatomic.h>
#include <stdbool.h>

#include <p11-kit/pkcs11.h>

struct service_control {
    _Atomic CK_RV rv;         /* what encryption, decryption, rewrap and search return instead of working */
    _Atomic bool only_search; /* that is for searches alone */
    char code[64];            /* the service's own name for it; "": it did not answer */
    _Atomic int blob_size;    /* how long blobs are made; 0: as they come */
    _Atomic bool plaintext_leaves;
    _Atomic bool counts_requests; /* a request's id is its number, not 17 */
    _Atomic int requests;         /* encryptions, decryptions, rewraps, many at once as one */
    _Atomic int many;             /* calls of crypt_many */
    _Atomic bool one_by_one;      /* it says that it is asked about each piece */
    _Atomic bool damages;         /* rewrap makes blobs that do not open */
    _Atomic int encrypts, decrypts, dry_runs, rewraps, initializes;
};

/* Which version of the vendor interface it says it has: 1.0, or 1.1 (as it does at first) with crypt_many. */
void service_set_minor(unsigned char minor);

#endif
