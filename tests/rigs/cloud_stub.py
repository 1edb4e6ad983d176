"""A stand-in for Azure Key Vault and Google Cloud KMS: our reading of their documentation, with real cryptography.

usage: cloud_stub.py READY-FILE SERVICE-ACCOUNT-PUBLIC-KEY

It proves that the module's two experimental backends work from end to end with what they believe the services to be,
not that the services are so. With CLOUD_STUB_MESSAGES=google, requests to Google and replies pass through the messages that
Google publishes (google-cloud-kms, from PyPI): a member that they do not have, or of another type, is an error, and
replies have the form that they give them. Control (/_rig/…) and faults are those of fault_proxy.py; the action is the verb: wrapkey,
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
PAIR = RING + "/cryptoKeys/pair"
google_pair = rsa.generate_private_key(public_exponent=65537, key_size=2048)
google_made = {}  # AES keys made by requests
messages = None
if os.environ.get("CLOUD_STUB_MESSAGES") == "google":
    from google.cloud import kms_v1 as messages
    from google.protobuf import json_format
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
        if form.get("grant_type", "").endswith("token-exchange"):
            return self.exchange(form)
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

    # A managed HSM's AES key: the service chooses the IV.
    def azure_aes(self, parts, asked):
        kid = f"{self.host()}/keys/aes/0001"
        if len(parts) < 4:
            key = {"kid": kid, "kty": "oct-HSM", "key_ops": ["encrypt", "decrypt"]}
            return self.json(200, {"key": key, "attributes": {"enabled": self.is_enabled("aes"), "created": 1493942451}})
        if not self.is_enabled("aes"):
            return self.azure_error(403, "Forbidden", "KeyDisabled")
        value, aad = unbase64url(asked["value"]), unbase64url(asked.get("aad", ""))
        if asked["alg"] != "A256GCM" or parts[3] not in ("encrypt", "decrypt"):
            return self.azure_error(400, "BadParameter")
        if parts[3] == "encrypt":
            iv = os.urandom(12)
            sealed = aes_key.encrypt(iv, value, aad)
            result = {"iv": base64url(iv), "tag": base64url(sealed[-16:]), "value": base64url(sealed[:-16])}
            return self.json(200, {"kid": kid, "alg": "A256GCM", **result})
        try:
            plain = aes_key.decrypt(unbase64url(asked["iv"]), value + unbase64url(asked["tag"]), aad)
        except InvalidTag:
            return self.azure_error(400, "BadParameter")
        return self.json(200, {"kid": kid, "alg": "A256GCM", "value": base64url(plain)})

    def azure(self, parts, asked):
        if parts[0] == "rng":
            return self.json(200, {"value": base64url(os.urandom(asked["count"]))})
        if len(parts) == 1:
            return self.json(200, {"value": [{"kid": f"{self.host()}/keys/kek"}], "nextLink": None})
        version = parts[2] if len(parts) > 2 else max(rsa_keys)
        if parts[1] == "rotate":  # the rig's own: a new version
            rsa_keys["0002"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            return self.json(200, {})
        if parts[1] == "aes":
            return self.azure_aes(parts, asked)
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

    def google_reply(self, kind, body):
        if messages:
            kind = getattr(messages, kind)
            body = json_format.MessageToDict(json_format.ParseDict(body, kind.pb(kind())))
        return self.json(200, body)

    def is_request(self, kind, asked):
        if not messages:
            return True
        try:
            kind = getattr(messages, kind)
            json_format.ParseDict(asked, kind.pb(kind()))
            return True
        except json_format.ParseError as error:
            self.google_error(400, "INVALID_ARGUMENT", f"Invalid JSON payload received. {error}")
            return False

    def described(self, key):
        name = key.rsplit("/", 1)[1]
        version = {
            "name": key + "/cryptoKeyVersions/1",
            "state": "ENABLED" if self.is_enabled(name) else "DISABLED",
            "protectionLevel": "HSM",
            "algorithm": "RSA_DECRYPT_OAEP_2048_SHA256" if key == PAIR else "GOOGLE_SYMMETRIC_ENCRYPTION",
            "createTime": "2026-05-01T10:00:00.123456789Z",
        }
        if key == PAIR:
            return version, {"name": key, "purpose": "ASYMMETRIC_DECRYPT"}
        return version, {"name": key, "purpose": "ENCRYPT_DECRYPT", "primary": version}

    def google_random(self, asked):
        if not self.is_request("GenerateRandomBytesRequest", asked):
            return None
        data = os.urandom(asked["lengthBytes"])
        body = {"data": base64.b64encode(data).decode(), "dataCrc32c": crc32c(data)}
        return self.google_reply("GenerateRandomBytesResponse", body)

    def google_create(self, asked):
        name = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["cryptoKeyId"][0]
        key = RING + "/cryptoKeys/" + name
        if not self.is_request("CryptoKey", asked):
            return None
        if name == "kek" or key in google_made:
            return self.google_error(409, "ALREADY_EXISTS", f"CryptoKey {key} already exists.")
        google_made[key] = AESGCM(AESGCM.generate_key(256))
        return self.google_reply("CryptoKey", self.described(key)[1])

    def google_pair(self, name, verb, asked):
        version, described = self.described(PAIR)
        if name == PAIR:
            return self.google_reply("CryptoKey", described)
        if name == PAIR + "/cryptoKeyVersions":
            return self.google_reply("ListCryptoKeyVersionsResponse", {"cryptoKeyVersions": [version], "totalSize": 1})
        if name == version["name"] and not verb:
            return self.google_reply("CryptoKeyVersion", version)
        if version["state"] != "ENABLED":
            return self.google_error(400, "FAILED_PRECONDITION", "is not enabled, current state is: DISABLED.")
        if name == version["name"] + "/publicKey":
            pem = google_pair.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            body = {"pem": pem.decode(), "pemCrc32c": crc32c(pem), "name": version["name"]}
            return self.google_reply("PublicKey", {**body, "algorithm": version["algorithm"], "protectionLevel": "HSM"})
        if name != version["name"] or verb != "asymmetricDecrypt":
            return self.google_error(404, "NOT_FOUND", f"{name} not found.")
        if not self.is_request("AsymmetricDecryptRequest", asked):
            return None
        try:
            plain = google_pair.decrypt(base64.b64decode(asked["ciphertext"]), OAEP)
        except ValueError:
            return self.google_error(400, "INVALID_ARGUMENT", "Decryption failed.")
        body = {"plaintext": base64.b64encode(plain).decode(), "plaintextCrc32c": crc32c(plain)}
        verified = crc32c(base64.b64decode(asked["ciphertext"])) == asked["ciphertextCrc32c"]
        return self.google_reply("AsymmetricDecryptResponse", {**body, "verifiedCiphertextCrc32c": verified})

    def google(self, name, verb, asked):
        key = name if name in google_made else RING + "/cryptoKeys/kek"
        cipher = google_made.get(key, aes_key)
        primary, described = self.described(key)
        if verb == "generateRandomBytes":
            return self.google_random(asked)
        if not verb and name == RING + "/cryptoKeys":
            if self.command == "POST":
                return self.google_create(asked)
            keys = [self.described(one)[1] for one in [key, PAIR, *google_made]]
            return self.google_reply("ListCryptoKeysResponse", {"cryptoKeys": keys, "totalSize": len(keys)})
        if name.startswith(PAIR):
            return self.google_pair(name, verb, asked)
        if name != key:
            return self.google_error(404, "NOT_FOUND", f"CryptoKey {name} not found.")
        if not verb:
            return self.google_reply("CryptoKey", described)
        if not self.is_request("EncryptRequest" if verb == "encrypt" else "DecryptRequest", asked):
            return None
        if primary["state"] != "ENABLED":
            return self.google_error(400, "FAILED_PRECONDITION", "is not enabled, current state is: DISABLED.")
        aad = base64.b64decode(asked.get("additionalAuthenticatedData", ""))
        value = base64.b64decode(asked["plaintext" if verb == "encrypt" else "ciphertext"])
        if crc32c(value) != asked[("plaintext" if verb == "encrypt" else "ciphertext") + "Crc32c"]:
            return self.google_error(400, "INVALID_ARGUMENT", "checksum")
        if verb == "encrypt":
            nonce = os.urandom(12)
            blob = nonce + cipher.encrypt(nonce, value, aad)
            return self.google_reply(
                "EncryptResponse",
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
            plain = cipher.decrypt(value[:12], value[12:], aad)
        except (InvalidTag, ValueError):
            return self.google_error(400, "INVALID_ARGUMENT", "Decryption failed: verify that 'name' is right.")
        body = {"plaintext": base64.b64encode(plain).decode(), "plaintextCrc32c": crc32c(plain), "usedPrimary": True}
        return self.google_reply("DecryptResponse", body)

    # --- Google's security token service ---

    def exchange(self, form):
        good = (
            form.get("subject_token") == "subject-token"
            and form.get("subject_token_type") == "urn:ietf:params:oauth:token-type:jwt"
            and form.get("audience") == "//iam.googleapis.com/rig"
            and form.get("requested_token_type") == "urn:ietf:params:oauth:token-type:access_token"
        )
        if not good:
            return self.json(400, {"error": "invalid_grant", "error_description": "The subject token is not accepted"})
        token = "rig-federated" if form["scope"].endswith("/cloud-platform") else "rig-token"
        return self.json(200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def impersonate(self, asked):
        if self.headers.get("Authorization") != "Bearer rig-federated" or asked["lifetime"] != "3600s":
            return self.google_error(403, "PERMISSION_DENIED", "Permission 'iam.serviceAccounts.getAccessToken' denied")
        return self.json(200, {"accessToken": "rig-token", "expireTime": "2100-01-01T00:00:00Z"})

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
        if verb == "generateAccessToken":
            return self.impersonate(json.loads(body))
        if self.headers.get("Authorization") != "Bearer rig-token":
            return self.json(401, {"error": {"code": "Unauthorized", "status": "UNAUTHENTICATED", "message": "token"}})
        asked = json.loads(body or b"{}")
        if parts[0] in ("keys", "rng"):
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
