#!/bin/bash
# What the place of the KEK costs: a SoftHSM token, AWS KMS's emulator and a transit server are started, and
# bench_backends compares them. A server that cannot be had is left out, with the reason.
#   backends.sh BUILD-DIR [options of bench_backends]     run by script/bench
set -euo pipefail
self=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "$0")
SOURCE_DIR=$(cd "${self%/*}/../.." && pwd)
export SOURCE_DIR

# --- backends.sh serve aws|bao DIR: a server that runs until standard input ends. DIR/tokens.cnf has two tokens: the
# server itself, and behind a proxy that counts; DIR/facts says the rest ---

# token NAME ADDRESS-KEY ADDRESS: the backend's section of kms.cnf under another name, at another address. An http
# address takes no ca-file.
token() {
    sed "s|^\[.*|[token $1]|; s|^$2 *=.*|$2 = $3|" "$SCRATCH/kms.cnf" | case $3 in
    http:*) grep -v '^ca-file' ;;
    *) cat ;;
    esac
}

serve_aws() {
    token aws endpoint "$RIG_MOTO"
    token aws-counted endpoint "$RIG_URL"
    facts+=("counts=$RIG_URL" "$(export -p | grep ' AWS_')")
}

serve_bao() {
    bao_rig_proxy "$SCRATCH/counting" || fail "no counting proxy"
    token bao address "$BAO_ADDR"
    token bao-counted address "$(<"$SCRATCH/counting")"
    facts+=("counts=$(<"$SCRATCH/counting")")
}

serve() {
    export ENVELOPE_RIG=$1 SCRATCH=$2
    cd "$SCRATCH"
    umask 077
    # shellcheck source=tests/integration/lib.sh
    . "$SOURCE_DIR/tests/integration/lib.sh"
    facts=()
    backend_service
    "serve_$1" >tokens.cnf
    # shellcheck disable=SC2154 # the backend sets it
    printf '%s\n' "kek=$(backend_kek_label "$backend_kek")" "${facts[@]}" >facts.new
    mv facts.new facts
    cat >/dev/null
}

# --- backends.sh calls NAME: how often that service has been asked; nothing for a token ---

calls() {
    [ -e "$BENCH_PLACES/$1/facts" ] || return 0
    # shellcheck source=/dev/null
    . "$BENCH_PLACES/$1/facts"
    # shellcheck disable=SC2154 # a fact
    curl -sS --fail --noproxy '*' --max-time 10 "$counts/_rig/counts" | jq 'add // 0'
}

case ${1-} in
serve)
    serve "$2" "$3"
    exit
    ;;
esac
if [ -n "${BENCH_PLACES:-}" ]; then
    calls "$1"
    exit
fi

# --- all of it ---

BUILD_DIR=$(cd "$1" && pwd)
export BUILD_DIR
shift
scratch=$(mktemp -d)
servers=() ends=() places=()

finish() {
    local status=$? i
    set +e
    for i in "${!servers[@]}"; do
        eval "exec ${ends[i]}>&-"
    done
    for i in "${!servers[@]}"; do
        wait "${servers[i]}"
    done
    rm -rf "$scratch"
    exit "$status"
}
trap finish EXIT

# start NAME: false where it cannot be had; it says why.
start() {
    local dir=$scratch/$1 end server status=0
    mkdir "$dir"
    echo "starting $1 ..." >&2
    exec {end}> >(exec bash "$self" serve "$1" "$dir" >"$dir/log" 2>&1)
    server=$!
    while [ ! -e "$dir/facts" ] && kill -0 "$server" 2>/dev/null; do
        sleep 0.1
    done
    servers+=("$server") ends+=("$end")
    [ ! -e "$dir/facts" ] || return 0
    wait "$server" || status=$?
    if [ "$status" -ne 77 ]; then
        cat "$dir/log" >&2
        exit 1
    fi
    echo "$1: $(grep -m 1 '^skipped: ' "$dir/log")"
    return 1
}

# set_up NAME TOKEN-WARM TOKEN-COLD [options of envelope init]
set_up() {
    local dir=$scratch/$1 which token
    for which in warm cold; do
        if [ "$which" = warm ]; then token=$2; else token=$3; fi
        "$BUILD_DIR/bin/envelope" --config "$dir/$which.cnf" init --token "$token" --store "sqlite:$dir/$which.db" \
            "${@:4}" >"$dir/init.log"
    done
    places+=("$1=$dir")
}

unset ENVELOPE_CONFIG OPENSSL_CONF OPENSSL_MODULES
"$BUILD_DIR/bin/envelope" init --softhsm "$scratch/token" >/dev/null
# shellcheck source=/dev/null
SOFTHSM2_CONF=$(. "$scratch/token/env" && echo "$SOFTHSM2_CONF")
export SOFTHSM2_CONF
for name in softhsm softhsm-twin; do
    mkdir "$scratch/$name"
    set_up "$name" envelope envelope --kek master --pin-file "$scratch/token/pin" \
        --module "$(sed -n 's/^module *= *//p' "$scratch/token/envelope.cnf")"
done

export ENVELOPE_KMS_CONFIG=$scratch/kms.cnf
(umask 077 && : >"$ENVELOPE_KMS_CONFIG")
for name in aws bao; do
    start "$name" || continue
    cat "$scratch/$name/tokens.cnf" >>"$ENVELOPE_KMS_CONFIG"
    # shellcheck source=/dev/null
    . "$scratch/$name/facts"
    # shellcheck disable=SC2154 # a fact
    set_up "$name" "$name-counted" "$name" --kek "$kek" --module "$BUILD_DIR/pkcs11/envelope-kms.so"
done

BENCH_PLACES=$scratch \
    "$BUILD_DIR/tests/bench/bench_backends" --modules "$BUILD_DIR/provider" --calls "$self" "$@" "${places[@]}"
