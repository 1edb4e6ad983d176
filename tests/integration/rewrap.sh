# shellcheck shell=bash
# A key moves to another master key: old data opens, running programs go on, the old master key can go for good; a killed
# rewrap is taken up again.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
backend_kek_make one
backend_kek_make two
kek() { echo "pkcs11:token=envelope;object=$(backend_kek_label "$1");type=secret-key"; }
under() { query "SELECT count(*) FROM encryption_key_version v JOIN encryption_kek e USING (kek_id) WHERE e.uri LIKE '%object=$(backend_kek_label "$1");%'"; }
mine=$(name_hex mine)
echo "as agreed" >plain
envelope key create mine --kek "$(kek one)" >/dev/null
# once_a_line uses the default key; its DEK is unwrapped anew all the time
sed -i 's/^default-key.*/default-key = mine/' rig/envelope.cnf
printf '[cache]\nttl = 200ms\ngrace = 0s\n' >>rig/envelope.cnf
for version in 1 2 3; do
    [ "$version" -eq 1 ] || envelope key rotate mine >/dev/null
    encrypt "$mine" plain "$version.enc"
done
envelope key suspend mine --version 2 >/dev/null

mkfifo ask answer
timeout 120 once_a_line <ask >answer &
program=$!
exec 7>ask 8<answer
try() {
    sleep 0.3
    echo >&7
    read -r -t 30 reply <&8 || fail "no answer in 30 s"
    [ "$reply" = ok ] || fail "$1: $reply"
}
try "before"

# what_cannot_be_is_refused, and changes nothing
before=$(store_state)
refused_with 6 'no key "other"' envelope key rewrap other --kek "$(kek two)"
refused_with 4 'URI' envelope key rewrap mine --kek 'pkcs11:token=envelope'
refused_with 4 'nowhere' envelope key rewrap mine --kek "$(kek nowhere)"
refused_with 6 'no version 9' envelope key rewrap mine --kek "$(kek two)" --version 9
[ "$before" = "$(store_state)" ] || fail "a refusal changed something"

# one_version_alone: what is made from now on stays where it was
envelope key rewrap mine --kek "$(kek two)" --version 1 >/dev/null
[ "$(under one):$(under two)" = 2:1 ] || fail "$(envelope key show mine)"
decrypt "$mine" 1.enc opened

# all_versions_move, suspended ones too, and rotation follows
dek_ids=$(query 'SELECT dek_id, version, state FROM encryption_key_version')
envelope --json key rewrap mine --kek "$(kek two)" --reason "the old one leaked" >moved.json
$python -c 'import json; d = json.load(open("moved.json")); assert (d["moved"], d["kept"]) == (2, 1), d'
[ "$(under one):$(under two)" = 0:3 ] || fail "$(envelope key show mine)"
[ "$dek_ids" = "$(query 'SELECT dek_id, version, state FROM encryption_key_version')" ] || fail "something else changed"
envelope history mine >history
grep -q 'the old one leaked' history && [ "$(grep -c ' rewrap .* ok ' history)" -eq 3 ] || fail "history: $(cat history)"
try "after"
envelope key rotate mine >/dev/null
[ "$(under two)" = 4 ] || fail "a rotation went elsewhere: $(envelope key show mine)"

# the_same_kek_wraps_anew
blobs=$(query 'SELECT hex(encrypted_key_blob) FROM encryption_key_version ORDER BY dek_id')
envelope key rewrap mine >/dev/null
[ "$blobs" != "$(query 'SELECT hex(encrypted_key_blob) FROM encryption_key_version ORDER BY dek_id')" ] || fail "the same blobs"

# the_old_kek_is_not_needed_any_more
backend_kek_delete one
envelope key resume mine --version 2 >/dev/null
for version in 1 2 3; do
    decrypt "$mine" "$version.enc" opened
    cmp plain opened
done
try "without the old KEK"
exec 7>&-
wait "$program" || fail "the program ended with $?"

# killed_rewraps_are_taken_up_again: at every moment each version is under the one or the other, and opens
backend_kek_make three
rotate_often mine "$(backend_few 1000 20)" >rotations.log || fail "rotating: $(tail -n 1 rotations.log)"
total=$(under two)
kills=0
while [ "$(under two)" -gt 0 ] && [ "$kills" -lt 100 ]; do
    was=$(under three)
    envelope key rewrap mine --kek "$(kek three)" >rewrap.log 2>&1 &
    mover=$!
    # It is logged in once something has moved (SoftHSM would lose its token to a kill before).
    for _ in $(seq 1000); do
        [ "$(under three)" -eq "$was" ] && kill -0 "$mover" 2>/dev/null || break
    done
    [ $((kills % 3)) -eq 0 ] || sleep "0.0$((RANDOM % 30))"
    kill -9 "$mover" 2>/dev/null || true
    wait "$mover" 2>/dev/null || true
    kills=$((kills + 1))
    [ $(($(under two) + $(under three))) -eq "$total" ] || fail "a version is under neither: $(envelope key show mine)"
    decrypt "$mine" $((kills % 3 + 1)).enc opened
    cmp plain opened
done
[ "$(under three)" -eq "$total" ] || fail "not all moved after $kills kills: $(cat rewrap.log)"
echo "$total versions moved, killed $kills times"
[ "$(sqlite3 rig/keys.db 'PRAGMA integrity_check')" = ok ] || fail "integrity"
backend_kek_delete two
sed -i 's/^default-key.*/&\npreload = yes/' rig/envelope.cnf
decrypt "$mine" 1.enc opened
cmp plain opened
