#!/bin/bash
# The bridge in front of AWS KMS: what it promises, told as a session of commands (tests/rigs/aws_client.c).
set -u
# shellcheck source=tests/rigs/aws-rig.sh
. "$SOURCE_DIR/tests/rigs/aws-rig.sh"
# shellcheck source=tests/rigs/aws-client.sh
. "$SOURCE_DIR/tests/rigs/aws-client.sh"

trap 'client_kill; aws_rig_stop' EXIT
aws_rig_start "$SCRATCH/rig"
aws_rig_credentials ALLOWED
export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf
module=$BUILD_DIR/pkcs11/envelope-kms.so
dek=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f

fault() { aws_rig_do fault "{\"action\":\"$1\",\"kind\":\"$2\"${3:+,\"times\":$3}}" >/dev/null; }
clear() { aws_rig_do clear >/dev/null; }
key_state() { aws_rig_do state "{\"key\":\"$1\",\"state\":\"$2\"}" >/dev/null; }
restart() { # [LINE of kms.cnf…]
    client_stop
    aws_rig_config "$ENVELOPE_KMS_CONFIG" "$@"
    client_start "$module" rig
}

# --- pkcs11-tool, a foreign program ---
foreign_program() {
    local shown
    shown=$(pkcs11-tool --module "$module" -L) || fail "pkcs11-tool -L"
    [[ $shown = *"token label        : rig"* && $shown = *"AWS KMS"* ]] || fail "slots: $shown"
    shown=$(pkcs11-tool --module "$module" -M) || fail "pkcs11-tool -M"
    [[ $shown = *0xC54E5601*encrypt*wrap* && $shown = *RSA-PKCS-OAEP* ]] || fail "mechanisms: $shown"
    aws_rig_do page '{"size":2}' >/dev/null # lists come in pages
    shown=$(pkcs11-tool --module "$module" -O 2>/dev/null) || fail "pkcs11-tool -O"
    clear
    [[ $(grep -c 'Key Object' <<<"$shown") = 4 ]] || fail "objects: $shown"
    [[ $shown = *alias/first*alias/second*alias/rsa* ]] || fail "labels: $shown"
    shown=$(pkcs11-tool --module "$module" --test 2>&1) || fail "pkcs11-tool --test: $shown"
    [[ $shown = *"No errors"* ]] || fail "pkcs11-tool --test: $shown"
    # Two threads: initialise, information, slots, token; then the same in a child. pkcs11-tool sleeps for 30 s wherever a
    # thread of its own is not done yet.
    shown=$(timeout 150 pkcs11-tool --module "$module" --test-threads ILGISLT0 --test-threads ILGISLT0 --test-fork 2>&1) ||
        fail "pkcs11-tool --test-threads --test-fork: $shown"
    # Listed again after each sleep.
    [[ $(grep -oE 'test_threads thread:[01] state:-1, rv:CKR_OK|Test thread [01] returning rv:CKR_OK' <<<"$shown" | sort -u | wc -l) = 2 ]] || fail "pkcs11-tool's threads: $shown"
    [[ $shown = *"C_Initialize in forked child"* ]] || fail "pkcs11-tool's fork: $shown"
}
aws_rig_config "$ENVELOPE_KMS_CONFIG"
# A sanitizer's runtime must be the program's own, and pkcs11-tool has none.
if [[ ${ENVELOPE_SANITIZE-} ]]; then echo "pkcs11-tool left out: sanitizers"; else foreign_program; fi

# --- encryption with associated data ---
restart
aws_rig_do counts '{}' >/dev/null
says "encrypt alias/first financial/3 $dek" "ok *"
blob=${reply#ok }
says "decrypt alias/first financial/3 $blob" "ok $dek"
[[ $(aws_rig_count Encrypt) = 1 && $(aws_rig_count Decrypt) = 1 ]] || fail "more than one call for one operation"
[[ $(aws_rig_count DescribeKey) = 1 && $(aws_rig_count ListKeys) = 0 ]] || fail "a key was looked for too often"
says "decrypt alias/first financial/4 $blob" "CKR_ENCRYPTED_DATA_INVALID *InvalidCiphertextException*"
says "decrypt alias/first - $blob" "CKR_ENCRYPTED_DATA_INVALID *"
says "decrypt alias/second financial/3 $blob" "CKR_ENCRYPTED_DATA_INVALID *IncorrectKeyException*"
says "decrypt alias/first financial/3 ${blob:0:-2}00" "CKR_ENCRYPTED_DATA_INVALID *"
says "decrypt alias/first financial/3 00" "CKR_ENCRYPTED_DATA_INVALID *"
says "parts-encrypt alias/first financial/3 $dek" "ok *"
says "decrypt alias/first financial/3 ${reply#ok }" "ok $dek"
aws_rig_do counts '{}' >/dev/null
says "small alias/first financial/3 $blob" "ok $dek"
[[ $(aws_rig_count Decrypt) = 1 ]] || fail "CKR_BUFFER_TOO_SMALL made the service be asked twice"
says "encrypt alias/nothing - $dek" "CKR_OBJECT_HANDLE_INVALID *"
says "find alias/nothing" "ok 0"
says "request-id" "ok *"

# --- wrapping, re-encryption, the dry run, RSA, random numbers ---
says "wrap alias/first tenant-7" "ok *"
read -r _ wrapped value <<<"$reply"
says "unwrap alias/first tenant-7 $wrapped" "ok $value"
says "unwrap alias/first tenant-8 $wrapped" "CKR_WRAPPED_KEY_INVALID *"
says "rewrap alias/first financial/3 alias/second financial/4 $blob" "ok *"
moved=${reply#ok }
[[ $moved != "$blob" ]] || fail "the blob was not moved"
says "decrypt alias/second financial/4 $moved" "ok $dek"
says "decrypt alias/second financial/3 $moved" "CKR_ENCRYPTED_DATA_INVALID *"
says "rewrap alias/first financial/9 alias/second - $blob" "CKR_ENCRYPTED_DATA_INVALID *"
[[ $(aws_rig_count ReEncrypt) = 2 ]] || fail "rewrap did not use ReEncrypt"
says "dry-encrypt alias/first - $dek" "ok"
says "dry-decrypt alias/first financial/3 $blob" "ok"
says "dry-decrypt alias/first wrong $blob" "CKR_ENCRYPTED_DATA_INVALID *"
says "oaep-encrypt alias/rsa $dek" "ok *"
says "oaep-decrypt alias/rsa ${reply#ok }" "ok $dek"
says "encrypt alias/rsa - $dek" "CKR_OBJECT_HANDLE_INVALID *"
says "pair-encrypt alias/rsa - $dek" "CKR_KEY_TYPE_INCONSISTENT *another kind*"
says "random 3000" "ok *"
[[ ${#reply} = 6003 ]] || fail "3000 random bytes came as ${#reply} characters"

# --- data keys: made by KMS, bound to their associated data ---
aws_rig_do counts '{}' >/dev/null
says "data-key alias/first financial/3 32" "ok *"
read -r _ made value here <<<"$reply"
[[ -z $here && ${#value} = 64 ]] || fail "not made by the service: $reply"
says "decrypt alias/first financial/3 $made" "ok $value"
says "decrypt alias/first financial/4 $made" "CKR_ENCRYPTED_DATA_INVALID *"
says "wrapped-key alias/first financial/3 48" "ok *"
[[ $reply != *here ]] || fail "a key that nobody asked for was made here: $reply"
says "decrypt alias/first financial/3 ${reply#ok }" "ok *"
[[ ${#reply} = 99 ]] || fail "48 bytes: $reply"
[[ $(aws_rig_count GenerateDataKey) = 1 && $(aws_rig_count GenerateDataKeyWithoutPlaintext) = 1 ]] ||
    fail "data keys were not made by the service"
says "data-key alias/first - 1100" "ok * here" # more than KMS makes at once
read -r _ made value _ <<<"$reply"
says "decrypt alias/first - $made" "ok $value"
fault GenerateDataKey cut
says "data-key alias/first - 32" "CKR_DEVICE_REMOVED *"
clear
fault GenerateDataKey bad-json
says "data-key alias/first - 32" "CKR_DEVICE_ERROR *"
clear

# --- many pieces: one call each, and each has its own outcome ---
aws_rig_do counts '{}' >/dev/null
says "many encrypt alias/first - financial/1:$dek -:00ff financial/2:$dek" "ok | ok:* | ok:* | ok:*"
IFS='|:' read -r _ _ one _ two _ three <<<"${reply// /}"
says "many decrypt alias/first - financial/1:$one x:$two -:00 financial/2:$three ?financial/2:$three" \
    "CKR_ENCRYPTED_DATA_INVALID item 2 of 5: *InvalidCiphertextException* | ok:$dek | CKR_ENCRYPTED_DATA_INVALID \
| CKR_ENCRYPTED_DATA_INVALID | ok:$dek | ok:"
[[ $(aws_rig_count Encrypt) = 3 && $(aws_rig_count Decrypt) = 5 ]] || fail "not one call each"
says "many rewrap alias/first alias/second financial/1>new:$one x:$two -:$two" \
    "CKR_ENCRYPTED_DATA_INVALID item 2 of 3: * | ok:* | CKR_ENCRYPTED_DATA_INVALID | ok:*"
moved=${reply#*ok:} moved=${moved%% *}
says "decrypt alias/second new $moved" "ok $dek"
says "many-round alias/first 40" "ok"
says "many-arguments alias/first" "ok"
fault Decrypt denied 1
says "many decrypt alias/first - financial/1:$one financial/2:$three" \
    "CKR_USER_NOT_LOGGED_IN item 1 of 2: * | CKR_USER_NOT_LOGGED_IN | ok:$dek"
clear
lost="many decrypt alias/first - financial/1:$one financial/2:$three -:$two"
for kind in silent throttle; do # nobody waits for each of them
    begin=$SECONDS
    fault Decrypt "$kind"
    says "$lost" "CKR_DEVICE_* item 1 of 3: * | CKR_DEVICE_* | CKR_DEVICE_* | CKR_DEVICE_*"
    ((SECONDS - begin <= 7)) || fail "three items took $((SECONDS - begin)) s"
    clear
done

# --- versions ---
says "versions alias/first" "ok 1 1 0"
says "rotate alias/first" "CKR_ACTION_PROHIBITED *rotate = yes*"
restart "rotate = yes"
says "rotate alias/first" "ok 0" # the rotation has begun; KMS tells no number
says "versions alias/first" "ok 2 1 0"
says "decrypt alias/first financial/3 $blob" "ok $dek"
says "min-versions alias/first 2 -" "CKR_FUNCTION_NOT_SUPPORTED *aws-kms*"
aws_rig_do counts '{}' >/dev/null
fault RotateKeyOnDemand cut
says "rotate alias/first" "CKR_DEVICE_REMOVED *"
[[ $(aws_rig_count RotateKeyOnDemand) = 1 ]] || fail "a key may have been rotated twice"
clear

# --- key states: refused at once, and again in use without a restart ---
key_state "$RIG_FIRST_ARN" Disabled
says "decrypt alias/first financial/3 $blob" "CKR_KEY_FUNCTION_NOT_PERMITTED *disabled*DisabledException*"
says "unwrap alias/first tenant-7 $wrapped" "CKR_KEY_FUNCTION_NOT_PERMITTED *"
says "data-key alias/first - 32" "CKR_KEY_FUNCTION_NOT_PERMITTED *disabled*"
key_state "$RIG_FIRST_ARN" Enabled
says "decrypt alias/first financial/3 $blob" "ok $dek"
key_state "$RIG_FIRST_ARN" PendingDeletion
says "decrypt alias/first financial/3 $blob" "CKR_KEY_HANDLE_INVALID *pending deletion*KMSInvalidStateException*"
says "unwrap alias/first tenant-7 $wrapped" "CKR_UNWRAPPING_KEY_HANDLE_INVALID *"
restart
says "find alias/first" "ok 0"
key_state "$RIG_FIRST_ARN" Enabled
says "find alias/first" "ok 1"
says "decrypt alias/first financial/3 $blob" "ok $dek"

key_state "$RIG_FIRST_ARN" Deleted
says "decrypt alias/first financial/3 $blob" "CKR_KEY_HANDLE_INVALID *no such key*NotFoundException*"
says "unwrap alias/first tenant-7 $wrapped" "CKR_UNWRAPPING_KEY_HANDLE_INVALID *no such key*"
restart
says "find alias/first" "ok 0"
key_state "$RIG_FIRST_ARN" Enabled
says "decrypt alias/first financial/3 $blob" "ok $dek"

# --- a throttling storm: the first forty answers refused, and all threads get through ---
aws_rig_do counts '{}' >/dev/null
fault Encrypt throttle 40
says "threads 8 12 alias/first" "ok"
[[ $(aws_rig_count Encrypt) -ge 136 ]] || fail "the storm was not met"
clear

# --- faults: a defined code and text, within the deadline of 5 s ---
decrypt="decrypt alias/first financial/3 $blob"
says "$decrypt" "ok $dek"
says "files" "ok *"
files=${reply#ok }
aws_rig_do counts '{}' >/dev/null
for kind in throttle internal unavailable cut reset; do
    fault Decrypt $kind 2
    within 5 "$decrypt" "ok $dek" # passes: tried again
done
[[ $(aws_rig_count Decrypt) = 15 ]] || fail "not three calls each, but $(aws_rig_count Decrypt) for five"
fault Decrypt throttle
# The last try may be one that the deadline cut.
within 6 "$decrypt" "CKR_DEVICE_@(ERROR|REMOVED) gave up after * tries*ThrottlingException*"
clear
fault Decrypt cut
within 6 "$decrypt" "CKR_DEVICE_REMOVED *"
clear
fault Decrypt slow
within 6 "$decrypt" "CKR_DEVICE_REMOVED *"
clear
fault Decrypt silent
within 6 "$decrypt" "CKR_DEVICE_REMOVED *"
clear
for kind in bad-json wrong-json other-key huge huge-chunked html; do
    for command in "$decrypt" "encrypt alias/first - $dek"; do
        aws_rig_do counts '{}' >/dev/null
        fault '*' "$kind"
        within 5 "$command" "CKR_DEVICE_ERROR *"
        clear
    done
done
says "$decrypt" "ok $dek"
says "files" "ok *"
((${reply#ok } <= files + 1)) || fail "$files open files have become ${reply#ok }"
restart
for kind in bad-json wrong-json huge; do
    fault '*' "$kind"
    within 5 "find alias/first" "CKR_DEVICE_ERROR *"
    clear
done
fault Decrypt denied
says "$decrypt" "CKR_USER_NOT_LOGGED_IN *policy forbids it*AccessDeniedException*"
clear
fault Decrypt expired 1
says "$decrypt" "ok $dek" # new credentials, once more
fault Decrypt expired
says "$decrypt" "CKR_USER_NOT_LOGGED_IN *session has expired*"
clear
says "$decrypt" "ok $dek"

# --- threads and forks ---
says "threads 8 12 alias/first" "ok"
says "fork alias/first" "ok"
says "fork-busy 4 25 alias/first" "ok"

# --- making and destroying keys is refused unless configured ---
says "generate alias/made" "CKR_TOKEN_WRITE_PROTECTED *create = yes*"
says "destroy alias/second" "CKR_ACTION_PROHIBITED *destroy = yes*"
restart "create = yes" "destroy = yes" "pending-days = 7"
says "generate made" "CKR_ATTRIBUTE_VALUE_INVALID *alias/NAME*"
says "generate alias/made" "ok"
aws_rig_do counts '{}' >/dev/null
says "generate alias/made" "CKR_TEMPLATE_INCONSISTENT *alias is taken*"
[[ $(aws_rig_count CreateKey) = 0 ]] || fail "a key was made that has no name"
says "encrypt alias/made - $dek" "ok *"
says "decrypt alias/made - ${reply#ok }" "ok $dek"
says "destroy alias/made" "ok"
says "find alias/made" "ok 0"
fault CreateKey cut
aws_rig_do counts '{}' >/dev/null
says "generate alias/once" "CKR_DEVICE_REMOVED *"
[[ $(aws_rig_count CreateKey) = 1 ]] || fail "a key may have been made twice"
clear

# --- which keys are shown ---
restart "keys = alias/second, alias/absent"
says "find alias/first" "ok 0"
says "find alias/second" "ok 1"
restart
says "find-id $RIG_SECOND_ARN" "ok 1"
says "find-id ${RIG_SECOND_ARN/eu-west-1/us-east-1}" "CKR_KEY_HANDLE_INVALID *another region*"
client_stop
echo "passed: $checks checks"
