"""The bodies of the stateless API, written from doc/protocol/http.md and from nothing else.

Functions without a verb in their name make a body; parse_... reads one and refuses what is short.
"""

import base64
import hashlib
import struct
from typing import NamedTuple

RECEIVE_PATH_OF_BROADCASTERS = "/v1/receive_for_websockets"

SUBSCRIBE = {"exact": "/v1/subscribe/exact", "glob": "/v1/subscribe/glob"}
UNSUBSCRIBE = {"exact": "/v1/unsubscribe/exact", "glob": "/v1/unsubscribe/glob"}
CHECK = "/v1/check_subscriptions"
SET = "/v1/set_subscriptions"
NOTIFY = "/v1/notify"
ENDPOINTS = [*SUBSCRIBE.values(), *UNSUBSCRIBE.values(), CHECK, SET, NOTIFY]

OCTETS = "application/octet-stream"
GENERIC = bytes.fromhex("000300000000")  # RESPONSE_GENERIC without authorization and tracing
UNSUBSCRIBE_IMMEDIATE = bytes.fromhex("000a")
IDENTIFIER = b"\x01\x02\x03\x04"


def as_bytes(text):
    return text.encode() if isinstance(text, str) else bytes(text)


def b8(x):
    return struct.pack(">B", len(as_bytes(x))) + as_bytes(x)


def b16(x):
    return struct.pack(">H", len(as_bytes(x))) + as_bytes(x)


class Cursor:
    """Reads fields one after another."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if len(self.data) - self.at < n:
            raise ValueError(f"{n} bytes wanted at {self.at} of {len(self.data)}")
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, n):
        return int.from_bytes(self.take(n), "big")

    def b8(self):
        return self.take(self.number(1))

    def b16(self):
        return self.take(self.number(2))

    def rest(self):
        return self.take(len(self.data) - self.at)


# ---- Sent by subscribers ----


def subscribe(url, key, recovery="", tracing=b""):
    return b16(url) + b16(key) + b16(recovery) + b16(tracing)


def unsubscribe(url, key, tracing=b""):
    return b16(url) + b16(key) + b16(tracing)


def check(url, tracing=b""):
    return b16(tracing) + b16(url)


def pairs_of(entries):
    """Entries are keys, or (key, recovery)."""
    return [(as_bytes(e[0]), as_bytes(e[1])) if isinstance(e, tuple) else (as_bytes(e), b"")
            for e in entries]


def set_list(entries):
    pairs = pairs_of(entries)
    return struct.pack(">I", len(pairs)) + b"".join(b16(k) + b16(r) for k, r in pairs)


def etag(url, topics, globs):
    """http.md, 9; the lists are sorted here."""
    document = b"URL" + b16(url) + b"\nEXACT"
    document += b"".join(b16(k) + b16(r) for k, r in sorted(pairs_of(topics)))
    document += b"\nGLOB" + b"".join(b16(k) + b16(r) for k, r in sorted(pairs_of(globs))) + b"\n"
    return hashlib.sha512(document).digest()


def set_subscriptions(url, topics=(), globs=(), *, tracing=b"", etag_format=0, claimed=None):
    """The lists in the order given; `claimed` instead of the right etag."""
    claimed = etag(url, topics, globs) if claimed is None else claimed
    return (b16(tracing) + b16(url) + bytes([etag_format]) + claimed + set_list(topics)
            + set_list(globs))


def notify(topic, message, *, sha512=None, tracing=b"", identifier=IDENTIFIER, length=None):
    sha512 = hashlib.sha512(message).digest() if sha512 is None else sha512
    length = len(message) if length is None else length
    return (b16(topic) + sha512 + b16(tracing) + b8(identifier) + struct.pack(">Q", length)
            + message)


def confirm_receive(identifier, count=1, authorization=b"", tracing=b""):
    return (struct.pack(">H", 8) + b16(authorization) + b16(tracing) + b8(identifier)
            + struct.pack(">I", count))


def confirm_missed(authorization=b"", tracing=b""):
    return struct.pack(">H", 9) + b16(authorization) + b16(tracing)


# ---- Sent by broadcasters ----


class Receive(NamedTuple):
    tracing: bytes
    topic: bytes
    identifier: bytes
    message: bytes


def parse_receive(body):
    c = Cursor(body)
    tracing, topic, identifier, length = c.b16(), c.b16(), c.b8(), c.number(8)
    message = c.rest()
    if len(message) != length:
        raise ValueError(f"the message has {len(message)} bytes, not {length}")
    return Receive(tracing, topic, identifier, message)


class Missed(NamedTuple):
    tracing: bytes
    topic: bytes


def parse_missed(body):
    c = Cursor(body)
    missed = Missed(c.b16(), c.b16())
    if c.rest():
        raise ValueError("bytes after MISSED")
    return missed


class Notified(NamedTuple):
    authorization: bytes
    tracing: bytes
    count: int
    identifier: bytes


def parse_notified(body):
    c = Cursor(body)
    kind, authorization, tracing, count = c.number(2), c.b16(), c.b16(), c.number(4)
    notified = Notified(authorization, tracing, count, c.b8())
    if kind != 4 or c.rest():
        raise ValueError(f"no RESPONSE_NOTIFY: {body!r}")
    return notified


def parse_checked(body):
    """The etag."""
    c = Cursor(body)
    kind, _authorization, _tracing, etag_format = c.number(2), c.b16(), c.b16(), c.number(1)
    found = c.take(64)
    if kind != 5 or etag_format != 0 or c.rest():
        raise ValueError(f"no RESPONSE_CHECK_SUBSCRIPTIONS: {body!r}")
    return found


def repr_digest(message):
    return "sha-512=" + base64.b64encode(hashlib.sha512(message).digest()).decode()
