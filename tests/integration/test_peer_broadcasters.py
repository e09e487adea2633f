"""Our broadcaster and the reference one as peers on one SQLite file: each posts to the other what the other's
websocket clients want."""

import asyncio
import json
import re
import sys

import aiohttp
import pytest

import bodies
from conftest import PATIENCE, ROOT, Program, wait_until
from stateful_client import Frame, WebsocketClient, confirm_receive
from wire import notify, post, request, subscribe

RECEIVE, MISSED = "/v1/receive_for_websockets", "/v1/missed_for_websockets"
TABLE = "httppubsub_subscription_exacts"


class Reference(Program):
    """The reference broadcaster, in the folder of ours, on whatever port."""

    def __init__(self, folder):
        server = ROOT / "tests/bench/reference_server.py"
        super().__init__([sys.executable, server, "none"], cwd=folder)
        ready = wait_until(
            lambda: [m for m in (re.fullmatch(r"ready http (\S+)", line) for line in list(self.out))
                     if m], "the reference broadcaster")
        self.url = ready[0].group(1)
        self.url = self.url if self.url.startswith("http") else f"http://{self.url}"
        self.port = int(self.url.rsplit(":", 1)[1])


@pytest.fixture
def ours(start_broadcaster):
    return start_broadcaster(missed__sweep_missed_interval="1h")


@pytest.fixture
def reference(ours):
    server = Reference(ours.folder)
    yield server
    server.stop()


def recorded_frames():
    """CONFIGURE and SUBSCRIBE_EXACT of a recorded session, and the topic of the latter."""
    with (ROOT / "tests/vectors/sessions/none_basic_minimal.json").open() as file:
        frames = [f for f in json.load(file) if f["from"] == "subscriber"]
    by_note = {f["note"].split()[0]: bytes.fromhex(f["hex"]) for f in reversed(frames)}
    return by_note["CONFIGURE"], by_note["SUBSCRIBE_EXACT"]


def recorded_crossing():
    """One message from a notifier at broadcaster 1 to a subscriber there and one at broadcaster 2: bytes by
    channel, in order, and the headers of the posts."""
    with (ROOT / "tests/vectors/sessions/none_two_broadcasters.json").open() as file:
        frames = json.load(file)
    channels = {}
    for frame in frames:
        channels.setdefault(frame["channel"], []).append(bytes.fromhex(frame["hex"]))
    headers = json.loads(frames[[f["channel"] for f in frames].index(f"http POST {RECEIVE}")]
                         ["note"].split("headers ", 1)[1])
    return channels, headers


def without(identifier, frame):
    """What is left to compare: identifiers are random."""
    assert frame.count(identifier) == 1
    return frame.replace(identifier, b"")


def test_recorded_post_from_a_peer(ours):
    """What the reference posted to broadcaster 2 is answered, and received there, as it was."""
    channels, headers = recorded_crossing()
    (configure, _, subscribe_exact, confirmed, received, _) = \
        channels["ws: subscriber 2 at broadcaster 2"]
    with WebsocketClient(ours.address) as client:
        client.send(configure)
        client.receive_bytes()
        client.send(subscribe_exact)
        assert client.receive_bytes() == confirmed
        for sent, answered in zip(channels[f"http POST {RECEIVE}"], channels["http response"],
                                  strict=True):
            reply = post(ours, RECEIVE, sent, {**headers, "Host": ours.address})
            assert (reply.status, reply.body) == (200, answered)
            frame = client.receive_bytes()
            identifier = Frame(frame).headers[2]
            assert without(identifier, frame) == without(Frame(received).headers[2], received)
            client.send(confirm_receive(identifier))


def test_recorded_post_to_a_peer(ours, start_subscriber):
    """What broadcaster 1 posts to its peer, and then confirms, is what the reference did."""
    channels, headers = recorded_crossing()
    (notifier, _, recorded_notify, confirmed) = channels["ws: notifier at broadcaster 1"]
    (configure, _, subscribe_exact, _, received, _) = channels["ws: subscriber 1 at broadcaster 1"]
    peer = start_subscriber()
    subscribe(ours, "exact", peer.url(RECEIVE), b"news")
    with WebsocketClient(ours.address) as subscriber, WebsocketClient(ours.address) as client:
        for websocket, first in ((subscriber, configure), (client, notifier)):
            websocket.send(first)
            websocket.receive_bytes()
        subscriber.send(subscribe_exact)
        subscriber.receive_bytes()
        client.send(recorded_notify)
        assert client.receive_bytes() == confirmed
        frame = subscriber.receive_bytes()
    assert (without(Frame(frame).headers[2], frame) ==
            without(Frame(received).headers[2], received))
    (call,) = peer.seen()
    sent = channels[f"http POST {RECEIVE}"][0]
    assert call.receive._replace(identifier=b"") == bodies.parse_receive(sent)._replace(
        identifier=b"")
    for name in ("content-type", "repr-digest"):
        assert dict(call.headers)[name] == headers[name]


def test_our_receive_at_the_reference(ours, reference):
    """Its websocket client gets what is notified at ours, once, and is counted."""
    configure, subscribe_exact = recorded_frames()

    async def scenario():
        async with aiohttp.ClientSession() as session, \
                session.ws_connect(f"{reference.url}/v1/websocket") as websocket:
            await websocket.send_bytes(configure)
            await websocket.receive_bytes(timeout=PATIENCE)  # CONFIRM_CONFIGURE
            await websocket.send_bytes(subscribe_exact)
            rows = await asyncio.to_thread(
                wait_until, lambda: ours.query(f"SELECT url, exact FROM {TABLE}"), "its row")
            assert rows[0][0] == reference.url + RECEIVE
            topic = rows[0][1]
            assert await asyncio.to_thread(notify, ours, topic, b"across") == 1
            assert await asyncio.to_thread(notify, ours, topic + b"!", b"nobody") == 0
            frame = b""
            while b"across" not in frame:
                frame = await websocket.receive_bytes(timeout=PATIENCE)
            assert topic in frame

    asyncio.run(asyncio.wait_for(scenario(), 4 * PATIENCE))


def test_its_receive_at_ours(ours, reference):
    """A row of ours that no session wants: the reference posts there, and removes it as ours tells it to."""
    subscribe(ours, "exact", ours.url + RECEIVE, b"foo", ours.url + MISSED)
    assert notify(reference, b"foo") == 0
    assert ours.query(f"SELECT count(*) FROM {TABLE}") == [(0,)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_peer_is_posted_to_once(ours, start_subscriber, count):
    """However many rows of a peer match; and never to ourselves."""
    peer = start_subscriber()
    for key in [b"foo", b"f*", b"fo*"][:count]:
        subscribe(ours, "exact" if key == b"foo" else "glob", peer.url(RECEIVE), key)
    subscribe(ours, "exact", ours.url + RECEIVE, b"foo")
    assert notify(ours, b"foo") == 1
    assert len(peer.seen()) == 1


def test_rows_nobody_wants_go(start_broadcaster):
    """What a crash left behind is removed by the sweep; rows of others stay."""
    ours = start_broadcaster(missed__sweep_missed_interval="100ms")
    subscribe(ours, "exact", "http://192.0.2.0:3002/v1/receive", b"foo")
    subscribe(ours, "exact", ours.url + RECEIVE, b"foo")
    wait_until(lambda: ours.query(f"SELECT url FROM {TABLE}") ==
               [("http://192.0.2.0:3002/v1/receive",)], "the end of the row")


def test_rows_go_at_the_end(start_broadcaster):
    ours = start_broadcaster(missed__sweep_missed_interval="1h")
    subscribe(ours, "exact", "http://192.0.2.0:3002/v1/receive", b"foo")
    subscribe(ours, "exact", ours.url + RECEIVE, b"foo")
    assert notify(ours, b"bar") == 0  # so that it has read what somebody wrote in its name
    assert ours.stop() == 0
    assert ours.query(f"SELECT url FROM {TABLE}") == [("http://192.0.2.0:3002/v1/receive",)]


@pytest.mark.parametrize("settings, served", [
    ({}, True),
    ({"broadcaster__receiver_url": f"http://peer.example:1{RECEIVE}"}, False),
    ({"broadcaster__missed_url": "none"}, False),
])
def test_url_of_missed(start_broadcaster, settings, served):
    """Derived beside the receive URL; anything else sent there is refused."""
    ours = start_broadcaster(**settings)
    reply = post(ours, MISSED, b"\0\0\0\3foo", {"Host": ours.address})
    assert reply.status == (200 if served else 400)
    if served:
        assert reply.body == bytes.fromhex("000900000000")
    else:
        assert json.loads(reply.body) == {"unsubscribe": True, "reason": "invalid missed URL"}


def test_wildcard_address(start_broadcaster):
    """No name for peers can be derived: said at start, and the routes refuse."""
    ours = start_broadcaster(listen="0.0.0.0:0")
    wait_until(lambda: any("receiver_url_unknown" in line for line in list(ours.err)), "the warning")
    reply = request(ours, "POST", RECEIVE, b"", {"Host": ours.address})
    assert (reply.status, reply.body) == (400, b"\0\x0a")
    assert notify(ours, b"foo") == 0
