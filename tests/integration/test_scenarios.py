"""The scenarios of tests/vectors/http.jsonl that need no authorization and no websockets, against our
broadcaster. tests/vectors/README.md says how to compare.

The subscribers' URLs lead nowhere, so the scripted subscriber is the broadcaster's HTTP proxy: every call
arrives there with the whole URL as its target.
"""

import json

import pytest

import bodies
import subscriber as scripted
from conftest import ROOT
from wire import notify, request, subscribe

VECTORS = ROOT / "tests/vectors/http.jsonl"
NONE = {"to_broadcaster": {"type": "none"}, "to_subscriber": {"type": "none"}}

def is_ours(line):
    return (line["type"] == "scenario" and line["server"] == "broadcaster" and line["auth"] == NONE
            and "store" not in line and not line.get("websockets")
            and all(s["request"]["path"].partition("?")[0] in bodies.ENDPOINTS
                    or s["response"]["status"] in (404, 405) for s in line["steps"]))


def load():
    with VECTORS.open() as file:
        return [line for line in map(json.loads, file) if is_ours(line)]


SCENARIOS = load()


def stored(broadcaster):
    """The rows of both tables, as the vectors show them, by identity."""
    exacts = broadcaster.query(
        "SELECT url, exact, missed_url, missed_next_retry_at, missed_attempts, exact"
        " FROM httppubsub_subscription_exacts")
    globs = broadcaster.query(
        "SELECT url, glob, missed_url, missed_next_retry_at, missed_attempts, missed_topic"
        " FROM httppubsub_subscription_globs")
    return {
        (kind, url, bodies.as_bytes(key)): (
            recovery, {"attempts": attempts, "topic_hex": topic.hex()} if due is not None else None)
        for kind, table in (("exact", exacts), ("glob", globs))
        for url, key, recovery, due, attempts, topic in table}


def expected_rows(step):
    rows = {("exact", r["url"], bytes.fromhex(r["topic_hex"])): (r["recovery"], r["missed"])
            for r in step["store"]["exacts"]}
    rows.update({("glob", r["url"], r["glob"].encode()): (r["recovery"], r["missed"])
                 for r in step["store"]["globs"]})
    return rows


def entries_of_set(body):
    """Identity -> recovery, of a well-formed SET."""
    c = bodies.Cursor(body)
    c.b16()
    url = c.b16().decode()
    c.take(65)
    found = {}
    for kind in ("exact", "glob"):
        for _ in range(c.number(4)):
            key, recovery = c.b16(), c.b16()
            found[kind, url, key] = recovery.decode() or None
    return found


class Recoveries:
    """What SET did to the recovery urls of subscriptions that stay: ours updates them, the reference,
    and so the vectors, do not (http.md, Q15)."""

    def __init__(self):
        self.updated = {}

    def note(self, step):
        if step["request"]["path"] == bodies.SET and step["response"]["status"] == 200:
            self.updated.update(entries_of_set(bytes.fromhex(step["request"]["body_hex"])))

    def correct(self, rows):
        self.updated = {k: v for k, v in self.updated.items() if k in rows}
        return {k: (self.updated.get(k, recovery), missed)
                for k, (recovery, missed) in rows.items()}


def etag_of(rows, url):
    lists = [[(key, recovery or "") for (kind, u, key), (recovery, _) in rows.items()
              if (kind, u) == (wanted, url)] for wanted in ("exact", "glob")]
    return bodies.etag(url, *lists)


# ---- The subscribers of a step ----


def scripted_reply(calls):
    """Replies to the calls of one URL, in any order. Each closes its connection: then an error of the
    network is one call, never two."""
    left = list(calls)

    def behave(call):
        planned = left.pop(0)
        reply = planned["reply"]
        if "error" not in reply:
            theirs = bytes.fromhex(planned["decoded"]["identifier_hex"])
            body = bytes.fromhex(reply["body_hex"]).replace(theirs, call.receive.identifier)
            call.reply(body, reply["status"], ["Connection: close"])
        call.close()

    return behave


def target_of(url):
    return url.partition("#")[0]


def script(proxy, calls):
    proxy.behaviours = {}
    for target in {target_of(c["url"]) for c in calls}:
        proxy.on(target, scripted_reply([c for c in calls if target_of(c["url"]) == target]))


def assert_calls(seen, calls):
    """Order and identifiers are free."""
    def planned(c):
        return (target_of(c["url"]), c["headers"]["Repr-Digest"], c["headers"]["Content-Length"],
                c["headers"]["Content-Type"], c["decoded"]["tracing_hex"], c["decoded"]["topic_hex"],
                len(c["decoded"]["identifier_hex"]) // 2, c["decoded"]["message_hex"])

    def made(c):
        headers, r = dict(c.headers), c.receive
        return (c.target, headers["repr-digest"], headers["content-length"], headers["content-type"],
                r.tracing.hex(), r.topic.hex(), len(r.identifier), r.message.hex())

    assert sorted(map(made, seen)) == sorted(map(planned, calls))


# ---- The steps ----


def assert_response(step, reply, rows):
    want, decoded = step["response"], step["response"]["decoded"]
    assert reply.status == want["status"]
    assert reply.content_type == want["content_type"]
    if reply.status in (404, 405):
        return
    if decoded is not None and decoded["message"] == "RESPONSE_NOTIFY":
        notified = bodies.parse_notified(reply.body)
        assert notified.count == decoded["subscribers"]
        assert notified.identifier.hex() == decoded["identifier_hex"]
        assert notified.authorization.decode() == decoded["authorization"]
        assert notified.tracing != b""
    elif step.get("quirk") == "Q15" and step["request"]["path"] == bodies.CHECK:
        url = bodies.Cursor(bytes.fromhex(step["request"]["body_hex"])[2:]).b16().decode()
        assert bodies.parse_checked(reply.body) == etag_of(rows, url)
    else:
        assert reply.body.hex() == want["body_hex"]


def run_step(broadcaster, proxy, scenario, step, recoveries):
    asked, calls = step["request"], step.get("calls") or []
    before = len(proxy.seen())
    script(proxy, calls)
    headers = {"Host": asked.get("host", scenario["host"]), **asked["headers"]}
    reply = request(broadcaster, asked["method"], asked["path"], bytes.fromhex(asked["body_hex"]),
                    headers)
    recoveries.note(step)
    rows = recoveries.correct(expected_rows(step)) if "store" in step else None
    assert_response(step, reply, rows)
    assert_calls(proxy.seen()[before:], calls)
    if rows is not None:
        assert stored(broadcaster) == rows


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s["id"])
def test_scenario(start_broadcaster, start_subscriber, scenario):
    proxy = start_subscriber(scripted.closes)
    broadcaster = start_broadcaster(webhook__proxy=proxy.url(""),
                                    missed__sweep_missed_interval="1h")
    recoveries = Recoveries()
    for number, step in enumerate(scenario["steps"]):
        try:
            run_step(broadcaster, proxy, scenario, step, recoveries)
        except AssertionError as e:
            e.add_note(f"step {number}: {step['note']}")
            raise


def test_none_is_forgotten():
    """As many as there were when this was written; the others of the file need authorization, websockets,
    or a store that is down, or are a subscriber's."""
    assert (len(SCENARIOS), sum(len(s["steps"]) for s in SCENARIOS)) == (13, 172)


def missed_calls():
    with VECTORS.open() as file:
        return [line for line in map(json.loads, file)
                if line["type"] == "missed_call" and line["auth"] == NONE]


@pytest.mark.parametrize("line", missed_calls(), ids=lambda s: s["id"])
def test_missed_call(start_broadcaster, start_subscriber, line):
    """What the sweep sends."""
    proxy = start_subscriber(scripted.closes)
    broadcaster = start_broadcaster(webhook__proxy=proxy.url(""), missed__expo_factor=0,
                                    missed__constant=0, missed__jitter=0,
                                    missed__sweep_missed_interval="100ms")
    topic = bytes.fromhex(line["topic_hex"])
    subscribe(broadcaster, "exact", "http://192.0.2.0:3002/v1/receive", topic, line["recovery"])
    proxy.on(target_of(line["recovery"]), scripted.confirms_missed)
    assert notify(broadcaster, topic) == 0
    call, = proxy.wait_for(1, target_of(line["recovery"]))
    assert call.body.hex() == line["body_hex"]
    assert dict(call.headers)["content-type"] == line["headers"]["Content-Type"]
