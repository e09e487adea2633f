"""Our programs as processes, for the integration tests.

LONELY_BUILD names the meson build folder whose programs are tested (set by tools/check.py).
"""

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("LONELY_BUILD", ROOT / "build/release"))
LONELYPSS = BUILD / "src/broadcaster/lonelypss"
# Sanitizers make programs several times slower: long tests take less then.
SANITIZED = LONELYPSS.exists() and any(name in LONELYPSS.read_bytes()
                                       for name in (b"__asan_init", b"__tsan_init"))
PATIENCE = 30  # seconds until a test gives up waiting; generous, for sanitizers on busy machines


def wait_until(condition, what, patience=PATIENCE):
    """Polls until the condition gives something true, and returns it."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience} s in vain for {what}")
        time.sleep(0.01)


def free_port():
    """A port that was free a moment ago, for peers that cannot bind port 0."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Program:
    """A child process whose output is collected; ended by its own pid."""

    def __init__(self, args, **kwargs):
        self.args = [str(a) for a in args]
        self.process = subprocess.Popen(
            self.args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            **kwargs)
        self.out, self.err = [], []
        self.readers = [
            threading.Thread(target=self._collect, args=(stream, lines), daemon=True)
            for stream, lines in
            ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def _collect(stream, lines):
        for line in stream:
            lines.append(line.decode(errors="replace").rstrip("\n"))

    @property
    def pid(self):
        return self.process.pid

    def wait(self, patience=PATIENCE):
        """The exit status; output is complete afterwards."""
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.args} did not end within {patience} s: {self.err}")
        for reader in self.readers:
            reader.join(PATIENCE)
        return code

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self):
        self.process.kill()
        return self.wait()


class Broadcaster(Program):
    """A running lonelypss."""

    def __init__(self, folder, args=(), wrapper=(), **kwargs):
        super().__init__([*wrapper, LONELYPSS, "--config", folder / "lonelypss.ini", *args], **kwargs)
        self.folder = folder
        self.addresses = []
        try:
            wait_until(self._ready, "the ready line of lonelypss")
        except AssertionError:
            self.kill()
            raise

    def _ready(self):
        if self.process.poll() is not None:
            self.wait()
            raise AssertionError(f"lonelypss ended: {self.process.returncode} {self.err}")
        found = [re.fullmatch(r"ready http (\S+)", line) for line in list(self.out)]
        self.addresses = [m.group(1) for m in found if m]
        return self.addresses

    @property
    def address(self):
        return self.addresses[0]

    @property
    def url(self):
        return f"http://{self.address}"

    @property
    def port(self):
        return int(self.address.rsplit(":", 1)[1])

    @property
    def database(self):
        return self.folder / "subscriptions.db"

    def query(self, sql, *args):
        """Runs a statement on the database, as an operator would, beside the running process."""
        with contextlib.closing(sqlite3.connect(self.database, PATIENCE)) as db, db:
            return db.execute(sql, args).fetchall()

    def descriptors(self):
        """What the open ones lead to."""
        links = []
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(fd))
        return links


def setup_folder(folder, *args, to_broadcaster="none", to_subscriber="none"):
    """Runs lonelypss --setup."""
    folder.mkdir(exist_ok=True)
    result = subprocess.run(
        [LONELYPSS, "--setup", "--dir", folder, "--to-broadcasters-auth", to_broadcaster,
         "--to-subscribers-auth", to_subscriber, *args],
        capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def start_broadcaster(tmp_path):
    """start(folder=None, **settings): a broadcaster on a free port, stopped after the test.

    Settings are options as section__key=value. `wrapper` is a command that becomes it, `popen` goes to
    subprocess. A sanitizer's complaint fails the test.
    """
    started = []

    def start(folder=None, *args, listen="127.0.0.1:0", wrapper=(), popen=None, **settings):
        folder = folder or tmp_path / "broadcaster"
        if not (folder / "lonelypss.ini").exists():
            setup_folder(folder)
        options = ["--listen", listen]
        for key, value in settings.items():
            options += ["--set", f"{key.replace('__', '.', 1)}={value}"]
        program = Broadcaster(folder, [*options, *args], wrapper, **(popen or {}))
        started.append(program)
        return program

    yield start
    complaints = []
    for program in started:
        with contextlib.suppress(ProcessLookupError):
            program.stop()
        code = program.process.returncode
        if code not in (0, -signal.SIGKILL):
            complaints.append((code, program.err[-40:]))
    assert not complaints, complaints


@pytest.fixture
def broadcaster(start_broadcaster):
    return start_broadcaster()


# Becomes the rest of its arguments, with a small file system of its own on the first one.
OF_USER = [] if os.geteuid() == 0 else ["--user"]
NAMESPACE = ["unshare", "--mount", *(["--map-root-user"] if OF_USER else [])]
SMALL_DISK = [*NAMESPACE, "sh", "-c", 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"',
              "sh"]


def in_namespace(command):
    """The output of a command that begins with NAMESPACE; says what is wrong where there can be none."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, (
        "a mount namespace cannot be made: this needs root with CAP_SYS_ADMIN, or user namespaces: "
        + result.stderr)
    return result.stdout


@pytest.fixture
def small_disk(tmp_path):
    """A wrapper for start_broadcaster, and the folder."""
    folder = tmp_path / "small"
    folder.mkdir()

    def wrapper(size):
        return [*SMALL_DISK, size, folder]

    in_namespace([*wrapper("64k"), "true"])
    return wrapper, folder


def inside(program, path):
    """A path of its mount namespace, seen from here."""
    return Path(f"/proc/{program.pid}/root{path}")


@pytest.fixture
def start_subscriber():
    """start(default behaviour): a scripted subscriber (subscriber.py), stopped after the test."""
    from subscriber import Subscriber

    started = []

    def start(*args):
        started.append(Subscriber(*args))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def subscriber(start_subscriber):
    return start_subscriber()


@pytest.fixture
def dead_url():
    """A URL where connections are refused."""
    from subscriber import DeadPort

    port = DeadPort()
    yield port.url
    port.close()


@pytest.fixture(scope="module")
def database_servers():
    """get(kind): a server for all tests of a file that ask; None for SQLite."""
    import cluster

    servers = {}

    def get(kind):
        if kind not in servers:
            servers[kind] = cluster.PLACES[kind].start_server()
        return servers[kind]

    yield get
    for server in servers.values():
        if server is not None:
            server.close()


@pytest.fixture
def make_cluster(database_servers, start_broadcaster, tmp_path):
    """make(kind, **settings): a Cluster without members (cluster.py)."""
    import cluster

    def make(kind, **settings):
        return cluster.Cluster(kind, database_servers(kind), start_broadcaster, tmp_path / "cluster",
                               **settings)

    return make
