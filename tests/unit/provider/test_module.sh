#!/bin/sh
# envelope.so as a file: one symbol, none missing, loadable by name, harmless without configuration.
set -eu
module=$BUILD_DIR/provider/envelope.so
fail() { echo "FAILED: $*" >&2; exit 1; }

symbols=$(nm -D --defined-only "$module" | awk '{print $3}')
if [ -z "$ENVELOPE_SANITIZE" ]; then
    [ "$symbols" = OSSL_provider_init ] || fail "exports: $symbols"
fi
readelf -d "$module" | grep -q NODELETE || fail "the module can be unloaded under a token that still calls it"
if nm -D --undefined-only "$module" | grep -E 'OPENSSL_3\.([1-9]|[0-9]{2,})' ; then
    fail "needs an OpenSSL newer than 3.0"
fi
[ -z "$ENVELOPE_SANITIZE" ] || exit 0

unset OPENSSL_CONF ENVELOPE_CONFIG
export OPENSSL_MODULES="$BUILD_DIR/provider"
timeout 20 openssl list -providers -provider envelope -verbose >providers
grep -q 'name: Envelope' providers || fail "does not load by name"
timeout 20 openssl list -cipher-algorithms -provider envelope | grep -q 'ENVELOPE-AES-256-GCM @ envelope' ||
    fail "offers no cipher"

# Without a configuration it loads, and says what is missing when it is used.
export ENVELOPE_CONFIG="$PWD/none.cnf"
if echo secret | timeout 20 openssl enc -provider envelope -envelope-aes-256-gcm -K 00 -out sealed 2>errors; then
    fail "encrypted without a configuration"
fi
grep -q "none.cnf" errors || fail "does not name the missing configuration: $(cat errors)"
[ ! -s sealed ] || fail "wrote output without a configuration"
