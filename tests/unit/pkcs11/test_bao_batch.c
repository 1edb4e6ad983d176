/* Batches of the OpenBao backend: what is asked in one request, and that every piece gets its own outcome. */
#include "bao_bench.h"

#define BLOB(n) "vault:v1:AAAA" n
#define RESULTS(items) ENVELOPE_REPLY("{\"batch_results\":[" items "]}")

static struct backend_item item(const char *in, const char *aad, const char *aad_to)
{
    return (struct backend_item){.in = (const uint8_t *)in,
                                 .in_length = strlen(in),
                                 .aad = (const uint8_t *)aad,
                                 .aad_length = aad ? strlen(aad) : 0,
                                 .aad_to = (const uint8_t *)aad_to,
                                 .aad_to_length = aad_to ? strlen(aad_to) : 0};
}

static struct backend_call batch(enum backend_op each, struct backend_item *items, size_t count)
{
    return (struct backend_call){.op = BACKEND_BATCH,
                                 .each = each,
                                 .key = "kek",
                                 .key_to = each == BACKEND_REWRAP ? "kek" : NULL,
                                 .items = items,
                                 .item_count = count};
}

static void close_batch(struct bench *bench)
{
    for (size_t i = 0; i < bench->call.item_count; i++)
        backend_item_reset(&bench->call.items[i]);
    bench_close(bench);
}

static void assert_result(const struct bench *bench, size_t i, const char *wanted)
{
    const struct backend_item *piece = &bench->call.items[i];
    if (!piece->settled || piece->rv != CKR_OK)
        fail_msg("item %zu: settled %d, rv 0x%lx, %s", i, piece->settled, piece->rv, piece->text ? piece->text : "");
    assert_int_equal(piece->out_length, strlen(wanted));
    if (*wanted)
        assert_memory_equal(bench->call.out.bytes + piece->out_at, wanted, strlen(wanted));
}

static void assert_item_refused(const struct bench *bench, size_t i, CK_RV rv, const char *words)
{
    const struct backend_item *piece = &bench->call.items[i];
    assert_true(piece->settled);
    if (piece->rv != rv || !piece->text || !strstr(piece->text, words) || piece->out_length)
        fail_msg("item %zu: rv 0x%lx, %s", i, piece->rv, piece->text ? piece->text : "");
}

static void decryptions_are_one_request_each_with_its_associated_data(void **unused)
{
    (void)unused;
    struct backend_item items[] = {item(BLOB("1"), "one", NULL), item(BLOB("2"), NULL, NULL),
                                   item(BLOB("3"), "three", NULL)};
    struct bench bench = {.call = batch(BACKEND_DECRYPT, items, 3)};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "transit/decrypt/kek",
                   "{\"batch_input\":[{\"ciphertext\":\"vault:v1:AAAA1\",\"associated_data\":\"b25l\"},"
                   "{\"ciphertext\":\"vault:v1:AAAA2\"},"
                   "{\"ciphertext\":\"vault:v1:AAAA3\",\"associated_data\":\"dGhyZWU=\"}]}");
    reply(&bench, 200, RESULTS("{\"plaintext\":\"b25l\"},{\"plaintext\":\"\"},{\"plaintext\":\"dGhyZWU=\"}"));
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_result(&bench, 0, "one");
    assert_result(&bench, 1, "");
    assert_result(&bench, 2, "three");
    assert_string_equal(bench.call.request_id, "05981f22-2df3-f52a-457a-ac29af2b6983");
    close_batch(&bench);
}

/* 400 with results, as soon as one piece is refused; 500 where the engine failed at one; 200 where a proxy says so. */
static void a_refused_piece_harms_no_other_whatever_the_status(void **unused)
{
    (void)unused;
    static const long statuses[] = {200, 400, 500};
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        struct backend_item items[] = {item(BLOB("1"), "one", NULL), item(BLOB("2"), NULL, NULL),
                                       item(BLOB("3"), NULL, NULL), item(BLOB("4"), NULL, NULL),
                                       item(BLOB("5"), NULL, NULL)};
        struct bench bench = {.call = batch(BACKEND_DECRYPT, items, 5)};
        bench_open(&bench);
        begin(&bench);
        reply(
            &bench, statuses[i],
            RESULTS("{\"plaintext\":\"\",\"error\":\"cipher: message authentication failed\"},{\"plaintext\":\"b25l\"},"
                    "{\"plaintext\":\"\",\"error\":\"ciphertext or signature version is disallowed by policy (too "
                    "old)\"},{\"plaintext\":\"\",\"error\":\"something \\u001b[31melse\"},{\"plaintext\":7}"));
        assert_int_equal(bench.step, BACKEND_DONE);
        assert_item_refused(&bench, 0, CKR_ENCRYPTED_DATA_INVALID, "associated data");
        assert_result(&bench, 1, "one");
        assert_item_refused(&bench, 2, CKR_KEY_FUNCTION_NOT_PERMITTED, "min_decryption_version");
        assert_item_refused(&bench, 3, CKR_FUNCTION_FAILED, "else");
        assert_null(strchr(items[3].text, '\x1b'));
        /* The service's own words, of each; what it did not say has none. */
        assert_string_equal(items[0].service_code, "batch item");
        assert_string_equal(items[0].service_message, "cipher: message authentication failed");
        assert_non_null(strstr(items[3].service_message, "something"));
        assert_null(items[4].service_code);
        assert_item_refused(&bench, 4, CKR_DEVICE_ERROR, "one item");
        close_batch(&bench);
    }
}

static void encryptions_read_the_key_once(void **unused)
{
    (void)unused;
    struct backend_item items[] = {item("one", "a", NULL), item("two", NULL, NULL)};
    struct bench bench = {.call = batch(BACKEND_ENCRYPT, items, 2)};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    reply(&bench, 200, key_reply);
    assert_request(
        &bench, HTTP_POST, "transit/encrypt/kek",
        "{\"batch_input\":[{\"plaintext\":\"b25l\",\"associated_data\":\"YQ==\"},{\"plaintext\":\"dHdv\"}]}");
    reply(&bench, 200,
          RESULTS("{\"ciphertext\":\"" BLOB("1") "\",\"key_version\":1},{\"ciphertext\":\"" BLOB("2") "\"}"));
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_result(&bench, 0, BLOB("1"));
    assert_result(&bench, 1, BLOB("2"));
    close_batch(&bench);
}

static void a_missing_or_exportable_key_is_never_encrypted_with(void **unused)
{
    (void)unused;
    for (int variant = 0; variant < 2; variant++) {
        struct backend_item items[] = {item("one", NULL, NULL)};
        struct bench bench = {.call = batch(BACKEND_ENCRYPT, items, 1)};
        bench_open(&bench);
        begin(&bench);
        if (variant)
            reply(&bench, 404, not_found);
        else
            reply(&bench, 200, exportable_reply);
        assert_refused(&bench, BACKEND_FAILED, variant ? CKR_KEY_HANDLE_INVALID : CKR_KEY_FUNCTION_NOT_PERMITTED,
                       "kek");
        assert_false(items[0].settled);
        close_batch(&bench);
    }
}

static void what_the_engine_can_move_is_moved_inside_and_the_rest_decrypted_and_encrypted(void **unused)
{
    (void)unused;
    struct backend_item items[] = {item(BLOB("1"), "old", "new"), item(BLOB("2"), NULL, NULL),
                                   item(BLOB("3"), "old", NULL), item(BLOB("4"), NULL, NULL)};
    struct bench bench = {.call = batch(BACKEND_REWRAP, items, 4)};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "transit/rewrap/kek",
                   "{\"batch_input\":[{\"ciphertext\":\"vault:v1:AAAA2\"},{\"ciphertext\":\"vault:v1:AAAA4\"}]}");
    reply(&bench, 200, RESULTS("{\"ciphertext\":\"" BLOB("x") "\"},{\"error\":\"invalid ciphertext: too short\"}"));
    assert_request(&bench, HTTP_POST, "transit/decrypt/kek",
                   "{\"batch_input\":[{\"ciphertext\":\"vault:v1:AAAA1\",\"associated_data\":\"b2xk\"},"
                   "{\"ciphertext\":\"vault:v1:AAAA3\",\"associated_data\":\"b2xk\"}]}");
    reply(&bench, 400,
          RESULTS("{\"plaintext\":\"\",\"error\":\"cipher: message authentication failed\"},"
                  "{\"plaintext\":\"aGVsbG8=\"}"));
    assert_request(&bench, HTTP_GET, "transit/keys/kek", "");
    reply(&bench, 200, key_reply);
    assert_request(&bench, HTTP_POST, "transit/encrypt/kek", "{\"batch_input\":[{\"plaintext\":\"aGVsbG8=\"}]}");
    reply(&bench, 200, RESULTS("{\"ciphertext\":\"" BLOB("y") "\"}"));
    assert_int_equal(bench.step, BACKEND_DONE);
    assert_item_refused(&bench, 0, CKR_ENCRYPTED_DATA_INVALID, "associated data");
    assert_result(&bench, 1, BLOB("x"));
    assert_false(items[1].plaintext_left);
    assert_result(&bench, 2, BLOB("y"));
    assert_true(items[2].plaintext_left);
    assert_item_refused(&bench, 3, CKR_ENCRYPTED_DATA_INVALID, "damaged");
    close_batch(&bench);
}

static void to_another_key_nothing_is_moved_inside(void **unused)
{
    (void)unused;
    struct backend_item items[] = {item(BLOB("1"), NULL, "new")};
    struct bench bench = {.call = batch(BACKEND_REWRAP, items, 1)};
    bench.call.key_to = "next";
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "transit/decrypt/kek", "{\"batch_input\":[{\"ciphertext\":\"vault:v1:AAAA1\"}]}");
    reply(&bench, 200, RESULTS("{\"plaintext\":\"aGVsbG8=\"}"));
    assert_request(&bench, HTTP_GET, "transit/keys/next", "");
    reply(&bench, 200, key_reply);
    assert_request(&bench, HTTP_POST, "transit/encrypt/next",
                   "{\"batch_input\":[{\"plaintext\":\"aGVsbG8=\",\"associated_data\":\"bmV3\"}]}");
    close_batch(&bench);
}

static void what_is_no_ciphertext_is_not_sent_and_harms_no_other(void **unused)
{
    (void)unused;
    struct backend_item items[] = {item("vault:v1:AA\"}]", NULL, NULL), item(BLOB("2"), NULL, NULL),
                                   item("nonsense", NULL, NULL)};
    struct bench bench = {.call = batch(BACKEND_DECRYPT, items, 3)};
    bench_open(&bench);
    begin(&bench);
    assert_request(&bench, HTTP_POST, "transit/decrypt/kek", "{\"batch_input\":[{\"ciphertext\":\"vault:v1:AAAA2\"}]}");
    reply(&bench, 200, RESULTS("{\"plaintext\":\"b25l\"}"));
    assert_item_refused(&bench, 0, CKR_ENCRYPTED_DATA_INVALID, "vault:vN");
    assert_result(&bench, 1, "one");
    assert_item_refused(&bench, 2, CKR_ENCRYPTED_DATA_INVALID, "vault:vN");
    close_batch(&bench);
    struct backend_item none[] = {item("nonsense", NULL, NULL)};
    struct bench nothing = {.call = batch(BACKEND_REWRAP, none, 1)};
    bench_open(&nothing);
    assert_int_equal(begin(&nothing), BACKEND_DONE);
    close_batch(&nothing);
}

static void a_dry_run_leaves_nothing(void **unused)
{
    (void)unused;
    struct backend_item items[] = {item(BLOB("1"), NULL, NULL), item(BLOB("2"), NULL, NULL)};
    items[0].dry_run = true;
    struct bench bench = {.call = batch(BACKEND_DECRYPT, items, 2)};
    bench_open(&bench);
    begin(&bench);
    reply(&bench, 200, RESULTS("{\"plaintext\":\"c2VjcmV0\"},{\"plaintext\":\"b25l\"}"));
    assert_result(&bench, 0, "");
    assert_result(&bench, 1, "one");
    assert_int_equal(bench.call.out.length, 3);
    close_batch(&bench);
}

static void a_request_that_fails_as_a_whole_leaves_its_pieces_unsettled(void **unused)
{
    (void)unused;
    static const struct bench_refusal cases[] = {
        {403, denied, BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, "policy"},
        {400, "{\"errors\":[\"encryption key not found\"]}", BACKEND_FAILED, CKR_KEY_HANDLE_INVALID, "deleted"},
        {400, "{\"errors\":[\"refused JSON input due to high complexity: exceeded maximum number of strings\"]}",
         BACKEND_FAILED, CKR_DEVICE_ERROR, "max_request_json_strings"},
        {503, "{\"errors\":[\"Vault is sealed\"]}", BACKEND_FAILED, CKR_DEVICE_REMOVED, "unseal"},
        {500, "{\"errors\":[\"internal error\"]}", BACKEND_RETRY, CKR_DEVICE_ERROR, "internal error"},
        {502, RESULTS("{\"plaintext\":\"b25l\"},{\"plaintext\":\"b25l\"}"), BACKEND_RETRY, CKR_DEVICE_ERROR,
         "HTTP 502"},
        {200, RESULTS("{\"plaintext\":\"b25l\"}"), BACKEND_FAILED, CKR_DEVICE_ERROR, "batch_results"},
        {200, RESULTS("{\"plaintext\":\"b25l\"},{},{}"), BACKEND_FAILED, CKR_DEVICE_ERROR, "batch_results"},
        {200, decrypted_reply, BACKEND_FAILED, CKR_DEVICE_ERROR, "batch_results"},
        {200, "<html>", BACKEND_FAILED, CKR_DEVICE_ERROR, "JSON"},
        {204, "", BACKEND_FAILED, CKR_DEVICE_ERROR, "batch_results"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct backend_item items[] = {item(BLOB("1"), NULL, NULL), item(BLOB("2"), NULL, NULL)};
        struct bench bench = {.call = batch(BACKEND_DECRYPT, items, 2)};
        bench_open(&bench);
        begin(&bench);
        assert_refusal(&bench, &cases[i]);
        assert_false(items[0].settled || items[1].settled);
        close_batch(&bench);
    }
}

static void begun_again_every_piece_is_as_at_first(void **unused)
{
    (void)unused;
    struct backend_item items[] = {item(BLOB("1"), NULL, NULL), item(BLOB("2"), "x", NULL)};
    struct bench bench = {.call = batch(BACKEND_REWRAP, items, 2)};
    bench_open(&bench);
    begin(&bench);
    reply(&bench, 200, RESULTS("{\"ciphertext\":\"" BLOB("x") "\"}"));
    assert_true(items[0].settled);
    reply(&bench, 403, denied);
    assert_int_equal(bench.step, BACKEND_REAUTH);
    struct credentials *credentials = bench.call.credentials;
    backend_call_clear(&bench.call); /* as token.c does before it begins again */
    bench.call.credentials = credentials;
    begin(&bench);
    assert_request(&bench, HTTP_POST, "transit/rewrap/kek", "{\"batch_input\":[{\"ciphertext\":\"vault:v1:AAAA1\"}]}");
    assert_false(items[0].settled);
    close_batch(&bench);
}

/* Every prefix, and every byte spoilt: each ends with a settled piece or with a whole failure. */
static void truncated_and_damaged_replies_end_well(void **unused)
{
    (void)unused;
    static const char whole[] = RESULTS("{\"plaintext\":\"b25l\"},{\"plaintext\":\"\",\"error\":\"no\"}");
    for (size_t at = 0; at < 2 * (sizeof whole - 1); at++) {
        char text[sizeof whole];
        struct backend_item items[] = {item(BLOB("1"), NULL, NULL), item(BLOB("2"), NULL, NULL)};
        struct bench bench = {.call = batch(BACKEND_DECRYPT, items, 2)};
        memcpy(text, whole, sizeof whole);
        if (at >= sizeof whole - 1)
            text[at - (sizeof whole - 1)] ^= 0x15;
        bench_open(&bench);
        begin(&bench);
        take(&bench, 200, text, at < sizeof whole - 1 ? at : sizeof whole - 1);
        if (bench.step == BACKEND_DONE)
            assert_true(items[0].settled && items[1].settled);
        else
            assert_true(bench.step == BACKEND_FAILED && bench.call.rv != CKR_OK && *error_text());
        close_batch(&bench);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decryptions_are_one_request_each_with_its_associated_data),
        cmocka_unit_test(a_refused_piece_harms_no_other_whatever_the_status),
        cmocka_unit_test(encryptions_read_the_key_once),
        cmocka_unit_test(a_missing_or_exportable_key_is_never_encrypted_with),
        cmocka_unit_test(what_the_engine_can_move_is_moved_inside_and_the_rest_decrypted_and_encrypted),
        cmocka_unit_test(to_another_key_nothing_is_moved_inside),
        cmocka_unit_test(what_is_no_ciphertext_is_not_sent_and_harms_no_other),
        cmocka_unit_test(a_dry_run_leaves_nothing),
        cmocka_unit_test(a_request_that_fails_as_a_whole_leaves_its_pieces_unsettled),
        cmocka_unit_test(begun_again_every_piece_is_as_at_first),
        cmocka_unit_test(truncated_and_damaged_replies_end_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
