#include "lifecycle/lifecycle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <openssl/rand.h>

#include "base/error.h"
#include "base/libctx.h"
#include "base/secmem.h"
#include "base/settings.h"
#include "base/text.h"
#include "hsm/hsm.h"
#include "lifecycle/files.h"
#include "lifecycle/setup.h"

static const char token_label[] = "envelope";
static const char kek_label[] = "master";

enum { PIN_BYTES = 16, PIN_SIZE = 2 * PIN_BYTES + 1 };

struct rig {
    char root[PATH_MAX];
    int lock; /* the directory itself, flock'ed */
    char *softhsm_conf, *tokens, *pin, *config, *openssl_conf, *store, *store_url, *env;
    char module[PATH_MAX];
    bool key_references;
    struct lifecycle_made *made;
};

static void rig_clear(struct rig *rig)
{
    char *paths[] = {rig->softhsm_conf, rig->tokens, rig->pin,       rig->config,
                     rig->openssl_conf, rig->store,  rig->store_url, rig->env};
    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
        free(paths[i]);
    if (rig->lock >= 0)
        close(rig->lock);
}

static envelope_status name_files(struct rig *rig)
{
    rig->softhsm_conf = text_format("%s/softhsm2.conf", rig->root);
    rig->tokens = text_format("%s/tokens", rig->root);
    rig->pin = text_format("%s/pin", rig->root);
    rig->config = text_format("%s/envelope.cnf", rig->root);
    rig->openssl_conf = text_format("%s/openssl.cnf", rig->root);
    rig->store = text_format("%s/keys.db", rig->root);
    rig->store_url = text_format("sqlite:%s/keys.db", rig->root);
    rig->env = text_format("%s/env", rig->root);
    bool complete = rig->softhsm_conf && rig->tokens && rig->pin && rig->config && rig->openssl_conf && rig->store &&
                    rig->store_url && rig->env;
    return complete ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

/* SoftHSM's configuration has no quoting: what it cannot say is refused before anything is made. */
static envelope_status check_name(const char *directory)
{
    bool fits = text_is_utf8(directory, strlen(directory)) && strlen(directory) < 900;
    for (const char *c = directory; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f || *c == '#')
            fits = false;
    if (*directory && fits)
        return ENVELOPE_OK;
    char shown[256];
    return error_raise(ENVELOPE_E_ARGUMENT,
                       "\"%s\" cannot be the directory of a rig: SoftHSM's configuration takes no empty, very long or "
                       "non-UTF-8 name, and none with '#' or control characters",
                       text_printable(directory, strlen(directory), shown, sizeof(shown)));
}

/* A directory with files in it that is no rig belongs to somebody else. */
static envelope_status check_ours(const struct rig *rig)
{
    if (lifecycle_exists(rig->softhsm_conf))
        return ENVELOPE_OK;
    DIR *listing = opendir(rig->root);
    if (!listing)
        return error_raise(ENVELOPE_E_IO, "cannot list %s: %s", rig->root, strerror(errno));
    envelope_status status = ENVELOPE_OK;
    struct dirent *entry;
    while (status == ENVELOPE_OK && (entry = readdir(listing))) {
        bool known = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                     strcmp(entry->d_name, ".softhsm2.conf.new") == 0;
        if (!known)
            status = error_raise(ENVELOPE_E_ARGUMENT, "%s is not empty and is no rig of ours; name a new directory",
                                 rig->root);
    }
    closedir(listing);
    return status;
}

static envelope_status open_directory(struct rig *rig, const char *directory)
{
    bool existed = lifecycle_exists(directory);
    bool fresh = false;
    /* An existing directory gets its mode only once it is known to be ours. */
    if (!existed) {
        envelope_status status = lifecycle_directory_make(directory, 0700, &fresh);
        if (status != ENVELOPE_OK)
            return status;
    }
    if (!realpath(directory, rig->root))
        return error_raise(ENVELOPE_E_IO, "cannot find %s: %s", directory, strerror(errno));
    envelope_status status = check_name(rig->root);
    if (status != ENVELOPE_OK) {
        if (fresh)
            rmdir(directory);
        return status;
    }
    rig->lock = open(rig->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rig->lock < 0)
        return error_raise(ENVELOPE_E_IO, "cannot open the directory %s: %s", rig->root, strerror(errno));
    /* Two runs at once: the second waits, and finds everything made. */
    if (flock(rig->lock, LOCK_EX) != 0)
        return error_raise(ENVELOPE_E_IO, "cannot lock the directory %s: %s", rig->root, strerror(errno));
    status = name_files(rig);
    if (status == ENVELOPE_OK)
        status = check_ours(rig);
    if (status == ENVELOPE_OK && existed)
        status = lifecycle_directory_make(rig->root, 0700, &fresh);
    if (status == ENVELOPE_OK && fresh)
        status = setup_note(rig->made, "directory", rig->root);
    return status;
}

static envelope_status make_file(struct rig *rig, const char *what, const char *path, mode_t mode, const char *content)
{
    if (!content)
        return ENVELOPE_E_NO_MEMORY;
    bool written;
    envelope_status status = lifecycle_file_write_new(path, mode, content, &written);
    return status == ENVELOPE_OK && written ? setup_note(rig->made, what, path) : status;
}

static envelope_status make_softhsm_conf(struct rig *rig)
{
    LIFECYCLE_TEXT content = text_format("directories.tokendir = %s\n"
                                         "objectstore.backend = file\n"
                                         "log.level = ERROR\n"
                                         "slots.removable = false\n",
                                         rig->tokens);
    envelope_status status = make_file(rig, "SoftHSM configuration", rig->softhsm_conf, 0600, content);
    if (status != ENVELOPE_OK)
        return status;
    if (setenv("SOFTHSM2_CONF", rig->softhsm_conf, 1) != 0)
        return error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
    bool fresh;
    return lifecycle_directory_make(rig->tokens, 0700, &fresh);
}

static envelope_status make_pin(struct rig *rig)
{
    if (lifecycle_exists(rig->pin))
        return ENVELOPE_OK;
    OSSL_LIB_CTX *context = libctx_private();
    if (!context)
        return error_status();
    uint8_t random[PIN_BYTES];
    char line[PIN_SIZE + 1];
    if (RAND_priv_bytes_ex(context, random, sizeof(random), 0) != 1)
        return error_raise(ENVELOPE_E_CRYPTO, "OpenSSL gave no random bytes for a PIN");
    text_hex(random, sizeof(random), line);
    line[PIN_SIZE - 1] = '\n';
    line[PIN_SIZE] = '\0';
    envelope_status status = make_file(rig, "PIN", rig->pin, 0600, line);
    secmem_wipe(random, sizeof(random));
    secmem_wipe(line, sizeof(line));
    return status;
}

static envelope_status read_pin(const struct rig *rig, char pin[PIN_SIZE])
{
    int file = open(rig->pin, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return error_raise(ENVELOPE_E_IO, "cannot read the PIN file %s: %s", rig->pin, strerror(errno));
    ssize_t length = read(file, pin, PIN_SIZE - 1);
    close(file);
    if (length != PIN_SIZE - 1)
        return error_raise(ENVELOPE_E_IO, "the PIN file %s is not one that `envelope init` wrote", rig->pin);
    pin[length] = '\0';
    return ENVELOPE_OK;
}

/* The token and its KEK, through a keyring made from the staged configuration. */
static envelope_status make_token(struct rig *rig, const char *staged, const char *kek)
{
    struct settings settings;
    envelope_status status = settings_load(staged, &settings);
    if (status != ENVELOPE_OK)
        return status;
    SETUP_KEYRING ring = NULL;
    status = keyring_new(&settings, &ring);
    if (status != ENVELOPE_OK)
        return status;
    hsm *token = keyring_hsm(ring);
    if (!token)
        return error_status();

    char pin[PIN_SIZE];
    status = read_pin(rig, pin);
    /* A rig has one person: its security officer's PIN is the user's. */
    if (status == ENVELOPE_OK)
        status = hsm_token_init(token, rig->module, token_label, pin, pin);
    secmem_wipe(pin, sizeof(pin));
    if (status == ENVELOPE_OK)
        status = setup_note(rig->made, "token", token_label);
    if (status == ENVELOPE_OK)
        status = hsm_kek_generate(token, kek);
    if (status == ENVELOPE_OK)
        status = setup_note(rig->made, "KEK", kek);
    return status;
}

/*
 * envelope.cnf appears when the token and its KEK are complete. Without it nothing can have been wrapped under that
 * token, unless there is a store: then the file was lost, and the token must not be touched.
 */
static envelope_status make_config(struct rig *rig)
{
    if (lifecycle_exists(rig->config))
        return ENVELOPE_OK;
    if (lifecycle_exists(rig->store))
        return error_raise(ENVELOPE_E_CONFIG, "%s is missing, but %s holds keys: put the configuration back",
                           rig->config, rig->store);

    envelope_status status = lifecycle_directory_empty(rig->tokens);
    if (status != ENVELOPE_OK)
        return status;
    LIFECYCLE_TEXT kek = setup_kek_uri(token_label, kek_label);
    LIFECYCLE_TEXT content = kek ? setup_config(rig->store_url, kek, rig->module, rig->pin) : NULL;
    LIFECYCLE_TEXT staged = lifecycle_temporary_name(rig->config);
    if (!content || !staged)
        return ENVELOPE_E_NO_MEMORY;

    status = lifecycle_file_stage(rig->config, 0600, content);
    if (status == ENVELOPE_OK)
        status = make_token(rig, staged, kek);
    if (status == ENVELOPE_OK)
        status = lifecycle_file_publish(rig->config);
    if (status != ENVELOPE_OK) {
        lifecycle_file_drop(rig->config);
        return status;
    }
    return setup_note(rig->made, "configuration", rig->config);
}

static envelope_status make_openssl_conf(struct rig *rig)
{
    LIFECYCLE_TEXT module = lifecycle_provider_module();
    LIFECYCLE_TEXT quoted_module = module ? lifecycle_quote_conf(module) : NULL;
    LIFECYCLE_TEXT quoted_config = lifecycle_quote_conf(rig->config);
    if (!quoted_config || (module && !quoted_module))
        return ENVELOPE_E_NO_MEMORY;
    LIFECYCLE_TEXT content =
        text_format("# Made by `envelope init`: OpenSSL with Envelope beside its default provider.\n"
                    "config_diagnostics = 1\n"
                    "openssl_conf = openssl_init\n"
                    "\n"
                    "[openssl_init]\n"
                    "providers = providers_sect\n"
                    "%s"
                    "\n"
                    "[providers_sect]\n"
                    "default = default_sect\n"
                    "envelope = envelope_sect\n"
                    "\n"
                    "[default_sect]\n"
                    "activate = 1\n"
                    "\n"
                    "[envelope_sect]\n"
                    "%s%s%s"
                    "config = %s\n"
                    "%s"
                    "activate = 1\n",
                    rig->key_references ? "alg_section = alg_sect\n\n[alg_sect]\n"
                                          "default_properties = ?provider=envelope\n"
                                        : "",
                    module ? "module = " : "", module ? quoted_module : "", module ? "\n" : "", quoted_config,
                    rig->key_references ? "key-references = all\n" : "");
    return make_file(rig, "OpenSSL configuration", rig->openssl_conf, 0600, content);
}

static envelope_status make_store(struct rig *rig)
{
    struct settings settings;
    envelope_status status = settings_load(rig->config, &settings);
    if (status != ENVELOPE_OK)
        return status;
    SETUP_KEYRING ring = NULL;
    status = keyring_new(&settings, &ring);
    bool created;
    if (status == ENVELOPE_OK)
        status = setup_store(ring, rig->made, &created);
    return status == ENVELOPE_OK ? setup_default_key(ring, rig->made) : status;
}

/* Written last: who finds it finds a complete rig. */
static envelope_status make_env(struct rig *rig)
{
    LIFECYCLE_TEXT module = lifecycle_provider_module();
    LIFECYCLE_TEXT modules = text_copy(module ? module : lifecycle_modules_directory());
    if (!modules)
        return ENVELOPE_E_NO_MEMORY;
    if (module)
        *strrchr(modules, '/') = '\0';
    const char *values[] = {rig->softhsm_conf, rig->config, rig->openssl_conf, modules};
    char *quoted[4] = {NULL};
    for (size_t i = 0; i < 4; i++)
        quoted[i] = lifecycle_quote_shell(values[i]);
    LIFECYCLE_TEXT content = NULL;
    if (quoted[0] && quoted[1] && quoted[2] && quoted[3])
        content = text_format("# For a shell: `. env`\n"
                              "export SOFTHSM2_CONF=%s\n"
                              "export ENVELOPE_CONFIG=%s\n"
                              "export OPENSSL_CONF=%s\n"
                              "export OPENSSL_MODULES=%s\n",
                              quoted[0], quoted[1], quoted[2], quoted[3]);
    for (size_t i = 0; i < 4; i++)
        free(quoted[i]);
    return make_file(rig, "environment", rig->env, 0600, content);
}

static envelope_status find_module(struct rig *rig, const char *named)
{
    const char *module = named ? named : lifecycle_softhsm_module();
    if (!module)
        return error_raise(ENVELOPE_E_HSM_MODULE, "SoftHSM's PKCS#11 module is not installed; install the package "
                                                  "softhsm2 or name the module with --module");
    if (!realpath(module, rig->module) || access(rig->module, R_OK) != 0)
        return error_raise(ENVELOPE_E_HSM_MODULE, "cannot read the PKCS#11 module %s: %s", module, strerror(errno));
    return ENVELOPE_OK;
}

envelope_status lifecycle_rig(const char *directory, const struct lifecycle_rig_options *options,
                              struct lifecycle_made *made)
{
    *made = (struct lifecycle_made){0};
    struct rig rig = {.lock = -1, .key_references = options->key_references, .made = made};
    envelope_status (*const steps[])(struct rig *) = {make_softhsm_conf, make_pin,   make_config,
                                                      make_openssl_conf, make_store, make_env};
    envelope_status status = check_name(directory);
    if (status == ENVELOPE_OK)
        status = find_module(&rig, options->module);
    if (status == ENVELOPE_OK)
        status = open_directory(&rig, directory);
    for (size_t i = 0; status == ENVELOPE_OK && i < sizeof(steps) / sizeof(*steps); i++)
        status = steps[i](&rig);
    rig_clear(&rig);
    return status == ENVELOPE_OK ? status : error_context(status, "cannot set up %s", directory);
}
