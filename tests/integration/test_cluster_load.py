"""Three broadcasters under random clients while a broadcaster is killed and replaced, or the database is in
trouble: nothing acknowledged is lost or comes back, and no notify that is answered skips one who was
confirmed, or counts one who was not. (doc/protocol/http.md, 12; recorder.py)
"""

import http.client
import random
import threading
import time

import pytest

import bodies
from conftest import SANITIZED, wait_until
from peers import SessionPeer
from recorder import IN, MAYBE, OUT, Recorder
from stateful_client import Closed
from tcp_proxy import CUT, HOLE, PASS
from wire import post

KEYS = [b"key/%d" % i for i in range(6)]
STEP = 60 if SANITIZED else 150  # facts between one event and the next
PAUSE_S = 0.05  # of a client that nobody serves


class Actor(threading.Thread):
    """A client that does what its dice say until it is told to stop."""

    def __init__(self, world, number):
        super().__init__(daemon=True)
        self.world, self.number = world, number
        self.random = random.Random(f"{world.seed}/{number}")
        self.error = None

    def run(self):
        try:
            while not self.world.stop.is_set():
                self.step()
            self.finish()
        except BaseException as e:
            self.error = e
            raise

    def finish(self):
        pass

    def member(self):
        return self.random.choice(self.world.cluster.members)


class SessionActor(Actor):
    """Subscribes and unsubscribes on a session; opens another one when it has ended."""

    peer = None

    def open(self):
        member = self.member()
        transport = self.random.choice(["websocket", "tcp"])
        address = member.address if transport == "websocket" else self.world.cluster.tcp_address(member)
        name = f"session{self.number}-{self.random.random():.6f}"
        try:
            self.seen_alive = time.monotonic()
            self.peer = SessionPeer(address, name, transport)
        except (OSError, Closed):
            time.sleep(PAUSE_S)
            return
        self.facts = self.world.recorder.subscriber(name)

    def collect(self):
        while self.peer.received:
            self.facts.received[self.peer.received.pop(0)[1]] += 1

    def lose(self):
        self.peer.ended.wait(10)
        self.peer.close()
        self.collect()
        self.facts.died(self.seen_alive)
        self.peer = None

    def step(self):
        if self.peer is None:
            self.open()
            return
        self.collect()
        key = self.random.choice(KEYS)
        was_in, asked_at = self.facts.state(key) == IN, time.monotonic()
        self.facts.of(key).note(MAYBE)
        try:
            (self.peer.drop_exact if was_in else self.peer.exact)(key)
        except Closed:
            self.lose()
            return
        self.facts.of(key).note(OUT if was_in else IN)
        self.seen_alive = asked_at
        self.world.recorder.confirmed()
        self.world.stop.wait(self.random.random() * 0.05)

    def finish(self):
        """Stays, for the messages that are owed to it, while it can say that it lives."""
        if self.peer is None:
            return
        try:
            self.peer.notify(b"nobody", b"")
        except Closed:
            self.lose()


class HttpActor(Actor):
    """A webhook that subscribes and unsubscribes by any broadcaster."""

    def __init__(self, world, number, subscriber):
        super().__init__(world, number)
        self.facts = world.recorder.subscriber(f"webhook{number}")
        self.url = subscriber.add(f"/{number}", self.take)

    def take(self, call):
        self.facts.received[call.receive.message] += 1
        call.confirm()

    def step(self):
        key = self.random.choice(KEYS)
        history, was = self.facts.of(key), self.facts.state(key)
        wanted = {IN: OUT, OUT: IN, MAYBE: self.random.choice([IN, OUT])}[was]
        history.note(MAYBE)
        try:
            if wanted == IN:
                reply = post(self.member(), bodies.SUBSCRIBE["exact"], bodies.subscribe(self.url, key))
            else:
                reply = post(self.member(), bodies.UNSUBSCRIBE["exact"], bodies.unsubscribe(self.url, key))
        except (OSError, http.client.HTTPException):
            time.sleep(PAUSE_S)
            return
        if reply.status == 503:
            time.sleep(PAUSE_S)
            return
        # 409: it was so already, which only one who was left in doubt may be told.
        assert reply.status == 200 or (reply.status == 409 and was == MAYBE), (self.url, key, was, reply)
        history.note(wanted)
        self.world.recorder.confirmed()
        self.world.stop.wait(self.random.random() * 0.05)


class Notifier(Actor):
    """Notifies by any broadcaster, over HTTP or on a session that it keeps for a while."""

    peer, sent = None, 0

    def by_http(self, key, body):
        reply = post(self.member(), bodies.NOTIFY, bodies.notify(key, body))
        assert reply.status in (200, 503), reply
        return bodies.parse_notified(reply.body).count if reply.status == 200 else None

    def by_session(self, key, body):
        if self.peer is None:
            member = self.member()
            if self.random.random() < 0.5:
                self.peer = SessionPeer(member.address, f"notifier{self.number}")
            else:
                self.peer = SessionPeer(self.world.cluster.tcp_address(member), f"notifier{self.number}", "tcp")
        return self.peer.notify(key, body)

    def drop(self):
        if self.peer is not None:
            self.peer.close()
            self.peer = None

    def step(self):
        if self.random.random() < 0.05:
            self.drop()
        key, body = self.random.choice(KEYS), b"%d/%d" % (self.number, self.sent)
        self.sent += 1
        start, count = time.monotonic(), None
        try:
            count = self.random.choice([self.by_http, self.by_session])(key, body)
        except (OSError, http.client.HTTPException, Closed):
            self.drop()
        self.world.recorder.notified(key, body, start, count)
        if count is None:
            time.sleep(PAUSE_S)

    def finish(self):
        self.drop()


class World:
    """The actors, until the block ends; then the judgement."""

    def __init__(self, cluster, subscriber, seed):
        self.cluster, self.seed = cluster, seed
        self.everybody = list(cluster.members)  # also those that were killed
        self.recorder, self.stop = Recorder(), threading.Event()
        self.actors = [SessionActor(self, n) for n in range(5)]
        self.actors += [HttpActor(self, n, subscriber) for n in range(5, 8)]
        self.actors += [Notifier(self, n) for n in range(8, 11)]

    def __enter__(self):
        for actor in self.actors:
            actor.start()
        return self

    def progress(self, more=STEP):
        """Until as many more answers were given."""
        target = self.recorder.progress() + more
        wait_until(lambda: self.errors() or self.recorder.progress() >= target, "progress", 60)
        assert not self.errors()

    def errors(self):
        return [actor.error for actor in self.actors if actor.error]

    def collect(self):
        for actor in self.actors:
            if isinstance(actor, SessionActor) and actor.peer is not None:
                actor.collect()

    def all_reached(self):
        self.collect()
        return all(s.received[body] for s, body in self.recorder.owed())

    def __exit__(self, kind, *_):
        self.stop.set()
        for actor in self.actors:
            actor.join(90)
        deadline = time.monotonic() + 10
        while not self.all_reached() and time.monotonic() < deadline:
            time.sleep(0.1)
        for actor in self.actors:
            if isinstance(actor, SessionActor) and actor.peer is not None:
                actor.peer.close()
                actor.collect()
        if kind is None:
            assert not self.errors()
            faults = self.recorder.faults()
            said = [line for member in self.everybody for line in member.err[-40:]]
            assert not faults, "\n".join([*map(str, faults), *said])
            assert len(self.recorder.owed()) > STEP // 2, "there was something to be judged"


@pytest.fixture
def world(make_cluster, subscriber):
    def make(kind, seed, **settings):
        cluster = make_cluster(kind, missed__sweep_missed_interval="200ms", **settings)
        for _ in range(3):
            cluster.start()
        return World(cluster, subscriber, seed)

    return make


@pytest.fixture
def proxies():
    made = []
    yield made
    for proxy in made:
        proxy.stop()


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "rqlite"])
def test_broadcasters_killed(world, kind):
    """Each of them once, and started again at the same address."""
    with world(kind, "killed") as w:
        w.progress()
        for member in list(w.cluster.members):
            member.kill()
            w.progress()
            w.everybody.append(w.cluster.restart(member))
            w.progress()


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "rqlite"])
def test_database_in_trouble(world, kind):
    """What cannot be done is refused, and all goes on afterwards."""
    with world(kind, "trouble", database__timeout="2s") as w:
        for _ in range(2):
            w.progress()
            end = w.cluster.place.trouble()
            refused = w.recorder.facts["refused"]
            if kind == "postgres":
                wait_until(lambda: w.errors() or w.recorder.facts["refused"] > refused, "a refusal")
            else:
                w.progress(STEP // 2)
            end()
            w.progress()


@pytest.mark.parametrize("kind", ["postgres", "rqlite"])
def test_one_is_cut_off(make_cluster, subscriber, proxies, kind):
    """Its way to the database is slow, then cut, then a hole; the others go on, and it does afterwards."""
    cluster = make_cluster(kind, missed__sweep_missed_interval="200ms", database__timeout="2s")
    made, url = cluster.place.behind_proxies()
    proxies += made
    cluster.start(database__url=url)
    cluster.start()
    cluster.start()
    with World(cluster, subscriber, "cut off") as w:
        for proxy in proxies:
            proxy.delay = 0.01
        w.progress()
        for mode in (CUT, HOLE):
            for proxy in proxies:
                proxy.set_mode(mode)
            w.progress()
            for proxy in proxies:
                proxy.set_mode(PASS)
            w.progress()
