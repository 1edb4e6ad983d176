# shellcheck shell=bash
# The README's first example does what it says, word for word (the build apart).
# shellcheck source=lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
cp "$SOURCE_DIR/LICENSE" .
awk '/^## First example/ { part = 1 }
    part == 2 && /^```/ { exit }
    part == 2 && !/bootstrap|^export PATH/
    part == 1 && /^```/ { part = 2 }' "$SOURCE_DIR/README.md" >example
grep -q '^openssl enc -d' example || fail "the README has no such example any more: $(cat example)"
bash -eux example >example.log 2>&1 || fail "the example fails: $(cat example.log)"
expected=$(sed -n 's/^envelope inspect .* # //p' example)
grep -qxF "$expected" example.log || fail "inspect does not say \"$expected\": $(tail -n 3 example.log)"
