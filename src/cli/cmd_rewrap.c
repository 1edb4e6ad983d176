#include "cli/cli.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/output.h"

static struct {
    const char *kek, *from, *version, *reason;
    bool all;
} given;

static const struct cli_option options[] = {
    {"kek", "URI", "the KEK to move to; else the key's own, whose newest material wraps all anew", &given.kek, NULL},
    {"from", "URI", "only what is under this KEK", &given.from, NULL},
    {"all", NULL, "every key; one that cannot be moved is told, and the others go on", NULL, &given.all},
    {"version", "N", "this version only; else all, and what is made from now on", &given.version, NULL},
    {"reason", "TEXT", "noted in the history", &given.reason, NULL},
};

static void print_counts(const struct keyring_rewrapped *done)
{
    if (done->inside)
        printf(", %zu of them inside the key service", done->inside);
    if (done->kept)
        printf("; %zu %s under that KEK already", done->kept, done->kept == 1 ? "was" : "were");
    printf("\n");
}

static envelope_status rewrap_one(keyring *ring, const char *name, const struct keyring_rewrap *wanted)
{
    struct keyring_rewrapped done;
    envelope_status status = keyring_rewrap(ring, name, wanted, &done);
    if (status != ENVELOPE_OK)
        return status;
    if (cli_common.json)
        return output_json(json_pack("{ss sI sI sI}", "key", name, "moved", (json_int_t)done.moved, "inside",
                                     (json_int_t)done.inside, "kept", (json_int_t)done.kept));
    printf("rewrapped %zu version%s of key \"%s\"", done.moved, done.moved == 1 ? "" : "s", name);
    print_counts(&done);
    return ENVELOPE_OK;
}

/* ---- all ---- */

struct progress {
    int64_t told;   /* when the last line was printed */
    json_t *failed; /* NULL unless JSON is wanted */
    envelope_status status;
};

/* Failures at once, else a line a second: on standard error, since standard output has the result. */
static void show_progress(void *argument, const char *name, envelope_status status,
                          const struct keyring_rewrap_all *so_far)
{
    struct progress *progress = argument;
    int64_t now = clock_monotonic();
    if (status != ENVELOPE_OK) {
        fprintf(stderr, "envelope: %s\n", error_text());
        if (progress->failed && progress->status == ENVELOPE_OK)
            progress->status =
                output_json_append(progress->failed, json_pack("{ss ss ss}", "key", name, "result",
                                                               envelope_status_name(status), "error", error_text()));
    }
    if (now - progress->told < CLOCK_SECOND)
        return;
    progress->told = now;
    fprintf(stderr, "envelope: %zu of %zu keys, %zu versions moved\n", so_far->looked, so_far->keys,
            so_far->versions.moved);
}

static envelope_status print_all_json(const struct keyring_rewrap_all *done, json_t *failed)
{
    return output_json(json_pack("{sI sI sI sI so}", "keys", (json_int_t)done->keys, "moved",
                                 (json_int_t)done->versions.moved, "inside", (json_int_t)done->versions.inside, "kept",
                                 (json_int_t)done->versions.kept, "failed", failed));
}

static void print_all(const struct keyring_rewrap_all *done)
{
    printf("rewrapped %zu version%s of %zu key%s", done->versions.moved, done->versions.moved == 1 ? "" : "s",
           done->looked, done->looked == 1 ? "" : "s");
    print_counts(&done->versions);
}

/* What was done is printed also where some of it failed; that is the command's error. */
static envelope_status rewrap_all(keyring *ring, const struct keyring_rewrap *wanted)
{
    struct keyring_rewrap_all done;
    struct progress progress = {.told = clock_monotonic(), .failed = cli_common.json ? json_array() : NULL};
    if (cli_common.json && !progress.failed)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
    envelope_status status = keyring_rewrap_all(ring, wanted, show_progress, &progress, &done);
    envelope_status printed = progress.status;
    char why[1024];
    snprintf(why, sizeof why, "%s", status != ENVELOPE_OK ? error_text() : "");
    if (progress.failed && printed == ENVELOPE_OK)
        printed = print_all_json(&done, progress.failed);
    else if (progress.failed)
        json_decref(progress.failed);
    else if (status == ENVELOPE_OK || done.looked > 0)
        print_all(&done);
    return status != ENVELOPE_OK ? error_raise(status, "%s", why) : printed;
}

static envelope_status run(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    uint64_t number = 0;
    if (given.all == (count == 1))
        return error_raise(ENVELOPE_E_ARGUMENT, given.all ? "--all is every key: name none"
                                                          : "`key rewrap` takes the NAME of a key, or --all");
    if (given.all && given.version)
        return error_raise(ENVELOPE_E_ARGUMENT, "--version is one of a key, not of all");
    envelope_status status = cli_number("version", given.version, 1, UINT32_MAX, &number);
    if (status != ENVELOPE_OK)
        return status;
    CLI_KEYRING ring = cli_open();
    if (!ring)
        return error_status();
    struct keyring_rewrap wanted = {
        .kek_uri = given.kek, .from_uri = given.from, .version = (uint32_t)number, .why = given.reason};
    return given.all ? rewrap_all(ring, &wanted) : rewrap_one(ring, arguments[0], &wanted);
}

const struct cli_verb cli_verb_key_rewrap = {.name = "key rewrap",
                                             .arguments = "NAME|--all",
                                             .summary = "move versions to another KEK; no data is touched",
                                             .most = 1,
                                             .options = options,
                                             .option_count = sizeof options / sizeof *options,
                                             .run = run};
