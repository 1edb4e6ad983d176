/* Moving several wrapped DEKs from one KEK to another of the same key service, in few requests. */
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/error.h"
#include "base/secmem.h"
#include "hsm/instance.h"
#include "hsm/service.h"

/* Of the vendor interface: crypt_many is there since then. */
enum { MANY_MINOR = 1 };

struct many {
    struct hsm_kek *to;
    struct hsm_rewrap_item *items;
    size_t count;
    bool possible;
    uint8_t *deks;  /* count DEKs, then count that were unwrapped again; secret memory */
    uint8_t *space; /* count bodies of HSM_BODY_MAX */
    CK_ENVELOPE_KMS_PARAMS *from_params, *to_params;
    CK_ENVELOPE_KMS_ITEM *asked;
    size_t *index; /* which item an asked one is */
};

static bool is_service_blob(const struct hsm_rewrap_item *item)
{
    return item->blob_length > HSM_BLOB_HEADER && item->blob_length <= HSM_BLOB_HEADER + HSM_BODY_MAX &&
           item->blob[0] == HSM_BLOB_FORMAT && item->blob[1] == HSM_KEY_SERVICE;
}

/* Ask about those in asked, and note what the service calls it. What failed leaves the list. Returns how many are left.
 */
static size_t ask(struct many *many, struct hsm_session *session, unsigned long operation, CK_OBJECT_HANDLE key,
                  size_t count)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++)
        many->asked[i].rv = CKR_FUNCTION_CANCELED; /* unless the service says otherwise */
    if (count == 0)
        return 0;
    CK_RV rv = HSM_SERVICE_CALL(session, crypt_many, operation, key, CK_INVALID_HANDLE, many->asked, count,
                                sizeof *many->asked);
    for (size_t i = 0; i < count; i++) {
        size_t length = many->asked[i].out_len;
        bool fits = operation == CK_ENVELOPE_KMS_DECRYPT ? length == HSM_DEK_SIZE : length <= HSM_BODY_MAX;
        if (many->asked[i].rv != CKR_OK || !fits)
            continue;
        many->asked[left] = many->asked[i];
        many->index[left++] = many->index[i];
    }
    if (rv == CKR_OK || left > 0)
        hsm_service_note(session);
    return left;
}

static size_t collect(struct many *many)
{
    size_t count = 0;
    for (size_t i = 0; i < many->count; i++) {
        struct hsm_rewrap_item *item = &many->items[i];
        if (!is_service_blob(item))
            continue;
        many->from_params[i] =
            (CK_ENVELOPE_KMS_PARAMS){.pAAD = (CK_BYTE *)(uintptr_t)item->aad_from, .ulAADLen = item->aad_from_length};
        many->to_params[i] =
            (CK_ENVELOPE_KMS_PARAMS){.pAAD = (CK_BYTE *)(uintptr_t)item->aad_to, .ulAADLen = item->aad_to_length};
        many->index[count] = i;
        many->asked[count++] = (CK_ENVELOPE_KMS_ITEM){.params = &many->from_params[i],
                                                      .in = item->blob + HSM_BLOB_HEADER,
                                                      .in_len = item->blob_length - HSM_BLOB_HEADER,
                                                      .out = many->deks + i * HSM_DEK_SIZE,
                                                      .out_len = HSM_DEK_SIZE};
    }
    return count;
}

/* What came out of the last request goes into the next. */
static void turn(struct many *many, size_t count, uint8_t *out, size_t room)
{
    for (size_t i = 0; i < count; i++) {
        CK_ENVELOPE_KMS_ITEM *item = &many->asked[i];
        size_t n = many->index[i];
        *item = (CK_ENVELOPE_KMS_ITEM){.params = &many->to_params[n],
                                       .in = item->out,
                                       .in_len = item->out_len,
                                       .out = out + n * room,
                                       .out_len = room};
    }
}

static envelope_status keep(struct many *many, size_t n, const uint8_t *body, size_t length)
{
    struct hsm_rewrap_item *item = &many->items[n];
    uint8_t *made = malloc(HSM_BLOB_HEADER + length);
    if (!made)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a wrapped data key");
    made[0] = HSM_BLOB_FORMAT;
    made[1] = HSM_KEY_SERVICE;
    memcpy(made + HSM_BLOB_HEADER, body, length);
    free(item->made); /* of a session that was lost meanwhile */
    item->made = made;
    item->made_length = HSM_BLOB_HEADER + length;
    return ENVELOPE_OK;
}

static envelope_status move_many(struct hsm_wrap *from, void *argument)
{
    struct many *many = argument;
    struct hsm_wrap to;
    bool service = false;
    envelope_status status = hsm_rewrap_target(from, many->to, &to, &service);
    if (status != ENVELOPE_OK)
        return status;
    /* Asked about each piece, a service gains nothing, and what a crash leaves undone would only be more. */
    CK_ULONG pieces = 1;
    many->possible = service && HSM_SERVICE_CALL(from->session, batch_size, &pieces) == CKR_OK && pieces > 1;
    if (!many->possible)
        return ENVELOPE_OK;
    uint8_t *again = many->deks + many->count * HSM_DEK_SIZE;
    hsm_requests_forget();
    size_t left = ask(many, from->session, CK_ENVELOPE_KMS_DECRYPT, from->view.key, collect(many));
    turn(many, left, many->space, HSM_BODY_MAX);
    left = ask(many, from->session, CK_ENVELOPE_KMS_ENCRYPT, to.view.key, left);
    turn(many, left, again, HSM_DEK_SIZE);
    left = ask(many, from->session, CK_ENVELOPE_KMS_DECRYPT, to.view.key, left);
    for (size_t i = 0; i < left && status == ENVELOPE_OK; i++) {
        size_t n = many->index[i];
        if (CRYPTO_memcmp(many->deks + n * HSM_DEK_SIZE, again + n * HSM_DEK_SIZE, HSM_DEK_SIZE) == 0)
            status = keep(many, n, many->asked[i].in, many->asked[i].in_len);
    }
    return status;
}

static bool are_for_many(const struct hsm_kek *from, const struct hsm_kek *to)
{
    const CK_ENVELOPE_KMS_FUNCTIONS *service = from->token->module->service;
    return from->token == to->token && service && service->version.minor >= MANY_MINOR && service->crypt_many &&
           service->batch_size;
}

static bool make_room(struct many *many)
{
    many->deks = secmem_alloc(2 * many->count * HSM_DEK_SIZE);
    many->space = malloc(many->count * HSM_BODY_MAX);
    many->from_params = calloc(many->count, sizeof *many->from_params);
    many->to_params = calloc(many->count, sizeof *many->to_params);
    many->asked = calloc(many->count, sizeof *many->asked);
    many->index = calloc(many->count, sizeof *many->index);
    return many->deks && many->space && many->from_params && many->to_params && many->asked && many->index;
}

static void give_back(struct many *many)
{
    secmem_free(many->deks);
    free(many->space);
    free(many->from_params);
    free(many->to_params);
    free(many->asked);
    free(many->index);
}

bool hsm_rewrap_many(hsm *instance, const char *from_uri, const char *to_uri, struct hsm_rewrap_item *items,
                     size_t count)
{
    struct many many = {.items = items, .count = count < HSM_REWRAP_MANY ? count : HSM_REWRAP_MANY, .possible = true};
    struct hsm_kek *from = NULL;
    int64_t deadline = hsm_deadline(instance);
    hsm_requests_forget();
    for (size_t i = 0; i < count; i++)
        items[i].made = NULL;
    if (hsm_enter() || hsm_kek_get(instance, from_uri, deadline, &from) ||
        hsm_kek_get(instance, to_uri, deadline, &many.to))
        return true;
    if (!are_for_many(from, many.to))
        return false;
    if (many.count > 0 && make_room(&many))
        (void)hsm_run(instance, from_uri, false, move_many,
                      &many); /* what is not made is asked for singly, and says why */
    give_back(&many);
    for (size_t i = 0; i < many.count; i++)
        atomic_fetch_add(&instance->counts.rewraps, items[i].made ? 1 : 0);
    return many.possible;
}
