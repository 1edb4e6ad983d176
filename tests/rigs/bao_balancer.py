"""One address for two nodes of a transit server: a real one, and one of our own that is sealed or stands by.

usage: bao_balancer.py READY-FILE HOST:PORT CERT KEY NODE-FILE

READY-FILE gets our address. A new connection goes to the node that NODE-FILE names at that moment, and stays with it, as
with a load balancer that knows nothing of HTTP:
  real       HOST:PORT, byte for byte
  sealed     503, "Vault is sealed"
  standby    307 to another address of ours; who connects there is noted as a line in NODE-FILE.followed
"""

import http.server
import os
import socket
import ssl
import sys
import threading

ready, upstream, certificate, key, node_file = sys.argv[1:]
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(certificate, key)


class Node(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    node = ""

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b'{"errors":["Vault is sealed"]}\n' if self.node == "sealed" else b""
        self.send_response(503 if self.node == "sealed" else 307)
        if self.node != "sealed":
            self.send_header("Location", f"http://127.0.0.1:{trap.getsockname()[1]}{self.path}")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = do_LIST = answer

    def log_message(self, *_):
        pass


class Sealed(Node):
    node = "sealed"


class Standby(Node):
    node = "standby"


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(connection, peer):
    with open(node_file, encoding="ascii") as file:
        node = file.read().strip()
    try:
        if node != "real":
            with tls.wrap_socket(connection, server_side=True) as secure:
                {"sealed": Sealed, "standby": Standby}[node](secure, peer, None)
            return
        host, port = upstream.rsplit(":", 1)
        with connection, socket.create_connection((host, int(port))) as real:
            back = threading.Thread(target=copy, args=(real, connection))
            back.start()
            copy(connection, real)
            back.join()
    except OSError:
        pass


def watch():
    while True:
        trap.accept()[0].close()
        with open(node_file + ".followed", "a", encoding="ascii") as file:
            file.write("followed\n")


trap = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=watch, daemon=True).start()
listener = socket.create_server(("127.0.0.1", 0))
with open(ready + ".new", "w", encoding="ascii") as ready_file:
    ready_file.write(f"127.0.0.1:{listener.getsockname()[1]}\n")
os.rename(ready + ".new", ready)
while True:
    threading.Thread(target=serve, args=listener.accept(), daemon=True).start()
