/*
 * The module between C_Initialize and C_Finalize: its tokens (slot N is token
 * N - 1, in the order of their labels) and its sessions.
 *
 * Every C_ function that needs it works on a reference, so that C_Finalize
 * under a running call is harmless. A forked child starts with none: what it
 * inherited is left alone (another thread of the parent may have been in the
 * middle of it) and C_Initialize makes a new one.
 */
#ifndef PKCS11_BRIDGE_H
#define PKCS11_BRIDGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "p11.h" /* before it: the types it uses */

#include <envelope/pkcs11-kms.h>

#include "base/libctx.h"
#include "objects.h"
#include "token.h"

enum { SESSIONS_MAX = 65535 };

enum operation_kind { OPERATION_NONE, OPERATION_ENCRYPT, OPERATION_DECRYPT };

/* An encryption or decryption under way: what was given, and what came of it while the caller finds room. */
struct operation {
    enum operation_kind kind;
    char *key_id;
    CK_OBJECT_HANDLE key;
    enum backend_cipher cipher;
    struct buffer aad;
    bool has_aad;
    bool dry_run;
    size_t modulus; /* bytes, for RSA */
    bool multipart;
    struct buffer gathered;
    struct buffer result; /* of all that is gathered */
    bool has_result;
};

struct session {
    atomic_uint references;
    pthread_mutex_t lock; /* held through a call on it: a session is one thread's at a time */
    CK_SESSION_HANDLE handle;
    struct token *token;
    CK_SLOT_ID slot;
    CK_FLAGS flags;
    struct operation encrypt, decrypt;
    bool finding;
    struct keys_list found;
    size_t found_at;
    CK_ENVELOPE_KMS_MESSAGE message;
};

struct bridge {
    atomic_uint references;
    uint64_t generation;
    struct kms_settings settings;
    struct token *tokens[SETTINGS_TOKENS_MAX];
    size_t token_count;
    pthread_mutex_t lock; /* of what follows; never held across a call into anything slow */
    struct session **sessions;
    size_t session_room;
    size_t sessions_taken;                     /* so many places, from the first, have one */
    size_t open_sessions[SETTINGS_TOKENS_MAX]; /* by token */
    uint64_t session_number;
    struct objects objects[SETTINGS_TOKENS_MAX]; /* session objects by token */
    CK_OBJECT_HANDLE object_number;
};

/* --- bridge.c --- */
CK_RV bridge_start(const CK_C_INITIALIZE_ARGS *args);
CK_RV bridge_stop(void);
/* A reference to the running bridge, or NULL. */
struct bridge *bridge_ref(void);
void bridge_unref(struct bridge *bridge);
struct token *bridge_token(struct bridge *bridge, CK_SLOT_ID slot);

/* --- session.c --- */
CK_RV session_open(struct bridge *bridge, CK_SLOT_ID slot, CK_FLAGS flags, CK_SESSION_HANDLE *handle);
CK_RV session_close(struct bridge *bridge, CK_SESSION_HANDLE handle);
void session_close_all(struct bridge *bridge, CK_SLOT_ID slot);
size_t session_count(struct bridge *bridge, CK_SLOT_ID slot, bool read_write_only);
struct session *session_ref(struct bridge *bridge, CK_SESSION_HANDLE handle);
/* With the bridge locked: was it not closed yet? */
bool session_is_open(struct bridge *bridge, CK_SESSION_HANDLE handle);
void session_unref(struct session *session);
void operation_clear(struct operation *operation);

/* --- call.c: how a C_ function gets in and out --- */
struct call {
    struct bridge *bridge;
    struct session *session;
    struct token *token;
    struct libctx_guard guard;
    bool asked; /* the service: the session's message is of this call */
};
/* With a session, locked; on CKR_OK call_leave must follow. */
CK_RV call_enter(struct call *call, CK_SESSION_HANDLE handle);
/* With a slot's token, no session. */
CK_RV call_enter_slot(struct call *call, CK_SLOT_ID slot);
CK_RV call_leave(struct call *call, CK_RV rv);
/* token_run, its outcome noted in the session. */
CK_RV call_run(struct call *call, struct backend_call *request);
CK_RV call_run_until(struct call *call, struct backend_call *request, int64_t deadline);
/* With ENVELOPE_KMS_LOG=stderr a failure's text is printed: foreign programs show the number only. */
void call_log(CK_RV rv);
/* Likewise, when a token is opened, what its user should know of it. */
void call_log_token(const struct token *token);
/* Raise for what the caller did wrong: rv is returned. */
CK_RV call_refuse(CK_RV rv, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Hand `count` bytes to a caller by PKCS#11's rules for output buffers; CKR_BUFFER_TOO_SMALL or CKR_OK. */
CK_RV call_output(const uint8_t *bytes, size_t count, CK_BYTE_PTR out, CK_ULONG_PTR out_length);

/* --- find.c --- */
CK_RV find_objects(struct call *call, const CK_ATTRIBUTE *template, CK_ULONG count, struct keys_list *list);

/* --- p11_object.c --- */
/* Makes it an object of the session; takes it over. */
CK_RV object_add(struct call *call, struct session_object *object, CK_OBJECT_HANDLE *handle);

/* --- crypt.c --- */
/* Check a mechanism and a key for encryption or decryption, and remember them. */
CK_RV crypt_prepare(struct call *call, struct operation *operation, enum operation_kind kind,
                    const CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key);
/* Can this be given to it at all? Asks nobody. */
CK_RV crypt_check_length(const struct call *call, const struct operation *operation, size_t length);
/* One piece in, operation->result out. */
CK_RV crypt_run(struct call *call, struct operation *operation, const uint8_t *in, size_t length);
/* A key of the service by its handle: the name used in every call, to be freed. */
CK_RV crypt_key_id(struct call *call, CK_OBJECT_HANDLE handle, char **id);
/* The most that can come out of `length` bytes. */
size_t crypt_bound(const struct call *call, const struct operation *operation, size_t length);

#endif
