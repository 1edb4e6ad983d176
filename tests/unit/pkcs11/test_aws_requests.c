/* What the AWS backend asks, byte by byte, and what it makes of the answers. No network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aws.h"
#include "backends.h"
#include "base/error.h"

static const char arn[] = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

struct rig {
    struct token_settings settings;
    void *state;
    struct credentials *credentials;
    struct http_request request;
    struct http_reply reply;
    struct backend_call call;
};

static int set_up(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    rig->settings =
        (struct token_settings){.label = "t", .backend = "aws-kms", .region = "eu-west-1", .pending_days = 7};
    unsetenv("AWS_ENDPOINT_URL");
    setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1);
    assert_int_equal(aws_backend.open(&rig->settings, &rig->state), ENVELOPE_OK);
    rig->credentials = credentials_new("AKID", "SECRET", "SESSION", 0);
    rig->call.credentials = rig->credentials;
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    http_request_clear(&rig->request);
    http_reply_clear(&rig->reply);
    backend_call_clear(&rig->call);
    credentials_unref(rig->credentials);
    aws_backend.close(rig->state);
    free(rig);
    return 0;
}

static enum backend_step begin(struct rig *rig)
{
    return aws_backend.step(rig->state, &rig->call, NULL, &rig->request);
}

static enum backend_step answer(struct rig *rig, long status, const char *body)
{
    http_reply_clear(&rig->reply);
    rig->reply.status = status;
    buffer_append_text(&rig->reply.headers, "HTTP/1.1 200 OK\r\nx-amzn-RequestId:  req-1 \r\n\r\n");
    buffer_append_text(&rig->reply.body, body);
    return aws_backend.step(rig->state, &rig->call, &rig->reply, &rig->request);
}

static const char *header(const struct rig *rig, const char *name)
{
    const char *line = buffer_text(&rig->request.headers), *end = line + rig->request.headers.length;
    for (; line < end; line += strlen(line) + 1)
        if (strncmp(line, name, strlen(name)) == 0)
            return line + strlen(name) + 2;
    return "";
}

static void encrypt_names_the_key_and_only_the_digest_of_the_associated_data(void **state)
{
    struct rig *rig = *state;
    rig->call = (struct backend_call){.op = BACKEND_ENCRYPT,
                                      .key = arn,
                                      .has_aad = true,
                                      .aad = (const uint8_t *)"abc",
                                      .aad_length = 3,
                                      .in = (const uint8_t *)"Hello",
                                      .in_length = 5,
                                      .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_string_equal(rig->request.url, "https://kms.eu-west-1.amazonaws.com/");
    assert_int_equal(rig->request.method, HTTP_POST);
    assert_string_equal(header(rig, "X-Amz-Target"), "TrentService.Encrypt");
    assert_string_equal(header(rig, "Content-Type"), "application/x-amz-json-1.1");
    assert_string_equal(header(rig, "X-Amz-Security-Token"), "SESSION");
    assert_ptr_equal(rig->request.signer, rig->credentials);
    assert_string_equal(rig->request.sign_service, "kms");
    char wanted[512];
    snprintf(wanted, sizeof wanted,
             "{\"KeyId\":\"%s\",\"EncryptionAlgorithm\":\"SYMMETRIC_DEFAULT\",\"EncryptionContext\":{\"envelope-aad\":"
             "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"},\"Plaintext\":\"SGVsbG8=\"}",
             arn);
    assert_string_equal(buffer_text(&rig->request.body), wanted);
}

static void decrypt_returns_the_plaintext_and_keeps_the_request_id(void **state)
{
    struct rig *rig = *state;
    char body[512];
    rig->call = (struct backend_call){
        .op = BACKEND_DECRYPT, .key = arn, .in = (const uint8_t *)"x", .in_length = 1, .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_non_null(strstr(buffer_text(&rig->request.body), "\"KeyId\":\"arn:"));
    assert_null(strstr(buffer_text(&rig->request.body), "EncryptionContext"));
    snprintf(body, sizeof body, "{\"KeyId\":\"%s\",\"Plaintext\":\"SGVsbG8=\"}", arn);
    assert_int_equal(answer(rig, 200, body), BACKEND_DONE);
    assert_int_equal(rig->call.out.length, 5);
    assert_memory_equal(rig->call.out.bytes, "Hello", 5);
    assert_string_equal(rig->call.request_id, "req-1");
}

static void a_reply_about_another_key_is_refused(void **state)
{
    struct rig *rig = *state;
    rig->call = (struct backend_call){
        .op = BACKEND_DECRYPT, .key = arn, .in = (const uint8_t *)"x", .in_length = 1, .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_int_equal(answer(rig, 200, "{\"KeyId\":\"arn:aws:kms:eu-west-1:1:key/other\",\"Plaintext\":\"AA==\"}"),
                     BACKEND_FAILED);
    assert_int_equal(rig->call.rv, CKR_DEVICE_ERROR);
}

static void malformed_replies_are_refused(void **state)
{
    static const char *const bodies[] = {"",
                                         "null",
                                         "[]",
                                         "{",
                                         "{}",
                                         "{\"Plaintext\":5}",
                                         "{\"Plaintext\":\"A\"}",
                                         "{\"Plaintext\":\"AAA\"}",
                                         "{\"Plaintext\":\"AB==\"}",
                                         "{\"Plaintext\":\"A A=\"}",
                                         "{\"Plaintext\":\"\\u0100AA=\"}",
                                         "{\"Plaintext\":\"AAAA\",\"Plaintext\":\"BBBB\"}",
                                         "{\"Plaintext\":\"AAAA\"",
                                         "{\"a\":{\"Plaintext\":\"AAAA\""};
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        rig->call = (struct backend_call){.op = BACKEND_DECRYPT,
                                          .key = arn,
                                          .in = (const uint8_t *)"x",
                                          .in_length = 1,
                                          .credentials = rig->credentials};
        assert_int_equal(begin(rig), BACKEND_SEND);
        assert_int_equal(answer(rig, 200, bodies[i]), BACKEND_FAILED);
        assert_int_equal(rig->call.rv, CKR_DEVICE_ERROR);
        http_request_clear(&rig->request);
        backend_call_clear(&rig->call);
    }
}

static void errors_are_judged_by_their_name_not_their_status(void **state)
{
    static const struct {
        long status;
        const char *body;
        enum backend_step step;
        CK_RV rv;
    } rows[] = {
        {400, "{\"__type\":\"ThrottlingException\",\"message\":\"Rate exceeded\"}", BACKEND_RETRY, CKR_DEVICE_ERROR},
        {409, "{\"__type\":\"DisabledException\"}", BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED},
        {400, "{\"__type\":\"com.amazonaws.kms#DisabledException\"}", BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED},
        {400, "{\"__type\":\"KMSInvalidStateException:http://x/y\"}", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID},
        {404, "{\"__type\":\"NotFoundException\"}", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID},
        {400, "{\"__type\":\"InvalidCiphertextException\"}", BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID},
        {400, "{\"__type\":\"IncorrectKeyException\"}", BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID},
        {400, "{\"__type\":\"AccessDeniedException\",\"Message\":\"no\"}", BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN},
        {400, "{\"__type\":\"ExpiredTokenException\"}", BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN},
        {500, "{\"__type\":\"KeyUnavailableException\"}", BACKEND_RETRY, CKR_DEVICE_ERROR},
        {503, "{\"__type\":\"DependencyTimeoutException\"}", BACKEND_RETRY, CKR_DEVICE_ERROR},
        {502, "<html>Bad gateway</html>", BACKEND_RETRY, CKR_DEVICE_ERROR},
        {418, "{\"__type\":\"TeapotException\"}", BACKEND_FAILED, CKR_DEVICE_ERROR},
        {412, "{\"__type\":\"DryRunOperationException\"}", BACKEND_FAILED, CKR_DEVICE_ERROR}, /* nobody asked for it */
        {403, "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>a &lt;b&gt;</Message></Error>",
         BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN},
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rig->call = (struct backend_call){.op = BACKEND_DECRYPT,
                                          .key = arn,
                                          .in = (const uint8_t *)"x",
                                          .in_length = 1,
                                          .credentials = rig->credentials};
        assert_int_equal(begin(rig), BACKEND_SEND);
        assert_int_equal(answer(rig, rows[i].status, rows[i].body), rows[i].step);
        assert_int_equal(rig->call.rv, rows[i].rv);
        assert_true(strlen(error_text()) > 20);
        http_request_clear(&rig->request);
        backend_call_clear(&rig->call);
    }
    assert_string_equal(rig->call.service_code, "SignatureDoesNotMatch");
    assert_string_equal(rig->call.service_message, "a <b>");
}

static void a_dry_run_that_would_work_is_a_success(void **state)
{
    struct rig *rig = *state;
    rig->call = (struct backend_call){.op = BACKEND_ENCRYPT,
                                      .key = arn,
                                      .in = (const uint8_t *)"x",
                                      .in_length = 1,
                                      .dry_run = true,
                                      .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_non_null(strstr(buffer_text(&rig->request.body), ",\"DryRun\":true}"));
    assert_int_equal(answer(rig, 412, "{\"__type\":\"DryRunOperationException\"}"), BACKEND_DONE);
    assert_int_equal(rig->call.out.length, 0);
}

static void a_multi_region_key_is_addressed_in_the_tokens_region(void **state)
{
    struct rig *rig = *state;
    rig->call = (struct backend_call){.op = BACKEND_ENCRYPT,
                                      .key = "arn:aws:kms:us-east-1:123456789012:key/mrk-1234abcd",
                                      .in = (const uint8_t *)"x",
                                      .in_length = 1,
                                      .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_non_null(strstr(buffer_text(&rig->request.body), "arn:aws:kms:eu-west-1:123456789012:key/mrk-1234abcd"));
}

static void a_multi_region_key_is_found_by_its_arn_in_any_region(void **state)
{
    (void)state;
    static const char here[] = "arn:aws:kms:eu-west-1:123456789012:key/mrk-1234abcd";
    static const struct {
        const char *name;
        bool same;
    } cases[] = {
        {"arn:aws:kms:us-east-1:123456789012:key/mrk-1234abcd", true},
        {"arn:aws:kms:ap-southeast-2:123456789012:key/mrk-1234abcd", true},
        {"arn:aws:kms:us-east-1:123456789012:key/mrk-1234abce", false},
        {"arn:aws:kms:us-east-1:123456789013:key/mrk-1234abcd", false},
        {"arn:aws-cn:kms:us-east-1:123456789012:key/mrk-1234abcd", false},
        {"arn:aws:kms:us-east-1:123456789012:key/1234abcd", false},
        {"arn:aws:kms:us-east-1", false},
        {"mrk-1234abcd", false},
        {"", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(aws_backend.is_also(here, cases[i].name, strlen(cases[i].name)), cases[i].same);
    static const char single[] = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd";
    static const char other[] = "arn:aws:kms:us-east-1:123456789012:key/1234abcd";
    assert_false(aws_backend.is_also(single, other, strlen(other)));
}

static void a_key_of_another_region_is_refused_before_anything_is_sent(void **state)
{
    struct rig *rig = *state;
    rig->call = (struct backend_call){.op = BACKEND_ENCRYPT,
                                      .key = "arn:aws:kms:us-east-1:123456789012:key/1234abcd",
                                      .in = (const uint8_t *)"x",
                                      .in_length = 1,
                                      .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_FAILED);
    assert_int_equal(rig->call.rv, CKR_KEY_HANDLE_INVALID);
    assert_non_null(strstr(error_text(), "another region"));
}

static void reencrypt_names_both_keys_and_both_contexts(void **state)
{
    struct rig *rig = *state;
    rig->settings.grant_tokens = (char *)"one, two";
    rig->call = (struct backend_call){.op = BACKEND_REWRAP,
                                      .key = arn,
                                      .key_to = arn,
                                      .has_aad = true,
                                      .aad = (const uint8_t *)"a",
                                      .aad_length = 1,
                                      .has_aad_to = true,
                                      .aad_to = (const uint8_t *)"b",
                                      .aad_to_length = 1,
                                      .in = (const uint8_t *)"x",
                                      .in_length = 1,
                                      .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_SEND);
    const char *body = buffer_text(&rig->request.body);
    assert_string_equal(header(rig, "X-Amz-Target"), "TrentService.ReEncrypt");
    assert_non_null(strstr(body, "\"SourceKeyId\":\"arn:"));
    assert_non_null(strstr(body, "\"DestinationKeyId\":\"arn:"));
    assert_non_null(strstr(body, "\"SourceEncryptionContext\":{\"envelope-aad\":\"ca978112"));
    assert_non_null(strstr(body, "\"DestinationEncryptionContext\":{\"envelope-aad\":\"3e23e816"));
    assert_non_null(strstr(body, ",\"GrantTokens\":[\"one\",\"two\"]}"));
}

static void a_list_that_never_ends_is_refused(void **state)
{
    struct rig *rig = *state;
    rig->call = (struct backend_call){.op = BACKEND_LIST, .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_int_equal(answer(rig, 200, "{\"Keys\":[],\"Truncated\":true,\"NextMarker\":\"m\"}"), BACKEND_SEND);
    assert_non_null(strstr(buffer_text(&rig->request.body), "\"Marker\":\"m\""));
    assert_int_equal(answer(rig, 200, "{\"Keys\":[],\"Truncated\":true,\"NextMarker\":\"m\"}"), BACKEND_FAILED);
    assert_int_equal(rig->call.rv, CKR_DEVICE_ERROR);
}

static void keys_that_are_not_for_encryption_or_not_the_customers_are_not_shown(void **state)
{
    static const char *const bodies[] = {
        "{\"KeyMetadata\":{\"Arn\":\"arn:aws:kms:x:1:key/1\",\"KeyState\":\"Enabled\",\"KeyUsage\":\"SIGN_VERIFY\","
        "\"KeySpec\":\"RSA_2048\"}}",
        "{\"KeyMetadata\":{\"Arn\":\"arn:aws:kms:x:1:key/1\",\"KeyState\":\"Enabled\",\"KeyUsage\":\"ENCRYPT_DECRYPT\","
        "\"KeySpec\":\"SM2\"}}",
        "{\"KeyMetadata\":{\"Arn\":\"arn:aws:kms:x:1:key/1\",\"KeyState\":\"Enabled\",\"KeyUsage\":\"ENCRYPT_DECRYPT\","
        "\"KeySpec\":\"SYMMETRIC_DEFAULT\",\"KeyManager\":\"AWS\"}}",
        "{\"KeyMetadata\":{\"Arn\":\"arn:aws:kms:x:1:key/1\",\"KeyState\":\"PendingDeletion\",\"KeyUsage\":"
        "\"ENCRYPT_DECRYPT\",\"KeySpec\":\"SYMMETRIC_DEFAULT\"}}"};
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        rig->call = (struct backend_call){.op = BACKEND_DESCRIBE, .key = "alias/x", .credentials = rig->credentials};
        assert_int_equal(begin(rig), BACKEND_SEND);
        assert_int_equal(answer(rig, 200, bodies[i]), BACKEND_DONE);
        assert_int_equal(rig->call.keys.count, 0);
        http_request_clear(&rig->request);
        backend_call_clear(&rig->call);
    }
}

/* An alias is found in its own account only, unless it is named by its ARN. */
static void an_alias_of_another_account_is_named_by_its_arn(void **state)
{
    static const char alias[] = "arn:aws:kms:eu-west-1:999999999999:alias/customer";
    struct rig *rig = *state;
    rig->call = (struct backend_call){.op = BACKEND_DESCRIBE, .key = alias, .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_non_null(strstr(buffer_text(&rig->request.body), "\"KeyId\":\"arn:aws:kms:eu-west-1:999999999999:alias/"));
    assert_int_equal(answer(rig, 200,
                            "{\"KeyMetadata\":{\"Arn\":\"arn:aws:kms:eu-west-1:999999999999:key/1\",\"KeyState\":"
                            "\"Enabled\",\"KeyUsage\":\"ENCRYPT_DECRYPT\",\"KeySpec\":\"SYMMETRIC_DEFAULT\"}}"),
                     BACKEND_DONE);
    assert_string_equal(rig->call.keys.items[0].label, alias);
    assert_string_equal(rig->call.keys.items[0].id, "arn:aws:kms:eu-west-1:999999999999:key/1");
    backend_call_clear(&rig->call);
    http_request_clear(&rig->request);
    rig->call = (struct backend_call){.op = BACKEND_DESCRIBE,
                                      .key = "arn:aws:kms:us-east-1:999999999999:alias/customer",
                                      .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_FAILED);
    assert_non_null(strstr(error_text(), "another region"));
}

/* KMS allows 8,192 characters; and a new grant may be known by its token only, for DescribeKey as well. */
static void grant_tokens_go_whole_with_every_use_of_a_key(void **state)
{
    static const enum backend_op ops[] = {BACKEND_ENCRYPT, BACKEND_DECRYPT, BACKEND_REWRAP, BACKEND_DATA_KEY,
                                          BACKEND_DESCRIBE};
    struct rig *rig = *state;
    char token[8193], setting[8300], wanted[8300];
    memset(token, 'g', sizeof token - 1);
    token[sizeof token - 1] = '\0';
    snprintf(setting, sizeof setting, " short,%s ,", token);
    snprintf(wanted, sizeof wanted, ",\"GrantTokens\":[\"short\",\"%s\"]}", token);
    rig->settings.grant_tokens = setting;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        rig->call = (struct backend_call){.op = ops[i],
                                          .key = arn,
                                          .key_to = arn,
                                          .in = (const uint8_t *)"x",
                                          .in_length = 1,
                                          .length = 32,
                                          .credentials = rig->credentials};
        assert_int_equal(begin(rig), BACKEND_SEND);
        assert_non_null(strstr(buffer_text(&rig->request.body), wanted));
        http_request_clear(&rig->request);
        backend_call_clear(&rig->call);
    }
    rig->settings.grant_tokens = (char *)" , ";
    rig->call = (struct backend_call){.op = BACKEND_DESCRIBE, .key = arn, .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_null(strstr(buffer_text(&rig->request.body), "GrantTokens"));
}

static void creating_a_key_is_never_repeated_blindly(void **state)
{
    struct rig *rig = *state;
    rig->call =
        (struct backend_call){.op = BACKEND_CREATE, .label = "alias/new", .bits = 256, .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_false(rig->request.once); /* it only looks whether the alias is free */
    assert_int_equal(answer(rig, 400, "{\"__type\":\"NotFoundException\"}"), BACKEND_SEND);
    assert_string_equal(header(rig, "X-Amz-Target"), "TrentService.CreateKey");
    assert_true(rig->request.once);
    assert_string_equal(rig->call.service_code, "");
    rig->call.label = "alias/aws/mine";
    http_request_clear(&rig->request);
    assert_int_equal(begin(rig), BACKEND_FAILED);
    assert_int_equal(rig->call.rv, CKR_ATTRIBUTE_VALUE_INVALID);
}

/* CreateAlias would say so too late: the key would have been made, and paid for, without a name. */
static void no_key_is_made_for_an_alias_that_is_taken(void **state)
{
    struct rig *rig = *state;
    rig->call =
        (struct backend_call){.op = BACKEND_CREATE, .label = "alias/new", .bits = 256, .credentials = rig->credentials};
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_string_equal(header(rig, "X-Amz-Target"), "TrentService.DescribeKey");
    assert_string_equal(buffer_text(&rig->request.body), "{\"KeyId\":\"alias/new\"}");
    assert_int_equal(answer(rig, 200, "{\"KeyMetadata\":{}}"), BACKEND_FAILED);
    assert_int_equal(rig->call.rv, CKR_TEMPLATE_INCONSISTENT);
    /* Who may make keys and not look at them makes one all the same; who cannot be told goes no further. */
    http_request_clear(&rig->request);
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_int_equal(answer(rig, 400, "{\"__type\":\"AccessDeniedException\"}"), BACKEND_SEND);
    assert_string_equal(header(rig, "X-Amz-Target"), "TrentService.CreateKey");
    http_request_clear(&rig->request);
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_int_equal(answer(rig, 400, "{\"__type\":\"ThrottlingException\"}"), BACKEND_RETRY);
    http_request_clear(&rig->request);
    rig->call.label = NULL;
    assert_int_equal(begin(rig), BACKEND_SEND);
    assert_string_equal(header(rig, "X-Amz-Target"), "TrentService.CreateKey");
}

static void endpoints_follow_region_partition_and_fips(void **state)
{
    (void)state;
    static const struct {
        const char *region;
        bool fips;
        const char *endpoint, *sts;
    } rows[] = {
        {"us-east-1", false, "https://kms.us-east-1.amazonaws.com", "https://sts.us-east-1.amazonaws.com"},
        {"us-east-1", true, "https://kms-fips.us-east-1.amazonaws.com", "https://sts-fips.us-east-1.amazonaws.com"},
        {"us-gov-west-1", true, "https://kms-fips.us-gov-west-1.amazonaws.com",
         "https://sts.us-gov-west-1.amazonaws.com"},
        {"cn-north-1", false, "https://kms.cn-north-1.amazonaws.com.cn", "https://sts.cn-north-1.amazonaws.com.cn"},
        {"eusc-de-east-1", false, "https://kms.eusc-de-east-1.amazonaws.eu", "https://sts.eusc-de-east-1.amazonaws.eu"},
        {"us-iso-east-1", false, "https://kms.us-iso-east-1.c2s.ic.gov", "https://sts.us-iso-east-1.c2s.ic.gov"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct token_settings settings = {.label = (char *)"t", .region = (char *)rows[i].region, .fips = rows[i].fips};
        void *opened;
        assert_int_equal(aws_backend.open(&settings, &opened), ENVELOPE_OK);
        assert_string_equal(((struct aws *)opened)->endpoint, rows[i].endpoint);
        assert_string_equal(((struct aws *)opened)->sts_endpoint, rows[i].sts);
        aws_backend.close(opened);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(encrypt_names_the_key_and_only_the_digest_of_the_associated_data),
        T(decrypt_returns_the_plaintext_and_keeps_the_request_id),
        T(a_reply_about_another_key_is_refused),
        T(malformed_replies_are_refused),
        T(errors_are_judged_by_their_name_not_their_status),
        T(a_dry_run_that_would_work_is_a_success),
        T(a_multi_region_key_is_addressed_in_the_tokens_region),
        cmocka_unit_test(a_multi_region_key_is_found_by_its_arn_in_any_region),
        T(a_key_of_another_region_is_refused_before_anything_is_sent),
        T(reencrypt_names_both_keys_and_both_contexts),
        T(a_list_that_never_ends_is_refused),
        T(keys_that_are_not_for_encryption_or_not_the_customers_are_not_shown),
        T(an_alias_of_another_account_is_named_by_its_arn),
        T(grant_tokens_go_whole_with_every_use_of_a_key),
        T(creating_a_key_is_never_repeated_blindly),
        T(no_key_is_made_for_an_alias_that_is_taken),
        cmocka_unit_test(endpoints_follow_region_partition_and_fips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
