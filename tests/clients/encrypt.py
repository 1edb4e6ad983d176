"""AESGCM and Cipher of the package cryptography; the key is what a file says, which happens to be a key reference.
encrypt.py KEY-FILE PLAIN    writes gcm.enc (data, then tag), cbc.enc, ctr.enc and their IVs"""
import os
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

key = eval(open(sys.argv[1]).read())  # what `envelope reference --format python` printed
plain = open(sys.argv[2], "rb").read()


def write(mode, iv, sealed):
    with open(f"{mode}.enc", "wb") as file:
        file.write(sealed)
    with open(f"{mode}.iv", "w") as file:
        file.write(iv.hex())


nonce = os.urandom(12)
sealed = AESGCM(key).encrypt(nonce, plain, None)
assert AESGCM(key).decrypt(nonce, sealed, None) == plain
write("gcm", nonce, sealed)

for name, mode in (("cbc", modes.CBC), ("ctr", modes.CTR)):
    iv = os.urandom(16)
    cipher = Cipher(algorithms.AES(key), mode(iv))
    padder = PKCS7(128).padder()
    padded = padder.update(plain) + padder.finalize() if name == "cbc" else plain
    encryptor, decryptor = cipher.encryptor(), cipher.decryptor()
    sealed = encryptor.update(padded) + encryptor.finalize()
    assert decryptor.update(sealed) + decryptor.finalize() == padded
    write(name, iv, sealed)
