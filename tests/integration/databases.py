"""Database servers for tests, each on a scratch folder, listening on loopback only.

    python3 databases.py postgres|rqlite COMMAND...

runs a command with LONELY_STORE and LONELY_STORE_URL set for a server of its own, and ends the server
after it; its exit status is that of the command.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rqlite_cluster
from rqlite_cluster import Rqlite

PATIENCE = 60  # seconds


class Missing(Exception):
    """The server is not installed."""


class Postgres:
    """PostgreSQL on a folder of its own. `url` leads to an empty database; the role is a superuser."""

    NAME = "postgres"

    def __init__(self, settings=()):
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
        self.bin = Path(shutil.which("initdb") or "/").parent if not folders else folders[-1]
        if not (self.bin / "postgres").exists():
            raise Missing("PostgreSQL is not installed (Debian: postgresql-15)")
        self.settings = settings
        self.process = None
        self.folder = Path(tempfile.mkdtemp(prefix="lonely-pg-"))
        self.data = self.folder / "data"
        # Its programs refuse to run as root.
        self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        try:
            if self.user:
                os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
            self._run("initdb", "-D", self.data, "-U", "lonely", "-A", "trust", "-E", "UTF8",
                      "--locale=C", "--no-sync", "--no-instructions")
            self.port = self._free_port()
            self.start()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _free_port():
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return s.getsockname()[1]

    def _as_user(self):
        if self.user is None:
            return {"cwd": self.folder}
        return {"cwd": self.folder, "user": self.user.pw_uid, "group": self.user.pw_gid,
                "extra_groups": []}

    def _run(self, program, *args):
        result = subprocess.run([self.bin / program, *args], capture_output=True, text=True,
                                timeout=PATIENCE, **self._as_user())
        if result.returncode != 0:
            raise RuntimeError(f"{program}: {result.stderr}")
        return result.stdout

    @property
    def url(self):
        return f"postgresql://lonely@127.0.0.1:{self.port}/postgres"

    def start(self):
        """Returns when connections are taken. The port stays the same over restarts."""
        settings = {"port": self.port, "listen_addresses": "127.0.0.1",
                    "unix_socket_directories": self.folder, "fsync": "off", "max_connections": 200,
                    **dict(self.settings)}
        args = [a for key, value in settings.items() for a in ("-c", f"{key}={value}")]
        with open(self.folder / "log", "ab") as log:
            # A group of its own: what ends the tests by the keyboard does not end it first.
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.data, *args], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True, **self._as_user())
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)],
                             stdin=subprocess.DEVNULL).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.02)

    def stop(self, number=signal.SIGINT):
        """SIGINT: clients are cut off, all is written. SIGQUIT: as if the power had failed."""
        if self.process is None:
            return
        self.resume()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(PATIENCE)
        self.process = None

    def _processes(self):
        """Its own and those of its sessions."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *map(int, children.read_text().split())]

    def _signal_all(self, number):
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def pause(self):
        """It neither answers nor refuses, as on a machine that hangs."""
        os.kill(self.process.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)  # until then it may begin another session, which would not be stopped
        self._signal_all(signal.SIGSTOP)

    def resume(self):
        self._signal_all(signal.SIGCONT)

    def query(self, sql):
        """psql, as an operator uses it: the rows, a list of the columns' texts each."""
        result = subprocess.run(
            [self.bin / "psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1",
             "-d", self.url, "-c", sql],
            capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
        if result.returncode != 0:
            raise RuntimeError(result.stderr)
        return [line.split("\t") for line in result.stdout.splitlines()]

    def close(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


SERVERS = {server.NAME: server for server in (Postgres, Rqlite)}


def main(name, *command):
    try:
        server = SERVERS[name]()
    except (Missing, rqlite_cluster.Missing) as e:
        print(f"1..0 # SKIP {e}")
        return 0
    try:
        return subprocess.run(
            command, env={**os.environ, "LONELY_STORE": name, "LONELY_STORE_URL": server.url}).returncode
    finally:
        server.close()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(*sys.argv[1:]))
