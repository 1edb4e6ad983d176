/* Threads and forks. */
#include <stdarg.h>
#include <setjmp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/err.h>

#include <envelope/status.h>

#include "messages.h"
#include "provider_rig.h"

enum { THREADS = 8, MESSAGES = 300, LENGTH = 100, SEALED = LENGTH + OVERHEAD };

static struct provider_rig *rig;
static _Atomic int failures;

static bool round_trip(unsigned seed)
{
    static const uint8_t names[][32] = {"", "financial", "identity"};
    uint8_t plain[LENGTH], sealed[SEALED], opened[SEALED];
    size_t length;
    message_fill(plain, LENGTH, seed);
    return message_seal(rig->cipher, names[seed % 3], plain, LENGTH, sealed, &length) && length == SEALED &&
           message_open(rig->cipher, NULL, sealed, SEALED, opened, &length) && length == LENGTH &&
           memcmp(opened, plain, LENGTH) == 0;
}

static void *many_round_trips(void *first)
{
    for (unsigned i = 0; i < MESSAGES; i++)
        if (!round_trip(*(unsigned *)first + i))
            atomic_fetch_add(&failures, 1);
    return NULL;
}

static void run_threads(void)
{
    pthread_t threads[THREADS];
    unsigned first[THREADS];
    atomic_store(&failures, 0);
    for (unsigned i = 0; i < THREADS; i++) {
        first[i] = i * MESSAGES;
        assert_int_equal(pthread_create(&threads[i], NULL, many_round_trips, &first[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(atomic_load(&failures), 0);
}

static void threads_with_contexts_of_their_own_do_not_disturb_each_other(void **state)
{
    (void)state;
    run_threads();
}

static void *rotate_some(void *unused)
{
    (void)unused;
    for (int i = 0; i < 5; i++)
        provider_rig_rotate(rig, "identity");
    return NULL;
}

static void messages_go_on_while_a_key_is_rotated(void **state)
{
    (void)state;
    pthread_t rotator;
    assert_int_equal(pthread_create(&rotator, NULL, rotate_some, NULL), 0);
    run_threads();
    assert_int_equal(pthread_join(rotator, NULL), 0);
}

/* The child's work, its exit status that of the work. */
static int in_child(bool (*work)(void *), void *argument)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(30);
        _exit(work(argument) ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static bool child_round_trips(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < 20; i++)
        if (!round_trip(i))
            return false;
    return true;
}

static void a_forked_child_encrypts_and_decrypts(void **state)
{
    (void)state;
    assert_true(round_trip(1));
    for (int i = 0; i < 3; i++)
        assert_int_equal(in_child(child_round_trips, NULL), 0);
    assert_true(round_trip(2));
}

struct shared_message {
    EVP_CIPHER_CTX *ctx;
    int to;
};

static bool child_goes_on(void *argument)
{
    struct shared_message *message = argument;
    uint8_t out[SEALED];
    int written;
    return EVP_CipherUpdate(message->ctx, out, &written, (const uint8_t *)"child", 5) == 0 &&
           ERR_GET_REASON(ERR_peek_last_error()) == ENVELOPE_E_CONTEXT_STATE &&
           EVP_CipherFinal_ex(message->ctx, out, &written) == 0 &&
           EVP_CipherInit_ex2(message->ctx, NULL, NULL, NULL, 1, NULL) == 1 &&
           EVP_CipherUpdate(message->ctx, out, &written, (const uint8_t *)"child", 5) == 1;
}

static void a_message_begun_before_a_fork_goes_on_in_the_parent_only(void **state)
{
    (void)state;
    uint8_t out[SEALED];
    int written;
    struct shared_message message = {EVP_CIPHER_CTX_new(), -1};
    assert_int_equal(EVP_CipherInit_ex2(message.ctx, rig->cipher, NULL, NULL, 1, NULL), 1);
    assert_int_equal(EVP_CipherUpdate(message.ctx, out, &written, (const uint8_t *)"before", 6), 1);
    assert_int_equal(in_child(child_goes_on, &message), 0);
    assert_int_equal(EVP_CipherUpdate(message.ctx, out, &written, (const uint8_t *)"parent", 6), 1);
    assert_int_equal(EVP_CipherFinal_ex(message.ctx, out, &written), 1);
    EVP_CIPHER_CTX_free(message.ctx);
}

static bool child_seals(void *argument)
{
    struct shared_message *message = argument;
    uint8_t sealed[SEALED];
    size_t length;
    uint8_t plain[LENGTH] = {0};
    return message_run_whole(message->ctx, plain, LENGTH, sealed, &length) &&
           write(message->to, sealed, length) == (ssize_t)length;
}

static void an_initialised_context_has_different_nonces_in_parent_and_child(void **state)
{
    (void)state;
    int pipes[2];
    uint8_t plain[LENGTH] = {0}, parent[SEALED], child[SEALED], opened[SEALED];
    uint8_t financial[32] = "financial";
    size_t length;
    assert_int_equal(pipe(pipes), 0);
    struct shared_message message = {EVP_CIPHER_CTX_new(), pipes[1]};
    assert_int_equal(EVP_CipherInit_ex2(message.ctx, rig->cipher, financial, NULL, 1, NULL), 1);
    assert_int_equal(in_child(child_seals, &message), 0);
    assert_int_equal(read(pipes[0], child, SEALED), SEALED);
    assert_true(message_run_whole(message.ctx, plain, LENGTH, parent, &length));
    assert_memory_equal(parent, child, 4);
    assert_memory_not_equal(parent + 4, child + 4, 12);
    assert_true(message_open(rig->cipher, NULL, child, SEALED, opened, &length));
    assert_true(message_open(rig->cipher, NULL, parent, SEALED, opened, &length));
    EVP_CIPHER_CTX_free(message.ctx);
    close(pipes[0]);
    close(pipes[1]);
}

static int setup(void **state)
{
    int result = provider_rig_setup(state);
    rig = *state;
    return result;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_with_contexts_of_their_own_do_not_disturb_each_other),
        cmocka_unit_test(messages_go_on_while_a_key_is_rotated),
        cmocka_unit_test(a_forked_child_encrypts_and_decrypts),
        cmocka_unit_test(a_message_begun_before_a_fork_goes_on_in_the_parent_only),
        cmocka_unit_test(an_initialised_context_has_different_nonces_in_parent_and_child),
    };
    return cmocka_run_group_tests(tests, setup, provider_rig_teardown);
}
