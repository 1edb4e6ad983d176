/* How the Azure backends get their access tokens, where that takes more than a secret: certificates, managed
 * identities. */
#include <limits.h>
#include <sys/stat.h>
#include <openssl/pem.h>
#include <openssl/ui.h>
#include <openssl/x509.h>

#include "azure.h"
#include "cloud_bench.h"

#define BASE "https://myvault.vault.azure.net"
#define ENDPOINT "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token"
#define CLIENT "11111111-2222-3333-4444-555555555555"
#define QUERY(version) "?api-version=" version "&resource=https%3A%2F%2Fvault.azure.net"

static void no_environment(void)
{
    static const char *const variables[] = {
        "AZURE_TENANT_ID",      "AZURE_CLIENT_ID",   "AZURE_CLIENT_CERTIFICATE_PATH",
        "AZURE_AUTHORITY_HOST", "IDENTITY_ENDPOINT", "IDENTITY_HEADER",
        "IMDS_ENDPOINT"};
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
        unsetenv(variables[i]);
}

/* --- Certificates --- */

static struct bench certificate_bench(const char *path)
{
    return (struct bench){.settings = {.address = (char *)BASE,
                                       .auth = (char *)"client-certificate",
                                       .tenant = (char *)"contoso.onmicrosoft.com",
                                       .client_id = (char *)CLIENT,
                                       .credentials_file = (char *)path}};
}

static X509 *self_signed(EVP_PKEY *key)
{
    X509 *certificate = X509_new();
    assert_true(certificate && X509_set_version(certificate, 2) && X509_set_pubkey(certificate, key) &&
                ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) &&
                X509_gmtime_adj(X509_getm_notBefore(certificate), 0) &&
                X509_gmtime_adj(X509_getm_notAfter(certificate), 86400) && X509_sign(certificate, key, EVP_sha256()));
    return certificate;
}

static void write_pem(const char *path, EVP_PKEY *key, X509 *certificate)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(!key || PEM_write_PKCS8PrivateKey(file, key, NULL, NULL, 0, NULL, NULL));
    assert_true(!certificate || PEM_write_X509(file, certificate));
    assert_int_equal(fclose(file), 0);
}

static void a_certificate_signs_an_assertion_that_verifies(void **state)
{
    static const char path[] = "test_azure_certificate.pem";
    static const char form[] =
        "grant_type=client_credentials&client_id=" CLIENT "&scope=https%3A%2F%2Fvault.azure.net%2F.default&"
        "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=";
    struct bench bench = certificate_bench(path);
    struct buffer header = {0}, claims = {0}, wanted = {0};
    char nonce[2][64] = {"", ""};
    (void)state;
    no_environment();
    EVP_PKEY *key = EVP_RSA_gen(2048);
    X509 *certificate = self_signed(key);
    write_pem(path, key, certificate);
    bench_open(&bench, &azure_backend);
    for (int i = 0; i < 2; i++) {
        log_in(&bench, "");
        if (bench.step != BACKEND_SEND)
            fail_msg("%s", error_text());
        assert_string_equal(bench.request.url, ENDPOINT);
        const char *body = buffer_text(&bench.request.body);
        assert_int_equal(strncmp(body, form, sizeof form - 1), 0);
        buffer_reset(&header);
        buffer_reset(&claims);
        read_jwt(body + sizeof form - 1, key, true, &header, &claims);
        long long not_before = 0, issued = 0, expires = 0;
        assert_int_equal(sscanf(buffer_text(&claims),
                                "{\"aud\":\"" ENDPOINT "\",\"iss\":\"" CLIENT "\",\"sub\":\"" CLIENT
                                "\",\"jti\":\"%63[^\"]\",\"nbf\":%lld,\"iat\":%lld,\"exp\":%lld}",
                                nonce[i], &not_before, &issued, &expires),
                         4);
        assert_true(not_before == issued && expires - issued == 600 && strlen(nonce[i]) == 22);
    }
    assert_string_not_equal(nonce[0], nonce[1]);
    uint8_t thumbprint[32];
    unsigned length = 0;
    assert_true(X509_digest(certificate, EVP_sha256(), thumbprint, &length) && length == 32);
    buffer_append_text(&wanted, "{\"alg\":\"PS256\",\"typ\":\"JWT\",\"x5t#S256\":\"");
    web_append_base64url(&wanted, thumbprint, sizeof thumbprint);
    buffer_append_text(&wanted, "\"}");
    assert_string_equal(buffer_text(&header), buffer_text(&wanted));
    answer(&bench, 200, "{\"token_type\":\"Bearer\",\"expires_in\":3599,\"access_token\":\"eyJ0.new\"}");
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "eyJ0.new");
    buffer_clear(&header);
    buffer_clear(&claims);
    buffer_clear(&wanted);
    X509_free(certificate);
    EVP_PKEY_free(key);
    unlink(path);
    bench_close(&bench);
}

static void certificate_files_that_cannot_be_used_are_refused_with_their_name(void **state)
{
    static const char path[] = "test_azure_bad.pem";
    struct bench bench = certificate_bench(path);
    (void)state;
    no_environment();
    EVP_PKEY *key = EVP_RSA_gen(2048), *other = EVP_RSA_gen(2048), *curve = EVP_EC_gen("P-256");
    X509 *certificate = self_signed(key);
    const struct {
        EVP_PKEY *key;
        X509 *certificate;
        const char *words;
    } rows[] = {
        {NULL, NULL, "no RSA private key"},
        {NULL, certificate, "no RSA private key"},
        {curve, certificate, "no RSA private key"},
        {key, NULL, "no certificate"},
        {other, certificate, "not that of its first certificate"},
    };
    bench_open(&bench, &azure_backend);
    unlink(path);
    log_in(&bench, "");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, path);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_pem(path, rows[i].key, rows[i].certificate);
        log_in(&bench, "");
        assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, rows[i].words);
        assert_non_null(strstr(error_text(), path));
    }
    X509_free(certificate);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
    EVP_PKEY_free(curve);
    unlink(path);
    bench_close(&bench);
}

/* A key under a passphrase must not make a program ask at its terminal. */
static void a_key_with_a_passphrase_is_refused_and_nobody_is_asked(void **state)
{
    static const char path[] = "test_azure_locked.pem";
    struct bench bench = certificate_bench(path);
    (void)state;
    no_environment();
    EVP_PKEY *key = EVP_RSA_gen(2048);
    FILE *file = fopen(path, "w");
    assert_true(file && PEM_write_PKCS8PrivateKey(file, key, EVP_aes_256_cbc(), "secret", 6, NULL, NULL));
    assert_int_equal(fclose(file), 0);
    EVP_PKEY_free(key);
    bench_open(&bench, &azure_backend);
    log_in(&bench, "");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "without a passphrase");
    unlink(path);
    bench_close(&bench);
}

static bool asked;

static int note_question(UI *terminal)
{
    (void)terminal;
    return asked = true;
}

/* A file that says it is encrypted: libcrypto's own way would be to ask for the passphrase. */
static void a_certificate_with_a_passphrase_is_refused_and_nobody_is_asked(void **state)
{
    static const char path[] = "test_azure_encrypted.pem";
    struct bench bench = certificate_bench(path);
    UI_METHOD *terminal = UI_create_method("a terminal");
    (void)state;
    assert_true(terminal && UI_method_set_opener(terminal, note_question) == 0);
    UI_set_default_method(terminal);
    no_environment();
    EVP_PKEY *key = EVP_RSA_gen(2048);
    FILE *file = fopen(path, "w");
    assert_true(file && PEM_write_PKCS8PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) &&
                fputs("-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,"
                      "00112233445566778899AABBCCDDEEFF\n\nAAAAAAAAAAAAAAAAAAAAAA==\n-----END CERTIFICATE-----\n",
                      file) >= 0);
    assert_int_equal(fclose(file), 0);
    EVP_PKEY_free(key);
    bench_open(&bench, &azure_backend);
    log_in(&bench, "");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "no certificate in PEM form");
    assert_false(asked);
    unlink(path);
    bench_close(&bench);
    UI_set_default_method(NULL);
    UI_destroy_method(terminal);
}

/* --- Managed identities --- */

static struct bench identity_bench(void)
{
    return (struct bench){.settings = {.address = (char *)BASE, .auth = (char *)"managed-identity"}};
}

static void app_service_is_asked_where_the_environment_says(void **state)
{
    struct bench bench = identity_bench();
    char reply[160];
    long long end = (long long)(clock_wall() / CLOCK_SECOND) + 86400;
    (void)state;
    no_environment();
    setenv("IDENTITY_ENDPOINT", "http://169.254.131.2:8081/msi/token", 1);
    setenv("IDENTITY_HEADER", "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a", 1);
    bench.settings.client_id = (char *)CLIENT;
    bench_open(&bench, &azure_backend);
    log_in(&bench, "");
    assert_asks(&bench, HTTP_GET, "http://169.254.131.2:8081/msi/token" QUERY("2019-08-01") "&client_id=" CLIENT, "");
    assert_true(has_header(&bench, "X-IDENTITY-HEADER: 853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a"));
    assert_true(bench.request.direct && bench.request.optional && !has_header(&bench, "Metadata: true"));
    snprintf(reply, sizeof reply,
             "{\"access_token\":\"eyJ0.app\",\"expires_on\":\"%lld\",\"resource\":\"https://vault.azure.net\","
             "\"token_type\":\"Bearer\"}",
             end);
    answer(&bench, 200, reply);
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "eyJ0.app");
    assert_true(credentials_expires(bench.call.made) / CLOCK_SECOND >= end - 2 &&
                credentials_expires(bench.call.made) / CLOCK_SECOND <= end + 2);
    log_in(&bench, "");
    answer(&bench, 200, "{\"access_token\":\"eyJ0.app\",\"expires_on\":\"1586984735\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "without an access token");
    log_in(&bench, "");
    answer(&bench, 400, "{\"statusCode\":400,\"message\":\"No User Assigned Managed Identity found\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "App Service");
    assert_null(strstr(error_text(), "853b9a84"));
    bench_close(&bench);
    no_environment();
}

static void arcs_agent_is_shown_that_its_file_can_be_read(void **state)
{
    struct bench bench = identity_bench();
    char dir[PATH_MAX], path[PATH_MAX + 16], header[PATH_MAX + 128];
    (void)state;
    no_environment();
    setenv("IDENTITY_ENDPOINT", "http://localhost:40342/metadata/identity/oauth2/token", 1);
    setenv("IMDS_ENDPOINT", "http://localhost:40342", 1);
    assert_true(mkdir("azcmagent", 0700) == 0);
    assert_non_null(realpath("azcmagent", dir));
    strncat(dir, "/", sizeof dir - strlen(dir) - 1);
    snprintf(path, sizeof path, "%s0001.key", dir);
    write_file(path, "proof-of-reading");
    bench_open(&bench, &azure_backend);
    ((struct azure *)bench.state)->proof_dir = dir;

    log_in(&bench, "");
    assert_asks(&bench, HTTP_GET, "http://localhost:40342/metadata/identity/oauth2/token" QUERY("2019-11-01"), "");
    assert_true(has_header(&bench, "Metadata: true"));
    snprintf(header, sizeof header, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=%s\r\n\r\n", path);
    bench.reply_headers = header;
    answer(&bench, 401, "");
    assert_asks(&bench, HTTP_GET, "http://localhost:40342/metadata/identity/oauth2/token" QUERY("2019-11-01"), "");
    assert_true(has_header(&bench, "Metadata: true") && has_header(&bench, "Authorization: Basic proof-of-reading"));
    bench.reply_headers = NULL;
    answer(&bench, 200, "{\"access_token\":\"eyJ0.arc\",\"expires_in\":\"3599\",\"token_type\":\"Bearer\"}");
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "eyJ0.arc");

    /* Not believed: a second refusal. */
    log_in(&bench, "");
    bench.reply_headers = header;
    answer(&bench, 401, "");
    answer(&bench, 401, "{\"error\":\"access_denied\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "access_denied");
    unlink(path);
    log_in(&bench, "");
    bench.reply_headers = header;
    answer(&bench, 401, "");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "himds");
    bench_close(&bench);
    assert_int_equal(rmdir("azcmagent"), 0);
    no_environment();
}

static void what_says_it_is_arcs_agent_gets_no_other_file(void **state)
{
    static const char *const challenges[] = {
        "Bearer realm=/var/opt/azcmagent/tokens/a.key",
        "Basic realm=/etc/passwd",
        "Basic realm=/var/opt/azcmagent/tokens/../../../../etc/shadow",
        "Basic realm=/var/opt/azcmagent/tokens/a/b.key",
        "Basic realm=/var/opt/azcmagent/tokens/.key",
        "Basic realm=/var/opt/azcmagent/tokens/a.pem",
        "Basic realm=",
    };
    struct bench bench = identity_bench();
    (void)state;
    no_environment();
    setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:40342/metadata/identity/oauth2/token", 1);
    setenv("IMDS_ENDPOINT", "http://127.0.0.1:40342", 1);
    bench_open(&bench, &azure_backend);
    for (size_t i = 0; i < sizeof challenges / sizeof challenges[0]; i++) {
        char header[256];
        log_in(&bench, "");
        snprintf(header, sizeof header, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: %s\r\n\r\n", challenges[i]);
        bench.reply_headers = header;
        answer(&bench, 401, "");
        assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "not Azure Arc's agent");
    }
    log_in(&bench, "");
    answer(&bench, 401, "");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "not Azure Arc's agent");
    bench_close(&bench);
    no_environment();
}

static void identity_endpoints_elsewhere_are_refused(void **state)
{
    static const struct {
        const char *endpoint, *header, *imds;
        bool good;
    } rows[] = {
        {"http://127.0.0.1:41564/msi/token/", "h", NULL, true},
        {"http://localhost:42356/msi/token", "h", NULL, true},
        {"https://identity.example/token", "h", NULL, true},
        {"http://identity.example/msi/token", "h", NULL, false},
        {"http://127.0.0.1.example/msi/token", "h", NULL, false},
        {"http://127.0.0.1:80/msi/token?resource=x", "h", NULL, false},
        {"http://169.254.130.2:8081/msi/token", "h", NULL, true},
        {"http://169.254.130.2.example/msi/token", "h", NULL, false},
        {"http://169.254.example/msi/token", "h", NULL, false},
        {"http://169.254.130.2:x.example/msi/token", "h", NULL, false},
        {"http://169.254.169.254/metadata/identity/oauth2/token", NULL, "http://localhost:40342", false},
        {"https://arc.example/token", NULL, "http://localhost:40342", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bench bench = identity_bench();
        no_environment();
        setenv("IDENTITY_ENDPOINT", rows[i].endpoint, 1);
        if (rows[i].header)
            setenv("IDENTITY_HEADER", rows[i].header, 1);
        if (rows[i].imds)
            setenv("IMDS_ENDPOINT", rows[i].imds, 1);
        if (rows[i].good) {
            bench_open(&bench, &azure_backend);
            bench_close(&bench);
            continue;
        }
        bench.settings.label = (char *)"cloud";
        bench.settings.backend = (char *)azure_backend.name;
        assert_int_equal(azure_backend.open(&bench.settings, &bench.state), ENVELOPE_E_CONFIG);
        assert_non_null(strstr(error_text(), "IDENTITY_ENDPOINT"));
    }
    no_environment();
}

/* kms.cnf goes before the environment. */
static void instance_metadata_named_in_the_settings_is_asked_whatever_the_environment_says(void **state)
{
    struct bench bench = identity_bench();
    (void)state;
    no_environment();
    setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:41564/msi/token/", 1);
    setenv("IDENTITY_HEADER", "h", 1);
    bench.settings.imds_endpoint = (char *)"http://169.254.169.254";
    bench_open(&bench, &azure_backend);
    log_in(&bench, "");
    assert_asks(&bench, HTTP_GET, "http://169.254.169.254/metadata/identity/oauth2/token" QUERY("2018-02-01"), "");
    bench_close(&bench);
    no_environment();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_certificate_signs_an_assertion_that_verifies),
        cmocka_unit_test(certificate_files_that_cannot_be_used_are_refused_with_their_name),
        cmocka_unit_test(a_key_with_a_passphrase_is_refused_and_nobody_is_asked),
        cmocka_unit_test(a_certificate_with_a_passphrase_is_refused_and_nobody_is_asked),
        cmocka_unit_test(app_service_is_asked_where_the_environment_says),
        cmocka_unit_test(arcs_agent_is_shown_that_its_file_can_be_read),
        cmocka_unit_test(what_says_it_is_arcs_agent_gets_no_other_file),
        cmocka_unit_test(identity_endpoints_elsewhere_are_refused),
        cmocka_unit_test(instance_metadata_named_in_the_settings_is_asked_whatever_the_environment_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
