/*
 * OpenBao's (and Vault's) transit engine as a backend: what its parts share.
 *
 * bao_backend.c  settings checked, calls handed out
 * bao_auth.c     logging in and renewing
 * bao_denied.c   is a login over, or does its policy not allow what was asked?
 * bao_lockout.c  refused secret ids, not to be sent again for a while
 * bao_keys.c     list, describe, create, delete
 * bao_versions.c versions of keys: read, rotate, limits
 * bao_crypto.c   encrypt, decrypt, rewrap, data keys, random
 * bao_batch.c    the same for many pieces at once
 * bao_message.c  request bytes, and what replies and refusals mean
 */
#ifndef PKCS11_BAO_H
#define PKCS11_BAO_H

#include "backend.h"
#include "json.h"
#include "names.h"

enum bao_auth { BAO_AUTH_TOKEN, BAO_AUTH_APPROLE, BAO_AUTH_CERT, BAO_AUTH_KUBERNETES };

enum {
    /* Keys, not data; leaves room for base64 and the version in every limit on the way. */
    BAO_PLAINTEXT_MAX = 4096,
    /* "vault:v", ten digits, ":" and the base64 of plaintext, nonce and tag; rounded up. */
    BAO_CIPHERTEXT_MAX = 5632,
    /* Of one request to the random number generator; the service refuses more than twice this. */
    BAO_RANDOM_MAX = 65536,
    /*
     * Of one batch: with base64 and the words around each piece, request and reply stay below HTTP_REPLY_MAX; and
     * OpenBao takes no request of more than 1,000 strings (max_request_json_strings), of which a piece has four.
     */
    BAO_BATCH_ITEMS = 200,
    BAO_BATCH_BYTES = 1 << 19
};

struct bao_lockout; /* bao_lockout.c */

/* The read-only state. Texts are owned; settings outlive it. */
struct bao {
    const struct token_settings *settings;
    char *base;       /* "https://host:8200/v1" */
    char *mount;      /* "transit" */
    char *auth_mount; /* "auth/approle" */
    enum bao_auth auth;
    struct bao_lockout *lockout; /* with a lock of its own */
};

/* What a call remembers between its steps (call->work). */
struct bao_work {
    struct buffer secret;     /* REWRAP: plaintext on its way; AUTHENTICATE: the token looked up */
    int64_t lease;            /* AUTHENTICATE: seconds the token still lives */
    struct names names;       /* LIST: the keys to describe */
    size_t denied;            /* of them, so far */
    uint32_t version, oldest; /* OAEP decryption: the key version tried, the last one to try */
    char *refused;            /* the text of a refusal, while the token is asked about */
    json_t *root;             /* the reply in hand, and the secrets taken out of it */
    struct json_taken taken;
};

struct bao_key_facts {
    char type[32];
    uint32_t latest, min_decryption, min_encryption;
    bool derived, exportable, soft_deleted;
    bool encrypts, decrypts;
    json_t *versions; /* the reply's */
};

/* call->work, made at first use; NULL with rv and the error set. */
struct bao_work *bao_work(struct backend_call *call);

enum backend_step bao_authenticate(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                                   struct http_request *request);
/*
 * A login that was denied something (REAUTH) is asked about before another is made; the next replies go to
 * bao_denied_judge, as long as bao_denied_asks.
 */
enum backend_step bao_denied_ask(const struct bao *bao, struct backend_call *call, struct http_request *request);
bool bao_denied_asks(const struct backend_call *call);
enum backend_step bao_denied_judge(struct backend_call *call, const struct http_reply *reply);
enum backend_step bao_list(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                           struct http_request *request);
enum backend_step bao_describe(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                               struct http_request *request);
enum backend_step bao_create(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                             struct http_request *request);
enum backend_step bao_delete(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                             struct http_request *request);
enum backend_step bao_encrypt(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                              struct http_request *request);
enum backend_step bao_decrypt(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                              struct http_request *request);
enum backend_step bao_rewrap(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                             struct http_request *request);
enum backend_step bao_random(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                             struct http_request *request);
enum backend_step bao_data_key(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                               struct http_request *request);
/* Can the engine do it alone? It binds no associated data to data keys, and knows three lengths. */
bool bao_makes_data_key(const struct backend_call *call);
enum backend_step bao_versions(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                               struct http_request *request);
enum backend_step bao_rotate(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                             struct http_request *request);
enum backend_step bao_set_versions(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                                   struct http_request *request);
enum backend_step bao_batch(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                            struct http_request *request);

/* ---- refused logins (bao_lockout.c) ---- */

struct bao_lockout *bao_lockout_new(void); /* NULL with the error raised */
void bao_lockout_free(struct bao_lockout *lockout);
/* This login, a request's body, was refused for its credentials: with the words that are noted in the call. */
void bao_lockout_note(struct bao_lockout *lockout, const struct backend_call *call, const struct buffer *login);
/* For how long (microseconds) this login is not to be sent, the words noted again; 0: it may be. */
int64_t bao_lockout_left(struct bao_lockout *lockout, struct backend_call *call, const struct buffer *login);

/* ---- requests (bao_message.c) ---- */

/* A name the engine could hold: [0-9A-Za-z_.-], the first and last no dot or dash. */
bool bao_is_key_name(const char *name);
/*
 * Begin a request to base/PATH with the token of the call's credentials (or the one given) and the namespace; a POST
 * gets its "{", for web_body_…. On failure rv and the error are set.
 */
bool bao_request(const struct bao *bao, struct backend_call *call, struct http_request *request,
                 enum http_method method, const char *token, const char *path, ...)
    __attribute__((format(printf, 6, 7)));
/* BACKEND_SEND, once the body is known to be whole; call->stage becomes stage. */
enum backend_step bao_send(struct backend_call *call, struct http_request *request, unsigned stage);
/* Ask for a key's description. */
enum backend_step bao_send_read_key(const struct bao *bao, struct backend_call *call, struct http_request *request,
                                    const char *key, unsigned stage);

/* ---- replies (bao_message.c) ---- */

/*
 * The reply's JSON without its secrets, until the end of the step; NULL if it is none, or (without call->work) for want
 * of memory.
 */
const json_t *bao_parse(struct backend_call *call, const struct http_reply *reply);
void bao_forget_reply(struct backend_call *call);
/* A secret of the reply in hand; NULL if it is not there. */
const char *bao_secret(const struct backend_call *call, const json_t *object, const char *name, size_t *length);
/* A text into memory of one's own; false if it is none or does not fit. */
bool bao_text(const json_t *value, char *to, size_t capacity);
bool bao_integer(const json_t *value, int64_t *number);
/*
 * A reply of status 2xx: notes the request id, root is its JSON (NULL for 204 No Content). Any other: false, *step
 * is what to return; `doing` says what was tried ("decrypt with key"), `on` its object.
 */
bool bao_accepted(const struct bao *bao, struct backend_call *call, const struct http_reply *reply, const char *doing,
                  const char *on, const json_t **root, enum backend_step *step);
/* What the engine says of one piece of a batch, judged by its words as those of a whole reply are. */
void bao_refuse_item(const struct bao *bao, struct backend_call *call, struct backend_item *item, const char *words,
                     const char *doing, const char *on);
/* A reply that has status 2xx and not what it must have. */
enum backend_step bao_malformed(struct backend_call *call, const char *doing, const char *on, const char *missing);

/* ---- pieces of encryption (bao_crypto.c) ---- */

enum backend_step bao_refuse_name(const struct bao *bao, struct backend_call *call, const char *key);
/* `vault:v<digits>:<base64>`, nothing that would have to be escaped in JSON: where the base64 begins, or NULL. */
const char *bao_ciphertext_payload(const char *text, size_t length);
/* The ciphertext member of a reply (or of one item of it); NULL if it is none. */
const char *bao_ciphertext_of(const json_t *object);
/* The plaintext member, decoded and appended; false if it is none. */
bool bao_take_plaintext(struct backend_call *call, const json_t *object, struct buffer *to);
/* The engine's rewrap serves only within one key and without associated data. */
bool bao_rewraps_inside(const char *key, const char *key_to, size_t aad_length, size_t aad_to_length);
/* The key's description, just read, allows encrypting: DONE, else FAILED with rv and the error set. */
enum backend_step bao_check_encrypts(const struct bao *bao, struct backend_call *call, const json_t *root,
                                     const char *key, bool oaep);

/* ---- keys (bao_keys.c) ---- */

/* The facts of a `GET keys/NAME` reply; false if it is none. */
bool bao_read_facts(const json_t *root, struct bao_key_facts *facts);
/* Why a key is not used by the bridge, or NULL: the word shown as its state. */
const char *bao_key_unusable(const struct bao_key_facts *facts);
/* "aes256-gcm96" and its like; false for types the bridge does not show. */
bool bao_key_kind(const char *type, enum backend_key_type *kind, unsigned *bits);

#endif
