"""The recorded conversations of the Python tool tpft, replayed from either end: every byte of ours must be
the tool's, but for the text of a reason."""

import json
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import PATIENCE, ROOT
from tpft_peer import TPFT, read, root, start  # noqa: F401  (fixtures)

SCRIPTS = {p.stem: json.loads(p.read_text())
           for p in sorted((ROOT / "tests/vectors/tinyproto").glob("tpft-*.json"))}
SMALL = b"hello, tpft!\n"
REASON = re.compile(rb'"reason":"[^"]*"')
FAILS = {"tpft-download-missing", "tpft-upload-refused"}  # with 0 in the tool


def lay_out(folder):
    (folder / "small.txt").write_bytes(SMALL)
    (folder / "empty").write_bytes(b"")
    (folder / "adir").mkdir()


def elements(script):
    return [(e["from"], e["what"], bytes.fromhex(e["hex"])) for e in script["transcript"]]


def play(s, script, side, piecewise):
    """Plays one side, compares what comes with the other's; the end of the stream afterwards."""
    held = b""
    steps = elements(script)
    i = 0
    while i < len(steps):
        who, what, data = steps[i]
        i += 1
        if who == side:
            held += data
            continue
        send(s, held, piecewise)
        held = b""
        if what == "size" and b'"reason"' in payload_of(steps, i):
            size = int.from_bytes(read(s, 4), "big")  # of another text
            status, payload = steps[i], steps[i + 1]
            i += 2
            send(s, status[2], piecewise)
            got = read(s, size)
            assert REASON.sub(b"", got) == REASON.sub(b"", payload[2])
            assert json.loads(got)["letter"]["reason"]
        else:
            assert read(s, len(data)) == data
    send(s, held, piecewise)


def payload_of(steps, i):
    """Of the size before `i`, after its status."""
    return steps[i + 1][2] if i + 1 < len(steps) else b""


def send(s, data, piecewise):
    for n in range(0, len(data), 1 if piecewise else len(data) or 1):
        s.sendall(data[n:n + (1 if piecewise else len(data))])


def opened(s):
    s.settimeout(PATIENCE)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


@pytest.mark.parametrize("piecewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_our_server(start, root, name, piecewise):  # noqa: F811
    lay_out(root)
    script = SCRIPTS[name]
    server = start()
    with opened(socket.create_connection(("127.0.0.1", server.port))) as s:
        play(s, script, "client", piecewise)
        if "compatible_server_must" in script:
            size = int.from_bytes(read(s, 4), "big")
            s.sendall(b"\xff")
            assert json.loads(read(s, size))["type"] == "rejected"
        else:
            assert s.recv(1) == b""
    if "upload" in name and name not in FAILS:
        path = json.loads(elements(script)[4][2])["letter"]["destination_path"]
        want = b"" if "empty" in name else SMALL
        assert (root / path).read_bytes() == want


@pytest.mark.parametrize("piecewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("name", [n for n in SCRIPTS if n != "tpft-download-directory"])
def test_our_client(tmp_path, name, piecewise):
    lay_out(tmp_path)
    script = SCRIPTS[name]
    listener = socket.create_server(("127.0.0.1", 0))
    errors = []

    def serve():
        try:
            with listener, opened(listener.accept()[0]) as s:
                play(s, script, "server", piecewise)
                assert s.recv(1) == b""
        except Exception as e:
            errors.append(e)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    address = "127.0.0.1:%d" % listener.getsockname()[1]
    args = [a.replace("HOST:PORT", address) for a in script["client_arguments"]]
    result = subprocess.run([TPFT, *args], cwd=tmp_path, capture_output=True, timeout=PATIENCE)
    thread.join(PATIENCE)
    assert not errors, errors
    assert result.returncode == (name in FAILS), result.stderr
    assert result.stdout == b""
    if name in FAILS:
        assert b"No such file or directory" in result.stderr and result.stderr.count(b"\n") == 1
        assert not Path(tmp_path, "dest.txt").exists()
    elif "download" in name:
        assert Path(tmp_path, args[1]).read_bytes() == (b"" if "empty" in name else SMALL)
