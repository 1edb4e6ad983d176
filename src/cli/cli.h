/* The `envelope` command: its verbs, their options, and what they share. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

#include "keyring/keyring.h"

/* What the process ends with; docs/man/envelope.1, EXIT STATUS. */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1, /* for a reason that none of the others names */
    CLI_USAGE = 2,
    CLI_CONFIGURATION = 3,
    CLI_TOKEN = 4,
    CLI_STORE = 5,
    CLI_KEY = 6, /* a key or version: unknown, there already, in a state that forbids it */
    CLI_DATA = 7 /* a ciphertext or key reference that is damaged or not ours */
};
enum cli_exit cli_exit_of(envelope_status status);

struct cli_option {
    const char *name;  /* without the dashes */
    const char *value; /* "FILE"; NULL: takes none */
    const char *help;
    const char **text; /* where the value goes, or … */
    bool *flag;        /* … that it was given */
};

struct cli_verb {
    const char *name;      /* "key create" */
    const char *arguments; /* "NAME", "FILE...", "" */
    const char *summary;
    int least, most; /* arguments; most < 0: any number */
    const struct cli_option *options;
    size_t option_count;
    envelope_status (*run)(const struct cli_verb *verb, int count, char **arguments);
};

/* Options that every verb takes. */
struct cli_common {
    bool json;
    bool help;
    const char *config;
};
extern struct cli_common cli_common;

/*
 * Parse what follows the verb: options into their targets; the arguments that are none are moved to the front of
 * values, *count of them. On an error it is raised as ENVELOPE_E_ARGUMENT.
 */
envelope_status cli_parse(const struct cli_verb *verb, int *count, char **values);
/* Options that stand before the verb. Returns how many words they took, or -1 with the error raised. */
int cli_parse_leading(int count, char **values, bool *version);

/* An option's value as a number; a NULL text leaves the value alone. */
envelope_status cli_number(const char *option, const char *text, uint64_t least, uint64_t most, uint64_t *value);

void cli_print_usage(const struct cli_verb *verb);

/* The keyring of the configuration; NULL with the error raised. cli_close() gives it back. */
keyring *cli_open(void);
void cli_close(keyring **ring);
#define CLI_KEYRING __attribute__((cleanup(cli_close))) keyring *
/* The configuration's path: --config, ENVELOPE_CONFIG, /etc/envelope/envelope.cnf. */
const char *cli_config_path(void);

/* The verbs, each defined in the file of its group. */
extern const struct cli_verb cli_verb_init;
extern const struct cli_verb cli_verb_key_create, cli_verb_key_list, cli_verb_key_show, cli_verb_key_rotate,
    cli_verb_key_suspend, cli_verb_key_resume, cli_verb_key_rewrap;
extern const struct cli_verb cli_verb_inspect, cli_verb_reference, cli_verb_doctor, cli_verb_history;

#endif
