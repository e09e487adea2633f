"""Our tpft as processes, and peers of it that are plain sockets."""

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import BUILD, PATIENCE, Program, wait_until

TPFT = BUILD / "src/tpft/tpft"
SANITIZED = TPFT.exists() and any(name in TPFT.read_bytes() for name in (b"__asan_init", b"__tsan_init"))
CLOSE = {"type": "close", "letter": {}}
CONFIRMED = {"type": "confirmed", "letter": {}}


class Server(Program):
    def __init__(self, root, *args, wrapper=(), **kwargs):
        super().__init__([*wrapper, TPFT, "-l", "127.0.0.1:0", "--root", root, *args], **kwargs)
        wait_until(lambda: self.out or self.process.poll() is not None, "the ready line")
        assert self.out, self.err
        self.address = self.out[0].removeprefix("ready tcp ")
        self.port = int(self.address.rsplit(":", 1)[1])


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def start(root):
    """start(*args): a server of `root`; it must end with 0 on SIGTERM and leave no temporary file."""
    started = []

    def start_one(*args, **kwargs):
        started.append(Server(root, *args, **kwargs))
        return started[-1]

    yield start_one
    for server in started:
        assert server.process.poll() in (None, -9, 0), server.err
        if server.process.poll() is None:
            assert server.stop() == 0, server.err
            assert not list(root.rglob(".tpft-????????????????")), "temporary files"


def tpft(*args, folder=None, patience=120, **kwargs):
    return subprocess.run([TPFT, *args], cwd=folder, capture_output=True, timeout=patience, **kwargs)


def read(s, n):
    data = b""
    while len(data) < n:
        piece = s.recv(n - len(data))
        assert piece, f"the end after {data[:100]!r}"
        data += piece
    return data


class Raw:
    """One end of a connection, by hand."""

    def __init__(self, s):
        self.s = s
        s.settimeout(PATIENCE)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(b"\xff")
        assert read(s, 1) == b"\xff"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def send(self, data):
        """What the other end answered to the announcement: ff, or that it refused."""
        self.s.sendall(struct.pack(">I", len(data)))
        status = read(self.s, 1)
        if status == b"\xff":
            self.s.sendall(data)
        return status

    def receive(self):
        size, = struct.unpack(">I", read(self.s, 4))
        self.s.sendall(b"\xff")
        return read(self.s, size)

    def say(self, letter):
        assert self.send(letter if isinstance(letter, bytes) else json.dumps(letter).encode()) == b"\xff"

    def hear(self):
        letter = json.loads(self.receive())
        return letter["type"], letter["letter"]

    def ask(self, kind, **letter):
        self.say({"type": kind, "letter": letter})
        return self.hear()

    def is_over(self):
        try:
            return self.s.recv(1) == b""
        except ConnectionError:
            return True


def connect(server):
    return Raw(socket.create_connection(("127.0.0.1", server.port), PATIENCE))


class FakeServer(threading.Thread):
    """A connection for each function, one after the other, played by it as a function of a Raw."""

    def __init__(self, *plays):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.plays, self.error = plays, None
        self.start()

    def run(self):
        try:
            with self.listener:
                for play in self.plays:
                    with self.listener.accept()[0] as s:
                        play(Raw(s))
        except Exception as e:  # told by check()
            self.error = e

    def check(self):
        self.join(PATIENCE)
        assert not self.is_alive() and self.error is None, self.error


def content(size, seed=0):
    block = bytes((7 * i + i // 251 + seed) % 256 for i in range(65536))
    return (block * (size // len(block) + 1))[:size]


def peak_bytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
