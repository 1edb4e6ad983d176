#include "aws_plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/secmem.h"
#include "base/text.h"
#include "local.h"

static void role_clear(struct aws_role *role)
{
    free(role->arn);
    free(role->external_id);
    free(role->session_name);
    *role = (struct aws_role){0};
}

void aws_plan_clear(struct aws_plan *plan)
{
    credentials_unref(plan->keys);
    free(plan->token_file);
    role_clear(&plan->web_role);
    free(plan->container_url);
    buffer_clear(&plan->container_token);
    for (size_t i = 0; i < plan->role_count; i++)
        role_clear(&plan->roles[i]);
    *plan = (struct aws_plan){0};
}

static bool is_printable(const char *text)
{
    for (; *text; text++)
        if (*text <= ' ' || *text >= 0x7f)
            return false;
    return true;
}

envelope_status aws_credentials_make(const char *id, const char *secret, const char *token, int64_t expires,
                                     const char *source, struct credentials **made)
{
    if (!is_printable(id) || !is_printable(secret) || (token && !is_printable(token)))
        return error_raise(ENVELOPE_E_HSM_LOGIN,
                           "the credentials from %s hold blanks, control characters or letters beyond ASCII", source);
    *made = credentials_new(id, secret, token, expires);
    if (!*made)
        return ENVELOPE_E_NO_MEMORY;
    credentials_set_source(*made, source);
    return ENVELOPE_OK;
}

static envelope_status use_keys(struct aws_plan *plan, const char *id, const char *secret, const char *token,
                                const char *source)
{
    plan->origin = AWS_FROM_KEYS;
    return aws_credentials_make(id, secret, token, 0, source, &plan->keys);
}

static envelope_status from_pin(const char *pin, struct aws_plan *plan)
{
    struct buffer copy = {0};
    buffer_append_text(&copy, pin);
    char *id = (char *)copy.bytes;
    char *secret = id ? strchr(id, ':') : NULL;
    envelope_status status;
    if (!secret || secret == id || !secret[1]) {
        status = error_raise(ENVELOPE_E_HSM_LOGIN, "the PIN of an aws-kms token is ACCESS-KEY-ID:SECRET-ACCESS-KEY or "
                                                   "ACCESS-KEY-ID:SECRET-ACCESS-KEY:SESSION-TOKEN, or empty");
    } else {
        *secret++ = '\0';
        char *token = strchr(secret, ':');
        if (token)
            *token++ = '\0';
        status = use_keys(plan, id, secret, token, "C_Login");
    }
    buffer_clear(&copy);
    return status;
}

static envelope_status copy_role(struct aws_role *role, const char *arn, const char *external_id,
                                 const char *session_name)
{
    *role =
        (struct aws_role){.arn = text_copy(arn), .session_name = text_copy(session_name ? session_name : "envelope")};
    if (external_id)
        role->external_id = text_copy(external_id);
    return role->arn && role->session_name && (!external_id || role->external_id) ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

/* One of them alone is a mistake to be told of, not a reason to look elsewhere and find another identity. */
static bool has_keys(void)
{
    return local_env("AWS_ACCESS_KEY_ID") || local_env("AWS_SECRET_ACCESS_KEY");
}

static envelope_status from_environment(struct aws_plan *plan)
{
    if (!local_env("AWS_ACCESS_KEY_ID") || !local_env("AWS_SECRET_ACCESS_KEY"))
        return error_raise(ENVELOPE_E_HSM_LOGIN, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set");
    return use_keys(plan, local_env("AWS_ACCESS_KEY_ID"), local_env("AWS_SECRET_ACCESS_KEY"),
                    local_env("AWS_SESSION_TOKEN"), "environment");
}

static envelope_status web_identity(struct aws_plan *plan, const char *file, const char *arn, const char *session_name)
{
    plan->origin = AWS_FROM_WEB_IDENTITY;
    plan->token_file = text_copy(file);
    if (!plan->token_file)
        return ENVELOPE_E_NO_MEMORY;
    return copy_role(&plan->web_role, arn, NULL, session_name);
}

/* AWS_ROLE_ARN alone says nothing. */
static bool has_web_identity(void)
{
    return local_env("AWS_WEB_IDENTITY_TOKEN_FILE");
}

static envelope_status from_web_identity(struct aws_plan *plan)
{
    if (!local_env("AWS_WEB_IDENTITY_TOKEN_FILE") || !local_env("AWS_ROLE_ARN"))
        return error_raise(ENVELOPE_E_HSM_LOGIN, "AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN are not both set");
    return web_identity(plan, local_env("AWS_WEB_IDENTITY_TOKEN_FILE"), local_env("AWS_ROLE_ARN"),
                        local_env("AWS_ROLE_SESSION_NAME"));
}

/* As the SDKs: https anywhere, http only to this machine and the ECS and EKS agents. */
static bool is_container_host(const char *url)
{
    static const char *const hosts[] = {"http://169.254.170.2", "http://169.254.170.23", "http://[fd00:ec2::23]",
                                        "http://127.0.0.1",     "http://localhost",      "http://[::1]"};
    if (strncmp(url, "https://", 8) == 0)
        return true;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        size_t length = strlen(hosts[i]);
        if (strncmp(url, hosts[i], length) != 0)
            continue;
        const char *rest = url + length;
        if (*rest == ':')
            rest += 1 + strspn(rest + 1, "0123456789"); /* a port, not the user name of another host */
        if (*rest == '/' || *rest == '?' || !*rest)
            return true;
    }
    return false;
}

static bool has_container(void)
{
    return local_env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") || local_env("AWS_CONTAINER_CREDENTIALS_FULL_URI");
}

static envelope_status from_container(struct aws_plan *plan)
{
    const char *relative = local_env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = local_env("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    const char *token_file = local_env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *token = local_env("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    plan->origin = AWS_FROM_CONTAINER;
    if (!relative && !full)
        return error_raise(ENVELOPE_E_HSM_LOGIN, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or …_FULL_URI is not set");
    plan->container_url = relative ? text_format("http://169.254.170.2%s", relative) : text_copy(full);
    if (!plan->container_url)
        return ENVELOPE_E_NO_MEMORY;
    if (!is_container_host(plan->container_url))
        return error_raise(ENVELOPE_E_CONFIG, "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or on this machine");
    if (token_file)
        return local_read_line(token_file, &plan->container_token);
    if (token)
        buffer_append_text(&plan->container_token, token);
    return buffer_ok(&plan->container_token) ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

static envelope_status from_source(const char *source, struct aws_plan *plan)
{
    if (strcmp(source, "Environment") == 0)
        return from_environment(plan);
    if (strcmp(source, "EcsContainer") == 0)
        return from_container(plan);
    if (strcmp(source, "Ec2InstanceMetadata") == 0) {
        plan->origin = AWS_FROM_INSTANCE;
        return ENVELOPE_OK;
    }
    return error_raise(ENVELOPE_E_CONFIG,
                       "credential_source is none of Environment, EcsContainer, Ec2InstanceMetadata");
}

/* What one profile says; *next is the profile its role is assumed with, if there is one. */
static envelope_status from_one_profile(struct aws_profile *profile, const char *name, bool inner,
                                        struct aws_plan *plan, char **next)
{
    bool keys = profile->id.length && profile->secret.length;
    bool own_keys = keys && profile->source_profile && strcmp(profile->source_profile, name) == 0;
    if (profile->role_arn && profile->mfa)
        return error_raise(
            ENVELOPE_E_CONFIG,
            "profile \"%s\": mfa_serial is not supported here, since nobody can be asked for a code; use "
            "a role that wants none",
            name);
    if (profile->role_arn && profile->web_identity_file)
        return web_identity(plan, profile->web_identity_file, profile->role_arn, profile->session_name);
    /* A profile that is a source of itself, or is used by another and has keys: its keys, not its role. */
    if (profile->role_arn && !(inner && keys)) {
        if (plan->role_count == AWS_ROLES_MAX)
            return error_raise(ENVELOPE_E_CONFIG, "profile \"%s\": over %d roles in a row, or a circle", name,
                               (int)AWS_ROLES_MAX);
        struct aws_role *role = &plan->roles[plan->role_count++];
        envelope_status status = copy_role(role, profile->role_arn, profile->external_id, profile->session_name);
        if (status)
            return status;
        if (profile->credential_source)
            return from_source(profile->credential_source, plan);
        if (!profile->source_profile)
            return error_raise(ENVELOPE_E_CONFIG,
                               "profile \"%s\" has role_arn, but neither source_profile nor "
                               "credential_source",
                               name);
        if (!own_keys)
            return (*next = text_copy(profile->source_profile)) ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
    }
    if (keys)
        return use_keys(plan, buffer_text(&profile->id), buffer_text(&profile->secret), buffer_text(&profile->token),
                        "profile");
    if (profile->id.length || profile->secret.length)
        return error_raise(ENVELOPE_E_HSM_LOGIN,
                           "profile \"%s\" holds one of aws_access_key_id and aws_secret_access_key without the other",
                           name);
    if (profile->unsupported)
        return error_raise(ENVELOPE_E_CONFIG,
                           "profile \"%s\": %s is not supported here; use keys, a role or a token file", name,
                           profile->unsupported);
    return error_raise(ENVELOPE_E_HSM_LOGIN, "profile \"%s\" %s", name,
                       profile->found ? "holds no credentials" : "is in neither ~/.aws/config nor ~/.aws/credentials");
}

static envelope_status from_profile(const char *name, struct aws_plan *plan)
{
    char *current = NULL;
    if (!name)
        name = local_env("AWS_PROFILE");
    current = text_copy(name ? name : "default");
    envelope_status status = current ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
    for (bool inner = false; !status && current; inner = true) {
        struct aws_profile profile;
        char *next = NULL;
        status = aws_profile_read(current, &profile);
        if (!status) {
            status = from_one_profile(&profile, current, inner, plan, &next);
            aws_profile_clear(&profile);
        }
        free(current);
        current = next;
    }
    free(current);
    return status;
}

static envelope_status profile_exists(const char *name, bool *exists)
{
    struct aws_profile profile;
    envelope_status status = aws_profile_read(name, &profile);
    if (status)
        return status;
    *exists = profile.role_arn || profile.id.length || profile.secret.length || profile.unsupported;
    aws_profile_clear(&profile);
    return ENVELOPE_OK;
}

static envelope_status from_wherever(const struct aws *aws, struct aws_plan *plan)
{
    const char *name = aws->settings->profile;
    bool named = name || local_env("AWS_PROFILE");
    if (!name && has_keys())
        return from_environment(plan);
    if (!named && has_web_identity())
        return from_web_identity(plan);
    bool exists = false;
    envelope_status status = profile_exists(name, &exists);
    if (status)
        return status;
    if (named || exists)
        return from_profile(name, plan);
    if (has_container())
        return from_container(plan);
    if (aws_env_true("AWS_EC2_METADATA_DISABLED"))
        return error_raise(ENVELOPE_E_HSM_LOGIN, "no AWS credentials: none in the environment, in a profile, of a web "
                                                 "identity or of a container, and instance metadata is disabled");
    plan->origin = AWS_FROM_INSTANCE;
    return ENVELOPE_OK;
}

static envelope_status choose(const struct aws *aws, const char *pin, struct aws_plan *plan)
{
    if (pin && *pin)
        return from_pin(pin, plan);
    switch ((enum aws_source)aws->settings->credentials) {
    case AWS_SOURCE_ENVIRONMENT:
        return from_environment(plan);
    case AWS_SOURCE_PROFILE:
        return from_profile(aws->settings->profile, plan);
    case AWS_SOURCE_WEB_IDENTITY:
        return from_web_identity(plan);
    case AWS_SOURCE_CONTAINER:
        return from_container(plan);
    case AWS_SOURCE_INSTANCE:
        plan->origin = AWS_FROM_INSTANCE;
        return ENVELOPE_OK;
    case AWS_SOURCE_AUTO:
        break;
    }
    return from_wherever(aws, plan);
}

envelope_status aws_plan_make(const struct aws *aws, const char *pin, struct aws_plan *plan)
{
    *plan = (struct aws_plan){0};
    envelope_status status = choose(aws, pin, plan);
    if (status)
        aws_plan_clear(plan);
    return status;
}
