#include "login.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"

/* Renewed this long before the end, or in the last third of a shorter life, where a backend does not say otherwise. */
enum { EARLY_SECONDS = 300, EARLY_PART = 3, PAUSE_SECONDS = 30 };

struct login {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool fetching;
    bool turn_taken;
    bool logged_in;
    struct buffer pin;
    unsigned pin_number; /* of the PIN in use: what was fetched with an older one is not kept */
    struct credentials *current;
    int64_t life;     /* what current had before it when it was fetched; INT64_MAX: no end */
    int64_t next_try; /* monotonic: after a failed renewal, not before */
};

struct login *login_new(void)
{
    struct login *login = calloc(1, sizeof *login);
    pthread_condattr_t attributes;
    if (!login) {
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a token");
        return NULL;
    }
    pthread_mutex_init(&login->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&login->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return login;
}

void login_free(struct login *login)
{
    if (!login)
        return;
    credentials_unref(login->current);
    buffer_clear(&login->pin);
    pthread_cond_destroy(&login->changed);
    pthread_mutex_destroy(&login->lock);
    free(login);
}

static int64_t left_of(const struct credentials *credentials)
{
    int64_t expires = credentials_expires(credentials);
    return expires ? expires - clock_wall() : INT64_MAX;
}

/* How long before their end the credentials are renewed. With the lock held. */
static int64_t early_of(const struct login *login)
{
    int64_t early = credentials_early(login->current), usual = EARLY_SECONDS * CLOCK_SECOND;
    if (early)
        return early;
    return login->life / EARLY_PART < usual ? login->life / EARLY_PART : usual;
}

/* Good for now; with `early`, good for long enough not to be renewed yet. With the lock held. */
static bool is_good(const struct login *login, bool early)
{
    return login->current && left_of(login->current) > (early ? early_of(login) : 0);
}

/* With the lock held. False at the deadline. */
static bool wait_for_change(struct login *login, int64_t deadline)
{
    int64_t left = deadline - clock_monotonic();
    if (left <= 0)
        return false;
    struct timespec until = clock_from_now(left);
    return pthread_cond_timedwait(&login->changed, &login->lock, &until) == 0;
}

/* With the lock held; it is let go while fetching. */
static CK_RV renew(struct login *login, login_fetch fetch, void *context, int64_t deadline)
{
    struct buffer pin = {0};
    struct credentials *made = NULL, *previous = credentials_ref(login->current);
    unsigned number = login->pin_number;
    login->fetching = true;
    buffer_append(&pin, login->pin.bytes, login->pin.length);
    pthread_mutex_unlock(&login->lock);
    CK_RV rv = buffer_ok(&pin) ? fetch(context, buffer_text(&pin), previous, deadline, &made) : CKR_HOST_MEMORY;
    buffer_clear(&pin);
    credentials_unref(previous);
    pthread_mutex_lock(&login->lock);
    login->fetching = false;
    login->next_try = clock_monotonic() + PAUSE_SECONDS * CLOCK_SECOND;
    if (rv == CKR_OK && number == login->pin_number) {
        credentials_unref(login->current);
        login->current = made;
        login->life = made ? left_of(made) : 0;
        login->next_try = 0;
    } else {
        credentials_unref(made);
    }
    pthread_cond_broadcast(&login->changed);
    return rv;
}

CK_RV login_get(struct login *login, login_fetch fetch, void *context, int64_t deadline, struct credentials **got)
{
    CK_RV rv = CKR_OK;
    pthread_mutex_lock(&login->lock);
    for (;;) {
        bool good = is_good(login, false);
        bool renewing = login->fetching || clock_monotonic() < login->next_try;
        /* What still works is used while it is being renewed, and when renewing fails. */
        if (is_good(login, true) || (good && renewing))
            break;
        if (login->fetching) {
            if (wait_for_change(login, deadline))
                continue;
            error_raise(ENVELOPE_E_TIMEOUT, "the deadline passed while another thread fetched credentials");
            rv = CKR_DEVICE_ERROR;
            break;
        }
        rv = renew(login, fetch, context, deadline);
        if (is_good(login, false))
            rv = CKR_OK;
        if (rv != CKR_OK)
            break;
        if (!is_good(login, true) && login->current) {
            /* Short-lived by design, or the clock is off: use them, renew at the next call. */
            if (!is_good(login, false)) {
                error_raise(ENVELOPE_E_HSM_LOGIN, "the credentials fetched have expired already; is the clock right?");
                rv = CKR_USER_NOT_LOGGED_IN;
            }
            break;
        }
    }
    *got = rv == CKR_OK ? credentials_ref(login->current) : NULL;
    pthread_mutex_unlock(&login->lock);
    return rv;
}

bool login_turn_begin(struct login *login, int64_t deadline)
{
    pthread_mutex_lock(&login->lock);
    while (login->turn_taken && wait_for_change(login, deadline))
        ;
    bool ours = !login->turn_taken;
    login->turn_taken = true;
    pthread_mutex_unlock(&login->lock);
    return ours;
}

void login_turn_end(struct login *login)
{
    pthread_mutex_lock(&login->lock);
    login->turn_taken = false;
    pthread_cond_broadcast(&login->changed);
    pthread_mutex_unlock(&login->lock);
}

void login_drop(struct login *login, const struct credentials *refused)
{
    pthread_mutex_lock(&login->lock);
    if (login->current == refused) {
        credentials_unref(login->current);
        login->current = NULL;
        login->next_try = 0;
    }
    pthread_mutex_unlock(&login->lock);
}

envelope_status login_set_pin(struct login *login, const char *pin)
{
    pthread_mutex_lock(&login->lock);
    buffer_reset(&login->pin);
    if (pin)
        buffer_append_text(&login->pin, pin);
    bool ok = buffer_ok(&login->pin);
    login->logged_in = ok && pin;
    login->pin_number++;
    login->next_try = 0;
    credentials_unref(login->current);
    login->current = NULL;
    pthread_mutex_unlock(&login->lock);
    return ok ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

bool login_has_pin(struct login *login)
{
    pthread_mutex_lock(&login->lock);
    bool logged_in = login->logged_in;
    pthread_mutex_unlock(&login->lock);
    return logged_in;
}
