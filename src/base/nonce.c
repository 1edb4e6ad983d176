#include "base/nonce.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <openssl/rand.h>

#include "base/error.h"
#include "base/fork.h"
#include "base/libctx.h"
#include "base/secmem.h"

enum { NONCES_PER_BLOCK = 256, CACHE_LINE = 64 };

/*
 * Lies in memory that the kernel zeroes in a forked child: there `remaining` is
 * 0 even when the child was made behind pthread_atfork's back. The generation
 * says the same by other means.
 */
struct block {
    uint64_t generation;
    uint32_t remaining;
    uint8_t nonces[NONCES_PER_BLOCK][NONCE_SIZE];
};

static _Thread_local struct block *mine;

static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static secslab *blocks;
static pthread_key_t thread_exit;
static bool thread_exit_known;

static void give_back(void *block)
{
    mine = NULL;
    secslab_put(blocks, block);
}

static void prepare(void)
{
    thread_exit_known = pthread_key_create(&thread_exit, give_back) == 0;
    /* Whole cache lines, so that threads do not slow each other. */
    blocks = secslab_new((sizeof(struct block) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
}

static struct block *new_block(void)
{
    pthread_once(&prepared, prepare);
    if (!thread_exit_known || !blocks) {
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for nonces, or the process has no thread-specific keys left");
        return NULL;
    }
    struct block *block = secslab_get(blocks);
    if (!block)
        return NULL;
    if (pthread_setspecific(thread_exit, block) != 0) {
        secslab_put(blocks, block);
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the nonces of a thread");
        return NULL;
    }
    mine = block;
    return block;
}

static envelope_status refill(struct block *block)
{
    OSSL_LIB_CTX *libctx = libctx_private();
    if (!libctx)
        return error_status();
    block->remaining = 0;
    uint64_t generation = fork_generation();
    /* The generators of all threads share a parent and its lock. */
    fork_hold();
    int drawn = RAND_bytes_ex(libctx, block->nonces[0], sizeof block->nonces, 0);
    fork_release();
    if (drawn != 1)
        return error_raise(ENVELOPE_E_CRYPTO, "OpenSSL's random generator gave no bytes for nonces");
    block->generation = generation;
    block->remaining = NONCES_PER_BLOCK;
    return ENVELOPE_OK;
}

envelope_status nonce_next(uint8_t nonce[NONCE_SIZE])
{
    struct block *block = mine;
    if (__builtin_expect(!block, 0)) {
        block = new_block();
        if (!block)
            return error_status();
    }
    if (__builtin_expect(block->remaining == 0 || block->generation != fork_generation(), 0)) {
        envelope_status status = refill(block);
        if (status)
            return status;
    }
    uint8_t *next = block->nonces[--block->remaining];
    memcpy(nonce, next, NONCE_SIZE);
    memset(next, 0, NONCE_SIZE);
    /* The wipe is not dropped: the compiler must assume that next is read here. */
    __asm__ volatile("" : : "r"(next) : "memory");
    return ENVELOPE_OK;
}
