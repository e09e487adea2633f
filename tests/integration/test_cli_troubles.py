"""lonelypsc when something is wrong: exit codes and diagnostics, `check`, `trace`, and the reference broadcaster."""

import contextlib
import json
import os
import pty
import re
import signal
import socket
import sqlite3
import struct
import subprocess
import time

import pytest

from conftest import PATIENCE, Program, free_port, setup_folder, wait_until
from shell_client import LONELYPSC, TRANSPORTS, Subscriber, notify, run
from test_client_library import start_ours, start_reference  # fixtures
from test_tls import authority, server_files, start_https, stranger  # fixtures


def secrets_of(folder):
    return folder / "subscriber-secrets.json"


def one_line(result, *parts):
    """A refusal that says this in one line."""
    assert result.stderr.startswith("lonelypsc: ") and result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


# ---- Arguments


@pytest.mark.parametrize("args, said", [
    ((), "a command is needed"),
    (("publish",), "publish: there is no such command"),
    (("subscribe",), "--broadcaster"),
    (("notify", "t", "--message", "x"), "--broadcaster"),
    (("check",), "--broadcaster"),
    (("subscribe", "--broadcaster", "http://h"), "--exact or --glob"),
    (("subscribe", "--broadcaster", "http://h", "--exact"), "--exact: needs a value"),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x", "y"), "y: unexpected argument"),
    (("subscribe", "--broadcaster", "http://h", "--exact-hex", "abc"), "--exact-hex: abc"),
    (("subscribe", "--broadcaster", "http://h", "--exact-hex", "zz"), "--exact-hex: zz"),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x" * 65536, "--bind", "127.0.0.1:0"), "--exact: "),
    (("subscribe", "--broadcaster", "http://h", "--glob", "\udcff", "--bind", "127.0.0.1:0"), "--glob: "),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x", "--count", "0"), "--count: 0"),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x", "--count", "-1"), "--count: -1"),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x", "--count", "99999999999999999999"), "--count: 9"),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x", "--timeout", "1s"), "--timeout: 1s"),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x", "--timeout", "nan"), "--timeout: nan"),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x", "--format", "xml"), "--format: xml"),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x", "--data", "some"), "--data: some"),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x", "--jobs", "0"), "--jobs: 0"),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x", "--transport", "udp"), "--transport: udp"),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x", "--bind", "none"), "--bind: none"),
    (("subscribe", "--broadcaster", "http://h", "--exact", "x", "--bind", "none", "--host", "http://i"),
     "--bind: none"),
    (("subscribe", "--broadcaster", "http://h", "-x"), "-x: unknown option"),
    (("subscribe", "--broadcaster", "http://h", "--exac", "x"), "--exac: unknown option"),
    (("subscribe", "--broadcaster", "http://h", "--broadcaster", "ws://h", "--exact", "x"), "--broadcaster: "),
    (("notify", "--broadcaster", "http://h"), "a topic is needed"),
    (("notify", "--broadcaster", "http://h", "t", "u"), "u: unexpected argument"),
    (("notify", "--broadcaster", "http://h", "t", "--topic-hex", "61"), "--topic-hex"),
    (("notify", "--broadcaster", "http://h", "t", "--message", "x", "--file", "/dev/null"), "--message"),
    (("notify", "--broadcaster", "http://h", "t", "--file", "/nowhere"), "--file: /nowhere"),
    (("notify", "--broadcaster", "http://h", "t", "--file", "/"), "--file: /: Is a directory"),
    (("notify", "--broadcaster", "http://h", "x" * 65536, "--message", "x"), "the topic is longer"),
    (("trace",), "a file is needed"),
    (("trace", "/nowhere"), "/nowhere"),
    (("trace", "/dev/null", "--steps", "x"), "--steps: x"),
])
def test_wrong_arguments(args, said):
    result = run(*args)
    assert (result.returncode, result.stdout) == (2, "")
    one_line(result, said)


def test_diagnostics_are_one_line_whatever_was_given():
    result = run("notify", "--broadcaster", "http://h", "t", "--x\ny\x1b[31m")
    assert result.returncode == 2
    one_line(result)
    assert "\x1b" not in result.stderr


def test_options_end_at_two_hyphens(broadcaster):
    assert run("notify", "--broadcaster", broadcaster.url, "--message=--help", "--", "--topic").stdout == "0\n"


# ---- Nobody there, nothing allowed


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_broadcaster(transport):
    url = f"{transport}://127.0.0.1:{free_port()}"
    for args in (("notify", "t", "--message", "x"), ("subscribe", "--exact", "x", "--bind", "127.0.0.1:0"),
                 ("check",)):
        began = time.monotonic()
        result = run(*args, "--broadcaster", url)
        assert result.returncode == 5
        assert time.monotonic() - began < 10
        if args[0] != "check":
            assert result.stdout == ""
            one_line(result, url, "no broadcaster could be reached")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_another_broadcaster_is_tried(start_ours, transport):
    ours = start_ours()
    dead = f"{transport}://127.0.0.1:{free_port()} 1"
    assert notify(dead, "t", "x", "--broadcaster", f"{ours.url(transport)} 2") == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scheme", ["token", "hmac"])
def test_wrong_secret(start_ours, tmp_path, transport, scheme):
    url = start_ours(scheme).url(transport)
    other = secrets_of(setup_folder(tmp_path / "other", to_broadcaster=scheme, to_subscriber=scheme))
    for secrets in ((), ("--secrets", other)):
        for args in (("notify", "t", "--message", "x"), ("subscribe", "--exact", "x", "--bind", "127.0.0.1:0")):
            began = time.monotonic()
            result = run(*args, "--broadcaster", url, *secrets)
            assert (result.returncode, result.stdout) == (4, ""), result.stderr
            assert time.monotonic() - began < 5
            one_line(result, "authorization", "--secrets")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scheme", ["none", "token", "hmac"])
def test_right_secret(start_ours, transport, scheme):
    ours = start_ours(scheme)
    url, secrets = ours.url(transport), ("--secrets", secrets_of(ours.folder))
    subscriber = Subscriber(url, "--exact", "x", "--count", 1, *secrets)
    assert notify(url, "x", "hello", *secrets) == 1
    assert subscriber.wait() == 0


def test_taken_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run("subscribe", "--broadcaster", "http://127.0.0.1:1", "--exact", "x", "--bind", address)
    assert result.returncode == 1
    one_line(result, address)


@contextlib.contextmanager
def silent_server():
    """Accepts connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_notify_gives_up():
    with silent_server() as address:
        result = run("notify", "--broadcaster", f"http://{address}", "t", "--message", "x", "--timeout", "0.3")
    assert (result.returncode, result.stdout) == (3, "")
    one_line(result, "may or may not have been sent")


def test_notify_is_interrupted():
    """While it waits for an answer, and while it reads its input."""
    with silent_server() as address:
        program = Program([LONELYPSC, "notify", "--broadcaster", f"http://{address}", "t", "--message", "x"])
        wait_until(lambda: f"{int(address.split(':')[1]):04X} 01" in open(f"/proc/{program.pid}/net/tcp").read(),
                   "the connection")
        program.signal(signal.SIGINT)
        assert program.wait() == 1
        assert "may or may not have been sent" in program.err[0]
    process = subprocess.Popen([LONELYPSC, "notify", "--broadcaster", "http://127.0.0.1:1", "t"], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: any("(deleted)" in os.readlink(f"/proc/{process.pid}/fd/{fd}")
                           for fd in os.listdir(f"/proc/{process.pid}/fd")), "the spool file")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 1
    assert process.stderr.read() == "lonelypsc: interrupted: nothing was sent\n"
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


# ---- What is sent


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sources_of_notify(start_ours, tmp_path, transport):
    url = start_ours().url(transport)
    subscriber = Subscriber(url, "--exact", "x", "--data", "always", "--count", 4)
    body = os.urandom(2500000)
    (tmp_path / "file").write_bytes(body)
    os.mkfifo(tmp_path / "fifo")
    send = ["notify", "--broadcaster", url, "x"]
    assert run(*send, "--file", tmp_path / "file").stdout == "1\n"
    with open(tmp_path / "file", "rb") as file:  # from its offset
        os.lseek(file.fileno(), 500000, os.SEEK_SET)
        assert run(*send, stdin=file).stdout == "1\n"
    assert run(*send, "--spool-dir", tmp_path, input=body, text=False).stdout == b"1\n"
    assert run(*send, "--file", "/dev/null").stdout == "1\n"
    assert subscriber.wait() == 0
    assert [line["size"] for line in subscriber.lines] == [2500000, 2000000, 2500000, 0]
    assert sorted(os.listdir(tmp_path)) == ["broadcaster", "fifo", "file"]


def test_no_room_for_standard_input(broadcaster, tmp_path):
    result = run("notify", "--broadcaster", broadcaster.url, "x", "--spool-dir", tmp_path / "none", input="x")
    assert result.returncode == 1
    one_line(result, str(tmp_path / "none"), "--spool-dir")


@pytest.mark.parametrize("size, shown", [(1000, False), (30 << 20, True)])
def test_progress_on_a_terminal(broadcaster, tmp_path, size, shown):
    (tmp_path / "file").write_bytes(bytes(size))
    ours, theirs = pty.openpty()
    process = subprocess.Popen([LONELYPSC, "notify", "--broadcaster", broadcaster.url, "x", "--file",
                                tmp_path / "file"], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := os.read(ours, 4096):
            said += piece
    os.close(ours)
    assert process.wait(PATIENCE) == 0
    assert process.stdout.read() == b"0\n"
    process.stdout.close()
    if shown:
        assert re.match(rb"\r\[#* *\] +\d+%  [0-9.]+ of 30\.0 MiB", said)
        assert said.endswith(b"\r\x1b[K")
    else:
        assert said == b""


# ---- Events


def test_lost_connections_are_told(start_ours):
    ours = start_ours()
    subscriber = Subscriber(ours.url("tcp"), "--exact", "x", "--outgoing-reconnect-retries", "none")
    ours.program.kill()
    again = start_ours(tcp=ours.tcp)
    wait_until(lambda: subscriber.lines, "the event")
    assert subscriber.lines == [{"event": "missed", "topic_hex": None}]
    assert notify(again.url("tcp"), "x", "hello") == 1
    assert subscriber.messages(2)[1]["topic"] == "x"
    assert subscriber.stop() == 0
    assert not subscriber.err


def test_connections_that_stay_lost(start_ours):
    ours = start_ours()
    subscriber = Subscriber(ours.url("ws"), "--exact", "x", "--outgoing-reconnect-retries", "0")
    ours.program.kill()
    assert subscriber.wait() == 5
    assert "no broadcaster could be reached" in subscriber.err[0]


def test_missed_messages_are_told(start_ours):
    """A receiver that stood still for a moment; the broadcaster tells later what was not delivered."""
    ours = start_ours(missed__sweep_missed_interval="100ms", missed__constant=0, missed__jitter=0,
                      webhook__outgoing_http_timeout_total="500ms")
    subscriber = Subscriber(ours.url("http"), "--exact", "x")
    subscriber.signal(signal.SIGSTOP)
    assert notify(ours.url("http"), "x", "lost") == 0
    subscriber.signal(signal.SIGCONT)
    wait_until(lambda: {"event": "missed", "topic_hex": "78"} in subscriber.lines, "MISSED")
    assert subscriber.stop() == 0


# ---- check


def verdicts(text):
    return dict(re.findall(r"^  (\w+) +(ok|-|WRONG|\?) ", text, re.M))


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scheme", ["none", "hmac"])
def test_check_good(start_ours, transport, scheme):
    ours = start_ours(scheme)
    result = run("check", "--broadcaster", ours.url(transport), "--secrets", secrets_of(ours.folder))
    assert (result.returncode, result.stderr) == (0, "")
    assert verdicts(result.stdout) == {
        "address": "ok", "tls": "-", "clock": "-" if transport == "tcp" else "ok", "secret": "ok",
        "host" if transport == "http" else "delivery": "ok"}
    assert ours.program.query("SELECT count(*) FROM httppubsub_subscription_exacts") == [(0,)]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_check_wrong_secret(start_ours, transport):
    result = run("check", "--broadcaster", start_ours("token").url(transport))
    assert result.returncode == 4
    assert verdicts(result.stdout)["secret"] == "WRONG"


def test_check_wrong_secret_of_the_way_back(start_ours, tmp_path):
    ours = start_ours("token")
    secrets = json.loads(secrets_of(ours.folder).read_text())
    other = setup_folder(tmp_path / "other", to_broadcaster="token", to_subscriber="token")
    secrets["to-subscriber"] = json.loads(secrets_of(other).read_text())["to-subscriber"]
    (tmp_path / "mixed").write_text(json.dumps(secrets))
    result = run("check", "--broadcaster", ours.url("http"), "--secrets", tmp_path / "mixed")
    assert result.returncode == 4
    assert "to-subscriber" in result.stdout and verdicts(result.stdout)["secret"] == "WRONG"


@pytest.mark.parametrize("host, said", [("http://127.0.0.1:1", "cannot post to http://127.0.0.1:1/v1/receive"),
                                        ("http://169.254.9.9:1", "cannot subscribe")])
def test_check_wrong_host(broadcaster, host, said):
    result = run("check", "--broadcaster", broadcaster.url, "--host", host, "--bind", "127.0.0.1:0")
    assert result.returncode == 1
    assert verdicts(result.stdout)["host"] == "WRONG" and said in result.stdout


@pytest.mark.parametrize("offset_s, verdict", [(-200, "WRONG"), (-60, "ok"), (60, "ok"), (200, "WRONG")])
def test_check_clock(offset_s, verdict):
    """A server whose clock is elsewhere, and that lets nobody in."""
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + offset_s))
    answer = f"HTTP/1.1 401 No\r\nDate: {date}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = Program([LONELYPSC, "check", "--broadcaster", f"http://127.0.0.1:{server.getsockname()[1]}"])
        server.settimeout(PATIENCE)
        for _ in range(2):  # of anybody, and the notify
            peer, _address = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(answer.encode())
        assert program.wait() == 4
    said = verdicts("\n".join(program.out))
    assert said["clock"] == verdict
    assert said["secret"] == ("-" if verdict == "WRONG" else "WRONG")


def test_check_address_and_protocol(start_ours):
    ours = start_ours()
    for url in (f"http://127.0.0.1:{free_port()}", "tcp://no-such-host.invalid", f"http://{ours.tcp}"):
        result = run("check", "--broadcaster", url, "--timeout", 2)
        assert result.returncode == 5
        assert verdicts(result.stdout) == {"address": "WRONG"}
    result = run("check", "--broadcaster", f"https://{ours.http}")
    assert result.returncode == 5
    assert verdicts(result.stdout) == {"address": "ok", "tls": "WRONG"}


def test_tls(start_https, authority, stranger):
    program = start_https(tcp__tls_listen="127.0.0.1:0")
    tcps = wait_until(lambda: [line.split()[2] for line in program.out if line.startswith("ready tcps ")], "tcps")
    https = f"https://127.0.0.1:{program.https_port}"
    for url in (https, https.replace("https", "wss"), f"tcps://{tcps[0]}"):
        result = run("check", "--broadcaster", url, "--ca", authority.cert)
        assert result.returncode == 0, result.stdout
        assert verdicts(result.stdout)["tls"] == "ok"
        assert notify(url, "x", "hello", "--ca", authority.cert) == 0
        for ca in ((), ("--ca", stranger.cert)):
            result = run("check", "--broadcaster", url, *ca)
            assert result.returncode == 5
            assert verdicts(result.stdout) == {"address": "ok", "tls": "WRONG"}


# ---- trace


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_trace(start_ours, tmp_path, transport):
    ours, file = start_ours("hmac"), tmp_path / "trace.db"
    began = time.time()
    traced = ("--tracing", file)
    for _ in range(3):
        assert notify(ours.url(transport), "topic", "hello", "--secrets", secrets_of(ours.folder),
                      *traced) == 0
    assert run("notify", "--broadcaster", f"{transport}://127.0.0.1:{free_port()}", "t", "--message", "x",
               *traced).returncode == 5
    assert run("notify", "--broadcaster", ours.url(transport), "t", "--message", "x", *traced).returncode == 4
    with contextlib.closing(sqlite3.connect(file)) as db:
        notifies = db.execute("SELECT id, uid, topic, length, created_at, finished_at FROM stateless_notifies "
                              "ORDER BY id").fetchall()
        rows = [db.execute("SELECT ord, name, extra, occurred_at, raw_occurred_at FROM stateless_notify_timings "
                           "WHERE notify_id = ? ORDER BY ord", (row[0],)).fetchall() for row in notifies]
    assert len(notifies) == len({row[1] for row in notifies}) == 5
    assert [(row[2], row[3]) for row in notifies] == [(b"topic", 5)] * 3 + [(b"t", 1)] * 2
    assert all(began <= row[4] <= row[5] <= time.time() for row in notifies)
    names = [[row[1] for row in points] for points in rows]
    sent = ["start_without_hash", "hashed", "sending_request", "response_received"]
    for points in names[:3]:
        assert points[:4] == sent
        assert points[4:] == (["remote_auth_accepted", "remote_no_more_subscribers"] if transport == "http" else [])
    assert names[3][-1] == ("retries_exhausted" if transport == "http" else "retry_prevented")
    assert names[4][-1] == "retry_prevented"
    for points in rows:
        assert [row[0] for row in points] == list(range(len(points)))
        assert all(isinstance(json.loads(row[2]), dict) for row in points)
        assert all(began <= row[3] <= time.time() for row in points)
    assert json.loads(rows[0][2][2])["broadcaster"] == ours.url(transport)
    result = run("trace", file, "--steps", 3)
    assert (result.returncode, result.stderr) == (0, "")
    assert "notifies   5, 17 bytes" in result.stdout
    assert "ended      3 accepted" in result.stdout
    assert len(result.stdout.partition("slowest steps")[2].splitlines()) == 4


def test_traces_of_another_clock(tmp_path):
    """A broadcaster that is an hour ahead and takes its time: corrected, its points lie between ours."""
    file, hour = tmp_path / "trace.db", 3600.0
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = Program([LONELYPSC, "notify", "--broadcaster", f"http://127.0.0.1:{server.getsockname()[1]}",
                           "t", "--message", "x", "--tracing", file])
        server.settimeout(PATIENCE)
        peer, _address = server.accept()
        with peer:
            request = b""
            length = 3 + 64 + 2 + 5 + 8 + 1  # topic, SHA-512, tracing, identifier, length, message
            while len(request.partition(b"\r\n\r\n")[2]) < length:
                request += peer.recv(65536)
            received = time.time() + hour
            time.sleep(0.2)
            sent = time.time() + hour
            identifier = request[-13:-9]
            entries = b"".join(struct.pack(">H", len(n)) + n + struct.pack(">H", 2) + b"{}" + struct.pack(">d", at)
                               for n, at in ((b"auth_accepted", received), (b"evil\x1b[31m", sent),
                                             (b"nan", float("nan"))))
            tracing = b"\0" + struct.pack(">H", 3) + entries + struct.pack(">QQ", int(received * 1e9), int(sent * 1e9))
            reply = (struct.pack(">HHH", 4, 0, len(tracing)) + tracing + struct.pack(">IB", 0, len(identifier)) +
                     identifier)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(reply) + reply)
        assert program.wait() == 0, program.err
    with contextlib.closing(sqlite3.connect(file)) as db:
        points = dict((name, (at, raw)) for name, at, raw in db.execute(
            "SELECT name, occurred_at, raw_occurred_at FROM stateless_notify_timings"))
    assert points["sending_request"][0] <= points["remote_auth_accepted"][0] <= points["response_received"][0]
    assert abs(points["remote_auth_accepted"][1] - received) < 1e-3
    assert "remote_nan" not in points and "remote_evil?[31m" in points


def test_old_traces_are_deleted(broadcaster, tmp_path):
    file = tmp_path / "trace.db"
    for _ in range(2):
        notify(broadcaster.url, "t", "x", "--tracing", file)
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE stateless_notifies SET created_at = created_at - 91 * 86400 WHERE id = 1")
        db.execute("UPDATE stateless_notifies SET created_at = created_at - 89 * 86400 WHERE id = 2")
    notify(broadcaster.url, "t", "x", "--tracing", file)
    with contextlib.closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT DISTINCT notify_id FROM stateless_notify_timings").fetchall() == [(2,), (3,)]
        assert db.execute("SELECT id FROM stateless_notifies").fetchall() == [(2,), (3,)]


def test_traces_that_cannot_be_written(broadcaster, tmp_path):
    """A locked file keeps no notify waiting."""
    file = tmp_path / "trace.db"
    notify(broadcaster.url, "t", "x", "--tracing", file)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        assert notify(broadcaster.url, "t", "x", "--tracing", file) == 0
        db.execute("ROLLBACK")
        assert db.execute("SELECT count(*) FROM stateless_notifies").fetchall() == [(1,)]


# ---- The reference broadcaster


@pytest.mark.parametrize("transport", ["http", "ws"])
@pytest.mark.parametrize("scheme", ["none", "hmac"])
def test_reference_broadcaster(start_reference, tmp_path, transport, scheme):
    peer = start_reference(scheme)
    url, secrets = peer.url(transport), ("--secrets", secrets_of(peer.folder))
    subscriber = Subscriber(url, "--exact", "x", "--count", 2, *secrets)
    wait_until(lambda: notify(url, "x", "hello", *secrets, "--tracing", tmp_path / "trace.db") > 0, "a subscriber")
    large = os.urandom(6000000)
    assert run("notify", "--broadcaster", url, "x", *secrets, input=large, text=False).returncode == 0
    assert subscriber.wait() == 0
    assert [line["size"] for line in subscriber.lines] == [5, len(large)]
    text = run("trace", tmp_path / "trace.db").stdout
    assert ("remote_receive_confirmed" in text) == (transport == "http")
    result = run("check", "--broadcaster", url, *secrets)
    assert result.returncode == 0, result.stdout
    if scheme != "none":
        assert run("notify", "--broadcaster", url, "x", "--message", "x").returncode == 4
