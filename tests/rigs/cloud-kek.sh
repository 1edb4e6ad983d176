# shellcheck shell=bash
# Envelope with its master key in a key service, in short, to be sourced after aws-client.sh. The whole integration suite
# runs with ENVELOPE_RIG (tests/integration/backend.sh); this is what a further service has to show.
#
#   cloud_kek TOKEN LABEL REFUSAL   init, encrypt, rotate, decrypt old and new; then switch_off (the caller's): refused with
#                                   REFUSAL (an extended regular expression), and switch_on: works again
# Left out where the caller has no switch_off. A kek/envelope.cnf that is there already is used as it is.

# shellcheck source=tests/rigs/openssl-cnf.sh
. "$SOURCE_DIR/tests/rigs/openssl-cnf.sh"

cloud_kek_envelope() {
    timeout 60 "$BUILD_DIR/bin/envelope" "$@" >envelope.log 2>&1
}

cloud_kek_openssl() {
    timeout 60 openssl enc -envelope-aes-256-gcm -K "$cloud_kek_key" "$@" 2>openssl.log
}

cloud_kek() {
    local zero wanted=()
    zero=$(printf '%064d' 0)
    mkdir -p kek
    export ENVELOPE_CONFIG=$SCRATCH/kek/envelope.cnf
    [[ -e $ENVELOPE_CONFIG ]] || wanted=(--module "$BUILD_DIR/pkcs11/envelope-kms.so" --token "$1" --kek "$2"
        --store "sqlite:$SCRATCH/kek/keys.db")
    cloud_kek_envelope --config "$ENVELOPE_CONFIG" init "${wanted[@]}" || fail "envelope init: $(cat envelope.log)"
    openssl_cnf "$ENVELOPE_CONFIG" >kek/openssl.cnf
    export OPENSSL_CONF=$SCRATCH/kek/openssl.cnf
    cloud_kek_key=$(printf %s default | xxd -p)
    cloud_kek_key+=${zero:${#cloud_kek_key}}
    echo "what is kept" >plain
    cloud_kek_openssl -in plain -out one.enc || fail "openssl enc: $(cat openssl.log)"
    cloud_kek_envelope key rotate default || fail "envelope key rotate: $(cat envelope.log)"
    cloud_kek_openssl -in plain -out two.enc || fail "openssl enc after the rotation: $(cat openssl.log)"
    cloud_kek_both
    if [[ $(type -t switch_off) = function ]]; then
        switch_off
        cloud_kek_openssl -d -in one.enc -out opened && fail "opened, though the master key is switched off"
        grep -qE -e "$3" openssl.log || fail "the error does not say \"$3\": $(cat openssl.log)"
        cloud_kek_envelope key rotate default && fail "rotated, though the master key is switched off"
        switch_on
        cloud_kek_both
    fi
    unset OPENSSL_CONF ENVELOPE_CONFIG
    checks=$((checks + 1))
}

cloud_kek_both() {
    local file
    for file in one two; do
        cloud_kek_openssl -d -in $file.enc -out opened || fail "openssl enc -d $file: $(cat openssl.log)"
        cmp -s plain opened || fail "$file.enc opened to something else"
    done
}
