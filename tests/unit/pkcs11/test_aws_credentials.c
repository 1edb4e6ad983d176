/* Every source of credentials, as an operator meets it: what is asked, what the answers mean. No network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "aws.h"
#include "aws_plan.h"
#include "backends.h"
#include "base/clock.h"
#include "base/error.h"

static char directory[64];

struct rig {
    struct token_settings settings;
    void *state;
    struct http_request request;
    struct backend_call call;
};

static int64_t stopped_clock(void)
{
    return 1795413600 * CLOCK_SECOND; /* 2026-11-23 06:00:00 UTC */
}

static void forget_aws(void)
{
    static const char *const names[] = {"AWS_ACCESS_KEY_ID",
                                        "AWS_SECRET_ACCESS_KEY",
                                        "AWS_SESSION_TOKEN",
                                        "AWS_PROFILE",
                                        "AWS_REGION",
                                        "AWS_DEFAULT_REGION",
                                        "AWS_ROLE_ARN",
                                        "AWS_WEB_IDENTITY_TOKEN_FILE",
                                        "AWS_ROLE_SESSION_NAME",
                                        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                                        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
                                        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                                        "AWS_EC2_METADATA_DISABLED",
                                        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                                        "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
                                        "AWS_ENDPOINT_URL",
                                        "AWS_ENDPOINT_URL_KMS",
                                        "AWS_ENDPOINT_URL_STS",
                                        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
                                        "AWS_USE_FIPS_ENDPOINT",
                                        "AWS_USE_DUALSTACK_ENDPOINT",
                                        "AWS_CA_BUNDLE"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    setenv("AWS_CONFIG_FILE", "config", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "credentials", 1);
}

static int set_up(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    forget_aws();
    snprintf(directory, sizeof directory, "/tmp/envelope-credentials.XXXXXX");
    if (!mkdtemp(directory) || chdir(directory) != 0)
        return 1;
    rig->settings = (struct token_settings){.label = (char *)"t", .region = (char *)"eu-west-1"};
    clock_set_source(stopped_clock);
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    clock_set_source(NULL);
    http_request_clear(&rig->request);
    backend_call_clear(&rig->call);
    if (rig->state)
        aws_backend.close(rig->state);
    free(rig);
    unlink("config");
    unlink("credentials");
    unlink("jwt");
    unlink("token");
    return chdir("/") == 0 && rmdir(directory) == 0 ? 0 : 1;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static enum backend_step begin(struct rig *rig)
{
    backend_call_clear(&rig->call);
    http_request_clear(&rig->request);
    if (rig->state)
        aws_backend.close(rig->state);
    rig->state = NULL;
    error_clear();
    assert_int_equal(aws_backend.open(&rig->settings, &rig->state), ENVELOPE_OK);
    rig->call = (struct backend_call){.op = BACKEND_AUTHENTICATE, .pin = ""};
    return aws_backend.step(rig->state, &rig->call, NULL, &rig->request);
}

static enum backend_step answer(struct rig *rig, long status, const char *body)
{
    struct http_reply reply = {.status = status};
    buffer_append_text(&reply.body, body);
    enum backend_step step = aws_backend.step(rig->state, &rig->call, &reply, &rig->request);
    http_reply_clear(&reply);
    return step;
}

static enum backend_step unanswered(struct rig *rig, enum http_transport transport)
{
    struct http_reply reply = {.transport = transport};
    return aws_backend.step(rig->state, &rig->call, &reply, &rig->request);
}

static bool has_header(const struct rig *rig, const char *wanted)
{
    const char *line = buffer_text(&rig->request.headers), *end = line + rig->request.headers.length;
    while (line < end && strcmp(line, wanted) != 0)
        line += strlen(line) + 1;
    return line < end;
}

static void assert_fails(struct rig *rig, enum backend_step step, const char *said)
{
    assert_int_equal(step, BACKEND_FAILED);
    assert_int_equal(rig->call.rv, CKR_USER_NOT_LOGGED_IN);
    if (!strstr(error_text(), said))
        fail_msg("\"%s\" does not say \"%s\"", error_text(), said);
}

#define KEYS "\"AccessKeyId\":\"ASIAX\",\"SecretAccessKey\":\"secret\",\"Token\":\"token\""

/* --- instance metadata --- */

static void the_second_version_of_instance_metadata_is_asked_and_no_proxy_sees_it(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_string_equal(rig->request.url, "http://169.254.169.254/latest/api/token");
    assert_int_equal(rig->request.method, HTTP_PUT);
    assert_true(has_header(rig, "X-aws-ec2-metadata-token-ttl-seconds: 21600"));
    assert_true(rig->request.direct);
    assert_true(rig->request.timeout > 0 && rig->request.timeout <= CLOCK_SECOND);
    assert_int_equal(answer(rig, 200, "SESSION=="), BACKEND_SEND);
    assert_true(has_header(rig, "X-aws-ec2-metadata-token: SESSION=="));
    assert_true(rig->request.direct);
    assert_int_equal(answer(rig, 200, "role-of-mine\n"), BACKEND_SEND);
    assert_string_equal(rig->request.url,
                        "http://169.254.169.254/latest/meta-data/iam/security-credentials/role-of-mine");
    assert_true(rig->request.direct);
    assert_int_equal(answer(rig, 200, "{\"Code\":\"Success\"," KEYS ",\"Expiration\":\"2026-11-23T07:00:00Z\"}"),
                     BACKEND_DONE);
    assert_string_equal(credentials_id(rig->call.made), "ASIAX");
    assert_string_equal(credentials_token(rig->call.made), "token");
    assert_int_equal(credentials_expires(rig->call.made), stopped_clock() + 3600 * CLOCK_SECOND);
}

/* AWS asks for this, so that an outage of instance metadata is none of KMS. */
static void stale_credentials_of_instance_metadata_are_tried_all_the_same(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_int_equal(answer(rig, 200, "SESSION"), BACKEND_SEND);
    assert_int_equal(unanswered(rig, HTTP_TIMED_OUT), BACKEND_RETRY); /* it has answered before */
    assert_int_equal(answer(rig, 200, "role"), BACKEND_SEND);
    assert_int_equal(unanswered(rig, HTTP_CUT), BACKEND_RETRY);
    assert_int_equal(answer(rig, 200, "{\"Code\":\"Success\"," KEYS ",\"Expiration\":\"2026-11-23T05:00:00Z\"}"),
                     BACKEND_DONE);
    assert_int_equal(credentials_expires(rig->call.made), stopped_clock() + 600 * CLOCK_SECOND);
    setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x", 1);
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_int_equal(answer(rig, 200, "{" KEYS ",\"Expiration\":\"2026-11-23T05:00:00Z\"}"), BACKEND_DONE);
    assert_int_equal(credentials_expires(rig->call.made), stopped_clock() - 3600 * CLOCK_SECOND);
}

/* Where version 2 is not to be had there are no credentials: version 1 answers whoever can make a program fetch a URL.
 */
static void the_first_version_of_instance_metadata_is_never_asked(void **state)
{
    static const struct {
        long status;
        const char *said;
    } rows[] = {{403, "is switched off"}, {404, "gives no session token"}, {400, "gives no session token"}};
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(begin(rig), BACKEND_SEND);
        assert_fails(rig, answer(rig, rows[i].status, ""), rows[i].said);
    }
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_fails(rig, answer(rig, 200, ""), "gave no session token");
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_fails(rig, unanswered(rig, HTTP_TIMED_OUT), "hop limit");
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_fails(rig, unanswered(rig, HTTP_UNREACHABLE), "is not reachable");
}

static void what_instance_metadata_says_of_a_role_is_told(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_int_equal(answer(rig, 200, "SESSION"), BACKEND_SEND);
    assert_fails(rig, answer(rig, 404, ""), "has no role for this instance");
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_int_equal(answer(rig, 200, "SESSION"), BACKEND_SEND);
    assert_int_equal(answer(rig, 200, "role"), BACKEND_SEND);
    assert_fails(
        rig,
        answer(rig, 200, "{\"Code\":\"AssumeRoleUnauthorizedAccess\",\"Message\":\"EC2 cannot assume the role role\"}"),
        "AssumeRoleUnauthorizedAccess: EC2 cannot assume the role role");
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_int_equal(answer(rig, 503, ""), BACKEND_RETRY);
}

static void instance_metadata_has_an_address_of_version_six_too(void **state)
{
    struct rig *rig = *state;
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6", 1);
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_string_equal(rig->request.url, "http://[fd00:ec2::254]/latest/api/token");
    setenv("AWS_EC2_METADATA_DISABLED", "True", 1);
    assert_fails(rig, begin(rig), "instance metadata is disabled");
}

/* --- containers --- */

static void a_containers_agent_is_asked_with_its_token(void **state)
{
    struct rig *rig = *state;
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials", 1);
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "not this one", 1);
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "token", 1);
    write_file("token", "eks-pod-token\n");
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_string_equal(rig->request.url, "http://169.254.170.23/v1/credentials");
    assert_true(has_header(rig, "Authorization: eks-pod-token"));
    assert_true(rig->request.direct);
    assert_int_equal(answer(rig, 200, "{" KEYS ",\"Expiration\":\"2026-11-23T08:30:00.123+01:30\"}"), BACKEND_DONE);
    assert_int_equal(credentials_expires(rig->call.made), stopped_clock() + 3600 * CLOCK_SECOND);
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_fails(rig, answer(rig, 404, "{\"code\":\"NoSuchRole\",\"message\":\"no role\"}"), "NoSuchRole");
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_int_equal(answer(rig, 500, ""), BACKEND_RETRY);
    write_file("token", "two\nlines\n");
    assert_fails(rig, begin(rig), "more than one line");
}

static void a_port_is_not_a_way_to_another_host(void **state)
{
    static const char *const bad[] = {"http://169.254.170.2:80@evil.example/x", "http://localhost:80.evil.example/",
                                      "http://127.0.0.1:pw@evil.example/", "http://127.0.0.1\\@evil.example/"};
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", bad[i], 1);
        assert_fails(rig, begin(rig), "must be https, or on this machine");
    }
    setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ":80@evil.example/x", 1);
    assert_fails(rig, begin(rig), "must be https, or on this machine");
    setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x?id=1", 1);
    assert_int_equal(begin(rig), BACKEND_SEND);
}

/* What comes of a reply goes into headers. */
static void credentials_with_line_breaks_or_blanks_are_refused_and_not_shown(void **state)
{
    static const char *const bad[] = {
        "{\"AccessKeyId\":\"A\rInvented: x\",\"SecretAccessKey\":\"secret-s\",\"Token\":\"t\"}",
        "{\"AccessKeyId\":\"A B\",\"SecretAccessKey\":\"secret-s\",\"Token\":\"t\"}",
        "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"secret-s\xc3\xa9\",\"Token\":\"t\"}",
        "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"secret-s\",\"Token\":\"t\\u0020t\"}",
    };
    struct rig *rig = *state;
    setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x", 1);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(begin(rig), BACKEND_SEND);
        assert_fails(rig, answer(rig, 200, bad[i]), "container");
        assert_null(strstr(error_text(), "secret-s"));
        assert_null(rig->call.made);
    }
    setenv("AWS_ACCESS_KEY_ID", "A\nB", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "secret-s", 1);
    assert_fails(rig, begin(rig), "environment");
}

/* --- STS --- */

#define STS_CREDENTIALS                                                                                                \
    "<R><Credentials><AccessKeyId>ASIAX</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>"                        \
    "<SessionToken>one&amp;two</SessionToken><Expiration>2026-11-23T07:00:00Z</Expiration></Credentials></R>"

static void a_web_identity_is_exchanged_unsigned_with_its_token_read_anew(void **state)
{
    struct rig *rig = *state;
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "jwt", 1);
    setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r", 1);
    setenv("AWS_ROLE_SESSION_NAME", "pod", 1);
    for (int turn = 0; turn < 2; turn++) {
        write_file("jwt", turn ? "h.p2.s\n" : "h.p1.s");
        assert_int_equal(begin(rig), BACKEND_SEND);
        assert_string_equal(rig->request.url, "https://sts.eu-west-1.amazonaws.com/");
        assert_null(rig->request.signer);
        assert_string_equal(
            buffer_text(&rig->request.body),
            turn ? "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3A"
                   "role%2Fr&RoleSessionName=pod&WebIdentityToken=h.p2.s"
                 : "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3A"
                   "role%2Fr&RoleSessionName=pod&WebIdentityToken=h.p1.s");
        assert_int_equal(answer(rig, 200, STS_CREDENTIALS), BACKEND_DONE);
        assert_string_equal(credentials_token(rig->call.made), "one&two");
    }
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_int_equal(answer(rig, 400, "<E><Error><Code>IDPCommunicationError</Code></Error></E>"), BACKEND_RETRY);
    unsetenv("AWS_ROLE_ARN"); /* half of it is a mistake, not a reason to be somebody else */
    assert_fails(rig, begin(rig), "not both set");
}

static void roles_are_assumed_one_with_the_other(void **state)
{
    struct rig *rig = *state;
    write_file("credentials", "[base one]\naws_access_key_id = AKIA\naws_secret_access_key = s\n");
    rig->settings.profile = (char *)"app";
    write_file("config", "[profile app]\nrole_arn = arn:outer\nsource_profile = middle\nexternal_id = x y\n"
                         "[profile middle]\nRole_Arn = arn:inner\nsource_profile = base one\n"
                         "[profile \"base one\"]\nregion = us-east-1\n");
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_non_null(strstr(buffer_text(&rig->request.body), "RoleArn=arn%3Ainner"));
    assert_string_equal(credentials_id(rig->request.signer), "AKIA");
    assert_string_equal(rig->request.sign_service, "sts");
    assert_int_equal(answer(rig, 200, STS_CREDENTIALS), BACKEND_SEND);
    assert_non_null(strstr(buffer_text(&rig->request.body), "RoleArn=arn%3Aouter"));
    assert_non_null(strstr(buffer_text(&rig->request.body), "ExternalId=x%20y"));
    assert_string_equal(credentials_id(rig->request.signer), "ASIAX");
    assert_true(has_header(rig, "X-Amz-Security-Token: one&two"));
    assert_int_equal(answer(rig, 200, STS_CREDENTIALS), BACKEND_DONE);
    assert_string_equal(credentials_source(rig->call.made), "assumed role");
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_fails(rig, answer(rig, 403, "<E><Error><Code>AccessDenied</Code></Error></E>"), "AccessDenied");
}

/* --- what is not supported is said --- */

static void what_cannot_be_done_here_is_named(void **state)
{
    static const struct {
        const char *profile, *said;
    } rows[] = {
        {"credential_process = /bin/x", "credential_process is not supported"},
        {"sso_session = corp\nsso_account_id = 1", "sso_session is not supported"},
        {"sso_start_url = https://x", "sso_start_url is not supported"},
        {"login_session = arn:x", "login_session is not supported"},
        {"role_arn = arn:r\nsource_profile = base\nmfa_serial = arn:m", "mfa_serial is not supported"},
        {"role_arn = arn:r", "neither source_profile nor"},
        {"role_arn = arn:r\ncredential_source = Elsewhere", "credential_source is none of"},
        {"aws_access_key_id = AKIA", "without the other"},
        {"region = eu-west-1", "holds no credentials"},
    };
    struct rig *rig = *state;
    char text[256];
    rig->settings.profile = (char *)"app";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(text, sizeof text, "[profile app]\n%s\n[profile base]\naws_access_key_id=A\naws_secret_access_key=s\n",
                 rows[i].profile);
        write_file("config", text);
        assert_fails(rig, begin(rig), rows[i].said);
    }
}

static void half_a_key_in_the_environment_is_not_passed_over(void **state)
{
    struct rig *rig = *state;
    write_file("credentials", "[default]\naws_access_key_id = other\naws_secret_access_key = s\n");
    setenv("AWS_ACCESS_KEY_ID", "A", 1);
    assert_fails(rig, begin(rig), "not both set");
    unsetenv("AWS_ACCESS_KEY_ID");
    setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
    assert_fails(rig, begin(rig), "not both set");
    unsetenv("AWS_SECRET_ACCESS_KEY");
    assert_int_equal(begin(rig), BACKEND_DONE);
    assert_string_equal(credentials_id(rig->call.made), "other");
}

/* A service manager may close the home directory; a file that we are told to read is another matter. */
static void a_closed_home_directory_has_no_profiles(void **state)
{
    struct rig *rig = *state;
    if (geteuid() == 0) {
        /* Nothing is closed to root. */
        assert_int_equal(setenv("HOME", "/nonexistent", 1), 0);
    } else {
        assert_int_equal(mkdir("home", 0), 0);
        assert_int_equal(setenv("HOME", "home", 1), 0);
    }
    unsetenv("AWS_CONFIG_FILE");
    unsetenv("AWS_SHARED_CREDENTIALS_FILE");
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_string_equal(rig->request.url, "http://169.254.169.254/latest/api/token");
    rmdir("home");
}

static void a_path_in_the_home_directory_may_begin_with_a_tilde(void **state)
{
    struct rig *rig = *state;
    setenv("HOME", directory, 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "~/credentials", 1);
    write_file("credentials", "[default]\naws_access_key_id = mine\naws_secret_access_key = s\n");
    assert_int_equal(begin(rig), BACKEND_DONE);
    assert_string_equal(credentials_id(rig->call.made), "mine");
}

/* --- where it goes --- */

static void assert_endpoints(struct rig *rig, const char *kms, const char *sts)
{
    void *opened = NULL;
    assert_int_equal(aws_backend.open(&rig->settings, &opened), ENVELOPE_OK);
    const struct aws *aws = opened;
    assert_string_equal(aws->endpoint, kms);
    assert_string_equal(aws->sts_endpoint, sts);
    aws_backend.close(opened);
}

static void endpoints_are_those_of_the_environment_and_the_profile(void **state)
{
    struct rig *rig = *state;
    setenv("AWS_USE_DUALSTACK_ENDPOINT", "TRUE", 1);
    assert_endpoints(rig, "https://kms.eu-west-1.api.aws", "https://sts.eu-west-1.api.aws");
    setenv("AWS_USE_FIPS_ENDPOINT", "true", 1);
    rig->settings.region = (char *)"us-gov-west-1";
    assert_endpoints(rig, "https://kms-fips.us-gov-west-1.api.aws", "https://sts-fips.us-gov-west-1.api.aws");
    rig->settings.region = (char *)"us-isob-east-1";
    void *opened = NULL;
    assert_int_equal(aws_backend.open(&rig->settings, &opened), ENVELOPE_E_CONFIG);
    assert_non_null(strstr(error_text(), "no dual-stack endpoints"));
    forget_aws();
    assert_endpoints(rig, "https://kms.us-isob-east-1.sc2s.sgov.gov", "https://sts.us-isob-east-1.sc2s.sgov.gov");
    rig->settings.region = (char *)"cn-north-1";
    write_file("config", "[default]\nuse_dualstack_endpoint = true\nuse_fips_endpoint = true\n"
                         "ca_bundle = /etc/corporate.pem\n");
    assert_endpoints(rig, "https://kms-fips.cn-north-1.api.amazonwebservices.com.cn",
                     "https://sts-fips.cn-north-1.api.amazonwebservices.com.cn");
    setenv("AWS_USE_FIPS_ENDPOINT", "false", 1); /* the environment goes before the profile */
    assert_endpoints(rig, "https://kms.cn-north-1.api.amazonwebservices.com.cn",
                     "https://sts.cn-north-1.api.amazonwebservices.com.cn");
    write_file("config", "[default]\nendpoint_url = https://vpce.example/\nregion = us-east-2\n");
    rig->settings.region = NULL;
    assert_endpoints(rig, "https://vpce.example", "https://vpce.example");
    setenv("AWS_ENDPOINT_URL", "https://general.example", 1);
    setenv("AWS_ENDPOINT_URL_STS", "https://sts.example", 1);
    assert_endpoints(rig, "https://general.example", "https://sts.example");
    setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true", 1);
    assert_endpoints(rig, "https://kms.us-east-2.amazonaws.com", "https://sts.us-east-2.amazonaws.com");
    unsetenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
    setenv("AWS_ENDPOINT_URL", "http://general.example", 1);
    assert_int_equal(aws_backend.open(&rig->settings, &opened), ENVELOPE_E_CONFIG);
    assert_non_null(strstr(error_text(), "AWS_ENDPOINT_URL must begin with https://"));
}

static void the_environments_authorities_are_trusted_and_metadata_needs_none(void **state)
{
    struct rig *rig = *state;
    write_file("config", "[default]\nca_bundle = /etc/profile.pem\n[profile p]\nrole_arn = a\nsource_profile = k\n"
                         "[profile k]\naws_access_key_id=A\naws_secret_access_key=s\n");
    setenv("AWS_CA_BUNDLE", "/etc/environment.pem", 1);
    rig->settings.profile = (char *)"p";
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_string_equal(rig->request.ca_file, "/etc/environment.pem");
    unsetenv("AWS_CA_BUNDLE");
    rig->settings.profile = NULL;
    assert_int_equal(begin(rig), BACKEND_SEND); /* instance metadata */
    assert_null(rig->request.ca_file);
    struct credentials *credentials = credentials_new("A", "s", "", 0);
    backend_call_clear(&rig->call);
    rig->call = (struct backend_call){.op = BACKEND_RANDOM, .length = 1, .credentials = credentials};
    http_request_clear(&rig->request);
    assert_int_equal(aws_backend.step(rig->state, &rig->call, NULL, &rig->request), BACKEND_SEND);
    assert_string_equal(rig->request.ca_file, "/etc/profile.pem");
    credentials_unref(credentials);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(the_second_version_of_instance_metadata_is_asked_and_no_proxy_sees_it),
        T(stale_credentials_of_instance_metadata_are_tried_all_the_same),
        T(the_first_version_of_instance_metadata_is_never_asked),
        T(what_instance_metadata_says_of_a_role_is_told),
        T(instance_metadata_has_an_address_of_version_six_too),
        T(a_containers_agent_is_asked_with_its_token),
        T(a_port_is_not_a_way_to_another_host),
        T(credentials_with_line_breaks_or_blanks_are_refused_and_not_shown),
        T(a_web_identity_is_exchanged_unsigned_with_its_token_read_anew),
        T(roles_are_assumed_one_with_the_other),
        T(what_cannot_be_done_here_is_named),
        T(half_a_key_in_the_environment_is_not_passed_over),
        T(a_closed_home_directory_has_no_profiles),
        T(a_path_in_the_home_directory_may_begin_with_a_tilde),
        T(endpoints_are_those_of_the_environment_and_the_profile),
        T(the_environments_authorities_are_trusted_and_metadata_needs_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
