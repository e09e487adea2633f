"""Two and three broadcasters on one database: clients of every make, spread over them, reach each other,
also when a broadcaster is killed and replaced. (doc/protocol/session.md, 5; doc/operations.md)
"""

import pytest

from conftest import PATIENCE, wait_until
from peers import CPeer, PythonPeer, SessionPeer, closing, wait_for

KINDS = ["sqlite", "postgres", "rqlite"]


def spread(cluster, peers):
    """Twelve clients: each way to a broadcaster is there, and each broadcaster has several."""
    members = cluster.members

    def at(n):
        return members[n % len(members)]

    for n, kind in enumerate(("ws", "http", "ws", "http")):
        peers.append(PythonPeer(kind, at(n), f"python-{kind}-{n}"))
    for n, transport in enumerate(("http", "ws", "tcp", "tcp", "http", "ws")):
        peers.append(CPeer([cluster.url(at(n), transport)], f"c-{transport}-{n}"))
    peers.append(SessionPeer(at(2).address, "raw-websocket"))
    peers.append(SessionPeer(cluster.tcp_address(at(1)), "raw-tcp", "tcp"))


def own(peer):
    return b"own/" + peer.name.encode()


def subscribe_all(cluster, peers):
    """Each to its own topic, and to those of all; the client that does not wait for its confirmation asks
    for its own last."""
    for peer in peers:
        peer.exact(b"all")
        peer.glob(b"any/*")
        peer.exact(own(peer))
    http = sum("http" in peer.name for peer in peers)
    sessions = len(peers) - http
    rows = 3 * http + sessions + 2 * len({id(m) for m in cluster.members})
    wait_until(lambda: len(cluster.rows()) == rows, f"{rows} rows")


@pytest.mark.parametrize("kind, members", [("sqlite", 2), ("sqlite", 3), ("postgres", 3), ("rqlite", 3)])
def test_everybody_reaches_everybody(make_cluster, kind, members):
    """Each message once, whatever the broadcasters of the two ends; every count is right."""
    cluster = make_cluster(kind)
    for _ in range(members):
        cluster.start()
    with closing([]) as peers:
        spread(cluster, peers)
        subscribe_all(cluster, peers)
        expected = {peer.name: [] for peer in peers}
        for peer in peers:
            for topic in (b"all", b"any/thing"):
                assert peer.notify(topic, own(peer)) == len(peers), peer.name
                for other in peers:
                    expected[other.name].append((topic, own(peer)))
            assert peer.notify(b"nobody", b"x") == 0
        for number, peer in enumerate(peers):
            sender = peers[(number + 5) % len(peers)]
            assert sender.notify(own(peer), b"you") == 1, (sender.name, peer.name)
            expected[peer.name].append((own(peer), b"you"))
        for peer in peers:
            assert sorted(wait_for(peer, len(expected[peer.name]))) == sorted(expected[peer.name])
    wait_until(lambda: cluster.rows() == [], "the end of all rows")


@pytest.mark.parametrize("kind", KINDS)
def test_a_broadcaster_killed_and_replaced(make_cluster, kind):
    """Its clients go to the others, their messages go on; what it left behind goes when it is back."""
    cluster = make_cluster(kind, missed__sweep_missed_interval="200ms")
    first, second, third = (cluster.start() for _ in range(3))
    with closing([]) as peers:
        order = [first, second, third]
        peers.append(PythonPeer("ws", first, "python-ws", others=[second, third]))
        peers.append(PythonPeer("http", first, "python-http", others=[second, third]))
        for transport in ("ws", "tcp", "http"):
            peers.append(CPeer([cluster.url(m, transport) for m in order], f"c-{transport}"))
        stays = SessionPeer(third.address, "stays")
        peers.append(stays)
        for peer in peers:
            peer.exact(b"all")
            peer.exact(own(peer))
        wait_until(lambda: cluster.rows_of(first) == 4, "the rows of the first")
        assert stays.notify(b"all", b"before") == len(peers)
        first.kill()
        # Those that were there come back elsewhere; until then they are not counted.
        wait_until(lambda: all(stays.notify(own(p), b"again") == 1 for p in peers), "all to come back",
                   2 * PATIENCE)
        assert cluster.rows_of(first) == 4, "nobody has said that they are of no use"
        assert stays.notify(b"all", b"without it") == len(peers)
        first = cluster.restart(first)
        wait_until(lambda: cluster.rows_of(first) == 0, "the end of what the dead one left")
        newcomer = SessionPeer(first.address, "newcomer")
        peers.append(newcomer)
        newcomer.exact(b"all")
        assert newcomer.notify(b"all", b"with the new one") == len(peers)
        for peer in peers[:-1]:
            wait_until(lambda: (b"all", b"with the new one") in peer.received, peer.name)
            bodies = [body for topic, body in peer.received if topic == b"all"]
            assert bodies == [b"before", b"without it", b"with the new one"], peer.name
        assert wait_for(newcomer, 1) == [(b"all", b"with the new one")]
