# shellcheck shell=bash
# AWS KMS for tests, to be sourced: the moto emulator with signatures verified, behind a proxy of ours that counts calls
# and injects faults (fault_proxy.py). moto comes from the system's Python, or from PyPI into a venv kept outside the
# checkout.
#
#   aws_rig_start DIR        exits 77 with a reason where moto cannot be had. Sets RIG_URL (the proxy), RIG_TLS_URL (the
#                            same with TLS, certificate DIR/server.pem of DIR/ca.pem), and RIG_ALLOWED_ID, …_SECRET,
#                            RIG_DENIED_ID, …_SECRET, RIG_ROLE_ARN, RIG_FIRST_ARN, RIG_SECOND_ARN, RIG_RSA_ARN (keys
#                            alias/first, alias/second, alias/rsa), RIG_REGION
#   aws_rig_config FILE [LINE…]   a kms.cnf with one token "rig" at RIG_URL
#   aws_rig_credentials NAME      exports the keys of ALLOWED or DENIED, and nothing else of AWS
#   aws_rig_do PATH [JSON]        the proxy's control: aws_rig_do fault '{"action":"Decrypt","kind":"throttle"}'
#   aws_rig_count ACTION          how often it was asked since aws_rig_do counts '{}'
#   aws_rig_stop

aws_rig_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
aws_rig_pids=()

aws_rig_skip() {
    echo "skipped: $1" >&2
    exit 77
}

# Prints the Python that has moto. A failure is remembered for ten minutes, so that many tests do not wait for a registry
# one after the other.
aws_rig_python() {
    local candidate venv=${XDG_CACHE_HOME:-$HOME/.cache}/envelope-rigs/moto-5.2
    for candidate in "${ENVELOPE_MOTO_PYTHON:-}" /usr/bin/python3 "$venv/bin/python"; do
        if [[ $candidate && -x $candidate ]] && "$candidate" -c 'import moto.server, boto3' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    mkdir -p "${venv%/*}"
    (
        flock 9
        "$venv/bin/python" -c 'import moto.server' 2>/dev/null && exit 0
        [[ -z $(find "$venv.failed" -mmin -10 2>/dev/null) ]] || exit 1
        rm -rf "$venv" "$venv.failed"
        python3 -m venv "$venv" &&
            timeout 300 "$venv/bin/pip" install -q --timeout 20 --retries 2 'moto[server]==5.2.*' >"$venv.log" 2>&1 && exit 0
        { tail -n 1 "$venv.log" || echo "python3 -m venv fails"; } >"$venv.failed" 2>/dev/null
        exit 1
    ) 9>"${venv%/*}/moto.lock" ||
        aws_rig_skip "moto is not installed (python3-moto) and PyPI does not give it: $(<"$venv.failed")"
    echo "$venv/bin/python"
}

aws_rig_wait() {
    local file=$1 pid=$2 log=$3 tries=0
    until [[ -s $file ]]; do
        if ! kill -0 "$pid" 2>/dev/null || ((tries++ > 600)); then
            tail -n 20 "$log" >&2
            return 1
        fi
        sleep 0.1
    done
}

aws_rig_certificates() {
    local dir=$1 name
    for name in ca other-ca; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$name" \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
            -keyout "$dir/$name.key" -out "$dir/$name.pem"
    done
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=server" -keyout "$dir/server.key" \
        -out "$dir/server.csr"
    openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
        -extfile <(echo subjectAltName=IP:127.0.0.1) -out "$dir/server.pem"
}

aws_rig_proxy() {
    local ready=$1
    shift
    "$aws_rig_py" "$aws_rig_here/fault_proxy.py" "$ready" "$@" >"$ready.log" 2>&1 &
    aws_rig_pids+=($!)
    aws_rig_wait "$ready" $! "$ready.log"
}

aws_rig_start() {
    mkdir -p "$1"
    RIG_DIR=$(cd "$1" && pwd)
    aws_rig_py=$(aws_rig_python) || exit
    rm -f "$RIG_DIR"/{facts,proxy,proxy-tls}
    aws_rig_certificates "$RIG_DIR" 2>"$RIG_DIR/certificates.log" || {
        cat "$RIG_DIR/certificates.log" >&2
        return 1
    }
    env -u AWS_PROFILE -u AWS_CONFIG_FILE "$aws_rig_py" "$aws_rig_here/aws_moto.py" "$RIG_DIR/facts" \
        >"$RIG_DIR/moto.log" 2>&1 &
    aws_rig_pids+=($!)
    aws_rig_wait "$RIG_DIR/facts" $! "$RIG_DIR/moto.log" || return 1
    # shellcheck disable=SC1091
    . "$RIG_DIR/facts"
    aws_rig_proxy "$RIG_DIR/proxy" "$RIG_MOTO" || return 1
    aws_rig_proxy "$RIG_DIR/proxy-tls" "$RIG_MOTO" "$RIG_DIR/server.pem" "$RIG_DIR/server.key" || return 1
    RIG_URL=$(<"$RIG_DIR/proxy")
    # shellcheck disable=SC2034 # for the tests
    RIG_TLS_URL=$(<"$RIG_DIR/proxy-tls")
}

aws_rig_config() {
    local file=$1
    shift
    (
        umask 022
        {
            echo "[token rig]"
            echo "backend = aws-kms"
            echo "region = $RIG_REGION"
            [[ " $*" = *" endpoint ="* ]] || printf 'endpoint = %s\nsts-endpoint = %s\n' "$RIG_URL" "$RIG_URL"
            echo "deadline = 5s"
            echo "timeout = 3s" # a busy machine needs more than one
            printf '%s\n' "$@"
        } >"$file"
    )
}

aws_rig_credentials() {
    local id=RIG_$1_ID secret=RIG_$1_SECRET name
    for name in ${!AWS_@}; do unset "$name"; done
    export AWS_ACCESS_KEY_ID=${!id} AWS_SECRET_ACCESS_KEY=${!secret} AWS_EC2_METADATA_DISABLED=true
    export AWS_CONFIG_FILE=/nonexistent AWS_SHARED_CREDENTIALS_FILE=/nonexistent
}

aws_rig_do() {
    curl -sS --fail --noproxy '*' --max-time 10 -H 'Content-Type: application/json' -d "${2:-{\}}" "$RIG_URL/_rig/$1"
}

aws_rig_count() {
    curl -sS --fail --noproxy '*' --max-time 10 "$RIG_URL/_rig/counts" |
        "$aws_rig_py" -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1], 0))' "$1"
}

aws_rig_stop() {
    local pid
    for pid in "${aws_rig_pids[@]}"; do
        kill "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    aws_rig_pids=()
}
