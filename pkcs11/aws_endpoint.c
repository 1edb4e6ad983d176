#include "aws.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/text.h"
#include "local.h"
#include "web.h"

const char *const aws_source_names[] = {"auto",      "environment", "profile", "web-identity",
                                        "container", "instance",    NULL};

static bool is_true(const char *value)
{
    return value && strcasecmp(value, "true") == 0;
}

bool aws_env_true(const char *variable)
{
    return is_true(local_env(variable));
}

/* A switch of the environment goes before the profile's. */
static bool is_on(const char *variable, const char *in_profile)
{
    const char *value = local_env(variable);
    return is_true(value ? value : in_profile);
}

/* The region: the setting, the environment, the profile. */
static envelope_status find_region(const struct token_settings *settings, const struct aws_profile *profile,
                                   char **region)
{
    const char *name = settings->region;
    if (!name)
        name = local_env("AWS_REGION");
    if (!name)
        name = local_env("AWS_DEFAULT_REGION");
    if (!name)
        name = profile->region;
    if (!name)
        return error_raise(ENVELOPE_E_CONFIG, "[token %s]: region is missing; set it here or in AWS_REGION",
                           settings->label);
    if (name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")] || strlen(name) > 40)
        return error_raise(ENVELOPE_E_CONFIG, "[token %s]: region is not the name of a region", settings->label);
    *region = text_copy(name);
    return *region ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

/* Regions whose names begin like this are of a partition with domains of its own; the last is all others'. */
static const struct partition {
    const char *regions, *domain;
    const char *dualstack; /* NULL: the partition has no such endpoints */
} partitions[] = {{"cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"},
                  {"eusc-", "amazonaws.eu", "api.amazonwebservices.eu"},
                  {"us-iso-", "c2s.ic.gov", NULL},
                  {"us-isob-", "sc2s.sgov.gov", NULL},
                  {"us-isof-", "csp.hci.ic.gov", NULL},
                  {"eu-isoe-", "cloud.adc-e.uk", NULL},
                  {"", "amazonaws.com", "api.aws"}};

static const struct partition *partition_of(const char *region)
{
    const struct partition *partition = partitions;
    while (strncmp(region, partition->regions, strlen(partition->regions)) != 0)
        partition++;
    return partition;
}

static envelope_status service_endpoint(const struct aws *aws, const struct aws_profile *profile, const char *service,
                                        char **endpoint)
{
    const struct partition *partition = partition_of(aws->region);
    bool fips = aws->settings->fips || is_on("AWS_USE_FIPS_ENDPOINT", profile->fips);
    bool dualstack = is_on("AWS_USE_DUALSTACK_ENDPOINT", profile->dualstack);
    if (dualstack && !partition->dualstack)
        return error_raise(ENVELOPE_E_CONFIG,
                           "[token %s]: region %s has no dual-stack endpoints (AWS_USE_DUALSTACK_ENDPOINT, or the "
                           "profile's use_dualstack_endpoint)",
                           aws->settings->label, aws->region);
    /* GovCloud's STS is FIPS by its plain name, and has no other. */
    if (strcmp(service, "sts") == 0 && strncmp(aws->region, "us-gov-", 7) == 0 && !dualstack)
        fips = false;
    *endpoint = text_format("https://%s%s.%s.%s", service, fips ? "-fips" : "", aws->region,
                            dualstack ? partition->dualstack : partition->domain);
    return *endpoint ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

/* configured, else the service's own variable, the general one, the profile's, the region's. */
static envelope_status choose_endpoint(const struct aws *aws, const struct aws_profile *profile, const char *what,
                                       const char *configured, const char *variable, const char *service,
                                       char **endpoint)
{
    const char *const names[] = {what, variable, "AWS_ENDPOINT_URL", "the profile's endpoint_url"};
    const char *const urls[] = {configured, local_env(variable), local_env("AWS_ENDPOINT_URL"), profile->endpoint_url};
    size_t count = aws_env_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") ? 1 : sizeof urls / sizeof urls[0];
    for (size_t i = 0; i < count; i++)
        if (urls[i])
            return web_copy_endpoint(aws->settings, names[i], urls[i], endpoint);
    return service_endpoint(aws, profile, service, endpoint);
}

/* For those who gave no ca-file in kms.cnf. */
static envelope_status choose_ca_file(struct aws *aws, const struct aws_profile *profile)
{
    const char *path = local_env("AWS_CA_BUNDLE");
    if (!path)
        path = profile->ca_bundle;
    aws->ca_file = path ? text_copy(path) : NULL;
    return path && !aws->ca_file ? ENVELOPE_E_NO_MEMORY : ENVELOPE_OK;
}

/* IMDS speaks plain HTTP on its link-local address and nowhere else. */
static envelope_status choose_imds(struct aws *aws)
{
    static const char four[] = "http://169.254.169.254", six[] = "http://[fd00:ec2::254]";
    const char *url = aws->settings->imds_endpoint, *mode = local_env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
    const char *name = "imds-endpoint";
    if (!url) {
        url = local_env("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        name = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    }
    if (!url)
        url = mode && strcasecmp(mode, "IPv6") == 0 ? six : four;
    envelope_status status = web_copy_endpoint(aws->settings, name, url, &aws->imds_endpoint);
    if (aws->imds_endpoint && (strcmp(aws->imds_endpoint, four) == 0 || strcmp(aws->imds_endpoint, six) == 0)) {
        error_clear();
        return ENVELOPE_OK;
    }
    return status;
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
    struct aws_profile profile;
    status = aws_profile_read(settings->profile, &profile);
    if (!status)
        status = find_region(settings, &profile, &aws->region);
    if (!status)
        status = choose_endpoint(aws, &profile, "endpoint", settings->endpoint, "AWS_ENDPOINT_URL_KMS", "kms",
                                 &aws->endpoint);
    if (!status)
        status = choose_endpoint(aws, &profile, "sts-endpoint", settings->sts_endpoint, "AWS_ENDPOINT_URL_STS", "sts",
                                 &aws->sts_endpoint);
    if (!status)
        status = choose_ca_file(aws, &profile);
    if (!status)
        status = choose_imds(aws);
    aws_profile_clear(&profile);
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
    free(aws->ca_file);
    free(aws);
}
