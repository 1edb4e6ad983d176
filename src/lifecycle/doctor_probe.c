#include "lifecycle/lifecycle.h"

#include <stdio.h>
#include <string.h>

#include <openssl/conf.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include "lifecycle/doctor.h"

static const char cipher_name[] = "ENVELOPE-AES-256-GCM";

/* The newest entry of OpenSSL's error queue with its text, on one line. */
static void print_openssl_error(void)
{
    const char *data = NULL;
    int flags = 0;
    unsigned long code = ERR_peek_last_error_all(NULL, NULL, NULL, &data, &flags);
    if (code == 0) {
        printf("OpenSSL gives no reason");
        return;
    }
    const char *reason = ERR_reason_error_string(code);
    printf("%s", reason ? reason : "unknown reason");
    if (data && *data && (flags & ERR_TXT_STRING))
        printf(": %s", data);
}

static int report(char category)
{
    printf("%s%c ", DOCTOR_PROBE_MARK, category);
    print_openssl_error();
    printf("\n");
    return 1;
}

static int run_message(EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, int encrypt, const unsigned char *in,
                       int in_length, unsigned char *out, int *out_length)
{
    static const unsigned char default_key[32]; /* zeros: docs/wire-format.md, Compact */
    int updated = 0, finished = 0;
    if (EVP_CipherInit_ex2(context, cipher, default_key, NULL, encrypt, NULL) != 1 ||
        EVP_CipherUpdate(context, out, &updated, in, in_length) != 1 ||
        EVP_CipherFinal_ex(context, out + updated, &finished) != 1)
        return 0;
    *out_length = updated + finished;
    return 1;
}

static int round_trip(OSSL_LIB_CTX *libctx)
{
    static const unsigned char message[] = "The quick brown fox jumps over the lazy dog";
    unsigned char sealed[sizeof(message) + 64], opened[sizeof(message) + 64];
    int sealed_length = 0, opened_length = 0;
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(libctx, cipher_name, "provider=envelope");
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int category = 0;
    if (!cipher || !context)
        category = DOCTOR_PROBE_FETCH;
    else if (!run_message(context, cipher, 1, message, (int)sizeof(message), sealed, &sealed_length))
        category = DOCTOR_PROBE_ENCRYPT;
    else if (!run_message(context, cipher, 0, sealed, sealed_length, opened, &opened_length) ||
             opened_length != (int)sizeof(message) || memcmp(opened, message, sizeof(message)) != 0)
        category = DOCTOR_PROBE_DECRYPT;
    EVP_CIPHER_CTX_free(context);
    EVP_CIPHER_free(cipher);
    return category ? report((char)category) : 0;
}

/* As `openssl enc -provider envelope` does: by name, from where OpenSSL looks for modules. */
static int probe_module(void)
{
    OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();
    OSSL_PROVIDER *provider = libctx ? OSSL_PROVIDER_load(libctx, "envelope") : NULL;
    int status = provider ? round_trip(libctx) : report(DOCTOR_PROBE_LOAD);
    if (provider)
        OSSL_PROVIDER_unload(provider);
    OSSL_LIB_CTX_free(libctx);
    return status;
}

/* What the configuration file says under the provider's name, in a configuration of its own; NULL: nothing. */
static CONF *read_configuration(const char **section)
{
    char *path = CONF_get1_default_config_file();
    CONF *conf = NCONF_new(NULL);
    const char *init = NULL, *providers = NULL;
    *section = NULL;
    ERR_set_mark();
    if (path && conf && NCONF_load(conf, path, NULL) > 0)
        init = NCONF_get_string(conf, NULL, "openssl_conf");
    if (init)
        providers = NCONF_get_string(conf, init, "providers");
    if (providers)
        *section = NCONF_get_string(conf, providers, "envelope");
    ERR_pop_to_mark();
    OPENSSL_free(path);
    return conf;
}

/*
 * The provider is not there. OpenSSL does not say why: whether the file says nothing of it, does not activate it, or
 * names a module that does not load, it goes on without. So try that module alone.
 */
static int report_absence(void)
{
    const char *section;
    CONF *conf = read_configuration(&section);
    if (!section) {
        NCONF_free(conf);
        return report(DOCTOR_PROBE_INACTIVE);
    }
    ERR_set_mark();
    const char *module = NCONF_get_string(conf, section, "module");
    ERR_pop_to_mark();
    OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();
    OSSL_PROVIDER *provider = libctx ? OSSL_PROVIDER_load(libctx, module ? module : "envelope") : NULL;
    int status = report(provider ? DOCTOR_PROBE_NOT_ACTIVATED : DOCTOR_PROBE_LOAD);
    if (provider)
        OSSL_PROVIDER_unload(provider);
    OSSL_LIB_CTX_free(libctx);
    NCONF_free(conf);
    return status;
}

/* As every program does that knows nothing of us: by openssl.cnf. */
static int probe_configuration(void)
{
    if (OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL) != 1)
        return report(DOCTOR_PROBE_LOAD);
    if (!OSSL_PROVIDER_available(NULL, "envelope"))
        return report_absence();
    EVP_CIPHER *usual = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    if (!usual)
        return report(DOCTOR_PROBE_NO_DEFAULT);
    EVP_CIPHER_free(usual);
    return round_trip(NULL);
}

static int probe_other(int (*probe)(void))
{
    int category = OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL) == 1 ? probe() : DOCTOR_PROBE_LOAD;
    return category ? report((char)category) : 0;
}

int lifecycle_doctor_probe(const char *how)
{
    int status = strcmp(how, "module") == 0       ? probe_module()
                 : strcmp(how, "references") == 0 ? probe_other(doctor_probe_references)
                 : strcmp(how, "tls") == 0        ? probe_other(doctor_probe_tls)
                                                  : probe_configuration();
    if (status == 0)
        printf("%s%c\n", DOCTOR_PROBE_MARK, DOCTOR_PROBE_GOOD);
    fflush(stdout);
    return status;
}
