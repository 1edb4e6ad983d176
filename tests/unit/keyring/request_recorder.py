"""A proxy that writes down what a key service calls each request: one line "ACTION ID" a reply.

usage: request_recorder.py READY-FILE LOG UPSTREAM-URL [CA CERT KEY]      with the last three: TLS on both sides
"""

import http.client
import http.server
import json
import os
import ssl
import sys
import urllib.parse


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream = urllib.parse.urlsplit(sys.argv[3])
    trust = ssl.create_default_context(cafile=sys.argv[4]) if len(sys.argv) > 4 else None

    def log_message(self, *args):
        pass

    def ask(self, body):
        where = (self.upstream.hostname, self.upstream.port)
        if self.trust:
            connection = http.client.HTTPSConnection(*where, timeout=30, context=self.trust)
        else:
            connection = http.client.HTTPConnection(*where, timeout=30)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "content-length"):
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply, content

    def note(self, reply, content):
        target = self.headers.get("X-Amz-Target")
        if target:
            action, name = target.split(".")[-1], reply.getheader("x-amzn-RequestId")
        else:
            action, name = self.path.removeprefix("/v1/transit/"), (json.loads(content or b"{}") or {}).get("request_id")
        with open(sys.argv[2], "a", encoding="utf-8") as log:
            log.write(f"{action} {name}\n")

    def serve(self):
        reply, content = self.ask(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        self.note(reply, content)
        self.send_response(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in ("connection", "content-length", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_LIST = serve


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
if Handler.trust:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[5], sys.argv[6])
    server.socket = context.wrap_socket(server.socket, server_side=True)
with open(sys.argv[1] + ".new", "w", encoding="utf-8") as ready:
    ready.write(f"{Handler.upstream.scheme}://127.0.0.1:{server.server_address[1]}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever()
