# shellcheck shell=bash
# A KEK is rotated: every key moves to the new one with one command, killed or not, and the old one can go for good.
# shellcheck source=../../integration/lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
backend_kek_make one
backend_kek_make two
kek() { echo "pkcs11:token=envelope;object=$(backend_kek_label "$1");type=secret-key"; }
under() { query "SELECT count(*) FROM encryption_key_version v JOIN encryption_kek e USING (kek_id) WHERE e.uri LIKE '%object=$(backend_kek_label "$1");%'"; }
keys=$(backend_few 40 12)
for n in $(seq "$keys"); do
    envelope key create "tenant-$n" --kek "$(kek one)" >/dev/null
done
envelope key rotate tenant-1 >/dev/null
extra=0
# shellcheck disable=SC2154 # backend.sh sets it
if [ "$backend" != aws ]; then # whose emulator is slow, and takes one at a time
    extra=1000
    rotate_often tenant-3 "$extra" >rotations.log || fail "rotating: $(tail -n 1 rotations.log)"
fi
envelope key create elsewhere >/dev/null
echo "as agreed" >plain
encrypt "$(name_hex tenant-1)" plain 1.enc
encrypt "$(name_hex "tenant-$keys")" plain 2.enc

# what_cannot_be_is_refused, and changes nothing
before=$(store_state)
refused_with 2 'NAME of a key, or --all' envelope key rewrap --kek "$(kek two)"
refused_with 2 'name none' envelope key rewrap tenant-1 --all --kek "$(kek two)"
refused_with 2 'not of all' envelope key rewrap --all --version 1 --kek "$(kek two)"
refused_with 4 'nowhere' envelope key rewrap --all --kek "$(kek nowhere)"
refused_with 4 'nowhere' envelope key rewrap --all --from "$(kek nowhere)" --kek "$(kek two)"
[ "$before" = "$(store_state)" ] || fail "a refusal changed something"
[ "$(query "SELECT count(*) FROM encryption_kek WHERE uri LIKE '%nowhere%'")" -eq 0 ] || fail "a KEK that cannot be used was noted"

# killed_at_any_moment_it_is_taken_up_again
total=$(under one)
[ "$total" -eq $((keys + 1 + extra)) ] || fail "$(envelope key list)"
kills=0
while [ "$(under one)" -gt 0 ] && [ "$kills" -lt 100 ]; do
    was=$(under two)
    envelope key rewrap --all --from "$(kek one)" --kek "$(kek two)" >rewrap.log 2>&1 &
    mover=$!
    # It is logged in once something has moved (SoftHSM would lose its token to a kill before).
    for _ in $(seq 1000); do
        [ "$(under two)" -eq "$was" ] && kill -0 "$mover" 2>/dev/null || break
    done
    sleep "0.0$((RANDOM % 10))"
    kill -9 "$mover" 2>/dev/null || true
    wait "$mover" 2>/dev/null || true
    kills=$((kills + 1))
    [ $(($(under one) + $(under two))) -eq "$total" ] || fail "a version is under neither: $(envelope key list)"
    decrypt "$(name_hex tenant-1)" 1.enc opened
    cmp plain opened
done
echo "$total versions moved, killed $kills times"
[ "$(under two)" -eq "$total" ] || fail "not all moved: $(cat rewrap.log)"

# only_what_was_under_it_moved, and rotation follows
envelope key show elsewhere | grep -q "$(backend_kek_label two)" && fail "one that was elsewhere moved"
envelope key rotate tenant-2 >/dev/null
[ "$(under two)" -eq $((total + 1)) ] || fail "a rotation went elsewhere"

# one_that_cannot_be_moved_is_told, and the others go on
backend_kek_make three
damaged="UPDATE encryption_key_version SET encrypted_key_blob = zeroblob(length(encrypted_key_blob)) WHERE dek_id ="
damaged+=" (SELECT max(dek_id) FROM encryption_key_version JOIN encryption_key USING (key_id) WHERE name = 'tenant-2')"
saved=$(query "SELECT hex(encrypted_key_blob) FROM encryption_key_version ORDER BY dek_id DESC LIMIT 1")
sqlite3 rig/keys.db "$damaged"
status=0
envelope --json key rewrap --all --kek "$(kek three)" --reason "every year" >moved.json 2>moved.err || status=$?
[ "$status" -eq 4 ] || fail "exit status $status: $(cat moved.err)"
grep -q '1 of .* keys could not be moved.*tenant-2' moved.err || fail "$(cat moved.err)"
$python - $((total + 2)) <<'PY' || fail "$(cat moved.json)"
import json, sys

told = json.load(open("moved.json"))
assert [row["key"] for row in told["failed"]] == ["tenant-2"] and told["failed"][0]["result"] == "UNWRAP", told
assert told["moved"] == int(sys.argv[1]), told  # all but the damaged one; "default" and "elsewhere" too
PY
[ "$(under two)" -eq 1 ] || fail "$(envelope key list)"
envelope history tenant-1 >history
[ "$(grep -c 'every year' history)" -eq 3 ] || fail "history: $(cat history)"

# the_rest_follows, and the old KEKs are not needed any more
sqlite3 rig/keys.db "${damaged/zeroblob(length(encrypted_key_blob))/x\'$saved\'}"
envelope key rewrap --all --kek "$(kek three)" >moved
grep -q 'rewrapped 1 version of ' moved || fail "$(cat moved)"
backend_kek_delete one
backend_kek_delete two
decrypt "$(name_hex tenant-1)" 1.enc opened
cmp plain opened
decrypt "$(name_hex "tenant-$keys")" 2.enc opened
cmp plain opened
[ "$(sqlite3 rig/keys.db 'PRAGMA integrity_check')" = ok ] || fail "integrity"
