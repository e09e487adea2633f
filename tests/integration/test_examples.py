"""The examples that talk to a broadcaster, which are also what `./dev run` shows."""

import signal
import subprocess

from conftest import BUILD, PATIENCE, Program, wait_until

EXAMPLES = BUILD / "examples"


def post(address, topic, message):
    return subprocess.run([EXAMPLES / "post_notify", address, topic, message],
                          capture_output=True, text=True, timeout=PATIENCE)


def test_subscribe_and_post(broadcaster):
    subscriber = Program([EXAMPLES / "webhook_subscriber", broadcaster.address, "demo/*"])
    wait_until(lambda: subscriber.out, "the subscriber's first line")
    assert subscriber.out[0].startswith("subscribed http://127.0.0.1:")
    assert post(broadcaster.address, "demo/hello", "Hello").stdout == "notified 1\n"
    assert post(broadcaster.address, "other", "Hello").stdout == "notified 0\n"
    wait_until(lambda: len(subscriber.out) > 1, "the message")
    assert subscriber.out[1:] == ["demo/hello\tHello"]
    subscriber.signal(signal.SIGTERM)
    assert subscriber.wait() == 0
    assert post(broadcaster.address, "demo/hello", "Hello").stdout == "notified 0\n"


def test_wrong_use(broadcaster):
    for program in ("post_notify", "webhook_subscriber"):
        result = subprocess.run([EXAMPLES / program], capture_output=True, text=True,
                                timeout=PATIENCE)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith(f"usage: {program} HOST:PORT ")
    broadcaster.stop()
    result = post(broadcaster.address, "demo/hello", "Hello")
    assert result.returncode == 1
    assert result.stderr == (
        f"post_notify: no good answer from http://{broadcaster.address} (status -1)\n")
