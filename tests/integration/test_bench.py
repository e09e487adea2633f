"""The load generator and the webhook receiver of the benchmarks: they work, and count what is."""

import json
import subprocess
import sys

import bodies
import pytest

from conftest import BUILD, PATIENCE, ROOT, Program, setup_folder, wait_until
from wire import subscribe

LOAD, SINK = BUILD / "tests/bench/http_load", BUILD / "tests/bench/http_sink"


@pytest.fixture
def sink():
    program = Program([SINK])
    wait_until(lambda: program.out, "the ready line of http_sink")
    yield program
    if program.process.poll() is None:
        program.stop()


def sink_url(sink):
    return f"http://{sink.out[0].removeprefix('ready ')}/r"


def load(address, *args):
    """Exit status and results."""
    done = subprocess.run([LOAD, "--to", address, *map(str, args)], capture_output=True, text=True,
                          timeout=PATIENCE)
    return done.returncode, json.loads(done.stdout)


def test_notify_one_webhook(broadcaster, sink):
    for n in range(10):
        subscribe(broadcaster, "exact", sink_url(sink), f"t/{n}")
    code, results = load(broadcaster.address, "--notify", "t/#", "--topics", 10, "--requests", 500,
                         "--connections", 16)
    assert code == 0
    assert (results["started"], results["ok"], results["errors"]) == (500, 500, 0)
    assert results["notified"] == 500
    latency = results["latency_us"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    sink.stop()
    counts = json.loads(sink.out[1])
    assert (counts["receives"], counts["bad"]) == (500, 0)
    assert counts["bytes"] == 500 * (2 + 2 + 3 + 1 + 8 + 8 + 128)


@pytest.mark.parametrize("to_subscriber, ok", [("hmac", 50), ("none", 0)])
def test_signed_notify(start_broadcaster, tmp_path, to_subscriber, ok):
    """Good with the right secret, when the answers are signed, too."""
    folder = tmp_path / "signed"
    setup_folder(folder, to_broadcaster="hmac", to_subscriber=to_subscriber)
    secrets = json.loads((folder / "broadcaster-secrets.json").read_text())
    broadcaster = start_broadcaster(folder)
    for secret, good in ((secrets["to-broadcaster"]["secret"], ok), ("A" * 86, 0)):
        code, results = load(broadcaster.address, "--notify", "t", "--requests", 50,
                             "--connections", 4, "--hmac", secret)
        assert (code, results["ok"], results["errors"]) == (int(good == 0), good, 50 - good)


def test_long_message(broadcaster, sink):
    """Longer than any buffer, and spooled."""
    size = 11 << 20
    subscribe(broadcaster, "exact", sink_url(sink), "big")
    code, results = load(broadcaster.address, "--notify", "big", "--message-bytes", size,
                         "--requests", 2)
    assert (code, results["notified"]) == (0, 2)
    sink.stop()
    assert json.loads(sink.out[1])["bytes"] == 2 * (2 + 2 + 3 + 1 + 8 + 8 + size)


def test_subscribe(broadcaster):
    code, results = load(broadcaster.address, "--subscribe", "s/#", "--url", "http://127.0.0.1:1/r",
                         "--requests", 200)
    assert (code, results["ok"]) == (0, 200)
    stored = broadcaster.query("SELECT count(DISTINCT exact) FROM httppubsub_subscription_exacts")
    assert stored == [(200,)]


def test_bodies(broadcaster, tmp_path):
    """In turn; refused ones are errors."""
    path = tmp_path / "bodies"
    good = bodies.set_subscriptions("http://127.0.0.1:1/r", ["a", "b"], ["c*"])
    path.write_bytes(b"".join(len(b).to_bytes(4, "little") + b for b in (good, b"nonsense")))
    code, results = load(broadcaster.address, "--bodies", path, "--path", bodies.SET, "--requests",
                         10, "--connections", 2)
    assert (code, results["ok"], results["errors"]) == (1, 5, 5)


def test_ends_in_time(broadcaster):
    code, results = load(broadcaster.address, "--notify", "t", "--requests", 20000000, "--seconds",
                         "0.2")
    assert (code, results["errors"]) == (0, 0)
    assert 0 < results["ok"] == results["started"]


def test_sink_refuses_what_is_no_receive(sink):
    code, results = load(sink.out[0].removeprefix("ready "), "--subscribe", "", "--url", "",
                         "--requests", 3, "--connections", 1)
    assert (code, results["errors"]) == (1, 3)


def test_reference_server_makes_tables(tmp_path):
    path = tmp_path / "subscriptions.db"
    subprocess.run([sys.executable, ROOT / "tests/bench/reference_server.py", "tables", path],
                   check=True, timeout=PATIENCE)
    assert path.stat().st_size > 0
