# shellcheck shell=bash
# Talking with aws-client (aws_client.c), to be sourced.
#
#   client_start MODULE TOKEN     start it; its standard error goes to SCRATCH/client.err
#   says COMMAND PATTERN          ask, and fail unless the answer matches the pattern; the answer is left in $reply
#   within SECONDS COMMAND PATTERN    as says, and with the answer in that time: a deadline, and what a busy machine adds
#   client_stop                   fails if it did not end well; client_kill does not
#   fail TEXT

checks=0
reply=
client_pid=

fail() {
    echo "FAILED: $*" >&2
    [[ -s $SCRATCH/client.err ]] && tail -n 20 "$SCRATCH/client.err" >&2
    exit 1
}

client_start() {
    coproc CLIENT { exec "$BUILD_DIR/tests/rigs/aws-client" "$@" 2>"$SCRATCH/client.err"; }
    # shellcheck disable=SC2153 # bash sets it
    client_pid=$CLIENT_PID
    exec {client_out}>&"${CLIENT[1]}"- {client_in}<&"${CLIENT[0]}"-
}

ask() {
    printf '%s\n' "$1" >&"$client_out" || fail "the client is gone (before: $1)"
    IFS= read -r -t 90 reply <&"$client_in" || fail "no answer to: $1"
}

says() {
    ask "$1"
    # shellcheck disable=SC2053 # a pattern is meant
    [[ $reply = $2 ]] || fail "$1
  said:   $reply
  wanted: $2"
    checks=$((checks + 1))
}

within() {
    local begin=$SECONDS busy=15
    says "$2" "$3"
    ((SECONDS - begin <= $1 + busy)) || fail "$2 took $((SECONDS - begin)) s"
}

client_stop() {
    local status=0 pid=$client_pid
    [[ $pid ]] || return 0
    client_pid=
    exec {client_out}>&- {client_in}<&-
    wait "$pid" 2>/dev/null || status=$?
    [[ $status = 0 ]] || fail "the client ended with status $status"
}

# From an EXIT trap: however it is.
client_kill() {
    [[ ! $client_pid ]] || kill "$client_pid" 2>/dev/null
    client_pid=
}
