# shellcheck shell=bash
# The customer's switch: a master key that its owner disables is refused within the re-check time, and works again when it
# is enabled, without a restart; one that is deleted stays refused, and the error says so. In between, the service is asked
# once per data key and re-check.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
if [ "$backend" = softhsm ]; then
    echo "skipped: this is about key services; own_kek has a token's KEK taken away"
    exit 77
fi
rig
object=$(backend_kek_label tenant)
backend_kek_make tenant
envelope key create tenant --kek "pkcs11:token=envelope;object=$object;type=secret-key" >/dev/null
sed -i 's/^default-key.*/default-key = tenant/' rig/envelope.cnf
printf '[cache]\nttl = 2s\ngrace = 1h\n' >>rig/envelope.cnf
echo data >plain
encrypt "$(name_hex tenant)" plain tenant.enc
encrypt "$(name_hex default)" plain other.enc

mkfifo ask answer
timeout 200 once_a_line <ask >answer &
program=$!
exec 7>ask 8<answer
try() {
    echo >&7
    read -r -t 30 reply <&8 || fail "no answer in 30 s"
}
# until_it_is TEXT: at most 20 s, many times what ttl and refresh allow on a busy machine
until_it_is() {
    local end=$((SECONDS + 20))
    # shellcheck disable=SC2053 # a pattern is meant
    while try && ! [[ $reply == $1 ]]; do
        [ "$SECONDS" -lt "$end" ] || fail "not \"$1\" but: $reply"
        sleep 0.1
    done
}
try
[ "$reply" = ok ] || fail "at first: $reply"

# one_call_per_data_key_and_ttl: messages ask nobody
backend_calls_reset
start=$SECONDS
messages=0
while [ $((SECONDS - start)) -lt 6 ]; do
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        try
        [ "$reply" = ok ] || fail "$reply"
        messages=$((messages + 1))
    done
done
calls=$(backend_calls)
most=$(((SECONDS - start) / 2 + 1))
[ "$calls" -ge 1 ] && [ "$calls" -le "$most" ] || fail "$calls calls in $((SECONDS - start)) s, with ttl = 2s"
echo "$messages messages, $calls calls in $((SECONDS - start)) s with ttl = 2s"

for way in $(backend_ways); do
    # disabled: refused within the re-check time, although there is an hour of grace for a service that is away
    backend_deny tenant "$way"
    until_it_is "*tenant*"
    case $way in
    state) [[ $reply == *disabled* ]] || fail "$reply" ;;
    policy) [[ $reply == *"permission denied"* ]] || fail "$reply" ;;
    version) [[ $reply == *min_decryption_version* ]] || fail "$reply" ;;
    soft-delete) [[ $reply == *soft-deleted* ]] || fail "$reply" ;;
    esac
    refused 'tenant' decrypt "$(name_hex tenant)" tenant.enc opened
    # that one takes back what was wrapped, and wraps on
    [ "$way" = version ] || refused_with 4 'tenant' envelope key rotate tenant
    # and nobody else is
    decrypt "$(name_hex default)" other.enc opened
    cmp plain opened

    # enabled: works again, without a restart
    backend_allow tenant "$way"
    until_it_is ok
    decrypt "$(name_hex tenant)" tenant.enc opened
    cmp plain opened
    echo "refused and allowed again by $way"
done

# credentials_refused: an answer, too; that they cannot be had just now is none (token_removed)
backend_credentials_revoke
until_it_is "*tenant*"
refused 'credentials|token|signature' decrypt "$(name_hex tenant)" tenant.enc opened
backend_credentials_restore
until_it_is ok
decrypt "$(name_hex tenant)" tenant.enc opened
cmp plain opened
echo "refused without credentials that the service takes, and allowed with new ones"

# deleted_for_good: refused, and the error says so
backend_kek_delete tenant
until_it_is "*tenant*"
case $backend in
aws) [[ $reply == *[Pp]ending*[Dd]eletion* ]] || fail "not said to be deleted: $reply" ;;
bao) [[ $reply == *"not found"* || $reply == *deleted* ]] || fail "not said to be deleted: $reply" ;;
esac
refused 'deleted|PendingDeletion' decrypt "$(name_hex tenant)" tenant.enc opened
exec 7>&-
wait "$program" || fail "the program ended with $?"
