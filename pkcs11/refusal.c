#include "refusal.h"

#include <string.h>

#include "base/error.h"

static const struct refusal no_token = {"", BACKEND_REAUTH, CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN,
                                        "the access token is not accepted"};
const struct refusal refusal_unknown = {"", BACKEND_FAILED, CKR_DEVICE_ERROR, ENVELOPE_E_HSM,
                                        "an error we do not know"};
static const struct refusal failing = {"", BACKEND_RETRY, CKR_DEVICE_ERROR, ENVELOPE_E_HSM_UNAVAILABLE,
                                       "the service failed"};

static bool is_among(const char *codes, const char *code)
{
    size_t length = strlen(code);
    for (const char *at = codes; *at; at += strcspn(at, " "), at += strspn(at, " "))
        if (strcspn(at, " ") == length && memcmp(at, code, length) == 0)
            return true;
    return false;
}

const struct refusal *refusal_find(const struct refusal *table, size_t count, const char *code)
{
    for (size_t i = 0; code && i < count; i++)
        if (is_among(table[i].codes, code))
            return &table[i];
    return NULL;
}

const struct refusal *refusal_by_status(long status)
{
    if (status == 401)
        return &no_token;
    return status >= 500 || status == 429 || status == 408 ? &failing : &refusal_unknown;
}

enum backend_step refusal_raise(struct backend_call *call, const struct refusal *refusal,
                                const struct refusal_place *place)
{
    error_raise(refusal->status, "[token %s] %s %s%s%s: %s (%s, HTTP %ld)%s%s", place->label, place->service,
                place->doing, *place->key ? " with key " : "", place->key, refusal->advice,
                *call->service_code ? call->service_code : "no error name", place->status,
                *call->service_message ? ": " : "", call->service_message);
    call->rv = refusal->rv;
    return refusal->step;
}

enum backend_step refusal_forget(struct backend_call *call, enum backend_step step)
{
    if (step == BACKEND_DONE) {
        call->rv = CKR_OK;
        call->service_code[0] = call->service_message[0] = '\0';
    }
    return step;
}
