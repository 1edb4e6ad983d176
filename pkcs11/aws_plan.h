/*
 * Where credentials come from, decided by local facts alone before anything is
 * sent: a first source, then the roles to assume with it, innermost first.
 */
#ifndef PKCS11_AWS_PLAN_H
#define PKCS11_AWS_PLAN_H

#include "aws.h"

enum { AWS_ROLES_MAX = 5 };

enum aws_origin { AWS_FROM_KEYS, AWS_FROM_WEB_IDENTITY, AWS_FROM_CONTAINER, AWS_FROM_INSTANCE };

struct aws_role {
    char *arn, *external_id, *session_name;
};

struct aws_plan {
    enum aws_origin origin;
    struct credentials *keys; /* AWS_FROM_KEYS */
    char *token_file;         /* AWS_FROM_WEB_IDENTITY: the JWT's file and the role it opens */
    struct aws_role web_role;
    char *container_url;
    struct buffer container_token;
    struct aws_role roles[AWS_ROLES_MAX];
    size_t role_count;
};

/* pin: "ID:SECRET" or "ID:SECRET:SESSION-TOKEN" from C_Login, or empty. Raises ENVELOPE_E_HSM_LOGIN or _CONFIG. */
envelope_status aws_plan_make(const struct aws *aws, const char *pin, struct aws_plan *plan);
void aws_plan_clear(struct aws_plan *plan);

/*
 * Credentials from texts, which go into headers: printable ASCII without blanks. ENVELOPE_E_HSM_LOGIN if they are not;
 * the error names the source (static text), not the texts.
 */
envelope_status aws_credentials_make(const char *id, const char *secret, const char *token, int64_t expires,
                                     const char *source, struct credentials **made);

#endif
