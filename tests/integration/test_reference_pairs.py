"""The unmodified clients of lonelypsc in every pairing, HTTP and websocket: what test_reference_client.py and
test_reference_websocket.py leave out. Very long messages, many topics, many messages, restarts.
"""

import asyncio
import hashlib
import itertools
import os
import re
from pathlib import Path

import pytest

from conftest import PATIENCE, SANITIZED, setup_folder
from reference import next_message, notify, reading, reference_client, run
from reference_websocket import wait_for_rows, websocket_client

CLIENTS = {"ws": websocket_client, "http": reference_client}
PAIRINGS = list(itertools.product(CLIENTS, CLIENTS))
SCHEMES = ["none", "token", "hmac"]
LONG_BYTES = (32 if SANITIZED else 300) << 20
PEAK_BYTES = 64 << 20  # of the daemon, however long the messages are

pairings = pytest.mark.parametrize("publisher_kind, subscriber_kind", PAIRINGS)


@pytest.fixture
def start(start_broadcaster, tmp_path):
    def begin(scheme, **settings):
        return start_broadcaster(setup_folder(tmp_path / "broadcaster", to_broadcaster=scheme,
                                              to_subscriber=scheme), **settings)

    return begin


def peak_bytes(program):
    status = Path(f"/proc/{program.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def make_file(path, size):
    """Of that size, and its SHA-512."""
    piece, sha512 = os.urandom(1 << 20), hashlib.sha512()
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(piece)
            sha512.update(piece)
    return sha512.digest()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_sizes_from_http_to_http(start, tmp_path, scheme):
    broadcaster = start(scheme)
    sha512 = make_file(tmp_path / "large", 24 << 20)

    async def scenario():
        async with reference_client(broadcaster) as subscriber, \
                reference_client(broadcaster, receives=False) as publisher:
            async with subscriber.subscribe(exact=[b"t"], glob=["g/*"]) as subscription, \
                    reading(subscription) as messages:
                for topic, data in itertools.product((b"t", b"g/1"), (b"", b"x", b"y" * 5000)):
                    assert await notify(publisher, topic, data) == 1
                    assert await next_message(messages) == (topic, data)
                with (tmp_path / "large").open("rb") as file:
                    assert await notify(publisher, b"t", file=file) == 1
                topic, data = await next_message(messages)
                assert (topic, hashlib.sha512(data).digest()) == (b"t", sha512)

    run(scenario())


@pairings
def test_very_long(start, tmp_path, publisher_kind, subscriber_kind):
    """Arrives whole, and the daemon stays small. All but the test's own end may take its time: hashing and
    copying keep both clients, one thread, busy for many seconds."""
    broadcaster = start("none", webhook__outgoing_http_timeout_total="none",
                        webhook__outgoing_http_timeout_sock_read="none")
    sha512 = make_file(tmp_path / "large", LONG_BYTES)
    patient = {"ws": {}, "http": {"timeout_total": 8 * PATIENCE}}

    async def scenario():
        async with CLIENTS[subscriber_kind](broadcaster, **patient[subscriber_kind]) as subscriber, \
                CLIENTS[publisher_kind](broadcaster, **patient[publisher_kind]) as publisher:
            async with subscriber.subscribe_exact(b"large") as subscription, \
                    reading(subscription) as messages:
                await wait_for_rows(broadcaster, 1)
                with (tmp_path / "large").open("rb") as file:
                    assert await notify(publisher, b"large", file=file) == 1
                topic, data = await asyncio.wait_for(messages.get(), 4 * PATIENCE)
                assert (topic, hashlib.sha512(data).digest()) == (b"large", sha512)

    run(scenario(), 8 * PATIENCE)
    assert SANITIZED or peak_bytes(broadcaster) < PEAK_BYTES


@pairings
def test_many_topics_and_messages(start, publisher_kind, subscriber_kind):
    """Each reaches who wants it, once, in the order of those notifies that followed each other."""
    broadcaster = start("hmac")
    topics = [b"topic/%d" % i for i in range(200)]
    globs = [f"glob/{i}/*" for i in range(50)]
    said = [(topic, b"%d" % i) for i in range(2) for topic in topics]
    said += [(f"glob/{i}/x".encode(), b"") for i in range(50)]

    async def scenario():
        async with CLIENTS[subscriber_kind](broadcaster) as subscriber, \
                CLIENTS[publisher_kind](broadcaster) as publisher:
            async with subscriber.subscribe(exact=topics, glob=globs) as subscription, \
                    reading(subscription) as messages:
                await wait_for_rows(broadcaster, len(topics), len(globs))
                for topic, data in said:
                    assert await notify(publisher, topic, data) == 1
                assert await notify(publisher, b"topic/200", b"") == 0
                for expected in said:
                    assert await next_message(messages) == expected
                assert messages.empty()
        await wait_for_rows(broadcaster)

    run(scenario())


@pairings
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_restarts(start, start_broadcaster, publisher_kind, subscriber_kind, end):
    """The clients come back by themselves, and messages arrive as before. A client over HTTP that only notifies is
    a new one each time: the reference repeats a request on a broken connection without its message. (And after
    a kill what was signed in the second of the new start is refused, so not hmac then.)"""
    broadcaster = start("token" if (publisher_kind, end) == ("http", "kill") else "hmac")

    async def tell(publisher, messages, data):
        """Until the subscriber is back; then it has the message."""
        while await notify(publisher, b"t", data) != 1:
            await asyncio.sleep(0.05)
        assert await next_message(messages) == (b"t", data)

    async def scenario(current):
        async with CLIENTS[subscriber_kind](current) as subscriber, websocket_client(current) as stays:
            async with subscriber.subscribe_exact(b"t") as subscription, reading(subscription) as messages:
                await wait_for_rows(current, 1)
                for number in range(2):
                    if number:
                        await asyncio.to_thread(getattr(current, end))
                        current = await asyncio.to_thread(start_broadcaster, current.folder,
                                                          listen=current.address)
                    if publisher_kind == "ws":
                        await tell(stays, messages, b"%d" % number)
                        continue
                    async with reference_client(current, receives=False) as publisher:
                        await tell(publisher, messages, b"%d" % number)

    run(scenario(broadcaster))
