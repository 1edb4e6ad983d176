# shellcheck shell=bash
# kill -9 at random points of many rotations: the store opens, no version is lost, exactly one is the primary.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
wanted=$(backend_few 200 40)
echo data >plain
encrypt "$zero" plain first.enc

done=0
kills=0
while [ "$done" -lt "$wanted" ] && [ "$kills" -lt 400 ]; do
    # rotate_often says "ready" when it is logged in (SoftHSM rewrites its token at a login, and would lose it to a kill),
    # then a line for each rotation that was reported as done.
    mkfifo lines
    rotate_often default 200 >lines &
    rotator=$!
    exec 8<lines
    rm lines
    read -r line <&8 || fail "rotate_often said nothing"
    [ "$line" = ready ] || fail "rotate_often said: $line"
    # A rotation with a key service takes longer: 0.1 to 0.7 s instead of a tenth of it.
    if [ "$backend" = softhsm ]; then after=0.0; else after=0.; fi
    sleep "$after$((RANDOM % 60 + 10))"
    kill -9 "$rotator" 2>/dev/null || true
    wait "$rotator" 2>/dev/null || true
    reported=$(cat <&8)
    exec 8<&-
    kills=$((kills + 1))

    last=$(tail -n 1 <<<"$reported")
    versions=$(query 'SELECT count(*) FROM encryption_key_version')
    primary=$(query 'SELECT primary_version FROM encryption_key')
    active=$(query "SELECT count(*) || ':' || max(version) FROM encryption_key_version WHERE state = 'active'")
    # no_version_is_lost: all that was reported is there
    [ -z "$last" ] || [ "$last" -le "$primary" ] || fail "version $last was reported, the primary is $primary"
    [ "$versions" = "$primary" ] || fail "$versions versions, but the primary is $primary"
    # exactly_one_primary
    [ "$active" = "1:$primary" ] || fail "active versions are $active, the primary is $primary"
    done=$((primary - 1))
done
[ "$done" -ge "$wanted" ] || fail "only $done rotations in $kills runs"
echo "$done rotations, killed $kills times"

[ "$(sqlite3 rig/keys.db 'PRAGMA integrity_check')" = ok ] || fail "integrity"
envelope doctor >doctor.log || fail "doctor: $(cat doctor.log)"
# every_version_unwraps, and the old ciphertext opens
decrypt "$zero" first.enc opened
cmp plain opened
envelope key rotate default >/dev/null
sed -i 's/^default-key.*/&\npreload = yes/' rig/envelope.cnf
decrypt "$zero" first.enc opened
