/* Moving a wrapped DEK from one KEK to another. */
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/error.h"
#include "base/secmem.h"
#include "hsm/instance.h"
#include "hsm/service.h"

struct moving {
    const struct hsm_rewrap *move;
    struct hsm_kek *to;
    bool apart;    /* they have no service in common that could do it */
    bool inside;   /* the DEK never left the service */
    uint8_t *blob; /* HSM_BLOB_HEADER + HSM_BODY_MAX */
    size_t length;
};

envelope_status hsm_rewrap_target(const struct hsm_wrap *from, struct hsm_kek *kek, struct hsm_wrap *to, bool *service)
{
    enum hsm_mechanism mechanism = 0;
    *to = (struct hsm_wrap){.kek = kek, .session = from->session};
    envelope_status status = hsm_kek_resolve(kek, from->session, &to->view);
    if (status == ENVELOPE_OK)
        status = hsm_kek_check_fit(to);
    if (status == ENVELOPE_OK)
        status = hsm_kek_mechanism(kek, &to->view, &mechanism);
    *service = mechanism == HSM_KEY_SERVICE && from->view.has_service;
    return status;
}

/* Where a DEK is while it passes through this process, and what unwraps of what was made of it. */
struct passing {
    uint8_t *dek, *again;
    uint8_t *own; /* both, if the caller gave none */
};

static envelope_status passing_begin(const struct hsm_rewrap *move, struct passing *passing)
{
    *passing = (struct passing){.dek = move->dek, .again = move->again};
    if (passing->dek && passing->again)
        return ENVELOPE_OK;
    passing->own = secmem_alloc((size_t)2 * HSM_DEK_SIZE);
    if (!passing->own)
        return error_status();
    passing->dek = passing->own;
    passing->again = passing->own + HSM_DEK_SIZE;
    return ENVELOPE_OK;
}

static envelope_status passing_end(const struct passing *passing, envelope_status status, const char *who)
{
    if (status == ENVELOPE_OK && CRYPTO_memcmp(passing->dek, passing->again, HSM_DEK_SIZE) != 0)
        status = error_raise(ENVELOPE_E_UNWRAP, "the %s unwraps another key than it wrapped", who);
    secmem_wipe(passing->dek, HSM_DEK_SIZE);
    secmem_wipe(passing->again, HSM_DEK_SIZE);
    secmem_free(passing->own);
    return status;
}

/* What the module made of a DEK that left the service: it must be the same one. */
static envelope_status compare(struct hsm_wrap *from, struct hsm_wrap *to, const struct moving *job, size_t made)
{
    const struct hsm_rewrap *move = job->move;
    struct passing passing;
    envelope_status status = passing_begin(move, &passing);
    if (status != ENVELOPE_OK)
        return status;
    status = hsm_service_unwrap(from, move->blob + HSM_BLOB_HEADER, move->blob_length - HSM_BLOB_HEADER, passing.dek);
    if (status == ENVELOPE_OK)
        status = hsm_service_unwrap(to, job->blob + HSM_BLOB_HEADER, made, passing.again);
    return passing_end(&passing, status, "service");
}

/*
 * One service has both KEKs: it moves the DEK. Before that is believed it is asked whether it would open what it made,
 * or, where the DEK left it, to open both.
 */
static envelope_status move_inside(struct hsm_wrap *from, void *argument)
{
    struct moving *job = argument;
    const struct hsm_rewrap *move = job->move;
    struct hsm_wrap to;
    bool service = false;
    envelope_status status = hsm_rewrap_target(from, job->to, &to, &service);
    if (status != ENVELOPE_OK)
        return status;
    job->apart = !service;
    if (job->apart)
        return ENVELOPE_OK;
    to.aad = move->aad_to;
    to.aad_length = move->aad_to_length;
    from->aad = move->aad_from;
    from->aad_length = move->aad_from_length;
    size_t made = 0;
    status = hsm_service_rewrap(from, &to, move->blob + HSM_BLOB_HEADER, move->blob_length - HSM_BLOB_HEADER,
                                job->blob + HSM_BLOB_HEADER, &made, &job->inside);
    if (status == ENVELOPE_OK)
        status = job->inside ? hsm_service_try(&to, job->blob + HSM_BLOB_HEADER, made) : compare(from, &to, job, made);
    if (status != ENVELOPE_OK)
        return status;
    job->blob[0] = HSM_BLOB_FORMAT;
    job->blob[1] = HSM_KEY_SERVICE;
    job->length = HSM_BLOB_HEADER + made;
    return ENVELOPE_OK;
}

static envelope_status rewrap_inside(hsm *instance, struct moving *job)
{
    struct hsm_kek *from = NULL;
    const struct hsm_rewrap *move = job->move;
    int64_t deadline = hsm_deadline(instance);
    envelope_status status = hsm_enter();
    if (status == ENVELOPE_OK)
        status = hsm_kek_get(instance, move->from, deadline, &from);
    if (status == ENVELOPE_OK)
        status = hsm_kek_get(instance, move->to, deadline, &job->to);
    if (status != ENVELOPE_OK)
        return status;
    job->apart = from->token != job->to->token || !from->token->module->service ||
                 move->blob_length <= HSM_BLOB_HEADER || move->blob_length > HSM_BLOB_HEADER + HSM_BODY_MAX ||
                 move->blob[0] != HSM_BLOB_FORMAT || move->blob[1] != HSM_KEY_SERVICE;
    return job->apart ? ENVELOPE_OK : hsm_run(instance, move->from, false, move_inside, job);
}

/* Unwrapped and wrapped again here, in locked memory; what was made must give the same DEK before it is believed. */
static envelope_status rewrap_here(hsm *instance, const struct hsm_rewrap *move, uint8_t **made, size_t *made_length)
{
    struct passing passing;
    uint8_t *blob = NULL;
    size_t length = 0;
    envelope_status status = passing_begin(move, &passing);
    if (status != ENVELOPE_OK)
        return status;
    status = hsm_unwrap_part(instance, move->from, move->aad_from, move->aad_from_length, move->blob, move->blob_length,
                             passing.dek);
    if (status == ENVELOPE_OK)
        status = hsm_wrap_part(instance, move->to, move->aad_to, move->aad_to_length, passing.dek, &blob, &length);
    if (status == ENVELOPE_OK)
        status = hsm_unwrap_part(instance, move->to, move->aad_to, move->aad_to_length, blob, length, passing.again);
    status = passing_end(&passing, status, "token");
    if (status != ENVELOPE_OK) {
        free(blob);
        return status;
    }
    *made = blob;
    *made_length = length;
    return ENVELOPE_OK;
}

envelope_status hsm_rewrap(hsm *instance, const struct hsm_rewrap *move, uint8_t **made, size_t *made_length,
                           bool *inside)
{
    uint8_t space[HSM_BLOB_HEADER + HSM_BODY_MAX];
    struct moving job = {.move = move, .blob = space};
    *inside = false;
    hsm_requests_forget();
    envelope_status status = rewrap_inside(instance, &job);
    if (status == ENVELOPE_OK && job.apart)
        status = rewrap_here(instance, move, made, made_length);
    else if (status == ENVELOPE_OK) {
        *made = malloc(job.length);
        if (!*made)
            return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a wrapped data key");
        memcpy(*made, space, job.length);
        *made_length = job.length;
        *inside = job.inside;
    }
    if (status == ENVELOPE_OK)
        atomic_fetch_add(&instance->counts.rewraps, 1);
    return status;
}
