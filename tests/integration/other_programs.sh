# shellcheck shell=bash
# Programs that use OpenSSL and PKCS#11 for themselves live under our openssl.cnf as they did without.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
module=$(sed -n 's/^module *= *//p' rig/envelope.cnf)
pin=$(cat rig/pin)

quietly() { timeout 60 "$@" >out 2>&1 || fail "$* ended with $?: $(tail -n 3 out)"; }

# the_token's_own_tools_neither_hang_nor_crash
quietly softhsm2-util --show-slots
quietly pkcs11-tool --module "$module" --list-slots
quietly pkcs11-tool --module "$module" --token-label envelope --login --pin "$pin" --list-objects
grep -q master out || fail "pkcs11-tool does not see the KEK"
quietly pkcs11-tool --module "$module" --token-label envelope --login --pin "$pin" --keygen --key-type AES:32 --label scratch
quietly softhsm2-util --init-token --free --label other --so-pin 5678 --pin 1234

# openssl itself
quietly openssl version -a
quietly openssl list -providers
grep -q envelope out || fail "openssl does not list the provider"
quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem
quietly openssl req -x509 -key key.pem -subj /CN=test -days 1 -out cert.pem
quietly openssl verify -CAfile cert.pem cert.pem

# Python's hashlib and ssl load the same configuration
quietly "$python" -c 'import hashlib, ssl; hashlib.sha256(b"x").hexdigest(); ssl.create_default_context()'
# and so does cryptography, Debian's
quietly "$python" -c 'from cryptography.fernet import Fernet; f = Fernet(Fernet.generate_key()); assert f.decrypt(f.encrypt(b"x")) == b"x"'
# the KEK was not touched by any of it
echo data >plain
encrypt "$zero" plain sealed
decrypt "$zero" sealed opened
cmp plain opened
