# shellcheck shell=bash
# A tenant's key under a master key of its own: taken away, it stops that tenant and nobody else.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
backend_kek_make tenant
object=$(backend_kek_label tenant)
envelope key create tenant-42 --kek "pkcs11:token=envelope;object=$object;type=secret-key" >/dev/null
envelope key show tenant-42 | grep -q "object=$object" || fail "show: $(envelope key show tenant-42)"
echo data >plain
encrypt "$(name_hex tenant-42)" plain tenant.enc
encrypt "$zero" plain other.enc
# a_rotation_keeps_the_kek
envelope key rotate tenant-42 >/dev/null
[ "$(envelope key show tenant-42 | grep -c "object=$object")" -eq 2 ] || fail "show: $(envelope key show tenant-42)"
decrypt "$zero" tenant.enc opened
cmp plain opened

backend_kek_delete tenant
refused 'tenant' decrypt "$zero" tenant.enc opened
decrypt "$zero" other.enc opened
cmp plain opened
