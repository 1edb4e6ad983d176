/*
 * Our section of openssl.cnf, and the envelope.cnf it names. OpenSSL drops a
 * provider that cannot be activated without a word and goes on with the next,
 * so nothing here makes activation fail (out of memory apart): what is wrong is
 * kept, and every use of the provider fails with it.
 */
#include "provider.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <openssl/params.h>

#include "base/error.h"
#include "base/text.h"

/* Keep the first failure: later ones usually follow from it. */
static void remember(struct provider *provider, envelope_status status)
{
    if (provider->failure != ENVELOPE_OK)
        return;
    provider->failure = status;
    provider->failure_text = text_copy(error_text());
}

envelope_status provider_check(const struct provider *provider)
{
    if (provider->failure == ENVELOPE_OK)
        return ENVELOPE_OK;
    return error_raise(provider->failure, "%s",
                       provider->failure_text ? provider->failure_text : envelope_status_text(provider->failure));
}

/*
 * A key name that can also be part of a cipher's name and of a property: ':' would begin another alias, and a
 * property's value has no escape for its quote.
 */
static bool fits_algorithm(const char *name, size_t length)
{
    return text_is_key_name(name, length) && !memchr(name, ':', length) && !memchr(name, '\'', length) &&
           !memchr(name, '"', length);
}

static envelope_status name_add(struct provider *provider, const char *name, size_t length)
{
    char shown[64];
    text_printable(name, length, shown, sizeof shown);
    if (!fits_algorithm(name, length))
        return error_raise(
            ENVELOPE_E_CONFIG,
            "openssl.cnf: key-names: \"%s\" cannot be part of a cipher's name: a key name has no control "
            "characters and, here, no colon or quote",
            shown);
    for (size_t i = 0; i < provider->name_count; i++)
        if (strlen(provider->names[i]) == length && strncasecmp(provider->names[i], name, length) == 0)
            return error_raise(ENVELOPE_E_CONFIG,
                               "openssl.cnf: key-names: \"%s\" is there twice; cipher names do not tell capital from "
                               "small letters",
                               shown);
    if (provider->name_count == PROVIDER_NAMES_MAX)
        return error_raise(
            ENVELOPE_E_CONFIG,
            "openssl.cnf: key-names: more than %d names; use the cipher's parameter envelope-key instead",
            (int)PROVIDER_NAMES_MAX);
    char *copy = strndup(name, length);
    if (!copy)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
    provider->names[provider->name_count++] = copy;
    return ENVELOPE_OK;
}

/* "financial, identity tenant-42": names apart by commas and white space. Names that are fit are kept in any case. */
static void read_names(struct provider *provider, const char *list)
{
    static const char apart[] = ", \t\r\n";
    for (list += strspn(list, apart); *list; list += strspn(list, apart)) {
        size_t length = strcspn(list, apart);
        envelope_status status = name_add(provider, list, length);
        if (status != ENVELOPE_OK)
            remember(provider, status);
        list += length;
    }
}

static void read_file(struct provider *provider, const char *configured)
{
    envelope_status status = provider_ring_take(settings_path(configured), &provider->ring);
    if (status != ENVELOPE_OK)
        remember(provider, status);
}

envelope_status provider_configure(struct provider *provider)
{
    /* The core answers by name only, with pointers of its own. */
    char *file = NULL;
    char *names = NULL;
    char *references = NULL;
    char *raw_keys = NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_utf8_ptr("config", &file, 0),
        OSSL_PARAM_utf8_ptr("key-names", &names, 0),
        OSSL_PARAM_utf8_ptr("key-references", &references, 0),
        OSSL_PARAM_utf8_ptr("raw-keys", &raw_keys, 0),
        OSSL_PARAM_END,
    };
    if (provider->core.get_params && !provider->core.get_params(provider->core.handle, params))
        remember(provider, error_raise(ENVELOPE_E_CONFIG, "openssl.cnf: the provider's section cannot be read"));
    if (names)
        read_names(provider, names);
    read_file(provider, file);
    envelope_status status = provider_algorithms_make(provider);
    if (status != ENVELOPE_OK)
        return status;
    return provider_references_make(provider, references, raw_keys);
}

void provider_configuration_clear(struct provider *provider)
{
    provider_references_clear(provider);
    provider_algorithms_clear(provider);
    provider_ring_give_back(provider->ring);
    for (size_t i = 0; i < provider->name_count; i++)
        free(provider->names[i]);
    free(provider->failure_text);
}
