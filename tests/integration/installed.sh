# shellcheck shell=bash
# What `cmake --install` puts into a system is complete and works from there.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
DESTDIR=$PWD/root cmake --install "$BUILD_DIR" >install.log 2>&1 || fail "install: $(tail -n 5 install.log)"
found() { find root -path "*/$1" | head -n 1; }
for file in bin/envelope pkcs11/envelope-kms.so ossl-modules/envelope.so man/man1/envelope.1 man/man5/envelope.cnf.5 bash-completion/completions/envelope; do
    [ -n "$(found "$file")" ] || fail "$file is not installed: $(find root -type f)"
done
modules=$(dirname "$(found ossl-modules/envelope.so)")

# Run the installed command with the installed provider.
PATH=$PWD/$(dirname "$(found bin/envelope)"):$PATH
hash -r
# shellcheck disable=SC2034 # for backend.sh
backend_installed=$PWD/$(found pkcs11/envelope-kms.so)
rig
export OPENSSL_CONF=/dev/null OPENSSL_MODULES=$PWD/$modules
echo data >plain
encrypt "$zero" plain sealed -provider envelope
decrypt "$zero" sealed opened -provider envelope
cmp plain opened
# nothing refers to the build tree
! readelf -d "$(found bin/envelope)" "$modules/envelope.so" "$backend_installed" | grep -E 'R(UN)?PATH' || fail "a run path is left"
