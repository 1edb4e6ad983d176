/*
 * A secret id that was refused is not sent again for a while. Each try would count towards a lockout of its role, and
 * with it of every other machine that logs in by this role.
 */
#include "bao.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <openssl/crypto.h>

#include "base/clock.h"
#include "base/error.h"

/* The server forgets refused tries after 15 minutes without one (lockout_counter_reset). */
enum { FORGOTTEN_SECONDS = 16 * 60 };

struct bao_lockout {
    pthread_mutex_t lock;
    struct buffer login;         /* the body of the login that was refused */
    int64_t until;               /* monotonic */
    char code[64], message[512]; /* what the service said of it */
};

struct bao_lockout *bao_lockout_new(void)
{
    struct bao_lockout *lockout = calloc(1, sizeof *lockout);
    if (!lockout) {
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for an OpenBao token");
        return NULL;
    }
    pthread_mutex_init(&lockout->lock, NULL);
    return lockout;
}

void bao_lockout_free(struct bao_lockout *lockout)
{
    if (!lockout)
        return;
    buffer_clear(&lockout->login);
    pthread_mutex_destroy(&lockout->lock);
    free(lockout);
}

void bao_lockout_note(struct bao_lockout *lockout, const struct backend_call *call, const struct buffer *login)
{
    pthread_mutex_lock(&lockout->lock);
    snprintf(lockout->code, sizeof lockout->code, "%s", call->service_code);
    snprintf(lockout->message, sizeof lockout->message, "%s", call->service_message);
    buffer_clear(&lockout->login);
    buffer_append(&lockout->login, login->bytes, login->length);
    lockout->until = clock_monotonic() + FORGOTTEN_SECONDS * CLOCK_SECOND;
    pthread_mutex_unlock(&lockout->lock);
}

int64_t bao_lockout_left(struct bao_lockout *lockout, struct backend_call *call, const struct buffer *login)
{
    pthread_mutex_lock(&lockout->lock);
    const struct buffer *refused = &lockout->login;
    int64_t left = lockout->until - clock_monotonic();
    bool same = left > 0 && refused->length && refused->length == login->length &&
                CRYPTO_memcmp(refused->bytes, login->bytes, login->length) == 0;
    /* It is still the service's answer, not one of ours. */
    if (same)
        backend_note(call, lockout->code, lockout->message, NULL);
    pthread_mutex_unlock(&lockout->lock);
    return same ? left : 0;
}
