# shellcheck shell=bash
# A transit server for tests, to be sourced. Real OpenBao if there is one (ENVELOPE_BAO, or `bao` in PATH), else the
# Vault core of transit-server/, built once and kept outside the checkout. Storage in memory, TLS, one unseal key.
#
#   bao_rig_start DIR    start, initialise and unseal in DIR; exits 77 with a reason where it cannot be had. Sets
#                        BAO_ADDR (https://127.0.0.1:PORT) and BAO_DIR; certificates in DIR: ca.pem, client.pem,
#                        client.key, other-ca.pem (which signed nothing)
#   bao_api METHOD PATH [JSON]   as root; prints the reply, fails on an error status
#   bao_seal, bao_unseal
#   bao_rig_audit        from now on the server writes what it is asked, a line of JSON each, to BAO_DIR/audit.log
#   bao_rig_proxy FILE   a proxy before the server that counts and injects faults (fault_proxy.py); FILE gets its address
#   bao_rig_jwt          prints a service account's token, of the form that Kubernetes gives out
#   bao_rig_kubernetes JWT-FILE MEMBERS   a login at auth/kubernetes with the role envelope and the policy envelope; MEMBERS
#                        are more of the role, JSON. A stub of the API server accepts what JWT-FILE holds at that time
#   bao_rig_stop

bao_rig_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bao_rig_pids=()

bao_rig_skip() {
    echo "skipped: $1" >&2
    exit 77
}

# Prints the server to run.
bao_rig_binary() {
    local server status
    server=$("$bao_rig_here/transit-server/build" 2>&1)
    status=$?
    [[ $status -ne 77 ]] || bao_rig_skip "no bao (ENVELOPE_BAO), and no transit server: $server"
    echo "$server"
    return "$status"
}

bao_rig_certificates() {
    local dir=$1 name
    for name in ca other-ca; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$name" \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
            -keyout "$dir/$name.key" -out "$dir/$name.pem"
    done
    bao_rig_certificate "$dir" server serverAuth "IP:127.0.0.1,DNS:localhost"
    bao_rig_certificate "$dir" client clientAuth "DNS:client.test"
}

bao_rig_certificate() {
    local dir=$1 name=$2 usage=$3 names=$4
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
        -keyout "$dir/$name.key" -out "$dir/$name.csr"
    openssl x509 -req -in "$dir/$name.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
        -extfile <(printf 'extendedKeyUsage=%s\nsubjectAltName=%s\n' "$usage" "$names") -out "$dir/$name.pem"
}

# OpenBao takes a fixed address only: one that is free now, and another try if it was taken meanwhile.
bao_rig_launch_bao() {
    local port
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    cat >"$BAO_DIR/server.hcl" <<END
storage "inmem" {}
listener "tcp" {
  address       = "127.0.0.1:$port"
  tls_cert_file = "$BAO_DIR/server.pem"
  tls_key_file  = "$BAO_DIR/server.key"
}
api_addr = "https://127.0.0.1:$port"
audit "file" "to-file" {
  options { file_path = "$BAO_DIR/audit.log" }
}
END
    "$1" server -config="$BAO_DIR/server.hcl" >"$BAO_DIR/server.log" 2>&1 &
    bao_rig_pid=$!
    BAO_ADDR=https://127.0.0.1:$port
}

bao_rig_launch_ours() {
    local tries=0
    rm -f "$BAO_DIR/address"
    "$1" -cert "$BAO_DIR/server.pem" -key "$BAO_DIR/server.key" -ready-file "$BAO_DIR/address" \
        >"$BAO_DIR/server.log" 2>&1 &
    bao_rig_pid=$!
    until [[ -s $BAO_DIR/address ]]; do
        kill -0 "$bao_rig_pid" 2>/dev/null && ((tries++ < 300)) || return 1
        sleep 0.1
    done
    BAO_ADDR=https://$(<"$BAO_DIR/address")
}

bao_rig_answers() {
    local tries=0
    until curl -s --noproxy '*' --cacert "$BAO_DIR/ca.pem" "$BAO_ADDR/v1/sys/seal-status" >/dev/null; do
        kill -0 "$bao_rig_pid" 2>/dev/null && ((tries++ < 300)) || return 1
        sleep 0.1
    done
}

bao_api() {
    local method=$1 path=$2 body=${3-}
    curl -sS --fail-with-body --noproxy '*' --cacert "$BAO_DIR/ca.pem" --max-time 30 -X "$method" \
        -H @"$BAO_DIR/root.header" ${body:+--data-binary "$body"} "$BAO_ADDR/v1/$path"
}

bao_unseal() {
    bao_api PUT sys/unseal "{\"key\":$(jq '.keys_base64[0]' "$BAO_DIR/init.json")}" >/dev/null
}

bao_seal() {
    bao_api PUT sys/seal
}

# OpenBao takes this from its configuration only.
bao_rig_audit() {
    [[ ! -e $BAO_DIR/server.hcl ]] || return 0
    bao_api PUT sys/audit/file "{\"type\":\"file\",\"options\":{\"file_path\":\"$BAO_DIR/audit.log\"}}"
}

bao_rig_start() {
    local bao=${ENVELOPE_BAO:-$(command -v bao)} server="" try launched=no
    export no_proxy=127.0.0.1
    mkdir -p "$1"
    BAO_DIR=$(cd "$1" && pwd)
    command -v jq >/dev/null || bao_rig_skip "no jq"
    command -v curl >/dev/null || bao_rig_skip "no curl"
    if [[ -z $bao ]]; then
        server=$(bao_rig_binary) || exit
    fi
    bao_rig_certificates "$BAO_DIR" 2>"$BAO_DIR/certificates.log" || {
        cat "$BAO_DIR/certificates.log" >&2
        return 1
    }
    for try in 1 2 3; do
        if [[ $bao ]]; then bao_rig_launch_bao "$bao"; else bao_rig_launch_ours "$server"; fi &&
            bao_rig_answers && launched=yes && break
        echo "the server did not start (try $try):" >&2
        tail -n 5 "$BAO_DIR/server.log" >&2
    done
    [[ $launched = yes ]] || return 1
    (umask 077 && : >"$BAO_DIR/root.header" && : >"$BAO_DIR/init.json")
    bao_api PUT sys/init '{"secret_shares":1,"secret_threshold":1}' >"$BAO_DIR/init.json" || return 1
    echo "X-Vault-Token: $(jq -r .root_token "$BAO_DIR/init.json")" >"$BAO_DIR/root.header"
    bao_unseal
}

bao_rig_proxy() {
    local tries=0 pid
    RIG_UPSTREAM_CA=$BAO_DIR/ca.pem python3 "$bao_rig_here/fault_proxy.py" "$1" "$BAO_ADDR" >"$1.log" 2>&1 &
    pid=$!
    bao_rig_pids+=("$pid")
    until [[ -s $1 ]]; do
        kill -0 "$pid" 2>/dev/null && ((tries++ < 300)) || {
            echo "the proxy does not start: $(cat "$1.log")" >&2
            return 1
        }
        sleep 0.1
    done
}

bao_rig_base64url() { base64 -w0 | tr '+/' '-_' | tr -d '='; }

bao_rig_jwt() {
    local now
    now=$(date +%s)
    printf '{"alg":"RS256","typ":"JWT"}' | bao_rig_base64url
    printf .
    printf '{"iss":"https://kubernetes.default.svc","sub":"system:serviceaccount:prod:envelope","nbf":%d,"exp":%d,%s}' \
        $((now - 60)) $((now + 600)) \
        '"kubernetes.io":{"namespace":"prod","serviceaccount":{"name":"envelope","uid":"5d7f-uid"}}' | bao_rig_base64url
    printf .
    head -c 256 /dev/urandom | bao_rig_base64url
}

bao_rig_kubernetes() {
    local tries=0 pid
    "$bao_rig_here/tokenreview-stub" "$BAO_DIR/stub-port" "$1" &
    pid=$!
    bao_rig_pids+=("$pid")
    until [[ -s $BAO_DIR/stub-port ]]; do
        kill -0 "$pid" 2>/dev/null && ((tries++ < 300)) || return 1
        sleep 0.1
    done
    jq -n --rawfile ca "$BAO_DIR/ca.pem" --rawfile jwt "$1" --arg host "http://127.0.0.1:$(<"$BAO_DIR/stub-port")" \
        '{kubernetes_host: $host, kubernetes_ca_cert: $ca, token_reviewer_jwt: $jwt, disable_local_ca_jwt: true}' \
        >"$BAO_DIR/kubernetes.json"
    bao_api POST sys/auth/kubernetes '{"type":"kubernetes"}' &&
        bao_api POST auth/kubernetes/config @"$BAO_DIR/kubernetes.json" &&
        bao_api POST auth/kubernetes/role/envelope '{"bound_service_account_names":"envelope","token_policies":"envelope",
            "bound_service_account_namespaces":"prod",'"$2}"
}

bao_rig_stop() {
    local pid
    for pid in "${bao_rig_pids[@]}" ${bao_rig_pid-}; do
        kill "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    bao_rig_pids=() bao_rig_pid=
}
