#include "store_conformance.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

static const struct store_factory *factory_in_use;

const struct store_actor conformance_actor = {.who = "uid 0 pid 1 conformance", .detail = NULL};

int store_conformance(const struct store_factory *factory)
{
    factory_in_use = factory;
    int failed = conformance_store_group();
    failed += conformance_ids_group();
    failed += conformance_keys_group();
    failed += conformance_states_group();
    failed += conformance_rewrap_group();
    failed += conformance_moves_group();
    failed += conformance_history_group();
    failed += conformance_processes_group();
    return failed;
}

int conformance_setup(void **state)
{
    struct conformance *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->url = factory_in_use->make();
    assert_non_null(c->url);
    bool created = false;
    OK(store_create(c->url, CONFORMANCE_DEADLINE, &c->store, &created));
    assert_true(created);
    OK(store_kek_ensure(c->store, "pkcs11:token=conformance;object=master;type=secret-key", CONFORMANCE_NOW, &c->kek));
    *state = c;
    return 0;
}

int conformance_teardown(void **state)
{
    struct conformance *c = *state;
    envelope_status sound = store_check(c->store);
    if (sound)
        print_error("after the test: %s\n", error_text());
    store_close(c->store);
    factory_in_use->drop(c->url);
    free(c->url);
    free(c);
    return sound ? -1 : 0;
}

void conformance_expect(envelope_status got, envelope_status wanted, const char *expression, int line)
{
    if (got == wanted) {
        /* An error without a text helps nobody. */
        if (got != ENVELOPE_OK && (error_status() != got || !error_text()[0]))
            fail_msg("line %d: %s returned %s but raised \"%s\"", line, expression, envelope_status_name(got),
                     error_text());
        return;
    }
    fail_msg("line %d: %s returned %s instead of %s: %s", line, expression, envelope_status_name(got),
             envelope_status_name(wanted), got ? error_text() : "");
}

struct store_new_version conformance_version(const struct conformance *c)
{
    /* Blobs that live as long as the program, one per recent id. */
    static uint8_t blobs[64][16];
    struct store_new_version version = {
        .algorithm = STORE_AES_256_GCM, .kek_id = c->kek, .blob_length = 16, .now = CONFORMANCE_NOW};
    OK(store_dek_id_reserve(c->store, &version.dek_id));
    uint8_t *blob = blobs[version.dek_id % 64];
    snprintf((char *)blob, 16, "blob %u", (unsigned)version.dek_id);
    version.blob = blob;
    return version;
}

void conformance_create(const struct conformance *c, const char *name, uint64_t limit)
{
    struct store_new_version first = conformance_version(c);
    OK(store_key_create(c->store, name, limit, &first, &conformance_actor));
}

uint32_t conformance_rotate(const struct conformance *c, const char *name)
{
    struct store_key key;
    OK(store_key_find(c->store, name, &key));
    struct store_new_version next = conformance_version(c);
    OK(store_key_rotate(c->store, name, key.primary_version, &next, &conformance_actor));
    return next.dek_id;
}

struct store_version conformance_primary(const struct conformance *c, const char *name)
{
    struct store_version version;
    OK(store_version_of(c->store, name, 0, &version));
    /* Tests look at numbers and states; the blob has tests of its own. */
    free(version.blob);
    version.blob = NULL;
    return version;
}

uint64_t conformance_counter(const struct conformance *c)
{
    uint64_t counter = 0;
    OK(store_change_counter(c->store, &counter));
    return counter;
}

size_t conformance_history_rows(const struct conformance *c)
{
    struct store_history *rows;
    size_t count = 0;
    OK(store_history_read(c->store, NULL, 0, &rows, &count));
    store_history_free(rows, count);
    return count;
}

void conformance_processes(int count, int (*work)(int index, const struct conformance *c, void *argument),
                           const struct conformance *c, void *argument)
{
    pid_t children[64];
    assert_true(count <= 64);
    for (int i = 0; i < count; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            int result = work(i, c, argument);
            if (result != 0)
                fprintf(stderr, "process %d: %d, %s\n", i, result, error_text());
            _exit(result != 0);
        }
    }
    int failed = 0;
    for (int i = 0; i < count; i++) {
        int status = 0;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    assert_int_equal(failed, 0);
}

void *conformance_shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    return memory;
}

void conformance_shared_free(void *memory, size_t size)
{
    munmap(memory, size);
}
