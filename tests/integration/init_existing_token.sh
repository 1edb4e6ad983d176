# shellcheck shell=bash
# `envelope init` on a token that somebody else made.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
case $backend in
softhsm)
    label="our token"
    mkdir tokens
    printf 'directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n' "$PWD" >softhsm2.conf
    export SOFTHSM2_CONF=$PWD/softhsm2.conf
    softhsm2-util --init-token --free --label "$label" --so-pin 5678 --pin 1234 >/dev/null
    module=$(find /usr/lib -name libsofthsm2.so | head -n 1)
    (umask 077; printf 1234 >pin)
    login=(--pin-file pin)
    tool=(--login --pin 1234)
    ;;
*)
    label=envelope
    backend_service
    export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf
    module=$(backend_module)
    login=()
    tool=()
    ;;
esac
export ENVELOPE_CONFIG=$PWD/envelope.cnf
kek=$(backend_kek_label ours)
set_up() { envelope init --module "$module" --token "$label" --store "sqlite:$PWD/keys.db" "${login[@]}" "$@"; }
nothing_made() {
    [ ! -e envelope.cnf ] && [ ! -e keys.db ] && [ -z "$(find . -maxdepth 1 -name '.*.new')" ] || fail "something was left behind: $(ls -A)"
}

# without_the_kek_nothing_is_made
refused_with 4 'ours' set_up --kek "$kek"
nothing_made
# a_wrong_pin_is_named
if [ "$backend" = softhsm ]; then
    (umask 077; printf 4321 >pin)
    refused_with 4 'PIN' set_up --kek "$kek" --generate-kek
    nothing_made
    (umask 077; printf 1234 >pin)
else
    # nor_is_one_made_where_the_module_may_not
    sed -i 's/^create.*/create = no/' "$SCRATCH/kms.cnf"
    refused_with 4 'create = yes' set_up --kek "$kek" --generate-kek
    nothing_made
    sed -i 's/^create.*/create = yes/' "$SCRATCH/kms.cnf"
fi
# what_is_missing_is_named
refused_with 2 'needs --kek' set_up
refused_with 2 '--token' envelope init --module "$module" --kek "$kek" --store "sqlite:$PWD/keys.db"
refused_with 4 'no such token' envelope init --module "$module" --token "no such token" --kek "$kek" --store "sqlite:$PWD/keys.db" "${login[@]}"
refused_with 3 'module' envelope init --module /nowhere.so --token "$label" --kek "$kek" --store "sqlite:$PWD/keys.db"
nothing_made

# with_generate_kek_all_is_made, and_once_more_nothing
set_up --kek "$kek" --generate-kek >first.log
before=$(sha256sum envelope.cnf keys.db)
set_up --kek "$kek" --generate-kek >second.log
grep -q 'nothing was changed' second.log || fail "second run: $(cat second.log)"
[ "$before" = "$(sha256sum envelope.cnf keys.db)" ] || fail "the second run changed something"
[ "$(stat -c %a envelope.cnf keys.db | sort -u)" = 600 ] || fail "modes"
# options_left_out_come_from_the_configuration
envelope init >third.log
grep -q 'nothing was changed' third.log || fail "third run: $(cat third.log)"
# what_it_says_otherwise_is_refused
refused_with 3 "kek = pkcs11:token=${label// /%20};object=[^;]*ours" set_up --kek other

# the KEK never leaves
pkcs11-tool --module "$module" --token-label "$label" "${tool[@]}" --list-objects --type secrkey >objects 2>&1
grep -A 5 "label: *$kek\$" objects | grep -q 'never extractable' || fail "attributes: $(cat objects)"

# and_programs_can_use_it
export OPENSSL_MODULES=$BUILD_DIR/provider OPENSSL_CONF=/dev/null
echo data >plain
encrypt "$zero" plain sealed -provider envelope
decrypt "$zero" sealed opened -provider envelope
cmp plain opened
