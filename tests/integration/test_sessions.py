"""Sessions of the daemon over websockets and raw TCP, with a client of our own (stateful_client.py)."""

import hashlib
import http.client
import os
import signal
import ssl
import struct
import subprocess

import pytest

from conftest import PATIENCE, wait_until
from stateful_client import (CONFIRM_NOTIFY, CONTINUE_NOTIFY, NOTIFY_STREAM, RECEIVE_STREAM,
                             SUBSCRIBE_GLOB, TcpClient, WebsocketClient, confirm_receive, configure,
                             frame, notify, notify_parts, subscribe)

TRANSPORTS = ["websocket", "tcp"]


def tcp_address(broadcaster):
    found = [line.split()[2] for line in broadcaster.out if line.startswith("ready tcp ")]
    return found[0]


@pytest.fixture
def begin(start_broadcaster):
    """begin(**settings): a broadcaster with a TCP listener, and a way to connect to it."""

    def start(**settings):
        broadcaster = start_broadcaster(tcp__listen="127.0.0.1:0", **settings)
        wait_until(lambda: any(line.startswith("ready tcp ") for line in broadcaster.out),
                   "the TCP listener")

        def connect(transport, configured=True):
            client = (WebsocketClient(broadcaster.address) if transport == "websocket"
                      else TcpClient(tcp_address(broadcaster)))
            if configured:
                client.configure()
            return client

        return broadcaster, connect

    return start


def rows(broadcaster):
    return broadcaster.query("SELECT count(*) FROM httppubsub_subscription_exacts")[0][0]


@pytest.mark.parametrize("receiver", TRANSPORTS)
@pytest.mark.parametrize("sender", TRANSPORTS)
def test_from_one_to_the_other(begin, sender, receiver):
    broadcaster, connect = begin()
    with connect(sender) as publisher, connect(receiver) as subscriber:
        subscriber.subscribe(b"t")
        subscriber.subscribe(b"t*", SUBSCRIBE_GLOB)  # one copy all the same
        assert rows(broadcaster) == 1
        for body in (b"", b"x", os.urandom(5000), os.urandom(300000)):
            assert publisher.notify(b"t", body) == 1
            assert subscriber.message() == (b"t", body)
        assert publisher.notify(b"u", b"") == 0
    wait_until(lambda: rows(broadcaster) == 0, "the rows of the subscriber to go")


def test_a_long_message_in_parts(begin):
    """Longer than what stays in memory, both ways; parts come while others are acknowledged."""
    _, connect = begin(websocket__outgoing_max_ws_message_size=1048576)
    body = os.urandom(1 << 20) * 40
    with connect("tcp") as publisher, connect("websocket") as subscriber:
        subscriber.subscribe(b"t")
        parts = list(notify_parts(b"long", b"t", body, 1 << 20))
        for number, part in enumerate(parts):
            publisher.send(part)
            if number + 1 < len(parts):
                assert publisher.receive(CONTINUE_NOTIFY).number(1) == number
        assert publisher.receive(CONFIRM_NOTIFY).number(1) == 1
        assert subscriber.message() == (b"t", body)


def test_answers_come_in_order(begin):
    _, connect = begin()
    with connect("tcp") as client:
        client.subscribe(b"t")
        client.send_raw(b"".join(
            struct.pack(">I", len(data)) + data
            for data in [notify(b"%d" % i, b"t", b"x") for i in range(200)]))
        confirmed = 0
        while confirmed < 200:
            answer = client.receive()
            if answer.type == RECEIVE_STREAM:
                client.send(confirm_receive(answer.headers[2]))
            else:
                assert answer.headers[0] == b"%d" % confirmed
                confirmed += 1


def test_frames_cut_at_every_byte(begin):
    _, connect = begin()
    with connect("tcp", configured=False) as client:
        for data in (configure(), notify(b"n", b"t", b"body")):
            for byte in struct.pack(">I", len(data)) + data:
                client.send_raw(bytes([byte]))
            client.receive()


@pytest.mark.parametrize("frames, code", [
    ([b""], 1002),
    ([frame(99)], 1002),
    ([subscribe(2, b"t")], 1008),
    ([configure(), configure()], 1008),
    ([configure(), confirm_receive(b"abcd")], 1008),
    ([configure(), subscribe(2, b"t"), subscribe(2, b"t")], 1008),
    ([configure(), subscribe(4, b"t")], 1008),
    ([configure(), notify(b"n", b"t", b"x", bytes(64))], 1002),
    ([configure(), frame(NOTIFY_STREAM, b"", b"", b"s", b"\1", body=b"x")], 1008),
    ([configure(), notify(b"n", b"t", bytes(70000))], 1009),
], ids=range(10))
def test_violations(begin, frames, code):
    broadcaster, connect = begin(limits__max_message_bytes=65536)
    with connect("websocket", configured=False) as client:
        for data in frames:
            client.send(data)
        assert client.ended() == code
    with connect("websocket") as other:
        assert other.notify(b"t", b"") == 0
    wait_until(lambda: rows(broadcaster) == 0, "no row")


def test_text_and_long_frames(begin):
    _, connect = begin(websocket__max_frame="64K", tcp__max_frame="256K")
    with connect("websocket") as client:
        client.send_raw(1, b"text")
        assert client.ended() == 1003
    with connect("websocket") as client:
        client.send(bytes(65537))
        assert client.ended() == 1009
    for length in (0, 3, 262145, 0xffffffff):
        with connect("tcp") as client:
            client.send_raw(struct.pack(">I", length))
            client.ended()


def test_silence_is_not_configure(begin):
    _, connect = begin(websocket__configure_timeout="100ms")
    with connect("websocket", configured=False) as client:
        assert client.ended() == 1008


def test_pings(begin):
    _, connect = begin(websocket__ping_interval="50ms", websocket__ping_timeout="500ms")
    with connect("websocket") as client:
        client.answers_pings = False
        assert client.ended() == 1011


def test_metrics(begin):
    broadcaster, connect = begin(broadcaster__admin_listen="127.0.0.1:0")
    admin = next(line.split()[2] for line in broadcaster.out if line.startswith("ready admin "))

    def value(name):
        connection = http.client.HTTPConnection(admin)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " "))

    with connect("websocket") as client, connect("tcp"):
        client.subscribe(b"t")
        assert client.notify(b"u", b"") == 0
        assert value('lonelypss_sessions{transport="websocket"}') == 1
        assert value('lonelypss_sessions{transport="tcp"}') == 1
        frames = 'lonelypss_session_frames_total{transport="websocket",direction="%s"}'
        assert (value(frames % "in"), value(frames % "out")) == (3, 3)
        client.send(b"")
        assert client.ended() == 1002
    wait_until(lambda: value('lonelypss_sessions_ended_total{reason="malformed"}') == 1, "an end")
    wait_until(lambda: value('lonelypss_sessions{transport="tcp"}') == 0, "the other end")


def test_who_does_not_keep_up_is_dropped(begin):
    broadcaster, connect = begin(websocket__websocket_max_pending_sends=10,
                                 websocket__websocket_send_max_unacknowledged=3)
    with connect("websocket") as slow, connect("tcp") as quick, connect("tcp") as publisher:
        slow.subscribe(b"t")
        quick.subscribe(b"t")
        counts = []
        for i in range(20):
            counts.append(publisher.notify(b"t", b"%d" % i))
            assert quick.message() == (b"t", b"%d" % i)
        assert counts == [2] * 14 + [1] * 6
        assert slow.ended() == 1013
    wait_until(lambda: any("session_overflow" in line for line in broadcaster.err), "a log line")


def test_sessions_under_tls(start_broadcaster, tmp_path):
    """Both transports, and a message longer than a TLS record and a part."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert, "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
                   check=True, capture_output=True, timeout=PATIENCE)
    broadcaster = start_broadcaster(
        tls__certificate=cert, tls__key=key, broadcaster__tls_listen="127.0.0.1:0",
        tcp__tls_listen="127.0.0.1:0", tcp__outgoing_max_message_size="100000")
    wait_until(lambda: any(line.startswith("ready tcps ") for line in broadcaster.out), "tcps")
    ready = dict(line.split()[1:] for line in broadcaster.out)
    context = ssl.create_default_context(cafile=cert)
    body = os.urandom(500000)
    with WebsocketClient(ready["https"], context) as publisher, \
            TcpClient(ready["tcps"], context) as subscriber:
        publisher.configure()
        subscriber.configure()
        subscriber.subscribe(b"t")
        assert publisher.notify(b"t", body) == 1
        assert subscriber.message() == (b"t", body)


def test_what_is_no_websocket(broadcaster):
    def status(method, path, headers=()):
        connection = http.client.HTTPConnection(broadcaster.address)
        connection.request(method, path, headers=dict(headers))
        return connection.getresponse().status

    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    assert status("GET", "/v1/websocket") == 404
    assert status("GET", "/v1/websocket/", upgrade) == 404
    assert status("GET", "/v1/nothing", upgrade) == 404
    assert status("GET", "/v1/websocket", {**upgrade, "Sec-WebSocket-Version": "12"}) == 426
    assert status("GET", "/v1/websocket", {**upgrade, "Sec-WebSocket-Key": "short"}) == 400


def test_origins(start_broadcaster):
    broadcaster = start_broadcaster(websocket__allowed_origins="https://good.example")
    for headers, status in (((), 101), (["Origin: https://good.example"], 101),
                            (["Origin: https://bad.example"], 403)):
        with WebsocketClient(broadcaster.address, headers=headers) as client:
            assert client.status == status


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_stop_tells_sessions(begin, transport):
    broadcaster, connect = begin()
    with connect(transport) as client:
        client.subscribe(b"t")
        broadcaster.signal(signal.SIGTERM)
        assert client.ended() == (1012 if transport == "websocket" else None)
    assert broadcaster.wait() == 0
    assert rows(broadcaster) == 0


def test_half_open_and_broken_peers(begin):
    """Peers that vanish in the middle of anything leave nothing behind."""
    broadcaster, connect = begin()

    def held():
        """Sockets, and bodies in files."""
        return [link for link in broadcaster.descriptors() if "socket" in link or "spool" in link]

    before = len(held())
    body = bytes(3 << 20)
    for transport in TRANSPORTS:
        for cut in (0, 1, 7, 100, 100000, 2 << 20):
            data = notify(b"n", b"t", body)
            client = connect(transport)
            client.subscribe(b"t")
            if transport == "tcp":
                client.send_raw((struct.pack(">I", len(data)) + data)[:cut])
            else:
                client.send_raw(2, data[:cut], final=False)
            client.close()
    wait_until(lambda: rows(broadcaster) == 0, "no row")
    wait_until(lambda: len(held()) <= before, "no descriptor")


def test_a_flood_of_tiny_frames(begin):
    """Answers that nobody reads stop the reading, not the broadcaster."""
    _, connect = begin()
    with connect("tcp") as flooder, connect("tcp") as other:
        flooder.socket.settimeout(2)
        data = notify(b"n", b"t", b"")
        data = (struct.pack(">I", len(data)) + data) * 1000
        sent = 0
        try:
            while sent < 200 << 20:
                flooder.socket.sendall(data)
                sent += len(data)
        except TimeoutError:
            pass
        assert sent < 200 << 20
        assert other.notify(b"t", hashlib.sha512(b"").digest()) == 0


@pytest.mark.parametrize("transport, settings", [
    ("websocket", {"websocket__ping_interval": "200ms", "websocket__ping_timeout": "300ms"}),
    ("tcp", {"tcp__user_timeout": "1s"}),
])
def test_who_reads_nothing_is_gone(begin, transport, settings):
    """Also while its own frames are not read any more, so that no pong could come."""
    _, connect = begin(**settings)
    with connect(transport) as flooder:
        data = notify(b"n", b"t" * 100, b"")
        head = (struct.pack(">BBHI", 0x82, 0xfe, len(data), 0) if transport == "websocket"
                else struct.pack(">I", len(data)))
        flooder.socket.settimeout(PATIENCE)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                flooder.socket.sendall((head + data) * 1000)
