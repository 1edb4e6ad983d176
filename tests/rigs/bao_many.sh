#!/bin/bash
# Batches, data keys and rotations of a transit engine whose answers are cut off, late, endless, nonsense or "too many
# requests": how often it is asked, that no piece loses its outcome, and that nothing is done twice.
set -u
# shellcheck source=tests/rigs/bao-faulty.sh
. "$SOURCE_DIR/tests/rigs/bao-faulty.sh"

echo "-- 1000 pieces there, to other associated data, and back: five requests for each 200, and a read before encrypting"
with "deadline = 20s"
says "encrypt kek x $dek" "ok *"
one=${reply#ok }
forget
says "many-round kek 1000" "ok"
# encrypt: 5 × (read, encrypt); rewrap: 5 × (decrypt, read, encrypt); decrypt: 5
[[ $(asked) = 30 ]] || fail "$(asked) requests"

echo "-- what the service says of the first piece that failed is told, though the request went well"
says "many decrypt kek - x:$one y:$one z:$one" \
    "CKR_ENCRYPTED_DATA_INVALID item 2 of 3: *message authentication failed* [[]batch item] | ok:$dek | CKR_ENCRYPTED_DATA_INVALID | CKR_ENCRYPTED_DATA_INVALID"

echo "-- faults that pass, and faults that stay"
three="many decrypt kek - x:$one y:$one x:$one"
for kind in cut reset; do
    fault "$kind" 2
    within 20 "$three" "* | ok:$dek | CKR_ENCRYPTED_DATA_INVALID | ok:$dek"
    fault "$kind" 2
    within 20 "data-key kek - 32" "ok *"
done
with "deadline = 2s" "timeout = 1s" "rotate = yes"
says "$three" "CKR_ENCRYPTED_DATA_INVALID item 2 of 3: * | ok:$dek | CKR_ENCRYPTED_DATA_INVALID | ok:$dek"
says "files" "ok *"
files=${reply#ok }
for kind in cut slow silent; do
    fault "$kind"
    for command in "$three" "many rewrap kek kek x>z:$one x>z:$one x>z:$one" "many encrypt kek - x:00 x:01 x:02"; do
        within 4 "$command" "CKR_DEVICE_REMOVED item 1 of 3: * | CKR_DEVICE_REMOVED | CKR_DEVICE_REMOVED | CKR_DEVICE_REMOVED"
    done
    within 4 "data-key kek x 32" "CKR_DEVICE_REMOVED *"
    within 4 "versions kek" "CKR_DEVICE_REMOVED *"
    clear
done
for kind in bad-json wrong-json huge huge-chunked html; do
    for command in "$three" "data-key kek - 32" "versions kek"; do
        fault "$kind"
        within 4 "$command" "CKR_DEVICE_ERROR *"
        clear
    done
done
says "$three" "* | ok:$dek | CKR_ENCRYPTED_DATA_INVALID | ok:$dek"
says "files" "ok *"
((${reply#ok } <= files + 1)) || fail "$files open files have become ${reply#ok }"

echo "-- a rotation whose answer is lost is not made twice"
fault cut
forget
within 4 "rotate kek" "CKR_DEVICE_REMOVED *"
[[ $(asked) = 1 ]] || fail "the rotation was asked for $(asked) times"
clear
says "rotate kek" "ok 2"
says "min-versions kek 1 2" "ok"

echo "-- too many requests: they are waited out, and where there is no end, said within the deadline"
quota() { bao_api POST sys/quotas/rate-limit/storm "{\"path\":\"transit/\",\"rate\":$1,\"interval\":\"$2\"}" || fail "quota"; }
with "deadline = 20s" "timeout = 2s"
says "encrypt kek x $dek" "ok *"
one=${reply#ok }
quota 12 1s
says "threads 6 4 kek" "ok" # 72 requests at least
bao_api DELETE sys/quotas/rate-limit/storm || fail "quota"
with "deadline = 2s"
says "decrypt kek x $one" "ok $dek"
quota 1 60s
ask "decrypt kek x $one" # may be the one that is allowed
for command in "decrypt kek x $one" "many decrypt kek - x:$one x:$one"; do
    # The last try may be one that the deadline cut.
    within 4 "$command" "CKR_DEVICE_@(ERROR *rate limit*|REMOVED *HTTP 429*)"
done
client_stop
grep -q "$(<token)" client.err && fail "the token is in the log"
echo "passed: $checks checks"
