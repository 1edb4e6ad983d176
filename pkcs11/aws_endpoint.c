#include "aws.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "local.h"
#include "web.h"

const char *const aws_source_names[] = {"auto",      "environment", "profile", "web-identity",
                                        "container", "instance",    NULL};

/* The region: the setting, the environment, the profile. */
static envelope_status find_region(const struct token_settings *settings, char **region)
{
    struct aws_profile profile = {0};
    const char *name = settings->region;
    if (!name)
        name = local_env("AWS_REGION");
    if (!name)
        name = local_env("AWS_DEFAULT_REGION");
    if (!name) {
        envelope_status status = aws_profile_read(settings->profile, &profile);
        if (status)
            return status;
        name = profile.region;
    }
    envelope_status status = ENVELOPE_OK;
    if (!name)
        status = error_raise(ENVELOPE_E_CONFIG, "[token %s]: region is missing; set it here or in AWS_REGION",
                             settings->label);
    else if (name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")] || strlen(name) > 40)
        status = error_raise(ENVELOPE_E_CONFIG, "[token %s]: region is not the name of a region", settings->label);
    else if (!(*region = text_copy(name)))
        status = ENVELOPE_E_NO_MEMORY;
    aws_profile_clear(&profile);
    return status;
}

/* Regions whose names begin like this are of a partition with a domain of its own. */
static const char *domain_of(const char *region)
{
    static const struct {
        const char *regions, *domain;
    } partitions[] = {{"cn-", "amazonaws.com.cn"},   {"eusc-", "amazonaws.eu"},      {"us-iso-", "c2s.ic.gov"},
                      {"us-isob-", "sc2s.sgov.gov"}, {"us-isof-", "csp.hci.ic.gov"}, {"eu-isoe-", "cloud.adc-e.uk"}};
    for (size_t i = 0; i < sizeof partitions / sizeof partitions[0]; i++)
        if (strncmp(region, partitions[i].regions, strlen(partitions[i].regions)) == 0)
            return partitions[i].domain;
    return "amazonaws.com";
}

static char *service_endpoint(const struct aws *aws, const char *service)
{
    const char *variable = local_env("AWS_USE_FIPS_ENDPOINT");
    bool fips = aws->settings->fips || (variable && strcmp(variable, "true") == 0);
    /* GovCloud's STS is FIPS by its plain name, and has no other. */
    if (strcmp(service, "sts") == 0 && strncmp(aws->region, "us-gov-", 7) == 0)
        fips = false;
    return text_format("https://%s%s.%s.%s", service, fips ? "-fips" : "", aws->region, domain_of(aws->region));
}

/* configured, else the service's own variable, else the general one, else the region's. */
static envelope_status choose_endpoint(const struct aws *aws, const char *what, const char *configured,
                                       const char *variable, const char *service, char **endpoint)
{
    const char *url = configured ? configured : local_env(variable);
    if (!url)
        url = local_env("AWS_ENDPOINT_URL");
    *endpoint = url ? text_copy(url) : service_endpoint(aws, service);
    if (!*endpoint)
        return ENVELOPE_E_NO_MEMORY;
    size_t length = strlen(*endpoint);
    if (length && (*endpoint)[length - 1] == '/')
        (*endpoint)[length - 1] = '\0';
    return web_check_endpoint(aws->settings, configured ? what : variable, *endpoint);
}

/* IMDS speaks plain HTTP on its link-local address and nowhere else. */
static envelope_status choose_imds(struct aws *aws)
{
    const char *url = aws->settings->imds_endpoint;
    if (!url)
        url = local_env("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    if (!url)
        url = "http://169.254.169.254";
    aws->imds_endpoint = text_copy(url);
    if (!aws->imds_endpoint)
        return ENVELOPE_E_NO_MEMORY;
    size_t length = strlen(aws->imds_endpoint);
    if (length && aws->imds_endpoint[length - 1] == '/')
        aws->imds_endpoint[length - 1] = '\0';
    if (strcmp(aws->imds_endpoint, "http://169.254.169.254") == 0 ||
        strcmp(aws->imds_endpoint, "http://[fd00:ec2::254]") == 0)
        return ENVELOPE_OK;
    return web_check_endpoint(aws->settings, "imds-endpoint", aws->imds_endpoint);
}

static envelope_status refuse_foreign(const struct token_settings *settings)
{
    const struct {
        const char *name, *value;
    } foreign[] = {{"address", settings->address},
                   {"mount", settings->mount},
                   {"namespace", settings->name_space},
                   {"auth", settings->auth},
                   {"auth-mount", settings->auth_mount},
                   {"token-file", settings->token_file},
                   {"role", settings->role},
                   {"role-id-file", settings->role_id_file},
                   {"secret-id-file", settings->secret_id_file},
                   {"jwt-file", settings->jwt_file}};
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        if (foreign[i].value)
            return error_raise(ENVELOPE_E_CONFIG, "[token %s]: %s means nothing to backend = aws-kms", settings->label,
                               foreign[i].name);
    return ENVELOPE_OK;
}

envelope_status aws_open(const struct token_settings *settings, void **state)
{
    envelope_status status = refuse_foreign(settings);
    if (status)
        return status;
    struct aws *aws = calloc(1, sizeof *aws);
    if (!aws)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for token %s", settings->label);
    aws->settings = settings;
    status = find_region(settings, &aws->region);
    if (!status)
        status = choose_endpoint(aws, "endpoint", settings->endpoint, "AWS_ENDPOINT_URL_KMS", "kms", &aws->endpoint);
    if (!status)
        status = choose_endpoint(aws, "sts-endpoint", settings->sts_endpoint, "AWS_ENDPOINT_URL_STS", "sts",
                                 &aws->sts_endpoint);
    if (!status)
        status = choose_imds(aws);
    if (status) {
        aws_close(aws);
        return status;
    }
    *state = aws;
    return ENVELOPE_OK;
}

void aws_close(void *state)
{
    struct aws *aws = state;
    free(aws->region);
    free(aws->endpoint);
    free(aws->sts_endpoint);
    free(aws->imds_endpoint);
    free(aws);
}
