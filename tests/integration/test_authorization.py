"""Authorization none, token and hmac in both directions, with scripted peers. With the reference client it is in
test_reference_client.py.
"""

import base64
import http.client
import itertools
import json
import os
import signal
import time

import pytest

import authorization as auth
import bodies
from authorization import Secrets, header
from conftest import setup_folder, wait_until
from wire import Wire, message, post

SCHEMES = ["none", "token", "hmac"]
PAIRS = list(itertools.product(SCHEMES, SCHEMES))
URL = "http://127.0.0.1:9/r"


@pytest.fixture
def start(start_broadcaster, tmp_path):
    """start(to_broadcaster, to_subscriber, **settings): a broadcaster and its secrets."""

    def begin(to_broadcaster="hmac", to_subscriber="hmac", name="broadcaster", **settings):
        folder = tmp_path / name
        if not folder.exists():
            setup_folder(folder, to_broadcaster=to_broadcaster, to_subscriber=to_subscriber)
        broadcaster = start_broadcaster(folder, **settings)
        broadcaster.secrets = Secrets(folder)
        return broadcaster

    return begin


# ---- Requests and replies ----


def requests_of(url=URL, topic="t", glob="g*", recovery="http://127.0.0.1:9/m", tracing=b"trace"):
    """path -> (body, what is signed, reader of the reply's fields: type, what its reply signs)"""
    etag = bodies.etag(url, [topic], [])
    empty = bodies.etag(url, [], [])
    return {
        bodies.SUBSCRIBE["exact"]: (
            bodies.subscribe(url, topic, recovery, tracing),
            ("subscribe exact", *auth.of_subscription(url, topic, recovery)),
            ("confirm subscribe exact", *auth.of_subscription(url, topic, recovery))),
        bodies.SUBSCRIBE["glob"]: (
            bodies.subscribe(url, glob, recovery, tracing),
            ("subscribe glob", *auth.of_subscription(url, glob, recovery)),
            ("confirm subscribe glob", *auth.of_subscription(url, glob, recovery))),
        bodies.UNSUBSCRIBE["exact"]: (
            bodies.unsubscribe(url, topic, tracing),
            ("subscribe exact", *auth.of_subscription(url, topic)),
            ("confirm subscribe exact", *auth.of_subscription(url, topic))),
        bodies.UNSUBSCRIBE["glob"]: (
            bodies.unsubscribe(url, glob, tracing),
            ("subscribe glob", *auth.of_subscription(url, glob)),
            ("confirm subscribe glob", *auth.of_subscription(url, glob))),
        bodies.CHECK: (
            bodies.check(url, tracing), ("check", bodies.b16(url)), ("checked", b"\0" + empty)),
        bodies.SET: (
            bodies.set_subscriptions(url, [topic], tracing=tracing),
            ("set", bodies.b16(url), b"\0" + etag), ("was set", b"\0" + etag)),
        bodies.NOTIFY: (
            bodies.notify("other", b"hello", tracing=tracing),
            ("notify", *auth.of_notify("other", b"hello", bodies.IDENTIFIER)),
            ("confirm notify", *auth.of_notified(bodies.IDENTIFIER, 0, "other", b"hello"))),
    }


def reply_parts(body):
    """authorization, tracing"""
    c = bodies.Cursor(body)
    c.number(2)
    return c.b16().decode(), c.b16()


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_request_and_reply(start, pair):
    broadcaster = start(*pair)
    secrets = broadcaster.secrets
    for path, (body, signed, answer) in requests_of().items():
        text = secrets.to_broadcaster.sign(*signed, tracing=b"trace")
        reply = post(broadcaster, path, body, header(text))
        assert reply.status == 200, (path, reply)
        given, tracing = reply_parts(reply.body)
        assert secrets.to_subscriber.is_good(given, *answer, tracing=tracing), (path, given)


@pytest.mark.parametrize("scheme", ["token", "hmac"])
def test_refusals(start, scheme):
    """No header 401, a bad one 403, both without a body and after 400; nothing is done."""
    broadcaster = start(scheme, "none")
    direction = broadcaster.secrets.to_broadcaster
    for path, (body, signed, _) in requests_of().items():
        good = direction.sign(*signed, tracing=b"trace")
        wrong = ["", "Bearer", "Bearer x", "X-HMAC ", "X-HMAC a:b:c", good + "x", good.lower(),
                 " ".join(good.split(" ") * 2), "Bearer \xe9"]
        assert post(broadcaster, path, body)[::2] == (401, b"")
        for text in wrong:
            assert post(broadcaster, path, body, {"Authorization": text})[::2] == (403, b""), text
        assert post(broadcaster, path, body[:3], {"Authorization": "x"}).status == 400
        twice = message(path, body, [("Authorization", "x"), ("Authorization", good)])
        with Wire(broadcaster) as wire:
            wire.send(twice)
            assert wire.reply().status == 403
        if scheme == "hmac":
            other = direction.sign(*signed, tracing=b"other")
            assert post(broadcaster, path, body, header(other)).status == 403
    for table in ("exacts", "globs"):
        assert broadcaster.query(f"SELECT * FROM httppubsub_subscription_{table}") == []
    assert not any(direction.secret in line for line in broadcaster.err)


def test_notify_is_refused_before_its_body(start):
    """The head is enough, and so is that of SET."""
    broadcaster = start()
    notify_head = bodies.notify("t", b"", sha512=bytes(64), length=1 << 30)
    set_head = bodies.set_subscriptions(URL, ["t"])[:2 + 2 + len(URL) + 65 + 4]
    for path, head, length in ((bodies.NOTIFY, notify_head, len(notify_head) + (1 << 30)),
                               (bodies.SET, set_head, 1 << 30)):
        with Wire(broadcaster) as wire:
            wire.send(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                      % (path.encode(), length) + head)
            assert wire.reply().status == 401


def test_secret_of_the_other_direction(start):
    broadcaster = start()
    body, signed, _ = requests_of()[bodies.CHECK]
    text = broadcaster.secrets.to_subscriber.sign(*signed, tracing=b"trace")
    assert post(broadcaster, bodies.CHECK, body, header(text)).status == 403


@pytest.mark.parametrize("skew,status", [(-125, 403), (-110, 200), (110, 200), (125, 403)])
def test_clock_skew(start, skew, status):
    broadcaster = start()
    body, signed, _ = requests_of()[bodies.CHECK]

    def answer():
        """None when it was so long under way that the skew was another one."""
        now = time.time()
        text = broadcaster.secrets.to_broadcaster.sign(*signed, tracing=b"trace", at=now + skew)
        found = post(broadcaster, bodies.CHECK, body, header(text)).status
        return found if time.time() - now < 4 else None

    assert wait_until(answer, "an answer without delay") == status


# ---- Replays ----


def signed_subscribe(broadcaster, topic="t", at=None):
    text = broadcaster.secrets.to_broadcaster.sign(
        "subscribe exact", *auth.of_subscription(URL, topic), at=at)
    return bodies.SUBSCRIBE["exact"], bodies.subscribe(URL, topic), header(text)


def test_replay(start):
    broadcaster = start()
    for path, (body, signed, _) in requests_of().items():
        text = header(broadcaster.secrets.to_broadcaster.sign(*signed, tracing=b"trace"))
        assert post(broadcaster, path, body, text).status == 200
        assert post(broadcaster, path, body, text).status == 403, path


def test_replay_with_another_spelling(start):
    """The last character before the padding has bits that nobody reads: still the same mac."""
    broadcaster = start()
    path, body, headers = signed_subscribe(broadcaster)
    assert post(broadcaster, path, body, headers).status == 200
    text = headers["Authorization"]
    for last in "ABCDEFGH":
        other = text[:-3] + last + "=="
        assert post(broadcaster, path, body, header(other)).status == 403


def test_a_bad_request_uses_no_mac_up(start):
    broadcaster = start()
    path, body, headers = signed_subscribe(broadcaster)
    assert post(broadcaster, path, body + b"", {"Authorization": "x"}).status == 403
    assert post(broadcaster, bodies.UNSUBSCRIBE["glob"], bodies.unsubscribe(URL, "t"),
                headers).status == 403
    assert post(broadcaster, path, body, headers).status == 200


def test_replays_at_once(start):
    """Many connections and workers, one winner."""
    broadcaster = start(broadcaster__workers=4)
    path, body, headers = signed_subscribe(broadcaster)
    connections = [http.client.HTTPConnection("127.0.0.1", broadcaster.port) for _ in range(24)]
    for connection in connections:
        connection.connect()
    for connection in connections:
        connection.request("POST", path, body, headers)
    statuses = [connection.getresponse().status for connection in connections]
    for connection in connections:
        connection.close()
    assert sorted(statuses) == [200] + [403] * 23


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_replay_after_a_restart(start, number):
    first = start()
    request = signed_subscribe(first)
    assert post(first, *request).status == 200
    first.signal(number)
    first.wait()
    assert first.query("SELECT count(*) FROM lonely_processes") == [(number == signal.SIGKILL,)]
    second = start()
    assert post(second, *request).status == 403
    unclean = any("unclean_stop" in line for line in second.err)
    assert unclean == (number == signal.SIGKILL)
    # Signed before the start, never seen: refused only after a stop that may have lost macs.
    before = signed_subscribe(second, "u", at=time.time() - 60)
    assert post(second, *before).status == (403 if unclean else 200)
    wait_until(lambda: post(second, *signed_subscribe(second, "v")).status in (200, 409),
               "the end of the second of the start")
    assert second.query("SELECT count(*) FROM lonely_processes") == [(1,)]


def test_replay_to_a_second_broadcaster(start, start_broadcaster):
    first = start()
    second = start()
    request = signed_subscribe(first)
    assert post(first, *request).status == 200
    assert post(second, *request).status == 403
    # NOTIFY does not wait for its mac to be written.
    body, signed, _ = requests_of()[bodies.NOTIFY]
    text = header(first.secrets.to_broadcaster.sign(*signed, tracing=b"trace"))
    used = first.query("SELECT count(*) FROM lonely_hmacs")
    assert post(second, bodies.NOTIFY, body, text).status == 200
    wait_until(lambda: first.query("SELECT count(*) FROM lonely_hmacs") > used, "the written mac")
    assert post(first, bodies.NOTIFY, body, text).status == 403
    assert not any("unclean_stop" in line for line in second.err)


@pytest.mark.parametrize("kept", ["memory", "none"])
def test_other_replay_stores(start, kept):
    broadcaster = start(auth__replay_store=kept)
    body, signed, _ = requests_of()[bodies.CHECK]
    text = header(broadcaster.secrets.to_broadcaster.sign(*signed, tracing=b"trace"))
    assert post(broadcaster, bodies.CHECK, body, text).status == 200
    assert post(broadcaster, bodies.CHECK, body, text).status == (403 if kept == "memory" else 200)
    assert broadcaster.query("SELECT count(*) FROM lonely_hmacs") == [(0,)]


def test_hmac_on_the_memory_store(start):
    broadcaster = start(database__type="memory")
    request = signed_subscribe(broadcaster)
    assert post(broadcaster, *request).status == 200
    assert post(broadcaster, *request).status == 403


# ---- Secrets that change ----


def subscribe_status(broadcaster, secrets, topic):
    text = secrets.to_broadcaster.sign("subscribe exact", *auth.of_subscription(URL, topic))
    return post(broadcaster, bodies.SUBSCRIBE["exact"], bodies.subscribe(URL, topic),
                header(text)).status


def hang_up(broadcaster, event):
    before = len(broadcaster.err)
    broadcaster.signal(signal.SIGHUP)
    wait_until(lambda: any(event in line for line in broadcaster.err[before:]), event)


@pytest.mark.parametrize("scheme", ["token", "hmac"])
def test_rotation(start, tmp_path, scheme):
    broadcaster = start(scheme, scheme)
    config, old = broadcaster.folder / "lonelypss.ini", broadcaster.secrets
    new_folder = setup_folder(tmp_path / "new", to_broadcaster=scheme, to_subscriber=scheme)
    new = Secrets(new_folder)
    mine, theirs = (f / "broadcaster-secrets.json" for f in (broadcaster.folder, new_folder))
    plain = config.read_text()

    def accept(path):
        config.write_text(plain.replace("#also_accept = none", f"also_accept = {path}"))
        hang_up(broadcaster, "reloaded")

    assert subscribe_status(broadcaster, new, "0") == 403
    accept(theirs)  # both are accepted, the old one still signs
    assert [subscribe_status(broadcaster, s, f"1{s is old}") for s in (old, new)] == [200, 200]
    old_copy = broadcaster.folder / "old.json"
    mine.rename(old_copy)
    old_copy.chmod(0o600)
    mine.write_bytes(theirs.read_bytes())
    accept("old.json")  # the new one signs
    assert [subscribe_status(broadcaster, s, f"2{s is old}") for s in (old, new)] == [200, 200]
    config.write_text(plain)
    hang_up(broadcaster, "reloaded")
    assert [subscribe_status(broadcaster, s, f"3{s is old}") for s in (old, new)] == [403, 200]


@pytest.mark.parametrize("text", ["", "{}x", '{"version": "2", "to-broadcaster": {"type": "x"}}'])
def test_bad_secrets_on_sighup(start, text):
    broadcaster = start()
    secrets = broadcaster.folder / "broadcaster-secrets.json"
    good = secrets.read_text()
    secrets.write_text(text)
    hang_up(broadcaster, "reload_failed")
    assert len([line for line in broadcaster.err if "reload_failed" in line]) == 1
    assert subscribe_status(broadcaster, broadcaster.secrets, "t") == 200
    secrets.write_text(good)
    hang_up(broadcaster, "reloaded")
    assert subscribe_status(broadcaster, broadcaster.secrets, "u") == 200


def test_an_accepted_file_without_secret_opens_nothing(start, tmp_path):
    other = setup_folder(tmp_path / "open") / "broadcaster-secrets.json"
    broadcaster = start(auth__also_accept=other)
    body, _, _ = requests_of()[bodies.CHECK]
    assert post(broadcaster, bodies.CHECK, body).status == 401


def test_log_options_on_sighup(start):
    broadcaster = start()
    config = broadcaster.folder / "lonelypss.ini"
    config.write_text(config.read_text().replace("#format = text", "format = json"))
    hang_up(broadcaster, "reloaded")
    line = next(line for line in broadcaster.err if "reloaded" in line)
    assert json.loads(line)["event"] == "reloaded"


# ---- RECEIVE and MISSED ----


def signed_notify(broadcaster, topic, data=b"hello"):
    """How many were notified."""
    text = broadcaster.secrets.to_broadcaster.sign(
        "notify", *auth.of_notify(topic, data, bodies.IDENTIFIER))
    reply = post(broadcaster, bodies.NOTIFY, bodies.notify(topic, data), header(text))
    assert reply.status == 200
    return bodies.parse_notified(reply.body).count


def signed_subscription(broadcaster, url, topic, recovery=""):
    text = broadcaster.secrets.to_broadcaster.sign(
        "subscribe exact", *auth.of_subscription(url, topic, recovery))
    reply = post(broadcaster, bodies.SUBSCRIBE["exact"], bodies.subscribe(url, topic, recovery),
                 header(text))
    assert reply.status == 200


def header_of(call):
    return [value for name, value in call.headers if name == "authorization"]


def confirms_as(direction, url, count=3, tracing=b"tr", wrong=None):
    """Confirms a RECEIVE with what `direction` signs; `wrong` spoils it."""

    def behave(call):
        identifier = call.receive.identifier
        text = direction.sign("confirm receive", *auth.of_confirmation(identifier, count, url),
                              tracing=tracing)
        if wrong is not None:
            text = wrong(text)
        call.reply(bodies.confirm_receive(identifier, count, text.encode(), tracing))

    return behave


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_receive(start, subscriber, pair):
    broadcaster = start(*pair)
    secrets = broadcaster.secrets
    url = subscriber.url("/r?q=1#fragment")  # signed with its fragment, which is not sent
    subscriber.on("/r?q=1", confirms_as(secrets.to_broadcaster, url))
    signed_subscription(broadcaster, url, "t")
    for n in (1, 2):
        assert signed_notify(broadcaster, "t") == 3
        call = subscriber.wait_for(n)[n - 1]
        given = header_of(call)
        assert len(given) == (pair[1] != "none")
        assert secrets.to_subscriber.is_good(
            given[0] if given else "", "receive", *auth.of_receive(url, call.receive),
            tracing=call.receive.tracing)
    assert pair[1] != "hmac" or len({header_of(c)[0] for c in subscriber.seen()}) == 2


@pytest.mark.parametrize("scheme,wrong", [
    ("hmac", lambda text: ""),
    ("hmac", lambda text: text.replace(":n", ":m", 1)),
    ("hmac", lambda text: "Bearer x"),
    ("token", lambda text: ""),
    ("token", lambda text: text + "x"),
], ids=["hmac-absent", "hmac-wrong", "hmac-token", "token-absent", "token-wrong"])
def test_confirmation_that_is_not_good(start, subscriber, scheme, wrong):
    """Counts as failed: nothing is notified, MISSED is pending, the subscription stays."""
    broadcaster = start(scheme, "none")
    direction = broadcaster.secrets.to_broadcaster
    url = subscriber.add("/r", confirms_as(direction, subscriber.url("/r"), wrong=wrong))
    signed_subscription(broadcaster, url, "t", subscriber.url("/m"))
    assert signed_notify(broadcaster, "t") == 0
    assert broadcaster.query(
        "SELECT missed_attempts FROM httppubsub_subscription_exacts") == [(0,)]
    subscriber.on("/r", confirms_as(direction, url))
    assert signed_notify(broadcaster, "t") == 3


def test_confirmation_is_good_once(start, subscriber):
    broadcaster = start("hmac", "none")
    kept = []

    def repeats(call):
        if not kept:
            identifier = call.receive.identifier
            text = broadcaster.secrets.to_broadcaster.sign(
                "confirm receive", *auth.of_confirmation(identifier, 1, url))
            kept.append(bodies.confirm_receive(identifier, 1, text.encode()))
        call.reply(kept[0])

    url = subscriber.add("/r", repeats)
    signed_subscription(broadcaster, url, "t")
    assert [signed_notify(broadcaster, "t") for _ in range(2)] == [1, 0]


def test_unsubscribe_immediate_needs_no_authorization(start, subscriber):
    broadcaster = start()
    url = subscriber.add("/r", lambda call: call.reply(bodies.UNSUBSCRIBE_IMMEDIATE))
    signed_subscription(broadcaster, url, "t")
    assert signed_notify(broadcaster, "t") == 0
    assert broadcaster.query("SELECT * FROM httppubsub_subscription_exacts") == []


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_missed(start, subscriber, pair):
    """Signed anew for each try; a reply that is not good does not confirm."""
    broadcaster = start(*pair, missed__sweep_missed_interval="100ms", missed__expo_factor=0,
                        missed__constant=0, missed__jitter=0)
    secrets = broadcaster.secrets
    recovery = subscriber.url("/m#1")

    def confirms(call):
        text = secrets.to_broadcaster.sign(
            "confirm missed", *auth.of_missed_confirmation("t", recovery), tracing=b"tr")
        first = len(subscriber.seen("/m")) == 1
        if first and pair[0] == "none":
            call.reply(b"")
        else:
            call.reply(bodies.confirm_missed((text[:-4] if first else text).encode(), b"tr"))

    subscriber.on("/m", confirms)
    url = subscriber.add("/r", lambda call: call.reply(b""))
    signed_subscription(broadcaster, url, "t", recovery)
    assert signed_notify(broadcaster, "t") == 0
    wait_until(lambda: broadcaster.query(
        "SELECT missed_next_retry_at FROM httppubsub_subscription_exacts") == [(None,)],
        "the confirmation")
    calls = subscriber.seen("/m")
    assert len(calls) == 2
    for call in calls:
        given = header_of(call)
        assert secrets.to_subscriber.is_good(given[0] if given else "", "missed",
                                             *auth.of_missed(recovery, call.missed.topic),
                                             tracing=call.missed.tracing)
    assert pair[1] != "hmac" or header_of(calls[0]) != header_of(calls[1])


# ---- The store behind it ----


MANY = ("INSERT INTO lonely_hmacs (mac, expires_at) SELECT randomblob(16), strftime('%s', 'now') + 100"
        " FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
        " SELECT i FROM n)")


def test_many_macs_of_others(start, subscriber):
    """More than a loop reads by itself: requests and confirmations wait for a thread of the store."""
    broadcaster = start()
    secrets = broadcaster.secrets
    for path, (body, signed, _) in requests_of().items():
        text = header(secrets.to_broadcaster.sign(*signed, tracing=b"trace"))
        broadcaster.query(MANY)
        assert post(broadcaster, path, body, text).status == 200, path
        broadcaster.query(MANY)
        assert post(broadcaster, path, body, text).status == 403, path

    def confirms(call):
        broadcaster.query(MANY)
        confirms_as(secrets.to_broadcaster, url)(call)

    url = subscriber.add("/r", confirms)
    signed_subscription(broadcaster, url, "many")
    assert signed_notify(broadcaster, "many") == 3
    broadcaster.query(MANY)
    data = os.urandom(20 << 20)  # goes on while the check waits
    assert signed_notify(broadcaster, "many", data) == 3
    assert subscriber.seen()[1].receive.message == data


def test_a_peer_that_leaves_while_its_check_waits(start):
    broadcaster = start()
    body = bodies.notify("t", b"x" * 100000)
    text = broadcaster.secrets.to_broadcaster.sign(
        "notify", *auth.of_notify("t", b"x" * 100000, bodies.IDENTIFIER))
    for cut in (len(body) - 1, 200):
        broadcaster.query(MANY)
        with Wire(broadcaster) as wire:
            wire.send(message(bodies.NOTIFY, body, [("Authorization", text)])[:cut - len(body)])
    broadcaster.query(MANY)
    assert subscribe_status(broadcaster, broadcaster.secrets, "t") == 200


def test_mac_that_another_broadcaster_used(start):
    broadcaster = start()
    path, body, headers = signed_subscribe(broadcaster)
    stamp, _, mac = headers["Authorization"].removeprefix("X-HMAC ").split(":")
    broadcaster.query("INSERT INTO lonely_hmacs (mac, expires_at) VALUES (?, ?)",
                      base64.b64decode(mac)[:16], int(stamp) + 121)
    assert post(broadcaster, path, body, headers).status == 403


def test_database_that_is_gone(start):
    """No verdict without the macs of others."""
    broadcaster = start()
    aside = broadcaster.database.with_suffix(".aside")
    body, signed, _ = requests_of()[bodies.NOTIFY]

    def status():
        text = broadcaster.secrets.to_broadcaster.sign(*signed, tracing=b"trace")
        return post(broadcaster, bodies.NOTIFY, body, header(text)).status

    assert status() == 200
    broadcaster.database.rename(aside)
    wait_until(lambda: status() == 503, "503")
    aside.rename(broadcaster.database)
    wait_until(lambda: status() == 200, "200")
