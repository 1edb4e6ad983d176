/* What a program would do that has PKCS#11 and nothing else: unwrap the blobs of a store and wrap them again. */
#ifndef BENCH_BARE_TOKEN_H
#define BENCH_BARE_TOKEN_H

#include <stdbool.h>
#include <stddef.h>

#include <p11-kit/pkcs11.h>

#include "softhsm_rig.h"
#include "store/store.h"

struct bare_token {
    const struct softhsm_rig *rig;
    const char *config; /* envelope.cnf of the store */
    bool proved;        /* what was made is unwrapped again, and compared */

    CK_FUNCTION_LIST *functions;
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE from, to;
    uint32_t from_id, to_id;
    uint8_t store_id[STORE_ID_SIZE];
    struct store_version *rows;
    size_t count;
};

/* Log in, find the KEKs, read the blobs. All exit with the reason if they fail; nothing is given back. */
void bare_token_open(struct bare_token *token, const char *from, const char *to);
void bare_token_move(struct bare_token *token);

#endif
