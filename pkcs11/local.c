#include "local.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

const char *local_env(const char *name)
{
    const char *value = secure_getenv(name);
    return value && *value ? value : NULL;
}

static envelope_status read_all(int file, const char *path, struct buffer *contents)
{
    for (;;) {
        uint8_t *room = buffer_reserve(contents, 4096);
        if (!room)
            return error_context(ENVELOPE_E_NO_MEMORY, "\"%s\"", path);
        ssize_t count = read(file, room, 4096);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return error_raise(ENVELOPE_E_IO, "\"%s\" cannot be read: %s", path, strerror(errno));
        room[count] = '\0';
        contents->length += (size_t)count;
        if (contents->length > LOCAL_FILE_MAX)
            return error_raise(ENVELOPE_E_IO, "\"%s\" is over %d bytes: not a file of this kind", path,
                               (int)LOCAL_FILE_MAX);
        if (count == 0)
            return ENVELOPE_OK;
    }
}

envelope_status local_read(const char *path, struct buffer *contents)
{
    /* O_NONBLOCK: a FIFO in the file's place must not hang the caller. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (file < 0)
        return error_raise(ENVELOPE_E_IO, "\"%s\" cannot be opened: %s", path, strerror(errno));
    buffer_reset(contents);
    envelope_status status = read_all(file, path, contents);
    close(file);
    if (!status && memchr(contents->bytes, '\0', contents->length))
        status = error_raise(ENVELOPE_E_IO, "\"%s\" holds a NUL byte: not a text file", path);
    return status;
}

envelope_status local_read_line(const char *path, struct buffer *contents)
{
    envelope_status status = local_read(path, contents);
    if (status)
        return status;
    if (contents->length && contents->bytes[contents->length - 1] == '\n')
        contents->bytes[--contents->length] = '\0';
    if (contents->length && contents->bytes[contents->length - 1] == '\r')
        contents->bytes[--contents->length] = '\0';
    if (!contents->length)
        return error_raise(ENVELOPE_E_IO, "\"%s\" is empty", path);
    if (strpbrk(buffer_text(contents), "\r\n"))
        return error_raise(ENVELOPE_E_IO, "\"%s\" has more than one line", path);
    return ENVELOPE_OK;
}
