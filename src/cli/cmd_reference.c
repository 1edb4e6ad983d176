#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/error.h"
#include "cli/output.h"
#include "lifecycle/lifecycle.h"

static struct {
    const char *version, *format;
    bool canary;
} given;

static const struct cli_option options[] = {
    {"version", "N", "this version; else the primary", &given.version, NULL},
    {"format", "NAME", "hex (the default), base64, php, ruby, python, sql or laravel", &given.format, NULL},
    {"canary", NULL, "print a command that fails where Envelope is not in front of OpenSSL's ciphers", NULL,
     &given.canary},
};

struct texts {
    char hex[2 * LIFECYCLE_REFERENCE_SIZE + 1];
    char base64[4 * ((LIFECYCLE_REFERENCE_SIZE + 2) / 3) + 1];
};

static void write_texts(const struct lifecycle_reference *reference, struct texts *texts)
{
    text_hex(reference->bytes, sizeof(reference->bytes), texts->hex);
    EVP_EncodeBlock((unsigned char *)texts->base64, reference->bytes, sizeof(reference->bytes));
}

/* How each language writes 32 bytes: what comes before, in which digits, and after. */
static const struct format {
    const char *name, *before, *after;
    bool base64;
} formats[] = {
    {"hex", "", "", false},
    {"base64", "", "", true},
    {"php", "hex2bin('", "')", false},
    {"ruby", "['", "'].pack('H*')", false},
    {"python", "bytes.fromhex('", "')", false},
    {"sql", "'\\x", "'::bytea", false},
    {"laravel", "APP_KEY=base64:", "", true},
};

static const struct format *find_format(const char *name)
{
    for (size_t i = 0; i < sizeof(formats) / sizeof(*formats); i++)
        if (!name || strcmp(formats[i].name, name) == 0)
            return &formats[i];
    error_raise(ENVELOPE_E_ARGUMENT, "--format takes hex, base64, php, ruby, python, sql or laravel");
    return NULL;
}

static envelope_status print_canary(keyring *ring, const struct lifecycle_reference *reference,
                                    const struct texts *texts)
{
    struct lifecycle_canary canary;
    envelope_status status = lifecycle_canary(ring, reference, &canary);
    if (status != ENVELOPE_OK)
        return status;
    char iv[2 * LIFECYCLE_CANARY_IV_SIZE + 1], sealed[4 * ((LIFECYCLE_CANARY_SIZE + 2) / 3) + 1];
    text_hex(canary.iv, sizeof(canary.iv), iv);
    EVP_EncodeBlock((unsigned char *)sealed, canary.sealed, (int)canary.length);
    if (cli_common.json)
        return output_json(json_pack("{ss ss ss ss ss}", "reference", texts->hex, "cipher", "AES-256-CBC", "iv", iv,
                                     "ciphertext", sealed, "plaintext", LIFECYCLE_CANARY_TEXT "\n"));
    printf("printf '%%s\\n' %s | openssl enc -d -aes-256-cbc -a -A -K %s -iv %s | grep -qx '%s'\n", sealed, texts->hex,
           iv, LIFECYCLE_CANARY_TEXT);
    return ENVELOPE_OK;
}

static envelope_status print_reference(const char *key, const struct lifecycle_reference *reference,
                                       const struct texts *texts, const struct format *format)
{
    const char *digits = format->base64 ? texts->base64 : texts->hex;
    if (!cli_common.json) {
        printf("%s%s%s\n", format->before, digits, format->after);
        return ENVELOPE_OK;
    }
    char text[160];
    snprintf(text, sizeof(text), "%s%s%s", format->before, digits, format->after);
    return output_json(json_pack("{ss sI sI sI ss ss}", "key", key, "version", (json_int_t)reference->version,
                                 "primary", (json_int_t)reference->primary, "dek_id", (json_int_t)reference->dek_id,
                                 "format", format->name, "reference", text));
}

static envelope_status run(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    (void)count;
    uint64_t version = 0;
    const struct format *format = find_format(given.format);
    if (!format)
        return error_status();
    envelope_status status = cli_number("version", given.version, 1, UINT32_MAX, &version);
    if (status != ENVELOPE_OK)
        return status;
    CLI_KEYRING ring = cli_open();
    store *keys = ring ? keyring_store(ring) : NULL;
    if (!keys)
        return error_status();
    struct lifecycle_reference reference;
    status = lifecycle_reference(keys, arguments[0], (uint32_t)version, &reference);
    if (status != ENVELOPE_OK)
        return status;
    /* Not on standard output: that is the reference alone, for scripts. */
    if (reference.version != reference.primary)
        fprintf(stderr, "envelope: note: version %" PRIu32 " of key \"%s\" is not its newest, %" PRIu32 "\n",
                reference.version, arguments[0], reference.primary);
    struct texts texts;
    write_texts(&reference, &texts);
    return given.canary ? print_canary(ring, &reference, &texts)
                        : print_reference(arguments[0], &reference, &texts, format);
}

const struct cli_verb cli_verb_reference = {
    .name = "reference",
    .arguments = "KEY",
    .summary = "the 32 bytes that stand for a key in the configuration of an unmodified program",
    .least = 1,
    .most = 1,
    .options = options,
    .option_count = sizeof(options) / sizeof(*options),
    .run = run,
};
