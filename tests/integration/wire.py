"""HTTP to our broadcaster: whole requests by http.client, and sockets for what no client would send."""

import http.client
import socket
from typing import NamedTuple

import bodies
from conftest import PATIENCE


class Reply(NamedTuple):
    status: int
    headers: dict  # names in lower case; a header that comes twice fails the reading
    body: bytes

    @property
    def content_type(self):
        return self.headers.get("content-type")


def one_each(pairs):
    headers = {}
    for name, value in pairs:
        assert name.lower() not in headers, f"{name} twice in {pairs}"
        headers[name.lower()] = value
    return headers


def request(broadcaster, method, target, body=b"", headers=(), patience=PATIENCE):
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", broadcaster.port, timeout=patience)
    try:
        connection.request(method, target, body, dict(headers))
        response = connection.getresponse()
        return Reply(response.status, one_each(response.getheaders()), response.read())
    finally:
        connection.close()


def post(broadcaster, path, body=b"", headers=(), patience=PATIENCE):
    return request(broadcaster, "POST", path, body,
                   {"Content-Type": bodies.OCTETS, **dict(headers)}, patience)


def subscribe(broadcaster, kind, url, key, recovery=""):
    reply = post(broadcaster, bodies.SUBSCRIBE[kind], bodies.subscribe(url, key, recovery))
    assert (reply.status, reply.body) == (200, bodies.GENERIC)


def unsubscribe(broadcaster, kind, url, key):
    reply = post(broadcaster, bodies.UNSUBSCRIBE[kind], bodies.unsubscribe(url, key))
    assert (reply.status, reply.body) == (200, bodies.GENERIC)


def notify(broadcaster, topic, message=b"hello"):
    """How many were notified."""
    reply = post(broadcaster, bodies.NOTIFY, bodies.notify(topic, message))
    assert reply.status == 200
    return bodies.parse_notified(reply.body).count


def check(broadcaster, url):
    """The etag."""
    reply = post(broadcaster, bodies.CHECK, bodies.check(url))
    assert reply.status == 200
    return bodies.parse_checked(reply.body)


def head(method, target, headers):
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1",
             *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def message(target, body, headers=()):
    """A whole POST with Content-Length."""
    return head("POST", target, [("Content-Length", len(body)), *headers]) + body


def chunked(body, sizes):
    """`body` as chunks of these sizes, repeated as needed."""
    out, at, turn = b"", 0, 0
    while at < len(body):
        piece = body[at:at + sizes[turn % len(sizes)]]
        out += b"%x\r\n%s\r\n" % (len(piece), piece)
        at, turn = at + len(piece), turn + 1
    return out + b"0\r\n\r\n"


class Wire:
    """A connection whose bytes are ours."""

    def __init__(self, broadcaster):
        self.socket = socket.create_connection(("127.0.0.1", broadcaster.port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def send_bytewise(self, data):
        for i in range(len(data)):
            self.socket.sendall(data[i:i + 1])

    def reply(self):
        """The next final or interim reply; None at the end of the connection."""
        line = self.file.readline()
        if line == b"":
            return None
        version, status = line.split()[:2]
        assert version == b"HTTP/1.1" and line.endswith(b"\r\n")
        pairs = []
        while (line := self.file.readline()) != b"\r\n":
            assert line.endswith(b"\r\n"), "the connection ended in a head"
            name, _, value = line.decode("latin-1").partition(":")
            pairs.append((name, value.strip()))
        headers = one_each(pairs)
        length = int(headers.get("content-length", 0))
        body = self.file.read(length)
        assert len(body) == length
        assert "transfer-encoding" not in headers
        assert int(status) < 200 or "content-length" in headers
        return Reply(int(status), headers, body)

    def at_end(self):
        """Waits until the broadcaster has closed; whether it did so without another byte."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True
