#include "cli/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/error.h"
#include "base/text.h"
#include "base/units.h"

struct cli_common cli_common;

static const struct cli_option common_options[] = {
    {"json", NULL, "print JSON", NULL, &cli_common.json},
    {"config", "FILE", "the configuration; else $ENVELOPE_CONFIG, else /etc/envelope/envelope.cnf", &cli_common.config,
     NULL},
    {"help", NULL, "say what this does and takes", NULL, &cli_common.help},
};

enum { COMMON_COUNT = sizeof(common_options) / sizeof(*common_options), OPTIONS_MAX = 24 };

static const struct cli_option *option_at(const struct cli_verb *verb, size_t index)
{
    return index < COMMON_COUNT ? &common_options[index] : &verb->options[index - COMMON_COUNT];
}

static envelope_status unknown_option(const struct cli_verb *verb, const char *word)
{
    const char *names[OPTIONS_MAX];
    size_t count = COMMON_COUNT + verb->option_count;
    for (size_t i = 0; i < count; i++)
        names[i] = option_at(verb, i)->name;
    char name[64], shown[64];
    size_t length = strcspn(word, "=");
    snprintf(name, sizeof(name), "%.*s", (int)length, word);
    text_printable(word, length, shown, sizeof(shown));
    const char *near = config_nearest(name + strspn(name, "-"), names, count);
    if (near)
        return error_raise(ENVELOPE_E_ARGUMENT, "%s is no option of `%s`; did you mean --%s?", shown, verb->name, near);
    return error_raise(ENVELOPE_E_ARGUMENT, "%s is no option of `%s`; see envelope %s --help", shown, verb->name,
                       verb->name);
}

static envelope_status take(const struct cli_option *option, const char *value)
{
    if (option->flag) {
        *option->flag = true;
        return ENVELOPE_OK;
    }
    if (*option->text && option->text != &cli_common.config)
        return error_raise(ENVELOPE_E_ARGUMENT, "--%s is given twice", option->name);
    *option->text = value;
    return ENVELOPE_OK;
}

static envelope_status check_count(const struct cli_verb *verb, int count)
{
    if (cli_common.help || (count >= verb->least && (verb->most < 0 || count <= verb->most)))
        return ENVELOPE_OK;
    if (verb->most == 0)
        return error_raise(ENVELOPE_E_ARGUMENT, "`%s` takes no arguments, only options", verb->name);
    return error_raise(ENVELOPE_E_ARGUMENT, "`%s` takes %s, and got %d argument%s", verb->name, verb->arguments, count,
                       count == 1 ? "" : "s");
}

envelope_status cli_parse(const struct cli_verb *verb, int *count, char **values)
{
    struct option table[OPTIONS_MAX + 1] = {{NULL, 0, NULL, 0}};
    size_t options = COMMON_COUNT + verb->option_count;
    for (size_t i = 0; i < options; i++) {
        const struct cli_option *option = option_at(verb, i);
        table[i].name = option->name;
        table[i].has_arg = option->value ? required_argument : no_argument;
    }

    /* getopt wants the program's name first; values[-1] is the verb. */
    char **words = values - 1;
    int word_count = *count + 1;
    optind = 0; /* GNU: start anew */
    opterr = 0;
    int index, found;
    while ((found = getopt_long(word_count, words, ":", table, &index)) != -1) {
        if (found == ':')
            return error_raise(ENVELOPE_E_ARGUMENT, "%s needs a value", words[optind - 1]);
        if (found == '?')
            return unknown_option(verb, words[optind - 1]);
        envelope_status status = take(option_at(verb, (size_t)index), optarg);
        if (status != ENVELOPE_OK)
            return status;
    }
    int rest = word_count - optind;
    memmove(values, words + optind, (size_t)rest * sizeof(*values));
    *count = rest;
    return check_count(verb, rest);
}

int cli_parse_leading(int count, char **values, bool *version)
{
    static const struct cli_verb none = {.name = "envelope"};
    int i = 0;
    for (; i < count && values[i][0] == '-'; i++) {
        const char *word = values[i];
        if (strcmp(word, "--version") == 0)
            *version = true;
        else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
            cli_common.help = true;
        else if (strcmp(word, "--json") == 0)
            cli_common.json = true;
        else if (strncmp(word, "--config=", 9) == 0)
            cli_common.config = word + 9;
        else if (strcmp(word, "--config") == 0 && i + 1 < count)
            cli_common.config = values[++i];
        else if (strcmp(word, "--config") == 0)
            return error_raise(ENVELOPE_E_ARGUMENT, "--config needs a value"), -1;
        else
            return unknown_option(&none, word), -1;
    }
    return i;
}

envelope_status cli_number(const char *option, const char *text, uint64_t least, uint64_t most, uint64_t *value)
{
    if (!text)
        return ENVELOPE_OK;
    uint64_t number;
    if (units_parse_size(text, &number) != ENVELOPE_OK)
        return error_context(ENVELOPE_E_ARGUMENT, "--%s", option);
    if (number < least || number > most)
        return error_raise(ENVELOPE_E_ARGUMENT, "--%s is %llu and must be from %llu to %llu", option,
                           (unsigned long long)number, (unsigned long long)least, (unsigned long long)most);
    *value = number;
    return ENVELOPE_OK;
}

static void print_option(const struct cli_option *option)
{
    char left[48];
    snprintf(left, sizeof(left), "--%s%s%s", option->name, option->value ? " " : "",
             option->value ? option->value : "");
    printf("  %-24s %s\n", left, option->help);
}

void cli_print_usage(const struct cli_verb *verb)
{
    printf("envelope %s%s%s [options]\n%s\n\n", verb->name, *verb->arguments ? " " : "", verb->arguments,
           verb->summary);
    for (size_t i = 0; i < verb->option_count; i++)
        if (verb->options[i].help)
            print_option(&verb->options[i]);
    for (size_t i = 0; i < COMMON_COUNT; i++)
        print_option(&common_options[i]);
}
