/* In doctor's other process: does a program that knows nothing of us encrypt with a key reference? */
#include "lifecycle/doctor.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/conf.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#include "base/text.h"

enum { REFERENCE_SIZE = 32 };

/* Is there a key-references in the section that openssl.cnf has for us? */
static bool asked_for(void)
{
    char *path = CONF_get1_default_config_file();
    CONF *conf = NCONF_new(NULL);
    const char *section = NULL;
    ERR_set_mark();
    if (path && conf && NCONF_load(conf, path, NULL) > 0)
        section = NCONF_get_string(conf, NULL, "openssl_conf");
    if (section)
        section = NCONF_get_string(conf, section, "providers");
    if (section)
        section = NCONF_get_string(conf, section, "envelope");
    bool asked = section && NCONF_get_string(conf, section, "key-references");
    ERR_pop_to_mark();
    NCONF_free(conf);
    OPENSSL_free(path);
    return asked;
}

static bool is_ours(const EVP_CIPHER *cipher)
{
    return strcmp(OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher)), "envelope") == 0;
}

static bool encrypts(const EVP_CIPHER *cipher, const uint8_t reference[REFERENCE_SIZE])
{
    static const unsigned char iv[EVP_MAX_IV_LENGTH], text[] = "a block of text.";
    unsigned char out[sizeof(text) + EVP_MAX_BLOCK_LENGTH];
    int length;
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    bool done = context && EVP_EncryptInit_ex2(context, cipher, reference, iv, NULL) == 1 &&
                EVP_EncryptUpdate(context, out, &length, text, sizeof(text) - 1) == 1;
    EVP_CIPHER_CTX_free(context);
    return done;
}

int doctor_probe_references(void)
{
    /* key-references may name some only: one of those that programs use will do. */
    static const char *const names[] = {"AES-256-CBC", "AES-256-GCM",       "AES-256-CTR", "AES-256-CCM",
                                        "ChaCha20",    "ChaCha20-Poly1305", "AES-256-OFB"};
    const char *hex = getenv(DOCTOR_REFERENCE);
    uint8_t reference[REFERENCE_SIZE];
    if (!asked_for())
        return DOCTOR_PROBE_UNASKED;
    if (!hex || !text_unhex(hex, reference, sizeof(reference)))
        return DOCTOR_PROBE_ENCRYPT;
    int category = DOCTOR_PROBE_PASSED_BY;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, names[i], NULL);
        bool ours = cipher && is_ours(cipher);
        if (ours)
            category = encrypts(cipher, reference) ? 0 : DOCTOR_PROBE_ENCRYPT;
        EVP_CIPHER_free(cipher);
        if (!ours || category == 0)
            break;
    }
    return category;
}
