/* What an operator is told when AWS refuses: the cause, and nothing that is secret. No network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends.h"
#include "base/clock.h"
#include "base/error.h"

#define ARN "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
#define TOKEN "FwoGZXIvYXdzEInvented//////session+token=="

struct rig {
    struct token_settings settings;
    void *state;
    struct credentials *credentials;
    struct http_request request;
    struct backend_call call;
};

/* 2026-11-23 06:00:00 UTC */
static int64_t stopped_clock(void)
{
    return 1795413600 * CLOCK_SECOND;
}

static int set_up(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    rig->settings = (struct token_settings){
        .label = (char *)"t", .backend = (char *)"aws-kms", .region = (char *)"eu-west-1", .pending_days = 7};
    unsetenv("AWS_ENDPOINT_URL");
    setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1);
    assert_int_equal(aws_backend.open(&rig->settings, &rig->state), ENVELOPE_OK);
    rig->credentials = credentials_new("AKID", "SECRET", TOKEN, 0);
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
    credentials_unref(rig->credentials);
    aws_backend.close(rig->state);
    free(rig);
    return 0;
}

/* A Decrypt that is answered like this; headers are whole lines. */
static enum backend_step answered(struct rig *rig, long status, const char *headers, const char *body)
{
    struct http_reply reply = {.status = status};
    backend_call_clear(&rig->call);
    http_request_clear(&rig->request);
    rig->call = (struct backend_call){
        .op = BACKEND_DECRYPT, .key = ARN, .in = (const uint8_t *)"x", .in_length = 1, .credentials = rig->credentials};
    assert_int_equal(aws_backend.step(rig->state, &rig->call, NULL, &rig->request), BACKEND_SEND);
    buffer_append_text(&reply.headers, "HTTP/1.1 400 Bad Request\r\n");
    buffer_append_text(&reply.headers, headers);
    buffer_append_text(&reply.body, body);
    enum backend_step step = aws_backend.step(rig->state, &rig->call, &reply, &rig->request);
    http_reply_clear(&reply);
    return step;
}

static void a_session_token_that_the_service_quotes_is_not_repeated(void **state)
{
    static const char *const bodies[] = {
        "{\"__type\":\"InvalidSignatureException\",\"message\":\"The request signature we calculated does not match "
        "the "
        "signature you provided.\\n\\nThe Canonical String for this request should have "
        "been\\n'POST\\n/\\n\\nhost:kms.eu-west-1.amazonaws.com\\nx-amz-security-token:" TOKEN "\\n'\"}",
        "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we calculated does not "
        "match: x-amz-security-token:" TOKEN "</Message></Error></ErrorResponse>",
        "{\"__type\":\"UnrecognizedClientException\",\"message\":\"The request signature we calculated for " TOKEN
        " is of nobody\"}",
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        assert_int_equal(answered(rig, 400, "", bodies[i]), BACKEND_REAUTH);
        assert_null(strstr(error_text(), "FwoG"));
        assert_null(strstr(rig->call.service_message, "FwoG"));
        assert_non_null(strstr(rig->call.service_message, "The request signature we calculated"));
    }
}

static void a_clock_that_is_off_is_told_from_a_key_that_is_wrong(void **state)
{
    static const char expired[] =
        "{\"__type\":\"InvalidSignatureException\",\"message\":\"Signature expired: "
        "20261123T060000Z is now earlier than 20261123T060500Z (20261123T061000Z - 5 min.)\"}";
    static const char mismatch[] = "{\"__type\":\"InvalidSignatureException\",\"message\":\"The request signature we "
                                   "calculated does not match the signature you provided.\"}";
    static const struct {
        const char *date, *body;
        enum backend_step step;
        const char *said;
    } rows[] = {
        {"Date: Mon, 23 Nov 2026 06:10:00 GMT\r\n", expired, BACKEND_FAILED,
         "this machine's clock is 600 s behind the service's; set it right"},
        {"date: Mon, 23 Nov 2026 05:50:00 GMT\r\n", expired, BACKEND_FAILED,
         "this machine's clock is 600 s ahead of the service's; set it right"},
        {"Date: Mon, 23 Nov 2026 06:00:07 GMT\r\n", mismatch, BACKEND_REAUTH,
         "the secret access key is wrong (this machine's clock is right)"},
        {"Date: Mon, 23 Nov 2026 06:02:00 GMT\r\n", mismatch, BACKEND_REAUTH,
         "this machine's clock is 120 s behind the service's ("},
        {"", mismatch, BACKEND_REAUTH, "wrong secret key, or this machine's clock is off"},
        {"Date: yesterday\r\n", mismatch, BACKEND_REAUTH, "wrong secret key, or this machine's clock is off"},
        {"Date: Mon, 23 ovD 2026 06:00:00 GMT\r\n", mismatch, BACKEND_REAUTH,
         "wrong secret key, or this machine's clock is off"},
        {"Date: Mon, 23 Nov 2026 07:00:00 GMT\r\n", "{\"__type\":\"RequestExpired\"}", BACKEND_FAILED,
         "this machine's clock is 3600 s behind the service's; set it right"},
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(answered(rig, 400, rows[i].date, rows[i].body), rows[i].step);
        assert_int_equal(rig->call.rv, CKR_USER_NOT_LOGGED_IN);
        assert_non_null(strstr(error_text(), rows[i].said));
    }
}

static void an_error_may_be_named_in_a_header_only(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(answered(rig, 400, "x-amzn-ErrorType: ThrottlingException:http://internal/\r\n", ""),
                     BACKEND_RETRY);
    assert_string_equal(rig->call.service_code, "ThrottlingException");
    assert_int_equal(answered(rig, 400, "X-Amzn-Errortype: DisabledException\r\n", "{}"), BACKEND_FAILED);
    assert_int_equal(rig->call.rv, CKR_KEY_FUNCTION_NOT_PERMITTED);
}

/* By the API's lists of errors, and what its gates and STS add. */
static void every_passing_failure_is_tried_again_and_no_other(void **state)
{
    static const char *const passing[] = {"ThrottlingException",
                                          "Throttling",
                                          "RequestLimitExceeded",
                                          "RequestThrottledException",
                                          "SlowDown",
                                          "KMSInternalException",
                                          "KeyUnavailableException",
                                          "DependencyTimeoutException",
                                          "RequestTimeout"};
    static const char *const lasting[] = {
        "DisabledException",         "KMSInvalidStateException", "NotFoundException",          "LimitExceededException",
        "InvalidKeyUsageException",  "AccessDeniedException",    "InvalidGrantTokenException", "ValidationException",
        "UnknownOperationException", "SerializationException"};
    struct rig *rig = *state;
    char body[128];
    for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++) {
        snprintf(body, sizeof body, "{\"__type\":\"%s\"}", passing[i]);
        assert_int_equal(answered(rig, 400, "", body), BACKEND_RETRY);
        assert_int_equal(error_status(), ENVELOPE_E_HSM_UNAVAILABLE);
    }
    for (size_t i = 0; i < sizeof lasting / sizeof lasting[0]; i++) {
        snprintf(body, sizeof body, "{\"__type\":\"%s\"}", lasting[i]);
        assert_int_equal(answered(rig, 400, "", body), BACKEND_FAILED);
        assert_non_null(strstr(error_text(), lasting[i]));
    }
    assert_int_equal(answered(rig, 408, "", ""), BACKEND_RETRY);
    assert_int_equal(answered(rig, 503, "", "<html>Service Unavailable</html>"), BACKEND_RETRY);
}

/* Pending deletion, pending import, a key store that is away: KMS has one name for all, and its words say which. */
static void the_state_of_a_key_is_told_in_the_services_words(void **state)
{
    static const char *const words[] = {ARN " is pending deletion.", ARN " is pending import.", ARN " is unavailable."};
    struct rig *rig = *state;
    char body[256];
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        snprintf(body, sizeof body, "{\"__type\":\"KMSInvalidStateException\",\"message\":\"%s\"}", words[i]);
        assert_int_equal(answered(rig, 400, "", body), BACKEND_FAILED);
        assert_int_equal(rig->call.rv, CKR_KEY_HANDLE_INVALID);
        assert_non_null(strstr(error_text(), words[i]));
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(a_session_token_that_the_service_quotes_is_not_repeated),
        T(a_clock_that_is_off_is_told_from_a_key_that_is_wrong),
        T(an_error_may_be_named_in_a_header_only),
        T(every_passing_failure_is_tried_again_and_no_other),
        T(the_state_of_a_key_is_told_in_the_services_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
