/*
 * The last error of a thread: a status and one line of text that says what
 * failed, on which key, version, file or row, and what to do. Raised where
 * most is known; callers prepend what they know with error_context().
 * Never holds a secret, a PIN or plaintext.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <envelope/status.h>

/* Set the thread's error; returns status so that `return error_raise(…)` reads well. */
envelope_status error_raise(envelope_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prepend "text: " to the thread's error, keeping its status, which is returned. */
envelope_status error_context(envelope_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The thread's error text, "" if none. Valid until the thread raises again. */
const char *error_text(void);
envelope_status error_status(void);
void error_clear(void);

#endif
