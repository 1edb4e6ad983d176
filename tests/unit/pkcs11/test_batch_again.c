/* A batch that is begun again (other credentials) must not hand out what the first beginning left. */
#include "bao_bench.h"

#define BLOB "vault:v1:AAAA"

/*
 * A policy may allow rewrap and not decrypt. What was moved inside the engine lay in the call's output, which is gone
 * once the call begins again; where the new login fails, nobody else would say so to the items.
 */
static void items_do_not_outlive_the_output_they_lay_in(void **state)
{
    (void)state;
    struct backend_item items[] = {
        {.in = (const uint8_t *)BLOB, .in_length = sizeof BLOB - 1},
        {.in = (const uint8_t *)BLOB, .in_length = sizeof BLOB - 1, .aad = (const uint8_t *)"one", .aad_length = 3}};
    struct bench bench = {.call = {.op = BACKEND_BATCH,
                                   .each = BACKEND_REWRAP,
                                   .key = "kek",
                                   .key_to = "kek",
                                   .items = items,
                                   .item_count = 2}};
    bench_open(&bench);
    begin(&bench);
    reply(&bench, 200, ENVELOPE_REPLY("{\"batch_results\":[{\"ciphertext\":\"vault:v2:BBBB\"}]}"));
    assert_int_equal(bench.step, BACKEND_SEND);
    assert_true(items[0].settled && items[0].out_length && !items[1].settled);
    reply(&bench, 403, denied);
    assert_int_equal(bench.step, BACKEND_REAUTH);
    backend_call_clear(&bench.call);
    assert_null(bench.call.out.bytes);
    for (size_t i = 0; i < 2; i++)
        assert_true(!items[i].settled && !items[i].out_length && items[i].in_length == sizeof BLOB - 1);
    bench_close(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_do_not_outlive_the_output_they_lay_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
