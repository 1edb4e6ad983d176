# shellcheck shell=bash
# OpenSSL's own test vectors of ciphers give the same results with Envelope in front as without: its evp_test, from
# Debian's source package, built against the installed libcrypto.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/clients/lib.sh"
version=$(dpkg-query -W -f '${source:Version}' libssl-dev 2>/dev/null) || skip "libssl-dev is not from a Debian package"
upstream=${version%-*}

fetch_source() {
    local options=()
    # Debian's containers and chroots name no source packages: ask for them here, without touching the system.
    # shellcheck disable=SC2016 # apt's own variable
    if ! apt-get indextargets --format '$(TARGET_OF)' 2>/dev/null | grep -qx deb-src; then
        mkdir -p apt/lists/partial
        sed 's/^Types: .*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >apt/src.sources 2>/dev/null || true
        sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >apt/src.list 2>/dev/null || true
        options=(-o "Dir::Etc::sourcelist=$PWD/apt/none" -o "Dir::Etc::sourceparts=$PWD/apt"
            -o "Dir::State::lists=$PWD/apt/lists")
        timeout 120 apt-get -qq "${options[@]}" update >apt.log 2>&1 || return 1
    fi
    # Only the upstream archive is needed; Debian's own part of a superseded package may be gone.
    timeout 120 apt-get -qq "${options[@]}" source --download-only "openssl=$version" >>apt.log 2>&1 || true
    [ -f "openssl_$upstream.orig.tar.gz" ] && tar xf "openssl_$upstream.orig.tar.gz"
}
fetch_source || skip "the source package of openssl $version cannot be had here"
source=$(ls -d "$PWD"/openssl-[0-9]*)

build() {
    local include=(-I"$source/include" -I"$source" -I"$source/test" -I"$source/apps/include")
    mkdir objects
    (cd objects && cc -O1 -w -c "${include[@]}" "$source"/test/testutil/*.c "$source/apps/lib/opt.c")
    ar rcs testutil.a objects/*.o
    cc -O1 -w "${include[@]}" -o evp_test "$source/test/evp_test.c" testutil.a -lssl -lcrypto
}
build >build.log 2>&1 || skip "evp_test does not build against this libcrypto: $(tail -n 3 build.log)"

envelope init --softhsm rig --key-references >/dev/null
use rig
# Vectors of old ciphers need the legacy provider, here and there.
sed 's/^default = default_sect/&\nlegacy = default_sect/' rig/openssl.cnf >with.cnf
sed '/^envelope = /d; /^alg_section/d' with.cnf >without.cnf
unset OPENSSL_CONF
ran=0
for vectors in "$source"/test/recipes/30-test_evp_data/evpciph_*.txt; do
    for way in without with; do
        (cd "$(dirname "$vectors")" && timeout 120 "$SCRATCH/evp_test" -config "$SCRATCH/$way.cnf" "$(basename "$vectors")") \
            >"$way.out" 2>&1 || fail "$(basename "$vectors") $way Envelope: $(grep -v INFO "$way.out" | tail -n 5)"
    done
    cmp without.out with.out || fail "$(basename "$vectors") differs with Envelope"
    ran=$((ran + $(sed -n 's/.*Completed \([0-9]*\) tests.*/\1/p' with.out)))
done
[ "$ran" -gt 1000 ] || fail "only $ran vectors were run"
echo "$ran vectors give the same with Envelope in front"

# The control: that they went through Envelope shows when it denies raw keys.
sed 's/^key-references.*/&\nraw-keys = deny:AES-256-CBC/' with.cnf >deny.cnf
! (cd "$source/test/recipes/30-test_evp_data" && "$SCRATCH/evp_test" -config "$SCRATCH/deny.cnf" evpciph_aes_common.txt) \
    >deny.out 2>&1 || fail "the vectors do not go through Envelope"
