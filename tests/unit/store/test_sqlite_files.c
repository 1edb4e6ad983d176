/* What may be at the path of a store, and what is said about it. */
#include "sqlite_support.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/error.h"
#include "store/sqlite.h"

/* ---- making ---- */

static unsigned mode_of(const struct support *s, const char *ending)
{
    char path[SUPPORT_PATH_MAX + 32];
    struct stat file;
    support_path(s, ending, path);
    assert_int_equal(stat(path, &file), 0);
    return (unsigned)file.st_mode & 07777;
}

static void files_are_for_their_owner_whatever_the_umask(void **state)
{
    const struct support *s = *state;
    static const mode_t masks[] = {0, 022, 0777};
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        mode_t before = umask(masks[i]);
        store *opened = support_create(s, 1);
        umask(before);
        assert_int_equal(mode_of(s, ""), 0600);
        assert_int_equal(mode_of(s, "-wal"), 0600);
        assert_int_equal(mode_of(s, "-shm"), 0600);
        store_close(opened);
        char path[SUPPORT_PATH_MAX + 32];
        static const char *const endings[] = {"", "-wal", "-shm"};
        for (size_t e = 0; e < 3; e++) {
            support_path(s, endings[e], path);
            unlink(path);
        }
        /* Nothing else was left beside them. */
        assert_int_equal(rmdir(s->directory), 0);
        assert_int_equal(mkdir(s->directory, 0777), 0);
    }
}

static void a_group_may_be_given_access_and_keeps_it(void **state)
{
    const struct support *s = *state;
    store_close(support_create(s, 0));
    char path[SUPPORT_PATH_MAX + 32];
    static const char *const endings[] = {"", "-wal", "-shm"};
    for (size_t e = 0; e < 3; e++) {
        support_path(s, endings[e], path);
        if (e == 0)
            assert_int_equal(chmod(path, 0660), 0);
        else
            assert_int_equal(unlink(path), 0);
    }
    store *opened = support_open(s);
    assert_int_equal(support_rotate(opened, "k"), 0);
    for (size_t e = 0; e < 3; e++)
        assert_int_equal(mode_of(s, endings[e]), 0660);
    store_close(opened);
}

static void a_path_with_every_odd_character_works(void **state)
{
    struct support s = *(const struct support *)*state;
    snprintf(s.path, sizeof s.path, "%s/k?e#y%%20 s&=", s.directory);
    snprintf(s.url, sizeof s.url, "sqlite:%s", s.path);
    store_close(support_create(&s, 1));
    store_close(support_open(&s));
    assert_int_equal(access(s.path, F_OK), 0);
}

static void a_relative_path_is_refused(void **state)
{
    (void)state;
    store *opened = NULL;
    EXPECT(store_create("sqlite:keys.db", SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_ARGUMENT, "absolute path");
    EXPECT(store_create("sqlite:", SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_ARGUMENT, "absolute path");
    EXPECT(store_create("sqlite:/x", 0, &opened, NULL), ENVELOPE_E_ARGUMENT, "deadline");
    char path[6000] = "sqlite:/";
    memset(path + 8, 'x', 5000);
    EXPECT(store_create(path, SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_ARGUMENT, "longer");
    assert_null(opened);
}

/* ---- what is not a store ---- */

static void a_missing_file_is_named_and_not_made(void **state)
{
    const struct support *s = *state;
    store *opened = NULL;
    EXPECT(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_UNAVAILABLE, s->path);
    EXPECT(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_UNAVAILABLE, "envelope init");
    assert_int_equal(access(s->path, F_OK), -1);
}

static void a_missing_directory_is_named(void **state)
{
    const struct support *s = *state;
    char url[SUPPORT_PATH_MAX + 64];
    store *opened = NULL;
    snprintf(url, sizeof url, "sqlite:%s/no/keys.db", s->directory);
    EXPECT(store_open(url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_UNAVAILABLE, "no such file");
    EXPECT(store_create(url, SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_STORE_UNAVAILABLE,
           "directory does not exist");
    support_write_file(s->path, "x", 1);
    snprintf(url, sizeof url, "sqlite:%s/keys.db", s->path);
    EXPECT(store_create(url, SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_STORE_UNAVAILABLE, "not a directory");
}

static void a_directory_is_no_store(void **state)
{
    const struct support *s = *state;
    char url[SUPPORT_PATH_MAX + 64];
    store *opened = NULL;
    snprintf(url, sizeof url, "sqlite:%s", s->directory);
    EXPECT(store_open(url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_UNAVAILABLE, "is a directory");
    EXPECT(store_create(url, SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_STORE_UNAVAILABLE, "is a directory");
    snprintf(url, sizeof url, "sqlite:%s/", s->directory);
    EXPECT(store_create(url, SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_STORE_UNAVAILABLE, "is a directory");
}

static void a_fifo_is_no_store_and_does_not_hang(void **state)
{
    const struct support *s = *state;
    store *opened = NULL;
    assert_int_equal(mkfifo(s->path, 0600), 0);
    EXPECT(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_UNAVAILABLE, "not a regular file");
    EXPECT(store_create(s->url, SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_STORE_UNAVAILABLE, "not a regular file");
}

static void an_empty_file_becomes_a_store_only_when_asked(void **state)
{
    const struct support *s = *state;
    store *opened = NULL;
    bool created = false;
    support_write_file(s->path, "", 0);
    EXPECT(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_UNAVAILABLE, "the file is empty");
    struct stat file;
    assert_int_equal(stat(s->path, &file), 0);
    assert_int_equal(file.st_size, 0);
    OK(store_create(s->url, SUPPORT_DEADLINE, &opened, &created));
    assert_true(created);
    OK(store_check(opened));
    store_close(opened);
}

static void a_text_file_is_no_store_and_stays_as_it_is(void **state)
{
    const struct support *s = *state;
    static char text[8192];
    memset(text, 'x', sizeof text);
    support_write_file(s->path, text, sizeof text);
    store *opened = NULL;
    EXPECT(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_CORRUPT, "not an SQLite database");
    EXPECT(store_create(s->url, SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_STORE_CORRUPT, s->path);
    assert_true(support_file_contains(s->path, text, sizeof text));
}

static void the_database_of_another_application_is_left_alone(void **state)
{
    const struct support *s = *state;
    store *opened = NULL;
    assert_int_equal(support_sql(s, "CREATE TABLE notes (text)"), SQLITE_OK);
    EXPECT(store_create(s->url, SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_STORE_CORRUPT, "another application");
    assert_int_equal(support_sql(s, "PRAGMA application_id = 4711"), SQLITE_OK);
    EXPECT(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_CORRUPT, "0x00001267");
    assert_int_equal(support_number(s, "SELECT count(*) FROM sqlite_schema"), 1);
    assert_int_equal(support_number(s, "PRAGMA user_version"), 0);
}

static void a_newer_schema_is_named_with_both_numbers(void **state)
{
    const struct support *s = *state;
    store_close(support_create(s, 0));
    assert_int_equal(support_number(s, "PRAGMA user_version"), (int)store_sqlite_migrations_count);
    assert_int_equal(support_number(s, "PRAGMA application_id"), STORE_SQLITE_APPLICATION_ID);
    assert_int_equal(support_sql(s, "PRAGMA user_version = 4711"), SQLITE_OK);
    store *opened = NULL;
    EXPECT(store_open(s->url, SUPPORT_DEADLINE, &opened), ENVELOPE_E_STORE_SCHEMA, "number 4711");
    EXPECT(store_create(s->url, SUPPORT_DEADLINE, &opened, NULL), ENVELOPE_E_STORE_SCHEMA, "upgrade Envelope");
    assert_int_equal(support_number(s, "PRAGMA user_version"), 4711);
}

/* ---- damage ---- */

static void overwrite(const char *path, off_t offset, int byte, size_t length)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    uint8_t *bytes = malloc(length);
    memset(bytes, byte, length);
    assert_int_equal(pwrite(fd, bytes, length, offset), length);
    free(bytes);
    close(fd);
}

static void damaged_pages_are_found_by_the_check(void **state)
{
    const struct support *s = *state;
    store_close(support_create(s, 40));
    struct stat file;
    assert_int_equal(stat(s->path, &file), 0);
    overwrite(s->path, 4096, 0xa5, (size_t)file.st_size - 4096);
    store *opened = NULL;
    /* The first page is whole: opening may still work, using it must not. */
    envelope_status status = store_open(s->url, SUPPORT_DEADLINE, &opened);
    if (status == ENVELOPE_OK) {
        EXPECT(store_check(opened), ENVELOPE_E_STORE_CORRUPT, s->path);
        store_close(opened);
    } else {
        EXPECT(status, ENVELOPE_E_STORE_CORRUPT, s->path);
    }
}

static void a_file_that_was_cut_off_is_found(void **state)
{
    const struct support *s = *state;
    store_close(support_create(s, 40));
    assert_int_equal(truncate(s->path, 3 * 4096), 0);
    store *opened = NULL;
    envelope_status status = store_open(s->url, SUPPORT_DEADLINE, &opened);
    if (status == ENVELOPE_OK) {
        status = store_check(opened);
        store_close(opened);
    }
    EXPECT(status, ENVELOPE_E_STORE_CORRUPT, s->path);
}

static void a_table_that_is_gone_is_an_error_with_its_name(void **state)
{
    const struct support *s = *state;
    store_close(support_create(s, 0));
    assert_int_equal(support_sql(s, "DROP TABLE encryption_key_history"), SQLITE_OK);
    store *opened = support_open(s);
    struct store_history *rows;
    size_t count;
    EXPECT(store_history_read(opened, NULL, 0, &rows, &count), ENVELOPE_E_STORE_CORRUPT, "encryption_key_history");
    store_close(opened);
}

struct breakage {
    const char *sql;
    const char *words;
};

static void what_the_tables_must_say_to_each_other_is_checked(void **state)
{
    const struct support *s = *state;
    static const struct breakage breakages[] = {
        {"UPDATE encryption_key_version SET state = 'deactivated' WHERE state = 'active'", "neither active nor"},
        {"UPDATE encryption_key SET primary_version = 2", "active but not the primary"},
        {"UPDATE encryption_key SET primary_version = 9", "refers to a row"},
        {"DROP TRIGGER version_stays; DELETE FROM encryption_key_version WHERE version = 1", "not all there"},
        {"PRAGMA ignore_check_constraints = ON; UPDATE encryption_key_version SET encrypted_key_blob = NULL "
         "WHERE version = 1",
         "integrity check"},
        {"DROP TRIGGER dek_ids_only_rise; UPDATE store_meta SET next_dek_id = 2", "given out again"},
        {"DROP TRIGGER store_meta_stays; DELETE FROM store_meta", "store_meta"},
        {"UPDATE encryption_key SET state = 'destroyed'", "not destroyed, but its key is"},
    };
    for (size_t i = 0; i < sizeof breakages / sizeof breakages[0]; i++) {
        store *opened = support_create(s, 2);
        OK(store_check(opened));
        assert_int_equal(support_sql(s, breakages[i].sql), SQLITE_OK);
        EXPECT(store_check(opened), ENVELOPE_E_STORE_CORRUPT, breakages[i].words);
        store_close(opened);
        char path[SUPPORT_PATH_MAX + 32];
        static const char *const endings[] = {"", "-wal", "-shm"};
        for (size_t e = 0; e < 3; e++) {
            support_path(s, endings[e], path);
            unlink(path);
        }
    }
}

static void impossible_values_are_refused_when_read(void **state)
{
    const struct support *s = *state;
    store *opened = support_create(s, 0);
    struct store_version version;
    struct store_key key;
    assert_int_equal(support_sql(s, "PRAGMA ignore_check_constraints = ON; UPDATE encryption_key_version SET "
                                    "state = 'half-open'"),
                     SQLITE_OK);
    EXPECT(store_version_of(opened, "k", 0, &version), ENVELOPE_E_STORE_CORRUPT, "\"state\"");
    assert_null(version.blob);
    assert_int_equal(support_sql(s, "PRAGMA ignore_check_constraints = ON; UPDATE encryption_key SET "
                                    "message_limit = -1"),
                     SQLITE_OK);
    EXPECT(store_key_find(opened, "k", &key), ENVELOPE_E_STORE_CORRUPT, "\"message_limit\"");
    store_close(opened);
}

/* ---- the promises of the schema ---- */

static void an_auditor_reads_versions_and_blobs_with_plain_sql(void **state)
{
    const struct support *s = *state;
    store *opened = support_create(s, 2);
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_open_v2(s->path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db,
                                        "SELECT version, encrypted_key_blob FROM encryption_key_version "
                                        "ORDER BY version",
                                        -1, &statement, NULL),
                     SQLITE_OK);
    for (int version = 1; version <= 3; version++) {
        assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
        assert_string_equal(sqlite3_column_decltype(statement, 0), "NUMERIC");
        assert_string_equal(sqlite3_column_decltype(statement, 1), "BLOB");
        assert_int_equal(sqlite3_column_int(statement, 0), version);
        assert_int_equal(sqlite3_column_bytes(statement, 1), 32);
    }
    assert_int_equal(sqlite3_step(statement), SQLITE_DONE);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    store_close(opened);
}

static void the_database_itself_refuses_what_must_never_be(void **state)
{
    const struct support *s = *state;
    store *opened = support_create(s, 2);
    static const char *const statements[] = {
        "UPDATE encryption_key_version SET state = 'active' WHERE version = 1",
        "UPDATE encryption_key_version SET version = 9 WHERE version = 1",
        "UPDATE encryption_key_version SET dek_id = 99 WHERE version = 1",
        "UPDATE encryption_key_version SET encrypted_key_blob = NULL WHERE version = 1",
        "UPDATE encryption_key_version SET messages_reserved = message_limit + 1",
        "UPDATE encryption_key_version SET state = 'asleep'",
        "DELETE FROM encryption_key_version WHERE version = 1",
        "UPDATE store_meta SET next_dek_id = 1",
        "UPDATE store_meta SET store_id = randomblob(8)",
        "DELETE FROM store_meta",
        "DELETE FROM encryption_key_history",
        "UPDATE encryption_key_history SET who = 'nobody'",
        "INSERT INTO encryption_key VALUES (9, '', 'enabled', 1, 1, 1, 1)",
    };
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++)
        if (support_sql(s, statements[i]) != SQLITE_CONSTRAINT)
            fail_msg("not refused: %s", statements[i]);
    OK(store_check(opened));
    store_close(opened);
}

static void a_destroyed_blob_is_in_no_file_any_more(void **state)
{
    const struct support *s = *state;
    store *opened = support_create(s, 2);
    struct store_version old;
    OK(store_version_of(opened, "k", 1, &old));
    char wal[SUPPORT_PATH_MAX + 32];
    support_path(s, "-wal", wal);
    assert_true(support_file_contains(s->path, old.blob, old.blob_length) ||
                support_file_contains(wal, old.blob, old.blob_length));
    OK(store_version_set_state(opened, old.dek_id, STORE_VERSION_DEACTIVATED, STORE_VERSION_PENDING_DESTRUCTION, 1,
                               &support_actor));
    OK(store_version_set_state(opened, old.dek_id, STORE_VERSION_PENDING_DESTRUCTION, STORE_VERSION_DESTROYED, 1,
                               &support_actor));
    assert_false(support_file_contains(s->path, old.blob, old.blob_length));
    assert_false(support_file_contains(wal, old.blob, old.blob_length));
    store_version_clear(&old);
    store_close(opened);
}

/* New versions need another store; those that are there can still be moved to another KEK. */
static void a_store_whose_dek_ids_are_all_given_out_still_knows_its_keks(void **state)
{
    const struct support *s = *state;
    store *opened = support_create(s, 1);
    struct store_ids ids;
    struct store_kek kek;
    uint32_t dek_id = 1;
    OK(store_kek_find(opened, 1, &kek));
    assert_int_equal(support_sql(s, "UPDATE store_meta SET next_dek_id = 4294967296"), 0);
    OK(store_next_ids(opened, kek.uri, &ids));
    assert_true(ids.dek_id == 0 && ids.kek_is_there && ids.kek_id == 1);
    OK(store_next_ids(opened, "pkcs11:token=another;object=kek", &ids));
    assert_true(ids.dek_id == 0 && !ids.kek_is_there && ids.kek_id > 1);
    EXPECT(store_dek_id_reserve(opened, &dek_id), ENVELOPE_E_STORE_UNAVAILABLE, "need a new store");
    assert_int_equal(dek_id, 0);
    store_kek_clear(&kek);
    store_close(opened);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, support_setup, support_teardown)
    const struct CMUnitTest tests[] = {
        TEST(files_are_for_their_owner_whatever_the_umask),
        TEST(a_group_may_be_given_access_and_keeps_it),
        TEST(a_path_with_every_odd_character_works),
        TEST(a_relative_path_is_refused),
        TEST(a_missing_file_is_named_and_not_made),
        TEST(a_missing_directory_is_named),
        TEST(a_directory_is_no_store),
        TEST(a_fifo_is_no_store_and_does_not_hang),
        TEST(an_empty_file_becomes_a_store_only_when_asked),
        TEST(a_text_file_is_no_store_and_stays_as_it_is),
        TEST(the_database_of_another_application_is_left_alone),
        TEST(a_newer_schema_is_named_with_both_numbers),
        TEST(damaged_pages_are_found_by_the_check),
        TEST(a_file_that_was_cut_off_is_found),
        TEST(a_table_that_is_gone_is_an_error_with_its_name),
        TEST(what_the_tables_must_say_to_each_other_is_checked),
        TEST(impossible_values_are_refused_when_read),
        TEST(an_auditor_reads_versions_and_blobs_with_plain_sql),
        TEST(the_database_itself_refuses_what_must_never_be),
        TEST(a_destroyed_blob_is_in_no_file_any_more),
        TEST(a_store_whose_dek_ids_are_all_given_out_still_knows_its_keks),
    };
    return cmocka_run_group_tests_name("store, sqlite: files", tests, NULL, NULL);
}
