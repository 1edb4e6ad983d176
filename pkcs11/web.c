#include "web.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/secmem.h"
#include "base/text.h"
#include "json.h"

enum { LIFETIME_MAX_SECONDS = 86400 * 7, URL_MAX = 4096 };

/* --- Addresses --- */

static bool is_this_machine(const char *host)
{
    static const char *const names[] = {"127.0.0.1", "localhost", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t length = strlen(names[i]);
        if (strncmp(host, names[i], length) == 0 && (host[length] == ':' || !host[length]))
            return true;
    }
    return false;
}

bool web_is_link_local(const char *url)
{
    static const char before[] = "http://169.254.", digits[] = "0123456789";
    if (strncmp(url, before, sizeof before - 1) != 0)
        return false;
    const char *at = url + sizeof before - 1;
    at += strspn(at, "0123456789.");
    if (*at == ':')
        at += 1 + strspn(at + 1, digits);
    return !*at || *at == '/' || *at == '?';
}

envelope_status web_check_endpoint(const struct token_settings *settings, const char *what, const char *url)
{
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    if (!*host || strpbrk(host, "/?#@ \\") || text_is_key_name(url, strlen(url)) == false)
        return error_raise(ENVELOPE_E_CONFIG, "[token %s]: %s must be https://HOST or https://HOST:PORT",
                           settings->label, what);
    if (strncmp(url, "https://", 8) == 0 || (strncmp(url, "http://", 7) == 0 && is_this_machine(host)))
        return ENVELOPE_OK;
    return error_raise(ENVELOPE_E_CONFIG,
                       "[token %s]: %s must begin with https://; http:// is for this machine only, since keys travel "
                       "in the replies",
                       settings->label, what);
}

envelope_status web_copy_endpoint(const struct token_settings *settings, const char *what, const char *url, char **copy)
{
    *copy = text_copy(url);
    if (!*copy)
        return ENVELOPE_E_NO_MEMORY;
    for (size_t length = strlen(*copy); length && (*copy)[length - 1] == '/'; length--)
        (*copy)[length - 1] = '\0';
    return web_check_endpoint(settings, what, *copy);
}

/* --- Settings, memory --- */

envelope_status web_choose_auth(const struct token_settings *settings, const char *const *names, size_t count,
                                size_t *chosen)
{
    char list[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        *chosen = i;
        if (settings->auth && strcmp(names[i], settings->auth) == 0)
            return ENVELOPE_OK;
        int added = snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
        used += added > 0 && (size_t)added < sizeof list - used ? (size_t)added : 0;
    }
    return error_raise(ENVELOPE_E_CONFIG, "[token %s]: auth must be one of %s", settings->label, list);
}

envelope_status web_missing(const struct token_settings *settings, const char *what)
{
    return error_raise(ENVELOPE_E_CONFIG, "[token %s]: auth = %s needs %s", settings->label, settings->auth, what);
}

envelope_status web_meaningless(const struct token_settings *settings, const char *name)
{
    return error_raise(ENVELOPE_E_CONFIG, "[token %s]: %s means nothing to auth = %s", settings->label, name,
                       settings->auth);
}

envelope_status web_copy_metadata(const struct token_settings *settings, const char *const *known, size_t count,
                                  char **copy)
{
    const char *url = settings->imds_endpoint ? settings->imds_endpoint : known[0];
    for (size_t i = 0; i < count; i++)
        if (strcmp(url, known[i]) == 0)
            return (*copy = text_copy(url)) ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
    return web_copy_endpoint(settings, "imds-endpoint", url, copy);
}

void *web_work(struct backend_call *call, size_t size, void (*release)(void *work))
{
    if (!call->work) {
        call->work = calloc(1, size);
        call->work_free = release;
    }
    if (!call->work)
        backend_fail(call, CKR_HOST_MEMORY, error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a call of a key service"));
    return call->work;
}

/* --- Requests --- */

void web_form_add(struct buffer *form, const char *name, const char *value)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~";
    buffer_append_text(form, form->length ? "&" : "");
    buffer_append_text(form, name);
    buffer_append_text(form, "=");
    for (; *value; value++) {
        char escape[4];
        if (strchr(plain, *value)) {
            buffer_append(form, value, 1);
            continue;
        }
        snprintf(escape, sizeof escape, "%%%02X", (unsigned char)*value);
        buffer_append(form, escape, 3);
    }
}

void web_append_base64url(struct buffer *to, const uint8_t *bytes, size_t count)
{
    size_t from = to->length;
    buffer_append_base64(to, bytes, count);
    if (!buffer_ok(to))
        return;
    for (size_t i = from; i < to->length; i++) {
        uint8_t *digit = &to->bytes[i];
        *digit = *digit == '+' ? '-' : *digit == '/' ? '_' : *digit;
    }
    while (to->length > from && to->bytes[to->length - 1] == '=')
        to->bytes[--to->length] = '\0';
}

bool web_append_unbase64url(struct buffer *to, const char *text, size_t count)
{
    struct buffer standard = {0};
    bool ok = count % 4 != 1;
    for (size_t i = 0; ok && i < count; i++) {
        char digit = text[i] == '-' ? '+' : text[i] == '_' ? '/' : text[i];
        ok = text[i] != '+' && text[i] != '/' && text[i] != '=';
        buffer_append(&standard, &digit, 1);
    }
    buffer_append_text(&standard, count % 4 == 2 ? "==" : count % 4 == 3 ? "=" : "");
    ok = ok && buffer_ok(&standard) && buffer_append_unbase64(to, buffer_text(&standard), standard.length);
    buffer_clear(&standard);
    return ok;
}

static void begin_member(struct http_request *request, const char *name)
{
    if (request->body.length > 1)
        buffer_append_text(&request->body, ",");
    buffer_append_json(&request->body, name);
    buffer_append_text(&request->body, ":");
}

void web_body_text(struct http_request *request, const char *name, const char *value)
{
    begin_member(request, name);
    buffer_append_json(&request->body, value);
}

void web_body_base64(struct http_request *request, const char *name, const uint8_t *bytes, size_t count)
{
    begin_member(request, name);
    buffer_append_text(&request->body, "\"");
    buffer_append_base64(&request->body, bytes, count);
    buffer_append_text(&request->body, "\"");
}

void web_body_base64url(struct http_request *request, const char *name, const uint8_t *bytes, size_t count)
{
    begin_member(request, name);
    buffer_append_text(&request->body, "\"");
    web_append_base64url(&request->body, bytes, count);
    buffer_append_text(&request->body, "\"");
}

void web_body_number(struct http_request *request, const char *name, uint64_t value, bool quoted)
{
    char number[32];
    snprintf(number, sizeof number, quoted ? "\"%" PRIu64 "\"" : "%" PRIu64, value);
    begin_member(request, name);
    buffer_append_text(&request->body, number);
}

enum backend_step web_body_close(struct backend_call *call, struct http_request *request)
{
    buffer_append_text(&request->body, "}");
    return buffer_ok(&request->body) ? BACKEND_SEND : backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
}

static envelope_status add_bearer(struct http_request *request, const struct credentials *credentials)
{
    struct buffer value = {0};
    buffer_append_text(&value, "Bearer ");
    buffer_append_text(&value, credentials ? credentials_token(credentials) : "");
    envelope_status status =
        buffer_ok(&value) ? http_request_header(request, "Authorization", buffer_text(&value)) : ENVELOPE_E_NO_MEMORY;
    buffer_clear(&value);
    return status;
}

bool web_request(struct backend_call *call, struct http_request *request, enum http_method method, const char *format,
                 ...)
{
    char url[URL_MAX];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(url, sizeof url, format, args);
    va_end(args);
    http_request_clear(request);
    request->method = method;
    envelope_status status = length < 0 || (size_t)length >= sizeof url
                                 ? error_raise(ENVELOPE_E_ARGUMENT, "the address of a request would be too long")
                                 : http_request_url(request, "%s", url);
    if (!status)
        status = add_bearer(request, call->credentials);
    if (!status && method == HTTP_POST)
        status = http_request_header(request, "Content-Type", "application/json");
    if (!status && method == HTTP_POST)
        buffer_append_text(&request->body, "{");
    if (!status)
        return true;
    backend_fail(call, status == ENVELOPE_E_NO_MEMORY ? CKR_HOST_MEMORY : CKR_GENERAL_ERROR, status);
    return false;
}

/* --- Replies --- */

bool web_take_bytes(struct buffer *body, const char *name, bool url, struct buffer *to)
{
    struct buffer text = {0};
    struct json_secret secret = {.name = name, .to = &text};
    bool ok = json_take_secrets(body, &secret, 1) && secret.found &&
              (url ? web_append_unbase64url(to, buffer_text(&text), text.length)
                   : buffer_append_unbase64(to, buffer_text(&text), text.length));
    buffer_clear(&text);
    return ok;
}

/* Seconds, as a number or (Azure's instance metadata) as a text of digits; 0 if it is neither. */
static int64_t seconds_of(const json_t *value)
{
    long long seconds = 0;
    if (json_is_integer(value))
        seconds = json_integer_value(value);
    else if (json_is_string(value) && sscanf(json_string_value(value), "%9lld", &seconds) != 1)
        seconds = 0;
    return seconds > 0 && seconds <= LIFETIME_MAX_SECONDS ? (int64_t)seconds : 0;
}

/* Azure's App Service tells the time of the end only, in seconds since 1970. */
static int64_t lifetime_of(const json_t *root)
{
    const json_t *left = json_object_get(root, "expires_in"), *end = json_object_get(root, "expires_on");
    long long when = 0;
    if (left || !end)
        return left ? seconds_of(left) : 0;
    if (json_is_integer(end))
        when = json_integer_value(end);
    else if (!json_is_string(end) || sscanf(json_string_value(end), "%12lld", &when) != 1)
        return 0;
    when -= clock_wall() / CLOCK_SECOND;
    return when > 0 && when <= LIFETIME_MAX_SECONDS ? (int64_t)when : 0;
}

enum backend_step web_take_token(struct backend_call *call, const struct http_reply *reply, const char *source)
{
    struct buffer body = {0}, token = {0};
    struct json_secret secret = {.name = "access_token", .to = &token};
    buffer_append(&body, reply->body.bytes, reply->body.length);
    bool taken = json_take_secrets(&body, &secret, 1) && secret.found && token.length;
    json_t *root = json_read(&body);
    int64_t seconds = root ? lifetime_of(root) : 0;
    json_decref(root);
    buffer_clear(&body);
    enum backend_step step = BACKEND_DONE;
    if (!taken || !seconds || strpbrk(buffer_text(&token), "\r\n\t ")) {
        step = backend_fail(call, CKR_USER_NOT_LOGGED_IN,
                            error_raise(ENVELOPE_E_HSM_LOGIN,
                                        "%s gave a reply without an access token, or without its lifetime", source));
    } else {
        call->made = credentials_new("", "", buffer_text(&token), clock_wall() + seconds * CLOCK_SECOND);
        if (call->made)
            credentials_set_source(call->made, source);
        else
            step = backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
    }
    buffer_clear(&token);
    return step;
}

enum backend_step web_judge_token(struct backend_call *call, const struct http_reply *reply, const char *who)
{
    if (reply->status >= 200 && reply->status < 300)
        return BACKEND_DONE;
    json_t *root = json_read(&reply->body);
    const char *code = root ? json_member(root, "error") : NULL;
    const char *text = root ? json_member(root, "error_description") : NULL;
    bool passing = reply->status >= 500 || reply->status == 429 || reply->status == 408 ||
                   (code && strcmp(code, "temporarily_unavailable") == 0);
    backend_note(call, code ? code : "", text ? text : "", NULL);
    json_decref(root);
    error_raise(passing ? ENVELOPE_E_HSM_UNAVAILABLE : ENVELOPE_E_HSM_LOGIN, "%s %s (%s, HTTP %ld)%s%s", who,
                passing ? "cannot give an access token now" : "refused to give an access token",
                *call->service_code ? call->service_code : "no error name", reply->status,
                *call->service_message ? ": " : "", call->service_message);
    call->rv = passing ? CKR_DEVICE_ERROR : CKR_USER_NOT_LOGGED_IN;
    return passing ? BACKEND_RETRY : BACKEND_FAILED;
}
