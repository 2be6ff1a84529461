"""One side after the other in one thread against a deque; then both sides at once in two."""

import random
import weakref
from collections import deque
from dataclasses import dataclass

import pytest
from helpers import Deadline, Worker, race
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from threadline.threads.ring import MAX_CAPACITY, AudioRing, EventRing

CAPACITIES = (1, 2, 3, MAX_CAPACITY)
NEAR_THE_WRAP = (0, 1, 126, 127, 128, 129, 253, 254, 255)
PAYLOAD = 24


class Audio:
    """Records whose every field and byte follow from their number, so that a torn one shows."""

    @staticmethod
    def make(capacity):
        return AudioRing(capacity, PAYLOAD)

    @staticmethod
    def item(i):
        payload = bytes([i % 251]) * (i % (PAYLOAD + 1))
        return i, i * 7, i * 11, i % 65_536, i * 1_000_000_007, payload

    @staticmethod
    def push(ring, i):
        return ring.push(*Audio.item(i))


class Events:
    """The same for event rings."""

    @staticmethod
    def make(capacity):
        return EventRing(capacity)

    @staticmethod
    def item(i):
        return "event", i

    @staticmethod
    def push(ring, i):
        return ring.push(Events.item(i))


KINDS = pytest.mark.parametrize("kind", [Audio, Events])


def ring_at(kind, capacity, start):
    """A ring whose cursors both stand at `start`, and that belongs to no thread."""
    ring = kind.make(capacity)
    for i in range(start):
        assert kind.push(ring, i)
        assert ring.pop() == kind.item(i)
    assert (ring.head.at, ring.tail.at) == (start, start)
    ring._producer.release()
    ring._consumer.release()
    return ring


# -- one thread --------------------------------------------------------------------------------


class AgainstADeque(RuleBasedStateMachine):
    kind = Audio
    capacity = 1

    @initialize(start=st.sampled_from(NEAR_THE_WRAP))
    def begin(self, start):
        self.ring = ring_at(self.kind, self.capacity, start)
        self.model = deque()
        self.pushed = self.popped = self.skipped = self.refused = 0

    @rule()
    def push(self):
        fits = len(self.model) < self.capacity
        assert self.kind.push(self.ring, self.pushed) is fits
        if fits:
            self.model.append(self.pushed)
            self.pushed += 1
        else:
            self.refused += 1

    @rule()
    def fill(self):
        while len(self.model) < self.capacity:
            self.push()
        self.push()

    @rule()
    def pop(self):
        expected = None
        if self.model:
            expected = self.kind.item(self.model.popleft())
            self.popped += 1
        assert self.ring.pop() == expected

    @precondition(lambda self: self.kind is Audio)
    @rule(keep=st.integers(0, MAX_CAPACITY + 1))
    def skip_to(self, keep):
        stale = max(0, len(self.model) - keep)
        assert self.ring.skip_to(keep) == stale
        for _ in range(stale):
            self.model.popleft()
        self.skipped += stale

    @precondition(lambda self: self.kind is Audio)
    @rule()
    def peek(self):
        expected = self.kind.item(self.model[0])[:-1] if self.model else None
        assert self.ring.peek() == expected

    @rule()
    def room(self):
        free = self.capacity - len(self.model)
        room = self.ring.room()
        assert 0 <= room <= free
        assert (room == 0) == (free == 0)

    @rule()
    def ready(self):
        ready = self.ring.ready()
        assert 0 <= ready <= len(self.model)
        assert (ready == 0) == (not self.model)

    @rule()
    def backlog(self):
        assert self.ring.backlog() == len(self.model)

    @invariant()
    def nothing_is_lost_or_made_up(self):
        ring = self.ring
        assert ring.depth() == len(self.model) == self.pushed - self.popped - self.skipped
        assert ring.refused == self.refused
        assert self.kind is Events or ring.skipped == self.skipped
        assert 0 <= ring.head.at <= 255  # beyond 256 a foreign int costs a lock on each read
        assert 0 <= ring.tail.at <= 255


@pytest.mark.parametrize("capacity_", CAPACITIES)
@KINDS
def test_a_ring_is_a_bounded_deque(kind, capacity_):
    class Machine(AgainstADeque):
        capacity = capacity_

    Machine.kind = kind
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=60, stateful_step_count=60, deadline=None)
    )


@pytest.mark.parametrize("capacity", CAPACITIES)
@KINDS
def test_every_cell_survives_every_position_of_the_wrap(kind, capacity):
    ring = kind.make(capacity)
    for i in range(600):
        first = i * capacity
        for n in range(capacity):
            assert kind.push(ring, first + n)
        assert not kind.push(ring, -1) if kind is Events else ring.room() == 0
        assert [ring.pop() for _ in range(capacity)] == [
            kind.item(first + n) for n in range(capacity)
        ]
        if i % 3 == 0:  # so that the boundary falls elsewhere each time round
            assert kind.push(ring, i)
            assert ring.pop() == kind.item(i)


@pytest.mark.parametrize("capacity", [-1, 0, MAX_CAPACITY + 1])
@KINDS
def test_a_capacity_that_256_could_not_tell_full_from_empty_is_refused(kind, capacity):
    with pytest.raises(ValueError, match=f"1 to 128 cells, not {capacity}"):
        kind.make(capacity)


def test_a_payload_too_long_for_its_cell_is_refused_and_pushes_nothing():
    ring = AudioRing(2, 160)
    with pytest.raises(ValueError, match="carries 160 bytes, not 161"):
        ring.push(1, 1, 1, 0, 0, bytes(161))
    assert ring.depth() == 0


def test_a_payload_is_copied_on_the_way_in_and_out():
    ring = AudioRing(1, 4)
    source = bytearray(b"abcd")
    assert ring.push(1, 1, 1, 0, 0, source)
    source[:] = b"wxyz"
    popped = ring.pop()
    assert ring.push(1, 1, 1, 0, 0, b"1234")  # the same cell
    assert popped[-1] == b"abcd"


def test_a_short_payload_does_not_drag_the_cells_older_bytes_along():
    ring = AudioRing(1, 8)
    ring.push(1, 1, 1, 0, 0, b"longlong")
    ring.pop()
    ring.push(1, 1, 1, 0, 0, b"s")
    assert ring.pop()[-1] == b"s"


def test_header_fields_carry_their_whole_range():
    ring = AudioRing(1, 1)
    largest = (2**32 - 1, 2**32 - 1, 2**32 - 1, 2**16 - 1, 2**64 - 1)
    ring.push(*largest, b"x")
    assert ring.peek() == largest
    assert ring.pop() == (*largest, b"x")


def test_a_popped_event_is_not_kept_alive_by_its_cell():
    class Big:
        pass

    ring = EventRing(4)
    event = Big()
    alive = weakref.ref(event)
    ring.push(event)
    del event
    assert alive() is not None
    ring.pop()
    assert alive() is None


@KINDS
def test_a_second_producer_or_consumer_is_caught(kind):
    ring = kind.make(2)
    kind.push(ring, 0)
    ring.pop()
    with pytest.raises(AssertionError, match="a second producer"):
        Worker(lambda: kind.push(ring, 1)).join()
    audio_only = [ring.peek, lambda: ring.skip_to(0)] if kind is Audio else []
    for consume in (ring.pop, *audio_only):
        with pytest.raises(AssertionError, match="a second consumer"):
            Worker(consume).join()
    assert ring.depth() == 0


@KINDS
def test_a_side_can_be_handed_over_once_its_thread_is_gone(kind):
    ring = kind.make(2)
    Worker(lambda: kind.push(ring, 7)).join()
    with pytest.raises(AssertionError):
        kind.push(ring, 8)
    ring._producer.release()
    assert kind.push(ring, 8)
    assert [ring.pop(), ring.pop()] == [kind.item(7), kind.item(8)]


# -- two threads -------------------------------------------------------------------------------


@dataclass
class Scene:
    """A producer that never gives up and what its ring refused meanwhile."""

    kind: type
    ring: object
    items: int
    refused: int = 0

    def produce(self):
        deadline = Deadline()
        for i in range(self.items):
            while not self.kind.push(self.ring, i):
                self.refused += 1
                deadline.check(f"item {i} of {self.items} finds no room")


SIZES = [(1, 3000), (2, 5000), (3, 5000), (MAX_CAPACITY, 20_000)]


@pytest.mark.parametrize("start", [0, 250])
@pytest.mark.parametrize(("capacity", "items"), SIZES)
@KINDS
def test_two_threads_lose_repeat_reorder_and_tear_nothing(kind, capacity, items, start):
    scene = Scene(kind, ring_at(kind, capacity, start), items)

    def consume():
        deadline = Deadline()
        for i in range(items):
            while (got := scene.ring.pop()) is None:
                deadline.check(f"item {i} of {items} does not come")
            assert got == kind.item(i)
        assert scene.ring.pop() is None

    race(scene.produce, consume)
    assert scene.ring.refused == scene.refused


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("capacity", "items"), SIZES)
def test_a_consumer_that_skips_still_accounts_for_every_item(capacity, items, seed):
    scene = Scene(Audio, ring_at(Audio, capacity, 250), items)
    dice = random.Random(seed)

    def consume():
        deadline = Deadline()
        at = popped = 0
        while at < items:
            if dice.random() < 0.05:
                at += scene.ring.skip_to(dice.randrange(capacity + 1))
            elif (got := scene.ring.pop()) is not None:
                assert got == Audio.item(at), (
                    f"seed {seed}: {at} popped, {scene.ring.skipped} skipped"
                )
                at += 1
                popped += 1
            else:
                deadline.check(f"seed {seed}: item {at} of {items} does not come")
        return popped

    _, popped = race(scene.produce, consume)
    assert popped + scene.ring.skipped == items
    assert scene.ring.depth() == 0
    assert scene.ring.refused == scene.refused


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("capacity", CAPACITIES)
@KINDS
def test_a_producer_that_drops_what_is_refused_loses_exactly_that(kind, capacity, seed):
    ring = ring_at(kind, capacity, 250)
    dice = random.Random(seed)
    items = 5000
    accepted = []
    ended = []

    def produce():
        accepted.extend([i for i in range(items) if kind.push(ring, i)])
        ended.append(True)

    def consume():
        deadline = Deadline()
        got = []
        while not (ended and ring.backlog() == 0):
            if (item := ring.pop()) is not None:
                got.append(item)
            if dice.random() < 0.1:
                deadline.check(f"seed {seed}: the producer does not end")
        return got

    _, got = race(produce, consume)
    assert got == [kind.item(i) for i in accepted]
    assert ring.refused == items - len(accepted)


def test_room_and_ready_only_err_on_the_safe_side_while_the_other_side_moves():
    ring = EventRing(3)
    items = 5000

    def produce():
        deadline = Deadline()
        sent = 0
        while sent < items:
            for _ in range(ring.room()):  # what it promised must fit
                assert ring.push(sent)
                sent += 1
            deadline.check("room")

    def consume():
        deadline = Deadline()
        got = 0
        while got < items:
            for _ in range(ring.ready()):  # what it promised must be there
                assert ring.pop() == got
                got += 1
            deadline.check("ready")

    race(produce, consume)
    assert ring.refused == 0
