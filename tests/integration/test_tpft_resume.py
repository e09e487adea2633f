"""tpft: what it does beyond the Python tool, checksums and resuming, between two of ours and with one that lies."""

import contextlib
import fcntl
import hashlib
import random
import socket
import threading
import time

import pytest

from conftest import PATIENCE, Program, wait_until
from test_tpft import MIB, confirm, fail, succeed
from tpft_peer import TPFT, FakeServer, connect, content, root, start, tpft  # noqa: F401  (fixtures)


def test_a_wrong_checksum_from_a_client(start, root):
    server = start()
    (root / "file").write_text("old")
    with connect(server) as peer:
        for digest, answer in [("00" * 32, "rejected"), (hashlib.sha256(b"abc").hexdigest(), "confirmed")]:
            assert peer.ask("upload-request", file_size=3, destination_path="file",
                            checksum="sha256") == ("confirmed", {"checksum": "sha256"})
            assert peer.send(b"abc") == b"\xff"
            assert peer.ask("confirmed", sha256=digest)[0] == answer
            assert (root / "file").read_text() == ("old" if answer == "rejected" else "abc")
    assert [p.name for p in root.iterdir()] == ["file"]


def test_a_wrong_checksum_from_a_server(tmp_path):
    def play(peer):
        kind, letter = peer.hear()
        assert (kind, letter["checksum"]) == ("download-request", "sha256")
        peer.say({"type": "download-confirmation", "letter": {"file_size": 3, "checksum": "sha256"}})
        assert peer.hear() == ("confirmed", {})
        assert peer.send(b"abc") == b"\xff"
        kind, letter = peer.ask("confirmed", sha256="00" * 32)
        assert (kind, letter) == ("rejected", {"reason": "the checksum does not match"})
        assert peer.hear()[0] == "close"

    server = FakeServer(play)
    fail(tpft("--checksum", f"{server.address}:file", tmp_path / "got"), "checksum does not match")
    server.check()
    assert not list(tmp_path.iterdir())


def test_a_server_without_checksums(tmp_path):
    def play(peer):
        confirm(peer, 3)
        assert peer.send(b"abc") == b"\xff"
        assert peer.hear()[0] == "confirmed"

    for options, code in [(["--checksum"], 1), (["--resume"], 0)]:
        server = FakeServer(play)
        result = tpft(*options, f"{server.address}:file", tmp_path / "got")
        server.check()
        assert (result.returncode, (tmp_path / "got").read_bytes()) == (code, b"abc")
        assert (b"not verified" in result.stderr) == (code == 1)


def cut_proxy(server, limit, downwards):
    """An address that leads to the server and breaks both ends after so many bytes one way."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink, left):
        with contextlib.suppress(OSError):
            while left > 0:
                data = source.recv(min(65536, left))
                if not data:
                    break
                sink.sendall(data)
                left -= len(data)
            for s in (source, sink):
                s.shutdown(socket.SHUT_RDWR)

    def run():
        with listener, listener.accept()[0] as a, socket.create_connection(("127.0.0.1", server.port)) as b:
            back = threading.Thread(target=pump, args=(b, a, limit if downwards else 1 << 40))
            back.start()
            pump(a, b, 1 << 40 if downwards else limit)
            back.join(PATIENCE)

    threading.Thread(target=run, daemon=True).start()
    return "127.0.0.1:%d" % listener.getsockname()[1]


def settled(run):
    """Its result, once the server has noticed that the client before is gone."""
    def try_it():
        result = run()
        return None if b"under way" in result.stderr else result

    return wait_until(try_it, "the transfer before to be over")


def resumed_from(result):
    line = next((line for line in result.stderr.decode().splitlines() if "resumed" in line), "(0 ")
    return int(line.split("(")[1].split()[0])


@pytest.mark.parametrize("downwards", [False, True], ids=["upload", "download"])
def test_resuming_after_a_cut(start, root, tmp_path, downwards):
    server = start()
    data = content(20 * MIB)
    (root / "served").write_bytes(data)
    (tmp_path / "source").write_bytes(data)
    begun = 0

    def run(address):
        if downwards:
            return tpft("-v", "--resume", f"{address}:served", tmp_path / "got")
        return tpft("-v", "--resume", tmp_path / "source", f"{address}:got")

    place = (tmp_path if downwards else root)
    for cut in sorted(random.Random(7).sample(range(MIB, 6 * MIB), 3)):
        result = settled(lambda: run(cut_proxy(server, cut, downwards)))
        assert result.returncode == 1, result.stderr
        assert resumed_from(result) >= begun
        begun = resumed_from(result)
        assert not (place / "got").exists()
        wait_until(lambda: len(list(place.glob(".tpft-*-part"))) == 1, "what came")
    result = succeed(settled(lambda: run(server.address)))
    assert resumed_from(result) > 2 * MIB
    assert (place / "got").read_bytes() == data
    assert not list(place.glob(".tpft-*"))


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("downwards", [False, True], ids=["upload", "download"])
def test_resuming_after_a_kill(start, root, tmp_path, downwards, who):
    data = content(256 * MIB)
    (root / "served").write_bytes(data)
    (tmp_path / "source").write_bytes(data)
    place = (tmp_path if downwards else root)
    server = start()

    def args():
        return ["-v", "--resume", *([f"{server.address}:served", tmp_path / "got"] if downwards
                                    else [tmp_path / "source", f"{server.address}:got"])]

    client = Program([TPFT, *args()])

    def came():
        sizes = [p.stat().st_size for p in place.glob(".tpft-*-part")]
        return sizes and sizes[0] > MIB

    wait_until(came, "a part")
    (client if who == "client" else server).kill()
    client.wait()
    if who == "server":
        server = start()
    wait_until(lambda: not (place / "got").exists() and list(place.glob(".tpft-*-part")), "what came")
    result = succeed(settled(lambda: tpft(*args())))
    assert resumed_from(result) > MIB
    assert hashlib.sha256((place / "got").read_bytes()).digest() == hashlib.sha256(data).digest()
    assert not list(place.glob(".tpft-*"))


@pytest.mark.parametrize("downwards", [False, True], ids=["upload", "download"])
def test_what_was_left_is_something_else(start, root, tmp_path, downwards):
    """The file was replaced between the two: nothing of the first is in the second."""
    server = start()
    source = root / "served" if downwards else tmp_path / "source"
    place = (tmp_path if downwards else root)

    def run(address):
        if downwards:
            return tpft("-v", "--resume", f"{address}:served", tmp_path / "got")
        return tpft("-v", "--resume", tmp_path / "source", f"{address}:got")

    for size in [9 * MIB, MIB]:
        source.write_bytes(content(9 * MIB))
        assert run(cut_proxy(server, 5 * MIB, downwards)).returncode == 1
        wait_until(lambda: list(place.glob(".tpft-*-part")), "what came")
        source.write_bytes(content(size, seed=1))
        assert resumed_from(succeed(settled(lambda: run(server.address)))) == 0
        assert (place / "got").read_bytes() == content(size, seed=1)
        assert not list(place.glob(".tpft-*"))


def leave_part(folder, name, size):
    """What a transfer of `name` would have left: zeros."""
    part = folder / f".tpft-{hashlib.sha256(name.encode()).hexdigest()[:32]}-part"
    with open(part, "wb") as file:
        file.truncate(size)
    return part


def test_what_was_left_is_read_before_connecting(tmp_path):
    """It may take longer than a server waits for a request."""
    part = leave_part(tmp_path, "got", MIB)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Program([TPFT, "--resume", "127.0.0.1:%d:file" % listener.getsockname()[1], tmp_path / "got"])
        with listener.accept()[0], open(part, "rb") as file:
            with pytest.raises(BlockingIOError):  # the client has it
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert client.wait() == 1
    assert part.stat().st_size == MIB


def test_a_client_that_stalls_after_resuming(start, root):
    """While it compares it has time in proportion, then no longer."""
    server = start("--timeout", "1")
    part = leave_part(root, "file", 512 * MIB)
    with connect(server) as peer:
        kind, letter = peer.ask("upload-request", file_size=513 * MIB, destination_path="file", resume=True)
        assert (kind, letter["offset"]) == ("confirmed", 512 * MIB)
        peer.say({"type": "confirmed", "letter": {"offset": 512 * MIB}})
        began = time.monotonic()
        assert peer.is_over()
        assert time.monotonic() - began < 20  # not the 33 s
    assert part.stat().st_size == 512 * MIB


def test_a_resumed_file_for_which_there_is_no_room(start, root):
    server = start()
    with connect(server) as peer:
        kind, letter = peer.ask("upload-request", file_size=1 << 62, destination_path="file", resume=True)
        assert (kind, letter) == ("rejected", {"reason": "No space left on device"})
    assert not list(root.iterdir())


def test_a_server_that_found_another_checksum(tmp_path):
    def play(peer):
        assert peer.hear()[0] == "upload-request"
        peer.say({"type": "confirmed", "letter": {"checksum": "sha256"}})
        assert peer.receive() == b"abc"
        assert peer.hear()[0] == "confirmed"
        peer.say({"type": "confirmed", "letter": {"sha256": "00" * 32}})
        assert peer.hear()[0] == "close"

    (tmp_path / "source").write_bytes(b"abc")
    server = FakeServer(play)
    fail(tpft("--checksum", tmp_path / "source", f"{server.address}:file"), "checksum does not match")
    server.check()


def test_two_that_resume_the_same(start, root):
    server = start()
    with connect(server) as one, connect(server) as two:
        wish = dict(file_size=3, destination_path="file", resume=True)
        assert one.ask("upload-request", **wish)[0] == "confirmed"
        assert two.ask("upload-request", **wish)[0] == "rejected"
        assert one.send(b"abc") == b"\xff"
        assert one.ask("confirmed", sha256=hashlib.sha256(b"abc").hexdigest())[0] == "confirmed"
        assert two.ask("upload-request", **wish)[0] == "confirmed"
    wait_until(lambda: [p.name for p in root.iterdir()] == ["file"], "nothing to be left")
