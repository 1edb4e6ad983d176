# shellcheck shell=bash
# Whatever is wrong between the bridge and its key service: one clear line and the right exit status from the command, the
# same words from openssl and doctor, and nothing is changed.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
if [ "$backend" = softhsm ]; then
    echo "skipped: this is about key services"
    exit 77
fi
rig
echo data >plain
encrypt "$zero" plain sealed
cp kms.cnf good.cnf
before=$(store_state)

# broken WHAT STATUS CHECK TEXT: the command ends with STATUS, doctor's CHECK fails, all say TEXT
broken() {
    local what=$1 status=$2 check=$3 text=$4
    refused_with "$status" "$text" envelope key rotate default
    refused "$text" encrypt "$zero" plain never.enc
    refused "$text" decrypt "$zero" sealed never.txt
    timeout 100 envelope doctor >found 2>doctor.err && fail "$what: doctor finds nothing"
    grep -qE "^failed +$check .*$text" found || fail "$what: doctor does not say failed $check $text: $(cat found)"
    ! grep -qE 'SOFTHSM|PIN' <(grep -v '^skipped' found) || fail "$what: doctor advises about another token: $(cat found)"
    if [ "$what" = "credentials that are refused" ] && grep -qF "$invented" refused.out refused.err found; then
        fail "$what: they are shown"
    fi
    [ "$before" = "$(store_state)" ] || fail "$what: something was changed"
    [ ! -s never.enc ] && [ ! -s never.txt ] || fail "$what: something was written"
    restore
}
restore() {
    cp good.cnf kms.cnf
    chmod 600 kms.cnf
}
invented=hvs.INVENTEDinventedINVENTEDinvented

rm kms.cnf
broken "no kms.cnf" 4 "(module|token)" 'kms.cnf'
chmod 666 kms.cnf
broken "kms.cnf that others may write" 4 "(module|token)" 'kms.cnf.*(chmod|writ)'
echo 'colour = red' >>kms.cnf
broken "an unknown setting" 4 "(module|token)" 'kms.cnf.*colour'
sed -i 's/^backend.*/backend = abacus/' kms.cnf
broken "an unknown backend" 4 "(module|token)" 'kms.cnf.*abacus'
sed -i 's/^\[token envelope\]/[token other]/' kms.cnf
broken "no such token" 4 token 'envelope'
case $backend in
aws)
    key=$AWS_SECRET_ACCESS_KEY
    export AWS_SECRET_ACCESS_KEY=$invented
    broken "credentials that are refused" 4 login 'SignatureDoesNotMatch|signature'
    unset AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID
    broken "no credentials" 4 token 'credentials'
    export AWS_SECRET_ACCESS_KEY=$key AWS_ACCESS_KEY_ID=$RIG_ALLOWED_ID
    sed -i 's|^endpoint.*|endpoint = https://127.0.0.1:9|; s/^deadline.*/deadline = 2s/' kms.cnf
    broken "nothing listens there" 4 "(token|KEK)" '127.0.0.1'
    sed -i "s|^endpoint.*|endpoint = $RIG_TLS_URL|" kms.cnf
    broken "a certificate not to be trusted" 4 "(token|KEK)" 'certificate'
    ;;
bao)
    echo "$invented" >wrong-token
    chmod 600 wrong-token
    sed -i "s|^token-file.*|token-file = $PWD/wrong-token|" kms.cnf
    broken "credentials that are refused" 4 login 'token'
    sed -i "s|^token-file.*|token-file = $PWD/no-token|" kms.cnf
    broken "no credentials" 4 token 'no-token'
    sed -i 's|^address.*|address = https://127.0.0.1:9|; s/^deadline.*/deadline = 2s/' kms.cnf
    broken "nothing listens there" 4 "(token|KEK)" '127.0.0.1'
    sed -i "s|^ca-file.*|ca-file = $PWD/bao/other-ca.pem|" kms.cnf
    broken "a certificate not to be trusted" 4 "(token|KEK)" 'certificate'
    echo 'mount = elsewhere' >>kms.cnf
    broken "another mount" 4 "(token|login|KEK)" 'elsewhere|permission|policy'
    ;;
esac

# A key that is not there: those that exist name theirs, so it is a new one that fails.
refused_with 4 'nobody' envelope key create fresh --kek 'pkcs11:token=envelope;object=nobody;type=secret-key'
# Named away by `keys`
echo 'keys = nobody' >>kms.cnf
broken "a key that kms.cnf does not name" 4 KEK "$(backend_kek_label "$backend_kek")"

# After all of it, it works.
envelope doctor >found || fail "doctor: $(cat found)"
encrypt "$zero" plain sealed
decrypt "$zero" sealed opened
cmp plain opened
