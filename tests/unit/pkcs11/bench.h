/*
 * What this folder's tests of backends share: rows of their tables (a service's answer and what is to be made of it;
 * settings), and the headers of a request.
 */
#ifndef TESTS_BENCH_H
#define TESTS_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "backends.h"
#include "base/error.h"
#include "settings.h"

struct bench_refusal {
    long status;
    const char *body;
    enum backend_step step;
    CK_RV rv;
    const char *words; /* in the error's text */
};

struct bench_settings {
    struct token_settings settings;
    const char *words; /* of the refusal; NULL: they are accepted */
};

static inline bool bench_has_header(const struct http_request *request, const char *line)
{
    const char *at = buffer_text(&request->headers), *end = at + request->headers.length;
    for (; at < end; at += strlen(at) + 1)
        if (strcmp(at, line) == 0)
            return true;
    return false;
}

/* Each is judged as it should be before anything is sent. */
static inline void assert_settings(const struct backend *backend, const struct bench_settings *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct token_settings settings = rows[i].settings;
        const char *words = rows[i].words;
        void *state = NULL;
        settings.label = (char *)"bench";
        settings.backend = (char *)(uintptr_t)backend->name;
        error_clear();
        envelope_status status = backend->open(&settings, &state);
        if (words ? status != ENVELOPE_E_CONFIG || !strstr(error_text(), words) : status != ENVELOPE_OK)
            fail_msg("row %zu: %d %s", i, (int)status, error_text());
        backend->close(state);
    }
}

#endif
