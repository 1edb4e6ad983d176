#include "aws.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/error.h"
#include "base/secmem.h"
#include "base/text.h"
#include "local.h"

enum file_kind { FILE_CONFIG, FILE_CREDENTIALS };

/* A line of the file, in place: from..to without blanks around. */
struct span {
    const char *from;
    size_t length;
};

static struct span trimmed(const char *from, size_t length)
{
    while (length && strchr(" \t\r", *from)) {
        from++;
        length--;
    }
    while (length && strchr(" \t\r", from[length - 1]))
        length--;
    return (struct span){from, length};
}

static bool equals(struct span span, const char *text)
{
    return strlen(text) == span.length && memcmp(span.from, text, span.length) == 0;
}

/* Names of settings are read in any case. */
static bool is_named(struct span span, const char *name)
{
    return strlen(name) == span.length && strncasecmp(span.from, name, span.length) == 0;
}

/* The CLI writes names with blanks in quotes. */
static struct span unquoted(struct span span)
{
    if (span.length >= 2 && strchr("\"'", *span.from) && span.from[span.length - 1] == *span.from)
        return (struct span){span.from + 1, span.length - 2};
    return span;
}

/* "[profile NAME]" in config ("[default]" too), "[NAME]" in credentials. */
static bool names_profile(struct span header, enum file_kind kind, const char *name)
{
    struct span inner = trimmed(header.from + 1, header.length - 2);
    if (kind == FILE_CREDENTIALS || strcmp(name, "default") == 0)
        if (equals(unquoted(inner), name))
            return true;
    if (kind == FILE_CREDENTIALS || inner.length < 9 || memcmp(inner.from, "profile", 7) != 0 ||
        !strchr(" \t", inner.from[7]))
        return false;
    return equals(unquoted(trimmed(inner.from + 7, inner.length - 7)), name);
}

static envelope_status keep_text(char **member, struct span value)
{
    free(*member);
    *member = strndup(value.from, value.length);
    return *member ? ENVELOPE_OK : error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a profile");
}

static envelope_status keep_secret(struct buffer *member, struct span value)
{
    buffer_reset(member);
    buffer_append(member, value.from, value.length);
    return buffer_ok(member) ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

static envelope_status take_setting(struct aws_profile *profile, struct span name, struct span value)
{
    struct buffer *secrets[] = {&profile->id, &profile->secret, &profile->token};
    static const char *const secret_names[] = {"aws_access_key_id", "aws_secret_access_key", "aws_session_token"};
    for (size_t i = 0; i < 3; i++)
        if (is_named(name, secret_names[i]))
            return keep_secret(secrets[i], value);
    const struct {
        const char *name;
        char **member;
    } texts[] = {{"role_arn", &profile->role_arn},
                 {"source_profile", &profile->source_profile},
                 {"credential_source", &profile->credential_source},
                 {"external_id", &profile->external_id},
                 {"role_session_name", &profile->session_name},
                 {"web_identity_token_file", &profile->web_identity_file},
                 {"region", &profile->region},
                 {"endpoint_url", &profile->endpoint_url},
                 {"ca_bundle", &profile->ca_bundle},
                 {"use_fips_endpoint", &profile->fips},
                 {"use_dualstack_endpoint", &profile->dualstack},
                 {"mfa_serial", &profile->mfa}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (is_named(name, texts[i].name))
            return value.length ? keep_text(texts[i].member, value) : ENVELOPE_OK;
    static const char *const unsupported[] = {"credential_process", "sso_session", "sso_start_url", "login_session"};
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++)
        if (is_named(name, unsupported[i]))
            return keep_text(&profile->unsupported, name);
    return ENVELOPE_OK;
}

static envelope_status parse(const char *text, const char *path, enum file_kind kind, const char *name,
                             struct aws_profile *profile)
{
    bool inside = false;
    unsigned number = 0;
    for (const char *line = text; *line;) {
        size_t length = strcspn(line, "\n");
        bool nested = *line == ' ' || *line == '\t'; /* a sub-setting of the line before: none that we need */
        struct span span = trimmed(line, length);
        number++;
        line += length + (line[length] ? 1 : 0);
        if (!span.length || *span.from == '#' || *span.from == ';')
            continue;
        if (*span.from == '[') {
            const char *close = memchr(span.from, ']', span.length);
            if (!close)
                return error_raise(ENVELOPE_E_CONFIG, "\"%s\", line %u: a section without ]", path, number);
            span.length = (size_t)(close - span.from) + 1;
            inside = names_profile(span, kind, name);
            profile->found |= inside;
            continue;
        }
        const char *equal = memchr(span.from, '=', span.length);
        if (!inside || nested)
            continue;
        if (!equal)
            return error_raise(ENVELOPE_E_CONFIG, "\"%s\", line %u: a setting without =", path, number);
        struct span key = trimmed(span.from, (size_t)(equal - span.from));
        struct span value = trimmed(equal + 1, span.length - (size_t)(equal + 1 - span.from));
        envelope_status status = take_setting(profile, key, value);
        if (status)
            return status;
    }
    return ENVELOPE_OK;
}

static envelope_status read_file(const char *variable, const char *standard, enum file_kind kind, const char *name,
                                 struct aws_profile *profile)
{
    const char *given = local_env(variable), *home = local_env("HOME");
    bool in_home = given && home && strncmp(given, "~/", 2) == 0; /* a service manager expands no ~ */
    char *path = in_home ? text_format("%s%s", home, given + 1)
                 : given ? text_copy(given)
                 : home  ? text_format("%s/.aws/%s", home, standard)
                         : NULL;
    if (!path)
        return given || home ? ENVELOPE_E_NO_MEMORY : ENVELOPE_OK;
    envelope_status status = ENVELOPE_OK;
    /* A home directory that is closed to us, as a service manager may see to, has no files for us. */
    bool absent = access(path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR || (errno == EACCES && !given));
    if (!absent) {
        struct buffer contents = {0};
        status = local_read(path, &contents);
        if (!status)
            status = parse(buffer_text(&contents), path, kind, name, profile);
        buffer_clear(&contents);
    }
    free(path);
    return status;
}

envelope_status aws_profile_read(const char *name, struct aws_profile *profile)
{
    *profile = (struct aws_profile){0};
    if (!name)
        name = local_env("AWS_PROFILE");
    if (!name)
        name = "default";
    envelope_status status = read_file("AWS_CONFIG_FILE", "config", FILE_CONFIG, name, profile);
    /* Read second: what stands in credentials wins. */
    if (!status)
        status = read_file("AWS_SHARED_CREDENTIALS_FILE", "credentials", FILE_CREDENTIALS, name, profile);
    if (status)
        aws_profile_clear(profile);
    return status;
}

void aws_profile_clear(struct aws_profile *profile)
{
    buffer_clear(&profile->id);
    buffer_clear(&profile->secret);
    buffer_clear(&profile->token);
    free(profile->role_arn);
    free(profile->source_profile);
    free(profile->credential_source);
    free(profile->external_id);
    free(profile->session_name);
    free(profile->web_identity_file);
    free(profile->region);
    free(profile->endpoint_url);
    free(profile->ca_bundle);
    free(profile->fips);
    free(profile->dualstack);
    free(profile->mfa);
    free(profile->unsupported);
    *profile = (struct aws_profile){0};
}
