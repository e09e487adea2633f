"""Webhooks to a name with several addresses, of which the first that is tried is no good: the next one is.

Names are looked up in an /etc/hosts of our own, in a mount namespace.
"""

import contextlib
import os
import socket
import subprocess

import pytest

import subscriber as scripted
from conftest import BUILD, NAMESPACE, PATIENCE, in_namespace
from wire import notify, subscribe

NAME = "several.test"
ADDRESSES = ["127.0.0.1", "127.0.0.2"]


@pytest.fixture
def names(tmp_path):
    """A wrapper for start_broadcaster that knows NAME."""
    (tmp_path / "hosts").write_text("".join(f"{a} {NAME}\n" for a in ADDRESSES))
    (tmp_path / "nsswitch.conf").write_text("hosts: files\n")
    mounts = [f'mount --bind "{tmp_path / file}" /etc/{file}' for file in ("hosts", "nsswitch.conf")
              if os.path.exists(f"/etc/{file}")]
    wrapper = [*NAMESPACE, "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh"]
    found = in_namespace([*wrapper, "getent", "ahostsv4", NAME])
    assert {line.split()[0] for line in found.splitlines()} == set(ADDRESSES)
    return wrapper


@contextlib.contextmanager
def refuses(address, port):
    """Bound, never listening."""
    with socket.socket() as s:
        s.bind((address, port))
        yield s.getsockname()[1]


@contextlib.contextmanager
def drops(address, port):
    """Answers no SYN: a listener whose queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def beside(dead, address, start):
    """A dead one, and what start(port) gives: on one port, which somebody else may have at that address."""
    with contextlib.ExitStack() as stack:
        while True:
            port = stack.enter_context(dead(address, 0))
            with contextlib.suppress(OSError):
                started = start(port)
                break
            stack.close()
        yield started, port


@pytest.mark.parametrize("dead", [refuses, drops])
@pytest.mark.parametrize("good", ADDRESSES)  # in one of the cases the dead one is tried first
def test_next_address(start_broadcaster, start_subscriber, names, good, dead):
    broadcaster = start_broadcaster(wrapper=names, webhook__outgoing_http_timeout_sock_connect=0.3,
                                    webhook__outgoing_http_timeout_total=20)
    other, = set(ADDRESSES) - {good}
    with beside(dead, other, lambda port: start_subscriber(scripted.good, (good, port))) as (server, port):
        subscribe(broadcaster, "exact", f"http://{NAME}:{port}/r", "t")
        for _ in range(2):
            assert notify(broadcaster, "t", b"found") == 1
    assert [c.receive.message for c in server.seen()] == [b"found"] * 2


def test_no_address_is_good(start_broadcaster, start_subscriber, names):
    """Counted as not reached; the same name at another port is no worse for it."""
    broadcaster = start_broadcaster(wrapper=names)
    with contextlib.ExitStack() as stack:
        _, port = stack.enter_context(beside(
            refuses, ADDRESSES[1], lambda port: stack.enter_context(refuses(ADDRESSES[0], port))))
        subscribe(broadcaster, "exact", f"http://{NAME}:{port}/r", "t")
        assert notify(broadcaster, "t") == 0
        _, port = stack.enter_context(beside(
            refuses, ADDRESSES[1], lambda port: start_subscriber(scripted.good, (ADDRESSES[0], port))))
        subscribe(broadcaster, "exact", f"http://{NAME}:{port}/r", "t")
        assert notify(broadcaster, "t") == 1


def test_the_examples_try_all(start_broadcaster, names):
    """A name of the broadcaster, of whose addresses it listens on one."""
    for good in ADDRESSES:
        broadcaster = start_broadcaster(listen=f"{good}:0")
        done = subprocess.run([*names, BUILD / "examples/post_notify", f"{NAME}:{broadcaster.port}",
                               "t", "Hello"], capture_output=True, text=True, timeout=PATIENCE)
        assert done.stdout == "notified 0\n", done.stderr
        broadcaster.stop()
