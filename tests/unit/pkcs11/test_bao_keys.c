/* Keys as the OpenBao backend sees, makes and deletes them; its settings; damaged replies. */
#include "bao_bench.h"

/* ---- keys ---- */

static void keys_are_described(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_DESCRIBE, .key = "kek"}};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    assert_int_equal(reply(&bench, 200, key_reply), BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 1);
    const struct backend_key *key = bench.call.keys.items;
    assert_string_equal(key->id, "kek");
    assert_string_equal(key->label, "kek");
    assert_int_equal(key->type, BACKEND_KEY_SYMMETRIC);
    assert_int_equal(key->bits, 256);
    assert_true(key->can_encrypt && key->can_decrypt && key->enabled);
    assert_string_equal(key->state, "Enabled");
    assert_true(key->created == INT64_C(1795391416) * CLOCK_SECOND);
    bench_close(&bench);

    struct bench rsa = {.call = {.op = BACKEND_DESCRIBE, .key = "kek"}};
    bench_open(&rsa);
    begin(&rsa);
    assert_int_equal(reply(&rsa, 200, rsa_reply), BACKEND_DONE);
    key = rsa.call.keys.items;
    assert_int_equal(key->type, BACKEND_KEY_RSA);
    assert_int_equal(key->bits, 2048);
    assert_int_equal(key->public_key_length, 33);
    assert_memory_equal(key->public_key, "\x30\x82\x01\x22\x30\x0d\x06\x09", 8);
    assert_true(key->created == INT64_C(1795391416) * CLOCK_SECOND); /* 2026-11-22T23:50:16Z */
    bench_close(&rsa);
}

static void no_such_key_is_an_answer_and_no_such_engine_is_not(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_DESCRIBE, .key = "kek"}};
    bench_open(&bench);
    begin(&bench);
    assert_int_equal(reply(&bench, 404, not_found), BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 0);
    assert_int_equal(bench.call.rv, CKR_OK);
    begin(&bench);
    reply(&bench, 404, "{\"errors\":[\"no handler for route \\\"transit/keys/kek\\\". route entry not found.\"]}");
    assert_refused(&bench, BACKEND_FAILED, CKR_DEVICE_ERROR, "mount");
    bench.call.key = "not a name";
    assert_int_equal(begin(&bench), BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 0);
    bench_close(&bench);
}

static void a_list_shows_what_may_be_read(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_LIST}};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_LIST, "transit/keys", "");
    reply(&bench, 200, ENVELOPE_REPLY("{\"keys\":[\"hidden\",\"import/\",\"gone\",\"kek\",\"chacha\"]}"));
    assert_request(&bench, HTTP_GET, "transit/keys/hidden", "");
    reply(&bench, 403, denied);
    assert_request(&bench, HTTP_GET, "transit/keys/gone", "");
    reply(&bench, 404, not_found);
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    reply(&bench, 200, key_reply);
    assert_request(&bench, HTTP_GET, "transit/keys/chacha", "");
    reply(&bench, 200, KEY_REPLY(PLAIN_FLAGS, "{\"1\":1}", "1", "1", "chacha20-poly1305"));
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 1);
    assert_string_equal(bench.call.keys.items[0].id, "kek");
    bench_close(&bench);

    struct bench none = {.call = {.op = BACKEND_LIST}};
    bench_open(&none);
    begin(&none);
    assert_int_equal(reply(&none, 404, not_found), BACKEND_DONE);
    bench_close(&none);

    struct bench shut = {.call = {.op = BACKEND_LIST}, .settings.keys = (char *)"a, b"};
    bench_open(&shut);
    begin(&shut);
    assert_request(&shut, HTTP_GET, "transit/keys/a", "");
    reply(&shut, 403, denied);
    assert_request(&shut, HTTP_GET, "transit/keys/b", "");
    reply(&shut, 403, denied);
    assert_refused(&shut, BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, "none of 2 keys");
    bench_close(&shut);
}

static void keys_are_made_once_and_only_where_there_is_none(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_CREATE, .label = "kek", .type = BACKEND_KEY_SYMMETRIC, .bits = 256}};
    bench_open(&bench);
    begin(&bench);
    assert_refused(&bench, BACKEND_FAILED, CKR_TOKEN_WRITE_PROTECTED, "create = yes");
    bench.settings.create = true;
    begin(&bench);
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    assert_false(bench.request.once);
    reply(&bench, 404, not_found);
    assert_request(&bench, HTTP_POST, "transit/keys/kek", "{\"type\":\"aes256-gcm96\"}");
    assert_true(bench.request.once);
    reply(&bench, 204, "");
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    assert_int_equal(reply(&bench, 200, key_reply), BACKEND_DONE);
    assert_int_equal(bench.call.keys.count, 1);
    begin(&bench);
    reply(&bench, 200, key_reply);
    assert_refused(&bench, BACKEND_FAILED, CKR_ATTRIBUTE_VALUE_INVALID, "already");
    bench.call.bits = 192;
    begin(&bench);
    assert_refused(&bench, BACKEND_FAILED, CKR_KEY_SIZE_RANGE, "192");
    bench.call.bits = 256;
    bench.call.label = "a/b";
    begin(&bench);
    assert_refused(&bench, BACKEND_FAILED, CKR_ATTRIBUTE_VALUE_INVALID, "label");
    bench_close(&bench);
}

static void keys_are_deleted_only_where_both_sides_allow_it(void **unused)
{
    (void)unused;
    struct bench bench = {.call = {.op = BACKEND_DELETE, .key = "kek"}};
    bench_open(&bench);
    begin(&bench);
    assert_refused(&bench, BACKEND_FAILED, CKR_ACTION_PROHIBITED, "destroy = yes");
    bench.settings.destroy = true;
    begin(&bench);
    assert_request(&bench, HTTP_DELETE, "transit/keys/kek", "");
    assert_true(bench.request.once);
    reply(&bench, 400, "{\"errors\":[\"error deleting policy kek: deletion is not allowed for this key\"]}");
    assert_refused(&bench, BACKEND_FAILED, CKR_ACTION_PROHIBITED, "deletion_allowed=true");
    begin(&bench);
    assert_int_equal(reply(&bench, 204, ""), BACKEND_DONE);
    bench_close(&bench);
}

/* ---- settings ---- */

static void settings_are_checked_before_anything_is_sent(void **unused)
{
    (void)unused;
    static char address[] = "https://bao.test:8200";
    const struct bench_settings rows[] = {
        {{.address = address, .auth = (char *)"token"}, NULL},
        {{.address = (char *)"http://127.0.0.1:8200", .auth = (char *)"token"}, NULL},
        {{.address = (char *)"https://[::1]:8200/", .auth = (char *)"token"}, NULL},
        {{.address = (char *)"http://bao.test:8200", .auth = (char *)"token"}, "this machine only"},
        {{.address = (char *)"http://127.0.0.1.evil.test", .auth = (char *)"token"}, "this machine only"},
        {{.address = (char *)"https://user@bao.test", .auth = (char *)"token"}, "must be https://HOST"},
        {{.address = (char *)"https://bao.test/v1", .auth = (char *)"token"}, "must be https://HOST"},
        {{.address = (char *)"bao.test:8200", .auth = (char *)"token"}, "must begin with https://"},
        {{.auth = (char *)"token"}, "address is missing"},
        {{.address = address}, "auth must be one of"},
        {{.address = address, .auth = (char *)"ldap"}, "auth must be one of"},
        {{.address = address, .auth = (char *)"approle"}, "role-id-file"},
        {{.address = address, .auth = (char *)"cert"}, "client-cert"},
        {{.address = address, .auth = (char *)"kubernetes"}, "needs role"},
        {{.address = address, .auth = (char *)"token", .mount = (char *)"../sys"}, "mount"},
        {{.address = address, .auth = (char *)"token", .mount = (char *)"a b"}, "mount"},
        {{.address = address, .auth = (char *)"token", .auth_mount = (char *)"/"}, "auth-mount"},
    };
    assert_settings(&bao_backend, rows, sizeof rows / sizeof rows[0]);
}

/* ---- damage ---- */

struct conversation {
    struct backend_call call;
    const char *replies[3];
};

static void talk(const struct conversation *talk, size_t damaged, const char *body, size_t length)
{
    struct bench bench = {.call = talk->call, .settings = {.create = true, .destroy = true}};
    bench_open(&bench);
    begin(&bench);
    for (size_t i = 0; i < 3 && talk->replies[i] && bench.step == BACKEND_SEND; i++) {
        bool last = i == damaged;
        take(&bench, 200, last ? body : talk->replies[i], last ? length : strlen(talk->replies[i]));
        if (last)
            break;
    }
    if (bench.step == BACKEND_FAILED)
        assert_int_not_equal(bench.call.rv, CKR_OK);
    bench_close(&bench);
}

/* Cut anywhere, a reply is a defined failure; with bytes changed it may pass, and nothing leads out of bounds. */
static void truncated_and_damaged_replies_end_well(void **unused)
{
    (void)unused;
    const struct conversation talks[] = {
        {crypt_call(BACKEND_ENCRYPT, "hello", "aad"), {key_reply, encrypted_reply}},
        {crypt_call(BACKEND_DECRYPT, blob, NULL), {decrypted_reply}},
        {{.op = BACKEND_DESCRIBE, .key = "kek"}, {rsa_reply}},
        {{.op = BACKEND_LIST}, {ENVELOPE_REPLY("{\"keys\":[\"kek\"]}"), key_reply}},
        {{.op = BACKEND_RANDOM, .length = 5}, {ENVELOPE_REPLY("{\"random_bytes\":\"aGVsbG8=\"}")}},
        {{.op = BACKEND_AUTHENTICATE, .pin = "hvs.mine"}, {old_reply, LOGIN_REPLY("hvs.mine", "3600")}},
    };
    uint32_t seed = 4711;
    for (size_t i = 0; i < sizeof talks / sizeof talks[0]; i++)
        for (size_t at = 0; at < 3 && talks[i].replies[at]; at++) {
            const char *whole = talks[i].replies[at];
            size_t length = strlen(whole);
            char *copy = malloc(length);
            assert_non_null(copy);
            for (size_t cut = 0; cut < length - 1; cut += 1 + cut % 7)
                talk(&talks[i], at, whole, cut);
            for (int round = 0; round < 200; round++) {
                memcpy(copy, whole, length);
                for (int change = 0; change < 3; change++) {
                    seed = seed * 1664525u + 1013904223u;
                    copy[(seed >> 8) % length] = (char)(seed >> 24);
                }
                talk(&talks[i], at, copy, length);
            }
            free(copy);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_described),
        cmocka_unit_test(no_such_key_is_an_answer_and_no_such_engine_is_not),
        cmocka_unit_test(a_list_shows_what_may_be_read),
        cmocka_unit_test(keys_are_made_once_and_only_where_there_is_none),
        cmocka_unit_test(keys_are_deleted_only_where_both_sides_allow_it),
        cmocka_unit_test(settings_are_checked_before_anything_is_sent),
        cmocka_unit_test(truncated_and_damaged_replies_end_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
