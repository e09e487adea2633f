"""What was confirmed, and when: facts against which every answer to a notify is judged afterwards.

A subscriber's key is IN from the confirmation of a subscribe until it asks for the opposite, OUT likewise,
and anything in between. Who was IN during a whole notify must be counted and reached; who was OUT during all
of it must not. Times are time.monotonic(): taken before a request is sent, and after its answer has come.
"""

import threading
import time
from collections import Counter

IN, OUT, MAYBE = "in", "out", "maybe"


class History:
    """Of one key of one subscriber; one thread writes."""

    def __init__(self):
        self.events = [(0, OUT)]

    def note(self, state, at=None):
        self.events.append((time.monotonic() if at is None else at, state))

    def during(self, start, end):
        """The state that held all the time, else MAYBE."""
        states = set()
        for number, (at, state) in enumerate(self.events):
            following = self.events[number + 1:]
            until = following[0][0] if following else float("inf")
            if at <= end and until >= start:
                states.add(state)
        return states.pop() if len(states) == 1 else MAYBE


class Subscriber:
    """Its keys, and what has reached it: a Counter of bodies. `lasted` is False of one that ended before
    its last messages could be looked for."""

    def __init__(self, name):
        self.name = name
        self.histories = {}
        self.received = Counter()
        self.lasted = True

    def of(self, key):
        return self.histories.setdefault(key, History())

    def state(self, key):
        return self.of(key).events[-1][1]

    def died(self, proof_of_life):
        """Its connection has ended, at some time since the last request that was answered was sent; the
        answer may have lain there for a while."""
        self.lasted = False
        for history in self.histories.values():
            known = [e for e in history.events if e[0] < proof_of_life]
            if known[-1][1] != OUT or len(known) < len(history.events):
                history.events = known
                history.note(MAYBE, proof_of_life)
                history.note(OUT)


class Recorder:
    def __init__(self):
        self.lock = threading.Lock()
        self.subscribers = []
        self.notifies = []  # (key, body, start, end, count); count None: no answer told
        self.facts = Counter()

    def subscriber(self, name):
        new = Subscriber(name)
        with self.lock:
            self.subscribers.append(new)
        return new

    def notified(self, key, body, start, count):
        with self.lock:
            self.notifies.append((key, body, start, time.monotonic(), count))
            self.facts["refused" if count is None else "notified"] += 1

    def confirmed(self):
        with self.lock:
            self.facts["confirmed"] += 1

    def progress(self):
        with self.lock:
            return self.facts["notified"] + self.facts["confirmed"]

    def owed(self):
        """(subscriber, body) of all that must have been reached and can still be."""
        return [(s, body) for key, body, start, end, count in self.notifies if count is not None
                for s in self.subscribers
                if s.lasted and key in s.histories and s.histories[key].during(start, end) == IN]

    def faults(self):
        """What contradicts the facts."""
        found = []
        for key, body, start, end, count in self.notifies:
            states = {s.name: s.histories[key].during(start, end)
                      for s in self.subscribers if key in s.histories}
            tally = Counter(states.values())
            if count is not None and not tally[IN] <= count <= tally[IN] + tally[MAYBE]:
                certain = {name: state for name, state in states.items() if state != OUT}
                found.append(("count", key, body, count, certain, start, end))
            for s in self.subscribers:
                if s.received[body] > 1:
                    found.append(("twice", key, body, s.name))
                if s.received[body] and states.get(s.name, OUT) == OUT:
                    found.append(("to nobody", key, body, s.name))
        found += [("lost", body, s.name) for s, body in self.owed() if not s.received[body]]
        return found
