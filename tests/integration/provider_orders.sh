# shellcheck shell=bash
# SoftHSM uses libcrypto itself, in the same process: whatever the order of providers in openssl.cnf, whatever is
# activated beside us, lazily or preloaded, nothing hangs, crashes at exit, or fails.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
head -c 5000 /dev/urandom >plain

conf() { # PROVIDER...
    echo "config_diagnostics = 1"
    echo "openssl_conf = init"
    echo "[init]"
    echo "providers = providers"
    echo "[providers]"
    for provider in "$@"; do echo "$provider = ${provider}_sect"; done
    for provider in "$@"; do
        echo "[${provider}_sect]"
        if [ "$provider" = envelope ]; then
            echo "module = $BUILD_DIR/provider/envelope.so"
            echo "config = $PWD/rig/envelope.cnf"
        fi
        echo "activate = 1"
    done
}

cp rig/envelope.cnf lazy.cnf
for preload in no yes; do
    sed "s/^default-key.*/&\npreload = $preload/" lazy.cnf >rig/envelope.cnf
    for order in "envelope" "default envelope" "envelope default" "base default envelope" "envelope base default" \
        "default legacy envelope" "legacy envelope default" "default envelope legacy base"; do
        # shellcheck disable=SC2086
        conf $order >"conf"
        export OPENSSL_CONF=$PWD/conf
        rm -f sealed opened
        encrypt "$zero" plain sealed || fail "encrypting with [$order], preload = $preload: status $?"
        decrypt "$zero" sealed opened || fail "decrypting with [$order], preload = $preload: status $?"
        cmp plain opened
        case $order in *default*)
            # the_rest_of_openssl_works_as_before
            timeout 60 openssl enc -aes-256-cbc -K "$zero" -iv 00000000000000000000000000000000 -in plain -out other ||
                fail "aes-256-cbc with [$order]"
            timeout 60 openssl dgst -sha256 plain >/dev/null || fail "dgst with [$order]"
            ;;
        esac
    done
done
