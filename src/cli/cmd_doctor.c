#include "cli/cli.h"

#include <stdio.h>

#include "base/error.h"
#include "cli/output.h"
#include "lifecycle/lifecycle.h"

static json_t *check_json(const struct lifecycle_check *check)
{
    return json_pack("{ss ss ss? ss? ss?}", "check", check->name, "outcome", lifecycle_outcome_text(check->outcome),
                     "found", check->found, "advice", check->advice, "reason",
                     check->status ? envelope_status_name(check->status) : NULL);
}

static envelope_status print_json(const struct lifecycle_diagnosis *diagnosis)
{
    json_t *array = json_array();
    envelope_status status = ENVELOPE_OK;
    for (size_t i = 0; status == ENVELOPE_OK && i < diagnosis->count; i++)
        status = output_json_append(array, check_json(&diagnosis->checks[i]));
    if (status != ENVELOPE_OK) {
        json_decref(array);
        return status;
    }
    return output_json(array);
}

static void print_text(const struct lifecycle_diagnosis *diagnosis)
{
    for (size_t i = 0; i < diagnosis->count; i++) {
        const struct lifecycle_check *check = &diagnosis->checks[i];
        printf("%-8s %-15s %s\n", lifecycle_outcome_text(check->outcome), check->name,
               check->found ? check->found : "");
        if (check->advice)
            printf("%-8s %-15s %s\n", "", "", check->advice);
    }
}

/* The first failed check decides the exit status. */
static envelope_status verdict(const struct lifecycle_diagnosis *diagnosis)
{
    const struct lifecycle_check *first = NULL;
    size_t failed = 0;
    for (size_t i = 0; i < diagnosis->count; i++) {
        if (diagnosis->checks[i].outcome != LIFECYCLE_FAILED)
            continue;
        failed++;
        if (!first)
            first = &diagnosis->checks[i];
    }
    if (!first)
        return ENVELOPE_OK;
    return error_raise(first->status, "%zu of %zu checks failed, first: %s", failed, diagnosis->count, first->name);
}

static envelope_status run(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    (void)count;
    (void)arguments;
    struct lifecycle_diagnosis diagnosis;
    envelope_status status = lifecycle_doctor(cli_config_path(), &diagnosis);
    if (status == ENVELOPE_OK && cli_common.json)
        status = print_json(&diagnosis);
    else if (status == ENVELOPE_OK)
        print_text(&diagnosis);
    if (status == ENVELOPE_OK)
        status = verdict(&diagnosis);
    lifecycle_diagnosis_clear(&diagnosis);
    return status;
}

const struct cli_verb cli_verb_doctor = {
    .name = "doctor",
    .arguments = "",
    .summary = "check the whole set-up, and say what to do about what is wrong",
    .run = run,
};
