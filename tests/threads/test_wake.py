import os

import pytest
from helpers import DEADLINE, race

from threadline.threads.wake import Inbox, Overflow


@pytest.fixture
def inbox():
    made = Inbox("vad")
    yield made
    made.close()


def pairs(outbox, count):
    for i in range(count):
        outbox.put(i)


def test_an_event_arrives_and_wakes(inbox):
    outbox = inbox.port("reply")
    assert not inbox.wait(0)
    outbox.put("hello")
    assert inbox.wait(0)
    assert list(inbox.events()) == ["hello"]
    assert not inbox.wait(0)
    assert list(inbox.events()) == []


def test_many_wakes_are_one(inbox):
    for _ in range(5):
        inbox.wake()
    assert inbox.wait(0)
    assert not inbox.wait(0)


def test_what_does_not_fit_is_kept_and_goes_first(inbox):
    outbox = inbox.port("reply", capacity=2)
    pairs(outbox, 5)
    assert outbox.stalls == 3
    assert (outbox.depth(), inbox.depth()) == (5, 2)
    assert not outbox.flush()  # still full
    assert list(inbox.events()) == [0, 1]
    outbox.put(5)  # behind the three that wait
    assert list(inbox.events()) == [2, 3]
    assert outbox.flush()
    assert list(inbox.events()) == [4, 5]
    assert outbox.flush()
    assert outbox.depth() == 0


def test_a_flush_that_delivers_wakes_the_consumer(inbox):
    outbox = inbox.port("reply", capacity=1)
    pairs(outbox, 2)
    inbox.clear()
    list(inbox.events())
    inbox.clear()
    assert outbox.flush()
    assert inbox.wait(0)
    assert list(inbox.events()) == [1]


def test_even_an_event_that_is_kept_wakes_the_consumer(inbox):
    outbox = inbox.port("reply", capacity=1)
    outbox.put(0)
    inbox.clear()
    outbox.put(1)
    assert inbox.wait(0)


def test_a_backlog_at_its_limit_overflows_and_keeps_what_it_has(inbox):
    outbox = inbox.port("reply", capacity=2, limit=3)
    pairs(outbox, 5)
    with pytest.raises(Overflow, match="reply -> vad: 3 events"):
        outbox.put(5)
    got = list(inbox.events())
    outbox.flush()
    got += inbox.events()
    outbox.flush()
    got += inbox.events()
    assert got == [0, 1, 2, 3, 4]
    outbox.put(6)  # room again
    assert list(inbox.events()) == [6]


def test_a_flood_on_one_port_lets_the_others_through_and_rearms(inbox):
    flood, other = inbox.port("flood", capacity=2), inbox.port("other", capacity=2)
    pairs(flood, 2)
    other.put("me too")
    assert inbox.wait(0)
    got = []
    for event in inbox.events():
        got.append(event)
        if isinstance(event, int):
            flood.put(event + 2)  # as fast as they are taken
    assert got == [0, 1, "me too"]
    assert inbox.wait(0)
    assert list(inbox.events()) == [2, 3]


def test_a_port_drained_by_exactly_one_ringful_rearms_without_another_wake(inbox):
    outbox = inbox.port("reply", capacity=2)
    pairs(outbox, 2)
    inbox.clear()
    assert list(inbox.events()) == [0, 1]
    assert inbox.wait(0)  # it could not know that there was no third


def test_a_consumer_that_fails_over_one_event_is_woken_for_the_rest(inbox):
    first, second = inbox.port("first"), inbox.port("second")
    first.put("bad")
    first.put("good")
    second.put("good, too")
    assert inbox.wait(0)

    def consume():
        for _ in inbox.events():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert inbox.wait(0)
    assert list(inbox.events()) == ["good", "good, too"]
    assert not inbox.wait(0)


def test_a_watched_descriptor_wakes_until_it_is_forgotten(inbox):
    read, write = os.pipe()
    try:
        inbox.watch(read)
        assert not inbox.wait(0)
        os.write(write, b"x")
        assert inbox.wait(0)
        assert inbox.wait(0)  # nobody has read it yet
        inbox.forget(read)
        assert not inbox.wait(0)
    finally:
        os.close(read)
        os.close(write)


def test_a_timeout_is_no_wake_up(inbox):
    assert not inbox.wait(0.001)
    inbox.clear()  # nothing to take: no error


def test_two_threads_never_lose_a_wake_up():
    """Each waits for the other's answer, so one lost wake-up would stop both for good."""
    rounds = 10_000
    here, there = Inbox("here"), Inbox("there")
    to_there, to_here = there.port("here", capacity=1), here.port("there", capacity=1)

    def receive(inbox):
        while not (got := list(inbox.events())):
            assert inbox.wait(DEADLINE), "a wake-up was lost"
        assert len(got) == 1
        return got[0]

    def ping():
        for i in range(rounds):
            to_there.put(i)
            assert receive(here) == i + 1

    def pong():
        for _ in range(rounds):
            to_here.put(receive(there) + 1)

    race(ping, pong)
    here.close()
    there.close()


@pytest.mark.parametrize("capacity", [1, 3, 128])
def test_a_producer_that_never_waits_reaches_a_consumer_that_sleeps_whenever_it_can(capacity):
    items = 5000
    inbox = Inbox("consumer")
    outbox = inbox.port("producer", capacity, limit=items)
    second = inbox.port("second", capacity, limit=items)

    def produce(port, name):
        for i in range(items):
            port.put((name, i))
        while not port.flush():
            pass

    def consume():
        got = []
        while len(got) < 2 * items:
            assert inbox.wait(DEADLINE), f"a wake-up was lost after {len(got)} events"
            got += inbox.events()
        return got

    *_, got = race(lambda: produce(outbox, "a"), lambda: produce(second, "b"), consume)
    for name in "ab":
        assert [i for who, i in got if who == name] == list(range(items))
    inbox.close()
