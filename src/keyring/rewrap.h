/* A move to another KEK under way: of one key, or of all. Between rewrap.c and rewrap_ahead.c. */
#ifndef KEYRING_REWRAP_H
#define KEYRING_REWRAP_H

#include "keyring/keyring_internal.h"

/* A version's DEK under the new KEK, not in the store yet. */
struct keyring_rewrap_moved {
    uint32_t dek_id, kek_id;
    uint8_t *blob; /* malloc'ed */
    size_t length;
    bool inside;
    char requests[400]; /* hsm_requests() of the move */
};

/*
 * Where a service takes many pieces in one request, versions that will soon have their turn are moved along with one
 * that has. Their blobs wait here, in memory: the store gets each in its turn, in a transaction of its own.
 */
struct keyring_rewrap_ahead {
    const struct store_version *rows; /* by key name and version; what may come */
    size_t count, at;                 /* rows before `at` had their turn */
    size_t asked;                     /* rows before it were in a request */
    struct keyring_rewrap_moved *moved;
    size_t first, end; /* of moved: those that wait, in order */
    uint32_t not_many; /* a KEK that this does not work from */
};

struct rewrapping {
    keyring *ring;
    store *opened;
    const struct keyring_rewrap *wanted;
    struct keyring_rewrapped done;
    uint8_t store_id[STORE_ID_SIZE];
    uint32_t from_kek_id; /* 0: from anywhere */
    uint32_t kek_id;      /* to this one */
    const char *uri;
    bool tried; /* what is wrapped under it comes back */
    bool many;  /* keys; what concerns all of them is told once */
    bool ended; /* the KEK to move to cannot be used any more */
    /* KEKs that nothing can be had from, by id: the next version under one would hear the same. */
    struct keyring_failure lost[KEYRING_FAILURES];
    uint32_t many_from; /* the last version came from this KEK, and not inside its service: others may come along */
    struct keyring_rewrap_ahead ahead;
};

bool keyring_rewrap_is_wanted(const struct rewrapping *job, const struct store_version *row);
/* With a KEK named, what is under it already was moved before, or made there. Without, all is wrapped anew. */
bool keyring_rewrap_is_there(const struct rewrapping *job, const struct store_version *row);

/* rows must outlive it. */
void keyring_rewrap_ahead_of(struct rewrapping *job, const struct store_version *rows, size_t count);
void keyring_rewrap_ahead_end(struct rewrapping *job);
/* The row has its turn: true if it was moved ahead, or has been now, together with those behind it. */
bool keyring_rewrap_ahead(struct rewrapping *job, const struct store_version *row, struct keyring_rewrap_moved *moved);

#endif
