/* SQLite's result codes as our statuses, each with the path, the cause and what to do. */
#include "store/sqlite.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

/* ": No space left on device", or nothing. */
struct cause {
    char text[128];
};

static struct cause cause_of(int system_error)
{
    struct cause cause = {""};
    if (system_error == 0)
        return cause;
    char text[96];
    /* The GNU variant returns the text, which need not be in the buffer. */
    const char *known = strerror_r(system_error, text, sizeof text);
    cause.text[0] = ':';
    cause.text[1] = ' ';
    strncpy(cause.text + 2, known, sizeof cause.text - 3);
    return cause;
}

static envelope_status cannot_open(const struct sqlite_store *sqlite, const char *doing, const struct cause *cause)
{
    return error_raise(ENVELOPE_E_STORE_UNAVAILABLE,
                       "store %s: cannot %s%s; uid %ld must be allowed to read and write the file and to make files "
                       "in its directory (SQLite keeps -wal and -shm beside it)",
                       sqlite->printed, doing, cause->text, (long)geteuid());
}

static envelope_status busy(const struct sqlite_store *sqlite, const char *doing)
{
    return error_raise(ENVELOPE_E_STORE_BUSY,
                       "store %s: cannot %s: it was locked by another process for %lld ms; find out which with "
                       "`fuser %s`, or try again",
                       sqlite->printed, doing, (long long)(sqlite->deadline / 1000), sqlite->printed);
}

static envelope_status read_only(const struct sqlite_store *sqlite, const char *doing, int rc)
{
    if (rc == SQLITE_READONLY_DBMOVED)
        return error_raise(ENVELOPE_E_STORE_UNAVAILABLE,
                           "store %s: cannot %s: the file was moved or replaced meanwhile; try again", sqlite->printed,
                           doing);
    return error_raise(ENVELOPE_E_STORE_READ_ONLY,
                       "store %s: cannot %s: uid %ld may not write it (file, directory or file system is read-only)",
                       sqlite->printed, doing, (long)geteuid());
}

static envelope_status input_output(const struct sqlite_store *sqlite, const char *doing, int rc,
                                    const struct cause *cause)
{
    if (rc == SQLITE_IOERR_NOMEM)
        return error_raise(ENVELOPE_E_NO_MEMORY, "store %s: cannot %s: out of memory", sqlite->printed, doing);
    return error_raise(
        ENVELOPE_E_STORE_UNAVAILABLE,
        "store %s: cannot %s: input/output error (SQLite code %d)%s; look at the disk and the kernel log",
        sqlite->printed, doing, rc, cause->text);
}

static envelope_status raise(const struct sqlite_store *sqlite, int rc, const char *message, int system_error,
                             const char *doing)
{
    const struct cause cause = cause_of(system_error);
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        return busy(sqlite, doing);
    case SQLITE_READONLY:
        return read_only(sqlite, doing, rc);
    case SQLITE_NOTADB:
        return error_raise(
            ENVELOPE_E_STORE_CORRUPT,
            "store %s: this is not an SQLite database; check the path, or restore the file from a backup",
            sqlite->printed);
    case SQLITE_CORRUPT:
        return error_raise(ENVELOPE_E_STORE_CORRUPT,
                           "store %s: cannot %s: the database is damaged (%s); keep the file and restore a backup",
                           sqlite->printed, doing, message);
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return cannot_open(sqlite, doing, &cause);
    case SQLITE_FULL:
        return error_raise(ENVELOPE_E_STORE_UNAVAILABLE,
                           "store %s: cannot %s: no space is left on its file system; nothing was changed",
                           sqlite->printed, doing);
    case SQLITE_IOERR:
        return input_output(sqlite, doing, rc, &cause);
    case SQLITE_NOMEM:
        return error_raise(ENVELOPE_E_NO_MEMORY, "store %s: cannot %s: out of memory", sqlite->printed, doing);
    case SQLITE_ERROR:
    case SQLITE_SCHEMA:
        return error_raise(ENVELOPE_E_STORE_CORRUPT,
                           "store %s: cannot %s: its tables are not what they should be (%s); restore a backup",
                           sqlite->printed, doing, message);
    default:
        return error_raise(ENVELOPE_E_INTERNAL, "store %s: cannot %s: %s (SQLite code %d)", sqlite->printed, doing,
                           message, rc);
    }
}

/* Nothing is wrong with the connection itself after these. */
static bool is_harmless(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_CONSTRAINT:
    case SQLITE_FULL:
    case SQLITE_NOMEM:
        return true;
    default:
        return false;
    }
}

envelope_status store_sqlite_error(struct connection *c, int rc, const char *doing)
{
    if (!is_harmless(rc))
        c->broken = true;
    return raise(c->sqlite, rc, sqlite3_errmsg(c->db), sqlite3_system_errno(c->db), doing);
}

envelope_status store_sqlite_file_error(const struct sqlite_store *sqlite, int rc, int system_error, const char *doing)
{
    return raise(sqlite, rc, sqlite3_errstr(rc), system_error, doing);
}
