"""What lonelypsc subscribe does with messages: formats, --data, --exec, --output."""

import base64
import hashlib
import os
import re
import signal
import stat
import subprocess

import pytest

from conftest import PATIENCE, Program, wait_until
from shell_client import LONELYPSC, Subscriber, notify, run


def notify_bytes(url, topic, body):
    result = run("notify", "--broadcaster", url, "--topic-hex", topic.hex(), input=body, text=False)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


class Plain(Program):
    """lonelypsc subscribe whose output is bytes; it has subscribed when the database says so."""

    def __init__(self, broadcaster, folder, *args, **kwargs):
        self.path = folder / "stdout"
        with open(self.path, "wb") as out:
            super().__init__(
                ["sh", "-c", 'exec 3>"$0" && exec "$@" >&3', self.path, LONELYPSC, "subscribe",
                 "--broadcaster", broadcaster.url, "--bind", "127.0.0.1:0", "--glob", "*",
                 "--exact-hex", "ffc080", *args],
                **kwargs)
        wait_until(lambda: broadcaster.query("SELECT count(*) FROM httppubsub_subscription_globs") == [(1,)]
                   or self.process.poll() is not None, "the subscription")

    @property
    def output(self):
        return self.path.read_bytes()


@pytest.fixture
def plain(broadcaster, tmp_path):
    started = []

    def start(*args, **kwargs):
        started.append(Plain(broadcaster, tmp_path, *args, **kwargs))
        return started[-1]

    yield start
    for program in started:
        program.stop()


BODIES = [
    (b"t", b"hello", rb"t	hello"),
    (b"t", b"", b"t\t"),
    (b"a\tb", b"x\ny\\z\x1b[31m\x7f", rb"a\x09b	x\x0ay\z\x1b[31m\x7f"),
    ("é".encode(), "日本 😀".encode(), "é\t日本 😀".encode()),
    (b"\xff\xc0\x80", b"\xed\xa0\x80\xf5\xe2\x82", rb"\xff\xc0\x80	\xed\xa0\x80\xf5\xe2\x82"),
    (b"t", "\u202e\u0085\ufeff".encode(), rb"t	\xe2\x80\xae\xc2\x85\xef\xbb\xbf"),
]


def test_text(broadcaster, plain):
    program = plain("--count", len(BODIES))
    for topic, body, _ in BODIES:
        assert notify_bytes(broadcaster.url, topic, body) == 1
    assert program.wait() == 0
    assert program.output == b"".join(line + b"\n" for _, _, line in BODIES)


def test_text_of_a_spooled_message_is_not_cut_inside_characters(broadcaster, plain):
    program = plain("--count", 1, "--message-body-spool-size", 0)
    body = ("x" + "日€é" * 100000).encode()
    assert notify_bytes(broadcaster.url, b"t", body) == 1
    assert program.wait() == 0
    assert program.output == b"t\t" + body + b"\n"


def test_raw(broadcaster, plain):
    program = plain("--count", len(BODIES), "--format", "raw")
    for topic, body, _ in BODIES:
        assert notify_bytes(broadcaster.url, topic, body) == 1
    assert program.wait() == 0
    assert program.output == b"".join(body for _, body, _ in BODIES)


@pytest.mark.parametrize("policy, sizes", [
    ("auto", {0: True, 1: True, 65536: True, 65537: False}),
    ("always", {2: True, 65537: True, 1000000: True}),
    ("never", {0: False, 5: False}),
])
def test_data(broadcaster, policy, sizes):
    subscriber = Subscriber(broadcaster.url, "--glob", "*", "--data", policy, "--count", len(sizes))
    for size in sizes:
        assert notify_bytes(broadcaster.url, b"t", os.urandom(size)) == 1
    assert subscriber.wait() == 0
    for line, (size, expected) in zip(subscriber.lines, sizes.items(), strict=True):
        assert line["size"] == size
        assert ("data_base64" in line) == expected
        if expected:
            body = base64.b64decode(line["data_base64"], validate=True)
            assert len(body) == size
            assert hashlib.sha512(body).hexdigest() == line["sha512"]


def test_topics_in_json(broadcaster):
    subscriber = Subscriber(broadcaster.url, "--glob", "*")
    topics = ['"\\\x01\x7f/é', "\u2028", ""]
    for topic in topics:
        assert notify_bytes(broadcaster.url, topic.encode(), b"") == 1
    assert [line["topic"] for line in subscriber.messages(3)] == topics
    assert subscriber.stop() == 0


# ---- --exec


def script(tmp_path, text):
    path = tmp_path / "script with blanks"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o700)
    return f"'{path}'"


@pytest.mark.parametrize("transport", ["http", "ws"])
def test_exec(broadcaster, tmp_path, transport):
    command = script(tmp_path, """
cat > "$3.body"
printf '%s|%s|%s|%s|%s|%s' "$1" "$2" "$LONELY_TOPIC" "$LONELY_TOPIC_HEX" "$LONELY_SIZE" "$LONELY_SHA512" > "$3"
""")
    url = broadcaster.url.replace("http", transport, 1)
    out = tmp_path / "out"
    subscriber = Subscriber(url, "--exact", "a b;c", "--count", 1, "--data", "never",
                            "--exec", f"""{command} "two  words" \\$HOME';' {out}""")
    body = os.urandom(3000000)
    assert notify_bytes(url, b"a b;c", body) == 1
    assert subscriber.wait() == 0, subscriber.err
    assert (tmp_path / "out.body").read_bytes() == body
    assert out.read_text() == (
        f"two  words|$HOME;|a b;c|6120623b63|3000000|{hashlib.sha512(body).hexdigest()}")


def test_exec_gets_no_topic_with_a_zero_byte(broadcaster, tmp_path):
    command = script(tmp_path, 'echo "${LONELY_TOPIC-none} $LONELY_TOPIC_HEX"')
    subscriber = Subscriber(broadcaster.url, "--exact-hex", "6100", "--exec", command, "--count", 1,
                            "--data", "never", env={**os.environ, "LONELY_TOPIC": "old"})
    assert notify_bytes(broadcaster.url, b"a\0", b"") == 1
    assert subscriber.wait() == 0
    assert subscriber.out[-1] == "none 6100"


def test_exec_tells_how_commands_end(broadcaster, tmp_path):
    command = script(tmp_path, 'case $LONELY_TOPIC in bad) exit 7 ;; killed) kill -9 $$ ;; esac')
    subscriber = Subscriber(broadcaster.url, "--glob", "*", "--exec", command, "--count", 3)
    for topic in ("bad", "killed", "good"): # none of them reads what it is given
        assert notify(broadcaster.url, topic, "x" * 100000) == 1
    assert subscriber.wait() == 1
    assert len(subscriber.err) == 2, subscriber.err
    assert "exit status 7 for a message on bad" in subscriber.err[0]
    assert "ended by signal 9 for a message on killed" in subscriber.err[1]


def test_exec_runs_so_many_at_once(broadcaster, tmp_path):
    """Two commands that wait for each other can only end when both run."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    command = script(tmp_path, f'if [ $LONELY_TOPIC = a ]; then echo >{gate}; else read x <{gate}; fi; echo done')
    subscriber = Subscriber(broadcaster.url, "--glob", "*", "--exec", command, "--jobs", 2, "--count", 2,
                            "--data", "never")
    assert notify(broadcaster.url, "a", "") == 1
    assert notify(broadcaster.url, "b", "") == 1
    assert subscriber.wait() == 0
    assert subscriber.out.count("done") == 2


def test_exec_one_at_a_time_keeps_the_order(broadcaster, tmp_path):
    out = tmp_path / "out"
    command = script(tmp_path, f'cat >> {out}')
    count = 10
    subscriber = Subscriber(broadcaster.url, "--glob", "*", "--exec", command, "--count", count)
    for i in range(count):
        assert notify(broadcaster.url, "t", f"{i} ") == 1
    assert subscriber.wait() == 0
    assert out.read_text().split() == [str(i) for i in range(count)]


def test_a_signal_waits_for_commands_a_second_does_not(broadcaster, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    command = script(tmp_path, f'echo began; read x <{gate}; echo ended')
    for twice in (False, True):
        subscriber = Subscriber(broadcaster.url, "--glob", "*", "--exec", command, "--data", "never")
        assert notify(broadcaster.url, "t", "") == 1
        wait_until(lambda: "began" in subscriber.out, "the command")
        subscriber.signal(signal.SIGTERM)
        if twice:
            wait_until(lambda: subscriber.process.poll() is not None or subscriber.signal(signal.SIGTERM),
                       "the end of lonelypsc")
        gate.write_text("\n")
        assert subscriber.wait() == 0
        assert "ended" in subscriber.out


@pytest.mark.parametrize("command, said", [
    ("/nowhere/program", "there is no such program"), ("no-such-program x", "there is no such program"),
    ("cat 'x", "quotation mark"), ("  ", "a command is needed")])
def test_exec_wrong(broadcaster, command, said):
    result = run("subscribe", "--broadcaster", broadcaster.url, "--exact", "x", "--exec", command)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("lonelypsc: --exec: ") and said in result.stderr


# ---- --output


def test_output(broadcaster, tmp_path):
    folder = tmp_path / "folder"
    subscriber = Subscriber(broadcaster.url, "--glob", "*", "--exact-hex", "ff00", "--output", folder, "--count", 4)
    topics = [b"../../escape", b"/etc/passwd", b"x" * 5000, b"\xff\0"]
    for i, topic in enumerate(topics):
        assert notify_bytes(broadcaster.url, topic, str(i).encode() * 100000) == 1
    assert subscriber.wait() == 0
    names = [line["file"] for line in subscriber.lines]
    assert sorted(names) == sorted(os.listdir(folder))
    assert sorted(os.listdir(tmp_path)) == ["broadcaster", "folder"]
    endings = ["000001-.._.._escape", "000002-_etc_passwd", "000003-" + "x" * 100, "000004-__"]
    for i, (name, ending) in enumerate(zip(names, endings, strict=True)):
        assert re.fullmatch(r"\d{8}T\d{6}\.\d{9}Z-" + re.escape(ending), name)
        assert (folder / name).read_bytes() == str(i).encode() * 100000
        assert stat.S_ISREG((folder / name).stat().st_mode)


def test_output_prints_nothing_of_its_own_accord(broadcaster, plain, tmp_path):
    program = plain("--count", 1, "--output", tmp_path / "folder")
    assert notify_bytes(broadcaster.url, b"t", b"x") == 1
    assert program.wait() == 0
    assert program.output == b""


def test_output_on_a_full_disk(broadcaster, small_disk, tmp_path):
    wrapper, folder = small_disk
    program = Program([*wrapper("64k"), LONELYPSC, "subscribe", "--broadcaster", broadcaster.url, "--bind",
                       "127.0.0.1:0", "--glob", "*", "--output", folder, "--format", "jsonl"])
    wait_until(lambda: program.out, "the ready line")
    assert notify_bytes(broadcaster.url, b"t", bytes(1000000)) == 1
    assert program.wait() == 1
    assert "--output" in program.err[0] and "No space left" in program.err[0]


def test_output_wrong(broadcaster, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "none/below"):
        result = run("subscribe", "--broadcaster", broadcaster.url, "--exact", "x", "--output", path)
        assert result.returncode == 2
        assert result.stderr.startswith(f"lonelypsc: --output: {path}: ")


# ---- Standard output


def test_reader_that_goes_away(broadcaster):
    """It unsubscribes, and says nothing."""
    process = subprocess.Popen([LONELYPSC, "subscribe", "--broadcaster", broadcaster.url, "--bind", "127.0.0.1:0",
                                "--glob", "*", "--format", "jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b'{"event":"ready"}\n'
    process.stdout.close()
    assert notify(broadcaster.url, "t", "") == 1
    assert process.wait(PATIENCE) == 1
    assert process.stderr.read() == b""
    process.stderr.close()
    assert broadcaster.query("SELECT count(*) FROM httppubsub_subscription_globs") == [(0,)]


def test_full_standard_output(broadcaster):
    with open("/dev/full", "wb") as full:
        result = subprocess.run([LONELYPSC, "notify", "--broadcaster", broadcaster.url, "t", "--message", "x"],
                                stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert result.returncode == 1
    assert result.stderr == "lonelypsc: standard output: No space left on device\n"
