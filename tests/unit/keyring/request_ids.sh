# shellcheck shell=bash
# The history names the key service's own requests: what stands in a row is what the service called the request that did it.
# shellcheck source=../../integration/lib.sh
. "$SOURCE_DIR/tests/integration/lib.sh"
rig
# shellcheck disable=SC2154 # backend.sh sets it

# From here on everything passes a recorder.
if [ "$backend" = aws ]; then
    recording=("$RIG_URL")
else
    recording=("$BAO_ADDR" "$BAO_DIR/ca.pem" "$BAO_DIR/server.pem" "$BAO_DIR/server.key")
fi
$python "$SOURCE_DIR/tests/unit/keyring/request_recorder.py" recorder requests.log "${recording[@]}" >recorder.log 2>&1 &
recorder=$!
ended() {
    local status=$?
    set +e
    kill "$recorder"
    wait "$recorder"
    (exit "$status")
    backend_stop
    exit "$status"
}
trap ended EXIT
for _ in $(seq 300); do
    [ ! -s recorder ] || break
    kill -0 "$recorder" || fail "recorder: $(cat recorder.log)"
    sleep 0.1
done
sed -i "s|^endpoint = .*|endpoint = $(cat recorder)|; s|^address = .*|address = $(cat recorder)|" "$SCRATCH/kms.cnf"

backend_kek_make two
envelope key create mine >/dev/null
envelope key rotate mine --reason "every month" >/dev/null
envelope key rotate mine >/dev/null
envelope key rotate mine >/dev/null
envelope key rewrap mine --kek "pkcs11:token=envelope;object=$(backend_kek_label two);type=secret-key" --reason "moved out" >/dev/null

# a_change_has_the_id_that_the_service_gave
envelope --json history mine >history.json
$python - "$backend" <<'PY'
import json, re, sys

log = [line.split() for line in open("requests.log")]
action_of = {name: action for action, name in log if name != "None"}
rows = [row for row in json.load(open("history.json")) if row["result"] == "ok"]
aws = {"create": "Encrypt", "rotate": "Encrypt", "set-kek": "Decrypt", "rewrap": "ReEncrypt"}
bao = {"create": "encrypt/master", "rotate": "encrypt/master", "set-kek": "decrypt/two", "rewrap": "encrypt/two"}
many = ["decrypt/master", "encrypt/two", "decrypt/two"]
seen, together = set(), 0
for row in rows:
    ids = re.search(r"\(requests? ([^)]*)\)$", row["detail"]).group(1).split(", ")
    wanted = {"aws": aws, "bao": bao}[sys.argv[1]][row["what"]]
    assert all(name in action_of for name in ids), (row, log)
    assert any(action_of[name] == wanted for name in ids), (row, [action_of[name] for name in ids])
    # Versions that moved together name the same requests; no other rows do.
    assert not seen & set(ids) or (row["what"] == "rewrap" and len(ids) == 3), row
    seen |= set(ids)
    together += row["what"] == "rewrap" and [action_of[name] for name in ids] == many
assert sorted(row["what"] for row in rows) == ["create"] + 4 * ["rewrap"] + 3 * ["rotate"] + ["set-kek"], rows
assert together == (3 if sys.argv[1] == "bao" else 0), rows
assert any(row["detail"].startswith("every month (request ") for row in rows), rows
PY
envelope history mine >history
grep -qE '\(request [-0-9a-zA-Z]{8,}\)$' history || fail "history: $(cat history)"

# a_refusal_has_it_too
backend_deny two
refused_with 4 'two' envelope key rotate mine
backend_allow two
refusal=$(query "SELECT detail FROM encryption_key_history WHERE result <> 'ok' ORDER BY history_id DESC LIMIT 1")
if [ "$backend" = aws ]; then
    grep -q 'request rig-Disabled' <<<"$refusal" || fail "refusal: $refusal"
fi
