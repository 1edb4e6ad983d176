#include "bao.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

bool bao_is_key_name(const char *name)
{
    size_t length = name ? strlen(name) : 0;
    if (length == 0 || length > 255 || !is_word(name[0]) || !is_word(name[length - 1]))
        return false;
    for (size_t i = 0; i < length; i++)
        if (!is_word(name[i]) && name[i] != '.' && name[i] != '-')
            return false;
    return true;
}

static envelope_status add_headers(const struct bao *bao, struct http_request *request, const char *token)
{
    /* Agents and proxies of the service refuse requests without it, as a guard against forged ones. */
    envelope_status status = http_request_header(request, "X-Vault-Request", "true");
    if (!status && *token)
        status = http_request_header(request, "X-Vault-Token", token);
    if (!status && bao->settings->name_space)
        status = http_request_header(request, "X-Vault-Namespace", bao->settings->name_space);
    if (!status && request->method == HTTP_POST)
        status = http_request_header(request, "Content-Type", "application/json");
    return status;
}

bool bao_request(const struct bao *bao, struct backend_call *call, struct http_request *request,
                 enum http_method method, const char *token, const char *path, ...)
{
    char place[1024];
    va_list args;
    va_start(args, path);
    int length = vsnprintf(place, sizeof place, path, args);
    va_end(args);
    http_request_clear(request);
    if (length < 0 || (size_t)length >= sizeof place) {
        backend_fail(call, CKR_GENERAL_ERROR, error_raise(ENVELOPE_E_ARGUMENT, "a request path is too long"));
        return false;
    }
    request->method = method;
    if (!token)
        token = call->credentials ? credentials_token(call->credentials) : "";
    envelope_status status = http_request_url(request, "%s/%s", bao->base, place);
    if (!status)
        status = add_headers(bao, request, token);
    if (!status && method == HTTP_POST)
        buffer_append_text(&request->body, "{");
    if (status)
        backend_fail(call, status == ENVELOPE_E_NO_MEMORY ? CKR_HOST_MEMORY : CKR_GENERAL_ERROR, status);
    return !status;
}

enum backend_step bao_send(struct backend_call *call, struct http_request *request, unsigned stage)
{
    if (request->method == HTTP_POST)
        buffer_append_text(&request->body, "}");
    if (!buffer_ok(&request->body))
        return backend_fail(call, CKR_HOST_MEMORY, error_context(ENVELOPE_E_NO_MEMORY, "a request to OpenBao"));
    call->stage = stage;
    return BACKEND_SEND;
}

enum backend_step bao_send_read_key(const struct bao *bao, struct backend_call *call, struct http_request *request,
                                    const char *key, unsigned stage)
{
    if (!bao_request(bao, call, request, HTTP_GET, NULL, "%s/keys/%s", bao->mount, key))
        return BACKEND_FAILED;
    return bao_send(call, request, stage);
}

/*
 * What the service says in its `errors`, as the engine words it (it has no error codes). Looked for in this order, in
 * replies of status 400 and above.
 */
struct refusal {
    const char *words;
    CK_RV rv;
    envelope_status status;
    const char *advice;
};

static const struct refusal refusals[] = {
    {"is sealed", CKR_DEVICE_REMOVED, ENVELOPE_E_HSM_UNAVAILABLE, "an operator must unseal it"},
    {"key not found", CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_UNKNOWN, "was it deleted?"},
    {"could not delete key; not found", CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_UNKNOWN, "was it deleted already?"},
    {"no existing key named", CKR_KEY_HANDLE_INVALID, ENVELOPE_E_KEK_UNKNOWN, "was it deleted?"},
    {"soft-deleted", CKR_KEY_FUNCTION_NOT_PERMITTED, ENVELOPE_E_KEK_REFUSED, "restore it to use it again"},
    {"disallowed by policy", CKR_KEY_FUNCTION_NOT_PERMITTED, ENVELOPE_E_KEK_REFUSED,
     "the key's min_decryption_version is newer than this ciphertext"},
    {"deletion is not allowed", CKR_ACTION_PROHIBITED, ENVELOPE_E_KEK_REFUSED,
     "set deletion_allowed=true in the key's config first"},
    {"cannot set min", CKR_ARGUMENTS_BAD, ENVELOPE_E_ARGUMENT, "see the key's versions"},
    {"should not be less", CKR_ARGUMENTS_BAD, ENVELOPE_E_ARGUMENT, "older versions were trimmed away"},
    {"due to high complexity", CKR_DEVICE_ERROR, ENVELOPE_E_HSM,
     "its listener allows less than the 1,000 strings of max_request_json_strings"},
    {"missing 'context'", CKR_KEY_FUNCTION_NOT_PERMITTED, ENVELOPE_E_KEK_REFUSED, "derived keys are not supported"},
    {"not supported for key type", CKR_KEY_TYPE_INCONSISTENT, ENVELOPE_E_KEK_REFUSED, "use another key"},
    {"for non-AEAD", CKR_KEY_TYPE_INCONSISTENT, ENVELOPE_E_KEK_REFUSED, "use an aes256-gcm96 key"},
    {"message authentication failed", CKR_ENCRYPTED_DATA_INVALID, ENVELOPE_E_UNWRAP,
     "made by another key, with other associated data, or damaged"},
    {"invalid ciphertext", CKR_ENCRYPTED_DATA_INVALID, ENVELOPE_E_UNWRAP, "made by another key, or damaged"},
    {"failed to RSA decrypt", CKR_ENCRYPTED_DATA_INVALID, ENVELOPE_E_UNWRAP, "made by another key, or damaged"},
    /* Before anything else is made of their status, which is 500 in some releases: each try counts towards a lockout.
     */
    {"invalid secret", CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "the secret id is wrong, used up or expired"},
    {"invalid role", CKR_USER_NOT_LOGGED_IN, ENVELOPE_E_HSM_LOGIN, "see role, role-id-file and secret-id-file"},
    {"no handler for route", CKR_DEVICE_ERROR, ENVELOPE_E_HSM,
     "is anything mounted there? see mount and auth-mount in kms.cnf"},
    {"namespace not found", CKR_DEVICE_ERROR, ENVELOPE_E_HSM, "see namespace in kms.cnf"},
    {"unsupported path", CKR_DEVICE_ERROR, ENVELOPE_E_HSM, "is it a transit engine? see mount in kms.cnf"},
};

static const struct refusal *find_refusal(const char *message)
{
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++)
        if (strstr(message, refusals[i].words))
            return &refusals[i];
    return NULL;
}

/* "1 error occurred:\n\t* text\n\n" to "text"; line breaks to blanks. */
static void tidy(char *text)
{
    static const char one[] = "1 error occurred:";
    char *from = text, *to = text;
    if (strncmp(text, one, sizeof one - 1) == 0)
        from += sizeof one - 1 + strspn(text + sizeof one - 1, "\n\t* ");
    for (; *from; from++) {
        bool blank = *from == ' ' || *from == '\n' || *from == '\t';
        if (!blank)
            *to++ = *from;
        else if (to > text && to[-1] != ' ')
            *to++ = ' ';
    }
    while (to > text && to[-1] == ' ')
        to--;
    *to = '\0';
}

/*
 * The words about a login may quote what was sent (`invalid secret_id "…"`): quotations are blanked before anything
 * else is made of the body.
 */
static void hide_quotations(struct buffer *body)
{
    bool inside = false;
    for (size_t i = 0; i + 1 < body->length; i++) {
        bool quote = body->bytes[i] == '\\' && body->bytes[i + 1] == '"';
        if (body->bytes[i] == '"')
            inside = false; /* the end of the string itself */
        else if (quote)
            inside = !inside;
        else if (inside)
            body->bytes[i] = ' ';
        if (body->bytes[i] == '\\')
            i++;
    }
}

/* All `errors`, or a word of our own where it is not the service that answers (a proxy, a load balancer). */
static void read_message(const struct buffer *body, char *message, size_t capacity)
{
    json_t *root = json_read(body);
    const json_t *errors = json_object_get(root, "errors");
    size_t used = 0;
    message[0] = '\0';
    if (!root)
        snprintf(message, capacity, body->length ? "not an answer of OpenBao" : "no text");
    for (size_t i = 0; i < json_array_size(errors); i++) {
        if (used && used + 3 < capacity) {
            memcpy(message + used, "; ", 3);
            used += 2;
        }
        if (bao_text(json_array_get(errors, i), message + used, capacity - used)) {
            tidy(message + used);
            used += strlen(message + used);
        }
    }
    json_decref(root);
}

/* Statuses that pass: an election, a standby without its leader, a quota, a server starting or a gateway without one.
 */
static bool passes(long status)
{
    return status == 412 || status == 429 || status == 472 || status == 473 || status == 307 || status >= 500;
}

static enum backend_step refuse_by_status(const struct bao *bao, struct backend_call *call, long status,
                                          const char *message, const char *doing, const char *on)
{
    const char *label = bao->settings->label;
    if (status == 403) {
        backend_fail(call, CKR_USER_NOT_LOGGED_IN,
                     error_raise(ENVELOPE_E_HSM_LOGIN,
                                 "OpenBao token \"%s\": cannot %s \"%s\": %s; has the login expired, or does its "
                                 "policy not allow this?",
                                 label, doing, on, message));
        return BACKEND_REAUTH;
    }
    /* Of a login it says nothing about a key. */
    if (status == 404 && call->op != BACKEND_AUTHENTICATE)
        return backend_fail(call, CKR_KEY_HANDLE_INVALID,
                            error_raise(ENVELOPE_E_KEK_UNKNOWN,
                                        "OpenBao token \"%s\": cannot %s \"%s\": not found; was it deleted?", label,
                                        doing, on));
    if (status == 429) {
        backend_fail(call, CKR_DEVICE_ERROR,
                     error_raise(ENVELOPE_E_HSM_UNAVAILABLE,
                                 "OpenBao token \"%s\": cannot %s \"%s\": over a rate limit or on a standby: %s", label,
                                 doing, on, message));
        return BACKEND_RETRY;
    }
    bool away = status == 307 || status == 472 || status == 473 || status == 503;
    backend_fail(call, away || passes(status) ? (away ? CKR_DEVICE_REMOVED : CKR_DEVICE_ERROR) : CKR_FUNCTION_FAILED,
                 error_raise(away ? ENVELOPE_E_HSM_UNAVAILABLE : ENVELOPE_E_HSM,
                             "OpenBao token \"%s\": cannot %s \"%s\": HTTP %ld%s: %s", label, doing, on, status,
                             status == 307 || status == 472 || status == 473
                                 ? " (a standby; name the active node in address)"
                                 : "",
                             message));
    return passes(status) ? BACKEND_RETRY : BACKEND_FAILED;
}

static enum backend_step refuse(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                                const char *doing, const char *on)
{
    char code[24], raw[sizeof call->service_message];
    snprintf(code, sizeof code, "HTTP %ld", reply->status);
    struct buffer body = {0};
    buffer_append(&body, reply->body.bytes, reply->body.length);
    if (call->op == BACKEND_AUTHENTICATE)
        hide_quotations(&body);
    read_message(&body, raw, sizeof raw);
    buffer_clear(&body);
    /* Noted first: that makes the words of the service printable for the error too. */
    backend_note(call, code, raw, NULL);
    const struct refusal *known = find_refusal(call->service_message);
    if (!known)
        return refuse_by_status(bao, call, reply->status, call->service_message, doing, on);
    return backend_fail(call, known->rv,
                        error_raise(known->status, "OpenBao token \"%s\": cannot %s \"%s\": %s; %s",
                                    bao->settings->label, doing, on, call->service_message, known->advice));
}

void bao_refuse_item(const struct bao *bao, struct backend_call *call, struct backend_item *item, const char *words,
                     const char *doing, const char *on)
{
    char raw[sizeof call->service_message];
    snprintf(raw, sizeof raw, "%s", words);
    tidy(raw);
    backend_note(call, "batch item", raw, NULL);
    const struct refusal *known = find_refusal(call->service_message);
    const char *label = bao->settings->label;
    backend_fail_item(item, known ? known->rv : CKR_FUNCTION_FAILED,
                      error_raise(known ? known->status : ENVELOPE_E_HSM,
                                  "OpenBao token \"%s\": cannot %s \"%s\": %s%s%s", label, doing, on,
                                  call->service_message, known ? "; " : "", known ? known->advice : ""));
    backend_note_item(item, call); /* the call itself goes on, and may succeed */
}

enum backend_step bao_malformed(struct backend_call *call, const char *doing, const char *on, const char *missing)
{
    return backend_fail(call, CKR_DEVICE_ERROR,
                        error_raise(ENVELOPE_E_HSM,
                                    "cannot %s \"%s\": the reply has no usable %s; is the address that of an OpenBao "
                                    "server?",
                                    doing, on, missing));
}

bool bao_text(const json_t *value, char *to, size_t capacity)
{
    const char *text = json_string_value(value);
    if (!text || strlen(text) >= capacity)
        return false;
    memcpy(to, text, strlen(text) + 1);
    return true;
}

bool bao_integer(const json_t *value, int64_t *number)
{
    *number = json_integer_value(value);
    return json_is_integer(value);
}

const char *bao_secret(const struct backend_call *call, const json_t *object, const char *name, size_t *length)
{
    const struct bao_work *work = call->work;
    return work ? json_taken_member(&work->taken, object, name, length) : NULL; /* 204 has no body to read */
}

const json_t *bao_parse(struct backend_call *call, const struct http_reply *reply)
{
    static const char *const secrets[] = {"plaintext", "client_token", "random_bytes", "id"};
    struct buffer rest = {0};
    struct bao_work *work = bao_work(call);
    if (!work)
        return NULL;
    bao_forget_reply(call);
    if (json_take(&reply->body, secrets, sizeof secrets / sizeof secrets[0], &rest, &work->taken))
        work->root = json_read(&rest);
    buffer_clear(&rest);
    return work->root;
}

void bao_forget_reply(struct backend_call *call)
{
    struct bao_work *work = call->work;
    if (!work)
        return;
    json_decref(work->root);
    work->root = NULL;
    json_taken_clear(&work->taken);
}

bool bao_accepted(const struct bao *bao, struct backend_call *call, const struct http_reply *reply, const char *doing,
                  const char *on, const json_t **root, enum backend_step *step)
{
    char id[sizeof call->request_id];
    *root = NULL;
    if (reply->status < 200 || reply->status > 299) {
        *step = refuse(bao, call, reply, doing, on);
        return false;
    }
    if (reply->status == 204)
        return true;
    *root = bao_parse(call, reply);
    if (!*root) {
        *step = call->work ? bao_malformed(call, doing, on, "JSON") : BACKEND_FAILED;
        return false;
    }
    if (bao_text(json_object_get(*root, "request_id"), id, sizeof id))
        backend_note(call, NULL, NULL, id);
    return true;
}
