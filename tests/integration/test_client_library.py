"""The subscriber library against our broadcaster and the reference one, over every transport, alone and with the
Python clients at the other end."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys

import pytest

from client_library import MS, Client, Refused, message, zeros
from conftest import PATIENCE, ROOT, SANITIZED, Program, free_port, setup_folder, wait_until
from reference import next_message, notify, reading, reference_client, run
from reference_websocket import wait_for_rows, websocket_client

SCHEMES = ["none", "token", "hmac"]
TRANSPORTS = ["http", "ws", "tcp"]
LARGE = 24 * 1024 * 1024


class Peer:
    """A broadcaster, ours or the reference, as the library addresses it."""

    def __init__(self, folder, http, tcp=None):
        self.folder, self.http, self.tcp = folder, http, tcp

    def url(self, transport):
        return {"http": f"http://{self.http}", "ws": f"ws://{self.http}",
                "tcp": f"tcp://{self.tcp}"}[transport]


def tcp_address(program):
    return wait_until(lambda: [m.group(1) for m in (re.fullmatch(r"ready tcp (\S+)", line)
                                                    for line in list(program.out)) if m],
                      "the TCP listener")[0]


@pytest.fixture
def start_ours(start_broadcaster, tmp_path):
    def start(scheme="none", tcp="127.0.0.1:0", **settings):
        folder = tmp_path / "broadcaster"
        if not folder.exists():
            setup_folder(folder, to_broadcaster=scheme, to_subscriber=scheme)
        program = start_broadcaster(folder, tcp__listen=tcp, **settings)
        peer = Peer(folder, program.address, tcp_address(program))
        peer.program = program
        return peer

    return start


@pytest.fixture
def start_reference(tmp_path):
    started = []

    def start(scheme):
        folder = setup_folder(tmp_path / "reference", to_broadcaster=scheme, to_subscriber=scheme)
        subprocess.run([sys.executable, ROOT / "tests/bench/reference_server.py", "tables",
                        "subscriptions.db"], cwd=folder, check=True, timeout=PATIENCE)
        program = Program([sys.executable, ROOT / "tests/bench/reference_server.py", scheme],
                          cwd=folder)
        started.append(program)
        line = wait_until(lambda: [m.group(1) for m in (re.fullmatch(r"ready http (\S+)", line)
                                                        for line in list(program.out)) if m],
                          "the reference broadcaster")
        return Peer(folder, line[0].removeprefix("http://"))

    yield start
    for program in started:
        program.stop()


@pytest.fixture
def client():
    """client(peer, transport, **options): a running client of the library, closed after the test."""
    started = []

    def start(peer, transport, **options):
        options = {"bind": "127.0.0.1:0", "broadcaster": peer.url(transport),
                   "secrets": peer.folder / "subscriber-secrets.json", **options}
        popen = options.pop("popen", {})
        wrapper = options.pop("wrapper", ())
        started.append(Client(*(f"{name}={value}" for name, value in options.items()),
                              wrapper=wrapper, **popen))
        return started[-1]

    yield start
    for c in started:
        c.close()


def exchange(subscriber, publisher, globs=True):
    exact = subscriber.subscribe("exact", "t")
    both = [(exact, "t")]
    if globs:
        both.append((subscriber.subscribe("glob", "g/*"), "g/1"))
    for subscription, topic in both:
        for size in (0, 1, 5000):
            assert publisher.notify(topic, size) == 1
            assert subscriber.next(subscription) == zeros(topic, size)
    assert publisher.notify("t", LARGE) == 1
    assert subscriber.next(exact) == zeros("t", LARGE)
    assert publisher.notify("t", 7) == 1
    assert subscriber.next(exact) == zeros("t", 7)
    assert publisher.notify("nobody", 7) == 0


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("publishes", TRANSPORTS)
@pytest.mark.parametrize("subscribes", TRANSPORTS)
def test_with_our_broadcaster(start_ours, client, scheme, publishes, subscribes):
    ours = start_ours(scheme)
    subscriber = client(ours, subscribes)
    exchange(subscriber, client(ours, publishes, bind="none"))
    assert subscriber.do("status") == "connected"
    assert subscriber.numbers("gaps", 0) == [1]


@pytest.mark.parametrize("scheme", ["none", "hmac"])
@pytest.mark.parametrize("publishes", ["http", "ws"])
@pytest.mark.parametrize("subscribes", ["http", "ws"])
def test_with_the_reference_broadcaster(start_reference, client, scheme, publishes, subscribes):
    reference = start_reference(scheme)
    exchange(client(reference, subscribes), client(reference, publishes), globs=False)


PYTHON = {"ws": websocket_client, "http": reference_client}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ours_by", TRANSPORTS)
@pytest.mark.parametrize("theirs_by", ["http", "ws"])
def test_with_the_python_clients(start_ours, client, scheme, ours_by, theirs_by):
    ours = start_ours(scheme)
    mine = client(ours, ours_by)
    large = os.urandom(LARGE)

    async def scenario():
        async with PYTHON[theirs_by](ours.program) as theirs:
            subscription = mine.subscribe("exact", "to-mine")
            for data in (b"", b"x", b"y" * 5000):
                assert await notify(theirs, b"to-mine", data) == 1
                assert mine.next(subscription) == message("to-mine", data)
            assert await notify(theirs, b"to-mine", file=io.BytesIO(large)) == 1
            assert mine.next(subscription) == message("to-mine", large)
            async with theirs.subscribe(exact=[b"to-theirs"], glob=[]) as subscription, \
                    reading(subscription) as messages:
                await wait_for_rows(ours.program, 2)
                for size in (0, 1, 5000, LARGE):
                    mine.ask("notify", "bytes", "to-theirs", size, MS)
                    assert await next_message(messages) == (b"to-theirs", bytes(size))
                    assert mine.answer() == "1"

    run(scenario())


@pytest.mark.parametrize("how", ["poll", "epoll"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_loop_of_the_callers_own(start_ours, client, transport, how):
    ours = start_ours("hmac")
    mine = client(ours, transport, io="caller")
    subscription = mine.subscribe("exact", "t")
    for size in (0, 5000, LARGE):
        publisher = client(ours, transport, bind="none")
        if transport == "http":  # the loop must run to confirm
            publisher.ask("notify", "bytes", "t", size, MS)
        else:
            assert publisher.notify("t", size) == 1
        topic, length = mine.do("poll", how, subscription, MS).split()[1:3]
        assert (topic, int(length)) == ("t", size)
        if transport == "http":
            with pytest.raises(Refused, match="TIMED_OUT"):
                mine.do("poll", how, subscription, 300)
            assert publisher.answer() == "1"


@pytest.mark.parametrize("transport", ["ws", "tcp"])
def test_presets(start_ours, client, tmp_path, transport):
    """Presets and plain zstd, both ways."""
    dictionary = tmp_path / "d"
    dictionary.write_bytes(os.urandom(4000))
    ours = start_ours("hmac", compression__dictionary=f"7 5 {dictionary}")
    options = {"dictionary": f"7 5 {dictionary}", "initial_compression_dict_id": 7}
    exchange(client(ours, transport, **options), client(ours, transport, **options))


def test_compression_with_the_reference_broadcaster(start_reference, client):
    reference = start_reference("hmac")
    plain = client(reference, "ws", allow_compression="no")
    exchange(plain, client(reference, "ws"), globs=False)


@pytest.mark.parametrize("transport", ["ws", "tcp"])
def test_broadcaster_killed_and_restarted(start_ours, client, transport):
    """While subscribed, and while notifying: what was confirmed was delivered, status and gaps tell."""
    port, tcp = free_port(), free_port()
    ours = start_ours("hmac", listen=f"127.0.0.1:{port}", tcp=f"127.0.0.1:{tcp}")
    options = {"outgoing_min_reconnect_interval": "0", "outgoing_reconnect_retries": "none"}
    subscriber = client(ours, transport, **options)
    publisher = client(ours, transport, **options)
    subscription = subscriber.subscribe("exact", "t")
    assert publisher.notify("t", 3) == 1
    assert subscriber.next(subscription)[1] == 3
    for _ in range(300):
        assert publisher.do("start", "t", 10) == ""
    ours.program.kill()
    for _ in range(200):
        publisher.do("start", "t", 20)
    wait_until(lambda: subscriber.do("status") == "lost", "that the loss is noticed")
    start_ours("hmac", listen=f"127.0.0.1:{port}", tcp=f"127.0.0.1:{tcp}")
    wait_until(lambda: publisher.numbers("ended")[2] == 0, "the end of all notifies")
    good, failed, _ = publisher.numbers("ended")
    assert (good, failed) == (500, 0)
    subscriber.do("wait", MS)
    assert publisher.notify("t", 30) == 1  # the row of the dead process may count for some time
    sizes = []
    while not sizes or sizes[-1] != 30:
        sizes.append(subscriber.next(subscription)[1])
    assert subscriber.numbers("gaps", 0)[0] >= 2
    lost, established, dead = subscriber.numbers("events")
    assert lost >= 1 and established >= 2 and dead == 0


def test_broadcaster_restarted_over_http(start_ours, client):
    """Subscriptions outlive it; a notify meanwhile fails as documented."""
    port = free_port()
    ours = start_ours("hmac", listen=f"127.0.0.1:{port}")
    mine = client(ours, "http")
    subscription = mine.subscribe("exact", "t")
    ours.program.kill()
    with pytest.raises(Refused, match="UNREACHABLE"):
        mine.notify("t", 1)
    start_ours("hmac", listen=f"127.0.0.1:{port}")
    assert mine.notify("t", 4) == 1
    assert mine.next(subscription)[1] == 4


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_wrong_secret(start_ours, client, tmp_path, transport):
    ours = start_ours("hmac")
    other = setup_folder(tmp_path / "other", to_broadcaster="hmac", to_subscriber="hmac")
    mine = client(ours, transport, secrets=other / "subscriber-secrets.json",
                  outgoing_initial_connect_retries=0)
    if transport == "http":
        with pytest.raises(Refused, match="FORBIDDEN"):
            mine.notify("t", 1)
        with pytest.raises(Refused, match="FORBIDDEN"):
            mine.subscribe("exact", "t")
        return
    with pytest.raises(Refused, match="FORBIDDEN"):
        mine.do("wait", MS)
    with pytest.raises(Refused, match="ABANDONED"):
        mine.notify("t", 1)
    assert mine.do("status") == "dead"
    assert "secret" in mine.do("last")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_unreachable(client, tmp_path, transport):
    peer = Peer(tmp_path, *[f"127.0.0.1:{free_port()}"] * 2)
    mine = client(peer, transport, secrets="none", outgoing_initial_connect_retries=0,
                  outgoing_retries_per_broadcaster=1)
    if transport == "http":
        with pytest.raises(Refused, match="UNREACHABLE"):
            mine.subscribe("exact", "t")
    else:
        with pytest.raises(Refused, match="UNREACHABLE"):
            mine.do("wait", MS)
        with pytest.raises(Refused, match="ABANDONED"):
            mine.subscribe("exact", "t")


@pytest.mark.parametrize("transport", ["ws", "tcp"])
def test_silent_host(client, tmp_path, transport):
    """One that takes connections and says nothing: given up in time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "127.0.0.1:%d" % listener.getsockname()[1]
        mine = client(Peer(tmp_path, address, address), transport, secrets="none",
                      outgoing_initial_connect_retries=0, websocket_open_timeout="300ms")
        with pytest.raises(Refused, match="UNREACHABLE"):
            mine.do("wait", MS)
        assert "in time" in mine.do("last")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_full_spool_disk(start_ours, client, small_disk, transport):
    """The message is lost, and says so; the next one comes."""
    wrapper, folder = small_disk
    ours = start_ours("none")
    mine = client(ours, transport, wrapper=wrapper("256k"), spool_dir=folder,
                  message_body_spool_size="64K", max_websocket_message_size="64K")
    subscription = mine.subscribe("exact", "t")
    publisher = client(ours, "tcp")
    publisher.notify("t", 8 << 20)
    with pytest.raises(Refused, match="SPOOL"):
        mine.next(subscription)
    assert publisher.notify("t", 5) == 1
    assert mine.next(subscription)[1] == 5


@pytest.mark.parametrize("transport", ["ws", "tcp"])
def test_slow_consumer(start_ours, client, transport):
    """A full queue holds messages back at the broadcaster, and nothing else: subscriptions are confirmed,
    notifies answered; all messages come in the end."""
    ours = start_ours("hmac", websocket__websocket_send_max_unacknowledged=8)
    mine = client(ours, transport, max_received=4)
    publisher = client(ours, transport)
    subscription = mine.subscribe("exact", "t")
    for size in range(100):
        assert publisher.notify("t", size) == 1
    assert mine.notify("t", 100) == 1
    assert mine.do("add", subscription, "exact", "u", MS) == ""
    assert publisher.notify("u", 101) == 1
    assert [mine.next(subscription)[1] for _ in range(102)] == list(range(102))
    assert mine.do("status") == "connected"


def test_refused_by_closing(start_ours, client):
    """A message that the broadcaster does not take ends alone; the client lives on."""
    ours = start_ours("none", limits__max_message_bytes=100000)
    mine = client(ours, "ws", outgoing_min_reconnect_interval="0")
    subscription = mine.subscribe("exact", "t")
    with pytest.raises(Refused, match="AMBIGUOUS"):
        mine.notify("t", 200000)
    assert mine.notify("t", 6) == 1
    assert mine.next(subscription)[1] == 6


def five_gigabytes(start_ours, client, tmp_path, transport):
    size = 5 << 30
    assert shutil.disk_usage(tmp_path).free > 16 << 30, "this test spools 5 GiB twice"
    sparse = tmp_path / "sparse"
    with open(sparse, "wb") as file:
        file.truncate(size)
    ours = start_ours("none")
    mine = client(ours, transport, spool_dir=tmp_path)
    subscription = mine.subscribe("exact", "t")
    publisher = client(ours, transport)
    patience = 3600  # hashed four times, written twice: minutes where others want the processors, too
    publisher.ask("notify", "file", "t", sparse, patience * 1000)
    topic, length, sha512 = mine.next(subscription, patience * 1000, patience=patience)
    assert (topic, length) == ("t", size)
    assert publisher.answer(patience) == "1"
    resident = [c.numbers("rss")[0] for c in (mine, publisher)]
    print("resident at most, KiB:", resident)
    assert max(resident) < 64 << 10


if not SANITIZED:  # it measures memory, and takes long
    @pytest.mark.parametrize("transport", ["tcp"])
    def test_five_gigabytes(start_ours, client, tmp_path, transport):
        five_gigabytes(start_ours, client, tmp_path, transport)
