"""Broadcasters on a cluster of three rqlite nodes: what one confirms the others honour, and what happens
when nodes, connections or broadcasters fail. (doc/protocol/http.md, 12 and 13; doc/operations.md)
"""

import contextlib
import http.client
import http.server
import random
import shlex
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

import bodies
import subscriber as scripted
from authorization import Secrets, header, of_subscription
from conftest import LONELYPSS, setup_folder, wait_until
from reference import next_message, reading, reference_client, run
from reference import notify as reference_notify
from rqlite_cluster import Rqlite
from tcp_proxy import CUT, HOLE, PASS, Proxy
from wire import check, notify, post, subscribe, unsubscribe

EXACTS, GLOBS = "httppubsub_subscription_exacts", "httppubsub_subscription_globs"
TABLES = [EXACTS, GLOBS, "lonely_changes", "lonely_hmacs", "lonely_processes", "lonely_schema"]
WRITE = b"POST /db/execute"
FAST_MISSED = {"missed__sweep_missed_interval": "100ms", "missed__expo_factor": 0,
               "missed__constant": 0, "missed__jitter": 0}


def hexed(text):
    return "x'" + (text if isinstance(text, bytes) else text.encode()).hex() + "'"


@pytest.fixture(scope="module")
def nodes():
    cluster = Rqlite(3)
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(nodes):
    """With all its nodes, and empty."""
    for node in nodes.nodes:
        if node.process is None:
            node.start()
    nodes.wait()
    for table in TABLES:
        nodes.execute(f"DROP TABLE IF EXISTS {table}")
    return nodes


@pytest.fixture
def start(start_broadcaster, cluster, tmp_path):
    """start(name, urls=..., **settings): a broadcaster on the cluster."""

    def start(name, urls=None, **settings):
        folder = tmp_path / name
        if not folder.exists():
            setup_folder(folder, "--db", "rqlite", "--db-url", " ".join(urls or cluster.urls))
        return start_broadcaster(folder, **settings)

    return start


@pytest.fixture
def proxies(cluster):
    made = [Proxy(node.http_port, WRITE) for node in cluster.nodes]
    yield made
    for proxy in made:
        proxy.stop()


def try_post(broadcaster, path, body):
    """(status, seconds); status None: the broadcaster did not answer."""
    started = time.monotonic()
    try:
        status = post(broadcaster, path, body, patience=20).status
    except (OSError, http.client.HTTPException):
        status = None
    return status, time.monotonic() - started


def patient(action):
    """Repeats a request until it is not answered 503."""

    def attempt():
        reply = action()
        return reply if reply.status != 503 else None

    return wait_until(attempt, "an answer other than 503")


# ---- One and several ----


def test_reference_client(start):
    broadcaster = start("a")

    async def scenario():
        async with reference_client(broadcaster) as client:
            topic = bytes(range(256))
            async with client.subscribe_exact(topic) as subscription, \
                    reading(subscription) as messages:
                assert await reference_notify(client, topic, b"Hello") == 1
                assert await next_message(messages) == (topic, b"Hello")
            async with client.subscribe_glob("foo/*") as subscription, \
                    reading(subscription) as messages:
                assert await reference_notify(client, b"foo/bar", b"again") == 1
                assert await next_message(messages) == (b"foo/bar", b"again")

    run(scenario())


def test_what_one_confirms_the_other_honours(start, subscriber):
    brothers = [start("a"), start("b")]
    urls = [subscriber.url(f"/{i}") for i in range(2)]
    for i in range(40):
        here, there = brothers if i % 2 else brothers[::-1]
        kind, key = ("exact", "topic") if i % 3 else ("glob", "t[oO]pic*")
        subscribe(here, kind, urls[0], key)
        assert notify(there, "topic") == 1
        assert post(there, bodies.SUBSCRIBE[kind], bodies.subscribe(urls[0], key)).status == 409
        subscribe(there, kind, urls[1], key, subscriber.url("/m"))
        assert notify(here, "topic") == 2
        assert check(here, urls[1]) == check(there, urls[1])
        unsubscribe(there, kind, urls[0], key)
        assert notify(here, "topic") == 1
        unsubscribe(here, kind, urls[1], key)
        assert notify(there, "topic") == 0
        assert post(there, bodies.UNSUBSCRIBE[kind],
                    bodies.unsubscribe(urls[1], key)).status == 409


def test_weak_reads_through_the_leader(start, subscriber):
    """Without a change of the leader they are as good."""
    a, b = start("a", database__rqlite_read="weak"), start("b", database__rqlite_read="weak")
    for _ in range(10):
        subscribe(a, "exact", subscriber.url(), "t")
        assert notify(b, "t") == 1
        unsubscribe(b, "exact", subscriber.url(), "t")
        assert notify(a, "t") == 0


def test_long_and_odd_keys(start, subscriber):
    a, b = start("a"), start("b")
    url = subscriber.url()
    for topic in (b"", bytes(range(256)), b"\0", b"x'00'", b"'\"\\", b"k" * 65535):
        subscribe(a, "exact", url, topic)
        assert notify(b, topic) == 1
    subscribe(a, "glob", url, "\u00fc\0*")
    assert check(a, url) == check(b, url)
    assert start("c").stop() == 0


def test_set_is_seen_by_the_other(start, subscriber):
    a, b = start("a"), start("b")
    url = subscriber.url()
    topics = [(b"%06d" % i, "http://r/" if i % 2 else "") for i in range(3000)]
    reply = post(a, bodies.SET, bodies.set_subscriptions(url, topics, [("g*", "")]))
    assert reply.status == 200
    assert notify(b, "002999") == 1
    assert check(b, url) == check(a, url)
    assert post(b, bodies.SET, bodies.set_subscriptions(url, topics[::7], [])).status == 200
    assert notify(a, "002999") == 0 and notify(a, "002996") == 1


def test_rows_from_outside(start, cluster, subscriber):
    """The next notify honours them."""
    broadcaster = start("a")
    url = subscriber.url()
    assert notify(broadcaster, "topic") == 0
    cluster.execute(f"INSERT INTO {EXACTS} (url, exact) VALUES (?, ?)", url, hexed("topic"))
    assert notify(broadcaster, "topic") == 1
    cluster.execute(f"INSERT INTO {GLOBS} (url, glob) VALUES (?, 't*')", url)
    assert notify(broadcaster, "topic") == 2
    cluster.execute(f"UPDATE {GLOBS} SET glob = 'x*'")
    assert notify(broadcaster, "topic") == 1 and notify(broadcaster, "x") == 1
    cluster.execute(f"INSERT INTO {EXACTS} (url, exact) VALUES (7, 9), ('u', 'text'), (?, ?)",
                    hexed("u"), hexed("topic"))
    assert notify(broadcaster, "topic") == 1
    cluster.execute("DELETE FROM lonely_changes")  # the log itself: everything is loaded
    cluster.execute(f"DELETE FROM {EXACTS}")
    assert notify(broadcaster, "topic") == 0 and notify(broadcaster, "x") == 1


def test_killed_broadcaster(start, subscriber):
    """What it confirmed survives it, wherever it is replaced."""
    a, b = start("a"), start("b")
    for i in range(20):
        subscribe(a, "exact", subscriber.url(), f"t{i}")
    a.kill()
    again = start("a")
    for i in range(20):
        assert notify(b, f"t{i}") == 1 and notify(again, f"t{i}") == 1


# ---- What is shared beside subscriptions ----


def test_missed_is_told_by_one(start, cluster, subscriber, dead_url):
    brothers = [start("a", **FAST_MISSED), start("b", **FAST_MISSED)]
    for i in range(20):
        subscriber.on(f"/m{i}", scripted.confirms_missed)
        subscribe(brothers[i % 2], "exact" if i % 3 else "glob", dead_url, f"t{i}",
                  subscriber.url(f"/m{i}"))
    for i in range(20):
        assert notify(brothers[i % 2], f"t{i}") == 0
    for i in range(20):
        subscriber.wait_for(1, f"/m{i}")
    for table in (EXACTS, GLOBS):
        wait_until(lambda: not cluster.query(
            f"SELECT 1 FROM {table} WHERE missed_next_retry_at IS NOT NULL"), "nothing pending")
    assert len(subscriber.seen()) == 20


def test_messages_are_acted_on_once(start_broadcaster, cluster, tmp_path, subscriber):
    """A signed message that one broadcaster has taken is refused by the other."""
    folders = [tmp_path / "a", tmp_path / "b"]
    setup_folder(folders[0], "--db", "rqlite", "--db-url", " ".join(cluster.urls),
                 to_broadcaster="hmac")
    secrets = Secrets(folders[0])
    setup_folder(folders[1], "--db", "rqlite", "--db-url", " ".join(cluster.urls),
                 "--to-broadcasters-secret", secrets.to_broadcaster.secret, to_broadcaster="hmac")
    a, b = (start_broadcaster(folder) for folder in folders)
    for i in range(10):
        url, topic = subscriber.url(), f"t{i}"
        signed = header(secrets.to_broadcaster.sign("subscribe exact", *of_subscription(url, topic)))
        body = bodies.subscribe(url, topic)
        assert post(a, bodies.SUBSCRIBE["exact"], body, signed).status == 200
        wait_until(lambda: cluster.query("SELECT count(*) FROM lonely_hmacs")[0][0] > i, "the mac")
        assert post(b, bodies.SUBSCRIBE["exact"], body, signed).status == 403
    a.kill()
    again = start_broadcaster(folders[0])
    assert post(again, bodies.SUBSCRIBE["exact"], body, signed).status == 403


# ---- Failures ----


def test_lost_answers(start, proxies, subscriber):
    """A write whose answer is lost is done once, and its outcome told."""
    broadcaster = start("a", [p.url for p in proxies])
    other = start("b")
    url = subscriber.url()
    for i in range(6):
        for proxy in proxies:
            proxy.lose_replies = 1
        subscribe(broadcaster, "exact", url, f"t{i}")
        assert notify(other, f"t{i}") == 1
    for i in range(6):
        for proxy in proxies:
            proxy.lose_replies = 1
        subscribed = post(broadcaster, bodies.SUBSCRIBE["exact"], bodies.subscribe(url, f"t{i}"))
        assert subscribed.status == 409
        for proxy in proxies:
            proxy.lose_replies = 1
        unsubscribe(broadcaster, "exact", url, f"t{i}")
        assert notify(other, f"t{i}") == 0
    assert sum(p.lost for p in proxies) >= 12


def test_given_up_writes_are_not_done_later(start, cluster, proxies, subscriber):
    """A request that is held up on its way, and answered 503 meanwhile, is done by nobody after
    others were told something else."""
    proxy = proxies[0]
    slow = start("a", [proxy.url], database__timeout="1s")
    other = start("b")
    url = subscriber.url()
    proxy.hold = True
    status, seconds = try_post(slow, bodies.SUBSCRIBE["exact"], bodies.subscribe(url, "t"))
    assert status == 503 and seconds < 4
    assert proxy.held.is_set()
    subscribe(other, "exact", url, "t")
    time.sleep(1.1)  # the held one's time is over, by the clock of the other
    unsubscribe(other, "exact", url, "t")
    proxy.hold = False
    proxy.release.set()
    assert proxy.answered.wait(10), "the node has seen it"
    assert notify(other, "t") == 0
    assert cluster.query(f"SELECT count(*) FROM {EXACTS}") == [[0]]
    reply = patient(lambda: post(slow, bodies.SUBSCRIBE["exact"], bodies.subscribe(url, "t")))
    assert reply.status == 200
    assert notify(other, "t") == 1 and notify(slow, "t") == 1


def test_unreachable(start, proxies, subscriber):
    """503 with Retry-After: within database.timeout first, then at once; and it heals by itself."""
    broadcaster = start("a", [p.url for p in proxies], database__timeout="2s",
                        limits__retry_after=3)
    url = subscriber.url()
    subscribe(broadcaster, "exact", url, "t")
    for mode in (HOLE, CUT):
        for proxy in proxies:
            proxy.set_mode(mode)
        reply = post(broadcaster, bodies.NOTIFY, bodies.notify("t", b"x"))
        assert reply.status == 503 and reply.headers["retry-after"] == "3"
        wait_until(lambda: any("store_down" in line for line in broadcaster.err), "store_down")
        for path, body in ((bodies.NOTIFY, bodies.notify("t", b"x")),
                           (bodies.SUBSCRIBE["exact"], bodies.subscribe(url, "u")),
                           (bodies.CHECK, bodies.check(url)),
                           (bodies.SET, bodies.set_subscriptions(url, [("t", "")], []))):
            status, seconds = try_post(broadcaster, path, body)
            assert status == 503 and seconds < 4
        status, seconds = try_post(broadcaster, bodies.NOTIFY, bodies.notify("t", b"x"))
        assert status == 503 and seconds < 1
        for proxy in proxies:
            proxy.set_mode(PASS)
        patient(lambda: post(broadcaster, bodies.NOTIFY, bodies.notify("t", b"x")))
        assert notify(broadcaster, "t") == 1
        assert post(broadcaster, bodies.SUBSCRIBE["exact"],
                    bodies.subscribe(url, "u")).status in (200, 409)
        unsubscribe(broadcaster, "exact", url, "u")


def test_slow_connections(start, proxies, subscriber):
    """Each piece takes 50 ms more: slower, not wrong."""
    for proxy in proxies:
        proxy.delay = 0.05
    a, b = start("a", [p.url for p in proxies]), start("b")
    for _ in range(5):
        subscribe(a, "exact", subscriber.url(), "t")
        assert notify(b, "t") == 1
        unsubscribe(b, "exact", subscriber.url(), "t")
        assert notify(a, "t") == 0


def test_one_node_of_three_hangs(start, cluster, subscriber):
    """The others go on, and nobody waits for longer than the timeout."""
    broadcaster = start("a")
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    leader = cluster.leader()
    leader.pause()
    try:
        reply = patient(lambda: post(broadcaster, bodies.NOTIFY, bodies.notify("t", b"x")))
        assert bodies.parse_notified(reply.body).count == 1
        assert patient(lambda: post(broadcaster, bodies.SUBSCRIBE["exact"],
                                    bodies.subscribe(subscriber.url(), "u"))).status in (200, 409)
        assert notify(broadcaster, "u") == 1
    finally:
        leader.resume()


class Walker(threading.Thread):
    """Subscribes and unsubscribes keys of its own by any of the broadcasters, and notifies; knows of
    each key what was acknowledged last. After an answer that tells nothing it asks again."""

    KEYS = 12

    def __init__(self, name, broadcasters, url, stop, seed):
        super().__init__(daemon=True)
        self.prefix, self.broadcasters, self.url, self.stop_event = name, broadcasters, url, stop
        self.random = random.Random(seed)
        self.there = {f"{name}/{i}": False for i in range(self.KEYS)}  # None: not known
        self.wrong, self.slowest, self.answered, self.refused = [], 0, 0, 0

    def run(self):
        while not self.stop_event.is_set() and not self.wrong:
            key = self.random.choice(sorted(self.there))
            if self.there[key] is None or self.random.random() < 0.5:
                self.change(key, self.random.random() < 0.5)
            else:
                self.notify(key)

    def post(self, path, body):
        status, seconds = try_post(self.random.choice(self.broadcasters), path, body)
        self.slowest = max(self.slowest, seconds)
        return status

    def change(self, key, to):
        if to:
            status = self.post(bodies.SUBSCRIBE["exact"], bodies.subscribe(self.url, key))
            allowed = {True: (409,), False: (200,), None: (200, 409)}[self.there[key]]
        else:
            status = self.post(bodies.UNSUBSCRIBE["exact"], bodies.unsubscribe(self.url, key))
            allowed = {True: (200,), False: (409,), None: (200, 409)}[self.there[key]]
        if status in (503, None):
            self.refused += 1
            self.there[key] = None if self.there[key] is not to else to
        elif status not in allowed:
            self.wrong.append((key, "subscribe" if to else "unsubscribe", self.there[key], status))
        else:
            self.answered += 1
            self.there[key] = to

    def notify(self, key):
        broadcaster = self.random.choice(self.broadcasters)
        try:
            reply = post(broadcaster, bodies.NOTIFY, bodies.notify(key, b"x"), patience=20)
        except (OSError, http.client.HTTPException):
            return
        if reply.status == 200:
            count = bodies.parse_notified(reply.body).count
            if count != int(self.there[key]):
                self.wrong.append((key, "notify", self.there[key], count))
        elif reply.status != 503:
            self.wrong.append((key, "notify", self.there[key], reply.status))


@contextlib.contextmanager
def walking(broadcasters, subscriber, count=4):
    stop = threading.Event()
    walkers = [Walker(f"w{i}", broadcasters, subscriber.url(f"/{i}"), stop, i)
               for i in range(count)]
    for walker in walkers:
        walker.start()
    try:
        yield walkers
    finally:
        stop.set()
        for walker in walkers:
            walker.join(60)
    assert [w.wrong for w in walkers if w.wrong] == []
    for walker in walkers:
        for key, there in walker.there.items():
            if there is None:
                continue
            for broadcaster in broadcasters:
                reply = patient(lambda: post(broadcaster, bodies.NOTIFY, bodies.notify(key, b"x")))
                assert bodies.parse_notified(reply.body).count == int(there), key


def progress(walkers, more=40):
    """Until as many more changes were acknowledged."""
    before = sum(w.answered for w in walkers)
    wait_until(lambda: any(w.wrong for w in walkers)
               or sum(w.answered for w in walkers) >= before + more, "progress", 60)


def test_leader_killed_under_load(start, cluster, subscriber):
    """Twice, and started again: nothing acknowledged is lost or comes back, and no notify skips one
    who is subscribed."""
    brothers = [start("a"), start("b")]
    with walking(brothers, subscriber) as walkers:
        for _ in range(2):
            progress(walkers)
            leader = cluster.leader()
            leader.kill()
            progress(walkers)
            leader.start()
            cluster.wait()
            progress(walkers)
    assert max(w.slowest for w in walkers) < 10, "database.timeout is 5 s"


def test_bad_connections_under_load(start, proxies, subscriber):
    """Cut, blackholed, delayed, answers lost; one broadcaster goes through it, one does not."""
    brothers = [start("a", [p.url for p in proxies], database__timeout="2s"), start("b")]
    with walking(brothers, subscriber) as walkers:
        for proxy in proxies:
            proxy.delay = 0.02
        progress(walkers)
        for _ in range(3):
            for proxy in proxies:
                proxy.lose_replies += 2
            progress(walkers, 20)
        for mode in (CUT, HOLE):
            for proxy in proxies:
                proxy.set_mode(mode)
                progress(walkers, 10)
            time.sleep(0.5)
            for proxy in proxies:
                proxy.set_mode(PASS)
            progress(walkers)
    assert max(w.slowest for w in walkers) < 8


def test_broadcaster_killed_under_load(start, subscriber):
    brothers = [start("a"), start("b"), start("c")]
    with walking(brothers, subscriber) as walkers:
        progress(walkers)
        brothers[0].kill()
        progress(walkers)
        brothers[0] = start("a")
        for walker in walkers:
            walker.broadcasters = brothers
        progress(walkers)


# ---- Access ----


def make_certificate(folder):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out",
         folder / "cert.pem"], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def refused(folder, *args):
    """The line with which lonelypss ends."""
    result = subprocess.run([LONELYPSS, "--config", folder / "lonelypss.ini", "--listen", "127.0.0.1:0",
                             *args], capture_output=True, text=True, timeout=60)
    return result.returncode, result.stderr


def test_credentials_and_tls(start_broadcaster, tmp_path, subscriber):
    certificate, key = make_certificate(tmp_path)
    (tmp_path / "auth.json").write_text(
        '[{"username": "lonely", "password": "se cret/1", "perms": ["all"]}]')
    context = ssl.create_default_context(cafile=certificate)
    cluster = Rqlite(1, scheme="https", user=("lonely", "se cret/1"), tls=context,
                     args=["-http-cert", certificate, "-http-key", key, "-auth",
                           tmp_path / "auth.json"])
    try:
        port = cluster.nodes[0].http_port
        folder = tmp_path / "a"
        setup_folder(folder, "--db", "rqlite",
                     "--db-url", f"https://lonely:se%20cret%2f1@127.0.0.1:{port}?ca={certificate}")
        broadcaster = start_broadcaster(folder)
        subscribe(broadcaster, "exact", subscriber.url(), "t")
        assert notify(broadcaster, "t") == 1
        url = f"database.url=https://lonely@127.0.0.1:{port}?ca={certificate}"
        (tmp_path / "wrong").write_text("no\n")
        for args, words in (
                (["--set", url, "--set", f"database.password_file={tmp_path / 'wrong'}"], "refused"),
                (["--set", f"database.url=https://lonely@127.0.0.1:{port}"], "certificate"),
                (["--set", f"database.url=http://lonely@127.0.0.1:{port}"], "rqlite"),
                (["--set", "database.url=https://lonely@127.0.0.1:1"], "onnect")):
            code, error = refused(folder, *args)
            assert code == 1 and words in error and "se cret" not in error, error
    finally:
        cluster.close()


class OddNode(http.server.ThreadingHTTPServer):
    """In front of the leader. `answer(body, forward)` makes each reply, a status and a body; `forward()`
    gives the leader's."""

    daemon_threads = True

    def __init__(self, cluster, answer):
        self.leader, self.answer = cluster.leader(), answer
        super().__init__(("127.0.0.1", 0), OddHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self):
        self.shutdown()
        self.server_close()


class OddHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))

        def forward():
            connection = http.client.HTTPConnection("127.0.0.1", self.server.leader.http_port, timeout=20)
            with contextlib.closing(connection):
                connection.request("POST", self.path, body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                return reply.status, reply.read()

        status, reply = self.server.answer(body, forward)
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

    def log_message(self, *args):
        pass


@pytest.fixture
def odd_node(cluster):
    made = []

    def make(answer):
        made.append(OddNode(cluster, answer))
        return made[-1]

    yield make
    for node in made:
        node.stop()


@pytest.mark.parametrize("status", [401, 404])
def test_a_node_that_refuses(start, cluster, odd_node, subscriber, status):
    """It is another one's, or knows another password: the others do the work."""
    odd = odd_node(lambda body, forward: (status, b"no"))
    broadcaster = start("a", [odd.url, *cluster.urls])
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    assert notify(broadcaster, "t") == 1


def without_results(forward):
    forward()
    return 200, b'{"results":[]}'


@pytest.mark.parametrize("answer", [
    without_results,
    lambda forward: (200, b'{"results":[{}]}'),
    lambda forward: (200, b"nonsense"),
    lambda forward: (502, b"x" * (70 << 20)),
], ids=["no results", "too few results", "nonsense", "a long error"])
def test_odd_answers_to_writes(start, odd_node, subscriber, answer):
    """They say nothing about what was done; so it is asked again."""
    left = []

    def odd(body, forward):
        is_change = b"INSERT INTO " + EXACTS.encode() in body or b"DELETE FROM " + EXACTS.encode() in body
        return answer(forward) if is_change and left and left.pop() else forward()

    broadcaster = start("a", [odd_node(odd).url])
    for action in (subscribe, unsubscribe, subscribe):
        left.append(True)
        action(broadcaster, "exact", subscriber.url(), "t")
        assert not left
    assert notify(broadcaster, "t") == 1


def test_the_manual_s_setup_commands(tmp_path):
    """They work as they stand there, in folders of their own."""
    manual = (Path(__file__).parent.parent.parent / "doc/operations.md").read_text()
    commands = [shlex.split(line) for line in manual.splitlines()
                if line.startswith("    lonelypss --setup") and "..." not in line]
    assert {command[command.index("--db") + 1] for command in commands if "--db" in command} == {"rqlite", "postgres"}
    for i, command in enumerate(commands):
        if "--dir" in command:
            at = command.index("--dir")
            del command[at:at + 2]
        subprocess.run([LONELYPSS, *command[1:], "--dir", tmp_path / str(i)], check=True, timeout=20)
        assert (tmp_path / str(i) / "lonelypss.ini").exists()


def test_redirects_lead_to_our_nodes_only(start, cluster, subscriber):
    """A node that names a stranger as the leader: the stranger is not asked."""
    asked = []
    stranger = socket.create_server(("127.0.0.1", 0))

    class Liar(threading.Thread):
        """Redirects whoever asks to be, and forwards the rest."""

        def __init__(self):
            super().__init__(daemon=True)
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.port = self.listener.getsockname()[1]

        def run(self):
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=self.serve, args=(self.listener.accept()[0],),
                                     daemon=True).start()

        def serve(self, connection):
            with connection, connection.makefile("rb") as file:
                while line := file.readline():
                    target = line.split()[1].decode()
                    length = 0
                    while (field := file.readline()) != b"\r\n":
                        if field.lower().startswith(b"content-length:"):
                            length = int(field.split(b":")[1])
                    body = file.read(length)
                    asked.append(target)
                    if "redirect" in target:
                        connection.sendall(
                            b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\nLocation: http://127.0.0.1:%d%s"
                            b"\r\n\r\n" % (stranger.getsockname()[1], target.encode()))
                        continue
                    direct = http.client.HTTPConnection("127.0.0.1", cluster.nodes[0].http_port)
                    direct.request("POST", target, body, {"Content-Type": "application/json"})
                    text = direct.getresponse().read()
                    direct.close()
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
                                       % (len(text), text))

    liar = Liar()
    liar.start()
    try:
        broadcaster = start("a", [f"http://lonely:secret@127.0.0.1:{liar.port}"])
        subscribe(broadcaster, "exact", subscriber.url(), "t")
        assert notify(broadcaster, "t") == 1
        assert any("redirect" in t for t in asked) and any("redirect" not in t for t in asked)
        stranger.settimeout(0)
        with pytest.raises(BlockingIOError):
            stranger.accept()
    finally:
        liar.listener.close()
        stranger.close()
