#include "softhsm_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "hsm/hsm.h"

static bool failed(const char *what, const char *on)
{
    fprintf(stderr, "softhsm_rig: %s %s: %s\n", what, on, strerror(errno));
    return false;
}

static bool failed_hsm(const char *what)
{
    fprintf(stderr, "softhsm_rig: %s: %s\n", what, error_text());
    return false;
}

static bool join(char to[SOFTHSM_RIG_PATH_MAX], const char *directory, const char *name)
{
    int length = snprintf(to, SOFTHSM_RIG_PATH_MAX, "%s/%s", directory, name);
    errno = ENAMETOOLONG;
    return length > 0 && length < SOFTHSM_RIG_PATH_MAX ? true : failed("naming", name);
}

static bool write_file(const char *path, mode_t mode, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0)
        return failed("creating", path);
    size_t length = strlen(text);
    bool written = write(fd, text, length) == (ssize_t)length;
    if (close(fd) != 0 || !written)
        return failed("writing", path);
    return true;
}

static bool name_all(struct softhsm_rig *rig)
{
    const char *module = getenv("SOFTHSM2_MODULE");
    snprintf(rig->module, sizeof rig->module, "%s", module ? module : "/usr/lib/softhsm/libsofthsm2.so");
    snprintf(rig->kek, sizeof rig->kek, "pkcs11:token=rig;object=master;type=secret-key");
    return join(rig->config, rig->directory, "softhsm2.conf") && join(rig->tokens, rig->directory, "tokens") &&
           join(rig->pin_file, rig->directory, "pin");
}

static bool make_directory(struct softhsm_rig *rig)
{
    const char *base = getenv("TMPDIR");
    snprintf(rig->directory, sizeof rig->directory, "%s/envelope-rig.XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(rig->directory)) {
        failed("creating", rig->directory);
        rig->directory[0] = '\0';
        return false;
    }
    return true;
}

/* The configuration and the PIN file; the tokens directory is the caller's. */
static bool furnish(struct softhsm_rig *rig)
{
    char text[SOFTHSM_RIG_PATH_MAX + 128];
    snprintf(text, sizeof text,
             "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
             rig->tokens);
    return write_file(rig->config, 0600, text) && write_file(rig->pin_file, 0600, SOFTHSM_RIG_PIN "\n");
}

bool softhsm_rig_make_empty(struct softhsm_rig *rig)
{
    memset(rig, 0, sizeof *rig);
    bool made = make_directory(rig) && name_all(rig) && furnish(rig);
    if (made && mkdir(rig->tokens, 0700) != 0)
        made = failed("creating", rig->tokens);
    if (made && setenv("SOFTHSM2_CONF", rig->config, 1) != 0)
        made = failed("setting", "SOFTHSM2_CONF");
    if (!made)
        softhsm_rig_remove(rig);
    return made;
}

static bool make_token(struct softhsm_rig *rig)
{
    struct settings settings;
    hsm *instance = NULL;
    bool made = true;
    softhsm_rig_settings(rig, &settings);
    if (hsm_new(&settings, &instance) != ENVELOPE_OK)
        return failed_hsm("hsm_new");
    if (hsm_token_init(instance, rig->module, "rig", SOFTHSM_RIG_SO_PIN, SOFTHSM_RIG_PIN) != ENVELOPE_OK)
        made = failed_hsm("making the token");
    else if (hsm_kek_generate(instance, rig->kek) != ENVELOPE_OK)
        made = failed_hsm("making the KEK");
    hsm_free(instance);
    return made;
}

bool softhsm_rig_make(struct softhsm_rig *rig)
{
    if (!softhsm_rig_make_empty(rig))
        return false;
    if (make_token(rig))
        return true;
    softhsm_rig_remove(rig);
    return false;
}

/* --- copying a tree; nftw has no argument for its callback --- */

static struct {
    const char *from, *to;
} copying;

static bool copy_file(const char *from, const char *to, mode_t mode)
{
    char bytes[4096];
    ssize_t got = 0;
    bool copied = true;
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode & 0777);
    if (in < 0 || out < 0)
        copied = failed("copying", from);
    while (copied && (got = read(in, bytes, sizeof bytes)) > 0)
        if (write(out, bytes, (size_t)got) != got)
            copied = failed("copying", from);
    if (copied && got < 0)
        copied = failed("reading", from);
    if (in >= 0)
        close(in);
    if (out >= 0 && close(out) != 0)
        copied = failed("closing", to);
    return copied;
}

static int copy_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    char to[2 * SOFTHSM_RIG_PATH_MAX];
    (void)where;
    snprintf(to, sizeof to, "%s%s", copying.to, path + strlen(copying.from));
    if (kind == FTW_D)
        return mkdir(to, info->st_mode & 0777) == 0 ? 0 : !failed("creating", to);
    return kind == FTW_F && copy_file(path, to, info->st_mode) ? 0 : 1;
}

bool softhsm_rig_copy(const struct softhsm_rig *rig, struct softhsm_rig *copy)
{
    memset(copy, 0, sizeof *copy);
    bool made = make_directory(copy) && name_all(copy) && furnish(copy);
    copying.from = rig->tokens;
    copying.to = copy->tokens;
    if (made && nftw(rig->tokens, copy_one, 16, FTW_PHYS) != 0)
        made = failed("copying", rig->tokens);
    if (!made)
        softhsm_rig_remove(copy);
    return made;
}

static bool move_tokens(const struct softhsm_rig *rig, bool away)
{
    char parked[SOFTHSM_RIG_PATH_MAX];
    if (!join(parked, rig->directory, "tokens.away"))
        return false;
    if (rename(away ? rig->tokens : parked, away ? parked : rig->tokens) != 0)
        return failed("moving", rig->tokens);
    return true;
}

bool softhsm_rig_unplug(const struct softhsm_rig *rig)
{
    return move_tokens(rig, true);
}

bool softhsm_rig_plug(const struct softhsm_rig *rig)
{
    return move_tokens(rig, false);
}

void softhsm_rig_settings(const struct softhsm_rig *rig, struct settings *settings)
{
    const int64_t second = INT64_C(1000000);
    memset(settings, 0, sizeof *settings);
    settings->kek = (char *)(uintptr_t)rig->kek;
    settings->module = (char *)(uintptr_t)rig->module;
    settings->pin_file = (char *)(uintptr_t)rig->pin_file;
    settings->sessions = 1;
    settings->deadline = 10 * second;
    settings->refresh = second;
    settings->ttl = 3600 * second;
    settings->grace = 600 * second;
    settings->messages = UINT64_C(1) << 32;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path) == 0 ? 0 : !failed("removing", path);
}

void softhsm_rig_remove(struct softhsm_rig *rig)
{
    if (!rig->directory[0])
        return;
    nftw(rig->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    rig->directory[0] = '\0';
}
