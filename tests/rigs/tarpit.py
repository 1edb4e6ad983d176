"""Servers that keep a client waiting, each in its own way, for a minute and a half.

usage: tarpit.py READY-FILE UPSTREAM-URL UPSTREAM-TLS-PORT

Writes a line NAME=PORT for each to READY-FILE (loopback):
  accepts    takes connections, says nothing: as a server, under TLS and as a proxy
  full       takes none: its queue is full, so that connecting waits
  greets     answers a TLS greeting byte by byte
  tunnels    a proxy that answers CONNECT header by header
  cuts       closes the first connection in its TLS handshake, resets the second, and passes the others on to the
             upstream's TLS port
  never      closes every one
  refuses    ends every handshake with an alert: the protocol's version
  proxy      a proxy that works, for http:// (to UPSTREAM-URL, whatever host is named) and counts on its port
GET /_tarpit/counts at `proxy` tells how many requests went through it.
"""

import http.client
import http.server
import os
import socket
import struct
import sys
import threading
import time
import urllib.parse

PATIENCE = 90


def listen(backlog):
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(backlog)
    return server


def drip(connection, data):
    connection.settimeout(5)
    try:
        connection.recv(4096)
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(0.2)
        time.sleep(PATIENCE)
    except OSError:
        pass  # the client had enough
    connection.close()


def serve(server, data):
    while True:
        connection, _ = server.accept()
        threading.Thread(target=drip, args=(connection, data), daemon=True).start()


def cut(connection, reset, last_words=b""):
    try:
        connection.recv(4096)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(last_words)
    except OSError:
        pass  # the client was faster
    connection.close()


def refuse(server):
    while True:
        connection, _ = server.accept()
        cut(connection, False, b"\x15\x03\x03\x00\x02\x02\x46")


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # either end is gone


def relay(server, port):
    number = 0
    while True:
        connection, _ = server.accept()
        number += 1
        if port is None or number <= 2:
            cut(connection, number % 2 == 0)
            continue
        onward = socket.create_connection(("127.0.0.1", port))
        for ends in ((connection, onward), (onward, connection)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


class Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream = None
    count = 0

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/_tarpit/counts":
            return self.answer(200, str(Proxy.count).encode(), [])
        return self.do_POST()

    def do_PUT(self):
        return self.do_POST()

    def do_POST(self):
        Proxy.count += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        onward = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port, timeout=30)
        onward.putrequest(self.command, urllib.parse.urlsplit(self.path).path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "proxy-connection", "content-length"):
                onward.putheader(name, value)
        onward.putheader("Content-Length", str(len(body)))
        onward.endheaders(body)
        reply = onward.getresponse()
        content = reply.read()
        self.answer(reply.status, content, [(n, v) for n, v in reply.getheaders() if n.lower().startswith("x-amz")])
        onward.close()
        return None

    def answer(self, status, content, headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def main():
    ready, upstream, tls_port = sys.argv[1:]
    Proxy.upstream = urllib.parse.urlsplit(upstream)
    # A handshake record that is announced with 16 KiB, of which little comes; and a tunnel that is never quite there.
    pits = {
        "accepts": (listen(64), b""),
        "greets": (listen(64), b"\x16\x03\x03\x3f\xff" + bytes(PATIENCE * 5)),
        "tunnels": (listen(64), b"HTTP/1.1 200 OK\r\n" + b"X-Slow: x\r\n" * 50),
    }
    for server, data in pits.values():
        threading.Thread(target=serve, args=(server, data), daemon=True).start()
    relays = {"cuts": (listen(64), int(tls_port)), "never": (listen(64), None)}
    for server, port in relays.values():
        threading.Thread(target=relay, args=(server, port), daemon=True).start()
    refusing = listen(64)
    threading.Thread(target=refuse, args=(refusing,), daemon=True).start()
    full = listen(0)
    held = []
    for _ in range(4):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(full.getsockname())
        held.append(one)
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    ports = {name: server.getsockname()[1] for name, (server, _) in (pits | relays).items()}
    ports.update(refuses=refusing.getsockname()[1], full=full.getsockname()[1], proxy=proxy.server_port)
    with open(ready + ".new", "w", encoding="ascii") as file:
        file.writelines(f"{name}={port}\n" for name, port in ports.items())
    os.rename(ready + ".new", ready)
    threading.Event().wait()


if __name__ == "__main__":
    main()
