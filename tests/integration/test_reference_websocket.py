"""The unmodified websocket client of lonelypsc against our broadcaster, alone and beside its HTTP client."""

import io
import os

import pytest

from conftest import setup_folder
from reference import next_message, notify, reading, reference_client, run
from reference_websocket import wait_for_rows, websocket_client

SCHEMES = ["none", "token", "hmac"]
CLIENTS = {"ws": websocket_client, "http": reference_client}
PAIRINGS = [("ws", "ws"), ("ws", "http"), ("http", "ws")]


@pytest.fixture
def start(start_broadcaster, tmp_path):
    def begin(scheme):
        return start_broadcaster(setup_folder(tmp_path / "broadcaster", to_broadcaster=scheme,
                                              to_subscriber=scheme))

    return begin


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("pairing", PAIRINGS, ids="-to-".join)
def test_messages_of_all_sizes(start, scheme, pairing):
    """From a publisher to a subscriber: nothing, a byte, and what goes in many parts each way."""
    broadcaster = start(scheme)
    large = os.urandom(24 * 1024 * 1024)

    async def scenario():
        async with CLIENTS[pairing[1]](broadcaster) as subscriber, \
                CLIENTS[pairing[0]](broadcaster) as publisher:
            async with subscriber.subscribe(exact=[b"t"], glob=["g/*"]) as subscription, \
                    reading(subscription) as messages:
                await wait_for_rows(broadcaster, 1, 1)
                for topic in (b"t", b"g/1"):
                    for data in (b"", b"x", b"y" * 5000):
                        assert await notify(publisher, topic, data) == 1
                        assert await next_message(messages) == (topic, data)
                assert await notify(publisher, b"t", file=io.BytesIO(large)) == 1
                assert await next_message(messages) == (b"t", large)
                assert await notify(publisher, b"t", b"after") == 1  # counters still agree
                assert await next_message(messages) == (b"t", b"after")

    run(scenario())


def test_unsubscribed_is_silent(start):
    broadcaster = start("hmac")

    async def scenario():
        async with websocket_client(broadcaster) as client:
            async with client.subscribe_exact(b"a") as kept, reading(kept) as messages:
                async with client.subscribe_exact(b"b"):
                    await wait_for_rows(broadcaster, 2)
                await wait_for_rows(broadcaster, 1)
                assert await notify(client, b"b", b"x") == 0
                assert await notify(client, b"a", b"x") == 1
                assert await next_message(messages) == (b"a", b"x")
        await wait_for_rows(broadcaster, 0)

    run(scenario())


def test_many_messages_at_once(start):
    broadcaster = start("hmac")

    async def scenario():
        async with websocket_client(broadcaster) as client:
            async with client.subscribe_exact(b"a") as subscription, \
                    reading(subscription) as messages:
                await wait_for_rows(broadcaster, 1)
                for i in range(300):
                    assert await notify(client, b"a", b"%d" % i) == 1
                for i in range(300):
                    assert await next_message(messages) == (b"a", b"%d" % i)

    run(scenario())
