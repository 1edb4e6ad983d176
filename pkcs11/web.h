/*
 * What backends share: addresses, forms, base64url, JSON bodies; and bearer tokens, their requests and replies (Azure,
 * Google).
 */
#ifndef PKCS11_WEB_H
#define PKCS11_WEB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#include "backend.h"

/* http:// to an address of the machine's own link (169.254.…), as metadata services have; not to a name like it. */
bool web_is_link_local(const char *url);
/* ENVELOPE_E_CONFIG unless https://HOST[:PORT], or http:// to this machine. what names the setting. */
envelope_status web_check_endpoint(const struct token_settings *settings, const char *what, const char *url);
/* A copy of an address without slashes at its end, checked as above. */
envelope_status web_copy_endpoint(const struct token_settings *settings, const char *what, const char *url,
                                  char **copy);

/* Which of these names the setting `auth` is; ENVELOPE_E_CONFIG, with all of them in its text, if it is none. */
envelope_status web_choose_auth(const struct token_settings *settings, const char *const *names, size_t count,
                                size_t *chosen);

/* ENVELOPE_E_CONFIG: the setting `auth` needs that; or has no use for this one. */
envelope_status web_missing(const struct token_settings *settings, const char *what);
envelope_status web_meaningless(const struct token_settings *settings, const char *name);

/*
 * A copy of imds-endpoint, which is the first of `known` where it is not set. Those speak plain HTTP on the machine's
 * own link; any other is checked as above.
 */
envelope_status web_copy_metadata(const struct token_settings *settings, const char *const *known, size_t count,
                                  char **copy);

/* call->work, made (zeroed) at first use; NULL with rv and the error set. */
void *web_work(struct backend_call *call, size_t size, void (*release)(void *work));

/* &name=value, escaped. */
void web_form_add(struct buffer *form, const char *name, const char *value);

/* RFC 4648 base64url without padding; decoding is strict. */
void web_append_base64url(struct buffer *to, const uint8_t *bytes, size_t count);
bool web_append_unbase64url(struct buffer *to, const char *text, size_t count);

/* Members of a JSON body that begins with "{" and is ended with web_body_close. */
void web_body_text(struct http_request *request, const char *name, const char *value);
void web_body_base64(struct http_request *request, const char *name, const uint8_t *bytes, size_t count);
void web_body_base64url(struct http_request *request, const char *name, const uint8_t *bytes, size_t count);
void web_body_number(struct http_request *request, const char *name, uint64_t value, bool quoted);
/* BACKEND_SEND, or FAILED for want of memory. */
enum backend_step web_body_close(struct backend_call *call, struct http_request *request);

/* A request with the call's bearer token; false with rv and the error set. A POST gets its "{". */
bool web_request(struct backend_call *call, struct http_request *request, enum http_method method, const char *format,
                 ...) __attribute__((format(printf, 4, 5)));

/*
 * Take the base64 (or base64url) value of a member out of the reply's body, before a general parser sees it. The body
 * keeps the rest. False if it is not there or not base64.
 */
bool web_take_bytes(struct buffer *body, const char *name, bool url, struct buffer *to);

/* {"access_token":…,"expires_in":…} into call->made: DONE, or FAILED. source is static. */
enum backend_step web_take_token(struct backend_call *call, const struct http_reply *reply, const char *source);
/*
 * A token endpoint's refusal (RFC 6749: error, error_description), or an outage: FAILED, or RETRY. who names the
 * endpoint.
 */
enum backend_step web_judge_token(struct backend_call *call, const struct http_reply *reply, const char *who);

#endif
