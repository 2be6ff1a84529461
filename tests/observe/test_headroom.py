from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from threadline.observe.headroom import (
    ENOUGH_FRAMES,
    LATE_MS,
    LATE_SHARE,
    REST_SECONDS,
    WAITED_SECONDS,
    Headroom,
)
from threadline.observe.histogram import LATENESS_MS, Histogram

QUEUE = 4


def counts(histogram):
    return histogram.snapshot().counts


def test_frames_on_time_leave_room():
    room, lateness = Headroom(LATENESS_MS, QUEUE), Histogram(LATENESS_MS)
    for now in range(20):
        for _ in range(500):
            lateness.observe(0.3)
        assert room.look(now, counts(lateness), 0.0, 0) == ""


def late_second(lateness):
    for _ in range(90):
        lateness.observe(1.0)
    for _ in range(10):
        lateness.observe(LATE_MS * 2)


def test_late_frames_close_the_door_until_all_was_well_for_a_while():
    room, lateness = Headroom(LATENESS_MS, QUEUE), Histogram(LATENESS_MS)
    late_second(lateness)
    assert room.look(99.0, counts(lateness), 0.0, 0) == ""
    late_second(lateness)
    assert room.look(100.0, counts(lateness), 0.0, 0) == "10 % of the frames leave late"
    now = 100.0
    while now + 1 < 100.0 + REST_SECONDS:
        now += 1
        for _ in range(200):
            lateness.observe(1.0)
        assert room.look(now, counts(lateness), 0.0, 0)
    assert room.look(100.0 + REST_SECONDS, counts(lateness), 0.0, 0) == ""


def test_a_machine_that_stopped_for_a_moment_has_room():
    room, lateness = Headroom(LATENESS_MS, QUEUE), Histogram(LATENESS_MS)
    for now in range(0, 20, 2):
        late_second(lateness)
        assert room.look(now, counts(lateness), 0.0, 0) == ""
        for _ in range(100):
            lateness.observe(1.0)
        assert room.look(now + 1, counts(lateness), 0.0, 0) == ""


def test_what_was_late_long_ago_counts_no_more():
    room, lateness = Headroom(LATENESS_MS, QUEUE), Histogram(LATENESS_MS)
    for now in range(2):
        for _ in range(1000):
            lateness.observe(90.0)
        shut = room.look(now, counts(lateness), 0.0, 0)
    assert shut
    assert room.look(1 + REST_SECONDS, counts(lateness), 0.0, 0) == ""


def test_a_handful_of_frames_proves_nothing():
    room, lateness = Headroom(LATENESS_MS, QUEUE), Histogram(LATENESS_MS)
    for now in range(5):
        for _ in range(ENOUGH_FRAMES - 1):
            lateness.observe(90.0)
        assert room.look(now, counts(lateness), 0.0, 0) == ""


def test_turns_that_wait_for_the_recogniser_close_it_too():
    room, lateness = Headroom(LATENESS_MS, QUEUE), Histogram(LATENESS_MS)
    assert room.look(0.0, counts(lateness), WAITED_SECONDS, 0) == ""
    assert "recogniser" in room.look(1.0, counts(lateness), WAITED_SECONDS + 0.1, 0)


def test_so_do_too_many_of_them_at_once_however_short_they_wait():
    room, lateness = Headroom(LATENESS_MS, QUEUE), Histogram(LATENESS_MS)
    assert room.look(0.0, counts(lateness), 0.0, QUEUE) == ""
    full = room.look(1.0, counts(lateness), 0.0, QUEUE + 1)
    assert full == "5 finished turns wait for the recogniser at once"
    assert room.look(1.0 + REST_SECONDS, counts(lateness), 0.0, QUEUE) == ""


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=2, max_size=30))
def test_the_door_is_shut_exactly_while_two_looks_in_a_row_were_bad_of_late(seconds):
    room, lateness = Headroom(LATENESS_MS, QUEUE), Histogram(LATENESS_MS)
    bad_at, bad = [], False
    for now, (good, late) in enumerate(seconds):
        for _ in range(good):
            lateness.observe(0.2)
        for _ in range(late):
            lateness.observe(LATE_MS * 1.5)
        total = good + late
        again, bad = bad, total >= ENOUGH_FRAMES and late > LATE_SHARE * total
        if again and bad:
            bad_at.append(now)
        reason = room.look(float(now), counts(lateness), 0.0, 0)
        assert bool(reason) == any(now - at < REST_SECONDS for at in bad_at)


def test_the_bound_of_lateness_falls_between_two_buckets():
    assert any(low < LATE_MS <= high for low, high in pairwise(LATENESS_MS))
