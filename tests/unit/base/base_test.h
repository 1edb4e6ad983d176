/* What every test of this folder includes: cmocka with what it needs first, and a few helpers. */
#ifndef BASE_TEST_H
#define BASE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "sanitized.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The sanitizers turn mlock into nothing, so a lock cannot be seen there. */
#define LOCKS_VISIBLE (!SANITIZED)

static inline void assert_raised(envelope_status got, envelope_status expected, const char *fragment)
{
    if (got != expected || !strstr(error_text(), fragment))
        fail_msg("status %s, text \"%s\"; expected %s with \"%s\"", envelope_status_name(got), error_text(),
                 envelope_status_name(expected), fragment);
    assert_int_equal(error_status(), expected);
}

/* Runs scene in a forked child and returns its wait status. The child's own exit status is scene's result. */
static inline int in_child(int (*scene)(void *), void *argument)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGSEGV, SIG_DFL); /* a sanitizer would report the fault and exit */
        signal(SIGBUS, SIG_DFL);
        _exit(scene(argument));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static inline void assert_child_succeeds(int (*scene)(void *), void *argument)
{
    int status = in_child(scene, argument);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the child ended with wait status 0x%x", (unsigned)status);
}

/*
 * Walks /proc/self/smaps. With address: true if the page it lies in has the flag
 * (two letters of VmFlags). Without: adds up the sizes of mappings with the flag.
 */
static inline size_t smaps_scan(const void *address, const char *flag)
{
    char *line = NULL;
    size_t capacity = 0, total = 0;
    unsigned long from = 0, to = 0;
    FILE *smaps = fopen("/proc/self/smaps", "re");
    assert_non_null(smaps);
    while (getline(&line, &capacity, smaps) > 0) {
        unsigned long a, b;
        char mode[8];
        if (sscanf(line, "%lx-%lx %7[rwxps-]", &a, &b, mode) == 3) {
            from = a;
            to = b;
        }
        if (strncmp(line, "VmFlags:", 8) != 0)
            continue;
        char wanted[8];
        snprintf(wanted, sizeof wanted, " %s", flag);
        bool has = strstr(line, wanted) != NULL;
        bool here = !address || ((uintptr_t)address >= from && (uintptr_t)address < to);
        if (has && here)
            total += address ? 1 : to - from;
    }
    free(line);
    fclose(smaps);
    return total;
}

static inline bool page_has_flag(const void *address, const char *flag)
{
    return smaps_scan(address, flag) > 0;
}

static inline bool all_zero(const void *memory, size_t size)
{
    const unsigned char *bytes = memory;
    for (size_t i = 0; i < size; i++)
        if (bytes[i])
            return false;
    return true;
}

#endif
