"""The broadcaster and the subscriber inside programs: the examples that embed and mount them."""

import asyncio
import hashlib
import os
import re
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from conftest import BUILD, PATIENCE, Broadcaster, Program, setup_folder, wait_until
from reference import next_message, notify, reading, reference_client, run
from reference_websocket import wait_for_rows, websocket_client

EXAMPLES = BUILD / "examples"
PREFIX = "/pubsub"


class Mounted(Program):
    """mount_broadcaster, as the fixtures of the reference clients see a broadcaster."""

    query = Broadcaster.query
    database = Broadcaster.database

    def __init__(self, folder):
        super().__init__([EXAMPLES / "mount_broadcaster", folder / "lonelypss.ini", PREFIX, "0"])
        self.folder = folder
        wait_until(lambda: self.out or self.process.poll() is not None, "the ready line")
        assert self.process.poll() is None, (self.wait(), self.err)
        self.url = re.fullmatch(rf"ready (http://127\.0\.0\.1:\d+{PREFIX})", self.out[0]).group(1)

    @property
    def port(self):
        return int(self.url.split(":")[2].split("/")[0])

    def descriptors(self):
        return sorted(os.listdir(f"/proc/{self.pid}/fd"))


@pytest.fixture(params=["none", "hmac"])
def mounted(request, tmp_path):
    folder = setup_folder(tmp_path / "broadcaster", to_broadcaster=request.param,
                          to_subscriber=request.param)
    program = Mounted(folder)
    yield program
    if program.process.poll() is None:
        assert program.stop() == 0, program.err[-40:]


def fetch(url, method="GET", data=None):
    request = urllib.request.Request(url, method=method, data=data)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read()


def test_the_own_page_and_errors(mounted):
    root = mounted.url.removesuffix(PREFIX)
    assert fetch(root + "/") == (200, b"The program's own page\n")
    assert fetch(mounted.url + "/v1/nothing") == (404, b'{"detail":"Not Found"}')
    assert fetch(mounted.url + "/v1/notify") == (405, b'{"detail":"Method Not Allowed"}')
    assert fetch(mounted.url + "/v1/notify", "POST", b"")[0] == 400
    assert fetch(mounted.url + "/v1/notify", "POST", b"\0" * 100000)[0] in (400, 401, 403)
    assert fetch(mounted.url + "/v1/websocket")[0] == 404


def bodies():
    big = os.urandom(24 << 20)
    return [b"", b"x", os.urandom(70000), big]


def test_http_to_http(mounted):
    async def go():
        async with reference_client(mounted) as client:
            async with client.subscribe_exact(b"a/b") as subscription:
                async with reading(subscription) as received:
                    for body in bodies():
                        assert await notify(client, b"a/b", body) == 1
                        assert await next_message(received) == (b"a/b", body)
        assert mounted.query("SELECT count(*) FROM httppubsub_subscription_exacts") == [(0,)]

    run(go())


def test_websocket_to_websocket(mounted):
    before = mounted.descriptors()

    async def go():
        async with websocket_client(mounted) as subscriber, websocket_client(mounted) as sender:
            async with subscriber.subscribe_exact(b"a/b") as subscription:
                async with reading(subscription) as received:
                    await wait_for_rows(mounted, exacts=1)
                    for body in bodies():
                        assert await notify(sender, b"a/b", body) == 1
                        assert await next_message(received) == (b"a/b", body)

    run(go())
    wait_until(lambda: len(mounted.descriptors()) <= len(before) + 2, "closed sockets")


def test_both_ways(mounted):
    async def go():
        async with websocket_client(mounted) as ws, reference_client(mounted) as http:
            async with ws.subscribe_glob("a/*") as of_ws, http.subscribe_exact(b"a/b") as of_http:
                async with reading(of_ws) as at_ws, reading(of_http) as at_http:
                    await wait_for_rows(mounted, exacts=1, globs=1)
                    for sender in (ws, http):
                        assert await notify(sender, b"a/b", b"both") == 2
                        assert await next_message(at_ws) == (b"a/b", b"both")
                        assert await next_message(at_http) == (b"a/b", b"both")

    run(go())


def test_a_peer_broadcaster_finds_the_prefix(tmp_path, start_broadcaster):
    """Its row has the URL below the prefix, and what is posted there reaches the websockets here."""
    folder = setup_folder(tmp_path / "broadcaster")
    mounted, peer = Mounted(folder), start_broadcaster(folder)

    async def go():
        async with websocket_client(mounted) as subscriber, reference_client(peer) as sender:
            async with subscriber.subscribe_exact(b"t") as subscription:
                async with reading(subscription) as received:
                    await wait_for_rows(mounted, exacts=1)
                    assert mounted.query("SELECT url FROM httppubsub_subscription_exacts") == [
                        (mounted.url + "/v1/receive_for_websockets",)]
                    assert await notify(sender, b"t", b"from the peer") == 1
                    assert await next_message(received) == (b"t", b"from the peer")

    run(go())
    assert mounted.stop() == 0, mounted.err[-40:]


def test_peers_that_leave(mounted):
    """In the middle of a head, of a body, before the answer, in the middle of a handshake."""
    before = len(mounted.descriptors())
    head = f"POST {PREFIX}/v1/notify HTTP/1.1\r\nHost: x\r\n".encode()
    upgrade = (f"GET {PREFIX}/v1/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
               "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
               "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n").encode()
    for request in (head, head + b"Content-Length: 100000\r\n\r\n" + b"\0" * 100,
                    head + b"Content-Length: 10\r\n\r\n" + b"\0" * 10,
                    head + b"Transfer-Encoding: chunked\r\n\r\nff\r\n", upgrade):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", mounted.port), PATIENCE) as peer:
                peer.sendall(request)
    wait_until(lambda: len(mounted.descriptors()) <= before + 1, "closed sockets")
    assert fetch(mounted.url + "/v1/nothing")[0] == 404


def test_ends_with_requests_under_way(mounted):
    with socket.create_connection(("127.0.0.1", mounted.port), PATIENCE) as peer:
        peer.sendall(f"POST {PREFIX}/v1/notify HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
                     "\r\n".encode())

        async def go():
            async with websocket_client(mounted) as client:
                async with client.subscribe_exact(b"t"):
                    await wait_for_rows(mounted, exacts=1)
                    mounted.signal(15)
                    await asyncio.to_thread(mounted.wait)

        run(go())
        assert mounted.process.returncode == 0, mounted.err[-40:]


def test_mounted_wrongly(tmp_path):
    folder = setup_folder(tmp_path / "broadcaster")
    for prefix, ini, said in (("x", "lonelypss.ini", "a prefix is empty, or an absolute path"),
                              (PREFIX, "absent.ini", "absent.ini: cannot be read")):
        result = subprocess.run([EXAMPLES / "mount_broadcaster", folder / ini, prefix, "0"],
                                capture_output=True, text=True, timeout=PATIENCE)
        assert result.returncode == 1
        assert said in result.stderr and result.stderr.count("\n") == 1


def test_embedded_with_a_listener():
    program = Program([EXAMPLES / "embed_broadcaster", "127.0.0.1:0"])
    wait_until(lambda: program.out, "the address")
    address = program.out[0].removeprefix("listening on ")
    post = subprocess.run([EXAMPLES / "post_notify", address, "t", "Hello"], capture_output=True,
                          text=True, timeout=PATIENCE)
    assert post.stdout == "notified 0\n"
    taken = subprocess.run([EXAMPLES / "embed_broadcaster", address], capture_output=True,
                           text=True, timeout=PATIENCE)
    assert taken.returncode == 1 and address in taken.stderr
    assert program.stop() == 0
    assert any(line.startswith("broadcaster: ") and " started " in line for line in program.err)


def test_mounted_subscriber(broadcaster):
    program = Program([EXAMPLES / "mount_subscriber", broadcaster.url, "0", "demo/*"])
    wait_until(lambda: program.out, "the subscription")
    url = program.out[0].removeprefix("subscribed ")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/hooks/v1/receive", url)
    assert broadcaster.query("SELECT url FROM httppubsub_subscription_globs") == [(url,)]
    assert fetch(url, "POST", b"nonsense")[0] == 400
    assert fetch(url.replace("receive", "nothing"), "POST", b"")[0] == 404

    async def go():
        async with reference_client(broadcaster, receives=False) as client:
            for body in (b"", b"Hello", b"x" * 3_000_000):
                assert await notify(client, b"demo/x", body) == 1

    run(go())
    wait_until(lambda: len(program.out) > 3, "the messages")
    assert program.out[1:3] == ["demo/x\t", "demo/x\tHello"]
    assert hashlib.sha512(program.out[3].encode()).digest() == hashlib.sha512(
        b"demo/x\t" + b"x" * 3_000_000).digest()
    assert program.stop() == 0, program.err
    assert broadcaster.query("SELECT count(*) FROM httppubsub_subscription_globs") == [(0,)]


def test_installed_files():
    """The shared libraries carry their version."""
    for path in ("src/broadcaster/liblonelypss.so.0", "src/client/liblonelypsc.so.0"):
        assert Path(BUILD / path).exists()
