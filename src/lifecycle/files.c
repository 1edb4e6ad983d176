#include "lifecycle/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/text.h"

void lifecycle_free_text(char **text)
{
    free(*text);
}

bool lifecycle_exists(const char *path)
{
    struct stat found;
    return lstat(path, &found) == 0;
}

envelope_status lifecycle_directory_make(const char *path, mode_t mode, bool *made)
{
    *made = mkdir(path, mode) == 0;
    if (!*made && errno != EEXIST)
        return error_raise(ENVELOPE_E_IO, "cannot make the directory %s: %s", path, strerror(errno));

    struct stat found;
    if (stat(path, &found) != 0)
        return error_raise(ENVELOPE_E_IO, "cannot look at %s: %s", path, strerror(errno));
    if (!S_ISDIR(found.st_mode))
        return error_raise(ENVELOPE_E_IO, "%s is not a directory", path);
    if ((found.st_mode & 07777) != mode && chmod(path, mode) != 0)
        return error_raise(ENVELOPE_E_IO, "cannot set the mode of the directory %s: %s", path, strerror(errno));
    return ENVELOPE_OK;
}

char *lifecycle_temporary_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return text_format(".%s.new", path);
    return text_format("%.*s/.%s.new", (int)(slash - path), path, slash + 1);
}

static envelope_status write_all(int file, const char *path, const char *content)
{
    size_t left = strlen(content);
    while (left > 0) {
        ssize_t written = write(file, content, left);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return error_raise(ENVELOPE_E_IO, "cannot write %s: %s", path, strerror(errno));
        content += written;
        left -= (size_t)written;
    }
    if (fsync(file) != 0)
        return error_raise(ENVELOPE_E_IO, "cannot write %s to its disk: %s", path, strerror(errno));
    return ENVELOPE_OK;
}

envelope_status lifecycle_file_stage(const char *path, mode_t mode, const char *content)
{
    LIFECYCLE_TEXT temporary = lifecycle_temporary_name(path);
    if (!temporary)
        return ENVELOPE_E_NO_MEMORY;
    /* A leftover of a killed run may carry another mode: start from nothing. */
    if (unlink(temporary) != 0 && errno != ENOENT)
        return error_raise(ENVELOPE_E_IO, "cannot replace %s: %s", temporary, strerror(errno));
    int file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (file < 0)
        return error_raise(ENVELOPE_E_IO, "cannot make %s: %s", path, strerror(errno));

    envelope_status status = write_all(file, path, content);
    if (status == ENVELOPE_OK && fchmod(file, mode) != 0)
        status = error_raise(ENVELOPE_E_IO, "cannot set the mode of %s: %s", path, strerror(errno));
    close(file);
    if (status != ENVELOPE_OK)
        unlink(temporary);
    return status;
}

envelope_status lifecycle_file_publish(const char *path)
{
    LIFECYCLE_TEXT temporary = lifecycle_temporary_name(path);
    if (!temporary)
        return ENVELOPE_E_NO_MEMORY;
    /* link() fails where rename() would replace. */
    if (link(temporary, path) != 0)
        return error_raise(ENVELOPE_E_IO, "cannot make %s: %s", path, strerror(errno));
    unlink(temporary);
    return ENVELOPE_OK;
}

void lifecycle_file_drop(const char *path)
{
    LIFECYCLE_TEXT temporary = lifecycle_temporary_name(path);
    if (temporary)
        unlink(temporary);
}

envelope_status lifecycle_file_write_new(const char *path, mode_t mode, const char *content, bool *written)
{
    *written = false;
    if (lifecycle_exists(path))
        return ENVELOPE_OK;
    envelope_status status = lifecycle_file_stage(path, mode, content);
    if (status == ENVELOPE_OK)
        status = lifecycle_file_publish(path);
    *written = status == ENVELOPE_OK;
    return status;
}

static envelope_status empty_level(int parent, const char *path, int depth)
{
    int directory = dup(parent);
    DIR *listing = directory < 0 ? NULL : fdopendir(directory);
    if (!listing) {
        if (directory >= 0)
            close(directory);
        return error_raise(ENVELOPE_E_IO, "cannot list %s: %s", path, strerror(errno));
    }

    envelope_status status = ENVELOPE_OK;
    struct dirent *entry;
    while (status == ENVELOPE_OK && (entry = readdir(listing))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int inner = depth > 0 ? openat(parent, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
        if (inner >= 0) {
            status = empty_level(inner, path, depth - 1);
            close(inner);
        }
        if (status == ENVELOPE_OK && unlinkat(parent, entry->d_name, inner >= 0 ? AT_REMOVEDIR : 0) != 0)
            status = error_raise(ENVELOPE_E_IO, "cannot remove %s in %s: %s", entry->d_name, path, strerror(errno));
    }
    closedir(listing);
    return status;
}

envelope_status lifecycle_directory_empty(const char *path)
{
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0)
        return error_raise(ENVELOPE_E_IO, "cannot open the directory %s: %s", path, strerror(errno));
    envelope_status status = empty_level(directory, path, 1);
    close(directory);
    return status;
}

/* text between two marks, with before put in front of every character listed in special. */
static char *quote(const char *text, const char *mark, const char *special, const char *before)
{
    size_t step = strlen(before) + 1;
    char *quoted = malloc(2 * strlen(mark) + step * strlen(text) + 1);
    if (!quoted) {
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
        return NULL;
    }
    char *to = stpcpy(quoted, mark);
    for (; *text; text++) {
        if (strchr(special, *text))
            to = stpcpy(to, before);
        *to++ = *text;
    }
    stpcpy(to, mark);
    return quoted;
}

char *lifecycle_quote_conf(const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._:;=%+@,-";
    if (*text && text[strspn(text, plain)] == '\0')
        return text_copy(text);
    return quote(text, "\"", "\"\\", "\\");
}

char *lifecycle_quote_shell(const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._:=%+@,-";
    if (*text && text[strspn(text, plain)] == '\0')
        return text_copy(text);
    /* Within double quotes a shell looks at these four only. */
    return quote(text, "\"", "\"\\$`", "\\");
}
