/*
 * What an init does: a raw key goes on to the cipher as it came, a key reference is replaced by its DEK, and what looks
 * like a reference and cannot be replaced is an error. It never becomes a key itself: it is no secret.
 */
#include "reference.h"

#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>
#include <syslog.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>

#include "base/error.h"
#include "base/libctx.h"
#include "base/secmem.h"

/* Kept out of the way of an init that has what it needs. */
#define RARE __attribute__((noinline, cold))

/* ---- errors ---- */

/*
 * A library of our own in OpenSSL's error tables, with the same reasons as the provider's. The provider's errors need
 * the instance, which a context of the inner provider does not lead to.
 */
enum { REASON_MAX = 255 };
static ERR_STRING_DATA reasons[REASON_MAX + 1];
static ERR_STRING_DATA library_name[] = {{0, "envelope"}, {0, NULL}};
static pthread_once_t reasons_once = PTHREAD_ONCE_INIT;
static int error_library;

static void reasons_load(void)
{
    const char *unknown = envelope_status_name((envelope_status)REASON_MAX);
    size_t count = 0;
    for (unsigned code = 1; code < REASON_MAX; code++)
        if (strcmp(envelope_status_name((envelope_status)code), unknown) != 0)
            reasons[count++] = (ERR_STRING_DATA){.error = code, .string = envelope_status_text((envelope_status)code)};
    error_library = ERR_get_next_error_library();
    ERR_load_strings(error_library, reasons);
    library_name[0].error = ERR_PACK(error_library, 0, 0);
    ERR_load_strings(error_library, library_name);
}

/* The thread's error, for this cipher, into OpenSSL's queue. */
#define refuse(cipher, status) refuse_at((cipher), (status), OPENSSL_LINE, OPENSSL_FUNC)
RARE static int refuse_at(const struct reference_cipher *cipher, envelope_status status, int line, const char *function)
{
    pthread_once(&reasons_once, reasons_load);
    ERR_new();
    ERR_set_debug(OPENSSL_FILE, line, function);
    ERR_set_error(error_library, (int)status, "%s: %s", cipher->name,
                  error_status() == status && error_text()[0] ? error_text() : envelope_status_text(status));
    return 0;
}

/* Refuse an init: nothing may be encrypted in this context until another succeeds. */
#define refuse_init(cipher, ctx, status) refuse_init_at((cipher), (ctx), (status), OPENSSL_LINE, OPENSSL_FUNC)
RARE static int refuse_init_at(const struct reference_cipher *cipher, void *ctx, envelope_status status, int line,
                               const char *function)
{
    refuse_at(cipher, status, line, function);
    bool made;
    struct reference_context *context = reference_context_claim(ctx, &made);
    if (context)
        context->refused = true;
    return 0;
}

/* ---- recognising ---- */

enum { PREFIX_SIZE = 6, REFERENCE_VERSION = 1 };
enum looks { LOOKS_RAW, LOOKS_BINARY, LOOKS_HEX, LOOKS_BASE64 };

/* Also a reference in its printed form: cut to a cipher's key size, those bytes would be just as public. */
static enum looks look_at(const unsigned char *key, size_t length)
{
    static const char binary[] = "ENVREF", hex[] = "454e56524546", base64[] = "RU5WUkVG";
    static const char sql[] = "\\x454e565245", laravel[] = "base64:RU5WU";
    if (length < sizeof hex)
        return LOOKS_RAW;
    if (memcmp(key, binary, PREFIX_SIZE) == 0)
        return LOOKS_BINARY;
    switch (key[0]) {
    case '4':
        return strncasecmp((const char *)key, hex, sizeof hex - 1) == 0 ? LOOKS_HEX : LOOKS_RAW;
    case 'R':
        return memcmp(key, base64, sizeof base64 - 1) == 0 ? LOOKS_BASE64 : LOOKS_RAW;
    case 'b':
        return memcmp(key, laravel, sizeof laravel - 1) == 0 ? LOOKS_BASE64 : LOOKS_RAW;
    case '\\':
        return strncasecmp((const char *)key, sql, sizeof sql - 1) == 0 ? LOOKS_HEX : LOOKS_RAW;
    default:
        return LOOKS_RAW;
    }
}

RARE static envelope_status why_unusable(const struct reference_cipher *cipher, size_t length, enum looks looks)
{
    const struct reference_set *set = cipher->set;
    if (set->failure != ENVELOPE_OK)
        return error_raise(set->failure, "%s", set->failure_text ? set->failure_text : "");
    if (looks != LOOKS_BINARY)
        return error_raise(
            ENVELOPE_E_REFERENCE,
            "a key reference was given as %s text; the key must be its 32 bytes (`envelope reference KEY "
            "--format …` prints it for several languages)",
            looks == LOOKS_HEX ? "hexadecimal" : "base64");
    if (cipher->use == REFERENCE_UNFIT)
        return error_raise(ENVELOPE_E_REFERENCE, "a key reference stands for one key of 256 bits, which this cipher "
                                                 "does not take");
    if (cipher->use == REFERENCE_UNLISTED)
        return error_raise(ENVELOPE_E_REFERENCE, "this cipher takes no key references: add it to key-references in "
                                                 "openssl.cnf");
    if (length != REFERENCE_SIZE)
        return error_raise(ENVELOPE_E_REFERENCE, "a key reference was cut or extended to %zu bytes; it has %d", length,
                           (int)REFERENCE_SIZE);
    return error_raise(ENVELOPE_E_REFERENCE, "the key reference is damaged, or of a later version of Envelope");
}

static inline bool is_usable(const struct reference_cipher *cipher, const unsigned char *key, size_t length,
                             enum looks looks)
{
    return looks == LOOKS_BINARY && length == REFERENCE_SIZE && cipher->use == REFERENCE_TAKEN &&
           cipher->set->failure == ENVELOPE_OK && key[PREFIX_SIZE] == REFERENCE_VERSION;
}

/* ---- raw keys ---- */

static int inner_init(const struct reference_cipher *cipher, bool encrypt, void *ctx, const struct reference_init *init,
                      const unsigned char *key)
{
    OSSL_FUNC_cipher_encrypt_init_fn *function = encrypt ? cipher->encrypt_init : cipher->decrypt_init;
    return function(ctx, key, init->keylen, init->iv, init->ivlen, init->params);
}

/* Once per cipher and process: a line in the log of a program that knows nothing of us should be rare. */
static void warn_raw(struct reference_cipher *cipher)
{
    atomic_fetch_add_explicit(&cipher->set->raw_keys, 1, memory_order_relaxed);
    if (!atomic_exchange_explicit(&cipher->warned, true, memory_order_relaxed))
        syslog(LOG_WARNING, "envelope: %s was given a raw key, not a key reference (raw-keys = warn)", cipher->name);
}

static __attribute__((noinline)) int raw_init(struct reference_cipher *cipher, bool encrypt, void *ctx,
                                              const struct reference_init *init)
{
    if (cipher->raw == REFERENCE_RAW_DENY && !libctx_inside()) {
        atomic_fetch_add_explicit(&cipher->set->raw_keys, 1, memory_order_relaxed);
        return refuse_init(cipher, ctx,
                           error_raise(ENVELOPE_E_NOT_A_KEY, "a raw key was given where only a key reference is "
                                                             "allowed (raw-keys in openssl.cnf)"));
    }
    if (cipher->raw == REFERENCE_RAW_WARN && !libctx_inside())
        warn_raw(cipher);
    struct reference_context *context = reference_context_find(ctx);
    if (context)
        context->current = false;
    int done = inner_init(cipher, encrypt, ctx, init, init->key);
    if (done)
        reference_context_forget(context);
    return done;
}

/* ---- references ---- */

/* How much memory there is at ctx, or what is enough for any context. */
RARE static size_t size_at(const void *ctx)
{
    static _Atomic int plain_malloc; /* 0: not known yet */
    enum { SIZE_UNKNOWN = 1536, PLAIN = 1, OTHER = 2 };
    int plain = atomic_load_explicit(&plain_malloc, memory_order_relaxed);
    if (plain == 0) {
        CRYPTO_malloc_fn allocate;
        CRYPTO_realloc_fn reallocate;
        CRYPTO_free_fn release;
        CRYPTO_get_mem_functions(&allocate, &reallocate, &release);
        plain = allocate == CRYPTO_malloc && release == CRYPTO_free ? PLAIN : OTHER;
        atomic_store_explicit(&plain_malloc, plain, memory_order_relaxed);
    }
    /* malloc_usable_size() only reads. */
    void *memory = (void *)(uintptr_t)ctx; /* NOLINT(performance-no-int-to-ptr) */
    return plain == PLAIN ? malloc_usable_size(memory) : SIZE_UNKNOWN;
}

/*
 * Key schedules are on the heap of the program: keep the pages out of swap and core dumps. Contexts come and go at the
 * same place, so what was shielded for this cipher in this tick of the clock is not looked at again.
 */
static inline void shield(const struct reference_cipher *cipher, const void *ctx, const struct reference_hold *hold)
{
    struct reference_shielded *known = &hold->shielded[((uintptr_t)ctx >> 6) % REFERENCE_SHIELDED];
    if (known->ctx == ctx && known->cipher == cipher && known->at == hold->begun)
        return;
    secmem_shield(ctx, size_at(ctx));
    *known = (struct reference_shielded){.ctx = ctx, .cipher = cipher, .at = hold->begun};
}

/* Does init() with params set up IVs made by the cipher itself? */
static bool makes_own_ivs(const OSSL_PARAM params[])
{
    return params && (OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED) ||
                      OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD));
}

RARE static int refuse_own_ivs(const struct reference_cipher *cipher)
{
    return refuse(cipher, error_raise(ENVELOPE_E_REFERENCE,
                                      "records of TLS and IVs counted up by the cipher are not possible under a key "
                                      "reference: their messages could not be counted"));
}

/* The context's key is the DEK already: spare the cipher the key schedule. */
static bool is_keyed(const struct reference_context *context, bool encrypt, uint32_t dek_id)
{
    return context->current && context->dek_id == dek_id && context->encrypt == encrypt;
}

static int reference_key_init(const struct reference_cipher *cipher, bool encrypt, void *ctx,
                              const struct reference_init *init, enum looks looks)
{
    if (!is_usable(cipher, init->key, init->keylen, looks))
        return refuse_init(cipher, ctx, why_unusable(cipher, init->keylen, looks));
    if (makes_own_ivs(init->params))
        return refuse_own_ivs(cipher);
    const struct reference_hold *hold;
    envelope_status status = reference_thread_begin(cipher->set->ring, init->key, 0, encrypt, &hold);
    if (status != ENVELOPE_OK)
        return refuse_init(cipher, ctx, status);
    bool made;
    struct reference_context *context = reference_context_claim(ctx, &made);
    if (!context)
        return refuse_init(cipher, ctx, error_status());
    int done;
    if (is_keyed(context, encrypt, hold->dek_id)) {
        done = inner_init(cipher, encrypt, ctx, init, NULL);
    } else {
        if (made)
            shield(cipher, ctx, hold);
        context->current = false;
        context->dek_id = hold->dek_id;
        done = inner_init(cipher, encrypt, ctx, init, hold->dek);
    }
    context->current = done != 0;
    context->refused = false;
    context->encrypt = encrypt;
    /* A key without an IV: the IV follows, and both are one message. */
    context->counted = encrypt && cipher->has_iv && !init->iv;
    return done;
}

/* No key: the one that the context has, for another message. */
static __attribute__((noinline)) int same_key_init(const struct reference_cipher *cipher, bool encrypt, void *ctx,
                                                   const struct reference_init *init, struct reference_context *context)
{
    if (makes_own_ivs(init->params))
        return refuse_own_ivs(cipher);
    if (context->dek_id == 0)
        return refuse_init(cipher, ctx,
                           error_raise(ENVELOPE_E_CONTEXT_STATE, "the context has no key: the one given to "
                                                                 "it was refused"));
    bool counts = encrypt && !context->counted;
    const struct reference_hold *hold;
    envelope_status status = cipher->set->ring
                                 ? reference_thread_begin(cipher->set->ring, NULL, context->dek_id, counts, &hold)
                                 : error_raise(ENVELOPE_E_INTERNAL, "a context lost its keyring");
    if (status != ENVELOPE_OK)
        return refuse_init(cipher, ctx, status);
    if (init->iv || !encrypt)
        context->counted = false;
    context->refused = false;
    int done = inner_init(cipher, encrypt, ctx, init, NULL);
    if (context->encrypt != encrypt || !done)
        context->current = false;
    context->encrypt = encrypt;
    return done;
}

/* ---- lengths ---- */

/* Will the IVs of some context of this cipher not have the usual length? Said before it comes to that. */
void reference_note_iv_length(struct reference_cipher *cipher, const OSSL_PARAM params[])
{
    const OSSL_PARAM *given = OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_IVLEN);
    size_t length = 0;
    if (given && (!OSSL_PARAM_get_size_t(given, &length) || length != cipher->iv_length))
        atomic_store_explicit(&cipher->knows_iv_length, false, memory_order_relaxed);
}

/*
 * libcrypto asks every new context for the length of its key and of its IV, and the ciphers search what they are asked
 * for every name they know: a fifth of the time that a short message takes.
 */
int reference_get_ctx_params(const struct reference_cipher *cipher, void *ctx, OSSL_PARAM params[])
{
    bool simple = params && params[0].key && !params[1].key && params[0].data &&
                  params[0].data_type == OSSL_PARAM_UNSIGNED_INTEGER && params[0].data_size == sizeof(size_t);
    if (!simple)
        return cipher->get_ctx_params(ctx, params);
    const size_t *answer = NULL;
    char first = params[0].key[0];
    if (first == 'k' && cipher->knows_key_length && strcmp(params[0].key, OSSL_CIPHER_PARAM_KEYLEN) == 0)
        answer = &cipher->key_length;
    else if (first == 'i' && atomic_load_explicit(&cipher->knows_iv_length, memory_order_relaxed) &&
             strcmp(params[0].key, OSSL_CIPHER_PARAM_IVLEN) == 0)
        answer = &cipher->iv_length;
    if (!answer)
        return cipher->get_ctx_params(ctx, params);
    memcpy(params[0].data, answer, sizeof *answer);
    params[0].return_size = sizeof *answer;
    return 1;
}

/* ---- what the tables call ---- */

int reference_init(struct reference_cipher *cipher, bool encrypt, void *ctx, const struct reference_init *init)
{
    if (init->key) {
        enum looks looks = look_at(init->key, init->keylen);
        return looks == LOOKS_RAW ? raw_init(cipher, encrypt, ctx, init)
                                  : reference_key_init(cipher, encrypt, ctx, init, looks);
    }
    struct reference_context *context = reference_context_find(ctx);
    /* init(NULL, NULL) on a context that never had a key is how many programs begin. */
    return context ? same_key_init(cipher, encrypt, ctx, init, context) : inner_init(cipher, encrypt, ctx, init, NULL);
}

int reference_set_ctx_params(struct reference_cipher *cipher, void *ctx, const OSSL_PARAM params[])
{
    reference_note_iv_length(cipher, params);
    if (reference_context_find(ctx) && makes_own_ivs(params))
        return refuse_own_ivs(cipher);
    return cipher->set_ctx_params(ctx, params);
}

void *reference_dupctx(const struct reference_cipher *cipher, void *ctx)
{
    void *copy = cipher->dupctx(ctx);
    const struct reference_context *from = copy ? reference_context_find(ctx) : NULL;
    if (!from)
        return copy;
    bool made;
    struct reference_context *to = reference_context_claim(copy, &made);
    if (!to) {
        (void)refuse(cipher, error_status());
        cipher->freectx(copy);
        return NULL;
    }
    secmem_shield(copy, size_at(copy));
    to->dek_id = from->dek_id;
    to->current = from->current;
    to->encrypt = from->encrypt;
    to->refused = from->refused;
    return copy;
}
