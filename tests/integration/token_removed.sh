# shellcheck shell=bash
# The token's files vanish while a program runs: cached keys serve until ttl + grace, then the error names the token; back
# again, the program goes on without a restart.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
backend_patience 1s
printf '[cache]\nttl = 500ms\ngrace = 3s\n' >>rig/envelope.cnf
sed -i 's/^default-key.*/&\ndeadline = 1s/' rig/envelope.cnf

# once_a_line encrypts and decrypts a message for each line it reads, and answers "ok" or the error.
mkfifo ask answer
timeout 120 once_a_line <ask >answer &
program=$!
exec 7>ask 8<answer
try() {
    echo >&7
    read -r -t 30 reply <&8 || fail "no answer in 30 s"
}

try
[ "$reply" = ok ] || fail "at first: $reply"
backend_away
# cached_keys_serve_on: the ttl has passed, the grace has not
sleep 1
try
[ "$reply" = ok ] || fail "within the grace: $reply"
# then_the_error_names_the_token
for _ in $(seq 60); do
    sleep 0.2
    try
    [ "$reply" != ok ] && break
done
[[ $reply == *envelope* ]] && [[ $reply == *token* ]] || fail "after the grace: $reply"
# back_again_without_a_restart
backend_back
for _ in $(seq 60); do
    sleep 0.2
    try
    [ "$reply" = ok ] && break
done
[ "$reply" = ok ] || fail "the token is back: $reply"
exec 7>&-
wait "$program" || fail "the program ended with $?"

# a_new_program_without_the_token is told so
backend_away
echo data >plain
refused 'token' encrypt "$zero" plain never.enc
refused_with 4 'token' envelope key rotate default
