#include "figures.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ROWS_MAX = 256 };

struct figures {
    struct row {
        const char *group, *name;
        size_t size;
        double ns, ratio;
    } times[ROWS_MAX];
    struct goal {
        const char *goal, *what;
        size_t size;
        double ratio, least;
    } goals[ROWS_MAX];
    struct calls {
        const char *goal, *name;
        uint64_t messages;
        long ready, calls, most;
    } calls[ROWS_MAX];
    size_t time_count, goal_count, calls_count;
};

struct figures *figures_new(void)
{
    struct figures *figures = calloc(1, sizeof *figures);
    if (!figures)
        exit(1);
    return figures;
}

void figures_free(struct figures *figures)
{
    free(figures);
}

void figures_time(struct figures *figures, const char *group, const char *name, size_t size, double ns, double ratio)
{
    if (figures->time_count < ROWS_MAX)
        figures->times[figures->time_count++] = (struct row){group, name, size, ns, ratio};
}

void figures_goal(struct figures *figures, const char *goal, const char *what, size_t size, double ratio, double least)
{
    if (figures->goal_count < ROWS_MAX)
        figures->goals[figures->goal_count++] = (struct goal){goal, what, size, ratio, least};
}

void figures_calls(struct figures *figures, const char *goal, const char *name, uint64_t messages, long ready,
                   long calls, long most)
{
    if (figures->calls_count < ROWS_MAX)
        figures->calls[figures->calls_count++] = (struct calls){goal, name, messages, ready, calls, most};
}

static void print_calls(const struct figures *figures, FILE *to)
{
    if (figures->calls_count == 0)
        return;
    fprintf(to, "\n%-4s %-30s %9s %9s %9s %9s\n", "", "calls to the key service", "messages", "before", "calls",
            "at most");
    for (size_t i = 0; i < figures->calls_count; i++) {
        const struct calls *row = &figures->calls[i];
        fprintf(to, "%-4s %-30s %9" PRIu64 " %9ld %9ld %9ld  %s\n", row->goal, row->name, row->messages, row->ready,
                row->calls, row->most, row->calls <= row->most ? "met" : "MISSED");
    }
}

void figures_print(const struct figures *figures, FILE *to)
{
    const char *group = "";
    for (size_t i = 0; i < figures->time_count; i++) {
        const struct row *row = &figures->times[i];
        if (strcmp(group, row->group) != 0)
            fprintf(to, "\n%-38s %9s %14s %10s %9s\n", row->group, "bytes", "ns a message", "MB/s", "x first");
        group = row->group;
        fprintf(to, "  %-36s %9zu %14.1f %10.1f %9.2f\n", row->name, row->size, row->ns,
                (double)row->size * 1000 / row->ns, row->ratio);
    }
    fprintf(to, "\n%-4s %-40s %9s %9s %9s\n", "", "goal", "bytes", "ratio", "at least");
    for (size_t i = 0; i < figures->goal_count; i++) {
        const struct goal *goal = &figures->goals[i];
        fprintf(to, "%-4s %-40s %9zu %9.3f %9.2f  %s\n", goal->goal, goal->what, goal->size, goal->ratio, goal->least,
                goal->ratio >= goal->least ? "met" : "MISSED");
    }
    print_calls(figures, to);
}

bool figures_write_json(const struct figures *figures, const char *path, const char *openssl)
{
    FILE *to = fopen(path, "w");
    if (!to)
        return false;
    char when[32];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    /* All texts are our own constants, but for OpenSSL's version, which has no quotes. */
    fprintf(to, "{\n  \"when\": \"%s\",\n  \"openssl\": \"%s\",\n  \"processors\": %ld,\n  \"times\": [", when, openssl,
            sysconf(_SC_NPROCESSORS_ONLN));
    for (size_t i = 0; i < figures->time_count; i++) {
        const struct row *row = &figures->times[i];
        fprintf(to, "%s\n    {\"group\": \"%s\", \"name\": \"%s\", \"bytes\": %zu, \"ns\": %.2f, \"ratio\": %.4f}",
                i ? "," : "", row->group, row->name, row->size, row->ns, row->ratio);
    }
    fprintf(to, "\n  ],\n  \"goals\": [");
    for (size_t i = 0; i < figures->goal_count; i++) {
        const struct goal *goal = &figures->goals[i];
        fprintf(to,
                "%s\n    {\"goal\": \"%s\", \"what\": \"%s\", \"bytes\": %zu, \"ratio\": %.4f, \"least\": %.2f, "
                "\"met\": %s}",
                i ? "," : "", goal->goal, goal->what, goal->size, goal->ratio, goal->least,
                goal->ratio >= goal->least ? "true" : "false");
    }
    fprintf(to, "\n  ],\n  \"calls\": [");
    for (size_t i = 0; i < figures->calls_count; i++) {
        const struct calls *row = &figures->calls[i];
        fprintf(to,
                "%s\n    {\"goal\": \"%s\", \"name\": \"%s\", \"messages\": %" PRIu64
                ", \"before\": %ld, \"calls\": %ld, \"most\": %ld}",
                i ? "," : "", row->goal, row->name, row->messages, row->ready, row->calls, row->most);
    }
    fprintf(to, "\n  ]\n}\n");
    return fclose(to) == 0;
}
