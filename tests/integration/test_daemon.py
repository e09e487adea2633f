"""The life of the process: signals, draining, being killed, lasting. Configuration is in
test_command_line.py. (design: a request that was taken is finished, what was acknowledged is kept)
"""

import contextlib
import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import bodies
import subscriber as scripted
from bodies import NOTIFY
from conftest import SANITIZED, setup_folder, wait_until
from wire import Wire, head, message, notify, post, subscribe, unsubscribe


@pytest.fixture
def pool():
    with ThreadPoolExecutor(16) as executor:
        yield executor


@pytest.fixture
def gate():
    event = threading.Event()
    yield event
    event.set()


def logged(broadcaster, event):
    return any(f" {event}" in line for line in list(broadcaster.err))


def drain(broadcaster, number=signal.SIGTERM):
    broadcaster.signal(number)
    wait_until(lambda: logged(broadcaster, "draining"), "the log line")


def rows(broadcaster):
    return broadcaster.query("SELECT count(*) FROM httppubsub_subscription_exacts")[0][0]


def refuses_connections(broadcaster):
    try:
        Wire(broadcaster).close()
    except ConnectionRefusedError:
        return True
    return False


# ---- Draining ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_running_notify_is_finished(start_broadcaster, subscriber, gate, number, workers):
    broadcaster = start_broadcaster(broadcaster__drain_timeout="60s", broadcaster__workers=workers)
    subscribe(broadcaster, "exact", subscriber.add("/r", scripted.after(gate)), "t")
    with Wire(broadcaster) as wire:
        wire.send(message(NOTIFY, bodies.notify("t", b"last words")))
        subscriber.wait_for(1)
        drain(broadcaster, number)
        wait_until(lambda: refuses_connections(broadcaster), "the end of listening")
        gate.set()
        reply = wire.reply()
        assert (reply.status, bodies.parse_notified(reply.body).count) == (200, 1)
        assert reply.headers["connection"] == "close"
        assert wire.at_end()
    assert broadcaster.wait() == 0
    assert subscriber.seen()[0].receive.message == b"last words"


def test_body_under_way_is_taken(start_broadcaster, subscriber):
    broadcaster = start_broadcaster(broadcaster__drain_timeout="60s")
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    body = bodies.notify("t", b"last words")
    with Wire(broadcaster) as wire:
        wire.send(head("POST", NOTIFY, [("Content-Length", len(body)), ("Expect", "100-continue")]))
        assert wire.reply().status == 100
        wire.send(body[:50])
        drain(broadcaster)
        wire.send(body[50:])
        assert bodies.parse_notified(wire.reply().body).count == 1
    assert broadcaster.wait() == 0


def test_drain_timeout(start_broadcaster, subscriber):
    """Then what is left is cut off, and the exit code is good all the same."""
    broadcaster = start_broadcaster(broadcaster__drain_timeout=1)
    subscribe(broadcaster, "exact", subscriber.add("/r", scripted.hangs), "t", "http://192.0.2.1/m")
    with Wire(broadcaster) as wire:
        wire.send(message(NOTIFY, bodies.notify("t", b"")))
        subscriber.wait_for(1)
        assert broadcaster.stop() == 0
        reply = wire.reply()
        assert reply is None or reply.status == 503  # it is not known whether the message arrived
    assert logged(broadcaster, "drain_timeout")


def test_second_signal_ends_at_once(start_broadcaster, subscriber):
    broadcaster = start_broadcaster(broadcaster__drain_timeout="10m",
                                    webhook__outgoing_http_timeout_total="none",
                                    webhook__outgoing_http_timeout_sock_read="none")
    subscribe(broadcaster, "exact", subscriber.add("/r", scripted.hangs), "t")
    with Wire(broadcaster) as wire:
        wire.send(message(NOTIFY, bodies.notify("t", b"")))
        subscriber.wait_for(1)
        drain(broadcaster)
        assert broadcaster.process.poll() is None
        assert broadcaster.stop() == 0


def test_long_matches(start_broadcaster):
    """Patterns that take minutes neither occupy the thread pool nor outlive a stop."""
    broadcaster = start_broadcaster(broadcaster__drain_timeout="10m")
    for i in range(10):  # some seconds each
        subscribe(broadcaster, "glob", "http://127.0.0.1:9/", "*" + "[a]" * 20000 + "?" * i + "[c]*")
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Wire(broadcaster)) for _ in range(5)]
        for wire in slow:
            wire.send(message(NOTIFY, bodies.notify("a" * 65000, b"")))
        assert notify(broadcaster, "t", bytes(200000)) == 0  # hashed in the pool
        drain(broadcaster)
        broadcaster.signal(signal.SIGTERM)
        assert broadcaster.wait() == 0
        for wire in slow:
            reply = wire.reply()
            assert reply is None or reply.status == 503


LONG = 30000 if SANITIZED else 300000


@pytest.mark.parametrize("twice", [False, True], ids=["after drain_timeout", "at once"])
def test_long_set(start_broadcaster, twice):
    """One that is under way is given up, in whichever of its parts; what it has done stays good."""
    broadcaster = start_broadcaster(broadcaster__drain_timeout="1h" if twice else "100ms")
    url = "http://192.0.2.1:3002/v1/receive"
    with Wire(broadcaster) as wire:
        wire.send(message(bodies.SET, bodies.set_subscriptions(url, [b"%07d" % i for i in range(LONG)])))
        wait_until(lambda: rows(broadcaster) > 0, "the first rows")
        drain(broadcaster)
        if twice:
            broadcaster.signal(signal.SIGTERM)
        assert broadcaster.wait() == 0
        with contextlib.suppress(ConnectionResetError):
            reply = wire.reply()
            assert reply is None or reply.status == 503
    assert 0 < rows(broadcaster) < LONG
    assert broadcaster.query("PRAGMA integrity_check") == [("ok",)]


def test_idle_connections_do_not_delay(start_broadcaster):
    """New ones, kept ones, and peers in the middle of a head."""
    broadcaster = start_broadcaster(broadcaster__drain_timeout="10m", http__keepalive_timeout="10m")
    wires = [Wire(broadcaster) for _ in range(10)]
    for wire in wires[:5]:
        wire.send(message(NOTIFY, bodies.notify("t", b"")))
        assert wire.reply().status == 200
    assert broadcaster.stop() == 0
    for wire in wires:
        assert wire.at_end()
        wire.close()


def test_signal_right_after_the_start(start_broadcaster):
    for _ in range(3):
        assert start_broadcaster().stop() == 0


def test_restart_on_the_same_port(start_broadcaster, subscriber):
    """Connections that were open do not keep it."""
    first = start_broadcaster()
    subscribe(first, "exact", subscriber.url(), "t")
    with Wire(first) as wire:
        wire.send(message(NOTIFY, bodies.notify("t", b"")))
        assert wire.reply().status == 200
        assert first.stop() == 0
        second = start_broadcaster(first.folder, listen=first.address)
        assert notify(second, "t") == 1


@pytest.mark.parametrize("closed", [0, 2], ids=["stdin", "stderr"])
def test_without_a_standard_descriptor(start_broadcaster, closed):
    """Nothing else takes its place, to have log lines written into it."""
    sign = "<" if closed == 0 else ">"
    broadcaster = start_broadcaster(wrapper=["sh", "-c", f'exec "$@" {closed}{sign}&-', "sh"])
    assert os.readlink(f"/proc/{broadcaster.pid}/fd/{closed}") == "/dev/null"
    assert notify(broadcaster, "t") == 0


# ---- Reloading ----


def test_hangup_rereads_the_log_level(start_broadcaster):
    """And never ends the process, whatever it finds."""
    broadcaster = start_broadcaster()
    config = broadcaster.folder / "lonelypss.ini"

    def reload(text, event):
        config.write_text(text)
        before = sum(f" {event}" in line for line in list(broadcaster.err))
        broadcaster.signal(signal.SIGHUP)
        wait_until(lambda: sum(f" {event}" in line for line in list(broadcaster.err)) > before, event)

    reload("[log]\nlevel = loud\n", "reload_failed")
    reload("[log]\nlevel = debug\n", "reloaded")
    config.unlink()
    broadcaster.signal(signal.SIGHUP)
    assert notify(broadcaster, "t") == 0
    config.write_text("[log]\nlevel = error\n")
    broadcaster.signal(signal.SIGHUP)
    assert broadcaster.stop() == 0
    assert not logged(broadcaster, "stopped")


def test_hangup_with_a_configuration_that_came_by_a_pipe(start_broadcaster, tmp_path):
    """It cannot be read again. Waiting for another writer would make the process deaf to SIGTERM."""
    folder = setup_folder(tmp_path / "b")
    config = folder / "lonelypss.ini"
    text = config.read_text()
    config.unlink()
    os.mkfifo(config)
    writer = threading.Thread(target=config.write_text, args=(text,))
    writer.start()
    broadcaster = start_broadcaster(folder)
    writer.join()
    broadcaster.signal(signal.SIGHUP)
    wait_until(lambda: logged(broadcaster, "reload_failed"), "the log line")
    assert notify(broadcaster, "t") == 0
    assert broadcaster.stop() == 0


# ---- Killed ----


def publish(broadcaster, count):
    """Notifies on one connection until it breaks."""
    try:
        with Wire(broadcaster) as wire:
            while True:
                wire.send(message(NOTIFY, bodies.notify("t", b"hello")))
                reply = wire.reply()
                if reply is None:
                    return
                assert reply.status == 200, reply
                count.append("t")
    except OSError:
        pass


def churn(broadcaster, thread, mine, count):
    """Subscribes and unsubscribes on one connection until it breaks, and notes what was confirmed; what
    was asked for last may or may not have happened."""
    chance = random.Random(thread)
    try:
        with Wire(broadcaster) as wire:
            while True:
                key = f"{thread}/{chance.randrange(40)}"
                path, body = ((bodies.UNSUBSCRIBE["exact"], bodies.unsubscribe(key, "t"))
                              if mine.get(key) else
                              (bodies.SUBSCRIBE["exact"], bodies.subscribe(key, "t")))
                there = mine.get(key, False)
                mine[key] = None  # unknown
                wire.send(message(path, body))
                reply = wire.reply()
                if reply is None:
                    return
                assert reply.status == 200, (reply, key)
                mine[key] = not there
                count.append(key)
    except OSError:
        pass


def test_killed_under_load(start_broadcaster):
    """At random moments: nothing that was acknowledged is lost or comes back, nothing is invented."""
    chance = random.Random(20)
    broadcaster = start_broadcaster()
    acknowledged = [{} for _ in range(4)]
    for _ in range(50):
        count = []
        threads = [threading.Thread(target=churn, args=(broadcaster, i, acknowledged[i], count))
                   for i in range(4)]
        threads.append(threading.Thread(target=publish, args=(broadcaster, count)))
        for thread in threads:
            thread.start()
        wanted = chance.randrange(1, 500)
        wait_until(lambda: len(count) >= wanted, "some load")
        broadcaster.kill()
        for thread in threads:
            thread.join()
        broadcaster = start_broadcaster(broadcaster.folder)
        assert broadcaster.query("PRAGMA integrity_check") == [("ok",)]
        rows = {url for url, in broadcaster.query("SELECT url FROM httppubsub_subscription_exacts")}
        assert rows <= {key for mine in acknowledged for key in mine}
        for mine in acknowledged:
            for key, there in mine.items():
                if there is not None:
                    assert (key in rows) == there, key
                mine[key] = key in rows
    assert len(rows) > 10


def test_spool_of_the_dead(start_broadcaster, start_subscriber, gate, pool):
    """Its files have no names: nothing to tidy up."""
    broadcaster = start_broadcaster(limits__message_body_spool_size=65536)
    server = start_subscriber(scripted.after(gate))
    subscribe(broadcaster, "exact", server.url(), "t")
    with Wire(broadcaster) as wire:
        wire.send(message(NOTIFY, bodies.notify("t", bytes(1000000))))
        server.wait_for(1)
        assert any("/spool/" in link for link in broadcaster.descriptors())
        broadcaster.kill()
    assert list((broadcaster.folder / "spool").iterdir()) == []


# ---- Lasting ----


def resident_kb(broadcaster):
    status = Path(f"/proc/{broadcaster.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def exercise(broadcaster, server, dead_url, rounds):
    """A little of everything, good and bad."""
    for i in range(rounds):
        subscribe(broadcaster, "exact", server.url(f"/{i}"), "t")
        subscribe(broadcaster, "glob", dead_url, f"{i}*")
        assert notify(broadcaster, "t", b"x" * (i * 4000)) == 1
        assert notify(broadcaster, f"{i}") == 0
        assert post(broadcaster, NOTIFY, bodies.notify("t", b"x", sha512=bytes(64))).status == 400
        assert post(broadcaster, bodies.SET, b"rubbish").status == 400
        with Wire(broadcaster) as wire:
            wire.send(message(NOTIFY, bodies.notify("t", bytes(100000)))[:50000 + i])
        body = bodies.set_subscriptions("http://192.0.2.1/", [f"{n:03}" for n in range(100)])
        assert post(broadcaster, bodies.SET, body).status == 200
        unsubscribe(broadcaster, "exact", server.url(f"/{i}"), "t")
        unsubscribe(broadcaster, "glob", dead_url, f"{i}*")


def test_no_leaks(start_broadcaster, subscriber, dead_url, monkeypatch):
    """Descriptors and memory after much of everything are what they were after a little."""
    monkeypatch.setenv("ASAN_OPTIONS", "quarantine_size_mb=1")
    broadcaster = start_broadcaster(limits__message_body_spool_size=65536)
    exercise(broadcaster, subscriber, dead_url, 40)
    descriptors, memory = len(broadcaster.descriptors()), resident_kb(broadcaster)
    for _ in range(4):
        exercise(broadcaster, subscriber, dead_url, 40)
    wait_until(lambda: len(broadcaster.descriptors()) <= descriptors + 2, "closed descriptors")
    assert resident_kb(broadcaster) - memory < 8192


def test_many_connections(start_broadcaster):
    """All at once, and all are served."""
    broadcaster = start_broadcaster()
    before = len(broadcaster.descriptors())
    wires = [Wire(broadcaster) for _ in range(300)]
    for wire in wires:
        wire.send(message(NOTIFY, bodies.notify("t", b"")))
    assert {wire.reply().status for wire in wires} == {200}
    for wire in wires:
        wire.close()
    wait_until(lambda: len(broadcaster.descriptors()) <= before + 1, "closed descriptors")


def test_connections_beyond_the_limit_wait(start_broadcaster):
    """They are accepted when others have left."""
    broadcaster = start_broadcaster(limits__max_connections=3)
    first = [Wire(broadcaster) for _ in range(3)]
    for wire in first:
        wire.send(message(NOTIFY, bodies.notify("t", b"")))
        assert wire.reply().status == 200
    with Wire(broadcaster) as late:
        late.send(message(NOTIFY, bodies.notify("t", b"")))
        first[0].send(message(NOTIFY, bodies.notify("t", b"")))
        assert first[0].reply().status == 200
        first[1].close()
        assert late.reply().status == 200
    for wire in first:
        wire.close()
