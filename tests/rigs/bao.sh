#!/bin/bash
# The bridge in front of a real transit engine: every way to log in, keys, associated data, rewrapping, and what a
# program is told when the server is sealed, gone or not to be trusted, or the key is.
set -u
# shellcheck source=tests/rigs/bao-rig.sh
. "$SOURCE_DIR/tests/rigs/bao-rig.sh"
# shellcheck source=tests/rigs/aws-client.sh
. "$SOURCE_DIR/tests/rigs/aws-client.sh"

module=$BUILD_DIR/pkcs11/envelope-kms.so
dek=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
trap 'client_kill; bao_rig_stop' EXIT

part() { echo "-- $*"; }
hex() { xxd -p "$@" | tr -d '\n'; }

# restart [LINE of kms.cnf…]: a new client, with this [token bao] section beside backend, address and CA
restart() {
    client_stop
    (
        umask 077
        printf '%s\n' "[token bao]" "backend = openbao" "address = $BAO_ADDR" "ca-file = ${ca:-$BAO_DIR/ca.pem}" "$@" \
            >"$ENVELOPE_KMS_CONFIG"
    )
    client_start "$module" bao
}
with_token() { restart "auth = token" "token-file = $SCRATCH/token" "$@"; }

there_and_back() {
    says "encrypt kek financial/3 $dek" "ok *"
    blob=${reply#ok }
    says "decrypt kek financial/3 $blob" "ok $dek"
}

new_token() { bao_api POST auth/token/create "$1" | jq -r .auth.client_token; }
tool() { pkcs11-tool --module "$module" "$@" 2>&1; }

export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf
unset BAO_TOKEN VAULT_TOKEN
bao_rig_start "$SCRATCH/server" || fail "the server does not start"
umask 077

may() { printf 'path \\"transit/%s\\" { capabilities = [%s] } ' "$1" "\\\"${2//,/\\\",\\\"}\\\""; }
policy="$(may keys list)$(may 'keys/*' read,create,update,delete)$(may 'encrypt/*' create,update)"
policy+="$(may 'decrypt/*' update)$(may 'rewrap/*' update)$(may 'random/*' update)$(may 'datakey/*' create,update)"
bao_api POST sys/mounts/transit '{"type":"transit"}' || fail "mount"
bao_api PUT sys/policies/acl/envelope "{\"policy\":\"$policy\"}" || fail "policy"
bao_api PUT sys/policies/acl/rewrap "{\"policy\":\"$(may keys list)$(may 'keys/*' read)$(may 'rewrap/*' update)\"}" ||
    fail "policy"
bao_api POST transit/keys/kek '{"type":"aes256-gcm96"}' >/dev/null || fail "key"
bao_api POST transit/keys/second '{"type":"aes256-gcm96"}' >/dev/null || fail "key"
new_token '{"policies":["envelope"],"ttl":"1h"}' >"$SCRATCH/token"

foreign_program() {
    shown=$(tool -L) || fail "pkcs11-tool -L: $shown"
    [[ $shown = *"token label        : bao"* && $shown = *transit* ]] || fail "slots: $shown"
    shown=$(tool -O) || fail "pkcs11-tool -O: $shown"
    [[ $shown = *"label:      kek"*"label:      second"* ]] || fail "objects: $shown"
    shown=$(tool --keygen --key-type AES:32 --sensitive --label made-by-tool) || fail "keygen: $shown"
    shown=$(tool --keypairgen --key-type rsa:4096 --sensitive --usage-decrypt --label rsa) || fail "keypairgen: $shown"
    [[ $(bao_api GET transit/keys/made-by-tool | jq -r .data.type) = aes256-gcm96 ]] || fail "made-by-tool"
    [[ $(bao_api GET transit/keys/rsa | jq -r .data.type) = rsa-4096 ]] || fail "rsa"
    shown=$(tool --test) || fail "pkcs11-tool --test: $shown"
    [[ $shown = *"No errors"* ]] || fail "pkcs11-tool --test: $shown"
}

part "pkcs11-tool, a foreign program"
with_token "create = yes" "deadline = 60s"
if [[ ${ENVELOPE_SANITIZE-} ]]; then
    echo "left out: pkcs11-tool cannot load a module built with -fsanitize=$ENVELOPE_SANITIZE"
    bao_api POST transit/keys/rsa '{"type":"rsa-4096"}' >/dev/null || fail "key"
else
    foreign_program
fi

part "associated data is bound"
there_and_back
[[ $(xxd -r -p <<<"$blob") = vault:v1:* ]] || fail "not a transit ciphertext: $blob"
says "decrypt kek financial/4 $blob" "CKR_ENCRYPTED_DATA_INVALID *message authentication failed*"
says "decrypt kek - $blob" "CKR_ENCRYPTED_DATA_INVALID *message authentication failed*"
says "decrypt second financial/3 $blob" "CKR_ENCRYPTED_DATA_INVALID *"
says "dry-decrypt kek financial/3 $blob" "ok"
says "dry-decrypt kek financial/4 $blob" "CKR_ENCRYPTED_DATA_INVALID *"
damaged=$(xxd -r -p <<<"$blob" | sed 's/^vault:v1:..../vault:v1:AAAA/' | hex)
says "decrypt kek financial/3 $damaged" "CKR_ENCRYPTED_DATA_INVALID *damaged*"
says "decrypt kek financial/3 00" "CKR_ENCRYPTED_DATA_INVALID *vault:vN*"
says "decrypt kek financial/3 $(printf 'vault:v9:AAAA' | hex)" "CKR_ENCRYPTED_DATA_INVALID *"
says "wrap kek tenant-7" "ok *"
read -r _ wrapped value <<<"$reply"
says "unwrap kek tenant-7 $wrapped" "ok $value"
says "unwrap kek tenant-8 $wrapped" "CKR_WRAPPED_KEY_INVALID *"
says "random 3000" "ok *"
[[ ${#reply} = 6003 ]] || fail "3000 random bytes came as ${#reply} characters"
says "threads 8 12 kek" "ok"
says "fork kek" "ok"
# The sanitizers' allocators keep no lock across a fork: a child of a busy process may hang in them.
[[ ${ENVELOPE_SANITIZE-} ]] || says "fork-busy 4 10 kek" "ok"

part "rewrap: inside the service without associated data, else decrypt and encrypt"
says "encrypt kek - $dek" "ok *"
bare=${reply#ok }
bao_api POST transit/keys/kek/rotate '{}' >/dev/null || fail "rotate"
says "rewrap kek financial/3 second other $blob" "ok *"
says "decrypt second other ${reply#ok }" "ok $dek"
says "rewrap kek financial/4 second other $blob" "CKR_ENCRYPTED_DATA_INVALID *message authentication failed*"
new_token '{"policies":["rewrap"],"ttl":"1h"}' >"$SCRATCH/token"
with_token # may not decrypt: what succeeds now never left the service
says "rewrap kek - kek - $bare" "ok *"
moved=${reply#ok }
[[ $(xxd -r -p <<<"$moved") = vault:v2:* ]] || fail "not moved to version 2: $moved"
says "rewrap kek financial/3 kek financial/3 $blob" "CKR_USER_NOT_LOGGED_IN *policy*"
says "decrypt kek - $moved" "CKR_USER_NOT_LOGGED_IN *policy*"
new_token '{"policies":["envelope"],"ttl":"1h"}' >"$SCRATCH/token"
with_token
says "decrypt kek - $moved" "ok $dek"
says "decrypt kek financial/3 $blob" "ok $dek" # version 1, after the rotation
bao_api POST transit/keys/kek/config '{"min_decryption_version":2}' >/dev/null
says "decrypt kek financial/3 $blob" "CKR_KEY_FUNCTION_NOT_PERMITTED *min_decryption_version*"
bao_api POST transit/keys/kek/config '{"min_decryption_version":1}' >/dev/null
says "decrypt kek financial/3 $blob" "ok $dek"

part "data keys: made by the engine, or here where associated data is to be bound"
says "data-key kek - 32" "ok *"
read -r _ made value here <<<"$reply"
[[ -z $here && ${#value} = 64 ]] || fail "not the engine's: $reply"
says "decrypt kek - $made" "ok $value"
says "data-key kek financial/3 32" "ok * here"
read -r _ made value _ <<<"$reply"
says "decrypt kek financial/3 $made" "ok $value"
says "decrypt kek - $made" "CKR_ENCRYPTED_DATA_INVALID *message authentication failed*"
says "data-key kek - 24" "ok * here" # a length that the engine does not know
read -r _ made value _ <<<"$reply"
[[ ${#value} = 48 ]] || fail "24 bytes came as ${#value} characters"
says "decrypt kek - $made" "ok $value"
for bytes in 16 64; do
    says "wrapped-key kek - $bytes" "ok *"
    [[ $reply != *here ]] || fail "a key that nobody asked for was made here: $reply"
    says "decrypt kek - ${reply#ok }" "ok *"
    [[ ${#reply} = $((3 + 2 * bytes)) ]] || fail "$bytes bytes: $reply"
done
says "data-key kek - 4097" "CKR_DATA_LEN_RANGE *"

part "batches: each piece has its own outcome"
says "many encrypt kek - financial/1:$dek -:00ff financial/2:$dek" "ok | ok:* | ok:* | ok:*"
IFS='|:' read -r _ _ one _ two _ three <<<"${reply// /}"
says "many decrypt kek - financial/1:$one -:$two financial/2:$three" "ok | ok:$dek | ok:00ff | ok:$dek"
spoilt=$(xxd -r -p <<<"$two" | sed 's/^\(vault:v[0-9]*:\)..../\1AAAA/' | hex)
nonsense=$(printf 'vault:v1' | hex)
says "many decrypt kek - financial/1:$one -:$spoilt financial/1:$three -:$nonsense financial/2:$three ?financial/2:$three" \
    "CKR_ENCRYPTED_DATA_INVALID item 2 of 6: *message authentication failed* | ok:$dek | CKR_ENCRYPTED_DATA_INVALID \
| CKR_ENCRYPTED_DATA_INVALID | CKR_ENCRYPTED_DATA_INVALID | ok:$dek | ok:"
says "many decrypt kek - x:$one x:$three" \
    "CKR_ENCRYPTED_DATA_INVALID item 1 of 2: * | CKR_ENCRYPTED_DATA_INVALID | CKR_ENCRYPTED_DATA_INVALID"
says "many rewrap kek kek financial/1>new:$one -:$two x:$three -:$spoilt financial/2:$three" \
    "CKR_ENCRYPTED_DATA_INVALID item 3 of 5: * | left:* | ok:* | CKR_ENCRYPTED_DATA_INVALID | CKR_ENCRYPTED_DATA_INVALID | left:*"
moved=${reply#*left:} moved=${moved%% *}
says "decrypt kek new $moved" "ok $dek"
says "many rewrap kek second financial/1>new:$one financial/2:$three" "ok | left:* | left:*"
moved=${reply#*left:} moved=${moved%% *}
says "decrypt second new $moved" "ok $dek"
says "many rewrap kek kek -:$two -:$two" "ok | ok:* | ok:*"
says "many encrypt rsa - -:00" "CKR_OBJECT_HANDLE_INVALID *"
says "many-round kek 1300" "ok"
says "many-arguments kek" "ok"

part "versions: read, a new one, and how far back they serve"
says "versions kek" "ok 2 1 0"
says "rotate kek" "CKR_ACTION_PROHIBITED *rotate = yes*"
says "min-versions kek 2 -" "CKR_ACTION_PROHIBITED *rotate = yes*"
bao_api POST transit/keys/turning '{"type":"aes256-gcm96"}' >/dev/null || fail "key"
with_token "rotate = yes"
says "versions turning" "ok 1 1 0"
says "encrypt turning financial/3 $dek" "ok *"
first=${reply#ok }
new_token '{"policies":["rewrap"],"ttl":"1h"}' >"$SCRATCH/token"
with_token "rotate = yes" # the switch here is no permission there
says "rotate turning" "CKR_USER_NOT_LOGGED_IN *policy*"
says "min-versions turning 1 -" "CKR_USER_NOT_LOGGED_IN *policy*"
new_token '{"policies":["envelope"],"ttl":"1h"}' >"$SCRATCH/token"
with_token "rotate = yes"
says "rotate turning" "ok 2"
says "versions turning" "ok 2 1 0"
says "encrypt turning financial/3 $dek" "ok *"
[[ $(xxd -r -p <<<"${reply#ok }") = vault:v2:* ]] || fail "not of the new version: $reply"
says "many decrypt turning - financial/3:$first financial/3:${reply#ok }" "ok | ok:$dek | ok:$dek"
says "min-versions turning 3 -" "CKR_ARGUMENTS_BAD *cannot set min decryption version of 3, latest key version is 2*"
says "min-versions turning 2 1" "CKR_ARGUMENTS_BAD *would not open*"
says "min-versions turning 0 -" "CKR_ARGUMENTS_BAD *from 1*"
says "min-versions turning 2 2" "ok"
says "versions turning" "ok 2 2 2"
says "decrypt turning financial/3 $first" "CKR_KEY_FUNCTION_NOT_PERMITTED *min_decryption_version*"
says "many decrypt turning - financial/3:$first" "CKR_KEY_FUNCTION_NOT_PERMITTED item 1 of 1: *min_decryption_version* | *"
says "min-versions turning 1 2" "ok"
says "decrypt turning financial/3 $first" "ok $dek"
says "versions gone" "CKR_OBJECT_HANDLE_INVALID *"

part "RSA: encrypted with OpenSSL, decrypted by the service, across a rotation"
xxd -r -p <<<"$dek" >dek
bao_api GET transit/keys/rsa | jq -r '.data.keys["1"].public_key' >rsa.pem
if [[ ! ${ENVELOPE_SANITIZE-} ]]; then
    tool --read-object --type pubkey --label rsa -o rsa.der >/dev/null || fail "read the public key"
    openssl pkey -pubin -in rsa.pem -outform DER | cmp - rsa.der || fail "the public key shown is not the service's"
fi
openssl pkeyutl -encrypt -pubin -inkey rsa.pem -pkeyopt rsa_padding_mode:oaep \
    -pkeyopt rsa_oaep_md:sha256 -in dek -out rsa.blob || fail "encrypt with the public key"
bao_api POST transit/keys/rsa/rotate '{}' >/dev/null || fail "rotate"
says "oaep-decrypt rsa $(hex rsa.blob)" "ok $dek"
says "oaep-encrypt rsa $dek" "ok *"
says "oaep-decrypt rsa ${reply#ok }" "ok $dek"
says "oaep-decrypt rsa $(head -c 512 /dev/zero | hex)" "CKR_ENCRYPTED_DATA_INVALID *"

part "keys that are not to be used, and keys that are deleted"
bao_api POST transit/keys/exportable '{"exportable":true}' >/dev/null
bao_api POST transit/keys/derived '{"derived":true}' >/dev/null
bao_api POST transit/keys/chacha '{"type":"chacha20-poly1305"}' >/dev/null
with_token
says "encrypt exportable - $dek" "CKR_KEY_FUNCTION_NOT_PERMITTED *"
says "encrypt derived - $dek" "CKR_KEY_FUNCTION_NOT_PERMITTED *"
says "data-key exportable - 32" "CKR_KEY_FUNCTION_NOT_PERMITTED *"
says "find chacha" "ok 0"
says "generate made" "CKR_TOKEN_WRITE_PROTECTED *create = yes*"
says "destroy second" "CKR_ACTION_PROHIBITED *destroy = yes*"
with_token "create = yes" "destroy = yes"
says "generate made" "ok"
says "generate made" "CKR_ATTRIBUTE_VALUE_INVALID *already*"
says "generate .made" "CKR_ATTRIBUTE_VALUE_INVALID *label*"
says "destroy made" "CKR_ACTION_PROHIBITED *deletion_allowed=true*"
bao_api POST transit/keys/made/config '{"deletion_allowed":true}' >/dev/null
says "destroy made" "ok"
says "find made" "ok 0"
bao_api GET transit/keys/made >/dev/null 2>&1 && fail "made is still there"
says "encrypt second - $dek" "ok *"
sealed=${reply#ok }
bao_api POST transit/keys/second/config '{"deletion_allowed":true}' >/dev/null
bao_api DELETE transit/keys/second || fail "delete"
says "encrypt second - $dek" "CKR_KEY_HANDLE_INVALID *was it deleted*" # not a new key of the same name
says "decrypt second - $sealed" "CKR_KEY_HANDLE_INVALID *was it deleted*"
says "many encrypt second - -:$dek x:$dek" \
    "CKR_KEY_HANDLE_INVALID item 1 of 2: *was it deleted* | CKR_KEY_HANDLE_INVALID | CKR_KEY_HANDLE_INVALID"
says "many decrypt second - -:$sealed" "CKR_KEY_HANDLE_INVALID *was it deleted* | CKR_KEY_HANDLE_INVALID"
says "data-key second - 32" "CKR_KEY_HANDLE_INVALID *was it deleted*"
says "data-key second x 32" "CKR_KEY_HANDLE_INVALID *was it deleted*"
bao_api GET transit/keys/second >/dev/null 2>&1 && fail "the deleted key came back"

part "disabled, and enabled again without a restart"
if bao_api DELETE transit/keys/kek/soft-delete >/dev/null 2>&1; then
    says "decrypt kek financial/3 $blob" "CKR_KEY_FUNCTION_NOT_PERMITTED *soft-deleted*restore*"
    says "encrypt kek financial/3 $dek" "CKR_KEY_FUNCTION_NOT_PERMITTED *"
    bao_api POST transit/keys/kek/soft-delete-restore '{}' >/dev/null || fail "restore"
    says "decrypt kek financial/3 $blob" "ok $dek"
else
    echo "left out: only OpenBao can disable a key (soft-delete)"
fi

part "settings of another backend"
printf '%s\n' "[token bao]" "backend = openbao" "address = $BAO_ADDR" "auth = token" "fips = yes" >"$ENVELOPE_KMS_CONFIG"
shown=$("$BUILD_DIR/tests/rigs/aws-client" "$module" bao </dev/null)
[[ $shown = "CKR_FUNCTION_FAILED "*"fips means nothing to backend = openbao"* ]] || fail "$shown"

part "only the keys named in kms.cnf"
with_token "keys = kek, absent"
says "find kek" "ok 1"
says "find rsa" "ok 0"
with_token "mount = elsewhere"
says "find kek" "CKR_USER_NOT_LOGGED_IN *policy*" # all that a token without rights there learns

part "a token near its end is renewed; one that has expired, was invented or may nothing is refused"
new_token '{"policies":["envelope"],"ttl":"3s"}' >"$SCRATCH/token"
with_token
for _ in {1..7}; do
    there_and_back
    sleep 1
done
new_token '{"policies":["envelope"],"ttl":"2s","renewable":false}' >"$SCRATCH/token"
with_token
there_and_back
sleep 3
says "decrypt kek financial/3 $blob" "CKR_USER_NOT_LOGGED_IN *expired*"
new_token '{"policies":["envelope"],"ttl":"1h"}' >"$SCRATCH/token" # as an agent would
says "decrypt kek financial/3 $blob" "ok $dek"
bao_api POST auth/token/revoke "{\"token\":\"$(<"$SCRATCH/token")\"}" || fail "revoke"
says "decrypt kek financial/3 $blob" "CKR_USER_NOT_LOGGED_IN *"
new_token '{"policies":["envelope"],"ttl":"1h"}' >"$SCRATCH/token"
says "decrypt kek financial/3 $blob" "ok $dek"
echo hvs.invented >"$SCRATCH/token"
with_token
says "find kek" "CKR_USER_NOT_LOGGED_IN *refused*"
new_token '{"policies":["default"],"ttl":"1h"}' >"$SCRATCH/token"
with_token
says "find kek" "CKR_USER_NOT_LOGGED_IN *policy*"

part "a token as PIN"
restart "auth = token"
says "find kek" "CKR_USER_NOT_LOGGED_IN *no token*"
says "login hvs.wrong" "CKR_PIN_INCORRECT *refused*"
says "login $(new_token '{"policies":["envelope"],"ttl":"1h"}')" "ok"
there_and_back
says "logout" "ok"

part "AppRole"
bao_api POST sys/auth/approle '{"type":"approle"}' || fail "approle"
bao_api POST auth/approle/role/envelope '{"token_policies":"envelope","token_ttl":"3s","token_max_ttl":"5s"}'
bao_api GET auth/approle/role/envelope/role-id | jq -r .data.role_id >"$SCRATCH/role-id"
bao_api POST auth/approle/role/envelope/secret-id '{}' | jq -r .data.secret_id >"$SCRATCH/secret-id"
restart "auth = approle" "role-id-file = $SCRATCH/role-id" "secret-id-file = $SCRATCH/secret-id"
for _ in {1..8}; do # past the maximum life of a token
    there_and_back
    sleep 1
done
restart "auth = approle" "role = $(<"$SCRATCH/role-id")"
says "login $(<"$SCRATCH/secret-id")" "ok"
there_and_back
says "logout" "ok"
says "login 00000000-secret" "CKR_PIN_INCORRECT *AppRole was refused*"
[[ $reply != *00000000-secret* ]] || fail "the secret id is shown: $reply"

part "a TLS client certificate"
bao_api POST sys/auth/cert '{"type":"cert"}' || fail "cert"
jq -n --rawfile ca "$BAO_DIR/ca.pem" '{certificate: $ca, token_policies: "envelope", token_ttl: "1h"}' >cert.json
bao_api POST auth/cert/certs/envelope @cert.json || fail "certificate role"
restart "auth = cert" "role = envelope" "client-cert = $BAO_DIR/client.pem" "client-key = $BAO_DIR/client.key"
there_and_back
restart "auth = cert" "role = envelope" "client-cert = $BAO_DIR/other-ca.pem" "client-key = $BAO_DIR/other-ca.key"
says "find kek" "CKR_USER_NOT_LOGGED_IN *TLS certificate was refused*"

part "a Kubernetes service account (its API server is a stub)"
bao_rig_jwt >jwt
bao_rig_jwt >wrong-jwt
bao_rig_kubernetes "$SCRATCH/jwt" '"token_ttl":"1h"' || fail "kubernetes"
restart "auth = kubernetes" "role = envelope" "jwt-file = $SCRATCH/jwt"
there_and_back
restart "auth = kubernetes" "role = envelope" "jwt-file = $SCRATCH/wrong-jwt"
says "find kek" "CKR_USER_NOT_LOGGED_IN *Kubernetes service account was refused*"
says "login 1234" "CKR_PIN_INCORRECT *takes no PIN*"

part "a server with a certificate of another CA gets no token"
new_token '{"policies":["envelope"],"ttl":"1h"}' >"$SCRATCH/token"
ca=$BAO_DIR/other-ca.pem with_token
says "find kek" "CKR_TOKEN_NOT_RECOGNIZED *certificate*"

part "sealed: said at once; unsealed: in use again without a restart"
with_token
there_and_back
bao_seal || fail "seal"
start=$SECONDS
says "decrypt kek financial/3 $blob" "CKR_DEVICE_REMOVED *sealed*"
says "encrypt kek financial/3 $dek" "CKR_DEVICE_REMOVED *sealed*"
((SECONDS - start < 8)) || fail "a sealed server is waited for"
bao_unseal || fail "unseal"
there_and_back

part "gone: an error within the deadline"
with_token "deadline = 2s"
there_and_back
bao_rig_stop
start=$SECONDS
says "decrypt kek financial/3 $blob" "CKR_DEVICE_REMOVED *connect*"
((SECONDS - start < 8)) || fail "hangs past the deadline"
client_stop
echo "passed: $checks checks"
