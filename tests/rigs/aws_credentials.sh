#!/bin/bash
# Where the bridge's AWS credentials come from, how they are renewed, and what is said when they are refused; whom it
# trusts; which configuration it refuses.
set -u
# shellcheck source=tests/rigs/aws-rig.sh
. "$SOURCE_DIR/tests/rigs/aws-rig.sh"
# shellcheck source=tests/rigs/aws-client.sh
. "$SOURCE_DIR/tests/rigs/aws-client.sh"

trap 'client_kill; aws_rig_stop' EXIT
aws_rig_start "$SCRATCH/rig"
export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf
module=$BUILD_DIR/pkcs11/envelope-kms.so
encrypt="encrypt alias/first - 00112233"

restart() { # [LINE of kms.cnf…]
    client_stop
    aws_rig_config "$ENVELOPE_KMS_CONFIG" "$@"
    client_start "$module" rig
}

forget_aws() {
    local name
    for name in ${!AWS_@}; do unset "$name"; done
    export AWS_CONFIG_FILE=$SCRATCH/config AWS_SHARED_CREDENTIALS_FILE=$SCRATCH/credentials
    export AWS_EC2_METADATA_DISABLED=true
    rm -f "$SCRATCH/config" "$SCRATCH/credentials"
}

agent() { # LIFETIME
    aws_rig_do agent "{\"id\":\"$RIG_ALLOWED_ID\",\"secret\":\"$RIG_ALLOWED_SECRET\",\"lifetime\":$1}" >/dev/null
    aws_rig_do counts '{}' >/dev/null
}

echo "-- refused"
aws_rig_credentials ALLOWED
AWS_SECRET_ACCESS_KEY=wrong restart
says "$encrypt" "CKR_USER_NOT_LOGGED_IN credentials from environment: *the secret access key is wrong (this machine's clock is right)*SignatureDoesNotMatch*"
AWS_ACCESS_KEY_ID=AKIAAAAAAAAAAAAAAAAA restart
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *"
aws_rig_credentials DENIED
restart
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *a policy forbids it*"
forget_aws
restart
says "$encrypt" "CKR_USER_NOT_LOGGED_IN no AWS credentials*"
restart "credentials = environment"
says "$encrypt" "CKR_USER_NOT_LOGGED_IN AWS_ACCESS_KEY_ID*not both set*"
grep -qr "$RIG_ALLOWED_SECRET" "$SCRATCH"/client.err && fail "a secret in a message"

echo "-- C_Login carries them"
says "login nonsense" "CKR_PIN_INCORRECT *"
says "login $RIG_ALLOWED_ID:$RIG_ALLOWED_SECRET" "ok"
says "$encrypt" "ok *"
says "login again" "CKR_USER_ALREADY_LOGGED_IN*"
says "logout" "ok"
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *"

echo "-- shared files"
cat >"$SCRATCH/credentials" <<END
# not ours
[default]
aws_access_key_id = nobody
aws_secret_access_key = nothing
[prod]
aws_access_key_id=$RIG_ALLOWED_ID
aws_secret_access_key =  $RIG_ALLOWED_SECRET
END
cat >"$SCRATCH/config" <<END
[profile prod]
region = $RIG_REGION
s3 =
    max_concurrent_requests = 20
[profile assumed]
role_arn = $RIG_ROLE_ARN
source_profile = prod
role_session_name = rig
[profile circle]
role_arn = $RIG_ROLE_ARN
source_profile = circle2
[profile circle2]
role_arn = $RIG_ROLE_ARN
source_profile = circle
[profile sso]
sso_session = corp
END
restart "profile = prod"
says "$encrypt" "ok *"
AWS_PROFILE=prod restart
says "$encrypt" "ok *"
restart "profile = sso"
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *sso_session is not supported*"
restart "profile = absent"
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *\"absent\"*neither*"
restart "profile = circle"
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *circle*"
aws_rig_do counts '{}' >/dev/null
restart "profile = assumed"
says "$encrypt" "ok *"
says "$encrypt" "ok *"
[[ $(aws_rig_count AssumeRole) = 1 ]] || fail "AssumeRole was asked $(aws_rig_count AssumeRole) times"
aws_rig_do fault '{"action":"AssumeRole","kind":"throttle","times":2}' >/dev/null
restart "profile = assumed"
says "$encrypt" "ok *"

echo "-- container"
forget_aws
agent 3600
export AWS_CONTAINER_CREDENTIALS_FULL_URI=$RIG_URL/container AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=$SCRATCH/token
echo wrong >"$SCRATCH/token"
restart
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *"
echo container-token >"$SCRATCH/token"
says "$encrypt" "ok *"
agent -5
restart
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *expired already*clock*"
agent 3600
AWS_CONTAINER_CREDENTIALS_FULL_URI=http://192.0.2.1/x restart
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *must be https, or on this machine*"

echo "-- instance metadata, version 2"
forget_aws
unset AWS_EC2_METADATA_DISABLED
agent 3600
restart "imds-endpoint = $RIG_URL"
says "$encrypt" "ok *"
says "$encrypt" "ok *"
[[ $(aws_rig_count metadata) = 3 ]] || fail "metadata was asked $(aws_rig_count metadata) times"
agent 200 # within the five minutes before they expire: renewed early, used meanwhile
restart "imds-endpoint = $RIG_URL"
says "$encrypt" "ok *"
says "threads 4 3 alias/first" "ok"
agent -5
restart "imds-endpoint = $RIG_URL"
says "$encrypt" "ok *" # while metadata cannot renew them: AWS decides
agent 2
restart "imds-endpoint = $RIG_URL"
says "$encrypt" "ok *"
aws_rig_do agent '{}' >/dev/null
says "$encrypt" "ok *" # renewing fails: what still works is used
sleep 2.2
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *no role for this instance*"
agent 3600
says "$encrypt" "ok *"
restart "imds-endpoint = http://127.0.0.1:1"
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *instance metadata is not reachable*"

echo "-- web identity"
forget_aws
agent 3600
export AWS_ROLE_ARN=$RIG_ROLE_ARN AWS_WEB_IDENTITY_TOKEN_FILE=$SCRATCH/jwt
restart
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *web identity token cannot be used*"
echo "no token" >"$SCRATCH/jwt"
says "$encrypt" "CKR_USER_NOT_LOGGED_IN *InvalidIdentityToken*No token & no role*"
echo "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyaWcifQ." >"$SCRATCH/jwt"
agent 3600
says "$encrypt" "ok *"
says "$encrypt" "ok *"
[[ $(aws_rig_count AssumeRoleWithWebIdentity) = 1 ]] || fail "the role was not assumed once"

echo "-- whom it trusts, how it gets there"
aws_rig_credentials ALLOWED
restart "endpoint = $RIG_TLS_URL" "ca-file = $SCRATCH/rig/ca.pem"
says "$encrypt" "ok *"
restart "endpoint = $RIG_TLS_URL" "ca-file = $SCRATCH/rig/other-ca.pem"
says "$encrypt" "CKR_TOKEN_NOT_RECOGNIZED *certificate*"
restart "endpoint = $RIG_TLS_URL"
says "$encrypt" "CKR_TOKEN_NOT_RECOGNIZED *certificate*"
restart "endpoint = $RIG_TLS_URL" "ca-file = /nonexistent"
says "$encrypt" "CKR_TOKEN_NOT_RECOGNIZED *"
restart "endpoint = http://127.0.0.1:1"
says "$encrypt" "CKR_DEVICE_REMOVED *"
restart "proxy = http://127.0.0.1:1"
says "$encrypt" "CKR_DEVICE_REMOVED *"
http_proxy=http://127.0.0.1:1 restart "proxy = none"
says "$encrypt" "ok *"
client_stop

echo "-- configuration it refuses"
refused() { # PATTERN LINE…
    local pattern=$1 shown
    shift
    aws_rig_config "$ENVELOPE_KMS_CONFIG" "$@"
    shown=$("$BUILD_DIR/tests/rigs/aws-client" "$module" rig </dev/null)
    # shellcheck disable=SC2053
    [[ $shown = $pattern ]] || fail "$*: $shown"
    checks=$((checks + 1))
}
refused "CKR_FUNCTION_FAILED *http:// is for this machine only*" "endpoint = http://kms.example.com"
refused "CKR_FUNCTION_FAILED *http:// is for this machine only*" "endpoint = http://127.0.0.1.example.com"
refused "CKR_FUNCTION_FAILED *must be https://HOST*" "endpoint = https://user@kms.example.com"
refused "CKR_FUNCTION_FAILED *address means nothing to backend = aws-kms*" "address = https://127.0.0.1"
refused "CKR_FUNCTION_FAILED *regoin*region*" "regoin = eu-west-1"
refused "CKR_FUNCTION_FAILED *pending-days*" "pending-days = 3"
refused "CKR_FUNCTION_FAILED *not the name of a region*" "region = ../x"
aws_rig_config "$ENVELOPE_KMS_CONFIG"
chmod g+w "$ENVELOPE_KMS_CONFIG"
shown=$("$BUILD_DIR/tests/rigs/aws-client" "$module" rig </dev/null)
[[ $shown = *"can be written by others"* ]] || fail "$shown"
echo "passed: $checks checks"
