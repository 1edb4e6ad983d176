"""A proxy in front of an AWS emulator that counts calls, injects faults and models what the emulator does not.

usage: fault_proxy.py READY-FILE UPSTREAM-URL [CERT KEY]

An https:// upstream must have a certificate of the CA in RIG_UPSTREAM_CA.

Models: disabled keys and keys pending deletion, IncorrectKeyException, AssumeRoleWithWebIdentity, DryRun, pages of lists, RSA-OAEP (the emulator has
the calls but not the arithmetic), instance metadata (v2) and container credentials. Everything else goes to the emulator unchanged, signature included.

Control (never counted):
  POST /_rig/fault   {"action": "Decrypt" or "*", "kind": KIND, "times": N (default: for ever)}
       "metadata" and "container" are actions, too.
       KIND: throttle, internal, unavailable, expired, denied, cut, reset, slow, slow-header, continue, bad-json,
             wrong-json, other-key, huge, huge-chunked, html, silent, redirect, quoted (a wrong signature, with the
             session token in its words), and those of RAW
  POST /_rig/clear   forget faults, states, pages
  POST /_rig/state   {"key": ID-OR-ARN, "state": "Disabled" | "PendingDeletion" | "Deleted" | "Enabled"}
  POST /_rig/page    {"size": N}
  POST /_rig/agent   {"id": …, "secret": …, "token": …, "lifetime": seconds}   what metadata and container give out
  POST /_rig/policy  {"id": ACCESS-KEY, "document": {…}}   hold this user to a policy's resources and conditions, too
  GET  /_rig/counts  {"Decrypt": 3, …}; POST /_rig/counts sets them to nothing
"""

import base64
import datetime
import fnmatch
import http.client
import http.server
import json
import os
import re
import ssl
import socket
import struct
import sys
import threading
import time
import urllib.parse

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

lock = threading.Lock()
state = {"faults": [], "keys": {}, "page": 0, "counts": {}, "agent": None, "rsa": {}, "policies": {}}

ERRORS = {
    "throttle": (400, "ThrottlingException", "Rate exceeded"),
    "internal": (500, "KMSInternalException", "Try again"),
    "unavailable": (500, "KeyUnavailableException", "The key is not available"),
    "expired": (400, "ExpiredTokenException", "The security token included in the request is expired"),
    "denied": (400, "AccessDeniedException", "not authorized to perform this"),
    "Disabled": (409, "DisabledException", "the key is disabled"),
    "PendingDeletion": (409, "KMSInvalidStateException", "the key is pending deletion"),
    "Deleted": (400, "NotFoundException", "Key is not found"),
    "incorrect-key": (400, "IncorrectKeyException", "The key ID in the request does not identify the CMK"),
    "dry-run": (412, "DryRunOperationException", "The request would have succeeded, but the DryRun option is set."),
}
# What is no HTTP, or HTTP that no honest server sends.
RAW = {
    "raw-no-http": b"\x00\x01\x02 SSH-2.0-nothing\r\n" * 40,
    "raw-big-header": b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 90000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "raw-many-headers": b"HTTP/1.1 200 OK\r\n" + b"X-One: of many\r\n" * 20000 + b"Content-Length: 2\r\n\r\n{}",
    "raw-nul-header": b"HTTP/1.1 200 OK\r\nX-Nul: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
    "raw-negative-length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
    "raw-bad-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "raw-huge-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}",
    "raw-gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    "raw-status": b"HTTP/1.1 99999 What\r\nContent-Length: 2\r\n\r\n{}",
    "raw-switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "raw-empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "raw-deep-json": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b'{"a":' * 100000,
}
CRYPTOGRAPHIC = ("Encrypt", "Decrypt", "ReEncrypt", "GenerateDataKey")


def take_fault(action):
    with lock:
        for fault in state["faults"]:
            if fault["action"] in (action, "*") and fault["times"] != 0:
                if fault["times"] > 0:
                    fault["times"] -= 1
                return fault["kind"]
    return None


def short(key):
    return key.rsplit("/", 1)[-1]


def as_list(value):
    return value if isinstance(value, list) else [value]


def conditions_hold(conditions, context):
    """The one condition our samples use; any other is an error of the test."""
    for operator, keys in conditions.items():
        for key, wanted in keys.items():
            if (operator, key) != ("ForAnyValue:StringEquals", "kms:EncryptionContextKeys"):
                raise NotImplementedError(f"{operator} {key}")
            if not set(as_list(wanted)) & set(context):
                return False
    return True


def policy_allows(document, action, resource, context):
    """Is there an Allow, and no Deny? Principals are not looked at: the test hands a policy to one user."""
    found = set()
    for statement in document["Statement"]:
        if (
            any(fnmatch.fnmatchcase(action, pattern) for pattern in as_list(statement["Action"]))
            and any(fnmatch.fnmatchcase(resource, pattern) for pattern in as_list(statement["Resource"]))
            and conditions_hold(statement.get("Condition", {}), context)
        ):
            found.add(statement["Effect"])
    return found == {"Allow"}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream = ""

    def log_message(self, *args):
        pass

    # --- what is asked ---

    def read_body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def action(self, body):
        target = self.headers.get("X-Amz-Target")
        if target:
            return target.split(".")[-1]
        return urllib.parse.parse_qs(body.decode("latin-1")).get("Action", ["-"])[0]

    # --- what is answered ---

    def answer(self, status, body, kind="application/x-amz-json-1.1", headers=()):
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, name):
        status, code, message = ERRORS[name]
        self.answer(status, {"__type": code, "message": message}, headers=[("x-amzn-RequestId", "rig-" + name)])

    def misbehave(self, kind):
        if kind in ERRORS:
            return self.refuse(kind)
        self.close_connection = True
        if kind in RAW:
            self.wfile.write(RAW[kind])
        elif kind == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"Plaintext":"')
        elif kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif kind == "silent":
            time.sleep(60)
        elif kind == "slow":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.drip(b"{" * 600)
        elif kind == "bad-json":
            self.answer(200, b'{"Plaintext":"AAAA", "CiphertextBlob":')
        elif kind == "wrong-json":
            self.answer(200, {"Plaintext": 5, "CiphertextBlob": ["x"], "Keys": "none", "KeyMetadata": []})
        elif kind == "other-key":
            self.answer(200, {"Plaintext": "AAAA", "CiphertextBlob": "AAAA", "KeyId": "arn:aws:kms:x:1:key/other"})
        elif kind == "slow-header":
            self.send_response_only(200)
            self.flush_headers()
            self.drip(b"X-Slow: " + b"x" * 600)
        elif kind == "continue":
            self.drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 24)
        elif kind == "redirect":
            self.answer(307, b"", headers=[("Location", "http://127.0.0.1:1/")])
        elif kind == "quoted":
            token = self.headers.get("X-Amz-Security-Token", "none")
            words = f"The Canonical String for this request should have been\n'x-amz-security-token:{token}\n'"
            self.answer(400, {"__type": "InvalidSignatureException", "message": words})
        elif kind == "html":
            self.answer(200, b"<html>Please log in to the network</html>", "text/html")
        elif kind == "huge":
            self.send_response(200)
            self.send_header("Content-Length", str(100 << 20))
            self.end_headers()
            self.pour()
        elif kind == "huge-chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.pour(b"10000\r\n", b"\r\n")
        return None

    def drip(self, data):
        for byte in data:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.1)

    def pour(self, before=b"", after=b""):
        for _ in range(1600):
            self.wfile.write(before + b"x" * 65536 + after)

    # --- the model ---

    def pass_on(self, method, body):
        url = urllib.parse.urlsplit(self.upstream)
        if url.scheme == "https":
            trust = ssl.create_default_context(cafile=os.environ["RIG_UPSTREAM_CA"])
            connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=30, context=trust)
        else:
            connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
        connection.putrequest(method, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "content-length"):
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        reply = connection.getresponse()
        content = reply.read()
        headers = [(n, v) for n, v in reply.getheaders() if n.lower().startswith("x-amz")]
        connection.close()
        return reply.status, content, reply.getheader("Content-Type") or "", headers

    def state_of(self, asked):
        with lock:
            for name in ("KeyId", "SourceKeyId", "DestinationKeyId"):
                found = state["keys"].get(short(str(asked.get(name, ""))), "Enabled")
                if found != "Enabled":
                    return found
        return "Enabled"

    def kms(self, action, body):
        asked = json.loads(body or b"{}")
        status, content, kind, headers = self.pass_on("POST", body)
        oaep = str(asked.get("EncryptionAlgorithm", "")).startswith("RSAES_OAEP")
        if (status == 200 or b"AccessDenied" in content) and self.is_other_key(action, asked):
            return self.refuse("incorrect-key")
        if status != 200 and not (oaep and b"InvalidCiphertext" in content):
            return self.answer(status, content, kind, headers)
        if oaep and self.state_of(asked) == "Enabled":
            return self.oaep(action, asked)
        told = json.loads(content or b"null") or {}
        if not self.permitted(action, asked, told):
            return self.refuse("denied")
        if action in CRYPTOGRAPHIC:
            key_state = self.state_of(asked)
            if key_state != "Enabled":
                return self.refuse(key_state)
            if asked.get("DryRun"):
                return self.refuse("dry-run")
        if action == "GetPublicKey":
            der = self.rsa_key(asked["KeyId"]).public_key()
            der = der.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            told["PublicKey"] = base64.b64encode(der).decode()
        if action == "DescribeKey" and self.state_of({"KeyId": told["KeyMetadata"]["Arn"]}) == "Deleted":
            return self.refuse("Deleted")
        if action == "DescribeKey":
            metadata = told["KeyMetadata"]
            with lock:
                metadata["KeyState"] = state["keys"].get(short(metadata["Arn"]), metadata["KeyState"])
            metadata["Enabled"] = metadata["KeyState"] == "Enabled"
        for name in ("Keys", "Aliases"):
            if state["page"] and name in told:
                self.cut_page(asked, told, name)
        return self.answer(200, told, headers=headers)

    @staticmethod
    def is_other_key(action, asked):
        """The emulator's blobs begin with the id of their key; of a wrong key it says that a policy forbids it (5.2), or
        takes the right one (5.1)."""
        wanted = asked.get("SourceKeyId") or asked.get("KeyId") or ""
        if not wanted or wanted.startswith("alias/"):
            return False
        try:
            blob = base64.b64decode(asked.get("CiphertextBlob", ""))
        except ValueError:
            return False
        return action in ("Decrypt", "ReEncrypt") and len(blob) > 36 and blob[:36].decode("latin-1") != short(wanted)

    def permitted(self, action, asked, told):
        """The emulator looks at actions only; resources and conditions of a user's policy are looked at here."""
        user = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
        with lock:
            document = state["policies"].get(user.group(1)) if user else None
        if document is None:
            return True
        if action == "ReEncrypt":
            needed = [
                ("ReEncryptFrom", asked["SourceKeyId"], asked.get("SourceEncryptionContext", {})),
                ("ReEncryptTo", asked["DestinationKeyId"], asked.get("DestinationEncryptionContext", {})),
            ]
        else:
            described = told.get("KeyMetadata", {}).get("Arn")
            needed = [(action, described or asked.get("KeyId", "*"), asked.get("EncryptionContext", {}))]
        return all(policy_allows(document, "kms:" + name, key, context) for name, key, context in needed)

    def rsa_key(self, key):
        with lock:
            if short(key) not in state["rsa"]:
                state["rsa"][short(key)] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            return state["rsa"][short(key)]

    def oaep(self, action, asked):
        digest = hashes.SHA1() if asked["EncryptionAlgorithm"].endswith("SHA_1") else hashes.SHA256()
        how = padding.OAEP(mgf=padding.MGF1(digest), algorithm=digest, label=None)
        key = self.rsa_key(asked["KeyId"])
        try:
            if action == "Encrypt":
                name, result = "CiphertextBlob", key.public_key().encrypt(base64.b64decode(asked["Plaintext"]), how)
            else:
                name, result = "Plaintext", key.decrypt(base64.b64decode(asked["CiphertextBlob"]), how)
        except ValueError:
            return self.answer(400, {"__type": "InvalidCiphertextException", "message": ""})
        return self.answer(200, {"KeyId": asked["KeyId"], name: base64.b64encode(result).decode()})

    def cut_page(self, asked, told, name):
        begin = int(asked.get("Marker", "0"))
        end = begin + state["page"]
        more = end < len(told[name])
        told[name] = told[name][begin:end]
        told["Truncated"] = more
        if more:
            told["NextMarker"] = str(end)

    # --- instance metadata and container credentials ---

    def agent(self):
        given = state["agent"]
        until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=given["lifetime"])
        return {
            "Code": "Success",
            "AccessKeyId": given["id"],
            "SecretAccessKey": given["secret"],
            "Token": given.get("token", ""),
            "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def metadata(self, method):
        base = "/latest/meta-data/iam/security-credentials/"
        with lock:
            state["counts"]["metadata"] = state["counts"].get("metadata", 0) + 1
        kind = take_fault("metadata")
        if kind:
            return self.misbehave(kind)
        if self.path == "/latest/api/token" and method == "PUT":
            if "X-aws-ec2-metadata-token-ttl-seconds" not in self.headers:
                return self.answer(400, b"", "text/plain")
            return self.answer(200, b"session-of-the-rig==", "text/plain")
        if self.headers.get("X-aws-ec2-metadata-token") != "session-of-the-rig==":
            return self.answer(401, b"", "text/plain")
        if not state["agent"]:
            return self.answer(404, b"", "text/plain")
        if self.path == base:
            return self.answer(200, b"rig-role", "text/plain")
        if self.path == base + "rig-role":
            return self.answer(200, self.agent())
        return self.answer(404, b"", "text/plain")

    def container(self):
        with lock:
            state["counts"]["container"] = state["counts"].get("container", 0) + 1
        kind = take_fault("container")
        if kind:
            return self.misbehave(kind)
        if self.headers.get("Authorization") != "container-token" or not state["agent"]:
            return self.answer(401, b"{}")
        return self.answer(200, self.agent())

    def web_identity(self, body):
        """The emulator wants a signature here, where AWS wants none."""
        asked = urllib.parse.parse_qs(body.decode())
        if "Authorization" in self.headers or asked.get("WebIdentityToken", [""])[0].count(".") != 2:
            return self.answer(
                400,
                b"<ErrorResponse><Error><Code>InvalidIdentityToken</Code>"
                b"<Message>No token &amp; no role</Message></Error></ErrorResponse>",
                "text/xml",
            )
        given = self.agent()
        given["SessionToken"] = given.pop("Token")
        fields = "".join(f"<{name}>{value}</{name}>" for name, value in given.items())
        return self.answer(
            200,
            f"<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>{fields}</Credentials>"
            f"</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>".encode(),
            "text/xml",
        )

    # --- control ---

    def control(self, method, body):
        told = json.loads(body or b"{}")
        with lock:
            if self.path == "/_rig/fault":
                state["faults"].append({"times": -1, "action": "*", **told})
            elif self.path == "/_rig/clear":
                state.update(faults=[], keys={}, page=0)
            elif self.path == "/_rig/state":
                state["keys"][short(told["key"])] = told["state"]
            elif self.path == "/_rig/page":
                state["page"] = told["size"]
            elif self.path == "/_rig/policy":
                state["policies"][told["id"]] = told["document"]
            elif self.path == "/_rig/agent":
                state["agent"] = told or None
            elif self.path == "/_rig/counts" and method == "POST":
                state["counts"] = {}
            elif self.path != "/_rig/counts":
                return self.answer(404, {})
            counts = dict(state["counts"])
        return self.answer(200, counts)

    def serve(self, method):
        body = self.read_body()
        if self.path.startswith("/_rig/"):
            return self.control(method, body)
        if self.path.startswith("/latest/"):
            return self.metadata(method)
        if self.path == "/container":
            return self.container()
        action = self.action(body)
        with lock:
            state["counts"][action] = state["counts"].get(action, 0) + 1
        kind = take_fault(action)
        if kind:
            return self.misbehave(kind)
        if self.headers.get("X-Amz-Target"):
            return self.kms(action, body)
        if action == "AssumeRoleWithWebIdentity":
            return self.web_identity(body)
        return self.answer(*self.pass_on(method, body))

    def guarded(self, method):
        try:
            self.serve(method)
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True  # the client had enough: that is what many tests want

    def do_GET(self):
        self.guarded("GET")

    def do_POST(self):
        self.guarded("POST")

    def do_PUT(self):
        self.guarded("PUT")

    def do_LIST(self):
        self.guarded("LIST")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


def main():
    ready, Handler.upstream = sys.argv[1:3]
    server = Server(("127.0.0.1", 0), Handler)
    scheme = "http"
    if len(sys.argv) > 3:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[3], sys.argv[4])
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "https"
    with open(ready + ".new", "w", encoding="ascii") as file:
        file.write(f"{scheme}://127.0.0.1:{server.server_port}\n")
    os.rename(ready + ".new", ready)
    server.serve_forever()


if __name__ == "__main__":
    main()
