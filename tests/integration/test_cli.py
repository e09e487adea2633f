"""lonelypsc subscribe and notify with our broadcaster."""

import base64
import hashlib
import signal

import pytest

from shell_client import TRANSPORTS, Subscriber, notify, run


class Urls:
    """Of one broadcaster, by transport."""

    def __init__(self, program):
        self.program = program
        tcp = [line.split()[2] for line in program.out if line.startswith("ready tcp ")]
        self.by_transport = {"http": program.url, "ws": program.url.replace("http", "ws", 1),
                             "tcp": f"tcp://{tcp[0]}"}

    def __getitem__(self, transport):
        return self.by_transport[transport]


@pytest.fixture
def urls(start_broadcaster):
    return Urls(start_broadcaster(tcp__listen="127.0.0.1:0"))


@pytest.fixture
def subscribe():
    """subscribe(url, option...): stopped after the test."""
    started = []

    def start(*args, **kwargs):
        started.append(Subscriber(*args, **kwargs))
        return started[-1]

    yield start
    for program in started:
        program.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_messages_go_through(urls, subscribe, transport):
    url = urls[transport]
    subscriber = subscribe(url, "--glob", "a/*", "--exact", "x", "--exact-hex", "ff00", "--count", 4)
    assert notify(url, "a/é", "hello") == 1
    assert notify(url, "x", "") == 1
    assert notify(url, "nobody", "lost") == 0
    result = run("notify", "--broadcaster", url, "--topic-hex", "FF00", input=b"\0\xff\n", text=False)
    assert (result.returncode, result.stdout) == (0, b"1\n")
    large = bytes(range(256)) * 20000
    result = run("notify", "--broadcaster", url, "a/large", input=large, text=False)
    assert (result.returncode, result.stdout) == (0, b"1\n")
    assert subscriber.wait() == 0
    assert not subscriber.err
    bodies = [b"hello", b"", b"\0\xff\n", large]
    topics = ["a/é".encode(), b"x", b"\xff\0", b"a/large"]
    for line, topic, body in zip(subscriber.lines, topics, bodies, strict=True):
        assert line["topic_hex"] == topic.hex()
        assert line["topic"] == (None if topic == b"\xff\0" else topic.decode())
        assert line["size"] == len(body)
        assert line["sha512"] == hashlib.sha512(body).hexdigest()
        if body == large:
            assert "data_base64" not in line
        else:
            assert base64.b64decode(line["data_base64"]) == body


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_signal_ends_it_in_order(urls, subscribe, transport):
    for number in (signal.SIGINT, signal.SIGTERM):
        subscriber = subscribe(urls[transport], "--exact", "x", "--glob", "y*")
        subscriber.signal(number)
        assert subscriber.wait() == 0
        assert not subscriber.err
        assert urls.program.query("SELECT count(*) FROM httppubsub_subscription_exacts") == [(0,)]
        assert urls.program.query("SELECT count(*) FROM httppubsub_subscription_globs") == [(0,)]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_time_is_over(urls, transport):
    result = run("subscribe", "--broadcaster", urls[transport], "--bind", "127.0.0.1:0", "--exact", "x",
                 "--timeout", "0.3")
    assert (result.returncode, result.stdout, result.stderr) == (3, "", "")


def test_transport_replaces_the_scheme(urls):
    for transport in TRANSPORTS:
        address = urls[transport].split("//")[1]
        for given in (address, f"http://{address}", f"ws://{address}", f"tcp://{address}"):
            assert notify(given, "x", "", "--transport", transport) == 0
