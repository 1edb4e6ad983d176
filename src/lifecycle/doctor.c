#include "lifecycle/lifecycle.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/secmem.h"
#include "base/settings.h"
#include "keyring/keyring.h"
#include "lifecycle/doctor.h"
#include "lifecycle/files.h"
#include "lifecycle/setup.h"

extern char **environ;

static const int64_t probe_deadline = 30 * CLOCK_SECOND;

const char *lifecycle_outcome_text(enum lifecycle_outcome outcome)
{
    static const char *const texts[] = {"ok", "warning", "failed", "skipped"};
    return texts[outcome];
}

void lifecycle_diagnosis_clear(struct lifecycle_diagnosis *diagnosis)
{
    for (size_t i = 0; i < diagnosis->count; i++) {
        free(diagnosis->checks[i].found);
        free(diagnosis->checks[i].advice);
    }
    diagnosis->count = 0;
}

/* ---- writing findings down ---- */

static void note(struct lifecycle_diagnosis *diagnosis, const char *name, enum lifecycle_outcome outcome,
                 envelope_status status, const char *advice, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

static void note(struct lifecycle_diagnosis *diagnosis, const char *name, enum lifecycle_outcome outcome,
                 envelope_status status, const char *advice, const char *format, ...)
{
    if (diagnosis->count == LIFECYCLE_CHECKS_MAX)
        return;
    struct lifecycle_check *check = &diagnosis->checks[diagnosis->count++];
    *check = (struct lifecycle_check){.name = name, .outcome = outcome, .status = status};
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&check->found, format, arguments) < 0)
        check->found = NULL;
    va_end(arguments);
    check->advice = advice ? strdup(advice) : NULL;
}

#define good(diagnosis, name, ...) note(diagnosis, name, LIFECYCLE_GOOD, ENVELOPE_OK, NULL, __VA_ARGS__)
#define warn(diagnosis, name, advice, ...) note(diagnosis, name, LIFECYCLE_WARNING, ENVELOPE_OK, advice, __VA_ARGS__)
#define fail(diagnosis, name, status, advice, ...) note(diagnosis, name, LIFECYCLE_FAILED, status, advice, __VA_ARGS__)
#define skip(diagnosis, name, ...) note(diagnosis, name, LIFECYCLE_SKIPPED, ENVELOPE_OK, NULL, __VA_ARGS__)

static void fail_raised(struct lifecycle_diagnosis *diagnosis, const char *name, envelope_status status)
{
    fail(diagnosis, name, status, doctor_advice(status, diagnosis->key_service), "%s", error_text());
    error_clear();
}

/* ---- the checks ---- */

static void check_file_mode(struct lifecycle_diagnosis *diagnosis, const char *name, const char *path, mode_t unwanted,
                            const char *advice)
{
    struct stat found;
    if (stat(path, &found) != 0)
        fail(diagnosis, name, ENVELOPE_E_CONFIG, NULL, "%s: %s", path, strerror(errno));
    else if (found.st_mode & unwanted)
        warn(diagnosis, name, advice, "%s has mode %04o", path, (unsigned)(found.st_mode & 07777));
    else
        good(diagnosis, name, "%s, mode %04o", path, (unsigned)(found.st_mode & 07777));
}

static void check_pin(struct lifecycle_diagnosis *diagnosis, const struct settings *settings)
{
    if (settings->pin_file)
        check_file_mode(diagnosis, "PIN", settings->pin_file, 077, "Others may read the PIN: chmod 600.");
    else if (settings->pin_env && !getenv(settings->pin_env))
        fail(diagnosis, "PIN", ENVELOPE_E_HSM_LOGIN, "Set it, or use pin-file in section [hsm].",
             "the environment has no %s", settings->pin_env);
    else if (settings->pin_env)
        warn(diagnosis, "PIN", "Other processes of this user can read it; a pin-file with mode 0600 is better.",
             "from the environment (%s)", settings->pin_env);
    else if (settings->pin_command)
        good(diagnosis, "PIN", "from a command");
    else
        skip(diagnosis, "PIN", "section [hsm] names none; the KEK's URI may");
}

/* Which of "module", "token", "login", "KEK" a failure to find the KEK is about. */
static size_t failed_stage(envelope_status status)
{
    switch (status) {
    case ENVELOPE_E_HSM_MODULE:
        return 0;
    case ENVELOPE_E_HSM_LOGIN:
    case ENVELOPE_E_HSM_PIN_LOCKED:
        return 2;
    case ENVELOPE_E_KEK_URI:
    case ENVELOPE_E_KEK_UNKNOWN:
    case ENVELOPE_E_KEK_REFUSED:
    case ENVELOPE_E_KEK_ATTRIBUTES:
    case ENVELOPE_E_WRAP_MECHANISM:
        return 3;
    default:
        return 1;
    }
}

static void check_kek_attributes(struct lifecycle_diagnosis *diagnosis, const struct hsm_kek_info *info, bool allowed)
{
    if (info->extractable || !info->sensitive)
        note(diagnosis, "KEK attributes", allowed ? LIFECYCLE_WARNING : LIFECYCLE_FAILED,
             allowed ? ENVELOPE_OK : ENVELOPE_E_KEK_ATTRIBUTES,
             doctor_advice(ENVELOPE_E_KEK_ATTRIBUTES, diagnosis->key_service),
             "the KEK can leave the token: CKA_EXTRACTABLE %s, CKA_SENSITIVE %s", info->extractable ? "true" : "false",
             info->sensitive ? "true" : "false");
    else if (!info->never_extractable || !info->always_sensitive)
        warn(diagnosis, "KEK attributes",
             "A copy may exist: for high stakes use a KEK that was generated in the token.",
             "the KEK was imported, or could leave the token once");
    else
        good(diagnosis, "KEK attributes", "sensitive, never extractable");
}

static bool check_token(struct lifecycle_diagnosis *diagnosis, keyring *ring)
{
    static const char *const stages[] = {"module", "token", "login", "KEK"};
    const struct settings *settings = keyring_settings(ring);
    struct hsm_kek_info info;
    hsm *token = keyring_hsm(ring);
    diagnosis->key_service = token && hsm_kek_in_service(token, settings->kek);
    envelope_status status = token ? hsm_kek_info(token, settings->kek, &info) : error_status();
    if (status != ENVELOPE_OK) {
        size_t failed = failed_stage(status);
        for (size_t i = 0; i < failed; i++)
            good(diagnosis, stages[i], "reached");
        fail_raised(diagnosis, stages[failed], status);
        for (size_t i = failed + 1; i < 4; i++)
            skip(diagnosis, stages[i], "not reached");
        skip(diagnosis, "trial wrap", "not reached");
        return false;
    }
    good(diagnosis, "module", "%s", info.module);
    good(diagnosis, "token", "%s (%s, serial %s)", info.token_label, info.token_model, info.token_serial);
    good(diagnosis, "login", "done");
    good(diagnosis, "KEK", "%s-%u \"%s\", wraps with %s", info.rsa ? "RSA" : "AES", info.bits, info.label,
         hsm_mechanism_text(info.mechanism));
    check_kek_attributes(diagnosis, &info, settings->allow_extractable_kek);

    status = setup_try_wrap(token, settings->kek);
    if (status == ENVELOPE_OK)
        good(diagnosis, "trial wrap", "a data key wraps and unwraps");
    else
        fail_raised(diagnosis, "trial wrap", status);
    return status == ENVELOPE_OK;
}

static void check_store_mode(struct lifecycle_diagnosis *diagnosis, const char *url)
{
    static const char scheme[] = "sqlite:";
    if (strncmp(url, scheme, sizeof(scheme) - 1) == 0)
        check_file_mode(diagnosis, "store file", url + sizeof(scheme) - 1, 077,
                        "Others can reach the wrapped keys and their history: chmod 600.");
}

static bool check_store(struct lifecycle_diagnosis *diagnosis, const struct settings *settings)
{
    store *keys;
    envelope_status status = store_open(settings->store, settings->deadline, &keys);
    if (status != ENVELOPE_OK) {
        fail_raised(diagnosis, "store", status);
        return false;
    }
    status = store_check(keys);
    store_close(keys);
    if (status == ENVELOPE_OK)
        good(diagnosis, "store", "%s is sound", settings->store);
    else
        fail_raised(diagnosis, "store", status);
    check_store_mode(diagnosis, settings->store);
    return status == ENVELOPE_OK;
}

static envelope_status unwrap_primary(keyring *ring, const struct store_key *key)
{
    struct store_version primary;
    envelope_status status = store_version_of(keyring_store(ring), key->name, key->primary_version, &primary);
    if (status != ENVELOPE_OK)
        return status;
    struct keyring_lease lease = {0};
    status = keyring_decrypt_begin(ring, primary.dek_id, &lease);
    keyring_lease_end(ring, &lease);
    store_version_clear(&primary);
    return status;
}

static void check_default_key(struct lifecycle_diagnosis *diagnosis, keyring *ring, bool token_works)
{
    const char *name = keyring_settings(ring)->default_key;
    struct store_key key;
    store *keys = keyring_store(ring);
    envelope_status status = keys ? store_key_find(keys, name, &key) : error_status();
    if (status != ENVELOPE_OK) {
        fail_raised(diagnosis, "default key", status);
        return;
    }
    if (key.state != STORE_KEY_ENABLED) {
        fail(diagnosis, "default key", ENVELOPE_E_KEY_STATE,
             doctor_advice(ENVELOPE_E_KEY_STATE, diagnosis->key_service), "\"%s\" is %s", name,
             store_key_state_text(key.state));
        return;
    }
    if (!token_works) {
        skip(diagnosis, "default key", "\"%s\" is there; without the token it cannot be tried", name);
        return;
    }
    status = unwrap_primary(ring, &key);
    if (status == ENVELOPE_OK)
        good(diagnosis, "default key", "\"%s\", version %u unwraps", name, key.primary_version);
    else
        fail_raised(diagnosis, "default key", status);
}

static void check_locked_memory(struct lifecycle_diagnosis *diagnosis)
{
    enum { WANTED = 1024 * 1024 };
    struct rlimit limit;
    static const char advice[] = "Raise it for services that hold many keys: LimitMEMLOCK= in systemd, `memlock` in "
                                 "/etc/security/limits.conf.";
    if (secmem_unlocked() > 0)
        warn(diagnosis, "locked memory", advice, "mlock was refused: keys could be swapped out");
    else if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < WANTED)
        warn(diagnosis, "locked memory", advice, "only %llu KiB may be locked against swapping",
             (unsigned long long)limit.rlim_cur / 1024);
    else
        good(diagnosis, "locked memory", "keys are kept out of swap");
}

/* ---- the way of other programs, in a process of its own ---- */

struct probe {
    char output[4096];
    size_t length;
    int status; /* as waitpid gives it */
    bool late;
};

static bool probe_start(const char *how, pid_t *process, int *from)
{
    int ends[2];
    if (pipe(ends) != 0)
        return false;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    char program[] = "envelope", verb[] = "doctor", option[] = "--probe";
    char way[16];
    snprintf(way, sizeof(way), "%s", how);
    char *arguments[] = {program, verb, option, way, NULL};
    int failed = posix_spawn(process, "/proc/self/exe", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (failed)
        close(ends[0]);
    *from = ends[0];
    errno = failed;
    return failed == 0;
}

/* Collect the output until its end or the deadline; a process that hangs is ended. */
static void probe_collect(struct probe *probe, pid_t process, int from)
{
    int64_t until = clock_monotonic() + probe_deadline;
    for (;;) {
        int64_t left = (until - clock_monotonic()) / 1000;
        struct pollfd ready = {.fd = from, .events = POLLIN};
        int count = left > 0 ? poll(&ready, 1, (int)left) : 0;
        if (count < 0 && errno == EINTR)
            continue;
        if (count == 0) {
            probe->late = true;
            kill(process, SIGKILL);
            break;
        }
        char chunk[512];
        ssize_t got = count > 0 ? read(from, chunk, sizeof(chunk)) : -1;
        if (got <= 0)
            break;
        size_t room = sizeof(probe->output) - 1 - probe->length;
        size_t kept = (size_t)got < room ? (size_t)got : room;
        memcpy(probe->output + probe->length, chunk, kept);
        probe->length += kept;
    }
    probe->output[probe->length] = '\0';
    close(from);
    while (waitpid(process, &probe->status, 0) < 0 && errno == EINTR)
        ;
}

/* The probe's own line: its category, and its text up to the line's end. 0 if it printed none. */
static char probe_line(struct probe *probe, const char **text)
{
    char *line = strstr(probe->output, DOCTOR_PROBE_MARK);
    *text = "";
    if (!line)
        return 0;
    line += strlen(DOCTOR_PROBE_MARK);
    char *end = strchr(line, '\n');
    if (end)
        *end = '\0';
    if (line[0] && line[1] == ' ')
        *text = line + 2;
    return line[0];
}

static const char *configuration_advice(char category)
{
    switch (category) {
    case DOCTOR_PROBE_NO_DEFAULT:
        return "Activate the default provider too: default = default_sect, and [default_sect] with activate = 1.";
    case DOCTOR_PROBE_LOAD:
        return "Correct the file: `module` must be the path of envelope.so.";
    default:
        return NULL;
    }
}

static void check_program(struct lifecycle_diagnosis *diagnosis, const char *name, const char *how, const char *subject)
{
    struct probe probe = {0};
    pid_t process;
    int from;
    if (!probe_start(how, &process, &from)) {
        fail(diagnosis, name, ENVELOPE_E_IO, NULL, "cannot start a process to try: %s", strerror(errno));
        return;
    }
    probe_collect(&probe, process, from);

    const char *text;
    char category = probe_line(&probe, &text);
    bool by_name = strcmp(how, "module") == 0;
    if (probe.late)
        fail(diagnosis, name, ENVELOPE_E_TIMEOUT, NULL, "%s: a program hung for %d s and was ended", subject,
             (int)(probe_deadline / CLOCK_SECOND));
    else if (WIFSIGNALED(probe.status))
        fail(diagnosis, name, ENVELOPE_E_INTERNAL, NULL, "%s: a program crashed with signal %d", subject,
             WTERMSIG(probe.status));
    else if (category == DOCTOR_PROBE_GOOD && WEXITSTATUS(probe.status) == 0)
        good(diagnosis, name, "%s: a program encrypts and decrypts", subject);
    else if (category == DOCTOR_PROBE_INACTIVE)
        warn(diagnosis, name,
             "Programs must name it (-provider envelope), or the file must activate it: see the README.",
             "%s does not activate the provider", subject);
    else if (category == DOCTOR_PROBE_NOT_ACTIVATED)
        fail(diagnosis, name, ENVELOPE_E_CONFIG, "Add activate = 1 to the provider's section.",
             "%s names the provider, but does not activate it", subject);
    else if (category == 0 || category == DOCTOR_PROBE_GOOD)
        fail(diagnosis, name, ENVELOPE_E_INTERNAL, NULL, "%s: a program ended with status %d and said: %.200s", subject,
             WEXITSTATUS(probe.status), probe.output);
    else
        fail(diagnosis, name, category == DOCTOR_PROBE_LOAD ? ENVELOPE_E_CONFIG : ENVELOPE_E_CRYPTO,
             by_name && category == DOCTOR_PROBE_LOAD ? "Install envelope.so where OpenSSL looks (openssl version -m), "
                                                        "or set OPENSSL_MODULES to its directory."
                                                      : configuration_advice(category),
             "%s: %s", subject, text);
}

static void check_programs(struct lifecycle_diagnosis *diagnosis)
{
    const char *modules = getenv("OPENSSL_MODULES");
    check_program(diagnosis, "provider", "module", modules ? modules : lifecycle_modules_directory());
    const char *conf = getenv("OPENSSL_CONF");
    check_program(diagnosis, "openssl.cnf", "conf", conf ? conf : "OpenSSL's own configuration file");
}

/* Run a probe; its category, 0 if it crashed or hung, and what it says. */
static char run_probe(const char *how, struct probe *probe, const char **text)
{
    pid_t process;
    int from;
    *text = "cannot start a process to try";
    if (!probe_start(how, &process, &from))
        return 0;
    probe_collect(probe, process, from);
    char category = probe_line(probe, text);
    if (probe->late || WIFSIGNALED(probe->status) || category == 0)
        *text = probe->late ? "a program hung and was ended" : "a program crashed or said nothing of use";
    return probe->late || WIFSIGNALED(probe->status) ? 0 : category;
}

static bool hand_on_reference(keyring *ring)
{
    struct lifecycle_reference reference;
    char hex[2 * LIFECYCLE_REFERENCE_SIZE + 1];
    store *keys = keyring_store(ring);
    if (!keys || lifecycle_reference(keys, keyring_settings(ring)->default_key, 0, &reference) != ENVELOPE_OK)
        return false;
    text_hex(reference.bytes, sizeof(reference.bytes), hex);
    return setenv(DOCTOR_REFERENCE, hex, 1) == 0;
}

/* The standard ciphers under key references, and what uses them with keys of its own. */
static void check_references(struct lifecycle_diagnosis *diagnosis, keyring *ring)
{
    static const char name[] = "key references";
    struct probe probe = {0}, tls = {0};
    const char *text;
    bool handed = hand_on_reference(ring);
    char category = run_probe("references", &probe, &text);
    if (category == DOCTOR_PROBE_UNASKED || category == DOCTOR_PROBE_LOAD)
        return;
    if (!handed) {
        skip(diagnosis, name, "not tried: the default key cannot be referred to (%s)", error_text());
        error_clear();
        return;
    }
    if (category == DOCTOR_PROBE_GOOD)
        good(diagnosis, name, "a program encrypts with a reference in place of a key");
    else if (category == DOCTOR_PROBE_PASSED_BY)
        fail(
            diagnosis, name, ENVELOPE_E_CONFIG,
            "Add default_properties = ?provider=envelope to the section that alg_section names. Until then a reference "
            "is used as the key itself, and it is no secret.",
            "openssl.cnf has key-references, but programs get the default provider's ciphers");
    else
        fail(diagnosis, name, ENVELOPE_E_CRYPTO, NULL, "%s", text);

    category = run_probe("tls", &tls, &text);
    if (category == DOCTOR_PROBE_GOOD)
        good(diagnosis, "TLS", "handshakes beside key references");
    else
        warn(diagnosis, "TLS",
             "Is a cipher of TLS denied by raw-keys? libssl's own keys are raw keys: deny that cipher only where no "
             "program uses TLS.",
             "no handshake under this openssl.cnf: %s", text);
}

/* The programs that are tried must read the configuration that is checked. */
static bool hand_on_config(const char *path)
{
    char absolute[PATH_MAX];
    return realpath(path, absolute) && setenv("ENVELOPE_CONFIG", absolute, 1) == 0;
}

envelope_status lifecycle_doctor(const char *path, struct lifecycle_diagnosis *diagnosis)
{
    *diagnosis = (struct lifecycle_diagnosis){0};
    struct settings settings;
    envelope_status status = settings_load(path, &settings);
    if (status != ENVELOPE_OK) {
        fail(diagnosis, "configuration", status, "envelope.cnf(5) describes the file; `envelope init` writes one.",
             "%s", error_text());
        return ENVELOPE_OK;
    }
    check_file_mode(diagnosis, "configuration", path, 022, "Others can change it, and what it runs: chmod go-w.");
    check_pin(diagnosis, &settings);
    bool store_sound = check_store(diagnosis, &settings);

    SETUP_KEYRING ring = NULL;
    status = keyring_new(&settings, &ring);
    if (status != ENVELOPE_OK)
        return status;
    bool token_works = check_token(diagnosis, ring);
    if (store_sound)
        check_default_key(diagnosis, ring, token_works);
    else
        skip(diagnosis, "default key", "without a store there is none");
    check_locked_memory(diagnosis);
    if (hand_on_config(path)) {
        check_programs(diagnosis);
        check_references(diagnosis, ring);
    }
    return ENVELOPE_OK;
}
