#!/bin/bash
# The bridge registered with p11-kit, as a distribution would: p11-kit lists its tokens, and a program that loads
# p11-kit-proxy.so, and knows nothing of us, works with their keys; also with the module in a process of its own (remote:).
# Then GnuTLS and NSS, which load it themselves and allow it no threads.
set -u
umask 022
# shellcheck source=tests/rigs/aws-rig.sh
. "$SOURCE_DIR/tests/rigs/aws-rig.sh"

for needed in p11-kit pkcs11-tool; do
    command -v "$needed" >/dev/null || aws_rig_skip "no $needed"
done
[[ ! ${ENVELOPE_SANITIZE-} ]] || aws_rig_skip "p11-kit cannot load a module built with -fsanitize=$ENVELOPE_SANITIZE"
libraries=$(dirname "$(PATH=$PATH:/sbin ldconfig -p | awk '$1 == "libp11-kit.so.0" { print $NF; exit }')")
proxy=$libraries/p11-kit-proxy.so
[[ -e $proxy ]] || aws_rig_skip "no p11-kit-proxy.so (p11-kit-modules)"

trap aws_rig_stop EXIT
aws_rig_start "$SCRATCH/rig" || exit 1
aws_rig_credentials ALLOWED
export ENVELOPE_KMS_CONFIG=$SCRATCH/kms.cnf
aws_rig_config "$ENVELOPE_KMS_CONFIG"

# p11-kit reads a user's configuration beside the system's, but not root's.
as_user=()
user_id=$(id -u)
if [[ $user_id = 0 ]]; then
    command -v setpriv >/dev/null || aws_rig_skip "no setpriv, and root has no p11-kit configuration of its own"
    user_id=$(id -u nobody)
    as_user=(setpriv --reuid "$user_id" --clear-groups --no-new-privs)
fi
unset XDG_CONFIG_HOME
export HOME=$SCRATCH/home
modules=$HOME/.config/pkcs11/modules
module=$HOME/envelope-kms.so
mkdir -p "$modules"
cp "$BUILD_DIR/pkcs11/envelope-kms.so" "$module"
echo 'user-config: merge' >"$HOME/.config/pkcs11/pkcs11.conf"
chmod 711 "$SCRATCH"
chmod -R a+rX "$HOME"
chown "$user_id" "$HOME" "$ENVELOPE_KMS_CONFIG"
cd "$HOME" || exit 1
printf 'a key' >plain
chmod a+r plain

proxied() { timeout 60 "${as_user[@]}" pkcs11-tool --module "$proxy" --token-label rig "$@" 2>"$SCRATCH/tool.err"; }

fail() {
    echo "FAILED: $way: $*" >&2
    cat "$SCRATCH/tool.err" >&2
    exit 1
}

# pkcs11-tool decrypts with the key of an id; it does not look at --label.
rsa_id=$(printf %s "$RIG_RSA_ARN" | od -An -v -tx1 | tr -d ' \n')

for way in direct remote; do
    case $way in
    direct) echo "module: $module" >"$modules/envelope-kms.module" ;;
    remote) echo "remote: |p11-kit remote $module" >"$modules/envelope-kms.module" ;;
    esac
    timeout 60 "${as_user[@]}" p11-kit list-modules >"$SCRATCH/listed" 2>"$SCRATCH/tool.err" || fail "p11-kit list-modules"
    grep -q '^ *token: rig' "$SCRATCH/listed" || fail "p11-kit shows no token: $(cat "$SCRATCH/listed")"
    objects=$(proxied -O) || fail "pkcs11-tool -O"
    for label in alias/first alias/second alias/rsa; do
        grep -q "label: *$label\$" <<<"$objects" || fail "no $label: $objects"
    done
    # What was encrypted elsewhere with the public key is opened through p11-kit.
    rm -f public.der sealed opened
    proxied -r --type pubkey --label alias/rsa -o public.der >"$SCRATCH/tool.out" || fail "the public key"
    openssl pkeyutl -encrypt -pubin -keyform DER -inkey public.der -pkeyopt rsa_padding_mode:oaep \
        -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256 -in plain -out sealed || fail "openssl pkeyutl"
    proxied --decrypt -m RSA-PKCS-OAEP --hash-algorithm SHA256 --mgf MGF1-SHA256 --id "$rsa_id" -i sealed -o opened \
        >"$SCRATCH/tool.out" || fail "pkcs11-tool --decrypt"
    cmp plain opened || fail "something else came out"
done

# They set CKF_LIBRARY_CANT_CREATE_OS_THREADS: the service's name is looked up by the calling thread.
port=${RIG_URL##*:}
aws_rig_config "$ENVELOPE_KMS_CONFIG" "endpoint = http://localhost:${port%/}"
chown "$user_id" "$ENVELOPE_KMS_CONFIG"
way=GnuTLS
if command -v p11tool >/dev/null; then
    timeout 60 "${as_user[@]}" p11tool --provider "$module" --list-all 'pkcs11:token=rig' >listed 2>"$SCRATCH/tool.err" ||
        fail "p11tool --list-all"
    grep -q 'Label: alias/first' listed && grep -q 'Private key (RSA-2048)' listed || fail "no keys: $(cat listed)"
else
    echo "left out: no p11tool (gnutls-bin)"
fi
way=NSS
if command -v modutil certutil >/dev/null; then
    mkdir nss && chown "$user_id" nss
    "${as_user[@]}" certutil -N -d sql:nss --empty-password 2>"$SCRATCH/tool.err" || fail "certutil -N"
    timeout 60 "${as_user[@]}" modutil -dbdir sql:nss -add envelope -libfile "$module" -force \
        >"$SCRATCH/tool.out" 2>"$SCRATCH/tool.err" </dev/null || fail "modutil -add"
    timeout 60 "${as_user[@]}" certutil -K -d sql:nss -h rig >listed 2>"$SCRATCH/tool.err" || fail "certutil -K"
    grep -q 'rsa .*alias/rsa' listed || fail "no private key: $(cat listed)"
else
    echo "left out: no modutil and certutil (libnss3-tools)"
fi
