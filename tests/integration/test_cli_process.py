"""lonelypsc as a process among others: descriptors and signals that it inherits and hands on, limits, interruptions."""

import base64
import contextlib
import hashlib
import json
import os
import pty
import re
import resource
import select
import signal
import socket
import sqlite3
import struct
import subprocess
import threading
import time

import pytest

from conftest import PATIENCE, Program, free_port, setup_folder, wait_until
from shell_client import LONELYPSC, Subscriber, notify, run
from test_client_library import start_ours  # fixture
from test_cli_formats import notify_bytes

CLOSED = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]


def test_standard_descriptors_that_are_closed(broadcaster, tmp_path):
    """None of its own files takes their place: neither is one written into, nor does a library mind."""
    traces = tmp_path / "traces.db"
    result = subprocess.run([*CLOSED, LONELYPSC, "notify", "--broadcaster", broadcaster.url, "t", "--message", "x",
                             "--tracing", traces], timeout=PATIENCE)
    assert result.returncode == 1  # the number could not be printed
    with contextlib.closing(sqlite3.connect(traces)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM stateless_notifies").fetchall() == [(1,)]


def test_commands_inherit_three_descriptors(broadcaster):
    subscriber = Subscriber(broadcaster.url, "--exact", "t", "--count", 1, "--data", "never",
                            "--exec", "ls /proc/self/fd")
    assert notify(broadcaster.url, "t", "x") == 1
    assert subscriber.wait() == 0
    assert subscriber.out[2:] == ["0", "1", "2", "3"]  # 3: the folder that ls reads


def test_children_though_nobody_waits_for_them(broadcaster):
    """A parent that ignored SIGCHLD has handed that down."""
    subscriber = Subscriber(broadcaster.url, "--exact", "t", "--count", 2, "--exec", "true",
                            preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    for _ in range(2):
        assert notify(broadcaster.url, "t", "x") == 1
    assert subscriber.wait() == 0


def test_nohup(broadcaster):
    subscriber = Subscriber(broadcaster.url, "--exact", "t",
                            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    subscriber.signal(signal.SIGHUP)
    assert notify(broadcaster.url, "t", "x") == 1
    subscriber.messages(1)
    assert subscriber.stop() == 0


def test_limit_of_files(broadcaster, tmp_path):
    """Beyond ulimit -f nothing is left of a message, and the program says why it ends."""
    limit = 65536
    subscriber = Subscriber(broadcaster.url, "--exact", "t", "--output", tmp_path / "folder",
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert notify_bytes(broadcaster.url, b"t", bytes(2 * limit)) == 1
    assert subscriber.wait() == 1
    assert len(subscriber.err) == 1 and "File too large" in subscriber.err[0], subscriber.err
    assert os.listdir(tmp_path / "folder") == []


def test_commands_that_end_at_once(broadcaster, tmp_path):
    """However soon it ends, the next one is started; without --count."""
    subscriber = Subscriber(broadcaster.url, "--exact", "t", "--data", "never", "--exec", "echo ended")
    for _ in range(20):
        assert notify(broadcaster.url, "t", "x") == 1
    wait_until(lambda: subscriber.out.count("ended") == 20, "the commands")
    assert subscriber.stop() == 0


# ---- Standard output


def subscribe_raw(broadcaster, *args, **kwargs):
    process = subprocess.Popen([LONELYPSC, "subscribe", "--broadcaster", broadcaster.url, "--bind", "127.0.0.1:0",
                                "--glob", "*", "--format", "raw", *args], stderr=subprocess.PIPE, text=True, **kwargs)
    wait_until(lambda: broadcaster.query("SELECT count(*) FROM httppubsub_subscription_globs") == [(1,)],
               "the subscription")
    return process


@pytest.mark.parametrize("args", [(), ("--count", "1")])
@pytest.mark.parametrize("size", [1, 3 << 20])
def test_full_standard_output_is_told_once(broadcaster, size, args):
    with open("/dev/full", "wb") as full:
        process = subscribe_raw(broadcaster, *args, stdout=full)
    assert notify_bytes(broadcaster.url, b"t", bytes(size)) == 1
    errors = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, errors) == (1, "lonelypsc: standard output: No space left on device\n")


def test_reader_that_has_enough_of_a_large_message(broadcaster):
    process = subscribe_raw(broadcaster, stdout=subprocess.PIPE)
    assert notify_bytes(broadcaster.url, b"t", bytes(3 << 20)) == 1
    assert process.stdout.read(1) == "\0"
    process.stdout.close()
    assert (process.wait(PATIENCE), process.stderr.read()) == (1, "")
    process.stderr.close()


# ---- A bar for what arrives


def receive_request(topic, body):
    """What a broadcaster posts, in two halves."""
    fields = (struct.pack(">H", 0) + struct.pack(">H", len(topic)) + topic + b"\x04abcd" +
              struct.pack(">Q", len(body)))
    digest = base64.b64encode(hashlib.sha512(body).digest()).decode()
    head = (f"POST /v1/receive HTTP/1.1\r\nHost: x\r\nContent-Length: {len(fields) + len(body)}\r\n"
            f"Repr-Digest: sha-512={digest}\r\nConnection: close\r\n\r\n").encode()
    half = len(body) // 2
    return head + fields + body[:half], body[half:]


def read_terminal(fd, until):
    """What is said on a terminal, until it holds that, or, for None, to its end."""
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while until is None or until not in said:
            readable, _, _ = select.select([fd], [], [], PATIENCE)
            assert readable, said
            said += os.read(fd, 4096)
    return said


@pytest.mark.parametrize("args, shown", [(("--output", "folder"), True), (("--format", "raw"), True),
                                         (("--format", "raw", "--terminal"), False)])
def test_large_messages_show_how_far_they_have_come(broadcaster, tmp_path, args, shown):
    """In bytes that have come, while the broadcaster is slow; not among messages on the same terminal."""
    ours, theirs = pty.openpty()
    port = free_port()
    terminal = args[-1] == "--terminal"
    process = subprocess.Popen(
        [LONELYPSC, "subscribe", "--broadcaster", broadcaster.url, "--bind", f"127.0.0.1:{port}", "--exact", "t",
         "--count", "1", *(a for a in args if a != "--terminal")],
        stdout=theirs if terminal else subprocess.DEVNULL, stderr=theirs, cwd=tmp_path)
    os.close(theirs)
    wait_until(lambda: broadcaster.query("SELECT count(*) FROM httppubsub_subscription_exacts") == [(1,)],
               "the subscription")
    body = b"x" * (4 << 20)
    first, rest = receive_request(b"t", body)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
        peer.sendall(first)
        if shown:
            said = read_terminal(ours, b" MiB/s ")
            assert re.search(rb"\r\[#+ +\] +\d+%  [0-9.]+ of 4\.0 MiB", said), said
        peer.sendall(rest)
        reader = threading.Thread(target=lambda: peer.recv(4096))  # nobody may wait for nobody
        reader.start()
        said = read_terminal(ours, None)
        reader.join(PATIENCE)
    assert process.wait(PATIENCE) == 0
    os.close(ours)
    assert said.endswith(b"\r\x1b[K") == shown
    assert (b"\x1b" in said or b"MiB" in said) == shown
    if "--output" in args:
        assert [(tmp_path / "folder" / name).read_bytes() for name in os.listdir(tmp_path / "folder")] == [body]


# ---- check


def test_check_is_interrupted():
    """While a broadcaster keeps it waiting for a first answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        program = Program([LONELYPSC, "check", "--timeout", PATIENCE, "--broadcaster",
                           f"http://127.0.0.1:{server.getsockname()[1]}"])
        peer, _address = server.accept()
        with peer:
            began = time.monotonic()
            program.signal(signal.SIGINT)
            assert program.wait() == 1
    assert time.monotonic() - began < PATIENCE / 2
    assert program.err == ["lonelypsc: interrupted"]


def test_check_knows_the_port_of_tcp():
    result = run("check", "--broadcaster", "tcp://[::1]", "--timeout", 1)
    assert result.returncode == 5
    assert "3004" in result.stdout


# ---- Files of traces


def test_files_that_hold_no_traces(broadcaster, tmp_path):
    """Named wrongly: 2; damaged: 1. Whoever writes to one is told before anything is sent."""
    (tmp_path / "text").write_text("no database " * 1000)
    (tmp_path / "empty").touch()
    whole = tmp_path / "traces.db"
    for _ in range(20):
        notify(broadcaster.url, "t", "x", "--tracing", whole)
    with contextlib.closing(sqlite3.connect(whole)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    (tmp_path / "damaged").write_bytes(whole.read_bytes()[:4096] + bytes(whole.stat().st_size - 4096))
    for name, code in (("text", 2), ("empty", 2), ("damaged", 1)):
        result = run("trace", tmp_path / name)
        assert (result.returncode, result.stdout) == (code, "")
        assert result.stderr.startswith(f"lonelypsc: {tmp_path / name}: ") and result.stderr.count("\n") == 1
    for path in (tmp_path / "text", tmp_path / "none/below", tmp_path):
        result = run("notify", "--broadcaster", broadcaster.url, "t", "--message", "x", "--tracing", path)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith(f"lonelypsc: --tracing: {path}: ") and result.stderr.count("\n") == 1


# ---- A secret of the way back that is another


@pytest.mark.parametrize("scheme", ["token", "hmac"])
def test_answers_that_are_not_authorized(start_ours, tmp_path, scheme):
    """What the broadcaster has confirmed, nobody can tell: that is no good answer, and says which secret is wrong."""
    ours = start_ours(scheme)
    secrets = json.loads((ours.folder / "subscriber-secrets.json").read_text())
    other = setup_folder(tmp_path / "other", to_broadcaster=scheme, to_subscriber=scheme)
    secrets["to-subscriber"] = json.loads((other / "subscriber-secrets.json").read_text())["to-subscriber"]
    (tmp_path / "mixed").write_text(json.dumps(secrets))
    common = ("--broadcaster", ours.url("http"), "--secrets", tmp_path / "mixed",
              "--outgoing-retries-per-broadcaster", 1)
    for args in (("subscribe", "--exact", "t", "--bind", "127.0.0.1:0"), ("notify", "t", "--message", "x")):
        result = run(*args, *common)
        assert (result.returncode, result.stdout) == (4, ""), result.stderr
        assert result.stderr.count("\n") == 1 and "to-subscriber" in result.stderr
    assert run("check", *common).returncode == 4
