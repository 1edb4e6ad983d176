# shellcheck shell=bash
# Many programs that start in the same instant all get to their token, although SoftHSM rewrites it at every login and does
# not do so atomically.
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
echo data >plain
for round in 1 2 3; do
    programs=()
    for n in $(seq 16); do
        encrypt "$zero" plain "$n.enc" 2>"$n.err" &
        programs+=($!)
    done
    for n in $(seq 16); do
        wait "${programs[n - 1]}" || fail "round $round, program $n: $(cat "$n.err")"
    done
    for n in $(seq 16); do
        decrypt "$zero" "$n.enc" "$n.txt" 2>"$n.err" &
        programs[n - 1]=$!
    done
    for n in $(seq 16); do
        wait "${programs[n - 1]}" || fail "round $round, decrypting program $n: $(cat "$n.err")"
        cmp plain "$n.txt"
    done
done
