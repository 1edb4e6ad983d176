# shellcheck shell=bash
# A transit server with one key, kek, behind a proxy that spoils its answers, and aws-client.sh to ask it; to be sourced.
#
#   with LINE…            start the client with these lines of kms.cnf for the token bao, which is behind the proxy
#   fault KIND [TIMES]    of fault_proxy.py: always, or so often; clear ends it
#   forget, asked         how often the server has been asked since
#
# Our token is in SCRATCH/token, the key's own in $dek.

# shellcheck source=tests/rigs/bao-rig.sh
. "$SOURCE_DIR/tests/rigs/bao-rig.sh"
# shellcheck source=tests/rigs/aws-client.sh
. "$SOURCE_DIR/tests/rigs/aws-client.sh"

trap 'client_kill; bao_rig_stop' EXIT
python3 -c 'import cryptography' 2>/dev/null || bao_rig_skip "no python3-cryptography"
export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf
unset BAO_TOKEN VAULT_TOKEN
bao_rig_start "$SCRATCH/server" || fail "the server does not start"
umask 077
bao_api POST sys/mounts/transit '{"type":"transit"}' || fail "mount"
bao_api POST transit/keys/kek '{"type":"aes256-gcm96"}' >/dev/null || fail "key"
jq -r .root_token "$BAO_DIR/init.json" >"$SCRATCH/token"
bao_rig_proxy "$SCRATCH/proxy" || fail "no proxy"
bao_faulty_url=$(<"$SCRATCH/proxy")
# shellcheck disable=SC2034 # for the tests
dek=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f

bao_faulty_do() { # PATH [JSON]
    curl -sS --fail --noproxy '*' --max-time 10 ${2+-d "$2"} "$bao_faulty_url/_rig/$1" || fail "proxy: $1"
}

fault() { bao_faulty_do fault "{\"kind\":\"$1\"${2:+,\"times\":$2}}" >/dev/null; }
clear() { bao_faulty_do clear '{}' >/dev/null; }
forget() { bao_faulty_do counts '{}' >/dev/null; }
asked() { bao_faulty_do counts | jq '."-" // 0'; }

with() {
    client_stop
    printf '%s\n' "[token bao]" "backend = openbao" "address = $bao_faulty_url" "auth = token" \
        "token-file = $SCRATCH/token" "$@" >"$ENVELOPE_KMS_CONFIG"
    client_start "$BUILD_DIR/pkcs11/envelope-kms.so" bao
}
