"""The examples of the subscriber library, over every transport."""

import os
import re
import subprocess

import pytest

from conftest import BUILD, PATIENCE, setup_folder, wait_until

EXAMPLES = BUILD / "examples"
TRANSPORTS = ["http", "ws", "tcp"]


class Example:
    """One that runs, with a standard input."""

    def __init__(self, name, *args, env):
        self.process = subprocess.Popen([EXAMPLES / name, *(str(a) for a in args)], env=env, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        assert self.line() == "subscribed", self.process.stderr.read()

    def line(self):
        return self.process.stdout.readline().rstrip("\n")

    def say(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.line()

    def end(self):
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, err
        return out.splitlines()


@pytest.fixture(params=TRANSPORTS)
def place(request, start_broadcaster, tmp_path):
    """run(name, ...) and start(name, ...) against a broadcaster with hmac, by one transport."""
    folder = setup_folder(tmp_path / "broadcaster", to_broadcaster="hmac", to_subscriber="hmac")
    program = start_broadcaster(folder, tcp__listen="127.0.0.1:0")
    tcp = wait_until(lambda: re.findall(r"ready tcp (\S+)", "\n".join(program.out)), "TCP")[0]
    url = {"http": program.url, "ws": f"ws://{program.address}", "tcp": f"tcp://{tcp}"}[request.param]
    env = {**os.environ, "LONELY_SECRETS": str(folder / "subscriber-secrets.json")}
    started = []

    class Place:
        @staticmethod
        def run(name, *args):
            result = subprocess.run([EXAMPLES / name, url, *(str(a) for a in args)], env=env, text=True,
                                    capture_output=True, timeout=PATIENCE)
            assert result.returncode == 0, result.stderr
            return result.stdout

        @staticmethod
        def start(name, *args):
            started.append(Example(name, url, *args, env=env))
            return started[-1]

    yield Place
    for example in started:
        if example.process.poll() is None:
            example.process.kill()
            example.process.wait()


def test_exact_until_stop(place):
    example = place.start("subscribe_exact", "t")
    assert place.run("notify_bytes", "t", "Hello") == "notified 1\n"
    assert place.run("notify_bytes", "other", "Hello") == "notified 0\n"
    assert place.run("notify_bytes", "t", "stop") == "notified 1\n"
    assert example.end() == ["t\tHello", "t\tstop"]
    assert place.run("notify_bytes", "t", "late") == "notified 0\n"


def test_glob(place):
    example = place.start("subscribe_glob", "a/?*", 2)
    for topic in ("a/", "a/1", "a/2"):
        place.run("notify_bytes", topic, "x")
    assert example.end() == ["a/1\tx", "a/2\tx"]


def test_multi(place):
    example = place.start("subscribe_multi", "a", "b", "c*")
    for topic in ("c1", "a", "a", "b"):
        place.run("notify_bytes", topic, "x")
    assert example.end() == ["c1\tx", "a\tx", "b\tx"]


def test_poll(place):
    example = place.start("subscribe_poll", "t", 1000 * PATIENCE)
    place.run("notify_bytes", "t", "x")
    assert example.line() == "t\tx"
    assert example.say("a line") == "typed\ta line"
    assert example.end() == []


def test_timeout(place):
    example = place.start("subscribe_timeout", "t")
    place.run("notify_bytes", "t", "x")
    lines = example.end()
    assert sorted(lines) == ["nothing"] * 3 + ["t\tx"]


def test_file(place, tmp_path):
    example = place.start("subscribe_glob", "t", 1)
    file = tmp_path / "file"
    file.write_bytes(b"text " * 10)
    assert place.run("notify_file", "t", file) == "notified 1\n"
    assert example.end() == ["t\t" + "text " * 10]


def test_cache(place, tmp_path):
    values = tmp_path / "values"
    values.mkdir()
    one, other = (place.start("cache_invalidator", values) for _ in range(2))
    assert one.say("set k first") == "told 2"
    assert one.say("get k") == "miss first"
    assert one.say("get k") == "hit first"
    assert other.say("set k second") == "told 2"
    assert wait_until(lambda: (line := one.say("get k")) != "hit first" and line,
                      "the change") == "miss second"
    assert one.say("get k") == "hit second"
    assert one.end() == other.end() == []
