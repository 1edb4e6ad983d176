"""Open ciphertexts of ENVELOPE-AES-256-GCM with Python's cryptography and a DEK unwrapped by hand, following
docs/wire-format.md and nothing else.  unwrap_by_hand.py RIG MODULE PLAIN SEALED..."""
import sqlite3
import struct
import subprocess
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

rig, module, plain, *sealed = sys.argv[1:]
expected = open(plain, "rb").read()
pin = open(f"{rig}/pin").read().strip()
store = sqlite3.connect(f"file:{rig}/keys.db?mode=ro", uri=True)
(store_id,) = store.execute("SELECT store_id FROM store_meta").fetchone()


def unwrap(dek_id):
    name, version, kek_id, blob = store.execute(
        "SELECT k.name, v.version, v.kek_id, v.encrypted_key_blob FROM encryption_key_version v"
        " JOIN encryption_key k USING (key_id) WHERE v.dek_id = ?", (dek_id,)).fetchone()
    name = name.encode()
    aad = (b"envelope wrap v1" + store_id + struct.pack(">III", dek_id, version, kek_id) + b"\x01"
           + bytes([len(name)]) + name)
    run = subprocess.run(["unwrap_by_hand", module, "envelope", pin, "master", blob.hex(), aad.hex()],
                         check=True, capture_output=True, text=True, timeout=60)
    return bytes.fromhex(run.stdout.strip())


for path in sealed:
    data = open(path, "rb").read()
    header, nonce, rest = data[:4], data[4:16], data[16:]
    dek = unwrap(struct.unpack(">I", header)[0])
    assert AESGCM(dek).decrypt(nonce, rest, header) == expected, path

    # And the other way: what another implementation made, openssl opens.
    with open(path + ".foreign", "wb") as out:
        other = bytes(range(12))
        out.write(header + other + AESGCM(dek).encrypt(other, expected, header))
