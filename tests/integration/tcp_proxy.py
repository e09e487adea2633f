"""A TCP proxy that misbehaves on demand, between a broadcaster and its database."""

import contextlib
import socket
import threading

PASS, HOLE, CUT = "pass", "hole", "cut"


class Proxy:
    """Listens on loopback for a port of loopback.

    mode: PASS; HOLE: nothing goes through in either direction, and nothing is closed; CUT: connections
    are closed at once. delay: seconds that each piece waits. `lose_replies`: so many requests whose
    bytes hold `marker` are passed on, and their connections closed instead of the reply. `hold`: such
    requests wait for `release`, and go on then even when the client has left; `answered` tells that
    one of them was.
    """

    def __init__(self, port, marker=b""):
        self.port_behind = port
        self.marker = marker
        self.mode, self.delay = PASS, 0
        self.lose_replies, self.lost = 0, 0
        self.hold, self.held = False, threading.Event()
        self.release, self.answered = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.stopping = threading.Event()
        self.sockets = set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.threads = []
        self._start(self._accept)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def set_mode(self, mode):
        with self.changed:
            self.mode = mode
            self.changed.notify_all()
        if mode == CUT:
            self._close_all()

    def stop(self):
        self.stopping.set()
        self.release.set()
        with self.changed:
            self.changed.notify_all()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._close_all()
        for thread in list(self.threads):
            thread.join()

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _close_all(self):
        with self.lock:
            sockets = list(self.sockets)
        for s in sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while not self.stopping.is_set():
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.mode == CUT:
                client.close()
                continue
            self._start(self._relay, client)

    def _relay(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", self.port_behind), 5)
        except OSError:
            client.close()
            return
        for s in (client, server):
            s.settimeout(None)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.sockets |= {client, server}
        state = {"lose": False, "held": False}
        back = threading.Thread(target=self._pump, args=(server, client, state, False), daemon=True)
        back.start()
        self._pump(client, server, state, True)
        back.join()
        with self.lock:
            self.sockets -= {client, server}
        client.close()
        server.close()

    def _wait(self):
        """Until bytes may go on. False: the end."""
        with self.changed:
            while self.mode == HOLE and not self.stopping.is_set():
                self.changed.wait(1)
        if self.delay:
            self.stopping.wait(self.delay)
        return not self.stopping.is_set() and self.mode != CUT

    def _judge(self, data, state):
        """A request that is to be lost or held?"""
        with self.lock:
            if not self.marker or self.marker not in data:
                return
            if self.lose_replies > 0:
                self.lose_replies -= 1
                state["lose"] = True
            state["held"] = self.hold
        if state["held"]:
            self.held.set()
            self.release.wait(60)

    def _pump(self, source, sink, state, is_request):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_request:
                    self._judge(data, state)
                if not self._wait():
                    break
                if not is_request and state["held"]:
                    self.answered.set()
                if not is_request and state["lose"]:
                    self.lost += 1
                    break
                with contextlib.suppress(OSError) if state["held"] else contextlib.nullcontext():
                    sink.sendall(data)
        for s in (source, sink):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_WR if state["held"] and s is sink else socket.SHUT_RDWR)
