"""The breaker, against its rules, with a clock of our own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.vendors.breaker import Breaker


def broken(now: float = 0.0) -> Breaker:
    breaker = Breaker(failures=3, rest_seconds=5.0, longest_seconds=60.0)
    for _ in range(3):
        breaker.failed(now)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker(failures=3)
    for _ in range(2):
        breaker.failed(0.0)
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(1.0)
    assert breaker.allows(1.0)
    assert not breaker.open
    breaker.failed(1.0)
    assert not breaker.allows(1.0)
    assert breaker.open


def test_one_request_goes_through_after_the_rest() -> None:
    breaker = broken()
    assert not breaker.allows(4.99)
    assert breaker.allows(5.0)
    assert breaker.open, "it is open until that request has succeeded"
    assert not breaker.allows(5.0)


def test_success_after_the_rest_closes_it() -> None:
    breaker = broken()
    assert breaker.allows(5.0)
    breaker.succeeded()
    assert breaker.allows(5.0)
    assert breaker.allows(5.0)
    assert not breaker.open
    breaker.failed(6.0)
    assert breaker.allows(6.0), "the failures of before are forgotten"


def test_the_rest_doubles_up_to_the_longest() -> None:
    breaker, now, rests = broken(), 0.0, []
    for _ in range(6):
        rest = next(r for r in range(1, 100) if breaker.allows(now + r))
        now += rest
        breaker.failed(now)
        rests.append(rest)
    assert rests == [5, 10, 20, 40, 60, 60]


def test_after_success_the_rest_is_short_again() -> None:
    breaker = broken()
    assert breaker.allows(5.0)
    breaker.failed(5.0)
    assert breaker.allows(15.0)
    breaker.succeeded()
    for _ in range(3):
        breaker.failed(20.0)
    assert not breaker.allows(24.9)
    assert breaker.allows(25.0)


def test_failures_of_requests_from_before_do_not_prolong_the_rest() -> None:
    breaker = broken()
    for now in (1.0, 2.0, 3.0):
        breaker.failed(now)
    assert breaker.allows(5.0)


def test_a_trial_that_is_never_reported_costs_one_more_rest() -> None:
    breaker = broken()
    assert breaker.allows(5.0)
    assert not breaker.allows(9.9)
    assert breaker.allows(10.0)


@pytest.mark.parametrize(("asked", "rest"), [(0.5, 5.0), (20.0, 20.0), (3600.0, 60.0)])
def test_a_vendor_that_asks_for_rest_gets_it_at_once(asked: float, rest: float) -> None:
    breaker = Breaker(failures=3, rest_seconds=5.0, longest_seconds=60.0)
    breaker.failed(0.0, asked)
    assert not breaker.allows(rest - 0.01)
    assert breaker.allows(rest)


def test_a_vendor_that_asks_for_rest_again_gets_it() -> None:
    breaker = broken()
    breaker.failed(1.0, 30.0)
    assert not breaker.allows(30.9)
    assert breaker.allows(31.0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["allows", "succeeded", "failed", "limited"]),
        st.floats(0.0, 30.0),
    ),
    max_size=80,
)


@given(STEPS)
def test_at_any_time(steps: list[tuple[str, float]]) -> None:
    """Closed, it allows all; open, one per rest at most, and always one after the longest."""
    breaker = Breaker(failures=3, rest_seconds=5.0, longest_seconds=60.0)
    now, in_a_row, allowed_at = 0.0, 0, -100.0
    for step, gap in steps:
        now += gap
        match step:
            case "allows":
                was_open = breaker.open
                allowed = breaker.allows(now)
                assert allowed or was_open
                if was_open and allowed:
                    assert now - allowed_at >= 5.0
                    allowed_at = now
            case "succeeded":
                breaker.succeeded()
                in_a_row, allowed_at = 0, -100.0
                assert not breaker.open
            case "failed":
                breaker.failed(now)
                in_a_row += 1
            case "limited":
                breaker.failed(now, gap + 0.1)
                in_a_row += 1
                assert breaker.open
        if in_a_row == 0:
            assert not breaker.open
        if in_a_row >= 3:
            assert breaker.open
    assert breaker.allows(now + 60.0)
