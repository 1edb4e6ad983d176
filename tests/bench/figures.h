/* What was measured: times, and goals with what they ask for. Printed as a table, written as JSON. */
#ifndef BENCH_FIGURES_H
#define BENCH_FIGURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct figures;

struct figures *figures_new(void);
void figures_free(struct figures *figures);
/* ratio: how many times as fast as the first contender of its group. Texts must outlive figures. */
void figures_time(struct figures *figures, const char *group, const char *name, size_t size, double ns, double ratio);
void figures_goal(struct figures *figures, const char *goal, const char *what, size_t size, double ratio, double least);
/* Calls to a key service: those that were made to get ready, and those that `messages` messages made. */
void figures_calls(struct figures *figures, const char *goal, const char *name, uint64_t messages, long ready,
                   long calls, long most);
void figures_print(const struct figures *figures, FILE *to);
bool figures_write_json(const struct figures *figures, const char *path, const char *openssl);

#endif
