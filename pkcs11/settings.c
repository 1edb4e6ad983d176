#include "settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/error.h"
#include "base/text.h"
#include "aws.h"
#include "backends.h"
#include "buffer.h"
#include "local.h"

#define MEMBER(member) offsetof(struct token_settings, member)

static const struct config_key token_keys[] = {
    {.name = "backend", .type = CONFIG_TEXT, .offset = MEMBER(backend), .required = true},
    {.name = "deadline", .type = CONFIG_DURATION, .offset = MEMBER(deadline), .min = 10000, .max = 600 * CLOCK_SECOND},
    {.name = "timeout", .type = CONFIG_DURATION, .offset = MEMBER(timeout), .min = 10000, .max = 600 * CLOCK_SECOND},
    {.name = "refresh", .type = CONFIG_DURATION, .offset = MEMBER(refresh), .max = 86400 * CLOCK_SECOND},
    {.name = "keys", .type = CONFIG_TEXT, .offset = MEMBER(keys)},
    {.name = "create", .type = CONFIG_BOOL, .offset = MEMBER(create)},
    {.name = "destroy", .type = CONFIG_BOOL, .offset = MEMBER(destroy)},
    {.name = "rotate", .type = CONFIG_BOOL, .offset = MEMBER(rotate)},
    {.name = "ca-file", .type = CONFIG_TEXT, .offset = MEMBER(ca_file)},
    {.name = "client-cert", .type = CONFIG_TEXT, .offset = MEMBER(client_cert)},
    {.name = "client-key", .type = CONFIG_TEXT, .offset = MEMBER(client_key)},
    {.name = "proxy", .type = CONFIG_TEXT, .offset = MEMBER(proxy)},

    {.name = "region", .type = CONFIG_TEXT, .offset = MEMBER(region)},
    {.name = "endpoint", .type = CONFIG_TEXT, .offset = MEMBER(endpoint)},
    {.name = "sts-endpoint", .type = CONFIG_TEXT, .offset = MEMBER(sts_endpoint)},
    {.name = "imds-endpoint", .type = CONFIG_TEXT, .offset = MEMBER(imds_endpoint)},
    {.name = "fips", .type = CONFIG_BOOL, .offset = MEMBER(fips)},
    {.name = "profile", .type = CONFIG_TEXT, .offset = MEMBER(profile)},
    {.name = "credentials", .type = CONFIG_CHOICE, .offset = MEMBER(credentials), .choices = aws_source_names},
    {.name = "grant-tokens", .type = CONFIG_TEXT, .offset = MEMBER(grant_tokens)},
    {.name = "pending-days", .type = CONFIG_UNSIGNED, .offset = MEMBER(pending_days), .min = 7, .max = 30},

    {.name = "address", .type = CONFIG_TEXT, .offset = MEMBER(address)},
    {.name = "mount", .type = CONFIG_TEXT, .offset = MEMBER(mount)},
    {.name = "namespace", .type = CONFIG_TEXT, .offset = MEMBER(name_space)},
    {.name = "auth", .type = CONFIG_TEXT, .offset = MEMBER(auth)},
    {.name = "auth-mount", .type = CONFIG_TEXT, .offset = MEMBER(auth_mount)},
    {.name = "token-file", .type = CONFIG_TEXT, .offset = MEMBER(token_file)},
    {.name = "role", .type = CONFIG_TEXT, .offset = MEMBER(role)},
    {.name = "role-id-file", .type = CONFIG_TEXT, .offset = MEMBER(role_id_file)},
    {.name = "secret-id-file", .type = CONFIG_TEXT, .offset = MEMBER(secret_id_file)},
    {.name = "jwt-file", .type = CONFIG_TEXT, .offset = MEMBER(jwt_file)},

    {.name = "tenant", .type = CONFIG_TEXT, .offset = MEMBER(tenant)},
    {.name = "client-id", .type = CONFIG_TEXT, .offset = MEMBER(client_id)},
    {.name = "client-secret-file", .type = CONFIG_TEXT, .offset = MEMBER(client_secret_file)},
    {.name = "authority", .type = CONFIG_TEXT, .offset = MEMBER(authority)},

    {.name = "key-ring", .type = CONFIG_TEXT, .offset = MEMBER(key_ring)},
    {.name = "credentials-file", .type = CONFIG_TEXT, .offset = MEMBER(credentials_file)},
};
enum { TOKEN_KEY_COUNT = sizeof token_keys / sizeof token_keys[0] };

static void token_free(struct token_settings *token)
{
    for (size_t i = 0; i < TOKEN_KEY_COUNT; i++)
        if (token_keys[i].type == CONFIG_TEXT)
            free(*(char **)((char *)token + token_keys[i].offset));
    free(token->label);
    free(token);
}

static void *token_target(void *base, const char *instance)
{
    struct kms_settings *settings = base;
    size_t length = strlen(instance);
    if (length == 0 || length > SETTINGS_LABEL_MAX || !text_is_key_name(instance, length)) {
        error_raise(ENVELOPE_E_CONFIG, "\"%s\" cannot be a token's label: 1 to %d bytes of UTF-8 are allowed", instance,
                    (int)SETTINGS_LABEL_MAX);
        return NULL;
    }
    for (size_t i = 0; i < settings->count; i++)
        if (strcmp(settings->tokens[i]->label, instance) == 0)
            return settings->tokens[i];
    if (settings->count == SETTINGS_TOKENS_MAX) {
        error_raise(ENVELOPE_E_CONFIG, "more than %d tokens", (int)SETTINGS_TOKENS_MAX);
        return NULL;
    }
    struct token_settings *token = calloc(1, sizeof *token);
    if (!token) {
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the settings of a token");
        return NULL;
    }
    token->label = text_copy(instance);
    if (!token->label) {
        free(token);
        return NULL;
    }
    token->deadline = 10 * CLOCK_SECOND;
    token->timeout = 3 * CLOCK_SECOND;
    token->refresh = 60 * CLOCK_SECOND;
    token->pending_days = 30;
    settings->tokens[settings->count++] = token;
    return token;
}

static const struct config_section sections[] = {
    {.name = "token *", .keys = token_keys, .key_count = TOKEN_KEY_COUNT, .target = token_target},
};
enum { SECTION_COUNT = sizeof sections / sizeof sections[0] };

/* Who can write this file can send our plaintext and credentials to a server of their own. */
static envelope_status check_owner(const char *path)
{
    struct stat file;
    if (stat(path, &file) != 0)
        return error_raise(ENVELOPE_E_CONFIG, "\"%s\": %s; set ENVELOPE_KMS_CONFIG or create it", path,
                           strerror(errno));
    if (!S_ISREG(file.st_mode))
        return error_raise(ENVELOPE_E_CONFIG, "\"%s\" is not a regular file", path);
    if (file.st_mode & (S_IWGRP | S_IWOTH))
        return error_raise(ENVELOPE_E_CONFIG, "\"%s\" can be written by others than its owner; chmod go-w it", path);
    return ENVELOPE_OK;
}

static int by_label(const void *a, const void *b)
{
    const struct token_settings *const *one = a, *const *other = b;
    return strcmp((*one)->label, (*other)->label);
}

/* Which texts and switches mean something to which backends; those not listed mean something to all. */
static const struct {
    const char *key;
    const char *backends;
} owners[] = {
    {"rotate", "aws-kms openbao"},
    {"fips", "aws-kms"},
    {"region", "aws-kms"},
    {"endpoint", "aws-kms gcp-kms"},
    {"sts-endpoint", "aws-kms"},
    {"imds-endpoint", "aws-kms azure-key-vault azure-managed-hsm gcp-kms"},
    {"profile", "aws-kms"},
    {"grant-tokens", "aws-kms"},
    {"address", "openbao azure-key-vault azure-managed-hsm"},
    {"mount", "openbao"},
    {"namespace", "openbao"},
    {"auth", "openbao azure-key-vault azure-managed-hsm gcp-kms"},
    {"auth-mount", "openbao"},
    {"token-file", "openbao"},
    {"role", "openbao"},
    {"role-id-file", "openbao"},
    {"secret-id-file", "openbao"},
    {"jwt-file", "openbao azure-key-vault azure-managed-hsm"},
    {"tenant", "azure-key-vault azure-managed-hsm"},
    {"client-id", "azure-key-vault azure-managed-hsm"},
    {"client-secret-file", "azure-key-vault azure-managed-hsm"},
    {"authority", "azure-key-vault azure-managed-hsm"},
    {"key-ring", "gcp-kms"},
    {"credentials-file", "azure-key-vault azure-managed-hsm gcp-kms"},
};

static const struct config_key *key_named(const char *name)
{
    for (size_t i = 0; i < TOKEN_KEY_COUNT; i++)
        if (strcmp(token_keys[i].name, name) == 0)
            return &token_keys[i];
    return NULL;
}

static bool is_among(const char *name, const char *list)
{
    size_t length = strlen(name);
    for (; *list; list += strcspn(list, " "), list += strspn(list, " "))
        if (strcspn(list, " ") == length && strncmp(list, name, length) == 0)
            return true;
    return false;
}

static bool is_given(const struct token_settings *token, const struct config_key *key)
{
    const char *at = (const char *)token + key->offset;
    return key->type == CONFIG_BOOL ? *(const bool *)at : *(char *const *)at != NULL;
}

/* A setting that does nothing is a mistake to be told of. */
static envelope_status check_owners(const struct kms_settings *settings, const struct token_settings *token)
{
    for (size_t i = 0; i < sizeof owners / sizeof owners[0]; i++) {
        const struct config_key *key = key_named(owners[i].key);
        if (key && is_given(token, key) && !is_among(token->backend, owners[i].backends))
            return error_raise(ENVELOPE_E_CONFIG, "%s: [token %s]: %s means nothing to backend = %s", settings->path,
                               token->label, owners[i].key, token->backend);
    }
    return ENVELOPE_OK;
}

static envelope_status unknown_backend(const char *path, const struct token_settings *token)
{
    struct buffer known = {0};
    for (size_t i = 0; backends_known[i]; i++) {
        buffer_append_text(&known, i ? ", " : "");
        buffer_append_text(&known, backends_known[i]->name);
    }
    error_raise(ENVELOPE_E_CONFIG, "%s: [token %s]: there is no backend = %s; known are %s", path, token->label,
                token->backend, buffer_text(&known));
    buffer_clear(&known);
    return error_status();
}

static envelope_status check_backends(const struct kms_settings *settings)
{
    for (size_t i = 0; i < settings->count; i++) {
        const struct token_settings *token = settings->tokens[i];
        if (!backend_find(token->backend))
            return unknown_backend(settings->path, token);
        envelope_status status = check_owners(settings, token);
        if (status)
            return status;
    }
    if (!settings->count)
        return error_raise(ENVELOPE_E_CONFIG, "%s: no [token NAME] section", settings->path);
    return ENVELOPE_OK;
}

envelope_status kms_settings_load(struct kms_settings *settings)
{
    *settings = (struct kms_settings){0};
    const char *path = local_env("ENVELOPE_KMS_CONFIG");
    settings->path = text_copy(path ? path : "/etc/envelope/kms.cnf");
    if (!settings->path)
        return ENVELOPE_E_NO_MEMORY;
    envelope_status status = check_owner(settings->path);
    if (!status)
        status = config_read(settings->path, sections, SECTION_COUNT, settings);
    if (!status)
        status = check_backends(settings);
    /* Sections come in no order; slot numbers must not depend on it. */
    if (!status)
        qsort(settings->tokens, settings->count, sizeof settings->tokens[0], by_label);
    if (status)
        kms_settings_clear(settings);
    return status;
}

void kms_settings_clear(struct kms_settings *settings)
{
    for (size_t i = 0; i < settings->count; i++)
        token_free(settings->tokens[i]);
    free(settings->path);
    *settings = (struct kms_settings){0};
}
