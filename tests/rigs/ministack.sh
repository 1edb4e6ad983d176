#!/bin/bash
# The bridge in front of a second AWS emulator, written by others and on their own reading of AWS: what it does with the
# states of keys, and Envelope with its master key there.
set -u
# shellcheck source=tests/rigs/ministack-rig.sh
. "$SOURCE_DIR/tests/rigs/ministack-rig.sh"
# shellcheck source=tests/rigs/aws-client.sh
. "$SOURCE_DIR/tests/rigs/aws-client.sh"

trap 'client_kill; ministack_stop' EXIT
command -v jq >/dev/null || ministack_skip "no jq"
ministack_start "$SCRATCH/rig" || fail "the emulator does not start"
export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf ENVELOPE_KMS_LOG=stderr
module=$BUILD_DIR/pkcs11/envelope-kms.so
dek=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f

alias_of() { ministack_do CreateAlias "{\"AliasName\":\"alias/$1\",\"TargetKeyId\":\"$2\"}" "${3-}" >/dev/null || fail "alias $1"; }
to_key() { ministack_do "$1" "{\"KeyId\":\"$2\"}" >/dev/null || fail "$1"; }
state_of() { ministack_do DescribeKey "{\"KeyId\":\"$1\"}" | jq -r .KeyMetadata.KeyState; }
restart() {
    client_stop
    ministack_config "$ENVELOPE_KMS_CONFIG"
    client_start "$module" rig
}

first=$(ministack_key '{}') && alias_of first "$first" && alias_of second "$(ministack_key '{}')"
alias_of rsa "$(ministack_key '{"KeySpec":"RSA_3072","KeyUsage":"ENCRYPT_DECRYPT"}')"
alias_of sign "$(ministack_key '{"KeySpec":"ECC_NIST_P256","KeyUsage":"SIGN_VERIFY"}')"
waiting=$(ministack_key '{"Origin":"EXTERNAL"}') && alias_of waiting "$waiting"

echo "-- keys, encryption"
restart
says "encrypt alias/first financial/3 $dek" "ok *"
blob=${reply#ok }
says "decrypt alias/first financial/3 $blob" "ok $dek"
says "decrypt alias/first financial/4 $blob" "CKR_ENCRYPTED_DATA_INVALID *InvalidCiphertextException*"
says "decrypt alias/first - $blob" "CKR_ENCRYPTED_DATA_INVALID *"
says "wrap alias/second tenant-7" "ok *"
read -r _ wrapped value <<<"$reply"
says "unwrap alias/second tenant-7 $wrapped" "ok $value"
says "oaep-encrypt alias/rsa $dek" "ok *"
says "oaep-decrypt alias/rsa ${reply#ok }" "ok $dek"
alias_of also "$first"
says "find alias/also" "ok 1" # one key, found by each of its names, whichever came first
says "find alias/first" "ok 1"
says "decrypt alias/also financial/3 $blob" "ok $dek"
says "find alias/nothing" "ok 0"
says "find alias/sign" "ok 0"
says "random 40" "ok *"

echo "-- DisableKey: refused, EnableKey: works, in one session"
to_key DisableKey "$first"
says "decrypt alias/first financial/3 $blob" "CKR_KEY_FUNCTION_NOT_PERMITTED *disabled*DisabledException*"
says "encrypt alias/first financial/3 $dek" "CKR_KEY_FUNCTION_NOT_PERMITTED *disabled*DisabledException*"
to_key EnableKey "$first"
says "decrypt alias/first financial/3 $blob" "ok $dek"

echo "-- a key that waits for its material"
[[ $(state_of "$waiting") = PendingImport ]] || fail "it does not wait"
says "encrypt alias/waiting - $dek" "CKR_KEY_HANDLE_INVALID *material is away*KMSInvalidStateException*pending import*"

echo "-- a multi-region key: the ARN of any region names it, and the token's own is used"
mrk=$(ministack_key '{"MultiRegion":true}' us-east-1)
arn=$(ministack_do DescribeKey "{\"KeyId\":\"$mrk\"}" us-east-1 | jq -r .KeyMetadata.Arn)
ministack_do ReplicateKey "{\"KeyId\":\"$mrk\",\"ReplicaRegion\":\"$ministack_region\"}" us-east-1 >/dev/null || fail "ReplicateKey"
alias_of everywhere "$mrk"
restart
says "find-id $arn" "ok 1"
says "encrypt alias/everywhere financial/3 $dek" "ok *"
says "decrypt alias/everywhere financial/3 ${reply#ok }" "ok $dek"

echo "-- C_GenerateKey, C_DestroyObject"
if [[ ! ${ENVELOPE_SANITIZE-} ]]; then
    ministack_config "$ENVELOPE_KMS_CONFIG" "create = yes" "destroy = yes" "pending-days = 7"
    pkcs11-tool --module "$module" --keygen --key-type AES:32 --label alias/made --sensitive >made.log 2>&1 ||
        fail "C_GenerateKey: $(cat made.log)"
    pkcs11-tool --module "$module" --keypairgen --key-type RSA:2048 --usage-decrypt --label alias/pair >made.log 2>&1 ||
        fail "C_GenerateKeyPair: $(cat made.log)"
    pkcs11-tool --module "$module" -O >objects.log 2>/dev/null || fail "pkcs11-tool -O"
    for label in first second rsa everywhere made pair; do
        grep -q "label: *alias/$label\$" objects.log || fail "no alias/$label in $(cat objects.log)"
    done
    grep -q 'alias/sign' objects.log && fail "a key for signing is shown"
    client_stop
    client_start "$module" rig
    says "encrypt alias/made financial/3 $dek" "ok *"
    made=${reply#ok }
    says "decrypt alias/made financial/3 $made" "ok $dek"
    says "oaep-encrypt alias/pair $dek" "ok *"
    says "oaep-decrypt alias/pair ${reply#ok }" "ok $dek"
    pkcs11-tool --module "$module" --delete-object --type secrkey --label alias/made >made.log 2>&1 ||
        fail "C_DestroyObject: $(cat made.log)"
    id=$(ministack_do ListAliases '{}' | jq -r '.Aliases[] | select(.AliasName == "alias/made") | .TargetKeyId')
    [[ $(state_of "$id") = PendingDeletion ]] || fail "C_DestroyObject left the key $(state_of "$id")"
    says "decrypt alias/made financial/3 $made" "CKR_KEY_HANDLE_INVALID *pending deletion*KMSInvalidStateException*"
    restart
    says "find alias/made" "ok 0"
    to_key CancelKeyDeletion "$id"
    says "decrypt alias/made financial/3 $made" "CKR_KEY_FUNCTION_NOT_PERMITTED *disabled*DisabledException*"
    to_key EnableKey "$id"
    says "decrypt alias/made financial/3 $made" "ok $dek"
fi
client_stop

echo "-- Envelope with its master key there"
if [[ ! ${ENVELOPE_SANITIZE-} ]]; then
    # shellcheck source=tests/rigs/cloud-kek.sh
    . "$SOURCE_DIR/tests/rigs/cloud-kek.sh"
    switch_off() { to_key DisableKey "$first"; }
    switch_on() { to_key EnableKey "$first"; }
    cloud_kek rig alias/first disabled
fi
echo "passed: $checks checks"
