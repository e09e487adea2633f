"""SET and CHECK. (doc/protocol/http.md, 2.3, 2.4 and 9)"""

import hashlib
import random
import re
import threading
import time
from pathlib import Path

import pytest
from lonelypsp.stateless.make_strong_etag import GlobAndRecovery, TopicAndRecovery, make_strong_etag

import bodies
from bodies import CHECK, GENERIC, NOTIFY, OCTETS, SET, SUBSCRIBE
from conftest import PATIENCE, SANITIZED
from wire import Wire, check, chunked, head, message, notify, post, subscribe, unsubscribe

URL = "http://192.0.2.1:3002/v1/receive"  # never called here
R1, R2 = "http://192.0.2.1:3002/recover", "http://192.0.2.2:3002/recover"


def reference_etag(url, topics, globs):
    """By lonelypsp."""
    def recovery(text):
        return text.decode() or None

    return make_strong_etag(
        url,
        [TopicAndRecovery(topic=k, recovery=recovery(r)) for k, r in sorted(bodies.pairs_of(topics))],
        [GlobAndRecovery(glob=k.decode(), recovery=recovery(r))
         for k, r in sorted(bodies.pairs_of(globs))]).etag


def set_all(broadcaster, url, topics=(), globs=()):
    reply = post(broadcaster, SET, bodies.set_subscriptions(url, topics, globs))
    assert (reply.status, reply.body, reply.content_type) == (200, GENERIC, OCTETS)
    assert check(broadcaster, url) == bodies.etag(url, topics, globs)


def assert_refused(broadcaster, body):
    reply = post(broadcaster, SET, body)
    assert (reply.status, reply.body, reply.content_type) == (400, b"", None)


# ---- CHECK ----


def test_check_of_an_unknown_url(broadcaster):
    reply = post(broadcaster, CHECK, bodies.check(URL, b"trace"))
    assert (reply.status, reply.content_type) == (200, OCTETS)
    assert reply.body == bytes.fromhex("00050000000000") + reference_etag(URL, [], [])


def test_check_is_the_etag_of_the_reference(broadcaster):
    """Sorted bytewise, a shorter prefix first; recovery counts; other URLs do not."""
    topics = [b"", b"\0", b"a", b"a\0", b"ab", b"b", b"\xff", bytes(range(256))]
    globs = ["", "*", "a", "a*", "é", "\U0010ffff", "\ue000"]
    entries = [("exact", t) for t in topics] + [("glob", g) for g in globs]
    random.Random(1).shuffle(entries)
    recoveries = {}
    for i, (kind, key) in enumerate(entries):
        recoveries[kind, key] = (R1 if i % 3 == 0 else "")
        subscribe(broadcaster, kind, URL, key, recoveries[kind, key])
        subscribe(broadcaster, kind, URL + "#1", key)
    lists = [[(k, recoveries[kind, k]) for k in keys]
             for kind, keys in (("exact", topics), ("glob", globs))]
    assert check(broadcaster, URL) == reference_etag(URL, *lists) == bodies.etag(URL, *lists)
    assert check(broadcaster, URL + "#1") == reference_etag(URL + "#1", topics, globs)
    unsubscribe(broadcaster, "glob", URL, "*")
    lists[1] = [e for e in lists[1] if e[0] != "*"]
    assert check(broadcaster, URL) == reference_etag(URL, *lists)


# ---- SET ----


def test_set_replaces(broadcaster, subscriber):
    url = subscriber.url()
    subscribe(broadcaster, "exact", url, "stays")
    subscribe(broadcaster, "exact", url, "goes")
    subscribe(broadcaster, "glob", url, "goes*")
    subscribe(broadcaster, "exact", url + "#other", "goes")
    set_all(broadcaster, url, ["comes", "stays"], ["comes*", "x"])
    for topic, count in (("stays", 1), ("goes", 1), ("comes", 2), ("x", 1), ("y", 0)):
        assert notify(broadcaster, topic) == count, topic
    set_all(broadcaster, url)
    for topic, count in (("stays", 0), ("goes", 1), ("comes", 0)):
        assert notify(broadcaster, topic) == count


def test_set_updates_recovery(broadcaster):
    """The reference does not (Q15)."""
    subscribe(broadcaster, "exact", URL, "a", R1)
    subscribe(broadcaster, "exact", URL, "b")
    subscribe(broadcaster, "glob", URL, "c", R1)
    set_all(broadcaster, URL, [("a", R2), ("b", R1)], ["c"])
    set_all(broadcaster, URL, ["a", ("b", R1)], [("c", R2)])


def test_set_again_changes_nothing(broadcaster):
    for _ in range(3):
        set_all(broadcaster, URL, ["a", ("b", R1)], [("c", R2)])


def test_set_of_nothing(broadcaster):
    set_all(broadcaster, URL)
    set_all(broadcaster, "", [], [])
    set_all(broadcaster, "", [""], [""])


@pytest.mark.parametrize("spool_size", [10485760, 65536])
def test_set_of_thousands(start_broadcaster, subscriber, spool_size):
    broadcaster = start_broadcaster(limits__message_body_spool_size=spool_size)
    url = subscriber.url()
    topics = sorted((b"topic/%d" % i, R1 if i % 2 else "") for i in range(1000))
    globs = sorted((f"glob/{i}/*", "") for i in range(1000))
    set_all(broadcaster, url, topics, globs)
    assert [notify(broadcaster, t) for t in ("topic/999", "glob/0/x", "topic/1000")] == [1, 1, 0]
    set_all(broadcaster, url, topics[::2], globs[1::2])
    set_all(broadcaster, url, [(b"topic/%05d" % i, "") for i in range(11000)])  # several transactions
    set_all(broadcaster, url)
    assert list((broadcaster.folder / "spool").iterdir()) == []


MILLION = 200_000 if SANITIZED else 1_000_000
MIB = 1024  # kB


def memory_kb(broadcaster, name):
    """`name` is VmRSS or VmHWM, the most since clear_refs."""
    status = Path(f"/proc/{broadcaster.pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.M).group(1))


def growth_kb(broadcaster, act):
    """By how much memory grows while it acts, freed meanwhile or not."""
    Path(f"/proc/{broadcaster.pid}/clear_refs").write_text("5")
    before = memory_kb(broadcaster, "VmRSS")
    act()
    return memory_kb(broadcaster, "VmHWM") - before


def call_often(broadcaster, stop, times):
    """Other calls, among them writes; how long each took."""
    with Wire(broadcaster) as wire:
        while not stop.is_set():
            for path, body in ((SUBSCRIBE["exact"], bodies.subscribe(URL + "#2", f"{len(times)}")),
                               (CHECK, bodies.check("nobody")), (NOTIFY, bodies.notify("nobody", b""))):
                began = time.monotonic()
                wire.send(message(path, body))
                assert wire.reply().status == 200
                times.append(time.monotonic() - began)


def test_set_of_a_million(start_broadcaster, monkeypatch):
    """In bounded memory, but for what the index holds; nobody else waits for it."""
    monkeypatch.setenv("ASAN_OPTIONS", "quarantine_size_mb=1")
    broadcaster = start_broadcaster()
    entries = b"".join(b"\0\x07%07d\0\0" % i for i in range(MILLION))
    etag = hashlib.sha512(b"URL" + bodies.b16(URL) + b"\nEXACT" + entries + b"\nGLOB\n").digest()
    body = (bodies.b16("") + bodies.b16(URL) + b"\0" + etag + MILLION.to_bytes(4, "big") + entries
            + bytes(4))

    def set_all_of_them():
        assert post(broadcaster, SET, body, patience=10 * PATIENCE).status == 200

    stop, times = threading.Event(), []
    thread = threading.Thread(target=call_often, args=(broadcaster, stop, times))
    thread.start()
    try:
        # The index takes some 85 bytes for each, the allocator some more.
        assert growth_kb(broadcaster, set_all_of_them) < 250 * MILLION / 1024 + 64 * MIB
        assert len(times) > 30
        assert check(broadcaster, URL) == etag
        assert growth_kb(broadcaster, set_all_of_them) < 8 * MIB  # changes nothing, reads everything
    finally:
        stop.set()
        thread.join()
    assert max(times) < 5
    assert check(broadcaster, URL) == etag
    assert notify(broadcaster, f"{MILLION}") == 0


def test_malformed_sets(broadcaster):
    """Refused whole: what was there stays."""
    set_all(broadcaster, URL, ["kept"], ["kept*"])
    etag = bodies.etag(URL, ["kept"], ["kept*"])
    wrong = bytearray(bodies.etag(URL, ["a"], []))
    wrong[63] ^= 1
    for body in (
            bodies.set_subscriptions(URL, ["a"], etag_format=1),
            bodies.set_subscriptions(URL, ["a"], claimed=bytes(wrong)),
            bodies.set_subscriptions(URL, ["a"], claimed=bodies.etag(URL + "#", ["a"], [])),
            bodies.set_subscriptions(URL, [], ["a"], claimed=bodies.etag(URL, ["a"], [])),
            bodies.set_subscriptions(URL, [("a", R1)], claimed=bodies.etag(URL, ["a"], [])),
            bodies.set_subscriptions(URL, ["b", "a"]),
            bodies.set_subscriptions(URL, ["a", "a"]),
            bodies.set_subscriptions(URL, ["aa", "a"]),
            bodies.set_subscriptions(URL, [], ["b", "a"]),
            bodies.set_subscriptions(URL, [], [("a", R1), ("a", R2)]),
            bodies.set_subscriptions(URL, [], [b"\xff"]),
            bodies.set_subscriptions(URL, [], [(b"a", b"\xff")]),
            bodies.set_subscriptions(URL, [(b"a", b"\xff")]),
            bodies.set_subscriptions(b"http://\xff", ["a"])):
        assert_refused(broadcaster, body)
    assert check(broadcaster, URL) == etag


@pytest.mark.parametrize("count", [1, 2, 1000, 2**31, 2**32 - 1])
def test_counts_beyond_the_body(broadcaster, count):
    """No memory is taken on a peer's word."""
    prefix = bodies.b16("") + bodies.b16(URL) + b"\0" + bytes(64)
    number = count.to_bytes(4, "big")
    for lists in (number, number + bodies.b16("a"), number + bodies.b16("a") + bodies.b16(""),
                  bodies.set_list([]) + number, bodies.set_list(["a"]) + number + b"\0"):
        if count > 1 or lists != number + bodies.b16("a") + bodies.b16(""):
            assert_refused(broadcaster, prefix + lists)


def test_long_keys(start_broadcaster):
    """Entries of the greatest length, whatever the pieces they come in."""
    broadcaster = start_broadcaster(limits__message_body_spool_size=65536)
    keys = [("a" * 65535, "r" * 65535), ("b" * 65535, ""), ("c", "r" * 65535)]
    set_all(broadcaster, URL, keys, keys)
    body = bodies.set_subscriptions(URL, keys, keys[1:])
    with Wire(broadcaster) as wire:
        wire.send(head("POST", SET, [("Transfer-Encoding", "chunked")]) + chunked(body, [65536, 1, 999]))
        assert wire.reply().body == GENERIC
    assert check(broadcaster, URL) == bodies.etag(URL, keys, keys[1:])


def test_subscription_in_the_list_is_never_absent(broadcaster, subscriber):
    """While SETs run that all hold it. (http.md, 9, a)"""
    url = subscriber.url()
    set_all(broadcaster, url, ["held"])
    lists = [["held"], ["held", *(f"x{i:04}" for i in range(500))]]
    stop = threading.Event()
    failures = []

    def set_often():
        with Wire(broadcaster) as wire:
            for i in range(40):
                wire.send(message(SET, bodies.set_subscriptions(url, lists[i % 2])))
                if wire.reply().status != 200:
                    failures.append(i)
        stop.set()

    thread = threading.Thread(target=set_often)
    thread.start()
    counts = set()
    while not stop.is_set():
        counts.add(notify(broadcaster, "held"))
    thread.join()
    assert (counts, failures) == ({1}, [])


def test_sets_of_one_url_at_once(start_broadcaster):
    """Whatever their order, the last one's list is what stays."""
    broadcaster = start_broadcaster(broadcaster__workers=2)
    lists = [[f"{thread}/{i:03}" for i in range(thread * 50)] + ["common"] for thread in range(4)]
    statuses = []

    def set_often(topics):
        for _ in range(10):
            body = bodies.set_subscriptions(URL, topics)
            statuses.append(post(broadcaster, SET, body).status)

    threads = [threading.Thread(target=set_often, args=(topics,)) for topics in lists]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 40
    assert check(broadcaster, URL) in {bodies.etag(URL, topics, []) for topics in lists}
