#include "sqlite_support.h"

#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

enum { NOBODY = 65534 };

const struct store_actor support_actor = {.who = "uid 0 pid 1 test", .detail = NULL};

int support_setup(void **state)
{
    struct support *s = calloc(1, sizeof *s);
    assert_non_null(s);
    const char *scratch = getenv("TMPDIR");
    snprintf(s->directory, sizeof s->directory, "%s/envelope-sqlite.XXXXXX", scratch ? scratch : "/tmp");
    assert_non_null(mkdtemp(s->directory));
    assert_int_equal(chmod(s->directory, 0777), 0);
    snprintf(s->path, sizeof s->path, "%s/keys.db", s->directory);
    snprintf(s->url, sizeof s->url, "sqlite:%s", s->path);
    *state = s;
    return 0;
}

static int remove_one(const char *path, const struct stat *file, int type, struct FTW *where)
{
    (void)file;
    (void)type;
    (void)where;
    return remove(path);
}

int support_teardown(void **state)
{
    struct support *s = *state;
    chmod(s->directory, 0777);
    /* A test that failed may have left its file system there. */
    char mounted[SUPPORT_PATH_MAX + 16];
    snprintf(mounted, sizeof mounted, "%s/mounted", s->directory);
    umount2(mounted, MNT_DETACH);
    nftw(s->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(s);
    return 0;
}

bool support_matches(envelope_status got, envelope_status wanted, const char *words)
{
    if (got == wanted && (!words || strstr(error_text(), words)))
        return true;
    fprintf(stderr, "%s instead of %s: %s\n", envelope_status_name(got), envelope_status_name(wanted),
            got ? error_text() : "");
    return false;
}

void support_expect(envelope_status got, envelope_status wanted, const char *words, const char *expression, int line)
{
    if (!support_matches(got, wanted, words))
        fail_msg("line %d: %s: wanted %s with \"%s\"", line, expression, envelope_status_name(wanted),
                 words ? words : "");
}

static int add_version(store *opened, const char *name, uint32_t primary)
{
    struct store_new_version version = {.algorithm = STORE_AES_256_GCM, .now = 1};
    uint8_t blob[32];
    if (store_kek_ensure(opened, "pkcs11:object=master", 1, &version.kek_id) ||
        store_dek_id_reserve(opened, &version.dek_id))
        return __LINE__;
    snprintf((char *)blob, sizeof blob, "WRAPPED-KEY-%010u-BYTES!", (unsigned)version.dek_id);
    version.blob = blob;
    version.blob_length = sizeof blob;
    envelope_status status = primary == 0 ? store_key_create(opened, name, 1000, &version, &support_actor)
                                          : store_key_rotate(opened, name, primary, &version, &support_actor);
    return status ? __LINE__ : 0;
}

int support_create_key(store *opened, const char *name)
{
    return add_version(opened, name, 0);
}

int support_rotate(store *opened, const char *name)
{
    struct store_key key;
    if (store_key_find(opened, name, &key))
        return __LINE__;
    return add_version(opened, name, key.primary_version);
}

store *support_create(const struct support *s, int rotations)
{
    store *opened = NULL;
    OK(store_create(s->url, SUPPORT_DEADLINE, &opened, NULL));
    assert_int_equal(support_create_key(opened, "k"), 0);
    for (int i = 0; i < rotations; i++)
        assert_int_equal(support_rotate(opened, "k"), 0);
    return opened;
}

store *support_open(const struct support *s)
{
    store *opened = NULL;
    OK(store_open(s->url, SUPPORT_DEADLINE, &opened));
    return opened;
}

int support_sql(const struct support *s, const char *sql)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(s->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_close(db);
    return rc;
}

int64_t support_number(const struct support *s, const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_open_v2(s->path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t number = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return number;
}

void support_path(const struct support *s, const char *ending, char path[SUPPORT_PATH_MAX + 32])
{
    snprintf(path, SUPPORT_PATH_MAX + 32, "%s%s", s->path, ending);
}

void support_write_file(const char *path, const void *bytes, size_t length)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

bool support_file_contains(const char *path, const void *bytes, size_t length)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    static uint8_t content[8 << 20];
    size_t count = fread(content, 1, sizeof content, file);
    fclose(file);
    return memmem(content, count, bytes, length) != NULL;
}

static void run_child(int (*work)(const struct support *s, void *argument), const struct support *s, void *argument,
                      bool as_nobody)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (as_nobody && geteuid() == 0 &&
            (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 ||
             setresuid(NOBODY, NOBODY, NOBODY) != 0))
            _exit(2);
        int line = work(s, argument);
        if (line != 0)
            fprintf(stderr, "child: line %d (last error: %s)\n", line, error_text());
        _exit(line != 0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void support_as_nobody(int (*work)(const struct support *s, void *argument), const struct support *s, void *argument)
{
    run_child(work, s, argument, true);
}

void support_in_child(int (*work)(const struct support *s, void *argument), const struct support *s, void *argument)
{
    run_child(work, s, argument, false);
}
