# shellcheck shell=bash
# What the command shows, as JSON and as text; help and completion know every verb.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
envelope --json key create 'tenant-42/identität' >create.json
envelope --json key rotate default --reason 'quarter end' >rotate.json
echo data >plain
encrypt "$zero" plain sealed
envelope key list --json >list.json
envelope key show default --json >show.json
envelope history --json >history.json
envelope history default --limit 1 --json >latest.json
envelope inspect sealed - --json <sealed >inspect.json
envelope doctor --json >doctor.json
envelope key suspend default --version 1 --json >suspend.json

$python - <<'END'
import json
load = lambda name: json.load(open(name + ".json"))
assert load("create") == {"key": "tenant-42/identität", "version": 1}
assert load("rotate") == {"key": "default", "version": 2, "by_others": False}
keys = load("list")
assert [k["key"] for k in keys] == ["default", "tenant-42/identität"], keys
assert keys[0]["primary"] == 2 and keys[0]["versions"] == 2 and keys[0]["state"] == "enabled"
assert keys[0]["kek"].startswith("pkcs11:") and "pin" not in keys[0]["kek"]
show = load("show")
assert [(v["version"], v["state"], v["primary"]) for v in show["versions"]] == [
    (1, "deactivated", False), (2, "active", True)], show
assert len({v["dek_id"] for v in show["versions"]}) == 2
assert show["versions"][1]["messages_reserved"] >= 1 and show["message_limit"] == 2 ** 32
history = load("history")
assert any(row["what"] == "rotate" and row["detail"] and "quarter end" in row["detail"] for row in history), history
assert history[0]["when"].endswith("Z") and history == sorted(history, key=lambda row: -row["id"])
assert len(load("latest")) == 1
inspected = load("inspect")
assert [row["file"] for row in inspected] == ["sealed", "-"]
assert all(row["key"] == "default" and row["version"] == 2 and row["state"] == "active" for row in inspected)
assert inspected[0]["dek_id"] == show["versions"][1]["dek_id"]
doctor = load("doctor")
outcomes = {check["outcome"] for check in doctor if check["check"] != "PIN"}
assert outcomes <= {"ok", "warning"}, doctor
assert {"configuration", "store", "token", "KEK attributes", "trial wrap", "default key", "provider", "openssl.cnf"} <= {
    check["check"] for check in doctor}
assert load("suspend") == {"key": "default", "version": 1, "did": "suspended"}
END

# text has the same
envelope key list | grep -q '^default  *enabled  *2  *2 ' || fail "list: $(envelope key list)"
envelope key show default | grep -q '^2 \*  *active ' || fail "show: $(envelope key show default)"
envelope key show default | grep -q '^1  *suspended ' || fail "show: $(envelope key show default)"
envelope --version | grep -qE '^envelope [0-9]+\.[0-9]+\.[0-9]+, OpenSSL ' || fail "version"

# a_reference_is_recognised, binary and as hex, and its damage is seen
reference() { # DEK-ID
    $python - "$1" <<'END'
import hashlib, sqlite3, struct, sys
(store_id,) = sqlite3.connect("rig/keys.db").execute("SELECT store_id FROM store_meta").fetchone()
body = b"ENVREF\x01\x00" + struct.pack(">I", int(sys.argv[1])) + store_id
print((body + hashlib.sha256(b"envelope reference v1" + body).digest()[:12]).hex())
END
}
reference "$(query "SELECT dek_id FROM encryption_key_version WHERE state = 'active' AND version = 2")" >reference.hex
xxd -r -p reference.hex >reference.bin
envelope inspect reference.hex reference.bin >found
[ "$(grep -c 'key reference, key "default", version 2' found)" -eq 2 ] || fail "reference: $(cat found)"
sed 's/.$/0/; t; s/.$/1/' reference.hex | xxd -r -p >damaged.bin
cmp -s damaged.bin reference.bin || refused_with 7 'damaged' envelope inspect damaged.bin

# inspect_needs_no_token
backend_away
envelope inspect sealed | grep -q 'key "default", version 2' || fail "inspect without the token"
backend_back

# help_and_completion_know_every_verb
envelope --help | awk '$1 == "envelope" { print $2, $3 }' | while read -r verb second; do
    [ "$verb" = key ] && verb="key $second"
    # shellcheck disable=SC2086
    envelope $verb --help | grep -q -- --json || fail "no help for $verb"
done
# shellcheck source=/dev/null
. "$SOURCE_DIR/conf/completion/envelope"
complete_words() { # WORDS...: what completion offers for the last one
    # shellcheck disable=SC2034 # completion reads them
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    COMPREPLY=()
    _envelope || true
    printf '%s\n' "${COMPREPLY[@]}"
}
grep -qx doctor <<<"$(complete_words envelope "")" || fail "completion of verbs"
grep -qx rotate <<<"$(complete_words envelope key ro)" || fail "completion of key verbs"
grep -qx -- --limit <<<"$(complete_words envelope history --li)" || fail "completion of options"
grep -qx default <<<"$(complete_words envelope key rotate de)" || fail "completion of key names"
# Quoted for the shell as its locale has it.
eval "offered=$(complete_words envelope key show ten)"
# shellcheck disable=SC2154 # eval sets it
[ "$offered" = 'tenant-42/identität' ] || fail "completion: $offered"
