/* The hot path: what every message passes through, and the keyed contexts kept ready for it. */
#include "keyring/keyring_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fork.h"
#include "base/libctx.h"

/* A key can be rotated between two looks, again and again; somebody has to give up in the end. */
enum { PRIMARY_TRIES = 16 };

/* ---- seats ---- */

static inline unsigned stripe_of_thread(void)
{
    static _Atomic unsigned threads;
    static _Thread_local unsigned mine; /* 0: not numbered yet */
    if (mine == 0)
        mine = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) % KEYRING_STRIPES + 1;
    return mine - 1;
}

static void seat_free(keyring *ring, struct keyring_seat *seat)
{
    struct keyring_dek *dek = seat->dek;
    if (seat->messages > 0 && seat->generation == fork_generation())
        atomic_fetch_add_explicit(&dek->local, seat->messages, memory_order_relaxed);
    aesgcm_free(seat->gcm);
    free(seat);
    keyring_dek_unref(ring, dek);
}

/* Takes over the caller's reference to dek on success. */
static struct keyring_seat *seat_new(struct keyring_dek *dek)
{
    struct keyring_seat *seat = aligned_alloc(KEYRING_CACHE_LINE, KEYRING_CACHE_LINE);
    if (!seat) {
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
        return NULL;
    }
    seat->gcm = aesgcm_new(dek->dek);
    if (!seat->gcm) {
        free(seat);
        return NULL;
    }
    seat->dek = dek;
    seat->generation = dek->generation;
    seat->messages = 0;
    return seat;
}

static struct keyring_stripe *stripes_make(struct keyring_dek *dek)
{
    size_t size = KEYRING_STRIPES * sizeof(struct keyring_stripe);
    struct keyring_stripe *made = aligned_alloc(KEYRING_CACHE_LINE, size);
    if (!made)
        return NULL;
    memset(made, 0, size);
    struct keyring_stripe *expected = NULL;
    if (atomic_compare_exchange_strong(&dek->stripes, &expected, made))
        return made;
    free(made);
    return expected;
}

/*
 * A seat parked at this entry, this thread's first. The caller may hold no reference: entries are type-stable and the
 * seat brings one, after which it compares what it got with what it wanted.
 */
static struct keyring_seat *seat_take(keyring *ring, struct keyring_dek *dek)
{
    struct keyring_stripe *stripes = atomic_load_explicit(&dek->stripes, memory_order_acquire);
    if (!stripes)
        return NULL;
    unsigned own = stripe_of_thread();
    for (unsigned i = 0; i < KEYRING_STRIPES; i++) {
        struct keyring_stripe *stripe = &stripes[(own + i) % KEYRING_STRIPES];
        if (!atomic_load_explicit(&stripe->seat, memory_order_relaxed))
            continue;
        struct keyring_seat *seat = atomic_exchange_explicit(&stripe->seat, NULL, memory_order_acq_rel);
        if (!seat)
            continue;
        if (seat->generation == fork_generation())
            return seat;
        seat_free(ring, seat);
    }
    return NULL;
}

void keyring_seats_clear(keyring *ring, struct keyring_dek *dek)
{
    struct keyring_stripe *stripes = atomic_load_explicit(&dek->stripes, memory_order_acquire);
    if (!stripes)
        return;
    for (unsigned i = 0; i < KEYRING_STRIPES; i++) {
        struct keyring_seat *seat = atomic_exchange(&stripes[i].seat, NULL);
        if (seat)
            seat_free(ring, seat);
    }
}

/* The own stripe was taken: another one, or none. */
static void seat_park_elsewhere(keyring *ring, struct keyring_stripe *stripes, struct keyring_seat *seat)
{
    for (unsigned i = 0; i < KEYRING_STRIPES; i++) {
        struct keyring_seat *none = NULL;
        if (atomic_compare_exchange_strong(&stripes[i].seat, &none, seat))
            return;
    }
    seat_free(ring, seat);
}

static void seat_park(keyring *ring, struct keyring_seat *seat)
{
    struct keyring_dek *dek = seat->dek;
    struct keyring_stripe *stripes = atomic_load_explicit(&dek->stripes, memory_order_acquire);
    if (!stripes)
        stripes = stripes_make(dek);
    if (!stripes) {
        seat_free(ring, seat);
        return;
    }
    struct keyring_seat *other = atomic_exchange(&stripes[stripe_of_thread()].seat, seat);
    if (other)
        seat_park_elsewhere(ring, stripes, other);
    /* Dropped? Whoever dropped it may have looked before the seat was there. */
    if (!atomic_load(&dek->alive))
        keyring_seats_clear(ring, dek);
}

uint32_t keyring_seats_collect(struct keyring_dek *dek)
{
    struct keyring_stripe *stripes = atomic_load_explicit(&dek->stripes, memory_order_acquire);
    for (unsigned i = 0; stripes && i < KEYRING_STRIPES; i++) {
        struct keyring_seat *seat = atomic_exchange(&stripes[i].seat, NULL);
        if (!seat)
            continue;
        uint32_t messages = seat->messages;
        seat->messages = 0;
        seat_park(seat->dek->key->ring, seat);
        if (messages > 0)
            return messages;
    }
    return 0;
}

/* ---- leases ---- */

static void lease_flush_hits(keyring *ring, struct keyring_lease *lease)
{
    if (lease->hits > 0)
        atomic_fetch_add_explicit(&ring->lines[stripe_of_thread()].hits, lease->hits, memory_order_relaxed);
    lease->hits = 0;
}

void keyring_lease_end(keyring *ring, struct keyring_lease *lease)
{
    lease_flush_hits(ring, lease);
    struct keyring_seat *seat = lease->seat;
    if (seat) {
        bool ours = lease->generation == fork_generation();
        seat->gcm = lease->gcm;
        /* In a forked child they are the parent's to use. */
        seat->messages = ours ? lease->messages : 0;
        if (ours && seat->gcm)
            seat_park(ring, seat);
        else
            seat_free(ring, seat);
    }
    memset(lease, 0, sizeof *lease);
}

static void lease_fill(struct keyring_lease *lease, struct keyring_seat *seat)
{
    lease->seat = seat;
    lease->dek = seat->dek;
    lease->gcm = seat->gcm;
    lease->dek_id = seat->dek->dek_id;
    lease->messages = seat->messages;
    lease->generation = seat->generation;
    lease->key = NULL;
    lease->epoch = 0;
}

/* From a parked seat, without a look at the reference count. */
static void lease_take_parked(keyring *ring, uint32_t dek_id, struct keyring_lease *lease)
{
    if (dek_id == 0)
        return;
    struct keyring_dek *dek = keyring_cache_peek(ring, dek_id);
    struct keyring_seat *seat = dek ? seat_take(ring, dek) : NULL;
    if (!seat)
        return;
    if (seat->dek->dek_id == dek_id && keyring_dek_usable(seat->dek))
        lease_fill(lease, seat);
    else
        seat_park(ring, seat);
}

static envelope_status lease_adopt(keyring *ring, struct keyring_dek *dek, struct keyring_lease *lease)
{
    struct keyring_seat *seat = seat_new(dek);
    if (!seat) {
        keyring_dek_unref(ring, dek);
        return error_status();
    }
    lease_fill(lease, seat);
    return ENVELOPE_OK;
}

/*
 * The kernel zeroes DEKs in every forked child, also in one made behind pthread_atfork's back, where the generation
 * says nothing. Keying a context with zeros is the one thing that must not happen.
 */
static bool dek_is_wiped(const struct keyring_dek *dek)
{
    uint8_t seen = 0;
    for (size_t i = 0; i < HSM_DEK_SIZE; i++)
        seen |= dek->dek[i];
    return seen == 0;
}

/* The entry of dek_id with a reference, unwrapped if need be. */
static envelope_status dek_obtain(keyring *ring, uint32_t dek_id, int64_t now, struct keyring_dek **dek, bool *hit)
{
    *hit = false;
    struct keyring_dek *found = keyring_cache_find(ring, dek_id);
    if (!found)
        return keyring_unwrap_missing(ring, dek_id, dek);
    bool gone = dek_is_wiped(found);
    if (gone)
        keyring_dek_drop(ring, found);
    envelope_status status = gone ? ENVELOPE_OK : keyring_dek_check(ring, found, now, &gone);
    if (!status && !gone) {
        *dek = found;
        *hit = true;
        return ENVELOPE_OK;
    }
    keyring_dek_unref(ring, found);
    return status ? status : keyring_unwrap_missing(ring, dek_id, dek);
}

/* Make lease hold dek_id, checked. On error it is empty. */
static envelope_status lease_acquire(keyring *ring, uint32_t dek_id, int64_t now, struct keyring_lease *lease)
{
    if (lease->dek && (lease->dek_id != dek_id || lease->generation != fork_generation() || !lease->gcm ||
                       !keyring_dek_usable(lease->dek)))
        keyring_lease_end(ring, lease);
    if (!lease->dek)
        lease_take_parked(ring, dek_id, lease);
    if (lease->dek) {
        bool gone = false;
        envelope_status status = keyring_dek_check(ring, lease->dek, now, &gone);
        if (!status && !gone) {
            lease->hits++;
            return ENVELOPE_OK;
        }
        keyring_lease_end(ring, lease);
        if (status)
            return status;
    }
    struct keyring_dek *dek = NULL;
    bool hit = false;
    envelope_status status = dek_obtain(ring, dek_id, now, &dek, &hit);
    if (!status)
        status = lease_adopt(ring, dek, lease);
    if (!status && hit)
        lease->hits++;
    return status;
}

/* ---- begin ---- */

/* Nothing that the lease was checked for can have changed, as far as this process is to know. */
static inline bool lease_is_current(const keyring *ring, const struct keyring_lease *lease)
{
    int64_t now = clock_monotonic_coarse();
    return now < atomic_load_explicit(&ring->hot_until, memory_order_acquire) &&
           now < atomic_load_explicit(&lease->dek->fresh_until, memory_order_relaxed) &&
           lease->epoch == atomic_load_explicit(&ring->epoch, memory_order_relaxed) &&
           lease->generation == fork_generation() && lease->gcm;
}

static inline bool key_checked(const keyring_key *key, uint64_t epoch, uint32_t dek_id)
{
    return atomic_load_explicit(&key->epoch, memory_order_acquire) == epoch &&
           keyring_primary_open(atomic_load_explicit(&key->primary, memory_order_acquire)) == dek_id;
}

/*
 * Remember what the lease was checked against, so that the next message need not ask. While another thread reads what
 * is new in this epoch, this one went on with what was known, and must ask again: so the primary is compared here.
 */
static inline void lease_stamp(struct keyring_lease *lease, const keyring_key *key, uint64_t epoch)
{
    bool checked = atomic_load_explicit(&lease->dek->epoch, memory_order_acquire) == epoch &&
                   (!key || key_checked(key, epoch, lease->dek_id));
    lease->key = key;
    lease->epoch = checked ? epoch : 0;
}

/*
 * An empty lease, for programs that make a cipher context per message: the seat this thread parked last time, if all
 * that lease_is_current() asks is true of it. Without one the lease stays empty and the slow way finds out why.
 */
static inline void lease_take_warm(keyring *ring, uint32_t dek_id, const keyring_key *key, uint64_t epoch,
                                   struct keyring_lease *lease)
{
    struct keyring_dek *dek = keyring_cache_peek(ring, dek_id);
    struct keyring_stripe *stripes = dek ? atomic_load_explicit(&dek->stripes, memory_order_acquire) : NULL;
    if (!stripes)
        return;
    struct keyring_seat *seat = atomic_exchange_explicit(&stripes[stripe_of_thread()].seat, NULL, memory_order_acq_rel);
    if (!seat)
        return;
    if (seat->dek->dek_id == dek_id && seat->generation == fork_generation()) {
        lease_fill(lease, seat);
        lease_stamp(lease, key, epoch);
    } else if (seat->generation == fork_generation()) {
        seat_park(ring, seat);
    } else {
        seat_free(ring, seat);
    }
}

static envelope_status begin_entry(keyring *ring, struct keyring_lease *lease, int64_t *now)
{
    /* The lease may go back to its entry below, and is then no hit of this message. */
    lease_flush_hits(ring, lease);
    if (libctx_inside())
        return error_raise(ENVELOPE_E_RECURSION, "the token called back into Envelope");
    *now = clock_monotonic_coarse();
    return keyring_refresh(ring, *now);
}

/* Give the lease messages to use, rotating its key when the version nears its end. *again: there is a new primary. */
static envelope_status lease_count(keyring *ring, keyring_key *key, struct keyring_lease *lease, bool *again)
{
    *again = false;
    if (lease->messages > 0)
        return ENVELOPE_OK;
    envelope_status status = keyring_budget_draw(ring, lease);
    if (status && status != ENVELOPE_E_MESSAGE_LIMIT)
        return status;
    if (status || keyring_budget_is_low(lease->dek))
        keyring_budget_rotate(ring, key, lease->dek, status != ENVELOPE_OK, again);
    if (status && !*again)
        return keyring_budget_refuse(ring, lease->dek, false);
    return ENVELOPE_OK;
}

static envelope_status encrypt_begin_slowly(keyring *ring, keyring_key *key, struct keyring_lease *lease)
{
    int64_t now;
    envelope_status status = begin_entry(ring, lease, &now);
    for (int tries = 0; !status && tries < PRIMARY_TRIES; tries++) {
        uint64_t epoch = atomic_load_explicit(&ring->epoch, memory_order_acquire);
        uint32_t dek_id = 0;
        status = keyring_key_primary(ring, key, &dek_id);
        if (!status)
            status = lease_acquire(ring, dek_id, now, lease);
        bool again = false;
        if (!status)
            status = lease_count(ring, key, lease, &again);
        if (status)
            break;
        if (again)
            continue;
        lease->messages--;
        lease_stamp(lease, key, epoch);
        return ENVELOPE_OK;
    }
    if (!status)
        status = error_raise(ENVELOPE_E_STORE_CONFLICT,
                             "key \"%s\" was rotated faster than a message could be counted; is its message limit too "
                             "small?",
                             key->name);
    keyring_lease_end(ring, lease);
    return status;
}

/* As of the epoch, without asking; 0 if that must be asked. */
static inline uint32_t primary_known(const keyring_key *key, uint64_t epoch)
{
    if (atomic_load_explicit(&key->epoch, memory_order_acquire) != epoch)
        return 0;
    return keyring_primary_open(atomic_load_explicit(&key->primary, memory_order_acquire));
}

envelope_status keyring_encrypt_begin(keyring *ring, keyring_key *key, struct keyring_lease *lease)
{
    if (!lease->seat) {
        uint64_t epoch = atomic_load_explicit(&ring->epoch, memory_order_acquire);
        uint32_t dek_id = primary_known(key, epoch);
        if (dek_id)
            lease_take_warm(ring, dek_id, key, epoch, lease);
    }
    if (lease->key == key && lease->messages > 0 && lease_is_current(ring, lease)) {
        lease->messages--;
        lease->hits++;
        return ENVELOPE_OK;
    }
    return encrypt_begin_slowly(ring, key, lease);
}

static envelope_status version_begin_slowly(keyring *ring, uint32_t dek_id, bool encrypt, struct keyring_lease *lease)
{
    int64_t now;
    envelope_status status =
        dek_id == 0 ? error_raise(ENVELOPE_E_VERSION_UNKNOWN, "0 is no data key's id") : begin_entry(ring, lease, &now);
    uint64_t epoch = atomic_load_explicit(&ring->epoch, memory_order_acquire);
    if (!status)
        status = lease_acquire(ring, dek_id, now, lease);
    if (!status && encrypt && lease->messages == 0) {
        status = keyring_budget_draw(ring, lease);
        if (status == ENVELOPE_E_MESSAGE_LIMIT)
            status = keyring_budget_refuse(ring, lease->dek, true);
    }
    if (status) {
        keyring_lease_end(ring, lease);
        return status;
    }
    if (encrypt)
        lease->messages--;
    lease_stamp(lease, NULL, epoch);
    return ENVELOPE_OK;
}

envelope_status keyring_reference_begin(keyring *ring, uint32_t dek_id, bool encrypt, struct keyring_lease *lease)
{
    if (!lease->seat && dek_id)
        lease_take_warm(ring, dek_id, NULL, atomic_load_explicit(&ring->epoch, memory_order_acquire), lease);
    if (lease->dek && lease->dek_id == dek_id && (lease->messages > 0 || !encrypt) && lease_is_current(ring, lease)) {
        lease->messages -= encrypt;
        lease->hits++;
        return ENVELOPE_OK;
    }
    return version_begin_slowly(ring, dek_id, encrypt, lease);
}

envelope_status keyring_decrypt_begin(keyring *ring, uint32_t dek_id, struct keyring_lease *lease)
{
    return keyring_reference_begin(ring, dek_id, false, lease);
}

const keyring_key *keyring_lease_key(const struct keyring_lease *lease)
{
    return lease->dek ? lease->dek->key : NULL;
}

envelope_status keyring_lease_dek(const struct keyring_lease *lease, uint8_t dek[HSM_DEK_SIZE])
{
    if (!lease->dek || lease->generation != fork_generation() || dek_is_wiped(lease->dek))
        return error_raise(ENVELOPE_E_INTERNAL, "a data key was asked for without a current lease");
    memcpy(dek, lease->dek->dek, HSM_DEK_SIZE);
    return ENVELOPE_OK;
}
