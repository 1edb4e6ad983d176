# shellcheck shell=bash
# Whatever is wrong with the set-up or the command line: one clear line, the right exit status, and nothing is changed.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
echo data >plain
encrypt "$zero" plain sealed
cp rig/envelope.cnf good.cnf
object=$(sed -n 's/^kek .*object=\([^;]*\).*/\1/p' good.cnf)
state() {
    store_state
    sha256sum plain sealed
}
before=$(state)
unchanged() {
    [ "$before" = "$(state)" ] || fail "$1: something was changed"
    [ ! -e never.enc ] || [ ! -s never.enc ] || fail "$1: a ciphertext was written"
}
# broken WHAT STATUS TEXT: with the configuration as it is now, neither the command nor openssl does anything.
broken() {
    refused_with "$2" "$3" envelope key rotate default
    refused "$3" encrypt "$zero" plain never.enc
    unchanged "$1"
    cp good.cnf rig/envelope.cnf
}

mv rig/envelope.cnf away
refused_with 3 'envelope.cnf' envelope key rotate default
refused 'envelope.cnf' encrypt "$zero" plain never.enc
unchanged "missing configuration"
mv away rig/envelope.cnf

sed -i 's/^store/stor/' rig/envelope.cnf
broken "misspelt key" 3 'envelope.cnf.*stor.*store'
sed -i 's/^default-key.*/&\nrefresh = soon/' rig/envelope.cnf
broken "bad value" 3 'envelope.cnf.*refresh'
sed -i "s|^module.*|module = /nowhere/libtoken.so|" rig/envelope.cnf
broken "missing module" 4 '/nowhere/libtoken.so'
sed -i "s|^module.*|module = $PWD/plain|" rig/envelope.cnf
broken "a module that is none" 4 'plain'
if [ "$backend" = softhsm ]; then # key services: bad_service.sh
    sed -i "s|^pin-file.*|pin-file = $PWD/no-such-pin|" rig/envelope.cnf
    broken "missing PIN file" 4 'no-such-pin'
    echo 999999 >wrong.pin
    chmod 600 wrong.pin
    sed -i "s|^pin-file.*|pin-file = $PWD/wrong.pin|" rig/envelope.cnf
    broken "wrong PIN" 4 'PIN'
    ! grep -q 999999 refused.out || fail "the error shows the PIN"
    : >empty.pin
    chmod 600 empty.pin
    sed -i "s|^pin-file.*|pin-file = $PWD/empty.pin|" rig/envelope.cnf
    broken "empty PIN file" 4 'empty.pin'
fi
sed -i "s|^store.*|store = sqlite:$PWD|" rig/envelope.cnf
broken "a store that is a directory" 5 'directory'
sed -i "s|^store.*|store = sqlite:$PWD/no/keys.db|" rig/envelope.cnf
broken "a store in no directory" 5 'no/keys.db'

# a missing KEK: keys that exist name theirs, so it is a new key that fails
sed -i "s|object=$object|object=nobody|" rig/envelope.cnf
refused_with 4 'nobody' envelope key create fresh
unchanged "missing KEK"
sed -i "s|^kek.*|kek = pkcs11:token=envelope;object=$object;type=secret-key;colour=red|" rig/envelope.cnf
refused_with 4 'colour|not.*recogni|URI' envelope key create fresh
unchanged "a URI with an unknown attribute"
cp good.cnf rig/envelope.cnf

# a KEK that is extractable
case $backend in
softhsm) backend_tool --keygen --key-type AES:32 --label loose --extractable ;;
bao) bao_api POST transit/keys/loose '{"exportable":true}' >/dev/null ;;
aws) ;; # has none
esac
if [ "$backend" != aws ]; then
    refused_with 4 'extractable|neither encrypt' envelope key create fresh --kek 'pkcs11:token=envelope;object=loose;type=secret-key'
    unchanged "extractable KEK"
fi

# key names
refused_with 2 'control characters' envelope key create $'line\nfeed'
refused_with 2 'control characters|255' envelope key create "$(printf 'x%.0s' {1..256})"
refused_with 2 'UTF-8|control characters' envelope key create $'\xff\xfe'
refused_with 2 'control characters|empty|1' envelope key create ''
refused_with 6 'already|there' envelope key create default
for verb in show rotate suspend resume; do
    refused_with 6 'nobody' envelope key $verb nobody
done
refused_with 6 'version 9|9' envelope key suspend default --version 9
refused_with 6 'nobody' envelope history nobody
unchanged "key names"

# the command line
refused_with 2 'say what to do' envelope
refused_with 2 'did you mean "inspect"' envelope inspekt
refused_with 2 'did you mean "key rotate"' envelope key rotat
refused_with 2 'did you mean --limit' envelope history --limt 3
refused_with 2 'needs a value' envelope history --limit
refused_with 2 'limit' envelope history --limit many
refused_with 2 'NAME' envelope key rotate
refused_with 2 'NAME' envelope key rotate default twice
refused_with 2 'message-limit' envelope key create fresh --message-limit 5000000000
refused_with 2 'only' envelope init --softhsm other --kek master
refused_with 3 'no-such.cnf' envelope --config no-such.cnf key list
unchanged "command line"

# inspect
refused_with 1 'absent' envelope inspect absent
refused_with 7 'plain.*5 bytes' envelope inspect plain
head -c 100 /dev/zero >zeros
refused_with 7 'zeros.*not made by Envelope' envelope inspect zeros
refused_with 1 'rig' envelope inspect rig
unchanged "inspect"

# standard output that cannot be written
if [ -e /dev/full ]; then
    status=0
    envelope key list >/dev/full 2>err || status=$?
    [ "$status" -eq 1 ] && grep -q 'standard output' err || fail "a full disk: status $status, $(cat err)"
fi
