"""A core dump holds neither the DEK of the rig's key nor the credentials, if any are named.   core_dump.py RIG CORE CREDENTIALS-FILE"""
import base64
import mmap
import sqlite3
import sys

import auditor

rig, core, credentials = sys.argv[1:]
store = sqlite3.connect(f"file:{rig}/keys.db?mode=ro", uri=True)
(dek_id,) = store.execute("SELECT dek_id FROM encryption_key_version").fetchone()
store.close()
dek = auditor.unwrap(rig, dek_id)
with open(credentials, "rb") as file:
    secret = file.read().strip()
assert not secret or len(secret) >= 4

forbidden = {
    "the DEK": dek,
    # AES-NI and table code keep the first round keys as the key itself, possibly word by word in the other byte order.
    "the DEK, byte-swapped": b"".join(dek[i:i + 4][::-1] for i in range(0, 32, 4)),
    "the DEK's first half": dek[:16],
    "the DEK's second half": dek[16:],
    "the DEK in hexadecimal": dek.hex().encode(),
    # as a key service's reply has it; all but the end, which depends on what follows
    "the DEK in base64": base64.b64encode(dek)[:40],
}
if secret:
    forbidden["the credentials"] = secret
with open(core, "rb") as file:
    memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # The dump is one of this program, and searching it works: something that must be there is.
    assert memory.find(b"once a line") >= 0
    found = [what for what, value in forbidden.items() if memory.find(value) >= 0]
    assert not found, "in the core dump: " + ", ".join(found)
