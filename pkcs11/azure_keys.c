/* Listing keys, describing one. */
#include "azure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/libctx.h"
#include "base/text.h"
#include "json.h"
#include "web.h"

enum stage { STAGE_LIST = 1, STAGE_GET };
enum { KEYS_MAX = 10000 };

static enum backend_step no_memory(struct backend_call *call)
{
    return backend_fail(call, CKR_HOST_MEMORY, error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the list of keys"));
}

/* --- One key --- */

/* An RSA public key as SubjectPublicKeyInfo; false if n and e are none. */
static bool encode_rsa(const struct buffer *n, const struct buffer *e, struct backend_key *key)
{
    OSSL_LIB_CTX *context = libctx_private();
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *modulus = BN_bin2bn(n->bytes, (int)n->length, NULL);
    BIGNUM *exponent = BN_bin2bn(e->bytes, (int)e->length, NULL);
    OSSL_PARAM *params = NULL;
    EVP_PKEY_CTX *maker = context ? EVP_PKEY_CTX_new_from_name(context, "RSA", NULL) : NULL;
    EVP_PKEY *made = NULL;
    unsigned char *der = NULL;
    int length = 0;
    if (build && modulus && exponent && maker && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, modulus) &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent) && (params = OSSL_PARAM_BLD_to_param(build)) &&
        EVP_PKEY_fromdata_init(maker) > 0 && EVP_PKEY_fromdata(maker, &made, EVP_PKEY_PUBLIC_KEY, params) > 0)
        length = i2d_PUBKEY(made, &der);
    if (length > 0 && (key->public_key = malloc((size_t)length))) {
        memcpy(key->public_key, der, (size_t)length);
        key->public_key_length = (size_t)length;
        key->bits = (unsigned)EVP_PKEY_get_bits(made);
    }
    OPENSSL_free(der);
    EVP_PKEY_free(made);
    EVP_PKEY_CTX_free(maker);
    OSSL_PARAM_free(params);
    BN_free(modulus);
    BN_free(exponent);
    OSSL_PARAM_BLD_free(build);
    return key->public_key != NULL;
}

static bool read_rsa(const json_t *data, struct backend_key *key)
{
    const char *n = json_member(data, "n"), *e = json_member(data, "e");
    struct buffer modulus = {0}, exponent = {0};
    bool ok = n && e && web_append_unbase64url(&modulus, n, strlen(n)) &&
              web_append_unbase64url(&exponent, e, strlen(e)) && modulus.length >= 128 && modulus.length <= 1024 &&
              exponent.length >= 1 && exponent.length <= 8 && encode_rsa(&modulus, &exponent, key);
    buffer_clear(&modulus);
    buffer_clear(&exponent);
    key->type = BACKEND_KEY_RSA;
    return ok;
}

static bool allows(const json_t *data, const char *operation)
{
    json_t *operations = json_object_get(data, "key_ops"), *item;
    size_t i;
    json_array_foreach(operations, i, item)
    {
        const char *name = json_string_value(item);
        if (name && strcmp(name, operation) == 0)
            return true;
    }
    return false;
}

static void read_state(const json_t *attributes, struct backend_key *key)
{
    int64_t now = clock_wall();
    json_int_t from = json_integer_value(json_object_get(attributes, "nbf"));
    json_int_t until = json_integer_value(json_object_get(attributes, "exp"));
    json_int_t created = json_integer_value(json_object_get(attributes, "created"));
    const char *state = "enabled";
    key->enabled = json_is_true(json_object_get(attributes, "enabled"));
    if (!key->enabled)
        state = "disabled";
    else if (from > now / CLOCK_SECOND)
        state = "not valid yet";
    else if (until > 0 && until < now / CLOCK_SECOND)
        state = "expired";
    snprintf(key->state, sizeof key->state, "%s", state);
    key->created = created > 0 && created < INT64_MAX / CLOCK_SECOND ? (int64_t)created * CLOCK_SECOND : 0;
    /* The service does not tell where a key was made; one that may be released has copies. */
    key->imported = json_is_true(json_object_get(attributes, "exportable"));
}

static bool is_one_of(const char *text, const char *one, const char *other)
{
    return text && (strcmp(text, one) == 0 || strcmp(text, other) == 0);
}

enum backend_step azure_read_bundle(const struct azure *azure, struct backend_call *call,
                                    const struct http_reply *reply, struct backend_key *key, bool *usable)
{
    json_t *root = json_read(&reply->body);
    const json_t *data = root ? json_object_get(root, "key") : NULL;
    const json_t *attributes = root ? json_object_get(root, "attributes") : NULL;
    const char *type = data ? json_member(data, "kty") : NULL;
    struct azure_id id;
    enum backend_step step = BACKEND_DONE;
    if (!type || !json_is_object(attributes) || !azure_parse_kid(json_member(data, "kid"), &id) || !*id.version) {
        step = azure_bad_reply(azure, call, "get key", "no key bundle");
        goto out;
    }
    bool rsa = is_one_of(type, "RSA", "RSA-HSM"), symmetric = is_one_of(type, "oct-HSM", "oct");
    *usable = rsa || (symmetric && azure->managed_hsm);
    if (rsa && !read_rsa(data, key)) {
        step = azure_bad_reply(azure, call, "get key", "no RSA public key");
        goto out;
    }
    if (!rsa) {
        key->type = BACKEND_KEY_SYMMETRIC;
        key->bits = 256; /* not told; A256GCM is what we ask for, and other sizes refuse it */
    }
    read_state(attributes, key);
    key->can_encrypt = allows(data, rsa ? "wrapKey" : "encrypt");
    key->can_decrypt = allows(data, rsa ? "unwrapKey" : "decrypt");
    *usable = *usable && (key->can_encrypt || key->can_decrypt);
    key->id = text_format("%s/%s", id.name, id.version);
    key->label = text_copy(id.name);
    if (!key->id || !key->label)
        step = no_memory(call);
out:
    json_decref(root);
    return step;
}

/* --- The order of things --- */

static enum backend_step next_key(const struct azure *azure, struct backend_call *call, struct http_request *request)
{
    struct azure_work *work = call->work;
    for (const char *name; (name = names_current(&work->names)); work->names.at++) {
        struct azure_id id;
        if (!azure_parse_id(name, &id))
            continue; /* what cannot be a key's name leads to no key */
        call->stage = STAGE_GET;
        return azure_request(azure, call, request, HTTP_GET, &id, "") ? BACKEND_SEND : BACKEND_FAILED;
    }
    return BACKEND_DONE;
}

static enum backend_step ask_list(const struct azure *azure, struct backend_call *call, struct http_request *request)
{
    const struct azure_work *work = call->work;
    call->stage = STAGE_LIST;
    return web_request(call, request, HTTP_GET, "%s/keys?%s", azure->base, work->next ? work->next : "api-version=7.4")
               ? BACKEND_SEND
               : BACKEND_FAILED;
}

static enum backend_step begin(const struct azure *azure, struct backend_call *call, struct http_request *request)
{
    struct azure_work *work = azure_work(call);
    if (!work)
        return BACKEND_FAILED;
    if (call->op == BACKEND_DESCRIBE)
        return names_add(&work->names, call->key, strlen(call->key)) ? next_key(azure, call, request) : no_memory(call);
    const char *list = azure->settings->keys;
    if (!list)
        return ask_list(azure, call, request);
    return names_add_list(&work->names, list) ? next_key(azure, call, request) : no_memory(call);
}

/* What follows the vault's own host in an address; NULL if it is another's. */
static const char *after_host(const struct azure *azure, const char *url)
{
    const char *from = strstr(url, "://"), *host = strstr(azure->base, "://") + 3;
    size_t length = strlen(host);
    if (!from || strncmp(from + 3, host, length) != 0)
        return NULL;
    from += 3 + length;
    return strncmp(from, ":443/", 5) == 0 ? from + 4 : from; /* a port which the service writes out */
}

/* The next page's address is the service's to choose, but the access token goes to our vault only. */
static enum backend_step take_next(const struct azure *azure, struct backend_call *call, const json_t *root)
{
    struct azure_work *work = call->work;
    const char *next = json_member(root, "nextLink");
    char *kept = work->next;
    work->next = NULL;
    if (next && *next) {
        const char *rest = after_host(azure, next);
        bool ours = rest && strncmp(rest, "/keys?", 6) == 0;
        bool again = ours && kept && strcmp(rest + 6, kept) == 0;
        free(kept);
        if (!ours || again)
            return azure_bad_reply(azure, call, "list keys", "a next page that is not the vault's");
        work->next = text_copy(rest + 6);
        return work->next ? BACKEND_DONE : no_memory(call);
    }
    free(kept);
    return BACKEND_DONE;
}

static enum backend_step take_list(const struct azure *azure, struct backend_call *call, const json_t *root)
{
    struct azure_work *work = call->work;
    json_t *items = json_object_get(root, "value"), *item;
    size_t i;
    if (!json_is_array(items))
        return azure_bad_reply(azure, call, "list keys", "no list of keys");
    json_array_foreach(items, i, item)
    {
        struct azure_id id;
        if (!azure_parse_kid(json_member(item, "kid"), &id))
            return azure_bad_reply(azure, call, "list keys", "a key without its id");
        if (json_is_true(json_object_get(item, "managed")))
            continue; /* a certificate's */
        if (work->names.count == KEYS_MAX)
            return backend_fail(call, CKR_DEVICE_MEMORY,
                                error_raise(ENVELOPE_E_HSM, "[token %s]: over %d keys; name the ones to show with keys",
                                            azure->settings->label, (int)KEYS_MAX));
        if (!names_add(&work->names, id.name, strlen(id.name)))
            return no_memory(call);
    }
    return take_next(azure, call, root);
}

static enum backend_step on_list(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                 struct http_request *request)
{
    const struct azure_work *work = call->work;
    json_t *root = json_read(&reply->body);
    if (!root)
        return azure_bad_reply(azure, call, "list keys", "not a JSON object");
    enum backend_step step = take_list(azure, call, root);
    json_decref(root);
    if (step != BACKEND_DONE)
        return step;
    return work->next ? ask_list(azure, call, request) : next_key(azure, call, request);
}

static enum backend_step on_key(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                struct http_request *request)
{
    struct azure_work *work = call->work;
    struct backend_key *key = backend_add_key(call);
    bool usable = false;
    if (!key)
        return BACKEND_FAILED;
    enum backend_step step = azure_read_bundle(azure, call, reply, key, &usable);
    if (step != BACKEND_DONE)
        return step;
    if (!usable) {
        backend_key_clear(key);
        call->keys.count--;
    }
    work->names.at++;
    return next_key(azure, call, request);
}

enum backend_step azure_step_keys(const struct azure *azure, struct backend_call *call, const struct http_reply *reply,
                                  struct http_request *request)
{
    if (!reply)
        return begin(azure, call, request);
    struct azure_work *work = call->work;
    bool one = call->stage == STAGE_GET;
    enum backend_step step =
        azure_judge(azure, call, reply, one ? "get key" : "list keys", one ? names_current(&work->names) : "");
    /* "There is no such key" is an answer. */
    if (step == BACKEND_FAILED && one && call->rv == CKR_KEY_HANDLE_INVALID && reply->status == 404) {
        work->names.at++;
        return next_key(azure, call, request);
    }
    if (step != BACKEND_DONE)
        return step;
    return one ? on_key(azure, call, reply, request) : on_list(azure, call, reply, request);
}
