/* What both ways of setting up share. */
#ifndef LIFECYCLE_SETUP_H
#define LIFECYCLE_SETUP_H

#include "keyring/keyring.h"
#include "lifecycle/lifecycle.h"

/* Note that something was made; where is copied. */
envelope_status setup_note(struct lifecycle_made *made, const char *what, const char *where);

/* The URI of a KEK by its label on a token by its label. malloc'ed. */
char *setup_kek_uri(const char *token, const char *label);

/* The text of an envelope.cnf. Every argument but pin_file is required. malloc'ed. */
char *setup_config(const char *store_at, const char *kek, const char *module, const char *pin_file);

/* Wrap a data key of no use under the KEK and unwrap it again. */
envelope_status setup_try_wrap(hsm *token, const char *kek);

/* Make the configured store if it is not there. */
envelope_status setup_store(const keyring *ring, struct lifecycle_made *made, bool *created);

/* Make the default key if the store has none of that name. */
envelope_status setup_default_key(keyring *ring, struct lifecycle_made *made);

/* Remove the files of a store that was made by a set-up which then failed. */
void setup_drop_store(const char *url);

void setup_free_keyring(keyring **ring);
#define SETUP_KEYRING __attribute__((cleanup(setup_free_keyring))) keyring *

#endif
