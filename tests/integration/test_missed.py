"""MISSED: after a failed delivery the recovery URL is told until it confirms; the subscription stays.
(doc/protocol/http.md, 4 and 11)

Due times are whole seconds, rounded up, so a try may be a second away.
"""

import threading
import time

import pytest

import bodies
import subscriber as scripted
from conftest import PATIENCE, wait_until
from wire import Wire, message, notify, post, subscribe

FAST = {
    "missed__sweep_missed_interval": "100ms", "missed__expo_factor": 0, "missed__constant": 0,
    "missed__jitter": 0,
}
TABLES = {"exact": "httppubsub_subscription_exacts", "glob": "httppubsub_subscription_globs"}


def pending(broadcaster, kind="exact"):
    """(attempts, locked) of each subscription that has something pending."""
    return broadcaster.query("SELECT missed_attempts, missed_lock_id IS NOT NULL FROM"
                             f" {TABLES[kind]} WHERE missed_next_retry_at IS NOT NULL")


def wait_for_nothing_pending(broadcaster, kind="exact"):
    wait_until(lambda: pending(broadcaster, kind) == [], "nothing pending")


@pytest.mark.parametrize("kind", ["exact", "glob"])
def test_repeated_until_confirmed(start_broadcaster, subscriber, kind):
    """The reference takes every reply for a failure and then deletes the subscription (Q7)."""
    broadcaster = start_broadcaster(**FAST)
    deliveries = iter([scripted.short])
    url = subscriber.add("/r", lambda c: next(deliveries, scripted.good)(c))
    tries = iter([scripted.closes, scripted.replies(bodies.GENERIC, 200)])
    subscriber.on("/m", lambda c: next(tries, scripted.confirms_missed)(c))
    subscribe(broadcaster, kind, url, "topic", subscriber.url("/m#x"))
    assert notify(broadcaster, "topic", b"lost") == 0
    for call in subscriber.wait_for(3, "/m"):
        assert call.method == "POST"
        assert call.missed == (b"", b"topic")
        headers = dict(call.headers)
        assert headers["content-type"] == bodies.OCTETS
        assert headers["content-length"] == str(len(call.body))
        assert "repr-digest" not in headers and "authorization" not in headers
    wait_for_nothing_pending(broadcaster, kind)
    assert notify(broadcaster, "topic") == 1
    assert len(subscriber.seen("/m")) == 3


@pytest.mark.parametrize("failure", [scripted.closes, scripted.replies(b"rubbish"), scripted.short,
                                     scripted.replies(b"", 500)])
def test_every_failure_counts(start_broadcaster, subscriber, failure):
    broadcaster = start_broadcaster(**FAST)
    subscriber.on("/m", scripted.confirms_missed)
    subscribe(broadcaster, "exact", subscriber.add("/r", failure), "t", subscriber.url("/m"))
    notify(broadcaster, "t")
    subscriber.wait_for(1, "/m")
    wait_for_nothing_pending(broadcaster)


def test_unreachable_subscriber(start_broadcaster, subscriber, dead_url):
    broadcaster = start_broadcaster(**FAST)
    subscribe(broadcaster, "exact", dead_url, "t", subscriber.add("/m", scripted.confirms_missed))
    subscribe(broadcaster, "exact", "not a url", "t", subscriber.url("/m"))
    assert notify(broadcaster, "t") == 0
    subscriber.wait_for(2, "/m")
    wait_for_nothing_pending(broadcaster)


def test_nothing_to_tell(start_broadcaster, subscriber, dead_url):
    """No recovery URL, or a message that arrived, or was declined."""
    broadcaster = start_broadcaster(missed__sweep_missed_interval="1h")
    recovery = subscriber.url("/m")
    subscribe(broadcaster, "exact", dead_url, "t")
    subscribe(broadcaster, "exact", subscriber.url("/good"), "t", recovery)
    subscribe(broadcaster, "exact", subscriber.add("/zero", scripted.confirms(0)), "t", recovery)
    subscribe(broadcaster, "exact", subscriber.add("/leaves", scripted.unsubscribes), "t", recovery)
    assert notify(broadcaster, "t") == 1
    assert pending(broadcaster) == []
    assert broadcaster.query("SELECT COUNT(*) FROM httppubsub_subscription_exacts") == [(3,)]


def test_no_retries(start_broadcaster, subscriber, dead_url):
    broadcaster = start_broadcaster(missed__max_retries=0)
    subscribe(broadcaster, "exact", dead_url, "t", subscriber.url("/m"))
    assert notify(broadcaster, "t") == 0
    assert pending(broadcaster) == []


def test_success_later_does_not_clear(start_broadcaster, subscriber):
    """The message before is still unknown to the subscriber."""
    broadcaster = start_broadcaster(missed__sweep_missed_interval="1h")
    turns = iter([scripted.closes])
    url = subscriber.add("/r", lambda c: next(turns, scripted.good)(c))
    subscribe(broadcaster, "exact", url, "t", subscriber.url("/m"))
    assert [notify(broadcaster, "t"), notify(broadcaster, "t")] == [0, 1]
    assert pending(broadcaster) == [(0, 0)]


def test_the_last_topic_of_a_glob(start_broadcaster, subscriber, dead_url):
    broadcaster = start_broadcaster(missed__sweep_missed_interval="100ms", missed__expo_factor=0,
                                    missed__constant=1, missed__jitter=0)
    subscribe(broadcaster, "glob", dead_url, "t*", subscriber.add("/m", scripted.confirms_missed))
    for topic in ("t1", "t2"):
        assert notify(broadcaster, topic) == 0
    assert subscriber.wait_for(1, "/m")[-1].missed.topic in (b"t1", b"t2")
    wait_for_nothing_pending(broadcaster, "glob")
    assert subscriber.seen("/m")[-1].missed.topic == b"t2"


def test_given_up(start_broadcaster, subscriber, dead_url):
    """After max_retries; the subscription stays even then."""
    broadcaster = start_broadcaster(**FAST, missed__max_retries=2)
    subscribe(broadcaster, "exact", dead_url, "t", subscriber.add("/m", scripted.replies(b"no")))
    assert notify(broadcaster, "t") == 0
    wait_for_nothing_pending(broadcaster)
    assert len(subscriber.seen("/m")) == 2
    assert broadcaster.query("SELECT url FROM httppubsub_subscription_exacts") == [(dead_url,)]


def test_attempts_are_counted_and_delays_grow(start_broadcaster, subscriber, dead_url):
    broadcaster = start_broadcaster(missed__sweep_missed_interval="100ms", missed__expo_factor=1000,
                                    missed__expo_base=0, missed__constant=0, missed__jitter=0)
    subscribe(broadcaster, "exact", dead_url, "t", subscriber.add("/m", scripted.replies(b"no")))
    assert notify(broadcaster, "t") == 0  # 0 to the 0th power is 1: due in 1,000 s
    due, = broadcaster.query("SELECT missed_next_retry_at FROM httppubsub_subscription_exacts")[0]
    broadcaster.query("UPDATE httppubsub_subscription_exacts SET missed_next_retry_at = 1")
    subscriber.wait_for(1, "/m")
    wait_until(lambda: pending(broadcaster)[0][0] >= 1, "an attempt that is counted")
    later, = broadcaster.query("SELECT missed_next_retry_at FROM httppubsub_subscription_exacts")[0]
    assert due - 1000 <= later <= due - 1000 + 60


def test_unsubscribe_immediate_as_the_reply(start_broadcaster, subscriber, dead_url):
    broadcaster = start_broadcaster(**FAST)
    recovery = subscriber.add("/m", scripted.unsubscribes)
    subscribe(broadcaster, "exact", dead_url, "t", recovery)
    subscribe(broadcaster, "exact", subscriber.url("/r"), "t", recovery)
    assert notify(broadcaster, "t") == 1
    wait_until(lambda: broadcaster.query("SELECT url FROM httppubsub_subscription_exacts")
               == [(subscriber.url("/r"),)], "the end of the subscription")


def test_unsubscribing_drops_what_is_pending(start_broadcaster, subscriber, dead_url):
    broadcaster = start_broadcaster(missed__sweep_missed_interval="1h")
    subscribe(broadcaster, "exact", dead_url, "t", subscriber.url("/m"))
    assert notify(broadcaster, "t") == 0
    body = bodies.unsubscribe(dead_url, "t")
    assert post(broadcaster, bodies.UNSUBSCRIBE["exact"], body).status == 200
    subscribe(broadcaster, "exact", dead_url, "t", subscriber.url("/m"))
    assert pending(broadcaster) == []


def test_set_keeps_what_is_pending(start_broadcaster, subscriber, dead_url):
    broadcaster = start_broadcaster(missed__sweep_missed_interval="1h")
    subscribe(broadcaster, "exact", dead_url, "t", subscriber.url("/m"))
    assert notify(broadcaster, "t") == 0
    body = bodies.set_subscriptions(dead_url, [("t", subscriber.url("/m2")), "u"])
    assert post(broadcaster, bodies.SET, body).status == 200
    assert pending(broadcaster) == [(0, 0)]


def test_survives_a_restart(start_broadcaster, subscriber, dead_url):
    first = start_broadcaster(**{**FAST, "missed__sweep_missed_interval": "1h"})
    subscribe(first, "exact", dead_url, "t", subscriber.add("/m", scripted.confirms_missed))
    assert notify(first, "t") == 0
    first.kill()
    second = start_broadcaster(first.folder, **FAST)
    subscriber.wait_for(1, "/m")
    wait_for_nothing_pending(second)


def test_never_twice_at_once(start_broadcaster, subscriber, dead_url):
    """Two broadcasters sweep one database. While one waits for the first recovery URL, the other one goes
    on sweeping, as the later ones show, and leaves the first alone."""
    first = start_broadcaster(**FAST)
    second = start_broadcaster(first.folder, **FAST)
    leave = threading.Event()
    subscribe(first, "exact", dead_url, "t0",
              subscriber.add("/m0", scripted.after(leave, scripted.confirms_missed)))
    assert notify(second, "t0") == 0
    subscriber.wait_for(1, "/m0")
    for i in (1, 2):
        recovery = subscriber.add(f"/m{i}", scripted.confirms_missed)
        subscribe(second, "exact", dead_url, f"t{i}", recovery)
        assert notify(first, f"t{i}") == 0
        subscriber.wait_for(1, f"/m{i}")
    assert len(subscriber.seen("/m0")) == 1
    leave.set()
    wait_for_nothing_pending(first)
    assert len(subscriber.seen()) == 3


def test_a_sweep_does_not_wait_for_its_calls(start_broadcaster, subscriber, dead_url):
    """One recovery URL that hangs delays no other."""
    broadcaster = start_broadcaster(**FAST)
    subscribe(broadcaster, "exact", dead_url, "hangs", subscriber.add("/hangs", scripted.hangs))
    assert notify(broadcaster, "hangs") == 0
    subscriber.wait_for(1, "/hangs")
    for i in range(3):
        recovery = subscriber.add(f"/m{i}", scripted.confirms_missed)
        subscribe(broadcaster, "exact", dead_url, f"t{i}", recovery)
        assert notify(broadcaster, f"t{i}") == 0
        subscriber.wait_for(1, f"/m{i}")
    wait_until(lambda: pending(broadcaster) == [(0, 1)], "nothing but the one that hangs")
    assert len(subscriber.seen("/hangs")) == 1


def test_the_lock_lasts_as_long_as_it_should(start_broadcaster, subscriber, dead_url):
    broadcaster = start_broadcaster(**FAST, database__missed_lock_time="1000s")
    subscribe(broadcaster, "exact", dead_url, "t", subscriber.add("/m", scripted.hangs))
    assert notify(broadcaster, "t") == 0
    before = time.time()
    subscriber.wait_for(1, "/m")
    expires, = broadcaster.query("SELECT missed_lock_expires_at FROM httppubsub_subscription_exacts")[0]
    assert before - PATIENCE + 1000 <= expires <= time.time() + 1001


def test_a_call_whose_turn_comes_late_is_left_to_the_next_sweep(start_broadcaster, subscriber,
                                                                dead_url):
    """Its lock might run out before it ends, and another broadcaster send it as well. Here a delivery to
    the same URL keeps it waiting."""
    broadcaster = start_broadcaster(**FAST, webhook__max_per_url=1, database__missed_lock_time="3s")
    leave, leave_too = threading.Event(), threading.Event()
    turns = iter([scripted.after(leave), scripted.after(leave_too, scripted.confirms_missed)])
    url = subscriber.add("/m", lambda c: next(turns)(c))
    subscribe(broadcaster, "exact", url, "in the way")
    subscribe(broadcaster, "exact", dead_url, "t", url)
    with Wire(broadcaster) as wire:
        wire.send(message(bodies.NOTIFY, bodies.notify("in the way", b"")))
        subscriber.wait_for(1, "/m")
        assert notify(broadcaster, "t") == 0

        def lock():
            return broadcaster.query("SELECT missed_lock_id, missed_lock_expires_at FROM"
                                     " httppubsub_subscription_exacts"
                                     " WHERE missed_lock_id IS NOT NULL")

        (first, expires), = wait_until(lock, "the lock of the one that waits")
        wait_until(lambda: time.time() > expires - 1.2, "the second half of its lock")
        leave.set()
        subscriber.wait_for(2, "/m")
        (now, _), = lock()
        assert now != first
        leave_too.set()
        assert wire.reply().status == 200
    wait_for_nothing_pending(broadcaster)
    assert len(subscriber.seen("/m")) == 2


def test_lock_of_the_dead(start_broadcaster, subscriber, dead_url):
    """A broadcaster that dies during the call leaves a lock behind, which runs out."""
    first = start_broadcaster(**FAST)
    turns = iter([scripted.hangs])
    recovery = subscriber.add("/m", lambda c: next(turns, scripted.confirms_missed)(c))
    subscribe(first, "exact", dead_url, "t", recovery)
    assert notify(first, "t") == 0
    subscriber.wait_for(1, "/m")
    assert pending(first) == [(0, 1)]
    first.kill()
    first.query("UPDATE httppubsub_subscription_exacts SET missed_lock_expires_at = 1")
    second = start_broadcaster(first.folder, **FAST)
    subscriber.wait_for(2, "/m")
    wait_for_nothing_pending(second)


def test_shutdown_releases_the_lock(start_broadcaster, subscriber, dead_url):
    """And counts no attempt."""
    broadcaster = start_broadcaster(**FAST)
    subscribe(broadcaster, "exact", dead_url, "t", subscriber.add("/m", scripted.hangs))
    assert notify(broadcaster, "t") == 0
    subscriber.wait_for(1, "/m")
    assert pending(broadcaster) == [(0, 1)]
    assert broadcaster.stop() == 0
    assert pending(broadcaster) == [(0, 0)]


def test_cut_off_at_the_end(start_broadcaster, subscriber):
    """Deliveries that a shutdown cancels, running or still queued, are noted as missed."""
    broadcaster = start_broadcaster(broadcaster__drain_timeout=1)
    for i in range(100):
        subscribe(broadcaster, ("exact", "glob")[i % 2], subscriber.add(f"/{i}", scripted.hangs), "t",
                  subscriber.url("/m"))
    with Wire(broadcaster) as wire:
        wire.send(message(bodies.NOTIFY, bodies.notify("t", b"")))
        subscriber.wait_for(64)
        assert broadcaster.stop() == 0
    assert pending(broadcaster) == pending(broadcaster, "glob") == [(0, 0)] * 50
