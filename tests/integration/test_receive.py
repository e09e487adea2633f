"""What a notify does to its subscribers: RECEIVE, what replies mean, which subscriptions match.
(doc/protocol/http.md, 3, 7 and 8)
"""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import bodies
import subscriber as scripted
from bodies import NOTIFY, OCTETS
from conftest import wait_until
from wire import Wire, chunked, head, notify, post, subscribe, unsubscribe

KINDS = ["exact", "glob"]


def spool(broadcaster):
    return list((broadcaster.folder / "spool").iterdir())


# ---- The request ----


def test_receive(broadcaster, subscriber):
    subscribe(broadcaster, "exact", subscriber.url("/a/b?c=d%20e"), b"foo\0\xff")
    assert notify(broadcaster, b"foo\0\xff", b"hello world") == 1
    call, = subscriber.seen()
    assert (call.method, call.target) == ("POST", "/a/b?c=d%20e")
    assert len(call.body) == 2 + 2 + 5 + 1 + 8 + 8 + 11
    assert call.receive._replace(identifier=b"") == (b"", b"foo\0\xff", b"", b"hello world")
    assert len(call.receive.identifier) == 8
    names = [name for name, _ in call.headers]
    assert len(set(names)) == len(names)
    headers = dict(call.headers)
    assert headers["content-type"] == OCTETS
    assert headers["content-length"] == str(len(call.body))
    assert headers["repr-digest"] == bodies.repr_digest(b"hello world")
    assert headers["host"] == f"127.0.0.1:{subscriber.port}"
    assert not {"transfer-encoding", "authorization", "expect", "accept-encoding"} & set(names)


def test_fragment_is_not_sent(broadcaster, subscriber):
    """It tells subscriptions apart and stays here."""
    for fragment in ("#1", "#2", ""):
        subscribe(broadcaster, "exact", subscriber.url("/r") + fragment, "t")
    assert notify(broadcaster, "t") == 3
    assert [c.target for c in subscriber.seen()] == ["/r"] * 3


def test_identifiers_differ(broadcaster, subscriber):
    for i in range(10):
        subscribe(broadcaster, "exact", subscriber.url(f"/{i}"), "t")
    for _ in range(3):
        assert notify(broadcaster, "t") == 10
    assert len({c.receive.identifier for c in subscriber.seen()}) == 30


def test_publisher_and_subscriber_identifiers_are_unrelated(broadcaster, subscriber):
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    reply = post(broadcaster, NOTIFY, bodies.notify("t", b"", identifier=b"publisher"))
    assert bodies.parse_notified(reply.body).identifier == b"publisher"
    assert subscriber.seen()[0].receive.identifier != b"publisher"


def test_request_tracing_is_not_passed_on(broadcaster, subscriber):
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    post(broadcaster, NOTIFY, bodies.notify("t", b"", tracing=b"secret"))
    assert subscriber.seen()[0].receive.tracing == b""


# ---- Which subscriptions ----


def test_each_subscription_gets_a_call(broadcaster, subscriber):
    """Also several of one URL: exact and overlapping globs."""
    for kind, key in (("exact", "foo/bar"), ("glob", "foo/*"), ("glob", "*"), ("glob", "foo/bar"),
                      ("glob", "foo/[!b]ar"), ("exact", "foo/*"), ("glob", "Foo/*")):
        subscribe(broadcaster, kind, subscriber.url(), key)
    assert notify(broadcaster, "foo/bar") == 5
    assert notify(broadcaster, "foo/*") == 3
    assert len(subscriber.seen()) == 8


def test_glob_and_exact_of_the_same_text(broadcaster, subscriber):
    for kind in KINDS:
        subscribe(broadcaster, kind, subscriber.url("/" + kind), "a*")
    assert notify(broadcaster, "ab") == 1
    assert notify(broadcaster, "a*") == 2
    unsubscribe(broadcaster, "exact", subscriber.url("/exact"), "a*")
    assert notify(broadcaster, "a*") == 1
    assert [c.target for c in subscriber.seen()].count("/glob") == 3


@pytest.mark.parametrize("glob, topic, matches", [
    ("", b"", True), ("", b"a", False), ("*", b"", True), ("*", "a/\n.é".encode(), True),
    ("*", b"\xff", False), ("?", "é".encode(), True), ("?", "e\u0301".encode(), False),
    ("[^a]", b"b", True), ("[!a]", b"b", False), ("[a-c]x", b"bx", True), ("[]]", b"]", True),
    ("[a", b"[a", False), ("\\*", b"*", False), ("\\*", b"\\x", True), ("a", b"a\0b", True),
    ("*a*b*c", b"xxaxxbxxc", True), ("A", b"a", False),
])
def test_glob(broadcaster, subscriber, glob, topic, matches):
    """A few of many; all are in tests/vectors/glob.jsonl."""
    subscribe(broadcaster, "glob", subscriber.url(), glob)
    assert notify(broadcaster, topic) == matches


def test_glob_beyond_what_sqlite_accepts(broadcaster, subscriber):
    """The reference answers every notify 500 from then on (Q4)."""
    subscribe(broadcaster, "glob", subscriber.url(), "*" + "a" * 65534)
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    assert notify(broadcaster, "t") == 1
    assert notify(broadcaster, b"a" * 65534) == 1


def test_peer_broadcasters_get_one_call(start_broadcaster, start_subscriber):
    """However many of their subscriptions match: they hand it to all their clients (Q6)."""
    broadcaster, peer, other = start_broadcaster(), start_subscriber(), start_subscriber()
    path = bodies.RECEIVE_PATH_OF_BROADCASTERS
    for server in (peer, other):
        server.on(path, scripted.confirms(3))
        for kind in KINDS:
            subscribe(broadcaster, kind, server.url(path), "topic")
        subscribe(broadcaster, "glob", server.url(path), "*")
    subscribe(broadcaster, "glob", peer.url(path), "other")
    subscribe(broadcaster, "glob", peer.url("/plain"), "*")
    subscribe(broadcaster, "exact", peer.url("/plain"), "topic")
    assert notify(broadcaster, "topic") == 3 + 3 + 2
    assert [len(peer.seen(path)), len(other.seen(path)), len(peer.seen("/plain"))] == [1, 1, 2]


def test_what_is_the_url_of_a_peer_broadcaster(broadcaster, subscriber):
    """Its path ends so, whatever comes before and after it."""
    path = bodies.RECEIVE_PATH_OF_BROADCASTERS
    for target, calls in ((path + "?a=b", 1), (path + "#1", 1), ("/prefix" + path, 1),
                          (path + "/", 2), ("/r?" + path, 2), ("/r#" + path, 2)):
        for kind in KINDS:
            subscribe(broadcaster, kind, subscriber.url(target), "t")
        assert notify(broadcaster, "t") == calls, target
        for kind in KINDS:
            unsubscribe(broadcaster, kind, subscriber.url(target), "t")


# ---- What replies mean ----


@pytest.mark.parametrize("counts, total", [
    ([0], 0), ([5], 5), ([1, 0, 5], 6), ([2**32 - 1], 2**32 - 1), ([2**32 - 1, 1], 2**32 - 1),
    ([2**31, 2**31, 2**31], 2**32 - 1),
])
def test_counts_are_summed(broadcaster, subscriber, counts, total):
    for i, count in enumerate(counts):
        subscribe(broadcaster, "exact", subscriber.add(f"/{i}", scripted.confirms(count)), "t")
    assert notify(broadcaster, "t") == total


CONFIRMATIONS = {
    "plain": scripted.good,
    "status 500": lambda c: c.confirm(status=500),
    "status 404": lambda c: c.confirm(status=404),
    "status 302, not followed": lambda c: c.confirm(
        status=302, headers=[f"Location: {c.server.url('/elsewhere')}"]),
    "bytes after it": lambda c: c.reply(bodies.confirm_receive(c.receive.identifier) + b"zz"),
    "authorization and tracing": lambda c: c.reply(
        bodies.confirm_receive(c.receive.identifier, 1, "é" * 300, os.urandom(5000))),
    "another identifier (Q10)": scripted.replies(bodies.confirm_receive(b"other")),
    "chunked": lambda c: c.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunked(bodies.confirm_receive(c.receive.identifier), [1, 5])),
    "until the close": lambda c: scripted.sends(
        b"HTTP/1.1 200 OK\r\n\r\n" + bodies.confirm_receive(c.receive.identifier))(c),
    "after 100 Continue": lambda c: (c.send(b"HTTP/1.1 100 Continue\r\n\r\n"), c.confirm()),
    "Connection: close": lambda c: (c.confirm(headers=["Connection: close"]), c.close()),
    "in pieces": lambda c: [c.send(b"%c" % b) for b in b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n"
                            + bodies.confirm_receive(c.receive.identifier)],
}


@pytest.mark.parametrize("name", CONFIRMATIONS)
def test_confirmed(broadcaster, subscriber, name):
    url = subscriber.add("/r", CONFIRMATIONS[name])
    subscribe(broadcaster, "exact", url, "t", subscriber.url("/recover"))
    for _ in range(2):
        assert notify(broadcaster, "t") == 1
    assert [c.target for c in subscriber.seen()] == ["/r", "/r"]


FAILURES = {
    "empty": scripted.replies(b""),
    "one byte": scripted.replies(b"\x00"),
    "cut": scripted.short,
    "body shorter than announced": scripted.cut_body,
    "another type": scripted.replies(bodies.GENERIC),
    "type of MISSED": scripted.replies(bodies.confirm_missed()),
    "rubbish": scripted.replies(b"rubbish " * 100),
    "authorization not utf-8": scripted.replies(bytes.fromhex("00080001ff00000000000001")),
    "unsubscribe, cut": scripted.replies(b"\x0a"),
    "no HTTP": scripted.sends(b"rubbish\r\n\r\n"),
    "a head without end": lambda c: scripted.sends(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 4000000)(c),
    "redirect": lambda c: c.reply(b"", 307, [f"Location: {c.server.url('/elsewhere')}"]),
    "a body too long": lambda c: c.reply(
        bodies.confirm_receive(c.receive.identifier) + bytes(300000)),
    "an endless body": lambda c: (
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n"), c.send(bytes(300000)),
        c.wait_for_the_end()),
    "compressed": lambda c: c.reply(
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00", 200, ["Content-Encoding: gzip"]),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failed(broadcaster, subscriber, name):
    """Counts nothing, and neither the subscription nor others suffer."""
    subscribe(broadcaster, "exact", subscriber.add("/bad", FAILURES[name]), "t")
    subscribe(broadcaster, "exact", subscriber.url("/good"), "t")
    for i in range(2):
        assert notify(broadcaster, "t") == 1
    assert (len(subscriber.seen("/bad")), len(subscriber.seen("/good"))) == (2, 2)
    assert subscriber.seen("/elsewhere") == []


def test_close_without_a_reply(broadcaster, subscriber):
    """On a fresh connection it is a failure at once."""
    subscribe(broadcaster, "exact", subscriber.add("/r", scripted.closes), "t")
    assert notify(broadcaster, "t") == 0
    assert len(subscriber.seen()) == 1


@pytest.mark.parametrize("size", [0, 1000, 100000, 1000000])
def test_kept_connection_that_is_closed(start_broadcaster, subscriber, size):
    """The subscriber may have given up an idle connection just then: tried once more on a fresh one, from
    the beginning of the body."""
    broadcaster = start_broadcaster(limits__message_body_spool_size=65536)
    turns = iter([scripted.good, scripted.closes])
    subscribe(broadcaster, "exact",
              subscriber.add("/r", lambda c: next(turns, scripted.good)(c)), "t")
    content = os.urandom(size)
    for _ in range(2):
        assert notify(broadcaster, "t", content) == 1
    assert [c.receive.message == content for c in subscriber.seen()] == [True] * 3


@pytest.mark.parametrize("url", [
    "", "x", "http://", "http:///path",
    "http://127.0.0.1:99999/", "http://127.0.0.1:0/", "http://[::1", "http://a b/",
    "http://127.0.0.1\0/", "http://user@/", "http://nowhere.invalid/r",
])
def test_url_that_cannot_be_used(broadcaster, subscriber, url):
    """Stored, as the reference does; its deliveries fail."""
    subscribe(broadcaster, "exact", url, "t")
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    assert notify(broadcaster, "t") == 1


def test_longest_url(broadcaster, subscriber):
    """The reference answers 500 after the delivery (Q26)."""
    url = subscriber.url("/" + "x" * 70000)[:65535]
    subscribe(broadcaster, "exact", url, "t")
    assert notify(broadcaster, "t") == 1
    assert url.endswith(subscriber.seen()[0].target)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [200, 400])
def test_unsubscribe_immediate(broadcaster, subscriber, kind, status):
    """Removes that one subscription: not others of the URL, not the same key of other URLs."""
    leaver = subscriber.add("/leaver", scripted.replies(bodies.UNSUBSCRIBE_IMMEDIATE + b"zz", status))
    subscribe(broadcaster, kind, leaver, "topic", subscriber.url("/recover"))
    subscribe(broadcaster, KINDS[kind == "exact"], leaver, "other")
    subscribe(broadcaster, kind, subscriber.url("/stays"), "topic")
    assert notify(broadcaster, "topic") == 1
    assert notify(broadcaster, "topic") == 1
    assert (len(subscriber.seen("/leaver")), len(subscriber.seen("/stays"))) == (1, 2)
    assert notify(broadcaster, "other") == 0
    assert len(subscriber.seen("/leaver")) == 2
    gone = post(broadcaster, bodies.UNSUBSCRIBE[kind], bodies.unsubscribe(leaver, "topic"))
    assert gone.status == 409


def test_unsubscribe_immediate_of_one_among_overlapping(broadcaster, subscriber):
    """The glob that matched is removed, each call answers for its own."""
    replies = iter([scripted.unsubscribes, scripted.good])
    url = subscriber.add("/r", lambda c: next(replies, scripted.good)(c))
    subscribe(broadcaster, "glob", url, "t*")
    subscribe(broadcaster, "glob", url, "*t")
    assert notify(broadcaster, "tt") == 1
    assert notify(broadcaster, "tt") == 1
    assert len(subscriber.seen()) == 3


# ---- Bodies of all sizes ----

SPOOL_SIZE = 65536


@pytest.mark.parametrize("workers", [1, 2])
def test_sizes(start_broadcaster, subscriber, workers):
    """In memory and in a file, and about where one becomes the other."""
    broadcaster = start_broadcaster(limits__message_body_spool_size=SPOOL_SIZE,
                                    broadcaster__workers=workers)
    for i in range(3):
        subscribe(broadcaster, "exact", subscriber.url(f"/{i}"), "t")
    sizes = [0, 1, 2, SPOOL_SIZE - 1, SPOOL_SIZE, SPOOL_SIZE + 1, 256 * 1024, 256 * 1024 + 1, 3000000]
    for size in sizes:
        content = os.urandom(size)
        assert notify(broadcaster, "t", content) == 3
        for call in subscriber.seen()[-3:]:
            assert call.receive.message == content
            assert dict(call.headers)["repr-digest"] == bodies.repr_digest(content)
            assert dict(call.headers)["content-length"] == str(len(call.body))
    assert spool(broadcaster) == []


def test_chunked_and_spooled(start_broadcaster, subscriber):
    broadcaster = start_broadcaster(limits__message_body_spool_size=SPOOL_SIZE)
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    with Wire(broadcaster) as wire:
        for size in (1, SPOOL_SIZE - 1, SPOOL_SIZE, SPOOL_SIZE + 1, 400000):
            content = os.urandom(size)
            wire.send(head("POST", NOTIFY, [("Transfer-Encoding", "chunked")])
                      + chunked(bodies.notify("t", content), [1, 7000, 333]))
            assert bodies.parse_notified(wire.reply().body).count == 1
            assert subscriber.seen()[-1].receive.message == content
    assert spool(broadcaster) == []


def test_spooled_and_refused(start_broadcaster, subscriber):
    """What is wrong with a long message shows at its end; nothing stays behind."""
    broadcaster = start_broadcaster(limits__message_body_spool_size=SPOOL_SIZE)
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    content = bytes(500000)
    wrong = bodies.notify("t", content, sha512=hashlib.sha512(b"").digest())
    assert post(broadcaster, NOTIFY, wrong).status == 400
    with Wire(broadcaster) as wire:
        body = bodies.notify("t", content)
        wire.send(head("POST", NOTIFY, [("Content-Length", len(body))]) + body[:-1])
    assert subscriber.seen() == []
    assert notify(broadcaster, "t", content) == 1
    assert spool(broadcaster) == []


def spool_files(broadcaster):
    """Those open: they have no name."""
    return [link for link in broadcaster.descriptors()
            if link.startswith(str(broadcaster.folder / "spool"))]


def test_memory_of_bodies_is_bounded(start_broadcaster, subscriber):
    """Beyond limits.max_body_memory smaller bodies go to files, too, and arrive all the same."""
    broadcaster = start_broadcaster(limits__message_body_spool_size="1M",
                                    limits__max_body_memory="1M")
    leave = threading.Event()
    subscribe(broadcaster, "exact", subscriber.add("/r", scripted.after(leave)), "t")
    contents = [os.urandom(900000) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(notify, broadcaster, "t", content) for content in contents]
        subscriber.wait_for(4)
        assert len(spool_files(broadcaster)) >= 3  # 4 when they grew side by side
        leave.set()
        assert [r.result() for r in running] == [1] * 4
    assert sorted(c.receive.message for c in subscriber.seen()) == sorted(contents)
    wait_until(lambda: spool_files(broadcaster) == [], "the end of the files")


def test_one_long_body_for_a_slow_and_a_fast_reader(start_broadcaster, subscriber):
    """One copy in a file serves readers at different places in it."""
    broadcaster = start_broadcaster(limits__message_body_spool_size=SPOOL_SIZE)
    for i in range(20):
        subscribe(broadcaster, "exact", subscriber.url(f"/{i}"), "t")
    content = os.urandom(2000000)
    assert notify(broadcaster, "t", content) == 20
    assert {c.receive.message for c in subscriber.seen()} == {content}
    wait_until(lambda: spool(broadcaster) == [], "an empty spool folder")
