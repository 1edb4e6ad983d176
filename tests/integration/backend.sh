# shellcheck shell=bash
# Where the KEK of an integration test is: ENVELOPE_RIG = softhsm (the default), aws (AWS KMS's emulator behind a proxy of
# ours, tests/rigs/aws-rig.sh) or bao (a transit server, tests/rigs/bao-rig.sh). Sourced by lib.sh. The token's label is
# "envelope" everywhere.
#   backend_rig DIR             make DIR as `envelope init --softhsm DIR` does: its env, configuration, store, default key
#   backend_module              prints the PKCS#11 module
#   backend_kek_make LABEL, backend_kek_delete LABEL      another KEK on the token; for good
#   backend_kek_label LABEL     prints what object= of its URI is
#   backend_away, backend_back  the token cannot be reached; it can again
#   backend_patience TIME       the most that a call into the token may take while it is away
#   backend_few MANY FEW        prints MANY, or FEW where each takes calls to a key service
# Key services only:
#   backend_deny LABEL, backend_allow LABEL   the customer's switch
#   backend_calls_reset, backend_calls        (aws) how often the service has unwrapped since

backend=${ENVELOPE_RIG:-softhsm}
backend_running=no

backend_stop() {
    local status=$?
    set +e
    [ "$backend_running" = no ] || "${backend}_rig_stop"
    exit "$status"
}

backend_tool() {
    timeout 60 pkcs11-tool --module "$(backend_module)" --token-label envelope "$@" >tool.log 2>&1 ||
        fail "pkcs11-tool: $(cat tool.log)"
}

backend_module() {
    if [ "$backend" = softhsm ]; then
        sed -n 's/^module *= *//p' "${ENVELOPE_CONFIG:?}"
    else
        echo "$BUILD_DIR/pkcs11/envelope-kms.so"
    fi
}

backend_few() { if [ "$backend" = softhsm ]; then echo "$1"; else echo "$2"; fi; }

backend_kek_label() { if [ "$backend" = aws ]; then echo "alias/$1"; else echo "$1"; fi; }

# --- AWS KMS ---

backend_aws_start() {
    # shellcheck source=tests/rigs/aws-rig.sh
    . "$SOURCE_DIR/tests/rigs/aws-rig.sh"
    backend_running=yes
    aws_rig_start "$SCRATCH/aws" || fail "the emulator does not start"
    aws_rig_credentials ALLOWED
    kek=alias/first
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
    bao_api POST sys/mounts/transit '{"type":"transit"}' >/dev/null
    backend_bao_policy
    bao_api POST transit/keys/master '{"type":"aes256-gcm96"}' >/dev/null
    (umask 077 && bao_api POST auth/token/create '{"policies":["envelope"],"ttl":"1h"}' | jq -r .auth.client_token >"$SCRATCH/token")
    kek=master
    {
        printf '%s\n' "[token envelope]" "backend = openbao" "address = $BAO_ADDR" "ca-file = $SCRATCH/bao/ca.pem"
        printf '%s\n' "auth = token" "token-file = $SCRATCH/token" "timeout = 2s" "deadline = 10s" "create = yes"
        printf '%s\n' "destroy = yes" "refresh = 1s"
    } >"$SCRATCH/kms.cnf"
}

# --- for all ---

backend_rig() {
    local dir=$1
    if [ "$backend" = softhsm ]; then
        envelope init --softhsm "$dir" >init.log || fail "envelope init: $(cat init.log)"
        return
    fi
    if [ "$backend_running" = no ]; then
        trap backend_stop EXIT
        "backend_${backend}_start"
        chmod 600 "$SCRATCH/kms.cnf"
    fi
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    {
        echo "export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf"
        echo "export ENVELOPE_CONFIG=$dir/envelope.cnf"
        echo "export OPENSSL_CONF=$dir/openssl.cnf"
        echo "export OPENSSL_MODULES=$BUILD_DIR/provider"
    } >"$dir/env"
    cat >"$dir/openssl.cnf" <<END
config_diagnostics = 1
openssl_conf = openssl_init
[openssl_init]
providers = providers_sect
[providers_sect]
default = default_sect
envelope = envelope_sect
[default_sect]
activate = 1
[envelope_sect]
module = $BUILD_DIR/provider/envelope.so
config = $dir/envelope.cnf
activate = 1
END
    ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf envelope --config "$dir/envelope.cnf" init --module "$(backend_module)" \
        --token envelope --kek "$kek" --store "sqlite:$dir/keys.db" >init.log || fail "envelope init: $(cat init.log)"
}

backend_arn() { # LABEL
    pkcs11-tool --module "$(backend_module)" --token-label envelope -O 2>/dev/null |
        awk -v label="$1" '$1 == "label:" { mine = ($2 == label) } $1 == "ID:" && mine { print $2 }' | xxd -r -p
}

backend_kek_make() {
    case $backend in
    softhsm)
        backend_tool --login --pin "$(cat rig/pin)" --keygen --key-type AES:32 --label "$1" --sensitive
        ;;
    *) backend_tool --keygen --key-type AES:32 --label "$(backend_kek_label "$1")" --sensitive ;;
    esac
}

backend_kek_delete() {
    case $backend in
    softhsm) backend_tool --login --pin "$(cat rig/pin)" --delete-object --type secrkey --label "$1" ;;
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

# The emulator has no key states; the proxy before it has. A transit engine is told by policy.
backend_state() { # LABEL STATE
    aws_rig_do state "{\"key\":\"$(backend_arn "$1")\",\"state\":\"$2\"}" >/dev/null
}

backend_deny() {
    case $backend in
    aws) backend_state "alias/$1" Disabled ;;
    bao) backend_bao_policy "$1" ;;
    esac
}

backend_allow() {
    case $backend in
    aws) backend_state "alias/$1" Enabled ;;
    bao) backend_bao_policy ;;
    esac
}

backend_calls_reset() { aws_rig_do counts '{}' >/dev/null; }
backend_calls() { aws_rig_count Decrypt; }
