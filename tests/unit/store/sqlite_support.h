/* What the tests of the SQLite engine share: a scratch directory, a store in it, raw SQL beside it. */
#ifndef TESTS_SQLITE_SUPPORT_H
#define TESTS_SQLITE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include <sqlite3.h>

#include "store/store.h"

enum { SUPPORT_PATH_MAX = 512 };
#define SUPPORT_DEADLINE INT64_C(20000000)

struct support {
    char directory[SUPPORT_PATH_MAX];
    char path[SUPPORT_PATH_MAX + 16]; /* directory/keys.db */
    char url[SUPPORT_PATH_MAX + 32];
};

extern const struct store_actor support_actor;

/* cmocka fixtures: an empty scratch directory, open to every user. */
int support_setup(void **state);
int support_teardown(void **state);

void support_expect(envelope_status got, envelope_status wanted, const char *words, const char *expression, int line);
/* The status, and words that the error must contain (NULL: any). */
#define EXPECT(call, wanted, words) support_expect((call), (wanted), (words), #call, __LINE__)
#define OK(call) EXPECT(call, ENVELOPE_OK, NULL)

/* A store with one key "k" (limit 1000), rotated so many times. */
store *support_create(const struct support *s, int rotations);
store *support_open(const struct support *s);
/* Without cmocka, for children: 0 or a line. */
int support_rotate(store *opened, const char *name);
int support_create_key(store *opened, const char *name);

/* Through SQLite itself, as another program would. Returns SQLite's code. */
int support_sql(const struct support *s, const char *sql);
int64_t support_number(const struct support *s, const char *sql);

void support_path(const struct support *s, const char *ending, char path[SUPPORT_PATH_MAX + 32]);
void support_write_file(const char *path, const void *bytes, size_t length);
/* Does any byte range of the file equal these bytes? A file that is not there has none. */
bool support_file_contains(const char *path, const void *bytes, size_t length);

/*
 * Run work in a child, as the user nobody if we are root (who may do everything); it must return 0.
 * No cmocka assertion inside.
 */
void support_as_nobody(int (*work)(const struct support *s, void *argument), const struct support *s, void *argument);
void support_in_child(int (*work)(const struct support *s, void *argument), const struct support *s, void *argument);

/* In a child: fail with the line if the call does not return the wanted status, or lacks the words. */
#define CHILD(call, wanted, words)                                                                                     \
    do {                                                                                                               \
        envelope_status child_status = (call);                                                                         \
        if (!support_matches(child_status, (wanted), (words)))                                                         \
            return __LINE__;                                                                                           \
    } while (0)
bool support_matches(envelope_status got, envelope_status wanted, const char *words);

#endif
