#include "aws.h"

#include "backends.h"

static enum backend_step step(const void *state, struct backend_call *call, const struct http_reply *reply,
                              struct http_request *request)
{
    switch (call->op) {
    case BACKEND_AUTHENTICATE:
        return aws_step_auth(state, call, reply, request);
    case BACKEND_LIST:
    case BACKEND_DESCRIBE:
        return aws_step_keys(state, call, reply, request);
    case BACKEND_CREATE:
    case BACKEND_DELETE:
        return aws_step_admin(state, call, reply, request);
    case BACKEND_ENCRYPT:
    case BACKEND_DECRYPT:
    case BACKEND_REWRAP:
    case BACKEND_RANDOM:
    case BACKEND_DATA_KEY:
    case BACKEND_SET_VERSIONS: /* not offered, so never asked: token.c */
    case BACKEND_BATCH:
        break;
    case BACKEND_VERSIONS:
    case BACKEND_ROTATE:
        return aws_step_rotate(state, call, reply, request);
    }
    return aws_step_crypt(state, call, reply, request);
}

const struct backend aws_backend = {
    .name = "aws-kms",
    .model = "AWS KMS",
    .max_plaintext = 4096,
    .max_ciphertext = 6144,
    .oaep_sha1 = true,
    .oaep_sha256 = true,
    .random = true,
    .reencrypt = true,
    .versions = true,
    .rotate = true,
    .data_key = aws_makes_data_key,
    .open = aws_open,
    .close = aws_close,
    .is_also = aws_is_also,
    .step = step,
};
