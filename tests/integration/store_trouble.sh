# shellcheck shell=bash
# A store that is locked, read-only, damaged or of a newer schema: an error that names it, and nothing is changed.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
sed -i 's/^default-key.*/&\ndeadline = 1s/' rig/envelope.cnf
echo data >plain
encrypt "$zero" plain sealed

# a_locked_store_is_named, after the configured deadline
mkfifo hold
sqlite3 rig/keys.db <hold >/dev/null &
sqlite=$!
exec 9>hold
echo 'BEGIN EXCLUSIVE;' >&9
sleep 0.5
refused_with 5 'keys.db.*(locked|busy)|(locked|busy).*keys.db' envelope key rotate default
refused 'locked|busy' encrypt "$zero" plain never.enc
exec 9>&-
wait "$sqlite"
envelope key rotate default >/dev/null || fail "the store is free again, and rotation fails"

# a_newer_schema_is_named
cp -a rig/keys.db good.db
sqlite3 rig/keys.db "PRAGMA user_version = $(($(query 'PRAGMA user_version') + 7))"
before=$(sha256sum rig/keys.db)
refused_with 5 'newer|upgrade Envelope' envelope key list
refused 'newer|upgrade Envelope' encrypt "$zero" plain never.enc
[ "$before" = "$(sha256sum rig/keys.db)" ] || fail "a newer store was changed"

# another_application's_database_is_named
rm -f rig/keys.db*
sqlite3 rig/keys.db 'CREATE TABLE guests (name); PRAGMA application_id = 1234'
before=$(sha256sum rig/keys.db)
refused_with 5 'keys.db' envelope key list
[ "$before" = "$(sha256sum rig/keys.db)" ] || fail "a foreign database was changed"

# no_database_at_all
head -c 8192 /dev/urandom >rig/keys.db
before=$(sha256sum rig/keys.db)
refused_with 5 'not an SQLite database|corrupt|damaged' envelope key list
refused 'not an SQLite database|corrupt|damaged' encrypt "$zero" plain never.enc
[ "$before" = "$(sha256sum rig/keys.db)" ] || fail "a damaged store was changed"
rm rig/keys.db
# a_directory_is_named
mkdir rig/keys.db
refused_with 5 'directory' envelope key list
rmdir rig/keys.db
# a_missing_store_is_named_and_not_made
refused_with 5 'keys.db' envelope key list
refused 'keys.db' encrypt "$zero" plain never.enc
[ ! -e rig/keys.db ] || fail "a missing store was made anew"

# a_read_only_store_is_named: to a user who may read all of it and write nothing. Root may always write, so become nobody.
if [ "$(id -u)" -ne 0 ] || ! setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$BUILD_DIR/bin/envelope"; then
    echo "not tried as another user: needs root, and a build directory that others may read"
    exit 0
fi
cp -a good.db rig/keys.db
chown -R 65534 "$SCRATCH"
chown root "$SCRATCH/rig" rig/keys.db
chmod 755 rig
chmod 444 rig/keys.db
before=$(sha256sum rig/keys.db)
nobody() { timeout 60 setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
refused_with 5 'keys.db.*(read-only|write)' nobody envelope key rotate default
nobody envelope key list | grep -q default || fail "a read-only store cannot be read"
nobody openssl enc -d -envelope-aes-256-gcm -K "$zero" -in sealed -out opened || fail "a read-only store does not decrypt"
cmp plain opened
[ "$before" = "$(sha256sum rig/keys.db)" ] || fail "a read-only store was changed"
