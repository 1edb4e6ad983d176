/* Access: read-only stores, locks of other processes, files that are replaced while in use, migrations. */
#include "sqlite_support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "store/sqlite.h"

/* ---- read-only ---- */

static void remove_beside(const struct support *s, const char *ending)
{
    char path[SUPPORT_PATH_MAX + 32];
    support_path(s, ending, path);
    assert_true(unlink(path) == 0 || errno == ENOENT);
}

static void set_modes(const struct support *s, mode_t directory, mode_t files)
{
    static const char *const endings[] = {"", "-wal", "-shm"};
    char path[SUPPORT_PATH_MAX + 32];
    for (size_t i = 0; i < 3; i++) {
        support_path(s, endings[i], path);
        assert_true(chmod(path, files) == 0 || errno == ENOENT);
    }
    assert_int_equal(chmod(s->directory, directory), 0);
}

/* Everything that decryption needs works; whatever would write is refused and changes nothing. */
static int reads_but_does_not_write(const struct support *s, void *argument)
{
    (void)argument;
    store *opened = NULL;
    CHILD(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_OK, NULL);
    struct store_version version;
    struct store_key *keys;
    struct store_history *rows;
    size_t count = 0;
    uint64_t counter = 0, granted, reserved, limit;
    CHILD(store_version_of(opened, "k", 1, &version), ENVELOPE_OK, NULL);
    if (version.state != STORE_VERSION_DEACTIVATED || version.blob_length != 32)
        return __LINE__;
    uint32_t dek_id = version.dek_id;
    store_version_clear(&version);
    CHILD(store_version_find(opened, dek_id, &version), ENVELOPE_OK, NULL);
    store_version_clear(&version);
    CHILD(store_keys(opened, &keys, &count), ENVELOPE_OK, NULL);
    free(keys);
    CHILD(store_change_counter(opened, &counter), ENVELOPE_OK, NULL);
    CHILD(store_history_read(opened, NULL, 0, &rows, &count), ENVELOPE_OK, NULL);
    store_history_free(rows, count);
    CHILD(store_check(opened), ENVELOPE_OK, NULL);

    struct store_new_version next = {.dek_id = dek_id + 1,
                                     .algorithm = STORE_AES_256_GCM,
                                     .kek_id = 1,
                                     .blob = (const uint8_t *)"blob",
                                     .blob_length = 4,
                                     .now = 1};
    CHILD(store_dek_id_reserve(opened, &dek_id), ENVELOPE_E_STORE_READ_ONLY, s->path);
    CHILD(store_key_rotate(opened, "k", 2, &next, &support_actor), ENVELOPE_E_STORE_READ_ONLY, s->path);
    CHILD(store_messages_reserve(opened, next.dek_id, 1, &granted, &reserved, &limit), ENVELOPE_E_STORE_READ_ONLY,
          s->path);
    CHILD(store_history_add(opened, 1, "x", NULL, 0, "ok", &support_actor), ENVELOPE_E_STORE_READ_ONLY, s->path);
    uint32_t kek;
    CHILD(store_kek_ensure(opened, "pkcs11:object=master", 1, &kek), ENVELOPE_OK, NULL); /* known: nothing to write */
    CHILD(store_kek_ensure(opened, "pkcs11:object=new", 1, &kek), ENVELOPE_E_STORE_READ_ONLY, s->path);
    store_close(opened);
    return 0;
}

static void a_store_one_may_only_read_still_serves_decryption(void **state)
{
    const struct support *s = *state;
    if (geteuid() != 0)
        skip(); /* needs two users */
    store_close(support_create(s, 1));
    /* As SQLite leaves them: -wal and -shm are there, because we keep them for readers. */
    set_modes(s, 0755, 0644);
    support_as_nobody(reads_but_does_not_write, s, NULL);
    /* Without them, as in a copied image. */
    remove_beside(s, "-wal");
    remove_beside(s, "-shm");
    support_as_nobody(reads_but_does_not_write, s, NULL);
    set_modes(s, 0755, 0444);
    support_as_nobody(reads_but_does_not_write, s, NULL);
    set_modes(s, 0777, 0444);
    support_as_nobody(reads_but_does_not_write, s, NULL);
}

static void a_reader_works_beside_a_writer_and_sees_its_changes(void **state)
{
    const struct support *s = *state;
    if (geteuid() != 0)
        skip(); /* needs two users */
    store *writer = support_create(s, 1);
    set_modes(s, 0755, 0644);
    support_as_nobody(reads_but_does_not_write, s, NULL);
    assert_int_equal(support_rotate(writer, "k"), 0);
    support_as_nobody(reads_but_does_not_write, s, NULL);
    store_close(writer);
}

struct turns {
    int to_child[2], to_parent[2];
};

static int read_byte(int fd)
{
    char byte;
    return read(fd, &byte, 1) == 1 ? 0 : __LINE__;
}

/* Opens the store without -wal and -shm, then the owner writes; the reader must notice. */
static int sees_a_writer_that_comes_later(const struct support *s, void *argument)
{
    struct turns *turns = argument;
    store *opened = NULL;
    uint64_t before = 0, after = 0;
    CHILD(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_OK, NULL);
    CHILD(store_change_counter(opened, &before), ENVELOPE_OK, NULL);
    if (write(turns->to_parent[1], "r", 1) != 1 || read_byte(turns->to_child[0]))
        return __LINE__;
    CHILD(store_change_counter(opened, &after), ENVELOPE_OK, NULL);
    store_close(opened);
    return after > before ? 0 : __LINE__;
}

static void a_reader_without_shm_notices_a_writer_that_comes_later(void **state)
{
    const struct support *s = *state;
    if (geteuid() != 0)
        skip(); /* needs two users */
    struct turns turns;
    assert_int_equal(pipe2(turns.to_child, O_CLOEXEC), 0);
    assert_int_equal(pipe2(turns.to_parent, O_CLOEXEC), 0);
    store_close(support_create(s, 1));
    remove_beside(s, "-wal");
    remove_beside(s, "-shm");
    set_modes(s, 0755, 0644);
    pid_t writer = fork();
    assert_true(writer >= 0);
    if (writer == 0) {
        store *opened = NULL;
        if (read_byte(turns.to_parent[0]) || store_open(s->url, SUPPORT_DEADLINE, &opened) ||
            support_rotate(opened, "k"))
            _exit(1);
        /* Still open, so that there is a log to be read. */
        _exit(write(turns.to_child[1], "w", 1) != 1);
    }
    support_as_nobody(sees_a_writer_that_comes_later, s, &turns);
    int status = 0;
    waitpid(writer, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int i = 0; i < 2; i++) {
        close(turns.to_child[i]);
        close(turns.to_parent[i]);
    }
}

static int is_told_that_it_may_not_read(const struct support *s, void *argument)
{
    (void)argument;
    store *opened = NULL;
    CHILD(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_UNAVAILABLE, "may not");
    CHILD(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_UNAVAILABLE, s->path);
    return 0;
}

static int is_told_that_it_may_not_make_files(const struct support *s, void *argument)
{
    (void)argument;
    store *opened = NULL;
    CHILD(store_create(s->url, SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_STORE_UNAVAILABLE, "cannot make a file");
    return 0;
}

static void who_may_not_read_is_told_so(void **state)
{
    const struct support *s = *state;
    if (geteuid() != 0)
        skip(); /* needs two users */
    assert_int_equal(chmod(s->directory, 0755), 0);
    support_as_nobody(is_told_that_it_may_not_make_files, s, NULL);
    store_close(support_create(s, 0));
    support_as_nobody(is_told_that_it_may_not_read, s, NULL);
    set_modes(s, 0700, 0644);
    support_as_nobody(is_told_that_it_may_not_read, s, NULL);
}

static int is_told_about_the_log(const struct support *s, void *argument)
{
    (void)argument;
    store *opened = NULL;
    CHILD(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_UNAVAILABLE, "-wal and -shm");
    return 0;
}

static void a_log_one_may_not_read_is_named_rather_than_ignored(void **state)
{
    const struct support *s = *state;
    if (geteuid() != 0)
        skip(); /* needs two users */
    store *writer = support_create(s, 1);
    char path[SUPPORT_PATH_MAX + 32];
    /* The file may be read, its log not: reading the file alone would show an old state. */
    assert_int_equal(chmod(s->path, 0644), 0);
    support_path(s, "-wal", path);
    struct stat log;
    assert_int_equal(stat(path, &log), 0);
    assert_true(log.st_size > 0);
    assert_int_equal(chmod(s->directory, 0755), 0);
    support_as_nobody(is_told_about_the_log, s, NULL);
    store_close(writer);
}

static int opens_old_schema_read_only(const struct support *s, void *argument)
{
    (void)argument;
    store *opened = NULL;
    CHILD(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_UNAVAILABLE, "is empty");
    CHILD(store_create(s->url, SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_STORE_READ_ONLY, "its schema 0");
    return 0;
}

static void a_migration_that_is_due_cannot_be_skipped_by_reading_only(void **state)
{
    const struct support *s = *state;
    support_write_file(s->path, "", 0);
    assert_int_equal(chmod(s->path, 0444), 0);
    assert_int_equal(chmod(s->directory, 0755), 0);
    support_as_nobody(opens_old_schema_read_only, s, NULL);
}

static int writes_once_it_may(const struct support *s, void *argument)
{
    (void)argument;
    store *opened = NULL;
    uint32_t id = 0;
    CHILD(store_create(s->url, SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_OK, NULL);
    store_close(opened);
    if (chmod(s->path, 0400) != 0)
        return __LINE__;
    CHILD(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_OK, NULL);
    CHILD(store_dek_id_reserve(opened, &id), ENVELOPE_E_STORE_READ_ONLY, s->path);
    if (chmod(s->path, 0600) != 0)
        return __LINE__;
    CHILD(store_dek_id_reserve(opened, &id), ENVELOPE_OK, NULL);
    store_close(opened);
    return id == 1 ? 0 : __LINE__;
}

static void a_store_that_becomes_writable_is_written(void **state)
{
    support_as_nobody(writes_once_it_may, *state, NULL);
}

static void a_read_only_file_system_serves_decryption_even_to_root(void **state)
{
    struct support s = *(const struct support *)*state;
    char mounted[SUPPORT_PATH_MAX + 16];
    snprintf(mounted, sizeof mounted, "%s/mounted", s.directory);
    assert_int_equal(mkdir(mounted, 0755), 0);
    if (mount("none", mounted, "tmpfs", 0, "size=4m") != 0)
        skip(); /* needs CAP_SYS_ADMIN */
    snprintf(s.path, sizeof s.path, "%s/mounted/keys.db", s.directory);
    snprintf(s.url, sizeof s.url, "sqlite:%s", s.path);
    store_close(support_create(&s, 1));
    remove_beside(&s, "-wal");
    remove_beside(&s, "-shm");
    assert_int_equal(mount("none", mounted, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    support_in_child(reads_but_does_not_write, &s, NULL);

    store *opened = support_open(&s);
    uint32_t id;
    EXPECT(store_dek_id_reserve(opened, &id), ENVELOPE_E_STORE_READ_ONLY, NULL);
    assert_int_equal(mount("none", mounted, NULL, MS_REMOUNT, NULL), 0);
    OK(store_dek_id_reserve(opened, &id)); /* writable again: no restart */
    store_close(opened);
    assert_int_equal(umount(mounted), 0);
}

static void a_full_file_system_changes_nothing_and_is_named(void **state)
{
    struct support s = *(const struct support *)*state;
    char mounted[SUPPORT_PATH_MAX + 16], ballast[SUPPORT_PATH_MAX + 32];
    snprintf(mounted, sizeof mounted, "%s/mounted", s.directory);
    assert_int_equal(mkdir(mounted, 0755), 0);
    if (mount("none", mounted, "tmpfs", 0, "size=512k") != 0)
        skip();
    snprintf(s.path, sizeof s.path, "%s/mounted/keys.db", s.directory);
    snprintf(s.url, sizeof s.url, "sqlite:%s", s.path);
    store *opened = support_create(&s, 0);
    snprintf(ballast, sizeof ballast, "%s/ballast", mounted);
    int fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    static const char zeros[4096];
    while (write(fd, zeros, sizeof zeros) == (ssize_t)sizeof zeros)
        ;
    close(fd);
    envelope_status status = ENVELOPE_OK;
    uint64_t before = 0, after = 0;
    for (int i = 0; i < 500 && !status; i++) {
        OK(store_change_counter(opened, &before));
        uint32_t id;
        status = store_dek_id_reserve(opened, &id);
    }
    EXPECT(status, ENVELOPE_E_STORE_UNAVAILABLE, "no space");
    OK(store_change_counter(opened, &after));
    assert_true(before == after);
    assert_int_equal(unlink(ballast), 0);
    assert_int_equal(support_rotate(opened, "k"), 0);
    OK(store_check(opened));
    store_close(opened);
    assert_int_equal(umount(mounted), 0);
}

/* ---- locks ---- */

static void a_lock_beyond_the_deadline_is_busy_and_reading_goes_on(void **state)
{
    const struct support *s = *state;
    store_close(support_create(s, 0));
    store *opened = NULL;
    OK(store_open(s->url, 50000, &opened));
    int ready[2], done[2];
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(pipe2(done, O_CLOEXEC), 0);
    pid_t holder = fork();
    assert_true(holder >= 0);
    if (holder == 0) {
        sqlite3 *db = NULL;
        if (sqlite3_open_v2(s->path, &db, SQLITE_OPEN_READWRITE, NULL) ||
            sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) || write(ready[1], "r", 1) != 1)
            _exit(1);
        _exit(read_byte(done[0]));
    }
    assert_int_equal(read_byte(ready[0]), 0);
    uint32_t id = 0;
    struct store_key key;
    EXPECT(store_dek_id_reserve(opened, &id), ENVELOPE_E_STORE_BUSY, s->path);
    OK(store_key_find(opened, "k", &key));
    assert_int_equal(write(done[1], "d", 1), 1);
    int status = 0;
    waitpid(holder, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(store_dek_id_reserve(opened, &id));
    store_close(opened);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(done[i]);
    }
}

static void an_exclusive_lock_makes_opening_busy(void **state)
{
    const struct support *s = *state;
    store_close(support_create(s, 0));
    /* What a restore or VACUUM of another program does. In this process SQLite knows its own locks. */
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open_v2(s->path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
    store *opened = NULL;
    EXPECT(store_open(s->url, 50000, &opened), ENVELOPE_E_STORE_BUSY, s->path);
    sqlite3_close(db);
    store_close(support_open(s));
}

/* ---- replaced while in use ---- */

static void copy_store(const struct support *s, const char *to)
{
    char sql[SUPPORT_PATH_MAX + 64];
    snprintf(sql, sizeof sql, "VACUUM INTO '%s/%s'", s->directory, to);
    assert_int_equal(support_sql(s, sql), SQLITE_OK);
}

static void put_in_place(const struct support *s, const char *from)
{
    char path[SUPPORT_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", s->directory, from);
    remove_beside(s, "-wal");
    remove_beside(s, "-shm");
    assert_int_equal(rename(path, s->path), 0);
}

static void a_restored_backup_is_used_at_once(void **state)
{
    const struct support *s = *state;
    store *opened = support_create(s, 1);
    copy_store(s, "backup.db");
    assert_int_equal(support_rotate(opened, "k"), 0);
    put_in_place(s, "backup.db");
    struct store_key key;
    OK(store_key_find(opened, "k", &key));
    assert_int_equal(key.primary_version, 2);
    assert_int_equal(support_rotate(opened, "k"), 0);
    store_close(opened);
    opened = support_open(s);
    OK(store_key_find(opened, "k", &key));
    assert_int_equal(key.primary_version, 3);
    OK(store_check(opened));
    store_close(opened);
}

static void another_store_at_the_path_is_refused(void **state)
{
    const struct support *s = *state;
    struct support other = *s;
    snprintf(other.path, sizeof other.path, "%s/other.db", s->directory);
    snprintf(other.url, sizeof other.url, "sqlite:%s", other.path);
    store *opened = support_create(s, 0);
    store_close(support_create(&other, 0));
    put_in_place(s, "other.db");
    struct store_key key;
    EXPECT(store_key_find(opened, "k", &key), ENVELOPE_E_STORE_UNAVAILABLE, "replaced by another store");
    EXPECT(store_dek_id_reserve(opened, &(uint32_t){0}), ENVELOPE_E_STORE_UNAVAILABLE, "replaced by another store");
    store_close(opened);
}

static void a_deleted_store_is_missed_not_written_to(void **state)
{
    const struct support *s = *state;
    store *opened = support_create(s, 0);
    copy_store(s, "backup.db");
    remove_beside(s, "");
    uint64_t counter;
    EXPECT(store_change_counter(opened, &counter), ENVELOPE_E_STORE_UNAVAILABLE, "no such file");
    EXPECT(store_dek_id_reserve(opened, &(uint32_t){0}), ENVELOPE_E_STORE_UNAVAILABLE, s->path);
    assert_int_equal(access(s->path, F_OK), -1);
    put_in_place(s, "backup.db");
    OK(store_change_counter(opened, &counter));
    assert_int_equal(support_rotate(opened, "k"), 0);
    store_close(opened);
}

/* Another process, there from the beginning: how many versions are in the store when it is asked? */
static pid_t start_witness(const struct support *s, const struct turns *turns)
{
    pid_t witness = fork();
    assert_true(witness >= 0);
    if (witness > 0)
        return witness;
    for (uint32_t wanted = 3; wanted <= 5; wanted += 2) {
        store *opened = NULL;
        struct store_key key;
        if (read_byte(turns->to_child[0]) || store_open(s->url, SUPPORT_DEADLINE, &opened) ||
            store_key_find(opened, "k", &key) || key.primary_version != wanted || store_check(opened)) {
            fprintf(stderr, "witness, %u wanted: %s\n", (unsigned)wanted, error_text());
            _exit(1);
        }
        store_close(opened);
        if (write(turns->to_parent[1], "s", 1) != 1)
            _exit(1);
    }
    _exit(0);
}

static void a_deleted_log_loses_nothing(void **state)
{
    const struct support *s = *state;
    static const char *const endings[] = {"-wal", "-shm"};
    struct turns turns;
    assert_int_equal(pipe2(turns.to_child, O_CLOEXEC), 0);
    assert_int_equal(pipe2(turns.to_parent, O_CLOEXEC), 0);
    pid_t witness = start_witness(s, &turns);
    close(turns.to_child[0]);
    close(turns.to_parent[1]);
    store *opened = support_create(s, 0);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(support_rotate(opened, "k"), 0);
        remove_beside(s, endings[i]);
        assert_int_equal(support_rotate(opened, "k"), 0);
        assert_int_equal(write(turns.to_child[1], "l", 1), 1);
        assert_int_equal(read_byte(turns.to_parent[0]), 0);
    }
    store_close(opened);
    int status = 0;
    waitpid(witness, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(turns.to_child[1]);
    close(turns.to_parent[0]);
}

static void a_plain_copy_without_wal_mode_is_a_store_too(void **state)
{
    const struct support *s = *state;
    store_close(support_create(s, 1));
    copy_store(s, "backup.db");
    put_in_place(s, "backup.db");
    assert_int_equal(support_sql(s, "PRAGMA journal_mode = DELETE"), SQLITE_OK);
    store *opened = support_open(s);
    assert_int_equal(support_rotate(opened, "k"), 0);
    OK(store_check(opened));
    store_close(opened);
}

/* ---- migrations ---- */

static struct connection *connect_raw(struct sqlite_store *sqlite, const struct support *s)
{
    struct connection *c = NULL;
    memset(sqlite, 0, sizeof *sqlite);
    sqlite->path = (char *)(uintptr_t)s->path;
    sqlite->deadline = SUPPORT_DEADLINE;
    snprintf(sqlite->printed, sizeof sqlite->printed, "in a test");
    OK(store_sqlite_connect(sqlite, false, NULL, &c));
    return c;
}

static void migrations_are_applied_in_order_and_once(void **state)
{
    const struct support *s = *state;
    store_close(support_create(s, 0));
    const struct store_migration migrations[] = {
        store_sqlite_migrations[0],
        {2, "0002_second.sql", "CREATE TABLE second (x); INSERT INTO second VALUES (1);"},
        {3, "0003_third.sql", "INSERT INTO second SELECT x + 1 FROM second;"},
    };
    struct sqlite_store sqlite;
    struct connection *c = connect_raw(&sqlite, s);
    bool created = false;
    OK(store_sqlite_migrate(c, migrations, 3, &created));
    OK(store_sqlite_migrate(c, migrations, 3, &created));
    assert_false(created);
    store_sqlite_disconnect(c);
    assert_int_equal(support_number(s, "PRAGMA user_version"), 3);
    assert_int_equal(support_number(s, "SELECT count(*) FROM second"), 2);
}

static void a_migration_that_fails_leaves_the_schema_before_it(void **state)
{
    const struct support *s = *state;
    store_close(support_create(s, 0));
    const struct store_migration migrations[] = {
        store_sqlite_migrations[0],
        {2, "0002_second.sql", "CREATE TABLE second (x);"},
        {3, "0003_broken.sql", "CREATE TABLE third (x); INSERT INTO nowhere VALUES (1);"},
    };
    struct sqlite_store sqlite;
    struct connection *c = connect_raw(&sqlite, s);
    EXPECT(store_sqlite_migrate(c, migrations, 3, NULL), ENVELOPE_E_STORE_CORRUPT, "0003_broken.sql");
    store_sqlite_disconnect(c);
    assert_int_equal(support_number(s, "PRAGMA user_version"), 2);
    assert_int_equal(support_number(s, "SELECT count(*) FROM sqlite_schema WHERE name IN ('second', 'third')"), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, support_setup, support_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_store_one_may_only_read_still_serves_decryption),
        TEST(a_reader_works_beside_a_writer_and_sees_its_changes),
        TEST(a_reader_without_shm_notices_a_writer_that_comes_later),
        TEST(who_may_not_read_is_told_so),
        TEST(a_log_one_may_not_read_is_named_rather_than_ignored),
        TEST(a_migration_that_is_due_cannot_be_skipped_by_reading_only),
        TEST(a_store_that_becomes_writable_is_written),
        TEST(a_read_only_file_system_serves_decryption_even_to_root),
        TEST(a_full_file_system_changes_nothing_and_is_named),
        TEST(a_lock_beyond_the_deadline_is_busy_and_reading_goes_on),
        TEST(an_exclusive_lock_makes_opening_busy),
        TEST(a_restored_backup_is_used_at_once),
        TEST(another_store_at_the_path_is_refused),
        TEST(a_deleted_store_is_missed_not_written_to),
        TEST(a_deleted_log_loses_nothing),
        TEST(a_plain_copy_without_wal_mode_is_a_store_too),
        TEST(migrations_are_applied_in_order_and_once),
        TEST(a_migration_that_fails_leaves_the_schema_before_it),
    };
    return cmocka_run_group_tests_name("store, sqlite: access", tests, NULL, NULL);
}
