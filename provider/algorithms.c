/*
 * The algorithm table of one instance: ENVELOPE-AES-256-GCM, and for each
 * NAME of key-names two more ways to the same cipher bound to that key: the
 * name ENVELOPE-AES-256-GCM-<NAME>, and the plain name with the property
 * envelope.key='<NAME>'.
 */
#include "provider.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/text.h"
#include "cipher.h"

#define CIPHER_NAME "ENVELOPE-AES-256-GCM"
#define PROPERTIES "provider=envelope"
#define DESCRIPTION "AES-256-GCM under a data key wrapped by an HSM"

/*
 * newctx is given the provider and nothing that tells under which name the cipher was fetched, so every bound cipher
 * needs a function of its own.
 */
#define BOUND_NEWCTX(n)                                                                                                \
    static OSSL_FUNC_cipher_newctx_fn newctx_##n;                                                                      \
    static void *newctx_##n(void *provctx)                                                                             \
    {                                                                                                                  \
        struct provider *provider = provctx;                                                                           \
        return provider_cipher_new(provider, provider->names[n]);                                                      \
    }
/* clang-format off */
#define EACH_BOUND(X) \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) \
    X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)
/* clang-format on */

EACH_BOUND(BOUND_NEWCTX)

#define BOUND_ENTRY(n) newctx_##n,
static OSSL_FUNC_cipher_newctx_fn *const bound_newctx[] = {EACH_BOUND(BOUND_ENTRY)};
_Static_assert(sizeof bound_newctx / sizeof bound_newctx[0] == PROVIDER_NAMES_MAX, "one newctx for each name");

/* More than the cipher's table has now; checked when it is copied. */
enum { TABLE_MAX = 24 };

struct bound_cipher {
    OSSL_DISPATCH table[TABLE_MAX];
    char *name;       /* ENVELOPE-AES-256-GCM-FINANCIAL */
    char *properties; /* provider=envelope,envelope.key='financial' */
};

struct provider_algorithms {
    struct bound_cipher bound[PROVIDER_NAMES_MAX];
    OSSL_ALGORITHM entries[2 * PROVIDER_NAMES_MAX + 2];
};

static const OSSL_ALGORITHM plain_only[] = {
    {CIPHER_NAME, PROPERTIES, provider_cipher_table, DESCRIPTION},
    {NULL, NULL, NULL, NULL},
};

static envelope_status copy_table(OSSL_DISPATCH to[TABLE_MAX], OSSL_FUNC_cipher_newctx_fn *newctx)
{
    size_t count = 0;
    for (const OSSL_DISPATCH *from = provider_cipher_table; from->function_id != 0; from++, count++) {
        if (count == TABLE_MAX - 1)
            return error_raise(ENVELOPE_E_INTERNAL, "the cipher's dispatch table has outgrown its copies");
        to[count] = *from;
        if (from->function_id == OSSL_FUNC_CIPHER_NEWCTX)
            to[count].function = (void (*)(void))newctx;
    }
    to[count] = (OSSL_DISPATCH){0, NULL};
    return ENVELOPE_OK;
}

/* Capitals as OpenSSL writes cipher names; it compares them without regard to case. ASCII only, whatever the locale. */
static void capitals(char *text)
{
    for (; *text; text++)
        if (*text >= 'a' && *text <= 'z')
            *text = (char)(*text - 'a' + 'A');
}

static envelope_status bound_make(struct bound_cipher *bound, const char *key, OSSL_FUNC_cipher_newctx_fn *newctx)
{
    bound->name = text_format("%s-%s", CIPHER_NAME, key);
    bound->properties = text_format("%s,envelope.key='%s'", PROPERTIES, key);
    if (!bound->name || !bound->properties)
        return error_status();
    capitals(bound->name);
    return copy_table(bound->table, newctx);
}

envelope_status provider_algorithms_make(struct provider *provider)
{
    provider->ciphers = plain_only;
    if (provider->name_count == 0)
        return ENVELOPE_OK;
    struct provider_algorithms *made = calloc(1, sizeof *made);
    if (!made)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
    provider->algorithms = made;
    OSSL_ALGORITHM *next = made->entries;
    /* First, so that a fetch that asks for no key in particular finds it. */
    *next++ = plain_only[0];
    for (size_t i = 0; i < provider->name_count; i++) {
        struct bound_cipher *bound = &made->bound[i];
        envelope_status status = bound_make(bound, provider->names[i], bound_newctx[i]);
        if (status != ENVELOPE_OK)
            return status;
        *next++ = (OSSL_ALGORITHM){bound->name, PROPERTIES, bound->table, DESCRIPTION};
        *next++ = (OSSL_ALGORITHM){CIPHER_NAME, bound->properties, bound->table, DESCRIPTION};
    }
    provider->ciphers = made->entries;
    return ENVELOPE_OK;
}

void provider_algorithms_clear(struct provider *provider)
{
    struct provider_algorithms *made = provider->algorithms;
    provider->ciphers = plain_only;
    provider->algorithms = NULL;
    if (!made)
        return;
    for (size_t i = 0; i < PROVIDER_NAMES_MAX; i++) {
        free(made->bound[i].name);
        free(made->bound[i].properties);
    }
    free(made);
}
