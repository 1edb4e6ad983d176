# shellcheck shell=bash
# `envelope reference`: every format means the same 32 bytes; what cannot be used is not handed out.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/clients/lib.sh"
envelope init --softhsm rig --key-references >/dev/null
use rig
envelope key create app >/dev/null
envelope key rotate app >/dev/null

hex=$(envelope reference app)
[[ $hex =~ ^454e5652454601[0-9a-f]{50}$ ]] || fail "not a reference: $hex"
[ "$(envelope reference app --format base64 | base64 -d | xxd -p -c 64)" = "$hex" ] || fail base64
[ "$(envelope reference app --format php)" = "hex2bin('$hex')" ] || fail php
[ "$(envelope reference app --format ruby)" = "['$hex'].pack('H*')" ] || fail ruby
[ "$(envelope reference app --format python)" = "bytes.fromhex('$hex')" ] || fail python
[ "$(envelope reference app --format sql)" = "'\\x$hex'::bytea" ] || fail sql
[ "$(envelope reference app --format laravel)" = "APP_KEY=base64:$(envelope reference app --format base64)" ] || fail laravel
envelope reference app --json | "$python" -c '
import json, sys
found = json.load(sys.stdin)
assert found["reference"] == sys.argv[1] and found["version"] == found["primary"] == 2, found' "$hex"

# An older version has its own, and the command says that there is a newer one, where a script does not read it.
old=$(envelope reference app --version 1 2>note)
[ "$old" != "$hex" ] || fail "two versions, one reference"
grep -q 'version 1 of key "app" is not its newest, 2' note || fail "no note: $(cat note)"
printf %s "$old" >old.txt
envelope inspect old.txt | grep -q 'key reference, key "app", version 1' || fail "inspect does not know it"

refused_with 2 'takes hex, base64' envelope reference app --format cobol
refused_with 6 nobody envelope reference nobody
refused_with 6 'version' envelope reference app --version 9
envelope key suspend app --version 1 >/dev/null
refused_with 6 'version 1 of key "app" is suspended' envelope reference app --version 1
envelope key suspend app >/dev/null
refused_with 6 'key "app" is suspended' envelope reference app
refused_with 2 'goes with --softhsm' envelope init --key-references
