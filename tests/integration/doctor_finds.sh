# shellcheck shell=bash
# What is broken, doctor names, with what to do; and it changes nothing.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
cp rig/envelope.cnf good.cnf
cp rig/openssl.cnf good-openssl.cnf
restore() {
    cp good.cnf rig/envelope.cnf
    cp good-openssl.cnf rig/openssl.cnf
    chmod 600 rig/*
    chmod 700 rig/tokens
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
! grep -qE '^(failed|skipped)' found || fail "a whole rig: $(cat found)"
state() {
    store_state
    fingerprint rig | grep -v -e keys.db -e tokens/
}
before=$(state)

chmod 640 rig/pin
finds 0 warning PIN 0640
chmod 644 rig/pin
finds 4 failed login 'chmod 600'
chmod 666 rig/envelope.cnf
finds 0 warning configuration 0666
echo 'colour = red' >>rig/envelope.cnf
finds 3 failed configuration colour
sed -i 's|^module.*|module = /nowhere.so|' rig/envelope.cnf
finds 4 failed module /nowhere.so
sed -i 's|token=envelope|token=other|' rig/envelope.cnf
finds 4 failed token other
sed -i 's|object=master|object=other|' rig/envelope.cnf
finds 4 failed KEK other
echo 000000 >wrong.pin
chmod 600 wrong.pin
sed -i "s|^pin-file.*|pin-file = $PWD/wrong.pin|" rig/envelope.cnf
finds 4 failed login PIN
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
module=$(sed -n 's/^module *= *//p' good.cnf)
pkcs11-tool --module "$module" --token-label envelope --login --pin "$(cat rig/pin)" --keygen --key-type AES:32 \
    --label loose --extractable >/dev/null 2>&1
sed -i 's|object=master|object=loose|' rig/envelope.cnf
finds 4 failed "KEK attributes" CKA_EXTRACTABLE
