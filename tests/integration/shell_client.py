"""lonelypsc as a process."""

import json
import subprocess

from conftest import BUILD, PATIENCE, Program, wait_until

LONELYPSC = BUILD / "src/cli/lonelypsc"
TRANSPORTS = ("http", "ws", "tcp")


def run(*args, **kwargs):
    """Runs it to its end; output is text unless said otherwise."""
    kwargs.setdefault("text", True)
    if "input" not in kwargs:
        kwargs.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([LONELYPSC, *map(str, args)], capture_output=True, timeout=PATIENCE, **kwargs)


def notify(url, topic, message, *args):
    """How many were notified."""
    result = run("notify", "--broadcaster", url, topic, "--message", message, *args)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


class Subscriber(Program):
    """lonelypsc subscribe, as JSON lines, once it is ready."""

    def __init__(self, url, *args, ready=True, **kwargs):
        super().__init__([LONELYPSC, "subscribe", "--broadcaster", url, "--bind", "127.0.0.1:0",
                          "--format", "jsonl", *args], **kwargs)
        if ready:
            wait_until(lambda: self.out or self.process.poll() is not None, "the ready line")
            assert self.out[:1] == ['{"event":"ready"}'], self.err

    @property
    def lines(self):
        return [json.loads(line) for line in list(self.out)[1:]]

    def messages(self, count):
        """So many messages, waited for."""
        return wait_until(lambda: len(self.lines) >= count and self.lines, f"{count} messages")
