/* What verbs show: a text table for people, or JSON. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <stdint.h>
#include <jansson.h>

#include <envelope/status.h>

/* Print a value as JSON and release it. NULL (jansson ran out of memory) is an error. */
envelope_status output_json(json_t *value);

/* Append to an array, which takes item over. An item of NULL (jansson made none) is an error. */
envelope_status output_json_append(json_t *array, json_t *item);

/* Columns padded to their widest cell; the last one is not padded. */
typedef struct output_table output_table;
output_table *output_table_new(const char *const *titles, size_t columns);
/* Copies the cells; NULL is shown as "-". Running out of memory is remembered until print. */
void output_table_row(output_table *table, const char *const *cells);
envelope_status output_table_print(output_table *table); /* and release it */
void output_table_free(output_table *table);             /* unprinted; NULL is allowed */

/* Times as RFC 3339 text; null for 0. */
json_t *output_json_time(int64_t wall);
const char *output_time(int64_t wall, char buffer[32]);

/* Flush standard output; an error if any of what was printed was lost. */
envelope_status output_finish(void);

#endif
