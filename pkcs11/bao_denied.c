/*
 * 403 is the answer to what a policy does not allow, and also to a login that is over. A new login is worth it only for
 * the latter: it costs the server a token and may cost a secret id its only use, and the old login is given up for it.
 * So the token is asked about first. One from a file is not: reading it again costs nothing, and finds what an agent
 * has put there.
 */
#include "bao.h"

#include "base/error.h"
#include "base/text.h"

bool bao_denied_asks(const struct backend_call *call)
{
    const struct bao_work *work = call->work;
    return work && work->refused;
}

enum backend_step bao_denied_ask(const struct bao *bao, struct backend_call *call, struct http_request *request)
{
    if (bao->auth == BAO_AUTH_TOKEN)
        return BACKEND_REAUTH;
    struct bao_work *work = bao_work(call);
    if (!work)
        return BACKEND_FAILED;
    work->refused = text_copy(error_text());
    if (!work->refused)
        return backend_fail(call, CKR_HOST_MEMORY, ENVELOPE_E_NO_MEMORY);
    if (!bao_request(bao, call, request, HTTP_GET, NULL, "auth/token/lookup-self"))
        return BACKEND_FAILED;
    return bao_send(call, request, call->stage);
}

enum backend_step bao_denied_judge(struct backend_call *call, const struct http_reply *reply)
{
    const struct bao_work *work = call->work;
    call->rv = CKR_USER_NOT_LOGGED_IN;
    error_raise(ENVELOPE_E_HSM_LOGIN, "%s", work->refused);
    if (reply->status == 429 || reply->status >= 500)
        return BACKEND_RETRY;
    if (reply->status < 200 || reply->status > 299)
        return BACKEND_REAUTH;
    error_context(ENVELOPE_E_HSM_LOGIN, "the login is good, so its policy does not allow this");
    return BACKEND_FAILED;
}
