/* What the Google Cloud KMS backend asks, and what it makes of answers, in the shapes of the REST reference (v1). */
#include <openssl/pem.h>

#include "cloud_bench.h"
#include "gcp.h"

#define RING "projects/my-project/locations/europe-west1/keyRings/prod"
#define BASE "https://cloudkms.googleapis.com/v1/"
#define KEY RING "/cryptoKeys/kek"
/* CRC-32C of "Hello", "abc", "cipher", "moved". */
#define HELLO_SUM "2178485787"
#define ABC_SUM "910901175"
#define CIPHER_SUM "4285073148"
#define MOVED_SUM "463850369"
#define DESCRIPTION(name, state)                                                                                       \
    "{\"name\":\"" RING "/cryptoKeys/" name "\",\"primary\":{\"name\":\"" RING "/cryptoKeys/" name                     \
    "/cryptoKeyVersions/2\",\"state\":\"" state "\",\"createTime\":\"2023-05-01T10:00:00.123456789Z\","                \
    "\"protectionLevel\":\"HSM\",\"algorithm\":\"GOOGLE_SYMMETRIC_ENCRYPTION\"},\"purpose\":\"ENCRYPT_DECRYPT\","      \
    "\"createTime\":\"2023-05-01T10:00:00.5Z\",\"versionTemplate\":{\"protectionLevel\":\"HSM\","                      \
    "\"algorithm\":\"GOOGLE_SYMMETRIC_ENCRYPTION\"},\"destroyScheduledDuration\":\"86400s\"}"
#define ENCRYPTED(key, value, sum, verified, verified_aad)                                                             \
    "{\"name\":\"" key "/cryptoKeyVersions/2\",\"ciphertext\":\"" value "\",\"ciphertextCrc32c\":\"" sum               \
    "\",\"verifiedPlaintextCrc32c\":" verified ",\"verifiedAdditionalAuthenticatedDataCrc32c\":" verified_aad          \
    ",\"protectionLevel\":\"HSM\"}"
#define DECRYPTED "{\"plaintext\":\"SGVsbG8=\",\"plaintextCrc32c\":\"" HELLO_SUM "\",\"usedPrimary\":true}"
#define ERROR(code, status, message)                                                                                   \
    "{\"error\":{\"code\":" code ",\"message\":\"" message "\",\"status\":\"" status "\"}}"
#define NOT_FOUND ERROR("404", "NOT_FOUND", "CryptoKey " KEY " not found.")

static void open_ring(struct bench *bench)
{
    unsetenv("GOOGLE_APPLICATION_CREDENTIALS");
    bench->settings.key_ring = (char *)RING;
    if (!bench->settings.auth)
        bench->settings.auth = (char *)"metadata";
    bench_open(bench, &gcp_backend);
}

static void the_checksum_is_crc32c(void **state)
{
    (void)state;
    assert_int_equal(gcp_crc32c((const uint8_t *)"123456789", 9), 0xe3069283);
    assert_int_equal(gcp_crc32c((const uint8_t *)"", 0), 0);
}

static void encrypt_and_decrypt_carry_the_associated_data_and_all_sums(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_ring(&bench);
    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_AEAD, KEY, "Hello", "abc"));
    assert_asks(&bench, HTTP_POST, BASE KEY ":encrypt",
                "{\"plaintext\":\"SGVsbG8=\",\"plaintextCrc32c\":\"" HELLO_SUM
                "\",\"additionalAuthenticatedData\":\"YWJj\",\"additionalAuthenticatedDataCrc32c\":\"" ABC_SUM "\"}");
    assert_true(has_header(&bench, "Authorization: Bearer eyJ.token"));
    answer(&bench, 200, ENCRYPTED(KEY, "Y2lwaGVy", CIPHER_SUM, "true", "true"));
    assert_done(&bench, "cipher");
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, KEY, "cipher", "abc"));
    assert_asks(&bench, HTTP_POST, BASE KEY ":decrypt",
                "{\"ciphertext\":\"Y2lwaGVy\",\"ciphertextCrc32c\":\"" CIPHER_SUM
                "\",\"additionalAuthenticatedData\":\"YWJj\",\"additionalAuthenticatedDataCrc32c\":\"" ABC_SUM "\"}");
    answer(&bench, 200, DECRYPTED);
    assert_done(&bench, "Hello");
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, KEY, "cipher", NULL));
    assert_asks(&bench, HTTP_POST, BASE KEY ":decrypt",
                "{\"ciphertext\":\"Y2lwaGVy\",\"ciphertextCrc32c\":\"" CIPHER_SUM "\"}");
    bench_close(&bench);
}

static void what_was_changed_on_the_way_is_asked_for_again_and_not_given_out(void **state)
{
    static const struct {
        enum backend_op op;
        const char *body;
    } rows[] = {
        {BACKEND_DECRYPT, "{\"plaintext\":\"SGVsbG8=\",\"plaintextCrc32c\":\"2178485788\"}"},
        {BACKEND_DECRYPT, "{\"plaintext\":\"SGVsbG8=\"}"},
        {BACKEND_DECRYPT, "{\"plaintext\":\"SGVsbG8=\",\"plaintextCrc32c\":\"x\"}"},
        {BACKEND_DECRYPT, "{\"plaintext\":\"SGVsbG8=\",\"plaintextCrc32c\":\"-1\"}"},
        {BACKEND_ENCRYPT, ENCRYPTED(KEY, "Y2lwaGVy", "1", "true", "true")},
        {BACKEND_ENCRYPT, ENCRYPTED(KEY, "Y2lwaGVy", CIPHER_SUM, "false", "true")},
        {BACKEND_ENCRYPT, ENCRYPTED(KEY, "Y2lwaGVy", CIPHER_SUM, "true", "false")},
        {BACKEND_ENCRYPT, ENCRYPTED(KEY, "Y2lwaGVy", CIPHER_SUM, "\"true\"", "true")},
    };
    struct bench bench = {0};
    (void)state;
    open_ring(&bench);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin(&bench, crypt_call(rows[i].op, BACKEND_AEAD, KEY, "cipher", "abc"));
        answer(&bench, 200, rows[i].body);
        assert_refused(&bench, BACKEND_RETRY, CKR_DEVICE_ERROR, "changed on the way");
        assert_int_equal(bench.call.out.length, 0);
    }
    /* And the second answer counts. */
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, KEY, "cipher", "abc"));
    answer(&bench, 200, rows[0].body);
    bench.step = BACKEND_SEND; /* as token.c sends the same request again */
    answer(&bench, 200, DECRYPTED);
    assert_done(&bench, "Hello");
    assert_int_equal(bench.call.rv, CKR_OK);
    bench_close(&bench);
}

static void damaged_replies_are_refused(void **state)
{
    static const char *const bodies[] = {"",
                                         "null",
                                         "{",
                                         "{}",
                                         "{\"plaintext\":\"\",\"plaintextCrc32c\":\"0\"}",
                                         "{\"plaintext\":\"SGVsbG8\",\"plaintextCrc32c\":\"" HELLO_SUM "\"}",
                                         "{\"plaintext\":5,\"plaintextCrc32c\":\"" HELLO_SUM "\"}",
                                         "{\"plaintext\":\"SGVsbG8=\",\"plaintext\":\"SGVsbG8=\"}",
                                         "{\"plaintext\":\"\\u0100AAA\",\"plaintextCrc32c\":\"1\"}",
                                         "{\"plaintext\":\"SGVsbG8=\",\"plaintextCrc32c\":\"" HELLO_SUM "\"",
                                         "<html>"};
    static const char *const keys[] = {
        ENCRYPTED(RING "/cryptoKeys/other", "Y2lwaGVy", CIPHER_SUM, "true", "true"),
        ENCRYPTED("projects/x/locations/y/keyRings/z/cryptoKeys/kek", "Y2lwaGVy", CIPHER_SUM, "true", "true"),
        ENCRYPTED("kek", "Y2lwaGVy", CIPHER_SUM, "true", "true"),
        "{\"ciphertext\":\"Y2lwaGVy\",\"ciphertextCrc32c\":\"" CIPHER_SUM "\"}"};
    struct bench bench = {0};
    (void)state;
    open_ring(&bench);
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, KEY, "cipher", NULL));
        answer(&bench, 200, bodies[i]);
        assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "a reply that is not one of it");
        assert_int_equal(bench.call.out.length, 0);
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_AEAD, KEY, "Hello", NULL));
        answer(&bench, 200, keys[i]);
        assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "another key");
        assert_int_equal(bench.call.out.length, 0);
    }
    bench_close(&bench);
}

static void refusals_are_judged_by_their_status_name(void **state)
{
    static const struct bench_refusal rows[] = {
        {400,
         ERROR("400", "FAILED_PRECONDITION", KEY "/cryptoKeyVersions/1 is not enabled, current state is: DISABLED."),
         BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, "current state is: DISABLED"},
        {400,
         ERROR("400", "INVALID_ARGUMENT", "Decryption failed: verify that 'name' refers to the correct CryptoKey."),
         BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, "associated data"},
        {404, NOT_FOUND, BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "no such key"},
        {403, ERROR("403", "PERMISSION_DENIED", "Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied"),
         BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "useToDecrypt"},
        {401, ERROR("401", "UNAUTHENTICATED", "Request had invalid authentication credentials."), BACKEND_REAUTH,
         CKR_USER_NOT_LOGGED_IN, "not accepted"},
        {429, ERROR("429", "RESOURCE_EXHAUSTED", "Quota exceeded"), BACKEND_RETRY, CKR_DEVICE_ERROR, "too many"},
        {503, ERROR("503", "UNAVAILABLE", "x"), BACKEND_RETRY, CKR_DEVICE_ERROR, "away"},
        {500, ERROR("500", "INTERNAL", "x"), BACKEND_RETRY, CKR_DEVICE_ERROR, "failed"},
        {502, "<html>Bad gateway</html>", BACKEND_RETRY, CKR_DEVICE_ERROR, "failed"},
        {401, "", BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, "not accepted"},
        {418, ERROR("418", "TEAPOT", "x"), BACKEND_FAILED, CKR_DEVICE_ERROR, "TEAPOT"},
    };
    struct bench bench = {0};
    (void)state;
    open_ring(&bench);
    assert_refusals(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, KEY, "cipher", "abc"), rows,
                    sizeof rows / sizeof rows[0]);
    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_AEAD, KEY, "Hello", NULL));
    answer(&bench, 400, ERROR("400", "INVALID_ARGUMENT", "x"));
    assert_refused(&bench, BACKEND_FAILED, CKR_ARGUMENTS_BAD, "argument");
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, "projects/other/cryptoKeys/kek", "cipher", NULL));
    assert_refused(&bench, BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "cannot be a key");
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_OAEP_SHA256, KEY, "cipher", NULL));
    assert_refused(&bench, BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "names no version");
    bench_close(&bench);
}

static void rewrap_decrypts_and_encrypts_and_says_so(void **state)
{
    struct bench bench = {0};
    struct backend_call call = crypt_call(BACKEND_REWRAP, BACKEND_AEAD, KEY, "cipher", NULL);
    (void)state;
    open_ring(&bench);
    call.key_to = RING "/cryptoKeys/second";
    call.has_aad_to = true;
    call.aad_to = (const uint8_t *)"abc";
    call.aad_to_length = 3;
    begin(&bench, call);
    answer(&bench, 200, DECRYPTED);
    assert_asks(&bench, HTTP_POST, BASE RING "/cryptoKeys/second:encrypt",
                "{\"plaintext\":\"SGVsbG8=\",\"plaintextCrc32c\":\"" HELLO_SUM
                "\",\"additionalAuthenticatedData\":\"YWJj\",\"additionalAuthenticatedDataCrc32c\":\"" ABC_SUM "\"}");
    answer(&bench, 200, ENCRYPTED(RING "/cryptoKeys/second", "bW92ZWQ=", MOVED_SUM, "true", "true"));
    assert_done(&bench, "moved");
    assert_true(bench.call.plaintext_left);
    bench_close(&bench);
}

static void random_numbers_are_asked_for_in_sizes_the_service_gives(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_ring(&bench);
    begin(&bench, (struct backend_call){.op = BACKEND_RANDOM, .length = 3});
    assert_asks(&bench, HTTP_POST, BASE "projects/my-project/locations/europe-west1:generateRandomBytes",
                "{\"lengthBytes\":8,\"protectionLevel\":\"HSM\"}");
    answer(&bench, 200, "{\"data\":\"AAAAAAAAAAA=\",\"dataCrc32c\":\"2351477386\"}");
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.out.length, 3);
    begin(&bench, (struct backend_call){.op = BACKEND_RANDOM, .length = 5000});
    assert_non_null(strstr(buffer_text(&bench.request.body), "\"lengthBytes\":1024,"));
    answer(&bench, 200, "{\"data\":\"AAAAAAAAAAA=\",\"dataCrc32c\":\"2351477386\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "not as many");
    bench_close(&bench);
}

/* --- Keys --- */

static void a_list_is_followed_to_its_end(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_ring(&bench);
    begin(&bench, (struct backend_call){.op = BACKEND_LIST});
    assert_asks(&bench, HTTP_GET, BASE RING "/cryptoKeys?pageSize=100", "");
    answer(
        &bench, 200,
        "{\"cryptoKeys\":[" DESCRIPTION(
            "kek", "ENABLED") ",{\"name\":\"" RING "/cryptoKeys/"
                              "signs\",\"purpose\":\"ASYMMETRIC_SIGN\"}],\"nextPageToken\":\"Cg&=\",\"totalSize\":3}");
    assert_asks(&bench, HTTP_GET, BASE RING "/cryptoKeys?pageSize=100&pageToken=Cg%26%3D", "");
    answer(&bench, 200, "{\"cryptoKeys\":[" DESCRIPTION("off", "DISABLED") "],\"totalSize\":3}");
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 2);
    const struct backend_key *key = &bench.call.keys.items[0];
    assert_string_equal(key->id, KEY);
    assert_string_equal(key->label, "kek");
    assert_true(key->enabled && key->can_encrypt && !key->imported);
    assert_int_equal(key->bits, 256);
    assert_int_equal(key->created, 1682935200 * CLOCK_SECOND);
    assert_false(bench.call.keys.items[1].enabled);
    assert_string_equal(bench.call.keys.items[1].state, "DISABLED");
    begin(&bench, (struct backend_call){.op = BACKEND_LIST});
    answer(&bench, 200, "{}"); /* an empty ring */
    assert_int_equal(bench.step, BACKEND_DONE);
    begin(&bench, (struct backend_call){.op = BACKEND_LIST});
    answer(&bench, 200, "{\"nextPageToken\":\"a\"}");
    answer(&bench, 200, "{\"nextPageToken\":\"a\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "does not come to its end");
    begin(&bench, (struct backend_call){.op = BACKEND_LIST});
    answer(&bench, 200, "{\"cryptoKeys\":[{\"name\":\"projects/x/cryptoKeys/kek\",\"purpose\":\"ENCRYPT_DECRYPT\"}]}");
    assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "of this ring");
    bench_close(&bench);
}

static void a_key_is_described_made_and_never_deleted(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_ring(&bench);
    begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = "kek"});
    assert_asks(&bench, HTTP_GET, BASE KEY, "");
    answer(&bench, 200, DESCRIPTION("kek", "ENABLED"));
    assert_int_equal(bench.call.keys.count, 1);
    begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = KEY});
    answer(&bench, 404, NOT_FOUND);
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 0);
    begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = "../secrets"});
    assert_int_equal(bench.step, BACKEND_DONE);
    begin(&bench, (struct backend_call){.op = BACKEND_CREATE, .label = "made", .bits = 256});
    assert_asks(&bench, HTTP_POST, BASE RING "/cryptoKeys?cryptoKeyId=made",
                "{\"purpose\":\"ENCRYPT_DECRYPT\",\"versionTemplate\":{\"algorithm\":\"GOOGLE_SYMMETRIC_ENCRYPTION\","
                "\"protectionLevel\":\"HSM\"}}");
    assert_true(bench.request.once);
    answer(&bench, 200, DESCRIPTION("made", "ENABLED"));
    assert_string_equal(bench.call.keys.items[0].label, "made");
    begin(&bench, (struct backend_call){.op = BACKEND_CREATE, .label = "made", .bits = 256});
    answer(&bench, 409, ERROR("409", "ALREADY_EXISTS", "x"));
    assert_refused(&bench, BACKEND_FAILED, CKR_TEMPLATE_INCONSISTENT, "already");
    begin(&bench, (struct backend_call){.op = BACKEND_CREATE, .label = "a/b", .bits = 256});
    assert_refused(&bench, BACKEND_FAILED, CKR_ATTRIBUTE_VALUE_INVALID, "label");
    begin(&bench, (struct backend_call){.op = BACKEND_DELETE, .key = KEY});
    assert_refused(&bench, BACKEND_FAILED, CKR_ACTION_PROHIBITED, "destroy the versions");
    bench_close(&bench);
}

/* --- Logging in --- */

/* A service account's key file as Google hands it out, with a key made for this run. */
static EVP_PKEY *write_account(const char *path, const char *type, const char *token_uri)
{
    EVP_PKEY *key = EVP_RSA_gen(2048);
    BIO *pem = BIO_new(BIO_s_mem());
    char *text = NULL;
    FILE *file = fopen(path, "w");
    assert_true(key && pem && file && PEM_write_bio_PKCS8PrivateKey(pem, key, NULL, NULL, 0, NULL, NULL));
    long length = BIO_get_mem_data(pem, &text);
    fprintf(file,
            "{\n  \"type\": \"%s\",\n  \"project_id\": \"p\",\n  \"private_key_id\": \"0a1b\",\n  \"private_key\": \"",
            type);
    for (long i = 0; i < length; i++)
        if (text[i] == '\n')
            fputs("\\n", file);
        else
            fputc(text[i], file);
    fprintf(file, "\",\n  \"client_email\": \"envelope@p.iam.gserviceaccount.com\",\n  \"token_uri\": \"%s\"\n}\n",
            token_uri);
    assert_int_equal(fclose(file), 0);
    BIO_free(pem);
    return key;
}

static void a_service_account_signs_an_assertion_that_verifies(void **state)
{
    static const char path[] = "test_gcp_account.json";
    static const char form[] = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    struct bench bench = {.settings = {.auth = (char *)"service-account", .credentials_file = (char *)path}};
    struct buffer header = {0}, claims = {0};
    (void)state;
    EVP_PKEY *key = write_account(path, "service_account", "https://oauth2.googleapis.com/token");
    open_ring(&bench);
    log_in(&bench, "");
    if (bench.step != BACKEND_SEND)
        fail_msg("%s", error_text());
    assert_string_equal(bench.request.url, "https://oauth2.googleapis.com/token");
    const char *body = buffer_text(&bench.request.body);
    assert_int_equal(strncmp(body, form, sizeof form - 1), 0);
    read_jwt(body + sizeof form - 1, key, false, &header, &claims);
    assert_string_equal(buffer_text(&header), "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":\"0a1b\"}");
    long long issued = 0, expires = 0;
    assert_int_equal(
        sscanf(buffer_text(&claims),
               "{\"iss\":\"envelope@p.iam.gserviceaccount.com\",\"scope\":"
               "\"https://www.googleapis.com/auth/cloudkms\",\"aud\":\"https://oauth2.googleapis.com/token\","
               "\"iat\":%lld,\"exp\":%lld}",
               &issued, &expires),
        2);
    assert_int_equal(expires - issued, 3600);
    EVP_PKEY_free(key);
    answer(&bench, 200, "{\"access_token\":\"ya29.new\",\"expires_in\":3599,\"token_type\":\"Bearer\"}");
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "ya29.new");
    log_in(&bench, "");
    answer(&bench, 400, "{\"error\":\"invalid_grant\",\"error_description\":\"Invalid JWT Signature.\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "Invalid JWT Signature");
    buffer_clear(&header);
    buffer_clear(&claims);
    unlink(path);
    bench_close(&bench);
}

static void key_files_that_cannot_be_used_are_refused_with_their_name(void **state)
{
    static const char path[] = "test_gcp_bad.json";
    static const struct {
        const char *text, *words;
    } rows[] = {
        {"", "no JSON object"},
        {"{\"type\":\"external_account\"}", "service_account"},
        {"{\"type\":\"service_account\"}", "client_email"},
        {"{\"type\":\"service_account\",\"client_email\":\"a\",\"private_key\":\"-----BEGIN\\nSECRET\"}", "PEM"},
        {"{\"type\":\"service_account\",\"client_email\":\"a\",\"private_key\":\"SECRET\",\"token_uri\":\"http://evil/"
         "\"}",
         "https://"},
        {"{\"type\":\"service_account\",\"client_email\":\"a\",\"private_key\":\"SECRET\",\"token_uri\":"
         "\"https://a@evil/token\"}",
         "token_uri"},
        {"{\"private_key\":\"\\u0100SECRET\"}", "no JSON object"},
    };
    struct bench bench = {.settings = {.auth = (char *)"service-account", .credentials_file = (char *)path}};
    (void)state;
    open_ring(&bench);
    unlink(path);
    log_in(&bench, "");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, path);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_file(path, rows[i].text);
        log_in(&bench, "");
        assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, rows[i].words);
        assert_non_null(strstr(error_text(), path));
        assert_null(strstr(error_text(), "SECRET"));
    }
    unlink(path);
    bench_close(&bench);
}

static void the_metadata_server_is_known_by_its_flavor(void **state)
{
    static const char token[] = "{\"access_token\":\"ya29.md\",\"expires_in\":3599,\"token_type\":\"Bearer\"}";
    struct bench bench = {0};
    (void)state;
    open_ring(&bench);
    log_in(&bench, "");
    assert_asks(&bench, HTTP_GET,
                "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token", "");
    assert_true(has_header(&bench, "Metadata-Flavor: Google") && bench.request.direct && bench.request.optional);
    bench.reply_headers = "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n\r\n";
    answer(&bench, 200, token);
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "ya29.md");
    log_in(&bench, "");
    answer(&bench, 200, token);
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "not the metadata server");
    assert_asks_the_machine_only(&bench);
    bench_close(&bench);
}

static void settings_that_cannot_work_are_refused(void **state)
{
    static const struct bench_settings rows[] = {
        {{.auth = (char *)"metadata"}, "key-ring"},
        {{.auth = (char *)"metadata", .key_ring = (char *)"projects/p/locations/l"}, "key-ring"},
        {{.auth = (char *)"metadata", .key_ring = (char *)RING "/cryptoKeys/x"}, "key-ring"},
        {{.auth = (char *)"metadata", .key_ring = (char *)"projects/../locations/l/keyRings/r"}, "key-ring"},
        {{.key_ring = (char *)RING}, "auth must be one of"},
        {{.key_ring = (char *)RING, .auth = (char *)"metadata", .credentials_file = (char *)"x"}, "credentials-file"},
        {{.key_ring = (char *)RING, .auth = (char *)"metadata", .endpoint = (char *)"http://example.com"}, "https://"},
    };
    (void)state;
    assert_settings(&gcp_backend, rows, sizeof rows / sizeof rows[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checksum_is_crc32c),
        cmocka_unit_test(encrypt_and_decrypt_carry_the_associated_data_and_all_sums),
        cmocka_unit_test(what_was_changed_on_the_way_is_asked_for_again_and_not_given_out),
        cmocka_unit_test(damaged_replies_are_refused),
        cmocka_unit_test(refusals_are_judged_by_their_status_name),
        cmocka_unit_test(rewrap_decrypts_and_encrypts_and_says_so),
        cmocka_unit_test(random_numbers_are_asked_for_in_sizes_the_service_gives),
        cmocka_unit_test(a_list_is_followed_to_its_end),
        cmocka_unit_test(a_key_is_described_made_and_never_deleted),
        cmocka_unit_test(a_service_account_signs_an_assertion_that_verifies),
        cmocka_unit_test(key_files_that_cannot_be_used_are_refused_with_their_name),
        cmocka_unit_test(the_metadata_server_is_known_by_its_flavor),
        cmocka_unit_test(settings_that_cannot_work_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
