# shellcheck shell=bash
# TLS lives on in a process that uses key references: its keys are never references. openssl s_server and s_client, TLS
# 1.2 and 1.3, under the same openssl.cnf; also where raw keys are denied in general, since libssl's own are spared.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/clients/lib.sh"
envelope init --softhsm rig --key-references >/dev/null
use rig
OPENSSL_CONF=/dev/null openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key \
    -out server.pem -subj /CN=localhost -days 2 2>/dev/null
# An encrypted private key is opened with AES-256-CBC and a key made of the password.
OPENSSL_CONF=/dev/null openssl pkey -in server.key -aes-256-cbc -passout pass:secret -out sealed.key

server=
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    server=
}
trap stop EXIT

start() {
    openssl s_server -accept 127.0.0.1:0 -cert server.pem -key sealed.key -pass pass:secret -rev >server.log 2>&1 &
    server=$!
    for _ in $(seq 100); do
        port=$(sed -n 's/^ACCEPT .*:\([0-9]*\)$/\1/p' server.log)
        [ -z "$port" ] || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    fail "the server does not start: $(cat server.log)"
}

# handshake WORDS…: the server turns a line around; WORDS are what s_client must say of the connection.
handshake() {
    local wanted=$1
    shift
    { echo 'a letter'; sleep 1; } | timeout 30 openssl s_client -connect "127.0.0.1:$port" -CAfile server.pem \
        "$@" >client.log 2>&1 || fail "s_client $*: $(tail -n 5 client.log)"
    grep -q "Cipher is $wanted" client.log || fail "not $wanted: $(grep 'Cipher is' client.log)"
    grep -q 'rettel a' client.log || fail "no data came back with $*"
}

for policy in allow warn deny; do
    sed -i '/^raw-keys/d; s/^key-references.*/&\nraw-keys = '$policy'/' rig/openssl.cnf
    grep -q "^raw-keys = $policy" rig/openssl.cnf
    start
    handshake TLS_AES_256_GCM_SHA384 -tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384
    handshake TLS_CHACHA20_POLY1305_SHA256 -tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256
    handshake ECDHE-ECDSA-AES256-GCM-SHA384 -tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384
    handshake ECDHE-ECDSA-AES256-SHA384 -tls1_2 -cipher ECDHE-ECDSA-AES256-SHA384
    # A session is resumed by its ticket, which the server sealed with AES-256-CBC.
    handshake ECDHE-ECDSA-AES256-GCM-SHA384 -tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384 -sess_out session
    handshake ECDHE-ECDSA-AES256-GCM-SHA384 -tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384 -sess_in session
    grep -q '^Reused' client.log || fail "the session was not resumed"
    stop
done

# Named, a cipher is denied to libssl as well; doctor says so before a service finds out.
sed -i 's/^raw-keys.*/raw-keys = deny:AES-256-GCM/' rig/openssl.cnf
start
! { echo; sleep 1; } | timeout 30 openssl s_client -connect "127.0.0.1:$port" -CAfile server.pem -tls1_3 \
    -ciphersuites TLS_AES_256_GCM_SHA384 >client.log 2>&1 || fail "AES-256-GCM was to be denied"
stop
envelope doctor >doctor.log 2>&1 || true
grep -q 'TLS' doctor.log || fail "doctor says nothing of TLS: $(cat doctor.log)"

# openssl speed
sed -i '/^raw-keys/d' rig/openssl.cnf
for cipher in aes-256-gcm aes-256-cbc chacha20-poly1305; do
    timeout 60 openssl speed -seconds 1 -bytes 1024 -evp $cipher >speed.log 2>&1 || fail "openssl speed: $(cat speed.log)"
done
