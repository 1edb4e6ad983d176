/*
 * The one place of the bridge that talks to a network. A request is bytes, a
 * reply is bytes; who builds and reads them (backend.h) never sees a socket.
 */
#ifndef PKCS11_HTTP_H
#define PKCS11_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

#include "buffer.h"
#include "credentials.h"

enum { HTTP_HEADERS_MAX = 16, HTTP_REPLY_MAX = 1 << 20, HTTP_REPLY_HEADERS_MAX = 1 << 16 };

enum http_method { HTTP_GET, HTTP_POST, HTTP_PUT, HTTP_DELETE, HTTP_LIST };

struct http_request {
    enum http_method method;
    char *url;             /* http_request_url() */
    struct buffer headers; /* "Name: value\0" each; http_request_header() */
    struct buffer body;

    /* AWS Signature Version 4; signer NULL: not signed. The pointers must outlive the request. */
    const struct credentials *signer;
    const char *sign_region;
    const char *sign_service;

    const char *ca_file; /* whom to trust where the route does not say; not copied */
    bool once;           /* not idempotent: sent again only if it certainly was not carried out */
    bool direct;         /* no proxy: link-local and loopback services */
    bool optional;       /* the step wants to see a transport failure (reply->transport) instead of the call failing */
    int64_t timeout;     /* microseconds for one attempt; 0: the token's */
};

/* Why there is no reply. Everything but HTTP_OK leaves status 0. */
enum http_transport {
    HTTP_OK,
    HTTP_UNREACHABLE, /* no connection was made: the request was certainly not carried out */
    HTTP_CUT,         /* the connection broke after it was made */
    HTTP_TIMED_OUT,
    HTTP_UNTRUSTED, /* TLS: certificate, version, client key */
    HTTP_TOO_LARGE,
    HTTP_BROKEN /* not HTTP, out of memory, bad options */
};

struct http_reply {
    enum http_transport transport;
    long status;
    struct buffer headers; /* the final response's, as received */
    struct buffer body;
};

/* How to reach a service; strings may be NULL. */
struct http_route {
    const char *ca_file;
    const char *client_cert;
    const char *client_key;
    const char *proxy; /* NULL: the environment's, "" none */
};

/* The URL must be plain ASCII without blanks. Raises on failure. */
envelope_status http_request_url(struct http_request *request, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/*
 * Refuses CR, LF and NUL in the value (ENVELOPE_E_ARGUMENT), so that nothing can be smuggled into a request, and more
 * than HTTP_HEADERS_MAX.
 */
envelope_status http_request_header(struct http_request *request, const char *name, const char *value);
void http_request_clear(struct http_request *request);

/* Copies the value of the first header of that name (any case); false if there is none or it does not fit. */
bool http_reply_header(const struct http_reply *reply, const char *name, char *value, size_t capacity);
void http_reply_clear(struct http_reply *reply);

/*
 * Send once, wait at most until deadline (clock_monotonic()). Not a 2xx status is no error here. On a transport
 * failure the text of libcurl is raised (ENVELOPE_E_HSM_UNAVAILABLE) and returned.
 * Connections are kept per thread and never shared with a forked child.
 */
envelope_status http_perform(const struct http_request *request, const struct http_route *route, int64_t deadline,
                             struct http_reply *reply);

/* Process-wide set-up, before the first http_perform. Thread-safe, idempotent. */
envelope_status http_setup(void);

#endif
