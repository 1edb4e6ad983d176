/* Of the vendor interface: many pieces in few requests. */
#include "vendor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Memory, and how long a session can be busy. */
enum { ITEMS_MAX = 100000, AAD_LIMIT = 1 << 16 };

struct many {
    struct call *call;
    enum backend_op each;
    struct operation from, to; /* the keys; `to` for REWRAP only */
    CK_ENVELOPE_KMS_ITEM *items;
    size_t count;

    /* The items that the service is asked about, and which they are of the caller's */
    struct backend_item *pieces;
    size_t *index;
    size_t piece_count;

    /* The first item that failed, and what was said about it */
    size_t failed;
    CK_ENVELOPE_KMS_MESSAGE message;
};

static const char *key_to(const struct many *many)
{
    return many->each == BACKEND_REWRAP ? many->to.key_id : NULL;
}

/* --- failures --- */

/* Of several, the first of the caller's items is told about. */
static void fail_item(struct many *many, size_t number, CK_RV rv, const char *text)
{
    many->items[number].rv = rv;
    if (number >= many->failed)
        return;
    many->failed = number;
    many->message = many->call->asked ? many->call->session->message : (CK_ENVELOPE_KMS_MESSAGE){0};
    many->message.rv = rv;
    snprintf(many->message.text, sizeof many->message.text, "item %zu of %zu: %s", number + 1, many->count, text);
}

/* With what the service said of it alone, which it may have said while the call succeeded. */
static void fail_piece(struct many *many, size_t number, const struct backend_item *piece)
{
    CK_ENVELOPE_KMS_MESSAGE *message = &many->message;
    bool first = number < many->failed;
    fail_item(many, number, piece->rv, piece->text ? piece->text : "");
    if (first && piece->service_code)
        snprintf(message->service_code, sizeof message->service_code, "%s", piece->service_code);
    if (first && piece->service_message)
        snprintf(message->service_message, sizeof message->service_message, "%s", piece->service_message);
}

/* The service is gone, or refuses us altogether: nobody waits for that as often as there are items. */
static bool ends_everything(CK_RV rv, const struct backend_call *request)
{
    return rv == CKR_HOST_MEMORY || rv == CKR_TOKEN_NOT_RECOGNIZED || rv == CKR_DEVICE_REMOVED ||
           error_status() == ENVELOPE_E_HSM_UNAVAILABLE ||
           (rv == CKR_USER_NOT_LOGGED_IN && !*request->service_code); /* no credentials were to be had */
}

static void fail_rest(struct many *many, size_t from, CK_RV rv)
{
    for (size_t i = from; i < many->piece_count; i++)
        if (!many->pieces[i].settled)
            fail_item(many, many->index[i], rv, error_text());
}

/* --- asking --- */

static void give(struct many *many, size_t number, const struct backend_item *piece, const uint8_t *bytes)
{
    CK_ENVELOPE_KMS_ITEM *item = &many->items[number];
    item->plaintext_left = piece->plaintext_left ? CK_TRUE : CK_FALSE;
    item->rv = call_output(bytes, piece->out_length, item->out, &item->out_len);
    if (item->rv != CKR_OK)
        fail_item(many, number, item->rv, "its room is too small");
}

static void settle(struct many *many, size_t i, const struct buffer *out)
{
    const struct backend_item *piece = &many->pieces[i];
    if (!piece->settled)
        return;
    if (piece->rv == CKR_OK)
        give(many, many->index[i], piece, piece->out_length ? out->bytes + piece->out_at : NULL);
    else
        fail_piece(many, many->index[i], piece);
}

/* As many pieces from `from` on as one request takes: at least one. */
static size_t fitting(const struct many *many, size_t from)
{
    const struct backend *backend = many->call->token->backend;
    size_t number = 0, bytes = 0;
    for (size_t i = from; i < many->piece_count && number < backend->batch_items; i++, number++) {
        const struct backend_item *piece = &many->pieces[i];
        bytes += piece->in_length + piece->aad_length + piece->aad_to_length;
        if (number && bytes > backend->batch_bytes)
            break;
    }
    return number;
}

static CK_RV ask_batch(struct many *many, size_t from, size_t number)
{
    struct backend_call request = {.op = BACKEND_BATCH,
                                   .each = many->each,
                                   .key = many->from.key_id,
                                   .key_to = key_to(many),
                                   .items = many->pieces + from,
                                   .item_count = number};
    CK_RV rv = call_run(many->call, &request);
    for (size_t i = from; i < from + number; i++)
        settle(many, i, &request.out);
    if (rv != CKR_OK)
        fail_rest(many, from, rv);
    backend_call_clear(&request);
    return rv;
}

static CK_RV ask_one(struct many *many, size_t i)
{
    struct backend_item *piece = &many->pieces[i];
    struct backend_call request = {.op = many->each,
                                   .key = many->from.key_id,
                                   .key_to = key_to(many),
                                   .has_aad = piece->aad_length > 0,
                                   .aad = piece->aad,
                                   .aad_length = piece->aad_length,
                                   .has_aad_to = piece->aad_to_length > 0,
                                   .aad_to = piece->aad_to,
                                   .aad_to_length = piece->aad_to_length,
                                   .in = piece->in,
                                   .in_length = piece->in_length,
                                   .dry_run = piece->dry_run};
    CK_RV rv = call_run(many->call, &request);
    bool ends = rv != CKR_OK && ends_everything(rv, &request);
    piece->out_length = request.out.length;
    piece->plaintext_left = request.plaintext_left;
    if (rv != CKR_OK)
        backend_fail_item(piece, rv, error_status());
    piece->settled = true;
    settle(many, i, &request.out);
    if (ends)
        fail_rest(many, i + 1, rv);
    backend_call_clear(&request);
    return ends ? rv : CKR_OK;
}

static void ask(struct many *many)
{
    bool batches = many->call->token->backend->batch_items > 0;
    CK_RV rv = CKR_OK;
    for (size_t i = 0, number; i < many->piece_count && rv == CKR_OK; i += number) {
        number = batches ? fitting(many, i) : 1;
        rv = batches ? ask_batch(many, i, number) : ask_one(many, i);
    }
}

/* --- what is asked --- */

static bool params_are_sane(const CK_ENVELOPE_KMS_PARAMS *params)
{
    return !params || ((params->pAAD || !params->ulAADLen) && params->ulAADLen <= AAD_LIMIT &&
                       !(params->flags & ~CKF_ENVELOPE_KMS_DRY_RUN));
}

/* CKR_OK, or why the service need not be asked. */
static CK_RV check_item(const struct many *many, const CK_ENVELOPE_KMS_ITEM *item, const char **problem)
{
    const struct backend *backend = many->call->token->backend;
    bool encrypt = many->each == BACKEND_ENCRYPT;
    *problem = "no AAD at its pointer, too much of it, or an unknown flag";
    if (!params_are_sane(item->params) || !params_are_sane(item->to_params))
        return CKR_MECHANISM_PARAM_INVALID;
    *problem = "to_params are for CK_ENVELOPE_KMS_REWRAP only";
    if (item->to_params && many->each != BACKEND_REWRAP)
        return CKR_MECHANISM_PARAM_INVALID;
    *problem = "there is no input";
    if (!item->in)
        return CKR_ARGUMENTS_BAD;
    *problem = encrypt ? "its length is not one that the key encrypts" : "no blob of this token has its length";
    if (!item->in_len || item->in_len > (encrypt ? backend->max_plaintext : backend->max_ciphertext))
        return encrypt ? CKR_DATA_LEN_RANGE : CKR_ENCRYPTED_DATA_LEN_RANGE;
    return CKR_OK;
}

static struct backend_item piece_of(const CK_ENVELOPE_KMS_ITEM *item)
{
    const CK_ENVELOPE_KMS_PARAMS *from = item->params, *to = item->to_params;
    return (struct backend_item){.aad = from ? from->pAAD : NULL,
                                 .aad_length = from ? from->ulAADLen : 0,
                                 .aad_to = to ? to->pAAD : NULL,
                                 .aad_to_length = to ? to->ulAADLen : 0,
                                 .in = item->in,
                                 .in_length = item->in_len,
                                 .dry_run =
                                     ((from ? from->flags : 0) | (to ? to->flags : 0)) & CKF_ENVELOPE_KMS_DRY_RUN};
}

static void collect(struct many *many)
{
    const struct backend *backend = many->call->token->backend;
    for (size_t i = 0; i < many->count; i++) {
        CK_ENVELOPE_KMS_ITEM *item = &many->items[i];
        const char *problem;
        item->plaintext_left = CK_FALSE;
        item->rv = check_item(many, item, &problem);
        if (item->rv != CKR_OK) {
            fail_item(many, i, item->rv, problem);
        } else if (!item->out) {
            item->out_len = many->each == BACKEND_DECRYPT ? item->in_len : backend->max_ciphertext;
        } else {
            many->index[many->piece_count] = i;
            many->pieces[many->piece_count++] = piece_of(item);
        }
    }
}

static CK_RV run(struct many *many)
{
    many->pieces = calloc(many->count, sizeof *many->pieces);
    many->index = calloc(many->count, sizeof *many->index);
    CK_RV rv = CKR_HOST_MEMORY;
    many->failed = many->count;
    if (many->pieces && many->index) {
        collect(many);
        ask(many);
        rv = CKR_OK;
    } else {
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for %zu items", many->count);
    }
    for (size_t i = 0; many->pieces && i < many->piece_count; i++)
        backend_item_reset(&many->pieces[i]);
    free(many->pieces);
    free(many->index);
    if (many->failed == many->count)
        return rv;
    error_raise(ENVELOPE_E_HSM, "%s", many->message.text);
    many->call->session->message = many->message;
    many->call->asked = true; /* the message stands */
    return many->message.rv;
}

static CK_RV prepare(struct many *many, CK_OBJECT_HANDLE from, CK_OBJECT_HANDLE to)
{
    enum operation_kind kind = many->each == BACKEND_ENCRYPT ? OPERATION_ENCRYPT : OPERATION_DECRYPT;
    CK_RV rv = vendor_prepare(many->call, &many->from, kind, NULL, from);
    if (rv != CKR_OK || many->each != BACKEND_REWRAP)
        return rv;
    rv = vendor_prepare(many->call, &many->to, OPERATION_ENCRYPT, NULL, to);
    if (rv != CKR_OK)
        operation_clear(&many->from);
    return rv;
}

CK_RV vendor_crypt_many(CK_SESSION_HANDLE session, unsigned long operation, CK_OBJECT_HANDLE key,
                        CK_OBJECT_HANDLE key_to_handle, CK_ENVELOPE_KMS_ITEM *items, unsigned long count,
                        unsigned long item_size)
{
    static const enum backend_op operations[] = {[CK_ENVELOPE_KMS_ENCRYPT] = BACKEND_ENCRYPT,
                                                 [CK_ENVELOPE_KMS_DECRYPT] = BACKEND_DECRYPT,
                                                 [CK_ENVELOPE_KMS_REWRAP] = BACKEND_REWRAP};
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!items || item_size != sizeof *items || operation < CK_ENVELOPE_KMS_ENCRYPT ||
        operation > CK_ENVELOPE_KMS_REWRAP || (key_to_handle && operation != CK_ENVELOPE_KMS_REWRAP))
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    if (!count || count > ITEMS_MAX)
        return call_leave(&call, call_refuse(CKR_ARGUMENTS_BAD, "%lu items; 1 to %d can be given", count, ITEMS_MAX));
    struct many many = {.call = &call, .each = operations[operation], .items = items, .count = count};
    rv = prepare(&many, key, key_to_handle);
    if (rv == CKR_OK) {
        rv = run(&many);
        operation_clear(&many.from);
        operation_clear(&many.to);
    }
    return call_leave(&call, rv);
}

CK_RV vendor_batch_size(CK_SESSION_HANDLE session, unsigned long *pieces)
{
    struct call call;
    CK_RV rv = call_enter(&call, session);
    if (rv != CKR_OK)
        return rv;
    if (!pieces)
        return call_leave(&call, CKR_ARGUMENTS_BAD);
    size_t most = call.token->backend->batch_items;
    *pieces = most > 1 ? (CK_ULONG)most : 1;
    return call_leave(&call, CKR_OK);
}
