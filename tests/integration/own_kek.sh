# shellcheck shell=bash
# A tenant's key under a master key of its own: taken away, it stops that tenant and nobody else.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
module=$(sed -n 's/^module *= *//p' rig/envelope.cnf)
tool() { timeout 60 pkcs11-tool --module "$module" --token-label envelope --login --pin "$(cat rig/pin)" "$@" >tool.log 2>&1 || fail "pkcs11-tool: $(cat tool.log)"; }
tool --keygen --key-type AES:32 --label tenant --sensitive
envelope key create tenant-42 --kek 'pkcs11:token=envelope;object=tenant;type=secret-key' >/dev/null
envelope key show tenant-42 | grep -q 'object=tenant' || fail "show: $(envelope key show tenant-42)"
echo data >plain
encrypt "$(name_hex tenant-42)" plain tenant.enc
encrypt "$zero" plain other.enc
# a_rotation_keeps_the_kek
envelope key rotate tenant-42 >/dev/null
[ "$(envelope key show tenant-42 | grep -c object=tenant)" -eq 2 ] || fail "show: $(envelope key show tenant-42)"
decrypt "$zero" tenant.enc opened
cmp plain opened

tool --delete-object --type secrkey --label tenant
refused 'tenant' decrypt "$zero" tenant.enc opened
decrypt "$zero" other.enc opened
cmp plain opened
