#!/bin/bash
# A transit engine whose answers are cut off, late, endless or nonsense: a defined code and text, within the deadline.
set -u
# shellcheck source=tests/rigs/bao-faulty.sh
. "$SOURCE_DIR/tests/rigs/bao-faulty.sh"

with "deadline = 20s"
says "encrypt kek financial/3 $dek" "ok *"
decrypt="decrypt kek financial/3 ${reply#ok }"
for kind in cut reset; do
    fault "$kind" 2
    within 20 "$decrypt" "ok $dek"
done
with "deadline = 3s" "timeout = 1s"
for kind in cut slow silent; do
    fault "$kind"
    within 4 "$decrypt" "CKR_DEVICE_REMOVED *"
    clear
done
for kind in bad-json wrong-json huge huge-chunked html; do
    for command in "$decrypt" "encrypt kek - $dek"; do
        fault "$kind"
        within 4 "$command" "CKR_DEVICE_ERROR *"
        clear
    done
done
says "$decrypt" "ok $dek"
says "threads 4 6 kek" "ok"
client_stop
grep -q "$(<token)" client.err && fail "the token is in the log"
echo "passed: $checks checks"
