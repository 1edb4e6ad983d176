"""A stand-in for Azure Key Vault and Google Cloud KMS: our reading of their documentation, with real cryptography.

usage: cloud_stub.py READY-FILE SERVICE-ACCOUNT-PUBLIC-KEY

It proves that the module's two experimental backends work from end to end with what they believe the services to be,
not that the services are so. Control (/_rig/…) and faults are those of fault_proxy.py; the action is the verb: wrapkey,
unwrapkey, encrypt, decrypt, token, get, list.
"""

import base64
import json
import os
import sys
import urllib.parse

import fault_proxy
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

RING = "projects/rig/locations/europe-west1/keyRings/prod"
OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
rsa_keys = {"0001": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
aes_key = AESGCM(AESGCM.generate_key(256))


def unbase64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return str(crc ^ 0xFFFFFFFF)


class Stub(fault_proxy.Handler):
    account = None

    def json(self, status, body):
        return self.answer(status, body, "application/json", [("x-ms-request-id", "rig-7f1c")])

    def azure_error(self, status, code, inner=None):
        error = {"code": code, "message": "said the rig"}
        return self.json(status, {"error": {**error, **({"innererror": {"code": inner}} if inner else {})}})

    def google_error(self, status, name, message):
        return self.json(status, {"error": {"code": status, "status": name, "message": message}})

    def host(self):
        return "http://" + self.headers["Host"]

    def is_enabled(self, key):
        with fault_proxy.lock:
            return fault_proxy.state["keys"].get(key, "Enabled") == "Enabled"

    # --- tokens ---

    def token(self, body):
        form = {name: values[0] for name, values in urllib.parse.parse_qs(body.decode()).items()}
        if form.get("grant_type", "").endswith("jwt-bearer"):
            signed, _, signature = form["assertion"].rpartition(".")
            claims = json.loads(unbase64url(signed.split(".")[1]))
            try:
                self.account.verify(unbase64url(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            except InvalidSignature:
                return self.json(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
            good = claims["aud"] == self.host() + "/token" and claims["exp"] - claims["iat"] <= 3600
        else:
            good = form.get("client_secret") == "rig-secret" and form.get("scope", "").endswith("/.default")
        if not good:
            return self.json(401, {"error": "invalid_client", "error_description": "AADSTS7000215: wrong secret"})
        return self.json(200, {"access_token": "rig-token", "expires_in": 3599, "token_type": "Bearer"})

    # --- Azure ---

    def bundle(self, version):
        numbers = rsa_keys[version].public_key().public_numbers()
        key = {
            "kid": f"{self.host()}/keys/kek/{version}",
            "kty": "RSA",
            "key_ops": ["wrapKey", "unwrapKey"],
            "n": base64url(numbers.n.to_bytes(256, "big")),
            "e": "AQAB",
        }
        return {"key": key, "attributes": {"enabled": self.is_enabled("kek"), "created": 1493942451}}

    def azure(self, parts, asked):
        if len(parts) == 1:
            return self.json(200, {"value": [{"kid": f"{self.host()}/keys/kek"}], "nextLink": None})
        version = parts[2] if len(parts) > 2 else max(rsa_keys)
        if parts[1] == "rotate":  # the rig's own: a new version
            rsa_keys["0002"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            return self.json(200, {})
        if parts[1] != "kek" or version not in rsa_keys:
            return self.azure_error(404, "KeyNotFound")
        if len(parts) < 4:
            return self.json(200, self.bundle(version))
        if not self.is_enabled("kek"):
            return self.azure_error(403, "Forbidden", "KeyDisabled")
        value = unbase64url(asked["value"])
        try:
            if parts[3] == "wrapkey":
                result = rsa_keys[version].public_key().encrypt(value, OAEP)
            else:
                result = rsa_keys[version].decrypt(value, OAEP)
        except ValueError:
            return self.azure_error(400, "BadParameter")
        return self.json(200, {"kid": f"{self.host()}/keys/kek/{version}", "value": base64url(result)})

    # --- Google ---

    def google(self, name, verb, asked):
        key = RING + "/cryptoKeys/kek"
        primary = {"name": key + "/cryptoKeyVersions/1", "state": "ENABLED" if self.is_enabled("kek") else "DISABLED"}
        described = {"name": key, "primary": primary, "purpose": "ENCRYPT_DECRYPT"}
        if verb == "generateRandomBytes":
            data = os.urandom(asked["lengthBytes"])
            return self.json(200, {"data": base64.b64encode(data).decode(), "dataCrc32c": crc32c(data)})
        if not verb and name == RING + "/cryptoKeys":
            return self.json(200, {"cryptoKeys": [described]})
        if name != key:
            return self.google_error(404, "NOT_FOUND", f"CryptoKey {name} not found.")
        if not verb:
            return self.json(200, described)
        if not self.is_enabled("kek"):
            return self.google_error(400, "FAILED_PRECONDITION", "is not enabled, current state is: DISABLED.")
        aad = base64.b64decode(asked.get("additionalAuthenticatedData", ""))
        value = base64.b64decode(asked["plaintext" if verb == "encrypt" else "ciphertext"])
        if crc32c(value) != asked[("plaintext" if verb == "encrypt" else "ciphertext") + "Crc32c"]:
            return self.google_error(400, "INVALID_ARGUMENT", "checksum")
        if verb == "encrypt":
            nonce = os.urandom(12)
            blob = nonce + aes_key.encrypt(nonce, value, aad)
            return self.json(
                200,
                {
                    "name": primary["name"],
                    "ciphertext": base64.b64encode(blob).decode(),
                    "ciphertextCrc32c": crc32c(blob),
                    "verifiedPlaintextCrc32c": True,
                    "verifiedAdditionalAuthenticatedDataCrc32c": crc32c(aad)
                    == asked.get("additionalAuthenticatedDataCrc32c", "0"),
                },
            )
        try:
            plain = aes_key.decrypt(value[:12], value[12:], aad)
        except (InvalidTag, ValueError):
            return self.google_error(400, "INVALID_ARGUMENT", "Decryption failed: verify that 'name' is right.")
        return self.json(200, {"plaintext": base64.b64encode(plain).decode(), "plaintextCrc32c": crc32c(plain)})

    def serve(self, method):
        body = self.read_body()
        path = urllib.parse.urlsplit(self.path).path
        if path.startswith("/_rig/"):
            return self.control(method, body)
        parts = path.strip("/").split("/")
        name, _, verb = path.rpartition(":") if ":" in path else (path, "", "")
        verb = verb or (parts[3] if len(parts) == 4 and parts[0] == "keys" else "")
        action = "token" if path.endswith("/token") else verb or "get"
        with fault_proxy.lock:
            fault_proxy.state["counts"][action] = fault_proxy.state["counts"].get(action, 0) + 1
        kind = fault_proxy.take_fault(action)
        if kind:
            return self.misbehave(kind)
        if action == "token":
            return self.token(body)
        if self.headers.get("Authorization") != "Bearer rig-token":
            return self.json(401, {"error": {"code": "Unauthorized", "status": "UNAUTHENTICATED", "message": "token"}})
        asked = json.loads(body or b"{}")
        if parts[0] == "keys":
            return self.azure(parts, asked)
        return self.google(name[len("/v1/"):], verb, asked)


def main():
    with open(sys.argv[2], "rb") as file:
        Stub.account = serialization.load_pem_public_key(file.read())
    server = fault_proxy.Server(("127.0.0.1", 0), Stub)
    with open(sys.argv[1] + ".new", "w", encoding="ascii") as file:
        file.write(f"http://127.0.0.1:{server.server_port}\n")
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    server.serve_forever()


if __name__ == "__main__":
    main()
