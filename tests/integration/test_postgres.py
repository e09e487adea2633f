"""Broadcasters on one PostgreSQL server: what one has confirmed the others honour, whatever happens to
the server or to one of them. (doc/architecture.md, store and index; doc/operations.md)
"""

import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import authorization as auth
import bodies
import databases
import subscriber as scripted
from conftest import LONELYPSS, PATIENCE, setup_folder, wait_until
from reference import next_message, notify as reference_notify, reading, reference_client, run
from tcp_proxy import CUT, HOLE, PASS, Proxy
from wire import check, notify, post, subscribe, unsubscribe

EXACTS, GLOBS = "httppubsub_subscription_exacts", "httppubsub_subscription_globs"
TIMEOUT = 2  # seconds, of the broadcasters whose server is in trouble
SCHEMAS = itertools.count()


@pytest.fixture(scope="module")
def shared_server():
    server = databases.Postgres()
    yield server
    server.close()


@pytest.fixture
def server():
    """One that may be stopped."""
    server = databases.Postgres()
    yield server
    server.close()


class Place:
    """A schema of its own."""

    def __init__(self, server):
        self.server = server
        self.name = f"t{next(SCHEMAS)}"
        server.query(f"CREATE SCHEMA {self.name}")
        self.url = f"{server.url}?options=-csearch_path%3D{self.name}"

    def query(self, sql):
        return self.server.query(f"SET search_path = {self.name}; {sql}")

    @contextlib.contextmanager
    def session(self):
        """do(sql), which returns when that is done: psql on a connection that stays."""
        psql = subprocess.Popen([self.server.bin / "psql", "-X", "-q", "-A", "-t", "-d", self.url],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

        def do(sql):
            psql.stdin.write(f"{sql};\n\\echo done\n")
            while psql.stdout.readline() != "done\n":
                assert psql.poll() is None

        try:
            yield do
        finally:
            psql.kill()
            psql.communicate(timeout=PATIENCE)


@pytest.fixture
def place(shared_server):
    return Place(shared_server)


@pytest.fixture
def start(start_broadcaster, tmp_path):
    """start(url, name, **settings): a broadcaster on that database."""

    def begin(url, name="broadcaster", to_broadcaster="none", **settings):
        folder = tmp_path / name
        if not folder.exists():
            setup_folder(folder, "--db", "postgres", "--db-url", url, to_broadcaster=to_broadcaster)
        return start_broadcaster(folder, **settings)

    return begin


@pytest.fixture
def both(start, place):
    return start(place.url, "first"), start(place.url, "second")


def timed(function, *args):
    since = time.monotonic()
    return function(*args), time.monotonic() - since


def refused(broadcaster, path, body):
    """It is answered 503 with Retry-After; how long that took."""
    reply, seconds = timed(post, broadcaster, path, body)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    return seconds


REQUESTS = [
    (bodies.NOTIFY, bodies.notify("t", b"hello")),
    (bodies.SUBSCRIBE["exact"], bodies.subscribe("u", "v")),
    (bodies.UNSUBSCRIBE["glob"], bodies.unsubscribe("u", "v")),
    (bodies.CHECK, bodies.check("u")),
    (bodies.SET, bodies.set_subscriptions("u", ["a"])),
]


def wait_until_healed(broadcaster):
    def tried():
        statuses = [post(broadcaster, path, body).status for path, body in REQUESTS]
        return all(status in (200, 404, 409) for status in statuses)

    wait_until(tried, "an end of the 503s")
    assert broadcaster.process.poll() is None


# ---- One ----


def test_reference_client(start, place):
    broadcaster = start(place.url)
    topic = bytes(range(256))

    async def scenario():
        async with reference_client(broadcaster) as subscriber, \
                reference_client(broadcaster, receives=False) as publisher:
            async with subscriber.subscribe_exact(topic) as subscription, \
                    reading(subscription) as messages:
                assert await reference_notify(publisher, topic, b"Hello, world!") == 1
                assert await next_message(messages) == (topic, b"Hello, world!")
            async with subscriber.subscribe_glob("foo/*") as subscription, \
                    reading(subscription) as messages:
                assert await reference_notify(publisher, b"foo/a", b"x") == 1
                assert await next_message(messages) == (b"foo/a", b"x")
            assert await reference_notify(publisher, b"foo/a", b"x") == 0

    run(scenario())


def test_survives_a_restart(start, place, subscriber):
    broadcaster = start(place.url)
    subscribe(broadcaster, "exact", subscriber.url(), b"\0\xff")
    subscribe(broadcaster, "glob", subscriber.url(), "*é")
    etag = check(broadcaster, subscriber.url())
    assert broadcaster.stop() == 0
    broadcaster = start(place.url)
    assert check(broadcaster, subscriber.url()) == etag
    assert notify(broadcaster, b"\0\xff") == 1
    assert notify(broadcaster, "a-é") == 1


def test_passwords(start, shared_server, tmp_path):
    """From its file and from the environment; a wrong one is not shown."""
    place = Place(shared_server)
    folder = setup_folder(tmp_path / "b", "--db", "postgres", "--db-url",
                          place.url.replace("lonely@", "lonely:hush%40@"))
    assert (folder / "database-password").read_text() == "hush@\n"
    assert (folder / "database-password").stat().st_mode & 0o777 == 0o600
    text = (folder / "lonelypss.ini").read_text()
    assert "hush" not in text and "password_file = database-password" in text
    start(place.url, "b").stop()
    (folder / "database-password").unlink()
    result = subprocess.run([LONELYPSS, "--config", folder / "lonelypss.ini", "--check-config"],
                            capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0
    result = subprocess.run([LONELYPSS, "--config", folder / "lonelypss.ini", "--listen", "127.0.0.1:0"],
                            capture_output=True, text=True, timeout=PATIENCE)
    assert (result.returncode, "database-password: cannot read" in result.stderr) == (1, True)


def test_tls(start, tmp_path, subscriber):
    """Answers of many records; a certificate that is not trusted."""
    server = databases.Postgres()
    try:
        key, certificate = server.folder / "key.pem", server.folder / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", certificate,
                        "-days", "2", "-subj", "/CN=db", "-addext", "subjectAltName=IP:127.0.0.1"],
                       check=True, capture_output=True, timeout=PATIENCE)
        for path in (key, certificate):
            path.chmod(0o600)
            if server.user:
                os.chown(path, server.user.pw_uid, server.user.pw_gid)
        server.stop()
        server.settings = {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key}
        server.start()
        root = tmp_path / "root.pem"
        root.write_bytes(certificate.read_bytes())
        url = f"{server.url}?sslmode=verify-full&sslrootcert={root}"
        first, second = start(url, "first"), start(url, "second")
        assert server.query("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
                            "WHERE application_name = 'lonelypss'") == [["t"]]
        big = "x" * 60000
        for i in range(40):
            subscribe(first, "exact", subscriber.url(), f"{i}{big}")
            if i % 8 == 7:
                assert notify(second, f"{i}{big}") == 1
        assert check(first, subscriber.url()) == check(second, subscriber.url())
        folder = setup_folder(tmp_path / "third", "--db", "postgres", "--db-url",
                              f"{server.url}?sslmode=verify-full&sslrootcert=/dev/null")
        result = subprocess.run(
            [LONELYPSS, "--config", folder / "lonelypss.ini", "--listen", "127.0.0.1:0"],
            capture_output=True, text=True, timeout=PATIENCE)
        assert result.returncode == 1
        assert "certificate" in result.stderr
    finally:
        server.close()


def test_unreachable_at_start(start, tmp_path):
    folder = setup_folder(tmp_path / "b", "--db", "postgres", "--db-url",
                          "postgresql://u:hush@127.0.0.1:1/d")
    result = subprocess.run([LONELYPSS, "--config", folder / "lonelypss.ini", "--listen", "127.0.0.1:0"],
                            capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 1
    assert "127.0.0.1:1" in result.stderr and "hush" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("lonelypss: database 127.0.0.1:1: ")


# ---- Two ----


def test_what_one_confirmed_the_other_honours(both, subscriber):
    for i in range(300):
        kind, url = ("exact", "glob")[i % 2], subscriber.url(f"/{i % 7}")
        subscribe(both[i % 2], kind, url, "t")
        assert notify(both[(i + 1) % 2], "t") == 1
        unsubscribe(both[(i // 2) % 2], kind, url, "t")
        assert notify(both[(i // 2 + 1) % 2], "t") == 0


def test_both_write_at_once(both):
    """Nobody is told 503, nothing is lost."""
    statuses = []

    def write(thread):
        for i in range(60):
            body = bodies.subscribe(f"{thread}", f"{i}")
            statuses.append(post(both[thread % 2], bodies.SUBSCRIBE["exact"], body).status)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 360
    for thread in range(6):
        etag = bodies.etag(f"{thread}", [f"{i}" for i in range(60)], [])
        assert check(both[0], f"{thread}") == check(both[1], f"{thread}") == etag


def test_rows_from_psql(both, place, subscriber):
    url = subscriber.url()
    place.query(f"INSERT INTO {EXACTS} (url, exact) VALUES ('{url}', 'topic')")
    assert [notify(b, "topic") for b in both] == [1, 1]
    place.query(f"INSERT INTO {GLOBS} (url, glob) VALUES ('{url}', 't*')")
    assert [notify(b, "topic") for b in both] == [2, 2]
    place.query(f"UPDATE {GLOBS} SET glob = 'x*'")
    assert [notify(b, "topic") for b in both] == [1, 1]
    place.query(f"BEGIN; DELETE FROM {EXACTS}; ROLLBACK")
    assert [notify(b, "topic") for b in both] == [1, 1]
    place.query(f"DELETE FROM {EXACTS}; TRUNCATE {GLOBS}")
    assert [notify(b, t) for b in both for t in ("topic", "x")] == [0] * 4
    assert place.query("SELECT count(*) FROM lonely_subscriptions") == [["0"]]


def test_tables_made_while_others_hold_locks(start, place, subscriber):
    """In another order than ours: the server ends that by refusing one of our statements."""
    assert start(place.url, "first").stop() == 0
    place.query(f"DROP TRIGGER lonely_globs_inserted ON {GLOBS}")
    with place.session() as do, ThreadPoolExecutor(1) as pool:
        do(f"SET deadlock_timeout = '1h'; BEGIN; LOCK TABLE {GLOBS}")
        second = pool.submit(start, place.url, "second")
        wait_until(lambda: place.query(f"SELECT count(*) FROM pg_locks WHERE relation = '{GLOBS}'::regclass "
                                       "AND NOT granted") == [["1"]], "the broadcaster at the lock")
        do(f"LOCK TABLE {EXACTS}; COMMIT")
        broadcaster = second.result()
    subscribe(broadcaster, "glob", subscriber.url(), "t*")
    assert notify(broadcaster, "topic") == 1


def test_staleness(start, server, subscriber):
    """With a tolerance, a notify asks nobody; the changes of others come by themselves."""
    first = start(server.url, "first", database__index_max_staleness="1h")
    second = start(server.url, "second")
    subscribe(second, "exact", subscriber.url(), "t")
    wait_until(lambda: notify(first, "t") == 1, "a change that NOTIFY announced")
    server.pause()
    _, seconds = timed(notify, first, "t")
    assert seconds < 2
    server.resume()


def test_replay_to_the_other(start, place):
    first = start(place.url, "first", to_broadcaster="hmac")
    secrets = auth.Secrets(first.folder)
    second = start(place.url, "second")
    second.stop()
    for name in ("broadcaster-secrets.json", "subscriber-secrets.json"):
        (second.folder / name).write_text((first.folder / name).read_text())
    second = start(place.url, "second")
    for i in range(20):
        text = secrets.to_broadcaster.sign("subscribe exact", *auth.of_subscription("u", f"{i}"))
        request = (bodies.SUBSCRIBE["exact"], bodies.subscribe("u", f"{i}"), {"Authorization": text})
        assert post(first, *request).status == 200
        assert post(second, *request).status == 403


def test_one_missed_for_all(start, place, subscriber, dead_url):
    """What one broadcaster retries the others leave alone."""
    calls = []
    lock = threading.Lock()

    def behave(call):
        with lock:
            calls.append(call.missed.topic)
        time.sleep(0.05)
        scripted.confirms_missed(call)

    subscriber.on("/m", behave)
    fast = {"missed__sweep_missed_interval": "100ms", "missed__expo_factor": 0,
            "missed__constant": 1, "missed__jitter": 0}
    both = [start(place.url, name, **fast) for name in ("first", "second", "third")]
    for i in range(20):
        subscribe(both[0], "exact", dead_url, f"{i}", subscriber.url("/m"))
    for i in range(20):
        assert notify(both[i % 3], f"{i}") == 0
    wait_until(lambda: place.query(
        f"SELECT count(*) FROM {EXACTS} WHERE missed_next_retry_at IS NOT NULL") == [["0"]],
        "the last MISSED")
    assert sorted(calls) == sorted(b"%d" % i for i in range(20))


def test_killed_under_load(start, place, subscriber):
    """What it had confirmed is there, what it had removed is not."""
    first, second = start(place.url, "first"), start(place.url, "second")
    for i in range(200):
        subscribe(second, "exact", subscriber.url(), f"old{i}")
    added, removed = [], []
    stop = threading.Event()

    def load(thread):
        with contextlib.suppress(OSError, AssertionError):
            for i in itertools.count():
                if stop.is_set():
                    return
                subscribe(first, "exact", subscriber.url(), f"{thread}-{i}")
                added.append(f"{thread}-{i}")
                if i < 50:
                    unsubscribe(first, "exact", subscriber.url(), f"old{thread * 50 + i}")
                    removed.append(f"old{thread * 50 + i}")

    threads = [threading.Thread(target=load, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(added) > 150, "some load")
    first.kill()
    stop.set()
    for thread in threads:
        thread.join()
    for topic in added:
        assert notify(second, topic) == 1, topic
    for topic in removed:
        assert notify(second, topic) == 0, topic
    third = start(place.url, "first")
    assert check(third, subscriber.url()) == check(second, subscriber.url())


# ---- A server in trouble ----


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_restart_of_the_server(start, server, subscriber, number):
    """Nobody waits for a timeout, which is long here, so that a busy machine is told apart."""
    broadcaster = start(server.url, database__timeout="20s")
    event = threading.Event()
    slow = subscriber.add("/slow", scripted.after(event))
    subscribe(broadcaster, "exact", slow, "slow")
    counts = []
    delivery = threading.Thread(target=lambda: counts.append(notify(broadcaster, "slow")))
    delivery.start()
    wait_until(lambda: subscriber.seen("/slow"), "the delivery")
    server.stop(number)
    for path, body in REQUESTS:
        refused(broadcaster, path, body)
    for path, body in REQUESTS:
        assert refused(broadcaster, path, body) < 10, "it is known to be away"
    event.set()
    delivery.join()
    assert counts == [1], "what was under way ends well"
    server.start()
    wait_until_healed(broadcaster)
    assert notify(broadcaster, "slow") == 1
    assert any("database_back" in line for line in broadcaster.err)


def test_paused_server(start, server, subscriber):
    broadcaster = start(server.url, database__timeout=TIMEOUT)
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    server.pause()
    assert refused(broadcaster, *REQUESTS[0]) < 2 * TIMEOUT + 1
    for path, body in REQUESTS[1:]:
        assert refused(broadcaster, path, body) < 2 * TIMEOUT + 1
    took = sorted(refused(broadcaster, path, body) for path, body in REQUESTS)
    assert took[len(took) // 2] < 1, "it is known to be away"
    assert took[-1] < 2 * TIMEOUT + 1, "one may still wait for a look whether it is back"
    server.resume()
    wait_until_healed(broadcaster)
    assert notify(broadcaster, "t") == 1


def test_paused_server_is_known_to_all_workers(start, server):
    """What one has found out by waiting the others need not, whose own connections have told them nothing."""
    broadcaster = start(server.url, database__timeout=TIMEOUT, broadcaster__workers=2)
    for _ in range(16):
        assert notify(broadcaster, "t") == 0
    server.pause()
    assert refused(broadcaster, *REQUESTS[0]) < 2 * TIMEOUT + 1
    assert max(refused(broadcaster, *REQUESTS[0]) for _ in range(16)) < TIMEOUT / 2
    server.resume()
    wait_until_healed(broadcaster)


def test_paused_server_does_not_do_later_what_was_refused(start, server):
    broadcaster = start(server.url, database__timeout=TIMEOUT)
    server.pause()
    refused(broadcaster, bodies.SUBSCRIBE["exact"], bodies.subscribe("u", "late"))
    server.resume()
    wait_until_healed(broadcaster)
    wait_until(lambda: server.query("SELECT count(*) FROM pg_stat_activity WHERE application_name = "
                                    "'lonelypss' AND state <> 'idle'") == [["0"]], "quiet sessions")
    assert server.query(f"SELECT count(*) FROM {EXACTS} WHERE exact = 'late'") == [["0"]]


def test_stop_while_the_server_is_paused(start, server):
    broadcaster = start(server.url, database__timeout=TIMEOUT)
    subscribe(broadcaster, "exact", "u", "t")
    server.pause()
    since = time.monotonic()
    assert broadcaster.stop() == 0
    assert time.monotonic() - since < 3 * TIMEOUT + 5
    server.resume()


@pytest.fixture
def proxy(shared_server):
    proxy = Proxy(shared_server.port)
    yield proxy
    proxy.stop()


def proxied(place, proxy):
    return place.url.replace(f":{place.server.port}/", f":{proxy.port}/")


@pytest.mark.parametrize("mode", [HOLE, CUT])
def test_network_in_trouble(start, place, proxy, subscriber, mode):
    """While one broadcaster is cut off the other one goes on; then both agree again."""
    first = start(proxied(place, proxy), "first", database__timeout=TIMEOUT)
    second = start(place.url, "second")
    subscribe(first, "exact", subscriber.url(), "before")
    for _ in range(2):
        proxy.set_mode(mode)
        for path, body in REQUESTS:
            assert refused(first, path, body) < 2 * TIMEOUT + 1
        for path, body in REQUESTS:
            assert refused(first, path, body) < 1
        subscribe(second, "exact", subscriber.url(), "during")
        unsubscribe(second, "exact", subscriber.url(), "before")
        proxy.set_mode(PASS)
        wait_until_healed(first)
        assert notify(first, "during") == 1
        assert notify(first, "before") == 0
        unsubscribe(first, "exact", subscriber.url(), "during")
        assert notify(second, "during") == 0
        subscribe(first, "exact", subscriber.url(), "before")
    assert first.stop() == 0


def test_slow_network(start, place, proxy, subscriber):
    broadcaster = start(proxied(place, proxy), database__timeout="10s")
    proxy.delay = 0.05
    results = []

    def work(i):
        subscribe(broadcaster, "exact", subscriber.url(), f"{i}")
        results.append(notify(broadcaster, f"{i}"))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(32)]
    since = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 32
    assert time.monotonic() - since < 8, "round trips are shared"


def test_several_hosts(start, shared_server, place, proxy, subscriber):
    """The next one of the URL is tried when one does not answer."""
    hosts = f"127.0.0.1:{proxy.port},127.0.0.1:{shared_server.port}"
    url = place.url.replace(f"127.0.0.1:{shared_server.port}", hosts)
    broadcaster = start(url, database__timeout=TIMEOUT)
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    proxy.set_mode(HOLE)
    post(broadcaster, *REQUESTS[0])
    wait_until_healed(broadcaster)
    assert notify(broadcaster, "t") == 1
