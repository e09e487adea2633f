"""The subscriber library over TLS and through proxies: https, wss and tcps, authorities and client certificates."""

import re
import socket
import threading

import pytest

from client_library import MS, Client, Refused, zeros
from conftest import PATIENCE, setup_folder, wait_until
from test_tls import Authority

TRANSPORTS = ["https", "wss", "tcps"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture
def start(start_broadcaster, authority, tmp_path):
    """start(**settings): the URL of each transport."""
    cert, key = authority.issue("server")

    def begin(**settings):
        folder = setup_folder(tmp_path / "broadcaster", to_broadcaster="hmac", to_subscriber="hmac")
        # Receivers have a certificate of the same authority.
        program = start_broadcaster(folder, broadcaster__tls_listen="127.0.0.1:0",
                                    tcp__tls_listen="127.0.0.1:0", tls__certificate=cert,
                                    tls__key=key, webhook__ca_file=authority.cert, **settings)

        def address(kind):
            return wait_until(lambda: re.findall(rf"ready {kind} (\S+)", "\n".join(program.out)),
                              kind)[0]

        return {"https": f"https://{address('https')}", "wss": f"wss://{address('https')}",
                "tcps": f"tcps://{address('tcps')}"}

    return begin


@pytest.fixture
def client(tmp_path):
    started = []

    def begin(url, **options):
        options = {"broadcaster": url, "bind": "127.0.0.1:0", "outgoing_initial_connect_retries": 0,
                   "outgoing_retries_per_broadcaster": 1,
                   "secrets": tmp_path / "broadcaster/subscriber-secrets.json", **options}
        started.append(Client(*(f"{name}={value}" for name, value in options.items())))
        return started[-1]

    yield begin
    for c in started:
        c.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_messages_of_all_sizes(start, client, authority, transport):
    url = start()[transport]
    cert, key = authority.issue("receiver")
    mine = client(url, ca=authority.cert, receiver_cert=cert, receiver_key=key)
    publisher = client(url, ca=authority.cert, bind="none")
    subscription = mine.subscribe("exact", "t")
    for size in (0, 1, 100000, 24 << 20):
        assert publisher.notify("t", size) == 1
        assert mine.next(subscription) == zeros("t", size)
    for size in range(200):
        publisher.do("start", "t", size)
    assert sorted(mine.next(subscription)[1] for _ in range(200)) == list(range(200))


def refused(mine, transport, error):
    """The call that shows it."""
    with pytest.raises(Refused, match=error):
        mine.do("notify", "bytes", "t", 1, MS) if transport == "https" else mine.do("wait", MS)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_untrusted_broadcaster(start, client, stranger, transport):
    mine = client(start()[transport], ca=stranger.cert, bind="none")
    refused(mine, transport, "UNREACHABLE")
    assert "certificate" in mine.do("last")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_client_certificates(start, client, authority, stranger, transport):
    url = start(tls__client_ca=authority.cert, tls__client_certificate="required")[transport]
    cert, key = authority.issue("client")
    good = client(url, ca=authority.cert, bind="none", cert=cert, key=key)
    assert good.notify("t", 5) == 0
    cert, key = stranger.issue("client")
    for options in ({}, {"cert": cert, "key": key}):
        mine = client(url, ca=authority.cert, bind="none", **options)
        refused(mine, transport, "UNREACHABLE|AMBIGUOUS|FORBIDDEN")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_files_that_are_none(start, client, authority, stranger, tmp_path, transport):
    url = start()[transport]
    cert, _ = authority.issue("client")
    _, key = stranger.issue("client")
    for options in ({"ca": tmp_path / "none"}, {"ca": key}, {"cert": cert, "key": key},
                    {"cert": tmp_path / "none", "key": key}):
        with pytest.raises(Refused, match="ARGUMENT"):
            client(url, bind="none", **options)


class ConnectProxy:
    """Tunnels by CONNECT; counts."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.tunnels = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.listener.getsockname()[1]

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._tunnel, args=(connection,), daemon=True).start()

    def _tunnel(self, near):
        with near:
            head = b""
            while b"\r\n\r\n" not in head:
                head += near.recv(4096)
            host, port = re.match(rb"CONNECT (\S+):(\d+) ", head).groups()
            with socket.create_connection((host.decode(), int(port)), PATIENCE) as far:
                self.tunnels += 1
                near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=self._copy, args=(far, near), daemon=True)
                back.start()
                self._copy(near, far)
                back.join(PATIENCE)

    @staticmethod
    def _copy(source, target):
        try:
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self.listener.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_through_a_proxy(start, client, authority, transport):
    url = start()[transport]
    proxy = ConnectProxy()
    mine = client(url, ca=authority.cert, bind="none", proxy=proxy.url)
    assert mine.notify("t", 3 << 20) == 0
    assert proxy.tunnels == 1
    gone = proxy.url
    proxy.close()
    mine = client(url, ca=authority.cert, bind="none", proxy=gone)
    refused(mine, transport, "UNREACHABLE")
