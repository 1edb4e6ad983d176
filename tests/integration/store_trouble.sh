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
refused_with 5 'newer' envelope key list
refused 'newer' encrypt "$zero" plain never.enc
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
refused_with 5 'not a database|corrupt|damaged' envelope key list
refused 'not a database|corrupt|damaged' encrypt "$zero" plain never.enc
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

# a_read_only_store_still_decrypts, and says why it cannot rotate
cp -a good.db rig/keys.db
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
    # root ignores modes: go on as nobody, who may read all of it and write nothing
    chmod -R a+rX "$SCRATCH"
    as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
else
    chmod a-w rig/keys.db rig
    as_nobody() { "$@"; }
fi
