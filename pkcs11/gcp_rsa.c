/*
 * RSA keys (purpose ASYMMETRIC_DECRYPT). A version of such a key is what encrypts and decrypts, so that an id names
 * one. The service decrypts; it gives out the public key, and encrypting with that is done here.
 */
#include "gcp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "base/error.h"
#include "base/libctx.h"
#include "json.h"
#include "jwt.h"
#include "web.h"

enum { CIPHERTEXT_MAX = 1024 };

bool gcp_parse_algorithm(const char *name, unsigned *bits, bool *sha1)
{
    static const struct {
        const char *name;
        unsigned bits;
        bool sha1;
    } known[] = {
        {"RSA_DECRYPT_OAEP_2048_SHA256", 2048, false}, {"RSA_DECRYPT_OAEP_3072_SHA256", 3072, false},
        {"RSA_DECRYPT_OAEP_4096_SHA256", 4096, false}, {"RSA_DECRYPT_OAEP_2048_SHA1", 2048, true},
        {"RSA_DECRYPT_OAEP_3072_SHA1", 3072, true},    {"RSA_DECRYPT_OAEP_4096_SHA1", 4096, true},
    };
    for (size_t i = 0; name && i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, name) == 0) {
            *bits = known[i].bits;
            *sha1 = known[i].sha1;
            return true;
        }
    return false;
}

/* --- The public key --- */

static EVP_PKEY *parse_pem(const char *pem)
{
    OSSL_LIB_CTX *context = libctx_private();
    BIO *text = context ? BIO_new_mem_buf(pem, -1) : NULL;
    EVP_PKEY *key = text ? PEM_read_bio_PUBKEY_ex(text, NULL, jwt_no_passphrase, NULL, context, NULL) : NULL;
    BIO_free(text);
    if (key && EVP_PKEY_is_a(key, "RSA"))
        return key;
    EVP_PKEY_free(key);
    return NULL;
}

enum backend_step gcp_read_public_key(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                      const struct gcp_id *id, struct gcp_public *public)
{
    struct gcp_id answered = {0};
    json_t *root = json_read(&reply->body);
    const char *pem = root ? json_member(root, "pem") : NULL, *name = root ? json_member(root, "name") : NULL;
    enum backend_step step = BACKEND_DONE;
    public->key = NULL;
    if (!pem || !gcp_parse_algorithm(json_member(root, "algorithm"), &public->bits, &public->sha1))
        step = gcp_bad_reply(gcp, call, "get public key", "no public key for RSA-OAEP");
    else if (!gcp_parse_id(gcp, name ? name : "", &answered) || strcmp(answered.name, id->name) != 0 ||
             strcmp(answered.version, id->version) != 0)
        step = gcp_bad_reply(gcp, call, "get public key", "it speaks of another key");
    else if (!gcp_crc_matches(root, "pemCrc32c", gcp_crc32c((const uint8_t *)pem, strlen(pem))))
        step = gcp_changed(gcp, call, "get public key");
    else if (!(public->key = parse_pem(pem)) || EVP_PKEY_get_bits(public->key) != (int)public->bits)
        step = gcp_bad_reply(gcp, call, "get public key", "no public key for RSA-OAEP");
    json_decref(root);
    if (step != BACKEND_DONE) {
        EVP_PKEY_free(public->key);
        public->key = NULL;
    }
    return step;
}

bool gcp_ask_public_key(const struct gcp *gcp, struct backend_call *call, const struct gcp_id *id,
                        struct http_request *request)
{
    return web_request(call, request, HTTP_GET, "%s/v1/%s/cryptoKeys/%s/cryptoKeyVersions/%s/publicKey", gcp->endpoint,
                       gcp->ring, id->name, id->version);
}

/* --- Encrypting, decrypting --- */

static bool encrypt(EVP_PKEY *key, bool sha1, const struct backend_call *call, struct buffer *out)
{
    const char *digest = sha1 ? "SHA1" : "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_PAD_MODE, (char *)OSSL_PKEY_RSA_PAD_MODE_OAEP, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST, (char *)digest, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST, (char *)digest, 0),
        OSSL_PARAM_construct_end()};
    uint8_t room[CIPHERTEXT_MAX];
    size_t length = sizeof room;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(libctx_private(), key, NULL);
    bool ok = context && EVP_PKEY_encrypt_init_ex(context, params) > 0 &&
              EVP_PKEY_encrypt(context, room, &length, call->in, call->in_length) > 0;
    EVP_PKEY_CTX_free(context);
    if (ok)
        buffer_append(out, room, length);
    return ok && buffer_ok(out);
}

static enum backend_step on_public_key(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                                       const struct gcp_id *id)
{
    struct gcp_public public = {0};
    enum backend_step step = gcp_read_public_key(gcp, call, reply, id, &public);
    if (step != BACKEND_DONE)
        return step;
    if (public.sha1 != (call->cipher == BACKEND_OAEP_SHA1))
        step = backend_fail(call, CKR_MECHANISM_PARAM_INVALID,
                            error_raise(ENVELOPE_E_WRAP_MECHANISM, "[token %s]: the key %s does RSA-OAEP with %s only",
                                        gcp->settings->label, call->key, public.sha1 ? "SHA-1" : "SHA-256"));
    else if (!encrypt(public.key, public.sha1, call, &call->out))
        step = backend_fail(call, CKR_DATA_LEN_RANGE,
                            error_raise(ENVELOPE_E_CRYPTO, "[token %s]: libcrypto cannot encrypt %zu bytes with key %s",
                                        gcp->settings->label, call->in_length, call->key));
    EVP_PKEY_free(public.key);
    if (step != BACKEND_DONE || call->dry_run)
        buffer_reset(&call->out);
    return step;
}

static enum backend_step on_decrypted(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply)
{
    json_t *root;
    enum backend_step step =
        gcp_take_bytes(gcp, call, reply, "asymmetricDecrypt", "plaintext", "plaintextCrc32c", &call->out, &root);
    if (step != BACKEND_DONE)
        return step;
    if (!json_is_true(json_object_get(root, "verifiedCiphertextCrc32c")))
        step = gcp_changed(gcp, call, "asymmetricDecrypt");
    else if (call->out.length > CIPHERTEXT_MAX)
        step = gcp_bad_reply(gcp, call, "asymmetricDecrypt", "more bytes than can have been encrypted");
    json_decref(root);
    if (step != BACKEND_DONE || call->dry_run)
        buffer_reset(&call->out);
    return step;
}

static enum backend_step ask_decrypt(const struct gcp *gcp, struct backend_call *call, const struct gcp_id *id,
                                     struct http_request *request)
{
    if (!web_request(call, request, HTTP_POST, "%s/v1/%s/cryptoKeys/%s/cryptoKeyVersions/%s:asymmetricDecrypt",
                     gcp->endpoint, gcp->ring, id->name, id->version))
        return BACKEND_FAILED;
    web_body_base64(request, "ciphertext", call->in, call->in_length);
    web_body_number(request, "ciphertextCrc32c", gcp_crc32c(call->in, call->in_length), true);
    return web_body_close(call, request);
}

enum backend_step gcp_step_rsa(const struct gcp *gcp, struct backend_call *call, const struct http_reply *reply,
                               struct http_request *request)
{
    struct gcp_id id;
    bool encrypting = call->op == BACKEND_ENCRYPT;
    if (!gcp_parse_id(gcp, call->key, &id) || !*id.version)
        return backend_fail(call, CKR_KEY_HANDLE_INVALID,
                            error_raise(ENVELOPE_E_KEK_UNKNOWN, "[token %s]: \"%s\" names no version of an RSA key",
                                        gcp->settings->label, call->key));
    if (!reply) {
        buffer_reset(&call->out);
        if (!encrypting)
            return ask_decrypt(gcp, call, &id, request);
        return gcp_ask_public_key(gcp, call, &id, request) ? BACKEND_SEND : BACKEND_FAILED;
    }
    enum backend_step step =
        gcp_judge(gcp, call, reply, encrypting ? "get public key" : "asymmetricDecrypt", call->key);
    if (step != BACKEND_DONE)
        return step;
    buffer_reset(&call->out);
    return encrypting ? on_public_key(gcp, call, reply, &id) : on_decrypted(gcp, call, reply);
}
