"""Deliveries to subscribers that are slow, dead or many: counts, bounds, timeouts. MISSED is in
test_missed.py. (doc/protocol/http.md, 3; doc/architecture.md)
"""

import contextlib
import os
import socket
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import bodies
import subscriber as scripted
from bodies import NOTIFY
from conftest import wait_until
from wire import Wire, message, notify, post, subscribe


@pytest.fixture
def pool():
    with ThreadPoolExecutor(32) as executor:
        yield executor


@pytest.fixture
def gate():
    """Opened at the end in any case: the pool waits for those behind it."""
    event = threading.Event()
    yield event
    event.set()


def cpu_seconds(broadcaster):
    """User and system time so far."""
    fields = Path(f"/proc/{broadcaster.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def turn(broadcaster):
    """The loop has come round once more, also its deliveries."""
    assert notify(broadcaster, b"\xffnobody") == 0


# ---- Many, of which some are no good ----


def test_a_hundred_of_all_sorts(start_broadcaster, start_subscriber, dead_url, pool, gate):
    """The good ones get the message while others keep the broadcaster waiting, and only they count."""
    broadcaster, server = start_broadcaster(), start_subscriber()
    waits = scripted.after(gate, scripted.closes)
    sorts = {
        "good": (scripted.good, 40), "late": (scripted.after(gate), 10), "waits": (waits, 10),
        "rubbish": (scripted.replies(b"rubbish"), 10), "close": (scripted.closes, 10),
        "dead": (None, 10), "redirect": (scripted.replies(b"", 302, ["Location: /"]), 10),
    }
    for name, (behaviour, count) in sorts.items():
        for i in range(count):
            url = (server.add(f"/{name}/{i}", behaviour) if behaviour else f"{dead_url}/{i}")
            subscribe(broadcaster, ("exact", "glob")[i % 2], url, "topic")
    running = pool.submit(notify, broadcaster, "topic", b"to everybody")
    wait_until(lambda: {c.target for c in server.seen()} >= {f"/good/{i}" for i in range(40)},
               "the good ones")
    server.wait_for(90)
    assert not running.done()
    gate.set()
    assert running.result() == 50
    assert {c.receive.message for c in server.seen()} == {b"to everybody"}


def full_backlog():
    """An address that answers no SYN: a listener whose queue is full. The sockets to keep, and a URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    sockets = [listener]
    for _ in range(4):
        s = socket.socket()
        s.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            s.connect(listener.getsockname())
        sockets.append(s)
    return sockets, f"http://127.0.0.1:{listener.getsockname()[1]}/r"


def test_timeouts(start_broadcaster, subscriber):
    """Silence, dripping without end, no answer to a SYN: each has its bound, and none counts."""
    broadcaster = start_broadcaster(webhook__outgoing_http_timeout_total="6s",  # also for the good one
                                    webhook__outgoing_http_timeout_sock_read="3s",
                                    webhook__outgoing_http_timeout_sock_connect="300ms")
    sockets, unreachable = full_backlog()
    subscribe(broadcaster, "exact", subscriber.add("/hangs", scripted.hangs), "t")
    subscribe(broadcaster, "exact", subscriber.add("/drips", scripted.drips_head), "t")
    subscribe(broadcaster, "exact", unreachable, "t")
    subscribe(broadcaster, "exact", subscriber.url("/good"), "t")
    assert notify(broadcaster, "t") == 1
    for s in sockets:
        s.close()
    assert {c.target for c in subscriber.wait_for(3)} == {"/hangs", "/drips", "/good"}
    broadcaster.stop()
    failures = [line for line in broadcaster.err if "delivery_failed" in line]
    assert len(failures) == 3


def test_slow_reader_of_a_long_body(start_broadcaster, start_subscriber, pool):
    """Its own timeout ends it; the others have long been served from the same body."""
    broadcaster = start_broadcaster(limits__message_body_spool_size=65536,
                                    webhook__outgoing_http_timeout_sock_read="5s")
    server = start_subscriber()
    content = os.urandom(20_000_000)  # more than sockets hold
    with socket.create_server(("127.0.0.1", 0)) as never_reads:
        url = f"http://127.0.0.1:{never_reads.getsockname()[1]}/r"
        subscribe(broadcaster, "exact", url, "t")
        subscribe(broadcaster, "exact", server.url(), "t")
        assert notify(broadcaster, "t", content) == 1
    assert server.seen()[0].receive.message == content


# ---- Bounds ----


def test_bound_per_url(start_broadcaster, start_subscriber, pool, gate):
    broadcaster, server = start_broadcaster(webhook__max_per_url=2), start_subscriber()
    busy = server.add("/busy", scripted.after(gate))
    for i in range(10):
        subscribe(broadcaster, "glob", busy, "t" + "*" * i)
    subscribe(broadcaster, "exact", server.url("/free"), "t")
    running = pool.submit(notify, broadcaster, "t")
    server.wait_for(1, "/free")
    server.wait_for(2, "/busy")
    turn(broadcaster)
    assert server.most_active["/busy"] == 2
    gate.set()
    assert running.result() == 11
    assert server.most_active["/busy"] == 2


def test_bound_per_origin(start_broadcaster, start_subscriber, pool, gate):
    """Also: an origin that is busy delays no other."""
    broadcaster = start_broadcaster(webhook__max_per_origin=3, webhook__max_per_url=3)
    busy, free = start_subscriber(scripted.after(gate)), start_subscriber()
    for i in range(10):
        subscribe(broadcaster, "exact", busy.url(f"/{i}"), "t")
        subscribe(broadcaster, "exact", free.url(f"/{i}"), "t")
    running = pool.submit(notify, broadcaster, "t")
    free.wait_for(10)
    busy.wait_for(3)
    turn(broadcaster)
    assert busy.most_active[None] == 3
    gate.set()
    assert running.result() == 20
    assert (busy.most_active[None], free.most_active[None] <= 3) == (3, True)


def test_bound_in_all(start_broadcaster, start_subscriber, pool, gate):
    broadcaster = start_broadcaster(webhook__max_in_flight=4, webhook__max_per_origin=4,
                                    webhook__max_per_url=4)
    servers = [start_subscriber(scripted.after(gate)) for _ in range(3)]
    for i in range(12):
        subscribe(broadcaster, "exact", servers[i % 3].url(f"/{i}"), "t")
    running = pool.submit(notify, broadcaster, "t")

    def active():
        return sum(s.active[None] for s in servers)

    wait_until(lambda: active() == 4, "four deliveries")
    turn(broadcaster)
    assert active() == 4
    gate.set()
    assert running.result() == 12


def test_bounds_hold_for_all_workers_together(start_broadcaster, start_subscriber, pool, gate):
    broadcaster = start_broadcaster(broadcaster__workers=2, webhook__max_per_url=4)
    server = start_subscriber(scripted.after(gate))
    subscribe(broadcaster, "exact", server.url(), "t")
    running = [pool.submit(notify, broadcaster, "t") for _ in range(24)]
    server.wait_for(2)
    gate.set()
    assert sum(r.result() for r in running) == 24
    assert server.most_active["/r"] <= 4


def test_full_outbox(start_broadcaster, start_subscriber, pool, gate):
    """Refused whole, before anything is sent; and later there is room again."""
    broadcaster = start_broadcaster(webhook__max_in_flight=2, webhook__max_per_origin=2,
                                    webhook__max_per_url=2, webhook__max_queued=5,
                                    limits__retry_after="7s")
    server = start_subscriber(scripted.after(gate))
    for i in range(8):
        subscribe(broadcaster, "exact", server.url(f"/{i}"), "eight")
        if i < 7:
            subscribe(broadcaster, "exact", server.url(f"/{i}"), "seven")
    subscribe(broadcaster, "exact", server.url("/one"), "one")

    def assert_refused(topic):
        reply = post(broadcaster, NOTIFY, bodies.notify(topic, b""))
        assert (reply.status, reply.body, reply.headers["retry-after"]) == (503, b"", "7")

    assert_refused("eight")
    assert server.seen() == []
    running = pool.submit(notify, broadcaster, "seven")
    server.wait_for(2)
    assert_refused("one")
    assert len(server.seen()) == 2
    gate.set()
    assert running.result() == 7
    assert notify(broadcaster, "one") == 1
    assert notify(broadcaster, "seven") == 7


def test_all_workers_share_the_queue(start_broadcaster, start_subscriber, gate):
    """What one has queued leaves less room to the other, so only the first of many gets through."""
    broadcaster = start_broadcaster(broadcaster__workers=2, webhook__max_in_flight=2,
                                    webhook__max_per_origin=2, webhook__max_per_url=2,
                                    webhook__max_queued=20)
    server = start_subscriber(scripted.after(gate))
    for i in range(15):
        subscribe(broadcaster, "exact", server.url(f"/{i}"), "t")
    with contextlib.ExitStack() as stack:
        first, *others = [stack.enter_context(Wire(broadcaster)) for _ in range(20)]
        first.send(message(NOTIFY, bodies.notify("t", b"")))
        server.wait_for(1)
        for wire in others:  # to either worker, as the kernel likes
            wire.send(message(NOTIFY, bodies.notify("t", b"")))
        assert {wire.reply().status for wire in others} == {503}
        gate.set()
        assert bodies.parse_notified(first.reply().body).count == 15
    assert notify(broadcaster, "t") == 15


# ---- Publishers that leave, and many at once ----


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_publisher_leaves(start_broadcaster, start_subscriber, gate, how):
    """What was accepted is delivered; nobody is left waiting."""
    broadcaster, server = start_broadcaster(webhook__max_per_url=1), start_subscriber()
    url = server.add("/r", scripted.after(gate))
    for i in range(5):
        subscribe(broadcaster, "glob", url, "t" + "*" * i)
    before = len(broadcaster.descriptors())
    with Wire(broadcaster) as wire:
        wire.send(message(NOTIFY, bodies.notify("t", b"last words")))
        server.wait_for(1)
        if how == "half-close":
            wire.socket.shutdown(socket.SHUT_WR)
        elif how == "reset":
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0] + [0] * 4))
    turn(broadcaster)
    gate.set()
    server.wait_for(5)
    assert {c.receive.message for c in server.seen()} == {b"last words"}
    assert notify(broadcaster, "t") == 5
    wait_until(lambda: len(broadcaster.descriptors()) <= before + 2, "the end of the connections")


def test_many_publishers_at_once(start_broadcaster, start_subscriber, pool):
    """Everybody gets everything, and right."""
    broadcaster, server = start_broadcaster(limits__message_body_spool_size=65536), start_subscriber()
    for i in range(4):
        subscribe(broadcaster, "glob", server.url(f"/{i}"), "t/*")
    contents = [os.urandom(1000 if i % 4 else 100000) for i in range(60)]
    counts = list(pool.map(lambda i: notify(broadcaster, f"t/{i}", contents[i]), range(60)))
    assert counts == [4] * 60
    seen = sorted((c.target, c.receive.topic, c.receive.message) for c in server.seen())
    assert seen == sorted((f"/{t}", b"t/%d" % i, contents[i]) for t in range(4) for i in range(60))


def test_subscriber_that_publishes(broadcaster, subscriber):
    """From within its handler: deliveries of one notify do not wait for another."""
    counts = []

    def publishes(call):
        counts.append(notify(broadcaster, "second"))
        call.confirm()

    subscribe(broadcaster, "exact", subscriber.add("/first", publishes), "first")
    subscribe(broadcaster, "exact", subscriber.url("/second"), "second")
    assert notify(broadcaster, "first") == 1
    assert counts == [1]


def test_subscriptions_that_change_while_notified(broadcaster, subscriber, pool):
    """Unsubscribing does not disturb a delivery under way."""
    def leaves(call):
        body = bodies.unsubscribe(subscriber.url("/r"), "t")
        assert post(broadcaster, bodies.UNSUBSCRIBE["exact"], body).status == 200
        call.reply(bodies.UNSUBSCRIBE_IMMEDIATE)

    subscribe(broadcaster, "exact", subscriber.add("/r", leaves), "t", subscriber.url("/m"))
    assert notify(broadcaster, "t") == 0
    assert notify(broadcaster, "t") == 0
    assert len(subscriber.seen()) == 1


def test_peers_beyond_counting(start_broadcaster):
    """Telling one peer broadcaster from another takes no longer the more there are: what is refused for
    want of room is refused at once, whoever asks."""
    broadcaster = start_broadcaster(webhook__max_queued=1000)
    path = bodies.RECEIVE_PATH_OF_BROADCASTERS
    with contextlib.closing(sqlite3.connect(broadcaster.database)) as db, db:
        db.executemany("INSERT INTO httppubsub_subscription_exacts (url, exact) VALUES (?, ?)",
                       [(f"http://192.0.2.1/{i}{path}", b"t") for i in range(100000)])
    assert notify(broadcaster, "warm up: the index reads the change log") == 0
    before = cpu_seconds(broadcaster)
    assert post(broadcaster, NOTIFY, bodies.notify("t", b"")).status == 503
    assert cpu_seconds(broadcaster) - before < 3
