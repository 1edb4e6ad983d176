/*
 * What a key service looks like to the bridge.
 *
 * A backend does no I/O: it turns a call into request bytes and a reply into
 * the next request or a result. token.c drives it:
 *
 *     step(call, NULL, request)            the first request
 *     step(call, reply, request)           and so on, until DONE or FAILED
 *
 * and is the only one to sleep, retry, keep deadlines and fetch credentials.
 * So a backend is tested and fuzzed with byte strings alone. It may read the
 * environment and small local files (local.h), as credential chains must.
 *
 * Rules for a step:
 *  - it runs on any thread, several calls at once; `state` is read-only after
 *    open(), what a call must remember stays in the call (stage, work);
 *  - every failure raises (base/error.h) with what failed and what to do, sets
 *    call->rv and returns BACKEND_FAILED; no secret in any text;
 *  - plaintext and tokens stay in struct buffer and struct credentials;
 *  - it decides by the service's own error name, not by the HTTP status alone,
 *    and notes it with backend_note() so that it can be asked for later.
 */
#ifndef PKCS11_BACKEND_H
#define PKCS11_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

#include "buffer.h"
#include "credentials.h"
#include "http.h"
#include "p11.h"
#include "settings.h"

enum backend_op {
    BACKEND_AUTHENTICATE, /* pin (may be empty), previous -> made */
    BACKEND_LIST,         /* -> keys: every key this token shows */
    BACKEND_DESCRIBE,     /* key (label or id) -> keys: one, or none if there is no such key */
    BACKEND_CREATE,       /* label, type, bits -> keys: one */
    BACKEND_DELETE,       /* key */
    BACKEND_ENCRYPT,      /* key, cipher, aad, in -> out */
    BACKEND_DECRYPT,      /* key, cipher, aad, in -> out */
    BACKEND_REWRAP,       /* key, aad, in, key_to, aad_to -> out; without plaintext leaving the service if it can */
    BACKEND_RANDOM,       /* length -> out */
    BACKEND_DATA_KEY,     /* key, aad, length, wants_plaintext -> out (the blob), plaintext (if it is wanted) */
    BACKEND_VERSIONS,     /* key -> versions */
    BACKEND_ROTATE,       /* key -> versions.latest, 0 if the service does not tell */
    BACKEND_SET_VERSIONS, /* key, versions.min_decryption and .min_encryption, BACKEND_KEEP to leave one */
    BACKEND_BATCH         /* each, key, key_to, items -> items, out */
};
enum { BACKEND_OP_COUNT = BACKEND_BATCH + 1 };

enum backend_cipher {
    BACKEND_AEAD, /* the service's own authenticated encryption, opaque blob; takes AAD */
    BACKEND_OAEP_SHA1,
    BACKEND_OAEP_SHA256
};

enum backend_key_type { BACKEND_KEY_SYMMETRIC, BACKEND_KEY_RSA };

/* A key as the service describes it. Strings are malloc'ed (backend_key_clear). */
struct backend_key {
    char *id;       /* CKA_ID and the name used in every call: ARN, or the transit key's name */
    char *label;    /* CKA_LABEL: alias/name; the id's last part where there is none */
    char **aliases; /* every name it is found by, NULL-terminated; may be NULL */
    enum backend_key_type type;
    unsigned bits;
    bool can_encrypt, can_decrypt; /* by its kind and usage, not by its present state */
    bool enabled;                  /* usable now */
    bool imported;                 /* its material was made elsewhere, so copies may exist */
    char state[32];                /* the service's word: "Enabled", "PendingDeletion" */
    int64_t created;               /* wall clock, 0 unknown */
    uint8_t *public_key;           /* SubjectPublicKeyInfo, or NULL */
    size_t public_key_length;
};

struct backend_keys {
    struct backend_key *items;
    size_t count;
};

/* Versions of a key, numbered from 1. */
struct backend_versions {
    uint64_t latest;
    uint64_t min_decryption; /* blobs of older ones do not open */
    uint64_t min_encryption; /* of what is encrypted from now on; 0: always the latest */
};
#define BACKEND_KEEP UINT64_MAX

/* One piece of a BATCH. The step settles every one: rv, and where in call->out its result lies. */
struct backend_item {
    const uint8_t *aad, *aad_to; /* NULL: none */
    size_t aad_length, aad_to_length;
    const uint8_t *in;
    size_t in_length;
    bool dry_run;

    bool settled; /* false: the request it was in failed, with the call's rv */
    bool plaintext_left;
    CK_RV rv;
    envelope_status status; /* of a failure, with its text (malloc'ed, may be NULL) */
    char *text;
    char *service_code, *service_message; /* what the service said of this item alone; malloc'ed, NULL: nothing */
    size_t out_at, out_length;
};

struct backend_call {
    /* What is asked */
    enum backend_op op;
    const char *key, *key_to;
    enum backend_cipher cipher;
    bool has_aad, has_aad_to;
    const uint8_t *aad, *aad_to;
    size_t aad_length, aad_to_length;
    const uint8_t *in;
    size_t in_length;
    size_t length;
    bool dry_run; /* ENCRYPT, DECRYPT, REWRAP, DATA_KEY: would it work? DONE with an empty out if so */
    bool wants_plaintext;
    enum backend_op each; /* of the items: ENCRYPT, DECRYPT or REWRAP, with BACKEND_AEAD */
    struct backend_item *items;
    size_t item_count;
    const char *label;
    enum backend_key_type type;
    unsigned bits;
    const char *pin;
    struct credentials *credentials; /* valid ones; for AUTHENTICATE those to be renewed, or NULL */

    /* What came of it */
    struct buffer out, plaintext;
    struct backend_versions versions;
    struct backend_keys keys;
    struct credentials *made;
    bool plaintext_left;   /* REWRAP: the service could not do it alone, the plaintext passed through this process */
    CK_RV rv;              /* set by BACKEND_FAILED */
    char service_code[64]; /* the service's name of the last error, "" if none */
    char service_message[512]; /* and its text, printable */
    char request_id[128];

    /* The backend's own memory between steps; zero at first */
    unsigned stage;
    void *work;
    void (*work_free)(void *work);
};

enum backend_step {
    BACKEND_SEND,   /* send request, come back with the reply */
    BACKEND_RETRY,  /* the same request again, after a pause (full jitter) while the deadline allows; rv and the error
                       are set as for FAILED, for when it does not */
    BACKEND_REAUTH, /* credentials refused: get new ones and begin again, once; rv and error set as for FAILED */
    BACKEND_DONE,
    BACKEND_FAILED
};

struct backend {
    const char *name;      /* `backend = NAME` */
    const char *model;     /* CK_TOKEN_INFO model, at most 16 characters */
    size_t max_plaintext;  /* of one ENCRYPT with BACKEND_AEAD */
    size_t max_ciphertext; /* of one ENCRYPT with BACKEND_AEAD: what a caller's buffer must hold to be sure */
    bool oaep_sha1, oaep_sha256;
    bool experimental; /* never run against the service itself; said in the log */
    bool rsa_aead;     /* BACKEND_AEAD with RSA keys as well: the backend binds the associated data itself */
    bool random;       /* the service has a random number generator */
    bool reencrypt;    /* REWRAP without plaintext leaving the service */
    bool versions, rotate, min_versions; /* BACKEND_VERSIONS, BACKEND_ROTATE, BACKEND_SET_VERSIONS */
    /* Can the service carry out this DATA_KEY alone, associated data bound? NULL: it has no such thing. */
    bool (*data_key)(const struct backend_call *call);
    /* Of one BATCH: the most items, and the most bytes they may hold (in and associated data). 0: there are none. */
    size_t batch_items, batch_bytes;

    /* Check the settings (error names the section and key), make the read-only state. No network. */
    envelope_status (*open)(const struct token_settings *settings, void **state);
    void (*close)(void *state);
    /* Is this name, which is not the id, another id of the key? NULL: a key has one id. */
    bool (*is_also)(const char *id, const char *name, size_t length);
    enum backend_step (*step)(const void *state, struct backend_call *call, const struct http_reply *reply,
                              struct http_request *request);
};

/* By its name in kms.cnf; NULL if there is none. */
const struct backend *backend_find(const char *name);

/* Of the operations that not every service has: may this one be asked for? */
bool backend_offers(const struct backend *backend, const struct backend_call *call);
/* Releases results, those of items too, and work, not what was asked. */
void backend_call_clear(struct backend_call *call);
/* Remember the service's words; control characters are made printable. NULL leaves a field as it is. */
void backend_note(struct backend_call *call, const char *code, const char *message, const char *request_id);
/* A zeroed key at the end of call->keys; NULL with the error and rv set. */
struct backend_key *backend_add_key(struct backend_call *call);
void backend_key_clear(struct backend_key *key);
/* The same for one item: it is settled. */
void backend_fail_item(struct backend_item *item, CK_RV rv, envelope_status raised);
/* The call's service_code and service_message are of this item, which was failed. */
void backend_note_item(struct backend_item *item, const struct backend_call *call);
/* As at first. */
void backend_item_reset(struct backend_item *item);
/* Set rv and return BACKEND_FAILED: `return backend_fail(call, CKR_…, error_raise(…));` */
enum backend_step backend_fail(struct backend_call *call, CK_RV rv, envelope_status raised);

#endif
