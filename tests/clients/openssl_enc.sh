# shellcheck shell=bash
# openssl enc: -K takes the reference where a key would stand.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/clients/lib.sh"
iv=000102030405060708090a0b0c0d0e0f

client() {
    for mode in cbc ctr; do
        openssl enc -aes-256-$mode -K "$reference" -iv $iv -in plain.txt -out $mode.enc || return 1
        openssl enc -d -aes-256-$mode -K "$reference" -iv $iv -in $mode.enc | cmp - plain.txt || return 1
    done
}

proof() {
    opened plain.txt cbc $iv cbc.enc
    opened plain.txt ctr $iv ctr.enc
    # The other way round: without Envelope and with the DEK.
    OPENSSL_CONF=/dev/null openssl enc -aes-256-cbc -K "$dek" -iv $iv -in plain.txt | cmp - cbc.enc
    # And where Envelope is not loaded, the reference opens nothing.
    ! OPENSSL_CONF=/dev/null openssl enc -d -aes-256-cbc -K "$reference" -iv $iv -in cbc.enc >/dev/null 2>&1
}
run_client
