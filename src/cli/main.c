/* The `envelope` command: picks the verb, runs it, turns its status into one line and an exit status. */
#include "cli/cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/config.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/output.h"
#include "lifecycle/lifecycle.h"

static const struct cli_verb *const verbs[] = {
    &cli_verb_init,       &cli_verb_key_create,  &cli_verb_key_list,   &cli_verb_key_show,
    &cli_verb_key_rotate, &cli_verb_key_suspend, &cli_verb_key_resume, &cli_verb_key_rewrap,
    &cli_verb_history,    &cli_verb_inspect,     &cli_verb_reference,  &cli_verb_doctor,
};
enum { VERB_COUNT = sizeof(verbs) / sizeof(*verbs) };

static void print_help(void)
{
    printf("envelope: data keys under a master key in an HSM, for every program that uses OpenSSL\n\n");
    for (size_t i = 0; i < VERB_COUNT; i++) {
        char left[64];
        snprintf(left, sizeof(left), "%s %s", verbs[i]->name, verbs[i]->arguments);
        printf("  envelope %-22s %s\n", left, verbs[i]->summary);
    }
    printf("\nA verb's options: envelope VERB --help. --json prints JSON, --config FILE names the configuration.\n"
           "The manual: envelope(1), envelope.cnf(5).\n");
}

/* How many words of the command line are the verb's name; 0: they are not. */
static int matches(const struct cli_verb *verb, int count, char **words)
{
    const char *blank = strchr(verb->name, ' ');
    if (!blank)
        return strcmp(words[0], verb->name) == 0 ? 1 : 0;
    size_t group = (size_t)(blank - verb->name);
    bool same = count >= 2 && strncmp(words[0], verb->name, group) == 0 && words[0][group] == '\0' &&
                strcmp(words[1], blank + 1) == 0;
    return same ? 2 : 0;
}

static const struct cli_verb *find_verb(int count, char **words, int *used)
{
    for (size_t i = 0; i < VERB_COUNT; i++) {
        *used = matches(verbs[i], count, words);
        if (*used)
            return verbs[i];
    }
    char asked[128], shown[128];
    snprintf(asked, sizeof(asked), "%s%s%s", words[0], strcmp(words[0], "key") == 0 && count > 1 ? " " : "",
             strcmp(words[0], "key") == 0 && count > 1 ? words[1] : "");
    const char *names[VERB_COUNT];
    for (size_t i = 0; i < VERB_COUNT; i++)
        names[i] = verbs[i]->name;
    const char *near = config_nearest(asked, names, VERB_COUNT);
    text_printable(asked, strlen(asked), shown, sizeof(shown));
    error_raise(ENVELOPE_E_ARGUMENT, "there is no verb \"%s\"; %s%s%s", shown,
                near ? "did you mean \"" : "see envelope --help", near ? near : "", near ? "\"?" : "");
    return NULL;
}

static envelope_status run(int count, char **words)
{
    bool version = false;
    int leading = cli_parse_leading(count, words, &version);
    if (leading < 0)
        return error_status();
    count -= leading;
    words += leading;
    if (version) {
        printf("envelope %s, %s\n", ENVELOPE_VERSION, OpenSSL_version(OPENSSL_VERSION));
        return ENVELOPE_OK;
    }
    if (count == 1 && strcmp(words[0], "help") == 0)
        count = 0;
    else if (count == 0 && !cli_common.help)
        return error_raise(ENVELOPE_E_ARGUMENT, "say what to do; see envelope --help");
    if (count == 0) {
        print_help();
        return ENVELOPE_OK;
    }

    int used;
    const struct cli_verb *verb = find_verb(count, words, &used);
    if (!verb)
        return error_status();
    count -= used;
    words += used;
    envelope_status status = cli_parse(verb, &count, words);
    if (status != ENVELOPE_OK)
        return status;
    if (cli_common.help) {
        cli_print_usage(verb);
        return ENVELOPE_OK;
    }
    return verb->run(verb, count, words);
}

int main(int argc, char **argv)
{
    /* doctor's other half is an ordinary program, which loads openssl.cnf; see lifecycle.h. */
    if (argc == 4 && strcmp(argv[1], "doctor") == 0 && strcmp(argv[2], "--probe") == 0)
        return lifecycle_doctor_probe(argv[3]);

    /* The command runs with the openssl.cnf of those it serves: it must not load their provider into itself. */
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1) {
        fprintf(stderr, "envelope: OpenSSL cannot be initialised\n");
        return CLI_FAILED;
    }
    signal(SIGPIPE, SIG_IGN); /* a lost reader is an error of printing, and has its message */

    envelope_status status = argc < 1 ? ENVELOPE_E_INTERNAL : run(argc - 1, argv + 1);
    envelope_status printed = output_finish();
    if (status == ENVELOPE_OK)
        status = printed;
    if (status != ENVELOPE_OK)
        fprintf(stderr, "envelope: %s\n", *error_text() ? error_text() : envelope_status_text(status));
    return (int)cli_exit_of(status);
}
