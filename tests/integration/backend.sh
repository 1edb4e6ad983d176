# shellcheck shell=bash
# Where the KEK of an integration test is: ENVELOPE_RIG = softhsm (the default), aws (AWS KMS's emulator behind a proxy of
# ours, tests/rigs/aws-rig.sh) or bao (a transit server, tests/rigs/bao-rig.sh). Sourced by lib.sh. The token's label is
# "envelope" everywhere.
#   backend_rig DIR [references]   make DIR as `envelope init --softhsm DIR [--key-references]` does: its env,
#                               configuration, store, default key
#   $backend_kek, $kek          the name of that key's KEK, for the functions below; what object= of its URI is
#   backend_module              prints the PKCS#11 module
#   backend_tool ARGUMENTS      pkcs11-tool with the token, logged in where that is needed
#   backend_kek_make LABEL, backend_kek_delete LABEL      another KEK on the token; for good
#   backend_kek_label LABEL     prints what object= of its URI is
#   backend_away, backend_back  the token cannot be reached; it can again
#   backend_patience TIME       the most that a call into the token may take while it is away
#   backend_few MANY FEW        prints MANY, or FEW with AWS, whose emulator takes some 50 ms of processor for each call
# Key services only:
#   backend_service             start it, unless it runs, and make $SCRATCH/kms.cnf (backend_rig does it)
#   backend_deny LABEL [WAY], backend_allow LABEL [WAY]   the customer's switch
#   backend_ways                              prints the WAYs there are; the first is what is used if none is named
#   backend_credentials_revoke, backend_credentials_restore   the service takes ours no more; it takes new ones
#   backend_calls_reset, backend_calls        how often the service has unwrapped since
#   $SCRATCH/auditor                          how curl proves to the service who it is (auditor.py)

# shellcheck source=tests/rigs/openssl-cnf.sh
. "$SOURCE_DIR/tests/rigs/openssl-cnf.sh"

backend=${ENVELOPE_RIG:-softhsm}
backend_running=no

backend_stop() { [ "$backend_running" = no ] || "${backend}_rig_stop"; }

backend_tool() {
    local login=()
    [ "$backend" != softhsm ] || login=(--login --pin "$(cat "${ENVELOPE_CONFIG%/*}/pin")")
    timeout 60 pkcs11-tool --module "$(backend_module)" --token-label envelope "${login[@]}" "$@" >tool.log 2>&1 ||
        fail "pkcs11-tool: $(cat tool.log)"
}

backend_module() {
    if [ "$backend" = softhsm ]; then
        sed -n 's/^module *= *//p' "${ENVELOPE_CONFIG:?}"
    else
        echo "${backend_installed:-$BUILD_DIR/pkcs11/envelope-kms.so}"
    fi
}

case $backend in
softhsm | bao) backend_kek=master ;;
aws) backend_kek=first ;;
*) fail "ENVELOPE_RIG=$backend: softhsm, aws or bao" ;;
esac

backend_few() { if [ "$backend" = aws ]; then echo "$2"; else echo "$1"; fi; }

backend_kek_label() { if [ "$backend" = aws ]; then echo "alias/$1"; else echo "$1"; fi; }
kek=$(backend_kek_label "$backend_kek")

# --- AWS KMS ---

backend_aws_start() {
    # shellcheck source=tests/rigs/aws-rig.sh
    . "$SOURCE_DIR/tests/rigs/aws-rig.sh"
    backend_running=yes
    aws_rig_start "$SCRATCH/aws" || fail "the emulator does not start"
    aws_rig_credentials ALLOWED
    (umask 077 && printf '%s\n' "user = \"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\"" \
        "aws-sigv4 = \"aws:amz:$RIG_REGION:kms\"" >"$SCRATCH/auditor")
    {
        printf '%s\n' "[token envelope]" "backend = aws-kms" "region = $RIG_REGION" "endpoint = $RIG_URL"
        printf '%s\n' "sts-endpoint = $RIG_URL" "timeout = 2s" "deadline = 10s" "create = yes" "destroy = yes"
        echo "refresh = 1s"
    } >"$SCRATCH/kms.cnf"
}

# --- a transit server ---

backend_bao_policy() { # [key that must not be used]
    local rules="" path
    for path in keys 'keys/*' 'encrypt/*' 'decrypt/*' 'rewrap/*' 'random/*'; do
        rules+="path \\\"transit/$path\\\" { capabilities = [\\\"create\\\",\\\"read\\\",\\\"update\\\",\\\"delete\\\",\\\"list\\\"] } "
    done
    for path in ${1:+"encrypt/$1" "decrypt/$1"}; do
        rules+="path \\\"transit/$path\\\" { capabilities = [\\\"deny\\\"] } "
    done
    bao_api PUT sys/policies/acl/envelope "{\"policy\":\"$rules\"}" >/dev/null
}

backend_bao_start() {
    # shellcheck source=tests/rigs/bao-rig.sh
    . "$SOURCE_DIR/tests/rigs/bao-rig.sh"
    unset BAO_TOKEN VAULT_TOKEN
    set +e # its own checks
    bao_rig_start "$SCRATCH/bao" || fail "the server does not start"
    set -e
    backend_running=yes
    bao_rig_audit
    bao_api POST sys/mounts/transit '{"type":"transit"}' >/dev/null
    backend_bao_policy
    bao_api POST transit/keys/master '{"type":"aes256-gcm96"}' >/dev/null
    backend_bao_token
    (umask 077 && printf '%s\n' "header = \"X-Vault-Token: $(<"$SCRATCH/token")\"" "cacert = \"$SCRATCH/bao/ca.pem\"" \
        >"$SCRATCH/auditor")
    {
        printf '%s\n' "[token envelope]" "backend = openbao" "address = $BAO_ADDR" "ca-file = $SCRATCH/bao/ca.pem"
        printf '%s\n' "auth = token" "token-file = $SCRATCH/token" "timeout = 2s" "deadline = 10s" "create = yes"
        printf '%s\n' "destroy = yes" "refresh = 1s"
    } >"$SCRATCH/kms.cnf"
}

# --- for all ---

backend_service() {
    [ "$backend_running" = no ] || return 0
    at_end backend_stop
    "backend_${backend}_start"
    chmod 600 "$SCRATCH/kms.cnf"
}

backend_rig() {
    local dir=$1 references=${2:-}
    if [ "$backend" = softhsm ]; then
        envelope init --softhsm "$dir" ${references:+--key-references} >init.log || fail "envelope init: $(cat init.log)"
        return
    fi
    backend_service
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    printf 'export %s=%q\n' ENVELOPE_KMS_CONFIG "$SCRATCH/kms.cnf" ENVELOPE_CONFIG "$dir/envelope.cnf" \
        OPENSSL_CONF "$dir/openssl.cnf" OPENSSL_MODULES "$BUILD_DIR/provider" >"$dir/env"
    openssl_cnf "$dir/envelope.cnf" "$references" >"$dir/openssl.cnf"
    ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf envelope --config "$dir/envelope.cnf" init --module "$(backend_module)" \
        --token envelope --kek "$kek" --store "sqlite:$dir/keys.db" >init.log || fail "envelope init: $(cat init.log)"
}

backend_arn() { # LABEL
    pkcs11-tool --module "$(backend_module)" --token-label envelope -O 2>/dev/null |
        awk -v label="$1" '$1 == "label:" { mine = ($2 == label) } $1 == "ID:" && mine { print $2 }' | xxd -r -p
}

backend_kek_make() { backend_tool --keygen --key-type AES:32 --label "$(backend_kek_label "$1")" --sensitive; }

backend_kek_delete() {
    case $backend in
    softhsm) backend_tool --delete-object --type secrkey --label "$1" ;;
    aws)
        local arn
        arn=$(backend_arn "alias/$1")
        backend_tool --delete-object --type secrkey --label "alias/$1"
        # what the service does from then on, and the emulator does not
        aws_rig_do state "{\"key\":\"$arn\",\"state\":\"PendingDeletion\"}" >/dev/null
        ;;
    bao)
        bao_api POST "transit/keys/$1/config" '{"deletion_allowed":true}' >/dev/null
        backend_tool --delete-object --type secrkey --label "$1"
        ;;
    esac
}

backend_away() {
    case $backend in
    softhsm)
        mkdir tokens.away
        mv rig/tokens/* tokens.away/
        ;;
    aws) aws_rig_do fault '{"action":"*","kind":"reset"}' >/dev/null ;;
    bao) bao_seal ;;
    esac
}

backend_back() {
    case $backend in
    softhsm)
        mv tokens.away/* rig/tokens/
        rmdir tokens.away
        ;;
    aws) aws_rig_do clear >/dev/null ;;
    bao) bao_unseal ;;
    esac
}

backend_patience() {
    [ "$backend" = softhsm ] || sed -i "s/^deadline.*/deadline = $1/; s/^timeout.*/timeout = $1/" "$SCRATCH/kms.cnf"
}

# The emulator has no key states; the proxy before it has. A transit engine is told by policy; or, where it is OpenBao, by
# soft-deletion of the key; or the key goes on to a newer version, and what the older ones made is no longer opened.
backend_state() { # LABEL STATE
    aws_rig_do state "{\"key\":\"$(backend_arn "$1")\",\"state\":\"$2\"}" >/dev/null
}

backend_ways() {
    case $backend in
    aws) echo state ;;
    bao)
        echo policy
        echo version
        bao_api POST transit/keys/probe '{}' >/dev/null
        ! bao_api DELETE transit/keys/probe/soft-delete >/dev/null 2>&1 || echo soft-delete
        ;;
    esac
}

backend_deny() {
    case $backend-${2:-} in
    aws-*) backend_state "alias/$1" Disabled ;;
    bao-soft-delete) bao_api DELETE "transit/keys/$1/soft-delete" >/dev/null ;;
    bao-version)
        bao_api POST "transit/keys/$1/rotate" '{}' >/dev/null
        bao_api POST "transit/keys/$1/config" '{"min_decryption_version":2}' >/dev/null
        ;;
    bao-*) backend_bao_policy "$1" ;;
    esac
}

backend_allow() {
    case $backend-${2:-} in
    aws-*) backend_state "alias/$1" Enabled ;;
    bao-soft-delete) bao_api POST "transit/keys/$1/soft-delete-restore" '{}' >/dev/null ;;
    bao-version) bao_api POST "transit/keys/$1/config" '{"min_decryption_version":1}' >/dev/null ;;
    bao-*) backend_bao_policy ;;
    esac
}

backend_bao_token() {
    (umask 077 && bao_api POST auth/token/create '{"policies":["envelope"],"ttl":"1h"}' | jq -r .auth.client_token >"$SCRATCH/token")
}

backend_credentials_revoke() {
    case $backend in
    aws) aws_rig_do fault '{"action":"Decrypt","kind":"expired"}' >/dev/null ;;
    bao) bao_api POST auth/token/revoke "{\"token\":\"$(<"$SCRATCH/token")\"}" >/dev/null ;;
    esac
}

backend_credentials_restore() {
    case $backend in
    aws) aws_rig_do clear >/dev/null ;;
    bao) backend_bao_token ;;
    esac
}

# AWS's calls are counted by the proxy before it, the transit engine's by its own audit log.
backend_calls_reset() {
    case $backend in
    aws) aws_rig_do counts '{}' >/dev/null ;;
    bao) audited=$(wc -l <"$SCRATCH/bao/audit.log") ;;
    esac
}
backend_calls() {
    case $backend in
    aws) aws_rig_count Decrypt ;;
    bao)
        tail -n +$((audited + 1)) "$SCRATCH/bao/audit.log" |
            jq -r 'select(.type == "request" and (.request.path | startswith("transit/decrypt/"))) | .request.path' | wc -l
        ;;
    esac
}
