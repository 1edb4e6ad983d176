# shellcheck shell=bash
# A version is rotated before its message limit, whatever number of processes encrypt; the limit is never exceeded.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
envelope key create small --message-limit 5 >/dev/null
echo data >plain
for n in $(seq 12); do
    encrypt "$(name_hex small)" plain "$n.enc"
done
# it_rotated_by_itself
[ "$(query "SELECT primary_version > 1 FROM encryption_key WHERE name = 'small'")" = 1 ] || fail "no rotation: $(envelope key show small)"
envelope history small | grep -q ' rotate ' || fail "the history has no rotation: $(envelope history small)"
# no_version_exceeds_its_limit
[ -z "$(query 'SELECT * FROM encryption_key_version WHERE messages_reserved > message_limit')" ] || fail "$(envelope key show small)"
for n in $(seq 12); do
    decrypt "$(name_hex small)" "$n.enc" opened
    cmp plain opened
done
