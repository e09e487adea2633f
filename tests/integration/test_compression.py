"""Compressed sessions of the daemon: with the reference client, with liblonelypsc, and with frames of our own."""

import asyncio
import hashlib
import itertools
import os
import random
import struct

import pytest
import zstandard

from conftest import LONELYPSS, PATIENCE, SANITIZED, Program, setup_folder, wait_until
from peers import CPeer, closing, wait_for
from reference import next_message, notify, reading, run
from reference_websocket import wait_for_rows, websocket_client
from stateful_client import (CONFIGURE, CONFIRM_CONFIGURE, CONFIRM_NOTIFY, NOTIFY, NOTIFY_STREAM,
                             RECEIVE_STREAM, WebsocketClient, confirm_receive, continue_receive, frame,
                             integer)
from test_admin import Admin

ENABLE_PRESET = 9
SMALL_WATERMARKS = {"compression__compression_training_low_watermark": "10K",
                    "compression__compression_training_high_watermark": "20K",
                    "compression__compression_retrain_interval_seconds": 0}


def sample(number):
    """A message like others, but not equal to them."""
    r = random.Random(number)
    return (b'{"event": "purchase", "user": %d, "host": "web-%03d.example.internal", "items": [%d, %d],'
            b' "currency": "EUR", "total": %d.00}' % (r.randrange(10**6), r.randrange(1000),
                                                      r.randrange(10**9), r.randrange(10**9),
                                                      r.randrange(10**5)))


@pytest.fixture
def start(start_broadcaster, tmp_path):
    """start(scheme, **settings): a broadcaster, and its metrics."""

    def begin(scheme="none", **settings):
        broadcaster = start_broadcaster(
            setup_folder(tmp_path / "broadcaster", to_broadcaster=scheme, to_subscriber=scheme),
            broadcaster__admin_listen="127.0.0.1:0", **settings)
        return broadcaster, Admin(broadcaster)

    return begin


@pytest.fixture
def dictionary(tmp_path):
    """A file with one that was trained for such messages."""
    path = tmp_path / "messages.dict"
    path.write_bytes(zstandard.train_dictionary(
        8192, [sample(i) for i in range(2000)]).as_bytes())
    return path


def compressed(admin, direction):
    return admin.metrics()[f'session_compressed_messages_total{{direction="{direction}"}}']


def trained(admin):
    return admin.metrics()['session_dictionaries_total{outcome="trained"}']


# ---- The reference client ----

@pytest.mark.parametrize("scheme", ["none", "hmac"])
def test_the_reference_client_is_sent_dictionaries(start, scheme):
    """Its own decoder reads what is made with them, and it uses them for what it sends."""
    broadcaster, admin = start(scheme, **SMALL_WATERMARKS)
    options = {"allow_compression": True, "allow_training_compression": True}

    async def scenario():
        async with websocket_client(broadcaster, **options) as subscriber, \
                websocket_client(broadcaster, **options) as publisher:
            async with subscriber.subscribe_exact(b"t") as subscription, \
                    reading(subscription) as messages:
                await wait_for_rows(broadcaster, 1)
                # Dictionaries are built beside the messages: slow programs need more of these.
                for i in itertools.count():
                    if i >= 600 and trained(admin) >= 6:  # three each: the third after a DISABLE
                        break
                    assert i < 6000, "no third dictionary for each"
                    assert await notify(publisher, b"t", sample(i)) == 1
                    assert await next_message(messages) == (b"t", sample(i))
                    if i < 600 and i % 100 == 0:
                        big = sample(i) * 200
                        assert await notify(publisher, b"t", big) == 1
                        assert await next_message(messages) == (b"t", big)

    run(scenario())
    assert compressed(admin, "in") > 300
    assert compressed(admin, "out") > 300
    assert admin.metrics()['sessions_opened_total{transport="websocket"}'] == 2  # none was lost


@pytest.mark.parametrize("scheme", ["none", "hmac"])
def test_the_reference_client_with_a_preset(start, scheme, dictionary):
    broadcaster, admin = start(scheme, compression__dictionary=f"2 5 {dictionary}")
    options = {"allow_compression": True, "initial_compression_dict_id": 2,
               "compression_dictionary_by_id":
                   {2: (zstandard.ZstdCompressionDict(dictionary.read_bytes()), 5)}}

    async def scenario():
        async with websocket_client(broadcaster, **options) as subscriber, \
                websocket_client(broadcaster, **options) as publisher:
            async with subscriber.subscribe_exact(b"t") as subscription, \
                    reading(subscription) as messages:
                await wait_for_rows(broadcaster, 1)
                for body in (b"", b"x", sample(1), sample(2) * 1000, sample(3) * 20000):
                    assert await notify(publisher, b"t", body) == 1
                    assert await next_message(messages) == (b"t", body)

    run(scenario())
    assert compressed(admin, "in") == 3
    assert compressed(admin, "out") == 3
    assert admin.metrics()['sessions_opened_total{transport="websocket"}'] == 2


# ---- liblonelypsc ----

@pytest.mark.parametrize("scheme", ["none", "hmac"])
@pytest.mark.parametrize("transport", ["ws", "tcp"])
def test_our_client_with_all_kinds(start, transport, scheme, dictionary):
    """A preset for one end, trained dictionaries for the other, and nothing for a third; all that is
    confirmed to them is checked."""
    broadcaster, admin = start(scheme, tcp__listen="127.0.0.1:0", broadcaster__workers=2,
                               compression__dictionary=f"300 19 {dictionary}", **SMALL_WATERMARKS)
    found = wait_until(lambda: [line.split()[2] for line in broadcaster.out
                                if line.startswith("ready tcp ")], "the TCP listener")
    url = f"tcp://{found[0]}" if transport == "tcp" else broadcaster.url.replace("http", "ws", 1)
    with closing([]) as peers:
        for options in (["allow_training_compression=yes"],
                        [f"dictionary=300 19 {dictionary}", "initial_compression_dict_id=300",
                         "allow_training_compression=no"],
                        ["allow_compression=no"]):
            peers.append(CPeer([url], str(options), "check_confirmations=yes",
                               f"secrets={broadcaster.folder / 'subscriber-secrets.json'}", *options))
            peers[-1].exact(b"t")
        sent = []
        for i in range(900):
            body = sample(i) * (300 if i % 100 == 99 else 1)
            sent.append((b"t", body))
            assert peers[i % 3].notify(b"t", body) == 3
        for peer in peers:
            assert wait_for(peer, len(sent)) == sent
    assert trained(admin) >= 3
    assert compressed(admin, "in") > 400
    assert compressed(admin, "out") > 1000
    assert admin.metrics()['sessions_opened_total{transport="%s"}' % (
        "tcp" if transport == "tcp" else "websocket")] == 3


# ---- Frames of our own ----

def connect(broadcaster, initial_dict=0):
    client = WebsocketClient(broadcaster.address)
    client.send(frame(CONFIGURE, os.urandom(32), b"\1", b"\0", struct.pack(">H", initial_dict), b"", b""))
    client.receive(CONFIRM_CONFIGURE)
    assert client.receive(ENABLE_PRESET).number(0) == 1
    return client


def packed_notify(packed, size, compressor=1):
    return frame(NOTIFY, b"", b"", b"n", b"t", integer(compressor), integer(len(packed)), integer(size),
                 hashlib.sha512(packed).digest(), body=packed)


def packed_message(client):
    """The next message, acknowledged: compressor, body as it came, announced length."""
    first = answer = client.receive(RECEIVE_STREAM)
    total, body = first.number(6), bytearray(first.body)
    while len(body) < total:
        client.send(continue_receive(first.headers[2], answer.part))
        answer = client.receive(RECEIVE_STREAM)
        body += answer.body
    assert hashlib.sha512(body).digest() == first.headers[8]
    client.send(confirm_receive(first.headers[2]))
    return first.number(5), bytes(body), first.number(7)


def unpack(packed, size):
    return zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)


@pytest.mark.parametrize("size", [20000, 300000])
def test_a_message_is_compressed_once_for_all(start, size):
    broadcaster, admin = start()
    body = (sample(1) * 3000)[:size]
    subscribers = [connect(broadcaster) for _ in range(10)]
    with connect(broadcaster) as publisher, WebsocketClient(broadcaster.address) as simple:
        simple.configure()
        for subscriber in (*subscribers, simple):
            subscriber.subscribe(b"t")
        assert publisher.notify(b"t", body) == 11
        forms = {packed_message(subscriber) for subscriber in subscribers}
        assert simple.message() == (b"t", body)
    (compressor, packed, announced), = forms
    assert (compressor, announced) == (1, size)
    assert unpack(packed, size) == body
    assert compressed(admin, "out") == 1
    for subscriber in subscribers:
        subscriber.close()


def test_300_megabytes_compressed(start):
    """Both ways, in little memory."""
    size = (30 if SANITIZED else 300) << 20
    broadcaster, _ = start()
    block = os.urandom(1 << 19) + bytes(1 << 19)
    packer = zstandard.ZstdCompressor(level=1).compressobj(size=size)
    plain_hash, packed = hashlib.sha512(), bytearray()
    for i in range(size >> 20):
        piece = i.to_bytes(8, "big") + random.Random(i).randbytes(1 << 18) + block[: (3 << 18) - 8]
        plain_hash.update(piece)
        packed += packer.compress(piece)
    packed += packer.flush()
    with connect(broadcaster) as publisher, connect(broadcaster) as subscriber:
        subscriber.subscribe(b"t")
        digest, step = hashlib.sha512(packed).digest(), 4 << 20
        for part, at in enumerate(range(0, len(packed), step)):
            head = [b"t", b"\1", integer(len(packed)), integer(size), digest] if part == 0 else []
            publisher.send(frame(NOTIFY_STREAM, b"", b"", b"n", integer(part, b"\0"), *head,
                                 body=packed[at:at + step]))
            if at + step < len(packed):
                publisher.receive()
        assert publisher.receive(CONFIRM_NOTIFY).number(1) == 1
        compressor, received, announced = packed_message(subscriber)
    assert (compressor, announced) == (1, size)
    received_hash = hashlib.sha512()
    for piece in zstandard.ZstdDecompressor().read_to_iter(received):
        received_hash.update(piece)
    assert received_hash.digest() == plain_hash.digest()
    peak = [line for line in open(f"/proc/{broadcaster.pid}/status") if line.startswith("VmHWM")]
    assert SANITIZED or int(peak[0].split()[1]) < 64 << 10, peak


@pytest.mark.parametrize("packed, size, code", [
    (zstandard.compress(bytes(1 << 28)), 1000, 1002),  # a bomb
    (zstandard.compress(bytes(1 << 28)), 1 << 20, 1002),
    (zstandard.compress(b"x" * 1000), 1 << 50, 1002),
    (zstandard.compress(b"x" * 1000) + b"rest", 1000, 1002),
], ids=["bomb", "large bomb", "lie", "rest"])
def test_what_is_no_message_ends_the_session(start, packed, size, code):
    broadcaster, _ = start()
    with connect(broadcaster) as client:
        client.send(packed_notify(packed, size))
        assert client.ended() == code
    assert not [link for link in broadcaster.descriptors() if "/spool/" in link]
    with connect(broadcaster) as client:
        assert client.notify(b"t", b"still there") == 0


def test_the_end_while_messages_are_compressed(start):
    """SIGTERM finishes what was taken."""
    broadcaster, _ = start()
    body = zstandard.compress(os.urandom(8 << 20))
    with connect(broadcaster) as client:
        client.send(packed_notify(body, 8 << 20))
        client.send(frame(NOTIFY, b"", b"", b"m", b"t", b"\0", b"\1", b"\1",
                          hashlib.sha512(b"x").digest(), body=b"x"))
        assert client.receive(CONFIRM_NOTIFY).headers[0] == b"n"
        broadcaster.stop()
        client.ended()
    assert broadcaster.process.returncode == 0


# ---- Dictionaries in the configuration ----

@pytest.mark.parametrize("content, why", [
    (None, "No such file or directory"),
    (b"", "shorter than 8 bytes"),
    (b"1234567", "shorter than 8 bytes"),
    (b"\x37\xa4\x30\xec" + b"no entropy tables" * 100, "not a dictionary of Zstandard"),
    (bytes((8 << 20) + 1), "longer than 8M"),
], ids=["absent", "empty", "short", "broken", "long"])
def test_dictionaries_that_cannot_be_used(tmp_path, content, why):
    folder = setup_folder(tmp_path / "broadcaster")
    if content is not None:
        (folder / "a.dict").write_bytes(content)
    with open(folder / "lonelypss.ini", "a") as ini:
        ini.write("\n[compression]\ndictionary = 7 3 a.dict\n")
    for args in (["--check-config"], []):
        program = Program([LONELYPSS, "--config", folder / "lonelypss.ini", *args])
        assert program.wait() == 2
        assert program.err == [f"lonelypss: compression.dictionary 7: {folder}/a.dict: {why}"]


def test_check_config_reads_dictionaries(tmp_path, dictionary):
    folder = setup_folder(tmp_path / "broadcaster")
    program = Program([LONELYPSS, "--config", folder / "lonelypss.ini", "--check-config",
                       "--set", f"compression.dictionary=7 3 {dictionary}"])
    assert program.wait() == 0, program.err
