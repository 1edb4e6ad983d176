/*
 * What the place of the KEK costs. Messages under a cached DEK, which must not know where it is (row H9); the first use
 * of a DEK and a rotation, which have to ask there. Run by tests/bench/backends.sh, which makes the places:
 *     bench_backends --modules DIR [options] NAME=DIR…
 * DIR has two set-ups with a key "default": warm.cnf for the messages, cold.cnf for what asks. The first place is what
 * the others are compared with; the second may be another of its kind, to show how far equals differ on this machine.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <openssl/crypto.h>
#include <openssl/err.h>

#include "base/error.h"
#include "bench_rig.h"
#include "ciphers.h"
#include "figures.h"
#include "keyring/keyring.h"
#include "measure.h"

enum { PLACES_MAX = 4, COLD_MAX = 1000, TEXT_MAX = 96 };
static const size_t sizes[] = {64, 1024, 16384};
enum { SIZES = sizeof sizes / sizeof sizes[0], COLD_SIZE = 64 };
static const double least = 0.97;

struct place {
    const char *name;
    char warm[BENCH_PATH_MAX], cold[BENCH_PATH_MAX];
    int64_t ttl; /* microseconds, of warm.cnf */
    struct bench_stream stream;
    uint64_t messages;
    long before, during; /* calls to the service; -1: nobody counts them */
    char goal[TEXT_MAX], fresh_goal[TEXT_MAX];
};

struct options {
    const char *modules, *json, *calls;
    size_t cold;
    struct measure_plan plan;
    struct place places[PLACES_MAX];
    size_t count;
};

static void failed(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static double wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* How often the place's service has been asked, since it was started: what --calls prints. */
static long calls(const struct options *options, const struct place *place)
{
    char command[2 * BENCH_PATH_MAX], line[TEXT_MAX] = "", *end = line;
    if (!options->calls)
        return -1;
    snprintf(command, sizeof command, "'%s' %s", options->calls, place->name);
    FILE *answer = popen(command, "r");
    if (!answer)
        failed("the calls cannot be counted");
    bool answered = fgets(line, sizeof line, answer) != NULL;
    if (pclose(answer) != 0)
        failed("the calls cannot be counted");
    long count = answered ? strtol(line, &end, 10) : -1;
    return end == line ? -1 : count;
}

/* ---- messages under a cached DEK ---- */

static void measure_ways(struct figures *figures, struct options *options, size_t size, bool fresh)
{
    struct contender contenders[PLACES_MAX];
    struct measurement result;
    const char *group = fresh ? "KEK elsewhere, new context" : "KEK elsewhere, context kept";
    for (size_t i = 0; i < options->count; i++) {
        struct place *place = &options->places[i];
        contenders[i] = (struct contender){place->name, fresh ? bench_envelope_new : bench_envelope, &place->stream};
    }
    measure(&options->plan, contenders, options->count, size, &result);
    for (size_t i = 0; i < options->count; i++) {
        struct place *place = &options->places[i];
        double ratio = measure_ratio(&result, i, 0);
        figures_time(figures, group, place->name, size, measure_median(&result, i), ratio);
        if (i > 0)
            figures_goal(figures, "H9", fresh ? place->fresh_goal : place->goal, size, ratio, least);
        place->messages += result.messages[i];
    }
}

static void warm(struct figures *figures, struct options *options)
{
    for (size_t i = 0; i < options->count; i++) {
        struct place *place = &options->places[i];
        EVP_CIPHER *cipher = bench_cipher(options->modules, place->warm);
        bench_stream_new(&place->stream, cipher, true);
        EVP_CIPHER_free(cipher); /* the stream's context holds it */
        /* Connects, finds the KEK, unwraps. */
        bench_envelope(&place->stream, COLD_SIZE, 1);
        place->before = calls(options, place);
    }
    double begin = wall_ns();
    for (int fresh = 0; fresh < 2; fresh++)
        for (size_t i = 0; i < SIZES; i++)
            measure_ways(figures, options, sizes[i], fresh);
    double took = (wall_ns() - begin) / 1000;
    for (size_t i = 0; i < options->count; i++) {
        struct place *place = &options->places[i];
        long after = calls(options, place);
        place->during = after - place->before;
        if (place->before >= 0 && after >= 0)
            figures_calls(figures, "H9", place->name, place->messages, place->before, place->during,
                          (long)(took / (double)place->ttl) + 1);
        bench_stream_free(&place->stream);
    }
}

/* ---- what asks: in a child, which has a keyring of its own, and in this process through the provider ---- */

typedef double samples[COLD_MAX];

static void open_keyrings(const struct options *options, keyring *rings[PLACES_MAX])
{
    for (size_t i = 0; i < options->count; i++) {
        struct settings settings;
        if (settings_load(options->places[i].cold, &settings) != ENVELOPE_OK ||
            keyring_new(&settings, &rings[i]) != ENVELOPE_OK)
            failed(error_text());
    }
}

/* Keys that no process has used yet; and as many rotations, which are timed. */
static void make_and_rotate(const struct options *options, samples *took)
{
    keyring *rings[PLACES_MAX];
    char name[BENCH_NAME_MAX];
    open_keyrings(options, rings);
    for (size_t round = 0; round < options->cold; round++)
        for (size_t turn = 0; turn < options->count; turn++) {
            size_t i = (turn + round) % options->count;
            if (keyring_create(rings[i], bench_key_name(round, name), NULL) != ENVELOPE_OK)
                failed(error_text());
            double begin = wall_ns();
            if (keyring_rotate(rings[i], "default", "benchmark", NULL, NULL) != ENVELOPE_OK)
                failed(error_text());
            took[i][round] = wall_ns() - begin;
        }
}

static bool pass(int from, int to, void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t moved =
            to < 0 ? read(from, (char *)bytes + done, length - done) : write(to, (char *)bytes + done, length - done);
        if (moved <= 0)
            return false;
        done += (size_t)moved;
    }
    return true;
}

/* Before this process has loaded anything. */
static void rotations(const struct options *options, samples *took)
{
    int pipes[2], status;
    size_t length = options->count * sizeof *took;
    pid_t child = pipe(pipes) == 0 ? fork() : -1;
    if (child < 0)
        failed("no child process");
    if (child == 0) {
        make_and_rotate(options, took);
        _exit(pass(-1, pipes[1], took, length) ? 0 : 1);
    }
    close(pipes[1]);
    bool got = pass(pipes[0], -1, took, length);
    close(pipes[0]);
    if (waitpid(child, &status, 0) != child || status != 0 || !got)
        failed("keys could not be made and rotated");
}

static double first_message(EVP_CIPHER *cipher, const char *name)
{
    uint8_t key[32] = {0}, in[COLD_SIZE] = {0}, out[COLD_SIZE + 32];
    int written, more;
    memcpy(key, name, strlen(name));
    double begin = wall_ns();
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    if (!ctx || EVP_EncryptInit_ex(ctx, cipher, NULL, key, NULL) != 1 ||
        EVP_EncryptUpdate(ctx, out, &written, in, COLD_SIZE) != 1 ||
        EVP_EncryptFinal_ex(ctx, out + written, &more) != 1)
        failed("a first message failed");
    EVP_CIPHER_CTX_free(ctx);
    return wall_ns() - begin;
}

static void first_uses(struct figures *figures, const struct options *options, samples *took)
{
    EVP_CIPHER *ciphers[PLACES_MAX];
    double connecting[PLACES_MAX];
    char name[BENCH_NAME_MAX];
    for (size_t i = 0; i < options->count; i++) {
        ciphers[i] = bench_cipher(options->modules, options->places[i].cold);
        connecting[i] = first_message(ciphers[i], "");
    }
    for (size_t round = 0; round < options->cold; round++)
        for (size_t turn = 0; turn < options->count; turn++) {
            size_t i = (turn + round) % options->count;
            took[i][round] = first_message(ciphers[i], bench_key_name(round, name));
        }
    for (size_t i = 0; i < options->count; i++) {
        figures_time(figures, "first message of a place", options->places[i].name, COLD_SIZE, connecting[i],
                     connecting[0] / connecting[i]);
        EVP_CIPHER_free(ciphers[i]);
    }
}

static void add_medians(struct figures *figures, const struct options *options, const char *group, size_t size,
                        samples *took)
{
    double first = 0;
    for (size_t i = 0; i < options->count; i++) {
        double middle = median(took[i], options->cold);
        if (i == 0)
            first = middle;
        figures_time(figures, group, options->places[i].name, size, middle, first / middle);
    }
}

/* ---- main ---- */

static void usage(void)
{
    fprintf(stderr, "usage: bench_backends --modules DIR [--json FILE] [--rounds N] [--batch MICROSECONDS] [--cold N]\n"
                    "                      [--calls PROGRAM] NAME=DIR...\n");
    exit(2);
}

static size_t number(const char *text, size_t most)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text == '\0' || *end != '\0' || value == 0 || value > most)
        usage();
    return value;
}

static void add_place(struct options *options, char *text)
{
    char *directory = strchr(text, '=');
    if (!directory || options->count == PLACES_MAX)
        usage();
    *directory++ = '\0';
    struct place *place = &options->places[options->count++];
    place->name = text;
    snprintf(place->warm, sizeof place->warm, "%s/warm.cnf", directory);
    snprintf(place->cold, sizeof place->cold, "%s/cold.cnf", directory);
    snprintf(place->goal, sizeof place->goal, "%s against %s", text, options->places[0].name);
    snprintf(place->fresh_goal, sizeof place->fresh_goal, "%s against %s, new context", text, options->places[0].name);
    struct settings settings;
    if (settings_load(place->warm, &settings) != ENVELOPE_OK)
        failed(error_text());
    place->ttl = settings.ttl;
    settings_clear(&settings);
}

static void parse(int argc, char **argv, struct options *options)
{
    *options = (struct options){.cold = 50, .plan = {101, 4000}};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (argv[i][0] != '-') {
            add_place(options, argv[i]);
            continue;
        }
        if (!value)
            usage();
        if (strcmp(argv[i], "--modules") == 0)
            options->modules = value;
        else if (strcmp(argv[i], "--json") == 0)
            options->json = value;
        else if (strcmp(argv[i], "--calls") == 0)
            options->calls = value;
        else if (strcmp(argv[i], "--rounds") == 0)
            options->plan.rounds = number(value, ROUNDS_MAX);
        else if (strcmp(argv[i], "--batch") == 0)
            options->plan.batch = (int64_t)number(value, 10000000);
        else if (strcmp(argv[i], "--cold") == 0)
            options->cold = number(value, COLD_MAX);
        else
            usage();
        i++;
    }
    if (!options->modules || options->count == 0)
        usage();
}

int main(int argc, char **argv)
{
    static struct options options;
    static samples rotating[PLACES_MAX], using[PLACES_MAX];
    parse(argc, argv, &options);
    rotations(&options, rotating);
    struct figures *figures = figures_new();
    warm(figures, &options);
    first_uses(figures, &options, using);
    add_medians(figures, &options, "first use of another DEK", COLD_SIZE, using);
    add_medians(figures, &options, "rotation", 0, rotating);
    figures_print(figures, stdout);
    bool written = !options.json || figures_write_json(figures, options.json, OpenSSL_version(OPENSSL_VERSION));
    if (!written)
        fprintf(stderr, "bench: %s cannot be written\n", options.json);
    figures_free(figures);
    return written ? 0 : 1;
}
