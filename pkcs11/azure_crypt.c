/*
 * wrapkey and unwrapkey with RSA, encrypt and decrypt with AES-256-GCM, rng.
 *
 * Azure's results do not say which version of the key made them, and those of RSA bind no associated data. So the blob
 * of BACKEND_AEAD is a text of ours:
 *
 *     azure1:VERSION:IV:TAG:VALUE       base64url; IV and TAG are empty with RSA
 *
 * and with RSA what is wrapped is the plaintext, then the first 16 bytes of the SHA-256 of the associated data, which
 * are compared when it is unwrapped. That binds against mixing blobs up; who has the public key can still make a blob
 * with any binding, as with RSA they always can.
 */
#include "azure.h"

#include <stdio.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/error.h"
#include "base/libctx.h"
#include "json.h"
#include "web.h"

enum stage { STAGE_DECRYPT = 1, STAGE_KEY, STAGE_ENCRYPT, STAGE_RANDOM };
enum { BINDING = 16, DIGEST = 32, RANDOM_MAX = 128, FIELD_MAX = 6144, RSA_MAX = 1024 };

static const char prefix[] = "azure1:";

struct field {
    const char *from;
    size_t length;
};

struct blob {
    struct field version, iv, tag, value;
};

static bool take_field(const char **at, const char *end, char stop, struct field *field)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    field->from = *at;
    while (*at < end && **at && strchr(digits, **at))
        (*at)++;
    field->length = (size_t)(*at - field->from);
    if (!stop)
        return *at == end;
    return *at < end && *(*at)++ == stop;
}

static bool read_blob(const uint8_t *bytes, size_t length, struct blob *blob)
{
    const char *at = (const char *)bytes, *end = at + length;
    size_t skip = sizeof prefix - 1;
    if (length <= skip || length > FIELD_MAX || memcmp(at, prefix, skip) != 0)
        return false;
    at += skip;
    return take_field(&at, end, ':', &blob->version) && take_field(&at, end, ':', &blob->iv) &&
           take_field(&at, end, ':', &blob->tag) && take_field(&at, end, '\0', &blob->value) && blob->version.length &&
           blob->version.length <= AZURE_VERSION_MAX && blob->value.length && !blob->iv.length == !blob->tag.length;
}

static const char *oaep_name(enum backend_cipher cipher)
{
    return cipher == BACKEND_OAEP_SHA1 ? "RSA-OAEP" : "RSA-OAEP-256";
}

static bool binding_of(struct backend_call *call, const uint8_t *aad, size_t length, uint8_t digest[DIGEST])
{
    OSSL_LIB_CTX *context = libctx_private();
    EVP_MD *method = context ? EVP_MD_fetch(context, "SHA256", NULL) : NULL;
    bool ok = method && EVP_Digest(length ? (const void *)aad : "", length, digest, NULL, method, NULL);
    EVP_MD_free(method);
    if (!ok)
        backend_fail(call, CKR_FUNCTION_FAILED, error_raise(ENVELOPE_E_CRYPTO, "libcrypto cannot compute SHA-256"));
    return ok;
}

static void add_field(struct http_request *request, const char *name, struct field field)
{
    buffer_append_text(&request->body, request->body.length > 1 ? "," : "");
    buffer_append_json(&request->body, name);
    buffer_append_text(&request->body, ":\"");
    buffer_append(&request->body, field.from, field.length);
    buffer_append_text(&request->body, "\"");
}

/* --- Decrypting --- */

static enum backend_step ask_decrypt_blob(const struct azure *azure, struct backend_call *call,
                                          struct http_request *request, struct azure_id *id)
{
    struct azure_work *work = call->work;
    struct blob blob;
    if (!read_blob(call->in, call->in_length, &blob))
        return backend_fail(
            call, CKR_ENCRYPTED_DATA_INVALID,
            error_raise(ENVELOPE_E_UNWRAP, "[token %s]: this is no blob of this token", azure->settings->label));
    snprintf(id->version, sizeof id->version, "%.*s", (int)blob.version.length, blob.version.from);
    if (strchr(id->version, '_'))
        return backend_fail(call, CKR_ENCRYPTED_DATA_INVALID,
                            error_raise(ENVELOPE_E_UNWRAP, "[token %s]: the blob is damaged", azure->settings->label));
    work->rsa = !blob.iv.length;
    if (!azure_request(azure, call, request, HTTP_POST, id, work->rsa ? "unwrapkey" : "decrypt"))
        return BACKEND_FAILED;
    web_body_text(request, "alg", work->rsa ? "RSA-OAEP-256" : "A256GCM");
    add_field(request, "value", blob.value);
    if (!work->rsa) {
        add_field(request, "iv", blob.iv);
        add_field(request, "tag", blob.tag);
    }
    if (!work->rsa && call->has_aad)
        web_body_base64url(request, "aad", call->aad, call->aad_length);
    return web_body_close(call, request);
}

static enum backend_step ask_decrypt(const struct azure *azure, struct backend_call *call, struct http_request *request)
{
    struct azure_id id;
    if (!azure_work(call) || !azure_take_id(azure, call, call->key, &id))
        return BACKEND_FAILED;
    call->stage = STAGE_DECRYPT;
    if (call->cipher == BACKEND_AEAD)
        return ask_decrypt_blob(azure, call, request, &id);
    if (!azure_request(azure, call, request, HTTP_POST, &id, "unwrapkey"))
        return BACKEND_FAILED;
    web_body_text(request, "alg", oaep_name(call->cipher));
    web_body_base64url(request, "value", call->in, call->in_length);
    return web_body_close(call, request);
}

static enum backend_step check_binding(const struct azure *azure, struct backend_call *call, struct buffer *plain)
{
    uint8_t digest[DIGEST];
    if (!binding_of(call, call->aad, call->has_aad ? call->aad_length : 0, digest))
        return BACKEND_FAILED;
    if (plain->length <= BINDING || CRYPTO_memcmp(plain->bytes + plain->length - BINDING, digest, BINDING) != 0)
        return backend_fail(call, CKR_ENCRYPTED_DATA_INVALID,
                            error_raise(ENVELOPE_E_UNWRAP,
                                        "[token %s]: the blob was made with other associated data, with key %s",
                                        azure->settings->label, call->key));
    plain->length -= BINDING;
    memset(plain->bytes + plain->length, 0, BINDING);
    return BACKEND_DONE;
}

/* Azure names the key that did the work; another one would be a confused service. */
static bool is_about(const json_t *root, const char *key, const char *version)
{
    struct azure_id asked, answered;
    const char *kid = root ? json_member(root, "kid") : NULL;
    if (!azure_parse_id(key, &asked) || !azure_parse_kid(kid, &answered) || strcmp(asked.name, answered.name) != 0)
        return false;
    if (!*version)
        version = asked.version;
    return !*version || strcmp(version, answered.version) == 0;
}

static enum backend_step take_plaintext(const struct azure *azure, struct backend_call *call,
                                        const struct http_reply *reply, struct buffer *plain)
{
    const struct azure_work *work = call->work;
    const char *doing = call->cipher == BACKEND_AEAD && !work->rsa ? "decrypt" : "unwrapkey";
    struct buffer body = {0};
    struct blob blob = {0};
    char version[AZURE_VERSION_MAX + 1] = "";
    if (call->cipher == BACKEND_AEAD && read_blob(call->in, call->in_length, &blob))
        snprintf(version, sizeof version, "%.*s", (int)blob.version.length, blob.version.from);
    buffer_append(&body, reply->body.bytes, reply->body.length);
    bool taken = web_take_bytes(&body, "value", true, plain) && plain->length;
    json_t *root = json_read(&body);
    bool ours = is_about(root, call->key, version);
    bool parsed = root != NULL;
    json_decref(root);
    buffer_clear(&body);
    if (!parsed || !taken)
        return azure_bad_reply(azure, call, doing, parsed ? "no value" : "not a JSON object");
    if (!ours)
        return azure_bad_reply(azure, call, doing, "it speaks of another key");
    enum backend_step step =
        call->cipher == BACKEND_AEAD && work->rsa ? check_binding(azure, call, plain) : BACKEND_DONE;
    size_t max = call->cipher == BACKEND_AEAD ? azure->plaintext_max : RSA_MAX;
    if (step == BACKEND_DONE && plain->length > max)
        step = azure_bad_reply(azure, call, doing, "more bytes than can have been encrypted");
    return step;
}

/* --- Encrypting --- */

static const char *target_of(const struct backend_call *call)
{
    return call->op == BACKEND_REWRAP ? call->key_to : call->key;
}

/* The kind of key decides what to ask for, and its newest version is what is to be used. */
static enum backend_step ask_key(const struct azure *azure, struct backend_call *call, struct http_request *request)
{
    struct azure_id id;
    if (!azure_work(call) || !azure_take_id(azure, call, target_of(call), &id))
        return BACKEND_FAILED;
    call->stage = STAGE_KEY;
    return azure_request(azure, call, request, HTTP_GET, &id, "") ? BACKEND_SEND : BACKEND_FAILED;
}

static bool add_bound(struct backend_call *call, struct http_request *request, const uint8_t *plain, size_t length,
                      const uint8_t *aad, size_t aad_length)
{
    uint8_t digest[DIGEST];
    struct buffer both = {0};
    if (!binding_of(call, aad, aad_length, digest))
        return false;
    buffer_append(&both, plain, length);
    buffer_append(&both, digest, BINDING);
    bool ok = buffer_ok(&both);
    if (ok)
        web_body_base64url(request, "value", both.bytes, both.length);
    else
        backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
    buffer_clear(&both);
    return ok;
}

static enum backend_step ask_encrypt(const struct azure *azure, struct backend_call *call, struct http_request *request)
{
    struct azure_work *work = call->work;
    struct azure_id id;
    bool moving = call->op == BACKEND_REWRAP;
    const uint8_t *plain = moving ? work->secret.bytes : call->in;
    size_t length = moving ? work->secret.length : call->in_length;
    bool has_aad = moving ? call->has_aad_to : call->has_aad;
    const uint8_t *aad = moving ? call->aad_to : call->aad;
    size_t aad_length = has_aad ? (moving ? call->aad_to_length : call->aad_length) : 0;
    if (!azure_take_id(azure, call, target_of(call), &id))
        return BACKEND_FAILED;
    snprintf(id.version, sizeof id.version, "%s", work->version);
    if (!azure_request(azure, call, request, HTTP_POST, &id, work->rsa ? "wrapkey" : "encrypt"))
        return BACKEND_FAILED;
    web_body_text(request, "alg", work->rsa ? "RSA-OAEP-256" : "A256GCM");
    if (work->rsa && !add_bound(call, request, plain, length, aad, aad_length))
        return BACKEND_FAILED;
    if (!work->rsa)
        web_body_base64url(request, "value", plain, length);
    if (!work->rsa && has_aad)
        web_body_base64url(request, "aad", aad, aad_length);
    call->stage = STAGE_ENCRYPT;
    return web_body_close(call, request);
}

static enum backend_step ask_oaep(const struct azure *azure, struct backend_call *call, struct http_request *request)
{
    struct azure_id id;
    if (!azure_work(call) || !azure_take_id(azure, call, call->key, &id) ||
        !azure_request(azure, call, request, HTTP_POST, &id, "wrapkey"))
        return BACKEND_FAILED;
    web_body_text(request, "alg", oaep_name(call->cipher));
    web_body_base64url(request, "value", call->in, call->in_length);
    call->stage = STAGE_ENCRYPT;
    return web_body_close(call, request);
}

static enum backend_step on_key(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                struct http_request *request)
{
    struct azure_work *work = call->work;
    struct backend_key key = {0};
    struct azure_id id;
    bool usable = false;
    enum backend_step step = azure_read_bundle(azure, call, reply, &key, &usable);
    /* Azure itself lets a disabled RSA key wrap: only what needs the private key is refused there. */
    if (step == BACKEND_DONE && usable && !key.enabled)
        step = backend_fail(call, CKR_KEY_FUNCTION_NOT_PERMITTED,
                            error_raise(ENVELOPE_E_KEK_REFUSED, "[token %s]: the key %s is %s", azure->settings->label,
                                        target_of(call), key.state));
    if (step == BACKEND_DONE && (!usable || !key.can_encrypt))
        step = backend_fail(call, CKR_KEY_FUNCTION_NOT_PERMITTED,
                            error_raise(ENVELOPE_E_KEK_REFUSED, "[token %s]: the key %s is not meant to encrypt",
                                        azure->settings->label, target_of(call)));
    if (step == BACKEND_DONE && (!azure_parse_id(key.id, &id)))
        step = azure_bad_reply(azure, call, "get key", "no key bundle");
    if (step == BACKEND_DONE) {
        work->rsa = key.type == BACKEND_KEY_RSA;
        snprintf(work->version, sizeof work->version, "%s", id.version);
    }
    backend_key_clear(&key);
    return step == BACKEND_DONE ? ask_encrypt(azure, call, request) : step;
}

static bool append_member(struct buffer *to, const json_t *root, const char *name)
{
    struct buffer bytes = {0};
    const char *text = json_member(root, name);
    bool ok = text && web_append_unbase64url(&bytes, text, strlen(text)) && bytes.length;
    buffer_clear(&bytes);
    if (ok)
        buffer_append_text(to, text);
    return ok;
}

static enum backend_step take_blob(const struct azure *azure, struct backend_call *call, const struct http_reply *reply)
{
    const struct azure_work *work = call->work;
    const char *doing = call->cipher != BACKEND_AEAD || work->rsa ? "wrapkey" : "encrypt";
    json_t *root = json_read(&reply->body);
    const char *value = root ? json_member(root, "value") : NULL;
    bool ours = is_about(root, target_of(call), call->cipher == BACKEND_AEAD ? work->version : "");
    bool parsed = root != NULL, ok = value != NULL;
    buffer_reset(&call->out);
    if (ok && call->cipher != BACKEND_AEAD) {
        ok = web_append_unbase64url(&call->out, value, strlen(value)) && call->out.length;
    } else if (ok) {
        buffer_append_text(&call->out, prefix);
        buffer_append_text(&call->out, work->version);
        buffer_append_text(&call->out, ":");
        ok = work->rsa || append_member(&call->out, root, "iv");
        buffer_append_text(&call->out, ":");
        ok = ok && (work->rsa || append_member(&call->out, root, "tag"));
        buffer_append_text(&call->out, ":");
        ok = ok && append_member(&call->out, root, "value");
    }
    json_decref(root);
    if (!ours)
        return azure_bad_reply(azure, call, doing, parsed ? "it speaks of another key" : "not a JSON object");
    if (!ok || call->out.length > azure->blob_max)
        return azure_bad_reply(azure, call, doing, "no value, iv or tag");
    if (!buffer_ok(&call->out))
        return backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
    if (call->dry_run)
        buffer_reset(&call->out);
    return BACKEND_DONE;
}

/* --- Random numbers (managed HSM) --- */

static enum backend_step ask_random(const struct azure *azure, struct backend_call *call, struct http_request *request)
{
    size_t left = call->length - call->out.length;
    if (!left)
        return BACKEND_DONE;
    if (!azure->managed_hsm)
        return backend_fail(
            call, CKR_RANDOM_NO_RNG,
            error_raise(ENVELOPE_E_HSM, "[token %s]: a vault has no random number generator", azure->settings->label));
    if (!web_request(call, request, HTTP_POST, "%s/rng?api-version=7.4", azure->base))
        return BACKEND_FAILED;
    web_body_number(request, "count", left < RANDOM_MAX ? left : RANDOM_MAX, false);
    call->stage = STAGE_RANDOM;
    return web_body_close(call, request);
}

static enum backend_step take_random(const struct azure *azure, struct backend_call *call,
                                     const struct http_reply *reply, struct http_request *request)
{
    struct buffer body = {0};
    size_t before = call->out.length, left = call->length - before;
    buffer_append(&body, reply->body.bytes, reply->body.length);
    bool ok = web_take_bytes(&body, "value", true, &call->out);
    json_t *root = json_read(&body);
    ok = ok && root && call->out.length - before == (left < RANDOM_MAX ? left : RANDOM_MAX);
    json_decref(root);
    buffer_clear(&body);
    return ok ? ask_random(azure, call, request)
              : azure_bad_reply(azure, call, "rng", "not as many bytes as asked for");
}

/* --- The order of things --- */

static enum backend_step begin(const struct azure *azure, struct backend_call *call, struct http_request *request)
{
    buffer_reset(&call->out);
    if (call->op == BACKEND_RANDOM)
        return ask_random(azure, call, request);
    if (call->op == BACKEND_ENCRYPT)
        return call->cipher == BACKEND_AEAD ? ask_key(azure, call, request) : ask_oaep(azure, call, request);
    return ask_decrypt(azure, call, request);
}

static enum backend_step on_decrypted(const struct azure *azure, struct backend_call *call,
                                      const struct http_reply *reply, struct http_request *request)
{
    struct azure_work *work = call->work;
    bool moving = call->op == BACKEND_REWRAP;
    struct buffer *plain = moving ? &work->secret : &call->out;
    buffer_reset(plain);
    enum backend_step step = take_plaintext(azure, call, reply, plain);
    if (step != BACKEND_DONE) {
        buffer_reset(plain);
        return step;
    }
    if (call->dry_run && !moving)
        buffer_reset(plain);
    if (!moving)
        return BACKEND_DONE;
    call->plaintext_left = true;
    return ask_key(azure, call, request);
}

enum backend_step azure_step_crypt(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                   struct http_request *request)
{
    if (!reply)
        return begin(azure, call, request);
    const struct azure_work *work = call->work;
    bool rsa = call->cipher != BACKEND_AEAD || (work && work->rsa);
    const char *doing = call->stage == STAGE_DECRYPT   ? (rsa ? "unwrapkey" : "decrypt")
                        : call->stage == STAGE_ENCRYPT ? (rsa ? "wrapkey" : "encrypt")
                        : call->stage == STAGE_RANDOM  ? "rng"
                                                       : "get key";
    const char *key = call->stage == STAGE_DECRYPT ? call->key : call->stage == STAGE_RANDOM ? "" : target_of(call);
    enum backend_step step = azure_judge(azure, call, reply, doing, key);
    if (step != BACKEND_DONE)
        return step;
    if (call->stage == STAGE_DECRYPT)
        return on_decrypted(azure, call, reply, request);
    if (call->stage == STAGE_KEY)
        return on_key(azure, call, reply, request);
    if (call->stage == STAGE_RANDOM)
        return take_random(azure, call, reply, request);
    return take_blob(azure, call, reply);
}
