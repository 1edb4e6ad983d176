#include "keyring/keyring_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fork.h"
#include "base/libctx.h"

struct keyring_flight {
    struct keyring_flight *next;
    enum keyring_flight_kind kind;
    uint64_t what;
    uint64_t generation;
    unsigned users; /* pilot and waiters; the last one frees it */
    bool landed;
    envelope_status status;
    pthread_cond_t landing;
    char text[KEYRING_TEXT_MAX];
};

static struct keyring_flight *flight_new(enum keyring_flight_kind kind, uint64_t what)
{
    struct keyring_flight *flight = calloc(1, sizeof *flight);
    if (!flight)
        return NULL;
    flight->kind = kind;
    flight->what = what;
    flight->generation = fork_generation();
    flight->users = 1;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&flight->landing, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return flight;
}

static void flight_free(struct keyring_flight *flight)
{
    pthread_cond_destroy(&flight->landing);
    free(flight);
}

/* The flight in the air, or spare put there. Under the lock. */
static struct keyring_flight *flight_find(keyring *ring, enum keyring_flight_kind kind, uint64_t what)
{
    struct keyring_flight *flight = ring->flights;
    while (flight && (flight->kind != kind || flight->what != what))
        flight = flight->next;
    return flight;
}

static void flight_take_off(keyring *ring, struct keyring_flight *flight)
{
    flight->next = ring->flights;
    ring->flights = flight;
}

struct keyring_flight *keyring_flight_join(keyring *ring, enum keyring_flight_kind kind, uint64_t what, bool *pilot)
{
    *pilot = false;
    if (libctx_inside()) {
        error_raise(ENVELOPE_E_RECURSION, "the token called back into Envelope, which would need that token to answer; "
                                          "keep the token's module out of the library context that uses Envelope");
        return NULL;
    }
    struct keyring_flight *spare = flight_new(kind, what);
    if (!spare) {
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
        return NULL;
    }
    /* Entered before it takes off: nobody inside may wait for somebody in front of the gate. */
    keyring_gate_enter();
    pthread_mutex_lock(&ring->lock);
    struct keyring_flight *flight = flight_find(ring, kind, what);
    if (flight) {
        flight->users++;
    } else {
        flight_take_off(ring, spare);
        *pilot = true;
    }
    pthread_mutex_unlock(&ring->lock);
    if (*pilot)
        return spare;
    keyring_gate_leave();
    flight_free(spare);
    return flight;
}

struct keyring_flight *keyring_flight_try(keyring *ring, enum keyring_flight_kind kind, uint64_t what)
{
    if (libctx_inside())
        return NULL;
    struct keyring_flight *flight = flight_new(kind, what);
    if (!flight)
        return NULL;
    keyring_gate_enter();
    pthread_mutex_lock(&ring->lock);
    bool busy = flight_find(ring, kind, what) != NULL;
    if (!busy)
        flight_take_off(ring, flight);
    pthread_mutex_unlock(&ring->lock);
    if (!busy)
        return flight;
    keyring_gate_leave();
    flight_free(flight);
    return NULL;
}

envelope_status keyring_flight_wait(keyring *ring, struct keyring_flight *flight)
{
    atomic_fetch_add_explicit(&ring->waits, 1, memory_order_relaxed);
    struct timespec until = clock_from_now(ring->settings.deadline);
    pthread_mutex_lock(&ring->lock);
    int rv = 0;
    while (!flight->landed && rv == 0)
        rv = pthread_cond_timedwait(&flight->landing, &ring->lock, &until);
    bool landed = flight->landed;
    envelope_status status = flight->status;
    char text[KEYRING_TEXT_MAX];
    memcpy(text, flight->text, sizeof text);
    bool last = --flight->users == 0;
    pthread_mutex_unlock(&ring->lock);
    if (last)
        flight_free(flight);
    if (!landed)
        return error_raise(ENVELOPE_E_TIMEOUT, "another thread has waited for the token or the store for longer than "
                                               "the configured deadline");
    return status ? error_raise(status, "%s", text) : ENVELOPE_OK;
}

envelope_status keyring_flight_land(keyring *ring, struct keyring_flight *flight, envelope_status status)
{
    keyring_gate_leave();
    /* A fork inside the flight: this is the child, the flight is in nobody's list, its waiters are in the parent. */
    if (flight->generation != fork_generation())
        return status;
    pthread_mutex_lock(&ring->lock);
    struct keyring_flight **link = &ring->flights;
    while (*link && *link != flight)
        link = &(*link)->next;
    if (*link)
        *link = flight->next;
    flight->landed = true;
    flight->status = status;
    if (status)
        snprintf(flight->text, sizeof flight->text, "%s", error_text());
    bool last = --flight->users == 0;
    if (!last)
        pthread_cond_broadcast(&flight->landing);
    pthread_mutex_unlock(&ring->lock);
    if (last)
        flight_free(flight);
    return status;
}

void keyring_flights_forget(keyring *ring)
{
    ring->flights = NULL;
}
