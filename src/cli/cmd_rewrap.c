#include "cli/cli.h"

#include <stdio.h>

#include "base/error.h"
#include "cli/output.h"

static struct {
    const char *kek, *version, *reason;
} given;

static const struct cli_option options[] = {
    {"kek", "URI", "the KEK to move to; else the key's own, whose newest material wraps all anew", &given.kek, NULL},
    {"version", "N", "this version only; else all, and what is made from now on", &given.version, NULL},
    {"reason", "TEXT", "noted in the history", &given.reason, NULL},
};

static envelope_status run(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    (void)count;
    const char *name = arguments[0];
    uint64_t number = 0;
    envelope_status status = cli_number("version", given.version, 1, UINT32_MAX, &number);
    if (status != ENVELOPE_OK)
        return status;
    CLI_KEYRING ring = cli_open();
    if (!ring)
        return error_status();
    struct keyring_rewrap wanted = {.kek_uri = given.kek, .version = (uint32_t)number, .why = given.reason};
    struct keyring_rewrapped done;
    status = keyring_rewrap(ring, name, &wanted, &done);
    if (status != ENVELOPE_OK)
        return status;
    if (cli_common.json)
        return output_json(json_pack("{ss sI sI sI}", "key", name, "moved", (json_int_t)done.moved, "inside",
                                     (json_int_t)done.inside, "kept", (json_int_t)done.kept));
    printf("rewrapped %zu version%s of key \"%s\"", done.moved, done.moved == 1 ? "" : "s", name);
    if (done.inside)
        printf(", %zu of them inside the key service", done.inside);
    if (done.kept)
        printf("; %zu %s under that KEK already", done.kept, done.kept == 1 ? "was" : "were");
    printf("\n");
    return ENVELOPE_OK;
}

const struct cli_verb cli_verb_key_rewrap = {.name = "key rewrap",
                                             .arguments = "NAME",
                                             .summary = "move its versions to another KEK; no data is touched",
                                             .least = 1,
                                             .most = 1,
                                             .options = options,
                                             .option_count = sizeof options / sizeof *options,
                                             .run = run};
