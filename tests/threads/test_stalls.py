"""Short stalls are found while they last, and told apart from a machine without a core."""

import select
import threading
import time

import pytest
from helpers import DEADLINE, Worker, until

from threadline.threads import stalls
from threadline.threads.stalls import LOOK_SECONDS, Pulse, Stage, Stalls

MS = 1_000_000


class Records:
    def __init__(self):
        self.all = []

    def __getattr__(self, level):
        return lambda event, **fields: self.all.append((level, event, fields))


@pytest.fixture
def records(monkeypatch):
    made = Records()
    monkeypatch.setattr(stalls, "_log", made)
    return made


class Sleeper:
    """A stage whose thread stands in `the_culprit`; since when it is awake, the test says."""

    def __init__(self):
        self.since = 0
        self.over = threading.Event()
        self.worker = Worker(self.the_culprit, "vad")
        self.stage = Stage("vad", self.worker.thread, lambda: 0, lambda: None, lambda _: self.since)

    def the_culprit(self):
        assert self.over.wait(DEADLINE)


@pytest.fixture
def sleeper():
    made = Sleeper()
    yield made
    made.over.set()
    made.worker.join()


def looks(made, begin, end, step=20):
    for at in range(begin, end + 1, step):
        made.look(at * MS)


def test_a_stall_is_told_once_with_its_stack_and_what_else_is_known(sleeper, records):
    made = Stalls([sleeper.stage], lambda: {"depths": {"vad": 3}})
    looks(made, 1000, 1020)
    sleeper.since = 1021 * MS
    looks(made, 1040, 1100)
    assert records.all == []  # how long it takes is known when it is over
    sleeper.since = 0
    looks(made, 1120, 1200)
    ((level, event, fields),) = records.all
    assert (level, event, fields["stage"]) == ("warning", "stall", "vad")
    assert fields["ms"] == 79.0
    assert "the_culprit" in fields["stack"]
    assert fields["depths"] == {"vad": 3}
    assert len(fields["gc"]) == 3
    assert (made.stalls, made.starved) == ([1], [0])


def test_a_turn_within_its_limit_is_no_stall(sleeper, records):
    made = Stalls([sleeper.stage], dict)
    for begin in range(1000, 2000, 40):  # awake all the time, but each turn is short
        sleeper.since = begin * MS
        looks(made, begin, begin + 20)
    sleeper.since = 0
    looks(made, 2000, 2100)
    assert records.all == []


def test_a_look_that_is_itself_late_accuses_nobody(sleeper, records):
    made = Stalls([sleeper.stage], dict)
    looks(made, 1000, 1020)
    sleeper.since = 1021 * MS
    made.look(1300 * MS)  # this thread did not run either
    sleeper.since = 0
    looks(made, 1320, 1400)
    assert records.all == []


def test_a_thread_that_waited_for_a_core_is_starved_and_not_stalled(sleeper, records, monkeypatch):
    waited = [0]
    monkeypatch.setattr(stalls, "waited_ns", lambda thread: waited[0])
    made = Stalls([sleeper.stage], dict)
    looks(made, 1000, 1020)
    sleeper.since = 1021 * MS
    looks(made, 1040, 1080)
    waited[0] = 45 * MS  # the kernel counts a wait when it is over
    sleeper.since = 0
    looks(made, 1100, 1120)
    ((level, event, fields),) = records.all
    assert (level, event, fields["waited_for_core_ms"]) == ("info", "no core for a stage", 45.0)
    assert (made.stalls, made.starved) == ([0], [1])


def test_waiting_from_before_does_not_excuse_a_stall(sleeper, records, monkeypatch):
    monkeypatch.setattr(stalls, "waited_ns", lambda thread: 900 * MS)
    made = Stalls([sleeper.stage], dict)
    made.settle()
    looks(made, 1000, 1020)
    sleeper.since = 1021 * MS
    looks(made, 1040, 1080)
    sleeper.since = 0
    looks(made, 1100, 1120)
    assert [event for _, event, _ in records.all] == ["stall"]


def test_the_kernel_counts_how_long_a_thread_waited_for_a_core():
    def burn():
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass

    threads = [threading.Thread(target=burn) for _ in range(8)]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, *(stalls.waited_ns(thread) for thread in threads))
    if not most:
        pytest.skip("this kernel does not count, or there are cores for all")
    assert most > 0


def test_a_pulse_says_since_when_a_loop_has_not_come_round():
    pulse, ready = Pulse(), select.poll()
    ready.register(pulse.fileno(), select.POLLIN)
    assert pulse.awake(100) == 0
    assert ready.poll(0), "the loop is asked"
    assert pulse.awake(120) == 100
    assert pulse.awake(140) == 100
    pulse.answer()
    assert pulse.awake(160) == 0
    assert ready.poll(0), "and asked again"
    pulse.answer()
    pulse.close()


def test_an_inbox_tells_when_its_owner_sleeps():
    from threadline.threads.wake import Inbox

    inbox = Inbox("vad")
    worker = Worker(lambda: inbox.wait(DEADLINE), "vad")
    until(lambda: worker.thread.is_alive() and inbox.awake == 0, "it sleeps")
    before = time.monotonic_ns()
    inbox.wake()
    worker.join()
    assert before <= inbox.awake <= time.monotonic_ns()
    inbox.close()


def test_looking_is_often_enough_for_the_limit():
    assert LOOK_SECONDS * 1e3 * 2 <= stalls.LIMIT_MS
