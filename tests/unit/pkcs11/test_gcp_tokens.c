/* Workload identity federation with Google, in the shapes of its documentation: credentials files, exchange,
 * impersonation. */
#include "cloud_bench.h"
#include "gcp.h"

#define RING "projects/my-project/locations/europe-west1/keyRings/prod"
#define FILE_NAME "test_gcp_federation.json"
#define TOKEN_NAME "test_gcp_subject"
#define AUDIENCE "//iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/pool/providers/kubernetes"
#define IMPERSONATION                                                                                                  \
    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"                                             \
    "envelope@my-project.iam.gserviceaccount.com:generateAccessToken"
#define CONFIG(source, more)                                                                                           \
    "{\"type\":\"external_account\",\"audience\":\"" AUDIENCE "\",\"subject_token_type\":"                             \
    "\"urn:ietf:params:oauth:token-type:jwt\",\"token_url\":\"https://sts.googleapis.com/v1/token\","                  \
    "\"credential_source\":" source more "}"
#define FROM_FILE "{\"file\":\"" TOKEN_NAME "\"}"
#define EXCHANGE(scope, token)                                                                                         \
    "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&audience="                                   \
    "%2F%2Fiam.googleapis.com%2Fprojects%2F123456%2Flocations%2Fglobal%2FworkloadIdentityPools%2Fpool%2Fproviders%2F"  \
    "kubernetes&scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2F" scope                                                \
    "&requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&subject_token_type="                \
    "urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&subject_token=" token
#define EXCHANGED                                                                                                      \
    "{\"access_token\":\"ya29.federated\",\"issued_token_type\":"                                                      \
    "\"urn:ietf:params:oauth:token-type:access_token\",\"token_type\":\"Bearer\",\"expires_in\":3600}"

static void open_with(struct bench *bench, const char *config)
{
    *bench = (struct bench){.settings = {.auth = (char *)"workload-identity",
                                         .credentials_file = (char *)FILE_NAME,
                                         .key_ring = (char *)RING}};
    unsetenv("GOOGLE_APPLICATION_CREDENTIALS");
    write_file(FILE_NAME, config);
    bench_open(bench, &gcp_backend);
}

static void done(struct bench *bench)
{
    unlink(FILE_NAME);
    unlink(TOKEN_NAME);
    bench_close(bench);
}

static void a_token_from_a_file_is_exchanged(void **state)
{
    struct bench bench;
    (void)state;
    open_with(&bench, CONFIG(FROM_FILE, ""));
    for (int i = 0; i < 2; i++) { /* read anew each time */
        write_file(TOKEN_NAME, i ? "eyJh.eyJi.two" : "eyJh.eyJi.one\n");
        log_in(&bench, "");
        assert_asks(&bench, HTTP_POST, "https://sts.googleapis.com/v1/token",
                    i ? EXCHANGE("cloudkms", "eyJh.eyJi.two") : EXCHANGE("cloudkms", "eyJh.eyJi.one"));
        assert_true(has_header(&bench, "Content-Type: application/x-www-form-urlencoded"));
    }
    answer(&bench, 200, EXCHANGED);
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "ya29.federated");
    log_in(&bench, "");
    answer(&bench, 400,
           "{\"error\":\"invalid_grant\",\"error_description\":\"The audience in ID Token does not match\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "does not match");
    log_in(&bench, "");
    answer(&bench, 503, "");
    assert_refused(&bench, BACKEND_RETRY, CKR_DEVICE_ERROR, "cannot give an access token now");
    done(&bench);
}

static void a_token_from_an_address_is_asked_for_with_the_files_headers(void **state)
{
    struct bench bench;
    (void)state;
    open_with(
        &bench,
        CONFIG("{\"url\":\"http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=app\","
               "\"headers\":{\"Metadata\":\"True\",\"Authorization\":\"Bearer hush\"},\"format\":{\"type\":\"json\","
               "\"subject_token_field_name\":\"access_token\"}}",
               ""));
    log_in(&bench, "");
    assert_asks(&bench, HTTP_GET,
                "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=app", "");
    assert_true(has_header(&bench, "Metadata: True") && has_header(&bench, "Authorization: Bearer hush"));
    assert_true(bench.request.direct);
    answer(&bench, 200, "{\"access_token\":\"eyJh.eyJi.azure\",\"expires_in\":\"3599\"}");
    assert_asks(&bench, HTTP_POST, "https://sts.googleapis.com/v1/token", EXCHANGE("cloudkms", "eyJh.eyJi.azure"));
    assert_false(has_header(&bench, "Authorization: Bearer hush"));
    answer(&bench, 200, EXCHANGED);
    assert_int_equal(bench.step, BACKEND_DONE);
    log_in(&bench, "");
    answer(&bench, 200, "{\"id_token\":\"eyJh.eyJi.azure\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "subject_token_field_name");
    assert_null(strstr(error_text(), "eyJh"));
    log_in(&bench, "");
    answer(&bench, 404, "{\"error\":\"invalid_request\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "credential_source");
    assert_null(strstr(error_text(), "hush"));
    done(&bench);
}

static void a_service_account_is_impersonated_where_the_file_says(void **state)
{
    struct bench bench;
    (void)state;
    open_with(&bench, CONFIG(FROM_FILE, ",\"service_account_impersonation_url\":\"" IMPERSONATION
                                        "\",\"service_account_impersonation\":{\"token_lifetime_seconds\":1800}"));
    write_file(TOKEN_NAME, "eyJh.eyJi.one");
    log_in(&bench, "");
    assert_asks(&bench, HTTP_POST, "https://sts.googleapis.com/v1/token", EXCHANGE("cloud-platform", "eyJh.eyJi.one"));
    answer(&bench, 200, EXCHANGED);
    assert_asks(&bench, HTTP_POST, IMPERSONATION,
                "{\"scope\":[\"https://www.googleapis.com/auth/cloudkms\"],\"lifetime\":\"1800s\"}");
    assert_true(has_header(&bench, "Authorization: Bearer ya29.federated"));
    answer(&bench, 200, "{\"accessToken\":\"ya29.account\",\"expireTime\":\"2100-01-01T00:00:00Z\"}");
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "ya29.account");
    assert_int_equal(credentials_expires(bench.call.made), 4102444800 * CLOCK_SECOND);

    static const struct bench_refusal rows[] = {
        {403,
         "{\"error\":{\"code\":403,\"message\":\"Permission 'iam.serviceAccounts.getAccessToken' denied\","
         "\"status\":\"PERMISSION_DENIED\"}}",
         BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "getAccessToken' denied; is there such a service account"},
        {404, "{\"error\":{\"code\":404,\"message\":\"Not found\",\"status\":\"NOT_FOUND\"}}", BACKEND_FAILED,
         CKR_USER_NOT_LOGGED_IN, "generateAccessToken was refused (NOT_FOUND, HTTP 404): Not found"},
        {401, "{\"error\":{\"code\":401,\"message\":\"no\",\"status\":\"UNAUTHENTICATED\"}}", BACKEND_FAILED,
         CKR_USER_NOT_LOGGED_IN, "no"},
        {503, "{\"error\":{\"code\":503,\"message\":\"later\",\"status\":\"UNAVAILABLE\"}}", BACKEND_RETRY,
         CKR_DEVICE_ERROR, "later"},
        {200, "{\"accessToken\":\"ya29.account\",\"expireTime\":\"2014-10-02T15:01:23Z\"}", BACKEND_FAILED,
         CKR_USER_NOT_LOGGED_IN, "without an access token"},
        {200, "{\"expireTime\":\"2100-01-01T00:00:00Z\"}", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN,
         "without an access token"},
        {200, "[]", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "without an access token"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        log_in(&bench, "");
        answer(&bench, 200, EXCHANGED);
        assert_refusal(&bench, &rows[i]);
        assert_null(strstr(error_text(), "ya29"));
        assert_null(strstr(error_text(), "such key"));
    }
    log_in(&bench, "");
    answer(&bench, 200, "{\"issued_token_type\":\"x\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "without an access token");
    done(&bench);
}

/* None of them is left out in silence. */
static void more_headers_than_a_request_takes_are_refused(void **state)
{
    char config[2048];
    int used = snprintf(config, sizeof config, "%s",
                        "{\"type\":\"external_account\",\"audience\":\"a\",\"subject_token_type\":\"t\","
                        "\"credential_source\":{\"url\":\"https://tokens.example/\",\"headers\":{");
    struct bench bench;
    (void)state;
    for (int i = 0; i <= HTTP_HEADERS_MAX; i++)
        used += snprintf(config + used, sizeof config - (size_t)used, "%s\"X-%d\":\"y\"", i ? "," : "", i);
    snprintf(config + used, sizeof config - (size_t)used, "}}}");
    open_with(&bench, config);
    log_in(&bench, "");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "more than 16 headers");
    done(&bench);
}

static void files_that_cannot_be_used_are_refused_with_their_name(void **state)
{
    static const struct {
        const char *config, *token, *words;
    } rows[] = {
        {"", "t", "no JSON object"},
        {"{\"type\":\"service_account\"}", "t", "external_account"},
        {CONFIG("{}", ""), "t", "file or a url"},
        {CONFIG("{\"file\":\"a\",\"url\":\"https://a\"}", ""), "t", "file or a url"},
        {CONFIG("{\"environment_id\":\"aws1\",\"url\":\"https://a\"}", ""), "t", "aws and executable"},
        {CONFIG("{\"executable\":{\"command\":\"/bin/true\"}}", ""), "t", "aws and executable"},
        {CONFIG("{\"url\":\"http://evil.example/token\"}", ""), "t", "https://"},
        {CONFIG("{\"url\":\"http://169.254.evil.example/token\"}", ""), "t", "https://"},
        {CONFIG("{\"url\":\"https://a/t\",\"headers\":{\"A:b\":\"SECRET\"}}", ""), "t", "no headers"},
        {CONFIG("{\"url\":\"https://a/t\",\"headers\":{\"A\":\"SECRET\\r\\nB: c\"}}", ""), "t", ""},
        {CONFIG(FROM_FILE, ""), "", "no token"},
        {CONFIG(FROM_FILE, ""), "SECRET SECRET", "no token"},
        {CONFIG("{\"file\":\"" TOKEN_NAME "\",\"format\":{\"type\":\"xml\"}}", ""), "SECRET", "neither text nor json"},
        {CONFIG("{\"file\":\"" TOKEN_NAME "\",\"format\":{\"type\":\"json\"}}", ""), "{\"t\":\"SECRET\"}",
         "subject_token_field_name"},
        {CONFIG("{\"file\":\"test_gcp_missing\"}", ""), "t", "test_gcp_missing"},
        {"{\"type\":\"external_account\",\"credential_source\":" FROM_FILE "}", "SECRET", "no audience"},
        {"{\"type\":\"external_account\",\"audience\":\"a\",\"subject_token_type\":\"b\",\"token_url\":"
         "\"http://evil.example/\",\"credential_source\":" FROM_FILE "}",
         "SECRET", "token_url"},
    };
    struct bench bench;
    (void)state;
    open_with(&bench, "");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_file(FILE_NAME, rows[i].config);
        write_file(TOKEN_NAME, rows[i].token);
        log_in(&bench, "");
        assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, rows[i].words);
        assert_non_null(strstr(error_text(), FILE_NAME));
        assert_null(strstr(error_text(), "SECRET"));
    }
    write_file(FILE_NAME, CONFIG(FROM_FILE, ",\"service_account_impersonation_url\":\"http://evil.example/x\""));
    write_file(TOKEN_NAME, "t");
    log_in(&bench, "");
    answer(&bench, 200, EXCHANGED);
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "service_account_impersonation_url");
    log_in(&bench, "1234");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "takes no PIN");
    done(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_from_a_file_is_exchanged),
        cmocka_unit_test(a_token_from_an_address_is_asked_for_with_the_files_headers),
        cmocka_unit_test(a_service_account_is_impersonated_where_the_file_says),
        cmocka_unit_test(more_headers_than_a_request_takes_are_refused),
        cmocka_unit_test(files_that_cannot_be_used_are_refused_with_their_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
