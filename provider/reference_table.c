/* The decorated tables: which ciphers there are, which functions of theirs are ours, and what an instance offers. */
#include "provider.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include "base/error.h"
#include "base/libctx.h"
#include "base/text.h"
#include "reference.h"

/*
 * A dispatch function is given the inner provider's context and nothing that tells which cipher, let alone which
 * configuration, it was called for. So there is a pool of functions that differ in one number only, and every cipher
 * of every configuration takes a number. C has no other way to make a function that knows something.
 */
enum { POOL = 512 };
static struct reference_cipher pool[POOL];

#ifdef OSSL_OP_SKEYMGMT
#define SKEY_THUNKS(n)                                                                                                 \
    static OSSL_FUNC_cipher_encrypt_skey_init_fn encrypt_skey_init_##n;                                                \
    static OSSL_FUNC_cipher_decrypt_skey_init_fn decrypt_skey_init_##n;                                                \
    static int encrypt_skey_init_##n(void *ctx, void *skey, const unsigned char *iv, size_t ivlen,                     \
                                     const OSSL_PARAM params[])                                                        \
    {                                                                                                                  \
        return reference_skey_init(&pool[n], true, ctx, skey, &(struct reference_init){NULL, 0, iv, ivlen, params});   \
    }                                                                                                                  \
    static int decrypt_skey_init_##n(void *ctx, void *skey, const unsigned char *iv, size_t ivlen,                     \
                                     const OSSL_PARAM params[])                                                        \
    {                                                                                                                  \
        return reference_skey_init(&pool[n], false, ctx, skey, &(struct reference_init){NULL, 0, iv, ivlen, params});  \
    }
#define SKEY_ENTRIES(n) , encrypt_skey_init_##n, decrypt_skey_init_##n
#else
#define SKEY_THUNKS(n)
#define SKEY_ENTRIES(n)
#endif

#define THUNKS(n)                                                                                                      \
    static OSSL_FUNC_cipher_newctx_fn newctx_##n;                                                                      \
    static OSSL_FUNC_cipher_freectx_fn freectx_##n;                                                                    \
    static OSSL_FUNC_cipher_dupctx_fn dupctx_##n;                                                                      \
    static OSSL_FUNC_cipher_encrypt_init_fn encrypt_init_##n;                                                          \
    static OSSL_FUNC_cipher_decrypt_init_fn decrypt_init_##n;                                                          \
    static OSSL_FUNC_cipher_update_fn update_##n;                                                                      \
    static OSSL_FUNC_cipher_cipher_fn cipher_##n;                                                                      \
    static OSSL_FUNC_cipher_get_ctx_params_fn get_ctx_params_##n;                                                      \
    static OSSL_FUNC_cipher_set_ctx_params_fn set_ctx_params_##n;                                                      \
    static void *newctx_##n(void *provctx)                                                                             \
    {                                                                                                                  \
        (void)provctx;                                                                                                 \
        return pool[n].newctx(pool[n].inner_context);                                                                  \
    }                                                                                                                  \
    static void freectx_##n(void *ctx)                                                                                 \
    {                                                                                                                  \
        reference_context_forget(reference_context_find(ctx));                                                         \
        pool[n].freectx(ctx);                                                                                          \
    }                                                                                                                  \
    static void *dupctx_##n(void *ctx)                                                                                 \
    {                                                                                                                  \
        return reference_dupctx(&pool[n], ctx);                                                                        \
    }                                                                                                                  \
    static int encrypt_init_##n(void *ctx, const unsigned char *key, size_t keylen, const unsigned char *iv,           \
                                size_t ivlen, const OSSL_PARAM params[])                                               \
    {                                                                                                                  \
        if (params)                                                                                                    \
            reference_note_iv_length(&pool[n], params);                                                                \
        if (reference_passes(&pool[n], ctx, key))                                                                      \
            return pool[n].encrypt_init(ctx, key, keylen, iv, ivlen, params);                                          \
        return reference_init(&pool[n], true, ctx, &(struct reference_init){key, keylen, iv, ivlen, params});          \
    }                                                                                                                  \
    static int decrypt_init_##n(void *ctx, const unsigned char *key, size_t keylen, const unsigned char *iv,           \
                                size_t ivlen, const OSSL_PARAM params[])                                               \
    {                                                                                                                  \
        if (params)                                                                                                    \
            reference_note_iv_length(&pool[n], params);                                                                \
        if (reference_passes(&pool[n], ctx, key))                                                                      \
            return pool[n].decrypt_init(ctx, key, keylen, iv, ivlen, params);                                          \
        return reference_init(&pool[n], false, ctx, &(struct reference_init){key, keylen, iv, ivlen, params});         \
    }                                                                                                                  \
    static int update_##n(void *ctx, unsigned char *out, size_t *outl, size_t outsize, const unsigned char *in,        \
                          size_t inl)                                                                                  \
    {                                                                                                                  \
        return reference_context_is_refused(ctx) ? 0 : pool[n].update(ctx, out, outl, outsize, in, inl);               \
    }                                                                                                                  \
    static int cipher_##n(void *ctx, unsigned char *out, size_t *outl, size_t outsize, const unsigned char *in,        \
                          size_t inl)                                                                                  \
    {                                                                                                                  \
        return reference_context_is_refused(ctx) ? 0 : pool[n].cipher(ctx, out, outl, outsize, in, inl);               \
    }                                                                                                                  \
    static int get_ctx_params_##n(void *ctx, OSSL_PARAM params[])                                                      \
    {                                                                                                                  \
        return reference_get_ctx_params(&pool[n], ctx, params);                                                        \
    }                                                                                                                  \
    static int set_ctx_params_##n(void *ctx, const OSSL_PARAM params[])                                                \
    {                                                                                                                  \
        return reference_set_ctx_params(&pool[n], ctx, params);                                                        \
    }                                                                                                                  \
    SKEY_THUNKS(n)

#define EACH_16(X, n)                                                                                                  \
    X(n##0)                                                                                                            \
    X(n##1)                                                                                                            \
    X(n##2)                                                                                                            \
    X(n##3) X(n##4) X(n##5) X(n##6) X(n##7) X(n##8) X(n##9) X(n##a) X(n##b) X(n##c) X(n##d) X(n##e) X(n##f)
#define EACH_256(X, n)                                                                                                 \
    EACH_16(X, n##0)                                                                                                   \
    EACH_16(X, n##1)                                                                                                   \
    EACH_16(X, n##2)                                                                                                   \
    EACH_16(X, n##3)                                                                                                   \
    EACH_16(X, n##4)                                                                                                   \
    EACH_16(X, n##5)                                                                                                   \
    EACH_16(X, n##6)                                                                                                   \
    EACH_16(X, n##7)                                                                                                   \
    EACH_16(X, n##8)                                                                                                   \
    EACH_16(X, n##9)                                                                                                   \
    EACH_16(X, n##a)                                                                                                   \
    EACH_16(X, n##b) EACH_16(X, n##c) EACH_16(X, n##d) EACH_16(X, n##e) EACH_16(X, n##f)
#define EACH(X) EACH_256(X, 0x0) EACH_256(X, 0x1)

EACH(THUNKS)

struct thunks {
    OSSL_FUNC_cipher_newctx_fn *newctx;
    OSSL_FUNC_cipher_freectx_fn *freectx;
    OSSL_FUNC_cipher_dupctx_fn *dupctx;
    OSSL_FUNC_cipher_encrypt_init_fn *encrypt_init;
    OSSL_FUNC_cipher_decrypt_init_fn *decrypt_init;
    OSSL_FUNC_cipher_update_fn *update;
    OSSL_FUNC_cipher_cipher_fn *cipher;
    OSSL_FUNC_cipher_get_ctx_params_fn *get_ctx_params;
    OSSL_FUNC_cipher_set_ctx_params_fn *set_ctx_params;
#ifdef OSSL_OP_SKEYMGMT
    OSSL_FUNC_cipher_encrypt_skey_init_fn *encrypt_skey_init;
    OSSL_FUNC_cipher_decrypt_skey_init_fn *decrypt_skey_init;
#endif
};
#define THUNKS_ENTRY(n)                                                                                                \
    {newctx_##n,       freectx_##n,        dupctx_##n,                                                                 \
     encrypt_init_##n, decrypt_init_##n,   update_##n,                                                                 \
     cipher_##n,       get_ctx_params_##n, set_ctx_params_##n SKEY_ENTRIES(n)},
static const struct thunks thunks[] = {EACH(THUNKS_ENTRY)};
_Static_assert(sizeof thunks / sizeof thunks[0] == POOL, "one set of functions for each number");

/* ---- sets ---- */

/* The ciphers of one configuration, and the algorithms that its instances list. */
struct provider_references {
    struct reference_set set;
    struct provider_references *next;
    char *list, *raw_keys;
    bool crowded; /* the last of the pool: serves every further configuration, and refuses references */
    unsigned users;
    unsigned first, count; /* in the pool */
    OSSL_ALGORITHM *algorithms;
};

static pthread_mutex_t sets_lock = PTHREAD_MUTEX_INITIALIZER;
static struct provider_references *sets;

/* The ciphers of the provider in our private context. They are never given back: the tables serve to the end. */
static const OSSL_ALGORITHM *inner_ciphers(void **inner_context)
{
    OSSL_PROVIDER *inner = libctx_provider();
    int no_cache = 0;
    const OSSL_ALGORITHM *found = inner ? OSSL_PROVIDER_query_operation(inner, OSSL_OP_CIPHER, &no_cache) : NULL;
    *inner_context = inner ? OSSL_PROVIDER_get0_provider_ctx(inner) : NULL;
    return found;
}

/*
 * Where that provider cannot be loaded (a FIPS module that is not installed), the default provider's tables do, so that
 * every reference can be refused. Without tables OpenSSL would take a reference for a key.
 */
static const OSSL_ALGORITHM *spare_ciphers(void **inner_context)
{
    static OSSL_LIB_CTX *spare; /* under sets_lock; lives to the end */
    if (!spare)
        spare = OSSL_LIB_CTX_new();
    OSSL_PROVIDER *inner = spare ? OSSL_PROVIDER_load(spare, "default") : NULL;
    int no_cache = 0;
    *inner_context = inner ? OSSL_PROVIDER_get0_provider_ctx(inner) : NULL;
    return inner ? OSSL_PROVIDER_query_operation(inner, OSSL_OP_CIPHER, &no_cache) : NULL;
}

struct shape {
    size_t key_length, iv_length;
    unsigned mode;
    int aead;
};

static void shape_of(const OSSL_ALGORITHM *algorithm, struct shape *shape)
{
    *shape = (struct shape){0};
    OSSL_PARAM asked[] = {
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, &shape->key_length),
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, &shape->iv_length),
        OSSL_PARAM_uint(OSSL_CIPHER_PARAM_MODE, &shape->mode),
        OSSL_PARAM_int(OSSL_CIPHER_PARAM_AEAD, &shape->aead),
        OSSL_PARAM_END,
    };
    for (const OSSL_DISPATCH *at = algorithm->implementation; at->function_id != 0; at++)
        if (at->function_id == OSSL_FUNC_CIPHER_GET_PARAMS)
            (void)OSSL_FUNC_cipher_get_params(at)(asked);
}

/*
 * One key of 256 bits. XTS and SIV take two keys in one, and two halves of one reference are none; the stitched
 * CBC-HMAC ciphers are for TLS alone.
 */
static bool takes_reference(const OSSL_ALGORITHM *algorithm, const struct shape *shape)
{
    return shape->key_length == REFERENCE_SIZE && shape->mode != EVP_CIPH_XTS_MODE &&
           shape->mode != EVP_CIPH_SIV_MODE && !strstr(algorithm->algorithm_names, "-HMAC-");
}

static bool is_skipped(const OSSL_ALGORITHM *algorithm)
{
    return strcmp(algorithm->algorithm_names, "NULL") == 0;
}

static bool known_cipher(const void *context, const char *name, size_t length, bool *fits)
{
    for (const OSSL_ALGORITHM *at = context; at->algorithm_names; at++) {
        for (const char *names = at->algorithm_names; *names;) {
            size_t here = strcspn(names, ":");
            if (here == length && strncasecmp(names, name, length) == 0) {
                struct shape shape;
                shape_of(at, &shape);
                *fits = takes_reference(at, &shape);
                return true;
            }
            names += here;
            names += *names == ':';
        }
    }
    return false;
}

/* ---- making tables ---- */

#define AS_DISPATCH(function) ((void (*)(void))(function))

/* Without a key, these encrypt under zeros (ChaCha20-Poly1305) or crash, where the others fail. */
static bool forgets_key(const struct reference_cipher *cipher, const struct shape *shape)
{
    return shape->mode == EVP_CIPH_WRAP_MODE || strstr(cipher->name, "-CTS") ||
           strncmp(cipher->name, "ChaCha20", 8) == 0;
}

/* Note the original and put ours in its place. */
static void replace(struct reference_cipher *cipher, const struct thunks *ours, const struct shape *shape,
                    OSSL_DISPATCH *entry)
{
    bool takes = cipher->use == REFERENCE_TAKEN;
    switch (entry->function_id) {
    case OSSL_FUNC_CIPHER_NEWCTX:
        cipher->newctx = OSSL_FUNC_cipher_newctx(entry);
        entry->function = AS_DISPATCH(ours->newctx);
        break;
    case OSSL_FUNC_CIPHER_FREECTX:
        cipher->freectx = OSSL_FUNC_cipher_freectx(entry);
        entry->function = AS_DISPATCH(ours->freectx);
        break;
    case OSSL_FUNC_CIPHER_DUPCTX:
        cipher->dupctx = OSSL_FUNC_cipher_dupctx(entry);
        entry->function = AS_DISPATCH(ours->dupctx);
        break;
    case OSSL_FUNC_CIPHER_ENCRYPT_INIT:
        cipher->encrypt_init = OSSL_FUNC_cipher_encrypt_init(entry);
        entry->function = AS_DISPATCH(ours->encrypt_init);
        break;
    case OSSL_FUNC_CIPHER_DECRYPT_INIT:
        cipher->decrypt_init = OSSL_FUNC_cipher_decrypt_init(entry);
        entry->function = AS_DISPATCH(ours->decrypt_init);
        break;
    case OSSL_FUNC_CIPHER_UPDATE:
        cipher->update = OSSL_FUNC_cipher_update(entry);
        if (forgets_key(cipher, shape))
            entry->function = AS_DISPATCH(ours->update);
        break;
    case OSSL_FUNC_CIPHER_CIPHER:
        cipher->cipher = OSSL_FUNC_cipher_cipher(entry);
        if (forgets_key(cipher, shape))
            entry->function = AS_DISPATCH(ours->cipher);
        break;
    case OSSL_FUNC_CIPHER_GET_CTX_PARAMS:
        cipher->get_ctx_params = OSSL_FUNC_cipher_get_ctx_params(entry);
        entry->function = AS_DISPATCH(ours->get_ctx_params);
        break;
    case OSSL_FUNC_CIPHER_SET_CTX_PARAMS:
        cipher->set_ctx_params = OSSL_FUNC_cipher_set_ctx_params(entry);
        if (takes && shape->aead)
            entry->function = AS_DISPATCH(ours->set_ctx_params);
        break;
#ifdef OSSL_OP_SKEYMGMT
    case OSSL_FUNC_CIPHER_ENCRYPT_SKEY_INIT:
        cipher->encrypt_skey_init = OSSL_FUNC_cipher_encrypt_skey_init(entry);
        entry->function = AS_DISPATCH(ours->encrypt_skey_init);
        break;
    case OSSL_FUNC_CIPHER_DECRYPT_SKEY_INIT:
        cipher->decrypt_skey_init = OSSL_FUNC_cipher_decrypt_skey_init(entry);
        entry->function = AS_DISPATCH(ours->decrypt_skey_init);
        break;
#endif
    default:
        break;
    }
}

/*
 * Ask a context what they all will say. Of the ciphers that take a reference none has keys of several lengths, and only
 * AEADs have IVs of several; the lengths given to those are seen if set_ctx_params is ours.
 */
static void lengths_learn(struct reference_cipher *cipher, const struct shape *shape, bool one_key)
{
    if (!one_key || !cipher->get_ctx_params)
        return;
    void *ctx = cipher->newctx(cipher->inner_context);
    OSSL_PARAM key[] = {OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, &cipher->key_length), OSSL_PARAM_END};
    OSSL_PARAM iv[] = {OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, &cipher->iv_length), OSSL_PARAM_END};
    cipher->knows_key_length = ctx && cipher->get_ctx_params(ctx, key) && OSSL_PARAM_modified(key);
    bool seen = !shape->aead || cipher->use == REFERENCE_TAKEN;
    cipher->knows_iv_length = seen && ctx && cipher->get_ctx_params(ctx, iv) && OSSL_PARAM_modified(iv);
    if (ctx)
        cipher->freectx(ctx);
}

static envelope_status cipher_make(unsigned number, struct provider_references *made, const OSSL_ALGORITHM *from,
                                   void *inner_context)
{
    struct reference_cipher *cipher = &pool[number];
    struct shape shape;
    shape_of(from, &shape);
    memset(cipher, 0, sizeof *cipher);
    size_t length = strcspn(from->algorithm_names, ":");
    if (length >= sizeof cipher->name)
        length = sizeof cipher->name - 1;
    memcpy(cipher->name, from->algorithm_names, length);
    cipher->set = &made->set;
    cipher->inner_context = inner_context;
    cipher->has_iv = shape.iv_length > 0;
    cipher->use = !takes_reference(from, &shape)                                ? REFERENCE_UNFIT
                  : reference_settings_lists(made->list, from->algorithm_names) ? REFERENCE_TAKEN
                                                                                : REFERENCE_UNLISTED;
    /* Only ciphers that take references have something to choose instead of a raw key. */
    cipher->raw = cipher->use == REFERENCE_TAKEN ? reference_settings_raw(made->raw_keys, from->algorithm_names)
                                                 : REFERENCE_RAW_ALLOW;
    size_t count = 0;
    for (const OSSL_DISPATCH *at = from->implementation; at->function_id != 0; at++) {
        if (count == REFERENCE_TABLE_MAX - 1)
            return error_raise(ENVELOPE_E_INTERNAL, "%s: a dispatch table larger than expected", cipher->name);
        cipher->table[count] = *at;
        replace(cipher, &thunks[number], &shape, &cipher->table[count++]);
    }
    if (!cipher->newctx || !cipher->freectx || !cipher->encrypt_init || !cipher->decrypt_init)
        return error_raise(ENVELOPE_E_CRYPTO, "%s: OpenSSL's provider offers no complete cipher", cipher->name);
    lengths_learn(cipher, &shape, takes_reference(from, &shape));
    return ENVELOPE_OK;
}

/* A run of free numbers; POOL if there is none. */
static unsigned numbers_find(unsigned count)
{
    unsigned run = 0;
    for (unsigned i = 0; i < POOL; i++) {
        run = pool[i].set ? 0 : run + 1;
        if (run == count)
            return i + 1 - count;
    }
    return POOL;
}

static envelope_status set_fill(struct provider_references *made, const OSSL_ALGORITHM *from, void *inner_context)
{
    made->algorithms = calloc(made->count + 1, sizeof *made->algorithms);
    if (!made->algorithms)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
    unsigned number = made->first;
    for (; from->algorithm_names; from++) {
        if (is_skipped(from))
            continue;
        envelope_status status = cipher_make(number, made, from, inner_context);
        if (status != ENVELOPE_OK)
            return status;
        /* In FIPS mode the cipher is the FIPS module's own. */
        bool fips = from->property_definition && strstr(from->property_definition, "fips=yes");
        made->algorithms[number - made->first] =
            (OSSL_ALGORITHM){from->algorithm_names, fips ? "provider=envelope,fips=yes" : "provider=envelope",
                             pool[number].table, "a cipher of OpenSSL that takes key references"};
        number++;
    }
    return ENVELOPE_OK;
}

/* The numbers stay taken by nobody; their functions still work for contexts that a program leaked. */
static void set_free(struct provider_references *made)
{
    for (unsigned i = 0; made->algorithms && i < made->count; i++)
        pool[made->first + i].set = NULL;
    free(made->algorithms);
    free(made->list);
    free(made->raw_keys);
    free(made->set.failure_text);
    free(made);
}

static envelope_status set_name(struct provider_references *made, const struct provider *provider, const char *list,
                                const char *raw_keys)
{
    made->set.ring = provider->ring;
    made->set.failure = provider->failure;
    made->list = text_copy(list);
    made->raw_keys = text_copy(raw_keys ? raw_keys : "");
    made->set.failure_text = text_copy(provider->failure_text ? provider->failure_text : "");
    return made->list && made->raw_keys && made->set.failure_text ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

/* Where a configuration is wrong, references are recognised all the same, and refused. */
static void set_fail(struct provider_references *made)
{
    if (made->set.failure != ENVELOPE_OK)
        return;
    char *text = text_copy(error_text());
    made->set.failure = error_status();
    if (!text)
        return;
    free(made->set.failure_text);
    made->set.failure_text = text;
}

static unsigned count_of(const OSSL_ALGORITHM *ciphers)
{
    unsigned count = 0;
    for (; ciphers->algorithm_names; ciphers++)
        count += !is_skipped(ciphers);
    return count;
}

static envelope_status set_make(const struct provider *provider, const char *list, const char *raw_keys,
                                struct provider_references **result)
{
    struct provider_references *made = calloc(1, sizeof *made);
    if (!made)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
    envelope_status status = set_name(made, provider, list, raw_keys);
    if (status != ENVELOPE_OK)
        goto fail;
    void *inner_context;
    const OSSL_ALGORITHM *ciphers = inner_ciphers(&inner_context);
    if (!ciphers) {
        set_fail(made);
        ciphers = spare_ciphers(&inner_context);
    }
    if (!ciphers) {
        status = error_raise(ENVELOPE_E_CRYPTO, "OpenSSL's default provider cannot be loaded");
        goto fail;
    }
    struct reference_lookup lookup = {known_cipher, ciphers};
    if (reference_settings_check(list, raw_keys, &lookup) != ENVELOPE_OK)
        set_fail(made);
    made->count = count_of(ciphers);
    made->first = numbers_find(2 * made->count);
    if (made->first == POOL) {
        made->first = numbers_find(made->count);
        made->crowded = true;
        error_raise(ENVELOPE_E_CONFIG,
                    "one process uses key references in more than %u different configurations at "
                    "once",
                    POOL / made->count - 1);
        set_fail(made);
    }
    status = made->first == POOL ? error_raise(ENVELOPE_E_INTERNAL, "no room for the ciphers of another configuration")
                                 : set_fill(made, ciphers, inner_context);
    if (status == ENVELOPE_OK) {
        *result = made;
        return ENVELOPE_OK;
    }
fail:
    set_free(made);
    return status;
}

static bool same_configuration(const struct provider_references *made, const struct provider *provider,
                               const char *list, const char *raw_keys)
{
    return made->set.ring == provider->ring && provider->failure == ENVELOPE_OK && made->set.failure == ENVELOPE_OK &&
           strcmp(made->list, list) == 0 && strcmp(made->raw_keys, raw_keys ? raw_keys : "") == 0;
}

static struct provider_references *set_find(const struct provider *provider, const char *list, const char *raw_keys)
{
    struct provider_references *crowded = NULL;
    for (struct provider_references *at = sets; at; at = at->next) {
        if (same_configuration(at, provider, list, raw_keys))
            return at;
        if (at->crowded)
            crowded = at;
    }
    return crowded;
}

static envelope_status set_take(const struct provider *provider, const char *list, const char *raw_keys,
                                struct provider_references **taken)
{
    envelope_status status = ENVELOPE_OK;
    pthread_mutex_lock(&sets_lock);
    struct provider_references *found = set_find(provider, list, raw_keys);
    if (!found) {
        status = set_make(provider, list, raw_keys, &found);
        if (status == ENVELOPE_OK) {
            found->next = sets;
            sets = found;
        }
    }
    if (status == ENVELOPE_OK) {
        found->users++;
        *taken = found;
    }
    pthread_mutex_unlock(&sets_lock);
    return status;
}

static void set_give_back(struct provider_references *made)
{
    pthread_mutex_lock(&sets_lock);
    bool last = --made->users == 0;
    if (last) {
        struct provider_references **link = &sets;
        while (*link != made)
            link = &(*link)->next;
        *link = made->next;
        set_free(made);
    }
    pthread_mutex_unlock(&sets_lock);
}

/* ---- an instance ---- */

static size_t algorithm_count(const OSSL_ALGORITHM *list)
{
    size_t count = 0;
    while (list[count].algorithm_names)
        count++;
    return count;
}

envelope_status provider_references_make(struct provider *provider, const char *list, const char *raw_keys)
{
    if (!list && !raw_keys)
        return ENVELOPE_OK;
    if (!list)
        list = "";
    envelope_status status = set_take(provider, list, raw_keys, &provider->references);
    if (status != ENVELOPE_OK)
        return status;
    size_t own = algorithm_count(provider->ciphers), decorated = provider->references->count;
    OSSL_ALGORITHM *all = calloc(own + decorated + 1, sizeof *all);
    if (!all)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
    memcpy(all, provider->ciphers, own * sizeof *all);
    memcpy(all + own, provider->references->algorithms, decorated * sizeof *all);
    provider->ciphers = provider->all_ciphers = all;
    return ENVELOPE_OK;
}

void provider_references_clear(struct provider *provider)
{
    if (!provider->references)
        return;
    reference_thread_end(provider->ring);
    set_give_back(provider->references);
    free(provider->all_ciphers);
    provider->references = NULL;
    provider->all_ciphers = NULL;
}

const OSSL_ALGORITHM *provider_references_managers(const struct provider *provider)
{
#ifdef OSSL_OP_SKEYMGMT
    return provider->references ? reference_skey_managers() : NULL;
#else
    (void)provider;
    return NULL;
#endif
}

uint64_t provider_references_raw_keys(const struct provider *provider)
{
    return provider->references ? atomic_load(&provider->references->set.raw_keys) : 0;
}
