"""The seven endpoints that subscribers call, without authorization. (doc/protocol/http.md, 2, 6 to 9)

What deliveries look like is in test_receive.py, SET and CHECK in test_set.py; how the reference reads the
tracing of RESPONSE_NOTIFY in test_reference_client.py.
"""

import contextlib
import hashlib
import random
import threading

import pytest

import bodies
import subscriber as scripted
from bodies import ENDPOINTS, GENERIC, NOTIFY, OCTETS, SUBSCRIBE, UNSUBSCRIBE
from conftest import wait_until
from wire import Wire, chunked, head, message, notify, post, request, subscribe, unsubscribe

URL = "http://192.0.2.1:3002/v1/receive"  # never called in these tests
KINDS = ["exact", "glob"]

GOOD_BODIES = {
    SUBSCRIBE["exact"]: bodies.subscribe(URL, "topic", URL + "/recover", b"trace"),
    SUBSCRIBE["glob"]: bodies.subscribe(URL, "to*", URL + "/recover", b"trace"),
    UNSUBSCRIBE["exact"]: bodies.unsubscribe(URL, "topic", b"trace"),
    UNSUBSCRIBE["glob"]: bodies.unsubscribe(URL, "to*", b"trace"),
    bodies.CHECK: bodies.check(URL, b"trace"),
    bodies.SET: bodies.set_subscriptions(URL, ["a", ("b", "http://r")], ["c*"], tracing=b"t"),
    NOTIFY: bodies.notify("nobody", b"hello world", tracing=b"trace"),
}


def assert_empty(reply, status):
    """Error responses have no body and no content type."""
    assert (reply.status, reply.body, reply.content_type) == (status, b"", None)


def assert_generic(reply):
    assert (reply.status, reply.content_type, reply.body) == (200, OCTETS, GENERIC)


# ---- Paths and methods ----


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/notify/", "/V1/notify", "/v1/Notify", "/v1/subscribe",
                                  "//v1/notify", "/v1/%6eotify", "/v1/subscribe/exact/", "/docs"])
def test_unknown_path(broadcaster, path):
    for method in ("POST", "GET"):
        reply = request(broadcaster, method, path, b"body" if method == "POST" else None)
        assert (reply.status, reply.content_type) == (404, "application/json")
        assert reply.body == b'{"detail":"Not Found"}'


def test_other_methods(broadcaster):
    for path in ENDPOINTS:
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
            reply = request(broadcaster, method, path)
            assert (reply.status, reply.content_type) == (405, "application/json"), (method, path)
            assert reply.body == b'{"detail":"Method Not Allowed"}'
            assert reply.headers["allow"] == "POST"
        assert request(broadcaster, "HEAD", path).status == 405


def test_query_is_ignored(broadcaster):
    for path, body in GOOD_BODIES.items():
        reply = post(broadcaster, path + "?a=b&c=%00?/", body)
        assert reply.status == 200, path


# ---- Subscribe and unsubscribe ----


@pytest.mark.parametrize("kind", KINDS)
def test_subscribe_and_unsubscribe(broadcaster, kind):
    body = bodies.subscribe(URL, "foo*")
    assert_generic(post(broadcaster, SUBSCRIBE[kind], body))
    assert_empty(post(broadcaster, SUBSCRIBE[kind], body), 409)
    assert_empty(post(broadcaster, SUBSCRIBE[kind], bodies.subscribe(URL, "foo*", "http://r")), 409)
    assert_generic(post(broadcaster, SUBSCRIBE[kind], bodies.subscribe(URL + "#1", "foo*")))
    assert_generic(post(broadcaster, SUBSCRIBE[kind], bodies.subscribe(URL, "foo?")))
    assert_generic(post(broadcaster, UNSUBSCRIBE[kind], bodies.unsubscribe(URL, "foo*")))
    assert_empty(post(broadcaster, UNSUBSCRIBE[kind], bodies.unsubscribe(URL, "foo*")), 409)
    assert_empty(post(broadcaster, UNSUBSCRIBE[kind], bodies.unsubscribe(URL + "#2", "foo*")), 409)
    assert_generic(post(broadcaster, UNSUBSCRIBE[kind], bodies.unsubscribe(URL + "#1", "foo*")))
    assert_generic(post(broadcaster, UNSUBSCRIBE[kind], bodies.unsubscribe(URL, "foo?")))


def test_exact_and_glob_of_the_same_text_differ(broadcaster):
    for kind in KINDS:
        subscribe(broadcaster, kind, URL, "a*")
    unsubscribe(broadcaster, "exact", URL, "a*")
    assert_empty(post(broadcaster, UNSUBSCRIBE["exact"], bodies.unsubscribe(URL, "a*")), 409)
    unsubscribe(broadcaster, "glob", URL, "a*")


@pytest.mark.parametrize("kind", KINDS)
def test_extremes_of_the_fields(broadcaster, kind):
    """Each field empty, of 65,535 bytes, and with a NUL in it."""
    longest = "x" * 65535
    for url, key in (("", ""), (longest, "k"), ("u", longest), ("u\0v", "k\0l"), ("\U0010ffff", "é")):
        subscribe(broadcaster, kind, url, key, longest)
        assert_empty(post(broadcaster, SUBSCRIBE[kind], bodies.subscribe(url, key)), 409)
    for url, key in (("", ""), (longest, "k"), ("u", longest), ("u\0v", "k\0l"), ("\U0010ffff", "é")):
        unsubscribe(broadcaster, kind, url, key)


@pytest.mark.parametrize("path", [p for p in ENDPOINTS if p not in (NOTIFY, bodies.SET)])
def test_text_must_be_utf8(broadcaster, path):
    bad = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ab\xe2\x82"]
    for text in bad:
        if path in SUBSCRIBE.values():
            wrong = [bodies.subscribe(text, "t"), bodies.subscribe(URL, "t", text)]
            key = bodies.subscribe(URL, text)
        elif path in UNSUBSCRIBE.values():
            wrong, key = [bodies.unsubscribe(text, "t")], bodies.unsubscribe(URL, text)
        else:
            wrong, key = [bodies.check(text)], None
        for body in wrong:
            assert_empty(post(broadcaster, path, body), 400)
        if key is not None and path.endswith("glob"):
            assert_empty(post(broadcaster, path, key), 400)
        elif key is not None:  # topics are bytes
            assert_generic(post(broadcaster, SUBSCRIBE["exact"], bodies.subscribe(URL, text)))
            assert_generic(post(broadcaster, UNSUBSCRIBE["exact"], bodies.unsubscribe(URL, text)))


# ---- Bodies too short, too long, and oddly sent ----


@pytest.mark.parametrize("path", ENDPOINTS)
def test_cut_at_every_byte(broadcaster, path):
    body = GOOD_BODIES[path]
    with Wire(broadcaster) as wire:
        for length in range(len(body)):
            wire.send(message(path, body[:length]))
            assert_empty(wire.reply(), 400)
        wire.send(message(path, body))
        assert wire.reply().status in (200, 409)


@pytest.mark.parametrize("path", ENDPOINTS)
def test_bytes_after_the_last_field(broadcaster, path):
    reply = post(broadcaster, path, GOOD_BODIES[path] + b"after" * 40000)
    if path == NOTIFY:
        assert_empty(reply, 400)
    else:
        assert reply.status == (409 if path in UNSUBSCRIBE.values() else 200)


@pytest.mark.parametrize("sizes", [[1], [3, 1, 7], [10000]])
def test_chunked(broadcaster, sizes):
    subscribe(broadcaster, "exact", URL, "topic")
    subscribe(broadcaster, "glob", URL, "to*")
    with Wire(broadcaster) as wire:
        for path in (*UNSUBSCRIBE.values(), *SUBSCRIBE.values(), bodies.CHECK, bodies.SET, NOTIFY):
            wire.send(head("POST", path, [("Transfer-Encoding", "chunked")])
                      + chunked(GOOD_BODIES[path], sizes))
            assert wire.reply().status == 200, path
            wire.send(head("POST", path, [("Transfer-Encoding", "chunked")])
                      + chunked(GOOD_BODIES[path][:-1], sizes))
            assert_empty(wire.reply(), 400)


def test_byte_by_byte(broadcaster):
    with Wire(broadcaster) as wire:
        for path in (SUBSCRIBE["glob"], bodies.SET, NOTIFY):
            wire.send_bytewise(message(path, GOOD_BODIES[path]))
            assert wire.reply().status == 200


@pytest.mark.parametrize("path", ENDPOINTS)
def test_expect_continue(broadcaster, path):
    body = GOOD_BODIES[path]
    with Wire(broadcaster) as wire:
        wire.send(head("POST", path, [("Content-Length", len(body)), ("Expect", "100-continue")]))
        assert wire.reply().status == 100
        wire.send(body)
        assert wire.reply().status == (409 if path in UNSUBSCRIBE.values() else 200)


def test_no_body_at_all(broadcaster):
    with Wire(broadcaster) as wire:
        for path in ENDPOINTS:
            wire.send(head("POST", path, []))
            assert_empty(wire.reply(), 400)


def test_keep_alive_and_pipelining(broadcaster):
    """Answers come in the order of the requests, also when those that come first take longest."""
    with Wire(broadcaster) as wire:
        batch = [(path, GOOD_BODIES[path]) for path in ENDPOINTS] * 3
        wire.send(b"".join(message(path, body) for path, body in batch))
        seen = [wire.reply() for _ in batch]
        for (path, _), reply in zip(batch, seen):
            if path == NOTIFY:
                assert bodies.parse_notified(reply.body).count == 0
            elif path == bodies.CHECK:
                bodies.parse_checked(reply.body)
            else:
                assert reply.status == 409 or reply.body == GENERIC
        # the second round finds what the SET of the first has left
        assert [seen[7 + i].status for i in range(4)] == [200, 200, 200, 200]
        wire.send(message(NOTIFY, GOOD_BODIES[NOTIFY], [("Connection", "close")]))
        assert wire.reply().status == 200
        assert wire.at_end()


def test_http_1_0(broadcaster):
    with Wire(broadcaster) as wire:
        body = GOOD_BODIES[NOTIFY]
        wire.send(b"POST /v1/notify HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        assert wire.reply().status == 200
        assert wire.at_end()


def test_headers_that_are_ignored(broadcaster):
    for headers in ({"Content-Type": "text/html"}, {"Authorization": "Bearer x"},
                    {"Authorization": "ä".encode("latin-1")}):
        assert post(broadcaster, NOTIFY, GOOD_BODIES[NOTIFY], headers).status == 200


@pytest.mark.parametrize("garbage", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\r\n\r\nrubbish\r\n\r\n", b"POST\r\n\r\n",
    b"POST /v1/notify HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST /v1/notify HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/notify HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST /v1/notify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    b"POST /v1/notify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
])
def test_no_http(broadcaster, garbage):
    """It is answered with an error or a close, and does not disturb others."""
    with Wire(broadcaster) as wire:
        wire.send(garbage)
        reply = wire.reply()
        assert reply is None or 400 <= reply.status < 500
        assert wire.at_end()
    assert notify(broadcaster, "nobody") == 0


def test_peer_that_leaves_early(broadcaster):
    """At every stage of a request."""
    for path in (NOTIFY, bodies.SET, SUBSCRIBE["exact"]):
        whole = message(path, GOOD_BODIES[path])
        for length in range(1, len(whole), 17):
            with Wire(broadcaster) as wire:
                wire.send(whole[:length])
    assert notify(broadcaster, "nobody") == 0


# ---- Notify ----


def test_notify_without_subscribers(broadcaster):
    reply = post(broadcaster, NOTIFY, bodies.notify("nobody", b"hello"))
    assert (reply.status, reply.content_type) == (200, OCTETS)
    notified = bodies.parse_notified(reply.body)
    assert (notified.authorization, notified.count, notified.identifier) == (b"", 0, bodies.IDENTIFIER)


@pytest.mark.parametrize("identifier", [b"", b"\0", bytes(range(255))])
def test_identifier_is_echoed(broadcaster, identifier):
    reply = post(broadcaster, NOTIFY, bodies.notify("", b"", identifier=identifier))
    assert bodies.parse_notified(reply.body).identifier == identifier


def test_hash_and_length_are_checked(broadcaster, subscriber):
    """Nothing is delivered when they are wrong."""
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    for body in (
            bodies.notify("t", b"hello", sha512=hashlib.sha512(b"hellO").digest()),
            bodies.notify("t", b"", sha512=bytes(64)),
            bodies.notify("t", b"hello", length=4),
            bodies.notify("t", b"hello", length=6),
            bodies.notify("t", b"hello", length=0),
            bodies.notify("t", b"hello", length=2**64 - 1),
            bodies.notify("t", b"hello", length=2**63)):
        assert_empty(post(broadcaster, NOTIFY, body), 400)
        with Wire(broadcaster) as wire:
            wire.send(head("POST", NOTIFY, [("Transfer-Encoding", "chunked")]) + chunked(body, [11]))
            assert_empty(wire.reply(), 400)
    assert subscriber.seen() == []
    assert notify(broadcaster, "t") == 1


def test_content_length_against_the_length_in_the_head(broadcaster):
    """Known to be wrong before the body has come: refused at once."""
    body = bodies.notify("t", b"", length=1000)
    with Wire(broadcaster) as wire:
        wire.send(head("POST", NOTIFY, [("Content-Length", len(body) + 999)]) + body)
        assert_empty(wire.reply(), 400)


def test_tracing_of_the_response(broadcaster):
    """Never empty: the reference's clients crash on that. (doc/protocol/tracing.md, 3)"""
    reply = post(broadcaster, NOTIFY, bodies.notify("nobody", b"hello"))
    c = bodies.Cursor(bodies.parse_notified(reply.body).tracing)
    truncated, count = c.number(1), c.number(2)
    entries = [(c.b16(), c.b16(), c.take(8)) for _ in range(count)]
    received_ns, sent_ns = c.number(8), c.number(8)
    assert c.rest() == b"" and truncated == 0
    assert [(name, extra) for name, extra, _ in entries] == [(b"auth_accepted", b"{}"),
                                                             (b"no_more_subscribers", b"{}")]
    assert received_ns <= sent_ns


# ---- Limits ----


def test_max_message_bytes(start_broadcaster):
    broadcaster = start_broadcaster(limits__max_message_bytes=1000)
    assert notify(broadcaster, "t", b"x" * 1000) == 0
    reply = post(broadcaster, NOTIFY, bodies.notify("t", b"x" * 1001))
    assert_empty(reply, 413)
    with Wire(broadcaster) as wire:  # refused by what the head says; the body is not waited for
        wire.send(head("POST", NOTIFY, [("Content-Length", 2**62)])
                  + bodies.notify("t", b"x", length=2**61))
        assert_empty(wire.reply(), 413)
        assert wire.at_end()
    assert notify(broadcaster, "t", b"x" * 1000) == 0


def test_smaller_limits(start_broadcaster):
    broadcaster = start_broadcaster(limits__max_topic_bytes=10, limits__max_glob_bytes=20,
                                    limits__max_url_bytes=30)
    url = "http://192.0.2.1/".ljust(30, "x")
    topic, glob = "t" * 10, "g" * 20
    accepted = [
        (SUBSCRIBE["exact"], bodies.subscribe(url, topic, url)),
        (SUBSCRIBE["glob"], bodies.subscribe(url, glob, url)),
        (UNSUBSCRIBE["exact"], bodies.unsubscribe(url, topic)),
        (UNSUBSCRIBE["glob"], bodies.unsubscribe(url, glob)),
        (bodies.CHECK, bodies.check(url)),
        (bodies.SET, bodies.set_subscriptions(url, [(topic, url)], [(glob, url)])),
        (NOTIFY, bodies.notify(topic, b"")),
    ]
    for path, body in accepted:
        assert post(broadcaster, path, body).status == 200, path
    refused = [
        (SUBSCRIBE["exact"], bodies.subscribe(url + "x", "a")),
        (SUBSCRIBE["exact"], bodies.subscribe(url, topic + "x")),
        (SUBSCRIBE["exact"], bodies.subscribe(url, "a", url + "x")),
        (SUBSCRIBE["glob"], bodies.subscribe(url + "x", "a")),
        (SUBSCRIBE["glob"], bodies.subscribe(url, glob + "x")),
        (SUBSCRIBE["glob"], bodies.subscribe(url, "a", url + "x")),
        (bodies.CHECK, bodies.check(url + "x")),
        (bodies.SET, bodies.set_subscriptions(url + "x", [])),
        (bodies.SET, bodies.set_subscriptions(url, [topic + "x"])),
        (bodies.SET, bodies.set_subscriptions(url, [], [glob + "x"])),
        (bodies.SET, bodies.set_subscriptions(url, [("a", url + "x")])),
        (NOTIFY, bodies.notify(topic + "x", b"")),
    ]
    for path, body in refused:
        assert_empty(post(broadcaster, path, body), 400)
    # What was subscribed under other limits can be unsubscribed: there is nothing here, but it is asked.
    for kind in ("exact", "glob"):
        assert post(broadcaster, UNSUBSCRIBE[kind],
                    bodies.unsubscribe(url + "x", "k" * 100)).status == 409


def test_long_head(broadcaster):
    reply = request(broadcaster, "POST", NOTIFY + "?" + "x" * 20000, b"")
    assert reply.status in (414, 431)
    assert request(broadcaster, "POST", NOTIFY, b"", {"X": "y" * 20000}).status == 431


def test_slow_peers_are_dropped(start_broadcaster):
    """A head that drips, a body that stops, a connection that idles."""
    broadcaster = start_broadcaster(http__header_timeout="300ms", http__body_idle_timeout="300ms",
                                    http__keepalive_timeout="300ms")
    with Wire(broadcaster) as drips, Wire(broadcaster) as stops, Wire(broadcaster) as idles:
        stops.send(head("POST", NOTIFY, [("Content-Length", 100)]) + b"x")
        drips.send(b"POST /v1/notify HTTP/1.1\r\nX: ")

        def dropped():
            try:
                drips.send(b"x")
            except OSError:
                return True
            return False

        wait_until(dropped, "the end of the connection that drips")
        stops.reply()
        assert stops.at_end()
        assert idles.at_end()


# ---- Workers ----


def test_two_workers(start_broadcaster, subscriber):
    """Any connection may be any worker's; what one has confirmed all know."""
    broadcaster = start_broadcaster(broadcaster__workers=2)
    for i in range(40):
        subscribe(broadcaster, KINDS[i % 2], subscriber.url(f"/{i}"), "topic")
        assert notify(broadcaster, "topic") == i + 1
    for i in range(40):
        unsubscribe(broadcaster, KINDS[i % 2], subscriber.url(f"/{i}"), "topic")
        assert notify(broadcaster, "topic") == 39 - i
    assert len(subscriber.seen()) == sum(range(41)) + sum(range(40))


# ---- Hostile input ----


def mutated(chance, body):
    """`body` with a few bytes changed, dropped or added."""
    body = bytearray(body)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(body) + 1)
        turn = chance.randrange(4)
        if turn == 0:
            body[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif turn == 1:
            del body[at:at + chance.randrange(1, 9)]
        else:
            body[at:at + 1] = bytes([chance.choice((0, 1, 0x7f, 0x80, 0xff, chance.randrange(256)))])
    return bytes(body)


@pytest.mark.parametrize("path", ENDPOINTS)
def test_mutations(start_broadcaster, dead_url, path):
    """Each is answered, and never with an error of ours. What comes to be subscribed is not called."""
    broadcaster = start_broadcaster(webhook__proxy=dead_url[:-2])
    chance = random.Random(path)
    sizes = [[100000], [1], [5, 70]]
    with contextlib.ExitStack() as wires:
        wire = wires.enter_context(Wire(broadcaster))
        for i in range(300):
            body = mutated(chance, GOOD_BODIES[path])
            if i % 2:
                wire.send(message(path, body))
            else:
                wire.send(head("POST", path, [("Transfer-Encoding", "chunked")])
                          + chunked(body, sizes[i // 2 % 3]))
            reply = wire.reply()
            assert reply.status in (200, 400, 409), (reply, body)
            assert (reply.body == b"") == (reply.status != 200)
            if reply.headers.get("connection") == "close":
                wire = wires.enter_context(Wire(broadcaster))
    assert post(broadcaster, NOTIFY, GOOD_BODIES[NOTIFY]).status == 200


def test_refused_body_is_read_to_its_end(start_broadcaster):
    """So that a peer that sends first and reads then sees why; the connection goes on."""
    broadcaster = start_broadcaster(limits__max_message_bytes=1000)
    with Wire(broadcaster) as wire:
        for _ in range(2):
            wire.send(message(NOTIFY, bodies.notify("t", bytes(900000))))
            assert_empty(wire.reply(), 413)
        wire.send(message(NOTIFY, bodies.notify("t", b"")))
        assert wire.reply().status == 200


def test_pipelined_behind_one_that_waits(start_broadcaster, start_subscriber):
    """A later request does not overtake."""
    broadcaster, leave = start_broadcaster(), threading.Event()
    server = start_subscriber(scripted.after(leave))
    subscribe(broadcaster, "exact", server.url(), "t")
    with Wire(broadcaster) as wire:
        wire.send(message(NOTIFY, bodies.notify("t", b"", identifier=b"first"))
                  + message(bodies.CHECK, bodies.check(URL))
                  + message(NOTIFY, bodies.notify("nobody", b"", identifier=b"last")))
        server.wait_for(1)
        leave.set()
        assert bodies.parse_notified(wire.reply().body)[2:] == (1, b"first")
        bodies.parse_checked(wire.reply().body)
        assert bodies.parse_notified(wire.reply().body)[2:] == (0, b"last")
