"""The unmodified client of lonelypsc against our broadcaster, over HTTP."""

import asyncio
import contextlib
import hashlib
import itertools
import os
import sqlite3

import pytest

from conftest import setup_folder
from reference import next_message, notify, reading, reference_client, run


SCHEMES = ["none", "token", "hmac"]
PAIRS = list(itertools.product(SCHEMES, SCHEMES))


@pytest.fixture
def start(start_broadcaster, tmp_path):
    """start((to_broadcaster, to_subscriber)): a broadcaster with such an authorization."""

    def begin(pair):
        return start_broadcaster(setup_folder(tmp_path / "broadcaster", to_broadcaster=pair[0],
                                              to_subscriber=pair[1]))

    return begin


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_exact_and_glob(start, pair):
    broadcaster = start(pair)

    async def scenario():
        async with reference_client(broadcaster) as subscriber, \
                reference_client(broadcaster, receives=False) as publisher:
            async with subscriber.subscribe(exact=[b"foo/bar"], glob=["glob/*"]) as subscription, \
                    reading(subscription) as messages:
                for topic in (b"foo/bar", b"glob/a", b"glob/"):
                    assert await notify(publisher, topic, topic * 3) == 1
                    assert await next_message(messages) == (topic, topic * 3)
                for topic in (b"foo/baz", b"glob"):
                    assert await notify(publisher, topic, b"x") == 0
            for topic in (b"foo/bar", b"glob/a"):
                assert await notify(publisher, topic, b"x") == 0

    run(scenario())
    assert broadcaster.query("SELECT count(*) FROM httppubsub_subscription_exacts") == [(0,)]


def test_topics_are_bytes(broadcaster):
    topic = bytes(range(256))

    async def scenario():
        async with reference_client(broadcaster) as subscriber:
            async with subscriber.subscribe_exact(topic) as subscription, \
                    reading(subscription) as messages:
                assert await notify(subscriber, topic, b"") == 1
                assert await next_message(messages) == (topic, b"")

    run(scenario())


def test_several_at_once(broadcaster):
    """Many topics and globs in one client: the reference sends the whole list with SET."""
    topics = [b"topic/%d" % i for i in range(50)]
    globs = [f"glob/{i}/*" for i in range(20)]

    async def scenario():
        async with reference_client(broadcaster) as subscriber, \
                reference_client(broadcaster) as other:
            async with subscriber.subscribe(exact=topics, glob=globs) as subscription, \
                    other.subscribe(glob=["*"]) as everything, \
                    reading(subscription) as messages, reading(everything) as copies:
                for topic in (topics[7], b"glob/19/x"):
                    assert await notify(other, topic, b"data") == 2
                    assert await next_message(messages) == (topic, b"data")
                    assert await next_message(copies) == (topic, b"data")
                assert await notify(other, b"glob/20/x", b"data") == 1
                assert await next_message(copies) == (b"glob/20/x", b"data")
                assert messages.empty()

    run(scenario())


@pytest.mark.parametrize("pair", [("none", "none"), ("hmac", "hmac")], ids="-".join)
def test_large_file(start, pair, tmp_path):
    """24 MiB: beyond the spool sizes of both ends."""
    broadcaster = start(pair)
    size = 24 * 1024 * 1024
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * (size >> 20))
    expected = hashlib.sha512(path.read_bytes()).digest()

    async def scenario():
        async with reference_client(broadcaster) as subscriber, \
                reference_client(broadcaster, receives=False) as publisher:
            async with subscriber.subscribe_exact(b"large") as subscription, \
                    reading(subscription) as messages:
                with path.open("rb") as file:
                    assert await notify(publisher, b"large", file=file) == 1
                topic, data = await next_message(messages)
                assert (topic, len(data)) == (b"large", size)
                assert hashlib.sha512(data).digest() == expected

    run(scenario())
    assert list((broadcaster.folder / "spool").iterdir()) == []


def test_survives_a_kill(start_broadcaster):
    """Subscriptions are durable: SIGKILL, start again on the same file and port, deliver.

    The publisher is a new client: the old one's kept connection is broken, and after that error the
    reference repeats its request without the message, whose stream it has read up.
    """
    first = start_broadcaster()

    async def scenario():
        async with reference_client(first) as subscriber:
            async with subscriber.subscribe(exact=[b"kept"], glob=["kept/*"]) as subscription, \
                    reading(subscription) as messages:
                first.kill()
                start_broadcaster(first.folder, listen=first.address)
                async with reference_client(first, receives=False) as publisher:
                    for topic in (b"kept", b"kept/too"):
                        assert await notify(publisher, topic, b"again") == 1
                        assert await next_message(messages) == (topic, b"again")

    run(scenario())


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_reconciliation(start, pair):
    """The client repairs, by CHECK and SET, what somebody deleted behind its back."""
    broadcaster = start(pair)

    async def scenario():
        async with reference_client(broadcaster, resubscribe_interval=1) as subscriber:
            async with subscriber.subscribe_exact(b"repaired") as subscription, \
                    reading(subscription) as messages:
                broadcaster.query("DELETE FROM httppubsub_subscription_exacts")
                assert await notify(subscriber, b"repaired", b"x") == 0
                while await notify(subscriber, b"repaired", b"x") == 0:
                    await asyncio.sleep(0.02)
                assert await next_message(messages) == (b"repaired", b"x")

    run(scenario())


def test_tracing_is_read(broadcaster, tmp_path):
    """The reference's own parser takes the tracing of RESPONSE_NOTIFY apart and stores its entries."""
    file = tmp_path / "tracing.db"

    async def scenario():
        async with reference_client(broadcaster, receives=False, tracing_file=file) as publisher:
            assert await notify(publisher, b"nobody", b"hello") == 0

    run(scenario())
    with contextlib.closing(sqlite3.connect(file)) as db:
        remote = db.execute("SELECT name, extra FROM stateless_notify_timings"
                            " WHERE name GLOB 'remote_*' ORDER BY ord").fetchall()
    assert remote == [("remote_auth_accepted", "{}"), ("remote_no_more_subscribers", "{}")]
