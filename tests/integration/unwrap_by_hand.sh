# shellcheck shell=bash
# The bytes are what docs/wire-format.md says: a DEK unwrapped with the token's own calls (PKCS#11, or a key service's API)
# opens the ciphertext in another implementation of AES-GCM, and openssl opens what that one made.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
envelope key create 'tenant-42/identität' >/dev/null
head -c 5000 /dev/urandom >plain
encrypt "$zero" plain 1.enc
envelope key rotate default >/dev/null
encrypt "$zero" plain 2.enc
encrypt "$(name_hex 'tenant-42/identität')" plain 3.enc

OPENSSL_CONF=/dev/null $python "$SOURCE_DIR/tests/integration/unwrap_by_hand.py" rig plain 1.enc 2.enc 3.enc
for n in 1 2 3; do
    decrypt "$zero" "$n.enc.foreign" opened
    cmp plain opened
done
