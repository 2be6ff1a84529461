"""Who is given a line, in one thread and without a socket."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.config import Server
from threadline.threads.calls import Call
from threadline.threads.door import Door


def door(lines: int, threads: int = 1) -> Door:
    calls = [Call(slot) for slot in range(lines)]
    with socket.socket() as nobody:
        return Door(calls, Server(), nobody, lambda: ("", {}), lambda: b"", threads=threads)


def admitted(made: Door) -> Call:
    given = made.admit("/twilio", {})
    assert isinstance(given, Call), given
    return given


@pytest.mark.parametrize("threads", [1, 2, 3])
@given(steps=st.lists(st.integers(0, 8), max_size=40))
def test_whoever_comes_and_goes_the_bound_is_exact(threads: int, steps: list[int]) -> None:
    """A step is a caller who comes (0), or the n-th of those on the line, who goes."""
    made = door(7, threads)
    on: list[Call] = []
    for step in steps:
        if step:
            if step <= len(on):
                made.give_back(on.pop(step - 1))
            continue
        answer = made.admit("/twilio", {})
        if isinstance(answer, Call):
            on.append(answer)
        else:
            assert answer == (503, "all 7 lines are in use")
            assert len(on) == 7
        assert made.live == len(on)
    assert len({call.slot for call in on}) == len(on)
    assert made.free() == sorted({*range(7)} - {call.slot for call in on})


def test_the_thread_with_most_lines_free_gets_the_next_call() -> None:
    made = door(9, threads=3)
    calls = [admitted(made) for _ in range(6)]
    assert [call.slot for call in calls] == [0, 1, 2, 3, 4, 5]
    for call in (calls[1], calls[4]):  # both calls of the second thread
        made.give_back(call)
    assert [admitted(made).slot % 3 for _ in range(3)] == [1, 1, 0]


def test_a_lowered_limit_holds_over_all_threads() -> None:
    made = door(8, threads=2)
    calls = [admitted(made) for _ in range(4)]
    made.limit = 3
    assert made.admit("/twilio", {}) == (503, "all 3 lines are in use")
    made.give_back(calls[0])
    assert made.admit("/twilio", {}) == (503, "all 3 lines are in use")
    made.give_back(calls[1])
    assert isinstance(made.admit("/twilio", {}), Call)
