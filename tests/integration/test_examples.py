"""The examples that talk to a broadcaster, and what `./dev run` shows."""

import os
import signal
import subprocess

from conftest import BUILD, LONELYPSS, PATIENCE, ROOT, Program, wait_until
from shell_client import LONELYPSC

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


def test_ipv6(start_broadcaster):
    broadcaster = start_broadcaster(listen="[::1]:0")
    assert broadcaster.address.startswith("[::1]:")
    assert post(broadcaster.address, "t", "Hello").stdout == "notified 0\n"


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


def test_demo(tmp_path):
    """tools/demo shows the message, goes on, and leaves nothing behind at Ctrl-C."""
    programs, scratch = tmp_path / "bin", tmp_path / "scratch"
    programs.mkdir()
    scratch.mkdir()
    for program in (LONELYPSS, LONELYPSC):
        (programs / program.name).symlink_to(program)
    demo = Program([ROOT / "tools/demo", "--listen", "127.0.0.1:0"], start_new_session=True,
                   env={**os.environ, "LONELY_BIN": str(programs), "TMPDIR": str(scratch)})
    wait_until(lambda: any("lonelypss --help" in line for line in demo.out), "the last line")
    text = "\n".join(demo.out)
    assert "The subscriber received: demo/hello\tHello from lonely\n" in text
    assert "The broadcaster answered: 1 notified\n" in text
    os.killpg(demo.pid, signal.SIGINT)
    assert demo.wait() == 0
    assert list(scratch.iterdir()) == []


def test_demo_says_why_not(tmp_path, broadcaster):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "lonelypss").symlink_to(LONELYPSS)
    demo = Program([ROOT / "tools/demo", "--listen", broadcaster.address],
                   env={**os.environ, "LONELY_BIN": str(programs), "TMPDIR": str(tmp_path)})
    assert demo.wait() == 1
    assert any(broadcaster.address in line for line in demo.err), demo.err
