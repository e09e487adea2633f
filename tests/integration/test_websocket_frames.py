"""Raw websocket frames against the daemon (RFC 6455, 5 and 7): the groups of the Autobahn suite as a table.

Every case begins on an open session. What is expected: `pong` with its payload, `confirm` of a NOTIFY, `close`
with the code of the close frame (None: without one); after a close the connection ends.
"""

import os
import random
import socket
import struct

import pytest

from conftest import wait_until
from stateful_client import CONFIRM_NOTIFY, Closed, Frame, TcpClient, WebsocketClient, configure, notify

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MAX_FRAME = 256 * 1024


def ws(opcode, payload=b"", final=True, rsv=0, mask=b"\x12\x34\x56\x78", announced=None, size_bytes=None):
    """A frame; `announced` and `size_bytes` (0, 2 or 8) say its length otherwise than they should."""
    length = len(payload) if announced is None else announced
    if size_bytes is None:
        size_bytes = 0 if length < 126 else 2 if length < 65536 else 8
    bit = 0x80 if mask is not None else 0
    short = {0: length, 2: 126, 8: 127}[size_bytes]
    head = bytes([(0x80 if final else 0) | rsv << 4 | opcode, bit | short])
    head += length.to_bytes(size_bytes, "big") if size_bytes else b""
    if mask is not None:
        head += mask
        payload = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
    return head + payload


def close(code, reason=b""):
    return ws(CLOSE, struct.pack(">H", code) + reason)


SHORT = notify(b"n", b"t", b"")


def sized(size):
    """A NOTIFY of so many bytes in all. Its lengths are written in their shortest form, so the head grows."""
    body = size - len(SHORT)
    while len(notify(b"n", b"t", bytes(body))) > size:
        body -= 1
    data = notify(b"n", b"t", bytes(body))
    assert len(data) == size
    return data


def pieces(data, size, opcode=BINARY):
    """One message in fragments."""
    at = range(0, len(data), size)
    return [ws(CONT if i else opcode, data[i:i + size], final=i == at[-1]) for i in at]


CONFIRM, END = ("confirm",), ("close", 1000)
N = SHORT
BAD = [("close", 1002)]

FRAMING = [
    *((f"{size} bytes", [ws(BINARY, sized(size))], [CONFIRM])
      for size in (125, 126, 127, 128, 1000, 65535, 65536, 65537, MAX_FRAME)),
    ("mask of zeros", [ws(BINARY, N, mask=b"\0\0\0\0")], [CONFIRM]),
    ("two in one write", [ws(BINARY, N) + ws(BINARY, N)], [CONFIRM, CONFIRM]),
    ("not masked", [ws(BINARY, N, mask=None)], BAD),
    ("ping not masked", [ws(PING, b"x", mask=None)], BAD),
    ("length in 2 bytes that fits 7 bits", [ws(BINARY, N[:100], size_bytes=2)], BAD),
    ("length in 8 bytes that fits 2", [ws(BINARY, N, size_bytes=8)], BAD),
    ("length with its highest bit", [ws(BINARY, b"", announced=1 << 63, size_bytes=8)], BAD),
    ("an empty message is no frame of ours", [ws(BINARY)], BAD),
]

PINGS = [
    ("empty", [ws(PING)], [("pong", b"")]),
    ("with bytes", [ws(PING, b"\0\xff\xfe")], [("pong", b"\0\xff\xfe")]),
    ("125 bytes", [ws(PING, bytes(125))], [("pong", bytes(125))]),
    ("126 bytes", [ws(PING, bytes(126))], BAD),
    ("in fragments", [ws(PING, b"a", final=False)], BAD),
    ("ten at once", [b"".join(ws(PING, b"%d" % i) for i in range(10))],
     [("pong", b"%d" % i) for i in range(10)]),
    ("pongs that nobody asked for", [ws(PONG), ws(PONG, b"x"), ws(BINARY, N)], [CONFIRM]),
    ("pong of 126 bytes", [ws(PONG, bytes(126))], BAD),
    ("between fragments", [ws(BINARY, N[:9], final=False), ws(PING, b"p"), ws(CONT, N[9:])],
     [("pong", b"p"), CONFIRM]),
]

RESERVED = [(f"{rsv} on opcode {opcode}", [ws(opcode, payload, rsv=rsv)], BAD)
            for rsv in (1, 2, 4, 7)
            for opcode, payload in ((BINARY, N), (TEXT, b"x"), (PING, b""), (CLOSE, b"\x03\xe8"), (CONT, b"x"))]

OPCODES = [(str(opcode), [ws(opcode, payload)], BAD)
           for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15) for payload in (b"", b"x")]

FRAGMENTS = [
    ("two", pieces(N, 50), [CONFIRM]),
    ("bytes", pieces(N, 1), [CONFIRM]),
    ("bytes in one write", [b"".join(pieces(N, 1))], [CONFIRM]),
    ("empty ones among them", [ws(BINARY, final=False), ws(CONT, N[:5], final=False), ws(CONT, final=False),
                               ws(CONT, N[5:], final=False), ws(CONT)], [CONFIRM]),
    ("largest in all", pieces(sized(MAX_FRAME), 10000), [CONFIRM]),
    ("continuation of nothing", [ws(CONT, N)], BAD),
    ("a message inside another", [ws(BINARY, N[:9], final=False), ws(BINARY, N)], BAD),
    ("text inside a message", [ws(BINARY, N[:9], final=False), ws(TEXT, b"x")], BAD),
    ("close inside a message", [ws(BINARY, N[:9], final=False), close(1000)], [END]),
]

TEXTS = [
    ("text", [ws(TEXT, b"text")], [("close", 1003)]),
    ("empty text", [ws(TEXT)], [("close", 1003)]),
    ("text in fragments", [ws(TEXT, b"te", final=False), ws(CONT, b"xt")], [("close", 1003)]),
    ("not UTF-8", [ws(TEXT, b"\xff")], [("close", 1003)]),
    *((f"reason {reason!r}", [close(1000, reason)], [("close", 1007)])
      for reason in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"a\x80")),
    *((f"good reason {reason!r}", [close(1000, reason)], [END])
      for reason in (b"", b"bye", "é€😀".encode(), bytes(123))),
]

CLOSES = [
    ("without a code", [ws(CLOSE)], [("close", None)]),
    ("one byte", [ws(CLOSE, b"\x03")], BAD),
    ("126 bytes", [ws(CLOSE, b"\x03\xe8" + bytes(124))], BAD),
    ("in fragments", [ws(CLOSE, b"\x03\xe8", final=False)], BAD),
    ("twice", [close(1000) + close(1001)], [END]),
    ("what comes after", [close(1000) + ws(PING, b"x") + ws(BINARY, N)], [END]),
    ("what came before", [ws(BINARY, N) + close(1000)], [END]),
    *((f"code {code}", [close(code)], [("close", code)])
      for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999)),
    *((f"code {code}", [close(code)], BAD)
      for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535)),
]

LIMITS = [
    ("a frame too long, announced", [ws(BINARY, announced=MAX_FRAME + 1)], [("close", 1009)]),
    ("a frame of 2^62 bytes, announced", [ws(BINARY, announced=1 << 62)], [("close", 1009)]),
    ("fragments too long", [ws(BINARY, bytes(MAX_FRAME), final=False), ws(CONT, announced=1)], [("close", 1009)]),
    ("a million empty fragments cost nothing", [ws(BINARY, final=False) + ws(CONT, final=False) * 200000
                                                + ws(CONT, N)], [CONFIRM]),
]

GROUPS = {"framing": FRAMING, "pings": PINGS, "reserved": RESERVED, "opcodes": OPCODES,
          "fragments": FRAGMENTS, "texts": TEXTS, "closes": CLOSES, "limits": LIMITS}
CASES = [pytest.param(frames, expected, id=f"{group}-{name}")
         for group, cases in GROUPS.items() for name, frames, expected in cases]


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("frames") / "broadcaster"


@pytest.fixture(scope="module")
def daemon(module_folder):
    """One for all cases, which must not disturb each other."""
    from conftest import Broadcaster, setup_folder

    program = Broadcaster(setup_folder(module_folder), [
        "--listen", "127.0.0.1:0", "--set", f"websocket.max_frame={MAX_FRAME}", "--set",
        f"tcp.max_frame={MAX_FRAME}", "--set", "tcp.listen=127.0.0.1:0"])
    wait_until(lambda: any(line.startswith("ready tcp ") for line in list(program.out)), "the TCP listener")
    yield program
    assert program.stop() == 0, program.err[-40:]


def tcp_address(daemon):
    return next(line.split()[2] for line in daemon.out if line.startswith("ready tcp "))


def read_event(client):
    """The next thing that the daemon sends."""
    first, size = client.read(2)
    assert first & 0x80 and first & 0x70 == 0 and size < 128, "final, no reserved bit, not masked"
    if size == 126:
        (size,) = struct.unpack(">H", client.read(2))
    data, opcode = client.read(size), first & 0x0f
    if opcode == CLOSE:
        return "close", struct.unpack_from(">H", data)[0] if data else None
    if opcode == PONG:
        return "pong", data
    assert opcode == BINARY and Frame(data).type == CONFIRM_NOTIFY
    return ("confirm",)


def events(client, expected):
    """As many as expected; behind a close there must be nothing but the end."""
    found = [read_event(client) for _ in expected]
    if expected[-1][0] == "close":
        with pytest.raises(Closed):
            client.read(1)
    return found


@pytest.mark.parametrize("frames, expected", CASES)
def test_frames(daemon, frames, expected):
    with WebsocketClient(daemon.address) as client:
        client.configure()
        for frame in frames:
            client.socket.sendall(frame)
        assert events(client, expected) == expected
        if expected[-1][0] != "close":
            client.socket.sendall(close(1000))
            assert events(client, [END]) == [END]


def test_continuation_of_a_message_that_is_over(daemon):
    """Its confirmation is read first: what is not confirmed yet when a bad frame comes is processed without."""
    with WebsocketClient(daemon.address) as client:
        client.configure()
        client.socket.sendall(ws(BINARY, N))
        assert events(client, [CONFIRM]) == [CONFIRM]
        client.socket.sendall(ws(CONT, N))
        assert events(client, BAD) == BAD


@pytest.mark.parametrize("group", ["framing", "pings", "fragments"])
def test_cut_at_random(daemon, group):
    """The same in pieces of any length, also of one byte; what is bad is answered before it is whole."""
    dice = random.Random(group)
    for _name, frames, expected in GROUPS[group]:
        data = b"".join(frames)
        if len(data) > 3000 or expected[-1] in BAD:
            continue
        with WebsocketClient(daemon.address) as client:
            client.configure()
            while data:
                size = dice.choice([1, 1, 2, 3, 17, 200])
                client.socket.sendall(data[:size])
                data = data[size:]
            assert events(client, expected) == expected


@pytest.mark.parametrize("data", [b"\x82", ws(BINARY, N)[:-1], ws(BINARY, N, final=False), ws(BINARY, announced=9999),
                                  ws(PING, b"abc")[:-1], b""], ids=range(6))
def test_an_end_in_the_middle(daemon, data):
    """A peer that says it will send no more: the connection ends, and so does its session."""
    with WebsocketClient(daemon.address) as client:
        client.configure()
        client.subscribe(b"half/open")
        client.socket.sendall(data)
        client.socket.shutdown(socket.SHUT_WR)
        client.ended()
    with WebsocketClient(daemon.address) as other:
        other.configure()
        assert other.notify(b"half/open", b"") == 0


def test_tcp_frames_cut_at_every_byte(daemon):
    """Two writes, whatever the place between them: a CONFIGURE and a NOTIFY each time."""
    hello, said = configure(), notify(b"n", b"t", b"body")
    data = b"".join(struct.pack(">I", len(d)) + d for d in (hello, said))
    for cut in range(1, len(data)):
        with TcpClient(tcp_address(daemon)) as client:
            client.send_raw(data[:cut])
            if cut >= 4 + len(hello):  # the answer shows that the first write was read alone
                client.receive()
            client.send_raw(data[cut:])
            while client.receive().type != CONFIRM_NOTIFY:
                pass


@pytest.mark.parametrize("announced, sent", [(0, 0), (1, 1), (3, 3), (MAX_FRAME + 1, 0), (0xffffffff, 100),
                                             (0x7fffffff, 70000)])
def test_tcp_lengths_that_lie(daemon, announced, sent):
    """Too short for a frame or too long: the end, at once, without memory being taken for it."""
    with TcpClient(tcp_address(daemon)) as client:
        client.configure()
        client.send_raw(struct.pack(">I", announced) + bytes(sent))
        client.ended()


@pytest.mark.parametrize("header", [0, 1, 2, 3, 4, 5, 6, 7])
def test_header_lengths_that_lie(daemon, header):
    """A length inside the frame that goes past its end: no NOTIFY, and the end of the connection."""
    data = notify(b"n", b"t", b"body")
    at = 4
    for _ in range(header):
        at += 2 + struct.unpack_from(">H", data, at)[0]
    lie = data[:at] + b"\xff\xff" + data[at + 2:]
    with TcpClient(tcp_address(daemon)) as client:
        client.configure()
        client.send(lie)
        assert client.ended() is None
    with WebsocketClient(daemon.address) as client:
        client.configure()
        client.send(lie)
        assert client.ended() == 1002


@pytest.mark.parametrize("transport", ["websocket", "tcp"])
def test_noise(daemon, transport):
    """Random bytes instead of frames: no crash, and others are served."""
    dice = random.Random(transport)
    for _ in range(100):
        client = WebsocketClient(daemon.address) if transport == "websocket" else TcpClient(tcp_address(daemon))
        with client:
            client.configure()
            data = dice.randbytes(dice.randrange(1, 2000))
            if dice.random() < 0.5 and transport == "websocket":
                data = ws(BINARY, data)
            if transport == "tcp" and dice.random() < 0.5:
                data = struct.pack(">I", len(data)) + data
            client.send_raw(data) if transport == "tcp" else client.socket.sendall(data)
    with WebsocketClient(daemon.address) as other:
        other.configure()
        assert other.notify(b"t", os.urandom(10)) == 0
