# shellcheck shell=bash
# pgcrypto's encrypt_iv and decrypt_iv in a PostgreSQL server that was started with OPENSSL_CONF. The key is a key
# reference wherever SQL names it: in a view, a function, a parameter of the application.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/clients/lib.sh"
bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || skip "PostgreSQL is not installed (script/bootstrap)"
ls "$bin"/../../../../share/postgresql/*/extension/pgcrypto.control >/dev/null 2>&1 || skip "pgcrypto is not installed"
iv=000102030405060708090a0b0c0d0e0f

# The server refuses to run as root; it then runs as postgres, in this scratch directory.
as_user=()
if [ "$(id -u)" -eq 0 ]; then
    id postgres >/dev/null 2>&1 || skip "there is no user postgres"
    as_user=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi

give_files_to_user() {
    local file
    chown -R postgres modules rig cluster
    for file in kms.cnf token bao/ca.pem; do
        [ ! -e "$file" ] || chown postgres "$file"
    done
    [ ! -e bao ] || chmod 711 bao
}

give_to_user() {
    # The build tree may be where that user cannot look.
    mkdir -p modules
    cp "$BUILD_DIR/provider/envelope.so" modules/
    sed -i "s|^module = .*|module = $PWD/modules/envelope.so|" rig/openssl.cnf
    if [ "$backend" != softhsm ]; then
        cp "$(backend_module)" modules/
        sed -i "s|^module .*|module = $PWD/modules/envelope-kms.so|" rig/envelope.cnf
    fi
    chmod 711 .
    [ ${#as_user[@]} -eq 0 ] || give_files_to_user
}

start() {
    # with the rig's environment: SOFTHSM2_CONF, or ENVELOPE_KMS_CONFIG and the service's credentials
    "${as_user[@]}" \
        "$bin/pg_ctl" -D "$PWD/cluster" -l "$PWD/cluster/log" -w -t 60 -s \
        -o "-c listen_addresses='' -c unix_socket_directories='$PWD/cluster'" start ||
        { cat cluster/log; return 1; }
}
stop() {
    [ ! -f cluster/postmaster.pid ] || "${as_user[@]}" "$bin/pg_ctl" -D "$PWD/cluster" -m immediate -s stop
}
at_end stop
sql() {
    OPENSSL_CONF=/dev/null PGCONNECT_TIMEOUT=10 "${as_user[@]}" psql -h "$PWD/cluster" -d postgres -X -qAt \
        -v ON_ERROR_STOP=1 "$@"
}

client() {
    if [ ! -d cluster ]; then
        mkdir cluster
        give_to_user
        (cd / && LC_ALL=C "${as_user[@]}" "$bin/initdb" -D "$OLDPWD/cluster" -A trust -N >/dev/null) || return 1
    fi
    give_to_user
    stop
    start || return 1
    sql <<SQL || return 1
CREATE EXTENSION IF NOT EXISTS pgcrypto;
DROP TABLE IF EXISTS letter;
CREATE TABLE letter (body bytea);
INSERT INTO letter SELECT encrypt_iv('A letter, in a column', $(envelope reference app --format sql), '\x$iv', 'aes-cbc');
DO \$\$
BEGIN
    ASSERT (SELECT decrypt_iv(body, $(envelope reference app --format sql), '\x$iv', 'aes-cbc') FROM letter)
        = 'A letter, in a column'::bytea;
END \$\$;
SQL
}

proof() {
    printf 'A letter, in a column' >plain
    sql -c "SELECT encode(body, 'hex') FROM letter" | xxd -r -p >column.enc
    opened plain cbc $iv column.enc
    # A value that is no reference is a key like any other.
    [ "$(sql -c "SELECT encode(encrypt_iv('x', '\x$(printf '5a%.0s' {1..32})', '\x$iv', 'aes-cbc'), 'hex')")" = \
        "$(printf x | OPENSSL_CONF=/dev/null openssl enc -aes-256-cbc -K "$(printf '5a%.0s' {1..32})" -iv $iv | xxd -p)" ] ||
        fail "a raw key gives something else in the server"
    # A damaged reference is an error in SQL, and the server lives on.
    ! sql -c "SELECT encrypt_iv('x', '\x${reference%??}00', '\x$iv', 'aes-cbc')" 2>damaged.log ||
        fail "a damaged reference was taken"
    [ "$(sql -c 'SELECT 1')" = 1 ] || fail "the server is gone"
}
run_client
