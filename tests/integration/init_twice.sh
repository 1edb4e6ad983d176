# shellcheck shell=bash
# `envelope init --softhsm` makes a whole rig; a second run changes nothing; a killed run is completed.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig

# the_rig_is_complete_and_private
for file in softhsm2.conf pin envelope.cnf openssl.cnf keys.db env; do
    [ "$(stat -c %a "rig/$file")" = 600 ] || fail "mode of $file is $(stat -c %a "rig/$file")"
done
[ "$(stat -c %a rig)" = 700 ] || fail "mode of the rig"
[ "$(stat -c %a rig/tokens)" = 700 ] || fail "mode of tokens"
[ -n "$(ls rig/tokens)" ] || fail "no token"

# twice_changes_nothing
echo data >plain
before=$(fingerprint rig)
envelope init --softhsm rig >again.log
grep -q 'nothing was changed' again.log || fail "the second run says: $(cat again.log)"
[ "$before" = "$(fingerprint rig)" ] || fail "the second run changed something"
envelope --json init --softhsm rig | $python -c 'import json, sys; d = json.load(sys.stdin); assert d["changed"] is False and d["made"] == [], d'
# by another name of the same directory, and without its environment
(unset SOFTHSM2_CONF ENVELOPE_CONFIG OPENSSL_CONF OPENSSL_MODULES; cd / && envelope init --softhsm "$OLDPWD/./rig" >/dev/null)
[ "$before" = "$(fingerprint rig)" ] || fail "the third run changed something"

encrypt "$zero" plain sealed

# what_was_killed_is_completed, whatever it had made
for pieces in "softhsm2.conf" "softhsm2.conf tokens" "softhsm2.conf tokens pin" \
    "softhsm2.conf tokens pin envelope.cnf" "softhsm2.conf tokens pin envelope.cnf openssl.cnf" \
    "softhsm2.conf tokens pin envelope.cnf openssl.cnf keys.db"; do
    rm -rf half
    envelope init --softhsm half >/dev/null
    for file in softhsm2.conf tokens pin envelope.cnf openssl.cnf keys.db env; do
        case " $pieces " in *" $file "*) ;; *) rm -rf "half/$file" ;; esac
    done
    envelope init --softhsm half >half.log || fail "not completed from: $pieces"
    (use half; encrypt "$zero" plain half.enc; decrypt "$zero" half.enc opened; cmp plain opened) || fail "not usable after: $pieces"
done
# and at random moments
for delay in 0.001 0.003 0.006 0.01 0.02 0.03 0.05 0.08; do
    rm -rf half
    timeout -s KILL "$delay" envelope init --softhsm half >/dev/null 2>&1 || true
    # SoftHSM empties its token's file to write it anew at every login; what is killed just then has no token any more.
    if [ -e half/envelope.cnf ] && [ -n "$(find half/tokens -name token.object -size 0)" ]; then
        refused_with 4 'token "envelope" is not there' envelope init --softhsm half
        echo "killed after $delay s: SoftHSM lost its token"
        continue
    fi
    envelope init --softhsm half >half.log 2>&1 || fail "killed after $delay s, not completed: $(cat half.log)"
    (use half; encrypt "$zero" plain half.enc; decrypt "$zero" half.enc opened; cmp plain opened) || fail "not usable, killed after $delay s"
done
# two_at_once_make_one_rig
for _ in 1 2 3 4; do envelope init --softhsm together >/dev/null & done
wait
(use together; encrypt "$zero" plain together.enc; [ "$(query 'SELECT count(*) FROM encryption_key' together/keys.db)" = 1 ])

# a_directory_of_somebody_else_is_left_alone
mkdir theirs
echo mine >theirs/openssl.cnf
before=$(fingerprint theirs)
refused_with 2 'not empty' envelope init --softhsm theirs
[ "$before" = "$(fingerprint theirs)" ] || fail "somebody else's directory was changed"
# a_lost_configuration_does_not_cost_the_token
rm rig/envelope.cnf
before=$(fingerprint rig)
refused_with 3 'holds keys' envelope init --softhsm rig
[ "$before" = "$(fingerprint rig)" ] || fail "the rig without configuration was changed"

# directories with unusual names
rig "with blank, \$dollar and 'quote\""
encrypt "$zero" plain odd.enc
decrypt "$zero" odd.enc opened
cmp plain opened
refused_with 2 "'#'" envelope init --softhsm 'number#1'
[ ! -e 'number#1' ] || fail "a refused directory was made"
