/* One connection: what is at the path, how it may be used, and how it is set up. */
#include "store/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

enum { BUSY_SLEEP_SHORT = 100, BUSY_DOUBLINGS = 7, WAL_PAGES_KEPT = 1000, PAGE_SIZE = 4096 };

/* ---- what is at the path ---- */

static envelope_status unavailable(const struct sqlite_store *sqlite, const char *what)
{
    return error_raise(ENVELOPE_E_STORE_UNAVAILABLE, "store %s: %s", sqlite->printed, what);
}

static envelope_status stat_failed(const struct sqlite_store *sqlite, int reason)
{
    switch (reason) {
    case ENOENT:
        return unavailable(sqlite, "there is no such file; make a store with `envelope init`, or check the path");
    case ENOTDIR:
        return unavailable(sqlite, "a part of this path is not a directory; check the path");
    case EACCES:
        return error_raise(ENVELOPE_E_STORE_UNAVAILABLE,
                           "store %s: uid %ld may not enter its directory; give it the execute permission there",
                           sqlite->printed, (long)geteuid());
    default: {
        char text[96];
        return unavailable(sqlite, strerror_r(reason, text, sizeof text));
    }
    }
}

static envelope_status look_at_path(const struct sqlite_store *sqlite, struct stat *file)
{
    if (stat(sqlite->path, file) != 0)
        return stat_failed(sqlite, errno);
    if (S_ISDIR(file->st_mode))
        return unavailable(sqlite, "this is a directory; the store is a file, for example keys.db inside of it");
    if (!S_ISREG(file->st_mode))
        return unavailable(sqlite, "this is not a regular file; check the path");
    if (faccessat(AT_FDCWD, sqlite->path, R_OK, AT_EACCESS) != 0)
        return error_raise(
            ENVELOPE_E_STORE_UNAVAILABLE,
            "store %s: uid %ld may not read it (owner %ld, mode %04o); run as its owner, or grant access",
            sqlite->printed, (long)geteuid(), (long)file->st_uid, (unsigned)file->st_mode & 07777);
    return ENVELOPE_OK;
}

/*
 * The file is made under another name, closed, and only then moved to its path:
 * closing a descriptor of a file drops all POSIX locks this process has on it,
 * and another thread may have it open by SQLite as soon as it is visible.
 */
static envelope_status make_and_move(const struct sqlite_store *sqlite, char *draft, const char *directory)
{
    int fd = mkostemp(draft, O_CLOEXEC);
    if (fd < 0) {
        char text[96];
        int reason = errno;
        if (reason == ENOENT)
            return error_raise(ENVELOPE_E_STORE_UNAVAILABLE,
                               "store %s: cannot make it: its directory does not exist; make that first",
                               sqlite->printed);
        return error_raise(ENVELOPE_E_STORE_UNAVAILABLE, "store %s: uid %ld cannot make a file in its directory: %s",
                           sqlite->printed, (long)geteuid(), strerror_r(reason, text, sizeof text));
    }
    /* mkostemp asks for 0600, from which the umask may have taken something away. */
    int failed = fchmod(fd, S_IRUSR | S_IWUSR) != 0;
    failed |= close(fd) != 0;
    if (!failed && renameat2(AT_FDCWD, draft, AT_FDCWD, sqlite->path, RENAME_NOREPLACE) != 0) {
        bool unsupported = errno == EINVAL || errno == ENOSYS;
        failed = errno != EEXIST && !(unsupported && (link(draft, sqlite->path) == 0 || errno == EEXIST));
    }
    int reason = errno;
    unlink(draft);
    if (failed) {
        char text[96];
        return error_raise(ENVELOPE_E_STORE_UNAVAILABLE, "store %s: cannot make it: %s", sqlite->printed,
                           strerror_r(reason, text, sizeof text));
    }
    /* So that the name survives a loss of power. File systems that cannot do it do not need it. */
    int directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory_fd >= 0) {
        fsync(directory_fd);
        close(directory_fd);
    }
    return ENVELOPE_OK;
}

envelope_status store_sqlite_make_file(const struct sqlite_store *sqlite)
{
    struct stat file;
    if (lstat(sqlite->path, &file) == 0)
        return ENVELOPE_OK;
    if (errno != ENOENT)
        return stat_failed(sqlite, errno);
    const char *slash = strrchr(sqlite->path, '/');
    char *directory = text_format("%.*s/", (int)(slash - sqlite->path), sqlite->path);
    char *draft = text_format("%s.new-XXXXXX", sqlite->path);
    envelope_status status = ENVELOPE_E_NO_MEMORY;
    if (directory && draft)
        status = make_and_move(sqlite, draft, directory);
    free(directory);
    free(draft);
    return status;
}

/* ---- immutable: reading where SQLite cannot keep its -shm file ---- */

/* The file beside the store with this ending. False: there is none. */
static bool stat_beside(const struct sqlite_store *sqlite, const char *ending, struct stat *file)
{
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s%s", sqlite->path, ending);
    return stat(path, file) == 0;
}

/* Everything that was ever written is in the main file: there is no -wal, or it is empty. */
static bool wal_is_empty(const struct sqlite_store *sqlite)
{
    struct stat wal;
    if (stat_beside(sqlite, "-wal", &wal))
        return wal.st_size == 0;
    return errno == ENOENT;
}

static bool same_inode(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool is_untouched(const struct connection *c)
{
    struct stat now;
    return stat(c->sqlite->path, &now) == 0 && same_inode(&now, &c->file) && now.st_size == c->file.st_size &&
           now.st_mtim.tv_sec == c->file.st_mtim.tv_sec && now.st_mtim.tv_nsec == c->file.st_mtim.tv_nsec &&
           wal_is_empty(c->sqlite);
}

bool store_sqlite_is_current(const struct connection *connection)
{
    if (connection->immutable)
        return is_untouched(connection);
    int moved = 0;
    int rc = sqlite3_file_control(connection->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
    return rc == SQLITE_OK && !moved;
}

bool store_sqlite_may_write(const struct connection *connection)
{
    struct stat wal, shm;
    return !connection->read_only && stat_beside(connection->sqlite, "-wal", &wal) &&
           stat_beside(connection->sqlite, "-shm", &shm) && same_inode(&wal, &connection->wal) &&
           same_inode(&shm, &connection->shm);
}

/* "file:" and the path with everything escaped that a URI gives a meaning to. */
static char *immutable_uri(const char *path)
{
    static const char query[] = "?immutable=1";
    char *uri = malloc(strlen("file:") + 3 * strlen(path) + sizeof query);
    if (!uri) {
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory while the store is opened");
        return NULL;
    }
    char *to = stpcpy(uri, "file:");
    for (const char *from = path; *from; from++) {
        if (strchr("?#%", *from))
            to += snprintf(to, 4, "%%%02X", (unsigned)(unsigned char)*from);
        else
            *to++ = *from;
    }
    memcpy(to, query, sizeof query);
    return uri;
}

/* ---- opening ---- */

/* Wait for other processes' locks: short sleeps at first, at most the deadline in sum. */
static int wait_for_others(void *argument, int attempts)
{
    struct connection *c = argument;
    if (c->waited >= c->sqlite->deadline)
        return 0;
    int64_t slice = BUSY_SLEEP_SHORT << (attempts < BUSY_DOUBLINGS ? attempts : BUSY_DOUBLINGS);
    struct timespec left = {.tv_nsec = (long)(slice * 1000)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
    c->waited += slice;
    return 1;
}

static int open_database(struct connection *c, const char *name, int flags)
{
    int rc = sqlite3_open_v2(name, &c->db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE, NULL);
    if (rc != SQLITE_OK)
        return c->db ? sqlite3_extended_errcode(c->db) : rc;
    sqlite3_extended_result_codes(c->db, 1);
    sqlite3_busy_handler(c->db, wait_for_others, c);
    /* The file may have been prepared by somebody: nothing in its schema gets to call what it likes. */
    sqlite3_db_config(c->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(c->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(c->db, SQLITE_DBCONFIG_ENABLE_FKEY, 1, NULL);
    sqlite3_db_config(c->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 1, NULL);
    /* The first read: finds out whether this is a database, and opens -wal and -shm. */
    c->waited = 0;
    return sqlite3_exec(c->db, "SELECT 1 FROM sqlite_schema LIMIT 1", NULL, NULL, NULL);
}

static envelope_status open_immutable(struct connection *c)
{
    char *uri = immutable_uri(c->sqlite->path);
    if (!uri)
        return ENVELOPE_E_NO_MEMORY;
    c->immutable = true;
    c->read_only = true;
    int rc = open_database(c, uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
    free(uri);
    if (rc != SQLITE_OK)
        return store_sqlite_error(c, rc, "open it");
    if (!store_sqlite_is_current(c))
        return error_raise(ENVELOPE_E_STORE_BUSY, "store %s: it was changed while it was opened for reading; try again",
                           c->sqlite->printed);
    return ENVELOPE_OK;
}

/*
 * Who may not write the file should not make its -wal and -shm either: these would be his, and read-only like the
 * file, and lock those out who may write.
 */
static bool must_not_make_log(const struct connection *c)
{
    struct stat ignored;
    bool log_is_there = stat_beside(c->sqlite, "-wal", &ignored) && stat_beside(c->sqlite, "-shm", &ignored);
    return !log_is_there && faccessat(AT_FDCWD, c->sqlite->path, W_OK, AT_EACCESS) != 0 && wal_is_empty(c->sqlite);
}

static envelope_status open_file(struct connection *c)
{
    if (must_not_make_log(c))
        return open_immutable(c);
    int rc = open_database(c, c->sqlite->path, SQLITE_OPEN_READWRITE);
    if (rc == SQLITE_OK) {
        c->read_only = sqlite3_db_readonly(c->db, "main") == 1;
        return ENVELOPE_OK;
    }
    /* No -shm can be made here (a read-only directory or file system); there is a way to read without. */
    int primary = rc & 0xff;
    bool no_shm = primary == SQLITE_CANTOPEN || primary == SQLITE_READONLY;
    if (!no_shm || !c->db || !wal_is_empty(c->sqlite))
        return c->db ? store_sqlite_error(c, rc, "open it") : store_sqlite_file_error(c->sqlite, rc, 0, "open it");
    sqlite3_close(c->db);
    c->db = NULL;
    return open_immutable(c);
}

/* ---- setting up ---- */

static envelope_status set_wal(struct connection *c)
{
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(c->db, "PRAGMA journal_mode = WAL", -1, &statement, NULL);
    if (rc == SQLITE_OK) {
        /* SQLite does not always ask the busy handler here, so we do. */
        c->waited = 0;
        for (int attempts = 0; (rc = sqlite3_step(statement)) != SQLITE_ROW; attempts++) {
            sqlite3_reset(statement);
            if ((rc & 0xff) != SQLITE_BUSY || !wait_for_others(c, attempts))
                break;
        }
    }
    envelope_status status = ENVELOPE_OK;
    if (rc != SQLITE_ROW)
        status = store_sqlite_error(c, rc, "prepare it for concurrent use (WAL)");
    else if (strcmp((const char *)sqlite3_column_text(statement, 0), "wal") != 0)
        status = error_raise(ENVELOPE_E_STORE_UNAVAILABLE,
                             "store %s: its file system lacks shared memory for SQLite's WAL; put it on a local one",
                             c->sqlite->printed);
    sqlite3_finalize(statement);
    return status;
}

/* Which -wal and -shm are in use: one of them replaced, and two processes would write past each other. */
static envelope_status remember_log(struct connection *c)
{
    if (stat_beside(c->sqlite, "-wal", &c->wal) && stat_beside(c->sqlite, "-shm", &c->shm))
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_STORE_UNAVAILABLE,
                       "store %s: its -wal or -shm file vanished while it was opened; leave these files to SQLite",
                       c->sqlite->printed);
}

static envelope_status set_up(struct connection *c)
{
    /* -wal and -shm stay when the last connection closes, so that those who may only read find them. */
    int keep = 1;
    sqlite3_file_control(c->db, "main", SQLITE_FCNTL_PERSIST_WAL, &keep);
    envelope_status status = store_sqlite_execute(c, "PRAGMA secure_delete = ON; PRAGMA cell_size_check = ON;");
    if (status || c->read_only)
        return status;
    sqlite3_wal_autocheckpoint(c->db, WAL_PAGES_KEPT);
    status = set_wal(c);
    if (status)
        return status;
    /* The read at the end makes sure that the log is open. */
    char pragmas[128];
    snprintf(pragmas, sizeof pragmas,
             "PRAGMA journal_size_limit = %d; PRAGMA synchronous = FULL; SELECT 1 FROM sqlite_schema LIMIT 1;",
             WAL_PAGES_KEPT * PAGE_SIZE);
    status = store_sqlite_execute(c, pragmas);
    return status ? status : remember_log(c);
}

static envelope_status bring_up_to_date(struct connection *c, bool create, bool *created)
{
    int schema = 0;
    const size_t latest = store_sqlite_migrations_count;
    envelope_status status = store_sqlite_check_schema(c, latest, create, &schema);
    if (!status)
        status = set_up(c);
    if (status || schema == (int)latest)
        return status;
    if (c->read_only)
        return error_raise(ENVELOPE_E_STORE_READ_ONLY,
                           "store %s: its schema %d must be brought to %d first, but uid %ld may not write it; run "
                           "`envelope doctor` once as an account that may",
                           c->sqlite->printed, schema, (int)latest, (long)geteuid());
    return store_sqlite_migrate(c, store_sqlite_migrations, latest, created);
}

envelope_status store_sqlite_connect(struct sqlite_store *sqlite, bool create, bool *created,
                                     struct connection **connection)
{
    *connection = NULL;
    if (!sqlite3_threadsafe())
        return error_raise(ENVELOPE_E_STORE_UNAVAILABLE, "the SQLite library here was built without thread support");
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory while the store is opened");
    c->sqlite = sqlite;
    envelope_status status = look_at_path(sqlite, &c->file);
    if (!status)
        status = open_file(c);
    if (!status)
        status = bring_up_to_date(c, create, created);
    if (status) {
        store_sqlite_disconnect(c);
        return status;
    }
    *connection = c;
    return ENVELOPE_OK;
}

void store_sqlite_disconnect(struct connection *connection)
{
    for (size_t i = 0; i < STORE_SQLITE_STATEMENTS; i++)
        sqlite3_finalize(connection->statements[i].statement);
    sqlite3_close(connection->db);
    free(connection);
}
