#include "lifecycle/lifecycle.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/settings.h"
#include "base/text.h"
#include "hsm/hsm.h"
#include "lifecycle/files.h"
#include "lifecycle/setup.h"

static bool is_uri(const char *kek)
{
    return strncmp(kek, "pkcs11:", 7) == 0;
}

/* A file named on the command line, as any process in any directory will find it. */
static char *absolute(const char *path, const char *what)
{
    char found[PATH_MAX];
    if (!realpath(path, found)) {
        error_raise(ENVELOPE_E_CONFIG, "cannot find the %s %s: %s", what, path, strerror(errno));
        return NULL;
    }
    return text_copy(found);
}

static char *wanted_kek(const struct lifecycle_init *wanted)
{
    if (is_uri(wanted->kek)) {
        if (wanted->token) {
            error_raise(ENVELOPE_E_ARGUMENT, "--kek is a URI and names its token itself: leave --token out");
            return NULL;
        }
        return hsm_check_uri(wanted->kek) == ENVELOPE_OK ? hsm_public_uri(wanted->kek) : NULL;
    }
    if (!wanted->token) {
        error_raise(ENVELOPE_E_ARGUMENT, "--kek \"%s\" is a label: say with --token which token it is on", wanted->kek);
        return NULL;
    }
    return setup_kek_uri(wanted->token, wanted->kek);
}

/* Write the configuration under its temporary name. */
static envelope_status stage_config(const struct lifecycle_init *wanted)
{
    if (!wanted->module || !wanted->kek || !wanted->store)
        return error_raise(ENVELOPE_E_ARGUMENT, "%s is not there yet, and writing it needs --%s", wanted->config,
                           !wanted->module ? "module"
                           : !wanted->kek  ? "kek"
                                           : "store");
    LIFECYCLE_TEXT kek = wanted_kek(wanted);
    LIFECYCLE_TEXT module = absolute(wanted->module, "PKCS#11 module");
    LIFECYCLE_TEXT pin_file = wanted->pin_file ? absolute(wanted->pin_file, "PIN file") : NULL;
    if (!kek || !module || (wanted->pin_file && !pin_file))
        return error_status();
    LIFECYCLE_TEXT content = setup_config(wanted->store, kek, module, pin_file);
    return content ? lifecycle_file_stage(wanted->config, 0600, content) : ENVELOPE_E_NO_MEMORY;
}

static envelope_status agree(const char *config, const char *name, const char *wanted, const char *there)
{
    if (!wanted || (there && strcmp(wanted, there) == 0))
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_CONFIG, "%s is there already and says %s = %s, not %s; edit it, or leave --%s out",
                       config, name, there ? there : "nothing", wanted, name);
}

/* A configuration that exists is not rewritten, so what was asked for must be what it says. */
static envelope_status check_agreement(const struct lifecycle_init *wanted, const struct settings *there)
{
    LIFECYCLE_TEXT kek = wanted->kek ? wanted_kek(wanted) : NULL;
    LIFECYCLE_TEXT module = wanted->module ? absolute(wanted->module, "PKCS#11 module") : NULL;
    LIFECYCLE_TEXT pin_file = wanted->pin_file ? absolute(wanted->pin_file, "PIN file") : NULL;
    if ((wanted->kek && !kek) || (wanted->module && !module) || (wanted->pin_file && !pin_file))
        return error_status();
    envelope_status status = agree(wanted->config, "kek", kek, there->kek);
    if (status == ENVELOPE_OK)
        status = agree(wanted->config, "module", module, there->module);
    if (status == ENVELOPE_OK)
        status = agree(wanted->config, "store", wanted->store, there->store);
    if (status == ENVELOPE_OK)
        status = agree(wanted->config, "pin-file", pin_file, there->pin_file);
    return status;
}

static envelope_status prepare_kek(keyring *ring, bool generate, struct lifecycle_made *made)
{
    hsm *token = keyring_hsm(ring);
    if (!token)
        return error_status();
    const char *kek = keyring_settings(ring)->kek;
    if (!kek)
        return error_raise(ENVELOPE_E_CONFIG, "%s names no kek", keyring_settings(ring)->path);
    envelope_status status = ENVELOPE_OK;
    if (generate) {
        status = hsm_kek_generate(token, kek);
        if (status == ENVELOPE_OK)
            status = setup_note(made, "KEK", kek);
        else if (status == ENVELOPE_E_KEY_EXISTS)
            status = ENVELOPE_OK;
    }
    return status == ENVELOPE_OK ? setup_try_wrap(token, kek) : status;
}

/* Store, KEK and default key. A store made here is removed again if what follows fails. */
static envelope_status make_parts(keyring **ring, bool generate, struct lifecycle_made *made)
{
    LIFECYCLE_TEXT url = text_copy(keyring_settings(*ring)->store ? keyring_settings(*ring)->store : "");
    if (!url)
        return ENVELOPE_E_NO_MEMORY;
    bool created = false;
    envelope_status status = setup_store(*ring, made, &created);
    if (status == ENVELOPE_OK)
        status = prepare_kek(*ring, generate, made);
    if (status == ENVELOPE_OK)
        status = setup_default_key(*ring, made);
    if (status != ENVELOPE_OK && created) {
        keyring_free(*ring); /* its connections */
        *ring = NULL;
        setup_drop_store(url);
    }
    return status;
}

envelope_status lifecycle_init(const struct lifecycle_init *wanted, struct lifecycle_made *made)
{
    *made = (struct lifecycle_made){0};
    bool fresh = !lifecycle_exists(wanted->config);
    LIFECYCLE_TEXT staged = lifecycle_temporary_name(wanted->config);
    if (!staged)
        return ENVELOPE_E_NO_MEMORY;

    envelope_status status = fresh ? stage_config(wanted) : ENVELOPE_OK;
    if (status != ENVELOPE_OK)
        return status;
    struct settings settings;
    status = settings_load(fresh ? staged : wanted->config, &settings);
    if (status == ENVELOPE_OK && !fresh) {
        status = check_agreement(wanted, &settings);
        if (status != ENVELOPE_OK)
            settings_clear(&settings);
    }
    SETUP_KEYRING ring = NULL;
    if (status == ENVELOPE_OK)
        status = keyring_new(&settings, &ring);
    if (status == ENVELOPE_OK)
        status = make_parts(&ring, wanted->generate_kek, made);
    if (!fresh)
        return status;
    if (status == ENVELOPE_OK)
        status = lifecycle_file_publish(wanted->config);
    if (status != ENVELOPE_OK) {
        lifecycle_file_drop(wanted->config);
        return status;
    }
    return setup_note(made, "configuration", wanted->config);
}
