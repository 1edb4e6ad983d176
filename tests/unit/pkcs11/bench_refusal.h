/* A service's answer and what is to be made of it: a row of the tables in this folder's tests. */
#ifndef TESTS_BENCH_REFUSAL_H
#define TESTS_BENCH_REFUSAL_H

#include "backends.h"

struct bench_refusal {
    long status;
    const char *body;
    enum backend_step step;
    CK_RV rv;
    const char *words; /* in the error's text */
};

#endif
