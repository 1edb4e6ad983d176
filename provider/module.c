/* The one symbol that envelope.so exports. */
#include "provider.h"

OSSL_provider_init_fn OSSL_provider_init;

__attribute__((visibility("default"))) int OSSL_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                                                              const OSSL_DISPATCH **out, void **provctx)
{
    return envelope_provider_init(handle, in, out, provctx);
}
