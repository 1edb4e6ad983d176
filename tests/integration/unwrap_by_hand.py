"""Open ciphertexts of ENVELOPE-AES-256-GCM with Python's cryptography and a DEK unwrapped by hand, following
docs/wire-format.md and nothing else.  unwrap_by_hand.py RIG PLAIN SEALED..."""
import struct
import sys

import auditor
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

rig, plain, *sealed = sys.argv[1:]
with open(plain, "rb") as file:
    expected = file.read()

for path in sealed:
    with open(path, "rb") as file:
        data = file.read()
    header, nonce, rest = data[:4], data[4:16], data[16:]
    (dek_id,) = struct.unpack(">I", header)
    dek = auditor.unwrap(rig, dek_id)
    assert AESGCM(dek).decrypt(nonce, rest, header) == expected, path

    # The AAD is bound: as another store's, or another key's, the token does not unwrap it.
    for change in (lambda aad: aad[:16] + bytes(8) + aad[24:], lambda aad: aad + b"x"):
        try:
            auditor.unwrap(rig, dek_id, change)
        except RuntimeError:
            continue
        raise AssertionError(f"{path}: unwrapped with another AAD")

    # And the other way: what another implementation made, openssl opens.
    with open(path + ".foreign", "wb") as out:
        other = bytes(range(12))
        out.write(header + other + AESGCM(dek).encrypt(other, expected, header))
