/* Data keys and versions of keys: what the OpenBao backend asks, and what it makes of the answers. */
#include "bao_bench.h"

#define DATA_KEY_REPLY(more) ENVELOPE_REPLY("{\"ciphertext\":\"vault:v1:AAAA\",\"key_version\":1" more "}")

static struct backend_call data_key(size_t length, bool wanted)
{
    return (struct backend_call){.op = BACKEND_DATA_KEY, .key = "kek", .length = length, .wants_plaintext = wanted};
}

static void the_engine_is_asked_only_for_what_it_can_do(void **unused)
{
    (void)unused;
    static const struct {
        size_t length;
        bool aad, can;
    } cases[] = {{16, false, true},  {32, false, true},   {64, false, true},
                 {24, false, false}, {128, false, false}, {32, true, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct backend_call call = data_key(cases[i].length, true);
        call.has_aad = cases[i].aad; /* which it would ignore */
        call.aad = (const uint8_t *)"aad";
        call.aad_length = 3;
        assert_true(backend_offers(&bao_backend, &call) == cases[i].can);
    }
}

static void a_data_key_comes_with_its_blob(void **unused)
{
    (void)unused;
    struct bench bench = {.call = data_key(16, true)};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    reply(&bench, 200, key_reply);
    assert_request(&bench, HTTP_POST, "transit/datakey/plaintext/kek", "{\"bits\":128}");
    reply(&bench, 200, DATA_KEY_REPLY(",\"plaintext\":\"MDEyMzQ1Njc4OWFiY2RlZg==\""));
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_string_equal(buffer_text(&bench.call.out), "vault:v1:AAAA");
    assert_int_equal(bench.call.plaintext.length, 16);
    assert_memory_equal(bench.call.plaintext.bytes, "0123456789abcdef", 16);
    bench_close(&bench);
}

static void a_key_not_asked_for_stays_in_the_service(void **unused)
{
    (void)unused;
    struct bench bench = {.call = data_key(64, false)};
    bench_open(&bench);
    begin(&bench);
    reply(&bench, 200, key_reply);
    assert_request(&bench, HTTP_POST, "transit/datakey/wrapped/kek", "{\"bits\":512}");
    reply(&bench, 200, DATA_KEY_REPLY(",\"plaintext\":\"MDEyMzQ1Njc4OWFiY2RlZg==\"")); /* told all the same */
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.plaintext.length, 0);
    bench_close(&bench);
}

static void data_keys_are_refused_where_encryption_is(void **unused)
{
    (void)unused;
    static const struct bench_refusal cases[] = {
        {404, not_found, BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "was it deleted?"},
        {200, derived_reply, BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, "Derived"},
        {200, exportable_reply, BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, "Exportable"},
        {200, rsa_4096_reply, BACKEND_FAILED, CKR_KEY_TYPE_INCONSISTENT, "rsa-4096"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench = {.call = data_key(32, true)};
        bench_open(&bench);
        begin(&bench);
        assert_refusal(&bench, &cases[i]);
        bench_close(&bench);
    }
}

static void a_data_key_of_another_length_or_none_is_refused(void **unused)
{
    (void)unused;
    static const char *const replies[] = {DATA_KEY_REPLY(""), DATA_KEY_REPLY(",\"plaintext\":\"AAAA\""),
                                          DATA_KEY_REPLY(",\"plaintext\":7"),
                                          ENVELOPE_REPLY("{\"plaintext\":\"MDEyMzQ1Njc4OWFiY2RlZg==\"}"),
                                          ENVELOPE_REPLY("{\"ciphertext\":\"kms:AAAA\"}")};
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
        struct bench bench = {.call = data_key(16, true)};
        bench_open(&bench);
        begin(&bench);
        reply(&bench, 200, key_reply);
        reply(&bench, 200, replies[i]);
        assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "make a data key");
        bench_close(&bench);
    }
}

static void a_dry_run_of_a_data_key_gives_none(void **unused)
{
    (void)unused;
    struct bench bench = {.call = data_key(16, true)};
    bench.call.dry_run = true;
    bench_open(&bench);
    begin(&bench);
    reply(&bench, 200, key_reply);
    reply(&bench, 200, DATA_KEY_REPLY(",\"plaintext\":\"MDEyMzQ1Njc4OWFiY2RlZg==\""));
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.out.length + bench.call.plaintext.length, 0);
    bench_close(&bench);
}

/* ---- versions ---- */

static void versions_are_read_from_the_keys_description(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_VERSIONS, .key = "kek"}};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    reply(&bench, 200, KEY_REPLY(PLAIN_FLAGS, "{\"4\":1}", "7", "4", "aes256-gcm96"));
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.versions.latest, 7);
    assert_int_equal(bench.call.versions.min_decryption, 4);
    assert_int_equal(bench.call.versions.min_encryption, 0);
    bench_close(&bench);
}

/* OpenBao describes the key in its reply, Vault says nothing and is asked. */
static void a_rotation_tells_the_new_version_where_it_can(void **unused)
{
    (void)unused;
    static const struct {
        long status;
        const char *reply;
        long read_status; /* 0: not asked */
        const char *read;
        unsigned version;
    } cases[] = {
        {200, KEY_REPLY(PLAIN_FLAGS, "{\"1\":1}", "3", "1", "aes256-gcm96"), 0, NULL, 3},
        {204, "", 200, KEY_REPLY(PLAIN_FLAGS, "{\"1\":1}", "2", "1", "aes256-gcm96"), 2},
        {204, "", 403, "{\"errors\":[\"permission denied\"]}", 0},
        {204, "", 500, "{\"errors\":[\"internal error\"]}", 0},
        {204, "", 200, "<html>", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench = {.call = {.op = BACKEND_ROTATE, .key = "kek"}};
        bench_open(&bench);
        begin(&bench);
        assert_request(&bench, HTTP_POST, "transit/keys/kek/rotate", "{}");
        assert_true(bench.request.once);
        reply(&bench, cases[i].status, cases[i].reply);
        if (cases[i].read_status) {
            assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
            assert_true(bench.request.optional); /* it was rotated: a lost answer must not look like a failure */
            reply(&bench, cases[i].read_status, cases[i].read);
        }
        assert_int_equal(bench.step, BACKEND_DONE);
        assert_int_equal(bench.call.rv, CKR_OK);
        assert_int_equal(bench.call.versions.latest, cases[i].version);
        bench_close(&bench);
    }
}

static void limits_are_set_in_one_request(void **unused)
{
    (void)unused;
    static const struct {
        uint64_t decryption, encryption;
        const char *body;
    } cases[] = {{2, 3, "{\"min_decryption_version\":2,\"min_encryption_version\":3}"},
                 {BACKEND_KEEP, 0, "{\"min_encryption_version\":0}"},
                 {5, BACKEND_KEEP, "{\"min_decryption_version\":5}"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench = {.call = {.op = BACKEND_SET_VERSIONS, .key = "kek"}};
        bench.call.versions.min_decryption = cases[i].decryption;
        bench.call.versions.min_encryption = cases[i].encryption;
        bench_open(&bench);
        begin(&bench);
        assert_request(&bench, HTTP_POST, "transit/keys/kek/config", cases[i].body);
        assert_int_equal(reply(&bench, 204, ""), BACKEND_DONE);
        bench_close(&bench);
    }
}

static void every_refusal_of_versions_has_its_code(void **unused)
{
    (void)unused;
    static const struct {
        enum backend_op op;
        struct bench_refusal refusal;
    } cases[] = {
        {BACKEND_ROTATE, {400, "{\"errors\":[\"key not found\"]}", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "deleted"}},
        {BACKEND_ROTATE,
         {403, "{\"errors\":[\"permission denied\"]}", BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, "policy"}},
        {BACKEND_ROTATE, {503, "{\"errors\":[\"Vault is sealed\"]}", BACKEND_FAILED, CKR_DEVICE_REMOVED, "unseal"}},
        {BACKEND_SET_VERSIONS,
         {400, "{\"errors\":[\"cannot set min decryption version of 9, latest key version is 2\"]}", BACKEND_FAILED,
          CKR_ARGUMENTS_BAD, "latest key version is 2"}},
        {BACKEND_SET_VERSIONS,
         {400, "{\"errors\":[\"min decryption version should not be less then min available version\"]}",
          BACKEND_FAILED, CKR_ARGUMENTS_BAD, "trimmed"}},
        {BACKEND_SET_VERSIONS,
         {400, "{\"errors\":[\"no existing key named kek could be found\"]}", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID,
          "deleted"}},
        {BACKEND_VERSIONS, {404, not_found, BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "deleted"}},
        {BACKEND_VERSIONS,
         {200, "{\"data\":{\"type\":\"aes256-gcm96\",\"latest_version\":-1}}", BACKEND_FAILED, CKR_DEVICE_ERROR,
          "description"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench = {.call = {.op = cases[i].op, .key = "kek", .versions = {0, 9, 9}}};
        bench_open(&bench);
        begin(&bench);
        assert_refusal(&bench, &cases[i].refusal);
        bench_close(&bench);
    }
}

static void key_names_that_would_change_the_path_are_not_sent(void **unused)
{
    (void)unused;
    static const enum backend_op ops[] = {BACKEND_DATA_KEY, BACKEND_VERSIONS, BACKEND_ROTATE, BACKEND_SET_VERSIONS,
                                          BACKEND_BATCH};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        struct bench bench = {.call = {.op = ops[i], .key = "../sys/seal", .length = 32, .each = BACKEND_DECRYPT}};
        bench_open(&bench);
        begin(&bench);
        assert_refused(&bench, BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "cannot be a transit key");
        bench_close(&bench);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_engine_is_asked_only_for_what_it_can_do),
        cmocka_unit_test(a_data_key_comes_with_its_blob),
        cmocka_unit_test(a_key_not_asked_for_stays_in_the_service),
        cmocka_unit_test(data_keys_are_refused_where_encryption_is),
        cmocka_unit_test(a_data_key_of_another_length_or_none_is_refused),
        cmocka_unit_test(a_dry_run_of_a_data_key_gives_none),
        cmocka_unit_test(versions_are_read_from_the_keys_description),
        cmocka_unit_test(a_rotation_tells_the_new_version_where_it_can),
        cmocka_unit_test(limits_are_set_in_one_request),
        cmocka_unit_test(every_refusal_of_versions_has_its_code),
        cmocka_unit_test(key_names_that_would_change_the_path_are_not_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
