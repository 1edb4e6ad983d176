#include "cli/output.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"

struct output_table {
    size_t columns, rows, room;
    char **cells; /* row by row, the titles first */
    bool failed;
};

static envelope_status no_memory(void)
{
    return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory while printing");
}

envelope_status output_json(json_t *value)
{
    if (!value)
        return no_memory();
    int failed = json_dumpf(value, stdout, JSON_INDENT(2));
    json_decref(value);
    putchar('\n');
    return failed ? error_raise(ENVELOPE_E_IO, "cannot print JSON") : ENVELOPE_OK;
}

envelope_status output_json_append(json_t *array, json_t *item)
{
    if (json_array_append_new(array, item) == 0)
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_INTERNAL, "cannot say this in JSON: out of memory, or text that is not UTF-8");
}

output_table *output_table_new(const char *const *titles, size_t columns)
{
    output_table *table = calloc(1, sizeof(*table));
    if (!table) {
        no_memory();
        return NULL;
    }
    table->columns = columns;
    output_table_row(table, titles);
    return table;
}

void output_table_row(output_table *table, const char *const *cells)
{
    if (table->rows == table->room) {
        size_t room = table->room ? 2 * table->room : 16;
        char **grown = realloc(table->cells, room * table->columns * sizeof(*grown));
        if (!grown) {
            table->failed = true;
            return;
        }
        table->cells = grown;
        table->room = room;
    }
    char **row = table->cells + table->rows++ * table->columns;
    for (size_t i = 0; i < table->columns; i++) {
        row[i] = strdup(cells[i] ? cells[i] : "-");
        if (!row[i])
            table->failed = true;
    }
}

/* Characters, not bytes: UTF-8 continuation bytes take no place. */
static size_t width(const char *text)
{
    size_t count = 0;
    for (; *text; text++)
        count += ((unsigned char)*text & 0xc0) != 0x80;
    return count;
}

static size_t widest(const output_table *table, size_t column)
{
    size_t most = 0;
    for (size_t row = 0; row < table->rows; row++) {
        size_t this = width(table->cells[row * table->columns + column]);
        if (this > most)
            most = this;
    }
    return most;
}

static void print_column(const output_table *table, size_t row, size_t column, size_t wide)
{
    const char *cell = table->cells[row * table->columns + column];
    bool last = column + 1 == table->columns;
    printf("%s%*s", cell, last ? 0 : (int)(wide - width(cell) + 2), "");
    if (last)
        putchar('\n');
}

static void print_rows(const output_table *table)
{
    size_t *wide = calloc(table->columns, sizeof(*wide));
    if (!wide)
        return;
    for (size_t column = 0; column < table->columns; column++)
        wide[column] = widest(table, column);
    for (size_t row = 0; row < table->rows; row++)
        for (size_t column = 0; column < table->columns; column++)
            print_column(table, row, column, wide[column]);
    free(wide);
}

envelope_status output_table_print(output_table *table)
{
    envelope_status status = table->failed ? no_memory() : ENVELOPE_OK;
    if (status == ENVELOPE_OK)
        print_rows(table);
    output_table_free(table);
    return status;
}

void output_table_free(output_table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->rows * table->columns; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
}

const char *output_time(int64_t wall, char buffer[32])
{
    return wall ? clock_text(wall, buffer) : "-";
}

json_t *output_json_time(int64_t wall)
{
    char buffer[CLOCK_TEXT_MAX];
    return wall ? json_string(clock_text(wall, buffer)) : json_null();
}

envelope_status output_finish(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_IO, "cannot write to standard output: %s", strerror(errno));
}
