"""tpft: both ends ours, and each against peers that are slow, wrong, hostile or gone."""

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from conftest import PATIENCE, Program, free_port, small_disk, wait_until  # noqa: F401
from tpft_peer import (CLOSE, CONFIRMED, SANITIZED, TPFT, FakeServer, Server, connect, content, peak_bytes, read,
                       root, start, tpft)  # noqa: F401  (fixtures)

MIB = 1 << 20
SIZES = [0, 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 64 * MIB]
# The memory of sanitized programs is mostly what the sanitizer keeps of freed blocks; writing is slow there.
HUGE, PEAK_BYTES = ((1 << 30) + 12345, 400 * MIB) if SANITIZED else ((3 << 30) + 12345, 24 * MIB)


def succeed(result):
    assert result.returncode == 0, result.stderr
    return result


def fail(result, text, code=1):
    assert result.returncode == code, result.stderr
    assert text.encode() in result.stderr, result.stderr
    assert result.stderr.count(b"\n") == 1
    assert result.stdout == b""


# ---- Both ends ours ----


@pytest.mark.parametrize("options", [(), ("--checksum",), ("--resume",), ("--chunk-size", "99999")],
                         ids=lambda o: " ".join(o) or "plain")
def test_sizes(start, root, tmp_path, options):
    server = start()
    for size in SIZES:
        data = content(size)
        (tmp_path / "source").write_bytes(data)
        succeed(tpft(*options, tmp_path / "source", f"{server.address}:file"))
        assert (root / "file").read_bytes() == data, size
        succeed(tpft(*options, f"{server.address}:file", tmp_path / "got"))
        assert (tmp_path / "got").read_bytes() == data, size


def test_chunks_of_one_byte(start, root, tmp_path):
    server = start("--chunk-size", "1")
    (tmp_path / "source").write_bytes(b"abc")
    succeed(tpft("--chunk-size", "1", tmp_path / "source", f"{server.address}:file"))
    succeed(tpft(f"{server.address}:file", tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == b"abc"


class Watched(Program):
    """Notes the peak of its memory while it runs."""

    def __init__(self, *args):
        super().__init__([TPFT, *args])
        self.peak = 0
        while self.process.poll() is None:
            with contextlib.suppress(OSError, TypeError):
                self.peak = max(self.peak, peak_bytes(self.pid))
            time.sleep(0.05)
        self.wait()


def test_gigabytes_in_bounded_memory(start, root, tmp_path):
    server = start()
    with open(tmp_path / "source", "wb") as file:
        file.truncate(HUGE)
    up = Watched(tmp_path / "source", f"{server.address}:file")
    assert (up.process.returncode, (root / "file").stat().st_size) == (0, HUGE), up.err
    down = Watched(f"{server.address}:file", tmp_path / "got")
    assert (down.process.returncode, (tmp_path / "got").stat().st_size) == (0, HUGE), down.err
    peaks = (up.peak, down.peak, peak_bytes(server.pid))
    print("peaks: upload %d, download %d, server %d" % peaks)
    assert max(peaks) < PEAK_BYTES


def test_several_files_and_folders(start, root, tmp_path):
    server = start()
    (root / "d").mkdir()
    (tmp_path / "e").mkdir()
    for name in "abc":
        (tmp_path / name).write_text(name)
    succeed(tpft("a", "b", "./c", f"{server.address}:d", folder=tmp_path))
    assert sorted(p.name for p in (root / "d").iterdir()) == ["a", "b", "c"]
    succeed(tpft("a", f"{server.address}:d/", folder=tmp_path))
    succeed(tpft(f"{server.address}:d/a", f"{server.address}:d/c", "e", folder=tmp_path))
    assert sorted(p.name for p in (tmp_path / "e").iterdir()) == ["a", "c"]
    result = tpft("a", "missing", "b", f"{server.address}:e/../d", folder=tmp_path)
    assert result.returncode == 1 and result.stderr.count(b"\n") == 3
    result = tpft(f"{server.address}:d/no", f"{server.address}:d/b", "e", folder=tmp_path)
    fail(result, "d/no: rejected: No such file")
    assert (tmp_path / "e/b").read_text() == "b"


def test_names_that_are_not_ascii(start, root, tmp_path):
    server = start()
    for name in ["grüß.txt".encode(), b"\xff\x80 raw", "😀".encode(), b'q"\\\n\x01']:
        source = os.fsencode(tmp_path) + b"/source"
        with open(source, "wb") as file:
            file.write(name)
        succeed(tpft(source, server.address.encode() + b":" + name))
        assert os.listdir(os.fsencode(root)) == [name]
        succeed(tpft(server.address.encode() + b":" + name, source + b"2"))
        with open(source + b"2", "rb") as file:
            assert file.read() == name
        os.unlink(os.fsencode(root) + b"/" + name)


def test_mode_and_replacement(start, root, tmp_path):
    server = start(umask=0o027)
    (tmp_path / "source").write_text("new")
    (root / "file").write_text("old")
    (root / "other").hardlink_to(root / "file")
    succeed(tpft(tmp_path / "source", f"{server.address}:file"))
    assert (root / "file").stat().st_mode & 0o777 == 0o640
    assert (root / "other").read_text() == "old"  # a new file took the name
    succeed(tpft(f"{server.address}:file", tmp_path / "got", umask=0o077))
    assert (tmp_path / "got").stat().st_mode & 0o777 == 0o600


def test_progress(start, root, tmp_path):
    server = start()
    (tmp_path / "source").write_bytes(content(9 * MIB))
    quiet = succeed(tpft(tmp_path / "source", f"{server.address}:file"))
    assert (quiet.stdout, quiet.stderr) == (b"", b"")
    loud = succeed(tpft("-p", tmp_path / "source", f"{server.address}:file"))
    steps = loud.stdout.decode().strip("\n").split("\r")[1:]
    assert steps[-1] == "Progress: 100%" and loud.stderr == b""
    assert all(step.startswith("Progress: ") and step.endswith("%") for step in steps)
    assert steps == sorted(steps, key=lambda s: int(s[10:-1]))


def test_a_bar_on_a_terminal(start, root, tmp_path):
    server = start()
    (root / "file").write_bytes(content(MIB))
    reader, terminal = os.openpty()
    result = subprocess.run([TPFT, f"{server.address}:file", tmp_path / "got"], stderr=terminal,
                            stdout=subprocess.PIPE, timeout=PATIENCE)
    os.close(terminal)
    shown = os.read(reader, 65536)
    os.close(reader)
    assert (result.returncode, result.stdout) == (0, b"")
    assert b"100% [##############################]" in shown


# ---- The command line ----


def test_arguments(tmp_path):
    for args, code in [(["--help"], 0), (["-h"], 0), (["--version"], 0), ([], 2), (["a"], 2),
                       (["a", "b"], 2), (["h:a", "h:b"], 2), (["a", "h:b", "h:c"], 2),
                       (["h:a", "i:b", "d"], 2), (["h:1:a", "h:2:b", "d"], 2), (["a", "h:"], 2),
                       (["a", "h:x:b"], 2), (["a", ":b"], 2), (["a/", "h:b"], 2), (["h:a/", "b"], 2),
                       (["--chunk-size", "0", "a", "h:b"], 2), (["--wrong"], 2),
                       (["--chunk-size", "4043309056", "a", "h:b"], 2), (["-l", "h:x"], 2),
                       (["-l", "h:1:2"], 2), (["-l", ":1"], 2), (["-l", "127.0.0.1:0", "a"], 2),
                       (["--timeout", "0", "a", "h:b"], 2), (["--timeout", "86401", "a", "h:b"], 2),
                       (["--timeout", "1.5", "a", "h:b"], 2),
                       (["-l", "127.0.0.1:0", "--root", tmp_path / "none"], 2)]:
        result = tpft(*args)
        assert result.returncode == code, (args, result.stderr)
        assert bool(result.stdout) == (code == 0), args
        assert bool(result.stderr) == (code != 0), args
    text = tpft("--help").stdout.decode()
    for option in ["--listen", "--verbose", "--progress", "--chunk-size", "--root", "--read-only",
                   "--max-connections", "--checksum", "--resume", "--timeout", "--help", "--version"]:
        assert option in text
    assert "No authentication, no encryption" in text


def test_nobody_listens(tmp_path):
    (tmp_path / "a").write_text("a")
    fail(tpft(tmp_path / "a", f"127.0.0.1:{free_port()}:a"), "cannot connect", 5)


def test_a_taken_port(start, tmp_path):
    server = start()
    result = tpft("-l", server.address, folder=tmp_path)
    fail(result, server.address)


def test_several_addresses_and_a_warning(tmp_path):
    server = Program([TPFT, "-l", "127.0.0.1:0", "-l", "[::1]:0", "--listen", "0.0.0.0:0"], cwd=tmp_path)
    wait_until(lambda: len(server.out) == 3, "three ready lines")
    (tmp_path / "a").write_text("a")
    for line in server.out[:2]:
        succeed(tpft(f"{line.removeprefix('ready tcp ')}:a", tmp_path / "got"))
    assert server.stop() == 0
    assert len(server.err) == 1 and "no authentication, no encryption" in server.err[0]


def test_verbose(start, root, tmp_path):
    server = start("-v")
    (root / "file").write_text("x")
    result = succeed(tpft("-v", f"{server.address}:file", tmp_path / "got"))
    assert b"downloaded" in result.stderr
    wait_until(lambda: any("closed: in order" in line for line in server.err), "its end")
    assert any("download of file" in line for line in server.err)
    with connect(server) as peer:
        assert peer.ask("download-request", download_path="\x1b[2J")[0] == "rejected"
    wait_until(lambda: any("?[2J" in line for line in server.err), "the name without control characters")
    assert not any("\x1b" in line for line in server.err)


# ---- Out of the root ----


@pytest.fixture
def outside(root):
    """Things in the root that lead out of it, to a file that must stay as it is."""
    secret = root.parent / "outside"
    secret.mkdir()
    (secret / "file").write_text("secret")
    (root / "folder").symlink_to(secret)
    (root / "file").symlink_to(secret / "file")
    (root / "loop").symlink_to("loop")
    (root / "here").mkdir()
    (root / "here/inner").symlink_to(".")
    (root / "back").symlink_to("here")
    yield secret
    assert sorted(p.name for p in secret.iterdir()) == ["file"]
    assert (secret / "file").read_text() == "secret"


def escapes(root, outside):
    return ["../outside/file", "here/../../outside/file", "..", "../", ".", "", "/", "here", "here/",
            str(outside / "file"), "/etc/passwd", f"{root}/../outside/file", f"{root}2/x", "folder/file",
            "folder/new", "file", "loop", "loop/x", "here/inner/x", "back/x", "a\0b", "x" * 256,
            "x/" * 2100 + "x", "/proc/self/fd/0", ".tpft-0000000000000000", f"{root}/folder/new"]


@pytest.mark.parametrize("kind, key", [("download-request", "download_path"),
                                       ("upload-request", "destination_path")])
def test_escapes(start, root, outside, kind, key):
    server = start()
    with connect(server) as peer:
        for path in escapes(root, outside):
            letter, body = peer.ask(kind, file_size=3, **{key: path})
            assert letter == "rejected", path
            assert str(root) not in body["reason"] and str(outside) not in body["reason"]
        for path in [1, 1.5, None, True, [], {}]:
            assert peer.ask(kind, file_size=3, **{key: path})[0] == "rejected"
        peer.say(CLOSE)
        assert peer.is_over()
    assert server.process.poll() is None


def test_absolute_names_of_the_root(start, root, tmp_path):
    (tmp_path / "alias").symlink_to(root)
    server = Server(tmp_path / "alias")
    (root / "file").write_text("x")
    for name in [root / "file", tmp_path / "alias/file", f"{root}//./file"]:
        succeed(tpft(f"{server.address}:{name}", tmp_path / "got"))
    assert server.stop() == 0


def test_a_folder_that_becomes_a_link_and_back(start, root, outside):
    """Whoever may rename inside the root cannot lead a request out of it either."""
    server = start()
    (root / "race").mkdir()
    (root / "race/file").write_text("inner")
    (root / "link").symlink_to(outside)
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            for a, b in [("race", "kept"), ("link", "race"), ("race", "link"), ("kept", "race")]:
                os.rename(root / a, root / b)

    thread = threading.Thread(target=swap)
    thread.start()
    answers = set()
    try:
        with connect(server) as peer:
            for n in range(1500):
                kind, body = peer.ask("download-request", download_path="race/file")
                answers.add(kind)
                if kind == "download-confirmation":
                    assert body["file_size"] == len("inner")
                    peer.say(CONFIRMED)
                    assert peer.receive() == b"inner"
                    peer.say(CONFIRMED)
                if n % 10 == 0 and peer.ask("upload-request", file_size=1,
                                            destination_path="race/new")[0] == "confirmed":
                    assert peer.send(b"x") == b"\xff"
                    peer.hear()
    finally:
        stop.set()
        thread.join()
    assert answers == {"rejected", "download-confirmation"}


@pytest.mark.parametrize("path", ["folder", "fifo", "socket"])
def test_only_regular_files(start, root, tmp_path, path):
    server = start()
    (root / "folder").mkdir()
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(root / "socket"))
        (tmp_path / "a").write_text("a")
        fail(tpft(f"{server.address}:{path}", tmp_path / "got"), "not a regular file")
        fail(tpft(tmp_path / "a", f"{server.address}:{path}"), "not a regular file")
        fail(tpft(root / path, f"{server.address}:b"), "not a regular file")
        if path != "folder":
            succeed(tpft(tmp_path / "a", f"{server.address}:b"))
            fail(tpft(f"{server.address}:b", root / path), "not a regular file")


def test_read_only(start, root, tmp_path):
    server = start("--read-only")
    (root / "file").write_text("old")
    (tmp_path / "a").write_text("a")
    for name in ["file", "new"]:
        fail(tpft(tmp_path / "a", f"{server.address}:{name}"), "read-only")
    succeed(tpft(f"{server.address}:file", tmp_path / "got"))
    assert [p.name for p in root.iterdir()] == ["file"]


# ---- Letters that are wrong ----


@pytest.mark.parametrize("size", [True, None, "13", -1, 1.0, 1.5, 1 << 63, [13]])
def test_sizes_that_are_none(start, root, size):
    server = start()
    (root / "file").write_text("old")
    with connect(server) as peer:
        assert peer.ask("upload-request", file_size=size, destination_path="file")[0] == "rejected"
        assert peer.ask("upload-request", destination_path="file")[0] == "rejected"
        assert peer.ask("download-request")[0] == "rejected"
        assert peer.ask("list", path=".")[0] == "rejected"  # and goes on
    assert (root / "file").read_text() == "old"


@pytest.mark.parametrize("letter", [b"", b"hello", b"{}", b'{"type":"close"}', b"\xff\xfe", b"[" * 60000,
                                    b'{"type":"download-request","letter":{"download_path":"\\ud800"}}'])
def test_malformed_letters(start, letter):
    server = start()
    with connect(server) as peer:
        peer.say(letter)
        assert peer.hear() == ("rejected", {"reason": "malformed letter"})
        assert peer.is_over()
    assert server.process.poll() is None


def test_a_letter_that_is_too_long(start):
    server = start()
    with connect(server) as peer:
        assert peer.send(b"x" * 65537) == b"\0"
        assert peer.is_over()


@pytest.mark.parametrize("chunk", [0, 5, 0xf0ffffff])
def test_chunks_that_are_wrong(start, root, chunk):
    server = start()
    (root / "file").write_text("old")
    with connect(server) as peer:
        assert peer.ask("upload-request", file_size=6, destination_path="file")[0] == "confirmed"
        assert peer.send(b"ab") == b"\xff"
        peer.s.sendall(struct.pack(">I", chunk))
        assert read(peer.s, 1) == b"\0"
        assert peer.is_over()
    wait_until(lambda: [p.name for p in root.iterdir()] == ["file"], "the temporary file to go")
    assert (root / "file").read_text() == "old"


# ---- Peers that vanish, stall, change ----


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_a_client_that_vanishes(start, root, how):
    server = start()
    (root / "file").write_text("old")
    with connect(server) as peer:
        assert peer.ask("upload-request", file_size=MIB, destination_path="file")[0] == "confirmed"
        peer.s.sendall(struct.pack(">I", MIB))
        assert read(peer.s, 1) == b"\xff"
        peer.s.sendall(content(MIB // 2))
        wait_until(lambda: len(list(root.iterdir())) == 2, "the temporary file")
        if how == "reset":
            peer.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: [p.name for p in root.iterdir()] == ["file"], "the temporary file to go")
    assert (root / "file").read_text() == "old"


def test_stalled_ones_delay_nobody(start, root, tmp_path):
    server = start("--max-connections", "9")
    (root / "big").write_bytes(content(32 * MIB))
    with contextlib.ExitStack() as stack:
        for n in range(4):
            peer = stack.enter_context(connect(server))
            assert peer.ask("upload-request", file_size=9, destination_path=f"f{n}")[0] == "confirmed"
            peer = stack.enter_context(connect(server))
            assert peer.ask("download-request", download_path="big")[0] == "download-confirmation"
            peer.say(CONFIRMED)  # and reads nothing
        succeed(tpft(f"{server.address}:big", tmp_path / "got"))
        stack.enter_context(connect(server))
        fail(tpft(f"{server.address}:big", tmp_path / "got"), "connection limit")


def test_a_stop_in_the_middle(start, root):
    server = start()
    (root / "file").write_text("old")
    with connect(server) as peer:
        assert peer.ask("upload-request", file_size=9, destination_path="file")[0] == "confirmed"
        assert peer.send(b"abc") == b"\xff"
        wait_until(lambda: len(list(root.iterdir())) == 2, "the temporary file")
        assert server.stop() == 0
    assert [p.name for p in root.iterdir()] == ["file"]
    assert (root / "file").read_text() == "old"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_client_that_is_stopped(tmp_path, number):
    going, done = threading.Event(), threading.Event()

    def play(peer):
        assert peer.hear()[0] == "download-request"
        peer.say({"type": "download-confirmation", "letter": {"file_size": 9}})
        assert peer.hear()[0] == "confirmed"
        assert peer.send(b"abc") == b"\xff"
        going.set()
        done.wait(PATIENCE)

    server = FakeServer(play)
    (tmp_path / "got").write_text("old")
    client = Program([TPFT, f"{server.address}:file", tmp_path / "got"])
    assert going.wait(PATIENCE)
    client.signal(number)
    assert client.wait() == 1
    done.set()
    server.check()
    assert [p.name for p in tmp_path.iterdir()] == ["got"]
    assert (tmp_path / "got").read_text() == "old"


def confirm(peer, size):
    assert peer.hear()[0] == "download-request"
    peer.say({"type": "download-confirmation", "letter": {"file_size": size}})
    assert peer.hear()[0] == "confirmed"


@pytest.mark.parametrize("end", [b"", struct.pack(">I", 5) + b"abc", struct.pack(">I", 0),
                                 struct.pack(">I", 10), b"\0\0"])
def test_a_server_that_vanishes_or_lies(tmp_path, end):
    def play(peer):
        confirm(peer, 9)
        peer.s.sendall(end)
        peer.s.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while peer.s.recv(4096):
                pass

    server = FakeServer(play)
    (tmp_path / "got").write_text("old")
    result = tpft(f"{server.address}:file", tmp_path / "got")
    server.check()
    assert result.returncode == 1 and result.stderr.count(b"\n") == 1, result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["got"]
    assert (tmp_path / "got").read_text() == "old"


@pytest.mark.parametrize("answer", [b"{}", json.dumps(CONFIRMED).encode(), json.dumps(CLOSE).encode(),
                                    b'{"type":"download-confirmation","letter":{"file_size":"1"}}'])
def test_a_server_that_answers_something_else(tmp_path, answer):
    def play(peer):
        peer.hear()
        peer.say(answer)
        assert peer.is_over()

    server = FakeServer(play)
    result = tpft(f"{server.address}:file", tmp_path / "got")
    server.check()
    assert result.returncode == 1 and result.stderr, result.stderr
    assert not list(tmp_path.iterdir())


def test_reasons_cannot_paint_the_terminal(tmp_path):
    def play(peer):
        peer.hear()
        peer.say({"type": "rejected", "letter": {"reason": "no \x1b[31m\n\x9b way"}})
        peer.hear()

    server = FakeServer(play)
    fail(tpft(f"{server.address}:file", tmp_path / "got"), "rejected: no ?[31m?? way")


def change_while_sending(tmp_path, change):
    """A server that changes the file once a first chunk of it came; what the client did then."""
    source = tmp_path / "source"
    source.write_bytes(content(64 * MIB))

    def play(peer):
        assert peer.hear()[0] == "upload-request"
        peer.say(CONFIRMED)
        read(peer.s, 4)
        change(source)
        peer.s.sendall(b"\xff")
        with contextlib.suppress(ConnectionError):
            while peer.s.recv(MIB):  # answers no second announcement, if one comes
                pass

    server = FakeServer(play)
    result = tpft("--chunk-size", str(64 * MIB), source, f"{server.address}:file")
    server.check()
    return result


def test_a_file_that_shrinks_while_it_is_sent(tmp_path):
    result = change_while_sending(tmp_path, lambda source: os.truncate(source, MIB))
    fail(result, "changed while it was being sent")


@pytest.mark.parametrize("size", [5 * MIB, 9 * MIB])
def test_a_file_that_changes_between_chunks(tmp_path, size):
    source = tmp_path / "source"
    source.write_bytes(content(8 * MIB))

    def play(peer):
        assert peer.hear()[0] == "upload-request"
        peer.say(CONFIRMED)
        assert int.from_bytes(read(peer.s, 4), "big") == 4 * MIB
        peer.s.sendall(b"\xff")
        read(peer.s, 4 * MIB - 1)
        os.truncate(source, size)  # before the client can begin with the next
        read(peer.s, 1)
        with contextlib.suppress(ConnectionError):
            assert peer.s.recv(1) == b""

    server = FakeServer(play)
    result = tpft(source, f"{server.address}:file")
    server.join(PATIENCE)
    # The kernels hold so much between the two that the client may have announced before.
    assert result.returncode == 1 and b"\n" in result.stderr


def test_a_download_of_a_file_that_grows(start, root):
    server = start("--chunk-size", str(MIB))
    (root / "file").write_bytes(content(32 * MIB))
    with connect(server) as peer:
        assert peer.ask("download-request", download_path="file")[0] == "download-confirmation"
        peer.say(CONFIRMED)
        peer.receive()
        with open(root / "file", "ab") as file:
            file.write(b"more")
        with pytest.raises((AssertionError, ConnectionError)):
            for _ in range(31):
                peer.receive()
    assert server.process.poll() is None


def stall_after(data):
    """A server that confirms a file of 9 bytes, sends this, and then nothing; what became of the client."""
    def run(tmp_path):
        done = threading.Event()

        def play(peer):
            confirm(peer, 9)
            peer.s.sendall(data)
            done.wait(PATIENCE)

        server = FakeServer(play)
        began = time.monotonic()
        result = tpft("--timeout", "1", f"{server.address}:file", tmp_path / "got")
        took = time.monotonic() - began
        done.set()
        server.check()
        return result, took
    return run


@pytest.mark.parametrize("stall", [stall_after(b""), stall_after(struct.pack(">I", 9) + b"abc")],
                         ids=["between chunks", "in a chunk"])
def test_a_server_that_stalls(tmp_path, stall):
    result, took = stall(tmp_path)
    assert took >= 1
    fail(result, "timed out", 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [b"", struct.pack(">I", 9) + b"abc"], ids=["between chunks", "in a chunk"])
def test_a_client_that_stalls(start, root, data):
    server = start("--timeout", "1")
    began = time.monotonic()
    with connect(server) as peer:
        assert peer.ask("upload-request", file_size=9, destination_path="file")[0] == "confirmed"
        peer.s.sendall(data)
        while peer.s.recv(100):
            pass
    assert time.monotonic() - began >= 1
    wait_until(lambda: not list(root.iterdir()), "the temporary file to go")


def test_a_server_that_does_not_let_go(tmp_path):
    """The transfer is over; what the server sends then is not waited for."""
    done = threading.Event()

    def play(peer):
        confirm(peer, 3)
        assert peer.send(b"abc") == b"\xff"
        assert [peer.hear()[0] for _ in range(2)] == ["confirmed", "close"]
        peer.s.sendall(struct.pack(">I", 5) + b"ab")
        done.wait(PATIENCE)

    server = FakeServer(play)
    began = time.monotonic()
    succeed(tpft(f"{server.address}:file", tmp_path / "got"))
    took = time.monotonic() - began
    done.set()
    server.check()
    assert took < 30  # not the 90 s of a stall
    assert (tmp_path / "got").read_bytes() == b"abc"


def test_a_server_that_is_far_away(tmp_path):
    """It gets `close`, too: the client waits for the end for 0.1 s only, but then closes in order."""
    def play(peer):
        confirm(peer, 3)
        assert peer.send(b"abc") == b"\xff"
        assert peer.hear()[0] == "confirmed"
        read(peer.s, 4)
        time.sleep(0.5)
        peer.s.sendall(b"\xff")
        assert json.loads(read(peer.s, len(json.dumps(CLOSE, separators=(",", ":"))))) == CLOSE

    server = FakeServer(play)
    succeed(tpft(f"{server.address}:file", tmp_path / "got"))
    server.check()


@pytest.mark.parametrize("upwards", [False, True], ids=["download", "upload"])
def test_the_next_file_after_a_broken_connection(tmp_path, upwards):
    """A file for which the client ended the connection is one of several: the next gets a new one."""
    def refuse(peer):
        peer.hear()
        peer.say(CLOSE)
        assert peer.is_over()

    def serve(peer):
        if upwards:
            assert peer.hear()[1]["destination_path"] == "d/b"
            peer.say(CONFIRMED)
            assert peer.receive() == b"bbb"
            peer.say(CONFIRMED)
        else:
            confirm(peer, 3)
            assert peer.send(b"bbb") == b"\xff"
            assert peer.hear()[0] == "confirmed"
        assert peer.hear()[0] == "close"

    (tmp_path / "d").mkdir()
    for name in "ab":
        (tmp_path / name).write_text(3 * name)
    server = FakeServer(refuse, serve)
    fail(tpft("a", "b", f"{server.address}:d", folder=tmp_path) if upwards else
         tpft(f"{server.address}:a", f"{server.address}:b", "d", folder=tmp_path), "unexpected letter")
    server.check()
    assert [p.read_text() for p in (tmp_path / "d").iterdir()] == ([] if upwards else ["bbb"])


# ---- Disks ----


def test_a_full_disk(small_disk, tmp_path):
    wrapper, folder = small_disk
    server = Server(folder, wrapper=wrapper("2m"))
    try:
        (tmp_path / "big").write_bytes(content(4 * MIB))
        (tmp_path / "half").write_bytes(content(1500000))
        fail(tpft(tmp_path / "big", f"{server.address}:a"), "No space left")
        with connect(server) as one, connect(server) as two:  # each would fit, alone
            for peer in (one, two):
                assert peer.ask("upload-request", file_size=1500000, destination_path=f"f{peer is one}"
                                )[0] == "confirmed"
            answers = []
            for peer in (one, two):
                assert peer.send(content(1500000)) == b"\xff"
                answers.append(peer.hear())
            assert [a[0] for a in answers] == ["confirmed", "rejected"]
            assert "No space left" in answers[1][1]["reason"]
            peer.say(CLOSE)
        listing = subprocess.run(["ls", "-A", f"/proc/{server.pid}/root{folder}"], capture_output=True)
        assert listing.stdout.split() == [b"fTrue"]
        succeed(tpft(f"{server.address}:fTrue", tmp_path / "got"))
    finally:
        assert server.stop() == 0


def limited(limit):
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))}


def test_a_limit_of_file_sizes(start, root, tmp_path):
    server = start(**limited(MIB))
    (tmp_path / "source").write_bytes(content(3 * MIB))
    (root / "file").write_text("old")
    fail(tpft(tmp_path / "source", f"{server.address}:file"), "rejected: File too large")
    assert [p.name for p in root.iterdir()] == ["file"]
    assert (root / "file").read_text() == "old"
    (root / "big").write_bytes(content(3 * MIB))
    fail(tpft(f"{server.address}:big", tmp_path / "got", **limited(MIB)), "File too large")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith((".tpft", "got"))] == []


def test_after_a_failed_upload_that_was_taken_back(start, root):
    """What went wrong with one file is not held against the next."""
    server = start(**limited(MIB))
    with connect(server) as peer:
        assert peer.ask("upload-request", file_size=3 * MIB, destination_path="big",
                        checksum="sha256")[0] == "confirmed"
        assert peer.send(content(3 * MIB)) == b"\xff"
        peer.say({"type": "rejected", "letter": {"reason": "it changed"}})
        assert peer.ask("upload-request", file_size=3, destination_path="small")[0] == "confirmed"
        assert peer.send(b"abc") == b"\xff"
        assert peer.hear()[0] == "confirmed"
    assert [(p.name, p.read_text()) for p in root.iterdir()] == [("small", "abc")]


# Rights do not bind root.
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []


def test_targets_that_may_not_be_touched(tmp_path):
    with tempfile.TemporaryDirectory() as name:  # those of pytest are closed to others
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "locked").mkdir(mode=0o555)
        (folder / "file").write_text("old")
        (folder / "file").chmod(0o444)
        (folder / "private").write_text("x")
        (folder / "private").chmod(0)
        (tmp_path / "source").write_text("new")
        server = Server(folder, wrapper=AS_NOBODY)
        try:
            for target in ["locked/new", "file"]:
                fail(tpft(tmp_path / "source", f"{server.address}:{target}"), "rejected: Permission denied")
            fail(tpft(f"{server.address}:private", tmp_path / "got"), "rejected: Permission denied")
        finally:
            assert server.stop() == 0
        assert sorted(os.listdir(folder)) == ["file", "locked", "private"]
        assert (folder / "file").read_text() == "old"
