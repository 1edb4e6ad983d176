/*
 * Row H3 of docs/requirements.md: the standard ciphers under a key reference, and with a raw key passing through
 * Envelope, against the same cipher of the default provider with a raw key. As programs use them: a context per
 * message (with a counted IV, and with a random one, as a message needs), a context kept, and one kept whose cipher is
 * named every time.
 *     bench_reference REFERENCE-HEX [rounds [cipher]]      under an openssl.cnf with key-references = all
 * The three ways take turns within every round, in CPU time of this thread, and the median of the rounds' ratios
 * counts: what else the machine does falls on all of them. Prints one line a case, marked where it is under 0.97.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

enum { SIZES = 5, WAYS = 3, ROUNDS_MAX = 2001, MOST = 1 << 20 };
static const int sizes[SIZES] = {16, 256, 4096, 65536, MOST};

enum pattern { PATTERN_NEW, PATTERN_NEW_RANDOM, PATTERN_KEPT, PATTERN_KEPT_CIPHER };
static const char *const pattern_names[] = {"new context", "new, random IV", "kept context", "kept, cipher named"};

enum way { WAY_DEFAULT, WAY_REFERENCE, WAY_RAW };

static unsigned char in[MOST], out[MOST + 64];
static unsigned char keys[WAYS][32];
static unsigned char iv[16] = {7};

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

static void must(int done)
{
    if (done == 1)
        return;
    ERR_print_errors_fp(stderr);
    exit(2);
}

static void message(EVP_CIPHER_CTX *ctx, const EVP_CIPHER *cipher, const unsigned char *key, int aead, int size)
{
    unsigned char tag[16];
    int length, last;
    iv[0]++;
    must(EVP_EncryptInit_ex2(ctx, cipher, key, iv, NULL));
    must(EVP_EncryptUpdate(ctx, out, &length, in, size));
    must(EVP_EncryptFinal_ex(ctx, out + length, &last));
    if (aead)
        must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, sizeof tag, tag));
}

static double run(const EVP_CIPHER *cipher, const unsigned char *key, enum pattern pattern, int size, int count)
{
    int aead = (EVP_CIPHER_get_flags(cipher) & EVP_CIPH_FLAG_AEAD_CIPHER) != 0;
    EVP_CIPHER_CTX *kept = EVP_CIPHER_CTX_new();
    must(EVP_EncryptInit_ex2(kept, cipher, key, iv, NULL));
    double start = now();
    for (int i = 0; i < count; i++) {
        bool fresh = pattern <= PATTERN_NEW_RANDOM;
        EVP_CIPHER_CTX *ctx = fresh ? EVP_CIPHER_CTX_new() : kept;
        if (pattern == PATTERN_NEW_RANDOM)
            must(RAND_bytes(iv, sizeof iv));
        message(ctx, pattern == PATTERN_KEPT ? NULL : cipher, key, aead, size);
        if (fresh)
            EVP_CIPHER_CTX_free(ctx);
    }
    double took = now() - start;
    EVP_CIPHER_CTX_free(kept);
    return took / count;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_size);
    return values[count / 2];
}

static void compare(const char *name, enum pattern pattern, int size, int rounds)
{
    static double base[ROUNDS_MAX], reference[ROUNDS_MAX], raw[ROUNDS_MAX];
    EVP_CIPHER *ciphers[WAYS] = {EVP_CIPHER_fetch(NULL, name, "provider=default"),
                                 EVP_CIPHER_fetch(NULL, name, "provider=envelope"),
                                 EVP_CIPHER_fetch(NULL, name, "provider=envelope")};
    for (int way = 0; way < WAYS; way++)
        must(ciphers[way] != NULL);
    int count = size < 1000 ? 200 : size < 100000 ? 20 : 2;
    for (int round = 0; round < rounds; round++) {
        double took[WAYS];
        /* Not always the same one first. */
        for (int i = 0; i < WAYS; i++) {
            int way = (i + round) % WAYS;
            took[way] = run(ciphers[way], keys[way], pattern, size, count);
        }
        base[round] = took[WAY_DEFAULT];
        reference[round] = took[WAY_DEFAULT] / took[WAY_REFERENCE];
        raw[round] = took[WAY_DEFAULT] / took[WAY_RAW];
    }
    double by_reference = median(reference, rounds), by_raw = median(raw, rounds);
    bool enough = by_reference >= 0.97 && by_raw >= 0.97;
    printf("%-18s %-19s %8d B %10.0f ns   reference %.3f   raw key %.3f%s\n", name, pattern_names[pattern], size,
           median(base, rounds), by_reference, by_raw, enough ? "" : "   under 0.97");
    fflush(stdout);
    for (int way = 0; way < WAYS; way++)
        EVP_CIPHER_free(ciphers[way]);
}

static void take_reference(const char *digits)
{
    long length = 0;
    unsigned char *bytes = OPENSSL_hexstr2buf(digits, &length);
    if (!bytes || length != sizeof keys[0]) {
        fprintf(stderr, "bench_reference: not a key reference: %s\n", digits);
        exit(2);
    }
    memcpy(keys[WAY_REFERENCE], bytes, sizeof keys[0]);
    OPENSSL_free(bytes);
    memset(keys[WAY_DEFAULT], 0x5a, sizeof keys[0]);
    memset(keys[WAY_RAW], 0x5a, sizeof keys[0]);
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: bench_reference REFERENCE-HEX [rounds [cipher]]\n");
        return 2;
    }
    int rounds = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 101;
    const char *only = argc > 3 ? argv[3] : NULL;
    if (rounds < 1 || rounds > ROUNDS_MAX)
        rounds = 101;
    take_reference(argv[1]);
    static const char *const names[] = {"AES-256-GCM", "AES-256-CBC", "AES-256-CTR", "ChaCha20-Poly1305"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (only && strcmp(only, names[i]) != 0)
            continue;
        for (int pattern = PATTERN_NEW; pattern <= PATTERN_KEPT_CIPHER; pattern++)
            for (int size = 0; size < SIZES; size++)
                compare(names[i], (enum pattern)pattern, sizes[size], rounds);
    }
    return 0;
}
