"""A peer made of the Python package tinyproto, 2.0.1 or 3.0 (whichever is on PYTHONPATH).

tinyproto_peer.py server PORT [LIMIT]      echoes; prints "ready"
tinyproto_peer.py client PORT SIZE...      transmits messages of these sizes, each after the echo of the one
                                           before; prints "echoed N" for each, and exits with 0
"""

import os
import sys
import threading
import time

try:
    from tinyproto.client import TinyProtoClient
    from tinyproto.connection import TinyProtoConnection
    from tinyproto.connection_details import TinyProtoConnectionDetails
    from tinyproto.server import TinyProtoServer
except ImportError:  # 2.0.1 is one module
    from tinyproto import TinyProtoClient, TinyProtoConnection, TinyProtoServer
    TinyProtoConnectionDetails = None

HOST = "127.0.0.1"


def say(text):
    print(text, flush=True)


def message(size):
    block = bytes((7 * i + i // 251) % 256 for i in range(4096))
    return (block * (size // len(block) + 1))[:size]


class Echo(TinyProtoConnection):
    def transmission_received(self, msg):
        self.transmit(msg)


class Server(TinyProtoServer):
    def pre_loop(self):
        say("ready")


def serve(port, limit=None):
    if TinyProtoConnectionDetails:
        server = Server([TinyProtoConnectionDetails(HOST, port)], Echo, limit)
    else:
        server = Server()
        server.set_conn_handler(Echo)
        server.add_addr(HOST, port)
        server.connection_limit = limit
    server.start()


class Asking(TinyProtoConnection):
    sizes = []
    done = threading.Event()

    def pre_loop(self):
        for size in self.sizes:
            sent = message(size)
            self.transmit(sent)
            if bytes(self.receive()) != sent:
                say(f"another message than that of {size}")
                os._exit(1)
            say(f"echoed {size}")
        self.done.set()


def ask(port, sizes):
    Asking.sizes = sizes
    if TinyProtoConnectionDetails:
        client = TinyProtoClient(Asking, timeout=60)
        client.connect_to(TinyProtoConnectionDetails(HOST, port))
    else:
        client = TinyProtoClient()
        client.set_timeout(60)
        client.set_conn_handler(Asking)
        client.connect_to(HOST, port)
    finished = Asking.done.wait(300)
    time.sleep(0.05)
    os._exit(0 if finished else 1)  # 2.0.1 would wait for its threads


if sys.argv[1] == "server":
    serve(int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
else:
    ask(int(sys.argv[2]), [int(size) for size in sys.argv[3:]])
