"""Servers made of the Python package tinyproto (3.0 or 2.0.1, whichever is on PYTHONPATH), as bench_tinyproto.py
measures them.

    tinyproto_server.py echo         transmits every message back
    tinyproto_server.py files        what tpft needs of a server, in the current folder

Prints "ready tcp HOST:PORT".
"""

import json
import os
import socket
import sys

try:
    from tinyproto.connection import TinyProtoConnection
    from tinyproto.connection_details import TinyProtoConnectionDetails
    from tinyproto.server import TinyProtoServer
except ImportError:  # 2.0.1 is one module
    from tinyproto import TinyProtoConnection, TinyProtoServer
    TinyProtoConnectionDetails = None

CHUNK = 4 << 20


class Echo(TinyProtoConnection):
    def transmission_received(self, msg):
        self.transmit(msg)


class Files(TinyProtoConnection):
    def say(self, kind, **letter):
        self.transmit(json.dumps({"type": kind, "letter": letter}, separators=(",", ":")).encode())

    def transmission_received(self, msg):
        request = json.loads(bytes(msg))
        letter = request["letter"]
        if request["type"] == "upload-request":
            self.store(letter["destination_path"], letter["file_size"])
        elif request["type"] == "download-request":
            self.serve(letter["download_path"])
        else:
            self.shutdown = True

    def store(self, path, size):
        with open(path, "wb") as file:
            self.say("confirmed")
            while size > 0:
                chunk = self.receive()
                file.write(chunk)
                size -= len(chunk)
            file.flush()
            os.fsync(file.fileno())
        self.say("confirmed")

    def serve(self, path):
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.say("download-confirmation", file_size=size)
            self.receive()
            while size > 0:
                chunk = file.read(CHUNK)
                self.transmit(chunk)
                size -= len(chunk)
        self.receive()


class Server(TinyProtoServer):
    address = None

    def pre_loop(self):
        print(f"ready tcp {self.address}", flush=True)


def main(kind):
    handler = {"echo": Echo, "files": Files}[kind]
    with socket.socket() as s:  # a port that was free a moment ago: the package does not tell
        s.bind(("127.0.0.1", 0))
        host, port = s.getsockname()
    if TinyProtoConnectionDetails:
        server = Server([TinyProtoConnectionDetails(host, port)], handler)
    else:
        server = Server()
        server.set_conn_handler(handler)
        server.add_addr(host, port)
    Server.address = f"{host}:{port}"
    server.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
