"""The library as a process under command (client_driver.c)."""

import hashlib
import queue
import subprocess
import threading

from conftest import BUILD, PATIENCE

DRIVER = BUILD / "tests/integration/client_driver"
MS = PATIENCE * 1000


class Refused(Exception):
    """The library's own error, by its name."""


class Client:
    def __init__(self, *options, wrapper=(), **popen):
        args = [*wrapper, DRIVER, *options]
        self.process = subprocess.Popen([str(a) for a in args], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        **popen)
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._collect, daemon=True)
        self.reader.start()
        self.opened = self.answer()

    def _collect(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put("err ended")

    def answer(self, patience=PATIENCE):
        line = self.lines.get(timeout=patience)
        if line.startswith("err "):
            raise Refused(line[4:])
        return line.removeprefix("ok").strip()

    def ask(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()

    def do(self, *words, patience=2 * PATIENCE):
        self.ask(*words)
        return self.answer(patience)

    def subscribe(self, kind, key):
        return int(self.do("subscribe", kind, key))

    def next(self, subscription, ms=MS, patience=2 * PATIENCE):
        """(topic, size, sha512 in hex)"""
        _, topic, size, sha512 = self.do("next", subscription, ms, patience=patience).split()
        return topic, int(size), sha512

    def notify(self, topic, size, ms=MS):
        return int(self.do("notify", "bytes", topic, size, ms))

    def numbers(self, *words):
        return [int(word) for word in self.do(*words).split()]

    def close(self, patience=PATIENCE):
        """Whatever it says; a sanitizer's complaint fails the test."""
        if self.process.poll() is None:
            self.process.stdin.close()
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the client did not close")
        errors = self.process.stderr.read()
        assert code == 0, (code, errors[-4000:])
        assert "WARNING: ThreadSanitizer" not in errors, errors[:4000]


def zeros(topic, size):
    """What `next` says of a message of the driver."""
    digest = hashlib.sha512()
    left = size
    while left > 0:
        digest.update(bytes(min(left, 1 << 20)))
        left -= min(left, 1 << 20)
    return topic, size, digest.hexdigest()


def message(topic, data):
    return topic, len(data), hashlib.sha512(data).hexdigest()
