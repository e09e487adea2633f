"""Where webhooks may go, and how far they are trusted: rules for URLs and addresses, TLS, redirects,
long replies, timeouts. (lonelypss.ini(5), [webhook])
"""

import os
import re
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bodies
import subscriber as scripted
from bodies import SET, SUBSCRIBE
from conftest import LONELYPSS, PATIENCE, setup_folder, wait_until
from subscriber import Subscriber
from wire import check, notify, post, subscribe, unsubscribe

KINDS = ["exact", "glob"]


def wait_for_line(broadcaster, *parts):
    """A line of the log that holds all the parts."""
    return wait_until(
        lambda: [line for line in list(broadcaster.err) if all(part in line for part in parts)],
        parts)[0]


# ---- Addresses, on a network that cannot leak ----


def test_addresses_in_a_namespace():
    """Needs root, or a kernel that lets users make namespaces; without them it fails."""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    env = {**os.environ, **{f"LONELY_OUTSIDE_{kind.upper()}": os.readlink(f"/proc/self/ns/{kind}")
                            for kind in ("net", "mnt")}}
    inside = Path(__file__).parent / "policy_in_namespace.py"
    result = subprocess.run(
        ["unshare", "--net", "--mount", *as_root, sys.executable, "-m", "pytest", "-q", "-p",
         "no:cacheprovider", inside],
        env=env, capture_output=True, text=True, timeout=20 * PATIENCE)
    assert result.returncode == 0, result.stdout[-20000:] + result.stderr[-5000:]
    assert re.search(r"^\d+ passed in ", result.stdout, re.MULTILINE), result.stdout[-500:]


# ---- What is refused when it is subscribed ----

REFUSED = [
    "ftp://127.0.0.1/", "FTP://name.test/", "file:///etc/passwd", "gopher://127.0.0.1:70/",
    "http://169.254.169.254/latest/meta-data/", "HTTPS://169.254.169.254", "http://2852039166/",
    "http://0xa9fea9fe/", "http://0251.0376.0251.0376/", "http://169.16689662/",
    "http://169.254.169.254./", "http://%31%36%39.254.169.254/", "http://x:y@169.254.169.254:80/",
    "http://10.0.0.1\\@169.254.169.254/", "http:///169.254.169.254/", "http://0/", "http://0.0.0.0/",
    "http://224.0.0.1/", "http://255.255.255.255/", "http://[::]/", "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/", "http://[ff02::1]/", "http://[::ffff:169.254.169.254]/",
    "http://[64:ff9b::a9fe:a9fe]/", "http://[::169.254.169.254]/", "http://169.254.169.254/a b",
]
STORED = [
    "", "x", "http://", "mailto:x@name.test", "http://169.254.169.254 /", "http://[::1", "http:x",
    "http://name.test/", "http://169.254.169.254.name.test/", "http://127.0.0.1/#169.254.169.254",
    "http://169.254.169.254@127.0.0.1/", "http://2130706433/", "https://[::1]/",
]


def rows(broadcaster):
    return sum(broadcaster.query(f"SELECT count(*) FROM httppubsub_subscription_{kind}s")[0][0]
               for kind in KINDS)


def test_refused_urls(broadcaster):
    """In each place of each request that would store them; nothing is stored."""
    for url in REFUSED:
        for kind in KINDS:
            for body in (bodies.subscribe(url, "t"), bodies.subscribe("x", "t", url)):
                reply = post(broadcaster, SUBSCRIBE[kind], body)
                assert (reply.status, reply.body) == (400, b""), url
        for body in (bodies.set_subscriptions(url, ["a"]),
                     bodies.set_subscriptions(url, [], ["a"]),
                     bodies.set_subscriptions("x", ["a", ("b", url)], ["a"]),
                     bodies.set_subscriptions("x", ["a"], ["a", ("b", url)])):
            assert post(broadcaster, SET, body).status == 400, url
    assert rows(broadcaster) == 0
    wait_for_line(broadcaster, " subscribe_refused ", "url=ftp://127.0.0.1/",
                  'reason="neither http nor https"')


def test_the_log_says_which_address_was_refused(broadcaster):
    post(broadcaster, SUBSCRIBE["exact"], bodies.subscribe("http://0xa9fea9fe/", "t"))
    wait_for_line(broadcaster, " subscribe_refused ", "url=http://0xa9fea9fe/",
                  'reason="address not allowed"')


def test_stored_urls(broadcaster):
    for i, url in enumerate(STORED):
        subscribe(broadcaster, "exact", url, "t", url)
        assert post(broadcaster, SET, bodies.set_subscriptions(url, [("u", url)])).status == 200, url
    assert rows(broadcaster) == len(STORED)


def test_what_rules_refuse_later_can_be_removed(start_broadcaster):
    url = "http://10.1.2.3/"
    first = start_broadcaster()
    for kind in KINDS:
        subscribe(first, kind, url, "t")
    first.stop()
    second = start_broadcaster(first.folder, webhook__deny="10.0.0.0/8")
    assert post(second, SET, bodies.set_subscriptions(url, ["u"])).status == 400
    assert check(second, url) == bodies.etag(url, ["t"], ["t"])
    unsubscribe(second, "exact", url, "t")
    assert post(second, SET, bodies.set_subscriptions(url)).status == 200
    assert rows(second) == 0


@pytest.mark.parametrize("line, error", [
    ("deny = 10.1.0.0/8", "10.1.0.0/8: bits are set behind the prefix"),
    ("allow = 10.0.0.0", "10.0.0.0: expected ADDRESS/BITS such as 10.0.0.0/8 or fd00::/8"),
])
def test_wrong_rules(tmp_path, line, error):
    folder = setup_folder(tmp_path / "broadcaster")
    (folder / "lonelypss.ini").write_text(f"[webhook]\n\n{line}\n")
    result = subprocess.run([LONELYPSS, "--config", folder / "lonelypss.ini"], capture_output=True,
                            text=True, timeout=PATIENCE)
    assert result.returncode == 2
    assert re.search(r"lonelypss\.ini:3: webhook\..*" + re.escape(error), result.stderr)


# ---- With a proxy ----


def test_proxy(start_broadcaster, subscriber):
    """Its own address is not judged, nor are the names that it looks up; addresses in URLs are."""
    settings = {"webhook__proxy": subscriber.url("")}
    first = start_broadcaster(**settings)
    for url in ("http://name.test/r", "http://10.1.2.3/r", "http://[2001:db8::1]/r"):
        subscribe(first, "exact", url, "t")
    assert notify(first, "t") == 3
    first.stop()
    subscriber.calls.clear()
    second = start_broadcaster(first.folder, **settings,
                               webhook__deny="127.0.0.0/8 10.0.0.0/8 2001:db8::/32")
    assert notify(second, "t") == 1
    assert [call.target for call in subscriber.seen()] == ["http://name.test/r"]
    wait_for_line(second, " webhook_refused ", "url=http://10.1.2.3/r", "address=10.1.2.3")
    assert post(second, SUBSCRIBE["exact"], bodies.subscribe("http://10.1.2.3/", "t")).status == 400


# ---- TLS ----


class TlsSubscriber(Subscriber):
    def __init__(self, certificate, key):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        super().__init__()

    def _serve(self, connection):
        try:
            secured = self.context.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()
            return
        with self.lock:
            self.connections.discard(connection)
            self.connections.add(secured)
        super()._serve(secured)


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=PATIENCE)


def make_authority(folder, name):
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={name}", "-days", 2, "-keyout", key, "-out", certificate)
    return key, certificate


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A folder with ours.pem, other.pem, and server.pem for 127.0.0.1, signed by the former."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = make_authority(folder, "ours")
    make_authority(folder, "other")
    (folder / "server.ext").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
            "/CN=server", "-keyout", folder / "server.key", "-out", folder / "server.csr")
    openssl("x509", "-req", "-in", folder / "server.csr", "-CA", certificate, "-CAkey", key,
            "-CAcreateserial", "-days", 2, "-extfile", folder / "server.ext", "-out",
            folder / "server.pem")
    return folder


@pytest.fixture
def tls_subscriber(authority):
    server = TlsSubscriber(authority / "server.pem", authority / "server.key")
    yield server
    server.stop()


@pytest.mark.parametrize("ca_file, host, count", [
    ("ours.pem", "127.0.0.1", 1),
    ("ours.pem", "localhost", 0),  # the certificate is not for that name
    ("other.pem", "127.0.0.1", 0),
    (None, "127.0.0.1", 0),
])
def test_certificates(start_broadcaster, authority, tls_subscriber, ca_file, host, count):
    settings = {"webhook__ca_file": authority / ca_file} if ca_file else {}
    broadcaster = start_broadcaster(**settings)
    subscribe(broadcaster, "exact", f"https://{host}:{tls_subscriber.port}/r", "t")
    assert notify(broadcaster, "t") == count
    assert len(tls_subscriber.seen()) == count
    if count == 0:
        wait_for_line(broadcaster, " delivery_failed ", "certificate")


# ---- Redirects and long replies ----


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(broadcaster, start_subscriber, status):
    elsewhere = start_subscriber()
    here = start_subscriber(
        scripted.replies(b"", status, [f"Location: {elsewhere.url('/r')}"]))
    subscribe(broadcaster, "exact", here.url(), "t")
    assert notify(broadcaster, "t") == 0
    assert (len(here.seen()), len(elsewhere.peers)) == (1, 0)


def confirmation(call, size):
    """Bytes behind a confirmation are ignored."""
    return bodies.confirm_receive(call.receive.identifier).ljust(size, b"\0")


def counted(size):
    return lambda call: call.reply(confirmation(call, size))


def in_chunks(size):
    def behave(call):
        body = confirmation(call, size)
        call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                  + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    return behave


def until_the_end(size):
    def behave(call):
        call.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + confirmation(call, size))
        call.close()

    return behave


@pytest.mark.parametrize("way", [counted, in_chunks, until_the_end])
def test_long_replies_fail(start_broadcaster, subscriber, way):
    broadcaster = start_broadcaster(webhook__max_reply_bytes=1000)
    subscribe(broadcaster, "exact", subscriber.add("/short", way(1000)), "short")
    subscribe(broadcaster, "exact", subscriber.add("/long", way(1001)), "long")
    assert (notify(broadcaster, "short"), notify(broadcaster, "long")) == (1, 0)
    line = wait_for_line(broadcaster, " delivery_failed ", "/long")
    assert re.search("too long|[Mm]aximum file size", line), line


def test_endless_reply_is_cut_off(start_broadcaster, subscriber):
    """The subscriber sees the connection end."""
    broadcaster = start_broadcaster(webhook__max_reply_bytes="64K",
                                    webhook__outgoing_http_timeout_total="none")
    sent = []

    def endless(call):
        call.send(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                call.send(bytes(65536))
                sent.append(65536)
        except OSError:
            sent.append(None)

    subscribe(broadcaster, "exact", subscriber.add("/r", endless), "t")
    assert notify(broadcaster, "t") == 0
    wait_until(lambda: sent[-1:] == [None], "the end of the connection")


# ---- Timeouts: each alone, the others away or long ----

ALONE = {"total": "none", "connect": "none", "sock_connect": "none", "sock_read": "none"}


def timeouts(**given):
    return {f"webhook__outgoing_http_timeout_{key}": value for key, value in {**ALONE, **given}.items()}


def notify_in_vain(broadcaster, least):
    started = time.monotonic()
    assert notify(broadcaster, "t") == 0
    assert time.monotonic() - started >= least


@pytest.mark.parametrize("behaviour", [scripted.hangs, scripted.drips_head])
def test_timeout_total(start_broadcaster, subscriber, behaviour):
    """Dripping does not help."""
    broadcaster = start_broadcaster(**timeouts(total="400ms"))
    subscribe(broadcaster, "exact", subscriber.add("/r", behaviour), "t")
    notify_in_vain(broadcaster, 0.4)
    assert len(subscriber.wait_for(1)) == 1
    wait_for_line(broadcaster, " delivery_failed ", "timed out")


def test_timeout_sock_read(start_broadcaster, subscriber):
    broadcaster = start_broadcaster(**timeouts(sock_read="400ms"))
    subscribe(broadcaster, "exact", subscriber.add("/r", scripted.hangs), "t")
    notify_in_vain(broadcaster, 0.4)
    assert len(subscriber.wait_for(1)) == 1
    wait_for_line(broadcaster, " delivery_failed ", "no byte received or sent for 400 ms")


@pytest.fixture
def deaf_port():
    """A port that drops who wants to connect: its queue is full and never emptied."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(64):
        waiting.append(socket.socket())
        waiting[-1].settimeout(0.3)
        try:
            waiting[-1].connect(listener.getsockname())
        except TimeoutError:
            break
    else:
        pytest.fail("the queue of connections does not fill")
    yield listener.getsockname()[1]
    for s in (*waiting, listener):
        s.close()


@pytest.mark.parametrize("which, reason", [
    ("sock_connect", "no connection within 400 ms"), ("connect", "after"),
])
def test_timeouts_to_connect(start_broadcaster, deaf_port, which, reason):
    broadcaster = start_broadcaster(**timeouts(**{which: "400ms"}))
    subscribe(broadcaster, "exact", f"http://127.0.0.1:{deaf_port}/r", "t")
    notify_in_vain(broadcaster, 0.4)
    wait_for_line(broadcaster, " delivery_failed ", reason)


def test_timeouts_to_connect_end_with_the_connection(start_broadcaster, subscriber):
    """A subscriber may take longer to answer than to connect."""
    broadcaster = start_broadcaster(**timeouts(connect="200ms", sock_connect="200ms"))

    def slow(call):
        call.server.stopping.wait(0.5)
        call.confirm()

    subscribe(broadcaster, "exact", subscriber.add("/r", slow), "t")
    assert notify(broadcaster, "t") == 1
