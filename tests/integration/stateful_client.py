"""A subscriber and publisher over raw TCP or a websocket, small and blocking, for the integration tests.

Written from doc/protocol/stateful.md; minimal headers, authorization none.
"""

import base64
import contextlib
import hashlib
import os
import socket
import ssl
import struct

PATIENCE = 30

CONFIGURE, SUBSCRIBE_EXACT, SUBSCRIBE_GLOB, UNSUBSCRIBE_EXACT, UNSUBSCRIBE_GLOB = 1, 2, 3, 4, 5
NOTIFY, NOTIFY_STREAM, CONTINUE_RECEIVE, CONFIRM_RECEIVE = 6, 7, 8, 9

CONFIRM_CONFIGURE = 1
CONFIRM_NOTIFY, CONTINUE_NOTIFY, RECEIVE_STREAM, MISSED = 6, 7, 8, 12


def integer(n, zero=b""):
    """The shortest big-endian form."""
    return n.to_bytes((n.bit_length() + 7) // 8, "big") or zero


def frame(kind, *headers, body=b""):
    """One frame, its headers in the order of the specification."""
    parts = [struct.pack(">HH", 1, kind)]
    for value in headers:
        parts += [struct.pack(">H", len(value)), value]
    return b"".join(parts) + body


def configure():
    return frame(CONFIGURE, os.urandom(32), b"\0", b"\0", b"\0\0", b"", b"")


def subscribe(kind, key):
    return frame(kind, b"", b"", key)


def notify(identifier, topic, body, sha512=None):
    size = integer(len(body))
    sha512 = hashlib.sha512(body).digest() if sha512 is None else sha512
    return frame(NOTIFY, b"", b"", identifier, topic, b"\0", size, size, sha512, body=body)


def notify_parts(identifier, topic, body, size):
    """The frames of a NOTIFY_STREAM."""
    total = integer(len(body))
    first = [topic, b"\0", total, total, hashlib.sha512(body).digest()]
    for number, at in enumerate(range(0, max(len(body), 1), size)):
        start = first if number == 0 else []
        yield frame(NOTIFY_STREAM, b"", b"", identifier, integer(number, b"\0"), *start,
                    body=body[at:at + size])


def confirm_receive(identifier):
    return frame(CONFIRM_RECEIVE, identifier, b"", b"", b"\0\0\0\1")


def continue_receive(identifier, part):
    return frame(CONTINUE_RECEIVE, identifier, integer(part), b"", b"")


class Frame:
    """A frame of the broadcaster: its type, its headers and its body."""

    COUNTS = {1: 3, 2: 3, 3: 3, 4: 3, 5: 3, 6: 4, 7: 4, 9: 6, 10: 7, 11: 3, 12: 3}

    def __init__(self, data):
        flags, self.type = struct.unpack_from(">HH", data)
        assert flags == 1, data[:8]
        self.headers, at = [], 4
        count = 4 if self.type == RECEIVE_STREAM else self.COUNTS[self.type]
        while len(self.headers) < count:
            (size,) = struct.unpack_from(">H", data, at)
            self.headers.append(data[at + 2:at + 2 + size])
            assert len(self.headers[-1]) == size
            at += 2 + size
            if self.type == RECEIVE_STREAM and len(self.headers) == 4 and self.part == 0:
                count = 9
        self.body = data[at:]

    @property
    def part(self):
        return int.from_bytes(self.headers[3], "big")

    def number(self, header):
        return int.from_bytes(self.headers[header], "big")


class Closed(Exception):
    """The broadcaster ended the connection: `code` of a websocket, None over TCP."""

    def __init__(self, code=None):
        super().__init__(code)
        self.code = code


class Client:
    """What both transports have in common."""

    def __init__(self, address, context=None):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host.strip("[]"), int(port)), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname=host)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def read(self, size):
        data = bytearray()
        while len(data) < size:
            try:
                piece = self.socket.recv(size - len(data))
            except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError) as e:
                raise Closed from e
            if not piece:
                raise Closed
            data += piece
        return bytes(data)

    def receive(self, kind=None):
        answer = Frame(self.receive_bytes())
        assert kind is None or answer.type == kind, (answer.type, kind)
        return answer

    def configure(self):
        self.send(configure())
        return self.receive(CONFIRM_CONFIGURE)

    def subscribe(self, key, kind=SUBSCRIBE_EXACT):
        self.send(subscribe(kind, key))
        assert self.receive(kind).headers[0] == key

    def notify(self, topic, body, identifier=b"n"):
        """How many were reached."""
        self.send(notify(identifier, topic, body))
        answer = self.receive(CONFIRM_NOTIFY)
        assert answer.headers[0] == identifier
        return answer.number(1)

    def message(self):
        """The next message, acknowledged: topic and body."""
        first = answer = self.receive(RECEIVE_STREAM)
        assert first.part == 0
        identifier, topic, total = first.headers[2], first.headers[4], first.number(6)
        body, part = bytearray(first.body), 0
        while len(body) < total:
            self.send(continue_receive(identifier, part))
            answer, part = self.receive(RECEIVE_STREAM), part + 1
            assert (answer.headers[2], answer.part) == (identifier, part)
            body += answer.body
        assert hashlib.sha512(body).digest() == first.headers[8]
        self.send(confirm_receive(identifier))
        return topic, bytes(body)

    def ended(self):
        """Waits for the end, and returns its code."""
        try:
            while True:
                self.receive_bytes()
        except Closed as closed:
            return closed.code


class TcpClient(Client):
    def send_raw(self, data):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def send(self, data):
        self.send_raw(struct.pack(">I", len(data)) + data)

    def receive_bytes(self):
        (size,) = struct.unpack(">I", self.read(4))
        return self.read(size)


class WebsocketClient(Client):
    answers_pings = True

    def __init__(self, address, context=None, headers=()):
        super().__init__(address, context)
        lines = [
            "GET /v1/websocket HTTP/1.1", f"Host: {address}", "Connection: Upgrade",
            "Upgrade: websocket", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode(), *headers, "", ""
        ]
        self.socket.sendall("\r\n".join(lines).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.read(1)
        self.status = int(head.split()[1])

    def send_raw(self, opcode, data, final=True):
        """A masked frame of the websocket."""
        size = len(data)
        head = bytes([opcode | (0x80 if final else 0)])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 65536:
            head += struct.pack(">BH", 0x80 | 126, size)
        else:
            head += struct.pack(">BQ", 0x80 | 127, size)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(head + b"\0\0\0\0" + data)

    def send(self, data):
        self.send_raw(2, data)

    def receive_bytes(self):
        while True:
            first, size = self.read(2)
            assert first & 0x80 and size < 128
            if size == 126:
                (size,) = struct.unpack(">H", self.read(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self.read(8))
            data, opcode = self.read(size), first & 0x0f
            if opcode == 9:
                if self.answers_pings:
                    self.send_raw(10, data)
            elif opcode == 8:
                raise Closed(struct.unpack_from(">H", data)[0] if data else None)
            else:
                assert opcode == 2, opcode
                return data
