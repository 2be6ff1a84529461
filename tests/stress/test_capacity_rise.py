"""How far a capacity run goes, and what it does not believe."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from rich.console import Console

from stress.capacity import page
from stress.capacity.__main__ import _rise
from stress.capacity.run import ATTEMPTS, NOISY_MS, Result


def result(calls: int, p95: float = 500.0, timer: float = 0.3) -> Result:
    return Result("free", calls, p95 - 50, p95, 120.0, 1.0, timer, underruns=0, lost=0, cpu={})


def rise(steps: Sequence[int], runs: Sequence[Result], fatal: str = "") -> list[Result]:
    left = list(runs)

    def run(calls: int) -> Result:
        one = left.pop(0)
        assert one.calls == calls
        return one

    found = _rise(steps, run, fatal, Console(quiet=True))
    assert not left
    return found


def test_it_ends_when_the_level_has_broken_twice() -> None:
    slow = [result(20, 700), result(30, 800)]
    assert rise([1, 20, 30, 40], [result(1), *slow]) == [result(1), *slow]


def test_once_is_not_the_end() -> None:
    runs = [result(1), result(20, 700), result(30), result(40)]
    assert rise([1, 20, 30, 40], runs) == runs


def test_what_broke_on_a_noisy_machine_is_run_again() -> None:
    noisy = result(20, 700, timer=NOISY_MS + 1)
    assert rise([1, 20], [result(1), noisy, result(20)]) == [result(1), result(20)]
    assert rise([1, 20], [result(1), *[noisy] * ATTEMPTS]) == [result(1), noisy]


@pytest.mark.parametrize("timer", [0.3, NOISY_MS + 1])
def test_what_held_is_run_once(timer: float) -> None:
    runs = [result(1, timer=timer), result(20, timer=timer)]
    assert rise([1, 20], runs) == runs


def test_what_held_beyond_a_load_that_broke_counts_only_if_that_one_met_noise() -> None:
    noisy = result(20, 700, timer=NOISY_MS + 1)
    assert page.held([result(1), noisy, result(30)], "free") == 30
    assert page.held([result(1), result(20, 700), result(30)], "free") == 1
    assert page.rows([result(1), noisy])[1][-1] == "slow answers (the machine was noisy)"
