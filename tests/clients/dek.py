"""Print, in hexadecimal, the DEK that a key reference names: from the store's row and with raw PKCS#11 calls, as
docs/wire-format.md says, without Envelope.   dek.py RIG REFERENCE-HEX"""
import sqlite3
import struct
import subprocess
import sys

rig, reference = sys.argv[1], bytes.fromhex(sys.argv[2])
assert reference[:7] == b"ENVREF\1"
(dek_id,) = struct.unpack(">I", reference[8:12])
with open(f"{rig}/envelope.cnf") as file:
    module = next(line.split("=", 1)[1].strip() for line in file if line.startswith("module"))
pin = open(f"{rig}/pin").read().strip()
store = sqlite3.connect(f"file:{rig}/keys.db?mode=ro", uri=True)
(store_id,) = store.execute("SELECT store_id FROM store_meta").fetchone()
assert reference[12:20] == store_id
name, version, kek_id, blob = store.execute(
    "SELECT k.name, v.version, v.kek_id, v.encrypted_key_blob FROM encryption_key_version v"
    " JOIN encryption_key k USING (key_id) WHERE v.dek_id = ?", (dek_id,)).fetchone()
name = name.encode()
aad = (b"envelope wrap v1" + store_id + struct.pack(">III", dek_id, version, kek_id) + b"\x01"
       + bytes([len(name)]) + name)
run = subprocess.run(["unwrap_by_hand", module, "envelope", pin, "master", blob.hex(), aad.hex()],
                     check=True, capture_output=True, text=True, timeout=60)
print(run.stdout.strip())
