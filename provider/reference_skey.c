/*
 * EVP_SKEY (OpenSSL 3.5 and later) and key references. A key object and the cipher it is used with must come from the
 * same provider, so the key managers of the inner provider are offered too, its own functions with its own context; and
 * the ciphers' inits look into the object for a reference as they do into bytes.
 */
#include "reference.h"

#ifdef OSSL_OP_SKEYMGMT

#include <pthread.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <openssl/proverr.h>

#include "base/libctx.h"

enum { MANAGERS = 4, TABLE_MAX = 16 };

static struct manager {
    OSSL_FUNC_skeymgmt_import_fn *import;
    OSSL_FUNC_skeymgmt_generate_fn *generate;
    OSSL_FUNC_skeymgmt_export_fn *export;
    OSSL_DISPATCH table[TABLE_MAX];
} managers[MANAGERS];
static OSSL_ALGORITHM algorithms[MANAGERS + 1];
static void *inner_context;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Import and generate are given the provider's context, which must be the inner one's; see reference_table.c. */
#define MANAGER(n)                                                                                                     \
    static OSSL_FUNC_skeymgmt_import_fn import_##n;                                                                    \
    static OSSL_FUNC_skeymgmt_generate_fn generate_##n;                                                                \
    static void *import_##n(void *provctx, int selection, const OSSL_PARAM params[])                                   \
    {                                                                                                                  \
        (void)provctx;                                                                                                 \
        return managers[n].import(inner_context, selection, params);                                                   \
    }                                                                                                                  \
    static void *generate_##n(void *provctx, const OSSL_PARAM params[])                                                \
    {                                                                                                                  \
        (void)provctx;                                                                                                 \
        return managers[n].generate(inner_context, params);                                                            \
    }
MANAGER(0)
MANAGER(1)
MANAGER(2)
MANAGER(3)

static const struct {
    OSSL_FUNC_skeymgmt_import_fn *import;
    OSSL_FUNC_skeymgmt_generate_fn *generate;
} thunks[MANAGERS] = {{import_0, generate_0}, {import_1, generate_1}, {import_2, generate_2}, {import_3, generate_3}};

static bool manager_make(unsigned number, const OSSL_ALGORITHM *from)
{
    struct manager *manager = &managers[number];
    size_t count = 0;
    for (const OSSL_DISPATCH *at = from->implementation; at->function_id != 0; at++, count++) {
        if (count == TABLE_MAX - 1)
            return false;
        manager->table[count] = *at;
        if (at->function_id == OSSL_FUNC_SKEYMGMT_IMPORT) {
            manager->import = OSSL_FUNC_skeymgmt_import(at);
            manager->table[count].function = (void (*)(void))thunks[number].import;
        } else if (at->function_id == OSSL_FUNC_SKEYMGMT_GENERATE) {
            manager->generate = OSSL_FUNC_skeymgmt_generate(at);
            manager->table[count].function = (void (*)(void))thunks[number].generate;
        } else if (at->function_id == OSSL_FUNC_SKEYMGMT_EXPORT) {
            manager->export = OSSL_FUNC_skeymgmt_export(at);
        }
    }
    return manager->import && manager->export;
}

static void make(void)
{
    OSSL_PROVIDER *inner = libctx_provider();
    int no_cache = 0;
    const OSSL_ALGORITHM *from = inner ? OSSL_PROVIDER_query_operation(inner, OSSL_OP_SKEYMGMT, &no_cache) : NULL;
    inner_context = inner ? OSSL_PROVIDER_get0_provider_ctx(inner) : NULL;
    for (unsigned number = 0; from && from->algorithm_names && number < MANAGERS; from++)
        if (manager_make(number, from)) {
            algorithms[number] = (OSSL_ALGORITHM){from->algorithm_names, "provider=envelope", managers[number].table,
                                                  "OpenSSL's key objects, for ciphers that take key references"};
            number++;
        }
}

const OSSL_ALGORITHM *reference_skey_managers(void)
{
    pthread_once(&once, make);
    return algorithms;
}

/* ---- inits with a key object ---- */

struct looking {
    struct reference_cipher *cipher;
    bool encrypt, handled;
    int done;
    void *ctx;
    struct reference_init *init;
};

/* The object's bytes: a reference, or a key that the policy has something to say about, goes the way of bytes. */
static int look_inside(const OSSL_PARAM params[], void *argument)
{
    struct looking *looking = argument;
    const OSSL_PARAM *raw = OSSL_PARAM_locate_const(params, OSSL_SKEY_PARAM_RAW_BYTES);
    const void *bytes = NULL;
    size_t length = 0;
    if (!raw || !OSSL_PARAM_get_octet_string_ptr(raw, &bytes, &length) || !bytes || length == 0 ||
        reference_passes(looking->cipher, looking->ctx, bytes))
        return 1;
    looking->handled = true;
    looking->init->key = bytes;
    looking->init->keylen = length;
    looking->done = reference_init(looking->cipher, looking->encrypt, looking->ctx, looking->init);
    return 1;
}

/* The object does not say whose it is; a manager refuses what is not its own. */
static bool export_from_any(void *skey, struct looking *looking)
{
    for (unsigned i = 0; i < MANAGERS; i++)
        if (managers[i].export && managers[i].export(skey, OSSL_SKEYMGMT_SELECT_SECRET_KEY, look_inside, looking))
            return true;
    return false;
}

/* What cannot be looked into could be a reference. */
static int refuse_object(const struct reference_cipher *cipher)
{
    ERR_raise_data(ERR_LIB_PROV, PROV_R_INVALID_KEY, "%s: Envelope cannot look into this key object", cipher->name);
    return 0;
}

int reference_skey_init(struct reference_cipher *cipher, bool encrypt, void *ctx, void *skey,
                        struct reference_init *init)
{
    if (init->params)
        reference_note_iv_length(cipher, init->params);
    if (!skey)
        return reference_init(cipher, encrypt, ctx, init);
    struct looking looking = {.cipher = cipher, .encrypt = encrypt, .ctx = ctx, .init = init};
    if (!export_from_any(skey, &looking))
        return refuse_object(cipher);
    if (looking.handled)
        return looking.done;
    OSSL_FUNC_cipher_encrypt_skey_init_fn *inner = encrypt ? cipher->encrypt_skey_init : cipher->decrypt_skey_init;
    return inner(ctx, skey, init->iv, init->ivlen, init->params);
}

#endif
