#!/bin/bash
# A transit engine whose answers are cut off, late, endless or nonsense: a defined code and text, within the deadline.
set -u
# shellcheck source=tests/rigs/bao-rig.sh
. "$SOURCE_DIR/tests/rigs/bao-rig.sh"
# shellcheck source=tests/rigs/aws-client.sh
. "$SOURCE_DIR/tests/rigs/aws-client.sh"

proxy_pid=
trap 'client_kill; bao_rig_stop; [[ $proxy_pid ]] && kill "$proxy_pid"' EXIT
python3 -c 'import cryptography' 2>/dev/null || bao_rig_skip "no python3-cryptography"
export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf
unset BAO_TOKEN VAULT_TOKEN
bao_rig_start "$SCRATCH/server" || fail "the server does not start"
umask 077
dek=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
bao_api POST sys/mounts/transit '{"type":"transit"}' || fail "mount"
bao_api POST transit/keys/kek '{"type":"aes256-gcm96"}' >/dev/null || fail "key"
jq -r .root_token "$BAO_DIR/init.json" >"$SCRATCH/token"

RIG_UPSTREAM_CA=$BAO_DIR/ca.pem python3 "$SOURCE_DIR/tests/rigs/fault_proxy.py" "$SCRATCH/proxy" "$BAO_ADDR" \
    2>"$SCRATCH/proxy.err" &
proxy_pid=$!
for ((i = 0; i < 300; i++)); do
    [[ -s proxy ]] && break
    sleep 0.1
done
url=$(<proxy) || fail "the proxy does not start: $(<proxy.err)"
rig() { curl -sS --fail --noproxy '*' --max-time 10 -d "$2" "$url/_rig/$1" >/dev/null || fail "rig $1"; }
within() { # SECONDS COMMAND PATTERN
    local begin=$SECONDS
    says "$2" "$3"
    ((SECONDS - begin <= $1)) || fail "$2 took $((SECONDS - begin)) s"
}

printf '%s\n' "[token bao]" "backend = openbao" "address = $url" "auth = token" "token-file = $SCRATCH/token" \
    "deadline = 3s" "timeout = 1s" >"$ENVELOPE_KMS_CONFIG"
client_start "$BUILD_DIR/pkcs11/envelope-kms.so" bao
says "encrypt kek financial/3 $dek" "ok *"
decrypt="decrypt kek financial/3 ${reply#ok }"
for kind in cut reset; do
    rig fault "{\"kind\":\"$kind\",\"times\":2}"
    within 3 "$decrypt" "ok $dek"
done
for kind in cut slow silent; do
    rig fault "{\"kind\":\"$kind\"}"
    within 4 "$decrypt" "CKR_DEVICE_REMOVED *"
    rig clear '{}'
done
for kind in bad-json wrong-json huge huge-chunked html; do
    for command in "$decrypt" "encrypt kek - $dek"; do
        rig fault "{\"kind\":\"$kind\"}"
        within 4 "$command" "CKR_DEVICE_ERROR *"
        rig clear '{}'
    done
done
says "$decrypt" "ok $dek"
says "threads 4 6 kek" "ok"
client_stop
grep -q "$(<token)" client.err && fail "the token is in the log"
echo "passed: $checks checks"
