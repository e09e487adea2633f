"""Clients of every make behind one face, for tests of several broadcasters.

All have: name; exact(key) and glob(key), which return when it is confirmed (the Python client over a
websocket: when it was asked for); notify(topic, body), the count; received, a list of (topic, body) in
order; missed, a list of topics; close().
"""

import asyncio
import contextlib
import queue
import subprocess
import threading

from conftest import BUILD, PATIENCE, wait_until
from reference import reference_client
from reference import notify as reference_notify
from reference_websocket import websocket_client
from stateful_client import (CONFIRM_NOTIFY, MISSED, RECEIVE_STREAM, SUBSCRIBE_EXACT, SUBSCRIBE_GLOB,
                             UNSUBSCRIBE_EXACT, Closed, TcpClient, WebsocketClient, confirm_receive,
                             notify, subscribe)

PROGRAM = BUILD / "tests/integration/client_peer"


def hexed(data):
    return data.hex() or "-"


def unhexed(text):
    return b"" if text == "-" else bytes.fromhex(text)


class CPeer:
    """liblonelypsc, in a process of its own (client_peer.c)."""

    def __init__(self, urls, name, *options):
        self.name = name
        self.received, self.missed, self.states = [], [], []
        self.answers = queue.Queue()
        args = [f"broadcaster={url} {i + 1}" for i, url in enumerate(urls)]
        if urls[0].startswith("http"):
            args.append("bind=127.0.0.1:0")
        self.process = subprocess.Popen([PROGRAM, *args, *options], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        assert self.answers.get(timeout=PATIENCE) == ["ready"]

    def _read(self):
        for line in self.process.stdout:
            word, *rest = line.decode().split()
            if word == "message":
                self.received.append(tuple(map(unhexed, rest)))
            elif word == "missed":
                self.missed.append(unhexed(rest[0]))
            elif word == "status":
                self.states.append(rest[0])
            else:
                self.answers.put([word, *rest])

    def ask(self, *words):
        self.process.stdin.write((" ".join(words) + "\n").encode())
        self.process.stdin.flush()
        answer = self.answers.get(timeout=2 * PATIENCE)
        assert answer[0] == "ok", (self.name, words[0], answer)
        return int(answer[1])

    def exact(self, key):
        return self.ask("exact", hexed(key))

    def glob(self, key):
        return self.ask("glob", hexed(key))

    def drop(self, subscription):
        self.ask("drop", str(subscription))

    def notify(self, topic, body):
        return self.ask("notify", hexed(topic), hexed(body))

    def close(self):
        """Exit status 0: it came to a good end."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} did not end") from None
        self.thread.join(PATIENCE)
        self.process.stdout.close()
        assert code == 0, self.name


class PythonPeer:
    """A client of lonelypsc, on an event loop in a thread of its own."""

    def __init__(self, kind, broadcaster, name, others=()):
        self.name = name
        self.make = {"ws": websocket_client, "http": reference_client}[kind]
        self.broadcaster, self.others = broadcaster, others
        self.received, self.missed = [], []  # this client tells nobody of MISSED by topic
        self.ready = queue.Queue()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.thread.start()
        self.loop, self.tasks = self.ready.get(timeout=PATIENCE)

    async def _serve(self):
        """Whatever is asked for, in one task: its contexts are entered and left there."""
        tasks = asyncio.Queue()
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(self.make(self.broadcaster, others=self.others))
            self.ready.put((asyncio.get_running_loop(), tasks))
            while (task := await tasks.get()) is not None:
                action, answer = task
                try:
                    answer.put((await action(client, stack), None))
                except Exception as e:
                    answer.put((None, e))

    def _do(self, action):
        answer = queue.Queue()
        self.loop.call_soon_threadsafe(self.tasks.put_nowait, (action, answer))
        result, error = answer.get(timeout=2 * PATIENCE)
        if error:
            raise error
        return result

    @contextlib.asynccontextmanager
    async def _reading(self, subscription):
        async def read():
            async for message in await subscription.messages():
                self.received.append((message.topic, message.data.read()))

        task = asyncio.create_task(read())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _subscribe(self, **what):
        async def action(client, stack):
            subscription = await stack.enter_async_context(client.subscribe(**what))
            await stack.enter_async_context(self._reading(subscription))

        self._do(action)

    def exact(self, key):
        self._subscribe(exact=[key], glob=[])

    def glob(self, key):
        self._subscribe(exact=[], glob=[key.decode()])

    def notify(self, topic, body):
        return self._do(lambda client, _stack: reference_notify(client, topic, body))

    def close(self):
        self.loop.call_soon_threadsafe(self.tasks.put_nowait, None)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), self.name


class SessionPeer:
    """The client of stateful_client.py with a thread that reads: messages are acknowledged at once, answers
    wait for who asked. One request at a time. `ended` is set when the connection is."""

    def __init__(self, address, name, transport="websocket"):
        self.name = name
        self.received, self.missed = [], []
        self.answers = queue.Queue()
        self.ended = threading.Event()
        self.lock = threading.Lock()  # of what is sent
        self.client = (WebsocketClient if transport == "websocket" else TcpClient)(address)
        if transport == "websocket" and self.client.status != 101:
            self.client.close()
            raise Closed(self.client.status)
        try:
            self.client.configure()
        except BaseException:
            self.client.close()
            raise
        self.client.socket.settimeout(None)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        """Messages of one part: the tests' are small."""
        with contextlib.suppress(Closed, OSError):
            while True:
                frame = self.client.receive()
                if frame.type == RECEIVE_STREAM:
                    self.received.append((frame.headers[4], frame.body))
                    self._send(confirm_receive(frame.headers[2]))
                elif frame.type == MISSED:
                    self.missed.append(frame.headers[2])
                else:
                    self.answers.put(frame)
        self.ended.set()
        self.answers.put(None)

    def _send(self, data):
        with self.lock:
            self.client.send(data)

    def _ask(self, data, kind):
        self._send(data)
        try:
            frame = self.answers.get(timeout=2 * PATIENCE)
        except queue.Empty:
            raise AssertionError(f"{self.name} gets no answer") from None
        if frame is None:
            raise Closed
        assert frame.type == kind, (frame.type, kind)
        return frame

    def change(self, kind, key):
        assert self._ask(subscribe(kind, key), kind).headers[0] == key

    def exact(self, key):
        self.change(SUBSCRIBE_EXACT, key)

    def drop_exact(self, key):
        self.change(UNSUBSCRIBE_EXACT, key)

    def glob(self, key):
        self.change(SUBSCRIBE_GLOB, key)

    def notify(self, topic, body):
        return self._ask(notify(b"n", topic, body), CONFIRM_NOTIFY).number(1)

    def close(self):
        with contextlib.suppress(OSError):
            self.client.socket.shutdown(2)
        self.thread.join(PATIENCE)
        self.client.close()


@contextlib.contextmanager
def closing(peers):
    """All are closed, whatever happens; `peers` may grow meanwhile."""
    try:
        yield peers
    finally:
        with contextlib.ExitStack() as stack:
            for peer in peers:
                stack.callback(peer.close)


def wait_for(peer, count):
    """The messages so far, when they are so many."""
    wait_until(lambda: len(peer.received) >= count, f"message {count} at {peer.name}")
    return list(peer.received)
