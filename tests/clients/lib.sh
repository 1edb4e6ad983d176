# shellcheck shell=bash
# What the clients share. A client is a program as users have it, which knows nothing of Envelope; its 256-bit key is a
# key reference, and openssl.cnf is all that was changed. Each file defines
#     client      encrypt, and decrypt again, with the reference in $reference (hexadecimal), into files of its choice
#     proof       open what it encrypted with the DEK in $dek, using code that is not OpenSSL's (opened)
# and ends with run_client. With CLIENT_KEK=away the same client must fail: a suite that passes without us proves nothing.
# shellcheck source=../integration/lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
clients=$SOURCE_DIR/tests/clients

skip() {
    echo "skipped: $*"
    exit 77
}
need() {
    command -v "$1" >/dev/null || skip "$1 is not installed (script/bootstrap --clients)"
}

# opened PLAIN cbc|ctr|gcm IV CIPHERTEXT: it is what PLAIN holds, under the DEK.
opened() {
    OPENSSL_CONF=/dev/null "$python" "$clients/aes.py" "$dek" "$2" "$3" <"$4" >opened.by-hand ||
        fail "$4 does not open with the DEK"
    cmp "$1" opened.by-hand || fail "$4 holds something else"
}

run_client() {
    rig rig references
    envelope key create app >/dev/null
    reference=$(envelope reference app)
    # shellcheck disable=SC2034 # for the clients
    reference_base64=$(envelope reference app --format base64)
    export reference reference_base64
    printf 'A letter of 4711 %s\n' "$(seq -s ' ' 100)" >plain.txt
    client || fail "the client failed"
    if [ "${CLIENT_KEK:-}" = away ]; then
        remove_kek
        if (client) >client.log 2>&1; then
            fail "the client works without the KEK, so it does not use Envelope"
        fi
        return
    fi
    dek=$(OPENSSL_CONF=/dev/null "$python" "$clients/dek.py" rig "$reference")
    [ ${#dek} -eq 64 ] || fail "no DEK"
    proof
}

# As when an HSM is taken away, or a key service's key is disabled; whoever has unwrapped DEKs in memory may go on for a
# while, so clients start anew.
# shellcheck disable=SC2154 # backend.sh's
remove_kek() {
    if [ "$backend" = softhsm ]; then
        mv rig/tokens rig/tokens.away
        mkdir rig/tokens
    else
        backend_deny "$backend_kek"
    fi
}
