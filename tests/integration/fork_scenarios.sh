# shellcheck shell=bash
# A program that forks before, after, or while it uses the token goes on working, in parent and child.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
timeout 60 fork_scenarios before || fail "fork before first use: status $?"
timeout 60 fork_scenarios after || fail "fork after first use: status $?"
# Unwrapped keys are dropped at once, so that the other thread is in the token nearly all the time.
printf '[cache]\nttl = 1ms\n' >>rig/envelope.cnf
timeout 120 fork_scenarios busy || fail "fork while another thread is inside the token: status $?"
