# shellcheck shell=bash
# `envelope doctor` tells of what would make a key reference a key, and of what it would break.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/clients/lib.sh"
envelope init --softhsm rig --key-references >/dev/null
use rig
cp rig/openssl.cnf whole.cnf

says() {
    envelope doctor >doctor.log 2>&1 || true
    grep -qE "$1" doctor.log || fail "doctor does not say \"$1\": $(cat doctor.log)"
    cp whole.cnf rig/openssl.cnf
}

says '^ok +key references '
says '^ok +TLS '
sed -i '/^default_properties/d' rig/openssl.cnf
says 'failed +key references .*programs get the default'
sed -i 's/^key-references.*/key-references = AES-256-GMC/' rig/openssl.cnf
says 'failed +key references .*there is no cipher "AES-256-GMC"'
sed -i 's/^key-references.*/key-references = AES-256-GCM/' rig/openssl.cnf
says '^ok +key references '
sed -i 's/^key-references.*/&\nraw-keys = deny:AES-256-GCM/' rig/openssl.cnf
says '^warning +TLS '

# The canary: a line for a service's start that fails where Envelope is not in front of the ciphers.
envelope reference default --canary >canary.sh
bash canary.sh || fail "the canary fails with Envelope"
sed '/^envelope = /d' whole.cnf >without.cnf
! OPENSSL_CONF=without.cnf bash canary.sh 2>/dev/null || fail "the canary sings without Envelope"
sed 's|^module = .*|module = /nonexistent/envelope.so|' whole.cnf >broken.cnf
! OPENSSL_CONF=broken.cnf bash canary.sh 2>/dev/null || fail "the canary sings where the module does not load"
envelope key suspend default >/dev/null
! bash canary.sh 2>/dev/null || fail "the canary sings under a suspended key"
