#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/output.h"

static const char *limit;

static const struct cli_option options[] = {
    {"limit", "N", "only the N newest", &limit, NULL},
};

static json_t *row_json(const struct store_history *row)
{
    json_t *version = row->version ? json_integer((json_int_t)row->version) : json_null();
    return json_pack("{sI so ss ss ss? so ss ss?}", "id", (json_int_t)row->id, "when", output_json_time(row->when),
                     "who", row->who ? row->who : "", "what", row->what, "key", row->key, "version", version, "result",
                     row->result, "detail", row->detail);
}

static envelope_status print_json(const struct store_history *rows, size_t count)
{
    json_t *array = json_array();
    envelope_status status = ENVELOPE_OK;
    for (size_t i = 0; status == ENVELOPE_OK && i < count; i++)
        status = output_json_append(array, row_json(&rows[i]));
    if (status != ENVELOPE_OK) {
        json_decref(array);
        return status;
    }
    return output_json(array);
}

/* Free text from elsewhere is made harmless for a terminal. */
enum { SHOWN_MAX = 1200 }; /* more than the store keeps of anything: ids of requests stand at the end */
static const char *shown(const char *text, char buffer[SHOWN_MAX])
{
    return text ? text_printable(text, strlen(text), buffer, SHOWN_MAX) : NULL;
}

static envelope_status print_text(const struct store_history *rows, size_t count)
{
    output_table *table =
        output_table_new((const char *[]){"WHEN", "WHAT", "KEY", "VERSION", "RESULT", "WHO", "DETAIL"}, 7);
    if (!table)
        return error_status();
    for (size_t i = 0; i < count; i++) {
        char when[CLOCK_TEXT_MAX], version[24], who[SHOWN_MAX], detail[SHOWN_MAX];
        snprintf(version, sizeof(version), "%" PRIu32, rows[i].version);
        output_table_row(table, (const char *[]){output_time(rows[i].when, when), rows[i].what, rows[i].key,
                                                 rows[i].version ? version : NULL, rows[i].result,
                                                 shown(rows[i].who, who), shown(rows[i].detail, detail)});
    }
    return output_table_print(table);
}

static envelope_status run(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    uint64_t most = 0;
    envelope_status status = cli_number("limit", limit, 1, INT32_MAX, &most);
    if (status != ENVELOPE_OK)
        return status;
    CLI_KEYRING ring = cli_open();
    store *keys = ring ? keyring_store(ring) : NULL;
    if (!keys)
        return error_status();
    const char *name = count == 1 ? arguments[0] : NULL;
    struct store_key key;
    if (name) {
        status = store_key_find(keys, name, &key);
        if (status != ENVELOPE_OK)
            return status;
    }
    struct store_history *rows;
    size_t row_count;
    status = store_history_read(keys, name, (size_t)most, &rows, &row_count);
    if (status != ENVELOPE_OK)
        return status;
    status = cli_common.json ? print_json(rows, row_count) : print_text(rows, row_count);
    store_history_free(rows, row_count);
    return status;
}

const struct cli_verb cli_verb_history = {
    .name = "history",
    .arguments = "[NAME]",
    .summary = "what was done to the keys, newest first",
    .most = 1,
    .options = options,
    .option_count = sizeof(options) / sizeof(*options),
    .run = run,
};
