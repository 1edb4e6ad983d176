#include "cli/cli.h"

#include "base/error.h"
#include "base/settings.h"

enum cli_exit cli_exit_of(envelope_status status)
{
    static const struct {
        envelope_status from, to;
        enum cli_exit code;
    } groups[] = {
        {ENVELOPE_OK, ENVELOPE_OK, CLI_OK},
        {ENVELOPE_E_ARGUMENT, ENVELOPE_E_ARGUMENT, CLI_USAGE},
        {ENVELOPE_E_CONFIG, ENVELOPE_E_CONFIG, CLI_CONFIGURATION},
        {ENVELOPE_E_KEY_NAME, ENVELOPE_E_KEY_NAME, CLI_USAGE},
        {ENVELOPE_E_KEY_UNKNOWN, ENVELOPE_E_NOT_A_KEY, CLI_KEY},
        {ENVELOPE_E_REFERENCE, ENVELOPE_E_REFERENCE, CLI_DATA},
        {ENVELOPE_E_KEY_MISMATCH, ENVELOPE_E_KEY_MISMATCH, CLI_KEY},
        {ENVELOPE_E_DATA_AUTH, 59, CLI_DATA},
        {ENVELOPE_E_HSM_MODULE, 79, CLI_TOKEN},
        {ENVELOPE_E_STORE_UNAVAILABLE, 99, CLI_STORE},
    };
    for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++)
        if (status >= groups[i].from && status <= groups[i].to)
            return groups[i].code;
    return CLI_FAILED;
}

const char *cli_config_path(void)
{
    return cli_common.config ? cli_common.config : settings_path(NULL);
}

keyring *cli_open(void)
{
    struct settings settings;
    keyring *ring;
    if (settings_load(cli_config_path(), &settings) != ENVELOPE_OK)
        return NULL;
    return keyring_new(&settings, &ring) == ENVELOPE_OK ? ring : NULL;
}

void cli_close(keyring **ring)
{
    if (*ring)
        keyring_free(*ring);
}
