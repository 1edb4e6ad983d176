/* What the OpenBao backend asks of the engine to encrypt, decrypt, rewrap; and what refusals mean. */
#include "bao_bench.h"

/* ---- encrypt, decrypt, rewrap, random ---- */

static void encryption_reads_the_key_and_then_sends_the_plaintext(void **unused)
{
    (void)unused;
    struct bench bench = {.settings.name_space = (char *)"team-a", .call = crypt_call(BACKEND_ENCRYPT, "hello", "aad")};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    assert_true(has_header(&bench, "X-Vault-Token: hvs.secret"));
    assert_true(has_header(&bench, "X-Vault-Namespace: team-a"));
    assert_true(has_header(&bench, "X-Vault-Request: true"));
    reply(&bench, 200, key_reply);
    assert_request(&bench, HTTP_POST, "transit/encrypt/kek",
                   "{\"plaintext\":\"aGVsbG8=\",\"associated_data\":\"YWFk\"}");
    assert_true(has_header(&bench, "Content-Type: application/json"));
    assert_int_equal(reply(&bench, 200, encrypted_reply), BACKEND_DONE);
    assert_int_equal(bench.call.rv, CKR_OK);
    assert_string_equal(buffer_text(&bench.call.out), blob);
    assert_string_equal(bench.call.request_id, "05981f22-2df3-f52a-457a-ac29af2b6983");
    bench_close(&bench);
}

static void a_missing_key_is_never_encrypted_with(void **unused)
{
    (void)unused;
    struct bench bench = {.call = crypt_call(BACKEND_ENCRYPT, "hello", NULL)};
    bench_open(&bench);
    begin(&bench);
    reply(&bench, 404, not_found);
    assert_refused(&bench, BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "was it deleted?");
    bench_close(&bench);
}

static void keys_in_a_state_or_of_a_type_that_forbids_it_do_not_encrypt(void **unused)
{
    (void)unused;
    static const struct {
        const char *reply;
        CK_RV rv;
        const char *words;
    } cases[] = {
        {derived_reply, CKR_KEY_FUNCTION_NOT_PERMITTED, "Derived"},
        {exportable_reply, CKR_KEY_FUNCTION_NOT_PERMITTED, "Exportable"},
        {KEY_REPLY("\"soft_deleted\":true," PLAIN_FLAGS, "{\"1\":1}", "1", "1", "aes256-gcm96"),
         CKR_KEY_FUNCTION_NOT_PERMITTED, "SoftDeleted"},
        {KEY_REPLY(PLAIN_FLAGS, "{\"1\":1}", "1", "1", "chacha20-poly1305"), CKR_KEY_TYPE_INCONSISTENT, "chacha20"},
        {rsa_4096_reply, CKR_KEY_TYPE_INCONSISTENT, "rsa-4096"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench = {.call = crypt_call(BACKEND_ENCRYPT, "hello", NULL)};
        bench_open(&bench);
        begin(&bench);
        reply(&bench, 200, cases[i].reply);
        assert_refused(&bench, BACKEND_FAILED, cases[i].rv, cases[i].words);
        bench_close(&bench);
    }
}

static void decryption_sends_the_ciphertext_as_it_stands(void **unused)
{
    (void)unused;
    struct bench bench = {.call = crypt_call(BACKEND_DECRYPT, blob, "aad"), .settings.mount = (char *)"/team/transit/"};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "team/transit/decrypt/kek",
                   "{\"ciphertext\":\"vault:v1:8BWaZDlF7nPtiwr4D0tYcPOm8ARVMkrbG2BXilb2z8n8\","
                   "\"associated_data\":\"YWFk\"}");
    assert_int_equal(reply(&bench, 200, decrypted_reply), BACKEND_DONE);
    assert_int_equal(bench.call.out.length, 5);
    assert_memory_equal(bench.call.out.bytes, "hello", 5);
    bench_close(&bench);
}

static void a_dry_run_brings_no_plaintext(void **unused)
{
    (void)unused;
    struct bench bench = {.call = crypt_call(BACKEND_DECRYPT, blob, NULL)};
    bench.call.dry_run = true;
    bench_open(&bench);
    begin(&bench);
    assert_int_equal(reply(&bench, 200, decrypted_reply), BACKEND_DONE);
    assert_int_equal(bench.call.out.length, 0);
    bench_close(&bench);
}

static void what_is_no_ciphertext_is_not_sent(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"",
                                      "vault:v",
                                      "vault:v1",
                                      "vault:v1:",
                                      "vault:v:AA",
                                      "vault:vx:AA==",
                                      "vault:v1:AA\"}",
                                      "vault:v1:AA AA",
                                      "kms:v1:AA",
                                      "vault:v1:A\\A",
                                      "vault:v12345678901:AAAA"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct bench bench = {.call = crypt_call(BACKEND_DECRYPT, bad[i], NULL)};
        bench_open(&bench);
        begin(&bench);
        assert_refused(&bench, BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, "vault:vN");
        bench_close(&bench);
    }
}

static void key_names_that_would_change_the_path_are_not_sent(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"", "..", "a/b", "a?b", "a b", "a%2fb", ".a", "a.", "a\nb", "k\xC3\xA9k"};
    static const enum backend_op ops[] = {BACKEND_ENCRYPT, BACKEND_DECRYPT, BACKEND_DELETE};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (size_t op = 0; op < sizeof ops / sizeof ops[0]; op++) {
            struct bench bench = {.call = crypt_call(ops[op], blob, NULL), .settings.destroy = true};
            bench.call.key = bad[i];
            bench_open(&bench);
            begin(&bench);
            assert_refused(&bench, BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "cannot be a transit key");
            bench_close(&bench);
        }
}

static void rewrap_stays_inside_only_within_one_key_and_without_associated_data(void **unused)
{
    (void)unused;
    struct bench bench = {.call = crypt_call(BACKEND_REWRAP, blob, NULL)};
    bench.call.key_to = "kek";
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "transit/rewrap/kek",
                   "{\"ciphertext\":\"vault:v1:8BWaZDlF7nPtiwr4D0tYcPOm8ARVMkrbG2BXilb2z8n8\"}");
    assert_int_equal(reply(&bench, 200, encrypted_reply), BACKEND_DONE);
    assert_string_equal(buffer_text(&bench.call.out), blob);
    assert_false(bench.call.plaintext_left);
    bench_close(&bench);

    /* To another key, or with associated data on either side: decrypt, read the new key, encrypt. */
    for (int variant = 0; variant < 3; variant++) {
        struct bench other = {.call = crypt_call(BACKEND_REWRAP, blob, variant == 1 ? "old" : NULL)};
        other.call.key_to = variant == 0 ? "new-kek" : "kek";
        other.call.has_aad_to = variant == 2;
        other.call.aad_to = (const uint8_t *)"new";
        other.call.aad_to_length = variant == 2 ? 3 : 0;
        bench_open(&other);
        begin(&other);
        assert_non_null(strstr(other.request.url, "/transit/decrypt/kek"));
        reply(&other, 200, decrypted_reply);
        assert_request(&other, HTTP_GET, variant == 0 ? "transit/keys/new-kek" : "transit/keys/kek", "");
        reply(&other, 200, key_reply);
        assert_request(&other, HTTP_POST, variant == 0 ? "transit/encrypt/new-kek" : "transit/encrypt/kek",
                       variant == 2 ? "{\"plaintext\":\"aGVsbG8=\",\"associated_data\":\"bmV3\"}"
                                    : "{\"plaintext\":\"aGVsbG8=\"}");
        assert_int_equal(reply(&other, 200, encrypted_reply), BACKEND_DONE);
        assert_true(other.call.plaintext_left);
        bench_close(&other);
    }
}

static void an_rsa_ciphertext_is_tried_with_each_version_from_the_newest(void **unused)
{
    (void)unused;
    static const char refused[] =
        "{\"errors\":[\"1 error occurred:\\n\\t* failed to RSA decrypt the ciphertext: crypto/rsa: decryption "
        "error\\n\\n\"]}";
    uint8_t bare[256];
    memset(bare, 0, sizeof bare);
    for (int found = 0; found < 2; found++) {
        struct bench bench = {.call = {.op = BACKEND_DECRYPT, .key = "kek", .cipher = BACKEND_OAEP_SHA256, .in = bare}};
        bench.call.in_length = sizeof bare;
        bench_open(&bench);
        begin(&bench);
        assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
        reply(&bench, 200, rsa_reply);
        assert_non_null(strstr(buffer_text(&bench.request.body), "\"vault:v2:AAAA"));
        reply(&bench, 500, refused); /* 500, and yet an answer: not to be tried again */
        assert_int_equal(bench.step, BACKEND_SEND);
        assert_non_null(strstr(buffer_text(&bench.request.body), "\"vault:v1:AAAA"));
        if (found) {
            assert_int_equal(reply(&bench, 200, decrypted_reply), BACKEND_DONE);
            assert_int_equal(bench.call.out.length, 5);
        } else {
            reply(&bench, 500, refused);
            assert_refused(&bench, BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, "damaged");
        }
        bench_close(&bench);
    }
}

static void replies_larger_than_what_was_promised_are_refused(void **unused)
{
    (void)unused;
    static const struct {
        enum backend_op op;
        const char *head;
    } cases[] = {{BACKEND_DECRYPT, "{\"data\":{\"plaintext\":\""},
                 {BACKEND_REWRAP, "{\"data\":{\"ciphertext\":\"vault:v1:"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench = {.call = crypt_call(cases[i].op, blob, NULL)};
        struct buffer large = {0};
        bench.call.key_to = "kek";
        bench_open(&bench);
        begin(&bench);
        buffer_append_text(&large, cases[i].head);
        for (int at = 0; at < 6000; at += 4)
            buffer_append_text(&large, "AAAA");
        buffer_append_text(&large, "\"}}");
        reply(&bench, 200, buffer_text(&large));
        assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "text");
        assert_true(bench.call.out.length <= bao_backend.max_ciphertext);
        buffer_clear(&large);
        bench_close(&bench);
    }
}

static void random_bytes_come_in_pieces_of_the_size_asked_for(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_RANDOM, .length = 5}};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "transit/random/5", "{\"format\":\"base64\"}");
    assert_int_equal(reply(&bench, 200, ENVELOPE_REPLY("{\"random_bytes\":\"aGVsbG8=\"}")), BACKEND_DONE);
    assert_int_equal(bench.call.out.length, 5);
    bench_close(&bench);
    struct bench shorter = {.call = {.op = BACKEND_RANDOM, .length = 6}};
    bench_open(&shorter);
    begin(&shorter);
    reply(&shorter, 200, ENVELOPE_REPLY("{\"random_bytes\":\"aGVsbG8=\"}"));
    assert_refused(&shorter, BACKEND_FAILED, CKR_DEVICE_ERROR, "random_bytes");
    bench_close(&shorter);
    struct bench longer = {.call = {.op = BACKEND_RANDOM, .length = 100000}};
    bench_open(&longer);
    begin(&longer);
    assert_request(&longer, HTTP_POST, "transit/random/65536", "{\"format\":\"base64\"}");
    bench_close(&longer);
}

/* ---- refusals ---- */

static void every_refusal_has_its_code(void **unused)
{
    (void)unused;
    static const struct bench_refusal cases[] = {
        {400, "{\"errors\":[\"cipher: message authentication failed\"]}", BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID,
         "associated data"},
        {400, "{\"errors\":[\"invalid ciphertext: version is too new\"]}", BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID,
         "version is too new"},
        {400, "{\"errors\":[\"encryption key not found\"]}", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "deleted"},
        {400, "{\"errors\":[\"ciphertext or signature version is disallowed by policy (too old)\"]}", BACKEND_FAILED,
         CKR_KEY_FUNCTION_NOT_PERMITTED, "min_decryption_version"},
        {500, "{\"errors\":[\"refusing to use soft-deleted key\"]}", BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED,
         "restore"},
        {400, "{\"errors\":[\"'[0].associated_data' provided for non-AEAD cipher suite rsa-4096\"]}", BACKEND_FAILED,
         CKR_KEY_TYPE_INCONSISTENT, "aes256-gcm96"},
        {400, "{\"errors\":[\"something else\"]}", BACKEND_FAILED, CKR_FUNCTION_FAILED, "something else"},
        {403, denied, BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, "\"kek\": permission denied;"},
        {404, "{\"errors\":[\"no handler for route \\\"x/decrypt/kek\\\". route entry not found.\"]}", BACKEND_FAILED,
         CKR_DEVICE_ERROR, "mount"},
        {404, "{\"errors\":[\"namespace not found\"]}", BACKEND_FAILED, CKR_DEVICE_ERROR, "see namespace in kms.cnf"},
        {405, "{\"errors\":[\"unsupported operation\"]}", BACKEND_FAILED, CKR_FUNCTION_FAILED, "HTTP 405"},
        {412, "{\"errors\":[\"required index state not present\"]}", BACKEND_RETRY, CKR_DEVICE_ERROR, "HTTP 412"},
        {429, "{\"errors\":[\"request path \\\"x\\\": rate limit quota exceeded\"]}", BACKEND_RETRY, CKR_DEVICE_ERROR,
         "rate limit"},
        {472, "{}", BACKEND_RETRY, CKR_DEVICE_REMOVED, "standby"},
        {473, "", BACKEND_RETRY, CKR_DEVICE_REMOVED, "standby"},
        {307, "", BACKEND_RETRY, CKR_DEVICE_REMOVED, "standby"},
        {500, "{\"errors\":[\"internal error\"]}", BACKEND_RETRY, CKR_DEVICE_ERROR, "internal error"},
        {502, "<html>bad gateway</html>", BACKEND_RETRY, CKR_DEVICE_ERROR, "not an answer of OpenBao"},
        {503, "{\"errors\":[\"Vault is sealed\"]}", BACKEND_FAILED, CKR_DEVICE_REMOVED, "unseal"},
        {503, "{\"errors\":[\"OpenBao is sealed\"]}", BACKEND_FAILED, CKR_DEVICE_REMOVED, "unseal"},
        {503, "no server is available", BACKEND_RETRY, CKR_DEVICE_REMOVED, "HTTP 503"},
        {200, "<html>a captive portal</html>", BACKEND_FAILED, CKR_DEVICE_ERROR, "JSON"},
        {200, "{\"data\":{\"plaintext\":7}}", BACKEND_FAILED, CKR_DEVICE_ERROR, "plaintext"},
        {200, "{\"data\":{\"plaintext\":\"aGVsbG8\"}}", BACKEND_FAILED, CKR_DEVICE_ERROR, "plaintext"},
        {200, "[]", BACKEND_FAILED, CKR_DEVICE_ERROR, "JSON"},
        {204, "", BACKEND_FAILED, CKR_DEVICE_ERROR, "plaintext"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench = {.call = crypt_call(BACKEND_DECRYPT, blob, "aad")};
        bench_open(&bench);
        begin(&bench);
        assert_refusal(&bench, &cases[i]);
        assert_int_equal(bench.call.out.length, 0);
        bench_close(&bench);
    }
}

static void the_services_words_are_kept_and_printable(void **unused)
{
    (void)unused;
    struct bench bench = {.call = crypt_call(BACKEND_DECRYPT, blob, NULL)};
    bench_open(&bench);
    begin(&bench);
    reply(&bench, 400, "{\"errors\":[\"a\\u001b[31m\",\"b\\u0007\"]}");
    assert_string_equal(bench.call.service_code, "HTTP 400");
    assert_null(strchr(bench.call.service_message, '\x1b'));
    assert_null(strchr(error_text(), '\x07'));
    assert_non_null(strstr(bench.call.service_message, "; b"));
    bench_close(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encryption_reads_the_key_and_then_sends_the_plaintext),
        cmocka_unit_test(a_missing_key_is_never_encrypted_with),
        cmocka_unit_test(keys_in_a_state_or_of_a_type_that_forbids_it_do_not_encrypt),
        cmocka_unit_test(decryption_sends_the_ciphertext_as_it_stands),
        cmocka_unit_test(a_dry_run_brings_no_plaintext),
        cmocka_unit_test(what_is_no_ciphertext_is_not_sent),
        cmocka_unit_test(key_names_that_would_change_the_path_are_not_sent),
        cmocka_unit_test(rewrap_stays_inside_only_within_one_key_and_without_associated_data),
        cmocka_unit_test(an_rsa_ciphertext_is_tried_with_each_version_from_the_newest),
        cmocka_unit_test(replies_larger_than_what_was_promised_are_refused),
        cmocka_unit_test(random_bytes_come_in_pieces_of_the_size_asked_for),
        cmocka_unit_test(every_refusal_has_its_code),
        cmocka_unit_test(the_services_words_are_kept_and_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
