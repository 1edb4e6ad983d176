/* What the keyring's tests share: a SoftHSM token for the program, a store for each test, messages through the keyring.
 */
#ifndef KEYRING_RIG_H
#define KEYRING_RIG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"
#include "keyring/keyring.h"
#include "sanitized.h"
#include "softhsm_rig.h"

extern struct softhsm_rig keyring_token;

enum { RIG_TEXT = 64, RIG_PATH = 512 };

/* KEKs of the token besides the configured one: keyring_rig_setup_second() makes the first of them, nobody the other.
 */
#define SECOND "pkcs11:token=rig;object=second;type=secret-key"
#define MISSING "pkcs11:token=rig;object=missing;type=secret-key"

/* Group fixtures: the token, and a clock that runs and can be set forward. */
int keyring_rig_setup(void **state);
int keyring_rig_setup_second(void **state);
int keyring_rig_teardown(void **state);
/* Test fixtures: a new store with the key "default". */
int keyring_store_setup(void **state);
int keyring_store_teardown(void **state);

/* The store of this test. */
const char *rig_store_url(void);
const char *rig_store_path(void);
/* Run SQL in it, behind the keyring's back. */
void rig_sql(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The first column of the first row of a query. */
int64_t rig_sql_number(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The settings of a ring on this test's token and store; change some before rig_ring(). */
struct settings rig_settings(void);
keyring *rig_ring(struct settings settings);
keyring *rig_ring_plain(void);
keyring_key *rig_key(keyring *ring, const char *name);
struct keyring_counters rig_counters(const keyring *ring);

void rig_clock_forward(int64_t microseconds);

struct rig_message {
    uint32_t dek_id;
    uint8_t nonce[AESGCM_NONCE_SIZE];
    uint8_t text[RIG_TEXT];
    uint8_t tag[AESGCM_TAG_SIZE];
};

/* Encrypt number, spread over RIG_TEXT bytes, as a cipher context would. */
envelope_status rig_seal(keyring *ring, keyring_key *key, struct keyring_lease *lease, uint64_t number,
                         struct rig_message *message);
/* The same with a lease of its own. */
envelope_status rig_seal_once(keyring *ring, keyring_key *key, uint64_t number, struct rig_message *message);
/* ENVELOPE_E_DATA_FORMAT if it opens to anything but number. */
envelope_status rig_open(keyring *ring, struct keyring_lease *lease, const struct rig_message *message,
                         uint64_t number);
envelope_status rig_open_once(keyring *ring, const struct rig_message *message, uint64_t number);

#define assert_status(expected, call)                                                                                  \
    do {                                                                                                               \
        envelope_status status_ = (call);                                                                              \
        if (status_ != (expected))                                                                                     \
            fail_msg("%s: %s (%s), not %s", #call, envelope_status_name(status_), status_ ? error_text() : "ok",       \
                     envelope_status_name(expected));                                                                  \
    } while (0)
#define assert_ok(call) assert_status(ENVELOPE_OK, call)
#define assert_error_says(text)                                                                                        \
    do {                                                                                                               \
        if (!strstr(error_text(), text))                                                                               \
            fail_msg("\"%s\" does not say \"%s\"", error_text(), text);                                                \
    } while (0)

#endif
