# shellcheck shell=bash
# AWS KMS for tests, to be sourced: the MiniStack emulator, from PyPI into a venv kept outside the checkout. It knows what
# moto does not: states of keys and their changes, keys that wait for their material, multi-region keys, RSA. It looks at
# no signature and binds no plaintext, which moto (aws-rig.sh) does.
#
#   ministack_start DIR          exits 77 with a reason where it cannot be had. Sets MINISTACK_URL, and the environment's
#                                AWS credentials
#   ministack_do ACTION JSON [REGION]   asks the emulator itself, not through the module; prints the reply
#   ministack_key JSON           CreateKey; prints the key's id
#   ministack_config FILE [LINE…]   a kms.cnf with one token "rig"
#   ministack_stop

ministack_version=1.5.33
ministack_region=eu-west-1
ministack_pid=

ministack_skip() {
    echo "skipped: $1" >&2
    exit 77
}

# Prints the venv's Python.
ministack_python() {
    local venv=${XDG_CACHE_HOME:-$HOME/.cache}/envelope-rigs/ministack-$ministack_version
    mkdir -p "${venv%/*}"
    (
        flock 9
        "$venv/bin/python" -c 'import ministack.app, cryptography' 2>/dev/null && exit 0
        rm -rf "$venv" && python3 -m venv "$venv" &&
            "$venv/bin/pip" install -q "ministack==$ministack_version" 'cryptography>=41'
    ) 9>"${venv%/*}/ministack.lock" >"${venv%/*}/ministack.log" 2>&1 ||
        ministack_skip "PyPI does not give ministack $ministack_version: $(tail -n 1 "${venv%/*}/ministack.log")"
    echo "$venv/bin/python"
}

# It takes a fixed port only: one that is free now, and another try if it was taken meanwhile.
ministack_launch() {
    local port tries=0
    port=$("$1" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    (
        cd "$MINISTACK_DIR" || exit
        # no Docker, no MQTT, nothing kept, and this machine only
        exec env BIND_HOST=127.0.0.1 GATEWAY_PORT="$port" SERVICES=kms,sts DOCKER_HOST=unix:///nonexistent \
            IOT_MTLS_ENABLED=0 SFTP_ENABLED=0 TMPDIR="$MINISTACK_DIR" S3_DATA_DIR="$MINISTACK_DIR/s3" "$1" -m ministack
    ) >"$MINISTACK_DIR/ministack.log" 2>&1 &
    ministack_pid=$!
    MINISTACK_URL=http://127.0.0.1:$port
    until curl -sS --fail --noproxy '*' --max-time 2 "$MINISTACK_URL/_ministack/health" >/dev/null 2>&1; do
        kill -0 "$ministack_pid" 2>/dev/null && ((tries++ < 300)) || return 1
        sleep 0.1
    done
}

ministack_start() {
    local python try name
    mkdir -p "$1"
    MINISTACK_DIR=$(cd "$1" && pwd)
    python=$(ministack_python) || exit
    for name in ${!AWS_@}; do unset "$name"; done
    export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_EC2_METADATA_DISABLED=true
    export AWS_CONFIG_FILE=/nonexistent AWS_SHARED_CREDENTIALS_FILE=/nonexistent no_proxy=127.0.0.1
    for try in 1 2 3; do
        ministack_launch "$python" && return
        echo "the emulator did not start (try $try):" >&2
        tail -n 5 "$MINISTACK_DIR/ministack.log" >&2
    done
    return 1
}

# The scope in Authorization tells it the region.
ministack_do() {
    local scope="test/20260101/${3:-$ministack_region}/kms/aws4_request"
    curl -sS --fail-with-body --noproxy '*' --max-time 10 -H "X-Amz-Target: TrentService.$1" \
        -H 'Content-Type: application/x-amz-json-1.1' \
        -H "Authorization: AWS4-HMAC-SHA256 Credential=$scope, SignedHeaders=host, Signature=0" -d "$2" "$MINISTACK_URL/"
}

ministack_key() {
    ministack_do CreateKey "$1" "${2-}" | jq -r .KeyMetadata.KeyId
}

ministack_config() {
    local file=$1
    shift
    (
        umask 022
        printf '%s\n' "[token rig]" "backend = aws-kms" "region = $ministack_region" "endpoint = $MINISTACK_URL" \
            "deadline = 5s" "timeout = 2s" "refresh = 1s" "$@" >"$file"
    )
}

ministack_stop() {
    [[ $ministack_pid ]] || return 0
    kill "$ministack_pid" 2>/dev/null
    wait "$ministack_pid" 2>/dev/null
    ministack_pid=
}
