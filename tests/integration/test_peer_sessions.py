"""Broadcasters as each other's peers, on one SQLite file: ours among themselves, and ours beside the reference.
(doc/protocol/session.md, 5)
"""

import contextlib
import signal
import sqlite3
from pathlib import Path

import pytest

import bodies
import subscriber as scripted
from cluster import EXACTS, GLOBS
from conftest import PATIENCE, setup_folder, wait_until
from peers import CPeer, PythonPeer, SessionPeer, closing, wait_for
from stateful_client import UNSUBSCRIBE_GLOB, WebsocketClient
from test_peer_broadcasters import Reference
from wire import notify, post, subscribe

RECEIVE, MISSED = "/v1/receive_for_websockets", "/v1/missed_for_websockets"
NEVER = {"missed__sweep_missed_interval": "1h"}
OFTEN = {"missed__sweep_missed_interval": "100ms"}


@pytest.fixture
def two(make_cluster):
    """two(**settings): a cluster with two members, and an open session at each of them."""
    with contextlib.ExitStack() as stack:

        def start(**settings):
            cluster = make_cluster("sqlite", **settings)
            peers = stack.enter_context(closing([]))
            for name in ("first", "second"):
                peers.append(SessionPeer(cluster.start().address, name))
            return cluster, *peers

        yield start


# ---- Ours beside the reference ----


@pytest.fixture
def mixed(make_cluster):
    """A cluster of one of ours and the reference on its file."""
    cluster = make_cluster("sqlite", **NEVER)
    ours = cluster.start()
    reference = Reference(ours.folder)
    reference.address = reference.url.removeprefix("http://")
    reference.folder = ours.folder
    yield cluster, ours, reference
    reference.stop()


def test_both_directions_with_the_reference(mixed):
    """Clients of both makes at both broadcasters, over all that both offer. Exact topics only: with Debian's
    SQLite a glob never matches at the reference."""
    cluster, ours, reference = mixed
    with closing([]) as peers:
        for member, name in ((ours, "ours"), (reference, "theirs")):
            peers.append(PythonPeer("ws", member, f"python-ws-{name}"))
            peers.append(PythonPeer("http", member, f"python-http-{name}"))
            for transport in ("ws", "http"):
                peers.append(CPeer([f"{transport}://{member.address}"], f"c-{transport}-{name}"))
        peers.append(CPeer([cluster.url(ours, "tcp")], "c-tcp"))
        peers.append(SessionPeer(ours.address, "raw"))
        for peer in peers:
            peer.exact(b"all")
            peer.exact(b"own/" + peer.name.encode())
        http = sum("http" in peer.name for peer in peers)
        rows = len(peers) + http + 2
        wait_until(lambda: len(cluster.rows()) == rows, f"{rows} rows")
        for peer in peers:
            assert peer.notify(b"all", peer.name.encode()) == len(peers), peer.name
        for number, peer in enumerate(peers):
            sender = peers[(number + 5) % len(peers)]
            assert sender.notify(b"own/" + peer.name.encode(), b"you") == 1, (sender.name, peer.name)
        expected = sorted([(b"all", p.name.encode()) for p in peers])
        for peer in peers:
            mine = (b"own/" + peer.name.encode(), b"you")
            assert sorted(wait_for(peer, len(peers) + 1)) == sorted([*expected, mine]), peer.name


def test_a_glob_at_the_reference_is_matched_by_ours(mixed):
    """Several rows of it match: it is posted to once, so its client has one copy."""
    cluster, ours, reference = mixed
    with closing([SessionPeer(reference.address, "theirs"), SessionPeer(ours.address, "ours")]) as peers:
        peers[0].exact(b"foo/a")
        peers[0].glob(b"foo/*")
        peers[0].glob(b"f*a")
        wait_until(lambda: len(cluster.rows()) == 3, "its rows")
        for body in (b"one", b"two"):
            assert peers[1].notify(b"foo/a", body) == 1
        assert wait_for(peers[0], 2) == [(b"foo/a", b"one"), (b"foo/a", b"two")]


def test_what_the_reference_deletes_comes_back(mixed):
    """It removes our row when it is told so; somebody who wants the topic has a row all the same."""
    cluster, ours, reference = mixed
    with closing([SessionPeer(ours.address, "ours")]) as peers:
        subscribe(ours, "exact", ours.url + RECEIVE, b"foo")  # of nobody
        assert notify(reference, b"foo") == 0
        assert cluster.rows() == []
        peers[0].exact(b"foo")
        assert notify(reference, b"foo", b"after") == 1
        assert wait_for(peers[0], 1) == [(b"foo", b"after")]


# ---- Ours among themselves ----


def test_one_post_a_peer(two, start_subscriber):
    """However many subscriptions match, and in however many sessions."""
    cluster, first, second = two(**NEVER)
    stranger = start_subscriber()
    with closing([SessionPeer(cluster.members[1].address, "third")]) as more:
        for peer in (first, second, *more):
            for key in (b"f*", b"*oo", b"f[aeo]o"):
                peer.glob(key)
        second.exact(b"foo")
        for key in ("f*", "*o"):
            subscribe(cluster.members[0], "glob", stranger.url(RECEIVE), key)
        for number, peer in enumerate((first, second)):
            assert peer.notify(b"foo", b"%d" % number) == 4
        for peer in (first, second, *more):
            assert wait_for(peer, 2) == [(b"foo", b"0"), (b"foo", b"1")]
        assert len(stranger.seen()) == 2


def test_deleted_rows_come_back(two):
    """Whoever deleted them, while anybody wants them; and only then."""
    cluster, first, second = two(**OFTEN)
    second.exact(b"foo")
    second.glob(b"b?r")
    second.exact(b"left")
    second.drop_exact(b"left")
    for _ in range(3):
        cluster.place.query(f"DELETE FROM {EXACTS}")
        cluster.place.query(f"DELETE FROM {GLOBS}")
        wait_until(lambda: len(cluster.rows()) == 2, "the rows to come back")
        assert first.notify(b"foo", b"") == 1
        assert first.notify(b"bar", b"") == 1
        assert first.notify(b"left", b"") == 0
    second.change(UNSUBSCRIBE_GLOB, b"b?r")
    assert first.notify(b"bar", b"") == 0
    assert len(cluster.rows()) == 1
    assert len(wait_for(second, 6)) == 6


def test_another_of_ours_is_not_told_to_unsubscribe(two):
    """It is told that nobody was reached; the row goes by the sweep of whose it is, so that no session that
    comes meanwhile loses it. Others are told."""
    cluster, first, second = two(**NEVER)
    owner = cluster.members[1]
    cluster.place.query(f"INSERT INTO {EXACTS} (url, exact) VALUES ('{owner.url}{RECEIVE}', CAST('foo' AS BLOB))")
    assert first.notify(b"foo", b"x") == 0
    assert cluster.rows() == [owner.url + RECEIVE]
    second.exact(b"foo")
    assert first.notify(b"foo", b"x") == 1
    message = bodies.b16("") + bodies.b16("bar") + bodies.b8("id") + bytes(8)
    headers = {"Repr-Digest": bodies.repr_digest(b""), "Host": owner.address}
    for agent, status, body in (("Python/3.11 aiohttp/3.10", 400, bodies.UNSUBSCRIBE_IMMEDIATE),
                                ("lonelypss/1.0", 200, bodies.confirm_receive("id", 0))):
        reply = post(owner, RECEIVE, message, {**headers, "User-Agent": agent})
        assert (reply.status, reply.body) == (status, body)


def test_the_last_leaves_while_another_comes(two):
    """Rows that come and go all the time: who was confirmed is reached by the next notify."""
    cluster, first, second = two(**NEVER)
    with closing([SessionPeer(cluster.members[1].address, "third")]) as more:
        turns = [second, more[0]]
        turns[0].exact(b"foo")
        for i in range(150):
            turns[(i + 1) % 2].exact(b"foo")
            turns[i % 2].drop_exact(b"foo")
            assert first.notify(b"foo", b"%d" % i) == 1
            if i % 3 == 0:
                turns[(i + 1) % 2].drop_exact(b"foo")
                assert first.notify(b"foo", b"nobody") == 0
                turns[(i + 1) % 2].exact(b"foo")
        got = sorted(int(body) for peer in turns for _topic, body in wait_for(peer, 75))
        assert got == list(range(150))


def stops(program):
    """None of its threads runs any more."""
    stats = [stat.read_text() for stat in Path(f"/proc/{program.pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


@pytest.mark.parametrize("sweeps", ["the other", "itself"])
def test_missed_while_a_peer_hangs(make_cluster, sweeps):
    """Its sessions are told once it goes on, whoever finds that out; only those who want the topic."""
    cluster = make_cluster("sqlite", missed__expo_factor=0, missed__constant=0.1, missed__jitter=0)
    first = cluster.start(**(OFTEN if sweeps == "the other" else NEVER),
                          webhook__outgoing_http_timeout_total="1s")
    second = cluster.start(**(OFTEN if sweeps == "itself" else NEVER))
    with closing([SessionPeer(first.address, "notifier"), SessionPeer(second.address, "exact"),
                  SessionPeer(second.address, "glob"), SessionPeer(second.address, "other")]) as peers:
        notifier, exact, glob, other = peers
        exact.exact(b"foo")
        glob.glob(b"fo*")
        other.exact(b"bar")
        second.signal(signal.SIGSTOP)
        try:
            wait_until(lambda: stops(second), "a standstill")
            assert notifier.notify(b"foo", b"while it hangs") == 0
        finally:
            second.signal(signal.SIGCONT)
        for peer in (exact, glob):
            wait_until(lambda: b"foo" in peer.missed, f"MISSED at {peer.name}")
        assert notifier.notify(b"bar", b"x") == 1
        assert wait_for(other, 1) == [(b"bar", b"x")] and other.missed == []
        wait_until(lambda: cluster.place.query(
            f"SELECT count(*) FROM {EXACTS} WHERE missed_next_retry_at IS NOT NULL") == [(0,)], "the end of it")
        assert len(cluster.rows()) == 3, "the rows stay"


def test_rows_of_a_killed_one(make_cluster):
    """They stay while it is away, and go when it is back: those that nobody wants any more."""
    cluster = make_cluster("sqlite", **OFTEN)
    first, second = cluster.start(), cluster.start()
    with closing([SessionPeer(first.address, "first"), SessionPeer(second.address, "second")]) as peers:
        peers[0].exact(b"stays")
        peers[1].exact(b"goes")
        peers[1].glob(b"goes*")
        second.kill()
        assert peers[0].notify(b"goes", b"x") == 0
        assert cluster.rows_of(second) == 2
        second = cluster.restart(second)
        wait_until(lambda: cluster.rows_of(second) == 0, "the rows of the dead to go")
        assert cluster.rows_of(first) == 1


def test_rows_of_a_stopped_one(two):
    """An orderly end removes its own rows at once, and no others."""
    cluster, first, second = two(**NEVER)
    for peer in (first, second):
        peer.exact(b"foo")
        peer.glob(b"*")
    subscribe(cluster.members[0], "exact", "http://192.0.2.0:3002/v1/receive", b"foo")
    assert cluster.members[1].stop() == 0
    assert cluster.rows_of(cluster.members[1]) == 0
    assert cluster.rows_of(cluster.members[0]) == 2
    assert len(cluster.rows()) == 3
    assert second.ended.wait(PATIENCE)


def test_all_addresses_with_a_name(make_cluster, start_broadcaster):
    """From 0.0.0.0 no name can be derived: with one given, peers use just that."""
    cluster = make_cluster("sqlite", **NEVER)
    first = cluster.start()
    # A name needs its port: taken from a broadcaster that has ended.
    second = cluster.start()
    port = second.port
    second.stop()
    second = start_broadcaster(cluster.folder, listen=f"0.0.0.0:{port}", **{
        **NEVER, "broadcaster__receiver_url": f"http://localhost:{port}{RECEIVE}"})
    with closing([SessionPeer(first.address, "first"),
                  SessionPeer(f"127.0.0.1:{second.port}", "second")]) as peers:
        for peer in peers:
            peer.exact(b"foo")
        assert sorted(cluster.rows()) == sorted([first.url + RECEIVE, f"http://localhost:{port}{RECEIVE}"])
        for peer in peers:
            assert peer.notify(b"foo", b"x") == 2
        for peer in peers:
            assert len(wait_for(peer, 2)) == 2


def test_all_addresses_without_a_name(start_broadcaster):
    """No session is taken that would not be reached by others."""
    broadcaster = start_broadcaster(listen="0.0.0.0:0")
    with WebsocketClient(f"127.0.0.1:{broadcaster.port}") as client:
        assert client.status == 503


@pytest.mark.parametrize("scheme", ["token", "hmac"])
def test_signed_among_peers(make_cluster, start_broadcaster, tmp_path, scheme):
    """Posts between broadcasters carry what the other one asks for."""
    folder = setup_folder(tmp_path / "signed", to_broadcaster=scheme, to_subscriber=scheme)
    members = [start_broadcaster(folder) for _ in range(2)]
    with closing([]) as peers:
        for number, member in enumerate(members):
            peers.append(PythonPeer("ws", member, f"python{number}"))
            peers.append(CPeer([f"ws://{member.address}"], f"c{number}",
                               f"secrets={folder / 'subscriber-secrets.json'}"))
        for peer in peers:
            peer.exact(b"all")
            peer.exact(b"own/" + peer.name.encode())
        with contextlib.closing(sqlite3.connect(folder / "subscriptions.db")) as db:
            wait_until(lambda: db.execute(f"SELECT count(*) FROM {EXACTS}").fetchone() == (6,), "rows")
        for peer in peers:
            assert peer.notify(b"all", peer.name.encode()) == 4
        for peer in peers:
            assert sorted(body for _topic, body in wait_for(peer, 4)) == [b"c0", b"c1", b"python0", b"python1"]


def test_a_peer_that_answers_nonsense(make_cluster, start_subscriber):
    """Counts nothing, is told MISSED, and keeps its rows."""
    cluster = make_cluster("sqlite", missed__sweep_missed_interval="100ms", missed__expo_factor=0,
                           missed__constant=0, missed__jitter=0)
    member = cluster.start()
    stranger = start_subscriber()
    url = stranger.add(RECEIVE, scripted.replies(b"nonsense"))
    stranger.on(MISSED, scripted.confirms_missed)
    subscribe(member, "exact", url, b"foo", stranger.url(MISSED))
    assert notify(member, b"foo") == 0
    assert stranger.wait_for(1, MISSED)[0].missed.topic == b"foo"
    assert len(cluster.rows()) == 1
