# shellcheck shell=bash
# PHP's openssl_encrypt, as Laravel's encrypter uses it. The reference stands in .env, as APP_KEY.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/clients/lib.sh"
need php

client() {
    envelope reference app --format laravel >.env
    php "$clients/laravel.php" .env plain.txt
}

proof() {
    opened plain.txt cbc "$(cat cbc.iv)" cbc.enc
    opened plain.txt gcm "$(cat gcm.iv)" gcm.enc
}
run_client
