#!/bin/bash
# No wait goes past the deadline, wherever it is: connecting, TLS, a proxy, headers, a body, credentials, another thread's
# credentials. And what must be sent once is sent once; a proxy sees what it should and nothing else.
set -u
# shellcheck source=tests/rigs/aws-rig.sh
. "$SOURCE_DIR/tests/rigs/aws-rig.sh"
# shellcheck source=tests/rigs/aws-client.sh
. "$SOURCE_DIR/tests/rigs/aws-client.sh"

trap 'client_kill; aws_rig_stop' EXIT
aws_rig_start "$SCRATCH/rig"
"$aws_rig_py" "$SOURCE_DIR/tests/rigs/tarpit.py" "$SCRATCH/pits" "$RIG_URL" "${RIG_TLS_URL##*:}" >"$SCRATCH/tarpit.log" 2>&1 &
aws_rig_pids+=($!)
aws_rig_wait "$SCRATCH/pits" $! "$SCRATCH/tarpit.log" || exit 1
# shellcheck disable=SC1091
. "$SCRATCH/pits"
export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf
module=$BUILD_DIR/pkcs11/envelope-kms.so
encrypt="encrypt alias/first - 00112233"

restart() { # [LINE of kms.cnf…]
    client_stop
    aws_rig_config "$ENVELOPE_KMS_CONFIG" "$@"
    # One attempt may take as long as all: so that it is the deadline that ends it, where nothing else does.
    sed -i "s/^deadline.*/deadline = ${patience:-2s}/; s/^timeout.*/timeout = 1m/" "$ENVELOPE_KMS_CONFIG"
    client_start "$module" rig
}
fault() { aws_rig_do fault "{\"action\":\"$1\",\"kind\":\"$2\"${3:+,\"times\":$3}}" >/dev/null; }
clear() { aws_rig_do clear >/dev/null; }
# The deadline is 2 s; all that waits here does so for a minute and more. What lies between is for busy machines.
ends() { # COMMAND PATTERN
    local begin=$SECONDS
    says "$1" "$2"
    ((SECONDS - begin < 30)) || fail "$1: $((SECONDS - begin)) s went by"
}
# shellcheck disable=SC2154 # from the file of the pits
{
    echo "-- connecting, TLS, proxies"
    aws_rig_credentials ALLOWED
    restart "endpoint = http://127.0.0.1:$accepts"
    ends "$encrypt" "CKR_DEVICE_REMOVED *timed out*"
    restart "endpoint = http://127.0.0.1:$full"
    ends "$encrypt" "CKR_DEVICE_REMOVED *"
    restart "endpoint = https://127.0.0.1:$accepts"
    ends "$encrypt" "CKR_DEVICE_REMOVED *"
    restart "endpoint = https://127.0.0.1:$greets"
    ends "$encrypt" "CKR_DEVICE_REMOVED *"
    # A handshake that is cut off is a broken connection, tried again; one that is refused is not.
    patience=30s restart "endpoint = https://127.0.0.1:$cuts" "ca-file = $SCRATCH/rig/ca.pem"
    says "$encrypt" "ok *"
    restart "endpoint = https://127.0.0.1:$never" "ca-file = $SCRATCH/rig/ca.pem"
    ends "$encrypt" "CKR_DEVICE_REMOVED gave up after *"
    patience=30s restart "endpoint = https://127.0.0.1:$refuses" "ca-file = $SCRATCH/rig/ca.pem"
    says "$encrypt" "CKR_TOKEN_NOT_RECOGNIZED *"
    for pit in accepts tunnels full; do
        restart "endpoint = $RIG_TLS_URL" "ca-file = $SCRATCH/rig/ca.pem" "proxy = http://127.0.0.1:${!pit}"
        ends "$encrypt" "CKR_DEVICE_REMOVED *"
    done

    echo "-- replies"
    restart
    says "$encrypt" "ok *"
    for kind in silent slow slow-header continue; do
        fault Encrypt $kind
        ends "$encrypt" "CKR_DEVICE_REMOVED *"
        clear
    done
    fault Encrypt throttle
    ends "$encrypt" "CKR_DEVICE_@(ERROR|REMOVED) *ThrottlingException*" # as the last try ends
    clear
    fault Encrypt redirect # is not followed
    says "$encrypt" "CKR_DEVICE_ERROR *no error name, HTTP 307*"
    clear
    says "$encrypt" "ok *"
    says "files" "ok *"
    files=${reply#ok }
    mapfile -t raw < <(sed -n 's/^    "\(raw-[a-z-]*\)".*/\1/p' "$SOURCE_DIR/tests/rigs/fault_proxy.py")
    ((${#raw[@]} >= 12)) || fail "only ${#raw[@]} raw replies"
    for kind in "${raw[@]}"; do
        for action in Encrypt DescribeKey; do
            fault "$action" "$kind"
            if [[ $action = Encrypt ]]; then ends "$encrypt" "CKR_DEVICE_* *"; else ends "find alias/second" "CKR_DEVICE_* *"; fi
            clear
        done
        says "$encrypt" "ok *"
    done
    says "files" "ok *"
    ((${reply#ok } <= files + 1)) || fail "$files open files have become ${reply#ok }"
    alias_arn=${RIG_FIRST_ARN%%key/*}alias/first # as an alias of another account is named
    says "find $alias_arn" "ok 1"
    says "encrypt $alias_arn - 0011" "ok *"

    echo "-- credentials"
    printf '[profile assumed]\nrole_arn = %s\nsource_profile = base\n[profile base]\n' "$RIG_ROLE_ARN" >"$SCRATCH/config"
    printf 'aws_access_key_id = %s\naws_secret_access_key = %s\n' "$RIG_ALLOWED_ID" "$RIG_ALLOWED_SECRET" >>"$SCRATCH/config"
    export AWS_CONFIG_FILE=$SCRATCH/config
    for kind in silent slow-header throttle; do
        fault AssumeRole $kind
        restart "profile = assumed"
        ends "$encrypt" "CKR_DEVICE_* *"
        # Eight threads: one asks, the others wait for it, and then each has its own turn and its own deadline.
        ends "threads 8 1 alias/first" "CKR_DEVICE_*"
        clear
        says "$encrypt" "ok *" # and it is as it was
    done
    aws_rig_do counts '{}' >/dev/null
    patience=30s restart "profile = assumed"
    says "threads 8 2 alias/first" "ok"
    [[ $(aws_rig_count AssumeRole) = 1 ]] || fail "the role was assumed $(aws_rig_count AssumeRole) times"
    fault '*' quoted
    says "$encrypt" "CKR_USER_NOT_LOGGED_IN *the secret access key is wrong*InvalidSignatureException*"
    [[ $reply != *Canonical* && $reply != *security-token* ]] || fail "the request was quoted: $reply"
    clear
    says "$encrypt" "ok *"

    for name in ${!AWS_@}; do unset "$name"; done
    export AWS_CONFIG_FILE=/nonexistent AWS_SHARED_CREDENTIALS_FILE=/nonexistent
    aws_rig_do agent "{\"id\":\"$RIG_ALLOWED_ID\",\"secret\":\"$RIG_ALLOWED_SECRET\",\"lifetime\":3600}" >/dev/null
    for kind in silent slow slow-header; do
        fault metadata $kind
        restart "imds-endpoint = $RIG_URL"
        ends "$encrypt" "CKR_USER_NOT_LOGGED_IN *does not answer*hop limit*"
        clear
    done
    restart "imds-endpoint = http://127.0.0.1:$full"
    ends "$encrypt" "CKR_USER_NOT_LOGGED_IN *instance metadata*"
    # Each of its three answers comes late, and all of them within the deadline or not at all.
    fault metadata silent 1
    restart "imds-endpoint = $RIG_URL"
    ends "$encrypt" "CKR_USER_NOT_LOGGED_IN *"
    says "$encrypt" "ok *"
    clear
    for kind in silent slow; do
        fault container $kind
        AWS_CONTAINER_CREDENTIALS_FULL_URI=$RIG_URL/container AWS_CONTAINER_AUTHORIZATION_TOKEN=container-token restart
        ends "$encrypt" "CKR_DEVICE_REMOVED *"
        clear
        says "$encrypt" "ok *"
    done
    # A file in whose place somebody put a pipe; one that has a writer, who writes nothing.
    mkfifo "$SCRATCH/pipe"
    AWS_WEB_IDENTITY_TOKEN_FILE=$SCRATCH/pipe AWS_ROLE_ARN=$RIG_ROLE_ARN restart
    ends "$encrypt" "CKR_USER_NOT_LOGGED_IN *pipe*"
    exec {writer}<>"$SCRATCH/pipe"
    ends "$encrypt" "CKR_USER_NOT_LOGGED_IN *pipe*"
    exec {writer}>&-

    echo "-- proxies: KMS and STS go through one, metadata and the container's agent never"
    through() { curl -sS --fail --noproxy '*' --max-time 10 "http://127.0.0.1:$proxy/_tarpit/counts"; }
    aws_rig_credentials ALLOWED
    before=$(through)
    http_proxy=http://127.0.0.1:$proxy patience=30s restart
    says "$encrypt" "ok *"
    (($(through) > before)) || fail "the environment's proxy was not used"
    before=$(through)
    http_proxy=http://127.0.0.1:$proxy NO_PROXY=127.0.0.1 patience=30s restart
    says "$encrypt" "ok *"
    [[ $(through) = "$before" ]] || fail "NO_PROXY was not heeded"
    patience=30s restart "proxy = http://127.0.0.1:$proxy"
    says "$encrypt" "ok *"
    (($(through) > before)) || fail "the configured proxy was not used"
    for name in ${!AWS_@}; do unset "$name"; done
    export AWS_CONFIG_FILE=/nonexistent AWS_SHARED_CREDENTIALS_FILE=/nonexistent
    before=$(through)
    aws_rig_do counts '{}' >/dev/null
    patience=30s restart "proxy = http://127.0.0.1:$proxy" "imds-endpoint = $RIG_URL"
    says "random 8" "ok *"
    [[ $(through) = $((before + 1)) && $(aws_rig_count metadata) = 3 ]] || fail "instance metadata went through a proxy"
    before=$(through)
    export AWS_CONTAINER_CREDENTIALS_FULL_URI=$RIG_URL/container AWS_CONTAINER_AUTHORIZATION_TOKEN=container-token
    patience=30s restart "proxy = http://127.0.0.1:$proxy"
    says "random 8" "ok *"
    [[ $(through) = $((before + 1)) ]] || fail "the container's agent was asked through a proxy"

    echo "-- the environment's authorities"
    aws_rig_credentials ALLOWED
    AWS_CA_BUNDLE=$SCRATCH/rig/ca.pem restart "endpoint = $RIG_TLS_URL"
    says "$encrypt" "ok *"
    AWS_CA_BUNDLE=$SCRATCH/rig/ca.pem restart "endpoint = $RIG_TLS_URL" "ca-file = $SCRATCH/rig/other-ca.pem"
    says "$encrypt" "CKR_TOKEN_NOT_RECOGNIZED *"
    AWS_CA_BUNDLE=$SCRATCH/rig/other-ca.pem restart "endpoint = $RIG_TLS_URL"
    says "$encrypt" "CKR_TOKEN_NOT_RECOGNIZED *"

    echo "-- on a connection that is kept and breaks, nothing is done twice"
    restart "create = yes" "rotate = yes"
    for action in CreateKey RotateKeyOnDemand; do
        says "find alias/absent" "ok 0" # there is a connection now
        aws_rig_do counts '{}' >/dev/null
        fault $action reset 1
        case $action in
        CreateKey) says "generate alias/once" "CKR_DEVICE_REMOVED *" ;;
        *) says "rotate alias/first" "CKR_DEVICE_REMOVED *" ;;
        esac
        [[ $(aws_rig_count $action) = 1 ]] || fail "$action was sent $(aws_rig_count $action) times"
        clear
    done
}
client_stop
grep -qF -e "$RIG_ALLOWED_SECRET" "$SCRATCH"/client.err && fail "a secret in a message"
echo "passed: $checks checks"
