#include "base/settings.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/error.h"
#include "base/text.h"

#define MILLISECOND (CLOCK_SECOND / 1000)
#define MINUTE (60 * CLOCK_SECOND)
#define HOUR (60 * MINUTE)
#define MESSAGES_MAX (INT64_C(1) << 32)

/* In the order of the enums of settings.h. */
static const char *const crypto_choices[] = {"default", "fips", NULL};
static const char *const wrap_choices[] = {"auto", "aes-gcm", "aes-kwp", "rsa-oaep", NULL};
static const char *const iv_choices[] = {"auto", "caller", "token", "prepended", NULL};
static const char *const random_choices[] = {"token", "local", NULL};

#define MEMBER(name) .offset = offsetof(struct settings, name)

static const struct config_key envelope_keys[] = {
    {"store", CONFIG_TEXT, MEMBER(store), .required = true},
    {"default-key", CONFIG_TEXT, MEMBER(default_key)},
    {"kek", CONFIG_TEXT, MEMBER(kek), .required = true},
    {"crypto", CONFIG_CHOICE, MEMBER(crypto), .choices = crypto_choices},
    {"preload", CONFIG_BOOL, MEMBER(preload)},
    {"refresh", CONFIG_DURATION, MEMBER(refresh), .min = MILLISECOND, .max = HOUR},
    {"deadline", CONFIG_DURATION, MEMBER(deadline), .min = 10 * MILLISECOND, .max = 10 * MINUTE},
};

static const struct config_key hsm_keys[] = {
    {"module", CONFIG_TEXT, MEMBER(module)},
    {"pin-file", CONFIG_TEXT, MEMBER(pin_file)},
    {"pin-env", CONFIG_TEXT, MEMBER(pin_env)},
    {"pin-command", CONFIG_TEXT, MEMBER(pin_command)},
    {"sessions", CONFIG_UNSIGNED, MEMBER(sessions), .min = 1, .max = 1024},
    {"wrap", CONFIG_CHOICE, MEMBER(wrap), .choices = wrap_choices},
    {"iv", CONFIG_CHOICE, MEMBER(iv), .choices = iv_choices},
    {"random", CONFIG_CHOICE, MEMBER(random), .choices = random_choices},
    {"allow-extractable-kek", CONFIG_BOOL, MEMBER(allow_extractable_kek)},
};

static const struct config_key cache_keys[] = {
    {"ttl", CONFIG_DURATION, MEMBER(ttl), .min = MILLISECOND},
    {"grace", CONFIG_DURATION, MEMBER(grace)},
};

static const struct config_key limits_keys[] = {
    {"messages", CONFIG_SIZE, MEMBER(messages), .min = 1, .max = MESSAGES_MAX},
};

#define KEYS(keys) (keys), sizeof(keys) / sizeof((keys)[0])

static const struct config_section sections[] = {
    {"envelope", KEYS(envelope_keys), .required = true},
    {"hsm", KEYS(hsm_keys), .required = false},
    {"cache", KEYS(cache_keys), .required = false},
    {"limits", KEYS(limits_keys), .required = false},
};
enum { SECTION_COUNT = sizeof sections / sizeof sections[0] };

static envelope_status fill_defaults(const char *path, struct settings *settings)
{
    *settings = (struct settings){
        .refresh = CLOCK_SECOND,
        .deadline = 10 * CLOCK_SECOND,
        .sessions = 1,
        .ttl = HOUR,
        .grace = 10 * MINUTE,
        .messages = (uint64_t)MESSAGES_MAX,
    };
    settings->path = text_copy(path);
    settings->default_key = text_copy("default");
    return settings->path && settings->default_key ? ENVELOPE_OK : error_status();
}

static envelope_status check_store(const struct settings *settings)
{
    static const char sqlite[] = "sqlite:";
    const char *store = settings->store;
    if (store[strspn(store, "abcdefghijklmnopqrstuvwxyz")] != ':')
        return error_raise(ENVELOPE_E_CONFIG,
                           "[envelope] store: names no kind of store; write sqlite:/path/to/keys.db");
    if (strncmp(store, sqlite, sizeof sqlite - 1) == 0 && store[sizeof sqlite - 1] != '/')
        return error_raise(ENVELOPE_E_CONFIG,
                           "[envelope] store: the path behind sqlite: is relative, and programs that use it run in "
                           "different directories; write it in full, starting with /");
    return ENVELOPE_OK;
}

static envelope_status check_pins(const struct settings *settings)
{
    int sources = !!settings->pin_file + !!settings->pin_env + !!settings->pin_command;
    if (sources > 1)
        return error_raise(ENVELOPE_E_CONFIG,
                           "[hsm] names more than one source of the PIN; keep one of pin-file, pin-env, pin-command");
    if (settings->pin_file && settings->pin_file[0] != '/')
        return error_raise(ENVELOPE_E_CONFIG,
                           "[hsm] pin-file: the path is relative, and programs that use it run in different "
                           "directories; write it in full, starting with /");
    return ENVELOPE_OK;
}

static envelope_status check(const struct settings *settings)
{
    envelope_status status = check_store(settings);
    if (!status)
        status = check_pins(settings);
    if (!status && !text_is_key_name(settings->default_key, strlen(settings->default_key)))
        status = error_raise(ENVELOPE_E_CONFIG,
                             "[envelope] default-key: not a key name; a name is 1 to %d bytes of UTF-8 "
                             "without control characters",
                             KEY_NAME_MAX);
    if (!status && settings->module && settings->module[0] != '/' && strchr(settings->module, '/'))
        status =
            error_raise(ENVELOPE_E_CONFIG, "[hsm] module: the path is relative; write it in full, starting with /, or "
                                           "a bare file name");
    if (!status)
        return ENVELOPE_OK;
    char shown[256];
    return error_context(status, "%s", text_printable(settings->path, strlen(settings->path), shown, sizeof shown));
}

envelope_status settings_load(const char *path, struct settings *settings)
{
    envelope_status status = fill_defaults(path, settings);
    if (!status)
        status = config_read(path, sections, SECTION_COUNT, settings);
    if (!status)
        status = check(settings);
    if (status)
        settings_clear(settings);
    return status;
}

void settings_clear(struct settings *settings)
{
    config_clear(sections, SECTION_COUNT, settings);
    free(settings->path);
    settings->path = NULL;
}

const char *settings_path(const char *configured)
{
    const char *named = secure_getenv("ENVELOPE_CONFIG");
    if (named && named[0])
        return named;
    return configured && configured[0] ? configured : "/etc/envelope/envelope.cnf";
}
