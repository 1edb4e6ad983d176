# shellcheck shell=bash
# Old data opens after rotations; new data is under the new version; a suspended key opens nothing until it is resumed.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
echo "as agreed" >plain
for version in 1 2 3 4; do
    [ "$version" -eq 1 ] || envelope key rotate default >/dev/null
    encrypt "$zero" plain "$version.enc"
done
# old_version_still_opens_after_rotation
for version in 1 2 3 4; do
    decrypt "$zero" "$version.enc" opened
    cmp plain opened
    envelope inspect "$version.enc" | grep -q "version $version" || fail "inspect: $(envelope inspect "$version.enc")"
done
envelope inspect 1.enc | grep -q deactivated || fail "version 1 is not deactivated"
envelope inspect 4.enc | grep -q '(primary), active' || fail "version 4 is not the primary"

# a_suspended_version_opens_nothing, the_others_do
envelope key suspend default --version 2 --reason "lost laptop" >/dev/null
refused 'suspended' decrypt "$zero" 2.enc opened
decrypt "$zero" 1.enc opened
envelope key resume default --version 2 >/dev/null
decrypt "$zero" 2.enc opened

# a_suspended_key_does_nothing
envelope key suspend default >/dev/null
refused 'suspended' decrypt "$zero" 1.enc opened
refused 'suspended' encrypt "$zero" plain never.enc
envelope key resume default >/dev/null
decrypt "$zero" 4.enc opened
encrypt "$zero" plain 5.enc

# history_tells_what_was_done
envelope history default >history
for what in create rotate suspend resume; do
    grep -q "$what" history || fail "history has no $what: $(cat history)"
done
grep -q "lost laptop" history || fail "history lacks the reason"
[ "$(grep -c ' rotate ' history)" -eq 3 ] || fail "history: $(cat history)"
