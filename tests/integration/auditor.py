"""Unwrap the DEKs of a store without Envelope, as docs/wire-format.md says: from the store's rows, and with the token's own
calls. A KEK on a PKCS#11 token is used by unwrap_by_hand.c, one in a key service by curl, with the credentials in the file
"auditor" beside the service's kms.cnf.

auditor.py RIG DEK-ID    prints the DEK in hexadecimal
"""
import base64
import configparser
import hashlib
import json
import os
import sqlite3
import struct
import subprocess
import sys
import urllib.parse

# Whatever this system's OpenSSL is configured to load, these run without.
PLAIN = dict(os.environ, OPENSSL_CONF="/dev/null", no_proxy="127.0.0.1")


def run(*command, data=None):
    done = subprocess.run(command, input=data, env=PLAIN, capture_output=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stderr + done.stdout).decode()}")
    return done.stdout


def settings(path, header=""):
    parser = configparser.RawConfigParser(strict=False)
    with open(path) as file:
        parser.read_string(header + file.read())
    return parser


def by_pkcs11(rig, label, blob, aad):
    module = settings(f"{rig}/envelope.cnf")["hsm"]["module"]
    with open(f"{rig}/pin") as file:
        pin = file.read().strip()
    return bytes.fromhex(run("unwrap_by_hand", module, "envelope", pin, label, blob.hex(), aad.hex()).decode().strip())


def ask(url, auditor, question, *headers):
    reply = run("curl", "-sS", "--fail-with-body", "--max-time", "30", "-K", auditor, "--data-binary", "@-",
                *(word for header in headers for word in ("-H", header)), url, data=json.dumps(question).encode())
    return json.loads(reply)


def text(data):
    return base64.b64encode(data).decode()


def by_aws(service, auditor, label, body, aad):
    told = ask(service["endpoint"], auditor, {
        "KeyId": label, "CiphertextBlob": text(body),
        "EncryptionContext": {"envelope-aad": hashlib.sha256(aad).hexdigest()},
    }, "Content-Type: application/x-amz-json-1.1", "X-Amz-Target: TrentService.Decrypt")
    return base64.b64decode(told["Plaintext"])


def by_transit(service, auditor, label, body, aad):
    told = ask(f"{service['address']}/v1/transit/decrypt/{label}", auditor,
               {"ciphertext": body.decode("ascii"), "associated_data": text(aad)})
    return base64.b64decode(told["data"]["plaintext"])


def by_key_service(label, body, aad):
    path = os.environ["ENVELOPE_KMS_CONFIG"]
    service = settings(path)["token envelope"]
    how = {"aws-kms": by_aws, "openbao": by_transit}[service["backend"]]
    return how(service, os.path.join(os.path.dirname(path), "auditor"), label, body, aad)


def aad_of(store_id, dek_id, version, kek_id, name):
    name = name.encode()
    return (b"envelope wrap v1" + store_id + struct.pack(">III", dek_id, version, kek_id) + b"\x01"
            + bytes([len(name)]) + name)


def unwrap(rig, dek_id, change=lambda aad: aad):
    """The DEK; change: what to do with the AAD first, to see that it is bound."""
    store = sqlite3.connect(f"file:{rig}/keys.db?mode=ro", uri=True)
    (store_id,) = store.execute("SELECT store_id FROM store_meta").fetchone()
    name, version, kek_id, uri, blob = store.execute(
        "SELECT k.name, v.version, v.kek_id, e.uri, v.encrypted_key_blob FROM encryption_key_version v"
        " JOIN encryption_key k USING (key_id) JOIN encryption_kek e ON e.kek_id = v.kek_id WHERE v.dek_id = ?", (dek_id,)).fetchone()
    store.close()
    attributes = dict(part.split("=", 1) for part in uri[len("pkcs11:"):].split("?")[0].split(";"))
    label = urllib.parse.unquote(attributes["object"])
    aad = change(aad_of(store_id, dek_id, version, kek_id, name))
    assert blob[0] == 1, "not a blob of format 1"
    dek = by_key_service(label, blob[2:], aad) if blob[1] == 4 else by_pkcs11(rig, label, blob, aad)
    assert len(dek) == 32
    return dek


if __name__ == "__main__":
    print(unwrap(sys.argv[1], int(sys.argv[2])).hex())
