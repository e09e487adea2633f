"""The machine runs out of something: disk for bodies, disk for the database, descriptors. What cannot be
done is refused, nothing is lost, and it heals by itself.
"""

import hashlib
import os
import re
import resource
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import bodies
import subscriber as scripted
from bodies import NOTIFY
from conftest import OF_USER, PATIENCE, SANITIZED, setup_folder, wait_until
from wire import Wire, check, chunked, head, message, notify, post, subscribe

def resize(broadcaster, folder, size):
    subprocess.run(["nsenter", "--target", str(broadcaster.pid), *OF_USER, "--mount",
                    "mount", "-o", f"remount,size={size}", "none", str(folder)],
                   check=True, capture_output=True, timeout=PATIENCE)


def test_no_room_for_a_body(start_broadcaster, subscriber, small_disk):
    """507, nothing delivered; smaller ones pass, and so does the next."""
    wrapper, folder = small_disk
    broadcaster = start_broadcaster(wrapper=wrapper("512k"), broadcaster__spool_dir=folder,
                                    limits__message_body_spool_size=65536)
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    for _ in range(2):
        too_long = bodies.notify("t", bytes(900000))
        reply = post(broadcaster, NOTIFY, too_long)
        assert (reply.status, reply.body) == (507, b"")
        with Wire(broadcaster) as wire:
            wire.send(head("POST", NOTIFY, [("Transfer-Encoding", "chunked")])
                      + chunked(too_long, [30000]))
            assert wire.reply().status == 507
        keys = [(b"%06d" % i, "r" * 50) for i in range(14000)]
        reply = post(broadcaster, bodies.SET, bodies.set_subscriptions("u", keys))
        assert reply.status == 507
        assert subscriber.seen() == []
    for size in (0, 60000, 300000, 400000):
        assert notify(broadcaster, "t", bytes(size)) == 1
    assert [len(c.receive.message) for c in subscriber.seen()] == [0, 60000, 300000, 400000]


def test_files_that_may_not_grow(start_broadcaster, subscriber):
    """A limit of the size of files (ulimit -f) is like a full disk. By default it ends a process."""
    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    broadcaster = start_broadcaster(popen={"preexec_fn": small}, limits__message_body_spool_size=65536)
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    for _ in range(2):
        assert post(broadcaster, NOTIFY, bodies.notify("t", bytes(3 << 20))).status == 507
    assert notify(broadcaster, "t", bytes(1 << 19)) == 1
    statuses = []
    while 503 not in statuses:
        topic = b"%04d" % len(statuses) + bytes(20000)
        statuses.append(post(broadcaster, bodies.SUBSCRIBE["exact"],
                             bodies.subscribe(subscriber.url(), topic)).status)
    assert set(statuses) == {200, 503}
    assert [len(c.receive.message) for c in subscriber.seen()] == [1 << 19]


@pytest.mark.parametrize("path", [NOTIFY, bodies.SET])
def test_no_room_is_told_early(start_broadcaster, small_disk, path):
    """507 while most of the body is still to come."""
    wrapper, folder = small_disk
    broadcaster = start_broadcaster(wrapper=wrapper("512k"), broadcaster__spool_dir=folder,
                                    limits__message_body_spool_size=65536)
    if path == NOTIFY:
        body = bodies.notify("t", bytes(20000000))
    else:
        body = bodies.set_subscriptions("u", [(b"%06d" % i, "r" * 190) for i in range(100000)])
    with Wire(broadcaster) as wire:
        wire.send(head("POST", path, [("Content-Length", str(len(body)))]) + body[:2000000])
        assert wire.reply().status == 507


def test_memory_of_many_uploads(start_broadcaster, subscriber):
    """What waits for the disk is bounded, however many send at once; all that is taken arrives."""
    broadcaster = start_broadcaster(limits__max_body_memory="4M",
                                    limits__message_body_spool_size=65536)
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    body = bodies.notify("t", os.urandom(700000))
    request = head("POST", NOTIFY, [("Content-Length", str(len(body)))]) + body
    wires = [Wire(broadcaster) for _ in range(200)]
    for at in range(0, len(request), 60000):
        for wire in wires:
            wire.send(request[at:at + 60000])
    statuses = [wire.reply().status for wire in wires]
    for wire in wires:
        wire.close()
    assert statuses.count(200) > 0 and set(statuses) <= {200, 503}
    assert {c.receive.message for c in subscriber.seen()} == {body[-700000:]}
    assert len(subscriber.seen()) == statuses.count(200)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{broadcaster.pid}/status").read_text())
    if not SANITIZED:
        assert int(peak[1]) * 1024 < 60 << 20


def test_what_follows_the_lists_takes_no_room(start_broadcaster, small_disk):
    """SET ignores bytes after its lists, so they are not spooled either."""
    wrapper, folder = small_disk
    broadcaster = start_broadcaster(wrapper=wrapper("512k"), broadcaster__spool_dir=folder,
                                    limits__message_body_spool_size=65536)
    lists = ([(b"%04d" % i, "") for i in range(1000)], [("g/*", "http://127.0.0.1:9/r"), ("h", "")])
    for sizes in ([1], [7, 1000], [60000]):
        body = bodies.set_subscriptions("http://127.0.0.1:9/u", *lists)
        with Wire(broadcaster) as wire:
            wire.send(head("POST", bodies.SET, [("Transfer-Encoding", "chunked")])
                      + chunked(body, sizes)[:-len(b"0\r\n\r\n")] + chunked(bytes(5000000), [60000]))
            assert wire.reply().status == 200
        assert check(broadcaster, "http://127.0.0.1:9/u") == bodies.etag("http://127.0.0.1:9/u", *lists)


def test_memory_of_unfinished_requests(start_broadcaster):
    """Fields that are not complete count as bodies do: 503 beyond limits.max_body_memory."""
    broadcaster = start_broadcaster(limits__max_body_memory="1M",
                                    limits__message_body_spool_size=100000)
    body = bodies.subscribe("http://127.0.0.1:9/", bytes(60000))
    waiting = []
    for _ in range(40):
        wire = Wire(broadcaster)
        waiting.append(wire)
        wire.send(head("POST", bodies.SUBSCRIBE["exact"], [("Content-Length", str(len(body)))])
                  + body[:-1])
    statuses = []
    for wire in waiting:
        wire.send(body[-1:])
        statuses.append(wire.reply().status)
        wire.close()
    assert 503 in statuses
    assert set(statuses) <= {200, 409, 503}
    assert post(broadcaster, bodies.SUBSCRIBE["exact"], body).status in (200, 409)


def test_no_room_in_the_database(start_broadcaster, subscriber, small_disk):
    """503; what was confirmed stays and is served; with room again writes succeed."""
    wrapper, folder = small_disk
    broadcaster = start_broadcaster(wrapper=wrapper("1500k"), database__path=folder / "small.db")
    confirmed = []
    for i in range(500):
        reply = post(broadcaster, bodies.SUBSCRIBE["exact"],
                     bodies.subscribe(subscriber.url(), b"%04d" % i + bytes(20000)))
        if reply.status != 200:
            break
        confirmed.append(b"%04d" % i + bytes(20000))
    assert (reply.status, "retry-after" in reply.headers) == (503, True)
    assert confirmed
    for topic in (confirmed[0], confirmed[-1]):
        assert notify(broadcaster, topic) == 1
    refused = b"%04d" % len(confirmed) + bytes(20000)
    assert notify(broadcaster, refused) == 0
    resize(broadcaster, folder, "50m")
    subscribe(broadcaster, "exact", subscriber.url(), refused)
    for topic in (confirmed[0], confirmed[-1], refused):
        assert notify(broadcaster, topic) == 1


def test_few_descriptors(start_broadcaster, start_subscriber):
    """More peers and deliveries than there are descriptors: some fail or wait, and all is well after."""
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))

    broadcaster = start_broadcaster(popen={"preexec_fn": few},
                                    webhook__outgoing_http_timeout_sock_connect=2,
                                    limits__message_body_spool_size=65536)
    leave = threading.Event()
    server = start_subscriber(scripted.after(leave))
    for i in range(100):
        subscribe(broadcaster, "exact", server.url(f"/{i}"), "t")
    wires = []
    try:
        with Wire(broadcaster) as publisher:
            publisher.send(message(NOTIFY, bodies.notify("t", bytes(100000))))
            server.wait_for(1)
            for _ in range(100):
                wires.append(Wire(broadcaster))
                wires[-1].send(message(bodies.CHECK, bodies.check("u")))
            leave.set()
            assert 1 <= bodies.parse_notified(publisher.reply().body).count <= 100
    finally:
        leave.set()
        for wire in wires:
            wire.close()
    wait_until(lambda: notify(broadcaster, "t", bytes(100000)) == 100, "everybody to be reached")
    assert {hashlib.sha512(c.receive.message).digest() for c in server.seen()} == {
        hashlib.sha512(bytes(100000)).digest()}


def test_spool_folder_that_is_shared(start_broadcaster, tmp_path):
    """A spool folder that is in use by another broadcaster is no trouble."""
    folder = setup_folder(tmp_path / "b")
    both = [start_broadcaster(folder, limits__message_body_spool_size=65536) for _ in range(2)]
    for broadcaster in both * 2:
        assert notify(broadcaster, "t", bytes(200000)) == 0
    assert list((folder / "spool").iterdir()) == []


def test_more_spool_files_than_descriptors(start_broadcaster):
    """503: come again. What is under way ends well."""
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    broadcaster = start_broadcaster(popen={"preexec_fn": few}, limits__message_body_spool_size=65536)
    body = bodies.notify("t", bytes(600000))
    wires = []
    try:
        for _ in range(100):  # as many as are accepted
            wires.append(Wire(broadcaster))
            wires[-1].send(message(NOTIFY, body)[:-1])
        wait_until(lambda: len(broadcaster.descriptors()) >= 200, "the last descriptor")
        statuses = []
        for wire in wires:
            wire.send(body[-1:])
            statuses.append(wire.reply().status)
    finally:
        for wire in wires:
            wire.close()
    assert set(statuses) == {200, 503}
    assert notify(broadcaster, "t", bytes(600000)) == 0


def test_connections_leave_descriptors_to_deliveries(start_broadcaster, start_subscriber):
    """However many peers come, what the outgoing connections may need is left to them."""
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (700, 700))

    broadcaster = start_broadcaster(popen={"preexec_fn": few}, webhook__max_in_flight=20,
                                    webhook__max_per_origin=20, compression__allow_training="no")
    assert any(line.endswith(" max_connections_capped descriptors=700 connections=384")
               for line in broadcaster.err), broadcaster.err
    leave = threading.Event()
    server = start_subscriber(scripted.after(leave))
    for i in range(20):
        subscribe(broadcaster, "exact", server.url(f"/{i}"), "t")
    wires = []
    try:
        wires = [Wire(broadcaster) for _ in range(650)]
        wires[0].send(message(NOTIFY, bodies.notify("t", b"")))
        server.wait_for(20)
        leave.set()
        assert bodies.parse_notified(wires[0].reply().body).count == 20
    finally:
        leave.set()
        for wire in wires:
            wire.close()


# ---- Spool files that fail ----

FAILED = (500, b"Internal Server Error", "text/plain; charset=utf-8")


def test_spool_folder_that_is_gone(start_broadcaster, subscriber):
    """500, nothing delivered, nothing set; all is well when it is back."""
    broadcaster = start_broadcaster(limits__message_body_spool_size=65536)
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    spool = broadcaster.folder / "spool"
    elsewhere = spool.rename(broadcaster.folder / "elsewhere")
    lists = bodies.set_subscriptions(subscriber.url(), [b"%06d" % i for i in range(10000)])
    for path, body in ((NOTIFY, bodies.notify("t", bytes(100000))), (bodies.SET, lists)):
        reply = post(broadcaster, path, body)
        assert (reply.status, reply.body, reply.content_type) == FAILED
    assert notify(broadcaster, "t") == 1
    elsewhere.rename(spool)
    assert notify(broadcaster, "t", bytes(100000)) == 1
    assert [len(c.receive.message) for c in subscriber.seen()] == [5, 100000]


def spool_files(broadcaster):
    """Paths that lead to the unlinked files."""
    return [fd for fd in Path(f"/proc/{broadcaster.pid}/fd").iterdir()
            if "/spool/" in os.readlink(fd)]


def test_spool_file_that_cannot_be_read(start_broadcaster):
    """500, and nothing is set. All of the lists is in the file before the request ends."""
    broadcaster = start_broadcaster(limits__message_body_spool_size=65536)
    url = "http://192.0.2.1:3002/v1/receive"
    body = bodies.set_subscriptions(url, [b"%06d" % i for i in range(6600)])
    lists_len = 6600 * 10 + 4
    prefix, lists = body[:-lists_len], body[-lists_len:]
    with Wire(broadcaster) as wire:
        wire.send(head("POST", bodies.SET, [("Transfer-Encoding", "chunked")]))
        for piece in (prefix, lists[:65536], lists[65536:]):
            wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        path, = wait_until(lambda: [f for f in spool_files(broadcaster)
                                    if f.stat().st_size == lists_len], "the whole file")
        with path.open("r+b") as file:
            file.truncate(1000)
        wire.send(b"0\r\n\r\n")
        reply = wire.reply()
        assert (reply.status, reply.body, reply.content_type) == FAILED
    assert check(broadcaster, url) == bodies.etag(url, [], [])
    assert post(broadcaster, bodies.SET, body).status == 200


def test_spool_file_that_left_the_page_cache(start_broadcaster):
    """What the disk has to give first is delivered all the same."""
    broadcaster = start_broadcaster(limits__message_body_spool_size=65536)
    content = os.urandom(1 << 20) * 24  # more than sockets hold
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        subscribe(broadcaster, "exact", f"http://127.0.0.1:{listener.getsockname()[1]}/r", "t")
        notified = pool.submit(notify, broadcaster, "t", content)
        listener.settimeout(PATIENCE)
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            length, line = None, None
            while line != b"\r\n":
                line = stream.readline()
                if line.lower().startswith(b"content-length:"):
                    length = int(line[15:])
            path, = spool_files(broadcaster)
            with path.open("r+b") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            receive = bodies.parse_receive(stream.read(length))
            assert receive.message == content
            reply = bodies.confirm_receive(receive.identifier, 1)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply) + reply)
            assert notified.result(PATIENCE) == 1
