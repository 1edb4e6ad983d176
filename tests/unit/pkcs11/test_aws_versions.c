/* Data keys and versions of keys: what the AWS backend asks, and what it makes of the answers. No network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends.h"
#include "base/error.h"

#define ARN "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"

struct rig {
    struct token_settings settings;
    void *state;
    struct credentials *credentials;
    struct http_request request;
    struct backend_call call;
};

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
    rig->credentials = credentials_new("AKID", "SECRET", "SESSION", 0);
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    http_request_clear(&rig->request);
    backend_call_clear(&rig->call);
    credentials_unref(rig->credentials);
    aws_backend.close(rig->state);
    free(rig);
    return 0;
}

static enum backend_step begin(struct rig *rig, struct backend_call call)
{
    backend_call_clear(&rig->call);
    http_request_clear(&rig->request);
    rig->call = call;
    rig->call.key = ARN;
    rig->call.credentials = rig->credentials;
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

static void assert_asked(const struct rig *rig, const char *action, const char *body)
{
    char target[96];
    const char *line = buffer_text(&rig->request.headers), *end = line + rig->request.headers.length;
    snprintf(target, sizeof target, "X-Amz-Target: TrentService.%s", action);
    while (line < end && strcmp(line, target) != 0)
        line += strlen(line) + 1;
    assert_true(line < end);
    assert_string_equal(buffer_text(&rig->request.body), body);
}

static void a_data_key_is_bound_by_the_digest_of_the_associated_data(void **state)
{
    struct rig *rig = *state;
    struct backend_call call = {.op = BACKEND_DATA_KEY,
                                .length = 5,
                                .wants_plaintext = true,
                                .has_aad = true,
                                .aad = (const uint8_t *)"abc",
                                .aad_length = 3};
    assert_int_equal(begin(rig, call), BACKEND_SEND);
    assert_asked(rig, "GenerateDataKey",
                 "{\"KeyId\":\"" ARN "\",\"EncryptionContext\":{\"envelope-aad\":"
                 "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"},\"NumberOfBytes\":5}");
    assert_int_equal(
        answer(rig, 200, "{\"KeyId\":\"" ARN "\",\"CiphertextBlob\":\"YmxvYg==\",\"Plaintext\":\"SGVsbG8=\"}"),
        BACKEND_DONE);
    assert_string_equal(buffer_text(&rig->call.out), "blob");
    assert_string_equal(buffer_text(&rig->call.plaintext), "Hello");
}

static void a_key_not_asked_for_stays_in_the_service(void **state)
{
    struct rig *rig = *state;
    rig->settings.grant_tokens = (char *)"grant";
    assert_int_equal(begin(rig, (struct backend_call){.op = BACKEND_DATA_KEY, .length = 32}), BACKEND_SEND);
    assert_asked(rig, "GenerateDataKeyWithoutPlaintext",
                 "{\"KeyId\":\"" ARN "\",\"NumberOfBytes\":32,\"GrantTokens\":[\"grant\"]}");
    assert_int_equal(answer(rig, 200, "{\"KeyId\":\"" ARN "\",\"CiphertextBlob\":\"YmxvYg==\"}"), BACKEND_DONE);
    assert_int_equal(rig->call.plaintext.length, 0);
}

static void a_dry_run_of_a_data_key_gives_none(void **state)
{
    struct rig *rig = *state;
    struct backend_call call = {.op = BACKEND_DATA_KEY, .length = 32, .wants_plaintext = true, .dry_run = true};
    assert_int_equal(begin(rig, call), BACKEND_SEND);
    assert_non_null(strstr(buffer_text(&rig->request.body), "\"DryRun\":true"));
    assert_int_equal(answer(rig, 412, "{\"__type\":\"DryRunOperationException\"}"), BACKEND_DONE);
    assert_int_equal(rig->call.out.length + rig->call.plaintext.length, 0);
    /* A service that knows no dry runs sends the key. */
    call.length = 5;
    assert_int_equal(begin(rig, call), BACKEND_SEND);
    assert_int_equal(
        answer(rig, 200, "{\"KeyId\":\"" ARN "\",\"CiphertextBlob\":\"YmxvYg==\",\"Plaintext\":\"SGVsbG8=\"}"),
        BACKEND_DONE);
    assert_int_equal(rig->call.out.length + rig->call.plaintext.length, 0);
}

static void malformed_data_keys_are_refused(void **state)
{
    struct rig *rig = *state;
    static const char *const bodies[] = {
        "",
        "[]",
        "{\"KeyId\":\"" ARN "\",\"CiphertextBlob\":\"YmxvYg==\"}",
        "{\"KeyId\":\"" ARN "\",\"Plaintext\":\"SGVsbG8=\"}",
        "{\"KeyId\":\"" ARN "\",\"CiphertextBlob\":\"YmxvYg==\",\"Plaintext\":\"SGVsbG8h\"}",
        "{\"KeyId\":\"" ARN "\",\"CiphertextBlob\":\"YmxvYg==\",\"Plaintext\":\"SGk=\"}",
        "{\"KeyId\":\"arn:other\",\"CiphertextBlob\":\"YmxvYg==\",\"Plaintext\":\"SGVsbG8=\"}",
        "{\"CiphertextBlob\":\"YmxvYg==\",\"Plaintext\":\"SGVsbG8=\",\"Plaintext\":\"SGVsbG8=\",\"KeyId\":\"" ARN "\"}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct backend_call call = {.op = BACKEND_DATA_KEY, .length = 5, .wants_plaintext = true};
        assert_int_equal(begin(rig, call), BACKEND_SEND);
        if (answer(rig, 200, bodies[i]) != BACKEND_FAILED || rig->call.rv != CKR_DEVICE_ERROR)
            fail_msg("accepted: %s", bodies[i]);
    }
}

static void kms_makes_no_data_key_over_1024_bytes(void **state)
{
    (void)state;
    assert_true(backend_offers(&aws_backend, &(struct backend_call){.op = BACKEND_DATA_KEY, .length = 1024}));
    assert_false(backend_offers(&aws_backend, &(struct backend_call){.op = BACKEND_DATA_KEY, .length = 1025}));
}

/* ---- versions ---- */

static void versions_are_the_rotations_and_the_first(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(begin(rig, (struct backend_call){.op = BACKEND_VERSIONS}), BACKEND_SEND);
    assert_asked(rig, "ListKeyRotations", "{\"KeyId\":\"" ARN "\"}");
    assert_int_equal(answer(rig, 200, "{\"Rotations\":[{\"KeyId\":\"x\"},{}],\"Truncated\":true,\"NextMarker\":\"m\"}"),
                     BACKEND_SEND);
    assert_asked(rig, "ListKeyRotations", "{\"KeyId\":\"" ARN "\",\"Marker\":\"m\"}");
    assert_int_equal(answer(rig, 200, "{\"Rotations\":[{}],\"Truncated\":false}"), BACKEND_DONE);
    assert_int_equal(rig->call.versions.latest, 4);
    assert_int_equal(rig->call.versions.min_decryption, 1);
    assert_int_equal(rig->call.versions.min_encryption, 0);
}

static void a_list_of_rotations_that_never_ends_is_refused(void **state)
{
    struct rig *rig = *state;
    static const char page[] = "{\"Rotations\":[],\"Truncated\":true,\"NextMarker\":\"m\"}";
    assert_int_equal(begin(rig, (struct backend_call){.op = BACKEND_VERSIONS}), BACKEND_SEND);
    assert_int_equal(answer(rig, 200, page), BACKEND_SEND);
    assert_int_equal(answer(rig, 200, page), BACKEND_FAILED);
    assert_int_equal(rig->call.rv, CKR_DEVICE_ERROR);
    assert_int_equal(begin(rig, (struct backend_call){.op = BACKEND_VERSIONS}), BACKEND_SEND);
    assert_int_equal(answer(rig, 200, "{\"Rotations\":{}}"), BACKEND_FAILED);
}

static void a_rotation_is_never_repeated_blindly(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(begin(rig, (struct backend_call){.op = BACKEND_ROTATE}), BACKEND_SEND);
    assert_asked(rig, "RotateKeyOnDemand", "{\"KeyId\":\"" ARN "\"}");
    assert_true(rig->request.once);
    assert_int_equal(answer(rig, 200, "{\"KeyId\":\"1234abcd-12ab-34cd-56ef-1234567890ab\"}"), BACKEND_DONE);
    assert_int_equal(rig->call.versions.latest, 0); /* begun, not ended: no number to tell */
}

static void every_refusal_of_a_rotation_has_its_code(void **state)
{
    struct rig *rig = *state;
    static const struct {
        const char *code;
        CK_RV rv;
        const char *words;
    } cases[] = {
        {"ConflictException", CKR_KEY_FUNCTION_NOT_PERMITTED, "under way"},
        {"LimitExceededException", CKR_DEVICE_MEMORY, "quota"},
        {"UnsupportedOperationException", CKR_FUNCTION_NOT_SUPPORTED, "not possible with this key"},
        {"DisabledException", CKR_KEY_FUNCTION_NOT_PERMITTED, "disabled"},
        {"AccessDeniedException", CKR_USER_NOT_LOGGED_IN, "policy"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[96];
        assert_int_equal(begin(rig, (struct backend_call){.op = BACKEND_ROTATE}), BACKEND_SEND);
        snprintf(body, sizeof body, "{\"__type\":\"%s\",\"message\":\"no\"}", cases[i].code);
        assert_int_equal(answer(rig, 400, body), BACKEND_FAILED);
        if (rig->call.rv != cases[i].rv || !strstr(error_text(), cases[i].words))
            fail_msg("%s: rv 0x%lx, %s", cases[i].code, rig->call.rv, error_text());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_data_key_is_bound_by_the_digest_of_the_associated_data, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_key_not_asked_for_stays_in_the_service, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_dry_run_of_a_data_key_gives_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(malformed_data_keys_are_refused, set_up, tear_down),
        cmocka_unit_test(kms_makes_no_data_key_over_1024_bytes),
        cmocka_unit_test_setup_teardown(versions_are_the_rotations_and_the_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_list_of_rotations_that_never_ends_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_rotation_is_never_repeated_blindly, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_refusal_of_a_rotation_has_its_code, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
