/*
 * Many pieces in one request (batch_input): decrypt, encrypt, rewrap. What the engine's own rewrap cannot move is
 * decrypted and encrypted, so that a batch takes at most four requests: rewrap, decrypt, read the key, encrypt.
 */
#include "bao.h"

#include <string.h>

#include "base/error.h"

enum stage { BATCH_REWRAP = 1, BATCH_DECRYPT, BATCH_KEY, BATCH_ENCRYPT };

static const char *const verbs[] = {
    [BATCH_REWRAP] = "rewrap", [BATCH_DECRYPT] = "decrypt", [BATCH_KEY] = "read", [BATCH_ENCRYPT] = "encrypt"};
static const char *const doings[] = {[BATCH_REWRAP] = "rewrap with key",
                                     [BATCH_DECRYPT] = "decrypt with key",
                                     [BATCH_KEY] = "read key",
                                     [BATCH_ENCRYPT] = "encrypt with key"};

static const char *key_of(const struct backend_call *call, enum stage stage)
{
    return call->each == BACKEND_REWRAP && stage >= BATCH_KEY ? call->key_to : call->key;
}

static bool goes_inside(const struct backend_call *call, const struct backend_item *item)
{
    return call->each == BACKEND_REWRAP &&
           bao_rewraps_inside(call->key, call->key_to, item->aad_length, item->aad_to_length);
}

/* Is it one of those that this stage is about? After the first stages, all that are not settled are. */
static bool takes_part(const struct backend_call *call, enum stage stage, const struct backend_item *item)
{
    return !item->settled && (stage != BATCH_REWRAP || goes_inside(call, item));
}

static size_t taking_part(const struct backend_call *call, enum stage stage)
{
    size_t count = 0;
    for (size_t i = 0; i < call->item_count; i++)
        count += takes_part(call, stage, &call->items[i]);
    return count;
}

/* ---- requests ---- */

/* What is encrypted: the caller's bytes, or those that a rewrap's decryption left in the work's memory. */
static const uint8_t *plain_of(const struct backend_call *call, const struct backend_item *item, size_t *length)
{
    const struct bao_work *work = call->work;
    *length = call->each == BACKEND_REWRAP ? item->out_length : item->in_length;
    if (call->each != BACKEND_REWRAP)
        return item->in;
    return work->secret.bytes ? work->secret.bytes + item->out_at : NULL;
}

static void append_base64(struct buffer *to, const uint8_t *bytes, size_t count)
{
    buffer_append_text(to, "\"");
    buffer_append_base64(to, bytes, count);
    buffer_append_text(to, "\"");
}

static void append_item(struct buffer *body, const struct backend_call *call, enum stage stage,
                        const struct backend_item *item)
{
    bool moved = call->each == BACKEND_REWRAP && stage == BATCH_ENCRYPT;
    const uint8_t *aad = moved ? item->aad_to : item->aad;
    size_t aad_length = moved ? item->aad_to_length : item->aad_length, length;
    if (stage == BATCH_ENCRYPT) {
        const uint8_t *plain = plain_of(call, item, &length);
        buffer_append_text(body, "{\"plaintext\":");
        append_base64(body, plain, length);
    } else {
        buffer_append_text(body, "{\"ciphertext\":\"");
        buffer_append(body, item->in, item->in_length);
        buffer_append_text(body, "\"");
    }
    if (aad_length) {
        buffer_append_text(body, ",\"associated_data\":");
        append_base64(body, aad, aad_length);
    }
    buffer_append_text(body, "}");
}

static enum backend_step send_batch(const struct bao *bao, struct backend_call *call, struct http_request *request,
                                    enum stage stage)
{
    bool first = true;
    if (!bao_request(bao, call, request, HTTP_POST, NULL, "%s/%s/%s", bao->mount, verbs[stage], key_of(call, stage)))
        return BACKEND_FAILED;
    buffer_append_text(&request->body, "\"batch_input\":[");
    for (size_t i = 0; i < call->item_count; i++) {
        if (!takes_part(call, stage, &call->items[i]))
            continue;
        buffer_append_text(&request->body, first ? "" : ",");
        append_item(&request->body, call, stage, &call->items[i]);
        first = false;
    }
    buffer_append_text(&request->body, "]");
    return bao_send(call, request, stage);
}

/* From one stage to the next that has anything to do. */
static enum backend_step advance(const struct bao *bao, struct backend_call *call, struct http_request *request,
                                 enum stage stage)
{
    if (stage == BATCH_REWRAP && !taking_part(call, stage))
        stage = BATCH_DECRYPT;
    if (!taking_part(call, stage))
        return BACKEND_DONE;
    if (stage == BATCH_KEY)
        return bao_send_read_key(bao, call, request, key_of(call, stage), stage);
    return send_batch(bao, call, request, stage);
}

/* What cannot be the engine's ciphertext is not sent: one such piece would spoil the JSON of all. */
static void check_item(const struct bao *bao, const struct backend_call *call, struct backend_item *item)
{
    backend_item_reset(item);
    if (call->each == BACKEND_ENCRYPT) {
        if (item->in_length > BAO_PLAINTEXT_MAX)
            backend_fail_item(item, CKR_DATA_LEN_RANGE,
                              error_raise(ENVELOPE_E_DATA_TOO_LONG,
                                          "OpenBao token \"%s\": %zu bytes are too many for one encryption; the limit "
                                          "is %d",
                                          bao->settings->label, item->in_length, (int)BAO_PLAINTEXT_MAX));
        return;
    }
    if (item->in_length > BAO_CIPHERTEXT_MAX || !bao_ciphertext_payload((const char *)item->in, item->in_length))
        backend_fail_item(item, CKR_ENCRYPTED_DATA_INVALID,
                          error_raise(ENVELOPE_E_UNWRAP,
                                      "OpenBao token \"%s\": this is no ciphertext of key \"%s\": it does not begin "
                                      "with vault:vN:",
                                      bao->settings->label, call->key));
}

static enum backend_step begin(const struct bao *bao, struct backend_call *call, struct http_request *request)
{
    struct bao_work *work = bao_work(call);
    if (!work)
        return BACKEND_FAILED;
    buffer_clear(&work->secret);
    if (!bao_is_key_name(call->key))
        return bao_refuse_name(bao, call, call->key);
    if (call->each == BACKEND_REWRAP && !bao_is_key_name(call->key_to))
        return bao_refuse_name(bao, call, call->key_to);
    for (size_t i = 0; i < call->item_count; i++)
        check_item(bao, call, &call->items[i]);
    return advance(bao, call, request,
                   call->each == BACKEND_ENCRYPT   ? BATCH_KEY
                   : call->each == BACKEND_DECRYPT ? BATCH_DECRYPT
                                                   : BATCH_REWRAP);
}

/* ---- replies ---- */

static bool take_ciphertext(struct backend_call *call, const json_t *result, struct backend_item *item)
{
    const char *text = bao_ciphertext_of(result);
    if (!text)
        return false;
    item->out_at = call->out.length;
    item->out_length = item->dry_run ? 0 : strlen(text);
    if (!item->dry_run)
        buffer_append_text(&call->out, text);
    item->settled = true;
    return true;
}

/* For a rewrap it is on its way only. */
static bool take_plaintext(struct backend_call *call, const json_t *result, struct backend_item *item)
{
    struct bao_work *work = call->work;
    bool moving = call->each == BACKEND_REWRAP;
    struct buffer *to = moving ? &work->secret : &call->out;
    item->out_at = to->length;
    bool taken = bao_take_plaintext(call, result, to);
    if (!taken || (item->dry_run && !moving))
        buffer_truncate(to, item->out_at);
    item->out_length = to->length - item->out_at;
    item->plaintext_left = taken && moving;
    item->settled = taken && !moving;
    return taken;
}

static void take_item(const struct bao *bao, struct backend_call *call, enum stage stage, const json_t *result,
                      struct backend_item *item)
{
    const char *words = json_member(result, "error");
    if (words && *words) {
        bao_refuse_item(bao, call, item, words, doings[stage], key_of(call, stage));
        return;
    }
    if (stage == BATCH_DECRYPT ? take_plaintext(call, result, item) : take_ciphertext(call, result, item))
        return;
    bao_malformed(call, doings[stage], key_of(call, stage), "result for one item");
    backend_fail_item(item, CKR_DEVICE_ERROR, error_status());
}

/*
 * The results of a batch. They come with 200, with 400 as soon as one piece was refused (or with what the caller of the
 * engine set as partial_failure_response_code: nothing here), with 500 if the engine failed at one: the status does
 * not matter where there is a result for each.
 */
static const json_t *results_of(struct backend_call *call, const struct http_reply *reply, size_t wanted)
{
    if (reply->status != 200 && reply->status != 400 && reply->status != 500)
        return NULL;
    const json_t *results = json_object_get(json_object_get(bao_parse(call, reply), "data"), "batch_results");
    return json_is_array(results) && json_array_size(results) == wanted ? results : NULL;
}

static void note_request(struct backend_call *call)
{
    const struct bao_work *work = call->work;
    backend_note(call, NULL, NULL, json_member(work->root, "request_id"));
}

static enum backend_step take_results(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                                      struct http_request *request)
{
    enum stage stage = (enum stage)call->stage;
    const json_t *root, *results = results_of(call, reply, taking_part(call, stage));
    enum backend_step step;
    if (!results)
        return bao_accepted(bao, call, reply, doings[stage], key_of(call, stage), &root, &step)
                   ? bao_malformed(call, doings[stage], key_of(call, stage), "data.batch_results")
                   : step;
    note_request(call);
    for (size_t i = 0, at = 0; i < call->item_count; i++)
        if (takes_part(call, stage, &call->items[i]))
            take_item(bao, call, stage, json_array_get(results, at++), &call->items[i]);
    const struct bao_work *work = call->work;
    if (!buffer_ok(&call->out) || !buffer_ok(&work->secret))
        return backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
    if (stage == BATCH_REWRAP)
        return advance(bao, call, request, BATCH_DECRYPT);
    return stage == BATCH_DECRYPT && call->each == BACKEND_REWRAP ? advance(bao, call, request, BATCH_KEY)
                                                                  : BACKEND_DONE;
}

enum backend_step bao_batch(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                            struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    if (!reply)
        return begin(bao, call, request);
    if (call->stage != BATCH_KEY)
        return take_results(bao, call, reply, request);
    const char *key = key_of(call, BATCH_KEY);
    if (!bao_accepted(bao, call, reply, doings[BATCH_KEY], key, &root, &step))
        return step;
    step = bao_check_encrypts(bao, call, root, key, false);
    return step == BACKEND_DONE ? advance(bao, call, request, BATCH_ENCRYPT) : step;
}
