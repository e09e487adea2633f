"""A subscriber whose behaviour is scripted, for each target; also an HTTP proxy, as far as the
broadcaster can tell: then targets are whole URLs.

A behaviour is a function of a Call. Those that wait end when the broadcaster leaves or the server stops.
"""

import contextlib
import socket
import threading
import time
from collections import Counter

import bodies
from conftest import wait_until


class Call:
    """One request, and the means to answer it."""

    def __init__(self, server, connection, method, target, headers, body):
        self.server, self.connection = server, connection
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.at = time.monotonic()
        self.running = True

    @property
    def receive(self):
        return bodies.parse_receive(self.body)

    @property
    def missed(self):
        return bodies.parse_missed(self.body)

    def send(self, data):
        self.connection.sendall(data)

    def reply(self, body, status=200, headers=()):
        self.server.finish(self)
        lines = [f"HTTP/1.1 {status} Scripted", f"Content-Length: {len(body)}", *headers]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode() + body)

    def confirm(self, count=1, **kwargs):
        self.reply(bodies.confirm_receive(self.receive.identifier, count), **kwargs)

    def close(self):
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def wait_for_the_end(self):
        """Until the other side closes."""
        while self.connection.recv(1024):
            pass


# ---- Behaviours ----


def good(call):
    call.confirm()


def confirms(count):
    return lambda call: call.confirm(count)


def replies(body, status=200, headers=()):
    return lambda call: call.reply(body, status, headers)


def sends(data):
    """Raw bytes, then the end."""

    def behave(call):
        call.send(data)
        call.close()

    return behave


unsubscribes = replies(bodies.UNSUBSCRIBE_IMMEDIATE)


def confirms_missed(call):
    call.reply(bodies.confirm_missed())


def hangs(call):
    call.wait_for_the_end()


def closes(call):
    call.close()


def short(call):
    call.reply(bodies.confirm_receive(call.receive.identifier)[:-1])


def cut_body(call):
    """Announces more than it sends."""
    body = bodies.confirm_receive(call.receive.identifier)
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body) + 1, body))
    call.close()


def drips_head(call):
    """A byte of an endless head now and then, until the other side has had enough."""
    call.send(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while not call.server.stopping.wait(0.05):
        call.send(b"x")


def after(event, behaviour=good):
    """Waits for a threading.Event first."""

    def behave(call):
        while not (event.wait(0.05) or call.server.stopping.is_set()):
            pass
        behaviour(call)

    return behave


# ---- The server ----


class Subscriber:
    def __init__(self, default=good, address=("127.0.0.1", 0)):
        """`address` is a socket's, of IPv4 or IPv6."""
        self.default = default
        self.behaviours = {}  # target -> behaviour
        self.calls = []
        self.peers = []  # of the connections so far
        self.active, self.most_active = Counter(), Counter()  # target, and None for all -> calls
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.connections = set()
        self.threads = []
        self.listener = socket.create_server(
            address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET, backlog=1024)
        self.port = self.listener.getsockname()[1]
        self._start(self._accept)

    def url(self, path="/r"):
        return f"http://127.0.0.1:{self.port}{path}"

    def on(self, target, behaviour):
        self.behaviours[target] = behaviour

    def add(self, path, behaviour):
        """Scripts a path and returns its URL."""
        self.on(path, behaviour)
        return self.url(path)

    def seen(self, target=None):
        """The calls so far, to one target or to all."""
        with self.lock:
            return [c for c in self.calls if target in (None, c.target)]

    def wait_for(self, count, target=None):
        return wait_until(lambda: (s := self.seen(target))[count - 1:] and s,
                          f"{count} calls to {target or 'the subscriber'}")

    def stop(self):
        self.stopping.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while not self.stopping.is_set():
            try:
                connection, peer = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.peers.append(peer)
                self.connections.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection):
        try:
            with connection.makefile("rb") as file:
                while not self.stopping.is_set() and (call := self._read(connection, file)):
                    self._answer(call)
        except OSError:
            pass  # the broadcaster has left, or stop() has
        finally:
            with self.lock:
                self.connections.discard(connection)
            connection.close()

    def _read(self, connection, file):
        line = file.readline().decode("latin-1").split()
        if len(line) != 3:
            return None
        headers = []
        while (header := file.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode("latin-1").partition(":")
            headers.append((name.lower(), value.strip()))
        length = int(dict(headers).get("content-length", 0))
        if ("expect", "100-continue") in headers:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = file.read(length)
        if len(body) < length:
            return None
        return Call(self, connection, line[0], line[1], headers, body)

    def _answer(self, call):
        with self.lock:
            self.calls.append(call)
            for key in (None, call.target):
                self.active[key] += 1
                self.most_active[key] = max(self.most_active[key], self.active[key])
        try:
            self.behaviours.get(call.target, self.default)(call)
        finally:
            self.finish(call)

    def finish(self, call):
        """Counts it as over: before the last byte goes out, since the next call may follow at once."""
        with self.lock:
            for key in (None, call.target) if call.running else ():
                self.active[key] -= 1
            call.running = False


class DeadPort:
    """An address where connections are refused, and that stays so."""

    def __init__(self):
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))  # bound, never listening
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/r"

    def close(self):
        self.socket.close()
