# shellcheck shell=bash
# What is broken, doctor names, with what to do; and it changes nothing.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
cp rig/envelope.cnf good.cnf
cp rig/openssl.cnf good-openssl.cnf
object=$(sed -n 's/^kek .*object=\([^;]*\).*/\1/p' good.cnf)
restore() {
    cp good.cnf rig/envelope.cnf
    cp good-openssl.cnf rig/openssl.cnf
    find rig -type f -exec chmod 600 {} +
}
# finds STATUS OUTCOME CHECK TEXT
finds() {
    local status=0
    timeout 100 envelope doctor >found 2>err || status=$?
    [ "$status" -eq "$1" ] || fail "doctor ended with $status, not $1: $(cat found err)"
    grep -qE "^$2 +$3 .*$4" found || fail "doctor does not say $2 $3 $4: $(cat found)"
    restore
}

envelope doctor >found || fail "a whole rig: $(cat found)"
! grep -E '^(failed|skipped)' found | grep -v "^skipped  PIN .*section \[hsm\] names none" || fail "a whole rig: $(cat found)"
state() {
    store_state
    fingerprint rig | grep -v -e keys.db -e tokens/
}
before=$(state)

if [ "$backend" = softhsm ]; then # key services: bad_service.sh
    chmod 640 rig/pin
    finds 0 warning PIN 0640
    chmod 644 rig/pin
    finds 4 failed login 'chmod 600'
    echo 000000 >wrong.pin
    chmod 600 wrong.pin
    sed -i "s|^pin-file.*|pin-file = $PWD/wrong.pin|" rig/envelope.cnf
    finds 4 failed login PIN
fi
chmod 666 rig/envelope.cnf
finds 0 warning configuration 0666
echo 'colour = red' >>rig/envelope.cnf
finds 3 failed configuration colour
sed -i 's|^module.*|module = /nowhere.so|' rig/envelope.cnf
finds 4 failed module /nowhere.so
sed -i 's|token=envelope|token=other|' rig/envelope.cnf
finds 4 failed token other
sed -i "s|object=$object|object=other|" rig/envelope.cnf
finds 4 failed KEK other
sed -i "s|^store.*|store = sqlite:$PWD/none.db|" rig/envelope.cnf
finds 5 failed store none.db
sed -i "s|^default-key.*|default-key = nobody|" rig/envelope.cnf
finds 6 failed "default key" nobody
sed -i '/^default = default_sect/d' rig/openssl.cnf
finds 1 failed openssl.cnf AES-256-GCM
sed -i 's|^module.*|module = /nowhere/envelope.so|' rig/openssl.cnf
finds 3 failed openssl.cnf 'nowhere|load'
sed -i '/^\[envelope_sect\]/,$s/^activate.*//' rig/openssl.cnf
finds 3 failed openssl.cnf activate
sed -i '/^envelope = envelope_sect/d' rig/openssl.cnf
finds 0 warning openssl.cnf 'does not activate'
OPENSSL_MODULES=/nowhere finds 3 failed provider /nowhere
[ "$before" = "$(state)" ] || fail "doctor changed something"

# a KEK that could leave
case $backend in
softhsm) backend_tool --keygen --key-type AES:32 --label loose --extractable ;;
*) exit 0 ;; # it has none, or the module lets it do nothing (bad_input)
esac
sed -i "s|object=$object|object=loose|" rig/envelope.cnf
finds 4 failed "KEK attributes" CKA_EXTRACTABLE
