# shellcheck shell=bash
# Programs that use OpenSSL and PKCS#11 for themselves live under our openssl.cnf as they did without.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
module=$(backend_module)

quietly() { timeout 60 "$@" >out 2>&1 || fail "$* ended with $?: $(tail -n 3 out)"; }

# the_token's_own_tools_neither_hang_nor_crash
quietly pkcs11-tool --module "$module" --list-slots
backend_tool --list-objects
grep -q "$(backend_kek_label "$backend_kek")" tool.log || fail "pkcs11-tool does not see the KEK: $(cat tool.log)"
backend_kek_make scratch
if [ "$backend" = softhsm ]; then
    quietly softhsm2-util --show-slots
    quietly softhsm2-util --init-token --free --label other --so-pin 5678 --pin 1234
else
    # curl has an OpenSSL of the same configuration around it, as the module has
    quietly curl -sS --max-time 30 --noproxy '*' -o /dev/null --cacert "$(find "$SCRATCH" -name ca.pem | head -n 1)" "${BAO_ADDR:-$RIG_TLS_URL}"
fi

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
