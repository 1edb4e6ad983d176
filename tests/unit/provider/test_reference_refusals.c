/* What a reference is refused for, what is counted, and what happens to raw keys. */
#include <stdarg.h>
#include <setjmp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "base/error.h"
#include "keyring/keyring.h"
#include "messages.h"
#include "provider.h"
#include "reference_rig.h"

enum { LENGTH = 64 };

static struct {
    OSSL_LIB_CTX *context;
    uint8_t reference[REFERENCE_BYTES];
    uint32_t dek_id;
    uint8_t in[LENGTH], iv[16];
} the;

/* The rig's configuration, with a short refresh, so that a change by another process is seen at once. */
static void quicken(struct provider_rig *rig)
{
    char text[2048];
    rig_text(rig->config, sizeof rig->config, "%s/quick.cnf", rig->token.directory);
    rig_text(text, sizeof text, "[envelope]\nstore = %s\nkek = %s\nrefresh = 5ms\n[hsm]\nmodule = %s\npin-file = %s\n",
             rig->store, rig->token.kek, rig->token.module, rig->token.pin_file);
    FILE *file = fopen(rig->config, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int setup(void **state)
{
    if (provider_rig_setup(state))
        return -1;
    struct provider_rig *rig = *state;
    quicken(rig);
    the.context = reference_rig_context(rig, NULL, NULL);
    the.dek_id = reference_rig_make(rig, "financial", 0, the.reference);
    return RAND_bytes(the.in, sizeof the.in) == 1 && RAND_bytes(the.iv, sizeof the.iv) == 1 ? 0 : -1;
}

static int teardown(void **state)
{
    OSSL_LIB_CTX_free(the.context);
    return provider_rig_teardown(state);
}

static keyring *open_ring(const struct provider_rig *rig)
{
    struct settings settings;
    keyring *ring;
    assert_int_equal(settings_load(rig->config, &settings), ENVELOPE_OK);
    assert_int_equal(keyring_new(&settings, &ring), ENVELOPE_OK);
    return ring;
}

/* Longer than refresh and a few ticks of the coarse clock. */
static void wait_for_refresh(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL);
}

static EVP_CIPHER *fetch_from(OSSL_LIB_CTX *context, const char *name)
{
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(context, name, "provider=envelope");
    assert_non_null(cipher);
    return cipher;
}

static bool accepts_in(OSSL_LIB_CTX *context, const char *name, const uint8_t *key)
{
    EVP_CIPHER *cipher = fetch_from(context, name);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    struct reference_message message;
    bool accepted = reference_rig_seal(ctx, cipher, key, the.iv, the.in, LENGTH, &message);
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
    return accepted;
}

static void refuses(OSSL_LIB_CTX *context, const char *name, const uint8_t *key, int reason, const char *words)
{
    ERR_clear_error();
    assert_false(accepts_in(context, name, key));
    expect_reason_text(reason, words);
}

static void accepts(OSSL_LIB_CTX *context, const char *name, const uint8_t *key)
{
    if (accepts_in(context, name, key))
        return;
    ERR_print_errors_fp(stderr);
    fail_msg("%s refuses a key", name);
}

static void a_damaged_reference_is_never_a_key(void **state)
{
    (void)state;
    /* One bit anywhere but in the six letters; without those, it is a key like any other. */
    for (int bit = 6 * 8; bit < REFERENCE_BYTES * 8; bit += 7) {
        uint8_t damaged[REFERENCE_BYTES];
        memcpy(damaged, the.reference, sizeof damaged);
        damaged[bit / 8] ^= (uint8_t)(1 << bit % 8);
        refuses(the.context, "AES-256-CBC", damaged, ENVELOPE_E_REFERENCE, "damaged");
        refuses(the.context, "AES-256-GCM", damaged, ENVELOPE_E_REFERENCE, "damaged");
    }
}

static void a_reference_of_another_store_or_to_nothing_is_refused(void **state)
{
    uint8_t own[8], other[8] = {1, 2, 3}, bytes[REFERENCE_BYTES];
    provider_rig_store_id(*state, own);
    reference_rig_build(1, 0, the.dek_id, other, bytes);
    refuses(the.context, "AES-256-CBC", bytes, ENVELOPE_E_REFERENCE, "0102030000000000");
    reference_rig_build(1, 0, 4000000000, own, bytes);
    refuses(the.context, "AES-256-CBC", bytes, ENVELOPE_E_VERSION_UNKNOWN, "4000000000");
    reference_rig_build(1, 0, 0, own, bytes);
    refuses(the.context, "AES-256-CBC", bytes, ENVELOPE_E_REFERENCE, "DEK id 0");
    reference_rig_build(1, 0x80, the.dek_id, own, bytes);
    refuses(the.context, "AES-256-CBC", bytes, ENVELOPE_E_REFERENCE, "flags");
    reference_rig_build(2, 0, the.dek_id, own, bytes);
    refuses(the.context, "AES-256-CBC", bytes, ENVELOPE_E_REFERENCE, "later version");
}

/* Pasted as it was printed, and cut to the length of a key by the program. */
static void the_printed_form_of_a_reference_is_never_a_key(void **state)
{
    (void)state;
    char hex[2 * REFERENCE_BYTES + 1], sql[2 * REFERENCE_BYTES + 3], laravel[64];
    unsigned char base64[64];
    text_hex(the.reference, REFERENCE_BYTES, hex);
    EVP_EncodeBlock(base64, the.reference, REFERENCE_BYTES);
    rig_text(sql, sizeof sql, "\\x%s", hex);
    rig_text(laravel, sizeof laravel, "base64:%s", (char *)base64);
    static const char *const names[] = {"AES-256-CBC", "AES-128-CBC", "AES-256-XTS"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        refuses(the.context, names[i], (const uint8_t *)hex, ENVELOPE_E_REFERENCE, "hexadecimal text");
        for (char *c = hex; *c; c++)
            *c = *c >= 'a' ? (char)(*c - 'a' + 'A') : *c;
        refuses(the.context, names[i], (const uint8_t *)hex, ENVELOPE_E_REFERENCE, "hexadecimal text");
        refuses(the.context, names[i], (const uint8_t *)sql, ENVELOPE_E_REFERENCE, "hexadecimal text");
        refuses(the.context, names[i], base64, ENVELOPE_E_REFERENCE, "base64 text");
        refuses(the.context, names[i], (const uint8_t *)laravel, ENVELOPE_E_REFERENCE, "base64 text");
    }
}

static void a_key_that_only_begins_like_one_is_a_key(void **state)
{
    (void)state;
    static const char *const keys[] = {"ENVREx 345678901234567890123456",  "454e5652454x78901234567890123456",
                                       "RU5WUkVx 0123456789012345678901",  "Every key may begin with an E...",
                                       "base64:QUFBQUFBQUFBQUFBQUFBQUFBQ", "\\x41414141414141414141414141414"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        uint8_t key[32] = {0};
        memcpy(key, keys[i], strlen(keys[i]) < 32 ? strlen(keys[i]) : 32);
        accepts(the.context, "AES-256-CBC", key);
    }
}

static void a_cipher_that_is_not_listed_refuses_references_and_takes_keys(void **state)
{
    const struct provider_rig *rig = *state;
    OSSL_LIB_CTX *context = reference_rig_context(rig, "aes-256-gcm, id-aes256-CCM AES256", NULL);
    accepts(context, "AES-256-GCM", the.reference);
    accepts(context, "AES-256-CCM", the.reference);
    accepts(context, "AES-256-CBC", the.reference);
    refuses(context, "AES-256-CTR", the.reference, ENVELOPE_E_REFERENCE, "key-references");
    refuses(context, "ChaCha20-Poly1305", the.reference, ENVELOPE_E_REFERENCE, "key-references");
    accepts(context, "AES-256-CTR", the.in);
    OSSL_LIB_CTX_free(context);
}

/* Whatever is wrong: references are recognised and refused with the reason, and keys go on working. */
static void a_wrong_configuration_refuses_references_only(void **state)
{
    const struct provider_rig *rig = *state;
    static const struct {
        const char *list, *more, *words;
    } wrong[] = {
        {"AES-256-GCM, AES-256-GMC", "", "there is no cipher \"AES-256-GMC\""},
        {"AES-128-GCM", "", "does not take one key of 256 bits"},
        {"AES-256-XTS", "", "does not take one key of 256 bits"},
        {",", "", "key-references is empty"},
        {"all", "raw-keys = forbid\n", "none of allow, warn, deny"},
        {"all", "raw-keys = deny:\n", "none of allow, warn, deny"},
        {"all", "raw-keys = deny:AES-256-XYZ\n", "there is no cipher \"AES-256-XYZ\""},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        OSSL_LIB_CTX *context = reference_rig_context(rig, wrong[i].list, wrong[i].more);
        refuses(context, "AES-256-GCM", the.reference, ENVELOPE_E_CONFIG, wrong[i].words);
        refuses(context, "AES-256-OFB", the.reference, ENVELOPE_E_CONFIG, wrong[i].words);
        accepts(context, "AES-256-GCM", the.in);
        OSSL_LIB_CTX_free(context);
    }
}

static void without_its_configuration_file_a_reference_is_refused(void **state)
{
    const struct provider_rig *rig = *state;
    OSSL_LIB_CTX *context = provider_rig_context(rig, "config = /nonexistent/envelope.cnf\nkey-references = all\n");
    refuses(context, "AES-256-CBC", the.reference, ENVELOPE_E_CONFIG, "/nonexistent/envelope.cnf");
    refuses(context, "AES-128-CBC", the.reference, ENVELOPE_E_CONFIG, "/nonexistent/envelope.cnf");
    accepts(context, "AES-256-CBC", the.in);
    OSSL_LIB_CTX_free(context);
}

static void a_suspended_key_stops_contexts_that_have_it(void **state)
{
    const struct provider_rig *rig = *state;
    keyring *ring = open_ring(rig);
    EVP_CIPHER *cipher = fetch_from(the.context, "AES-256-CTR");
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex2(ctx, cipher, the.reference, the.iv, NULL), 1);
    assert_int_equal(keyring_suspend(ring, "financial", 0, "test"), ENVELOPE_OK);
    wait_for_refresh();
    assert_int_equal(EVP_EncryptInit_ex2(ctx, NULL, NULL, the.iv, NULL), 0);
    expect_reason_text(ENVELOPE_E_KEY_STATE, "suspended");
    assert_int_equal(EVP_DecryptInit_ex2(ctx, NULL, NULL, the.iv, NULL), 0);
    ERR_clear_error();
    refuses(the.context, "AES-256-GCM", the.reference, ENVELOPE_E_KEY_STATE, "suspended");
    assert_int_equal(keyring_resume(ring, "financial", 0, "test"), ENVELOPE_OK);
    wait_for_refresh();
    assert_int_equal(EVP_EncryptInit_ex2(ctx, NULL, NULL, the.iv, NULL), 1);
    accepts(the.context, "AES-256-GCM", the.reference);
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
    keyring_free(ring);
}

static void an_older_version_goes_on_under_its_reference(void **state)
{
    const struct provider_rig *rig = *state;
    uint8_t old[REFERENCE_BYTES], newer[REFERENCE_BYTES];
    uint32_t old_id = reference_rig_make(rig, "identity", 0, old);
    provider_rig_rotate(rig, "identity");
    wait_for_refresh();
    assert_int_not_equal(reference_rig_make(rig, "identity", 0, newer), old_id);
    accepts(the.context, "AES-256-CBC", old);
    accepts(the.context, "AES-256-CBC", newer);
}

/* ---- counting ---- */

static void make_limited(const struct provider_rig *rig, const char *name, uint64_t messages,
                         uint8_t reference[REFERENCE_BYTES])
{
    keyring *ring = open_ring(rig);
    struct keyring_key_options options = {.message_limit = messages};
    assert_int_equal(keyring_create(ring, name, &options), ENVELOPE_OK);
    keyring_free(ring);
    reference_rig_make(rig, name, 0, reference);
}

enum shape { SHAPE_NEW, SHAPE_KEPT, SHAPE_IV_ONLY, SHAPE_KEY_THEN_IV };

static bool one_message(EVP_CIPHER_CTX **ctx, const EVP_CIPHER *cipher, const uint8_t *key, enum shape shape,
                        int number)
{
    bool first = number == 0;
    if (shape == SHAPE_NEW && !first) {
        EVP_CIPHER_CTX_free(*ctx);
        *ctx = EVP_CIPHER_CTX_new();
    }
    the.iv[0]++;
    uint8_t out[LENGTH + 32];
    int length;
    if (shape == SHAPE_KEY_THEN_IV)
        return EVP_EncryptInit_ex2(*ctx, cipher, NULL, NULL, NULL) == 1 &&
               EVP_EncryptInit_ex2(*ctx, NULL, key, NULL, NULL) == 1 &&
               EVP_EncryptInit_ex2(*ctx, NULL, NULL, the.iv, NULL) == 1 &&
               EVP_EncryptUpdate(*ctx, out, &length, the.in, LENGTH) == 1;
    bool fresh = first || shape == SHAPE_NEW;
    return EVP_EncryptInit_ex2(*ctx, fresh ? cipher : NULL, fresh || shape == SHAPE_KEPT ? key : NULL, the.iv, NULL) ==
               1 &&
           EVP_EncryptUpdate(*ctx, out, &length, the.in, LENGTH) == 1;
}

static void every_message_is_counted_however_it_begins(void **state)
{
    static const char *const ciphers[] = {"AES-256-GCM", "AES-256-CBC", "ChaCha20-Poly1305"};
    enum { LIMIT = 40 };
    for (int shape = SHAPE_NEW; shape <= SHAPE_KEY_THEN_IV; shape++)
        for (size_t c = 0; c < sizeof ciphers / sizeof ciphers[0]; c++) {
            char name[64];
            uint8_t reference[REFERENCE_BYTES];
            rig_text(name, sizeof name, "limited-%d-%zu", shape, c);
            make_limited(*state, name, LIMIT, reference);
            EVP_CIPHER *cipher = fetch_from(the.context, ciphers[c]);
            EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
            int done = 0;
            while (done <= LIMIT && one_message(&ctx, cipher, reference, (enum shape)shape, done))
                done++;
            if (done != LIMIT)
                fail_msg("%s, shape %d: %d messages of %d", ciphers[c], shape, done, LIMIT);
            expect_reason_text(ENVELOPE_E_MESSAGE_LIMIT, "reference to the new version");
            /* Reading is not counted. */
            EVP_CIPHER_CTX_free(ctx);
            ctx = EVP_CIPHER_CTX_new();
            assert_int_equal(EVP_DecryptInit_ex2(ctx, cipher, reference, the.iv, NULL), 1);
            EVP_CIPHER_CTX_free(ctx);
            EVP_CIPHER_free(cipher);
        }
}

static void a_cipher_may_not_count_up_its_own_ivs(void **state)
{
    (void)state;
    static const char *const names[] = {"AES-256-GCM", "ChaCha20-Poly1305"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        EVP_CIPHER *cipher = fetch_from(the.context, names[i]);
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        uint8_t fixed[12] = {1};
        int size = i == 0 ? 4 : 12;
        assert_int_equal(EVP_EncryptInit_ex2(ctx, cipher, the.reference, NULL, NULL), 1);
        ERR_clear_error();
        assert_int_not_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IV_FIXED, size, fixed), 1);
        expect_reason_text(ENVELOPE_E_REFERENCE, "could not be counted");
        /* With a raw key, TLS does. */
        assert_int_equal(EVP_EncryptInit_ex2(ctx, NULL, the.in, NULL, NULL), 1);
        assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IV_FIXED, size, fixed), 1);
        EVP_CIPHER_CTX_free(ctx);
        EVP_CIPHER_free(cipher);
    }
}

/* ---- raw keys ---- */

static uint64_t raw_keys(OSSL_LIB_CTX *context)
{
    OSSL_PROVIDER *provider = OSSL_PROVIDER_load(context, "envelope");
    uint64_t count = 0;
    OSSL_PARAM asked[] = {OSSL_PARAM_uint64(PROVIDER_PARAM_RAW_KEYS, &count), OSSL_PARAM_END};
    assert_int_equal(OSSL_PROVIDER_get_params(provider, asked), 1);
    assert_int_equal(OSSL_PROVIDER_unload(provider), 1);
    return count;
}

static void raw_keys_are_denied_where_it_says_so(void **state)
{
    OSSL_LIB_CTX *context = reference_rig_context(*state, NULL, "raw-keys = deny:AES-256-CBC, warn:AES-256-CTR\n");
    refuses(context, "AES-256-CBC", the.in, ENVELOPE_E_NOT_A_KEY, "raw-keys");
    accepts(context, "AES-256-CBC", the.reference);
    accepts(context, "AES-256-GCM", the.in);
    assert_int_equal(raw_keys(context), 1);
    accepts(context, "AES-256-CTR", the.in);
    assert_int_equal(raw_keys(context), 2);
    OSSL_LIB_CTX_free(context);
}

/* TLS, tickets, encrypted private keys and the random generator use raw keys of their own. */
static void denying_in_general_spares_what_openssl_uses_itself(void **state)
{
    OSSL_LIB_CTX *context = reference_rig_context(*state, NULL, "raw-keys = deny, deny:AES-256-CCM\n");
    static const char *const spared[] = {"AES-256-GCM", "AES-256-CBC", "AES-256-CTR", "AES-256-ECB",
                                         "ChaCha20-Poly1305"};
    for (size_t i = 0; i < sizeof spared / sizeof spared[0]; i++)
        accepts(context, spared[i], the.in);
    refuses(context, "AES-256-OFB", the.in, ENVELOPE_E_NOT_A_KEY, "raw-keys");
    refuses(context, "AES-256-CCM", the.in, ENVELOPE_E_NOT_A_KEY, "raw-keys");
    /* AES-128 takes no reference: there is nothing to use instead. */
    accepts(context, "AES-128-OFB", the.in);
    OSSL_LIB_CTX_free(context);
}

/* ---- processes, threads, configurations ---- */

static void a_child_goes_on_with_contexts_and_references(void **state)
{
    (void)state;
    accepts(the.context, "AES-256-CBC", the.reference);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(accepts_in(the.context, "AES-256-CBC", the.reference) &&
                      accepts_in(the.context, "AES-256-GCM", the.reference)
                  ? 0
                  : 1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void *many_contexts(void *argument)
{
    bool *good = argument;
    enum { CONTEXTS = 600, TURNS = 4 };
    static const char *const names[] = {"AES-256-CBC", "AES-256-GCM", "AES-256-CTR"};
    EVP_CIPHER_CTX *kept[CONTEXTS];
    *good = true;
    for (int turn = 0; turn < TURNS; turn++) {
        EVP_CIPHER *cipher = fetch_from(the.context, names[turn % 3]);
        for (int i = 0; i < CONTEXTS; i++) {
            struct reference_message message;
            kept[i] = EVP_CIPHER_CTX_new();
            const uint8_t *key = i % 3 == 2 ? the.in : the.reference;
            if (!reference_rig_seal(kept[i], cipher, key, the.iv, the.in, LENGTH, &message))
                *good = false;
        }
        for (int i = 0; i < CONTEXTS; i++)
            EVP_CIPHER_CTX_free(kept[i]);
        EVP_CIPHER_free(cipher);
    }
    return NULL;
}

static void many_threads_with_many_contexts_do_not_meet(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    bool good[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, many_contexts, &good[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(good[i]);
    }
}

static void equal_configurations_share_and_too_many_different_ones_refuse(void **state)
{
    const struct provider_rig *rig = *state;
    static const char *const lists[] = {"all", "all", "all", "all", "all", "AES-256-GCM", "AES-256-CBC", "AES-256-CTR"};
    enum { MOST = sizeof lists / sizeof lists[0] };
    OSSL_LIB_CTX *contexts[MOST];
    for (int i = 0; i < MOST; i++)
        contexts[i] = reference_rig_context(rig, lists[i], NULL);
    for (int i = 0; i < 5; i++)
        accepts(contexts[i], "AES-256-CBC", the.reference);
    refuses(contexts[MOST - 1], "AES-256-CTR", the.reference, ENVELOPE_E_CONFIG, "different configurations");
    accepts(contexts[MOST - 1], "AES-256-CTR", the.in);
    for (int i = 0; i < MOST; i++)
        OSSL_LIB_CTX_free(contexts[i]);
    OSSL_LIB_CTX *again = reference_rig_context(rig, "AES-256-CTR", NULL);
    accepts(again, "AES-256-CTR", the.reference);
    OSSL_LIB_CTX_free(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_reference_is_never_a_key),
        cmocka_unit_test(a_reference_of_another_store_or_to_nothing_is_refused),
        cmocka_unit_test(the_printed_form_of_a_reference_is_never_a_key),
        cmocka_unit_test(a_key_that_only_begins_like_one_is_a_key),
        cmocka_unit_test(a_cipher_that_is_not_listed_refuses_references_and_takes_keys),
        cmocka_unit_test(a_wrong_configuration_refuses_references_only),
        cmocka_unit_test(without_its_configuration_file_a_reference_is_refused),
        cmocka_unit_test(a_suspended_key_stops_contexts_that_have_it),
        cmocka_unit_test(an_older_version_goes_on_under_its_reference),
        cmocka_unit_test(every_message_is_counted_however_it_begins),
        cmocka_unit_test(a_cipher_may_not_count_up_its_own_ivs),
        cmocka_unit_test(raw_keys_are_denied_where_it_says_so),
        cmocka_unit_test(denying_in_general_spares_what_openssl_uses_itself),
        cmocka_unit_test(a_child_goes_on_with_contexts_and_references),
        cmocka_unit_test(many_threads_with_many_contexts_do_not_meet),
        cmocka_unit_test(equal_configurations_share_and_too_many_different_ones_refuse),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
