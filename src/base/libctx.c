#include "base/libctx.h"

#include <pthread.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/provider.h>

#include "base/error.h"

static pthread_once_t made = PTHREAD_ONCE_INIT;
static OSSL_LIB_CTX *private_context;
static OSSL_PROVIDER *inner_provider;
static const char *inner_name = "default";
static _Thread_local unsigned depth;

void libctx_choose_provider(const char *name)
{
    if (strcmp(name, "fips") == 0)
        inner_name = "fips";
}

static void make(void)
{
    OSSL_LIB_CTX *context = OSSL_LIB_CTX_new();
    if (!context)
        return;
    OSSL_PROVIDER *provider = OSSL_PROVIDER_load(context, inner_name);
    if (!provider) {
        OSSL_LIB_CTX_free(context);
        return;
    }
    /* "fips" has no encoders; "base" carries them and no cryptography. */
    if (strcmp(inner_name, "fips") == 0)
        (void)OSSL_PROVIDER_load(context, "base");
    inner_provider = provider;
    private_context = context;
}

OSSL_LIB_CTX *libctx_private(void)
{
    pthread_once(&made, make);
    if (!private_context)
        error_raise(ENVELOPE_E_CRYPTO, "OpenSSL's provider \"%s\" cannot be loaded into a library context of our own",
                    inner_name);
    return private_context;
}

OSSL_PROVIDER *libctx_provider(void)
{
    return libctx_private() ? inner_provider : NULL;
}

void libctx_enter(struct libctx_guard *guard)
{
    ERR_set_mark();
    guard->previous = OSSL_LIB_CTX_set0_default(private_context);
    depth++;
}

void libctx_leave(struct libctx_guard *guard)
{
    depth--;
    OSSL_LIB_CTX_set0_default(guard->previous);
    ERR_pop_to_mark();
}

bool libctx_inside(void)
{
    return depth > 0;
}
