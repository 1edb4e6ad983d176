#!/bin/bash
# What the people who run a transit server do to the programs that use it: tokens renewed by an agent, secret ids that are
# good for one login or are wrong, batch tokens, service accounts' tokens that change on disk, namespaces, mounts in
# folders, nodes behind one address.
set -u
# shellcheck source=tests/rigs/bao-rig.sh
. "$SOURCE_DIR/tests/rigs/bao-rig.sh"
# shellcheck source=tests/rigs/aws-client.sh
. "$SOURCE_DIR/tests/rigs/aws-client.sh"

module=$BUILD_DIR/pkcs11/envelope-kms.so
dek=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
agent_pid=
trap 'client_kill; bao_rig_stop; [[ $agent_pid ]] && kill "$agent_pid" 2>/dev/null' EXIT

part() { echo "-- $*"; }
may() { printf 'path \\"%s\\" { capabilities = [%s] } ' "$1" "\\\"${2//,/\\\",\\\"}\\\""; }
policy_of() { # ENGINE: to use its keys, and nothing else
    printf '{"policy":"%s"}' "$(may "$1/keys/*" read)$(may "$1/encrypt/*" update)$(may "$1/decrypt/*" update)"
}
token_of() { jq -r .auth.client_token; }
new_token() { bao_api POST auth/token/create "$1" | token_of; }

# restart [LINE of kms.cnf…]: a new client, with this [token bao] section beside backend, address and CA
restart() {
    client_stop
    printf '%s\n' "[token bao]" "backend = openbao" "address = ${address:-$BAO_ADDR}" "ca-file = $BAO_DIR/ca.pem" "$@" \
        >"$ENVELOPE_KMS_CONFIG"
    client_start "$module" bao
}

there_and_back() {
    says "encrypt kek financial/3 $dek" "ok *"
    says "decrypt kek financial/3 ${reply#ok }" "ok $dek"
}

logins() { jq -rs "[.[] | select(.type == \"response\" and .request.path == \"auth/$1/login\")] | length" "$BAO_DIR/audit.log"; }

export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf
unset BAO_TOKEN VAULT_TOKEN
bao_rig_start "$SCRATCH/server" || fail "the server does not start"
bao_rig_audit || fail "audit"
umask 077
bao_api POST sys/mounts/transit '{"type":"transit"}' || fail "mount"
bao_api PUT sys/policies/acl/envelope "$(policy_of transit)" || fail "policy"
bao_api POST transit/keys/kek '{"type":"aes256-gcm96"}' >/dev/null || fail "key"

part "an agent replaces the token in its file while threads are at work; the old one is revoked"
new_token '{"policies":["envelope"],"ttl":"1h"}' >"$SCRATCH/token"
(
    for _ in 1 2; do
        sleep 2
        old=$(<"$SCRATCH/token")
        new_token '{"policies":["envelope"],"ttl":"1h"}' >"$SCRATCH/token.new"
        mv "$SCRATCH/token.new" "$SCRATCH/token"
        sleep 1
        bao_api POST auth/token/revoke "{\"token\":\"$old\"}"
    done
    : >"$SCRATCH/replaced"
) &
agent_pid=$!
restart "auth = token" "token-file = $SCRATCH/token"
until [[ -e $SCRATCH/replaced ]]; do
    says "threads 4 5 kek" "ok"
    kill -0 "$agent_pid" 2>/dev/null || [[ -e $SCRATCH/replaced ]] || fail "the agent of this test ended"
done
agent_pid=
there_and_back

part "a batch token serves to its end, and the one that replaces it after that"
new_token '{"policies":["envelope"],"ttl":"6s","type":"batch"}' >"$SCRATCH/token"
restart "auth = token" "token-file = $SCRATCH/token"
there_and_back
sleep 7
says "encrypt kek financial/3 $dek" "CKR_USER_NOT_LOGGED_IN *expired*"
new_token '{"policies":["envelope"],"ttl":"1h","type":"batch"}' >"$SCRATCH/token"
there_and_back

part "AppRole: batch tokens are replaced by new logins"
bao_api POST sys/auth/team/approle '{"type":"approle"}' || fail "approle"
approle() { # ROLE JSON: makes it, and files with its ids
    bao_api POST "auth/team/approle/role/$1" "$2" || fail "role $1"
    bao_api GET "auth/team/approle/role/$1/role-id" | jq -r .data.role_id >"$SCRATCH/$1.role-id"
    bao_api POST "auth/team/approle/role/$1/secret-id" '{}' | jq -r .data.secret_id >"$SCRATCH/$1.secret-id"
}
as_approle() {
    local role=$1
    shift
    restart "auth = approle" "auth-mount = team/approle" "role-id-file = $SCRATCH/$role.role-id" \
        "secret-id-file = $SCRATCH/$role.secret-id" "$@"
}
approle batch '{"token_policies":"envelope","token_ttl":"3s","token_type":"batch"}'
as_approle batch
for _ in {1..5}; do
    there_and_back
    sleep 1
done

part "AppRole: a secret id that is good for one login; what the policy does not allow costs no login"
approle once '{"token_policies":"envelope","token_ttl":"1h","secret_id_num_uses":1}'
as_approle once
there_and_back
before=$(logins team/approle)
for _ in 1 2 3; do
    says "random 32" "CKR_USER_NOT_LOGGED_IN *the login is good*policy*"
    there_and_back
done
[[ $(logins team/approle) = "$before" ]] || fail "$(($(logins team/approle) - before)) logins for what the policy forbids"

part "AppRole: a revoked token is replaced by a new login; a refused secret id is not sent again and again"
approle envelope '{"token_policies":"envelope","token_ttl":"1h"}'
as_approle envelope
there_and_back
bao_api POST sys/leases/revoke-prefix/auth/team/approle/login '{}' || fail "revoke"
there_and_back
good=$(<"$SCRATCH/envelope.secret-id")
echo 00000000-0000-0000-0000-000000000000 >"$SCRATCH/envelope.secret-id"
as_approle envelope
says "find kek" "CKR_USER_NOT_LOGGED_IN *AppRole was refused*"
for _ in {1..8}; do # five lock the role out
    says "find kek" "CKR_USER_NOT_LOGGED_IN *AppRole was refused: invalid *not tried again*HTTP *"
done
echo "$good" >"$SCRATCH/envelope.secret-id"
there_and_back

part "Kubernetes: the service account's token changes on disk"
new_jwt() { # as the kubelet does: all at once; the one before is no longer accepted
    bao_rig_jwt >"$SCRATCH/jwt.new"
    mv "$SCRATCH/jwt.new" "$SCRATCH/jwt"
}
new_jwt
bao_rig_kubernetes "$SCRATCH/jwt" '"token_ttl":"2s","token_max_ttl":"2s"' || fail "kubernetes"
restart "auth = kubernetes" "role = envelope" "jwt-file = $SCRATCH/jwt"
for _ in {1..3}; do
    there_and_back
    new_jwt
    sleep 2
done

part "an engine in a folder"
bao_api POST sys/mounts/team/a/transit '{"type":"transit"}' || fail "mount"
bao_api POST team/a/transit/keys/kek '{"type":"aes256-gcm96"}' >/dev/null || fail "key"
bao_api PUT sys/policies/acl/folder "$(policy_of team/a/transit)" || fail "policy"
new_token '{"policies":["folder"],"ttl":"1h"}' >"$SCRATCH/token"
restart "auth = token" "token-file = $SCRATCH/token" "mount = /team/a/transit/"
there_and_back
restart "auth = token" "token-file = $SCRATCH/token"
says "find kek" "CKR_USER_NOT_LOGGED_IN *policy*"

part "an engine and a login in a namespace"
if bao_api POST sys/namespaces/team-1 '{}' >/dev/null 2>&1; then
    bao_api POST team-1/sys/mounts/transit '{"type":"transit"}' || fail "mount"
    bao_api POST team-1/transit/keys/kek '{"type":"aes256-gcm96"}' >/dev/null || fail "key"
    bao_api PUT team-1/sys/policies/acl/envelope "$(policy_of transit)" || fail "policy"
    bao_api POST team-1/sys/auth/approle '{"type":"approle"}' || fail "approle"
    bao_api POST team-1/auth/approle/role/envelope '{"token_policies":"envelope","token_ttl":"3s"}' || fail "role"
    bao_api GET team-1/auth/approle/role/envelope/role-id | jq -r .data.role_id >"$SCRATCH/ns.role-id"
    bao_api POST team-1/auth/approle/role/envelope/secret-id '{}' | jq -r .data.secret_id >"$SCRATCH/ns.secret-id"
    in_namespace=("auth = approle" "role-id-file = $SCRATCH/ns.role-id" "secret-id-file = $SCRATCH/ns.secret-id")
    restart "${in_namespace[@]}" "namespace = team-1"
    for _ in 1 2 3 4; do
        there_and_back
        sleep 1
    done
    says "random 32" "CKR_USER_NOT_LOGGED_IN *policy*"
    says "encrypt kek - $dek" "ok *"
    blob=${reply#ok }
    new_token '{"policies":["envelope"],"ttl":"1h"}' >"$SCRATCH/token"
    restart "auth = token" "token-file = $SCRATCH/token" # another key of the same name, in the root namespace
    says "decrypt kek - $blob" "CKR_ENCRYPTED_DATA_INVALID *"
    bao_api PUT sys/policies/acl/parent "$(policy_of team-1/transit)" || fail "policy"
    new_token '{"policies":["parent"],"ttl":"1h"}' >"$SCRATCH/token"
    restart "auth = token" "token-file = $SCRATCH/token" "mount = team-1/transit" # the login is the parent's
    says "decrypt kek - $blob" "ok $dek"
    restart "${in_namespace[@]}" "namespace = nowhere"
    says "find kek" "CKR_DEVICE_ERROR *see namespace in kms.cnf*"
    restart "${in_namespace[@]}"
    says "find kek" "CKR_USER_NOT_LOGGED_IN *"
else
    echo "left out: only OpenBao and Vault Enterprise have namespaces"
fi

part "several nodes behind one address: a sealed one is left for another, a redirect is not followed"
new_token '{"policies":["envelope"],"ttl":"1h"}' >"$SCRATCH/token"
node() { echo "$1" >"$SCRATCH/node"; }
node sealed
python3 "$SOURCE_DIR/tests/rigs/bao_balancer.py" "$SCRATCH/balancer" "${BAO_ADDR#https://}" "$BAO_DIR/server.pem" \
    "$BAO_DIR/server.key" "$SCRATCH/node" &
bao_rig_pids+=($!)
for ((i = 0; i < 100; i++)); do
    [[ -s $SCRATCH/balancer ]] && break
    sleep 0.1
done
address=https://$(<"$SCRATCH/balancer")
restart "auth = token" "token-file = $SCRATCH/token" "deadline = 6s"
says "find kek" "CKR_DEVICE_REMOVED *sealed*"
node real
there_and_back
node standby
there_and_back # the connection that is there is kept
restart "auth = token" "token-file = $SCRATCH/token" "deadline = 6s"
says "find kek" "CKR_DEVICE_REMOVED gave up*HTTP 307*"
node sealed
says "find kek" "CKR_DEVICE_REMOVED *sealed*"
node real
there_and_back
[[ ! -e $SCRATCH/node.followed ]] || fail "a redirect was followed"
node standby
as_approle envelope "deadline = 20s"
(
    sleep 1
    node real
) &
says "find kek" "ok 1" # a login too waits until there is an active node
wait $!
there_and_back
[[ ! -e $SCRATCH/node.followed ]] || fail "a redirect was followed"
client_stop
grep -q "$(<"$SCRATCH/token")\|$good" "$SCRATCH/client.err" && fail "a secret is in the log"
echo "passed: $checks checks"
