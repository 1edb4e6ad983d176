# shellcheck shell=bash
# 8 processes of 2 threads encrypt while a ninth rotates 200 times (40 with AWS's emulator: each version is unwrapped by all
# of them, twice): no error, every ciphertext opens, and there is never more than one primary.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
rotations=$(backend_few 200 40)
sed -i 's/^default-key.*/&\nrefresh = 20ms/' rig/envelope.cnf

processes=()
for n in 1 2 3 4 5 6 7 8; do
    timeout 200 storm encrypt "$n.bin" stop >"$n.log" 2>&1 &
    processes+=($!)
done
# at_most_one_primary_at_any_time: looked at all the while
while [ ! -e stop ]; do
    query "SELECT key_id, count(*) FROM encryption_key_version WHERE state = 'active' GROUP BY key_id HAVING count(*) <> 1"
    query 'SELECT name FROM encryption_key k WHERE NOT EXISTS (SELECT 1 FROM encryption_key_version v
        WHERE v.key_id = k.key_id AND v.version = k.primary_version AND v.state = '"'active')"
    sleep 0.02
done >violations 2>&1 &
watcher=$!

timeout 200 rotate_often default "$rotations" >rotations.log || fail "rotating: $(tail -n 1 rotations.log)"
touch stop
for process in "${processes[@]}"; do
    wait "$process" || fail "an encrypting process failed: $(cat [1-8].log)"
done
wait "$watcher"
[ ! -s violations ] || fail "not exactly one primary: $(head -n 3 violations)"
[ "$(tail -n 1 rotations.log)" = $((rotations + 1)) ] || fail "$rotations rotations ended at version $(tail -n 1 rotations.log)"

# every_ciphertext_opens, and many versions are among them
total=0
for n in 1 2 3 4 5 6 7 8; do
    made=$(tail -n 1 "$n.log")
    opened=$(timeout 200 storm open "$n.bin") || fail "opening what process $n made"
    [ "$made" = "$opened" ] || fail "process $n made $made and $opened opened"
    total=$((total + made))
done
versions=$("$python" - <<'END'
import struct
seen = set()
for n in range(1, 9):
    data = open(f"{n}.bin", "rb").read()
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("=i", data, at)
        seen.add(data[at + 4:at + 8])
        at += 4 + length
print(len(seen))
END
)
[ "$versions" -ge 3 ] || fail "only $versions versions were used" # a fast machine has made all in a few refreshes
echo "$total messages under $versions versions"
