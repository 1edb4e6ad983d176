# shellcheck shell=bash
# Ruby's OpenSSL::Cipher, as Rails' MessageEncryptor uses it.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/clients/lib.sh"
need ruby

client() {
    envelope reference app --format ruby >key.rb
    ruby "$clients/message_encryptor.rb" key.rb plain.txt
}

proof() {
    opened plain.txt gcm "$(cat gcm.iv)" gcm.enc
    opened plain.txt cbc "$(cat cbc.iv)" cbc.enc
}
run_client
