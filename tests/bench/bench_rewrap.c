/*
 * Moving data keys to another KEK (row H6): all of a store whose keys have one version each, and all of one key that
 * has as many, against a bare loop of C_Decrypt and C_Encrypt over the same blobs with the same KEKs in the same token.
 *     bench_rewrap [--keys N] [--rounds N] [--json FILE]
 * What Envelope makes is unwrapped again before the old blob is given up; a bare loop that does that too is the other
 * thing it is compared with, and shows what of the difference is that proof. Every round moves all keys to the other
 * KEK, and so the next one back. Each contender has a process of its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <openssl/crypto.h>

#include "bare_token.h"
#include "base/error.h"
#include "bench_rig.h"
#include "figures.h"
#include "keyring/keyring.h"
#include "measure.h"

enum { ROUNDS = 99, BARE = 0, PROVED = 1, ALL = 2, ONE = 3, CONTENDERS = 4 };
static const char *const names[CONTENDERS] = {"C_Decrypt, C_Encrypt", "the same and C_Decrypt", "rewrap --all",
                                              "rewrap of one key"};
static const double least = 0.9;

struct options {
    size_t keys, rounds;
    const char *json;
};

struct race {
    struct bench_rig rig;
    char second[SOFTHSM_RIG_PATH_MAX];
    size_t keys;
};

static void failed(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

static keyring *open_ring(const char *config)
{
    struct settings settings;
    keyring *ring = NULL;
    if (settings_load(config, &settings) != ENVELOPE_OK || keyring_new(&settings, &ring) != ENVELOPE_OK)
        failed(error_text());
    return ring;
}

/* ---- the contenders ---- */

/* Nanoseconds for all DEKs. Of the processor's time nobody else on the machine takes any. */
struct took {
    double wall, processor;
};
typedef void work(const struct race *race, const char *from, const char *to, struct took *took);

static double nanoseconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void start(struct took *took)
{
    *took = (struct took){nanoseconds(CLOCK_MONOTONIC), nanoseconds(CLOCK_PROCESS_CPUTIME_ID)};
}

static void stop(struct took *took)
{
    took->wall = nanoseconds(CLOCK_MONOTONIC) - took->wall;
    took->processor = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - took->processor;
}

static void move_bare(const struct race *race, const char *from, const char *to, bool proved, struct took *took)
{
    struct bare_token token = {.rig = &race->rig.token, .config = race->rig.many, .proved = proved};
    bare_token_open(&token, from, to);
    start(took);
    bare_token_move(&token);
    stop(took);
}

static void move_unproved(const struct race *race, const char *from, const char *to, struct took *took)
{
    move_bare(race, from, to, false, took);
}

static void move_proved(const struct race *race, const char *from, const char *to, struct took *took)
{
    move_bare(race, from, to, true, took);
}

static void move_all(const struct race *race, const char *from, const char *to, struct took *took)
{
    (void)from;
    struct keyring_rewrap_all done;
    keyring *ring = open_ring(race->rig.many);
    start(took);
    if (keyring_rewrap_all(ring, &(struct keyring_rewrap){.kek_uri = to}, NULL, NULL, &done) != ENVELOPE_OK)
        failed(error_text());
    stop(took);
    if (done.versions.moved != race->keys + 1)
        failed("not all keys were moved");
}

static void move_one(const struct race *race, const char *from, const char *to, struct took *took)
{
    (void)from;
    struct keyring_rewrapped done;
    keyring *ring = open_ring(race->rig.few);
    start(took);
    if (keyring_rewrap(ring, "default", &(struct keyring_rewrap){.kek_uri = to}, &done) != ENVELOPE_OK)
        failed(error_text());
    stop(took);
    if (done.moved != race->keys + 1)
        failed("not all versions were moved");
}

static struct took in_child(work *call, const struct race *race, const char *from, const char *to)
{
    int pipes[2], status;
    struct took took = {0};
    pid_t child = pipe(pipes) == 0 ? fork() : -1;
    if (child < 0)
        failed("no child process");
    if (child == 0) {
        call(race, from, to, &took);
        _exit(write(pipes[1], &took, sizeof took) == (ssize_t)sizeof took ? 0 : 1);
    }
    close(pipes[1]);
    bool got = read(pipes[0], &took, sizeof took) == (ssize_t)sizeof took;
    close(pipes[0]);
    if (waitpid(child, &status, 0) != child || status != 0 || !got)
        failed("a contender failed");
    return took;
}

/* ---- getting ready ---- */

/* The other KEK, and a key with many versions, in the store that has one key. */
static void make_rest(const struct race *race, const char *from, const char *to, struct took *took)
{
    (void)from;
    (void)took;
    keyring *ring = open_ring(race->rig.few);
    if (!keyring_store(ring) || hsm_kek_generate(keyring_hsm(ring), to) != ENVELOPE_OK)
        failed(error_text());
    for (size_t i = 0; i < race->keys; i++)
        if (keyring_rotate(ring, "default", NULL, NULL, NULL) != ENVELOPE_OK)
            failed(error_text());
}

/* ---- measuring ---- */

static void measure_all(const struct race *race, size_t rounds, struct measurement *wall, struct measurement *processor)
{
    static work *const contenders[CONTENDERS] = {move_unproved, move_proved, move_all, move_one};
    const char *keks[2] = {race->rig.token.kek, race->second};
    double deks = (double)(race->keys + 1);
    *wall = *processor = (struct measurement){.count = CONTENDERS, .rounds = rounds};
    for (size_t round = 0; round < rounds; round++)
        for (size_t turn = 0; turn < CONTENDERS; turn++) {
            /* The bare loops before the store's keys are moved on: they read them from there. */
            size_t i = turn < ALL ? (turn + round) % ALL : ALL + (turn + round) % (CONTENDERS - ALL);
            struct took took = in_child(contenders[i], race, keks[round % 2], keks[(round + 1) % 2]);
            wall->ns[i][round] = took.wall / deks;
            processor->ns[i][round] = took.processor / deks;
        }
}

static void add_times(struct figures *figures, const char *group, const struct measurement *result)
{
    for (size_t i = 0; i < CONTENDERS; i++)
        figures_time(figures, group, names[i], HSM_DEK_SIZE, measure_median(result, i), measure_ratio(result, i, BARE));
}

static void add_goals(struct figures *figures, const char *const what[4], const struct measurement *result)
{
    figures_goal(figures, "H6", what[0], HSM_DEK_SIZE, measure_ratio(result, ALL, BARE), least);
    figures_goal(figures, "H6", what[1], HSM_DEK_SIZE, measure_ratio(result, ONE, BARE), least);
    figures_goal(figures, "H6", what[2], HSM_DEK_SIZE, measure_ratio(result, ALL, PROVED), least);
    figures_goal(figures, "H6", what[3], HSM_DEK_SIZE, measure_ratio(result, ONE, PROVED), least);
}

static void report(struct figures *figures, const struct measurement *wall, const struct measurement *processor)
{
    static const char *const by_wall[] = {"rewrap --all against a bare loop", "one key against a bare loop",
                                          "rewrap --all, loop proves too", "one key, loop proves too"};
    static const char *const by_processor[] = {"--all, bare loop, processor time", "one key, bare loop, processor time",
                                               "--all, loop proves, processor time",
                                               "one key, loop proves, processor time"};
    add_times(figures, "rewrap, a data key", wall);
    add_times(figures, "rewrap, processor time", processor);
    add_goals(figures, by_wall, wall);
    add_goals(figures, by_processor, processor);
}

/* ---- main ---- */

static void usage(void)
{
    fprintf(stderr, "usage: bench_rewrap [--keys N] [--rounds N] [--json FILE]\n");
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

static struct options parse(int argc, char **argv)
{
    struct options options = {.keys = 100000, .rounds = 3};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--keys") == 0)
            options.keys = number(argv[i + 1], 10000000);
        else if (strcmp(argv[i], "--rounds") == 0)
            options.rounds = number(argv[i + 1], ROUNDS);
        else if (strcmp(argv[i], "--json") == 0)
            options.json = argv[i + 1];
        else
            usage();
    }
    if (argc % 2 == 0)
        usage();
    return options;
}

int main(int argc, char **argv)
{
    static struct race race;
    static struct measurement wall, processor;
    struct options options = parse(argc, argv);
    fprintf(stderr, "making a token, %zu keys, and a key of %zu versions ...\n", options.keys, options.keys);
    if (!bench_rig_make(&race.rig, options.keys))
        return 1;
    race.keys = options.keys;
    snprintf(race.second, sizeof race.second, "pkcs11:token=rig;object=second;type=secret-key");
    in_child(make_rest, &race, race.rig.token.kek, race.second);
    measure_all(&race, options.rounds, &wall, &processor);
    struct figures *figures = figures_new();
    report(figures, &wall, &processor);
    figures_print(figures, stdout);
    bool written = !options.json || figures_write_json(figures, options.json, OpenSSL_version(OPENSSL_VERSION));
    if (!written)
        fprintf(stderr, "bench: %s cannot be written\n", options.json);
    figures_free(figures);
    bench_rig_remove(&race.rig);
    return written ? 0 : 1;
}
