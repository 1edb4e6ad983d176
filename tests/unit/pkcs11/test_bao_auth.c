/* How the OpenBao backend logs in and stays so. */
#include "bao_bench.h"

/* ---- logging in ---- */

static const char lookup_reply[] = ENVELOPE_REPLY("{\"accessor\":\"a\",\"creation_time\":1795391866,\"creation_ttl\":"
                                                  "3600,\"display_name\":\"token\",\"entity_id\":\"\","
                                                  "\"expire_time\":\"2026-11-23T01:00:00Z\",\"explicit_max_ttl\":0,"
                                                  "\"id\":\"hvs.mine\",\"renewable\":true,\"ttl\":3000,"
                                                  "\"type\":\"service\"}");
static const char root_reply[] = ENVELOPE_REPLY("{\"accessor\":\"a\",\"creation_ttl\":0,\"expire_time\":null,"
                                                "\"id\":\"hvs.mine\",\"ttl\":0,\"type\":\"service\"}");

static int64_t seconds_left(const struct bench *bench)
{
    return (credentials_expires(bench->call.made) - clock_wall() + CLOCK_SECOND - 1) / CLOCK_SECOND;
}

static void authenticate(struct bench *bench)
{
    bench->call.op = BACKEND_AUTHENTICATE;
    bench_open(bench);
}

static void forget_credentials(struct bench *bench)
{
    credentials_unref(bench->call.credentials);
    bench->call.credentials = NULL;
}

static void a_token_is_looked_up_and_renewed_when_half_its_life_is_over(void **unused)
{
    (void)unused;
    struct bench bench = {.call.pin = "hvs.mine"};
    authenticate(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_GET, "auth/token/lookup-self", "");
    assert_true(has_header(&bench, "X-Vault-Token: hvs.mine"));
    assert_int_equal(reply(&bench, 200, lookup_reply), BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "hvs.mine");
    assert_true(seconds_left(&bench) > 2990 && seconds_left(&bench) <= 3000);
    assert_int_equal(credentials_early(bench.call.made), 1500 * CLOCK_SECOND);
    bench_close(&bench);

    struct bench old = {.call.pin = "hvs.mine"};
    authenticate(&old);
    begin(&old);
    reply(&old, 200, old_reply);
    assert_request(&old, HTTP_POST, "auth/token/renew-self", "{}");
    assert_true(has_header(&old, "X-Vault-Token: hvs.mine"));
    assert_int_equal(reply(&old, 200, LOGIN_REPLY("hvs.mine", "3600")), BACKEND_DONE);
    assert_true(seconds_left(&old) > 3590);
    bench_close(&old);

    /* A token that may not be renewed serves to its end; the last second of one is not for ever. */
    struct bench last = {.call.pin = "hvs.mine"};
    authenticate(&last);
    begin(&last);
    reply(&last, 200, old_reply);
    assert_int_equal(reply(&last, 403, denied), BACKEND_DONE);
    assert_true(credentials_expires(last.call.made) > 0 && seconds_left(&last) <= 1);
    bench_close(&last);

    struct bench root = {.call.pin = "hvs.mine"};
    authenticate(&root);
    begin(&root);
    assert_int_equal(reply(&root, 200, root_reply), BACKEND_DONE);
    assert_true(credentials_expires(root.call.made) == 0);
    assert_int_equal(credentials_early(root.call.made), 0);
    bench_close(&root);
}

static void a_refused_token_is_the_pins_fault_only_where_there_was_one(void **unused)
{
    (void)unused;
    struct bench pin = {.call.pin = "hvs.mine"};
    authenticate(&pin);
    begin(&pin);
    reply(&pin, 403, denied);
    assert_refused(&pin, BACKEND_FAILED, CKR_PIN_INCORRECT, "refused");
    assert_null(strstr(error_text(), "hvs.mine"));
    bench_close(&pin);

    char path[] = "/tmp/envelope-token-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0 && write(file, "hvs.filed\n", 10) == 10 && close(file) == 0);
    struct bench filed = {.settings.token_file = path};
    authenticate(&filed);
    begin(&filed);
    assert_true(has_header(&filed, "X-Vault-Token: hvs.filed"));
    reply(&filed, 403, denied);
    assert_refused(&filed, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "refused");
    unlink(path);
    begin(&filed);
    assert_refused(&filed, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, path);
    bench_close(&filed);

    unsetenv("BAO_TOKEN");
    unsetenv("VAULT_TOKEN");
    struct bench none = {.step = 0};
    authenticate(&none);
    begin(&none);
    assert_refused(&none, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "token-file");
    setenv("BAO_TOKEN", "hvs.environment", 1);
    begin(&none);
    assert_true(has_header(&none, "X-Vault-Token: hvs.environment"));
    unsetenv("BAO_TOKEN");
    bench_close(&none);
}

static void an_approle_logs_in_renews_and_logs_in_again(void **unused)
{
    (void)unused;
    struct bench bench = {.settings = {.auth = (char *)"approle", .role = (char *)"role \"1\""}, .call.pin = "s3cret"};
    authenticate(&bench);
    forget_credentials(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "auth/approle/login",
                   "{\"role_id\":\"role \\\"1\\\"\",\"secret_id\":\"s3cret\"}");
    assert_true(bench.request.once);
    assert_int_equal(reply(&bench, 200, LOGIN_REPLY("hvs.new", "3600")), BACKEND_DONE);
    assert_string_equal(credentials_token(bench.call.made), "hvs.new");
    assert_true(seconds_left(&bench) > 3590);

    /* What was made is renewed, unless a renewal brings too little or is refused: then a new login. */
    struct credentials *made = credentials_ref(bench.call.made);
    bench_close(&bench);
    static const struct {
        long status;
        const char *body;
        bool login;
    } renewals[] = {
        {200, LOGIN_REPLY("hvs.new", "3600"), false},
        {200, LOGIN_REPLY("hvs.new", "60"), true},
        {403, "{\"errors\":[\"permission denied\"]}", true},
    };
    for (size_t i = 0; i < sizeof renewals / sizeof renewals[0]; i++) {
        struct bench again = {.settings = {.auth = (char *)"approle", .role = (char *)"role"}};
        authenticate(&again);
        forget_credentials(&again);
        again.call.credentials = credentials_ref(made);
        begin(&again);
        assert_request(&again, HTTP_POST, "auth/token/renew-self", "{}");
        assert_true(has_header(&again, "X-Vault-Token: hvs.new"));
        reply(&again, renewals[i].status, renewals[i].body);
        if (renewals[i].login)
            assert_request(&again, HTTP_POST, "auth/approle/login", "{\"role_id\":\"role\"}");
        else
            assert_int_equal(again.step, BACKEND_DONE);
        bench_close(&again);
    }
    credentials_unref(made);
}

static void a_refused_login_is_not_repeated_and_shows_no_secret(void **unused)
{
    (void)unused;
    static const struct {
        long status;
        const char *body;
    } refusals[] = {
        {500, "{\"errors\":[\"invalid secret id\"]}"}, /* of some releases; each try counts towards a lockout */
        {400, "{\"errors\":[\"invalid secret_id \\\"s3cret\\\"\"]}"},
        {400, "{\"errors\":[\"invalid role or secret ID\"]}"},
        {403, "{\"errors\":[\"permission denied\"]}"},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct bench bench = {.settings = {.auth = (char *)"approle", .role = (char *)"role"}, .call.pin = "s3cret"};
        authenticate(&bench);
        forget_credentials(&bench);
        begin(&bench);
        reply(&bench, refusals[i].status, refusals[i].body);
        assert_refused(&bench, BACKEND_FAILED, CKR_PIN_INCORRECT, "refused");
        assert_null(strstr(error_text(), "s3cret"));
        assert_null(strstr(bench.call.service_message, "s3cret"));
        bench_close(&bench);
    }
}

static int64_t now = 1;

static int64_t test_clock(void)
{
    return now;
}

static void write_secret_id(const char *path, const char *secret)
{
    FILE *file = fopen(path, "w");
    assert_true(file && fputs(secret, file) >= 0 && fclose(file) == 0);
}

static void a_refused_secret_id_is_not_sent_again_until_the_server_has_forgotten_it(void **unused)
{
    (void)unused;
    char path[] = "/tmp/envelope-secret-XXXXXX";
    assert_true(close(mkstemp(path)) == 0);
    write_secret_id(path, "s3cret");
    clock_set_source(test_clock);
    struct bench bench = {.settings = {.auth = (char *)"approle", .role = (char *)"role", .secret_id_file = path}};
    authenticate(&bench);
    forget_credentials(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "auth/approle/login", "{\"role_id\":\"role\",\"secret_id\":\"s3cret\"}");
    /* What is not about the credentials counts for nothing. */
    reply(&bench, 503, "{\"errors\":[\"Vault is sealed\"]}");
    begin(&bench);
    assert_int_equal(bench.step, BACKEND_SEND);

    reply(&bench, 400, "{\"errors\":[\"invalid role or secret ID\"]}");
    assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "refused");
    for (int i = 0; i < 3; i++) {
        backend_note(&bench.call, "", "", NULL);
        begin(&bench);
        assert_refused(&bench, BACKEND_FAILED, CKR_USER_NOT_LOGGED_IN, "not tried again");
        assert_string_equal(bench.call.service_code, "HTTP 400");
        assert_string_equal(bench.call.service_message, "invalid role or secret ID");
        assert_null(strstr(error_text(), "s3cret"));
    }
    write_secret_id(path, "another");
    assert_int_equal(begin(&bench), BACKEND_SEND);
    write_secret_id(path, "s3cret");
    now += 15 * 60 * CLOCK_SECOND;
    assert_int_equal(begin(&bench), BACKEND_FAILED);
    now += 2 * 60 * CLOCK_SECOND;
    assert_int_equal(begin(&bench), BACKEND_SEND);
    clock_set_source(NULL);
    bench_close(&bench);
    unlink(path);
}

static void a_login_that_is_denied_something_is_looked_up_before_another_is_made(void **unused)
{
    (void)unused;
    static const char lost[] =
        "{\"errors\":[\"2 errors occurred:\\n\\t* permission denied\\n\\t* invalid token\\n\\n\"]}";
    static const struct {
        long status;
        const char *body;
        enum backend_step step;
        const char *words;
    } answers[] = {
        {200, lookup_reply, BACKEND_FAILED, "the login is good, so its policy does not allow this"},
        {403, denied, BACKEND_REAUTH, "cannot decrypt with key \"kek\""},
        {403, lost, BACKEND_REAUTH, "cannot decrypt with key \"kek\""},
        {503, "{\"errors\":[\"Vault is sealed\"]}", BACKEND_RETRY, "cannot decrypt with key \"kek\""},
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct bench bench = {.settings = {.auth = (char *)"approle", .role = (char *)"role"},
                              .call = crypt_call(BACKEND_DECRYPT, blob, NULL)};
        bench_open(&bench);
        begin(&bench);
        reply(&bench, 403, denied);
        assert_request(&bench, HTTP_GET, "auth/token/lookup-self", "");
        assert_true(has_header(&bench, "X-Vault-Token: hvs.secret"));
        reply(&bench, answers[i].status, answers[i].body);
        assert_refused(&bench, answers[i].step, CKR_USER_NOT_LOGGED_IN, answers[i].words);
        assert_non_null(strstr(error_text(), "permission denied"));
        bench_close(&bench);
    }
}

static void a_login_that_finds_nothing_is_not_a_key_that_is_gone(void **unused)
{
    (void)unused;
    static const char *const auths[] = {"token", "approle"};
    static const struct {
        const char *body;
        CK_RV rv;
        const char *words;
    } answers[] = {{"{\"errors\":[\"namespace not found\"]}", CKR_DEVICE_ERROR, "see namespace in kms.cnf"},
                   {"{\"errors\":[]}", CKR_FUNCTION_FAILED, "HTTP 404"}};
    for (size_t auth = 0; auth < 2; auth++)
        for (size_t i = 0; i < 2; i++) {
            struct bench bench = {.settings = {.auth = (char *)(uintptr_t)auths[auth], .role = (char *)"role"},
                                  .call.pin = "s3cret"};
            authenticate(&bench);
            forget_credentials(&bench);
            begin(&bench);
            reply(&bench, 404, answers[i].body);
            assert_refused(&bench, BACKEND_FAILED, answers[i].rv, answers[i].words);
            bench_close(&bench);
        }
}

static void certificates_and_service_accounts_log_in_at_their_mounts(void **unused)
{
    (void)unused;
    char path[] = "/tmp/envelope-jwt-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0 && write(file, "a.b.c\n", 6) == 6 && close(file) == 0);
    struct bench cert = {
        .settings = {
            .auth = (char *)"cert", .role = (char *)"envelope", .client_cert = (char *)"c", .client_key = (char *)"k"}};
    authenticate(&cert);
    forget_credentials(&cert);
    begin(&cert);
    assert_request(&cert, HTTP_POST, "auth/cert/login", "{\"name\":\"envelope\"}");
    bench_close(&cert);

    struct bench k8s = {.settings = {.auth = (char *)"kubernetes",
                                     .auth_mount = (char *)"clusters/prod",
                                     .role = (char *)"envelope",
                                     .jwt_file = path}};
    authenticate(&k8s);
    forget_credentials(&k8s);
    begin(&k8s);
    assert_request(&k8s, HTTP_POST, "auth/clusters/prod/login", "{\"role\":\"envelope\",\"jwt\":\"a.b.c\"}");
    assert_false(has_header(&k8s, "X-Vault-Token: "));
    k8s.call.pin = "1234";
    begin(&k8s);
    assert_refused(&k8s, BACKEND_FAILED, CKR_PIN_INCORRECT, "takes no PIN");
    bench_close(&k8s);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_is_looked_up_and_renewed_when_half_its_life_is_over),
        cmocka_unit_test(a_refused_token_is_the_pins_fault_only_where_there_was_one),
        cmocka_unit_test(an_approle_logs_in_renews_and_logs_in_again),
        cmocka_unit_test(a_refused_login_is_not_repeated_and_shows_no_secret),
        cmocka_unit_test(a_refused_secret_id_is_not_sent_again_until_the_server_has_forgotten_it),
        cmocka_unit_test(a_login_that_is_denied_something_is_looked_up_before_another_is_made),
        cmocka_unit_test(a_login_that_finds_nothing_is_not_a_key_that_is_gone),
        cmocka_unit_test(certificates_and_service_accounts_log_in_at_their_mounts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
