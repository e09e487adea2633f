"""rqlited for tests: a node or a cluster on a scratch folder, listening on loopback only.

The program is the one that tools/rqlite/build.sh makes: LONELY_RQLITED names it (set by
tools/check.py), else build/rqlited.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RQLITED = Path(os.environ.get("LONELY_RQLITED", ROOT / "build/rqlited"))
PATIENCE = 60  # seconds


class Missing(Exception):
    """The program was not built."""


def free_ports(count):
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class Node:
    """One rqlited. Its ports stay the same over restarts."""

    def __init__(self, cluster, number, http_port, raft_port, args=()):
        self.cluster = cluster
        self.number = number
        self.http_port = http_port
        self.raft_port = raft_port
        self.args = args
        self.folder = cluster.folder / f"node{number}"
        self.process = None

    @property
    def url(self):
        return f"{self.cluster.scheme}://127.0.0.1:{self.http_port}"

    def start(self):
        args = [RQLITED, "-node-id", str(self.number), "-http-addr", f"127.0.0.1:{self.http_port}",
                "-raft-addr", f"127.0.0.1:{self.raft_port}", "-raft-timeout", "500ms",
                "-raft-election-timeout", "500ms", "-raft-leader-lease-timeout", "500ms",
                *self.args]
        others = self.cluster.nodes
        if len(others) > 1:
            args += ["-bootstrap-expect", str(len(others)),
                     "-join", ",".join(f"127.0.0.1:{n.raft_port}" for n in others)]
        with open(self.cluster.folder / f"node{self.number}.log", "ab") as log:
            self.process = subprocess.Popen(
                [*args, self.folder], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self):
        """As if the power had failed."""
        self._end(signal.SIGKILL)

    def stop(self):
        self._end(signal.SIGTERM)

    def _end(self, number):
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
        self.process = None

    def pause(self):
        """It neither answers nor refuses, as on a machine that hangs."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def call(self, path, body=None, timeout=10):
        """The reply, decoded if it is JSON, or None when there is none."""
        headers = {"Content-Type": "application/json"}
        if self.cluster.user:
            token = base64.b64encode(":".join(self.cluster.user).encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        request = urllib.request.Request(
            self.url + path, None if body is None else json.dumps(body).encode(), headers)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=self.cluster.tls))
        try:
            with opener.open(request, timeout=timeout) as reply:
                text = reply.read()
                is_json = "json" in reply.headers.get("Content-Type", "")
        except (urllib.error.URLError, OSError):
            return None
        return json.loads(text) if is_json else text


class Rqlite:
    """A cluster, ready. `url` is one node's, `urls` are those of all."""

    NAME = "rqlite"

    def __init__(self, nodes=1, scheme="http", args=(), user=None, tls=None):
        if not RQLITED.exists():
            raise Missing(f"there is no {RQLITED}: tools/rqlite/build.sh makes it")
        self.folder = Path(tempfile.mkdtemp(prefix="lonely-rqlite-"))
        self.scheme, self.user, self.tls = scheme, user, tls
        self.nodes = []
        ports = free_ports(2 * nodes)
        for i in range(nodes):
            self.nodes.append(Node(self, i + 1, ports[2 * i], ports[2 * i + 1], args))
        try:
            for node in self.nodes:
                node.start()
            self.wait()
        except BaseException:
            self.close()
            raise

    @property
    def url(self):
        return self.nodes[-1].url

    @property
    def urls(self):
        return [node.url for node in self.nodes]

    def wait(self, nodes=None):
        """Until all these nodes take part and know a leader."""
        deadline = time.monotonic() + PATIENCE
        for node in nodes or self.nodes:
            while node.call("/readyz", timeout=2) is None or self.leader() is None:
                if node.process.poll() is not None or time.monotonic() > deadline:
                    log = (self.folder / f"node{node.number}.log").read_text()
                    raise RuntimeError(log[-3000:])
                time.sleep(0.05)

    def leader(self):
        """The node that leads, or None."""
        for node in self.nodes:
            if node.process is None:
                continue
            found = node.call("/nodes?ver=2", timeout=2)
            for entry in (found or {}).get("nodes", []) if isinstance(found, dict) else []:
                if entry.get("leader"):
                    return self.nodes[int(entry["id"]) - 1]
        return None

    def query(self, sql, *args, level="strong"):
        """Rows, as an operator asks for them."""
        return self._run("/db/query?level=" + level, sql, args).get("values", [])

    def execute(self, sql, *args):
        """A change, as an operator makes it; rows affected."""
        return self._run("/db/execute", sql, args).get("rows_affected", 0)

    def _run(self, path, sql, args):
        deadline = time.monotonic() + PATIENCE
        while True:
            for node in self.nodes:
                reply = node.call(path, [[sql, *args]]) if node.process else None
                if isinstance(reply, dict) and "results" in reply:
                    result = reply["results"][0]
                    if "error" in result:
                        raise RuntimeError(result["error"])
                    return result
            if time.monotonic() > deadline:
                raise RuntimeError(f"no node answers: {sql}")
            time.sleep(0.05)

    def close(self):
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
