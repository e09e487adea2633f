"""HTTPS: broadcaster.tls_listen and [tls], with certificates made by the openssl command."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bodies import GENERIC, NOTIFY, OCTETS, SUBSCRIBE, notify, parse_notified, subscribe
from conftest import LONELYPSS, PATIENCE, setup_folder, wait_until

HERE = Path(__file__).resolve().parent


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=PATIENCE)


class Authority:
    """A certificate authority of one folder."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.cert, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", self.key, "-out", self.cert, "-subj", f"/CN={name}", "-days", "2",
                "-addext", "basicConstraints=critical,CA:TRUE")

    def issue(self, name, subject_alt_name="IP:127.0.0.1", to=None, key_type=("ec",)):
        """(certificate, key), signed by this authority; `to` names files to replace."""
        base = to or self.folder / name
        cert, key = base.with_suffix(".crt"), base.with_suffix(".key")
        request, extensions = base.with_suffix(".csr"), base.with_suffix(".ext")
        curve = ["-pkeyopt", "ec_paramgen_curve:P-256"] if key_type == ("ec",) else []
        openssl("req", "-new", "-newkey", *key_type, *curve, "-nodes", "-keyout", key, "-out",
                request, "-subj", f"/CN={name}")
        extensions.write_text(f"subjectAltName={subject_alt_name}\n")
        openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key,
                "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", cert)
        return cert, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def server_files(authority):
    return authority.issue("server")


@pytest.fixture
def start_https(start_broadcaster, server_files):
    """start(...) as start_broadcaster, with a TLS listener; its port is .https_port."""

    def start(*args, certificate=None, **settings):
        cert, key = certificate or server_files
        program = start_broadcaster(*args, broadcaster__tls_listen="127.0.0.1:0",
                                    tls__certificate=cert, tls__key=key, **settings)
        program.https_port = wait_until(lambda: https_port(program), "the https line")
        return program

    return start


def https_port(program):
    for line in list(program.out):
        found = re.fullmatch(r"ready https 127\.0\.0\.1:(\d+)", line)
        if found:
            return int(found.group(1))
    return None


def context(authority, client=None):
    made = ssl.create_default_context(cafile=str(authority.cert))
    if client:
        made.load_cert_chain(*client)
    return made


def connection(program, authority, client=None):
    return http.client.HTTPSConnection("127.0.0.1", program.https_port, timeout=PATIENCE,
                                       context=context(authority, client))


def post(conn, path, body):
    conn.request("POST", path, body, {"Content-Type": OCTETS})
    response = conn.getresponse()
    return response.status, response.read()


def subject_of(conn):
    """The common name of the certificate that the server has shown."""
    if conn.sock is None:
        conn.connect()
    return dict(pair[0] for pair in conn.sock.getpeercert()["subject"])["commonName"]


def refuses(program, authority, client=None):
    """Does the handshake fail, or the first use? (A TLS 1.3 client learns of it only then.)"""
    conn = connection(program, authority, client)
    try:
        post(conn, SUBSCRIBE["exact"], subscribe("http://127.0.0.1:9/", "a"))
    except (ssl.SSLError, OSError, http.client.HTTPException):
        return True
    finally:
        conn.close()
    return False


def test_requests(start_https, authority, subscriber):
    program = start_https()
    conn = connection(program, authority)
    assert post(conn, SUBSCRIBE["exact"], subscribe(subscriber.url(), "a/b")) == (200, GENERIC)
    status, body = post(conn, NOTIFY, notify("a/b", b"over tls"))
    assert status == 200 and parse_notified(body).count == 1
    first = conn.sock
    assert post(conn, NOTIFY, notify("a/c", b""))[0] == 200
    assert conn.sock is first
    assert post(conn, SUBSCRIBE["exact"], b"\x00")[0] == 400
    conn.close()
    assert program.stop() == 0


def test_rsa(start_https, authority):
    program = start_https(certificate=authority.issue("rsa", key_type=("rsa:2048",)))
    conn = connection(program, authority)
    assert post(conn, NOTIFY, notify("a", b"x"))[0] == 200
    conn.close()


def test_limit_of_connections(start_https, authority):
    """Connections of both kinds count together: the third waits until one has gone."""
    program = start_https(limits__max_connections=2)
    plain = socket.create_connection(("127.0.0.1", program.port), timeout=PATIENCE)
    conn = connection(program, authority)
    assert post(conn, NOTIFY, notify("a", b"x"))[0] == 200
    third = socket.create_connection(("127.0.0.1", program.https_port), timeout=PATIENCE)
    third.settimeout(0.3)
    with pytest.raises(TimeoutError):
        context(authority).wrap_socket(third, server_hostname="127.0.0.1")
    third.close()
    plain.close()
    other = connection(program, authority)
    assert post(other, NOTIFY, notify("a", b"x"))[0] == 200
    other.close()
    conn.close()


def test_large_body(start_https, authority):
    """40 MiB: beyond the spool size, in many records."""
    program = start_https(broadcaster__workers=2)
    conn = connection(program, authority)
    status, body = post(conn, NOTIFY, notify("nobody", os.urandom(1 << 20) * 40))
    assert status == 200 and parse_notified(body).count == 0
    conn.close()


REFERENCE = textwrap.dedent("""
    import asyncio, json, sys
    from pathlib import Path
    from types import SimpleNamespace
    sys.path.insert(0, sys.argv[1])
    from reference import next_message, notify, reading, reference_client

    async def main():
        broadcaster = SimpleNamespace(url=sys.argv[2], folder=Path(sys.argv[3]))
        async with reference_client(broadcaster) as client:
            async with client.subscribe_exact(b"foo") as subscription, \\
                    reading(subscription) as messages:
                notified = await notify(client, b"foo", b"over https")
                topic, data = await next_message(messages)
                print(json.dumps([notified, topic.decode(), data.decode()]))

    asyncio.run(main())
    """)


def run_reference(program, authority):
    """The client's own process, as it reads the authorities from the environment at import."""
    return subprocess.run(
        [sys.executable, "-c", REFERENCE, HERE, f"https://127.0.0.1:{program.https_port}",
         program.folder],
        env={**os.environ, "SSL_CERT_FILE": str(authority.cert)}, capture_output=True, text=True,
        timeout=2 * PATIENCE)


def test_reference_client(start_https, authority, stranger):
    program = start_https()
    result = run_reference(program, authority)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == [1, "foo", "over https"]


def test_client_trusts_another_authority(start_https, stranger):
    program = start_https()
    with pytest.raises(ssl.SSLCertVerificationError):
        connection(program, stranger).connect()


@pytest.mark.parametrize("mode, served", [
    ("none", {"nothing": True, "good": True, "foreign": True}),
    ("optional", {"nothing": True, "good": True, "foreign": False}),
    ("required", {"nothing": False, "good": True, "foreign": False}),
])
def test_client_certificates(start_https, authority, stranger, mode, served):
    program = start_https(tls__client_ca=authority.cert, tls__client_certificate=mode)
    shown = {"nothing": None, "good": authority.issue("client"),
             "foreign": stranger.issue("client")}
    for kind, client in shown.items():
        assert refuses(program, authority, client) != served[kind], kind


def test_old_protocols_are_refused(start_https, authority):
    program = start_https()
    for version, served in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True),
                            (ssl.TLSVersion.TLSv1_3, True)):
        made = context(authority)
        made.set_ciphers("DEFAULT:@SECLEVEL=0")
        made.minimum_version = made.maximum_version = version
        with socket.create_connection(("127.0.0.1", program.https_port), timeout=PATIENCE) as s:
            if served:
                made.wrap_socket(s, server_hostname="127.0.0.1").close()
            else:
                with pytest.raises((ssl.SSLError, OSError)):
                    made.wrap_socket(s, server_hostname="127.0.0.1")


def test_http_on_the_tls_port(start_https):
    program = start_https()
    conn = http.client.HTTPConnection("127.0.0.1", program.https_port, timeout=PATIENCE)
    with pytest.raises((http.client.HTTPException, OSError)):
        conn.request("GET", "/")
        conn.getresponse()
    conn.close()


def test_silent_handshake_is_closed(start_https):
    program = start_https(http__header_timeout="300ms")
    with socket.create_connection(("127.0.0.1", program.https_port), timeout=PATIENCE) as s:
        assert s.recv(1) == b""


def lines_with(program, event):
    return [line for line in list(program.err) if event in line]


def test_reload(start_https, authority, tmp_path):
    """SIGHUP: new connections see the new certificate, an old one goes on; bad files change
    nothing."""
    base = tmp_path / "own"
    certificate = authority.issue("first", to=base)
    program = start_https(certificate=certificate)
    old = connection(program, authority)
    assert subject_of(old) == "first"
    authority.issue("second", to=base)
    program.signal(signal.SIGHUP)
    wait_until(lambda: lines_with(program, "reloaded"), "the reload")
    fresh = connection(program, authority)
    assert subject_of(fresh) == "second"
    assert post(old, NOTIFY, notify("a", b"x"))[0] == 200
    assert subject_of(old) == "first"

    certificate[0].write_text("nonsense")
    program.signal(signal.SIGHUP)
    [line] = wait_until(lambda: lines_with(program, "reload_failed"), "the refusal")
    assert str(certificate[0]) in line
    (program.folder / "lonelypss.ini").write_text("[broken]\n")
    program.signal(signal.SIGHUP)
    wait_until(lambda: len(lines_with(program, "reload_failed")) == 2, "the second refusal")
    for conn in (connection(program, authority), old, fresh):
        assert post(conn, NOTIFY, notify("a", b"x"))[0] == 200
        conn.close()
    newest = connection(program, authority)
    assert subject_of(newest) == "second"
    newest.close()
    assert program.stop() == 0


def test_reload_of_client_authorities(start_https, authority, stranger, tmp_path):
    ca = tmp_path / "clients.pem"
    ca.write_bytes(authority.cert.read_bytes())
    program = start_https(tls__client_ca=ca, tls__client_certificate="required")
    ours, theirs = authority.issue("client"), stranger.issue("client")
    assert not refuses(program, authority, ours) and refuses(program, authority, theirs)
    ca.write_bytes(stranger.cert.read_bytes())
    program.signal(signal.SIGHUP)
    wait_until(lambda: lines_with(program, "reloaded"), "the reload")
    assert refuses(program, authority, ours) and not refuses(program, authority, theirs)


def run_lonelypss(folder, *args, **settings):
    options = []
    for key, value in settings.items():
        options += ["--set", f"{key.replace('__', '.', 1)}={value}"]
    return subprocess.run(
        [LONELYPSS, "--config", folder / "lonelypss.ini", "--listen", "127.0.0.1:0", *options,
         *args], capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("checks", [True, False])
def test_configuration_errors(tmp_path, authority, stranger, server_files, checks):
    """One line, exit 2; the key never shows."""
    folder = setup_folder(tmp_path / "x")
    cert, key = server_files
    listen = {"broadcaster__tls_listen": "127.0.0.1:0"}
    other_key = stranger.issue("other")[1]
    cases = [
        (listen, "broadcaster.tls_listen needs tls.certificate and tls.key"),
        ({**listen, "tls__certificate": cert}, "needs tls.certificate and tls.key"),
        ({**listen, "tls__certificate": cert, "tls__key": key, "tls__client_certificate":
          "required"}, "needs tls.client_ca"),
        ({**listen, "tls__certificate": folder / "none.pem", "tls__key": key},
         f"certificate: {folder}/none.pem: No such file or directory"),
        ({**listen, "tls__certificate": cert, "tls__key": cert}, f"key: {cert}: holds no"),
        ({**listen, "tls__certificate": cert, "tls__key": other_key},
         f"key: {other_key}: is not the key of the certificate"),
        ({**listen, "tls__certificate": cert, "tls__key": key, "tls__client_ca": key,
          "tls__client_certificate": "optional"}, f"client CA: {key}: holds no certificate"),
    ]
    secret = key.read_text().splitlines()[1]
    for settings, text in cases:
        result = run_lonelypss(folder, *["--check-config"] * checks, **settings)
        assert result.returncode == 2, text
        assert text in result.stderr and secret not in result.stderr
        assert len(result.stderr.splitlines()) == 1 and result.stdout == ""


def test_good_configuration(tmp_path, server_files):
    folder = setup_folder(tmp_path / "x")
    result = run_lonelypss(folder, "--check-config", broadcaster__tls_listen="127.0.0.1:0",
                           tls__certificate=server_files[0], tls__key=server_files[1])
    assert (result.returncode, result.stderr) == (0, "")
