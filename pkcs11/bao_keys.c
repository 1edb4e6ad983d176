/* Keys: list, describe, create, delete. */
#include "bao.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "web.h"

/* Types the bridge shows. ChaCha20-Poly1305, ECDSA, HMAC and managed keys have no honest place among AES and RSA
 * objects. */
static const struct {
    const char *type;
    enum backend_key_type kind;
    unsigned bits;
} kinds[] = {
    {"aes256-gcm96", BACKEND_KEY_SYMMETRIC, 256}, {"aes128-gcm96", BACKEND_KEY_SYMMETRIC, 128},
    {"rsa-2048", BACKEND_KEY_RSA, 2048},          {"rsa-3072", BACKEND_KEY_RSA, 3072},
    {"rsa-4096", BACKEND_KEY_RSA, 4096},
};
enum { KIND_COUNT = sizeof kinds / sizeof kinds[0] };

bool bao_key_kind(const char *type, enum backend_key_type *kind, unsigned *bits)
{
    for (size_t i = 0; i < KIND_COUNT; i++)
        if (strcmp(kinds[i].type, type) == 0) {
            *kind = kinds[i].kind;
            *bits = kinds[i].bits;
            return true;
        }
    return false;
}

const char *bao_key_unusable(const struct bao_key_facts *facts)
{
    if (facts->soft_deleted)
        return "SoftDeleted";
    if (facts->derived)
        return "Derived"; /* needs a context with every call, which PKCS#11 has no place for */
    if (facts->exportable)
        return "Exportable"; /* shown as an object that never leaves the service: that must be true */
    return NULL;
}

static bool version_number(const json_t *object, const char *name, uint32_t *number)
{
    int64_t value;
    if (!bao_integer(json_object_get(object, name), &value) || value < 0 || value > INT32_MAX)
        return false;
    *number = (uint32_t)value;
    return true;
}

bool bao_read_facts(const json_t *root, struct bao_key_facts *facts)
{
    const json_t *data = json_object_get(root, "data");
    *facts = (struct bao_key_facts){0};
    facts->versions = json_object_get(data, "keys");
    facts->derived = json_is_true(json_object_get(data, "derived"));
    facts->exportable = json_is_true(json_object_get(data, "exportable")) ||
                        json_is_true(json_object_get(data, "allow_plaintext_backup"));
    facts->soft_deleted = json_is_true(json_object_get(data, "soft_deleted"));
    facts->encrypts = json_is_true(json_object_get(data, "supports_encryption"));
    facts->decrypts = json_is_true(json_object_get(data, "supports_decryption"));
    (void)version_number(data, "min_encryption_version", &facts->min_encryption); /* 0 where it is not told */
    return bao_text(json_object_get(data, "type"), facts->type, sizeof facts->type) &&
           version_number(data, "latest_version", &facts->latest) && facts->latest > 0 &&
           version_number(data, "min_decryption_version", &facts->min_decryption) && json_is_object(facts->versions);
}

/* ---- one version's time and public key ---- */

/* Days from 1970-01-01 to a day of the Gregorian calendar (years from March: leap days come last). */
static int64_t days_since_1970(int64_t year, int64_t month, int64_t day)
{
    if (month <= 2)
        year--;
    int64_t era = year / 400, year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

/* "2026-11-22T23:04:05.678Z" or with "+01:00"; 0 for anything else. Parts of a second are dropped. */
static int64_t read_time(const char *text)
{
    int year, month, day, hour, minute, second, used = 0, zone_hour = 0, zone_minute = 0;
    char sign = 'Z';
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &year, &month, &day, &hour, &minute, &second, &used) != 6 ||
        year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || minute < 0 || second < 0)
        return 0;
    const char *rest = text + used;
    rest += *rest == '.' ? 1 + strspn(rest + 1, "0123456789") : 0;
    if (*rest != 'Z' && (sscanf(rest, "%c%2d:%2d", &sign, &zone_hour, &zone_minute) != 3 || !strchr("+-", sign)))
        return 0;
    int64_t offset = (zone_hour * 60 + zone_minute) * (sign == '-' ? -60 : 60);
    int64_t seconds = days_since_1970(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    return seconds * CLOCK_SECOND;
}

/* The oldest version that is still there: its number is the smallest. */
static int64_t creation_time(json_t *versions)
{
    const char *name;
    json_t *value;
    int64_t oldest = 0, seconds;
    json_object_foreach(versions, name, value)
    {
        char text[64];
        int64_t created = 0;
        if (bao_integer(value, &seconds) && seconds > 0 && seconds < INT64_MAX / CLOCK_SECOND)
            created = seconds * CLOCK_SECOND;
        else if (bao_text(json_object_get(value, "creation_time"), text, sizeof text))
            created = read_time(text);
        if (created && (!oldest || created < oldest))
            oldest = created;
    }
    return oldest;
}

/* The base64 between the lines of "-----BEGIN PUBLIC KEY-----": the SubjectPublicKeyInfo. */
static bool read_pem(const char *pem, struct buffer *der)
{
    static const char begin[] = "-----BEGIN PUBLIC KEY-----", end[] = "-----END PUBLIC KEY-----";
    struct buffer text = {0};
    const char *from = strstr(pem, begin);
    const char *to = from ? strstr(from, end) : NULL;
    if (!to)
        return false;
    for (from += sizeof begin - 1; from < to; from++)
        if (*from != '\n' && *from != '\r')
            buffer_append(&text, from, 1);
    bool read = buffer_ok(&text) && text.length && buffer_append_unbase64(der, buffer_text(&text), text.length);
    buffer_clear(&text);
    return read;
}

static bool read_public_key(const struct bao_key_facts *facts, struct backend_key *key)
{
    char version[16];
    struct buffer der = {0};
    snprintf(version, sizeof version, "%u", facts->latest);
    const char *pem = json_member(json_object_get(facts->versions, version), "public_key");
    if (pem && read_pem(pem, &der) && (key->public_key = malloc(der.length))) {
        memcpy(key->public_key, der.bytes, der.length);
        key->public_key_length = der.length;
    }
    buffer_clear(&der);
    return key->public_key != NULL;
}

/* ---- describe ---- */

/* One more in call->keys, unless it is of a type the bridge does not show. */
static enum backend_step take_key(struct backend_call *call, const json_t *root, const char *name)
{
    struct bao_key_facts facts;
    enum backend_key_type kind;
    unsigned bits;
    if (!bao_read_facts(root, &facts))
        return bao_malformed(call, "read key", name, "key description");
    if (!bao_key_kind(facts.type, &kind, &bits))
        return BACKEND_DONE;
    struct backend_key *key = backend_add_key(call);
    if (!key)
        return BACKEND_FAILED;
    const char *state = bao_key_unusable(&facts);
    key->type = kind;
    key->bits = bits;
    /* What an exportable key holds can be taken out, and nothing more put in. */
    key->can_encrypt = facts.encrypts && !facts.derived && !facts.exportable;
    key->can_decrypt = facts.decrypts && !facts.derived;
    key->enabled = !state;
    key->imported = json_is_true(json_object_get(json_object_get(root, "data"), "imported_key"));
    snprintf(key->state, sizeof key->state, "%s", state ? state : "Enabled");
    key->created = creation_time(facts.versions);
    key->id = text_copy(name);
    key->label = text_copy(name);
    if (!key->id || !key->label)
        return backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
    if (kind == BACKEND_KEY_RSA && !read_public_key(&facts, key))
        return bao_malformed(call, "read key", name, "public key");
    return BACKEND_DONE;
}

enum backend_step bao_describe(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                               struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    if (!reply)
        return bao_is_key_name(call->key) ? bao_send_read_key(bao, call, request, call->key, 1) : BACKEND_DONE;
    if (reply->status != 404)
        return bao_accepted(bao, call, reply, "read key", call->key, &root, &step) ? take_key(call, root, call->key)
                                                                                   : step;
    /* No such key is an answer; no such engine is not, and has words to say so. */
    bao_accepted(bao, call, reply, "read key", call->key, &root, &step);
    return call->rv == CKR_KEY_HANDLE_INVALID ? BACKEND_DONE : step;
}

/* ---- list ---- */

enum { LIST_NAMES = 1, LIST_KEY };

static enum backend_step no_memory(struct backend_call *call)
{
    return backend_fail(call, CKR_HOST_MEMORY, error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a list of keys"));
}

static bool add_listed(struct backend_call *call, struct bao_work *work, const json_t *root)
{
    const json_t *keys = json_object_get(json_object_get(root, "data"), "keys");
    if (!json_is_array(keys)) {
        bao_malformed(call, "list keys of", "transit", "data.keys");
        return false;
    }
    for (size_t i = 0; i < json_array_size(keys); i++) {
        const char *name = json_string_value(json_array_get(keys, i));
        if (name && !names_add(&work->names, name, strlen(name))) {
            no_memory(call);
            return false;
        }
    }
    return true;
}

/* Ask for the next key; with none left, a list that is empty only for want of rights is a refusal. */
static enum backend_step list_next(const struct bao *bao, struct backend_call *call, struct bao_work *work,
                                   struct http_request *request)
{
    /* A name with a slash is a folder (import/): no key. */
    while (names_current(&work->names) && !bao_is_key_name(names_current(&work->names)))
        work->names.at++;
    if (names_current(&work->names))
        return bao_send_read_key(bao, call, request, names_current(&work->names), LIST_KEY);
    if (!work->denied || call->keys.count)
        return BACKEND_DONE;
    backend_fail(call, CKR_USER_NOT_LOGGED_IN,
                 error_raise(ENVELOPE_E_HSM_LOGIN,
                             "OpenBao token \"%s\": none of %zu keys may be read; does the policy grant \"read\" on "
                             "%s/keys/*?",
                             bao->settings->label, work->denied, bao->mount));
    return BACKEND_REAUTH;
}

static enum backend_step list_begin(const struct bao *bao, struct backend_call *call, struct bao_work *work,
                                    struct http_request *request)
{
    /* Those are asked for by name, and no right to list is needed. */
    if (bao->settings->keys)
        return names_add_list(&work->names, bao->settings->keys) ? list_next(bao, call, work, request)
                                                                 : no_memory(call);
    if (!bao_request(bao, call, request, HTTP_LIST, NULL, "%s/keys", bao->mount))
        return BACKEND_FAILED;
    return bao_send(call, request, LIST_NAMES);
}

static enum backend_step list_take(const struct bao *bao, struct backend_call *call, struct bao_work *work,
                                   const struct http_reply *reply)
{
    const json_t *root;
    enum backend_step step;
    const char *name = names_current(&work->names);
    if (bao_accepted(bao, call, reply, "read key", name, &root, &step))
        return take_key(call, root, name);
    /* Deleted since it was listed, or not ours to see: the others still are. */
    if (step == BACKEND_REAUTH)
        work->denied++;
    bool skip = step == BACKEND_REAUTH || (step == BACKEND_FAILED && call->rv == CKR_KEY_HANDLE_INVALID);
    return skip ? BACKEND_DONE : step;
}

enum backend_step bao_list(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                           struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    struct bao_work *work = bao_work(call);
    if (!work)
        return BACKEND_FAILED;
    if (!reply)
        return list_begin(bao, call, work, request);
    if (call->stage == LIST_KEY) {
        step = list_take(bao, call, work, reply);
        if (step != BACKEND_DONE)
            return step;
        work->names.at++;
        return list_next(bao, call, work, request);
    }
    if (!bao_accepted(bao, call, reply, "list keys of", bao->mount, &root, &step)) {
        /* An engine without keys answers 404 with no errors. */
        bool none = step == BACKEND_FAILED && reply->status == 404 && call->rv == CKR_KEY_HANDLE_INVALID &&
                    call->service_message[0] == '\0';
        return none ? BACKEND_DONE : step;
    }
    return add_listed(call, work, root) ? list_next(bao, call, work, request) : BACKEND_FAILED;
}

/* ---- create, delete ---- */

enum { CREATE_LOOK = 1, CREATE_REPLY, CREATE_READ };

static const char *type_name(enum backend_key_type kind, unsigned bits)
{
    for (size_t i = 0; i < KIND_COUNT; i++)
        if (kinds[i].kind == kind && kinds[i].bits == bits)
            return kinds[i].type;
    return NULL;
}

/* Making a key that is there already succeeds without a word; so it is looked for first. */
static enum backend_step create_begin(const struct bao *bao, struct backend_call *call, struct http_request *request)
{
    if (!bao->settings->create)
        return backend_fail(call, CKR_TOKEN_WRITE_PROTECTED,
                            error_raise(ENVELOPE_E_CONFIG,
                                        "OpenBao token \"%s\": making keys is off; set create = yes in kms.cnf",
                                        bao->settings->label));
    if (!bao_is_key_name(call->label))
        return backend_fail(
            call, CKR_ATTRIBUTE_VALUE_INVALID,
            error_raise(ENVELOPE_E_KEY_NAME,
                        "OpenBao token \"%s\": a key needs a label of letters, digits, \"_\", \".\" and "
                        "\"-\" that begins and ends with a letter, digit or \"_\"",
                        bao->settings->label));
    if (!type_name(call->type, call->bits))
        return backend_fail(call, CKR_KEY_SIZE_RANGE,
                            error_raise(ENVELOPE_E_ARGUMENT, "OpenBao token \"%s\": there are no %s keys of %u bits",
                                        bao->settings->label, call->type == BACKEND_KEY_RSA ? "RSA" : "AES",
                                        call->bits));
    return bao_send_read_key(bao, call, request, call->label, CREATE_LOOK);
}

static enum backend_step create_send(const struct bao *bao, struct backend_call *call, struct http_request *request)
{
    if (!bao_request(bao, call, request, HTTP_POST, NULL, "%s/keys/%s", bao->mount, call->label))
        return BACKEND_FAILED;
    request->once = true;
    request->timeout = bao->settings->deadline; /* an RSA key takes the service seconds */
    web_body_text(request, "type", type_name(call->type, call->bits));
    return bao_send(call, request, CREATE_REPLY);
}

enum backend_step bao_create(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                             struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    if (!reply)
        return create_begin(bao, call, request);
    bool accepted = bao_accepted(bao, call, reply, call->stage == CREATE_REPLY ? "create key" : "read key", call->label,
                                 &root, &step);
    if (call->stage == CREATE_LOOK && accepted)
        return backend_fail(call, CKR_ATTRIBUTE_VALUE_INVALID,
                            error_raise(ENVELOPE_E_KEY_EXISTS, "OpenBao token \"%s\": there is a key \"%s\" already",
                                        bao->settings->label, call->label));
    if (call->stage == CREATE_LOOK)
        return step == BACKEND_FAILED && call->rv == CKR_KEY_HANDLE_INVALID ? create_send(bao, call, request) : step;
    if (!accepted)
        return step;
    if (call->stage == CREATE_REPLY)
        return bao_send_read_key(bao, call, request, call->label, CREATE_READ);
    step = take_key(call, root, call->label);
    return step == BACKEND_DONE && !call->keys.count ? bao_malformed(call, "create key", call->label, "key type")
                                                     : step;
}

/* The key's own deletion_allowed is left as its owner set it: both locks have to be open. */
enum backend_step bao_delete(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                             struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    if (reply)
        return bao_accepted(bao, call, reply, "delete key", call->key, &root, &step) ? BACKEND_DONE : step;
    if (!bao->settings->destroy)
        return backend_fail(call, CKR_ACTION_PROHIBITED,
                            error_raise(ENVELOPE_E_CONFIG,
                                        "OpenBao token \"%s\": deleting keys is off; set destroy = yes in kms.cnf",
                                        bao->settings->label));
    if (!bao_is_key_name(call->key))
        return backend_fail(call, CKR_KEY_HANDLE_INVALID,
                            error_raise(ENVELOPE_E_KEK_UNKNOWN, "OpenBao token \"%s\": \"%s\" cannot be a transit key",
                                        bao->settings->label, call->key));
    if (!bao_request(bao, call, request, HTTP_DELETE, NULL, "%s/keys/%s", bao->mount, call->key))
        return BACKEND_FAILED;
    request->once = true;
    return bao_send(call, request, 1);
}
