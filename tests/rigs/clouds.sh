#!/bin/bash
# The experimental backends from end to end, through PKCS#11 and HTTP, before a stand-in for the services that is our
# reading of their documentation (cloud_stub.py): what they do with faults, and that their parts fit together.
set -u
# shellcheck source=tests/rigs/aws-client.sh
. "$SOURCE_DIR/tests/rigs/aws-client.sh"

# Where PyPI gives them, Google's own messages stand between the module and the stand-in.
google_python() {
    local venv=${XDG_CACHE_HOME:-$HOME/.cache}/envelope-rigs/google-cloud-kms-3.18.0
    mkdir -p "${venv%/*}"
    (
        flock 9
        "$venv/bin/python" -c 'import google.cloud.kms_v1, cryptography' 2>/dev/null && exit 0
        rm -rf "$venv" && python3 -m venv "$venv" &&
            "$venv/bin/pip" install -q google-cloud-kms==3.18.0 'cryptography>=41'
    ) 9>"${venv%/*}/google.lock" >"${venv%/*}/google.log" 2>&1 && echo "$venv/bin/python"
}

stub_pid=
trap 'client_kill; [[ $stub_pid ]] && kill "$stub_pid"' EXIT
if python=$(google_python); then
    export CLOUD_STUB_MESSAGES=google
else
    echo "Google's messages left out: PyPI does not give google-cloud-kms"
    python=python3
fi
"$python" -c 'import cryptography' 2>/dev/null || {
    echo "skipped: no python3-cryptography" >&2
    exit 77
}
export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf ENVELOPE_KMS_LOG=stderr
dek=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
umask 077

openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out account.pem 2>/dev/null ||
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out account.pem 2>/dev/null || fail "genpkey"
openssl pkey -in account.pem -pubout -out account.pub || fail "pubout"
"$python" "$SOURCE_DIR/tests/rigs/cloud_stub.py" "$SCRATCH/ready" "$SCRATCH/account.pub" 2>"$SCRATCH/stub.err" &
stub_pid=$!
for ((i = 0; i < 300; i++)); do
    [[ -s ready ]] && break
    sleep 0.1
done
url=$(<ready) || fail "the stand-in does not start: $(<stub.err)"
python3 - "$url" >account.json <<'END' || fail "account.json"
import json, sys
key = open("account.pem", encoding="ascii").read()
print(json.dumps({"type": "service_account", "private_key_id": "0a1b", "private_key": key,
                  "client_email": "rig@rig.iam.gserviceaccount.com", "token_uri": sys.argv[1] + "/token"}, indent=2))
END
echo rig-secret >secret

rig() { curl -sS --fail --noproxy '*' --max-time 10 -d "$2" "$url/_rig/$1" >/dev/null || fail "rig $1"; }
fault() { rig fault "{\"action\":\"$1\",\"kind\":\"$2\"${3:+,\"times\":$3}}"; }
restart() { # TOKEN LINE…
    local token=$1
    shift
    client_stop
    printf '%s\n' "[token $token]" "deadline = 3s" "timeout = 1s" "$@" >"$ENVELOPE_KMS_CONFIG"
    client_start "$BUILD_DIR/pkcs11/envelope-kms.so" "$token"
}
with_azure() {
    restart azure "backend = ${kind:-azure-key-vault}" "address = $url" "auth = client-secret" "tenant = rig" "client-id = rig" \
        "authority = $url" "client-secret-file = ${secret:-$SCRATCH/secret}"
}
with_google() { # [LINE…]
    restart google "backend = gcp-kms" "key-ring = projects/rig/locations/europe-west1/keyRings/prod" \
        "auth = ${auth:-service-account}" "endpoint = $url" "credentials-file = ${account:-$SCRATCH/account.json}" "$@"
}
# What every service may do to a decryption; $1: its verb, $2: the command, $3: what it yields
faults() {
    local kind
    for kind in cut reset; do
        fault "$1" $kind 2
        within 3 "$2" "$3"
    done
    for kind in cut slow silent; do
        fault "$1" $kind
        within 4 "$2" "CKR_DEVICE_REMOVED *"
        rig clear '{}'
    done
    for kind in bad-json wrong-json other-key huge huge-chunked html; do
        fault "$1" $kind
        within 4 "$2" "CKR_DEVICE_ERROR *"
        rig clear '{}'
    done
    says "$2" "$3"
    rig state '{"key":"kek","state":"Disabled"}'
    says "$2" "CKR_KEY_FUNCTION_NOT_PERMITTED *disabled*"
    rig clear '{}'
    says "$2" "$3"
}

echo "-- Azure Key Vault"
with_azure
says "oaep-encrypt kek $dek" "ok *"
grep -q "azure-key-vault is experimental" client.err || fail "the log does not say that it is experimental"
bare=${reply#ok }
says "oaep-decrypt kek $bare" "ok $dek"
says "find kek" "ok 2"
says "find-id kek/0001" "ok 2"
says "find nothing" "ok 0"
says "random 8" "0x121 *" # CKR_RANDOM_NO_RNG
says "pair-encrypt kek financial/3 $dek" "ok *"
bound=${reply#ok }
[[ $(xxd -r -p <<<"$bound") = azure1:0001:::* ]] || fail "not a blob that names its version: $bound"
says "pair-decrypt kek financial/3 $bound" "ok $dek"
says "pair-decrypt kek financial/4 $bound" "CKR_ENCRYPTED_DATA_INVALID *other associated data*"
says "pair-decrypt kek - $bound" "CKR_ENCRYPTED_DATA_INVALID *other associated data*"
faults unwrapkey "oaep-decrypt kek $bare" "ok $dek"
curl -sS --noproxy '*' -H 'Authorization: Bearer rig-token' "$url/keys/rotate" >/dev/null || fail "rotate"
with_azure
says "oaep-decrypt kek $bare" "CKR_ENCRYPTED_DATA_INVALID *BadParameter*" # another version: as documented
says "pair-decrypt kek financial/3 $bound" "ok $dek"
says "pair-encrypt kek financial/3 $dek" "ok *"
[[ $(xxd -r -p <<<"${reply#ok }") = azure1:0002:::* ]] || fail "the new version is not used: $reply"
secret=/dev/null with_azure
says "oaep-encrypt kek $dek" "CKR_*"
says "login wrong" "CKR_PIN_INCORRECT *AADSTS7000215*"
says "login rig-secret" "ok"
says "oaep-encrypt kek $dek" "ok *"

echo "-- Azure Managed HSM"
kind=azure-managed-hsm with_azure
says "encrypt aes financial/3 $dek" "ok *"
blob=${reply#ok }
says "decrypt aes financial/3 $blob" "ok $dek"
says "decrypt aes financial/4 $blob" "CKR_ENCRYPTED_DATA_INVALID *"
says "wrap aes tenant-7" "ok *"
read -r _ wrapped value <<<"$reply"
says "unwrap aes tenant-7 $wrapped" "ok $value"
says "random 300" "ok *"
[[ ${#reply} = 603 ]] || fail "300 random bytes came as ${#reply} characters"
rig state '{"key":"aes","state":"Disabled"}'
says "decrypt aes financial/3 $blob" "CKR_KEY_FUNCTION_NOT_PERMITTED *disabled*"
says "encrypt aes financial/3 $dek" "CKR_KEY_FUNCTION_NOT_PERMITTED *disabled*"
rig clear '{}'
says "decrypt aes financial/3 $blob" "ok $dek"

echo "-- Google Cloud KMS"
with_google
says "encrypt kek financial/3 $dek" "ok *"
grep -q "gcp-kms is experimental" client.err || fail "the log does not say that it is experimental"
blob=${reply#ok }
says "decrypt kek financial/3 $blob" "ok $dek"
says "decrypt kek financial/4 $blob" "CKR_ENCRYPTED_DATA_INVALID *associated data*"
says "decrypt kek - $blob" "CKR_ENCRYPTED_DATA_INVALID *"
says "wrap kek tenant-7" "ok *"
read -r _ wrapped value <<<"$reply"
says "unwrap kek tenant-7 $wrapped" "ok $value"
says "rewrap kek financial/3 kek financial/4 $blob" "ok *"
says "decrypt kek financial/4 ${reply#ok }" "ok $dek"
says "dry-decrypt kek financial/3 $blob" "ok"
says "random 1500" "ok *"
[[ ${#reply} = 3003 ]] || fail "1500 random bytes came as ${#reply} characters"
says "find nothing" "ok 0"
says "threads 6 8 kek" "ok"
says "fork kek" "ok"
faults decrypt "decrypt kek financial/3 $blob" "ok $dek"
says "oaep-encrypt pair $dek" "ok *"
bare=${reply#ok }
says "oaep-decrypt pair $bare" "ok $dek"
says "find pair" "ok 2"
says "find-id projects/rig/locations/europe-west1/keyRings/prod/cryptoKeys/pair/cryptoKeyVersions/1" "ok 2"
rig state '{"key":"pair","state":"Disabled"}'
says "oaep-decrypt pair $bare" "CKR_KEY_FUNCTION_NOT_PERMITTED *DISABLED*"
says "oaep-encrypt pair $dek" "CKR_KEY_FUNCTION_NOT_PERMITTED *DISABLED*"
rig clear '{}'
says "oaep-decrypt pair $bare" "ok $dek"

echo "-- Google, federated"
printf subject-token >subject
federated() { # FILE [MEMBER…]
    local name=$1
    shift
    printf '%s' '{"type":"external_account","audience":"//iam.googleapis.com/rig",' \
        '"subject_token_type":"urn:ietf:params:oauth:token-type:jwt",' "\"token_url\":\"$url/token\"," \
        "\"credential_source\":{\"file\":\"$SCRATCH/subject\"}$*}" >"$name"
}
federated external.json
auth=workload-identity account=$SCRATCH/external.json with_google
says "decrypt kek financial/3 $blob" "ok $dek"
federated impersonated.json \
    ",\"service_account_impersonation_url\":\"$url/v1/projects/-/serviceAccounts/a@b:generateAccessToken\""
auth=workload-identity account=$SCRATCH/impersonated.json with_google
says "decrypt kek financial/3 $blob" "ok $dek"
printf another-token >subject
auth=workload-identity account=$SCRATCH/impersonated.json with_google
says "decrypt kek financial/3 $blob" "CKR_USER_NOT_LOGGED_IN *not accepted*"
client_stop

if [[ ! ${ENVELOPE_SANITIZE-} ]]; then
    echo "-- Google, a key made there, and Envelope with its master key there"
    with_google "create = yes" "destroy = yes"
    pkcs11-tool --module "$BUILD_DIR/pkcs11/envelope-kms.so" --keygen --key-type AES:32 --label made --sensitive \
        >made.log 2>&1 || fail "C_GenerateKey: $(cat made.log)"
    pkcs11-tool --module "$BUILD_DIR/pkcs11/envelope-kms.so" -O >objects.log 2>/dev/null || fail "pkcs11-tool -O"
    for label in kek pair made; do
        grep -q "label: *$label\$" objects.log || fail "no $label in $(cat objects.log)"
    done
    says "encrypt made financial/3 $dek" "ok *"
    says "decrypt made financial/3 ${reply#ok }" "ok $dek"
    client_stop
    # shellcheck source=tests/rigs/cloud-kek.sh
    . "$SOURCE_DIR/tests/rigs/cloud-kek.sh"
    switch_off() { rig state '{"key":"kek","state":"Disabled"}'; }
    switch_on() { rig clear '{}'; }
    cloud_kek google kek disabled
    echo "-- Azure, Envelope with its master key in a managed HSM; a vault has no random numbers, which Envelope wants"
    kind=azure-managed-hsm with_azure
    client_stop
    rm -rf kek
    switch_off() { rig state '{"key":"aes","state":"Disabled"}'; }
    cloud_kek azure aes disabled
    with_azure
    client_stop
    cloud_kek_envelope --config "$SCRATCH/vault.cnf" init --module "$BUILD_DIR/pkcs11/envelope-kms.so" --token azure \
        --kek kek --store "sqlite:$SCRATCH/vault.db" && fail "a vault gave random numbers?"
    grep -q "CKR_RANDOM_NO_RNG.*random = local" envelope.log || fail "envelope init: $(cat envelope.log)"
    rm -rf kek
    mkdir kek
    printf '%s\n' "[envelope]" "store = sqlite:$SCRATCH/kek/keys.db" "kek = pkcs11:token=azure;object=kek" "[hsm]" \
        "module = $BUILD_DIR/pkcs11/envelope-kms.so" "random = local" >kek/envelope.cnf
    switch_off() { rig state '{"key":"kek","state":"Disabled"}'; }
    cloud_kek azure kek disabled
fi
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out account.pem 2>/dev/null
python3 - <<'END' || fail "other.json"
import json
account = json.load(open("account.json", encoding="ascii"))
account["private_key"] = open("account.pem", encoding="ascii").read()
json.dump(account, open("other.json", "w", encoding="ascii"))
END
account=$SCRATCH/other.json with_google
says "encrypt kek - $dek" "CKR_USER_NOT_LOGGED_IN *Invalid JWT Signature*"
client_stop
grep -q "rig-secret\|rig-token\|PRIVATE" client.err && fail "a secret in the log"
echo "passed: $checks checks"
