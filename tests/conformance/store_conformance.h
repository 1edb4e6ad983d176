/*
 * What every engine of the store must do, whatever it is made of. An engine's
 * test program names a factory of empty places and runs all groups.
 */
#ifndef TESTS_STORE_CONFORMANCE_H
#define TESTS_STORE_CONFORMANCE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "store/store.h"

struct store_factory {
    /* A URL at which there is no store yet; to be freed. */
    char *(*make)(void);
    /* The store at the URL is not needed any more. */
    void (*drop)(const char *url);
};

/* Runs everything; the number of failed tests. */
int store_conformance(const struct store_factory *factory);

/* ---- for the groups ---- */

enum { CONFORMANCE_PROCESSES = 8 };
#define CONFORMANCE_DEADLINE INT64_C(20000000)
#define CONFORMANCE_NOW INT64_C(1700000000000000)

struct conformance {
    char *url;
    store *store;
    uint32_t kek;
};

extern const struct store_actor conformance_actor;

/* cmocka fixtures: a fresh store with one KEK. */
int conformance_setup(void **state);
int conformance_teardown(void **state);

/* Says what the store said when a status is not the expected one. */
void conformance_expect(envelope_status got, envelope_status wanted, const char *expression, int line);
#define EXPECT(call, wanted) conformance_expect((call), (wanted), #call, __LINE__)
#define OK(call) EXPECT(call, ENVELOPE_OK)

/* A version ready for store_key_create or store_key_rotate; its blob says which DEK id it is of. */
struct store_new_version conformance_version(const struct conformance *c);
void conformance_create(const struct conformance *c, const char *name, uint64_t limit);
/* Rotate from the current primary. Returns the new DEK id. */
uint32_t conformance_rotate(const struct conformance *c, const char *name);
struct store_version conformance_primary(const struct conformance *c, const char *name);
uint64_t conformance_counter(const struct conformance *c);
size_t conformance_history_rows(const struct conformance *c);

/*
 * Run work(index, c, argument) in that many forked children at once; each must return 0. Children inherit c->store.
 * No cmocka assertion inside: a child that fails returns another value.
 */
void conformance_processes(int count, int (*work)(int index, const struct conformance *c, void *argument),
                           const struct conformance *c, void *argument);
/* Zeroed memory that children share with us. */
void *conformance_shared(size_t size);
void conformance_shared_free(void *memory, size_t size);

int conformance_store_group(void);
int conformance_ids_group(void);
int conformance_keys_group(void);
int conformance_states_group(void);
int conformance_rewrap_group(void);
int conformance_moves_group(void);
int conformance_history_group(void);
int conformance_processes_group(void);

#endif
