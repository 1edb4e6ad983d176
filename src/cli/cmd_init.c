#include "cli/cli.h"

#include <stdio.h>

#include "base/error.h"
#include "cli/output.h"
#include "lifecycle/lifecycle.h"

static struct {
    const char *softhsm, *module, *token, *kek, *store, *pin_file;
    bool generate_kek, key_references;
} given;

static const struct cli_option options[] = {
    {"softhsm", "DIR", "make a complete rig in DIR: a SoftHSM token, its master key, configuration, store",
     &given.softhsm, NULL},
    {"key-references", NULL, "with --softhsm: programs may use key references as keys of the standard ciphers", NULL,
     &given.key_references},
    {"module", "FILE", "the token's PKCS#11 module", &given.module, NULL},
    {"token", "LABEL", "the token", &given.token, NULL},
    {"kek", "LABEL|URI", "the master key on it", &given.kek, NULL},
    {"generate-kek", NULL, "make the master key if it is not there: AES-256, never extractable", NULL,
     &given.generate_kek},
    {"store", "URL", "where the wrapped keys go: sqlite:/path/keys.db", &given.store, NULL},
    {"pin-file", "FILE", "holds the user PIN", &given.pin_file, NULL},
};

static envelope_status report(const char *place, const struct lifecycle_made *made)
{
    if (cli_common.json) {
        json_t *items = json_array();
        envelope_status status = ENVELOPE_OK;
        for (size_t i = 0; status == ENVELOPE_OK && i < made->count; i++)
            status = output_json_append(
                items, json_pack("{ss ss}", "what", made->items[i].what, "where", made->items[i].where));
        if (status != ENVELOPE_OK) {
            json_decref(items);
            return status;
        }
        return output_json(json_pack("{ss sb so}", "place", place, "changed", made->count > 0, "made", items));
    }
    for (size_t i = 0; i < made->count; i++)
        printf("made %-22s %s\n", made->items[i].what, made->items[i].where);
    if (made->count == 0)
        printf("%s is complete; nothing was changed\n", place);
    else if (given.softhsm)
        printf("ready: . %s/env\n", place);
    else
        printf("ready: %s\n", place);
    return ENVELOPE_OK;
}

static envelope_status run(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    (void)count;
    (void)arguments;
    struct lifecycle_made made = {0};
    const char *place = given.softhsm ? given.softhsm : cli_config_path();
    envelope_status status;
    if (given.key_references && !given.softhsm) {
        status = error_raise(ENVELOPE_E_ARGUMENT, "--key-references goes with --softhsm; elsewhere add key-references "
                                                  "and default_properties to openssl.cnf: see envelope.cnf(5)");
    } else if (!given.softhsm) {
        struct lifecycle_init wanted = {.config = place,
                                        .module = given.module,
                                        .token = given.token,
                                        .kek = given.kek,
                                        .store = given.store,
                                        .pin_file = given.pin_file,
                                        .generate_kek = given.generate_kek};
        status = lifecycle_init(&wanted, &made);
    } else if (given.token || given.kek || given.store || given.pin_file || given.generate_kek) {
        status = error_raise(ENVELOPE_E_ARGUMENT, "--softhsm makes its own token, KEK, store and PIN; beside it only "
                                                  "--module and --key-references may stand");
    } else {
        status =
            lifecycle_rig(given.softhsm, &(struct lifecycle_rig_options){given.module, given.key_references}, &made);
    }
    if (status == ENVELOPE_OK)
        status = report(place, &made);
    lifecycle_made_clear(&made);
    return status;
}

const struct cli_verb cli_verb_init = {
    .name = "init",
    .arguments = "",
    .summary = "set up: --softhsm DIR for a rig, or --module, --token, --kek, --store on an existing token",
    .options = options,
    .option_count = sizeof(options) / sizeof(*options),
    .run = run,
};
