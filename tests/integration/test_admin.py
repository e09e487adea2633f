"""The admin listener: /healthz, /readyz, /metrics; the access log; connections an address.

The text format of the metrics by itself is in tests/unit/test_metrics.c.
"""

import contextlib
import fcntl
import http.client
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time

import pytest

import bodies
import subscriber as scripts
from conftest import LONELYPSS, PATIENCE, inside, setup_folder, wait_until
from wire import Wire, check, head, message, notify, post, request, subscribe, unsubscribe

PATHS = ["/healthz", "/readyz", "/metrics"]
URL = "http://192.0.2.1:3002/v1/receive"  # never called in these tests


class Admin:
    """The admin listener of a broadcaster, as far as wire.request needs it."""

    def __init__(self, broadcaster):
        found = wait_until(lambda: [m for line in list(broadcaster.out)
                                    if (m := re.fullmatch(r"ready admin 127\.0\.0\.1:(\d+)", line))],
                           "the ready line of the admin listener")
        assert len(found) == 1
        self.port = int(found[0].group(1))

    def get(self, path, patience=PATIENCE):
        return request(self, "GET", path, patience=patience)

    def metrics(self):
        """Samples by name with labels, as {"lonelypss_x{a="b"}": number}."""
        reply = self.get("/metrics")
        assert reply.status == 200
        assert reply.content_type == "text/plain; version=0.0.4; charset=utf-8"
        samples = {}
        for line in reply.body.decode().splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                assert name.startswith("lonelypss_") and name not in samples
                samples[name.removeprefix("lonelypss_")] = float(value)
        return samples


def moved(before, after, ignore=()):
    """What changed, without what time does by itself."""
    return {name: after[name] - before[name] for name in after
            if after[name] != before[name]
            and not re.search(r"_seconds_(bucket|sum)|^index_bytes|^body_memory", name)
            and not name.startswith(tuple(ignore))}


@pytest.fixture
def start(start_broadcaster):
    """start(**settings): a broadcaster and its admin listener."""

    def start_both(*args, **settings):
        broadcaster = start_broadcaster(*args, broadcaster__admin_listen="127.0.0.1:0", **settings)
        return broadcaster, Admin(broadcaster)

    return start_both


# ---- Paths and methods ----


def test_paths_and_methods(start):
    _, admin = start()
    for path in PATHS:
        for target in (path, path + "?a=b"):
            assert admin.get(target).status == 200
        assert request(admin, "HEAD", path).status == 200
        assert request(admin, "HEAD", path).body == b""
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            reply = request(admin, method, path, b"body")
            assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    for path in ("/", "/metric", "/metrics/", "//metrics", "/Metrics", bodies.NOTIFY):
        assert admin.get(path).status == 404
        assert request(admin, "POST", path, b"x").status == 404
    assert admin.get("/healthz").body == b"ok\n"
    assert admin.get("/readyz").body == b"ready\n"


def test_one_connection_many_requests(start):
    _, admin = start()
    with Wire(admin) as wire:
        wire.send(b"".join(head("GET", path, []) for path in PATHS * 3))
        assert [wire.reply().status for _ in PATHS * 3] == [200] * 9


def test_not_on_the_public_listener(start):
    broadcaster, _ = start()
    for path in PATHS:
        for method in ("GET", "HEAD", "POST"):
            assert request(broadcaster, method, path).status == 404


def test_no_admin_listener_by_default(broadcaster):
    assert broadcaster.stop() == 0
    assert [line.split()[1] for line in broadcaster.out if line.startswith("ready ")] == ["http"]


def test_a_port_in_use_is_an_error(start_broadcaster, tmp_path):
    first = start_broadcaster()
    folder = setup_folder(tmp_path / "second")
    result = subprocess.run(
        [LONELYPSS, "--config", folder / "lonelypss.ini", "--listen", "127.0.0.1:0",
         "--set", f"broadcaster.admin_listen={first.address}"],
        capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 1
    assert first.address in result.stderr and "ready" not in result.stdout


# ---- Metrics ----


def test_promtool_likes_the_metrics(start, subscriber):
    """promtool comes with Debian's package prometheus; without it this test fails."""
    broadcaster, admin = start()
    subscribe(broadcaster, "exact", subscriber.url(), "topic")
    assert notify(broadcaster, "topic") == 1
    text = admin.get("/metrics").body
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True,
                            timeout=PATIENCE)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_subscriptions(start):
    broadcaster, admin = start()
    before = admin.metrics()
    subscribe(broadcaster, "exact", URL, "a")
    subscribe(broadcaster, "glob", URL, "a*", URL + "/recover")
    subscribe(broadcaster, "glob", URL, "b*")
    assert post(broadcaster, bodies.SUBSCRIBE["exact"], bodies.subscribe(URL, "a")).status == 409
    unsubscribe(broadcaster, "glob", URL, "b*")
    check(broadcaster, URL)
    # A notify brings the index up to date.
    assert post(broadcaster, bodies.NOTIFY, bodies.notify("nobody", b"1234567")).status == 200
    assert moved(before, admin.metrics(), ["connections"]) == {
        'http_requests_total{route="/v1/subscribe/exact",status="200"}': 1,
        'http_requests_total{route="/v1/subscribe/exact",status="409"}': 1,
        'http_requests_total{route="/v1/subscribe/glob",status="200"}': 2,
        'http_requests_total{route="/v1/unsubscribe/glob",status="200"}': 1,
        'http_requests_total{route="/v1/check_subscriptions",status="200"}': 1,
        'http_requests_total{route="/v1/notify",status="200"}': 1,
        'http_request_duration_seconds_count{route="/v1/subscribe/exact"}': 2,
        'http_request_duration_seconds_count{route="/v1/subscribe/glob"}': 2,
        'http_request_duration_seconds_count{route="/v1/unsubscribe/glob"}': 1,
        'http_request_duration_seconds_count{route="/v1/check_subscriptions"}': 1,
        'http_request_duration_seconds_count{route="/v1/notify"}': 1,
        'store_duration_seconds_count{operation="subscribe"}': 4,
        'store_duration_seconds_count{operation="unsubscribe"}': 1,
        'store_duration_seconds_count{operation="check"}': 1,
        'store_duration_seconds_count{operation="sync"}': 1,
        'notifies_total{outcome="ok"}': 1,
        "message_received_bytes_total": 7,
        'subscriptions{kind="exact"}': 1,
        'subscriptions{kind="glob"}': 1,
        "subscriber_urls": 2,
    }
    before = admin.metrics()
    assert post(broadcaster, bodies.SET, bodies.set_subscriptions(URL, ["x"])).status == 200
    assert moved(before, admin.metrics(), ["connections", "sub"]) == {
        'http_requests_total{route="/v1/set_subscriptions",status="200"}': 1,
        'http_request_duration_seconds_count{route="/v1/set_subscriptions"}': 1,
        'store_duration_seconds_count{operation="set"}': 1,
    }


@pytest.fixture
def no_tls_url():
    """An https URL whose server says something else at once, whatever the client says."""
    def serve():
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                peer = listener.accept()[0]
                with peer:
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    peer.shutdown(socket.SHUT_WR)
                    while peer.recv(4096):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_deliveries(start, subscriber, dead_url, no_tls_url):
    broadcaster, admin = start(webhook__outgoing_http_timeout_total="3s",
                               webhook__max_reply_bytes=1000)
    outcomes = {
        "confirmed": [scripts.good, scripts.confirms(5)],
        "unsubscribed": [scripts.unsubscribes],
        "unconfirmed": [scripts.short, scripts.replies(b"", 500)],
        "timeout": [scripts.hangs],
        "reply_size": [scripts.replies(bytes(1001))],
        "broken": [scripts.closes, scripts.cut_body],
    }
    for outcome, behaviours in outcomes.items():
        for i, behaviour in enumerate(behaviours):
            subscribe(broadcaster, "exact", subscriber.add(f"/{outcome}{i}", behaviour), "topic")
    subscribe(broadcaster, "exact", dead_url, "topic")
    subscribe(broadcaster, "exact", dead_url.replace("http:", "https:"), "topic")
    subscribe(broadcaster, "exact", no_tls_url, "topic")
    subscribe(broadcaster, "exact", "http://127.0.0.1:1/\0", "topic")
    before = admin.metrics()
    assert notify(broadcaster, "topic") == 6
    after = admin.metrics()
    found = {name: n for name, n in moved(before, after).items() if name.startswith("deliver")}
    assert found == {
        'deliveries_total{outcome="confirmed"}': 2,
        'deliveries_total{outcome="unsubscribed"}': 1,
        'deliveries_total{outcome="unconfirmed"}': 2,
        'deliveries_total{outcome="timeout"}': 1,
        'deliveries_total{outcome="reply_size"}': 1,
        'deliveries_total{outcome="broken"}': 2,
        'deliveries_total{outcome="connect"}': 2,
        'deliveries_total{outcome="tls"}': 1,
        'deliveries_total{outcome="url"}': 1,
        "delivery_duration_seconds_count": 13,
    }
    # The one that hung took its time, the others did not.
    buckets = [after[f'delivery_duration_seconds_bucket{{le="{le}"}}'] for le in ("0.25", "+Inf")]
    assert buckets[0] < buckets[1] == 13
    assert after["delivery_duration_seconds_sum"] >= 0.3


def test_what_is_under_way(start, subscriber):
    broadcaster, admin = start(webhook__max_in_flight=2, webhook__max_per_origin=2,
                               webhook__max_per_url=2, webhook__max_queued=1)
    go = threading.Event()
    subscribe(broadcaster, "exact", subscriber.add("/slow", scripts.after(go)), "topic")
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(broadcaster)) for _ in range(4)]
        for i, wire in enumerate(wires[:3]):
            wire.send(message(bodies.NOTIFY, bodies.notify("topic", bytes(100))))
            wait_until(lambda: sum(admin.metrics()[f"outbox_{x}"] for x in ("running", "queued"))
                       == i + 1, "the notify to be under way")
        now = admin.metrics()
        assert (now["outbox_running"], now["outbox_queued"]) == (2, 1)
        assert now["connections"] == 4 and now["body_memory_bytes"] >= 300
        assert now['notifies_total{outcome="ok"}'] == 0
        wires[3].send(message(bodies.NOTIFY, bodies.notify("topic", b"")))
        assert wires[3].reply().status == 503
        now = admin.metrics()
        assert now['notifies_total{outcome="busy"}'] == now['rejected_total{reason="busy"}'] == 1
        assert now['rejected_total{reason="unavailable"}'] == 0
        go.set()
        assert [wire.reply().status for wire in wires[:3]] == [200] * 3
    wait_until(lambda: admin.metrics()["connections"] == 0, "the end of the connections")
    now = admin.metrics()
    assert (now["outbox_running"], now["outbox_queued"], now["body_memory_bytes"]) == (0, 0, 0)
    assert now['notifies_total{outcome="ok"}'] == 3


def test_missed(start, subscriber, dead_url):
    broadcaster, admin = start(missed__sweep_missed_interval="100ms", missed__constant=0,
                               missed__jitter=0, missed__expo_factor=0, missed__max_retries=2)
    for name, behaviour in [("confirmed", scripts.confirms_missed),
                            ("unsubscribed", scripts.unsubscribes), ("given_up", scripts.closes)]:
        recovery = subscriber.add(f"/{name}", behaviour)
        subscribe(broadcaster, "exact", dead_url, name, recovery)
        assert notify(broadcaster, name) == 0
    subscribe(broadcaster, "exact", dead_url, "no recovery")
    assert notify(broadcaster, "no recovery") == 0

    def results():
        now = admin.metrics()
        names = ("confirmed", "unsubscribed", "retried", "given_up", "cancelled")
        return [now[f'missed_results_total{{outcome="{name}"}}'] for name in names]

    wait_until(lambda: results() == [1, 1, 1, 1, 0], "the end of all MISSED")
    wait_until(lambda: admin.metrics()["missed_running"] == 0, "the last clear")
    now = admin.metrics()
    assert (now["missed_scheduled_total"], now["missed_sent_total"]) == (3, 4)
    for operation, count in [("missed_upsert", 3), ("missed_clear", 2), ("missed_retry", 1)]:
        assert now[f'store_duration_seconds_count{{operation="{operation}"}}'] == count
    assert now['store_duration_seconds_count{operation="missed_lock"}'] >= 4


def test_rejected(start):
    # Slow is who takes longer than a busy machine makes the others.
    broadcaster, admin = start(limits__max_message_bytes=10, http__header_timeout="2s",
                               http__body_idle_timeout="2s", http__max_header_bytes=1024)
    before = admin.metrics()
    requests = [
        (message(bodies.NOTIFY, b"short"), 400),
        (message(bodies.NOTIFY, bodies.notify("topic", bytes(11))), 413),
        (head("GET", bodies.NOTIFY, []), 405),
        (message("/nowhere", b""), 404),
        (b"nonsense\r\n\r\n", 400),
        (head("GET", "/" + "x" * 2000, []), 414),
        (head("GET", "/", [("X", "x" * 2000)]), 431),
        (b"GET / HTTP/1.1\r\n", 408),
        (head("POST", bodies.NOTIFY, [("Content-Length", "100")]) + b"xx", 408),
    ]
    for data, status in requests:
        with Wire(broadcaster) as wire:
            wire.send(data)
            assert wire.reply().status == status, data[:50]
    with Wire(broadcaster) as wire:  # leaves in the middle
        wire.send(head("POST", bodies.CHECK, [("Content-Length", "100")]) + b"xx")
    aborted = 'http_requests_aborted_total{route="/v1/check_subscriptions"}'
    wait_until(lambda: admin.metrics()[aborted] == 1, "the abort")
    assert moved(before, admin.metrics(), ["connections", "http_request_d"]) == {
        'http_requests_total{route="/v1/notify",status="400"}': 1,
        'http_requests_total{route="/v1/notify",status="413"}': 1,
        'http_requests_total{route="/v1/notify",status="405"}': 1,
        'http_requests_total{route="unknown",status="404"}': 1,
        'http_requests_aborted_total{route="/v1/notify"}': 1,
        aborted: 1,
        'rejected_total{reason="malformed"}': 2,
        'rejected_total{reason="too_large"}': 1,
        'rejected_total{reason="not_found"}': 2,
        'rejected_total{reason="head_too_large"}': 2,
        'rejected_total{reason="too_slow"}': 2,
    }


def test_store_failures(start):
    broadcaster, admin = start(database__timeout="500ms")
    with locked(broadcaster):
        assert post(broadcaster, bodies.SUBSCRIBE["exact"], bodies.subscribe(URL, "a")).status == 503
    now = admin.metrics()
    assert now['store_failures_total{operation="subscribe"}'] == 1
    assert now['store_duration_seconds_bucket{operation="subscribe",le="0.25"}'] == 0
    assert now['store_duration_seconds_count{operation="subscribe"}'] == 1
    assert now['rejected_total{reason="unavailable"}'] == 1
    assert now['store_pending{operation="subscribe"}'] == 0


def test_store_pending(start):
    broadcaster, admin = start()
    with locked(broadcaster), Wire(broadcaster) as wire:
        wire.send(message(bodies.SUBSCRIBE["exact"], bodies.subscribe(URL, "a")))
        wait_until(lambda: admin.metrics()['store_pending{operation="subscribe"}'] == 1,
                   "the write to wait")
    wait_until(lambda: admin.metrics()['store_pending{operation="subscribe"}'] == 0, "its end")


def test_all_workers_count(start):
    broadcaster, admin = start(broadcaster__workers=3)
    for _ in range(30):  # each on a connection of its own, so on any of the workers
        assert notify(broadcaster, "nobody", b"12345") == 0
    now = admin.metrics()
    assert now["workers"] == 3
    assert now['notifies_total{outcome="ok"}'] == 30
    assert now['http_request_duration_seconds_count{route="/v1/notify"}'] == 30
    assert now["message_received_bytes_total"] == 150
    assert admin.get("/healthz").status == 200


def test_process(start):
    started = time.time()
    _, admin = start()
    now = admin.metrics()
    version = subprocess.run([LONELYPSS, "--version"], capture_output=True, text=True,
                             timeout=PATIENCE).stdout.split()[-1]
    assert now[f'build_info{{version="{version}"}}'] == 1
    assert started - 1 <= now["start_time_seconds"] <= time.time() + 1


# ---- Readiness ----


@contextlib.contextmanager
def locked(broadcaster):
    """Holds the write lock of the database."""
    connection = sqlite3.connect(broadcaster.folder / "subscriptions.db", isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def becomes(admin, status, body):
    """The answer of the next looks; an answer is kept for a second."""
    return wait_until(lambda: (r := admin.get("/readyz")).status == status and r.body == body,
                      f"{status} {body}")


def test_a_locked_database_is_not_ready(start):
    broadcaster, admin = start(database__timeout="500ms")
    assert admin.get("/readyz").status == 200
    with locked(broadcaster):
        becomes(admin, 503, b"the database does not answer\n")
        assert admin.get("/healthz").status == 200
        assert notify(broadcaster, "nobody") == 0  # the loop goes on
    becomes(admin, 200, b"ready\n")


def test_without_spool_folder_it_is_not_ready(start):
    broadcaster, admin = start()
    spool = broadcaster.folder / "spool"
    assert admin.get("/readyz").status == 200
    spool.rmdir()
    becomes(admin, 503, b"broadcaster.spool_dir cannot be written\n")
    spool.mkdir()
    becomes(admin, 200, b"ready\n")
    assert list(spool.iterdir()) == []


def test_with_a_full_spool_disk_it_is_not_ready(start, small_disk):
    """An empty file can be made on it."""
    wrapper, folder = small_disk
    broadcaster, admin = start(wrapper=wrapper("64k"), broadcaster__spool_dir=folder)
    assert admin.get("/readyz").status == 200
    filler = inside(broadcaster, folder / "filler")
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    becomes(admin, 503, b"broadcaster.spool_dir cannot be written\n")
    filler.unlink()
    becomes(admin, 200, b"ready\n")


def test_each_reason_has_a_line(start):
    broadcaster, admin = start(database__timeout="500ms")
    (broadcaster.folder / "spool").rmdir()
    with locked(broadcaster):
        becomes(admin, 503, b"the database does not answer\n"
                            b"broadcaster.spool_dir cannot be written\n")


def test_those_who_ask_at_once_share_the_answer(start):
    broadcaster, admin = start(database__timeout="5s")
    probes = 'store_duration_seconds_count{operation="probe"}'
    waiting = 'store_pending{operation="probe"}'
    with contextlib.ExitStack() as stack:
        with locked(broadcaster):
            wires = [stack.enter_context(Wire(admin)) for _ in range(20)]
            for wire in wires:
                wire.send(head("GET", "/readyz", []))
            wait_until(lambda: admin.metrics()[waiting] == 1, "the look")
            wires[0].close()  # one leaves while it waits
        assert [wire.reply().status for wire in wires[1:]] == [200] * 19
    before = admin.metrics()[probes]
    assert before <= 2  # a peer that came late, after the answer's second
    began = time.monotonic()
    while time.monotonic() - began < 1.5:
        assert admin.get("/readyz").status == 200
    assert 1 <= admin.metrics()[probes] - before <= 3


def test_a_probe_changes_nothing(start):
    broadcaster, admin = start(missed__sweep_missed_interval="1h")
    subscribe(broadcaster, "exact", "", "", "http://192.0.2.1/recover")
    assert notify(broadcaster, "") == 0  # its MISSED is pending

    def content():
        with contextlib.closing(sqlite3.connect(broadcaster.folder / "subscriptions.db")) as db:
            return list(db.iterdump())

    before = content()
    assert any("recover" in line for line in before)
    assert admin.get("/readyz").status == 200
    assert content() == before


def test_draining(start, subscriber):
    broadcaster, admin = start(broadcaster__workers=2)
    go = threading.Event()
    subscribe(broadcaster, "exact", subscriber.add("/slow", scripts.after(go)), "topic")
    with Wire(broadcaster) as wire:
        wire.send(message(bodies.NOTIFY, bodies.notify("topic", b"")))
        subscriber.wait_for(1)
        broadcaster.signal(signal.SIGTERM)
        becomes(admin, 503, b"draining\n")
        assert admin.get("/healthz").status == 200
        assert admin.metrics()["outbox_running"] == 1
        go.set()
        assert wire.reply().status == 200
    assert broadcaster.wait() == 0
    with pytest.raises(ConnectionError):
        admin.get("/healthz")


def test_stops_with_admin_requests_waiting(start):
    broadcaster, admin = start(database__timeout="30s")
    with locked(broadcaster), Wire(admin) as waiting, Wire(admin) as idle:
        waiting.send(head("GET", "/readyz", []))
        wait_until(lambda: admin.metrics()['store_pending{operation="probe"}'] == 1, "the look")
        idle.send(b"GET")
        broadcaster.signal(signal.SIGTERM)
        reply = waiting.reply()
        assert (reply.status, reply.body) == (503, b"draining\n")
    assert broadcaster.wait() == 0


# ---- Health ----


def test_a_stuck_worker_is_not_healthy(tmp_path):
    """A worker that cannot write its log lines, since nobody reads them, waits; the admin loop does not."""
    folder = setup_folder(tmp_path / "broadcaster")
    process = subprocess.Popen(
        [LONELYPSS, "--config", folder / "lonelypss.ini", "--listen", "127.0.0.1:0",
         "--set", "broadcaster.admin_listen=127.0.0.1:0", "--set", "log.access=yes"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    lines = [process.stdout.readline().decode().split() for _ in range(2)]
    assert [line[1] for line in lines] == ["http", "admin"]
    ports = [int(line[2].rsplit(":", 1)[1]) for line in lines]
    admin = http.client.HTTPConnection("127.0.0.1", ports[1], timeout=PATIENCE)

    def health():
        admin.request("GET", "/healthz")
        reply = admin.getresponse()
        return reply.status, reply.read()

    try:
        assert health() == (200, b"ok\n")
        with socket.create_connection(("127.0.0.1", ports[0]), PATIENCE) as public:
            public.sendall(head("GET", "/", []) * 100)
            status, text = wait_until(lambda: (h := health())[0] != 200 and h, "the stuck worker")
            assert status == 503 and re.fullmatch(rb"worker 0 is stuck for \d+ s\n", text)
            reader = threading.Thread(target=process.stderr.read, daemon=True)
            reader.start()
            wait_until(lambda: health() == (200, b"ok\n"), "the worker to go on")
        process.terminate()
        assert process.wait(PATIENCE) == 0
        reader.join(PATIENCE)
    finally:
        admin.close()
        process.kill()
        process.wait()


# ---- The access log ----


def access_lines(broadcaster, event="request"):
    return [line for line in list(broadcaster.err) if f" info {event} " in line]


def test_access_log(start_broadcaster):
    broadcaster = start_broadcaster(log__access="yes")
    body = bodies.notify("nobody", b"hello")
    sent = [
        (message(bodies.NOTIFY + "?secret=1", body), 200, "POST", bodies.NOTIFY, len(body)),
        (message(bodies.NOTIFY, b"bad"), 400, "POST", bodies.NOTIFY, 3),
        (message(bodies.SUBSCRIBE["exact"], bodies.subscribe(URL, "a")), 200, "POST",
         bodies.SUBSCRIBE["exact"], len(bodies.subscribe(URL, "a"))),
        (head("GET", "/a%20b?secret=1", []), 404, "GET", "/a%20b", 0),
        (head("PUT", bodies.CHECK, []), 405, "PUT", bodies.CHECK, 0),
    ]
    for i, (data, status, method, path, size) in enumerate(sent):
        with Wire(broadcaster) as wire:
            host, port = wire.socket.getsockname()
            wire.send(data)
            assert wire.reply().status == status
            line = wait_until(lambda: access_lines(broadcaster)[i:], "the line")[0]
        pattern = (rf"\S+Z info request peer={host}:{port} method={method} path={re.escape(path)} "
                   rf"status={status} bytes_in={size} seconds=(\S+)")
        found = re.fullmatch(pattern, line)
        assert found, line
        assert 0 <= float(found.group(1)) < PATIENCE
    assert not any("secret" in line for line in broadcaster.err)


def test_access_log_escapes(start_broadcaster):
    broadcaster = start_broadcaster(log__access="yes")
    with Wire(broadcaster) as wire:
        wire.send(b'GET /a"b\\c%ff HTTP/1.1\r\nHost: a\r\n\r\n')
        assert wire.reply().status == 404
    line = wait_until(lambda: access_lines(broadcaster), "the line")[0]
    assert r' path="/a\x22b\x5cc%ff" status=404 ' in line


def test_access_log_of_what_was_no_request(start_broadcaster):
    broadcaster = start_broadcaster(log__access="yes")
    with Wire(broadcaster) as wire:
        host, port = wire.socket.getsockname()
        wire.send(b"nonsense\r\n\r\n")
        assert wire.reply().status == 400
        line = wait_until(lambda: access_lines(broadcaster, "no_request"), "the line")[0]
        assert line.endswith(f" info no_request peer={host}:{port} status=400")
    with Wire(broadcaster) as wire:
        wire.send(head("POST", bodies.NOTIFY, [("Content-Length", "100")]) + b"xxx")
    line = wait_until(lambda: access_lines(broadcaster), "the aborted request")[0]
    assert f"path={bodies.NOTIFY} status=0 bytes_in=" in line


def test_no_access_log_by_default(broadcaster):
    assert notify(broadcaster, "nobody") == 0
    assert request(broadcaster, "GET", "/").status == 404
    with Wire(broadcaster) as wire:
        wire.send(b"nonsense\r\n\r\n")
        assert wire.reply().status == 400
    assert broadcaster.stop() == 0
    assert not [line for line in broadcaster.err if "request" in line]


def test_access_log_on_sighup(start_broadcaster):
    broadcaster = start_broadcaster()
    config = broadcaster.folder / "lonelypss.ini"
    before = config.read_text()
    for turn, (text, lines) in enumerate([("yes", 1), ("no", 1), ("yes", 2)], 1):
        config.write_text(before.replace("#access = no", f"access = {text}"))
        broadcaster.signal(signal.SIGHUP)
        wait_until(lambda: sum(" info reloaded " in line for line in list(broadcaster.err)) == turn,
                   "the reload")
        assert notify(broadcaster, "nobody") == 0
        wait_until(lambda: len(access_lines(broadcaster)) >= lines, "the line")
    assert broadcaster.stop() == 0
    assert len(access_lines(broadcaster)) == 2


# ---- Connections an address ----


def test_connections_an_address(start):
    broadcaster, admin = start(limits__max_connections_per_address=2, broadcaster__workers=2)
    with Wire(broadcaster) as first, Wire(broadcaster) as second:
        for wire in (first, second):  # both are accepted, by whichever worker
            wire.send(message(bodies.CHECK, bodies.check(URL)))
            assert wire.reply().status == 200
        for _ in range(3):
            with Wire(broadcaster) as third:
                assert third.at_end()
        refused = wait_until(
            lambda: [line for line in list(broadcaster.err)
                     if " warn connection_refused peer=127.0.0.1:" in line], "the log line")
        assert "reason=limits.max_connections_per_address" in refused[0]
        now = admin.metrics()
        assert now['rejected_total{reason="address_limit"}'] == 3
        assert now["connections"] == 2
    wait_until(lambda: admin.metrics()["connections"] == 0, "both to be gone")
    assert check(broadcaster, URL)


def test_the_admin_listener_has_its_own_connections(start):
    broadcaster, admin = start(limits__max_connections_per_address=1, limits__max_connections=1)
    with Wire(broadcaster) as public, contextlib.ExitStack() as stack:
        public.send(message(bodies.CHECK, bodies.check(URL)))
        assert public.reply().status == 200
        for wire in [stack.enter_context(Wire(admin)) for _ in range(5)]:
            wire.send(head("GET", "/healthz", []))
            assert wire.reply().status == 200
