#!/bin/bash
# The sample policies for OpenBao (conf/policies) let a program do its work and nothing else: with a real server.
set -u
# shellcheck source=tests/rigs/bao-rig.sh
. "$SOURCE_DIR/tests/rigs/bao-rig.sh"
# shellcheck source=tests/rigs/aws-client.sh
. "$SOURCE_DIR/tests/rigs/aws-client.sh"

trap 'client_kill; bao_rig_stop' EXIT
export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf
unset BAO_TOKEN VAULT_TOKEN
bao_rig_start "$SCRATCH/server" || fail "the server does not start"
umask 077
dek=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
denied="CKR_USER_NOT_LOGGED_IN *policy*"

bao_api POST sys/mounts/transit '{"type":"transit"}' || fail "mount"
for key in kek kek-2 other; do
    bao_api POST "transit/keys/$key" '{"type":"aes256-gcm96"}' >/dev/null || fail "key $key"
done

# become POLICY KEYS: a client whose token has this policy alone (and `default`)
become() {
    local body
    body=$(jq -n --rawfile policy "$SOURCE_DIR/conf/policies/$1.hcl" '{policy: $policy}') || fail "no sample $1"
    bao_api PUT "sys/policies/acl/$1" "$body" || fail "the server refuses $1"
    bao_api POST auth/token/create "{\"policies\":[\"$1\"],\"ttl\":\"1h\"}" | jq -r .auth.client_token >"$SCRATCH/token"
    client_stop
    printf '%s\n' "[token bao]" "backend = openbao" "address = $BAO_ADDR" "ca-file = $BAO_DIR/ca.pem" "auth = token" \
        "token-file = $SCRATCH/token" "keys = $2" >"$ENVELOPE_KMS_CONFIG"
    client_start "$BUILD_DIR/pkcs11/envelope-kms.so" bao
}

echo "-- an application"
become openbao-application "kek"
says "encrypt kek financial/3 $dek" "ok *"
blob=${reply#ok }
says "decrypt kek financial/3 $blob" "ok $dek"
says "wrap kek tenant-7" "ok *"
says "random 32" "ok *"
says "rewrap kek - kek - $blob" "$denied"
become openbao-application "kek, other"
says "find kek" "ok 1"
says "find other" "ok 0"
bao_api POST transit/keys/kek/config '{"deletion_allowed":true}' >/dev/null || fail "config"

echo "-- the job that moves data keys from kek to kek-2"
become openbao-rewrap-job "kek, kek-2"
says "rewrap kek financial/3 kek-2 financial/3 $blob" "ok *"
moved=${reply#ok }
says "decrypt kek-2 financial/3 $moved" "$denied"
says "encrypt kek financial/3 $dek" "$denied"
says "rewrap kek-2 financial/3 kek financial/3 $moved" "$denied"
says "random 32" "$denied"

echo "-- a deleted KEK does not come back"
become openbao-application "kek"
says "encrypt kek financial/3 $dek" "ok *"
bao_api DELETE transit/keys/kek || fail "delete"
says "encrypt kek financial/3 $dek" "CKR_KEY_HANDLE_INVALID *was it deleted*"
bao_api GET transit/keys/kek >/dev/null 2>&1 && fail "the deleted key came back"
client_stop
echo "passed: $checks checks"
