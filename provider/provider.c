/* The provider's entry point, its parameters and its teardown. */
#include "provider.h"

#include <stdlib.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/opensslv.h>

static OSSL_FUNC_provider_teardown_fn teardown;
static OSSL_FUNC_provider_gettable_params_fn gettable_params;
static OSSL_FUNC_provider_get_params_fn get_params;
static OSSL_FUNC_provider_query_operation_fn query_operation;
static OSSL_FUNC_provider_get_reason_strings_fn get_reason_strings;

/*
 * May run at exit, after the statics of a C++ PKCS#11 module are gone, or not at all: it touches neither token nor
 * module, and nothing depends on it.
 */
static void teardown(void *provctx)
{
    struct provider *provider = provctx;
    if (!provider)
        return;
    provider_configuration_clear(provider);
    free(provider);
}

static const OSSL_PARAM *gettable_params(void *provctx)
{
    (void)provctx;
    static const OSSL_PARAM known[] = {
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_NAME, OSSL_PARAM_UTF8_PTR, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_VERSION, OSSL_PARAM_UTF8_PTR, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_BUILDINFO, OSSL_PARAM_UTF8_PTR, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_STATUS, OSSL_PARAM_INTEGER, NULL, 0),
        OSSL_PARAM_DEFN(PROVIDER_PARAM_RAW_KEYS, OSSL_PARAM_UNSIGNED_INTEGER, NULL, 0),
        OSSL_PARAM_END,
    };
    return known;
}

static int put_text(OSSL_PARAM params[], const char *name, const char *text)
{
    OSSL_PARAM *param = OSSL_PARAM_locate(params, name);
    return !param || OSSL_PARAM_set_utf8_ptr(param, text);
}

static int get_params(void *provctx, OSSL_PARAM params[])
{
    const struct provider *provider = provctx;
    if (!provider)
        return provider_null_context();
    if (!put_text(params, OSSL_PROV_PARAM_NAME, "Envelope") ||
        !put_text(params, OSSL_PROV_PARAM_VERSION, ENVELOPE_VERSION) ||
        !put_text(params, OSSL_PROV_PARAM_BUILDINFO, ENVELOPE_VERSION " for OpenSSL " OPENSSL_VERSION_STR))
        return 0;
    OSSL_PARAM *raw_keys = OSSL_PARAM_locate(params, PROVIDER_PARAM_RAW_KEYS);
    if (raw_keys && !OSSL_PARAM_set_uint64(raw_keys, provider_references_raw_keys(provider)))
        return 0;
    /* "Active" means usable: with a broken configuration every init would fail. */
    OSSL_PARAM *status = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_STATUS);
    return !status || OSSL_PARAM_set_int(status, provider->failure == ENVELOPE_OK);
}

static const OSSL_ALGORITHM *query_operation(void *provctx, int operation, int *no_cache)
{
    const struct provider *provider = provctx;
    if (no_cache)
        *no_cache = 0;
    if (!provider)
        return NULL;
#ifdef OSSL_OP_SKEYMGMT
    if (operation == OSSL_OP_SKEYMGMT)
        return provider_references_managers(provider);
#endif
    return operation == OSSL_OP_CIPHER ? provider->ciphers : NULL;
}

static const OSSL_ITEM *get_reason_strings(void *provctx)
{
    (void)provctx;
    return provider_reasons();
}

static const OSSL_DISPATCH provider_table[] = {
    {OSSL_FUNC_PROVIDER_TEARDOWN, (void (*)(void))teardown},
    {OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, (void (*)(void))gettable_params},
    {OSSL_FUNC_PROVIDER_GET_PARAMS, (void (*)(void))get_params},
    {OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query_operation},
    {OSSL_FUNC_PROVIDER_GET_REASON_STRINGS, (void (*)(void))get_reason_strings},
    {0, NULL},
};

static void core_read(struct provider_core *core, const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in)
{
    core->handle = handle;
    for (; in->function_id != 0; in++) {
        switch (in->function_id) {
        case OSSL_FUNC_CORE_GET_PARAMS:
            core->get_params = OSSL_FUNC_core_get_params(in);
            break;
        case OSSL_FUNC_CORE_NEW_ERROR:
            core->new_error = OSSL_FUNC_core_new_error(in);
            break;
        case OSSL_FUNC_CORE_SET_ERROR_DEBUG:
            core->set_error_debug = OSSL_FUNC_core_set_error_debug(in);
            break;
        case OSSL_FUNC_CORE_VSET_ERROR:
            core->vset_error = OSSL_FUNC_core_vset_error(in);
            break;
        default:
            break;
        }
    }
}

/* Runs under a lock of the core: parses, connects to nothing. */
int envelope_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
                           void **provctx)
{
    struct provider *provider = calloc(1, sizeof *provider);
    if (!provider)
        return 0;
    core_read(&provider->core, handle, in);
    envelope_status status = provider_configure(provider);
    if (status != ENVELOPE_OK) {
        (void)PROVIDER_RESULT(provider, status);
        teardown(provider);
        return 0;
    }
    *out = provider_table;
    *provctx = provider;
    return 1;
}
