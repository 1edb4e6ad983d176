/*
 * Logging in: a token, AppRole, a TLS client certificate, a Kubernetes service
 * account. Tokens are renewed while the service lets them live; one that
 * cannot be renewed any more is replaced by a new login (or read again, from a
 * file that an agent keeps fresh).
 */
#include "bao.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "web.h"
#include "base/secmem.h"
#include "local.h"

enum { RENEW = 1, LOGIN, LOOKUP, RENEW_FILE };

static const char service_account_token[] = "/var/run/secrets/kubernetes.io/serviceaccount/token";

static const char *const sources[] = {
    [BAO_AUTH_TOKEN] = "token",
    [BAO_AUTH_APPROLE] = "AppRole",
    [BAO_AUTH_CERT] = "TLS certificate",
    [BAO_AUTH_KUBERNETES] = "Kubernetes service account",
};

static bool has_pin(const struct backend_call *call)
{
    return call->pin && *call->pin;
}

/* A login that is refused: the PIN's fault where a PIN was given. */
static enum backend_step login_refused(const struct bao *bao, struct backend_call *call, const char *hint)
{
    return backend_fail(call, has_pin(call) ? CKR_PIN_INCORRECT : CKR_USER_NOT_LOGGED_IN,
                        error_raise(ENVELOPE_E_HSM_LOGIN, "OpenBao token \"%s\": login by %s was refused: %s; %s",
                                    bao->settings->label, sources[bao->auth], call->service_message, hint));
}

/* The service judged the credentials; anything else is its own trouble. */
static bool refuses_login(const struct backend_call *call, const struct http_reply *reply, enum backend_step step)
{
    return step == BACKEND_REAUTH ||
           (step == BACKEND_FAILED && (reply->status == 400 || call->rv == CKR_USER_NOT_LOGGED_IN));
}

/*
 * The first lease is kept in the credentials' id: a renewal that brings much less than it is the last breath of a
 * token near its maximum lifetime.
 */
static enum backend_step make_credentials(const struct bao *bao, struct backend_call *call, const char *token,
                                          int64_t lease, int64_t first_lease, bool renewable)
{
    char remembered[32];
    int64_t expires = 0;
    if (lease > 0 && lease < INT32_MAX)
        expires = clock_wall() + lease * CLOCK_SECOND;
    snprintf(remembered, sizeof remembered, "%" PRId64, renewable ? first_lease : 0);
    call->made = credentials_new(remembered, NULL, token, expires);
    if (!call->made)
        return backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
    credentials_set_source(call->made, sources[bao->auth]);
    /* Not minutes before the end, as others: what keeps the server away for so long would end a token from a file. */
    credentials_set_early(call->made, expires ? lease * CLOCK_SECOND / 2 : 0);
    return BACKEND_DONE;
}

static int64_t first_lease_of(const struct credentials *credentials)
{
    int64_t lease = 0;
    if (!credentials || sscanf(credentials_id(credentials), "%" SCNd64, &lease) != 1)
        return 0;
    return lease;
}

static enum backend_step renew_send(const struct bao *bao, struct backend_call *call, struct http_request *request,
                                    const char *token, unsigned stage)
{
    if (!bao_request(bao, call, request, HTTP_POST, token, "auth/token/renew-self"))
        return BACKEND_FAILED;
    return bao_send(call, request, stage);
}

/* ---- logins ---- */

/* One secret from a file into the body, as a JSON string. */
static bool body_file(struct backend_call *call, struct http_request *request, const char *name, const char *path)
{
    struct buffer text = {0};
    envelope_status status = local_read_line(path, &text);
    if (!status && strlen(buffer_text(&text)) != text.length)
        status = error_raise(ENVELOPE_E_IO, "\"%s\" is not a text file", path);
    if (!status)
        web_body_text(request, name, buffer_text(&text));
    else
        backend_fail(call, CKR_USER_NOT_LOGGED_IN, status);
    buffer_clear(&text);
    return !status;
}

static bool approle_body(const struct bao *bao, struct backend_call *call, struct http_request *request)
{
    const struct token_settings *settings = bao->settings;
    if (settings->role_id_file && !body_file(call, request, "role_id", settings->role_id_file))
        return false;
    if (!settings->role_id_file)
        web_body_text(request, "role_id", settings->role);
    if (has_pin(call))
        web_body_text(request, "secret_id", call->pin);
    else if (settings->secret_id_file)
        return body_file(call, request, "secret_id", settings->secret_id_file);
    return true;
}

static bool login_body(const struct bao *bao, struct backend_call *call, struct http_request *request)
{
    const struct token_settings *settings = bao->settings;
    if (bao->auth == BAO_AUTH_APPROLE)
        return approle_body(bao, call, request);
    if (settings->role)
        web_body_text(request, bao->auth == BAO_AUTH_CERT ? "name" : "role", settings->role);
    if (bao->auth == BAO_AUTH_CERT)
        return true;
    return body_file(call, request, "jwt", settings->jwt_file ? settings->jwt_file : service_account_token);
}

static enum backend_step not_sent_again(const struct bao *bao, struct backend_call *call, int64_t left)
{
    return backend_fail(call, CKR_USER_NOT_LOGGED_IN,
                        error_raise(ENVELOPE_E_HSM_LOGIN,
                                    "OpenBao token \"%s\": login by %s was refused: %s; the same credentials are not "
                                    "tried again for %" PRId64 " s, since the server locks a role out after some "
                                    "tries; new ones are used at once",
                                    bao->settings->label, sources[bao->auth], call->service_message,
                                    left / CLOCK_SECOND + 1));
}

static enum backend_step login_send(const struct bao *bao, struct backend_call *call, struct http_request *request)
{
    if (has_pin(call) && bao->auth != BAO_AUTH_APPROLE)
        return backend_fail(call, CKR_PIN_INCORRECT,
                            error_raise(ENVELOPE_E_HSM_LOGIN, "OpenBao token \"%s\": auth = %s takes no PIN",
                                        bao->settings->label, bao->settings->auth));
    if (!bao_request(bao, call, request, HTTP_POST, "", "%s/login", bao->auth_mount))
        return BACKEND_FAILED;
    request->once = bao->auth == BAO_AUTH_APPROLE; /* a secret id may be good for one login only */
    if (!login_body(bao, call, request))
        return BACKEND_FAILED;
    enum backend_step step = bao_send(call, request, LOGIN);
    int64_t left = step == BACKEND_SEND && !has_pin(call) ? bao_lockout_left(bao->lockout, call, &request->body) : 0;
    return left ? not_sent_again(bao, call, left) : step;
}

/* auth.client_token and its lease, from a login or a renewal. */
static enum backend_step take_login(const struct bao *bao, struct backend_call *call, const json_t *root,
                                    int64_t first_lease)
{
    const json_t *auth = json_object_get(root, "auth");
    int64_t lease = 0;
    size_t length = 0;
    bool renewable = json_is_true(json_object_get(auth, "renewable"));
    const char *token = bao_secret(call, auth, "client_token", &length);
    if (!token || !length || !bao_integer(json_object_get(auth, "lease_duration"), &lease) || lease < 0)
        return bao_malformed(call, "log in by", sources[bao->auth], "auth.client_token");
    return make_credentials(bao, call, token, lease, first_lease ? first_lease : lease, renewable);
}

/* A renewal is worth having if it brings at least half of the first lease. */
static bool renewed_enough(const json_t *root, int64_t first_lease)
{
    int64_t lease = 0;
    const json_t *auth = json_object_get(root, "auth");
    return bao_integer(json_object_get(auth, "lease_duration"), &lease) && (lease == 0 || lease >= first_lease / 2);
}

static enum backend_step login_step(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                                    struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    int64_t first_lease = first_lease_of(call->credentials);
    if (!reply) {
        if (first_lease > 0 && !has_pin(call))
            return renew_send(bao, call, request, NULL, RENEW);
        return login_send(bao, call, request);
    }
    const char *doing = call->stage == RENEW ? "renew the login by" : "log in by";
    if (bao_accepted(bao, call, reply, doing, sources[bao->auth], &root, &step)) {
        if (call->stage == RENEW && !renewed_enough(root, first_lease))
            return login_send(bao, call, request);
        return take_login(bao, call, root, call->stage == RENEW ? first_lease : 0);
    }
    if (!refuses_login(call, reply, step))
        return step;
    if (call->stage == RENEW)
        return login_send(bao, call, request);
    if (bao->auth == BAO_AUTH_APPROLE && step == BACKEND_FAILED)
        bao_lockout_note(bao->lockout, call, &request->body);
    return login_refused(bao, call, "check the role and the credentials named in kms.cnf");
}

/* ---- a token from the PIN, a file or the environment ---- */

static bool read_token(const struct bao *bao, struct backend_call *call, struct buffer *token)
{
    const char *known = has_pin(call) ? call->pin : NULL;
    if (!known && bao->settings->token_file) {
        envelope_status status = local_read_line(bao->settings->token_file, token);
        if (status)
            backend_fail(call, CKR_USER_NOT_LOGGED_IN, status);
        return !status;
    }
    if (!known)
        known = local_env("BAO_TOKEN");
    if (!known)
        known = local_env("VAULT_TOKEN");
    if (!known) {
        backend_fail(call, CKR_USER_NOT_LOGGED_IN,
                     error_raise(ENVELOPE_E_HSM_LOGIN,
                                 "OpenBao token \"%s\": no token: set token-file in kms.cnf, BAO_TOKEN, or log in with "
                                 "the token as PIN",
                                 bao->settings->label));
        return false;
    }
    buffer_append_text(token, known);
    if (!buffer_ok(token))
        backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
    return buffer_ok(token);
}

static enum backend_step lookup_send(const struct bao *bao, struct backend_call *call, struct bao_work *work,
                                     struct http_request *request)
{
    buffer_reset(&work->secret);
    if (!read_token(bao, call, &work->secret))
        return BACKEND_FAILED;
    if (work->secret.length == 0 || strlen(buffer_text(&work->secret)) != work->secret.length)
        return backend_fail(call, CKR_USER_NOT_LOGGED_IN,
                            error_raise(ENVELOPE_E_HSM_LOGIN, "OpenBao token \"%s\": \"%s\" holds no token",
                                        bao->settings->label,
                                        bao->settings->token_file ? bao->settings->token_file : "the PIN"));
    if (!bao_request(bao, call, request, HTTP_GET, buffer_text(&work->secret), "auth/token/lookup-self"))
        return BACKEND_FAILED;
    return bao_send(call, request, LOOKUP);
}

/* Renewed at once where less than half of its life is left, and where it is our own that is being refreshed. */
static enum backend_step take_lookup(const struct bao *bao, struct backend_call *call, struct bao_work *work,
                                     const json_t *root, struct http_request *request)
{
    const json_t *data = json_object_get(root, "data");
    int64_t first = 0;
    const char *token = buffer_text(&work->secret);
    if (!bao_integer(json_object_get(data, "ttl"), &work->lease) || work->lease < 0)
        return bao_malformed(call, "look up", "the token", "data.ttl");
    if (!bao_integer(json_object_get(data, "creation_ttl"), &first) || first < 0)
        first = work->lease;
    bool renewable = json_is_true(json_object_get(data, "renewable"));
    bool refreshed = call->credentials && strcmp(credentials_token(call->credentials), token) == 0;
    /* A ttl of 0 is a root token's for ever, or what is left of the last second. */
    if (!json_is_string(json_object_get(data, "expire_time")))
        return make_credentials(bao, call, token, 0, 0, false);
    if (renewable && (refreshed || work->lease <= first / 2))
        return renew_send(bao, call, request, token, RENEW_FILE);
    return make_credentials(bao, call, token, work->lease ? work->lease : 1, first, renewable);
}

static enum backend_step token_step(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                                    struct http_request *request)
{
    const json_t *root;
    enum backend_step step;
    struct bao_work *work = bao_work(call);
    if (!work)
        return BACKEND_FAILED;
    if (!reply)
        return lookup_send(bao, call, work, request);
    const char *doing = call->stage == LOOKUP ? "look up" : "renew";
    bool accepted = bao_accepted(bao, call, reply, doing, "the token", &root, &step);
    if (accepted && call->stage == LOOKUP)
        return take_lookup(bao, call, work, root, request);
    if (accepted)
        return take_login(bao, call, root, 0);
    if (!refuses_login(call, reply, step))
        return step;
    /* Not ours to renew, or at the end of its life: it serves until it expires. */
    if (call->stage == RENEW_FILE)
        return make_credentials(bao, call, buffer_text(&work->secret), work->lease ? work->lease : 1, 0, false);
    return login_refused(bao, call,
                         "it has expired, was revoked, or its policy forbids auth/token/lookup-self (the policy "
                         "\"default\" allows it)");
}

enum backend_step bao_authenticate(const struct bao *bao, struct backend_call *call, const struct http_reply *reply,
                                   struct http_request *request)
{
    return bao->auth == BAO_AUTH_TOKEN ? token_step(bao, call, reply, request) : login_step(bao, call, reply, request);
}
