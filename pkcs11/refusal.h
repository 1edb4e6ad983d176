/*
 * What a service's refusals mean. A backend has a table of them by the service's error names; what is done with a row,
 * and the sentence that is raised, are the same for all.
 */
#ifndef PKCS11_REFUSAL_H
#define PKCS11_REFUSAL_H

#include <stddef.h>

#include "backend.h"

struct refusal {
    const char *codes; /* the service's name of it, or several, with blanks between them */
    enum backend_step step;
    CK_RV rv;
    envelope_status status;
    const char *advice; /* "the key is disabled" */
};

/* Who refused what. */
struct refusal_place {
    const char *label;   /* the token's */
    const char *service; /* "Azure" */
    const char *doing;   /* "unwrapkey" */
    const char *key;     /* "" where it is about none */
    long status;         /* of HTTP */
};

/* NULL if there is none, and for a code of NULL. */
const struct refusal *refusal_find(const struct refusal *table, size_t count, const char *code);
/* Where no name explains it. */
extern const struct refusal refusal_unknown;
const struct refusal *refusal_by_status(long status);
/* Raise it, with the service's words as they were noted (backend_note), set rv, return what is to be done. */
enum backend_step refusal_raise(struct backend_call *call, const struct refusal *refusal,
                                const struct refusal_place *place);
/* The end of a step: what was refused on the way (a key looked for and not there) is no error of a call that succeeded.
 */
enum backend_step refusal_forget(struct backend_call *call, enum backend_step step);

#endif
