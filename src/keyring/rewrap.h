/*
 * A move to another KEK under way, of one key or of all. Between the files of it:
 *
 *   rewrap.c        what is to be moved: the keys, some at a time; and what became of each
 *   rewrap_keks.c   the KEKs that versions come from and go to, and whether they can be used (any more)
 *   rewrap_wrap.c   a version's DEK under the new KEK: asked of the token, one by one or many at once
 *   rewrap_store.c  keys and versions written into the store, many in one transaction
 *
 * Tokens are never asked inside a transaction. In memory are the keys' names, and a page of versions.
 */
#ifndef KEYRING_REWRAP_H
#define KEYRING_REWRAP_H

#include "keyring/keyring_internal.h"

/* Keys at a time, versions in a page, and of these the most in one transaction. */
enum { REWRAP_MANY = HSM_REWRAP_MANY };

/* A version's DEK under the new KEK, not in the store yet. */
struct rewrap_moved {
    uint8_t *blob; /* malloc'ed; NULL: there is none */
    size_t length;
    bool inside;
    char requests[400]; /* hsm_requests() of the move */
};

struct rewrap_key {
    const struct store_key *row; /* as it was before */
    const char *uri;             /* of the KEK it moves to */
    struct keyring_rewrapped done;
    envelope_status status; /* why it is not, or not wholly, moved; what is left of it is not tried */
    uint32_t version;       /* that could not be; 0: the key itself */
    char text[KEYRING_TEXT_MAX];
};

/* What is known of a KEK that versions come from. */
struct rewrap_source {
    uint32_t kek_id;
    unsigned away;               /* times in a row that it could not be reached */
    struct keyring_failure lost; /* nothing can be had from it: the next version under it would hear the same */
    bool many;     /* a DEK leaves its service on the way, so that several in one request gain something */
    unsigned vain; /* requests for several that moved none, in a row */
};

struct rewrap_page {
    struct store_version *rows; /* by key name and version */
    size_t count;
    struct rewrap_key *keys[REWRAP_MANY]; /* whose they are; NULL: nobody's who is to be moved */
    struct rewrap_moved *moved;           /* REWRAP_MANY */
    bool asked[REWRAP_MANY];              /* along with others; what that did not move is asked for by itself */
};

/* What one transaction is made of. */
struct rewrap_writing {
    struct keyring_note notes[REWRAP_MANY];
    union {
        struct store_version_move versions[REWRAP_MANY];
        struct store_key_move keys[REWRAP_MANY];
    } moves;
    size_t of[REWRAP_MANY]; /* the row, or key, of a move */
};

struct rewrapping {
    keyring *ring;
    store *opened;
    const struct keyring_rewrap *wanted;
    uint8_t store_id[STORE_ID_SIZE];
    uint32_t from_kek_id; /* 0: from anywhere */
    bool many;            /* keys: what concerns all of them is told once */
    bool ended;           /* nothing more can be moved */

    /* The KEK that is named to move to; else each key has its own. */
    char *public_uri;
    const char *uri;
    uint32_t kek_id;
    bool kek_is_there; /* it has a row, and so that id for good */
    bool tried;        /* what is wrapped under it comes back */
    unsigned away;     /* times in a row that it could not be reached */

    struct rewrap_source sources[KEYRING_FAILURES]; /* by KEK id */
    struct rewrap_key *keys;                        /* REWRAP_MANY, those under way */
    size_t key_count, told;
    struct rewrap_page page;
    struct rewrap_writing *writing;
    uint8_t *dek, *again; /* slots of ring->deks: a DEK on its way, and what unwraps of what was made of it */

    keyring_rewrap_each *each; /* may be NULL */
    void *argument;
    struct keyring_rewrap_all *all;
    struct keyring_failure first; /* the first key's that failed */
};

static inline uint32_t rewrap_target(const struct rewrapping *job, const struct rewrap_key *key)
{
    return job->wanted->kek_uri ? job->kek_id : key->row->kek_id;
}

static inline bool rewrap_is_wanted(const struct rewrapping *job, const struct store_version *row)
{
    return row->state != STORE_VERSION_DESTROYED &&
           (job->wanted->version == 0 || job->wanted->version == row->version) &&
           (job->from_kek_id == 0 || job->from_kek_id == row->kek_id);
}

/* With a KEK named, what is under it already was moved before, or made there. Without, all is wrapped anew. */
static inline bool rewrap_is_there(const struct rewrapping *job, const struct store_version *row)
{
    return job->wanted->kek_uri && job->kek_is_there && row->kek_id == job->kek_id;
}

/* ---- rewrap.c ---- */
/* With the thread's error; the first one stays. version 0: the key itself. */
void keyring_rewrap_fail(struct rewrap_key *key, uint32_t version, envelope_status status);

/* ---- rewrap_keks.c ---- */
/* The id of the KEK to move from, if one is named. */
envelope_status keyring_rewrap_find_from(struct rewrapping *job);
/* The KEK to move to, if one is named. It gets its row in the store with the first thing that moves to it. */
envelope_status keyring_rewrap_find_to(struct rewrapping *job);
/* Its id, or the one it would get, as of now: after a conflict. */
envelope_status keyring_rewrap_find_id(struct rewrapping *job);
/* Before anything is bound to it: what is wrapped under the KEK to move to must come back. Once. */
envelope_status keyring_rewrap_try_to(struct rewrapping *job);
struct rewrap_source *keyring_rewrap_source(struct rewrapping *job, uint32_t kek_id);
/* A version moved from there. */
void keyring_rewrap_source_works(struct rewrapping *job, uint32_t kek_id);
/* A version could not be moved: is it for the KEKs, and for which? The error stays raised. */
void keyring_rewrap_blame(struct rewrapping *job, uint32_t from_kek_id, envelope_status status);

/* ---- rewrap_wrap.c ---- */
/* The page's row has its turn: what it needs, or its key's failure. */
void keyring_rewrap_wrap_row(struct rewrapping *job, size_t i);
envelope_status keyring_rewrap_wrap(struct rewrapping *job, const struct rewrap_key *key,
                                    const struct store_version *row, struct rewrap_moved *moved);

/* ---- rewrap_store.c ---- */
/*
 * The keys under way: from then on nothing new comes under their old KEK, and one look at their versions sees all. An
 * error is the KEK's, or the store's; a key's own is kept with it.
 */
envelope_status keyring_rewrap_store_keys(struct rewrapping *job);
/* The page's rows [from, to) that have a blob. */
void keyring_rewrap_store_rows(struct rewrapping *job, size_t from, size_t to);

#endif
