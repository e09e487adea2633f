"""Authorization as doc/protocol/auth.md has it, written from it and from nothing else: signs what
scripted peers send, and checks what the broadcaster signed."""

import base64
import hashlib
import hmac
import itertools
import json
import struct
import time

from bodies import b8, b16

OPERATIONS = {
    "subscribe exact": 1, "subscribe glob": 2, "notify": 3, "check": 5, "set": 6,
    "confirm receive": 8, "confirm missed": 9, "receive": 10, "missed": 11,
    "confirm subscribe exact": 12, "confirm subscribe glob": 13, "confirm notify": 14,
    "checked": 15, "was set": 16,
}
NONCES = itertools.count()


def u32(n):
    return struct.pack(">I", n)


class Direction:
    """One direction of a secrets file."""

    def __init__(self, part):
        self.scheme = part.get("type", "none")
        self.secret = part.get("secret", "")

    def _mac(self, operation, fields, stamp, nonce, tracing):
        key = base64.urlsafe_b64decode(self.secret + "=" * (-len(self.secret) % 4))
        signed = (bytes([OPERATIONS[operation]]) + struct.pack(">Q", stamp) + b8(nonce)
                  + b16(tracing) + b"".join(fields))
        return base64.b64encode(hmac.digest(key, signed, hashlib.sha512)).decode()

    def sign(self, operation, *fields, tracing=b"", at=None):
        """The string, empty under none."""
        if self.scheme == "none":
            return ""
        if self.scheme == "token":
            return f"Bearer {self.secret}"
        stamp, nonce = int(time.time() if at is None else at), f"n{next(NONCES)}"
        return f"X-HMAC {stamp}:{nonce}:{self._mac(operation, fields, stamp, nonce, tracing)}"

    def is_good(self, text, operation, *fields, tracing=b""):
        if self.scheme != "hmac":
            return text == self.sign(operation)
        if not text.startswith("X-HMAC "):
            return False
        stamp, nonce, mac = text[len("X-HMAC "):].split(":")
        return (abs(time.time() - int(stamp)) <= 120
                and mac == self._mac(operation, fields, int(stamp), nonce, tracing))


class Secrets:
    def __init__(self, folder, name="subscriber-secrets.json"):
        parts = json.loads((folder / name).read_text())
        self.to_broadcaster = Direction(parts["to-broadcaster"])
        self.to_subscriber = Direction(parts["to-subscriber"])


# The fields of the operations after the beginning that all have.


def of_subscription(url, key, recovery=""):
    return b16(url), b16(recovery), b16(key)


def of_notify(topic, message, identifier):
    return b16(topic), b8(identifier), hashlib.sha512(message).digest()


def of_notified(identifier, count, topic, message):
    return b8(identifier), u32(count), b16(topic), hashlib.sha512(message).digest()


def of_receive(url, receive):
    return (b16(url), b16(receive.topic), b8(receive.identifier),
            hashlib.sha512(receive.message).digest())


def of_confirmation(identifier, count, url):
    return b8(identifier), u32(count), b16(url)


def of_missed(recovery, topic):
    return b16(recovery), b16(topic)


def of_missed_confirmation(topic, recovery):
    return b16(topic), b16(recovery)


def header(text):
    return {} if text == "" else {"Authorization": text}


