#include "http.h"

#include <ctype.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>
#include <curl/curl.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fork.h"
#include "base/text.h"
#include "http_memory.h"
#include "resolve.h"

/*
 * What a thread keeps between calls: its connections. The handle that a request is made with is made and freed with it,
 * since it keeps the request's bytes, a token among them, for as long as it lives.
 */
struct connections {
    CURLSH *share;
    uint64_t generation;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t connections_key;
static bool ready;

static void connections_free(void *memory)
{
    struct connections *connections = memory;
    /* A child must not say goodbye on its parent's TLS connections: it leaves the inherited ones alone. */
    if (connections->share && connections->generation == fork_generation())
        curl_share_cleanup(connections->share);
    free(connections);
}

static void set_up(void)
{
    ready = http_memory_init() == CURLE_OK && pthread_key_create(&connections_key, connections_free) == 0;
}

envelope_status http_setup(void)
{
    pthread_once(&once, set_up);
    return ready ? ENVELOPE_OK : error_raise(ENVELOPE_E_INTERNAL, "libcurl cannot be initialised");
}

/* The calling thread's, and nobody else's: so nothing is locked. */
static CURLSH *connections_get(void)
{
    struct connections *connections = pthread_getspecific(connections_key);
    if (!connections) {
        connections = calloc(1, sizeof *connections);
        if (!connections || pthread_setspecific(connections_key, connections)) {
            free(connections);
            return NULL;
        }
    }
    if (connections->share && connections->generation == fork_generation())
        return connections->share;
    connections->generation = fork_generation();
    connections->share = curl_share_init();
    if (connections->share &&
        curl_share_setopt(connections->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_CONNECT) != CURLSHE_OK) {
        curl_share_cleanup(connections->share);
        connections->share = NULL;
    }
    return connections->share;
}

/*
 * The answer of a server that fails, is sealed or stands by: it may be one of several behind one address, and the next
 * request shall not be bound to it by a connection that is kept.
 */
static void connections_drop(void)
{
    struct connections *connections = pthread_getspecific(connections_key);
    if (!connections || !connections->share)
        return;
    curl_share_cleanup(connections->share);
    connections->share = NULL;
}

static bool another_may_do(long status)
{
    return status >= 500 || (status >= 300 && status < 400) || status == 472 || status == 473;
}

static CURL *handle_new(void)
{
    if (http_setup())
        return NULL;
    CURLSH *share = connections_get();
    CURL *easy = share ? curl_easy_init() : NULL;
    if (easy && curl_easy_setopt(easy, CURLOPT_SHARE, share) == CURLE_OK)
        return easy;
    curl_easy_cleanup(easy);
    error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a connection");
    return NULL;
}

envelope_status http_request_url(struct http_request *request, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *url = NULL;
    int length = vasprintf(&url, format, args);
    va_end(args);
    if (length < 0)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a URL");
    for (const char *c = url; *c; c++)
        if (*c <= ' ' || *c >= 0x7f) {
            free(url);
            return error_raise(ENVELOPE_E_ARGUMENT, "a URL would hold a blank or a control character");
        }
    free(request->url);
    request->url = url;
    return ENVELOPE_OK;
}

envelope_status http_request_header(struct http_request *request, const char *name, const char *value)
{
    size_t count = 0;
    if (strpbrk(value, "\r\n"))
        return error_raise(ENVELOPE_E_ARGUMENT, "the value of the header %s holds a line break", name);
    for (size_t i = 0; i < request->headers.length; i++)
        count += !request->headers.bytes[i];
    if (count == HTTP_HEADERS_MAX)
        return error_raise(ENVELOPE_E_ARGUMENT, "a request would have more than %d headers", (int)HTTP_HEADERS_MAX);
    buffer_append_text(&request->headers, name);
    buffer_append_text(&request->headers, ": ");
    buffer_append(&request->headers, value, strlen(value) + 1);
    return buffer_ok(&request->headers) ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

void http_request_clear(struct http_request *request)
{
    free(request->url);
    buffer_clear(&request->headers);
    buffer_clear(&request->body);
    *request = (struct http_request){0};
}

void http_reply_clear(struct http_reply *reply)
{
    buffer_clear(&reply->headers);
    buffer_clear(&reply->body);
    *reply = (struct http_reply){0};
}

bool http_reply_header(const struct http_reply *reply, const char *name, char *value, size_t capacity)
{
    size_t name_length = strlen(name);
    for (const char *line = buffer_text(&reply->headers); *line;) {
        const char *end = strchr(line, '\n');
        if (!end)
            end = line + strlen(line);
        if ((size_t)(end - line) > name_length && line[name_length] == ':' &&
            strncasecmp(line, name, name_length) == 0) {
            const char *from = line + name_length + 1, *to = end;
            while (from < to && (*from == ' ' || *from == '\t'))
                from++;
            while (to > from && isspace((unsigned char)to[-1]))
                to--;
            if ((size_t)(to - from) >= capacity)
                return false;
            memcpy(value, from, (size_t)(to - from));
            value[to - from] = '\0';
            return true;
        }
        line = *end ? end + 1 : end;
    }
    return false;
}

struct exchange {
    struct http_reply *reply;
    bool too_large;
};

static size_t on_body(char *bytes, size_t size, size_t count, void *context)
{
    struct exchange *exchange = context;
    struct buffer *body = &exchange->reply->body;
    size_t length = size * count;
    if (length > HTTP_REPLY_MAX - body->length) {
        exchange->too_large = true;
        return 0;
    }
    buffer_append(body, bytes, length);
    return buffer_ok(body) ? length : 0;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *context)
{
    struct exchange *exchange = context;
    struct buffer *headers = &exchange->reply->headers;
    size_t length = size * count;
    /* A new status line (after 100 Continue or a proxy's CONNECT) begins a new set. */
    if (length > 5 && memcmp(bytes, "HTTP/", 5) == 0)
        buffer_reset(headers);
    if (length > HTTP_REPLY_HEADERS_MAX - headers->length) {
        exchange->too_large = true;
        return 0;
    }
    if (memchr(bytes, '\0', length))
        return 0;
    buffer_append(headers, bytes, length);
    return buffer_ok(headers) ? length : 0;
}

/* Header lines as libcurl's list, in place: no copy of a token on the heap by us. */
static struct curl_slist *header_list(const struct http_request *request, struct curl_slist nodes[HTTP_HEADERS_MAX])
{
    size_t used = 0;
    char *line = (char *)request->headers.bytes, *end = line ? line + request->headers.length : NULL;
    for (; line < end && used < HTTP_HEADERS_MAX; line += strlen(line) + 1, used++) {
        nodes[used] = (struct curl_slist){.data = line};
        if (used)
            nodes[used - 1].next = &nodes[used];
    }
    return used ? nodes : NULL;
}

static const char *const method_names[] = {
    [HTTP_GET] = "GET", [HTTP_POST] = "POST", [HTTP_PUT] = "PUT", [HTTP_DELETE] = "DELETE", [HTTP_LIST] = "LIST"};

static CURLcode set_method(CURL *easy, const struct http_request *request)
{
    bool has_body = request->method == HTTP_POST || request->method == HTTP_PUT || request->body.length;
    CURLcode code = CURLE_OK;
    if (has_body) {
        code |= curl_easy_setopt(easy, CURLOPT_POSTFIELDS, buffer_text(&request->body));
        code |= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.length);
    }
    if (request->method != HTTP_GET && request->method != HTTP_POST)
        code |= curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method_names[request->method]);
    /* On a kept connection that breaks before an answer, libcurl itself sends a request a second time. */
    if (request->once)
        code |= curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    return code;
}

static CURLcode set_route(CURL *easy, const struct http_request *request, const struct http_route *route)
{
    CURLcode code = curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    code |= http_memory_tls(easy);
    const char *ca_file = route->ca_file ? route->ca_file : request->ca_file;
    if (ca_file) {
        code |= curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
        code |= curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    if (route->client_cert)
        code |= curl_easy_setopt(easy, CURLOPT_SSLCERT, route->client_cert);
    if (route->client_key)
        code |= curl_easy_setopt(easy, CURLOPT_SSLKEY, route->client_key);
    /* libcurl reads proxy variables by plain getenv: not for a setuid program. */
    if (request->direct || getauxval(AT_SECURE))
        code |= curl_easy_setopt(easy, CURLOPT_PROXY, "");
    else if (route->proxy)
        code |= curl_easy_setopt(easy, CURLOPT_PROXY, route->proxy);
    return code;
}

static CURLcode set_signature(CURL *easy, const struct http_request *request)
{
    if (!request->signer)
        return CURLE_OK;
    char scheme[128];
    if (snprintf(scheme, sizeof scheme, "aws:amz:%s:%s", request->sign_region, request->sign_service) >=
        (int)sizeof scheme)
        return CURLE_BAD_FUNCTION_ARGUMENT;
    CURLcode code = curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, scheme);
    code |= curl_easy_setopt(easy, CURLOPT_USERNAME, credentials_id(request->signer));
    code |= curl_easy_setopt(easy, CURLOPT_PASSWORD, credentials_secret(request->signer));
    return code;
}

static CURLcode set_limits(CURL *easy, int64_t left)
{
    long milliseconds = (long)(left / 1000);
    CURLcode code = curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    code |= curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, milliseconds > 0 ? milliseconds : 1L);
    /* Else libcurl waits, past any deadline, for its thread that asks a name server. The thread goes on alone; that the
       module and its libraries are never unloaded (nodelete) is what makes it harmless. */
    code |= curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    code |= curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)HTTP_REPLY_MAX);
    code |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    /* HTTP/2 would bring nothing, with one request at a time, and a library that keeps headers and replies unwiped. */
    code |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    code |= curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    code |= curl_easy_setopt(easy, CURLOPT_USERAGENT, "envelope-kms/0.1");
    return code;
}

/* Where libcurl may make no thread, this one asks the name server first. */
static CURLcode set_names(CURL *easy, const struct http_request *request, const struct http_route *route,
                          struct curl_slist **names, char detail[CURL_ERROR_SIZE])
{
    if (!resolve_is_without_threads())
        return CURLE_OK;
    const char *proxy = request->direct || getauxval(AT_SECURE) ? "" : route->proxy;
    CURLcode code = resolve_names(request->url, proxy, names, detail);
    return code == CURLE_OK && *names ? curl_easy_setopt(easy, CURLOPT_RESOLVE, *names) : code;
}

/*
 * libcurl has one code for a TLS handshake that was refused and for one that was cut off, which is no matter of trust.
 * Of what was refused, libssl says why.
 */
static bool is_cut_off(CURLcode code, const char *detail)
{
    return code == CURLE_SSL_CONNECT_ERROR && (!strstr(detail, "SSL routines") || strstr(detail, "unexpected eof"));
}

static enum http_transport transport_of(CURLcode code, const char *detail, const struct exchange *exchange, CURL *easy)
{
    if (exchange->too_large)
        return HTTP_TOO_LARGE;
    if (is_cut_off(code, detail))
        return HTTP_UNREACHABLE; /* nothing was sent yet */
    switch (code) {
    case CURLE_OK:
        return HTTP_OK;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
        return HTTP_UNREACHABLE;
    case CURLE_OPERATION_TIMEDOUT: {
        curl_off_t connected = 0;
        curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &connected);
        return connected ? HTTP_TIMED_OUT : HTTP_UNREACHABLE;
    }
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
        return HTTP_UNTRUSTED;
    case CURLE_FILESIZE_EXCEEDED:
        return HTTP_TOO_LARGE;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return HTTP_CUT;
    default:
        return HTTP_BROKEN;
    }
}

/* libcurl leaves SIGPIPE to the program when told to use no signals; a broken connection must not kill our host. */
static CURLcode perform_without_sigpipe(CURL *easy)
{
    sigset_t pipe_only, before, pending;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&pending);
    bool was_pending = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    CURLcode code = curl_easy_perform(easy);
    if (!was_pending) {
        const struct timespec now = {0};
        while (sigtimedwait(&pipe_only, NULL, &now) == SIGPIPE)
            ;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

static const char *reason(CURLcode code, const char *detail, const struct exchange *exchange, char *to, size_t size)
{
    if (exchange->too_large || code == CURLE_FILESIZE_EXCEEDED)
        snprintf(to, size, "the reply is over %d bytes", (int)HTTP_REPLY_MAX);
    else if (*detail)
        text_printable(detail, strlen(detail), to, size);
    else
        snprintf(to, size, "%s", curl_easy_strerror(code));
    return to;
}

envelope_status http_perform(const struct http_request *request, const struct http_route *route, int64_t deadline,
                             struct http_reply *reply)
{
    http_reply_clear(reply);
    if (clock_monotonic() >= deadline) {
        reply->transport = HTTP_TIMED_OUT;
        return error_raise(ENVELOPE_E_TIMEOUT, "the deadline passed before %s could be asked", request->url);
    }
    CURL *easy = handle_new();
    if (!easy) {
        reply->transport = HTTP_BROKEN;
        return error_status();
    }
    struct exchange exchange = {.reply = reply};
    struct curl_slist nodes[HTTP_HEADERS_MAX], *names = NULL;
    char detail[CURL_ERROR_SIZE] = "";
    http_memory_guard(request->signer ? credentials_secret(request->signer) : NULL);
    CURLcode code = curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, detail);
    code |= curl_easy_setopt(easy, CURLOPT_URL, request->url);
    code |= curl_easy_setopt(easy, CURLOPT_HTTPHEADER, header_list(request, nodes));
    code |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    code |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, &exchange);
    code |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    code |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, &exchange);
    code |= set_method(easy, request);
    code |= set_route(easy, request, route);
    code |= set_signature(easy, request);
    CURLcode named = set_names(easy, request, route, &names, detail);
    code |= set_limits(easy, deadline - clock_monotonic());
    if (code == CURLE_OK) {
        code = named == CURLE_OK ? perform_without_sigpipe(easy) : named;
        reply->transport = transport_of(code, detail, &exchange, easy);
    } else {
        reply->transport = HTTP_BROKEN;
        snprintf(detail, sizeof detail, "libcurl refuses the request's options");
    }
    if (reply->transport == HTTP_OK)
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &reply->status);
    curl_easy_cleanup(easy);
    curl_slist_free_all(names);
    http_memory_guard(NULL);
    if (another_may_do(reply->status))
        connections_drop();
    if (reply->transport == HTTP_OK)
        return ENVELOPE_OK;
    char text[CURL_ERROR_SIZE + 64];
    return error_raise(ENVELOPE_E_HSM_UNAVAILABLE, "%s %s: %s", method_names[request->method], request->url,
                       reason(code, detail, &exchange, text, sizeof text));
}
