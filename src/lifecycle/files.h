/* The files a set-up makes: each appears whole or not at all, and one that is there already is left as it is. */
#ifndef LIFECYCLE_FILES_H
#define LIFECYCLE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <envelope/status.h>

/* For __attribute__((cleanup(…))) on char *. */
void lifecycle_free_text(char **text);
#define LIFECYCLE_TEXT __attribute__((cleanup(lifecycle_free_text))) char *

bool lifecycle_exists(const char *path);

/* A directory of this mode; made tells whether it is new. Anything else of that name is an error. */
envelope_status lifecycle_directory_make(const char *path, mode_t mode, bool *made);

/* The name a file has until it is whole: "DIR/.NAME.new". malloc'ed; NULL with the error raised. */
char *lifecycle_temporary_name(const char *path);
/* Write content to the temporary name of path, with this mode, and make it durable. */
envelope_status lifecycle_file_stage(const char *path, mode_t mode, const char *content);
/* Give a staged file its name, or drop it. Publishing never replaces a file. */
envelope_status lifecycle_file_publish(const char *path);
void lifecycle_file_drop(const char *path);
/* Stage and publish, unless path is there; written tells. */
envelope_status lifecycle_file_write_new(const char *path, mode_t mode, const char *content, bool *written);

/* Remove everything inside a directory of ours, one level of subdirectories deep, but not the directory. */
envelope_status lifecycle_directory_empty(const char *path);

/* text as a value in a configuration file of OpenSSL's syntax, quoted if need be. malloc'ed. */
char *lifecycle_quote_conf(const char *text);
/* text as one word for a POSIX shell. malloc'ed. */
char *lifecycle_quote_shell(const char *text);

#endif
