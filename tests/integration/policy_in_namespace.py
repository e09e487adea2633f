"""Addresses that webhooks may not go to, on a network that has nothing but loopback.

Run by test_webhook_policy.py inside namespaces of its own (network and mounts), where loopback owns the
forbidden addresses: a listener there shows that no connection arrives, and with a rule that allows the
address, that one does. Refuses to run anywhere else, so that no packet can leave.
"""

import json
import os
import socket
import subprocess

import pytest

import bodies
import subscriber as scripted
from bodies import SUBSCRIBE
from conftest import PATIENCE, wait_until
from subscriber import Subscriber
from wire import notify, post, subscribe

METADATA, LINK_LOCAL = "169.254.169.254", "169.254.10.7"
OWNED = [f"{METADATA}/32", f"{LINK_LOCAL}/32", "fe80::1/64", f"64:ff9b::{METADATA}/128",
         f"::{METADATA}/128"]
HOSTS = f"""127.0.0.1 localhost
{METADATA} metadata.test
64:ff9b::a9fe:a9fe nat64.test
{METADATA} both.test
127.0.0.1 both.test
"""


def ip(*args):
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session", autouse=True)
def network(tmp_path_factory):
    for kind in ("net", "mnt"):
        assert os.readlink(f"/proc/self/ns/{kind}") != os.environ[f"LONELY_OUTSIDE_{kind.upper()}"]
    assert [link["ifname"] for link in json.loads(ip("-json", "link"))] == ["lo"]
    ip("link", "set", "lo", "up")
    for address in OWNED:
        ip("address", "add", address, "dev", "lo", *(["nodad"] if "::" in address else []))
    hosts = tmp_path_factory.mktemp("etc") / "hosts"
    hosts.write_text(HOSTS)
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)


@pytest.fixture
def listen():
    """listen(address): a subscriber that owns it."""
    started = []

    def start(address, port=0):
        if "::" in address:
            scope = socket.if_nametoindex("lo") if address.startswith("fe80") else 0
            address = (address, port, 0, scope)
        else:
            address = (address, port)
        started.append(Subscriber(scripted.good, address))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def connections(server):
    """How many have arrived: one of ours, which is not counted, queues behind all of them."""
    with socket.socket(server.listener.family) as ours:
        ours.settimeout(PATIENCE)
        ours.connect(server.listener.getsockname())
        port = ours.getsockname()[1]
        mine = wait_until(lambda: [p for p in list(server.peers) if p[1] == port],
                          "our own connection")
    with server.lock:
        server.peers.remove(mine[0])
        return len(server.peers)


def lines(broadcaster, event):
    return [line for line in list(broadcaster.err) if f" {event} " in line]


def wait_for_refusal(broadcaster, url, address, times=1):
    wanted = f" webhook_refused url={url} address={address}"
    wait_until(lambda: sum(wanted in line for line in list(broadcaster.err)) >= times, wanted)


def allowing(addresses):
    return {"webhook__allow": f"0.0.0.0/0 ::/0 {addresses}"}


def denying(addresses):
    return {"webhook__deny": addresses}


# The host of the URL, the address of the listener there, what opens the way, what the log shows.
REACHABLE = {
    "link-local": (LINK_LOCAL, LINK_LOCAL, allowing(f"{LINK_LOCAL}/32"), LINK_LOCAL),
    "metadata": (METADATA, METADATA, allowing(f"{METADATA}/32"), METADATA),
    "hexadecimal": ("0xa9fea9fe", METADATA, allowing(f"{METADATA}/32"), METADATA),
    "octal and percent": ("%30251.0376.43518", METADATA, allowing(f"{METADATA}/32"), METADATA),
    "unspecified": ("0.0.0.0", "127.0.0.1", allowing("0.0.0.0/9"), "0.0.0.0"),
    "unspecified, short": ("0", "127.0.0.1", allowing("0.0.0.0/9"), "0.0.0.0"),
    "unspecified, v6": ("[::]", "::1", denying("fe80::/10"), "::"),
    "link-local, v6": ("[fe80::1%25lo]", "fe80::1", allowing("fe80::/64"), "fe80::1"),
    "mapped": (f"[::ffff:{METADATA}]", METADATA, allowing(f"{METADATA}/32"), METADATA),
    "NAT64": (f"[64:ff9b::{METADATA}]", f"64:ff9b::{METADATA}", allowing(f"{METADATA}/32"),
              "64:ff9b::a9fe:a9fe"),
    "compatible": (f"[::{METADATA}]", f"::{METADATA}", allowing(f"{METADATA}/32"), f"::{METADATA}"),
    "name": ("metadata.test", METADATA, allowing(f"{METADATA}/32"), METADATA),
    "name, NAT64": ("nat64.test", f"64:ff9b::{METADATA}", allowing(f"{METADATA}/32"),
                    "64:ff9b::a9fe:a9fe"),
}


@pytest.mark.parametrize("name", REACHABLE)
def test_refused_unless_allowed(start_broadcaster, listen, name):
    """A subscription of before is judged when it is delivered to; a new one is refused at once, unless
    only a look-up shows where it leads."""
    host, owner, opening, shown = REACHABLE[name]
    server = listen(owner)
    url = f"http://{host}:{server.port}/r"
    opened = start_broadcaster(**opening)
    subscribe(opened, "exact", url, "t")
    assert notify(opened, "t") == 1
    assert connections(server) == 1
    assert not lines(opened, "webhook_refused")
    opened.stop()
    strict = start_broadcaster(opened.folder)
    assert notify(strict, "t") == 0
    wait_for_refusal(strict, url, shown)
    assert connections(server) == 1
    status = post(strict, SUBSCRIBE["exact"], bodies.subscribe(url, "new")).status
    assert status == (200 if "name" in name else 400)


@pytest.mark.parametrize("host, shown", [
    ("224.0.0.1", "224.0.0.1"), ("239.255.255.250", "239.255.255.250"),
    ("255.255.255.255", "255.255.255.255"), ("[ff02::1%25lo]", "ff02::1"),
    ("[::ffff:224.0.0.1]", "224.0.0.1"),
])
def test_nobody_can_listen_there(start_broadcaster, host, shown):
    """The kernel refuses TCP to them; that we have not even tried shows in the log."""
    url = f"http://{host}:9/r"
    opened = start_broadcaster(**denying("10.0.0.0/8"))
    subscribe(opened, "exact", url, "t")
    assert notify(opened, "t") == 0
    wait_until(lambda: lines(opened, "delivery_failed"), "a failed delivery")
    assert not lines(opened, "webhook_refused")
    opened.stop()
    strict = start_broadcaster(opened.folder)
    assert notify(strict, "t") == 0
    wait_for_refusal(strict, url, shown)
    wait_until(lambda: "address not allowed" in "".join(lines(strict, "delivery_failed")),
               "the reason")


@pytest.mark.parametrize("workers", [1, 3])
def test_each_address_of_a_name(start_broadcaster, listen, workers):
    """The one that is denied is left out, the other reached, whichever comes first."""
    first = listen(METADATA)
    second = listen("127.0.0.1", first.port)
    url = f"http://both.test:{first.port}/r"
    folder, seen = None, []
    for denied, hidden, open_one in ((METADATA, first, second), ("127.0.0.1", second, first)):
        before = connections(hidden), connections(open_one)
        broadcaster = start_broadcaster(folder, broadcaster__workers=workers,
                                        **denying(f"{denied}/32"))
        if folder is None:
            subscribe(broadcaster, "exact", url, "t")
        folder = broadcaster.folder
        assert notify(broadcaster, "t") == 1
        assert (connections(hidden), connections(open_one)) == (before[0], before[1] + 1)
        broadcaster.stop()
        seen += lines(broadcaster, "webhook_refused")
    assert any(f"url={url} " in line for line in seen)
    both = start_broadcaster(folder, **denying(f"127.0.0.1/32 {METADATA}/32"))
    before = connections(first), connections(second)
    assert notify(both, "t") == 0
    wait_for_refusal(both, url, METADATA)
    wait_for_refusal(both, url, "127.0.0.1")
    assert (connections(first), connections(second)) == before


def test_missed(start_broadcaster, listen):
    """Recovery URLs follow the same rules, at each attempt."""
    server = listen(METADATA)
    server.on("/bad", scripted.closes)
    server.on("/missed", scripted.confirms_missed)
    recovery = f"http://metadata.test:{server.port}/missed"
    at_once = {f"missed__{key}": 0 for key in ("expo_factor", "constant", "jitter")}
    at_once["missed__sweep_missed_interval"] = "50ms"
    strict = start_broadcaster(**at_once)
    subscribe(strict, "exact", f"http://localhost:{server.port}/bad", "t", recovery)
    assert notify(strict, "t") == 0
    wait_for_refusal(strict, recovery, METADATA, times=2)
    assert connections(server) == 0
    strict.stop()
    opened = start_broadcaster(strict.folder, **at_once, **allowing(f"{METADATA}/32"))
    call, = server.wait_for(1, "/missed")
    assert call.missed.topic == b"t"
    assert not lines(opened, "webhook_refused")
