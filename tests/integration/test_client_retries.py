"""Calls of the library over HTTP with broadcasters that answer as a test says: who is asked, how often, and what comes of
it; and what is repaired when a broadcaster has forgotten."""

import http.server
import threading

import pytest

from client_library import Client, Refused
from conftest import free_port, setup_folder, wait_until

GENERIC = bytes([0, 3, 0, 0, 0, 0])
CLOSE = "close"  # the connection, without an answer


class Scripted:
    """A broadcaster that answers each call alike: a status (a 200 with a good body), or CLOSE; `single` are those
    of one topic."""

    def __init__(self, others, single=None):
        calls = self.calls = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                calls.append((self.path, body))
                answer = single if single and "subscribe/" in self.path else others
                if answer == CLOSE:
                    self.close_connection = True
                    return
                reply = b""
                if answer == 200:
                    reply = GENERIC
                    if self.path == "/v1/notify":
                        at = 2 + int.from_bytes(body[:2], "big") + 64
                        at += 2 + int.from_bytes(body[at:at + 2], "big")
                        identifier = body[at:at + 1 + body[at]]
                        reply = bytes([0, 4, 0, 0, 0, 0, 0, 0, 0, 5]) + identifier
                elif answer == "garbage":
                    reply = b"not an answer"
                self.send_response(answer if isinstance(answer, int) else 200)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def scripted():
    started = []

    def start(*answers):
        started.append(Scripted(*answers))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def client():
    started = []

    def start(*options):
        started.append(Client("bind=127.0.0.1:0", *options))
        return started[-1]

    yield start
    for c in started:
        c.close()


# What the first and the second broadcaster say, what the call ends with, and how often each was asked
# in two passes.
CASES = [
    (200, 200, None, 1, 0),
    (503, 200, None, 1, 1),
    (502, 504, "RETRIES_EXHAUSTED", 2, 2),
    (401, 200, "FORBIDDEN", 1, 0),
    (403, 200, "FORBIDDEN", 1, 0),
    (400, 200, "REFUSED", 1, 0),
    (413, 200, "REFUSED", 1, 0),
    (CLOSE, 200, None, 1, 1),
    (CLOSE, 503, "AMBIGUOUS", 2, 2),
    ("garbage", 200, None, 1, 1),
    ("garbage", "garbage", "REFUSED", 2, 2),
]


@pytest.mark.parametrize("call", ["notify", "subscribe"])
@pytest.mark.parametrize("first,second,error,firsts,seconds", CASES)
def test_retries(scripted, client, call, first, second, error, firsts, seconds):
    servers = scripted(first), scripted(second)
    mine = client(*(f"broadcaster={s.url} {n}" for n, s in enumerate(servers)))

    def ask():
        return mine.notify("t", 3) if call == "notify" else mine.subscribe("exact", "t")

    if error is None:
        assert ask() == (5 if call == "notify" else 0)
    else:
        with pytest.raises(Refused, match=error):
            ask()
    assert [len(s.calls) for s in servers] == [firsts, seconds]


def test_ambiguous_is_the_end_where_that_is_wanted(scripted, client):
    servers = scripted(CLOSE), scripted(200)
    mine = client("outgoing_retry_ambiguous=no",
                  *(f"broadcaster={s.url} {n}" for n, s in enumerate(servers)))
    with pytest.raises(Refused, match="AMBIGUOUS"):
        mine.notify("t", 3)
    assert len(servers[1].calls) == 0


def test_single_calls_and_lists(scripted, client):
    """A list as long as it is no dearer than single calls; 409 of these is success (session.md, 8)."""
    server = scripted(200, 409)
    mine = client(f"broadcaster={server.url}")
    subscription = mine.subscribe("exact", "t")
    for number in range(512):
        assert mine.do("add", subscription, "exact", f"t{number}", -1) == ""
    paths = [path for path, _ in server.calls]
    assert paths == ["/v1/set_subscriptions"] * 512 + ["/v1/subscribe/exact"]


def test_identifiers_are_new_for_each_attempt(scripted, client):
    server = scripted(503)
    mine = client(f"broadcaster={server.url}")
    with pytest.raises(Refused, match="RETRIES_EXHAUSTED"):
        mine.notify("t", 0)
    bodies = [body for _, body in server.calls]
    assert len(bodies) == 2 and bodies[0] != bodies[1]


def test_nothing_is_sent_when_nothing_changes(scripted, client):
    """An empty list would wipe what another process has under the same URL. (session.md, H6)"""
    server = scripted(200)
    mine = client(f"broadcaster={server.url}")
    assert mine.do("close") == ""
    assert server.calls == []


def test_what_a_broadcaster_forgot_is_repaired(start_broadcaster, tmp_path, client):
    folder = setup_folder(tmp_path / "b", to_broadcaster="hmac", to_subscriber="hmac")
    program = start_broadcaster(folder)
    mine = client(f"broadcaster={program.url}", "resubscribe_interval=200ms",
                  f"secrets={folder / 'subscriber-secrets.json'}")
    subscription = mine.subscribe("exact", "t")
    assert mine.notify("t", 1) == 1
    assert mine.next(subscription)[1] == 1
    program.query("DELETE FROM httppubsub_subscription_exacts")
    wait_until(lambda: mine.notify("t", 2) == 1, "the repair")
    assert mine.next(subscription)[1] == 2
    assert mine.numbers("gaps", 0) == [2]
    mine.do("destroy", subscription)
    wait_until(lambda: program.query("SELECT * FROM httppubsub_subscription_exacts") == [],
               "that it is unsubscribed")


def test_receiver_that_nobody_would_reach(client):
    with pytest.raises(Refused, match="ARGUMENT host"):
        client("broadcaster=http://127.0.0.1:1", "bind=0.0.0.0:0")
    port = free_port()
    client("broadcaster=http://127.0.0.1:1", f"bind=127.0.0.1:{port}")
    with pytest.raises(Refused, match="REFUSED"):
        client("broadcaster=http://127.0.0.1:1", f"bind=127.0.0.1:{port}")
