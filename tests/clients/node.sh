# shellcheck shell=bash
# Node's crypto, where Node uses the system's OpenSSL (Debian's does; builds from nodejs.org and NodeSource bring their
# own, which loads no module of this system). Node reads openssl.cnf with --openssl-shared-config.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/clients/lib.sh"
node=${CLIENT_NODE:-$(command -v node || true)}
[ -n "$node" ] || skip "node is not installed"
[ "$("$node" -p 'process.config.variables.node_shared_openssl')" = true ] ||
    skip "this node has an OpenSSL of its own: Envelope cannot be loaded into it"

client() {
    "$node" --openssl-shared-config "$clients/node.js" "$reference" plain.txt
}

proof() {
    opened plain.txt gcm "$(cat gcm.iv)" gcm.enc
    opened plain.txt cbc "$(cat cbc.iv)" cbc.enc
}
run_client
