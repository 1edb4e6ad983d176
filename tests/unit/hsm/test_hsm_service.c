/* KEKs in a key service, and moving DEKs between KEKs. The service is SoftHSM behind service_module.c. */
#include "hsm_fixture.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "service_module.h"

static struct service_control *control;
static char module[] = SERVICE_MODULE;
static const uint8_t OTHER_AAD[] = "envelope wrap v1, of another KEK";
static char elsewhere[512]; /* the URI of the same token's KEK, by SoftHSM itself */
#define SECOND "pkcs11:token=rig;object=second"

static int group_setup(void **state)
{
    if (fixture_group_setup(state) != 0)
        return -1;
    void *handle = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    control = handle ? dlsym(handle, "service_control") : NULL;
    return control ? 0 : -1;
}

static int setup(void **state)
{
    if (fixture_setup(state) != 0)
        return -1;
    memset(control, 0, sizeof *control);
    snprintf(elsewhere, sizeof elsewhere, "pkcs11:token=rig;object=second?module-path=%s", fixture.settings.module);
    fixture.settings.module = module;
    make_aes(&(struct key_wish){.label = "second"});
    return 0;
}

static int teardown(void **state)
{
    memset(control, 0, sizeof *control);
    destroy_keys("second");
    return fixture_teardown(state);
}

static uint64_t recoveries(void)
{
    struct hsm_counters counters;
    hsm_count(fixture.hsm, &counters);
    return counters.recoveries;
}

/* --- wrapping --- */

static void auto_takes_the_service_and_its_blob_is_opaque(void **state)
{
    struct hsm_kek_info info;
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    assert_status(hsm_kek_info(fixture.hsm, fixture.rig.kek, &info), ENVELOPE_OK);
    assert_int_equal(info.mechanism, HSM_KEY_SERVICE);
    round_trip(fixture.rig.kek, &blob, &length);
    assert_int_equal(blob[0], 1);
    assert_int_equal(blob[1], HSM_KEY_SERVICE);
    assert_true(control->encrypts == 1 && control->decrypts >= 1);
    blob[2 + 20] ^= 1;
    assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_E_UNWRAP);
    assert_said("the service says so (request request-17)");
    free(blob);
}

static void blob_is_bound_to_its_aad(void **state)
{
    uint8_t dek[HSM_DEK_SIZE] = {7}, *blob = NULL;
    size_t length = 0;
    (void)state;
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, OTHER_AAD, sizeof OTHER_AAD, dek, &blob, &length),
                  ENVELOPE_OK);
    assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_E_UNWRAP);
    free(blob);
}

static void blobs_up_to_8_kib_are_kept_and_longer_ones_refused(void **state)
{
    uint8_t dek[HSM_DEK_SIZE] = {7}, *blob = NULL;
    size_t length = 0;
    (void)state;
    control->blob_size = 8192;
    round_trip(fixture.rig.kek, &blob, &length);
    assert_int_equal(length, 2 + 8192);
    free(blob);
    control->blob_size = 8193;
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &blob, &length), ENVELOPE_E_HSM);
    assert_said("8193 bytes");
    control->blob_size = 0;
    round_trip(fixture.rig.kek, NULL, NULL);
}

static void another_mechanism_than_the_service_has_is_refused(void **state)
{
    uint8_t dek[HSM_DEK_SIZE] = {7}, *blob = NULL;
    size_t length = 0;
    (void)state;
    fixture.settings.wrap = SETTINGS_WRAP_AES_GCM;
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_WRAP_MECHANISM);
}

/* --- what the service says --- */

static void each_answer_has_its_status_and_no_session_is_opened_anew_for_it(void **state)
{
    static const struct {
        CK_RV rv;
        const char *code;
        envelope_status status;
        bool away;
    } answers[] = {
        {CKR_KEY_FUNCTION_NOT_PERMITTED, "DisabledException", ENVELOPE_E_KEK_REFUSED, false},
        {CKR_KEY_HANDLE_INVALID, "NotFoundException", ENVELOPE_E_KEK_UNKNOWN, false},
        {CKR_USER_NOT_LOGGED_IN, "AccessDeniedException", ENVELOPE_E_HSM_LOGIN, false},
        {CKR_USER_NOT_LOGGED_IN, "", ENVELOPE_E_HSM_UNAVAILABLE, true},
        {CKR_ENCRYPTED_DATA_INVALID, "InvalidCiphertextException", ENVELOPE_E_UNWRAP, false},
        {CKR_DEVICE_REMOVED, "", ENVELOPE_E_HSM_UNAVAILABLE, true},
        {CKR_DEVICE_ERROR, "ThrottlingException", ENVELOPE_E_HSM_UNAVAILABLE, true},
        {CKR_TOKEN_NOT_RECOGNIZED, "", ENVELOPE_E_HSM_UNAVAILABLE, true},
        {CKR_GENERAL_ERROR, "", ENVELOPE_E_HSM, true},
        {CKR_FUNCTION_FAILED, "", ENVELOPE_E_HSM, true},
    };
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    round_trip(fixture.rig.kek, &blob, &length);
    uint64_t before = recoveries();
    int initialized = control->initializes;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        snprintf(control->code, sizeof control->code, "%s", answers[i].code);
        control->rv = answers[i].rv;
        int asked = control->decrypts;
        assert_status(unwrap(fixture.rig.kek, blob, length), answers[i].status);
        assert_said("the service says so (request request-17)");
        assert_int_equal(control->decrypts, asked + 1);
        assert_true(hsm_is_away(answers[i].status) == answers[i].away);
        control->rv = CKR_OK;
        assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_OK);
    }
    assert_true(recoveries() == before);
    assert_int_equal(control->initializes, initialized);
    free(blob);
}

static void forgotten_handle_is_looked_for_again(void **state)
{
    uint8_t *blob = NULL;
    size_t length = 0;
    (void)state;
    round_trip(fixture.rig.kek, &blob, &length);
    uint64_t before = recoveries();
    control->rv = CKR_KEY_HANDLE_INVALID; /* and the service was not asked */
    assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_E_HSM_UNAVAILABLE);
    control->rv = CKR_OK;
    assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_OK);
    assert_true(recoveries() > before);
    free(blob);
}

static void search_that_fails_says_why(void **state)
{
    (void)state;
    control->rv = CKR_DEVICE_REMOVED;
    control->only_search = true;
    uint8_t dek[HSM_DEK_SIZE] = {7}, *blob = NULL;
    size_t length = 0;
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_HSM_UNAVAILABLE);
    assert_said("the service says so");
}

static void key_that_is_not_there_is_said_to_be_deleted_or_misnamed(void **state)
{
    uint8_t dek[HSM_DEK_SIZE] = {7}, *blob = NULL;
    size_t length = 0;
    (void)state;
    round_trip(fixture.rig.kek, NULL, NULL);
    int initialized = control->initializes;
    assert_status(hsm_wrap(fixture.hsm, "pkcs11:token=rig;object=nothing", AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_KEK_UNKNOWN);
    assert_said("deleted, misnamed");
    snprintf(control->code, sizeof control->code, "KeyState");
    assert_status(hsm_wrap(fixture.hsm, "pkcs11:token=rig;object=nothing", AAD, sizeof AAD, dek, &blob, &length),
                  ENVELOPE_E_KEK_UNKNOWN);
    assert_said("KeyState");
    assert_int_equal(control->initializes, initialized);
}

/* --- moving --- */

struct moved {
    uint8_t *blob;
    size_t length;
    bool inside;
};

static envelope_status move_blob(const char *from, const char *to, const uint8_t *blob, size_t length,
                                 struct moved *moved)
{
    struct hsm_rewrap move = {.from = from,
                              .to = to,
                              .aad_from = AAD,
                              .aad_from_length = sizeof AAD,
                              .aad_to = OTHER_AAD,
                              .aad_to_length = sizeof OTHER_AAD,
                              .blob = blob,
                              .blob_length = length};
    *moved = (struct moved){0};
    return hsm_rewrap(fixture.hsm, &move, &moved->blob, &moved->length, &moved->inside);
}

/* A DEK known to us under the KEK, moved, is that DEK under the other, bound to the other AAD. */
static void check_move(const char *from, const char *to, bool inside)
{
    uint8_t dek[HSM_DEK_SIZE] = {1, 2, 3}, again[HSM_DEK_SIZE], *blob = NULL;
    size_t length = 0;
    struct moved moved;
    assert_status(hsm_wrap(fixture.hsm, from, AAD, sizeof AAD, dek, &blob, &length), ENVELOPE_OK);
    assert_status(move_blob(from, to, blob, length, &moved), ENVELOPE_OK);
    assert_true(moved.inside == inside);
    assert_status(hsm_unwrap(fixture.hsm, to, OTHER_AAD, sizeof OTHER_AAD, moved.blob, moved.length, again),
                  ENVELOPE_OK);
    assert_memory_equal(dek, again, sizeof dek);
    assert_status(hsm_unwrap(fixture.hsm, to, AAD, sizeof AAD, moved.blob, moved.length, again), ENVELOPE_E_UNWRAP);
    free(moved.blob);
    free(blob);
}

static void one_service_moves_a_dek_itself_and_is_asked_whether_it_opens(void **state)
{
    (void)state;
    check_move(fixture.rig.kek, SECOND, true);
    assert_true(control->rewraps == 1 && control->dry_runs == 1);
    assert_int_equal(control->decrypts, 2); /* the test's own: none while it moved */
    check_move(fixture.rig.kek, fixture.rig.kek, true);
    control->plaintext_leaves = true;
    check_move(fixture.rig.kek, SECOND, false);
}

static void requests_that_succeeded_are_told(void **state)
{
    uint8_t dek[HSM_DEK_SIZE] = {7}, *blob = NULL, *other = NULL;
    size_t length = 0, other_length = 0;
    struct moved moved;
    (void)state;
    control->counts_requests = true;
    assert_status(hsm_wrap(fixture.hsm, fixture.rig.kek, AAD, sizeof AAD, dek, &blob, &length), ENVELOPE_OK);
    assert_string_equal(hsm_requests(), "request-1");
    assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_OK);
    assert_string_equal(hsm_requests(), "request-2");
    assert_status(move_blob(fixture.rig.kek, SECOND, blob, length, &moved), ENVELOPE_OK);
    assert_string_equal(hsm_requests(), "request-3"); /* 4 was the question whether it opens */
    free(moved.blob);
    assert_status(move_blob(fixture.rig.kek, elsewhere, blob, length, &moved), ENVELOPE_OK);
    assert_string_equal(hsm_requests(), "request-5"); /* the rest was the other token's */
    free(moved.blob);
    assert_status(hsm_wrap(fixture.hsm, elsewhere, AAD, sizeof AAD, dek, &other, &other_length), ENVELOPE_OK);
    assert_string_equal(hsm_requests(), "");
    assert_status(move_blob(elsewhere, SECOND, other, other_length, &moved), ENVELOPE_OK);
    assert_string_equal(hsm_requests(), "request-6, request-7"); /* wrapped, and unwrapped again to be sure */
    free(moved.blob);
    control->rv = CKR_KEY_FUNCTION_NOT_PERMITTED;
    assert_status(unwrap(fixture.rig.kek, blob, length), ENVELOPE_E_KEK_REFUSED);
    assert_string_equal(hsm_requests(), "");
    assert_said("request-8");
    free(other);
    free(blob);
}

static void between_tokens_it_passes_through_locked_memory(void **state)
{
    struct hsm_counters counters;
    (void)state;
    check_move(fixture.rig.kek, elsewhere, false);
    check_move(elsewhere, fixture.rig.kek, false);
    check_move(elsewhere, elsewhere, false);
    assert_int_equal(control->rewraps, 0);
    hsm_count(fixture.hsm, &counters);
    assert_int_equal(counters.rewraps, 3);
}

static void move_whose_result_does_not_open_is_refused(void **state)
{
    uint8_t *blob = NULL;
    size_t length = 0;
    struct moved moved;
    (void)state;
    round_trip(fixture.rig.kek, &blob, &length);
    control->damages = true;
    assert_status(move_blob(fixture.rig.kek, SECOND, blob, length, &moved), ENVELOPE_E_UNWRAP);
    assert_null(moved.blob);
    control->damages = false;
    blob[2 + 15] ^= 1;
    assert_status(move_blob(fixture.rig.kek, SECOND, blob, length, &moved), ENVELOPE_E_UNWRAP);
    assert_said("moving a data key");
    assert_status(move_blob(fixture.rig.kek, elsewhere, blob, length, &moved), ENVELOPE_E_UNWRAP);
    blob[2 + 15] ^= 1;
    assert_status(move_blob(fixture.rig.kek, SECOND, blob, 2, &moved), ENVELOPE_E_UNWRAP);
    assert_status(move_blob(fixture.rig.kek, "pkcs11:token=rig;object=nothing", blob, length, &moved),
                  ENVELOPE_E_KEK_UNKNOWN);
    assert_status(move_blob(fixture.rig.kek, "pkcs11:token=rig", blob, length, &moved), ENVELOPE_E_KEK_URI);
    free(blob);
}

/* --- many at once --- */

enum { MANY = 20 };

struct batch {
    struct hsm_rewrap_item items[MANY];
    uint8_t *blobs[MANY];
};

/* DEK n is n everywhere. */
static void make_batch(struct batch *batch, const char *from)
{
    for (size_t i = 0; i < MANY; i++) {
        struct hsm_rewrap_item *item = &batch->items[i];
        uint8_t dek[HSM_DEK_SIZE];
        memset(dek, (int)i, sizeof dek);
        *item = (struct hsm_rewrap_item){
            .aad_from = AAD, .aad_from_length = sizeof AAD, .aad_to = OTHER_AAD, .aad_to_length = sizeof OTHER_AAD};
        assert_status(hsm_wrap(fixture.hsm, from, AAD, sizeof AAD, dek, &batch->blobs[i], &item->blob_length),
                      ENVELOPE_OK);
        item->blob = batch->blobs[i];
    }
}

/* How many were made; each of them has its DEK. */
static size_t check_batch(struct batch *batch, const char *to)
{
    size_t made = 0;
    for (size_t i = 0; i < MANY; i++) {
        struct hsm_rewrap_item *item = &batch->items[i];
        uint8_t dek[HSM_DEK_SIZE], again[HSM_DEK_SIZE];
        memset(dek, (int)i, sizeof dek);
        if (item->made) {
            made++;
            assert_status(
                hsm_unwrap(fixture.hsm, to, OTHER_AAD, sizeof OTHER_AAD, item->made, item->made_length, again),
                ENVELOPE_OK);
            assert_memory_equal(dek, again, sizeof dek);
        }
        free(item->made);
        item->made = NULL;
    }
    return made;
}

static void free_batch(struct batch *batch)
{
    for (size_t i = 0; i < MANY; i++)
        free(batch->blobs[i]);
}

static void many_move_in_three_requests(void **state)
{
    struct batch batch;
    struct hsm_counters counters;
    (void)state;
    control->counts_requests = true;
    make_batch(&batch, fixture.rig.kek);
    assert_true(hsm_rewrap_many(fixture.hsm, fixture.rig.kek, SECOND, batch.items, MANY));
    assert_string_equal(hsm_requests(), "request-21, request-22, request-23");
    assert_true(control->many == 3 && control->rewraps == 0 && control->encrypts == MANY);
    assert_int_equal(check_batch(&batch, SECOND), MANY);
    hsm_count(fixture.hsm, &counters);
    assert_int_equal(counters.rewraps, MANY);
    /* To itself too: under new material. */
    assert_true(hsm_rewrap_many(fixture.hsm, fixture.rig.kek, fixture.rig.kek, batch.items, MANY));
    assert_int_equal(check_batch(&batch, fixture.rig.kek), MANY);
    free_batch(&batch);
}

static void what_does_not_open_harms_no_other(void **state)
{
    struct batch batch;
    (void)state;
    make_batch(&batch, fixture.rig.kek);
    batch.blobs[3][2 + 15] ^= 1;
    batch.items[7].aad_from = OTHER_AAD;
    batch.items[7].aad_from_length = sizeof OTHER_AAD;
    batch.items[9].blob_length = 2;
    batch.blobs[11][1] = HSM_AES_GCM;
    assert_true(hsm_rewrap_many(fixture.hsm, fixture.rig.kek, SECOND, batch.items, MANY));
    assert_true(!batch.items[3].made && !batch.items[7].made && !batch.items[9].made && !batch.items[11].made);
    assert_int_equal(check_batch(&batch, SECOND), MANY - 4);
    free_batch(&batch);
}

static void many_that_come_out_wrong_are_not_given(void **state)
{
    struct batch batch;
    (void)state;
    make_batch(&batch, fixture.rig.kek);
    control->damages = true;
    assert_true(hsm_rewrap_many(fixture.hsm, fixture.rig.kek, SECOND, batch.items, MANY));
    assert_int_equal(check_batch(&batch, SECOND), 0);
    control->damages = false;
    control->rv = CKR_KEY_FUNCTION_NOT_PERMITTED;
    assert_true(hsm_rewrap_many(fixture.hsm, fixture.rig.kek, SECOND, batch.items, MANY));
    assert_string_equal(hsm_requests(), "");
    assert_int_equal(check_batch(&batch, SECOND), 0);
    control->rv = CKR_OK;
    make_aes(&(struct key_wish){.label = "loose", .extractable = true});
    assert_true(hsm_rewrap_many(fixture.hsm, fixture.rig.kek, "pkcs11:token=rig;object=loose", batch.items, MANY));
    assert_int_equal(check_batch(&batch, SECOND), 0);
    destroy_keys("loose");
    free_batch(&batch);
}

static void many_are_for_one_token_that_takes_them(void **state)
{
    void (*set_minor)(unsigned char) = NULL;
    void *handle = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    struct batch batch;
    (void)state;
    *(void **)&set_minor = dlsym(handle, "service_set_minor");
    make_batch(&batch, fixture.rig.kek);
    assert_false(hsm_rewrap_many(fixture.hsm, fixture.rig.kek, elsewhere, batch.items, MANY));
    assert_false(hsm_rewrap_many(fixture.hsm, elsewhere, elsewhere, batch.items, MANY));
    set_minor(0);
    assert_false(hsm_rewrap_many(fixture.hsm, fixture.rig.kek, SECOND, batch.items, MANY));
    set_minor(1);
    control->one_by_one = true;
    assert_false(hsm_rewrap_many(fixture.hsm, fixture.rig.kek, SECOND, batch.items, MANY));
    control->one_by_one = false;
    assert_int_equal(control->many, 0);
    assert_int_equal(check_batch(&batch, SECOND), 0);
    free_batch(&batch);
}

static void extractable_kek_is_no_target(void **state)
{
    uint8_t *blob = NULL;
    size_t length = 0;
    struct moved moved;
    (void)state;
    make_aes(&(struct key_wish){.label = "loose", .extractable = true});
    round_trip(fixture.rig.kek, &blob, &length);
    assert_status(move_blob(fixture.rig.kek, "pkcs11:token=rig;object=loose", blob, length, &moved),
                  ENVELOPE_E_KEK_ATTRIBUTES);
    free(blob);
    destroy_keys("loose");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(auto_takes_the_service_and_its_blob_is_opaque),
        TEST(blob_is_bound_to_its_aad),
        TEST(blobs_up_to_8_kib_are_kept_and_longer_ones_refused),
        TEST(another_mechanism_than_the_service_has_is_refused),
        TEST(each_answer_has_its_status_and_no_session_is_opened_anew_for_it),
        TEST(forgotten_handle_is_looked_for_again),
        TEST(search_that_fails_says_why),
        TEST(key_that_is_not_there_is_said_to_be_deleted_or_misnamed),
        TEST(one_service_moves_a_dek_itself_and_is_asked_whether_it_opens),
        TEST(requests_that_succeeded_are_told),
        TEST(between_tokens_it_passes_through_locked_memory),
        TEST(move_whose_result_does_not_open_is_refused),
        TEST(many_move_in_three_requests),
        TEST(what_does_not_open_harms_no_other),
        TEST(many_that_come_out_wrong_are_not_given),
        TEST(many_are_for_one_token_that_takes_them),
        TEST(extractable_kek_is_no_target),
    };
    return cmocka_run_group_tests(tests, group_setup, fixture_group_teardown);
}
