# shellcheck shell=bash
# What may stand where a key stands: zeros, a key's name, a reference. Passwords and raw keys are refused, with the reason.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
envelope key create financial
echo "to the bank" >plain

# zeros_are_the_default_key
encrypt "$zero" plain default.enc
envelope inspect default.enc | grep -q 'key "default", version 1 (primary), active' || fail "zeros: $(envelope inspect default.enc)"

# a_name_in_hex_is_that_key
encrypt "$(name_hex financial)" plain financial.enc
envelope inspect financial.enc | grep -q 'key "financial", version 1' || fail "name: $(envelope inspect financial.enc)"
decrypt "$(name_hex financial)" financial.enc opened
cmp plain opened
# zeros open it too: the header decides
decrypt "$zero" financial.enc opened
cmp plain opened

# another_name_does_not_open_it
refused 'default.*financial|financial.*default|another' decrypt "$(name_hex default)" financial.enc opened

# a_password_is_refused
refused 'password' openssl enc -envelope-aes-256-gcm -pbkdf2 -k secret -in plain -out never.enc
refused 'password' openssl enc -d -envelope-aes-256-gcm -nosalt -pbkdf2 -k secret -in financial.enc -out never
# a_raw_key_is_refused
raw=$(openssl rand -hex 32)
refused 'raw key' encrypt "$raw" plain never.enc
! grep -qi "$raw" refused.out || fail "the error shows the raw key"
# unknown_names_are_refused
refused 'name no key' encrypt "$(name_hex nobody)" plain never.enc
# a_damaged_reference_is_refused
refused 'reference' encrypt "$(printf 'ENVREF\001' | xxd -p)$(openssl rand -hex 25)" plain never.enc
# nothing_of_the_plaintext_is_written
[ ! -s never.enc ] || ! grep -q bank never.enc || fail "plaintext was written"
