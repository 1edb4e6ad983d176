# shellcheck shell=bash
# `envelope init` on a token that somebody else made.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
mkdir tokens
printf 'directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n' "$PWD" >softhsm2.conf
export SOFTHSM2_CONF=$PWD/softhsm2.conf
softhsm2-util --init-token --free --label "our token" --so-pin 5678 --pin 1234 >/dev/null
module=$(find /usr/lib -name libsofthsm2.so | head -n 1)
(umask 077; printf 1234 >pin)
export ENVELOPE_CONFIG=$PWD/envelope.cnf
set_up() { envelope init --module "$module" --token "our token" --store "sqlite:$PWD/keys.db" --pin-file pin "$@"; }
nothing_made() {
    [ ! -e envelope.cnf ] && [ ! -e keys.db ] && [ -z "$(find . -maxdepth 1 -name '.*.new')" ] || fail "something was left behind: $(ls -A)"
}

# without_the_kek_nothing_is_made
refused_with 4 'master' set_up --kek master
nothing_made
# a_wrong_pin_is_named
(umask 077; printf 4321 >pin)
refused_with 4 'PIN' set_up --kek master --generate-kek
nothing_made
(umask 077; printf 1234 >pin)
# what_is_missing_is_named
refused_with 2 'needs --kek' set_up
refused_with 2 '--token' envelope init --module "$module" --kek master --store "sqlite:$PWD/keys.db"
refused_with 4 'no such token' envelope init --module "$module" --token "no such token" --kek master --store "sqlite:$PWD/keys.db" --pin-file pin
refused_with 3 'module' envelope init --module /nowhere.so --token "our token" --kek master --store "sqlite:$PWD/keys.db"
nothing_made

# with_generate_kek_all_is_made, and_once_more_nothing
set_up --kek master --generate-kek >first.log
before=$(sha256sum envelope.cnf keys.db)
set_up --kek master --generate-kek >second.log
grep -q 'nothing was changed' second.log || fail "second run: $(cat second.log)"
[ "$before" = "$(sha256sum envelope.cnf keys.db)" ] || fail "the second run changed something"
[ "$(stat -c %a envelope.cnf keys.db | sort -u)" = 600 ] || fail "modes"
# options_left_out_come_from_the_configuration
envelope init >third.log
grep -q 'nothing was changed' third.log || fail "third run: $(cat third.log)"
# what_it_says_otherwise_is_refused
refused_with 3 'kek = pkcs11:token=our%20token;object=master' set_up --kek other

# the KEK never leaves
pkcs11-tool --module "$module" --token-label "our token" --login --pin 1234 --list-objects --type secrkey >objects 2>&1
grep -q 'never extractable' objects || fail "attributes: $(cat objects)"

# and_programs_can_use_it
export OPENSSL_MODULES=$BUILD_DIR/provider OPENSSL_CONF=/dev/null
echo data >plain
encrypt "$zero" plain sealed -provider envelope
decrypt "$zero" sealed opened -provider envelope
cmp plain opened
