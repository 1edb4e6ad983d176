/* What the Azure backends ask, and what they make of answers, in the shapes of Key Vault's REST reference (7.4). */
#include "azure.h"
#include "cloud_bench.h"

#define BASE "https://myvault.vault.azure.net"
#define VERSION "78deebed173b48e48f55abf87ed4cf71"
#define KEY "kek/" VERSION
#define KID BASE "/keys/kek/" VERSION
/* The modulus of the reference's own example. */
#define MODULUS                                                                                                        \
    "2HJAE5fU3Cw2Rt9hEuq-F6XjINKGa-zskfISVqopqUy60GOs2eyhxbWbJBeUXNor_gf-tXtNeuqeBgitLeVa640UDvnEjYTKWjCniTxZRaU7ewY8" \
    "BfTSk-7KxoDdLsPSpX_MX4rwlAx-_1UGk5t4sQgTbm9T6Fm2oqFd37dsz5-Gj27UP2GTAShfJPFD7MqU_zIgOI0pfqsbNL5xTQVM29K6rX4jSPty" \
    "lZV3uWJtkoQIQnrIHhk1d0SC0KwlBV3V7R_LVYjiXLyIXsFzSNYgQ68ZjAwt8iL7I8Osa-ehQLM13DVvLASaf7Jnu3sC3CWl3Gyirgded6cfMmsw" \
    "JzY87w"
#define RSA_BUNDLE(name, enabled)                                                                                      \
    "{\"key\":{\"kid\":\"" BASE "/keys/" name "/" VERSION "\",\"kty\":\"RSA\",\"key_ops\":[\"encrypt\",\"decrypt\","   \
    "\"sign\",\"verify\",\"wrapKey\",\"unwrapKey\"],\"n\":\"" MODULUS                                                  \
    "\",\"e\":\"AQAB\"},\"attributes\":{\"enabled\":" enabled                                                          \
    ",\"created\":1493942451,\"updated\":1493942451,\"recoveryLevel\":\"Recoverable+Purgeable\"},\"tags\":{}}"
#define OCT_BUNDLE                                                                                                     \
    "{\"key\":{\"kid\":\"" KID "\",\"kty\":\"oct-HSM\",\"key_ops\":[\"encrypt\",\"decrypt\"]},"                        \
    "\"attributes\":{\"enabled\":true,\"created\":1493942451}}"
#define RESULT(value) "{\"kid\":\"" KID "\",\"value\":\"" value "\"}"
#define ERROR(code, message) "{\"error\":{\"code\":\"" code "\",\"message\":\"" message "\"}}"
#define INNER_ERROR(code, inner)                                                                                       \
    "{\"error\":{\"code\":\"" code "\",\"message\":\"no\",\"innererror\":{\"code\":\"" inner "\"}}}"
#define NOT_FOUND ERROR("KeyNotFound", "A key with (name/id) kek was not found in this key vault.")
/* "Hello" and the first half of the SHA-256 of "abc"; of nothing. */
#define HELLO_ABC "SGVsbG-6eBa_jwHP6kFBQN5driIj"
#define HELLO_NOTHING "SGVsbG_jsMRCmPwcFJr79MiZb7kk"

static void open_vault(struct bench *bench)
{
    static const char *const variables[] = {"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET",
                                            "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"};
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
        unsetenv(variables[i]);
    if (!bench->settings.address)
        bench->settings.address = (char *)BASE "/";
    if (!bench->settings.auth)
        bench->settings.auth = (char *)"client-secret";
    bench->settings.tenant = (char *)"contoso.onmicrosoft.com";
    bench->settings.client_id = (char *)"11111111-2222-3333-4444-555555555555";
    bench_open(bench, &azure_backend);
}

static void open_hsm(struct bench *bench)
{
    unsetenv("IDENTITY_ENDPOINT");
    bench->settings = (struct token_settings){.address = (char *)"https://myhsm.managedhsm.azure.net",
                                              .auth = (char *)"managed-identity"};
    bench_open(bench, &azure_hsm_backend);
}

/* --- RSA --- */

static void oaep_wraps_under_the_version_named(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_vault(&bench);
    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_OAEP_SHA256, KEY, "Hello", NULL));
    assert_asks(&bench, HTTP_POST, KID "/wrapkey?api-version=7.4", "{\"alg\":\"RSA-OAEP-256\",\"value\":\"SGVsbG8\"}");
    assert_true(has_header(&bench, "Authorization: Bearer eyJ.token"));
    assert_true(has_header(&bench, "Content-Type: application/json"));
    bench.reply_headers = "HTTP/1.1 200 OK\r\nx-ms-request-id: 7f1c\r\n\r\n";
    answer(&bench, 200, RESULT("V3JhcHBlZA"));
    assert_done(&bench, "Wrapped");
    assert_string_equal(bench.call.request_id, "7f1c");
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_OAEP_SHA1, KEY, "Wrapped", NULL));
    assert_asks(&bench, HTTP_POST, KID "/unwrapkey?api-version=7.4", "{\"alg\":\"RSA-OAEP\",\"value\":\"V3JhcHBlZA\"}");
    answer(&bench, 200, RESULT("SGVsbG8"));
    assert_done(&bench, "Hello");
    bench_close(&bench);
}

static void a_blob_names_its_version_and_binds_the_associated_data(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_vault(&bench);
    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_AEAD, "kek", "Hello", "abc"));
    assert_asks(&bench, HTTP_GET, BASE "/keys/kek?api-version=7.4", "");
    answer(&bench, 200, RSA_BUNDLE("kek", "true"));
    assert_asks(&bench, HTTP_POST, KID "/wrapkey?api-version=7.4",
                "{\"alg\":\"RSA-OAEP-256\",\"value\":\"" HELLO_ABC "\"}");
    answer(&bench, 200, RESULT("V3JhcHBlZA"));
    assert_done(&bench, "azure1:" VERSION ":::V3JhcHBlZA");
    /* Under a key found by another version of it, the blob still opens with its own. */
    const char *blob = "azure1:" VERSION ":::V3JhcHBlZA";
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, "kek/newer", blob, "abc"));
    assert_asks(&bench, HTTP_POST, KID "/unwrapkey?api-version=7.4",
                "{\"alg\":\"RSA-OAEP-256\",\"value\":\"V3JhcHBlZA\"}");
    answer(&bench, 200, RESULT(HELLO_ABC));
    assert_done(&bench, "Hello");
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, KEY, blob, "abd"));
    answer(&bench, 200, RESULT(HELLO_ABC));
    assert_refused(&bench, BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, "other associated data");
    assert_int_equal(bench.call.out.length, 0);
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, KEY, blob, NULL));
    answer(&bench, 200, RESULT(HELLO_ABC));
    assert_refused(&bench, BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, "other associated data");
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, KEY, blob, NULL));
    answer(&bench, 200, RESULT(HELLO_NOTHING));
    assert_done(&bench, "Hello");
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, KEY, blob, NULL));
    answer(&bench, 200, RESULT("SGVsbG8")); /* too short for any binding */
    assert_refused(&bench, BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, "other associated data");
    bench_close(&bench);
}

/* The service would let it: wrapping needs the public key only. */
static void nothing_is_wrapped_under_a_disabled_key(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_vault(&bench);
    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_AEAD, KEY, "Hello", "abc"));
    answer(&bench, 200, RSA_BUNDLE("kek", "false"));
    assert_refused(&bench, BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, "disabled");
    bench_close(&bench);
}

static void rewrap_decrypts_and_encrypts_and_says_so(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_vault(&bench);
    struct backend_call call = crypt_call(BACKEND_REWRAP, BACKEND_AEAD, KEY, "azure1:" VERSION ":::V3JhcHBlZA", "abc");
    call.key_to = "second";
    begin(&bench, call);
    answer(&bench, 200, RESULT(HELLO_ABC));
    assert_asks(&bench, HTTP_GET, BASE "/keys/second?api-version=7.4", "");
    answer(&bench, 200, RSA_BUNDLE("second", "true"));
    assert_asks(&bench, HTTP_POST, BASE "/keys/second/" VERSION "/wrapkey?api-version=7.4",
                "{\"alg\":\"RSA-OAEP-256\",\"value\":\"" HELLO_NOTHING "\"}");
    answer(&bench, 200, "{\"kid\":\"" BASE "/keys/second/" VERSION "\",\"value\":\"TW92ZWQ\"}");
    assert_done(&bench, "azure1:" VERSION ":::TW92ZWQ");
    assert_true(bench.call.plaintext_left);
    bench_close(&bench);
}

static void a_dry_run_yields_nothing(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_vault(&bench);
    struct backend_call call = crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, KEY, "azure1:" VERSION ":::V3JhcHBlZA", "abc");
    call.dry_run = true;
    begin(&bench, call);
    answer(&bench, 200, RESULT(HELLO_ABC));
    assert_done(&bench, "");
    bench_close(&bench);
}

/* --- AES in a managed HSM --- */

static void a_managed_hsm_encrypts_with_gcm_and_keeps_iv_and_tag(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_hsm(&bench);
    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_AEAD, KEY, "Hello", "abc"));
    answer(&bench, 200, OCT_BUNDLE);
    assert_asks(&bench, HTTP_POST, "https://myhsm.managedhsm.azure.net/keys/" KEY "/encrypt?api-version=7.4",
                "{\"alg\":\"A256GCM\",\"value\":\"SGVsbG8\",\"aad\":\"YWJj\"}");
    answer(&bench, 200, "{\"kid\":\"" KID "\",\"value\":\"Y3Q\",\"iv\":\"aXY\",\"tag\":\"dGFn\",\"aad\":\"YWJj\"}");
    assert_done(&bench, "azure1:" VERSION ":aXY:dGFn:Y3Q");
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, KEY, "azure1:" VERSION ":aXY:dGFn:Y3Q", "abc"));
    assert_asks(&bench, HTTP_POST, "https://myhsm.managedhsm.azure.net/keys/" KEY "/decrypt?api-version=7.4",
                "{\"alg\":\"A256GCM\",\"value\":\"Y3Q\",\"iv\":\"aXY\",\"tag\":\"dGFn\",\"aad\":\"YWJj\"}");
    answer(&bench, 200, RESULT("SGVsbG8"));
    assert_done(&bench, "Hello");
    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_AEAD, KEY, "Hello", "abc"));
    answer(&bench, 200, OCT_BUNDLE);
    answer(&bench, 200, "{\"kid\":\"" KID "\",\"value\":\"Y3Q\",\"iv\":\"aXY\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "no value, iv or tag");
    bench_close(&bench);
}

static void random_numbers_come_in_pieces_of_what_the_hsm_gives(void **state)
{
    struct bench bench = {0};
    char body[256] = "{\"value\":\"";
    (void)state;
    open_hsm(&bench);
    begin(&bench, (struct backend_call){.op = BACKEND_RANDOM, .length = 130});
    assert_asks(&bench, HTTP_POST, "https://myhsm.managedhsm.azure.net/rng?api-version=7.4", "{\"count\":128}");
    memset(body + strlen(body), 'A', 171); /* 128 zeros */
    snprintf(body + strlen(body), 4, "\"}");
    answer(&bench, 200, body);
    assert_asks(&bench, HTTP_POST, "https://myhsm.managedhsm.azure.net/rng?api-version=7.4", "{\"count\":2}");
    answer(&bench, 200, "{\"value\":\"AAAA\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "not as many bytes");
    begin(&bench, (struct backend_call){.op = BACKEND_RANDOM, .length = 2});
    answer(&bench, 200, "{\"value\":\"AAE\"}");
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.out.length, 2);
    bench_close(&bench);
}

/* --- Damage and refusals --- */

static void damaged_replies_are_refused(void **state)
{
    static const char *const bodies[] = {"",
                                         "null",
                                         "[]",
                                         "{",
                                         "{}",
                                         RESULT(""),
                                         RESULT("A"),
                                         RESULT("SGVsbG8="),
                                         RESULT("SGV+bG8"),
                                         RESULT("SGVsbG9"),
                                         RESULT("\\u0100AAA"),
                                         "{\"value\":\"SGVsbG8\"}",
                                         "{\"kid\":5,\"value\":\"SGVsbG8\"}",
                                         "{\"kid\":\"" BASE "/keys/other/" VERSION "\",\"value\":\"SGVsbG8\"}",
                                         "{\"kid\":\"" BASE "/keys/kek/0000\",\"value\":\"SGVsbG8\"}",
                                         "{\"kid\":\"" KID "\",\"value\":\"SGVsbG8\",\"value\":\"SGVsbG8\"}",
                                         "{\"kid\":\"" KID "\",\"value\":\"SGVsbG8\"",
                                         "<html>Please log in</html>"};
    struct bench bench = {0};
    (void)state;
    open_vault(&bench);
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
        for (int op = BACKEND_ENCRYPT; op <= BACKEND_DECRYPT; op++) {
            begin(&bench, crypt_call((enum backend_op)op, BACKEND_OAEP_SHA256, KEY, "Wrapped", NULL));
            answer(&bench, 200, bodies[i]);
            assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "not one of Key Vault");
            assert_true(op == BACKEND_ENCRYPT || bench.call.out.length == 0);
        }
    bench_close(&bench);
}

static void damaged_blobs_are_not_sent(void **state)
{
    static const char *const blobs[] = {"azure1:",           "azure1:v:::",        "azure1::::AAAA",
                                        "azure1:v:iv::AAAA", "azure1:v::tag:AAAA", "azure1:v:::AA\"A",
                                        "azure1:v:::AAAA:",  "azure1:../x:::AAAA", "azure1:a_b:::AAAA",
                                        "azure2:v:::AAAA",   "vault:v1:AAAA",      "x"};
    struct bench bench = {0};
    (void)state;
    open_vault(&bench);
    for (size_t i = 0; i < sizeof blobs / sizeof blobs[0]; i++) {
        begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_AEAD, KEY, blobs[i], NULL));
        assert_refused(&bench, BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID, "blob");
    }
    begin(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_OAEP_SHA256, "../secrets/x", "Wrapped", NULL));
    assert_refused(&bench, BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "cannot be a key");
    bench_close(&bench);
}

static void refusals_are_judged_by_their_name(void **state)
{
    static const struct bench_refusal rows[] = {
        {403, INNER_ERROR("Forbidden", "KeyDisabled"), BACKEND_FAILED, CKR_KEY_FUNCTION_NOT_PERMITTED, "disabled"},
        {403, INNER_ERROR("Forbidden", "ForbiddenByPolicy"), BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "policy"},
        {403, INNER_ERROR("Forbidden", "ForbiddenByRbac"), BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "role"},
        {403, ERROR("Forbidden", "Caller is not authorized"), BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "not authorized"},
        {404, NOT_FOUND, BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "no such key"},
        {409, INNER_ERROR("Conflict", "ObjectIsDeletedButRecoverable"), BACKEND_FAILED, CKR_KEY_HANDLE_INVALID,
         "recovered"},
        {400, ERROR("BadParameter", "The parameter is incorrect."), BACKEND_FAILED, CKR_ENCRYPTED_DATA_INVALID,
         "damaged"},
        {401, ERROR("Unauthorized", "AKV10000: Request is missing a Bearer"), BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN,
         "not accepted"},
        {401, "", BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, "not accepted"},
        {429, ERROR("Throttled", "Request was not processed"), BACKEND_RETRY, CKR_DEVICE_ERROR, "too many"},
        {429, "", BACKEND_RETRY, CKR_DEVICE_ERROR, "failed"},
        {408, "", BACKEND_RETRY, CKR_DEVICE_ERROR, "failed"},
        {500, ERROR("InternalServerError", "x"), BACKEND_RETRY, CKR_DEVICE_ERROR, "failed"},
        {503, "<html>", BACKEND_RETRY, CKR_DEVICE_ERROR, "failed"},
        {418, ERROR("Teapot", "x"), BACKEND_FAILED, CKR_DEVICE_ERROR, "Teapot"},
        {302, "", BACKEND_FAILED, CKR_DEVICE_ERROR, "HTTP 302"},
    };
    struct bench bench = {0};
    (void)state;
    open_vault(&bench);
    assert_refusals(&bench, crypt_call(BACKEND_DECRYPT, BACKEND_OAEP_SHA256, KEY, "Wrapped", NULL), rows,
                    sizeof rows / sizeof rows[0]);
    begin(&bench, crypt_call(BACKEND_ENCRYPT, BACKEND_OAEP_SHA256, KEY, "Hello", NULL));
    answer(&bench, 400, ERROR("BadParameter", "too long"));
    assert_refused(&bench, BACKEND_FAILED, CKR_ARGUMENTS_BAD, "argument");
    bench_close(&bench);
}

/* --- Keys --- */

static void a_list_is_followed_to_its_end_and_each_key_described(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_vault(&bench);
    begin(&bench, (struct backend_call){.op = BACKEND_LIST});
    assert_asks(&bench, HTTP_GET, BASE "/keys?api-version=7.4", "");
    answer(&bench, 200,
           "{\"value\":[{\"kid\":\"" BASE "/keys/kek\",\"attributes\":{\"enabled\":true}},{\"kid\":\"" BASE
           "/keys/cert\",\"managed\":true}],\"nextLink\":\"https://myvault.vault.azure.net:443/keys?api-version=7.4&"
           "$skiptoken=eyJOZXh0&maxresults=1\"}");
    assert_asks(&bench, HTTP_GET, BASE "/keys?api-version=7.4&$skiptoken=eyJOZXh0&maxresults=1", "");
    answer(&bench, 200,
           "{\"value\":[{\"kid\":\"" BASE "/keys/gone\"},{\"kid\":\"" BASE "/keys/ec\"}],\"nextLink\":null}");
    assert_asks(&bench, HTTP_GET, BASE "/keys/kek?api-version=7.4", "");
    answer(&bench, 200, RSA_BUNDLE("kek", "false"));
    assert_asks(&bench, HTTP_GET, BASE "/keys/gone?api-version=7.4", "");
    answer(&bench, 404, NOT_FOUND);
    answer(&bench, 200,
           "{\"key\":{\"kid\":\"" BASE "/keys/ec/1\",\"kty\":\"EC\",\"key_ops\":[\"sign\"],\"crv\":\"P-256\"},"
           "\"attributes\":{\"enabled\":true}}");
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 1);
    const struct backend_key *key = &bench.call.keys.items[0];
    assert_string_equal(key->id, KEY);
    assert_string_equal(key->label, "kek");
    assert_int_equal(key->type, BACKEND_KEY_RSA);
    assert_int_equal(key->bits, 2048);
    assert_true(key->can_encrypt && key->can_decrypt && !key->enabled);
    assert_string_equal(key->state, "disabled");
    assert_int_equal(key->created, 1493942451 * CLOCK_SECOND);
    assert_int_equal(key->public_key_length, 294);
    assert_int_equal(bench.call.rv, CKR_OK);
    bench_close(&bench);
}

static void the_access_token_is_not_sent_where_a_reply_says(void **state)
{
    static const char *const links[] = {
        "https://evil.example/keys?api-version=7.4", "https://myvault.vault.azure.net.evil.example/keys?x",
        "https://evil.example/myvault.vault.azure.net/keys?x", "https://myvault.vault.azure.net/secrets?x", "nonsense"};
    struct bench bench = {0};
    char body[256];
    (void)state;
    open_vault(&bench);
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        begin(&bench, (struct backend_call){.op = BACKEND_LIST});
        snprintf(body, sizeof body, "{\"value\":[],\"nextLink\":\"%s\"}", links[i]);
        answer(&bench, 200, body);
        assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "next page");
    }
    /* A page that leads to itself. */
    begin(&bench, (struct backend_call){.op = BACKEND_LIST});
    answer(&bench, 200, "{\"value\":[],\"nextLink\":\"" BASE "/keys?a\"}");
    answer(&bench, 200, "{\"value\":[],\"nextLink\":\"" BASE "/keys?a\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "next page");
    bench_close(&bench);
}

static void a_key_is_described_by_name_or_version_or_is_not_there(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_vault(&bench);
    begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = KEY});
    assert_asks(&bench, HTTP_GET, KID "?api-version=7.4", "");
    answer(&bench, 404, NOT_FOUND);
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 0);
    begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = "no such name"});
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 0);
    begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = "kek"});
    answer(&bench, 403, INNER_ERROR("Forbidden", "ForbiddenByRbac"));
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "role");
    begin(&bench, (struct backend_call){.op = BACKEND_DESCRIBE, .key = "kek"});
    answer(&bench, 200,
           "{\"key\":{\"kid\":\"" KID "\",\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"},\"attributes\":{}}");
    assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "no RSA public key");
    bench_close(&bench);
}

static void making_a_key_never_makes_a_version_of_one_that_is_there(void **state)
{
    struct bench bench = {0};
    struct backend_call call = {.op = BACKEND_CREATE, .label = "kek", .type = BACKEND_KEY_RSA, .bits = 2048};
    (void)state;
    open_vault(&bench);
    begin(&bench, call);
    assert_asks(&bench, HTTP_GET, BASE "/keys/kek?api-version=7.4", "");
    answer(&bench, 404, NOT_FOUND);
    assert_asks(&bench, HTTP_POST, BASE "/keys/kek/create?api-version=7.4",
                "{\"kty\":\"RSA\",\"key_size\":2048,\"key_ops\":[\"wrapKey\",\"unwrapKey\"]}");
    assert_true(bench.request.once);
    answer(&bench, 200, RSA_BUNDLE("kek", "true"));
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_string_equal(bench.call.keys.items[0].id, KEY);
    begin(&bench, call);
    answer(&bench, 200, RSA_BUNDLE("kek", "true"));
    assert_refused(&bench, BACKEND_FAILED, CKR_TEMPLATE_INCONSISTENT, "already");
    begin(&bench, call);
    answer(&bench, 404, NOT_FOUND);
    answer(&bench, 409, INNER_ERROR("Conflict", "ObjectIsDeletedButRecoverable")); /* the name is taken, too */
    assert_refused(&bench, BACKEND_FAILED, CKR_TEMPLATE_INCONSISTENT, "can be recovered");
    call.type = BACKEND_KEY_SYMMETRIC;
    call.bits = 256;
    begin(&bench, call);
    assert_refused(&bench, BACKEND_FAILED, CKR_KEY_SIZE_RANGE, "managed HSM");
    begin(&bench, (struct backend_call){.op = BACKEND_DELETE, .key = KEY});
    assert_asks(&bench, HTTP_DELETE, BASE "/keys/kek?api-version=7.4", "");
    answer(&bench, 200, RSA_BUNDLE("kek", "true"));
    assert_int_equal(bench.step, BACKEND_DONE);
    bench_close(&bench);
}

/* --- Logging in --- */

#define TOKEN_REPLY                                                                                                    \
    "{\"token_type\":\"Bearer\",\"expires_in\":3599,\"ext_expires_in\":3599,\"access_token\":\"eyJ0.new\"}"

static void a_client_secret_buys_a_token_for_the_vault(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_vault(&bench);
    log_in(&bench, "s3&cret");
    assert_asks(&bench, HTTP_POST, "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token",
                "grant_type=client_credentials&client_id=11111111-2222-3333-4444-555555555555&"
                "scope=https%3A%2F%2Fvault.azure.net%2F.default&client_secret=s3%26cret");
    answer(&bench, 200, TOKEN_REPLY);
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "eyJ0.new");
    int64_t left = credentials_expires(bench.call.made) - clock_wall();
    assert_true(left > 3500 * CLOCK_SECOND && left <= 3599 * CLOCK_SECOND);
    log_in(&bench, "wrong");
    answer(&bench, 401,
           "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: Invalid client secret\"}");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "AADSTS7000215");
    log_in(&bench, "x");
    answer(&bench, 503, "");
    assert_refused(&bench, BACKEND_RETRY, CKR_DEVICE_ERROR, "now");
    log_in(&bench, "");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "no client secret");
    static const char *const bad[] = {"",
                                      "{}",
                                      "{\"access_token\":\"x\"}",
                                      "{\"access_token\":\"\",\"expires_in\":1}",
                                      "{\"access_token\":\"a b\",\"expires_in\":9}",
                                      "{\"access_token\":\"x\",\"expires_in\":-1}",
                                      "{\"access_token\":\"x\",\"expires_in\":\"soon\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        log_in(&bench, "x");
        answer(&bench, 200, bad[i]);
        assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "without an access token");
    }
    bench_close(&bench);
}

static void a_federated_token_is_read_anew_and_exchanged(void **state)
{
    struct bench bench = {.settings = {.auth = (char *)"workload-identity", .jwt_file = (char *)"test_azure.jwt"}};
    (void)state;
    open_vault(&bench);
    unlink("test_azure.jwt");
    log_in(&bench, "");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "test_azure.jwt");
    write_file("test_azure.jwt", "eyJh.eyJi.c2ln\n");
    log_in(&bench, "");
    assert_asks(&bench, HTTP_POST, "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token",
                "grant_type=client_credentials&client_id=11111111-2222-3333-4444-555555555555&"
                "scope=https%3A%2F%2Fvault.azure.net%2F.default&client_assertion_type="
                "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=eyJh.eyJi.c2ln");
    unlink("test_azure.jwt");
    bench_close(&bench);
}

static void a_managed_identity_asks_the_machine_only(void **state)
{
    struct bench bench = {0};
    (void)state;
    open_hsm(&bench);
    log_in(&bench, "");
    assert_asks(&bench, HTTP_GET,
                "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&"
                "resource=https%3A%2F%2Fmanagedhsm.azure.net",
                "");
    assert_true(has_header(&bench, "Metadata: true") && bench.request.direct && bench.request.optional);
    answer(&bench, 200,
           "{\"access_token\":\"eyJ0.imds\",\"expires_in\":\"3599\",\"expires_on\":\"1506484173\","
           "\"resource\":\"https://managedhsm.azure.net\",\"token_type\":\"Bearer\"}");
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "eyJ0.imds");
    assert_asks_the_machine_only(&bench);
    bench_close(&bench);
}

static void tokens_are_for_the_service_not_for_its_host(void **state)
{
    static const struct {
        const struct backend *backend;
        const char *address, *resource;
    } rows[] = {{&azure_backend, "https://v.vault.azure.net", "https://vault.azure.net"},
                {&azure_backend, "https://v.vault.azure.cn:443", "https://vault.azure.cn"},
                {&azure_backend, "https://v.privatelink.vaultcore.azure.net", "https://vault.azure.net"},
                {&azure_backend, "https://127.0.0.1:8443", "https://vault.azure.net"},
                {&azure_hsm_backend, "https://h.managedhsm.azure.net", "https://managedhsm.azure.net"},
                {&azure_hsm_backend, "https://h.privatelink.managedhsm.azure.net", "https://managedhsm.azure.net"}};
    (void)state;
    unsetenv("IDENTITY_ENDPOINT");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct token_settings settings = {.label = (char *)"t",
                                          .backend = (char *)(uintptr_t)rows[i].backend->name,
                                          .address = (char *)(uintptr_t)rows[i].address,
                                          .auth = (char *)"managed-identity"};
        void *opened = NULL;
        assert_int_equal(rows[i].backend->open(&settings, &opened), ENVELOPE_OK);
        assert_string_equal(((struct azure *)opened)->resource, rows[i].resource);
        rows[i].backend->close(opened);
    }
}

static void settings_that_cannot_work_are_refused(void **state)
{
    static const struct bench_settings rows[] = {
        {{.auth = (char *)"client-secret"}, "address is missing"},
        {{.address = (char *)"http://myvault.vault.azure.net", .auth = (char *)"client-secret"}, "https://"},
        {{.address = (char *)BASE}, "auth must be one of"},
        {{.address = (char *)BASE, .auth = (char *)"client-secret"}, "tenant"},
        {{.address = (char *)BASE, .auth = (char *)"client-secret", .tenant = (char *)"t"}, "client-id"},
        {{.address = (char *)BASE, .auth = (char *)"client-secret", .tenant = (char *)"t/..", .client_id = (char *)"c"},
         "directory"},
        {{.address = (char *)BASE, .auth = (char *)"managed-identity", .imds_endpoint = (char *)"http://10.0.0.1"},
         "imds-endpoint"},
    };
    (void)state;
    assert_settings(&azure_backend, rows, sizeof rows / sizeof rows[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(oaep_wraps_under_the_version_named),
        cmocka_unit_test(a_blob_names_its_version_and_binds_the_associated_data),
        cmocka_unit_test(nothing_is_wrapped_under_a_disabled_key),
        cmocka_unit_test(rewrap_decrypts_and_encrypts_and_says_so),
        cmocka_unit_test(a_dry_run_yields_nothing),
        cmocka_unit_test(a_managed_hsm_encrypts_with_gcm_and_keeps_iv_and_tag),
        cmocka_unit_test(random_numbers_come_in_pieces_of_what_the_hsm_gives),
        cmocka_unit_test(damaged_replies_are_refused),
        cmocka_unit_test(damaged_blobs_are_not_sent),
        cmocka_unit_test(refusals_are_judged_by_their_name),
        cmocka_unit_test(a_list_is_followed_to_its_end_and_each_key_described),
        cmocka_unit_test(the_access_token_is_not_sent_where_a_reply_says),
        cmocka_unit_test(a_key_is_described_by_name_or_version_or_is_not_there),
        cmocka_unit_test(making_a_key_never_makes_a_version_of_one_that_is_there),
        cmocka_unit_test(a_client_secret_buys_a_token_for_the_vault),
        cmocka_unit_test(a_federated_token_is_read_anew_and_exchanged),
        cmocka_unit_test(a_managed_identity_asks_the_machine_only),
        cmocka_unit_test(tokens_are_for_the_service_not_for_its_host),
        cmocka_unit_test(settings_that_cannot_work_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
