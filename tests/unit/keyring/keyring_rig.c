#include "keyring_rig.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sqlite3.h>

#include "base/nonce.h"
#include "base/wire.h"
#include "hsm/hsm.h"

struct softhsm_rig keyring_token;

static char store_path[RIG_PATH], store_named[RIG_PATH + 8];
static _Atomic int64_t forward;

static int64_t running_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * CLOCK_SECOND + now.tv_nsec / 1000 + atomic_load(&forward);
}

void rig_clock_forward(int64_t microseconds)
{
    atomic_fetch_add(&forward, microseconds);
}

int keyring_rig_setup(void **state)
{
    (void)state;
    clock_set_source(running_clock);
    return softhsm_rig_make(&keyring_token) ? 0 : -1;
}

int keyring_rig_setup_second(void **state)
{
    if (keyring_rig_setup(state) != 0)
        return -1;
    struct settings settings = rig_settings();
    hsm *token = NULL;
    envelope_status status = hsm_new(&settings, &token);
    if (!status)
        status = hsm_kek_generate(token, SECOND);
    if (status)
        fprintf(stderr, "%s\n", error_text());
    hsm_free(token);
    settings_clear(&settings);
    return status ? -1 : 0;
}

int keyring_rig_teardown(void **state)
{
    (void)state;
    softhsm_rig_remove(&keyring_token);
    clock_set_source(NULL);
    return 0;
}

const char *rig_store_url(void)
{
    return store_named;
}

const char *rig_store_path(void)
{
    return store_path;
}

int keyring_store_setup(void **state)
{
    static unsigned count;
    (void)state;
    snprintf(store_path, sizeof store_path, "%s/keys-%u.db", keyring_token.directory, ++count);
    snprintf(store_named, sizeof store_named, "sqlite:%s", store_path);
    store *made = NULL;
    if (store_create(store_named, 10 * CLOCK_SECOND, &made, NULL)) {
        fprintf(stderr, "%s\n", error_text());
        return -1;
    }
    store_close(made);
    keyring *ring = rig_ring_plain();
    envelope_status status = keyring_create(ring, "default", NULL);
    if (status)
        fprintf(stderr, "%s\n", error_text());
    keyring_free(ring);
    return status ? -1 : 0;
}

int keyring_store_teardown(void **state)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    (void)state;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char path[RIG_PATH + 8];
        snprintf(path, sizeof path, "%s%s", store_path, suffixes[i]);
        unlink(path);
    }
    return 0;
}

/* ---- behind the keyring's back ---- */

static sqlite3 *sql_open(void)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open_v2(store_path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    return db;
}

void rig_sql(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *sql = sqlite3_vmprintf(format, args);
    va_end(args);
    sqlite3 *db = sql_open();
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    sqlite3_free(sql);
    sqlite3_close(db);
}

int64_t rig_sql_number(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *sql = sqlite3_vmprintf(format, args);
    va_end(args);
    sqlite3 *db = sql_open();
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK || sqlite3_step(statement) != SQLITE_ROW)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    int64_t number = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_free(sql);
    sqlite3_close(db);
    return number;
}

/* ---- rings ---- */

static char *own(const char *text)
{
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy)
        fail_msg("out of memory");
    return copy;
}

struct settings rig_settings(void)
{
    struct settings settings;
    softhsm_rig_settings(&keyring_token, &settings);
    /* The rig's strings are the rig's; a ring frees its own. */
    settings.path = own("test.cnf");
    settings.store = own(store_named);
    settings.default_key = own("default");
    settings.kek = own(settings.kek);
    settings.module = own(settings.module);
    settings.pin_file = own(settings.pin_file);
    settings.pin_env = own(settings.pin_env);
    settings.pin_command = own(settings.pin_command);
    settings.messages = UINT64_C(1) << 32;
    return settings;
}

keyring *rig_ring(struct settings settings)
{
    keyring *ring = NULL;
    assert_ok(keyring_new(&settings, &ring));
    return ring;
}

keyring *rig_ring_plain(void)
{
    return rig_ring(rig_settings());
}

keyring_key *rig_key(keyring *ring, const char *name)
{
    keyring_key *key = NULL;
    assert_ok(keyring_find(ring, name, strlen(name), &key));
    return key;
}

struct keyring_counters rig_counters(const keyring *ring)
{
    struct keyring_counters counters;
    keyring_count(ring, &counters);
    return counters;
}

/* ---- messages ---- */

static void fill(uint8_t text[RIG_TEXT], uint64_t number)
{
    for (size_t i = 0; i < RIG_TEXT; i += 8)
        wire_put_u64(text + i, number + i);
}

envelope_status rig_seal(keyring *ring, keyring_key *key, struct keyring_lease *lease, uint64_t number,
                         struct rig_message *message)
{
    envelope_status status = keyring_encrypt_begin(ring, key, lease);
    if (status)
        return status;
    message->dek_id = lease->dek_id;
    fill(message->text, number);
    status = nonce_next(message->nonce);
    if (!status)
        status = aesgcm_start(lease->gcm, true, message->nonce);
    if (!status)
        status = aesgcm_update(lease->gcm, message->text, RIG_TEXT, message->text);
    return status ? status : aesgcm_final_encrypt(lease->gcm, message->tag);
}

envelope_status rig_seal_once(keyring *ring, keyring_key *key, uint64_t number, struct rig_message *message)
{
    struct keyring_lease lease = {0};
    envelope_status status = rig_seal(ring, key, &lease, number, message);
    keyring_lease_end(ring, &lease);
    return status;
}

envelope_status rig_open(keyring *ring, struct keyring_lease *lease, const struct rig_message *message, uint64_t number)
{
    envelope_status status = keyring_decrypt_begin(ring, message->dek_id, lease);
    if (status)
        return status;
    uint8_t text[RIG_TEXT], expected[RIG_TEXT];
    fill(expected, number);
    status = aesgcm_start(lease->gcm, false, message->nonce);
    if (!status)
        status = aesgcm_update(lease->gcm, message->text, RIG_TEXT, text);
    if (!status)
        status = aesgcm_final_decrypt(lease->gcm, message->tag);
    if (!status && memcmp(text, expected, RIG_TEXT) != 0)
        status = error_raise(ENVELOPE_E_DATA_FORMAT, "the message opens to something else");
    return status;
}

envelope_status rig_open_once(keyring *ring, const struct rig_message *message, uint64_t number)
{
    struct keyring_lease lease = {0};
    envelope_status status = rig_open(ring, &lease, message, number);
    keyring_lease_end(ring, &lease);
    return status;
}
