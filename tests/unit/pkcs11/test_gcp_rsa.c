/* RSA keys of Google Cloud KMS, in the shapes of the REST reference (v1): versions, public keys, asymmetricDecrypt. */
#include <openssl/pem.h>

#include "cloud_bench.h"
#include "gcp.h"

#define RING "projects/my-project/locations/europe-west1/keyRings/prod"
#define BASE "https://cloudkms.googleapis.com/v1/"
#define KEY RING "/cryptoKeys/pair"
#define VERSION(number) KEY "/cryptoKeyVersions/" number
#define DESCRIPTION                                                                                                    \
    "{\"name\":\"" KEY "\",\"purpose\":\"ASYMMETRIC_DECRYPT\",\"createTime\":\"2023-05-01T10:00:00Z\","                \
    "\"versionTemplate\":{\"protectionLevel\":\"HSM\",\"algorithm\":\"RSA_DECRYPT_OAEP_2048_SHA256\"}}"
#define ONE(number, state, algorithm)                                                                                  \
    "{\"name\":\"" VERSION(number) "\",\"state\":\"" state "\",\"protectionLevel\":\"HSM\",\"algorithm\":\"" algorithm \
                                   "\",\"createTime\":\"2023-05-01T10:00:00.123456789Z\"}"
#define SHA256_2048 "RSA_DECRYPT_OAEP_2048_SHA256"
#define VERSIONS(items) "{\"cryptoKeyVersions\":[" items "],\"totalSize\":2}"
#define PUBLIC_URL(number) BASE VERSION(number) "/publicKey"
/* CRC-32C of "Hello". */
#define HELLO_SUM "2178485787"
#define DECRYPTED(verified)                                                                                            \
    "{\"plaintext\":\"SGVsbG8=\",\"plaintextCrc32c\":\"" HELLO_SUM "\",\"verifiedCiphertextCrc32c\":" verified         \
    ",\"protectionLevel\":\"HSM\"}"

static EVP_PKEY *pair;

static int make_pair(void **state)
{
    (void)state;
    pair = EVP_RSA_gen(2048);
    return pair ? 0 : -1;
}

static int free_pair(void **state)
{
    (void)state;
    EVP_PKEY_free(pair);
    return 0;
}

static void open_ring(struct bench *bench)
{
    *bench = (struct bench){.settings = {.auth = (char *)"metadata", .key_ring = (char *)RING}};
    bench_open(bench, &gcp_backend);
}

/* publicKey's reply: the pair's, in PEM form. off is added to its sum. */
static const char *public_reply(const char *version, const char *algorithm, uint32_t off)
{
    static char reply[2048];
    BIO *memory = BIO_new(BIO_s_mem());
    char *pem = NULL;
    assert_true(memory && PEM_write_bio_PUBKEY(memory, pair));
    long length = BIO_get_mem_data(memory, &pem);
    int used = snprintf(reply, sizeof reply, "{\"pem\":\"");
    for (long i = 0; i < length; i++)
        used += snprintf(reply + used, sizeof reply - (size_t)used, pem[i] == '\n' ? "\\n" : "%c", pem[i]);
    snprintf(reply + used, sizeof reply - (size_t)used,
             "\",\"algorithm\":\"%s\",\"pemCrc32c\":\"%u\",\"name\":\"%s\",\"protectionLevel\":\"HSM\"}", algorithm,
             gcp_crc32c((const uint8_t *)pem, (size_t)length) + off, version);
    BIO_free(memory);
    return reply;
}

static void the_newest_version_that_is_enabled_is_the_key(void **state)
{
    struct bench bench;
    (void)state;
    open_ring(&bench);
    begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = "pair"});
    assert_asks(&bench, HTTP_GET, BASE KEY, "");
    answer(&bench, 200, DESCRIPTION);
    assert_asks(&bench, HTTP_GET, BASE KEY "/cryptoKeyVersions?pageSize=100", "");
    answer(&bench, 200,
           "{\"cryptoKeyVersions\":[" ONE("1", "ENABLED", SHA256_2048) "," ONE(
               "10", "ENABLED", SHA256_2048) "],\"nextPageToken\":\"more\"}");
    assert_asks(&bench, HTTP_GET, BASE KEY "/cryptoKeyVersions?pageSize=100&pageToken=more", "");
    answer(&bench, 200,
           VERSIONS(ONE("9", "ENABLED", SHA256_2048) "," ONE("11", "DISABLED", SHA256_2048) "," ONE(
               "12", "DESTROY_SCHEDULED", SHA256_2048) "," ONE("13", "ENABLED", "RSA_DECRYPT_OAEP_4096_SHA512")));
    assert_asks(&bench, HTTP_GET, PUBLIC_URL("10"), "");
    answer(&bench, 200, public_reply(VERSION("10"), SHA256_2048, 0));
    assert_done(&bench, "");
    assert_int_equal(bench.call.keys.count, 1);
    const struct backend_key *key = &bench.call.keys.items[0];
    assert_string_equal(key->id, VERSION("10"));
    assert_string_equal(key->label, "pair");
    assert_true(key->type == BACKEND_KEY_RSA && key->bits == 2048 && key->enabled && key->can_decrypt);
    assert_true(key->public_key_length > 256 && key->created == 1682935200 * CLOCK_SECOND);
    bench_close(&bench);
}

static void an_older_version_is_found_by_its_id_and_a_disabled_one_is_shown_as_such(void **state)
{
    struct bench bench;
    (void)state;
    open_ring(&bench);
    begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = VERSION("3")});
    assert_asks(&bench, HTTP_GET, BASE VERSION("3"), "");
    answer(&bench, 200, ONE("3", "ENABLED", SHA256_2048));
    assert_asks(&bench, HTTP_GET, PUBLIC_URL("3"), "");
    answer(&bench, 200, public_reply(VERSION("3"), SHA256_2048, 0));
    assert_done(&bench, "");
    assert_string_equal(bench.call.keys.items[0].id, VERSION("3"));
    begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = VERSION("3")});
    answer(&bench, 200, ONE("3", "DISABLED", SHA256_2048));
    assert_done(&bench, "");
    assert_int_equal(bench.call.keys.count, 1);
    assert_false(bench.call.keys.items[0].enabled);
    assert_string_equal(bench.call.keys.items[0].state, "DISABLED");
    static const char *const gone[] = {ONE("3", "DESTROYED", SHA256_2048), ONE("3", "ENABLED", "EC_SIGN_P256_SHA256"),
                                       "{}"};
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++) {
        begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = VERSION("3")});
        answer(&bench, 200, gone[i]);
        assert_done(&bench, "");
        assert_int_equal(bench.call.keys.count, 0);
    }
    begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = VERSION("3")});
    answer(&bench, 404, "{\"error\":{\"code\":404,\"message\":\"no\",\"status\":\"NOT_FOUND\"}}");
    assert_done(&bench, "");
    assert_int_equal(bench.call.keys.count, 0);
    bench_close(&bench);
}

static void a_list_describes_rsa_keys_one_by_one(void **state)
{
    struct bench bench;
    (void)state;
    open_ring(&bench);
    begin(&bench, (struct backend_call){.op = BACKEND_LIST});
    answer(&bench, 200,
           "{\"cryptoKeys\":[" DESCRIPTION ",{\"name\":\"" RING "/cryptoKeys/kek\",\"purpose\":\"ENCRYPT_DECRYPT\","
           "\"primary\":{\"name\":\"" RING "/cryptoKeys/kek/cryptoKeyVersions/1\",\"state\":\"ENABLED\"}},"
           "{\"name\":\"" RING "/cryptoKeys/sign\",\"purpose\":\"ASYMMETRIC_SIGN\"}]}");
    assert_asks(&bench, HTTP_GET, BASE KEY, "");
    answer(&bench, 200, DESCRIPTION);
    answer(&bench, 200, VERSIONS(ONE("1", "ENABLED", SHA256_2048)));
    answer(&bench, 200, public_reply(VERSION("1"), SHA256_2048, 0));
    assert_done(&bench, "");
    assert_int_equal(bench.call.keys.count, 2);
    assert_string_equal(bench.call.keys.items[0].label, "kek");
    assert_string_equal(bench.call.keys.items[1].id, VERSION("1"));
    bench_close(&bench);
}

/* roles/cloudkms.viewer does not give out public keys: one RSA key in the ring does not hide the others. */
static void a_list_shows_an_rsa_key_whose_public_key_is_not_ours_to_see(void **state)
{
    static const char refused[] = "{\"error\":{\"code\":403,\"message\":\"no\",\"status\":\"PERMISSION_DENIED\"}}";
    struct bench bench;
    (void)state;
    open_ring(&bench);
    begin(&bench, (struct backend_call){.op = BACKEND_LIST});
    answer(&bench, 200,
           "{\"cryptoKeys\":[{\"name\":\"" RING "/cryptoKeys/kek\",\"purpose\":\"ENCRYPT_DECRYPT\","
           "\"primary\":{\"name\":\"" RING "/cryptoKeys/kek/cryptoKeyVersions/1\",\"state\":\"ENABLED\"}}," DESCRIPTION
           "]}");
    answer(&bench, 200, DESCRIPTION);
    answer(&bench, 200, VERSIONS(ONE("1", "ENABLED", SHA256_2048)));
    answer(&bench, 403, refused);
    assert_done(&bench, "");
    assert_int_equal(bench.call.keys.count, 2);
    assert_string_equal(bench.call.keys.items[0].label, "kek");
    assert_string_equal(bench.call.keys.items[1].id, VERSION("1"));
    assert_null(bench.call.keys.items[1].public_key);
    /* Asked for by name, the reason is told. */
    begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = VERSION("1")});
    answer(&bench, 200, ONE("1", "ENABLED", SHA256_2048));
    answer(&bench, 403, refused);
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "no role allows it");
    bench_close(&bench);
}

static void a_pair_that_fails_while_it_is_made_is_not_waited_for(void **state)
{
    struct bench bench;
    (void)state;
    open_ring(&bench);
    begin(&bench, (struct backend_call){.op = BACKEND_CREATE, .label = "pair", .type = BACKEND_KEY_RSA, .bits = 2048});
    answer(&bench, 200, DESCRIPTION);
    answer(&bench, 200, VERSIONS(ONE("1", "PENDING_GENERATION", SHA256_2048)));
    assert_refused(&bench, BACKEND_RETRY, CKR_DEVICE_ERROR, "still being made");
    bench.step = BACKEND_SEND; /* the same again, as token.c does */
    answer(&bench, 200, VERSIONS(ONE("1", "GENERATION_FAILED", SHA256_2048)));
    assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "without a version");
    bench_close(&bench);
}

static void a_pair_is_made_and_waited_for(void **state)
{
    struct bench bench;
    struct backend_call call = {.op = BACKEND_CREATE, .label = "pair", .type = BACKEND_KEY_RSA, .bits = 2048};
    (void)state;
    open_ring(&bench);
    begin(&bench, call);
    assert_asks(&bench, HTTP_POST, BASE RING "/cryptoKeys?cryptoKeyId=pair",
                "{\"purpose\":\"ASYMMETRIC_DECRYPT\",\"versionTemplate\":{\"algorithm\":"
                "\"RSA_DECRYPT_OAEP_2048_SHA256\",\"protectionLevel\":\"HSM\"}}");
    answer(&bench, 200, DESCRIPTION);
    assert_asks(&bench, HTTP_GET, BASE KEY "/cryptoKeyVersions?pageSize=100", "");
    assert_false(bench.request.once);
    answer(&bench, 200, VERSIONS(ONE("1", "PENDING_GENERATION", SHA256_2048)));
    assert_refused(&bench, BACKEND_RETRY, CKR_DEVICE_ERROR, "still being made");
    bench.step = BACKEND_SEND; /* the same request again */
    answer(&bench, 200, VERSIONS(ONE("1", "ENABLED", SHA256_2048)));
    assert_asks(&bench, HTTP_GET, PUBLIC_URL("1"), "");
    answer(&bench, 200, public_reply(VERSION("1"), SHA256_2048, 0));
    assert_done(&bench, "");
    assert_string_equal(bench.call.keys.items[0].id, VERSION("1"));
    call.bits = 1024;
    begin(&bench, call);
    assert_refused(&bench, BACKEND_FAILED, CKR_KEY_SIZE_RANGE, "2048");
    bench_close(&bench);
}

static void what_is_encrypted_here_opens_with_the_private_key(void **state)
{
    struct bench bench;
    uint8_t opened[512];
    size_t length = sizeof opened;
    (void)state;
    open_ring(&bench);
    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_OAEP_SHA256, VERSION("2"), "Hello", NULL));
    assert_asks(&bench, HTTP_GET, PUBLIC_URL("2"), "");
    answer(&bench, 200, public_reply(VERSION("2"), SHA256_2048, 0));
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.out.length, 256);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(pair, NULL);
    assert_true(EVP_PKEY_decrypt_init(context) > 0 &&
                EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_OAEP_PADDING) > 0 &&
                EVP_PKEY_CTX_set_rsa_oaep_md(context, EVP_sha256()) > 0 &&
                EVP_PKEY_CTX_set_rsa_mgf1_md(context, EVP_sha256()) > 0 &&
                EVP_PKEY_decrypt(context, opened, &length, bench.call.out.bytes, bench.call.out.length) > 0);
    EVP_PKEY_CTX_free(context);
    assert_true(length == 5 && memcmp(opened, "Hello", 5) == 0);

    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_OAEP_SHA1, VERSION("2"), "Hello", NULL));
    answer(&bench, 200, public_reply(VERSION("2"), SHA256_2048, 0));
    assert_refused(&bench, BACKEND_FAILED, CKR_MECHANISM_PARAM_INVALID, "SHA-256 only");
    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_OAEP_SHA256, VERSION("2"), "Hello", NULL));
    answer(&bench, 200, public_reply(VERSION("2"), SHA256_2048, 1));
    assert_refused(&bench, BACKEND_RETRY, CKR_DEVICE_ERROR, "checksum");
    static const char *const algorithms[] = {"RSA_DECRYPT_OAEP_3072_SHA256", "EC_SIGN_P256_SHA256", ""};
    for (size_t i = 0; i < sizeof algorithms / sizeof algorithms[0]; i++) {
        begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_OAEP_SHA256, VERSION("2"), "Hello", NULL));
        answer(&bench, 200, public_reply(VERSION("2"), algorithms[i], 0));
        assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "no public key for RSA-OAEP");
    }
    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_OAEP_SHA256, VERSION("2"), "Hello", NULL));
    answer(&bench, 200, public_reply(VERSION("3"), SHA256_2048, 0));
    assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "another key");
    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_OAEP_SHA256, VERSION("2"), "Hello", NULL));
    answer(&bench, 400, "{\"error\":{\"code\":400,\"message\":\"is not enabled\",\"status\":\"FAILED_PRECONDITION\"}}");
    assert_refused(&bench, BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, "not enabled");
    bench_close(&bench);
}

static void asymmetric_decrypt_carries_the_sums(void **state)
{
    struct bench bench;
    (void)state;
    open_ring(&bench);
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_OAEP_SHA256, VERSION("2"), "cipher", NULL));
    assert_asks(&bench, HTTP_POST, BASE VERSION("2") ":asymmetricDecrypt",
                "{\"ciphertext\":\"Y2lwaGVy\",\"ciphertextCrc32c\":\"4285073148\"}");
    answer(&bench, 200, DECRYPTED("true"));
    assert_done(&bench, "Hello");
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_OAEP_SHA256, VERSION("2"), "cipher", NULL));
    answer(&bench, 200, DECRYPTED("false"));
    assert_refused(&bench, BACKEND_RETRY, CKR_DEVICE_ERROR, "checksum");
    assert_int_equal(bench.call.out.length, 0);
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_OAEP_SHA256, VERSION("2"), "cipher", NULL));
    answer(&bench, 200, "{\"plaintext\":\"SGVsbG8=\",\"plaintextCrc32c\":\"1\",\"verifiedCiphertextCrc32c\":true}");
    assert_refused(&bench, BACKEND_RETRY, CKR_DEVICE_ERROR, "checksum");
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_OAEP_SHA256, VERSION("2"), "cipher", NULL));
    answer(&bench, 400, "{\"error\":{\"code\":400,\"message\":\"Decryption failed\",\"status\":\"INVALID_ARGUMENT\"}}");
    assert_refused(&bench, BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, "damaged");
    struct backend_call dry = crypt_call(BACKEND_DECRYPT, BACKEND_OAEP_SHA256, VERSION("2"), "cipher", NULL);
    dry.dry_run = true;
    begin(&bench, dry);
    answer(&bench, 200, DECRYPTED("true"));
    assert_done(&bench, "");
    bench_close(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_version_that_is_enabled_is_the_key),
        cmocka_unit_test(an_older_version_is_found_by_its_id_and_a_disabled_one_is_shown_as_such),
        cmocka_unit_test(a_list_describes_rsa_keys_one_by_one),
        cmocka_unit_test(a_list_shows_an_rsa_key_whose_public_key_is_not_ours_to_see),
        cmocka_unit_test(a_pair_that_fails_while_it_is_made_is_not_waited_for),
        cmocka_unit_test(a_pair_is_made_and_waited_for),
        cmocka_unit_test(what_is_encrypted_here_opens_with_the_private_key),
        cmocka_unit_test(asymmetric_decrypt_carries_the_sums),
    };
    return cmocka_run_group_tests(tests, make_pair, free_pair);
}
