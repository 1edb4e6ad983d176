#include "hsm/pin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "base/fork.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/libctx.h"
#include "base/secmem.h"
#include "base/text.h"
#include "hsm/gate.h"

extern char **environ;

static envelope_status check_file(int fd, const char *source)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return error_raise(ENVELOPE_E_HSM_LOGIN, "%s cannot be examined: %s", source, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return error_raise(ENVELOPE_E_HSM_LOGIN, "%s is a directory", source);
    if (S_ISREG(info.st_mode) && (info.st_mode & S_IROTH))
        return error_raise(ENVELOPE_E_HSM_LOGIN, "%s can be read by everybody on this machine; run chmod 600 on it",
                           source);
    return ENVELOPE_OK;
}

/* What does not fit is left unread: one byte over the limit is enough to know. */
static envelope_status read_all(int fd, int64_t deadline, struct hsm_pin *pin)
{
    while (pin->length < sizeof pin->bytes) {
        int64_t left = deadline - clock_monotonic();
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int ready = left <= 0 ? 0 : poll(&wait, 1, left > 1000 * CLOCK_SECOND ? 1000000 : (int)(left / 1000) + 1);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready == 0)
            return error_raise(ENVELOPE_E_HSM_LOGIN, "%s gave no PIN before the deadline", pin->source);
        ssize_t got = read(fd, pin->bytes + pin->length, sizeof pin->bytes - pin->length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_raise(ENVELOPE_E_HSM_LOGIN, "%s cannot be read: %s", pin->source, strerror(errno));
        if (got == 0)
            break;
        pin->length += (size_t)got;
    }
    return ENVELOPE_OK;
}

static envelope_status read_file(const char *path, int64_t deadline, struct hsm_pin *pin)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return error_raise(ENVELOPE_E_HSM_LOGIN, "%s cannot be opened: %s", pin->source, strerror(errno));
    envelope_status status = check_file(fd, pin->source);
    if (status == ENVELOPE_OK)
        status = read_all(fd, deadline, pin);
    close(fd);
    return status;
}

static envelope_status read_environment(const char *name, struct hsm_pin *pin)
{
    const char *value = secure_getenv(name);
    if (!value)
        return error_raise(ENVELOPE_E_HSM_LOGIN, "%s is not set", pin->source);
    pin->length = strlen(value);
    if (pin->length > sizeof pin->bytes)
        pin->length = sizeof pin->bytes;
    memcpy(pin->bytes, value, pin->length);
    return ENVELOPE_OK;
}

enum { WORDS_MAX = 32 };

static envelope_status split(char *command, char *words[WORDS_MAX + 1], const char *source)
{
    size_t count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(command, " \t", &rest); word; word = strtok_r(NULL, " \t", &rest)) {
        if (count == WORDS_MAX)
            return error_raise(ENVELOPE_E_HSM_LOGIN, "%s has more than %d words; put it into a script", source,
                               WORDS_MAX);
        words[count++] = word;
    }
    words[count] = NULL;
    if (count == 0)
        return error_raise(ENVELOPE_E_HSM_LOGIN, "%s is empty", source);
    return ENVELOPE_OK;
}

/* posix_spawn runs no fork handlers, so that this may happen while others are inside a token. */
static int spawn(char *const words[], int output, pid_t *child)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t signals;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
    posix_spawnattr_init(&attributes);
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes, &signals);
    sigaddset(&signals, SIGPIPE);
    sigaddset(&signals, SIGCHLD);
    posix_spawnattr_setsigdefault(&attributes, &signals);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int error = posix_spawnp(child, words[0], &files, &attributes, words, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return error;
}

/* False if it is known to have failed. A host program that ignores SIGCHLD, or reaps everything, leaves us nothing to
 * know. */
static bool reap(pid_t child)
{
    int how = 0;
    pid_t reaped;
    do
        reaped = waitpid(child, &how, 0);
    while (reaped < 0 && errno == EINTR);
    return reaped != child || (WIFEXITED(how) && WEXITSTATUS(how) == 0);
}

static envelope_status read_command(const char *command, int64_t deadline, struct hsm_pin *pin)
{
    char *words[WORDS_MAX + 1];
    int ends[2] = {-1, -1};
    pid_t child = -1;
    char *copy = text_copy(command);
    if (!copy)
        return error_status();
    envelope_status status = split(copy, words, pin->source);
    if (status != ENVELOPE_OK)
        goto out;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        status = error_raise(ENVELOPE_E_HSM_LOGIN, "no pipe for %s: %s", pin->source, strerror(errno));
        goto out;
    }
    int error = spawn(words, ends[1], &child);
    close(ends[1]);
    if (error != 0) {
        status = error_raise(ENVELOPE_E_HSM_LOGIN, "%s cannot be run: %s", pin->source, strerror(error));
        goto out;
    }
    status = read_all(ends[0], deadline, pin);
    if (status != ENVELOPE_OK)
        kill(child, SIGKILL);
    if (!reap(child) && status == ENVELOPE_OK)
        status = error_raise(ENVELOPE_E_HSM_LOGIN, "%s failed", pin->source);
out:
    if (ends[0] >= 0)
        close(ends[0]);
    free(copy);
    return status;
}

static void describe(struct hsm_pin *pin, const char *kind, const char *what)
{
    char printable[200];
    snprintf(pin->source, sizeof pin->source, "%s \"%s\"", kind,
             text_printable(what, strlen(what), printable, sizeof printable));
}

/* What a command's arguments are is nobody's business but the administrator's. */
static void describe_command(struct hsm_pin *pin, const char *kind, const char *command)
{
    size_t skip = strspn(command, " \t");
    size_t length = strcspn(command + skip, " \t");
    char printable[200];
    snprintf(pin->source, sizeof pin->source, "%s \"%s\"", kind,
             text_printable(command + skip, length, printable, sizeof printable));
}

static envelope_status read_pin_source(const char *source, int64_t deadline, struct hsm_pin *pin)
{
    if (source[0] == '|') {
        describe_command(pin, "the URI's pin-source command", source + 1);
        return read_command(source + 1, deadline, pin);
    }
    describe(pin, "the URI's pin-source", source);
    if (strncmp(source, "file:", 5) == 0)
        source += 5;
    if (strncmp(source, "//", 2) == 0)
        source += 2;
    if (source[0] != '/')
        return error_raise(ENVELOPE_E_HSM_LOGIN, "%s is neither file:/PATH nor |COMMAND", pin->source);
    return read_file(source, deadline, pin);
}

static envelope_status read_any(const struct settings *settings, const struct hsm_uri *uri, int64_t deadline,
                                struct hsm_pin *pin)
{
    if (uri->pin_value) {
        snprintf(pin->source, sizeof pin->source, "the URI's pin-value");
        pin->length = strnlen(uri->pin_value, sizeof pin->bytes);
        memcpy(pin->bytes, uri->pin_value, pin->length);
        return ENVELOPE_OK;
    }
    if (uri->pin_source)
        return read_pin_source(uri->pin_source, deadline, pin);
    if (settings->pin_file) {
        describe(pin, "pin-file", settings->pin_file);
        return read_file(settings->pin_file, deadline, pin);
    }
    if (settings->pin_env) {
        describe(pin, "pin-env", settings->pin_env);
        return read_environment(settings->pin_env, pin);
    }
    if (settings->pin_command) {
        describe_command(pin, "pin-command", settings->pin_command);
        return read_command(settings->pin_command, deadline, pin);
    }
    return error_raise(
        ENVELOPE_E_HSM_LOGIN,
        "the token wants a PIN and none is configured; set pin-file, pin-env or pin-command in [hsm], or "
        "pin-source in the KEK's URI");
}

/* One line end is not part of the PIN; a second line means that this is not a PIN, and sending it would burn a try. */
static envelope_status tidy(struct hsm_pin *pin)
{
    if (pin->length > 0 && pin->bytes[pin->length - 1] == '\n') {
        pin->length--;
        if (pin->length > 0 && pin->bytes[pin->length - 1] == '\r')
            pin->length--;
    }
    if (pin->length == 0)
        return error_raise(ENVELOPE_E_HSM_LOGIN, "%s holds no PIN: it is empty", pin->source);
    if (pin->length > HSM_PIN_MAX)
        return error_raise(ENVELOPE_E_HSM_LOGIN, "%s holds more than the %d bytes a PIN may have", pin->source,
                           (int)HSM_PIN_MAX);
    if (memchr(pin->bytes, '\n', pin->length) || memchr(pin->bytes, '\0', pin->length))
        return error_raise(ENVELOPE_E_HSM_LOGIN, "%s holds no PIN: it has more than one line, or a NUL byte",
                           pin->source);
    return ENVELOPE_OK;
}

envelope_status hsm_pin_read(const struct settings *settings, const struct hsm_uri *uri, int64_t deadline,
                             struct hsm_pin **made)
{
    struct hsm_pin *pin = secmem_alloc(sizeof *pin);
    if (!pin)
        return error_status();
    envelope_status status = read_any(settings, uri, deadline, pin);
    if (status == ENVELOPE_OK)
        status = tidy(pin);
    if (status != ENVELOPE_OK) {
        secmem_free(pin);
        return status;
    }
    *made = pin;
    return ENVELOPE_OK;
}

enum { DIGEST_SIZE = 32 };

/* Kept in ordinary memory, so that forked children know it too; a refused PIN is no PIN, and the hash is salted. */
struct refused {
    struct refused *next;
    uint8_t digest[DIGEST_SIZE];
};

static struct refused *all_refused;
static uint8_t salt[DIGEST_SIZE];
static bool salted;

static bool digest_pin(const char *token, const struct hsm_pin *pin, uint8_t digest[DIGEST_SIZE])
{
    uint8_t fresh[DIGEST_SIZE];
    OSSL_LIB_CTX *context = libctx_private();
    if (!context)
        return false;
    fork_hold();
    int drawn = RAND_bytes_ex(context, fresh, sizeof fresh, 0);
    fork_release();
    if (drawn != 1)
        return false;
    hsm_lock();
    if (!salted)
        memcpy(salt, fresh, sizeof salt);
    salted = true;
    hsm_unlock();
    fork_hold();
    EVP_MD *sha256 = EVP_MD_fetch(context, "SHA256", NULL);
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool done = sha256 && hash && EVP_DigestInit_ex2(hash, sha256, NULL) && EVP_DigestUpdate(hash, salt, sizeof salt) &&
                EVP_DigestUpdate(hash, token, strlen(token) + 1) && EVP_DigestUpdate(hash, pin->bytes, pin->length) &&
                EVP_DigestFinal_ex(hash, digest, NULL);
    EVP_MD_CTX_free(hash);
    EVP_MD_free(sha256);
    fork_release();
    return done;
}

envelope_status hsm_pin_was_refused(const char *token, const struct hsm_pin *pin, bool *refused)
{
    uint8_t digest[DIGEST_SIZE];
    if (!digest_pin(token, pin, digest))
        return error_raise(ENVELOPE_E_CRYPTO, "SHA-256 failed, so it is unknown whether this PIN was refused before");
    *refused = false;
    hsm_lock();
    for (const struct refused *one = all_refused; one && !*refused; one = one->next)
        *refused = CRYPTO_memcmp(one->digest, digest, sizeof digest) == 0;
    hsm_unlock();
    return ENVELOPE_OK;
}

envelope_status hsm_pin_refuse(const char *token, const struct hsm_pin *pin)
{
    struct refused *one = calloc(1, sizeof *one);
    if (!one || !digest_pin(token, pin, one->digest)) {
        free(one);
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory to remember a refused PIN");
    }
    hsm_lock();
    one->next = all_refused;
    all_refused = one;
    hsm_unlock();
    return ENVELOPE_OK;
}
