/* Encrypting, decrypting, moving between keys, random bytes. */
#include "bao.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "web.h"

static const char prefix[] = "vault:v";
enum { PREFIX_LENGTH = sizeof prefix - 1 };

const char *bao_ciphertext_payload(const char *text, size_t length)
{
    static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
    size_t at = PREFIX_LENGTH;
    if (length <= PREFIX_LENGTH || memcmp(text, prefix, PREFIX_LENGTH) != 0)
        return NULL;
    while (at < length && text[at] >= '0' && text[at] <= '9')
        at++;
    if (at == PREFIX_LENGTH || at > PREFIX_LENGTH + 10 || at + 1 >= length || text[at] != ':')
        return NULL;
    for (size_t i = at + 1; i < length; i++)
        if (text[i] == '\0' || !strchr(base64, text[i]))
            return NULL;
    return text + at + 1;
}

enum backend_step bao_refuse_name(const struct bao *bao, struct backend_call *call, const char *key)
{
    return backend_fail(call, CKR_KEY_HANDLE_INVALID,
                        error_raise(ENVELOPE_E_KEK_UNKNOWN, "OpenBao token \"%s\": \"%s\" cannot be a transit key",
                                    bao->settings->label, key ? key : ""));
}

const char *bao_ciphertext_of(const json_t *object)
{
    const char *text = json_member(object, "ciphertext");
    return text && strlen(text) <= BAO_CIPHERTEXT_MAX && bao_ciphertext_payload(text, strlen(text)) ? text : NULL;
}

/* The ciphertext of a reply into call->out: as it stands, or for OAEP the bare bytes that PKCS#11 knows. */
static enum backend_step take_ciphertext(struct backend_call *call, const json_t *root, const char *doing,
                                         const char *key, bool bare)
{
    const char *text = bao_ciphertext_of(json_object_get(root, "data"));
    const char *payload = text ? bao_ciphertext_payload(text, strlen(text)) : NULL;
    bool taken = payload != NULL;
    if (taken && !call->dry_run && bare)
        taken = buffer_append_unbase64(&call->out, payload, strlen(payload));
    else if (taken && !call->dry_run)
        buffer_append_text(&call->out, text);
    if (!buffer_ok(&call->out))
        return backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
    if (!taken)
        return bao_malformed(call, doing, key, "data.ciphertext");
    return BACKEND_DONE;
}

bool bao_take_plaintext(struct backend_call *call, const json_t *object, struct buffer *to)
{
    size_t length, before = to->length;
    const char *text = bao_secret(call, object, "plaintext", &length);
    return text && length <= (BAO_PLAINTEXT_MAX + 2) / 3 * 4 && buffer_append_unbase64(to, text, length) &&
           to->length - before <= BAO_PLAINTEXT_MAX;
}

/* ---- encrypt ---- */

enum { ENCRYPT_KEY = 10, ENCRYPT_REPLY };

struct plain {
    const char *key;
    const uint8_t *bytes;
    size_t length;
    const uint8_t *aad;
    size_t aad_length;
    bool oaep;
};

/*
 * The key is read before each encryption: given a name it does not know, `encrypt` makes a new key where the caller's
 * policy says "create". A deleted KEK must be an error, not a new KEK of the same name.
 */
static enum backend_step encrypt_begin(const struct bao *bao, struct backend_call *call, struct http_request *request,
                                       const struct plain *plain)
{
    if (!bao_is_key_name(plain->key))
        return bao_refuse_name(bao, call, plain->key);
    if (plain->length > BAO_PLAINTEXT_MAX)
        return backend_fail(
            call, CKR_DATA_LEN_RANGE,
            error_raise(ENVELOPE_E_DATA_TOO_LONG,
                        "OpenBao token \"%s\": %zu bytes are too many for one encryption; the limit is %d",
                        bao->settings->label, plain->length, (int)BAO_PLAINTEXT_MAX));
    return bao_send_read_key(bao, call, request, plain->key, ENCRYPT_KEY);
}

enum backend_step bao_check_encrypts(const struct bao *bao, struct backend_call *call, const json_t *root,
                                     const char *key, bool oaep)
{
    struct bao_key_facts facts;
    enum backend_key_type kind;
    unsigned bits;
    if (!bao_read_facts(root, &facts))
        return bao_malformed(call, "read key", key, "key description");
    const char *state = bao_key_unusable(&facts);
    if (state || !facts.encrypts)
        return backend_fail(call, CKR_KEY_FUNCTION_NOT_PERMITTED,
                            error_raise(ENVELOPE_E_KEK_REFUSED,
                                        "OpenBao token \"%s\": key \"%s\" cannot be used to encrypt: %s",
                                        bao->settings->label, key, state ? state : "its type does not"));
    if (!bao_key_kind(facts.type, &kind, &bits) || (kind == BACKEND_KEY_RSA) != oaep)
        return backend_fail(call, CKR_KEY_TYPE_INCONSISTENT,
                            error_raise(ENVELOPE_E_KEK_REFUSED,
                                        "OpenBao token \"%s\": key \"%s\" is of type %s, which this mechanism does "
                                        "not take",
                                        bao->settings->label, key, facts.type));
    return BACKEND_DONE;
}

static enum backend_step encrypt_send(const struct bao *bao, struct backend_call *call, const json_t *root,
                                      struct http_request *request, const struct plain *plain)
{
    enum backend_step step = bao_check_encrypts(bao, call, root, plain->key, plain->oaep);
    if (step != BACKEND_DONE)
        return step;
    if (!bao_request(bao, call, request, HTTP_POST, NULL, "%s/encrypt/%s", bao->mount, plain->key))
        return BACKEND_FAILED;
    web_body_base64(request, "plaintext", plain->bytes, plain->length);
    if (plain->aad_length)
        web_body_base64(request, "associated_data", plain->aad, plain->aad_length);
    return bao_send(call, request, ENCRYPT_REPLY);
}

static enum backend_step encrypt_step(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                                      struct http_request *request, const struct plain *plain)
{
    const json_t *root;
    enum backend_step step;
    const char *doing = call->stage == ENCRYPT_KEY ? "read key" : "encrypt with key";
    if (!reply)
        return encrypt_begin(bao, call, request, plain);
    if (!bao_accepted(bao, call, reply, doing, plain->key, &root, &step))
        return step;
    if (call->stage == ENCRYPT_KEY)
        return encrypt_send(bao, call, root, request, plain);
    return take_ciphertext(call, root, doing, plain->key, plain->oaep);
}

static bool cipher_known(const struct bao *bao, struct backend_call *call, bool has_aad)
{
    if (call->cipher == BACKEND_OAEP_SHA1) {
        backend_fail(call, CKR_MECHANISM_PARAM_INVALID,
                     error_raise(ENVELOPE_E_WRAP_MECHANISM,
                                 "OpenBao token \"%s\": OAEP is with SHA-256 there, not SHA-1", bao->settings->label));
        return false;
    }
    if (call->cipher == BACKEND_OAEP_SHA256 && has_aad) {
        backend_fail(call, CKR_MECHANISM_PARAM_INVALID,
                     error_raise(ENVELOPE_E_WRAP_MECHANISM, "OpenBao token \"%s\": OAEP takes no associated data",
                                 bao->settings->label));
        return false;
    }
    return true;
}

enum backend_step bao_encrypt(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                              struct http_request *request)
{
    bool has_aad = call->has_aad && call->aad_length;
    const struct plain plain = {call->key,
                                call->in,
                                call->in_length,
                                call->aad,
                                has_aad ? call->aad_length : 0,
                                call->cipher == BACKEND_OAEP_SHA256};
    if (!cipher_known(bao, call, has_aad))
        return BACKEND_FAILED;
    return encrypt_step(bao, call, reply, request, &plain);
}

/* ---- decrypt ---- */

enum { DECRYPT_REPLY = 1, DECRYPT_KEY, DECRYPT_TRY };

static enum backend_step refuse_ciphertext(const struct bao *bao, struct backend_call *call)
{
    return backend_fail(call, CKR_ENCRYPTED_DATA_INVALID,
                        error_raise(ENVELOPE_E_UNWRAP,
                                    "OpenBao token \"%s\": this is no ciphertext of key \"%s\": it does not begin with "
                                    "vault:vN:",
                                    bao->settings->label, call->key));
}

static enum backend_step decrypt_send(const struct bao *bao, struct backend_call *call, struct http_request *request,
                                      const char *verb)
{
    if (!bao_is_key_name(call->key))
        return bao_refuse_name(bao, call, call->key);
    const char *text = (const char *)call->in;
    if (call->in_length > BAO_CIPHERTEXT_MAX || !bao_ciphertext_payload(text, call->in_length))
        return refuse_ciphertext(bao, call);
    if (!bao_request(bao, call, request, HTTP_POST, NULL, "%s/%s/%s", bao->mount, verb, call->key))
        return BACKEND_FAILED;
    buffer_append_text(&request->body, "\"ciphertext\":\"");
    buffer_append(&request->body, text, call->in_length);
    buffer_append_text(&request->body, "\"");
    if (call->has_aad && call->aad_length)
        web_body_base64(request, "associated_data", call->aad, call->aad_length);
    return bao_send(call, request, DECRYPT_REPLY);
}

static enum backend_step take_decrypted(struct backend_call *call, const json_t *root, struct buffer *to)
{
    if (!bao_take_plaintext(call, json_object_get(root, "data"), to))
        return bao_malformed(call, "decrypt with key", call->key, "data.plaintext");
    if (call->dry_run)
        buffer_clear(to);
    return BACKEND_DONE;
}

/* A bare OAEP ciphertext does not say which version of the key made it: from the latest down to the oldest allowed. */
static enum backend_step try_version(const struct bao *bao, struct backend_call *call, struct http_request *request,
                                     uint32_t version)
{
    char head[PREFIX_LENGTH + 16];
    if (!bao_request(bao, call, request, HTTP_POST, NULL, "%s/decrypt/%s", bao->mount, call->key))
        return BACKEND_FAILED;
    snprintf(head, sizeof head, "%s%" PRIu32 ":", prefix, version);
    buffer_append_text(&request->body, "\"ciphertext\":\"");
    buffer_append_text(&request->body, head);
    buffer_append_base64(&request->body, call->in, call->in_length);
    buffer_append_text(&request->body, "\"");
    return bao_send(call, request, DECRYPT_TRY);
}

static enum backend_step first_version(const struct bao *bao, struct backend_call *call, const json_t *root,
                                       struct http_request *request)
{
    struct bao_key_facts facts;
    enum backend_key_type kind;
    unsigned bits;
    struct bao_work *work = bao_work(call);
    if (!work)
        return BACKEND_FAILED;
    if (!bao_read_facts(root, &facts))
        return bao_malformed(call, "read key", call->key, "key description");
    if (!bao_key_kind(facts.type, &kind, &bits) || kind != BACKEND_KEY_RSA)
        return backend_fail(call, CKR_KEY_TYPE_INCONSISTENT,
                            error_raise(ENVELOPE_E_KEK_REFUSED, "OpenBao token \"%s\": key \"%s\" is no RSA key",
                                        bao->settings->label, call->key));
    if (call->in_length != bits / 8)
        return backend_fail(call, CKR_ENCRYPTED_DATA_LEN_RANGE,
                            error_raise(ENVELOPE_E_UNWRAP,
                                        "OpenBao token \"%s\": %zu bytes are no ciphertext of the RSA key \"%s\"",
                                        bao->settings->label, call->in_length, call->key));
    work->version = facts.latest;
    work->oldest = facts.min_decryption;
    return try_version(bao, call, request, work->version);
}

static enum backend_step decrypt_oaep(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                                      struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    if (!reply) {
        if (!bao_is_key_name(call->key))
            return bao_refuse_name(bao, call, call->key);
        return bao_send_read_key(bao, call, request, call->key, DECRYPT_KEY);
    }
    const char *doing = call->stage == DECRYPT_KEY ? "read key" : "decrypt with key";
    if (bao_accepted(bao, call, reply, doing, call->key, &root, &step))
        return call->stage == DECRYPT_KEY ? first_version(bao, call, root, request)
                                          : take_decrypted(call, root, &call->out);
    struct bao_work *work = call->work;
    bool another = step == BACKEND_FAILED && call->stage == DECRYPT_TRY && call->rv == CKR_ENCRYPTED_DATA_INVALID &&
                   work->version > work->oldest;
    return another ? try_version(bao, call, request, --work->version) : step;
}

enum backend_step bao_decrypt(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                              struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    if (!cipher_known(bao, call, call->has_aad && call->aad_length))
        return BACKEND_FAILED;
    if (call->cipher == BACKEND_OAEP_SHA256)
        return decrypt_oaep(bao, call, reply, request);
    if (!reply)
        return decrypt_send(bao, call, request, "decrypt");
    if (!bao_accepted(bao, call, reply, "decrypt with key", call->key, &root, &step))
        return step;
    return take_decrypted(call, root, &call->out);
}

/* ---- rewrap ---- */

enum { REWRAP_REPLY = 5, REWRAP_DECRYPTED };

/*
 * The engine's own rewrap moves a ciphertext to the newest version of the same key, and ignores associated data. So it
 * serves only where there is none; every other move is decrypt and encrypt, with the plaintext in secret memory here.
 */
bool bao_rewraps_inside(const char *key, const char *key_to, size_t aad_length, size_t aad_to_length)
{
    return strcmp(key, key_to) == 0 && !aad_length && !aad_to_length;
}

static enum backend_step rewrap_begin(const struct bao *bao, struct backend_call *call, struct http_request *request)
{
    bool inside = bao_rewraps_inside(call->key, call->key_to, call->has_aad ? call->aad_length : 0,
                                     call->has_aad_to ? call->aad_to_length : 0);
    enum backend_step step = decrypt_send(bao, call, request, inside ? "rewrap" : "decrypt");
    if (step == BACKEND_SEND)
        call->stage = inside ? REWRAP_REPLY : REWRAP_DECRYPTED;
    return step;
}

enum backend_step bao_rewrap(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                             struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    if (!reply)
        return rewrap_begin(bao, call, request);
    struct bao_work *work = bao_work(call);
    if (!work)
        return BACKEND_FAILED;
    const struct plain plain = {
        call->key_to, work->secret.bytes, work->secret.length, call->aad_to, call->has_aad_to ? call->aad_to_length : 0,
        false};
    if (call->stage >= ENCRYPT_KEY)
        return encrypt_step(bao, call, reply, request, &plain);
    if (!bao_accepted(bao, call, reply, "rewrap with key", call->key, &root, &step))
        return step;
    if (call->stage == REWRAP_REPLY)
        return take_ciphertext(call, root, "rewrap with key", call->key, false);
    if (!bao_take_plaintext(call, json_object_get(root, "data"), &work->secret))
        return bao_malformed(call, "decrypt with key", call->key, "data.plaintext");
    call->plaintext_left = true;
    return encrypt_begin(bao, call, request, &(struct plain){call->key_to, NULL, work->secret.length, NULL, 0, false});
}

/* ---- data keys ---- */

enum { DATA_KEY_READ = 30, DATA_KEY_REPLY };

bool bao_makes_data_key(const struct backend_call *call)
{
    return !(call->has_aad && call->aad_length) && (call->length == 16 || call->length == 32 || call->length == 64);
}

static enum backend_step data_key_send(const struct bao *bao, struct backend_call *call, struct http_request *request)
{
    if (!bao_request(bao, call, request, HTTP_POST, NULL, "%s/datakey/%s/%s", bao->mount,
                     call->wants_plaintext ? "plaintext" : "wrapped", call->key))
        return BACKEND_FAILED;
    web_body_number(request, "bits", call->length * 8, false);
    return bao_send(call, request, DATA_KEY_REPLY);
}

/* The key is read first, as before every encryption: it may be of a kind that shall encrypt nothing new. */
enum backend_step bao_data_key(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                               struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    if (!reply) {
        if (!bao_is_key_name(call->key))
            return bao_refuse_name(bao, call, call->key);
        return bao_send_read_key(bao, call, request, call->key, DATA_KEY_READ);
    }
    bool reading = call->stage == DATA_KEY_READ;
    if (!bao_accepted(bao, call, reply, reading ? "read key" : "make a data key with key", call->key, &root, &step))
        return step;
    if (reading) {
        step = bao_check_encrypts(bao, call, root, call->key, false);
        return step == BACKEND_DONE ? data_key_send(bao, call, request) : step;
    }
    step = take_ciphertext(call, root, "make a data key with key", call->key, false);
    if (step != BACKEND_DONE || !call->wants_plaintext)
        return step;
    if (!bao_take_plaintext(call, json_object_get(root, "data"), &call->plaintext) ||
        call->plaintext.length != call->length)
        return bao_malformed(call, "make a data key with key", call->key, "data.plaintext");
    if (call->dry_run)
        buffer_clear(&call->plaintext);
    return BACKEND_DONE;
}

/* ---- random ---- */

static enum backend_step random_send(const struct bao *bao, struct backend_call *call, struct http_request *request)
{
    size_t left = call->length - call->out.length;
    size_t count = left < BAO_RANDOM_MAX ? left : BAO_RANDOM_MAX;
    if (!bao_request(bao, call, request, HTTP_POST, NULL, "%s/random/%zu", bao->mount, count))
        return BACKEND_FAILED;
    web_body_text(request, "format", "base64");
    return bao_send(call, request, 1);
}

enum backend_step bao_random(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                             struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    size_t before = call->out.length, length = 0;
    if (call->length == 0)
        return BACKEND_DONE;
    if (!reply)
        return random_send(bao, call, request);
    if (!bao_accepted(bao, call, reply, "read random bytes from", bao->mount, &root, &step))
        return step;
    const char *text = bao_secret(call, json_object_get(root, "data"), "random_bytes", &length);
    bool taken = text && buffer_append_unbase64(&call->out, text, length);
    size_t left = call->length - before;
    if (!taken || call->out.length - before != (left < BAO_RANDOM_MAX ? left : BAO_RANDOM_MAX))
        return bao_malformed(call, "read random bytes from", bao->mount, "data.random_bytes");
    return call->out.length < call->length ? random_send(bao, call, request) : BACKEND_DONE;
}
