/*
 * What a message costs: ENVELOPE-AES-256-GCM against what programs write today
 * and against bare AES-256-GCM; with one and with many cached DEKs; in threads
 * and in processes. Run by script/bench; prints a table, writes JSON.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <openssl/crypto.h>
#include <openssl/err.h>

#include "bench_rig.h"
#include "ciphers.h"
#include "figures.h"
#include "measure.h"
#include "parallel.h"
#include "peer.h"

static const size_t sizes[] = {16, 64, 128, 256, 1024, 4096, 16384, 65536, 262144, 1048576};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

struct options {
    const char *modules, *json;
    size_t keys;
    struct measure_plan plan;
    bool parallel;
};

static void add_rows(struct figures *figures, const char *group, size_t size, const struct contender *contenders,
                     const struct measurement *result)
{
    for (size_t i = 0; i < result->count; i++)
        figures_time(figures, group, contenders[i].name, size, measure_median(result, i), measure_ratio(result, i, 0));
}

/* ---- encryption and decryption ---- */

static void encryption(struct figures *figures, const struct options *options, EVP_CIPHER *raw, EVP_CIPHER *ours)
{
    struct bench_stream hand, kept, envelope;
    struct peer *peer = peer_new();
    bench_stream_new(&hand, raw, true);
    bench_stream_new(&kept, raw, true);
    bench_stream_new(&envelope, ours, true);
    const struct contender contenders[] = {
        {"by hand", bench_by_hand, &hand},
        {"raw, key kept", bench_raw, &kept},
        {"envelope", bench_envelope, &envelope},
        {"by hand, new context", bench_by_hand_new, &hand},
        {"envelope, new context", bench_envelope_new, &envelope},
        {"libmongocrypt", peer_encrypt, peer},
    };
    size_t all = sizeof contenders / sizeof contenders[0];
    for (size_t i = 0; i < SIZES; i++) {
        struct measurement result;
        measure(&options->plan, contenders, peer && sizes[i] <= PEER_SIZE_MAX ? all : all - 1, sizes[i], &result);
        add_rows(figures, "encrypt", sizes[i], contenders, &result);
        if (sizes[i] >= 64 && sizes[i] <= 256) {
            figures_goal(figures, "H1", "against encryption by hand", sizes[i], measure_ratio(&result, 2, 0), 4);
            if (result.count == all)
                figures_goal(figures, "H1", "against libmongocrypt", sizes[i], measure_ratio(&result, 2, 5), 10);
        }
        if (sizes[i] == 1048576)
            figures_goal(figures, "H2", "encryption against raw AES-256-GCM", sizes[i], measure_ratio(&result, 2, 1),
                         0.98);
    }
    bench_stream_free(&hand);
    bench_stream_free(&kept);
    bench_stream_free(&envelope);
    peer_free(peer);
}

static void decryption(struct figures *figures, const struct options *options, EVP_CIPHER *raw, EVP_CIPHER *ours)
{
    struct bench_stream kept, envelope;
    bench_stream_new(&kept, raw, false);
    bench_stream_new(&envelope, ours, false);
    const struct contender contenders[] = {
        {"raw, key kept", bench_raw_open, &kept},
        {"envelope", bench_envelope_open, &envelope},
    };
    for (size_t i = 0; i < SIZES; i++) {
        struct measurement result;
        bench_stream_ready(&kept, sizes[i]);
        bench_stream_ready(&envelope, sizes[i]);
        measure(&options->plan, contenders, 2, sizes[i], &result);
        add_rows(figures, "decrypt", sizes[i], contenders, &result);
        if (sizes[i] == 1048576)
            figures_goal(figures, "H2", "decryption against raw AES-256-GCM", sizes[i], measure_ratio(&result, 1, 0),
                         0.98);
    }
    bench_stream_free(&kept);
    bench_stream_free(&envelope);
}

/* ---- one DEK, many DEKs ---- */

static void failed(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

/* A message under each of the keys, so that all their DEKs are cached; in an order that no prefetcher foresees. */
static void seal_under_each(struct bench_stream *stream, size_t keys, size_t size)
{
    stream->stride = size + 32;
    stream->message_count = keys;
    stream->messages = malloc(keys * stream->stride);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    if (!stream->messages || !ctx)
        failed("out of memory");
    for (size_t i = 0; i < keys; i++) {
        char name[BENCH_NAME_MAX] = "";
        uint8_t key[32] = {0};
        int written, more;
        bench_key_name(i * 7919 % keys, name);
        memcpy(key, name, sizeof key);
        uint8_t *out = stream->messages + i * stream->stride;
        if (EVP_EncryptInit_ex(ctx, stream->cipher, NULL, key, NULL) != 1 ||
            EVP_EncryptUpdate(ctx, out, &written, stream->in, (int)size) != 1 ||
            EVP_EncryptFinal_ex(ctx, out + written, &more) != 1)
            failed("a DEK could not be cached");
    }
    EVP_CIPHER_CTX_free(ctx);
}

static void many_deks(struct figures *figures, const struct options *options, EVP_CIPHER *one, EVP_CIPHER *many)
{
    enum { SIZE = 64 };
    struct bench_stream encrypt[2], decrypt[2], each;
    bench_stream_new(&each, many, false);
    fprintf(stderr, "caching %zu DEKs ...\n", options->keys);
    seal_under_each(&each, options->keys, SIZE);
    EVP_CIPHER *ciphers[] = {one, many};
    for (int i = 0; i < 2; i++) {
        bench_stream_new(&encrypt[i], ciphers[i], true);
        bench_stream_new(&decrypt[i], ciphers[i], false);
        bench_stream_ready(&decrypt[i], SIZE);
    }
    const struct contender contenders[] = {
        {"encrypt, 1 DEK cached", bench_envelope, &encrypt[0]},
        {"encrypt, many cached", bench_envelope, &encrypt[1]},
        {"decrypt, 1 DEK cached", bench_envelope_open, &decrypt[0]},
        {"decrypt, many cached", bench_envelope_open, &decrypt[1]},
        {"decrypt, each under another of many", bench_envelope_open_each, &each},
        {"encrypt in new context, 1 cached", bench_envelope_new, &encrypt[0]},
        {"encrypt in new context, many cached", bench_envelope_new, &encrypt[1]},
    };
    struct measurement result;
    measure(&options->plan, contenders, sizeof contenders / sizeof contenders[0], SIZE, &result);
    add_rows(figures, "cached DEKs", SIZE, contenders, &result);
    figures_goal(figures, "H4", "encryption, many DEKs against one", SIZE, measure_ratio(&result, 1, 0), 0.9);
    figures_goal(figures, "H4", "decryption, many DEKs against one", SIZE, measure_ratio(&result, 3, 2), 0.9);
    figures_goal(figures, "H4", "new context, many DEKs against one", SIZE, measure_ratio(&result, 6, 5), 0.9);
    bench_stream_free(&each);
    for (int i = 0; i < 2; i++) {
        bench_stream_free(&encrypt[i]);
        bench_stream_free(&decrypt[i]);
    }
}

/* ---- threads, processes ---- */

static void side_by_side(struct figures *figures, const struct options *options, struct parallel *parallel)
{
    static const size_t some[] = {64, 1024, 16384};
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        struct parallel_result result;
        parallel_measure(parallel, options->plan.rounds, options->plan.batch * 10, some[i], &result);
        figures_time(figures, "two at a time", "one thread", some[i], 1e9 / result.one_thread, 1);
        figures_time(figures, "two at a time", "two threads", some[i], 1e9 / result.two_threads,
                     result.two_threads / result.one_thread);
        figures_time(figures, "two at a time", "two processes", some[i], 1e9 / result.two_processes,
                     result.two_processes / result.one_thread);
        figures_goal(figures, "H5", "two threads against two processes", some[i], result.threads_to_processes, 0.95);
        figures_goal(figures, "H5", "the same, by processor time", some[i], result.by_processor_time, 0.95);
    }
}

/* ---- main ---- */

static void usage(void)
{
    fprintf(stderr, "usage: bench_evp --modules DIR [--json FILE] [--keys N] [--rounds N] [--batch MICROSECONDS]\n"
                    "                 [--no-parallel]\n");
    exit(2);
}

static size_t number(const char *text)
{
    char *end;
    unsigned long value = text ? strtoul(text, &end, 10) : 0;
    if (!text || *text == '\0' || *end != '\0' || value == 0 || value > 10000000)
        usage();
    return value;
}

static struct options parse(int argc, char **argv)
{
    struct options options = {.keys = 100000, .plan = {31, 4000}, .parallel = true};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--no-parallel") == 0) {
            options.parallel = false;
            continue;
        }
        if (strcmp(argv[i], "--modules") == 0 && value)
            options.modules = value;
        else if (strcmp(argv[i], "--json") == 0 && value)
            options.json = value;
        else if (strcmp(argv[i], "--keys") == 0)
            options.keys = number(value);
        else if (strcmp(argv[i], "--rounds") == 0)
            options.plan.rounds = number(value);
        else if (strcmp(argv[i], "--batch") == 0)
            options.plan.batch = (int64_t)number(value);
        else
            usage();
        i++;
    }
    if (!options.modules || options.plan.rounds > ROUNDS_MAX)
        usage();
    return options;
}

int main(int argc, char **argv)
{
    struct options options = parse(argc, argv);
    struct bench_rig rig;
    fprintf(stderr, "making a token, and %zu keys ...\n", options.keys);
    if (!bench_rig_make(&rig, options.keys))
        return 1;
    /* The workers are forked before this process loads anything. */
    struct parallel *parallel = options.parallel ? parallel_new(options.modules, rig.few) : NULL;
    EVP_CIPHER *raw = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    EVP_CIPHER *one = bench_cipher(options.modules, rig.few);
    EVP_CIPHER *many = bench_cipher(options.modules, rig.many);
    if (!raw)
        failed("no AES-256-GCM");

    struct figures *figures = figures_new();
    encryption(figures, &options, raw, one);
    decryption(figures, &options, raw, one);
    if (parallel)
        side_by_side(figures, &options, parallel);
    many_deks(figures, &options, one, many);
    parallel_free(parallel);
    figures_print(figures, stdout);
    bool written = !options.json || figures_write_json(figures, options.json, OpenSSL_version(OPENSSL_VERSION));
    if (!written)
        fprintf(stderr, "bench: %s cannot be written\n", options.json);
    figures_free(figures);
    EVP_CIPHER_free(raw);
    EVP_CIPHER_free(one);
    EVP_CIPHER_free(many);
    bench_rig_remove(&rig);
    return written ? 0 : 1;
}
