# shellcheck shell=bash
# Python's cryptography, Debian's, which uses the system's OpenSSL. (A wheel from PyPI brings an OpenSSL of its own, which
# reads no openssl.cnf of this system: there Envelope is not loaded, and a reference would be used as a key.)
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/clients/lib.sh"
"$python" -c 'import cryptography' 2>/dev/null || skip "python3-cryptography is not installed"

client() {
    envelope reference app --format python >key.txt
    "$python" "$clients/encrypt.py" key.txt plain.txt
}

proof() {
    opened plain.txt gcm "$(cat gcm.iv)" gcm.enc
    opened plain.txt cbc "$(cat cbc.iv)" cbc.enc
    opened plain.txt ctr "$(cat ctr.iv)" ctr.enc
}
run_client
