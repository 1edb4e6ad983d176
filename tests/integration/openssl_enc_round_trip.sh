# shellcheck shell=bash
# Plain `openssl enc` encrypts and decrypts, with the provider named on its command line or by openssl.cnf.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig

# only_our_provider_is_enough: no openssl.cnf, no default provider named.
by_name() {
    OPENSSL_CONF=/dev/null "$@" -provider envelope
}
# by_configuration: nothing on the command line.
by_configuration() {
    "$@"
}

for size in 0 1 15 16 17 4095 4096 4097 100000 20000000; do
    head -c "$size" /dev/urandom >plain
    for way in by_name by_configuration; do
        $way encrypt "$zero" plain sealed || fail "$way: encrypting $size bytes"
        [ "$(stat -c %s sealed)" -eq $((size + 32)) ] || fail "$way: overhead of $size bytes is not 32"
        $way decrypt "$zero" sealed opened || fail "$way: decrypting $size bytes"
        cmp plain opened || fail "$way: $size bytes changed"
    done
done

# Made one way, opened the other; and through pipes.
head -c 100000 /dev/urandom >plain
by_name encrypt "$zero" plain sealed
by_configuration decrypt "$zero" sealed opened
cmp plain opened
timeout 60 openssl enc -envelope-aes-256-gcm -K "$zero" <plain |
    timeout 60 openssl enc -d -envelope-aes-256-gcm -K "$zero" | cmp - plain

# the_same_message_never_gives_the_same_bytes
encrypt "$zero" plain sealed2
! cmp -s sealed sealed2 || fail "two ciphertexts are equal"
