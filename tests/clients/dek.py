"""Print, in hexadecimal, the DEK that a key reference names, without Envelope.   dek.py RIG REFERENCE-HEX"""
import os
import sqlite3
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../integration"))
import auditor  # noqa: E402

rig, reference = sys.argv[1], bytes.fromhex(sys.argv[2])
assert reference[:7] == b"ENVREF\1"
store = sqlite3.connect(f"file:{rig}/keys.db?mode=ro", uri=True)
(store_id,) = store.execute("SELECT store_id FROM store_meta").fetchone()
store.close()
assert reference[12:20] == store_id
(dek_id,) = struct.unpack(">I", reference[8:12])
print(auditor.unwrap(rig, dek_id).hex())
