"""The judge of test_cluster_load.py finds what it is there to find."""

import pytest

from recorder import IN, MAYBE, OUT, History, Recorder


@pytest.mark.parametrize("start, end, state", [
    (1, 9, OUT), (1, 10, MAYBE), (9, 12, MAYBE), (11, 12, MAYBE), (20, 21, MAYBE), (21, 29, IN), (25, 31, MAYBE),
    (31, 99, MAYBE), (41, 99, OUT)])
def test_history(start, end, state):
    history = History()
    for at, new in ((10, MAYBE), (20, IN), (30, MAYBE), (40, OUT)):
        history.note(new, at)
    assert history.during(start, end) == state


def judged(count, received, dies_at=None, late=False):
    """The faults of one notify, from 5 to 6, with one subscriber since 1 and one that never was."""
    recorder = Recorder()
    here, there = recorder.subscriber("here"), recorder.subscriber("there")
    here.of(b"k").note(IN, 1)
    there.of(b"k")
    if dies_at:
        here.died(dies_at)
    recorder.notifies.append((b"k", b"body", 5, 6, count))
    here.received[b"body"] = received
    there.received[b"body"] = int(late)
    return {fault[0] for fault in recorder.faults()}


def test_faults():
    assert judged(1, 1) == set()
    assert judged(0, 1) == {"count"}
    assert judged(2, 1) == {"count"}
    assert judged(1, 0) == {"lost"}
    assert judged(1, 2) == {"twice"}
    assert judged(None, 0) == judged(None, 1) == set()
    assert judged(1, 1, late=True) == {"to nobody"}
    assert judged(0, 0, dies_at=2) == judged(1, 1, dies_at=2) == set()
    assert judged(0, 0, dies_at=7) == {"count"}
