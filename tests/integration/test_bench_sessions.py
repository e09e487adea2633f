"""lonelypsc bench, and the load of the session benchmarks: what they send arrives, and what they say is true."""

import json
import os
import re
import subprocess
import urllib.request

import pytest

from conftest import BUILD, PATIENCE, setup_folder, wait_until

LONELYPSC, LOAD = BUILD / "src/cli/lonelypsc", BUILD / "tests/bench/load"
COUNTER = BUILD / "tests/bench/count_allocations.so"


@pytest.fixture
def start(start_broadcaster, tmp_path):
    def begin(auth="none", *options):
        folder = tmp_path / auth
        setup_folder(folder, to_broadcaster=auth, to_subscriber=auth)
        return start_broadcaster(folder, "--set", "tcp.listen=127.0.0.1:0", *options)

    return begin


def url(broadcaster, scheme):
    wait_until(lambda: len(broadcaster.out) >= 2, "both ready lines")
    kind = "tcp" if scheme == "tcp" else "http"
    address = next(line.split()[2] for line in broadcaster.out if line.startswith(f"ready {kind} "))
    return f"{scheme}://{address}"


def run(program, broadcaster, scheme, *args):
    """Exit status, the lines that it printed, what it complained of."""
    secrets = broadcaster.folder / "subscriber-secrets.json"
    done = subprocess.run([*program, "--broadcaster", url(broadcaster, scheme), "--secrets", secrets,
                           *map(str, args)], capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout.splitlines(), done.stderr


def bench(broadcaster, scheme, *args):
    return run([LONELYPSC, "bench", "--json"], broadcaster, scheme, *args)


def check(code, lines, errors, messages, subscribers, size):
    assert code == 0, errors
    assert json.loads(lines[0]) == {"event": "ready"}
    found = json.loads(lines[1])
    assert found["published"] == found["confirmed"] == messages
    assert found["delivered"] == found["notified"] == messages * subscribers
    assert found["delivered_bytes"] == messages * subscribers * size
    assert found["complete"]
    return found


@pytest.mark.parametrize("auth", ["none", "token", "hmac"])
@pytest.mark.parametrize("scheme", ["ws", "tcp"])
def test_bare(start, auth, scheme):
    broadcaster = start(auth)
    found = check(*bench(broadcaster, scheme, "--messages", 500, "--publishers", 2, "--subscribers", 3,
                         "--idle", 4), 500, 3, 128)
    latency = found["latency_us"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]


@pytest.mark.parametrize("scheme", ["ws", "tcp", "http"])
def test_library(start, scheme):
    broadcaster = start("hmac")
    library = [] if scheme == "http" else ["--library"]
    check(*bench(broadcaster, scheme, *library, "--messages", 100, "--subscribers", 2, "--size", 1000),
          100, 2, 1000)


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
def test_parts(start, scheme):
    size = 5 << 20
    check(*bench(start("hmac"), scheme, "--messages", 3, "--size", size, "--subscribers", 2), 3, 2, size)


def test_rate(start):
    """The thirtieth is due 0.29 s after the first."""
    found = check(*bench(start(), "ws", "--rate", 100, "--messages", 30, "--size", 0), 30, 1, 0)
    assert found["run_s"] >= 0.29


def test_time(start):
    found = json.loads(bench(start(), "ws", "--rate", 100, "--seconds", 0.5, "--size", 0)[1][1])
    assert 1 <= found["published"] <= 51
    assert found["run_s"] >= 0.5


def test_text(start):
    code, lines, _ = run([LONELYPSC, "bench"], start(), "ws", "--messages", 10)
    assert code == 0
    assert [line.split()[0] for line in lines] == ["connections", "published", "confirmed", "delivered",
                                                   "latency", "client"]


def test_wrong_secret(start, tmp_path):
    broadcaster = start("hmac")
    setup_folder(tmp_path / "other", to_broadcaster="hmac", to_subscriber="hmac")
    broadcaster.folder = tmp_path / "other"
    code, lines, errors = bench(broadcaster, "ws", "--messages", 1)
    assert (code, lines) == (1, [])
    assert errors.startswith("lonelypsc: bench: ")


@pytest.mark.parametrize("args", [
    ["--broadcaster", "ws://127.0.0.1:1", "--size", "x"],
    ["--broadcaster", "ws://127.0.0.1:1", "--window", "0"],
    ["--broadcaster", "ws://127.0.0.1:1", "--seconds", "soon"],
    ["--broadcaster", "ws://127.0.0.1:1", "--library", "--idle", "1"],
    ["--broadcaster", "nats://127.0.0.1:1"],
    [],
])
def test_wrong_arguments(args):
    done = subprocess.run([LONELYPSC, "bench", *args], capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"lonelypsc: ")


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
def test_nobody_there(scheme):
    done = subprocess.run([LONELYPSC, "bench", "--broadcaster", f"{scheme}://127.0.0.1:1"],
                          capture_output=True, timeout=PATIENCE)
    assert done.returncode == 5


def test_load(start):
    check(*run([LOAD], start("hmac"), "ws", "--messages", 200, "--subscribers", 2), 200, 2, 128)


def test_load_wants_known_names(start):
    assert run([LOAD], start(), "ws", "--colour", "red")[0] == 2


def allocations(broadcaster, scheme, messages, *options):
    """How many times the library of a subscriber allocated until it had read so many."""
    client = subprocess.Popen(
        [LONELYPSC, "bench", "--library", "--json", "--publishers", "0", "--expect", str(messages),
         "--seconds", str(PATIENCE), "--broadcaster", url(broadcaster, scheme), *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "LD_PRELOAD": str(COUNTER)})
    try:
        client.stdout.readline()
        code, _, errors = run([LOAD], broadcaster, scheme, "--subscribers", 0, "--messages", messages,
                              "--rate", 5000)
        assert code == 0, errors
        out, errors = client.communicate(timeout=PATIENCE)
    finally:
        client.kill()
    assert json.loads(out)["delivered"] == messages
    return int(re.search(r"allocations (\d+)", errors)[1])


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
def test_the_library_allocates_nothing_for_a_small_message(start, scheme):
    # After the first hundred KiB it would send them compressed. The subscriber may get as far behind as the
    # machine makes it.
    broadcaster = start("none", "--set", "compression.allow_training=no",
                        "--set", "websocket.websocket_max_pending_sends=none")
    few, many = (allocations(broadcaster, scheme, n) for n in (500, 5000))
    assert few > 0 and many - few < 450


def compressed_messages(broadcaster):
    admin = next(line.split()[2] for line in broadcaster.out if line.startswith("ready admin "))
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    return int(re.search(r'^\w*session_compressed_messages_total\{direction="out"\} (\d+)', text, re.M)[1])


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
def test_nor_for_a_compressed_one(start, tmp_path, scheme):
    dictionary = tmp_path / "dictionary"
    dictionary.write_bytes(bytes((i * 2654435761 % 2**32) >> 11 & 255 for i in range(1024)))  # what it sends
    broadcaster = start("none", "--set", "compression.allow_training=no",
                        "--set", "websocket.websocket_max_pending_sends=none",
                        "--set", f"compression.dictionary=7 3 {dictionary}",
                        "--set", "broadcaster.admin_listen=127.0.0.1:0")
    wait_until(lambda: any("ready admin" in line for line in broadcaster.out), "the admin listener")
    options = ("--dictionary", f"7 3 {dictionary}", "--initial-compression-dict-id", "7")
    few, many = (allocations(broadcaster, scheme, n, *options) for n in (500, 5000))
    assert compressed_messages(broadcaster) >= 5500
    assert few > 0 and many - few < 450
