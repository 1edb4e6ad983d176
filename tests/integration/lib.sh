# shellcheck shell=bash
# What the integration tests share. Sourced; the working directory is the test's own scratch directory.
set -euo pipefail

# The programs that these tests run are not built with a sanitizer and cannot load a module that is.
if [ -n "${ENVELOPE_SANITIZE:-}" ]; then
    echo "skipped: openssl cannot load a module built with -fsanitize=$ENVELOPE_SANITIZE"
    exit 77
fi

export PATH="$BUILD_DIR/bin:$BUILD_DIR/tests/integration:$PATH"
export PYTHONDONTWRITEBYTECODE=1
unset OPENSSL_CONF OPENSSL_MODULES ENVELOPE_CONFIG SOFTHSM2_CONF
# shellcheck disable=SC2034 # for the tests
zero=$(printf '%064d' 0)
# Debian's Python has Debian's cryptography; another one on the PATH may have none.
# shellcheck disable=SC2034
python=/usr/bin/python3

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# at_end COMMAND: done when the test ends, however it ends; what was named last goes first.
at_end_commands=()
at_end() {
    at_end_commands=("$1" "${at_end_commands[@]}")
    trap at_end_run EXIT
}
at_end_run() {
    local status=$? command
    set +e
    for command in "${at_end_commands[@]}"; do "$command"; done
    exit "$status"
}

# shellcheck source=backend.sh
. "$SOURCE_DIR/tests/integration/backend.sh"

# rig [DIR [references]]: make a rig and take its environment. Its KEK is where ENVELOPE_RIG says.
rig() {
    backend_rig "${1:-rig}" "${2:-}"
    use "${1:-rig}"
}
use() {
    # shellcheck source=/dev/null
    . "$1/env"
}

# A key's name as openssl enc takes it: hexadecimal, padded with zeros to 32 bytes.
name_hex() {
    local hex
    hex=$(printf %s "$1" | xxd -p -c 64)
    printf '%s%s' "$hex" "${zero:${#hex}}"
}

# encrypt KEYHEX IN OUT [openssl options …]; nothing here may hang.
encrypt() {
    timeout 60 openssl enc -envelope-aes-256-gcm -K "$1" -in "$2" -out "$3" "${@:4}"
}
decrypt() {
    timeout 60 openssl enc -d -envelope-aes-256-gcm -K "$1" -in "$2" -out "$3" "${@:4}"
}

# Within a minute; a function of these tests looks after its own time.
bounded() {
    if [ "$(type -t "$1")" = function ]; then "$@"; else timeout 60 "$@"; fi
}

# refused TEXT COMMAND…: it must fail by itself (no signal, no time-out) and say TEXT (an extended regular expression).
refused() {
    local text=$1 status=0
    shift
    bounded "$@" >refused.out 2>&1 || status=$?
    [ "$status" -ne 0 ] || fail "not refused: $*"
    [ "$status" -lt 124 ] || fail "ended with $status: $*"
    grep -qE -e "$text" refused.out || fail "$* does not say \"$text\" but: $(cat refused.out)"
}

# refused_with STATUS TEXT COMMAND…: of the envelope command, with one line and this exit status.
refused_with() {
    local wanted=$1 text=$2 status=0
    shift 2
    bounded "$@" >refused.out 2>refused.err || status=$?
    [ "$status" -eq "$wanted" ] || fail "exit status $status, not $wanted: $* ($(cat refused.err))"
    [ "$(wc -l <refused.err)" -eq 1 ] || fail "not one line: $* ($(cat refused.err))"
    grep -q '^envelope: ' refused.err || fail "a line without its name: $(cat refused.err)"
    grep -qE -e "$text" refused.err || fail "$* does not say \"$text\" but: $(cat refused.err)"
}

# Everything below a directory, by content (SQLite's shared memory apart): equal prints mean nothing changed.
fingerprint() {
    (cd "$1" && find . -type f -size +0 ! -name '*-shm' | LC_ALL=C sort | xargs -d '\n' -r sha256sum)
}

# What a store holds that matters: its keys, versions and change counter. Not its history (a refusal is worth a row), nor
# KEKs, DEK ids and messages that were noted or given out and not used.
store_state() {
    query "SELECT hex(store_id), change_counter FROM store_meta; SELECT * FROM encryption_key;
        SELECT dek_id, key_id, version, state, kek_id, hex(encrypted_key_blob), message_limit, created, deactivated
        FROM encryption_key_version" "$@" | sha256sum
}

query() { sqlite3 -readonly -cmd '.timeout 5000' "${2:-rig/keys.db}" "$1"; }
