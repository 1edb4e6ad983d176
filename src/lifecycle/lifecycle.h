/*
 * What is done with a keyring as a whole, once and by people: set it up, look
 * into a ciphertext, check that everything works. Used by the command.
 */
#ifndef LIFECYCLE_LIFECYCLE_H
#define LIFECYCLE_LIFECYCLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

#include "base/text.h"
#include "keyring/keyring.h"
#include "keyring/reference.h"
#include "store/store.h"

/* ---- setting up ---- */

enum { LIFECYCLE_MADE_MAX = 16 };

/* What a set-up made, in order; empty if everything was there. */
struct lifecycle_made {
    struct {
        const char *what; /* "token", "store", … */
        char *where;      /* a path, a label or a URI */
    } items[LIFECYCLE_MADE_MAX];
    size_t count;
};
void lifecycle_made_clear(struct lifecycle_made *made);

/*
 * A complete rig on a SoftHSM token in directory: softhsm2.conf, tokens/, pin, envelope.cnf, openssl.cnf, keys.db,
 * env. What a killed run left half-made is completed; a complete rig is not touched. module NULL: SoftHSM where the
 * distribution puts it. Sets SOFTHSM2_CONF in this process.
 */
struct lifecycle_rig_options {
    const char *module;
    bool key_references; /* openssl.cnf offers the standard ciphers to key references */
};
envelope_status lifecycle_rig(const char *directory, const struct lifecycle_rig_options *options,
                              struct lifecycle_made *made);

struct lifecycle_init {
    const char *config; /* the file to write, if it is not there */
    const char *module; /* each NULL: as an existing configuration says */
    const char *token;  /* label */
    const char *kek;    /* label or pkcs11: URI */
    const char *store;  /* URL */
    const char *pin_file;
    bool generate_kek; /* make the KEK if the token has none of that name */
};
/* Configuration, store and default key on a token that exists. On an error nothing is left behind but a generated KEK.
 */
envelope_status lifecycle_init(const struct lifecycle_init *wanted, struct lifecycle_made *made);

/* ---- places ---- */

/* The provider module: in the build tree that this program runs from, else where OpenSSL looks. NULL, nothing raised:
 * not there. */
char *lifecycle_provider_module(void);
/* OpenSSL's directory for provider modules, as found when this was built. */
const char *lifecycle_modules_directory(void);
/* SoftHSM's PKCS#11 module; NULL, nothing raised: not installed. */
const char *lifecycle_softhsm_module(void);

/* ---- looking into a ciphertext ---- */

enum { LIFECYCLE_HEAD_SIZE = 96 }; /* this much of a file tells all */

enum lifecycle_subject { LIFECYCLE_CIPHERTEXT, LIFECYCLE_REFERENCE };

struct lifecycle_inspection {
    enum lifecycle_subject subject;
    uint32_t dek_id;
    uint32_t version;
    bool primary; /* new data of the key goes under this version */
    char key_name[KEY_NAME_MAX + 1];
    enum store_version_state state;
    enum store_key_state key_state;
    int64_t created;
};
/*
 * head: the first LIFECYCLE_HEAD_SIZE bytes of a file, or all of it if it is shorter.
 * ENVELOPE_E_DATA_TRUNCATED, _DATA_FORMAT, _REFERENCE.
 */
envelope_status lifecycle_inspect(store *from, const uint8_t *head, size_t length,
                                  struct lifecycle_inspection *inspection);

/* ---- key references (docs/references.md) ---- */

enum { LIFECYCLE_REFERENCE_SIZE = KEYRING_REFERENCE_SIZE, LIFECYCLE_CANARY_SIZE = 32, LIFECYCLE_CANARY_IV_SIZE = 16 };

struct lifecycle_reference {
    uint8_t bytes[LIFECYCLE_REFERENCE_SIZE];
    uint32_t dek_id, version;
    uint32_t primary; /* the key's newest version: more than version if it was rotated since */
};
/* The reference to a version of a key; version 0: the primary. Refused for a version that cannot be used. */
envelope_status lifecycle_reference(store *from, const char *key, uint32_t version, struct lifecycle_reference *made);

/*
 * A known text under the reference's DEK (AES-256-CBC), for a service to decrypt when it starts: it fails where
 * Envelope is not in front of the cipher.
 */
#define LIFECYCLE_CANARY_TEXT "envelope canary"
struct lifecycle_canary {
    uint8_t iv[LIFECYCLE_CANARY_IV_SIZE];
    uint8_t sealed[LIFECYCLE_CANARY_SIZE];
    size_t length;
};
envelope_status lifecycle_canary(keyring *ring, const struct lifecycle_reference *reference,
                                 struct lifecycle_canary *canary);

/* ---- doctor ---- */

enum lifecycle_outcome { LIFECYCLE_GOOD, LIFECYCLE_WARNING, LIFECYCLE_FAILED, LIFECYCLE_SKIPPED };
const char *lifecycle_outcome_text(enum lifecycle_outcome outcome); /* "ok", "warning", "failed", "skipped" */

enum { LIFECYCLE_CHECKS_MAX = 24 };

struct lifecycle_check {
    const char *name; /* "configuration", "token", … */
    enum lifecycle_outcome outcome;
    envelope_status status; /* of a failed check */
    char *found;            /* what is so */
    char *advice;           /* what to do about it; NULL if nothing */
};
struct lifecycle_diagnosis {
    struct lifecycle_check checks[LIFECYCLE_CHECKS_MAX];
    size_t count;
    bool key_service; /* the KEK is in one; as far as that could be told */
};
/* Check the whole set-up of the configuration at path. Changes nothing. Fails only where doctor itself cannot go on. */
envelope_status lifecycle_doctor(const char *path, struct lifecycle_diagnosis *diagnosis);
void lifecycle_diagnosis_clear(struct lifecycle_diagnosis *diagnosis);

/*
 * The part of doctor that runs in a process of its own, as any program using OpenSSL would: encrypt and decrypt
 * through EVP, with the provider loaded by name ("module") or by OpenSSL's own configuration ("conf"). Prints one
 * line for its parent; the exit status of the process.
 */
int lifecycle_doctor_probe(const char *how);

#endif
