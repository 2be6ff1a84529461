import os
import threading
import time

import pytest
from helpers import DEADLINE, Worker

from threadline.threads.siblings import PAGE_BYTES, Siblings


@pytest.fixture
def rows():
    fd = Siblings.make(3)
    made = [Siblings(fd, 3, row) for row in range(3)]
    os.close(fd)
    yield made
    for one in made:
        one.close()


def test_nobody_is_free_before_somebody_says_so(rows):
    assert not any(one.another_is_free() or one.another_is_ready() for one in rows)
    assert rows[0].live() == 0


def test_each_sees_the_others_and_not_itself(rows):
    rows[1].tell(4, 2, ready=True)
    assert [one.another_is_free() for one in rows] == [True, False, True]
    assert [one.another_is_ready() for one in rows] == [True, False, True]
    assert [one.live() for one in rows] == [2, 2, 2]


def test_a_sibling_that_takes_no_calls_is_not_free(rows):
    rows[1].tell(4, 0, ready=False)
    assert not rows[0].another_is_free()
    rows[2].tell(0, 4, ready=True)
    assert rows[0].another_is_ready()
    assert not rows[0].another_is_free()


def test_pages_come_from_every_row(rows):
    rows[0].publish(b"one\n")
    rows[2].publish(b"three\n" * 1000)
    assert list(rows[1].pages()) == [b"one\n", b"", b"three\n" * 1000]


def test_a_page_beyond_the_room_is_left_out(rows):
    rows[0].publish(b"x" * (PAGE_BYTES + 1))
    assert list(rows[1].pages()) == [b"", b"", b""]


def test_the_row_of_a_dead_process_is_empty(rows):
    rows[1].tell(4, 2, ready=True)
    rows[1].publish(b"mine")
    rows[0].clear(1)
    assert not rows[2].another_is_free()
    assert (rows[2].live(), list(rows[2].pages())) == (0, [b"", b"", b""])


def test_a_reader_never_takes_a_page_that_is_half_written(rows):
    whole = {b"a" * 40_000, b"b" * 50_000}
    over = threading.Event()

    def write():
        while not over.is_set():
            for page in whole:
                rows[0].publish(page)
                time.sleep(0.0002)  # a reader that is never let in proves nothing

    writer = Worker(write, "writer")
    try:
        seen, end = set(), time.monotonic() + DEADLINE
        while not whole <= seen and time.monotonic() < end:
            seen.add(rows[1].pages()[0])
    finally:
        over.set()
        writer.join(DEADLINE)
    assert seen - {b""} == whole
