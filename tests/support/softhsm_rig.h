/*
 * A SoftHSM token of one test's own: a scratch directory with softhsm2.conf,
 * the token "rig", a PIN file and the AES-256 KEK "master", made through our
 * own hsm_token_init and hsm_kek_generate.
 *
 * SOFTHSM2_CONF is set for this process and the programs it starts. SoftHSM
 * reads it at C_Initialize, so a process uses one rig at a time; a test program
 * makes it once, in main() or in its group setup, before any other use of the
 * module, and hands copies of the token (softhsm_rig_copy) to the processes it
 * wants to kill: SoftHSM rewrites token.object at every login, and a kill in
 * the middle of that ruins the token.
 *
 * Every function fails by printing why to stderr and returning false.
 */
#ifndef SUPPORT_SOFTHSM_RIG_H
#define SUPPORT_SOFTHSM_RIG_H

#include <stdbool.h>

#include "base/settings.h"

#define SOFTHSM_RIG_PIN "428571"
#define SOFTHSM_RIG_SO_PIN "857142"

enum { SOFTHSM_RIG_PATH_MAX = 256 };

struct softhsm_rig {
    char directory[SOFTHSM_RIG_PATH_MAX]; /* the scratch directory, mode 0700; put what you like in it */
    char config[SOFTHSM_RIG_PATH_MAX];    /* DIRECTORY/softhsm2.conf */
    char tokens[SOFTHSM_RIG_PATH_MAX];    /* DIRECTORY/tokens */
    char pin_file[SOFTHSM_RIG_PATH_MAX];  /* DIRECTORY/pin, mode 0600 */
    char module[SOFTHSM_RIG_PATH_MAX];    /* libsofthsm2.so; SOFTHSM2_MODULE in the environment overrides */
    char kek[SOFTHSM_RIG_PATH_MAX];       /* pkcs11:token=rig;object=master;type=secret-key */
};

/* The whole rig. On failure everything is removed again. */
bool softhsm_rig_make(struct softhsm_rig *rig);
/* Without token and KEK: only directory, softhsm2.conf, empty tokens directory and PIN file, SOFTHSM2_CONF set. */
bool softhsm_rig_make_empty(struct softhsm_rig *rig);

/*
 * A copy with its own directory and softhsm2.conf (as cp -a would make it), for another process: start it with
 * SOFTHSM2_CONF=copy->config. The caller's own SOFTHSM2_CONF stays. Remove it with softhsm_rig_remove().
 */
bool softhsm_rig_copy(const struct softhsm_rig *rig, struct softhsm_rig *copy);

/* Move the token's files away while programs run, and put them back. */
bool softhsm_rig_unplug(const struct softhsm_rig *rig);
bool softhsm_rig_plug(const struct softhsm_rig *rig);

/* Fill [hsm] and [envelope] kek, deadline (10 s), sessions (1), ttl (1 h), grace (10 min), refresh (1 s) of settings
 * with what the rig needs; the strings are rig's. Everything else is zeroed. Do not settings_clear() it. */
void softhsm_rig_settings(const struct softhsm_rig *rig, struct settings *settings);

/* Remove every file. Safe after a failed make. */
void softhsm_rig_remove(struct softhsm_rig *rig);

#endif
