"""tinyproto: our programs with the real Python packages 2.0.1 and 3.0, both ways round, and against peers
that misbehave. The packages are in build/peers (./dev check), or where TINYPROTO_PEERS says."""

import contextlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import BUILD, PATIENCE, ROOT, Program, free_port, wait_until

PEERS = Path(os.environ.get("TINYPROTO_PEERS", ROOT / "build/peers"))
PROGRAMS = BUILD / "src/tinyproto/programs"
VERSIONS = ["2.0.1", "3.0"]
SIZES = [0, 1, 2, 255, 256, 65535, 65536, 1 << 20]
LARGE = 64 << 20
HUGE = (2 << 30) + 12345
CONNECTIONS = 10000


def payload(size):
    return (bytes(range(251)) * (size // 251 + 1))[:size]


class Server(Program):
    """One of our servers, listening on a free port."""

    def __init__(self, name, *args, **kwargs):
        super().__init__([PROGRAMS / name, "--listen", "127.0.0.1:0", *args], **kwargs)
        wait_until(lambda: self.out or self.process.poll() is not None, "the ready line")
        self.address = self.out[0].removeprefix("ready tcp ")
        self.port = int(self.address.rsplit(":", 1)[1])


@pytest.fixture
def start():
    """start(name, *args): one of our servers; it must end with 0 on SIGTERM."""
    started = []

    def start_one(name, *args, **kwargs):
        started.append(Server(name, *args, **kwargs))
        return started[-1]

    yield start_one
    for server in started:
        assert server.stop() == 0, server.err


@pytest.fixture
def start_python():
    """start(version, mode, *args): a peer of the Python package."""
    started = []

    def start_one(version, *args):
        folder = PEERS / f"tinyproto-{version}"
        assert folder.is_dir(), f"{folder} is missing: ./dev check installs it"
        program = Program([sys.executable, ROOT / "tests/integration/tinyproto_peer.py", *args],
                          env={**os.environ, "PYTHONPATH": str(folder)})
        started.append(program)
        return program

    yield start_one
    for program in started:
        if program.process.poll() is None:
            program.kill()


def echo(address, message, patience=120):
    return subprocess.run([PROGRAMS / "tinyproto-echo-client", "--connect", address], input=message,
                          capture_output=True, timeout=patience)


def connect(server):
    s = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def read(s, n):
    data = b""
    while len(data) < n:
        piece = s.recv(n - len(data))
        assert piece, f"the end after {data!r}"
        data += piece
    return data


# ---- With the Python packages ----


@pytest.mark.parametrize("version", VERSIONS)
def test_python_client_with_our_server(start, start_python, version):
    server = start("tinyproto-echo-server")
    client = start_python(version, "client", server.port, *SIZES, LARGE)
    assert client.wait(300) == 0, (client.out, client.err)
    assert client.out == [f"echoed {size}" for size in [*SIZES, LARGE]]


@pytest.mark.parametrize("version", VERSIONS)
def test_our_client_with_python_server(start_python, version):
    port = free_port()
    server = start_python(version, "server", port)
    wait_until(lambda: "ready" in server.out, "the Python server")
    for size in [*SIZES, LARGE]:
        result = echo(f"127.0.0.1:{port}", payload(size))
        assert (result.returncode, result.stderr) == (0, b""), (size, result.stderr)
        assert result.stdout == payload(size), size


@pytest.mark.parametrize("version", VERSIONS)
def test_python_clients_at_our_limit(start, start_python, version):
    server = start("tinyproto-echo-server", "--max-connections", "1")
    with connect(server) as first:
        first.sendall(b"\xff")
        assert read(first, 1) == b"\xff"
        refused = start_python(version, "client", server.port, "5")
        wait_until(lambda: any("TinyProtoError" in line for line in refused.err), "its error")
        assert not refused.out
        first.sendall(b"\0\0\0\1x")  # nobody else notices
        assert read(first, 5) == b"\xff\0\0\0\1"


def test_our_client_at_the_limit_of_a_python_server(start_python):
    port = free_port()
    server = start_python("2.0.1", "server", port, "1")
    wait_until(lambda: "ready" in server.out, "the Python server")
    with socket.create_connection(("127.0.0.1", port)) as first:
        first.sendall(b"\xff")
        assert read(first, 1) == b"\xff"
        result = echo(f"127.0.0.1:{port}", b"hello")
    assert result.returncode == 1
    assert result.stdout == b""
    assert b"refused" in result.stderr or b"closed during the handshake" in result.stderr


# ---- Large, many, limits ----


class RawServer(threading.Thread):
    """One connection, played by a function."""

    def __init__(self, play):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.play = play
        self.error = None
        self.start()

    def run(self):
        try:
            with self.listener, self.listener.accept()[0] as s:
                s.settimeout(120)
                self.play(s)
        except Exception as e:  # told by the test
            self.error = e


def peak_rss(args, stdin):
    """Runs a program: its exit status, what it printed, the peak of its memory in bytes.

    Read from /proc while it runs: what wait4 tells begins with the memory of this process."""
    process = subprocess.Popen(args, stdin=stdin, stdout=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, int(status.split("VmHWM:")[1].split()[0]) * 1024)
        time.sleep(0.02)
    with process.stdout:
        return process.returncode, process.stdout.read(), peak


def test_more_than_two_gigabytes_leave_in_bounded_memory(tmp_path):
    got = []

    def swallow(s):
        s.sendall(b"\xff")
        assert read(s, 5) == b"\xff" + struct.pack(">I", HUGE)
        s.sendall(b"\xff")
        block, n = bytearray(1 << 20), 0
        while n < HUGE:
            n += s.recv_into(block, min(len(block), HUGE - n))
        got.append(n)
        s.sendall(b"\0\0\0\2")
        assert read(s, 1) == b"\xff"
        s.sendall(b"ok")
        assert s.recv(1) == b""

    server = RawServer(swallow)
    with open(tmp_path / "huge", "w+b") as file:
        file.truncate(HUGE)
        code, out, peak = peak_rss([PROGRAMS / "tinyproto-echo-client", "--connect", server.address],
                                   file)
    server.join(PATIENCE)
    assert server.error is None, server.error
    assert (code, out, got) == (0, b"ok", [HUGE])
    limit = 32 << 20 if "asan" not in str(BUILD) else 512 << 20
    print(f"peak {peak >> 10} KiB")
    assert 0 < peak < limit


def test_more_than_two_gigabytes_arrive_in_bounded_memory():
    def pour(s):
        s.sendall(b"\xff" + struct.pack(">I", HUGE))
        assert read(s, 2) == b"\xff\xff"
        block, n = bytes(1 << 20), HUGE
        while n > 0:
            n -= s.send(memoryview(block)[:min(len(block), n)])
        assert s.recv(1) == b""

    server = RawServer(pour)
    code, out, peak = peak_rss([BUILD / "tests/unit/tiny_sink", server.address], subprocess.DEVNULL)
    server.join(PATIENCE)
    assert (server.error, code) == (None, 0)
    assert (code, out) == (0, f"{HUGE}\n".encode())
    limit = 32 << 20 if "asan" not in str(BUILD) else 512 << 20
    print(f"peak {peak >> 10} KiB")
    assert 0 < peak < limit


def memory_of(program):
    status = Path(f"/proc/{program.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


@pytest.fixture
def many_descriptors():
    """For this process, and for the servers that it starts."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = CONNECTIONS + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], need), max(limits[1], need)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_ten_thousand_connections_in_one_thread(many_descriptors, start):
    server = start("tinyproto-echo-server")
    before = memory_of(server)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(server)) for _ in range(CONNECTIONS)]
        for s in sockets:
            s.sendall(b"\xff")
        for s in sockets:
            assert read(s, 1) == b"\xff"
        if "asan" not in str(BUILD):
            assert memory_of(server) - before < CONNECTIONS * 2048  # an idle one holds no buffer
        assert len(os.listdir(f"/proc/{server.pid}/task")) == 1
        messages = [struct.pack(">I", i) * 32 for i in range(CONNECTIONS)]
        for s, message in zip(sockets, messages):
            s.sendall(struct.pack(">I", len(message)) + message)
        for s in sockets:
            assert read(s, 5) == b"\xff\0\0\0\x80"
            s.sendall(b"\xff")
        for s, message in zip(sockets, messages):
            assert read(s, 128) == message


def test_limit_reached(start):
    server = start("tinyproto-echo-server", "--max-connections", "1")
    with connect(server) as first:
        first.sendall(b"\xff")
        assert read(first, 1) == b"\xff"
        result = echo(server.address, b"hello")
        assert (result.returncode, result.stdout) == (1, b"")
        assert b"connection limit" in result.stderr
    wait_until(lambda: echo(server.address, b"hello").stdout == b"hello", "the slot")


# ---- Peers that misbehave ----


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"",
    b"\xfe",
    b"\xff",
    b"\xff\xff\0\0\0\5hel",
    b"\xff\0\0\0\5hel",
    b"\xff\x00",
    b"\xff\xff\xf1\0\0\0",
])
def test_our_client_tells_what_went_wrong(answer):
    def play(s):
        s.sendall(answer)
        s.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while s.recv(4096):
                pass

    result = echo(RawServer(play).address, b"hello")
    assert result.returncode == 1
    assert result.stdout == b""
    assert result.stderr.count(b"\n") == 1


@pytest.mark.parametrize("turns, seconds", [
    ([b""], 5),
    ([b"\xff"], 10),
    ([b"\xff", b"\xff", b"\0\0\0\5he"], 10),
], ids=["handshake", "status", "payload"])
def test_our_client_gives_up_on_a_peer_that_stalls(turns, seconds):
    done = threading.Event()

    def play(s):
        for turn, theirs in zip(turns, [5, 5, 0]):  # handshake and size; payload
            s.sendall(turn)
            read(s, theirs if turn else 1)
        done.wait(60)

    server = RawServer(play)
    result = echo(server.address, b"hello", seconds + PATIENCE)
    done.set()
    server.join(PATIENCE)
    assert server.error is None, server.error
    assert (result.returncode, result.stdout) == (3, b"")
    assert b"timed out" in result.stderr


def test_nobody_listens():
    result = echo(f"127.0.0.1:{free_port()}", b"hello")
    assert (result.returncode, result.stdout) == (5, b"")


def test_our_server_outlives_bad_peers(start):
    server = start("tinyproto-echo-server")
    stalled = [connect(server) for _ in range(3)]
    stalled[1].sendall(b"\xff\0\0")
    stalled[2].sendall(b"\xff\0\0\0\5he")
    for bad in [b"GET / HTTP/1.1\r\n\r\n", b"", b"\xff\xff\xff\xff\xff", b"\xff\0\0\1\0abc",
                b"\xff\0\0\0\1x\0", os.urandom(1000)]:
        for reset in (False, True):
            with connect(server) as s:
                with contextlib.suppress(ConnectionError):
                    s.sendall(bad)
                if reset:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert echo(server.address, b"hello").stdout == b"hello"
    for s in stalled:
        s.close()


# ---- The programs ----


def test_commands_of_the_echo_server(start):
    server = start("tinyproto-echo-server", "--commands")
    client = [PROGRAMS / "tinyproto-echo-client", "--connect", server.address]
    assert subprocess.run([*client, "--quit"], timeout=PATIENCE).returncode == 0
    assert echo(server.address, b"QUIT it").stdout == b"QUIT it"
    assert subprocess.run([*client, "--srvquit"], timeout=PATIENCE).returncode == 0
    assert server.wait() == 0


def test_the_readme_example():
    server = Program([BUILD / "examples/readme-server", "--listen", "127.0.0.1:0"])
    wait_until(lambda: server.out, "the ready line")
    client = [BUILD / "examples/readme-client", "--connect", server.out[0].removeprefix("ready tcp ")]
    for lines, answers in [("one\ntwo\nQUIT\nthree\n", ["one", "two"]), ("end", ["end"]),
                           ("SRVQUIT\n", [])]:
        result = subprocess.run(client, input=lines, timeout=PATIENCE, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.splitlines() == [f"Response from server: Echo back: {a}" for a in answers]
    assert server.wait() == 0


def test_arguments():
    for program in ["echo-server", "echo-client", "chat-server", "chat-client"]:
        for args, code in [(["--help"], 0), (["--version"], 0), ([], 2), (["--wrong"], 2),
                           (["--listen", "x"], 2), (["--connect", "x"], 2),
                           (["--listen", "[::1]:0", "more"], 2)]:
            result = subprocess.run([PROGRAMS / f"tinyproto-{program}", *args], timeout=PATIENCE,
                                    capture_output=True, text=True, stdin=subprocess.DEVNULL)
            assert result.returncode == code, (program, args, result.stderr)
            assert bool(result.stdout) == (code == 0)
            assert bool(result.stderr) == (code != 0)


def test_a_taken_port(start):
    server = start("tinyproto-echo-server")
    result = subprocess.run([PROGRAMS / "tinyproto-echo-server", "--listen", server.address],
                            timeout=PATIENCE, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert server.address in result.stderr


class Chatter(Program):
    def __init__(self, server):
        their, self.pipe = os.pipe()
        super().__init__(["/bin/bash", "-c", 'exec "$0" --connect "$1" <&"$2"',
                          PROGRAMS / "tinyproto-chat-client", server.address, their],
                         pass_fds=[their])
        os.close(their)

    def say(self, text):
        os.write(self.pipe, text.encode() + b"\n")

    def leave(self):
        os.close(self.pipe)


def hear(s):
    """The next message that the server transmits to a plain socket."""
    size, = struct.unpack(">I", read(s, 4))
    s.sendall(b"\xff")
    return read(s, size)


@pytest.fixture
def chatters():
    """chatters(server): our chat client, ended after the test."""
    started = []

    def start_one(server):
        started.append(Chatter(server))
        return started[-1]

    yield start_one
    for chatter in started:
        if chatter.process.poll() is None:
            chatter.kill()


def listen_in(server):
    raw = connect(server)
    raw.sendall(b"\xff")
    assert read(raw, 1) == b"\xff"
    return raw


def test_chat(start, chatters):
    server = start("tinyproto-chat-server")
    with listen_in(server) as raw:
        first = chatters(server)
        joined = hear(raw)
        assert joined.endswith(b"] **joined the chat")
        second = chatters(server)
        assert hear(raw) != joined
    wait_until(lambda: any("**left the chat" in line for line in second.out), "who left")
    first.say("hello \x1b[31m there")
    wait_until(lambda: any(line.endswith("] hello ?[31m there") for line in second.out),
               "the line, without its escape")
    for i in range(50):  # both at once: nothing is lost
        first.say(f"one {i}")
        second.say(f"two {i}")
    for chatter, what in (first, "] two "), (second, "] one "):
        wait_until(lambda: sum(what in line for line in chatter.out) == 50, "all lines")
    first.say("quit")
    assert first.wait() == 0, first.err
    wait_until(lambda: sum("**left the chat" in line for line in second.out) == 2, "who left")
    second.leave()
    assert second.wait() == 0, second.err


def test_a_chat_client_reads_no_faster_than_it_transmits(start):
    server = start("tinyproto-chat-server")
    client = subprocess.Popen([PROGRAMS / "tinyproto-chat-client", "--connect", server.address],
                              stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    line = b"x" * 1000000 + b"\n"  # 100 of them are more than its queue takes
    try:
        for _ in range(100):
            client.stdin.write(line)
        _, err = client.communicate(timeout=PATIENCE)
        assert (client.returncode, err) == (0, b"")
    finally:
        client.kill()
        client.wait()


def test_chat_client_whose_server_ends(start, chatters):
    server = start("tinyproto-chat-server")
    with listen_in(server) as raw:
        client = chatters(server)
        hear(raw)
    server.signal(signal.SIGTERM)
    assert client.wait() == 1
    assert any("closed by the peer" in line for line in client.err)
